"""The columns of every dataset this package reads and writes."""

from collections.abc import Collection, Iterable

from datasets import ClassLabel, Features, Image, List, Value

from modeling_umgf.labels import bio_labels

_WORD_SPAN = {"start": Value("int32"), "end": Value("int32")}  # half open
_NEIGHBORS = List({"id": Value("string"), "score": Value("float64")})

OPTIONAL_COLUMNS = {
    "noun_phrases": List(_WORD_SPAN),
    "objects": List(
        {
            "box": List(Value("float32"), length=4),  # x0, y0, x1, y1 in pixels of the upright picture
            "score": Value("float32"),
            "query": Value("string"),
            "phrase": _WORD_SPAN,  # null: found by a general query, linked to every word
        }
    ),
    "object_features": List(List(Value("float32"))),
    "caption": Value("string"),
    "object_labels": List(Value("string")),
    "neighbors_inter": _NEIGHBORS,
    "neighbors_intra": _NEIGHBORS,
}
"""Columns a dataset may have after `id`, `tokens`, `ner_tags` and `image`."""

TWITTER_TYPES = ("PER", "LOC", "ORG", "MISC")


def dataset_features(label_names: Iterable[str], columns: Collection[str] = ()) -> Features:
    """Features of a dataset: id, tokens, ner_tags, image and the optional columns that are asked for.

    Args:
        label_names: BIO labels in the order of their ids.
        columns: names from `OPTIONAL_COLUMNS`.

    Returns:
        The columns in the order of `OPTIONAL_COLUMNS`, whatever the order of `columns`.

    Raises:
        ValueError: `columns` has a name that is no optional column.
    """
    if unknown := sorted(set(columns) - set(OPTIONAL_COLUMNS)):
        raise ValueError(f"unknown columns {', '.join(unknown)}; known are {', '.join(OPTIONAL_COLUMNS)}")
    return Features(
        {
            "id": Value("string"),
            "tokens": List(Value("string")),
            "ner_tags": List(ClassLabel(names=list(label_names))),
            "image": Image(),
            **{name: feature for name, feature in OPTIONAL_COLUMNS.items() if name in columns},
        }
    )


def label_names(entity_types: Iterable[str]) -> list[str]:
    """BIO labels of the entity types that were found: PER, LOC, ORG, MISC in this order, then the others by name."""
    found = set(entity_types)
    return bio_labels([*(name for name in TWITTER_TYPES if name in found), *sorted(found - set(TWITTER_TYPES))])
