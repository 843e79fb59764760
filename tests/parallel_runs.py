"""Trains with several processes, each a fork of this one, which loads the libraries once: parallel_runs.py plan.json.

A plan is a list of runs: `name`, `arguments` of train_umgf.py, number of `processes`, and maybe `kill`: the process
that gets a SIGKILL when a checkpoint is whole. It becomes report.json beside it: of each run by name the exit status of
each process, the `seconds` from the kill to the end of the last one, and what they `printed`.
"""

import json
import os
import signal
import socket
import subprocess
import sys
import time
import traceback
from pathlib import Path

TESTS = Path(__file__).resolve().parent
sys.path[:0] = [str(TESTS.parent)]
LONGEST = 120
"""Seconds after which a run is given up, as one that hangs."""


def run_in_parallel(folder: Path, plan: list[dict]) -> dict[str, dict]:
    """Run a plan in a process of its own; returns its report."""
    folder.mkdir(parents=True)
    (folder / "plan.json").write_text(json.dumps(plan), encoding="utf-8")
    environment = os.environ | {"OMP_NUM_THREADS": "1", "HF_HUB_OFFLINE": "1", "HF_HOME": str(folder / "home")}
    command = [sys.executable, __file__, str(folder / "plan.json")]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=LONGEST * (len(plan) + 1))
    assert done.returncode == 0, done.stderr[-5000:]
    return json.loads((folder / "report.json").read_text(encoding="utf-8"))


def free_port() -> int:
    with socket.socket() as server:
        server.bind(("127.0.0.1", 0))
        return server.getsockname()[1]


def start(arguments: list[str], place: dict[str, str], printed: Path) -> int:
    """Fork a process that trains; returns its id."""
    child = os.fork()
    if child:
        return child
    code = 1
    try:
        os.environ |= place
        file = os.open(printed, os.O_WRONLY | os.O_CREAT | os.O_APPEND)
        os.dup2(file, 1)
        os.dup2(file, 2)
        import train_umgf

        train_umgf.main(arguments)
        code = 0
    except SystemExit as exit_:
        print(exit_.code, file=sys.stderr)
    except BaseException:
        traceback.print_exc()
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(code)


def run(folder: Path, plan: dict) -> dict:
    output = Path(plan["arguments"][plan["arguments"].index("--output_dir") + 1])
    printed = folder / f"{plan['name']}.printed"
    size = plan["processes"]
    together = {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(free_port()), "WORLD_SIZE": str(size)}
    children = []
    for rank in range(size):  # as torchrun starts them
        place = together | {"RANK": str(rank), "LOCAL_RANK": str(rank)} if size > 1 else {}
        children.append(start(plan["arguments"], place, printed))
    codes = [None] * size
    begin = time.perf_counter()
    killed = None
    while None in codes:
        for i, child in enumerate(children):
            if codes[i] is None:
                done, status = os.waitpid(child, os.WNOHANG)
                codes[i] = os.waitstatus_to_exitcode(status) if done else None
        if "kill" in plan and killed is None and list(output.glob("checkpoint-*/checkpoint_files.json")):
            os.kill(children[plan["kill"]], signal.SIGKILL)
            killed = time.perf_counter()
        if time.perf_counter() - begin > LONGEST:
            for i, child in enumerate(children):
                if codes[i] is None:
                    os.kill(child, signal.SIGKILL)
            begin = float("inf")
        time.sleep(0.01)
    said = printed.read_text(encoding="utf-8", errors="replace")
    return {"codes": codes, "seconds": killed and time.perf_counter() - killed, "printed": said[-6000:]}


def main(plan_file: str) -> None:
    import train_umgf  # noqa: F401

    folder = Path(plan_file).parent
    report = {plan["name"]: run(folder, plan) for plan in json.loads(Path(plan_file).read_text(encoding="utf-8"))}
    (folder / "report.json").write_text(json.dumps(report), encoding="utf-8")


if __name__ == "__main__":
    main(sys.argv[1])
