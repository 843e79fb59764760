"""Running recipes: the order, what is stored, and what happens when a run is stopped, killed, changed or fails."""

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
import yaml
from test_train_umgf import TINY, write_data

from benchmarks import run_recipes
from benchmarks.compare_recipes import compare_all, holm
from benchmarks.outcomes import count_errors, counts_of, digests, share_of_changed_posts
from benchmarks.recipes import Recipe, recipes_in
from modeling_umgf.evaluation import precision_recall_f1

ROOT = Path(__file__).resolve().parents[1]
INSTANT = Path(__file__).with_name("train_in_an_instant.py")
TEXT = {"text_model": "MiniLM", "num_train_epochs": 1}
ROWS = {
    "bert_crf": TEXT | {"model_type": "text_only"},
    "bert_softmax": TEXT | {"model_type": "text_only", "config_overrides": {"label_decoder": "softmax"}},
    "bert_crf_caption": TEXT | {"model_type": "text_only", "processor_overrides": {"context": ["caption"]}},
    "umgf": TEXT | {"model_type": "umgf"},
    "umgf_caption": TEXT | {"model_type": "umgf", "processor_overrides": {"context": ["caption"]}},
}


class Workplace:
    """Recipes of one data set, and the command that runs them."""

    def __init__(self, folder: Path):
        self.folder = folder
        self.recipes = folder / "recipes" / "posts"
        self.recipes.mkdir(parents=True)

    def write(self, **rows: dict) -> list[str]:
        for name, settings in rows.items():
            (self.recipes / f"{name}.yaml").write_text(f"# About {name}.\n{yaml.safe_dump(settings)}", encoding="utf-8")
        return [str(self.recipes / f"{name}.yaml") for name in rows]

    def arguments(self, *recipes: str, seeds: str = "1") -> list[str]:
        folders = ["--runs_dir", str(self.folder / "runs"), "--results_dir", str(self.folder / "results")]
        return [*recipes, "--seeds", *seeds.split(), *folders]

    def run(self, *recipes: str, seeds: str = "1", more: tuple[str, ...] = ()) -> None:
        sys.argv[1:] = [*self.arguments(*recipes, seeds=seeds), *more]
        run_recipes.main()

    def start(self, *recipes: str, seeds: str = "1") -> subprocess.Popen:
        """Run in a process of its own, which a shell would have put into the background: SIGINT is ignored there."""
        code = "import signal, sys; from pathlib import Path; from benchmarks import run_recipes; "
        code += "signal.signal(signal.SIGINT, signal.SIG_IGN); "
        code += f"run_recipes.TRAIN = Path({str(INSTANT)!r}); run_recipes.main()"
        command = [sys.executable, "-c", code, *self.arguments(*recipes, seeds=seeds)]
        return subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)

    def log(self) -> list[str]:
        return (self.recipes / "log.txt").read_text(encoding="utf-8").splitlines()

    def result(self, row: str, seed: int = 1) -> dict:
        return json.loads((self.folder / "results" / "posts" / row / f"seed_{seed}.json").read_text(encoding="utf-8"))

    def store(self, row: str, result: dict) -> None:
        path = self.folder / "results" / "posts" / row / "seed_1.json"
        path.write_text(json.dumps(result), encoding="utf-8")

    def compare(self, *recipes: str) -> list[str]:
        return list(compare_all([Recipe.read(path) for path in recipes], self.folder / "results"))

    def statistics(self) -> dict:
        return json.loads((self.folder / "results" / "posts" / "statistics.json").read_text(encoding="utf-8"))

    def wait_for_checkpoint(self, row: str) -> None:
        for _ in range(1500):
            if (self.folder / "runs" / "posts" / row / "seed_1" / "checkpoint-0").exists():
                return
            time.sleep(0.02)
        raise AssertionError("no checkpoint came")


@pytest.fixture
def place(tmp_path, monkeypatch) -> Workplace:
    monkeypatch.setattr(run_recipes, "TRAIN", INSTANT)
    monkeypatch.setattr(sys, "argv", ["run_recipes"])
    return Workplace(tmp_path)


