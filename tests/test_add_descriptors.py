"""Adding computed columns to a dataset: what they hold, that nothing is done twice, and that a kill does no harm."""

import io
import logging
import os
import shutil
import subprocess
import sys
from pathlib import Path

import datasets
import numpy as np
import pytest
import torch
from datasets import Dataset, DatasetDict, load_dataset
from PIL import Image
from tiny_describers import save_captioner, save_labeler
from tiny_detectors import save_detector
from transformers import BertConfig, BertModel, ConvNextImageProcessor, ResNetConfig, ResNetModel

from dataset_scripts import add_descriptors
from dataset_scripts.columns.contract import dataset_features
from dataset_scripts.reading.splits import load_splits
from dataset_scripts.writing.artefact_store import ArtefactStore
from dataset_scripts.writing.dataset_folder import write_dataset
from modeling_umgf.descriptors import Captioner, ObjectLabeler, PictureFeatures
from modeling_umgf.grounding import Grounder
from modeling_umgf.pictures import open_picture

REPOSITORY = Path(__file__).parents[1]
NO_PICTURE = 3
TRUNCATED = 4
WORDS = ["we saw Will Smith in #NewYork".split(), "RT @bob : a Red Square".split(), "Location Person".split()]


def encoded(image: Image.Image) -> dict:
    buffer = io.BytesIO()
    image.save(buffer, "PNG")
    return {"bytes": buffer.getvalue(), "path": None}


def picture(seed: int) -> Image.Image:
    generator = np.random.default_rng(seed)
    width, height = generator.integers(30, 90, 2)
    return Image.fromarray(generator.integers(0, 256, (height, width, 3), dtype=np.uint8))


def rows(seeds: list[int | None]) -> dict:
    """Posts with a random picture each; None = no picture, -1 = a truncated one."""
    images = [None if seed is None else encoded(picture(abs(seed))) for seed in seeds]
    for image, seed in zip(images, seeds, strict=True):
        if seed == -1:
            image["bytes"] = image["bytes"][:-500]
    words = [WORDS[i % 3] for i in range(len(seeds))]
    tags = [[0] * len(own) for own in words]
    return {"id": [str(i) for i in range(len(seeds))], "tokens": words, "ner_tags": tags, "image": images}


@pytest.fixture(scope="module")
def posts(tmp_path_factory) -> Path:
    """Twelve posts, one without a picture, one with a truncated one; 9 different pairs of words and picture."""
    features = dataset_features(["O", "B-PER", "I-PER"])
    splits = {"train": rows([1, 2, 3, None, -1, 6, 1, 8, 6]), "test": rows([10, 3, 12])}
    dataset = DatasetDict({name: Dataset.from_dict(own, features=features) for name, own in splits.items()})
    folder = tmp_path_factory.mktemp("data") / "posts"
    write_dataset(dataset, folder, title="Some posts", description="Made for a test.")
    return folder


@pytest.fixture(scope="module")
def models(tmp_path_factory) -> dict[str, Path]:
    folder = tmp_path_factory.mktemp("models")
    torch.manual_seed(0)
    encoder = ResNetConfig(embedding_size=8, hidden_sizes=[8, 16], depths=[1, 1], layer_type="basic")
    ResNetModel(encoder).save_pretrained(folder / "encoder")
    ConvNextImageProcessor().save_pretrained(folder / "encoder")
    detector = save_detector("grounding-dino", folder / "detector")
    tokenizer = Grounder.from_pretrained(detector).processor.tokenizer
    sizes = {"hidden_size": 16, "num_hidden_layers": 1, "num_attention_heads": 2, "intermediate_size": 16}
    BertModel(BertConfig(vocab_size=len(tokenizer), **sizes)).save_pretrained(folder / "text_encoder")
    tokenizer.save_pretrained(folder / "text_encoder")
    return {
        "detector": detector,
        "encoder": folder / "encoder",
        "labeler": save_labeler("detr", folder / "labeler"),
        "captioner": save_captioner("blip", folder / "captioner"),
        "text_encoder": folder / "text_encoder",
    }


