"""Objects that other MNER authors published -> the columns `image`, `objects` and `object_features` of a dataset.

Crops come without boxes. They are put next to each other on one sheet, which becomes the picture of the tweet, with a
box around each; so they go through processor and models like any other objects.
"""

import argparse
import io
import logging
import pickle
import tempfile
from collections import Counter
from collections.abc import Callable, Sequence
from pathlib import Path
from uuid import uuid4

import numpy as np
import torch
from datasets import Dataset, Features
from PIL import Image

from modeling_umgf.pictures import UnreadablePicture, open_picture

from .features import OPTIONAL_COLUMNS, dataset_features
from .splits import load_splits
from .text_files import BadInput, first_line, run_command
from .writing import check_output_dir, write_dataset

logger = logging.getLogger(__name__)

UMGF_QUERIES = ("person", "miscellaneous", "location", "organization")  # in the order of the released code


def umgf_crops(folder: str | Path, name: str) -> list[tuple[str, Path]]:
    """Crops of UMGF's release, `<id>/crop_<query>_<id>.jpg`; where it detected nothing, that is the whole picture.

    Args:
        folder: Holds one folder per tweet.
        name: Id of the tweet.

    Returns:
        (query, file) of those of the four crops that are there.
    """
    crops = [(query, Path(folder) / name / f"crop_{query}_{name}.jpg") for query in UMGF_QUERIES]
    return [(query, path) for query, path in crops if path.is_file()]


def read_hvpnet_crops(path: str | Path) -> dict[str, list[str]]:
    """Read a crop dictionary of HVPNeT, `twitter201x_<split>_dict.pth`: picture name -> file names of its crops.

    Args:
        path: A file of `torch.save`; only plain data in it are loaded, never code.

    Returns:
        File names by id, in the order of the file (HVPNeT uses the first three).

    Raises:
        BadInput: The file can't be read, or holds anything else than lists of names.
    """
    try:
        crops = torch.load(path, map_location="cpu", weights_only=True)
    except (OSError, RuntimeError, EOFError, ValueError, pickle.UnpicklingError) as error:
        raise BadInput(f"{path}: not a dictionary saved by torch: {first_line(error)}") from error
    is_list = isinstance(crops, dict) and all(isinstance(names, list | tuple) for names in crops.values())
    if not is_list or not all(isinstance(name, str) for key, names in crops.items() for name in (key, *names)):
        raise BadInput(f"{path}: expected a dictionary from picture names to lists of crop names")
    return {Path(image).stem: list(names) for image, names in crops.items()}


def read_vinvl(path: str | Path) -> tuple[np.ndarray, np.ndarray]:
    """Read the VinVL features of one picture, `<id>.jpg.npz` with `num_boxes`, `bounding_boxes` and `box_features`.

    Args:
        path: The file; nothing pickled in it is loaded.

    Returns:
        Boxes [m, 4] (x0, y0, x1, y1 in pixels) and features [m, F], both float32.

    Raises:
        BadInput: The file can't be read, an array is missing, or they don't fit together.
    """
    try:
        with np.load(path, allow_pickle=False) as arrays:
            boxes, features = (np.asarray(arrays[name], np.float32) for name in ("bounding_boxes", "box_features"))
            count = int(arrays["num_boxes"]) if "num_boxes" in arrays else len(boxes)
    except (OSError, ValueError, KeyError, pickle.UnpicklingError) as error:
        raise BadInput(f"{path}: not VinVL features: {error}") from error
    boxes, features = boxes[:count], features[:count]
    if boxes.shape != (count, 4) or features.ndim != 2 or len(features) != count:
        raise BadInput(f"{path}: {count} boxes, but arrays of shape {boxes.shape} and {features.shape}")
    return boxes, features


def sheet_of(crops: Sequence[tuple[str, Path]]) -> tuple[bytes | None, list[dict]]:
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
    sheet = Image.new("RGB", (sum(picture.width for picture in pictures), max(picture.height for picture in pictures)))
    objects, x = [], 0
    for (query, _), picture in zip(crops, pictures, strict=True):
        sheet.paste(picture, (x, 0))
        box = [x, 0, x + picture.width, picture.height]
        objects.append({"box": box, "score": None, "query": query, "phrase": None})
        x += picture.width
    file = io.BytesIO()
    sheet.save(file, "PNG")
    return file.getvalue(), objects


