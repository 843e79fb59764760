"""One post of a dataset as a picture and a page."""

import sys

import pytest
from datasets import Dataset, DatasetDict
from PIL import Image, ImageColor

from dataset_scripts import show_example
from dataset_scripts.columns.contract import dataset_features
from dataset_scripts.writing.dataset_folder import write_dataset
from modeling_umgf.drawing import COLORS

WORDS = ["<i>Anna</i>", "in", "Rome"]
GENERAL = {"box": [0.0, 0.0, 40.0, 20.0], "score": 0.9, "query": "misc", "phrase": None}
ANNA = {"box": [10.0, 5.0, 30.0, 15.0], "score": 0.75, "query": "Anna", "phrase": {"start": 0, "end": 1}}


@pytest.fixture(scope="module")
def dataset(tmp_path_factory):
    folder = tmp_path_factory.mktemp("data")
    Image.new("RGB", (40, 20), "white").save(folder / "a.png")
    (folder / "c.png").write_bytes((folder / "a.png").read_bytes()[:60])
    rows = {
        "id": ["a", "b", "c", "d"],
        "tokens": [WORDS] * 4,
        "ner_tags": [[1, 0, 3]] * 4,
        "image": [str(folder / "a.png"), None, str(folder / "c.png"), str(folder / "a.png")],
        "objects": [[GENERAL, ANNA], [], [], None],
        "caption": ["a <b>white</b> wall", None, None, None],
        "object_labels": [["wall", "dog"], [], [], None],
    }
    labels = ["O", "B-PER", "I-PER", "B-LOC", "I-LOC"]
    features = dataset_features(labels, ["objects", "caption", "object_labels"])
    train = Dataset.from_dict({name: rows[name] for name in features}, features=features)
    test = train.select([1])
    test = test.map(lambda row: {"id": "z"})
    write_dataset(DatasetDict({"train": train, "test": test}), folder / "posts", title="Posts", description="")
    return folder / "posts"


@pytest.fixture
def run(dataset, tmp_path, monkeypatch):
    def run(*options: str):
        monkeypatch.setattr(
            sys, "argv", ["show_example", str(dataset), "--output_dir", str(tmp_path / "new"), *options]
        )
        show_example.main()
        return tmp_path / "new"

    return run


def test_writes_a_drawing_and_a_page(run, capsys):
    folder = run("--id", "a")
    assert capsys.readouterr().out.split() == [str(folder / "a.png"), str(folder / "a.html")]
    drawing = Image.open(folder / "a.png")
    assert drawing.getpixel((201, 200)) == ImageColor.getrgb(COLORS[0])  # left edge of Anna's box, 20 times as large
    page = (folder / "a.html").read_text(encoding="utf-8")
    for text in (
        "&lt;i&gt;Anna&lt;/i&gt;",
        "<sub>PER</sub>",
        "<sub>LOC</sub>",
        "0 misc 0.90: linked to every word",
        "1 Anna 0.75: linked to &lt;i&gt;Anna&lt;/i&gt;",
        "caption: a &lt;b&gt;white&lt;/b&gt; wall",
        "object labels: wall, dog",
    ):
        assert text in page
    assert sorted(path.name for path in folder.iterdir()) == ["a.html", "a.png"]


def test_a_post_without_a_readable_picture_says_why(run):
    assert "no picture" in (run("--id", "b") / "b.html").read_text()
    assert "damaged picture" in (run("--id", "c") / "c.html").read_text()


def test_where_nobody_looked_the_whole_picture_is_the_node(run):
    assert "0 whole picture: linked to every word" in (run("--id", "d") / "d.html").read_text()


def test_the_post_is_looked_for_in_all_splits_or_in_one(run):
    assert (run("--id", "z") / "z.png").exists()
    with pytest.raises(ValueError, match="there is no post z; the first ones are a, b, c"):
        run("--id", "z", "--split", "train")
    with pytest.raises(ValueError, match="has no split dev, only train, test"):
        run("--id", "z", "--split", "dev")


def test_a_dataset_that_is_none_is_named(monkeypatch):
    monkeypatch.setattr(sys, "argv", ["show_example", "no/such/folder", "--id", "a"])
    with pytest.raises(ValueError, match="no/such/folder: load_dataset can't load it"):
        show_example.main()
