"""Whatever comes in, out comes a right result or one sentence of a documented kind: properties, over generated input.

Each property is a function of generated values; `CASES` counts how often one was really tried.
"""

import csv
import io
import json
import math
import re
import tempfile
import time
from collections import Counter
from pathlib import Path

import numpy as np
import pytest
import torch
from conftest import LABELS
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from PIL import Image
from systems_under_test import SYSTEMS, make_model, make_processor

from benchmarks.record import write_reliability
from dataset_scripts.reading.bad_input import BadInput
from dataset_scripts.reading.conll import read_conll
from dataset_scripts.reading.published_formats import read_caption_file
from dataset_scripts.reading.splits import FILE_FORMATS, read_posts
from modeling_umgf import MultimodalNerPipeline
from modeling_umgf.conll import conll_block
from modeling_umgf.evaluation import evaluate_tags, fragment_f1
from modeling_umgf.labels import entity_spans, spans_to_tags
from modeling_umgf.pictures import UnreadablePicture, open_picture
from modeling_umgf.post_files import OUTPUT_FORMATS, PostFileError, Tagged
from modeling_umgf.post_files import read_posts as read_posts_to_tag
from modeling_umgf.processing_multimodal_ner import read_words
from modeling_umgf.text_splitting import split_post
from modeling_umgf.training import MultimodalNerTrainingArguments

pytestmark = [
    pytest.mark.filterwarnings("ignore"),
    pytest.mark.xdist_group("bad_input"),  # one process counts
]
SMALL = 10_000
"""Cases that the properties together try at least, in a run of all tests."""

CASES = Counter()
COLUMNS = {"text": "text", "image": "image", "id": "id"}

# ---------------------------------------------------------------------------------------------------------- strategies

PIECES = ["Anna", "Rome", " ", "\t", "\n", "\r", "\x00", "\u200d", "\u200f", "\u202e", "שלום", "مرحبا", "e\u0301\u0327"]
PIECES += [
    "👩‍👩‍👧",
    "\ufe0f",
    "\ud83d",
    "\udc00",
    "\ufeff",
    "\u2028",
    "\x85",
    "\u00a0",
    "ﷺ",
    "𝔄",
    "IMGID:1",
    "-DOCSTART-",
]
PIECES += ['"', "'", ",", "\\", "{", "[1]", "<b>", "#", "@x", "http://t.co/x", "B-PER", "O", "nan", "\U0010ffff", "­"]
any_text = st.one_of(
    st.text(st.characters(), max_size=30),
    st.lists(st.sampled_from(PIECES), max_size=8).map("".join),
    st.sampled_from(["", " ", "Anna meets Bob in Rome", "a" * 5000, "Anna " * 300]),
)
word = any_text.filter(bool)
whole_text = any_text.map(lambda text: text.encode("utf-8", "replace").decode())
number = st.one_of(st.integers(-(2**70), 2**70), st.floats(), st.sampled_from([0, 1, -1, math.nan, math.inf, 1e308]))
scalar = st.one_of(st.none(), st.booleans(), number, any_text)
anything = st.recursive(
    scalar, lambda own: st.lists(own, max_size=3) | st.dictionaries(any_text, own, max_size=3), max_leaves=6
)
tag = st.sampled_from(["O", "B-PER", "I-PER", "B-LOC", "I-LOC"])
edge = st.one_of(st.integers(-20, 80), st.floats(-1e3, 1e3), st.sampled_from([math.nan, math.inf, -math.inf, 1e300]))
box = st.one_of(st.lists(edge, min_size=4, max_size=4), st.sampled_from([[0, 0, 9, 9], [5, 5, 60, 40]]), anything)
phrase = st.one_of(st.none(), st.fixed_dictionaries({"start": st.integers(-2, 9), "end": st.integers(-2, 9)}), anything)
one_object = st.fixed_dictionaries({"box": box}, optional={"phrase": phrase, "score": scalar, "query": scalar})
objects = st.one_of(
    st.none(), st.lists(one_object | anything, max_size=3), st.just([{"box": [0, 0, 9, 9]}] * 500), anything
)
features = st.one_of(
    st.none(),
    st.integers(0, 3).map(lambda rows: np.ones((rows, 16)).tolist()),
    st.lists(st.lists(number, max_size=3), max_size=3),
    anything,
)
PICTURE = Image.fromarray(np.random.default_rng(0).integers(0, 256, (40, 60, 3), dtype=np.uint8))
picture = st.one_of(
    st.none(),
    st.just(PICTURE),
    st.binary(max_size=40),
    st.sampled_from([np.zeros((0, 3)), np.full((4, 4), np.nan), np.zeros((2, 2, 9)), np.zeros((5, 5, 3), np.uint8)]),
    st.sampled_from(
        [[], [PICTURE], [PICTURE, PICTURE], Image.new("RGB", (1, 1)), Image.new("1", (3, 1)), "missing.jpg"]
    ),
    anything,
)
neighbors = st.one_of(
    st.none(),
    st.lists(st.fixed_dictionaries({"id": st.sampled_from(["rome", "cat", "nobody"]), "score": number}), max_size=4),
    anything,
)
post = st.fixed_dictionaries(
    {},
    optional={
        "text": any_text | anything,
        "words": st.lists(any_text, max_size=6) | anything,
        "tokens": st.lists(any_text, max_size=3),
        "image": picture,
        "objects": objects,
        "object_features": features,
        "knowledge_features": features,
        "object_labels": st.lists(any_text, max_size=3) | anything,
        "neighbors_inter": neighbors,
        "neighbors_intra": neighbors,
        "picture_adds": scalar,
        "id": scalar,
    },
)
RIGHT = {"words": ["Anna", "meets", "Bob"], "image": PICTURE, "objects": [{"box": [0, 0, 9, 9]}], "picture_adds": True}
not_words = post.map(lambda own: {name: own[name] for name in own.keys() - {"text", "words", "tokens"}})
text_post = st.builds(lambda text, rest: rest | {"text": text}, any_text, not_words)
nearly_right = st.builds(
    lambda rest, wrong: RIGHT | {name: rest[name] for name in rest if name in wrong},
    not_words,
    st.sets(
        st.sampled_from(
            ["image", "objects", "object_features", "knowledge_features", "object_labels", "id"]
            + ["neighbors_inter", "neighbors_intra", "picture_adds"]
        ),
        min_size=1,
        max_size=2,
    ),
)

