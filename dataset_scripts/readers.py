"""Tweets in files -> rows: the UMT release of Twitter-2015/2017, CoNLL and JSON lines."""

import json
import logging
import math
import re
from collections import Counter
from collections.abc import Collection, Iterable, Iterator
from pathlib import Path

from modeling_umgf.labels import spans_to_tags
from modeling_umgf.text_splitting import split_tweet

from .features import OPTIONAL_COLUMNS
from .text_files import BadInput, numbered_lines

logger = logging.getLogger(__name__)

_OTHER_NAMES = {"words": "tokens", "ner_tags": "tags", "labels": "tags", "entities": "spans"}


def read_conll(
    path: str | Path,
    *,
    umt: bool = False,
    types: Collection[str] | None = None,
    bio_repair: bool = False,
    unique_ids: bool = True,
) -> list[dict]:
    r"""Read one word and one BIO tag per line, separated by a tab, with a blank line between tweets.

    A line `IMGID:<id>` may open each tweet; without such lines the ids are `<file name>-0`, `<file name>-1`, ...
    Lines are split on "\n" and "\t" only and never stripped, because a word may be U+00A0.

    Args:
        path: The file, UTF-8.
        umt: The UMT release of Twitter-2015/2017: every tweet needs its `IMGID:` line and type OTHER is read as MISC.
        types: Entity types that are allowed; None = whatever the file has.
        bio_repair: Turn an I- that continues nothing into a B- (logged with its count). Off: tags stay as they are.
        unique_ids: Refuse an id that was used before.

    Returns:
        One dict per tweet: `id`, `tokens`, `tags` (strings).

    Raises:
        BadInput: The file doesn't follow this format; the message has its line.
    """
    tags = _TagReader(types, bio_repair, renamed={"OTHER": "MISC"} if umt else {})
    rows, ids = [], {}
    for first_line, name, words in _conll_blocks(path):
        where = f"{path}:{first_line}"
        if name is None and (umt or ids):
            raise BadInput(f"{where}: this tweet has no IMGID:<id> line before it")
        if name is not None and rows and not ids:
            raise BadInput(f"{where}: an IMGID line, but the tweets before have none")
        if name == "":
            raise BadInput(f"{where}: IMGID without an id")
        if name is None:
            name = f"{Path(path).stem}-{len(rows)}"
        else:
            _claim(name, ids, where, unique_ids)
        if not words:
            raise BadInput(f"{where}: tweet {name} has no words")
        checked = [tags.read(tag, f"{path}:{line}") for line, _, tag in words]
        rows.append({"id": name, "tokens": [word for _, word, _ in words], "tags": tags.sentence(checked)})
    if not rows:
        raise BadInput(f"{path}: no tweets in this file")
    if umt and {"OTHER", "MISC"} <= tags.seen:
        raise BadInput(f"{path}: has both OTHER and MISC, which the umt format would merge; read it with format conll")
    tags.log(path)
    return rows


