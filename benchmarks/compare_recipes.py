"""Intervals of the rows of a table, and tests against their text-only twins, from the predictions of all seeds.

    python -m benchmarks.compare_recipes recipes/offline/twitter2017

reads the predictions of all finished runs of these recipes in --runs_dir, and writes
benchmarks/results/recipes/<data set>/statistics.json. Test posts are the units: the interval is over resampled posts,
the paired randomisation test swaps all seeds' predictions for a post at once, and its p values are corrected over the
rows of the data set (Holm). Beside them stands what a test of means can't tell: what kinds of errors a row makes, and
in how many posts it finds other entities than its twin does, than with another seed, or with the pictures of other
posts. A row whose predictions are not all here keeps what was stored before, as long as it is of the same runs.
"""

import argparse
import itertools
import json
import statistics
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from modeling_umgf.evaluation import Tags, evaluate_tags, pooled_interval, pooled_randomization_test
from modeling_umgf.files import write_whole
from modeling_umgf.labels import entity_spans

from .recipes import Recipe
from .record import RECIPE_RESULTS

STATISTICS = "statistics.json"
OTHER_PICTURES = {"other_pictures": "test_shuffled_pictures", "no_pictures": "test_without_pictures"}


class NoPredictions(Exception):
    """Predictions are not here, or not those that are needed."""


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("folders", nargs="+", help="folders of recipes, such as recipes/offline/twitter2017")
    parser.add_argument("--runs_dir", default="runs", help="folder of the predictions (default runs)")
    parser.add_argument("--results_dir", default=RECIPE_RESULTS, help="folder of the results")
    arguments = parser.parse_args()
    recipes = [Recipe.read(path) for folder in arguments.folders for path in sorted(Path(folder).glob("*.yaml"))]
    for line in compare_all(recipes, Path(arguments.runs_dir), Path(arguments.results_dir)):
        print(line)


def compare_all(recipes: Sequence[Recipe], runs_dir: Path, results_dir: Path = RECIPE_RESULTS) -> Iterable[str]:
    """Renew the statistics of all data sets that these recipes belong to; yields a line for each row."""
    for folder in sorted({recipe.path.parent for recipe in recipes}):
        rows = [Recipe.read(path) for path in sorted(folder.glob("*.yaml"))]
        if tested := [row for row in rows if not row.is_trial]:
            yield from compare(tested, runs_dir, results_dir)


def compare(recipes: Sequence[Recipe], runs_dir: Path, results_dir: Path) -> Iterable[str]:
    """Renew the statistics of one data set."""
    path = results_dir / recipes[0].group / STATISTICS
    stored = json.loads(path.read_text(encoding="utf-8")) if path.exists() else {}
    rows = {}
    for recipe in recipes:
        own_runs = made_of(recipe, recipes, results_dir)
        if not own_runs["runs"]:
            continue
        try:
            rows[recipe.row] = statistics_of(recipe, recipes, (runs_dir, results_dir))
        except NoPredictions as error:
            known = stored.get(recipe.row, {}).get("made_of") == own_runs
            if known:
                rows[recipe.row] = stored[recipe.row]
            yield f"{recipe.name}: {error}; {'as stored before' if known else 'no statistics'}"
    tested = {row: found["p_value"] for row, found in rows.items() if "p_value" in found}
    for row, p_value in holm(tested).items():
        rows[row]["p_holm"] = round(p_value, 8)
    if rows:
        with write_whole(path) as file:
            file.write_text(json.dumps(rows, indent=2) + "\n", encoding="utf-8")
    for row, found in rows.items():
        line = f"{recipes[0].group}/{row}: F1 in [{found['f1_low']:.2f}, {found['f1_high']:.2f}]"
        if "p_holm" in found:
            line += f", {found['difference']:+.2f} against {found['made_of']['twin']}, p = {found['p_holm']:.4f} (Holm)"
        yield line


def finished_runs(recipe: Recipe, results_dir: Path) -> dict[int, dict[str, Any]]:
    """The results of a recipe, as it is now, by their seeds."""
    found = {}
    for path in (results_dir / recipe.name).glob("seed_*.json"):
        result = json.loads(path.read_text(encoding="utf-8"))
        settings = result["configuration"]["settings"]
        if settings == recipe.settings | {"seed": settings["seed"]}:
            found[settings["seed"]] = result
    return dict(sorted(found.items()))


def made_of(recipe: Recipe, others: Sequence[Recipe], results_dir: Path) -> dict[str, Any]:
    """What the statistics of a row are made of now.

    Returns:
        `runs`: by its seed the test F1 of each run; `twin`, its name, and `twin_runs`, its runs with these seeds; no
        twin where it has none of them.
    """
    twin = recipe.twin(others)
    own = _test_f1(recipe, results_dir)
    shared = {seed: f1 for seed, f1 in _test_f1(twin, results_dir).items() if seed in own} if twin else {}
    return {"runs": own} | ({"twin": twin.row, "twin_runs": shared} if shared else {})


def _test_f1(recipe: Recipe, results_dir: Path) -> dict[str, float]:
    return {str(seed): run["results"]["scores"]["test_f1"] for seed, run in finished_runs(recipe, results_dir).items()}


