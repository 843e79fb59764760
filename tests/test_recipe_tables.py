"""The papers' tables and the comparisons: what is stored is shown, what is not is empty."""

import json
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT / "docs"))

import recipe_tables  # noqa: E402

from benchmarks.recipes import Recipe  # noqa: E402

GROUP = "offline/twitter2017"


def store(results: Path, row: str, seed: int, f1: float, group: str = GROUP, **changed) -> None:
    """Write the result of a run, with scores that are told apart by their places."""
    settings = Recipe.read(ROOT / "recipes" / group / f"{row}.yaml").settings | {"seed": seed} | changed
    scores = {name: f1 + place for place, name in enumerate(reversed(recipe_tables.SCORES))}
    scores |= {"validation_f1": 70.0, "test_half_pictures_f1": 60.0}
    result = {"configuration": {"settings": settings}, "seconds": 120.0}
    result["results"] = {"scores": scores, "facts": {"parameters": 22_600_000}}
    path = results / group / row / f"seed_{seed}.json"
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(result), encoding="utf-8")


def cells(page: str, *start: str) -> list[str]:
    """The cells of the first line of a page that begins with these."""
    for line in page.splitlines():
        found = [cell.strip() for cell in line.strip("|").split("|")]
        if line.startswith("|") and found[: len(start)] == list(start):
            return found
    raise AssertionError(f"no line {start}")


def test_our_scores_stand_below_the_published_ones_and_what_was_not_run_is_empty(tmp_path):
    store(tmp_path, "umgf", 1, 80.0)
    store(tmp_path, "umgf", 2, 82.0)
    page = recipe_tables.tables_page(tmp_path)
    section = page[page.index("## UMGF, Table 2") : page.index("## UMGF, Table 3")]
    section = section[section.index("**Twitter-2017**") :]
    assert cells(section, "UMGF", "Zhang et al. (2021)")[2:] == [
        *"91.92 85.22 83.13 69.83 86.54 84.50 85.51".split(),
        "",
    ]
    ours = cells(section, "UMGF", "ours, MiniLM, no pixels")[2:]
    assert ours == [f"{mean:.2f} ± 1.41" for mean in (87, 86, 85, 84, 83, 82, 81)] + ["2"]
    assert cells(section, "VG", "ours, MiniLM, no pixels")[2:] == [""] * 8
    assert cells(section, "CNN-BiLSTM-CRF", "ours, text only")[2:] == [""] * 8
    assert cells(section, "BERT-CRF", "ours, MiniLM, text only")[2:] == [""] * 8
    assert "ours, with pictures" not in page


def test_an_ablation_says_how_far_it_is_below_the_whole_system(tmp_path):
    for row, f1 in (("umgf", 80.0), ("umgf_without_ind", 79.0)):
        store(tmp_path, row, 1, f1)
    found = {"made_of": {"runs": {"1": 79.0}, "twin": "umgf", "twin_runs": {"1": 80.0}}}
    found |= {"f1_low": 77.0, "f1_high": 81.0, "difference": -1.0, "p_value": 0.01, "p_holm": 0.02}
    (tmp_path / GROUP / "statistics.json").write_text(json.dumps({"umgf_without_ind": found}), encoding="utf-8")
    page = recipe_tables.tables_page(tmp_path)
    section = page[page.index("## UMGF, Table 5") : page.index("## R-GCN, Table 1")]
    section = section[section.index("**Twitter-2017**") :]
    assert cells(section, "approach")[-4:] == ["F1", "minus the whole", "p (Holm)", "seeds"]
    assert cells(section, "UMGF w/o Ind.", "ours, MiniLM, no pixels")[-4:] == ["79.00", "-1.00 (UMGF)", "0.020", "1"]
    assert cells(section, "UMGF", "ours, MiniLM, no pixels")[-4:] == ["80.00", "", "", "1"]
    assert page.count("minus the whole |") == 4, "both papers' ablations on both data sets, no other table"


