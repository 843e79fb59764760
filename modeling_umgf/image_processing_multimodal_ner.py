"""Pictures and boxes → normalised crops."""

import os
from collections.abc import Sequence
from math import ceil, floor, isfinite

from PIL import Image
from transformers import AutoConfig, AutoImageProcessor, PreTrainedConfig
from transformers.image_processing_backends import PilBackend
from transformers.image_utils import IMAGENET_DEFAULT_MEAN, IMAGENET_DEFAULT_STD, PILImageResampling

from .image_encoder import image_half, picture_size


class MultimodalNerImageProcessor(PilBackend):
    """Resize (the whole crop, 224 x 224) and normalise (ImageNet mean and deviation) the crops of visual nodes."""

    do_convert_rgb = True
    do_resize = True
    size = {"height": 224, "width": 224}
    resample = PILImageResampling.BILINEAR
    do_rescale = True
    do_normalize = True
    image_mean = IMAGENET_DEFAULT_MEAN
    image_std = IMAGENET_DEFAULT_STD

    @classmethod
    def from_vision_model(cls, vision: str | os.PathLike, **settings) -> "MultimodalNerImageProcessor":
        """Make pictures as a pretrained image encoder expects them.

        Args:
            vision: its id or folder (timm or transformers).
            settings: instead of its size and normalisation.
        """
        source = AutoImageProcessor.from_pretrained(vision)
        if hasattr(source, "data_config"):  # timm
            expected = {"image_mean": source.data_config["mean"], "image_std": source.data_config["std"]}
        else:
            expected = {"image_mean": source.image_mean, "image_std": source.image_std}
        if "size" not in settings:
            height, width = picture_size(image_half(AutoConfig.from_pretrained(vision)))
            expected["size"] = {"height": height, "width": width}
        expected |= settings
        return cls(**{name: list(value) if isinstance(value, tuple) else value for name, value in expected.items()})

    @classmethod
    def for_encoder(
        cls,
        config: PreTrainedConfig | None,
        vision: str | os.PathLike | None = None,
        image_size: int | None = None,
    ) -> "MultimodalNerImageProcessor":
        """Make pictures for an image encoder.

        Args:
            config: its configuration; None = there is none.
            vision: its id or folder, where it is pretrained: it says how pictures are normalised.
            image_size: pixels of both sides; default: what the encoder was made for.
        """
        settings = {}
        if image_size is not None:
            settings["size"] = {"height": image_size, "width": image_size}
        elif config is not None:
            height, width = picture_size(config)
            settings["size"] = {"height": height, "width": width}
        return cls.from_vision_model(vision, **settings) if vision else cls(**settings)

    def crop(self, picture: Image.Image, boxes: Sequence[Sequence[float]]) -> list[Image.Image]:
        """Cut boxes [x0, y0, x1, y1], in pixels of this picture, out of it; parts outside the picture are left out.

        Raises:
            ValueError: a box is empty or lies outside the picture.
        """
        crops = []
        for box in boxes:
            if len(box) != 4 or not all(map(isfinite, box)) or not (box[0] < box[2] and box[1] < box[3]):
                raise ValueError(f"{list(box)} is no box; a box is [x0, y0, x1, y1] with x0 < x1 and y0 < y1.")
            left, top = max(floor(box[0]), 0), max(floor(box[1]), 0)
            right, bottom = min(ceil(box[2]), picture.width), min(ceil(box[3]), picture.height)
            if left >= right or top >= bottom:
                raise ValueError(
                    f"The box {list(box)} holds nothing of a picture of {picture.width} x {picture.height} pixels; a "
                    "box is [x0, y0, x1, y1] in pixels of the picture as shown (EXIF rotation applied)."
                )
            crops.append(picture.crop((left, top, right, bottom)))
        return crops
