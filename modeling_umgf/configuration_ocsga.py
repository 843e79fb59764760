"""Configuration of OCSGA (Wu et al., ACM Multimedia 2020)."""

from typing import ClassVar

from huggingface_hub.dataclasses import strict

from .configuration_multimodal_ner import AttentiveConfig, at_least, share


@strict
class OcsgaConfig(AttentiveConfig):
    """Configuration of OCSGA. Its width d is that of the text encoder.

    Args (besides those of `MultimodalNerConfig`):
        text_config: default: a BiLSTM of 200 over words and the BiLSTM of their characters, as in the paper.
        object_feature_size: width F of the objects; in the paper the word vectors of their labels, 200.
        num_heads: attention heads, a divisor of d.
        d_ff: width of the feed-forward layers.
    """

    model_type = "ocsga"
    title: ClassVar[str] = "OCSGA"
    summary: ClassVar[str] = (
        "The words attend to the labels of the objects in the picture, and add what they find to what they say."
    )
    paper: ClassVar[dict[str, str]] = {
        "title": "Multimodal Representation with Embedded Visual Guiding Objects for Named Entity Recognition in "
        "Social Media Posts",
        "authors": "Wu, Zhiwei and Zheng, Changmeng and Cai, Yi and Chen, Junying and Leung, Ho-fung and Li, Qing",
        "venue": "ACM Multimedia",
        "year": "2020",
        "url": "https://doi.org/10.1145/3394171.3413650",
    }
    default_text_config = {"model_type": "bilstm", "characters": "lstm"}

    dropout: float | int = share(0.6)
    finetune_cnn: bool = False
    num_heads: int = at_least(1, 2)
    d_ff: int = at_least(1, 800)
