"""The model card: what it says is what happened."""

import json
import re
from pathlib import Path

import pytest
from conftest import LABELS, rgcn_config, tiny_config, tiny_tokenizer
from datasets import Image, List, Value
from finished_run import three_posts, train
from huggingface_hub import ModelCard
from systems_under_test import relation_index
from transformers import AutoModel

from modeling_umgf import (
    RgcnForTokenClassification,
    RgcnProcessor,
    UmgfForTokenClassification,
    UmgfProcessor,
    modeling_multimodal_ner,
)
from modeling_umgf.__main__ import main
from modeling_umgf.checkpoints import list_files
from modeling_umgf.model_card import CardError, TrainingTime, check_output_folder, describe_run, write_model_card
from modeling_umgf.training import MultimodalNerTrainer, MultimodalNerTrainingArguments

PAPER = {
    "title": "Graphs for Names",
    "authors": "A. Author",
    "venue": "Some Venue",
    "year": 2030,
    "url": "https://x.org/1",
}


@pytest.fixture(scope="module")
def trainer(tmp_path_factory):
    """The trainer of a finished run, which no test changes."""
    return train(tmp_path_factory.mktemp("runs") / "seed1")


@pytest.fixture(scope="module")
def run(trainer) -> Path:
    """Its output folder."""
    return Path(trainer.args.output_dir)


@pytest.fixture
def seeds(run, tmp_path) -> list[Path]:
    """The facts of two runs that differ in the seed, to change."""
    facts = json.loads((run / "run.json").read_text())
    folders = []
    for seed in (1, 2):
        folder = tmp_path / f"seed{seed}"
        folder.mkdir()
        hyper_parameters = facts["hyper_parameters"] | {"seed": seed}
        (folder / "run.json").write_text(json.dumps(facts | {"hyper_parameters": hyper_parameters}))
        folders.append(folder)
    return folders


def change(folder, **facts):
    path = folder / "run.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | facts))


def table(card: str, first_cell: str) -> list[str]:
    line = next(line for line in card.splitlines() if line.startswith(f"| {first_cell}"))
    return [cell.strip() for cell in line.split("|")[1:-1]]


def test_the_card_states_data_labels_settings_and_scores_of_the_run(run):
    card = (run / "README.md").read_text()
    results = json.loads((run / "all_results.json").read_text())
    score = [f"{results[f'test_{name}']:.2f}" for name in ("precision", "recall", "f1")]
    interval = f"{results['test_f1_low']:.2f} – {results['test_f1_high']:.2f}"
    assert table(card, "as it is") == ["as it is", *score, interval, f"{results['test_strict_f1']:.2f}"]
    assert table(card, "train ") == ["train", "3", "17", "1", "4"]  # posts, words, pictures, entities
    assert table(card, "`seed`")[1] == "1"
    assert table(card, "`d_model`")[1] == "16"
    assert table(card, "text encoder")[1] == "bert, 2 layers, 16 wide, from scratch"
    assert "**three posts**. Labels: written by hand." in card
    assert re.search(r"Software: Python 3\.\d+.*, torch 2\.", card)


def test_metadata_are_valid_and_hold_the_scores(run):
    data = ModelCard.load(run / "README.md").data
    results = json.loads((run / "all_results.json").read_text())
    assert (data.pipeline_tag, data.library_name, data.license) == ("token-classification", "transformers", "other")
    scores = {result.metric_type: result.metric_value for result in data.eval_results}
    assert scores == {name: round(results[f"test_{name}"] / 100, 4) for name in ("f1", "precision", "recall")}
    assert {result.dataset_name for result in data.eval_results} == {"three posts"}
    assert {result.task_type for result in data.eval_results} == {"token-classification"}


def test_scores_with_and_without_pictures_stand_side_by_side(seeds):
    results = json.loads((seeds[0] / "run.json").read_text())["results"]
    change(seeds[0], results=results | {"test_f1": 80.0, "test_without_pictures_f1": 55.5})
    write_model_card(seeds[0])
    card = (seeds[0] / "README.md").read_text()
    assert table(card, "without pictures")[3] == "55.50"
    assert "F1 with pictures minus F1 without them: +24.50 points." in card


