"""Configuration of UMT (Yu et al., ACL 2020)."""

from typing import ClassVar

from huggingface_hub.dataclasses import strict

from .configuration_multimodal_ner import AttentiveConfig, at_least, share, weight


@strict
class UmtConfig(AttentiveConfig):
    """Configuration of UMT; the defaults are those of the paper and its release.

    The model is as wide as its text encoder, the image encoder is frozen.

    Args (besides those of `MultimodalNerConfig`):
        num_heads: attention heads of the layers on top of the encoders.
        d_ff: width of their feed-forward layers.
        alpha: share of the main task in the emissions; the rest comes from the detection of spans.
        auxiliary_weight: weight of the loss of the detection of spans.
    """

    model_type = "umt"
    title: ClassVar[str] = "UMT"
    summary: ClassVar[str] = (
        "Words attend to the regions of the picture, regions to words and words to such regions, while an auxiliary "
        "task finds where names begin and end; then every word is labelled."
    )
    paper: ClassVar[dict[str, str]] = {
        "title": "Improving Multimodal Named Entity Recognition via Entity Span Detection with Unified Multimodal "
        "Transformer",
        "authors": "Yu, Jianfei and Jiang, Jing and Yang, Li and Xia, Rui",
        "venue": "ACL",
        "year": "2020",
        "url": "https://doi.org/10.18653/v1/2020.acl-main.306",
    }
    attribute_map: ClassVar[dict[str, str]] = {"num_attention_heads": "num_heads"}

    dropout: float | int = share(0.1)
    finetune_cnn: bool = False
    num_heads: int = at_least(1, 12)
    d_ff: int = at_least(1, 3072)
    alpha: float | int = 0.5
    auxiliary_weight: float | int = weight(0.5)

    def validate_architecture(self):
        """Raise ValueError where two settings contradict each other."""
        super().validate_architecture()
        if not 0 <= self.alpha <= 1:
            raise ValueError(f"alpha={self.alpha}: a share, 0 to 1.")
