"""Intervals of the rows of a table, and tests against their text-only twins, over all seeds.

    python -m benchmarks.compare_recipes recipes/offline/twitter2017

reads what the finished runs of these recipes made of each test post, which is stored with their scores, and writes
benchmarks/results/recipes/<data set>/statistics.json. Test posts are the units: the interval is over resampled posts,
the paired randomisation test swaps all seeds' predictions for a post at once, and its p values are corrected over the
rows of the data set (Holm). An ablation is compared with the whole system. Beside them stands what a test of means
can't tell: what kinds of errors a row makes, and in how many posts it finds other entities than its twin does, than
with another seed, or with the pictures of other posts. Of runs that were stored without their posts the statistics stay
as they are.
"""

import argparse
import itertools
import json
import statistics
import sys
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from modeling_umgf.evaluation import pooled_interval, pooled_randomization_test, precision_recall_f1
from modeling_umgf.files import write_whole

from .outcomes import counts_of, share_of_changed_posts
from .recipes import Recipe, recipes_in
from .record import RECIPE_RESULTS, read_result, read_stored

STATISTICS = "statistics.json"
Runs = dict[int, dict[str, Any]]  # the stored results of a recipe by their seeds


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("folders", nargs="+", help="folders of recipes, such as recipes/offline/twitter2017")
    parser.add_argument("--results_dir", default=RECIPE_RESULTS, help="folder of the results")
    arguments = parser.parse_args()
    try:
        recipes = [recipe for folder in arguments.folders for recipe in recipes_in(Path(folder))]
        for line in compare_all(recipes, Path(arguments.results_dir)):
            print(line)
    except (OSError, ValueError) as error:
        sys.exit(f"error: {error}")


def compare_all(recipes: Sequence[Recipe], results_dir: Path = RECIPE_RESULTS) -> Iterable[str]:
    """Renew the statistics of all data sets that these recipes belong to; yields a line for each row."""
    for folder in sorted({recipe.path.parent for recipe in recipes}):
        if tested := [row for row in recipes_in(folder) if not row.is_trial]:
            yield from compare(tested, results_dir)


def compare(recipes: Sequence[Recipe], results_dir: Path) -> Iterable[str]:
    """Renew the statistics of one data set."""
    path = results_dir / recipes[0].group / STATISTICS
    stored = read_stored(path) if path.exists() else {}
    beside = {recipe.row: beside_twin(recipe, recipes, results_dir) for recipe in recipes}
    if not any(runs for runs, _, _ in beside.values()):
        yield f"{recipes[0].path.parent}: no statistics; its recipes, as they are now, have no run in {results_dir}"
    rows = {}
    for recipe in recipes:
        runs, twin, twin_runs = beside[recipe.row]
        if not runs:
            continue
        of = made_of(runs, twin, twin_runs)
        gold = {gold_of(run) for run in (*runs.values(), *twin_runs.values())}
        if len(gold) == 1 and None not in gold:
            rows[recipe.row] = {"made_of": of} | statistics_of(runs, twin_runs)
        elif stored.get(recipe.row, {}).get("made_of") == of:
            rows[recipe.row] = stored[recipe.row]
        else:
            yield f"{recipe.name}: no statistics; of its runs and its twin's some lack their posts, or have others"
    tested = {row: found["p_value"] for row, found in rows.items() if "p_value" in found}
    for row, p_value in holm(tested).items():
        rows[row]["p_holm"] = round(p_value, 8)
    if rows:
        with write_whole(path) as file:
            file.write_text(json.dumps(rows, indent=2) + "\n", encoding="utf-8")
    for recipe in recipes:
        if (found := rows.get(recipe.row)) is None:
            continue
        line = f"{recipe.name}: F1 in [{found['f1_low']:.2f}, {found['f1_high']:.2f}]"
        if "p_holm" in found:
            line += f", {found['difference']:+.2f} against {found['made_of']['twin']}, p = {found['p_holm']:.4f} (Holm)"
        yield line


def finished_runs(recipe: Recipe, results_dir: Path) -> Runs:
    """The results of a recipe, as it is now, by their seeds."""
    found = {}
    for path in (results_dir / recipe.name).glob("seed_*.json"):
        result = read_result(path)
        settings = result["configuration"]["settings"]
        if settings == recipe.settings | {"seed": settings["seed"]}:
            found[settings["seed"]] = result
    return dict(sorted(found.items()))


def beside_twin(recipe: Recipe, others: Sequence[Recipe], results_dir: Path) -> tuple[Runs, Recipe | None, Runs]:
    """The finished runs of a row, its twin, and the runs of the twin with the same seeds."""
    runs = finished_runs(recipe, results_dir)
    twin = recipe.twin(others)
    twin_runs = finished_runs(twin, results_dir) if twin else {}
    return runs, twin, {seed: run for seed, run in twin_runs.items() if seed in runs}


def gold_of(run: dict[str, Any]) -> str | None:
    """The numbers of gold entities of the posts of a run; None where its posts are not stored, or are another run's."""
    if "posts" not in run["results"]:
        return None
    posts = run["results"]["posts"]
    f1 = precision_recall_f1(counts_of([posts]).sum((0, 1)))[2]
    return posts["gold"] if abs(f1 - run["results"]["scores"]["test_f1"]) <= 0.001 else None


def made_of(runs: Runs, twin: Recipe | None, twin_runs: Runs) -> dict[str, Any]:
    """What the statistics of a row are made of.

    Returns:
        `runs`: by its seed the test F1 of each run; `twin`, its name, and `twin_runs`, its runs with these seeds; no
        twin where it has none of them.
    """
    own, others = (
        {str(seed): run["results"]["scores"]["test_f1"] for seed, run in some.items()} for some in (runs, twin_runs)
    )
    return {"runs": own} | ({"twin": twin.row, "twin_runs": others} if twin and others else {})


def statistics_of(runs: Runs, twin_runs: Runs) -> dict[str, Any]:
    """The interval of a row, its errors, what changes its entities, and the test against its twin on shared seeds."""
    posts = {seed: run["results"]["posts"] for seed, run in runs.items()}
    entities = [own["entities"] for own in posts.values()]
    low, high = pooled_interval(counts_of(posts.values()))
    found = {"f1_low": round(low, 4), "f1_high": round(high, 4)}
    found["errors"] = mean_of_each([run["results"]["errors"] for run in runs.values()])
    changed = mean_of_each([run["results"]["changed_posts"] for run in runs.values()])
    pairs = {"another_seed": list(itertools.combinations(entities, 2))}
    if twin_runs:
        shared = [posts[seed] for seed in twin_runs]
        beside = [run["results"]["posts"] for run in twin_runs.values()]
        test = pooled_randomization_test(counts_of(shared), counts_of(beside))
        found |= {"difference": round(test["difference"], 4), "p_value": round(test["p_value"], 8)}
        pairs["twin"] = [(own["entities"], other["entities"]) for own, other in itertools.product(shared, beside)]
    for change, both in pairs.items():
        if both:
            changed[change] = round(statistics.mean(share_of_changed_posts(*pair) for pair in both), 4)
    return found | {"changed_posts": changed}


def mean_of_each(dictionaries: Sequence[Mapping[str, float]]) -> dict[str, float]:
    """The mean of each key of dictionaries that have the same keys."""
    return {key: round(statistics.mean(own[key] for own in dictionaries), 4) for key in dictionaries[0]}


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
