"""Twitter data without pictures: what the captions become, and what is said where something is missing."""

import json
import sys
from functools import partial

import pytest
import torch
from conftest import tiny_tokenizer
from datasets import load_dataset
from transformers import BertConfig, BertModel

from dataset_scripts import offline_twitter
from dataset_scripts.reading.bad_input import BadInput
from dataset_scripts.reading.entity_lists import find_name, read_entity_list
from modeling_umgf import RelationIndex
from modeling_umgf.noun_phrases import find_noun_phrases
from modeling_umgf.sentence_encoders import SentenceEncoder

POSTS = {
    "1": (["Anna", "meets", "Bob", "in", "Rome"], ["B-PER", "O", "B-PER", "O", "B-LOC"], "a Rome with Paris"),
    "2": (["the", "cat", "sleeps"], ["O", "O", "O"], "nothing but snow"),
    "3": (["Paris", "!"], ["B-LOC", "O"], "Anna near the Cat"),
    "4": (["see", "Bob"], ["O", "B-PER"], "Bob and Anna"),
    "5": (["see", "Anna"], ["O", "B-PER"], "nothing but snow"),
    "6": (["in", "Paris"], ["O", "B-LOC"], "Paris with Anna"),
    "7": (["in", "Rome"], ["O", "B-LOC"], "Rome and a Cat"),
    "8": (["Bob", "!"], ["B-PER", "O"], "a Cat"),
}


@pytest.fixture
def sources(tmp_path, monkeypatch) -> dict[str, str]:
    """Files of eight posts, two of them with a blank picture, and a tiny encoder in the place of MiniLM."""
    folder = tmp_path / "UMT"
    folder.mkdir()
    blocks = []
    for name, (words, tags, _) in POSTS.items():
        lines = [f"{word}\t{tag}" for word, tag in zip(words, tags, strict=True)]
        blocks.append("\n".join([f"IMGID:{name}", *lines, ""]))
    for file, chosen in (("train.txt", blocks[:6]), ("valid.txt", blocks[6:7]), ("test.txt", blocks[7:])):
        (folder / file).write_text("\n".join(chosen), encoding="utf-8")
    captions = [f"{name}.jpg :{caption}" for name, (_, _, caption) in POSTS.items()]
    (tmp_path / "captions.txt").write_text("\n".join(captions), encoding="utf-8")
    told = {name: f"Named entities: of {name}" for name in "1234567"}
    told["3"] = "Named entities: 1. PARIS (city) 2. Anna (a person) Reasoning: Paris is a city (or a person)."
    knowledge = [json.dumps({"id": name, "knowledge": text}) for name, text in told.items()]
    (tmp_path / "knowledge.jsonl").write_text("\n".join(knowledge), encoding="utf-8")
    tokenizer = tiny_tokenizer()
    sizes = {"hidden_size": 16, "num_hidden_layers": 1, "num_attention_heads": 2, "intermediate_size": 16}
    torch.manual_seed(0)
    encoder = tmp_path / "out" / offline_twitter.ENCODER
    BertModel(BertConfig(vocab_size=len(tokenizer), **sizes)).save_pretrained(encoder)
    tokenizer.save_pretrained(encoder)
    monkeypatch.setattr(offline_twitter, "check_release", lambda *_: None)
    monkeypatch.setattr(offline_twitter, "build_relations", partial(offline_twitter.build_relations, k=2))
    monkeypatch.setattr(offline_twitter, "BLANK", 1)
    monkeypatch.setattr(offline_twitter, "noun_phrase_extractor", lambda name: name)
    monkeypatch.setattr(offline_twitter, "find_noun_phrases", partial(find_noun_phrases, extractor="capitals"))
    return {
        "--posts": str(folder),
        "--captions": str(tmp_path / "captions.txt"),
        "--knowledge": str(tmp_path / "knowledge.jsonl"),
        "--output_dir": str(tmp_path / "out"),
    }


def run(monkeypatch, dataset: str, sources: dict[str, str | list[str]]) -> None:
    values = {name: [value] if isinstance(value, str) else value for name, value in sources.items()}
    arguments = [part for name, value in values.items() for part in (name, *value)]
    monkeypatch.setattr(sys, "argv", ["offline_twitter", dataset, *arguments])
    offline_twitter.main()


def test_a_picture_becomes_its_caption_and_the_captions_noun_phrases(sources, monkeypatch, tmp_path):
    run(monkeypatch, "twitter2017", sources)
    splits = load_dataset(str(tmp_path / "out" / "twitter2017"), cache_dir=str(tmp_path / "cache"))
    assert {name: len(split) for name, split in splits.items()} == {"train": 6, "validation": 1, "test": 1}
    post = splits["train"][0]
    assert post["caption"] == "a Rome with Paris" and post["object_labels"] == ["Paris", "Rome"]
    assert post["context"] == "Named entities: of 1" and splits["test"][0]["context"] is None
    whole, rome, paris = post["objects"]
    assert whole["query"] == "a Rome with Paris" and whole["phrase"] is None
    assert rome["query"] == "Rome" and rome["phrase"] == {"start": 4, "end": 5}  # the word itself: cosine 1
    assert rome["score"] == pytest.approx(1, abs=1e-3)
    linked = paris["phrase"] is not None
    assert linked == (paris["score"] >= offline_twitter.MIN_SIMILARITY)
    encoder = SentenceEncoder(tmp_path / "out" / offline_twitter.ENCODER)
    expected = encoder.encode(["a Rome with Paris", "Rome", "Paris"])
    assert torch.allclose(torch.tensor(post["object_features"]), expected, atol=1e-4)


