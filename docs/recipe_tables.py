"""Tables of the papers with our scores beside the published ones, and comparisons with the text-only twins.

Everything comes from benchmarks/results/recipes and benchmarks/published.yaml. A cell without a stored run is empty,
and so is one whose recipe was changed since.
"""

import re
import statistics
from collections.abc import Callable
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any

import yaml
from markdown_table import over_seeds, table, with_deviation

from benchmarks.compare_recipes import STATISTICS, beside_twin, finished_runs, made_of
from benchmarks.recipes import Recipe, recipes_in, whole_system
from benchmarks.record import RECIPE_RESULTS, read_result, read_stored

ROOT = Path(__file__).resolve().parents[1]
PUBLISHED = ROOT / "benchmarks" / "published.yaml"
RECIPES = ROOT / "recipes"

TITLES = {
    "twitter2015": "Twitter-2015",
    "twitter2017": "Twitter-2017",
    "twitter2017c": "Twitter-2017c",
    "twitter2017_to_twitter2015": "Twitter-2017 → Twitter-2015",
    "twitter2015_to_twitter2017": "Twitter-2015 → Twitter-2017",
    "contrast_tweets": "Contrast tweets",
    "contrast_tweets_of_one_name": "Contrast tweets of one name",
    "relation_contrast_tweets": "Relation contrast tweets",
}
SCORES = ("test_PER_f1", "test_LOC_f1", "test_ORG_f1", "test_MISC_f1", "test_precision", "test_recall", "test_f1")
HEADER = ("PER", "LOC", "ORG", "MISC", "Pre.", "Rec.", "F1")
ROBUSTNESS = {
    "test_without_pictures_f1": "F1 without pictures",
    "test_half_pictures_f1": "half of them missing",
    "test_shuffled_pictures_f1": "those of other posts",
    "test_without_context_f1": "without context",
}
OFFLINE = "offline/"
SUFFIXES = {
    "_caption": " + caption as text",
    "_knowledge": " + knowledge as text",
    "_knowledge_list": " + listed entities as text",
    "_knowledge_nodes": " + knowledge as objects",
}
LABELS = {
    "iaik": "IAIK (re-interpretation)",
    "bert_softmax": "MiniLM (softmax)",
    "bert_crf_uncased": "BERT-CRF, uncased",
    "text_only": "Text only",
    "text_only_softmax": "Text only (softmax)",
    "rgcn_without_relations": "R-GCN w/o InterRG, IntraRG",
    "umgf_knowledge": "UMGF + knowledge as text and objects",
    "umgf_tiles": "UMGF on tiles, no detector",
    "umgf_whole_picture": "UMGF on whole pictures, no detector",
}
BLOCKS = {
    "Text only": lambda recipe: recipe.is_text_only and not recipe.context,
    "Captions in the place of pictures": lambda recipe: not recipe.is_text_only and not recipe.reads,
    "The caption as text, behind the post": lambda recipe: recipe.reads == ["caption"],
    "What ChatGPT wrote about post and caption (never text only)": lambda recipe: recipe.reads_knowledge,
}


@dataclass
class Row:
    """A recipe and its finished runs.

    Args:
        recipe: the recipe.
        results_dir: where results lie.
    """

    recipe: Recipe
    results_dir: Path = field(default_factory=lambda: RECIPE_RESULTS)

    @cached_property
    def runs(self) -> dict[int, dict[str, Any]]:
        """The stored results by their seeds."""
        return finished_runs(self.recipe, self.results_dir)

    @cached_property
    def statistics(self) -> dict[str, Any]:
        """Interval, difference and p value, where they are those of its runs, and its twin's, as they are now."""
        path = self.results_dir / self.recipe.group / STATISTICS
        stored = read_stored(path) if path.exists() else {}
        own = stored.get(self.recipe.row, {})
        others = recipes_in(self.recipe.path.parent)
        return own if own.get("made_of") == made_of(*beside_twin(self.recipe, others, self.results_dir)) else {}

    def values(self, score: str) -> list[float]:
        """A score of each run that has it."""
        scores = [run["results"]["scores"] for run in self.runs.values()]
        return [own[score] for own in scores if score in own]

    def cell(self, score: str) -> str:
        """Mean and standard deviation over the runs."""
        values = self.values(score)
        return over_seeds(values) if values else ""

    def material(self) -> str:
        """What a row of the offline preset reads."""
        read = "text only" if self.recipe.is_text_only else "no pixels"
        return f"MiniLM, {read}" if "text_model" in self.recipe.settings else read

    def seeds(self) -> str:
        return str(len(self.runs)) if self.runs else ""

    def interval(self) -> str:
        found = self.statistics
        return f"{found['f1_low']:.2f} – {found['f1_high']:.2f}" if found else ""

    def difference(self) -> str:
        """Points above the twin, which is named, and of which seeds where the twin lacks some."""
        found = self.statistics
        if "difference" not in found:
            return ""
        runs, twin, shared = (found["made_of"][key] for key in ("runs", "twin", "twin_runs"))
        some = f", seed {' and '.join(shared)}" if len(shared) < len(runs) else ""
        return f"{found['difference']:+.2f} ({label(twin)}{some})"

    def p_value(self) -> str:
        found = self.statistics
        if "p_holm" not in found:
            return ""
        return "< 0.001" if found["p_holm"] < 0.001 else f"{found['p_holm']:.3f}"

    def minutes(self) -> str:
        seconds = [run["seconds"] for run in self.runs.values()]
        return f"{statistics.median(seconds) / 60:.0f}" if seconds else ""

    def parameters(self) -> str:
        counts = {run["results"]["facts"]["parameters"] for run in self.runs.values()}
        return f"{max(counts) / 1e6:.1f} M" if counts else ""


