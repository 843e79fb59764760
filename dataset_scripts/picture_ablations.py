"""What-if copies of a dataset: the same tweets without their pictures, or with the picture of another tweet."""

import numpy as np
from datasets import Dataset, concatenate_datasets

SEEN_IN_PICTURES = (
    "image",
    "objects",
    "object_features",
    "caption",
    "object_labels",
    "neighbors_inter",
    "neighbors_intra",
)
"""Columns whose content comes from a picture."""

_MOVES_WITH_PICTURE = ("image", "caption", "object_labels", "neighbors_intra")


def remove_pictures(dataset: Dataset) -> Dataset:
    """Take away everything that comes from a picture; words, labels and noun phrases stay.

    Args:
        dataset: One split.

    Returns:
        The same rows and columns; the columns of `SEEN_IN_PICTURES` are null.
    """
    features = dataset.features
    for name in set(SEEN_IN_PICTURES) & set(features):
        dataset = dataset.remove_columns(name).add_column(name, [None] * len(dataset), feature=features[name])
    return dataset.select_columns(list(features))


def shuffle_pictures(dataset: Dataset, seed: int = 0) -> Dataset:
    """Give every tweet the picture of another tweet, together with what was seen in that picture.

    A tweet keeps its words and the links from its phrases to its objects, but object j lies in the box of object j
    (modulo their number) of the other picture. Where the other tweet has no picture or no objects, nothing is linked.

    Args:
        dataset: One split with at least two tweets.
        seed: Decides who gets whose picture; nobody keeps its own.

    Returns:
        The same rows and columns; neighbours found by the words (`neighbors_inter`) stay.

    Raises:
        ValueError: Fewer than two tweets.
    """
    if len(dataset) < 2:
        raise ValueError("pictures can be shuffled among two tweets or more")
    features = dataset.features
    order = np.random.default_rng(seed).permutation(len(dataset))
    others = np.empty_like(order)
    others[order] = np.roll(order, 1)  # one cycle through all tweets
    objects = dataset["objects"][:] if "objects" in features else [None] * len(dataset)
    vectors = dataset["object_features"][:] if "object_features" in features else [None] * len(dataset)
    moved = [name for name in _MOVES_WITH_PICTURE if name in features]
    if moved:
        dataset = concatenate_datasets(
            [dataset.remove_columns(moved), dataset.select_columns(moved).select(others)], axis=1
        )
    new = {
        "objects": [_in_boxes_of(objects[i], objects[other]) for i, other in enumerate(others)],
        "object_features": [_fitted(vectors[other], objects[i]) for i, other in enumerate(others)],
    }
    for name in set(new) & set(features):
        dataset = dataset.remove_columns(name).add_column(name, new[name], feature=features[name])
    return dataset.select_columns(list(features))


def _in_boxes_of(objects: list[dict] | None, other: list[dict] | None) -> list[dict] | None:
    if objects is None:
        return None
    return [{**own, "box": its["box"]} for own, its in zip(objects, _fitted(other, objects), strict=False)]


def _fitted(values: list | None, objects: list[dict] | None) -> list | None:
    """One value for each object, again from the start where there are too few; all values where nobody looked."""
    if objects is None:
        return values
    return [values[j % len(values)] for j in range(len(objects))] if values else []
