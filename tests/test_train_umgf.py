"""The training command: what it leaves behind, and what it says to mistakes."""

import contextlib
import io
import json
from pathlib import Path

import pytest
import torch
from conftest import LABELS
from PIL import Image
from safetensors.torch import load_file
from transformers import AutoModel, AutoModelForTokenClassification, AutoProcessor

import train_umgf
from dataset_scripts.reading.conll import read_conll
from modeling_umgf import TextOnlyForTokenClassification, TextOnlyProcessor, systems

TEXT = {
    "model_type": "bert",
    "hidden_size": 16,
    "num_hidden_layers": 1,
    "num_attention_heads": 2,
    "intermediate_size": 32,
    "max_position_embeddings": 64,
}
VISION = {"model_type": "resnet", "embedding_size": 8, "hidden_sizes": [8], "depths": [1], "layer_type": "basic"}
TINY = {
    "text_config": TEXT,
    "vision_config": VISION,
    "config_overrides": {"d_model": 16, "num_heads": 2, "d_ff": 16, "dropout": 0.0},
}
WHOLE = TINY | {
    "num_train_epochs": 3,
    "per_device_train_batch_size": 2,
    "save_total_limit": 9,
    "learning_rate": 2e-2,
    "text_learning_rate": 2e-2,
}


def write_data(folder: Path) -> dict[str, str]:
    """Arguments for three small files, and pictures for every other post."""
    (folder / "images").mkdir(parents=True)
    arguments = {"image_dir": str(folder / "images")}
    for split in ("train", "validation", "test"):
        lines = []
        for i in range(12):
            name = f"{split}{i}"
            kind = ["PER", "LOC"][i % 2]
            words = ["see\tO", f"Anna\tB-{kind}", f"Marley\tI-{kind}", "now\tO"]
            lines += [f"IMGID:{name}", *words[: 3 + i % 2], ""]
            if i % 2:
                picture = Image.new("RGB", (20, 20), (200, 0, i))  # one colour alone would count as blank
                picture.paste((0, 0, 250), (5, 5, 15, 15))
                picture.save(folder / "images" / f"{name}.jpg")
        path = folder / f"{split}.txt"
        path.write_text("\n".join(lines), encoding="utf-8")
        arguments[f"{split}_file"] = str(path)
    return arguments


@pytest.fixture
def data(tmp_path) -> dict[str, str]:
    return write_data(tmp_path / "data")


@pytest.fixture(scope="module")
def trained(tmp_path_factory) -> tuple[Path, str]:
    """The output folder of a whole run, and what it printed."""
    folder = tmp_path_factory.mktemp("trained")
    with contextlib.redirect_stdout(io.StringIO()) as printed:
        run(folder / "run", write_data(folder / "data") | WHOLE | {"push_to_hub": False})
    return folder / "run", printed.getvalue()


def run(output_dir: Path, arguments: dict) -> None:
    fast = {"num_train_epochs": 2, "image_size": 16, "bootstrap_samples": 20, "disable_tqdm": True}
    settings = fast | {"output_dir": str(output_dir)} | arguments
    argv = []
    for name, value in settings.items():
        argv += [f"--{name}", json.dumps(value) if isinstance(value, dict) else str(value)]
    train_umgf.main(argv)


def results_of(output_dir: Path) -> dict[str, float]:
    return json.loads((output_dir / "all_results.json").read_text())


def message(capsys, output_dir: Path, arguments: dict) -> str:
    """Run a command that must fail; returns its one line, and checks that nothing was written."""
    with pytest.raises(SystemExit) as exit_:
        run(output_dir, arguments)
    assert isinstance(exit_.value.code, str) and "\n" not in exit_.value.code  # printed to stderr, exit status 1
    assert not output_dir.exists()
    return exit_.value.code


