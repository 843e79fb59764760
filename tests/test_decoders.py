"""The label decoders against brute force, and the CRF against pytorch-crf."""

import itertools
import math

import pytest
import torch
import torchcrf

from modeling_umgf import decoders
from modeling_umgf.decoders import LABEL_DECODERS, LinearChainCrf, SoftmaxDecoder
from modeling_umgf.labels import bio_transition_penalty, entity_spans

Decoder = LinearChainCrf | SoftmaxDecoder

every_decoder = pytest.mark.parametrize("kind", list(LABEL_DECODERS))


def make_decoder(kind: str, num_tags: int, seed: int = 0) -> Decoder:
    torch.manual_seed(seed)
    decoder = LABEL_DECODERS[kind](num_tags)
    for parameter in decoder.parameters():
        torch.nn.init.normal_(parameter)
    return decoder


def make_crf(num_tags: int, seed: int = 0) -> LinearChainCrf:
    return make_decoder("crf", num_tags, seed)


def make_batch(rows: int, words: int, num_tags: int, seed: int = 0) -> tuple[torch.Tensor, torch.Tensor]:
    torch.manual_seed(seed)
    return torch.randn(rows, words, num_tags), torch.randint(num_tags, (rows, words))


def prefix_mask(lengths: list[int], words: int) -> torch.Tensor:
    return torch.arange(words) < torch.tensor(lengths).unsqueeze(1)


def all_paths(decoder: Decoder, emissions: torch.Tensor, penalty: tuple | None = None) -> dict[tuple[int, ...], float]:
    """Score of every label path of one sentence [w, L], summed up term by term."""
    labels = range(decoder.num_tags)
    start = [0.0 for _ in labels]
    end = [0.0 for _ in labels]
    transition = [[0.0 for _ in labels] for _ in labels]
    if isinstance(decoder, LinearChainCrf):
        start = decoder.start_transitions.tolist()
        end = decoder.end_transitions.tolist()
        transition = decoder.transitions.tolist()
    if penalty is not None:
        start = [score + more for score, more in zip(start, penalty[0].tolist(), strict=True)]
        transition = (torch.tensor(transition) + penalty[1]).tolist()
    emission = emissions.tolist()
    scores = {}
    for path in itertools.product(labels, repeat=len(emission)):
        score = start[path[0]] + end[path[-1]]
        score += sum(emission[word][label] for word, label in enumerate(path))
        score += sum(transition[before][after] for before, after in itertools.pairwise(path))
        scores[path] = score
    return scores


HOLES = torch.tensor(
    [[0, 1, 0, 0, 1, 1, 0], [1, 0, 1, 1, 0, 0, 1], [0, 0, 0, 0, 0, 0, 1], [0, 0, 0, 1, 1, 1, 1]]
).bool()


@every_decoder
@pytest.mark.parametrize("num_tags", [1, 2, 3, 4])
@pytest.mark.parametrize("words", [1, 2, 3, 4])
def test_everything_equals_brute_force_over_all_paths(kind: str, words: int, num_tags: int) -> None:
    decoder = make_decoder(kind, num_tags, seed=words)
    emissions, tags = make_batch(1, words, num_tags, seed=num_tags)
    penalty = torch.randn(num_tags) * 3, torch.randn(num_tags, num_tags) * 3
    mask = torch.ones(1, words, dtype=torch.bool)
    scores = all_paths(decoder, emissions[0])
    penalised = all_paths(decoder, emissions[0], penalty)
    partition = sum(map(math.exp, scores.values()))
    gold = tuple(tags[0].tolist())

    assert decoder.loss(emissions, tags, mask).item() == pytest.approx(math.log(partition) - scores[gold], abs=1e-4)
    assert tuple(decoder.decode(emissions, mask)[0].tolist()) == max(scores, key=scores.get)
    assert tuple(decoder.decode(emissions, mask, penalty)[0].tolist()) == max(penalised, key=penalised.get)
    if kind == "crf":
        assert decoder.log_partition(emissions, mask).item() == pytest.approx(math.log(partition), abs=1e-4)

    marginals = decoder.marginals(emissions, mask)[0]
    for word, label in itertools.product(range(words), range(num_tags)):
        expected = sum(math.exp(score) for path, score in scores.items() if path[word] == label) / partition
        assert marginals[word, label].item() == pytest.approx(expected, abs=1e-5)

    spans = list(itertools.combinations(range(words + 1), 2))
    starts = [start for start, _ in spans]
    ends = [end for _, end in spans]
    labels = [list(gold[start:end]) for start, end in spans]
    probabilities = decoder.span_probability(emissions, mask, [0] * len(spans), starts, ends, labels)
    for (start, end), probability in zip(spans, probabilities.tolist(), strict=True):
        through = sum(math.exp(score) for path, score in scores.items() if path[start:end] == gold[start:end])
        assert probability == pytest.approx(through / partition, abs=1e-5)


