"""A split is counted the same way wherever its numbers are told."""

import pytest
from datasets import ClassLabel, Dataset, Features, Image, List, Value

from modeling_umgf.split_counts import count_split, tag_names

LABELS = ["O", "B-PER", "I-PER", "B-LOC", "I-LOC"]
WORDS = {"ner_tags": List(ClassLabel(names=LABELS))}
FEATURES = {"object_features": List(List(Value("float32")))}
OBJECTS = {"objects": List({"box": List(Value("float32"))})}


def split(columns: dict, **cells: list) -> Dataset:
    return Dataset.from_dict({"ner_tags": [[1, 2], [4, 0, 2], [0, 3, 2]], **cells}, features=Features(WORDS | columns))


def test_words_names_and_orphans_are_counted():
    counts = count_split(split({}))
    assert (counts.posts, counts.words, counts.entities) == (3, 8, 5)
    assert counts.starts == {"PER": 1, "LOC": 1}
    assert counts.orphans == {"LOC": 1, "PER": 2}
    assert counts.orphan_kinds == {"O->I": 2, "B-x->I-y": 1}
    assert tag_names(split({}))[1] == ["I-LOC", "O", "I-PER"]


@pytest.mark.parametrize(
    ("columns", "cells", "pictures"),
    [
        ({}, {}, 0),
        (OBJECTS, {"objects": [[], None, None]}, 1),
        (OBJECTS | FEATURES, {"objects": [[], None, None], "object_features": [[], [[1.0]], None]}, 2),
        (FEATURES | {"image": Image()}, {"object_features": [[[1.0]]] * 3, "image": [None] * 3}, 0),
    ],
)
def test_pictures_are_counted_by_the_best_column_that_is_there(columns, cells, pictures):
    """Undecoded: an image, else features, else boxes; a post that somebody looked at in vain has a picture."""
    assert count_split(split(columns, **cells)).pictures == pictures
