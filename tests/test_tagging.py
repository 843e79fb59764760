"""The tagging command: every post in, every post out, in order, whatever happens in between."""

import csv
import json
import multiprocessing
import os
import re
import signal
import subprocess
import sys
import threading
import time
import tracemalloc
from pathlib import Path

import pyarrow
import pyarrow.parquet
import pytest
import torch
from capital_tagger import load_capital_tagger
from tiny_describers import save_labeler
from tiny_detectors import save_detector

from modeling_umgf import tagging
from modeling_umgf.__main__ import main
from modeling_umgf.descriptors import ObjectLabeler
from modeling_umgf.grounding import Grounder
from modeling_umgf.labels import entity_spans, spans_to_tags
from modeling_umgf.post_files import PostFileError, Tagged
from modeling_umgf.tagging import TaggingError, TagOptions

pytest_plugins = ("tiny_taggers",)

POSTS = [
    {"id": "a", "text": "Anna meets Bob", "image": None},
    {"id": "b", "text": "", "image": None},
    {"id": "c", "text": "Übung in Rome 👩‍👩‍👧 \u2028 x\u00a0y", "image": None},
    {"id": "d", "text": "lower case", "image": None},
    {"id": "e", "text": "FAIL this one", "image": None},
]


def tag(posts, output, model, **options) -> tagging.TaggingSummary:
    return tagging.tag_file(TagOptions(input=posts, output=output, model=model, **options))


@pytest.fixture(autouse=True)
def no_model(request, monkeypatch):
    if not {"tagger", "rgcn_tagger"} & set(request.fixturenames):
        monkeypatch.setattr(tagging, "load_tagger", load_capital_tagger)


@pytest.fixture(scope="module")
def model(tagger, tmp_path_factory) -> Path:
    """The folder of a model."""
    folder = tmp_path_factory.mktemp("saved") / "model"
    tagger.save_pretrained(folder)
    return folder


@pytest.fixture
def quick_processes(monkeypatch):
    """Processes that need not import everything anew; the stopped commands test those of the command itself."""
    fork = multiprocessing.get_context("fork")
    monkeypatch.setattr(tagging.multiprocessing, "get_context", lambda method: fork)


def write_jsonl(path: Path, posts: list) -> Path:
    path.write_text("".join(json.dumps(post, ensure_ascii=False) + "\n" for post in posts), encoding="utf-8")
    return path


def read_jsonl(path: Path) -> list[dict]:
    return [json.loads(line) for line in path.read_text(encoding="utf-8").split("\n")[:-1]]


def test_every_post_becomes_one_record_in_order(tmp_path):
    posts = write_jsonl(tmp_path / "posts.jsonl", POSTS)
    summary = tag(posts, tmp_path / "out.jsonl", tmp_path, batch_size=1)
    records = read_jsonl(tmp_path / "out.jsonl")
    assert [record["id"] for record in records] == ["a", "b", "c", "d", "e"]
    assert [entity["word"] for entity in records[0]["entities"]] == ["Anna", "Bob"]
    assert records[2]["text"] == POSTS[2]["text"]
    assert records[4] == {"id": "e", "error": "no good"}
    assert (summary.posts, summary.entities, summary.errors) == (5, 4, 1)


def test_the_three_input_formats_give_the_same_records(tmp_path):
    write_jsonl(tmp_path / "posts.jsonl", POSTS)
    with open(tmp_path / "posts.csv", "w", encoding="utf-8-sig", newline="") as file:
        writer = csv.DictWriter(file, ["id", "text", "image"])
        writer.writeheader()
        writer.writerows(POSTS)
    pyarrow.parquet.write_table(pyarrow.Table.from_pylist(POSTS), tmp_path / "posts.parquet")
    outputs = []
    for name in ("posts.jsonl", "posts.csv", "posts.parquet"):
        tag(tmp_path / name, tmp_path / f"{name}.out.jsonl", tmp_path)
        outputs.append(read_jsonl(tmp_path / f"{name}.out.jsonl"))
    assert outputs[0] == outputs[1] == outputs[2]
    assert len(outputs[0]) == 5


