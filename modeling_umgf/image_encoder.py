"""Any image encoder of transformers or timm: loading it, its feature map, and the parts that this never uses."""

import inspect
import math
import os
from collections.abc import Iterator
from contextlib import contextmanager

import torch
from torch import nn
from torch.func import functional_call
from transformers import AutoConfig, AutoModel, PreTrainedConfig, PreTrainedModel

from .batch_norm_folding import folded_batch_norms
from .modeling_bilstm import BilstmModel  # noqa: F401 - a text encoder of this package: a saved model carries it

ATTENTION_FLAGS = {
    "sdpa": "_supports_sdpa",
    "flash_attention_2": "_supports_flash_attn",
    "flex_attention": "_supports_flex_attn",
}
PICTURES_AT_ONCE = 16
"""A processor is slower on more, whose maps it must fetch from memory again and again."""

ANY_SIZE = 224
"""Pixels of the pictures of an encoder whose configuration names no size, since it reads any."""


def load_image_encoder(name: str | os.PathLike, dtype: torch.dtype = torch.float32) -> PreTrainedModel:
    """Load an image encoder by its id or folder; of a model of pictures and texts, such as CLIP, its image half."""
    config = image_half(AutoConfig.from_pretrained(name))
    return AutoModel.from_pretrained(name, config=config, dtype=dtype).eval()


def image_half(config: PreTrainedConfig) -> PreTrainedConfig:
    """The configuration of the image encoder in one of pictures and texts; another one as it is."""
    return getattr(config, "vision_config", config)


def build_encoder(config: PreTrainedConfig) -> PreTrainedModel:
    """Build an encoder from its configuration, without a pooling layer where it can do without."""
    model_class = AutoModel._model_mapping[type(config)]
    flag = ATTENTION_FLAGS.get(config._attn_implementation)
    if flag and not getattr(model_class, flag):
        config._attn_implementation = None  # asked of the whole model: this part has no such attention
    has_choice = "add_pooling_layer" in inspect.signature(model_class.__init__).parameters
    return AutoModel.from_config(config, **({"add_pooling_layer": False} if has_choice else {}))


def feature_map(image_encoder: nn.Module, pictures: torch.Tensor) -> torch.Tensor:
    """Run an image encoder on pictures [N, 3, H, W]; returns its cells, row by row: [N, r, F].

    Channels come last in memory, as convolutions like it best, and batch norms that learn nothing are folded.
    """
    on_processor = pictures.device.type == "cpu"
    learns = torch.is_grad_enabled() and any(parameter.requires_grad for parameter in image_encoder.parameters())
    if not (on_processor and learns):  # oneDNN's gradients crash there for some numbers of channels
        pictures = pictures.contiguous(memory_format=torch.channels_last)
    if on_processor and not learns and not image_encoder.training and len(pictures) > PICTURES_AT_ONCE:
        return torch.cat([feature_map(image_encoder, part) for part in pictures.split(PICTURES_AT_ONCE)])
    with folded_batch_norms(image_encoder, pictures):
        states = image_encoder(pixel_values=pictures).last_hidden_state
    if states.ndim == 4:  # convolutional: [N, F, h, w], or [N, h, w, F] in some timm models
        channels_first = states.shape[2] == states.shape[3]
        return states.flatten(2).transpose(1, 2) if channels_first else states.flatten(1, 2)
    cells = math.isqrt(states.shape[1]) ** 2  # transformer: class and register tokens come before the patches
    return states[:, states.shape[1] - cells :]


def picture_size(config: PreTrainedConfig) -> tuple[int, int]:
    """Height and width of the pictures that an image encoder was made for."""
    size = getattr(config, "image_size", None)
    if config.model_type == "timm_wrapper":
        import timm

        arguments = config.model_args or {}
        pretrained = getattr(config, "pretrained_cfg", None) or {}
        known = timm.get_pretrained_cfg(config.architecture)
        size = arguments.get("img_size") or pretrained.get("input_size") or getattr(known, "input_size", None)
    if not size:
        return ANY_SIZE, ANY_SIZE
    return (size, size) if isinstance(size, int) else tuple(size[-2:])


def blank_picture(config: PreTrainedConfig, like: torch.Tensor) -> torch.Tensor:
    """A stand-in [1, 3, H, W] for a picture, of the type of `like`."""
    return like.new_zeros(1, getattr(config, "num_channels", 3), *picture_size(config))


def measure(image_encoder: PreTrainedModel) -> tuple[int, list[str]]:
    """Follow a picture through an image encoder without computing anything.

    Returns:
        The width F of its feature map, and the names of the parameters that no feature depends on, such as those of a
        head or a pooling layer.
    """
    meta = torch.empty(0, device="meta", dtype=torch.float32)
    parameters = {
        name: torch.empty_like(value, device="meta", dtype=torch.float32, requires_grad=True)
        for name, value in image_encoder.named_parameters()
    }
    buffers = {name: torch.empty_like(value, device="meta") for name, value in image_encoder.named_buffers()}
    was_training = image_encoder.training
    image_encoder.eval()
    with torch.enable_grad():
        cells = functional_call(
            _FeatureMap(image_encoder),
            {f"encoder.{name}": value for name, value in (parameters | buffers).items()},
            blank_picture(image_encoder.config, meta),
        )
        gradients = torch.autograd.grad(cells.sum(), list(parameters.values()), allow_unused=True)
    image_encoder.train(was_training)
    unused = [name for name, gradient in zip(parameters, gradients, strict=True) if gradient is None]
    return cells.shape[-1], unused


class _FeatureMap(nn.Module):
    def __init__(self, encoder: nn.Module):
        super().__init__()
        self.encoder = encoder

    def forward(self, pictures: torch.Tensor) -> torch.Tensor:
        return feature_map(self.encoder, pictures)


@contextmanager
def running_statistics(module: nn.Module) -> Iterator[None]:
    """Let the batch norms of a module use what they learned instead of the batch, and learn nothing from it."""
    live = [part for part in module.modules() if isinstance(part, nn.modules.batchnorm._BatchNorm) and part.training]
    for part in live:
        part.eval()
    try:
        yield
    finally:
        for part in live:
            part.train()
