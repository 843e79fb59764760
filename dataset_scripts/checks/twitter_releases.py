"""What the releases of Twitter-2015 and Twitter-2017 hold, to say whose labels a dataset has."""

from collections.abc import Mapping

from modeling_umgf.split_counts import SplitCounts

from ..columns.contract import TWITTER_TYPES
from ..reading.bad_input import BadInput

_COUNTED = ("posts", "words", "B-PER", "B-LOC", "B-ORG", "B-MISC")  # MISC is OTHER in the files of Twitter-2015

RELEASES = {
    "twitter2015": {
        "train": (4000, 64439, 2217, 2091, 927, 931),
        "validation": (1000, 16178, 552, 522, 247, 220),
        "test": (3257, 52822, 1816, 1697, 839, 720),
    },
    "twitter2017": {
        "train": (3373, 53007, 2943, 731, 1674, 701),
        "validation": (723, 11309, 626, 173, 375, 150),
        "test": (723, 11330, 621, 178, 395, 157),
    },
    "twitter2015-original": {
        "train": (4000, 64439, 2217, 2091, 928, 940),
        "validation": (1000, 16178, 552, 522, 247, 225),
        "test": (3257, 52822, 1816, 1697, 839, 726),
    },
}
"""Numbers of each split. The first two are the files published with UMT, the third those before its corrections."""

_DESCRIPTIONS = {
    "twitter2015": "Twitter-2015 in the release of UMT (Yu et al., 2020)",
    "twitter2017": "Twitter-2017 in the release of UMT (Yu et al., 2020)",
    "twitter2015-original": "Twitter-2015 as first published (Zhang et al., 2018), without the corrections of UMT",
}


def label_version(counts: Mapping[str, SplitCounts]) -> str:
    """One sentence on whose labels these are, judged by the numbers of all splits that are there."""
    for release in RELEASES:
        if not _differences(release, counts):
            return f"Labels: {_DESCRIPTIONS[release]}."
    return "Labels: as in the given data; they are none of the known releases of Twitter-2015 and Twitter-2017."


def check_release(release: str, counts: Mapping[str, SplitCounts]) -> None:
    """Raise BadInput, with every number that differs, where the splits are not this one of `RELEASES`."""
    if found := _differences(release, counts):
        raise BadInput(f"this is not {_DESCRIPTIONS[release]}: {'; '.join(found)}")


def _differences(release: str, counts: Mapping[str, SplitCounts]) -> list[str]:
    found = []
    for split, have in counts.items():
        if split not in RELEASES[release]:
            found.append(f"it has no split {split}")
            continue
        numbers = [have.posts, have.words, *(have.starts[kind] for kind in TWITTER_TYPES)]
        for what, number, wanted in zip(_COUNTED, numbers, RELEASES[release][split], strict=True):
            if number != wanted:
                found.append(f"{split} has {number} {what}, not {wanted}")
    return found
