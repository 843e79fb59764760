"""Posts in files are read exactly, or refused with the line that is wrong."""

import json
import logging
from pathlib import Path

import pytest

from dataset_scripts.reading.bad_input import BadInput
from dataset_scripts.reading.conll import read_conll
from dataset_scripts.reading.records import read_jsonl
from dataset_scripts.reading.splits import load_splits, read_posts
from dataset_scripts.reading.text_files import read_id_list
from modeling_umgf.labels import entity_spans
from modeling_umgf.split_counts import count_split

DATA = Path(__file__).parents[1].parent / "shared" / "data"
needs_twitter = pytest.mark.skipif(not DATA.is_dir(), reason="the Twitter data are not here")

UMT = "IMGID:1\nRT\tO\n@ann\tB-PER\n\nIMGID:O_2\nParis\tB-LOC\nHilton\tI-LOC\nfilm\tI-OTHER"


@pytest.fixture
def write(tmp_path):
    def write_file(content, name="posts.txt"):
        path = tmp_path / name
        path.write_bytes(content if isinstance(content, bytes) else content.encode())
        return path

    return write_file


def jsonl(*records):
    return "".join(json.dumps(record, ensure_ascii=False) + "\n" for record in records)


# ------------------------------------------------------------------------------------------------------------- CoNLL


@pytest.mark.parametrize("end", ["", "\n", "\n\n", "\n\n\n"])
def test_last_post_is_kept_whatever_the_end_of_the_file(write, end):
    assert [row["id"] for row in read_conll(write(UMT + end), umt=True)] == ["1", "O_2"]


def test_a_new_id_ends_a_post_without_a_blank_line(write):
    rows = read_conll(write(UMT.replace("\n\n", "\n")), umt=True)
    assert [row["tokens"] for row in rows] == [["RT", "@ann"], ["Paris", "Hilton", "film"]]


@pytest.mark.parametrize("word", ["\u00a0", "\u2028", "\x0b", "\x85", "\ufe0f", "\u200b", " ", "a b", "", "IMGID:3"])
def test_every_word_is_kept_as_it_is(write, word):
    (row,) = read_conll(write(f"IMGID:1\n{word}\tO\nend\tB-PER\n"), umt=True)
    assert row["tokens"] == [word, "end"]


def test_other_is_misc_in_umt_files_and_stays_in_own_files(write):
    assert read_conll(write(UMT), umt=True)[1]["tags"] == ["B-LOC", "I-LOC", "I-MISC"]
    assert read_conll(write(UMT), umt=False)[1]["tags"] == ["B-LOC", "I-LOC", "I-OTHER"]


def test_other_and_misc_are_never_merged(write):
    both = write("IMGID:1\na\tB-OTHER\nb\tB-MISC\n")
    with pytest.raises(BadInput, match="both OTHER and MISC.*format conll"):
        read_conll(both, umt=True)
    assert read_posts(both, "conll")[0]["tags"] == ["B-OTHER", "B-MISC"]


def test_files_without_ids_get_running_ids(write):
    rows = read_conll(write("Oslo\tB-CITY\n\n\nx\tO\n", "train.conll"))
    assert [(row["id"], row["tags"]) for row in rows] == [("train-0", ["B-CITY"]), ("train-1", ["O"])]


def test_orphans_stay_unless_repair_is_asked_for(write, caplog):
    text = "a\tI-PER\nb\tI-PER\nc\tB-LOC\nd\tI-ORG\ne\tO\nf\tI-LOC\n"
    kept = ["I-PER", "I-PER", "B-LOC", "I-ORG", "O", "I-LOC"]
    assert read_conll(write(text))[0]["tags"] == kept
    with caplog.at_level(logging.INFO):
        repaired = read_conll(write(text), bio_repair=True)[0]["tags"]
    assert repaired == ["B-PER", "I-PER", "B-LOC", "B-ORG", "O", "B-LOC"]
    assert entity_spans(kept) == entity_spans(repaired, strict=True)
    assert "3 I- tags" in caplog.text