@pytest.mark.parametrize("ending", ["jsonl", "csv", "parquet"])
def test_columns_called_as_what_is_said_of_posts_change_nothing(tmp_path, ending):
    posts = [post | {"error": None, "record": "r12", "warning": ""} for post in POSTS]
    path = tmp_path / f"posts.{ending}"
    if ending == "jsonl":
        write_jsonl(path, posts)
    elif ending == "parquet":
        pyarrow.parquet.write_table(pyarrow.Table.from_pylist(posts), path)
    else:
        with open(path, "w", encoding="utf-8", newline="") as file:
            writer = csv.DictWriter(file, list(posts[0]))
            writer.writeheader()
            writer.writerows(posts)
    tag(path, tmp_path / "out.jsonl", tmp_path)
    tag(write_jsonl(tmp_path / "plain.jsonl", POSTS), tmp_path / "plain_out.jsonl", tmp_path)
    assert read_jsonl(tmp_path / "out.jsonl") == read_jsonl(tmp_path / "plain_out.jsonl")


def test_the_texts_may_be_in_a_column_called_error(tmp_path):
    posts = write_jsonl(tmp_path / "posts.jsonl", [{"id": 1, "error": "Anna meets Bob"}])
    tag(posts, tmp_path / "out.jsonl", tmp_path, text_column="error")
    assert [own["word"] for own in read_jsonl(tmp_path / "out.jsonl")[0]["entities"]] == ["Anna", "Bob"]


def test_bad_lines_become_error_records_at_their_place(tmp_path):
    good = json.dumps({"text": "Anna"}).encode()
    bad = [b'{"text": ', b'"just a string"', b"[1]", b'{"text": "\xff"}', b"[" * 100_000, b"null"]
    lines = b"\n".join(
        [b"\xef\xbb\xbf" + good, *bad, b"", b"   ", good]
    )  # blank lines are no posts; no last line break
    (tmp_path / "posts.jsonl").write_bytes(lines)
    summary = tag(tmp_path / "posts.jsonl", tmp_path / "out.jsonl", tmp_path)
    records = read_jsonl(tmp_path / "out.jsonl")
    assert ["error" in record for record in records] == [False, *[True] * len(bad), False]
    assert [record["id"] for record in records] == list(range(1, len(bad) + 3))
    assert summary.errors == len(bad)
    assert "not UTF-8" in records[4]["error"]


def test_bad_csv_rows_become_error_records(tmp_path):
    (tmp_path / "posts.csv").write_bytes(
        b'id,text\n1,Anna\n2,a,b\n3\n4,"two\nlines, Bob"\n5,\xff\n6,' + b"x" * 200_000 + b"\n7,Eve\n"
    )
    tag(tmp_path / "posts.csv", tmp_path / "out.jsonl", tmp_path)
    records = read_jsonl(tmp_path / "out.jsonl")
    assert ["error" in record for record in records] == [False, True, True, False, True, True, False]
    assert records[3]["text"] == "two\nlines, Bob" and records[6]["id"] == "7"


def test_half_a_character_does_not_stop_the_run(tmp_path):
    (tmp_path / "posts.jsonl").write_text('{"id": "\\ud83d", "text": "Anna \\ud83d"}\n{"text": "Bob"}\n')
    tag(tmp_path / "posts.jsonl", tmp_path / "out.jsonl", tmp_path)
    assert [record["id"] for record in read_jsonl(tmp_path / "out.jsonl")] == ["\ud83d", 2]
    assert tag(tmp_path / "posts.jsonl", tmp_path / "out.jsonl", tmp_path).already_done == 2


def test_picture_names_start_from_the_folder(tmp_path, monkeypatch):
    seen = []

    def load(options, device, **settings):
        return lambda posts: [seen.append(post["image"]) or Tagged() for post in posts]

    monkeypatch.setattr(tagging, "load_tagger", load)
    images = ["1.jpg", "https://example.org/1.jpg", "/elsewhere/1.jpg", "", None, {"bytes": None, "path": "2.jpg"}]
    posts = write_jsonl(tmp_path / "posts.jsonl", [{"text": "x", "image": image} for image in images])
    tag(posts, tmp_path / "out.jsonl", tmp_path, images=tmp_path)
    folder = str(tmp_path)
    assert seen == [f"{folder}/1.jpg", images[1], None, None, None, f"{folder}/2.jpg"]


@pytest.mark.parametrize("suffix", [".jsonl", ".conll"])
def test_an_output_cut_anywhere_is_continued_to_the_same_bytes(tmp_path, suffix):
    posts = write_jsonl(tmp_path / "posts.jsonl", POSTS[1:])
    output = tmp_path / f"out{suffix}"
    tag(posts, output, tmp_path)
    whole = output.read_bytes()
    separator = {".jsonl": b"\n", ".conll": b"\n\n"}[suffix]
    for size in range(len(whole) + 1):
        output.write_bytes(whole[:size])
        summary = tag(posts, output, tmp_path)
        assert output.read_bytes() == whole
        assert summary.already_done == whole[:size].count(separator)
        assert summary.already_done + summary.posts == len(POSTS[1:])


