"""BIO tags and entity spans: everything the package knows about the tagging scheme, read as seqeval reads it."""

from collections.abc import Iterable, Mapping, Sequence

import torch

Span = tuple[int, int, str]  # first word, word after the last, type


def bio_labels(types: Iterable[str]) -> list[str]:
    """Label list of a set of entity types.

    Args:
        types: entity types in the wanted order, without duplicates.

    Returns:
        `["O", "B-<first type>", "I-<first type>", "B-<second type>", ...]`.
    """
    labels = ["O"]
    for entity_type in types:
        labels += [f"B-{entity_type}", f"I-{entity_type}"]
    return labels


def entity_types(labels: Iterable[str]) -> list[str]:
    """Types that occur in BIO labels, in the order of their first label; labels outside BIO are passed over."""
    return list(dict.fromkeys(label[2:] for label in labels if _is_bio(label)))


def entity_spans(tags: Sequence[str | None], strict: bool = False) -> list[Span]:
    """Entities of one sentence.

    Args:
        tags: one BIO tag per word; anything else (X, [CLS], None for "no prediction", ...) counts as O.
        strict: an I- that does not continue an entity of its type is ignored (IOB2) instead of opening one (conlleval,
            the default of seqeval).

    Returns:
        Half-open word spans (start, end, type) from left to right.
    """
    spans = []
    start = None  # of the entity that is open
    open_type = None
    for i, tag in enumerate(tags):
        entity_type = tag[2:] if _is_bio(tag) else None
        if entity_type is not None and entity_type == open_type and tag[0] == "I":
            continue
        if open_type is not None:
            spans.append((start, i, open_type))
        is_orphan = entity_type is not None and tag[0] == "I"
        start = i
        open_type = None if is_orphan and strict else entity_type
    if open_type is not None:
        spans.append((start, len(tags), open_type))
    return spans


def spans_to_tags(spans: Iterable[Span], length: int) -> list[str]:
    """BIO tags of a sentence, the inverse of `entity_spans`.

    Args:
        spans: half-open word spans (start, end, type) in any order, not overlapping.
        length: number of words of the sentence.

    Returns:
        One tag per word.

    Raises:
        ValueError: a span is empty, lies outside the sentence or overlaps another one.
    """
    tags = ["O"] * length
    for start, end, entity_type in spans:
        if not 0 <= start < end <= length:
            raise ValueError(f"The {entity_type} span {start}..{end} does not fit into a sentence of {length} words.")
        if tags[start:end] != ["O"] * (end - start):
            raise ValueError(f"The {entity_type} span {start}..{end} overlaps another entity.")
        tags[start:end] = [f"B-{entity_type}"] + [f"I-{entity_type}"] * (end - start - 1)
    return tags


def labels_by_id(id2label: Mapping[int, str]) -> list[str]:
    """The labels in the order of their ids 0..L-1."""
    return [id2label[i] for i in range(len(id2label))]


def bio_transition_penalty(id2label: Mapping[int, str]) -> tuple[torch.Tensor, torch.Tensor]:
    """Scores that forbid illegal BIO when added to a CRF's transitions: an I- may only follow B- or I- of its type.

    Args:
        id2label: names of the label ids 0..L-1.

    Returns:
        [L] for the first word and [L, L] (from row to column); 0 = allowed, -inf = forbidden.
    """
    labels = labels_by_id(id2label)
    type_of = [label[2:] if _is_bio(label) else None for label in labels]
    first = torch.zeros(len(labels))
    transitions = torch.zeros(len(labels), len(labels))
    for column, label in enumerate(labels):
        if _is_bio(label) and label.startswith("I"):
            first[column] = float("-inf")
            for row, type_before in enumerate(type_of):
                if type_before != type_of[column]:
                    transitions[row, column] = float("-inf")
    return first, transitions


def _is_bio(label: object) -> bool:
    return isinstance(label, str) and label[:2] in ("B-", "I-") and len(label) > 2
