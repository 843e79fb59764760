"""Turn the `model.pt` of the UMGF release into our format.

    python -m modeling_umgf convert model.pt converted --tokenizer bert-base-cased

The release differs from the paper; `convert_state_dict` sets every switch of `UmgfConfig` that reproduces it.
"""

import pickle
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import torch
from transformers import AutoTokenizer, BertConfig, TimmWrapperConfig

from .configuration_umgf import UmgfConfig
from .files import write_whole
from .labels import bio_labels
from .modeling_umgf import UmgfForTokenClassification
from .processing_umgf import UmgfImageProcessor, UmgfProcessor

# Label ids of the release (its config.py), with our names: MISC for OTHER, [CLS] and [SEP] for CLS and SEP.
RELEASED_LABELS = ["PAD", *bio_labels(["PER", "LOC", "ORG", "MISC"])[1:], "O", "X", "[CLS]", "[SEP]"]

# (blocks of layer1 .. layer4, bottleneck blocks?) -> depth; timm names the weights as torchvision does.
RESNETS = {
    (2, 2, 2, 2, False): "resnet18",
    (3, 4, 6, 3, False): "resnet34",
    (3, 4, 6, 3, True): "resnet50",
    (3, 4, 23, 3, True): "resnet101",
    (3, 8, 36, 3, True): "resnet152",
}


def convert_state_dict(state_dict: Mapping[str, Any]) -> UmgfForTokenClassification:
    """Build a model from the weights of the UMGF release; it gives the emissions, losses and paths of the release.

    Args:
        state_dict: released names (perhaps after `module.`) to tensors or numpy arrays. Without the image encoder the
            model takes `object_features`; with it, crops.

    Returns:
        The model, in evaluation mode. It labels word pieces with `RELEASED_LABELS`, every piece linked to every object.

    Raises:
        ValueError: weights are missing, unknown or of an unexpected shape; the message names them.
    """
    for name, value in state_dict.items():
        if not isinstance(value, torch.Tensor | np.ndarray):
            raise ValueError(f"A state dict holds tensors, but {name} is of type {type(value).__name__}.")
    weights = {name.removeprefix("module."): torch.as_tensor(value) for name, value in state_dict.items()}
    try:
        config = _configuration(weights)
    except KeyError as error:
        raise ValueError(f"This is not a state dict of the UMGF release: it lacks {error.args[0]}.") from None
    model = UmgfForTokenClassification(config).eval()

    modules = _module_names(config.num_layers)
    unread_layer = f"model.layers.{config.num_layers - 1}.object"  # nothing reads what objects receive in the last one
    unread = ("model.text_model.pooler", f"{unread_layer}.gate", f"{unread_layer}.feed_forward")
    original_names = {}
    converted = {}
    for released_name, released_value in weights.items():
        for name, value in _our_weights(released_name, released_value, modules).items():
            if not name.startswith(unread) and name != "model.text_model.embeddings.position_ids":
                converted[name] = value
                original_names[name] = released_name

    expected = {name: value.shape for name, value in model.state_dict().items()}
    _complain("lacks", [_released_name(name, modules) for name in expected if name not in converted])
    _complain("has unknown", [original_names[name] for name in converted if name not in expected])
    _complain(
        "has an unexpected shape of",
        [original_names[name] for name, value in converted.items() if value.shape != expected[name]],
    )
    model.load_state_dict(converted)
    return model


def _configuration(weights: dict[str, torch.Tensor]) -> UmgfConfig:
    """Read every size off the tensors; raises KeyError where one is missing."""

    def count(pattern: str) -> int:
        return len({match[1] for name in weights if (match := re.match(pattern, name))})

    vocabulary, hidden = weights["bert.embeddings.word_embeddings.weight"].shape
    text_config = BertConfig(
        vocab_size=vocabulary,
        hidden_size=hidden,
        num_hidden_layers=count(r"bert\.encoder\.layer\.(\d+)\."),
        num_attention_heads=hidden // 64,
        intermediate_size=len(weights["bert.encoder.layer.0.intermediate.dense.weight"]),
        max_position_embeddings=len(weights["bert.embeddings.position_embeddings.weight"]),
        type_vocab_size=len(weights["bert.embeddings.token_type_embeddings.weight"]),
    )
    if hidden % 64:
        raise ValueError(f"bert has hidden size {hidden}, but the heads of a BERT are 64 wide.")
    vision_config = None
    if any(name.startswith("resnet.") and not name.startswith("resnet.fc.") for name in weights):
        blocks = tuple(count(rf"resnet\.layer{i}\.(\d+)\.") for i in (1, 2, 3, 4))
        depth = (*blocks, "resnet.layer1.0.conv3.weight" in weights)
        if depth not in RESNETS:
            raise ValueError(f"The image encoder has {blocks} blocks, which is no ResNet of torchvision.")
        vision_config = TimmWrapperConfig(architecture=RESNETS[depth])
    if len(weights["hidden2tag.weight"]) != len(RELEASED_LABELS):
        raise ValueError(
            f"hidden2tag has {len(weights['hidden2tag.weight'])} labels; the release has {len(RELEASED_LABELS)}: "
            f"{', '.join(RELEASED_LABELS)}."
        )
    return UmgfConfig(
        text_config=text_config,
        vision_config=vision_config,
        object_feature_size=weights["resnet.fc.weight"].shape[1],
        num_layers=count(r"ffn_x\.(\d+)\."),
        d_model=len(weights["trans_txt.weight"]),
        num_heads=8,
        d_ff=len(weights["ffn_x.0.w_1.weight"]),
        dropout=0.4,
        classifier_dropout=0.0,
        visual_nodes="general",
        inter_edges="full",
        position_encoding="none",
        text_mlp="linear",
        visual_attention="qk_only",
        visual_projection=True,
        subword_labels="x",
        crf_reduction="sum",
        id2label=dict(enumerate(RELEASED_LABELS)),
        label2id={label: i for i, label in enumerate(RELEASED_LABELS)},
    )


