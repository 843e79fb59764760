"""The pictures of a relation index: what is known of each of them, and the files that hold it."""

import json
from collections import defaultdict
from collections.abc import Collection, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import torch
from PIL import Image
from torch.nn.functional import normalize

from .files import write_whole
from .pictures import look
from .relation_files import RelationIndexError, read_tensors, write_tensors

PICTURES_FILE = "pictures.json"
VECTORS_FILE = "vectors.safetensors"
FEATURES_FILE = "features.safetensors"

WORDS = ("ids", "captions", "object_labels", "content_hashes")
TENSORS = ("text_embeddings", "features", "looks")

CHUNK = 256
"""Pictures that are summed up at a time."""


@dataclass(eq=False, repr=False)
class PicturePool:
    """What is known of N pictures, each column for all of them or None.

    Args:
        ids: name of each picture, all different.
        captions: a caption for each; None or "" where it has none.
        object_labels: labels of the objects that each picture shows.
        content_hashes: `pictures.content_hash` of each, the same for copies; None where only a caption is known.
        text_embeddings: [N, D] sentence vectors of the captions, zeros where there is none.
        features: [N, r, F] what the model sees of each picture (r cells, or 1); kept as float16.
        looks: [N, L] unit vectors of how the pictures look, zeros where that is not known; kept as float16. Default:
            `looks_of` the features.
        looks_source: what the looks were made of.

    Raises:
        RelationIndexError: a column is not as long as the others, or an id comes twice.
    """

    ids: list[str]
    captions: list[str | None] | None = None
    object_labels: list[list[str]] | None = None
    content_hashes: list[str | None] | None = None
    text_embeddings: torch.Tensor | None = None
    features: torch.Tensor | None = None
    looks: torch.Tensor | None = None
    looks_source: Literal["pixels", "features"] | None = None

    def __post_init__(self):
        self.ids = [str(picture) for picture in self.ids]
        for name in (*WORDS, *TENSORS):
            values = getattr(self, name)
            if values is not None and len(values) != len(self.ids):
                raise RelationIndexError(f"{name}: {len(values)} for {len(self.ids)} pictures.")
        self._row = {picture: i for i, picture in enumerate(self.ids)}
        if len(self._row) < len(self.ids):
            twice = next(picture for i, picture in enumerate(self.ids) if self._row[picture] != i)
            raise RelationIndexError(f"Picture {twice!r} is in the relation index twice.")
        if self.captions is not None:
            self.captions = list(self.captions)
        if self.object_labels is not None:
            self.object_labels = [sorted(set(labels or [])) for labels in self.object_labels]
        self._rows_with = defaultdict(set)
        if self.content_hashes is not None:
            self.content_hashes = list(self.content_hashes)
            for i, content in enumerate(self.content_hashes):
                self._rows_with[content].add(i)
        if self.features is not None:
            self.features = self.features.to(torch.float16)
        if self.looks is not None:
            self.looks = self.looks.to(torch.float16)
            self.looks_source = self.looks_source or "pixels"
        elif self.features is not None:
            self.looks = looks_of(self.features)
            self.looks_source = "features"

    def __len__(self) -> int:
        return len(self.ids)

    def __contains__(self, picture: str) -> bool:
        return picture in self._row

    def row(self, picture: str) -> int:
        """Return the row of a picture.

        Raises:
            RelationIndexError: it is not in the pool.
        """
        if picture not in self._row:
            raise RelationIndexError(
                f"Neighbour {picture!r} is not in the relation index ({len(self)} pictures): use the index with which "
                "the neighbours were found, or build the relations again."
            )
        return self._row[picture]

    def rows_of_copies(self, name: str | None) -> set[int]:
        """Return the rows of a picture and of its copies, by its id or its content hash; none where it has no copy."""
        if name is None:
            return set()
        if name not in self._row:
            return self._rows_with.get(name, set())
        row = self._row[name]
        content = self.content_hashes and self.content_hashes[row]
        return {row} if content is None else self._rows_with[content]

    def extended(self, more: "PicturePool") -> "PicturePool":
        """Return a pool of these pictures and more.

        Raises:
            RelationIndexError: something is known of only some of them, or has another shape.
        """
        if not len(self):
            return more
        columns = {}
        for name in (*WORDS, *TENSORS):
            before = getattr(self, name)
            values = getattr(more, name)
            half_known = (before is None) != (values is None)
            if half_known or (name == "looks" and self.looks_source != more.looks_source):
                raise RelationIndexError(f"{name}: give it for all pictures of the relation index or for none.")
            if before is None:
                continue
            if not isinstance(before, torch.Tensor):
                columns[name] = before + values
            elif before.shape[1:] == values.shape[1:]:
                columns[name] = torch.cat([before, values.to(before.dtype)])
            else:
                raise RelationIndexError(
                    f"{name}: {list(values.shape[1:])} a picture, the relation index has {list(before.shape[1:])}."
                )
        return PicturePool(**columns, looks_source=self.looks_source)

    def looks_of_posts(
        self, pictures: Sequence[Image.Image | None], object_features: Sequence[torch.Tensor | None]
    ) -> torch.Tensor | None:
        """Return how posts' own pictures look [Q, L], of the kind that is known here; None where none is.

        Args:
            pictures: the posts' pictures, opened.
            object_features: [r, F] features of each. Zeros where there is neither, or not the right one.
        """
        if self.looks is None:
            return None
        looks = torch.zeros(len(pictures), self.looks.shape[1])
        for i, (picture, features) in enumerate(zip(pictures, object_features, strict=True)):
            if self.looks_source == "pixels" and picture is not None:
                looks[i] = torch.from_numpy(look(picture))
            elif self.looks_source == "features" and features is not None:
                features = torch.as_tensor(features).half()  # as those of the pool
                self._check_width(features)
                looks[i] = looks_of(features[None])[0]
        return looks

    def comparable_looks(self, features: torch.Tensor | None, looks: torch.Tensor | None) -> torch.Tensor | None:
        """Return the looks [Q, L] of queries, given as features [Q, r, F] or as such.

        Raises:
            RelationIndexError: these pictures know no looks, or of another kind.
        """
        if features is None and looks is None:
            return None
        if self.looks is None:
            raise RelationIndexError("This relation index does not know how its pictures look: build it with looks.")
        if features is not None and self.looks_source == "pixels":
            raise RelationIndexError("This relation index compares pictures by their pixels: give looks, not features.")
        looks = looks if features is None else looks_of(features)
        self._check_width(looks)
        return looks

    def _check_width(self, looks: torch.Tensor) -> None:
        width = self.looks.shape[1]
        if looks.shape[-1] != width:
            raise RelationIndexError(
                f"How a picture looks is a vector of width {width} in this relation index, not {looks.shape[-1]}."
            )

    def save(self, folder: Path) -> list[str]:
        """Write the pool into a folder: JSON and safetensors, the features in a file of their own.

        Returns:
            The names of the files.
        """
        words = {name: getattr(self, name) for name in (*WORDS, "looks_source")}
        with write_whole(folder / PICTURES_FILE) as file:
            file.write_text(json.dumps(words, ensure_ascii=False), encoding="utf-8")
        vectors = {"text_embeddings": self.text_embeddings, "looks": self.looks}
        files = [PICTURES_FILE, write_tensors(folder / VECTORS_FILE, vectors)]
        if self.features is not None:
            files.append(write_tensors(folder / FEATURES_FILE, {"features": self.features}))
        return files

    @classmethod
    def load(cls, folder: Path, files: Collection[str]) -> "PicturePool":
        """Read the files of a pool; its features stay on disk and are read where they are needed (memory-mapped)."""
        words = json.loads((folder / PICTURES_FILE).read_text(encoding="utf-8"))
        vectors = read_tensors(folder / VECTORS_FILE)
        features = read_tensors(folder / FEATURES_FILE) if FEATURES_FILE in files else {}
        return cls(**words, **vectors, **features)


def looks_of(features: torch.Tensor) -> torch.Tensor:
    """Sum up how pictures look, from features [N, r, F]: the unit vector [N, F] (float16) of their mean."""
    chunks = [normalize(chunk.float().mean(1), dim=-1).half() for chunk in features.split(CHUNK)]
    return torch.cat(chunks) if chunks else features.new_zeros(0, features.shape[-1])