# ---------------------------------------------------------------------------------------------------- labels and words


def words_are_slices_of_their_text(text):
    end_before = 0
    for own, start, end in split_post(text):
        assert own == text[start:end] and own.strip() and start >= end_before
        end_before = end


def given_words_are_slices_of_their_text(words):
    try:
        text, places = read_words({"words": words})
    except ValueError as error:
        assert "lone surrogate" in str(error) and any("\ud800" <= letter <= "\udfff" for letter in "".join(words))
        return
    assert [own for own, _, _ in places] == words and all(text[start:end] == own for own, start, end in places)


def tags_and_spans_are_inverse(tags):
    spans = entity_spans(tags)
    legal = spans_to_tags(spans, len(tags))
    assert entity_spans(legal) == entity_spans(legal, strict=True) == spans
    if entity_spans(tags, strict=True) == spans:
        assert legal == [own if re.fullmatch("[BI]-.+", own) else "O" for own in tags]


def spans_that_do_not_fit_are_refused(spans, length):
    try:
        tags = spans_to_tags(spans, length)
    except ValueError as error:
        assert "does not fit into" in str(error) or "overlaps" in str(error)
        return
    assert entity_spans(tags) == sorted(spans) and len(tags) == length


def scores_are_numbers_between_0_and_100(gold, predicted):
    try:
        scores = evaluate_tags(gold, predicted, bootstrap_samples=3)
    except ValueError as error:
        assert len(gold) != len(predicted) or not gold or [*map(len, gold)] != [*map(len, predicted)], error
        return
    for name, score in scores.items():
        assert math.isfinite(score) and (0 <= score <= 100 or name.endswith("support"))
    assert evaluate_tags(gold, gold)["f1"] in (0, 100)
    fragment_f1(gold, predicted, [[1] * len(tags) for tags in gold])


# --------------------------------------------------------------------------------------------------------------- files

TEMPORARY = tempfile.TemporaryDirectory(prefix="bad_input-")  # removed when the interpreter ends
FOLDER = Path(TEMPORARY.name)


def write(name: str, content: bytes | str) -> Path:
    path = FOLDER / name
    path.write_bytes(content if isinstance(content, bytes) else content.encode("utf-8", "surrogatepass"))
    return path


