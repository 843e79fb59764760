"""What a split holds, in numbers."""

from collections import Counter
from dataclasses import dataclass, field

from datasets import Dataset

from modeling_umgf.labels import entity_spans


@dataclass
class SplitCounts:
    """Numbers of one split; `starts` counts B- tags, `entities` also what an orphan I- opens (lenient, as seqeval)."""

    tweets: int = 0
    words: int = 0
    pictures: int = 0
    starts: Counter = field(default_factory=Counter)
    entities: int = 0
    orphans: Counter = field(default_factory=Counter)  # I- that continues nothing, by type
    orphan_kinds: Counter = field(default_factory=Counter)  # by what comes before: O->I, B-x->I-y, I-x->I-y

    def as_dict(self) -> dict:
        """Plain numbers, for JSON."""
        return {name: dict(value) if isinstance(value, Counter) else value for name, value in vars(self).items()}


def tag_names(dataset: Dataset) -> list[list[str]]:
    """The tags of every tweet as strings."""
    names = dataset.features["ner_tags"].feature.names
    return [[names[tag] for tag in tags] for tags in dataset["ner_tags"]]


def count_split(dataset: Dataset) -> SplitCounts:
    """Count tweets, words, pictures, entities and orphan I- tags of one split."""
    counts = SplitCounts(tweets=len(dataset))
    for tags in tag_names(dataset):
        counts.words += len(tags)
        counts.entities += len(entity_spans(tags))
        for before, tag in zip(["O", *tags], tags, strict=False):
            if tag.startswith("B-"):
                counts.starts[tag[2:]] += 1
            elif tag.startswith("I-") and before[1:] != tag[1:]:
                counts.orphans[tag[2:]] += 1
                counts.orphan_kinds["O->I" if before == "O" else f"{before[0]}-x->I-y"] += 1
    if "image" in dataset.features:
        for batch in dataset.select_columns("image").with_format("arrow").iter(batch_size=100):
            counts.pictures += len(batch) - batch["image"].null_count
    return counts
