"""UMGF: Multi-modal Graph Fusion for Named Entity Recognition with Targeted Visual Guidance.

Zhang et al., AAAI 2021. Words x and visual objects o are the nodes of one graph. Each of L layers lets the nodes of a
modality attend to each other (eq. 1, 2), then exchanges information along the edges between words and objects through
element-wise gates (eq. 3-6), then applies a feed-forward layer (eq. 7, 8). A CRF tags the words (eq. 9-11).

Letters as in the paper: H, C, R are the states before attention, after it and after the gates; B tweets, n pieces,
w words, m objects, F visual features, d model width.
"""

import math

import torch
from torch import nn
from transformers.utils import can_return_tuple

from .configuration_umgf import UmgfConfig
from .modeling_multimodal_ner import (
    MultiHeadAttention,
    MultimodalNerForTokenClassification,
    MultimodalNerModelOutput,
    MultimodalNerOutput,
    MultimodalNerPreTrainedModel,
    textual_nodes,
)


class ModalityUpdate(nn.Module):
    """The three steps of one modality in one layer; each ends in dropout, residual sum and layer norm (Figure 2)."""

    def __init__(self, config: UmgfConfig, attends: bool = True, project_values: bool = True, receives: bool = True):
        super().__init__()
        d = config.d_model
        self.dropout = nn.Dropout(config.dropout)
        if attends:
            self.attention = MultiHeadAttention(d, config.num_heads, config.dropout, project_values)
            self.attention_norm = nn.LayerNorm(d)
            if config.intra_ffn:
                self.intra_feed_forward, self.intra_feed_forward_norm = feed_forward(d, config.d_ff), nn.LayerNorm(d)
        if receives:
            self.gate_own = nn.Linear(d, d)  # W1 for words, W3 for objects, with the gate's bias
            self.gate_other = nn.Linear(d, d, bias=False)  # W2 for words, W4 for objects
            self.gate_norm = nn.LayerNorm(d)
            self.feed_forward, self.feed_forward_norm = feed_forward(d, config.d_ff), nn.LayerNorm(d)

    def attend(self, H: torch.Tensor, mask: torch.Tensor) -> torch.Tensor:
        """Eq. 1, 2: states H [B, own, d] of one modality attend to each other."""
        if not hasattr(self, "attention"):  # w/o VCorr.
            return H
        C = self.attention_norm(H + self.dropout(self.attention(H, H, mask)))
        if hasattr(self, "intra_feed_forward"):
            C = self.intra_feed_forward_norm(C + self.dropout(self.intra_feed_forward(C)))
        return C

    def receive(self, C: torch.Tensor, C_other: torch.Tensor, edges: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """Eq. 3-8: gather from C_other [B, other, d] along edges [B, own, other], then the feed-forward layer."""
        gates = torch.sigmoid(self.gate_own(C)[:, :, None] + self.gate_other(C_other)[:, None])  # [B, own, other, d]
        gates = gates * edges[..., None]
        gathered = (gates * C_other[:, None]).sum(2)  # [B, own, d]
        R = self.gate_norm(C + self.dropout(gathered))
        H = self.feed_forward_norm(R + self.dropout(self.feed_forward(R)))
        return H, gates.mean(-1)  # [B, own, d], [B, own, other]


def feed_forward(d: int, d_ff: int) -> nn.Sequential:
    """Eq. 7, 8."""
    return nn.Sequential(nn.Linear(d, d_ff), nn.ReLU(), nn.Linear(d_ff, d))


class UmgfLayer(nn.Module):
    """One fusion layer. In the last one the objects need not receive: nothing reads them any more."""

    def __init__(self, config: UmgfConfig, is_last: bool):
        super().__init__()
        self.is_last = is_last
        self.text = ModalityUpdate(config)
        if not config.share_modal_params:
            project_values = config.visual_attention == "full"
            self.object = ModalityUpdate(config, config.visual_self_attention, project_values, receives=not is_last)

    def forward(self, H_x, H_o, word_mask, object_mask, edges):
        """Update words H_x [B, w, d] and objects H_o [B, m, d], linked by edges [B, w, m]; also returns the gates."""
        text, objects = self.text, getattr(self, "object", self.text)  # w/o Ind.: one set of parameters
        C_x, C_o = text.attend(H_x, word_mask), objects.attend(H_o, object_mask)
        H_x, gates = text.receive(C_x, C_o, edges)  # a_ij, eq. 3, 4, 7
        if not self.is_last:
            H_o, _ = objects.receive(C_o, C_x, edges.transpose(1, 2))  # b_ji, eq. 5, 6, 8
        return H_x, H_o, gates


class UmgfPreTrainedModel(MultimodalNerPreTrainedModel):
    config: UmgfConfig
    base_model_prefix = "umgf"
    _auto_classes = {"AutoModel": "UmgfModel", "AutoModelForTokenClassification": "UmgfForTokenClassification"}


class UmgfModel(UmgfPreTrainedModel):
    """Text encoder, image encoder and L fusion layers. Without objects, or without edges, words only see words."""

    def __init__(self, config: UmgfConfig):
        super().__init__(config)
        h, F, d = config.text_config.hidden_size, config.object_feature_size, config.d_model
        self.add_encoders()
        self.output_size = h
        if config.num_layers > 0:
            self.output_size = d + (h if config.concat_bert else 0)
            activation = [nn.ReLU(), nn.Dropout(config.dropout)]
            self.text_mlp = nn.Sequential(nn.Linear(h, d), *(activation if config.text_mlp == "relu" else []))
            self.visual_projection = nn.Linear(F, F) if config.visual_projection else nn.Identity()
            self.object_mlp = nn.Sequential(
                *[nn.Linear(F, d), nn.ReLU(), nn.Dropout(config.dropout)],
                *[nn.Linear(d, d), nn.ReLU(), nn.Dropout(config.dropout)],
            )
        self.layers = nn.ModuleList(UmgfLayer(config, i == config.num_layers - 1) for i in range(config.num_layers))
        self.post_init()

    @can_return_tuple
    def forward(
        self,
        input_ids: torch.LongTensor | None = None,
        attention_mask: torch.Tensor | None = None,
        token_type_ids: torch.LongTensor | None = None,
        word_starts: torch.LongTensor | None = None,
        pixel_values: torch.FloatTensor | None = None,
        object_features: torch.FloatTensor | None = None,
        object_mask: torch.BoolTensor | None = None,
        inter_modal_mask: torch.BoolTensor | None = None,
        output_gates: bool = False,
        **kwargs,
    ) -> MultimodalNerModelOutput:
        """Fuse words and objects.

        Args:
            input_ids, attention_mask: [B, n] pieces.
            word_starts: [B, w] index of each word's first piece, -1 = padding; None = every piece is a node.
            pixel_values: [B, m, 3, H, W] crops of the objects (`visual_nodes="grid"`: the picture, [B, 1, 3, H, W]).
            object_features: [B, m, F] instead of crops.
            object_mask: [B, m] real objects; None = all.
            inter_modal_mask: [B, w, m] which word is linked to which object; None = all to all.
            output_gates: return the gates.
            kwargs: for the text encoder, e.g. output_attentions.
        """
        if attention_mask is None:
            attention_mask = torch.ones_like(input_ids)
        if token_type_ids is not None:
            kwargs["token_type_ids"] = token_type_ids
        text = self.encode_text(input_ids, attention_mask, **kwargs)
        bert_x = text.last_hidden_state  # [B, n, h]
        if self.config.subword_labels == "x":
            word_starts = None
        x, word_mask = textual_nodes(bert_x, attention_mask, word_starts)  # [B, w, h], [B, w]

        gates = ()
        if self.layers:
            H_x = bert_x
            if self.config.position_encoding == "sinusoidal":
                H_x = H_x + sinusoidal_positions(*H_x.shape[1:], H_x.device).to(H_x.dtype)
            H_x = self.text_mlp(textual_nodes(H_x, attention_mask, word_starts)[0])  # [B, w, d]
            o, object_mask, edges = self.visual_nodes(
                x, word_mask, pixel_values, object_features, object_mask, inter_modal_mask
            )
            H_o = self.object_mlp(self.visual_projection(o.to(H_x.dtype)))  # [B, m, d]
            for layer in self.layers:
                H_x, H_o, gate = layer(H_x, H_o, word_mask, object_mask, edges)
                gates += (gate,)
            x = torch.cat([x, H_x], dim=-1) if self.config.concat_bert else H_x
        return MultimodalNerModelOutput(
            last_hidden_state=x,
            word_mask=word_mask,
            hidden_states=text.hidden_states,
            attentions=text.attentions,
            gates=gates if output_gates else None,
        )

    def visual_nodes(self, x, word_mask, pixel_values, object_features, object_mask, edges):
        """Return node features [B, m, F], their mask [B, m] and edges [B, w, m]; m = 0 where there are no pictures."""
        if object_features is None and pixel_values is None:
            object_mask = edges = None
            if self.training and self.vision_model is not None:  # no picture in this batch: gradients of 0, not none
                pixel_values = x.new_zeros(len(x), 0, 3, 224, 224)
            else:
                object_features = x.new_zeros(len(x), 0, self.config.object_feature_size)
        nodes = object_features if object_features is not None else pixel_values
        if object_mask is None:
            object_mask = torch.ones(nodes.shape[:2], dtype=torch.bool, device=nodes.device)
        object_mask = object_mask.bool()
        if edges is None or self.config.inter_edges == "full":
            edges = torch.ones(*word_mask.shape, object_mask.shape[1], dtype=torch.bool, device=x.device)
        if object_features is None:
            cells = self.encode_pictures(pixel_values, object_mask)  # [B, m, r, F]
            if self.config.visual_nodes == "grid":  # w/o Tar.: every cell is a node
                object_features, r = cells.flatten(1, 2), cells.shape[2]
                object_mask, edges = object_mask.repeat_interleave(r, 1), edges.repeat_interleave(r, 2)
            else:
                object_features = cells.mean(2)  # average pooling
        return object_features, object_mask, edges.bool() & word_mask[:, :, None] & object_mask[:, None, :]


def sinusoidal_positions(length: int, width: int, device: torch.device) -> torch.Tensor:
    """Return the position encoding [length, width] of Vaswani et al. (2017)."""
    position = torch.arange(length, device=device)[:, None]
    frequency = torch.exp(torch.arange(0, width, 2, device=device) * (-math.log(10000) / width))
    angles = position * frequency  # [length, width / 2]
    return torch.stack([angles.sin(), angles.cos()], dim=-1).flatten(1)[:, :width]


class UmgfForTokenClassification(UmgfPreTrainedModel, MultimodalNerForTokenClassification):
    """UMGF with emission layer and CRF."""

    def __init__(self, config: UmgfConfig):
        super().__init__(config)
        self.umgf = UmgfModel(config)
        self.add_tagging_head(self.umgf.output_size)
        self.post_init()

    @can_return_tuple
    def forward(
        self,
        input_ids: torch.LongTensor | None = None,
        attention_mask: torch.Tensor | None = None,
        token_type_ids: torch.LongTensor | None = None,
        word_starts: torch.LongTensor | None = None,
        pixel_values: torch.FloatTensor | None = None,
        object_features: torch.FloatTensor | None = None,
        object_mask: torch.BoolTensor | None = None,
        inter_modal_mask: torch.BoolTensor | None = None,
        labels: torch.LongTensor | None = None,
        return_predictions: bool | None = None,
        output_gates: bool = False,
        **kwargs,
    ) -> MultimodalNerOutput:
        """Tag words; arguments as `UmgfModel.forward`, and:

        Args:
            labels: [B, w] gold label ids, -100 = padding; gives `loss`.
            return_predictions: run Viterbi; default: in evaluation mode.
        """
        outputs = self.umgf(
            input_ids=input_ids,
            attention_mask=attention_mask,
            token_type_ids=token_type_ids,
            word_starts=word_starts,
            pixel_values=pixel_values,
            object_features=object_features,
            object_mask=object_mask,
            inter_modal_mask=inter_modal_mask,
            output_gates=output_gates,
            **kwargs,
        )
        return self.tag(outputs, labels, word_starts, return_predictions)
