"""Any image encoder: batches with and without pictures, gradients, native sizes, widths, halves of larger models."""

import functools

import pytest
import torch
from conftest import SENTENCES, tiny_config
from datasets import DatasetDict
from finished_run import three_posts
from PIL import Image
from transformers import (
    BeitConfig,
    CLIPConfig,
    CLIPModel,
    CLIPVisionConfig,
    Dinov2Config,
    PreTrainedConfig,
    ResNetConfig,
    SiglipConfig,
    SiglipModel,
    SiglipVisionConfig,
    SwinConfig,
    TimmWrapperConfig,
    ViTConfig,
    ViTImageProcessor,
)

import train_umgf
from modeling_umgf import MultimodalNerImageProcessor, UmgfForTokenClassification
from modeling_umgf.image_encoder import feature_map, measure, picture_size

TRANSFORMER = {"hidden_size": 16, "num_hidden_layers": 1, "num_attention_heads": 2, "image_size": 32, "patch_size": 8}
SWIN = {"embed_dim": 8, "depths": (1, 1), "num_heads": (2, 2), "window_size": 4}

MEAN = [0.1, 0.2, 0.3]
STD = [0.4, 0.5, 0.6]


def timm_config(architecture: str, **arguments) -> TimmWrapperConfig:
    pretrained = {"mean": MEAN, "std": STD, "input_size": [3, 32, 32]}
    return TimmWrapperConfig(architecture=architecture, model_args=arguments, pretrained_cfg=pretrained)


ENCODERS = {
    "ViT": ViTConfig(**TRANSFORMER, intermediate_size=16),
    "CLIP": CLIPVisionConfig(**TRANSFORMER, intermediate_size=16),
    "SigLIP": SiglipVisionConfig(**TRANSFORMER, intermediate_size=16),
    "DINOv2": Dinov2Config(**TRANSFORMER, mlp_ratio=1),
    "BEiT": BeitConfig(**TRANSFORMER, intermediate_size=16),
    "Swin": SwinConfig(**SWIN, image_size=32, patch_size=4),
    "ResNet": ResNetConfig(embedding_size=8, hidden_sizes=[8, 16], depths=[1, 1], layer_type="basic"),
    "timm ViT": timm_config("test_vit", img_size=32),
    "timm Swin": timm_config("swin_tiny_patch4_window7_224", img_size=32, **SWIN),
    "timm ResNet": timm_config("test_resnet"),
}

WIDTHS = dict.fromkeys(ENCODERS, 16) | {"timm ViT": 64, "timm ResNet": 96}
CNNS = {"ResNet": 8, "timm ResNet": 32}
"""Pixels of a picture that such an encoder turns into one single cell."""

every_encoder = pytest.mark.parametrize("name", list(ENCODERS))
every_cnn = pytest.mark.parametrize("name", list(CNNS))


def vision(name: str) -> dict:
    return ENCODERS[name].to_dict()


@functools.cache
def model_with(name: str, **settings) -> UmgfForTokenClassification:
    torch.manual_seed(0)
    config = tiny_config(vision_config=vision(name), object_feature_size=WIDTHS[name], num_layers=1, **settings)
    return UmgfForTokenClassification(config)


def gradients(model: UmgfForTokenClassification, posts: dict) -> dict[str, torch.Tensor | None]:
    model.zero_grad()
    model.train()(**posts).loss.backward()
    return {name: parameter.grad for name, parameter in model.named_parameters() if parameter.requires_grad}


@pytest.fixture
def blind(batch) -> dict[str, dict]:
    """A batch of posts none of which has a picture, in both forms."""
    nodes = ("pixel_values", "object_mask", "inter_modal_mask")
    return {
        "masked": batch | {"object_mask": torch.zeros(2, 2, dtype=torch.bool)},
        "absent": {name: tensor for name, tensor in batch.items() if name not in nodes},
    }


@every_encoder
def test_a_batch_without_a_picture_trains_every_parameter_that_pictures_train(batch, blind, name):
    """Else training on several processes would stop where only one of them has pictures."""
    model = model_with(name)
    with_pictures = gradients(model, batch)
    assert [name for name, gradient in with_pictures.items() if gradient is None] == []
    assert any(gradient.any() for name, gradient in with_pictures.items() if ".vision_model." in name)
    for posts in blind.values():
        without = gradients(model, posts)
        assert [name for name, gradient in without.items() if gradient is None] == []
        assert not any(gradient.any() for name, gradient in without.items() if ".vision_model." in name)


@every_encoder
def test_a_batch_without_a_picture_is_tagged_as_its_text(batch, blind, name):
    model = model_with(name).eval()
    with torch.no_grad():
        masked, absent = (model(**posts).logits for posts in blind.values())
        seen = model(**batch).logits
    assert torch.equal(masked, absent)
    assert not torch.allclose(seen[0], absent[0], atol=1e-4)
    assert torch.allclose(seen[1], absent[1], atol=1e-5)


@every_encoder
def test_what_features_do_not_depend_on_is_not_trained(batch, name):
    encoder = model_with(name).model.vision_model
    _, unused = measure(encoder)
    frozen = [name for name, parameter in encoder.named_parameters() if not parameter.requires_grad]
    assert frozen == unused
    if name == "SigLIP":
        assert "head.probe" in frozen and "embeddings.patch_embedding.weight" not in frozen


