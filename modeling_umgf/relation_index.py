"""A relation index: which pictures of a pool match a text, and which show the same objects as a picture.

    from modeling_umgf import HashingEncoder, RelationIndex
    index = RelationIndex(["a", "b"], captions=["a dog on a beach", "a stadium at night"], encoder=HashingEncoder())
    index.neighbors_for_text(["what a night at the stadium"], k=1)  # [[{"id": "b", "score": ...}]]

Inter-modal relation: cosine of the text's and the caption's sentence vectors. Intra-modal relation:
|A ∩ B| / sqrt(|A| |B|) of two sets of object labels; where nobody named the objects, but an image encoder is known,
cosine of the mean features of two pictures. Scores lie in [0, 1]; pictures with score 0 are no neighbours.
"""

import json
import os
import tempfile
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch
from huggingface_hub import HfApi
from PIL import Image
from safetensors import SafetensorError
from transformers.utils import logging

from .pictures import content_hash
from .relation_files import (
    SETTINGS_FILE,
    RelationIndexError,
    find_folder,
    link_files,
    read_settings,
    read_tensors,
    write_settings,
    write_tensors,
)
from .relation_hubness import HubnessCorrection
from .relation_pictures import PicturePool
from .relation_search import Best, CosineRelation, FaissSearch, LabelSets, SecondKey, SetRelation, search_exactly
from .sentence_encoders import HashingEncoder, SentenceEncoder, TextEncoder, searchable_text

logger = logging.get_logger(__name__)

SEARCH_FILE = "search.safetensors"
PICTURE_ENCODER_FOLDER = "picture_encoder"

PROBE = "two people at a football game in front of the city hall"
"""Encoders that embed this sentence alike are taken for the same."""


