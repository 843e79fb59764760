"""Words, pictures and the pictures of other posts → the batch that R-GCN reads."""

import os
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import torch

from .image_processing_multimodal_ner import MultimodalNerImageProcessor
from .processing_multimodal_ner import OBJECTS, MultimodalNerProcessor, NodeKind, PreparedPost
from .relation_index import RelationIndex

INDEX_FOLDER = "relation_index"
HUB_ARGUMENTS = ("revision", "token", "cache_dir", "local_files_only", "force_download")


class RgcnProcessor(MultimodalNerProcessor):
    """Tokenizer, image processor and relation index behind one call; the index is saved and loaded with it.

    It reads, besides words and pictures, the columns
        id: names of the own pictures, which are never their own neighbours when neighbours are looked up;
        object_features: [r, F] features of the own picture instead of the picture;
        object_labels: labels of the objects in the own picture, to look up pictures that show the same;
        neighbors_inter, neighbors_intra: {"id", "score"} of pictures of the index. None = look them up there, by the
            text and by `object_labels`. [] = there are none;
    and calls a labeler, which names the objects of pictures whose labels are not given: a function of pictures.

    Args:
        image_processor: normalises the posts' own pictures; default `MultimodalNerImageProcessor()`.
        tokenizer: any fast tokenizer.
        relation_index: a `RelationIndex`, or the folder or Hub id of one; None = no neighbours.
        k: neighbours of each relation.
    """

    columns = ("id", "image", "object_features", "object_labels", "neighbors_inter", "neighbors_intra")
    describers = ("labeler",)
    node_kinds = {
        "objects": OBJECTS,
        "inter": NodeKind(
            "inter_neighbor_mask", "picture that matches the text", "neighbors", shown=("id", "relation")
        ),
        "intra": NodeKind(
            "intra_neighbor_mask", "picture with the same objects", "neighbors", shown=("id", "relation")
        ),
    }

    def __init__(self, image_processor=None, tokenizer=None, relation_index=None, k=5, **unknown):
        if not isinstance(k, int) or k < 0:
            raise ValueError(f"k={k!r}: the number of neighbours is a whole number, at least 0.")
        super().__init__(image_processor or MultimodalNerImageProcessor(), tokenizer, **unknown)
        if isinstance(relation_index, str | os.PathLike):
            relation_index = RelationIndex.from_pretrained(relation_index)
        self.relation_index = relation_index
        self.k = k

    def add_nodes(
        self,
        prepared: Sequence[PreparedPost],
        posts: Sequence[Mapping[str, Any]],
        options: Mapping[str, Any],
        labeler: Callable | None = None,
    ) -> None:
        """Give each post its own picture as one node, and its neighbours."""
        features = self.given_features(posts, prepared)
        pictures = [post.picture for post in prepared]
        boxes = [None if picture is None else [0, 0, *picture.size] for picture in pictures]
        whole = [[] if box is None else [{"box": box, "phrase": None}] for box in boxes]
        objects = [own if given is None else None for own, given in zip(whole, features, strict=True)]
        self.add_objects(prepared, objects, features, options)
        for post in prepared:
            del post.features["inter_modal_mask"]  # all words see the one picture
        neighbors = self.find_neighbors(prepared, posts, labeler)
        if self.relation_index is None:
            return
        for relation, found in neighbors.items():
            for post, own in zip(prepared, found, strict=True):
                post.nodes[relation] = [{**one, "relation": relation} for one in own]
                post.features |= self.neighbor_tensors(relation, own)

    def find_neighbors(
        self,
        prepared: Sequence[PreparedPost],
        posts: Sequence[Mapping[str, Any]],
        labeler: Callable | None = None,
    ) -> dict[str, list[list[dict]]]:
        """Return the best k neighbours of each post, by relation: those that are given, else the index's."""
        index = self.relation_index
        neighbors = {name: [post.get(f"neighbors_{name}") for post in posts] for name in ("inter", "intra")}
        if index is None:
            if any(map(any, neighbors.values())):
                raise ValueError("Neighbours are given, but this processor has no relation index with their pictures.")
            return neighbors
        labels = [post.get("object_labels") for post in posts]
        unnamed = [i for i, own in enumerate(labels) if own is None and prepared[i].picture is not None]
        if labeler is not None and unnamed:
            for i, found in zip(unnamed, labeler([prepared[i].picture for i in unnamed]), strict=True):
                labels[i] = found
        asked = [i for i in range(len(posts)) if None in (neighbors["inter"][i], neighbors["intra"][i])]
        if asked:
            found = index.find_neighbors(
                [" ".join(prepared[i].tokens) for i in asked],
                [labels[i] for i in asked],
                self.k,
                ids=[posts[i].get("id") for i in asked],
                pictures=[prepared[i].picture for i in asked],
                object_features=[_tensor(posts[i].get("object_features")) for i in asked],
            )
            for own, new in zip(neighbors.values(), found, strict=True):
                for i, row in zip(asked, new or [[]] * len(asked), strict=True):
                    own[i] = row if own[i] is None else own[i]
        return {name: [self.best(own) for own in rows] for name, rows in neighbors.items()}

    def best(self, neighbors: Sequence[Mapping[str, Any]] | None) -> list[Mapping[str, Any]]:
        """Return the k best of the neighbours of a post, best first; those with a score of 0 are none."""
        real = [one for one in neighbors or [] if one["score"] > 0]
        return sorted(real, key=lambda one: -one["score"])[: self.k]

    def neighbor_tensors(self, relation: str, neighbors: Sequence[Mapping[str, Any]]) -> dict[str, torch.Tensor]:
        """Turn at most k {"id", "score"} of a post into features [k, r, F], scores [k] and mask [k]."""
        r, width = self.relation_index.feature_shape
        features = torch.zeros(self.k, r, width, dtype=torch.float16)
        features[: len(neighbors)] = self.relation_index.features_of([one["id"] for one in neighbors])
        scores = torch.zeros(self.k)
        scores[: len(neighbors)] = torch.tensor([one["score"] for one in neighbors])
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
        return super().save_pretrained(save_directory, push_to_hub, **kwargs)

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


def _tensor(features: Any) -> torch.Tensor | None:
    return None if features is None else torch.as_tensor(features, dtype=torch.float32)
