"""Object labels, captions and features, with real model classes."""

from pathlib import Path

import numpy as np
import pytest
import torch
from conftest import SHARED
from PIL import Image
from tiny_describers import CAPTIONER_KINDS, LABELER_KINDS, LABELS, save_captioner, save_labeler
from transformers import ResNetConfig, ResNetModel

from modeling_umgf import UmgfImageProcessor
from modeling_umgf.descriptors import Captioner, ObjectLabeler, PictureFeatures
from modeling_umgf.pictures import UnreadablePicture

WEIGHTS = SHARED / "weights" / "mobilenetv2"


def picture(width: int, height: int, seed: int = 0) -> Image.Image:
    return Image.fromarray(np.random.default_rng(seed).integers(0, 256, (height, width, 3), dtype=np.uint8))


PICTURES = [picture(80, 60), picture(80, 60, seed=1), Image.new("RGB", (80, 60), "white")]


@pytest.fixture(scope="module", params=LABELER_KINDS)
def labeler(request, tmp_path_factory):
    folder = save_labeler(request.param, tmp_path_factory.mktemp(request.param), seed=2)
    return ObjectLabeler.from_pretrained(folder, device="cpu", min_score=0.0)


def test_labels_are_distinct_names_of_the_detector_best_first(labeler, monkeypatch):
    found = labeler(PICTURES)
    assert len(found) == 3
    for labels in found:
        assert len(labels) == len(set(labels)) > 0 and set(labels) <= set(LABELS.values())
    results = [{"scores": torch.tensor([0.5, 0.9, 0.7]), "labels": torch.tensor([1, 0, 1])}] * 3
    monkeypatch.setattr(labeler.processor, "post_process_object_detection", lambda *arguments: results)
    assert labeler(PICTURES) == [["cat", "dog"]] * 3


def test_labels_of_a_batch_are_those_of_each_picture(labeler):
    assert labeler(PICTURES) == [labeler([image])[0] for image in PICTURES]


def test_labels_need_the_score(labeler, monkeypatch):
    monkeypatch.setattr(labeler, "min_score", 1.0)
    assert labeler(PICTURES) == [[], [], []]


def test_labels_in_bfloat16(labeler):
    half = ObjectLabeler.from_pretrained(
        labeler.model.config._name_or_path, device="cpu", dtype=torch.bfloat16, min_score=0.0
    )
    assert all(labels for labels in half(PICTURES))


@pytest.fixture(scope="module", params=CAPTIONER_KINDS)
def captioner_folder(request, tmp_path_factory) -> Path:
    return save_captioner(request.param, tmp_path_factory.mktemp(request.param))


@pytest.mark.parametrize("prompt", [None, "a red"])
def test_captions_of_a_batch_are_those_of_each_picture(captioner_folder, prompt):
    captioner = Captioner.from_pretrained(captioner_folder, device="cpu", prompt=prompt, max_new_tokens=5)
    together = captioner(PICTURES)
    assert together == [captioner([image])[0] for image in PICTURES]
    assert len(set(together)) > 1
    assert all(caption == caption.strip() and not caption.startswith("a red") for caption in together)


def test_chat_models_are_asked_for_a_description(tmp_path):
    captioner = Captioner.from_pretrained(save_captioner("llava", tmp_path), device="cpu", max_new_tokens=2)
    assert captioner._text() == "<image>Describe this picture in one sentence."


def test_unreadable_pictures_are_named(tmp_path):
    captioner = Captioner.from_pretrained(save_captioner("git", tmp_path), device="cpu")
    with pytest.raises(UnreadablePicture, match="1.jpg"):
        captioner([tmp_path / "1.jpg"])


def test_features_of_a_batch_are_those_of_each_picture():
    torch.manual_seed(0)
    encoder = ResNetModel(ResNetConfig(embedding_size=8, hidden_sizes=[8, 16], depths=[1, 1], layer_type="basic"))
    features = PictureFeatures(encoder, UmgfImageProcessor(size={"height": 64, "width": 64}))
    cells = features(PICTURES)
    assert cells.shape == (3, 64, 16) and cells.dtype == torch.float32
    torch.testing.assert_close(cells, torch.cat([features([image]) for image in PICTURES]))


@pytest.mark.parametrize("library", ["hf", "timm"])
def test_features_of_real_weights(library):
    if not WEIGHTS.exists():
        pytest.skip("the weights are not here")
    features = PictureFeatures.from_pretrained(WEIGHTS / library, device="cpu")
    cells = features([picture(300, 200), Image.new("RGB", (9, 9), "red")])
    assert cells.shape == (2, 49, 1280)
    pixels = features.image_processor([picture(300, 200)], return_tensors="pt")["pixel_values"]
    with torch.no_grad():
        expected = features.model(pixel_values=pixels).pooler_output.flatten()
    torch.testing.assert_close(cells.mean(1)[0], expected, rtol=1e-4, atol=1e-4)
