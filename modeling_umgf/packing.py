"""Short posts share a row of the text encoder, so that it computes nothing for padding.

On a processor the time of an encoder is that of its pieces; padding to the longest makes a quarter of those of 16 posts
of Twitter-2017, half of those of 64. Rows of about 128 pieces, each post seeing itself alone, give the same states.
"""

from typing import NamedTuple

import torch
from transformers import PreTrainedConfig, PreTrainedModel

PIECES_IN_A_ROW = 128
"""About as many: a product over fewer rows is slower, attention over longer ones too."""

CAN_PACK = {"bert", "electra", "roberta", "xlm-roberta", "camembert"}
"""Encoders, by their model type, that take the mask of every pair of pieces and the position of every piece."""


class Rows(NamedTuple):
    """Posts in rows; R rows of N pieces.

    Args:
        places: [B, n] where each piece stands in the flattened rows, 0 for padding.
        pieces: [R, N] which of the flattened pieces stands at each place, 0 for none.
        attention_mask: [R, 1, N, N] bool, pieces of the same post.
    """

    places: torch.Tensor
    pieces: torch.Tensor
    attention_mask: torch.Tensor

    def pack(self, tensor: torch.Tensor) -> torch.Tensor:
        """Put a tensor [B, n, …] of the pieces of posts into rows [R, N, …]."""
        return tensor.flatten(0, 1)[self.pieces]

    def unpack(self, states: torch.Tensor, mask: torch.Tensor) -> torch.Tensor:
        """Give states [R, N, h] back to the posts [B, n, h] with pieces where the mask [B, n] is true, 0 elsewhere."""
        return states.flatten(0, 1)[self.places].masked_fill(~mask[..., None], 0)


def rows_of(mask: torch.Tensor) -> Rows | None:
    """Share out posts with real pieces [B, n] among rows; None where that would not save a tenth."""
    lengths = mask.sum(1).tolist()
    rows = -(-sum(lengths) // PIECES_IN_A_ROW)  # rounded up
    if not rows:
        return None
    filled = [0] * rows
    row_of = {}
    start_of = {}
    for post in sorted(range(len(lengths)), key=lengths.__getitem__, reverse=True):  # each into the emptiest row
        row_of[post] = row = min(range(rows), key=filled.__getitem__)
        start_of[post] = filled[row]
        filled[row] += lengths[post]
    width = max(filled)
    if 10 * rows * width > 9 * mask.numel():
        return None

    first = torch.tensor([row_of[post] * width + start_of[post] for post in range(len(lengths))])  # [B]
    places = (first[:, None] + mask.cumsum(1) - 1).masked_fill(~mask, 0)  # [B, n]
    taken = places[mask]
    pieces = torch.zeros(rows * width, dtype=torch.long)
    pieces[taken] = mask.flatten().nonzero()[:, 0]
    posts = torch.full((rows * width,), -1)
    posts[taken] = mask.nonzero()[:, 0]
    posts = posts.view(rows, width)
    return Rows(places, pieces.view(rows, width), (posts[:, :, None] == posts[:, None])[:, None])


def positions(config: PreTrainedConfig, input_ids: torch.Tensor) -> torch.Tensor:
    """The positions [B, n] that an encoder which counts real pieces gives to pieces [B, n] of its own accord."""
    real = input_ids != config.pad_token_id
    return real.cumsum(1) * real + config.pad_token_id


def can_pack(text_model: PreTrainedModel, input_ids: torch.Tensor, mask: torch.Tensor, arguments: dict) -> bool:
    """Whether an encoder can read posts [B, n] in rows, and nobody wants to see more of it than the last states."""
    config = text_model.config
    return (
        config.model_type in CAN_PACK
        and config._attn_implementation == "sdpa"
        and not config.is_decoder
        and not (config.output_attentions or config.output_hidden_states)
        and arguments.keys() <= {"token_type_ids", "position_ids"}
        and all(isinstance(argument, torch.Tensor) for argument in arguments.values())
        and input_ids.device.type == "cpu"
        and not (torch.compiler.is_compiling() or torch.jit.is_tracing())
        and mask.shape == input_ids.shape
    )
