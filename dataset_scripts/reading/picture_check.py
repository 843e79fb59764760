"""Which pictures of a dataset can be used."""

import logging
import os
from collections import Counter
from concurrent.futures import ThreadPoolExecutor

from datasets import Dataset, Image
from tqdm import tqdm

from modeling_umgf.pictures import UnreadablePicture, is_blank, open_picture

logger = logging.getLogger(__name__)

_AT_A_TIME = 64  # pictures in memory
_TOLD = 5  # posts that the log names

PICTURE_OUTCOMES = ("found", "missing", "unreadable", "blank", "none given")


def look_at(cell: dict | None) -> tuple[str, str]:
    """Which of `PICTURE_OUTCOMES` an undecoded cell of an Image column has, and why."""
    if cell is None:
        return "none given", ""
    if cell["bytes"] is None and not os.path.exists(cell["path"]):
        return "missing", f"no file {cell['path']}"
    try:
        picture = open_picture(cell)
    except UnreadablePicture as error:
        return "unreadable", str(error)
    return ("blank", "one colour only") if is_blank(picture) else ("found", "")


def check_pictures(split: Dataset, name: str) -> tuple[Dataset, Counter]:
    """Open every picture once; those that are missing, unreadable or blank (one colour) become None.

    Args:
        split: a dataset with the columns `id` and `image`.
        name: its name in the log.

    Returns:
        The dataset, and how many pictures have which of `PICTURE_OUTCOMES`.
    """
    undecoded = split.cast_column("image", Image(decode=False))
    looks = []
    with ThreadPoolExecutor() as threads, tqdm(total=len(split), desc=f"pictures of {name}", disable=None) as progress:
        for batch in undecoded.select_columns("image").iter(batch_size=_AT_A_TIME):
            looks += threads.map(look_at, batch["image"])
            progress.update(len(batch["image"]))
    counts = Counter(outcome for outcome, _ in looks)
    unusable = [index for index, (outcome, _) in enumerate(looks) if outcome not in ("found", "none given")]
    logger.info("%s: pictures of %d posts: %s", name, len(split), describe(counts))
    ids = split["id"][:]
    for index in unusable[:_TOLD]:
        logger.info("  post %s, %s: %s", ids[index], *looks[index])
    if len(unusable) > _TOLD:
        logger.info("  and %d more", len(unusable) - _TOLD)
    if counts["missing"] and not counts["found"]:
        logger.warning("%s: not one picture was found; the files must be named by the ids, such as <id>.jpg", name)
    if unusable:
        left_out = set(unusable)
        undecoded = undecoded.map(
            lambda cell, index: {"image": None if index in left_out else cell},
            with_indices=True,
            input_columns="image",
            features=undecoded.features,
            desc=f"leaving out pictures of {name}",
        )
        split = undecoded.cast_column("image", Image())
    return split, counts


def describe(counts: Counter) -> str:
    """Counts of `PICTURE_OUTCOMES` in words."""
    return ", ".join(f"{counts[outcome]} {outcome}" for outcome in PICTURE_OUTCOMES)
