"""Objects that other MNER authors published -> the columns `image`, `objects` and `object_features` of a dataset.

Crops come without boxes. They are put next to each other on one sheet, which becomes the picture of the post, with a
box around each; so they go through processor and models like any other objects.
"""

import argparse
import io
import logging
import tempfile
from collections import Counter
from collections.abc import Callable, Sequence
from pathlib import Path
from uuid import uuid4

import numpy as np
from datasets import Dataset, Features
from PIL import Image

from modeling_umgf.pictures import UnreadablePicture, open_picture, picture_in

from .columns.contract import dataset_features
from .reading.bad_input import BadInput, run_command
from .reading.crops_and_features import read_hvpnet_crops, read_vinvl, umgf_crops
from .reading.splits import load_splits
from .writing.dataset_folder import check_output_dir, write_dataset

logger = logging.getLogger(__name__)


def sheet_of(crops: Sequence[tuple[str | None, Path]]) -> tuple[bytes | None, list[dict]]:
    """Put crops next to each other.

    Args:
        crops: (query, picture file).

    Returns:
        The sheet as a PNG file (None without crops), and one general object per crop with its box on the sheet.

    Raises:
        UnreadablePicture: A crop can't be opened.
    """
    pictures = [open_picture(path) for _, path in crops]
    if not pictures:
        return None, []
    width = sum(picture.width for picture in pictures)
    height = max(picture.height for picture in pictures)
    sheet = Image.new("RGB", (width, height))
    objects = []
    x = 0
    for (query, _), picture in zip(crops, pictures, strict=True):
        sheet.paste(picture, (x, 0))
        box = [x, 0, x + picture.width, picture.height]
        objects.append({"box": box, "score": None, "query": query, "phrase": None})
        x += picture.width
    file = io.BytesIO()
    sheet.save(file, "PNG")
    return file.getvalue(), objects


def with_crops(
    split: Dataset, crops_of: Callable[[str], Sequence[tuple[str | None, Path]]], cache_file: str | None = None
) -> tuple[Dataset, Counter]:
    """Give every post the sheet of its crops as `image` and the crops as `objects`.

    Args:
        split: a dataset that `load_splits` returned.
        crops_of: (query, file) of the crops of a post, by its id.
        cache_file: Arrow file that holds the result; None = memory.

    Returns:
        The dataset and numbers for the log: crops, unreadable crops (left out), posts without a crop.
    """
    outcomes = Counter()

    def columns(post: str) -> dict:
        usable = [(query, path) for query, path in crops_of(post) if is_readable(path)]
        picture, objects = sheet_of(usable)
        outcomes["crops"] += len(objects)
        outcomes["posts without a crop"] += not objects
        return {"image": picture and {"bytes": picture, "path": None}, "objects": objects}

    def is_readable(path: Path) -> bool:
        try:
            open_picture(path)
        except UnreadablePicture as error:
            outcomes["crops missing or unreadable"] += 1
            logger.warning("left out: %s", error)
            return False
        return True

    return _with_columns(split, columns, ["image", "objects"], cache_file), outcomes


def with_vinvl(
    split: Dataset, folder: str | Path, max_objects: int | None = None, cache_file: str | None = None
) -> tuple[Dataset, Counter]:
    """Give every post its VinVL boxes as general `objects` and their features as `object_features`.

    Args:
        split: a dataset that `load_splits` returned.
        folder: holds `<id>.jpg.npz` (or `<id>.npz`).
        max_objects: keep the first ones only (GMNER: 16).
        cache_file: Arrow file that holds the result; None = memory.

    Returns:
        The dataset and numbers for the log: objects, posts without features.
    """
    outcomes = Counter()

    def columns(post: str) -> dict:
        paths = [Path(picture_in(folder, f"{post}{ending}")) for ending in (".jpg.npz", ".npz")]
        found = [path for path in paths if path.is_file()]
        outcomes["posts without features"] += not found
        boxes, features = read_vinvl(found[0]) if found else (np.zeros((0, 4)), np.zeros((0, 0)))
        boxes = boxes[:max_objects]
        features = features[:max_objects]
        outcomes["objects"] += len(boxes)
        objects = [{"box": box, "score": None, "query": None, "phrase": None} for box in boxes.tolist()]
        return {"objects": objects, "object_features": features.tolist()}

    return _with_columns(split, columns, ["objects", "object_features"], cache_file), outcomes


