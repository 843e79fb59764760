"""The BiLSTM text encoder: words, characters, padding, its tokenizer, and its way to the Hub."""

import math

import numpy as np
import pytest
import torch
from conftest import SENTENCES, tiny_config, tiny_labels
from huggingface_hub.errors import StrictDataclassError
from systems_under_test import make_model
from test_systems import without_package
from transformers import AutoConfig, AutoModel, AutoModelForTokenClassification, AutoProcessor

from modeling_umgf import (
    BilstmConfig,
    BilstmModel,
    MultimodalNerImageProcessor,
    MultimodalNerPipeline,
    SinglePictureProcessor,
    TextOnlyConfig,
    TextOnlyForTokenClassification,
    TextOnlyProcessor,
    VgConfig,
    VgForTokenClassification,
    train_word_tokenizer,
)
from modeling_umgf.layers import masked_softmax
from modeling_umgf.recurrent_layers import BiLstm
from modeling_umgf.tokenization_bilstm import character_ids

WORDS = [sentence.split() for sentence in SENTENCES]
of_every_kind = pytest.mark.parametrize("characters", ["none", "cnn", "lstm"])


def tokenizer(characters="lstm", **settings):
    return train_word_tokenizer(WORDS, characters=characters != "none", **{"min_count": 1} | settings)


def tiny_bilstm(characters="lstm", **settings) -> dict:
    sizes = {"vocab_size": len(tokenizer()), "embedding_size": 12, "hidden_size": 16}
    sizes |= {"character_embedding_size": 6, "character_size": 8}
    return {"model_type": "bilstm", "characters": characters, **sizes, **settings}


def text_only(characters="lstm", **settings) -> TextOnlyForTokenClassification:
    torch.manual_seed(0)
    config = TextOnlyConfig(text_config=tiny_bilstm(characters), **tiny_labels(), **settings)
    return TextOnlyForTokenClassification(config).eval()


# -------------------------------------------------------------------------------------------------- the equations


def sigmoid(x):
    return 1 / (1 + np.exp(-x))


def lstm_by_hand(lstm: torch.nn.LSTM, inputs: np.ndarray, h: np.ndarray) -> np.ndarray:
    """States [n, d] of an LSTM that reads inputs [n, i]: Hochreiter and Schmidhuber (1997) with forget gates."""
    W, U, b, c_bias = (parameter.detach().numpy() for parameter in lstm.parameters())
    c = np.zeros_like(h)
    states = []
    for x in inputs:
        i, f, g, o = np.split(W @ x + b + U @ h + c_bias, 4)
        c = sigmoid(f) * c + sigmoid(i) * np.tanh(g)
        h = sigmoid(o) * np.tanh(c)
        states.append(h)
    return np.stack(states)


@pytest.mark.parametrize("mask", [[1, 1, 1, 1, 0], [0, 0, 1, 1, 1], [1, 0, 1, 0, 1], [0, 1, 0, 0, 0]])
def test_a_bilstm_reads_what_is_real_in_both_directions_wherever_that_is(mask):
    torch.manual_seed(0)
    layer, x, mask = BiLstm(3, 8), torch.randn(1, 5, 3), torch.tensor([mask]).bool()
    h_0 = torch.randn(1, 4)
    real, begin = x[mask].numpy(), h_0[0].numpy()
    forth = lstm_by_hand(layer.forth.lstm, real, begin)
    back = lstm_by_hand(layer.back.lstm, real[::-1], begin)[::-1]
    states, last = layer(x.masked_fill(~mask[..., None], 7.0), mask, h_0)
    expected = torch.from_numpy(np.concatenate([forth, back], axis=1))
    torch.testing.assert_close(states[mask], expected, atol=1e-5, rtol=1e-5)
    torch.testing.assert_close(last[0], torch.cat([expected[-1, :4], expected[0, 4:]]), atol=1e-5, rtol=1e-5)
    assert not states[~mask].any()


def test_where_nothing_is_real_the_last_state_is_the_first():
    layer, h_0 = BiLstm(3, 8), torch.randn(1, 4)
    states, last = layer(torch.randn(1, 2, 3), torch.zeros(1, 2, dtype=torch.bool), h_0)
    assert torch.equal(last, h_0.repeat(1, 2)) and not states.any()


def test_a_softmax_over_nothing_is_zero():
    mask = torch.tensor([[True, False], [False, False]])
    assert masked_softmax(torch.tensor([[1.0, 5.0], [2.0, 3.0]]), mask).tolist() == [[1.0, 0.0], [0.0, 0.0]]


