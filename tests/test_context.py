"""Context as text: columns that are read after the post, in every system with every label decoder."""

import json
import logging

import numpy as np
import pytest
import torch
from conftest import assert_same, tiny_tokenizer
from systems_under_test import (
    LABEL_IDS,
    SYSTEMS,
    make_batch,
    make_model,
    make_processor,
    node_masks,
    posts,
    text_alone,
)
from test_systems import without_package
from tokenizers import Tokenizer, models, pre_tokenizers, processors
from transformers import AutoConfig, AutoModelForTokenClassification, AutoProcessor, PreTrainedTokenizerFast

from modeling_umgf import MultimodalNerPipeline
from modeling_umgf.batching import own_pieces
from modeling_umgf.decoders import LABEL_DECODERS
from modeling_umgf.descriptors import Captioner, ObjectLabeler
from modeling_umgf.explanation import explain
from modeling_umgf.systems import systems
from modeling_umgf.text_splitting import split_post
from modeling_umgf.tokenization_bilstm import train_word_tokenizer
from modeling_umgf.tokenizer_from_scratch import train_tokenizer

pytestmark = pytest.mark.filterwarnings("ignore:The PyTorch API of nested tensors")

of_every_system = pytest.mark.parametrize("model_type", SYSTEMS)
with_every_decoder = pytest.mark.parametrize("label_decoder", list(LABEL_DECODERS))
COLUMNS = ["caption", "object_labels"]
OF_PIECES = ("input_ids", "attention_mask")


def posts_with_context() -> list[dict]:
    """Those of every system; the first has two columns, the second one, the last none."""
    first, second, third = posts()
    first |= {"caption": "Anna and Bob Marley sing", "object_labels": ["cat", "user"]}
    return [first, second | {"caption": "a cat in Paris"}, third | {"caption": "", "object_labels": None}]


def batch_with_context(model_type: str, rows: list[dict] | None = None, labels: bool = True) -> dict:
    processor = make_processor(model_type, context=COLUMNS)
    rows = posts_with_context() if rows is None else rows
    return dict(processor.batch(processor.prepare(rows), LABEL_IDS[: len(rows)] if labels else None))


def words_alone() -> list[dict]:
    """The same posts without anything else, such as neighbours that their words have."""
    nothing = {"neighbors_inter": [], "neighbors_intra": []}
    return [{"words": post["words"]} | nothing for post in posts()]


def assert_equal(one: dict, other: dict) -> None:
    assert one.keys() == other.keys()
    assert all(torch.equal(one[name], other[name]) for name in one)


# ------------------------------------------------------------------------------------------------------- tensors


@of_every_system
def test_a_post_without_context_has_exactly_the_tensors_of_the_post_alone(model_type):
    plain, reading = make_processor(model_type), make_processor(model_type, context=["caption", "headline"])
    expected = plain.batch(plain.prepare(posts()))
    for nothing in ({}, {"caption": None}, {"caption": "", "headline": "  "}, {"headline": []}):
        assert_equal(reading.batch(reading.prepare([post | nothing for post in posts()])), expected)


@of_every_system
def test_in_a_mixed_batch_a_post_without_context_is_what_it_is_alone(model_type):
    batch = batch_with_context(model_type)
    alone = batch_with_context(model_type, posts_with_context()[2:], labels=False)
    assert not {"context_mask", "token_type_ids"} & alone.keys()
    pieces = alone["input_ids"].shape[1]
    for name in OF_PIECES:
        assert torch.equal(batch[name][2, :pieces], alone[name][0])
        assert not batch[name][2, pieces:].any()
    assert not batch["context_mask"][2].any() and not batch["token_type_ids"][2].any()
    assert batch["word_starts"][2].tolist() == [1, -1, -1, -1, -1, -1]


@of_every_system
def test_context_changes_nothing_of_a_batch_but_the_pieces(model_type):
    rows = posts_with_context()
    without = make_batch(model_type, rows)
    batch = batch_with_context(model_type, rows)
    assert batch.keys() - without.keys() == {"context_mask", "token_type_ids"}
    for name in without.keys() - set(OF_PIECES):
        assert torch.equal(batch[name], without[name])
    own = own_pieces(batch["attention_mask"].bool(), batch["context_mask"])
    assert torch.equal(own.sum(1), without["attention_mask"].sum(1))
    assert (batch["context_mask"].sum(1) > 0).tolist() == [True, True, False]


