"""The files other MNER authors published are read as they are."""

from pathlib import Path

import pytest

from dataset_scripts.published_formats import lost_tweets, read_caption_file, read_relation_file, read_umgf_folder
from dataset_scripts.splits import load_splits, read_tweets
from dataset_scripts.text_files import BadInput

SHARED = Path(__file__).parents[1].parent / "shared"

needs_relations = pytest.mark.skipif(
    not (SHARED / "data/relations").is_dir(), reason="the authors' relation files are not here"
)

RELATION_ROW = """\
meet O'Neil\u00a0: in Dublin Bay
O B-PER O B-OTHER I-OTHER
7.jpg
0.75 0.5
8.jpg 9.jpg
0.0 0.0
3.jpg 4.jpg
"""


def write(path: Path, text: str) -> Path:
    path.write_bytes(text.encode())
    return path


def test_relation_file_row_is_read_exactly_and_zero_scores_are_masked(tmp_path):
    (row,) = read_relation_file(write(tmp_path / "valid_2.txt", RELATION_ROW))
    assert row == {
        "id": "7",
        "tokens": ["meet", "O'Neil\u00a0:", "in", "Dublin", "Bay"],
        "tags": ["O", "B-PER", "O", "B-MISC", "I-MISC"],
        "neighbors_inter": [{"id": "8", "score": 0.75}, {"id": "9", "score": 0.5}],
        "neighbors_intra": [],
    }


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        ("O B-PER O", "O B-PER", "relations.txt:1: 5 words but 4 tags"),
        ("7.jpg", "7", "relations.txt:3: expected the picture"),
        ("0.75 0.5", "0.75", "relations.txt:4: 1 scores but 2 pictures"),
        ("0.75", "high", "relations.txt:4: 'high' is not a score"),
        ("0.75", "nan", "relations.txt:4: 'nan' is not a score"),
        ("3.jpg 4.jpg\n", "", "relations.txt:6: the last tweet is cut off"),
    ],
)
def test_damaged_relation_file_is_refused_with_its_line(tmp_path, old, new, message):
    assert old in RELATION_ROW
    with pytest.raises(BadInput, match=message):
        read_relation_file(write(tmp_path / "relations.txt", RELATION_ROW.replace(old, new, 1)))


@needs_relations
@pytest.mark.parametrize(
    ("name", "tweets", "without_intra"),
    [
        ("twitter2015/train", 3999, 622),
        ("twitter2015/valid", 999, 138),
        ("twitter2015/test", 3256, 533),
        ("twitter2017/train", 3373, 548),
        ("twitter2017/valid", 723, 106),
        ("twitter2017/test", 723, 122),
    ],
)
def test_relation_files_of_the_authors_have_the_known_counts(name, tweets, without_intra):
    rows = read_relation_file(SHARED / "data/relations" / f"{name}_2.txt")
    assert len(rows) == tweets
    assert {len(row["neighbors_inter"]) for row in rows} == {10}
    assert {len(row["neighbors_intra"]) for row in rows} == {0, 10}
    assert sum(not row["neighbors_intra"] for row in rows) == without_intra
    for row in rows:
        for relation in ("neighbors_inter", "neighbors_intra"):
            scores = [neighbor["score"] for neighbor in row[relation]]
            assert scores == sorted(scores, reverse=True)
            assert row["id"] not in [neighbor["id"] for neighbor in row[relation]]


def test_tweets_without_a_relation_row_are_named():
    assert lost_tweets([{"id": "1"}, {"id": "3"}], [{"id": "1"}, {"id": "2"}, {"id": "3"}, {"id": "4"}]) == ["2", "4"]


@needs_relations
@pytest.mark.parametrize(
    ("name", "lost"),
    [
        ("twitter2015/train", ["33008"]),
        ("twitter2015/valid", ["370925"]),
        ("twitter2015/test", ["1418707"]),
        ("twitter2017/train", []),
        ("twitter2017/valid", []),
        ("twitter2017/test", []),
    ],
)
def test_the_authors_lost_the_last_tweet_of_each_split_of_2015(name, lost):
    tweets = read_tweets(SHARED / "data" / f"{name}.txt", "umt")
    relations = read_tweets(SHARED / "data/relations" / f"{name}_2.txt", "rgcn")
    assert lost_tweets(relations, tweets) == lost
    tags = {tweet["id"]: tweet["tags"] for tweet in tweets}
    assert all(row["tags"] == tags[row["id"]] for row in relations)


def test_relation_file_becomes_a_dataset_with_neighbours(tmp_path):
    split = load_splits({"train": write(tmp_path / "train_2.txt", RELATION_ROW)}, file_format="rgcn")["train"]
    assert split[0]["neighbors_inter"] == [{"id": "8", "score": 0.75}, {"id": "9", "score": 0.5}]
    assert split[0]["neighbors_intra"] == []
    assert split.features["ner_tags"].feature.names == ["O", "B-PER", "I-PER", "B-MISC", "I-MISC"]


@pytest.fixture
def triplets(tmp_path):
    for number, words, tags, name in (
        ("10", "a\t\u00a0\tb c", "O\tB-PER\tI-PER", "77"),
        ("9", "x", "B-OTHER", "16_05_1"),
    ):
        write(tmp_path / f"{number}_s.txt", words)
        write(tmp_path / f"{number}_l.txt", tags)
        write(tmp_path / f"{number}_p.txt", name)
    return tmp_path


def test_triplets_of_umgf_are_read_in_the_order_of_their_numbers(triplets):
    assert read_umgf_folder(triplets) == [
        {"id": "16_05_1", "tokens": ["x"], "tags": ["B-MISC"]},
        {"id": "77", "tokens": ["a", "\u00a0", "b c"], "tags": ["O", "B-PER", "I-PER"]},
    ]
    assert len(load_splits({"train": triplets}, file_format="umgf")["train"]) == 2


def test_damaged_triplets_are_named(triplets):
    (triplets / "9_l.txt").write_text("O\tO")
    with pytest.raises(BadInput, match="9_l.txt: 1 words but 2 tags"):
        read_umgf_folder(triplets)
    (triplets / "9_l.txt").unlink()
    with pytest.raises(BadInput, match="9_l.txt: can't be read"):
        read_umgf_folder(triplets)
    with pytest.raises(BadInput, match="no files <number>_s.txt"):
        read_umgf_folder(triplets / "absent")


def test_captions_are_read_as_they_are(tmp_path):
    path = write(tmp_path / "captions.txt", "1.jpg :a man : a plan\nO_2.jpg :\n\n")
    assert read_caption_file(path) == {"1": "a man : a plan", "O_2": ""}
    with pytest.raises(BadInput, match="captions.txt:2: a second caption of 1"):
        read_caption_file(write(path, "1.jpg :x\n1.jpg :y\n"))


@needs_relations
@pytest.mark.parametrize(("year", "captions"), [("15", 8288), ("17", 4819)])
def test_published_captions_cover_every_tweet(year, captions):
    found = read_caption_file(SHARED / f"data/captions/BLIP2_{year}.txt")
    assert len(found) == captions
    for split in ("train", "valid", "test"):
        assert {row["id"] for row in read_tweets(SHARED / f"data/twitter20{year}/{split}.txt")} <= set(found)
