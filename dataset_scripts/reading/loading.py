"""A dataset as `datasets.load_dataset` loads it, or one clear error."""

from collections.abc import Collection

from datasets import DatasetDict, load_dataset

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
    """
    try:
        splits = load_dataset(dataset, config_name)
    except Exception as error:  # load_dataset raises the errors of a dozen libraries
        raise BadInput(f"{dataset}: load_dataset can't load it: {first_line(error)}") from error
    for name, split in splits.items():
        if missing := set(columns) - set(split.features):
            raise BadInput(f"{dataset}, split {name}: has no column {', '.join(sorted(missing))}")
    return splits
