"""Saving and loading: Auto classes, pretrained encoders, missing weights, other heads, kinds of attention."""

import shutil

import pytest
import torch
from PIL import Image
from safetensors.torch import load_file, save_file
from transformers import (
    AutoConfig,
    AutoImageProcessor,
    AutoModel,
    AutoModelForTokenClassification,
    AutoProcessor,
    BertConfig,
    BertModel,
    ResNetConfig,
    ResNetModel,
    RobertaConfig,
    RobertaModel,
    TimmWrapperConfig,
    TimmWrapperModel,
    pipeline,
)
from transformers.utils import logging

from modeling_umgf import UmgfConfig, UmgfForTokenClassification, UmgfImageProcessor, UmgfModel


def logits_of(model, batch):
    with torch.no_grad():
        return model(**{name: tensor for name, tensor in batch.items() if name != "labels"}).logits


@pytest.fixture
def folder(model, processor, tmp_path):
    model.save_pretrained(tmp_path / "model")
    processor.save_pretrained(tmp_path / "model")
    return tmp_path / "model"


def test_the_auto_classes_load_a_saved_folder(folder, model, batch, processor):
    assert type(AutoConfig.from_pretrained(folder)) is UmgfConfig
    assert type(AutoModel.from_pretrained(folder)) is UmgfModel
    assert type(AutoImageProcessor.from_pretrained(folder)) is UmgfImageProcessor
    loaded = AutoModelForTokenClassification.from_pretrained(folder)
    assert type(loaded) is UmgfForTokenClassification
    assert torch.equal(logits_of(loaded, batch), logits_of(model, batch))
    assert loaded.config.id2label == model.config.id2label
    words = ["Anna", "meets", "Rome"]
    one, two = processor(words=words), AutoProcessor.from_pretrained(folder)(words=words)
    assert all(torch.equal(one[name], two[name]) for name in one)


def test_the_pipeline_of_transformers_says_which_one_to_use_instead(folder, caplog):
    """It labels pieces, without their words and pictures, and once gave wrong names without a word."""
    logging.warning_once.cache_clear()
    logging.enable_propagation()
    pipeline("token-classification", model=str(folder))("Anna meets Bob")
    logging.disable_propagation()
    assert 'use pipeline("multimodal-ner", model=…)' in caplog.text


def test_a_saved_folder_holds_safetensors_and_no_pickle(folder):
    names = {path.name for path in folder.iterdir()}
    assert "model.safetensors" in names
    assert not any(name.endswith((".bin", ".pt", ".pth", ".pkl")) for name in names)


def bert(**settings):
    settings = {"num_hidden_layers": 1, "num_attention_heads": 2, "intermediate_size": 32} | settings
    return BertModel(BertConfig(vocab_size=160, hidden_size=16, **settings))


def test_two_pretrained_backbones_keep_their_weights_and_are_not_needed_again(batch, tmp_path):
    bert().save_pretrained(tmp_path / "text")
    vision = ResNetModel(ResNetConfig(embedding_size=8, hidden_sizes=[8, 24], depths=[1, 1], layer_type="basic"))
    vision.save_pretrained(tmp_path / "vision")
    model = UmgfForTokenClassification.from_text_vision_pretrained(
        tmp_path / "text", tmp_path / "vision", labels=["O", "B-PER", "I-PER"], d_model=16, num_heads=2
    ).eval()
    assert model.config.object_feature_size == 24
    assert model.config.label2id == {"O": 0, "B-PER": 1, "I-PER": 2}
    assert str(tmp_path) not in model.config.to_json_string()
    names = [config._name_or_path for config in (model.config.text_config, model.config.vision_config)]
    assert names == ["./text", "./vision"]  # pretrained, from folders whose paths are nobody's business
    text = BertModel.from_pretrained(tmp_path / "text")
    for name, value in model.model.text_model.state_dict().items():
        assert torch.equal(value, text.state_dict()[name])
    for name, value in model.model.vision_model.state_dict().items():
        assert torch.equal(value, vision.state_dict()[name])
    model.save_pretrained(tmp_path / "model")
    expected = logits_of(model, batch)
    shutil.rmtree(tmp_path / "text")
    shutil.rmtree(tmp_path / "vision")
    assert torch.equal(logits_of(UmgfForTokenClassification.from_pretrained(tmp_path / "model"), batch), expected)