def test_one_seed_of_all_recipes_comes_first_and_finished_runs_are_not_run_again(place):
    recipes = place.write(bert_crf=ROWS["bert_crf"], umgf=ROWS["umgf"])
    place.run(*recipes, seeds="1 2")
    assert place.log() == ["bert_crf 1", "umgf 1", "bert_crf 2", "umgf 2"]
    place.run(*recipes, seeds="1 2 3")
    assert place.log()[4:] == ["bert_crf 3", "umgf 3"]


def test_a_result_holds_configuration_scores_curve_versions_machine_and_time(place):
    place.run(*place.write(umgf=ROWS["umgf"]))
    result = place.result("umgf")
    assert result["configuration"]["settings"] == ROWS["umgf"] | {"seed": 1}
    assert result["configuration"]["recipe"] == "recipes/posts/umgf.yaml"
    scores = {"test_f1": 100.0, "test_PER_f1": 100.0, "validation_f1": 50.0}
    assert result["results"]["scores"] == scores | {"test_shuffled_pictures_f1": pytest.approx(200 / 3)}
    assert result["results"]["curve"] == [{"epoch": 1.0, "f1": 50.0}]
    assert result["seconds"] == 60 and result["machine"] and result["versions"]["torch"]
    runs = place.folder / "runs" / "posts" / "umgf"
    assert (runs / "seed_1.predictions" / "test.conll").exists()
    assert not (runs / "seed_1").exists()  # the model


def test_a_recipe_that_was_changed_is_run_again_but_not_for_a_comment(place, capsys):
    recipes = place.write(umgf=ROWS["umgf"])
    place.run(*recipes)
    text = Path(recipes[0]).read_text()
    Path(recipes[0]).write_text(f"# More is said.\n{text}output_dir: elsewhere\n")
    place.run(*recipes)
    assert place.log() == ["umgf 1"]
    Path(recipes[0]).write_text(text.replace("num_train_epochs: 1", "num_train_epochs: 2"))
    capsys.readouterr()
    place.run(*recipes, more=("--list",))
    assert "changed" in capsys.readouterr().out
    place.run(*recipes)
    assert place.log() == ["umgf 1", "umgf 1"]
    assert place.result("umgf")["configuration"]["settings"]["num_train_epochs"] == 2


def test_a_run_that_is_stopped_goes_on_from_its_checkpoint(place):
    recipes = place.write(bert_crf=ROWS["bert_crf"], umgf=ROWS["umgf"])
    wait = place.recipes / "umgf.waits"
    wait.touch()
    runner = place.start(*recipes)
    place.wait_for_checkpoint("umgf")
    runner.terminate()
    output, _ = runner.communicate(timeout=60)
    assert runner.returncode == 1 and "stopped in posts/umgf/seed_1" in output and "Traceback" not in output
    wait.unlink()
    place.run(*recipes)
    assert place.log() == ["bert_crf 1", "umgf 1", "umgf 1 goes on"]
    assert place.result("umgf")["results"]["scores"]["test_f1"] == 100


def test_a_run_that_was_started_with_other_settings_begins_anew(place):
    recipes = place.write(umgf=ROWS["umgf"])
    folder = place.folder / "runs" / "posts" / "umgf"
    (folder / "seed_1" / "checkpoint-0").mkdir(parents=True)
    (folder / "seed_1.yaml").write_text(yaml.safe_dump(ROWS["umgf"] | {"seed": 1, "learning_rate": 7}))
    place.run(*recipes)
    assert place.log() == ["umgf 1"]


def test_nobody_trains_beside_a_training_whose_runner_was_killed(place, capsys):
    recipes = place.write(umgf=ROWS["umgf"])
    wait = place.recipes / "umgf.waits"
    wait.touch()
    runner = place.start(*recipes)
    place.wait_for_checkpoint("umgf")
    os.kill(runner.pid, signal.SIGKILL)
    runner.wait()
    place.run(*recipes)
    assert "another process is at it" in capsys.readouterr().out
    assert place.log() == ["umgf 1"]
    wait.unlink()
    runner.stdout.read()  # until the training has ended
    place.run(*recipes)
    assert place.log() == ["umgf 1", "umgf 1 goes on"]
    assert place.result("umgf")["results"]["scores"]["test_f1"] == 100


