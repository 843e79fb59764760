"""The part of a configuration that every multimodal tagger of this package has."""

from typing import ClassVar, Literal

from huggingface_hub.dataclasses import strict
from transformers import AutoConfig, PreTrainedConfig
from transformers.configuration_utils import SubConfigSpec


@strict
class MultimodalNerConfig(PreTrainedConfig):
    """Backbones, labels and CRF of a tagger of words in posts with pictures.

    Args:
        text_config: configuration (or its dict, with `model_type`) of any transformers text encoder; default BERT-base.
        vision_config: the same of any transformers or timm (`timm_wrapper`) image encoder; None = features are given.
        object_feature_size: width F of the visual features; default: that of `vision_config`, else 2048 (ResNet-152).
        dropout: dropout of the layers that are new, not of the backbones.
        word_dropout: share of the pieces whose word embedding is zero while training, so that names must be told from
            their context too.
        classifier_dropout: dropout of the word states that the emission layer reads.
        subword_labels: "first": one CRF step a word, read at its first piece. "x": one CRF step a piece, as the
            released models do; needs the labels X, [CLS] and [SEP].
        crf_reduction: negative log-likelihood averaged ("mean") or summed ("sum") over the sentences of a batch.
        constrain_bio: forbid illegal BIO transitions when decoding (never in training: gold data contain some).
        finetune_text, finetune_cnn: train the backbone; a frozen image encoder runs without gradients.
        freeze_bn: keep the batch norms of the image encoder in evaluation mode while training.
    """

    sub_configs_defaults = {
        "text_config": SubConfigSpec(config_class=AutoConfig, model_type="bert"),
        "vision_config": SubConfigSpec(config_class=AutoConfig, model_type="resnet", optional=True),
    }
    keys_to_ignore_at_inference: ClassVar[list[str]] = ["hidden_states", "attentions", "gates"]

    text_config: dict | PreTrainedConfig | None = None
    vision_config: dict | PreTrainedConfig | None = None
    object_feature_size: int | None = None
    dropout: float | int = 0.5
    word_dropout: float | int = 0.0
    classifier_dropout: float | int = 0.1
    subword_labels: Literal["first", "x"] = "first"
    crf_reduction: Literal["mean", "sum"] = "mean"
    constrain_bio: bool = False
    finetune_text: bool = True
    finetune_cnn: bool = True
    freeze_bn: bool = True

    def __post_init__(self, **kwargs):
        if type(self).__module__.split(".")[0] != "transformers_modules":
            kwargs.pop("custom_pipelines", None)  # this package registers the pipeline: its copy need not be trusted
        super().__post_init__(**kwargs)
        if self.object_feature_size is None:
            self.object_feature_size = feature_size(self.vision_config) if self.vision_config is not None else 2048

    def validate_architecture(self):
        """Raise ValueError where two settings contradict each other."""
        if getattr(self.text_config, "is_encoder_decoder", False):
            raise ValueError(
                f"text_config: {self.text_config.model_type} has a decoder; give a text encoder such as BERT."
            )
        missing = {"X", "[CLS]", "[SEP]"} - set(self.label2id or {})
        if self.subword_labels == "x" and missing:
            raise ValueError(
                f"subword_labels='x' needs the labels X, [CLS] and [SEP]; {sorted(missing)} not among the labels."
            )


def feature_size(vision_config: PreTrainedConfig) -> int:
    """Return the width F of an image encoder's feature map, as far as its configuration tells.

    Raises:
        ValueError: the configuration does not tell; `object_feature_size` must then be given.
    """
    for attribute in ("hidden_sizes", "num_features", "hidden_size", "embed_dim"):
        if value := getattr(vision_config, attribute, None):
            return value[-1] if isinstance(value, list | tuple) else value
    raise ValueError(
        f"The configuration of {vision_config.model_type} does not tell the width of its feature map: pass "
        "object_feature_size, or use from_text_vision_pretrained, which measures it."
    )
