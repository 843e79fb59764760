"""Files or a dataset -> checked splits train, validation and test with the columns of the contract."""

import logging
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path

import pyarrow as pa
from datasets import ClassLabel, Dataset, DatasetDict, Features, concatenate_datasets

from modeling_umgf.labels import bio_labels, entity_types

from .features import OPTIONAL_COLUMNS, dataset_features, label_names
from .loading import load_tweets
from .picture_check import check_pictures
from .published_formats import read_caption_file, read_relation_file, read_umgf_folder
from .readers import read_conll, read_jsonl, read_records
from .text_files import BadInput, numbered_lines

logger = logging.getLogger(__name__)

FILE_FORMATS = ("umt", "conll", "jsonl", "rgcn", "umgf")
_SPLIT_NAMES = {"valid": "validation", "dev": "validation", "val": "validation"}
_HEAVY_COLUMNS = ("image", "object_features")  # of a dataset: stay on disk


def load_splits(source: str | Path | Mapping[str, str | Path], **options) -> DatasetDict:
    """As `read_splits`, without the counts of pictures."""
    return read_splits(source, **options)[0]


def read_splits(
    source: str | Path | Mapping[str, str | Path],
    *,
    file_format: str | None = None,
    config_name: str | None = None,
    image_dir: str | Path | None = None,
    captions_file: str | Path | None = None,
    types: Sequence[str] | None = None,
    **reading,
) -> tuple[DatasetDict, dict[str, Counter]]:
    """Read tweets and look at their pictures; what is missing, unreadable or blank becomes None, counted in the log.

    Args:
        source: {"train": file, "validation": file, "test": file}, as far as there are files; or a dataset that
            `datasets.load_dataset` loads (folder or Hub id) with at least the columns `tokens` and `ner_tags`.
        file_format: "umt", "conll", "jsonl", "rgcn" (relation files) or "umgf" (folders of triplets). None: "jsonl" by
            the ending .jsonl or .json, else "umt" for a file that begins with an `IMGID:` line, else "conll".
        config_name: Configuration of the dataset, where it has several.
        image_dir: Folder with the picture of each tweet, `<id>.jpg` (or another ending). None: only pictures that the
            JSON lines or the dataset name themselves.
        captions_file: Lines `<id>.jpg :caption`, for the column `caption`.
        types: Entity types in the order of the labels. None: the dataset's own; else those of the training file (of all
            files where there is none), PER, LOC, ORG, MISC first.
        reading: `bio_repair`, `unique_ids` of `read_conll`.

    Returns:
        The splits, with equal features, and how many pictures of each have which of `PICTURE_OUTCOMES`.

    Raises:
        BadInput: Anything is wrong with the data; one sentence with file and line.
    """
    if image_dir is not None and not Path(image_dir).is_dir():
        raise BadInput(f"{image_dir}: there is no such folder of pictures")
    captions = None if captions_file is None else read_caption_file(captions_file)
    labels = None if types is None else bio_labels(types)
    if isinstance(source, Mapping):
        rows, labels = _read_files(source, file_format, labels, reading)
        heavy = {}
    else:
        rows, labels, heavy = _read_dataset(str(source), config_name, labels, reading)
        if image_dir is not None and any("image" in split.features for split in heavy.values()):
            raise BadInput(f"{source}: has pictures of its own; leave out the folder of pictures")
    columns = {key for split in (*heavy.values(), *rows.values()) for key in _keys(split)} & set(OPTIONAL_COLUMNS)
    features = dataset_features(labels, columns | ({"caption"} if captions else set()))
    pictures = None if image_dir is None else _picture_files(Path(image_dir))
    splits, outcomes, split_of = DatasetDict(), {}, {}
    for name in rows:
        where = source[name] if isinstance(source, Mapping) else f"{source}, split {name}"
        for row in rows[name]:
            row["image"] = _picture_path(row, pictures, Path(image_dir or Path(where).parent))
            if captions and row.get("caption") is None:
                row["caption"] = captions.get(row["id"])
        split = _to_dataset(rows[name], features, where, heavy.get(name))
        splits[name], outcomes[name] = check_pictures(split, name)
        if captions:
            logger.info("%s: %d of %d tweets have a caption", name, sum(map(bool, split["caption"])), len(split))
        shared = [row["id"] for row in rows[name] if split_of.setdefault(row["id"], name) != name]
        if shared:
            logger.warning("%s: %d ids are also in another split, such as %s", name, len(shared), shared[0])
    if image_dir is None and not any(set(counts) - {"none given"} for counts in outcomes.values()):
        logger.warning("no pictures: neither a folder of pictures was given, nor do the tweets name any")
    return splits, outcomes


