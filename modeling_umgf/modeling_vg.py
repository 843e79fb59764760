"""VG: Visual Attention Model for Name Tagging in Multimodal Social Media.

Lu et al., ACL 2018. The post as a whole looks for regions of the picture; what it finds is the state that a BiLSTM over
the words begins with, and, word by word, a gate decides how much to take of it. A CRF tags the words.

Letters: x words, q query, v regions, v_c what the post finds in the picture, h states, b gates, m modulation; B posts,
w words, m visual nodes, R regions of all of them, F visual features, d width, a = d / 2.
"""

import torch
from torch import nn

from .configuration_vg import VgConfig
from .modeling_multimodal_ner import MultimodalNerForTokenClassification, MultimodalNerModel, Pieces, WordStates
from .recurrent_layers import AdditiveAttention, BiLstm, Lstm


class VgModel(MultimodalNerModel):
    """Text encoder, image encoder, visual attention, the BiLSTM that begins with the picture, and the gates."""

    config: VgConfig

    def __init__(self, config: VgConfig):
        super().__init__(config)
        h, F, d, a = config.text_config.hidden_size, config.object_feature_size, config.d_model, config.d_model // 2
        self.output_size = d
        self.dropout = nn.Dropout(config.dropout)
        self.query_lstm = Lstm(h, a)
        self.region_projection = nn.Linear(F, a)
        self.region_key = nn.Linear(a, a, bias=False)  # W_v
        self.attention = AdditiveAttention(a, a)  # W_q, W_a
        self.tagging_lstm = BiLstm(h, d)
        self.visual_gate = nn.Linear(d + a, d)  # [W_v'; U_v], c_v
        self.word_gate = nn.Linear(d + a, d)  # [W_w; U_w], c_w
        self.modulation = nn.Linear(d + a, d)  # [W_m; U_m], c_m
        self.post_init()

    def fuse(self, text: Pieces, pixel_values=None, object_features=None, object_mask=None) -> WordStates:
        """Let the post look at its picture, then read the words with it.

        Args:
            text: states of the pieces.
            pixel_values: [B, m, 3, H, W] pictures, whose cells are the regions; or
            object_features: [B, m, F] features of regions.
            object_mask: [B, m] real nodes; None = all. Without any, v_c and b_v are 0.
        """
        x, word_mask = text.words()  # [B, w, h], [B, w]
        nodes = pixel_values, object_features, object_mask
        regions = self.encode_regions(text.states, *nodes)  # [B, R, F]
        v = self.region_projection(regions.states)  # [B, R, a]

        _, q = self.query_lstm(x, word_mask)  # [B, a]
        alpha = self.attention(q[:, None], self.region_key(v), regions.mask)  # [B, 1, R]
        v_c = alpha @ v  # [B, 1, a]

        h, _ = self.tagging_lstm(x, word_mask, v_c[:, 0])  # [B, w, d]
        h = self.dropout(h)
        hv = torch.cat([h, v_c.expand(-1, h.shape[1], -1).to(h.dtype)], dim=-1)  # [B, w, d + a]
        b_v = torch.sigmoid(self.visual_gate(hv)) * regions.mask.any(1)[:, None, None]
        b_w = torch.sigmoid(self.word_gate(hv))
        w = b_w * h + b_v * torch.tanh(self.modulation(hv))  # [B, w, d]

        gates = b_v.mean(-1, keepdim=True) * regions.by_node(alpha)  # [B, w, m]
        return WordStates(w, word_mask, {"objects": gates})


class VgForTokenClassification(MultimodalNerForTokenClassification):
    """VG with emission layer and CRF."""

    model_class = VgModel
