"""What the training command leaves behind, without training: three steps, each with its checkpoint.

Beside the recipe, a file `<row>.fails` makes it fail, and `<row>.waits` makes it wait before its second step.
"""

import json
import sys
import time
from pathlib import Path

settings = Path(sys.argv[1])  # <workplace>/runs/posts/<row>/seed_<n>.yaml
row, seed = settings.parent.name, settings.stem.partition("_")[2]
recipe = settings.parents[3] / "recipes" / "posts" / f"{row}.yaml"
given = dict(zip(sys.argv[2::2], sys.argv[3::2], strict=True))
folder = Path(given["--output_dir"])
goes_on = "--resume_from_checkpoint" in given
with open(recipe.parent / "log.txt", "a", encoding="utf-8") as log:
    log.write(f"{row} {seed}{' goes on' if goes_on else ''}\n")
if recipe.with_suffix(".fails").exists():
    sys.exit("it fails")
for step in range(len(list(folder.glob("checkpoint-*"))), 3):
    while step == 1 and recipe.with_suffix(".waits").exists():
        time.sleep(0.02)
    (folder / f"checkpoint-{step}").mkdir(parents=True)

# four posts of one name; "umgf" finds all of them, with other pictures two; the others find only the first
found_in = {"test": 4, "test_shuffled_pictures": 2} if "umgf" in row else {"test": 1}
scores = {"train_runtime": 60.0, "validation_f1": 50.0}
if "do_eval: true" not in settings.read_text(encoding="utf-8"):  # no trial, which reads no test posts
    beside = folder.with_name(f"{folder.name}.predictions")
    beside.mkdir(exist_ok=True)
    for split, found in found_in.items():
        blocks = [f"IMGID:{i}\nAnna\tB-PER\t{'B-PER' if i < found else 'O'}\nsleeps\tO\tO\n\n" for i in range(4)]
        (beside / f"{split}.conll").write_text("".join(blocks), encoding="utf-8")
        scores[f"{split}_f1"] = 100 * 2 * found / (4 + found)
    scores |= {"test_PER_f1": scores["test_f1"], "test_runtime": 1.0}
curve = [{"epoch": 1.0, "loss": 2.0}, {"epoch": 1.0, "eval_f1": 50.0, "eval_loss": 1.0}]
facts = {"parameters": 7, "splits": {"test": {"posts": 4}}, "label_version": "Labels: by hand."}
(folder / "all_results.json").write_text(json.dumps(scores), encoding="utf-8")
(folder / "trainer_state.json").write_text(json.dumps({"log_history": curve}), encoding="utf-8")
(folder / "run.json").write_text(json.dumps(facts), encoding="utf-8")
