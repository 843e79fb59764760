"""The one scorer: whole entities over the whole corpus, in %, lenient and strict, with intervals and a paired test.

Entities are read as seqeval reads them (see `entity_spans`). Lenient is its default, as in conlleval: an I- without a
beginning opens an entity. Strict is IOB2: such an I- is ignored. Nothing is averaged over batches.
"""

from collections.abc import Iterable, Sequence
from typing import Any

import datasets
import evaluate
import numpy as np

from .labels import Span, entity_spans

Tags = Sequence[Sequence[str | None]]  # a BIO tag for each word of each sentence; whatever is not BIO counts as O


def evaluate_tags(gold: Tags, predicted: Tags, bootstrap_samples: int = 0, seed: int = 0) -> dict[str, float]:
    """Precision, recall and F1 of the entities of a corpus; an entity is correct if its words and its type are.

    Args:
        gold: the tags of each sentence.
        predicted: the predicted ones; a missing prediction (None, -100) counts as O.
        bootstrap_samples: resamples of the sentences behind the 95 % interval of F1 (1000 is usual); 0 = no interval.
        seed: seed of the resampling.

    Returns:
        `precision`, `recall`, `f1` in % and `support` (gold entities); the same of every type that occurs, as `PER_f1`;
        with bootstrap samples `f1_low` and `f1_high`. All of it again for the strict reading, as `strict_f1`,
        `strict_PER_f1`, `strict_f1_low`.

    Raises:
        ValueError: there are no sentences, or gold and predicted tags do not pair up.
    """
    results = {}
    for strict in (False, True):
        prefix = "strict_" if strict else ""
        types, counts = entity_counts(gold, predicted, strict)
        results |= _by_name(prefix, types, precision_recall_f1(counts.sum(0)), counts)
        if bootstrap_samples:
            low, high = pooled_interval(counts[:, :1], bootstrap_samples, seed)
            results |= {f"{prefix}f1_low": low, f"{prefix}f1_high": high}
    return results


def paired_randomization_test(
    gold: Tags, first: Tags, second: Tags, strict: bool = False, samples: int = 10_000, seed: int = 0
) -> dict[str, float]:
    """Approximate randomisation: how often would swapping the two predictions at random give such a difference of F1?

    Args:
        gold: the tags of each sentence.
        first: a prediction.
        second: another one for the same sentences.
        strict: read entities strictly.
        samples: random swaps.
        seed: their seed.

    Returns:
        `difference`: F1 of the first minus F1 of the second, in points; `p_value`, two-sided.

    Raises:
        ValueError: as `evaluate_tags`.
    """
    counts, other_counts = (run_counts(gold, [predicted], strict) for predicted in (first, second))
    return pooled_randomization_test(counts, other_counts, samples, seed)


