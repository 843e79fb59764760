"""How soon the first post is tagged, and whether a second process of the tag command is worth it.

    python -m benchmarks.start_up --encoder sentence-transformers/all-MiniLM-L6-v2 --posts posts.jsonl

Beside the command stand transformers' own pipeline on the same encoder, and what torch and transformers need to be
imported at all, which no command that runs a model can go below. All are fresh processes, in turn.
"""

import argparse
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from statistics import median

from .pipeline_speed import both_pipelines
from .record import write_result

IMPORTS = "import transformers.modeling_utils, transformers.models.bert.modeling_bert; print(flush=True)"
THEIRS = """
from transformers import pipeline
tagger = pipeline("token-classification", model="theirs", aggregation_strategy="simple", device="cpu")
print(tagger("Anna meets Bob in Rome"), flush=True)
"""


def seconds_to_line(command: list[str], folder: Path) -> tuple[float, float]:
    """Run a command; returns the seconds to the first line that it prints, and to its end."""
    begin = time.perf_counter()
    process = subprocess.Popen(command, cwd=folder, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL)
    process.stdout.readline()
    first = time.perf_counter() - begin
    process.stdout.read()
    if process.wait():
        raise SystemExit(f"{' '.join(command)} ended with {process.returncode}")
    return first, time.perf_counter() - begin


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--encoder", required=True, help="folder or Hub id of a text encoder")
    parser.add_argument("--posts", required=True, type=Path, help="a file of posts, as the command tag reads them")
    parser.add_argument("--count", type=int, default=1000, help="posts that are read")
    parser.add_argument("--rounds", type=int, default=3)
    arguments = parser.parse_args()
    begin = time.time()
    with tempfile.TemporaryDirectory() as folder:
        folder = Path(folder)
        theirs, ours = both_pipelines(arguments.encoder)
        theirs.save_pretrained(folder / "theirs")
        ours.save_pretrained(folder / "ours")
        lines = arguments.posts.read_text(encoding="utf-8").splitlines(keepends=True)
        lines = (lines * (arguments.count // len(lines) + 1))[: arguments.count]
        (folder / "posts.jsonl").write_text("".join(lines), encoding="utf-8")
        tag = [sys.executable, "-m", "modeling_umgf", "tag", "posts.jsonl", "--model", "ours", "--output", "-"]
        commands = {
            "imports of torch and transformers": [sys.executable, "-c", IMPORTS],
            "transformers' pipeline, one post": [sys.executable, "-c", THEIRS],
            "tag, one process": tag,
            "tag, two processes": [*tag, "--num_proc", "2"],
        }
        seconds = {name: [] for name in commands}
        for turn in range(arguments.rounds + 1):
            for name, command in commands.items():
                took = seconds_to_line(command, folder)
                if turn:  # before that, files come from the disk
                    seconds[name].append(took)
    results = {}
    for name, took in seconds.items():
        first, whole = (median(column) for column in zip(*took, strict=True))
        results[name] = {"seconds_to_first_line": round(first, 2), "seconds": round(whole, 2)}
    configuration = {"encoder": Path(arguments.encoder).name, "posts": arguments.posts.name, "count": len(lines)}
    configuration |= {"device": "cpu", "rounds": arguments.rounds}
    print(write_result("start_up", configuration, results, time.time() - begin))
    for name, row in results.items():
        print(f"{name}: {row}")


if __name__ == "__main__":
    main()
