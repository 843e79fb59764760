"""RpBERT: one sequence of text and picture, relation, LSTM; what holds for every system is in test_systems.py."""

import pytest
import torch
from conftest import tiny_tokenizer
from huggingface_hub.errors import StrictDataclassClassValidationError
from systems_under_test import make_batch, make_config, make_model, make_processor, posts
from torch import nn
from torch.nn.functional import cross_entropy
from transformers import AutoConfig

from modeling_umgf.configuration_rpbert import RpbertConfig
from modeling_umgf.model_arguments import limit_pieces
from modeling_umgf.modeling_multimodal_ner import Pieces
from modeling_umgf.modeling_rpbert import RpbertForTokenClassification
from modeling_umgf.systems import systems


def features_batch():
    """Two posts: nine pieces with three regions, five pieces with two."""
    generator = torch.Generator().manual_seed(0)
    mask = torch.tensor([[1] * 9, [1] * 5 + [0] * 4])
    return {
        "input_ids": torch.randint(5, 50, (2, 9), generator=generator) * mask,
        "attention_mask": mask,
        "word_starts": torch.tensor([[1, 3, 4, 6], [1, 2, -1, -1]]),
        "object_features": torch.randn(2, 3, 16, generator=generator),
        "object_mask": torch.tensor([[True, True, True], [True, True, False]]),
    }


def test_the_text_encoder_reads_the_post_twice_with_the_regions_after_the_text():
    model, batch = make_model("rpbert", lstm_layers=0), features_batch()
    states = model.model(**batch, output_gates=True)
    bert, base = model.model.text_model, model.model
    for i, (n, v) in enumerate([(9, 3), (5, 2)]):
        E = bert.embeddings.word_embeddings(batch["input_ids"][i : i + 1, :n])
        V = base.projection(batch["object_features"][i : i + 1, :v])
        segments = torch.tensor([[0] * n + [1] * v])
        first = bert(inputs_embeds=torch.cat([E, V], dim=1), token_type_ids=segments).last_hidden_state
        r = base.relation(first[:, 0]).softmax(-1)[0, 1]
        second = bert(inputs_embeds=torch.cat([E, r * V], dim=1), token_type_ids=segments).last_hidden_state[0]
        starts = [start for start in batch["word_starts"][i].tolist() if start >= 0]
        torch.testing.assert_close(states.last_hidden_state[i, : len(starts)], second[starts], atol=1e-5, rtol=1e-4)
        gates = states.gates["objects"][i, : len(starts)]
        torch.testing.assert_close(gates, r.expand_as(gates) * batch["object_mask"][i], atol=1e-6, rtol=1e-5)


def test_the_lstm_reads_the_states_of_the_words():
    with_lstm, batch = make_model("rpbert"), features_batch()
    without = make_model("rpbert", lstm_layers=0)
    without.model.load_state_dict(with_lstm.model.state_dict(), strict=False)
    x = without.model(**batch).last_hidden_state
    theirs = nn.LSTM(16, 8, 2, batch_first=True, bidirectional=True)
    for layer, lstm in enumerate(with_lstm.model.lstms):
        for direction, end in ((lstm.forth.lstm, ""), (lstm.back.lstm, "_reverse")):
            for name, value in direction.named_parameters():
                getattr(theirs, name.replace("l0", f"l{layer}{end}")).data = value.data
    states = with_lstm.model(**batch).last_hidden_state
    for i, words in enumerate((4, 2)):
        torch.testing.assert_close(states[i, :words], theirs(x[i : i + 1, :words])[0][0], atol=1e-5, rtol=1e-4)


def test_the_relation_is_learned_from_posts_that_tell_it():
    model, batch = make_model("rpbert"), make_batch("rpbert")
    expected = model(**batch).loss
    base = model.model
    cells, mask = base.encode_objects(torch.zeros(1), batch["pixel_values"], None, batch["object_mask"])
    V, mask = base.projection(cells[:, 0]), mask.expand(-1, cells.shape[2])
    E = base.text_model.get_input_embeddings()(batch["input_ids"])
    relation = base.relation(base.encode(Pieces(E, batch["attention_mask"].bool()), V, mask)[:, 0])
    told = [{**post, "picture_adds": adds} for post, adds in zip(posts(), [True, True, None], strict=True)]
    told = make_batch("rpbert", told)  # the second post has no picture: nothing is known of it
    assert told["picture_adds"].tolist() == [1, 1, -100]
    loss = 0.05 * cross_entropy(relation[:1], torch.tensor([1])) / 3
    torch.testing.assert_close(model(**told).loss, expected + loss)
    assert torch.equal(model(**told).logits, model(**batch).logits)


def test_a_relation_that_is_neither_true_nor_false_is_refused():
    told = [post | {"picture_adds": "yes"} for post in posts()]
    with pytest.raises(ValueError, match=r"Post 0 of the batch \(id a\): picture_adds='yes': give True, False"):
        make_processor("rpbert").prepare(told)


def test_padding_on_the_left_changes_nothing():
    model, batch = make_model("rpbert"), features_batch()
    moved = {name: tensor.clone() for name, tensor in batch.items()}
    for name in ("input_ids", "attention_mask"):
        moved[name][1] = batch[name][1].roll(4)
    moved["word_starts"][1, :2] += 4
    real = batch["word_starts"] >= 0
    torch.testing.assert_close(model(**moved).logits[real], model(**batch).logits[real], atol=1e-5, rtol=1e-4)