@pytest.fixture
def run(posts, models, tmp_path, monkeypatch, caplog):
    """Run the command in this process; returns the folder it wrote."""
    caplog.set_level(logging.INFO)

    def run(*columns: str, output: str = "out", dataset: Path = posts, **options) -> Path:
        argv = arguments(models, dataset, tmp_path / output, columns, options)
        monkeypatch.setattr(sys, "argv", ["add_descriptors", *argv])
        add_descriptors.main()
        return tmp_path / output

    run.folder = tmp_path
    return run


def arguments(models: dict[str, Path], dataset: Path, output: Path, columns, options: dict) -> list[str]:
    settings = {"noun_phrase_extractor": "capitals", "min_score": 0.0, "label_min_score": 0.0, "batch_size": 2}
    settings |= {"cache_dir": output.parent / "cache"} | models | options
    argv = [dataset, "--output_dir", output]
    for name, value in settings.items():
        argv.append(f"--{name}")
        if value is not None:
            argv.append(value)
    return [str(part) for part in (*argv, "--columns", *columns)]


def undecoded(folder: Path, split: str = "train") -> Dataset:
    return load_dataset(str(folder), split=split).cast_column("image", datasets.Image(decode=False))


def files(folder: Path) -> dict[str, bytes]:
    return {str(path.relative_to(folder)): path.read_bytes() for path in sorted(folder.rglob("*")) if path.is_file()}


def fail(*arguments, **options):
    pytest.fail("a model was loaded although all results are known")


ALL = ("object_features", "caption", "objects", "object_labels", "text_embedding", "noun_phrases")


@pytest.fixture(scope="module")
def described(posts, models, tmp_path_factory) -> Path:
    """The posts with all columns."""
    folder = tmp_path_factory.mktemp("described") / "out"
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(sys, "argv", ["add_descriptors", *arguments(models, posts, folder, ALL, {})])
        add_descriptors.main()
    return folder


def test_all_columns_come_in_the_order_of_a_dataset_and_the_others_stay(posts, described):
    before = undecoded(posts)
    after = undecoded(described)
    names = "id tokens ner_tags image noun_phrases objects object_features caption object_labels text_embedding"
    assert list(after.features) == names.split()
    for name, feature in before.features.items():
        assert after.features[name] == feature and after[name][:] == before[name][:]
    assert load_splits(str(described))["test"].num_rows == 3


def test_cells_are_what_the_models_say_of_each_picture(described, models):
    features = PictureFeatures.from_pretrained(models["encoder"])
    for row in undecoded(described, "test"):
        image = open_picture(row["image"])
        for node in row["objects"]:
            x0, y0, x1, y1 = node["box"]
            assert 0 <= x0 < x1 <= image.width and 0 <= y0 < y1 <= image.height
        expected = features(features.image_processor.crop(image, [node["box"] for node in row["objects"]])).mean(1)
        torch.testing.assert_close(torch.tensor(row["object_features"]), expected, rtol=1e-4, atol=1e-5)
        assert row["caption"] == Captioner.from_pretrained(models["captioner"])([image])[0]
        assert row["object_labels"] == ObjectLabeler.from_pretrained(models["labeler"], min_score=0.0)([image])[0]
        assert np.linalg.norm(row["text_embedding"]) == pytest.approx(1, abs=1e-5)


def test_noun_phrases_and_edges_are_spans_of_the_words(described):
    assert undecoded(described, "test")["noun_phrases"][:] == [
        [{"start": 2, "end": 4}, {"start": 5, "end": 6}],
        [{"start": 4, "end": 6}],
        [{"start": 0, "end": 2}],
    ]
    for row in undecoded(described):
        assert all(node["phrase"] in [None, *row["noun_phrases"]] for node in row["objects"])


