"""Posts as records, of JSON lines or of a dataset: words and tags, or a text and character spans."""

import json
import logging
import math
from collections import Counter
from collections.abc import Collection, Iterable, Iterator
from pathlib import Path

from modeling_umgf.labels import spans_to_tags
from modeling_umgf.text_splitting import split_post

from ..columns.contract import COLUMNS
from .bad_input import BadInput
from .tag_reader import IdRegister, TagReader
from .text_files import numbered_lines

logger = logging.getLogger(__name__)

_OTHER_NAMES = {"words": "tokens", "ner_tags": "tags", "labels": "tags", "entities": "spans"}
_KEPT = [name for name in COLUMNS if name not in ("id", "tokens", "ner_tags")]  # as they are


def read_jsonl(path: str | Path, **options) -> list[dict]:
    """Read one JSON object per line, as `read_records` describes it; `image` is a path.

    Args:
        path: the file, UTF-8.
        options: as for `read_records`.

    Returns:
        One dict per post: `id`, `tokens`, `tags` (strings) and the optional columns it has.

    Raises:
        BadInput: A line doesn't follow this format; the message has its number.
    """

    def records() -> Iterator[tuple[str, dict]]:
        for number, line in numbered_lines(path):
            if line.strip():
                yield f"{path}:{number}", _json_object(line, f"{path}:{number}")

    return read_records(records(), path, **options)


def read_records(
    records: Iterable[tuple[str, dict]],
    source: str | Path,
    *,
    types: Collection[str] | None = None,
    bio_repair: bool = False,
    unique_ids: bool = True,
) -> list[dict]:
    """Check records with `tokens` and `tags`, or with `text` and character `spans`.

    `spans` holds {"start", "end", "label"} or [start, end, label], half open, in characters of `text`; `text` is split
    by `modeling_umgf.text_splitting`, and a span that cuts a word is widened to the whole word (counted and logged).
    Also understood: `words` for `tokens`, `ner_tags` or `labels` for `tags`, `entities` for `spans`, `type` for
    `label`. `id` (else `<source>-<n>`), `image` and the optional columns of a dataset are kept; other fields are left
    out (counted and logged).

    Args:
        records: (place for error messages, record).
        source: file or dataset the records come from.
        types, bio_repair, unique_ids: as for `read_conll`.

    Returns:
        One dict per post: `id`, `tokens`, `tags` (strings) and the kept fields it has.

    Raises:
        BadInput: A record is wrong; the message has its place.
    """
    tags = TagReader(types, bio_repair)
    ids = IdRegister(unique_ids)
    rows = []
    left_out = Counter()
    widened = []
    for where, record in records:
        record = _with_usual_names(record, where)
        if "tokens" in record and "tags" in record:
            words = _strings(record["tokens"], "tokens", where)
            checked = [tags.read(tag, where) for tag in _strings(record["tags"], "tags", where)]
        elif "text" in record and "spans" in record:
            words, checked, cut_words = _split_text(record["text"], record["spans"], where, tags)
            widened += [where] * cut_words
        else:
            found = ", ".join(record) or "nothing"
            raise BadInput(f"{where}: a post needs tokens and tags, or text and spans; found {found}")
        if len(words) != len(checked):
            raise BadInput(f"{where}: {len(words)} words but {len(checked)} tags")
        if not words:
            raise BadInput(f"{where}: the post has no words")
        name = record.get("id")
        name = f"{Path(source).stem}-{len(rows)}" if name is None else str(name)
        ids.claim(name, where)
        kept = {key: record[key] for key in _KEPT if key in record}
        _check_annotations(kept, len(words), where)
        left_out.update(set(record) - set(kept) - {"id", "tokens", "tags", "text", "spans"})
        rows.append({"id": name, "tokens": words, "tags": tags.repair(checked), **kept})
    if not rows:
        raise BadInput(f"{source}: no posts in it")
    if left_out:
        fields = ", ".join(f"{key} ({count} posts)" for key, count in left_out.items())
        logger.warning("%s: left out the fields %s", source, fields)
    if widened:
        logger.warning("%d spans cut a word and were widened to it, the first at %s", len(widened), widened[0])
    tags.log(source)
    return rows


