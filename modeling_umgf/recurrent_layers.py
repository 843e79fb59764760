"""Layers of the systems before the transformers: LSTMs over what is real, attention by addition."""

import torch
from torch import nn

from .layers import masked_softmax


class Lstm(nn.Module):
    """An LSTM over the real positions alone, wherever the others are.

    Args:
        input_size: width i of what it reads.
        hidden_size: width d of its states.
        backwards: read from the end to the start.
    """

    def __init__(self, input_size: int, hidden_size: int, backwards: bool = False):
        super().__init__()
        self.backwards = backwards
        self.lstm = nn.LSTM(input_size, hidden_size, batch_first=True)

    def forward(
        self, x: torch.Tensor, mask: torch.Tensor, h_0: torch.Tensor | None = None
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """Read x [B, n, i] where mask [B, n] is true, beginning with the state h_0 [B, d] (default 0).

        Returns:
            The states [B, n, d] at the real positions, 0 elsewhere, and the one that was reached last [B, d]; h_0 where
            nothing is real.
        """
        x = x.to(self.lstm.weight_ih_l0.dtype)
        h_0 = x.new_zeros(len(x), self.lstm.hidden_size) if h_0 is None else h_0.to(x.dtype)
        order = (~mask).int().argsort(dim=1, stable=True)  # [B, n] the real ones first
        if self.backwards:
            from_end = mask.sum(1, keepdim=True) - 1 - torch.arange(mask.shape[1], device=mask.device)
            order = order.gather(1, from_end % mask.shape[1])  # the real ones turned round, then the others
        states, _ = self.lstm(take(x, order), (h_0[None], torch.zeros_like(h_0)[None]))
        all_states = torch.cat([h_0[:, None].to(states.dtype), states], dim=1)  # [B, 1 + n, d]
        last = take(all_states, mask.sum(1, keepdim=True))[:, 0]
        return take(states, order.argsort(dim=1)) * mask[..., None], last


class BiLstm(nn.Module):
    """An LSTM in each direction, over the real positions alone.

    Args:
        input_size: width i of what it reads.
        hidden_size: width d of its states, both directions together.
    """

    def __init__(self, input_size: int, hidden_size: int):
        super().__init__()
        self.forth = Lstm(input_size, hidden_size // 2)
        self.back = Lstm(input_size, hidden_size // 2, backwards=True)

    def forward(
        self, x: torch.Tensor, mask: torch.Tensor, h_0: torch.Tensor | None = None
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """Read x [B, n, i] where mask [B, n]; both directions begin with the state h_0 [B, d / 2] (default 0).

        Returns:
            The states [B, n, d], 0 where nothing is real, and the last states of both directions [B, d].
        """
        forth, last_forth = self.forth(x, mask, h_0)
        back, last_back = self.back(x, mask, h_0)
        return torch.cat([forth, back], dim=-1), torch.cat([last_forth, last_back], dim=-1)


class AdditiveAttention(nn.Module):
    """Attention weights softmax_k(w · tanh(W q + b + k)) of Bahdanau et al. (2015).

    Query and key are added *inside* the tanh: outside it, the query would add the same to the scores of all keys, which
    the softmax takes away again.

    Args:
        query_size: width of the queries.
        key_size: width a of the keys, which come projected.
    """

    def __init__(self, query_size: int, key_size: int):
        super().__init__()
        self.query = nn.Linear(query_size, key_size)
        self.score = nn.Linear(key_size, 1, bias=False)

    def forward(self, queries: torch.Tensor, keys: torch.Tensor, key_mask: torch.Tensor) -> torch.Tensor:
        """Return the weights [B, q, k] of keys [B, k, a] for queries [B, q, …], 0 where key_mask [B, k] is false."""
        z = torch.tanh(self.query(queries)[:, :, None] + keys[:, None])  # [B, q, k, a]
        return masked_softmax(self.score(z)[..., 0], key_mask[:, None])


def take(states: torch.Tensor, positions: torch.Tensor) -> torch.Tensor:
    """Return of states [B, n, d] those at positions [B, k]: [B, k, d]."""
    return states.gather(1, positions[..., None].expand(-1, -1, states.shape[-1]))
