"""Layers that several systems are made of."""

import math

import torch
from torch import nn
from torch.nn.functional import scaled_dot_product_attention

from .letter_case import MIXED


class MultiHeadAttention(nn.Module):
    """Scaled dot-product attention in which a query without any valid key gets zeros, not NaN.

    Args:
        width: d.
        num_heads: heads, a divisor of the width.
        dropout: dropout of the attention weights.
        project_values: False = neither values nor output are projected.
    """

    def __init__(self, width: int, num_heads: int, dropout: float, project_values: bool = True):
        super().__init__()
        self.num_heads = num_heads
        self.dropout = dropout
        self.query = nn.Linear(width, width)
        self.key = nn.Linear(width, width)
        self.value = nn.Linear(width, width) if project_values else nn.Identity()
        self.output = nn.Linear(width, width) if project_values else nn.Identity()

    def forward(self, queries: torch.Tensor, keys: torch.Tensor, key_mask: torch.Tensor) -> torch.Tensor:
        """Attend from queries [B, q, d] to keys [B, k, d] where key_mask [B, k] is true; returns [B, q, d]."""
        has_key = key_mask.any(1)[:, None, None]  # [B, 1, 1]
        mask = (key_mask[:, None] | ~has_key)[:, None]  # [B, 1, 1, k], nowhere a row of nothing but false
        context = scaled_dot_product_attention(
            self.heads(self.query(queries)),  # [B, heads, q, d / heads]
            self.heads(self.key(keys)),  # [B, heads, k, d / heads]
            self.heads(self.value(keys)),
            attn_mask=mask.expand(-1, -1, queries.shape[1], -1),
            dropout_p=self.dropout if self.training else 0.0,
        )
        context = context.transpose(1, 2).flatten(2)  # [B, q, d]
        return self.output(context.masked_fill(~has_key, 0))

    def shares(self, queries: torch.Tensor, keys: torch.Tensor, key_mask: torch.Tensor) -> torch.Tensor:
        """How much each query takes of each key [B, q, k], the mean over the heads, which `forward` does not tell."""
        Q, K = self.heads(self.query(queries)), self.heads(self.key(keys))  # [B, heads, q or k, d / heads]
        scores = (Q @ K.transpose(2, 3)).float() / math.sqrt(Q.shape[-1])  # [B, heads, q, k]
        return masked_softmax(scores, key_mask[:, None, None]).mean(1)

    def heads(self, states: torch.Tensor) -> torch.Tensor:
        """Split [B, n, d] into [B, heads, n, d / heads]."""
        return states.unflatten(-1, (self.num_heads, -1)).transpose(1, 2)


class LetterCaseEmbedding(nn.Embedding):
    """A vector for each letter case that `letter_cases` tells; all are 0 at the start."""

    def __init__(self, width: int):
        super().__init__(MIXED + 1, width)


def feed_forward(width: int, inner: int) -> nn.Sequential:
    """Two linear layers with a ReLU between: width → inner → width."""
    return nn.Sequential(nn.Linear(width, inner), nn.ReLU(), nn.Linear(inner, width))


class TransformerLayer(nn.Module):
    """Attention and feed-forward layer, each with dropout, residual sum and layer norm.

    Args:
        width: d.
        num_heads: attention heads.
        inner: width inside the feed-forward layer.
        dropout: of the attention weights and of what is added to the residual.
    """

    def __init__(self, width: int, num_heads: int, inner: int, dropout: float):
        super().__init__()
        self.attention = MultiHeadAttention(width, num_heads, dropout)
        self.attention_norm = nn.LayerNorm(width)
        self.feed_forward = feed_forward(width, inner)
        self.feed_forward_norm = nn.LayerNorm(width)
        self.dropout = nn.Dropout(dropout)

    def forward(self, queries: torch.Tensor, keys: torch.Tensor, key_mask: torch.Tensor) -> torch.Tensor:
        """Let queries [B, q, d] attend to keys [B, k, d] where key_mask [B, k]; without keys nothing is added."""
        context = self.attention(queries, keys, key_mask).masked_fill(~key_mask.any(1)[:, None, None], 0)
        C = self.attention_norm(queries + self.dropout(context))
        return self.feed_forward_norm(C + self.dropout(self.feed_forward(C)))


class Gate(nn.Module):
    """How far to open for what comes from elsewhere: sigmoid(W_own H + b + W_other G), element by element.

    Args:
        width: d of both sides.
    """

    def __init__(self, width: int):
        super().__init__()
        self.own = nn.Linear(width, width)
        self.other = nn.Linear(width, width, bias=False)

    def forward(self, H: torch.Tensor, G: torch.Tensor) -> torch.Tensor:
        """Return the gate [B, n, d] of states H [B, n, d] for G [B, 1 or n, d]."""
        return torch.sigmoid(self.own(H) + self.other(G))

    def pairs(self, H: torch.Tensor, G: torch.Tensor, edges: torch.Tensor | None = None) -> torch.Tensor:
        """Return the gates [B, n, m, d] of every state in H [B, n, d] for every one in G [B, m, d].

        Where edges [B, 1 or n, m] are given, those that are false have a closed gate, 0.
        """
        pairs = self.own(H)[:, :, None] + self.other(G)[:, None]  # all below happens in this one tensor
        if edges is not None:
            pairs = pairs.masked_fill_(~edges[..., None], float("-inf"))
        return pairs.sigmoid_()


def masked_softmax(scores: torch.Tensor, mask: torch.Tensor) -> torch.Tensor:
    """Softmax over the last dimension where a mask is true; 0 elsewhere, also where it is nowhere true."""
    scores = scores.masked_fill(~mask, torch.finfo(scores.dtype).min)
    return scores.softmax(-1).masked_fill(~mask, 0)


def sinusoidal_positions(attention_mask: torch.Tensor, width: int) -> torch.Tensor:
    """Return the position encoding [B, n, width] of Vaswani et al. (2017); positions count the real pieces [B, n]."""
    position = (attention_mask.long().cumsum(1) - 1).clamp(min=0)  # [B, n], the same with padding on the left
    frequency = torch.exp(torch.arange(0, width, 2, device=position.device) * (-math.log(10000) / width))
    angles = position[..., None] * frequency  # [B, n, width / 2]
    return torch.stack([angles.sin(), angles.cos()], dim=-1).flatten(2)[..., :width]
