"""The card of a trained model: README.md with metadata for the Hub, written from what really happened.

The Trainer stores the facts of a run in run.json next to the model; the card is rendered from them. After training with
several seeds, `python -m modeling_umgf.model_card runs/seed1 runs/seed2` writes the first card again, with all scores.
"""

import argparse
import importlib.metadata
import json
import os
import platform
import re
import sys
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from statistics import mean, stdev
from typing import Any

import torch
from datasets import Dataset
from huggingface_hub import EvalResult, ModelCard, ModelCardData
from transformers import PreTrainedConfig, Trainer

from .labels import entity_spans, entity_types

TEMPLATE = Path(__file__).with_name("model_card_template.md")
FACTS_FILE = "run.json"
PACKAGES = ("modeling_umgf", "torch", "transformers", "datasets", "accelerate", "timm", "pytorch-crf")
HYPER_PARAMETERS = (
    "learning_rate text_learning_rate vision_learning_rate crf_learning_rate per_device_train_batch_size "
    "gradient_accumulation_steps num_train_epochs early_stopping_patience lr_scheduler_type warmup_steps weight_decay "
    "max_grad_norm optim bf16 fp16 seed"
).split()
VARIANTS = {
    "test": "as it is",
    "test_without_pictures": "without pictures",
    "test_shuffled_pictures": "pictures of other posts",
}


class CardError(ValueError):
    """A folder from which no card can be written, in one sentence."""


def describe_run(
    trainer: Trainer,
    dataset: str = "unnamed data",
    label_version: str = "Labels: version not stated.",
    splits: Mapping[str, Dataset] | None = None,
    license: str = "other",
) -> dict[str, Any]:
    """Collect the facts of a run.

    Args:
        trainer: after training; scores are those in the `all_results.json` of its folder.
        dataset: name of the data.
        label_version: a sentence that says which gold labels these are.
        splits: the data; default: the trainer's training and validation split.
        license: identifier of the license of the weights, such as "mit".

    Returns:
        The facts, ready for JSON.
    """
    folder, config, args = Path(trainer.args.output_dir), trainer.model.config, trainer.args
    splits = {"train": trainer.train_dataset, "validation": trainer.eval_dataset} if splits is None else splits
    default = type(config)().to_dict()  # never from config.text_config: that would reset its attention implementation
    not_settings = {"text_config", "vision_config", "id2label", "label2id", "auto_map", "architectures", "dtype"}
    device = torch.cuda.get_device_name() if torch.cuda.is_available() else f"{os.cpu_count()} CPU cores"
    return {
        "model_type": config.model_type,
        "entity_types": entity_types(config.label2id),
        "text_encoder": _encoder_name(config.text_config),
        "image_encoder": _encoder_name(config.vision_config),
        "model_settings": {
            name: value
            for name, value in config.to_dict().items()
            if name not in not_settings and value != default.get(name, value)
        },
        "parameters": sum(parameter.numel() for parameter in trainer.model.parameters()),
        "dataset": dataset,
        "label_version": label_version,
        "license": license,
        "splits": {name: _count(split) for name, split in splits.items() if split is not None},
        "hyper_parameters": {
            name: value.value if hasattr(value := getattr(args, name), "value") else value for name in HYPER_PARAMETERS
        },
        "processes": args.world_size,
        "epochs": trainer.state.epoch,
        "best_validation_f1": trainer.state.best_metric,
        "results": _read_json(folder / "all_results.json") if (folder / "all_results.json").exists() else {},
        "hardware": device,
        "software": {"Python": platform.python_version()} | dict(_versions(PACKAGES)),
    }


def write_model_card(
    folder: str | os.PathLike,
    facts: Mapping[str, Any] | None = None,
    other_seeds: Iterable[str | os.PathLike] = (),
    model: str = ".",
) -> None:
    """Write README.md of a model folder.

    Args:
        folder: the folder of the trained model.
        facts: what `describe_run` returned, stored as run.json; default: what the folder has.
        other_seeds: folders of runs that differ in the seed only.
        model: what the snippet of the card loads: the folder, as seen from where it is, or an id on the Hub.

    Raises:
        CardError: a folder has no run.json, or runs differ in more than the seed.
    """
    folder = Path(folder)
    if facts is not None:
        _write_text(folder / FACTS_FILE, json.dumps(facts, indent=2, ensure_ascii=False) + "\n")
    runs = [_read_facts(Path(path)) for path in (folder, *other_seeds)]
    _write_text(folder / "README.md", str(render_model_card(runs, model)))


