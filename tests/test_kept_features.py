"""Features of a frozen image encoder: the same numbers, each picture looked at once, nothing torn taken for whole."""

import multiprocessing
from pathlib import Path

import datasets
import numpy as np
import pytest
import torch
from conftest import LABELS
from datasets import ClassLabel, Dataset, Image, List, Value
from systems_under_test import LABEL_IDS, SYSTEMS, make_model, make_processor, posts

from modeling_umgf import kept_features
from modeling_umgf.data_collator import MultimodalNerCollator
from modeling_umgf.kept_features import KeptFeatures, can_be_kept
from modeling_umgf.pictures import UnreadablePicture
from modeling_umgf.systems import systems
from modeling_umgf.training import MultimodalNerTrainer, MultimodalNerTrainingArguments, read_columns

READ_PICTURES = [name for name in SYSTEMS if systems()[name].reads_pictures]


@pytest.fixture(autouse=True)
def own_cache(tmp_path, monkeypatch):
    monkeypatch.setattr(datasets.config, "HF_DATASETS_CACHE", str(tmp_path / "cache"))


def dataset_of(model_type: str, rows: list[dict] | None = None, **columns) -> Dataset:
    """The posts of the tests as training data of a system."""
    processor = make_processor(model_type)
    rows = posts() if rows is None else rows
    given = {name: [row.get(name) for row in rows] for name in ("id", "image", "objects", "knowledge_features")}
    given |= {"tokens": [row["words"] for row in rows], "ner_tags": LABEL_IDS[: len(rows)]}
    if "neighbors_inter" in processor.columns:
        near = [[{"id": "rome", "score": 0.5}], [], [{"id": "bob", "score": 0.25}]][: len(rows)]
        given |= {"neighbors_inter": near, "neighbors_intra": near}
    dataset = Dataset.from_dict(given | columns).cast_column("image", Image())
    dataset = dataset.cast_column("ner_tags", List(ClassLabel(names=LABELS)))
    return read_columns(dataset.cast_column("tokens", List(Value("string"))), processor)


def frozen_model(model_type: str, **settings):
    return make_model(model_type, finetune_cnn=False, **settings)


def kept(model, processor) -> KeptFeatures:
    return KeptFeatures(model, processor, 2, 0, torch.enable_grad)


def emissions(model, processor, dataset: Dataset) -> torch.Tensor:
    with torch.no_grad():
        return model(**MultimodalNerCollator(processor)([dataset[i] for i in range(len(dataset))])).logits


@pytest.mark.parametrize("model_type", READ_PICTURES)
def test_kept_features_give_the_numbers_of_the_pictures(model_type):
    model = frozen_model(model_type)
    processor = make_processor(model_type)
    dataset = dataset_of(model_type)
    assert can_be_kept(model, processor, dataset)
    described = kept(model, processor).add_to(dataset)
    assert "image" not in described.column_names
    torch.testing.assert_close(
        emissions(model, processor, described), emissions(model, processor, dataset), atol=1e-5, rtol=0
    )


@pytest.mark.parametrize("visual_nodes", ["general", "tiles", "grid"])
def test_so_they_do_whatever_the_visual_nodes_are(visual_nodes):
    model = frozen_model("umgf", visual_nodes="grid" if visual_nodes == "grid" else "objects")
    processor = make_processor("umgf")
    processor.visual_nodes = visual_nodes
    dataset = dataset_of("umgf")
    described = kept(model, processor).add_to(dataset)
    torch.testing.assert_close(
        emissions(model, processor, described), emissions(model, processor, dataset), atol=1e-5, rtol=0
    )


def test_posts_with_the_same_pictures_keep_their_own_words_and_labels():
    model = frozen_model("umt")
    of_pictures = kept(model, make_processor("umt"))
    one, other = dataset_of("umt"), dataset_of("umt", tokens=[["Bob"]] * 3, ner_tags=[[0]] * 3)
    for dataset in (one, other, one):
        described = of_pictures.add_to(dataset)
        for name in ("tokens", "ner_tags"):
            assert described[name][:] == dataset[name][:]
    assert of_pictures.known.keys() == {of_pictures.key(one)} == {of_pictures.key(other)}


