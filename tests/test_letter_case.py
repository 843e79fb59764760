"""The letter case of words reaches uncased text encoders, through every system, file and command."""

import pytest
import torch
from conftest import tiny_tokenizer
from datasets import DatasetDict
from finished_run import three_posts
from systems_under_test import LABEL_IDS, SYSTEMS, make_model, make_processor, posts
from transformers import pipeline

from modeling_umgf.letter_case import CAPITALISED, LOWER, MIXED, NO_CASE, UPPER, letter_cases, tell_letter_case
from modeling_umgf.model_arguments import ModelArguments, build


def told(model_type: str, **settings):
    """A processor that tells the letter case, behind a tokenizer that drops it."""
    tokenizer = tiny_tokenizer(lowercase=True)
    tell_letter_case(tokenizer)
    return make_processor(model_type, tokenizer=tokenizer, **settings)


def batch_of(processor, rows, labels=None):
    return dict(processor.batch(processor.prepare(rows), labels))


@pytest.mark.parametrize(
    ("word", "case"),
    [
        ("rome", LOWER),
        ("Rome", CAPITALISED),
        ("#Rome", CAPITALISED),
        ("I", CAPITALISED),
        ("O'Hara", MIXED),
        ("NASA", UPPER),
        ("G20's", CAPITALISED),
        ("iPhone", MIXED),
        ("2026", NO_CASE),
        ("😍", NO_CASE),
        ("東京", NO_CASE),
        ("", NO_CASE),
        (None, NO_CASE),
        ("Ünal", CAPITALISED),
        ("ÜNAL", UPPER),
        ("straße", LOWER),
    ],
)
def test_the_case_of_a_word(word, case):
    assert letter_cases([word]).tolist() == [case]


def test_every_piece_has_the_case_of_its_word_and_special_ones_have_none():
    processor = told("text_only", context=["caption"])
    batch = batch_of(processor, [{"words": ["Marley", "sleeps"], "caption": "in ROME"}])
    pieces = processor.tokenizer.convert_ids_to_tokens(batch["input_ids"][0])
    own = batch["letter_case"][0, 1 : batch["word_starts"][0, 1]]
    assert len(own) > 1 and own.eq(CAPITALISED).all()
    special = torch.tensor([piece in ("[CLS]", "[SEP]") for piece in pieces])
    assert batch["letter_case"][0, special].eq(NO_CASE).all()
    context = batch["context_mask"][0] & ~special
    assert set(batch["letter_case"][0, context].tolist()) == {LOWER, UPPER}
    assert batch["letter_case"].shape == batch["input_ids"].shape


@pytest.mark.parametrize("model_type", SYSTEMS)
def test_a_model_learns_to_tell_what_its_tokenizer_does_not(model_type):
    model = make_model(model_type, letter_case=True)
    processor = told(model_type)
    words = posts()
    lower = [post | {"words": [word.lower() for word in post["words"]]} for post in words]
    batch, other = batch_of(processor, words, LABEL_IDS), batch_of(processor, lower, LABEL_IDS)
    assert torch.equal(batch["input_ids"], other["input_ids"])
    same = model(**batch).logits
    assert torch.equal(same, model(**other).logits)  # the vectors are 0 at the start
    model.train()(**batch).loss.backward()
    assert model.base_model.letter_case.weight.grad[CAPITALISED].abs().sum() > 0
    model.eval().base_model.letter_case.weight.data.normal_(generator=torch.Generator().manual_seed(0))
    assert (model(**batch).logits - model(**other).logits).abs().max() > 0.01


@pytest.mark.parametrize("text", ["bert", "roberta"])
@pytest.mark.parametrize("word_dropout", [0.0, 1e-9])
def test_it_changes_nothing_with_padding_on_the_left(text, word_dropout):
    config = {"model_type": text, "vocab_size": 160, "hidden_size": 16, "num_hidden_layers": 2}
    config |= {"num_attention_heads": 2, "intermediate_size": 32, "max_position_embeddings": 80, "pad_token_id": 0}
    model = make_model("text_only", text_config=config, letter_case=True, word_dropout=word_dropout)
    model.base_model.letter_case.weight.data.normal_()
    for own in model.modules():
        if isinstance(own, torch.nn.Dropout):
            own.p = 0.0
    processor = told("text_only")
    prepared = processor.prepare(posts())
    sides = []
    for side in ("right", "left"):
        batch = processor.batch(prepared, options=processor.sort_options({"padding_side": side}))
        outputs = [model(**dict(batch)).logits]
        outputs += [model(**dict(batch), output_hidden_states=True).logits]  # not in shared rows
        real = batch["word_starts"] >= 0
        sides += [logits[real] for logits in outputs]
    for other in sides[1:]:
        torch.testing.assert_close(sides[0], other, atol=1e-5, rtol=1e-4)


@pytest.mark.parametrize("model_type", ["umgf", "rpbert"])
def test_a_tokenizer_that_does_not_fit_the_model_is_named(model_type):
    with pytest.raises(ValueError, match="model has letter_case=True, but the batch has no letter_case"):
        make_model(model_type, letter_case=True)(**batch_of(make_processor(model_type), posts()))
    with pytest.raises(ValueError, match="model has letter_case=False, but the batch has a letter_case"):
        make_model(model_type)(**batch_of(told(model_type), posts()))


def test_the_training_command_makes_both_and_a_saved_model_reads_it(tmp_path):
    encoder = make_model("text_only").base_model.text_model
    encoder.save_pretrained(tmp_path / "encoder")
    tiny_tokenizer(lowercase=True).save_pretrained(tmp_path / "encoder")
    splits = DatasetDict({"train": three_posts(pictures=False)})
    arguments = ModelArguments(
        model_type="umgf", text_model=str(tmp_path / "encoder"), config_overrides={"letter_case": True, "d_model": 16}
    )
    model, processor = build(arguments, splits)
    model.base_model.letter_case.weight.data.normal_(std=5)
    model.save_pretrained(tmp_path / "model")
    processor.save_pretrained(tmp_path / "model")

    tagger = pipeline("multimodal-ner", model=str(tmp_path / "model"))
    texts = ["Anna meets Bob Marley in Rome", "anna meets bob marley in rome"]
    for text, word in zip(texts, ("Anna", "anna"), strict=True):
        batch = batch_of(processor, [{"words": text.split()}])
        own = batch_of(tagger.processor, [{"words": text.split()}])
        assert torch.equal(batch["letter_case"], own["letter_case"])
        torch.testing.assert_close(tagger.model(**own).logits, model.eval()(**batch).logits)
        assert letter_cases([word])[0] == own["letter_case"][0, 1]
    first, second = (tagger.model(**batch_of(tagger.processor, [{"words": text.split()}])).logits for text in texts)
    assert (first - second).abs().max() > 0.01
