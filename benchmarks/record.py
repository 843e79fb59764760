"""Where results are stored, with versions and machine: benchmarks/results/<name>.json, and reliability/<name>.json."""

import json
import os
import platform
import subprocess
import time
from collections.abc import Sequence
from importlib.metadata import version
from pathlib import Path
from typing import Any

from modeling_umgf.files import write_whole

RESULTS = Path(__file__).parent / "results"
RECIPE_RESULTS = RESULTS / "recipes"
RELIABILITY = Path(__file__).parent / "reliability"
PACKAGES = ("torch", "transformers", "datasets", "accelerate", "timm")


def machine() -> str:
    """Return processor and number of cores, e.g. "Intel(R) Xeon(R) CPU, 2 cores"."""
    names = [line.split(":")[1].strip() for line in open("/proc/cpuinfo") if line.startswith("model name")]
    return f"{names[0] if names else platform.processor()}, {len(os.sched_getaffinity(0))} cores"


def commit() -> str | None:
    """The commit of this checkout, with a + where files differ from it; None where it is none."""
    git = ["git", "-C", str(Path(__file__).parent), "describe", "--always", "--abbrev=12", "--exclude", "*"]
    try:
        run = subprocess.run([*git, "--dirty=+"], capture_output=True, text=True)
    except OSError:
        return None
    return run.stdout.strip() or None


def read_stored(path: Path, keys: Sequence[str] = ()) -> dict[str, Any]:
    """Read a JSON file that was stored here.

    Args:
        path: the file.
        keys: what it must have, such as "results".

    Raises:
        ValueError: it is damaged.
    """
    try:
        stored = json.loads(path.read_text(encoding="utf-8"))
    except ValueError as error:
        raise ValueError(f"{path}: is damaged ({error}); delete it, and make it again") from error
    if not isinstance(stored, dict) or not stored.keys() >= set(keys):
        raise ValueError(f"{path}: is damaged, or something else; delete it, and make it again")
    return stored


def read_result(path: Path) -> dict[str, Any]:
    """Read what `write_result` wrote; see `read_stored`."""
    return read_stored(path, ("configuration", "results", "seconds"))


def write_result(
    name: str,
    configuration: dict,
    results: dict,
    seconds: float,
    packages: tuple[str, ...] = (),
    folder: Path | None = None,
) -> Path:
    """Write one benchmark's result.

    Args:
        name: file name without ending; it may have folders.
        configuration: what was run: settings, data, seeds.
        results: what came out.
        seconds: wall time.
        packages: packages whose versions matter besides those of every run.
        folder: where results lie; default: `RESULTS`.
    """
    result = {"configuration": configuration, "results": results, "seconds": round(seconds, 1)}
    return _write((folder or RESULTS) / f"{name}.json", result, packages)


def write_reliability(
    name: str,
    tried: str,
    cases: int,
    lost: int,
    seconds: float,
    measured: dict[str, str | int | float] | None = None,
    packages: tuple[str, ...] = (),
) -> Path:
    """Write one row of docs/reliability.md; to be called before anything is asserted, whatever came out.

    Args:
        name: file name without ending; rows are ordered by it.
        tried: what was done to the package, in a sentence.
        cases: how often.
        lost: in how many cases something was lost, wrong or not said.
        seconds: wall time.
        measured: what else was measured: a few words -> a number or words.
        packages: packages whose versions matter besides those of every run.
    """
    row = {"tried": tried, "cases": cases, "lost": lost, "seconds": round(seconds, 1), "measured": measured or {}}
    return _write(RELIABILITY / f"{name}.json", row, packages)


def _write(path: Path, result: dict, packages: tuple[str, ...]) -> Path:
    """Write a result, and after it where and when it was made."""
    result |= {
        "machine": machine(),
        "python": platform.python_version(),
        "versions": {package: version(package) for package in (*PACKAGES, *packages)},
        "commit": commit(),
        "date": time.strftime("%Y-%m-%d", time.gmtime()),
    }
    with write_whole(path) as file:
        file.write_text(json.dumps(result, indent=2, ensure_ascii=False) + "\n", encoding="utf-8")
    return path