def test_a_run_that_fails_is_named_and_the_others_are_run(place):
    recipes = place.write(bert_crf=ROWS["bert_crf"], umgf=ROWS["umgf"])
    (place.recipes / "bert_crf.fails").touch()
    with pytest.raises(SystemExit, match="1 of 2 runs failed: posts/bert_crf/seed_1"):
        place.run(*recipes)
    assert place.log() == ["bert_crf 1", "umgf 1"] and place.result("umgf")
    assert not (place.folder / "results" / "posts" / "bert_crf").exists()


def test_what_is_trained_is_what_is_stored_though_the_recipe_is_edited_meanwhile(place, monkeypatch):
    recipes = place.write(bert_crf=ROWS["bert_crf"], umgf=ROWS["umgf"] | {"learning_rate": 5e-5})
    trained = {}

    def store(run):
        Path(recipes[1]).write_text(yaml.safe_dump(ROWS["umgf"] | {"learning_rate": 1.0}))  # while the first one runs
        trained[run.recipe.row] = yaml.safe_load(run.settings_file.read_text())
        return whole_store(run)

    whole_store = run_recipes.store
    monkeypatch.setattr(run_recipes, "store", store)
    place.run(*recipes)
    assert trained["umgf"] == place.result("umgf")["configuration"]["settings"]
    assert trained["umgf"]["learning_rate"] == 5e-5


def test_a_folder_stands_for_its_recipes_and_nothing_is_run_twice(place):
    place.write(bert_crf=ROWS["bert_crf"], umgf=ROWS["umgf"])
    place.run(str(place.recipes), str(place.recipes / "umgf.yaml"), seeds="1 1")
    assert place.log() == ["bert_crf 1", "umgf 1"]
    (place.folder / "empty").mkdir()
    with pytest.raises(SystemExit, match="empty: is no recipe .*, and no folder that has one"):
        place.run(str(place.folder / "empty"))


def test_the_list_says_what_is_done_what_is_missing_and_how_long_it_takes(place, capsys):
    recipes = place.write(**ROWS)
    place.run(recipes[0])
    capsys.readouterr()
    place.run(*recipes, seeds="1 2", more=("--list",))
    lines = capsys.readouterr().out.splitlines()
    assert lines[0].split() == ["posts/bert_crf/seed_1", "done", "test", "F1", "40.00"]
    assert lines[1].split() == ["posts/bert_softmax/seed_1", "missing", "about", "1", "min"]
    assert lines[-1] == "1 of 10 runs are done; the others take about 9 min"
    assert place.log() == ["bert_crf 1"]


def test_a_trial_has_its_validation_score_and_no_statistics_of_test_posts(place, capsys):
    recipes = place.write(umgf=ROWS["umgf"] | {"do_train": True, "do_eval": True})
    place.run(*recipes)
    result = place.result("umgf")
    assert result["configuration"]["about"] == "About umgf."
    assert result["results"]["scores"] == {"validation_f1": 50.0}
    capsys.readouterr()
    place.run(*recipes)
    assert capsys.readouterr().out.splitlines()[0].split() == ["posts/umgf/seed_1", "done", "validation", "F1", "50.00"]
    assert not (place.folder / "results" / "posts" / "statistics.json").exists()


