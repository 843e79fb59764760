"""VG: its equations, computed a second time word by word."""

import numpy as np
import pytest
import torch
from huggingface_hub.errors import StrictDataclassError
from systems_under_test import make_batch, make_model
from test_modeling_bilstm import lstm_by_hand, sigmoid

from modeling_umgf import VgConfig
from modeling_umgf.modeling_multimodal_ner import Pieces


def linear(layer, x):
    """A linear layer, in numpy."""
    result = x @ layer.weight.detach().numpy().T
    return result if layer.bias is None else result + layer.bias.detach().numpy()


def fused_by_hand(model, x, v):
    """States w [w, d] of words x [w, h] that see regions v [R, F], and their gates: Lu et al. (2018), section 3."""
    a = model.config.d_model // 2
    q = lstm_by_hand(model.query_lstm.lstm, x, np.zeros(a))[-1]
    v = linear(model.region_projection, v)
    scores = []
    for v_r in v:
        A_r = np.tanh(linear(model.attention.query, q) + linear(model.region_key, v_r))
        scores.append(linear(model.attention.score, A_r)[0])
    alpha = np.exp(scores) / np.exp(scores).sum()
    v_c = sum(alpha_r * v_r for alpha_r, v_r in zip(alpha, v, strict=True))
    forth = lstm_by_hand(model.tagging_lstm.forth.lstm, x, v_c)
    back = lstm_by_hand(model.tagging_lstm.back.lstm, x[::-1], v_c)[::-1]
    states = []
    gates = []
    for h_i in np.concatenate([forth, back], axis=1):
        hv = np.concatenate([h_i, v_c])
        b_v, b_w = sigmoid(linear(model.visual_gate, hv)), sigmoid(linear(model.word_gate, hv))
        states.append(b_w * h_i + b_v * np.tanh(linear(model.modulation, hv)))
        gates.append(b_v.mean() * alpha)
    return np.stack(states), np.stack(gates)


def test_words_are_modulated_as_the_equations_say():
    model = make_model("vg").model
    generator = torch.Generator().manual_seed(0)
    x, v = torch.randn(1, 4, 16, generator=generator), torch.randn(1, 3, 16, generator=generator)
    mask = torch.tensor([[True, True, True, False]])
    region_mask = torch.tensor([[True, True, False]])
    result = model.fuse(Pieces(x, mask), object_features=v, object_mask=region_mask)
    states, gates = fused_by_hand(model, x[0, :3].double().numpy(), v[0, :2].double().numpy())
    np.testing.assert_allclose(result.states[0, :3].detach(), states, atol=1e-5)
    np.testing.assert_allclose(result.gates["objects"][0, :3, :2].detach(), gates, atol=1e-5)
    assert not result.gates["objects"][..., 2].any()


def test_what_the_post_says_decides_which_region_it_sees():
    """With the query outside the tanh every post would see the same regions of a picture."""
    model = make_model("vg").model
    v = torch.randn(1, 3, 16)
    gates = [model.fuse(Pieces(torch.randn(1, 2, 16) * 3, torch.ones(1, 2).bool()), None, v).gates for _ in range(2)]
    one, two = (own["objects"] / own["objects"].sum(-1, keepdim=True) for own in gates)
    assert not torch.allclose(one, two, atol=1e-3)


def test_without_a_picture_the_words_are_gated_and_nothing_is_added():
    model = make_model("vg").model
    x, mask = torch.randn(1, 3, 16), torch.ones(1, 3).bool()
    h, _ = model.tagging_lstm(x, mask)
    b_w = torch.sigmoid(model.word_gate(torch.cat([h, h.new_zeros(1, 3, 8)], dim=-1)))
    torch.testing.assert_close(model.fuse(Pieces(x, mask)).states, b_w * h)


def test_the_cells_of_a_picture_are_its_regions():
    model, batch = make_model("vg"), make_batch("vg", labels=False)
    cells, _ = model.model.encode_objects(torch.zeros(3, 1, 1), batch["pixel_values"], None, batch["object_mask"])
    regions = cells.flatten(1, 2)
    given = {name: batch[name] for name in ("input_ids", "attention_mask", "word_starts")}
    mask = batch["object_mask"].repeat_interleave(cells.shape[2], 1)
    assert cells.shape[2] > 1
    by_features = model(**given, object_features=regions, object_mask=mask)
    torch.testing.assert_close(model(**batch).logits, by_features.logits)


def test_an_odd_width_is_refused():
    with pytest.raises(StrictDataclassError, match="d_model=15 is odd"):
        VgConfig(d_model=15)


def test_its_text_encoder_is_by_default_that_of_the_paper():
    text = VgConfig().text_config
    assert (text.model_type, text.characters, text.num_hidden_layers) == ("bilstm", "lstm", 0)
