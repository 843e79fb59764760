"""Words, attributes of pictures and knowledge → the batch that IAIK reads."""

from collections.abc import Mapping, Sequence
from typing import Any

import torch

from .processing_multimodal_ner import NodeKind, PreparedPost, as_tensor, check_finite, naming_post
from .processing_single_picture import SinglePictureProcessor


class IaikProcessor(SinglePictureProcessor):
    """Words, and vectors of the picture's attributes and of what is known of them.

    It reads, besides words and pictures, the columns
        object_features: [m, F] word vectors of the attributes; without them the cells of the picture are;
        knowledge_features: [s, F] word vectors of what a knowledge graph says of the attributes, or None.
    """

    columns = (*SinglePictureProcessor.columns, "knowledge_features")
    node_kinds = SinglePictureProcessor.node_kinds | {
        "knowledge": NodeKind("knowledge_mask", "knowledge", "knowledge", ())
    }

    @property
    def model_input_names(self) -> list[str]:
        """Names of the tensors of a batch of posts with pictures."""
        return [*super().model_input_names, "knowledge_features", "knowledge_mask"]

    def add_nodes(
        self, prepared: Sequence[PreparedPost], posts: Sequence[Mapping[str, Any]], options: Mapping[str, Any]
    ) -> None:
        """Give each post its attributes, and its knowledge if there is any."""
        super().add_nodes(prepared, posts, options)
        for i, post in enumerate(prepared):
            known = posts[i].get("knowledge_features")
            if known is None:
                continue
            with naming_post(i, posts):
                known = as_tensor("knowledge_features", known, torch.float32)
                if known.shape[:1] == (0,):
                    continue
                if known.ndim != 2:
                    raise ValueError(f"knowledge_features of shape {list(known.shape)}; give [pieces, width]")
                check_finite("knowledge_features", known)
            post.nodes["knowledge"] = [{} for _ in known]
            post.features["knowledge_features"] = known
            post.features["knowledge_mask"] = torch.ones(len(known), dtype=torch.bool)
