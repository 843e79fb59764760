"""Words → the batch that a text-only model reads."""

from .processing_multimodal_ner import MultimodalNerProcessor


class TextOnlyProcessor(MultimodalNerProcessor):
    """A tokenizer behind the call of all processors; pictures are accepted, and opened only to find a context.

    Args:
        tokenizer: any fast tokenizer.
        context: columns of texts that are read after the post, see `MultimodalNerProcessor`.
    """

    def __init__(self, tokenizer=None, context=()):
        super().__init__(tokenizer, context=context)
