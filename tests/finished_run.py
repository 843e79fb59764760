"""A finished training run in seconds: a tiny UMGF on three posts, one of them with a picture."""

from pathlib import Path

import torch
from conftest import LABELS, SENTENCES, tiny_config, tiny_tokenizer
from datasets import ClassLabel, Dataset, DatasetDict, Features, Image, List, Value
from PIL import Image as PILImage

from modeling_umgf import UmgfForTokenClassification, UmgfImageProcessor, UmgfProcessor
from modeling_umgf.conll import write_conll
from modeling_umgf.evaluation import evaluate_tags
from modeling_umgf.training import MultimodalNerTrainer, MultimodalNerTrainingArguments

TAGS = [[1, 0, 1, 2, 0, 3], [0, 0, 0, 3, 0], [0] * 6]


def three_posts(pictures: bool = True) -> Dataset:
    columns = {"id": Value("string"), "tokens": List(Value("string")), "ner_tags": List(ClassLabel(names=LABELS))}
    rows = {"id": ["1", "2", "3"], "tokens": [sentence.split() for sentence in SENTENCES], "ner_tags": TAGS}
    if pictures:
        columns["image"] = Image()
        rows["image"] = [PILImage.new("RGB", (40, 30), "red"), None, None]
    return Dataset.from_dict(rows, features=Features(columns))


def train(
    folder: Path,
    seed: int = 1,
    pictures: bool = True,
    splits: DatasetDict | None = None,
    dataset: str = "three posts",
    resume: bool = False,
    **arguments,
) -> MultimodalNerTrainer:
    """Train (one epoch by default), evaluate, and save everything that the training command saves."""
    torch.manual_seed(seed)
    splits = splits or DatasetDict({split: three_posts(pictures) for split in ("train", "validation", "test")})
    arguments = {"num_train_epochs": 1, "seed": seed, "disable_tqdm": True} | arguments
    trainer = MultimodalNerTrainer(
        UmgfForTokenClassification(tiny_config()),
        MultimodalNerTrainingArguments(str(folder), **arguments),
        processing_class=UmgfProcessor(UmgfImageProcessor(size={"height": 32, "width": 32}), tiny_tokenizer()),
        train_dataset=splits["train"],
        eval_dataset=splits["validation"],
    )
    trainer.save_metrics("train", trainer.train(resume_from_checkpoint=resume).metrics)
    trainer.save_model()
    gold, predicted = trainer.predict_tags(splits["test"])
    columns = splits["test"]["id"][:], splits["test"]["tokens"][:], gold, predicted
    write_conll(folder / "test_predictions.conll", *columns)
    for variant in ("test", "test_without_pictures") if pictures else ("test",):
        scores = evaluate_tags(gold, predicted, bootstrap_samples=50)
        trainer.save_metrics(variant, {f"{variant}_{name}": value for name, value in scores.items()})
    trainer.create_model_card(dataset=dataset, label_version="Labels: written by hand.", splits=splits)
    return trainer
