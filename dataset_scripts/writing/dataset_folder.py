"""DatasetDict -> a folder that `datasets.load_dataset` opens: Parquet with the pictures inside, and a dataset card."""

import logging
import re
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
from datasets import Dataset, DatasetDict, DatasetInfo, Features, Image
from datasets.info import DatasetInfosDict
from datasets.splits import SplitDict, SplitInfo
from datasets.table import embed_table_storage
from datasets.utils.metadata import MetadataConfigs
from huggingface_hub import DatasetCard, DatasetCardData
from tqdm import tqdm

from modeling_umgf.files import write_whole
from modeling_umgf.labels import entity_types
from modeling_umgf.split_counts import SplitCounts, count_split

from ..columns.contract import COLUMNS
from ..reading.bad_input import BadInput

logger = logging.getLogger(__name__)

SHARD_BYTES = 500_000_000
_ROWS_AT_A_TIME = 100  # pictures held in memory


def write_dataset(dataset: DatasetDict, output_dir: str | Path, *, title: str, description: str) -> None:
    """Write the splits of a dataset, with the bytes of its picture files as they are, and its card.

    The folder appears when it is complete. One that an earlier run wrote is replaced.

    Args:
        dataset: splits with the columns of `dataset_features`.
        output_dir: the folder to make.
        title: first line of the card.
        description: Markdown that follows it: what this is and how it was made.

    Raises:
        BadInput: `output_dir` exists and holds anything else than a dataset, or a split has no posts.
    """
    check_output_dir(output_dir)
    if empty := [name for name, split in dataset.items() if not len(split)]:
        raise BadInput(f"the split {empty[0]} has no posts; load_dataset can't load such a split")
    with write_whole(output_dir) as unfinished:
        data = unfinished / "data"
        data.mkdir(parents=True)
        for name, split in dataset.items():
            _write_split(split, name, data)
        counts = {name: count_split(split) for name, split in dataset.items()}
        _card(dataset, counts, data, title, description).save(unfinished / "README.md")
        check_output_dir(output_dir)
    logger.info("wrote %s: %s", output_dir, ", ".join(f"{name} {len(split)} posts" for name, split in dataset.items()))


def check_output_dir(folder: str | Path) -> None:
    """Raise BadInput where a dataset can't be written to this folder; to be called before long work."""
    folder = Path(folder)
    if folder.exists() and not folder.is_dir():
        raise BadInput(f"{folder}: is a file; name a folder to write")
    files = [path for path in folder.rglob("*") if path.is_file()]
    if any(path.name != "README.md" and path.suffix != ".parquet" for path in files):
        raise BadInput(f"{folder}: holds other files than a dataset; name a new folder")


def in_order(split: Dataset) -> Dataset:
    """Sort columns: first those that were there from the beginning, then the optional ones in their order."""
    optional = [name for name, column in COLUMNS.items() if column.optional]
    last = [name for name in (*optional, "text_embedding") if name in split.features]
    first = [name for name in split.features if name not in last]
    split = split.select_columns(first + last)
    return split.cast_column("image", Image()) if "image" in split.features else split


def card_text(dataset: str) -> tuple[str, str]:
    """Title and description that the card of the dataset has now."""
    card = Path(dataset) / "README.md"
    text = card.read_text(encoding="utf-8") if card.exists() else ""
    found = re.search(r"^# (.+?)$(.*?)(?=^## |\Z)", text, re.MULTILINE | re.DOTALL)
    return (found[1].strip(), found[2].strip()) if found else (f"Posts of {Path(dataset).name}", "")


def _write_split(split: Dataset, name: str, folder: Path) -> None:
    """Write Parquet files of about `SHARD_BYTES`."""
    schema = split.features.arrow_schema
    writer = None
    unnumbered = []  # how many there are is known at the end
    written = 0
    try:
        batches = split.with_format("arrow").iter(batch_size=_ROWS_AT_A_TIME)
        for batch in tqdm(batches, desc=f"writing {name}", total=-(-len(split) // _ROWS_AT_A_TIME), disable=None):
            table = embed_table_storage(pa.table(batch)).cast(schema)
            if writer is not None and written > SHARD_BYTES:
                writer.close()
                writer = None
            if writer is None:
                unnumbered.append(folder / f"{name}-{len(unnumbered):05d}")
                writer = pq.ParquetWriter(unnumbered[-1], schema)
                written = 0
            writer.write_table(table)
            written += table.nbytes
    finally:
        if writer is not None:
            writer.close()
    for path in unnumbered:
        path.rename(f"{path}-of-{len(unnumbered):05d}.parquet")


def _card(
    dataset: DatasetDict, counts: dict[str, SplitCounts], data: Path, title: str, description: str
) -> DatasetCard:
    card_data = DatasetCardData(task_categories=["token-classification"], pretty_name=title)
    features = next(iter(dataset.values())).features
    splits = SplitDict()
    total = 0
    for name, split in dataset.items():
        size = sum(path.stat().st_size for path in data.glob(f"{name}-*.parquet"))
        splits.add(SplitInfo(name, num_bytes=size, num_examples=len(split)))
        total += size
    info = DatasetInfo(features=features, splits=splits, download_size=total, dataset_size=total)
    DatasetInfosDict({"default": info}).to_dataset_card_data(card_data)
    files = [{"split": name, "path": f"data/{name}-*.parquet"} for name in dataset]
    MetadataConfigs({"default": {"data_files": files}}).to_dataset_card_data(card_data)
    return DatasetCard(f"---\n{card_data}\n---\n\n# {title}\n\n{description.strip()}\n\n{_tables(counts, features)}")


def _tables(counts: dict[str, SplitCounts], features: Features) -> str:
    types = entity_types(features["ner_tags"].feature.names)
    header = ["split", "posts", "words", "with picture", *(f"B-{kind}" for kind in types), "entities", "orphan I-"]
    lines = ["## What the splits hold", "", f"| {' | '.join(header)} |", f"|{'---|' * len(header)}"]
    for name, split in counts.items():
        starts = [split.starts[kind] for kind in types]
        cells = [name, split.posts, split.words, split.pictures, *starts, split.entities, split.orphans.total()]
        lines.append(f"| {' | '.join(map(str, cells))} |")
    lines += [
        "",
        "`entities` counts as seqeval does: an I- tag that continues nothing (an orphan) opens an entity.",
        "",
        "## Columns",
        "",
    ]
    lines += [f"- `{name}`: `{feature}`" for name, feature in features.items()]
    return "\n".join(lines) + "\n"
