"""The files other MNER authors published are read as they are."""

import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from datasets import Image, load_dataset
from PIL import Image as PILImage

from dataset_scripts import published_objects
from dataset_scripts.published_objects import sheet_of, with_crops, with_vinvl
from dataset_scripts.reading.bad_input import BadInput
from dataset_scripts.reading.crops_and_features import UMGF_QUERIES, read_hvpnet_crops, read_vinvl, umgf_crops
from dataset_scripts.reading.published_formats import (
    lost_posts,
    read_caption_file,
    read_relation_file,
    read_umgf_folder,
)
from dataset_scripts.reading.splits import load_splits, read_posts

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
        ("3.jpg 4.jpg\n", "", "relations.txt:6: the last post is cut off"),
    ],
)
def test_damaged_relation_file_is_refused_with_its_line(tmp_path, old, new, message):
    assert old in RELATION_ROW
    with pytest.raises(BadInput, match=message):
        read_relation_file(write(tmp_path / "relations.txt", RELATION_ROW.replace(old, new, 1)))


@needs_relations
@pytest.mark.parametrize(
    ("name", "posts", "without_intra"),
    [
        ("twitter2015/train", 3999, 622),
        ("twitter2015/valid", 999, 138),
        ("twitter2015/test", 3256, 533),
        ("twitter2017/train", 3373, 548),
        ("twitter2017/valid", 723, 106),
        ("twitter2017/test", 723, 122),
    ],
)
def test_relation_files_of_the_authors_have_the_known_counts(name, posts, without_intra):
    rows = read_relation_file(SHARED / "data/relations" / f"{name}_2.txt")
    assert len(rows) == posts
    assert {len(row["neighbors_inter"]) for row in rows} == {10}
    assert {len(row["neighbors_intra"]) for row in rows} == {0, 10}
    assert sum(not row["neighbors_intra"] for row in rows) == without_intra
    for row in rows:
        for relation in ("neighbors_inter", "neighbors_intra"):
            scores = [neighbor["score"] for neighbor in row[relation]]
            assert scores == sorted(scores, reverse=True)
            assert row["id"] not in [neighbor["id"] for neighbor in row[relation]]


def test_posts_without_a_relation_row_are_named():
    assert lost_posts([{"id": "1"}, {"id": "3"}], [{"id": "1"}, {"id": "2"}, {"id": "3"}, {"id": "4"}]) == ["2", "4"]


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
def test_the_authors_lost_the_last_post_of_each_split_of_2015(name, lost):
    posts = read_posts(SHARED / "data" / f"{name}.txt", "umt")
    relations = read_posts(SHARED / "data/relations" / f"{name}_2.txt", "rgcn")
    assert lost_posts(relations, posts) == lost
    tags = {post["id"]: post["tags"] for post in posts}
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
def test_published_captions_cover_every_post(year, captions):
    found = read_caption_file(SHARED / f"data/captions/BLIP2_{year}.txt")
    assert len(found) == captions
    for split in ("train", "valid", "test"):
        assert {row["id"] for row in read_posts(SHARED / f"data/twitter20{year}/{split}.txt")} <= set(found)


# ---------------------------------------------------------------------------------------------- objects and features

COLOURS = {"person": (250, 0, 0), "miscellaneous": (0, 250, 0), "location": (0, 0, 250), "organization": (250, 250, 0)}


@pytest.fixture
def posts(tmp_path):
    return load_splits({"train": write(tmp_path / "train.txt", "IMGID:7\nAnn\tB-PER\n\nIMGID:O_8\nx\tO\n")})["train"]


@pytest.fixture
def crops(tmp_path):
    """UMGF's layout: post 7 has all four crops of different sizes, post O_8 has no folder."""
    folder = tmp_path / "crops"
    (folder / "7").mkdir(parents=True)
    for number, (query, colour) in enumerate(COLOURS.items()):
        PILImage.new("RGB", (20 + number, 40 - number), colour).save(folder / "7" / f"crop_{query}_7.jpg", quality=95)
    return folder


def colours_in_boxes(row):
    """The colour in the middle of each object's box."""
    picture = row["image"].convert("RGB")
    middles = [((o["box"][0] + o["box"][2]) / 2, (o["box"][1] + o["box"][3]) / 2) for o in row["objects"]]
    return [picture.getpixel((int(x), int(y))) for x, y in middles]


def test_crops_of_umgf_become_objects_of_one_picture(posts, crops):
    split, outcomes = with_crops(posts, lambda post: umgf_crops(crops, post))
    row, empty = split
    assert [o["query"] for o in row["objects"]] == list(UMGF_QUERIES)
    assert all(o["phrase"] is None for o in row["objects"])
    assert np.abs(np.array(colours_in_boxes(row)) - np.array(list(COLOURS.values()))).max() < 12
    assert [(o["box"][2] - o["box"][0], o["box"][3]) for o in row["objects"]] == [
        (20, 40),
        (21, 39),
        (22, 38),
        (23, 37),
    ]
    assert (empty["image"], empty["objects"]) == (None, [])
    assert dict(outcomes) == {"crops": 4, "posts without a crop": 1}


def test_unreadable_crops_are_left_out_and_counted(posts, crops):
    (crops / "7" / "crop_location_7.jpg").write_bytes(b"nothing")
    split, outcomes = with_crops(posts, lambda post: umgf_crops(crops, post))
    assert [o["query"] for o in split[0]["objects"]] == ["person", "miscellaneous", "organization"]
    assert outcomes["crops missing or unreadable"] == 1


