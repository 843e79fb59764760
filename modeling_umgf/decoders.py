"""Label decoders: what turns the emissions of the words of a post into labels, losses and probabilities.

Each has the same four methods, `loss`, `decode`, `marginals` and `span_probability`, works in float32 whatever the
precision around it, and takes boolean masks, true = a real word, with holes, padding on the left, or no word at all:
the labels of the real words of a row follow each other in their order, and what stands elsewhere has no influence.

Both recursions over the words, forward-backward and Viterbi, read a row as padding, its real words, padding, and start
from both ends at once. Padding is one more label, number L: `start_transitions` lead out of it, `end_transitions` into
it, and from padding to padding costs nothing. So no step needs a mask, and nothing waits for the device. To
`torch.compile` and `torch.export` each is one operator, for every number of words.
"""

import re

import torch
import torch.nn.functional as F
from torch import nn
from torch.autograd.function import once_differentiable

TINY = torch.finfo(torch.float64).tiny

STEPS_PER_SCALE = 4
"""Forward-backward scales its probabilities at every so many steps: between them they stay in the range of float64."""

OPERATORS = re.sub(r"\W", "_", __name__)
"""Namespace of the operators: code that a checkpoint carries has its own."""

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


class LinearChainCrf(LabelDecoder):
    """Conditional random field over the words of a post, with the parameters of pytorch-crf, by the same names.

    Losses have a gradient that has none itself: they can be differentiated once. Scores of transitions lie between
    -80 and 80 (trained ones: -20 and 20); less means that a transition is forbidden.

    Args:
        num_tags: number of labels L.
    """

    def __init__(self, num_tags: int):
        super().__init__()
        self.num_tags = num_tags
        self.start_transitions = nn.Parameter(torch.empty(num_tags).uniform_(-0.1, 0.1))
        self.end_transitions = nn.Parameter(torch.empty(num_tags).uniform_(-0.1, 0.1))
        self.transitions = nn.Parameter(torch.empty(num_tags, num_tags).uniform_(-0.1, 0.1))

    def forward(self, emissions: torch.Tensor, tags: torch.Tensor, mask: torch.Tensor) -> torch.Tensor:
        """Log-likelihood of the tags.

        Args:
            emissions: [B, w, L] scores of any floating type.
            tags: [B, w] label ids; ignored (so possibly -100) where the mask is false.
            mask: [B, w] bool.

        Returns:
            [B] float32, one log-likelihood per row; 0 for a row without words.

        Raises:
            ValueError: tags or mask don't fit the emissions, or those are not of L labels.
        """
        return -self.loss(emissions, tags, mask)

    def loss(self, emissions: torch.Tensor, tags: torch.Tensor, mask: torch.Tensor) -> torch.Tensor:
        """Negative log-likelihood [B] of the tags of each row; arguments as for `forward`."""
        emissions = self._checked(emissions, mask=mask, tags=tags)
        return negative_log_likelihood(emissions, tags, mask.bool(), *self._scores())[0]

    @torch.no_grad()
    def log_partition(self, emissions: torch.Tensor, mask: torch.Tensor) -> torch.Tensor:
        """Log of the summed exponential scores of all label paths of each row.

        Args:
            emissions: [B, w, L].
            mask: [B, w] bool.

        Returns:
            [B] float32; 0 for a row without words. Has no gradient: it is part of that of the loss.
        """
        return forward_backward(self._checked(emissions, mask=mask), mask.bool(), *self._scores())[0]

    @torch.no_grad()
    def decode(
        self, emissions: torch.Tensor, mask: torch.Tensor, transition_penalty: Penalty | None = None
    ) -> torch.Tensor:
        """Best label path of each row (Viterbi).

        Args:
            emissions: [B, w, L].
            mask: [B, w] bool.
            transition_penalty: scores added for this search only, for the first label ([L]) and for a label after
                another ([L, L], from row to column); see `bio_transition_penalty`.

        Returns:
            [B, w] int64 label ids, -100 where the mask is false.
        """
        return viterbi(self._checked(emissions, mask=mask), mask.bool(), *self._scores(transition_penalty))

    def marginals(self, emissions: torch.Tensor, mask: torch.Tensor, differentiable: bool = False) -> torch.Tensor:
        """Posterior probability of every label of every word.

        Args:
            emissions: [B, w, L].
            mask: [B, w] bool.
            differentiable: whether they have a gradient.

        Returns:
            [B, w, L] float32, sums to 1 over the labels of a word; 0 where the mask is false.
        """
        arguments = self._checked(emissions, mask=mask), mask.bool(), *self._scores()
        if differentiable:  # the operator is not, but its steps are
            return _forward_backward(*arguments)[1]
        with torch.no_grad():
            return forward_backward(*arguments)[1]

    def path_probability(
        self, emissions: torch.Tensor, mask: torch.Tensor, rows: torch.Tensor, required: torch.Tensor
    ) -> torch.Tensor:
        """Probability [N] of the paths of some rows [N] through labels [N, w], -1 = any: their partition by all."""
        required = required.unsqueeze(2)  # [N, w, 1]
        allowed = (required == -1) | (required == torch.arange(self.num_tags, device=emissions.device))
        constrained = _at_least_float32(emissions)[rows].masked_fill(~allowed, float("-inf"))
        every = torch.cat([_at_least_float32(emissions), constrained])  # [B + N, w, L]
        free, through = self.log_partition(every, torch.cat([mask, mask[rows]])).split([len(mask), len(rows)])
        return (through - free[rows]).exp()

    def _scores(self, penalty: Penalty | None = None) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
        return *_penalised(self.start_transitions, self.transitions, penalty), self.end_transitions

    def _checked(self, emissions: torch.Tensor, mask: torch.Tensor, tags: torch.Tensor | None = None) -> torch.Tensor:
        if emissions.ndim != 3 or emissions.shape[2] != self.num_tags:
            raise ValueError(f"Emissions {tuple(emissions.shape)}: give [posts, words, {self.num_tags} labels].")
        for name, given in {"mask": mask, "tags": tags}.items():
            if given is not None and given.shape != emissions.shape[:2]:
                raise ValueError(
                    f"{name} {tuple(given.shape)} of the words do not fit emissions {tuple(emissions.shape)}."
                )
        return _at_least_float32(emissions)


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
        emissions = _at_least_float32(emissions)
        none = emissions.new_zeros(self.num_tags)
        start, transitions = _penalised(none, none.expand(self.num_tags, -1), transition_penalty)
        return viterbi(emissions, mask.bool(), start, transitions, none)

    def marginals(self, emissions: torch.Tensor, mask: torch.Tensor, differentiable: bool = False) -> torch.Tensor:
        """Probability [B, w, L] of every label of every word; 0 where the mask is false."""
        with torch.set_grad_enabled(differentiable and torch.is_grad_enabled()):
            mask = mask.bool()[..., None]
            return _at_least_float32(emissions).masked_fill(~mask, 0).softmax(-1).masked_fill(~mask, 0)

    def path_probability(
        self, emissions: torch.Tensor, mask: torch.Tensor, rows: torch.Tensor, required: torch.Tensor
    ) -> torch.Tensor:
        """Probability [N] of labels [N, w], -1 = any, of the words of some rows [N]: the product over the words."""
        probability = _at_least_float32(emissions).log_softmax(-1)[rows]  # [N, w, L]
        chosen = probability.gather(2, required.clamp(min=0).unsqueeze(2)).squeeze(2)  # [N, w]
        return chosen.masked_fill((required == -1) | ~mask[rows], 0).sum(1).exp()


