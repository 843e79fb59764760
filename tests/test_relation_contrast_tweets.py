import json
from collections import Counter, defaultdict
from itertools import combinations
from pathlib import Path

import numpy as np
import pytest
import torch
import yaml
from datasets import load_dataset
from transformers import AutoModel, AutoModelForTokenClassification, AutoProcessor

import train_umgf
from dataset_scripts import relation_contrast_tweets as module
from dataset_scripts.columns.contract import TWITTER_TYPES
from dataset_scripts.relation_contrast_tweets import relation_contrast_tweets, write_relation_contrast_tweets
from modeling_umgf import RelationIndex, UmgfImageProcessor
from modeling_umgf.descriptors import PictureFeatures
from modeling_umgf.labels import bio_labels, entity_spans

SETTINGS = Path(module.__file__).with_suffix(".yaml")
LABELS = bio_labels(TWITTER_TYPES)
SMALL = {"train": 32, "validation": 16, "test": 16}


@pytest.fixture(scope="module")
def splits():
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(module, "SPLITS", SMALL)
        return relation_contrast_tweets(seed=3)


def name_and_type(row) -> tuple[str, str]:
    ((start, end, kind),) = entity_spans([LABELS[tag] for tag in row["ner_tags"]])
    return " ".join(row["tokens"][start:end]), kind


def topic_of(row) -> str:
    return " ".join(word[1:] for word in row["tokens"] if word.startswith("#"))


def test_every_name_has_every_type_equally_often_in_both_halves(splits):
    for split, size in SMALL.items():
        assert len(splits[split]) == size
        names = Counter(name_and_type(row) for row in splits[split])
        assert set(names.values()) == {1} and len({name for name, _ in names}) == size // 4
        halves = Counter((name_and_type(row)[1], bool(topic_of(row))) for row in splits[split])
        assert set(halves.values()) == {size // 8}


def test_only_other_posts_tell_the_type(splits):
    """The own picture is missing, or noise; the gallery shows the type, four times for each topic and set of labels."""
    by_topic = Counter()
    by_labels = Counter()
    for post in splits["gallery"]:
        if post["caption"]:
            by_topic[post["caption"]] += 1
        else:
            by_labels[tuple(post["object_labels"])] += 1
    for split in SMALL:
        for row in splits[split]:
            assert row["caption"] is None
            if topic_of(row):
                assert row["image"] is None and row["object_labels"] is None
                assert sum(posts for caption, posts in by_topic.items() if topic_of(row) in caption) == 4
            else:
                assert np.asarray(row["image"]).std() > 60  # noise
                assert by_labels[tuple(row["object_labels"])] == 4


def test_splits_share_neither_names_nor_topics_nor_labels(splits):
    words = defaultdict(set)
    for split in SMALL:
        for row in splits[split]:
            name, _ = name_and_type(row)
            words[split].update(name.split(), topic_of(row).split(), row["object_labels"] or [])
    for one, other in combinations(words.values(), 2):
        assert not one & other


def test_the_same_seed_makes_the_same_posts(splits, monkeypatch):
    monkeypatch.setattr(module, "SPLITS", SMALL)
    again = relation_contrast_tweets(seed=3)
    other = relation_contrast_tweets(seed=4)
    assert again["test"]["tokens"][:] == splits["test"]["tokens"][:] != other["test"]["tokens"][:]
    for post, same in zip(splits["gallery"], again["gallery"], strict=True):
        assert post["image"].tobytes() == same["image"].tobytes()


@pytest.fixture(scope="module")
def written(tmp_path_factory):
    """The written folder of few posts, with an image encoder that has hardly learnt anything."""
    folder = tmp_path_factory.mktemp("relation_contrast_tweets")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(module, "SPLITS", SMALL)
        patch.setattr(module, "DRAWINGS", 50)
        return folder, write_relation_contrast_tweets(folder, seed=3)


def test_written_data_find_the_pictures_that_tell(written):
    folder, report = written
    for relation in report["relations"].values():
        assert all(part["self_hits"] == 0 for part in relation.values())
    dataset = load_dataset(str(folder / "dataset"))
    index = RelationIndex.from_pretrained(folder / "relation_index")
    caption = dict(zip(index.ids, index.captions, strict=True))
    labels = dict(zip(index.ids, index.object_labels, strict=True))
    right = []
    for row in dataset["test"]:
        if topic_of(row):
            right += [topic_of(row) in (caption[one["id"]] or "") for one in row["neighbors_inter"][:4]]
            assert row["neighbors_intra"] == []
        else:
            assert [labels[one["id"]] for one in row["neighbors_intra"]] == [sorted(row["object_labels"])] * 4
    assert np.mean(right) > 0.95
    model = AutoModel.from_pretrained(folder / "vision_model")
    encoder = PictureFeatures(model, UmgfImageProcessor.from_vision_model(folder / "vision_model"))
    encoder.image_processor.size = module.image_processor().size
    picture = dataset["gallery"][0]
    seen = encoder([picture["image"]])[0]
    assert torch.allclose(index.features_of([picture["id"]])[0].float(), seen, atol=5e-3)


def train(written, output_dir, **settings) -> None:
    folder, _ = written
    settings = yaml.safe_load(SETTINGS.read_text().replace("data/relation_contrast_tweets", str(folder))) | settings
    settings |= {"output_dir": str(output_dir), "num_train_epochs": 1, "bootstrap_samples": 10, "disable_tqdm": True}
    (output_dir.parent / "settings.yaml").write_text(yaml.safe_dump(settings))
    train_umgf.main([str(output_dir.parent / "settings.yaml")])


def test_the_training_command_runs_them_as_it_runs_the_first(written, tmp_path):
    train(written, tmp_path / "run", fragment_f1=True)
    results = json.loads((tmp_path / "run" / "all_results.json").read_text())
    assert {"test_f1", "test_fragment_f1", "test_without_pictures_f1"} <= set(results)
    model = AutoModelForTokenClassification.from_pretrained(tmp_path / "run")
    processor = AutoProcessor.from_pretrained(tmp_path / "run")
    frozen = AutoModel.from_pretrained(written[0] / "vision_model").state_dict()
    assert all(torch.equal(tensor, frozen[name]) for name, tensor in model.model.vision_model.state_dict().items())
    batch = processor(text="so Zonk is all over my feed #nowhere", images=np.zeros((20, 20, 3), dtype=np.uint8))
    assert batch["inter_neighbor_mask"].any() and torch.isfinite(model(**batch).logits).all()


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"processor_overrides": {"relation_index": "nowhere"}}, "nowhere"),
        ({"config_overrides": {"num_heads": 5}}, "not a multiple of num_heads=5"),
    ],
)
def test_wrong_settings_end_the_command_with_one_line(written, tmp_path, settings, message):
    with pytest.raises(SystemExit, match=message) as error:
        train(written, tmp_path / "run", **settings)
    assert "\n" not in str(error.value)
