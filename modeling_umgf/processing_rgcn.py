"""Words, pictures and the pictures of other posts → the batch that R-GCN reads."""

import os
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import torch
from transformers import BatchFeature

from .pictures import content_hash, open_picture
from .processing_umgf import UmgfProcessor
from .relation_index import RelationIndex

INDEX_FOLDER = "relation_index"
HUB_ARGUMENTS = ("revision", "token", "cache_dir", "local_files_only", "force_download")


class RgcnProcessor(UmgfProcessor):
    """Tokenizer, image processor and relation index behind one call; the index is saved and loaded with it.

    Args:
        image_processor: normalises the posts' own pictures; default `UmgfImageProcessor()`.
        tokenizer: any fast tokenizer.
        relation_index: a `RelationIndex`, or the folder or Hub id of one; None = no neighbours.
        k: neighbours of each relation.
    """

    row_columns = ("id", "object_features", "object_labels", "neighbors_inter", "neighbors_intra")

    def __init__(self, image_processor=None, tokenizer=None, relation_index=None, k=5, **kwargs):
        super().__init__(image_processor, tokenizer, visual_nodes="grid")
        if isinstance(relation_index, str | os.PathLike):
            relation_index = RelationIndex.from_pretrained(relation_index)
        self.relation_index = relation_index
        self.k = k

    @property
    def model_input_names(self) -> list[str]:
        """Names of the tensors of a batch."""
        neighbors = [
            f"{name}_neighbor_{part}" for name in ("inter", "intra") for part in ("features", "scores", "mask")
        ]
        return [
            "input_ids",
            "attention_mask",
            "word_starts",
            "pixel_values",
            "object_features",
            "object_mask",
            *neighbors,
        ]

    def __call__(
        self,
        text: str | Sequence[str] | None = None,
        images: Any = None,
        words: Sequence[str] | Sequence[Sequence[str]] | None = None,
        objects: Any = None,
        object_features: Any = None,
        object_labels: Sequence[str] | Sequence[Sequence[str] | None] | None = None,
        neighbors_inter: Sequence[dict] | Sequence[Sequence[dict] | None] | None = None,
        neighbors_intra: Sequence[dict] | Sequence[Sequence[dict] | None] | None = None,
        id: str | Sequence[str] | None = None,
        labels: Sequence[int] | Sequence[Sequence[int]] | None = None,
        labeler: Callable | None = None,
        image: Any = None,
        return_tensors: str = "pt",
        **unused,
    ) -> BatchFeature:
        """Make a batch of one tweet or of several; everything is given once a tweet.

        Args:
            text, words, labels, image, return_tensors: as for `UmgfProcessor`.
            images: the posts' own pictures, or None.
            objects, unused: what other systems read, such as boxes and a grounder; ignored.
            object_features: [r, F] features of the own picture instead of the picture.
            object_labels: labels of the objects in the own picture, to look up pictures that show the same.
            neighbors_inter, neighbors_intra: {"id", "score"} of pictures of the index. None = look them up there, by
                the text and by `object_labels`. [] = there are none.
            id: names of the own pictures, which are never their own neighbours when neighbours are looked up.
            labeler: names the objects of pictures whose labels are not given; called with a list of pictures.

        Returns:
            input_ids, attention_mask [B, n]; word_starts [B, w]; pixel_values [B, 1, 3, H, W] or object_features
            [B, r, F], and object_mask, where there are pictures; {inter,intra}_neighbor_features [B, k, r, F]
            (float16), _scores and _mask [B, k] where there is a relation index; labels [B, w].

        Raises:
            RelationIndexError: a neighbour is not in the index, or k is larger than it.
            ValueError, UnreadablePicture: as for `UmgfProcessor`.
        """
        batch = super().__call__(
            text=text,
            images=images,
            words=words,
            object_features=object_features,
            labels=labels,
            image=image,
            return_tensors=return_tensors,
        )
        batch.pop("inter_modal_mask", None)  # all words see the one picture
        single = isinstance(text, str) or (words is not None and (not len(words) or isinstance(words[0], str)))
        size = len(batch["input_ids"])

        def rows(name: str, value: Any) -> list:
            values = [value] if single else [None] * size if value is None else list(value)
            if len(values) != size:
                raise ValueError(
                    f"{size} tweets but {len(values)} {name}: give one entry a tweet, None where there is none."
                )
            return values

        neighbors_inter = rows("neighbors_inter", neighbors_inter)
        neighbors_intra = rows("neighbors_intra", neighbors_intra)
        if self.relation_index is None:
            if any(neighbors_inter) or any(neighbors_intra):
                raise ValueError("Neighbours are given, but this processor has no relation index with their pictures.")
            return batch
        pictures, ids = rows("images", image if images is None else images), rows("id", id)
        texts = rows("texts", text) if text is not None else [" ".join(own) for own in rows("words", words)]
        shown = rows("object_labels", object_labels)
        neighbors = self.find_neighbors(texts, pictures, ids, shown, neighbors_inter, neighbors_intra, labeler)
        for relation, found in zip(("inter", "intra"), neighbors, strict=True):
            batch |= self.neighbor_tensors(relation, found)
        return batch

    def find_neighbors(
        self, texts, pictures, ids, object_labels, neighbors_inter, neighbors_intra, labeler=None
    ) -> tuple[list[list[dict]], list[list[dict]]]:
        """Return the best k inter-modal and intra-modal neighbours of each tweet: of those given, else the index's."""
        index, object_labels = self.relation_index, list(object_labels)
        if labeler is not None:
            asked = [i for i, own in enumerate(object_labels) if own is None and pictures[i] is not None]
            for i, found in zip(asked, labeler([pictures[i] for i in asked]) if asked else [], strict=True):
                object_labels[i] = found
        if index is not None and index.reads_text:
            neighbors_inter = self.look_up(neighbors_inter, index.neighbors_for_text, texts, ids, pictures)
        if index is not None and index.object_labels is not None:
            neighbors_intra = self.look_up(neighbors_intra, index.neighbors_for_picture, object_labels, ids, pictures)
        return self.best(neighbors_inter), self.best(neighbors_intra)

    def best(self, neighbors: Sequence[Sequence[dict] | None]) -> list[list[dict]]:
        """Return the k best neighbours of each tweet, best first; those with a score of 0 are none."""
        real = ([one for one in own or [] if one["score"] > 0] for own in neighbors)
        return [sorted(own, key=lambda one: -one["score"])[: self.k] for own in real]

    def look_up(self, neighbors, search, queries, ids, pictures) -> list[list[dict]]:
        """Fill gaps in `neighbors` with what `search` finds for the queries: neither the own picture nor its copies."""
        asked = [i for i, own in enumerate(neighbors) if own is None]
        if not asked:
            return neighbors
        own = [[ids[i]] if pictures[i] is None else [ids[i], content_hash(open_picture(pictures[i]))] for i in asked]
        found = iter(search([queries[i] for i in asked], self.k, exclude=own))
        return [next(found) if given is None else given for given in neighbors]

    def neighbor_tensors(self, relation: str, neighbors: Sequence[Sequence[dict]]) -> dict[str, torch.Tensor]:
        """Turn at most k {"id", "score"} for each tweet into features, scores and mask."""
        r, width = self.relation_index.feature_shape
        features = torch.zeros(len(neighbors), self.k, r, width, dtype=torch.float16)
        scores = torch.zeros(len(neighbors), self.k)
        for i, best in enumerate(neighbors):
            features[i, : len(best)] = self.relation_index.features_of([one["id"] for one in best])
            scores[i, : len(best)] = torch.tensor([one["score"] for one in best])
        return {
            f"{relation}_neighbor_features": features,
            f"{relation}_neighbor_scores": scores,
            f"{relation}_neighbor_mask": scores > 0,
        }

    def to_dict(self) -> dict[str, Any]:
        """Settings for processor_config.json; the relation index is named by its folder."""
        settings = super().to_dict()
        settings["relation_index"] = None if self.relation_index is None else INDEX_FOLDER
        return settings

    def save_pretrained(self, save_directory: str | os.PathLike, push_to_hub: bool = False, **kwargs) -> list[str]:
        """Save the processor, and its relation index in the folder `relation_index`."""
        if self.relation_index is not None:
            self.relation_index.save_pretrained(Path(save_directory) / INDEX_FOLDER)
        files = super().save_pretrained(save_directory)
        if push_to_hub:
            self.push_to_hub(kwargs.pop("repo_id", Path(save_directory).name), **kwargs)
        return files

    @classmethod
    def get_processor_dict(cls, pretrained_model_name_or_path: str | os.PathLike, **kwargs):
        """Read the saved settings, and load the relation index next to them unless another one is given."""
        settings, rest = super().get_processor_dict(pretrained_model_name_or_path, **kwargs)
        if settings.get("relation_index") == INDEX_FOLDER and "relation_index" not in kwargs:
            hub = {name: kwargs[name] for name in HUB_ARGUMENTS if kwargs.get(name) is not None}
            settings["relation_index"] = RelationIndex.from_pretrained(
                pretrained_model_name_or_path, subfolder=INDEX_FOLDER, **hub
            )
        return settings, rest
