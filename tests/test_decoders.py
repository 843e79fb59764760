"""The CRF against brute force and against pytorch-crf."""

import itertools
import math

import pytest
import torch
import torchcrf

from modeling_umgf.crf import LinearChainCrf
from modeling_umgf.labels import bio_transition_penalty, entity_spans


def make_crf(num_tags: int, seed: int = 0) -> LinearChainCrf:
    torch.manual_seed(seed)
    crf = LinearChainCrf(num_tags)
    for parameter in crf.parameters():
        torch.nn.init.normal_(parameter)
    return crf


def make_batch(rows: int, words: int, num_tags: int, seed: int = 0) -> tuple[torch.Tensor, torch.Tensor]:
    torch.manual_seed(seed)
    return torch.randn(rows, words, num_tags), torch.randint(num_tags, (rows, words))


def prefix_mask(lengths: list[int], words: int) -> torch.Tensor:
    return torch.arange(words) < torch.tensor(lengths).unsqueeze(1)


def all_paths(crf: LinearChainCrf, emissions: torch.Tensor) -> dict[tuple[int, ...], float]:
    """Score of every label path of one sentence [w, L], summed up term by term."""
    emission, transition = emissions.tolist(), crf.transitions.tolist()
    start, end = crf.start_transitions.tolist(), crf.end_transitions.tolist()
    return {
        path: start[path[0]]
        + end[path[-1]]
        + sum(emission[word][label] for word, label in enumerate(path))
        + sum(transition[before][after] for before, after in itertools.pairwise(path))
        for path in itertools.product(range(crf.num_tags), repeat=len(emissions))
    }


HOLES = torch.tensor(
    [[0, 1, 0, 0, 1, 1, 0], [1, 0, 1, 1, 0, 0, 1], [0, 0, 0, 0, 0, 0, 1], [0, 0, 0, 1, 1, 1, 1]]
).bool()


@pytest.mark.parametrize("num_tags", [1, 2, 3, 4])
@pytest.mark.parametrize("words", [1, 2, 3, 4])
def test_everything_equals_brute_force_over_all_paths(words: int, num_tags: int) -> None:
    crf = make_crf(num_tags, seed=words)
    emissions, tags = make_batch(1, words, num_tags, seed=num_tags)
    mask = torch.ones(1, words, dtype=torch.bool)
    scores = all_paths(crf, emissions[0])
    partition = sum(map(math.exp, scores.values()))
    gold = tuple(tags[0].tolist())

    assert crf.log_partition(emissions, mask).item() == pytest.approx(math.log(partition), abs=1e-4)
    assert crf(emissions, tags, mask).item() == pytest.approx(scores[gold] - math.log(partition), abs=1e-4)
    assert tuple(crf.decode(emissions, mask)[0].tolist()) == max(scores, key=scores.get)

    marginals = crf.marginals(emissions, mask)[0]
    for word, label in itertools.product(range(words), range(num_tags)):
        expected = sum(math.exp(score) for path, score in scores.items() if path[word] == label) / partition
        assert marginals[word, label].item() == pytest.approx(expected, abs=1e-5)

    spans = [(start, end) for start in range(words) for end in range(start + 1, words + 1)]
    starts, ends = zip(*spans, strict=True)
    labels = [list(gold[start:end]) for start, end in spans]
    probabilities = crf.span_probability(emissions, mask, [0] * len(spans), starts, ends, labels)
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


@pytest.mark.parametrize("row", range(len(HOLES)))
def test_a_mask_with_holes_equals_the_sequence_without_the_masked_words(row: int) -> None:
    crf = make_crf(4)
    emissions, tags = make_batch(*HOLES.shape, 4)
    real = HOLES[row]
    alone, all_real = emissions[row : row + 1, real], torch.ones(1, int(real.sum()), dtype=torch.bool)
    garbage = emissions.masked_fill(~HOLES.unsqueeze(2), float("nan"))
    padded_tags = tags.masked_fill(~HOLES, -100)

    torch.testing.assert_close(
        crf(garbage, padded_tags, HOLES)[row : row + 1], crf(alone, tags[row : row + 1, real], all_real)
    )
    predictions = crf.decode(garbage, HOLES)
    assert predictions[row, real].tolist() == crf.decode(alone, all_real)[0].tolist()
    assert (predictions[~HOLES] == -100).all()
    marginals = crf.marginals(emissions, HOLES)
    torch.testing.assert_close(marginals[row, real], crf.marginals(alone, all_real)[0])
    assert (marginals[~HOLES] == 0).all()