def read_jsonl(path: str | Path, **options) -> list[dict]:
    """Read one JSON object per line, as `read_records` describes it; `image` is a path.

    Args:
        path: The file, UTF-8.
        options: As for `read_records`.

    Returns:
        One dict per tweet: `id`, `tokens`, `tags` (strings) and the optional columns it has.

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
        source: File or dataset the records come from.
        types, bio_repair, unique_ids: As for `read_conll`.

    Returns:
        One dict per tweet: `id`, `tokens`, `tags` (strings) and the kept fields it has.

    Raises:
        BadInput: A record is wrong; the message has its place.
    """
    tags = _TagReader(types, bio_repair)
    rows, ids, left_out, widened = [], {}, Counter(), []
    for where, record in records:
        keys = [_OTHER_NAMES.get(key, key) for key in record]
        if twice := [key for key in keys if keys.count(key) > 1]:
            raise BadInput(f"{where}: {twice[0]} are given under two names ({', '.join(record)})")
        record = dict(zip(keys, record.values(), strict=True))
        if "tokens" in record and "tags" in record:
            words = _strings(record["tokens"], "tokens", where)
            checked = [tags.read(tag, where) for tag in _strings(record["tags"], "tags", where)]
        elif "text" in record and "spans" in record:
            words, checked, cuts_words = _split_text(record["text"], record["spans"], where, tags)
            widened += [where] * cuts_words
        else:
            found = ", ".join(record) or "nothing"
            raise BadInput(f"{where}: a tweet needs tokens and tags, or text and spans; found {found}")
        if len(words) != len(checked):
            raise BadInput(f"{where}: {len(words)} words but {len(checked)} tags")
        if not words:
            raise BadInput(f"{where}: the tweet has no words")
        name = record.get("id")
        name = f"{Path(source).stem}-{len(rows)}" if name is None else str(name)
        _claim(name, ids, where, unique_ids)
        kept = {key: record[key] for key in ("image", *OPTIONAL_COLUMNS) if key in record}
        _check_annotations(kept, len(words), where)
        left_out.update(set(record) - set(kept) - {"id", "tokens", "tags", "text", "spans"})
        rows.append({"id": name, "tokens": words, "tags": tags.sentence(checked), **kept})
    if not rows:
        raise BadInput(f"{source}: no tweets in it")
    if left_out:
        fields = ", ".join(f"{key} ({count} tweets)" for key, count in left_out.items())
        logger.warning("%s: left out the fields %s", source, fields)
    if widened:
        logger.warning("%d spans cut a word and were widened to it, the first at %s", len(widened), widened[0])
    tags.log(source)
    return rows


class _TagReader:
    """Checks the tags of one file, and counts what it changed."""

    def __init__(self, allowed: Collection[str] | None, bio_repair: bool, renamed: dict[str, str] | None = None):
        self.allowed, self.bio_repair, self.renamed = allowed, bio_repair, renamed or {}
        self.seen: set[str] = set()
        self.repaired = 0

    def read(self, tag: str, where: str) -> str:
        if tag == "O":
            return tag
        if not re.fullmatch(r"[BI]-\S+", tag):
            raise BadInput(f"{where}: unknown tag {tag!r}; tags are O, B-<type> and I-<type>")
        self.seen.add(tag[2:])
        entity_type = self.renamed.get(tag[2:], tag[2:])
        if self.allowed is not None and entity_type not in self.allowed:
            raise BadInput(
                f"{where}: unknown label {tag}; the types are {', '.join(self.allowed)} (those of the training data,"
                " unless the wanted types are listed)"
            )
        return f"{tag[0]}-{entity_type}"

    def sentence(self, tags: list[str]) -> list[str]:
        if not self.bio_repair:
            return tags
        repaired = []
        for before, tag in zip(["O", *tags], tags, strict=False):
            orphan = tag.startswith("I-") and before[1:] != tag[1:]
            repaired.append("B" + tag[1:] if orphan else tag)
            self.repaired += orphan
        return repaired

    def log(self, source: str | Path) -> None:
        for old in self.seen & set(self.renamed):
            logger.info("%s: type %s is read as %s", source, old, self.renamed[old])
        if self.bio_repair:
            logger.info("%s: %d I- tags that continue nothing became B-", source, self.repaired)


def _claim(name: str, ids: dict[str, str], where: str, unique: bool) -> None:
    if unique and name in ids:
        raise BadInput(f"{where}: the id {name} was used before, at {ids[name]}")
    ids.setdefault(name, where)


def _conll_blocks(path: str | Path) -> Iterator[tuple[int, str | None, list[tuple[int, str, str]]]]:
    """Yield (first line, id or None, [(line, word, tag)]) of each tweet; it ends at IMGID, a blank line or the end."""
    first_line, name, words = 0, None, []
    for number, line in numbered_lines(path):
        fields = line.split("\t")
        is_id = line.startswith("IMGID:") and len(fields) == 1
        if (is_id or not line) and (words or name is not None):
            yield first_line, name, words
            name, words = None, []
        if is_id:
            first_line, name = number, line.removeprefix("IMGID:")
        elif line:
            if len(fields) != 2:
                raise BadInput(f"{path}:{number}: expected word<TAB>tag, found {len(fields)} columns: {line[:60]!r}")
            if not words and name is None:
                first_line = number
            words.append((number, *fields))
    if words or name is not None:
        yield first_line, name, words


