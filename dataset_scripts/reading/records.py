"""Posts as records, of JSON lines, CSV or a dataset: words and tags, or a text and spans."""

import json
import logging
import math
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from modeling_umgf.labels import spans_to_tags
from modeling_umgf.text_splitting import split_labels, split_post

from ..columns.contract import COLUMNS
from .bad_input import BadInput
from .field_names import span_parts, with_usual_names
from .tag_reader import IdRegister, TagReader
from .text_files import numbered_lines, read_text

logger = logging.getLogger(__name__)

OFFSETS = ("characters", "words")

FEATURES = ("object_features", "knowledge_features")

_TRUTH = {"true": True, "yes": True, "1": True, "false": False, "no": False, "0": False}

_KEPT = [name for name in COLUMNS if name not in ("id", "tokens", "ner_tags", "image")]  # as they are


def read_jsonl(path: str | Path, **settings: Any) -> list[dict]:
    """Read one JSON object per line, or one list of objects, as `read_records` describes it; `image` is a path.

    Args:
        path: the file, UTF-8.
        settings: as for `read_records`.

    Returns:
        One dict per post: `id`, `tokens`, `tags` (strings) and the optional columns it has.

    Raises:
        BadInput: A line doesn't follow this format; the message has its number.
    """
    is_list = read_text(path).lstrip().startswith("[")
    return read_records(_json_list(path) if is_list else read_json_lines(path), path, **settings)


def read_records(
    records: Iterable[tuple[str, dict]],
    source: str | Path,
    *,
    columns: Mapping[str, str] | None = None,
    offsets: str | None = None,
    unique_ids: bool = True,
    texts: Sequence[str] = (),
    **tag_settings: Any,
) -> list[dict]:
    """Check records with `tokens` and `tags`, or with `text` or `tokens` and `spans`.

    `spans` holds {"start", "end", "label"} or [start, end, label], half open. They count characters where there is a
    `text`, else words. A `text` without `tokens` is split by `modeling_umgf.text_splitting`; a span that cuts a word is
    widened to the whole word (counted and logged). The usual other names are understood: `words`; `ner_tags`, `labels`,
    `ner`; `sentence`, `tweet`; `entities`; in spans `type`, `entity_group`, `start_offset`, ... `id` (else
    `<source>-<n>`), `image` and the optional columns of a dataset are kept; other fields are left out (counted and
    logged).

    Args:
        records: (place for error messages, record).
        source: file or dataset the records come from.
        columns: names of fields that are called otherwise, {"tokens": "Wort", "tags": "Etikett"}.
        offsets: what spans count, "characters" or "words" (of a `text` alone: what stands between blanks).
        unique_ids: refuse an id that was used before.
        texts: further fields that are kept: strings, or lists of strings, which are joined by commas.
        tag_settings: `types`, `bio_repair` and `tag_names` of `TagReader`.

    Returns:
        One dict per post: `id`, `tokens`, `tags` (strings) and the kept fields it has.

    Raises:
        BadInput: A record is wrong; the message has its place.
    """
    if offsets not in (None, *OFFSETS):
        raise BadInput(f"spans count {' or '.join(OFFSETS)}, not {offsets!r}")
    tags = TagReader(**tag_settings)
    ids = IdRegister(unique_ids)
    rows = []
    left_out = Counter()
    widened = []
    widths = {name: {} for name in FEATURES}  # each with its first place
    for where, record in records:
        named = {name: record[name] for name in texts if name in record}
        post, others = with_usual_names({key: record[key] for key in record if key not in named}, columns or {}, where)
        if "tokens" in post and "tags" in post:
            words = _strings(post["tokens"], "tokens", where)
            checked = [tags.read(tag, where) for tag in _tags(post["tags"], where)]
            left_out.update({"spans"} & set(post))
        elif "spans" in post and ("tokens" in post or "text" in post):
            words, checked, cut_words = _tag_spans(post, offsets, where, tags)
            widened += [where] * cut_words
            left_out.update({"tags"} & set(post))
        else:
            found = ", ".join(name for name in record if record[name] is not None) or "nothing"
            raise BadInput(
                f"{where}: a post needs tokens and tags, or text and spans; found {found}; where they have other "
                "names, give these: --columns tokens=… tags=…"
            )
        if len(words) != len(checked):
            raise BadInput(f"{where}: {len(words)} words but {len(checked)} tags")
        if not words:
            raise BadInput(f"{where}: the post has no words")
        name = str(post.get("id", f"{Path(source).stem}-{len(rows)}"))
        ids.claim(name, where)
        kept = {key: others[key] for key in _KEPT if key in others}
        left_out.update(name for name in others if name not in kept)
        kept |= named
        for key in {"context", *named} & kept.keys():
            if isinstance(kept[key], list):
                kept[key] = ", ".join(_strings(kept[key], key, where))
        if isinstance(kept.get("object_labels"), str):
            kept["object_labels"] = split_labels(kept["object_labels"])
        if "image" in post:
            kept["image"] = post["image"]
        _check_annotations(kept, len(words), where, texts)
        for features, known in widths.items():
            if kept.get(features):
                known.setdefault(len(kept[features][0]), where)
            if len(known) > 1:
                found = " and ".join(f"{width} (first at {place})" for width, place in known.items())
                raise BadInput(f"{where}: {features} of two widths: {found}")
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


