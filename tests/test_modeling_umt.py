"""UMT: the released numbers, the auxiliary task; what holds for every system is in test_systems.py."""

import importlib.util

import numpy as np
import pytest
import torch
from conftest import SHARED
from huggingface_hub.errors import StrictDataclassError
from systems_under_test import make_batch, make_config, make_model
from torch.nn.functional import cross_entropy

from modeling_umgf.configuration_umt import UmtConfig
from modeling_umgf.modeling_umt import SpanDetection, UmtForTokenClassification
from modeling_umgf.systems import systems

REFERENCE = SHARED / "reference"
TYPES = ("MISC", "PER", "ORG", "LOC")
RELEASED_LABELS = [
    *("PAD", "O"),
    *(f"{position}-{entity_type}" for position in "BI" for entity_type in TYPES),
    *("X", "[CLS]", "[SEP]"),
]
LAYERS = {
    "self_attention": "auxiliary_layer",
    "self_attention_v2": "main_layer",
    "txt2img_attention": "words_see_regions",
    "img2txt_attention": "regions_see_words",
    "txt2txt_attention": "words_see_seeing_regions",
}
PARTS = {
    "attention.self.query": "attention.query",
    "attention.self.key": "attention.key",
    "attention.self.value": "attention.value",
    "attention.output.dense": "attention.output",
    "attention.output.LayerNorm": "attention_norm",
    "intermediate.dense": "feed_forward.0",
    "output.dense": "feed_forward.2",
    "output.LayerNorm": "feed_forward_norm",
}
OTHERS = {
    "vismap2text": "model.projection_of_words",
    "vismap2text_v2": "model.projection_of_regions",
    "classifier": "classifier",
    "crf": "label_decoder",
    "aux_classifier": "span_detection.classifier",
    "aux_crf": "span_detection.label_decoder",
}


