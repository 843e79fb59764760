"""Words and pictures → the batch that RpBERT reads."""

from collections.abc import Mapping, Sequence
from typing import Any

import torch

from .processing_multimodal_ner import PreparedPost, naming_post
from .processing_single_picture import SinglePictureProcessor


class RpbertProcessor(SinglePictureProcessor):
    """Words, and the picture as one node; its regions are the cells of the image encoder's feature map.

    Besides words and pictures it reads, for training, the column `picture_adds`: whether the picture adds to the text,
    True, False, or None = unknown.
    """

    columns = (*SinglePictureProcessor.columns, "picture_adds")

    def add_nodes(
        self, prepared: Sequence[PreparedPost], posts: Sequence[Mapping[str, Any]], options: Mapping[str, Any]
    ) -> None:
        """Give each post its picture as one node, and what is known of its relation to the text."""
        super().add_nodes(prepared, posts, options)
        known = [post.get("picture_adds") for post in posts]
        if all(adds is None for adds in known):
            return
        for i, adds in enumerate(known):
            with naming_post(i, posts):
                if adds not in (None, True, False):
                    raise ValueError(f"picture_adds={adds!r}: give True, False, or None where it is unknown")
            prepared[i].features["picture_adds"] = torch.tensor(-100 if adds is None else int(adds))