def test_a_row_without_words_adds_nothing_and_has_no_gradient() -> None:
    crf = make_crf(3)
    emissions, tags = make_batch(2, 4, 3)
    emissions.requires_grad_()
    mask = torch.tensor([[True] * 4, [False] * 4])
    log_likelihood = crf(emissions, tags.masked_fill(~mask, -100), mask)
    assert log_likelihood[1] == 0
    torch.testing.assert_close(log_likelihood[:1], crf(emissions[:1], tags[:1], mask[:1]))
    log_likelihood.sum().backward()
    assert torch.isfinite(emissions.grad).all() and (emissions.grad[1] == 0).all() and (emissions.grad[0] != 0).all()
    only_empty = torch.zeros(2, 4, dtype=torch.bool)
    assert crf(emissions, tags, only_empty).tolist() == [0, 0]
    assert (crf.decode(emissions, only_empty) == -100).all()


def test_a_batch_without_a_single_word_works() -> None:
    crf = make_crf(3)
    emissions, tags, mask = torch.zeros(2, 0, 3), torch.zeros(2, 0, dtype=torch.long), torch.zeros(2, 0).bool()
    assert crf(emissions, tags, mask).tolist() == [0, 0]
    assert crf.decode(emissions, mask).shape == (2, 0)
    assert crf.marginals(emissions, mask).shape == (2, 0, 3)


@pytest.mark.parametrize("extra", [1, 5])
def test_padding_and_batch_mates_change_nothing(extra: int) -> None:
    crf = make_crf(5)
    emissions, tags = make_batch(4, 6, 5)
    mask = prefix_mask([6, 3, 1, 4], 6)
    padded_emissions = torch.cat([emissions, torch.randn(4, extra, 5) * 100], dim=1)
    padded_tags = torch.nn.functional.pad(tags, (0, extra), value=-100)
    padded_mask = torch.nn.functional.pad(mask, (0, extra))
    together = crf(emissions, tags, mask)
    torch.testing.assert_close(crf(padded_emissions, padded_tags, padded_mask), together)
    assert crf.decode(padded_emissions, padded_mask)[:, :6].equal(crf.decode(emissions, mask))
    for row in range(4):
        one = slice(row, row + 1)
        torch.testing.assert_close(crf(emissions[one], tags[one], mask[one]), together[one])


def test_gradients_are_gold_minus_expected_labels() -> None:
    crf = make_crf(4)
    emissions, tags = make_batch(4, 7, 4)
    emissions.requires_grad_()
    crf(emissions, tags.masked_fill(~HOLES, -100), HOLES).sum().backward()
    gold = torch.nn.functional.one_hot(tags, 4) * HOLES.unsqueeze(2)
    torch.testing.assert_close(emissions.grad, gold - crf.marginals(emissions, HOLES), atol=1e-5, rtol=0)
    assert all((parameter.grad != 0).any() for parameter in crf.parameters())
    assert torch.autograd.gradcheck(
        lambda scores: crf.double()(scores, tags, HOLES), emissions.detach().double().requires_grad_()
    )


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_half_precision_around_the_crf_does_not_reach_it(dtype: torch.dtype) -> None:
    crf = make_crf(9)
    emissions, tags = make_batch(2, 40, 9)
    emissions = emissions.to(dtype)
    mask = prefix_mask([40, 25], 40)
    expected = crf(emissions.float(), tags, mask)
    with torch.autocast("cpu", dtype=dtype):
        log_likelihood = crf(emissions, tags, mask)
        predictions = crf.decode(emissions, mask)
        marginals = crf.marginals(emissions, mask)
    assert log_likelihood.dtype == marginals.dtype == torch.float32
    assert log_likelihood.equal(expected)
    assert predictions.equal(crf.decode(emissions.float(), mask))
    assert marginals.equal(crf.marginals(emissions.float(), mask))
    half = make_crf(9).to(dtype)
    assert half(emissions, tags, mask).dtype == torch.float32


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


@pytest.mark.parametrize("context", [torch.no_grad, torch.inference_mode, torch.enable_grad])
def test_probabilities_work_with_and_without_gradient_mode(context: type) -> None:
    crf = make_crf(4)
    emissions = make_batch(4, 7, 4)[0]
    expected = crf.marginals(emissions, HOLES)
    with context():
        emissions, mask = emissions * 1, HOLES.clone()
        marginals = crf.marginals(emissions, mask)
        single_words = crf.span_probability(emissions, mask, [0, 1], [4, 2], [5, 3], [[2], [3]])
    assert marginals.equal(expected) and not marginals.requires_grad
    torch.testing.assert_close(single_words, torch.stack([marginals[0, 4, 2], marginals[1, 2, 3]]))