LABEL_DECODERS = {"crf": LinearChainCrf, "softmax": SoftmaxDecoder}
"""The decoders by their name in a configuration."""


@torch.library.custom_op(f"{OPERATORS}::forward_backward", mutates_args=())
def forward_backward(
    emissions: torch.Tensor, mask: torch.Tensor, start: torch.Tensor, transitions: torch.Tensor, end: torch.Tensor
) -> tuple[torch.Tensor, torch.Tensor]:
    """Sum over all label paths.

    Args:
        emissions: [B, w, L] float32 or float64.
        mask: [B, w] bool.
        start, end: [L] scores of the first and of the last label.
        transitions: [L, L] scores from row to column.

    Returns:
        Log partition [B], and marginals [B, w, L] of the labels. They have no gradient.
    """
    return _forward_backward(emissions, mask, start, transitions, end)[:2]


@forward_backward.register_fake
def _(emissions, mask, start, transitions, end):
    return emissions.new_empty(len(emissions)), torch.empty_like(emissions)


@torch.library.custom_op(f"{OPERATORS}::negative_log_likelihood", mutates_args=())
def negative_log_likelihood(
    emissions: torch.Tensor,
    tags: torch.Tensor,
    mask: torch.Tensor,
    start: torch.Tensor,
    transitions: torch.Tensor,
    end: torch.Tensor,
) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor, torch.Tensor, torch.Tensor]:
    """Log partition minus the score of the gold labels, and what the gradient is made of.

    Args:
        tags: [B, w] gold labels; the others as for `forward_backward`.

    Returns:
        Negative log-likelihood [B], the only one with a gradient; its gradient by the emissions [B, w, L]; and by the
        transitions, first that of the log partition as a product (see `_forward_backward`), then [B, s - 1] the gold
        ones as places in the matrix [L + 1, L + 1].
    """
    padding = emissions.shape[2]
    log_partition, gradient, left, right = _forward_backward(emissions, mask, start, transitions, end)
    gold = tags.masked_fill(~mask, 0).unsqueeze(2)  # [B, w, 1]
    chosen = emissions.gather(2, gold).squeeze(2).masked_fill(~mask, 0)  # [B, w]
    gradient.scatter_add_(2, gold, -mask.unsqueeze(2).to(gradient))

    path = tags.new_full((len(tags), left.shape[1] + 1), padding)  # [B, s]
    path.scatter_(1, _steps(mask), tags.masked_fill(~mask, padding))
    taken = path[:, :-1] * (padding + 1) + path[:, 1:]  # [B, s - 1]
    scores = _with_padding(start, transitions, end).to(emissions).flatten()[taken]
    return log_partition - chosen.sum(1) - scores.sum(1), gradient, left, right, taken


