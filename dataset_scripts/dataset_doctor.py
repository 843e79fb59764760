"""Report what is odd in a dataset of posts, compare two copies of it, and build Twitter-2017c."""

import argparse
import json
from collections import Counter, defaultdict
from collections.abc import Mapping, Sequence
from pathlib import Path

from datasets import Dataset
from transformers import AutoTokenizer, PreTrainedTokenizerBase

from modeling_umgf.files import write_whole
from modeling_umgf.split_counts import count_split

from .checks.oddities import (
    PicturePrint,
    check_entities,
    check_overlap,
    check_phrases,
    check_pieces,
    check_words,
    compare_labels,
    count_repeated,
    picture_prints,
)
from .checks.twitter2017c import twitter2017c
from .checks.twitter_releases import label_version
from .reading.bad_input import BadInput, run_command
from .reading.naming import add_naming, naming
from .reading.splits import FILE_FORMATS, load_splits, read_splits
from .reading.text_files import read_id_list
from .writing.dataset_folder import check_output_dir, write_dataset

_SPLIT_WORDS = {"train": "train", "valid": "validation", "dev": "validation", "test": "test"}


def examine(
    splits: Mapping[str, Dataset],
    prints: Mapping[str, Mapping[str, PicturePrint]],
    tokenizer: PreTrainedTokenizerBase | None = None,
) -> dict[str, dict]:
    """All checks of a dataset.

    Args:
        splits: as `load_splits` returns them.
        prints: of each split, the prints of its pictures (`picture_prints`).
        tokenizer: to find words without pieces; None = this check is left out.

    Returns:
        {"labels": …, "splits": {split: {topic: {check: number}}}, "overlap": …}.
    """
    counts = {name: count_split(split) for name, split in splits.items()}
    report = {"labels": label_version(counts), "splits": {}}
    for name, split in splits.items():
        report["splits"][name] = {
            "entities": check_entities(split),
            "words": check_words(split),
            "pieces": check_pieces(split, tokenizer.tokenize) if tokenizer else {},
            "phrases": check_phrases(split),
            "pictures": {
                "pictures with the bytes of another": count_repeated(one.content for one in prints[name].values()),
                "pictures that look like another": count_repeated(one.look for one in prints[name].values()),
            },
        }
    report["overlap"] = check_overlap(splits)
    posts_by_content = defaultdict(list)
    for name, split in prints.items():
        for post, one in split.items():
            posts_by_content[one.content].append(f"{name} {post}")
    report["overlap"]["posts with equal pictures"] = [same for same in posts_by_content.values() if len(same) > 1]
    return report


def main() -> None:
    arguments = _parser().parse_args()
    if arguments.twitter2017c:
        check_output_dir(arguments.twitter2017c)
    tokenizer = AutoTokenizer.from_pretrained(arguments.tokenizer) if arguments.tokenizer else None
    splits, outcomes = read_splits(
        _source(arguments.source),
        file_format=arguments.format,
        image_dir=arguments.image_dir,
        unique_ids=False,
        **naming(arguments),
    )
    prints = {}
    tiny = {}
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
        with write_whole(arguments.json) as unfinished:
            unfinished.write_text(json.dumps(report, indent=2, ensure_ascii=False) + "\n", encoding="utf-8")
    if arguments.twitter2017c:
        exclude = read_id_list(arguments.exclude_ids) if arguments.exclude_ids else ()
        kept, lost = twitter2017c(splits, prints, exclude)
        description = _describe_twitter2017c(lost)
        write_dataset(kept, arguments.twitter2017c, title="Twitter-2017c", description=description)


def _describe_twitter2017c(lost: Mapping[str, Counter]) -> str:
    lines = ["Twitter-2017 without the posts that have no picture of their own. Left out:", ""]
    lines += [f"- {name}: {dict(reasons)}" for name, reasons in lost.items()]
    lines += ["", "The published subset has 3075/659/661 posts; its list of 424 removed ids was never published."]
    return "\n".join(lines)


def as_text(report: Mapping) -> str:
    """The report as tables of plain text; lists of ids are left to the JSON."""
    splits = report["splits"]
    lines = [report["labels"], ""]
    for topic in next(iter(splits.values())):
        rows = {}
        for split in splits.values():
            for check in split[topic]:
                rows[check] = [other[topic].get(check, 0) for other in splits.values()]
        lines += _table([topic, *splits], rows)
    others = {"overlap": report["overlap"]}
    for name, changes in report.get("compare", {}).items():
        others[f"compare {name}"] = changes
    for topic, checks in others.items():
        rows = {check: [number] for check, number in checks.items() if not isinstance(number, list)}
        lines += _table([topic, ""], rows)
    return "\n".join(lines)


def _table(header: Sequence[str], rows: Mapping[str, Sequence]) -> list[str]:
    """A header and rows by their first cell, in columns; nothing where there is no row."""
    if not rows:
        return []
    cells = [list(header)]
    for name, numbers in rows.items():
        cells.append([name, *map(str, numbers)])
    widths = [max(map(len, column)) for column in zip(*cells, strict=True)]
    lines = []
    for first, *others in cells:
        line = "  ".join([first.ljust(widths[0]), *map(str.rjust, others, widths[1:])])
        lines.append(line.rstrip())
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


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument(
        "source", nargs="+", help="a dataset (folder or Hub id), or files: train.txt valid.txt test=x.txt"
    )
    parser.add_argument("--format", choices=FILE_FORMATS, help="of the files; default: found out")
    add_naming(parser)
    parser.add_argument("--image_dir", metavar="FOLDER", help="pictures of the files, <id>.jpg")
    parser.add_argument("--tiny", type=int, default=32, metavar="PIXELS", help="shorter sides are tiny (default 32)")
    parser.add_argument("--tokenizer", help="find the words that this tokenizer has no pieces for")
    parser.add_argument(
        "--compare", nargs="+", metavar="SOURCE", help="another copy, given as the first: whose labels differ?"
    )
    parser.add_argument("--compare_format", choices=FILE_FORMATS)
    parser.add_argument("--json", metavar="FILE", help="write the report, with all ids")
    parser.add_argument("--twitter2017c", metavar="FOLDER", help="write the posts with a picture of their own")
    parser.add_argument("--exclude_ids", metavar="FILE", help="ids to leave out of it, one per line")
    return parser


if __name__ == "__main__":
    run_command(main)
