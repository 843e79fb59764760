"""Train, evaluate and use a multimodal tagger on your posts.

    python train_umgf.py settings.yaml [--any_argument value …]
    python train_umgf.py --text_model bert-base-cased --vision_model timm/resnet152.a1_in1k \
        --train_file train.txt --validation_file valid.txt --test_file test.txt --image_dir images --output_dir runs/1

Without --do_train, --do_eval or --do_predict, all three are done as far as the data go.
"""

import importlib.util
import json
import sys
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import yaml
from datasets import ClassLabel, DatasetDict, List
from huggingface_hub import DatasetCard, get_token
from huggingface_hub.errors import StrictDataclassClassValidationError, StrictDataclassError
from tokenizers import ByteLevelBPETokenizer
from tokenizers.processors import BertProcessing
from transformers import (
    AutoConfig,
    AutoModelForTokenClassification,
    AutoProcessor,
    AutoTokenizer,
    HfArgumentParser,
    PreTrainedModel,
    PreTrainedTokenizerFast,
    set_seed,
)
from transformers.trainer_utils import get_last_checkpoint
from transformers.utils import logging

from dataset_scripts.checks.twitter_releases import label_version
from dataset_scripts.columns.picture_ablations import columns_from_pictures, remove_pictures, shuffle_pictures
from dataset_scripts.reading.splits import FILE_FORMATS, load_splits
from modeling_umgf import MultimodalNerImageProcessor, MultimodalNerProcessor
from modeling_umgf.evaluation import evaluate_tags, fragment_f1
from modeling_umgf.split_counts import count_split
from modeling_umgf.systems import System, system, systems, text_only_twin
from modeling_umgf.training import MultimodalNerTrainer, MultimodalNerTrainingArguments, write_conll

logger = logging.get_logger("train_umgf")


@dataclass
class ModelArguments:
    """What to train."""

    model_type: str = field(
        default=next(iter(systems())), metadata={"help": f"The system: {', '.join(systems())}, or one of your own."}
    )
    system_file: str | None = field(
        default=None, metadata={"help": "Python file that defines and registers a system of your own."}
    )
    model_name_or_path: str | None = field(
        default=None, metadata={"help": "A trained model of this package to go on with, or to evaluate."}
    )
    text_model: str | None = field(default=None, metadata={"help": "Pretrained text encoder: id or folder."})
    vision_model: str | None = field(default=None, metadata={"help": "Pretrained image encoder: id or folder."})
    text_config: dict | str | None = field(
        default=None, metadata={"help": "JSON: configuration of a text encoder trained from scratch, with model_type."}
    )
    vision_config: dict | str | None = field(
        default=None,
        metadata={"help": "JSON: the same of an image encoder trained from scratch."},
    )
    config_overrides: dict | str | None = field(
        default=None, metadata={"help": 'JSON: any setting of the model, e.g. {"dropout": 0.1}.'}
    )
    processor_overrides: dict | str | None = field(
        default=None, metadata={"help": 'JSON: any setting of the processor, e.g. {"max_objects": 12}.'}
    )
    image_size: int | None = field(
        default=None,
        metadata={"help": "Pictures are resized to this many pixels square; default: what the image encoder reads."},
    )
    text_only: bool = field(
        default=False, metadata={"help": "The text-only twin: same text encoder and decoder, no pictures, no fusion."}
    )

    def __post_init__(self):
        for name in ("text_config", "vision_config", "config_overrides", "processor_overrides"):
            value = getattr(self, name)
            setattr(self, name, json.loads(value) if isinstance(value, str) else value)
        if self.system_file:
            load_system_file(Path(self.system_file))


def load_system_file(path: Path) -> None:
    """Run the file of a system, which registers it."""
    specification = importlib.util.spec_from_file_location(path.stem, path)
    if specification is None or not path.is_file():
        raise ValueError(f"--system_file {path}: there is no such Python file.")
    module = importlib.util.module_from_spec(specification)
    sys.modules[path.stem] = module  # saving a model looks its class up there
    specification.loader.exec_module(module)


