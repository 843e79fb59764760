"""A dataset as `datasets.load_dataset` loads it, or one clear error."""

from datasets import DatasetDict, load_dataset

from .text_files import BadInput


def load_tweets(dataset: str, config_name: str | None = None) -> DatasetDict:
    """Load all splits of a dataset of tweets, with all their columns.

    Args:
        dataset: folder or Hub id.
        config_name: its configuration, where it has several.

    Raises:
        BadInput: it cannot be loaded, or lacks `id`, `tokens` or `ner_tags`.
    """
    try:
        splits = load_dataset(dataset, config_name)
    except Exception as error:  # load_dataset raises the errors of a dozen libraries
        raise BadInput(f"{dataset}: load_dataset can't load it: {str(error).splitlines()[0]}") from error
    for name, split in splits.items():
        if missing := {"id", "tokens", "ner_tags"} - set(split.features):
            raise BadInput(f"{dataset}, split {name}: has no column {', '.join(sorted(missing))}")
    return splits