def test_one_command_trains_evaluates_predicts_and_the_auto_classes_load_the_result(trained):
    out, printed = trained
    results = results_of(out)
    for name in ("validation", "test", "test_without_pictures", "test_shuffled_pictures"):
        assert 0 <= results[f"{name}_f1_low"] <= results[f"{name}_f1"] <= results[f"{name}_f1_high"] <= 100
        assert f"{name} " in printed
        rows = read_predictions(out / f"{name}_predictions.conll")
        assert [row["id"] for row in rows] == [f"{name.split('_')[0]}{i}" for i in range(12)]
    assert AutoModel.from_pretrained(out).config.model_type == "umgf"
    model, processor = AutoModelForTokenClassification.from_pretrained(out), AutoProcessor.from_pretrained(out)
    assert sorted(model.config.label2id) == sorted(LABELS)
    batch = processor(text="see Anna Marley", images=Image.new("RGB", (20, 20)))
    assert model(**batch).predictions.shape == (1, 3)
    assert processor.image_processor.size["height"] == 16


def read_predictions(path: Path) -> list[dict]:
    lines = path.read_text(encoding="utf-8").split("\n")
    assert all(line.count("\t") == 2 for line in lines if line and not line.startswith("IMGID:"))
    two_columns = path.with_suffix(".gold")
    two_columns.write_text("\n".join("\t".join(line.split("\t")[:2]) for line in lines), encoding="utf-8")
    return read_conll(two_columns)


@pytest.mark.parametrize("model_type", list(systems()))
def test_the_text_only_twin_of_any_system_never_opens_a_picture(data, tmp_path, caplog, model_type):
    for picture in Path(data["image_dir"]).iterdir():
        picture.write_text("no picture")
    settings = {"config_overrides": {"dropout": 0.0, "num_heads": 2}, "processor_overrides": {"max_objects": 4}}
    twin = {"model_type": model_type, "text_only": True, "num_train_epochs": 1}
    run(tmp_path / "out", data | TINY | settings | twin)
    assert "The text-only twin has no max_objects, num_heads: these settings are left out." in caplog.messages
    results = results_of(tmp_path / "out")
    assert "test_f1" in results and "test_without_pictures_f1" not in results
    model = AutoModelForTokenClassification.from_pretrained(tmp_path / "out")
    assert type(model) is TextOnlyForTokenClassification
    assert model.model.vision_model is None and model.config.dropout == 0.0
    assert type(AutoProcessor.from_pretrained(tmp_path / "out")) is TextOnlyProcessor


def test_a_trained_model_is_evaluated_again_and_trained_further(trained, data, tmp_path):
    again = {"model_name_or_path": str(trained[0]), "test_file": data["test_file"]}
    run(tmp_path / "again", again | {"image_dir": data["image_dir"], "do_predict": True})
    assert results_of(trained[0])["test_f1"] == results_of(tmp_path / "again")["test_f1"] > 0
    assert not (tmp_path / "again" / "model.safetensors").exists()
    run(tmp_path / "further", data | {"model_name_or_path": str(trained[0]), "num_train_epochs": 1})
    assert (tmp_path / "further" / "model.safetensors").exists()


def test_training_goes_on_where_it_stopped(trained, data, tmp_path):
    run(tmp_path / "stopped", data | WHOLE | {"resume_from_checkpoint": str(trained[0] / "checkpoint-12")})
    assert results_of(trained[0])["test_f1"] == results_of(tmp_path / "stopped")["test_f1"]
    whole, stopped = (load_file(folder / "model.safetensors") for folder in (trained[0], tmp_path / "stopped"))
    torch.testing.assert_close(stopped, whole)