def test_what_is_no_recipe_is_refused_in_one_line(place, capsys):
    (place.recipes / "empty.yaml").write_text("# nothing\n")
    with pytest.raises(SystemExit, match="error: .*empty.yaml: holds no settings"):
        place.run(str(place.recipes / "empty.yaml"))
    (place.recipes / "broken.yaml").write_text("dataset_name: [a\n")
    with pytest.raises(SystemExit, match="error: .*broken.yaml: is no YAML.*line 2") as refused:
        place.run(str(place.recipes / "broken.yaml"))
    assert "\n" not in str(refused.value)
    with pytest.raises(SystemExit, match="error: .*missing.yaml"):
        place.run(str(place.recipes / "missing.yaml"))

    (place.recipes / "other.yml").write_text("model_type: umgf\n")
    with pytest.raises(SystemExit, match="error: .*other.yml: is no recipe"):
        place.run(str(place.recipes / "other.yml"))


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ("config_overrides: {id2label: {0: O}}", "config_overrides: {'id2label': {0: 'O'}} is no JSON"),
        ("config_overrides: {dropout: .nan}", "config_overrides: {'dropout': nan} is no JSON"),
        ("run_name: 2024-01-01", r"run_name: datetime.date\(2024, 1, 1\) is no str"),
        ("processor_overrides: '[1]'", "processor_overrides: .* is no mapping"),
        ("dataset_name: 5", "dataset_name: 5 is no str"),
        ("learning_rat: 5", "no such argument: learning_rat"),
        ("seed: 1\nseed: 2", "'seed' stands there twice"),
    ],
)
def test_what_cannot_be_stored_or_trained_is_refused_before_anything_is_run(place, settings, message):
    recipes = place.write(umgf=ROWS["umgf"])
    (place.recipes / "zzz.yaml").write_text(settings + "\n")
    with pytest.raises(SystemExit, match=f"zzz.yaml: .*{message}"):
        place.run(*recipes, str(place.recipes / "zzz.yaml"))
    assert not (place.recipes / "log.txt").exists()


def test_settings_in_json_are_those_that_they_say(place):
    recipes = place.write(**ROWS)
    place.write(umgf_caption=ROWS["umgf_caption"] | {"processor_overrides": '{"context": ["caption"]}'})
    place.run(*recipes)
    assert place.statistics()["umgf_caption"]["made_of"]["twin"] == "bert_crf_caption"


def test_text_only_chosen_by_its_switch_is_a_twin_too(place):
    recipes = place.write(plain=TEXT | {"model_type": "umgf", "text_only": True}, umgf=ROWS["umgf"])
    place.run(*recipes)
    assert place.statistics()["umgf"]["made_of"]["twin"] == "plain"


def test_predictions_of_a_recipe_as_it_was_are_gone_when_it_is_run_anew(place):
    recipes = place.write(umgf=ROWS["umgf"])
    place.run(*recipes)
    assert "other_pictures" in place.result("umgf")["results"]["changed_posts"]
    stale = place.folder / "runs" / "posts" / "umgf" / "seed_1.predictions" / "test_without_pictures.conll"
    stale.write_text("IMGID:1\nAnna\tO\tB-PER\n\n")
    place.write(umgf=ROWS["umgf"] | {"num_train_epochs": 2})
    place.run(*recipes)
    assert not stale.exists() and "no_pictures" not in place.result("umgf")["results"]["changed_posts"]


def test_two_recipes_of_one_name_are_refused(place):
    paths = []
    for folder in ("one", "two"):
        paths.append(place.folder / folder / "posts" / "umgf.yaml")
        paths[-1].parent.mkdir(parents=True)
        paths[-1].write_text(yaml.safe_dump(ROWS["umgf"]))
    with pytest.raises(SystemExit, match="one/posts/umgf.yaml and .*two/posts/umgf.yaml are both called posts/umgf"):
        place.run(*map(str, paths))


def test_what_a_run_was_about_is_what_its_recipe_said_when_it_began(place, monkeypatch):
    recipes = place.write(umgf=ROWS["umgf"])

    def store(run):
        Path(recipes[0]).unlink()  # while it trains
        return whole_store(run)

    whole_store = run_recipes.store
    monkeypatch.setattr(run_recipes, "store", store)
    with pytest.raises(SystemExit, match="The runs are stored"):
        place.run(*recipes)
    assert place.result("umgf")["configuration"]["about"] == "About umgf."


