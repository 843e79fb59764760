"""R-GCN: Learning from Different text-image Pairs: a Relation-enhanced Graph Convolutional Network for Multimodal NER.

Zhao et al., ACM Multimedia 2022, in a sound form. Evidence comes from pictures of other posts: k whose captions match
the text (inter-modal relation) and k that show the same objects as the post's own picture (intra-modal relation). Each
relation is a star graph around the text or the own picture; a graph convolution brings its message to the hub, a gate
decides how much of it to take. Then text and picture attend to themselves, the text to the picture, and a CRF tags.

Letters: H_S text, V own picture, N neighbours' pictures, s their similarities; B posts, n pieces, w words, k
neighbours, r rows (cells) of a picture, F visual features, d width.
"""

import torch
from torch import nn

from .configuration_rgcn import RgcnConfig
from .layers import Gate, MultiHeadAttention, TransformerLayer
from .modeling_multimodal_ner import MultimodalNerForTokenClassification, MultimodalNerModel, Pieces, WordStates


class StarGraphConvolution(nn.Module):
    """One graph convolution on a star: Z = ReLU(Â U W + b), Â = D^-1/2 Ã D^-1/2, Ã = [[1, s], [s^T, I]]."""

    def __init__(self, config: RgcnConfig):
        super().__init__()
        self.readout = config.readout
        self.gcn_norm = config.gcn_norm
        self.weight = nn.Linear(config.hidden_size, config.hidden_size)  # W, b

    def forward(self, hub, spokes, scores, mask, project=None) -> tuple[torch.Tensor, torch.Tensor]:
        """Convolve row by row.

        Args:
            hub: u_0 [B, r, d].
            spokes: u_1 … u_k [B, k, r, d]; or, with a projection, [B, k, r, F] what it makes them of.
            scores: s [B, k], the weights of the edges.
            mask: [B, k] real edges; what the others hold has no influence.
            project: P, a linear layer from F to d, or None.

        Returns:
            The message [B, r, d] (0 where there is no edge), and how much of it each spoke brings [B, k].
        """
        s = scores.masked_fill(~mask, 0)  # [B, k]
        project = project or nn.Identity()
        A = torch.eye(1 + s.shape[1], device=s.device, dtype=s.dtype).repeat(len(s), 1, 1)  # Ã: [B, 1 + k, 1 + k]
        A[:, 0, 1:] = A[:, 1:, 0] = s
        if self.gcn_norm == "sym":
            degree = A.sum(-1)  # D
            A = A / (degree[:, :, None] * degree[:, None, :]).sqrt()
        A = A.to(hub.dtype)
        if self.readout == "hub":
            Z = torch.relu(self.weight(A[:, 0, :1, None] * hub + weighted_sum(A[:, 0, 1:], spokes, project)))  # Z_0
        else:
            nodes = torch.cat([hub[:, None], project(spokes)], dim=1)  # U: [B, 1 + k, r, d]
            Z = torch.relu(self.weight(torch.einsum("bij,bjrd->bird", A, nodes)))  # [B, 1 + k, r, d]
            real = torch.cat([mask.new_ones(len(mask), 1), mask], dim=1).to(Z.dtype)  # [B, 1 + k]
            Z = torch.einsum("bi,bird->brd", real / real.sum(1, keepdim=True), Z)
        return Z * mask.any(1)[:, None, None], A[:, 0, 1:]