@dataclass
class DataArguments:
    """Where the posts are."""

    dataset_name: str | None = field(default=None, metadata={"help": "Folder or Hub id that load_dataset opens."})
    train_file: str | None = field(default=None, metadata={"help": "CoNLL (.txt, .conll) or JSON lines (.jsonl)."})
    validation_file: str | None = field(default=None, metadata={"help": "The same, for model selection."})
    test_file: str | None = field(default=None, metadata={"help": "The same, for the final scores."})
    file_format: str | None = field(
        default=None, metadata={"help": f"{', '.join(FILE_FORMATS)}; default: from the ending."}
    )
    image_dir: str | None = field(default=None, metadata={"help": "Folder of the pictures, <id>.jpg."})
    bootstrap_samples: int = field(default=1000, metadata={"help": "Resamples behind the interval of the test F1."})
    fragment_f1: bool = field(
        default=False, metadata={"help": "Also give F1 of fragments of names, as Zhao et al. (2022) measured it."}
    )


def parse_arguments(argv: list[str]) -> tuple[ModelArguments, DataArguments, MultimodalNerTrainingArguments]:
    """Read dataclass arguments; a YAML or JSON file may come first, and what follows overrides it."""
    parser = HfArgumentParser((ModelArguments, DataArguments, MultimodalNerTrainingArguments))
    if argv and argv[0].endswith((".yaml", ".yml", ".json")):
        settings = yaml.safe_load(Path(argv[0]).read_text(encoding="utf-8"))
        unknown = set(settings) - {action.dest for action in parser._actions}
        if unknown:
            raise ValueError(f"{argv[0]}: no such argument: {', '.join(sorted(unknown))} (see train_umgf.py --help).")
        parser.set_defaults(**settings)
        argv = argv[1:]
    return parser.parse_args_into_dataclasses(argv)


def read_data(arguments: DataArguments, look_at_pictures: bool) -> DatasetDict:
    """Load the splits train, validation and test, as far as they are given."""
    files = {"train": arguments.train_file, "validation": arguments.validation_file, "test": arguments.test_file}
    files = {split: file for split, file in files.items() if file}
    if bool(files) == bool(arguments.dataset_name):
        raise ValueError("Give the posts as either --dataset_name or --train_file/--validation_file/--test_file.")
    return load_splits(
        arguments.dataset_name or files,
        file_format=arguments.file_format,
        image_dir=arguments.image_dir if look_at_pictures else None,
        look_at_pictures=look_at_pictures,
    )


def data_name(arguments: DataArguments) -> str:
    """Name the data for the model card: as their own card does, else by their files."""
    if not arguments.dataset_name:
        return ", ".join(Path(file).name for file in (arguments.train_file, arguments.test_file) if file)
    card = Path(arguments.dataset_name, "README.md")
    title = DatasetCard.load(card).data.pretty_name if card.is_file() else None
    return title or (Path(arguments.dataset_name).name if card.parent.is_dir() else arguments.dataset_name)


def align_labels(splits: DatasetDict, label2id: dict[str, int]) -> DatasetDict:
    """Number the labels of the data as the model does."""
    features = next(iter(splits.values())).features.copy()
    names = features["ner_tags"].feature.names
    if [label2id[name] for name in names] == list(range(len(names))):
        return splits
    features["ner_tags"] = List(ClassLabel(names=sorted(label2id, key=label2id.get)))
    return splits.map(lambda row: {"ner_tags": [label2id[names[tag]] for tag in row["ner_tags"]]}, features=features)


def train_tokenizer(sentences: list[list[str]], max_length: int, vocab_size: int = 1000) -> PreTrainedTokenizerFast:
    """Train byte-level BPE on the words of the training split, for encoders trained from scratch."""
    special = {f"{name}_token": f"[{name.upper()}]" for name in ("pad", "unk", "cls", "sep")}
    tokenizer = ByteLevelBPETokenizer(add_prefix_space=True)
    posts = [" ".join(words) for words in sentences]
    tokenizer.train_from_iterator(posts, vocab_size, show_progress=False, special_tokens=list(special.values()))
    first, last = ((special[name], tokenizer.token_to_id(special[name])) for name in ("cls_token", "sep_token"))
    tokenizer.post_processor = BertProcessing(last, first)
    return PreTrainedTokenizerFast(tokenizer_object=tokenizer._tokenizer, model_max_length=max_length, **special)