def roberta_tokenizer() -> PreTrainedTokenizerFast:
    """<s> A </s></s> B </s>, of bytes, with one segment."""
    alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
    vocabulary = {piece: i for i, piece in enumerate(["<s>", "<pad>", "</s>", "<unk>", *alphabet])}
    tokenizer = Tokenizer(models.BPE(vocabulary, [], unk_token="<unk>"))
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=True)
    tokenizer.post_processor = processors.RobertaProcessing(("</s>", 2), ("<s>", 0))
    names = {"cls_token": "<s>", "pad_token": "<pad>", "sep_token": "</s>", "unk_token": "<unk>"}
    return PreTrainedTokenizerFast(tokenizer_object=tokenizer, model_max_length=64, **names)


def xlnet_tokenizer() -> PreTrainedTokenizerFast:
    """A <sep> B <sep> <cls>: what belongs to the first text alone stands at both places."""
    tokenizer = tiny_tokenizer()
    tokenizer._tokenizer.post_processor = processors.TemplateProcessing(
        single="$A [SEP] [CLS]:2", pair="$A [SEP] $B:1 [SEP]:1 [CLS]:2", special_tokens=[("[SEP]", 3), ("[CLS]", 2)]
    )
    return tokenizer


def without_special_tokens() -> PreTrainedTokenizerFast:
    tokenizer = tiny_tokenizer()
    tokenizer._tokenizer.post_processor = processors.TemplateProcessing(single="$A", pair="$A $B", special_tokens=[])
    return tokenizer


WORDS = "Anna meets Bob Marley".split()
CAPTION = "the cat of Paris, sleeps"
TOKENIZERS = {
    "BERT": tiny_tokenizer,
    "RoBERTa": roberta_tokenizer,
    "XLNet": xlnet_tokenizer,
    "no special tokens": without_special_tokens,
    "pieces from scratch": lambda: train_tokenizer([WORDS, CAPTION.split()], 64),
    "words from scratch": lambda: train_word_tokenizer([WORDS * 2, CAPTION.split() * 2]),
    "words and characters": lambda: train_word_tokenizer([WORDS * 2, CAPTION.split() * 2], characters=True),
}


@pytest.mark.parametrize("kind", TOKENIZERS)
def test_post_and_context_are_joined_as_the_tokenizer_joins_two_texts(kind):
    tokenizer = TOKENIZERS[kind]()
    processor = systems()["text_only"].processor(tokenizer, context=["caption"])
    context = [word for word, _, _ in split_post(CAPTION)]
    expected = tokenizer(WORDS, context, is_split_into_words=True, return_token_type_ids=True)
    batch = processor(words=WORDS, caption=CAPTION)
    assert batch["input_ids"][0].tolist() == expected["input_ids"]
    if kind != "XLNet":  # whose [CLS] has a segment of its own, with a context or without
        types = batch.get("token_type_ids", torch.zeros_like(batch["input_ids"]))
        assert types[0].tolist() == expected["token_type_ids"]
    own = own_pieces(batch["attention_mask"].bool(), batch["context_mask"])
    alone = processor(words=WORDS)
    assert torch.equal(batch["input_ids"][own], alone["input_ids"][0])
    assert torch.equal(batch["word_starts"], alone["word_starts"])
    if kind == "words and characters":
        characters = batch["character_ids"][0]
        assert torch.equal(characters[: len(WORDS)], alone["character_ids"][0])
        assert not characters[len(WORDS)].any()  # [SEP]
        assert characters[len(WORDS) + 1, :4].tolist() == [1 + byte for byte in b"the"] + [0]


def test_segments_are_those_of_two_texts_and_there_are_none_where_the_tokenizer_tells_none():
    batch = systems()["text_only"].processor(tiny_tokenizer(), context=["caption"])(words=WORDS, caption=CAPTION)
    assert torch.equal(batch["token_type_ids"].bool(), batch["context_mask"])
    batch = systems()["text_only"].processor(roberta_tokenizer(), context=["caption"])(words=WORDS, caption=CAPTION)
    assert "token_type_ids" not in batch and batch["context_mask"].any()


