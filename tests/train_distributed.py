"""Train a tiny tagger for three steps and evaluate it: run by test_training.py on one process and on two."""

import json
import sys
from pathlib import Path

import torch
from conftest import tiny_config, tiny_tokenizer
from datasets import ClassLabel, Dataset, List, Value

from modeling_umgf import UmgfConfig, UmgfForTokenClassification, UmgfImageProcessor, UmgfProcessor
from modeling_umgf.training import MultimodalNerTrainer, MultimodalNerTrainingArguments


def posts(count: int, labels: list[str]) -> Dataset:
    """Posts of several lengths; every other one has two objects with features of width 16."""
    words, tags = ["Anna", "meets", "Bob", "Marley", "in", "Rome"], [1, 0, 1, 2, 0, 3]
    rows = {
        "id": [str(i) for i in range(count)],
        "tokens": [words[: 2 + i % 5] for i in range(count)],
        "ner_tags": [tags[: 2 + i % 5] for i in range(count)],
        "object_features": [[[(i + k) / 10] * 16 for k in range(2)] if i % 2 else None for i in range(count)],
    }
    dataset = Dataset.from_dict(rows)
    tags_feature = List(ClassLabel(names=labels))
    return dataset.cast_column("ner_tags", tags_feature).cast_column("tokens", List(Value("string")))


def featured_config() -> UmgfConfig:
    """Configuration of a tiny model that reads features of width 16."""
    return tiny_config(vision_config=None, object_feature_size=16)


def without_dropout(config: UmgfConfig) -> UmgfConfig:
    """The same configuration with nothing left to chance."""
    config.dropout = 0.0
    config.classifier_dropout = 0.0
    config.text_config.hidden_dropout_prob = 0.0
    config.text_config.attention_probs_dropout_prob = 0.0
    return config


def main(output_dir: str, batch_size: int) -> None:
    torch.manual_seed(0)
    config = without_dropout(featured_config())
    arguments = MultimodalNerTrainingArguments(
        output_dir,
        per_device_train_batch_size=batch_size,
        per_device_eval_batch_size=3,
        max_steps=3,
        train_sampling_strategy="sequential",
        eval_strategy="no",
        save_strategy="no",
        load_best_model_at_end=False,
        logging_strategy="steps",
        logging_steps=1,
        use_cpu=True,
        disable_tqdm=True,
    )
    names = list(config.id2label.values())
    processor = UmgfProcessor(UmgfImageProcessor(), tiny_tokenizer())
    model = UmgfForTokenClassification(config)
    trainer = MultimodalNerTrainer(model, arguments, processing_class=processor, train_dataset=posts(16, names))
    trainer.train()
    output = trainer.predict(posts(11, names))
    if trainer.is_world_process_zero():
        result = {
            "losses": [entry["loss"] for entry in trainer.state.log_history if "loss" in entry],
            "weight": model.classifier.weight.flatten().tolist(),
            "words": (output.label_ids != -100).sum(1).tolist(),
            "predictions": output.predictions.tolist(),
            "processes": trainer.args.world_size,
        }
        Path(output_dir, "result.json").write_text(json.dumps(result))


if __name__ == "__main__":
    main(sys.argv[1], int(sys.argv[2]))
