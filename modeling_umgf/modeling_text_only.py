"""Text encoder and label decoder alone: BERT-CRF, BERT with softmax, and the text-only twin of every other system."""

import torch

from .configuration_text_only import TextOnlyConfig
from .modeling_multimodal_ner import MultimodalNerForTokenClassification, MultimodalNerModel, WordStates, words_of


class TextOnlyModel(MultimodalNerModel):
    """The text encoder's states of the words."""

    config: TextOnlyConfig

    def __init__(self, config: TextOnlyConfig):
        super().__init__(config)
        self.output_size = config.text_config.hidden_size
        self.post_init()

    def fuse(self, H: torch.Tensor, attention_mask: torch.Tensor, word_starts: torch.Tensor | None) -> WordStates:
        """Take the states of the words out of those of the pieces H [B, n, h]."""
        x, word_mask = words_of(H, attention_mask, word_starts)  # [B, w, h], [B, w]
        return WordStates(x, word_mask)


class TextOnlyForTokenClassification(MultimodalNerForTokenClassification):
    """A text encoder with emission layer and label decoder."""

    model_class = TextOnlyModel