def read_tweets(path: str | Path, file_format: str | None = None, **reading) -> list[dict]:
    """Read one file of any of `FILE_FORMATS` into rows.

    Args:
        path: The file (umgf: folder).
        file_format: As in `read_splits`.
        reading: `types`, `bio_repair`, `unique_ids` of `read_conll`.

    Returns:
        Rows as `read_conll` and `read_records` give them.
    """
    if file_format is None and Path(path).suffix in (".jsonl", ".json"):
        file_format = "jsonl"
    elif file_format is None:
        first = next((line for _, line in numbered_lines(path) if line), "")
        file_format = "umt" if first.startswith("IMGID:") else "conll"
    if file_format not in FILE_FORMATS:
        raise BadInput(f"{path}: there is no file format {file_format!r}; known are {', '.join(FILE_FORMATS)}")
    if file_format == "jsonl":
        return read_jsonl(path, **reading)
    if file_format in ("rgcn", "umgf"):
        rows = read_relation_file(path) if file_format == "rgcn" else read_umgf_folder(path)
        records = ((f"{path}, tweet {row['id']}", row) for row in rows)
        return read_records(records, path, **reading)
    return read_conll(path, umt=file_format == "umt", **reading)


def _read_files(
    files: Mapping, file_format: str | None, labels: list[str] | None, reading: dict
) -> tuple[dict[str, list[dict]], list[str]]:
    if not files:
        raise BadInput("no tweets were given: name a file for train, validation or test")
    rows = {}
    for name in sorted(files, key=lambda name: name != "train"):  # the training file says which types there are
        types = entity_types(labels) if labels else None
        rows[name] = read_tweets(files[name], file_format, types=types, **reading)
        if name == "train" and labels is None:
            labels = _labels_of(rows[name])
            if labels == ["O"]:
                raise BadInput(f"{files[name]}: the training data have no entity, every tag is O")
    return {name: rows[name] for name in files}, labels or _labels_of(*rows.values())


def _read_dataset(
    source: str, config_name: str | None, labels: list[str] | None, reading: dict
) -> tuple[dict[str, list[dict]], list[str], dict[str, Dataset]]:
    """Rows without the heavy columns, the labels, and the heavy columns."""
    splits = load_tweets(source, config_name, columns=("tokens", "ner_tags"))
    splits = {_SPLIT_NAMES.get(name, name): split for name, split in splits.items()}
    known = {"id", "tokens", "ner_tags", "image", *OPTIONAL_COLUMNS}
    rows, heavy = {}, {}
    for name in sorted(splits, key=lambda name: name != "train"):
        split, where = splits[name], f"{source}, split {name}"
        if left_out := [key for key in split.features if key not in known]:
            logger.warning("%s: left out the columns %s", where, ", ".join(left_out))
        heavy[name] = split.select_columns([key for key in split.features if key in _HEAVY_COLUMNS])
        light = split.select_columns([key for key in split.features if key in known - set(_HEAVY_COLUMNS)]).to_list()
        tag = getattr(split.features.get("ner_tags"), "feature", None)
        if isinstance(tag, ClassLabel):
            labels = labels or tag.names
            for row in light:
                row["ner_tags"] = [tag.int2str(number) for number in row["ner_tags"]]
        types = entity_types(labels) if labels else None
        records = ((f"{where}, row {number}", row) for number, row in enumerate(light))
        rows[name] = read_records(records, name, types=types, **reading)
        labels = labels or _labels_of(rows[name])
    return {name: rows[name] for name in splits}, labels, heavy


def _labels_of(*splits: Iterable[dict]) -> list[str]:
    return label_names(kind for rows in splits for row in rows for kind in entity_types(row["tags"]))


def _keys(split: Dataset | list[dict]) -> set[str]:
    return set(split.features) if isinstance(split, Dataset) else {key for row in split for key in row}


def _picture_files(folder: Path) -> dict[str, str]:
    """Files of a folder by their name without ending; of several with one name the first (.jpg before .png)."""
    files = {}
    for path in sorted(folder.iterdir()):
        if path.is_file():
            files.setdefault(path.stem, str(path))
    return files


def _picture_path(row: dict, pictures: dict[str, str] | None, folder: Path) -> str | None:
    if "image" in row:
        return None if row["image"] is None else str(folder / row["image"])
    if pictures is None:
        return None
    return pictures.get(row["id"], str(folder / f"{row['id']}.jpg"))


def _to_dataset(rows: list[dict], features: Features, where: str | Path, heavy: Dataset | None) -> Dataset:
    """A dataset of the rows; the columns of `heavy` are taken from there."""
    label_ids = {label: number for number, label in enumerate(features["ner_tags"].feature.names)}
    rows = [{**row, "ner_tags": [label_ids[tag] for tag in row["tags"]]} for row in rows]
    rows = [{key: row.get(key) for key in features} for row in rows]
    try:
        split = Dataset.from_list(rows, features=features)
        if heavy is None or not heavy.features:
            return split
        wanted = Features({key: features[key] for key in heavy.features})
        heavy = heavy if heavy.features == wanted else heavy.cast(wanted)
        split = concatenate_datasets([split.remove_columns(list(heavy.features)), heavy], axis=1)
        return split.select_columns(list(features))
    except (pa.ArrowException, TypeError, ValueError, AttributeError, KeyError) as error:
        reason = " ".join(str(error).split())
        raise BadInput(f"{where}: a column doesn't have the type of the contract: {reason}") from error