def test_parameters_have_the_names_and_the_distribution_of_pytorch_crf() -> None:
    crf = LinearChainCrf(9)
    assert {name: parameter.shape for name, parameter in crf.named_parameters()} == {
        name: parameter.shape for name, parameter in torchcrf.CRF(9).named_parameters()
    }
    assert crf.transitions.abs().max() <= 0.1 and crf.transitions.std() > 0


@pytest.mark.parametrize("seed", range(5))
def test_contiguous_masks_give_the_values_of_pytorch_crf(seed: int) -> None:
    crf = make_crf(9, seed)
    reference = torchcrf.CRF(9, batch_first=True)
    reference.load_state_dict(crf.state_dict())
    emissions, tags = make_batch(8, 12, 9, seed)
    lengths = torch.randint(1, 13, (8,)).tolist()
    mask = prefix_mask(lengths, 12)
    torch.testing.assert_close(crf(emissions, tags, mask), reference(emissions, tags, mask, reduction="none"))
    paths = [row[row != -100].tolist() for row in crf.decode(emissions, mask)]
    assert paths == reference.decode(emissions, mask)


@every_decoder
@pytest.mark.parametrize("row", range(len(HOLES)))
def test_a_mask_with_holes_equals_the_sequence_without_the_masked_words(kind: str, row: int) -> None:
    decoder = make_decoder(kind, 4)
    emissions, tags = make_batch(*HOLES.shape, 4)
    real = HOLES[row]
    alone = emissions[row : row + 1, real]
    all_real = torch.ones(1, int(real.sum()), dtype=torch.bool)
    garbage = emissions.masked_fill(~HOLES.unsqueeze(2), float("nan")).requires_grad_()
    padded_tags = tags.masked_fill(~HOLES, -100)

    loss = decoder.loss(garbage, padded_tags, HOLES)
    torch.testing.assert_close(loss[row : row + 1], decoder.loss(alone, tags[row : row + 1, real], all_real))
    loss.sum().backward()
    assert torch.isfinite(garbage.grad).all() and (garbage.grad[~HOLES] == 0).all()

    penalty = torch.randn(4), torch.randn(4, 4)
    for more in (None, penalty):
        predictions = decoder.decode(garbage, HOLES, more)
        assert predictions[row, real].tolist() == decoder.decode(alone, all_real, more)[0].tolist()
        assert (predictions[~HOLES] == -100).all()

    marginals = decoder.marginals(garbage, HOLES)
    torch.testing.assert_close(marginals[row, real], decoder.marginals(alone, all_real)[0])
    assert (marginals[~HOLES] == 0).all()

    labels = [tags[row].tolist()]
    whole = decoder.span_probability(garbage, HOLES, [row], [0], [7], labels)
    expected = decoder.span_probability(alone, all_real, [0], [0], [int(real.sum())], [tags[row, real].tolist()])
    torch.testing.assert_close(whole, expected)


@every_decoder
def test_a_row_without_words_adds_nothing_and_has_no_gradient(kind: str) -> None:
    decoder = make_decoder(kind, 3)
    emissions, tags = make_batch(2, 4, 3)
    emissions.requires_grad_()
    mask = torch.tensor([[True] * 4, [False] * 4])
    loss = decoder.loss(emissions, tags.masked_fill(~mask, -100), mask)
    assert loss[1] == 0
    torch.testing.assert_close(loss[:1], decoder.loss(emissions[:1], tags[:1], mask[:1]))
    loss.sum().backward()
    assert torch.isfinite(emissions.grad).all() and (emissions.grad[1] == 0).all() and (emissions.grad[0] != 0).all()
    only_empty = torch.zeros(2, 4, dtype=torch.bool)
    assert decoder.loss(emissions, tags, only_empty).tolist() == [0, 0]
    assert (decoder.decode(emissions, only_empty) == -100).all()