def test_without_a_readable_picture_nothing_is_found_and_the_reason_is_told(described, posts):
    train = undecoded(described)
    for index in (NO_PICTURE, TRUNCATED):
        row = train[index]
        assert (row["objects"], row["object_features"], row["object_labels"], row["caption"]) == ([], [], [], None)
        assert row["image"] == undecoded(posts)[index]["image"]
    card = (described / "README.md").read_text()
    assert "# Some posts" in card and "Made for a test." in card
    assert "pictures: 10 done, 1 failed, 1 posts without" in card
    assert "failed, damaged picture (" in card
    phrases = sum(len(row["noun_phrases"]) for row in [*train, *undecoded(described, "test")] if row["objects"])
    assert f"noun phrases: {phrases} with an object, 0 without" in card


def test_a_second_run_loads_no_model_and_gives_the_same_files(run, monkeypatch, caplog):
    first = files(run("objects", "caption"))
    assert "objects: 9 computed, 0 known before" in caplog.text
    assert "caption: 8 computed, 0 known before" in caplog.text
    monkeypatch.setattr(Grounder, "from_pretrained", fail)
    monkeypatch.setattr(Captioner, "from_pretrained", fail)
    caplog.clear()
    assert files(run("objects", "caption", output="again")) == first
    assert "objects: 0 computed, 9 known before" in caplog.text


def test_changed_settings_words_or_weights_do_not_meet_old_results(run, models, posts, tmp_path, caplog):
    train = undecoded(run("objects"))
    caplog.clear()
    fewer = undecoded(run("objects", max_objects=3, output="fewer"))
    assert "objects: 9 computed, 0 known before" in caplog.text
    assert fewer[0]["objects"] == train[0]["objects"][:3]

    caplog.clear()
    run("objects", output="same")
    assert "objects: 0 computed, 9 known before" in caplog.text

    shutil.copytree(models["detector"], tmp_path / "detector")
    caplog.clear()
    run("objects", detector=tmp_path / "detector", output="copy")
    assert "objects: 0 computed, 9 known before" in caplog.text  # a folder of another place with the same content
    save_detector("grounding-dino", tmp_path / "detector", seed=1)
    caplog.clear()
    run("objects", detector=tmp_path / "detector", output="other")
    assert "objects: 9 computed, 0 known before" in caplog.text

    splits = load_dataset(str(posts))
    splits["train"] = splits["train"].map(lambda row: {"tokens": [word.upper() for word in row["tokens"]]})
    write_dataset(splits, tmp_path / "shouted", title="Some posts", description="")
    caplog.clear()
    run("objects", "caption", dataset=tmp_path / "shouted", output="shouted_objects")
    assert "objects: 6 computed, 3 known before" in caplog.text


def test_new_pictures_are_all_that_a_run_on_more_posts_computes(run, posts, tmp_path, caplog):
    run("caption")
    splits = load_dataset(str(posts))
    more = Dataset.from_dict(rows([77, 78]), features=splits["train"].features)
    splits["train"] = datasets.concatenate_datasets([splits["train"], more])
    write_dataset(splits, tmp_path / "more", title="More", description="")
    caplog.clear()
    run("caption", dataset=tmp_path / "more", output="more_captions")
    assert "caption: 2 computed, 8 known before" in caplog.text


@pytest.mark.parametrize(("of", "rows_of_a_picture"), [("picture", 1), ("grid", 28 * 28)])
def test_features_of_the_whole_picture_or_of_its_grid(run, models, of, rows_of_a_picture):
    train = undecoded(run("object_features", features_of=of))
    sizes = [len(cells) for cells in train["object_features"]]
    assert sizes == [0 if i in (NO_PICTURE, TRUNCATED) else rows_of_a_picture for i in range(9)]
    cells = PictureFeatures.from_pretrained(models["encoder"])([open_picture(train[0]["image"])])[0]
    expected = cells if of == "grid" else cells.mean(0, keepdim=True)
    torch.testing.assert_close(torch.tensor(train[0]["object_features"]), expected, rtol=1e-4, atol=1e-5)