def test_the_card_says_whether_pictures_were_seen(trainer, tmp_path):
    facts = describe_run(trainer)
    with_pictures = write_model_card(tmp_path, facts).read_text()
    assert "text only" not in with_pictures
    assert "that may come with a picture" in with_pictures and "can mislead the model." in with_pictures
    without = describe_run(trainer, splits={"test": three_posts(pictures=False)})
    card = write_model_card(tmp_path, without).read_text()
    assert "No pictures were available in training or evaluation: **every number above is text only**" in card
    card = write_model_card(tmp_path, facts | {"reads_pictures": False})
    assert "The system reads no pictures: **every number above is text only**" in card.read_text()
    assert "that may come with a picture" not in card.read_text()
    assert not {"multimodal", "image-text"} & set(ModelCard.load(card).data.tags)


def test_the_row_of_other_pictures_is_named_where_there_is_one(seeds):
    facts = json.loads((seeds[0] / "run.json").read_text())
    for name in ("f1", "precision", "recall", "strict_f1"):
        facts["results"][f"test_shuffled_pictures_{name}"] = 12.5
    card = write_model_card(seeds[0], facts).read_text()
    assert table(card, "pictures of other posts")[3] == "12.50"
    assert 'the row "pictures of other posts" shows how much' in card


def test_a_card_says_of_the_system_what_the_system_says_of_itself(trainer, tmp_path, monkeypatch):
    config_class = type(trainer.model.config)
    for name, value in {"title": "Graph Tagger", "summary": "It tags along a graph.", "paper": PAPER}.items():
        monkeypatch.setattr(config_class, name, value, raising=False)
    card = write_model_card(tmp_path, describe_run(trainer)).read_text()
    assert "# Graph Tagger on unnamed data" in card
    assert "It tags along a graph." in card
    assert "[Graphs for Names](https://x.org/1), A. Author, Some Venue 2030." in card
    monkeypatch.setattr(config_class, "paper", None)
    assert "is described in" not in write_model_card(tmp_path, describe_run(trainer)).read_text()


def test_several_seeds_give_mean_and_standard_deviation(seeds):
    for folder, f1 in zip(seeds, (70.0, 74.0), strict=True):
        change(folder, results=json.loads((folder / "run.json").read_text())["results"] | {"test_f1": f1})
    write_model_card(seeds[0], other_seeds=[seeds[1]])
    card = (seeds[0] / "README.md").read_text()
    assert table(card, "as it is")[3] == "72.00 ± 2.83"
    assert table(card, "`seed`")[1] == "1, 2"
    f1 = [result for result in ModelCard(card).data.eval_results if result.metric_type == "f1"]
    assert [(result.metric_value, result.metric_name) for result in f1] == [(0.72, "entity f1, mean of 2 seeds")]


@pytest.mark.parametrize(
    "facts", [{"dataset": "other posts"}, {"label_version": "corrected"}, {"text_encoder": "other"}]
)
def test_runs_that_differ_in_more_than_the_seed_do_not_share_a_card(seeds, facts):
    change(seeds[1], **facts)
    with pytest.raises(CardError, match=f"differ in {next(iter(facts))}"):
        write_model_card(seeds[0], other_seeds=[seeds[1]])
    assert not (seeds[0] / "README.md").exists()


@pytest.mark.parametrize("name", ["learning_rate", "num_train_epochs", "posts of the split train"])
def test_nor_do_runs_that_were_trained_differently(seeds, name):
    run = json.loads((seeds[1] / "run.json").read_text())
    if name in run["hyper_parameters"]:
        change(seeds[1], hyper_parameters=run["hyper_parameters"] | {name: 0.25})
    else:
        change(seeds[1], splits=run["splits"] | {"train": run["splits"]["train"] | {"posts": 1}})
    with pytest.raises(CardError, match=f"differ in {name}: they don't share a card"):
        write_model_card(seeds[0], other_seeds=[seeds[1]])


def test_a_run_is_not_two_seeds(seeds):
    with pytest.raises(CardError, match="These runs have one seed, 1"):
        write_model_card(seeds[0], other_seeds=[seeds[0]])
    with pytest.raises(CardError, match="These runs have one seed, 2"):
        write_model_card(seeds[0], other_seeds=[seeds[1], seeds[1]])


def test_a_bar_in_the_name_of_a_type_adds_no_column(seeds):
    run = json.loads((seeds[0] / "run.json").read_text())
    results = {name.replace("test_PER_", "test_P|R_"): score for name, score in run["results"].items()}
    change(seeds[0], results=results, entity_types=[name.replace("PER", "P|R") for name in run["entity_types"]])
    write_model_card(seeds[0])
    (line,) = [line for line in (seeds[0] / "README.md").read_text().splitlines() if line.startswith(r"| P\|R |")]
    assert line.replace(r"\|", "").count("|") == 6


