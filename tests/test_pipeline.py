"""The pipeline: exact offsets and probabilities, one result whatever the batch, an error in the place of a bad post."""

import base64
import copy
import itertools
import json
import logging
import os
import subprocess
import sys

import datasets
import numpy as np
import pytest
import torch
from conftest import LABELS, assert_same, tiny_config, tiny_labels
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from transformers import pipeline

from modeling_umgf import (
    MultimodalNerPipeline,
    TextOnlyConfig,
    TextOnlyForTokenClassification,
    TextOnlyProcessor,
    UmgfProcessor,
)
from modeling_umgf.labels import entity_spans
from modeling_umgf.text_splitting import split_post

PIECES = [
    *(
        "Anna",
        "Rome",
        "meets",
        "café",
        "cafe\u0301",
        "#JustinBieber",
        "@user",
        "http://t.co/aB3",
        "&amp;",
        "&lt;3",
        "…",
    ),
    *("😍", "👩‍👩‍👧", "👍🏽", "🇮🇹", "1️⃣", "\ufe0f", "\u200d", "\u200b", "\u200e", "\xad", "\x92", "\ufffd"),
    *("שלום", "مرحبا", "日本語", "กรุงเทพ", "i̇", "ß", "ﬁ", "𝓐", "Dr.", "T-Mobile", "$1.8", ":-)", "'s", "\x00"),
    *(" ", " ", " ", "\u00a0", "\t", "\n", "\u2028", "\u3000"),
]
TEXTS = st.lists(st.sampled_from(PIECES) | st.text(max_size=3), max_size=12).map("".join)


pytest_plugins = ("tiny_taggers",)


