"""Noun phrases of real and of awkward posts, and what happens without the tagger."""

import json
import logging
import sys
import zipfile
from pathlib import Path

import pytest

from dataset_scripts.reading.conll import read_conll
from modeling_umgf import noun_phrases
from modeling_umgf.noun_phrases import find_noun_phrases

SHARED_DATA = Path(__file__).parents[1].parent / "shared" / "data"
CHECKED_BY_EYE = Path(__file__).parent / "noun_phrases_of_50_tweets.json"


@pytest.fixture
def tagger(monkeypatch):
    nltk = pytest.importorskip("nltk")
    monkeypatch.setattr(nltk.data, "path", [*nltk.data.path, str(SHARED_DATA / "nltk_data")])
    noun_phrases._nltk_tagger.cache_clear()
    if noun_phrases._nltk_tagger() is None:
        pytest.skip("NLTK's tagger data are not here")


@pytest.fixture
def no_tagger(monkeypatch):
    noun_phrases._nltk_tagger.cache_clear()
    yield monkeypatch
    noun_phrases._nltk_tagger.cache_clear()


def phrases(sentence: str, **options) -> list[str]:
    words = sentence.split()
    return [" ".join(words[span["start"] : span["end"]]) for span in find_noun_phrases(words, **options)]


@pytest.mark.parametrize("dataset", ["twitter2015", "twitter2017"])
def test_phrases_of_real_posts_are_those_read_by_eye(tagger, dataset):
    """The file lists, per post, the spans found right and the few found wrong when the rules were settled."""
    source = SHARED_DATA / dataset / "valid.txt"
    if not source.exists():
        pytest.skip("the posts are not here")
    words = {row["id"]: row["tokens"] for row in read_conll(source, umt=True)}
    expected = json.loads(CHECKED_BY_EYE.read_text())[dataset]
    assert len(expected) == 25
    for post, judged in expected.items():
        found = [[span["start"], span["end"]] for span in find_noun_phrases(words[post])]
        assert found == sorted(judged["right"] + judged["wrong"]), post


def test_at_least_five_in_six_phrases_were_judged_right():
    right = 0
    wrong = 0
    for posts in json.loads(CHECKED_BY_EYE.read_text()).values():
        right += sum(len(judged["right"]) for judged in posts.values())
        wrong += sum(len(judged["wrong"]) for judged in posts.values())
    assert right >= 5 * wrong


def test_users_links_rt_and_punctuation_are_in_no_phrase(tagger):
    assert phrases("RT @anna : The Eiffel Tower @ paris_fan , https://t.co/abc … ❤ &amp ; pic.twitter.com/x") == [
        "The Eiffel Tower"
    ]


def test_hashtag_counts_as_its_word_and_opens_a_phrase(tagger):
    assert phrases("Rain in #Paris #London with #NASA Engineers") == ["Rain", "#Paris", "#London", "#NASA Engineers"]


def test_full_stop_and_apostrophe_stay_inside_a_name(tagger):
    assert phrases("Dr . Seuss met J . K . Rowling and Shaquille O ' Neal . Anna left .") == [
        "Dr . Seuss",
        "J . K . Rowling",
        "Shaquille O ' Neal",
        "Anna",
    ]


def test_capitalised_function_words_do_not_join_names(tagger):
    assert phrases("Anna Smith And The Band After His Concert") == ["Anna Smith", "The Band", "His Concert"]


def test_possessive_splits_owner_and_thing(tagger):
    assert phrases("Anna ' s red car") == ["Anna", "red car"]


def test_of_joins_two_phrases_on_request_only(tagger):
    assert phrases("We saw the King of Spain in Rome") == ["the King", "Spain", "Rome"]
    assert phrases("We saw the King of Spain in Rome", merge_of=True) == ["the King of Spain", "Rome"]


@pytest.mark.parametrize("extractor", ["nltk", "capitals"])
@pytest.mark.parametrize(
    "words",
    [
        [],
        [""],
        [" ", "\u00a0", "\u200b", "\ufe0f"],
        ["RT"],
        ["@"],
        ["#"],
        ["@", "@", "#", "#"],
        [".", "'", "."],
        ["https://t.co/x"],
        ["&amp", ";"],
    ],
)
def test_posts_without_any_word_have_no_phrase(tagger, words, extractor):
    assert find_noun_phrases(words, extractor) == []


def test_spans_count_the_given_words_even_odd_ones(tagger):
    words = ["\u00a0", "Anna Smith", "", "in", "New York", "\ufe0f"]
    assert find_noun_phrases(words) == [{"start": 1, "end": 2}, {"start": 4, "end": 5}]