@every_decoder
def test_a_batch_without_a_single_word_works(kind: str) -> None:
    decoder = make_decoder(kind, 3)
    emissions = torch.zeros(2, 0, 3)
    tags = torch.zeros(2, 0, dtype=torch.long)
    mask = torch.zeros(2, 0, dtype=torch.bool)
    assert decoder.loss(emissions, tags, mask).tolist() == [0, 0]
    assert decoder.decode(emissions, mask).shape == (2, 0)
    assert decoder.marginals(emissions, mask).shape == (2, 0, 3)


@every_decoder
@pytest.mark.parametrize("extra", [1, 5])
def test_padding_and_batch_mates_change_nothing(kind: str, extra: int) -> None:
    decoder = make_decoder(kind, 5)
    emissions, tags = make_batch(4, 6, 5)
    mask = prefix_mask([6, 3, 1, 4], 6)
    padded_emissions = torch.cat([emissions, torch.randn(4, extra, 5) * 100], dim=1)
    padded_tags = torch.nn.functional.pad(tags, (0, extra), value=-100)
    padded_mask = torch.nn.functional.pad(mask, (0, extra))
    together = decoder.loss(emissions, tags, mask)
    torch.testing.assert_close(decoder.loss(padded_emissions, padded_tags, padded_mask), together)
    assert decoder.decode(padded_emissions, padded_mask)[:, :6].equal(decoder.decode(emissions, mask))
    for row in range(4):
        one = slice(row, row + 1)
        torch.testing.assert_close(decoder.loss(emissions[one], tags[one], mask[one]), together[one])


@every_decoder
def test_gradients_are_expected_minus_gold_labels(kind: str) -> None:
    decoder = make_decoder(kind, 4)
    emissions, tags = make_batch(4, 7, 4)
    emissions.requires_grad_()
    decoder.loss(emissions, tags.masked_fill(~HOLES, -100), HOLES).sum().backward()
    gold = torch.nn.functional.one_hot(tags, 4) * HOLES.unsqueeze(2)
    torch.testing.assert_close(emissions.grad, decoder.marginals(emissions, HOLES) - gold, atol=1e-5, rtol=0)
    assert all((parameter.grad != 0).any() for parameter in decoder.parameters())
    assert torch.autograd.gradcheck(
        lambda scores: decoder.double().loss(scores, tags, HOLES), emissions.detach().double().requires_grad_()
    )


def test_gradients_of_all_scores_are_exact_to_double_precision() -> None:
    crf = make_crf(4).double()
    emissions, tags = make_batch(4, 7, 4)
    parameters = [crf.start_transitions, crf.transitions, crf.end_transitions]

    def loss(emissions: torch.Tensor, *_: torch.Tensor) -> torch.Tensor:
        return crf.loss(emissions, tags.masked_fill(~HOLES, -100), HOLES)

    assert torch.autograd.gradcheck(loss, [emissions.double().requires_grad_(), *parameters])


def test_the_loss_can_be_differentiated_once_and_says_so_when_asked_again() -> None:
    crf = make_crf(4)
    emissions, tags = make_batch(4, 7, 4)
    emissions.requires_grad_()
    weight = torch.ones(4, requires_grad=True)
    (gradient,) = torch.autograd.grad((crf.loss(emissions, tags, HOLES) * weight).sum(), emissions, create_graph=True)
    with pytest.raises(RuntimeError, match="once_differentiable"):
        gradient.sum().backward()


