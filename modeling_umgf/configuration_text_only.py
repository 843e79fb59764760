"""Configuration of the taggers that read no picture."""

from typing import ClassVar

from huggingface_hub.dataclasses import strict

from .configuration_multimodal_ner import MultimodalNerConfig


@strict
class TextOnlyConfig(MultimodalNerConfig):
    """Configuration of text encoder and decoder alone, such as BERT-CRF; the twin of every system that sees pictures.

    Its settings are those of `MultimodalNerConfig`; those about pictures have no effect.
    """

    model_type = "text_only"
    title: ClassVar[str] = "Text only"
    summary: ClassVar[str] = "Text encoder and label decoder, no pictures: it shows what pictures are worth."

    def validate_architecture(self):
        """Raise ValueError where two settings contradict each other."""
        super().validate_architecture()
        if self.vision_config is not None:
            raise ValueError("A text-only model has no image encoder: leave vision_config out.")
