"""Recipes: each is trained for two steps as it is, with small random encoders and few posts in place of real ones."""

from pathlib import Path

import numpy as np
import pytest
import torch
import yaml
from conftest import LABELS, SENTENCES, tiny_tokenizer
from datasets import Dataset, DatasetDict
from finished_run import TAGS
from PIL import Image
from transformers import BertConfig, BertModel, ResNetConfig, ResNetModel, ViTImageProcessor

from benchmarks.recipes import Recipe, recipes_in
from dataset_scripts.columns.contract import dataset_features
from dataset_scripts.writing.dataset_folder import write_dataset
from modeling_umgf import HashingEncoder, RelationIndex
from train_umgf import make_trainer, parse_arguments

ROOT = Path(__file__).resolve().parents[1]
RECIPES = sorted((ROOT / "recipes").rglob("*.yaml"))
IDS = ["1", "2", "3"]
PICTURE_SIZE = 32
CELLS = 16
"""Cells of the small image encoder on such a picture."""
WIDTH = 16
"""Width of their features."""


class SmallParts:
    """Folders of small encoders, posts and relation indices; each is made when it is asked for, once.

    Args:
        folder: where they are made.
    """

    def __init__(self, folder: Path):
        self.folder = folder

    def text_encoder(self) -> str:
        folder = self.folder / "bert"
        if not folder.exists():
            tokenizer = tiny_tokenizer()
            sizes = {"hidden_size": 48, "num_hidden_layers": 1, "num_attention_heads": 4, "intermediate_size": 32}
            BertModel(BertConfig(vocab_size=len(tokenizer), max_position_embeddings=64, **sizes)).save_pretrained(
                folder
            )
            tokenizer.save_pretrained(folder)
        return str(folder)

    def image_encoder(self) -> str:
        folder = self.folder / "resnet"
        if not folder.exists():
            sizes = {"embedding_size": 8, "hidden_sizes": [8, WIDTH], "depths": [1, 1], "layer_type": "basic"}
            ResNetModel(ResNetConfig(**sizes)).save_pretrained(folder)
            ViTImageProcessor().save_pretrained(folder)
        return str(folder)

    def files(self) -> dict[str, str]:
        """The posts as a file, with a folder of pictures."""
        pictures = self.folder / "images"
        if not pictures.exists():
            pictures.mkdir()
            picture(1).save(pictures / "1.jpg")
            lines = []
            for name, sentence, tags in zip(IDS, SENTENCES, TAGS, strict=True):
                words = [f"{word}\t{LABELS[tag]}" for word, tag in zip(sentence.split(), tags, strict=True)]
                lines += [f"IMGID:{name}", *words, ""]
            (self.folder / "posts.txt").write_text("\n".join(lines), encoding="utf-8")
        files = dict.fromkeys(("train_file", "validation_file", "test_file"), str(self.folder / "posts.txt"))
        return files | {"image_dir": str(pictures)}

    def dataset(self, width: int | None) -> str:
        """The posts as a dataset with all columns; None = with pictures, else with features of this width."""
        folder = self.folder / f"posts_{width}"
        if not folder.exists():
            box = [0.0, 0.0, 20.0, 20.0]
            nodes = [{"box": box, "phrase": None}, {"box": box, "phrase": {"start": 0, "end": 1}}]
            nodes = [{"score": 1.0, "query": "a guitar", **node} for node in nodes]
            rows = {
                "id": IDS,
                "tokens": [sentence.split() for sentence in SENTENCES],
                "ner_tags": TAGS,
                "caption": ["a man on a stage", None, "a cat"],
                "objects": [nodes, [], nodes],
                "object_labels": [["guitar"], [], ["cat"]],
                "image": [picture(1), None, picture(2)],
            }
            if width:
                features = np.random.default_rng(0).normal(size=(2, width)).tolist()
                rows |= {"image": [None] * 3, "object_features": [features, [], features]}
                rows["knowledge_features"] = [features, None, None]
            split = Dataset.from_dict(rows, features=dataset_features(LABELS, rows))
            split = split.add_column("context", ["He was born in Rome.", None, None])
            split = split.add_column("named_entities", ["Rome (city)", None, None])
            splits = DatasetDict({name: split for name in ("train", "validation", "test")})
            write_dataset(splits, folder, title="Three posts", description="For a test.")
        return str(folder)

    def word_vectors(self, width: int) -> str:
        path = self.folder / f"vectors_{width}.txt"
        path.write_text(f"the {'0.5 ' * width}\n{SENTENCES[0].split()[0]} {'-0.5 ' * width}\n", encoding="utf-8")
        return str(path)

    def relation_index(self, cells: int, width: int) -> str:
        folder = self.folder / f"index_{cells}_{width}"
        if not folder.exists():
            things = ["guitar", "cat", "dog", "guitar", "cat", "dog"]
            index = RelationIndex(
                [f"picture {i}" for i in range(6)],
                captions=[f"a {thing} on a stage" for thing in things],
                object_labels=[[thing] for thing in things],
                features=torch.randn(6, cells, width, generator=torch.Generator().manual_seed(0)),
                encoder=HashingEncoder(64),
            )
            index.save_pretrained(folder)
        return str(folder)


