"""R-GCN: Learning from Different text-image Pairs: a Relation-enhanced Graph Convolutional Network for Multimodal NER.

Zhao et al., ACM Multimedia 2022, in a sound form. Evidence comes from pictures of other posts: k whose captions match
the text (inter-modal relation) and k that show the same objects as the post's own picture (intra-modal relation). Each
relation is a star graph around the text or the own picture; a graph convolution brings its message to the hub, a gate
decides how much of it to take. Then text and picture attend to themselves, the text to the picture, and a CRF tags.

Letters: H_S text, V own picture, N neighbours' pictures, s their similarities; B posts, n pieces, w words, k
neighbours, r rows (cells) of a picture, F visual features, d width.
"""

from dataclasses import dataclass

import torch
from torch import nn
from transformers.utils import can_return_tuple

from .configuration_rgcn import RgcnConfig
from .modeling_multimodal_ner import (
    MultiHeadAttention,
    MultimodalNerForTokenClassification,
    MultimodalNerModelOutput,
    MultimodalNerOutput,
    MultimodalNerPreTrainedModel,
    textual_nodes,
)


@dataclass
class RgcnModelOutput(MultimodalNerModelOutput):
    """Word states before tagging, and on request what came from the neighbours.

    Args:
        inter_gates: [B, w, k] how much each word takes of each picture that matches the text (mean over the width).
        intra_gates: [B, r, k] how much each row of the own picture takes of each picture with the same objects.
    """

    inter_gates: torch.FloatTensor | None = None
    intra_gates: torch.FloatTensor | None = None


@dataclass
class RgcnOutput(MultimodalNerOutput):
    """Result of R-GCN; `inter_gates` and `intra_gates` are those of `RgcnModelOutput`."""

    inter_gates: torch.FloatTensor | None = None
    intra_gates: torch.FloatTensor | None = None


class StarGraphConvolution(nn.Module):
    """One graph convolution on a star: Z = ReLU(Â U W + b), Â = D^-1/2 Ã D^-1/2, Ã = [[1, s], [s^T, I]]."""

    def __init__(self, config: RgcnConfig):
        super().__init__()
        self.readout, self.gcn_norm = config.readout, config.gcn_norm
        self.weight = nn.Linear(config.hidden_size, config.hidden_size)  # W, b

    def forward(self, hub, spokes, scores, mask) -> tuple[torch.Tensor, torch.Tensor]:
        """Convolve row by row.

        Args:
            hub: u_0 [B, r, d].
            spokes: u_1 … u_k [B, k, r, d].
            scores: s [B, k], the weights of the edges.
            mask: [B, k] real edges; what the others hold has no influence.

        Returns:
            The message [B, r, d] (0 where there is no edge), and how much of it each spoke brings [B, k].
        """
        s = scores * mask  # [B, k]
        nodes = torch.cat([hub[:, None], spokes], dim=1)  # U: [B, 1 + k, r, d]
        A = torch.eye(nodes.shape[1], device=s.device, dtype=s.dtype).repeat(len(s), 1, 1)  # Ã: [B, 1 + k, 1 + k]
        A[:, 0, 1:] = A[:, 1:, 0] = s
        if self.gcn_norm == "sym":
            degree = A.sum(-1)  # D
            A = A / (degree[:, :, None] * degree[:, None, :]).sqrt()
        A = A.to(nodes.dtype)
        if self.readout == "hub":
            Z = torch.relu(self.weight(torch.einsum("bj,bjrd->brd", A[:, 0], nodes)))  # Z_0
        else:
            Z = torch.relu(self.weight(torch.einsum("bij,bjrd->bird", A, nodes)))  # [B, 1 + k, r, d]
            real = torch.cat([mask.new_ones(len(mask), 1), mask], dim=1).to(Z.dtype)  # [B, 1 + k]
            Z = torch.einsum("bi,bird->brd", real / real.sum(1, keepdim=True), Z)
        return Z * mask.any(1)[:, None, None], A[:, 0, 1:]