def test_columns_are_read_in_the_order_of_the_setting_and_lists_like_texts():
    tokenizer = tiny_tokenizer()
    make = systems()["text_only"].processor
    post = {"words": WORDS, "caption": "the cat", "object_labels": ["Bob", "user"]}
    one = make(tokenizer, context=["caption", "object_labels"]).prepare([post])[0]
    assert one.context == ["the", "cat", "Bob", ",", "user"]
    other = make(tokenizer, context=["object_labels", "caption"]).prepare([post | {"object_labels": "Bob, user"}])[0]
    assert other.context == ["Bob", ",", "user", "the", "cat"]


@pytest.mark.parametrize("limit", range(3, 40))
def test_the_context_gets_what_the_post_leaves_of_the_limit(limit):
    processor = systems()["text_only"].processor(tiny_tokenizer(), context=["caption"])
    whole = processor(words=WORDS, caption=CAPTION)
    alone = processor(words=WORDS, max_length=limit)
    batch = processor(words=WORDS, caption=CAPTION, max_length=limit)
    own = processor(words=WORDS)["input_ids"].shape[1]
    room = limit - own - 1  # [SEP]
    if room < 1:
        assert_equal(dict(batch), dict(alone))
        return
    read = min(room, whole["input_ids"].shape[1] - own - 1)
    assert batch["input_ids"][0, :-1].tolist() == whole["input_ids"][0, : own + read].tolist()
    assert batch["input_ids"][0, -1] == processor.tokenizer.sep_token_id
    assert batch["context_mask"][0].tolist() == [False] * own + [True] * (read + 1)


@pytest.fixture
def said(monkeypatch) -> list[str]:
    """What processor and pipeline say in the log."""
    messages = []
    handler = logging.Handler()
    handler.emit = lambda record: messages.append(record.getMessage())
    for name in ("processing_multimodal_ner", "pipeline_multimodal_ner"):
        logger = logging.getLogger(f"modeling_umgf.{name}")
        logger.warning_once.cache_clear()
        monkeypatch.setattr(logger, "handlers", [handler])
    return messages


def test_that_contexts_are_cut_is_said_once(said):
    processor = systems()["text_only"].processor(tiny_tokenizer(), context=["caption"])
    for _ in range(3):
        processor(words=WORDS, caption=30 * CAPTION)
    assert said == [
        "Some contexts are longer than what their posts leave of the 64 pieces that are read: their ends are not read."
    ]


@of_every_system
def test_every_window_of_a_long_post_is_read_with_the_context(model_type):
    processor = make_processor(model_type, context=["caption"])
    tagger = MultimodalNerPipeline(make_model(model_type), processor=processor, device="cpu")
    post = {"words": WORDS * 20, "image": posts()[0]["image"]}
    prepared = tagger.preprocess(post | {"caption": CAPTION})
    alone = tagger.preprocess(post)
    assert len(prepared.windows) > len(alone.windows) > 1
    for _, text in prepared.windows:
        read = text["input_ids"][text["context_mask"]].tolist()
        assert len(text["input_ids"]) <= 64
        assert read == processor(words=WORDS, caption=CAPTION)["input_ids"][0, -len(read) :].tolist() and len(read) > 8
    assert not any("context_mask" in text for _, text in alone.windows)
    words = tagger(post | {"caption": CAPTION}, aggregation_strategy="none")
    assert [word["word"] for word in words] == post["words"] and all(word["score"] > 0 for word in words)
    explanation = explain(tagger.model, processor, **post, caption=CAPTION)
    assert [node["kind"] for node in explanation.nodes].count("context") == 1 and explanation.entities
    assert any(abs(link["change"]) > 1e-6 for entity in explanation.entities for link in entity["nodes"])


@of_every_system
def test_padding_on_the_left_moves_post_and_context_together(model_type):
    processor = make_processor(model_type, context=COLUMNS)
    processor.tokenizer.padding_side = "left"
    left = processor.batch(processor.prepare(posts_with_context()))
    right = batch_with_context(model_type, labels=False)
    for row in range(3):
        real, moved = right["attention_mask"][row].bool(), left["attention_mask"][row].bool()
        for name in ("input_ids", "context_mask", "token_type_ids"):
            assert torch.equal(left[name][row][moved], right[name][row][real])
            assert not left[name][row][~moved].any()
        starts, places = left["word_starts"][row], right["word_starts"][row]
        assert torch.equal(left["input_ids"][row, starts[starts >= 0]], right["input_ids"][row, places[places >= 0]])