@pytest.mark.parametrize(
    ("text", "line", "message"),
    [
        ("IMGID:1\na\tO\nb O\n", 3, "expected word<TAB>tag, found 1 columns"),
        ("IMGID:1\na\tO\nb\tO\tx\n", 3, "expected word<TAB>tag, found 3 columns"),
        ("a NN O\nb O\n", 2, "expected 3 columns as above, found 2 columns"),
        ("IMGID:1\na\tPER\n", 2, "unknown tag 'PER'"),
        ("IMGID:1\na\tO\nb\tX-PER\n", 3, "unknown tag 'X-PER'"),
        ("IMGID:1\na\tB-\n", 2, "unknown tag 'B-'"),
        ("IMGID:1\na\tB-PER \n", 2, "unknown tag 'B-PER '"),
        ("IMGID:1\na\t\n", 2, "unknown tag ''"),
        ("IMGID:1\na\tO\n\nIMGID:1\nb\tO\n", 4, "the id 1 was used before, at .*posts.txt:1"),
        ("IMGID:1\n\nIMGID:2\nb\tO\n", 1, "post 1 has no words"),
        ("IMGID:1\na\tO\n\nIMGID:2\n", 4, "post 2 has no words"),
        ("IMGID:\na\tO\n", 1, "without an id"),
        ("IMGID:1\na\tO\n\nb\tO\n", 4, "no IMGID"),
        ("a\tO\n\nIMGID:1\nb\tO\n", 3, "the posts before have none"),
        (b"IMGID:1\nok\tO\n\xff\tO\n", 3, "not UTF-8"),
        ("IMGID:1\na\tB-GPE\n", 2, "unknown label B-GPE; the types are PER, LOC"),
    ],
)
def test_malformed_conll_names_file_and_line(write, text, line, message):
    with pytest.raises(BadInput, match=rf"^{write(text)}:{line}: .*{message}") as error:
        read_conll(write(text), types=["PER", "LOC"])
    assert "\n" not in str(error.value)


@pytest.mark.parametrize("text", ["", "\n\n", "  \n"])
def test_empty_files_are_refused(write, text):
    with pytest.raises(BadInput, match="posts.txt: the file is empty"):
        read_conll(write(text))


def test_missing_files_and_folders_are_named(tmp_path):
    with pytest.raises(BadInput, match="absent.txt: can't be read"):
        read_posts(tmp_path / "absent.txt")
    with pytest.raises(BadInput, match="can't be read"):
        read_conll(tmp_path)


def test_umt_needs_an_id_before_every_post(write):
    with pytest.raises(BadInput, match=":1: this post has no IMGID"):
        read_conll(write("a\tO\n"), umt=True)


def test_byte_order_mark_is_no_part_of_the_first_word(write):
    assert read_conll(write(b"\xef\xbb\xbfa\tO\n"))[0]["tokens"] == ["a"]


# -------------------------------------------------------------------------------------------------------- JSON lines


def test_words_and_tags(write):
    path = write(
        jsonl(
            {"id": 7, "tokens": ["Oslo", "\u00a0"], "tags": ["B-LOC", "O"], "image": "a.png", "caption": "a city"},
            {"words": ["x"], "labels": ["O"]},
        )
    )
    assert read_jsonl(path) == [
        {"id": "7", "tokens": ["Oslo", "\u00a0"], "tags": ["B-LOC", "O"], "image": "a.png", "caption": "a city"},
        {"id": "posts-1", "tokens": ["x"], "tags": ["O"]},
    ]


@pytest.mark.parametrize(
    "spans",
    [
        [{"start": 0, "end": 8, "label": "LOC"}, {"start": 12, "end": 15, "type": "PER"}],
        [[12, 15, "PER"], [0, 8, "LOC"]],
    ],
)
def test_character_spans_become_word_tags(write, spans):
    (row,) = read_jsonl(write(jsonl({"text": "New York 😀  Ann!", "spans": spans})))
    assert row["tokens"] == ["New", "York", "😀", "Ann", "!"]
    assert row["tags"] == ["B-LOC", "I-LOC", "O", "B-PER", "O"]


def test_spans_count_characters_not_bytes(write):
    (row,) = read_jsonl(write(jsonl({"text": "👩🏽‍🚀 Zoë", "spans": [[5, 8, "PER"]]})))
    assert row["tags"][-1] == "B-PER" and row["tokens"][-1] == "Zoë"


