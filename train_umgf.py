"""Train, evaluate and use a multimodal tagger on your posts.

    python train_umgf.py settings.yaml [--any_argument value …]
    python train_umgf.py --text_model bert-base-cased --vision_model timm/resnet152.a1_in1k \
        --train_file train.txt --validation_file valid.txt --test_file test.txt --image_dir images --output_dir runs/1
    python train_umgf.py --model_name_or_path runs/1 --test_file test.txt --image_dir images --output_dir runs/1_again

Without --do_train, --do_eval or --do_predict, all three are done as far as the data go.
"""

import copy
import sys
from dataclasses import dataclass, field, fields
from pathlib import Path
from typing import Any, NoReturn, get_type_hints

from datasets import ClassLabel, Dataset, DatasetDict, List
from huggingface_hub import DatasetCard, get_token
from huggingface_hub.errors import StrictDataclassClassValidationError, StrictDataclassError
from transformers import HfArgumentParser, set_seed
from transformers.trainer_utils import IntervalStrategy

from dataset_scripts.checks.twitter_releases import label_version
from dataset_scripts.columns.picture_ablations import (
    columns_from_pictures,
    remove_columns,
    remove_pictures,
    shuffle_pictures,
)
from dataset_scripts.reading.bad_input import log_to_stderr
from dataset_scripts.reading.selection import add_validation, first_posts
from dataset_scripts.reading.splits import FILE_FORMATS, load_splits
from modeling_umgf.checkpoints import checkpoint_to_resume
from modeling_umgf.conll import write_conll
from modeling_umgf.describer import sources_in_card
from modeling_umgf.evaluation import Tags, evaluate_tags, fragment_f1, paired_randomization_test
from modeling_umgf.files import FullDisk, told_of_a_full_disk
from modeling_umgf.labels import entity_types
from modeling_umgf.model_arguments import (
    ModelArguments,
    build,
    check_context,
    check_labels,
    load_trained,
    read_mapping,
    read_settings,
    trained_context,
    trained_system,
)
from modeling_umgf.model_card import check_output_folder
from modeling_umgf.split_counts import count_split
from modeling_umgf.training import MultimodalNerTrainer, MultimodalNerTrainingArguments


@dataclass
class DataArguments:
    """Where the posts are, which are used, and what they are scored with."""

    dataset_name: str | None = field(default=None, metadata={"help": "Folder or Hub id that load_dataset opens."})
    train_file: str | None = field(
        default=None, metadata={"help": "CoNLL (.txt, .conll), JSON lines (.jsonl, .json) or CSV (.csv)."}
    )
    validation_file: str | None = field(default=None, metadata={"help": "The same, for model selection."})
    test_file: str | None = field(default=None, metadata={"help": "The same, for the final scores."})
    file_format: str | None = field(
        default=None, metadata={"help": f"{', '.join(FILE_FORMATS)}; default: from the ending."}
    )
    image_dir: str | None = field(default=None, metadata={"help": "Folder of the pictures, <id>.jpg."})
    columns: dict | str | None = field(
        default=None, metadata={"help": 'JSON: what the data call our columns, e.g. {"tokens": "words"}.'}
    )
    tag_names: list[str] | None = field(default=None, metadata={"help": "Names of tags that are numbers, from 0 on."})
    offsets: str | None = field(
        default=None, metadata={"help": "What the offsets of spans count: characters or words; default: found out."}
    )
    types: list[str] | None = field(
        default=None,
        metadata={"help": "Entity types in the order of the labels; default: those of the training posts."},
    )
    validation_share: float | None = field(
        default=None,
        metadata={"help": "Share of the training posts for validation where no split is given, drawn by --seed; 0.1."},
    )
    max_train_samples: int | None = field(default=None, metadata={"help": "For a trial: only the first posts."})
    max_eval_samples: int | None = field(default=None, metadata={"help": "The same of the validation split."})
    max_predict_samples: int | None = field(default=None, metadata={"help": "The same of the test split."})
    compare_with: str | None = field(
        default=None, metadata={"help": "Another trained model: both are tested, and their difference with them."}
    )
    bootstrap_samples: int = field(
        default=1000, metadata={"help": "Resamples behind the interval of the test F1; 0 = no interval."}
    )
    fragment_f1: bool = field(
        default=False, metadata={"help": "Also give F1 of fragments of names, as Zhao et al. (2022) measured it."}
    )

    def __post_init__(self):
        if self.bootstrap_samples < 0:
            raise ValueError(f"--bootstrap_samples {self.bootstrap_samples}: a whole number, at least 0.")
        if self.types and len(set(self.types)) < len(self.types):
            raise ValueError(f"--types {' '.join(self.types)}: list each type once.")


ARGUMENTS = (ModelArguments, DataArguments, MultimodalNerTrainingArguments)