def picture(seed: int) -> Image.Image:
    return Image.fromarray(np.random.default_rng(seed).integers(0, 256, (40, 60, 3), dtype=np.uint8))


@pytest.fixture(scope="module")
def parts(tmp_path_factory) -> SmallParts:
    return SmallParts(tmp_path_factory.mktemp("parts"))


def small(settings: dict, parts: SmallParts) -> dict:
    """A recipe's settings with small parts in the place of what must be fetched."""
    settings = dict(settings)
    width = settings.get("config_overrides", {}).get("object_feature_size")
    if "text_model" in settings:
        settings["text_model"] = parts.text_encoder()
    if "vision_model" in settings:
        settings |= {"vision_model": parts.image_encoder(), "image_size": PICTURE_SIZE}
    if "word_vectors" in settings:
        settings["word_vectors"] = parts.word_vectors(settings["text_config"]["embedding_size"])
    files = parts.files()
    settings |= {name: files[name] for name in files if name in settings}
    if "dataset_name" in settings:
        settings["dataset_name"] = parts.dataset(width)
    if settings.get("processor_overrides", {}).get("relation_index"):
        shape = (1, width) if width else (CELLS, WIDTH)
        settings["processor_overrides"] = settings["processor_overrides"] | {
            "relation_index": parts.relation_index(*shape)
        }
    return settings


@pytest.mark.parametrize("path", RECIPES, ids=lambda path: Recipe.read(path).name)
def test_a_recipe_is_read_built_trained_and_predicts(path, parts, tmp_path):
    recipe = Recipe.read(path)
    few = {"max_steps": 2, "per_device_train_batch_size": 2, "disable_tqdm": True, "seed": 1}
    few |= {"eval_strategy": "no", "save_strategy": "no", "load_best_model_at_end": False}
    few |= {"early_stopping_patience": 0, "output_dir": str(tmp_path / "out")}
    file = tmp_path / "recipe.yaml"
    file.write_text(yaml.safe_dump(small(recipe.settings, parts) | few), encoding="utf-8")
    model_arguments, arguments, training = parse_arguments([str(file)])
    trainer, _, splits = make_trainer(arguments, model_arguments, training)
    batch = trainer.data_collator([trainer.train_dataset[i] for i in range(3)])
    trainer.model.train()(**batch).loss.backward()
    without = [name for name, p in trainer.model.named_parameters() if p.requires_grad and p.grad is None]
    assert not without
    trainer.model.zero_grad()
    output = trainer.train()
    assert output.global_step == 2 and np.isfinite(output.training_loss)
    gold, predicted = trainer.predict_tags(splits["validation" if recipe.is_trial else "test"])
    assert [len(tags) for tags in predicted] == [len(sentence.split()) for sentence in SENTENCES]