def test_span_probabilities_of_all_labelings_sum_to_one_also_over_a_hole() -> None:
    crf = make_crf(3)
    emissions = make_batch(4, 7, 3)[0]
    labelings = [[first, 0, second] for first in range(3) for second in range(3)]  # words 0, 1 (masked), 2 of row 1
    count = len(labelings)
    probabilities = crf.span_probability(emissions, HOLES, [1] * count, [0] * count, [3] * count, labelings)
    assert probabilities.sum().item() == pytest.approx(1, abs=1e-5)
    assert crf.span_probability(emissions, HOLES, [], [], [], []).shape == (0,)
    with pytest.raises(ValueError, match="Span 0 has 2 words but 1 labels"):
        crf.span_probability(emissions, HOLES, [0], [0], [2], [[1]])


def test_the_transition_penalty_makes_every_decoded_path_legal_and_changes_no_legal_one() -> None:
    labels = ["O", "B-PER", "I-PER", "B-LOC", "I-LOC", "X"]
    crf = make_crf(len(labels))
    penalty = bio_transition_penalty(dict(enumerate(labels)))
    emissions, _ = make_batch(64, 6, len(labels))
    mask = prefix_mask([6, 3, 5, 1] * 16, 6)

    def tag_rows(predictions: torch.Tensor) -> list[list[str]]:
        return [[labels[label] for label in row if label >= 0] for row in predictions.tolist()]

    def is_legal(tags: list[str]) -> bool:
        return entity_spans(tags) == entity_spans(tags, strict=True)

    free, constrained = tag_rows(crf.decode(emissions, mask)), tag_rows(crf.decode(emissions, mask, penalty))
    assert not all(map(is_legal, free)) and any(map(is_legal, free))
    assert all(map(is_legal, constrained))
    assert all(after == before for before, after in zip(free, constrained, strict=True) if is_legal(before))


def test_torch_compile_gives_the_same_loss_for_every_length_without_compiling_again() -> None:
    crf = make_crf(4)
    scale = torch.nn.Parameter(torch.tensor(2.0))
    compilations = []

    def backend(graph: torch.fx.GraphModule, inputs: list) -> torch.fx.GraphModule:
        compilations.append(graph)
        return graph

    def loss(emissions: torch.Tensor, tags: torch.Tensor, mask: torch.Tensor) -> torch.Tensor:
        return -crf(emissions * scale, tags, mask).mean()

    compiled = torch.compile(loss, backend=backend)
    counts = []
    for words in (5, 6, 7, 8, 9):
        emissions, tags = make_batch(3, words, 4)
        mask = prefix_mask([words, 3, 1], words)
        torch.testing.assert_close(compiled(emissions, tags, mask), loss(emissions, tags, mask))
        counts.append(len(compilations))
    assert counts[-1] == counts[1]
    aot = torch.compile(loss, backend="aot_eager")
    aot(emissions, tags, mask).backward()
    compiled_gradient, scale.grad = scale.grad, None
    loss(emissions, tags, mask).backward()
    torch.testing.assert_close(compiled_gradient, scale.grad)


def test_decoding_exports() -> None:
    class Decoder(torch.nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.crf = make_crf(4)

        def forward(self, emissions: torch.Tensor, mask: torch.Tensor) -> torch.Tensor:
            return self.crf.decode(emissions, mask)

    decoder = Decoder()
    emissions = make_batch(4, 7, 4)[0]
    exported = torch.export.export(decoder, (emissions, HOLES))
    flipped = emissions.flip(0), HOLES.flip(0)
    assert exported.module()(*flipped).equal(decoder(*flipped))


def test_wrong_shapes_get_a_clear_error() -> None:
    crf = make_crf(4)
    emissions, tags = make_batch(2, 3, 4)
    with pytest.raises(ValueError, match="first two dimensions of emissions and tags must match"):
        crf(emissions, tags[:, :2], prefix_mask([3, 2], 3))
    with pytest.raises(ValueError, match="expected last dimension of emissions is 4, got 3"):
        crf.decode(emissions[..., :3], prefix_mask([3, 2], 3))
    with pytest.raises(ValueError, match="mask"):
        crf.decode(emissions, prefix_mask([2, 2], 2))