def test_a_span_that_cuts_a_word_is_widened_and_counted(write, caplog):
    (row,) = read_jsonl(write(jsonl({"text": "in Parisian cafés", "spans": [[3, 8, "LOC"]]})))
    assert row["tags"] == ["O", "B-LOC", "O"]
    assert "1 spans cut a word and were widened" in caplog.text and "posts.txt:1" in caplog.text


def test_left_out_fields_are_counted(write, caplog):
    read_jsonl(write(jsonl(*({"tokens": ["a"], "tags": ["O"], "lang": "en"} for _ in range(3)))))
    assert "left out the fields lang (3 posts)" in caplog.text


def test_features_of_two_widths_are_named_with_both_places(write):
    post = {"tokens": ["a"], "tags": ["O"]}
    widths = [{**post, "object_features": [[0.0] * width]} for width in (4, 4, 3)]
    with pytest.raises(BadInput, match=r":3: object_features of two widths: 4 \(first at .*:1\) and 3"):
        read_jsonl(write(jsonl(*widths)))


OBJECT = {"box": [0, 1, 5, 9], "phrase": {"start": 0, "end": 1}}


def test_objects_are_kept_and_filled_up(write):
    (row,) = read_jsonl(write(jsonl({"tokens": ["a"], "tags": ["O"], "objects": [OBJECT, {"box": [0, 0, 1, 1]}]})))
    assert row["objects"] == [
        {**OBJECT, "score": None, "query": None},
        {"box": [0, 0, 1, 1], "score": None, "query": None, "phrase": None},
    ]


@pytest.mark.parametrize(
    ("record", "message"),
    [
        ({"tokens": ["a", "b"], "tags": ["O"]}, "2 words but 1 tags"),
        ({"tokens": ["a"], "tags": ["PER"]}, "unknown tag 'PER'"),
        ({"tokens": ["a"], "tags": [1]}, "the tag is the number 1; name the tags in their order: --tag_names"),
        ({"tokens": ["a"], "tags": [True]}, "tags must be a list of strings or of numbers"),
        ({"tokens": ["a", None], "tags": ["O", "O"]}, "tokens must be a list of strings"),
        ({"tokens": ["a"], "tags": [None]}, "tags must be a list of strings"),
        ({"tokens": None, "tags": ["O"]}, "needs tokens and tags, or text and spans; found tags"),
        ({"post": "Anna", "names": []}, "found post, names; where they have other names, give these: --columns"),
        ({"tokens": "a", "tags": ["O"]}, "tokens must be a list of strings"),
        ({"tokens": [], "tags": []}, "no words"),
        ({"tokens": ["a"]}, "needs tokens and tags, or text and spans; found tokens"),
        ({"tokens": ["a"], "tags": ["O"], "labels": ["O"]}, "tags are given under two names"),
        ({"tokens": ["a"], "spans": [[0, 2, "PER"]]}, "span 0..2 doesn't lie inside the post of 1 words"),
        ({"tokens": ["b"], "text": "a", "spans": [[0, 1, "PER"]]}, "the text doesn't hold the word 'b'"),
        ({"text": "ab", "spans": [[0, 3, "PER"]]}, "span 0..3 doesn't lie inside the text of 2 characters"),
        ({"text": "ab", "spans": [[-1, 1, "PER"]]}, "doesn't lie inside"),
        ({"text": "ab", "spans": [[1, 1, "PER"]]}, "doesn't lie inside"),
        ({"text": "a  b", "spans": [[1, 3, "PER"]]}, "holds no word"),
        ({"text": "a b", "spans": [[0, 3, "PER"], [2, 3, "LOC"]]}, "two spans share a word"),
        ({"text": "ab", "spans": [[0, 1]]}, "a span needs start and end"),
        ({"text": "ab", "spans": [[True, 2, "PER"]]}, "a span needs start and end"),
        ({"text": "", "spans": []}, "no words"),
        ({"tokens": ["a"], "tags": ["O"], "noun_phrases": [{"start": 0, "end": 2}]}, "phrase 0..2 doesn't lie inside"),
        ({"tokens": ["a"], "tags": ["O"], "objects": [{"box": [5, 5, 5, 9]}]}, "box .* is not"),
        ({"tokens": ["a"], "tags": ["O"], "objects": [{"query": "a"}]}, "'box' is missing"),
        ({"tokens": ["a"], "tags": ["O"], "objects": [{"box": [0, 0, float("nan"), 9]}]}, "box .* is not"),
        ({"tokens": ["a"], "tags": ["O"], "objects": [{"box": [0, None, 5, 9]}]}, "noun_phrases or objects"),
        ({"tokens": ["a"], "tags": ["O"], "objects": [None]}, "noun_phrases or objects"),
        (
            {"tokens": ["a"], "tags": ["O"], "objects": [{"box": [0, 0, 5, 9], "phrase": {"start": 1, "end": 0}}]},
            "phrase 1..0 doesn't lie inside the 1 words",
        ),
        ({"tokens": ["a"], "tags": ["O"], "object_features": [[1.0], [1.0, 2.0]]}, "not rows of numbers"),
        ({"tokens": ["a"], "tags": ["O"], "object_features": [[float("inf")]]}, "rows of finite numbers"),
        ({"tokens": ["a"], "tags": ["O"], "objects": 3}, "noun_phrases or objects"),
        ({"tokens": ["a"], "tags": ["O"], "image": 3}, "image must be a path"),
        ({"tokens": ["a"], "tags": ["O"], "object_labels": [1]}, "object_labels must be a list of strings"),
        ([1], "expected a JSON object"),
    ],
)
def test_malformed_records_name_file_and_line(write, record, message):
    path = write(jsonl({"tokens": ["fine"], "tags": ["O"]}, record))
    with pytest.raises(BadInput, match=rf"^{path}:2: .*{message}") as error:
        read_jsonl(path)
    assert "\n" not in str(error.value)


