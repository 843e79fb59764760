"""Every option of every command with wrong values: one sentence and a non-zero exit, or the command does its work.

The options come from the parsers, so that new ones are tried too.
"""

import importlib
import json
import shutil
import sys
import time
import traceback
from argparse import ArgumentParser
from collections.abc import Iterator
from pathlib import Path

import pytest
from capital_tagger import load_capital_tagger
from PIL import Image
from test_security import load_app
from test_train_umgf import TINY, write_data

import train_umgf
from benchmarks.record import write_reliability
from dataset_scripts import contrast_tweets, relation_contrast_tweets
from dataset_scripts.reading.bad_input import run_command
from modeling_umgf import tagging
from modeling_umgf.__main__ import COMMANDS, main

pytestmark = [pytest.mark.filterwarnings("ignore"), pytest.mark.xdist_group("wrong_options")]

WRONG = ["no such", "-1", ""]
MORE = ["nan", "1e400", "[", "{}", "\ud83d", "a\x00b", "/dev/null", "/", "0", "x" * 300, "../..", "null"]
SCRIPTS = ["build_dataset", "dataset_doctor", "add_descriptors", "build_relations", "published_objects", "show_example"]
SCRIPTS += ["add_word_vectors", "contrast_tweets", "relation_contrast_tweets"]


@pytest.fixture(scope="module")
def data(tmp_path_factory) -> dict:
    """Files that the commands can use, written once."""
    folder = tmp_path_factory.mktemp("data")
    files = write_data(folder)
    Image.new("RGB", (9, 9), "red").save(folder / "p.png")
    (folder / "posts.jsonl").write_text(json.dumps({"id": 1, "text": "Anna meets Bob", "image": "p.png"}) + "\n")
    (folder / "vectors.txt").write_text("test0 1 2\n")
    files |= {"posts": str(folder / "posts.jsonl"), "folder": str(folder), "vectors": str(folder / "vectors.txt")}
    arguments = ["--train", files["train_file"], "--test", files["test_file"], "--image_dir", files["image_dir"]]
    call("build_dataset", [*arguments, "--output_dir", str(folder / "dataset")])
    return files | {"dataset": str(folder / "dataset")}


def right_arguments(command: str, data: dict, out: Path) -> list[str]:
    """Arguments with which a command has little to do."""
    given = {
        "tag": [data["posts"], "--model", data["folder"], "--output", str(out / "tagged.jsonl")],
        "card": [data["folder"]],
        "convert": [data["posts"], str(out / "converted")],
        "build_dataset": ["--train", data["train_file"], "--output_dir", str(out / "dataset")],
        "dataset_doctor": [data["dataset"]],
        "add_descriptors": [data["dataset"], "--output_dir", str(out / "described"), "--columns", "noun_phrases"],
        "add_word_vectors": [
            data["dataset"],
            "--output_dir",
            str(out / "vectors"),
            "--word_vectors",
            data["vectors"],
            "--column",
            "id",
        ],
        "build_relations": [
            "--dataset",
            data["dataset"],
            "--output_dir",
            str(out / "related"),
            "--text_encoder",
            "hashing",
        ],
        "published_objects": [
            "--dataset",
            data["dataset"],
            "--output_dir",
            str(out / "published"),
            "--umgf_crops",
            data["image_dir"],
        ],
        "show_example": [data["dataset"], "--id", "test0", "--output_dir", str(out)],
        "contrast_tweets": ["--output_dir", str(out / "contrast")],
        "relation_contrast_tweets": ["--output_dir", str(out / "contrast")],
        "app": [data["folder"]],
    }
    if command == "train":
        files = {name: value for name, value in data.items() if name.endswith(("_file", "_dir"))}
        settings = TINY | files | {"output_dir": str(out / "run"), "max_steps": 1, "use_cpu": True}
        return list(map(str, flatten(settings)))
    return given[command]


def flatten(settings: dict) -> Iterator[object]:
    for name, value in settings.items():
        yield f"--{name}"
        yield json.dumps(value) if isinstance(value, dict) else value


def call(command: str, arguments: list[str]) -> None:
    """Run a command in this process as a shell would; raises SystemExit where it ends with a code."""
    if command in COMMANDS:
        sys.exit(main([command, *arguments]))
    if command == "train":
        train_umgf.main(arguments)
        return
    before = sys.argv
    sys.argv = [command, *arguments]
    try:
        if command == "app":
            load_app().main()
        else:
            run_command(importlib.import_module(f"dataset_scripts.{command}").main)
    finally:
        sys.argv = before


