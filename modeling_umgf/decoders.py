"""Label decoders: what turns the emissions of the words of a post into labels, losses and probabilities.

Each has the same four methods, `loss`, `decode`, `marginals` and `span_probability`, works in float32 whatever the
precision around it, and takes boolean masks, true = a real word, with holes, padding on the left, or no word at all:
the labels of the real words of a row follow each other in their order, and what stands elsewhere has no influence.

pytorch-crf supplies the parameters of the CRF, their names and the partition function. It needs masks without holes
and returns lists, so this module moves the real positions of every row to its front, and decodes on the device.
"""

import torch
import torch.nn.functional as F
from torch import nn

try:
    from torchcrf import CRF
except ImportError as error:
    raise ImportError(
        "The CRF needs the package pytorch-crf: `pip install pytorch-crf` (not TorchCRF, which is another package)."
    ) from error


Penalty = tuple[torch.Tensor, torch.Tensor]
"""Scores for the first label [L] and for a label after another [L, L]; see `bio_transition_penalty`."""


class LabelDecoder(nn.Module):
    """What both decoders share: the probability of spans; `num_tags` is the number of labels L."""

    num_tags: int

    @torch.no_grad()
    def span_probability(
        self,
        emissions: torch.Tensor,
        mask: torch.Tensor,
        rows: list[int],
        starts: list[int],
        ends: list[int],
        tags: list[list[int]],
    ) -> torch.Tensor:
        """Exact joint probability of the labels of spans.

        Args:
            emissions: [B, w, L].
            mask: [B, w] bool.
            rows: N row numbers in the batch.
            starts: N first words of the spans.
            ends: N words after the spans.
            tags: N lists with one label id per word of the span.

        Returns:
            [N] float32 in 0..1.

        Raises:
            ValueError: a span has not exactly one label per word.
        """
        required = torch.full((len(rows), emissions.shape[1]), -1)
        for number, (start, end, labels) in enumerate(zip(starts, ends, tags, strict=True)):
            if len(labels) != end - start:
                raise ValueError(f"Span {number} has {end - start} words but {len(labels)} labels.")
            required[number, start:end] = torch.tensor(labels)
        rows = torch.as_tensor(rows, dtype=torch.long, device=emissions.device)
        return self.path_probability(emissions, mask.bool(), rows, required.to(emissions.device)).clamp(0, 1)


