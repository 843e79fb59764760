"""Twitter-2017c: Twitter-2017 without the tweets whose picture is missing or a uniform empty file."""

import logging
from collections import Counter
from collections.abc import Collection, Mapping

from datasets import Dataset, DatasetDict

from ..reading.bad_input import BadInput
from .oddities import PicturePrint

logger = logging.getLogger(__name__)

PUBLISHED = {"train": 3075, "validation": 659, "test": 661}
"""Tweets in the paper, which removed 298 + 64 + 62 = 424; it published no list, and 66 of them can't be identified."""

PLACEHOLDER = "17_06_4705"  # shows the words "Image Not Found"
_COPIES = 20


def twitter2017c(
    splits: Mapping[str, Dataset],
    prints: Mapping[str, Mapping[str, PicturePrint]],
    exclude: Collection[str] = (),
) -> tuple[DatasetDict, dict[str, Counter]]:
    """Leave out the posts without a picture of their own.

    A post goes if it is in `exclude`; and, where the dataset has pictures, if its picture is missing, unreadable or
    blank, or if its bytes or its look are those of 20 others or of the placeholder "Image Not Found".

    Args:
        splits: Twitter-2017, its unusable pictures None already (`load_splits`).
        prints: of each split, what `picture_prints` returns.
        exclude: ids to leave out in any case.

    Returns:
        The splits, and how many posts each lost for which reason.

    Raises:
        BadInput: There are neither pictures nor ids to exclude.
    """
    everyone = {}
    for split in prints.values():
        everyone.update(split)
    if not everyone and not exclude:
        raise BadInput("Twitter-2017c needs the pictures, or a list of the ids to leave out")
    content_copies = Counter(one.content for one in everyone.values())
    look_copies = Counter(one.look for one in everyone.values())
    placeholder = everyone.get(PLACEHOLDER)

    def reason(name: str) -> str | None:
        if name in exclude:
            return "in the list"
        if not everyone:
            return None
        if name not in everyone:
            return "without a usable picture"
        own = everyone[name]
        if content_copies[own.content] > _COPIES:
            return f"same bytes as {_COPIES} others"
        if placeholder and own.content == placeholder.content:
            return f"same bytes as the placeholder {PLACEHOLDER}"
        if look_copies[own.look] > _COPIES:
            return f"same look as {_COPIES} others"
        if placeholder and own.look == placeholder.look:
            return f"same look as the placeholder {PLACEHOLDER}"
        return None

    kept = DatasetDict()
    lost = {}
    for name, split in splits.items():
        reasons = [reason(post) for post in split["id"]]
        kept[name] = split.select([index for index, why in enumerate(reasons) if why is None])
        lost[name] = Counter(why for why in reasons if why is not None)
        why = ", ".join(f"{number} {why}" for why, number in lost[name].items()) or "none left out"
        logger.info("%s: %d posts (%s); the paper has %s", name, len(kept[name]), why, PUBLISHED.get(name))
    return kept, lost
