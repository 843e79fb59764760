"""UMGF: Multi-modal Graph Fusion for Named Entity Recognition with Targeted Visual Guidance.

Zhang et al., AAAI 2021. Words x and visual objects o are the nodes of one graph. Each of L layers lets the nodes of a
modality attend to each other (eq. 1, 2), then exchanges information along the edges between words and objects through
element-wise gates (eq. 3-6), then applies a feed-forward layer (eq. 7, 8). A CRF tags the words (eq. 9-11).

Letters as in the paper: H, C, R are the states before attention, after it and after the gates; B posts, n pieces,
w words, m objects, r cells of a picture, F visual features, h width of the text encoder, d model width.
"""

import torch
from torch import nn

from .configuration_umgf import UmgfConfig
from .layers import Gate, MultiHeadAttention, feed_forward, sinusoidal_positions
from .modeling_multimodal_ner import MultimodalNerForTokenClassification, MultimodalNerModel, Pieces, WordStates


class ModalityUpdate(nn.Module):
    """The three steps of one modality in one layer; each ends in dropout, residual sum and layer norm (Figure 2)."""

    def __init__(self, config: UmgfConfig, attends: bool = True, project_values: bool = True, receives: bool = True):
        super().__init__()
        d = config.d_model
        self.attends = attends
        self.intra_ffn = attends and config.intra_ffn
        self.dropout = nn.Dropout(config.dropout)
        if attends:
            self.attention = MultiHeadAttention(d, config.num_heads, config.dropout, project_values)
            self.attention_norm = nn.LayerNorm(d)
        if self.intra_ffn:
            self.intra_feed_forward = feed_forward(d, config.d_ff)
            self.intra_feed_forward_norm = nn.LayerNorm(d)
        if receives:
            self.gate = Gate(d)  # W1, W2 for words, W3, W4 for objects
            self.gate_norm = nn.LayerNorm(d)
            self.feed_forward = feed_forward(d, config.d_ff)
            self.feed_forward_norm = nn.LayerNorm(d)

    def attend(self, H: torch.Tensor, mask: torch.Tensor) -> torch.Tensor:
        """Eq. 1, 2: states H [B, own, d] of one modality attend to each other."""
        if not self.attends:  # w/o VCorr.
            return H
        C = self.attention_norm(H + self.dropout(self.attention(H, H, mask)))
        if self.intra_ffn:
            C = self.intra_feed_forward_norm(C + self.dropout(self.intra_feed_forward(C)))
        return C

    def receive(self, C: torch.Tensor, C_other: torch.Tensor, edges: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """Eq. 3-8: gather from C_other [B, other, d] along edges [B, own, other], then the feed-forward layer."""
        gates = self.gate.pairs(C, C_other, edges)  # [B, own, other, d]
        gathered = (gates * C_other[:, None]).sum(2)  # [B, own, d]
        R = self.gate_norm(C + self.dropout(gathered))
        H = self.feed_forward_norm(R + self.dropout(self.feed_forward(R)))
        return H, gates  # [B, own, d], [B, own, other, d]


class UmgfLayer(nn.Module):
    """One fusion layer. In the last one the objects need not receive: nothing reads them any more."""

    def __init__(self, config: UmgfConfig, is_last: bool):
        super().__init__()
        self.is_last = is_last
        self.share_modal_params = config.share_modal_params
        self.text = ModalityUpdate(config)
        if not config.share_modal_params:
            project_values = config.visual_attention == "full"
            self.object = ModalityUpdate(config, config.visual_self_attention, project_values, receives=not is_last)

    def forward(self, H_x, H_o, word_mask, object_mask, edges):
        """Update words H_x [B, w, d] and objects H_o [B, m, d], linked by edges [B, w, m]; also returns the gates."""
        text = self.text
        objects = self.text if self.share_modal_params else self.object  # w/o Ind.: one set of parameters
        C_x = text.attend(H_x, word_mask)
        C_o = objects.attend(H_o, object_mask)
        H_x, a = text.receive(C_x, C_o, edges)  # a_ij, eq. 3, 4, 7
        if not self.is_last:
            H_o, _ = objects.receive(C_o, C_x, edges.transpose(1, 2))  # b_ji, eq. 5, 6, 8
        return H_x, H_o, a.mean(-1)  # [B, w, d], [B, m, d], [B, w, m]


class UmgfModel(MultimodalNerModel):
    """Text encoder, image encoder and L fusion layers. Without objects, or without edges, words only see words."""

    config: UmgfConfig

    def __init__(self, config: UmgfConfig):
        super().__init__(config)
        h, F, d = config.text_config.hidden_size, config.object_feature_size, config.d_model
        self.output_size = d + (h if config.concat_bert else 0)
        self.averages_cells = config.visual_nodes != "grid"
        self.text_mlp = nn.Sequential(nn.Linear(h, d))
        if config.text_mlp == "relu":
            self.text_mlp.extend([nn.ReLU(), nn.Dropout(config.dropout)])
        self.visual_projection = nn.Linear(F, F) if config.visual_projection else nn.Identity()
        self.object_mlp = nn.Sequential(
            nn.Linear(F, d),
            nn.ReLU(),
            nn.Dropout(config.dropout),
            nn.Linear(d, d),
            nn.ReLU(),
            nn.Dropout(config.dropout),
        )
        self.layers = nn.ModuleList(UmgfLayer(config, i == config.num_layers - 1) for i in range(config.num_layers))
        self.post_init()
        if config.zero_init:
            with torch.no_grad():
                self.layers[-1].text.feed_forward_norm.weight.zero_()

    def fuse(
        self, text: Pieces, pixel_values=None, object_features=None, object_mask=None, inter_modal_mask=None
    ) -> WordStates:
        """Fuse words and objects.

        Args:
            text: states [B, n, h] of the pieces.
            pixel_values: [B, m, 3, H, W] crops of the objects (`visual_nodes="grid"`: the picture, [B, 1, 3, H, W]).
            object_features: [B, m, F] instead of crops.
            object_mask: [B, m] real objects; None = all.
            inter_modal_mask: [B, w, m] which word is linked to which object; None = all to all.
        """
        x, word_mask = text.words()  # [B, w, h], [B, w]
        H = text.states  # [B, n, h]
        if self.config.position_encoding == "sinusoidal":
            H = H + sinusoidal_positions(text.mask, H.shape[-1]).to(H.dtype)
        H_x = self.text_mlp(text.words(H)[0])  # [B, w, d]

        cells, object_mask = self.encode_objects(H, pixel_values, object_features, object_mask)  # [B, m, r, F], [B, m]
        edges = inter_modal_mask
        if edges is None or not object_mask.shape[1] or self.config.inter_edges == "full":
            edges = torch.ones(*word_mask.shape, object_mask.shape[1], dtype=torch.bool, device=H.device)
        o, m, r = cells.mean(2), *cells.shape[1:3]  # average pooling: [B, m, F]
        if self.config.visual_nodes == "grid":  # w/o Tar.: every cell is a node
            o = cells.flatten(1, 2)
            object_mask = object_mask.repeat_interleave(r, 1)
            edges = edges.repeat_interleave(r, 2)
        edges = edges.bool() & word_mask[:, :, None] & object_mask[:, None, :]

        H_o = self.object_mlp(self.visual_projection(o))  # [B, m, d]
        if self.config.context_nodes and text.context is not None:
            H_o = torch.cat([H_o, self.text_mlp(H)], 1)
            real = text.context & text.mask
            object_mask = torch.cat([object_mask, real], 1)
            edges = torch.cat([edges, word_mask[:, :, None] & real[:, None]], 2)
        if self.training and self.config.node_dropout:
            object_mask = object_mask & (torch.rand(object_mask.shape) >= self.config.node_dropout)
            edges = edges & object_mask[:, None]
        gates = []
        for layer in self.layers:
            H_x, H_o, gate = layer(H_x, H_o, word_mask, object_mask, edges)
            gates.append(gate)
        x = torch.cat([x, H_x], dim=-1) if self.config.concat_bert else H_x
        gates = torch.stack(gates).mean(0)  # [B, w, m], or with a grid [B, w, m * r]
        if self.config.visual_nodes == "grid":
            gates = gates.unflatten(-1, (m, r)).mean(-1) if m else gates
        return WordStates(x, word_mask, {"objects": gates})


class UmgfForTokenClassification(MultimodalNerForTokenClassification):
    """UMGF with emission layer and CRF (eq. 9-11)."""

    model_class = UmgfModel
