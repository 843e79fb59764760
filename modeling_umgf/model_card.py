"""The card of a trained model: README.md with metadata for the Hub, written from what really happened.

The Trainer stores the facts of a run in run.json next to the model; the card is rendered from them. After training with
several seeds, `python -m modeling_umgf card runs/seed1 runs/seed2` writes the first card again, with all scores.
"""

import importlib.metadata
import json
import os
import platform
import re
import time
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import chain
from pathlib import Path
from statistics import mean, stdev
from typing import Any

import pyarrow.compute as pc
import torch
from datasets import Dataset
from huggingface_hub import EvalResult, ModelCard, ModelCardData
from transformers import PreTrainedConfig, Trainer, TrainerCallback, TrainingArguments
from transformers.trainer_callback import ExportableState

from .files import write_whole
from .labels import entity_types
from .split_counts import count_split

TEMPLATE = Path(__file__).with_name("model_card_template.md")
FACTS_FILE = "run.json"
NOT_UPLOADED = """\
# What stays here when the folder is uploaded: words and labels of posts, and what loading does not need.
checkpoint-*
*.conll
*.jsonl
*.csv
*.parquet
"""
PACKAGES = ("modeling_umgf", "torch", "transformers", "datasets", "accelerate", "timm")
HYPER_PARAMETERS = (
    "learning_rate",
    "text_learning_rate",
    "vision_learning_rate",
    "crf_learning_rate",
    "per_device_train_batch_size",
    "gradient_accumulation_steps",
    "num_train_epochs",
    "early_stopping_patience",
    "lr_scheduler_type",
    "warmup_steps",
    "weight_decay",
    "max_grad_norm",
    "optim",
    "bf16",
    "fp16",
    "seed",
)
NOT_SETTINGS = {
    "text_config",
    "vision_config",
    "id2label",
    "label2id",
    "_name_or_path",
    "auto_map",
    "architectures",
    "dtype",
}
SHARED_FACTS = ("model_type", "text_encoder", "image_encoder", "dataset", "label_version", "model_settings", "context")
COUNTS = ("posts", "words", "pictures", "entities")
METRICS = ("precision", "recall", "f1")
VARIANTS = {
    "test": "as it is",
    "test_without_pictures": "without pictures",
    "test_half_pictures": "half of the pictures missing",
    "test_shuffled_pictures": "pictures of other posts",
    "test_without_context": "without context",
}


FROM_SCRATCH = "from scratch"
HUB_ID = re.compile(r"[\w.-]+(/[\w.-]+)?")


class CardError(ValueError):
    """A folder from which no card can be written, in one sentence."""


class TrainingTime(TrainerCallback, ExportableState):
    """Counts the seconds of a training over all its legs: a checkpoint keeps what was counted before it."""

    def __init__(self):
        self.earlier = 0.0  # seconds
        self.begin = None

    @property
    def seconds(self) -> float:
        """From the first start to now, or to the end; pauses between the legs are left out."""
        return self.earlier + (0 if self.begin is None else time.perf_counter() - self.begin)

    def state(self) -> dict[str, dict[str, float]]:
        """What a checkpoint keeps."""
        return {"args": {}, "attributes": {"earlier": self.seconds}}

    def on_train_begin(self, args, state, control, **_) -> None:
        """Go on counting where the checkpoint was, if there is one."""
        kept = state.stateful_callbacks.get(type(self).__name__) if state.global_step else None
        self.earlier = kept["attributes"]["earlier"] if kept else 0.0
        self.begin = time.perf_counter()

    def on_train_end(self, args, state, control, **_) -> None:
        """Stop counting."""
        self.earlier = self.seconds
        self.begin = None


@dataclass
class CardOptions:
    """What the command `card` is asked for; the help of each field says what it is."""

    runs: list[str] = field(
        metadata={
            "positional": True,
            "help": "Output folder of a training run, which gets the card; then those of runs that differ in the seed.",
        }
    )
    model: str = field(
        default=".",
        metadata={"help": "What the card's snippet loads: an id on the Hub, or the folder as seen from it."},
    )


