"""36 real tweets and their pictures through the whole chain, up to a training step of both systems.

Detector, captioner and text encoder are tiny and random; the image encoder is the real MobileNetV2.
"""

import io
import json
import shutil
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from conftest import SHARED, tiny_tokenizer
from datasets import load_dataset
from PIL import Image
from tiny_describers import save_captioner, save_labeler
from tiny_detectors import save_detector
from transformers import AutoModel

import train_umgf
from dataset_scripts import add_descriptors, build_dataset, build_relations
from modeling_umgf import UmgfImageProcessor, UmgfProcessor, noun_phrases
from modeling_umgf.grounding import Grounder
from modeling_umgf.image_encoder import feature_map

POSTS = SHARED / "data" / "tweet_images"
ENCODER = SHARED / "weights" / "mobilenetv2" / "hf"
TEXT = {"model_type": "bert", "hidden_size": 16, "num_hidden_layers": 1, "num_attention_heads": 2}
TEXT |= {"intermediate_size": 32, "max_position_embeddings": 128}


def command(module, *argv) -> None:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(sys, "argv", [module.__name__, *map(str, argv)])
        module.main()


@pytest.fixture(scope="module")
def folder(tmp_path_factory) -> Path:
    """Posts, the same with objects and features for UMGF, and with captions, labels and grids for R-GCN."""
    if not POSTS.exists() or not ENCODER.exists():
        pytest.skip("the real posts and weights are not here")
    nltk = pytest.importorskip("nltk")
    nltk.data.path.append(str(SHARED / "data" / "nltk_data"))
    noun_phrases._nltk_tagger.cache_clear()
    folder = tmp_path_factory.mktemp("chain")
    posts = [json.loads(line) for line in (POSTS / "manifest.jsonl").read_text(encoding="utf-8").splitlines()]
    assert len(posts) == 36
    shutil.copytree(POSTS / "images", folder / "images")  # names may not lead out of the folder of the posts
    for name, chosen in {"train": posts[::2], "validation": posts[1::4], "test": posts[3::4]}.items():
        lines = [
            {
                "id": post["image_id"],
                "tokens": post["tokens"],
                "tags": [tag.replace("OTHER", "MISC") for tag in post["labels"]],
                "image": post["file"],
            }
            for post in chosen
        ]
        (folder / f"{name}.jsonl").write_text("\n".join(map(json.dumps, lines)), encoding="utf-8")
    files = []
    for name in ("train", "validation", "test"):
        files += [f"--{name}", folder / f"{name}.jsonl"]
    command(build_dataset, *files, "--output_dir", folder / "posts")

    detector = save_detector("owlvit", folder / "detector")
    common = ["--encoder", ENCODER, "--cache_dir", folder / "cache"]
    objects = ["noun_phrases", "objects", "object_features"]
    objects += ["--detector", detector, "--min_score", 0, "--max_objects", 5]
    command(add_descriptors, folder / "posts", "--output_dir", folder / "umgf", *common, "--columns", *objects)
    grid = ["caption", "object_labels", "object_features", "--features_of", "grid", "--label_min_score", 0]
    grid += ["--captioner", save_captioner("git", folder / "captioner")]
    grid += ["--labeler", save_labeler("yolos", folder / "labeler")]
    command(add_descriptors, folder / "posts", "--output_dir", folder / "rgcn", *common, "--columns", *grid)
    relations = ["--dataset", folder / "rgcn", "--text_encoder", "hashing", "--features", ENCODER, "--k", 3]
    command(build_relations, *relations, "--output_dir", folder / "relations")
    return folder


def train_one_step(folder: Path, output: Path, dataset: Path, **arguments) -> dict:
    arguments |= {"text_config": TEXT, "dataset_name": dataset, "output_dir": output, "max_steps": 1, "use_cpu": True}
    arguments |= {"per_device_train_batch_size": 4, "bootstrap_samples": 10, "disable_tqdm": True}
    argv = []
    for name, value in arguments.items():
        argv += [f"--{name}", json.dumps(value) if isinstance(value, dict) else str(value)]
    train_umgf.main(argv)
    return json.loads((output / "all_results.json").read_text())