def test_features_without_objects_are_those_of_the_whole_picture(run):
    assert [len(cells) for cells in undecoded(run("object_features"), "test")["object_features"]] == [1, 1, 1]


def test_decoding_in_several_processes_changes_nothing(run):
    assert files(run("objects", "object_features")) == files(
        run("objects", "object_features", output="parallel", num_proc=2, cache_dir=run.folder / "other")
    )


def test_two_processes_share_the_work_and_give_the_same_files(posts, models, tmp_path, described):
    argv = arguments(models, posts, tmp_path / "out", ALL, {})
    launch = [sys.executable, "-m", "accelerate.commands.launch", "--cpu", "--num_processes", "2"]
    launch += "--num_machines 1 --mixed_precision no --dynamo_backend no --main_process_port 0".split()
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    command = [*launch, "-m", "dataset_scripts.add_descriptors", *argv]
    result = subprocess.run(command, cwd=REPOSITORY, env=environment, capture_output=True, text=True, timeout=900)
    assert result.returncode == 0, result.stderr[-3000:]
    assert result.stderr.count("pictures: 10 done, 1 failed, 1 posts without") == 1
    assert files(tmp_path / "out") == files(described)


@pytest.mark.parametrize(
    ("columns", "options", "message"),
    [
        (("objects",), {"dataset": "no/such/folder"}, "no/such/folder: load_dataset can't load it"),
        (("objects",), {"detector": "no/such/model"}, "no/such/model: is neither a folder nor a model"),
        (("objects", "object_features"), {"features_of": "grid"}, "do not fit the column objects"),
        (("noun_phrases",), {"noun_phrase_extractor": "stanford"}, 'there is no noun phrase extractor "stanford"'),
    ],
)
def test_bad_input_is_one_sentence_and_writes_nothing(run, columns, options, message):
    with pytest.raises(ValueError) as caught:
        run(*columns, **options)
    assert message in str(caught.value) and "\n" not in str(caught.value)
    assert not (run.folder / "out").exists()


def test_features_do_not_outlive_their_objects(run, described):
    with pytest.raises(ValueError, match="add object_features to --columns"):
        run("objects", dataset=described)


def test_phrases_can_be_joined_over_of(run, posts, tmp_path):
    splits = load_dataset(str(posts))
    splits["test"] = splits["test"].map(lambda row: {"tokens": "King of Spain".split(), "ner_tags": [0] * 3})
    write_dataset(splits, tmp_path / "kings", title="Kings", description="")
    assert undecoded(run("noun_phrases", dataset=tmp_path / "kings"), "test")[0]["noun_phrases"] == [
        {"start": 0, "end": 1},
        {"start": 2, "end": 3},
    ]
    assert "pictures:" not in (run.folder / "out" / "README.md").read_text()  # nobody looked at them
    joined = undecoded(run("noun_phrases", dataset=tmp_path / "kings", output="joined", merge_of=None), "test")
    assert joined[0]["noun_phrases"] == [{"start": 0, "end": 3}]


def test_an_output_folder_with_other_files_is_refused_before_any_work(run, monkeypatch):
    monkeypatch.setattr(Grounder, "from_pretrained", fail)
    (run.folder / "out").mkdir()
    (run.folder / "out" / "thesis.tex").write_text("")
    with pytest.raises(ValueError, match="holds other files than a dataset"):
        run("objects")


def test_a_store_keeps_json_and_tensors(tmp_path):
    store = ArtefactStore(tmp_path, "caption", {"model": "a"})
    store["0" * 64] = {"text": "é", "box": [0.1, 1e-30]}
    store["f" * 64] = torch.tensor([[0.5, -1.0]])
    again = ArtefactStore(tmp_path, "caption", {"model": "a"})
    assert again["0" * 64] == {"text": "é", "box": [0.1, 1e-30]}
    assert again["f" * 64].tolist() == [[0.5, -1.0]]
    assert "1" * 64 not in again
    assert "0" * 64 not in ArtefactStore(tmp_path, "caption", {"model": "b"})
    assert not list(tmp_path.rglob(".*"))
