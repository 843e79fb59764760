"""What the training command trains: the arguments that say it, and the model and processor made from them."""

import importlib.util
import inspect
import json
import re
import sys
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pyarrow.compute as pc
import torch
import yaml
from datasets import Dataset, DatasetDict
from huggingface_hub.dataclasses import type_validator
from transformers import (
    CONFIG_MAPPING,
    AutoConfig,
    AutoModel,
    AutoModelForTokenClassification,
    AutoProcessor,
    AutoTokenizer,
    PreTrainedConfig,
    PreTrainedModel,
    PreTrainedTokenizerFast,
    ProcessorMixin,
)
from transformers.utils import logging

from .configuration_bilstm import BilstmConfig
from .configuration_multimodal_ner import READ_BY_TRANSFORMERS
from .image_encoder import image_half
from .image_processing_multimodal_ner import MultimodalNerImageProcessor
from .letter_case import tell_letter_case
from .other_labels import with_labels
from .processing_multimodal_ner import MultimodalNerProcessor, checked_context, context_words
from .systems import System, system, systems, text_only_twin
from .tokenization_bilstm import train_word_tokenizer, without_digits
from .tokenizer_from_scratch import train_tokenizer
from .word_vectors import read_word_vectors, start_with

logger = logging.get_logger(__name__)

JSON_ARGUMENTS = ("text_config", "vision_config", "config_overrides", "processor_overrides")
OF_A_NEW_MODEL = (
    "model_type",
    "text_model",
    "vision_model",
    "text_config",
    "vision_config",
    "word_vectors",
    "text_only",
)
READ_BY_TIMM = {"label_names", "num_classes", "pretrained_cfg"}
"""Names in a configuration of timm's, which are no attributes of it."""

OF_PICTURES = ("vision_model", "vision_config", "image_size")


