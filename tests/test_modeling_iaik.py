"""IAIK: the guided reading of attributes and knowledge; what holds for every system is in test_systems.py."""

import math

import pytest
import torch
from systems_under_test import make_batch, make_model, make_processor, posts

from modeling_umgf.configuration_iaik import IaikConfig
from modeling_umgf.modeling_iaik import GuidedReading


def features_batch() -> dict[str, torch.Tensor]:
    """The posts of all tests with vectors of attributes in place of pictures, the first with knowledge."""
    generator = torch.Generator().manual_seed(0)
    vectors = torch.randn(2, 3, 16, generator=generator)
    rows = [{**post, "image": None} for post in posts()]
    rows[0]["object_features"], rows[2]["object_features"] = vectors.tolist()
    return make_batch("iaik", rows)


def sigmoid(x: float) -> float:
    return 1 / (1 + math.exp(-x))


def test_a_word_takes_what_it_finds_as_far_as_its_gate_opens():
    # one word x = (1, -1) and two nodes; projection, key, query, gate: identity; score w = (1, 2)
    text = {"model_type": "bert", "hidden_size": 2, "num_attention_heads": 1, "vocab_size": 9}
    reading = GuidedReading(IaikConfig(text_config=text, object_feature_size=2))
    for parameter in reading.parameters():
        parameter.data.zero_()
    for layer in (reading.projection, reading.key, reading.attention.query, reading.gate.own, reading.gate.other):
        layer.weight.data = torch.eye(2)
    reading.attention.score.weight.data = torch.tensor([[1.0, 2.0]])
    x, nodes = [1.0, -1.0], [[0.5, 2.0], [-1.0, 0.0], [7.0, 7.0]]
    mask = torch.tensor([[True, True, False]])
    taken, gates = reading(torch.tensor([[x]]), torch.tensor([nodes]), mask)

    scores = [math.tanh(x[0] + node[0]) + 2 * math.tanh(x[1] + node[1]) for node in nodes[:2]]
    shares = [math.exp(score) / sum(map(math.exp, scores)) for score in scores]
    found = [shares[0] * nodes[0][k] + shares[1] * nodes[1][k] for k in range(2)]
    g = [sigmoid(x[k] + found[k]) for k in range(2)]
    torch.testing.assert_close(taken[0, 0], torch.tensor([g[k] * found[k] for k in range(2)]))
    torch.testing.assert_close(gates[0, 0], torch.tensor([*(sum(g) / 2 * share for share in shares), 0.0]))


def test_text_attributes_and_knowledge_are_labelled_side_by_side():
    model, batch = make_model("iaik"), features_batch()
    inputs = {name: tensor for name, tensor in batch.items() if name != "labels"}
    x, a, k = model.model(**inputs).last_hidden_state.chunk(3, dim=-1)
    words = model.model.text_model(batch["input_ids"], batch["attention_mask"]).last_hidden_state
    torch.testing.assert_close(x[0, 0], words[0, batch["word_starts"][0, 0]])
    takes = [[own[i].any().item() for own in (a, k)] for i in range(3)]
    assert takes == [[True, True], [False, False], [True, False]]  # who has attributes, who has knowledge


def test_without_knowledge_the_attributes_remain():
    model, batch = make_model("iaik"), features_batch()
    none = {name: tensor for name, tensor in batch.items() if not name.startswith("knowledge")}
    expected, result = model(**batch, output_gates=True), model(**none, output_gates=True)
    torch.testing.assert_close(result.logits[1:], expected.logits[1:])
    assert not torch.allclose(result.logits[0], expected.logits[0], atol=1e-3)
    assert expected.gates.keys() == {"objects", "knowledge"} and result.gates.keys() == {"objects"}
    torch.testing.assert_close(result.gates["objects"], expected.gates["objects"])


def test_knowledge_that_is_no_list_of_vectors_is_refused():
    told = [post | {"knowledge_features": [1.0, 2.0]} for post in posts()]
    with pytest.raises(
        ValueError, match=r"Post 0 of the batch \(id a\): knowledge_features of shape \[2\]; give \[pieces, width"
    ):
        make_processor("iaik").prepare(told)
