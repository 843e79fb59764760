"""Grounding: the rules for choosing objects, and the same code path with every zero-shot detector class."""

import io
import string
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from PIL import Image
from tiny_detectors import KINDS, save_detector
from transformers.utils import ModelOutput

from modeling_umgf.grounding import GENERAL_QUERIES, Detection, Grounder, overlap, query_text
from modeling_umgf.pictures import UnreadablePicture

POSTS = [
    "RT @bob : Will Smith in New York".split(),
    "a red square".split(),
    "Dr . Seuss met J . K . Rowling , Anna and Tom in #TheHague".split(),
]


def picture(width: int, height: int, seed: int = 0) -> Image.Image:
    return Image.fromarray(np.random.default_rng(seed).integers(0, 256, (height, width, 3), dtype=np.uint8))


PICTURES = [picture(100, 60), picture(40, 90, seed=1), picture(64, 64, seed=2)]


class ScriptedGrounder(Grounder):
    """Finds what the test says: query -> boxes with scores."""

    def __init__(self, script: dict, **settings):
        model = torch.nn.Module()
        model.config = SimpleNamespace()
        super().__init__(model, None, noun_phrases="capitals", **settings)
        self.script = script
        self.asked: list[list[str]] = []

    def detect(self, pictures, queries):
        self.asked += [list(own) for own in queries]
        return [self.answer(own) for own in queries]

    def answer(self, queries):
        found = []
        for query in queries:
            boxes = self.script.get(query, [])
            found += [Detection(box, score, query) for box, score in boxes if score >= self.min_score]
        return found


def objects_of(sentence: str, script: dict, **settings) -> list[dict]:
    return ScriptedGrounder(script, **settings)([sentence.split()], [picture(100, 100)])[0]


def test_every_phrase_and_the_four_general_words_are_asked_once():
    grounder = ScriptedGrounder({})
    grounder(["Anna met Bob near Anna in #NewYork".split()], [picture(9, 9)])
    assert grounder.asked == [["misc", "person", "location", "organization", "Anna", "Bob", "New York"]]


def test_objects_of_phrases_know_their_words_and_general_ones_come_first():
    script = {"Anna": [([0, 0, 10, 10], 0.9)], "person": [([50, 50, 60, 60], 0.6)], "misc": [([0, 50, 9, 60], 0.7)]}
    assert objects_of("we saw Anna", script) == [
        {"box": [0, 50, 9, 60], "score": 0.7, "query": "misc", "phrase": None},
        {"box": [50, 50, 60, 60], "score": 0.6, "query": "person", "phrase": None},
        {"box": [0, 0, 10, 10], "score": 0.9, "query": "Anna", "phrase": {"start": 2, "end": 3}},
    ]


def test_a_phrase_that_stands_twice_gets_its_object_twice():
    found = objects_of("Anna and Anna", {"Anna": [([0, 0, 10, 10], 0.9)]})
    assert [node["phrase"] for node in found] == [{"start": 0, "end": 1}, {"start": 2, "end": 3}]


def test_scores_below_the_threshold_are_no_objects():
    script = {"Anna": [([0, 0, 10, 10], 0.5)], "person": [([50, 50, 60, 60], 0.49)]}
    assert [node["query"] for node in objects_of("Anna", script)] == ["Anna"]
    assert len(objects_of("Anna", script, min_score=0.4)) == 2


def test_of_overlapping_boxes_of_one_query_the_better_stays():
    boxes = [([0, 0, 10, 10], 0.7), ([0, 0, 10, 9], 0.8), ([0, 5, 10, 15], 0.6), ([30, 30, 40, 40], 0.55)]
    found = objects_of("Anna", {"Anna": boxes}, boxes_per_query=9)
    assert [node["score"] for node in found] == [0.8, 0.6, 0.55]
    assert [node["score"] for node in objects_of("Anna", {"Anna": boxes})] == [0.8]