def test_the_named_entities_of_the_knowledge_become_nodes_of_their_kind(sources, monkeypatch, tmp_path):
    run(monkeypatch, "twitter2017", sources)
    splits = load_dataset(str(tmp_path / "out" / "twitter2017_knowledge"), cache_dir=str(tmp_path / "cache"))
    post = splits["train"][2]
    nodes = [(node["query"], node["phrase"]) for node in post["objects"]]
    linked = ("PARIS (city)", {"start": 0, "end": 1})
    assert nodes == [("Anna near the Cat", None), linked, ("Anna (a person)", None)]
    assert post["named_entities"] == "PARIS (city), Anna (a person)" and splits["train"][1]["named_entities"] is None
    encoder = SentenceEncoder(tmp_path / "out" / offline_twitter.ENCODER)
    expected = encoder.encode(["Anna near the Cat", "city", "a person"])
    assert torch.allclose(torch.tensor(post["object_features"]), expected, atol=1e-4)
    assert splits["train"][1]["objects"] == [] and len(splits["test"][0]["objects"]) == 1  # no knowledge: the caption
    told = (tmp_path / "out" / "twitter2017_knowledge" / "README.md").read_text(encoding="utf-8")
    assert "train: 6 nodes, 1 of them linked to a phrase." in told and "never text only" in told


def test_knowledge_in_the_files_of_its_authors_is_known_by_the_words_of_the_posts(sources, monkeypatch, tmp_path):
    files = []
    for number, chosen in enumerate(("12345", "67")):
        lines = []
        for name in chosen:
            words, tags, _ = POSTS[name]
            known = f"Named entities: of {name}".split() if name != "4" else []
            lines += [f"{word} {tag}" for word, tag in zip(words, tags, strict=True)]
            lines += [f"{word} X" for word in ["<EOS>", *known]] if known else []
            lines.append("")
        files.append(tmp_path / f"{number}.txt")
        files[-1].write_text("\n".join([*lines, "\xa0 O", "<EOS> X", "unknown X"]), encoding="utf-8")
    run(monkeypatch, "twitter2017", sources | {"--knowledge": list(map(str, files))})
    splits = load_dataset(str(tmp_path / "out" / "twitter2017"), cache_dir=str(tmp_path / "cache"))
    context = {row["id"]: row["context"] for split in splits.values() for row in split}
    assert context == {name: None if name in "48" else f"Named entities: of {name}" for name in POSTS}
    (tmp_path / "other.txt").write_text("nobody O\n<EOS> X\nunknown X\n", encoding="utf-8")
    with pytest.raises(BadInput, match="other.txt: tells nothing of any post"):
        run(monkeypatch, "twitter2017", sources | {"--knowledge": str(tmp_path / "other.txt")})
    (tmp_path / "other.txt").write_text("nobody O\nalone\n", encoding="utf-8")
    with pytest.raises(BadInput, match="other.txt:2: 'alone' is no word with its label"):
        run(monkeypatch, "twitter2017", sources | {"--knowledge": str(tmp_path / "other.txt")})


def test_without_knowledge_there_is_no_set_of_it(sources, monkeypatch, tmp_path):
    monkeypatch.setattr(offline_twitter, "build_relations", lambda *_, **__: None)
    run(monkeypatch, "twitter2017", {name: file for name, file in sources.items() if name != "--knowledge"})
    assert not (tmp_path / "out" / "twitter2017_knowledge").exists()


@pytest.mark.parametrize(
    ("text", "entries"),
    [
        ("Named entities:1. Kawhi (person/player)2. 2017 (year)Reasoning:1. x (y)", ["Kawhi", "2017"]),
        ("Named Entity: Louis Vuitton (brand)", ["Louis Vuitton"]),
        ("named entities\n1) 07.05.16 （date）\n2) #A-B（tag）", ["07.05.16", "#A-B"]),
        ("Named entities: None. Reasoning: none (at all)", []),
        ("There are none.", []),
        ("", []),
    ],
)
def test_entries_are_read_up_to_the_reasoning(text, entries):
    assert [entry.name for entry in read_entity_list(text)] == entries


def test_a_name_is_found_in_any_case_across_words_and_signs_and_never_inside_a_word():
    words = ["#", "Rome", "is", "ROME", "-", "and", "New", "York", "-", "City", "romes"]
    assert find_name(words, "Rome") == [{"start": 1, "end": 2}, {"start": 3, "end": 4}]
    assert find_name(words, "#new york city") == [{"start": 6, "end": 10}]
    assert find_name(words, "York City!") == [{"start": 7, "end": 10}]
    assert find_name(words, "…") == find_name(words, "New Yor") == find_name([], "Rome") == []


