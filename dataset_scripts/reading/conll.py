"""Posts in CoNLL files, among them the UMT release of Twitter-2015 and Twitter-2017."""

import logging
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from .bad_input import BadInput
from .tag_reader import IdRegister, TagReader
from .text_files import numbered_lines

logger = logging.getLogger(__name__)

_DOCUMENT = "-DOCSTART-"  # the word of a block that begins a document of CoNLL-2003


def read_conll(
    path: str | Path,
    *,
    umt: bool = False,
    columns: Mapping[str, str] | None = None,
    unique_ids: bool = True,
    **tag_settings: Any,
) -> list[dict]:
    r"""Read one word and its tag per line, with a blank line between posts.

    Columns are separated by tabs or, in a file without any tab, by blanks. Of more than two columns the first holds the
    words and the last the tags (logged). Blocks of `-DOCSTART-` are left out (counted and logged). A line `IMGID:<id>`
    may open each post; without such lines the ids are `<file name>-0`, `<file name>-1`, ... Between tabs nothing is
    stripped, because a word may be U+00A0.

    Args:
        path: the file, UTF-8.
        umt: the UMT release of Twitter-2015/2017: every post needs its `IMGID:` line and type OTHER is read as MISC.
        columns: {"tokens": number, "tags": number} of the columns, from 1; default: the first and the last.
        unique_ids: refuse an id that was used before.
        tag_settings: `types`, `bio_repair` and `tag_names` of `TagReader`.

    Returns:
        One dict per post: `id`, `tokens`, `tags` (strings).

    Raises:
        BadInput: The file doesn't follow this format; the message has its line.
    """
    tags = TagReader(**tag_settings, renamed={"OTHER": "MISC"} if umt else {})
    ids = IdRegister(unique_ids)
    rows = []
    documents = 0
    for block in _blocks(path, columns or {}):
        where = f"{path}:{block.first_line}"
        if block.id is None and [word for _, word, _ in block.words] == [_DOCUMENT]:
            documents += 1
            continue
        if block.id is None and (umt or ids.places):
            raise BadInput(f"{where}: this post has no IMGID:<id> line before it")
        if block.id is not None and rows and not ids.places:
            raise BadInput(f"{where}: an IMGID line, but the posts before have none")
        if block.id == "":
            raise BadInput(f"{where}: IMGID without an id")
        if block.id is None:
            name = f"{Path(path).stem}-{len(rows)}"
        else:
            name = block.id
            ids.claim(name, where)
        if not block.words:
            raise BadInput(f"{where}: post {name} has no words")
        checked = [tags.read(tag, f"{path}:{line}") for line, _, tag in block.words]
        rows.append({"id": name, "tokens": [word for _, word, _ in block.words], "tags": tags.repair(checked)})
    if not rows:
        raise BadInput(f"{path}: no posts in this file")
    if umt and {"OTHER", "MISC"} <= tags.seen:
        raise BadInput(f"{path}: has both OTHER and MISC, which the umt format would merge; read it with format conll")
    if documents:
        logger.info("%s: left out %d blocks %s, which are no posts", path, documents, _DOCUMENT)
    tags.log(path)
    return rows


@dataclass
class _Block:
    """The lines of one post."""

    first_line: int
    id: str | None = None
    words: list[tuple[int, str, str]] = field(default_factory=list)  # line, word, tag


def _blocks(path: str | Path, columns: Mapping[str, str]) -> Iterator[_Block]:
    """Yield the posts of a file; one ends at an IMGID line, a blank line or the end."""
    lines = list(numbered_lines(path))
    has_tabs = any("\t" in line for _, line in lines)
    width = None
    block = None
    for number, line in lines:
        if not has_tabs:
            line = line.strip(" ")
        fields = line.split("\t") if has_tabs else [part for part in line.split(" ") if part]
        is_id = line.startswith("IMGID:") and len(fields) == 1
        if block is not None and (is_id or not line):
            yield block
            block = None
        if is_id:
            block = _Block(number, line.removeprefix("IMGID:"))
        elif line:
            if width is None:
                width = max(len(fields), 2)
                word_column, tag_column = _word_and_tag_columns(path, columns, width)
            if len(fields) != width:
                expected = "word<TAB>tag" if width == 2 else f"{width} columns as above"
                raise BadInput(f"{path}:{number}: expected {expected}, found {len(fields)} columns: {line[:60]!r}")
            if block is None:
                block = _Block(number)
            block.words.append((number, fields[word_column], fields[tag_column]))
    if block is not None:
        yield block


def _word_and_tag_columns(path: str | Path, columns: Mapping[str, str], width: int) -> tuple[int, int]:
    """Indices of the columns of words and of tags among so many."""
    if unknown := set(columns) - {"tokens", "tags"}:
        raise BadInput(f"{path}: CoNLL has columns of tokens and tags, not {', '.join(sorted(unknown))}")
    found = []
    for name, default in (("tokens", 1), ("tags", width)):
        number = str(columns.get(name, default))
        if not number.isdecimal() or not 1 <= int(number) <= width:
            raise BadInput(f"{path}: no column {number} for {name}; give its number, 1 to {width}: --columns {name}=1")
        found.append(int(number) - 1)
    if width > 2 and not columns:
        logger.info("%s: of %d columns the first is read as words and the last as tags", path, width)
    return found[0], found[1]
