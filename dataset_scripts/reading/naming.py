"""The arguments of a command that say how the posts of others are written."""

import argparse
from typing import Any

from .bad_input import BadInput
from .records import OFFSETS


def add_naming(group: argparse._ActionsContainer) -> None:
    """Add the arguments `--columns`, `--tag_names` and `--offsets` to a parser or a group of one."""
    group.add_argument(
        "--columns",
        nargs="+",
        metavar="FIELD=NAME",
        help="other names of tokens, tags, text, spans, id and image (of word, tag and id in CSV with a word a row); "
        "numbers from 1 in CoNLL; default: the usual names",
    )
    group.add_argument("--tag_names", nargs="+", metavar="TAG", help="names of tags that are numbers: of 0, 1, ...")
    group.add_argument("--offsets", choices=OFFSETS, help="what spans count; default: characters where there is a text")


def naming(arguments: argparse.Namespace) -> dict[str, Any]:
    """What was said with the arguments of `add_naming`, as settings of `read_splits`.

    Raises:
        BadInput: A column is not given as FIELD=NAME.
    """
    columns = {}
    for given in arguments.columns or []:
        field, separator, name = given.partition("=")
        if not (field and separator and name):
            raise BadInput(f"--columns takes FIELD=NAME, such as tokens=words, not {given!r}")
        columns[field] = name
    return {"columns": columns, "tag_names": arguments.tag_names, "offsets": arguments.offsets}