@pytest.mark.parametrize(
    ("context", "message"),
    [
        ("caption", r"give a list of columns of texts, such as \[\"caption\"\]"),
        ([1], "give a list of columns"),
        (["caption", "caption"], "named twice"),
        (["tokens"], "tokens is no text besides the post"),
        (["error"], "error is no text besides the post"),
    ],
)
def test_a_setting_that_is_no_list_of_columns_is_refused(context, message):
    with pytest.raises(ValueError, match=message):
        systems()["text_only"].processor(tiny_tokenizer(), context=context)


@pytest.mark.parametrize("empty", [None, "", " \n", [], (), [" ", ""], float("nan"), np.array([], dtype=object)])
def test_every_kind_of_no_context_is_the_post_alone(empty):
    processor = systems()["text_only"].processor(tiny_tokenizer(), context=["caption"])
    found, alone = processor(words=WORDS, caption=empty), processor(words=WORDS)
    assert found.keys() == alone.keys() and all(torch.equal(found[name], alone[name]) for name in alone)


def test_arrays_are_read_like_lists():
    processor = systems()["text_only"].processor(tiny_tokenizer(), context=["caption"])
    (read,) = processor.prepare([{"words": WORDS, "caption": np.array(["the cat", " ", "Bob"], dtype=object)}])
    assert read.context == ["the", "cat", ",", "Bob"]


def test_half_a_character_in_a_context_is_one_sentence():
    processor = systems()["text_only"].processor(tiny_tokenizer(), context=["caption"])
    with pytest.raises(ValueError, match="^caption holds half a character"):
        processor(words=WORDS, caption="a cat \ud83d")


def test_posts_without_the_key_of_a_context_are_missed_once(said):
    processor = make_processor("text_only", context=["caption", "headline"])
    tagger = MultimodalNerPipeline(make_model("text_only"), processor=processor, device="cpu")
    tagger([{"text": "Anna", "headline": None}] * 3)
    assert not said
    tagger([{"text": "Anna"}] * 3)
    assert len(said) == 1 and said[0].startswith("This model reads headline after the post; posts come without")


def test_a_column_that_holds_no_text_is_named_with_its_post():
    processor = systems()["text_only"].processor(tiny_tokenizer(), context=["caption"])
    with pytest.raises(ValueError, match="Post 1 of the batch: caption must be text, .* to be read as context, not 5"):
        processor.prepare([{"text": "a", "caption": "b"}, {"text": "a", "caption": 5}])


# -------------------------------------------------------------------------------------------------------- models


@with_every_decoder
@of_every_system
def test_a_post_with_context_is_tagged_in_a_batch_as_alone(model_type, label_decoder):
    model, together = make_model(model_type, label_decoder=label_decoder), batch_with_context(model_type)
    expected = model(**together)
    for i, post in enumerate(posts_with_context()):
        result = model(**batch_with_context(model_type, [post], labels=False))
        words = len(post["words"])
        torch.testing.assert_close(result.logits[0], expected.logits[i, :words], atol=1e-4, rtol=1e-4)
        assert torch.equal(result.predictions[0], expected.predictions[i, :words])


@of_every_system
def test_words_learn_from_the_context_and_from_nothing_that_is_masked(model_type):
    model = make_model(model_type)
    batch = batch_with_context(model_type)
    without = model(**make_batch(model_type, posts_with_context()))
    assert (model(**batch).logits - without.logits)[:2].abs().amax((1, 2)).min() > 1e-3
    masked = batch | {"attention_mask": own_pieces(batch["attention_mask"].bool(), batch["context_mask"]).long()}
    real = batch["word_starts"] >= 0
    torch.testing.assert_close(model(**masked).logits[real], without.logits[real], atol=1e-5, rtol=1e-4)


