"""What a split holds, in numbers."""

from collections import Counter
from dataclasses import dataclass, field

from datasets import Dataset

from .labels import entity_spans


@dataclass
class SplitCounts:
    """Numbers of one split.

    Args:
        posts: rows.
        words: of all posts.
        pictures: posts with a picture, or with what was seen in one where the pictures are not there.
        starts: B- tags by type.
        entities: names, as seqeval counts them: an I- that continues nothing opens one.
        orphans: I- tags that continue nothing, by type.
        orphan_kinds: the same by what comes before: "O->I", "B-x->I-y", "I-x->I-y".
    """

    posts: int = 0
    words: int = 0
    pictures: int = 0
    starts: Counter = field(default_factory=Counter)
    entities: int = 0
    orphans: Counter = field(default_factory=Counter)
    orphan_kinds: Counter = field(default_factory=Counter)


def count_split(split: Dataset) -> SplitCounts:
    """Count posts, words, pictures, entities and orphan I- tags of a split with the column `ner_tags`."""
    counts = SplitCounts(posts=len(split), pictures=_count_pictures(split))
    for tags in tag_names(split):
        counts.words += len(tags)
        counts.entities += len(entity_spans(tags))
        before = "O"
        for tag in tags:
            if tag.startswith("B-"):
                counts.starts[tag[2:]] += 1
            elif continues_nothing(before, tag):
                counts.orphans[tag[2:]] += 1
                counts.orphan_kinds["O->I" if before == "O" else f"{before[0]}-x->I-y"] += 1
            before = tag
    return counts


def tag_names(split: Dataset) -> list[list[str]]:
    """The tags of every post as strings."""
    names = split.features["ner_tags"].feature.names
    return [[names[tag] for tag in tags] for tags in split["ner_tags"]]


def continues_nothing(before: str, tag: str) -> bool:
    """Whether a tag is an I- that the tag before it (O at the beginning of a post) doesn't lead to."""
    return tag.startswith("I-") and before[1:] != tag[1:]


def _count_pictures(split: Dataset) -> int:
    """Rows with an image; without this column, rows with features or boxes of objects."""
    for name in ("image", "object_features", "objects"):
        if name in split.features:
            batches = split.select_columns(name).with_format("arrow").iter(batch_size=100)
            return sum(len(batch) - batch[name].null_count for batch in batches)
    return 0
