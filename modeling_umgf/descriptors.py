"""What else can be said about a picture: object labels, a caption, features. Each is one class with one method.

Text embeddings are those of `SentenceEncoder`, which the relation index uses.
"""

from __future__ import annotations

import inspect
import json
import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from PIL import Image
from transformers import (
    AutoImageProcessor,
    AutoModelForImageTextToText,
    AutoModelForObjectDetection,
    PreTrainedModel,
)
from transformers.image_processing_utils import BaseImageProcessor

from .describer import Describer
from .image_encoder import feature_map, load_image_encoder
from .image_processing_multimodal_ner import MultimodalNerImageProcessor
from .pictures import open_picture


class ObjectLabeler(Describer):
    """Name the objects of pictures with any closed-set object detector of transformers (DETR, RT-DETR, YOLOS, …).

    Args:
        model: the detector.
        processor: its image processor.
        min_score: objects with a lower score are left out.
    """

    role = "labeler"
    default = "facebook/detr-resnet-50"
    load_model = AutoModelForObjectDetection.from_pretrained
    load_processor = AutoImageProcessor.from_pretrained

    def __init__(self, model: PreTrainedModel, processor: BaseImageProcessor, min_score: float = 0.5):
        super().__init__(model, processor)
        self.min_score = min_score

    @torch.no_grad()
    def __call__(self, pictures: Sequence[Any]) -> list[list[str]]:
        """Name the objects of several pictures.

        Args:
            pictures: anything that `open_picture` takes.

        Returns:
            For each picture the distinct labels, the best score first.
        """
        pictures = [open_picture(picture) for picture in pictures]
        inputs = self.processor(images=pictures, return_tensors="pt").to(self.model.device, self.model.dtype)
        outputs = self.model(**inputs)
        outputs.logits = outputs.logits.float()
        outputs.pred_boxes = outputs.pred_boxes.float()
        sizes = [(picture.height, picture.width) for picture in pictures]
        found = self.processor.post_process_object_detection(outputs, self.min_score, sizes)
        labels = []
        for own in found:
            best_first = own["scores"].argsort(descending=True, stable=True)
            names = [self.model.config.id2label[label] for label in own["labels"][best_first].tolist()]
            labels.append(list(dict.fromkeys(names)))
        return labels


class Captioner(Describer):
    """Describe pictures in words with any image-to-text model of transformers (BLIP, GIT, LLaVA, …).

    Args:
        model: the model.
        processor: its processor.
        prompt: text before the caption. Default: "Describe this picture in one sentence." for a chat model, else none.
        max_new_tokens: length of a caption at most.
    """

    role = "captioner"
    default = "Salesforce/blip-image-captioning-base"
    load_model = AutoModelForImageTextToText.from_pretrained

    def __init__(self, model: PreTrainedModel, processor: Any, prompt: str | None = None, max_new_tokens: int = 30):
        super().__init__(model, processor)
        if prompt is None and getattr(processor, "chat_template", None):
            prompt = "Describe this picture in one sentence."
        self.prompt = prompt
        self.max_new_tokens = max_new_tokens

    @torch.no_grad()
    def __call__(self, pictures: Sequence[Any]) -> list[str]:
        """Describe several pictures, greedily.

        Args:
            pictures: anything that `open_picture` takes.

        Returns:
            One caption a picture, without the prompt.
        """
        pictures = [open_picture(picture) for picture in pictures]
        inputs = {"images": pictures, "return_tensors": "pt"}
        if self.prompt is not None:
            inputs |= {"text": [self._text()] * len(pictures), "padding": True}
        inputs = self.processor(**inputs).to(self.model.device, self.model.dtype)
        if "token_type_ids" not in inspect.signature(self.model.forward).parameters:
            inputs.pop("token_type_ids", None)
        pieces = self.model.generate(**inputs, do_sample=False, num_beams=1, max_new_tokens=self.max_new_tokens)
        prompt = inputs.get("input_ids")
        if prompt is not None and pieces[:, : prompt.shape[1]].equal(prompt):
            pieces = pieces[:, prompt.shape[1] :]
        captions = self.processor.batch_decode(pieces, skip_special_tokens=True)
        return [caption.strip().removeprefix(self.prompt or "").strip() for caption in captions]

    def _text(self) -> str:
        if not getattr(self.processor, "chat_template", None):
            return self.prompt
        question = [{"type": "image"}, {"type": "text", "text": self.prompt}]
        return self.processor.apply_chat_template([{"role": "user", "content": question}], add_generation_prompt=True)


class PictureFeatures(Describer):
    """Features of pictures, or of crops, from any image encoder of transformers or timm.

    They are what the models compute from the same pictures themselves, so that a frozen encoder can be run once.

    Args:
        model: the encoder.
        processor: resizes and normalises the pictures for it.
    """

    role = "encoder"
    default = "microsoft/resnet-152"
    load_model = load_image_encoder
    load_processor = MultimodalNerImageProcessor.from_vision_model

    def __init__(self, model: PreTrainedModel, processor: MultimodalNerImageProcessor):
        super().__init__(model, processor)
        self.image_processor = processor
        self.name = model.name_or_path

    def settings(self) -> dict[str, Any]:
        """What is needed to load it again: id, whether that is a folder of this machine, how pictures are prepared."""
        is_local = Path(self.name).is_dir() or not self.name
        return {
            "name": (Path(self.name).name or self.model.config.model_type) if is_local else self.name,
            "included": is_local,  # others could not load it by its name
            "image_processor": json.loads(self.image_processor.to_json_string()),
        }

    @classmethod
    def from_settings(cls, settings: Mapping[str, Any], folder: str | os.PathLike | None = None):
        """Load it from its `settings`, the encoder of a machine's own folder from a copy of that."""
        model = load_image_encoder(folder if settings["included"] else settings["name"])
        device = "cuda" if torch.cuda.is_available() else "cpu"
        return cls(model.to(device), MultimodalNerImageProcessor.from_dict(settings["image_processor"]))

    @torch.no_grad()
    def __call__(self, pictures: Sequence[Image.Image]) -> torch.Tensor:
        """Compute the features of the cells of several pictures.

        Args:
            pictures: RGB pictures.

        Returns:
            [N, r, F] float32: r cells row by row, 49 of them for a ResNet and 224 x 224 pixels. Their mean over the
            cells is the pooled feature of a picture or crop.
        """
        pixels = self.image_processor(list(pictures), return_tensors="pt")["pixel_values"]  # [N, 3, H, W]
        return feature_map(self.model, pixels.to(self.model.device, self.model.dtype)).float().cpu()