def render_model_card(runs: Sequence[Mapping[str, Any]], model: str = ".") -> ModelCard:
    """Render the facts of one run, or of several that differ in the seed; arguments as for `write_model_card`."""
    first = runs[0]
    for run in runs[1:]:
        for name in ("model_type", "text_encoder", "image_encoder", "dataset", "label_version", "model_settings"):
            if run[name] != first[name]:
                raise CardError(
                    f"These runs differ in {name} ({first[name]} and {run[name]}): they don't share a card."
                )
    name = {"umgf": "UMGF", "rgcn": "R-GCN"}.get(first["model_type"], first["model_type"])
    encoders = [encoder for encoder in (first["text_encoder"], first["image_encoder"]) if encoder]
    title = f"{name} on {first['dataset']}"
    data = ModelCardData(
        model_name=title,
        library_name="transformers",
        pipeline_tag="token-classification",
        license=first["license"],
        tags=["named-entity-recognition", "multimodal", "image-text", first["model_type"], "crf"],
        base_model=[encoder for encoder in encoders if re.fullmatch(r"[\w.-]+/[\w.-]+", encoder)] or None,
        metrics=["f1", "precision", "recall"],
        eval_results=_eval_results(runs),
    )
    return ModelCard.from_template(
        data,
        template_path=str(TEMPLATE),
        title=title,
        model=model,
        first=first,
        encoders=encoders,
        pictures=any(split["pictures"] for split in first["splits"].values()),
        results_text=_results_text(runs),
        splits_table=_splits_table(first["splits"]),
        training_table=_training_table(runs),
    )


def _eval_results(runs: Sequence[Mapping[str, Any]]) -> list[EvalResult] | None:
    dataset = runs[0]["dataset"]
    return [
        EvalResult(
            task_type="token-classification",
            task_name="Multimodal named entity recognition",
            dataset_type=re.sub(r"[^\w/.-]+", "-", dataset),
            dataset_name=dataset,
            dataset_split="test",
            metric_type=metric,
            metric_name=f"entity {metric}, mean of {len(runs)} seeds" if len(runs) > 1 else f"entity {metric}",
            metric_value=round(mean(run["results"][f"test_{metric}"] for run in runs) / 100, 4),
        )
        for metric in ("f1", "precision", "recall")
        if all(f"test_{metric}" in run["results"] for run in runs)
    ] or None


def _results_text(runs: Sequence[Mapping[str, Any]]) -> str:
    results = [run["results"] for run in runs]
    if "test_f1" not in results[0]:
        return "Not evaluated on a test split."
    seeds = ", ".join(str(run["hyper_parameters"]["seed"]) for run in runs)
    several = f"Mean ± standard deviation of the seeds {seeds}; the interval is that of the first."
    lines = [
        "Whole names of the test split in %, counted over the whole split; lenient as seqeval and conlleval count,",
        "strict as IOB2. The interval is the 95 % bootstrap interval over posts.",
        several if len(runs) > 1 else f"One run, seed {seeds}.",
        "",
    ]
    rows = [
        [
            text,
            *(_score(results, f"{variant}_{metric}") for metric in ("precision", "recall", "f1")),
            " – ".join(_number(results[0].get(f"{variant}_f1_{bound}")) for bound in ("low", "high")),
            _score(results, f"{variant}_strict_f1"),
        ]
        for variant, text in VARIANTS.items()
        if f"{variant}_f1" in results[0]
    ]
    lines += _table(["test split", "precision", "recall", "F1", "interval of F1", "strict F1"], rows)
    if "test_without_pictures_f1" in results[0]:
        worth = mean(run["test_f1"] - run["test_without_pictures_f1"] for run in results)
        lines += ["", f"F1 with pictures minus F1 without them: {worth:+.2f} points."]
    rows = [
        [name, *(_score(results, f"test_{name}_{metric}") for metric in ("precision", "recall", "f1")), support]
        for name in runs[0]["entity_types"]
        if (support := results[0].get(f"test_{name}_support"))
    ]
    return "\n".join([*lines, "", *_table(["type", "precision", "recall", "F1", "names"], rows)])


def _splits_table(splits: Mapping[str, Mapping[str, int]]) -> str:
    columns = ("tweets", "words", "pictures", "entities")
    return "\n".join(
        _table(
            ["split", *columns], [[name, *(counts[column] for column in columns)] for name, counts in splits.items()]
        )
    )


