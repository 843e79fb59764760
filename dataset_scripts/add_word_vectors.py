"""A dataset of posts -> the same with word vectors of what was seen in its pictures, which OCSGA and IAIK read.

    python -m dataset_scripts.add_descriptors data/posts --output_dir data/labelled --columns object_labels
    python -m dataset_scripts.add_word_vectors data/labelled --output_dir data/object_labels \
        --word_vectors glove.twitter.27B.200d.txt

Each text of a post's column (a label such as "traffic light") becomes one row, the mean of the vectors of its words. A
text of which no word has a vector becomes none; how many these are is told.
"""

import argparse
import logging
from pathlib import Path

import torch
from datasets import List, Value, disable_progress_bars

from modeling_umgf.text_splitting import split_post
from modeling_umgf.word_vectors import read_word_vectors

from .build_relations import replace_column
from .reading.bad_input import BadInput, run_command
from .reading.loading import load_posts
from .writing.dataset_folder import card_text, check_output_dir, in_order, write_dataset

logger = logging.getLogger(__name__)


def main() -> None:
    arguments = _parser().parse_args()
    check_output_dir(arguments.output_dir)
    splits = load_posts(arguments.dataset, columns=("id", "tokens", "ner_tags", arguments.column))
    if arguments.to == "object_features" and any("objects" in split.features for split in splits.values()):
        raise BadInput(
            f"{arguments.dataset}: has objects, which object_features belong to, one row each; take a dataset without "
            "this column, or --to knowledge_features"
        )
    for name, split in splits.items():
        if split.features[arguments.column] not in (Value("string"), List(Value("string"))):
            raise BadInput(f"{arguments.dataset}, split {name}: its column {arguments.column} holds no texts")
    disable_progress_bars()  # those of datasets, for its temporary files
    texts = {name: [texts_of(cell) for cell in split[arguments.column]] for name, split in splits.items()}
    words = {text: words_of(text) for cells in texts.values() for own in cells for text in own}
    try:
        vectors = read_word_vectors(arguments.word_vectors, {word for own in words.values() for word in own})
    except ValueError as error:
        raise BadInput(f"--word_vectors {error}") from error
    rows = {text: mean_vector(own, vectors) for text, own in words.items()}
    known = {text: row for text, row in rows.items() if row is not None}
    for name, split in splits.items():
        cells = [[known[text] for text in own if text in known] for own in texts[name]]
        splits[name] = in_order(replace_column(split, arguments.to, cells))
    told = f"{len(known)} of {len(rows)} different texts have a vector; the others are left out"
    title, description = card_text(arguments.dataset)
    made = f"- `{arguments.to}`: word vectors ({Path(arguments.word_vectors).name}) of `{arguments.column}`; {told}"
    description = "\n".join([description, "", "Computed by `dataset_scripts.add_word_vectors`:", "", made])
    write_dataset(splits, arguments.output_dir, title=title, description=description)
    logger.info(told)


def texts_of(cell: str | list[str] | None) -> list[str]:
    """The texts of a cell, which holds one, some or none."""
    return [cell] if isinstance(cell, str) else list(cell or [])


def words_of(text: str) -> list[str]:
    """The words of a text."""
    return [word for word, _, _ in split_post(text)]


def mean_vector(words: list[str], vectors: dict[str, torch.Tensor]) -> list[float] | None:
    """The mean of the vectors of those words that have one; None where none has."""
    found = [vectors[word] for word in words if word in vectors]
    return torch.stack(found).mean(0).tolist() if found else None


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("dataset", help="folder or Hub id for load_dataset")
    parser.add_argument("--output_dir", required=True, help="folder to write; a dataset that is there is replaced")
    parser.add_argument("--word_vectors", required=True, metavar="FILE", help="text file, such as GloVe's")
    parser.add_argument("--column", default="object_labels", help="texts, or lists of texts (default object_labels)")
    parser.add_argument(
        "--to",
        choices=("object_features", "knowledge_features"),
        default="object_features",
        help="the column to make (default object_features)",
    )
    return parser


if __name__ == "__main__":
    run_command(main)
