"""Released UMGF weights give the released numbers."""

import importlib.util
from pathlib import Path

import numpy as np
import pytest
import torch
import torch.nn.functional as functional
from PIL import Image
from tokenizers import BertWordPieceTokenizer
from transformers import (
    AutoModelForTokenClassification,
    AutoProcessor,
    BertConfig,
    BertModel,
    PreTrainedTokenizerFast,
    TimmWrapperConfig,
)

from modeling_umgf import UmgfForTokenClassification
from modeling_umgf.__main__ import main
from modeling_umgf.convert_umgf_checkpoint import RELEASED_LABELS, convert_state_dict

REFERENCE = Path(__file__).parents[1].parent / "shared" / "reference"
needs_reference = pytest.mark.skipif(not REFERENCE.exists(), reason="needs the reference values")


BERT = BertConfig(
    vocab_size=60,
    hidden_size=64,
    num_hidden_layers=1,
    num_attention_heads=1,
    intermediate_size=8,
    max_position_embeddings=40,
)


def released_state_dict(num_layers: int = 2, resnet: str | None = None, d: int = 16, F: int = 12) -> dict:
    """Random weights with the released names; `resnet` adds torchvision's image encoder of that name."""
    torch.manual_seed(0)
    bert = BertModel(BERT)
    weights = {f"bert.{name}": value for name, value in bert.state_dict().items()}
    weights["bert.embeddings.position_ids"] = torch.arange(40)[None]
    if resnet is not None:
        torchvision = pytest.importorskip("torchvision")
        encoder = getattr(torchvision.models, resnet)()
        F = encoder.fc.in_features
        for name, value in encoder.state_dict().items():
            if "running_var" in name:
                value.uniform_(0.5, 2)
            elif "running_mean" in name:
                value.normal_()
            if not name.startswith("fc."):
                weights[f"resnet.{name}"] = value

    def linear(name: str, rows: int, columns: int) -> None:
        weights[f"{name}.weight"], weights[f"{name}.bias"] = torch.randn(rows, columns) * 0.1, torch.randn(rows) * 0.1

    linear("resnet.fc", F, F)
    linear("hidden2tag", 13, 64 + d)
    linear("trans_txt", d, 64)
    linear("trans_obj.0", d, F)
    linear("trans_obj.3", d, d)
    for i in range(num_layers):
        for letter, projections in (("x", 4), ("o", 2)):
            for j in range(projections):
                linear(f"mhatt_{letter}.{i}.linears.{j}", d, d)
            linear(f"ffn_{letter}.{i}.w_1", 6, d)
            linear(f"ffn_{letter}.{i}.w_2", d, 6)
            for norm in (f"res4mes_{letter}", f"res4ffn_{letter}", f"{letter}gate"):
                weights[f"{norm}.{i}.norm.weight"] = torch.rand(d) + 0.5
                weights[f"{norm}.{i}.norm.bias"] = torch.randn(d) * 0.1
        linear(f"mhatt_x2o.{i}", d, 2 * d)
        linear(f"mhatt_o2x.{i}", d, 2 * d)
    weights["crf.transitions"] = torch.randn(13, 13)
    weights["crf.start_transitions"], weights["crf.end_transitions"] = torch.randn(13), torch.randn(13)
    return weights


def batch(**nodes: torch.Tensor) -> dict[str, torch.Tensor]:
    ids = torch.randint(1, 60, (2, 9), generator=torch.Generator().manual_seed(0))
    return {"input_ids": ids, "attention_mask": torch.ones_like(ids), **nodes}


def reference_model() -> UmgfForTokenClassification:
    specification = importlib.util.spec_from_file_location("weights", REFERENCE / "weights.py")
    weights = importlib.util.module_from_spec(specification)
    specification.loader.exec_module(weights)
    return convert_state_dict(weights.state_dict(REFERENCE / "umgf_released_shapes.json", seed=0))