@pytest.fixture(scope="module")
def posts(picture) -> list[dict]:
    """70 posts of all sizes, with and without pictures and objects."""
    random = np.random.default_rng(1)
    posts = []
    for i in range(70):
        words = [
            str(word) for word in random.choice([piece for piece in PIECES if piece.strip()], random.integers(1, 12))
        ]
        phrase = {"start": 0, "end": len(words) // 2 + 1}
        objects = [{"box": [0, 0, 30, 30], "phrase": phrase, "query": "q"}, {"box": [5, 5, 60, 40], "phrase": None}]
        posts.append(
            {"words": words} | [{}, {"image": picture}, {"image": picture, "objects": objects[: i % 5]}][i % 3]
        )
    return posts


def without_scores(results: list) -> list:
    return [[(row["entity_group"], row["start"], row["end"]) for row in result] for result in results]


@settings(max_examples=150, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(text=TEXTS)
def test_offsets_are_exact_in_any_text(tagger, text):
    words = tagger(text, aggregation_strategy="none")
    entities = tagger(text)
    for row in [*words, *entities]:
        assert text[row["start"] : row["end"]] == row["word"] != ""
    assert "".join(row["word"] for row in words) == "".join(word for word, _, _ in split_post(text))
    ends = [0, *(row["end"] for row in words)]
    assert all(row["start"] >= end for row, end in zip(words, ends, strict=False))


@settings(max_examples=30, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(text=TEXTS)
def test_text_and_its_words_give_the_same_entities(tagger, picture, text):
    words = [word for word, _, _ in split_post(text)]
    of_text, of_words = tagger([{"text": text, "image": picture}, {"words": words, "image": picture}])
    joined = " ".join(words)
    assert all(joined[row["start"] : row["end"]] == row["word"] for row in of_words)
    assert [row["entity_group"] for row in of_text] == [row["entity_group"] for row in of_words]
    assert [row["score"] for row in of_text] == pytest.approx([row["score"] for row in of_words], abs=1e-4)


@pytest.mark.parametrize("system", ["tagger", "rgcn_tagger"])
def test_the_batch_size_changes_nothing(request, system, posts):
    tagger = request.getfixturevalue(system)
    one_by_one = [tagger(post) for post in posts]
    assert {len(result) for result in one_by_one} > {1, 2, 3}  # the test would prove little otherwise
    for options in ({"batch_size": 7}, {"batch_size": 64}, {"batch_size": 8, "num_workers": 2}):
        together = tagger(posts, **options)
        assert without_scores(together) == without_scores(one_by_one)
        for alone, batched in zip(itertools.chain(*one_by_one), itertools.chain(*together), strict=True):
            assert batched["score"] == pytest.approx(alone["score"], abs=1e-4)
            for name, key in (("objects", "box"), ("neighbors", "id")):
                weights = {str(node[key]): node["weight"] for node in alone.get(name, [])}
                assert {str(node[key]): node["weight"] for node in batched.get(name, [])} == pytest.approx(weights)


def test_posts_of_like_size_share_a_batch(tagger, posts, monkeypatch):
    shapes, forward = [], tagger.model.forward
    monkeypatch.setattr(
        tagger.model, "forward", lambda **batch: shapes.append(batch["word_starts"].shape) or forward(**batch)
    )
    tagger([{"words": ["a"] * (1 + i % 2 * 9)} for i in range(8)], batch_size=4)
    assert shapes == [(4, 1), (4, 10)]


def test_a_post_on_which_the_model_fails_has_the_error_and_the_others_of_its_batch_their_result(tagger):
    width = tagger.model.config.object_feature_size
    posts = [{"text": f"Anna {i}", "object_features": [[0.5] * (3 if i == 5 else width)]} for i in range(9)]
    results = tagger(posts, batch_size=4)
    assert "Nodes have 3 features" in results.pop(5)["error"]
    expected = [tagger(post) for post in posts]
    assert list(expected.pop(5)) == ["error"]
    for result, own in zip(results, expected, strict=True):
        assert [(e["word"], e["start"], e["entity_group"]) for e in result] == [
            (e["word"], e["start"], e["entity_group"]) for e in own
        ]


def test_bad_posts_give_errors_in_their_place(tagger, picture, tmp_path):
    (tmp_path / "text.jpg").write_text("no picture")
    bad = {
        "no text": [{}, {"image": picture}, {"text": None}],
        '"text" must be a string, not int': [{"text": 5}],
        '"words" must be a list of strings': [{"words": ["a", None]}, {"words": "one string"}, {"words": 5}],
        'both "text" and "words"': [{"text": "a", "words": ["a"]}],
        "not NoneType": [None],
        "missing.jpg: no such file": [{"text": "a", "image": "missing.jpg"}],
        "text.jpg: not a picture": [{"text": "a", "image": tmp_path / "text.jpg"}],
        "only fetched where that is asked for": [{"text": "a", "image": "http://localhost:9/x.jpg"}],
        "lone surrogate": ["half \ud83d"],
        "holds nothing of a picture": [{"text": "a", "image": picture, "objects": [{"box": [99, 99, 100, 100]}]}],
        'objects must be a list of {"box": …}': [{"text": "a", "image": picture, "objects": [{}]}],
    }
    cases = [(message, post) for message, posts in bad.items() for post in posts]
    inputs = [one for _, post in cases for one in (post, "Anna meets Bob")]
    good = tagger("Anna meets Bob")
    for batch_size in (1, 5):
        results = tagger(inputs, batch_size=batch_size)
        assert_same(results[1::2], [good] * len(cases))
        for (message, _), result in zip(cases, results[::2], strict=True):
            assert list(result) == ["error"] and message in result["error"]
    assert tagger({"text": None}) == tagger([{"text": None}])[0]  # one post alone is not treated otherwise


def test_posts_without_words_have_no_entities(tagger, picture):
    assert tagger(["", " \u00a0\n", {"words": [], "image": picture}, {"text": "", "image": None}]) == [[], [], [], []]
    assert tagger([]) == []


def test_every_kind_of_input_collection(tagger, picture):
    texts = ["Anna meets Bob", "", "Rome"]
    expected = [tagger(text) for text in texts]

    class TorchDataset(torch.utils.data.Dataset):
        def __len__(self):
            return len(texts)

        def __getitem__(self, i):
            return texts[i]

    assert_same(tagger(texts), expected)
    assert_same(list(tagger(text for text in texts)), expected)
    assert_same(list(tagger(tuple(texts))), expected)
    assert_same(list(tagger(TorchDataset(), batch_size=2)), expected)
    assert_same(list(tagger(datasets.Dataset.from_dict({"text": texts, "id": [1, 2, 3]}))), expected)
    rows = datasets.Dataset.from_dict(
        {"tokens": [["Anna", "meets"]], "ner_tags": [[1, 0]], "image": [picture], "objects": [None]},
        features=datasets.Features(
            {
                "tokens": datasets.List(datasets.Value("string")),
                "ner_tags": datasets.List(datasets.ClassLabel(names=LABELS)),
                "image": datasets.Image(),
                "objects": datasets.List({"box": datasets.List(datasets.Value("float32"), length=4)}),
            }
        ),
    )
    assert_same(list(tagger(rows)), [tagger({"words": ["Anna", "meets"], "image": picture})])


def test_a_generator_is_read_as_it_is_needed(tagger):
    read = []
    results = tagger((read.append(i) or f"Anna {i}" for i in range(1000)), batch_size=2)
    assert len(read) <= 1  # transformers looks at the first
    next(iter(results))
    assert len(read) <= 9
    one_at_a_time = tagger(read.append(i) or f"Anna {i}" for i in range(1000))
    read.clear()
    next(iter(one_at_a_time))
    assert len(read) <= 1


def test_keys_that_are_not_read_are_named_once(tagger, picture, caplog, monkeypatch):
    logger = logging.getLogger("modeling_umgf.pipeline_multimodal_ner")
    monkeypatch.setattr(logger, "propagate", True)
    monkeypatch.setattr(logging.getLogger("transformers"), "propagate", True)
    tagger([{"text": "Anna", "id": 1, "ner_tags": [0], "img": picture}] * 3)
    assert [record.message for record in caplog.records] == ["Posts have keys that are not read: img."]


def test_every_kind_of_picture_gives_the_same_result(tagger, picture, tmp_path):
    picture.save(tmp_path / "p.png")
    expected = tagger({"text": "Anna meets Bob", "image": picture})
    assert expected != tagger("Anna meets Bob")  # the picture has a say
    path = tmp_path / "p.png"
    inline = "data:image/png;base64," + base64.b64encode(path.read_bytes()).decode()
    for image in (path, str(path), path.read_bytes(), np.asarray(picture), inline, {"bytes": path.read_bytes()}):
        assert_same(tagger({"text": "Anna meets Bob", "image": image}), expected)


@pytest.mark.parametrize("settings", [{}, {"constrain_bio": True}])
def test_scores_are_the_probabilities_of_all_label_sequences(random_model, tagger, picture, settings):
    model, processor = random_model(**settings), tagger.processor
    tagger = MultimodalNerPipeline(model, processor=processor, device="cpu")
    words = ["Anna", "meets", "Bob", "in"]
    with torch.no_grad():
        logits = model(**processor(words=words, images=picture)).logits[0]
    crf = model.label_decoder
    probability = {}
    for path in itertools.product(range(len(LABELS)), repeat=len(words)):
        score = crf.start_transitions[path[0]] + crf.end_transitions[path[-1]]
        score += sum(logits[i, label] for i, label in enumerate(path))
        score += sum(crf.transitions[a, b] for a, b in itertools.pairwise(path))
        probability[path] = score.double().exp().item()
    total = sum(probability.values())
    rows = tagger({"words": words, "image": picture}, aggregation_strategy="none")
    labels = [LABELS.index(row["entity"]) for row in rows]
    for i, row in enumerate(rows):
        marginal = sum(p for path, p in probability.items() if path[i] == labels[i]) / total
        assert row["score"] == pytest.approx(marginal, abs=1e-5)
    entities = tagger({"words": words, "image": picture})
    assert entities
    starts = np.cumsum([0, *(len(word) + 1 for word in words)]).tolist()
    for entity in entities:
        span = slice(starts.index(entity["start"]), starts.index(entity["end"] + 1))
        joint = sum(p for path, p in probability.items() if list(path[span]) == labels[span]) / total
        assert entity["score"] == pytest.approx(joint, abs=1e-5)


def test_entities_are_those_of_the_word_labels(tagger, posts):
    of_words = tagger(posts, aggregation_strategy="none", batch_size=8)
    for words, entities in zip(of_words, tagger(posts, batch_size=8), strict=True):
        spans = entity_spans([word["entity"] for word in words])
        expected = [(words[first]["start"], words[after - 1]["end"], kind) for first, after, kind in spans]
        assert [(entity["start"], entity["end"], entity["entity_group"]) for entity in entities] == expected


def test_objects_are_those_linked_to_the_entity_most_important_first(tagger, picture):
    words = ["Anna", "meets", "Bob", "Marley", "in", "Rome"]
    general, phrase = {"box": [0, 0, 60, 40], "query": "person"}, {"box": [1, 2, 30, 30], "query": "Rome"}
    post = {"words": words, "image": picture}
    post["objects"] = [phrase | {"phrase": {"start": 5, "end": 6}, "score": 0.9}, general | {"phrase": None}]
    entities = tagger(post)
    joined = " ".join(words)
    assert len(entities) > 1
    for entity in entities:
        boxes = [node["box"] for node in entity["objects"]]
        linked = entity["end"] == len(joined)
        assert sorted(boxes) == [general["box"], phrase["box"]][: 1 + linked]
        weights = [node["weight"] for node in entity["objects"]]
        assert weights == sorted(weights, reverse=True) and all(0 < weight < 1 for weight in weights)
        assert all("query" in node for node in entity["objects"])


def test_the_whole_picture_is_the_one_object_of_a_grid(random_model, tagger, picture):
    processor = tagger.processor
    grid = UmgfProcessor(processor.image_processor, processor.tokenizer, visual_nodes="grid")
    tagger = MultimodalNerPipeline(random_model(visual_nodes="grid"), processor=grid, device="cpu")
    entities = tagger({"text": "Anna meets Bob", "image": picture})
    assert entities
    assert all([node["box"] for node in entity["objects"]] == [[0, 0, 60, 40]] for entity in entities)


def test_a_text_only_system_names_no_objects_and_opens_no_picture(random_model, tagger):
    config = TextOnlyConfig(**tiny_labels(), text_config=tiny_config().text_config.to_dict())
    model = random_model(config, TextOnlyForTokenClassification)
    processor = TextOnlyProcessor(tagger.processor.tokenizer)
    tagger = MultimodalNerPipeline(model, processor=processor, device="cpu")
    with_picture, without = tagger([{"text": "Anna meets Bob", "image": "no/such/picture.jpg"}, "Anna meets Bob"])
    assert_same(with_picture, without)
    assert without and all("objects" not in entity for entity in without)


def test_posts_with_features_and_posts_with_pictures_share_a_batch(tagger, picture):
    featured = {"text": "Anna meets Bob", "object_features": np.ones((2, 16), dtype=np.float32)}
    posts = [featured, {"text": "Anna meets Bob", "image": picture}]
    assert_same(tagger(posts, batch_size=2), [tagger(post) for post in posts])
    entities = tagger(featured)
    assert entities and all(len(entity["objects"]) == 2 for entity in entities)
    assert all(set(entity["objects"][0]) == {"weight"} for entity in entities)


def test_models_that_label_pieces_give_words(random_model, tagger, picture):
    labels, processor = [*LABELS, "X", "[CLS]", "[SEP]"], tagger.processor
    model = random_model(labels=labels, subword_labels="x", inter_edges="full")
    tagger = MultimodalNerPipeline(model, processor=processor, device="cpu")
    posts = [{"words": ["Anna", "http://t.co/x", "Bob"], "image": picture}, {"words": ["Rome"]}]
    with torch.no_grad():
        predictions = model(**processor(words=posts[0]["words"], images=picture)).predictions[0].tolist()
    names = [labels[i] if labels[i] in LABELS else "O" for i in predictions]
    for batch_size in (1, 2):
        words = tagger(posts, batch_size=batch_size, aggregation_strategy="none")
        assert [row["entity"] for row in words[0]] == names
        assert [row["word"] for row in words[0]] == posts[0]["words"]
        entities = tagger(posts, batch_size=batch_size)
        assert all(0 < row["score"] <= 1 for row in itertools.chain(*entities))
        assert all(len(row["objects"]) == 1 for row in entities[0]) and all(row["objects"] == [] for row in entities[1])


def test_words_beyond_the_limit_are_outside_and_improbable(tagger):
    words = tagger({"words": ["Anna"] * 100}, aggregation_strategy="none", truncation="warn")
    assert len(words) == 100
    assert (words[-1]["entity"], words[-1]["score"]) == ("O", 0.0)
    assert words[0]["score"] > 0


def test_half_precision_models_tag(random_model, tagger, picture):
    tagger = MultimodalNerPipeline(random_model().to(torch.bfloat16), processor=tagger.processor, device="cpu")
    assert tagger({"text": "Anna meets Bob", "image": picture}, aggregation_strategy="none")[0]["score"] > 0


def test_strategies_that_make_no_sense_are_refused(tagger):
    with pytest.raises(ValueError, match="use 'simple' .* or 'none'"):
        tagger("Anna", aggregation_strategy="max")


def test_scores_are_plain_numbers_up_to_one(tagger, posts):
    results = tagger(posts, batch_size=8)
    assert json.loads(json.dumps(results)) == results
    assert all(0 < entity["score"] <= 1 for entity in itertools.chain(*results))
    sure = copy.deepcopy(tagger.model)
    sure.classifier.weight.data *= 20  # rounding alone decides how far a probability is from 1
    sure = MultimodalNerPipeline(sure, processor=tagger.processor, device="cpu")
    for strategy in ("simple", "none"):
        scores = [row["score"] for row in itertools.chain(*sure(posts, batch_size=8, aggregation_strategy=strategy))]
        assert 0.999 < max(scores) <= 1


def test_a_grounder_finds_the_objects(tagger, picture):
    def grounder(words, pictures):
        return [[{"box": [0, 0, 9, 9], "phrase": None, "query": own[0]}] for own in words]

    found = tagger({"text": "Anna meets Bob", "image": picture}, grounder=grounder)
    assert found and all(row["objects"][0]["query"] == "Anna" for row in found)
    failing = tagger({"text": "Anna", "image": picture}, grounder=lambda words, pictures: 1 / 0)
    assert failing == {"error": "ZeroDivisionError: division by zero"}


def test_rgcn_names_the_neighbours_that_were_used(rgcn_tagger, picture):
    post = {"text": "Anna meets Rome", "image": picture, "object_labels": ["person", "dog"]}
    entities = rgcn_tagger(post)
    assert entities
    index = rgcn_tagger.processor.relation_index
    expected = {("inter", node["id"]) for node in index.neighbors_for_text(["Anna meets Rome"], 3)[0]}
    expected |= {("intra", node["id"]) for node in index.neighbors_for_picture([["person", "dog"]], 3)[0]}
    assert expected > {("inter", "anna"), ("inter", "rome"), ("intra", "anna"), ("intra", "bob")}
    for entity in entities:
        assert entity["objects"] == []
        assert {(node["relation"], node["id"]) for node in entity["neighbors"]} == expected
        weights = [node["weight"] for node in entity["neighbors"]]
        assert weights == sorted(weights, reverse=True) and weights[-1] > 0
    assert rgcn_tagger(post | {"id": "anna"}) != entities  # a picture of the index is not its own neighbour
    given = {"neighbors_inter": [{"id": "cat", "score": 0.5}, {"id": "bob", "score": 0.0}], "neighbors_intra": []}
    assert [node["id"] for node in rgcn_tagger(post | given)[0]["neighbors"]] == ["cat"]
    named = rgcn_tagger(post | {"object_labels": None}, labeler=lambda pictures: [["cat"]] * len(pictures))
    assert ("intra", "cat") in {(node["relation"], node["id"]) for node in named[0]["neighbors"]}
    unknown = rgcn_tagger({"text": "Anna", "neighbors_inter": [{"id": "nobody", "score": 1.0}]})
    assert "'nobody' is not in the relation index" in unknown["error"]


WITHOUT_THE_PACKAGE = """
import json, sys
class NotInstalled:
    def find_spec(self, name, path=None, target=None):
        if name.split(".")[0] == "modeling_umgf":
            raise ModuleNotFoundError(name)
sys.meta_path.insert(0, NotInstalled())
from transformers import pipeline
results = []
picture, *folders = sys.argv[1:]
post = {"text": "Anna meets Bob in Rome", "image": picture}
for folder in folders:
    tagger = pipeline("multimodal-ner", model=folder, trust_remote_code=True)
    tagger.save_pretrained(folder + "-copy")
    copy = pipeline(model=folder + "-copy", trust_remote_code=True)
    results.append([tagger(post), copy(post)])
print(json.dumps(results))
"""


def test_a_saved_folder_tags_with_and_without_the_package(tagger, rgcn_tagger, picture, tmp_path):
    picture.save(tmp_path / "p.png")
    expected = []
    for name, own in (("umgf", tagger), ("rgcn", rgcn_tagger)):
        own.save_pretrained(tmp_path / name)
        here = pipeline("multimodal-ner", model=str(tmp_path / name))
        assert type(here) is MultimodalNerPipeline
        result = here({"text": "Anna meets Bob in Rome", "image": tmp_path / "p.png"})
        assert result
        expected.append([result, result])
    environment = {key: value for key, value in os.environ.items() if key != "PYTHONPATH"}
    there = subprocess.run(
        [
            sys.executable,
            "-I",
            "-c",
            WITHOUT_THE_PACKAGE,
            *(str(tmp_path / name) for name in ("p.png", "umgf", "rgcn")),
        ],
        cwd=tmp_path,
        env=environment | {"HF_HOME": str(tmp_path / "cache")},
        capture_output=True,
        text=True,
    )
    assert there.returncode == 0, there.stderr
    assert_same(json.loads(there.stdout), expected)
