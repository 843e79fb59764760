"""Configuration of IAIK (Chen et al., DASFAA 2021)."""

from typing import ClassVar

from huggingface_hub.dataclasses import strict

from .configuration_multimodal_ner import MultimodalNerConfig


@strict
class IaikConfig(MultimodalNerConfig):
    """Configuration of IAIK, a re-interpretation of its abstract: sizes and equations are not the authors'.

    The model is as wide as its text encoder. Attributes and knowledge are vectors of width `object_feature_size`.

    Its settings are those of `MultimodalNerConfig`.
    """

    model_type = "iaik"
    title: ClassVar[str] = "IAIK"
    summary: ClassVar[str] = (
        "Words attend to attributes of the picture and to what a knowledge graph says of these, and gates decide how "
        "much of both they take; a re-interpretation, since only the paper's abstract was read."
    )
    paper: ClassVar[dict[str, str]] = {
        "title": "Multimodal Named Entity Recognition with Image Attributes and Image Knowledge",
        "authors": "Chen, Dawei and Li, Zhixu and Gu, Binbin and Chen, Zhigang",
        "venue": "DASFAA",
        "year": "2021",
        "url": "https://doi.org/10.1007/978-3-030-73197-7_12",
    }

    finetune_cnn: bool = False