def test_missing_tagger_data_are_announced_with_the_way_out_and_capitals_stand_in(no_tagger, caplog):
    nltk = pytest.importorskip("nltk")
    no_tagger.setattr(nltk.data, "path", [])
    with caplog.at_level(logging.WARNING):
        found = [phrases("RT @bob : Anna Smith saw St . Ives and #Rome #Oslo") for _ in range(2)]
    assert found == [["Anna Smith", "St . Ives", "#Rome", "#Oslo"]] * 2
    assert len(caplog.records) == 1 and "\n" not in caplog.text.strip()
    assert "runs of capitalised words" in caplog.text
    assert "python -m nltk.downloader averaged_perceptron_tagger_eng" in caplog.text
    assert "without network: put averaged_perceptron_tagger_eng.zip" in caplog.text and "NLTK_DATA=" in caplog.text


def test_the_zip_of_the_tagger_in_a_folder_is_all_that_nltk_needs(no_tagger, tmp_path, caplog):
    """The documented way without network: the file as it is, in `taggers` of a folder that NLTK looks into."""
    nltk = pytest.importorskip("nltk")
    name = "averaged_perceptron_tagger_eng"
    known = {"the": "DT", "red": "JJ", "car": "NN", "stops": "VBZ"}
    parts = {"weights": {}, "tagdict": known, "classes": sorted(known.values())}
    (tmp_path / "taggers").mkdir()
    with zipfile.ZipFile(tmp_path / "taggers" / f"{name}.zip", "w") as archive:
        for part, content in parts.items():
            archive.writestr(f"{name}/{name}.{part}.json", json.dumps(content))
    no_tagger.setattr(nltk.data, "path", [str(tmp_path)])
    assert phrases("the red car stops") == ["the red car"]
    assert not caplog.records


def test_capitals_are_far_from_the_phrases_of_the_tagger_as_the_pages_say(tagger):
    """F1 of the spans over the first 200 posts of both validation files; the pages say: hardly more than half."""
    found = {"nltk": set(), "capitals": set()}
    for dataset in ("twitter2015", "twitter2017"):
        source = SHARED_DATA / dataset / "valid.txt"
        if not source.exists():
            pytest.skip("the posts are not here")
        for row in read_conll(source, umt=True)[:200]:
            for extractor, spans in found.items():
                spans.update((row["id"], *span.values()) for span in find_noun_phrases(row["tokens"], extractor))
    both = len(found["nltk"] & found["capitals"])
    assert 0.5 < 2 * both / (len(found["nltk"]) + len(found["capitals"])) < 0.6


def test_missing_nltk_is_announced_likewise(no_tagger, caplog):
    no_tagger.setitem(sys.modules, "nltk.tag", None)
    assert phrases("we met Anna Smith") == ["Anna Smith"]
    assert "pip install nltk" in caplog.text


def test_any_callable_finds_the_phrases():
    def first_two_words_and_all(words):
        return [(0, 2), {"start": 0, "end": len(words)}, (0, 2)]

    words = "Anna Smith sings https://t.co/x".split()
    assert find_noun_phrases(words, first_two_words_and_all) == [{"start": 0, "end": 2}, {"start": 0, "end": 3}]


@pytest.mark.parametrize("span", [(0, 9), (-1, 1), (2, 2), (1,), "ab", {"start": 0}, None])
def test_a_span_that_is_none_is_refused(span):
    with pytest.raises(ValueError, match="which is not a .* span of 3 words"):
        find_noun_phrases(["a", "b", "c"], lambda words: [span])


def test_unknown_extractor_names_the_known_ones():
    with pytest.raises(ValueError, match='"nltk", "spacy", "capitals"'):
        find_noun_phrases(["a"], "stanford")


def test_spacy_chunks_without_pronouns(tmp_path):
    spacy = pytest.importorskip("spacy")

    @spacy.language.Language.component("fixed_parse")
    def fixed_parse(document):
        assert [token.text for token in document] == ["bob", ":", "She", "saw", "the", "tower"]
        for token, head, dependency, part in zip(
            document,
            [3, 3, 3, 3, 5, 3],
            ["dep", "punct", "nsubj", "ROOT", "det", "dobj"],
            ["PROPN", "PUNCT", "PRON", "VERB", "DET", "NOUN"],
            strict=True,
        ):
            token.head = document[head]
            token.dep_ = dependency
            token.pos_ = part
        return document

    pipeline = spacy.blank("en")
    pipeline.add_pipe("fixed_parse")
    pipeline.to_disk(tmp_path / "parser")
    assert phrases("@bob : She saw the tower", extractor=f"spacy:{tmp_path / 'parser'}") == ["the tower"]


def test_missing_spacy_says_how_to_get_it(no_tagger):
    no_tagger.setitem(sys.modules, "spacy", None)
    with pytest.raises(ImportError, match="pip install spacy.*en_core_web_md"):
        find_noun_phrases(["a"], "spacy:en_core_web_md")
