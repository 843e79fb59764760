"""The relation index of R-GCN: which pictures of a pool match a text, and which show the same objects as a picture.

    from modeling_umgf import HashingEncoder, RelationIndex
    index = RelationIndex(["a", "b"], captions=["a dog on a beach", "a stadium at night"], encoder=HashingEncoder())
    index.neighbors_for_text(["what a night at the stadium"], k=1)  # [[{"id": "b", "score": ...}]]

Inter-modal relation: cosine of the text's and the caption's sentence vectors. Intra-modal relation:
|A ∩ B| / sqrt(|A| |B|) of two sets of object labels. Scores lie in [0, 1]; pictures with score 0 are no neighbours.
"""

import json
import os
import shutil
import tempfile
from collections import defaultdict
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Literal

import numpy as np
import torch
from huggingface_hub import HfApi, snapshot_download
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch.nn.functional import normalize

from .relation_search import Best, CosineRelation, FaissSearch, LabelSets, SecondKey, SetRelation, search_exactly
from .sentence_encoders import HashingEncoder, SentenceEncoder, TextEncoder, searchable_text

SETTINGS_FILE, PICTURES_FILE = "relation_index.json", "pictures.json"
VECTORS_FILE, FEATURES_FILE = "vectors.safetensors", "features.safetensors"

CSLS_NEIGHBORS = 10
CHUNK = 256

PROBE = "two people at a football game in front of the city hall"
"""Encoders that embed this sentence alike are taken for the same."""