def test_a_phrase_box_that_is_a_general_box_is_merged_into_it():
    script = {"person": [([0, 0, 100, 100], 0.6)], "Anna": [([0, 0, 100, 95], 0.9)], "Bob": [([0, 0, 100, 90], 0.9)]}
    assert overlap([0, 0, 100, 100], [0, 0, 100, 90]) == 0.9
    assert [node["query"] for node in objects_of("Anna Bob", {})] == []
    assert [node["query"] for node in objects_of("Anna and Bob", script)] == ["person", "Bob"]


def test_the_same_box_of_two_general_words_is_one_object():
    script = {"person": [([0, 0, 50, 50], 0.6)], "misc": [([0, 0, 50, 49], 0.8)]}
    assert [node["query"] for node in objects_of("hi", script)] == ["misc"]


def test_the_same_box_of_two_phrases_stays_two_objects_because_their_words_differ():
    script = {"Anna": [([0, 0, 50, 50], 0.6)], "Bob": [([0, 0, 50, 50], 0.8)]}
    assert [node["query"] for node in objects_of("Anna and Bob", script)] == ["Bob", "Anna"]


def test_the_limit_takes_general_objects_first_then_the_best():
    names = [f"Name{i}" for i in range(12)]
    script = {name: [([i * 8, 0, i * 8 + 4, 4], 0.6 + i / 100)] for i, name in enumerate(names)}
    for i, query in enumerate(GENERAL_QUERIES):
        script[query] = [([i * 20, 50, i * 20 + 9, 60], 0.51)]
    found = objects_of(" and ".join(names), script)
    assert [node["query"] for node in found] == list(GENERAL_QUERIES) + names[:3:-1]
    assert len(objects_of(" and ".join(names), script, max_objects=5)) == 5


def test_no_picture_no_objects_and_no_forward_pass():
    grounder = ScriptedGrounder({"misc": [([0, 0, 9, 9], 0.9)]})
    assert grounder([["Anna"], []], [None, None]) == [[], []]
    assert grounder.asked == []
    assert grounder([], []) == []


def test_a_post_without_words_is_still_asked_for_the_general_ones():
    assert len(ScriptedGrounder({"misc": [([0, 0, 9, 9], 0.9)]})([[]], [picture(9, 9)])[0]) == 1


def test_lists_of_different_length_are_refused():
    with pytest.raises(ValueError, match="1 posts, 2 pictures"):
        ScriptedGrounder({})([["a"]], [None, None])


def test_given_noun_phrases_are_used():
    grounder = ScriptedGrounder({"red square": [([0, 0, 9, 9], 0.9)]})
    found = grounder([["a", "red", "square"]], [picture(9, 9)], noun_phrases=[[{"start": 1, "end": 3}]])
    assert found[0][0]["phrase"] == {"start": 1, "end": 3}


@pytest.mark.parametrize(
    ("words", "query"),
    [
        (["#TheHungerGames"], "The Hunger Games"),
        (["McCain"], "McCain"),
        (["Dr", ".", "Seuss"], "Dr Seuss"),
        (["O", "'", "Neal"], "O ' Neal"),
        (["low-cost", "snake_case"], "low-cost snake case"),
        (["#", "…", "❤"], ""),
    ],
)
def test_query_text(words, query):
    assert query_text(words) == query


def test_overlap():
    assert overlap([0, 0, 2, 2], [1, 1, 3, 3]) == pytest.approx(1 / 7)
    assert overlap([0, 0, 2, 2], [2, 0, 3, 2]) == 0
    assert overlap([0, 0, 2, 2], [0, 0, 2, 2]) == 1


@pytest.fixture(scope="module", params=KINDS)
def detector(request, tmp_path_factory):
    """A real detector class with random weights, loaded from its folder as a user would."""
    folder = save_detector(request.param, tmp_path_factory.mktemp(request.param))
    return Grounder.from_pretrained(folder, device="cpu", min_score=0.0, noun_phrases="capitals")