def test_a_cnn_takes_the_largest_value_of_each_filter_over_the_characters_alone():
    torch.manual_seed(0)
    model = BilstmModel(BilstmConfig(**tiny_bilstm("cnn", num_hidden_layers=0, hidden_size=20))).eval()
    ids = character_ids(["Bob"])[None]  # [1, 1, 30]
    states = model(torch.tensor([[3]]), character_ids=ids).last_hidden_state[0, 0]
    assert torch.equal(states[:12], model.word_embeddings.weight[3])
    letters = model.character_embeddings(ids[0, 0, :3]).detach().numpy()  # [3, e]
    padded = np.concatenate([np.zeros((1, 6)), letters, np.zeros((1, 6))])
    W, b = (parameter.detach().numpy() for parameter in model.character_encoder.convolution.parameters())  # [8, e, 3]
    values = [np.einsum("fek,ke->f", W, padded[k : k + 3]) + b for k in range(3)]
    np.testing.assert_allclose(states[12:].detach().numpy(), np.max(values, axis=0), atol=1e-5)


def test_an_lstm_over_characters_gives_its_last_state_in_each_direction():
    torch.manual_seed(0)
    model = BilstmModel(BilstmConfig(**tiny_bilstm("lstm", num_hidden_layers=0, hidden_size=20))).eval()
    ids = character_ids(["Rome"])[None]
    states = model(torch.tensor([[3]]), character_ids=ids).last_hidden_state[0, 0, 12:]
    letters = model.character_embeddings(ids[0, 0, :4]).detach().numpy()
    forth, back = model.character_encoder.bilstm.forth.lstm, model.character_encoder.bilstm.back.lstm
    begin = np.zeros(4, dtype=np.float32)
    expected = [lstm_by_hand(forth, letters, begin)[-1], lstm_by_hand(back, letters[::-1], begin)[-1]]
    np.testing.assert_allclose(states.detach().numpy(), np.concatenate(expected), atol=1e-5)


# ------------------------------------------------------------------------------------------------ words, characters


def test_every_word_is_one_piece_digits_are_zeros_and_rare_words_unknown():
    own = train_word_tokenizer([["route", "66", "is", "open"], ["route", "99"]], min_count=2)
    ids = own([["route", "12", "is", "New York"]], is_split_into_words=True)
    assert ids.word_ids(0) == [0, 1, 2, 3]
    assert own.convert_ids_to_tokens(ids["input_ids"][0]) == ["route", "00", "[UNK]", "[UNK]"]


def test_characters_are_the_bytes_of_a_word_none_is_unknown_and_long_words_are_cut():
    ids = character_ids(["Bé", None, "x" * 99])
    assert ids[0, :5].tolist() == [1 + byte for byte in "Bé".encode()] + [0, 0]
    assert not ids[1].any()
    assert ids.shape == (3, 30) and (ids[2] == 1 + ord("x")).all()


def test_a_tokenizer_that_was_saved_still_asks_for_characters(tmp_path):
    TextOnlyProcessor(tokenizer()).save_pretrained(tmp_path)
    batch = AutoProcessor.from_pretrained(tmp_path)(words=WORDS)
    assert batch["character_ids"].shape == (3, 6, 30)
    assert "character_ids" not in TextOnlyProcessor(tokenizer("none"))(words=WORDS)


@pytest.mark.parametrize("options", [{}, {"padding": "max_length", "max_length": 9}, {"pad_to_multiple_of": 4}])
@pytest.mark.parametrize("side", ["left", "right"])
def test_characters_are_padded_where_their_words_are(side, options):
    batch = TextOnlyProcessor(tokenizer())(words=WORDS, padding_side=side, **options)
    assert batch["character_ids"].shape[:2] == batch["input_ids"].shape
    assert torch.equal(batch["character_ids"].any(-1), batch["attention_mask"].bool())
    for row, words in enumerate(WORDS):
        for start, word in zip(batch["word_starts"][row], words, strict=False):
            assert torch.equal(batch["character_ids"][row, start], character_ids([word])[0])


def test_a_post_without_words_is_read_in_a_batch_and_alone():
    processor, model = TextOnlyProcessor(tokenizer()), text_only()
    assert model(**processor(words=[[], WORDS[0]])).predictions[0].tolist() == [-100] * 6
    assert model(**processor(words=[[]])).predictions.tolist() == [[-100]]


@of_every_kind
@pytest.mark.parametrize("side", ["left", "right"])
def test_padding_changes_nothing(characters, side):
    processor, model = TextOnlyProcessor(tokenizer(characters)), text_only(characters)
    together = model(**processor(words=WORDS, padding_side=side, padding="max_length", max_length=11)).logits
    for row, words in enumerate(WORDS):
        alone = model(**processor(words=[words])).logits[0]
        torch.testing.assert_close(together[row, : len(words)], alone, atol=1e-5, rtol=1e-4)


def test_words_that_are_unknown_differ_by_their_characters():
    for characters, differ in (("none", False), ("cnn", True), ("lstm", True)):
        batch = TextOnlyProcessor(tokenizer(characters))(words=[["Xavier"], ["xylophone"]])
        one, two = text_only(characters)(**batch).logits
        assert torch.allclose(one, two) is not differ


