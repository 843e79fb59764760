"""Correction of hubness: without it a few captions are near almost every text, a few pictures near every other."""

from typing import Literal

import torch
from torch.nn.functional import normalize

NEIGHBORS = 10
CHUNK = 256


class HubnessCorrection:
    """Sentence vectors of captions and texts, or mean features of pictures, made comparable.

    Args:
        kind: "none"; "center", which subtracts the captions' mean from all vectors; "csls", which makes captions less
            near that are nearer than others to the texts that are nearest to them.
        captions: [N, D] sentence vectors, zeros where there is no caption.
        texts: [T, D] sentence vectors of texts, for "csls"; default: the captions.
        penalty: that of "csls", where it is known already.

    Attributes:
        penalty: [N] float64, to be subtracted from the cosines of each caption, or None.
    """

    def __init__(
        self,
        kind: Literal["none", "center", "csls"],
        captions: torch.Tensor,
        texts: torch.Tensor | None = None,
        penalty: torch.Tensor | None = None,
    ):
        self.mean = None
        if kind == "center" and captions.any():
            total = sum(normalize(chunk.float(), dim=-1).double().sum(0) for chunk in captions.split(CHUNK))
            self.mean = (total / captions.any(-1).sum()).float()  # [D], of those with a caption
        self.penalty = penalty
        if kind == "csls" and penalty is None and len(captions):
            self.penalty = self._csls(captions, texts)

    def unit(self, vectors: torch.Tensor) -> torch.Tensor:
        """Return unit vectors in float32, centred where that is asked for; the zeros of an empty text stay zeros."""
        unit = normalize(vectors.float(), dim=-1)
        return unit if self.mean is None else normalize(unit - self.mean, dim=-1) * unit.any(-1, keepdim=True)

    def _csls(self, captions: torch.Tensor, texts: torch.Tensor | None) -> torch.Tensor:
        """How much nearer than others each caption [N] is to its nearest texts, halved."""
        captioned = captions.any(-1)
        own = texts is None  # then every caption is its own nearest text
        texts = self.unit(captions[captioned] if own else texts)
        nearest = min(NEIGHBORS + own, len(texts))
        similarity = [(self.unit(chunk) @ texts.T).topk(nearest).values for chunk in captions.split(CHUNK)]
        density = torch.cat(similarity)[:, int(own) :].double().mean(-1).nan_to_num()  # nan: a pool of one picture
        penalty = (density - density[captioned].mean()) / 2
        return penalty.masked_fill(~captioned, 2.0)  # no caption: never found
