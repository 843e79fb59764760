"""Words → the batch that a text-only model reads."""

from .processing_multimodal_ner import MultimodalNerProcessor


class TextOnlyProcessor(MultimodalNerProcessor):
    """A tokenizer behind the call of all processors; pictures are accepted, and never opened.

    Args:
        tokenizer: any fast tokenizer.
    """

    def __init__(self, tokenizer=None):
        super().__init__(tokenizer)