def chosen_system(arguments: ModelArguments) -> System:
    """The system that is trained: the one that is named, or its text-only twin."""
    return text_only_twin(arguments.model_type) if arguments.text_only else system(arguments.model_type)


def build(arguments: ModelArguments, splits: DatasetDict) -> tuple[PreTrainedModel, MultimodalNerProcessor]:
    """Return the model and its processor: a trained one, one on pretrained encoders, or one from scratch."""
    labels = next(iter(splits.values())).features["ner_tags"].feature.names
    if arguments.model_name_or_path:
        return load_trained(arguments.model_name_or_path, labels)
    if bool(arguments.text_model) == bool(arguments.text_config):
        raise ValueError("Give the text encoder as either --text_model (pretrained) or --text_config (from scratch).")

    chosen = chosen_system(arguments)
    config = dict(arguments.config_overrides or {})
    processor_settings = dict(arguments.processor_overrides or {})
    vision = None
    if arguments.text_only:
        config = settings_of_twin(config, processor_settings, chosen)
        processor_settings = {}
    elif chosen.reads_pictures:
        vision = arguments.vision_model
        if arguments.vision_config:
            config["vision_config"] = arguments.vision_config
    if config.get("subword_labels") == "x":
        labels = [*labels, "X", "[CLS]", "[SEP]"]
    if arguments.text_model:
        text = arguments.text_model
        tokenizer = AutoTokenizer.from_pretrained(text, add_prefix_space=True)
    else:
        text = dict(arguments.text_config)
        tokenizer = train_tokenizer(splits["train"]["tokens"], text.get("max_position_embeddings", 512))
        text["vocab_size"] = len(tokenizer)
    model = chosen.tagger.from_text_vision_pretrained(text, vision, labels, **config)
    tokenizer.model_max_length = min(
        tokenizer.model_max_length, getattr(model.config.text_config, "max_position_embeddings", 512)
    )
    parts = {"tokenizer": tokenizer}
    if chosen.reads_pictures:
        parts["image_processor"] = MultimodalNerImageProcessor.for_encoder(
            model.config.vision_config, vision, arguments.image_size
        )
    try:
        return model, chosen.processor(**parts, **model.config.processor_settings() | processor_settings)
    except TypeError as error:
        raise ValueError(f"--processor_overrides: {error}") from error


def look_at_pictures(arguments: ModelArguments) -> bool:
    """Whether the model of this run reads pictures at all."""
    if not arguments.model_name_or_path:
        return chosen_system(arguments).reads_pictures
    return system(AutoConfig.from_pretrained(arguments.model_name_or_path).model_type).reads_pictures


def load_trained(name: str, labels: list[str]) -> tuple[PreTrainedModel, MultimodalNerProcessor]:
    """Load a trained model and its processor; it must know the labels of the data."""
    model = AutoModelForTokenClassification.from_pretrained(name)
    unknown = [label for label in labels if label not in model.config.label2id]
    if unknown:
        raise ValueError(
            f"The data have labels that {name} does not know: {', '.join(unknown)}; it knows "
            f"{', '.join(model.config.label2id)}. Rename them in the data, or train anew with --text_model."
        )
    return model, AutoProcessor.from_pretrained(name)


def settings_of_twin(config: dict[str, Any], processor_settings: dict[str, Any], twin: System) -> dict[str, Any]:
    """The settings that a text-only twin shares with the run it is the twin of; the others are named in the log."""
    shared = {name: value for name, value in config.items() if name in twin.config.own_settings()}
    if left_out := sorted(config.keys() - shared.keys() | processor_settings.keys()):
        logger.warning(f"The text-only twin has no {', '.join(left_out)}: these settings are left out.")
    return shared


