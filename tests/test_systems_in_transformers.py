"""What transformers expects of its models holds for every registered system."""

import pytest
import torch
from systems_under_test import SYSTEMS, make_batch, make_model, make_processor, posts
from transformers import AutoModelForTokenClassification

pytestmark = pytest.mark.filterwarnings("ignore:The PyTorch API of nested tensors")
of_every_system = pytest.mark.parametrize("model_type", SYSTEMS)
CLOSE = {"atol": 1e-5, "rtol": 1e-4}


@of_every_system
def test_embeddings_may_be_resized(model_type):
    model, batch = make_model(model_type), make_batch(model_type)
    expected = model(**batch).logits
    before = model.get_input_embeddings().num_embeddings
    model.resize_token_embeddings(before + 7)
    assert model.get_input_embeddings().num_embeddings == before + 7
    assert model.config.text_config.vocab_size == before + 7
    torch.testing.assert_close(model(**batch).logits, expected, **CLOSE)
    batch["input_ids"][0, 1] = before + 3
    assert torch.isfinite(model(**batch).logits).all()


@of_every_system
def test_gradient_checkpointing_changes_no_gradient(model_type):
    batch = make_batch(model_type)
    gradients = []
    for checkpointed in (False, True):
        model = make_model(model_type)
        if checkpointed:
            model.gradient_checkpointing_enable({"use_reentrant": False})
            assert model.is_gradient_checkpointing
        model.train()
        for module in model.modules():
            if isinstance(module, torch.nn.Dropout):
                module.p = 0.0
        torch.manual_seed(0)
        model(**batch).loss.backward()
        gradients.append({name: p.grad for name, p in model.named_parameters() if p.grad is not None})
    plain, checkpointed = gradients
    assert plain.keys() == checkpointed.keys()
    for name, gradient in plain.items():
        torch.testing.assert_close(checkpointed[name], gradient, **CLOSE)


@of_every_system
def test_hidden_states_and_attentions_come_on_request(model_type):
    model, batch = make_model(model_type, attn_implementation="eager"), make_batch(model_type)
    assert model(**batch).hidden_states is None and model(**batch).attentions is None
    if model_type == "rpbert":  # its text encoder reads twice, text and picture at once: which of them would it be?
        with pytest.raises(ValueError, match="takes no output_hidden_states"):
            model(**batch, output_hidden_states=True)
        return
    output = model(**batch, output_hidden_states=True, output_attentions=True)
    B, n = batch["input_ids"].shape
    layers = model.config.text_config.num_hidden_layers
    assert [tuple(states.shape[:2]) for states in output.hidden_states] == [(B, n)] * (layers + 1)
    assert [tuple(shares.shape) for shares in output.attentions] == [(B, 2, n, n)] * layers
    as_tuple = model(**batch, return_dict=False)
    assert isinstance(as_tuple, tuple) and torch.equal(as_tuple[0], model(**batch).loss)


@of_every_system
def test_sdpa_and_eager_attention_say_the_same(model_type):
    batch = make_batch(model_type)
    eager, sdpa = (make_model(model_type, attn_implementation=kind) for kind in ("eager", "sdpa"))
    assert eager.model.text_model.config._attn_implementation == "eager"
    assert sdpa.model.text_model.config._attn_implementation == "sdpa"
    sdpa.load_state_dict(eager.state_dict())
    torch.testing.assert_close(sdpa(**batch).logits, eager(**batch).logits, **CLOSE)


@of_every_system
def test_loading_leaves_nothing_uninitialised(model_type, tmp_path):
    model, batch = make_model(model_type), make_batch(model_type)
    model.save_pretrained(tmp_path)
    expected = model(**batch).logits
    own = type(model)
    with torch.device("meta"):
        assert all(p.device.type == "meta" for p in own(model.config).parameters())
    for settings in (
        {},
        {"device_map": "cpu"},
        {"device_map": {"": "cpu"}},
        {"dtype": "auto"},
        {"low_cpu_mem_usage": True},
    ):
        loaded, found = AutoModelForTokenClassification.from_pretrained(tmp_path, output_loading_info=True, **settings)
        assert not found["missing_keys"] and not found["unexpected_keys"]
        tensors = [*loaded.named_parameters(), *loaded.named_buffers()]
        assert all(tensor.device.type == "cpu" for _, tensor in tensors)
        assert [name for name, tensor in tensors if tensor.is_floating_point() and not tensor.isfinite().all()] == []
        torch.testing.assert_close(loaded(**batch).logits, expected, **CLOSE)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float64])
@of_every_system
def test_a_model_is_loaded_in_the_type_that_is_asked_for(model_type, dtype, tmp_path):
    model = make_model(model_type)
    model.save_pretrained(tmp_path)
    loaded = AutoModelForTokenClassification.from_pretrained(tmp_path, dtype=dtype)
    assert all(p.dtype == dtype for name, p in loaded.named_parameters() if "label_decoder" not in name)
    assert torch.isfinite(loaded(**make_batch(model_type)).loss)


@of_every_system
def test_padding_on_the_left_says_the_same_as_on_the_right(model_type):
    model, processor = make_model(model_type), make_processor(model_type)
    right = processor.batch(processor.prepare(posts()))
    processor.tokenizer.padding_side = "left"
    left = processor.batch(processor.prepare(posts()))
    assert not left["attention_mask"][2, 0] and right["attention_mask"][2, 0]
    real = right["word_starts"] >= 0
    torch.testing.assert_close(model(**left).logits[real], model(**right).logits[real], atol=1e-4, rtol=1e-3)
    assert torch.equal(model(**left).predictions, model(**right).predictions)
