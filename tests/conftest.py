"""Tiny models and processors that every test file shares; nothing is downloaded."""

import json
import os
from pathlib import Path

os.environ.setdefault("HF_HUB_OFFLINE", "1")
os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")

import pytest  # noqa: E402
import torch  # noqa: E402
from tokenizers import BertWordPieceTokenizer  # noqa: E402
from transformers import PreTrainedTokenizerFast  # noqa: E402

from modeling_umgf import (  # noqa: E402
    RgcnConfig,
    UmgfConfig,
    UmgfForTokenClassification,
    UmgfImageProcessor,
    UmgfProcessor,
)

SHARED = Path(__file__).resolve().parents[1].parent / "shared"
LABELS = ["O", "B-PER", "I-PER", "B-LOC", "I-LOC"]
SENTENCES = ["Anna meets Bob Marley in Rome", "the cat of Paris sleeps", "RT @user : see http://t.co/x 😍"]

torch.set_num_threads(1)


def tiny_tokenizer(lowercase: bool = False) -> PreTrainedTokenizerFast:
    special = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]"]
    words = sorted({word for sentence in SENTENCES for word in sentence.split()})
    letters = sorted({letter for word in words for letter in word})
    vocabulary = [*special, *letters, *(f"##{letter}" for letter in letters), *(w for w in words if len(w) < 5)]
    vocabulary = {piece: i for i, piece in enumerate(dict.fromkeys(vocabulary))}
    word_piece = BertWordPieceTokenizer(vocabulary, lowercase=lowercase)
    names = {f"{name[1:-1].lower()}_token": name for name in special}
    return PreTrainedTokenizerFast(tokenizer_object=word_piece._tokenizer, model_max_length=64, **names)


def tiny_labels(labels: list[str] = LABELS) -> dict[str, dict]:
    return {"id2label": dict(enumerate(labels)), "label2id": {label: i for i, label in enumerate(labels)}}


def tiny_config(vocab_size: int = 160, labels: list[str] = LABELS, **settings) -> UmgfConfig:
    text = {"model_type": "bert", "vocab_size": vocab_size, "hidden_size": 16, "num_hidden_layers": 2}
    text |= {"num_attention_heads": 2, "intermediate_size": 32, "max_position_embeddings": 64}
    vision = {"model_type": "resnet", "embedding_size": 8, "hidden_sizes": [8, 16], "depths": [1, 1]}
    settings = {"vision_config": vision | {"layer_type": "basic"}, "d_model": 16, "num_heads": 4, "d_ff": 32} | settings
    return UmgfConfig(text_config=text, **tiny_labels(labels), **settings)


def rgcn_config(**settings) -> RgcnConfig:
    encoders = {name: getattr(tiny_config(), name).to_dict() for name in ("text_config", "vision_config")}
    return RgcnConfig(**encoders | tiny_labels() | {"num_heads": 4, "k": 3} | settings)


def assert_same(results: list, others: list) -> None:
    """Equal but for rounding: another process, machine or batch may add up in another order."""
    words, numbers = split_numbers(results)
    other_words, other_numbers = split_numbers(others)
    assert words == other_words
    assert numbers == pytest.approx(other_numbers, abs=1e-4)


def split_numbers(results: list) -> tuple[list, list[float]]:
    """Results without their floats, and the floats."""
    numbers = []
    return json.loads(json.dumps(results), parse_float=lambda number: numbers.append(float(number))), numbers


@pytest.fixture
def processor() -> UmgfProcessor:
    return UmgfProcessor(UmgfImageProcessor(size={"height": 32, "width": 32}), tiny_tokenizer())


@pytest.fixture
def model() -> UmgfForTokenClassification:
    torch.manual_seed(0)
    return UmgfForTokenClassification(tiny_config()).eval()


@pytest.fixture
def batch() -> dict[str, torch.Tensor]:
    """Two posts: four words with two objects (the second linked to word 1 alone), two words without a picture."""
    generator = torch.Generator().manual_seed(0)
    edges = torch.zeros(2, 4, 2, dtype=torch.bool)
    edges[0, :, 0] = edges[0, 1, 1] = True
    return {
        "input_ids": torch.randint(5, 150, (2, 9), generator=generator) * torch.tensor([[1] * 9, [1] * 5 + [0] * 4]),
        "attention_mask": torch.tensor([[1] * 9, [1] * 5 + [0] * 4]),
        "word_starts": torch.tensor([[1, 3, 4, 6], [1, 2, -1, -1]]),
        "pixel_values": torch.randn(2, 2, 3, 32, 32, generator=generator),
        "object_mask": torch.tensor([[True, True], [False, False]]),
        "inter_modal_mask": edges,
        "labels": torch.tensor([[0, 1, 2, 0], [3, 4, -100, -100]]),
    }


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport():
    """Half characters in what a test has logged, which processes of pytest-xdist cannot send each other."""
    report = yield
    report.sections = [(name, text.encode("utf-8", "backslashreplace").decode()) for name, text in report.sections]
    return report