def test_text_that_is_no_json_names_its_line(write):
    with pytest.raises(BadInput, match=":1: not JSON"):
        read_jsonl(write("{'tokens': []}\n"))
    with pytest.raises(BadInput, match=":2: the id 1 was used before"):
        read_jsonl(write(jsonl(*[{"id": 1, "tokens": ["a"], "tags": ["O"]}] * 2)))


def test_ids_are_the_last_column_of_a_list_and_comments_are_none(write):
    assert read_id_list(write("# blank pictures\ntrain\t16_1\n17_2\n\n")) == {"16_1", "17_2"}
    with pytest.raises(BadInput, match="absent: can't be read"):
        read_id_list("absent")


# ------------------------------------------------------------------------------ the same posts, as others write them

WORDS = [["Anna", "Smith", "sang", "Work"], ["in", "Rome", "!"]]
TAGS = [["B-PER", "I-PER", "O", "B-Work of art"], ["O", "B-LOC", "O"]]
BIOES = [["B-PER", "E-PER", "O", "S-Work of art"], ["O", "S-LOC", "O"]]
BIOUL = [["B-PER", "L-PER", "O", "U-Work of art"], ["O", "U-LOC", "O"]]
NAMES = ["O", "B-PER", "I-PER", "B-LOC", "I-LOC", "B-Work of art", "I-Work of art"]
NUMBERS = [[NAMES.index(tag) for tag in tags] for tags in TAGS]
NUMBER_TEXTS = [" ".join(map(str, own)) for own in NUMBERS]
TEXTS = ["Anna Smith sang Work", "in Rome!"]
SPANS = [[(0, 10, "PER"), (16, 20, "Work of art")], [(3, 7, "LOC")]]
WORD_SPANS = [[(0, 2, "PER"), (3, 4, "Work of art")], [(1, 2, "LOC")]]


def conll(tags=TAGS, separator="\t", end="\n", between=""):
    blocks = []
    for words, own in zip(WORDS, tags, strict=True):
        blocks.append("".join(f"{word}{separator}{between}{tag}{end}" for word, tag in zip(words, own, strict=True)))
    return end[-2 if end.endswith("\r\n") else -1 :].join(blocks)


def posts(**fields):
    """One record a post, of fields that hold a value a post."""
    return [dict(zip(fields, values, strict=True)) for values in zip(*fields.values(), strict=True)]


def spans(all_spans, start="start", end="end", label="label", wrap=lambda value: value):
    return [[{start: first, end: last, label: wrap(kind)} for first, last, kind in own] for own in all_spans]