@with_every_decoder
@of_every_system
def test_a_step_of_training_changes_every_part(model_type, label_decoder):
    model = make_model(model_type, label_decoder=label_decoder, cross_view_weight=1.0).train()
    model(**batch_with_context(model_type)).loss.backward()
    assert [name for name, p in model.named_parameters() if p.requires_grad and p.grad is None] == []
    assert all(p.grad is None or torch.isfinite(p.grad).all() for p in model.parameters())
    assert any("text_model" in name and p.grad.any() for name, p in model.named_parameters() if p.grad is not None)


@pytest.mark.parametrize("model_type", [name for name in SYSTEMS if name != "object_agban"])  # which labels words alone
def test_labels_of_pieces_are_those_of_the_post_alone(model_type):
    labels = ["O", "B-PER", "I-PER", "B-LOC", "I-LOC", "X", "[CLS]", "[SEP]"]
    names = {"id2label": dict(enumerate(labels)), "label2id": {label: i for i, label in enumerate(labels)}}
    names |= {"inter_edges": "full"} if model_type == "umgf" else {}
    model = make_model(model_type, subword_labels="x", **names)
    batch = batch_with_context(model_type)
    masked = batch | {"attention_mask": own_pieces(batch["attention_mask"].bool(), batch["context_mask"]).long()}
    plain = make_batch(model_type, posts_with_context())
    torch.testing.assert_close(model(**masked).loss, model(**plain).loss, atol=1e-4, rtol=1e-4)
    result = model(**batch)
    assert ((result.predictions == -100) == (batch["word_starts"] < 0)).all()
    tagger = MultimodalNerPipeline(model, processor=make_processor(model_type, context=COLUMNS), device="cpu")
    for post, words in zip(
        posts_with_context(), tagger(posts_with_context(), aggregation_strategy="none"), strict=True
    ):
        assert [word["word"] for word in words] == post["words"]


@pytest.mark.parametrize("encoder", ["roberta", "distilbert", "electra", "deberta-v2", "modernbert"])
def test_text_encoders_with_one_segment_or_none_pass_over_it(encoder):
    text = {"vocab_size": 300, "hidden_size": 16, "num_hidden_layers": 1, "num_attention_heads": 2, "pad_token_id": 0}
    text |= {"intermediate_size": 32, "max_position_embeddings": 64}
    text |= {"roberta": {"type_vocab_size": 1}, "electra": {"embedding_size": 8}}.get(encoder, {})
    text |= {"distilbert": {"dim": 16, "n_layers": 1, "n_heads": 2, "hidden_dim": 32}}.get(encoder, {})
    for model_type in ("text_only", "rpbert"):
        model = make_model(model_type, text_config=AutoConfig.for_model(encoder, **text).to_dict())
        batch = batch_with_context(model_type)
        assert "token_type_ids" in batch
        assert torch.isfinite(model(**batch).loss)


def test_the_segment_of_the_context_is_read_by_an_encoder_that_knows_two():
    for model_type in ("text_only", "rpbert", "umt"):
        model, batch = make_model(model_type), batch_with_context(model_type)
        model.model.text_model.embeddings.token_type_embeddings.weight.data[1].normal_(std=3)
        first = batch | {"token_type_ids": torch.zeros_like(batch["token_type_ids"])}
        assert (model(**batch).logits - model(**first).logits).abs().max() > 1e-2


def test_where_regions_and_context_compete_for_positions_the_context_gives_way():
    model = make_model("rpbert")
    rows = posts_with_context()[:1]
    rows[0]["caption"] = "Anna " * 60
    batch = batch_with_context("rpbert", rows)
    assert batch["input_ids"].shape[1] == 64  # all positions there are
    room = 64 - 1  # for the one region
    shorter = {
        name: tensor[:, :room] if name in ("input_ids", "attention_mask") else tensor for name, tensor in batch.items()
    }
    shorter |= {name: batch[name][:, :room] for name in ("context_mask", "token_type_ids")}
    torch.testing.assert_close(model(**batch).logits, model(**shorter).logits, atol=1e-5, rtol=1e-4)


# ------------------------------------------------------------------------------------------------ two views of a post


def without_dropout(model):
    """In training, but with nothing drawn at random."""
    model.eval()
    model.training = True
    return model


