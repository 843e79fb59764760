"""A dataset as `datasets.load_dataset` loads it, or one clear error."""

from collections.abc import Collection
from pathlib import Path

import datasets
from datasets import DatasetDict, load_dataset, load_from_disk

from modeling_umgf.files import FullDisk, told_of_a_full_disk

from .bad_input import BadInput, first_line


def load_posts(
    dataset: str, config_name: str | None = None, columns: Collection[str] = ("id", "tokens", "ner_tags")
) -> DatasetDict:
    """Load all splits of a dataset of posts, with all their columns.

    Args:
        dataset: folder or Hub id.
        config_name: its configuration, where it has several.
        columns: what every split must have.

    Raises:
        BadInput: It cannot be loaded, or lacks one of the columns.
        FullDisk: its copy in the cache cannot be written.
    """
    try:
        with told_of_a_full_disk(f"The cache of `datasets`, {datasets.config.HF_DATASETS_CACHE},"):
            saved = Path(dataset, "dataset_dict.json").exists()  # by save_to_disk: datasets 4 would read its notes
            splits = load_from_disk(dataset) if saved else load_dataset(dataset, config_name)
    except FullDisk:
        raise
    except Exception as error:  # load_dataset raises the errors of a dozen libraries
        raise BadInput(f"{dataset}: load_dataset can't load it: {first_line(error)}") from error
    for name, split in splits.items():
        if missing := set(columns) - set(split.features):
            raise BadInput(f"{dataset}, split {name}: has no column {', '.join(sorted(missing))}")
    return splits
