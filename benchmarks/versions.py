"""Run the tests with the lowest or the newest versions of the dependencies that pyproject.toml allows.

    pip install uv
    python -m benchmarks.versions --python 3.10 --resolution lowest-direct
    python -m benchmarks.versions --python 3.13 --resolution highest tests/test_hub.py

The environment is fresh, lies in a temporary folder (about 6 GB) and is removed. A run of the whole suite is stored as
a row of docs/reliability.md, to be written by docs/render.py before the next run; with arguments for pytest (files,
-k …) it is a trial and stored nowhere.
"""

import argparse
import json
import os
import re
import shutil
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from xml.etree import ElementTree

ROOT = Path(__file__).parents[1]
RESOLUTIONS = {"lowest-direct": "lowest", "highest": "newest"}
IN_THE_ENVIRONMENT = """
import json, sys
from importlib.metadata import distributions, requires, version
from re import match
from benchmarks.record import write_reliability

row = json.loads(sys.argv[1])
direct = sorted({match(r"[\\w-]+", line)[0] for line in requires("modeling_umgf")} - {"modeling_umgf", "modeling-umgf"})
installed = {distribution.name.lower().replace("_", "-") for distribution in distributions()}
row["measured"] |= {name: version(name) for name in direct if name in installed}
print(write_reliability(**row))
"""
"""Writes the row: versions are those of the environment that was tested."""


def main(arguments: list[str] | None = None) -> int:
    """Make the environment, run the tests in it, store the row."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--python", default="3.10", help="version, or path of an interpreter, as uv takes it")
    parser.add_argument("--resolution", choices=RESOLUTIONS, default="lowest-direct")
    parser.add_argument("--workers", default="2", help="processes that run tests")
    options, for_pytest = parser.parse_known_args(arguments)
    uv = shutil.which("uv")
    if uv is None:
        sys.exit('This command needs uv: pip install "uv"')

    with tempfile.TemporaryDirectory(prefix="versions-") as folder:
        python = Path(folder) / "env" / "bin" / "python"
        # wheels only, else old versions are compiled where a newer one has a wheel; seqeval never had one
        wheels = ["--only-binary", ":all:", "--no-binary", "seqeval"]
        subprocess.run([uv, "venv", "--python", options.python, python.parents[1]], check=True)
        install = [uv, "pip", "install", "--python", python, "--resolution", options.resolution]
        subprocess.run([*install, *wheels, "-e", f"{ROOT}[dev]"], check=True)
        environment = os.environ | {"PATH": f"{python.parent}{os.pathsep}{os.environ['PATH']}", "PYTHONPATH": str(ROOT)}
        report = Path(folder) / "report.xml"
        begin = time.monotonic()
        tests = [python, "-m", "pytest", "-n", options.workers, f"--junitxml={report}", *for_pytest]
        status = subprocess.run(tests, cwd=ROOT, env=environment).returncode
        seconds = time.monotonic() - begin
        if for_pytest or not report.exists():  # a trial, or pytest did not come to its end
            return status
        suite = ElementTree.parse(report).find("testsuite")
        count = {name: int(suite.get(name)) for name in ("tests", "failures", "errors", "skipped")}
        version = subprocess.check_output([python, "--version"], text=True).split()[1]
        short = re.match(r"\d+\.\d+", version)[0]
        which = RESOLUTIONS[options.resolution]
        row = {
            "name": f"versions_{short}_{options.resolution}",
            "tried": f"all tests on Python {short} with the {which} version of every dependency",
            "cases": count["tests"] - count["skipped"],
            "lost": count["failures"] + count["errors"],
            "seconds": seconds,
            "measured": {"skipped": count["skipped"]},
        }
        subprocess.run([python, "-c", IN_THE_ENVIRONMENT, json.dumps(row)], cwd=ROOT, env=environment, check=True)
    return status


if __name__ == "__main__":
    sys.exit(main())