@every_encoder
def test_the_width_of_the_features_is_measured_without_computing(name):
    encoder = model_with(name).model.vision_model
    assert measure(encoder)[0] == WIDTHS[name]
    height, width = picture_size(ENCODERS[name])
    with torch.no_grad():
        cells = feature_map(encoder.eval(), torch.randn(1, 3, height, width))
    assert cells.shape[::2] == (1, WIDTHS[name])


@every_cnn
def test_one_single_picture_trains_an_encoder_with_live_batch_norms(batch, name):
    model = model_with(name, freeze_bn=False)
    size = CNNS[name]
    posts = batch | {
        "pixel_values": torch.randn(2, 2, 3, size, size),
        "object_mask": torch.tensor([[True, False], [False, False]]),
    }
    before = {name: buffer.clone() for name, buffer in model.model.vision_model.named_buffers()}
    with_one = gradients(model, posts)
    assert [name for name, gradient in with_one.items() if gradient is None] == []
    assert any(gradient.any() for name, gradient in with_one.items() if ".vision_model." in name)
    assert all(torch.equal(buffer, before[name]) for name, buffer in model.model.vision_model.named_buffers())
    batch_norms = [m for m in model.modules() if isinstance(m, torch.nn.BatchNorm2d)]
    assert batch_norms and all(norm.training for norm in batch_norms)

    gradients(model, posts | {"object_mask": torch.tensor([[True, True], [False, False]])})
    after = dict(model.model.vision_model.named_buffers())
    assert any(not torch.equal(after[name], buffer) for name, buffer in before.items())  # of two it learns


@every_encoder
def test_an_encoder_from_scratch_reads_the_pictures_that_are_made_for_it(name):
    arguments = train_umgf.ModelArguments(
        text_config=tiny_config().text_config.to_dict(),
        vision_config=vision(name),
        config_overrides={"d_model": 16, "num_heads": 2, "object_feature_size": WIDTHS[name]},
    )
    model, processor = train_umgf.build(arguments, DatasetDict(train=three_posts()))
    assert_reads_its_own_pictures(model, processor.image_processor, ENCODERS[name])
    posts = processor(text=SENTENCES[:2], images=[Image.new("RGB", (50, 40)), None], labels=[[0] * 6, [0] * 5])
    assert torch.isfinite(model.train()(**posts).loss)


@every_encoder
def test_a_pretrained_encoder_keeps_its_weights_and_its_pictures(tmp_path, name):
    encoder = model_with(name).model.vision_model
    encoder.save_pretrained(tmp_path)
    if not name.startswith("timm"):  # those keep it in their configuration
        ViTImageProcessor(image_mean=MEAN, image_std=STD).save_pretrained(tmp_path)
    text = tiny_config().text_config.to_dict()
    model = UmgfForTokenClassification.from_text_vision_pretrained(text, tmp_path, d_model=16, num_heads=2)
    assert model.config.object_feature_size == WIDTHS[name]
    torch.testing.assert_close(model.model.vision_model.state_dict(), encoder.state_dict())
    images = MultimodalNerImageProcessor.for_encoder(model.config.vision_config, tmp_path)
    assert_reads_its_own_pictures(model, images, ENCODERS[name])
    assert list(images.image_mean) == MEAN and list(images.image_std) == STD


def assert_reads_its_own_pictures(model, images: MultimodalNerImageProcessor, config: PreTrainedConfig) -> None:
    height, width = picture_size(config)
    pixels = images([Image.new("RGB", (50, 40), "red")], return_tensors="pt")["pixel_values"]
    assert pixels.shape == (1, 3, height, width)
    with torch.no_grad():
        cells = model.eval().model.encode_pictures(pixels[None], torch.ones(1, 1, dtype=torch.bool))
    assert cells.shape[:2] == (1, 1) and cells.shape[3] == model.config.object_feature_size


@pytest.mark.parametrize(
    ("whole_class", "config_class", "half"),
    [(CLIPModel, CLIPConfig, "clip_vision_model"), (SiglipModel, SiglipConfig, "siglip_vision_model")],
)
def test_of_a_model_of_pictures_and_texts_the_image_half_is_taken(tmp_path, whole_class, config_class, half):
    small = {"hidden_size": 16, "num_hidden_layers": 1, "num_attention_heads": 2, "intermediate_size": 16}
    config = config_class(
        text_config=small | {"vocab_size": 20, "projection_size": 16},
        vision_config=small | {"image_size": 32, "patch_size": 8},
    )
    whole = whole_class(config)
    whole.save_pretrained(tmp_path)
    text = tiny_config().text_config.to_dict()
    model = UmgfForTokenClassification.from_text_vision_pretrained(text, tmp_path, d_model=16, num_heads=2)
    assert model.config.vision_config.model_type == half
    assert picture_size(model.config.vision_config) == (32, 32)
    kept = model.model.vision_model.state_dict()
    assert kept
    torch.testing.assert_close(kept, {name: whole.vision_model.state_dict()[name] for name in kept})
