"""Words, pictures and the pictures of other posts → the batch that R-GCN reads."""

import os
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from transformers import PreTrainedConfig

from .image_processing_multimodal_ner import MultimodalNerImageProcessor
from .processing_multimodal_ner import (
    OBJECTS,
    MultimodalNerProcessor,
    NodeKind,
    PreparedPost,
    as_tensor,
    check_finite,
    check_nodes,
    naming_post,
)
from .relation_index import RelationIndex
from .text_splitting import split_labels

RELATIONS = ("inter", "intra")

INDEX_FOLDER = "relation_index"
HUB_ARGUMENTS = ("revision", "token", "cache_dir", "local_files_only", "force_download")


class RgcnProcessor(MultimodalNerProcessor):
    """Tokenizer, image processor and relation index behind one call; the index is saved and loaded with it.

    It reads, besides words and pictures, the columns
        id: names of the own pictures, which are never their own neighbours when neighbours are looked up;
        object_features: [r, F] features of the own picture instead of the picture;
        object_labels: labels of the objects in the own picture, to look up pictures that show the same: a list, or one
            text, "person, cat". Posts without this key, for a model that was trained with labels, get them from the
            labeler that made those, where it can be loaded;
        neighbors_inter, neighbors_intra: {"id", "score"} of pictures of the index. None = look them up there, by the
            text and by `object_labels`. [] = there are none;
    and calls a labeler, which names the objects of pictures whose labels are not given: a function of pictures.

    Args:
        image_processor: normalises the posts' own pictures; default `MultimodalNerImageProcessor()`.
        tokenizer: any fast tokenizer.
        relation_index: a `RelationIndex`, or the folder or Hub id of one; None = no neighbours.
        k: neighbours of each relation.
        context: columns of texts that are read after the post, see `MultimodalNerProcessor`.
    """

    columns = ("id", "image", "object_features", "object_labels", "neighbors_inter", "neighbors_intra")
    needs = ("relation_index",)
    describers = {"labeler": "object_labels"}
    node_kinds = {
        "objects": OBJECTS,
        "inter": NodeKind(
            "inter_neighbor_mask", "picture that matches the text", "neighbors", shown=("id", "relation")
        ),
        "intra": NodeKind(
            "intra_neighbor_mask", "picture with the same objects", "neighbors", shown=("id", "relation")
        ),
    }

    def __init__(self, image_processor=None, tokenizer=None, relation_index=None, k=5, context=()):
        if not isinstance(k, int) or k < 0:
            raise ValueError(f"k={k!r}: the number of neighbours is a whole number, at least 0.")
        super().__init__(image_processor or MultimodalNerImageProcessor(), tokenizer, context=context)
        if isinstance(relation_index, str | os.PathLike):
            relation_index = RelationIndex.from_pretrained(relation_index)
        self.relation_index = relation_index
        self.k = k

    @property
    def model_input_names(self) -> list[str]:
        """Names of the tensors of a batch of posts with pictures."""
        names = super().model_input_names
        if self.relation_index is not None:
            for relation in RELATIONS:
                names += [f"{relation}_neighbor_{part}" for part in ("features", "scores", "mask")]
        return names

    def settings_for_model(self, config: PreTrainedConfig) -> dict[str, Any]:
        """The width of the neighbours' features, where it is not what the model reads."""
        if self.relation_index is None:
            return {}
        _, width = self.relation_index.feature_shape
        fits = width == (config.neighbor_feature_size or config.object_feature_size)
        return {} if fits else {"neighbor_feature_size": width}

    def searches_pictures(self, gaps: Mapping[str, int]) -> bool:
        """Whether neighbours are searched, which looks at the posts' own pictures, or something else is."""
        complete = all(gaps.get(f"neighbors_{relation}") == 0 for relation in RELATIONS)
        return super().searches_pictures(gaps) or (self.relation_index is not None and not complete)

    def describe(self) -> list[str]:
        """Sentences for a card: whether there is a relation index."""
        if self.relation_index is None:
            return [
                *super().describe(),
                "There is **no relation index**: this model sees no pictures of other posts, only the post's own.",
            ]
        return [
            *super().describe(),
            f"The relation index holds {len(self.relation_index):,} pictures of other posts; each post sees up to "
            f"{self.k} of each relation.",
        ]

    def add_nodes(
        self,
        prepared: Sequence[PreparedPost],
        posts: Sequence[Mapping[str, Any]],
        options: Mapping[str, Any],
        labeler: Callable | None = None,
    ) -> None:
        """Give each post its own picture as one node, and its neighbours."""
        super().add_nodes(prepared, posts, options)
        posts = [
            {**post, "object_labels": split_labels(own)} if isinstance(own := post.get("object_labels"), str) else post
            for post in posts
        ]
        neighbors = {relation: [post.get(f"neighbors_{relation}") for post in posts] for relation in RELATIONS}
        for i in range(len(posts)):
            with naming_post(i, posts):
                for relation, given in neighbors.items():
                    check_nodes(f"neighbors_{relation}", given[i], ["id", "score"])
                    scores = [one["score"] for one in given[i] or ()]
                    check_finite("scores of neighbours", as_tensor("scores of neighbours", scores, torch.float))
                    if given[i] and self.relation_index is None:
                        raise ValueError("neighbours are given, but this processor has no relation index for them")
                named = posts[i].get("object_labels")
                are_names = isinstance(named, list | tuple) and all(isinstance(label, str) for label in named)
                if named is not None and not are_names:
                    raise ValueError('object_labels must be a list of strings, such as ["person", "cat"], or None')
        if self.relation_index is None:
            return
        self.find_neighbors(neighbors, prepared, posts, labeler)
        for relation, found in neighbors.items():
            for i, post in enumerate(prepared):
                best = sorted((one for one in found[i] if one["score"] > 0), key=lambda one: -one["score"])[: self.k]
                post.nodes[relation] = [{**one, "relation": relation} for one in best]
                post.features |= self.neighbor_tensors(relation, best)

    def find_neighbors(
        self,
        neighbors: dict[str, list[list[Mapping[str, Any]] | None]],
        prepared: Sequence[PreparedPost],
        posts: Sequence[Mapping[str, Any]],
        labeler: Callable | None = None,
    ) -> None:
        """Look up in the index the neighbours that are not given, and put them in their places.

        Args:
            neighbors: for each relation the neighbours of each post, None = to be found.
            prepared: the posts, their pictures opened.
            posts: the same posts as they were given.
            labeler: names the objects of pictures where the column `object_labels` does not, or None.
        """
        asked = [i for i in range(len(posts)) if any(given[i] is None for given in neighbors.values())]
        if not asked:
            return
        labels = [posts[i].get("object_labels") for i in asked]
        unnamed = []
        for j, i in enumerate(asked):
            sought = labeler is not None or "object_labels" not in posts[i]
            if sought and labels[j] is None and prepared[i].picture is not None:
                unnamed.append(j)
        if unnamed and labeler is None:
            labeler = self.own_describer("labeler")
        if labeler is not None and unnamed:
            found = labeler([prepared[asked[j]].picture for j in unnamed])
            for j, own in zip(unnamed, found, strict=True):
                labels[j] = own
        found = self.relation_index.find_neighbors(
            [" ".join(prepared[i].tokens) for i in asked],
            labels,
            self.k,
            ids=[posts[i].get("id") for i in asked],
            pictures=[prepared[i].picture for i in asked],
            object_features=[prepared[i].features.get("object_features") for i in asked],
        )
        for given, rows in zip(neighbors.values(), found, strict=True):
            for i, own in zip(asked, rows or [[]] * len(asked), strict=True):
                given[i] = own if given[i] is None else given[i]

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
