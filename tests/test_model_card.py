"""The model card: what it says is what happened."""

import json
import re

import pytest
from finished_run import train
from huggingface_hub import ModelCard

from modeling_umgf.model_card import CardError, main, write_model_card


@pytest.fixture(scope="module")
def runs(tmp_path_factory):
    """Output folders of two seeds."""
    folder = tmp_path_factory.mktemp("runs")
    for seed in (1, 2):
        train(folder / f"seed{seed}", seed)
    return folder / "seed1", folder / "seed2"


@pytest.fixture
def copies(runs, tmp_path):
    """Fresh copies of the facts of both runs, for tests that change them."""
    folders = []
    for run in runs:
        (tmp_path / run.name).mkdir()
        (tmp_path / run.name / "run.json").write_bytes((run / "run.json").read_bytes())
        folders.append(tmp_path / run.name)
    return folders


def change(folder, **facts):
    path = folder / "run.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | facts))


def table(card: str, first_cell: str) -> list[str]:
    return next(
        [c.strip() for c in line.split("|")[1:-1]] for line in card.splitlines() if line.startswith(f"| {first_cell}")
    )


def test_the_card_states_data_labels_settings_and_scores_of_the_run(runs):
    card = (runs[0] / "README.md").read_text()
    results = json.loads((runs[0] / "all_results.json").read_text())
    score = [f"{results[f'test_{name}']:.2f}" for name in ("precision", "recall", "f1")]
    interval = f"{results['test_f1_low']:.2f} – {results['test_f1_high']:.2f}"
    assert table(card, "as it is") == ["as it is", *score, interval, f"{results['test_strict_f1']:.2f}"]
    assert table(card, "train ") == ["train", "3", "17", "1", "4"]  # tweets, words, pictures, entities
    assert table(card, "`seed`")[1] == "1"
    assert table(card, "`d_model`")[1] == "16"
    assert table(card, "text encoder")[1] == "bert, 2 layers, 16 wide, from scratch"
    assert "**three tweets**. Labels: written by hand." in card
    assert re.search(r"Software: Python 3\.\d+.*, torch 2\.", card)


def test_metadata_are_valid_and_hold_the_scores(runs):
    data = ModelCard.load(runs[0] / "README.md").data
    results = json.loads((runs[0] / "all_results.json").read_text())
    assert (data.pipeline_tag, data.library_name, data.license) == ("token-classification", "transformers", "other")
    scores = {result.metric_type: result.metric_value for result in data.eval_results}
    assert scores == {name: round(results[f"test_{name}"] / 100, 4) for name in ("f1", "precision", "recall")}
    assert {result.dataset_name for result in data.eval_results} == {"three tweets"}
    assert {result.task_type for result in data.eval_results} == {"token-classification"}


def test_scores_with_and_without_pictures_stand_side_by_side(copies):
    results = json.loads((copies[0] / "run.json").read_text())["results"]
    change(copies[0], results=results | {"test_f1": 80.0, "test_without_pictures_f1": 55.5})
    write_model_card(copies[0])
    card = (copies[0] / "README.md").read_text()
    assert table(card, "without pictures")[3] == "55.50"
    assert "F1 with pictures minus F1 without them: +24.50 points." in card


def test_a_run_without_pictures_says_so(tmp_path):
    train(tmp_path, pictures=False)
    assert "every number above is text only" in (tmp_path / "README.md").read_text()


def test_a_run_with_pictures_does_not_claim_to_be_text_only(runs):
    assert "text only" not in (runs[0] / "README.md").read_text()


def test_several_seeds_give_mean_and_standard_deviation(copies):
    for folder, f1 in zip(copies, (70.0, 74.0), strict=True):
        change(folder, results=json.loads((folder / "run.json").read_text())["results"] | {"test_f1": f1})
    write_model_card(copies[0], other_seeds=[copies[1]])
    card = (copies[0] / "README.md").read_text()
    assert table(card, "as it is")[3] == "72.00 ± 2.83"
    assert table(card, "`seed`")[1] == "1, 2"
    f1 = [result for result in ModelCard(card).data.eval_results if result.metric_type == "f1"]
    assert [(result.metric_value, result.metric_name) for result in f1] == [(0.72, "entity f1, mean of 2 seeds")]


@pytest.mark.parametrize(
    "facts", [{"dataset": "other tweets"}, {"label_version": "corrected"}, {"text_encoder": "other"}]
)
def test_runs_that_differ_in_more_than_the_seed_do_not_share_a_card(copies, facts):
    change(copies[1], **facts)
    with pytest.raises(CardError, match=f"differ in {next(iter(facts))}"):
        write_model_card(copies[0], other_seeds=[copies[1]])
    assert not (copies[0] / "README.md").exists()


def test_the_command_says_in_one_line_what_is_wrong(tmp_path, capsys):
    assert main([str(tmp_path)]) == 1
    assert capsys.readouterr().err == (
        f"error: {tmp_path}/run.json: no such file; name the output folder of a finished training run.\n"
    )
    (tmp_path / "run.json").write_text('{"model_type"')
    assert main([str(tmp_path)]) == 1
    assert "not JSON" in capsys.readouterr().err


def test_encoders_from_the_hub_are_linked_and_paths_of_this_machine_are_not_told(tmp_path):
    trainer = train(tmp_path)
    trainer.model.config.text_config._name_or_path = "google-bert/bert-base-cased"
    trainer.model.config.vision_config._name_or_path = "/home/somebody/models/my-resnet"
    trainer.create_model_card()
    card = ModelCard.load(tmp_path / "README.md")
    assert card.data.base_model == ["google-bert/bert-base-cased"]
    assert table(str(card), "image encoder")[1] == "resnet, from a local folder my-resnet"
    assert "somebody" not in str(card) + (tmp_path / "run.json").read_text()


def test_writing_the_card_leaves_the_model_as_it_is(tmp_path):
    trainer = train(tmp_path)
    text_config = trainer.model.umgf.text_model.config
    assert text_config._attn_implementation is not None
    before = text_config._attn_implementation
    trainer.create_model_card()
    assert text_config._attn_implementation == before


def test_saving_again_keeps_what_was_said_about_the_data(tmp_path):
    trainer = train(tmp_path, dataset="named data")
    trainer.save_model()
    assert "**named data**" in (tmp_path / "README.md").read_text()


def test_a_saved_model_folder_holds_no_pickle(runs):
    saved = [path.name for path in runs[0].iterdir() if path.is_file()]
    assert "model.safetensors" in saved
    assert not [name for name in saved if name.endswith((".bin", ".pt", ".pth", ".pkl", ".pickle", ".ckpt"))]
