"""OCSGA: its fusion against torch's own attention, its objects, and what it refuses."""

import pytest
import torch
from huggingface_hub.errors import StrictDataclassError
from systems_under_test import make_config, make_model, make_processor, posts
from test_modeling_acoa import some_post
from torch import nn
from torch.nn.functional import layer_norm

from modeling_umgf import OcsgaConfig, OcsgaProcessor
from modeling_umgf.modeling_multimodal_ner import Pieces
from modeling_umgf.systems import system


def torchs(attention) -> nn.MultiheadAttention:
    """The same attention as torch has it."""
    parts = attention.query, attention.key, attention.value
    own = nn.MultiheadAttention(parts[0].in_features, attention.num_heads, batch_first=True).eval()
    own.in_proj_weight.data = torch.cat([part.weight for part in parts])
    own.in_proj_bias.data = torch.cat([part.bias for part in parts])
    own.out_proj.load_state_dict(attention.output.state_dict())
    return own


def norm(layer, states):
    return layer_norm(states, states.shape[-1:], layer.weight, layer.bias)


def test_words_take_of_the_objects_what_the_equations_say():
    model = make_model("ocsga").model
    X, mask, Y, object_mask = some_post()
    result = model.fuse(Pieces(X, mask), object_features=Y, object_mask=object_mask)

    words, own = X[:, :3], model.word_layer
    X_sa = norm(own.attention_norm, words + torchs(own.attention)(words, words, words)[0])
    X_sa = norm(own.feed_forward_norm, X_sa + own.feed_forward(X_sa))
    own = model.guided_attention
    Y = model.object_projection(Y[:, :2])
    Y = norm(own.object_norm, Y + torchs(own.object_attention)(Y, Y, Y)[0])
    Z, shares = torchs(own.guided_attention)(X_sa, Y, Y)
    Z = norm(own.feed_forward_norm, own.feed_forward(norm(own.guided_norm, Z)))
    torch.testing.assert_close(result.states[:, :3], norm(model.norm, words + Z), atol=1e-5, rtol=1e-4)
    torch.testing.assert_close(result.gates["objects"][:, :3, :2], shares, atol=1e-5, rtol=1e-4)
    assert not result.gates["objects"][..., 2].any()


def test_without_objects_nothing_is_added_to_the_words():
    model = make_model("ocsga").model
    X, mask, Y, object_mask = some_post()
    states = model.fuse(Pieces(X, mask), None, Y, torch.zeros_like(object_mask)).states
    torch.testing.assert_close(states, norm(model.norm, X))


def test_the_first_four_objects_are_read_with_the_vectors_of_their_labels():
    vectors = torch.randn(6, 16)
    objects = [{"query": label} for label in ("person", "dog", "car", "tie", "cup", "cat")]
    processor = make_processor("ocsga")
    row = {"words": ["Anna"], "objects": objects, "object_features": vectors}
    [post] = processor.prepare([row])
    assert torch.equal(post.features["object_features"], vectors[:4])
    assert [node["query"] for node in post.nodes["objects"]] == ["person", "dog", "car", "tie"]
    [post] = processor.prepare([row | {"objects": None}])
    assert post.features["object_mask"].sum() == 4


def test_objects_without_vectors_are_cut_out_of_the_picture():
    [post] = make_processor("ocsga").prepare(posts()[:1])
    assert len(post.features["pixel_values"]) == 2
    [post] = make_processor("ocsga").prepare([posts()[0] | {"objects": None}])
    assert len(post.features["pixel_values"]) == 1
    [post] = make_processor("ocsga").prepare([posts()[0] | {"image": None}])
    assert post.features["object_mask"].tolist() == []


def test_another_number_of_objects_than_of_vectors_is_refused():
    row = {"words": ["Anna"], "objects": [{"query": "dog"}], "object_features": torch.randn(2, 16)}
    with pytest.raises(ValueError, match="^1 objects but 2 object_features: give one row an object$"):
        make_processor("ocsga").prepare([row])


def test_impossible_settings_are_refused():
    with pytest.raises(ValueError, match="max_objects=-1"):
        OcsgaProcessor(max_objects=-1)
    with pytest.raises(StrictDataclassError, match="width 16 is not a multiple of num_heads=3"):
        make_config(system("ocsga"), num_heads=3)


def test_its_text_encoder_is_by_default_that_of_the_paper():
    text = OcsgaConfig().text_config
    assert (text.model_type, text.characters, text.hidden_size) == ("bilstm", "lstm", 200)