class LinearChainCrf(LabelDecoder, CRF):
    """Conditional random field over the words of a post.

    Under `torch.compile` the loops over words stay outside the graph, else every length would be compiled anew.

    Args:
        num_tags: number of labels L.
    """

    def __init__(self, num_tags: int):
        super().__init__(num_tags, batch_first=True)

    @torch.compiler.disable
    def forward(self, emissions: torch.Tensor, tags: torch.Tensor, mask: torch.Tensor) -> torch.Tensor:
        """Log-likelihood of the tags.

        Args:
            emissions: [B, w, L] scores of any floating type.
            tags: [B, w] label ids; ignored (so possibly -100) where the mask is false.
            mask: [B, w] bool.

        Returns:
            [B] float32, one log-likelihood per row; 0 for a row without words.
        """
        self._validate(emissions, tags)
        mask = mask.bool()
        steps, order = _real_positions_first(mask)
        tags = tags.masked_fill(~mask, 0)
        chosen = _at_least_float32(emissions).gather(2, tags.unsqueeze(2)).squeeze(2)  # [B, w]
        tags = tags.gather(1, order)
        last = steps & ~F.pad(steps[:, 1:], (0, 1))
        score = (
            chosen.masked_fill(~mask, 0).sum(1)
            + (self.start_transitions[tags[:, :1]] * steps[:, :1]).sum(1)
            + (self.transitions[tags[:, :-1], tags[:, 1:]] * steps[:, 1:]).sum(1)
            + (self.end_transitions[tags] * last).sum(1)
        )
        return score - self.log_partition(emissions, mask)

    def loss(self, emissions: torch.Tensor, tags: torch.Tensor, mask: torch.Tensor) -> torch.Tensor:
        """Negative log-likelihood [B] of the tags of each row; arguments as for `forward`."""
        return -self(emissions, tags, mask)

    def log_partition(self, emissions: torch.Tensor, mask: torch.Tensor) -> torch.Tensor:
        """Log of the summed exponential scores of all label paths of each row.

        Args:
            emissions: [B, w, L].
            mask: [B, w] bool.

        Returns:
            [B] float32; 0 for a row without words.
        """
        emissions, steps, _ = self._compact(emissions, mask)
        if steps.shape[1] == 0:
            return emissions.sum(dim=(1, 2))
        is_empty = ~steps[:, 0]
        steps = torch.cat([torch.ones_like(steps[:, :1]), steps[:, 1:]], dim=1)  # pytorch-crf wants a first word
        log_partition = self._compute_normalizer(emissions.transpose(0, 1), steps.transpose(0, 1))
        return log_partition.masked_fill(is_empty, 0)

    @torch.compiler.disable
    @torch.no_grad()
    def decode(
        self, emissions: torch.Tensor, mask: torch.Tensor, transition_penalty: Penalty | None = None
    ) -> torch.Tensor:
        """Best label path of each row (Viterbi), without a host synchronisation.

        Args:
            emissions: [B, w, L].
            mask: [B, w] bool.
            transition_penalty: scores added for this search only, for the first label ([L]) and for a label after
                another ([L, L], from row to column); see `bio_transition_penalty`.

        Returns:
            [B, w] int64 label ids, -100 where the mask is false.
        """
        self._validate(emissions)
        start, transitions = _penalised(self.start_transitions, self.transitions, transition_penalty)
        return viterbi(emissions, mask, start, transitions, self.end_transitions)

    @torch.no_grad()
    def marginals(self, emissions: torch.Tensor, mask: torch.Tensor) -> torch.Tensor:
        """Posterior probability of every label of every word: the gradient of the log partition by the emissions.

        Args:
            emissions: [B, w, L].
            mask: [B, w] bool.

        Returns:
            [B, w, L] float32, sums to 1 over the labels of a word; 0 where the mask is false. Has no gradient itself.
        """
        with torch.inference_mode(False):
            emissions = _at_least_float32(emissions).clone()
            mask = mask.clone()
            probability = torch.func.grad(lambda scores: self.log_partition(scores, mask).sum())(emissions)
            return probability.detach().clamp(0, 1)

    def path_probability(
        self, emissions: torch.Tensor, mask: torch.Tensor, rows: torch.Tensor, required: torch.Tensor
    ) -> torch.Tensor:
        """Probability [N] of the paths of some rows [N] through labels [N, w], -1 = any: their partition by all."""
        required = required.unsqueeze(2)  # [N, w, 1]
        allowed = (required == -1) | (required == torch.arange(self.num_tags, device=emissions.device))
        constrained = _at_least_float32(emissions)[rows].masked_fill(~allowed, float("-inf"))
        log_probability = self.log_partition(constrained, mask[rows]) - self.log_partition(emissions, mask)[rows]
        return log_probability.exp()

    def _compact(self, emissions: torch.Tensor, mask: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
        self._validate(emissions)
        return _compact(emissions, mask)


class SoftmaxDecoder(LabelDecoder):
    """Every word is labelled by itself; arguments and results as those of `LinearChainCrf`.

    Args:
        num_tags: number of labels L.
    """

    def __init__(self, num_tags: int):
        super().__init__()
        self.num_tags = num_tags

    def loss(self, emissions: torch.Tensor, tags: torch.Tensor, mask: torch.Tensor) -> torch.Tensor:
        """Negative log-likelihood [B] of the tags of each row: the cross entropies of its words, summed."""
        scores = _at_least_float32(emissions).masked_fill(~mask.bool()[..., None], 0)
        tags = tags.masked_fill(~mask.bool(), -100)
        return F.cross_entropy(scores.transpose(1, 2), tags, ignore_index=-100, reduction="none").sum(1)

    @torch.no_grad()
    def decode(
        self, emissions: torch.Tensor, mask: torch.Tensor, transition_penalty: Penalty | None = None
    ) -> torch.Tensor:
        """Best label of each word [B, w], -100 where the mask is false; with a penalty, the best path under it."""
        if transition_penalty is None:
            return emissions.argmax(-1).masked_fill(~mask.bool(), -100)
        none = _at_least_float32(emissions).new_zeros(self.num_tags)
        start, transitions = _penalised(none, none.expand(self.num_tags, -1), transition_penalty)
        return viterbi(emissions, mask, start, transitions, none)

    @torch.no_grad()
    def marginals(self, emissions: torch.Tensor, mask: torch.Tensor) -> torch.Tensor:
        """Probability [B, w, L] of every label of every word; 0 where the mask is false."""
        return _at_least_float32(emissions).softmax(-1).masked_fill(~mask.bool()[..., None], 0)

    def path_probability(
        self, emissions: torch.Tensor, mask: torch.Tensor, rows: torch.Tensor, required: torch.Tensor
    ) -> torch.Tensor:
        """Probability [N] of labels [N, w], -1 = any, of the words of some rows [N]: the product over the words."""
        probability = _at_least_float32(emissions).log_softmax(-1)[rows]  # [N, w, L]
        chosen = probability.gather(2, required.clamp(min=0).unsqueeze(2)).squeeze(2)  # [N, w]
        return chosen.masked_fill((required == -1) | ~mask[rows], 0).sum(1).exp()


LABEL_DECODERS = {"crf": LinearChainCrf, "softmax": SoftmaxDecoder}
"""The decoders by their name in a configuration."""


def viterbi(
    emissions: torch.Tensor,
    mask: torch.Tensor,
    start_transitions: torch.Tensor,
    transitions: torch.Tensor,
    end_transitions: torch.Tensor,
) -> torch.Tensor:
    """Best label path of each row, without a host synchronisation.

    Args:
        emissions: [B, w, L].
        mask: [B, w] bool.
        start_transitions, end_transitions: [L] scores of the first and of the last label.
        transitions: [L, L] scores from row to column.

    Returns:
        [B, w] int64 label ids, -100 where the mask is false.
    """
    emissions, steps, order = _compact(emissions, mask)
    predictions = torch.full_like(order, -100)
    if steps.shape[1] == 0:
        return predictions
    score = start_transitions + emissions[:, 0]  # [B, L], best path that ends in each label
    same_label = torch.arange(emissions.shape[2], device=emissions.device)
    history = []  # per step [B, L]: the label before the best path's last label
    for emission, is_real in zip(emissions.unbind(1)[1:], steps.unsqueeze(2).unbind(1)[1:], strict=True):
        extended, previous = (score.unsqueeze(2) + transitions + emission.unsqueeze(1)).max(dim=1)
        score = torch.where(is_real, extended, score)
        history.append(torch.where(is_real, previous, same_label))

    path = [(score + end_transitions).argmax(dim=1, keepdim=True)]
    for previous in reversed(history):
        path.append(previous.gather(1, path[-1]))
    path = torch.cat(path[::-1], dim=1).masked_fill(~steps, -100)
    return predictions.scatter(1, order, path)


def _penalised(
    start: torch.Tensor, transitions: torch.Tensor, penalty: Penalty | None
) -> tuple[torch.Tensor, torch.Tensor]:
    if penalty is None:
        return start, transitions
    return start + penalty[0].to(start), transitions + penalty[1].to(transitions)


def _compact(emissions: torch.Tensor, mask: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """Return float32 emissions with real positions first and 0 elsewhere, the mask that fits, and the order."""
    if mask.shape != emissions.shape[:2]:
        raise ValueError(f"The mask {tuple(mask.shape)} does not fit emissions {tuple(emissions.shape)}.")
    steps, order = _real_positions_first(mask.bool())
    emissions = _at_least_float32(emissions).gather(1, order.unsqueeze(2).expand_as(emissions))
    return emissions.masked_fill(~steps.unsqueeze(2), 0), steps, order


def _real_positions_first(mask: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """Return the mask [B, w] with the true positions of each row moved to its front, and the order [B, w] of it."""
    order = torch.argsort(mask.long(), dim=1, descending=True, stable=True)
    return mask.gather(1, order), order


def _at_least_float32(scores: torch.Tensor) -> torch.Tensor:
    return scores.to(torch.promote_types(scores.dtype, torch.float32))
