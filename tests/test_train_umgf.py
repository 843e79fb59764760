"""The training command: what it leaves behind, and what it says to mistakes."""

import contextlib
import io
import json
import random
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from conftest import LABELS
from PIL import Image
from safetensors.torch import load_file
from transformers import AutoModel, AutoModelForTokenClassification, AutoProcessor

import train_umgf
from dataset_scripts.reading.conll import read_conll
from modeling_umgf import HashingEncoder, RelationIndex, TextOnlyForTokenClassification, TextOnlyProcessor, systems
from modeling_umgf.checkpoints import FILE_LIST, checkpoint_to_resume, list_files
from modeling_umgf.tokenizer_from_scratch import train_tokenizer

ROOT = Path(__file__).resolve().parents[1]

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
    for name in ("validation", "test", "test_without_pictures", "test_half_pictures", "test_shuffled_pictures"):
        assert 0 <= results[f"{name}_f1_low"] <= results[f"{name}_f1"] <= results[f"{name}_f1_high"] <= 100
        assert f"{name} " in printed
        rows = read_predictions(out.with_name(f"{out.name}.predictions") / f"{name}.conll")
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
    left_out = "image_size, max_objects, num_heads, vision_config"
    assert f"The text-only twin has no {left_out}: these settings are left out." in caplog.messages
    results = results_of(tmp_path / "out")
    assert "test_f1" in results and "test_without_pictures_f1" not in results
    model = AutoModelForTokenClassification.from_pretrained(tmp_path / "out")
    assert type(model) is TextOnlyForTokenClassification
    assert model.model.vision_model is None and model.config.dropout == 0.0
    assert type(AutoProcessor.from_pretrained(tmp_path / "out")) is TextOnlyProcessor


def test_a_trained_model_is_evaluated_again_and_trained_further(trained, data, tmp_path):
    run(tmp_path / "again", evaluation(trained, data) | {"do_predict": True})
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


@pytest.mark.parametrize(
    ("name", "text"),
    [
        ("settings.json", '{"seed": 3, "num_train_epochs": 2,\n\t"text_config": {"layer_norm_eps": 1e-12, "b": 1e5}}'),
        ("settings.yaml", "seed: '3'\nnum_train_epochs: 2\ntext_config: {layer_norm_eps: 1e-12, b: 1e5}\n"),
        ("settings.yml", "seed: 3\nnum_train_epochs: '2'\ntext_config:\n  layer_norm_eps: 1.e-12\n  b: +1E+5\n"),
    ],
)
def test_numbers_of_settings_files_are_numbers(tmp_path, name, text):
    (tmp_path / name).write_text(text)
    model, _, training = train_umgf.parse_arguments([str(tmp_path / name), "--output_dir", "x"])
    assert model.text_config == {"layer_norm_eps": 1e-12, "b": 1e5}
    assert (training.seed, training.num_train_epochs) == (3, 2)


def test_a_key_that_stands_twice_in_json_is_refused(tmp_path):
    (tmp_path / "settings.json").write_text('{"config_overrides": {"dropout": 0.1, "dropout": 0.2}}')
    with pytest.raises(SystemExit, match="settings.json: is no JSON: 'dropout' stands there twice"):
        train_umgf.main([str(tmp_path / "settings.json")])


