"""UMGF: equations, masks, switches, training; what holds for every system is in test_systems.py."""

import math

import pytest
import torch
from conftest import LABELS, tiny_config
from huggingface_hub.errors import StrictDataclassError
from transformers import RobertaConfig

from modeling_umgf import UmgfForTokenClassification
from modeling_umgf.configuration_umgf import UmgfConfig
from modeling_umgf.image_encoder import feature_map
from modeling_umgf.layers import MultiHeadAttention
from modeling_umgf.modeling_umgf import ModalityUpdate, UmgfLayer


def without_objects(batch):
    return {k: v for k, v in batch.items() if k not in ("pixel_values", "object_mask", "inter_modal_mask")}


def layer_norm(vector):
    centred = [x - sum(vector) / len(vector) for x in vector]
    return [x / (sum(c * c for c in centred) / len(centred) + 1e-5) ** 0.5 for x in centred]


def test_gated_fusion_equals_a_hand_computed_example_of_two_words_and_one_object():
    # d = 2, W1 = 1, W2 = 2 (identity matrices), feed-forward = 0; word 0 is linked to the object, word 1 is not
    update = ModalityUpdate(UmgfConfig(d_model=2, num_heads=1, d_ff=2, dropout=0.0)).eval()
    for parameter in update.parameters():
        parameter.data.zero_()
    for norm in (update.gate_norm, update.feed_forward_norm):
        norm.weight.data.fill_(1)
    update.gate.own.weight.data = torch.eye(2)
    update.gate.other.weight.data = 2 * torch.eye(2)
    words, thing = [[1.0, -1.0], [0.5, 2.0]], [3.0, 0.25]
    edges = torch.tensor([[[True], [False]]])
    states, gates = update.receive(torch.tensor([words]), torch.tensor([[thing]]), edges)

    gate = [1 / (1 + 2.718281828459045 ** -(words[0][k] + 2 * thing[k])) for k in range(2)]  # eq. 3
    fused = [words[0][k] + gate[k] * thing[k] for k in range(2)]  # eq. 4
    expected = [layer_norm(layer_norm(fused)), layer_norm(layer_norm(words[1]))]  # eq. 7 with FFN = 0
    assert torch.allclose(states[0], torch.tensor(expected), atol=1e-4)
    assert gates[0].tolist() == [[pytest.approx(gate, abs=1e-5)], [[0.0, 0.0]]]


def test_attention_without_a_valid_key_gives_the_output_bias_not_nan():
    attention = MultiHeadAttention(8, 2, 0.0)
    attention.output.bias.data.zero_()
    keys = torch.randn(2, 3, 8)
    result = attention(keys, keys, torch.tensor([[True, False, True], [False] * 3]))
    assert torch.equal(result[1], torch.zeros(3, 8))
    assert result[0].abs().sum() > 0


@pytest.mark.parametrize("settings", [{}, {"visual_self_attention": False}, {"share_modal_params": True}])
def test_no_objects_masked_objects_and_no_edges_are_the_same_text_only_path(batch, settings):
    model = UmgfForTokenClassification(tiny_config(**settings)).eval()
    with_pictures = model(**batch).logits
    text_only = model(**without_objects(batch)).logits
    no_edges = model(**batch | {"inter_modal_mask": torch.zeros_like(batch["inter_modal_mask"])}).logits
    masked = model(**batch | {"object_mask": torch.zeros_like(batch["object_mask"])}).logits
    assert torch.equal(text_only, no_edges)
    assert torch.equal(text_only, masked)
    assert not torch.allclose(text_only[0], with_pictures[0], atol=1e-3)
    assert torch.equal(text_only[1], with_pictures[1])  # the second post has no picture


def test_an_object_changes_only_the_words_it_is_linked_to(batch):
    model = UmgfForTokenClassification(tiny_config(num_layers=1, visual_self_attention=False)).eval()
    changed = {name: tensor.clone() for name, tensor in batch.items()}
    changed["pixel_values"][0, 1] += 5  # this object is linked to word 1 alone
    difference = (model(**batch).logits - model(**changed).logits).abs().amax(-1)[0]
    assert difference[1] > 1e-4
    assert difference[[0, 2, 3]].max() == 0


