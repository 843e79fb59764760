"""Posts in CoNLL files, among them the UMT release of Twitter-2015 and Twitter-2017."""

from collections.abc import Collection, Iterator
from dataclasses import dataclass, field
from pathlib import Path

from .bad_input import BadInput
from .tag_reader import IdRegister, TagReader
from .text_files import numbered_lines


def read_conll(
    path: str | Path,
    *,
    umt: bool = False,
    types: Collection[str] | None = None,
    bio_repair: bool = False,
    unique_ids: bool = True,
) -> list[dict]:
    r"""Read one word and one BIO tag per line, separated by a tab, with a blank line between posts.

    A line `IMGID:<id>` may open each post; without such lines the ids are `<file name>-0`, `<file name>-1`, ...
    Lines are split on "\n" and "\t" only and never stripped, because a word may be U+00A0.

    Args:
        path: the file, UTF-8.
        umt: the UMT release of Twitter-2015/2017: every post needs its `IMGID:` line and type OTHER is read as MISC.
        types: entity types that are allowed; None = whatever the file has.
        bio_repair: turn an I- that continues nothing into a B- (logged with its count). Off: tags stay as they are.
        unique_ids: refuse an id that was used before.

    Returns:
        One dict per post: `id`, `tokens`, `tags` (strings).

    Raises:
        BadInput: The file doesn't follow this format; the message has its line.
    """
    tags = TagReader(types, bio_repair, renamed={"OTHER": "MISC"} if umt else {})
    ids = IdRegister(unique_ids)
    rows = []
    for block in _blocks(path):
        where = f"{path}:{block.first_line}"
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
    tags.log(path)
    return rows


@dataclass
class _Block:
    """The lines of one post."""

    first_line: int
    id: str | None = None
    words: list[tuple[int, str, str]] = field(default_factory=list)  # line, word, tag


def _blocks(path: str | Path) -> Iterator[_Block]:
    """Yield the posts of a file; one ends at an IMGID line, a blank line or the end."""
    block = None
    for number, line in numbered_lines(path):
        fields = line.split("\t")
        is_id = line.startswith("IMGID:") and len(fields) == 1
        if block is not None and (is_id or not line):
            yield block
            block = None
        if is_id:
            block = _Block(number, line.removeprefix("IMGID:"))
        elif line:
            if len(fields) != 2:
                raise BadInput(f"{path}:{number}: expected word<TAB>tag, found {len(fields)} columns: {line[:60]!r}")
            if block is None:
                block = _Block(number)
            block.words.append((number, *fields))
    if block is not None:
        yield block