class RgcnModel(MultimodalNerModel):
    """Text encoder, frozen image encoder, two relations and the attention between text and picture.

    Without neighbours a relation changes nothing. Without an own picture the intra-modal relation has no hub and the
    text nothing to attend to: both add nothing to the text.
    """

    config: RgcnConfig

    def __init__(self, config: RgcnConfig):
        super().__init__(config)
        d = config.hidden_size
        self.output_size = d
        self.projection = nn.Linear(config.object_feature_size, d)  # P: W_p, b_p
        other_kind = config.neighbor_feature_size is not None and (config.use_inter or config.use_intra)
        self.neighbor_projection = nn.Linear(config.neighbor_feature_size, d) if other_kind else None
        if config.use_inter:
            self.inter_convolution = StarGraphConvolution(config)
            self.inter_gate = Gate(d) if config.use_gate else None  # W_a, W_b
            if config.inter_granularity == "region":
                self.region_attention = MultiHeadAttention(d, 1, config.dropout, project_values=False)
        if config.use_intra:
            self.intra_convolution = StarGraphConvolution(config)
            self.intra_gate = Gate(d) if config.use_gate else None  # W_c, W_d
        self.dropout = nn.Dropout(config.dropout)
        self.text_layer = TransformerLayer(d, config.num_heads, d, config.dropout)
        self.image_layer = TransformerLayer(d, config.num_heads, d, config.dropout)
        self.cross_layer = TransformerLayer(d, config.num_heads, d, config.dropout)
        self.post_init()
        if config.zero_init:
            with torch.no_grad():
                for layer in (self.text_layer, self.cross_layer):
                    layer.attention.output.weight.zero_()
                    layer.feed_forward[2].weight.zero_()

    def fuse(
        self,
        text: Pieces,
        pixel_values=None,
        object_features=None,
        object_mask=None,
        inter_neighbor_features=None,
        inter_neighbor_scores=None,
        inter_neighbor_mask=None,
        intra_neighbor_features=None,
        intra_neighbor_scores=None,
        intra_neighbor_mask=None,
    ) -> WordStates:
        """Read a post, its picture and its neighbours.

        Args:
            text: states H_S [B, n, d] of the pieces.
            pixel_values: [B, 1, 3, H, W] the posts' own pictures; or
            object_features: [B, r, F] their features.
            object_mask: [B, 1] (with pixels) or [B, r] (with features): which posts have a picture; None = all.
            inter_neighbor_features, intra_neighbor_features: [B, k, r, F] features of the neighbours, best first; r is
                that of the own picture, or one.
            inter_neighbor_scores, intra_neighbor_scores: [B, k] similarities; None = 1.
            inter_neighbor_mask, intra_neighbor_mask: [B, k] real neighbours; None = all. A score of 0 is no neighbour.

        Returns:
            Word states, and gates for the kinds "inter", how much each word takes of each picture that matches the
            text, and "intra", how much the own picture takes of each picture with the same objects.
        """
        H_S = text.states
        gates = {}
        V, picture_mask = self.own_picture(H_S, pixel_values, object_features, object_mask)  # [B, r, d], [B, r]

        if self.config.use_inter:
            pooled = self.config.inter_granularity == "pooled"
            N, s, mask = self.neighbors(
                H_S, inter_neighbor_features, inter_neighbor_scores, inter_neighbor_mask, pooled
            )
            g, shares = self.inter_message(H_S, text.own(), N, s, mask)  # [B, 1 or n, d], [B, k]
            H_S, beta = add_message(H_S, g, self.inter_gate)  # [B, n, d], [B, n]
            gates["inter"], _ = text.words(beta[:, :, None] * shares[:, None])
        if self.config.use_intra:
            N, s, mask = self.neighbors(H_S, intra_neighbor_features, intra_neighbor_scores, intra_neighbor_mask)
            V, picture_mask, N = same_rows(V, picture_mask, N)
            mask = mask & picture_mask.any(1, keepdim=True)  # no own picture: no hub
            G, shares = self.intra_convolution(V, N, s, mask, self.project_neighbor)  # [B, r, d], [B, k]
            V, gamma = add_message(V, G, self.intra_gate)  # H_I: [B, r, d], [B, r]
            gates["intra"] = gamma.mean(1)[:, None, None] * shares[:, None]  # [B, 1, k]

        H_S = self.dropout(H_S)
        H_x, word_mask = text.words(H_S)  # [B, w, d], [B, w]: nobody reads what the other pieces find
        S = self.text_layer(H_x, H_S, text.mask)  # [B, w, d]
        I = self.image_layer(V, V, picture_mask)  # [B, r, d]  # noqa: E741
        x = self.cross_layer(S, I, picture_mask)  # [B, w, d]
        gates = {kind: gate.expand(-1, word_mask.shape[1], -1) for kind, gate in gates.items()}
        return WordStates(x, word_mask, gates)

    def own_picture(self, H_S, pixel_values, object_features, object_mask) -> tuple[torch.Tensor, torch.Tensor]:
        """Return P(V) [B, r, d] of the posts' own pictures and which of them are there [B, r]."""
        if pixel_values is not None and pixel_values.shape[1] != 1:
            raise ValueError(f"R-GCN reads one picture a post, pixel_values has {pixel_values.shape[1]}.")
        rows = self.encode_regions(H_S, pixel_values, object_features, object_mask).at_least_one()  # [B, r, F]
        return self.projection(rows.states), rows.mask

    @property
    def project_neighbor(self) -> nn.Linear:
        """P for the pictures of neighbours."""
        return self.neighbor_projection or self.projection

    def neighbors(self, H_S, features, scores, mask, pooled=False) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
        """Return N [B, k, r, F] (pooled: r = 1), s [B, k] and the real ones [B, k] of at most k neighbours."""
        project = self.project_neighbor
        if features is None:
            features = H_S.new_zeros(len(H_S), 0, 1, project.in_features)
            scores = mask = None
        k = self.config.k
        N = features[:, :k].to(H_S.dtype)  # [B, k, r, F]
        if N.shape[-1] != project.in_features:
            raise ValueError(
                f"The neighbours' features have width {N.shape[-1]}, the model reads {project.in_features}: set "
                "neighbor_feature_size to the index's, or object_feature_size where the own picture has the same kind."
            )
        if pooled:
            N = N.mean(2, keepdim=True)
        s = torch.ones(N.shape[:2], device=N.device) if scores is None else scores[:, :k].float()
        mask = s > 0 if mask is None else mask[:, :k].bool() & (s > 0)
        return N.masked_fill(~mask[:, :, None, None], 0), s.masked_fill(~mask, 0), mask

    def inter_message(self, H_S, text_mask, N, s, mask) -> tuple[torch.Tensor, torch.Tensor]:
        """What the pictures that match the text tell it, [B, 1 or n, d], and the share of each of them [B, k]."""
        if self.config.inter_granularity == "pooled":
            hub = (H_S * text_mask[..., None]).sum(1, keepdim=True) / text_mask.sum(1)[:, None, None]  # [B, 1, d]
            return self.inter_convolution(hub, N, s, mask, self.project_neighbor)
        shares = s / s.sum(1, keepdim=True).clamp(min=1e-6)  # [B, k]
        G = weighted_sum(shares.to(N.dtype), N, self.project_neighbor)  # [B, r, d]
        G = torch.relu(self.inter_convolution.weight(G))
        rows_mask = mask.any(1, keepdim=True).expand(-1, G.shape[1])  # [B, r]
        return self.region_attention(H_S, G, rows_mask), shares


def weighted_sum(weights: torch.Tensor, N: torch.Tensor, project: nn.Module) -> torch.Tensor:
    """Σ_j a_j P(N_j) [B, r, d] of weights a [B, k] and N [B, k, r, F]; P is linear: it is applied once, to the mean."""
    total = weights.sum(1, keepdim=True)  # [B, 1]
    mean = torch.einsum("bk,bkrf->brf", weights / total.clamp(min=1e-6), N)  # [B, r, F]
    return total[:, :, None] * project(mean)


def add_message(H: torch.Tensor, G: torch.Tensor, gate: Gate | None) -> tuple[torch.Tensor, torch.Tensor]:
    """Add the message G [B, 1 or n, d] to H [B, n, d] through a gate; also returns how far that opens, [B, n]."""
    opening = torch.ones_like(H) if gate is None else gate(H, G)
    return H + opening * G, opening.mean(-1)


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


class RgcnForTokenClassification(MultimodalNerForTokenClassification):
    """R-GCN with emission layer and CRF."""

    model_class = RgcnModel
