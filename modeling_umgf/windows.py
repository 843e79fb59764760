"""Posts longer than a model reads: overlapping windows of whole words, each word labelled where it has most context."""

from collections.abc import Sequence
from itertools import accumulate, groupby
from typing import NamedTuple

TRUNCATIONS = ("window", "error", "warn")
"""What may become of a post that is longer than the text encoder reads: it is read in windows, refused, or cut."""


class Window(NamedTuple):
    """Words that a model reads at once, numbered as in the post.

    Args:
        first: the first word that is read.
        after: the word after the last one.
        kept_first: the first word that is labelled from this window.
        kept_after: the word after the last one.
    """

    first: int
    after: int
    kept_first: int
    kept_after: int


def plan_windows(sizes: Sequence[int], room: int) -> list[Window]:
    """Cover a post with windows that overlap by half, as far as its words allow.

    Args:
        sizes: pieces of each word.
        room: pieces that a window holds; a word with more is cut, and stands alone.

    Returns:
        The windows from left to right. Every word is kept by one of them: by that in which its distance to the nearer
        end, in pieces, is larger; an end of the post is no such end.
    """
    words = len(sizes)
    before = [0, *accumulate(min(size, room) for size in sizes)]  # pieces before each word, and of all
    reads = []
    first = 0
    while True:
        after = first + 1
        while after < words and before[after + 1] - before[first] <= room:
            after += 1
        if after >= words:
            break
        reads.append((first, after))
        new = before[after + 1] - before[after]
        overlap = min(room // 2, room - new)
        begin = after
        while begin - 1 > first and before[after] - before[begin - 1] <= overlap:
            begin -= 1
        first = begin
    earliest = reads[-1][0] + 1 if reads else 0
    while first > earliest and before[words] - before[first - 1] <= room:  # the last window is full, too
        first -= 1
    reads.append((first, words))

    best = [(-1, 0)] * words  # context of each word, and the window that it is read in with that
    for number, (first, after) in enumerate(reads):
        for word in range(first, after):
            left = before[word] - before[first] if first else before[words]
            right = before[after] - before[word + 1] if after < words else before[words]
            best[word] = max(best[word], (min(left, right), number))
    windows = []
    for number, kept in groupby(range(words), key=lambda word: best[word][1]):
        kept = list(kept)
        windows.append(Window(*reads[number], kept[0], kept[-1] + 1))
    return windows