def describe_run(
    trainer: Trainer,
    dataset: str = "unnamed data",
    label_version: str = "Labels: version not stated.",
    splits: Mapping[str, Dataset] | None = None,
    license: str = "other",
) -> dict[str, Any]:
    """Collect the facts of a run.

    Args:
        trainer: after training; scores are those that were saved in its folder after that, and no older ones.
        dataset: name of the data.
        label_version: a sentence that says which gold labels these are.
        splits: the data; default: the trainer's training and validation split.
        license: identifier of the license of the weights, such as "mit".

    Returns:
        The facts, ready for JSON.
    """
    args = trainer.args
    config = trainer.model.config
    if splits is None:
        splits = {"train": trainer.train_dataset, "validation": trainer.eval_dataset}
    return {
        "model_type": config.model_type,
        "system": describe_system(type(config)),
        "reads_pictures": trainer.processing_class.reads_pictures,
        "reads_objects": "objects" in trainer.processing_class.columns,
        "context": list(trainer.processing_class.context),
        "notes": trainer.processing_class.describe(),
        "started_from": _started_from(config._name_or_path),
        "entity_types": entity_types(config.label2id),
        "text_encoder": _encoder_name(config.text_config),
        "image_encoder": _encoder_name(getattr(config, "vision_config", None)),
        "model_settings": _changed_settings(config),
        "parameters": sum(parameter.numel() for parameter in trainer.model.parameters()),
        "dataset": dataset,
        "label_version": label_version,
        "license": license,
        "splits": {name: _count(split) for name, split in splits.items() if split is not None},
        "hyper_parameters": _hyper_parameters(args),
        "processes": args.world_size,
        "epochs": trainer.state.epoch,
        "best_validation_f1": trainer.state.best_metric,
        "training_seconds": _training_seconds(trainer),
        "results": _results_of_this_run(trainer),
        "hardware": torch.cuda.get_device_name() if torch.cuda.is_available() else f"{os.cpu_count()} CPU cores",
        "software": {"Python": platform.python_version()} | dict(_versions(PACKAGES)),
    }


def describe_system(config_class: type[PreTrainedConfig]) -> dict[str, Any]:
    """Collect what a configuration class says about its system.

    Args:
        config_class: a configuration with the class attributes `title`, `summary` (one sentence) and `paper` (a dict
            with title, authors, venue, year and url, or None).
    """
    return {
        "title": config_class.title,
        "summary": config_class.summary,
        "paper": config_class.paper,
    }


def write_card(options: CardOptions) -> Path:
    """Write the card of a run again, with the scores of all seeds; returns its file. Raises as `write_model_card`."""
    folder, *other_seeds = options.runs
    return write_model_card(folder, other_seeds=other_seeds, model=options.model)


def write_model_card(
    folder: str | os.PathLike,
    facts: Mapping[str, Any] | None = None,
    other_seeds: Iterable[str | os.PathLike] = (),
    model: str = ".",
) -> Path:
    """Write README.md of a model folder.

    Args:
        folder: the folder of the trained model.
        facts: what `describe_run` returned, stored as run.json, with a .gitignore that keeps the words of posts out of
            uploads; default: what the folder has.
        other_seeds: folders of runs that differ in the seed only.
        model: what the snippet of the card loads: the folder, as seen from where it is, or an id on the Hub.

    Returns:
        The file.

    Raises:
        CardError: a folder has no run.json, or runs differ in more than the seed.
    """
    folder = Path(folder)
    if facts is not None:
        _write_text(folder / FACTS_FILE, json.dumps(facts, indent=2, ensure_ascii=False) + "\n")
        _write_text(folder / ".gitignore", NOT_UPLOADED)
    runs = [_read_facts(Path(run)) for run in (folder, *other_seeds)]
    card_file = folder / "README.md"
    _write_text(card_file, str(render_model_card(runs, model)))
    return card_file


def check_output_folder(folder: str | os.PathLike) -> None:
    """Raise CardError where a folder holds a finished run: another run there would get its scores and its code.

    To be called before a training that doesn't resume.
    """
    if Path(folder, FACTS_FILE).is_file():
        raise CardError(
            f"{folder}: holds a finished run. One run, one folder: name another --output_dir, remove this one, or go "
            "on with --resume_from_checkpoint True."
        )