def test_of_too_many_objects_those_that_are_read_are_kept():
    model = frozen_model("umgf")
    processor = make_processor("umgf")
    processor.max_objects = 1
    dataset = dataset_of("umgf")
    described = kept(model, processor).add_to(dataset)
    assert len(described[0]["objects"]) == len(described[0]["object_features"]) == 1
    torch.testing.assert_close(
        emissions(model, processor, described), emissions(model, processor, dataset), atol=1e-5, rtol=0
    )


def looked_at(monkeypatch) -> list[int]:
    """Numbers of crops that the image encoder is given from now on."""
    counts = []
    cells = KeptFeatures.cells
    monkeypatch.setattr(KeptFeatures, "cells", lambda self, pixels: counts.append(len(pixels)) or cells(self, pixels))
    return counts


def test_another_run_looks_at_no_picture_again(monkeypatch):
    model, processor, dataset = frozen_model("umgf"), make_processor("umgf"), dataset_of("umgf")
    counts = looked_at(monkeypatch)
    first = kept(model, processor).add_to(dataset)
    assert sorted(counts) == [1, 2]
    counts.clear()
    again = kept(model, processor).add_to(dataset_of("umgf"))
    assert counts == []
    np.testing.assert_array_equal(again[0]["object_features"], first[0]["object_features"])


def changed_weights(model, processor, rows):
    next(model.base_model.vision_model.parameters()).data.add_(1)


def changed_picture(model, processor, rows):
    rows[0]["image"] = rows[0]["image"].transpose(0)


def changed_box(model, processor, rows):
    rows[0]["objects"][1]["box"] = [5, 5, 31, 30]


def changed_size(model, processor, rows):
    processor.image_processor.size = {"height": 48, "width": 48}


def changed_choice(model, processor, rows):
    processor.max_objects = 1


@pytest.mark.parametrize("change", [changed_weights, changed_picture, changed_box, changed_size, changed_choice])
def test_what_the_features_depend_on_makes_other_ones(change, monkeypatch):
    model, processor, rows = frozen_model("umgf"), make_processor("umgf"), posts()
    features = kept(model, processor)
    features.add_to(dataset_of("umgf", rows))
    counts = looked_at(monkeypatch)
    change(model, processor, rows)
    features.add_to(dataset_of("umgf", rows))
    assert counts


def test_a_picture_file_that_was_replaced_is_looked_at_again(tmp_path, monkeypatch):
    model, processor, rows = frozen_model("vg"), make_processor("vg"), posts()
    file = tmp_path / "picture.png"
    for seed in (0, 2):
        rows[seed]["image"].save(file)
        dataset = dataset_of("vg", [rows[0] | {"image": str(file)}])
        counts = looked_at(monkeypatch)
        kept(model, processor).add_to(dataset)
        assert counts == [1]


def test_what_a_stopped_run_leaves_is_not_taken(monkeypatch):
    model, processor, dataset = frozen_model("umgf"), make_processor("umgf"), dataset_of("umgf")

    def stopped(self, pixels):
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(KeptFeatures, "cells", stopped)
        with pytest.raises(KeyboardInterrupt):
            kept(model, processor).add_to(dataset)
    counts = looked_at(monkeypatch)
    kept(model, processor).add_to(dataset)
    assert sorted(counts) == [1, 2]


def test_a_picture_that_cannot_be_opened_is_named(tmp_path):
    rows = posts()
    rows[2]["image"] = str(tmp_path / "gone.png")
    Path(rows[2]["image"]).write_bytes(b"no picture")
    dataset = dataset_of("vg", rows)
    with pytest.raises(UnreadablePicture, match="gone.png"):
        kept(frozen_model("vg"), make_processor("vg")).add_to(dataset)