def word_rows(tags=TAGS, separator=",", header="Sentence #,Word,POS,Tag"):
    lines = [header.replace(",", separator)]
    for number, (words, own) in enumerate(zip(WORDS, tags, strict=True)):
        for i, (word, tag) in enumerate(zip(words, own, strict=True)):
            lines.append(separator.join([f"Sentence: {number}" if i == 0 else "", word, "NN", str(tag)]))
    return "\r\n".join(lines) + "\r\n"


def quoted(values):
    return '"' + str(values).replace('"', '""') + '"'


def post_rows(header, *columns):
    return "\n".join([header, *(",".join(map(quoted, row)) for row in zip(*columns, strict=True))])


@pytest.mark.parametrize(
    ("name", "content", "settings"),
    [
        ("posts.txt", conll(), {}),
        ("posts.txt", conll(end="\r\n"), {}),
        ("posts.txt", conll(BIOES), {}),
        ("posts.txt", conll(BIOUL, end="\r\n"), {}),
        ("posts.txt", conll(NUMBERS), {"tag_names": NAMES}),
        ("posts.txt", conll(NUMBERS, separator="  "), {"tag_names": NAMES}),
        ("posts.txt", "-DOCSTART-\t-X-\tO\n\n" + conll(between="NN\t"), {}),
        ("posts.txt", conll(separator="\tNN\t", end="\t_\n"), {"columns": {"tags": "3"}}),
        ("posts.jsonl", jsonl(*posts(tokens=WORDS, tags=TAGS)), {}),
        ("posts.jsonl", jsonl(*posts(tokens=WORDS, tags=TAGS)).replace("\n", "\r\n"), {}),
        ("posts.json", json.dumps(posts(tokens=WORDS, tags=TAGS), indent=1), {}),
        ("posts.jsonl", jsonl(*posts(words=WORDS, labels=TAGS)), {}),
        ("posts.jsonl", jsonl(*posts(tokens=WORDS, ner=BIOUL)), {}),
        ("posts.jsonl", jsonl(*posts(tokens=WORDS, ner_tags=NUMBERS)), {"tag_names": NAMES}),
        ("posts.jsonl", jsonl(*posts(w=WORDS, t=TAGS, tags=NUMBERS)), {"columns": {"tokens": "w", "tags": "t"}}),
        ("posts.jsonl", jsonl(*posts(text=TEXTS, spans=SPANS)), {}),
        ("posts.jsonl", jsonl(*posts(sentence=TEXTS, entities=spans(SPANS, label="entity_group"))), {}),
        ("posts.jsonl", jsonl(*posts(text=TEXTS, labels=SPANS)), {}),
        ("posts.jsonl", jsonl(*posts(text=TEXTS, label=spans(SPANS, label="labels", wrap=lambda kind: [kind]))), {}),
        ("posts.jsonl", jsonl(*posts(text=TEXTS, entities=spans(SPANS, "start_offset", "end_offset"))), {}),
        ("posts.jsonl", jsonl(*posts(text=TEXTS, tokens=WORDS, entities=SPANS)), {}),
        ("posts.jsonl", jsonl(*posts(tokens=WORDS, entities=spans(WORD_SPANS, label="type"))), {}),
        ("posts.jsonl", jsonl(*posts(text=map(" ".join, WORDS), spans=WORD_SPANS)), {"offsets": "words"}),
        ("posts.jsonl", jsonl(*posts(text=TEXTS, tokens=WORDS, spans=WORD_SPANS)), {"offsets": "words"}),
        ("posts.csv", word_rows(), {}),
        ("posts.csv", "\ufeff" + word_rows(BIOES, separator=";"), {}),
        ("posts.csv", word_rows(NUMBERS, separator="\t"), {"tag_names": NAMES}),
        (
            "posts.csv",
            word_rows(header="Satz,Wort,Art,Name"),
            {"columns": {"word": "Wort", "tag": "Name", "id": "Satz"}},
        ),
        ("posts.csv", "word,tag\n" + conll(separator=","), {}),
        ("posts.csv", post_rows("text,spans", TEXTS, map(json.dumps, SPANS)), {}),
        ("posts.csv", post_rows("Sentence,Entities", TEXTS, spans(SPANS)), {}),  # as Python writes lists
        ("posts.csv", post_rows("tokens,ner_tags", map(json.dumps, WORDS), map(json.dumps, TAGS)), {}),
        ("posts.csv", post_rows("words,tags", WORDS, NUMBERS), {"tag_names": NAMES}),
        ("posts.csv", post_rows("words,tags", map(" ".join, WORDS), NUMBER_TEXTS), {"tag_names": NAMES}),
    ],
)
def test_however_posts_are_written_the_rows_are_the_same(write, name, content, settings):
    rows = read_posts(write(content, name), **settings)
    assert [row["tokens"] for row in rows] == WORDS
    assert [row["tags"] for row in rows] == TAGS


