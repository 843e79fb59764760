"""Words, pictures and objects → batch."""

import io

import numpy as np
import pytest
import torch
from conftest import SENTENCES, tiny_tokenizer
from PIL import Image
from transformers.utils import logging

from modeling_umgf import MultimodalNerCollator, UmgfImageProcessor, UmgfProcessor
from modeling_umgf.describer import load_once, sources_in_card
from modeling_umgf.grounding import Grounder

WORDS = SENTENCES[0].split()


def picture(width=40, height=30, colour=(10, 20, 30)) -> Image.Image:
    return Image.new("RGB", (width, height), colour)


def node(start=None, end=None, box=(0, 0, 20, 20), score=0.5) -> dict:
    phrase = None if start is None else {"start": start, "end": end}
    return {"box": list(box), "score": score, "query": "q", "phrase": phrase}


def test_each_word_starts_at_its_own_first_piece(processor):
    posts = [WORDS, ["the", "cat"]]
    batch = processor(words=posts)
    for words, ids, starts in zip(posts, batch["input_ids"], batch["word_starts"].tolist(), strict=True):
        pieces = processor.tokenizer.convert_ids_to_tokens(ids)
        bounds = [*starts[: len(words)], pieces.index("[SEP]")]
        for word, start, end in zip(words, bounds, bounds[1:], strict=False):
            assert "".join(piece.removeprefix("##") for piece in pieces[start:end]) == word
    assert batch["word_starts"][1].tolist()[2:] == [-1] * (len(WORDS) - 2)


@pytest.mark.parametrize("word", ["", "\u00a0", "\ufe0f", "\u200d", "\u200b", "\ufffd", "\x92", "\u00ad", "☃"])
def test_words_without_pieces_keep_a_place(processor, word):
    batch = processor(words=["the", word, "cat"])
    starts = batch["word_starts"][0].tolist()
    assert len(set(starts)) == 3 and min(starts) >= 0
    assert batch["input_ids"][0, starts[1]] == processor.tokenizer.unk_token_id


def test_raw_text_and_its_words_give_the_same_batch(processor):
    text = "Anna, meets @user  in #Rome"
    words = ["Anna", ",", "meets", "@user", "in", "#Rome"]
    one, two = processor(text=text), processor(words=words)
    assert all(torch.equal(one[name], two[name]) for name in two)
    assert len(processor(text=[text, "Rome"])["input_ids"]) == 2


def test_edges_link_a_phrase_object_to_its_words_and_a_general_one_to_all(processor):
    batch = processor(words=[WORDS, ["the", "cat"]], images=[picture(), None], objects=[[node(), node(2, 4)], None])
    assert batch["pixel_values"].shape == (2, 2, 3, 32, 32)
    assert batch["object_mask"].tolist() == [[True, True], [False, False]]
    assert batch["inter_modal_mask"][0, :, 0].all()
    assert batch["inter_modal_mask"][0, :, 1].nonzero().flatten().tolist() == [2, 3]
    assert not batch["inter_modal_mask"][1].any()


def test_without_objects_the_whole_picture_is_one_general_node_and_nothing_found_is_no_node(processor):
    whole = processor(words=WORDS, images=picture())
    assert whole["object_mask"].tolist() == [[True]] and whole["inter_modal_mask"].all()
    assert "pixel_values" not in processor(words=WORDS, images=picture(), objects=[])
    assert "pixel_values" not in processor(words=WORDS)
    assert torch.equal(processor(words=WORDS, image=picture())["pixel_values"], whole["pixel_values"])


def test_a_grounder_is_asked_only_where_nobody_looked(processor):
    asked = []

    def grounder(words, pictures):
        asked.append((words, [picture.size for picture in pictures]))
        return [[node(0, 1)] for _ in words]

    batch = processor(
        words=[WORDS, WORDS, ["a"]],
        images=[picture(), picture(), None],
        objects=[None, [node()], None],
        grounder=grounder,
    )
    assert asked == [([WORDS], [(40, 30)])]
    processor(words=WORDS, grounder=grounder)
    assert len(asked) == 1
    assert batch["inter_modal_mask"][0, :, 0].tolist() == [True] + [False] * 5
    assert batch["object_mask"][:, 0].tolist() == [True, True, False]


