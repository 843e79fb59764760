"""What every format of posts is checked for: its tags, and ids that come twice."""

import logging
import re
from collections.abc import Collection
from pathlib import Path

from modeling_umgf.split_counts import continues_nothing

from .bad_input import BadInput

logger = logging.getLogger(__name__)


class TagReader:
    """Checks the tags of one file, and counts what it changed.

    Args:
        allowed: entity types; None = any.
        bio_repair: turn an I- that continues nothing into a B-.
        renamed: types that are read as others.
    """

    def __init__(self, allowed: Collection[str] | None, bio_repair: bool, renamed: dict[str, str] | None = None):
        self.allowed = allowed
        self.bio_repair = bio_repair
        self.renamed = renamed or {}
        self.seen: set[str] = set()
        self.repaired = 0

    def read(self, tag: str, where: str) -> str:
        """The tag, its type renamed; raises BadInput, with the place, where it is none."""
        if tag == "O":
            return tag
        if not re.fullmatch(r"[BI]-\S+", tag):
            raise BadInput(f"{where}: unknown tag {tag!r}; tags are O, B-<type> and I-<type>")
        self.seen.add(tag[2:])
        entity_type = self.renamed.get(tag[2:], tag[2:])
        if self.allowed is not None and entity_type not in self.allowed:
            raise BadInput(
                f"{where}: unknown label {tag}; the types are {', '.join(self.allowed)} (those of the training data,"
                " unless the wanted types are listed)"
            )
        return f"{tag[0]}-{entity_type}"

    def repair(self, tags: list[str]) -> list[str]:
        """The tags of one post, repaired if that is asked for."""
        if not self.bio_repair:
            return tags
        repaired = []
        for before, tag in zip(["O", *tags], tags, strict=False):
            orphan = continues_nothing(before, tag)
            repaired.append("B" + tag[1:] if orphan else tag)
            self.repaired += orphan
        return repaired

    def log(self, source: str | Path) -> None:
        """Say what was changed."""
        for old in self.seen & set(self.renamed):
            logger.info("%s: type %s is read as %s", source, old, self.renamed[old])
        if self.bio_repair:
            logger.info("%s: %d I- tags that continue nothing became B-", source, self.repaired)


class IdRegister:
    """The ids of one file, each with its place.

    Args:
        unique: refuse an id that was used before.
    """

    def __init__(self, unique: bool):
        self.unique = unique
        self.places: dict[str, str] = {}

    def claim(self, name: str, where: str) -> None:
        """Note the id of a post; raises BadInput where another post has it."""
        if self.unique and name in self.places:
            raise BadInput(f"{where}: the id {name} was used before, at {self.places[name]}")
        self.places.setdefault(name, where)