@pytest.mark.parametrize("path", RECIPES, ids=lambda path: Recipe.read(path).name)
def test_a_recipe_says_where_it_is_trained_and_where_its_data_come_from(path):
    recipe = Recipe.read(path)
    settings = yaml.safe_load(path.read_text(encoding="utf-8"))
    assert settings["output_dir"] == f"runs/{recipe.name}"
    assert ("dataset_name" in settings) != ("train_file" in settings)
    if recipe.name.startswith("offline/"):
        assert "dataset_scripts.offline_twitter" in recipe.about
        assert "No pixels" in recipe.about or recipe.is_text_only
    assert "ChatGPT" in recipe.about or not recipe.reads_knowledge


@pytest.mark.parametrize("folder", ["", "offline/"])
def test_both_data_sets_have_the_same_rows_which_differ_in_files_and_epochs_alone(folder):
    one, two = (
        {path.name: Recipe.read(path).settings for path in (ROOT / "recipes" / f"{folder}{name}").glob("*.yaml")}
        for name in ("twitter2015", "twitter2017")
    )
    assert one.keys() == two.keys() and one
    for row in one:
        for settings in (one[row], two[row]):  # grow with the number of steps, or name files
            settings.get("config_overrides", {}).pop("alignment_steps", None)
            settings.get("processor_overrides", {}).pop("relation_index", None)
        different = {key for key in one[row].keys() | two[row].keys() if one[row].get(key) != two[row].get(key)}
        files = {"train_file", "validation_file", "test_file", "image_dir", "dataset_name"}
        assert different <= files | {"num_train_epochs"}, row


def test_every_row_that_reads_more_than_the_post_has_its_text_only_twin_and_an_ablation_its_whole_system():
    for folder in ("twitter2015", "twitter2017", "twitter2017c", "twitter2017_to_twitter2015"):
        recipes = recipes_in(ROOT / "recipes" / "offline" / folder)
        for recipe in recipes:
            twin = recipe.twin(recipes)
            if recipe.is_text_only and not recipe.context:
                continue
            assert twin is not None, recipe.name
            if "_without_" in recipe.row:
                assert recipe.row.startswith(f"{twin.row}_without_") and recipe.reads == twin.reads
                continue
            assert twin.is_text_only and twin.context == ([] if recipe.is_text_only else recipe.reads)


@pytest.mark.parametrize("folder", ["twitter2015", "twitter2017", "twitter2017c", "twitter2015_to_twitter2017"])
def test_with_pictures_every_system_on_bert_has_its_text_only_twin(folder):
    recipes = recipes_in(ROOT / "recipes" / folder)
    on_bert = [recipe for recipe in recipes if "text_model" in recipe.settings and not recipe.is_text_only]
    assert {"umgf", "umt"} <= {recipe.row for recipe in on_bert}
    assert all(recipe.twin(recipes) for recipe in on_bert)


def test_the_quick_start_trains_a_row_of_the_contrast_tweets():
    for script, row in (("contrast_tweets", "umgf"), ("relation_contrast_tweets", "rgcn")):
        settings = Recipe.read(ROOT / "dataset_scripts" / f"{script}.yaml").settings
        assert Recipe.read(ROOT / "recipes" / script / f"{row}.yaml").settings | {"seed": 1} == settings


def test_the_first_model_is_trained_as_the_row_whose_score_its_page_promises():
    first = Recipe.read(ROOT / "recipes" / "first_model.yaml").settings
    row = Recipe.read(ROOT / "recipes" / "offline" / "twitter2017" / "bert_crf.yaml").settings
    places = {"train_file", "validation_file", "test_file", "dataset_name", "text_model", "text_only", "model_type"}
    assert {k: v for k, v in first.items() if k not in places} == {k: v for k, v in row.items() if k not in places}
    assert first["text_only"] and row["model_type"] == "text_only"
