"""Context as text from files to cards: what is read, kept, learned, said and shown."""

import csv
import importlib.util
import json
import random
from pathlib import Path

import pytest
import yaml
from datasets import Dataset, DatasetDict, load_dataset
from PIL import Image
from test_train_umgf import TEXT, TINY, results_of
from tiny_describers import save_captioner
from transformers import AutoConfig, AutoProcessor, pipeline

import train_umgf
from dataset_scripts import build_dataset
from dataset_scripts.columns.contract import dataset_features
from dataset_scripts.reading.bad_input import BadInput
from dataset_scripts.reading.splits import load_splits
from dataset_scripts.writing.dataset_folder import write_dataset
from modeling_umgf.configuration_text_only import TextOnlyConfig
from modeling_umgf.descriptors import Captioner
from modeling_umgf.model_card import CardError, write_model_card
from modeling_umgf.modeling_text_only import TextOnlyModel
from modeling_umgf.processing_multimodal_ner import context_words
from modeling_umgf.tagging import TagOptions, tag_file

APP = Path(__file__).resolve().parents[1] / "demo" / "app.py"
HEADLINES = {
    "PER": ["a man sings", "a woman with a hat", "the singer laughs"],
    "LOC": ["a street with houses", "the sea at night", "a bridge over water"],
}


def invented_posts(split: str, count: int, seed: int) -> list[dict]:
    """Posts about names that nobody has, of which only the headline tells whether they are people or places."""
    draw = random.Random(seed)
    posts = []
    for i in range(count):
        name = "".join(draw.choice(letters) for letters in ("BDKLMR", "aeiou", "lmnrst", "aeiou"))
        kind = draw.choice(list(HEADLINES))
        words = draw.choice(["saw {} today", "{} is great", "i love {}"]).format(name).split()
        tags = [f"B-{kind}" if word == name else "O" for word in words]
        posts.append({"id": f"{split}{i}", "tokens": words, "tags": tags, "headline": draw.choice(HEADLINES[kind])})
    return posts


def write_posts(folder: Path, **counts: int) -> dict[str, str]:
    """Arguments for files of such posts."""
    arguments = {}
    folder.mkdir(parents=True, exist_ok=True)
    for seed, (split, count) in enumerate(counts.items()):
        path = folder / f"{split}.jsonl"
        path.write_text("".join(json.dumps(post) + "\n" for post in invented_posts(split, count, seed)))
        arguments[f"{split}_file"] = str(path)
    return arguments


ONE_LAYER = TEXT | {"hidden_size": 32, "hidden_dropout_prob": 0.0, "attention_probs_dropout_prob": 0.0}
NO_STOPS = {"eval_strategy": "no", "save_strategy": "no", "load_best_model_at_end": False, "logging_strategy": "no"}
READS_HEADLINES = {"processor_overrides": {"context": ["headline"]}}
QUICK = NO_STOPS | {"text_only": True, "text_config": TEXT, "max_steps": 2}


def run(output_dir: Path, arguments: dict) -> None:
    """Run the training command."""
    argv = []
    for name, value in ({"output_dir": output_dir, "bootstrap_samples": 20, "disable_tqdm": True} | arguments).items():
        argv += [f"--{name}", json.dumps(value) if isinstance(value, dict) else str(value)]
    train_umgf.main(argv)


def error_of(output_dir: Path, arguments: dict) -> str:
    """The one line of a command that must fail, and write nothing."""
    with pytest.raises(SystemExit) as exit_:
        run(output_dir, arguments)
    assert "\n" not in exit_.value.code and not output_dir.exists()
    return exit_.value.code


def learn(folder: Path, settings: dict) -> float:
    """Train a text-only model of one layer on the invented posts; returns its F1 on new ones."""
    data = write_posts(folder / "data", train=300, test=100)
    sizes = {"num_train_epochs": 8, "per_device_train_batch_size": 16, "learning_rate": 1e-2}
    sizes |= {"text_learning_rate": 5e-3, "text_only": True, "text_config": ONE_LAYER}
    run(folder / "run", data | sizes | NO_STOPS | {"config_overrides": {"dropout": 0.0}} | settings)
    return results_of(folder / "run")["test_f1"]


@pytest.fixture(scope="module")
def learned(tmp_path_factory) -> Path:
    """A model that has learned to read headlines, in a minute's fraction."""
    folder = tmp_path_factory.mktemp("learned")
    assert learn(folder, READS_HEADLINES) > 95
    return folder / "run"


def test_a_model_learns_from_the_context_what_the_post_does_not_tell(learned, tmp_path):
    assert learn(tmp_path, {}) < 75  # as for the toss of a coin
    assert learned.is_dir()


