"""Linear-chain CRF on top of pytorch-crf (methods section 0.3): float32, any mask, padded tensors, probabilities.

pytorch-crf supplies the parameters, their names and the partition function. It needs masks without holes and returns
lists, so this module moves the real positions of every row to its front, and decodes without leaving the device.
"""

import torch
import torch.nn.functional as F

try:
    from torchcrf import CRF
except ImportError as error:
    raise ImportError(
        "The CRF needs the package pytorch-crf: `pip install pytorch-crf` (not TorchCRF, which is another package)."
    ) from error


class LinearChainCrf(CRF):
    """Conditional random field over the words of a tweet; works in float32 whatever the precision around it.

    Masks are boolean, true = a real word. They may have holes, padding on the left, or no real word at all: the chain
    runs over the real words of a row in their order, and what stands elsewhere has no influence. Under `torch.compile`
    the loops over words stay outside the graph, else every sentence length would be compiled anew.

    Args:
        num_tags: number of labels L.
    """

    def __init__(self, num_tags: int):
        super().__init__(num_tags, batch_first=True)

    @torch.compiler.disable
    def forward(self, emissions: torch.Tensor, tags: torch.Tensor, mask: torch.Tensor) -> torch.Tensor:
        """Log-likelihood of the tags, eq. 10 of the UMGF paper.

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
        self,
        emissions: torch.Tensor,
        mask: torch.Tensor,
        transition_penalty: tuple[torch.Tensor, torch.Tensor] | None = None,
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
        emissions, steps, order = self._compact(emissions, mask)
        predictions = torch.full_like(order, -100)
        if steps.shape[1] == 0:
            return predictions
        start, transitions = self.start_transitions, self.transitions
        if transition_penalty is not None:
            start = start + transition_penalty[0].to(start)
            transitions = transitions + transition_penalty[1].to(transitions)

        score = start + emissions[:, 0]  # [B, L], best path that ends in each label
        same_label = torch.arange(self.num_tags, device=emissions.device)
        history = []  # per step [B, L]: the label before the best path's last label
        for emission, is_real in zip(emissions.unbind(1)[1:], steps.unsqueeze(2).unbind(1)[1:], strict=True):
            extended, previous = (score.unsqueeze(2) + transitions + emission.unsqueeze(1)).max(dim=1)
            score = torch.where(is_real, extended, score)
            history.append(torch.where(is_real, previous, same_label))

        path = [(score + self.end_transitions).argmax(dim=1, keepdim=True)]
        for previous in reversed(history):
            path.append(previous.gather(1, path[-1]))
        path = torch.cat(path[::-1], dim=1).masked_fill(~steps, -100)
        return predictions.scatter(1, order, path)

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
            emissions, mask = _at_least_float32(emissions).clone(), mask.clone()
            return torch.func.grad(lambda scores: self.log_partition(scores, mask).sum())(emissions).detach()

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
        """Exact joint probability of the labels of a span: partition of the paths through them by partition of all.

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
        required = required.unsqueeze(2).to(emissions.device)
        allowed = (required == -1) | (required == torch.arange(self.num_tags, device=emissions.device))
        rows = torch.as_tensor(rows, dtype=torch.long, device=emissions.device)
        constrained = _at_least_float32(emissions)[rows].masked_fill(~allowed, float("-inf"))
        log_probability = self.log_partition(constrained, mask[rows]) - self.log_partition(emissions, mask)[rows]
        return log_probability.exp().clamp(max=1)

    def _compact(self, emissions: torch.Tensor, mask: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
        """Return float32 emissions with real positions first and 0 elsewhere, the mask that fits, and the order."""
        self._validate(emissions)
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