def render_model_card(runs: Sequence[Mapping[str, Any]], model: str = ".") -> ModelCard:
    """Render the facts of one run, or of several that differ in the seed; arguments as for `write_model_card`.

    Names that come with data are shown as they are, be they markup.
    """
    runs = [_without_markup(run) for run in runs]
    first = runs[0]
    for run in runs[1:]:
        _check_same_but_seed(first, run)
    for seed, number in Counter(run["hyper_parameters"]["seed"] for run in runs).items():
        if number > 1:
            raise CardError(f"These runs have one seed, {seed}, {number} times: a mean over it says nothing.")
    encoders = [name for name in (first["text_encoder"], first["image_encoder"]) if name and not _is_new(name)]
    started_from = [first["started_from"]] if first.get("started_from") else []
    on_the_hub = [name for name in started_from if HUB_ID.fullmatch(name)]
    base_models = on_the_hub or encoders + started_from
    title = f"{first['system']['title']} on {first['dataset']}"
    data = ModelCardData(
        model_name=title,
        library_name="transformers",
        pipeline_tag="token-classification",
        license=first["license"],
        tags=_tags(first),
        base_model=list(filter(HUB_ID.fullmatch, base_models)) or None,
        metrics=["f1", "precision", "recall"],
        eval_results=_eval_results(runs) or None,
    )
    return ModelCard.from_template(
        data,
        template_path=str(TEMPLATE),
        title=title,
        model=model,
        first=first,
        system=first["system"],
        base_models=base_models,
        which_posts=_which_posts(first),
        example_of_context="".join(f', "{name}": "a woman on a stage"' for name in first.get("context", ())),
        texts=_which_texts(first),
        data_with_pictures=any(counts["pictures"] for counts in first["splits"].values()),
        results_text=_results_text(runs),
        splits_table=_splits_table(first["splits"]),
        training_table=_training_table(runs),
    )


def _without_markup(fact: Any) -> Any:
    """The same facts, in which no string begins a tag of HTML."""
    if isinstance(fact, str):
        return fact.replace("<", "&lt;")
    if isinstance(fact, Mapping):
        return {_without_markup(name): _without_markup(value) for name, value in fact.items()}
    return [_without_markup(one) for one in fact] if isinstance(fact, list | tuple) else fact


def _check_same_but_seed(first: Mapping[str, Any], run: Mapping[str, Any]) -> None:
    for name in SHARED_FACTS:
        if run.get(name) != first.get(name):
            raise CardError(
                f"These runs differ in {name} ({first.get(name)} and {run.get(name)}): they don't share a card."
            )
    one, other = (_settings_but_seed(facts) for facts in (first, run))
    if differing := sorted(name for name in one.keys() | other.keys() if one.get(name) != other.get(name)):
        raise CardError(f"These runs differ in {', '.join(differing)}: they don't share a card.")
    if _evaluated(run) != _evaluated(first):
        raise CardError(
            f"These runs were tested differently ({', '.join(_evaluated(first)) or 'not at all'} and "
            f"{', '.join(_evaluated(run)) or 'not at all'}): evaluate them alike."
        )


def _settings_but_seed(run: Mapping[str, Any]) -> dict[str, Any]:
    """What a run was trained with: hyper-parameters, and how many posts a split has."""
    posts = {f"posts of the split {name}": counts["posts"] for name, counts in run["splits"].items()}
    return {name: value for name, value in run["hyper_parameters"].items() if name != "seed"} | posts


def _evaluated(run: Mapping[str, Any]) -> list[str]:
    """Which of `VARIANTS` have scores."""
    return [variant for variant in VARIANTS if f"{variant}_f1" in run["results"]]


def _tags(run: Mapping[str, Any]) -> list[str]:
    tags = ["named-entity-recognition", run["model_type"]]
    if run["reads_pictures"]:
        tags += ["multimodal", "image-text"]
    return tags


def _eval_results(runs: Sequence[Mapping[str, Any]]) -> list[EvalResult]:
    if "test" not in _evaluated(runs[0]):
        return []
    dataset = runs[0]["dataset"]
    several = f", mean of {len(runs)} seeds" if len(runs) > 1 else ""
    results = []
    for metric in ("f1", "precision", "recall"):
        score = mean(run["results"][f"test_{metric}"] for run in runs)
        results.append(
            EvalResult(
                task_type="token-classification",
                task_name="Multimodal named entity recognition",
                dataset_type=re.sub(r"[^\w/.-]+", "-", dataset),
                dataset_name=dataset,
                dataset_split="test",
                metric_type=metric,
                metric_name=f"entity {metric}{several}",
                metric_value=round(score / 100, 4),
            )
        )
    return results


