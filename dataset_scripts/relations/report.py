"""What was found: how many neighbours, how similar, and how often the same few pictures."""

import json
import logging
from collections import Counter
from collections.abc import Sequence

import numpy as np

from .post_pictures import PostPictures

logger = logging.getLogger(__name__)


def hubness(neighbors: Sequence[Sequence[dict]]) -> dict[str, float | int]:
    """How unevenly pictures are found: share of slots taken by the ten most frequent, and how many ever occur."""
    counts = Counter(one["id"] for row in neighbors for one in row)
    slots = counts.total()
    top = sum(count for _, count in counts.most_common(10))
    return {"slots": slots, "top10_share": round(top / max(slots, 1), 4), "distinct_pictures": len(counts)}


def describe(
    neighbors: Sequence[Sequence[dict]], ids: Sequence[str], pictures: PostPictures, hashes: Sequence[str | None]
) -> dict:
    """Return the report on one relation of one split.

    Args:
        neighbors: of each post.
        ids: the posts.
        pictures, hashes: all pictures, and the content hash of each, by which copies are told.
    """
    content = dict(zip(pictures.ids, hashes, strict=True))
    scores = [one["score"] for row in neighbors for one in row]
    self_hits = 0
    copy_hits = 0
    for post, row in zip(ids, neighbors, strict=True):
        others = [one["id"] for one in row if one["id"] != post]
        self_hits += len(row) - len(others)
        if content.get(post) is not None:
            copy_hits += sum(content.get(other) == content[post] for other in others)
    return {
        "posts": len(neighbors),
        "empty_rows": sum(not row for row in neighbors),
        "self_hits": self_hits,
        "copy_hits": copy_hits,
        **hubness(neighbors),
        "mean_score": round(float(np.mean(scores)), 4) if scores else None,
        "score_histogram": np.histogram(scores, bins=10, range=(0, 1))[0].tolist(),
    }


def log_report(report: dict) -> None:
    """Say in a few lines what the report holds."""
    for relation, splits in report["relations"].items():
        for name, found in splits.items():
            logger.info(
                "%s, %s: %d of %d posts without neighbours; ten pictures take %.1f %% of %d slots, %d ever occur; "
                "self hits %d; scores in tenths %s",
                relation,
                name,
                found["empty_rows"],
                found["posts"],
                100 * found["top10_share"],
                found["slots"],
                found["distinct_pictures"],
                found["self_hits"],
                found["score_histogram"],
            )
    for name, ids in report.get("lost_posts", {}).items():
        if ids:
            logger.info("%s: the authors' file lost %d posts: %s", name, len(ids), ", ".join(ids))


def card_text(report: dict) -> str:
    """The description of the dataset in its card."""
    return "Neighbours for R-GCN. How they were found:\n\n```json\n" + json.dumps(report, indent=1) + "\n```"
