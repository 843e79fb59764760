"""A tiny model, processor and batch of every registered system, for tests that hold for all of them."""

import numpy as np
import torch
from conftest import LABELS, tiny_config, tiny_tokenizer
from PIL import Image

from modeling_umgf import HashingEncoder, MultimodalNerImageProcessor, RelationIndex, tell_letter_case
from modeling_umgf.systems import System, systems

SYSTEMS = list(systems())

TINY_SETTINGS = {
    "umgf": {"d_model": 16, "num_heads": 4, "d_ff": 32},
    "rgcn": {"num_heads": 4, "k": 6},
    "text_only": {"vision_config": None},
    "umt": {"num_heads": 4, "d_ff": 32},
    "rpbert": {"lstm_size": 8},
    "object_agban": {"object_size": 16, "alignment_size": 8},
    "vg": {"d_model": 16},
    "acoa": {"d_model": 16},
    "ocsga": {"num_heads": 4, "d_ff": 32},
}
"""What a system needs to be tiny, besides tiny encoders."""


def picture(seed: int) -> Image.Image:
    return Image.fromarray(np.random.default_rng(seed).integers(0, 256, (40, 60, 3), dtype=np.uint8))


def posts() -> list[dict]:
    """A post with a picture, one without, and one of a single word with a picture."""
    objects = [{"box": [0, 0, 60, 40], "phrase": None}, {"box": [5, 5, 30, 30], "phrase": {"start": 1, "end": 3}}]
    first = {"id": "a", "words": "Anna meets Bob Marley in Rome".split(), "image": picture(1)}
    first |= {"objects": objects, "object_labels": ["person"], "knowledge_features": np.eye(2, 16).tolist()}
    second = {"id": "b", "words": "the cat of Paris sleeps".split(), "image": None}
    third = {"id": "c", "words": ["Anna"], "image": picture(2), "object_labels": ["guitar"]}
    return [first, second, third]


LABEL_IDS = [[1, 0, 1, 2, 0, 3], [0, 0, 0, 3, 0], [1]]


def make_config(system: System, **settings):
    tiny = tiny_config()
    shared = {"text_config": tiny.text_config.to_dict(), "vision_config": tiny.vision_config.to_dict()}
    labels = {"id2label": dict(enumerate(LABELS)), "label2id": {label: i for i, label in enumerate(LABELS)}}
    return system.config(**shared | labels | TINY_SETTINGS.get(system.config.model_type, {}) | settings)


def make_model(model_type: str, **settings):
    """A tiny tagger in evaluation mode, with weights large enough that its labels vary."""
    torch.manual_seed(1)
    system = systems()[model_type]
    model = system.tagger(make_config(system, **settings)).eval()
    model.classifier.weight.data.normal_(std=2)
    for parameter in model.label_decoder.parameters():
        parameter.data.normal_()
    return model


def relation_index() -> RelationIndex:
    return RelationIndex(
        ["anna", "rome", "cat", "bob"],
        captions=["Anna at a meeting", "Rome at night", "a cat", "Bob Marley"],
        object_labels=[["person"], ["tower"], ["cat"], ["person", "guitar"]],
        features=torch.randn(4, 1, 16, generator=torch.Generator().manual_seed(0)),
        encoder=HashingEncoder(256),
        hubness="none",
    )


def make_processor(model_type: str, **settings):
    processor = systems()[model_type].processor
    settings = {"tokenizer": tiny_tokenizer()} | settings
    if systems()[model_type].reads_pictures:
        settings["image_processor"] = MultimodalNerImageProcessor(size={"height": 32, "width": 32})
    if "neighbors_inter" in processor.columns:
        settings |= {"relation_index": relation_index(), "k": 3}
    return processor(**settings)


def make_batch(
    model_type: str, rows: list[dict] | None = None, labels: bool = True, letter_case: bool = False
) -> dict[str, torch.Tensor]:
    processor = make_processor(model_type)
    if letter_case:
        tell_letter_case(processor.tokenizer)
    rows = posts() if rows is None else rows
    return dict(processor.batch(processor.prepare(rows), LABEL_IDS[: len(rows)] if labels else None))


def node_masks(model_type: str, batch: dict) -> list[str]:
    """Names of the masks of the nodes that a batch has."""
    kinds = systems()[model_type].processor.node_kinds.values()
    return [kind.mask for kind in kinds if kind.mask in batch]


def of_nodes(mask: str, batch: dict) -> list[str]:
    """Names of the tensors [B, nodes, …] that belong to the nodes of a mask."""
    if mask == "object_mask":
        return [name for name in (mask, "pixel_values", "object_features") if name in batch]
    prefix = mask.removesuffix("mask")
    return [name for name in batch if name.startswith(prefix)]


def text_alone(model_type: str, batch: dict) -> dict:
    """A batch without any of its nodes."""
    nodes = {name for mask in node_masks(model_type, batch) for name in of_nodes(mask, batch)}
    return {name: tensor for name, tensor in batch.items() if name not in nodes and name != "inter_modal_mask"}
