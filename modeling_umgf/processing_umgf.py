"""Words, pictures and objects → the batch that UMGF reads."""

from collections.abc import Callable, Mapping, Sequence
from typing import Any

from .image_processing_multimodal_ner import MultimodalNerImageProcessor
from .processing_multimodal_ner import OBJECTS, MultimodalNerProcessor, PreparedPost, check_objects

UmgfImageProcessor = MultimodalNerImageProcessor
"""The image processor of all systems, by the name that this one gave it first."""


class UmgfProcessor(MultimodalNerProcessor):
    """Tokenizer and image processor behind one call.

    It reads, besides words and pictures, the columns
        objects: boxes of the picture, {"box": [x0, y0, x1, y1], "phrase": {"start", "end"} or None}. None = nobody
            looked: the whole picture becomes one general node, unless there is a grounder. [] = nothing was found;
        object_features: [m, F] features of the objects, instead of pictures;
    and calls a grounder, which finds objects where none are given: a function of the words and the pictures of posts.

    Args:
        image_processor: cuts out and normalises the crops; default `UmgfImageProcessor()`.
        tokenizer: any fast tokenizer.
        visual_nodes: "objects", only the "general" ones (linked to every word), or the whole picture as a "grid".
        max_objects: most visual nodes of a post; general objects come first, then the better score.
    """

    columns = ("image", "objects", "object_features")
    describers = ("grounder",)
    node_kinds = {"objects": OBJECTS}

    def __init__(self, image_processor=None, tokenizer=None, visual_nodes="objects", max_objects=12, **unknown):
        if visual_nodes not in ("objects", "general", "grid"):
            raise ValueError(f"visual_nodes={visual_nodes!r}: choose objects, general or grid.")
        if not isinstance(max_objects, int) or max_objects < 0:
            raise ValueError(f"max_objects={max_objects!r}: a whole number, at least 0.")
        self.visual_nodes = visual_nodes
        self.max_objects = max_objects
        super().__init__(image_processor or UmgfImageProcessor(), tokenizer, **unknown)

    def add_nodes(
        self,
        prepared: Sequence[PreparedPost],
        posts: Sequence[Mapping[str, Any]],
        options: Mapping[str, Any],
        grounder: Callable | None = None,
    ) -> None:
        """Choose the visual nodes of each post, and make their crops, or take their features."""
        features = self.given_features(posts, prepared)
        objects = [post.get("objects") for post in posts]
        if self.visual_nodes == "grid":
            objects = [None] * len(objects)
        elif grounder is not None:
            asked = [
                i
                for i, post in enumerate(prepared)
                if objects[i] is None and features[i] is None and post.picture is not None
            ]
            found = grounder([prepared[i].tokens for i in asked], [prepared[i].picture for i in asked]) if asked else []
            for i, own in zip(asked, found, strict=True):
                objects[i] = own
        for i, post in enumerate(prepared):
            check_objects(objects[i], i)
            objects[i], features[i] = self.choose(objects[i], features[i], post.picture)
        self.add_objects(prepared, objects, features, options)

    def choose(self, objects, features, picture) -> tuple[list[dict] | None, Any]:
        """Return the objects of a post that become nodes, best first, and the features that belong to them."""
        if features is None and picture is None:
            return [], None
        if objects is None and features is None:
            return [{"box": [0, 0, *picture.size], "phrase": None}], None
        if objects is None:
            objects = [{"phrase": None}] * len(features)
        if self.visual_nodes == "grid" or (features is not None and len(features) != len(objects)):
            return objects, features  # every cell; or a mistake, which add_objects names
        chosen = list(range(len(objects)))
        if self.visual_nodes == "general":
            chosen = [j for j in chosen if objects[j].get("phrase") is None]
        if len(chosen) > self.max_objects:
            chosen.sort(key=lambda j: (objects[j].get("phrase") is not None, -(objects[j].get("score") or 0)))
        chosen = chosen[: self.max_objects]
        return [objects[j] for j in chosen], None if features is None else [features[j] for j in chosen]
