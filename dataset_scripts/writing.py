"""DatasetDict -> a folder that `datasets.load_dataset` opens: Parquet with the pictures inside, and a dataset card."""

import logging
import os
import shutil
import tempfile
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
from datasets import Dataset, DatasetDict, DatasetInfo, Features
from datasets.info import DatasetInfosDict
from datasets.splits import SplitDict, SplitInfo
from datasets.table import embed_table_storage
from datasets.utils.metadata import MetadataConfigs
from huggingface_hub import DatasetCard, DatasetCardData
from tqdm import tqdm

from modeling_umgf.labels import entity_types

from .counts import SplitCounts, count_split
from .text_files import BadInput

logger = logging.getLogger(__name__)

SHARD_BYTES = 500_000_000
_ROWS_AT_A_TIME = 100  # pictures held in memory


def write_dataset(dataset: DatasetDict, output_dir: str | Path, *, title: str, description: str) -> None:
    """Write the splits of a dataset, with the bytes of its picture files as they are, and its card.

    The folder appears when it is complete. One that an earlier run wrote is replaced.

    Args:
        dataset: Splits with the columns of `dataset_features`.
        output_dir: The folder to make.
        title: First line of the card.
        description: Markdown that follows it: what this is and how it was made.

    Raises:
        BadInput: `output_dir` exists and holds anything else than a dataset, or a split has no tweets.
    """
    output_dir = Path(output_dir)
    check_output_dir(output_dir)
    if empty := [name for name, split in dataset.items() if not len(split)]:
        raise BadInput(f"the split {empty[0]} has no tweets; load_dataset can't load such a split")
    output_dir.parent.mkdir(parents=True, exist_ok=True)
    unfinished = Path(tempfile.mkdtemp(prefix=f".{output_dir.name}-unfinished-", dir=output_dir.parent))
    try:
        os.chmod(unfinished, 0o777 & ~_umask())
        (unfinished / "data").mkdir()
        for name, split in dataset.items():
            _write_split(split, name, unfinished / "data")
        counts = {name: count_split(split) for name, split in dataset.items()}
        _card(dataset, counts, unfinished / "data", title, description).save(unfinished / "README.md")
        check_output_dir(output_dir)
        if output_dir.exists():
            shutil.rmtree(output_dir)
        os.replace(unfinished, output_dir)
    except BaseException:
        shutil.rmtree(unfinished, ignore_errors=True)
        raise
    logger.info("wrote %s: %s", output_dir, ", ".join(f"{name} {len(split)} tweets" for name, split in dataset.items()))


def check_output_dir(folder: str | Path) -> None:
    """Raise BadInput where a dataset can't be written to this folder; to be called before long work."""
    folder = Path(folder)
    if folder.exists() and not folder.is_dir():
        raise BadInput(f"{folder}: is a file; name a folder to write")
    files = [path for path in folder.rglob("*") if path.is_file()]
    if any(path.name != "README.md" and path.suffix != ".parquet" for path in files):
        raise BadInput(f"{folder}: holds other files than a dataset; name a new folder")


def _umask() -> int:
    mask = os.umask(0)
    os.umask(mask)
    return mask


def _write_split(split: Dataset, name: str, folder: Path) -> None:
    schema, shards, writer, written = split.features.arrow_schema, 0, None, 0
    try:
        rows = split.with_format("arrow").iter(batch_size=_ROWS_AT_A_TIME)
        for batch in tqdm(rows, desc=f"writing {name}", total=-(-len(split) // _ROWS_AT_A_TIME), disable=None):
            table = embed_table_storage(pa.table(batch)).cast(schema)
            if writer is None or written > SHARD_BYTES:
                if writer is not None:
                    writer.close()
                writer, written = pq.ParquetWriter(folder / f"{name}-{shards:05d}", schema), 0
                shards += 1
            writer.write_table(table)
            written += table.nbytes
    finally:
        if writer is not None:
            writer.close()
    for number in range(shards):
        path = folder / f"{name}-{number:05d}"
        path.rename(f"{path}-of-{shards:05d}.parquet")


def _card(
    dataset: DatasetDict, counts: dict[str, SplitCounts], data: Path, title: str, description: str
) -> DatasetCard:
    card_data = DatasetCardData(task_categories=["token-classification"], pretty_name=title)
    sizes = {name: sum(path.stat().st_size for path in data.glob(f"{name}-*.parquet")) for name in dataset}
    splits = SplitDict()
    for name, split in dataset.items():
        splits.add(SplitInfo(name, num_bytes=sizes[name], num_examples=len(split)))
    features = next(iter(dataset.values())).features
    total = sum(sizes.values())
    info = DatasetInfo(features=features, splits=splits, download_size=total, dataset_size=total)
    DatasetInfosDict({"default": info}).to_dataset_card_data(card_data)
    files = [{"split": name, "path": f"data/{name}-*.parquet"} for name in dataset]
    MetadataConfigs({"default": {"data_files": files}}).to_dataset_card_data(card_data)
    return DatasetCard(f"---\n{card_data}\n---\n\n# {title}\n\n{description.strip()}\n\n{_tables(counts, features)}")


def _tables(counts: dict[str, SplitCounts], features: Features) -> str:
    types = entity_types(features["ner_tags"].feature.names)
    header = ["split", "tweets", "words", "with picture", *(f"B-{kind}" for kind in types), "entities", "orphan I-"]
    lines = ["## What the splits hold", "", f"| {' | '.join(header)} |", f"|{'---|' * len(header)}"]
    for name, split in counts.items():
        starts = [split.starts[kind] for kind in types]
        cells = [name, split.tweets, split.words, split.pictures, *starts, split.entities, split.orphans.total()]
        lines.append(f"| {' | '.join(map(str, cells))} |")
    lines += [
        "",
        "`entities` counts as seqeval does: an I- tag that continues nothing (an orphan) opens an entity.",
        "",
        "## Columns",
        "",
        *(f"- `{name}`: `{feature}`" for name, feature in features.items()),
    ]
    return "\n".join(lines) + "\n"
