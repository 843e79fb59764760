"""Which of the posts that were read are used: a validation split where there is none, and the first of each."""

import logging
from collections.abc import Mapping

from datasets import DatasetDict

from .bad_input import BadInput

logger = logging.getLogger(__name__)

VALIDATION_SHARE = 0.1


def add_validation(splits: DatasetDict, share: float | None, seed: int) -> DatasetDict:
    """Take posts of the training split for validation, and say so.

    Args:
        splits: with train and without validation.
        share: share of the posts; default 0.1.
        seed: decides which.

    Raises:
        BadInput: the share is none, or there are fewer than two posts.
    """
    share = VALIDATION_SHARE if share is None else share
    if not 0 < share < 1:
        raise BadInput(f"--validation_share {share}: a share of the training posts, above 0 and below 1")
    posts = len(splits["train"])
    if posts < 2:
        raise BadInput("the training split has one post: none is left for validation; give --validation_file")
    taken = min(max(round(share * posts), 1), posts - 1)
    logger.warning(
        "No validation split is given: %d of the %d training posts, drawn with seed %d, are used for it.",
        taken,
        posts,
        seed,
    )
    parts = splits["train"].train_test_split(test_size=taken, seed=seed)
    return DatasetDict(splits | {"train": parts["train"], "validation": parts["test"]})


def first_posts(splits: DatasetDict, limits: Mapping[str, int | None]) -> DatasetDict:
    """The first posts of splits, for a trial.

    Args:
        splits: the data.
        limits: for each split the most posts, None = all.

    Raises:
        BadInput: a limit below 1, or of a split that there is not.
    """
    chosen = dict(splits)
    for name, limit in limits.items():
        if limit is None:
            continue
        if limit < 1 or name not in splits:
            what = "at least one post" if limit < 1 else f"there is no split {name}"
            raise BadInput(f"the limit of {limit} posts of the split {name}: {what}")
        chosen[name] = splits[name].select(range(min(limit, len(splits[name]))))
    return DatasetDict(chosen)