def test_a_blank_separates_only_where_no_tab_does_and_no_other_space_ever(write):
    assert read_conll(write("a\u00a0b O\nc  B-PER \n \nd O\n"))[0]["tokens"] == ["a\u00a0b", "c"]
    assert read_conll(write("a b\tO\n"))[0]["tokens"] == ["a b"]


def test_tags_of_another_scheme_are_counted_in_the_log(write, caplog):
    with caplog.at_level(logging.INFO):
        read_conll(write(conll(BIOES)))
    assert "tags of another scheme are read as BIO: 1 E- as I-, 2 S- as B-" in caplog.text


def test_which_of_several_columns_are_read_and_what_is_no_post_is_said(write, caplog):
    with caplog.at_level(logging.INFO):
        read_conll(write("-DOCSTART- -X- O\n\na NN O\n"))
    assert "of 3 columns the first is read as words and the last as tags" in caplog.text
    assert "left out 1 blocks -DOCSTART-" in caplog.text


@pytest.mark.parametrize(
    ("name", "content", "settings", "message"),
    [
        ("p.txt", conll(NUMBERS), {"tag_names": NAMES[:3]}, "p.txt:4: there is no tag 5 among the 3 names"),
        ("p.txt", conll(), {"columns": {"tags": "3"}}, "no column 3 for tags; give its number, 1 to 2"),
        ("p.txt", conll(), {"columns": {"text": "1"}}, "CoNLL has columns of tokens and tags, not text"),
        ("p.txt", conll(), {"offsets": "words"}, "have no spans whose offsets could count"),
        (
            "p.jsonl",
            jsonl(*posts(tokens=WORDS, tags=TAGS)),
            {"columns": {"tags": "t"}},
            "p.jsonl:1: has no 't'.*named for tags",
        ),
        ("p.jsonl", jsonl(*posts(tokens=WORDS, tags=TAGS)), {"columns": {"tag": "tags"}}, "--columns names id, tokens"),
        ("p.jsonl", jsonl(*posts(tokens=WORDS, spans=SPANS)), {"offsets": "characters"}, "need the text"),
        ("p.jsonl", jsonl(*posts(text=TEXTS, spans=SPANS)), {"offsets": "bytes"}, "characters or words, not 'bytes'"),
        ("p.json", "[1]", {}, "post 1: expected a JSON object"),
        ("p.json", "[{}", {}, "begins as a JSON list, but is none"),
        ("p.csv", "text,spans\nAnna\n", {}, "p.csv:2: 1 cells under 2 names"),
        ("p.csv", 'text,spans\nAnna,"[1"\n', {}, "p.csv:2: the cell of spans is not a list"),
        (
            "p.csv",
            "tokens,tags\n['Anna' 'b'],['O' 'O']\n",
            {},
            "p.csv:2: the cell of tokens is not a list.*write it as JSON",
        ),
        (
            "p.csv",
            "text,label\nAnna,good\n",
            {},
            "p.csv:2: a post needs tokens and tags, or text and spans; found text, label",
        ),
        (
            "p.csv",
            word_rows(),
            {"columns": {"word": "Wort"}},
            "has no column 'wort'; it has sentence #, word, pos, tag",
        ),
        ("p.csv", 'word,tag\n"a"b,O\n', {}, "p.csv:2: not CSV"),
        ("p.csv", "word,tag\nAnna,PER\n", {}, "p.csv:2: unknown tag 'PER'"),
    ],
)
def test_what_cannot_be_read_so_names_the_place_and_the_way_out(write, name, content, settings, message):
    with pytest.raises(BadInput, match=message) as error:
        read_posts(write(content, name), **settings)
    assert "\n" not in str(error.value)