def block_of(recipe: Recipe) -> str:
    """Which of BLOCKS a row belongs to."""
    return next(block for block, holds in BLOCKS.items() if holds(recipe))


def published() -> list[dict[str, Any]]:
    return yaml.safe_load(PUBLISHED.read_text(encoding="utf-8"))


def approach(row: dict[str, Any]) -> str:
    """What a published row is called, whoever ran it again."""
    return row["name"].partition(", re-run")[0]


def row_of(group: str, name: str, results_dir: Path = RECIPE_RESULTS) -> Row | None:
    """The row of a recipe; None where there is none of this name."""
    path = RECIPES / group / f"{name}.yaml"
    return Row(Recipe.read(path), results_dir) if path.exists() else None


def label(name: str) -> str:
    """What a row of the offline preset is called in print."""
    if name in LABELS:
        return LABELS[name]
    for suffix, words in SUFFIXES.items():
        if name.endswith(suffix):
            return label(name.removesuffix(suffix)) + words
    for own in published():
        for row in own["rows"]:
            if row.get("recipe") == name:
                return re.sub(r"^BERT", "MiniLM", approach(row))
    return name


# The papers' tables


def tables_page(results_dir: Path = RECIPE_RESULTS) -> str:
    """docs/tables.md below its first line."""
    parts = ["# The papers' tables\n", INTRODUCTION]
    for one in published():
        parts.append(f"## {one['title']}\n")
        if "note" in one:
            parts.append(f"{one['note']}\n")
        for dataset in one["datasets"]:
            parts += [
                f"**{TITLES[dataset]}**, test F1 of whole names in %\n",
                paper_table(one, dataset, results_dir),
                "",
            ]
    return "\n".join(parts)


INTRODUCTION = (
    """
What the papers print, and what the recipes of this repository gave. "No pixels" are the recipes of `recipes/offline`:
MiniLM (6 layers) in the place of BERT-base, and captions in the place of pictures, so these lines show what a system
makes of the same material as its neighbours, not what its paper claims. "With pictures" are the papers' encoders and
hyper-parameters, each recipe says where not (`recipes/<data set>`), for whoever has the pictures; such a line is there
once it was run. Scores are lenient and counted over the whole split, with the labels of the UMT release; ± is the
standard deviation over seeds. What was not run is empty. *Minus the whole* is an ablation's F1 minus that of our whole
system on the seeds that both have, p a paired randomisation test over test posts, corrected by Holm's method. IAIK is
a re-interpretation of its abstract, Object-AGBAN follows its authors' code but for norms of layers and weights and
when its classifier rests; without pixels there are no cells of a grid, so our UMGF w/o Tar. links every object to
every word. [Recipes](recipes.md) says how to fill a line, [labels, scorers and leakage](labels_scorers_and_leakage.md)
why published lines differ among themselves.
""".strip()
    + "\n"
)


def paper_table(one: dict[str, Any], dataset: str, results_dir: Path) -> str:
    """A published table for one data set, with our lines below each of its own; of ablations what each part brings."""
    systems = {whole_system(own["recipe"]) or own["recipe"] for own in one["rows"] if "recipe" in own}
    tests = {"minus the whole": Row.difference, "p (Holm)": Row.p_value} if len(systems) == 1 else {}
    lines = []
    for own in one["rows"]:
        if dataset in own:
            deviations = own.get(f"{dataset}_deviation", [None] * len(HEADER))
            cells = [with_deviation(mean, off) for mean, off in zip(own[dataset], deviations, strict=True)]
            lines.append([own["name"], one["paper"], *cells, *[""] * len(tests), ""])
        if "recipe" not in own:
            continue
        for group, kind in ((dataset, "ours, with pictures"), (OFFLINE + dataset, "ours, no pixels")):
            row = row_of(group, own["recipe"], results_dir)
            if row is not None and (row.runs or group.startswith(OFFLINE)):
                kind = kind.replace("no pixels", row.material())
                shown = [test(row) if whole_system(own["recipe"]) else "" for test in tests.values()]
                lines.append([approach(own), kind, *map(row.cell, SCORES), *shown, row.seeds()])
    return table(["approach", "from", *HEADER, *tests, "seeds"], lines)


# Comparisons


def title(group: str) -> str:
    """What a data set is called, and that there are no pixels where there are none."""
    return TITLES[group.removeprefix(OFFLINE)] + (", no pixels" if group.startswith(OFFLINE) else "")