@negative_log_likelihood.register_fake
def _(emissions, tags, mask, start, transitions, end):
    rows, words, labels = emissions.shape
    steps = words + 2 + words % 2
    left = emissions.new_empty(labels + 1, steps - 1, rows, dtype=torch.float64)
    taken = tags.new_empty(rows, steps - 1)
    return emissions.new_empty(rows), torch.empty_like(emissions), left, torch.empty_like(left), taken


def _save_gradient(ctx, inputs, output):
    ctx.save_for_backward(*inputs[3:], *output[1:])


@once_differentiable
def _gradient(ctx, grad, *_):
    start, transitions, end, gradient, left, right, taken = ctx.saved_tensors
    grad = grad.to(left)
    expected = (left * grad).flatten(1) @ right.flatten(1).T  # [L + 1, L + 1]
    expected *= _with_padding(start, transitions, end).to(left).exp()
    gold = torch.zeros_like(expected).flatten().scatter_add(0, taken.flatten(), grad.repeat_interleave(taken.shape[1]))
    difference = expected - gold.view_as(expected)
    gradient = grad[:, None, None].to(gradient) * gradient
    return (
        gradient,
        None,
        None,
        difference[-1, :-1].to(start),
        difference[:-1, :-1].to(transitions),
        difference[:-1, -1].to(end),
    )


negative_log_likelihood.register_autograd(_gradient, setup_context=_save_gradient)


def _forward_backward(
    emissions: torch.Tensor, mask: torch.Tensor, start: torch.Tensor, transitions: torch.Tensor, end: torch.Tensor
) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor, torch.Tensor]:
    """Sum over all label paths, with probabilities in float64.

    They are scaled now and then, so that no step needs a logarithm; what falls out of their range is less than
    exp(-200) of what stays.

    Returns:
        Log partition [B], which has no gradient; marginals [B, w, L], which have theirs; and, all [L + 1, s - 1, B],
        the paths up to each step but the last, and those from the next step on: summed over the steps, left × right ×
        exp(transitions) is how often each transition is expected.
    """
    device = torch.device("cpu") if emissions.device.type == "mps" else emissions.device  # which has no float64
    scores, steps = _step_by_step(emissions.to(device), mask.to(device))  # [s, L + 1, B], [B, w]
    scores = scores.double()
    highest = scores.detach().amax(1, keepdim=True)  # [s, 1, B]
    weights = (scores - highest).exp()
    factors = _with_padding(start, transitions, end).to(scores).exp()  # [L + 1, L + 1]

    backwards = torch.arange(len(weights) - 1, -1, -1, device=device)
    from_both_ends = torch.cat([weights, weights[backwards]], dim=1)  # [s, 2 (L + 1), B]
    both_factors = torch.block_diag(factors.T, factors)
    state = from_both_ends[0]  # of the paths up to a step and, below them, of those from a step on
    states = [state]
    scales = [torch.ones_like(state[:2].unsqueeze(1))]  # [2, 1, B]
    for weight in from_both_ends.unbind(0)[1:]:
        state = torch.mm(both_factors, state).mul_(weight)
        if len(states) % STEPS_PER_SCALE == 0:
            halves = state.view(2, len(factors), -1)
            scales.append(halves.detach().amax(1, keepdim=True).clamp_(min=TINY))  # [2, 1, B], any number would do
            halves.div_(scales[-1])
        states.append(state)
    left, right = torch.stack(states, dim=1).chunk(2)  # [L + 1, s, B]
    log_scales = torch.stack(scales)[:, 0, 0].log()  # [scales, B]
    log_partition = log_scales.sum(0) + highest.sum((0, 1)) + left[-1, -1].log()  # [B]

    left = left[:, :-1]
    right = right[:, backwards[1:]]
    joint = left * (factors @ right.flatten(1)).view_as(right)
    total = joint.sum(0).clamp_(min=TINY)  # [s - 1, B]
    marginals = (joint / total).to(emissions).permute(2, 1, 0)[:, :, :-1]  # [B, s - 1, L]
    index = steps.to(emissions.device).clamp_(max=left.shape[1] - 1).unsqueeze(2).expand_as(emissions)
    marginals = marginals.gather(1, index).masked_fill_(~mask.unsqueeze(2), 0)
    return log_partition.to(emissions), marginals, left / total, right


