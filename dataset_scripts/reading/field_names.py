"""The names that others give to the fields of a post."""

from collections.abc import Mapping
from typing import Any

from .bad_input import BadInput

OURS = ("id", "tokens", "tags", "text", "spans", "image")
"""Fields that may have other names; `--columns` names them."""

_USUAL_NAMES = {
    "words": "tokens",
    "ner_tags": "tags",
    "labels": "tags",
    "ner": "tags",
    "sentence": "text",
    "tweet": "text",
    "entities": "spans",
}
_TAGS_OR_SPANS = ("labels", "label", "ner")  # doccano and others keep spans under the names of tags
_PARTS_OF_SPANS = {
    "start": ("start", "start_offset"),
    "end": ("end", "end_offset"),
    "label": ("label", "type", "entity_group", "entity_type", "labels"),
}


def field_of(name: str, columns: Mapping[str, str]) -> str:
    """The field that a name stands for; the name itself where it stands for none, or the field has another name.

    Args:
        name: of a key or column.
        columns: names that were given by hand, {field: name}.
    """
    for field, given in columns.items():
        if given == name:
            return field
    field = _USUAL_NAMES.get(name, name)
    return name if field in columns else field


def with_usual_names(record: Mapping[str, Any], columns: Mapping[str, str], where: str) -> tuple[dict, dict]:
    """Sort the fields of a record by what they are.

    Args:
        record: a post as others wrote it.
        columns: as for `field_of`.
        where: its place.

    Returns:
        The fields of a post by our names, as far as they are not null, and all other keys of the record.

    Raises:
        BadInput: A field is given under two names, or a column that was named is not there.
    """
    if unknown := set(columns) - set(OURS):
        raise BadInput(f"--columns names {', '.join(OURS)}, not {', '.join(sorted(unknown))}")
    for field, name in columns.items():
        if name not in record and field not in ("id", "image"):
            raise BadInput(f"{where}: has no {name!r}, which was named for {field}; it has {', '.join(record)}")
    known = {}
    others = {}
    name_of = {}
    for name, value in record.items():
        field = field_of(name, columns)
        if name in _TAGS_OR_SPANS and name not in columns.values() and _holds_spans(value):
            field = "spans"
        if field in columns and columns[field] != name:
            others[name] = value
        elif field in OURS:
            if field in known:
                raise BadInput(
                    f"{where}: {field} are given under two names, {name_of[field]} and {name}; say which: "
                    f"--columns {field}={name}"
                )
            if value is not None or field == "image":  # null: no picture, and none is looked for
                known[field] = value
                name_of[field] = name
        else:
            others[name] = value
    return known, others


def span_parts(span: dict | list, where: str) -> tuple[int, int, str]:
    """Start, end and type of a span, given as a mapping or as a list of the three."""
    fields = span
    if isinstance(span, dict):
        fields = []
        for names in _PARTS_OF_SPANS.values():
            fields.append(next((span[name] for name in names if span.get(name) is not None), None))
    if isinstance(fields, list | tuple) and len(fields) == 3:
        start, end, label = fields
        if isinstance(label, list) and len(label) == 1:
            label = label[0]
        if [type(start), type(end), type(label)] == [int, int, str] and label:
            return start, end, label
    raise BadInput(f"{where}: a span needs start and end (characters or words) and label, found {str(span)[:60]}")


def _holds_spans(value: Any) -> bool:
    return isinstance(value, list) and bool(value) and all(isinstance(one, list | dict) for one in value)
