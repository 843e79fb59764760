"""The list of named entities with which a text about a post begins: "Named entities: 1. Rome (city) 2. …".

Numbers and heading may be missing.
"""

import re
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import accumulate

HEADING = re.compile(r"\s*(named entit(y|ies)\s*:?)?", re.IGNORECASE)
END_OF_LIST = re.compile(r"\bReasoning\b")
ENTRY = re.compile(r"(?:\s*\d+[.)])?\s*([^()（）]+?)\s*[(（]([^()（）]+)[)）]")
NO_LETTER = re.compile(r"[\W_]+")


@dataclass(frozen=True)
class Entry:
    """An entry of the list.

    Args:
        name: such as "Rome".
        kind: what it is said to be, such as "city".
    """

    name: str
    kind: str

    def __str__(self) -> str:
        return f"{self.name} ({self.kind})"


def read_entity_list(text: str) -> list[Entry]:
    """The entries "name (kind)" before the word "Reasoning"; none where the text begins with no such list."""
    listed = END_OF_LIST.split(text, maxsplit=1)[0]
    return [Entry(*entry) for entry in ENTRY.findall(listed, HEADING.match(listed).end())]


def find_name(words: Sequence[str], name: str) -> list[dict[str, int]]:
    """Where a name stands in a post, whatever the case and the signs around it: {"start", "end"} of each place."""
    sought = _letters(name)
    own = [_letters(word) for word in words]
    places = []
    for start, first in enumerate(own):
        joined = list(accumulate(own[start:])) if first else []
        if sought in joined:
            places.append({"start": start, "end": start + joined.index(sought) + 1})
    return places


def _letters(text: str) -> str:
    return NO_LETTER.sub("", text).lower()