def read_json_lines(path: str | Path) -> Iterator[tuple[str, dict]]:
    """Yield the place ("file:line") and the object of each line that is not empty.

    Raises:
        BadInput: A line is no JSON object.
    """
    for number, line in numbered_lines(path):
        if line.strip():
            yield f"{path}:{number}", _json_object(line, f"{path}:{number}")


def _json_list(path: str | Path) -> Iterator[tuple[str, dict]]:
    try:
        records = json.loads(read_text(path))
    except (ValueError, RecursionError) as error:
        raise BadInput(f"{path}: begins as a JSON list, but is none ({error})") from error
    for number, record in enumerate(records, start=1):
        if not isinstance(record, dict):
            raise BadInput(f"{path}, post {number}: expected a JSON object {{...}}, found {str(record)[:40]!r}")
        yield f"{path}, post {number}", record


def _json_object(line: str, where: str) -> dict:
    try:
        record = json.loads(line)
    except json.JSONDecodeError as error:
        raise BadInput(f"{where}: not JSON ({error.msg} at character {error.colno})") from error
    except (ValueError, RecursionError) as error:
        raise BadInput(f"{where}: not JSON ({error})") from error
    if not isinstance(record, dict):
        raise BadInput(f"{where}: expected a JSON object {{...}}, found {line[:40]!r}")
    return record


def _strings(values: object, key: str, where: str) -> list[str]:
    if not isinstance(values, list) or not all(isinstance(value, str) for value in values):
        raise BadInput(f"{where}: {key} must be a list of strings, found {str(values)[:60]}")
    return values


def _tags(values: object, where: str) -> list[str | int]:
    if not isinstance(values, list) or not all(type(value) in (str, int) for value in values):
        raise BadInput(f"{where}: tags must be a list of strings or of numbers, found {str(values)[:60]}")
    return values


def _tag_spans(post: dict, offsets: str | None, where: str, tags: TagReader) -> tuple[list[str], list[str], int]:
    """Words of a post, their tags by its spans, and how many spans were widened to whole words."""
    if not isinstance(post.get("text", ""), str) or not isinstance(post["spans"], list):
        raise BadInput(f"{where}: text must be a string and spans a list")
    offsets = offsets or ("characters" if "text" in post else "words")
    places = _places(post, offsets, where)
    text = post.get("text", "")
    unit = f"text of {len(text)} characters" if offsets == "characters" else f"post of {len(places)} words"
    length = len(text) if offsets == "characters" else len(places)
    word_spans = []
    widened = 0
    for span in post["spans"]:
        start, end, entity_type = span_parts(span, where)
        if not 0 <= start < end <= length:
            raise BadInput(f"{where}: the span {start}..{end} doesn't lie inside the {unit}")
        first, after = start, end
        if offsets == "characters":
            inside = [i for i, (_, word_start, word_end) in enumerate(places) if word_start < end and start < word_end]
            if not inside:
                raise BadInput(f"{where}: the span {start}..{end} holds no word")
            first, after = inside[0], inside[-1] + 1
            widened += places[first][1] < start or end < places[after - 1][2]
        tag = tags.read(f"B-{entity_type}", where)
        word_spans.append((first, after, tag[2:]))
    words = [word for word, _, _ in places]
    try:
        return words, spans_to_tags(word_spans, len(words)), widened
    except ValueError as error:
        raise BadInput(f"{where}: two spans share a word ({error})") from error