@pytest.mark.parametrize(
    ("cell", "expected"),
    [("False", False), ("no", False), ("0", False), ("true", True), ("YES", True), ("1", True), ("", None)],
)
def test_whether_a_picture_adds_to_the_text_is_read_from_csv(write, cell, expected):
    by_post = f"tokens,tags,picture_adds\nAnna,B-PER,{cell}\n"
    by_word = f"word,tag,picture_adds\nAnna,B-PER,{cell}\nsleeps,O,{cell}\n"
    for content in (by_post, by_word):
        (row,) = read_posts(write(content, "p.csv"))
        assert row.get("picture_adds") is expected


@pytest.mark.parametrize(
    ("field", "value", "message"),
    [
        ("picture_adds", "perhaps", "picture_adds must be true, false or null, found 'perhaps'"),
        ("picture_adds", 0.7, "picture_adds must be true, false or null"),
        ("picture_adds", 2, "picture_adds must be true, false or null"),
        ("picture_adds", [True], "picture_adds must be true, false or null"),
        ("knowledge_features", [[1, "x"]], "knowledge_features are not rows of numbers"),
        ("knowledge_features", [1, 2], "knowledge_features must be rows of finite numbers"),
        ("neighbors_inter", ["a", "b"], r'neighbors_inter must be a list of \{"id": "…", "score": 0.5\}'),
        ("neighbors_intra", [{"id": "a", "score": "high"}], "neighbors_intra must be a list of"),
    ],
)
def test_columns_that_systems_read_are_checked_with_their_line(write, field, value, message):
    right = {"tokens": ["Anna"], "tags": ["O"]}
    with pytest.raises(BadInput, match=f"posts.jsonl:2: {message}"):
        read_jsonl(write(jsonl(right, right | {field: value}), "posts.jsonl"))


def test_knowledge_of_two_widths_is_refused(write):
    right = {"tokens": ["Anna"], "tags": ["O"], "knowledge_features": [[1.0, 2.0]]}
    with pytest.raises(BadInput, match="posts.jsonl:2: knowledge_features of two widths: 2 .* and 3"):
        read_jsonl(write(jsonl(right, right | {"knowledge_features": [[1.0, 2.0, 3.0]]}), "posts.jsonl"))


def test_further_columns_of_csv_with_a_word_a_row_are_kept_or_named(write, caplog):
    content = "word,tag,id,pos,headline,mood,image\nAnna,B-PER,a,[,a man,glad,a.jpg\nsleeps,O,,VB,,,\nno,O,b,DT,,sad,\n"
    rows = read_posts(write(content, "p.csv"), texts=["headline"])
    assert [(row["id"], row["headline"], row["image"]) for row in rows] == [("a", "a man", "a.jpg"), ("b", None, None)]
    assert "left out the fields pos (2 posts), mood (2 posts)" in caplog.text


def test_tags_win_over_spans_and_it_is_said_once(write, caplog):
    (row,) = read_jsonl(write(jsonl({"tokens": ["Anna"], "tags": ["B-PER"], "entities": [], "lang": "en"})))
    assert row["tags"] == ["B-PER"]
    assert "left out the fields spans (1 posts), lang (1 posts)" in caplog.text


def test_names_of_numbers_are_the_labels_in_their_order(write):
    splits = load_splits({"train": write(conll(NUMBERS))}, tag_names=NAMES)
    assert splits["train"].features["ner_tags"].feature.names == NAMES
    assert splits["train"]["ner_tags"][:] == NUMBERS


# ------------------------------------------------------------------------------------------------------------ splits


def test_labels_are_those_of_the_training_file(write):
    train = write("a\tB-VIRUS\nb\tI-VIRUS\nc\tB-LOC\n", "train.txt")
    test = write("d\tI-LOC\n", "test.txt")
    splits = load_splits({"test": test, "train": train})
    names = ["O", "B-LOC", "I-LOC", "B-VIRUS", "I-VIRUS"]
    assert [split.features["ner_tags"].feature.names for split in splits.values()] == [names, names]
    assert list(splits) == ["test", "train"]
    assert splits["train"][0]["ner_tags"] == [3, 4, 1]
    assert splits["test"][0]["ner_tags"] == [2]


