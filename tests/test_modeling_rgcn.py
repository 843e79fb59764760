"""R-GCN: equations, masks, switches, training, and errors of the release that must not come back; no weights needed."""

import math

import pytest
import torch
from conftest import LABELS, rgcn_config, tiny_config
from huggingface_hub.errors import StrictDataclassError

from modeling_umgf.layers import Gate
from modeling_umgf.modeling_rgcn import RgcnForTokenClassification, StarGraphConvolution, add_message

BOTH = ("inter", "intra")


def make(**settings) -> RgcnForTokenClassification:
    torch.manual_seed(0)
    return RgcnForTokenClassification(rgcn_config(**settings)).eval()


@pytest.fixture
def rgcn():
    return make()


@pytest.fixture
def posts(batch):
    """Two posts: the first with a picture and neighbours of both kinds (2 and 3), the second with nothing but words."""
    generator = torch.Generator().manual_seed(1)
    posts = {name: batch[name] for name in ("input_ids", "attention_mask", "word_starts", "labels")}
    posts |= {"pixel_values": batch["pixel_values"][:, :1], "object_mask": torch.tensor([[True], [False]])}
    for relation, real in (("inter", 2), ("intra", 3)):
        posts[f"{relation}_neighbor_features"] = torch.randn(2, 3, 16, 16, generator=generator).half()
        posts[f"{relation}_neighbor_scores"] = torch.tensor([[0.9, 0.5, 0.3], [0.9, 0.5, 0.3]])
        posts[f"{relation}_neighbor_mask"] = torch.tensor([[j < real for j in range(3)], [False] * 3])
    return posts


def without(posts, *parts):
    return {name: tensor for name, tensor in posts.items() if not name.startswith(parts)}


def change(posts, name, edit):
    changed = {key: tensor.clone() for key, tensor in posts.items()}
    edit(changed[name])
    return changed


# ------------------------------------------------------------------------------------------------ star graph, gate


def star(**settings) -> StarGraphConvolution:
    config = rgcn_config(**settings)
    config.text_config.hidden_size, config.num_heads = 2, 1
    convolution = StarGraphConvolution(config)
    convolution.weight.weight.data = torch.tensor([[1.0, 2.0], [-1.0, 1.0]])  # W^T: out = W in
    convolution.weight.bias.data = torch.tensor([0.5, -0.25])
    return convolution


HUB, SPOKES, SCORES = [1.0, 2.0], [[3.0, -1.0], [0.5, 4.0]], [0.8, 0.25]


def hand_computed_rows(norm):
    """Rows of relu(Â U W^T + b) for the hub and two spokes, in plain Python."""
    nodes = [HUB, *SPOKES]
    adjacency = [[1.0, *SCORES], [SCORES[0], 1.0, 0.0], [SCORES[1], 0.0, 1.0]]
    degree = [sum(row) if norm == "sym" else 1.0 for row in adjacency]
    rows = []
    for i in range(3):
        weights = [adjacency[i][j] / math.sqrt(degree[i] * degree[j]) for j in range(3)]
        mixed = [sum(weights[j] * nodes[j][c] for j in range(3)) for c in range(2)]
        rows.append([max(mixed[0] + 2 * mixed[1] + 0.5, 0), max(-mixed[0] + mixed[1] - 0.25, 0)])
    return rows


@pytest.mark.parametrize("norm", ["sym", "none"])
@pytest.mark.parametrize("readout", ["hub", "mean"])
def test_star_convolution_equals_a_hand_computed_example(norm, readout):
    hub = torch.tensor([[HUB, [0.0, 0.0]]])  # two rows of a picture; the second stays its own
    spokes = torch.stack([torch.tensor(SPOKES), torch.zeros(2, 2)], dim=1)[None]  # [1, k, r, d]
    mask = torch.ones(1, 2, dtype=torch.bool)
    message, shares = star(gcn_norm=norm, readout=readout)(hub, spokes, torch.tensor([SCORES]), mask)
    rows = hand_computed_rows(norm)
    expected = rows[0] if readout == "hub" else [sum(row[c] for row in rows) / 3 for c in range(2)]
    assert message[0, 0].tolist() == pytest.approx(expected, abs=1e-5)
    assert message[0, 1].tolist() == pytest.approx([0.5, 0.0], abs=1e-5)  # relu(b): rows do not mix
    degree = [2.05, 1.8, 1.25] if norm == "sym" else [1.0, 1.0, 1.0]
    assert shares[0].tolist() == pytest.approx([s / math.sqrt(degree[0] * degree[i + 1]) for i, s in enumerate(SCORES)])