class RelationIndexError(ValueError):
    """A relation index that does not fit what is asked of it, or a damaged one."""


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
    """

    def __init__(
        self,
        ids: Sequence[str],
        captions: Sequence[str | None] | None = None,
        text_embeddings: torch.Tensor | None = None,
        object_labels: Sequence[Sequence[str]] | None = None,
        features: torch.Tensor | None = None,
        content_hashes: Sequence[str] | None = None,
        encoder: TextEncoder | None = None,
        hubness: Literal["none", "center", "csls"] = "center",
        reference_texts: Sequence[str] | torch.Tensor | None = None,
    ):
        if hubness not in ("none", "center", "csls"):
            raise RelationIndexError(f"hubness={hubness!r}: choose none, center or csls.")
        self.hubness = hubness
        self.ids = []
        self.captions = self.object_labels = self.content_hashes = None
        self.text_embeddings = self.features = self.looks = None
        self._encoder = self._encoder_settings = self._probe = None
        if encoder is not None:
            self.encoder = encoder
        self.reference_embeddings = None if reference_texts is None else self.embed(reference_texts)
        self.add(ids, captions, text_embeddings, object_labels, features, content_hashes)

    def __len__(self) -> int:
        return len(self.ids)

    def __contains__(self, picture: str) -> bool:
        return picture in self._row

    def __deepcopy__(self, memo):
        return self  # a processor's `to_dict` copies all that the processor holds

    @property
    def encoder(self) -> TextEncoder | None:
        """What embeds texts; the encoder that an index was saved with is loaded when a text is first embedded."""
        if self._encoder is None and self._encoder_settings is not None:
            self.encoder = self._load_encoder()
        return self._encoder

    @encoder.setter
    def encoder(self, encoder: TextEncoder) -> None:
        known = self._encoder_settings
        if self.text_embeddings is not None and encoder.width != self.width:
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
        self._encoder, self._probe = encoder, probe
        kind = getattr(encoder, "type", "other")
        self._encoder_settings = {"type": kind, "name": encoder.name, "width": encoder.width}

    @property
    def width(self) -> int | None:
        """Width D of the sentence vectors."""
        if self.text_embeddings is not None:
            return self.text_embeddings.shape[1]
        return self._encoder_settings["width"] if self._encoder_settings else None

    @property
    def reads_text(self) -> bool:
        """Whether a new text can be looked up: captions are known, and an encoder to embed the text."""
        return self.text_embeddings is not None and self._encoder_settings is not None

    @property
    def feature_shape(self) -> tuple[int, int]:
        """(r, F): rows and width of a picture's features."""
        if self.features is None:
            raise RelationIndexError("This relation index holds no picture features: build it with features.")
        return tuple(self.features.shape[1:])

    # --------------------------------------------------------------------------------------------------- build

    def add(
        self,
        ids: Sequence[str],
        captions: Sequence[str | None] | None = None,
        text_embeddings: torch.Tensor | None = None,
        object_labels: Sequence[Sequence[str]] | None = None,
        features: torch.Tensor | None = None,
        content_hashes: Sequence[str] | None = None,
    ) -> None:
        """Add pictures; arguments as for the index itself, the same ones. It copies the store: add many at once.

        Raises:
            RelationIndexError: an id is there already, or something has another length, width or kind than before.
        """
        ids = [str(picture) for picture in ids]
        if text_embeddings is None and captions is not None and self.encoder is not None:
            text_embeddings = self.encoder.encode([caption or "" for caption in captions])
        if text_embeddings is not None:
            self._check_width(text_embeddings)
        new = {
            "captions": None if captions is None else list(captions),
            "text_embeddings": text_embeddings,
            "object_labels": None if object_labels is None else [sorted(set(labels or [])) for labels in object_labels],
            "content_hashes": None if content_hashes is None else list(content_hashes),
            "features": None if features is None else features.to(torch.float16),
            "looks": None if features is None else looks_of(features),
        }
        for name, values in new.items():
            before = getattr(self, name)
            if values is not None and len(values) != len(ids):
                raise RelationIndexError(f"{name}: {len(values)} for {len(ids)} pictures.")
            if self.ids and (values is None) != (before is None):
                raise RelationIndexError(f"{name}: give it for all pictures of the relation index or for none.")
            if isinstance(values, torch.Tensor) and before is not None:
                if values.shape[1:] != before.shape[1:]:
                    raise RelationIndexError(
                        f"{name}: {list(values.shape[1:])} a picture, the relation index has {list(before.shape[1:])}."
                    )
                new[name] = torch.cat([before, values.to(before.dtype)])
            elif before is not None:
                new[name] = before + values
        self._set_ids(self.ids + ids)
        for name, values in new.items():
            setattr(self, name, values)
        self._prepare()
        self._penalty = self._hub_penalty() if self.hubness == "csls" else None
        self._folder = None  # what is on disk, if anything, is out of date

    def _set_ids(self, ids: list[str]) -> None:
        row = {picture: i for i, picture in enumerate(ids)}
        if len(row) < len(ids):
            twice = next(picture for i, picture in enumerate(ids) if row[picture] != i)
            raise RelationIndexError(f"Picture {twice!r} is in the relation index twice.")
        self.ids, self._row = ids, row

    def _prepare(self) -> None:
        """Make the look-up tables and the pool's mean vector [D]."""
        self._rank = np.argsort(np.argsort(np.array(self.ids, dtype=str), kind="stable"))
        self._copies = defaultdict(list)
        for i, content in enumerate(self.content_hashes or []):
            self._copies[content].append(i)
        self._label_sets = None if self.object_labels is None else LabelSets(self.object_labels)
        self._mean = self._faiss = None
        if self.hubness == "center" and self.text_embeddings is not None and self.text_embeddings.any():
            chunks = self.text_embeddings.split(CHUNK)
            total = sum(normalize(chunk.float(), dim=-1).double().sum(0) for chunk in chunks)
            self._mean = (total / self.text_embeddings.any(-1).sum()).float()  # of those with a caption

    def _hub_penalty(self) -> torch.Tensor | None:
        """How much nearer than others each picture [N] is to its nearest queries, halved."""
        if self.text_embeddings is None or not len(self):
            return None
        captioned = self.text_embeddings.any(-1)
        own = self.reference_embeddings is None  # then every caption is its own nearest query
        queries = self._unit(self.text_embeddings[captioned] if own else self.reference_embeddings)
        nearest = min(CSLS_NEIGHBORS + own, len(queries))
        chunks = self.text_embeddings.split(CHUNK)
        similarity = torch.cat([(self._unit(chunk) @ queries.T).topk(nearest).values for chunk in chunks])
        density = similarity[:, int(own) :].double().mean(-1).nan_to_num()  # nan: a pool of one picture
        penalty = (density - density[captioned].mean()) / 2
        return penalty.masked_fill(~captioned, 2.0)  # no caption: never found

    # -------------------------------------------------------------------------------------------------- search

    def neighbors_for_text(
        self,
        texts: Sequence[str] | torch.Tensor,
        k: int,
        exclude: Sequence[Sequence[str | None]] | None = None,
        features: torch.Tensor | None = None,
    ) -> list[list[dict]]:
        """Find the pictures whose captions match texts.

        Args:
            texts: Q posts (web addresses, "RT" and @users are ignored), or their sentence vectors [Q, D].
            k: neighbours a text.
            exclude: for each text, ids and content hashes of pictures that may not be found; an id stands for all
                copies of the picture.
            features: [Q, r, F] of the posts' own pictures: of equally good captions, the most similar picture first.

        Returns:
            For each text at most k {"id", "score"}, best first; equal scores are ordered by `features`, then by id.
        """
        if self.text_embeddings is None:
            raise RelationIndexError(
                "This relation index knows no captions: build it with captions or text_embeddings."
            )
        return self._search(self._cosine(self._unit(self.embed(texts))), k, exclude, features)

    def neighbors_for_picture(
        self,
        object_labels: Sequence[Sequence[str]],
        k: int,
        exclude: Sequence[Sequence[str | None]] | None = None,
        features: torch.Tensor | None = None,
    ) -> list[list[dict]]:
        """Find the pictures that show the same kinds of objects; other arguments and result as in `neighbors_for_text`.

        Args:
            object_labels: for each of Q pictures the labels of its objects; how often one occurs does not matter.
        """
        if self._label_sets is None:
            raise RelationIndexError("This relation index knows no objects: build it with object_labels.")
        return self._search(
            SetRelation([set(labels or []) for labels in object_labels], self._label_sets), k, exclude, features
        )

    def features_of(self, ids: Sequence[str]) -> torch.Tensor:
        """Return the features [len(ids), r, F] (float16) of pictures.

        Raises:
            RelationIndexError: the pool lacks a picture, or the index holds no features.
        """
        shape = self.feature_shape
        for picture in ids:
            if picture not in self._row:
                raise RelationIndexError(
                    f"Neighbour {picture!r} is not in the relation index ({len(self)} pictures): use the index with "
                    "which the neighbours were found, or build the relations again."
                )
        rows = [self._row[picture] for picture in ids]
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
        self._faiss = FaissSearch(self._cosine(torch.zeros(0, self.width)), len(self), factory, depth)

    def _search(self, relation: CosineRelation | SetRelation, k, exclude, features) -> list[list[dict]]:
        if k > len(self):
            raise RelationIndexError(f"k={k} is more than the pool's {len(self)} pictures: lower k or add pictures.")
        if exclude is not None and len(exclude) != len(relation):
            raise RelationIndexError(f"exclude: {len(exclude)} lists for {len(relation)} queries.")
        looks = None if features is None or self.looks is None else looks_of(features)
        best = Best(len(relation), k)
        if k > 0:
            second = SecondKey(self._rank, looks, self.looks)
            forbidden = self._forbidden(exclude or [])
            if self._faiss is not None and isinstance(relation, CosineRelation):
                self._faiss.search(relation, best, forbidden, second)
            else:
                search_exactly(relation, len(self), best, forbidden, second)
        neighbors = [[] for _ in range(len(relation))]
        for query, row, score in zip(best.query, best.row, best.score, strict=True):
            neighbors[query].append({"id": self.ids[row], "score": min(float(score), 1.0)})
        return neighbors

    def _cosine(self, queries: torch.Tensor) -> CosineRelation:
        return CosineRelation(queries, lambda rows: self._unit(self.text_embeddings[rows]), self._penalty)

    def _unit(self, vectors: torch.Tensor) -> torch.Tensor:
        """Unit vectors in float32, centred where the index says so; the zeros of an empty text stay zeros."""
        unit = normalize(vectors.float(), dim=-1)
        return unit if self._mean is None else normalize(unit - self._mean, dim=-1) * unit.any(-1, keepdim=True)

    def _forbidden(self, exclude: Sequence[Sequence[str | None]]) -> np.ndarray:
        """Turn ids and content hashes into pairs (query, row) [pairs, 2], copies of a picture included."""
        pairs = []
        for query, names in enumerate(exclude):
            for name in names:
                content = self.content_hashes[self._row[name]] if name in self._row and self.content_hashes else name
                rows = {*self._copies.get(content, []), *([self._row[name]] if name in self._row else [])}
                pairs += [(query, row) for row in rows]
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
        if self._folder is not None and include_encoder is None:
            return self._link_files(folder)
        (folder / SETTINGS_FILE).unlink(missing_ok=True)
        pictures = {name: getattr(self, name) for name in ("ids", "captions", "object_labels", "content_hashes")}
        _write(folder / PICTURES_FILE, lambda path: path.write_text(json.dumps(pictures, ensure_ascii=False), "utf-8"))
        names = ("text_embeddings", "reference_embeddings", "looks", "_penalty", "_probe")
        vectors = {name.strip("_"): getattr(self, name) for name in names if getattr(self, name) is not None}
        _write(folder / VECTORS_FILE, lambda path: save_file({k: v.contiguous() for k, v in vectors.items()}, path))
        files = [PICTURES_FILE, VECTORS_FILE]
        if self.features is not None:
            _write(folder / FEATURES_FILE, lambda path: save_file({"features": self.features.contiguous()}, path))
            files.append(FEATURES_FILE)
        encoder = self._encoder_settings and dict(self._encoder_settings)
        if encoder and encoder["type"] == SentenceEncoder.type:
            encoder["included"] = self.encoder.is_local if include_encoder is None else include_encoder
            if encoder["included"]:
                files += [path.name for path in self.encoder.save_pretrained(folder)]
        settings = {
            "pictures": len(self),
            "hubness": self.hubness,
            "encoder": encoder,
            "files": {name: (folder / name).stat().st_size for name in files},
        }
        _write(folder / SETTINGS_FILE, lambda path: path.write_text(json.dumps(settings, indent=2), "utf-8"))

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
        if not Path(name_or_path).is_dir():
            patterns = [f"{subfolder}/*"] if subfolder else None
            try:
                name_or_path = snapshot_download(str(name_or_path), allow_patterns=patterns, **hub)
            except Exception as error:  # whatever the network and the Hub may answer
                reason = (str(error).strip() or type(error).__name__).splitlines()[0]
                raise RelationIndexError(f"{name_or_path}: no such folder, nor on the Hub ({reason})") from error
        folder = Path(name_or_path) / subfolder
        if not (folder / SETTINGS_FILE).is_file():
            raise RelationIndexError(
                f"{folder}: no relation index, or one cut short while writing (no {SETTINGS_FILE})."
            )
        try:
            settings = json.loads((folder / SETTINGS_FILE).read_text("utf-8"))
            for name, size in settings["files"].items():
                found = (folder / Path(name).name).stat().st_size
                if found != size:
                    raise RelationIndexError(
                        f"{folder / name}: {found} bytes of {size}, cut short; copy the index again."
                    )
            pictures = json.loads((folder / PICTURES_FILE).read_text("utf-8"))
            vectors = _read_tensors(folder / VECTORS_FILE)
            features = _read_tensors(folder / FEATURES_FILE) if FEATURES_FILE in settings["files"] else {}
        except FileNotFoundError as error:
            raise RelationIndexError(
                f"{folder}: {Path(error.filename).name} is missing, cut short; copy the index again."
            ) from error
        except (json.JSONDecodeError, KeyError, SafetensorError) as error:
            raise RelationIndexError(f"{folder}: not a readable relation index ({error}).") from error
        index = cls.__new__(cls)
        index.hubness = settings["hubness"]
        index.captions, index.object_labels = pictures["captions"], pictures["object_labels"]
        index.content_hashes = pictures["content_hashes"]
        for name in ("text_embeddings", "reference_embeddings", "looks", "_penalty", "_probe"):
            setattr(index, name, vectors.get(name.strip("_")))
        index.features = features.get("features")
        index._set_ids(pictures["ids"])
        index._prepare()
        index._encoder, index._encoder_settings = None, settings["encoder"]
        index._folder = folder
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

    def _link_files(self, folder: Path) -> None:
        if folder.resolve() == self._folder.resolve():
            return
        names = json.loads((self._folder / SETTINGS_FILE).read_text("utf-8"))["files"]
        (folder / SETTINGS_FILE).unlink(missing_ok=True)
        for name in [*names, SETTINGS_FILE]:
            _write(folder / name, lambda path, source=self._folder / name: _link_or_copy(source, path))


def looks_of(features: torch.Tensor) -> torch.Tensor:
    """Sum up how pictures look, from features [N, r, F]: the unit vector [N, F] (float16) of their mean."""
    chunks = [normalize(chunk.float().mean(1), dim=-1).half() for chunk in features.split(CHUNK)]
    return torch.cat(chunks) if chunks else features.new_zeros(0, features.shape[-1])


def _read_tensors(path: Path) -> dict[str, torch.Tensor]:
    with safe_open(path, framework="pt") as file:
        return {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118


def _write(path: Path, write: Callable[[Path], object]) -> None:
    """Let `write` fill a temporary file and give it its name only when it is complete."""
    unfinished = path.with_name(f".{path.name}.unfinished")
    unfinished.unlink(missing_ok=True)
    write(unfinished)
    os.replace(unfinished, path)


def _link_or_copy(source: Path, target: Path) -> None:
    try:
        os.link(source.resolve(), target)
    except OSError:  # another file system, or one without hard links
        shutil.copyfile(source, target)