def conll_is_read_as_it_was_written(posts):
    blocks = []
    expected = []
    for number, (words, tags) in enumerate(posts):
        words = [re.sub("[\t\n\r]", "_", own) or "_" for own in words]
        tags = (tags * len(words))[: len(words)]
        blocks.append(conll_block(number, words, tags))
        expected.append((str(number), words, tags))
    rows = read_conll(write("round.conll", "".join(blocks)))
    assert [(row["id"], row["tokens"], row["tags"]) for row in rows] == expected


def rows_fit(rows):
    assert rows
    for row in rows:
        assert row["tokens"] and len(row["tokens"]) == len(row["tags"])
        assert all(isinstance(own, str) for own in row["tokens"]) and isinstance(row["id"], str)
        assert all(re.fullmatch(r"O|[BI]-.+", own, re.DOTALL) for own in row["tags"])


def files_of_anything_are_read_or_refused(content, file_format):
    name = "posts.csv" if file_format == "csv" else "posts.txt"
    path = write(name, content)
    if file_format == "umgf":
        path = FOLDER / "umgf"
        path.mkdir(exist_ok=True)
        for part in ("s", "l", "p"):
            (path / f"0_{part}.txt").write_bytes(
                content if isinstance(content, bytes) else content.encode("utf-8", "replace")
            )
    try:
        rows_fit(read_posts(path, file_format))
    except BadInput as error:
        assert str(error) and "\n" not in str(error).strip() and len(str(error)) < 2000
    try:
        read_caption_file(path if path.is_file() else FOLDER / "umgf" / "0_s.txt")
    except BadInput:
        pass


def records_of_anything_are_read_or_refused(records):
    lines = "\n".join(json.dumps(record) for record in records)
    try:
        rows_fit(read_posts(write("records.jsonl", lines)))
    except BadInput as error:
        assert str(error)


def records_are_read_as_they_were_written(posts):
    records = [
        {"id": str(i), "tokens": words, "tags": (tags * len(words))[: len(words)]}
        for i, (words, tags) in enumerate(posts)
    ]
    path = write("round.jsonl", "\n".join(map(json.dumps, records)))
    rows = read_posts(path)
    assert [{name: row[name] for name in records[0]} for row in rows] == records


def spans_of_characters_are_read_as_they_were_written(text, cuts):
    places = split_post(text)
    spans = []
    for first, size in cuts:
        if places and first % len(places) >= (spans[-1][1] if spans else 0):
            first %= len(places)
            spans.append((first, min(first + size, len(places))))
    labelled = [{"start": places[a][1], "end": places[b - 1][2], "label": "PER"} for a, b in spans]
    path = write("spans.jsonl", json.dumps({"text": text, "spans": labelled}))
    try:
        rows = read_posts(path)
    except BadInput:
        assert not places
        return
    assert entity_spans(rows[0]["tags"]) == [(a, b, "PER") for a, b in spans]
    assert rows[0]["tokens"] == [own for own, _, _ in places]


def every_line_to_tag_becomes_a_post_or_an_error(lines):
    content = b"\n".join(lines)
    path = write("tag.jsonl", content)
    try:
        posts = list(read_posts_to_tag(path, COLUMNS))
    except PostFileError as error:
        assert "no column" in str(error)
        return
    assert len(posts) == sum(bool(line.strip().removeprefix(b"\xef\xbb\xbf").strip()) for line in content.split(b"\n"))
    for own in posts:
        assert "id" in own and ("error" in own or {"text", "image", "warning"} <= own.keys())


def csv_to_tag_is_read_as_it_was_written(texts):
    file = io.StringIO(newline="")
    rows = csv.writer(file)
    rows.writerow(["id", "text"])
    rows.writerows([[f"p{i}", text] for i, text in enumerate(texts)])
    posts = list(read_posts_to_tag(write("tag.csv", file.getvalue()), COLUMNS))
    assert [own["text"] for own in posts] == texts and [own["id"] for own in posts] == [
        f"p{i}" for i in range(len(texts))
    ]