@pytest.mark.parametrize("scale", [1e-3, 1, 50])
def test_the_gradient_is_the_one_that_autograd_finds_for_pytorch_crf_whatever_the_size_of_scores(scale: float) -> None:
    crf = make_crf(5)
    for parameter in crf.parameters():
        parameter.data *= min(scale, 20)
    reference = torchcrf.CRF(5, batch_first=True).double()
    reference.load_state_dict(crf.state_dict())
    emissions, tags = make_batch(4, 9, 5)
    emissions = (emissions * scale * 100).requires_grad_()
    mask = prefix_mask([9, 1, 4, 7], 9)
    crf.loss(emissions, tags, mask).sum().backward()
    precise = emissions.detach().double().requires_grad_()
    (-reference(precise, tags, mask)).backward()
    torch.testing.assert_close(emissions.grad, precise.grad.float(), atol=1e-4, rtol=1e-4)
    for own, other in zip(crf.parameters(), reference.parameters(), strict=True):
        torch.testing.assert_close(own.grad, other.grad.float(), atol=1e-4, rtol=1e-4)
    expected = reference._compute_normalizer(precise.transpose(0, 1), mask.T)
    torch.testing.assert_close(crf.log_partition(emissions, mask), expected.detach().float(), rtol=1e-5, atol=1e-4)


@pytest.mark.parametrize("forbidden", [-1e4, float("-inf")])
def test_forbidden_transitions_have_no_probability(forbidden: float) -> None:
    crf = make_crf(3)
    crf.transitions.data[:, 2] = crf.start_transitions.data[2] = forbidden
    emissions, tags = make_batch(2, 5, 3)
    mask = prefix_mask([5, 2], 5)
    emissions[..., 2] = 20
    marginals = crf.marginals(emissions, mask)
    assert (marginals[..., 2] == 0).all()
    torch.testing.assert_close(marginals.sum(2), mask.float())
    assert (crf.decode(emissions, mask) != 2).all()
    assert crf.span_probability(emissions, mask, [0], [1], [3], [[0, 2]]).tolist() == [0]
    emissions.requires_grad_()
    crf.loss(emissions, tags.clamp(max=1), mask).sum().backward()
    assert all(torch.isfinite(gradient).all() for gradient in (emissions.grad, crf.transitions.grad))


@pytest.mark.parametrize("words", range(1, 7))
def test_of_equally_good_paths_one_is_taken_as_a_whole(words: int) -> None:
    crf = make_crf(3)
    for parameter in crf.parameters():
        parameter.data.zero_()
    crf.transitions.data[0, 0] = crf.transitions.data[1, 1] = crf.transitions.data[2, 2] = 1
    path = crf.decode(torch.zeros(1, words, 3), torch.ones(1, words, dtype=torch.bool))[0].tolist()
    assert len(set(path)) == 1


def test_a_model_that_has_diverged_still_decodes() -> None:
    crf = make_crf(3)
    emissions = torch.full((2, 4, 3), float("nan"))
    mask = prefix_mask([4, 2], 4)
    predictions = crf.decode(emissions, mask)
    assert ((predictions >= 0) & (predictions < 3))[mask].all()
    assert crf.loss(emissions, predictions, mask).isnan().all()


@every_decoder
@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_half_precision_around_a_decoder_does_not_reach_it(kind: str, dtype: torch.dtype) -> None:
    decoder = make_decoder(kind, 9)
    emissions, tags = make_batch(2, 40, 9)
    emissions = emissions.to(dtype)
    mask = prefix_mask([40, 25], 40)
    with torch.autocast("cpu", dtype=dtype):
        loss = decoder.loss(emissions, tags, mask)
        predictions = decoder.decode(emissions, mask)
        marginals = decoder.marginals(emissions, mask)
    assert loss.dtype == marginals.dtype == torch.float32
    torch.testing.assert_close(loss, decoder.loss(emissions.float(), tags, mask))
    assert predictions.equal(decoder.decode(emissions.float(), mask))
    torch.testing.assert_close(marginals, decoder.marginals(emissions.float(), mask))
    assert make_decoder(kind, 9).to(dtype).loss(emissions, tags, mask).dtype == torch.float32