@pytest.mark.parametrize("suffix", [".jsonl", ".conll"])
def test_an_output_of_other_posts_is_refused_and_kept(tmp_path, suffix):
    posts = write_jsonl(tmp_path / "posts.jsonl", POSTS)
    output = tmp_path / f"out{suffix}"
    tag(posts, output, tmp_path)
    before = output.read_bytes()
    for other in (POSTS[1:], POSTS[:3]):
        write_jsonl(posts, other)
        with pytest.raises(PostFileError, match="record [14] does not belong to the input.*--overwrite"):
            tag(posts, output, tmp_path)
    assert output.read_bytes() == before
    tag(posts, output, tmp_path, overwrite=True)
    assert len(output.read_bytes()) < len(before)


def test_a_changed_text_is_noticed(tmp_path):
    posts = write_jsonl(tmp_path / "posts.jsonl", [{"text": "Anna"}, {"text": "Bob"}])
    tag(posts, tmp_path / "out.jsonl", tmp_path)
    write_jsonl(posts, [{"text": "Anna"}, {"text": "Rob"}])
    with pytest.raises(PostFileError, match="record 2"):
        tag(posts, tmp_path / "out.jsonl", tmp_path)


def test_another_model_does_not_continue_the_output(tmp_path):
    posts = write_jsonl(tmp_path / "posts.jsonl", POSTS)
    other = tmp_path / "other"
    other.mkdir()
    tag(posts, tmp_path / "out.jsonl", tmp_path)
    with pytest.raises(TaggingError, match="was begun with model .*--overwrite"):
        tag(posts, tmp_path / "out.jsonl", other)
    with pytest.raises(TaggingError, match="was begun with detector None, not some/detector"):
        tag(posts, tmp_path / "out.jsonl", tmp_path, detector="some/detector")
    assert tag(posts, tmp_path / "out.jsonl", other, overwrite=True).posts == len(POSTS)


def test_a_kill_right_after_an_output_was_emptied_leaves_no_old_settings_in_force(tmp_path):
    posts = write_jsonl(tmp_path / "posts.jsonl", POSTS)
    tag(posts, tmp_path / "out.jsonl", tmp_path)
    (tmp_path / "out.jsonl").write_bytes(b"")  # --overwrite empties it, then writes its settings
    tag(posts, tmp_path / "out.jsonl", tmp_path, threshold=0.5)
    with pytest.raises(TaggingError, match="was begun with threshold 0.5"):
        tag(posts, tmp_path / "out.jsonl", tmp_path)


def test_appended_posts_are_tagged_by_the_next_run(tmp_path):
    posts = write_jsonl(tmp_path / "posts.jsonl", POSTS)
    tag(posts, tmp_path / "out.jsonl", tmp_path)
    write_jsonl(posts, [*POSTS, {"id": "f", "text": "Eve"}])
    assert tag(posts, tmp_path / "out.jsonl", tmp_path).posts == 1
    assert read_jsonl(tmp_path / "out.jsonl")[-1]["entities"][0]["word"] == "Eve"


def test_conll_output_has_a_block_for_every_post(tmp_path):
    posts = write_jsonl(tmp_path / "posts.jsonl", [*POSTS[:2], {"text": "#tag FAIL"}, {"words": ["tab\tinside", "x"]}])
    summary = tag(posts, tmp_path / "out.conll", tmp_path)
    assert (tmp_path / "out.conll").read_text() == (
        "IMGID:a\nAnna\tB-PER\nmeets\tO\nBob\tB-PER\n\nIMGID:b\n\nIMGID:3\n\nIMGID:4\n\n"
    )
    assert (summary.entities, summary.errors) == (2, 2)


@pytest.mark.parametrize("suffix", [".jsonl", ".conll"])
def test_entities_below_the_threshold_are_left_out_and_counted(tmp_path, suffix):
    posts = write_jsonl(tmp_path / "posts.jsonl", [{"text": "Anastasia meets Bob"}, {"text": "Eve"}])
    summary = tag(posts, tmp_path / f"out{suffix}", tmp_path, threshold=0.5)
    assert (summary.entities, summary.left_out) == (1, 2)
    assert "1 entities (2 below the threshold left out)" in str(summary)
    written = (tmp_path / f"out{suffix}").read_text()
    if suffix == ".conll":
        assert written == "IMGID:1\nAnastasia\tB-PER\nmeets\tO\nBob\tO\n\nIMGID:2\nEve\tO\n\n"
    else:
        assert [[own["word"] for own in json.loads(line)["entities"]] for line in written.splitlines()] == [
            ["Anastasia"],
            [],
        ]
    with pytest.raises(TaggingError, match="was begun with threshold 0.5, not 0.0"):
        tag(posts, tmp_path / f"out{suffix}", tmp_path)


