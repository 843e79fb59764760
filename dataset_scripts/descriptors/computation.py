"""Columns of a dataset, computed from words and pictures in batches, by one process or by many, and kept on disk."""

import logging
import tempfile
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

import torch
from accelerate import PartialState
from datasets import Dataset, DatasetDict, Features, Image, concatenate_datasets
from torch.utils.data import DataLoader
from tqdm import tqdm

from modeling_umgf.pictures import UnreadablePicture, open_picture, picture_file_hash

from ..columns.contract import COLUMNS
from ..writing.artefact_store import ArtefactStore
from ..writing.dataset_folder import in_order
from .computed_columns import ComputedColumn

logger = logging.getLogger(__name__)


@dataclass
class DescriptorSummary:
    """What a run did.

    Args:
        pictures: posts with a picture that could be read.
        failed: for each post whose picture could not be read, (split, id) -> why.
        without_picture: posts that have none.
        phrases_with_object, phrases_without_object: noun phrases of the posts with a readable picture.
        computed, known: by column, results of this run and of earlier ones; "cannot be read" is a result.
    """

    pictures: int = 0
    failed: dict[tuple[str, str], str] = field(default_factory=dict)
    without_picture: int = 0
    phrases_with_object: int = 0
    phrases_without_object: int = 0
    computed: Counter = field(default_factory=Counter)
    known: Counter = field(default_factory=Counter)

    def lines(self) -> list[str]:
        """The summary in words, without what depends on earlier runs; empty where no picture was looked at."""
        if not (self.pictures or self.failed or self.without_picture):
            return []
        lines = [f"pictures: {self.pictures} done, {len(self.failed)} failed, {self.without_picture} posts without"]
        lines += [f"failed, {reason}: {count}" for reason, count in Counter(self.failed.values()).most_common()]
        if self.phrases_with_object or self.phrases_without_object:
            lines.append(
                f"noun phrases: {self.phrases_with_object} with an object, {self.phrases_without_object} without"
            )
        return lines


def compute_columns(
    splits: DatasetDict,
    columns: Sequence[ComputedColumn],
    cache_dir: str | Path,
    work_dir: str | Path,
    *,
    noun_phrases: Callable | None = None,
    batch_size: int = 8,
    num_proc: int = 1,
) -> tuple[DatasetDict, DescriptorSummary]:
    """Add columns to all splits; under `accelerate launch` every process computes its share.

    Args:
        splits: posts with the columns `id`, `tokens` and, for columns that need one, `image`.
        columns: what to compute, in this order.
        cache_dir: where results are kept.
        work_dir: where the columns lie as long as the returned splits are used.
        noun_phrases: from the words of a post to spans, as `find_noun_phrases`; computes the column `noun_phrases`
            first. None = leave it as it is.
        batch_size: pictures in a forward pass. Batches are the same whatever is known already, so that a run that was
            stopped ends with the same results to the last bit.
        num_proc: processes that decode pictures, for each process that runs a model.

    Returns:
        The splits with their columns, and what was done.
    """
    summary = DescriptorSummary()
    described = DatasetDict()
    hashes = {}
    for name, split in splits.items():
        if "image" in split.features:
            split = split.cast_column("image", Image(decode=False))
        if noun_phrases is not None:
            cells = partial(_noun_phrases, split["tokens"][:], noun_phrases, name)
            split = _with_column(split, "noun_phrases", COLUMNS["noun_phrases"].feature, cells, work_dir)
        described[name] = split
        hashes[name] = _hash_pictures(split, name, summary)
    for column in columns:
        store = ArtefactStore(cache_dir, column.name, column.settings)
        keys = {name: _keys(column, split, hashes[name]) for name, split in described.items()}
        _compute(column, store, described, keys, summary, batch_size, num_proc)
        for name, split in described.items():
            for post, key in zip(split["id"], keys[name], strict=True):
                if key is not None and (reason := _reason(store[key])):
                    summary.failed[name, post] = reason
            cells = partial(_results, store, keys[name], column.empty)
            described[name] = _with_column(split, column.name, column.feature, cells, work_dir)
    if any(column.needs_picture for column in columns):
        _count(described, summary)
    return DatasetDict({name: in_order(split) for name, split in described.items()}), summary


class Batches(torch.utils.data.Dataset):
    """Batches of (key, row with its opened picture), or (key, {"unreadable": reason}) where it cannot be opened.

    Args:
        batches: (key, split, number of the row) of the rows of each batch.
        splits: the rows.
        open_pictures: False = leave the pictures as they are.
    """

    def __init__(self, batches: Sequence[Sequence[tuple[str, str, int]]], splits: DatasetDict, open_pictures: bool):
        self.batches = batches
        self.splits = splits
        self.open_pictures = open_pictures

    def __len__(self) -> int:
        return len(self.batches)

    def __getitem__(self, i: int) -> list[tuple[str, dict]]:
        return [(key, self._row(name, index)) for key, name, index in self.batches[i]]

    def _row(self, name: str, index: int) -> dict:
        row = self.splits[name][index]
        if not self.open_pictures:
            return row
        try:
            return {**row, "image": open_picture(row["image"])}
        except UnreadablePicture as error:
            return {"unreadable": error.reason}