def convert(released: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    """Released weights under the names of this package; each must be used."""
    weights = {}
    for name, value in released.items():
        module, _, parameter = name.rpartition(".")
        first, _, rest = module.partition(".")
        if first == "bert" and not rest.startswith("pooler"):
            weights[f"model.text_model.{rest}.{parameter}"] = value
        elif first in LAYERS:
            part = PARTS[rest.removeprefix("layer.0.")]
            weights[f"model.{LAYERS[first]}.{part}.{parameter}"] = value
        elif name == "gate.weight":
            weights["model.gate.own.weight"], weights["model.gate.other.weight"] = value.chunk(2, dim=1)
        elif name == "gate.bias":
            weights["model.gate.own.bias"] = value
        elif first != "bert":
            weights[f"{OTHERS[first]}.{parameter}"] = value
    return weights


def released_model(shapes: dict[str, torch.Tensor]) -> UmtForTokenClassification:
    bert = {"model_type": "bert", "vocab_size": 120, "hidden_size": 48, "num_hidden_layers": 2}
    bert |= {"num_attention_heads": 4, "intermediate_size": 96, "max_position_embeddings": 128}
    config = UmtConfig(
        text_config=bert,
        id2label=dict(enumerate(RELEASED_LABELS)),
        label2id={label: i for i, label in enumerate(RELEASED_LABELS)},
        subword_labels="x",
        num_heads=4,
        d_ff=96,
    )
    model = UmtForTokenClassification(config).eval()
    model.load_state_dict(convert(shapes))
    return model


@pytest.mark.skipif(not REFERENCE.exists(), reason="needs the reference values")
def test_released_weights_give_the_released_numbers(monkeypatch):
    specification = importlib.util.spec_from_file_location("weights", REFERENCE / "weights.py")
    weights = importlib.util.module_from_spec(specification)
    specification.loader.exec_module(weights)
    released = weights.state_dict(REFERENCE / "umt_shapes.json", 0)
    model = released_model({name: torch.from_numpy(value) for name, value in released.items()})
    expected = {name: torch.from_numpy(value) for name, value in np.load(REFERENCE / "umt.npz").items()}
    # the reference was computed with a conversion matrix and span labels that are drawn at random
    monkeypatch.setattr(model.span_detection, "conversion", lambda like: expected["conversion_matrix"])
    monkeypatch.setattr(model.span_detection, "span_ids", lambda labels: expected["span_tags"])
    mask = expected["attention_mask"].bool()
    result = model(
        input_ids=expected["input_ids"],
        attention_mask=expected["attention_mask"],
        object_features=expected["visual_grid"].flatten(2).transpose(1, 2),
        labels=expected["tags"].masked_fill(~mask, -100),
    )
    torch.testing.assert_close(result.logits[mask], expected["emissions"][mask], atol=2e-4, rtol=0)
    torch.testing.assert_close(result.loss.double(), expected["loss"], atol=2e-4, rtol=0)
    assert torch.equal(result.predictions[mask], expected["paths"][mask])


def test_span_labels_are_labels_without_their_types():
    labels = ["O", "B-PER", "I-PER", "B-LOC", "I-LOC"]
    task = SpanDetection(make_config(systems()["umt"]))
    assert task.span_labels == ["O", "B", "I"]
    assert task.span_ids(torch.tensor([[0, 1, 2, 3, 4]])).tolist() == [[0, 1, 2, 1, 2]]
    halves = {"O": {"O": 1.0}, "B": {"B-PER": 0.5, "B-LOC": 0.5}, "I": {"I-PER": 0.5, "I-LOC": 0.5}}
    expected = [[halves[span].get(label, 0.0) for label in labels] for span in task.span_labels]
    assert task.conversion(torch.zeros(1)).tolist() == expected


def test_with_alpha_1_the_emissions_are_those_of_the_main_task():
    model, batch = make_model("umt", alpha=1.0), make_batch("umt")
    states = model.model(**{name: tensor for name, tensor in batch.items() if name != "labels"}).last_hidden_state
    torch.testing.assert_close(model(**batch).logits, model.classifier(states))
    both = make_model("umt")
    both.load_state_dict(model.state_dict())
    assert not torch.allclose(both(**batch).logits, model(**batch).logits, atol=1e-3)


def test_the_loss_is_that_of_the_labels_and_half_of_that_of_the_spans():
    model, batch = make_model("umt", label_decoder="softmax"), make_batch("umt")
    labels = batch.pop("labels")
    outputs = model.model(**batch)
    E_aux = model.span_detection.classifier(outputs.auxiliary["span_states"])
    spans = torch.where(labels > 0, 2 - labels % 2, labels)  # odd labels are B, even ones I
    expected = 0.0
    for scores, gold, weight in ((model(**batch).logits, labels, 1.0), (E_aux, spans, 0.5)):
        expected += weight * cross_entropy(scores.flatten(0, 1), gold.flatten(), reduction="sum") / len(labels)
    torch.testing.assert_close(model(**batch, labels=labels).loss, expected)


def test_the_regions_of_a_picture_may_be_given_as_features():
    model, batch = make_model("umt"), make_batch("umt")
    cells, mask = model.model.encode_objects(torch.zeros(1), batch["pixel_values"], None, batch["object_mask"])
    given = {name: tensor for name, tensor in batch.items() if name != "pixel_values"}
    given |= {"object_features": cells[:, 0], "object_mask": mask.expand(-1, cells.shape[2])}
    expected, result = model(**batch, output_gates=True), model(**given, output_gates=True)
    torch.testing.assert_close(result.logits, expected.logits, atol=1e-5, rtol=1e-4)
    torch.testing.assert_close(result.gates["objects"].sum(-1), expected.gates["objects"].sum(-1))


def test_contradictory_settings_are_refused_in_one_sentence():
    with pytest.raises(StrictDataclassError, match="width 768 is not a multiple of num_heads=7"):
        UmtConfig(num_heads=7)
    with pytest.raises(StrictDataclassError, match="alpha=1.5: a share, 0 to 1"):
        UmtConfig(alpha=1.5)


def test_the_decoder_of_the_spans_stays_in_float32(tmp_path):
    make_model("umt").save_pretrained(tmp_path)
    half = UmtForTokenClassification.from_pretrained(tmp_path, dtype=torch.bfloat16)
    assert half.span_detection.classifier.weight.dtype == torch.bfloat16
    assert {p.dtype for p in half.span_detection.label_decoder.parameters()} == {torch.float32}
