"""Commands that are killed at any moment, and run again, end as if nobody had killed them."""

import json
import time
from pathlib import Path

import numpy as np
import pytest
import torch
from datasets import Dataset, DatasetDict
from killed_runs import can_mount, contents, run_plans
from PIL import Image
from safetensors.torch import load_file
from test_add_descriptors import arguments as descriptor_arguments
from test_add_descriptors import rows as posts_with_pictures
from test_train_umgf import TEXT, VISION, arguments_of, write_data
from tiny_detectors import save_detector
from transformers import ConvNextImageProcessor, ResNetConfig, ResNetModel

from benchmarks.record import write_reliability
from dataset_scripts.columns.contract import dataset_features
from dataset_scripts.writing.dataset_folder import write_dataset

TINY = {
    "text_config": TEXT,  # with dropout: the random states matter
    "vision_config": VISION,
    "config_overrides": {"d_model": 16, "num_heads": 2, "d_ff": 16},
    "image_size": 16,
    "num_train_epochs": 9,
    "per_device_train_batch_size": 2,
    "learning_rate": 2e-2,
    "text_learning_rate": 2e-2,
    "bootstrap_samples": 20,
    "disable_tqdm": True,
    "resume_from_checkpoint": True,
}
TRAININGS = {
    "length_groups_and_early_stopping": {"early_stopping_patience": 2, "num_train_epochs": 20},
    "random_order_within_epochs": {
        "train_sampling_strategy": "random",
        "eval_strategy": "steps",
        "eval_steps": 4,
        "save_strategy": "steps",
        "save_steps": 4,
        "logging_strategy": "steps",
        "logging_steps": 5,
        "gradient_accumulation_steps": 1,
        "save_total_limit": 2,
    },
    "random_order_without_the_best_checkpoint": {"load_best_model_at_end": False, "train_sampling_strategy": "random"},
}
TIMES = ("runtime", "per_second", "earlier", "best_model_checkpoint")


def without_times(path: Path) -> list[str]:
    """Lines of a JSON file, but for those that tell the time or the place."""
    return [line for line in path.read_text(encoding="utf-8").splitlines() if not any(name in line for name in TIMES)]


def what_differs(whole: Path, killed: Path) -> list[str]:
    """What a training that was killed left otherwise than one that was not."""
    files = ("model.safetensors", "config.json", "processor_config.json", "tokenizer.json")
    different = [name for name in files if (whole / "out" / name).read_bytes() != (killed / "out" / name).read_bytes()]
    for name in ("all_results.json", "trainer_state.json"):
        if without_times(whole / "out" / name) != without_times(killed / "out" / name):
            different.append(name)
    if contents(whole / "out.predictions") != contents(killed / "out.predictions"):
        different.append("predictions")
    names = {
        run: sorted(path for path in contents(run / "out") if "checkpoint-" not in path) for run in (whole, killed)
    }
    return different + ["files"] * (names[whole] != names[killed])


def kill_trainings(folder: Path, names: list[str], kills: int) -> tuple[dict, dict[str, list[str]], int]:
    """Kill trainings; returns the reports, what differs by run, and how many torn checkpoints were passed over."""
    data = write_data(folder / "data")
    plans = {}
    for seed, name in enumerate(names):
        arguments = arguments_of(data | TINY | TRAININGS[name], Path("{folder}/out"))
        plans[name] = {"command": "train", "arguments": arguments, "kills": kills, "seed": seed, "entire": ""}
    reports = run_plans(folder / "runs", plans)
    different = {}
    torn = 0
    for name in names:
        for killed in sorted((folder / "runs" / name).glob("killed-*[0-9]")):
            different[f"{name}, {killed.name}"] = what_differs(folder / "runs" / name / "whole", killed)
            torn += killed.with_name(f"{killed.name}.printed").read_text(encoding="utf-8").count("it is passed over.")
    return reports, {run: parts for run, parts in different.items() if parts}, torn


def test_a_killed_training_ends_with_the_bits_of_one_without_a_break(tmp_path):
    reports, different, _ = kill_trainings(tmp_path, ["length_groups_and_early_stopping"], kills=4)
    assert reports["length_groups_and_early_stopping"]["kills"] == 4
    assert different == {}
    out = tmp_path / "runs" / "length_groups_and_early_stopping" / "whole" / "out"
    state = json.loads((out / "trainer_state.json").read_text())
    assert state["global_step"] < 20 * 6, "it shall be early stopping that ends this run"
    assert load_file(out / "model.safetensors")


