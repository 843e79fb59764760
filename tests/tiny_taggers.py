"""Pipelines around tiny models, for the tests of tagging and explaining."""

import numpy as np
import pytest
import torch
from conftest import rgcn_config, tiny_config, tiny_tokenizer
from PIL import Image

from modeling_umgf import (
    HashingEncoder,
    MultimodalNerPipeline,
    RelationIndex,
    RgcnForTokenClassification,
    RgcnProcessor,
    UmgfForTokenClassification,
    UmgfImageProcessor,
    UmgfProcessor,
)


def make_random_model(config=None, model_class=UmgfForTokenClassification, **settings):
    """A model with weights large enough that its labels vary with the word and with the picture."""
    torch.manual_seed(1)
    model = model_class(config or tiny_config(**settings)).eval()
    model.classifier.weight.data.normal_(std=2)
    model.label_decoder.transitions.data.normal_()
    return model


@pytest.fixture(scope="session")
def random_model():
    return make_random_model


@pytest.fixture(scope="session")
def tagger() -> MultimodalNerPipeline:
    processor = UmgfProcessor(UmgfImageProcessor(size={"height": 32, "width": 32}), tiny_tokenizer())
    return MultimodalNerPipeline(make_random_model(), processor=processor, device="cpu")


@pytest.fixture(scope="session")
def rgcn_tagger(tagger) -> MultimodalNerPipeline:
    index = RelationIndex(
        ["anna", "rome", "cat", "bob"],
        captions=["Anna at a meeting", "Rome at night", "a cat", "Bob Marley"],
        object_labels=[["person"], ["tower"], ["cat"], ["person", "guitar"]],
        features=torch.randn(4, 1, 16, generator=torch.Generator().manual_seed(0)),
        encoder=HashingEncoder(256),
        hubness="none",
    )
    processor = RgcnProcessor(tagger.processor.image_processor, tagger.processor.tokenizer, index, k=3)
    model = make_random_model(rgcn_config(), RgcnForTokenClassification)
    return MultimodalNerPipeline(model, processor=processor, device="cpu")


@pytest.fixture(scope="session")
def picture() -> Image.Image:
    return Image.fromarray(np.random.default_rng(0).integers(0, 256, (40, 60, 3), dtype=np.uint8))
