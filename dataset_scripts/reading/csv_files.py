"""Posts in CSV files: a post a row, or a word a row."""

import ast
import csv
import io
import json
import re
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from ..columns.contract import COLUMNS
from .bad_input import BadInput
from .field_names import field_of
from .records import read_records
from .text_files import read_text

_WORD = ("word", "token")
_TAG = ("tag", "tags", "ner_tag", "ner_tags", "label", "labels", "ner")
_POST = ("sentence #", "sentence_id", "sentence", "post_id", "post", "tweet_id", "tweet", "id")

_OF_WORDS = ("id", "tokens", "tags", "text", "spans")
"""Fields that the columns of words and tags are in the place of."""

_ARRAY = re.compile(r"""['"]\s+['"]""")  # NumPy writes no commas, and Python would join the strings


def read_csv(
    path: str | Path, *, columns: Mapping[str, str] | None = None, texts: Sequence[str] = (), **settings: Any
) -> list[dict]:
    """Read a file with a line of column names; commas, semicolons or tabs separate.

    A file with a column `word` or `token` has a word a row, with its tag in `tag` (or `label`, `ner`, ...) and its post
    in `sentence #`, `sentence_id`, `id`, ...; a row that names none belongs to the post above, and without such a
    column an empty row ends a post. Any other file has a post a row, as `read_records` describes it: words and tags
    separated by blanks or as a list, spans as a list. Names of columns may be written in capitals.

    Args:
        path: the file, UTF-8.
        columns: as for `read_records`; with a word a row {"word": ..., "tag": ..., "id": ...}, `id` that of the post.
        texts: as for `read_records`.
        settings: the same.

    Returns:
        As `read_records`.

    Raises:
        BadInput: The file doesn't follow this format; the message has its line.
    """
    columns = {field: _plain_name(name) for field, name in (columns or {}).items()}
    text = read_text(path).lstrip()
    header = text.splitlines()[0]
    delimiter = max(",;\t", key=header.count)
    rows = _rows(path, csv.reader(io.StringIO(text, newline=""), delimiter=delimiter, strict=True))
    spelled = {_plain_name(name): name for name in texts}
    names = [spelled.get(name, name) for name in next(rows)[1]]
    settings["texts"] = texts
    word = _column(names, columns.pop("word", None), _WORD, path)
    tag = _column(names, columns.pop("tag", None), _TAG, path)
    if word is None or tag is None:
        return read_records(_posts(rows, names, columns, texts), path, columns=columns, **settings)
    if unknown := sorted(set(columns) - {"id"}):
        raise BadInput(f"{path}: a file with a word a row has columns word, tag and id, not {', '.join(unknown)}")
    post = _column(names, columns.get("id"), _POST, path)
    return read_records(_posts_of_words(rows, names, word, tag, post, texts), path, **settings)


def _rows(path: str | Path, lines: Iterator[list[str]]) -> Iterator[tuple[str, list[str]]]:
    """Yield the place and the cells of each row; first come the names of the columns, plain."""
    names = None
    try:
        for cells in lines:
            where = f"{path}:{lines.line_num}"
            if names is None:
                names = [_plain_name(cell) for cell in cells]
                yield where, names
            elif any(cells) and len(cells) != len(names):
                raise BadInput(f"{where}: {len(cells)} cells under {len(names)} names of columns")
            else:
                yield where, cells
    except csv.Error as error:
        raise BadInput(f"{path}:{lines.line_num}: not CSV ({error})") from error


def _posts(
    rows: Iterator[tuple[str, list[str]]], names: list[str], columns: Mapping[str, str], texts: Sequence[str]
) -> Iterator[tuple[str, dict]]:
    """Yield the place and the record of each post of a file with a post a row."""
    for where, cells in rows:
        if any(cells):
            record = dict(zip(names, cells, strict=True))
            fields = {name: "text" if name in texts else field_of(name, columns) for name in record}
            yield where, {name: _value(name, cell, fields[name], where) for name, cell in record.items()}


def _posts_of_words(
    rows: Iterator[tuple[str, list[str]]],
    names: list[str],
    word: str,
    tag: str,
    post: str | None,
    texts: Sequence[str],
) -> Iterator[tuple[str, dict]]:
    """Yield the place and the record of each post of a file with a word a row."""
    others = {
        name: name if name in COLUMNS and name not in texts else "text"
        for name in names
        if name not in (word, tag, post) and field_of(name, {}) not in _OF_WORDS
    }
    record = None
    begin = ""
    current = None
    for where, cells in rows:
        row = dict(zip(names, cells, strict=True)) if any(cells) else None
        named = row[post] if row and post else ""
        ends = row is None if post is None else named and named != current
        if ends and record is not None:
            yield begin, record
            record = None
        if row is None:
            continue
        if record is None:
            record = {"tokens": [], "tags": []} | ({"id": named} if named else {})
            record |= {name: _value(name, row[name], field, where) for name, field in others.items()}
            begin = where
            current = named
        record["tokens"].append(row[word])
        record["tags"].append(row[tag])
    if record is not None:
        yield begin, record


def _value(name: str, cell: str, field: str, where: str) -> Any:
    """What a cell holds: a list where it may be one, None where it is empty."""
    if not cell:
        return [] if field == "spans" else None
    if field in ("id", "image", "text", "caption", "context") or cell[0] not in "[{":
        return cell.split() if field in ("tokens", "tags") else cell
    for read in (json.loads, ast.literal_eval):  # JSON, or how Python writes a list
        try:
            values = read(cell)
        except (ValueError, SyntaxError, RecursionError, MemoryError):
            continue
        if read is json.loads or not _ARRAY.search(cell):
            return values
    raise BadInput(f"{where}: the cell of {name} is not a list ({cell[:40]!r}); write it as JSON")


def _column(names: list[str], given: str | None, usual: tuple[str, ...], path: str | Path) -> str | None:
    """The column that was named, else the first with a usual name, if there is one."""
    if given is not None and given not in names:
        raise BadInput(f"{path}: has no column {given!r}; it has {', '.join(names)}")
    return given or next((name for name in usual if name in names), None)


def _plain_name(name: str) -> str:
    return name.strip().lower()
