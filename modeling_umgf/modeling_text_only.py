"""Text encoder and label decoder alone: BERT-CRF, BERT with softmax, and the text-only twin of every other system."""

from .configuration_text_only import TextOnlyConfig
from .modeling_multimodal_ner import MultimodalNerForTokenClassification, MultimodalNerModel, Pieces, WordStates


class TextOnlyModel(MultimodalNerModel):
    """The text encoder's states of the words."""

    config: TextOnlyConfig

    def __init__(self, config: TextOnlyConfig):
        super().__init__(config)
        self.output_size = config.text_config.hidden_size
        self.post_init()

    def fuse(self, text: Pieces) -> WordStates:
        """Take the states of the words out of those of the pieces."""
        return WordStates(*text.words())


class TextOnlyForTokenClassification(MultimodalNerForTokenClassification):
    """A text encoder with emission layer and label decoder."""

    model_class = TextOnlyModel
