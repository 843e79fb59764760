"""Readers for the files that other MNER authors published."""

import math
from collections.abc import Iterable
from pathlib import Path

from .bad_input import BadInput
from .text_files import numbered_lines

_LINES_A_POST = 7  # of a relation file


def read_relation_file(path: str | Path) -> list[dict]:
    """Read a relation file of the R-GCN authors (`{train,valid,test}_2.txt`).

    A post is seven lines: words, tags, own picture, then scores and pictures of the inter-modal and of the intra-modal
    neighbours. A neighbour of score 0 is no neighbour (the authors' 16 % of all-zero rows name random pictures), so it
    is left out: an empty list means that every spoke is masked.

    Args:
        path: the file, UTF-8.

    Returns:
        One dict per post, in the order of the file: `id` (picture name without ".jpg"), `tokens`, `tags` (OTHER is
        read as MISC), `neighbors_inter` and `neighbors_intra`, both lists of {"id", "score"} by falling score.

    Raises:
        BadInput: A post is cut off, has more words than tags, or scores that don't match the pictures; names the line.
    """
    lines = list(numbered_lines(path))
    while lines and not lines[-1][1]:
        lines.pop()
    if missing := len(lines) % _LINES_A_POST:
        raise BadInput(f"{path}:{lines[-1][0]}: the last post is cut off ({missing} of {_LINES_A_POST} lines)")
    rows = []
    for start in range(0, len(lines), _LINES_A_POST):
        line = lines[start][0]
        fields = [text.split(" ") for _, text in lines[start : start + _LINES_A_POST]]
        words, tags, picture, inter_scores, inter_pictures, intra_scores, intra_pictures = fields
        if len(words) != len(tags):
            raise BadInput(f"{path}:{line}: {len(words)} words but {len(tags)} tags")
        rows.append(
            {
                "id": _picture_id(picture, path, line + 2),
                "tokens": words,
                "tags": [_tag(tag) for tag in tags],
                "neighbors_inter": _neighbors(inter_scores, inter_pictures, path, line + 3),
                "neighbors_intra": _neighbors(intra_scores, intra_pictures, path, line + 5),
            }
        )
    return rows


def read_umgf_folder(path: str | Path) -> list[dict]:
    """Read a split of UMGF's `my_data`: three files per post, `<n>_s.txt` words, `<n>_l.txt` tags, `<n>_p.txt` id.

    Its labels were edited, in the test splits too, and words were dropped: scores on it can't be compared with scores
    on the UMT release. `dataset_doctor --compare` lists the differences.

    Args:
        path: the folder of one split, such as `my_data/twitter2015/test`.

    Returns:
        One dict per post, ordered by n: `id`, `tokens`, `tags` (OTHER is read as MISC).

    Raises:
        BadInput: There are no such files, one of the three is missing, or words and tags don't match.
    """
    numbers = [file.name.removesuffix("_s.txt") for file in Path(path).glob("*_s.txt")]
    numbers = sorted(int(number) for number in numbers if number.isdecimal())
    if not numbers:
        raise BadInput(f"{path}: no files <number>_s.txt in this folder")
    rows = []
    for number in numbers:
        words = _tab_separated(Path(path) / f"{number}_s.txt")
        tags = _tab_separated(Path(path) / f"{number}_l.txt")
        picture = _tab_separated(Path(path) / f"{number}_p.txt")
        if len(words) != len(tags):
            raise BadInput(f"{path}/{number}_l.txt: {len(words)} words but {len(tags)} tags")
        rows.append({"id": picture[0].removesuffix(".jpg"), "tokens": words, "tags": [_tag(tag) for tag in tags]})
    return rows


def read_caption_file(path: str | Path) -> dict[str, str]:
    """Read lines `<id>.jpg :caption`, as the BLIP-2 captions of the PGIM authors; returns the captions by id.

    Raises:
        BadInput: A line has another form, or an id comes twice; names the line.
    """
    captions = {}
    for number, line in numbered_lines(path):
        if not line:
            continue
        picture, separator, caption = line.partition(" :")
        if not separator:
            raise BadInput(f"{path}:{number}: expected '<id>.jpg :caption', found {line[:60]!r}")
        name = _picture_id([picture], path, number)
        if name in captions:
            raise BadInput(f"{path}:{number}: a second caption of {name}")
        captions[name] = caption.strip()
    return captions


def read_knowledge_file(path: str | Path) -> list[tuple[list[str], str]]:
    """Read posts and what is known of each from CoNLL as AdaSeq reads it, of PGIM (Li et al., EMNLP 2023) and MoRe.

    Words of a post have its labels, then come `<EOS>` and the words of the knowledge, all labelled X.

    Returns:
        For each post its words and the knowledge, "" = none.

    Raises:
        BadInput: As `numbered_lines`; a line has no label.
    """
    posts = []
    words: list[str] = []
    known: list[str] = []
    for number, line in [*numbered_lines(path), (0, "")]:
        if line.strip():
            fields = line.strip(" \t").replace("\t", " ").split(" ")  # a word may be U+00A0
            if len(fields) < 2:
                raise BadInput(f"{path}:{number}: {line!r} is no word with its label")
            of_post = fields[-1] not in ("X", "B-X")
            (words if of_post else known).append(fields[0])
        elif words:
            posts.append((words, " ".join(word for word in known if word != "<EOS>")))
            words, known = [], []
    return posts


def lost_posts(relations: Iterable[dict], posts: Iterable[dict]) -> list[str]:
    """Ids of the posts that have no row in the relation file (the authors lost the last post of each 2015 split)."""
    known = {row["id"] for row in relations}
    return [post["id"] for post in posts if post["id"] not in known]


def _tag(tag: str) -> str:
    return tag.replace("OTHER", "MISC")


def _tab_separated(path: Path) -> list[str]:
    _, line = next(numbered_lines(path))
    return line.split("\t")


def _picture_id(fields: list[str], path: str | Path, line: int) -> str:
    if len(fields) != 1 or not fields[0].endswith(".jpg"):
        raise BadInput(f"{path}:{line}: expected the picture of the post (<id>.jpg), found {' '.join(fields)[:60]!r}")
    return fields[0].removesuffix(".jpg")


def _neighbors(scores: list[str], pictures: list[str], path: str | Path, line: int) -> list[dict]:
    if len(scores) != len(pictures):
        raise BadInput(f"{path}:{line}: {len(scores)} scores but {len(pictures)} pictures")
    neighbors = []
    for score_text, picture in zip(scores, pictures, strict=True):
        score = _score(score_text, path, line)
        if score:
            neighbors.append({"id": _picture_id([picture], path, line + 1), "score": score})
    return neighbors


def _score(text: str, path: str | Path, line: int) -> float:
    try:
        score = float(text)
    except ValueError:
        score = math.nan
    if not math.isfinite(score):
        raise BadInput(f"{path}:{line}: {text!r} is not a score")
    return score
