"""Words, pictures and objects → the batch that UMGF reads."""

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import torch
from PIL import Image

from .describer import Describer
from .image_processing_multimodal_ner import MultimodalNerImageProcessor
from .processing_multimodal_ner import (
    OBJECTS,
    MultimodalNerProcessor,
    PreparedPost,
    check_nodes,
    naming_post,
    whole_picture,
)

UmgfImageProcessor = MultimodalNerImageProcessor
"""The image processor of all systems, by the name that this one gave it first."""


class UmgfProcessor(MultimodalNerProcessor):
    """Tokenizer and image processor behind one call.

    It reads, besides words and pictures, the columns
        objects: boxes of the picture, {"box": [x0, y0, x1, y1], "phrase": {"start", "end"} or None, "score"}. None =
            nobody looked: the whole picture becomes one general node, unless there is a grounder. [] = nothing was
            found. Posts without this key, for a model that was trained with objects, get them from the detector that
            made those, where it can be loaded;
        object_features: [m, F] features of the objects, instead of pictures;
    and calls a grounder, which finds objects where none are given: a function of the words and the pictures of posts.

    Args:
        image_processor: cuts out and normalises the crops; default `UmgfImageProcessor()`.
        tokenizer: any fast tokenizer.
        visual_nodes: "objects"; only the "general" ones (linked to every word); the whole "picture", or it and its
            "tiles", whatever objects are given, so that no detector is needed; or the whole picture as a "grid".
        max_objects: most visual nodes of a post; general objects come first, then the better score. Tiles and a grid
            are whole.
        context: columns of texts that are read after the post, see `MultimodalNerProcessor`.
    """

    columns = ("image", "objects", "object_features")
    describers = {"grounder": "objects"}
    node_kinds = {"objects": OBJECTS}

    def __init__(self, image_processor=None, tokenizer=None, visual_nodes="objects", max_objects=12, context=()):
        if visual_nodes not in ("objects", "general", "picture", "tiles", "grid"):
            raise ValueError(f"visual_nodes={visual_nodes!r}: choose objects, general, picture, tiles or grid.")
        if not isinstance(max_objects, int) or max_objects < 0:
            raise ValueError(f"max_objects={max_objects!r}: a whole number, at least 0.")
        self.visual_nodes = visual_nodes
        self.max_objects = max_objects
        super().__init__(image_processor or UmgfImageProcessor(), tokenizer, context=context)

    def describer_class(self, name: str) -> type[Describer]:
        """What finds objects, and the context."""
        from .grounding import Grounder  # here, so that only a search for objects loads what it needs

        return Grounder if name == "grounder" else super().describer_class(name)

    @property
    def reads_objects(self) -> bool:
        """Whether given or found objects become nodes, and not fixed parts of the picture."""
        return self.visual_nodes in ("objects", "general")

    @property
    def model_input_names(self) -> list[str]:
        """Names of the tensors of a batch of posts with pictures."""
        return [*super().model_input_names, "inter_modal_mask"]

    def add_nodes(
        self,
        prepared: Sequence[PreparedPost],
        posts: Sequence[Mapping[str, Any]],
        options: Mapping[str, Any],
        grounder: Callable | None = None,
    ) -> None:
        """Choose the visual nodes of each post, make their crops or take their features, and link them to words."""
        features = self.given_features(prepared, posts)
        objects = [post.get("objects") if self.reads_objects else None for post in posts]
        unseen = []
        for i, post in enumerate(prepared):
            asked = grounder is not None or "objects" not in posts[i]
            if asked and objects[i] is None and features[i] is None and post.picture is not None:
                unseen.append(i)
        if unseen and grounder is None and self.reads_objects:
            grounder = self.own_describer("grounder")
        if grounder is not None and self.reads_objects:
            words = [prepared[i].tokens for i in unseen]
            found = grounder(words, [prepared[i].picture for i in unseen]) if unseen else []
            for i, own in zip(unseen, found, strict=True):
                objects[i] = own
        for i, post in enumerate(prepared):
            with naming_post(i, prepared):
                check_nodes("objects", objects[i], ["box"] if features[i] is None else [])
                chosen, own = self.choose(post, objects[i], features[i])
                self.add_objects(post, chosen, own, options)
                post.features["inter_modal_mask"] = links(chosen, len(post.words))

    def choose(
        self, post: PreparedPost, objects: Sequence[Mapping[str, Any]] | None, features: torch.Tensor | None
    ) -> tuple[list[Mapping[str, Any]], torch.Tensor | None]:
        """Choose the objects of a post that become nodes.

        Args:
            post: the post, its picture opened.
            objects: its objects; None = nobody looked.
            features: [m, F] features of the objects, or None.

        Returns:
            The nodes, and the features that belong to them.

        Raises:
            ValueError: another number of objects than of features.
        """
        if features is None and post.picture is None:
            return [], None
        if objects is None:
            parts = tiles if self.visual_nodes == "tiles" else whole_picture
            objects = parts(post.picture) if features is None else [{"phrase": None}] * len(features)
        if features is not None and len(objects) != len(features):
            raise ValueError(f"{len(objects)} objects but {len(features)} object_features")
        if not self.reads_objects:
            return list(objects), features
        chosen = list(range(len(objects)))
        if self.visual_nodes == "general":
            chosen = [j for j in chosen if objects[j].get("phrase") is None]
        if len(chosen) > self.max_objects:
            chosen.sort(key=lambda j: (objects[j].get("phrase") is not None, -(objects[j].get("score") or 0)))
            chosen = chosen[: self.max_objects]
        return [objects[j] for j in chosen], None if features is None else features[chosen]


def tiles(picture: Image.Image) -> list[dict[str, Any]]:
    """The whole picture and its four quarters, as nodes that are linked to every word."""
    x, y = picture.width / 2, picture.height / 2
    quarters = {
        "upper left": [0, 0, x, y],
        "upper right": [x, 0, picture.width, y],
        "lower left": [0, y, x, picture.height],
        "lower right": [x, y, picture.width, picture.height],
    }
    nodes = [{"box": box, "query": name, "phrase": None} for name, box in quarters.items()]
    return whole_picture(picture) + nodes


def links(objects: Sequence[Mapping[str, Any]], num_words: int) -> torch.Tensor:
    """Link objects to words [w, m]: one with a phrase {"start", "end"} to the words start..end-1, others to all words.

    Raises:
        ValueError: a phrase outside the post.
    """
    edges = torch.zeros(max(num_words, 1), len(objects), dtype=torch.bool)
    for j, node in enumerate(objects):
        phrase = node.get("phrase")
        start, end = (0, num_words) if phrase is None else (phrase["start"], phrase["end"])
        if phrase is not None and not 0 <= start < end <= num_words:
            raise ValueError(f"{num_words} words, but an object is linked to the phrase {start}..{end}")
        edges[start:end, j] = True
    return edges