def a_record_of_every_post_is_written_and_known_again(own, ending):
    """What the tag command writes of posts it cannot tag either."""
    output = OUTPUT_FORMATS[ending]
    given = {"id": own.get("id"), "image": None} | {"text": own["text"]}
    try:
        read_words(given)
        tagged = Tagged()
    except ValueError as error:
        tagged = Tagged(error=str(error))
    record = output.to_record(given, tagged)
    assert record.endswith(output.separator) and output.separator not in record[: -len(output.separator)]
    assert output.belongs(record, given)


def a_picture_is_opened_or_refused(source):
    try:
        opened = open_picture(source)
    except UnreadablePicture as error:
        assert error.reason
        return
    assert opened.mode == "RGB" and opened.width > 0


# ------------------------------------------------------------------------------------------ processors and pipelines

KEPT: dict[str, MultimodalNerPipeline] = {}


def tagger_of(model_type: str) -> MultimodalNerPipeline:
    if model_type not in KEPT:
        model, processor = make_model(model_type), make_processor(model_type)
        KEPT[model_type] = MultimodalNerPipeline(model, processor=processor, device="cpu")
    return KEPT[model_type]


def a_processor_makes_a_right_batch_or_says_what_is_wrong(model_type, own, labels):
    processor = tagger_of(model_type).processor
    try:
        prepared = processor.prepare([own])[0]
        batch = processor.batch([prepared], [labels])
    except (ValueError, UnreadablePicture) as error:
        assert str(error)
        return
    assert len(prepared.words) == len(labels) or not prepared.words
    for text, start, end in prepared.words:
        assert prepared.text[start:end] == text
    words = max(len(prepared.words), 1)
    assert batch["word_starts"].shape == batch["labels"].shape == (1, words)
    for name, tensor in batch.items():
        assert not tensor.is_floating_point() or torch.isfinite(tensor).all(), name
    if batch["labels"].max() >= len(LABELS):
        return
    try:
        loss = tagger_of(model_type).model(**batch).loss
    except ValueError as error:  # what only the model knows
        assert "this model reads" in str(error) or "positions of the text encoder" in str(error)
        return
    assert torch.isfinite(loss)


def a_pipeline_tags_a_post_or_says_why_not(model_type, own):
    [result] = tagger_of(model_type)([own])
    if isinstance(result, dict):
        assert not re.match(r"[A-Za-z.]*(Error|Exception|Warning)\b", result["error"]), result["error"]
        return
    text = read_words(own)[0] if not isinstance(own, str) else own
    end_before = 0
    for entity in result:
        assert text[entity["start"] : entity["end"]] == entity["word"] and entity["start"] >= end_before
        assert 0 <= entity["score"] <= 1
        end_before = entity["end"]


# ---------------------------------------------------------------------------------------------------------- properties

