"""Files of posts to tag, and files of tagged posts, both as streams.

Every post of the input becomes one record of the output, in the same order: the output says how far a stopped run got.
"""

import csv
import json
import os
import re
import sys
from collections.abc import Callable, Iterator
from contextlib import nullcontext
from dataclasses import dataclass, field
from itertools import chain, islice
from pathlib import Path
from typing import Any

from .conll import conll_block
from .labels import spans_to_tags
from .pictures import UnreadablePicture, picture_in
from .processing_multimodal_ner import read_words
from .web_pictures import WEB

STANDARD_STREAM = "-"
"""Name of standard input and of standard output."""

MARKS = ("error", "warning", "record")
"""What is said of a post on its way; columns of a file that are called so, as in tagged posts, are not read."""

_LOOK_AHEAD = 100  # JSON lines that are searched for the column of the texts before anything is tagged


class PostFileError(ValueError):
    """A file of posts, or a line of one, that cannot be used, in one sentence."""


def is_stream(path: Path) -> bool:
    """Whether a path is standard input or output, a pipe or a device: read or written once, without an ending."""
    return str(path) == STANDARD_STREAM or (path.exists() and not path.is_file() and not path.is_dir())


def read_posts(path: Path, columns: dict[str, str], images: str | os.PathLike | None = None) -> Iterator[dict]:
    """Stream the posts of a file.

    Args:
        path: .jsonl, .parquet or .csv; or "-" for standard input, or a pipe, with JSON lines.
        columns: the file's name of each of "text", "image" and "id".
        images: folder that relative picture names start from; default: the folder of the file; of a stream: this one.

    Returns:
        Posts with "id" (the file's, else the number of the post from 1) and "error", or "image", the other columns, and
        "warning", None or why a picture that is named cannot be used.

    Raises:
        PostFileError: there is no such file, its format is unknown, or the whole file lacks the texts.
    """
    ending = ".jsonl" if is_stream(path) else path.suffix
    if not is_stream(path) and not path.is_file():
        raise PostFileError(f"{path}: no such file.")
    if ending not in _READERS:
        raise PostFileError(f"{path}: cannot read {path.suffix or 'this'} files; give {', '.join(_READERS)}.")
    folder = Path("." if is_stream(path) else path.parent) if images is None else Path(images)
    if not folder.is_dir():
        raise PostFileError(f"{folder}: no such folder of pictures.")
    rows = _READERS[ending](path)
    names = next(rows)
    wanted = {columns["text"]} if ending == ".csv" else {columns["text"], "words", "tokens"}
    if names is not None and not wanted & set(names):
        raise PostFileError(
            f"{path}: no column {columns['text']!r} among {', '.join(names) or 'none'}; name it with --text_column."
        )
    return (to_post(row, number, columns, folder) for number, row in enumerate(rows, start=1))


def count_posts(path: Path) -> int | None:
    """Return the number of posts of a file, None for a stream."""
    if is_stream(path):
        return None
    if path.suffix == ".parquet":
        return _parquet_file(path).metadata.num_rows
    if path.suffix == ".jsonl":
        with open(path, "rb") as lines:
            return sum(1 for line in lines if line.strip())
    return sum(1 for _ in _read_csv(path)) - 1


def to_post(row: dict | PostFileError, number: int, columns: dict[str, str], folder: Path) -> dict:
    """Turn a row of a file into a post: see `read_posts`."""
    if isinstance(row, PostFileError):
        return {"id": number, "error": str(row)}
    row = dict(row)
    text = row.pop(columns["text"], None)
    image = row.pop(columns["image"], None)
    post_id = row.pop(columns["id"], None)
    if isinstance(image, dict):  # an Image cell of `datasets`
        image = image.get("path") if image.get("bytes") is None else image["bytes"]
    warning = None
    if isinstance(image, str) and not image.startswith((*WEB, "data:image/")):
        try:
            image = picture_in(folder, image) if image else None
        except UnreadablePicture as error:
            image = None
            warning = f"tagged without its picture: {error}"
    own_id = number if post_id in (None, "") else post_id
    others = {name: value for name, value in row.items() if name not in MARKS}
    return others | {"id": own_id, "text": text, "image": image, "warning": warning}


