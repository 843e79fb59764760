"""Tagged posts as CoNLL: one word a line."""

import re
from collections.abc import Sequence

from .files import write_whole


def conll_block(post_id: object, words: Sequence[str], *tags: Sequence[str]) -> str:
    """Make the block of one post.

    Args:
        post_id: its id; white space in it becomes single spaces.
        words: its words; tabs and line breaks in them become spaces.
        tags: columns of tags, each with one tag a word.

    Returns:
        A line `IMGID:<id>`, a line for each word with its tags, separated by tabs, and a blank line.
    """
    lines = [f"IMGID:{' '.join(str(post_id).split())}"]
    for word_with_tags in zip(words, *tags, strict=True):
        lines.append("\t".join(re.sub(r"[\t\n\r]", " ", part) for part in word_with_tags))
    return "\n".join(lines) + "\n\n"


def write_conll(path: str, ids: Sequence[str], words: Sequence[Sequence[str]], *tags: Sequence[Sequence[str]]) -> None:
    """Write a block of CoNLL for each post, with columns of tags; see `conll_block`."""
    with write_whole(path) as unfinished, open(unfinished, "w", encoding="utf-8", newline="\n") as file:
        for post in zip(ids, words, *tags, strict=True):
            file.write(conll_block(*post))
