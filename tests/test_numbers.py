"""Extreme numbers: scores of ±10,000, half precisions, gradients to the last digits of float64, the same bits twice."""

from typing import Literal, get_args, get_origin

import pytest
import torch
from conftest import LABELS, rgcn_config
from huggingface_hub.errors import StrictDataclassError
from systems_under_test import SYSTEMS, make_batch, make_model
from torch.autograd import gradcheck
from transformers import enable_full_determinism
from transformers.modeling_outputs import BaseModelOutput

from modeling_umgf.decoders import LABEL_DECODERS
from modeling_umgf.labels import bio_transition_penalty
from modeling_umgf.modeling_rgcn import StarGraphConvolution
from modeling_umgf.systems import systems

pytestmark = pytest.mark.filterwarnings("ignore:The PyTorch API of nested tensors")
of_every_system = pytest.mark.parametrize("model_type", SYSTEMS)
with_every_decoder = pytest.mark.parametrize("decoder", list(LABEL_DECODERS))
PENALTY = bio_transition_penalty(dict(enumerate(LABELS)))
L = len(LABELS)


def make_decoder(name: str):
    torch.manual_seed(0)
    return LABEL_DECODERS[name](L)


# ----------------------------------------------------------------------------------------------------- label decoders


@pytest.mark.parametrize("size", [1e4, 1e30])
@with_every_decoder
def test_extreme_emissions_give_finite_losses_and_the_labels_that_they_say(decoder, size):
    decoder = make_decoder(decoder)
    gold = torch.tensor([[0, 1, 2, 0], [3, 4, 4, 0]])
    emissions = torch.full((2, 4, L), -size).scatter(2, gold[..., None], size).requires_grad_()
    mask = torch.tensor([[True] * 4, [True, True, True, False]])
    assert torch.equal(decoder.decode(emissions, mask), gold.masked_fill(~mask, -100))
    assert torch.equal(decoder.decode(emissions, mask, PENALTY), gold.masked_fill(~mask, -100))
    right = decoder.loss(emissions, gold, mask)
    wrong = decoder.loss(emissions, (gold + 1) % L, mask)
    assert torch.isfinite(right).all() and torch.isfinite(wrong).all()
    assert (right < 1e-3 * wrong).all() and (wrong > size).all()
    wrong.sum().backward()
    assert torch.isfinite(emissions.grad).all()
    marginals = decoder.marginals(emissions.detach(), mask)
    torch.testing.assert_close(marginals.sum(-1), mask.float())
    score = decoder.span_probability(emissions.detach(), mask, [0], [1], [3], [[1, 2]])
    assert 0.99 < score.item() <= 1


@with_every_decoder
def test_rows_without_words_and_posts_of_one_word(decoder):
    decoder = make_decoder(decoder)
    emissions = torch.randn(3, 1, L, requires_grad=True)
    mask = torch.tensor([[True], [False], [True]])
    loss = decoder.loss(emissions, torch.tensor([[1], [-100], [4]]), mask)
    assert loss[1] == 0 and (loss[[0, 2]] > 0).all()
    loss.sum().backward()
    assert not emissions.grad[1].any() and emissions.grad[0].any()
    assert decoder.decode(emissions, mask)[1].tolist() == [-100]
    assert decoder.decode(emissions, mask, PENALTY)[0].item() in (0, 1, 3)
    assert not decoder.marginals(emissions, mask)[1].any()
    empty = torch.zeros(2, 3, dtype=torch.bool)
    assert not decoder.loss(torch.randn(2, 3, L), torch.full((2, 3), -100), empty).any()


@pytest.mark.parametrize("hole", [float("nan"), float("inf"), float("-inf")])
@with_every_decoder
def test_what_stands_at_masked_words_does_not_matter(decoder, hole):
    decoder = make_decoder(decoder)
    emissions = torch.randn(2, 5, L)
    mask = torch.tensor([[True, False, True, True, False], [False, True, True, False, False]])
    tags = torch.randint(0, L, (2, 5)).masked_fill(~mask, -100)
    dirty = emissions.masked_fill(~mask[..., None], hole)
    clean = emissions.masked_fill(~mask[..., None], 0).requires_grad_()
    dirty.requires_grad_()
    for one in (clean, dirty):
        decoder.loss(one, tags, mask).sum().backward()
    torch.testing.assert_close(dirty.grad, clean.grad)
    assert torch.equal(decoder.decode(dirty, mask), decoder.decode(clean, mask))
    torch.testing.assert_close(decoder.marginals(dirty, mask), decoder.marginals(clean, mask))


# ------------------------------------------------------------------------------------------------------------ fusions


def in_float64(batch: dict) -> dict:
    return {name: tensor.double() if tensor.is_floating_point() else tensor for name, tensor in batch.items()}