def test_inter_edges_full_ignores_the_edge_mask(batch):
    model = UmgfForTokenClassification(tiny_config(inter_edges="full")).eval()
    none = batch | {"inter_modal_mask": torch.zeros_like(batch["inter_modal_mask"])}
    assert torch.equal(model(**batch).logits, model(**none).logits)


def test_loss_is_the_mean_over_sentences_and_can_be_the_sum(batch):
    mean = UmgfForTokenClassification(tiny_config()).eval()
    total = UmgfForTokenClassification(tiny_config(crf_reduction="sum")).eval()
    total.load_state_dict(mean.state_dict())
    assert torch.allclose(2 * mean(**batch).loss, total(**batch).loss, atol=1e-5)


def test_predictions_come_in_evaluation_mode_or_on_request(model, batch):
    assert model(**batch).predictions.shape == (2, 4)
    assert model(**batch, return_predictions=False).predictions is None
    model.train()
    assert model(**batch).predictions is None
    assert model(**batch, return_predictions=True).predictions is not None


def test_constrained_decoding_never_opens_an_entity_with_i(batch):
    model = UmgfForTokenClassification(tiny_config(constrain_bio=True)).eval()
    model.classifier.bias.data[[2, 4]] = 50.0  # the emissions love I-
    for row in model(**batch).predictions:
        tags = [model.config.id2label[i] for i in row.tolist() if i != -100]
        for before, tag in zip(["O", *tags], tags, strict=False):
            assert not tag.startswith("I-") or before[2:] == tag[2:], tags


def test_pieces_mode_labels_every_piece_and_hands_out_words(batch):
    labels = ["O", "B-PER", "I-PER", "B-LOC", "I-LOC", "X", "[CLS]", "[SEP]"]
    config = tiny_config(labels=labels, subword_labels="x", inter_edges="full")
    model = UmgfForTokenClassification(config).eval()
    words = model(**batch)
    pieces = model(**{k: v for k, v in batch.items() if k not in ("word_starts", "labels")})
    assert words.logits.shape == (2, 4, 8)
    assert pieces.logits.shape == (2, 9, 8)
    starts = batch["word_starts"]
    assert torch.equal(words.logits[0], pieces.logits[0, starts[0]])
    assert torch.equal(words.predictions[1], torch.tensor([*pieces.predictions[1, starts[1, :2]].tolist(), -100, -100]))
    gold = torch.tensor([[6, 0, 5, 1, 2, 5, 0, 5, 7], [6, 3, 4, 5, 7, -100, -100, -100, -100]])
    expected = model(**batch | {"word_starts": None, "labels": gold}).loss
    assert torch.allclose(words.loss, expected)


def test_grid_nodes_are_the_cells_of_the_picture(batch):
    model = UmgfForTokenClassification(tiny_config(visual_nodes="grid")).eval()
    grid = batch | {name: batch[name][:, :1] for name in ("pixel_values", "object_mask")}
    grid["inter_modal_mask"] = batch["inter_modal_mask"][:, :, :1]
    gates = model(**grid, output_gates=True).gates
    cells = feature_map(model.model.vision_model, grid["pixel_values"][:1, 0])
    assert gates["objects"].shape == (2, 4, 1)
    features = torch.cat([cells, torch.zeros_like(cells)])
    given = without_objects(batch) | {
        "object_features": features,
        "object_mask": torch.tensor([[True], [False]]).expand(2, cells.shape[1]),
    }
    assert torch.allclose(model(**grid).logits, model(**given).logits, atol=1e-5)


