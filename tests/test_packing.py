"""Short posts that share a row of the text encoder have the states that they have alone."""

import pytest
import torch
from conftest import tiny_config
from transformers import BertConfig, ElectraConfig, RobertaConfig

from modeling_umgf import TextOnlyConfig, TextOnlyForTokenClassification, UmgfForTokenClassification
from modeling_umgf.packing import PIECES_IN_A_ROW, rows_of

SIZES = {"vocab_size": 100, "hidden_size": 16, "num_hidden_layers": 2, "num_attention_heads": 2}
SIZES |= {"intermediate_size": 32, "max_position_embeddings": 64, "pad_token_id": 1}
ENCODERS = {"bert": BertConfig, "electra": ElectraConfig, "roberta": RobertaConfig}
LENGTHS = [3, 17, 9, 1, 40, 5, 12, 22]

of_every_encoder = pytest.mark.parametrize("kind", list(ENCODERS))


def text_model(kind: str, **settings) -> TextOnlyForTokenClassification:
    torch.manual_seed(0)
    config = TextOnlyConfig(text_config=ENCODERS[kind](**SIZES).to_dict(), num_labels=5, classifier_dropout=0.0)
    for name, value in settings.items():
        setattr(config.text_config, name, value)
    return TextOnlyForTokenClassification(config).eval()


def posts(lengths: list[int] = LENGTHS, left: bool = False) -> dict[str, torch.Tensor]:
    column = torch.arange(max(lengths))
    mask = column < torch.tensor(lengths)[:, None]
    if left:
        mask = mask.flip(1)
    ids = torch.randint(5, 100, mask.shape, generator=torch.Generator().manual_seed(0)).masked_fill(~mask, 1)
    return {"input_ids": ids, "attention_mask": mask.long()}


def rows_that_the_encoder_read(model, batch: dict) -> torch.Size:
    shapes = []
    encoder = model.model.text_model
    handle = encoder.register_forward_hook(lambda module, args, output: shapes.append(output.last_hidden_state.shape))
    model(**batch)
    handle.remove()
    return shapes[0][:2]


@of_every_encoder
@pytest.mark.parametrize("left", [False, True])
@torch.no_grad()
def test_posts_in_rows_have_the_states_of_padded_posts(kind, left):
    model = text_model(kind)
    batch = posts(left=left)
    rows, pieces = rows_that_the_encoder_read(model, batch)
    assert rows * pieces < 0.5 * batch["input_ids"].numel()
    packed = model.model(**batch).last_hidden_state
    real = batch["attention_mask"].bool()
    own = {"position_ids": (real.cumsum(1) - 1).clamp(min=0)} if model.model.counts_padding else {}
    padded = model.model.text_model(**batch, **own).last_hidden_state
    assert torch.allclose(packed[real], padded[real], atol=1e-5)
    assert not packed[~real].any()


@of_every_encoder
def test_gradients_are_those_of_padded_posts(kind):
    batch = posts()
    batch["labels"] = torch.zeros_like(batch["input_ids"]).masked_fill(batch["attention_mask"] == 0, -100)
    gradients = []
    for settings in ({}, {"output_hidden_states": True}):  # who wants more than the last states gets padding
        model = text_model(kind, **settings)
        model(**batch).loss.backward()
        gradients.append({name: p.grad for name, p in model.named_parameters() if p.grad is not None})
    packed, padded = gradients
    assert packed.keys() == padded.keys()
    assert all(torch.allclose(packed[name], padded[name], atol=1e-5) for name in packed)


@torch.no_grad()
def test_given_positions_and_token_types_belong_to_their_pieces():
    model = text_model("bert")
    batch = posts()
    own = {"position_ids": batch["input_ids"] % 7, "token_type_ids": batch["input_ids"] % 2}
    packed = model.model(**batch, **own).last_hidden_state
    padded = model.model.text_model(**batch, **own).last_hidden_state
    real = batch["attention_mask"].bool()
    assert torch.allclose(packed[real], padded[real], atol=1e-5)


@torch.no_grad()
def test_hidden_states_and_attentions_on_request_are_those_of_the_posts():
    model = text_model("bert")
    outputs = model.model(**posts(), output_hidden_states=True)
    assert all(states.shape[:2] == (len(LENGTHS), max(LENGTHS)) for states in outputs.hidden_states)


def test_posts_of_like_length_stay_as_they_are():
    model = text_model("bert")
    assert rows_that_the_encoder_read(model, posts([20] * 4)) == (4, 20)
    assert rows_of(torch.zeros(3, 4, dtype=torch.bool)) is None


def test_rows_hold_every_piece_once_and_no_post_sees_another():
    lengths = torch.randint(1, 60, (50,), generator=torch.Generator().manual_seed(0))
    mask = torch.arange(60) < lengths[:, None]
    rows = rows_of(mask)
    assert rows.pieces.shape[1] < 1.5 * PIECES_IN_A_ROW
    assert torch.equal(rows.unpack(rows.pack(mask.cumsum(1)[..., None]), mask)[..., 0], mask.cumsum(1) * mask)
    assert rows.places[mask].unique().numel() == mask.sum()
    post = torch.arange(50)[:, None].expand_as(mask)
    of_place = rows.pack(post)
    real = torch.zeros(rows.pieces.numel(), dtype=torch.bool)
    real[rows.places[mask]] = True
    real = real.view_as(rows.pieces)
    both_real = real[:, :, None] & real[:, None]
    same_post = of_place[:, :, None] == of_place[:, None]
    assert torch.equal(rows.attention_mask[:, 0] & both_real, same_post & both_real)


def test_word_dropout_works_in_rows():
    torch.manual_seed(0)
    model = UmgfForTokenClassification(tiny_config(word_dropout=0.5)).train()
    batch = posts()
    assert rows_that_the_encoder_read(model, batch)[0] == 1