def _results_text(runs: Sequence[Mapping[str, Any]]) -> str:
    evaluated = _evaluated(runs[0])
    if "test" not in evaluated:
        return "Not evaluated on a test split."
    results = [run["results"] for run in runs]
    lines = [
        "Whole names of the test split in %, counted over the whole split; lenient as seqeval and conlleval count,",
        "strict as IOB2. The interval is the 95 % bootstrap interval over posts.",
    ]
    if len(runs) > 1:
        lines.append(f"Mean ± standard deviation of the seeds {_seeds(runs)}; the interval is that of the first.")
    else:
        lines.append(f"One run, seed {_seeds(runs)}.")
    rows = []
    for variant in evaluated:
        scores = [_score(results, f"{variant}_{metric}") for metric in METRICS]
        interval = " – ".join(_number(results[0].get(f"{variant}_f1_{bound}")) for bound in ("low", "high"))
        rows.append([VARIANTS[variant], *scores, interval, _score(results, f"{variant}_strict_f1")])
    lines += ["", *_table(["test split", "precision", "recall", "F1", "interval of F1", "strict F1"], rows)]
    if "test_without_pictures" in evaluated:
        worth = mean(run["test_f1"] - run["test_without_pictures_f1"] for run in results)
        lines += ["", f"F1 with pictures minus F1 without them: {worth:+.2f} points."]
    rows = []
    for name in runs[0]["entity_types"]:
        if support := results[0].get(f"test_{name}_support"):
            scores = [_score(results, f"test_{name}_{metric}") for metric in METRICS]
            rows.append([name, *scores, support])
    lines += ["", *_table(["type", "precision", "recall", "F1", "names"], rows)]
    return "\n".join(lines)


def _splits_table(splits: Mapping[str, Mapping[str, int]]) -> str:
    rows = []
    for name, counts in splits.items():
        rows.append([name, *(counts[column] for column in COUNTS)])
    return "\n".join(_table(["split", *COUNTS], rows))


def _training_table(runs: Sequence[Mapping[str, Any]]) -> str:
    first = runs[0]
    settings = first["model_settings"] | first["hyper_parameters"] | {"seed": _seeds(runs)}
    rows = [
        ["text encoder", first["text_encoder"]],
        ["image encoder", first["image_encoder"] or "none"],
        ["parameters", f"{first['parameters']:,}"],
    ]
    if first.get("started_from"):
        rows.insert(0, ["started from", first["started_from"]])
    rows += [[f"`{name}`", value] for name, value in settings.items()]
    rows += [
        ["processes", first["processes"]],
        ["epochs until the stop", ", ".join(f"{run['epochs'] or 0:g}" for run in runs)],
        ["best validation F1", ", ".join(_number(run["best_validation_f1"]) for run in runs)],
        ["training time", ", ".join(map(_training_time, runs))],
        ["hardware", first["hardware"]],
    ]
    return "\n".join(_table(["what", "value"], rows))


def _seeds(runs: Sequence[Mapping[str, Any]]) -> str:
    return ", ".join(str(run["hyper_parameters"]["seed"]) for run in runs)


def _table(header: Sequence[str], rows: Iterable[Sequence[Any]]) -> list[str]:
    lines = ([str(cell).replace("|", "\\|") for cell in row] for row in (header, ["---"] * len(header), *rows))
    return [f"| {' | '.join(line)} |" for line in lines]


def _score(results: Sequence[Mapping[str, float]], name: str) -> str:
    values = [run[name] for run in results]
    return f"{mean(values):.2f}" + (f" ± {stdev(values):.2f}" if len(values) > 1 else "")


def _number(value: float | None) -> str:
    return "not measured" if value is None else f"{value:.2f}"


def _training_time(run: Mapping[str, Any]) -> str:
    """Of all legs; runs whose legs were not counted have the time of the last one."""
    seconds = run.get("training_seconds")
    return _duration(run["results"].get("train_runtime") if seconds is None else seconds)


def _duration(seconds: float | None) -> str:
    if seconds is None:
        return "not measured"
    return f"{seconds:.0f} s" if seconds < 600 else f"{seconds / 60:.0f} min"


