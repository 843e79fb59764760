"""Configuration of ACoA (Zhang et al., AAAI 2018)."""

from typing import ClassVar

from huggingface_hub.dataclasses import strict

from .configuration_multimodal_ner import MultimodalNerConfig, at_least


@strict
class AcoaConfig(MultimodalNerConfig):
    """Configuration of ACoA.

    Args (besides those of `MultimodalNerConfig`):
        text_config: default: two BiLSTMs of 400 on each other over words and the CNN of their characters. In the paper
            the characters come in between.
        d_model: width d in which words and regions meet.
    """

    model_type = "acoa"
    title: ClassVar[str] = "ACoA"
    summary: ClassVar[str] = (
        "Every word looks at regions of the picture, what it sees looks at the other words, and two gates decide how "
        "much of both it takes."
    )
    paper: ClassVar[dict[str, str]] = {
        "title": "Adaptive Co-attention Network for Named Entity Recognition in Tweets",
        "authors": "Zhang, Qi and Fu, Jinlan and Liu, Xiaoyu and Huang, Xuanjing",
        "venue": "AAAI",
        "year": "2018",
        "url": "https://doi.org/10.1609/aaai.v32i1.11962",
    }
    default_text_config = {
        "model_type": "bilstm",
        "characters": "cnn",
        "num_hidden_layers": 2,
        "hidden_size": 400,
    }

    finetune_cnn: bool = False
    d_model: int = at_least(1, 200)
