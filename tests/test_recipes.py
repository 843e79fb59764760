"""Recipes: each is understood by the training command, builds its model at its own sizes, and takes a step."""

from pathlib import Path

import pytest
import torch
import yaml
from conftest import LABELS, tiny_config, tiny_tokenizer

from modeling_umgf import train_word_tokenizer
from modeling_umgf.systems import system
from train_umgf import parse_arguments

ROOT = Path(__file__).resolve().parents[1]
RECIPES = sorted((ROOT / "recipes").glob("*/*.yaml"))
WORDS = "Anna meets Bob Marley in Rome".split()


@pytest.mark.parametrize("path", RECIPES, ids=lambda path: f"{path.parent.name}/{path.stem}")
def test_a_recipe_is_read_built_and_trained_for_a_step(path):
    model_arguments, data_arguments, training_arguments = parse_arguments([str(path)])
    assert bool(data_arguments.dataset_name) != bool(data_arguments.train_file)
    assert training_arguments.output_dir == f"runs/{path.parent.name}/{path.stem}"
    own = system(model_arguments.model_type)
    text = model_arguments.text_config
    if text is None:  # a pretrained one, which cannot be had here
        heads = (model_arguments.config_overrides or {}).get("num_heads", 1)
        text = tiny_config().text_config.to_dict() | {"hidden_size": 4 * heads * 2}
        tokenizer = tiny_tokenizer()
    else:
        tokenizer = train_word_tokenizer([WORDS], min_count=1, characters=text.get("characters", "none") != "none")
        text = text | {"vocab_size": len(tokenizer)}
    model = own.tagger.from_text_vision_pretrained(text, None, LABELS, **model_arguments.config_overrides)
    processor = own.processor(tokenizer=tokenizer, **model_arguments.processor_overrides or {})
    features = {}
    if own.reads_pictures:
        features["object_features"] = torch.randn(2, model.config.object_feature_size)
    model.train()(**processor(words=WORDS, labels=[1, 0, 1, 2, 0, 3], **features)).loss.backward()
    assert all(p.grad is not None and torch.isfinite(p.grad).all() for p in model.parameters() if p.requires_grad)


def test_both_data_sets_have_the_same_rows():
    rows = {folder.name: {path.name for path in folder.iterdir()} for folder in (ROOT / "recipes").iterdir()}
    assert rows["twitter2015"] == rows["twitter2017"]


@pytest.mark.parametrize("row", sorted({path.stem for path in RECIPES}))
def test_the_data_sets_differ_in_their_files_and_epochs_alone(row):
    one, two = (
        yaml.safe_load((ROOT / "recipes" / name / f"{row}.yaml").read_text()) for name in ("twitter2015", "twitter2017")
    )
    for recipe in (one, two):  # grows with the number of steps, which the data decide
        recipe.get("config_overrides", {}).pop("alignment_steps", None)
    different = {key for key in one.keys() | two.keys() if one.get(key) != two.get(key)}
    assert different <= {
        "train_file",
        "validation_file",
        "test_file",
        "image_dir",
        "dataset_name",
        "output_dir",
        "num_train_epochs",
    }