@pytest.mark.parametrize("encoder", ["roberta", "distilbert", "electra", "deberta-v2", "modernbert"])
def test_text_encoders_without_segments_or_with_narrow_embeddings_read_pictures_too(encoder):
    text = {"vocab_size": 160, "hidden_size": 16, "num_hidden_layers": 1, "num_attention_heads": 2, "pad_token_id": 0}
    text |= {"intermediate_size": 32, "max_position_embeddings": 64}
    text |= {"roberta": {"type_vocab_size": 1}, "electra": {"embedding_size": 8}}.get(encoder, {})
    text |= {"distilbert": {"dim": 16, "n_layers": 1, "n_heads": 2, "hidden_dim": 32}}.get(encoder, {})
    torch.manual_seed(0)
    text_config = AutoConfig.for_model(encoder, **text)
    model = RpbertForTokenClassification(make_config(systems()["rpbert"], text_config=text_config)).eval()
    batch = features_batch()
    alone = {name: tensor[1:, :5] if name != "word_starts" else tensor[1:, :2] for name, tensor in batch.items()}
    expected, result = model(**batch).logits, model(**alone).logits
    torch.testing.assert_close(result[0], expected[1, :2], atol=1e-5, rtol=1e-4)
    changed = batch | {"object_features": -10 * batch["object_features"]}
    assert (model(**changed).logits - expected).abs().max() > 1e-4


def test_what_the_text_encoder_is_asked_besides_is_refused():
    with pytest.raises(ValueError, match="reads text and picture at once: it takes no output_attentions"):
        make_model("rpbert")(**features_batch(), output_attentions=True)


def test_a_post_may_be_as_long_as_its_own_regions_leave_positions():
    def of(pieces: int, regions: int) -> dict[str, torch.Tensor]:
        batch = {"input_ids": torch.randint(5, 100, (1, pieces)), "attention_mask": torch.ones(1, pieces).long()}
        batch |= {"object_features": torch.randn(1, regions, 16), "object_mask": torch.ones(1, regions).bool()}
        return batch | {"word_starts": torch.arange(1, pieces)[None]}

    def together(first: dict[str, torch.Tensor], second: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
        padding = {"word_starts": -1}
        batch = {}
        for name, long in first.items():
            size = max(long.shape[1], second[name].shape[1])
            both = [torch.zeros(1, size, *long.shape[2:], dtype=long.dtype) + padding.get(name, 0) for _ in range(2)]
            for row, own in zip(both, (long, second[name]), strict=True):
                row[:, : own.shape[1]] = own
            batch[name] = torch.cat(both)
        return batch

    model = make_model("rpbert")
    first, second = of(62, 2), of(5, 20)  # 64 positions
    logits = model(**together(first, second)).logits
    torch.testing.assert_close(logits[0], model(**first).logits[0], atol=1e-5, rtol=1e-4)
    with pytest.raises(ValueError, match="62 pieces and 3 regions .* more than the 64 positions"):
        model(**together(of(62, 3), second))


def test_positions_that_roberta_does_not_count_are_no_room():
    text = {"vocab_size": 160, "hidden_size": 16, "num_hidden_layers": 1, "num_attention_heads": 2, "pad_token_id": 1}
    text_config = AutoConfig.for_model("roberta", **text, intermediate_size=32, max_position_embeddings=64)
    model = RpbertForTokenClassification(make_config(systems()["rpbert"], text_config=text_config)).eval()
    features = {"object_features": torch.zeros(1, 2, 16), "object_mask": torch.ones(1, 2).bool()}
    whole = torch.randint(5, 100, (1, 60))  # 62 positions are counted, two are the regions'
    assert model(input_ids=whole, attention_mask=torch.ones_like(whole), **features).logits.shape[1] == 60
    longer = torch.randint(5, 100, (1, 61))
    with pytest.raises(ValueError, match="61 pieces and 2 regions .* more than the 62 positions"):
        model(input_ids=longer, attention_mask=torch.ones_like(longer), **features)


def test_a_sequence_that_is_too_long_for_the_text_encoder_is_refused():
    batch = features_batch() | {"object_features": torch.zeros(2, 56, 16), "object_mask": None}
    with pytest.raises(ValueError, match="9 pieces and 56 regions of the picture are more than the 64.*max_length=8"):
        make_model("rpbert")(**batch)


def test_pictures_that_leave_no_position_for_a_text_are_refused():
    tokenizer = tiny_tokenizer()
    limit_pieces(tokenizer, make_model("rpbert"), (32, 32))
    assert 2 < tokenizer.model_max_length < 512
    with pytest.raises(ValueError, match="--image_size: a picture of 2048 x 2048 pixels leaves no position"):
        limit_pieces(tokenizer, make_model("rpbert"), (2048, 2048))


@pytest.mark.parametrize("model_type", ["text_only", "umgf"])
def test_a_text_encoder_with_few_positions_is_not_the_fault_of_a_picture(model_type):
    tokenizer, model = tiny_tokenizer(), make_model(model_type)
    model.config.text_config.max_position_embeddings = 2
    limit_pieces(tokenizer, model, None if model_type == "text_only" else (32, 32))
    assert tokenizer.model_max_length == 2


def test_a_text_encoder_of_words_and_their_characters_is_refused_when_it_is_built():
    text_config = {"model_type": "bilstm", "characters": "cnn"}
    with pytest.raises(
        StrictDataclassClassValidationError, match="regions have no characters: give one with characters='none'"
    ):
        RpbertConfig(text_config=text_config, object_feature_size=16)