@with_every_decoder
@of_every_system
def test_the_loss_of_two_views_is_both_likelihoods_and_their_divergence(model_type, label_decoder):
    batch, weight = batch_with_context(model_type), 0.7
    model = without_dropout(make_model(model_type, label_decoder=label_decoder, cross_view_weight=weight))
    loss = model(**batch).loss
    model.config.cross_view_weight = 0.0
    with_context = model(**batch)
    plain = make_batch(model_type, words_alone())
    alone = model.eval()(**plain)
    mask = plain["word_starts"] >= 0
    decoder = model.label_decoder
    likelihood = decoder.loss(alone.logits, plain["labels"], mask)  # [B]
    p, q = (decoder.marginals(view.logits, mask)[mask] for view in (with_context, alone))  # [words, labels]
    divergence = torch.nn.functional.kl_div(q.log(), p, reduction="none").sum(1)
    of_post = torch.zeros(3).index_add(0, mask.nonzero()[:, 0], divergence)
    has_more = torch.tensor([True, True, any(bool(batch[name][2].any()) for name in node_masks(model_type, batch))])
    expected = with_context.loss + ((likelihood + weight * of_post) * has_more).sum() / 3
    torch.testing.assert_close(loss, expected, atol=1e-3, rtol=1e-3)
    assert divergence.sum() > 1e-6


@with_every_decoder
@of_every_system
def test_equal_views_do_not_diverge(model_type, label_decoder):
    batch = text_alone(model_type, batch_with_context(model_type, posts_with_context()[:2]))
    batch["attention_mask"] = own_pieces(batch["attention_mask"].bool(), batch["context_mask"]).long()
    losses = {}
    for weight in (1e-9, 1.0):
        model = without_dropout(make_model(model_type, label_decoder=label_decoder, cross_view_weight=weight))
        losses[weight] = model(**batch).loss
    torch.testing.assert_close(losses[1.0], losses[1e-9], atol=1e-5, rtol=1e-5)


@with_every_decoder
@of_every_system
def test_the_divergence_teaches_the_text_encoder_and_the_view_that_sees_less(model_type, label_decoder):
    batch = batch_with_context(model_type)
    gradients = []
    for weight in (1e-9, 1.0):
        model = without_dropout(make_model(model_type, label_decoder=label_decoder, cross_view_weight=weight))
        model(**batch).loss.backward()
        gradients.append(model.get_input_embeddings().weight.grad)
    difference = gradients[1] - gradients[0]
    assert difference.abs().max() > 1e-5
    own = own_pieces(batch["attention_mask"].bool(), batch["context_mask"])
    only_in_context = set(batch["input_ids"][batch["context_mask"]].tolist()) - set(batch["input_ids"][own].tolist())
    assert only_in_context  # the view that sees more is the teacher, and learns nothing from the other
    assert difference[sorted(only_in_context)].abs().max() < 1e-6


@with_every_decoder
@of_every_system
def test_without_anything_to_leave_out_the_text_is_read_once(model_type, label_decoder):
    model = without_dropout(make_model(model_type, label_decoder=label_decoder, cross_view_weight=1.0))
    batch = make_batch(model_type, words_alone())
    calls = []
    model.model.register_forward_pre_hook(lambda *_: calls.append(1))
    loss = model(**batch).loss
    assert calls == [1]
    model.config.cross_view_weight = 0.0
    torch.testing.assert_close(loss, model(**batch).loss)
    model.config.cross_view_weight = 1.0
    calls.clear()
    model.eval()(**batch_with_context(model_type))
    assert calls == [1]


def test_a_negative_weight_of_the_divergence_is_refused():
    with pytest.raises(Exception, match="is no weight of a loss"):
        make_model("text_only", cross_view_weight=-1.0)


# ----------------------------------------------------------------------------------------- saving, pipeline, explaining


@of_every_system
def test_the_context_is_saved_and_loaded_with_the_processor(model_type, tmp_path):
    model, processor = make_model(model_type, cross_view_weight=0.5), make_processor(model_type, context=COLUMNS)
    model.save_pretrained(tmp_path)
    processor.save_pretrained(tmp_path)
    assert json.loads((tmp_path / "processor_config.json").read_text())["context"] == COLUMNS
    again = AutoProcessor.from_pretrained(tmp_path)
    assert type(again) is type(processor)
    assert (again.context, again.columns, again.describers) == (COLUMNS, processor.columns, processor.describers)
    assert_equal(again.batch(again.prepare(posts_with_context())), batch_with_context(model_type, labels=False))
    assert AutoModelForTokenClassification.from_pretrained(tmp_path).config.cross_view_weight == 0.5