class Gate(nn.Module):
    """H + sigmoid(W_own H + W_message G + b) ⊙ G; without the gate, H + G."""

    def __init__(self, config: RgcnConfig):
        super().__init__()
        self.use_gate = config.use_gate
        if config.use_gate:
            self.own = nn.Linear(config.hidden_size, config.hidden_size)  # W_a or W_c, b
            self.message = nn.Linear(config.hidden_size, config.hidden_size, bias=False)  # W_b or W_d

    def forward(self, H: torch.Tensor, G: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """Add the message G [B, 1 or n, d] to H [B, n, d]; also returns how far the gate opens [B, n]."""
        gate = torch.sigmoid(self.own(H) + self.message(G)) if self.use_gate else torch.ones_like(H)
        return H + gate * G, gate.mean(-1)


class TransformerLayer(nn.Module):
    """Attention and feed-forward layer, each with dropout, residual sum and layer norm."""

    def __init__(self, config: RgcnConfig):
        super().__init__()
        d = config.hidden_size
        self.attention = MultiHeadAttention(d, config.num_heads, config.dropout)
        self.attention_norm = nn.LayerNorm(d)
        self.feed_forward = nn.Sequential(nn.Linear(d, d), nn.ReLU(), nn.Linear(d, d))
        self.feed_forward_norm = nn.LayerNorm(d)
        self.dropout = nn.Dropout(config.dropout)

    def forward(self, queries: torch.Tensor, keys: torch.Tensor, key_mask: torch.Tensor) -> torch.Tensor:
        """Let queries [B, q, d] attend to keys [B, m, d] where key_mask [B, m]; without keys nothing is added."""
        context = self.attention(queries, keys, key_mask) * key_mask.any(1)[:, None, None]
        C = self.attention_norm(queries + self.dropout(context))
        return self.feed_forward_norm(C + self.dropout(self.feed_forward(C)))


class RgcnPreTrainedModel(MultimodalNerPreTrainedModel):
    config: RgcnConfig
    base_model_prefix = "rgcn"
    _auto_classes = {"AutoModel": "RgcnModel", "AutoModelForTokenClassification": "RgcnForTokenClassification"}


class RgcnModel(RgcnPreTrainedModel):
    """Text encoder, frozen image encoder, two relations and the attention between text and picture.

    Without neighbours a relation changes nothing. Without an own picture the intra-modal relation has no hub and the
    text nothing to attend to: both add nothing to the text.
    """

    def __init__(self, config: RgcnConfig):
        super().__init__(config)
        d = config.hidden_size
        self.add_encoders()
        self.output_size = d
        self.projection = nn.Linear(config.object_feature_size, d)  # P: W_p, b_p
        other_kind = config.neighbor_feature_size is not None and (config.use_inter or config.use_intra)
        self.neighbor_projection = nn.Linear(config.neighbor_feature_size, d) if other_kind else None
        if config.use_inter:
            self.inter_convolution, self.inter_gate = StarGraphConvolution(config), Gate(config)
            if config.inter_granularity == "region":
                self.region_attention = MultiHeadAttention(d, 1, config.dropout, project_values=False)
        if config.use_intra:
            self.intra_convolution, self.intra_gate = StarGraphConvolution(config), Gate(config)
        self.dropout = nn.Dropout(config.dropout)
        self.text_layer, self.image_layer = TransformerLayer(config), TransformerLayer(config)
        self.cross_layer = TransformerLayer(config)
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
        inter_neighbor_features: torch.FloatTensor | None = None,
        inter_neighbor_scores: torch.FloatTensor | None = None,
        inter_neighbor_mask: torch.BoolTensor | None = None,
        intra_neighbor_features: torch.FloatTensor | None = None,
        intra_neighbor_scores: torch.FloatTensor | None = None,
        intra_neighbor_mask: torch.BoolTensor | None = None,
        output_gates: bool = False,
        **kwargs,
    ) -> RgcnModelOutput:
        """Read a post, its picture and its neighbours.

        Args:
            input_ids, attention_mask: [B, n] pieces.
            word_starts: [B, w] index of each word's first piece, -1 = padding; None = every piece is a word.
            pixel_values: [B, 1, 3, H, W] the posts' own pictures; or
            object_features: [B, r, F] their features.
            object_mask: [B, 1] (with pixels) or [B, r] (with features): which posts have a picture; None = all.
            inter_neighbor_features, intra_neighbor_features: [B, k, r, F] features of the neighbours, best first; r is
                that of the own picture, or one.
            inter_neighbor_scores, intra_neighbor_scores: [B, k] similarities; None = 1.
            inter_neighbor_mask, intra_neighbor_mask: [B, k] real neighbours; None = all. A score of 0 is no neighbour.
            output_gates: return `inter_gates` and `intra_gates`.
            kwargs: for the text encoder, e.g. output_attentions.
        """
        if attention_mask is None:
            attention_mask = torch.ones_like(input_ids)
        if token_type_ids is not None:
            kwargs["token_type_ids"] = token_type_ids
        text = self.encode_text(input_ids, attention_mask, **kwargs)
        H_S, text_mask = text.last_hidden_state, attention_mask.bool()  # [B, n, d], [B, n]
        V, picture_mask = self.own_picture(H_S, pixel_values, object_features, object_mask)  # [B, r, d], [B, r]
        if self.config.subword_labels == "x":
            word_starts = None
        inter_gates = intra_gates = None

        if self.config.use_inter:
            N, s, mask = self.neighbors(H_S, inter_neighbor_features, inter_neighbor_scores, inter_neighbor_mask, True)
            g, shares = self.inter_message(H_S, text_mask, N, s, mask)  # [B, 1 or n, d], [B, k]
            H_S, beta = self.inter_gate(H_S, g)  # [B, n, d], [B, n]
            inter_gates, _ = textual_nodes(beta[:, :, None] * shares[:, None], attention_mask, word_starts)
        if self.config.use_intra:
            N, s, mask = self.neighbors(H_S, intra_neighbor_features, intra_neighbor_scores, intra_neighbor_mask)
            V, picture_mask, N = same_rows(V, picture_mask, N)
            mask = mask & picture_mask.any(1, keepdim=True)  # no own picture: no hub
            G, shares = self.intra_convolution(V, N, s, mask)  # [B, r, d], [B, k]
            V, gamma = self.intra_gate(V, G)  # H_I: [B, r, d], [B, r]
            intra_gates = gamma[:, :, None] * shares[:, None]

        H_S = self.dropout(H_S)
        S = self.text_layer(H_S, H_S, text_mask)  # [B, n, d]
        I = self.image_layer(V, V, picture_mask)  # [B, r, d]  # noqa: E741
        x = self.cross_layer(S, I, picture_mask)  # [B, n, d]
        x, word_mask = textual_nodes(x, attention_mask, word_starts)  # [B, w, d], [B, w]
        return RgcnModelOutput(
            last_hidden_state=x,
            word_mask=word_mask,
            hidden_states=text.hidden_states,
            attentions=text.attentions,
            inter_gates=inter_gates if output_gates else None,
            intra_gates=intra_gates if output_gates else None,
        )

    def own_picture(self, H_S, pixel_values, object_features, object_mask) -> tuple[torch.Tensor, torch.Tensor]:
        """Return P(V) [B, r, d] of the posts' own pictures and which of them are there [B, r]."""
        if pixel_values is None and object_features is None:
            object_features = H_S.new_zeros(len(H_S), 1, self.config.object_feature_size)
            object_mask = torch.zeros(len(H_S), 1, dtype=torch.bool, device=H_S.device)
        if object_features is None:
            if pixel_values.shape[1] != 1:
                raise ValueError(f"R-GCN reads one picture a post, pixel_values has {pixel_values.shape[1]}.")
            if object_mask is None:
                object_mask = torch.ones(len(H_S), 1, dtype=torch.bool, device=H_S.device)
            object_features = self.encode_pictures(pixel_values, object_mask.bool())[:, 0]  # [B, r, F]
            object_mask = object_mask.expand(-1, object_features.shape[1])
        if object_mask is None:
            object_mask = torch.ones(object_features.shape[:2], dtype=torch.bool, device=H_S.device)
        return self.projection(object_features.to(self.projection.weight.dtype)), object_mask.bool()

    def neighbors(self, H_S, features, scores, mask, is_inter=False) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
        """Return P(N) [B, k, r, d], s [B, k] and the real ones [B, k] of at most k neighbours."""
        project = self.neighbor_projection or self.projection
        k = self.config.k if features is not None else 0
        if features is None:
            features = H_S.new_zeros(len(H_S), 0, 1, project.in_features)
        N = features[:, :k].to(project.weight.dtype)  # [B, k, r, F]
        if N.shape[-1] != project.in_features:
            raise ValueError(
                f"The neighbours' features have width {N.shape[-1]}, the model reads {project.in_features}: set "
                "neighbor_feature_size to the index's, or object_feature_size where the own picture has the same kind."
            )
        if is_inter and self.config.inter_granularity == "pooled":
            N = N.mean(2, keepdim=True)
        s = torch.ones(N.shape[:2], device=N.device) if scores is None else scores[:, :k].float()
        mask = s > 0 if mask is None else mask[:, :k].bool() & (s > 0)
        return project(N.masked_fill(~mask[:, :, None, None], 0)), s, mask

    def inter_message(self, H_S, text_mask, N, s, mask) -> tuple[torch.Tensor, torch.Tensor]:
        """What the pictures that match the text tell it, [B, 1 or n, d], and the share of each of them [B, k]."""
        if self.config.inter_granularity == "pooled":
            hub = (H_S * text_mask[..., None]).sum(1, keepdim=True) / text_mask.sum(1)[:, None, None]  # [B, 1, d]
            return self.inter_convolution(hub, N, s, mask)
        shares = s * mask / (s * mask).sum(1, keepdim=True).clamp(min=1e-6)  # [B, k]
        G = torch.relu(self.inter_convolution.weight(torch.einsum("bk,bkrd->brd", shares.to(N.dtype), N)))
        rows_mask = mask.any(1, keepdim=True).expand(-1, G.shape[1])  # [B, r]
        return self.region_attention(H_S, G, rows_mask), shares


