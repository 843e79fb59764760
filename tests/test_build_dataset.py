"""build_dataset writes a folder that load_dataset opens, with honest pictures and a card that says what is in it."""

import json
import logging
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from datasets import ClassLabel, Dataset, DatasetDict, Features, Image, List, Value, load_dataset
from huggingface_hub import DatasetCard
from PIL import Image as PILImage

from dataset_scripts import build_dataset
from dataset_scripts.checks.twitter_releases import check_release, label_version
from dataset_scripts.reading import picture_check
from dataset_scripts.reading.bad_input import BadInput
from dataset_scripts.reading.picture_check import PICTURE_OUTCOMES
from dataset_scripts.reading.splits import load_splits, read_splits
from dataset_scripts.writing import dataset_folder
from dataset_scripts.writing.dataset_folder import write_dataset
from modeling_umgf.split_counts import count_split

SHARED = Path(__file__).parents[1].parent / "shared" / "data"
needs_twitter = pytest.mark.skipif(not SHARED.is_dir(), reason="the Twitter data are not here")

POSTS = "IMGID:{0}\nOslo\tB-LOC\nnow\tO\n\n"


@pytest.fixture
def photo():
    return PILImage.fromarray(np.random.default_rng(0).integers(0, 256, (40, 60, 3), dtype=np.uint8))


@pytest.fixture
def posts(tmp_path, photo):
    """Six training posts, one with each fate of a picture, and a folder of pictures."""
    folder = tmp_path / "pictures"
    folder.mkdir()
    photo.save(folder / "good.jpg")
    photo.save(folder / "other.png")
    PILImage.new("RGB", (50, 50), (200, 10, 10)).save(folder / "blank.jpg")
    (folder / "broken.jpg").write_bytes((folder / "good.jpg").read_bytes()[:700])
    (folder / "text.jpg").write_text("<html>404</html>")
    (tmp_path / "train.txt").write_text(
        "".join(map(POSTS.format, ["good", "absent", "other", "blank", "broken", "text"]))
    )
    (tmp_path / "test.txt").write_text(POSTS.format("good2"))
    return {"train": tmp_path / "train.txt", "test": tmp_path / "test.txt"}


def command(*arguments):
    run = subprocess.run(
        [sys.executable, "-m", "dataset_scripts.build_dataset", *map(str, arguments)], capture_output=True, text=True
    )
    return run.returncode, run.stderr


def run_main(monkeypatch, *arguments):
    monkeypatch.setattr(sys, "argv", ["build_dataset", *map(str, arguments)])
    build_dataset.main()


def reload(folder, tmp_path):
    return load_dataset(str(folder), cache_dir=str(tmp_path / "cache"))


def test_unusable_pictures_become_none_and_are_counted_never_replaced(posts, tmp_path, caplog):
    with caplog.at_level(logging.INFO):
        splits, outcomes = read_splits(posts, image_dir=tmp_path / "pictures")
    assert [row["image"] is not None for row in splits["train"]] == [True, False, True, False, False, False]
    assert dict(outcomes["train"]) == {"found": 2, "missing": 1, "blank": 1, "unreadable": 2}
    assert "train: pictures of 6 posts: 2 found, 1 missing, 2 unreadable, 1 blank, 0 none given" in caplog.text
    assert "post broken, unreadable: " in caplog.text
    assert "test: not one picture was found" in caplog.text


def test_written_folder_loads_with_the_original_bytes_of_the_pictures(posts, tmp_path, monkeypatch):
    out = tmp_path / "out"
    posts["train"].rename(tmp_path / "moved.txt")
    pictures = tmp_path / "pictures"
    files = ["--train", tmp_path / "moved.txt", "--test", posts["test"]]
    run_main(monkeypatch, *files, "--image_dir", pictures, "--output_dir", out)
    before = {path.name: path.read_bytes() for path in pictures.iterdir()}
    for path in pictures.iterdir():
        path.unlink()
    splits = reload(out, tmp_path)
    assert {name: len(split) for name, split in splits.items()} == {"train": 6, "test": 1}
    cells = splits["train"].cast_column("image", Image(decode=False))["image"][:]
    assert cells[0] == {"bytes": before["good.jpg"], "path": "good.jpg"}
    assert cells[2] == {"bytes": before["other.png"], "path": "other.png"}
    assert [cell is None for cell in cells] == [False, True, False, True, True, True]
    assert splits["train"][0]["image"].size == (60, 40)
    assert splits["train"].features["ner_tags"].feature.names == ["O", "B-LOC", "I-LOC"]