def test_a_caption_that_too_many_pictures_share_is_that_of_a_blank_picture(sources, monkeypatch, tmp_path):
    run(monkeypatch, "twitter2017", sources)
    rows = load_dataset(str(tmp_path / "out" / "twitter2017"), cache_dir=str(tmp_path / "cache"))["train"]
    blank = [row for row in rows if row["caption"] is None]
    assert [row["id"] for row in blank] == ["2", "5"]
    assert all(row["objects"] == [] and row["object_features"] == [] for row in blank)
    cleaned = load_dataset(str(tmp_path / "out" / "twitter2017c"), cache_dir=str(tmp_path / "cache"))["train"]
    assert cleaned["id"][:] == ["1", "3", "4", "6"]


def test_neighbours_come_from_the_training_posts_and_the_own_picture_is_its_caption(sources, monkeypatch, tmp_path):
    run(monkeypatch, "twitter2017", sources)
    folder = tmp_path / "out" / "twitter2017_relations"
    splits = load_dataset(str(folder / "dataset"), cache_dir=str(tmp_path / "cache"))
    index = RelationIndex.from_pretrained(folder / "relation_index")
    assert sorted(index.ids) == ["1", "3", "4", "6"]
    test = splits["test"][0]
    assert {one["id"] for one in test["neighbors_inter"]} <= set(index.ids)
    assert [one["id"] for one in test["neighbors_intra"]]  # other captions with a Cat
    assert len(test["object_features"]) == 1 and "objects" not in splits["test"].features


def test_cross_domain_sets_are_written_when_both_are_there(sources, monkeypatch, tmp_path):
    monkeypatch.setattr(offline_twitter, "build_relations", lambda *_, **__: None)
    run(monkeypatch, "twitter2017", sources)
    assert not list((tmp_path / "out").glob("*_to_*"))
    run(monkeypatch, "twitter2015", sources)
    found = sorted(path.name for path in (tmp_path / "out").glob("*_to_*"))
    assert found == ["twitter2015_to_twitter2017", "twitter2017_to_twitter2015"]
    splits = load_dataset(str(tmp_path / "out" / found[0]), cache_dir=str(tmp_path / "cache"))
    assert splits["train"]["id"][:] == list("123456") and splits["test"]["id"][:] == ["8"]


def test_a_run_that_was_stopped_does_not_compute_vectors_again(sources, monkeypatch, tmp_path):
    def stop(*_, **__):
        raise KeyboardInterrupt

    with monkeypatch.context() as patched:
        patched.setattr(offline_twitter, "write_dataset", stop)
        with pytest.raises(KeyboardInterrupt):
            run(monkeypatch, "twitter2017", sources)
    monkeypatch.setattr(offline_twitter, "build_relations", lambda *_, **__: None)
    with monkeypatch.context() as patched:
        patched.setattr(SentenceEncoder, "encode", stop)
        run(monkeypatch, "twitter2017", sources)
    assert not list((tmp_path / "out").glob("*.unfinished"))


def test_what_is_missing_is_said_in_one_sentence(sources, monkeypatch, tmp_path):
    wrong = tmp_path / "wrong.jsonl"
    wrong.write_text('{"id": "1"}\n')
    with pytest.raises(BadInput, match=r'wrong.jsonl:1: is not \{"id": "…", "knowledge": "…"\}'):
        run(monkeypatch, "twitter2017", sources | {"--knowledge": str(wrong)})
    monkeypatch.setattr(offline_twitter, "noun_phrase_extractor", lambda name: offline_twitter.capitalised_phrases)
    with pytest.raises(BadInput, match="averaged_perceptron_tagger_eng"):
        run(monkeypatch, "twitter2017", sources)


def test_knowledge_and_captions_of_other_posts_are_refused(sources, monkeypatch, tmp_path):
    other = tmp_path / "other.jsonl"
    other.write_text('{"id": "99", "knowledge": "Named entities: 1. Anna (a person)"}\n')
    with pytest.raises(BadInput, match="other.jsonl: tells nothing of any post of the release"):
        run(monkeypatch, "twitter2017", sources | {"--knowledge": str(other)})
    other.write_text('{"id": "1", "knowledge": "a"}\n{"id": "1", "knowledge": "b"}\n')
    with pytest.raises(BadInput, match="other.jsonl:2: the id 1 was there before"):
        run(monkeypatch, "twitter2017", sources | {"--knowledge": str(other)})
    (tmp_path / "others.txt").write_text("99.jpg :a cat\n")
    with pytest.raises(BadInput, match="others.txt: has no caption of any post of the release"):
        run(monkeypatch, "twitter2017", sources | {"--captions": str(tmp_path / "others.txt")})


def test_other_files_than_the_release_are_refused(sources, monkeypatch):
    monkeypatch.undo()
    with pytest.raises(BadInput, match="NLTK|this is not Twitter-2017 in the release of UMT"):
        run(monkeypatch, "twitter2017", sources)
