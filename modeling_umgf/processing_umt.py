"""Words and pictures → the batch that UMT reads."""

from .processing_single_picture import SinglePictureProcessor


class UmtProcessor(SinglePictureProcessor):
    """Words, and the picture as one node; its regions are the cells of the image encoder's feature map."""
