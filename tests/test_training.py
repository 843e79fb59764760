"""The Trainer: learning rates, order of predictions, resuming, several processes."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from conftest import LABELS, tiny_config, tiny_labels, tiny_tokenizer
from datasets import Dataset, Image
from parallel_runs import free_port
from systems_under_test import SYSTEMS
from train_distributed import featured_config, posts, without_dropout
from train_distributed import main as train_distributed
from transformers.trainer_pt_utils import get_length_grouped_indices

from dataset_scripts.reading.conll import read_conll
from modeling_umgf import (
    MultimodalNerPipeline,
    TextOnlyConfig,
    TextOnlyForTokenClassification,
    TextOnlyProcessor,
    UmgfForTokenClassification,
    UmgfImageProcessor,
    UmgfProcessor,
    processing_multimodal_ner,
)
from modeling_umgf.checkpoints import what_is_torn
from modeling_umgf.conll import write_conll
from modeling_umgf.data_collator import MultimodalNerCollator
from modeling_umgf.pictures import UnreadablePicture
from modeling_umgf.training import (
    LengthGroups,
    MultimodalNerTrainer,
    MultimodalNerTrainingArguments,
    choose_workers,
    read_columns,
)

TESTS = Path(__file__).parent


def trainer_for(folder, config=None, **settings) -> MultimodalNerTrainer:
    torch.manual_seed(0)
    fast = {"use_cpu": True, "disable_tqdm": True, "num_train_epochs": 2, "per_device_train_batch_size": 4}
    return MultimodalNerTrainer(
        UmgfForTokenClassification(config or featured_config()),
        MultimodalNerTrainingArguments(str(folder), **fast | settings),
        processing_class=UmgfProcessor(UmgfImageProcessor(), tiny_tokenizer()),
        train_dataset=posts(12, LABELS),
        eval_dataset=posts(7, LABELS),
    )


def test_each_part_of_the_model_has_its_own_learning_rate(tmp_path):
    rates = {"learning_rate": 1e-3, "text_learning_rate": 2e-5, "vision_learning_rate": 3e-5, "crf_learning_rate": 4e-2}
    trainer = trainer_for(tmp_path, **rates)
    trainer.model = UmgfForTokenClassification(tiny_config())  # this one has an image encoder
    optimizer = trainer.create_optimizer()
    rate_of = {id(p): (g["lr"], g["weight_decay"]) for g in optimizer.param_groups for p in g["params"]}
    for name, parameter in trainer.model.named_parameters():
        lr, decay = rate_of.pop(id(parameter))
        part = name.removeprefix("model.").split(".")[0]
        assert lr == {"text_model": 2e-5, "vision_model": 3e-5, "label_decoder": 4e-2}.get(part, 1e-3), name
        assert decay == 0 or not name.endswith("bias"), name
    assert not rate_of


def test_training_learns_and_ends_with_the_best_checkpoint(tmp_path):
    trainer = trainer_for(tmp_path, num_train_epochs=25, learning_rate=5e-3, text_learning_rate=5e-3)
    before = trainer.evaluate()["eval_f1"]
    trainer.train()
    scores = [entry["eval_f1"] for entry in trainer.state.log_history if "eval_f1" in entry]
    assert trainer.evaluate()["eval_f1"] == max(scores[1:]) > before + 30
    assert "predictions" not in str(trainer.state.log_history[-1])


def test_predictions_come_in_the_order_of_the_dataset_though_training_groups_by_length(tmp_path):
    trainer = trainer_for(tmp_path, per_device_eval_batch_size=2)
    dataset = posts(9, LABELS)
    gold, predicted = trainer.predict_tags(dataset)
    assert gold == [[LABELS[tag] for tag in tags] for tags in dataset["ner_tags"]]
    alone = [trainer.predict_tags(dataset.select([i]))[1][0] for i in range(9)]
    assert predicted == alone


def test_resuming_gives_the_weights_of_an_uninterrupted_run(tmp_path):
    whole = trainer_for(tmp_path / "whole", save_total_limit=None)
    whole.train()
    resumed = trainer_for(tmp_path / "resumed")
    resumed.train(resume_from_checkpoint=str(tmp_path / "whole" / "checkpoint-3"))
    torch.testing.assert_close(resumed.model.state_dict(), whole.model.state_dict())


def test_resuming_within_an_epoch_gives_them_too(tmp_path):
    by_steps = {"save_strategy": "steps", "save_steps": 2, "eval_strategy": "steps", "eval_steps": 2}
    whole = trainer_for(tmp_path / "whole", save_total_limit=None, **by_steps)
    whole.train()
    resumed = trainer_for(tmp_path / "resumed", **by_steps)
    resumed.train(resume_from_checkpoint=str(tmp_path / "whole" / "checkpoint-4"))  # the second of three steps
    torch.testing.assert_close(resumed.model.state_dict(), whole.model.state_dict())


@pytest.mark.parametrize("disable_tqdm", [True, False])
def test_what_is_printed_while_a_model_trains_is_read_at_a_glance(tmp_path, capsys, disable_tqdm):
    trainer = trainer_for(tmp_path, num_train_epochs=1, disable_tqdm=disable_tqdm)
    trainer.train()
    printed = capsys.readouterr().out
    assert "'eval_f1'" in printed and "'loss'" in printed and "PER" not in printed
    assert any("eval_PER_f1" in entry for entry in trainer.state.log_history)  # and nothing is lost


def test_training_without_a_checkpoint_to_resume_starts_at_the_beginning(tmp_path):
    trainer = trainer_for(tmp_path, num_train_epochs=1)
    trainer.train(resume_from_checkpoint=True)
    assert trainer.state.global_step == 3


def test_a_new_run_in_the_folder_of_another_leaves_no_checkpoint_of_both(tmp_path, monkeypatch):
    trainer_for(tmp_path, num_train_epochs=1).train()
    assert what_is_torn(tmp_path / "checkpoint-3") is None
    second = trainer_for(tmp_path, num_train_epochs=1)

    def killed(*_):
        raise KeyboardInterrupt

    monkeypatch.setattr(second, "_save_optimizer_and_scheduler", killed)  # after the weights are written
    with pytest.raises(KeyboardInterrupt):
        second.train()
    assert what_is_torn(tmp_path / "checkpoint-3") == "checkpoint_files.json is missing or torn"


def test_posts_of_like_length_come_together_in_the_same_order_in_every_process():
    lengths = [i % 7 for i in range(200)]
    torch.manual_seed(1)
    order = LengthGroups(lengths, batch_size=8, seed=3)
    first = list(order)
    torch.manual_seed(2)  # what dropout has drawn in another process
    assert list(order) == first and sorted(first) == list(range(200))
    order.epoch = 1
    assert list(order) != first
    spread = [max(batch) - min(batch) for batch in batches([lengths[i] for i in first], 8)]
    assert sum(spread) / len(spread) < 3


def batches(values: list, size: int) -> list[list]:
    return [values[start : start + size] for start in range(0, len(values), size)]


def test_a_summed_loss_stays_one_where_batches_are_accumulated(tmp_path):
    sampling = {
        "train_sampling_strategy": "sequential",
        "logging_strategy": "steps",
        "logging_steps": 1,
        "max_steps": 1,
    }
    entries = []
    for size, steps in ((4, 1), (2, 2)):
        config = without_dropout(featured_config())
        config.crf_reduction = "sum"
        sampling |= {"per_device_train_batch_size": size, "gradient_accumulation_steps": steps}
        trainer = trainer_for(tmp_path / str(size), config, **sampling)
        trainer.train()
        entries.append(trainer.state.log_history[0])
    assert entries[0]["loss"] == pytest.approx(entries[1]["loss"], rel=1e-4)
    assert entries[0]["grad_norm"] == pytest.approx(entries[1]["grad_norm"], rel=1e-3)


def test_accumulated_gradients_have_the_loss_of_the_large_batch(tmp_path):
    settings = {
        "train_sampling_strategy": "sequential",
        "logging_strategy": "steps",
        "logging_steps": 1,
        "max_steps": 1,
    }
    losses = []
    for size, steps in ((4, 1), (2, 2)):
        settings |= {"per_device_train_batch_size": size, "gradient_accumulation_steps": steps}
        trainer = trainer_for(tmp_path / str(size), without_dropout(featured_config()), **settings)
        trainer.train()
        losses.append(trainer.state.log_history[0])
    assert losses[0]["loss"] == pytest.approx(losses[1]["loss"], rel=1e-4)
    assert losses[0]["grad_norm"] == pytest.approx(losses[1]["grad_norm"], rel=1e-3)


def start_two(*command: str) -> list[subprocess.Popen]:
    """Start a script of the tests as two processes of one group, as torchrun does."""
    together = {
        "OMP_NUM_THREADS": "1",
        "PYTHONPATH": f"{TESTS}{os.pathsep}{TESTS.parent}",
        "MASTER_ADDR": "127.0.0.1",
        "MASTER_PORT": str(free_port()),
        "WORLD_SIZE": "2",
    }
    running = []
    for rank in ("0", "1"):
        environment = os.environ | together | {"RANK": rank, "LOCAL_RANK": rank}
        started = [sys.executable, str(TESTS / command[0]), *command[1:]]
        running.append(subprocess.Popen(started, env=environment, stdout=subprocess.PIPE, stderr=subprocess.STDOUT))
    return running


def wait_for(running: list[subprocess.Popen]) -> str:
    """Wait until all have done their work; returns what the first one printed."""
    printed = [process.communicate(timeout=300)[0].decode() for process in running]
    for process, own in zip(running, printed, strict=True):
        assert process.returncode == 0, own[-3000:]
    return printed[0]


def test_parameters_that_two_processes_share_get_the_gradients_of_one():
    printed = wait_for(start_two("train_sharded.py")).splitlines()  # warnings of libraries among them
    assert [line for line in printed if line in SYSTEMS] == SYSTEMS


def test_two_processes_train_as_one_with_the_same_global_batch_and_evaluate_every_post_once(tmp_path):
    running = start_two("train_distributed.py", str(tmp_path / "two"), "2")
    train_distributed(str(tmp_path / "one"), 4)
    wait_for(running)
    one, two = (json.loads((tmp_path / name / "result.json").read_text()) for name in ("one", "two"))
    assert (one["processes"], two["processes"]) == (1, 2)
    assert one["losses"] == pytest.approx(two["losses"], rel=1e-4)
    assert one["weight"] == pytest.approx(two["weight"], abs=1e-5)
    assert one["words"] == two["words"] == [2 + i % 5 for i in range(11)]
    assert one["predictions"] == two["predictions"]


def test_conll_output_reads_back_as_it_was(tmp_path):

    words, tags = [["a", "\u00a0", "c"], ["d"]], [["B-PER", "O", "I-PER"], ["O"]]
    write_conll(tmp_path / "out.conll", ["7", "x_1"], words, tags)
    rows = read_conll(tmp_path / "out.conll")
    assert [row["id"] for row in rows] == ["7", "x_1"]
    assert [row["tokens"] for row in rows] == words
    assert [row["tags"] for row in rows] == tags


def test_line_breaks_and_tabs_in_words_become_spaces_in_conll(tmp_path):
    write_conll(tmp_path / "out.conll", ["1"], [["a\nb", "c\rd", "e\tf"]], [["O", "B-PER", "I-PER"]])
    assert (tmp_path / "out.conll").read_text() == "IMGID:1\na b\tO\nc d\tB-PER\ne f\tI-PER\n\n"


def test_predictions_of_a_sorted_evaluation_are_scored_as_those_in_order(tmp_path):
    trainer = trainer_for(tmp_path, per_device_eval_batch_size=2)
    output = trainer.predict(posts(9, LABELS))
    in_order = trainer_for(tmp_path, per_device_eval_batch_size=2)
    in_order.model.load_state_dict(trainer.model.state_dict())
    in_order.sorts_evaluation = False
    expected = in_order.predict(posts(9, LABELS))
    assert output.predictions.tolist() == expected.predictions.tolist()
    assert output.label_ids.tolist() == expected.label_ids.tolist()
    assert output.metrics["test_f1"] == expected.metrics["test_f1"]
    assert output.metrics["test_loss"] == pytest.approx(expected.metrics["test_loss"], rel=1e-4)


def test_evaluation_batches_hold_posts_of_as_many_pieces(tmp_path):
    trainer = trainer_for(tmp_path, per_device_eval_batch_size=2)
    sizes = [batch["input_ids"].shape[1] for batch in trainer.get_eval_dataloader()]
    assert sizes == sorted(sizes, reverse=True) and len(set(sizes)) > 2


def test_scores_of_ones_own_see_the_posts_in_their_order(tmp_path):
    seen = []
    trainer = MultimodalNerTrainer(
        UmgfForTokenClassification(featured_config()),
        MultimodalNerTrainingArguments(str(tmp_path), use_cpu=True, disable_tqdm=True, per_device_eval_batch_size=2),
        processing_class=UmgfProcessor(UmgfImageProcessor(), tiny_tokenizer()),
        eval_dataset=posts(7, LABELS),
        compute_metrics=lambda evaluation: seen.extend((evaluation.label_ids != -100).sum(1).tolist()) or {"f1": 0.0},
    )
    trainer.evaluate()
    assert seen == [2 + i % 5 for i in range(7)]


def test_the_order_is_that_of_the_sampler_of_transformers():
    lengths = [(7 * i) % 31 for i in range(500)]
    for batch_size in (3, 16, 200):
        generator = torch.Generator().manual_seed(5)
        expected = get_length_grouped_indices(lengths, batch_size, generator=generator)
        assert list(LengthGroups(lengths, batch_size, seed=5)) == expected


@pytest.mark.parametrize("columns", [["id", "tokens", "ner_tags"], ["id", "tokens", "ner_tags", "image"]])
def test_pictures_are_opened_in_processes_of_their_own_for_an_accelerator_alone(tmp_path, monkeypatch, columns):
    monkeypatch.setattr(os, "cpu_count", lambda: 32)
    dataset = posts(3, LABELS).add_column("image", [None] * 3).select_columns(columns)

    def workers(use_cpu: bool, **given) -> int:
        arguments = MultimodalNerTrainingArguments(str(tmp_path), use_cpu=True, **given)
        arguments.use_cpu = use_cpu
        processor = UmgfProcessor(UmgfImageProcessor(), tiny_tokenizer())
        choose_workers(arguments, [read_columns(dataset, processor)])
        return arguments.dataloader_num_workers

    assert workers(True) == 0
    assert workers(False) == (8 if "image" in columns else 0)
    assert workers(False, dataloader_num_workers=0) == 0
    assert workers(True, dataloader_num_workers=3) == 3


def test_a_text_only_run_never_opens_a_picture(tmp_path, monkeypatch):
    dataset = posts(4, LABELS).add_column("image", [b"no picture"] * 4)
    monkeypatch.setattr(processing_multimodal_ner, "open_picture", None)  # calling it would fail
    config = TextOnlyConfig(text_config=tiny_config().text_config.to_dict(), **tiny_labels())
    trainer = MultimodalNerTrainer(
        TextOnlyForTokenClassification(config),
        MultimodalNerTrainingArguments(str(tmp_path), use_cpu=True, disable_tqdm=True, num_train_epochs=1),
        processing_class=TextOnlyProcessor(tiny_tokenizer()),
        train_dataset=dataset,
        eval_dataset=dataset,
    )
    trainer.train()
    assert trainer.train_dataset.column_names == trainer.eval_dataset.column_names == ["id", "tokens", "ner_tags"]


def test_a_picture_of_the_training_data_is_opened_as_one_that_is_tagged(tmp_path):
    file = tmp_path / "broken.jpg"
    file.write_bytes(b"no picture")
    dataset = posts(3, LABELS).remove_columns("object_features").add_column("image", [None, str(file), None])
    dataset = dataset.cast_column("image", Image())
    processor = UmgfProcessor(UmgfImageProcessor(), tiny_tokenizer())
    rows = read_columns(dataset, processor)
    with pytest.raises(UnreadablePicture, match=r"Post 1 of the batch \(id 1\): .*broken.jpg: not a picture"):
        MultimodalNerCollator(processor)([rows[i] for i in range(3)])


def test_final_predictions_read_posts_beyond_the_limit_to_their_end(tmp_path, caplog):
    trainer = trainer_for(tmp_path)
    words = ("Anna", "Rome") * 50
    features = trainer.eval_dataset.features
    row = trainer.eval_dataset[0] | {"tokens": list(words), "ner_tags": [1, 3] * 50}
    data = Dataset.from_list([trainer.eval_dataset[1], row], features=features)
    cut = trainer.predict(data).predictions[1]
    assert (cut == -100).sum() == 100 - 62
    gold, predicted = trainer.predict_tags(data)
    assert [len(tags) for tags in gold] == [len(tags) for tags in predicted]
    tagger = MultimodalNerPipeline(trainer.model, processor=trainer.processing_class, device="cpu")
    post = {name: value for name, value in row.items() if name in tagger.input_columns}
    assert predicted[1] == [word["entity"] for word in tagger(post, aggregation_strategy="none")]
    assert "1 of 2 posts are long and were read in overlapping windows" in caplog.text
    trainer.evaluate(data)
    assert "38 words of long posts are not read here and count as O" in caplog.text


def test_nan_in_features_ends_training_with_the_name_of_the_post(tmp_path):
    trainer = trainer_for(tmp_path, train_sampling_strategy="sequential")
    rows = trainer.train_dataset.to_list()
    rows[5]["object_features"][0][2] = float("nan")
    trainer.train_dataset = Dataset.from_list(rows, features=trainer.train_dataset.features)
    with pytest.raises(ValueError, match="Post 1 of the batch.*object_features hold NaN or infinity"):
        trainer.train()


@pytest.mark.parametrize("broken", ["weights", "inputs"])
def test_a_loss_that_is_no_number_ends_training_with_the_reason(tmp_path, broken, monkeypatch):
    trainer = trainer_for(tmp_path, max_steps=3)
    if broken == "weights":
        trainer.model.classifier.weight.data[0, 0] = float("inf")
    else:
        collate = trainer.data_collator
        trainer.data_collator = lambda rows: {
            name: tensor.index_fill(0, torch.tensor([1]), float("inf")) if name == "object_features" else tensor
            for name, tensor in collate(rows).items()
        }
    reason = {"weights": "diverged; classifier.weight holds NaN", "inputs": "object_features of its post 1"}
    with pytest.raises(FloatingPointError, match=f"The loss of step 1 is no number.*{reason[broken]}"):
        trainer.train()