def _count(split: Dataset) -> dict[str, int]:
    """The `COUNTS` of a split; a post with features of a picture counts as one with a picture."""
    counts = count_split(split)
    numbers = {name: getattr(counts, name) for name in COUNTS}
    if "object_features" in split.features:
        batches = split.select_columns("object_features").with_format("arrow").iter(batch_size=100)
        lengths = [pc.list_value_length(batch["object_features"]).to_pylist() for batch in batches]
        numbers["pictures"] = max(numbers["pictures"], sum(map(bool, chain.from_iterable(lengths))))
    return numbers


def _changed_settings(config: PreTrainedConfig) -> dict[str, Any]:
    """The settings of a configuration that differ from its defaults."""
    default = type(config)().to_dict()  # never from config.text_config: that would reset its attention implementation
    changed = {}
    for name, value in config.to_dict().items():
        if name not in NOT_SETTINGS and value != default.get(name, value):
            changed[name] = value
    return changed


def _hyper_parameters(args: TrainingArguments) -> dict[str, Any]:
    values = {}
    for name in HYPER_PARAMETERS:
        value = getattr(args, name)
        values[name] = getattr(value, "value", value)  # of an enumeration
    return values


def _encoder_name(config: PreTrainedConfig | None) -> str | None:
    """Id on the Hub, or type and size with the name (not the path) of a local folder or "from scratch"."""
    if config is None:
        return None
    name = config._name_or_path
    if _hub_id(name):
        return name
    kind = getattr(config, "architecture", None) or config.model_type
    sizes = [(getattr(config, "num_hidden_layers", None), "layers"), (getattr(config, "hidden_size", None), "wide")]
    size = "".join(f", {value} {unit}" for value, unit in sizes if value)
    return f"{kind}{size}, {f'from a local folder {Path(name).name}' if name else FROM_SCRATCH}"


def _started_from(name: str | None) -> str | None:
    """The trained model that this one goes on from: its id on the Hub, or the name (not the path) of its folder."""
    return _hub_id(name) or (f"a trained model in the local folder {Path(name).name}" if name else None)


def _which_posts(run: Mapping[str, Any]) -> str:
    """What a post may bring besides its text."""
    if not run["reads_pictures"]:
        return ""
    return " that may come with " + ("a picture" if run["image_encoder"] else "features of a picture")


def _which_texts(run: Mapping[str, Any]) -> str:
    """Which texts "text only" means, where they are more than the posts'."""
    if not run.get("context"):
        return ""
    return f": that of the posts and of their columns {', '.join(f'`{name}`' for name in run['context'])}"


def _is_new(encoder: str) -> bool:
    """Whether an encoder, as `_encoder_name` names it, was not pretrained."""
    return encoder.endswith(FROM_SCRATCH)


def _hub_id(name: str | None) -> str | None:
    """The name of a model, if it is an id on the Hub and no folder."""
    is_id = bool(name) and re.fullmatch(r"\w[\w.-]*(/[\w.-]+)?", name) is not None
    return name if is_id and not Path(name).is_dir() else None


def _training_seconds(trainer: Trainer) -> float | None:
    """Seconds of all legs, where they were counted."""
    for callback in trainer.callback_handler.callbacks:
        if isinstance(callback, TrainingTime):
            return callback.seconds
    return None


def _results_of_this_run(trainer: Trainer) -> dict[str, float]:
    """What was saved as "train" after this training, and scores that are not older than that."""
    folder = Path(trainer.args.output_dir)
    train_file = folder / "train_results.json"
    runtimes = [entry["train_runtime"] for entry in trainer.state.log_history if "train_runtime" in entry]
    if not runtimes or not train_file.is_file():
        return {}
    results = _read_json(train_file)
    if results.get("train_runtime") != runtimes[-1]:
        return {}
    since = train_file.stat().st_mtime_ns
    for file in sorted(folder.glob("*_results.json")):
        if file.name != "all_results.json" and file.stat().st_mtime_ns >= since:
            results |= _read_json(file)
    return results


def _versions(packages: Iterable[str]) -> Iterator[tuple[str, str]]:
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
    with write_whole(path) as unfinished:
        unfinished.write_text(text, encoding="utf-8")
