"""ACoA: its equations, computed a second time word by word."""

import numpy as np
import torch
from systems_under_test import make_model
from test_modeling_bilstm import sigmoid
from test_modeling_vg import linear

from modeling_umgf import AcoaConfig
from modeling_umgf.modeling_multimodal_ner import Pieces


def attended(attention, query, keys):
    """Weights of keys [k, d] for one query."""
    scores = [linear(attention.score, np.tanh(linear(attention.query, query) + key))[0] for key in keys]
    return np.exp(scores) / np.exp(scores).sum()


def fused_by_hand(model, h, v):
    """States [w, 2 d] of words h [w, h] that see regions v [R, F], and their gates: Zhang et al. (2018)."""
    keys, v = linear(model.region_key, v), linear(model.region_projection, v)
    words = linear(model.word_projection, h)
    states = []
    gates = []
    for h_t in h:
        alpha = attended(model.visual_attention, h_t, keys)
        v_hat = sum(weight * region for weight, region in zip(alpha, v, strict=True))
        beta = attended(model.textual_attention, v_hat, words)
        h_hat = sum(weight * word for weight, word in zip(beta, words, strict=True))
        v_hat, h_hat = np.tanh(linear(model.visual_state, v_hat)), np.tanh(linear(model.textual_state, h_hat))
        g = sigmoid(linear(model.fusion_gate, v_hat + h_hat))
        m = linear(model.fusion, np.concatenate([g * v_hat, (1 - g) * h_hat]))
        s = sigmoid(linear(model.filtration_gate, np.concatenate([h_t, m])))
        states.append(np.concatenate([s * m, linear(model.output, h_t)]))
        gates.append(s * g * alpha)
    return np.stack(states), np.stack(gates)


def some_post():
    """Three words and one of padding, two regions and one that isn't there."""
    generator = torch.Generator().manual_seed(0)
    h, v = torch.randn(1, 4, 16, generator=generator), torch.randn(1, 3, 16, generator=generator)
    return h, torch.tensor([[True, True, True, False]]), v, torch.tensor([[True, True, False]])


def test_words_and_regions_attend_and_are_gated_as_the_equations_say():
    model = make_model("acoa").model
    h, mask, v, region_mask = some_post()
    result = model.fuse(Pieces(h, mask), object_features=v, object_mask=region_mask)
    states, gates = fused_by_hand(model, h[0, :3].double().numpy(), v[0, :2].double().numpy())
    np.testing.assert_allclose(result.states[0, :3].detach(), states, atol=1e-5)
    np.testing.assert_allclose(result.gates["objects"][0, :3, :2].detach(), gates, atol=1e-5)
    assert not result.gates["objects"][..., 2].any()


def test_padded_words_are_not_attended_to():
    """In the release they are."""
    model = make_model("acoa").model
    h, mask, v, region_mask = some_post()
    other = h.masked_fill(~mask[..., None], 9.0)
    one, two = (model.fuse(Pieces(own, mask), None, v, region_mask).states[:, :3] for own in (h, other))
    assert torch.equal(one, two)


def test_each_word_sees_regions_of_its_own():
    model = make_model("acoa").model
    h, mask, v, region_mask = some_post()
    gates = model.fuse(Pieces(h * 3, mask), None, v, region_mask).gates["objects"][0, :3, :2]
    shares = gates / gates.sum(-1, keepdim=True)
    assert not torch.allclose(shares[0], shares[1], atol=1e-3)


def test_without_a_picture_the_filter_is_closed():
    model = make_model("acoa").model
    h, mask, _, _ = some_post()
    states = model.fuse(Pieces(h, mask)).states
    assert not states[..., :16].any()
    torch.testing.assert_close(states[..., 16:], model.output(h))


def test_its_text_encoder_is_by_default_that_of_the_paper():
    text = AcoaConfig().text_config
    assert (text.model_type, text.characters, text.hidden_size) == ("bilstm", "cnn", 400)
