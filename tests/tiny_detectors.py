"""Every zero-shot detector class of transformers, tiny and random, saved as a folder that loads offline."""

import string
from pathlib import Path

import torch
from transformers import (
    BertTokenizer,
    CLIPTokenizer,
    GroundingDinoConfig,
    GroundingDinoForObjectDetection,
    GroundingDinoImageProcessor,
    GroundingDinoProcessor,
    MMGroundingDinoConfig,
    MMGroundingDinoForObjectDetection,
    OmDetTurboConfig,
    OmDetTurboForObjectDetection,
    OmDetTurboProcessor,
    Owlv2Config,
    Owlv2ForObjectDetection,
    Owlv2ImageProcessor,
    Owlv2Processor,
    OwlViTConfig,
    OwlViTForObjectDetection,
    OwlViTImageProcessor,
    OwlViTProcessor,
)

KINDS = ("grounding-dino", "mm-grounding-dino", "owlvit", "owlv2", "omdet-turbo")


def save_detector(kind: str, folder: Path, seed: int = 0) -> Path:
    """Write a detector of this kind and its processor into a folder."""
    torch.manual_seed(seed)
    model, processor = {
        "grounding-dino": lambda: grounding_dino(GroundingDinoConfig, GroundingDinoForObjectDetection),
        "mm-grounding-dino": lambda: grounding_dino(MMGroundingDinoConfig, MMGroundingDinoForObjectDetection),
        "owlvit": lambda: owl(OwlViTConfig, OwlViTForObjectDetection, OwlViTImageProcessor, OwlViTProcessor),
        "owlv2": lambda: owl(Owlv2Config, Owlv2ForObjectDetection, Owlv2ImageProcessor, Owlv2Processor),
        "omdet-turbo": omdet_turbo,
    }[kind]()
    model.save_pretrained(folder)
    processor.save_pretrained(folder)
    return Path(folder)


def bert_tokenizer() -> BertTokenizer:
    words = "misc person location organization the a will smith new york red square . , # @".split()
    pieces = [*"[PAD] [UNK] [CLS] [SEP] [MASK]".split(), *words]
    pieces += [*string.ascii_lowercase, *string.digits, *(f"##{letter}" for letter in string.ascii_lowercase)]
    return BertTokenizer(vocab={piece: i for i, piece in enumerate(dict.fromkeys(pieces))}, model_max_length=512)


def clip_tokenizer(length: int) -> CLIPTokenizer:
    letters = [chr(i) for i in range(33, 127)]
    pieces = [*letters, *(f"{letter}</w>" for letter in letters), "<|startoftext|>", "<|endoftext|>"]
    return CLIPTokenizer(vocab={piece: i for i, piece in enumerate(pieces)}, merges=[], model_max_length=length)


def swin(stages=(2, 3, 4)) -> dict:
    return {
        "model_type": "swin",
        "embed_dim": 8,
        "depths": [1, 1, 1, 1],
        "num_heads": [1, 1, 2, 2],
        "window_size": 4,
        "image_size": 64,
        "out_indices": list(stages),
    }


def grounding_dino(config_class, model_class):
    tokenizer = bert_tokenizer()
    text = {"model_type": "bert", "vocab_size": len(tokenizer), "hidden_size": 16, "num_hidden_layers": 1}
    config = config_class(
        text_config={**text, "num_attention_heads": 2, "intermediate_size": 16},
        backbone_config=swin(),
        num_queries=30,
        d_model=32,
        max_text_len=64,
        encoder_layers=1,
        encoder_ffn_dim=16,
        encoder_attention_heads=2,
        decoder_layers=2,
        decoder_ffn_dim=16,
        decoder_attention_heads=2,
    )
    images = GroundingDinoImageProcessor(size={"shortest_edge": 96, "longest_edge": 192})
    return model_class(config), GroundingDinoProcessor(images, tokenizer)


def owl(config_class, model_class, image_processor_class, processor_class):
    tokenizer = clip_tokenizer(16)
    tower = {"hidden_size": 32, "intermediate_size": 32, "num_hidden_layers": 2, "num_attention_heads": 2}
    special = {name: getattr(tokenizer, name) for name in ("bos_token_id", "eos_token_id", "pad_token_id")}
    config = config_class(
        text_config={**tower, **special, "vocab_size": len(tokenizer), "max_position_embeddings": 16},
        vision_config={**tower, "image_size": 64, "patch_size": 16},
        projection_dim=32,
    )
    images = image_processor_class(size={"height": 64, "width": 64})
    model = model_class(config)
    torch.nn.init.zeros_(model.box_head.dense2.weight)  # boxes around the patches, where random ones are empty
    return model, processor_class(images, tokenizer)


def omdet_turbo():
    from transformers import DetrImageProcessor

    tokenizer = clip_tokenizer(77)
    text = {"model_type": "clip_text_model", "hidden_size": 16, "projection_dim": 16, "num_hidden_layers": 1}
    special = {name: getattr(tokenizer, name) for name in ("bos_token_id", "eos_token_id", "pad_token_id")}
    config = OmDetTurboConfig(
        text_config={
            **text,
            **special,
            "vocab_size": len(tokenizer),
            "intermediate_size": 16,
            "num_attention_heads": 2,
        },
        backbone_config=swin(),
        text_projection_in_dim=16,
        text_projection_out_dim=16,
        class_embed_dim=16,
        num_queries=20,
        task_encoder_hidden_dim=16,
        vision_features_channels=[32, 32, 32],
        encoder_in_channels=[16, 32, 64],
        encoder_hidden_dim=32,
        encoder_dim_feedforward=16,
        encoder_attention_heads=2,
        decoder_hidden_dim=32,
        decoder_dim_feedforward=16,
        decoder_num_heads=2,
        decoder_num_layers=2,
        apply_layernorm_after_vision_backbone=False,
    )
    images = DetrImageProcessor(size={"height": 64, "width": 64}, do_pad=False)
    return OmDetTurboForObjectDetection(config), OmDetTurboProcessor(images, tokenizer)
