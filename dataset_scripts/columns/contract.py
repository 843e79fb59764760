"""The columns of every dataset of posts that this package reads and writes."""

from collections.abc import Collection, Iterable
from dataclasses import dataclass
from typing import Any

from datasets import ClassLabel, Features, Image, List, Value

from modeling_umgf.labels import bio_labels

_WORD_SPAN = {"start": Value("int32"), "end": Value("int32")}  # half open

_OBJECT = {
    "box": List(Value("float32"), length=4),  # x0, y0, x1, y1 in pixels of the upright picture
    "score": Value("float32"),
    "query": Value("string"),
    "phrase": _WORD_SPAN,  # null: found by a general query, linked to every word
}

_VECTORS = List(List(Value("float32")))

_NEIGHBOR = {"id": Value("string"), "score": Value("float64")}


@dataclass(frozen=True)
class Column:
    """A column that a dataset of posts may have.

    Args:
        name: of the column.
        feature: its type; None for the labels, whose names differ from dataset to dataset.
        optional: whether a dataset may do without it.
        seen_in_picture: whether its content comes from pictures, so that it goes when they are taken away.
        moves_with_picture: whether its cells go along, as they are, when a post gets the picture of another.
        heavy: whether it stays on disk while the others are read into memory.
    """

    name: str
    feature: Any
    optional: bool = True
    seen_in_picture: bool = False
    moves_with_picture: bool = False
    heavy: bool = False


_ALL = (
    Column("id", Value("string"), optional=False),
    Column("tokens", List(Value("string")), optional=False),
    Column("ner_tags", None, optional=False),
    Column("image", Image(), optional=False, seen_in_picture=True, moves_with_picture=True, heavy=True),
    Column("noun_phrases", List(_WORD_SPAN)),
    Column("objects", List(_OBJECT), seen_in_picture=True),  # linked to the post's own words
    Column("object_features", _VECTORS, seen_in_picture=True, heavy=True),  # of these objects
    Column(
        "knowledge_features", List(List(Value("float32"))), seen_in_picture=True, moves_with_picture=True, heavy=True
    ),
    Column("picture_adds", Value("bool")),  # whether the picture adds to the text
    Column("caption", Value("string"), seen_in_picture=True, moves_with_picture=True),
    Column("context", Value("string")),  # whatever else is known of a post, to be read after it
    Column("object_labels", List(Value("string")), seen_in_picture=True, moves_with_picture=True),
    Column("neighbors_inter", List(_NEIGHBOR), seen_in_picture=True),  # found by the post's own words
    Column("neighbors_intra", List(_NEIGHBOR), seen_in_picture=True, moves_with_picture=True),
)

COLUMNS = {column.name: column for column in _ALL}
"""All columns by name, in their order in a dataset."""

TWITTER_TYPES = ("PER", "LOC", "ORG", "MISC")


def dataset_features(label_names: Iterable[str], columns: Collection[str] = (), texts: Iterable[str] = ()) -> Features:
    """Features of a dataset: id, tokens, ner_tags, image and the optional columns that are asked for.

    Args:
        label_names: BIO labels in the order of their ids.
        columns: names from `COLUMNS`.
        texts: names of further columns, of texts.

    Returns:
        The columns in the order of `COLUMNS`, whatever the order of `columns`; then the texts.

    Raises:
        ValueError: `columns` has a name that is no column.
    """
    if unknown := sorted(set(columns) - set(COLUMNS)):
        raise ValueError(f"unknown columns {', '.join(unknown)}; known are {', '.join(COLUMNS)}")
    features = {}
    for name, column in COLUMNS.items():
        if name == "ner_tags":
            features[name] = List(ClassLabel(names=list(label_names)))
        elif name in columns or not column.optional:
            features[name] = column.feature
    return Features(features | {name: Value("string") for name in texts if name not in features})


def label_names(entity_types: Iterable[str]) -> list[str]:
    """BIO labels of the entity types that were found: PER, LOC, ORG, MISC in this order, then the others by name."""
    found = set(entity_types)
    known = [name for name in TWITTER_TYPES if name in found]
    others = sorted(found - set(TWITTER_TYPES))
    return bio_labels(known + others)