def test_a_run_with_pictures_gets_a_line_of_its_own(tmp_path):
    store(tmp_path, "rgcn", 1, 85.0, group="twitter2015")
    page = recipe_tables.tables_page(tmp_path)
    section = page[page.index("## R-GCN, Table 1") :]
    assert cells(section, "R-GCN", "Zhao et al. (2022)")[-2] == "75.00 ± 0.18"
    assert cells(section, "R-GCN", "ours, with pictures")[-2:] == ["85.00", "1"]


def test_our_line_has_the_whole_name_of_the_published_one(tmp_path):
    page = recipe_tables.tables_page(tmp_path)
    section = page[page.index("## R-GCN, Table 2") :]
    assert cells(section, "R-GCN w/o InterRG, IntraRG", "ours, MiniLM, no pixels")
    assert recipe_tables.label("rgcn_without_relations") == "R-GCN w/o InterRG, IntraRG"
    assert cells(page, "UMT", "ours, MiniLM, no pixels"), "not: UMT, re-run by"


def test_every_table_of_the_papers_is_there_for_every_data_set():
    page = recipe_tables.tables_page()
    for title in (
        "UMGF, Table 2",
        "UMGF, Table 3",
        "UMGF, Table 4",
        "UMGF, Table 5",
        "R-GCN, Table 1",
        "R-GCN, Table 2",
    ):
        assert f"## {title}" in page
    for one in recipe_tables.published():
        for row in one["rows"]:
            for dataset in one["datasets"]:
                if "recipe" in row:
                    assert recipe_tables.row_of(f"offline/{dataset}", row["recipe"]), (one["title"], row["name"])
                if dataset in row:
                    assert len(row[dataset]) == 7
                    precision, recall, f1 = row[dataset][4:]
                    exact = 2 * precision * recall / (precision + recall)
                    misprint = row["name"] == "UMGF" and dataset == "twitter2017_to_twitter2015"
                    assert misprint or abs(f1 - exact) < 0.06, (one["title"], row["name"], dataset)


def test_results_of_a_recipe_that_was_changed_since_are_not_shown(tmp_path):
    store(tmp_path, "umgf", 1, 80.0, learning_rate=1.0)
    told = recipe_tables.comparison(GROUP, tmp_path)
    assert told.startswith("Not run yet: ") and "UMGF, " in told and "|" not in told
    assert recipe_tables.summary(GROUP, tmp_path) == ""


def test_statistics_are_shown_only_with_the_runs_that_they_were_made_of(tmp_path):
    def line() -> list[str]:
        return cells(recipe_tables.comparison(GROUP, tmp_path), "UMGF")

    store(tmp_path, "umgf", 1, 80.0)
    store(tmp_path, "bert_crf", 1, 79.0)
    made_of = {"runs": {"1": 80.0}, "twin": "bert_crf", "twin_runs": {"1": 79.0}}
    own = {"made_of": made_of, "f1_low": 78.0, "f1_high": 82.5, "difference": 1.0, "p_value": 0.01, "p_holm": 0.03}
    path = tmp_path / GROUP / "statistics.json"
    path.write_text(json.dumps({"umgf": own}), encoding="utf-8")
    assert line()[1:6] == ["80.00", "78.00 – 82.50", "70.00", "+1.00 (MiniLM-CRF)", "0.030"]
    assert line()[7] == "60.00" and line()[10:] == ["22.6 M", "2", "1"]
    assert "+1.00 (MiniLM-CRF) | 0.030" in recipe_tables.summary(GROUP, tmp_path)
    store(tmp_path, "bert_crf", 1, 79.5)  # the twin was run again
    assert line()[1:6] == ["80.00", "", "70.00", "", ""]
    store(tmp_path, "bert_crf", 1, 79.0)
    store(tmp_path, "umgf", 2, 81.0)
    assert line()[1:6] == ["80.50 ± 0.71", "", "70.00 ± 0.00", "", ""]
    own["made_of"] = made_of | {"runs": {"1": 80.0, "2": 81.0}}
    path.write_text(json.dumps({"umgf": own}), encoding="utf-8")
    assert line()[4] == "+1.00 (MiniLM-CRF, seed 1)", "of the seeds that both have"


