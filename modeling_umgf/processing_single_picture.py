"""Words and a picture → the batch of the systems that look at the picture as a whole."""

from .image_processing_multimodal_ner import MultimodalNerImageProcessor
from .processing_multimodal_ner import OBJECTS, MultimodalNerProcessor


class SinglePictureProcessor(MultimodalNerProcessor):
    """Tokenizer and image processor behind one call; the picture is one node, linked to every word.

    It also reads the column `object_features`, [m, F], instead of pictures: each row is a node, such as a region.

    Args:
        image_processor: resizes and normalises pictures; default `MultimodalNerImageProcessor()`.
        tokenizer: any fast tokenizer.
        context: columns of texts that are read after the post, see `MultimodalNerProcessor`.
    """

    columns = ("image", "object_features")
    node_kinds = {"objects": OBJECTS}

    def __init__(self, image_processor=None, tokenizer=None, context=()):
        super().__init__(image_processor or MultimodalNerImageProcessor(), tokenizer, context=context)