@of_every_kind
def test_everything_in_it_learns_also_with_word_dropout(characters):
    model = text_only(characters, word_dropout=0.3).train()
    torch.manual_seed(1)
    labels = [[1] * len(words) for words in WORDS]
    model(**TextOnlyProcessor(tokenizer(characters))(words=WORDS, labels=labels)).loss.backward()
    still = [name for name, p in model.named_parameters() if p.grad is None or not p.grad.any()]
    assert [name for name in still if "bias" not in name] == []


def test_embeddings_begin_spread_evenly_and_padding_at_zero():
    model = BilstmModel(BilstmConfig(vocab_size=500, characters="cnn"))
    for weight in (model.word_embeddings.weight, model.character_embeddings.weight):
        bound = math.sqrt(3 / weight.shape[1])
        assert 0.9 * bound < weight.abs().max() <= bound
        assert not weight[0].any()


def test_states_of_all_layers_are_handed_out_on_request():
    model = BilstmModel(BilstmConfig(**tiny_bilstm("none", num_hidden_layers=2)))
    states = model(torch.tensor([[3, 4]]), output_hidden_states=True).hidden_states
    assert [state.shape[-1] for state in states] == [12, 16, 16]
    assert model(torch.tensor([[3, 4]])).hidden_states is None


def test_characters_that_are_missing_or_too_many_are_named():
    batch = TextOnlyProcessor(tokenizer("none"))(words=WORDS)
    with pytest.raises(ValueError, match=r"characters='lstm', but the batch has no character_ids: .*characters=True"):
        text_only("lstm")(**batch)
    batch = TextOnlyProcessor(tokenizer("lstm"))(words=WORDS)
    with pytest.raises(ValueError, match=r"characters='none', but the batch has its character_ids"):
        text_only("none")(**batch)


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"hidden_size": 7}, "hidden_size=7 is odd"),
        ({"characters": "lstm", "character_size": 5}, "character_size=5 is odd"),
        ({"num_hidden_layers": 0, "characters": "cnn"}, "hidden_size=200 must be 250"),
        ({"characters": "bytes"}, "characters"),
    ],
)
def test_sizes_that_no_bilstm_has_are_refused(settings, message):
    with pytest.raises(StrictDataclassError, match=message):
        BilstmConfig(**settings)


# ------------------------------------------------------------------------------------------------- saving, sharing


@of_every_kind
def test_a_tagger_on_a_bilstm_is_saved_and_loaded_to_the_last_bit(characters, tmp_path):
    model, processor = text_only(characters), TextOnlyProcessor(tokenizer(characters))
    model.save_pretrained(tmp_path)
    processor.save_pretrained(tmp_path)
    assert type(AutoConfig.from_pretrained(tmp_path).text_config) is BilstmConfig
    loaded = AutoModelForTokenClassification.from_pretrained(tmp_path)
    assert type(loaded.model.text_model) is BilstmModel
    batch = AutoProcessor.from_pretrained(tmp_path)(words=WORDS)
    assert torch.equal(loaded(**batch).logits, model(**processor(words=WORDS)).logits)


def test_an_encoder_of_its_own_is_saved_and_starts_another_tagger(tmp_path):
    encoder = AutoModel.from_config(BilstmConfig(**tiny_bilstm("cnn")))
    encoder.save_pretrained(tmp_path)
    model = TextOnlyForTokenClassification.from_text_vision_pretrained(tmp_path, labels=["O", "B-PER"])
    own = model.model.text_model.state_dict()
    assert all(torch.equal(value, own[name]) for name, value in encoder.state_dict().items())


def seeing_tagger() -> tuple[VgForTokenClassification, SinglePictureProcessor]:
    """A tagger whose own modules carry the BiLSTM."""
    torch.manual_seed(0)
    text = tiny_bilstm("lstm", num_hidden_layers=0, hidden_size=20)
    config = VgConfig(text_config=text, vision_config=tiny_config().vision_config.to_dict(), d_model=8, **tiny_labels())
    pictures = MultimodalNerImageProcessor(size={"height": 32, "width": 32})
    return VgForTokenClassification(config).eval(), SinglePictureProcessor(pictures, tokenizer())


def test_a_tagger_on_a_bilstm_works_where_this_package_is_not_installed(tmp_path):
    model, processor = seeing_tagger()
    folders = [tmp_path / "one", tmp_path / "two"]  # each with a copy of the code
    for folder in folders:
        model.save_pretrained(folder)
        processor.save_pretrained(folder)
    tags = without_package([*folders, folders[0] / "again"], tmp_path)
    tagger = MultimodalNerPipeline(model, processor=processor, device="cpu")
    expected = tagger("Anna meets Bob Marley", aggregation_strategy="none")
    assert len(tags) == 3
    for own in tags.values():
        assert [score for _, score in own] == pytest.approx([word["score"] for word in expected], abs=1e-4)


def test_a_bilstm_fits_where_a_transformer_did():
    model = make_model("umgf", text_config=tiny_bilstm("cnn"))
    batch = TextOnlyProcessor(tokenizer())(words=WORDS, labels=[[0] * len(words) for words in WORDS])
    assert torch.isfinite(model(**batch).loss)