@torch.library.custom_op(f"{OPERATORS}::viterbi", mutates_args=())
def viterbi(
    emissions: torch.Tensor, mask: torch.Tensor, start: torch.Tensor, transitions: torch.Tensor, end: torch.Tensor
) -> torch.Tensor:
    """Best label path of each row; arguments as for `forward_backward`.

    Returns:
        [B, w] int64 label ids, -100 where the mask is false.
    """
    scores, steps = _step_by_step(emissions, mask)  # [s, L + 1, B], [B, w]
    transitions = _with_padding(start, transitions, end).to(scores).unsqueeze(2)
    both_transitions = torch.stack([transitions, transitions.transpose(0, 1)])  # [2, L + 1, L + 1, 1]
    left, right = scores.chunk(2)
    from_both_ends = torch.stack([left, right.flip(0)], dim=1)  # [s / 2, 2, L + 1, B]
    state = from_both_ends[0]  # score of the best path from either end that has reached each label
    previous = []
    for score in from_both_ends.unbind(0)[1:]:
        best, before = (state.unsqueeze(2) + both_transitions).max(1)  # [2, L + 1, B]
        state = best.add_(score)
        previous.append(before)

    labels = scores.shape[1]
    left, right = state
    met = (left.unsqueeze(1) + transitions + right).flatten(0, 1).max(0).indices  # [B]
    path = [torch.stack([met // labels, met % labels]).unsqueeze(1)]  # [2, 1, B], from the middle to both ends
    for before in reversed(previous):
        path.append(before.gather(1, path[-1]))
    left, right = torch.cat(path, dim=1)  # [s / 2, B]
    path = torch.cat([left.flip(0), right]).T.clamp_(max=labels - 2)  # [B, s]; of emissions that are NaN any label
    return path.gather(1, steps).masked_fill_(~mask, -100)


@viterbi.register_fake
def _(emissions, mask, start, transitions, end):
    return torch.empty_like(mask, dtype=torch.long)


def _step_by_step(emissions: torch.Tensor, mask: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """Return scores [s, L + 1, B] of rows that begin and end with padding, and the step [B, w] of each word; s is even.

    What is not a word has the step w + 1, which is padding.
    """
    rows, words, _ = emissions.shape
    steps = _steps(mask)
    table = F.pad(emissions.flatten(0, 1), (0, 1, 0, 1), value=float("-inf"))  # [B w + 1, L + 1]
    table[-1, -1] = 0  # its last row is padding
    places = torch.arange(rows * words, device=mask.device).view(rows, words).masked_fill(~mask, rows * words)
    places = places.new_full((rows, words + 2 + words % 2), rows * words).scatter_(1, steps, places)  # [B, s]
    scores = table.index_select(0, places.T.flatten()).unflatten(0, (-1, rows))  # [s, B, L + 1]
    return scores.transpose(1, 2).contiguous(), steps


def _steps(mask: torch.Tensor) -> torch.Tensor:
    """Step [B, w] of each word: real ones have 1, 2, … in their order, all others the last, w + 1."""
    return mask.cumsum(1).masked_fill(~mask, mask.shape[1] + 1)


def _with_padding(start: torch.Tensor, transitions: torch.Tensor, end: torch.Tensor) -> torch.Tensor:
    """Scores [L + 1, L + 1] of the transitions between labels and padding."""
    into = torch.cat([transitions, end.unsqueeze(1)], dim=1)  # [L, L + 1]
    return torch.cat([into, F.pad(start, (0, 1)).unsqueeze(0)])


def _penalised(
    start: torch.Tensor, transitions: torch.Tensor, penalty: Penalty | None
) -> tuple[torch.Tensor, torch.Tensor]:
    if penalty is None:
        return start, transitions
    return start + penalty[0].to(start), transitions + penalty[1].to(transitions)


def _at_least_float32(scores: torch.Tensor) -> torch.Tensor:
    return scores.to(torch.promote_types(scores.dtype, torch.float32))