def test_pooled_features_given_equal_the_crops_they_come_from(model, batch):
    with torch.no_grad():
        features = (
            feature_map(model.model.vision_model, batch["pixel_values"].flatten(0, 1)).mean(1).unflatten(0, (2, 2))
        )
    given = {name: tensor for name, tensor in batch.items() if name != "pixel_values"} | {"object_features": features}
    assert torch.allclose(model(**batch).logits, model(**given).logits, atol=1e-5)


def test_a_model_without_image_encoder_says_what_to_give(batch):
    model = UmgfForTokenClassification(tiny_config(vision_config=None))
    with pytest.raises(ValueError, match="object_features"):
        model(**batch)


@pytest.mark.parametrize(
    "settings",
    [
        {},
        {"num_layers": 3},
        {"visual_self_attention": False},
        {"share_modal_params": True},
        {"visual_attention": "qk_only", "visual_projection": True, "text_mlp": "linear", "position_encoding": "none"},
        {"intra_ffn": True},
        {"concat_bert": False},
    ],
)
@pytest.mark.parametrize("pictures", [True, False])
def test_gradients_reach_every_parameter(batch, settings, pictures):
    model = UmgfForTokenClassification(tiny_config(**settings)).train()
    model(**batch if pictures else without_objects(batch)).loss.backward()
    assert [name for name, parameter in model.named_parameters() if parameter.grad is None] == []
    if pictures:
        still = [n for n, p in model.named_parameters() if not p.grad.any() and "position" not in n and "bias" not in n]
        assert [name for name in still if "token_type" not in name and "object" not in name] == []


def test_the_last_layer_has_no_parameters_that_nothing_reads():
    first, last = UmgfLayer(tiny_config(), is_last=False), UmgfLayer(tiny_config(), is_last=True)
    assert hasattr(first.object, "feed_forward")
    assert not hasattr(last.object, "feed_forward")
    assert not hasattr(last.object, "gate")


@pytest.mark.parametrize("encoder", ["position_ids", "roberta"])
def test_padding_on_the_left_gives_the_logits_of_padding_on_the_right(batch, encoder):
    """RoBERTa counts real pieces by itself, BERT is told by position_ids."""
    config = tiny_config()
    if encoder == "roberta":
        config.text_config = RobertaConfig(
            **config.text_config.to_dict() | {"pad_token_id": 0, "model_type": "roberta"}
        )
    model = UmgfForTokenClassification(config).eval()
    pieces = batch["attention_mask"].sum(1)
    moved = {name: batch[name].clone() for name in ("input_ids", "attention_mask")}
    for name, row in ((name, row) for name in moved for row in range(2)):
        moved[name][row] = batch[name][row].roll(9 - pieces[row].item())
    starts = batch["word_starts"]
    moved["word_starts"] = torch.where(starts < 0, starts, starts + 9 - pieces[:, None])
    if encoder == "position_ids":
        moved["position_ids"] = (moved["attention_mask"].cumsum(1) - 1).clamp(min=0)
    real = starts >= 0
    assert torch.allclose(model(**batch | moved).logits[real], model(**batch).logits[real], atol=1e-5)


@pytest.mark.parametrize("nodes", ["objects", "features", "grid"])
def test_nan_in_masked_objects_reaches_neither_logits_nor_gradients(batch, nodes):
    settings = {"visual_nodes": "grid"} if nodes == "grid" else {}
    name, posts = "pixel_values", batch
    if nodes == "features":
        settings = {"vision_config": None, "object_feature_size": 16}
        name, posts = "object_features", without_objects(batch) | {"object_features": torch.randn(2, 2, 16)}
    model = UmgfForTokenClassification(tiny_config(**settings))
    posts = posts | {"object_mask": torch.tensor([[True, False], [False, False]])}
    broken = posts[name].clone()
    broken[0, 1] = broken[1] = math.nan
    broken.requires_grad_()
    assert torch.equal(model.eval()(**posts).logits, model(**posts | {name: broken}).logits)
    model.train()(**posts | {name: broken}).loss.backward()
    assert all(torch.isfinite(parameter.grad).all() for parameter in model.parameters())
    assert torch.isfinite(broken.grad).all() and not broken.grad[1].any()