some_tags = st.lists(tag | st.sampled_from(["I-ORG", "X", "[CLS]", "B-", "", "B-a b"]), max_size=8)
sentences = st.lists(st.lists(tag | st.none(), max_size=4), max_size=3)
words_and_tags = st.lists(
    st.tuples(st.lists(whole_text.filter(bool), min_size=1, max_size=4), st.lists(tag, min_size=1, max_size=4)),
    min_size=1,
    max_size=3,
)
record = st.fixed_dictionaries(
    {},
    optional={
        "id": scalar,
        "tokens": st.lists(any_text, max_size=4) | anything,
        "words": anything,
        "tags": st.lists(tag, max_size=4) | anything,
        "text": any_text | anything,
        "spans": st.lists(
            st.tuples(st.integers(-3, 30), st.integers(-3, 30), st.sampled_from(["PER", "", 3])), max_size=3
        )
        | anything,
        "objects": objects,
        "object_features": features,
        "noun_phrases": st.lists(phrase, max_size=2) | anything,
        "caption": scalar,
        "object_labels": anything,
        "neighbors_inter": anything,
        "image": scalar,
    },
)
lines_of_files = st.one_of(
    st.binary(max_size=60),
    st.lists(
        st.sampled_from(
            [
                "IMGID:1",
                "Anna\tB-PER",
                "a\tb\tO",
                "",
                "\t",
                "O",
                "x.jpg :y",
                "id,tokens,tags",
                "word,tag",
                "a,O",
                "-DOCSTART- O",
                "x.jpg",
                "1.0",
                '{"a":1}',
                "\ud83d\tO",
            ]
        )
        | any_text,
        max_size=8,
    ).map("\n".join),
)
PROPERTIES = [
    (words_are_slices_of_their_text, 1500, {"text": any_text}),
    (given_words_are_slices_of_their_text, 500, {"words": st.lists(any_text, max_size=5)}),
    (tags_and_spans_are_inverse, 1500, {"tags": some_tags}),
    (
        spans_that_do_not_fit_are_refused,
        1000,
        {
            "spans": st.lists(
                st.tuples(st.integers(-2, 9), st.integers(-2, 9), st.sampled_from(["PER", "LOC"])), max_size=3
            ),
            "length": st.integers(0, 8),
        },
    ),
    (scores_are_numbers_between_0_and_100, 600, {"gold": sentences, "predicted": sentences}),
    (conll_is_read_as_it_was_written, 600, {"posts": words_and_tags}),
    (
        files_of_anything_are_read_or_refused,
        1500,
        {"content": lines_of_files, "file_format": st.sampled_from(FILE_FORMATS)},
    ),
    (records_of_anything_are_read_or_refused, 900, {"records": st.lists(record | anything, min_size=1, max_size=2)}),
    (records_are_read_as_they_were_written, 400, {"posts": words_and_tags}),
    (
        spans_of_characters_are_read_as_they_were_written,
        400,
        {"text": whole_text, "cuts": st.lists(st.tuples(st.integers(0, 9), st.integers(1, 3)), max_size=4)},
    ),
    (
        every_line_to_tag_becomes_a_post_or_an_error,
        500,
        {
            "lines": st.lists(
                st.binary(max_size=20)
                | record.map(lambda own: json.dumps(own).encode())
                | text_post.map(lambda own: json.dumps({"text": own["text"]}).encode()),
                max_size=4,
            )
        },
    ),
    (
        csv_to_tag_is_read_as_it_was_written,
        300,
        {"texts": st.lists(whole_text.map(lambda text: text.replace("\x00", "")), min_size=1, max_size=4)},
    ),
    (
        a_record_of_every_post_is_written_and_known_again,
        400,
        {"own": text_post, "ending": st.sampled_from([*OUTPUT_FORMATS])},
    ),
    (a_picture_is_opened_or_refused, 300, {"source": picture}),
    *[
        (
            lambda own, labels, model_type=model_type: a_processor_makes_a_right_batch_or_says_what_is_wrong(
                model_type, own, labels
            ),
            100,
            {
                "own": nearly_right | text_post | post,
                "labels": st.lists(st.integers(-1, 6), max_size=6) | st.just([0, 1, 2]),
            },
        )
        for model_type in SYSTEMS
    ],
    *[
        (
            lambda own, model_type=model_type: a_pipeline_tags_a_post_or_says_why_not(model_type, own),
            100,
            {"own": nearly_right | text_post | post | any_text | anything},
        )
        for model_type in SYSTEMS
    ],
]


def name_of(number: int) -> str:
    check, _, _ = PROPERTIES[number]
    if not check.__defaults__:
        return check.__name__
    is_pipeline = "labels" not in PROPERTIES[number][2]
    return f"{'pipeline' if is_pipeline else 'processor'}_{check.__defaults__[0]}"


def try_property(number: int, times: int) -> None:
    check, examples, strategies = PROPERTIES[number]
    counted = name_of(number)

    def one_case(**values):
        CASES[counted] += 1
        check(**values)

    one_case.__name__ = counted
    quiet = [
        HealthCheck.too_slow,
        HealthCheck.data_too_large,
        HealthCheck.filter_too_much,
        HealthCheck.large_base_example,
    ]
    limits = settings(
        max_examples=examples * times, deadline=None, suppress_health_check=quiet, database=None, derandomize=times == 1
    )
    limits(given(**strategies)(one_case))()


@pytest.mark.parametrize("number", range(len(PROPERTIES)), ids=name_of)
def test_it_holds_for_whatever_comes_in(number):
    try_property(number, times=1)


def test_enough_cases_were_tried():
    if len(CASES) < len(PROPERTIES):
        pytest.skip("only some of the properties were run")
    assert sum(CASES.values()) >= SMALL, CASES