@dataclass
class ModelArguments:
    """What to train."""

    model_type: str | None = field(
        default=None,
        metadata={"help": f"The system: {', '.join(systems())} (default: the first), or one of your own."},
    )
    system_file: str | None = field(
        default=None, metadata={"help": "Python file that defines and registers a system of your own."}
    )
    model_name_or_path: str | None = field(
        default=None, metadata={"help": "A trained model of this package to go on with, or to evaluate."}
    )
    new_labels: bool = field(
        default=False,
        metadata={"help": "Go on with the labels of the data: those the model knows stay, the others start anew."},
    )
    text_model: str | None = field(default=None, metadata={"help": "Pretrained text encoder: id or folder."})
    vision_model: str | None = field(default=None, metadata={"help": "Pretrained image encoder: id or folder."})
    text_config: dict | str | None = field(
        default=None,
        metadata={
            "help": "JSON: configuration of a text encoder trained from scratch, with model_type; vocab_size is how "
            "many pieces its tokenizer learns from the training posts."
        },
    )
    vision_config: dict | str | None = field(
        default=None,
        metadata={"help": "JSON: the same of an image encoder trained from scratch."},
    )
    word_vectors: str | None = field(
        default=None,
        metadata={
            "help": "Text file of pretrained word vectors, such as GloVe's, that the words of a BiLSTM start with; "
            "no word of any split that has one is unknown."
        },
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
        for name in JSON_ARGUMENTS:
            setattr(self, name, read_mapping(f"--{name}", getattr(self, name)))
        if self.image_size is not None and self.image_size < 1:
            raise ValueError(f"--image_size {self.image_size}: a whole number of pixels, at least 1.")
        if self.system_file:
            load_system_file(Path(self.system_file))

    def chosen_system(self) -> System:
        """The system of the model: that of the trained one, the one that is named, or its text-only twin."""
        if self.model_name_or_path:
            return trained_system(self.model_name_or_path, "--model_name_or_path")
        model_type = self.model_type or next(iter(systems()))
        return text_only_twin(model_type) if self.text_only else system(model_type)

    def context(self) -> list[str]:
        """Columns of the data that the processor will read after the post: as it is told, else as it was trained."""
        if "context" in (self.processor_overrides or {}):
            return checked_context(self.processor_overrides["context"])
        return trained_context(self.model_name_or_path) if self.model_name_or_path else []


def build(arguments: ModelArguments, splits: DatasetDict) -> tuple[PreTrainedModel, MultimodalNerProcessor]:
    """Make the model and its processor: a trained one, one on pretrained encoders, or one from scratch.

    Args:
        arguments: what to train.
        splits: the data; their labels are the model's, and a tokenizer from scratch learns from the split train.

    Raises:
        ValueError: arguments contradict each other, the data or the model; it names the argument.
    """
    labels = next(iter(splits.values())).features["ner_tags"].feature.names
    make = build_trained if arguments.model_name_or_path else build_new
    model, processor = make(arguments, labels, splits)
    check_pictures_can_be_read(model, processor, splits)
    check_context(processor, splits)
    return model, processor


def build_trained(
    arguments: ModelArguments, labels: Sequence[str], splits: DatasetDict
) -> tuple[PreTrainedModel, MultimodalNerProcessor]:
    """A trained model, with its labels or those of the data."""
    name = arguments.model_name_or_path
    if given := [f"--{own}" for own in OF_A_NEW_MODEL if getattr(arguments, own)]:
        raise ValueError(
            f"{', '.join(given)}: {name} is trained already. Leave this out, or leave out --model_name_or_path to "
            "train a new model."
        )
    if arguments.new_labels and "train" not in splits:
        raise ValueError("--new_labels: new labels must be trained; give training posts too, such as --train_file.")
    model, processor = load_trained(name, arguments.config_overrides, arguments.processor_overrides)
    if arguments.new_labels:
        model = with_labels(model, labels_of_model(labels, model.config.subword_labels))
    check_labels(name, labels, model.config.label2id)
    if arguments.image_size is not None:
        if not processor.reads_pictures:
            raise ValueError(f"--image_size: {name} reads no pictures.")
        settings = processor.image_processor.to_dict()
        settings["size"] = {"height": arguments.image_size, "width": arguments.image_size}
        processor.image_processor = type(processor.image_processor).from_dict(settings)
        limit_pieces(processor.tokenizer, model, (arguments.image_size, arguments.image_size))
    if wanted := processor.settings_for_model(model.config):
        raise ValueError(f"--processor_overrides: this needs a model with {shown(wanted)}, which {name} is not.")
    return model, processor


def build_new(
    arguments: ModelArguments, labels: Sequence[str], splits: DatasetDict
) -> tuple[PreTrainedModel, MultimodalNerProcessor]:
    """A new model of the system that is chosen."""
    if arguments.new_labels:
        raise ValueError("--new_labels belongs to --model_name_or_path: a new model has the labels of the data.")
    if "train" not in splits:
        raise ValueError(
            "There are no posts to train on: give --train_file, or a trained model as --model_name_or_path."
        )
    if bool(arguments.text_model) == bool(arguments.text_config):
        raise ValueError("Give the text encoder as either --text_model (pretrained) or --text_config (from scratch).")
    if arguments.vision_model and arguments.vision_config:
        raise ValueError(
            "Give the image encoder as either --vision_model (pretrained) or --vision_config (from scratch)."
        )
    chosen = arguments.chosen_system()
    for name in ("text", "vision"):
        check_encoder(arguments, name)
    config = dict(arguments.config_overrides or {})
    processor_settings = dict(arguments.processor_overrides or {})
    visual = [name for name in OF_PICTURES if getattr(arguments, name)]
    if arguments.text_only:
        of_twin = inspect.signature(chosen.processor.__init__).parameters
        others = [name for name in processor_settings if name not in of_twin]
        config = settings_of_twin(config, [*others, *visual], chosen)
        processor_settings = {name: value for name, value in processor_settings.items() if name in of_twin}
    elif visual and not chosen.reads_pictures:
        raise ValueError(f"--{', --'.join(visual)}: {chosen.config.title} reads no pictures; leave this out.")
    for name in chosen.processor.needs:
        if name not in processor_settings:
            raise ValueError(
                f"{chosen.config.title} without {name} is only a part of it: give --processor_overrides "
                f"'{{\"{name}\": …}}', or null there to go on without."
            )
    vision = arguments.vision_model if chosen.reads_pictures else None
    if chosen.reads_pictures and arguments.vision_config:
        config["vision_config"] = arguments.vision_config
    has_encoder = bool(vision or config.get("vision_config"))
    if arguments.image_size and chosen.reads_pictures and not has_encoder:
        raise ValueError("--image_size: there is no image encoder; give --vision_model or --vision_config.")
    if "object_features" in chosen.processor.columns and not has_encoder and (width := feature_width(splits)):
        config.setdefault("object_feature_size", width)
    context = processor_settings.get("context", ())
    vectors = vectors_of_words(arguments, splits, context)
    tokenizer, text = text_encoder(arguments, splits["train"], context, vectors)

    def make(**settings: Any) -> PreTrainedModel:
        own_labels = labels_of_model(labels, settings.get("subword_labels"))
        model = chosen.tagger.from_text_vision_pretrained(text, vision, own_labels, **settings)
        if vectors:
            try:
                start_with(model.get_input_embeddings(), tokenizer, vectors)
            except ValueError as error:
                raise ValueError(f"--word_vectors {arguments.word_vectors}: {error}") from error
        return model

    model = make(**config)
    if model.config.letter_case:
        tell_letter_case(tokenizer)
    parts = {"tokenizer": tokenizer}
    size = None
    if chosen.reads_pictures:
        parts["image_processor"] = MultimodalNerImageProcessor.for_encoder(
            model.config.vision_config, vision, arguments.image_size
        )
        size = parts["image_processor"].size["height"], parts["image_processor"].size["width"]
    limit_pieces(tokenizer, model, size)
    settings = model.config.processor_settings() | processor_settings
    processor = make_processor(chosen.processor, parts | settings)
    if wanted := processor.settings_for_model(model.config):
        if clash := wanted.keys() & config.keys():
            given = {name: config[name] for name in clash}
            raise ValueError(f"--config_overrides: {shown(given)}, but the processor needs {shown(wanted)}.")
        model = make(**config | wanted)
    return model, processor


def limit_pieces(
    tokenizer: PreTrainedTokenizerFast, model: PreTrainedModel, picture_size: tuple[int, int] | None
) -> None:
    """Let a tokenizer make no more pieces than the model has positions for beside a picture [height, width].

    Raises:
        ValueError: the picture leaves none for a text.
    """
    room = model.base_model.max_pieces(picture_size)
    if room <= tokenizer.num_special_tokens_to_add() < model.base_model.max_pieces():
        raise ValueError(
            f"--image_size: a picture of {picture_size[0]} x {picture_size[1]} pixels leaves no position of the text "
            "encoder for a text; give smaller ones."
        )
    tokenizer.model_max_length = min(tokenizer.model_max_length, room)


def vectors_of_words(arguments: ModelArguments, splits: DatasetDict, context: Sequence[str]) -> dict[str, torch.Tensor]:
    """The pretrained vectors of the words of all posts and their contexts; none where none are given.

    Raises:
        ValueError: the file cannot be read, or the text encoder does not read whole words.
    """
    if not arguments.word_vectors:
        return {}
    if (arguments.text_config or {}).get("model_type") != BilstmConfig.model_type:
        raise ValueError('--word_vectors: only a BiLSTM reads whole words; --text_config \'{"model_type": "bilstm"}\'.')
    words = {without_digits(word) for posts in splits.values() for own in sentences(posts, context) for word in own}
    try:
        vectors = read_word_vectors(arguments.word_vectors, words)
    except ValueError as error:
        raise ValueError(f"--word_vectors {error}") from error
    logger.warning(f"{len(vectors)} of {len(words)} words start with their vector of {arguments.word_vectors}.")
    return vectors


def text_encoder(
    arguments: ModelArguments, posts: Dataset, context: Sequence[str] = (), known: Iterable[str] = ()
) -> tuple[PreTrainedTokenizerFast, str | dict[str, Any]]:
    """The tokenizer, which learns from posts and their context, and the id, folder or configuration of the encoder.

    Words that are `known` have a vector, and so a place in the vocabulary of an encoder of words.
    """
    if arguments.text_model:
        return AutoTokenizer.from_pretrained(arguments.text_model, add_prefix_space=True), arguments.text_model
    text = dict(arguments.text_config)
    limit = text.get("max_position_embeddings", 512)
    read = [*sentences(posts, context)]
    try:
        if text.get("model_type") == BilstmConfig.model_type:  # it reads whole words
            reads_characters = text.get("characters", "none") != "none"
            tokenizer = train_word_tokenizer(read, limit, characters=reads_characters, known=known)
        else:
            tokenizer = train_tokenizer(read, limit, text.get("vocab_size"))
    except ValueError as error:
        raise ValueError(f"--text_config: {error}") from error
    text["vocab_size"] = len(tokenizer)
    return tokenizer, text


def sentences(posts: Dataset, context: Sequence[str]) -> Iterator[Sequence[str]]:
    """The words of posts, and of the columns of their context that they have."""
    yield from posts["tokens"]
    columns = [name for name in context if name in posts.column_names]
    if columns:
        yield from (context_words(post, columns) for post in posts.select_columns(columns))


def labels_of_model(labels: Sequence[str], subword_labels: str | None) -> list[str]:
    """The labels of the data, and those of pieces where pieces are labelled."""
    return [*labels, "X", "[CLS]", "[SEP]"] if subword_labels == "x" else list(labels)


def read_mapping(what: str, given: dict | str | None) -> dict[str, Any] | None:
    """Read a setting that is a mapping, in JSON.

    Raises:
        ValueError: it is none.
    """
    if given is None or isinstance(given, dict):
        return given
    try:
        value = json.loads(given)
    except (TypeError, ValueError) as error:
        raise ValueError(f"{what}: {given!r} is no JSON ({error}).") from error
    if not isinstance(value, dict):
        raise ValueError(f'{what}: {given!r} is no mapping such as {{"name": 1}}.')
    return value


def read_settings(file: str | Path, known: Mapping[str, Any]) -> dict[str, Any]:
    """Read a YAML or JSON file of arguments.

    Args:
        file: its path.
        known: the type of each argument. What is no text must be of this type, text is for the parser of arguments.

    Raises:
        ValueError: it cannot be read, holds no settings, one twice, one that is not known, or one of another type.
    """
    file = Path(file)
    try:
        text = file.read_text(encoding="utf-8")
        is_json = file.suffix == ".json"
        settings = json.loads(text, object_pairs_hook=once_each) if is_json else _SettingsLoader(text).get_single_data()
    except OSError as error:
        raise ValueError(f"{file}: can't be read ({error.strerror}).") from error
    except (yaml.YAMLError, ValueError) as error:
        kind = "JSON" if file.suffix == ".json" else "YAML"
        raise ValueError(f"{file}: is no {kind}: {' '.join(str(error).split())}") from error
    if not isinstance(settings, dict):
        raise ValueError(f"{file}: holds no settings; write one a line, such as num_train_epochs: 5.")
    if unknown := sorted(str(name) for name in settings.keys() - known.keys()):
        raise ValueError(f"{file}: no such argument: {', '.join(unknown)} (see train_umgf.py --help).")
    for name, value in settings.items():
        settings[name] = checked_setting(f"{file}: {name}", value, known[name])
    return settings


def checked_setting(what: str, value: Any, kind: Any) -> Any:
    """A setting of a file, a whole number as a real one where that is wanted.

    Raises:
        ValueError: it is of another type than this one.
    """

    def fits(value: Any) -> bool:
        try:
            type_validator("", value, kind)
        except TypeError:
            return False
        return True

    if fits(value) or (isinstance(value, str) and not fits([value])):
        return value
    if type(value) is int and fits(float(value)):
        return float(value)
    hint = " Without quotes, no, off, yes and on are False and True in YAML." if isinstance(value, bool) else ""
    raise ValueError(f"{what}: {value!r} is no {getattr(kind, '__name__', kind)}.{hint}")


def once_each(pairs: Iterable[tuple[Any, Any]]) -> dict[Any, Any]:
    """Pairs as a dictionary.

    Raises:
        ValueError: a key stands twice.
    """
    found = {}
    for key, value in pairs:
        if key in found:
            raise ValueError(f"{key!r} stands there twice")
        found[key] = value
    return found


class _SettingsLoader(yaml.SafeLoader):
    """YAML in which a key stands once, and 1e-5 is a number, as in YAML 1.2, and no text."""

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[Any, Any]:
        keys = [key for key, _ in node.value if isinstance(key, yaml.ScalarNode)]
        for i, key in enumerate(keys):
            if (key.tag, key.value) in [(other.tag, other.value) for other in keys[:i]]:
                raise yaml.constructor.ConstructorError(None, None, f"{key.value!r} stands there twice", key.start_mark)
        return super().construct_mapping(node, deep)


_SettingsLoader.add_implicit_resolver(
    "tag:yaml.org,2002:float", re.compile(r"[-+]?(\d+\.?\d*|\.\d+)[eE][-+]?\d+$"), list("-+0123456789.")
)


def load_system_file(path: Path) -> None:
    """Run the file of a system, which registers it."""
    specification = importlib.util.spec_from_file_location(path.stem, path)
    if specification is None or not path.is_file():
        raise ValueError(f"--system_file {path}: there is no such Python file.")
    module = importlib.util.module_from_spec(specification)
    sys.modules[path.stem] = module  # saving a model looks its class up there
    try:
        specification.loader.exec_module(module)
    except Exception as error:  # whatever the file does
        raise ValueError(f"--system_file {path}: {type(error).__name__}: {error}") from error


def read_config(argument: str, name: str) -> PreTrainedConfig:
    """Read the configuration of a model.

    Args:
        argument: what gave its name, for the error.
        name: its id or folder.

    Raises:
        ValueError: it cannot be loaded.
    """
    try:
        return AutoConfig.from_pretrained(name)
    except (OSError, ValueError) as error:
        is_id = re.fullmatch(r"[\w-][\w.-]*(/[\w-][\w.-]*)?", name)
        reason = error if is_id or Path(name).exists() else "there is no such folder, and no id on the Hub looks so"
        raise ValueError(f"{argument} {name}: {' '.join(str(reason).split())}") from error


def trained_system(name: str, argument: str) -> System:
    """The system of a trained model.

    Args:
        name: its id or folder.
        argument: what gave this name, for the error.

    Raises:
        ValueError: it cannot be loaded, or is no model of this package.
    """
    model_type = read_config(argument, name).model_type
    if model_type not in systems():
        raise ValueError(
            f"{argument} {name} is no trained tagger of this package, but a model of the type {model_type}: to train "
            "on it, give it as --text_model."
        )
    return system(model_type)


def load_trained(
    name: str, config_overrides: dict[str, Any] | None = None, processor_overrides: dict[str, Any] | None = None
) -> tuple[PreTrainedModel, MultimodalNerProcessor]:
    """Load a trained model and its processor, with some settings changed.

    Args:
        name: its id or folder, looked at by `trained_system`.
        config_overrides: settings of the model that change no layer.
        processor_overrides: settings of the processor.

    Raises:
        ValueError: the settings do not fit it.
    """
    config = AutoConfig.from_pretrained(name)
    shared = config.processor_settings()
    if config_overrides:
        config = type(config).from_dict(config.to_dict() | config_overrides)
    try:
        model, found = AutoModelForTokenClassification.from_pretrained(name, config=config, output_loading_info=True)
        misfits = sorted(
            str(key) for keys in ("missing_keys", "unexpected_keys", "mismatched_keys") for key in found[keys]
        )
    except RuntimeError as error:
        misfits = [str(error).splitlines()[0]]
    if misfits:
        raise ValueError(
            f"The weights of {name} do not fit its configuration ({', '.join(misfits[:2])}"
            f"{' …' if len(misfits) > 2 else ''}); --config_overrides can change no layer of a trained model."
        )
    processor = AutoProcessor.from_pretrained(name)
    changed = {own: value for own, value in config.processor_settings().items() if value != shared[own]}
    changed |= processor_overrides or {}
    if changed:
        parameters = list(inspect.signature(type(processor).__init__).parameters)[1:]
        sources = processor.column_sources
        processor = make_processor(type(processor), {own: getattr(processor, own) for own in parameters} | changed)
        processor.column_sources = sources
    return model, processor


def trained_context(name: str) -> list[str]:
    """Columns that a trained model, of an id or in a folder, reads after the post."""
    settings, _ = ProcessorMixin.get_processor_dict(name)
    return settings.get("context", [])


def check_context(processor: MultimodalNerProcessor, splits: DatasetDict) -> None:
    """Look for the columns of the context in the data, and say how many posts have none.

    Raises:
        ValueError: a column is in no split, and cannot be found for its posts; or holds something else than text.
    """
    known = {column for split in splits.values() for column in split.column_names}
    columns = [name for name in processor.context if name in known]
    for name in processor.context:
        made = processor.column_sources.get(name, "given") != "given" and processor.reads_pictures
        if name not in known and not made:
            raise ValueError(
                f"The model reads the context {name!r}, a column that no split has; they have "
                f"{', '.join(sorted(known))}. Add it to the data, or name others: --processor_overrides "
                '\'{"context": ["caption"]}\'.'
            )
    if columns != list(processor.context):
        return
    without = {}
    for name, split in splits.items():
        texts = split.select_columns(columns) if columns else ()
        without[name] = sum(not processor.context_words(post) for post in texts)
    if any(without.values()):
        counts = ", ".join(f"{count:,} of {len(splits[name]):,} in {name}" for name, count in without.items())
        logger.warning(f"Posts without a context ({', '.join(columns)}), which are read alone: {counts}.")


def make_processor(processor_class: type, settings: dict[str, Any]) -> MultimodalNerProcessor:
    """Make a processor; a setting that there is not is a ValueError."""
    try:
        return processor_class(**settings)
    except TypeError as error:
        raise ValueError(f"--processor_overrides: {error}") from error


def check_labels(name: str, labels: Sequence[str], known: Sequence[str]) -> None:
    """Raise ValueError where the data have labels that a trained model does not know."""
    if unknown := [label for label in labels if label not in known]:
        raise ValueError(
            f"The data have labels that {name} does not know: {', '.join(unknown)}; it knows {', '.join(known)}. Go on "
            "with the labels of the data by --new_labels, or rename them in the data."
        )


def check_encoder(arguments: ModelArguments, kind: str) -> None:
    """Raise ValueError where what is given as the encoder of a kind, "text" or "vision", is something else."""
    name, settings = getattr(arguments, f"{kind}_model"), getattr(arguments, f"{kind}_config")
    if not name and not settings:
        return
    argument = f"--{kind}_model" if name else f"--{kind}_config"
    if not name and settings.get("model_type") not in CONFIG_MAPPING:
        raise ValueError(f'{argument}: give it a "model_type" that transformers knows, such as bert or resnet.')
    config = read_config(argument, name) if name else AutoConfig.for_model(settings["model_type"])
    passed_on = READ_BY_TRANSFORMERS | READ_BY_TIMM
    if unknown := [own for own in settings or () if own not in passed_on and not hasattr(config, own)]:
        raise ValueError(f"{argument}: {config.model_type} has no setting {', '.join(unknown)}.")
    if name and config.model_type in systems():
        raise ValueError(
            f"{argument} {name} is a trained tagger of this package, no encoder: go on with it by "
            f"--model_name_or_path {name}."
        )
    if kind == "vision":
        config = image_half(config)
    model_class = AutoModel._model_mapping.get(type(config), None)
    reads = getattr(model_class, "main_input_name", None)
    if kind == "vision" and reads != "pixel_values":
        raise ValueError(f"{argument}: a model of the type {config.model_type} reads no pictures.")
    is_text_encoder = reads == "input_ids" and hasattr(config, "hidden_size") and not config.is_encoder_decoder
    if kind == "text" and (config.model_type in systems() or not is_text_encoder):
        raise ValueError(f"{argument}: a model of the type {config.model_type} is no encoder of texts alone.")


def settings_of_twin(config: dict[str, Any], others: Sequence[str], twin: System) -> dict[str, Any]:
    """The settings that a text-only twin shares with the run it is the twin of; the others are named in the log."""
    shared = {name: value for name, value in config.items() if name in twin.config.own_settings()}
    if left_out := sorted((config.keys() - shared.keys()) | set(others)):
        logger.warning(f"The text-only twin has no {', '.join(left_out)}: these settings are left out.")
    return shared


def feature_width(splits: Mapping[str, Dataset], column: str = "object_features") -> int | None:
    """Width of a column of features of the data; None where there are none."""
    for split in splits.values():
        if column in split.column_names:
            for features in split[column]:
                if features:
                    return len(features[0])
    return None


def check_pictures_can_be_read(model: PreTrainedModel, processor: MultimodalNerProcessor, splits: DatasetDict) -> None:
    """Raise ValueError where the model can't read the pictures of the data, or their features."""
    config = model.config
    reads_features = "object_features" in processor.columns
    for column in ("object_features", "knowledge_features"):
        for name, split in splits.items() if column in processor.columns else ():
            if (width := feature_width({name: split}, column)) not in (None, config.object_feature_size):
                raise ValueError(
                    f"The column {column} of the split {name} is {width} wide, the model reads "
                    f"{config.object_feature_size}: leave out the image encoder, or compute the features with the same "
                    "one."
                )
    if not processor.reads_pictures or config.vision_config is not None:
        return
    for name, split in splits.items():
        if "image" not in split.column_names:
            continue
        read = [column for column in ("image", "objects", "object_features", "id") if column in split.column_names]
        for rows in split.select_columns(read).with_format("arrow").iter(1000):  # not all posts in memory
            unread = rows["image"].is_valid()
            if reads_features and "object_features" in read:
                unread = pc.and_(unread, rows["object_features"].is_null())
            if "objects" in read:  # nobody looked, or something was found
                unread = pc.and_(unread, pc.not_equal(pc.fill_null(pc.list_value_length(rows["objects"]), -1), 0))
            if pc.any(unread).as_py():
                raise ValueError(
                    f"Post {rows['id'].filter(unread)[0]} of the split {name} has a picture, but the model has no "
                    "image encoder: give one as --vision_model or --vision_config, or train the --text_only twin."
                )


def shown(settings: dict[str, Any]) -> str:
    """Settings as a sentence has them."""
    return ", ".join(f"{name}={value}" for name, value in settings.items())