@pytest.mark.soak
@pytest.mark.parametrize("name", list(TRAININGS))
def test_a_training_killed_at_many_moments_ends_with_the_same_bits(tmp_path, name):
    begin = time.perf_counter()
    reports, different, torn = kill_trainings(tmp_path, [name], kills=20)
    write_reliability(
        f"killed_training_{name}",
        f"SIGKILL at random moments of a training ({name.replace('_', ' ')}), about half of them right after a file "
        "was written; then `--resume_from_checkpoint True`: weights, scores, predictions and logged losses are "
        "compared bit by bit with those of a run without a break",
        cases=reports[name]["kills"],
        lost=len(different),
        seconds=time.perf_counter() - begin,
        measured={
            "runs that were killed, several times each": reports[name]["runs"],
            "right after a file was written": reports[name]["by_files"],
            "torn checkpoints passed over": torn,
        },
    )
    assert different == {}


# ------------------------------------------------------------------------------------- datasets, descriptors, tags


def make_plans(folder: Path, kills: int, count: int) -> dict[str, dict]:
    """Plans for the commands besides training, on `count` posts."""
    torch.manual_seed(0)
    features = dataset_features(["O", "B-PER", "I-PER"])
    dataset = Dataset.from_dict(posts_with_pictures(list(range(1, count + 1))), features=features)
    older = DatasetDict(train=dataset.select(range(2)))
    write_dataset(older, folder / "older", title="Older posts", description="Which the new ones replace.")
    captions = [f"picture {i % 5} of {i}" for i in range(count)]
    described = dataset.add_column("caption", captions)
    splits = DatasetDict(train=described, test=described.select(range(3)).map(lambda row: {"id": f"t{row['id']}"}))
    write_dataset(splits, folder / "posts", title="Posts", description="With captions.")
    ResNetModel(ResNetConfig(embedding_size=8, hidden_sizes=[8, 16], depths=[1, 1])).save_pretrained(folder / "encoder")
    ConvNextImageProcessor(size={"shortest_edge": 32}).save_pretrained(folder / "encoder")
    lines = []
    (folder / "images").mkdir()
    for i in range(count):
        lines += [f"IMGID:{i}", "Anna\tB-PER", "sings\tO", ""]
        pixels = np.random.default_rng(i).integers(0, 256, (30, 30, 3), dtype=np.uint8)
        Image.fromarray(pixels).save(folder / "images" / f"{i}.png")
    (folder / "train.txt").write_text("\n".join(lines), encoding="utf-8")
    posts = [{"id": i, "text": f"SLOW Anna{i} in Rome"} for i in range(5 * count)]
    (folder / "posts.jsonl").write_text("".join(json.dumps(post) + "\n" for post in posts), encoding="utf-8")
    models = {"detector": save_detector("grounding-dino", folder / "detector"), "encoder": folder / "encoder"}
    images = ["--image_dir", f"{folder}/images", "--output_dir", "{folder}/out"]
    relations = ["--dataset", f"{folder}/posts", "--text_encoder", "hashing", "--features", f"{folder}/encoder"]
    tagging = [f"{folder}/posts.jsonl", "--output", "{folder}/out.jsonl", "--model", str(folder), "--device", "cpu"]
    columns = ("objects", "object_features")
    arguments = {
        "build_dataset": ["--train", f"{folder}/train.txt", *images],
        "add_descriptors": descriptor_arguments(models, folder / "posts", Path("{folder}/out"), columns, {}),
        "build_relations": [*relations, "--output_dir", "{folder}/out", "--k", "2"],
        "tag": [*tagging, "--batch_size", "1"],
    }
    plans = {}
    for seed, (command, own) in enumerate(arguments.items()):
        plan = {"command": command, "arguments": own, "kills": kills, "seed": seed, "entire": ""}
        plans[command] = plan | ({} if command == "tag" else {"entire": "out", "before": str(folder / "older")})
    plans["build_relations"]["entire"] = "out/dataset"
    return plans


def kill_commands(folder: Path, kills: int, count: int) -> tuple[dict[str, dict], dict[str, list[str]]]:
    """Kill each command; returns the reports, and by command the runs that left something else than the one without."""
    reports = run_plans(folder / "runs", make_plans(folder, kills, count))
    different = {}
    for command in reports:
        whole = contents(folder / "runs" / command / "whole")
        assert whole
        killed = sorted((folder / "runs" / command).glob("killed-*[0-9]"))
        different[command] = [run.name for run in killed if contents(run) != whole]
    return reports, different


def test_killed_commands_end_with_the_files_of_those_that_were_not(tmp_path):
    reports, different = kill_commands(tmp_path, kills=2, count=6)
    assert not any(different.values()), different
    assert [report["in_part"] for report in reports.values()] == [0] * 4


@pytest.mark.soak
def test_commands_killed_at_many_moments_end_with_the_same_files(tmp_path):
    reports, different = kill_commands(tmp_path, kills=20, count=30)
    for command, report in reports.items():
        written = "what was tagged" if command == "tag" else "the folder, which replaces an older one,"
        write_reliability(
            f"killed_{command}",
            f"SIGKILL at random moments of `{command}`, then the same command again: {written} is compared byte by "
            "byte with that of a run without a break; after each kill the folder is the old or the new one",
            cases=report["kills"],
            lost=len(different[command]) + report["in_part"],
            seconds=report["took"],
            measured={"runs that were killed, several times each": report["runs"]},
        )
    assert not any(different.values()), different
    assert [report["in_part"] for report in reports.values()] == [0] * 4


