"""Where every benchmark stores its result: benchmarks/results/<name>.json with configuration, versions and machine."""

import json
import os
import platform
import subprocess
import time
from importlib.metadata import version
from pathlib import Path

from modeling_umgf.files import write_whole

RESULTS = Path(__file__).parent / "results"
RECIPE_RESULTS = RESULTS / "recipes"
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


def write_result(
    name: str,
    configuration: dict,
    results: dict,
    seconds: float,
    packages: tuple[str, ...] = (),
    folder: Path = RESULTS,
) -> Path:
    """Write one benchmark's result.

    Args:
        name: file name without ending; it may have folders.
        configuration: what was run: settings, data, seeds.
        results: what came out.
        seconds: wall time.
        packages: packages whose versions matter besides those of every run.
        folder: where results lie.
    """
    result = {
        "configuration": configuration,
        "results": results,
        "seconds": round(seconds, 1),
        "machine": machine(),
        "python": platform.python_version(),
        "versions": {package: version(package) for package in (*PACKAGES, *packages)},
        "commit": commit(),
        "date": time.strftime("%Y-%m-%d", time.gmtime()),
    }
    path = folder / f"{name}.json"
    with write_whole(path) as file:
        file.write_text(json.dumps(result, indent=2) + "\n", encoding="utf-8")
    return path