class RelationIndex:
    """Pictures of a pool, searchable by text and by the objects that they show.

    Args:
        ids: name of each of the N pictures, all different.
        captions: a caption for each; None or "" = never found by text.
        text_embeddings: [N, D] sentence vectors of the captions, float32 or float16; default: `encoder` makes them.
        object_labels: labels of the objects that each picture shows; an empty list is never found by objects.
        features: [N, r, F] what the model sees of each picture (r cells, or 1); kept once, as float16.
        content_hashes: `pictures.content_hash` of each, to leave out copies of the same picture.
        encoder: embeds captions and queries; None where only vectors are used.
        hubness: "center" subtracts the pool's mean vector from both sides; "csls" subtracts half of how near a picture
            is to its 10 nearest queries (Conneau et al. 2018; here minus the pool's mean of it, which changes no order
            and keeps the scale of a cosine); "none" is the plain cosine: a few pictures are near almost every text.
        reference_texts: queries for "csls" (or their vectors), best the training texts; default: the captions.
        looks: [N, 192] `pictures.look` of each, zeros where only a caption is known. Of equally good pictures the one
            that looks most like the post's own comes first. Default: the mean of the features, if there are any.
        picture_encoder: what made the features, a `PictureFeatures`. With it, and without object labels and other
            looks, the intra-modal neighbours of a picture are those that look alike (`hubness` corrects that too).

    Attributes:
        pictures: the `PicturePool`.
    """

    def __init__(
        self,
        ids: Sequence[str],
        captions: Sequence[str | None] | None = None,
        text_embeddings: torch.Tensor | None = None,
        object_labels: Sequence[Sequence[str]] | None = None,
        features: torch.Tensor | None = None,
        content_hashes: Sequence[str | None] | None = None,
        encoder: TextEncoder | None = None,
        hubness: Literal["none", "center", "csls"] = "center",
        reference_texts: Sequence[str] | torch.Tensor | None = None,
        looks: torch.Tensor | None = None,
        picture_encoder: Callable[[Sequence[Image.Image]], torch.Tensor] | None = None,
    ):
        if hubness not in ("none", "center", "csls"):
            raise RelationIndexError(f"hubness={hubness!r}: choose none, center or csls.")
        self.hubness = hubness
        self.pictures = PicturePool([])
        self._folder = None
        self._encoder = None
        self._encoder_settings = None
        self._probe = None
        self._picture_encoder = picture_encoder
        self._picture_encoder_settings = None if picture_encoder is None else picture_encoder.settings()
        if encoder is not None:
            self.encoder = encoder
        self.reference_embeddings = None if reference_texts is None else self.embed(reference_texts)
        self.add(
            ids,
            captions,
            text_embeddings=text_embeddings,
            object_labels=object_labels,
            features=features,
            content_hashes=content_hashes,
            looks=looks,
        )

    def __len__(self) -> int:
        return len(self.pictures)

    def __contains__(self, picture: str) -> bool:
        return picture in self.pictures

    def __deepcopy__(self, memo):
        return self  # a processor's `to_dict` copies all that the processor holds

    @property
    def ids(self) -> list[str]:
        """Names of the pictures."""
        return self.pictures.ids

    @property
    def captions(self) -> list[str | None] | None:
        """Captions of the pictures."""
        return self.pictures.captions

    @property
    def object_labels(self) -> list[list[str]] | None:
        """Labels of the objects in the pictures, each once and in alphabetical order."""
        return self.pictures.object_labels

    @property
    def features(self) -> torch.Tensor | None:
        """[N, r, F] float16: what the model sees of the pictures."""
        return self.pictures.features

    @property
    def encoder(self) -> TextEncoder | None:
        """What embeds texts; the encoder that an index was saved with is loaded when a text is first embedded."""
        if self._encoder is None and self._encoder_settings is not None:
            self.encoder = self._load_encoder()
        return self._encoder

    @encoder.setter
    def encoder(self, encoder: TextEncoder) -> None:
        known = self._encoder_settings
        if self.pictures.text_embeddings is not None and encoder.width != self.width:
            raise RelationIndexError(
                f"The encoder {encoder.name!r} has width {encoder.width}, the relation index has width {self.width}"
                + (f" and was built with {known['name']!r}." if known else ".")
            )
        probe = encoder.encode([PROBE])[0]
        if self._probe is not None and (likeness := float(probe @ self._probe)) < 0.99:
            raise RelationIndexError(
                f"The relation index was built with the encoder {known['name']!r}; {encoder.name!r} is another one "
                f"(cosine {likeness:.2f} of the same sentence). Use that encoder, or build the index again."
            )
        self._encoder = encoder
        self._probe = probe
        kind = getattr(encoder, "type", "other")
        self._encoder_settings = {"type": kind, "name": encoder.name, "width": encoder.width}

    @property
    def width(self) -> int | None:
        """Width D of the sentence vectors."""
        if self.pictures.text_embeddings is not None:
            return self.pictures.text_embeddings.shape[1]
        return self._encoder_settings["width"] if self._encoder_settings else None

    @property
    def reads_text(self) -> bool:
        """Whether a new text can be looked up: captions are known, and an encoder to embed the text."""
        return self.pictures.text_embeddings is not None and self._encoder_settings is not None

    @property
    def picture_encoder(self) -> Callable[[Sequence[Image.Image]], torch.Tensor] | None:
        """What computes the features of a new picture; loaded when it is first asked for."""
        if self._picture_encoder is None and self._picture_encoder_settings is not None:
            from .descriptors import PictureFeatures  # here, so that only a search by looks loads what it needs

            folder = self._folder and self._folder / PICTURE_ENCODER_FOLDER
            self._picture_encoder = PictureFeatures.from_settings(self._picture_encoder_settings, folder)
        return self._picture_encoder

    @property
    def compares_looks(self) -> bool:
        """Whether pictures that look alike are the intra-modal neighbours, since nobody named their objects."""
        has_encoder = self._picture_encoder_settings is not None
        return has_encoder and self.object_labels is None and self.pictures.looks_source == "features"

    @property
    def feature_shape(self) -> tuple[int, int]:
        """(r, F): rows and width of a picture's features."""
        if self.features is None:
            raise RelationIndexError("This relation index holds no picture features: build it with features.")
        return tuple(self.features.shape[1:])

    # --------------------------------------------------------------------------------------------------- build

    def add(self, ids: Sequence[str], captions: Sequence[str | None] | None = None, **columns: Any) -> None:
        """Add pictures; arguments as for the index itself, the same ones. It copies the store: add many at once.

        Raises:
            RelationIndexError: an id is there already, or something has another length, width or kind than before.
        """
        text_embeddings = columns.get("text_embeddings")
        if text_embeddings is None and captions is not None and self.encoder is not None:
            text_embeddings = self.encoder.encode([caption or "" for caption in captions])
        if text_embeddings is not None:
            self._check_width(text_embeddings)
        more = PicturePool(ids, captions, **columns | {"text_embeddings": text_embeddings})
        self.pictures = self.pictures.extended(more)
        self._prepare()
        self._unchanged = False  # what is on disk, if anything, is out of date

    def _prepare(self, penalty: torch.Tensor | None = None) -> None:
        """Make what a search needs besides the pictures, except for a penalty that is known already."""
        self._rank = np.argsort(np.argsort(np.array(self.ids, dtype=str), kind="stable"))
        self._label_sets = None if self.object_labels is None else LabelSets(self.object_labels)
        self._correction = None
        if self.pictures.text_embeddings is not None:
            self._correction = HubnessCorrection(
                self.hubness, self.pictures.text_embeddings, self.reference_embeddings, penalty
            )
        self._look_correction = HubnessCorrection(self.hubness, self.pictures.looks) if self.compares_looks else None
        self._faiss = None

    # -------------------------------------------------------------------------------------------------- search

    def find_neighbors(
        self,
        texts: Sequence[str] | None,
        object_labels: Sequence[Sequence[str] | None] | None,
        k: int,
        ids: Sequence[str | None] | None = None,
        pictures: Sequence[Image.Image | None] | None = None,
        object_features: Sequence[torch.Tensor | None] | None = None,
        content_hashes: Sequence[str | None] | None = None,
        looks: torch.Tensor | None = None,
    ) -> tuple[list[list[dict]] | None, list[list[dict]] | None]:
        """Find the neighbours of posts: neither the own picture nor a copy of it, of equals the most similar first.

        A dataset's neighbours are found with it as well as those of a new post, so that they are the same.

        Args:
            texts: Q posts. None = don't look for inter-modal neighbours.
            object_labels: labels of the objects in each post's own picture, None where they are not known. None for
                all = don't look for intra-modal neighbours by objects.
            k: neighbours of each relation.
            ids: names of the posts' own pictures.
            pictures: the posts' own pictures, opened (`open_picture`).
            object_features: [r, F] features of each own picture; how it looks, for an index that knows no pixels.
            content_hashes, looks: what is otherwise found out from `pictures` or `object_features`: hashes and [Q, L]
                looks.

        Returns:
            Inter-modal and intra-modal neighbours as `neighbors_for_text` returns them. None in place of those that
            were not asked for, or that the index can't find: it knows no captions or no encoder, or no objects.
        """
        size = len(object_labels if texts is None else texts)
        pictures = [None] * size if pictures is None else pictures
        if content_hashes is None:
            content_hashes = [None if picture is None else content_hash(picture) for picture in pictures]
        if looks is None:
            object_features = [None] * size if object_features is None else list(object_features)
            if self.compares_looks:
                self._see(pictures, object_features)
            looks = self.pictures.looks_of_posts(pictures, object_features)
        own = list(zip(ids or [None] * size, content_hashes, strict=True))
        inter = None
        if texts is not None and self.reads_text:
            inter = self.neighbors_for_text(texts, k, own, looks=looks)
        intra = None
        if object_labels is not None and self.object_labels is not None:
            intra = self.neighbors_for_picture(object_labels, k, own, looks=looks)
        elif self.compares_looks:
            intra = self.neighbors_by_looks(looks, k, own)
        return inter, intra

    def _see(self, pictures: Sequence[Image.Image | None], object_features: list[torch.Tensor | None]) -> None:
        """Put the features of pictures in the places where none are given."""
        unseen = [i for i, picture in enumerate(pictures) if picture is not None and object_features[i] is None]
        if not unseen:
            return
        try:
            found = self.picture_encoder([pictures[i] for i in unseen])
        except (OSError, ValueError) as error:
            logger.warning_once(
                f"The image encoder {self._picture_encoder_settings['name']}, by which this relation index compares "
                f"pictures, cannot be loaded here ({' '.join(str(error).split())}): no picture finds others that look "
                "alike. Make it available, or give neighbours or object_features with each post."
            )
            return
        for i, features in zip(unseen, found, strict=True):
            object_features[i] = features

    def neighbors_for_text(
        self,
        texts: Sequence[str] | torch.Tensor,
        k: int,
        exclude: Sequence[Sequence[str | None]] | None = None,
        features: torch.Tensor | None = None,
        looks: torch.Tensor | None = None,
    ) -> list[list[dict]]:
        """Find the pictures whose captions match texts.

        Args:
            texts: Q posts (web addresses, "RT" and @users are ignored), or their sentence vectors [Q, D].
            k: neighbours a text.
            exclude: for each text, ids and content hashes of pictures that may not be found; an id stands for all
                copies of the picture.
            features: [Q, r, F] of the posts' own pictures: of equally good captions, the most similar picture first.
                For an index that knows looks only by features.
            looks: [Q, L] how the posts' own pictures look, of the kind that the index knows, instead of `features`.

        Returns:
            For each text at most k {"id", "score"}, best first; equal scores are ordered by looks, then by id.
        """
        return self._search(self._cosine(texts), k, exclude, features, looks, self._faiss)

    def neighbors_for_picture(
        self,
        object_labels: Sequence[Sequence[str] | None],
        k: int,
        exclude: Sequence[Sequence[str | None]] | None = None,
        features: torch.Tensor | None = None,
        looks: torch.Tensor | None = None,
    ) -> list[list[dict]]:
        """Find the pictures that show the same kinds of objects; other arguments and result as in `neighbors_for_text`.

        Args:
            object_labels: for each of Q pictures the labels of its objects; how often one occurs does not matter.
        """
        if self._label_sets is None:
            raise RelationIndexError("This relation index knows no objects: build it with object_labels.")
        relation = SetRelation([set(labels or []) for labels in object_labels], self._label_sets)
        return self._search(relation, k, exclude, features, looks)

    def neighbors_by_looks(
        self, looks: torch.Tensor, k: int, exclude: Sequence[Sequence[str | None]] | None = None
    ) -> list[list[dict]]:
        """Find the pictures that look alike; other arguments and result as in `neighbors_for_text`.

        Args:
            looks: [Q, F] mean features of pictures, zeros where there is no picture.
        """
        correction = self._look_correction
        if correction is None:
            raise RelationIndexError("This relation index doesn't compare looks: build it with a picture_encoder.")
        pool = self.pictures.looks
        relation = CosineRelation(correction.unit(looks), lambda rows: correction.unit(pool[rows]), correction.penalty)
        return self._search(relation, k, exclude, None, looks)

    def features_of(self, ids: Sequence[str]) -> torch.Tensor:
        """Return the features [len(ids), r, F] (float16) of pictures.

        Raises:
            RelationIndexError: the pool lacks a picture, or the index holds no features.
        """
        shape = self.feature_shape
        rows = [self.pictures.row(picture) for picture in ids]
        return self.features[rows] if rows else self.features.new_zeros(0, *shape)

    def embed(self, texts: Sequence[str] | torch.Tensor) -> torch.Tensor:
        """Return sentence vectors [Q, D] of posts; vectors are checked and passed through."""
        if not isinstance(texts, torch.Tensor):
            if self.encoder is None:
                raise RelationIndexError(
                    "This relation index has no text encoder: give vectors, or load it with encoder=..."
                )
            texts = self.encoder.encode([searchable_text(text) for text in texts])
        self._check_width(texts)
        return texts

    def use_faiss(self, factory: str = "IVF1024,Flat", depth: int = 32) -> None:
        """Search texts approximately from now on, where exact search is too slow; search by objects stays exact.

        Args:
            factory: a faiss index description: "IVF1024,Flat" for about a million pictures, "HNSW32" for less.
            depth: parts of an IVF index that are looked at, or the search depth of HNSW; more is slower and more exact.
        """
        self._faiss = FaissSearch(self._cosine(torch.zeros(0, self.width or 0)), len(self), factory, depth)

    def _search(
        self, relation: CosineRelation | SetRelation, k, exclude, features, looks, faiss: FaissSearch | None = None
    ) -> list[list[dict]]:
        if k > len(self):
            raise RelationIndexError(f"k={k} is more than the pool's {len(self)} pictures: lower k or add pictures.")
        if exclude is not None and len(exclude) != len(relation):
            raise RelationIndexError(f"exclude: {len(exclude)} lists for {len(relation)} queries.")
        looks = self.pictures.comparable_looks(features, looks)
        if looks is not None and len(looks) != len(relation):
            raise RelationIndexError(f"looks: {len(looks)} for {len(relation)} queries.")
        best = Best(len(relation), k)
        if k > 0:
            second = SecondKey(self._rank, looks, self.pictures.looks)
            forbidden = self._forbidden(exclude or [])
            if faiss is not None:
                faiss.search(relation, best, forbidden, second)
            else:
                search_exactly(relation, len(self), best, forbidden, second)
        neighbors = [[] for _ in range(len(relation))]
        for query, row, score in zip(best.query, best.row, best.score, strict=True):
            neighbors[query].append({"id": self.ids[row], "score": min(float(score), 1.0)})
        return neighbors

    def _cosine(self, texts: Sequence[str] | torch.Tensor) -> CosineRelation:
        correction = self._correction
        if correction is None:
            raise RelationIndexError(
                "This relation index knows no captions: build it with captions or text_embeddings."
            )
        queries = correction.unit(self.embed(texts))
        vectors = self.pictures.text_embeddings
        return CosineRelation(queries, lambda rows: correction.unit(vectors[rows]), correction.penalty)

    def _forbidden(self, exclude: Sequence[Sequence[str | None]]) -> np.ndarray:
        """Turn ids and content hashes into pairs (query, row) [pairs, 2], copies of a picture included."""
        pairs = []
        for query, names in enumerate(exclude):
            for name in names:
                pairs += [(query, row) for row in self.pictures.rows_of_copies(name)]
        return np.array(pairs, dtype=np.int64).reshape(-1, 2)

    def _check_width(self, vectors: torch.Tensor) -> None:
        width = self.width or vectors.shape[-1]
        if vectors.ndim != 2 or vectors.shape[1] != width:
            raise RelationIndexError(f"Text vectors {list(vectors.shape)}, but this relation index has width {width}.")

    # ------------------------------------------------------------------------------------------- save and load

    def save_pretrained(self, folder: str | os.PathLike, include_encoder: bool | None = None) -> None:
        """Write the index into a folder: JSON and safetensors, the picture features in a file of their own.

        The file that names all others is written last, so that a folder cut short is noticed when it is loaded. Files
        of an index that was loaded and not changed are linked, not copied, where the file system can.

        Args:
            include_encoder: write the text encoder into the folder too; default: only where it came from a folder,
                since others can download one that came from the Hub.
        """
        folder = Path(folder)
        folder.mkdir(parents=True, exist_ok=True)
        if self._unchanged and include_encoder is None:
            return link_files(self._folder, folder)
        (folder / SETTINGS_FILE).unlink(missing_ok=True)
        files = self.pictures.save(folder)
        own = {
            "reference_embeddings": self.reference_embeddings,
            "penalty": self._correction and self._correction.penalty,
            "probe": self._probe,
        }
        files.append(write_tensors(folder / SEARCH_FILE, own))
        encoder = self._encoder_settings and dict(self._encoder_settings)
        if encoder and encoder["type"] == SentenceEncoder.type:
            encoder["included"] = self.encoder.is_local if include_encoder is None else include_encoder
            if encoder["included"]:
                files += [path.name for path in self.encoder.save_pretrained(folder)]
        settings = {"pictures": len(self), "hubness": self.hubness, "encoder": encoder}
        settings["picture_encoder"] = self._picture_encoder_settings
        if self._picture_encoder_settings and self._picture_encoder_settings["included"]:
            inner = folder / PICTURE_ENCODER_FOLDER
            self.picture_encoder.model.save_pretrained(inner)
            files += [f"{inner.name}/{path.name}" for path in inner.iterdir()]
        write_settings(folder, settings, files)

    @classmethod
    def from_pretrained(
        cls, name_or_path: str | os.PathLike, subfolder: str = "", encoder: TextEncoder | None = None, **hub
    ) -> "RelationIndex":
        """Load an index; its picture features stay on disk and are read where they are needed (memory-mapped).

        Args:
            name_or_path: folder, or id of a Hub repository.
            subfolder: where in it the index lies.
            encoder: the text encoder with which the index was built; default: the one saved with it, or named by it.
            hub: `revision`, `token`, `cache_dir`, `local_files_only` for the download.

        Raises:
            RelationIndexError: no index there, files missing or cut short, or another encoder than it was built with.
        """
        folder = find_folder(name_or_path, subfolder, **hub)
        index = cls.__new__(cls)
        try:
            settings = read_settings(folder)
            index.hubness = settings["hubness"]
            index.pictures = PicturePool.load(folder, settings["files"])
            index._encoder = None
            index._encoder_settings = settings["encoder"]
            index._picture_encoder = None
            index._picture_encoder_settings = settings.get("picture_encoder")
            own = read_tensors(folder / SEARCH_FILE)
        except (json.JSONDecodeError, KeyError, TypeError, SafetensorError) as error:
            raise RelationIndexError(f"{folder}: not a readable relation index ({error}).") from error
        index.reference_embeddings = own.get("reference_embeddings")
        index._probe = own.get("probe")
        index._folder = folder
        index._unchanged = True
        index._prepare(own.get("penalty"))
        if encoder is not None:
            index.encoder = encoder
        return index

    def push_to_hub(
        self, repo_id: str, subfolder: str = "", token: str | None = None, private: bool | None = None
    ) -> None:
        """Save the index and upload it to a model repository of the Hub, which is made if need be."""
        api = HfApi(token=token)
        api.create_repo(repo_id, private=private, exist_ok=True)
        with tempfile.TemporaryDirectory() as folder:
            self.save_pretrained(folder)
            api.upload_folder(
                repo_id=repo_id, folder_path=folder, path_in_repo=subfolder, commit_message="Upload relation index"
            )

    def _load_encoder(self) -> TextEncoder:
        settings = self._encoder_settings
        if settings["type"] == HashingEncoder.type:
            return HashingEncoder(settings["width"])
        if settings["type"] == SentenceEncoder.type:
            return SentenceEncoder(self._folder if settings["included"] else settings["name"], name=settings["name"])
        raise RelationIndexError(
            f"The text encoder {settings['name']!r} is not saved with this relation index: load it with encoder=..."
        )