def test_a_run_that_another_process_has_just_finished_is_not_run_again(place):
    (recipe,) = place.write(umgf=ROWS["umgf"])
    place.run(recipe)
    run = run_recipes.Run(Recipe.read(recipe), 1, place.folder / "runs", place.folder / "results")
    assert run_recipes.execute(run, keep_model=False) and place.log() == ["umgf 1"]


@pytest.mark.parametrize("content", [b"", b"{", b"\xff", b"{}", b"[]", b"null"])
def test_a_damaged_result_is_named(place, content):
    recipes = place.write(umgf=ROWS["umgf"])
    place.run(*recipes)
    (place.folder / "results" / "posts" / "umgf" / "seed_1.json").write_bytes(content)
    for more in ((), ("--list",)):
        with pytest.raises(SystemExit, match="umgf/seed_1.json: is damaged.*; delete it, and make it again") as refused:
            place.run(*recipes, more=more)
        assert "\n" not in str(refused.value)
    with pytest.raises(ValueError, match="umgf/seed_1.json: is damaged"):
        place.compare(*recipes)


def test_damaged_settings_of_a_stopped_run_begin_anew(place):
    recipes = place.write(umgf=ROWS["umgf"])
    folder = place.folder / "runs" / "posts" / "umgf"
    (folder / "seed_1" / "checkpoint-0").mkdir(parents=True)
    (folder / "seed_1.yaml").write_text("dataset_name: [a\n")
    place.run(*recipes)
    assert place.log() == ["umgf 1"]


@pytest.mark.parametrize("folder", ["runs", "results"])
def test_a_folder_that_cannot_be_made_is_said_before_anything_is_trained(place, folder):
    recipes = place.write(umgf=ROWS["umgf"])
    (place.folder / folder).write_text("a file")
    with pytest.raises(SystemExit, match=f"error: .*{folder}"):
        place.run(*recipes)
    assert not (place.recipes / "log.txt").exists()


def test_recipes_without_runs_and_folders_without_recipes_are_said(place):
    recipes = place.write(umgf=ROWS["umgf"])
    assert place.compare(*recipes) == [
        f"{place.recipes}: no statistics; its recipes, as they are now, have no run in {place.folder / 'results'}"
    ]
    with pytest.raises(ValueError, match="nowhere: is no folder with recipes"):
        recipes_in(place.folder / "nowhere")


def test_a_broken_recipe_beside_the_others_keeps_their_runs_and_says_how_to_get_their_statistics(place):
    recipes = place.write(bert_crf=ROWS["bert_crf"])
    (place.recipes / "broken.yaml").write_text("dataset_name: [a\n")
    with pytest.raises(SystemExit, match="broken.yaml: is no YAML.*The runs are stored; benchmarks.compare_recipes"):
        place.run(*recipes)
    assert place.result("bert_crf")["results"]["scores"]
    (place.recipes / "broken.yaml").unlink()
    place.compare(*recipes)
    assert "bert_crf" in place.statistics()


def test_rows_are_compared_with_text_only_on_the_same_encoder_with_the_same_context(place):
    recipes = {name: Recipe.read(path) for name, path in zip(ROWS, place.write(**ROWS), strict=True)}
    twins = {name: recipe.twin(list(recipes.values())) for name, recipe in recipes.items()}
    assert {name: twin and twin.row for name, twin in twins.items()} == {
        "bert_crf": None,
        "bert_softmax": "bert_crf",
        "bert_crf_caption": "bert_crf",
        "umgf": "bert_crf",
        "umgf_caption": "bert_crf_caption",
    }


def test_an_ablation_is_compared_with_the_whole_system(place):
    rows = {name: ROWS[name] for name in ("bert_crf", "umgf")}
    rows |= dict.fromkeys(("umgf_without_ind", "rgcn_without_gate"), ROWS["umgf"])
    recipes = [Recipe.read(path) for path in place.write(**rows)]
    assert recipes[2].twin(recipes) == recipes[1] and recipes[3].twin(recipes) is None


