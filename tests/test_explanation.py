"""Explanations: the entities of the pipeline, the gates of the model, and what really happens without a node."""

import copy
import html.parser
import io

import pytest
import torch
from conftest import LABELS

from modeling_umgf import MultimodalNerPipeline, UmgfProcessor
from modeling_umgf.explanation import explain

pytest_plugins = ("tiny_taggers",)

WORDS = ["Anna", "meets", "Bob", "Marley", "in", "<b>Rome</b>"]


@pytest.fixture
def objects() -> list[dict]:
    return [
        {"box": [0, 0, 60, 40], "phrase": None, "query": "person", "score": 0.8},
        {"box": [1, 2, 30, 30], "phrase": {"start": 0, "end": 1}, "query": "Anna"},
        {"box": [10, 10, 50, 30], "phrase": {"start": 5, "end": 6}, "query": "<script>"},
    ]


def probability(model, logits, labels, entity) -> float:
    (first, after), mask = entity["words"], torch.ones(1, logits.shape[1], dtype=torch.bool)
    span = [0], [first], [after], [labels[first:after].tolist()]
    return model.label_decoder.span_probability(logits, mask, *span).item()


def test_the_entities_are_those_of_the_pipeline(tagger, picture, objects):
    explanation = explain(tagger.model, tagger.processor, words=WORDS, image=picture, objects=objects)
    expected = tagger({"words": WORDS, "image": picture, "objects": objects})
    assert len(expected) > 1
    for entity, found in zip(explanation.entities, expected, strict=True):
        for name in ("entity_group", "word", "start", "end"):
            assert entity[name] == found[name]
        assert entity["score"] == pytest.approx(found["score"], abs=1e-4)
        weights = {tuple(explanation.nodes[link["node"]]["box"]): link["weight"] for link in entity["nodes"]}
        linked = {tuple(node["box"]): node["weight"] for node in found["objects"]}
        assert {box: weight for box, weight in weights.items() if weight > 0} == pytest.approx(linked)
        assert [abs(link["change"]) for link in entity["nodes"]] == sorted(
            (abs(link["change"]) for link in entity["nodes"]), reverse=True
        )


def test_without_a_node_means_as_if_it_had_not_been_found(tagger, picture, objects):
    model, processor = tagger.model, tagger.processor
    explanation = explain(model, processor, words=WORDS, image=picture, objects=objects)
    labels = model(**processor(words=WORDS, images=picture, objects=objects)).predictions[0]
    changes = []
    for number in range(3):
        kept = objects[:number] + objects[number + 1 :]
        with torch.no_grad():
            outputs = model(**processor(words=WORDS, images=picture, objects=kept))
        for entity in explanation.entities:
            expected = probability(model, outputs.logits, labels, entity)
            (link,) = [link for link in entity["nodes"] if link["node"] == number]
            assert link["score_without"] == pytest.approx(expected, abs=1e-4)
            assert link["change"] == pytest.approx(expected - entity["score"], abs=1e-4)
            changes.append(abs(link["change"]))
    assert max(changes) > 0.01  # the pictures have a say


def test_a_node_that_is_not_there_changes_nothing(tagger, objects):
    explanation = explain(tagger.model, tagger.processor, words=WORDS, objects=objects)  # no picture: no objects
    assert explanation.nodes == [] and explanation.entities
    assert all(entity["nodes"] == [] for entity in explanation.entities)