@pytest.mark.parametrize("readout", ["hub", "mean"])
def test_star_convolution_without_edges_says_nothing(readout):
    message, _ = star(readout=readout)(
        torch.tensor([[HUB]]), torch.tensor([SPOKES])[:, :, None], torch.tensor([SCORES]), torch.zeros(1, 2).bool()
    )
    assert not message.any()  # not relu(W u_0 + b)


def test_message_through_a_gate_equals_a_hand_computed_example_and_one_without_gate():
    gate = Gate(2)
    gate.own.weight.data, gate.own.bias.data = torch.eye(2), torch.tensor([0.0, 1.0])
    gate.other.weight.data = 2 * torch.eye(2)
    H, g = torch.tensor([[[1.0, -1.0]]]), torch.tensor([[[0.5, 2.0]]])
    opened = [1 / (1 + math.exp(-(1 + 1))), 1 / (1 + math.exp(-(-1 + 4 + 1)))]
    result, mean = add_message(H, g, gate)
    assert result[0, 0].tolist() == pytest.approx([1 + opened[0] * 0.5, -1 + opened[1] * 2], abs=1e-5)
    assert mean[0, 0].item() == pytest.approx(sum(opened) / 2, abs=1e-5)

    result, mean = add_message(H, g, None)
    assert torch.equal(result, H + g) and torch.equal(mean, torch.ones(1, 1))


def test_without_gates_there_are_no_parameters_of_gates():
    names = [name for name, _ in make(use_gate=False).named_parameters()]
    assert not any("gate" in name for name in names)


# ----------------------------------------------------------------------------------------- what neighbours may do

SWITCHES = [
    {},
    {"readout": "mean"},
    {"gcn_norm": "none"},
    {"inter_granularity": "region"},
    {"use_gate": False},
    {"neighbor_feature_size": 16},
]


@pytest.mark.parametrize("settings", SWITCHES)
def test_neighbours_of_both_relations_reach_the_words(posts, settings):
    model = make(**settings)
    expected = model(**posts).logits
    for relation in BOTH:
        changed = change(posts, f"{relation}_neighbor_features", lambda features: features[0, 0].add_(5))
        assert (model(**changed).logits[0] - expected[0]).abs().max() > 1e-4
        assert torch.equal(model(**changed).logits[1], expected[1])


@pytest.mark.parametrize("settings", SWITCHES)
def test_order_of_neighbours_does_not_matter(posts, settings):
    model = make(**settings)
    order = torch.tensor([2, 0, 1])
    turned = {name: tensor[:, order] if "neighbor" in name else tensor for name, tensor in posts.items()}
    assert torch.allclose(model(**turned).logits, model(**posts).logits, atol=1e-5)


@pytest.mark.parametrize("settings", SWITCHES)
@pytest.mark.parametrize("relation", BOTH)
def test_a_neighbour_of_score_zero_has_no_influence(posts, settings, relation):
    model = make(**settings)
    zero = change(posts, f"{relation}_neighbor_scores", lambda scores: scores[:, 0].zero_())
    other = change(zero, f"{relation}_neighbor_features", lambda features: features[:, 0].fill_(math.nan))
    masked = change(posts, f"{relation}_neighbor_mask", lambda mask: mask[:, 0].fill_(False))
    assert torch.equal(model(**zero).logits, model(**other).logits)
    assert torch.equal(model(**zero).logits, model(**masked).logits)
    assert not torch.allclose(model(**zero).logits[0], model(**posts).logits[0], atol=1e-5)


@pytest.mark.parametrize("settings", SWITCHES)
def test_nan_in_what_is_masked_reaches_neither_logits_nor_gradients(posts, settings):
    model = make(**settings, dropout=0.0)
    mask = posts["object_mask"].expand(-1, 16)
    posts = without(posts, "pixel_values") | {"object_features": torch.randn(2, 16, 16), "object_mask": mask}
    broken = {}
    for name in ("object", "inter_neighbor", "intra_neighbor"):
        masked = ~posts[f"{name}_mask"]
        broken[f"{name}_features"] = posts[f"{name}_features"].float().clone()
        broken[f"{name}_features"][masked] = math.nan
        if name != "object":
            broken[f"{name}_scores"] = posts[f"{name}_scores"].masked_fill(masked, math.nan)
    for tensor in broken.values():
        tensor.requires_grad_()
    assert torch.equal(model(**posts | broken).logits, model(**posts).logits)
    model(**posts | broken).loss.backward()
    gradients = [parameter.grad for parameter in model.parameters() if parameter.grad is not None]
    assert all(torch.isfinite(gradient).all() for gradient in gradients)
    for name, tensor in broken.items():
        assert torch.isfinite(tensor.grad).all() and tensor.grad.any(), name