@pytest.mark.parametrize("suffix", [".jsonl", ".conll"])
def test_posts_with_an_error_are_tagged_again_and_the_others_kept(tmp_path, suffix):
    texts = ["Anna", "FAIL", "Bob", "BLIND Eve"]
    posts = write_jsonl(tmp_path / "posts.jsonl", [{"id": i, "text": text} for i, text in enumerate(texts)])
    summary = tag(posts, tmp_path / f"out{suffix}", tmp_path)
    assert (summary.errors, summary.warnings) == (1, 1)
    assert "1 with an error, 1 with a warning" in str(summary)
    before = (tmp_path / f"out{suffix}").read_bytes()
    (tmp_path / f"out{suffix}").write_bytes(before.replace(b"PER", b"LOC"))
    summary = tag(posts, tmp_path / f"out{suffix}", tmp_path, retry_errors=True)
    again = 2 if suffix == ".jsonl" else 1  # CoNLL holds no warnings
    assert (summary.posts, summary.already_done) == (again, 4 - again)
    after = (tmp_path / f"out{suffix}").read_bytes()
    assert (after.count(b"LOC"), after.count(b"PER")) == ((2, 2) if suffix == ".jsonl" else (4, 0))
    assert after.replace(b"LOC", b"PER") == before
    assert sorted(path.name for path in tmp_path.iterdir()) == [
        f"out{suffix}",
        f"out{suffix}.settings.json",
        posts.name,
    ]


def test_a_repetition_that_is_stopped_leaves_the_output_as_it_was(tmp_path, monkeypatch):
    posts = write_jsonl(tmp_path / "posts.jsonl", POSTS)
    tag(posts, tmp_path / "out.jsonl", tmp_path)
    before = (tmp_path / "out.jsonl").read_bytes()

    def stop(*arguments):
        raise KeyboardInterrupt

    monkeypatch.setattr(tagging.TaggingSummary, "add", stop)
    with pytest.raises(KeyboardInterrupt):
        tag(posts, tmp_path / "out.jsonl", tmp_path, retry_errors=True)
    assert (tmp_path / "out.jsonl").read_bytes() == before
    assert len(list(tmp_path.iterdir())) == 3


def test_the_speed_of_the_bar_counts_the_time_of_the_first_posts(tmp_path, monkeypatch):
    rates = []

    class Bar(tagging.tqdm):
        def update(self, count):
            super().update(count)
            rates.append(self.format_dict["rate"] or self.n / self.format_dict["elapsed"])

    monkeypatch.setattr(tagging, "tqdm", Bar)
    monkeypatch.setenv("SECONDS_A_SLOW_POST", "0.05")
    posts = write_jsonl(tmp_path / "posts.jsonl", [{"text": "SLOW"}] * 8)
    tag(posts, tmp_path / "out.jsonl", tmp_path, batch_size=1)
    assert len(rates) == 4 and all(0 < rate <= 20 for rate in rates)


def test_a_pipe_is_read_and_written_as_json_lines(tmp_path):
    (tmp_path / "pictures").mkdir()
    for name in ("in", "out"):
        os.mkfifo(tmp_path / name)
    content = "".join(json.dumps(post) + "\n" for post in POSTS)
    writer = threading.Thread(target=(tmp_path / "in").write_text, args=[content])
    read = []
    reader = threading.Thread(target=lambda: read.append((tmp_path / "out").read_text()))
    for thread in (writer, reader):
        thread.start()
    summary = tag(tmp_path / "in", tmp_path / "out", tmp_path, images=tmp_path / "pictures")
    for thread in (writer, reader):
        thread.join()
    assert summary.posts == 5
    assert [json.loads(line)["id"] for line in read[0].split("\n")[:-1]] == [post["id"] for post in POSTS]
    assert sorted(path.name for path in tmp_path.iterdir()) == ["in", "out", "pictures"]


def test_chunks_grow_as_long_as_they_are_tagged_fast():
    chunks = tagging.GrowingChunks(iter(range(1_000)), batch_size=2)
    sizes = []
    for chunk in chunks:
        sizes.append(len(chunk))
        chunks.took(0.1 if len(sizes) < 5 else 2.0)
    assert sizes[:7] == [2, 4, 8, 16, 32, 32, 32] and sum(sizes) == 1_000