def test_saved_models_read_their_context_where_this_package_is_not_installed(tmp_path, monkeypatch):
    import test_systems

    post = {"text": "Anna meets Bob Marley", "caption": "the cat of Paris", "object_labels": ["cat"]}
    code = test_systems.WITHOUT_PACKAGE.replace('"Anna meets Bob Marley"', repr(post))
    assert code != test_systems.WITHOUT_PACKAGE
    monkeypatch.setattr(test_systems, "WITHOUT_PACKAGE", code)
    folders = {}
    for model_type in SYSTEMS:
        folders[model_type] = tmp_path / model_type
        make_model(model_type).save_pretrained(folders[model_type])
        make_processor(model_type, context=COLUMNS).save_pretrained(folders[model_type])
    tags = without_package(folders.values(), tmp_path)
    for model_type, folder in folders.items():
        processor = make_processor(model_type, context=COLUMNS)
        tagger = MultimodalNerPipeline(make_model(model_type), processor=processor, device="cpu")
        expected = tagger(post, aggregation_strategy="none")
        assert [score for _, score in tags[str(folder)]] == pytest.approx([row["score"] for row in expected], abs=1e-4)
        without = tagger(post["text"], aggregation_strategy="none")
        assert [row["score"] for row in without] != pytest.approx([row["score"] for row in expected], abs=1e-5)


@with_every_decoder
@of_every_system
def test_the_pipeline_reads_contexts_in_every_batch_size(model_type, label_decoder):
    model = make_model(model_type, label_decoder=label_decoder)
    tagger = MultimodalNerPipeline(model, processor=make_processor(model_type, context=COLUMNS), device="cpu")
    one = tagger(posts_with_context(), batch_size=1, aggregation_strategy="none")
    many = tagger(posts_with_context(), batch_size=3, aggregation_strategy="none")
    plain = MultimodalNerPipeline(model, processor=make_processor(model_type), device="cpu")
    without = plain(posts_with_context(), aggregation_strategy="none")
    for i, (words, others) in enumerate(zip(one, many, strict=True)):
        scores = [word["score"] for word in words]
        assert scores == pytest.approx([word["score"] for word in others], abs=1e-4)
        same = scores == pytest.approx([word["score"] for word in without[i]], abs=1e-5)
        assert same == (i == 2)


def test_a_context_that_is_no_text_is_the_error_of_its_post_alone():
    processor = make_processor("text_only", context=["caption"])
    tagger = MultimodalNerPipeline(make_model("text_only"), processor=processor, device="cpu")
    good, bad = tagger([{"text": "Anna", "caption": "a cat"}, {"text": "Anna", "caption": 5}])
    assert isinstance(good, list)
    assert "caption must be text, a list of texts or None" in bad["error"]


@of_every_system
def test_an_explanation_says_what_the_context_is_worth(model_type):
    model, processor = make_model(model_type), make_processor(model_type, context=COLUMNS)
    post = posts_with_context()[0]
    columns = {name: post[name] for name in processor.columns if name in post and name != "image"}
    explanation = explain(model, processor, words=post["words"], image=post["image"], **columns)
    place = [node["kind"] for node in explanation.nodes].index("context")
    assert explanation.nodes[place]["text"] == "Anna and Bob Marley sing cat , user"
    batch = batch_with_context(model_type, [post], labels=False)
    nodes = sum(int(batch[mask].sum()) for mask in node_masks(model_type, batch))
    assert len(explanation.nodes) == nodes + 1 and explanation.entities
    without = {name: columns[name] for name in columns if name not in COLUMNS} | dict.fromkeys(COLUMNS)
    tagger = MultimodalNerPipeline(model, processor=processor, device="cpu")
    expected = tagger({"words": post["words"], "image": post["image"]} | without)
    for entity in explanation.entities:
        (link,) = (link for link in entity["nodes"] if link["node"] == place)
        same = [own for own in expected if (own["start"], own["end"]) == (entity["start"], entity["end"])]
        if (
            same and same[0]["entity_group"] == entity["entity_group"] and model_type != "rgcn"
        ):  # whose labels find more
            assert link["score_without"] == pytest.approx(same[0]["score"], abs=1e-4)
        assert link["weight"] is None
    assert "context" in explanation.to_html()
    assert explanation.to_image().width > 0