def rows_of(group: str, results_dir: Path) -> list[Row]:
    """The rows of a data set; those of the offline preset without ablations, which the papers' tables show."""
    rows = [Row(one, results_dir) for one in recipes_in(RECIPES / group)]
    return [own for own in rows if not whole_system(own.recipe.row) or not group.startswith(OFFLINE)]


def comparison(group: str, results_dir: Path = RECIPE_RESULTS) -> str:
    """The rows of a data set that were run in blocks, each beside its text-only twin; below it the others' names."""
    missing = [label(row.recipe.row) for row in rows_of(group, results_dir) if not row.runs]
    told = f"Not run yet: {', '.join(missing)}." if missing else ""
    rows = finished_rows(group, results_dir)
    if not rows:
        return told
    header = ["test F1", "95 % interval", "validation F1", "minus its twin", "p (Holm)"]
    header += [*ROBUSTNESS.values(), "parameters", "minutes", "seeds"]

    def cells(row: Row) -> list[str]:
        return [
            row.cell("test_f1"),
            row.interval(),
            row.cell("validation_f1"),
            row.difference(),
            row.p_value(),
            *(row.cell(score) for score in ROBUSTNESS),
            row.parameters(),
            row.minutes(),
            row.seeds(),
        ]

    return "\n\n".join([table_in_blocks(group, rows, header, cells), *([told] if told else [])])


def summary(group: str, results_dir: Path = RECIPE_RESULTS) -> str:
    """What README shows of a data set; empty where nothing was run."""

    def cells(row: Row) -> list[str]:
        without = "" if row.recipe.reads_knowledge else row.cell("test_without_pictures_f1")
        return [row.cell("test_f1"), row.interval(), row.difference(), row.p_value(), without, row.seeds()]

    header = ["test F1", "95 % interval", "minus its twin", "p (Holm)", "F1 without pictures", "seeds"]
    rows = finished_rows(group, results_dir)
    return table_in_blocks(group, rows, header, cells) if rows else ""


def table_in_blocks(group: str, rows: list[Row], header: list[str], cells: Callable[[Row], list[str]]) -> str:
    """The rows by what they read, the best of each block first; blocks have a heading in the offline preset alone."""
    lines = []
    for block in BLOCKS:
        own = [row for row in rows if block_of(row.recipe) == block]
        own.sort(key=lambda row: (not row.recipe.is_text_only, -statistics.mean(row.values("test_f1"))))
        if own and group.startswith(OFFLINE):
            lines.append([f"**{block}**"] + [""] * len(header))
        lines += [[label(row.recipe.row), *cells(row)] for row in own]
    return table([title(group), *header], lines)


def trials(dataset: str, results_dir: Path = RECIPE_RESULTS) -> str:
    """What was tried on a data set, judged on its validation split: the rows of the offline preset, then the trials."""
    runs: dict[str, list[dict[str, Any]]] = {}
    for row in rows_of(OFFLINE + dataset, results_dir):
        if row.runs and "text_model" in row.recipe.settings:
            runs[f"{label(row.recipe.row)} (a row of the preset)"] = list(row.runs.values())
    for path in sorted((results_dir / "trials" / dataset).glob("*/seed_*.json")):
        run = read_result(path)
        runs.setdefault(run["configuration"]["about"], []).append(run)
    lines = []
    for about, own in runs.items():
        best = [max(run["results"]["curve"], key=lambda epoch: epoch["f1"]) for run in own]
        kept = over_seeds([run["results"]["scores"]["validation_f1"] for run in own])
        epochs = ", ".join(f"{epoch['epoch']:.0f}" for epoch in best)
        commits = ", ".join(sorted({run["commit"] for run in own}))
        lines.append([about, kept, f"{over_seeds([epoch['f1'] for epoch in best])} ({epochs})", len(own), commits])
    header = ["what", "validation F1", "best epoch", "seeds", "commit"]
    return table(header, lines) if lines else "Nothing was run yet."


ERRORS = {"type": "wrong type", "boundary": "wrong boundary", "missed": "missed", "invented": "invented"}
CHANGES = {
    "another_seed": "another seed",
    "twin": "its twin",
    "other_pictures": "pictures of other posts",
    "no_pictures": "no pictures",
}


def errors_and_changes(group: str, results_dir: Path = RECIPE_RESULTS) -> str:
    """What the rows of a data set get wrong, and what changes the entities they find; empty where nothing was run."""

    def cells(row: Row) -> list[str]:
        errors = [f"{row.statistics['errors'][kind]:.0f}" for kind in ERRORS]
        changed = row.statistics["changed_posts"]
        return [*errors, *(f"{changed[change]:.1f} %" if change in changed else "" for change in CHANGES), row.seeds()]

    rows = [row for row in finished_rows(group, results_dir) if row.statistics]
    return table_in_blocks(group, rows, [*ERRORS.values(), *CHANGES.values(), "seeds"], cells) if rows else ""


def finished_rows(group: str, results_dir: Path = RECIPE_RESULTS) -> list[Row]:
    """The rows of a data set that were run, the best last."""
    finished = [row for row in rows_of(group, results_dir) if row.runs]
    return sorted(finished, key=lambda row: statistics.mean(row.values("test_f1")))