def _places(post: dict, offsets: str, where: str) -> list[tuple[str, int, int]]:
    """(word, start, end) of the words of a post in its text; where spans count words, start and end are those."""
    if "tokens" not in post and offsets == "characters":
        return split_post(post["text"])
    words = _strings(post["tokens"], "tokens", where) if "tokens" in post else post["text"].split()
    if offsets == "words":
        return [(word, number, number + 1) for number, word in enumerate(words)]
    if "text" not in post:
        raise BadInput(f"{where}: spans that count characters need the text that they count in")
    places = []
    end = 0
    for word in words:
        start = post["text"].find(word, end)
        if start < 0:
            raise BadInput(f"{where}: the text doesn't hold the word {word!r} of tokens at its place")
        end = start + len(word)
        places.append((word, start, end))
    return places


def _check_annotations(row: dict, length: int, where: str, texts: Sequence[str]) -> None:
    """Noun phrases and objects must lie inside the post, boxes and features be numbers; what lacks becomes null."""
    for name in ("image", "caption", "context", *texts):
        if not isinstance(row.get(name), str | None):
            what = "a path" if name == "image" else "a string"
            raise BadInput(f"{where}: {name} must be {what} or null, found {str(row[name])[:60]}")
    _strings(row.get("object_labels") or [], "object_labels", where)
    for name in FEATURES:
        _check_features(row.get(name), name, where)
    if row.get("picture_adds") is not None:
        row["picture_adds"] = _truth(row["picture_adds"], "picture_adds", where)
    for name in ("neighbors_inter", "neighbors_intra"):
        _check_neighbors(row.get(name) or [], name, where)
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


def _truth(value: object, name: str, where: str) -> bool:
    """Whether a field says yes: in JSON true or false; a cell of CSV is a text."""
    text = str(value).strip().lower()
    if isinstance(value, bool | int | str) and text in _TRUTH:
        return _TRUTH[text]
    raise BadInput(f"{where}: {name} must be true, false or null, found {str(value)[:40]!r}")


def _check_neighbors(neighbors: object, name: str, where: str) -> None:
    """Neighbours must be pictures with their scores."""
    is_list = isinstance(neighbors, list) and all(isinstance(one, dict) for one in neighbors)
    if not is_list or not all(isinstance(one.get("id"), str) and _is_number(one.get("score")) for one in neighbors):
        raise BadInput(f'{where}: {name} must be a list of {{"id": "…", "score": 0.5}}, found {str(neighbors)[:60]}')


def _is_number(value: object) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value)


def _check_features(features: object, name: str, where: str) -> None:
    """Features must be rows of equally many numbers."""
    if features is None:
        return
    try:
        array = np.asarray(features, dtype=np.float32)
    except (TypeError, ValueError) as error:
        raise BadInput(f"{where}: {name} are not rows of numbers, all of one width") from error
    if array.size and (array.ndim != 2 or not np.isfinite(array).all()):
        raise BadInput(f"{where}: {name} must be rows of finite numbers, found shape {list(array.shape)}")


def _check_box(box: list[float]) -> None:
    x0, y0, x1, y1 = box
    if not (math.isfinite(x0 + y0 + x1 + y1) and x0 < x1 and y0 < y1):
        raise ValueError(f"box {box} is not [x0, y0, x1, y1] with x0 < x1 and y0 < y1")


def _check_phrase(phrase: dict, length: int) -> None:
    if not 0 <= phrase["start"] < phrase["end"] <= length:
        raise ValueError(f"phrase {phrase['start']}..{phrase['end']} doesn't lie inside the {length} words")