def released_emissions(weights: dict, input_ids: torch.Tensor, mask: torch.Tensor, features: torch.Tensor):
    """What the release computes (eq. 1-9 of the paper, with its deviations), straight from its weights."""

    def linear(name: str, states: torch.Tensor) -> torch.Tensor:
        return functional.linear(states, weights[f"{name}.weight"], weights[f"{name}.bias"])

    def norm(name: str, states: torch.Tensor) -> torch.Tensor:
        return functional.layer_norm(
            states, states.shape[-1:], *(weights[f"{name}.norm.{x}"] for x in ("weight", "bias"))
        )

    def attention(name: str, states: torch.Tensor, mask: torch.Tensor) -> torch.Tensor:
        q, k = (linear(f"{name}.linears.{j}", states) for j in (0, 1))
        v = linear(f"{name}.linears.2", states) if f"{name}.linears.2.weight" in weights else states
        q, k, v = (projected.unflatten(-1, (8, -1)).transpose(1, 2) for projected in (q, k, v))
        mixed = functional.scaled_dot_product_attention(q, k, v, mask[:, None, None]).transpose(1, 2).flatten(2)
        return linear(f"{name}.linears.3", mixed) if f"{name}.linears.3.weight" in weights else mixed

    def feed_forward(name: str, states: torch.Tensor) -> torch.Tensor:
        return linear(f"{name}.w_2", linear(f"{name}.w_1", states).relu())

    bert = BertModel(BERT, add_pooling_layer=False).eval()
    bert.load_state_dict({name[5:]: weights[name] for name in weights if name[5:] in bert.state_dict()})
    bert_x = bert(input_ids=input_ids, attention_mask=mask).last_hidden_state
    x = linear("trans_txt", bert_x)
    o = linear("trans_obj.3", linear("trans_obj.0", linear("resnet.fc", features)).relu()).relu()
    real, everything = mask.bool(), torch.ones(o.shape[:2], dtype=torch.bool)
    for i in range(2):
        x = norm(f"res4mes_x.{i}", x + attention(f"mhatt_x.{i}", x, real))
        o = norm(f"res4mes_o.{i}", o + attention(f"mhatt_o.{i}", o, everything))
        pairs = torch.cat(torch.broadcast_tensors(x[:, :, None], o[:, None]), dim=-1)  # [B, n, m, text ; object]
        to_text = linear(f"mhatt_x2o.{i}", pairs).sigmoid() * o[:, None]
        to_objects = linear(f"mhatt_o2x.{i}", pairs).sigmoid() * x[:, :, None] * mask[:, :, None, None]
        x, o = norm(f"xgate.{i}", x + to_text.sum(2)), norm(f"ogate.{i}", o + to_objects.sum(1))
        x = norm(f"res4ffn_x.{i}", x + feed_forward(f"ffn_x.{i}", x))
        o = norm(f"res4ffn_o.{i}", o + feed_forward(f"ffn_o.{i}", o))
    return linear("hidden2tag", torch.cat([bert_x, x], dim=-1))


def test_emissions_are_those_of_the_equations_on_the_released_weights() -> None:
    weights = released_state_dict()
    inputs = batch(object_features=torch.randn(2, 4, 12))
    inputs["attention_mask"][1, 6:] = 0
    with torch.no_grad():
        expected = released_emissions(weights, *inputs.values())
        found = convert_state_dict(weights)(**inputs).logits
    real = inputs["attention_mask"].bool()
    torch.testing.assert_close(found[real], expected[real], atol=1e-5, rtol=1e-4)


@needs_reference
def test_emissions_loss_and_paths_are_those_of_the_release() -> None:
    arrays = {name: torch.from_numpy(array) for name, array in np.load(REFERENCE / "umgf_released.npz").items()}
    inputs = {name: arrays[name] for name in ("input_ids", "attention_mask", "object_features")}
    with torch.no_grad():
        output = reference_model()(**inputs, labels=arrays["tags"])
    real = arrays["attention_mask"].bool()  # what stands at padding nobody reads
    torch.testing.assert_close(output.logits[real], arrays["emissions"][real], atol=2e-5, rtol=0)
    assert output.loss.item() == pytest.approx(arrays["nll_sum"].item(), abs=1e-4)
    assert output.predictions.equal(arrays["paths"].masked_fill(arrays["paths"] == -1, -100))


@needs_reference
def test_the_converted_reference_survives_saving(tmp_path: Path) -> None:
    arrays = np.load(REFERENCE / "umgf_released.npz")
    inputs = {name: torch.from_numpy(arrays[name]) for name in ("input_ids", "attention_mask", "object_features")}
    model = reference_model()
    model.save_pretrained(tmp_path)
    loaded = AutoModelForTokenClassification.from_pretrained(tmp_path)
    assert loaded(**inputs).logits.equal(model(**inputs).logits)


