"""What every format of posts is checked for: its tags, and ids that come twice."""

import logging
import re
from collections import Counter
from collections.abc import Collection, Iterable, Sequence
from pathlib import Path

from modeling_umgf.labels import bio_labels
from modeling_umgf.split_counts import continues_nothing

from .bad_input import BadInput

logger = logging.getLogger(__name__)

BIO_PREFIXES = {"B": "B", "I": "I", "E": "I", "L": "I", "M": "I", "S": "B", "U": "B"}
"""Of BIO, and of BIOES, BIOUL and BMES: begin, inside, end, last, middle, single, unit."""

_TAG = re.compile(rf"([{''.join(BIO_PREFIXES)}])-(\S|\S.*\S)")  # a type may have blanks inside


class TagReader:
    """Reads the tags of one file as BIO, and counts what it changed.

    Args:
        types: entity types that are allowed; None = any.
        bio_repair: turn an I- that continues nothing into a B-.
        tag_names: names of tags that are given as numbers, in their order from 0.
        renamed: types that are read as others.
    """

    def __init__(
        self,
        types: Collection[str] | None = None,
        bio_repair: bool = False,
        tag_names: Sequence[str] | None = None,
        renamed: dict[str, str] | None = None,
    ):
        self.types = types
        self.bio_repair = bio_repair
        self.tag_names = tag_names
        self.renamed = renamed or {}
        self.seen: set[str] = set()
        self.changed_prefixes = Counter()
        self.repaired = 0

    def read(self, tag: str | int, where: str) -> str:
        """The tag in BIO, its type renamed; raises BadInput, with the place, where it is none."""
        tag = self._name(tag, where)
        if tag == "O":
            return tag
        match = _TAG.fullmatch(tag)
        if match is None:
            raise BadInput(f"{where}: unknown tag {tag!r}; tags are O, B-<type> and I-<type> (or BIOES, BIOUL)")
        prefix, found = match.groups()
        self.seen.add(found)
        self.changed_prefixes[prefix] += BIO_PREFIXES[prefix] != prefix
        entity_type = self.renamed.get(found, found)
        if self.types is not None and entity_type not in self.types:
            raise BadInput(
                f"{where}: unknown label {tag}; the types are {', '.join(self.types)} (those of the training data,"
                " unless the wanted types are listed)"
            )
        return f"{BIO_PREFIXES[prefix]}-{entity_type}"

    def _name(self, tag: str | int, where: str) -> str:
        """The name of a tag that is given as a number."""
        if not isinstance(tag, int):
            if self.tag_names is None or tag in self.tag_names or not tag.isdecimal():
                return tag
            tag = int(tag)
        if self.tag_names is None:
            raise BadInput(f"{where}: the tag is the number {tag}; name the tags in their order: --tag_names O B-PER …")
        if not 0 <= tag < len(self.tag_names):
            raise BadInput(f"{where}: there is no tag {tag} among the {len(self.tag_names)} names of tags")
        return self.tag_names[tag]

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
        if changed := +self.changed_prefixes:
            counts = ", ".join(f"{number} {old}- as {BIO_PREFIXES[old]}-" for old, number in sorted(changed.items()))
            logger.info("%s: tags of another scheme are read as BIO: %s", source, counts)
        if self.bio_repair:
            logger.info("%s: %d I- tags that continue nothing became B-", source, self.repaired)


def labels_of_names(tag_names: Iterable[str]) -> list[str]:
    """BIO labels for the names of tags: these names in their order if they are BIO, else the labels of their types."""
    names = list(tag_names)
    matches = [_TAG.fullmatch(name) for name in names if name != "O"]
    if all(match is None or match[1] in "BI" for match in matches):
        return names
    return bio_labels(dict.fromkeys(match[2] for match in matches if match is not None))


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