def test_the_saved_model_reads_its_context_when_it_tags(learned, tmp_path):
    tagger = pipeline("multimodal-ner", model=str(learned))
    for kind, headlines in HEADLINES.items():
        (entity,) = tagger({"text": "saw Kimo today", "headline": headlines[0]})
        assert (entity["word"], entity["entity_group"]) == ("Kimo", kind)
    rows = [{"id": kind, "text": "saw Kimo today", "headline": texts[1]} for kind, texts in HEADLINES.items()]
    (tmp_path / "posts.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    with open(tmp_path / "posts.csv", "w", newline="") as file:
        writer = csv.DictWriter(file, ["id", "text", "headline"])
        writer.writeheader()
        writer.writerows(rows)
    for ending in ("jsonl", "csv"):
        output = tmp_path / f"from_{ending}.jsonl"
        tag_file(TagOptions(input=str(tmp_path / f"posts.{ending}"), output=str(output), model=str(learned)))
        tagged = [json.loads(line) for line in output.read_text().splitlines()]
        assert [[own["entity_group"] for own in post["entities"]] for post in tagged] == [["PER"], ["LOC"]]


def test_a_trained_model_reads_its_context_when_it_is_evaluated_and_can_be_told_to_read_none(learned, tmp_path):
    data = write_posts(tmp_path, test=100)
    run(tmp_path / "again", data | {"model_name_or_path": str(learned)})
    assert results_of(tmp_path / "again")["test_f1"] > 95
    alone = {"model_name_or_path": str(learned), "processor_overrides": {"context": []}}
    run(tmp_path / "alone", data | alone | {"compare_with": str(learned)})
    results = results_of(tmp_path / "alone")
    assert results["test_f1"] < 75 and results["test_compared_f1"] > 95


def test_the_card_says_what_is_read_after_the_post_and_shows_it(learned):
    card = (learned / "README.md").read_text()
    assert "After the words of a post it reads, as a second segment, its context: `headline`." in card
    assert '"headline": "a woman on a stage"})' in card
    assert "every number above is text only**: that of the posts and of their columns `headline`" in card
    (code,) = [part.split("```")[0] for part in card.split("```python\n")[1:]]
    read = {}
    exec(code.replace('model="."', f'model="{learned}"'), read)
    assert isinstance(read["entities"], list)


def test_runs_with_other_contexts_do_not_share_a_card(learned, tmp_path):
    facts = json.loads((learned / "run.json").read_text())
    for name, context in {"one": ["headline"], "other": []}.items():
        write_model_card(tmp_path / name, facts | {"context": context})
    with pytest.raises(CardError, match="differ in context"):
        write_model_card(tmp_path / "one", other_seeds=[tmp_path / "other"])
    del facts["context"]  # of a run before there was any
    assert "second segment" in write_model_card(tmp_path / "old", facts).read_text()


# ------------------------------------------------------------------------------------------------ training command


def test_the_text_only_twin_of_a_system_reads_the_same_context(tmp_path, caplog):
    data = write_posts(tmp_path / "data", train=4, test=2)
    settings = {"processor_overrides": {"context": ["headline"], "max_objects": 4}, "config_overrides": {}}
    run(tmp_path / "twin", data | TINY | NO_STOPS | settings | {"text_only": True, "max_steps": 1})
    assert AutoProcessor.from_pretrained(tmp_path / "twin").context == ["headline"]
    assert "has no max_objects, vision_config: these settings are left out" in caplog.text


def test_a_yaml_file_names_the_context_of_a_system_and_both_views_are_trained(tmp_path):
    data = write_posts(tmp_path / "data", train=6, test=2)
    settings = data | NO_STOPS | READS_HEADLINES | {"text_config": TEXT, "max_steps": 2, "bootstrap_samples": 10}
    settings |= {"config_overrides": TINY["config_overrides"] | {"cross_view_weight": 1.0}}
    (tmp_path / "settings.yaml").write_text(yaml.safe_dump(settings | {"output_dir": str(tmp_path / "out")}))
    train_umgf.main([str(tmp_path / "settings.yaml")])
    assert AutoProcessor.from_pretrained(tmp_path / "out").context == ["headline"]
    assert AutoConfig.from_pretrained(tmp_path / "out").cross_view_weight == 1.0


def test_a_context_that_no_split_has_is_one_clear_line(tmp_path):
    data = write_posts(tmp_path / "data", train=4, test=2)
    settings = data | QUICK | {"processor_overrides": {"context": ["caption"]}}
    said = error_of(tmp_path / "out", settings)
    assert "context 'caption', a column that no split has; they have id, " in said and "--processor_overrides" in said
    wrong = data | QUICK | {"processor_overrides": {"context": "headline"}}
    assert 'give a list of columns of texts, such as ["caption"]' in error_of(tmp_path / "out", wrong)


def test_posts_without_a_context_are_counted_once(tmp_path, caplog):
    data = write_posts(tmp_path / "data", train=5, test=3)
    posts = [json.loads(line) for line in Path(data["train_file"]).read_text().splitlines()]
    posts[0]["headline"] = None
    posts[1]["headline"] = " "
    del posts[2]["headline"]
    Path(data["train_file"]).write_text("".join(json.dumps(post) + "\n" for post in posts))
    run(tmp_path / "out", data | QUICK | READS_HEADLINES)
    said = [record.getMessage() for record in caplog.records if "without a context" in record.getMessage()]
    assert said == ["Posts without a context (headline), which are read alone: 3 of 5 in train, 0 of 3 in test."]


def test_tokenizers_from_scratch_learn_the_context_too(tmp_path):
    data = write_posts(tmp_path / "data", train=40, test=2)
    words = {"model_type": "bilstm", "hidden_size": 16, "characters": "lstm"}
    for name, text in {"words": words, "pieces": TEXT}.items():
        run(tmp_path / name, data | QUICK | READS_HEADLINES | {"text_config": text})
        tokenizer = AutoProcessor.from_pretrained(tmp_path / name).tokenizer
        assert "bridge" in tokenizer.get_vocab()
        run(tmp_path / f"{name}_alone", data | QUICK | {"text_config": text})
        assert "bridge" not in AutoProcessor.from_pretrained(tmp_path / f"{name}_alone").tokenizer.get_vocab()


def test_long_contexts_fill_the_positions_of_every_encoder_and_no_more(tmp_path):
    data = write_posts(tmp_path / "data", train=4, test=2)
    path = Path(data["train_file"])
    posts = [json.loads(line) | {"headline": "the sea at night " * 40} for line in path.read_text().splitlines()]
    path.write_text("".join(json.dumps(post) + "\n" for post in posts))
    for model_type, limit in {"roberta": 63, "bert": 64}.items():  # the first counts from behind the padding
        text = TEXT | {"model_type": model_type, "pad_token_id": 0}
        run(tmp_path / model_type, data | QUICK | READS_HEADLINES | {"text_config": text})
        assert AutoProcessor.from_pretrained(tmp_path / model_type).tokenizer.model_max_length == limit
    sizes = {"num_hidden_layers": 1, "hidden_size": 16, "num_attention_heads": 2, "intermediate_size": 16}
    text = AutoConfig.for_model("roberta", max_position_embeddings=514, pad_token_id=1, **sizes)
    assert TextOnlyModel(TextOnlyConfig(text_config=text)).max_pieces() == 512


def test_captions_made_by_a_model_are_made_by_it_again_when_a_text_only_model_tags(tmp_path, monkeypatch):
    captioner = save_captioner("blip", tmp_path / "captioner")
    picture = Image.new("RGB", (48, 32), "red")
    picture.paste("blue", (8, 8, 24, 24))
    caption = Captioner.from_pretrained(captioner)([picture])[0]
    features = dataset_features(["O", "B-PER", "B-LOC"], ["caption"])
    rows = {"id": ["1", "2"], "tokens": [["see", "Anna"], ["see", "Rome"]], "ner_tags": [[0, 1], [0, 2]]}
    rows |= {"image": [picture, None], "caption": [caption or "a cat", None]}
    split = Dataset.from_dict(rows, features=features)
    source = json.dumps({"captioner": str(captioner)})
    splits = DatasetDict(train=split, test=split)
    write_dataset(splits, tmp_path / "data", title="Two posts", description=f"- `caption`: {source}")
    settings = QUICK | {"dataset_name": str(tmp_path / "data"), "processor_overrides": {"context": ["caption"]}}
    run(tmp_path / "out", settings)
    processor = AutoProcessor.from_pretrained(tmp_path / "out")
    assert processor.column_sources == {"caption": {"captioner": str(captioner)}}
    results = results_of(tmp_path / "out")
    assert "test_without_pictures_f1" in results  # captions come from pictures
    tagger = pipeline("multimodal-ner", model=str(tmp_path / "out"))
    calls = []
    answer = Captioner.__call__
    monkeypatch.setattr(Captioner, "__call__", lambda self, pictures: calls.append(1) or answer(self, pictures))
    found = tagger({"text": "see Anna", "image": picture}, aggregation_strategy="none")
    given = tagger({"text": "see Anna", "caption": caption}, aggregation_strategy="none")
    assert calls == [1]
    assert [word["score"] for word in found] == pytest.approx([word["score"] for word in given], abs=1e-5)
    picture.save(tmp_path / "p.png")
    (tmp_path / "posts.jsonl").write_text(json.dumps({"text": "see Anna", "image": "p.png"}) + "\n")
    options = {"input": str(tmp_path / "posts.jsonl"), "model": str(tmp_path / "out")}
    tag_file(TagOptions(output=str(tmp_path / "a.jsonl"), captioner=str(captioner), **options))
    assert calls == [1, 1]
    tag_file(TagOptions(output=str(tmp_path / "b.jsonl"), **options))
    assert calls == [1, 1, 1]
    assert (tmp_path / "a.jsonl").read_text() == (tmp_path / "b.jsonl").read_text()


# --------------------------------------------------------------------------------------------------------- reading


def write_jsonl(path: Path, *records: dict) -> str:
    path.write_text("".join(json.dumps(record) + "\n" for record in records))
    return str(path)


def test_columns_of_texts_are_kept_where_they_are_asked_for(tmp_path, caplog):
    post = {"tokens": ["Anna"], "tags": ["B-PER"], "context": "c", "caption": "d", "object_labels": "cat, big dog"}
    first = post | {"headline": "h", "sentence": "s", "other": 1}
    file = write_jsonl(tmp_path / "a.jsonl", first, post | {"headline": ["a", "b"]})
    split = load_splits({"train": file}, texts=["headline", "sentence", "caption"])["train"]
    assert split["headline"][:] == ["h", "a, b"] and split["sentence"][:] == ["s", None]
    assert split["context"][:] == ["c", "c"] and split["object_labels"][0] == ["cat", "big dog"]
    assert "left out the fields other (1 posts)" in caplog.text
    assert "headline" not in load_splits({"train": file})["train"].column_names
    with pytest.raises(BadInput, match="a.jsonl:1: other must be a string or null, found 1"):
        load_splits({"train": file}, texts=["other"])


def test_columns_of_texts_of_csv_files_are_kept_by_the_names_that_were_asked_for(tmp_path):
    texts = ["[live] now", "[sic] a cat"]
    files = {
        "posts": [["tokens", "tags"], ["Anna sings", "B-PER O"]],
        "words": [["post", "word", "tag"], ["1", "Anna", "B-PER"], ["1", "sings", "O"]],
    }
    for name, (header, *rows) in files.items():
        with open(tmp_path / f"{name}.csv", "w", newline="") as file:
            csv.writer(file).writerows([header + ["Headline", "caption"], *(row + texts for row in rows)])
        split = load_splits({"train": tmp_path / f"{name}.csv"}, texts=["Headline"])["train"]
        assert [split["Headline"][0], split["caption"][0]] == texts
        assert split["tokens"][0] == ["Anna", "sings"]


def test_columns_of_texts_of_a_dataset_are_kept_and_build_dataset_writes_them(tmp_path, monkeypatch):
    file = write_jsonl(tmp_path / "a.jsonl", {"tokens": ["Anna"], "tags": ["B-PER"], "headline": "h", "context": "c"})
    arguments = ["--train", file, "--texts", "headline", "--output_dir", str(tmp_path / "data")]
    monkeypatch.setattr("sys.argv", ["build_dataset", *arguments])
    build_dataset.main()
    assert load_dataset(str(tmp_path / "data"), split="train")["headline"][:] == ["h"]
    split = load_splits(str(tmp_path / "data"), texts=["headline"])["train"]
    assert context_words(split[0], ["context", "headline"]) == ["c", "h"]


# ------------------------------------------------------------------------------------------------------------- demo


def load_app():
    spec = importlib.util.spec_from_file_location("app", APP)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_the_page_has_a_field_for_what_the_model_reads_after_the_post_and_else_none(learned, tmp_path):
    pytest.importorskip("gradio")
    app = load_app()
    page = app.make_page(str(learned))
    fields = [block for block in page.blocks.values() if str(getattr(block, "elem_id", "")).startswith("context-")]
    assert [field.label for field in fields] == ["headline, read after the post (optional)"]
    (tag,) = {button.fn for button in page.fns.values() if button.fn.__name__ == "tag"}
    for kind, headlines in HEADLINES.items():
        (row,) = tag("saw Kimo today", None, "", False, headlines[0])[-1]
        assert row[:2] == ["Kimo", kind]
    data = write_posts(tmp_path / "data", train=4, test=2)
    run(tmp_path / "plain", data | QUICK)
    page = app.make_page(str(tmp_path / "plain"))
    assert not any(str(getattr(block, "elem_id", "")).startswith("context-") for block in page.blocks.values())