def test_no_chunk_is_larger_than_a_window():
    chunks = tagging.GrowingChunks(iter(range(200)), batch_size=1)
    sizes = [len(chunk) for chunk in chunks if chunks.took(0.0) is None]
    assert max(sizes) == tagging.MOST_BATCHES


def test_no_process_is_left_alone_with_much_of_the_work():
    chunks = tagging.GrowingChunks(iter(range(1_000)), batch_size=10, num_proc=2)
    before = 0
    for chunk in chunks:
        chunks.took(0.0)
        assert len(chunk) <= max(10, before / 8)
        before += len(chunk)
    assert before == 1_000 and len(chunk) > 10


def test_several_processes_keep_the_order(tmp_path, quick_processes):
    texts = [f"{'SLOW ' * (i % 7 == 0)}Anna{i}" for i in range(40)]
    posts = write_jsonl(tmp_path / "posts.jsonl", [{"text": text} for text in texts])
    tag(posts, tmp_path / "one.jsonl", tmp_path, batch_size=1)
    tag(posts, tmp_path / "two.jsonl", tmp_path, batch_size=1, num_proc=2)
    assert (tmp_path / "two.jsonl").read_bytes() == (tmp_path / "one.jsonl").read_bytes()
    assert [record["text"] for record in read_jsonl(tmp_path / "two.jsonl")] == texts


def test_a_dead_worker_is_reported_and_its_work_can_be_repeated(tmp_path, quick_processes, monkeypatch):
    monkeypatch.setattr(tagging, "MOST_BATCHES", 4)
    posts = write_jsonl(tmp_path / "posts.jsonl", [{"text": "Anna"}] * 80 + [{"text": "DIE"}])
    with pytest.raises(TaggingError, match="worker process died"):
        tag(posts, tmp_path / "out.jsonl", tmp_path, batch_size=1, num_proc=2)
    finished = len(read_jsonl(tmp_path / "out.jsonl"))
    assert 60 <= finished <= 80  # at most a few chunks of 4 were under way
    write_jsonl(posts, [{"text": "Anna"}] * 81)
    assert tag(posts, tmp_path / "out.jsonl", tmp_path).posts == 81 - finished


def test_memory_does_not_grow_with_the_file(tmp_path, monkeypatch):
    monkeypatch.setattr(tagging, "MOST_BATCHES", 4)
    peaks = []
    for count in (500, 4_000):
        posts = write_jsonl(tmp_path / f"{count}.jsonl", [{"text": f"Anna {i} " + "x" * 100} for i in range(count)])
        tracemalloc.start()
        tag(posts, tmp_path / f"{count}.out.jsonl", tmp_path)
        peaks.append(tracemalloc.get_traced_memory()[1])
        tracemalloc.stop()
    assert peaks[1] < peaks[0] + 200_000


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"input": "missing.jsonl"}, "no such file"),
        ({"input": "posts.xml"}, "cannot read .xml files"),
        ({"input": "other.csv"}, "no column 'text' among id, post; name it with --text_column"),
        ({"input": "broken.parquet"}, "not a Parquet file"),
        ({"output": "out.txt"}, "must end in .jsonl or .conll"),
        ({"output": "posts.jsonl"}, "is the input"),
        ({"model": "nowhere"}, "cannot load the model nowhere"),
        ({"images": "nowhere"}, "no such folder of pictures"),
        ({"batch_size": 0}, "must be at least 1"),
        ({"threshold": 1.5}, "threshold=1.5 is no score: give 0 to 1"),
        ({"retry_errors": True}, "--retry_errors needs an output that is there"),
        ({"input": "words.csv"}, "no column 'text' among id, words; name it with --text_column"),
        ({"input": "other.jsonl"}, "no column 'text' among tweet, n; name it with --text_column"),
        ({"model": "nowhere", "num_proc": 2}, "cannot load the model nowhere"),
        ({"output": "posts.jsonl/out.jsonl"}, "posts.jsonl"),
    ],
)
def test_what_cannot_work_is_one_line_on_stderr_and_leaves_nothing(
    tmp_path, monkeypatch, capsys, quick_processes, change, message
):
    monkeypatch.chdir(tmp_path)
    write_jsonl(tmp_path / "posts.jsonl", POSTS)
    (tmp_path / "posts.xml").write_text("<posts/>")
    (tmp_path / "other.csv").write_text("id,post\n1,Anna\n")
    (tmp_path / "words.csv").write_text("id,words\n1,Anna\n")
    write_jsonl(tmp_path / "other.jsonl", [{"tweet": "Anna"}, {"n": 1}])
    (tmp_path / "broken.parquet").write_text("text")
    before = {path: path.read_bytes() for path in tmp_path.iterdir()}
    options = {"input": "posts.jsonl", "output": "out.jsonl", "model": "."} | change
    posts = options.pop("input")
    assert main(["tag", posts, *(f"--{name}={value}" for name, value in options.items())]) == 1
    error = capsys.readouterr().err
    assert error.startswith("error: ") and message in error and error.count("\n") == 1
    assert {path: path.read_bytes() for path in tmp_path.iterdir()} == before