@pytest.mark.parametrize("settings", SWITCHES)
def test_an_empty_neighbourhood_changes_nothing(posts, settings):
    model = make(**settings)
    none = without(posts, *BOTH)
    masked = posts | {f"{name}_neighbor_mask": torch.zeros(2, 3, dtype=torch.bool) for name in BOTH}
    assert torch.equal(model(**none).logits, model(**masked).logits)
    text_and_picture = make(**settings | {"use_inter": False, "use_intra": False})
    text_and_picture.load_state_dict(model.state_dict(), strict=False)
    assert torch.equal(model(**none).logits, text_and_picture(**posts).logits)


@pytest.mark.parametrize("settings", SWITCHES)
def test_no_neighbours_equals_the_ablation_bit_for_bit(posts, settings):
    no_neighbors = make(**settings | {"k": 0})
    ablation = make(**settings | {"use_inter": False, "use_intra": False})
    missing, unexpected = ablation.load_state_dict(no_neighbors.state_dict(), strict=False)
    assert not missing
    assert all(name.startswith(("model.inter", "model.intra", "model.region", "model.neighbor")) for name in unexpected)
    assert torch.equal(no_neighbors(**posts).logits, ablation(**posts).logits)


@pytest.mark.parametrize("relation", BOTH)
def test_one_relation_can_be_left_out(posts, relation):
    model = make(**{f"use_{relation}": False})
    assert not any(f"{relation}_" in name for name in model.state_dict())
    assert torch.equal(model(**posts).logits, model(**without(posts, relation)).logits)


def test_only_the_best_k_neighbours_are_used(posts):
    one = make(k=1)
    first = {name: tensor[:, :1] if "neighbor" in name else tensor for name, tensor in posts.items()}
    assert torch.equal(one(**posts).logits, one(**first).logits)


def test_similar_neighbours_count_more(posts, rgcn):
    """The same change of a neighbour moves the words less the less similar it is."""
    posts["inter_neighbor_mask"][0, 1:] = False
    moved = []
    for score in (0.1, 0.9):
        posts["inter_neighbor_scores"][0, 0] = score
        changed = change(posts, "inter_neighbor_features", lambda features: features[0, 0].mul_(-1))
        moved.append((rgcn(**changed).logits - rgcn(**posts).logits).abs().sum().item())
    assert moved[0] < moved[1]


def test_inter_message_is_the_same_for_all_words_and_regions_are_not(posts):
    for granularity, rows in (("pooled", 1), ("region", 9)):
        model = make(inter_granularity=granularity).model
        H_S = torch.randn(2, 9, 16)
        N, s, mask = model.neighbors(
            H_S,
            *(posts[f"inter_neighbor_{part}"] for part in ("features", "scores", "mask")),
            pooled=granularity == "pooled",
        )
        message, shares = model.inter_message(H_S, posts["attention_mask"].bool(), N, s, mask)
        assert message.shape == (2, rows, 16) and shares.shape == (2, 3)
        assert not message[1].any() and shares[0, 2] == 0


def test_mean_over_regions_does_not_mix_neighbours_as_the_release_does(posts, rgcn):
    """The release averages five consecutive regions instead of the five pictures."""
    shuffled = change(
        posts, "inter_neighbor_features", lambda features: features.copy_(features[:, :, torch.arange(16).flip(0)])
    )
    assert torch.allclose(rgcn(**shuffled).logits, rgcn(**posts).logits, atol=1e-5)


def test_token_position_is_not_tied_to_picture_position(posts):
    """The release adds cells to pieces by position."""
    model = make(use_intra=False).model
    turned = change(posts, "pixel_values", lambda pixels: pixels.copy_(pixels.flip(-1)))
    words, turned_words = (model(**without(p, "labels")).last_hidden_state for p in (posts, turned))
    assert words.shape == turned_words.shape == (2, 4, 16)
    long = {name: tensor for name, tensor in without(posts, "labels").items()}
    long["input_ids"] = torch.nn.functional.pad(long["input_ids"], (0, 30))
    long["attention_mask"] = torch.nn.functional.pad(long["attention_mask"], (0, 30))
    real = posts["word_starts"] >= 0
    assert torch.allclose(model(**long).last_hidden_state[real], words[real], atol=1e-5)


# --------------------------------------------------------------------------------------------------- own picture


