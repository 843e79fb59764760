"""Cells of pictures under an image encoder that learns nothing: computed once, kept on disk, read through a memory map.

In every epoch a frozen image encoder says the same of the same picture. Its cells become the column `object_features`,
in a file that is named by all they depend on: the weights, the pictures and their boxes, and how crops are made.
"""

import hashlib
import json
import os
from collections.abc import Callable, Iterator, Mapping
from contextlib import AbstractContextManager
from functools import partial
from typing import Any

import numpy as np
import PIL
import torch
from datasets import Dataset, Features, List, Value, concatenate_datasets
from datasets.exceptions import DatasetGenerationError
from torch.utils.data import DataLoader
from transformers import PreTrainedModel
from transformers.utils import logging

from .pictures import undecoded
from .processing_multimodal_ner import MultimodalNerProcessor

logger = logging.get_logger(__name__)

CROPS_AT_ONCE = 32
"""Crops that are on their way through the image encoder at once: they must fit in memory."""

NO_SETTINGS = {
    "auto_map",
    "column_sources",
    "processor_class",
    "_name_or_path",
    "architectures",
    "transformers_version",
}
"""What a saved configuration says of itself, and no cell depends on."""


def can_be_kept(model: PreTrainedModel, processor: MultimodalNerProcessor, dataset: Dataset) -> bool:
    """Whether the pictures of posts give the same cells in every epoch, and nothing else is made of them.

    Args:
        model: a tagger of this package.
        processor: its processor.
        dataset: the posts; where some have `object_features` already, nothing is computed.
    """
    encoder = model.base_model.vision_model
    if encoder is None or model.config.finetune_cnn or any(weight.requires_grad for weight in encoder.parameters()):
        return False
    gaps = {name: dataset.data[name].null_count for name in dataset.column_names}
    if gaps.get("image", len(dataset)) == dataset.data.num_rows or "object_features" not in processor.columns:
        return False
    given = gaps.get("object_features", dataset.data.num_rows) < dataset.data.num_rows
    return not given and not processor.searches_pictures(gaps)


class KeptFeatures:
    """The cells of the pictures of datasets.

    Args:
        model: a tagger whose image encoder is frozen.
        processor: its processor.
        batch_size: posts that are read at once.
        num_workers: processes that open pictures and make crops.
        precision: makes the context in which the model computes, such as that of autocast.
    """

    def __init__(
        self,
        model: PreTrainedModel,
        processor: MultimodalNerProcessor,
        batch_size: int,
        num_workers: int,
        precision: Callable[[], AbstractContextManager],
    ):
        self.model = model
        self.processor = processor
        self.batch_size = batch_size
        self.num_workers = num_workers
        self.precision = precision
        self.contents = {}  # digests of datasets
        self.known = {}  # features, by their keys

    def add_to(self, dataset: Dataset) -> Dataset:
        """Return posts with cells of their pictures instead of the pictures.

        Processes that want the same wait for the one that computes it; what a stopped one leaves is not taken.
        """
        key = self.key(dataset)
        if key not in self.known:
            self.known = {known: own for known, own in self.known.items() if known[1] != key[1]}  # of other weights
            self.known[key] = self.load_or_compute(dataset, key)
        others = [name for name in dataset.column_names if name not in ("image", "object_features")]
        joined = concatenate_datasets([dataset.select_columns(others), self.known[key]], axis=1)
        return joined.with_transform(partial(read_features, width=self.model.config.object_feature_size))

    def key(self, dataset: Dataset) -> tuple[str, str]:
        """Digests of everything but the posts that the cells depend on, and of the posts."""
        how = hashlib.sha256()
        for name, tensor in self.model.base_model.vision_model.state_dict().items():
            how.update(f"{name} {tensor.dtype} {tuple(tensor.shape)}".encode())
            how.update(tensor.detach().cpu().contiguous().flatten().view(torch.uint8).numpy().data)
        with self.precision():
            device = self.model.device.type
            autocast = torch.get_autocast_dtype(device) if torch.is_autocast_enabled(device) else None
        processor = self.processor.to_dict()
        parts = (processor, processor.pop("image_processor"), self.model.config.vision_config.to_dict())
        settings = {"parts": [{name: own[name] for name in own.keys() - NO_SETTINGS} for own in parts]}
        settings |= {"averages": self.averages, "autocast": autocast}
        settings |= {"torch": torch.__version__, "pillow": PIL.__version__}
        how.update(json.dumps(settings, sort_keys=True, default=str).encode())
        if dataset._fingerprint not in self.contents:
            self.contents[dataset._fingerprint] = digest_of_pictures(dataset)
        return how.hexdigest(), self.contents[dataset._fingerprint]

    @property
    def averages(self) -> bool:
        """Whether the system reads the mean of the cells of a node alone."""
        return self.model.base_model.averages_cells

    def load_or_compute(self, dataset: Dataset, key: tuple[str, str]) -> Dataset:
        """Return the columns `object_features`, bytes of float32 [m, r, F], and `chosen`, see `cells_of_posts`."""
        columns = Features({"object_features": Value("binary"), "chosen": List(Value("int32"))})
        try:
            features = Dataset.from_generator(
                partial(self.cells_of_posts, dataset),
                columns,
                fingerprint="-".join(key),
                writer_batch_size=self.batch_size,
            )
        except DatasetGenerationError as error:
            raise error.__cause__ or error from None
        files = [file["filename"] for file in features.cache_files]
        size = sum(os.path.getsize(file) for file in files) / 1e6
        logger.warning(
            f"The image encoder is frozen: its features of {len(dataset):,} posts are computed once and kept in "
            f"{os.path.dirname(files[0])} ({size:,.1f} MB)."
        )
        return features

    def cells_of_posts(self, dataset: Dataset) -> Iterator[dict[str, Any]]:
        """Yield for each post the bytes of its cells, None = no visual node, and `chosen`: for each node its place
        among the `objects` of the post, -1 = it is none of them."""
        read = partial(pictures_of, processor=self.processor)
        settings = {"num_workers": self.num_workers, "generator": torch.Generator()}  # else chance goes on otherwise
        for posts in DataLoader(dataset, self.batch_size, collate_fn=read, **settings):
            for pixels, chosen in posts:
                yield {"object_features": None if pixels is None else self.cells(pixels), "chosen": chosen}

    @torch.no_grad()
    def cells(self, pixels: torch.Tensor) -> bytes:
        """The cells [m, r, F] of pictures [m, 3, H, W]; r = 1 where the system reads their mean."""
        encode = self.model.base_model.encode_pictures
        parts = []
        was_training = self.model.training
        self.model.eval()
        for part in pixels.to(self.model.device).split(CROPS_AT_ONCE):
            with self.precision():
                cells = encode(part[None], torch.ones(1, len(part), dtype=torch.bool, device=part.device))[0]
            parts.append(cells.float().mean(1, keepdim=True) if self.averages else cells.float())
        self.model.train(was_training)
        return torch.cat(parts).cpu().numpy().tobytes()