def parse_arguments(argv: list[str]) -> tuple[ModelArguments, DataArguments, MultimodalNerTrainingArguments]:
    """Read dataclass arguments; a YAML or JSON file may come first, and what follows overrides it."""
    parser = HfArgumentParser(ARGUMENTS)
    if argv and argv[0].endswith((".yaml", ".yml", ".json")):
        parser.set_defaults(**read_settings(argv[0], types_of_arguments()))
        argv = argv[1:]
    return parser.parse_args_into_dataclasses(argv)


def types_of_arguments() -> dict[str, Any]:
    """The type of each argument of this command."""
    return {
        argument.name: types[argument.name]
        for own in ARGUMENTS
        for types in [get_type_hints(own)]
        for argument in fields(own)
        if argument.init
    }


def read_data(arguments: DataArguments, look_at_pictures: bool, texts: list[str]) -> DatasetDict:
    """Load the splits train, validation and test, as far as they are given, with further columns of texts."""
    files = {"train": arguments.train_file, "validation": arguments.validation_file, "test": arguments.test_file}
    files = {split: file for split, file in files.items() if file}
    if bool(files) == bool(arguments.dataset_name):
        raise ValueError("Give the posts as either --dataset_name or --train_file/--validation_file/--test_file.")
    if arguments.dataset_name and arguments.file_format:
        raise ValueError("--file_format says what files hold: leave it out with --dataset_name.")
    columns = read_mapping("--columns", arguments.columns)
    reading = {"columns": columns, "tag_names": arguments.tag_names, "offsets": arguments.offsets}
    return load_splits(
        arguments.dataset_name or files,
        file_format=arguments.file_format,
        image_dir=arguments.image_dir if look_at_pictures else None,
        types=arguments.types,
        look_at_pictures=look_at_pictures,
        texts=texts,
        **{name: value for name, value in reading.items() if value is not None},
    )


def choose_splits(
    splits: DatasetDict, arguments: DataArguments, training: MultimodalNerTrainingArguments
) -> DatasetDict:
    """Leave out the splits that are not wanted, and make the validation split that training needs."""
    if training.do_all and "train" not in splits:
        training.evaluate_only()
    wanted = {"train": training.do_train, "validation": training.do_eval, "test": training.do_predict}
    chosen = DatasetDict({name: split for name, split in splits.items() if wanted.get(name)})
    if training.do_train and "train" not in splits:
        raise ValueError("--do_train: there are no posts to train on; give --train_file.")
    lacks_validation = (
        training.do_train and training.eval_strategy != IntervalStrategy.NO and "validation" not in chosen
    )
    if lacks_validation:
        chosen = add_validation(chosen, arguments.validation_share, training.seed)
    elif arguments.validation_share is not None:
        raise ValueError("--validation_share: no posts are taken for validation here; leave it out.")
    if not chosen:
        raise ValueError(f"The data have the splits {', '.join(splits)}, of which none is to be used.")
    if arguments.compare_with and "test" not in chosen:
        raise ValueError("--compare_with compares on a test split: give --test_file.")
    limits = (arguments.max_train_samples, arguments.max_eval_samples, arguments.max_predict_samples)
    return first_posts(chosen, dict(zip(wanted, limits, strict=True)))


def data_card(arguments: DataArguments) -> DatasetCard | None:
    """The card of a dataset, in its folder or on the Hub; None where there is none."""
    if not arguments.dataset_name:
        return None
    local = Path(arguments.dataset_name)
    if local.is_dir():
        return DatasetCard.load(local / "README.md") if (local / "README.md").is_file() else None
    try:
        return DatasetCard.load(arguments.dataset_name)
    except (OSError, ValueError):  # a dataset may do without a card
        return None


def data_name(arguments: DataArguments) -> str:
    """Name the data for the model card: as their own card does, else by their files."""
    if not arguments.dataset_name:
        return ", ".join(Path(file).name for file in (arguments.train_file, arguments.test_file) if file)
    card = data_card(arguments)
    if card is not None and card.data.pretty_name:
        return card.data.pretty_name
    folder = Path(arguments.dataset_name)
    return folder.name if folder.is_dir() else arguments.dataset_name


def align_labels(splits: DatasetDict, label2id: dict[str, int]) -> DatasetDict:
    """Number the labels of the data as the model does."""
    features = next(iter(splits.values())).features.copy()
    names = features["ner_tags"].feature.names
    if [label2id[name] for name in names] == list(range(len(names))):
        return splits
    features["ner_tags"] = List(ClassLabel(names=sorted(label2id, key=label2id.get)))
    return splits.map(lambda row: {"ner_tags": [label2id[names[tag]] for tag in row["ner_tags"]]}, features=features)