def test_a_settings_file_can_be_overridden_and_its_unknown_names_are_refused(data, tmp_path, capsys):
    settings = tmp_path / "settings.yaml"
    settings.write_text(
        "learning_rate: 5e-4\nnum_train_epochs: 7\noutput_dir: runs/x\ntext_config: {model_type: bert}\n"
    )
    model, _, training = train_umgf.parse_arguments([str(settings), "--num_train_epochs", "2"])
    assert (training.learning_rate, training.num_train_epochs) == (5e-4, 2)
    assert model.text_config == {"model_type": "bert"}
    settings.write_text("lerning_rate: 1\n")
    with pytest.raises(SystemExit, match="lerning_rate"):
        train_umgf.main([str(settings)])


def test_pieces_can_be_tagged_as_the_releases_do(data, tmp_path):
    overrides = TINY["config_overrides"] | {"subword_labels": "x", "inter_edges": "full"}
    run(tmp_path / "out", data | TINY | {"config_overrides": overrides, "num_train_epochs": 1})
    model = AutoModelForTokenClassification.from_pretrained(tmp_path / "out")
    assert [model.config.id2label[i] for i in range(5, 8)] == ["X", "[CLS]", "[SEP]"]


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("IMGID:1\nAnna\tB-PER\nsees PER\n", "train.txt:3"),
        ("IMGID:1\nAnna\tPERSON\n", "PERSON"),
        ("", "train.txt"),
        ("IMGID:1\nAnna\tB-PER\n\nIMGID:1\nBob\tO\n", "was used before"),
    ],
)
def test_a_malformed_file_is_named_with_its_line(data, tmp_path, capsys, text, expected):
    Path(data["train_file"]).write_text(text)
    assert expected in message(capsys, tmp_path / "out", data | TINY)


def test_wrong_arguments_and_data_end_with_one_line_and_no_output(data, tmp_path, capsys):
    out = tmp_path / "out"
    assert "nowhere" in message(capsys, out, data | TINY | {"image_dir": str(tmp_path / "nowhere")})
    assert "missing.txt" in message(capsys, out, data | TINY | {"train_file": str(tmp_path / "missing.txt")})
    assert "--text_model" in message(capsys, out, data)
    assert "There is no system 'bilstm'" in message(capsys, out, data | TINY | {"model_type": "bilstm"})
    assert "validation split" in message(capsys, out, {"train_file": data["train_file"]} | TINY)
    assert "--dataset_name" in message(capsys, out, TINY)
    lines = Path(data["test_file"]).with_suffix(".jsonl")
    lines.write_text('{"tokens": ["Anna", "sees"], "tags": ["B-PER"]}\n')
    assert f"{lines.name}:1: 2 words but 1 tags" in message(capsys, out, data | TINY | {"test_file": str(lines)})


@pytest.mark.parametrize(
    ("kind", "setting", "expected"),
    [
        ("config_overrides", {"d_model": 10, "num_heads": 4}, "d_model=10 is not a multiple of num_heads=4."),
        ("config_overrides", {"num_layer": 3}, "has no setting 'num_layer'; did you mean 'num_layers'?"),
        ("config_overrides", {"num_layers": -1}, "field 'num_layers': ValueError: -1 is too small: at least 1."),
        ("config_overrides", {"dropout": 1.5}, "field 'dropout': ValueError: 1.5 is no share"),
        ("processor_overrides", {"max_objectz": 3}, "unexpected keyword argument 'max_objectz'"),
        ("processor_overrides", {"max_objects": -3}, "max_objects=-3: a whole number, at least 0."),
    ],
)
def test_a_wrong_setting_is_refused_by_name(data, tmp_path, capsys, kind, setting, expected):
    assert expected in message(capsys, tmp_path / "out", data | TINY | {kind: setting})


def test_a_model_with_other_labels_is_refused_by_name(trained, data, tmp_path, capsys):
    text = Path(data["test_file"]).read_text().replace("LOC", "FOOD")
    Path(data["test_file"]).write_text(text)
    arguments = {"model_name_or_path": str(trained[0]), "test_file": data["test_file"], "do_predict": True}
    assert "B-FOOD" in message(capsys, tmp_path / "out", arguments)