def _training_table(runs: Sequence[Mapping[str, Any]]) -> str:
    first = runs[0]
    rows = {
        "text encoder": first["text_encoder"],
        "image encoder": first["image_encoder"] or "none",
        "parameters": f"{first['parameters']:,}",
        **{f"`{name}`": value for name, value in first["model_settings"].items()},
        **{f"`{name}`": value for name, value in first["hyper_parameters"].items()},
        "`seed`": ", ".join(str(run["hyper_parameters"]["seed"]) for run in runs),
        "processes": first["processes"],
        "epochs until the stop": ", ".join(f"{run['epochs']:g}" for run in runs),
        "best validation F1": ", ".join(_number(run["best_validation_f1"]) for run in runs),
        "training time": ", ".join(_duration(run["results"].get("train_runtime")) for run in runs),
        "hardware": first["hardware"],
    }
    return "\n".join(_table(["what", "value"], [[name, value] for name, value in rows.items()]))


def _table(header: Sequence[str], rows: Iterable[Sequence[Any]]) -> list[str]:
    return [f"| {' | '.join(map(str, row))} |" for row in (header, ["---"] * len(header), *rows)]


def _score(results: Sequence[Mapping[str, float]], name: str) -> str:
    values = [run[name] for run in results]
    return f"{mean(values):.2f}" + (f" ± {stdev(values):.2f}" if len(values) > 1 else "")


def _number(value: float | None) -> str:
    return "not measured" if value is None else f"{value:.2f}"


def _duration(seconds: float | None) -> str:
    if seconds is None:
        return "not measured"
    return f"{seconds:.0f} s" if seconds < 600 else f"{seconds / 60:.0f} min"


def _count(split: Dataset) -> dict[str, int]:
    names = split.features["ner_tags"].feature.names
    seen = next((name for name in ("image", "object_features", "objects") if name in split.features), None)
    batches = [] if seen is None else split.select_columns(seen).with_format("arrow").iter(batch_size=100)
    tags = [[names[tag] for tag in row] for row in split["ner_tags"]]
    return {
        "tweets": len(split),
        "words": sum(map(len, tags)),
        "pictures": sum(len(batch) - batch[seen].null_count for batch in batches),
        "entities": sum(len(entity_spans(row)) for row in tags),
    }


def _encoder_name(config: PreTrainedConfig | None) -> str | None:
    """Id on the Hub, or type and size with the name (not the path) of a local folder or "from scratch"."""
    if config is None:
        return None
    name = config._name_or_path or getattr(config, "architecture", None)
    if name and not (Path(name).is_absolute() or name.count("/") > 1 or name.startswith(".")):
        return name
    sizes = [(getattr(config, "num_hidden_layers", None), "layers"), (getattr(config, "hidden_size", None), "wide")]
    size = "".join(f", {value} {unit}" for value, unit in sizes if value)
    return f"{config.model_type}{size}, {f'from a local folder {Path(name).name}' if name else 'from scratch'}"


def _versions(packages: Iterable[str]) -> Iterable[tuple[str, str]]:
    for package in packages:
        try:
            yield package, importlib.metadata.version(package)
        except importlib.metadata.PackageNotFoundError:
            continue


def _read_facts(folder: Path) -> dict[str, Any]:
    if not (folder / FACTS_FILE).is_file():
        raise CardError(f"{folder / FACTS_FILE}: no such file; name the output folder of a finished training run.")
    return _read_json(folder / FACTS_FILE)


def _read_json(path: Path) -> dict[str, Any]:
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except ValueError as error:
        raise CardError(f"{path}: not JSON ({error}); train or evaluate again, or restore the file.") from error


def _write_text(path: Path, text: str) -> None:
    unfinished = path.with_name(path.name + ".tmp")
    unfinished.write_text(text, encoding="utf-8")
    os.replace(unfinished, path)


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command line; returns the exit code."""
    parser = argparse.ArgumentParser(
        prog="python -m modeling_umgf.model_card", description="Write a model's card again."
    )
    parser.add_argument("folder", help="output folder of a training run")
    parser.add_argument("other_seeds", nargs="*", help="folders of runs that differ in the seed only")
    parser.add_argument(
        "--model", default=".", help="id on the Hub, for the snippet of the card (default: this folder)"
    )
    try:
        write_model_card(**vars(parser.parse_args(arguments)))
    except (CardError, OSError) as error:
        print(f"error: {error}", file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