def make_trainer(
    arguments: DataArguments, model_arguments: ModelArguments, training: MultimodalNerTrainingArguments
) -> tuple[MultimodalNerTrainer, MultimodalNerTrainer | None, DatasetDict]:
    """Read the data and build the model; returns its trainer, that of the model to compare with, and the splits."""
    reads_pictures = model_arguments.chosen_system().reads_pictures
    texts = model_arguments.context()
    if arguments.compare_with:
        reads_pictures |= trained_system(arguments.compare_with, "--compare_with").reads_pictures
        texts = texts + trained_context(arguments.compare_with)
    with training.main_process_first(desc="reading the data"):
        splits = choose_splits(read_data(arguments, reads_pictures, texts), arguments, training)
    model, processor = build(model_arguments, splits)
    other = None
    if arguments.compare_with:
        labels = splits["test"].features["ner_tags"].feature.names
        other_model, other_processor = load_trained(arguments.compare_with)
        check_labels(arguments.compare_with, labels, other_model.config.label2id)
        check_context(other_processor, splits)
    aligned = align_labels(splits, model.config.label2id)
    if "train" in splits:
        card = data_card(arguments)
        sources = {} if card is None else sources_in_card(card.content)
        processor.remember_sources(splits["train"].column_names, sources)
    trainer = MultimodalNerTrainer(
        model,
        training,
        processing_class=processor,
        train_dataset=aligned.get("train"),
        eval_dataset=aligned.get("validation"),
    )
    if arguments.compare_with:
        only_tested = copy.copy(training)
        only_tested.evaluate_only()
        other = MultimodalNerTrainer(other_model, only_tested, processing_class=other_processor)
    return trainer, other, splits


def main(argv: list[str] | None = None) -> None:
    """Run the command; mistakes in arguments or data, and a full disk, end it with one line."""
    try:
        with told_of_a_full_disk("A temporary file, or one of the cache of `datasets`,"):
            train_and_test(argv)
    except FullDisk as error:
        end_with(error)


def train_and_test(argv: list[str] | None) -> None:
    """Do what the arguments ask for."""
    try:
        model_arguments, arguments, training = parse_arguments(sys.argv[1:] if argv is None else argv)
        if training.push_to_hub and not (training.hub_token or get_token()):
            raise ValueError("--push_to_hub needs a login: run `hf auth login`, or set HF_TOKEN.")
        if training.process_index == 0:
            log_to_stderr()
        checkpoint = checkpoint_to_resume(training.resume_from_checkpoint, training.output_dir)
        set_seed(training.seed)
        trainer, other, splits = make_trainer(arguments, model_arguments, training)
        if "train" in splits and checkpoint is None:
            check_output_folder(training.output_dir)
    except (ValueError, OSError, ImportError, StrictDataclassError) as error:
        end_with(error)
    if "train" in splits:
        try:
            trainer.save_metrics("train", trainer.train(checkpoint).metrics)
            trainer.save_model()
            trainer.save_state()
        except (OSError, ValueError, KeyError, FloatingPointError) as error:  # a full disk, a picture that is gone, NaN
            end_with(error)
    if trainer.is_world_process_zero() and splits.keys() & {"validation", "test"}:
        print("Whole names in %; [ ] is the 95 % interval over posts:" if arguments.bootstrap_samples else "In %:")
    try:
        for split in ("validation", "test"):
            if split in splits:
                predicted = evaluate(trainer, splits[split], split, arguments)
        if other is not None:
            compare(trainer, predicted, other, splits["test"], arguments)
    except (OSError, ValueError) as error:  # a full disk, a picture that is gone, posts that the model can't read
        end_with(error)
    if "train" in splits:
        version = label_version({name: count_split(split) for name, split in splits.items()})
        trainer.create_model_card(dataset=data_name(arguments), label_version=version, splits=splits)
        if training.push_to_hub:
            trainer.push_to_hub()
    if trainer.is_world_process_zero():
        print(what_is_where(training.output_dir, splits))


def predictions_folder(folder: str) -> Path:
    """Where predictions lie: beside the folder of a run, and never in it, since posts are rarely ours to share."""
    folder = Path(folder)
    return folder.with_name(f"{folder.name}.predictions")


def what_is_where(folder: str, splits: DatasetDict) -> str:
    """Say what a run left behind, and what can be done with it."""
    told = []
    if splits.keys() & {"validation", "test"}:
        told.append(f"Scores: {Path(folder, 'all_results.json')}. Predictions: {predictions_folder(folder)}.")
    if "train" in splits:
        told.append(f"Model and card: {folder}. To tag posts with it:")
        told.append(f"python -m modeling_umgf tag posts.jsonl --model {folder} --output entities.jsonl")
    return "\n".join(told)