def same_rows(V, picture_mask, N) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """Repeat the one row of the own picture [B, r, d] or of the neighbours [B, k, r, d] where the other has many."""
    if not N.shape[1]:  # nobody has neighbours: the own picture stays as it is
        N = N[:, :, :1]
    r, neighbor_r = V.shape[1], N.shape[2]
    if r != neighbor_r and 1 not in (r, neighbor_r):
        raise ValueError(
            f"The own picture has {r} rows of features, its neighbours have {neighbor_r}: build the relation index "
            "with the same image encoder and size, or with one row a picture."
        )
    rows = max(r, neighbor_r)
    return V.expand(-1, rows, -1), picture_mask.expand(-1, rows), N.expand(-1, -1, rows, -1)


class RgcnForTokenClassification(RgcnPreTrainedModel, MultimodalNerForTokenClassification):
    """R-GCN with emission layer and CRF."""

    def __init__(self, config: RgcnConfig):
        super().__init__(config)
        self.rgcn = RgcnModel(config)
        self.add_tagging_head(self.rgcn.output_size)
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
        inter_neighbor_features: torch.FloatTensor | None = None,
        inter_neighbor_scores: torch.FloatTensor | None = None,
        inter_neighbor_mask: torch.BoolTensor | None = None,
        intra_neighbor_features: torch.FloatTensor | None = None,
        intra_neighbor_scores: torch.FloatTensor | None = None,
        intra_neighbor_mask: torch.BoolTensor | None = None,
        labels: torch.LongTensor | None = None,
        return_predictions: bool | None = None,
        output_gates: bool = False,
        **kwargs,
    ) -> RgcnOutput:
        """Tag words; arguments as `RgcnModel.forward`, and:

        Args:
            labels: [B, w] gold label ids, -100 = padding; gives `loss`.
            return_predictions: run Viterbi; default: in evaluation mode.
        """
        outputs = self.rgcn(
            input_ids=input_ids,
            attention_mask=attention_mask,
            token_type_ids=token_type_ids,
            word_starts=word_starts,
            pixel_values=pixel_values,
            object_features=object_features,
            object_mask=object_mask,
            inter_neighbor_features=inter_neighbor_features,
            inter_neighbor_scores=inter_neighbor_scores,
            inter_neighbor_mask=inter_neighbor_mask,
            intra_neighbor_features=intra_neighbor_features,
            intra_neighbor_scores=intra_neighbor_scores,
            intra_neighbor_mask=intra_neighbor_mask,
            output_gates=output_gates,
            **kwargs,
        )
        tagged = self.tag(outputs, labels, word_starts, return_predictions)
        return RgcnOutput(**tagged, inter_gates=outputs.inter_gates, intra_gates=outputs.intra_gates)