def test_card_says_what_is_in_the_folder(posts, tmp_path, monkeypatch):
    out = tmp_path / "out"
    files = ["--train", posts["train"], "--test", posts["test"], "--image_dir", tmp_path / "pictures"]
    texts = ["--title", "My posts", "--label_version", "Labels: my own, second round."]
    run_main(monkeypatch, *files, *texts, "--output_dir", out)
    card = DatasetCard.load(out / "README.md")
    splits = {split["name"]: split for split in card.data.dataset_info["splits"]}
    assert splits["train"]["num_examples"] == 6
    assert [config["split"] for config in card.data.configs[0]["data_files"]] == ["train", "test"]
    assert [feature["name"] for feature in card.data.dataset_info["features"]] == ["id", "tokens", "ner_tags", "image"]
    assert "# My posts" in card.text and "Labels: my own, second round." in card.text
    assert "- train: 2 found, 1 missing, 2 unreadable, 1 blank, 0 none given" in card.text
    assert "| train | 6 | 12 | 2 | 6 | 6 | 0 |" in card.text


def test_several_shards_hold_every_post_once(posts, tmp_path, monkeypatch):
    monkeypatch.setattr(dataset_folder, "SHARD_BYTES", 1)
    monkeypatch.setattr(dataset_folder, "_ROWS_AT_A_TIME", 2)
    write_dataset(load_splits(posts, image_dir=tmp_path / "pictures"), tmp_path / "out", title="t", description="d")
    names = sorted(path.name for path in (tmp_path / "out" / "data").iterdir())
    assert names[1:] == [f"train-{i:05d}-of-00003.parquet" for i in range(3)]
    loaded = reload(tmp_path / "out", tmp_path)["train"]
    assert loaded["id"][:] == ["good", "absent", "other", "blank", "broken", "text"]


def test_a_split_without_posts_is_refused(posts, tmp_path):
    splits = load_splits(posts)
    splits["test"] = splits["test"].select([])
    with pytest.raises(BadInput, match="the split test has no posts"):
        write_dataset(splits, tmp_path / "out", title="t", description="d")
    assert not (tmp_path / "out").exists()


def test_without_a_folder_of_pictures_there_are_none_and_it_is_said(posts, caplog):
    splits, outcomes = read_splits(posts)
    assert set(splits["train"]["image"]) == {None}
    assert dict(outcomes["train"]) == {"none given": 6}
    assert "no pictures" in caplog.text


def test_json_lines_name_their_pictures_and_keep_their_columns(tmp_path, photo):
    (tmp_path / "sub").mkdir()
    photo.save(tmp_path / "sub" / "a.webp")
    box = {"box": [1, 2, 30, 40], "score": 0.5, "query": "Ann", "phrase": {"start": 0, "end": 1}}
    records = [
        {"id": "a", "tokens": ["Ann"], "tags": ["B-PER"], "image": "sub/a.webp", "objects": [box], "caption": "two"},
        {"id": "b", "tokens": ["x"], "tags": ["O"], "image": None, "objects": [{**box, "phrase": None}]},
        {"id": "c", "tokens": ["x"], "tags": ["O"], "objects": []},
        {"id": "d", "tokens": ["x"], "tags": ["O"], "neighbors_inter": [{"id": "a", "score": 0.7186507764521871}]},
    ]
    path = tmp_path / "train.jsonl"
    path.write_text("\n".join(map(json.dumps, records)))
    write_dataset(load_splits({"train": path}), tmp_path / "out", title="t", description="d")
    rows = list(reload(tmp_path / "out", tmp_path)["train"])
    assert [row["image"] and row["image"].size for row in rows] == [(60, 40), None, None, None]
    assert rows[0]["objects"] == [box]
    assert rows[1]["objects"][0]["phrase"] is None
    assert [rows[2]["objects"], rows[3]["objects"]] == [[], None]
    assert rows[3]["neighbors_inter"] == [{"id": "a", "score": 0.7186507764521871}]
    assert list(rows[0]) == ["id", "tokens", "ner_tags", "image", "objects", "caption", "neighbors_inter"]


def test_captions_are_joined_by_id(posts, tmp_path):
    (tmp_path / "captions.txt").write_text("good.jpg :a photo : of noise\nother.jpg :more noise\nstray.jpg :nothing\n")
    captions = load_splits(posts, captions_file=tmp_path / "captions.txt")["train"]["caption"][:]
    assert captions == ["a photo : of noise", None, "more noise", None, None, None]
    (tmp_path / "captions.txt").write_text("good.jpg :fine\nother.jpg\n")
    with pytest.raises(BadInput, match="captions.txt:2: expected"):
        load_splits(posts, captions_file=tmp_path / "captions.txt")


