"""Object-AGBAN: attention over pairs, gate, alignment; what holds for every system is in test_systems.py."""

import math

import pytest
import torch
from conftest import LABELS
from huggingface_hub.errors import StrictDataclassError
from systems_under_test import make_batch, make_config, make_model
from torch.nn.functional import cross_entropy, layer_norm

from modeling_umgf.configuration_object_agban import ObjectAgbanConfig
from modeling_umgf.modeling_object_agban import Alignment, BilinearAttention
from modeling_umgf.systems import systems


def config_of(width: int, **settings) -> ObjectAgbanConfig:
    text = {"model_type": "bert", "hidden_size": width, "num_attention_heads": 1, "vocab_size": 9}
    return ObjectAgbanConfig(text_config=text, **settings)


def test_the_attention_shares_one_softmax_among_all_pairs_of_a_word_and_an_object():
    # d = 2, W_t = W_v = W = 1 (identity), h = (1, 2)
    attention = BilinearAttention(config_of(2, bilinear_factor=1)).eval()
    for layer in (attention.word, attention.object, attention.value):
        layer.weight.data = torch.eye(2)
        layer.bias.data.zero_()
    attention.score.weight.data = torch.tensor([[1.0, 2.0]])
    words = [[1.0, -1.0], [0.5, 2.0]]
    objects = [[3.0, 0.25], [-1.0, 1.0], [9.0, 9.0]]
    edges = torch.tensor([[[True, True, False], [True, False, False]]])
    b, a = attention(torch.tensor([words]), torch.tensor([objects]), edges)

    def relu(vector):
        return [max(x, 0.0) for x in vector]

    scores = {}
    for i, j in ((0, 0), (0, 1), (1, 0)):
        t, v = relu(words[i]), relu(objects[j])
        scores[i, j] = 1.0 * t[0] * v[0] + 2.0 * t[1] * v[1]
    total = sum(math.exp(score) for score in scores.values())
    shares = [[math.exp(scores[i, j]) / total if (i, j) in scores else 0.0 for j in range(3)] for i in range(2)]
    expected = [[sum(shares[i][j] * relu(objects[j])[k] for j in range(3)) for k in range(2)] for i in range(2)]
    torch.testing.assert_close(a[0], torch.tensor(shares))
    torch.testing.assert_close(b[0], torch.tensor(expected))


def test_a_word_takes_of_the_objects_what_its_gate_lets_through():
    model, batch = make_model("object_agban"), make_batch("object_agban")
    base = model.model
    outputs = base(**{name: tensor for name, tensor in batch.items() if name != "labels"}, output_gates=True)
    T, V, a = outputs.auxiliary["words"], outputs.auxiliary["objects"], outputs.gates["objects"]
    torch.testing.assert_close(a[[0, 2]].sum((1, 2)), torch.ones(2))  # one share for the whole post
    b = a @ torch.relu(base.attention.value(V))
    g = torch.sigmoid(base.gate.own(base.word_projection(T)) + base.gate.other(base.message_projection(b)))
    expected = layer_norm(T + g * b, T.shape[-1:])
    torch.testing.assert_close(outputs.last_hidden_state, expected, atol=1e-5, rtol=1e-4)


def test_a_word_looks_at_every_object_whichever_phrase_it_was_found_for():
    model, batch = make_model("object_agban"), make_batch("object_agban")
    batch = {name: tensor for name, tensor in batch.items() if name != "labels"}
    assert not batch["inter_modal_mask"].all()
    gates = model.model(**batch, output_gates=True).gates["objects"]  # [B, w, m]
    words = batch["word_starts"] >= 0
    assert ((gates > 0) == words[:, :, None] & batch["object_mask"][:, None]).all()
    batch["inter_modal_mask"] = torch.zeros_like(batch["inter_modal_mask"])
    assert torch.equal(model.model(**batch, output_gates=True).gates["objects"], gates)


def test_the_alignment_tells_words_from_objects_and_passes_its_gradient_on_reversed():
    torch.manual_seed(0)
    alignment = Alignment(config_of(4, alignment_size=6)).eval()
    states = torch.randn(1, 3, 4, requires_grad=True)
    mask = torch.tensor([[True, True, False]])
    weights = 1 / 6.37, 5.37 / 6.37  # of words and objects, which the authors counted: 64439 and 12000
    assert weights == pytest.approx((12000 / 76439, 64439 / 76439), abs=1e-4)
    for kind, weight in enumerate(weights):
        classes = torch.full((2,), kind)
        expected = weight * cross_entropy(alignment.classifier(states[0, :2]), classes, reduction="sum")
        loss = alignment(states, mask, kind)
        torch.testing.assert_close(loss[0], expected)
        (own,) = torch.autograd.grad(loss.sum(), states)
        (straight,) = torch.autograd.grad(expected, states)
        torch.testing.assert_close(own, -straight)
        assert straight[0, :2].abs().sum() > 0


def test_the_reversal_grows_with_the_steps_of_training():
    model, batch = make_model("object_agban", alignment_steps=10), make_batch("object_agban")
    assert model.alignment.strength() == 0.0
    model.train()
    for _ in range(5):
        model(**batch)
    model.eval()(**batch)  # no step of training
    assert model.alignment.strength() == pytest.approx(2 / (1 + math.exp(-5)) - 1)
    model.alignment.steps += 100
    assert model.alignment.strength() == pytest.approx(1, abs=1e-3)


def test_steps_of_training_are_saved_and_counted_from_0_anew(tmp_path):
    model, batch = make_model("object_agban", alignment_steps=10), make_batch("object_agban")
    model.train()(**batch)
    model.save_pretrained(tmp_path / "tagger")
    tagger = systems()["object_agban"].tagger
    assert tagger.from_pretrained(tmp_path / "tagger").alignment.steps == 1
    model.model.save_pretrained(tmp_path / "model")
    assert tagger.from_pretrained(tmp_path / "model").alignment.steps == 0


def test_the_loss_is_that_of_the_labels_and_of_the_alignment():
    with_alignment, batch = make_model("object_agban"), make_batch("object_agban")
    without = make_model("object_agban", alignment_weight=0.0)
    outputs = with_alignment.model(**{name: tensor for name, tensor in batch.items() if name != "labels"})
    words = with_alignment.alignment(outputs.auxiliary["words"], batch["word_starts"] >= 0, 0)
    objects = with_alignment.alignment(outputs.auxiliary["objects"], batch["object_mask"], 1)
    expected = without(**batch).loss + (words + objects).mean()
    torch.testing.assert_close(with_alignment(**batch).loss, expected)


def test_contradictory_settings_are_refused_in_one_sentence():
    pieces = dict(enumerate([*LABELS, "X", "[CLS]", "[SEP]"]))
    with pytest.raises(StrictDataclassError, match="objects are linked to words: use 'first'"):
        make_config(
            systems()["object_agban"],
            subword_labels="x",
            id2label=pieces,
            label2id={label: i for i, label in pieces.items()},
        )