@pytest.mark.soak
def test_many_more_cases_lose_nothing():
    CASES.clear()
    begin = time.monotonic()
    lost = {}
    for number in range(len(PROPERTIES)):
        try:
            try_property(number, times=10)
        except Exception as error:  # a property that does not hold; the others are tried, too
            lost[name_of(number)] = f"{type(error).__name__}: {str(error)[:300]}"
    tried = (
        "any Unicode, numbers, boxes, pictures and types given to readers, labels, scorer, processors and pipelines of "
        "all systems: a right result or one sentence"
    )
    cases = sum(CASES.values())
    measured = {"properties": len(PROPERTIES), "systems": len(SYSTEMS)}
    write_reliability("bad_input", tried, cases, len(lost), time.monotonic() - begin, measured, ("hypothesis",))
    assert not lost, json.dumps(lost, indent=2)


# ------------------------------------------------------------------------------------------------- what was found so


@pytest.mark.parametrize("content", [b"\xef\xbb\xbf", "\u00a0\n\u2003".encode(), b"\n \n"])
@pytest.mark.parametrize("file_format", ["csv", "jsonl", "conll"])
def test_a_file_of_nothing_but_blanks_is_empty(content, file_format):
    with pytest.raises(BadInput, match="the file is empty"):
        read_posts(write("blank.txt", content), file_format)


def test_messages_stay_readable_whatever_they_quote():
    with pytest.raises(BadInput) as caught:
        read_posts(write("long.txt", f"Anna\t{'x' * 9999}\n"), "conll")
    assert len(str(caught.value)) < 1000 and "tags are O, B-<type> and I-<type>" in str(caught.value)


def test_label_ids_below_0_are_refused_by_the_processor():
    with pytest.raises(ValueError, match=r"labels \[0, -1\]: give the ids of labels, from 0 on, or -100"):
        make_processor("text_only")(words=["Anna", "meets"], labels=[0, -1])
    assert make_processor("text_only")(words=["Anna", "meets"], labels=[0, -100])["labels"].tolist() == [[0, -100]]


@pytest.mark.parametrize("known", [True, 5, 0.5, [1.0, 2.0], "much"])
def test_knowledge_features_are_rows_of_numbers(known):
    [result] = tagger_of("iaik")([{"text": "Anna", "image": PICTURE, "knowledge_features": known}])
    assert "knowledge_features" in result["error"]
    [result] = tagger_of("iaik")([{"text": "Anna", "image": PICTURE, "knowledge_features": []}])
    assert isinstance(result, list)


@pytest.mark.parametrize("score", [1e300, float("nan"), float("-inf"), "high", [1.0, 2.0]])
def test_scores_of_neighbours_are_numbers(score):
    neighbors = [{"id": "anna", "score": 0.5}, {"id": "rome", "score": score}]
    [result] = tagger_of("rgcn")([{"text": "Anna", "image": PICTURE, "neighbors_inter": neighbors}])
    assert "scores of neighbours" in result["error"]


@pytest.mark.parametrize("labels", [[["person"]], [1], 5, {"person": 1}])
def test_object_labels_are_a_list_of_strings(labels):
    [result] = tagger_of("rgcn")([{"text": "Anna", "image": PICTURE, "object_labels": labels}])
    assert "object_labels must be a list of strings" in result["error"]


@pytest.mark.parametrize(
    "wrong",
    [
        {"lr_scheduler_kwargs": "no such"},
        {"label_names": ["no such"]},
        {"torch_compile_mode": "no such"},
        {"neftune_noise_alpha": -1.0},
    ],
)
def test_settings_that_would_only_fail_after_an_epoch_are_refused_at_once(wrong, tmp_path):
    with pytest.raises(ValueError, match=f"--{next(iter(wrong))}"):
        MultimodalNerTrainingArguments(str(tmp_path), use_cpu=True, **wrong)


def test_a_post_of_the_word_that_begins_documents_is_a_post_where_it_has_an_id():
    rows = read_conll(write("document.conll", "IMGID:1\n-DOCSTART-\tO\n\nIMGID:2\nAnna\tB-PER\n"))
    assert [row["tokens"] for row in rows] == [["-DOCSTART-"], ["Anna"]]


@pytest.mark.parametrize("ending", [*OUTPUT_FORMATS])
def test_a_record_is_known_again_whatever_the_id(ending):
    for own_id in (math.nan, math.inf, None, 1e400, [1], {"a": math.nan}, True):
        own = {"id": own_id, "text": "Anna", "image": None}
        assert OUTPUT_FORMATS[ending].belongs(OUTPUT_FORMATS[ending].to_record(own, Tagged()), own)