def test_nothing_is_kept_where_it_would_change_or_be_of_no_use():
    processor, dataset = make_processor("umgf"), dataset_of("umgf")
    assert not can_be_kept(make_model("umgf", finetune_cnn=True), processor, dataset)
    model = frozen_model("umgf")
    next(model.base_model.vision_model.parameters()).requires_grad_(True)
    assert not can_be_kept(model, processor, dataset)
    model = frozen_model("umgf")
    assert not can_be_kept(model, processor, dataset.remove_columns("image"))
    given = dataset.add_column("object_features", [[[0.0] * 16] * 2, None, None])
    assert not can_be_kept(model, processor, given)
    processor.column_sources = {"objects": {"model": "a detector"}}
    assert can_be_kept(model, processor, dataset)
    assert not can_be_kept(model, processor, dataset.remove_columns("objects"))  # which it would be asked for
    searched = dataset_of("rgcn").remove_columns("neighbors_inter")
    assert not can_be_kept(frozen_model("rgcn"), make_processor("rgcn"), searched)


def trainer_for(folder, **settings) -> MultimodalNerTrainer:
    fast = {"use_cpu": True, "disable_tqdm": True, "num_train_epochs": 3, "per_device_train_batch_size": 2}
    dataset = dataset_of("umgf")
    model = frozen_model("umgf", dropout=0.0, classifier_dropout=0.0)
    for module in model.modules():
        if isinstance(module, torch.nn.Dropout):
            module.p = 0.0
    return MultimodalNerTrainer(
        model,
        MultimodalNerTrainingArguments(str(folder), seed=0, **fast | settings),
        processing_class=make_processor("umgf"),
        train_dataset=dataset,
        eval_dataset=dataset,
    )


def test_training_and_evaluation_look_at_each_picture_once_and_learn_the_same(tmp_path, monkeypatch):
    looked = []
    trainer = trainer_for(tmp_path / "kept")
    trainer.model.base_model.vision_model.register_forward_hook(lambda *_: looked.append(1))
    trainer.train()
    trainer.predict(dataset_of("umgf"))
    assert len(looked) == 2 + 1  # the posts with a picture; the first one again, to see which batch norms can be folded
    monkeypatch.setattr("modeling_umgf.training.can_be_kept", lambda *_: False)
    others = trainer_for(tmp_path / "pixels")
    others.train()
    losses, other_losses = (
        [entry["loss"] for entry in own.state.log_history if "loss" in entry] for own in (trainer, others)
    )
    assert len(losses) == 3 and losses == pytest.approx(other_losses, rel=1e-3)


def test_where_they_are_and_how_large_is_said_once(tmp_path, monkeypatch):
    said = []
    monkeypatch.setattr(kept_features.logger, "warning", said.append)
    features = kept(frozen_model("umgf"), make_processor("umgf"))
    for _ in range(2):
        features.add_to(dataset_of("umgf"))
    assert len(said) == 1 and str(tmp_path / "cache") in said[0] and "MB" in said[0]


def _add_in_process(place: str, results) -> None:
    datasets.config.HF_DATASETS_CACHE = place
    looked = []
    model = frozen_model("umgf")
    model.base_model.vision_model.register_forward_hook(lambda *_: looked.append(1))
    described = kept(model, make_processor("umgf")).add_to(dataset_of("umgf"))
    results.put((len(looked), described[0]["object_features"].sum().item()))


def test_of_two_processes_one_computes_and_both_read(tmp_path):
    forks = multiprocessing.get_context("fork")
    results = forks.Queue()
    running = [forks.Process(target=_add_in_process, args=(str(tmp_path / "cache"), results)) for _ in range(2)]
    for process in running:
        process.start()
    (looked, first), (other_looked, second) = (results.get(timeout=120) for _ in running)
    for process in running:
        process.join()
    assert sorted([looked, other_looked]) == [0, 2 + 1]
    assert first == second
