"""The files other MNER authors published are read as they are."""

from pathlib import Path

import pytest

from dataset_scripts.published_formats import lost_tweets, read_relation_file
from dataset_scripts.text_files import BadInput

SHARED = Path(__file__).parents[1].parent / "shared"

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


@pytest.mark.skipif(not (SHARED / "data/relations").is_dir(), reason="the authors' relation files are not here")
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
