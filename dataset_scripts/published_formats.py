"""Readers for the files that other MNER authors published."""

import math
from collections.abc import Iterable
from pathlib import Path

from .text_files import BadInput, numbered_lines


def read_relation_file(path: str | Path) -> list[dict]:
    """Read a relation file of the R-GCN authors (`{train,valid,test}_2.txt`).

    A tweet is seven lines: words, tags, own picture, then scores and pictures of the inter-modal and of the intra-modal
    neighbours. A neighbour of score 0 is no neighbour (the authors' 16 % of all-zero rows name random pictures), so it
    is left out: an empty list means that every spoke is masked.

    Args:
        path: The file, UTF-8.

    Returns:
        One dict per tweet, in the order of the file: `id` (picture name without ".jpg"), `tokens`, `tags` (OTHER is
        read as MISC), `neighbors_inter` and `neighbors_intra`, both lists of {"id", "score"} by falling score.

    Raises:
        BadInput: A tweet is cut off, has more words than tags, or scores that don't match the pictures; names the line.
    """
    lines = list(numbered_lines(path))
    while lines and not lines[-1][1]:
        lines.pop()
    if len(lines) % 7:
        raise BadInput(f"{path}:{lines[-1][0]}: the last tweet is cut off ({len(lines) % 7} of 7 lines)")
    rows = []
    for start in range(0, len(lines), 7):
        first_line = lines[start][0]
        words, tags, image, inter_scores, inter_images, intra_scores, intra_images = (
            line.split(" ") for _, line in lines[start : start + 7]
        )
        if len(words) != len(tags):
            raise BadInput(f"{path}:{first_line}: {len(words)} words but {len(tags)} tags")
        rows.append(
            {
                "id": _picture_id(image, path, first_line + 2),
                "tokens": words,
                "tags": [tag.replace("OTHER", "MISC") for tag in tags],
                "neighbors_inter": _neighbors(inter_scores, inter_images, path, first_line + 3),
                "neighbors_intra": _neighbors(intra_scores, intra_images, path, first_line + 5),
            }
        )
    return rows


def read_umgf_folder(path: str | Path) -> list[dict]:
    """Read a split of UMGF's `my_data`: three files per tweet, `<n>_s.txt` words, `<n>_l.txt` tags, `<n>_p.txt` id.

    Its labels were edited, in the test splits too, and words were dropped: scores on it can't be compared with scores
    on the UMT release. `dataset_doctor --compare` lists the differences.

    Args:
        path: The folder of one split, such as `my_data/twitter2015/test`.

    Returns:
        One dict per tweet, ordered by n: `id`, `tokens`, `tags` (OTHER is read as MISC).

    Raises:
        BadInput: There are no such files, one of the three is missing, or words and tags don't match.
    """
    numbers = [file.name.removesuffix("_s.txt") for file in Path(path).glob("*_s.txt")]
    numbers = sorted(int(number) for number in numbers if number.isdecimal())
    if not numbers:
        raise BadInput(f"{path}: no files <number>_s.txt in this folder")
    rows = []
    for number in numbers:
        words, tags, image = (_tab_separated(Path(path) / f"{number}_{kind}.txt") for kind in "slp")
        if len(words) != len(tags):
            raise BadInput(f"{path}/{number}_l.txt: {len(words)} words but {len(tags)} tags")
        tags = [tag.replace("OTHER", "MISC") for tag in tags]
        rows.append({"id": image[0].removesuffix(".jpg"), "tokens": words, "tags": tags})
    return rows


def _tab_separated(path: Path) -> list[str]:
    return next(line for _, line in numbered_lines(path)).split("\t")


def lost_tweets(relations: Iterable[dict], tweets: Iterable[dict]) -> list[str]:
    """Ids of the tweets that have no row in the relation file (the authors lost the last tweet of each 2015 split)."""
    known = {row["id"] for row in relations}
    return [tweet["id"] for tweet in tweets if tweet["id"] not in known]


def _picture_id(fields: list[str], path: str | Path, line: int) -> str:
    if len(fields) != 1 or not fields[0].endswith(".jpg"):
        raise BadInput(f"{path}:{line}: expected the picture of the tweet (<id>.jpg), found {' '.join(fields)[:60]!r}")
    return fields[0].removesuffix(".jpg")


def _neighbors(scores: list[str], images: list[str], path: str | Path, line: int) -> list[dict]:
    if len(scores) != len(images):
        raise BadInput(f"{path}:{line}: {len(scores)} scores but {len(images)} pictures")
    neighbors = []
    for score_text, image in zip(scores, images, strict=True):
        try:
            score = float(score_text)
        except ValueError:
            score = math.nan
        if not math.isfinite(score):
            raise BadInput(f"{path}:{line}: {score_text!r} is not a score")
        if score:
            neighbors.append({"id": _picture_id([image], path, line + 1), "score": score})
    return neighbors


def read_caption_file(path: str | Path) -> dict[str, str]:
    """Read lines `<id>.jpg :caption`, as the BLIP-2 captions of the PGIM authors; returns the captions by id.

    Raises:
        BadInput: A line has another form, or an id comes twice; names the line.
    """
    captions = {}
    for number, line in numbered_lines(path):
        if not line:
            continue
        image, separator, caption = line.partition(" :")
        if not separator:
            raise BadInput(f"{path}:{number}: expected '<id>.jpg :caption', found {line[:60]!r}")
        name = _picture_id([image], path, number)
        if name in captions:
            raise BadInput(f"{path}:{number}: a second caption of {name}")
        captions[name] = caption.strip()
    return captions
