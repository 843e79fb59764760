"""Training and evaluating the text-only tagger against transformers' BERT tagger under its Trainer, side by side.

    python -m benchmarks.text_training_speed --encoder sentence-transformers/all-MiniLM-L6-v2 \
        --train_file train.txt --validation_file valid.txt

Same encoder, posts, batches of posts of like length, optimizer and scorer. Theirs has no CRF, and its posts are
tokenised before the clock starts; ours are tokenised as they are read.
"""

import argparse
import os
import tempfile
import time
from functools import partial
from pathlib import Path

import torch
from datasets import Dataset
from transformers import (
    AutoTokenizer,
    BertForTokenClassification,
    DataCollatorForTokenClassification,
    Trainer,
    TrainingArguments,
)
from transformers.utils import logging

from dataset_scripts.reading.selection import first_posts
from dataset_scripts.reading.splits import load_splits
from modeling_umgf import TextOnlyForTokenClassification, TextOnlyProcessor
from modeling_umgf.evaluation import evaluate_tags
from modeling_umgf.training import MultimodalNerTrainer, MultimodalNerTrainingArguments

from .record import write_result
from .side_by_side import side_by_side


def tokenized(rows: dict[str, list], tokenizer) -> dict[str, list]:
    """Rows as transformers' tagger reads them: the label of a word at its first piece."""
    encoding = tokenizer(rows["tokens"], is_split_into_words=True, truncation=True, return_token_type_ids=False)
    labels = []
    for i, tags in enumerate(rows["ner_tags"]):
        before = None
        own = []
        for word in encoding.word_ids(i):
            own.append(-100 if word is None or word == before else tags[word])
            before = word
        labels.append(own)
    lengths = [len(ids) for ids in encoding["input_ids"]]
    return {"input_ids": encoding["input_ids"], "labels": labels, "length": lengths}


def their_trainer(encoder: str, splits: dict[str, Dataset], names: list[str], settings: dict) -> Trainer:
    """Return transformers' Trainer of transformers' tagger."""
    tokenizer = AutoTokenizer.from_pretrained(encoder)
    model = BertForTokenClassification.from_pretrained(
        encoder, id2label=dict(enumerate(names)), label2id={name: i for i, name in enumerate(names)}
    )

    def scores(evaluation) -> dict[str, float]:
        gold, predicted = [], []
        for row, labels in zip(evaluation.predictions, evaluation.label_ids, strict=True):
            real = labels != -100
            gold.append([names[label] for label in labels[real]])
            predicted.append([names[label] for label in row[real]])
        return evaluate_tags(gold, predicted)

    own = {
        name: split.map(tokenized, batched=True, fn_kwargs={"tokenizer": tokenizer}, remove_columns=split.column_names)
        for name, split in splits.items()
    }
    return Trainer(
        model,
        TrainingArguments(**settings),
        data_collator=DataCollatorForTokenClassification(tokenizer),
        processing_class=tokenizer,
        train_dataset=own["train"],
        eval_dataset=own["validation"],
        compute_metrics=scores,
        preprocess_logits_for_metrics=lambda logits, labels: logits.argmax(-1),
    )


def our_trainer(encoder: str, splits: dict[str, Dataset], names: list[str], settings: dict) -> MultimodalNerTrainer:
    """Return the package's trainer of the text-only tagger."""
    return MultimodalNerTrainer(
        TextOnlyForTokenClassification.from_text_vision_pretrained(encoder, labels=names),
        MultimodalNerTrainingArguments(**settings, load_best_model_at_end=False),
        processing_class=TextOnlyProcessor(AutoTokenizer.from_pretrained(encoder, add_prefix_space=True)),
        train_dataset=splits["train"],
        eval_dataset=splits["validation"],
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--encoder", required=True, help="folder or Hub id of a BERT encoder")
    parser.add_argument("--train_file", required=True, help="posts as train_umgf.py reads them")
    parser.add_argument("--validation_file", required=True)
    parser.add_argument("--count", type=int, default=640, help="training posts; half as many are evaluated")
    parser.add_argument("--batch_size", type=int, default=16)
    parser.add_argument("--bf16", action="store_true")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--threads", type=int, default=len(os.sched_getaffinity(0)), help="processor cores")
    arguments = parser.parse_args()
    begin = time.time()
    logging.set_verbosity_error()
    torch.set_num_threads(arguments.threads)
    files = {"train": arguments.train_file, "validation": arguments.validation_file}
    splits = load_splits(files, image_dir=None, look_at_pictures=False)
    names = splits["train"].features["ner_tags"].feature.names
    limits = {"train": arguments.count, "validation": arguments.count // 2}
    splits = first_posts(splits, limits)
    with tempfile.TemporaryDirectory() as folder:
        settings = {
            "output_dir": folder,
            "num_train_epochs": 1,
            "per_device_train_batch_size": arguments.batch_size,
            "per_device_eval_batch_size": 64,
            "train_sampling_strategy": "group_by_length",
            "eval_strategy": "no",
            "save_strategy": "no",
            "logging_strategy": "epoch",
            "bf16": arguments.bf16,
            "disable_tqdm": True,
            "use_cpu": True,
            "report_to": "none",
        }
        functions = {}
        for who, make in (("transformers", their_trainer), ("package", our_trainer)):
            trainer = make(arguments.encoder, splits, names, settings)
            trainer.log = lambda *_, **__: None
            functions[f"{who}, training"] = trainer.train
            functions[f"{who}, evaluation"] = partial(trainer.evaluate)
        seconds = side_by_side(functions, arguments.rounds, clock=time.perf_counter)
    results = {}
    for work, posts in (("training", len(splits["train"])), ("evaluation", len(splits["validation"]))):
        theirs, ours = seconds[f"transformers, {work}"], seconds[f"package, {work}"]
        results[work] = {
            "transformers_posts_per_second": round(posts / theirs, 1),
            "package_posts_per_second": round(posts / ours, 1),
            "time_of_package_in_times_of_transformers": round(ours / theirs, 3),
        }
    configuration = {"encoder": Path(arguments.encoder).name, "train_file": Path(arguments.train_file).name}
    configuration |= {"count": limits, "batch_size": arguments.batch_size, "bf16": arguments.bf16}
    configuration |= {"device": "cpu", "threads": arguments.threads, "rounds": arguments.rounds}
    name = "text_training_speed_bf16" if arguments.bf16 else "text_training_speed"
    print(write_result(name, configuration, results, time.time() - begin))
    for work, row in results.items():
        print(f"{work}: {row}")


if __name__ == "__main__":
    main()