def main(argv: list[str] | None = None) -> None:
    """Run the command; mistakes in arguments or data end it with one line."""
    try:
        model_arguments, data_arguments, training_arguments = parse_arguments(sys.argv[1:] if argv is None else argv)
        if training_arguments.push_to_hub and not (training_arguments.hub_token or get_token()):
            raise ValueError("--push_to_hub needs a login: run `hf auth login`, or set HF_TOKEN.")
        set_seed(training_arguments.seed)
        with training_arguments.main_process_first(desc="reading the data"):
            splits = read_data(data_arguments, look_at_pictures(model_arguments))
        model, processor = build(model_arguments, splits)
        wanted = {
            "train": training_arguments.do_train,
            "validation": training_arguments.do_eval,
            "test": training_arguments.do_predict,
        }
        splits = DatasetDict({split: dataset for split, dataset in splits.items() if wanted.get(split)})
        if "train" in splits and "validation" not in splits:
            raise ValueError("Training needs a validation split, which selects the best checkpoint: --validation_file.")
        splits = align_labels(splits, model.config.label2id)
        checkpoint = training_arguments.resume_from_checkpoint
        if checkpoint in ("True", "true", "1"):
            checkpoint = get_last_checkpoint(training_arguments.output_dir)
        trainer = MultimodalNerTrainer(
            model,
            training_arguments,
            processing_class=processor,
            train_dataset=splits.get("train"),
            eval_dataset=splits.get("validation"),
        )
    except (ValueError, OSError, ImportError, StrictDataclassError) as error:
        lines = [line.strip() for line in str(error).strip().splitlines()]
        if isinstance(error, StrictDataclassClassValidationError):
            lines = lines[1:]  # the first names a method, the second says what is wrong
        sys.exit(f"train_umgf.py: error: {' '.join(lines)}")

    if "train" in splits:
        trainer.save_metrics("train", trainer.train(resume_from_checkpoint=checkpoint).metrics)
        trainer.save_model()
        trainer.save_state()
    for split in ("validation", "test"):
        if split in splits:
            evaluate(trainer, splits[split], split, data_arguments)
    if "train" in splits:
        version = label_version({name: count_split(split) for name, split in splits.items()})
        trainer.create_model_card(dataset=data_name(data_arguments), label_version=version, splits=splits)
        if training_arguments.push_to_hub:
            trainer.push_to_hub()


def count_pieces(tokenizer, sentences: list[list[str]]) -> list[list[int]]:
    """Number of word pieces of each word of each sentence."""
    encoding = tokenizer(sentences, is_split_into_words=True, add_special_tokens=False)
    return [[encoding.word_ids(i).count(k) for k in range(len(words))] for i, words in enumerate(sentences)]


def evaluate(trainer: MultimodalNerTrainer, dataset, split: str, arguments: DataArguments) -> None:
    """Score a split as it is, and a test split with pictures also without them and with them shuffled among posts."""
    variants = {split: dataset}
    read = trainer.processing_class.columns
    visual = [name for name in columns_from_pictures(dataset) if name in read]
    if split == "test" and any(dataset.data[name].null_count < len(dataset) for name in visual):
        variants["test_without_pictures"] = remove_pictures(dataset)
        if len(dataset) > 1:
            variants["test_shuffled_pictures"] = shuffle_pictures(dataset)
    for name, variant in variants.items():
        gold, predicted = trainer.predict_tags(variant)
        scores = evaluate_tags(gold, predicted, bootstrap_samples=arguments.bootstrap_samples)
        if arguments.fragment_f1:
            pieces = count_pieces(trainer.processing_class.tokenizer, variant["tokens"][:])
            scores["fragment_f1"] = fragment_f1(gold, predicted, pieces)["f1"]
        trainer.save_metrics(name, {f"{name}_{key}": value for key, value in scores.items()})
        if trainer.is_world_process_zero():
            folder = Path(trainer.args.output_dir)
            write_conll(folder / f"{name}_predictions.conll", dataset["id"], dataset["tokens"], gold, predicted)
            print(
                f"{name:24} F1 {scores['f1']:6.2f} [{scores['f1_low']:.2f}, {scores['f1_high']:.2f}]   "
                f"precision {scores['precision']:6.2f}   recall {scores['recall']:6.2f}"
            )


if __name__ == "__main__":
    main()
