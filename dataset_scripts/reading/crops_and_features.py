"""Objects that other MNER authors published: UMGF's and HVPNeT's crops, VinVL's boxes and features."""

import pickle
from pathlib import Path

import numpy as np
import torch

from modeling_umgf.pictures import picture_in

from .bad_input import BadInput, first_line

UMGF_QUERIES = ("person", "miscellaneous", "location", "organization")  # in the order of the released code


def umgf_crops(folder: str | Path, name: str) -> list[tuple[str, Path]]:
    """Crops of UMGF's release, `<id>/crop_<query>_<id>.jpg`; where it detected nothing, that is the whole picture.

    Args:
        folder: holds one folder per post.
        name: id of the post.

    Returns:
        (query, file) of those of the four crops that are there.
    """
    crops = [(query, Path(picture_in(folder, f"{name}/crop_{query}_{name}.jpg"))) for query in UMGF_QUERIES]
    return [(query, path) for query, path in crops if path.is_file()]


def read_hvpnet_crops(path: str | Path) -> dict[str, list[str]]:
    """Read a crop dictionary of HVPNeT, `twitter201x_<split>_dict.pth`: picture name -> file names of its crops.

    Args:
        path: a file of `torch.save`; only plain data in it are loaded, never code.

    Returns:
        File names by id, in the order of the file (HVPNeT uses the first three).

    Raises:
        BadInput: The file can't be read, or holds anything else than lists of names.
    """
    try:
        crops = torch.load(path, map_location="cpu", weights_only=True)
    except (OSError, RuntimeError, EOFError, ValueError, pickle.UnpicklingError) as error:
        raise BadInput(f"{path}: not a dictionary saved by torch: {first_line(error)}") from error
    if not isinstance(crops, dict) or not all(_are_names(image, names) for image, names in crops.items()):
        raise BadInput(f"{path}: expected a dictionary from picture names to lists of crop names")
    return {Path(image).stem: list(names) for image, names in crops.items()}


def _are_names(image: object, crops: object) -> bool:
    return isinstance(crops, list | tuple) and all(isinstance(name, str) for name in (image, *crops))


def read_vinvl(path: str | Path) -> tuple[np.ndarray, np.ndarray]:
    """Read the VinVL features of one picture, `<id>.jpg.npz` with `num_boxes`, `bounding_boxes` and `box_features`.

    Args:
        path: the file; nothing pickled in it is loaded.

    Returns:
        Boxes [m, 4] (x0, y0, x1, y1 in pixels) and features [m, F], both float32.

    Raises:
        BadInput: The file can't be read, an array is missing, or they don't fit together.
    """
    try:
        with np.load(path, allow_pickle=False) as arrays:
            boxes = np.asarray(arrays["bounding_boxes"], np.float32)
            features = np.asarray(arrays["box_features"], np.float32)
            count = int(arrays["num_boxes"]) if "num_boxes" in arrays else len(boxes)
    except (OSError, ValueError, KeyError, pickle.UnpicklingError) as error:
        raise BadInput(f"{path}: not VinVL features: {error}") from error
    boxes = boxes[:count]
    features = features[:count]
    if boxes.shape != (count, 4) or features.ndim != 2 or len(features) != count:
        raise BadInput(f"{path}: {count} boxes, but arrays of shape {boxes.shape} and {features.shape}")
    return boxes, features