@every_decoder
def test_no_probability_is_greater_than_one(kind: str) -> None:
    decoder = make_decoder(kind, 9)
    emissions, _ = make_batch(64, 40, 9)
    emissions *= 20  # most words are all but certain: rounding decides
    mask = torch.ones(64, 40, dtype=torch.bool)
    best = decoder.decode(emissions, mask).tolist()
    marginals = decoder.marginals(emissions, mask)
    assert marginals.max() > 0.999
    assert 0 <= marginals.min() and marginals.max() <= 1
    words = list(itertools.product(range(64), range(40)))
    rows = [row for row, _ in words]
    starts = [word for _, word in words]
    ends = [word + 1 for word in starts]
    probabilities = decoder.span_probability(emissions, mask, rows, starts, ends, [[best[r][w]] for r, w in words])
    assert 0 <= probabilities.min() and probabilities.max() <= 1


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU")
def test_cuda_gives_the_values_of_the_cpu_under_autocast() -> None:
    crf = make_crf(4)
    emissions, tags = make_batch(4, 7, 4)
    emissions = emissions.bfloat16()
    expected = crf(emissions, tags, HOLES), crf.decode(emissions, HOLES), crf.marginals(emissions, HOLES)
    crf.cuda()
    with torch.autocast("cuda", dtype=torch.bfloat16):
        arguments = emissions.cuda(), HOLES.cuda()
        found = crf(arguments[0], tags.cuda(), arguments[1]), crf.decode(*arguments), crf.marginals(*arguments)
    torch.testing.assert_close([value.cpu() for value in found], list(expected), atol=1e-5, rtol=1e-5)


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU")
def test_decoding_on_a_gpu_never_waits_for_it() -> None:
    crf = make_crf(4).cuda()
    emissions, mask = make_batch(4, 7, 4)[0].cuda(), HOLES.cuda()
    torch.cuda.set_sync_debug_mode("error")
    try:
        crf.decode(emissions, mask)
    finally:
        torch.cuda.set_sync_debug_mode("default")


@every_decoder
@pytest.mark.parametrize("context", [torch.no_grad, torch.inference_mode, torch.enable_grad])
def test_probabilities_work_with_and_without_gradient_mode(kind: str, context: type) -> None:
    decoder = make_decoder(kind, 4)
    emissions = make_batch(4, 7, 4)[0]
    expected = decoder.marginals(emissions, HOLES)
    with context():
        emissions, mask = emissions * 1, HOLES.clone()
        marginals = decoder.marginals(emissions, mask)
        single_words = decoder.span_probability(emissions, mask, [0, 1], [4, 2], [5, 3], [[2], [3]])
    torch.testing.assert_close(marginals, expected)
    assert not marginals.requires_grad and not single_words.requires_grad
    torch.testing.assert_close(single_words, torch.stack([marginals[0, 4, 2], marginals[1, 2, 3]]))


@every_decoder
def test_span_probabilities_of_all_labelings_sum_to_one_also_over_a_hole(kind: str) -> None:
    decoder = make_decoder(kind, 3)
    emissions = make_batch(4, 7, 3)[0]
    labelings = [[first, 0, second] for first in range(3) for second in range(3)]  # words 0, 1 (masked), 2 of row 1
    count = len(labelings)
    probabilities = decoder.span_probability(emissions, HOLES, [1] * count, [0] * count, [3] * count, labelings)
    assert probabilities.sum().item() == pytest.approx(1, abs=1e-5)
    assert decoder.span_probability(emissions, HOLES, [], [], [], []).shape == (0,)
    with pytest.raises(ValueError, match="Span 0 has 2 words but 1 labels"):
        decoder.span_probability(emissions, HOLES, [0], [0], [2], [[1]])


@every_decoder
def test_the_transition_penalty_makes_every_decoded_path_legal_and_changes_no_legal_one(kind: str) -> None:
    labels = ["O", "B-PER", "I-PER", "B-LOC", "I-LOC", "X"]
    decoder = make_decoder(kind, len(labels))
    penalty = bio_transition_penalty(dict(enumerate(labels)))
    emissions, _ = make_batch(64, 6, len(labels))
    mask = prefix_mask([6, 3, 5, 1] * 16, 6)

    def tag_rows(predictions: torch.Tensor) -> list[list[str]]:
        return [[labels[label] for label in row if label >= 0] for row in predictions.tolist()]

    def is_legal(tags: list[str]) -> bool:
        return entity_spans(tags) == entity_spans(tags, strict=True)

    free = tag_rows(decoder.decode(emissions, mask))
    constrained = tag_rows(decoder.decode(emissions, mask, penalty))
    assert not all(map(is_legal, free)) and any(map(is_legal, free))
    assert all(map(is_legal, constrained))
    assert all(after == before for before, after in zip(free, constrained, strict=True) if is_legal(before))


