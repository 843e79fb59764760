"""How benchmarks compare: everything in turn in one process, again and again; a busy machine then slows all alike."""

import time
from collections.abc import Callable
from statistics import median


def side_by_side(
    functions: dict[str, Callable[[], object]],
    rounds: int,
    repeats: int = 1,
    clock: Callable[[], float] = time.process_time,
    warm_up: bool = True,
) -> dict[str, float]:
    """Time functions in turn.

    Args:
        functions: what to time, by name.
        rounds: how often all have their turn.
        repeats: calls in a turn.
        clock: what counts the seconds; default: those of the processor, for work on one core.
        warm_up: call each once before, uncounted.

    Returns:
        For each the median over the rounds of the seconds of a call.
    """
    seconds = {name: [] for name in functions}
    for function in functions.values() if warm_up else ():
        function()
    for _ in range(rounds):
        for name, function in functions.items():
            begin = clock()
            for _ in range(repeats):
                function()
            seconds[name].append((clock() - begin) / repeats)
    return {name: median(own) for name, own in seconds.items()}
