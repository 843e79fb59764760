"""Train recipes with several seeds; each run's scores, curve and configuration become one JSON file.

    python -m benchmarks.run_recipes recipes/offline/twitter2017 --seeds 1 2 3
    python -m benchmarks.run_recipes recipes/offline/twitter2017/umgf*.yaml --seeds 1 2 3 --list

One seed of all recipes comes first, then the next. What has its file in benchmarks/results/recipes, with the settings
that the recipe has now, is not run again; a run that was stopped goes on from its last checkpoint. Predictions stay in
--runs_dir; what they made of each post is stored in numbers, from which the intervals and the tests against the
text-only twins are computed at the end. Several processes
may run the same list: each takes what no other is at. A recipe with `do_train` and `do_eval` alone is a trial, which
never reads the test posts.
"""

import argparse
import fcntl
import json
import os
import signal
import statistics
import subprocess
import sys
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NoReturn

import torch
import yaml

from modeling_umgf.files import remove, write_whole

from .compare_recipes import compare_all
from .outcomes import outcomes
from .recipes import Recipe
from .record import RECIPE_RESULTS, read_result, write_result

ROOT = Path(__file__).parents[1]
TRAIN = ROOT / "train_umgf.py"
NOT_SCORES = ("runtime", "per_second", "total_flos", "epoch", "loss")


@dataclass(frozen=True)
class Run:
    """A recipe with a seed.

    Args:
        recipe: the recipe.
        seed: of the run.
        runs_dir: where it trains.
        results_dir: where its result is stored.
    """

    recipe: Recipe
    seed: int
    runs_dir: Path
    results_dir: Path

    @property
    def name(self) -> str:
        return f"{self.recipe.name}/seed_{self.seed}"

    @property
    def folder(self) -> Path:
        """Where the model is while it trains; its predictions lie beside it."""
        return self.runs_dir / self.name

    @property
    def predictions(self) -> Path:
        """The folder of its predictions."""
        return self.folder.with_name(f"{self.folder.name}.predictions")

    @property
    def settings_file(self) -> Path:
        """What is trained with: a copy of the recipe, which may be edited in the meantime, with the seed."""
        return self.folder.with_name(f"{self.folder.name}.yaml")

    @property
    def result_file(self) -> Path:
        return self.results_dir / f"{self.name}.json"

    @property
    def settings(self) -> dict[str, Any]:
        return self.recipe.settings | {"seed": self.seed}

    def result(self) -> dict[str, Any] | None:
        """What was stored of this run, with whatever settings."""
        return read_result(self.result_file) if self.result_file.exists() else None

    def state(self) -> str:
        """done, or: changed (the recipe, since the run), stopped (in the middle), missing."""
        if result := self.result():
            return "done" if result["configuration"]["settings"] == self.settings else "changed"
        return "stopped" if self.can_go_on() else "missing"

    def can_go_on(self) -> bool:
        """Whether a run with these settings was started here."""
        if not self.settings_file.exists() or not self.folder.exists():
            return False
        try:
            return yaml.safe_load(self.settings_file.read_text(encoding="utf-8")) == self.settings
        except (yaml.YAMLError, UnicodeDecodeError):
            return False

    def seconds(self) -> float | None:
        result = self.result()
        return result and result["seconds"]


def main() -> None:
    arguments = _parser().parse_args()
    runs_dir, results_dir = Path(arguments.runs_dir), Path(arguments.results_dir)
    try:
        recipes = [Recipe.read(path) for path in files(arguments.recipes)]
        check_names(recipes)
        runs = [
            Run(recipe, seed, runs_dir, results_dir) for seed in dict.fromkeys(arguments.seeds) for recipe in recipes
        ]
        print(overview(runs), flush=True)
        if arguments.list:
            return
        for folder in (runs_dir, results_dir):
            folder.mkdir(parents=True, exist_ok=True)
    except (OSError, ValueError) as error:
        sys.exit(f"error: {error}")
    signal.signal(signal.SIGTERM, stop)  # and not by SIGINT, which is ignored in the background of a shell
    failed = []
    try:
        for i, run in enumerate(runs):
            if run.state() != "done":
                print(f"\n{run.name} ({i + 1} of {len(runs)})", flush=True)
                if not execute(run, arguments.keep_models):
                    failed.append(run.name)
    except KeyboardInterrupt:
        sys.exit(f"\nstopped in {run.name}; the same command goes on there")
    try:
        for line in compare_all(recipes, results_dir):
            print(line)
    except (OSError, ValueError) as error:  # of another recipe of the folder
        sys.exit(f"error: {error}. The runs are stored; benchmarks.compare_recipes makes their statistics.")
    if failed:
        sys.exit(f"\n{len(failed)} of {len(runs)} runs failed: {', '.join(failed)}")


def files(given: list[str]) -> list[Path]:
    """The recipes that are named, each once; of a folder all of them.

    Raises:
        ValueError: a folder has none.
    """
    found = []
    for path in map(Path, given):
        own = sorted(path.glob("*.yaml")) if path.is_dir() else [path]
        if not own or own[0].suffix != ".yaml":
            raise ValueError(f"{path}: is no recipe (.yaml), and no folder that has one")
        found += own
    return list({os.path.abspath(path): path for path in found}.values())


