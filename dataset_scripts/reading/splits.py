"""Files or a dataset -> checked splits train, validation and test with the columns of every dataset."""

import logging
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from itertools import chain
from pathlib import Path
from typing import Any

import pyarrow as pa
from datasets import ClassLabel, Dataset, DatasetDict, Features, concatenate_datasets

from modeling_umgf.labels import bio_labels, entity_types
from modeling_umgf.pictures import UnreadablePicture, picture_in

from ..columns.contract import COLUMNS, dataset_features, label_names
from .bad_input import BadInput
from .conll import read_conll
from .csv_files import read_csv
from .field_names import OURS, field_of
from .loading import load_posts
from .picture_check import check_pictures
from .published_formats import read_caption_file, read_relation_file, read_umgf_folder
from .records import read_jsonl, read_records
from .tag_reader import labels_of_names
from .text_files import numbered_lines

logger = logging.getLogger(__name__)

FILE_FORMATS = ("umt", "conll", "jsonl", "csv", "rgcn", "umgf")
_ENDINGS = {".jsonl": "jsonl", ".json": "jsonl", ".csv": "csv"}
_READ = {*COLUMNS, *OURS, "label"}  # the last may hold spans
_SPLIT_NAMES = {"valid": "validation", "dev": "validation", "val": "validation"}


def load_splits(source: str | Path | Mapping[str, str | Path], **options) -> DatasetDict:
    """As `read_splits`, without the counts of pictures."""
    splits, _ = read_splits(source, **options)
    return splits


def read_splits(
    source: str | Path | Mapping[str, str | Path],
    *,
    file_format: str | None = None,
    config_name: str | None = None,
    image_dir: str | Path | None = None,
    captions_file: str | Path | None = None,
    types: Sequence[str] | None = None,
    look_at_pictures: bool = True,
    texts: Sequence[str] = (),
    **reading: Any,
) -> tuple[DatasetDict, dict[str, Counter]]:
    """Read posts and look at their pictures; what is missing, unreadable or blank becomes None, counted in the log.

    Args:
        source: {"train": file, "validation": file, "test": file}, as far as there are files; or a dataset that
            `datasets.load_dataset` loads (folder or Hub id) with the columns `tokens` and `ner_tags`, or with others
            that `read_records` understands.
        file_format: "umt", "conll", "jsonl", "csv", "rgcn" (relation files) or "umgf" (folders of triplets). None:
            "jsonl" by the ending .jsonl or .json, "csv" by .csv, else "umt" for a file that begins with an `IMGID:`
            line, else "conll".
        config_name: configuration of the dataset, where it has several.
        image_dir: folder with the picture of each post, `<id>.jpg` (or another ending). None: only pictures that the
            JSON lines or the dataset name themselves.
        captions_file: lines `<id>.jpg :caption`, for the column `caption`.
        types: entity types in the order of the labels. None: the dataset's own, or those of `tag_names`; else those of
            the training file (of all files where there is none), PER, LOC, ORG, MISC first.
        look_at_pictures: False = for models that read words only: no picture is opened or even looked for, and the
            splits have no column `image`.
        texts: further columns of texts that are kept, such as those that a model reads after the post.
        reading: `columns`, `offsets` and `unique_ids` of `read_records`, `bio_repair` and `tag_names` of `TagReader`.

    Returns:
        The splits, with equal features, and how many pictures of each have which of `PICTURE_OUTCOMES`.

    Raises:
        BadInput: Anything is wrong with the data; one sentence with file and line.
    """
    if not look_at_pictures:
        image_dir = None
    if image_dir is not None and not Path(image_dir).is_dir():
        raise BadInput(f"{image_dir}: there is no such folder of pictures")
    captions = {} if captions_file is None else read_caption_file(captions_file)
    labels = None if types is None else bio_labels(types)
    if labels is None and reading.get("tag_names"):
        labels = labels_of_names(reading["tag_names"])
    reading["texts"] = [name for name in texts if name not in COLUMNS]
    if isinstance(source, Mapping):
        rows, labels = _read_files(source, file_format, labels, reading)
        places = source
        heavy = {}
    else:
        rows, labels, heavy = _read_dataset(str(source), config_name, labels, look_at_pictures, reading)
        places = {name: f"{source}, split {name}" for name in rows}
        if image_dir is not None and any("image" in split.features for split in heavy.values()):
            raise BadInput(f"{source}: has pictures of its own; leave out the folder of pictures")
    columns = _columns(rows, heavy, captions)
    features = dataset_features(labels, columns & set(COLUMNS), (name for name in texts if name in columns))
    if look_at_pictures:
        _name_pictures(rows, places, image_dir)
    else:
        del features["image"]
    if captions:
        _join_captions(rows, captions)
    splits = DatasetDict()
    outcomes = {}
    for name in rows:
        splits[name] = _to_dataset(rows[name], features, places[name], heavy.get(name))
        outcomes[name] = Counter()
        if look_at_pictures:
            splits[name], outcomes[name] = check_pictures(splits[name], name)
    _warn_of_ids_in_two_splits(rows)
    if look_at_pictures and image_dir is None and not any(set(counts) - {"none given"} for counts in outcomes.values()):
        logger.warning("no pictures: neither a folder of pictures was given, nor do the posts name any")
    return splits, outcomes