def test_any_dataset_with_the_columns_is_conformed(posts, tmp_path, photo, caplog):
    photo.save(tmp_path / "p.png")
    own = Dataset.from_dict(
        {
            "tokens": [["Ann"], ["x", "y"]],
            "ner_tags": [["B-PER"], ["O", "I-PER"]],
            "image": [str(tmp_path / "p.png"), None],
            "language": ["en", "de"],
            "object_features": [[[1.0, 2.0]], None],
        }
    ).cast_column("image", Image())
    folder = tmp_path / "own"
    folder.mkdir()
    own.to_parquet(folder / "train-0.parquet")
    own.to_parquet(folder / "dev-0.parquet")
    splits = load_splits(str(folder))
    assert list(splits) == ["train", "validation"]
    assert splits["train"]["id"][:] == ["train-0", "train-1"]
    assert splits["train"].features["ner_tags"].feature.names == ["O", "B-PER", "I-PER"]
    assert [row["image"] and row["image"].size for row in splits["train"]] == [(60, 40), None]
    assert splits["train"]["object_features"][:] == [[[1.0, 2.0]], None]
    assert "left out the columns language" in caplog.text
    write_dataset(splits, tmp_path / "out", title="t", description="d")
    again = load_splits(str(tmp_path / "out"))
    assert again["train"].features == splits["train"].features
    assert again["train"]["ner_tags"][:] == splits["train"]["ner_tags"][:]
    with pytest.raises(BadInput, match="has pictures of its own"):
        load_splits(str(tmp_path / "out"), image_dir=tmp_path)


def test_a_dataset_with_other_names_schemes_and_numbers_gives_the_same_rows(tmp_path):
    """Columns of other names, labels in BIOES, numbers without names, and texts with spans."""
    names = ["O", "S-PER", "B-LOC", "I-LOC", "E-LOC"]
    bioes = Features({"words": List(Value("string")), "labels": List(ClassLabel(names=names))})
    words = [["Ann", "in", "New", "York"]]
    spans = [[{"start": 0, "end": 3, "type": "PER"}, {"start": 7, "end": 15, "type": "LOC"}]]
    for folder, own, settings in (
        ("named", Dataset.from_dict({"words": words, "labels": [[1, 0, 2, 4]]}, bioes), {}),
        (
            "numbers",
            Dataset.from_dict({"w": words, "ner": [[1, 0, 2, 4]]}),
            {"columns": {"tokens": "w"}, "tag_names": names},
        ),
        (
            "text",
            Dataset.from_dict({"text": ["Ann in New York"], "entities": spans, "tokens": [None]}),
            {"types": ["PER", "LOC"]},
        ),
    ):
        (tmp_path / folder).mkdir()
        own.to_parquet(tmp_path / folder / "train.parquet")
        split = load_splits(str(tmp_path / folder), **settings)["train"]
        assert split.features["ner_tags"].feature.names == ["O", "B-PER", "I-PER", "B-LOC", "I-LOC"]
        assert split["tokens"][:] == words
        assert split["ner_tags"][:] == [[1, 0, 3, 4]]


def test_a_picture_column_of_another_name_is_the_picture(tmp_path, photo):
    photo.save(tmp_path / "p.png")
    own = Dataset.from_dict({"tokens": [["Ann"]], "tags": [["B-PER"]], "photo": [str(tmp_path / "p.png")]})
    own.cast_column("photo", Image()).to_parquet(tmp_path / "train.parquet")
    (row,) = load_splits(str(tmp_path), columns={"image": "photo"})["train"]
    assert row["image"].size == (60, 40)


def test_the_command_takes_names_of_columns_and_of_tags(tmp_path, monkeypatch):
    (tmp_path / "train.csv").write_text("Satz,Wort,Name\n1,Anna,1\n,singt,0\n")
    naming = ["--columns", "word=Wort", "tag=Name", "id=Satz", "--tag_names", "O", "B-Work of art", "I-Work of art"]
    run_main(monkeypatch, "--train", tmp_path / "train.csv", *naming, "--output_dir", tmp_path / "out")
    (row,) = reload(tmp_path / "out", tmp_path)["train"]
    assert (row["id"], row["tokens"], row["ner_tags"]) == ("1", ["Anna", "singt"], [1, 0])
    with pytest.raises(BadInput, match="--columns takes FIELD=NAME, such as tokens=words, not 'Wort'"):
        run_main(monkeypatch, "--train", tmp_path / "train.csv", "--columns", "Wort", "--output_dir", tmp_path / "new")