def end_with(error: Exception) -> NoReturn:
    """End the command with one line that says what is wrong."""
    lines = [line.strip() for line in str(error).strip().splitlines()]
    if isinstance(error, StrictDataclassClassValidationError):
        lines = [lines[1].removeprefix("ValueError: ")]  # the first names a method, the second says what is wrong
    if isinstance(error, FullDisk) and "--resume_from_checkpoint" not in lines[-1]:
        lines.append("with --resume_from_checkpoint True, if a checkpoint was written")
    sys.exit(f"train_umgf.py: error: {' '.join(lines)}")


def count_pieces(tokenizer, sentences: list[list[str]]) -> list[list[int]]:
    """Number of word pieces of each word of each sentence."""
    encoding = tokenizer(sentences, is_split_into_words=True, add_special_tokens=False)
    return [[encoding.word_ids(i).count(k) for k in range(len(words))] for i, words in enumerate(sentences)]


def evaluate(trainer: MultimodalNerTrainer, dataset: Dataset, split: str, arguments: DataArguments) -> Tags:
    """Score a split as it is.

    A test split with pictures is scored without them, without half of them and with them shuffled among posts too, and
    one with context without it.

    Returns:
        The predicted tags of the split as it is.
    """
    variants = {split: dataset}
    context = trainer.processing_class.context
    visual = [name for name in columns_from_pictures(dataset) if name in trainer.processing_class.columns]
    if split == "test" and any(dataset.data[name].null_count < len(dataset) for name in visual):
        variants["test_without_pictures"] = remove_pictures(dataset)
        if len(dataset) > 1:
            variants["test_half_pictures"] = remove_pictures(dataset, 0.5)
            variants["test_shuffled_pictures"] = shuffle_pictures(dataset)
    if split == "test" and context:
        variants["test_without_context"] = remove_columns(dataset, context)
    predictions = {name: score(trainer, variant, name, arguments) for name, variant in variants.items()}
    return predictions[split]


def score(trainer: MultimodalNerTrainer, dataset: Dataset, name: str, arguments: DataArguments) -> Tags:
    """Predict the tags of posts; save them and their scores under this name, and print the scores."""
    gold, predicted = trainer.predict_tags(align_labels(DatasetDict(own=dataset), trainer.model.config.label2id)["own"])
    scores = evaluate_tags(gold, predicted, bootstrap_samples=arguments.bootstrap_samples)
    if arguments.fragment_f1:
        pieces = count_pieces(trainer.processing_class.tokenizer, dataset["tokens"][:])
        scores["fragment_f1"] = fragment_f1(gold, predicted, pieces)["f1"]
    trainer.save_metrics(name, {f"{name}_{key}": value for key, value in scores.items()})
    if trainer.is_world_process_zero():
        beside = predictions_folder(trainer.args.output_dir)
        write_conll(beside / f"{name}.conll", dataset["id"], dataset["tokens"], gold, predicted)
        print_scores(name, scores)
        if name in ("validation", "test"):
            labels = trainer.model.config.id2label
            for kind in entity_types(labels[i] for i in range(len(labels))):
                if f"{kind}_f1" in scores:
                    print_scores(f"  {kind}", scores, f"{kind}_")
    return predicted


def print_scores(name: str, scores: dict[str, float], prefix: str = "") -> None:
    """Print a row of scores, with the interval of F1 where there is one."""
    interval = ""
    if f"{prefix}f1_low" in scores:
        interval = f"[{scores[f'{prefix}f1_low']:.2f}, {scores[f'{prefix}f1_high']:.2f}]"
    print(
        f"{name:24} F1 {scores[f'{prefix}f1']:6.2f} {interval:16}   precision {scores[f'{prefix}precision']:6.2f}   "
        f"recall {scores[f'{prefix}recall']:6.2f}   names {scores[f'{prefix}support']}"
    )


def compare(
    trainer: MultimodalNerTrainer,
    predicted: Tags,
    other: MultimodalNerTrainer,
    dataset: Dataset,
    arguments: DataArguments,
) -> None:
    """Test another model on the same posts, and say how sure the difference between the two is."""
    name = "test_compared"
    other_predicted = score(other, dataset, name, arguments)
    names = dataset.features["ner_tags"].feature.names
    gold = [[names[tag] for tag in tags] for tags in dataset["ner_tags"]]
    difference = paired_randomization_test(gold, predicted, other_predicted)
    trainer.save_metrics(name, {f"{name}_{key}": value for key, value in difference.items()})
    if trainer.is_world_process_zero():
        print(
            f"F1 minus that of {arguments.compare_with}: {difference['difference']:+.2f} points, "
            f"p = {difference['p_value']:.4f} (paired randomisation test, two-sided)"
        )


if __name__ == "__main__":
    main()
