"""ACoA: Adaptive Co-attention Network for Named Entity Recognition in Tweets.

Zhang et al., AAAI 2018. Each word attends to the regions of the picture; what it sees there attends to the words of the
post; one gate weighs the two, a second one filters what is not worth taking. A CRF tags the words.

Letters: h states of the words, v^ and h^ what attention brings of regions and words, alpha and beta its weights, g and
s the gates; B posts, w words, m visual nodes, r cells of a node, R = m r regions, F visual features, d width.
"""

import torch
from torch import nn

from .configuration_acoa import AcoaConfig
from .modeling_multimodal_ner import MultimodalNerForTokenClassification, MultimodalNerModel, Pieces, WordStates
from .recurrent_layers import AdditiveAttention


class AcoaModel(MultimodalNerModel):
    """Text encoder, image encoder, two attentions and two gates."""

    config: AcoaConfig

    def __init__(self, config: AcoaConfig):
        super().__init__(config)
        h, F, d = config.text_config.hidden_size, config.object_feature_size, config.d_model
        self.output_size = 2 * d
        self.region_key = nn.Linear(F, d)
        self.region_projection = nn.Linear(F, d)
        self.visual_attention = AdditiveAttention(h, d)
        self.word_projection = nn.Linear(h, d)
        self.textual_attention = AdditiveAttention(d, d)
        self.visual_state = nn.Linear(d, d)
        self.textual_state = nn.Linear(d, d)
        self.fusion_gate = nn.Linear(d, 1)
        self.fusion = nn.Linear(2 * d, d)
        self.filtration_gate = nn.Linear(h + d, 1)
        self.output = nn.Linear(h, d)
        self.post_init()

    def fuse(self, text: Pieces, pixel_values=None, object_features=None, object_mask=None) -> WordStates:
        """Attend to the picture and back to the words, then filter.

        Args:
            text: states of the pieces.
            pixel_values: [B, m, 3, H, W] pictures, whose cells are the regions; or
            object_features: [B, m, F] features of regions.
            object_mask: [B, m] real nodes; None = all. Without any, the filtration gate is closed.
        """
        h, word_mask = text.words()  # [B, w, h], [B, w]
        nodes = pixel_values, object_features, object_mask
        regions = self.encode_regions(text.states, *nodes)  # [B, R, F]

        alpha = self.visual_attention(h, self.region_key(regions.states), regions.mask)  # [B, w, R]
        v_hat = alpha @ self.region_projection(regions.states)  # [B, w, d]
        words = self.word_projection(h)  # [B, w, d]
        beta = self.textual_attention(v_hat, words, word_mask)  # [B, w, w]
        h_hat = beta @ words  # [B, w, d]

        v_hat, h_hat = torch.tanh(self.visual_state(v_hat)), torch.tanh(self.textual_state(h_hat))
        g = torch.sigmoid(self.fusion_gate(v_hat + h_hat))  # [B, w, 1]
        fused = self.fusion(torch.cat([g * v_hat, (1 - g) * h_hat], dim=-1))  # m: [B, w, d]
        s = torch.sigmoid(self.filtration_gate(torch.cat([h, fused], dim=-1)))  # [B, w, 1]
        s = s * regions.mask.any(1)[:, None, None]

        x = torch.cat([s * fused, self.output(h)], dim=-1)  # [B, w, 2 d]
        return WordStates(x, word_mask, {"objects": s * g * regions.by_node(alpha)})


class AcoaForTokenClassification(MultimodalNerForTokenClassification):
    """ACoA with emission layer and CRF."""

    model_class = AcoaModel