def test_a_row_whose_nodes_come_from_the_knowledge_is_compared_with_the_twin_that_reads_it(place):
    knowledge = {"processor_overrides": {"context": ["context"]}}
    listed = {"processor_overrides": {"context": ["named_entities"]}}
    nodes = {"dataset_name": "data/offline/twitter2017_knowledge"}
    rows = {
        "bert_crf": ROWS["bert_crf"],
        "bert_crf_knowledge": ROWS["bert_crf"] | knowledge,
        "bert_crf_knowledge_list": ROWS["bert_crf"] | nodes | listed,
        "umgf_knowledge": ROWS["umgf"] | nodes | knowledge,
        "umgf_knowledge_nodes": ROWS["umgf"] | nodes,
    }
    recipes = [Recipe.read(path) for path in place.write(**rows)]
    text, entries = ["context"], ["named_entities"]
    assert [recipe.reads for recipe in recipes] == [[], text, entries, text, entries]
    assert [recipe.reads_knowledge for recipe in recipes] == [False, True, True, True, True]
    twins = [twin and twin.row for twin in (recipe.twin(recipes) for recipe in recipes)]
    assert twins == [None, "bert_crf", "bert_crf", "bert_crf_knowledge", "bert_crf_knowledge_list"]


def test_statistics_are_over_the_seeds_that_both_have_and_outlive_the_predictions(place):
    recipes = place.write(bert_crf=ROWS["bert_crf"], umgf=ROWS["umgf"])
    place.run(recipes[0], seeds="1 2")
    place.run(recipes[1], seeds="1 2 3")
    statistics = place.statistics()
    umgf = statistics["umgf"]
    runs, twin_runs = dict.fromkeys("123", 100.0), dict.fromkeys("12", 40.0)
    assert umgf["made_of"] == {"runs": runs, "twin": "bert_crf", "twin_runs": twin_runs}
    assert umgf["difference"] == 60 and umgf["f1_low"] == umgf["f1_high"] == 100
    assert umgf["p_value"] == umgf["p_holm"] == pytest.approx(2 / 2**3, abs=0.02)  # three posts differ, all one way
    for path in (place.folder / "runs").rglob("test.conll"):
        path.unlink()
    place.compare(*recipes)
    assert place.statistics() == statistics


def test_statistics_of_runs_without_their_posts_are_kept_until_a_run_is_another_one(place):
    recipes = place.write(bert_crf=ROWS["bert_crf"], umgf=ROWS["umgf"])
    place.run(*recipes)
    statistics = place.statistics()

    without = place.result("bert_crf")
    del without["results"]["posts"]
    place.store("bert_crf", without)
    place.compare(recipes[1])
    assert place.statistics() == statistics
    without["results"]["scores"]["test_f1"] = 50.0
    place.store("bert_crf", without)
    lines = place.compare(recipes[1])
    assert sum("no statistics" in line for line in lines) == 2 and not any("against" in line for line in lines)


def test_statistics_are_forgotten_with_the_run_of_the_twin_that_they_were_made_of(place):
    recipes = place.write(bert_crf=ROWS["bert_crf"], umgf=ROWS["umgf"])
    place.run(*recipes)
    result = place.result("bert_crf")
    result["results"]["scores"]["test_f1"] = 50.0
    place.store("bert_crf", result)
    lines = place.compare(recipes[1])
    assert sum("no statistics" in line for line in lines) == 2 and not any("against" in line for line in lines)


@pytest.mark.parametrize(
    "change",
    [
        pytest.param(lambda posts: posts | {"correct": "1 1 1 0"}, id="another run"),
        pytest.param(lambda posts: posts | {"gold": "1 1 2 0"}, id="other gold names"),
        pytest.param(lambda posts: {kind: f"{of_posts} 0" for kind, of_posts in posts.items()}, id="a post more"),
    ],
)
def test_posts_of_another_run_or_another_split_are_not_taken_for_those_of_the_result(place, change):
    recipes = place.write(bert_crf=ROWS["bert_crf"], umgf=ROWS["umgf"])
    place.run(*recipes)
    (place.folder / "results" / "posts" / "statistics.json").unlink()
    result = place.result("umgf")
    result["results"]["posts"] = change(result["results"]["posts"])
    place.store("umgf", result)
    lines = place.compare(recipes[1])
    assert sum("no statistics" in line for line in lines) == 1 and not any("against" in line for line in lines)


