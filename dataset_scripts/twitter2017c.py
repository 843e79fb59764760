"""Twitter-2017c: Twitter-2017 without the tweets whose picture is missing or a uniform empty file."""

import logging
from collections import Counter
from collections.abc import Collection, Mapping
from pathlib import Path

from datasets import Dataset, DatasetDict

from .text_files import BadInput, numbered_lines

logger = logging.getLogger(__name__)

PUBLISHED = {"train": 3075, "validation": 659, "test": 661}
"""Tweets in the paper, which removed 298 + 64 + 62 = 424; it published no list, and 66 of them can't be identified."""

PLACEHOLDER = "17_06_4705"  # shows the words "Image Not Found"
_COPIES = 20


def read_id_list(path: str | Path) -> set[str]:
    """Read tweet ids, one per line, after a tab where the line begins with a split; lines with # are comments."""
    lines = [line for _, line in numbered_lines(path) if line and not line.startswith("#")]
    return {line.split("\t")[-1] for line in lines}


def twitter2017c(
    splits: Mapping[str, Dataset],
    prints: Mapping[str, Mapping[str, tuple[str, str]]],
    exclude: Collection[str] = (),
) -> tuple[DatasetDict, dict[str, Counter]]:
    """Leave out the tweets without a picture of their own.

    A tweet goes if it is in `exclude`; and, where the dataset has pictures, if its picture is missing, unreadable or
    blank, or if its bytes or its look are those of 20 others or of the placeholder "Image Not Found".

    Args:
        splits: Twitter-2017, its unusable pictures None already (`load_splits`).
        prints: Of each split, what `picture_prints` returns.
        exclude: Ids to leave out in any case.

    Returns:
        The splits, and how many tweets each lost for which reason.

    Raises:
        BadInput: There are neither pictures nor ids to exclude.
    """
    everyone = {name: one for split in prints.values() for name, one in split.items()}
    if not everyone and not exclude:
        raise BadInput("Twitter-2017c needs the pictures, or a list of the ids to leave out")
    copies = [Counter(one[which] for one in everyone.values()) for which in (0, 1)]
    placeholder = everyone.get(PLACEHOLDER, ("", ""))

    def reason(name: str) -> str | None:
        if name in exclude:
            return "in the list"
        if everyone and name not in everyone:
            return "without a usable picture"
        for which, what in enumerate(("bytes", "look")):
            if everyone and copies[which][everyone[name][which]] > _COPIES:
                return f"same {what} as {_COPIES} others"
            if everyone and everyone[name][which] == placeholder[which]:
                return f"same {what} as the placeholder {PLACEHOLDER}"
        return None

    kept, lost = DatasetDict(), {}
    for name, split in splits.items():
        reasons = [reason(tweet) for tweet in split["id"]]
        kept[name] = split.select([index for index, why in enumerate(reasons) if why is None])
        lost[name] = Counter(why for why in reasons if why is not None)
        why = ", ".join(f"{number} {why}" for why, number in lost[name].items()) or "none left out"
        logger.info("%s: %d tweets (%s); the paper has %s", name, len(kept[name]), why, PUBLISHED.get(name))
    return kept, lost
