"""The CRF against pytorch-crf: training, decoding and probabilities, side by side on one core.

    python -m benchmarks.label_decoder_speed

pytorch-crf has no probabilities of words: they are the gradient of its log partition, by autograd.
"""

import time

import torch
import torchcrf

from modeling_umgf.decoders import LinearChainCrf

from .record import write_result
from .side_by_side import side_by_side

POSTS = 64
WORDS = 32
LABELS = 9
ROUNDS = 100
REPEATS = 5


def marginals_by_autograd(crf: torchcrf.CRF, emissions: torch.Tensor, mask: torch.Tensor) -> torch.Tensor:
    emissions = emissions.detach().requires_grad_()
    log_partition = crf._compute_normalizer(emissions.transpose(0, 1), mask.transpose(0, 1))
    return torch.autograd.grad(log_partition.sum(), emissions)[0]


def compare(mask: torch.Tensor) -> dict[str, dict[str, float]]:
    """Milliseconds of both, and how many times faster the package is, on posts whose words the mask says."""
    theirs = torchcrf.CRF(LABELS, batch_first=True)
    ours = LinearChainCrf(LABELS)
    ours.load_state_dict(theirs.state_dict())
    emissions = torch.randn(POSTS, WORDS, LABELS, requires_grad=True)
    tags = torch.randint(LABELS, (POSTS, WORDS))
    scores = emissions.detach()
    functions = {
        "loss and gradient, pytorch-crf": lambda: theirs(emissions, tags, mask).backward(),
        "loss and gradient, package": lambda: ours.loss(emissions, tags, mask).sum().backward(),
        "decoding, pytorch-crf": lambda: theirs.decode(scores, mask),
        "decoding, package": lambda: ours.decode(scores, mask),
        "marginals, pytorch-crf": lambda: marginals_by_autograd(theirs, scores, mask),
        "marginals, package": lambda: ours.marginals(scores, mask),
    }
    seconds = side_by_side(functions, ROUNDS, REPEATS)
    torch.testing.assert_close(ours.marginals(scores, mask), marginals_by_autograd(theirs, scores, mask))
    rows = {}
    for work in ("loss and gradient", "decoding", "marginals"):
        reference = seconds[f"{work}, pytorch-crf"]
        own = seconds[f"{work}, package"]
        milliseconds = {"pytorch_crf_ms": round(1000 * reference, 2), "package_ms": round(1000 * own, 2)}
        rows[work] = milliseconds | {"times_faster": round(reference / own, 1)}
    return rows


def main() -> None:
    begin = time.time()
    torch.set_num_threads(1)
    torch.manual_seed(0)
    lengths = torch.randint(5, WORDS + 1, (POSTS, 1))
    lengths[0] = WORDS
    results = {
        f"all posts of {WORDS} words": compare(torch.ones(POSTS, WORDS, dtype=torch.bool)),
        f"posts of 5 to {WORDS} words": compare(torch.arange(WORDS) < lengths),
    }
    configuration = {"posts": POSTS, "words": WORDS, "labels": LABELS, "device": "cpu", "threads": 1}
    configuration |= {"time": f"processor time, median of {ROUNDS} rounds of {REPEATS} calls"}
    print(write_result("label_decoder_speed", configuration, results, time.time() - begin, ("pytorch-crf",)))
    for name, rows in results.items():
        for work, row in rows.items():
            print(f"{name}: {work}: {row}")


if __name__ == "__main__":
    main()
