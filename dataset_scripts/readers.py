"""Text files of tweets -> rows: the UMT release of Twitter-2015/2017, CoNLL and JSON lines."""

import json
import logging
import math
import re
from collections import Counter
from collections.abc import Collection, Iterator
from pathlib import Path

from modeling_umgf.labels import spans_to_tags
from modeling_umgf.text_splitting import split_tweet

from .features import OPTIONAL_COLUMNS
from .text_files import BadInput, numbered_lines

logger = logging.getLogger(__name__)

_JSON_KEYS = {"words": "tokens", "ner_tags": "tags", "labels": "tags", "entities": "spans"}


def read_conll(
    path: str | Path, *, umt: bool = False, entity_types: Collection[str] | None = None, bio_repair: bool = False
) -> list[dict]:
    r"""Read one word and one BIO tag per line, separated by a tab, with a blank line between tweets.

    A line `IMGID:<id>` may open each tweet; without such lines the ids are `<file name>-0`, `<file name>-1`, ...
    Lines are split on "\n" and "\t" only and never stripped, because a word may be U+00A0.

    Args:
        path: The file, UTF-8.
        umt: The UMT release of Twitter-2015/2017: every tweet needs its `IMGID:` line and type OTHER is read as MISC.
        entity_types: Types that are allowed; None = whatever the file has.
        bio_repair: Turn an I- that continues nothing into a B- (logged with its count). Off: tags stay as they are.

    Returns:
        One dict per tweet: `id`, `tokens`, `tags` (strings).

    Raises:
        BadInput: The file doesn't follow this format; the message has its line.
    """
    tags = _TagReader(entity_types, bio_repair, renamed={"OTHER": "MISC"} if umt else {})
    rows, ids = [], {}
    for first_line, name, words in _conll_blocks(path):
        if name is None:
            if umt or ids:
                raise BadInput(
                    f"{path}:{first_line}: this tweet has no IMGID:<id> line, unlike the format or the others"
                )
            name = f"{Path(path).stem}-{len(rows)}"
        elif rows and not ids:
            raise BadInput(f"{path}:{first_line}: an IMGID line, but the tweets before have none")
        elif not name:
            raise BadInput(f"{path}:{first_line}: IMGID without an id")
        elif name in ids:
            raise BadInput(f"{path}:{first_line}: the id {name} was used before in line {ids[name]}")
        else:
            ids[name] = first_line
        if not words:
            raise BadInput(f"{path}:{first_line}: tweet {name} has no words")
        checked = [tags.read(tag, f"{path}:{line}") for line, _, tag in words]
        rows.append({"id": name, "tokens": [word for _, word, _ in words], "tags": tags.sentence(checked)})
    if not rows:
        raise BadInput(f"{path}: no tweets in this file")
    if umt and {"OTHER", "MISC"} <= tags.seen:
        raise BadInput(f"{path}: has both OTHER and MISC, which the umt format would merge; read it with format conll")
    tags.log(path)
    return rows


def read_jsonl(
    path: str | Path, *, entity_types: Collection[str] | None = None, bio_repair: bool = False
) -> list[dict]:
    """Read one JSON object per line: `tokens` and `tags`, or `text` and character `spans`.

    `spans` holds {"start", "end", "label"} or [start, end, label], half open, in characters of `text`; `text` is split
    by `modeling_umgf.text_splitting`, and a span that cuts a word is widened to the whole word (counted and logged).
    Also understood: `words` for `tokens`, `ner_tags` or `labels` for `tags`, `entities` for `spans`, `type` for
    `label`.
    `id` (else `<file name>-<n>`), `image` (a path, relative to the folder of pictures or of this file) and the optional
    columns of a dataset are kept; other fields are left out (counted and logged).

    Args:
        path: The file, UTF-8.
        entity_types, bio_repair: As for `read_conll`.

    Returns:
        One dict per tweet: `id`, `tokens`, `tags` (strings) and the kept fields it has.

    Raises:
        BadInput: A line doesn't follow this format; the message has its number.
    """
    tags = _TagReader(entity_types, bio_repair)
    rows, ids, left_out, widened = [], {}, Counter(), []
    for number, line in numbered_lines(path):
        if not line.strip():
            continue
        where = f"{path}:{number}"
        record = _json_object(line, where)
        if "tokens" in record and "tags" in record:
            words = record["tokens"]
            checked = [tags.read(tag, where) for tag in _strings(record, "tags", where)]
        elif "text" in record and "spans" in record:
            words, checked, cuts_words = _split_text(record, where, tags)
            widened += [number] * cuts_words
        else:
            raise BadInput(f"{where}: needs tokens and tags, or text and spans; found {', '.join(record) or 'nothing'}")
        words = _strings({"tokens": words}, "tokens", where)
        if len(words) != len(checked):
            raise BadInput(f"{where}: {len(words)} words but {len(checked)} tags")
        if not words:
            raise BadInput(f"{where}: the tweet has no words")
        name = str(record.get("id", f"{Path(path).stem}-{len(rows)}"))
        if name in ids:
            raise BadInput(f"{where}: the id {name} was used before in line {ids[name]}")
        ids[name] = number
        kept = {key: record[key] for key in ("image", *OPTIONAL_COLUMNS) if key in record}
        _check_annotations(kept, len(words), where)
        left_out.update(set(record) - set(kept) - {"id", "tokens", "tags", "text", "spans"})
        rows.append({"id": name, "tokens": words, "tags": tags.sentence(checked), **kept})
    if left_out:
        logger.warning("%s: left out %s", path, ", ".join(f"{key} ({count} tweets)" for key, count in left_out.items()))
    if widened:
        logger.warning(
            "%s: %d spans cut a word and were widened to it, first in line %d", path, len(widened), widened[0]
        )
    tags.log(path)
    return rows