def test_runs_that_were_tested_differently_do_not_share_a_card(seeds):
    results = json.loads((seeds[0] / "run.json").read_text())["results"]
    change(seeds[1], results={name: score for name, score in results.items() if "without_pictures" not in name})
    with pytest.raises(CardError, match="tested differently"):
        write_model_card(seeds[0], other_seeds=[seeds[1]])


def test_the_command_writes_the_card_of_all_seeds(seeds, capsys):
    assert main(["card", *map(str, seeds), "--model", "owner/name"]) == 0
    assert capsys.readouterr().out == f"{seeds[0]}/README.md\n"
    card = (seeds[0] / "README.md").read_text()
    assert table(card, "`seed`")[1] == "1, 2"
    assert 'model="owner/name"' in card
    assert not (seeds[1] / "README.md").exists()


def test_the_command_says_in_one_line_what_is_wrong(tmp_path, capsys):
    assert main(["card", str(tmp_path)]) == 1
    assert capsys.readouterr().err == (
        f"error: {tmp_path}/run.json: no such file; name the output folder of a finished training run.\n"
    )
    (tmp_path / "run.json").write_text('{"model_type"')
    assert main(["card", str(tmp_path)]) == 1
    assert "not JSON" in capsys.readouterr().err


def test_encoders_from_the_hub_are_linked_and_paths_of_this_machine_are_not_told(trainer, tmp_path, monkeypatch):
    monkeypatch.setattr(trainer.model.config.text_config, "_name_or_path", "google-bert/bert-base-cased")
    monkeypatch.setattr(trainer.model.config.vision_config, "_name_or_path", "/home/somebody/models/my-resnet")
    card = ModelCard.load(write_model_card(tmp_path, describe_run(trainer)))
    assert card.data.base_model == ["google-bert/bert-base-cased"]
    assert table(str(card), "image encoder")[1] == "resnet, from a local folder my-resnet"
    assert "somebody" not in str(card) + (tmp_path / "run.json").read_text()


def test_writing_the_card_leaves_the_model_as_it_is(trainer):
    text_config = trainer.model.base_model.text_model.config
    before = text_config._attn_implementation
    assert before is not None
    describe_run(trainer)
    assert text_config._attn_implementation == before


def test_saving_again_keeps_what_was_said_about_the_data(trainer, run):
    trainer.save_model()
    assert "**three posts**. Labels: written by hand." in (run / "README.md").read_text()


def test_a_saved_model_folder_holds_no_pickle(run):
    saved = [path.name for path in run.iterdir() if path.is_file()]
    assert "model.safetensors" in saved
    assert not [name for name in saved if name.endswith((".bin", ".pt", ".pth", ".pkl", ".pickle", ".ckpt"))]


def untrained(tmp_path, model, processor=None) -> MultimodalNerTrainer:
    arguments = MultimodalNerTrainingArguments(str(tmp_path / "run"), eval_strategy="no", save_strategy="no")
    return MultimodalNerTrainer(model, arguments, processor or UmgfProcessor(tokenizer=tiny_tokenizer()))


def test_a_pretrained_encoder_is_named_by_its_hub_id_and_its_license_applies(tmp_path, monkeypatch):
    """Every card once called it "from scratch", because the id was dropped with the paths of folders."""
    encoder = AutoModel.from_config(tiny_config().text_config)
    monkeypatch.setattr(modeling_multimodal_ner.AutoModel, "from_pretrained", lambda *_, **__: encoder)
    model = UmgfForTokenClassification.from_text_vision_pretrained(
        "google-bert/bert-base-cased", labels=LABELS, d_model=16, num_heads=4
    )
    model.save_pretrained(tmp_path / "saved")
    model = UmgfForTokenClassification.from_pretrained(tmp_path / "saved")
    facts = describe_run(untrained(tmp_path, model), splits={"train": three_posts()})
    card = write_model_card(tmp_path, facts).read_text()
    assert table(card, "text encoder")[1] == "google-bert/bert-base-cased"
    assert ModelCard(card).data.base_model == ["google-bert/bert-base-cased"]
    license_text = card.partition("## License")[2]
    assert "google-bert/bert-base-cased" in license_text and "scratch" not in license_text


def test_encoders_from_scratch_have_no_license(run):
    card = (run / "README.md").read_text()
    assert "For the weights, which were trained from scratch, the terms of the training data apply too." in card
    assert ModelCard(card).data.base_model is None