def test_other_encoders_fit_in_roberta_and_timm(batch, tmp_path):
    settings = {"num_hidden_layers": 1, "num_attention_heads": 2, "intermediate_size": 32, "hidden_size": 16}
    RobertaModel(RobertaConfig(vocab_size=160, **settings)).save_pretrained(tmp_path / "text")
    TimmWrapperModel(TimmWrapperConfig(architecture="test_resnet")).save_pretrained(tmp_path / "vision")
    model = UmgfForTokenClassification.from_text_vision_pretrained(
        tmp_path / "text", tmp_path / "vision", labels=["O", "B-PER", "I-PER"], d_model=16, num_heads=2
    )
    model.train()(**batch | {"labels": batch["labels"].clamp(max=2)}).loss.backward()
    assert all(parameter.grad is not None for parameter in model.model.vision_model.parameters())


def test_padding_is_masked_in_a_backbone_that_was_loaded(tmp_path):
    bert().save_pretrained(tmp_path)
    model = UmgfForTokenClassification.from_text_vision_pretrained(tmp_path, d_model=16, num_heads=2).eval()
    ids = torch.tensor([[2, 9, 8, 3]])
    padded = torch.nn.functional.pad(ids, (0, 4), value=7)
    mask = torch.tensor([[1] * 4 + [0] * 4])
    starts = torch.tensor([[1, 2]])
    one = model(input_ids=ids, attention_mask=mask[:, :4], word_starts=starts).logits
    assert torch.allclose(one, model(input_ids=padded, attention_mask=mask, word_starts=starts).logits, atol=1e-6)


@pytest.mark.parametrize("attention", ["sdpa", "eager"])
def test_a_kind_of_attention_may_be_asked_for_though_a_cnn_has_none(folder, model, batch, attention):
    loaded = UmgfForTokenClassification.from_pretrained(folder, attn_implementation=attention)
    assert loaded.model.text_model.config._attn_implementation == attention
    assert torch.allclose(logits_of(loaded, batch), logits_of(model, batch), atol=1e-5)
    auto = AutoModelForTokenClassification.from_pretrained(folder, attn_implementation=attention)
    assert auto.model.text_model.config._attn_implementation == attention


def test_missing_weights_are_initialised_and_loaded_ones_left_alone(model, folder):
    weights = load_file(folder / "model.safetensors")
    weights["label_decoder.transitions"] = torch.full((5, 5), 9.0)
    for name in (
        "label_decoder.start_transitions",
        "model.layers.0.text.gate_norm.weight",
        "classifier.bias",
        "classifier.weight",
    ):
        del weights[name]
    save_file(weights, folder / "model.safetensors", metadata={"format": "pt"})
    loaded = UmgfForTokenClassification.from_pretrained(folder)
    assert (loaded.label_decoder.transitions == 9).all()
    assert loaded.label_decoder.start_transitions.abs().max() <= 0.1
    assert (loaded.model.layers[0].text.gate_norm.weight == 1).all()
    assert (loaded.classifier.bias == 0).all()
    assert 0 < loaded.classifier.weight.abs().max() < 1


def test_image_normalisation_follows_the_image_encoder(tmp_path):
    from transformers import ViTImageProcessor

    ViTImageProcessor(image_mean=[0.1, 0.2, 0.3], image_std=[0.4, 0.5, 0.6]).save_pretrained(tmp_path)
    processor = UmgfImageProcessor.from_vision_model(tmp_path, size={"height": 8, "width": 8})
    pixels = processor([Image.new("RGB", (20, 10), (255, 0, 51))])["pixel_values"][0]
    assert pixels.shape == (3, 8, 8)
    expected = [(1 - 0.1) / 0.4, (0 - 0.2) / 0.5, (0.2 - 0.3) / 0.6]
    assert [float(channel.mean()) for channel in pixels] == pytest.approx(expected, abs=1e-5)


def test_a_model_of_another_label_set_can_be_loaded_with_a_new_head(folder):
    model = UmgfForTokenClassification.from_pretrained(folder, num_labels=9, ignore_mismatched_sizes=True)
    assert model.classifier.out_features == model.label_decoder.num_tags == 9
    assert model.label_decoder.transitions.abs().max() <= 0.1
