"""Where every benchmark stores its result: benchmarks/results/<name>.json with configuration, versions and machine."""

import json
import os
import platform
import time
from importlib.metadata import version
from pathlib import Path

RESULTS = Path(__file__).parent / "results"
PACKAGES = ("torch", "transformers", "datasets", "accelerate", "timm")


def machine() -> str:
    """Return processor and number of cores, e.g. "Intel(R) Xeon(R) CPU, 2 cores"."""
    names = [line.split(":")[1].strip() for line in open("/proc/cpuinfo") if line.startswith("model name")]
    return f"{names[0] if names else platform.processor()}, {len(os.sched_getaffinity(0))} cores"


def write_result(name: str, configuration: dict, results: dict, seconds: float, packages: tuple[str, ...] = ()) -> Path:
    """Write one benchmark's result.

    Args:
        name: file name without ending.
        configuration: what was run: settings, data, seeds.
        results: what came out.
        seconds: wall time.
        packages: packages whose versions matter besides those of every run.
    """
    RESULTS.mkdir(exist_ok=True)
    result = {
        "configuration": configuration,
        "results": results,
        "seconds": round(seconds, 1),
        "machine": machine(),
        "python": platform.python_version(),
        "versions": {package: version(package) for package in (*PACKAGES, *packages)},
        "date": time.strftime("%Y-%m-%d", time.gmtime()),
    }
    path = RESULTS / f"{name}.json"
    path.write_text(json.dumps(result, indent=2) + "\n")
    return path
