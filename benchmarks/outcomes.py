"""What a run made of every test post, in numbers that are stored with its scores: no words and no tags.

From them alone the intervals and the tests of compare_recipes.py are computed, whoever holds the predictions.
"""

import statistics
from collections import Counter
from collections.abc import Iterable
from hashlib import blake2b
from pathlib import Path
from typing import Any

import numpy as np

from modeling_umgf.evaluation import Tags, run_counts
from modeling_umgf.labels import entity_spans

COUNTS = ("correct", "predicted", "gold")
OTHER_PICTURES = {"other_pictures": "test_shuffled_pictures", "no_pictures": "test_without_pictures"}


def outcomes(predictions: Path) -> dict[str, Any]:
    """What is stored of the predictions of a run.

    Args:
        predictions: their folder, with `test.conll`, and, where the run has them, the splits with other pictures.

    Returns:
        `posts`: of each test post, in their order, the numbers of entities that are `correct`, `predicted` and `gold`,
        and `entities`, a digest that is another one where a run finds others; `errors`, see `count_errors`;
        `changed_posts`: the share of posts, in %, in which other pictures or none change the entities.
    """
    gold, predicted = read_tags(predictions / "test.conll")
    counts = run_counts(gold, [predicted])[:, 0]
    posts = {kind: " ".join(map(str, column)) for kind, column in zip(COUNTS, counts.T, strict=True)}
    posts["entities"] = digests(predicted)
    changed = {}
    for change, split in OTHER_PICTURES.items():
        if (path := predictions / f"{split}.conll").exists():
            changed[change] = round(share_of_changed_posts(posts["entities"], digests(read_tags(path)[1])), 4)
    return {"posts": posts, "errors": count_errors(gold, predicted), "changed_posts": changed}


def counts_of(runs: Iterable[dict[str, str]]) -> np.ndarray:
    """The numbers of entities [posts, runs, 3] of the `posts` of runs."""
    return np.stack([[list(map(int, posts[kind].split())) for kind in COUNTS] for posts in runs]).transpose(2, 0, 1)


def digests(tags: Tags) -> str:
    """Four hexadecimal digits for the entities of each post; others for others, but for one case in 65,536."""
    return " ".join(blake2b(repr(entity_spans(own)).encode(), digest_size=2).hexdigest() for own in tags)


def share_of_changed_posts(entities: str, others: str) -> float:
    """In how many posts two runs find other entities, in %, from their digests."""
    return 100 * statistics.mean(one != other for one, other in zip(entities.split(), others.split(), strict=True))


def read_tags(path: Path) -> tuple[Tags, Tags]:
    """The gold and the predicted tags of each post of a file of predictions."""
    gold = []
    predicted = []
    for block in path.read_text(encoding="utf-8").split("\n\n"):
        words = [line.split("\t") for line in block.split("\n")[1:]]
        if words:
            gold.append([tags[-2] for tags in words])
            predicted.append([tags[-1] for tags in words])
    return gold, predicted


def count_errors(gold: Tags, predicted: Tags) -> dict[str, int]:
    """Count the gold entities, and what goes wrong.

    Returns:
        `entities`; of them those that were found with the wrong type (`type`), those that a wrong prediction overlaps
        (`boundary`) and the others that were not found (`missed`); `invented`, the predicted entities that overlap no
        gold one.
    """
    counts: Counter[str] = Counter(entities=0, type=0, boundary=0, missed=0, invented=0)
    for gold_tags, predicted_tags in zip(gold, predicted, strict=True):
        real = entity_spans(gold_tags)
        found = entity_spans(predicted_tags)
        counts["entities"] += len(real)
        for start, end, entity_type in real:
            over = [span for span in found if span[0] < end and start < span[1]]
            if (start, end, entity_type) not in over:
                same_words = any(span[:2] == (start, end) for span in over)
                counts["type" if same_words else "boundary" if over else "missed"] += 1
        for start, end, _ in found:
            counts["invented"] += not any(span[0] < end and start < span[1] for span in real)
    return dict(counts)