def test_real_detectors_give_objects_in_the_documented_form(detector):
    found = detector(POSTS, [PICTURES[0], None, PICTURES[2]])
    assert found[1] == [] and len(found[0]) > 1 and len(found[2]) > 1
    for words, image, own in zip(POSTS, [PICTURES[0], None, PICTURES[2]], found, strict=True):
        kinds = [node["phrase"] is not None for node in own]
        assert kinds == sorted(kinds) and len(own) <= 12
        for node in own:
            assert set(node) == {"box", "score", "query", "phrase"}
            x0, y0, x1, y1 = node["box"]
            assert 0 <= x0 < x1 <= image.width and 0 <= y0 < y1 <= image.height
            assert isinstance(node["score"], float) and 0 <= node["score"] <= 1
            if node["phrase"] is None:
                assert node["query"] in GENERAL_QUERIES
            else:
                assert node["query"] == query_text(words[node["phrase"]["start"] : node["phrase"]["end"]])


def test_real_detectors_find_the_same_in_a_batch_as_alone(detector):
    """Grounding DINO's group norms see the padding of a batch, so that its pictures must be of one size for this."""
    pictures = [picture(80, 80, seed) for seed in range(3)] if detector.prompt_length else PICTURES
    together = detector(POSTS, pictures)
    for own, words, image in zip(together, POSTS, pictures, strict=True):
        alone = detector([words], [image])[0]
        assert [(node["query"], node["phrase"]) for node in own] == [(node["query"], node["phrase"]) for node in alone]
        torch.testing.assert_close([node["box"] for node in own], [node["box"] for node in alone], rtol=0, atol=0.01)
        torch.testing.assert_close(
            [node["score"] for node in own], [node["score"] for node in alone], rtol=0, atol=1e-4
        )


def test_real_detectors_one_at_a_time_do_not_depend_on_the_others(detector, monkeypatch):
    monkeypatch.setattr(detector, "batch_size", 1)
    together = detector(POSTS, PICTURES)
    assert together == [detector([words], [image])[0] for words, image in zip(POSTS, PICTURES, strict=True)]


