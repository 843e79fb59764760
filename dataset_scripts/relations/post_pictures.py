"""The pictures of the posts of a dataset, and what is computed of them; a run that was stopped goes on where it was."""

import hashlib
import json
from collections import Counter
from collections.abc import Callable, Collection, Sequence
from pathlib import Path
from typing import Any

import torch
from datasets import DatasetDict, Image
from tqdm import tqdm

from modeling_umgf.descriptors import PictureFeatures
from modeling_umgf.pictures import LOOK_WIDTH, UnreadablePicture, content_hash, look, open_picture, picture_file_hash
from modeling_umgf.sentence_encoders import TextEncoder

from ..reading.bad_input import BadInput
from ..writing.artefact_store import ArtefactStore, digest

CAPTIONS_AT_A_TIME = 256
PICTURES_AT_A_TIME = 16


class PostPictures:
    """All pictures of the posts of a dataset: one for each post that has a picture, or at least a caption.

    Args:
        splits: the posts.
        left_out: ids whose picture may not be used, such as blank ones.

    Attributes:
        ids, splits, captions, object_labels: of each picture; the labels are empty where there are none.
        row: the place of each id.
        outcomes: how many posts have a picture that is used, and why others have none.

    Raises:
        BadInput: an id comes twice.
    """

    def __init__(self, splits: DatasetDict, left_out: Collection[str] = ()):
        self.ids = []
        self.splits = []
        self.captions = []
        self.object_labels = []
        self._cells = []
        self.outcomes = Counter()
        left_out = set(left_out)
        for name, split in splits.items():
            undecoded = split.cast_column("image", Image(decode=False))
            has_image = split.data["image"].is_valid().to_pylist()
            captions = split["caption"][:] if "caption" in split.features else [None] * len(split)
            labels = split["object_labels"][:] if "object_labels" in split.features else [None] * len(split)
            for i, picture in enumerate(split["id"]):
                if not has_image[i] and not captions[i]:
                    self.outcomes["no picture"] += 1
                elif picture in left_out:
                    self.outcomes["left out"] += 1
                else:
                    self.outcomes["used"] += 1
                    self.ids.append(picture)
                    self.splits.append(name)
                    self.captions.append(captions[i])
                    self.object_labels.append(labels[i] or [])
                    self._cells.append((undecoded, i) if has_image[i] else None)
        self.row = {picture: i for i, picture in enumerate(self.ids)}
        if len(self.row) < len(self.ids):
            twice = next(picture for picture, count in Counter(self.ids).items() if count > 1)
            raise BadInput(f"the id {twice} is in the dataset twice; neighbours are named by ids")

    def __len__(self) -> int:
        return len(self.ids)

    def read(self, i: int, reader: Callable) -> Any:
        """Return what a function of `modeling_umgf.pictures` makes of a picture; None where there is only a caption.

        Raises:
            BadInput: the picture can't be read.
        """
        if self._cells[i] is None:
            return None
        split, row = self._cells[i]
        try:
            return reader(split[row]["image"])
        except UnreadablePicture as error:
            raise BadInput(f"post {self.ids[i]}: its picture can't be used ({error}); leave it out") from error


def encode_captions(pictures: PostPictures, encoder: TextEncoder, folder: Path) -> torch.Tensor:
    """Return sentence vectors [N, D] of the captions; zeros where there is none.

    Args:
        folder: where results are kept, here and below.
    """

    def encode(rows: Sequence[int]) -> torch.Tensor:
        return encoder.encode([pictures.captions[i] for i in rows])

    probe = encoder.encode(["two people at a football game"])[0].tolist()
    store = ArtefactStore(folder, "caption_vectors", {"encoder": encoder.name, "probe": probe})
    keys = [digest(caption) if caption else None for caption in pictures.captions]
    vectors = _kept_or_computed(store, keys, encode, CAPTIONS_AT_A_TIME)
    return torch.stack([torch.zeros(encoder.width) if vector is None else vector for vector in vectors])


def hash_and_look(pictures: PostPictures, folder: Path) -> tuple[list[str | None], torch.Tensor]:
    """Return the content hash of each picture, or None, and looks [N, 192], or zeros, where there is only a caption."""

    def compute(rows: Sequence[int]) -> list[dict]:
        opened = [pictures.read(i, open_picture) for i in rows]
        return [{"content_hash": content_hash(picture), "look": look(picture).tolist()} for picture in opened]

    store = ArtefactStore(folder, "hashes_and_looks", {})
    rows = tqdm(range(len(pictures)), desc="hashing picture files", disable=None)
    keys = [pictures.read(i, picture_file_hash) for i in rows]
    found = _kept_or_computed(store, keys, compute, PICTURES_AT_A_TIME)
    hashes = [one and one["content_hash"] for one in found]
    looks = [[0.0] * LOOK_WIDTH if one is None else one["look"] for one in found]
    return hashes, torch.tensor(looks)


def see_pictures(
    pictures: PostPictures, hashes: Sequence[str | None], encoder: PictureFeatures, pooled: bool, folder: Path
) -> torch.Tensor:
    """Return the features [N, r, F] of all pictures, float16.

    Args:
        hashes: the content hash of each.
        encoder: computes the features.
        pooled: one vector a picture, r = 1.

    Raises:
        BadInput: there is a caption without a picture.
    """

    def see(rows: Sequence[int]) -> torch.Tensor:
        cells = encoder([pictures.read(i, open_picture) for i in rows])
        return (cells.mean(1, keepdim=True) if pooled else cells).half()

    if None in hashes:
        name = pictures.ids[hashes.index(None)]
        raise BadInput(f"post {name} has a caption but no picture to see; take --features caption, or leave it out")
    settings = {
        "weights": _weights_hash(encoder.model),
        "image_processor": json.loads(encoder.image_processor.to_json_string()),
        "pooled": pooled,
    }
    store = ArtefactStore(folder, "features", settings)
    return torch.stack(_kept_or_computed(store, hashes, see, PICTURES_AT_A_TIME))


def _kept_or_computed(
    store: ArtefactStore, keys: Sequence[str | None], compute: Callable[[Sequence[int]], Sequence], batch_size: int
) -> list:
    """Return what the store has under each key, None for None; what it lacks is computed from the first row with a key.

    Batches are the same whatever is known already, so that a run that was stopped ends with the same results.
    """
    first_row = {}
    for row, key in enumerate(keys):
        if key is not None:
            first_row.setdefault(key, row)
    rows = list(first_row.values())
    starts = range(0, len(rows), batch_size)
    for start in tqdm(starts, desc=f"{store.folder.name}, batches", disable=None):
        batch = rows[start : start + batch_size]
        if any(keys[row] not in store for row in batch):
            for row, result in zip(batch, compute(batch), strict=True):
                store[keys[row]] = result
    return [None if key is None else store[key] for key in keys]


def _weights_hash(model: torch.nn.Module) -> str:
    """Name a model by its weights, so that others have another name."""
    content = hashlib.sha256()
    for name, tensor in model.state_dict().items():
        content.update(name.encode())
        content.update(tensor.cpu().contiguous().reshape(-1).view(torch.uint8).numpy())
    return content.hexdigest()
