"""Tables in Markdown, and how scores over seeds are written in them."""

import statistics
from collections.abc import Iterable, Sequence
from typing import Any


def table(header: Iterable[Any], rows: Iterable[Iterable[Any]]) -> str:
    header = list(header)
    lines = [header, ["---"] * len(header)] + list(rows)
    return "\n".join(f"| {' | '.join(map(str, line))} |" for line in lines)


def with_deviation(mean: float | None, deviation: float | None) -> str:
    if mean is None:
        return ""
    return f"{mean:.2f}" + ("" if deviation is None else f" ± {deviation:.2f}")


def over_seeds(values: Sequence[float]) -> str:
    """Mean and standard deviation; of one value the value alone."""
    return with_deviation(statistics.mean(values), statistics.stdev(values) if len(values) > 1 else None)