def test_a_model_that_another_one_was_trained_on_from_is_its_base(trainer, tmp_path, monkeypatch):
    monkeypatch.setattr(trainer.model.config, "_name_or_path", "somebody/tagger")
    card = write_model_card(tmp_path, describe_run(trainer)).read_text()
    assert ModelCard(card).data.base_model == ["somebody/tagger"]
    assert table(card, "started from")[1] == "somebody/tagger"
    monkeypatch.chdir(tmp_path)
    (tmp_path / "somebody" / "tagger").mkdir(parents=True)  # a folder with such a name is none on the Hub
    card = write_model_card(tmp_path / "card", describe_run(trainer)).read_text()
    assert ModelCard(card).data.base_model is None
    assert table(card, "started from")[1] == "a trained model in the local folder tagger"
    assert "somebody" not in card and "(a trained model in the local folder tagger)" in card  # in the licence paragraph


def test_scores_of_an_earlier_run_in_the_same_folder_are_not_those_of_this_one(tmp_path):
    train(tmp_path / "run")
    splits = {name: three_posts() for name in ("train", "validation")}
    again = train(tmp_path / "run", pictures=False)  # tested without the row "without pictures"
    facts = describe_run(again, splits=splits)
    assert "test_f1" in facts["results"]
    assert "test_without_pictures_f1" in json.loads((tmp_path / "run" / "all_results.json").read_text())
    assert "test_without_pictures_f1" not in facts["results"]
    again.train()  # and nothing saved: no score is known of what is now trained
    assert describe_run(again, splits=splits)["results"] == {}


def test_a_folder_with_a_finished_run_is_refused(run, tmp_path):
    check_output_folder(tmp_path)
    with pytest.raises(CardError, match="One run, one folder: name another --output_dir, remove this one, or go on"):
        check_output_folder(run)


def test_the_training_time_is_that_of_all_legs(tmp_path):
    train(tmp_path / "run")
    (state_file,) = (tmp_path / "run").glob("checkpoint-*/trainer_state.json")
    state = json.loads(state_file.read_text())
    state["stateful_callbacks"]["TrainingTime"]["attributes"]["earlier"] = 5000.0
    state_file.write_text(json.dumps(state))
    list_files(state_file.parent)
    resumed = train(tmp_path / "run", num_train_epochs=2, resume=True)
    assert 5000 < describe_run(resumed)["training_seconds"] < 5600
    assert table((tmp_path / "run" / "README.md").read_text(), "training time")[1].startswith("83 min")
    assert TrainingTime().seconds == 0


def test_features_of_pictures_are_no_text_only_and_the_example_offers_what_the_model_reads(tmp_path):
    """They once counted as no pictures, under a table of picture ablations, and the example offered a picture."""
    model = UmgfForTokenClassification(tiny_config(vision_config=None, object_feature_size=3))
    cells = [[[1.0, 2.0, 3.0]], [], None]
    feature = List(List(Value("float32")))
    posts = three_posts().remove_columns("image").add_column("object_features", cells, feature=feature)
    posts = posts.add_column("image", [None] * 3, feature=Image())
    card = write_model_card(tmp_path, describe_run(untrained(tmp_path, model), splits={"train": posts})).read_text()
    assert table(card, "train ")[3] == "1"
    assert "text only" not in card and "that may come with features of a picture" in card
    assert '"object_features": None}' in card and '"image": None' not in card


@pytest.mark.parametrize(
    ("index", "says"),
    [(None, "There is **no relation index**"), (relation_index(), "The relation index holds 4 pictures")],
)
def test_a_card_says_whether_there_is_a_relation_index(tmp_path, index, says):
    processor = RgcnProcessor(tokenizer=tiny_tokenizer(), relation_index=index)
    trainer = untrained(tmp_path, RgcnForTokenClassification(rgcn_config()), processor)
    card = write_model_card(tmp_path, describe_run(trainer, splits={"train": three_posts()})).read_text()
    assert says in card


def test_a_card_says_how_the_objects_of_the_training_data_were_made(tmp_path, model, processor):
    processor.remember_sources(["objects"], {"objects": {"detector": "IDEA-Research/grounding-dino-tiny@1234"}})
    facts = describe_run(untrained(tmp_path, model, processor), splits={"train": three_posts()})
    card = write_model_card(tmp_path, facts).read_text()
    made = 'made with {"detector": "IDEA-Research/grounding-dino-tiny@1234"}'
    assert f"The column `objects` of the training data was {made}." in card


def test_nothing_names_a_package_that_no_index_has(run):
    assert "pip install modeling_umgf" not in (run / "README.md").read_text()