def _json_object(line: str, where: str) -> dict:
    try:
        record = json.loads(line)
    except json.JSONDecodeError as error:
        raise BadInput(f"{where}: not JSON ({error.msg} at character {error.colno})") from error
    if not isinstance(record, dict):
        raise BadInput(f"{where}: expected a JSON object {{...}}, found {line[:40]!r}")
    return record


def _strings(values: object, key: str, where: str) -> list[str]:
    if not isinstance(values, list) or not all(isinstance(value, str) for value in values):
        raise BadInput(f"{where}: {key} must be a list of strings, found {str(values)[:60]}")
    return values


def _split_text(text: str, spans: list, where: str, tags: _TagReader) -> tuple[list[str], list[str], int]:
    """Words of `text`, their tags by `spans`, and how many spans were widened to whole words."""
    if not isinstance(text, str) or not isinstance(spans, list):
        raise BadInput(f"{where}: text must be a string and spans a list")
    words = split_tweet(text)
    word_spans, widened = [], 0
    for span in spans:
        start, end, entity_type = _span_fields(span, where)
        if not 0 <= start < end <= len(text):
            raise BadInput(f"{where}: the span {start}..{end} doesn't lie inside the text of {len(text)} characters")
        inside = [i for i, (_, word_start, word_end) in enumerate(words) if word_start < end and start < word_end]
        if not inside:
            raise BadInput(f"{where}: the span {start}..{end} holds no word")
        widened += words[inside[0]][1] < start or end < words[inside[-1]][2]
        tags.read(f"B-{entity_type}", where)
        word_spans.append((inside[0], inside[-1] + 1, entity_type))
    try:
        return [word for word, _, _ in words], spans_to_tags(word_spans, len(words)), widened
    except ValueError as error:
        raise BadInput(f"{where}: two spans share a word ({error})") from error


def _span_fields(span: dict | list, where: str) -> tuple[int, int, str]:
    fields = (
        [span.get("start"), span.get("end"), span.get("label", span.get("type"))] if isinstance(span, dict) else span
    )
    if isinstance(fields, list) and [type(field) for field in fields] == [int, int, str]:
        return tuple(fields)
    raise BadInput(f"{where}: a span needs start and end (characters) and label, found {str(span)[:60]}")


def _check_annotations(row: dict, length: int, where: str) -> None:
    """Noun phrases and objects must lie inside the tweet and the boxes must be boxes; fields that lack become null."""
    if not isinstance(row.get("image"), str | None):
        raise BadInput(f"{where}: image must be a path or null, found {str(row['image'])[:60]}")
    if not isinstance(row.get("caption"), str | None):
        raise BadInput(f"{where}: caption must be a string or null, found {str(row['caption'])[:60]}")
    _strings(row.get("object_labels") or [], "object_labels", where)
    try:
        for phrase in row.get("noun_phrases") or []:
            _check_phrase(phrase, length)
        for found in row.get("objects") or []:
            x0, y0, x1, y1 = found["box"]
            if not (math.isfinite(x0 + y0 + x1 + y1) and x0 < x1 and y0 < y1):
                raise ValueError(f"box {found['box']} is not [x0, y0, x1, y1] with x0 < x1 and y0 < y1")
            for field in ("score", "query", "phrase"):
                found.setdefault(field, None)
            if found["phrase"] is not None:
                _check_phrase(found["phrase"], length)
    except (KeyError, TypeError, ValueError, AttributeError) as error:
        reason = f"{error} is missing" if isinstance(error, KeyError) else error
        raise BadInput(f"{where}: noun_phrases or objects: {reason}") from error


def _check_phrase(phrase: dict, length: int) -> None:
    if not 0 <= phrase["start"] < phrase["end"] <= length:
        raise ValueError(f"phrase {phrase['start']}..{phrase['end']} doesn't lie inside the {length} words")
