"""The system of docs/add_a_system.md, one file, goes all the way: no other file knows it."""

import json
import re
from pathlib import Path

import pytest
from conftest import LABELS
from PIL import Image
from test_systems import without_package
from transformers import AutoModelForTokenClassification, AutoProcessor, pipeline

import train_umgf
from modeling_umgf.__main__ import main
from modeling_umgf.explanation import explain

PAGE = Path(__file__).resolve().parents[1] / "docs" / "add_a_system.md"
ENCODERS = {
    "text_config": {"model_type": "bert", "hidden_size": 16, "num_hidden_layers": 1, "num_attention_heads": 2}
    | {"intermediate_size": 32, "max_position_embeddings": 64},
    "vision_config": {"model_type": "resnet", "embedding_size": 8, "hidden_sizes": [8], "depths": [1]}
    | {"layer_type": "basic"},
}


@pytest.fixture(scope="module")
def trained(tmp_path_factory) -> Path:
    """The folder of a trained model of the page's system."""
    folder = tmp_path_factory.mktemp("third")
    code = re.search(r"^```python\n(.*?)^```", PAGE.read_text(encoding="utf-8"), re.M | re.S)[1]
    (folder / "whole_picture.py").write_text(code, encoding="utf-8")
    (folder / "images").mkdir()
    arguments = {"image_dir": folder / "images", "output_dir": folder / "model", "image_size": 16}
    for split in ("train", "validation", "test"):
        posts = []
        for i in range(8):
            picture = Image.new("RGB", (20, 20), (200, 0, i))
            picture.paste((0, 0, 250), (5, 5, 15, 15))
            picture.save(folder / "images" / f"{split}{i}.jpg")
            kind = ["PER", "LOC"][i % 2]
            posts.append(f"IMGID:{split}{i}\nsee\tO\nAnna\tB-{kind}\nMarley\tI-{kind}\n")
        (folder / f"{split}.txt").write_text("\n".join(posts), encoding="utf-8")
        arguments[f"{split}_file"] = folder / f"{split}.txt"
    arguments |= ENCODERS | {"config_overrides": {"width": 16, "freeze_bn": False}}
    arguments |= {"system_file": folder / "whole_picture.py", "model_type": "whole_picture"}
    arguments |= {"num_train_epochs": 1, "bootstrap_samples": 20, "disable_tqdm": True}
    argv = []
    for name, value in arguments.items():
        argv += [f"--{name}", json.dumps(value) if isinstance(value, dict) else str(value)]
    train_umgf.main(argv)
    return folder / "model"


def test_it_is_trained_and_evaluated_with_all_rows(trained):
    results = json.loads((trained / "all_results.json").read_text())
    assert {"test_f1", "test_without_pictures_f1", "test_shuffled_pictures_f1"} <= results.keys()


def test_it_is_loaded_by_the_auto_classes_and_tags(trained):
    model = AutoModelForTokenClassification.from_pretrained(trained)
    assert type(model).__name__ == "WholePictureForTokenClassification"
    assert sorted(model.config.label2id) == sorted(LABELS)
    picture = Image.open(next((trained.parent / "images").glob("*.jpg")))
    tagger = pipeline("multimodal-ner", model=str(trained))
    words = tagger({"text": "see Anna Marley", "image": picture}, aggregation_strategy="none")
    assert [word["word"] for word in words] == ["see", "Anna", "Marley"]
    explanation = explain(model, AutoProcessor.from_pretrained(trained), "see Anna Marley", image=picture)
    assert [node["kind"] for node in explanation.nodes] == ["objects"]


def test_its_folder_carries_all_code_that_it_needs(trained, tmp_path):
    tags = without_package([trained], tmp_path)[str(trained)]
    here = pipeline("multimodal-ner", model=str(trained))("Anna meets Bob Marley", aggregation_strategy="none")
    assert [label for label, _ in tags] == [row["entity"] for row in here]
    assert [score for _, score in tags] == pytest.approx([row["score"] for row in here], abs=1e-4)


def test_the_tag_command_reads_it(trained, tmp_path):
    (tmp_path / "posts.jsonl").write_text('{"text": "see Anna Marley"}\n', encoding="utf-8")
    output = tmp_path / "entities.jsonl"
    arguments = ["tag", str(tmp_path / "posts.jsonl"), "--model", str(trained), "--output", str(output)]
    assert main([*arguments, "--trust_remote_code"]) == 0
    assert json.loads(output.read_text())["text"] == "see Anna Marley"


def test_its_card_says_what_the_system_says_of_itself(trained):
    card = (trained / "README.md").read_text(encoding="utf-8")
    assert "# Whole picture on" in card
    assert "Every word opens a gate for the picture as a whole." in card
    assert "without pictures" in card
    assert main(["card", str(trained)]) == 0
