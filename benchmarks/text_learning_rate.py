"""Which learning rate the text encoder should have: text-only taggers of real posts at several rates.

    python -m benchmarks.text_learning_rate --data_dir data/twitter2017 --text_model MiniLM

Only the validation split is looked at. Finished runs are not run again.
"""

import argparse
import json
import statistics
import subprocess
import sys
import time
from dataclasses import asdict, dataclass
from pathlib import Path

from .record import write_result

ROOT = Path(__file__).parents[1]


@dataclass(frozen=True)
class Length:
    """A length of training, and how thoroughly it is looked at."""

    settings: tuple[str, ...]
    rates: tuple[str, ...]
    seeds: tuple[int, ...]


LENGTHS = {
    "600 posts, 4 epochs": Length(
        ("--max_train_samples", "600", "--num_train_epochs", "4"), ("3e-5", "5e-5", "1e-4", "2e-4", "3e-4"), (1, 2, 3)
    ),
    "all posts, 3 epochs": Length(("--num_train_epochs", "3"), ("3e-5", "1e-4", "2e-4"), (1,)),
}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data_dir", type=Path, required=True, help="folder with train.txt and valid.txt")
    parser.add_argument("--text_model", required=True, help="pretrained text encoder")
    parser.add_argument("--runs_dir", type=Path, default=Path("runs"), help="folder of the trained models")
    arguments = parser.parse_args()

    rows = []
    begin = time.time()
    for name, length in LENGTHS.items():
        for rate in length.rates:
            scores = [validation_f1(arguments, length.settings, rate, seed) for seed in length.seeds]
            mean = round(statistics.mean(scores), 2)
            deviation = round(statistics.stdev(scores), 2) if len(scores) > 1 else None
            row = {"run": name, "text learning rate": rate, "validation F1": mean, "deviation": deviation}
            rows.append(row | {"seeds": len(scores)})
            print(rows[-1], flush=True)
    configuration = {
        "command": "python -m benchmarks.text_learning_rate --data_dir data/twitter2017 --text_model "
        f"{arguments.text_model.rstrip('/').rpartition('/')[2]}",
        "lengths": {name: asdict(length) for name, length in LENGTHS.items()},
    }
    print(write_result("text_learning_rate", configuration, rows, time.time() - begin))


def validation_f1(arguments: argparse.Namespace, settings: tuple[str, ...], rate: str, seed: int) -> float:
    """Train once, unless that was done before, and return the F1 of the validation split."""
    folder = arguments.runs_dir / "_".join(["rate", rate, *settings[1::2], "seed", str(seed)])
    finished = folder / "validation_results.json"
    if not finished.exists():
        command = ["--text_only", "--text_model", arguments.text_model, "--output_dir", str(folder)]
        command += ["--train_file", str(arguments.data_dir / "train.txt")]
        command += ["--validation_file", str(arguments.data_dir / "valid.txt")]
        command += ["--text_learning_rate", rate, "--seed", str(seed), "--bf16", "True", "--resume_from_checkpoint"]
        subprocess.run([sys.executable, str(ROOT / "train_umgf.py"), *command, "True", *settings], check=True)
    return json.loads(finished.read_text())["validation_f1"]


if __name__ == "__main__":
    main()
