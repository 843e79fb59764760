"""Train with several seeds and store the scores with their mean and deviation.

    python -m benchmarks.run_seeds NAME SETTINGS.yaml --seeds 1 2 3 [-- any argument of train_umgf.py]

Finished seeds are not run again.
"""

import argparse
import json
import re
import shlex
import statistics
import subprocess
import sys
import time
from pathlib import Path

import yaml

from .record import write_result

ROOT = Path(__file__).parents[1]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("name", help="name of the result: benchmarks/results/NAME.json")
    parser.add_argument("settings", help="YAML file of train_umgf.py")
    parser.add_argument("--seeds", type=int, nargs="+", default=[1, 2, 3])
    parser.add_argument("--runs_dir", default="runs", help="folder of the trained models")
    own = sys.argv[1 : sys.argv.index("--")] if "--" in sys.argv else sys.argv[1:]
    extra = sys.argv[len(own) + 2 :]
    arguments = parser.parse_args(own)

    runs = {}
    seconds = 0.0
    for seed in arguments.seeds:
        folder = Path(arguments.runs_dir, f"{arguments.name}_seed{seed}")
        finished = folder / "finished.json"
        if not finished.exists():
            command = ["train_umgf.py", arguments.settings, "--seed", str(seed), "--output_dir", str(folder), *extra]
            start = time.time()
            subprocess.run([sys.executable, str(ROOT / command[0]), *command[1:]], check=True)
            facts = json.loads((folder / "run.json").read_text())  # what the model card is made of, scores included
            finished.write_text(json.dumps({"facts": facts, "seconds": time.time() - start}))
        run = json.loads(finished.read_text())
        runs[seed] = run["facts"]
        seconds = seconds + run["seconds"]

    first = runs[arguments.seeds[0]]["results"]
    test_scores = {key: [facts["results"][key] for facts in runs.values()] for key in first if "f1" in key}
    results = {
        "mean": {key: round(statistics.mean(values), 2) for key, values in test_scores.items()},
        "deviation": {
            key: round(statistics.stdev(values), 2) for key, values in test_scores.items() if len(values) > 1
        },
        "runs": list(runs.values()),
    }
    settings = yaml.safe_load(Path(arguments.settings).read_text())
    # no folders of this machine
    arguments_given = [re.sub(r'(?<![^\s"])(\.\.)?/(?:[^\s"/]+/)*', "", value) for value in extra]
    command = [arguments.name, arguments.settings, "--seeds", *map(str, arguments.seeds)]
    command += ["--", *arguments_given] if arguments_given else []
    configuration = {
        "command": f"python -m benchmarks.run_seeds {shlex.join(command)}",
        "settings": settings,
        "arguments": arguments_given,
        "seeds": arguments.seeds,
    }
    print(write_result(arguments.name, configuration, results, seconds))


if __name__ == "__main__":
    main()