@of_every_system
def test_gradients_of_the_fusion_are_those_of_finite_differences(model_type, monkeypatch):
    """By what the text encoder and the image encoder say, in the directions of random vectors."""
    model = make_model(model_type).double()
    batch = in_float64(make_batch(model_type, labels=False))
    base = model.model
    direction = torch.Generator().manual_seed(0)
    with torch.no_grad():
        text = base.encode_text(batch["input_ids"], batch["attention_mask"]).last_hidden_state
        inputs = {"text": text}
        if "pixel_values" in batch:
            inputs["object_features"] = base.encode_pictures(batch.pop("pixel_values"), batch["object_mask"])
    names = list(inputs)
    directions = [torch.randn(own.shape, generator=direction, dtype=torch.float64) for own in inputs.values()]
    weights = None

    def along(*steps):
        nonlocal weights
        given = {name: inputs[name] + step * way for name, step, way in zip(names, steps, directions, strict=True)}
        states = given.pop("text")
        monkeypatch.setattr(base, "encode_text", lambda *_, **__: BaseModelOutput(last_hidden_state=states))
        output = base(**batch | given)
        states = output.last_hidden_state.masked_fill(~output.word_mask[..., None], 0)
        if weights is None:
            weights = torch.randn(states.shape, generator=direction, dtype=torch.float64)
        return (states * weights).sum()

    steps = tuple(torch.zeros((), dtype=torch.float64, requires_grad=True) for _ in names)
    assert gradcheck(along, steps, eps=1e-6, atol=1e-4, rtol=1e-3)


@pytest.mark.parametrize("settings", [{}, {"readout": "mean"}, {"gcn_norm": "none"}])
def test_gradients_of_the_star_convolution_are_those_of_finite_differences(settings):
    torch.manual_seed(0)
    star = StarGraphConvolution(rgcn_config(**settings)).double()
    hub, spokes = torch.randn(2, 1, 16), torch.randn(2, 3, 1, 16)
    given = [tensor.double().requires_grad_() for tensor in (hub, spokes, torch.rand(2, 3) + 0.1)]
    mask = torch.tensor([[True, True, False], [False, False, False]])
    assert gradcheck(lambda *given: star(*given, mask)[0], given)


# ----------------------------------------------------------------------------------------------------- half precisions


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
@of_every_system
def test_half_precision_tags_with_finite_numbers(model_type, dtype):
    model, batch = make_model(model_type), make_batch(model_type)
    expected = model(**batch).loss
    half = model.to(dtype)
    half.label_decoder.float()
    result = half(**batch)
    assert result.logits.dtype == torch.float32
    assert torch.isfinite(result.logits).all() and torch.isfinite(result.loss)
    assert abs(result.loss - expected) < 0.3 * expected


def switches(model_type: str) -> list[dict]:
    """Each setting of a system that has a few values, with each of its other ones."""
    config = systems()[model_type].config
    found = []
    bases = [base for base in reversed(config.__mro__) if base.__module__.startswith("modeling_umgf")]
    kinds = {name: kind for base in bases for name, kind in vars(base).get("__annotations__", {}).items()}
    for name, kind in kinds.items():
        values = (True, False) if kind is bool else get_args(kind) if get_origin(kind) is Literal else ()
        default = getattr(config, name, None)
        found += [{name: value} for value in values if value != default and name in config.own_settings()]
    return found


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
@of_every_system
def test_half_precision_works_with_every_switch(model_type, dtype):
    tried = 0
    for settings in switches(model_type):
        try:
            model = make_model(model_type, **settings)
        except (StrictDataclassError, ValueError, KeyError):  # contradicts another setting; or needs labels of pieces
            continue
        model = model.to(dtype).train()
        model.label_decoder.float()
        loss = model(**make_batch(model_type, letter_case=model.config.letter_case)).loss
        loss.backward()
        assert torch.isfinite(loss), settings
        broken = [name for name, p in model.named_parameters() if p.grad is not None and not p.grad.isfinite().all()]
        assert not broken, (settings, broken[:3])
        tried += 1
    assert tried > 3


@of_every_system
def test_infinite_numbers_in_real_places_make_no_labels_out_of_range(model_type):
    """They are refused where posts are read; a model that gets them none the less must not crash the process."""
    model, batch = make_model(model_type), make_batch(model_type)
    for name, tensor in batch.items():
        if tensor.is_floating_point():
            batch[name] = torch.full_like(tensor, float("inf"))
    predictions = model(**batch).predictions
    assert ((predictions >= 0) & (predictions < L) | (predictions == -100)).all()


@of_every_system
def test_full_determinism_gives_the_same_bits_twice(model_type):
    deterministic = torch.are_deterministic_algorithms_enabled()
    states = []
    try:
        for _ in range(2):
            enable_full_determinism(3)
            model, batch = make_model(model_type).train(), make_batch(model_type)
            optimizer = torch.optim.AdamW(model.parameters(), lr=1e-2)
            for _ in range(2):
                optimizer.zero_grad()
                model(**batch).loss.backward()
                optimizer.step()
            states.append(model.state_dict())
    finally:
        torch.use_deterministic_algorithms(deterministic)
    assert all(torch.equal(value, states[1][name]) for name, value in states[0].items())
