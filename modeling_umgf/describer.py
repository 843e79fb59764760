"""What everything has in common that describes pictures with a pretrained model: how it is loaded."""

from __future__ import annotations

import os
from collections.abc import Callable
from typing import Any, ClassVar

import torch
from transformers import AutoProcessor, PreTrainedModel


class Describer:
    """A pretrained model and its processor, called with pictures.

    A subclass names its `default` model, how `load_model(name, dtype=…)` and `load_processor(name)` get model and
    processor, and implements `__call__`.

    Args:
        model: the model.
        processor: its processor, or image processor.
    """

    default: ClassVar[str]
    load_model: ClassVar[Callable[..., PreTrainedModel]]
    load_processor: ClassVar[Callable[..., Any]] = AutoProcessor.from_pretrained

    def __init__(self, model: PreTrainedModel, processor: Any):
        self.model = model.eval()
        self.processor = processor

    @classmethod
    def from_pretrained(
        cls,
        name: str | os.PathLike | None = None,
        device: str | torch.device | None = None,
        dtype: torch.dtype | None = None,
        **settings: Any,
    ):
        """Load a model by its id or folder.

        Args:
            name: id or folder; default: `default`.
            device: default: the GPU where there is one.
            dtype: default: bfloat16 on a GPU, float32 elsewhere.
            settings: the other arguments of the class.
        """
        name = cls.default if name is None else name
        device = torch.device(device or ("cuda" if torch.cuda.is_available() else "cpu"))
        dtype = dtype or (torch.bfloat16 if device.type == "cuda" else torch.float32)
        model = cls.load_model(name, dtype=dtype).to(device).eval()
        return cls(model, cls.load_processor(name), **settings)