def _module_names(num_layers: int) -> dict[str, str]:
    """Return released module names -> ours; `gate` stands for the pair `gate.own`, `gate.other`."""
    names = {
        "bert": "model.text_model",
        "resnet.fc": "model.visual_projection",
        "resnet": "model.vision_model.timm_model",
        "trans_txt": "model.text_mlp.0",
        "trans_obj": "model.object_mlp",
        "hidden2tag": "classifier",
        "crf": "label_decoder",
    }
    for i in range(num_layers):
        for letter, modality, gate in (("x", "text", "mhatt_x2o"), ("o", "object", "mhatt_o2x")):
            layer = f"model.layers.{i}.{modality}"
            for j, projection in enumerate(("query", "key", "value", "output")):
                names[f"mhatt_{letter}.{i}.linears.{j}"] = f"{layer}.attention.{projection}"
            names |= {
                f"res4mes_{letter}.{i}.norm": f"{layer}.attention_norm",
                f"{gate}.{i}": f"{layer}.gate",
                f"{letter}gate.{i}.norm": f"{layer}.gate_norm",
                f"ffn_{letter}.{i}.w_1": f"{layer}.feed_forward.0",
                f"ffn_{letter}.{i}.w_2": f"{layer}.feed_forward.2",
                f"res4ffn_{letter}.{i}.norm": f"{layer}.feed_forward_norm",
            }
    return names


def _our_weights(name: str, value: torch.Tensor, modules: dict[str, str]) -> dict[str, torch.Tensor]:
    released = next((released for released in modules if name.startswith(f"{released}.")), None)
    if released is None:
        return {name: value}
    module = modules[released]
    parameter = name[len(released) + 1 :]
    if not module.endswith(".gate"):
        return {f"{module}.{parameter}": value}
    if parameter != "weight":
        return {f"{module}.own.{parameter}": value}
    text, objects = value.chunk(2, dim=-1)  # one matrix for [text ; object]
    own, other = (text, objects) if ".text." in module else (objects, text)
    return {f"{module}.own.weight": own, f"{module}.other.weight": other}


def _released_name(name: str, modules: dict[str, str]) -> str:
    name = re.sub(r"gate\.(own|other)", "gate", name)
    released, ours = next(pair for pair in modules.items() if name.startswith(f"{pair[1]}."))
    return released + name[len(ours) :]


def _complain(problem: str, names: list[str]) -> None:
    if names := list(dict.fromkeys(names)):
        more = f" and {len(names) - 5} more" if len(names) > 5 else ""
        raise ValueError(f"The state dict of the UMGF release {problem} {', '.join(names[:5])}{more}.")


@dataclass
class ConvertOptions:
    """What the command `convert` is asked for; the help of each field says what it is."""

    checkpoint: str = field(
        metadata={
            "positional": True,
            "help": "The released model.pt. It is loaded with weights_only=True: nothing in it is executed.",
        }
    )
    output_dir: str = field(metadata={"positional": True, "help": "Folder to write, which must not exist or be empty."})
    tokenizer: str | None = field(
        default=None,
        metadata={"help": "Folder or Hub id of its tokenizer (bert-base-cased): saves a processor too."},
    )


def convert_checkpoint(options: ConvertOptions) -> Path:
    """Convert a file and save the model, with a processor if a tokenizer is given.

    Args:
        options: the file, the folder and the tokenizer.

    Returns:
        The folder.

    Raises:
        ValueError: the file is not a state dict of the release, or the folder is in use.
        OSError: a file cannot be read or written.
    """
    output_dir = Path(options.output_dir)
    if output_dir.exists() and (not output_dir.is_dir() or any(output_dir.iterdir())):
        raise ValueError(f"{output_dir} exists and is not an empty folder; give another one.")
    if options.tokenizer is not None:
        try:
            tokenizer = AutoTokenizer.from_pretrained(options.tokenizer)
        except (ValueError, OSError) as error:
            raise ValueError(
                f"{options.tokenizer} is neither a folder nor a Hub id with a tokenizer that can be read."
            ) from error
    try:
        state_dict = torch.load(options.checkpoint, map_location="cpu", weights_only=True)
    except (pickle.UnpicklingError, RuntimeError, EOFError) as error:
        raise ValueError(f"{options.checkpoint} is not a state dict saved by torch.save.") from error
    if not isinstance(state_dict, Mapping):
        raise ValueError(f"{options.checkpoint} holds a {type(state_dict).__name__}, not a state dict.")
    model = convert_state_dict(state_dict)

    with write_whole(output_dir) as unfinished:
        model.save_pretrained(unfinished)
        if options.tokenizer is not None:
            pictures = UmgfImageProcessor(  # as the release prepared its crops
                size={"shortest_edge": 256}, do_center_crop=True, crop_size={"height": 224, "width": 224}
            )
            processor = UmgfProcessor(pictures, tokenizer, visual_nodes="general", max_objects=4)
            processor.save_pretrained(unfinished)
    return output_dir