def test_no_picture_masked_picture_and_none_in_the_batch_are_the_same(posts, rgcn):
    masked = rgcn(**posts | {"object_mask": torch.zeros(2, 1, dtype=torch.bool)}).logits
    absent = rgcn(**without(posts, "pixel_values", "object_mask")).logits
    assert torch.allclose(masked, absent, atol=1e-6)
    assert torch.allclose(rgcn(**posts).logits[1], absent[1], atol=1e-6)
    assert not torch.allclose(rgcn(**posts).logits[0], absent[0], atol=1e-3)


def test_without_own_picture_the_intra_relation_has_no_hub(posts, rgcn):
    blind = without(posts, "pixel_values", "object_mask")
    assert torch.equal(rgcn(**blind).logits, rgcn(**without(blind, "intra")).logits)
    assert not rgcn(**blind, output_gates=True).gates["intra"].any()
    assert not torch.allclose(rgcn(**blind).logits, rgcn(**without(blind, "inter")).logits, atol=1e-4)


def test_without_own_picture_attention_to_it_adds_nothing(posts, rgcn):
    before = rgcn(**posts).logits
    rgcn.model.cross_layer.attention.output.bias.data[0] += 1
    assert torch.equal(rgcn(**posts).logits[1], before[1])
    assert not torch.allclose(rgcn(**posts).logits[0], before[0], atol=1e-3)


def test_features_given_instead_of_pixels(posts, rgcn):
    cells = rgcn.model.encode_pictures(posts["pixel_values"], posts["object_mask"])[:, 0]  # [2, 16, 16]
    given = without(posts, "pixel_values", "object_mask") | {
        "object_features": cells,
        "object_mask": posts["object_mask"].expand(-1, 16),
    }
    assert torch.allclose(rgcn(**given).logits, rgcn(**posts).logits, atol=1e-5)


def test_a_model_without_image_encoder_reads_vectors_of_captions(posts):
    model = make(vision_config=None, object_feature_size=12)
    captions = without(posts, "pixel_values", "object_mask")
    for name in BOTH:
        captions[f"{name}_neighbor_features"] = torch.randn(2, 3, 1, 12)
    own = captions | {"object_features": torch.randn(2, 1, 12)}
    assert model(**own).logits.shape == model(**captions).logits.shape == (2, 4, 5)
    assert torch.equal(model(**captions).logits, model(**without(captions, "intra")).logits)
    assert not torch.allclose(model(**own).logits, model(**without(own, "intra")).logits, atol=1e-4)


def test_one_row_of_a_neighbour_speaks_to_all_cells(posts, rgcn):
    pooled = posts | {"intra_neighbor_features": posts["intra_neighbor_features"].mean(2, keepdim=True)}
    repeated = pooled | {"intra_neighbor_features": pooled["intra_neighbor_features"].expand(-1, -1, 16, -1)}
    assert torch.allclose(rgcn(**pooled).logits, rgcn(**repeated).logits, atol=1e-5)


@pytest.mark.parametrize(
    ("change_to", "message"),
    [
        ({"intra_neighbor_features": torch.zeros(2, 3, 49, 16)}, "16 rows of features, its neighbours have 49"),
        ({"inter_neighbor_features": torch.zeros(2, 3, 1, 8)}, "width 8, the model reads 16"),
        ({"pixel_values": torch.zeros(2, 2, 3, 32, 32)}, "one picture a post"),
    ],
)
def test_wrong_shapes_are_one_clear_line(posts, rgcn, change_to, message):
    with pytest.raises(ValueError, match=message):
        rgcn(**posts | change_to)


def test_settings_that_contradict_each_other_are_refused():
    with pytest.raises(StrictDataclassError, match="width 16 is not a multiple of num_heads=5"):
        rgcn_config(num_heads=5)
    with pytest.raises(StrictDataclassError, match="keep the image encoder frozen"):
        rgcn_config(finetune_cnn=True)
    assert rgcn_config(finetune_cnn=True, neighbor_feature_size=16).finetune_cnn


# ----------------------------------------------------------------------------------------- batches, training, saving


@pytest.mark.parametrize("settings", SWITCHES)
def test_padding_of_pieces_words_and_neighbours_changes_nothing(posts, settings):
    pad = torch.nn.functional.pad
    padded = posts | {
        "input_ids": pad(posts["input_ids"], (0, 3)),
        "attention_mask": pad(posts["attention_mask"], (0, 3)),
        "word_starts": pad(posts["word_starts"], (0, 2), value=-1),
        "labels": pad(posts["labels"], (0, 2), value=-100),
    }
    model = make(**settings, k=5)
    for name in BOTH:
        padded[f"{name}_neighbor_features"] = pad(posts[f"{name}_neighbor_features"], (0, 0, 0, 0, 0, 2), value=7.0)
        padded[f"{name}_neighbor_scores"] = pad(posts[f"{name}_neighbor_scores"], (0, 2), value=1.0)
        padded[f"{name}_neighbor_mask"] = pad(posts[f"{name}_neighbor_mask"], (0, 2))
    expected, result = model(**posts), model(**padded)
    real = posts["word_starts"] >= 0
    assert torch.allclose(expected.logits[real], result.logits[:, :4][real], atol=1e-5)
    assert torch.allclose(expected.loss, result.loss, atol=1e-5)
    assert torch.equal(expected.predictions, result.predictions[:, :4])


