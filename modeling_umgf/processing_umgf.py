"""Words, pictures and objects → the batch that UMGF reads."""

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import torch

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
            found;
        object_features: [m, F] features of the objects, instead of pictures;
    and calls a grounder, which finds objects where none are given: a function of the words and the pictures of posts.

    Args:
        image_processor: cuts out and normalises the crops; default `UmgfImageProcessor()`.
        tokenizer: any fast tokenizer.
        visual_nodes: "objects", only the "general" ones (linked to every word), or the whole picture as a "grid".
        max_objects: most visual nodes of a post; general objects come first, then the better score. A grid is whole.
    """

    columns = ("image", "objects", "object_features")
    describers = ("grounder",)
    node_kinds = {"objects": OBJECTS}

    def __init__(self, image_processor=None, tokenizer=None, visual_nodes="objects", max_objects=12):
        if visual_nodes not in ("objects", "general", "grid"):
            raise ValueError(f"visual_nodes={visual_nodes!r}: choose objects, general or grid.")
        if not isinstance(max_objects, int) or max_objects < 0:
            raise ValueError(f"max_objects={max_objects!r}: a whole number, at least 0.")
        self.visual_nodes = visual_nodes
        self.max_objects = max_objects
        super().__init__(image_processor or UmgfImageProcessor(), tokenizer)

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
        objects = [None if self.visual_nodes == "grid" else post.get("objects") for post in posts]
        if grounder is not None and self.visual_nodes != "grid":
            unseen = []
            for i, post in enumerate(prepared):
                if objects[i] is None and features[i] is None and post.picture is not None:
                    unseen.append(i)
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
            objects = whole_picture(post.picture) if features is None else [{"phrase": None}] * len(features)
        if features is not None and len(objects) != len(features):
            raise ValueError(f"{len(objects)} objects but {len(features)} object_features")
        if self.visual_nodes == "grid":
            return list(objects), features
        chosen = list(range(len(objects)))
        if self.visual_nodes == "general":
            chosen = [j for j in chosen if objects[j].get("phrase") is None]
        if len(chosen) > self.max_objects:
            chosen.sort(key=lambda j: (objects[j].get("phrase") is not None, -(objects[j].get("score") or 0)))
            chosen = chosen[: self.max_objects]
        return [objects[j] for j in chosen], None if features is None else features[chosen]


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