def _read_jsonl(path: Path) -> Iterator[Any]:
    rows = _json_objects(path)
    first = list(islice(rows, _LOOK_AHEAD))
    names = {name: None for row in first if isinstance(row, dict) for name in row}
    yield list(names) if any(isinstance(row, dict) for row in first) else None
    yield from chain(first, rows)


def _json_objects(path: Path) -> Iterator[dict | PostFileError]:
    with nullcontext(sys.stdin.buffer) if str(path) == STANDARD_STREAM else open(path, "rb") as lines:
        for line in lines:
            if not (line := line.strip().removeprefix(b"\xef\xbb\xbf")):
                continue
            try:
                row = json.loads(line.decode("utf-8"))
            except UnicodeDecodeError:
                row = PostFileError("not UTF-8")
            except (ValueError, RecursionError) as error:
                row = PostFileError(f"not JSON ({error})")
            else:
                if not isinstance(row, dict):
                    row = PostFileError('not a JSON object such as {"text": "…", "image": "…"}')
            yield row


def _read_csv(path: Path) -> Iterator[Any]:
    with open(path, encoding="utf-8-sig", errors="surrogateescape", newline="") as file:
        lines = csv.reader(file)
        names = next(lines, [])
        yield names
        while True:
            try:
                values = next(lines)
            except StopIteration:
                return
            except csv.Error as error:
                yield PostFileError(f"not CSV ({error})")
                continue
            if not values:
                continue
            if len(values) != len(names):
                yield PostFileError(f"{len(values)} fields under {len(names)} column names")
            elif re.search("[\udc80-\udcff]", "".join(values)):  # what surrogateescape made of bytes
                yield PostFileError("not UTF-8")
            else:
                yield dict(zip(names, values, strict=True))


def _read_parquet(path: Path) -> Iterator[Any]:
    file = _parquet_file(path)
    yield file.schema_arrow.names
    for batch in file.iter_batches(batch_size=256):
        yield from batch.to_pylist()


def _parquet_file(path: Path):
    try:
        import pyarrow
        import pyarrow.parquet
    except ImportError as error:
        raise PostFileError(f"{path}: reading Parquet needs pyarrow: `pip install pyarrow`.") from error
    try:
        return pyarrow.parquet.ParquetFile(path)
    except pyarrow.ArrowException as error:
        raise PostFileError(f"{path}: not a Parquet file ({error}).") from error


_READERS = {".jsonl": _read_jsonl, ".parquet": _read_parquet, ".csv": _read_csv}


@dataclass
class Tagged:
    """What became of a post.

    Args:
        entities: as the pipeline gives them.
        error: why the post could not be tagged.
        warning: what of the post could not be used.
        windows: in how many it was read.
    """

    entities: list[dict] = field(default_factory=list)
    error: str | None = None
    warning: str | None = None
    windows: int = 1