def _json_object(line: str, where: str) -> dict:
    try:
        record = json.loads(line)
    except json.JSONDecodeError as error:
        raise BadInput(f"{where}: not JSON ({error.msg} at character {error.colno})") from error
    if not isinstance(record, dict):
        raise BadInput(f"{where}: expected a JSON object {{...}}, found {line[:40]!r}")
    return record


def _with_usual_names(record: dict, where: str) -> dict:
    """The record, with the first of the names that a field may have."""
    renamed = {}
    for key, value in record.items():
        name = _OTHER_NAMES.get(key, key)
        if name in renamed:
            raise BadInput(f"{where}: {name} are given under two names ({', '.join(record)})")
        renamed[name] = value
    return renamed


def _strings(values: object, key: str, where: str) -> list[str]:
    if not isinstance(values, list) or not all(isinstance(value, str) for value in values):
        raise BadInput(f"{where}: {key} must be a list of strings, found {str(values)[:60]}")
    return values


def _split_text(text: str, spans: list, where: str, tags: TagReader) -> tuple[list[str], list[str], int]:
    """Words of `text`, their tags by `spans`, and how many spans were widened to whole words."""
    if not isinstance(text, str) or not isinstance(spans, list):
        raise BadInput(f"{where}: text must be a string and spans a list")
    words = split_post(text)
    word_spans = []
    widened = 0
    for span in spans:
        start, end, entity_type = _span_fields(span, where)
        if not 0 <= start < end <= len(text):
            raise BadInput(f"{where}: the span {start}..{end} doesn't lie inside the text of {len(text)} characters")
        inside = [i for i, (_, word_start, word_end) in enumerate(words) if word_start < end and start < word_end]
        if not inside:
            raise BadInput(f"{where}: the span {start}..{end} holds no word")
        first = inside[0]
        last = inside[-1]
        widened += words[first][1] < start or end < words[last][2]
        tags.read(f"B-{entity_type}", where)
        word_spans.append((first, last + 1, entity_type))
    try:
        return [word for word, _, _ in words], spans_to_tags(word_spans, len(words)), widened
    except ValueError as error:
        raise BadInput(f"{where}: two spans share a word ({error})") from error


def _span_fields(span: dict | list, where: str) -> tuple[int, int, str]:
    fields = span
    if isinstance(span, dict):
        fields = [span.get("start"), span.get("end"), span.get("label", span.get("type"))]
    if isinstance(fields, list) and [type(field) for field in fields] == [int, int, str]:
        return tuple(fields)
    raise BadInput(f"{where}: a span needs start and end (characters) and label, found {str(span)[:60]}")


def _check_annotations(row: dict, length: int, where: str) -> None:
    """Noun phrases and objects must lie inside the post and the boxes must be boxes; fields that lack become null."""
    for name, what in (("image", "a path"), ("caption", "a string")):
        if not isinstance(row.get(name), str | None):
            raise BadInput(f"{where}: {name} must be {what} or null, found {str(row[name])[:60]}")
    _strings(row.get("object_labels") or [], "object_labels", where)
    try:
        for phrase in row.get("noun_phrases") or []:
            _check_phrase(phrase, length)
        for found in row.get("objects") or []:
            _check_box(found["box"])
            for field in ("score", "query", "phrase"):
                found.setdefault(field, None)
            if found["phrase"] is not None:
                _check_phrase(found["phrase"], length)
    except (KeyError, TypeError, ValueError, AttributeError) as error:
        reason = f"{error} is missing" if isinstance(error, KeyError) else error
        raise BadInput(f"{where}: noun_phrases or objects: {reason}") from error


def _check_box(box: list[float]) -> None:
    x0, y0, x1, y1 = box
    if not (math.isfinite(x0 + y0 + x1 + y1) and x0 < x1 and y0 < y1):
        raise ValueError(f"box {box} is not [x0, y0, x1, y1] with x0 < x1 and y0 < y1")


def _check_phrase(phrase: dict, length: int) -> None:
    if not 0 <= phrase["start"] < phrase["end"] <= length:
        raise ValueError(f"phrase {phrase['start']}..{phrase['end']} doesn't lie inside the {length} words")
