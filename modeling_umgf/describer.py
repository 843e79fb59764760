"""What everything has in common that describes pictures with a pretrained model: how it is loaded."""

from __future__ import annotations

import functools
import inspect
import json
import os
import re
from collections.abc import Callable, Mapping
from typing import Any, ClassVar

import torch
from transformers import AutoProcessor, PreTrainedModel


class Describer:
    """A pretrained model and its processor, called with pictures.

    A subclass names its `role` ("detector", say: what the settings of a column call it), its `default` model, how
    `load_model(name, dtype=…)` and `load_processor(name)` get model and processor, and implements `__call__`.

    Args:
        model: the model.
        processor: its processor, or image processor.
    """

    role: ClassVar[str]
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
        revision: str | None = None,
        **settings: Any,
    ):
        """Load a model by its id or folder.

        Args:
            name: id or folder; default: `default`.
            device: default: the GPU where there is one.
            dtype: default: bfloat16 on a GPU, float32 elsewhere.
            revision: commit on the Hub; default: the newest.
            settings: the other arguments of the class.
        """
        name = cls.default if name is None else name
        device = torch.device(device or ("cuda" if torch.cuda.is_available() else "cpu"))
        dtype = dtype or (torch.bfloat16 if device.type == "cuda" else torch.float32)
        pinned = {} if revision is None else {"revision": revision}
        model = cls.load_model(name, dtype=dtype, **pinned).to(device).eval()
        return cls(model, cls.load_processor(name, **pinned), **settings)

    @classmethod
    def from_source(cls, source: Mapping[str, Any]):
        """Load the model that made a column of the training data.

        Args:
            source: how it was made, see `sources_in_card`: under `role` the model as "id", or "id@commit"; arguments of
                the class; the rest is passed over.
        """
        name, _, commit = source[cls.role].partition("@")
        return cls.from_pretrained(name, revision=commit or None, **cls.known(source))

    @classmethod
    def known(cls, settings: Mapping[str, Any]) -> dict[str, Any]:
        """Pick those of some settings that are arguments of the class."""
        arguments = inspect.signature(cls.__init__).parameters
        return {name: value for name, value in settings.items() if name in arguments}


@functools.lru_cache(maxsize=4)
def load_once(describer: type[Describer], source: str) -> Describer | Exception:
    """Load a describer from its source, as JSON, the first time it is asked for; returns the error if it can't be."""
    try:
        return describer.from_source(json.loads(source))
    except Exception as error:  # whatever transformers and the Hub make of a model that is gone
        return error


def sources_in_card(card: str) -> dict[str, dict[str, Any]]:
    """Read from the card of a dataset how its columns were made, as `dataset_scripts.add_descriptors` wrote it there.

    Args:
        card: its text.

    Returns:
        For each computed column its settings; those of `objects` name the extractor of their noun phrases too.
    """
    sources = {}
    for name, settings in re.findall(r"^- `(\w+)`: (\{.*\})$", card, re.MULTILINE):
        try:
            sources[name] = json.loads(settings)
        except ValueError:  # the type of a column
            continue
    if "objects" in sources and "noun_phrases" in sources:
        phrases = sources["noun_phrases"]
        sources["objects"] |= {"noun_phrases": phrases.get("extractor"), "merge_of": phrases.get("merge_of", False)}
    return sources