def test_real_detectors_obey_the_threshold(detector, monkeypatch):
    everything = detector.detect(PICTURES[:1], [["person", "Will Smith"]])[0]
    middle = sorted(found.score for found in everything)[len(everything) // 2]
    monkeypatch.setattr(detector, "min_score", middle)
    assert detector.detect(PICTURES[:1], [["person", "Will Smith"]])[0] == [
        found for found in everything if found.score >= middle
    ]
    monkeypatch.setattr(detector, "min_score", 1.01)
    assert detector(POSTS, PICTURES) == [[], [], []]


def test_real_detectors_agree_with_their_own_post_processing(detector):
    queries = [["misc", "person", "will smith"], ["misc", "person", "red square"]]
    ours = detector.detect(PICTURES[:2], queries)
    inputs = detector._encode(PICTURES[:2], queries)
    with torch.no_grad():
        outputs = detector.model(**inputs)
    sizes = [(image.height, image.width) for image in PICTURES[:2]]
    more = {"input_ids": inputs["input_ids"], "text_threshold": 2.0} if detector.prompt_length else {}
    theirs = detector.processor.post_process_grounded_object_detection(
        outputs, threshold=0.0, target_sizes=sizes, **more
    )
    compared = 0
    for own, reference, asked, image in zip(ours, theirs, queries, PICTURES, strict=False):
        limits = torch.tensor(image.size * 2)
        boxes = reference["boxes"].clamp(min=0).minimum(limits)
        for i, box in enumerate(boxes):
            if (box[2:] - box[:2] < 1).any():
                continue
            same_box = [found for found in own if torch.allclose(torch.tensor(found.box), box, atol=1e-3)]
            assert same_box
            if not detector.prompt_length:  # Grounding DINO's own labels are strings put together from pieces
                label = asked[int(reference["labels"][i])]
                assert any(
                    found.query == label and found.score == pytest.approx(reference["scores"][i].item(), abs=1e-4)
                    for found in same_box
                )
            compared += 1
    assert compared >= 2


def test_real_detectors_look_once_at_each_batch(detector, monkeypatch):
    calls = []
    forward = detector.model.forward
    monkeypatch.setattr(detector.model, "forward", lambda **inputs: calls.append(1) or forward(**inputs))
    monkeypatch.setattr(detector, "batch_size", 2)
    detector([["Anna"], ["Anna", "and", "Bob"], ["hi"]], PICTURES)
    assert len(calls) == 2


def test_real_detectors_work_in_bfloat16(detector):
    folder = detector.model.config._name_or_path
    settings = {"min_score": 0.0, "noun_phrases": "capitals"}
    half = Grounder.from_pretrained(folder, device="cpu", dtype=torch.bfloat16, **settings)
    assert half.model.dtype == torch.bfloat16
    found = half(POSTS, PICTURES)
    assert sum(map(len, found)) > 0
    for node in sum(found, []):
        assert np.isfinite(node["box"]).all() and np.isfinite(node["score"])


def test_boxes_belong_to_the_upright_picture(detector):
    exif = Image.Exif()
    exif[0x0112] = 6
    buffer = io.BytesIO()
    PICTURES[0].transpose(Image.Transpose.ROTATE_90).save(buffer, "PNG", exif=exif)
    assert detector([POSTS[0]], [buffer.getvalue()]) == detector([POSTS[0]], [PICTURES[0]])


def test_an_unreadable_picture_is_named(detector):
    with pytest.raises(UnreadablePicture, match="1.jpg: no such file"):
        detector([["Anna"]], ["1.jpg"])


@pytest.fixture(scope="module", params=["grounding-dino", "mm-grounding-dino"])
def prompted(request, tmp_path_factory):
    folder = save_detector(request.param, tmp_path_factory.mktemp(request.param))
    return Grounder.from_pretrained(folder, device="cpu", min_score=0.5, noun_phrases="capitals")


def test_each_piece_of_a_prompt_counts_for_its_own_query(prompted, monkeypatch):
    """Scripted logits: one box for each query, which fits one piece of that query, and boxes for the pieces around."""
    queries = [["misc", "person", "will smith", "x y z"], ["misc", "person"]]
    pieces = prompted._encode(PICTURES[:2], queries)["input_ids"]
    tokens = [prompted.processor.tokenizer.convert_ids_to_tokens(row) for row in pieces]
    assert tokens[0] == "[CLS] misc . person . will smith . x y z . [SEP]".split()
    wanted = [1, 3, 6, 9, 0, 2, len(tokens[0]) - 1]  # the last three are [CLS], a full stop and [SEP]
    logits = torch.full((2, len(wanted), 64), -20.0)
    logits[:, :, len(tokens[0]) :] = -torch.inf
    for box, piece in enumerate(wanted):
        logits[0, box, piece] = 5.0
    logits[1, 0, 3] = 5.0
    boxes = torch.tensor([[0.5, 0.5, (box + 1) / 10, 0.5] for box in range(len(wanted))]).expand(2, -1, -1)
    monkeypatch.setattr(
        prompted.model, "forward", lambda **inputs: ModelOutput(logits=logits, pred_boxes=boxes.clone())
    )
    found = prompted.detect(PICTURES[:2], queries)
    assert [(item.query, round(item.box[2] - item.box[0])) for item in found[0]] == [
        ("misc", 10),
        ("person", 20),
        ("will smith", 30),
        ("x y z", 40),
    ]
    assert [item.query for item in found[1]] == ["person"]


def test_more_phrases_than_fit_into_a_prompt_are_asked_in_several(prompted, monkeypatch):
    words = []
    for letter in string.ascii_lowercase:
        words += [f"Q{letter}{letter}", "and"]
    prompts = []
    encode = prompted._encode
    monkeypatch.setattr(
        prompted, "_encode", lambda pictures, queries: prompts.extend(queries) or encode(pictures, queries)
    )
    prompted([words], [PICTURES[0]])
    assert len(prompts) == 2
    assert sum(prompts, []) == list(GENERAL_QUERIES) + words[::2]
    lengths = [encode([PICTURES[0]], [prompt])["input_ids"].shape[1] for prompt in prompts]
    assert max(lengths) <= prompted.prompt_length == 64