class Captured(BaseException):
    """Holds the parser of a command."""


def options_of(command: str, monkeypatch) -> list[tuple[str, bool]]:
    """Names of the options of a command, and whether each takes a value."""

    def capture(parser, *_, **__):
        if parser.prog.endswith("modeling_umgf"):
            return known(parser, *_, **__)
        raise Captured(parser)

    known = ArgumentParser.parse_args
    with monkeypatch.context() as patch:
        patch.setattr(ArgumentParser, "parse_args", capture)
        patch.setattr(
            ArgumentParser, "parse_known_args", lambda parser, *_, **__: capture(parser)
        ) if command == "train" else None
        with pytest.raises(Captured) as caught:
            call(command, [])
    actions = caught.value.args[0]._actions
    return [
        (action.option_strings[-1], action.nargs != 0)
        for action in actions
        if action.option_strings and action.dest != "help"
    ]


def try_value(command: str, option: str, value: str, data: dict, out: Path, capsys) -> str | None:
    """Run a command with one more option; returns what is wrong with how it ended."""
    arguments = [*right_arguments(command, data, out), option, value]
    sys.stderr.reconfigure(errors="backslashreplace")  # as it is in a process of its own
    try:
        call(command, arguments)
        code = 0
    except SystemExit as ended:
        code = ended.code
        if isinstance(code, str):
            print(code, file=sys.stderr)
    except BaseException as error:  # noqa: BLE001 - which is the failure that is looked for
        place = traceback.extract_tb(error.__traceback__)[-1]
        return f"{type(error).__name__}: {str(error)[:150]} ({Path(place.filename).name}:{place.lineno})"
    said = capsys.readouterr().err
    if "Traceback" in said:
        return "a traceback"
    if code not in (0, None) and not said.strip():
        return f"nothing said, exit code {code}"
    return None


COMMAND_NAMES = [*COMMANDS, *SCRIPTS, "app", "train"]


@pytest.mark.parametrize("command", COMMAND_NAMES)
def test_a_wrong_value_of_an_option_is_one_sentence(command, data, tmp_path, monkeypatch, capsys):
    if command == "train":  # as far as the data and the model, which takes no time; the soak test trains
        monkeypatch.setattr(train_umgf, "make_trainer", lambda *_: train_umgf.end_with(ValueError("enough")))
    tried, failures = try_all(command, WRONG, data, tmp_path, monkeypatch, capsys)
    assert tried and failures == {}


def try_all(command, values, data, tmp_path, monkeypatch, capsys) -> tuple[int, dict[str, str]]:
    """Try values of every option of a command; returns how many, and what was wrong."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(tagging, "load_tagger", load_capital_tagger)
    sizes = {"train": (50, 8), "validation": (50, 8), "test": (50, 8)}
    monkeypatch.setattr(contrast_tweets, "SPLITS", sizes)  # few posts
    monkeypatch.setattr(
        relation_contrast_tweets, "write_relation_contrast_tweets", contrast_tweets.write_contrast_tweets
    )
    tried = 0
    failures = {}
    for option, takes_value in options_of(command, monkeypatch):
        for value in values if takes_value else values[:1]:
            out = tmp_path / "out"
            shutil.rmtree(out, ignore_errors=True)
            tried += 1
            if problem := try_value(command, option, value, data, out, capsys):
                failures[f"{command} {option} {value[:20]!r}"] = problem
    return tried, failures


@pytest.mark.soak
def test_many_wrong_values_of_all_options(data, tmp_path, monkeypatch, capsys):
    begin = time.monotonic()
    cases = 0
    lost = {}
    for command in COMMAND_NAMES:
        values = WRONG if command == "train" else WRONG + MORE
        tried, failures = try_all(command, values, data, tmp_path, monkeypatch, capsys)
        cases += tried
        lost |= failures
    tried = "wrong values of every option of every command: one sentence and a non-zero exit, or the work is done"
    measured = {"commands": len(COMMAND_NAMES)}
    write_reliability("wrong_options", tried, cases, len(lost), time.monotonic() - begin, measured)
    assert not lost, json.dumps(lost, indent=2)
