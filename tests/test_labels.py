"""BIO tags and spans."""

import random
from pathlib import Path

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from seqeval.metrics.sequence_labeling import get_entities
from seqeval.scheme import IOB2, Entities

from modeling_umgf.labels import bio_labels, bio_transition_penalty, entity_spans, entity_types, spans_to_tags

TAGS = ["O", "B-PER", "I-PER", "B-LOC", "I-LOC"]


def spans_by_hand(tags: list[str], strict: bool) -> list[tuple[int, int, str]]:
    """Read entities word by word, without seqeval."""
    spans = []
    current = None
    for index, tag in enumerate([*tags, "O"]):
        continues = current is not None and tag == f"I-{current[1]}"
        if current is not None and not continues:
            spans.append((current[0], index, current[1]))
            current = None
        if not continues and (tag[0] == "B" or (tag[0] == "I" and not strict)):
            current = (index, tag[2:])
    return spans


def test_label_list_has_o_first_and_beginning_before_inside() -> None:
    assert bio_labels(["PER", "LOC"]) == TAGS
    assert len(bio_labels(["PER", "LOC", "ORG", "MISC"])) == 9
    assert entity_types(["X", "O", "I-LOC", "B-PER", "B-LOC", "[CLS]"]) == ["LOC", "PER"]


@pytest.mark.parametrize(
    ("tags", "lenient", "strict"),
    [
        ("", [], []),
        ("O O", [], []),
        ("B-PER I-PER", [(0, 2, "PER")], [(0, 2, "PER")]),
        ("O B-PER", [(1, 2, "PER")], [(1, 2, "PER")]),
        ("B-PER B-PER", [(0, 1, "PER"), (1, 2, "PER")], [(0, 1, "PER"), (1, 2, "PER")]),
        ("O I-PER I-PER O", [(1, 3, "PER")], []),
        ("I-PER B-PER", [(0, 1, "PER"), (1, 2, "PER")], [(1, 2, "PER")]),
        ("B-PER I-LOC", [(0, 1, "PER"), (1, 2, "LOC")], [(0, 1, "PER")]),
        ("B-PER I-LOC I-PER", [(0, 1, "PER"), (1, 2, "LOC"), (2, 3, "PER")], [(0, 1, "PER")]),
        ("B-PER X I-PER", [(0, 1, "PER"), (2, 3, "PER")], [(0, 1, "PER")]),
        ("[CLS] B-PER PAD Sport B I-", [(1, 2, "PER")], [(1, 2, "PER")]),
        ("B-work-of-art I-work-of-art I-art", [(0, 2, "work-of-art"), (2, 3, "art")], [(0, 2, "work-of-art")]),
    ],
)
def test_an_inside_tag_without_beginning_opens_an_entity_only_in_the_lenient_reading(
    tags: str, lenient: list, strict: list
) -> None:
    assert entity_spans(tags.split()) == lenient
    assert entity_spans(tags.split(), strict=True) == strict


def test_a_missing_prediction_is_no_entity() -> None:
    assert entity_spans(["B-PER", None, "I-PER"], strict=True) == [(0, 1, "PER")]
    assert entity_spans([-100, "B-PER"]) == [(1, 2, "PER")]


@settings(deadline=None)
@given(st.lists(st.sampled_from(TAGS)))
def test_readings_are_those_of_seqeval_and_of_the_definition(tags: list[str]) -> None:
    assert entity_spans(tags) == spans_by_hand(tags, strict=False)
    assert entity_spans(tags) == [(start, last + 1, name) for name, start, last in get_entities(tags)]
    assert entity_spans(tags, strict=True) == spans_by_hand(tags, strict=True)
    strict_seqeval = Entities([tags], IOB2).entities[0]
    assert entity_spans(tags, strict=True) == [(entity.start, entity.end, entity.tag) for entity in strict_seqeval]


@settings(deadline=None)
@given(st.lists(st.sampled_from(TAGS)))
def test_tags_of_spans_read_back_as_these_spans_in_both_readings(tags: list[str]) -> None:
    spans = entity_spans(tags)
    shuffled = random.Random(0).sample(spans, len(spans))
    repaired = spans_to_tags(shuffled, len(tags))
    assert entity_spans(repaired) == entity_spans(repaired, strict=True) == spans


@pytest.mark.parametrize(
    ("spans", "message"),
    [
        ([(0, 4, "PER")], "does not fit into a sentence of 3 words"),
        ([(-1, 1, "PER")], "does not fit"),
        ([(1, 1, "PER")], "does not fit"),
        ([(0, 2, "PER"), (1, 3, "LOC")], "LOC span 1..3 overlaps"),
    ],
)
def test_impossible_spans_get_a_clear_error(spans: list, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        spans_to_tags(spans, 3)


def test_the_penalty_forbids_exactly_the_transitions_that_the_strict_reading_ignores() -> None:
    labels = ["X", *TAGS, "B-OTHER"]
    start, transitions = bio_transition_penalty(dict(enumerate(labels)))
    for to, label in enumerate(labels):
        is_orphan = label.startswith("I-")
        assert start[to].item() == (float("-inf") if is_orphan else 0)
        for before, previous in enumerate(labels):
            continues = is_orphan and previous[1:] == label[1:]
            assert transitions[before, to].item() == (float("-inf") if is_orphan and not continues else 0)
    assert start.dtype == transitions.dtype == torch.float32


DATA = Path(__file__).parents[1].parent / "shared" / "data"


@pytest.mark.skipif(not DATA.exists(), reason="needs the Twitter data")
@pytest.mark.parametrize(
    ("file", "lenient", "strict"),
    [
        ("twitter2015/train.txt", 6352, 6166),
        ("twitter2015/valid.txt", 1594, 1541),
        ("twitter2015/test.txt", 5207, 5072),
        ("twitter2017/train.txt", 6049, 6049),
        ("twitter2017/valid.txt", 1324, 1324),
        ("twitter2017/test.txt", 1351, 1351),
    ],
)
def test_entity_counts_of_the_twitter_data_are_the_known_ones(file: str, lenient: int, strict: int) -> None:
    sentences = []
    for post in (DATA / file).read_text(encoding="utf-8").split("IMGID:")[1:]:
        sentences.append([line.split("\t")[1] for line in post.split("\n") if "\t" in line])
    assert sum(len(entity_spans(tags)) for tags in sentences) == lenient
    assert sum(len(entity_spans(tags, strict=True)) for tags in sentences) == strict