def read_posts(path: str | Path, file_format: str | None = None, **reading: Any) -> list[dict]:
    """Read one file of any of `FILE_FORMATS` into rows.

    Args:
        path: the file (umgf: folder).
        file_format: as in `read_splits`.
        reading: `columns`, `offsets`, `unique_ids` and `texts` of `read_records`, and what `TagReader` takes.

    Returns:
        Rows as `read_conll` and `read_records` give them.
    """
    if file_format is None:
        file_format = _ENDINGS.get(Path(path).suffix.lower())
    if file_format is None:
        first = next((line for _, line in numbered_lines(path) if line), "")
        file_format = "umt" if first.startswith("IMGID:") else "conll"
    if file_format not in FILE_FORMATS:
        raise BadInput(f"{path}: there is no file format {file_format!r}; known are {', '.join(FILE_FORMATS)}")
    if file_format in ("jsonl", "csv"):
        return (read_jsonl if file_format == "jsonl" else read_csv)(path, **reading)
    if reading.pop("offsets", None):
        raise BadInput(f"{path}: files of format {file_format} have no spans whose offsets could count anything")
    if file_format in ("rgcn", "umgf"):
        rows = read_relation_file(path) if file_format == "rgcn" else read_umgf_folder(path)
        records = ((f"{path}, post {row['id']}", row) for row in rows)
        return read_records(records, path, **reading)
    reading.pop("texts", None)  # there are none
    return read_conll(path, umt=file_format == "umt", **reading)


def _read_files(
    files: Mapping, file_format: str | None, labels: list[str] | None, reading: dict
) -> tuple[dict[str, list[dict]], list[str]]:
    """Rows and labels."""
    if not files:
        raise BadInput("no posts were given: name a file for train, validation or test")
    rows = {}
    for name in _training_first(files):
        types = entity_types(labels) if labels else None
        rows[name] = read_posts(files[name], file_format, types=types, **reading)
        if name == "train" and not any(set(row["tags"]) - {"O"} for row in rows[name]):
            raise BadInput(f"{files[name]}: the training data have no entity, every tag is O")
        if name == "train" and labels is None:
            labels = _labels_of(rows[name])
    return {name: rows[name] for name in files}, labels or _labels_of(chain.from_iterable(rows.values()))


def _read_dataset(
    source: str, config_name: str | None, labels: list[str] | None, look_at_pictures: bool, reading: dict
) -> tuple[dict[str, list[dict]], list[str], dict[str, Dataset]]:
    """Rows without the heavy columns, the labels, and the heavy columns."""
    loaded = load_posts(source, config_name, columns=())
    loaded = {_SPLIT_NAMES.get(name, name): split for name, split in loaded.items()}
    columns = dict(reading.pop("columns", None) or {})
    tag_names = reading.pop("tag_names", None)
    pictures = columns.pop("image", "image")
    rows = {}
    heavy = {}
    for name in _training_first(loaded):
        split = loaded[name]
        where = f"{source}, split {name}"
        if pictures != "image" and pictures in split.features:
            split = split.remove_columns({"image"} & set(split.features)).rename_column(pictures, "image")
        fields = {key: field_of(key, columns) for key in split.features}
        if left_out := [key for key, field in fields.items() if not {key, field} & {*_READ, *reading["texts"]}]:
            logger.warning("%s: left out the columns %s", where, ", ".join(left_out))
            split = split.remove_columns(left_out)
        if not look_at_pictures and "image" in split.features:
            split = split.remove_columns("image")
        on_disk = [key for key in split.features if key in COLUMNS and COLUMNS[key].heavy]
        heavy[name] = split.select_columns(on_disk)
        names = tag_names
        for key, feature in split.features.items():
            if fields[key] == "tags" and isinstance(getattr(feature, "feature", None), ClassLabel):
                names = tag_names or feature.feature.names
                labels = labels or labels_of_names(names)
        types = entity_types(labels) if labels else None
        posts = split.remove_columns(on_disk).to_list()
        records = ((f"{where}, row {number}", post) for number, post in enumerate(posts))
        rows[name] = read_records(records, name, types=types, columns=columns, tag_names=names, **reading)
        labels = labels or _labels_of(rows[name])
    return {name: rows[name] for name in loaded}, labels, heavy