def test_sharing_leaves_one_set_of_layer_parameters():
    def size(**settings):
        return sum(p.numel() for p in UmgfLayer(tiny_config(**settings), is_last=False).parameters())

    assert 2 * size(share_modal_params=True) == size()


def test_a_frozen_image_encoder_gets_no_gradient_and_stays_in_evaluation_mode(batch):
    model = UmgfForTokenClassification(tiny_config(finetune_cnn=False)).train()
    model(**batch).loss.backward()
    assert all(parameter.grad is None for parameter in model.model.vision_model.parameters())
    assert not any(module.training for module in model.model.vision_model.modules())


def test_batch_norm_statistics_do_not_drift_while_the_encoder_learns(model, batch):
    model.train()
    before = {name: value.clone() for name, value in model.model.vision_model.named_buffers()}
    model(**batch).loss.backward()
    assert all(torch.equal(value, before[name]) for name, value in model.model.vision_model.named_buffers())
    assert any(parameter.grad.any() for parameter in model.model.vision_model.parameters())


def test_compiled_training_step_has_the_loss_of_the_eager_one(batch):
    config = tiny_config(vision_config=None, object_feature_size=16)
    config.text_config.num_hidden_layers = 1
    model = UmgfForTokenClassification(config).eval()
    posts = without_objects(batch) | {"object_features": torch.randn(2, 2, 16)}
    compiled = torch.compile(model, backend="eager")
    result = compiled(**posts)
    assert torch.allclose(result.loss, model(**posts).loss, atol=1e-4)
    result.loss.backward()
    assert all(parameter.grad is not None for parameter in model.parameters())


def test_activation_checkpointing_of_the_text_encoder_changes_no_gradient(batch):
    torch.manual_seed(0)
    config = tiny_config(dropout=0.0, classifier_dropout=0.0)
    config.text_config.hidden_dropout_prob = config.text_config.attention_probs_dropout_prob = 0.0
    model = UmgfForTokenClassification(config).train()
    gradients = []
    for checkpointing in (False, True):
        if checkpointing:
            getattr(model, "activation_checkpointing_enable", model.gradient_checkpointing_enable)()  # older name
        model.zero_grad()
        model(**batch).loss.backward()
        gradients.append([parameter.grad.clone() for parameter in model.parameters()])
    assert all(torch.allclose(a, b, atol=1e-6) for a, b in zip(*gradients, strict=True))
    assert any(getattr(module, "gradient_checkpointing", False) for module in model.model.text_model.modules())


def test_contradictory_settings_are_refused_in_one_sentence():
    with pytest.raises(StrictDataclassError, match="d_model=10 is not a multiple of num_heads=4"):
        tiny_config(d_model=10)
    with pytest.raises(StrictDataclassError, match="share_modal_params"):
        tiny_config(share_modal_params=True, visual_attention="qk_only")
    with pytest.raises(StrictDataclassError, match="typed edges do not know"):
        tiny_config(labels=[*LABELS, "X", "[CLS]", "[SEP]"], subword_labels="x")


def test_mean_field_defaults_are_the_papers():
    config = UmgfConfig()
    assert (config.num_layers, config.d_model, config.num_heads, config.dropout) == (2, 512, 8, 0.5)
    assert (config.text_config.model_type, config.object_feature_size) == ("bert", 2048)


def test_word_dropout_hides_words_in_training_only(batch):
    model = UmgfForTokenClassification(tiny_config(word_dropout=0.999999999, classifier_dropout=0.0, dropout=0.0))
    model.config.text_config.hidden_dropout_prob = 0.0
    for module in model.modules():
        if isinstance(module, torch.nn.Dropout):
            module.p = 0.0
    other = batch | {"input_ids": (batch["input_ids"] + 7) % 150}
    assert not torch.equal(model.eval()(**batch).logits, model(**other).logits)
    assert torch.equal(model.train()(**batch).logits, model(**other).logits)