def with_crops(
    split: Dataset, crops_of: Callable[[str], Sequence[tuple[str, Path]]], cache_file: str | None = None
) -> tuple[Dataset, Counter]:
    """Give every tweet the sheet of its crops as `image` and the crops as `objects`.

    Args:
        split: A dataset with the columns of the contract.
        crops_of: (query, file) of the crops of a tweet, by its id.
        cache_file: Arrow file that holds the result; None = memory.

    Returns:
        The dataset and numbers for the log: crops, unreadable crops (left out), tweets without a crop.
    """
    outcomes = Counter()

    def columns(tweet: str) -> dict:
        usable = [(query, path) for query, path in crops_of(tweet) if is_readable(path)]
        picture, objects = sheet_of(usable)
        outcomes["crops"] += len(objects)
        outcomes["tweets without a crop"] += not objects
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
    """Give every tweet its VinVL boxes as general `objects` and their features as `object_features`.

    Args:
        split: A dataset with the columns of the contract.
        folder: Holds `<id>.jpg.npz` (or `<id>.npz`).
        max_objects: Keep the first ones only (GMNER: 16).
        cache_file: Arrow file that holds the result; None = memory.

    Returns:
        The dataset and numbers for the log: objects, tweets without features.
    """
    outcomes = Counter()

    def columns(tweet: str) -> dict:
        found = [path for path in (Path(folder) / f"{tweet}.jpg.npz", Path(folder) / f"{tweet}.npz") if path.is_file()]
        outcomes["tweets without features"] += not found
        boxes, features = read_vinvl(found[0]) if found else (np.zeros((0, 4)), np.zeros((0, 0)))
        boxes, features = boxes[:max_objects], features[:max_objects]
        outcomes["objects"] += len(boxes)
        objects = [{"box": box, "score": None, "query": None, "phrase": None} for box in boxes.tolist()]
        return {"objects": objects, "object_features": features.tolist()}

    return _with_columns(split, columns, ["objects", "object_features"], cache_file), outcomes


def _with_columns(split: Dataset, columns: Callable[[str], dict], new: list[str], cache_file: str | None) -> Dataset:
    labels = split.features["ner_tags"].feature.names
    features = dataset_features(labels, {*split.features, *new} & set(OPTIONAL_COLUMNS))
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
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--dataset", required=True, help="folder that build_dataset wrote, or Hub id")
    source = parser.add_mutually_exclusive_group(required=True)
    source.add_argument("--umgf_crops", metavar="FOLDER", help="holds <id>/crop_person_<id>.jpg and so on")
    source.add_argument("--hvpnet_crops", metavar="FILE", nargs="+", help="twitter201x_<split>_dict.pth of all splits")
    source.add_argument("--vinvl", metavar="FOLDER", help="holds <id>.jpg.npz")
    parser.add_argument("--crop_dir", metavar="FOLDER", help="pictures that the files of --hvpnet_crops name")
    parser.add_argument("--max_objects", type=int, help="keep the first ones of a tweet only")
    parser.add_argument(
        "--output_dir", required=True, help="folder to write; a dataset that is already there is replaced"
    )
    arguments = parser.parse_args()
    logging.basicConfig(level=logging.INFO, format="%(message)s")
    check_output_dir(arguments.output_dir)
    for folder in filter(None, (arguments.umgf_crops, arguments.vinvl, arguments.crop_dir)):
        if not Path(folder).is_dir():
            raise BadInput(f"{folder}: there is no such folder")
    if arguments.hvpnet_crops and not arguments.crop_dir:
        raise BadInput("--hvpnet_crops names files only: give the folder they lie in with --crop_dir")
    named = {}
    for file in arguments.hvpnet_crops or []:
        named |= read_hvpnet_crops(file)

    def crops_of(tweet: str) -> list[tuple[str | None, Path]]:
        if arguments.umgf_crops:
            return umgf_crops(arguments.umgf_crops, tweet)[: arguments.max_objects]
        return [(None, Path(arguments.crop_dir) / name) for name in named.get(tweet, [])[: arguments.max_objects]]

    splits, origin, total = load_splits(arguments.dataset), arguments.umgf_crops or arguments.vinvl, Counter()
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
        if not total["crops"] + total["objects"]:
            raise BadInput(f"{origin or arguments.crop_dir}: nothing there belongs to a tweet of this dataset")
        title = f"{Path(arguments.dataset).name} with published objects"
        description = f"Objects of {origin or ', '.join(arguments.hvpnet_crops)}: {dict(total)}.\n\n{__doc__}"
        write_dataset(splits, arguments.output_dir, title=title, description=description)


if __name__ == "__main__":
    run_command(main)