@pytest.mark.parametrize("settings", SWITCHES)
def test_a_post_alone_is_tagged_as_in_a_batch(posts, settings):
    model = make(**settings)
    together = model(**posts)
    for i in range(2):
        alone = model(**{name: tensor[i : i + 1] for name, tensor in posts.items()})
        real = posts["word_starts"][i] >= 0
        assert torch.allclose(alone.logits[0][real], together.logits[i][real], atol=1e-5)
        assert torch.equal(alone.predictions[0], together.predictions[i])


@pytest.mark.parametrize("settings", SWITCHES)
def test_gradients_reach_every_parameter_but_the_frozen_image_encoder(posts, settings):
    model = make(**settings).train()
    model(**posts).loss.backward()
    for name, parameter in model.named_parameters():
        if "vision_model" in name:
            assert parameter.grad is None, name
        elif "position_embeddings" not in name and not name.endswith("attention.key.bias"):
            assert parameter.grad is not None and parameter.grad.abs().sum() > 0, name


def test_every_parameter_takes_part_even_where_no_post_has_a_picture_or_neighbours(posts, rgcn):
    """Else training on several processes would stop."""
    rgcn.train()(**without(posts, *BOTH, "pixel_values", "object_mask")).loss.backward()
    untouched = [name for name, p in rgcn.named_parameters() if p.requires_grad and p.grad is None]
    assert untouched == []


def test_training_mode_keeps_the_frozen_image_encoder_still(posts):
    model = make(dropout=0.0, text_config=tiny_config().text_config.to_dict() | {"hidden_dropout_prob": 0.0})
    model.config.text_config.attention_probs_dropout_prob = 0.0
    before = {name: tensor.clone() for name, tensor in model.model.vision_model.state_dict().items()}
    model.train()(**posts)
    assert not model.model.vision_model.training
    assert all(torch.equal(tensor, before[name]) for name, tensor in model.model.vision_model.state_dict().items())


def test_gates_say_what_words_and_the_picture_take_from_each_neighbour(posts, rgcn):
    output = rgcn(**posts, output_gates=True)
    inter, intra = output.gates["inter"], output.gates["intra"]
    assert inter.shape == (2, 4, 3) and intra.shape == (2, 4, 3)
    assert (inter[0, :, :2] > 0).all() and not inter[0, :, 2].any() and not inter[1].any()
    assert (intra[0] > 0).all() and not intra[1].any()
    assert rgcn(**posts).gates is None


def test_pieces_can_be_tagged_as_in_the_release(posts):
    labels = [*LABELS, "X", "[CLS]", "[SEP]"]
    names = {"id2label": dict(enumerate(labels)), "label2id": {label: i for i, label in enumerate(labels)}}
    model = make(subword_labels="x", **names)
    output = model(**posts)
    assert torch.isfinite(output.loss) and output.logits.shape == (2, 4, 8)


@pytest.mark.parametrize("settings", [{}, {"readout": "mean", "inter_granularity": "region"}])
def test_a_tiny_model_learns_from_neighbours_alone(settings):
    """The words are the same; only the neighbours' features tell the label."""
    torch.manual_seed(0)
    model = make(**settings, dropout=0.0, use_intra=False).train()
    features = torch.randn(16, 2, 1, 16) * 0.1
    features[:8, :, :, 0] += 2
    posts = {
        "input_ids": torch.tensor([[1, 7, 8, 2]]).repeat(16, 1),
        "attention_mask": torch.ones(16, 4, dtype=torch.long),
        "word_starts": torch.tensor([[1, 2]]).repeat(16, 1),
        "inter_neighbor_features": features,
        "inter_neighbor_scores": torch.ones(16, 2),
        "labels": torch.tensor([[0, 1]] * 8 + [[0, 3]] * 8),
    }
    optimizer = torch.optim.Adam(model.parameters(), lr=1e-2)
    for _ in range(40):
        model(**posts).loss.backward()
        optimizer.step()
        optimizer.zero_grad()
    assert torch.equal(model.eval()(**posts).predictions, posts["labels"])
