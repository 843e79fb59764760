"""The part of a configuration that every tagger of this package has, and what a system says of itself."""

from dataclasses import fields
from difflib import get_close_matches
from typing import Any, ClassVar, Literal

from huggingface_hub.dataclasses import strict, validated_field
from transformers import AutoConfig, PreTrainedConfig

from .configuration_bilstm import BilstmConfig  # noqa: F401 - a text encoder of this package: a saved model carries it

READ_BY_TRANSFORMERS = {
    "attn_implementation",
    "auto_map",
    "bos_token_id",
    "custom_pipelines",
    "eos_token_id",
    "experts_implementation",
    "model_type",
    "name_or_path",
    "num_labels",
    "output_attentions",
    "pad_token_id",
    "per_layer_config",
    "quantization_config",
    "torch_dtype",
    "transformers_version",
    "use_cache",
}
"""Names that are no fields of a configuration, but that transformers gives or writes into one."""


def share(default: float) -> Any:
    """A setting that is a share: at least 0 and below 1."""

    def check(value: float) -> None:
        if not 0 <= value < 1:
            raise ValueError(f"{value} is no share of the values: at least 0 and below 1.")

    return validated_field(check, default=default)


def weight(default: float) -> Any:
    """A setting that a loss is multiplied by: at least 0."""

    def check(value: float) -> None:
        if not 0 <= value < float("inf"):
            raise ValueError(f"{value} is no weight of a loss: a number, at least 0.")

    return validated_field(check, default=default)


def at_least(smallest: int, default: int | None) -> Any:
    """A setting that is a whole number, or possibly None."""

    def check(value: int | None) -> None:
        if value is not None and value < smallest:
            raise ValueError(f"{value} is too small: at least {smallest}.")

    return validated_field(check, default=default)


@strict
class MultimodalNerConfig(PreTrainedConfig):
    """Encoders, labels and decoder of a tagger of words in posts with pictures.

    A system is a subclass. Besides its settings it says what it is, for cards, documentation and error messages:
    `title`, its name; `summary`, one sentence on what the model does; `paper`, where it was published: a mapping with
    title, authors, venue, year and url, or None.

    Args:
        text_config: configuration (or its dict, with `model_type`) of any transformers text encoder; default BERT-base.
        vision_config: the same of any transformers or timm (`timm_wrapper`) image encoder; None = features are given.
        object_feature_size: width F of the visual features; default: that of `vision_config`, else 2048 (ResNet-152).
        dropout: dropout of the layers that are new, not of the encoders.
        word_dropout: share of the pieces whose word embedding is zero while training, so that names must be told from
            their context too.
        classifier_dropout: dropout of the word states that the emission layer reads.
        label_decoder: "crf": a linear chain over the labels of a post. "softmax": every word by itself.
        subword_labels: "first": one step of the decoder a word, read at its first piece. "x": one step a piece; needs
            the labels X, [CLS] and [SEP].
        crf_reduction: negative log-likelihood averaged ("mean") or summed ("sum") over the posts of a batch.
        cross_view_weight: above 0, posts are read twice while training, the second time without context, picture and
            neighbours, so that one model is good with and without them; see `cross_view_loss` of the taggers.
        constrain_bio: forbid illegal BIO transitions when decoding (never in training: gold data contain some).
        letter_case: tell the text encoder the letter case of each word, for uncased ones: a learnt vector, 0 at the
            start, is added to the embeddings of its pieces. Made by hand, such a model needs
            `tell_letter_case(tokenizer)`.
        finetune_text, finetune_cnn: train the text encoder, the image encoder; a frozen image encoder runs without
            gradients.
        freeze_bn: keep the batch norms of the image encoder in evaluation mode while training.

    Raises:
        ValueError, StrictDataclassError: there is no such setting, or it has an impossible value.
    """

    title: ClassVar[str] = ""
    summary: ClassVar[str] = ""
    paper: ClassVar[dict[str, str] | None] = None

    sub_configs = {"text_config": AutoConfig, "vision_config": AutoConfig}
    default_text_config = {"model_type": "bert"}
    keys_to_ignore_at_inference: ClassVar[list[str]] = ["hidden_states", "attentions", "gates"]

    text_config: dict | PreTrainedConfig | None = None
    vision_config: dict | PreTrainedConfig | None = None
    object_feature_size: int | None = at_least(1, None)
    dropout: float | int = share(0.5)
    word_dropout: float | int = share(0.0)
    classifier_dropout: float | int = share(0.1)
    label_decoder: Literal["crf", "softmax"] = "crf"
    subword_labels: Literal["first", "x"] = "first"
    crf_reduction: Literal["mean", "sum"] = "mean"
    cross_view_weight: float | int = weight(0.0)
    constrain_bio: bool = False
    letter_case: bool = False
    finetune_text: bool = True
    finetune_cnn: bool = True
    freeze_bn: bool = True

    def __post_init__(self, **kwargs):
        if type(self).__module__.split(".")[0] != "transformers_modules":
            kwargs.pop("custom_pipelines", None)  # this package registers the pipeline: its copy need not be trusted
        for name in sorted(kwargs.keys() - READ_BY_TRANSFORMERS - self.attribute_map.keys()):
            if not name.startswith("_"):
                raise ValueError(f"{type(self).__name__} has no setting {name!r}; {self._closest(name)}")
        text_config = self.default_text_config if self.text_config is None else self.text_config
        self.text_config = encoder_config(text_config, self.default_text_config["model_type"])
        if self.vision_config is not None:
            self.vision_config = encoder_config(self.vision_config, "resnet")
        super().__post_init__(**kwargs)
        if self.object_feature_size is None:
            self.object_feature_size = feature_size(self.vision_config) if self.vision_config is not None else 2048

    @classmethod
    def own_settings(cls) -> list[str]:
        """Names of the settings that are not those of every configuration of transformers."""
        inherited = {field.name for field in fields(PreTrainedConfig)}
        return [field.name for field in fields(cls) if field.name not in inherited]

    def _closest(self, name: str) -> str:
        names = self.own_settings()
        close = get_close_matches(name, names, n=1)
        return f"did you mean {close[0]!r}?" if close else f"it has {', '.join(sorted(names))}."

    def processor_settings(self) -> dict[str, Any]:
        """Settings that the processor must share with the model."""
        return {}

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


@strict
class AttentiveConfig(MultimodalNerConfig):
    """What configurations share of systems that are as wide as their text encoder and attend with several heads.

    Args (besides those of `MultimodalNerConfig`):
        num_heads: attention heads, a divisor of that width.
    """

    num_heads: int = at_least(1, 8)

    @property
    def hidden_size(self) -> int:
        """Width d of the model: that of its text encoder."""
        return self.text_config.hidden_size

    def validate_architecture(self):
        """Raise ValueError where two settings contradict each other."""
        super().validate_architecture()
        if self.hidden_size % self.num_heads:
            raise ValueError(
                f"The text encoder's width {self.hidden_size} is not a multiple of num_heads={self.num_heads}."
            )


def encoder_config(config: dict | PreTrainedConfig, model_type: str) -> PreTrainedConfig:
    """Return the configuration of an encoder, made of a dict where it is one; `model_type`: where the dict has none."""
    return AutoConfig.for_model(**{"model_type": model_type, **config}) if isinstance(config, dict) else config


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