def test_a_model_that_cannot_be_loaded_does_not_cost_the_old_output(tmp_path):
    posts = write_jsonl(tmp_path / "posts.jsonl", POSTS)
    tag(posts, tmp_path / "out.jsonl", tmp_path)
    before = (tmp_path / "out.jsonl").read_bytes()
    with pytest.raises(TaggingError):
        tag(posts, tmp_path / "out.jsonl", tmp_path / "nowhere", overwrite=True)
    assert (tmp_path / "out.jsonl").read_bytes() == before


def test_an_empty_file_gives_an_empty_output_without_a_model(tmp_path):
    (tmp_path / "posts.jsonl").write_text("")
    assert tag(tmp_path / "posts.jsonl", tmp_path / "out.jsonl", tmp_path / "nowhere").posts == 0
    assert (tmp_path / "out.jsonl").read_bytes() == b""


@pytest.mark.parametrize("arguments", [[], ["tag"], ["tug"], ["tag", "posts.jsonl", "--model=m"], ["tag", "--batch=x"]])
def test_wrong_arguments_end_with_code_2(arguments, capsys):
    with pytest.raises(SystemExit) as stopped:
        main(arguments)
    assert stopped.value.code == 2
    assert capsys.readouterr().err.startswith("usage: python -m modeling_umgf")


COMMAND = """
import sys, types
package = types.ModuleType("modeling_umgf")
package.__path__ = [{package!r}]
sys.modules["modeling_umgf"] = package  # without the models, which take processes seconds to import
if __name__ == "__main__":
    import capital_tagger
    from modeling_umgf import __main__, tagging
    tagging.load_tagger = capital_tagger.load_capital_tagger
    code = __main__.main(sys.argv[1:])
    others = {{"datasets", "modeling_umgf.model_card", "modeling_umgf.training"}} & set(sys.modules)
    sys.exit(f"imported {{others}}, which tagging does not need" if others else code)
"""


def start_command(tmp_path: Path) -> subprocess.Popen:
    """Run the command on slow posts in a process group of its own; returns when a part of them is tagged."""
    tests = Path(__file__).parent
    (tmp_path / "command.py").write_text(COMMAND.format(package=str(tests.parent / "modeling_umgf")))
    arguments = ["tag", "posts.jsonl", "--model=.", "--output=out.jsonl", "--batch_size=1", "--num_proc=2"]
    command = subprocess.Popen(
        [sys.executable, "command.py", *arguments, "--device=cpu"],
        cwd=tmp_path,
        env=os.environ
        | {"PYTHONPATH": str(tests), "SECONDS_A_SLOW_POST": "0.1"},  # a busy machine can't be done before it is stopped
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),  # ignored by what a shell starts with &
    )
    output = tmp_path / "out.jsonl"
    deadline = time.monotonic() + 120
    while not output.exists() or output.stat().st_size < 2000:
        assert command.poll() is None and time.monotonic() < deadline, command.stderr.read()
        time.sleep(0.01)
    return command


@pytest.mark.parametrize("stop", [signal.SIGKILL, signal.SIGINT])
def test_a_stopped_command_loses_and_repeats_nothing(tmp_path, stop):
    posts = write_jsonl(tmp_path / "posts.jsonl", [{"id": i, "text": f"SLOW Anna{i}"} for i in range(200)])
    command = start_command(tmp_path)
    if stop == signal.SIGINT:
        os.killpg(command.pid, stop)  # as a terminal does
        error = command.communicate(timeout=60)[1]
        assert command.returncode == 130
        assert "Stopped; all finished posts are saved" in error and "Traceback" not in error
    else:
        command.kill()
        command.communicate(timeout=60)  # returns when the workers, who share its stderr, have ended too
    summary = tag(posts, tmp_path / "out.jsonl", ".")
    assert 0 < summary.already_done < 200 and summary.already_done + summary.posts == 200
    names = [record["entities"][1]["word"] for record in read_jsonl(tmp_path / "out.jsonl")]
    assert names == [f"Anna{i}" for i in range(200)]