@pytest.mark.parametrize(
    ("columns", "message"),
    [
        ({"tokens": [["a"], ["b", "c"]], "ner_tags": [["O"], ["O"]]}, "row 1: 2 words but 1 tags"),
        ({"tokens": [["a"]], "ner_tags": [["PERSON"]]}, "row 0: unknown tag 'PERSON'"),
        ({"tokens": [["a"]], "ner_tags": [[0]]}, "row 0: the tag is the number 0; name the tags"),
        ({"tokens": [["a"]]}, "row 0: a post needs tokens and tags"),
        (
            {"tokens": [["a"], None], "ner_tags": [["B-X"], ["O"]]},
            "row 1: a post needs tokens and tags.*found ner_tags",
        ),
        ({"tokens": [["a"], ["b"]], "ner_tags": [["B-X"], None]}, "row 1: a post needs tokens and tags.*found tokens"),
        ({"tokens": [["a", None]], "ner_tags": [["B-X", "O"]]}, "row 0: tokens must be a list of strings"),
        ({"tokens": [["a", "b"]], "ner_tags": [["B-X", None]]}, "row 0: tags must be a list of strings"),
        ({"id": [1, 1], "tokens": [["a"]] * 2, "ner_tags": [["B-X"]] * 2}, "row 1: the id 1 was used before"),
        ({"tokens": [["a"]], "ner_tags": [["B-X"]], "caption": [[1]]}, "row 0: caption must be a string"),
        ({"tokens": [["a"]], "ner_tags": [["B-X"]], "object_features": ["x"]}, "a column has the wrong type"),
    ],
)
def test_datasets_with_wrong_columns_are_refused(tmp_path, columns, message):
    Dataset.from_dict(columns).to_parquet(tmp_path / "train.parquet")
    with pytest.raises(BadInput, match=message) as error:
        load_splits(str(tmp_path))
    assert "\n" not in str(error.value)


def test_a_dataset_that_is_not_there_is_one_sentence(tmp_path):
    with pytest.raises(BadInput, match="load_dataset can't load it") as error:
        load_splits(str(tmp_path / "nowhere"))
    assert "\n" not in str(error.value)


@pytest.fixture
def no_picture_may_be_opened(monkeypatch):
    def fail(*arguments, **options):
        pytest.fail("a picture was opened")

    monkeypatch.setattr(picture_check, "open_picture", fail)
    monkeypatch.setattr(PILImage, "open", fail)


def test_words_alone_are_read_without_a_look_at_any_picture(posts, tmp_path, no_picture_may_be_opened, caplog):
    for folder in (tmp_path / "pictures", tmp_path / "absent"):
        splits, outcomes = read_splits(posts, image_dir=folder, look_at_pictures=False)
        assert list(splits["train"].features) == ["id", "tokens", "ner_tags"]
        assert splits["train"]["id"][:] == ["good", "absent", "other", "blank", "broken", "text"]
        assert outcomes == {"train": {}, "test": {}}
    assert "picture" not in caplog.text
    line = {"tokens": ["x"], "tags": ["B-X"], "image": "broken.jpg", "caption": "kept"}
    (tmp_path / "train.jsonl").write_text(json.dumps(line))
    (row,) = load_splits({"train": tmp_path / "train.jsonl"}, look_at_pictures=False)["train"]
    assert row == {"id": "train-0", "tokens": ["x"], "ner_tags": [1], "caption": "kept"}


def test_words_of_a_dataset_are_read_without_a_look_at_its_pictures(tmp_path, no_picture_may_be_opened):
    cells = [{"bytes": b"no picture", "path": "a.jpg"}, {"bytes": b"", "path": "b.jpg"}]
    rows = {"tokens": [["Ann"], ["x"]], "ner_tags": [["B-PER"], ["O"]], "object_features": [[[1.0]], None]}
    own = Dataset.from_dict({**rows, "image": cells}).cast_column("image", Image(decode=False))
    own.to_parquet(tmp_path / "train.parquet")
    splits = load_splits(str(tmp_path), image_dir=tmp_path, look_at_pictures=False)
    assert list(splits["train"].features) == ["id", "tokens", "ner_tags", "object_features"]
    assert splits["train"]["object_features"][:] == [[[1.0]], None]