def test_the_list_of_entities_is_not_called_a_picture_in_readme(tmp_path):
    for row in ("umgf", "umgf_knowledge_nodes"):
        store(tmp_path, row, 1, 80.0)
        path = tmp_path / GROUP / row / "seed_1.json"
        result = json.loads(path.read_text(encoding="utf-8"))
        result["results"]["scores"]["test_without_pictures_f1"] = 61.0
        path.write_text(json.dumps(result), encoding="utf-8")
    page = recipe_tables.summary(GROUP, tmp_path)
    assert cells(page, "UMGF")[5] == "61.00" and cells(page, "UMGF + knowledge as objects")[5] == ""


def test_knowledge_is_a_block_of_its_own_and_never_text_only(tmp_path):
    of_knowledge = ("bert_crf_knowledge", "bert_crf_knowledge_list", "umgf_knowledge_nodes")
    for row in ("bert_crf", "umgf", "bert_crf_caption", *of_knowledge):
        store(tmp_path, row, 1, 80.0)
    page = recipe_tables.comparison(GROUP, tmp_path).partition("\n\n")[0]
    lines = [cells(line)[0] for line in page.splitlines()[2:]]
    block = None
    blocks = {}
    for name in lines:
        block = name if name.startswith("**") else block
        blocks.setdefault(block, []).append(name)
    assert len(blocks) == 4
    (knowledge,) = [block for block in blocks if "ChatGPT" in block]
    assert "never text only" in knowledge
    assert blocks[knowledge][1:] == [
        *("MiniLM-CRF + knowledge as text", "MiniLM-CRF + listed entities as text", "UMGF + knowledge as objects")
    ]
    assert all("knowledge" not in name for block in blocks if block != knowledge for name in blocks[block])
    assert "no pixels" in page.splitlines()[0]


def test_the_figure_has_a_line_for_every_row_that_was_run(tmp_path):
    pytest.importorskip("matplotlib")
    from figures.systems import draw_systems

    store(tmp_path, "umgf", 1, 80.0)
    store(tmp_path, "bert_crf", 1, 79.0)
    store(tmp_path, "rpbert", 1, 81.0)
    store(tmp_path, "umgf_knowledge_nodes", 1, 82.0)
    store(tmp_path, "umgf_without_ind", 1, 79.0)
    figure = draw_systems({GROUP: recipe_tables.finished_rows(GROUP, tmp_path)})
    (axes,) = figure.axes
    assert [text.get_text() for text in axes.get_yticklabels()] == [
        *("MiniLM-CRF (1)", "UMGF (1)", "RpBERT (1)", "UMGF + knowledge as objects (1)")
    ]
    colors = [line.get_color() for line in axes.lines if line.get_marker() == "D"]
    (legend,) = figure.legends
    shown = {
        text.get_text(): mark.get_color() for text, mark in zip(legend.get_texts(), legend.legend_handles, strict=True)
    }
    grey, blue, _, orange = shown.values()
    assert colors == [grey, blue, blue, orange] and "Text only" in shown


def test_trials_stand_below_the_rows_of_the_preset_with_the_score_of_their_best_epoch(tmp_path):
    for seed, (first, second) in {1: (60.0, 70.0), 2: (74.0, 72.0)}.items():
        curve = [{"epoch": 1.0, "f1": first}, {"epoch": 2.0, "f1": second}]
        run = {"configuration": {"about": "UMGF, upside down."}, "results": {"curve": curve}}
        run["results"]["scores"] = {"validation_f1": second}
        run |= {"seconds": 120.0, "commit": "abc"}
        path = tmp_path / "trials" / "twitter2017" / "umgf_upside_down" / f"seed_{seed}.json"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(json.dumps(run), encoding="utf-8")
    page = recipe_tables.trials("twitter2017", tmp_path)
    assert cells(page, "UMGF, upside down.")[1:] == ["71.00 ± 1.41", "72.00 ± 2.83 (2, 1)", "2", "abc"]
    assert recipe_tables.trials("twitter2015", tmp_path) == "Nothing was run yet."
