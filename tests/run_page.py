"""Execute the code blocks of one page in their order: Python in one namespace, shell commands in the same folder.

A Python block whose first line is a comment with a file name is saved under this name.

Starting Python takes longer than most blocks. So the processes of a page are forks of one that has loaded the libraries
(but nothing of this project, so that a page must import what it uses).
"""

import json
import multiprocessing
import os
import re
import runpy
import shlex
import subprocess
import sys
from multiprocessing.connection import Connection
from pathlib import Path

LIBRARIES = ["torch", "torchvision", "timm", "datasets", "evaluate", "transformers.trainer", "transformers.pipelines"]
FORKS = multiprocessing.get_context("forkserver")


def main(listing: str) -> None:
    FORKS.set_forkserver_preload(LIBRARIES)
    page, other_end = FORKS.Pipe()
    namespace = FORKS.Process(target=run_blocks, args=(other_end,), daemon=True)
    for language, place, code in json.loads(Path(listing).read_text(encoding="utf-8")):
        print(f"--- {place}", file=sys.stderr, flush=True)
        if language == "python" and (file := re.match(r"# (\w+\.py)\n", code)):  # the page says: save this
            Path(file[1]).write_text(code, encoding="utf-8")
        elif language == "python":
            if namespace.pid is None:
                namespace.start()
                other_end.close()
            page.send((place, code))
            try:
                page.recv()
            except EOFError:
                sys.exit(f"{place}: failed")
        elif not all(map(run_command, code.replace("\\\n", "").splitlines())):
            sys.exit(f"{place}: failed")


def run_blocks(page: Connection) -> None:
    """Execute the Python blocks of the page as they come."""
    sys.path.insert(0, "")
    namespace = {"__name__": "page"}
    while True:
        place, code = page.recv()
        exec(compile(code, place, "exec"), namespace)
        page.send("done")


def run_command(line: str) -> bool:
    """Run one shell command; returns whether it succeeded."""
    if not re.match(r"python (-m )?\w", line) or re.search(r"[|&;<>$`]", line):
        return subprocess.run(["bash", "-euo", "pipefail", "-c", line]).returncode == 0
    process = FORKS.Process(target=run_python, args=(shlex.split(line, comments=True)[1:],))
    process.start()
    process.join()
    return process.exitcode == 0


def run_python(arguments: list[str]) -> None:
    """Do what `python` does with these arguments."""
    if arguments[0] == "-m":
        sys.argv = arguments[1:]
        sys.path.insert(0, os.getcwd())
        runpy.run_module(arguments[1], run_name="__main__", alter_sys=True)
    else:
        sys.argv = arguments
        sys.path.insert(0, str(Path(arguments[0]).parent.resolve()))
        runpy.run_path(arguments[0], run_name="__main__")


if __name__ == "__main__":
    main(sys.argv[1])