def test_a_type_the_training_file_lacks_is_refused_unless_listed(write):
    files = {"train": write("a\tB-PER\n", "train.txt"), "test": write("ok\tO\nb\tB-LOC\n", "test.txt")}
    with pytest.raises(BadInput, match=r"test.txt:2: unknown label B-LOC; the types are PER"):
        load_splits(files)
    names = load_splits(files, types=["LOC", "PER"])["test"].features["ner_tags"].feature.names
    assert names == ["O", "B-LOC", "I-LOC", "B-PER", "I-PER"]


def test_format_is_found_out(write):
    assert read_posts(write(UMT))[1]["tags"][2] == "I-MISC"
    assert read_posts(write("a\tB-OTHER\n"))[0]["tags"] == ["B-OTHER"]
    assert read_posts(write(jsonl({"tokens": ["a"], "tags": ["O"]}), "posts.jsonl"))[0]["id"] == "posts-0"
    with pytest.raises(BadInput, match="no file format 'xml'; known are umt, conll, jsonl"):
        read_posts(write(UMT), "xml")


def test_training_data_without_entities_and_no_data_at_all_are_refused(write):
    with pytest.raises(BadInput, match="no entity"):
        load_splits({"train": write("a\tO\n")})
    with pytest.raises(BadInput, match="no entity"):
        load_splits({"train": write("a\tO\n")}, types=["PER"])
    with pytest.raises(BadInput, match="no posts were given"):
        load_splits({})


def test_ids_in_two_splits_are_reported(write, caplog):
    load_splits({"train": write(UMT, "train.txt"), "test": write(UMT, "test.txt")})
    assert "test: 2 ids are also in another split, such as 1" in caplog.text


# ---------------------------------------------------------------------------------------------------- the real data


@needs_twitter
@pytest.mark.parametrize(
    ("name", "posts", "words", "starts", "entities", "orphan_kinds", "orphans"),
    [
        (
            "twitter2015/train",
            4000,
            64439,
            (2217, 2091, 927, 931),
            6352,
            {"O->I": 175, "B-x->I-y": 7, "I-x->I-y": 4},
            (68, 44, 30, 44),
        ),
        ("twitter2015/valid", 1000, 16178, (552, 522, 247, 220), 1594, {"O->I": 52, "I-x->I-y": 1}, (15, 21, 4, 13)),
        (
            "twitter2015/test",
            3257,
            52822,
            (1816, 1697, 839, 720),
            5207,
            {"O->I": 129, "B-x->I-y": 4, "I-x->I-y": 2},
            (57, 23, 21, 34),
        ),
        ("twitter2017/train", 3373, 53007, (2943, 731, 1674, 701), 6049, {}, (0, 0, 0, 0)),
        ("twitter2017/valid", 723, 11309, (626, 173, 375, 150), 1324, {}, (0, 0, 0, 0)),
        ("twitter2017/test", 723, 11330, (621, 178, 395, 157), 1351, {}, (0, 0, 0, 0)),
    ],
)
def test_twitter_files_have_the_published_numbers(name, posts, words, starts, entities, orphan_kinds, orphans):
    split = load_splits({"test": DATA / f"{name}.txt"}, file_format="umt")["test"]
    counts = count_split(split)
    assert split.features["ner_tags"].feature.names[1::2] == ["B-PER", "B-LOC", "B-ORG", "B-MISC"]
    assert (counts.posts, counts.words, counts.entities) == (posts, words, entities)
    assert tuple(counts.starts[kind] for kind in ("PER", "LOC", "ORG", "MISC")) == starts
    assert dict(counts.orphan_kinds) == orphan_kinds
    assert tuple(counts.orphans[kind] for kind in ("PER", "LOC", "ORG", "MISC")) == orphans


@needs_twitter
def test_the_no_break_space_of_twitter_2015_is_a_word():
    (row,) = [row for row in read_posts(DATA / "twitter2015/valid.txt") if row["id"] == "73309"]
    assert row["tokens"].count("\u00a0") == 1 and len(row["tokens"]) == 21