def statistics_of(recipe: Recipe, others: Sequence[Recipe], folders: tuple[Path, Path]) -> dict[str, Any]:
    """The interval of a row, its errors, what changes its entities, and the test against its twin on shared seeds.

    Raises:
        NoPredictions: predictions are missing.
    """
    found: dict[str, Any] = {"made_of": made_of(recipe, others, folders[1])}
    own = {seed: read_predictions(recipe, seed, *folders) for seed in found["made_of"]["runs"]}
    gold = next(iter(own.values()))[0]
    low, high = pooled_interval(gold, [predicted for _, predicted in own.values()])
    found |= {"f1_low": round(low, 4), "f1_high": round(high, 4)}
    found["errors"] = {kind: round(count, 4) for kind, count in mean_errors(gold, own.values()).items()}
    pairs = {"another_seed": itertools.combinations([predicted for _, predicted in own.values()], 2)}
    for change, split in OTHER_PICTURES.items():
        read = {seed: read_predictions(recipe, seed, *folders, split) for seed in own}
        pairs[change] = [(own[seed][1], changed[1]) for seed, changed in read.items() if changed]
    if shared := found["made_of"].get("twin_runs"):
        twin = recipe.twin(others)
        beside = [read_predictions(twin, seed, *folders) for seed in shared]
        if any(other_gold != gold for other_gold, _ in beside):
            raise NoPredictions(f"{twin.row} was tested on other posts")
        test = pooled_randomization_test(gold, [own[seed][1] for seed in shared], [tags for _, tags in beside])
        found |= {"difference": round(test["difference"], 4), "p_value": round(test["p_value"], 8)}
        pairs["twin"] = itertools.product([own[seed][1] for seed in shared], [tags for _, tags in beside])
    changes = {change: [share_of_changed_posts(*pair) for pair in both] for change, both in pairs.items()}
    found["changed_posts"] = {change: round(statistics.mean(all_), 4) for change, all_ in changes.items() if all_}
    return found


def share_of_changed_posts(first: Tags, second: Tags) -> float:
    """In how many posts two predictions find other entities, in %."""
    other = [entity_spans(one) != entity_spans(another) for one, another in zip(first, second, strict=True)]
    return 100 * statistics.mean(other)


def mean_errors(gold: Tags, runs: Iterable[tuple[Tags, Tags]]) -> dict[str, float]:
    """`count_errors`, averaged over runs."""
    counts = [count_errors(gold, predicted) for _, predicted in runs]
    return {kind: statistics.mean(count[kind] for count in counts) for kind in counts[0]}


def count_errors(gold: Tags, predicted: Tags) -> dict[str, int]:
    """Count the gold entities, and what goes wrong.

    Returns:
        `entities`; of them those that were found with the wrong type (`type`), those that a wrong prediction overlaps
        (`boundary`) and the others that were not found (`missed`); `invented`, the predicted entities that overlap no
        gold one.
    """
    counts: Counter[str] = Counter(entities=0, type=0, boundary=0, missed=0, invented=0)
    for gold_tags, predicted_tags in zip(gold, predicted, strict=True):
        real = entity_spans(gold_tags)
        found = entity_spans(predicted_tags)
        counts["entities"] += len(real)
        for start, end, entity_type in real:
            over = [span for span in found if span[0] < end and start < span[1]]
            if (start, end, entity_type) not in over:
                same_words = any(span[:2] == (start, end) for span in over)
                counts["type" if same_words else "boundary" if over else "missed"] += 1
        for start, end, _ in found:
            counts["invented"] += not any(span[0] < end and start < span[1] for span in real)
    return dict(counts)


def read_predictions(
    recipe: Recipe, seed: str, runs_dir: Path, results_dir: Path, split: str = "test"
) -> tuple[Tags, Tags] | None:
    """The gold and the predicted tags of the test posts; None where the run has no such split.

    Raises:
        NoPredictions: they are not here, or not those of the stored result.
    """
    result = json.loads((results_dir / recipe.name / f"seed_{seed}.json").read_text(encoding="utf-8"))
    if f"{split}_f1" not in result["results"]["scores"]:
        return None
    path = runs_dir / recipe.name / f"seed_{seed}.predictions" / f"{split}.conll"
    if not path.exists():
        raise NoPredictions(f"{path} is not here")
    gold = []
    predicted = []
    for block in path.read_text(encoding="utf-8").split("\n\n"):
        words = [line.split("\t") for line in block.split("\n")[1:]]
        if words:
            gold.append([tags[-2] for tags in words])
            predicted.append([tags[-1] for tags in words])
    if abs(evaluate_tags(gold, predicted)["f1"] - result["results"]["scores"][f"{split}_f1"]) > 0.001:
        raise NoPredictions(f"{path} is of another run than the stored result")
    return gold, predicted


def holm(p_values: Mapping[str, float]) -> dict[str, float]:
    """Correct p values for how many tests there are, by Holm's step-down method."""
    corrected = {}
    largest = 0.0
    for i, (name, p_value) in enumerate(sorted(p_values.items(), key=lambda item: item[1])):
        largest = max(largest, min(1.0, (len(p_values) - i) * p_value))
        corrected[name] = largest
    return corrected


if __name__ == "__main__":
    main()