# ------------------------------------------------------------------------------------------------------- full disks


def fill_disks(folder: Path, disk: str, full: int, count: int) -> tuple[dict[str, dict], dict[str, list]]:
    """Let each command find full disks; returns the reports, and by command what was wrong then or afterwards."""
    data = write_data(folder / "data")
    own = TRAININGS["length_groups_and_early_stopping"]
    arguments = arguments_of(data | TINY | own | {"num_train_epochs": 4}, Path("{folder}/out"))
    plans = {"train": {"command": "train", "arguments": arguments, "seed": 0, "entire": ""}}
    for command, plan in (plans | make_plans(folder, 0, count)).items():
        plans[command] = {name: value for name, value in plan.items() if name != "kills"} | {"full": full, "disk": disk}
    reports = run_plans(folder / "runs", plans)
    wrong = {}
    for command, report in reports.items():
        wrong[command] = [f"a part of the folder was there {report['in_part']} times"] * (report["in_part"] > 0)
        for one in report["full"]:
            last = one["said"].strip().splitlines()[-1]
            if one["code"] != 1 or "Traceback" in one["said"] or "error: " not in last or len(last) > 500:
                wrong[command].append(one["said"][-1500:])
        runs = folder / "runs" / command
        for run in sorted(runs.glob("killed-*[0-9]")):
            same = (
                what_differs(runs / "whole", run) if command == "train" else contents(run) != contents(runs / "whole")
            )
            if same:
                wrong[command].append(f"{run.name} differs: {same}")
    return reports, wrong


def test_a_file_that_cannot_grow_is_one_sentence_and_the_run_goes_on_when_there_is_room(tmp_path):
    reports, wrong = fill_disks(tmp_path, "limit", full=1, count=6)
    assert not any(wrong.values()), wrong
    assert all(len(report["full"]) == 1 for report in reports.values())


@pytest.mark.soak
@pytest.mark.parametrize("disk", ["limit", "tmpfs"])
def test_full_disks_of_many_sizes(tmp_path, disk):
    if disk == "tmpfs" and not can_mount(tmp_path):
        pytest.skip("only root can mount a small disk")
    reports, wrong = fill_disks(tmp_path, disk, full=12, count=30)
    for command, report in reports.items():
        kind = "a disk of random size, too small for it" if disk == "tmpfs" else "a limit to the size of files"
        write_reliability(
            f"full_disk_{disk}_{command}",
            f"`{command}` on {kind}: one sentence and exit status 1, no file half-written that could pass for a whole "
            "one; with room, the same command again gives the files of a run without a break",
            cases=len(report["full"]),
            lost=len(wrong[command]),
            seconds=report["took"],
        )
    assert not any(wrong.values()), wrong


# -------------------------------------------------------------------------------------------------- twice at once

ONE_AT_A_TIME = "another process is writing there"


def run_twice(folder: Path, twice: int, count: int) -> tuple[dict[str, dict], dict[str, list]]:
    """Run each command twice at once; returns the reports, and by command what was wrong."""
    plans = make_plans(folder, 0, count)
    for command, plan in plans.items():
        plans[command] = {name: value for name, value in plan.items() if name != "kills"} | {"twice": twice}
    del plans["tag"]  # of one output, two would be a mistake
    reports = run_plans(folder / "runs", plans)
    wrong = {}
    for command, report in reports.items():
        wrong[command] = []
        for one in report["twice"]:
            refused = command == "build_relations" and sorted(one["codes"]) == [0, 1] and ONE_AT_A_TIME in one["said"]
            if not refused and one["codes"] != [0, 0] or "Traceback" in one["said"]:
                wrong[command].append(one)
        whole = contents(folder / "runs" / command / "whole")
        killed = sorted((folder / "runs" / command).glob("killed-*[0-9]"))
        wrong[command] += [run.name for run in killed if contents(run) != whole]
    return reports, wrong


def test_two_processes_may_do_the_same_at_once(tmp_path):
    _, wrong = run_twice(tmp_path, twice=1, count=6)
    assert not any(wrong.values()), wrong


@pytest.mark.soak
def test_two_processes_do_the_same_at_once_many_times(tmp_path):
    begin = time.perf_counter()
    reports, wrong = run_twice(tmp_path, twice=15, count=20)
    write_reliability(
        "same_at_once",
        "`build_dataset`, `add_descriptors` and `build_relations`, each by two processes at once with the same output, "
        "the same store of results and the same cache of `datasets`: both end with the files of one alone, or, where "
        "an index is built, one of them says that the other is at work",
        cases=sum(report["runs"] for report in reports.values()),
        lost=sum(map(len, wrong.values())),
        seconds=time.perf_counter() - begin,
    )
    assert not any(wrong.values()), wrong