def check_names(recipes: list[Recipe]) -> None:
    """Raise ValueError where two recipes have one name, and so one place for their results."""
    paths: dict[str, Path] = {}
    for recipe in recipes:
        if recipe.name in paths:
            raise ValueError(f"{paths[recipe.name]} and {recipe.path} are both called {recipe.name}: rename one")
        paths[recipe.name] = recipe.path


def stop(*_: object) -> NoReturn:
    """End the run that trains, and this command."""
    raise KeyboardInterrupt


def execute(run: Run, keep_model: bool) -> bool:
    """Train, evaluate and store a run; False = it failed."""
    with locked(run.folder.with_name(f"{run.folder.name}.lock")) as lock:
        if lock is None:
            print("another process is at it", flush=True)
            return True
        if run.state() == "done":  # by another process, since this one looked
            return True
        goes_on = run.can_go_on()
        if not goes_on:
            remove(run.folder)
            remove(run.predictions)
            with write_whole(run.settings_file) as file:
                file.write_text(yaml.safe_dump(run.settings, sort_keys=False), encoding="utf-8")
        command = [sys.executable, str(TRAIN), str(run.settings_file), "--output_dir", str(run.folder)]
        command += ["--resume_from_checkpoint", "True"] if goes_on else []
        # the child holds the lock too, so that nobody trains beside it if this process is killed
        process = subprocess.Popen(command, pass_fds=[lock])
        try:
            failed = process.wait()
        except KeyboardInterrupt:
            process.terminate()
            process.wait()
            raise
        if failed:
            return False
        path = store(run)
        print(path, "" if keep_model else "(the model is removed; --keep_models keeps it)", flush=True)
        for checkpoint in run.folder.glob("checkpoint-*"):
            remove(checkpoint)
        if not keep_model:
            remove(run.folder)
        return True


@contextmanager
def locked(path: Path):
    """Hold a file so that no two processes train in one folder; gives its number, or None where another one has it."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with open(path, "w") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            yield None
            return
        yield file.fileno()


def store(run: Run) -> Path:
    """Write the result of a finished run."""
    scores, state, facts = (
        json.loads((run.folder / name).read_text(encoding="utf-8"))
        for name in ("all_results.json", "trainer_state.json", "run.json")
    )
    curve = []
    for entry in state["log_history"]:
        if "eval_f1" in entry:
            curve.append({"epoch": entry["epoch"], "f1": round(entry["eval_f1"], 4)})
    results = {
        "scores": {
            key: round(value, 4)
            for key, value in scores.items()
            if key.startswith(("validation", "test")) and not key.endswith(NOT_SCORES)
        },
        "curve": curve,
        "facts": {name: fact for name, fact in facts.items() if name != "results"},
    }
    if not run.recipe.is_trial:
        results |= outcomes(run.predictions)
    configuration = {"recipe": f"recipes/{run.recipe.name}.yaml", "about": run.recipe.about, "settings": run.settings}
    configuration["threads"] = int(os.environ.get("OMP_NUM_THREADS") or len(os.sched_getaffinity(0)))
    configuration["device"] = torch.cuda.get_device_name() if torch.cuda.is_available() else "CPU"
    return write_result(run.name, configuration, results, scores["train_runtime"], folder=run.results_dir)


def overview(runs: list[Run]) -> str:
    """A line for each run, and how long the missing ones take, judged by those that are there."""
    lines = []
    left = 0.0
    unknown = 0
    for run in runs:
        state = run.state()
        line = f"{run.name:60} {state:8}"
        if state == "done":
            split = "validation" if run.recipe.is_trial else "test"
            line += f" {split} F1 {run.result()['results']['scores'][f'{split}_f1']:.2f}"
        else:
            seconds = expected_seconds(run, runs)
            line += f" about {duration(seconds)}" if seconds else ""
            left += seconds or 0
            unknown += seconds is None
        lines.append(line)
    done = sum(run.state() == "done" for run in runs)
    summary = f"{done} of {len(runs)} runs are done"
    summary += f"; the others take about {duration(left)}" if left else ""
    summary += f"; of {unknown} nobody knows how long they take" if unknown else ""
    return "\n".join([*lines, summary])


def duration(seconds: float) -> str:
    hours, minutes = divmod(round(seconds / 60), 60)
    return f"{hours} h {minutes} min" if hours else f"{minutes} min"


def expected_seconds(run: Run, runs: list[Run]) -> float | None:
    """What other seeds of a recipe took, else other recipes of its data set; None where nothing was run."""
    stored = [(other.recipe, seconds) for other in runs if (seconds := other.seconds())]
    own = [seconds for recipe, seconds in stored if recipe == run.recipe]
    group = [seconds for recipe, seconds in stored if recipe.group == run.recipe.group]
    return statistics.median(own or group) if own or group else None


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("recipes", nargs="+", help="YAML files of train_umgf.py, or folders of them")
    parser.add_argument("--seeds", type=int, nargs="+", default=[1, 2, 3])
    parser.add_argument("--runs_dir", default="runs", help="folder of models and predictions (default runs)")
    parser.add_argument("--results_dir", default=RECIPE_RESULTS, help="folder of the results")
    parser.add_argument("--keep_models", action="store_true", help="keep the trained models, not only predictions")
    parser.add_argument("--list", action="store_true", help="only say what is done, what is missing, how long it takes")
    return parser


if __name__ == "__main__":
    main()