# ------------------------------------------------------------------------------------- nothing half-written is left


def test_bad_input_is_one_line_and_leaves_nothing(posts, tmp_path, monkeypatch):
    before = sorted(tmp_path.rglob("*"))
    bad = tmp_path / "train.txt"
    bad.write_text(bad.read_text() + "IMGID:9\nword without tag\n")
    code, stderr = command("--train", bad, "--output_dir", tmp_path / "out")
    assert code != 0
    assert stderr.strip().splitlines() == [
        f"error: {bad}:26: expected word<TAB>tag, found 1 columns: 'word without tag'"
    ]
    code, stderr = command(
        "--train", posts["test"], "--image_dir", tmp_path / "absent", "--output_dir", tmp_path / "out"
    )
    assert code != 0
    assert stderr.strip() == f"error: {tmp_path / 'absent'}: there is no such folder of pictures"
    assert sorted(tmp_path.rglob("*")) == before


def test_failure_while_writing_leaves_the_old_dataset(posts, tmp_path, monkeypatch):
    splits = load_splits(posts)
    write_dataset(splits, tmp_path / "out", title="first", description="d")
    before = {path: path.read_bytes() for path in (tmp_path / "out").rglob("*") if path.is_file()}

    def full_disk(*_):
        raise OSError("no space left")

    monkeypatch.setattr(dataset_folder, "_card", full_disk)
    with pytest.raises(OSError, match="no space left"):
        write_dataset(DatasetDict(train=splits["test"]), tmp_path / "out", title="second", description="d")
    assert {path: path.read_bytes() for path in (tmp_path / "out").rglob("*") if path.is_file()} == before
    assert not list(tmp_path.glob(".out*"))


def test_a_picture_that_vanishes_while_writing_leaves_nothing(posts, tmp_path):
    splits = load_splits(posts, image_dir=tmp_path / "pictures")
    (tmp_path / "pictures" / "good.jpg").unlink()
    with pytest.raises(OSError):
        write_dataset(splits, tmp_path / "out", title="t", description="d")
    assert not (tmp_path / "out").exists() and not list(tmp_path.glob(".out*"))


def test_either_files_or_a_dataset(monkeypatch, posts, tmp_path):
    with pytest.raises(BadInput, match="either --dataset, or files"):
        run_main(monkeypatch, "--output_dir", tmp_path / "out")
    with pytest.raises(BadInput, match="either --dataset, or files"):
        run_main(monkeypatch, "--dataset", "x", "--train", posts["train"], "--output_dir", tmp_path / "out")


# ---------------------------------------------------------------------------------------------------- the real data


@needs_twitter
def test_twitter_releases_are_recognised_and_anything_else_is_not():
    files = {"train": SHARED / "twitter2015/train.txt", "validation": SHARED / "twitter2015/valid.txt"}
    counts = {name: count_split(split) for name, split in load_splits(files).items()}
    assert label_version(counts) == "Labels: Twitter-2015 in the release of UMT (Yu et al., 2020)."
    check_release("twitter2015", counts)
    counts["train"].starts.update({"MISC": 9, "ORG": 1})
    counts["validation"].starts.update({"MISC": 5})
    assert "first published (Zhang et al., 2018)" in label_version(counts)
    with pytest.raises(
        BadInput, match="train has 928 B-ORG, not 927; train has 940 B-MISC, not 931; validation has 225"
    ):
        check_release("twitter2015", counts)
    counts["train"].posts -= 1
    assert "none of the known releases" in label_version(counts)


@needs_twitter
def test_real_pictures_end_up_in_the_dataset(tmp_path):
    folder = SHARED / "tweet_images" / "images"
    splits, outcomes = read_splits({"train": SHARED / "twitter2017/train.txt"}, image_dir=folder)
    assert dict(outcomes["train"]) == {"found": 11, "missing": 3362}
    assert count_split(splits["train"]).pictures == 11
    assert set(outcomes["train"]) <= set(PICTURE_OUTCOMES)
    pictured = splits["train"].filter(lambda cell: cell is not None, input_columns="image")
    write_dataset(DatasetDict(train=pictured), tmp_path / "out", title="t", description="d")
    for row in reload(tmp_path / "out", tmp_path)["train"].cast_column("image", Image(decode=False)):
        assert row["image"]["bytes"] == (folder / f"{row['id']}.jpg").read_bytes()