def test_sheet_keeps_every_pixel_of_a_crop(tmp_path):
    pixels = np.random.default_rng(0).integers(0, 256, (2, 12, 15, 3), dtype=np.uint8)
    for number, one in enumerate(pixels):
        PILImage.fromarray(one).save(tmp_path / f"{number}.png")
    content, objects = sheet_of([(None, tmp_path / "0.png"), (None, tmp_path / "1.png")])
    sheet = Image().decode_example({"bytes": content, "path": None})
    for one, found in zip(pixels, objects, strict=True):
        assert (np.asarray(sheet.crop(found["box"])) == one).all()


def test_crop_dictionary_of_hvpnet(tmp_path, posts, crops):
    path = tmp_path / "twitter2015_train_dict.pth"
    torch.save({"7.jpg": ["7/crop_location_7.jpg", "7/crop_person_7.jpg"], "9.jpg": []}, path)
    named = read_hvpnet_crops(path)
    assert named == {"7": ["7/crop_location_7.jpg", "7/crop_person_7.jpg"], "9": []}
    split, _ = with_crops(posts, lambda post: [(None, crops / name) for name in named.get(post, [])])
    assert np.abs(np.array(colours_in_boxes(split[0])) - np.array([(0, 0, 250), (250, 0, 0)])).max() < 12


class RunsOnLoading:
    def __reduce__(self):
        return (open, ("was_run", "w"))


@pytest.mark.parametrize("content", [[1], {"7.jpg": "a.jpg"}, {"7.jpg": [1]}, {3: ["a"]}, RunsOnLoading()])
def test_crop_dictionaries_with_anything_else_are_refused(tmp_path, monkeypatch, content):
    monkeypatch.chdir(tmp_path)
    torch.save(content, tmp_path / "dict.pth")
    with pytest.raises(BadInput, match="dict.pth: (expected a dictionary|not a dictionary)") as error:
        read_hvpnet_crops(tmp_path / "dict.pth")
    assert "\n" not in str(error.value)
    assert not (tmp_path / "was_run").exists()


def test_missing_crop_dictionary_is_named(tmp_path):
    with pytest.raises(BadInput, match="absent.pth"):
        read_hvpnet_crops(tmp_path / "absent.pth")


@pytest.fixture
def vinvl(tmp_path):
    folder = tmp_path / "vinvl"
    folder.mkdir()
    rng = np.random.default_rng(0)
    arrays = {"num_boxes": 3, "bounding_boxes": rng.random((5, 4), np.float32).cumsum(1)}
    np.savez(folder / "7.jpg.npz", box_features=rng.random((5, 6), np.float32), **arrays)
    return folder


def test_vinvl_features_become_columns(posts, vinvl):
    boxes, features = read_vinvl(vinvl / "7.jpg.npz")
    assert boxes.shape == (3, 4) and features.shape == (3, 6)
    split, outcomes = with_vinvl(posts, vinvl, max_objects=2)
    assert list(split.features) == ["id", "tokens", "ner_tags", "image", "objects", "object_features"]
    assert np.array_equal(np.array(split[0]["object_features"], np.float32), features[:2])
    assert np.array_equal(np.array([o["box"] for o in split[0]["objects"]], np.float32), boxes[:2])
    assert (split[1]["objects"], split[1]["object_features"]) == ([], [])
    assert dict(outcomes) == {"posts without features": 1, "objects": 2}


@pytest.mark.parametrize(
    "arrays",
    [
        {"bounding_boxes": np.zeros((2, 4)), "box_features": np.zeros((3, 5)), "num_boxes": 3},
        {"bounding_boxes": np.zeros((2, 3)), "box_features": np.zeros((2, 5)), "num_boxes": 2},
        {"bounding_boxes": np.zeros((2, 4)), "box_features": np.array([{}, {}], dtype=object), "num_boxes": 2},
        {"bounding_boxes": np.zeros((2, 4))},
    ],
)
def test_damaged_vinvl_files_are_named(tmp_path, arrays):
    np.savez(tmp_path / "7.npz", **arrays)
    with pytest.raises(BadInput, match="7.npz"):
        read_vinvl(tmp_path / "7.npz")
    with pytest.raises(BadInput, match="text.npz"):
        read_vinvl(write(tmp_path / "text.npz", "no archive"))


def test_command_adds_crops_to_a_dataset(tmp_path, crops, monkeypatch):
    (tmp_path / "own").mkdir()
    write(tmp_path / "own" / "train.jsonl", '{"id": "7", "tokens": ["Ann"], "ner_tags": ["B-PER"]}\n')
    out = tmp_path / "out"
    arguments = ["--dataset", tmp_path / "own", "--umgf_crops", crops, "--output_dir", out]
    monkeypatch.setattr(sys, "argv", ["published_objects", *map(str, arguments)])
    published_objects.main()
    row = load_dataset(str(out), cache_dir=str(tmp_path / "cache"))["train"][0]
    assert len(colours_in_boxes(row)) == 4
    for argument, value, message in ((4, tmp_path / "own", "nothing there belongs"), (4, "absent", "no such folder")):
        monkeypatch.setattr(sys, "argv", [*sys.argv[:argument], str(value), *sys.argv[argument + 1 :]])
        with pytest.raises(BadInput, match=message):
            published_objects.main()