@dataclass
class OutputFormat:
    """A format of tagged posts.

    Args:
        separator: ends every record and never occurs inside one.
        to_record: makes the record of a post and of what became of it; what the format cannot express becomes an error.
        belongs: whether a record may be that of a post.
        failed: whether a record has an error or a warning.
    """

    separator: bytes
    to_record: Callable[[dict, Tagged], bytes]
    belongs: Callable[[bytes, dict], bool]
    failed: Callable[[bytes], bool]

    def finished(self, path: Path, posts: Iterator[dict]) -> Iterator[tuple[dict, bytes]]:
        """Advance posts along the finished records of a file; yields both.

        Raises:
            PostFileError: a record is not that of the post at its place.
        """
        done = 0
        record = b""
        with open(path, "rb") as lines:
            for line in lines:
                record += line
                if record.endswith(self.separator):
                    post = next(posts, None)
                    if post is None or not self.belongs(record, post):
                        raise PostFileError(
                            f"{path}: record {done + 1} does not belong to the input; give another --output, or "
                            "--overwrite to start anew."
                        )
                    done += 1
                    yield post, record
                    record = b""

    def skip_finished(self, path: Path, posts: Iterator[dict]) -> int:
        """Advance posts past the finished records of a file, cut off an unfinished one; returns the number of records.

        Raises:
            PostFileError: a record is not that of the post at its place.
        """
        done = 0
        size = 0
        for _, record in self.finished(path, posts):
            done += 1
            size += len(record)
        if size < path.stat().st_size:
            os.truncate(path, size)
        return done

    def keep_finished(self, path: Path, posts: Iterator[dict]) -> Iterator[dict]:
        """Yield all posts; those that have a record without error or warning in a file bring it as "record".

        Raises:
            PostFileError: a record is not that of the post at its place.
        """
        for post, record in self.finished(path, posts):
            yield post if self.failed(record) else post | {"record": record}
        yield from posts


def _to_jsonl(post: dict, tagged: Tagged) -> bytes:
    if tagged.error is not None:
        return _json_line({"id": post["id"], "error": tagged.error})
    record = {"id": post["id"], "text": _text_of(post), "entities": tagged.entities}
    return _json_line(record if tagged.warning is None else record | {"warning": tagged.warning})


def _json_line(record: dict) -> bytes:
    line = json.dumps(record, ensure_ascii=False, default=str) + "\n"
    return line.encode("utf-8", "backslashreplace")  # half a character becomes its JSON escape


def _text_of(post: dict) -> str:
    """The text that the offsets of the entities refer to."""
    return " ".join(post.get("words") or post.get("tokens") or []) if post["text"] is None else post["text"]


def _belongs_jsonl(content: bytes, post: dict) -> bool:
    try:
        record = json.loads(content)
        expected = {"id": post["id"]} if "error" in record else {"id": post["id"], "text": _text_of(post)}
        known = json.loads(_json_line(expected))
        return json.dumps({key: record[key] for key in known}) == json.dumps(known)  # as text: NaN is not NaN
    except (ValueError, TypeError, LookupError):  # no record of ours, or of a post that can no longer be read
        return False


def _failed_jsonl(content: bytes) -> bool:
    return not {"error", "warning"}.isdisjoint(json.loads(content))


def _to_conll(post: dict, tagged: Tagged) -> bytes:
    if tagged.error is not None:
        return _conll_bytes(post, [], [])
    places = read_words(post)[1]
    words = [word for word, _, _ in places]
    if re.search("[\t\n\r]", "".join(words)):
        tagged.error = "a word holds a tab or a line break, which CoNLL cannot express"
        return _conll_bytes(post, [], [])
    first = {start: i for i, (_, start, _) in enumerate(places)}
    after = {end: i + 1 for i, (_, _, end) in enumerate(places)}
    spans = [(first[own["start"]], after[own["end"]], own["entity_group"]) for own in tagged.entities]
    return _conll_bytes(post, words, spans_to_tags(spans, len(words)))


def _conll_bytes(post: dict, words: list[str], labels: list[str]) -> bytes:
    return conll_block(post["id"], words, labels).encode("utf-8", "backslashreplace")


def _belongs_conll(content: bytes, post: dict) -> bool:
    return content.startswith(_conll_bytes(post, [], [])[:-1])


def _failed_conll(content: bytes) -> bool:
    return content.count(b"\n") == 2  # an id and no word


OUTPUT_FORMATS = {
    ".jsonl": OutputFormat(b"\n", _to_jsonl, _belongs_jsonl, _failed_jsonl),
    ".conll": OutputFormat(b"\n\n", _to_conll, _belongs_conll, _failed_conll),
}