def test_a_box_survives_cropping_and_resizing():
    processor = UmgfImageProcessor(size={"height": 16, "width": 16}, do_normalize=False)
    canvas = picture(300, 200)
    canvas.paste((250, 0, 0), (120, 50, 180, 90))
    (inside,) = processor.crop(canvas, [[120, 50, 180, 90]])
    pixels = np.asarray(processor([inside])["pixel_values"][0])
    assert inside.size == (60, 40)
    assert np.allclose(pixels[0], 250 / 255, atol=0.01)
    assert np.allclose(pixels[1:], 0, atol=0.01)
    (wider,) = processor.crop(canvas, [[119.2, 49.5, 180.3, 90.9]])
    assert wider.size == (62, 42)
    assert processor.crop(canvas, [[-5, -5, 400, 400]])[0].size == (300, 200)


@pytest.mark.parametrize("box", [[300, 0, 310, 10], [-9, -9, -1, -1]])
def test_a_box_outside_the_picture_is_refused(processor, box):
    with pytest.raises(ValueError, match="holds nothing of a picture of 40 x 30"):
        processor(words=WORDS, images=picture(), objects=[node(box=box)])


@pytest.mark.parametrize("box", [[5, 5, 5, 9], [9, 9, 2, 12], [0, 0, 5], [0, 0, float("nan"), 5], [0, 0, 5, 5, 1]])
def test_what_is_no_box_is_refused(processor, box):
    with pytest.raises(ValueError, match="is no box; a box is"):
        processor(words=WORDS, images=picture(), objects=[node(box=box)])


def test_too_many_objects_keep_the_general_ones_and_the_best_scores():
    processor = UmgfProcessor(UmgfImageProcessor(size={"height": 8, "width": 8}), tiny_tokenizer(), max_objects=3)
    objects = [node(0, 1, score=0.9), node(1, 2, score=0.2), node(score=0.1), node(3, 4, score=0.7)]
    batch = processor(words=WORDS, images=picture(), objects=objects)
    assert batch["inter_modal_mask"][0].sum(0).tolist() == [6, 1, 1]
    assert batch["inter_modal_mask"][0, 3, 2] and batch["inter_modal_mask"][0, 0, 1]


def test_general_and_grid_nodes_are_a_setting():
    tokenizer, image_processor = tiny_tokenizer(), UmgfImageProcessor(size={"height": 8, "width": 8})
    general = UmgfProcessor(image_processor, tokenizer, visual_nodes="general")
    grid = UmgfProcessor(image_processor, tokenizer, visual_nodes="grid")
    objects = [node(0, 1), node()]
    assert general(words=WORDS, images=picture(), objects=objects)["object_mask"].shape == (1, 1)
    assert grid(words=WORDS, images=picture(), objects=objects)["pixel_values"].shape == (1, 1, 3, 8, 8)


def test_given_features_replace_pictures(processor):
    features = [np.ones((2, 5), np.float16), None]
    batch = processor(words=[WORDS, WORDS], object_features=features, objects=[[node(), node(1, 2)], None])
    assert batch["object_features"].shape == (2, 2, 5)
    assert batch["object_features"].dtype == torch.float32
    assert batch["inter_modal_mask"][0, :, 1].sum() == 1
    assert processor(words=WORDS, object_features=features[0])["inter_modal_mask"].all()


@pytest.mark.parametrize("kind", [list, np.array, torch.tensor, lambda rows: torch.tensor(rows, dtype=torch.bfloat16)])
def test_features_may_come_as_lists_arrays_and_tensors(processor, kind):
    batch = processor(words=WORDS, object_features=kind([[1.0, 2.0], [3.0, 4.0]]))
    assert batch["object_features"].tolist() == [[[1, 2], [3, 4]]]


def test_the_choice_of_nodes_holds_for_given_features_too():
    """It once held for pictures only: an ablation on kept features had nodes that it should not have."""
    objects = [node(0, 1, score=0.9), node(score=0.1), node(1, 2, score=0.2), node(score=0.3)]
    features = np.arange(4.0)[:, None] + np.zeros((4, 3))
    arguments = {"words": WORDS, "objects": objects, "object_features": features}
    general = UmgfProcessor(tokenizer=tiny_tokenizer(), visual_nodes="general")(**arguments)
    assert general["object_features"][0, :, 0].tolist() == [1, 3]
    assert general["object_mask"].tolist() == [[True, True]]
    assert general["inter_modal_mask"].all()
    few = UmgfProcessor(tokenizer=tiny_tokenizer(), max_objects=3)(**arguments)
    assert few["object_features"][0, :, 0].tolist() == [3, 1, 0]  # general ones first, then the better score
    assert few["inter_modal_mask"][0].sum(0).tolist() == [6, 6, 1]
    none = UmgfProcessor(tokenizer=tiny_tokenizer(), max_objects=0)
    assert "object_features" not in none(**arguments)
    assert "pixel_values" not in none(words=WORDS, images=picture())


