"""Words and objects → the batch that OCSGA reads."""

from collections.abc import Mapping, Sequence
from typing import Any

from .image_processing_multimodal_ner import MultimodalNerImageProcessor
from .processing_multimodal_ner import (
    OBJECTS,
    MultimodalNerProcessor,
    PreparedPost,
    check_nodes,
    naming_post,
    whole_picture,
)


class OcsgaProcessor(MultimodalNerProcessor):
    """Tokenizer and image processor behind one call.

    It reads, besides words and pictures, the columns
        objects: boxes of the picture, {"box": [x0, y0, x1, y1], "query": label}. None = the whole picture is one;
        object_features: [m, F] the word vectors of the objects' labels, instead of pictures.

    Args:
        image_processor: cuts out and normalises the crops; default `MultimodalNerImageProcessor()`.
        tokenizer: any fast tokenizer.
        max_objects: the first so many objects of a post are read (the paper: 4).
        context: columns of texts that are read after the post, see `MultimodalNerProcessor`.
    """

    columns = ("image", "objects", "object_features")
    node_kinds = {"objects": OBJECTS}

    def __init__(self, image_processor=None, tokenizer=None, max_objects=4, context=()):
        if not isinstance(max_objects, int) or max_objects < 0:
            raise ValueError(f"max_objects={max_objects!r}: a whole number, at least 0.")
        self.max_objects = max_objects
        super().__init__(image_processor or MultimodalNerImageProcessor(), tokenizer, context=context)

    def add_nodes(
        self, prepared: Sequence[PreparedPost], posts: Sequence[Mapping[str, Any]], options: Mapping[str, Any]
    ) -> None:
        """Give each post its first objects, with their features or crops."""
        all_features = self.given_features(prepared, posts)
        for i, features in enumerate(all_features):
            with naming_post(i, prepared):
                objects = self.objects_of(prepared[i], posts[i].get("objects"), features)[: self.max_objects]
                self.add_objects(prepared[i], objects, None if features is None else features[: len(objects)], options)

    def objects_of(self, post: PreparedPost, objects, features) -> list[Mapping[str, Any]]:
        """All objects of a post, with a picture or features of each."""
        if features is None:
            check_nodes("objects", objects, ["box"])
            if objects is None or post.picture is None:
                return whole_picture(post.picture)
            return list(objects)
        check_nodes("objects", objects, [])
        objects = [{}] * len(features) if objects is None or not len(features) else list(objects)
        if len(objects) != len(features):
            raise ValueError(f"{len(objects)} objects but {len(features)} object_features: give one row an object")
        return objects