def run_on_streams(tmp_path: Path, shell: str) -> subprocess.CompletedProcess:
    """Run a line of shell in which `tag` is the command from standard input to standard output."""
    tests = Path(__file__).parent
    (tmp_path / "command.py").write_text(COMMAND.format(package=str(tests.parent / "modeling_umgf")))
    command = f"{sys.executable} command.py tag - --model=. --output=- --batch_size=1 --device=cpu"
    return subprocess.run(
        ["bash", "-c", f"tag() {{ {command}; }}; {shell}"],
        cwd=tmp_path,
        env=os.environ | {"PYTHONPATH": str(tests)},
        capture_output=True,
        text=True,
        timeout=300,
    )


def test_standard_input_is_tagged_to_standard_output_which_holds_records_alone(tmp_path):
    write_jsonl(tmp_path / "posts.jsonl", POSTS)
    run = run_on_streams(tmp_path, 'tag < posts.jsonl; yes \'{"text": "Anna"}\' | head -n 9999 | tag | head -n 1 >&2')
    assert [json.loads(line)["id"] for line in run.stdout.split("\n")[:-1]] == [post["id"] for post in POSTS]
    assert "5 posts tagged; 4 entities, 1 with an error" in run.stderr
    assert "error: standard output was closed by its reader." in run.stderr  # `tag | head`
    assert not re.search("Traceback|Exception|leaked", run.stderr)


def words_of(block: str) -> list[tuple]:
    return [tuple(line.split("\t")) for line in block.split("\n")[1:]]


def places(entities: list[dict]) -> list[tuple]:
    return [(entity["entity_group"], entity["word"], entity["start"], entity["end"]) for entity in entities]


def test_the_command_agrees_with_the_pipeline(tagger, model, picture, tmp_path, capsys):
    images = tmp_path / "pictures"
    images.mkdir()
    picture.save(images / "p.png")
    objects = [{"box": [0, 0, 30, 30], "phrase": {"start": 0, "end": 1}}, {"box": [5, 5, 60, 40], "phrase": None}]
    posts = [
        {"id": 7, "text": "Anna 👩‍👩‍👧 meets\u00a0Bob &amp; http://t.co/aB3", "image": "p.png", "user": "ignored"},
        {"text": "שלום Rome cafe\u0301 #tag", "image": "missing.png"},
        {"text": "Rome"},
        {"words": ["Anna", "meets", "Bob"], "image": "p.png", "objects": objects},
        {"text": None},
        {"words": ["Anna", None], "image": "missing.png"},
        {"text": "Rome", "image": "p.png", "objects": [{"phrase": None}]},
        {"text": "Rome", "image": "p.png", "objects": [{"box": [0, 0, 9, 9], "phrase": {"start": 1, "end": 0}}]},
        {"text": "Rome", "object_features": [[0.0, 1.0]]},
    ] * 3
    input_file = write_jsonl(tmp_path / "posts.jsonl", posts)
    arguments = [str(input_file), f"--images={images}", f"--model={model}", "--batch_size=4"]
    # one process starts: there is one chunk
    assert main(["tag", *arguments, f"--output={tmp_path}/out.jsonl", "--num_proc=2"]) == 0
    printed = capsys.readouterr()
    assert "27 posts tagged" in printed.out and "15 with an error, 3 with a warning" in printed.out
    assert "posts.jsonl, post 2 (id 2): tagged without its picture: " in printed.err
    assert "missing.png: no such file" in printed.err
    records = read_jsonl(tmp_path / "out.jsonl")
    assert main(["tag", *arguments, f"--output={tmp_path}/out.conll"]) == 0
    blocks = (tmp_path / "out.conll").read_text(encoding="utf-8").split("\n\n")[:-1]
    assert [record["id"] for record in records] == [post.get("id", number) for number, post in enumerate(posts, 1)]
    for post, record, block in zip(posts, records, blocks, strict=True):
        post = post | ({"image": images / post["image"]} if "image" in post else {})
        if "warning" in record:
            assert record["warning"].endswith("missing.png: no such file")
            del post["image"]
        if "object_features" in post:
            assert "this model reads" in record["error"] and words_of(block) == []  # of another width than the model's
            continue
        expected = tagger(post)
        words = words_of(block)
        if "error" in expected:
            assert record["error"] == expected["error"] and words == []
            continue
        assert record["text"] == post.get("text", "Anna meets Bob")
        assert places(record["entities"]) == places(expected)
        scores = [entity["score"] for entity in expected]
        assert [entity["score"] for entity in record["entities"]] == pytest.approx(scores, abs=1e-4)
        assert all(record["text"][e["start"] : e["end"]] == e["word"] for e in record["entities"])
        rows = tagger(post, aggregation_strategy="none")
        labels = spans_to_tags(entity_spans([row["entity"] for row in rows]), len(rows))  # as conlleval reads them
        assert words == list(zip([row["word"] for row in rows], labels, strict=True))


