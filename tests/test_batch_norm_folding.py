"""Folding batch norms changes no number, keeps no copy, and stops where a batch norm learns."""

import copy
import io

import pytest
import torch
from test_image_encoder import ENCODERS, timm_config
from torch import nn

from modeling_umgf import image_encoder
from modeling_umgf.batch_norm_folding import PAIRS, folded_batch_norms
from modeling_umgf.image_encoder import build_encoder, feature_map

CNNS = {
    "ResNet": ENCODERS["ResNet"],
    "timm ResNet": ENCODERS["timm ResNet"],
    "timm EfficientNet": timm_config("test_efficientnet"),
    "timm ResNet-18": timm_config("resnet18"),
}

of_every_cnn = pytest.mark.parametrize("name", list(CNNS))


def make(name: str = "ResNet") -> nn.Module:
    """An encoder whose batch norms have learned something."""
    torch.manual_seed(0)
    encoder = build_encoder(CNNS[name]).eval()
    for norm in norms(encoder):
        norm.running_mean.normal_(std=0.2)
        norm.running_var.uniform_(0.5, 2)
        norm.weight.data.uniform_(0.5, 1.5)
        norm.bias.data.normal_(std=0.2)
    return encoder


def norms(encoder: nn.Module) -> list[nn.BatchNorm2d]:
    return [module for module in encoder.modules() if isinstance(module, nn.BatchNorm2d)]


def pictures(count: int = 5) -> torch.Tensor:
    return torch.randn(count, 3, 64, 64, generator=torch.Generator().manual_seed(1))


def plain(encoder: nn.Module, pixels: torch.Tensor) -> torch.Tensor:
    """The cells as the encoder makes them of its own accord."""
    states = encoder(pixel_values=pixels.clone()).last_hidden_state
    return states.flatten(2).transpose(1, 2)


def assert_unchanged(encoder: nn.Module, pixels: torch.Tensor, atol: float = 1e-4) -> None:
    torch.testing.assert_close(feature_map(encoder, pixels), plain(encoder, pixels), atol=atol, rtol=0)


@of_every_cnn
@torch.no_grad()
def test_cells_are_those_of_the_encoder_and_all_batch_norms_are_folded(name):
    encoder = make(name)
    for count in (1, 5, 40):
        assert_unchanged(encoder, pictures(count))
    assert len(PAIRS[encoder]) == len(norms(encoder)) > 3
    with folded_batch_norms(encoder, pictures()) as folding:
        encoder(pixel_values=pictures(40))
    assert len(folding.pairs) == len(norms(encoder))
    assert not folding.normalised  # whatever was folded was handed on by its batch norm


@torch.no_grad()
def test_every_run_gives_the_same_bits_the_first_one_too():
    encoder = make()
    first = feature_map(encoder, pictures())
    assert torch.equal(first, feature_map(encoder, pictures()))


@torch.no_grad()
def test_new_weights_count_at_once_however_they_came():
    encoder, other = make(), make()
    pixels = pictures()
    before = feature_map(encoder, pixels)
    norms(encoder)[0].weight.data.mul_(2)
    assert_unchanged(encoder, pixels)
    assert not torch.allclose(before, feature_map(encoder, pixels), atol=1e-3)
    encoder.load_state_dict(other.state_dict())
    assert torch.allclose(before, feature_map(encoder, pixels), atol=1e-6)
    encoder.load_state_dict({name: value + 0.01 for name, value in other.state_dict().items()}, assign=True)
    assert_unchanged(encoder, pixels)
    norms(encoder)[1].running_var.mul_(3)
    assert_unchanged(encoder, pixels)


@torch.no_grad()
def test_nothing_is_added_to_what_is_saved_copied_or_converted():
    encoder = make()
    names = list(encoder.state_dict())
    pixels = pictures()
    before = feature_map(encoder, pixels)
    assert list(encoder.state_dict()) == names
    assert all(value.is_contiguous() for value in encoder.state_dict().values())
    file = io.BytesIO()
    torch.save(encoder.state_dict(), file)
    assert torch.equal(feature_map(copy.deepcopy(encoder), pixels), before)
    assert_unchanged(encoder.double(), pixels.double(), atol=1e-9)
    half = feature_map(encoder.bfloat16(), pixels.bfloat16())
    assert half.dtype == torch.bfloat16
    assert (half - before).abs().max() < 0.05 * before.abs().max()
    with torch.autocast("cpu", torch.bfloat16):
        assert (feature_map(make(), pixels) - before).abs().max() < 0.05 * before.abs().max()


def test_gradients_are_those_of_the_encoder():
    encoder = make()
    gradients = []
    for run in (feature_map, plain):
        encoder.zero_grad()
        run(encoder, pictures()).square().mean().backward()
        gradients.append({name: parameter.grad.clone() for name, parameter in encoder.named_parameters()})
    torch.testing.assert_close(*gradients, atol=1e-5, rtol=1e-4)


def test_batch_norms_that_learn_are_left_alone_and_folded_again_afterwards():
    encoder, twin = make(), make()
    feature_map(encoder, pictures())
    torch.testing.assert_close(feature_map(encoder.train(), pictures()), plain(twin.train(), pictures()))
    torch.testing.assert_close(dict(encoder.named_buffers()), dict(twin.named_buffers()))
    with torch.no_grad():
        assert_unchanged(encoder.eval(), pictures())
    norms(encoder.eval())[0].train()
    with torch.no_grad():
        torch.testing.assert_close(feature_map(encoder, pictures()), plain(copy.deepcopy(encoder), pictures()))


class Adapter(nn.Module):
    """Adds something to what a convolution says, as low-rank adapters do."""

    def __init__(self, conv: nn.Conv2d):
        super().__init__()
        self.base_layer = conv
        self.other = copy.deepcopy(conv)

    @property
    def weight(self) -> torch.Tensor:
        return self.base_layer.weight

    def forward(self, states: torch.Tensor) -> torch.Tensor:
        return self.base_layer(states) + self.other(states)


@pytest.mark.parametrize("has_run", [True, False])
@torch.no_grad()
def test_what_comes_between_convolution_and_batch_norm_is_kept(has_run):
    encoder = make()
    if has_run:
        feature_map(encoder, pictures())
    layers = [module for module in encoder.modules() if isinstance(getattr(module, "convolution", None), nn.Conv2d)]
    layers[0].convolution.register_forward_hook(lambda module, args, output: 2 * output)
    layers[1].normalization.register_forward_pre_hook(lambda module, args: (args[0] + 1,))
    layers[2].convolution = Adapter(layers[2].convolution)
    layers[3].normalization = nn.Identity()
    assert_unchanged(encoder, pictures())


@torch.no_grad()
def test_many_pictures_are_looked_at_some_at_a_time(monkeypatch):
    encoder = make()
    monkeypatch.setattr(image_encoder, "PICTURES_AT_ONCE", 2)
    sizes = []
    encoder.register_forward_hook(lambda module, args, output: sizes.append(len(output.last_hidden_state)))
    assert_unchanged(encoder, pictures(5))
    assert sizes == [1, 2, 2, 1, 5]  # the first one finds what can be folded, the last is the plain run
