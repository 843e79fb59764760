"""OCSGA: Multimodal Representation with Embedded Visual Guiding Objects for NER in Social Media Posts.

Wu et al., ACM Multimedia 2020. Objects are the word vectors of their labels. Words attend to words, objects to objects,
then the words to the objects; what they find there is added to what the words say. A CRF tags the words.

The last norm is over each word. In the release it is over the batch, padding included, so that a label would depend on
the posts around it.

Letters: X words, Y objects, Z what the words find; B posts, w words, m objects, F features of an object, d width.
"""

import torch
from torch import nn

from .configuration_ocsga import OcsgaConfig
from .layers import MultiHeadAttention, TransformerLayer, feed_forward
from .modeling_multimodal_ner import MultimodalNerForTokenClassification, MultimodalNerModel, Pieces, WordStates


class GuidedAttention(nn.Module):
    """Objects attend to each other, then words to objects, without a residual: the result is what the objects add."""

    def __init__(self, config: OcsgaConfig):
        super().__init__()
        d = config.hidden_size
        self.object_attention = MultiHeadAttention(d, config.num_heads, config.dropout)
        self.object_norm = nn.LayerNorm(d)
        self.guided_attention = MultiHeadAttention(d, config.num_heads, config.dropout)
        self.guided_norm = nn.LayerNorm(d)
        self.feed_forward = feed_forward(d, config.d_ff)
        self.feed_forward_norm = nn.LayerNorm(d)
        self.dropout = nn.Dropout(config.dropout)

    def forward(self, X: torch.Tensor, Y: torch.Tensor, mask: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """Return Z [B, w, d] of words X [B, w, d] and objects Y [B, m, d] where mask [B, m]; 0 without any object.

        Also returns the shares [B, w, m] of the objects in it, a mean over the heads.
        """
        Y = self.object_norm(Y + self.dropout(self.object_attention(Y, Y, mask)))
        Z = self.guided_norm(self.dropout(self.guided_attention(X, Y, mask)))
        Z = self.feed_forward_norm(self.dropout(self.feed_forward(Z)))
        return Z * mask.any(1)[:, None, None], self.guided_attention.shares(X, Y, mask)


class OcsgaModel(MultimodalNerModel):
    """Text encoder, the objects' labels and the attention of the words to them."""

    config: OcsgaConfig
    averages_cells = True

    def __init__(self, config: OcsgaConfig):
        super().__init__(config)
        d = config.hidden_size
        self.output_size = d
        self.object_projection = nn.Linear(config.object_feature_size, d)
        self.word_layer = TransformerLayer(d, config.num_heads, config.d_ff, config.dropout)
        self.guided_attention = GuidedAttention(config)
        self.norm = nn.LayerNorm(d)
        self.post_init()

    def fuse(self, text: Pieces, pixel_values=None, object_features=None, object_mask=None) -> WordStates:
        """Add to the words what the objects say.

        Args:
            text: states of the pieces.
            object_features: [B, m, F] word vectors of the objects' labels; or
            pixel_values: [B, m, 3, H, W] pictures, each of which is an object.
            object_mask: [B, m] real objects; None = all. Without any, Z is 0.
        """
        X, word_mask = text.words()  # [B, w, d], [B, w]
        nodes = pixel_values, object_features, object_mask
        cells, object_mask = self.encode_objects(text.states, *nodes)  # [B, m, r, F], [B, m]
        Y = self.object_projection(cells.mean(2))  # [B, m, d]
        Z, shares = self.guided_attention(self.word_layer(X, X, word_mask), Y, object_mask)  # [B, w, d], [B, w, m]
        return WordStates(self.norm(X + Z), word_mask, {"objects": shares})


class OcsgaForTokenClassification(MultimodalNerForTokenClassification):
    """OCSGA with emission layer and CRF."""

    model_class = OcsgaModel