def _with_columns(split: Dataset, columns: Callable[[str], dict], new: list[str], cache_file: str | None) -> Dataset:
    labels = split.features["ner_tags"].feature.names
    features = dataset_features(labels, {*split.features, *new})
    split = split.remove_columns([key for key in new if key in split.features])
    split = split.map(
        columns,
        input_columns="id",
        features=Features({**split.features, **{key: features[key] for key in new}}),
        writer_batch_size=100,
        cache_file_name=cache_file,
        load_from_cache_file=False,
        new_fingerprint=uuid4().hex,
    )
    return split.select_columns(list(features))


def main() -> None:
    arguments = _parser().parse_args()
    check_output_dir(arguments.output_dir)
    for folder in (arguments.umgf_crops, arguments.vinvl, arguments.crop_dir):
        if folder and not Path(folder).is_dir():
            raise BadInput(f"{folder}: there is no such folder")
    if arguments.hvpnet_crops and not arguments.crop_dir:
        raise BadInput("--hvpnet_crops names files only: give the folder they lie in with --crop_dir")
    named = {}
    for file in arguments.hvpnet_crops or []:
        named |= read_hvpnet_crops(file)

    def crops_of(post: str) -> list[tuple[str | None, Path]]:
        if arguments.umgf_crops:
            crops = umgf_crops(arguments.umgf_crops, post)
        else:
            crops = [(None, Path(picture_in(arguments.crop_dir, name))) for name in named.get(post, [])]
        return crops[: arguments.max_objects]

    splits = load_splits(arguments.dataset)
    total = Counter()
    with tempfile.TemporaryDirectory() as folder:
        for name, split in splits.items():
            file = str(Path(folder) / f"{name}.arrow")
            if arguments.vinvl:
                splits[name], outcomes = with_vinvl(split, arguments.vinvl, arguments.max_objects, file)
            else:
                splits[name], outcomes = with_crops(split, crops_of, file)
            numbers = ", ".join(f"{number} {what}" for what, number in outcomes.items())
            logger.info("%s: %s", name, numbers)
            total += outcomes
        origin = arguments.umgf_crops or arguments.vinvl
        if not total["crops"] + total["objects"]:
            raise BadInput(f"{origin or arguments.crop_dir}: nothing there belongs to a post of this dataset")
        title = f"{Path(arguments.dataset).name} with published objects"
        description = f"Objects of {origin or ', '.join(arguments.hvpnet_crops)}: {dict(total)}.\n\n{__doc__}"
        write_dataset(splits, arguments.output_dir, title=title, description=description)


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--dataset", required=True, help="folder that build_dataset wrote, or Hub id")
    source = parser.add_mutually_exclusive_group(required=True)
    source.add_argument("--umgf_crops", metavar="FOLDER", help="holds <id>/crop_person_<id>.jpg and so on")
    source.add_argument("--hvpnet_crops", metavar="FILE", nargs="+", help="twitter201x_<split>_dict.pth of all splits")
    source.add_argument("--vinvl", metavar="FOLDER", help="holds <id>.jpg.npz")
    parser.add_argument("--crop_dir", metavar="FOLDER", help="pictures that the files of --hvpnet_crops name")
    parser.add_argument("--max_objects", type=int, help="keep the first ones of a post only")
    parser.add_argument("--output_dir", required=True, help="folder to write; a dataset that is there is replaced")
    return parser


if __name__ == "__main__":
    run_command(main)