def test_neighbours_of_rgcn_are_explained(rgcn_tagger, picture):
    processor = rgcn_tagger.processor
    model = copy.deepcopy(rgcn_tagger.model)
    model.classifier.weight.data /= 8  # so that no label is certain whatever the neighbours say
    post = {"text": "Anna meets Rome", "image": picture, "object_labels": ["person"]}
    explanation = explain(model, processor, **post)
    kinds = [node["kind"] for node in explanation.nodes]
    assert kinds[0] == "objects" and {"inter", "intra"} < set(kinds)
    entities = MultimodalNerPipeline(model, processor=processor, device="cpu")(post)
    taken = {(node["relation"], node["id"]): node["weight"] for node in entities[0]["neighbors"]}
    for link in explanation.entities[0]["nodes"]:
        node = explanation.nodes[link["node"]]
        expected = None if node["kind"] == "objects" else pytest.approx(taken[node["kind"], node["id"]])
        assert link["weight"] == expected

    (prepared,) = processor.prepare([post])
    without_best = {"neighbors_inter": prepared.nodes["inter"][1:], "neighbors_intra": prepared.nodes["intra"]}
    labels = model(**processor(**post)).predictions[0]
    outputs = model(**processor(**post, **without_best))
    changes = []
    for entity in explanation.entities:
        expected = probability(model, outputs.logits, labels, entity)
        (link,) = [link for link in entity["nodes"] if link["node"] == kinds.index("inter")]
        assert link["score_without"] == pytest.approx(expected, abs=1e-5)
        assert link["change"] == pytest.approx(expected - entity["score"], abs=1e-5)
        changes.append(abs(link["change"]))
    assert max(changes) > 0.005  # neighbours have a say
    assert explanation.to_image().width == 800 and "picture that matches the text" in explanation.to_html()


def test_the_picture_shows_the_boxes_and_survives_png(tagger, picture, objects):
    explanation = explain(tagger.model, tagger.processor, words=WORDS, image=picture, objects=objects)
    image = explanation.to_image()
    buffer = io.BytesIO()
    image.save(buffer, "PNG")
    without = explain(tagger.model, tagger.processor, words=WORDS)
    assert image.height > without.to_image().height + 400  # the picture, 800 pixels wide, and the lines of its nodes
    assert len(image.crop((0, image.height - 60, 400, image.height)).getcolors(maxcolors=10_000)) > 1  # text below


class Page(html.parser.HTMLParser):
    """Checks that tags close, and collects what the page would load and what it shows."""

    def __init__(self, page: str):
        super().__init__()
        self.open, self.loads, self.shown, self.tags = [], [], "", set()
        self.feed(page)

    def handle_starttag(self, tag, attributes):
        self.tags.add(tag)
        self.loads += [value for name, value in attributes if name in ("src", "href")]
        if tag not in ("meta", "rect", "image"):
            self.open.append(tag)

    def handle_startendtag(self, tag, attributes):
        self.handle_starttag(tag, attributes)
        if tag not in ("meta", "rect", "image"):
            self.open.pop()

    def handle_endtag(self, tag):
        assert self.open.pop() == tag

    def handle_data(self, data):
        self.shown += data


def test_the_page_is_self_contained_and_escapes_everything(tagger, picture, objects):
    explanation = explain(tagger.model, tagger.processor, words=WORDS, image=picture, objects=objects)
    page = Page(explanation.to_html())
    assert page.open == []
    assert page.loads and all(source.startswith("data:") for source in page.loads)
    assert not {"script", "link", "b"} & page.tags
    assert "<script>" in page.shown and "<b>Rome</b>" in page.shown
    for entity in explanation.entities:
        assert f"{entity['score']:.3f}" in page.shown


def test_grids_pieces_and_empty_posts_can_be_explained(random_model, tagger, picture):
    processor = tagger.processor
    grid = UmgfProcessor(processor.image_processor, processor.tokenizer, visual_nodes="grid")
    explanation = explain(random_model(visual_nodes="grid"), grid, "Anna", picture)
    assert [node["query"] for node in explanation.nodes] == ["the whole picture"]
    released = random_model(labels=[*LABELS, "X", "[CLS]", "[SEP]"], subword_labels="x", inter_edges="full")
    assert explain(released, processor, "Anna meets http://t.co/x", picture).nodes
    assert explain(released, processor, "", picture).entities == []
    with pytest.raises(ValueError, match="no text"):
        explain(released, processor, image=picture)
