"""Files of posts to tag, and files of tagged posts, both as streams.

Every post of the input becomes one record of the output, in the same order: the output says how far a stopped run got.
"""

import csv
import json
import os
import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from .conll import conll_block


class PostFileError(ValueError):
    """A file of posts, or a line of one, that cannot be used, in one sentence."""


def read_posts(path: Path, columns: dict[str, str], images: str | os.PathLike | None = None) -> Iterator[dict]:
    """Stream the posts of a file.

    Args:
        path: .jsonl, .parquet or .csv.
        columns: the file's name of each of "text", "image" and "id".
        images: folder that relative picture names start from; default: the folder of the file.

    Returns:
        Posts with "id" (the file's, else the number of the post from 1) and "error", or "image" and the other columns.

    Raises:
        PostFileError: there is no such file, its format is unknown, or the whole file lacks the texts.
    """
    if not path.is_file():
        raise PostFileError(f"{path}: no such file.")
    if path.suffix not in _READERS:
        raise PostFileError(f"{path}: cannot read {path.suffix or 'this'} files; give {', '.join(_READERS)}.")
    folder = Path(images) if images is not None else path.parent
    if not folder.is_dir():
        raise PostFileError(f"{folder}: no such folder of pictures.")
    rows = _READERS[path.suffix](path)
    names = next(rows)
    if names is not None and not {columns["text"], "words", "tokens"} & set(names):
        raise PostFileError(
            f"{path}: no column {columns['text']!r} among {', '.join(names) or 'none'}; name it with --text_column."
        )
    return (to_post(row, number, columns, folder) for number, row in enumerate(rows, start=1))


def count_posts(path: Path) -> int:
    """Return the number of posts of a file."""
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
    if isinstance(image, str) and not image.startswith(("http://", "https://", "data:image/")):
        image = str(folder / image) if image else None
    return row | {"id": number if post_id in (None, "") else post_id, "text": text, "image": image}


def _read_jsonl(path: Path) -> Iterator[Any]:
    yield None  # no columns to check
    with open(path, "rb") as lines:
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
class Record:
    """A tagged post as it stands in an output file.

    Args:
        content: its bytes, the separator included.
        entities: number of entities in it.
        error: why the post could not be tagged.
    """

    content: bytes
    entities: int = 0
    error: str | None = None


@dataclass
class OutputFormat:
    """A format of tagged posts.

    Args:
        separator: ends every record and never occurs inside one.
        aggregation_strategy: what the format needs of the pipeline.
        to_record: makes the record of a post and its result of the pipeline.
        belongs: whether a record may be that of a post.
    """

    separator: bytes
    aggregation_strategy: str
    to_record: Callable[[dict, Any], Record]
    belongs: Callable[[bytes, dict], bool]

    def skip_finished(self, path: Path, posts: Iterator[dict]) -> int:
        """Advance posts past the finished records of a file, cut off an unfinished one; returns the number of records.

        Raises:
            PostFileError: a record is not that of the post at its place.
        """
        done = 0
        size = 0
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
                    size += len(record)
                    record = b""
        if record:
            os.truncate(path, size)
        return done


def _to_jsonl(post: dict, result: Any) -> Record:
    if isinstance(result, dict):
        return Record(_json_line({"id": post["id"], "error": result["error"]}), error=result["error"])
    return Record(_json_line({"id": post["id"], "text": _text_of(post), "entities": result}), entities=len(result))


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
        return all(record[key] == value for key, value in json.loads(_json_line(expected)).items())
    except (ValueError, TypeError, LookupError):  # no record of ours, or of a post that can no longer be read
        return False


def _to_conll(post: dict, result: Any) -> Record:
    if isinstance(result, dict):
        return Record(_conll_bytes(post, [], []), error=result["error"])
    words = [row["word"] for row in result]
    labels = [row["entity"] for row in result]
    if re.search("[\t\n\r]", "".join(words)):
        error = "a word holds a tab or a line break, which CoNLL cannot express"
        return Record(_conll_bytes(post, [], []), error=error)
    entities = sum(label.startswith("B-") for label in labels)
    return Record(_conll_bytes(post, words, labels), entities)


def _conll_bytes(post: dict, words: list[str], labels: list[str]) -> bytes:
    return conll_block(post["id"], words, labels).encode("utf-8", "backslashreplace")


def _belongs_conll(content: bytes, post: dict) -> bool:
    return content.startswith(_conll_bytes(post, [], [])[:-1])


OUTPUT_FORMATS = {
    ".jsonl": OutputFormat(b"\n", "simple", _to_jsonl, _belongs_jsonl),
    ".conll": OutputFormat(b"\n\n", "none", _to_conll, _belongs_conll),
}
