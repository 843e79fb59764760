"""What-if copies of a dataset: the same posts without their pictures, or with the picture of another post."""

from collections.abc import Collection

import numpy as np
from datasets import Dataset, concatenate_datasets

from .contract import COLUMNS


def columns_from_pictures(dataset: Dataset) -> list[str]:
    """Names of those columns of a dataset whose content comes from pictures."""
    return [name for name in dataset.features if name in COLUMNS and COLUMNS[name].seen_in_picture]


def remove_pictures(dataset: Dataset, share: float = 1.0, seed: int = 0) -> Dataset:
    """Take away everything that comes from a picture; words, labels and noun phrases stay.

    Args:
        dataset: one split.
        share: of the posts that lose their picture.
        seed: decides who does.

    Returns:
        The same rows and columns; those of `columns_from_pictures` are null.
    """
    without = remove_columns(dataset, columns_from_pictures(dataset))
    posts = len(dataset)
    lost = np.random.default_rng(seed).permutation(posts)[: round(share * posts)]
    rows = np.arange(posts)
    rows[lost] += posts
    return concatenate_datasets([dataset, without]).select(rows)


def remove_columns(dataset: Dataset, names: Collection[str]) -> Dataset:
    """Take away what columns hold.

    Args:
        dataset: one split.
        names: of the columns; those that it lacks are passed over.

    Returns:
        The same rows and columns; these are null.
    """
    features = dataset.features
    for name in names:
        if name in features:
            dataset = _replaced(dataset, name, [None] * len(dataset))
    return dataset.select_columns(list(features))


def shuffle_pictures(dataset: Dataset, seed: int = 0) -> Dataset:
    """Give every post the picture of another post, together with what was seen in that picture.

    A post keeps its words and the links from its phrases to its objects, but object j lies in the box of object j
    (modulo their number) of the other picture. Where the other post has no picture or no objects, nothing is linked.

    Args:
        dataset: one split with at least two posts.
        seed: decides who gets whose picture; nobody keeps its own.

    Returns:
        The same rows and columns; neighbours found by the words (`neighbors_inter`) stay.

    Raises:
        ValueError: Fewer than two posts.
    """
    if len(dataset) < 2:
        raise ValueError("pictures can be shuffled among two posts or more")
    features = dataset.features
    order = np.random.default_rng(seed).permutation(len(dataset))
    others = np.empty_like(order)
    others[order] = np.roll(order, 1)  # one cycle through all posts
    objects = _cells(dataset, "objects")
    vectors = _cells(dataset, "object_features")
    moved = [name for name in features if name in COLUMNS and COLUMNS[name].moves_with_picture]
    if moved:
        kept = dataset.remove_columns(moved)
        given = dataset.select_columns(moved).select(others)
        dataset = concatenate_datasets([kept, given], axis=1)
    if "objects" in features:
        cells = [_in_boxes_of(objects[own], objects[other]) for own, other in enumerate(others)]
        dataset = _replaced(dataset, "objects", cells)
    if "object_features" in features:
        cells = [_fitted(vectors[other], objects[own]) for own, other in enumerate(others)]
        dataset = _replaced(dataset, "object_features", cells)
    return dataset.select_columns(list(features))


def _cells(dataset: Dataset, name: str) -> list:
    return dataset[name][:] if name in dataset.features else [None] * len(dataset)


def _replaced(dataset: Dataset, name: str, cells: list) -> Dataset:
    feature = dataset.features[name]
    return dataset.remove_columns(name).add_column(name, cells, feature=feature)


def _in_boxes_of(objects: list[dict] | None, other: list[dict] | None) -> list[dict] | None:
    if objects is None:
        return None
    return [{**own, "box": its["box"]} for own, its in zip(objects, _fitted(other, objects), strict=False)]


def _fitted(values: list | None, objects: list[dict] | None) -> list | None:
    """One value for each object, again from the start where there are too few; all values where nobody looked."""
    if objects is None:
        return values
    return [values[j % len(values)] for j in range(len(objects))] if values else []