def test_every_post_has_phrases_and_every_picture_objects(folder):
    splits = load_dataset(str(folder / "umgf"))
    assert {name: len(split) for name, split in splits.items()} == {"train": 18, "validation": 9, "test": 9}
    rows = [*splits["train"], *splits["validation"], *splits["test"]]
    assert sum(not row["noun_phrases"] for row in rows) <= 1
    assert all(row["image"] is not None and row["objects"] for row in rows)
    assert {len(cell) for row in rows for cell in row["object_features"]} == {1280}
    assert sum(node["phrase"] is not None for row in rows for node in row["objects"]) >= 30
    assert "pictures: 36 done, 0 failed, 0 posts without" in (folder / "umgf" / "README.md").read_text()


def test_cached_features_are_what_the_encoder_sees_in_the_processors_crops(folder):
    row = load_dataset(str(folder / "umgf"), split="test")[0]
    encoder = AutoModel.from_pretrained(ENCODER).eval()
    processor = UmgfProcessor(UmgfImageProcessor.from_vision_model(ENCODER), tiny_tokenizer())
    batch = processor(words=row["tokens"], images=row["image"], objects=row["objects"])
    with torch.no_grad():
        seen = feature_map(encoder, batch["pixel_values"][0]).mean(1)
    torch.testing.assert_close(torch.tensor(row["object_features"]), seen, rtol=1e-4, atol=1e-4)


def test_umgf_trains_and_is_evaluated(folder, tmp_path):
    config = {"object_feature_size": 1280, "d_model": 16, "num_heads": 2, "d_ff": 16}
    results = train_one_step(folder, tmp_path, folder / "umgf", model_type="umgf", config_overrides=config)
    assert np.isfinite(results["train_loss"]) and "test_f1" in results and "test_without_pictures_f1" in results


def test_rgcn_trains_and_is_evaluated(folder, tmp_path):
    results = train_one_step(
        folder,
        tmp_path,
        folder / "relations" / "dataset",
        model_type="rgcn",
        config_overrides={"object_feature_size": 1280, "num_heads": 2, "k": 3},
        processor_overrides={"relation_index": str(folder / "relations" / "relation_index"), "k": 3},
    )
    assert np.isfinite(results["train_loss"]) and "test_f1" in results


def test_the_processor_grounds_on_the_fly_what_the_script_found(folder):
    """One post and a batch, from words and pictures alone."""
    split = load_dataset(str(folder / "umgf"), split="test")
    grounder = Grounder.from_pretrained(folder / "detector", device="cpu", min_score=0.0, max_objects=5)
    processor = UmgfProcessor(UmgfImageProcessor(size={"height": 32, "width": 32}), tiny_tokenizer())
    words = split["tokens"][:]
    pictures = split["image"][:]
    expected = processor(words=words, images=pictures, objects=split["objects"][:])
    together = processor(words=words, images=pictures, grounder=grounder)
    for name, value in expected.items():
        torch.testing.assert_close(together[name], value, rtol=0, atol=0.15 if name == "pixel_values" else 0)
    alone = processor(words=words[0], images=pictures[0], grounder=grounder)
    count = int(together["object_mask"][0].sum())
    assert alone["object_mask"].tolist() == [[True] * count]
    assert alone["inter_modal_mask"].tolist() == together["inter_modal_mask"][:1, : len(words[0]), :count].tolist()


@pytest.mark.parametrize("size", [(640, 480), (31, 57), (1500, 200)])
@pytest.mark.parametrize("pixels", [{"height": 224, "width": 224}, {"height": 32, "width": 64}])
def test_a_box_finds_its_coloured_rectangle_through_every_resize(size, pixels):
    """The box of a red rectangle, given with a picture of any size, also a rotated one: its crop is red, all of it."""
    box = [size[0] // 3, size[1] // 4, size[0] * 2 // 3, size[1] * 3 // 4]
    upright = Image.new("RGB", size, "navy")
    upright.paste("red", box)
    buffer = io.BytesIO()
    exif = Image.Exif()
    exif[0x0112] = 8  # stored turned, to be turned back
    upright.transpose(Image.Transpose.ROTATE_270).save(buffer, "PNG", exif=exif)
    image_processor = UmgfImageProcessor(size=pixels, image_mean=[0, 0, 0], image_std=[1, 1, 1])
    processor = UmgfProcessor(image_processor, tiny_tokenizer())
    for picture in (upright, np.asarray(upright), buffer.getvalue()):
        crop = processor(words=["a"], images=picture, objects=[{"box": box, "phrase": None}])["pixel_values"][0, 0]
        assert crop.shape == (3, pixels["height"], pixels["width"])
        red = torch.tensor([1.0, 0.0, 0.0])[:, None, None].expand_as(crop)
        torch.testing.assert_close(crop, red, rtol=0, atol=0.01)
