"""Report what is odd in a dataset of tweets, compare two copies of it, and build Twitter-2017c."""

import argparse
import json
import logging
import os
from collections import defaultdict
from collections.abc import Mapping
from pathlib import Path

from datasets import Dataset

from .counts import count_split
from .doctor_checks import (
    check_entities,
    check_overlap,
    check_phrases,
    check_pieces,
    check_words,
    compare_labels,
    picture_prints,
    repeated,
)
from .splits import FILE_FORMATS, load_splits, read_splits
from .text_files import BadInput, run_command
from .twitter2017c import read_id_list, twitter2017c
from .twitter_releases import label_version
from .writing import check_output_dir, write_dataset

_SPLIT_WORDS = {"train": "train", "valid": "validation", "dev": "validation", "test": "test"}


def examine(
    splits: Mapping[str, Dataset], prints: Mapping[str, Mapping[str, tuple[str, str]]], tokenizer=None
) -> dict[str, dict]:
    """All checks of a dataset.

    Args:
        splits: As `load_splits` returns them.
        prints: Of each split, the prints of its pictures (`picture_prints`).
        tokenizer: Of transformers, to find words without pieces; None = this check is left out.

    Returns:
        {"labels": …, "splits": {split: {topic: {check: number}}}, "overlap": …}.
    """
    report = {"labels": label_version({name: count_split(split) for name, split in splits.items()}), "splits": {}}
    for name, split in splits.items():
        report["splits"][name] = {
            "entities": check_entities(split),
            "words": check_words(split),
            "pieces": check_pieces(split, tokenizer.tokenize) if tokenizer else {},
            "phrases": check_phrases(split),
            "pictures": {
                "pictures with the bytes of another": repeated(prints[name].values(), 0),
                "pictures that look like another": repeated(prints[name].values(), 1),
            },
        }
    report["overlap"] = check_overlap(splits)
    by_bytes = defaultdict(list)
    for name, split in prints.items():
        for tweet, (content, _) in split.items():
            by_bytes[content].append(f"{name} {tweet}")
    report["overlap"]["tweets with equal pictures"] = [tweets for tweets in by_bytes.values() if len(tweets) > 1]
    return report


def main() -> None:
    arguments = _parser().parse_args()
    logging.basicConfig(level=logging.INFO, format="%(message)s")
    if arguments.twitter2017c:
        check_output_dir(arguments.twitter2017c)
    tokenizer = _tokenizer(arguments.tokenizer) if arguments.tokenizer else None
    splits, outcomes = read_splits(
        _source(arguments.source), file_format=arguments.format, image_dir=arguments.image_dir, unique_ids=False
    )
    prints, tiny = {}, {}
    for name, split in splits.items():
        prints[name], tiny[name] = picture_prints(split, arguments.tiny)
    report = examine(splits, prints, tokenizer)
    for name in splits:
        report["splits"][name]["pictures"] = {
            **{f"pictures {outcome}": number for outcome, number in outcomes[name].items()},
            **tiny[name],
            **report["splits"][name]["pictures"],
        }
    if arguments.compare:
        other = load_splits(_source(arguments.compare), file_format=arguments.compare_format, unique_ids=False)
        report["compare"] = compare_labels(splits, other)
    print(as_text(report))
    if arguments.json:
        unfinished = Path(f"{arguments.json}.unfinished")
        unfinished.write_text(json.dumps(report, indent=2, ensure_ascii=False) + "\n", encoding="utf-8")
        os.replace(unfinished, arguments.json)
    if arguments.twitter2017c:
        exclude = read_id_list(arguments.exclude_ids) if arguments.exclude_ids else ()
        kept, lost = twitter2017c(splits, prints, exclude)
        lines = [f"- {name}: {dict(reasons)}" for name, reasons in lost.items()]
        description = "Twitter-2017 without the tweets that have no picture of their own. Left out:\n\n" + "\n".join(
            lines
        )
        note = "\n\nThe published subset has 3075/659/661 tweets; its list of 424 removed ids was never published."
        write_dataset(kept, arguments.twitter2017c, title="Twitter-2017c", description=description + note)


def as_text(report: Mapping) -> str:
    """The report as tables of plain text; lists of ids are left to the JSON."""
    names = list(report["splits"])
    lines = [report["labels"], ""]
    for topic in next(iter(report["splits"].values())):
        checks = list(dict.fromkeys(check for name in names for check in report["splits"][name][topic]))
        rows = [[check, *(report["splits"][name][topic].get(check, 0) for name in names)] for check in checks]
        lines += _table([topic, *names], rows)
    others = {"overlap": report["overlap"]}
    others |= {f"compare {name}": changes for name, changes in report.get("compare", {}).items()}
    for topic, checks in others.items():
        rows = [[check, number] for check, number in checks.items() if not isinstance(number, list)]
        lines += _table([topic, ""], rows)
    return "\n".join(lines)


def _table(header: list[str], rows: list[list]) -> list[str]:
    if not rows:
        return []
    cells = [[str(cell) for cell in row] for row in [header, *rows]]
    widths = [max(len(row[column]) for row in cells) for column in range(len(header))]
    lines = ["  ".join([row[0].ljust(widths[0]), *map(str.rjust, row[1:], widths[1:])]).rstrip() for row in cells]
    return [lines[0], "-" * max(map(len, lines)), *lines[1:], ""]


def _source(arguments: list[str]) -> str | dict[str, str]:
    """A dataset, or files by split: `train=FILE`, or names that hold train, valid, dev or test."""
    if len(arguments) == 1 and "=" not in arguments[0] and not Path(arguments[0]).is_file():
        return arguments[0]
    files = {}
    for argument in arguments:
        split, separator, path = argument.partition("=")
        if not separator:
            path = argument
            found = [word for word in _SPLIT_WORDS if word in Path(argument).name]
            split = _SPLIT_WORDS[found[0]] if found else "test"
        if split in files:
            raise BadInput(f"{files[split]} and {path} are both the split {split}; say which is which: train=FILE …")
        files[split] = path
    return files


def _tokenizer(name: str):
    from transformers import AutoTokenizer

    return AutoTokenizer.from_pretrained(name)


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument(
        "source", nargs="+", help="a dataset (folder or Hub id), or files: train.txt valid.txt test=x.txt"
    )
    parser.add_argument("--format", choices=FILE_FORMATS, help="of the files; default: found out")
    parser.add_argument("--image_dir", metavar="FOLDER", help="pictures of the files, <id>.jpg")
    parser.add_argument("--tiny", type=int, default=32, metavar="PIXELS", help="shorter sides are tiny (default 32)")
    parser.add_argument("--tokenizer", help="find the words that this tokenizer has no pieces for")
    parser.add_argument(
        "--compare", nargs="+", metavar="SOURCE", help="another copy, given as the first: whose labels differ?"
    )
    parser.add_argument("--compare_format", choices=FILE_FORMATS)
    parser.add_argument("--json", metavar="FILE", help="write the report, with all ids")
    parser.add_argument("--twitter2017c", metavar="FOLDER", help="write the tweets with a picture of their own")
    parser.add_argument("--exclude_ids", metavar="FILE", help="ids to leave out of it, one per line")
    return parser


if __name__ == "__main__":
    run_command(main)