# ------------------------------------------------------------------------------- context that is found in the picture


class Describing:
    """Stands for a model that describes pictures; counts what it is asked."""

    def __init__(self, answer):
        self.answer = answer
        self.pictures = 0

    def __call__(self, pictures):
        self.pictures += len(pictures)
        return [self.answer] * len(pictures)


@of_every_system
def test_what_a_post_lacks_of_its_context_is_found_as_for_the_training(model_type, monkeypatch):
    captioner, labeler = Describing("Anna and Bob Marley sing"), Describing(["cat", "user"])
    asked = {Captioner: captioner, ObjectLabeler: labeler}
    for describer, answer in asked.items():
        monkeypatch.setattr(describer, "from_source", lambda source, answer=answer: answer)
    processor = make_processor(model_type, context=COLUMNS)
    sources = {"caption": {"captioner": f"a/{model_type}"}, "object_labels": {"labeler": f"b/{model_type}"}}
    processor.remember_sources(["tokens", "caption", "object_labels"], sources)
    tagger = MultimodalNerPipeline(make_model(model_type), processor=processor, device="cpu")
    first = posts_with_context()[0]
    bare = {name: value for name, value in first.items() if name not in COLUMNS}
    expected = tagger(first, aggregation_strategy="none")
    assert captioner.pictures == labeler.pictures == 0
    assert_same(tagger(bare, aggregation_strategy="none"), expected)
    assert_same(tagger([bare] * 3, batch_size=2, aggregation_strategy="none")[2], expected)
    assert captioner.pictures == labeler.pictures == 4
    assert tagger(bare | {"image": None}, aggregation_strategy="none")
    assert tagger(bare | dict.fromkeys(COLUMNS), aggregation_strategy="none")  # asked for: no context
    assert captioner.pictures == labeler.pictures == 4
    (prepared,) = processor.prepare([bare])
    assert prepared.context == "Anna and Bob Marley sing cat , user".split()
    assert (prepared.picture is not None) == processor.reads_pictures


def test_a_describer_may_be_given_and_a_broken_picture_is_the_error_of_its_post():
    processor = make_processor("text_only", context=["caption"])
    tagger = MultimodalNerPipeline(make_model("text_only"), processor=processor, device="cpu")
    captioner = Describing("the cat of Paris")
    post = {"text": "Anna meets Bob", "image": posts()[0]["image"]}
    expected = tagger({"text": post["text"], "caption": "the cat of Paris"}, aggregation_strategy="none")
    assert_same(tagger(post, captioner=captioner, aggregation_strategy="none"), expected)
    good, broken = tagger([post, post | {"image": b"no picture"}], captioner=captioner)
    assert isinstance(good, list) and "error" in broken
    with pytest.raises(ValueError, match="captioner: TextOnlyProcessor calls none"):
        MultimodalNerPipeline(tagger.model, processor=make_processor("text_only"), device="cpu")(
            post, captioner=captioner
        )


def test_captions_that_were_given_with_the_data_are_missed_once(said):
    processor = make_processor("text_only", context=["caption"])
    processor.remember_sources(["tokens", "caption"])
    tagger = MultimodalNerPipeline(make_model("text_only"), processor=processor, device="cpu")
    tagger([{"text": "Anna", "image": posts()[0]["image"]}] * 3)
    assert len(said) == 1
    assert "trained with caption, which were given with the data" in said[0] and "captioner=…" in said[0]


def test_what_is_not_read_is_explained(said):
    tagger = MultimodalNerPipeline(make_model("text_only"), processor=make_processor("text_only"), device="cpu")
    tagger({"text": "Anna", "caption": "a cat"})
    assert len(said) == 1
    assert said[0].startswith("Posts have keys that are not read: caption. A model reads such texts that was trained")
    assert """--processor_overrides '{"context": ["caption"]}'.""" in said[0]