@pytest.mark.parametrize(
    ("encoder", "settings"),
    [
        ("text_config", {"model_type": "bert", "hidden_sise": 16}),
        ("text_config", {"model_type": "bilstm", "embeding_size": 8}),
        ("vision_config", {"model_type": "resnet", "hiden_sizes": [8, 16]}),
    ],
)
def test_a_misspelt_setting_of_an_encoder_is_refused(data, tmp_path, capsys, encoder, settings):
    told = message(capsys, tmp_path / "out", data | TINY | {encoder: settings})
    assert f"--{encoder}: {settings['model_type']} has no setting {[*settings][1]}." in told


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("", "holds no settings"),
        ("- a\n", "holds no settings"),
        ("seed: [1\n", "is no YAML"),
        ("seed: 1\nseed: 2\n", "'seed' stands there twice"),
        ("config_overrides: {dropout: 0.1}\nconfig_overrides: {}\n", "'config_overrides' stands there twice"),
        ("text_config: {model_type: bert, model_type: bilstm}\n", "'model_type' stands there twice"),
        ("num_train_epochs: [3]\n", "num_train_epochs: [3] is no float."),
        ("learning_rate:\n", "learning_rate: None is no float."),
        ("output_dir: 5\n", "output_dir: 5 is no str"),
        ("train_file: [a]\n", "train_file: ['a'] is no str"),
        ("seed: 1.5\n", "seed: 1.5 is no int."),
        ("bootstrap_samples: 10.5\n", "bootstrap_samples: 10.5 is no int."),
        ("types: PER\n", "types: 'PER' is no list[str]"),
        ("eval_strategy: no\n", "eval_strategy: False is no str. Without quotes, no, off, yes and on are"),
        ("help: true\n", "no such argument: help"),
        ("{1: 2}", "argument: 1"),
        (None, "can't be read (No such file"),
    ],
)
def test_a_settings_file_without_settings_is_named(tmp_path, text, expected):
    settings = tmp_path / "settings.yaml"
    if text is not None:
        settings.write_text(text)
    with pytest.raises(SystemExit) as exit_:
        train_umgf.main([str(settings), "--output_dir", str(tmp_path / "out")])
    assert str(settings) in exit_.value.code and expected in exit_.value.code
    assert "\n" not in exit_.value.code and not (tmp_path / "out").exists()


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
    said = message(capsys, tmp_path / "out", evaluation(trained, data))
    assert "B-FOOD" in said and "--new_labels" in said


def evaluation(trained: tuple[Path, str], data: dict[str, str]) -> dict[str, str]:
    """Arguments that only test a trained model."""
    names = ("test_file", "image_dir")
    return {"model_name_or_path": str(trained[0])} | {name: data[name] for name in names}


def test_a_trained_model_and_a_test_file_are_enough_for_all_its_scores(trained, data, tmp_path, capsys):
    run(tmp_path / "again", evaluation(trained, data))
    printed = capsys.readouterr().out
    results = results_of(tmp_path / "again")
    assert results == {name: value for name, value in results_of(trained[0]).items() if name.startswith("test_")}
    rows = [line.split()[0] for line in printed.splitlines() if " F1 " in line]
    assert rows == ["test", "PER", "LOC", "test_without_pictures", "test_half_pictures", "test_shuffled_pictures"]


def test_a_data_set_is_evaluated_as_its_files_are(trained, data, tmp_path):
    splits = train_umgf.load_splits({"test": data["test_file"]}, image_dir=data["image_dir"])
    splits.save_to_disk(str(tmp_path / "set"))
    run(tmp_path / "out", {"model_name_or_path": str(trained[0]), "dataset_name": str(tmp_path / "set")})
    assert (
        results_of(tmp_path / "out")["test_shuffled_pictures_f1"] == results_of(trained[0])["test_shuffled_pictures_f1"]
    )


def test_two_models_are_compared_on_the_same_posts(trained, data, tmp_path, capsys):
    twin = data | TINY | {"text_only": True, "num_train_epochs": 1}
    run(tmp_path / "twin", twin)
    both = evaluation(trained, data) | {"compare_with": str(tmp_path / "twin")}
    run(tmp_path / "both", both)
    results = results_of(tmp_path / "both")
    assert results["test_compared_f1"] == results_of(tmp_path / "twin")["test_f1"]
    assert results["test_compared_difference"] == pytest.approx(results["test_f1"] - results["test_compared_f1"])
    assert 0 < results["test_compared_p_value"] <= 1
    assert f"F1 minus that of {tmp_path / 'twin'}: " in capsys.readouterr().out
    run(tmp_path / "trained_too", data | TINY | {"num_train_epochs": 1, "compare_with": str(tmp_path / "twin")})
    assert results_of(tmp_path / "trained_too")["test_compared_f1"] == results["test_compared_f1"]
    only_validation = {"validation_file": data["validation_file"], "model_name_or_path": str(trained[0])}
    said = message(capsys, tmp_path / "out", only_validation | {"compare_with": str(trained[0])})
    assert "--compare_with" in said and "--test_file" in said


