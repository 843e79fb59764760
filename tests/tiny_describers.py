"""Closed-set detectors and captioners of transformers, tiny and random, saved as folders that load offline."""

from pathlib import Path

import torch
from tiny_detectors import bert_tokenizer, clip_tokenizer
from transformers import (
    BlipConfig,
    BlipForConditionalGeneration,
    BlipImageProcessor,
    BlipProcessor,
    CLIPImageProcessor,
    DetrConfig,
    DetrForObjectDetection,
    DetrImageProcessor,
    GitConfig,
    GitForCausalLM,
    GitProcessor,
    LlavaConfig,
    LlavaForConditionalGeneration,
    LlavaProcessor,
    RTDetrConfig,
    RTDetrForObjectDetection,
    RTDetrImageProcessor,
    YolosConfig,
    YolosForObjectDetection,
    YolosImageProcessor,
)

LABELS = {0: "cat", 1: "dog", 2: "person", 3: "kite"}
TOWER = {"hidden_size": 16, "intermediate_size": 16, "num_hidden_layers": 1, "num_attention_heads": 2}
RESNET = {"model_type": "resnet", "embedding_size": 8, "hidden_sizes": [8, 8, 16, 16], "depths": [1, 1, 1, 1]}
LABELER_KINDS = ("detr", "yolos", "rt-detr")
CAPTIONER_KINDS = ("blip", "git", "llava")


def save_labeler(kind: str, folder: Path, seed: int = 0) -> Path:
    """Write a closed-set detector of this kind and its image processor into a folder."""
    torch.manual_seed(seed)
    size = {"shortest_edge": 64, "longest_edge": 96}
    if kind == "detr":
        config = DetrConfig(
            backbone_config={**RESNET, "layer_type": "basic", "out_features": ["stage4"]},
            use_timm_backbone=False,
            d_model=16,
            num_queries=9,
            id2label=LABELS,
            encoder_layers=1,
            encoder_ffn_dim=16,
            encoder_attention_heads=2,
            decoder_layers=1,
            decoder_ffn_dim=16,
            decoder_attention_heads=2,
        )
        model = DetrForObjectDetection(config)
        images = DetrImageProcessor(size=size)
    elif kind == "yolos":
        config = YolosConfig(**TOWER, image_size=[64, 64], patch_size=16, num_detection_tokens=9, id2label=LABELS)
        model = YolosForObjectDetection(config)
        images = YolosImageProcessor(size=size)
    else:
        stages = ["stage2", "stage3", "stage4"]
        config = RTDetrConfig(
            backbone_config={**RESNET, "model_type": "rt_detr_resnet", "layer_type": "basic", "out_features": stages},
            d_model=16,
            num_queries=9,
            num_denoising=0,
            id2label=LABELS,
            encoder_in_channels=[8, 16, 16],
            encoder_hidden_dim=16,
            encoder_ffn_dim=16,
            encoder_attention_heads=2,
            decoder_in_channels=[16, 16, 16],
            decoder_layers=1,
            decoder_ffn_dim=16,
            decoder_attention_heads=2,
        )
        model = RTDetrForObjectDetection(config)
        images = RTDetrImageProcessor(size={"height": 64, "width": 64})
    model.save_pretrained(folder)
    images.save_pretrained(folder)
    return Path(folder)


def save_captioner(kind: str, folder: Path, seed: int = 0) -> Path:
    """Write an image-to-text model of this kind and its processor into a folder."""
    torch.manual_seed(seed)
    vision = {**TOWER, "image_size": 32, "patch_size": 16, "initializer_range": 0.02}
    if kind == "llava":
        tokenizer = clip_tokenizer(77)
        tokenizer.add_special_tokens({"additional_special_tokens": ["<image>"]})
        config = LlavaConfig(
            vision_config={"model_type": "clip_vision_model", **vision},
            text_config={"model_type": "llama", **TOWER, "vocab_size": len(tokenizer), "pad_token_id": 0},
            image_token_index=tokenizer.convert_tokens_to_ids("<image>"),
            vision_feature_layer=-1,
        )
        template = (
            "{% for m in messages %}{% for c in m['content'] %}{{ '<image>' if c['type'] == 'image' else c['text'] }}"
        )
        processor = LlavaProcessor(
            CLIPImageProcessor(size={"height": 32, "width": 32}, do_center_crop=False),
            tokenizer,
            patch_size=16,
            vision_feature_select_strategy="default",
            num_additional_image_tokens=1,
            chat_template=template + "{% endfor %}{% endfor %}",
        )
        model = LlavaForConditionalGeneration(config)
    else:
        tokenizer = bert_tokenizer()
        special = {"bos_token_id": 2, "eos_token_id": 3, "pad_token_id": 0, "sep_token_id": 3}
        if kind == "blip":
            text = {**TOWER, "vocab_size": len(tokenizer), "encoder_hidden_size": 16, **special}
            config = BlipConfig(text_config=text, vision_config=vision, projection_dim=16)
            model = BlipForConditionalGeneration(config)
            processor = BlipProcessor(BlipImageProcessor(size={"height": 32, "width": 32}), tokenizer)
        else:
            config = GitConfig(vision_config=vision, **TOWER, vocab_size=len(tokenizer), **special)
            clip = CLIPImageProcessor(size={"height": 32, "width": 32}, do_center_crop=False)
            model = GitForCausalLM(config)
            processor = GitProcessor(clip, tokenizer)
    for weights in model.parameters():
        weights.data *= 10  # as they are, small random weights say the same of every picture
    model.save_pretrained(folder)
    processor.save_pretrained(folder)
    return Path(folder)
