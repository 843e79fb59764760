"""Train R-GCN on the relation contrast tweets with both relations, each alone, neither, and without the gate.

    python -m benchmarks.relation_contrast_tweets

makes the data in data/relation_contrast_tweets if they are not there.
"""

import json
import subprocess
import sys
import time
from pathlib import Path

import yaml

from .record import write_result

ROOT = Path(__file__).parents[1]
SETTINGS = ROOT / "dataset_scripts" / "relation_contrast_tweets.yaml"
VARIANTS = {
    "both relations": {},
    "inter-modal alone": {"use_intra": False},
    "intra-modal alone": {"use_inter": False},
    "neither": {"use_inter": False, "use_intra": False},
    "both, without gate": {"use_gate": False},
}


def main() -> None:
    settings = yaml.safe_load(SETTINGS.read_text())
    begin = time.time()
    if not (ROOT / settings["dataset_name"]).exists():
        command = ["-m", "dataset_scripts.relation_contrast_tweets", "--output_dir", "data/relation_contrast_tweets"]
        subprocess.run([sys.executable, *command], cwd=ROOT, check=True)
    rows = []
    for name, overrides in VARIANTS.items():
        folder = ROOT / settings["output_dir"] / "_".join(overrides or ["both"])
        command = ["train_umgf.py", str(SETTINGS), "--output_dir", str(folder)]
        command += ["--config_overrides", json.dumps(settings["config_overrides"] | overrides)]
        subprocess.run([sys.executable, *command], cwd=ROOT, check=True)
        scores = json.loads((folder / "all_results.json").read_text())
        row = {key: round(scores[f"test_{key}"], 2) for key in ("f1", "f1_low", "f1_high", "precision", "recall")}
        rows.append({"relations": name, **row, "training_seconds": round(scores["train_runtime"], 1)})
        print(rows[-1])
    print(write_result("relation_contrast_tweets", {"settings": settings}, {"test": rows}, time.time() - begin))


if __name__ == "__main__":
    main()