def test_what_is_stored_of_the_posts_are_counts_and_digests(place):
    place.run(*place.write(umgf=ROWS["umgf"], bert_crf=ROWS["bert_crf"]))
    results = place.result("umgf")["results"]
    counts = "1 1 1 1"
    assert results["posts"].pop("entities").split() == 4 * [digests([["B-PER", "O"]])]
    assert results["posts"] == {"correct": counts, "predicted": counts, "gold": counts}
    assert results["changed_posts"] == {"other_pictures": 50}
    assert place.result("bert_crf")["results"]["posts"]["correct"] == "1 0 0 0"


def test_a_post_has_changed_when_its_entities_have_and_not_when_their_tags_are_written_otherwise():
    one = digests([["B-PER", "I-PER"], ["B-LOC"], ["O"], ["B-PER", "O"]])
    other = digests([["I-PER", "I-PER"], ["B-ORG"], ["O"], ["O", "B-PER"]])
    assert share_of_changed_posts(one, other) == 50


def test_errors_are_told_apart_and_nothing_is_counted_twice():
    gold = ["B-PER", "I-PER", "O", "B-LOC", "I-LOC", "O", "B-ORG", "O", "O", "B-MISC"]
    predicted = ["B-ORG", "I-ORG", "O", "B-LOC", "O", "O", "O", "O", "B-PER", "B-MISC"]
    errors = {"entities": 4, "type": 1, "boundary": 1, "missed": 1, "invented": 1}
    assert count_errors([gold], [predicted]) == errors
    assert count_errors([gold, gold], [gold, predicted]) == errors | {"entities": 8}


def test_posts_that_change_are_counted_between_seeds_and_against_the_twin_and_other_pictures(place):
    recipes = place.write(bert_crf=ROWS["bert_crf"], umgf=ROWS["umgf"])
    place.run(*recipes, seeds="1 2")
    statistics = place.statistics()
    assert statistics["bert_crf"]["changed_posts"] == {"another_seed": 0}
    assert statistics["umgf"]["changed_posts"] == {"another_seed": 0, "other_pictures": 50, "twin": 75}


def test_holm_multiplies_the_smallest_p_value_most_and_never_lets_a_later_one_fall_below():
    assert holm({"a": 0.04, "b": 0.01, "c": 0.03}) == pytest.approx({"b": 0.03, "c": 0.06, "a": 0.06})
    assert holm({"a": 0.6, "b": 0.7}) == {"a": 1.0, "b": 1.0}
    assert holm({}) == {}


def test_a_cell_that_is_run_again_gives_the_same_predictions(tmp_path, monkeypatch):
    monkeypatch.setattr(sys, "argv", ["run_recipes"])
    place = Workplace(tmp_path)
    settings = TINY | write_data(tmp_path / "data") | {"model_type": "umgf", "num_train_epochs": 1}
    recipes = place.write(umgf=settings)
    predictions = []
    for _ in range(2):
        place.run(*recipes)
        folder = place.folder / "runs" / "posts" / "umgf" / "seed_1.predictions"
        predictions.append({path.name: path.read_text() for path in folder.iterdir()})
        result = place.result("umgf")
        place.folder.joinpath("results", "posts", "umgf", "seed_1.json").unlink()
    assert predictions[0] == predictions[1] and len(predictions[0]) == 5
    variants = ("test", "test_without_pictures", "test_half_pictures", "test_shuffled_pictures", "validation")
    assert {f"{name}_{reading}f1" for name in variants for reading in ("", "strict_")} <= result["results"][
        "scores"
    ].keys()
    assert len(result["results"]["curve"]) == 1
    counts = counts_of([result["results"]["posts"]]).sum((0, 1))
    assert precision_recall_f1(counts)[2] == pytest.approx(result["results"]["scores"]["test_f1"], abs=1e-3)