def test_every_picture_like_thing_is_a_picture(processor, tmp_path):
    picture().save(tmp_path / "a.png")
    file = io.BytesIO()
    picture().save(file, "PNG")
    pictures = [picture(), tmp_path / "a.png", str(tmp_path / "a.png"), file.getvalue(), np.asarray(picture())]
    batch = processor(words=[WORDS] * 5, images=pictures)
    assert all(torch.equal(row, batch["pixel_values"][0]) for row in batch["pixel_values"])


def test_a_post_beyond_the_encoders_limit_is_kept_up_to_it_with_a_warning(processor, caplog):
    words = ["cat"] * 80
    logging.enable_propagation()
    batch = processor(words=[words, ["the"]], labels=[[1] * 80, [0]])
    logging.disable_propagation()
    assert batch["input_ids"].shape == (2, 64)
    assert batch["input_ids"][0, -1] == processor.tokenizer.sep_token_id
    assert (batch["word_starts"][0] >= 0).sum() == 62
    assert batch["word_starts"].shape == (2, 80)
    assert batch["labels"][0].tolist() == [1] * 80  # lost words still count in the scores
    assert "its last 18 words get no label" in caplog.text


def test_wrong_objects_are_named(processor):
    with pytest.raises(ValueError, match="^1 objects but 2 object_features"):
        processor(words=WORDS, object_features=np.ones((2, 5)), objects=[node()])
    with pytest.raises(ValueError, match=r"^Post 1 of the batch: 1 objects but 2 object_features"):
        processor(words=[["a"], ["b"]], object_features=[None, np.ones((2, 5))], objects=[None, [node()]])
    with pytest.raises(ValueError, match=r"Post 0 of the batch: objects must be a list of \{\"box\": …\}, or None"):
        processor(words=[["a"], ["b"]], images=[picture(), picture()], objects=[node(), node()])
    with pytest.raises(ValueError, match=r"^objects must be a list of \{\"box\": …\}, or None"):
        processor(words=WORDS, images=picture(), objects=[{"phrase": None}])


@pytest.mark.parametrize("span", [(2, 9), (-1, 2), (3, 3), (4, 2)])
def test_a_phrase_outside_the_post_is_refused(processor, span):
    """Such an object was once linked to no word, without a word."""
    with pytest.raises(ValueError, match=rf"^6 words, but an object is linked to the phrase {span[0]}\.\.{span[1]}"):
        processor(words=WORDS, images=picture(), objects=[node(*span)])


@pytest.mark.parametrize("settings", [{"visual_nodes": "all"}, {"max_objects": -1}, {"max_objects": 2.5}])
def test_settings_that_cannot_be_are_refused(settings):
    with pytest.raises(ValueError, match=next(iter(settings))):
        UmgfProcessor(tokenizer=tiny_tokenizer(), **settings)


def test_an_empty_post_has_no_words_but_does_not_break_the_batch(processor, model):
    batch = processor(text=["", "Rome"])
    assert (batch["word_starts"][0] == -1).all()
    assert (model(**batch).predictions[0] == -100).all()
    assert (model(**processor(text="")).predictions == -100).all()


def test_saved_and_loaded_it_makes_the_same_batches(processor, tmp_path):
    processor.max_objects = 1
    processor.save_pretrained(tmp_path)
    loaded = UmgfProcessor.from_pretrained(tmp_path)
    assert (loaded.max_objects, loaded.visual_nodes) == (1, "objects")
    arguments = {"words": WORDS, "images": picture(), "objects": [node(), node(1, 2)]}
    one, two = processor(**arguments), loaded(**arguments)
    assert all(torch.equal(one[name], two[name]) for name in one)


def test_the_collator_reads_dataset_rows(processor):
    rows = [
        {"id": "1", "tokens": WORDS, "ner_tags": [1, 0, 1, 2, 0, 3], "image": picture(), "objects": [node()]},
        {"id": "2", "tokens": ["a"], "ner_tags": [0], "image": None, "objects": None},
    ]
    batch = MultimodalNerCollator(processor)(rows)
    assert batch["labels"].tolist() == [[1, 0, 1, 2, 0, 3], [0] + [-100] * 5]
    assert batch["pixel_values"].shape[:2] == (2, 1)
    assert "labels" not in MultimodalNerCollator(processor, with_labels=False)(rows)


