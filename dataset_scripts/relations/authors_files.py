"""Neighbours as the R-GCN authors published them."""

from pathlib import Path

from datasets import DatasetDict

from modeling_umgf.relation_index import RelationIndex

from ..reading.bad_input import BadInput
from ..reading.published_formats import read_relation_file

AUTHORS_FILES = {"train": "train_2.txt", "validation": "valid_2.txt", "test": "test_2.txt"}


def authors_neighbors(
    folder: str | Path, splits: DatasetDict, index: RelationIndex, k: int
) -> tuple[dict[str, dict[str, list[list[dict]]]], dict[str, list[str]], int]:
    """Read neighbours from the R-GCN authors' files instead of finding them.

    Args:
        folder: holds the `AUTHORS_FILES`.
        splits: the posts.
        index: the pool; only its pictures can be neighbours.
        k: the best k of them are taken.

    Returns:
        The columns of each split; the ids of the posts that the files lost, which get no neighbours; how many
        neighbours in the files are not in the pool.

    Raises:
        BadInput: the authors have no file for a split, or it is not what they published.
    """
    neighbors = {}
    lost = {}
    unknown = 0
    for name, split in splits.items():
        if name not in AUTHORS_FILES:
            raise BadInput(f"{folder}: the authors have no relations for the split {name}")
        listed = {row["id"]: row for row in read_relation_file(Path(folder) / AUTHORS_FILES[name])}
        lost[name] = [post for post in split["id"] if post not in listed]
        neighbors[name] = {"neighbors_inter": [], "neighbors_intra": []}
        for relation, column in neighbors[name].items():
            for post in split["id"]:
                everyone = listed[post][relation] if post in listed else []
                in_pool = [one for one in everyone if one["id"] in index]
                unknown += len(everyone) - len(in_pool)
                column.append(in_pool[:k])
    return neighbors, lost, unknown
