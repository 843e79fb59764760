"""Names that nobody has."""

from collections.abc import Iterator

import numpy as np


def invented_words(rng: np.random.Generator, count: int) -> Iterator[str]:
    """Different capitalised words of two or three random syllables."""
    seen = set()
    while len(seen) < count:
        syllables = [_syllable(rng) for _ in range(3)]
        chosen = syllables[: rng.integers(2, 4)]
        word = "".join(syllable[: rng.integers(2, 4)] for syllable in chosen).capitalize()
        if word not in seen:
            seen.add(word)
            yield word


def invented_name(words: Iterator[str], rng: np.random.Generator) -> list[str]:
    """A name of one word or, in a quarter of the cases, two."""
    first = next(words)
    second = next(words)
    return [first, second] if rng.random() < 0.25 else [first]


def _syllable(rng: np.random.Generator) -> str:
    return "".join(rng.choice(list(letters)) for letters in ("bdfgklmnprstvz", "aeiou", "lnrs"))