def test_torch_compile_takes_all_of_the_loss_for_every_length_without_compiling_again() -> None:
    crf = make_crf(4)
    scale = torch.nn.Parameter(torch.tensor(2.0))
    compilations = []

    def backend(graph: torch.fx.GraphModule, inputs: list) -> torch.fx.GraphModule:
        compilations.append(graph)
        return graph

    def loss(emissions: torch.Tensor, tags: torch.Tensor, mask: torch.Tensor) -> torch.Tensor:
        return crf.loss(emissions * scale, tags, mask).mean()

    compiled = torch.compile(loss, backend=backend, fullgraph=True)
    counts = []
    for words in (5, 6, 7, 8, 9):
        emissions, tags = make_batch(3, words, 4)
        mask = prefix_mask([words, 3, 1], words)
        torch.testing.assert_close(compiled(emissions, tags, mask), loss(emissions, tags, mask))
        counts.append(len(compilations))
    assert counts[-1] == counts[1]
    aot = torch.compile(loss, backend="aot_eager", fullgraph=True)
    aot(emissions, tags, mask).backward()
    compiled_gradients = [scale.grad, *(parameter.grad for parameter in crf.parameters())]
    scale.grad = None
    crf.zero_grad()
    loss(emissions, tags, mask).backward()
    torch.testing.assert_close(compiled_gradients, [scale.grad, *(parameter.grad for parameter in crf.parameters())])


@every_decoder
def test_torch_compile_takes_all_of_decoding_and_marginals(kind: str) -> None:
    decoder = make_decoder(kind, 4)
    emissions = make_batch(4, 7, 4)[0]

    def both(emissions: torch.Tensor, mask: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        return decoder.decode(emissions, mask), decoder.marginals(emissions, mask)

    compiled = torch.compile(both, backend="aot_eager", fullgraph=True)
    torch.testing.assert_close(compiled(emissions, HOLES), both(emissions, HOLES))


def test_decoding_and_loss_export_for_every_number_of_posts_and_words() -> None:
    class Both(torch.nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.crf = make_crf(4)

        def forward(
            self, emissions: torch.Tensor, tags: torch.Tensor, mask: torch.Tensor
        ) -> tuple[torch.Tensor, torch.Tensor]:
            return self.crf.decode(emissions, mask), self.crf.loss(emissions, tags, mask)

    module = Both()
    sizes = {0: torch.export.Dim("posts"), 1: torch.export.Dim("words")}
    exported = torch.export.export(module, (*make_batch(4, 7, 4), HOLES), dynamic_shapes=(sizes, sizes, sizes))
    batch = *make_batch(3, 12, 4, seed=1), prefix_mask([12, 0, 5], 12)
    torch.testing.assert_close(exported.module()(*batch), module(*batch))


@pytest.mark.parametrize("name", ["forward_backward", "negative_log_likelihood", "viterbi"])
def test_what_the_operators_say_of_themselves_is_true(name: str) -> None:
    crf = make_crf(4)
    emissions, tags = make_batch(4, 7, 4)
    scores = crf.start_transitions, crf.transitions, crf.end_transitions
    if name == "negative_log_likelihood":
        arguments = emissions.requires_grad_(), tags, HOLES, *scores
    else:
        arguments = emissions, HOLES, *(score.detach() for score in scores)
    checks = ["test_schema", "test_faketensor", "test_aot_dispatch_dynamic"]
    result = torch.library.opcheck(getattr(decoders, name), arguments, test_utils=checks)
    assert set(result.values()) == {"SUCCESS"}


def test_wrong_shapes_get_a_clear_error() -> None:
    crf = make_crf(4)
    emissions, tags = make_batch(2, 3, 4)
    with pytest.raises(ValueError, match=r"tags \(2, 2\) of the words do not fit emissions \(2, 3, 4\)"):
        crf(emissions, tags[:, :2], prefix_mask([3, 2], 3))
    with pytest.raises(ValueError, match=r"Emissions \(2, 3, 3\): give \[posts, words, 4 labels\]"):
        crf.decode(emissions[..., :3], prefix_mask([3, 2], 3))
    with pytest.raises(ValueError, match=r"mask \(2, 2\) of the words do not fit"):
        crf.decode(emissions, prefix_mask([2, 2], 2))