def test_a_folder_that_is_no_model_is_one_line(tagger, tmp_path, capsys):
    posts = write_jsonl(tmp_path / "posts.jsonl", POSTS)
    for name in (str(tmp_path), "no/such-model"):
        assert main(["tag", "--model", name, "--output", str(tmp_path / "out.jsonl"), str(posts)]) == 1
        error = capsys.readouterr().err
        assert error.startswith(f"error: cannot load the model {name}") and error.count("\n") == 1
    assert not (tmp_path / "out.jsonl").exists()


def test_a_detector_finds_the_objects_of_a_file(tagger, model, picture, tmp_path):
    detector = save_detector("owlv2", tmp_path / "detector")
    picture.resize((120, 80)).save(tmp_path / "p.png")
    posts = write_jsonl(tmp_path / "posts.jsonl", [{"text": "Anna meets Bob", "image": "p.png"}])
    tag(posts, tmp_path / "out.jsonl", model, detector=detector, min_score=0.0)
    (record,) = read_jsonl(tmp_path / "out.jsonl")
    grounder = Grounder.from_pretrained(detector, min_score=0.0)
    expected = tagger({"text": "Anna meets Bob", "image": tmp_path / "p.png"}, grounder=grounder)
    assert [entity["word"] for entity in record["entities"]] == [entity["word"] for entity in expected]
    for entity, other in zip(record["entities"], expected, strict=True):
        assert len(entity["objects"]) > 1
        assert [node["query"] for node in entity["objects"]] == [node["query"] for node in other["objects"]]
    with pytest.raises(TaggingError, match="cannot load the detector"):
        tag(posts, tmp_path / "new.jsonl", model, detector=model)


def test_a_labeler_names_the_objects_for_a_system_that_asks_for_them(rgcn_tagger, picture, tmp_path):
    rgcn_tagger.save_pretrained(tmp_path / "rgcn")
    labeler = save_labeler("yolos", tmp_path / "labeler")
    picture.resize((120, 80)).save(tmp_path / "p.png")
    posts = write_jsonl(tmp_path / "posts.jsonl", [{"text": "Anna meets Bob", "image": "p.png"}])
    model = tmp_path / "rgcn"
    tag(posts, tmp_path / "out.jsonl", model, labeler=labeler, min_score=0.0)
    (record,) = read_jsonl(tmp_path / "out.jsonl")
    find = ObjectLabeler.from_pretrained(labeler, min_score=0.0)
    expected = rgcn_tagger({"text": "Anna meets Bob", "image": tmp_path / "p.png"}, labeler=find)
    assert record["entities"] and "intra" in {one["relation"] for one in record["entities"][0]["neighbors"]}
    for own, other in zip(record["entities"], expected, strict=True):
        assert [one["id"] for one in own["neighbors"]] == [one["id"] for one in other["neighbors"]]
    with pytest.raises(TaggingError, match="RgcnProcessor calls no grounder; leave out --detector"):
        tag(posts, tmp_path / "new.jsonl", model, detector=labeler)
    with pytest.raises(TaggingError, match="cannot load the labeler"):
        tag(posts, tmp_path / "new.jsonl", model, labeler=model)


def test_one_bad_post_of_a_batch_has_the_error_and_the_others_their_result(tagger, model, tmp_path):
    """Features of another width than the model's are noticed only by the model itself."""
    width = tagger.model.config.object_feature_size
    posts = [{"text": f"Anna {i}", "object_features": [[0.5] * (3 if i == 5 else width)]} for i in range(9)]
    tag(write_jsonl(tmp_path / "posts.jsonl", posts), tmp_path / "out.jsonl", model)
    records = read_jsonl(tmp_path / "out.jsonl")
    assert ["error" in record for record in records] == [i == 5 for i in range(9)]
    for post, record in zip(posts, records, strict=True):
        assert "error" in record or places(record["entities"]) == places(tagger(post))


def test_a_device_that_fails_ends_the_run_instead_of_spoiling_all_posts(tagger, model, tmp_path, monkeypatch):
    def fail(*arguments, **settings):
        raise torch.AcceleratorError("device-side assert triggered")

    monkeypatch.setattr(type(tagger), "__call__", fail)
    posts = write_jsonl(tmp_path / "posts.jsonl", POSTS)
    with pytest.raises(TaggingError, match="the device failed: device-side assert"):
        tag(posts, tmp_path / "out.jsonl", model)
    assert not (tmp_path / "out.jsonl").exists()
