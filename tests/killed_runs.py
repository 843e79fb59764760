"""Runs commands to their end, and again with a SIGKILL at random moments: python killed_runs.py plan.json …

Starting Python takes longer than a tiny run. So this process loads the libraries once, and every run is a fork of it; it
has no thread when it forks. A plan, of which `run_plans` makes the file, has

    command     train, build_dataset, add_descriptors, build_relations or tag
    arguments   of the command; "{folder}" stands for the folder of the run
    kills       how many there must be in all; every run that is killed goes on, with the same arguments, until its end
    seed        of the moments
    entire      name of a folder in that of the run, which at no moment may be there in part
    before      a folder that is there as `entire` before the first run; left out where there is none
"""

import json
import os
import random
import shutil
import signal
import subprocess
import sys
import time
import traceback
from pathlib import Path

TESTS = Path(__file__).resolve().parent
sys.path[:0] = [str(TESTS.parent)]


def run_plans(folder: Path, plans: dict[str, dict], timeout: float = 3000) -> dict[str, dict]:
    """Run plans by name, one after the other; returns the report of each.

    `folder`/<name>/whole is left by the run that nobody killed, killed-0, killed-1, … by those that were killed, and
    <run>.printed is what they said. A report has the `seconds` of the first, the number of `runs` and `kills`, the kills
    `by_files`: right after a file was written, and how often `entire` was there `in_part`.
    """
    for name, plan in plans.items():
        (folder / name).mkdir(parents=True)
        (folder / name / "plan.json").write_text(json.dumps(plan), encoding="utf-8")
    environment = os.environ | {"OMP_NUM_THREADS": "1", "HF_HUB_OFFLINE": "1", "HF_HOME": str(folder / "home")}
    command = [sys.executable, __file__, *(str(folder / name / "plan.json") for name in plans)]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=timeout)
    assert done.returncode == 0, done.stderr[-5000:]
    return {name: json.loads((folder / name / "report.json").read_text(encoding="utf-8")) for name in plans}


def contents(folder: Path) -> dict[str, bytes]:
    """The files of a folder, hidden ones too, by their place."""
    return {str(path.relative_to(folder)): path.read_bytes() for path in sorted(folder.rglob("*")) if path.is_file()}


def load_command(name: str):
    """A function of the command's arguments, with all that it needs imported."""
    if name == "train":
        import train_umgf

        return train_umgf.main
    if name == "tag":
        import capital_tagger

        from modeling_umgf import __main__, tagging

        tagging.load_tagger = capital_tagger.load_capital_tagger
        return lambda arguments: sys.exit(__main__.main(["tag", *arguments]))
    from importlib import import_module

    from dataset_scripts.reading.bad_input import run_command

    module = import_module(f"dataset_scripts.{name}")
    import datasets.packaged_modules.parquet.parquet  # noqa: F401
    import transformers.models.auto.modeling_auto  # noqa: F401

    def run(arguments: list[str]) -> None:
        sys.argv = [name, *arguments]
        run_command(module.main)

    return run


class Moment:
    """When a run is killed: after so many seconds, or so long after so many changes of the files of its folder."""

    def __init__(self, generator: random.Random, seconds: float, changes: int):
        self.by_files = generator.random() < 0.5
        self.seconds = generator.uniform(0, seconds)
        self.changes = generator.randint(1, max(1, changes))
        self.delay = generator.choice((0, 0, generator.uniform(0, 0.02)))

    def has_come(self, seconds: float, changes: int) -> bool:
        if not self.by_files:
            return seconds >= self.seconds
        if changes < self.changes:
            return False
        time.sleep(self.delay)
        return True


def look(folder: Path) -> set[tuple[str, int]]:
    """Names and sizes of the files of a folder, as far as they stay there while somebody looks."""
    found = set()
    for place, _, names in os.walk(folder):
        for name in names:
            try:
                found.add((os.path.join(place, name), os.stat(os.path.join(place, name)).st_size))
            except OSError:
                pass
    return found


def run_in_fork(run, arguments: list[str], folder: Path, moment: Moment | None) -> tuple[int, int]:
    """Exit status (-9: killed) of a run, and how often the files of its folder changed."""
    child = os.fork()
    if child == 0:
        code = 1
        try:
            os.setsid()
            printed = os.open(folder.parent / f"{folder.name}.printed", os.O_WRONLY | os.O_CREAT | os.O_APPEND)
            os.dup2(printed, 1)
            os.dup2(printed, 2)
            run(arguments)
            code = 0
        except SystemExit as exit_:
            code = exit_.code if isinstance(exit_.code, int) else int(exit_.code is not None)
            if isinstance(exit_.code, str):
                print(exit_.code, file=sys.stderr)
        except BaseException:
            traceback.print_exc()
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(code)
    begin = time.perf_counter()
    seen = look(folder)
    changes = 0
    while True:
        done, status = os.waitpid(child, os.WNOHANG)
        if done:
            return os.waitstatus_to_exitcode(status), changes
        now = look(folder)
        changes += len(now - seen)
        seen = now
        if moment is not None and moment.has_come(time.perf_counter() - begin, changes):
            os.killpg(child, signal.SIGKILL)
            moment = None
        time.sleep(0.001)


def main(plan_file: str) -> None:
    folder = Path(plan_file).parent
    plan = json.loads(Path(plan_file).read_text(encoding="utf-8"))
    run = load_command(plan["command"])
    generator = random.Random(plan["seed"])
    entire = plan["entire"]
    allowed = [{}]

    def new_run(name: str) -> list[str]:
        """The arguments of a run in a new folder."""
        (folder / name).mkdir()
        if "before" in plan:
            shutil.copytree(plan["before"], folder / name / entire)
        return [one.replace("{folder}", str(folder / name)) for one in plan["arguments"]]

    begin = time.perf_counter()
    code, changes = run_in_fork(run, new_run("whole"), folder / "whole", None)
    report = {"seconds": time.perf_counter() - begin, "runs": 0, "kills": 0, "by_files": 0, "in_part": 0}
    assert code == 0, (folder / "whole.printed").read_text(encoding="utf-8")
    if entire:
        allowed += [contents(folder / "whole" / entire)]
    if "before" in plan:
        allowed += [contents(Path(plan["before"]))]
    while report["kills"] < plan["kills"]:
        name = f"killed-{report['runs']}"
        arguments = new_run(name)
        report["runs"] += 1
        code = None
        while code != 0:
            moment = None
            if report["kills"] < plan["kills"]:
                # rather early, so that a run is killed several times
                moment = Moment(generator, 0.8 * report["seconds"], changes // 2)
            code, _ = run_in_fork(run, arguments, folder / name, moment)
            if code == -signal.SIGKILL:
                report["kills"] += 1
                report["by_files"] += moment.by_files
                if entire:
                    report["in_part"] += contents(folder / name / entire) not in allowed
            elif code != 0:
                raise SystemExit(f"{name}: " + (folder / f"{name}.printed").read_text(encoding="utf-8")[-3000:])
    (folder / "report.json").write_text(json.dumps(report), encoding="utf-8")


if __name__ == "__main__":
    for plan_file in sys.argv[1:]:
        main(plan_file)