def test_a_trained_model_goes_on_with_other_labels(trained, data, tmp_path, caplog):
    for split in ("train", "validation", "test"):
        path = Path(data[f"{split}_file"])
        path.write_text(path.read_text().replace("LOC", "FOOD"))
    still = {"num_train_epochs": 1, "learning_rate": 0.0, "text_learning_rate": 0.0, "crf_learning_rate": 0.0}
    still |= {"vision_learning_rate": 0.0, "model_name_or_path": str(trained[0]), "new_labels": True}
    run(tmp_path / "out", data | still)
    shared = "O, B-PER, I-PER; starts anew B-FOOD, I-FOOD; leaves out B-LOC, I-LOC"
    assert f"The model goes on with the labels {shared}." in caplog.messages
    old, new = (AutoModelForTokenClassification.from_pretrained(folder) for folder in (trained[0], tmp_path / "out"))
    for label in ("O", "B-PER", "I-PER"):
        source, target = old.config.label2id[label], new.config.label2id[label]
        assert torch.equal(new.classifier.weight[target], old.classifier.weight[source])
        rows = new.label_decoder.transitions[target], old.label_decoder.transitions[source]
        for other in ("O", "B-PER", "I-PER"):
            assert rows[0][new.config.label2id[other]] == rows[1][old.config.label2id[other]]
    assert torch.equal(
        new.model.text_model.encoder.layer[0].output.dense.weight,
        old.model.text_model.encoder.layer[0].output.dense.weight,
    )
    assert results_of(tmp_path / "out")["test_FOOD_support"] == 6


def test_posts_for_validation_are_drawn_by_seed_where_none_are_given(data, tmp_path, caplog):
    del data["validation_file"], data["test_file"]
    run(tmp_path / "out", data | TINY | {"num_train_epochs": 1, "validation_share": 0.25, "seed": 3})
    assert (
        "No validation split is given: 3 of the 12 training posts, drawn with seed 3, are used for it."
        in caplog.messages
    )
    drawn = {row["id"] for row in read_predictions(tmp_path / "out.predictions" / "validation.conll")}
    assert len(drawn) == 3
    run(tmp_path / "again", data | TINY | {"num_train_epochs": 1, "validation_share": 0.25, "seed": 3})
    assert drawn == {row["id"] for row in read_predictions(tmp_path / "again.predictions" / "validation.conll")}


def test_what_lies_where_is_true_of_a_folder_with_a_slash_at_its_end(tmp_path):
    told = train_umgf.what_is_where(f"{tmp_path}/out/", {"train": None, "test": None})
    assert f"Predictions: {tmp_path}/out.predictions." in told and f"Scores: {tmp_path}/out/all_results.json." in told


def test_a_trial_reads_the_first_posts_of_each_split(data, tmp_path, capsys):
    limits = {"max_train_samples": 4, "max_eval_samples": 3, "max_predict_samples": 2}
    run(tmp_path / "out", data | TINY | limits | {"num_train_epochs": 1})
    counts = json.loads((tmp_path / "out" / "run.json").read_text())["splits"]
    assert {name: split["posts"] for name, split in counts.items()} == {"train": 4, "validation": 3, "test": 2}
    assert "at least one post" in message(capsys, tmp_path / "none", data | TINY | {"max_train_samples": 0})


def test_a_type_that_only_the_test_split_has_can_be_listed(data, tmp_path, capsys):
    path = Path(data["test_file"])
    path.write_text(path.read_text().replace("LOC", "FOOD"))
    assert "FOOD" in message(capsys, tmp_path / "none", data | TINY)
    argv = [value for name, setting in (data | TINY).items() for value in (f"--{name}", as_argument(setting))]
    fast = ["--num_train_epochs", "1", "--image_size", "16", "--disable_tqdm", "True", "--output_dir"]
    train_umgf.main([*argv, *fast, str(tmp_path / "out"), "--types", "PER", "LOC", "FOOD"])
    assert results_of(tmp_path / "out")["test_FOOD_support"] == 6