def test_sizes_and_switches_are_read_off_the_weights() -> None:
    config = convert_state_dict(released_state_dict(num_layers=3)).config
    assert (config.num_layers, config.d_model, config.d_ff, config.object_feature_size) == (3, 16, 6, 12)
    text = config.text_config
    assert (text.hidden_size, text.num_attention_heads, text.num_hidden_layers) == (64, 1, 1)
    assert (text.vocab_size, text.intermediate_size, text.max_position_embeddings) == (60, 8, 40)
    assert config.vision_config is None
    assert (config.subword_labels, config.crf_reduction, config.inter_edges) == ("x", "sum", "full")
    assert [config.id2label[i] for i in range(13)] == RELEASED_LABELS
    assert RELEASED_LABELS[0] == "PAD" and RELEASED_LABELS[1:3] == ["B-PER", "I-PER"] and RELEASED_LABELS[9] == "O"


def test_every_weight_that_the_model_reads_comes_from_the_state_dict() -> None:
    state_dict = released_state_dict()
    first, second = convert_state_dict(state_dict).state_dict(), convert_state_dict(state_dict).state_dict()
    assert all(first[name].equal(second[name]) for name in first)
    sizes = sum(value.numel() for name, value in state_dict.items() if not name.startswith("bert.pooler"))
    unread = 2 * 16 * 16 + 16 + (6 * 16 + 6) + (16 * 6 + 16) + 4 * 16 + 40  # what objects receive last; position ids
    assert sum(value.numel() for value in first.values()) == sizes - unread


def test_arrays_and_weights_of_a_wrapped_model_are_understood() -> None:
    state_dict = released_state_dict()
    expected = convert_state_dict(state_dict).state_dict()
    wrapped = {f"module.{name}": value.numpy() for name, value in state_dict.items()}
    converted = convert_state_dict(wrapped).state_dict()
    assert all(converted[name].equal(expected[name]) for name in expected)


@pytest.mark.parametrize("resnet", ["resnet18", "resnet50"])
def test_crops_pass_the_released_image_encoder(resnet: str) -> None:
    torchvision = pytest.importorskip("torchvision")
    state_dict = released_state_dict(resnet=resnet)
    model = convert_state_dict(state_dict)
    assert model.config.vision_config.architecture == resnet
    encoder = getattr(torchvision.models, resnet)()
    encoder.fc = torch.nn.Identity()
    own = {name[7:]: value for name, value in state_dict.items() if name.startswith("resnet.") and "fc" not in name}
    encoder.load_state_dict(own)
    crops = torch.randn(2, 4, 3, 64, 64)
    with torch.no_grad():
        features = encoder.eval()(crops.flatten(0, 1)).unflatten(0, (2, 4))
        expected = model(**batch(object_features=features)).logits
        torch.testing.assert_close(model(**batch(pixel_values=crops)).logits, expected, atol=1e-4, rtol=1e-4)
        assert not model(**batch()).logits.allclose(expected, atol=1e-3)


def test_the_depth_of_resnet_152_is_recognised(monkeypatch: pytest.MonkeyPatch) -> None:
    torchvision = pytest.importorskip("torchvision")
    with torch.device("meta"):
        names = torchvision.models.resnet152().state_dict()
    state_dict = released_state_dict() | {
        f"resnet.{name}": torch.zeros(()) for name in names if not name.startswith("fc.")
    }
    built = []
    monkeypatch.setattr(
        "modeling_umgf.convert_umgf_checkpoint.TimmWrapperConfig",
        lambda architecture: built.append(architecture) or TimmWrapperConfig(architecture="resnet18"),
    )
    with pytest.raises(ValueError, match="unknown resnet.layer1.0.conv3.weight"):
        convert_state_dict(state_dict)
    assert built == ["resnet152"]


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda weights: weights.pop("mhatt_x2o.1.weight"), "lacks mhatt_x2o.1.weight"),
        (lambda weights: weights.pop("trans_txt.weight"), "lacks trans_txt.weight"),
        (lambda weights: weights.pop("crf.transitions"), "lacks crf.transitions"),
        (lambda weights: weights.pop("bert.embeddings.LayerNorm.bias"), "lacks bert.embeddings.LayerNorm.bias"),
        (lambda weights: weights.update({"extra.weight": torch.zeros(1)}), "unknown extra.weight"),
        (
            lambda weights: weights.update({"mhatt_o.0.linears.2.weight": torch.zeros(16, 16)}),
            "unknown mhatt_o.0.linears.2.weight",
        ),
        (lambda weights: weights.update({"hidden2tag.weight": torch.zeros(9, 80)}), "9 labels; the release has 13"),
        (lambda weights: weights.update({"ffn_x.1.w_1.bias": torch.zeros(7)}), "shape of ffn_x.1.w_1.bias"),
        (lambda weights: weights.update({"epoch": 3}), "epoch is of type int"),
        (lambda weights: weights.update({"resnet.layer1.0.conv1.weight": torch.zeros(1)}), "no ResNet of torchvision"),
        (lambda weights: weights.clear(), "lacks bert.embeddings.word_embeddings.weight"),
    ],
)
def test_another_state_dict_gets_one_sentence_that_names_the_weights(change, message: str) -> None:
    state_dict = released_state_dict()
    change(state_dict)
    with pytest.raises(ValueError, match=message) as raised:
        convert_state_dict(state_dict)
    assert "\n" not in str(raised.value)