def pictures_of(
    rows: list[dict[str, Any]], processor: MultimodalNerProcessor
) -> list[tuple[torch.Tensor | None, list[int]]]:
    """The crops of posts, and where among the given objects each comes from."""
    result = []
    for row, post in zip(rows, processor.prepare(rows), strict=True):
        places = {id(node): place for place, node in enumerate(row.get("objects") or [])}
        chosen = [places.get(id(node), -1) for node in post.nodes.get("objects", [])]
        result.append((post.features.get("pixel_values"), chosen))
    return result


def read_features(rows: dict[str, list], width: int) -> dict[str, list]:
    """Turn the bytes of cells into arrays [m, r, F], and leave of `objects` those that have some."""
    if "object_features" not in rows or "chosen" not in rows:
        return rows
    rows = dict(rows)
    chosen = rows.pop("chosen")
    cells = []
    for content, places in zip(rows["object_features"], chosen, strict=True):
        cells.append(None if content is None else np.frombuffer(content, np.float32).reshape(len(places), -1, width))
    rows["object_features"] = cells
    if "objects" in rows:
        chosen_objects = []
        for objects, places in zip(rows["objects"], chosen, strict=True):
            from_objects = objects is not None and -1 not in places
            chosen_objects.append([objects[place] for place in places] if from_objects else objects)
        rows["objects"] = chosen_objects
    return rows


def digest_of_pictures(dataset: Dataset) -> str:
    """Name the pictures of posts and the boxes in them; files are told by their path, size and time."""
    columns = [name for name in ("image", "objects") if name in dataset.column_names]
    dataset = undecoded(dataset.select_columns(columns))
    digest = hashlib.sha256()
    for rows in dataset.iter(100):
        for source in rows["image"]:
            content = stamp(source)
            digest.update(f"{len(content)} ".encode())
            digest.update(content)
        digest.update(repr(rows.get("objects")).encode())
    return digest.hexdigest()


def stamp(source: Mapping[str, Any] | str | None) -> bytes:
    """The bytes of a picture, or what tells its file from others and from what it was before."""
    content = source.get("bytes") if isinstance(source, Mapping) else None
    if content is not None:
        return content
    path = source.get("path") if isinstance(source, Mapping) else source
    try:
        status = os.stat(path)
    except (OSError, TypeError):
        return repr(path).encode()
    return f"{path} {status.st_size} {status.st_mtime_ns}".encode()