def test_tiles_are_the_whole_picture_and_its_quarters_whatever_objects_are_given():
    image_processor = UmgfImageProcessor(size={"height": 8, "width": 8}, do_normalize=False)
    processor = UmgfProcessor(image_processor, tiny_tokenizer(), visual_nodes="tiles")
    canvas = picture(40, 30, (0, 0, 0))
    canvas.paste((255, 0, 0), (20, 0, 40, 15))  # upper right
    batch = processor(words=WORDS, images=canvas, objects=[node(0, 1)])
    assert batch["object_mask"].shape == (1, 5) and batch["inter_modal_mask"].all()
    red = batch["pixel_values"][0, :, 0].mean((1, 2))
    assert red.tolist() == pytest.approx([0.25, 0, 1, 0, 0], abs=0.05)
    assert "pixel_values" not in processor(words=WORDS)
    assert processor(words=WORDS, object_features=np.ones((3, 5)))["object_mask"].shape == (1, 3)
    whole = UmgfProcessor(image_processor, tiny_tokenizer(), visual_nodes="picture")
    assert whole(words=WORDS, images=canvas, objects=[node(0, 1)])["pixel_values"][0].equal(
        batch["pixel_values"][0, :1]
    )


SOURCE = {"detector": "owner/detector@" + "0" * 40, "min_score": 0.3, "general": ["misc"], "dtype": "torch.float32"}


def test_a_processor_keeps_how_its_columns_were_made(processor, tmp_path):
    processor.remember_sources(["tokens", "objects"])
    assert processor.column_sources == {"objects": "given"}
    processor.remember_sources(["objects"], {"objects": SOURCE, "caption": {}})
    processor.remember_sources(["objects"])  # once known, it is not forgotten
    processor.save_pretrained(tmp_path)
    assert UmgfProcessor.from_pretrained(tmp_path).column_sources == {"objects": SOURCE}
    assert UmgfProcessor(tokenizer=tiny_tokenizer()).column_sources == {}


def test_posts_without_objects_get_them_as_the_training_data_did(processor, monkeypatch):
    loaded = []

    class Finder:
        def __call__(self, words, pictures):
            return [[node(0, 1)] for _ in words]

    def from_pretrained(name, revision=None, **settings):
        loaded.append((name, revision, settings))
        return Finder()

    monkeypatch.setattr(Grounder, "from_pretrained", from_pretrained)
    load_once.cache_clear()
    processor.remember_sources(["objects"], {"objects": SOURCE})
    for _ in range(2):
        batch = processor(words=WORDS, images=picture())
        assert batch["inter_modal_mask"][0, :, 0].tolist() == [True] + [False] * 5
    assert loaded == [("owner/detector", "0" * 40, {"min_score": 0.3})]
    (looked_for_by_nobody,) = processor.prepare([{"words": WORDS, "image": picture(), "objects": None}])
    assert looked_for_by_nobody.nodes["objects"] == [{"box": [0, 0, 40, 30], "phrase": None}]
    load_once.cache_clear()


@pytest.mark.parametrize(("source", "why"), [("given", "were given with the data"), (SOURCE, "cannot be loaded here")])
def test_objects_that_nobody_can_find_again_are_warned_about_once(processor, caplog, source, why):
    """The quick start's model scored 99.9 with boxes and 29.5 without, and said nothing."""
    load_once.cache_clear()
    logging.warning_once.cache_clear()
    processor.column_sources = {"objects": source}
    logging.enable_propagation()
    for _ in range(2):
        assert processor(words=WORDS, images=picture())["object_mask"].shape == (1, 1)
    processor(words=WORDS)
    logging.disable_propagation()
    (message,) = [record.getMessage() for record in caplog.records]
    assert why in message and "or a grounder" in message


def test_the_card_of_a_dataset_tells_how_its_columns_were_made():
    card = '# Posts\n\n- `noun_phrases`: {"extractor": "nltk", "merge_of": true}\n'
    card += '- `objects`: {"detector": "a/b@c", "min_score": 0.3}\n\n## Columns\n\n- `ner_tags`: {not JSON}\n'
    sources = sources_in_card(card)
    assert sources["objects"] == {"detector": "a/b@c", "min_score": 0.3, "noun_phrases": "nltk", "merge_of": True}
    assert list(sources) == ["noun_phrases", "objects"]