@pytest.fixture
def tokenizer(tmp_path: Path) -> str:
    word_piece = BertWordPieceTokenizer(lowercase=False)
    word_piece.train_from_iterator(["Ann saw Bob in Rome"], vocab_size=60, show_progress=False)
    special = {f"{name}_token": f"[{name.upper()}]" for name in ("unk", "sep", "pad", "cls", "mask")}
    fast = PreTrainedTokenizerFast(tokenizer_object=word_piece._tokenizer, model_max_length=40, **special)
    fast.save_pretrained(tmp_path / "tokenizer")
    return str(tmp_path / "tokenizer")


def test_the_command_writes_a_model_and_a_processor_that_tag_a_post(
    tmp_path: Path, tokenizer: str, capsys: pytest.CaptureFixture
) -> None:
    torch.save(released_state_dict(resnet="resnet18"), tmp_path / "model.pt")
    folder = tmp_path / "new" / "converted"
    assert main(["convert", str(tmp_path / "model.pt"), str(folder), "--tokenizer", tokenizer]) == 0
    assert capsys.readouterr().out == f"{folder}\n"
    model = AutoModelForTokenClassification.from_pretrained(folder).eval()
    processor = AutoProcessor.from_pretrained(folder)
    picture = Image.new("RGB", (60, 90), "red")
    inputs = processor(words=["Ann", "saw", "Rome"], images=picture)
    assert inputs["pixel_values"].shape == (1, 1, 3, 224, 224)
    output = model(**inputs)
    assert output.predictions.shape == (1, 3) and (output.predictions >= 0).all()
    assert not list(folder.parent.glob(".*"))  # nothing half-written is left


class Harmful:
    def __reduce__(self):
        return print, ("executed",)


@pytest.mark.parametrize("content", ["missing", "text", "harmful", "list", "other"])
def test_the_command_refuses_other_files_in_one_line(
    tmp_path: Path, capsys: pytest.CaptureFixture, content: str
) -> None:
    checkpoint = tmp_path / "model.pt"
    if content == "text":
        checkpoint.write_text("not a checkpoint")
    elif content != "missing":
        values = {"harmful": {"bert": Harmful()}, "list": [1], "other": {"weight": torch.zeros(1)}}
        torch.save(values[content], checkpoint)
    assert main(["convert", str(checkpoint), str(tmp_path / "out")]) == 1
    captured = capsys.readouterr()
    assert captured.err.startswith("error: ") and captured.err.count("\n") == 1 and captured.out == ""
    assert not (tmp_path / "out").exists()


def test_the_command_leaves_a_folder_in_use_alone(tmp_path: Path, capsys: pytest.CaptureFixture) -> None:
    torch.save(released_state_dict(), tmp_path / "model.pt")
    assert main(["convert", str(tmp_path / "model.pt"), str(tmp_path)]) == 1
    assert "not an empty folder" in capsys.readouterr().err
    assert [path.name for path in tmp_path.iterdir()] == ["model.pt"]


@pytest.mark.parametrize("failure", ["tokenizer", "saving"])
def test_a_failure_leaves_nothing_behind(
    tmp_path: Path, capsys: pytest.CaptureFixture, monkeypatch: pytest.MonkeyPatch, failure: str
) -> None:
    torch.save(released_state_dict(), tmp_path / "model.pt")
    arguments = ["convert", str(tmp_path / "model.pt"), str(tmp_path / "out")]
    if failure == "tokenizer":
        arguments += ["--tokenizer", str(tmp_path / "nowhere")]
    else:

        def full_disk(self: UmgfForTokenClassification, folder: Path) -> None:
            folder.mkdir()
            raise OSError("No space left on device")

        monkeypatch.setattr(UmgfForTokenClassification, "save_pretrained", full_disk)
    assert main(arguments) == 1
    error = capsys.readouterr().err
    assert error.startswith("error: ") and error.count("\n") == 1
    assert [path.name for path in tmp_path.iterdir()] == ["model.pt"]