def pooled_randomization_test(
    counts: np.ndarray, other_counts: np.ndarray, samples: int = 10_000, seed: int = 0
) -> dict[str, float]:
    """`paired_randomization_test` of two systems that were trained with several seeds each.

    What is compared is the mean F1 of the runs. A random swap exchanges all predictions for a post at once, since those
    of one system for one post depend on each other.

    Args:
        counts: of a system [sentences, runs, 3], as `run_counts` gives them.
        other_counts: those of another one for the same sentences, with the same seeds in the same order.
        samples: random swaps.
        seed: their seed.

    Returns:
        `difference`: mean F1 of the first minus mean F1 of the second, in points; `p_value`, two-sided.

    Raises:
        ValueError: there are not as many sentences and runs of both.
    """
    if counts.shape != other_counts.shape:
        (sentences, runs, _), (other_sentences, other_runs, _) = counts.shape, other_counts.shape
        raise ValueError(
            f"Cannot pair {runs} runs over {sentences} sentences with {other_runs} over {other_sentences}."
        )

    def difference(gained_by_first: np.ndarray) -> np.ndarray:
        f1 = precision_recall_f1(counts.sum(0) + gained_by_first)[..., 2]
        other_f1 = precision_recall_f1(other_counts.sum(0) - gained_by_first)[..., 2]
        return (f1 - other_f1).mean(-1)

    swapped = other_counts - counts
    swapped = swapped[swapped.any((1, 2))]
    rng = np.random.default_rng(seed)
    observed = difference(np.zeros(counts.shape[1:], dtype=int))
    as_large = 0
    for sample in np.array_split(np.arange(samples), -(-samples // 1000)):  # a thousand at a time, to save memory
        swaps = rng.integers(2, size=(len(sample), len(swapped)))
        gained = np.tensordot(swaps, swapped, axes=1)  # [samples, runs, 3]
        as_large += int((np.abs(difference(gained)) >= abs(observed) - 1e-9).sum())
    return {"difference": float(observed), "p_value": (as_large + 1) / (samples + 1)}


def pooled_interval(counts: np.ndarray, samples: int = 1000, seed: int = 0) -> tuple[float, float]:
    """The 95 % bootstrap interval of the mean F1 of several runs over resampled sentences.

    Args:
        counts: [sentences, runs, 3], as `run_counts` gives them.
        samples: resamples of the sentences.
        seed: seed of the resampling.
    """
    sentences = len(counts)
    drawn = np.random.default_rng(seed).multinomial(sentences, np.full(sentences, 1 / sentences), size=samples)
    f1 = precision_recall_f1(np.tensordot(drawn, counts, axes=1))[..., 2].mean(-1)
    low, high = np.quantile(f1, [0.025, 0.975])
    return float(low), float(high)


def run_counts(gold: Tags, predictions: Sequence[Tags], strict: bool = False) -> np.ndarray:
    """Count the entities of each sentence in each run: correct, predicted, gold; int [sentences, runs, 3].

    Raises:
        ValueError: as `evaluate_tags`.
    """
    return np.stack([entity_counts(gold, predicted, strict)[1][:, 0] for predicted in predictions], axis=1)


def fragment_f1(
    gold: Tags, predicted: Tags, pieces_per_word: Iterable[Sequence[int]], batch_size: int = 64
) -> dict[str, float]:
    """F1 of fragments of entities, averaged over batches: the published measure of Zhao et al., ACM Multimedia 2022.

    For comparison with their numbers only, since it does not count entities. A word's pieces after the first are
    labelled X there, which counts as O and so cuts an entity after every word with more than one piece; each fragment
    is scored alone. Scores are computed for each batch, 0 for a type that is absent from it, rounded to four digits and
    averaged over the batches. (Their code also leaves out the last incomplete batch; this function scores all
    sentences.)

    Args:
        gold: the tags of each sentence.
        predicted: the predicted ones.
        pieces_per_word: number of word pieces of each word of each sentence; a word without pieces is left out.
        batch_size: sentences in a batch, 64 in their code.

    Returns:
        The lenient keys of `evaluate_tags`; `support` counts gold fragments.

    Raises:
        ValueError: as `evaluate_tags`, or a sentence has another number of words than of tags.
    """
    pieces_per_word = list(pieces_per_word)
    types, counts = entity_counts(_piece_tags(gold, pieces_per_word), _piece_tags(predicted, pieces_per_word))
    batches = np.add.reduceat(counts, np.arange(0, len(counts), batch_size))  # [batches, 1 + types, 3]
    scores = precision_recall_f1(batches).round(2).mean(0)  # four digits of a share are two of a percentage
    return _by_name("", types, scores, counts)


def entity_counts(gold: Tags, predicted: Tags, strict: bool = False) -> tuple[list[str], np.ndarray]:
    """Count the entities of each sentence.

    Args:
        gold: the tags of each sentence.
        predicted: the predicted ones.
        strict: read entities strictly.

    Returns:
        The types that occur, sorted, and int counts [sentences, 1 + types, 3]: of all types together, then of each;
        correct, predicted, gold.

    Raises:
        ValueError: as `evaluate_tags`.
    """
    if len(gold) == 0 or len(gold) != len(predicted):
        raise ValueError(f"Cannot score {len(predicted)} predicted sentences against {len(gold)} gold ones.")
    spans: list[tuple[set[Span], set[Span]]] = []
    found_types: set[str] = set()
    for index, (gold_tags, predicted_tags) in enumerate(zip(gold, predicted, strict=True)):
        if isinstance(gold_tags, str) or isinstance(predicted_tags, str):
            raise ValueError("Give a list of sentences, each a list of tags, not one list of tags.")
        if len(gold_tags) != len(predicted_tags):
            raise ValueError(
                f"Sentence {index} (counted from 0) has {len(gold_tags)} gold tags but {len(predicted_tags)} predicted."
            )
        in_gold = set(entity_spans(gold_tags, strict))
        in_predicted = set(entity_spans(predicted_tags, strict))
        spans.append((in_gold, in_predicted))
        found_types.update(entity_type for _, _, entity_type in in_gold | in_predicted)
    types = sorted(found_types)
    row_of = {entity_type: row for row, entity_type in enumerate(types, start=1)}
    counts = np.zeros((len(spans), 1 + len(types), 3), dtype=int)
    for sentence, (in_gold, in_predicted) in enumerate(spans):
        for column, found in enumerate((in_gold & in_predicted, in_predicted, in_gold)):
            counts[sentence, 0, column] = len(found)
            for _, _, entity_type in found:
                counts[sentence, row_of[entity_type], column] += 1
    return types, counts


def precision_recall_f1(counts: np.ndarray) -> np.ndarray:
    """Return precision, recall, F1 [..., 3] in % of counts [..., 3] (correct, predicted, gold); 0 where undefined."""
    correct, predicted, gold = np.moveaxis(counts, -1, 0)
    total = np.stack([predicted, gold, predicted + gold], axis=-1)
    share = np.stack([correct, correct, 2 * correct], axis=-1)
    return 100 * np.divide(share, total, out=np.zeros(total.shape), where=total > 0)


class SeqevalMetric(evaluate.Metric):
    """`evaluate_tags` as a metric of the evaluate library, without `evaluate.load` and so without network.

    `compute` takes `predictions` and `references`, one list of BIO tags (or None, which counts as O) for each sentence,
    and further arguments of `evaluate_tags`.

    Examples:
        >>> SeqevalMetric().compute(predictions=[["B-PER", "O"]], references=[["B-PER", None]])["f1"]
        100.0

    Args:
        keep_in_memory: keep the tags in memory until they are scored, not in a file of the cache.
        settings: the other arguments of `evaluate.Metric`.
    """

    def __init__(self, *, keep_in_memory: bool = True, **settings: Any):
        super().__init__(keep_in_memory=keep_in_memory, **settings)

    def _info(self) -> evaluate.MetricInfo:
        sentences_of_tags = datasets.List(datasets.Value("string"))
        return evaluate.MetricInfo(
            description="Precision, recall and F1 of whole entities in BIO tags, lenient and strict, in %.",
            citation="",
            inputs_description="predictions and references: one list of BIO tags for each sentence.",
            features=datasets.Features({"predictions": sentences_of_tags, "references": sentences_of_tags}),
        )

    def _compute(self, predictions: Tags, references: Tags, **settings: int) -> dict[str, float]:
        return evaluate_tags(references, predictions, **settings)


def _piece_tags(sentences: Tags, pieces_per_word: Sequence[Sequence[int]]) -> list[list[str | None]]:
    """The tags of word pieces: a word's tag at its first piece, X at the others."""
    tags_of_pieces = []
    for index, (tags, counts) in enumerate(zip(sentences, pieces_per_word, strict=True)):
        if len(tags) != len(counts):
            raise ValueError(f"Sentence {index} (counted from 0) has {len(tags)} tags for {len(counts)} words.")
        pieces: list[str | None] = []
        for tag, count in zip(tags, counts, strict=True):
            if count:
                pieces += [tag] + ["X"] * (count - 1)
        tags_of_pieces.append(pieces)
    return tags_of_pieces


def _by_name(prefix: str, types: list[str], scores: np.ndarray, counts: np.ndarray) -> dict[str, float]:
    results = {}
    support = counts[..., 2].sum(0)
    names = [""] + [f"{entity_type}_" for entity_type in types]
    for row, name in enumerate(names):
        precision, recall, f1 = scores[row].tolist()
        results[f"{prefix}{name}precision"] = precision
        results[f"{prefix}{name}recall"] = recall
        results[f"{prefix}{name}f1"] = f1
        results[f"{prefix}{name}support"] = int(support[row])
    return results