class _TagReader:
    """Checks the tags of one file, and counts what it changed."""

    def __init__(self, entity_types: Collection[str] | None, bio_repair: bool, renamed: dict[str, str] | None = None):
        self.allowed, self.bio_repair, self.renamed = entity_types, bio_repair, renamed or {}
        self.seen: set[str] = set()
        self.repaired = 0

    def read(self, tag: str, where: str) -> str:
        if tag == "O":
            return tag
        if not re.fullmatch(r"[BI]-\S.*", tag):
            raise BadInput(f"{where}: unknown tag {tag!r}; tags are O, B-<type> and I-<type>")
        prefix, entity_type = tag[0], tag[2:]
        self.seen.add(entity_type)
        entity_type = self.renamed.get(entity_type, entity_type)
        if self.allowed is not None and entity_type not in self.allowed:
            raise BadInput(
                f"{where}: unknown label {tag!r}; the types are {', '.join(self.allowed)}"
                " (those of the training file, unless all types are listed with --entity_types)"
            )
        return f"{prefix}-{entity_type}"

    def sentence(self, tags: list[str]) -> list[str]:
        if not self.bio_repair:
            return tags
        repaired = []
        for tag, before in zip(tags, ["O", *tags], strict=False):
            orphan = tag.startswith("I-") and before[1:] != tag[1:]
            repaired.append("B" + tag[1:] if orphan else tag)
            self.repaired += orphan
        return repaired

    def log(self, path: str | Path) -> None:
        for old, new in self.renamed.items():
            if old in self.seen:
                logger.info("%s: type %s is read as %s", path, old, new)
        if self.bio_repair:
            logger.info("%s: %d I- tags that continue nothing became B-", path, self.repaired)


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
    return {_JSON_KEYS.get(key, key): value for key, value in record.items()}


def _strings(record: dict, key: str, where: str) -> list[str]:
    values = record[key]
    if not isinstance(values, list) or not all(isinstance(value, str) for value in values):
        raise BadInput(f"{where}: {key} must be a list of strings, found {json.dumps(values)[:60]}")
    return values


def _split_text(record: dict, where: str, tags: _TagReader) -> tuple[list[str], list[str], int]:
    """Words of `text`, their tags by `spans`, and how many spans were widened to whole words."""
    text = record["text"]
    if not isinstance(text, str) or not isinstance(record["spans"], list):
        raise BadInput(f"{where}: text must be a string and spans a list")
    words = split_tweet(text)
    word_spans, widened = [], 0
    for span in record["spans"]:
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
    if isinstance(span, dict):
        span = [span.get("start"), span.get("end"), span.get("label", span.get("type"))]
    if isinstance(span, list) and len(span) == 3 and type(span[0]) is type(span[1]) is int and isinstance(span[2], str):
        return tuple(span)
    raise BadInput(
        f"{where}: a span is {{start, end, label}} with numbers of characters, found {json.dumps(span)[:60]}"
    )


def _check_annotations(row: dict, length: int, where: str) -> None:
    """Noun phrases and objects must lie inside the tweet and the boxes must be boxes; absent fields become null."""
    if not isinstance(row.get("image"), str | None):
        raise BadInput(f"{where}: image must be a path or null, found {json.dumps(row['image'])[:60]}")
    try:
        for phrase in row.get("noun_phrases") or []:
            _check_phrase(phrase, length)
        for scene_object in row.get("objects") or []:
            x0, y0, x1, y1 = scene_object["box"]
            if not (math.isfinite(x0 + y0 + x1 + y1) and x0 < x1 and y0 < y1):
                raise ValueError(f"box {scene_object['box']} is not [x0, y0, x1, y1] with x0 < x1 and y0 < y1")
            for field in ("score", "query", "phrase"):
                scene_object.setdefault(field, None)
            if scene_object["phrase"] is not None:
                _check_phrase(scene_object["phrase"], length)
    except (KeyError, TypeError, ValueError, AttributeError) as error:
        reason = f"{error} is missing" if isinstance(error, KeyError) else error
        raise BadInput(f"{where}: noun_phrases or objects: {reason}") from error


def _check_phrase(phrase: dict, length: int) -> None:
    if not 0 <= phrase["start"] < phrase["end"] <= length:
        raise ValueError(f"phrase {phrase['start']}..{phrase['end']} doesn't lie inside the {length} words")
