"""Word vectors of what was seen in pictures: which rows they become, what is left out, and that OCSGA reads them."""

import sys
from pathlib import Path

import pytest
from datasets import Dataset, DatasetDict, load_dataset

from dataset_scripts import add_word_vectors
from dataset_scripts.columns.contract import dataset_features
from dataset_scripts.writing.dataset_folder import write_dataset
from modeling_umgf.model_arguments import ModelArguments, build

LABELS = [["traffic light", "person"], None, ["vase", "Person"], []]
GLOVE = "traffic 1 2 3\nlight 3 4 5\nperson -1 0 1\n"


@pytest.fixture
def place(tmp_path) -> Path:
    (tmp_path / "glove.txt").write_text(GLOVE, encoding="utf-8")
    return tmp_path


def write_posts(folder: Path, **columns: list) -> str:
    words = [["Anna", "in", "Rome"]] * len(LABELS)
    rows = {"id": list("abcd"), "tokens": words, "ner_tags": [[1, 0, 0]] * 4, "image": [None] * 4, **columns}
    split = Dataset.from_dict(rows, features=dataset_features(["O", "B-PER", "I-PER"], rows))
    write_dataset(DatasetDict(train=split, test=split), folder, title="Posts", description="For a test.")
    return str(folder)


def run(monkeypatch, *arguments: object) -> None:
    monkeypatch.setattr(sys, "argv", ["add_word_vectors", *map(str, arguments)])
    add_word_vectors.main()


def test_each_label_is_the_mean_of_its_words_and_one_without_a_vector_is_left_out(place, monkeypatch):
    data = write_posts(place / "labelled", object_labels=LABELS)
    run(monkeypatch, data, "--output_dir", place / "out", "--word_vectors", place / "glove.txt")
    splits = load_dataset(str(place / "out"))
    for split in splits.values():
        assert split["object_features"][:] == [[[2, 3, 4], [-1, 0, 1]], [], [[-1, 0, 1]], []]
        assert split["object_labels"][:] == [own or [] if own is not None else None for own in LABELS]
    card = (place / "out" / "README.md").read_text(encoding="utf-8")
    assert "For a test." in card and "word vectors (glove.txt) of `object_labels`; 3 of 4 different texts" in card


def test_a_column_of_texts_becomes_knowledge_and_a_second_run_replaces_it(place, monkeypatch):
    data = write_posts(place / "labelled", caption=["a person", None, "light", "nothing"])
    for vectors in ("person 9 9 9\n", GLOVE):
        (place / "glove.txt").write_text(vectors, encoding="utf-8")
        given = ["--word_vectors", place / "glove.txt", "--column", "caption", "--to", "knowledge_features"]
        run(monkeypatch, data, "--output_dir", place / "out", *given)
        data = str(place / "out")
    cells = load_dataset(data)["test"]["knowledge_features"][:]
    assert cells == [[[-1, 0, 1]], [], [[3, 4, 5]], []]


def test_ocsga_is_built_on_them(place, monkeypatch):
    data = write_posts(place / "labelled", object_labels=LABELS)
    run(monkeypatch, data, "--output_dir", place / "out", "--word_vectors", place / "glove.txt")
    splits = load_dataset(str(place / "out"))
    text = {"model_type": "bilstm", "embedding_size": 3, "hidden_size": 8, "characters": "none"}
    config = {"num_heads": 2, "d_ff": 8}
    model, processor = build(ModelArguments(model_type="ocsga", text_config=text, config_overrides=config), splits)
    batch = processor(words=splits["test"]["tokens"][:], object_features=splits["test"]["object_features"][:])
    assert model.config.object_feature_size == 3
    assert batch["object_mask"].tolist() == [[True, True], [False, False], [True, False], [False, False]]
    assert model(**batch).logits.shape[:2] == (4, 3)


@pytest.mark.parametrize(
    ("columns", "arguments", "said"),
    [
        ({}, [], "has no column object_labels"),
        ({"object_labels": LABELS, "objects": [[]] * 4}, [], "has objects, which object_features belong to"),
        ({"object_labels": LABELS}, ["--column", "ner_tags"], "split train: its column ner_tags holds no texts"),
        ({"object_labels": [["vase"]] * 4}, [], "--word_vectors .*glove.txt: has a vector of none of the 1 words"),
        ({"object_labels": LABELS}, ["--word_vectors", "nowhere.txt"], "--word_vectors nowhere.txt: can't be read"),
    ],
)
def test_what_has_no_word_vectors_is_refused_and_nothing_is_written(place, monkeypatch, columns, arguments, said):
    data = write_posts(place / "labelled", **columns)
    with pytest.raises(add_word_vectors.BadInput, match=said):
        run(monkeypatch, data, "--output_dir", place / "out", "--word_vectors", place / "glove.txt", *arguments)
    assert not (place / "out").exists()
