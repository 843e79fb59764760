"""Runs commands to their end, and again with kills at random moments or full disks: python killed_runs.py plan.json …

Starting Python takes longer than a tiny run. So this process loads the libraries once, and every run is a fork of it;
it has no thread when it forks. A plan, of which `run_plans` makes the file, has

    command     train, build_dataset, add_descriptors, build_relations or tag
    arguments   of the command; "{folder}" stands for the folder of the run
    kills       how many there must be in all; a run that is killed goes on, with the same arguments, until its end
    full        instead of kills, how many runs find too small a disk of random size, and go on when it is larger
    disk        of those runs: "tmpfs", which only root can make, or "limit": no file may grow beyond that size
    twice       instead of kills, how often two processes run the command with the same arguments at once
    seed        of the moments and sizes
    entire      name of a folder in that of the run, which at no moment may be there in part
    before      a folder that is there as `entire` before the first run; left out where there is none
"""

import json
import os
import random
import resource
import shutil
import signal
import subprocess
import sys
import tempfile
import time
import traceback
from pathlib import Path
from typing import NamedTuple

import datasets

TESTS = Path(__file__).resolve().parent
sys.path[:0] = [str(TESTS.parent)]


def run_plans(folder: Path, plans: dict[str, dict], timeout: float = 3000) -> dict[str, dict]:
    """Run plans by name, one after the other; returns the report of each.

    `folder`/<name>/whole is left by the run that nobody killed, killed-0, killed-1, … by those that were killed, and
    <run>.printed is what they said. A report has the `seconds` of the first, those that all `took`, the number of
    `runs` and `kills`, the kills `by_files`: right after a file was written, how often `entire` was there `in_part`,
    what was said of each disk that was `full`, and the exit statuses of what ran `twice`.
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
    """The files of a folder, hidden ones too, by their place; temporary ones and caches of libraries are left out."""
    paths = [path for path in sorted(folder.rglob("*")) if path.is_file()]
    found = {path.relative_to(folder).as_posix(): path.read_bytes() for path in paths}
    return {place: content for place, content in found.items() if not place.startswith("temporary/")}


def can_mount(folder: Path) -> bool:
    """Whether this process may make disks."""
    done = subprocess.run(["mount", "-t", "tmpfs", "-o", "size=64k", "tmpfs", folder], capture_output=True)
    return done.returncode == 0 and subprocess.run(["umount", folder]).returncode == 0


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


class Ran(NamedTuple):
    """The exit status of a run (-9: killed), how often its files changed, and the bytes that they had at most."""

    code: int
    changes: int
    most: int


def put_temporary_files_into(folder: Path) -> None:
    """Let temporary files and the cache of `datasets` be on the disk that the run writes to."""
    (folder / "temporary").mkdir(exist_ok=True)
    tempfile.tempdir = str(folder / "temporary")
    datasets.config.HF_DATASETS_CACHE = folder / "temporary" / "datasets"


def fork(run, arguments: list[str], folder: Path, limit: int = 0) -> int:
    """Run a command in a fork, maybe with a limit to the bytes of a file; returns the id of the process."""
    child = os.fork()
    if child:
        return child
    code = 1
    try:
        os.setsid()
        printed = os.open(folder.parent / f"{folder.name}.printed", os.O_WRONLY | os.O_CREAT | os.O_APPEND)
        os.dup2(printed, 1)
        os.dup2(printed, 2)
        if limit:
            resource.setrlimit(resource.RLIMIT_FSIZE, (limit, limit))
        put_temporary_files_into(folder)
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


def run_in_fork(run, arguments: list[str], folder: Path, moment: Moment | None = None, limit: int = 0) -> Ran:
    """Run a command, at most until a moment, or with a limit to the bytes of a file."""
    child = fork(run, arguments, folder, limit)
    begin = time.perf_counter()
    seen = look(folder)
    changes = 0
    most = 0
    while True:
        done, status = os.waitpid(child, os.WNOHANG)
        if done:
            return Ran(os.waitstatus_to_exitcode(status), changes, most)
        now = look(folder)
        changes += len(now - seen)
        most = max(most, sum(size for _, size in now))
        seen = now
        if moment is not None and moment.has_come(time.perf_counter() - begin, changes):
            os.killpg(child, signal.SIGKILL)
            moment = None
        time.sleep(0.001)


class Plan:
    """A plan and what is known of it: its first run, and what `entire` may hold."""

    def __init__(self, plan_file: str):
        self.folder = Path(plan_file).parent
        plan = json.loads(Path(plan_file).read_text(encoding="utf-8"))
        self.plan = plan
        self.run = load_command(plan["command"])
        self.generator = random.Random(plan["seed"])
        self.entire = plan["entire"]
        begin = time.perf_counter()
        self.whole = run_in_fork(self.run, self.start("whole"), self.folder / "whole")
        assert self.whole.code == 0, self.printed("whole")
        self.report = {"seconds": time.perf_counter() - begin, "runs": 0, "kills": 0, "by_files": 0, "in_part": 0}
        self.report |= {"full": [], "twice": []}
        self.allowed = [{}, contents(self.folder / "whole" / self.entire)]
        if "before" in plan:
            self.allowed.append(contents(Path(plan["before"])))

    def start(self, name: str) -> list[str]:
        """The arguments of a run in a new folder, or in one that is empty."""
        (self.folder / name).mkdir(exist_ok=True)
        if "before" in self.plan:
            shutil.copytree(self.plan["before"], self.folder / name / self.entire)
        return [one.replace("{folder}", str(self.folder / name)) for one in self.plan["arguments"]]

    def printed(self, name: str) -> str:
        return (self.folder / f"{name}.printed").read_text(encoding="utf-8", errors="replace")

    def look_whether_in_part(self, name: str) -> None:
        if self.entire:
            self.report["in_part"] += contents(self.folder / name / self.entire) not in self.allowed

    def kill(self) -> None:
        """Kill runs until there were enough kills."""
        while self.report["kills"] < self.plan["kills"]:
            name = f"killed-{self.report['runs']}"
            arguments = self.start(name)
            self.report["runs"] += 1
            code = None
            while code != 0:
                moment = None
                if self.report["kills"] < self.plan["kills"]:
                    # rather early, so that a run is killed several times
                    moment = Moment(self.generator, 0.8 * self.report["seconds"], self.whole.changes // 2)
                code = run_in_fork(self.run, arguments, self.folder / name, moment).code
                if code == -signal.SIGKILL:
                    self.report["kills"] += 1
                    self.report["by_files"] += moment.by_files
                    self.look_whether_in_part(name)
                elif code != 0:
                    raise SystemExit(f"{name}: {self.printed(name)[-3000:]}")

    def fill(self) -> None:
        """Let runs find too small a disk."""
        largest = max(size for _, size in look(self.folder / "whole"))
        while len(self.report["full"]) < self.plan["full"]:
            name = f"killed-{self.report['runs']}"
            folder = self.folder / name
            folder.mkdir()
            self.report["runs"] += 1
            share = self.generator.uniform(0.02, 0.95)
            limit = 0 if self.plan["disk"] == "tmpfs" else max(1, int(share * largest))
            disk = folder if self.plan["disk"] == "tmpfs" else None
            size = int(share * self.whole.most)
            if disk:
                subprocess.run(["mount", "-t", "tmpfs", "-o", f"size={size}", "tmpfs", folder], check=True)
            try:
                try:
                    arguments = self.start(name)
                except OSError:  # what was there before has no room: no case
                    arguments = None
                if arguments and (code := run_in_fork(self.run, arguments, folder, limit=limit).code) != 0:
                    said = self.printed(name)
                    self.report["full"].append({"code": code, "said": said[-3000:]})
                    self.look_whether_in_part(name)
                    if disk:
                        options = f"remount,size={10 * self.whole.most + 10**6}"
                        subprocess.run(["mount", "-o", options, folder], check=True)
                    if run_in_fork(self.run, arguments, folder).code != 0:
                        raise SystemExit(f"{name}: {self.printed(name)[-3000:]}")
                    if disk:
                        shutil.copytree(folder, self.folder / f"full-{name}")
            finally:
                if disk:
                    subprocess.run(["umount", "-l", folder], check=True)
            if disk:
                folder.rmdir()
                if (self.folder / f"full-{name}").is_dir():
                    (self.folder / f"full-{name}").rename(folder)

    def run_twice_at_once(self) -> None:
        """Run the command in two processes that share everything."""
        for _ in range(self.plan["twice"]):
            name = f"killed-{self.report['runs']}"
            arguments = self.start(name)
            self.report["runs"] += 1
            children = []
            for _ in range(2):
                children.append(fork(self.run, arguments, self.folder / name))
                time.sleep(self.generator.uniform(0, self.report["seconds"] / 2))
            codes = [os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) for child in children]
            self.report["twice"].append({"codes": codes, "said": self.printed(name)[-3000:]})


if __name__ == "__main__":
    for plan_file in sys.argv[1:]:
        begin = time.perf_counter()
        plan = Plan(plan_file)
        ways = {"kills": plan.kill, "full": plan.fill, "twice": plan.run_twice_at_once}
        [way] = [way for name, way in ways.items() if name in plan.plan]
        way()
        plan.report["took"] = time.perf_counter() - begin
        (plan.folder / "report.json").write_text(json.dumps(plan.report), encoding="utf-8")
