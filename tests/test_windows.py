"""Posts longer than the text encoder reads: nothing of them is lost, and short ones are tagged as ever."""

import json

import pytest
import torch
from conftest import assert_same
from hypothesis import given, settings
from hypothesis import strategies as st
from systems_under_test import SYSTEMS, make_model, make_processor, picture, posts

from modeling_umgf import MultimodalNerPipeline
from modeling_umgf.__main__ import main
from modeling_umgf.decoding import decode, decode_windows, window_batches
from modeling_umgf.explanation import explain
from modeling_umgf.systems import systems
from modeling_umgf.text_splitting import split_post
from modeling_umgf.windows import plan_windows

pytestmark = pytest.mark.filterwarnings("ignore:The PyTorch API of nested tensors")

LIMIT = 64  # pieces, of the tiny tokenizer and text encoders
NAMES = "Anna meets Bob Marley in Rome the cat of Paris sleeps see".split()


def long_text(words: int) -> str:
    """Names, in an order without a period, and blanks of several kinds between them."""
    chosen = [NAMES[(i * i + i // 7) % len(NAMES)] for i in range(words)]
    return "".join(word + ("  " if i % 5 else " \n") for i, word in enumerate(chosen))


def make_tagger(model_type: str, **settings) -> MultimodalNerPipeline:
    return MultimodalNerPipeline(make_model(model_type, **settings), processor=make_processor(model_type), device="cpu")


def context(window, sizes: list[int], word: int) -> float:
    """Pieces from a word to the nearer end of a window; the ends of the post do not count."""
    left = sum(sizes[window.first : word]) if window.first else float("inf")
    right = sum(sizes[word + 1 : window.after]) if window.after < len(sizes) else float("inf")
    return min(left, right)


@settings(max_examples=500, deadline=None)
@given(st.lists(st.integers(1, 9), min_size=1, max_size=120), st.integers(1, 30))
def test_windows_fit_and_each_word_is_kept_where_it_has_most_context(sizes, room):
    windows = plan_windows(sizes, room)
    kept = [word for window in windows for word in range(window.kept_first, window.kept_after)]
    assert kept == list(range(len(sizes)))
    sizes = [min(size, room) for size in sizes]
    for window in windows:
        assert window.first <= window.kept_first < window.kept_after <= window.after
        assert sum(sizes[window.first : window.after]) <= room
        for word in range(window.kept_first, window.kept_after):
            reading = [other for other in windows if other.first <= word < other.after]
            assert context(window, sizes, word) == max(context(other, sizes, word) for other in reading)
    if max(sizes) * 4 <= room:  # no window is of much less use than it could be
        assert len(windows) <= 1 + 4 * sum(sizes) / room


@pytest.mark.parametrize("model_type", SYSTEMS)
def test_every_system_tags_a_long_post_to_its_end(model_type, monkeypatch):
    tagger = make_tagger(model_type)
    text = long_text(300)
    seen = []
    encoded = []
    forward, encode = tagger.model.forward, tagger.model.model.encode_pictures
    monkeypatch.setattr(
        tagger.model, "forward", lambda **batch: seen.append(batch["input_ids"].shape) or forward(**batch)
    )
    monkeypatch.setattr(
        tagger.model.model, "encode_pictures", lambda *given: encoded.append(given[0].shape) or encode(*given)
    )
    read = tagger({"text": text, "image": picture(1)}, with_reading=True)
    assert read["windows"] == len(seen) > 8 and read["unread_words"] == 0
    assert max(pieces for _, pieces in seen) <= LIMIT  # memory is that of a window
    assert len(encoded) == systems()[model_type].reads_pictures
    entities = read["entities"]
    assert entities and entities[-1]["end"] > 0.9 * len(text)
    assert [own["start"] for own in entities] == sorted(own["start"] for own in entities)
    for own in entities:
        assert text[own["start"] : own["end"]] == own["word"] and 0 <= own["score"] <= 1
    words = tagger({"text": text, "image": picture(1)}, aggregation_strategy="none")
    assert [word["word"] for word in words] == text.split()
    assert all(0 < word["score"] <= 1 for word in words)


@pytest.mark.parametrize("model_type", ["umgf", "rgcn", "umt"])
def test_short_posts_are_tagged_as_without_a_long_one_among_them(model_type):
    tagger = make_tagger(model_type)
    among = tagger([posts()[0], long_text(90), *posts()[1:]], batch_size=4)
    alone = tagger(posts(), batch_size=4)
    assert_same([among[0], *among[2:]], alone)
    assert_same([among[1]], [tagger(long_text(90))])
    assert_same(tagger(posts(), truncation="warn", batch_size=4), alone)


@pytest.mark.parametrize("labels", [{}, {"subword_labels": "x"}])
def test_each_word_has_the_emissions_of_its_window(labels):
    if labels:
        names = ["O", "B-PER", "I-PER", "X", "[CLS]", "[SEP]"]
        labels |= {"id2label": dict(enumerate(names)), "label2id": {name: i for i, name in enumerate(names)}}
        labels |= {"inter_edges": "full"}
    tagger = make_tagger("umgf", **labels)
    post = tagger.preprocess({"text": long_text(130), "image": picture(2)})
    with torch.no_grad():
        batches = list(window_batches(tagger.model, tagger.processor, post))
        whole = decode_windows(tagger.model, batches)
        for window, features in batches:
            own = decode(tagger.model, features)
            for word in range(window.kept_first, window.kept_after):
                emissions = whole.emissions[0, whole.step_of_word[0, word]]
                step = own.step_of_word[0, word - window.first]
                assert torch.equal(emissions, own.emissions[0, step])
                assert torch.equal(whole.gates["objects"][0, word], own.gates["objects"][0, word - window.first])
    assert whole.step_of_word.shape == (1, 130) and (whole.step_of_word >= 0).all()
    if labels:  # every piece, and the special tokens at both ends, once
        assert whole.emissions.shape[1] == len(post.features["input_ids"])
    expected = tagger.model.best_labels(whole.emissions, whole.mask)
    assert torch.equal(whole.predictions, expected)


def test_a_picture_encoded_once_counts_as_in_every_window():
    tagger = make_tagger("umgf")
    post = tagger.preprocess({"text": long_text(80), "image": picture(2)})
    with torch.no_grad():
        shared = list(window_batches(tagger.model, tagger.processor, post))
        for (window, part), (_, features) in zip(post.parts(), shared, strict=True):
            own = tagger.processor.batch([part])
            assert "pixel_values" in own and features["object_features"].ndim == 4
            torch.testing.assert_close(tagger.model(**own).logits, tagger.model(**features).logits)
            assert own["word_starts"].shape[1] == window.after - window.first


def test_a_tokenizer_that_knows_no_limit_gives_no_post_that_the_encoder_cannot_read():
    processor = make_processor("rpbert")
    processor.tokenizer.model_max_length = int(1e30)
    tagger = MultimodalNerPipeline(make_model("rpbert"), processor=processor, device="cpu")
    read = tagger({"text": long_text(45), "image": picture(1)}, with_reading=True)  # beside 16 regions no room for all
    assert read["windows"] > 1 and "error" not in read


def test_a_word_longer_than_a_window_is_read_as_far_as_it_goes():
    tagger = make_tagger("umgf")
    text = f"Anna {'Rome' * 100} meets Bob"
    words = tagger(text, aggregation_strategy="none")
    assert [word["word"] for word in words] == text.split()
    assert all(0 < word["score"] <= 1 for word in words)


def test_a_long_post_may_be_refused_or_cut_instead(caplog):
    tagger = make_tagger("text_only")
    refused, fine = tagger([long_text(100), "Anna"], truncation="error", with_reading=True)
    assert "the post has" in refused["error"] and "the model reads 64" in refused["error"]
    assert fine["windows"] == 1
    cut = tagger(long_text(100), truncation="warn", with_reading=True)
    assert cut["windows"] == 1 and cut["unread_words"] > 20
    assert f"its last {cut['unread_words']} words get no label" in caplog.text
    with pytest.raises(ValueError, match="truncation='never': use 'window', 'error', 'warn'"):
        tagger("Anna", truncation="never")
    with pytest.raises(ValueError, match="the pipeline makes windows"):
        tagger.processor(text="Anna", truncation="window")


def test_an_explanation_reaches_to_the_end_of_a_long_post():
    tagger = make_tagger("umgf")
    post = {"text": long_text(100), "image": picture(1)}
    explanation = explain(tagger.model, tagger.processor, **post)
    assert_same([own["word"] for own in explanation.entities], [own["word"] for own in tagger(post)])
    assert all(len(own["nodes"]) == len(explanation.nodes) == 1 for own in explanation.entities)


def test_the_tag_command_reads_long_posts_in_windows_and_counts_them(tmp_path, capsys):
    make_tagger("umgf").save_pretrained(tmp_path / "model")
    lines = [json.dumps({"text": text}) for text in ("Anna meets Bob", long_text(200), long_text(90))]
    (tmp_path / "posts.jsonl").write_text("\n".join(lines) + "\n", encoding="utf-8")

    def tag(truncation: str) -> tuple[str, list[dict]]:
        output = tmp_path / f"{truncation}.jsonl"
        arguments = ["tag", str(tmp_path / "posts.jsonl"), "--model", str(tmp_path / "model"), "--output", str(output)]
        assert main([*arguments, "--truncation", truncation]) == 0
        return capsys.readouterr().out, [json.loads(line) for line in output.read_text("utf-8").splitlines()]

    summary, records = tag("window")
    assert "2 longer than the model reads (in windows)" in summary
    assert records[1]["entities"][-1]["end"] > 0.9 * len(records[1]["text"])
    summary, records = tag("warn")
    assert "2 with a warning" in summary
    assert "were not read" in records[1]["warning"] and "warning" not in records[0]
    summary, records = tag("error")
    assert "2 with an error" in summary and "entities" in records[0]


def test_a_post_of_2000_words_is_tagged_to_its_end_in_the_memory_of_a_window(monkeypatch):
    tagger = make_tagger("umgf")
    shapes = set()
    forward = tagger.model.forward
    monkeypatch.setattr(
        tagger.model, "forward", lambda **batch: shapes.add(tuple(batch["input_ids"].shape)) or forward(**batch)
    )
    text = long_text(2000)
    words = tagger({"text": text, "image": picture(1)}, aggregation_strategy="none")
    assert [(word["start"], word["end"]) for word in words] == [place[1:] for place in split_post(text)]
    assert max(rows * pieces for rows, pieces in shapes) <= LIMIT
    entities = tagger({"text": text, "image": picture(1)})
    assert all(text[own["start"] : own["end"]] == own["word"] for own in entities)
    tagged = [word for word in words if word["entity"] != "O"]
    assert entities[-1]["end"] == tagged[-1]["end"] > 0.97 * len(text)