def _keys(column: ComputedColumn, split: Dataset, hashes: Sequence[str | None]) -> list[str | None]:
    """What the cell of each row depends on."""
    heavy = [name for name in split.features if name in COLUMNS and COLUMNS[name].heavy]
    light = split.remove_columns(heavy)
    return [column.key({**row, "picture": own}) for own, row in zip(hashes, light, strict=True)]


def _compute(
    column: ComputedColumn,
    store: ArtefactStore,
    splits: DatasetDict,
    keys: dict[str, list[str | None]],
    summary: DescriptorSummary,
    batch_size: int,
    num_proc: int,
) -> None:
    """Fill the store with the results of all keys; each distinct one is computed once, by one of the processes."""
    state = PartialState()
    places: dict[str, tuple[str, int]] = {}
    for name, own in keys.items():
        for index, key in enumerate(own):
            if key is not None:
                places.setdefault(key, (name, index))
    items = [(key, name, index) for key, (name, index) in places.items()]
    known = sum(key in store for key in places)
    state.wait_for_everyone()
    batches = [items[start : start + batch_size] for start in range(0, len(items), batch_size)]
    batches = batches[state.process_index :: state.num_processes]
    batches = [batch for batch in batches if any(key not in store for key, _, _ in batch)]
    if batches:
        compute = column.load(state.device)
        workers = num_proc if num_proc > 1 and column.needs_picture else 0
        opened = Batches(batches, splits, column.needs_picture)
        loader = DataLoader(opened, batch_size=None, num_workers=workers, collate_fn=list)
        for batch in tqdm(loader, desc=f"{column.name}, batches", disable=not state.is_main_process):
            results = {key: row for key, row in batch if _reason(row)}
            rows = {key: row for key, row in batch if key not in results}
            if rows:
                results |= zip(rows, compute(list(rows.values())), strict=True)
            for key, result in results.items():
                if key not in store:
                    store[key] = result
    state.wait_for_everyone()
    summary.known[column.name] = known
    summary.computed[column.name] = sum(key in store for key in places) - known
    logger.info("%s: %d computed, %d known before", column.name, summary.computed[column.name], known)


def _noun_phrases(words: Sequence[Sequence[str]], find: Callable, name: str) -> Iterator[list[dict[str, int]]]:
    for own in tqdm(words, desc=f"noun phrases of {name}", disable=not PartialState().is_main_process):
        yield find(own)


def _results(store: ArtefactStore, keys: Sequence[str | None], empty: Any) -> Iterator[Any]:
    for key in keys:
        cell = empty if key is None else store[key]
        if _reason(cell):
            cell = empty
        yield cell.numpy() if isinstance(cell, torch.Tensor) else cell


def _reason(cell: Any) -> str | None:
    """Why there is no result: the picture could not be read. No column has a dict as its cell."""
    return cell.get("unreadable") if isinstance(cell, dict) else None


def _with_column(
    split: Dataset, name: str, feature: Any, cells: Callable[[], Iterator[Any]], work_dir: str | Path
) -> Dataset:
    def rows() -> Iterator[dict[str, Any]]:
        for cell in cells():
            yield {name: cell}

    column = Dataset.from_generator(rows, features=Features({name: feature}), cache_dir=tempfile.mkdtemp(dir=work_dir))
    if name in split.features:
        split = split.remove_columns(name)
    return concatenate_datasets([split, column], axis=1)


def _hash_pictures(split: Dataset, name: str, summary: DescriptorSummary) -> list[str | None]:
    """Content hashes of the pictures, None where there is no picture or no file."""
    if "image" not in split.features:
        return [None] * len(split)
    hashes: list[str | None] = []
    rows = split.select_columns(["id", "image"])
    for row in tqdm(rows, desc=f"hashing pictures of {name}", disable=not PartialState().is_main_process):
        try:
            hashes.append(None if row["image"] is None else picture_file_hash(row["image"]))
        except UnreadablePicture as error:
            hashes.append(None)
            summary.failed[name, row["id"]] = error.reason
    return hashes


def _count(splits: DatasetDict, summary: DescriptorSummary) -> None:
    for name, split in splits.items():
        has_image = split.data["image"].is_valid().to_pylist() if "image" in split.features else [False] * len(split)
        light = split.select_columns([key for key in ("id", "noun_phrases", "objects") if key in split.features])
        for row, has_picture in zip(light, has_image, strict=True):
            if not has_picture:
                summary.without_picture += 1
            elif (name, row["id"]) not in summary.failed:
                summary.pictures += 1
                if "noun_phrases" in row and "objects" in row:
                    asked = {(span["start"], span["end"]) for span in row["noun_phrases"] or ()}
                    phrases = [node["phrase"] for node in row["objects"] or () if node["phrase"]]
                    found = {(phrase["start"], phrase["end"]) for phrase in phrases}
                    summary.phrases_with_object += len(asked & found)
                    summary.phrases_without_object += len(asked - found)