def _training_first(names: Iterable[str]) -> list[str]:
    """The training data say which types there are."""
    return sorted(names, key=lambda name: name != "train")


def _labels_of(rows: Iterable[dict]) -> list[str]:
    found = set()
    for row in rows:
        found.update(entity_types(row["tags"]))
    return label_names(found)


def _columns(rows: Mapping[str, list[dict]], heavy: Mapping[str, Dataset], captions: Mapping[str, str]) -> set[str]:
    """Names of all columns, tags among them, that any of the splits has."""
    found = {"caption"} if captions else set()
    for split in heavy.values():
        found.update(split.features)
    for row in chain.from_iterable(rows.values()):
        found.update(row)
    return found


def _name_pictures(
    rows: Mapping[str, list[dict]], places: Mapping[str, str | Path], image_dir: str | Path | None
) -> None:
    """Give every row the path of its picture: the one it names, else `<id>.jpg` in the folder of pictures."""
    files = None if image_dir is None else _picture_files(Path(image_dir))
    for name, posts in rows.items():
        folder = Path(places[name]).parent if image_dir is None else Path(image_dir)
        for row in posts:
            if row.get("image") is not None:
                row["image"] = _inside(folder, row["image"], f"{places[name]}, post {row['id']}")
            elif "image" not in row and files is not None:
                named = files.get(row["id"], f"{row['id']}.jpg")
                row["image"] = _inside(folder, named, f"{places[name]}, post {row['id']}")


def _inside(folder: Path, name: str, where: str) -> str:
    try:
        return picture_in(folder, name)
    except UnreadablePicture as error:
        raise BadInput(f"{where}: the picture {error}") from error


def _picture_files(folder: Path) -> dict[str, str]:
    """Names of files of a folder by these without ending; of several with one name the first (.jpg before .png)."""
    files = {}
    for path in sorted(folder.iterdir()):
        if path.is_file():
            files.setdefault(path.stem, path.name)
    return files


def _join_captions(rows: Mapping[str, list[dict]], captions: Mapping[str, str]) -> None:
    """Give a caption to every row that has none of its own."""
    for name, posts in rows.items():
        for row in posts:
            if row.get("caption") is None:
                row["caption"] = captions.get(row["id"])
        found = sum(bool(row["caption"]) for row in posts)
        logger.info("%s: %d of %d posts have a caption", name, found, len(posts))


def _warn_of_ids_in_two_splits(rows: Mapping[str, list[dict]]) -> None:
    split_of = {}
    for name, posts in rows.items():
        shared = [row["id"] for row in posts if split_of.setdefault(row["id"], name) != name]
        if shared:
            logger.warning("%s: %d ids are also in another split, such as %s", name, len(shared), shared[0])


def _to_dataset(rows: list[dict], features: Features, where: str | Path, heavy: Dataset | None) -> Dataset:
    """A dataset of the rows; the columns of `heavy` are taken from there."""
    label_ids = {label: number for number, label in enumerate(features["ner_tags"].feature.names)}
    cells = []
    for row in rows:
        tags = [label_ids[tag] for tag in row["tags"]]
        cells.append({**{key: row.get(key) for key in features}, "ner_tags": tags})
    try:
        split = Dataset.from_list(cells, features=features)
        if heavy is None or not heavy.features:
            return split
        wanted = Features({key: features[key] for key in heavy.features})
        heavy = heavy if heavy.features == wanted else heavy.cast(wanted)
        split = concatenate_datasets([split.remove_columns(list(heavy.features)), heavy], axis=1)
        return split.select_columns(list(features))
    except (pa.ArrowException, TypeError, ValueError, AttributeError, KeyError) as error:
        reason = " ".join(str(error).split())
        raise BadInput(f"{where}: a column has the wrong type: {reason}") from error