def as_argument(setting) -> str:
    return json.dumps(setting) if isinstance(setting, dict) else str(setting)


# ------------------------------------------------------------------------------------------------------- going on


def test_resuming_starts_at_the_beginning_where_there_is_no_checkpoint_yet(data, tmp_path, caplog):
    run(tmp_path / "out", data | TINY | {"resume_from_checkpoint": True, "num_train_epochs": 1})
    assert f"{tmp_path / 'out'} has no checkpoint yet: training starts at the beginning." in caplog.messages
    assert results_of(tmp_path / "out")["test_support"] == 12


def garbled(content: bytes) -> bytes:
    """As many bytes, of which one in the middle is another."""
    middle = len(content) // 2
    return content[:middle] + bytes([content[middle] ^ 1]) + content[middle + 1 :]


TEARS = {
    "missing": lambda content: None,
    "emptied": lambda content: b"",
    "half": lambda content: content[: len(content) // 2],
    "a byte short": lambda content: content[:-1],
    "garbled": garbled,
}


def test_a_checkpoint_of_which_any_file_is_torn_in_any_way_is_named_and_passed_over(trained, tmp_path, caplog):
    for step in ("checkpoint-6", "checkpoint-12"):
        shutil.copytree(trained[0] / step, tmp_path / step)
    last = tmp_path / "checkpoint-12"
    assert checkpoint_to_resume(True, tmp_path) == str(last)
    files = [path for path in sorted(last.rglob("*")) if path.is_file()]
    names = {path.name for path in files}
    assert {"model.safetensors", "optimizer.pt", "scheduler.pt", "rng_state.pth", "trainer_state.json"} <= names
    for path in files:
        content = path.read_bytes()
        for how, tear in TEARS.items():
            torn = tear(content)
            if torn == content:  # a file that was empty
                continue
            path.unlink() if torn is None else path.write_bytes(torn)
            caplog.clear()
            assert checkpoint_to_resume("True", tmp_path) == str(tmp_path / "checkpoint-6"), (path.name, how)
            [line] = caplog.messages
            named = path.name if path.name != FILE_LIST or torn is None else ""  # a garbled list accuses another file
            assert "checkpoint-12 is not whole" in line and named in line and "\n" not in line
            with pytest.raises(ValueError, match=named or "checkpoint-12"):
                checkpoint_to_resume(str(last), tmp_path)
            path.write_bytes(content)
    assert checkpoint_to_resume(True, tmp_path) == str(last)


def test_a_run_does_not_end_with_a_best_checkpoint_that_is_torn(trained, data, tmp_path):
    shutil.copytree(trained[0], tmp_path / "out")
    (tmp_path / "out" / "run.json").unlink()
    state = tmp_path / "out" / "checkpoint-18" / "trainer_state.json"
    content = json.loads(state.read_text())
    content["best_global_step"] = 12
    content["best_model_checkpoint"] = str(tmp_path / "elsewhere" / "checkpoint-12")  # the folder was moved
    state.write_text(json.dumps(content))
    list_files(state.parent)
    resumed = data | WHOLE | {"resume_from_checkpoint": True}
    run(tmp_path / "out", resumed)
    best, final = (load_file(tmp_path / "out" / place / "model.safetensors") for place in ("checkpoint-12", "."))
    torch.testing.assert_close(best, final, rtol=0, atol=0)
    weights = tmp_path / "out" / "checkpoint-12" / "model.safetensors"
    weights.write_bytes(garbled(weights.read_bytes()))
    with pytest.raises(SystemExit) as exit_:
        run(tmp_path / "out", resumed)
    assert "checkpoint-12, the best checkpoint until here, is not whole (model.safetensors is not" in exit_.value.code
    run(tmp_path / "out", resumed | {"load_best_model_at_end": False})


def test_after_a_full_disk_training_goes_on_from_the_last_whole_checkpoint(
    trained, data, tmp_path, monkeypatch, capsys
):
    save = torch.save
    written = []

    def until_the_disk_is_full(what, path, *rest, **settings):
        written.append(path)
        if len(written) == 5:  # in the second checkpoint: optimizer, scheduler, random states are three files each
            Path(path).write_bytes(b"half")
            raise RuntimeError("PytorchStreamWriter failed writing file data/3: file write failed")
        save(what, path, *rest, **settings)

    monkeypatch.setattr(torch, "save", until_the_disk_is_full)
    with pytest.raises(SystemExit) as exit_:
        run(tmp_path / "out", data | WHOLE)
    assert (
        "checkpoint-12 could not be written" in exit_.value.code and "--resume_from_checkpoint True" in exit_.value.code
    )
    monkeypatch.undo()
    run(tmp_path / "out", data | WHOLE | {"resume_from_checkpoint": True})
    whole, resumed = (load_file(folder / "model.safetensors") for folder in (trained[0], tmp_path / "out"))
    torch.testing.assert_close(resumed, whole)


def test_the_training_time_is_the_sum_of_the_legs(trained, data, tmp_path):
    shutil.copytree(trained[0] / "checkpoint-12", tmp_path / "checkpoint-12")
    state = tmp_path / "checkpoint-12" / "trainer_state.json"
    content = json.loads(state.read_text())
    assert 0 < content["stateful_callbacks"]["TrainingTime"]["attributes"]["earlier"] < 600
    content["stateful_callbacks"]["TrainingTime"]["attributes"]["earlier"] = 5000.0
    state.write_text(json.dumps(content))
    list_files(state.parent)
    run(tmp_path / "out", data | WHOLE | {"resume_from_checkpoint": str(tmp_path / "checkpoint-12")})
    assert 5000 < results_of(tmp_path / "out")["train_runtime"] < 5600


# -------------------------------------------------------------------------------- every setting works or is refused


@pytest.mark.parametrize(
    ("settings", "expected"),
    [
        ({"text_only": True}, "--text_only: "),
        ({"model_type": "umgf", "text_model": "x"}, "--model_type, --text_model: "),
        ({"text_config": TEXT, "vision_config": VISION}, "--text_config, --vision_config: "),
        ({"vision_model": "x"}, "--vision_model: "),
        ({"word_vectors": "x"}, "--word_vectors: "),
        ({"config_overrides": {"num_layers": 5}}, "--config_overrides can change no layer"),
        ({"config_overrides": {"d_model": 32}}, "--config_overrides can change no layer"),
        ({"config_overrides": {"num_layer": 5}}, "did you mean 'num_layers'?"),
        ({"processor_overrides": {"max_objectz": 5}}, "--processor_overrides: "),
        ({"new_labels": True}, "--new_labels: "),
        ({"validation_share": 0.5}, "--validation_share: "),
        ({"max_train_samples": 5}, "there is no split train"),
        ({"do_train": True}, "--do_train: "),
        ({"image_size": -1}, "--image_size -1: "),
    ],
)
def test_what_a_trained_model_cannot_have_is_refused_by_name(trained, data, tmp_path, capsys, settings, expected):
    assert expected in message(capsys, tmp_path / "out", evaluation(trained, data) | settings)


def test_a_trained_model_takes_the_settings_that_change_no_layer(trained, data, tmp_path):
    changed = {
        "config_overrides": {"dropout": 0.25, "visual_nodes": "general"},
        "processor_overrides": {"max_objects": 3},
    }
    changed |= {"image_size": 24, "num_train_epochs": 1}
    run(tmp_path / "out", data | {"model_name_or_path": str(trained[0])} | changed)
    model = AutoModelForTokenClassification.from_pretrained(tmp_path / "out")
    assert (model.config.dropout, model.config.visual_nodes) == (0.25, "general")
    processor = AutoProcessor.from_pretrained(tmp_path / "out")
    assert (processor.max_objects, processor.visual_nodes) == (3, "general")
    assert processor.image_processor.size["height"] == 24


@pytest.mark.parametrize(
    ("settings", "expected"),
    [
        ({"model_type": "text_only"}, "--vision_config, --image_size: "),
        ({"vision_model": "x"}, "--vision_model (pretrained) or --vision_config"),
        ({"new_labels": True}, "--new_labels belongs to --model_name_or_path"),
        ({"validation_share": 0.5}, "--validation_share: "),
        ({"learning_rate": -1.0}, "--learning_rate -1.0: "),
        ({"crf_learning_rate": -1e-3}, "--crf_learning_rate -0.001: "),
        ({"per_device_train_batch_size": 0}, "--per_device_train_batch_size 0: "),
        ({"resume_from_checkpoint": "nowhere"}, "--resume_from_checkpoint nowhere: there is no such folder"),
        ({"config_overrides": "{dropout"}, "--config_overrides: '{dropout' is no JSON"),
        ({"processor_overrides": "[1]"}, "--processor_overrides: '[1]' is no mapping"),
        ({"text_config": TEXT | {"vocab_size": 3}}, "--text_config: vocab_size=3"),
        ({"model_type": "bert"}, "There is no system 'bert'"),
        ({"model_type": "rgcn", "config_overrides": {}}, "null there to go on without"),
        ({"num_train_epochs": -1}, "--num_train_epochs -1: "),
        ({"early_stopping_patience": -1}, "--early_stopping_patience -1: "),
        ({"dataloader_num_workers": -1}, "--dataloader_num_workers -1: "),
        ({"train_sampling_strategy": "alphabetical"}, "--train_sampling_strategy alphabetical: one of random,"),
        ({"metric_for_best_model": "accuracy"}, "--metric_for_best_model accuracy: there is no such score"),
        ({"bootstrap_samples": -1}, "--bootstrap_samples -1: "),
        ({"compare_with": "./nowhere"}, "--compare_with ./nowhere: there is no such folder"),
        ({"system_file": "nowhere.py"}, "--system_file nowhere.py: there is no such"),
        ({"text_config": {"hidden_size": 16}}, '--text_config: give it a "model_type"'),
        ({"text_config": VISION}, "--text_config: a model of the type resnet is no encoder of texts"),
        ({"text_config": {"model_type": "umgf"}}, "--text_config: a model of the type umgf is no encoder of texts"),
        ({"vision_config": TEXT}, "--vision_config: a model of the type bert reads no pictures"),
    ],
)
def test_what_a_new_model_cannot_have_is_refused_by_name(data, tmp_path, capsys, settings, expected):
    assert expected in message(capsys, tmp_path / "out", data | TINY | settings)


@pytest.mark.parametrize("argument", ["text_model", "vision_model", "model_name_or_path"])
@pytest.mark.parametrize("name", ["./nowhere", "no/where/at/all"])
def test_a_model_that_is_not_there_is_named_with_its_argument(data, tmp_path, capsys, argument, name):
    given = data | {"text_config": TEXT, argument: name}
    given = {own: value for own, value in given.items() if own != "text_config" or argument == "vision_model"}
    assert f"--{argument} {name}: there is no such folder" in message(capsys, tmp_path / "out", given)


def test_a_file_of_a_system_that_fails_is_named(data, tmp_path, capsys):
    (tmp_path / "mine.py").write_text("import nothing_of_this_name\n")
    said = message(capsys, tmp_path / "out", data | TINY | {"system_file": str(tmp_path / "mine.py")})
    assert "mine.py: ModuleNotFoundError" in said


def test_only_a_test_split_and_no_trained_model_is_refused(data, tmp_path, capsys):
    assert "--train_file" in message(capsys, tmp_path / "out", TINY | {"test_file": data["test_file"]})


def test_a_tagger_is_no_encoder_and_an_encoder_no_tagger(trained, data, tmp_path, capsys):
    as_encoder = data | {"text_model": str(trained[0]), "vision_config": VISION}
    said = message(capsys, tmp_path / "out", as_encoder)
    assert "--text_model" in said and f"--model_name_or_path {trained[0]}" in said
    AutoModelForTokenClassification.from_pretrained(trained[0]).model.text_model.save_pretrained(tmp_path / "bert")
    said = message(
        capsys, tmp_path / "out", {"model_name_or_path": str(tmp_path / "bert"), "test_file": data["test_file"]}
    )
    assert "of the type bert" in said and "--text_model" in said


def test_pictures_without_an_image_encoder_are_refused_with_the_option_that_gives_one(data, tmp_path, capsys):
    settings = {name: value for name, value in (data | TINY).items() if name != "vision_config"}
    settings |= {"output_dir": str(tmp_path / "out")}
    argv = [value for name, setting in settings.items() for value in (f"--{name}", as_argument(setting))]
    with pytest.raises(SystemExit) as exit_:
        train_umgf.main(argv)
    assert "train1" in exit_.value.code and "--vision_model" in exit_.value.code
    with pytest.raises(SystemExit, match="--image_size: there is no image encoder"):
        train_umgf.main([*argv, "--image_size", "16"])
    assert not (tmp_path / "out").exists()


# ------------------------------------------------------------------------------------------- widths from the data


def with_features(data: dict[str, str], width: int) -> dict[str, str]:
    """The same posts as JSON lines, with features instead of pictures."""
    for split in ("train", "validation", "test"):
        rows = read_conll(Path(data[f"{split}_file"]))
        lines = []
        for i, row in enumerate(rows):
            own = {"id": row["id"], "tokens": row["tokens"], "tags": row["tags"], "image": None}
            lines.append(json.dumps(own | {"object_features": [[i / 10] * width] * 2}))
        path = Path(data[f"{split}_file"]).with_suffix(".jsonl")
        path.write_text("\n".join(lines) + "\n")
        data[f"{split}_file"] = str(path)
    del data["image_dir"]
    return data


def arguments_of(settings: dict, output_dir: Path) -> list[str]:
    settings = {"num_train_epochs": 1, "disable_tqdm": True, "output_dir": output_dir} | settings
    return [value for name, setting in settings.items() for value in (f"--{name}", as_argument(setting))]


def test_the_width_of_given_features_is_read_from_the_data(data, tmp_path):
    tiny = {name: value for name, value in TINY.items() if name != "vision_config"}
    train_umgf.main(arguments_of(with_features(data, width=24) | tiny, tmp_path / "out"))
    assert AutoModelForTokenClassification.from_pretrained(tmp_path / "out").config.object_feature_size == 24
    assert "test_without_pictures_f1" in results_of(tmp_path / "out")


def test_features_of_another_width_than_the_image_encoders_are_refused_at_the_start(data, tmp_path):
    with pytest.raises(SystemExit, match="object_features of the split train is 24 wide, the model reads 8"):
        train_umgf.main(arguments_of(with_features(data, width=24) | TINY, tmp_path / "out"))
    assert not (tmp_path / "out").exists()


def test_knowledge_of_another_width_than_the_model_reads_is_refused_at_the_start(data, tmp_path):
    for split, width in (("train", 8), ("validation", 8), ("test", 12)):
        path = Path(data[f"{split}_file"])
        rows = [{name: row[name] for name in ("id", "tokens", "tags")} for row in read_conll(path)]
        lines = [json.dumps(row | {"knowledge_features": [[0.5] * width]}) for row in rows]
        data[f"{split}_file"] = str(path.with_suffix(".jsonl"))
        path.with_suffix(".jsonl").write_text("\n".join(lines) + "\n")
    with pytest.raises(SystemExit, match="knowledge_features of the split test is 12 wide, the model reads 8"):
        train_umgf.main(arguments_of(data | TINY | {"model_type": "iaik", "config_overrides": {}}, tmp_path / "out"))
    assert not (tmp_path / "out").exists()


def test_what_goes_wrong_while_scoring_is_one_line(data, tmp_path, monkeypatch):
    def fail(*_):
        raise ValueError("these posts can't be read")

    monkeypatch.setattr(train_umgf, "evaluate", fail)
    with pytest.raises(SystemExit, match="^train_umgf.py: error: these posts can't be read$"):
        train_umgf.main(arguments_of(data | TINY | {"max_steps": 1}, tmp_path / "out"))


def save_index(folder: Path, width: int) -> str:
    index = RelationIndex(
        ["a", "b"], captions=["Anna", "Marley"], features=torch.randn(2, 1, width), encoder=HashingEncoder(64)
    )
    index.save_pretrained(folder)
    return str(folder)


def test_the_width_of_the_neighbours_is_read_from_the_relation_index(data, tmp_path, capsys):
    index = save_index(tmp_path / "index", width=24)
    related = data | TINY | {"model_type": "rgcn", "config_overrides": {"num_heads": 2, "k": 1}}
    related |= {"processor_overrides": {"relation_index": index}, "num_train_epochs": 1}
    run(tmp_path / "out", related)
    assert AutoModelForTokenClassification.from_pretrained(tmp_path / "out").config.neighbor_feature_size == 24
    wrong = related | {"config_overrides": {"num_heads": 2, "neighbor_feature_size": 16}}
    said = message(capsys, tmp_path / "wrong", wrong)
    assert "neighbor_feature_size=16, but the processor needs neighbor_feature_size=24" in said
    other = {"relation_index": save_index(tmp_path / "other", width=40)}
    again = {"model_name_or_path": str(tmp_path / "out"), "test_file": data["test_file"], "processor_overrides": other}
    assert "neighbor_feature_size=40" in message(capsys, tmp_path / "again", again)


def test_training_without_a_relation_index_needs_a_word(data, tmp_path):
    alone = data | TINY | {"model_type": "rgcn", "config_overrides": {"num_heads": 2}, "num_train_epochs": 1}
    run(tmp_path / "out", alone | {"processor_overrides": {"relation_index": None}})
    assert AutoProcessor.from_pretrained(tmp_path / "out").relation_index is None


# --------------------------------------------------------------------------------------------------- tokenizer


def test_a_tokenizer_from_scratch_has_as_many_pieces_as_are_asked(data, tmp_path):
    run(tmp_path / "out", data | TINY | {"text_config": TEXT | {"vocab_size": 20}, "num_train_epochs": 1})
    assert AutoModelForTokenClassification.from_pretrained(tmp_path / "out").config.text_config.vocab_size == 20
    assert len(AutoProcessor.from_pretrained(tmp_path / "out").tokenizer) == 20


def test_a_tokenizer_from_scratch_knows_the_characters_of_every_script():
    posts = [list("我爱北京天安门"), ["北京", "天气", "很好"], ["Straße", "مرحبا", "नमस्ते", "🙂"]]
    tokenizer = train_tokenizer(posts, max_length=64)
    for words in posts:
        for word in words:
            pieces = tokenizer([word], is_split_into_words=True, add_special_tokens=False).tokens()
            assert "".join(piece.removeprefix("‿") for piece in pieces) == word
            assert pieces[0][0] == word[0]
            assert len(pieces) <= len(word)
    assert tokenizer(["新Straße"], is_split_into_words=True).tokens()[1:3] == ["[UNK]", "‿S"]


def test_frequent_words_become_pieces_and_rare_ones_do_not():
    posts = [["Berlin", "calls"]] * 5 + [["Bern", "waits"]] * 2
    tokenizer = train_tokenizer(posts, max_length=64)
    assert tokenizer(["Berlin"], is_split_into_words=True, add_special_tokens=False).tokens() == ["Berlin"]
    assert len(tokenizer(["waits"], is_split_into_words=True, add_special_tokens=False).tokens()) > 1


def test_the_same_posts_give_the_same_pieces_in_every_process():
    letters = random.Random(0)
    posts = [["".join(letters.choices("abcdefgh", k=4)) for _ in range(8)] for _ in range(80)]
    code = "import json, sys; from modeling_umgf.tokenizer_from_scratch import train_tokenizer as train; "
    code += "print(train(json.load(sys.stdin), 64)._tokenizer.to_str())"
    done = subprocess.run(
        [sys.executable, "-c", code], input=json.dumps(posts), capture_output=True, text=True, check=True
    )
    assert done.stdout.strip() == train_tokenizer(posts, 64)._tokenizer.to_str()
