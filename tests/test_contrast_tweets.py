"""The contrast tweets: only the link between a name and its object in the picture says the type."""

import subprocess
import sys
from collections import Counter, defaultdict

import numpy as np
import pytest
from datasets import Dataset, load_dataset

from dataset_scripts import contrast_tweets as generator
from dataset_scripts.columns.contract import COLUMNS, dataset_features
from dataset_scripts.columns.picture_ablations import remove_columns, remove_pictures, shuffle_pictures
from dataset_scripts.contrast_tweets import contrast_tweets, write_contrast_tweets
from modeling_umgf.labels import bio_labels, entity_spans
from modeling_umgf.split_counts import tag_names

GENERAL = {"PER": "person", "LOC": "location", "ORG": "organization", "MISC": "misc"}


@pytest.fixture(scope="module")
def posts():
    return contrast_tweets(seed=0)


@pytest.fixture
def few_posts(monkeypatch):
    monkeypatch.setattr(generator, "SPLITS", {"train": (100, 60), "validation": (50, 10), "test": (50, 30)})


def mentions(split):
    """(words of the name, type, words, row) of every entity; pictures stay undecoded."""
    rows = split.remove_columns("image").to_list()
    has_picture = [cell is not None for cell in split.with_format("arrow")["image"].to_pylist()]
    for row, tags, pictured in zip(rows, tag_names(split), has_picture, strict=True):
        for start, end, kind in entity_spans(tags, strict=True):
            yield tuple(row["tokens"][start:end]), kind, (start, end), {**row, "pictured": pictured}


def test_columns_are_those_of_every_dataset(posts):
    expected = dataset_features(bio_labels(["PER", "LOC", "ORG", "MISC"]), ["objects", "noun_phrases"])
    assert all(split.features == expected for split in posts.values())
    assert {name: len(split) for name, split in posts.items()} == {"train": 2000, "validation": 300, "test": 500}


def test_splits_share_no_word_of_any_name(posts):
    words = defaultdict(set)
    for split, rows in posts.items():
        for name, _, _, _ in mentions(rows):
            words[split].update(name)
    assert not words["train"] & words["test"]
    assert not words["train"] & words["validation"]
    assert not words["validation"] & words["test"]
    assert all(word[0].isupper() for word in words["test"])


def test_every_name_has_every_type_equally_often(posts):
    for split in posts.values():
        kinds = defaultdict(Counter)
        for name, kind, _, _ in mentions(split):
            kinds[name][kind] += 1
        assert all(set(counts) == set(GENERAL) and len(set(counts.values())) == 1 for counts in kinds.values())
        assert any(len(name) > 1 for name in kinds)


def test_a_pictured_post_has_two_or_three_names_of_different_types(posts):
    for split in posts.values():
        pictured = [cell is not None for cell in split.with_format("arrow")["image"].to_pylist()]
        kinds = Counter()
        for tags, has_picture in zip(tag_names(split), pictured, strict=True):
            spans = entity_spans(tags, strict=True)
            assert len({kind for _, _, kind in spans}) == len(spans)
            assert has_picture == (len(spans) > 1)
            kinds[len(spans)] += 1
        assert set(kinds) == {0, 1, 2, 3}
        assert (kinds[0], kinds[1]) == (len(split) // 25, 2 * len(split) // 25)


def test_with_one_name_the_picture_shows_its_object_alone():
    for split in contrast_tweets(one_name=True).values():
        pictured = [row for row in split.remove_columns("image").to_list() if row["objects"]]
        assert len(pictured) > 0.8 * len(split)
        for _, _, span, row in mentions(split):
            assert row["pictured"] == bool(row["objects"])
            if row["pictured"]:
                [only] = row["objects"]
                assert (only["phrase"]["start"], only["phrase"]["end"]) == span
        kinds = Counter(kind for _, kind, _, _ in mentions(split))
        assert max(kinds.values()) == min(kinds.values())


@pytest.mark.parametrize("sizes", [(50, 30), (77, 5), (200, 30), (1000, 999)])
def test_names_are_shared_out_evenly_in_any_size(monkeypatch, sizes):
    monkeypatch.setattr(generator, "SPLITS", {"train": sizes})
    (split,) = contrast_tweets(seed=2).values()
    assert len(split) == sizes[0]
    kinds = Counter((name, kind) for name, kind, _, _ in mentions(split))
    assert len(kinds) == 4 * len({name for name, _ in kinds}) and len(set(kinds.values())) == 1


def test_every_pictured_name_has_one_object_and_some_objects_mislead(posts):
    misleading = Counter()
    for row, tags in zip(posts["test"].to_list(), tag_names(posts["test"]), strict=True):
        spans = [span[:2] for span in entity_spans(tags, strict=True)]
        links = [None if o["phrase"] is None else (o["phrase"]["start"], o["phrase"]["end"]) for o in row["objects"]]
        if row["image"] is None:
            assert links == []
            continue
        assert all(links.count(span) == 1 for span in spans)
        phrases = [(phrase["start"], phrase["end"]) for phrase in row["noun_phrases"]]
        assert set(spans) | set(links) - {None} <= set(phrases)
        misleading["general"] += links.count(None)
        misleading["phrase"] += len(set(links) - set(spans) - {None})
    assert misleading["general"] > 50 and misleading["phrase"] > 50


def test_words_tell_nothing_about_the_type_of_a_pictured_name(posts):
    """Naive Bayes over the words of the post, the place in it and the neighbouring words stays near 25 %."""

    def clues(span, row):
        tokens = ["<", *row["tokens"], ">"]
        order = sum(phrase["end"] <= span[0] for phrase in row["noun_phrases"])
        near = [f"before {tokens[span[0]]}", f"after {tokens[span[1] + 1]}", f"at {span[0]}", f"order {order}"]
        first_letters = [f"letters {row['tokens'][span[0]][:2]}"]
        return near + first_letters + [f"has {word}" for word in set(row["tokens"])]

    seen = {kind: Counter() for kind in GENERAL}
    for _, kind, span, row in mentions(posts["train"]):
        if row["pictured"]:
            seen[kind].update(clues(span, row))
    right = []
    for _, kind, span, row in mentions(posts["test"]):
        if row["pictured"]:
            known = clues(span, row)
            scores = {}
            for guess in GENERAL:
                scores[guess] = sum(np.log(seen[guess][clue] + 1) for clue in known)
            right.append(max(scores, key=scores.get) == kind)
    assert len(right) > 1000
    assert 0.19 < np.mean(right) < 0.31


def test_words_settle_the_type_without_a_picture(posts):
    cue = {"sister": "PER", "city": "LOC", "company": "ORG", "song": "MISC"}
    blind = [(kind, span, row) for _, kind, span, row in mentions(posts["test"]) if not row["pictured"]]
    assert len(blind) == 40
    assert all(cue[row["tokens"][span[0] - 1]] == kind for kind, span, row in blind)


def test_places_in_text_and_picture_are_independent(posts):
    """The leftmost object belongs to the first name as often as to any other."""
    leftmost_is_first = []
    for row in posts["train"].remove_columns(["image", "ner_tags"]):
        linked = [o for o in row["objects"] if o["phrase"] and row["tokens"][o["phrase"]["start"]][0].isupper()]
        if len(linked) == 2:
            first = min(linked, key=lambda o: o["phrase"]["start"])
            leftmost_is_first.append(min(linked, key=lambda o: o["box"][0]) is first)
    assert 0.44 < np.mean(leftmost_is_first) < 0.56


def test_boxes_lie_inside_the_picture_and_hold_what_was_drawn(posts):
    for row in posts["validation"].select(range(60)):
        if row["image"] is None:
            continue
        pixels = np.asarray(row["image"], dtype=float)
        outside = np.ones(pixels.shape[:2], dtype=bool)
        contents = []
        for o in row["objects"]:
            x0, y0, x1, y1 = o["box"]
            assert 0 <= x0 < x1 <= row["image"].width and 0 <= y0 < y1 <= row["image"].height
            area = slice(max(int(y0) - 3, 0), int(y1) + 4), slice(max(int(x0) - 3, 0), int(x1) + 4)
            outside[area] = False
            contents.append(pixels[int(y0) : int(y1), int(x0) : int(x1)].std(axis=(0, 1)).max())
        assert min(contents) > 1.2 * pixels[outside].std(axis=0).max()


def test_same_seed_same_bytes_other_seed_other_posts(few_posts):
    one = contrast_tweets(3)["train"].with_format("arrow")[:]
    again = contrast_tweets(3)["train"].with_format("arrow")[:]
    other = contrast_tweets(4)["train"].with_format("arrow")[:]
    assert one.equals(again)
    assert not one.equals(other)


def test_written_folder_loads_with_the_same_content_and_can_be_written_again(few_posts, tmp_path):
    for _ in range(2):
        write_contrast_tweets(tmp_path / "posts", seed=1)
    loaded = load_dataset(str(tmp_path / "posts"), cache_dir=tmp_path / "cache")
    expected = contrast_tweets(seed=1)
    assert list(loaded) == ["train", "validation", "test"]
    for name, split in loaded.items():
        assert split.features == expected[name].features
        assert split.with_format("arrow")[:].to_pylist() == expected[name].with_format("arrow")[:].to_pylist()
    assert sorted(path.name for path in tmp_path.iterdir()) == ["cache", "posts"]


def test_a_folder_with_other_files_is_never_replaced(few_posts, tmp_path):
    (tmp_path / "thesis.txt").write_text("years of work")
    with pytest.raises(ValueError, match="holds other files than a dataset"):
        write_contrast_tweets(tmp_path, seed=1)
    assert [path.name for path in tmp_path.iterdir()] == ["thesis.txt"]


def test_command_says_in_one_line_what_is_wrong(tmp_path):
    (tmp_path / "file").write_text("x")
    command = [sys.executable, "-m", "dataset_scripts.contrast_tweets", "--output_dir", str(tmp_path / "file")]
    run = subprocess.run(command, capture_output=True, text=True)
    assert run.returncode != 0
    assert run.stderr.strip().splitlines() == [f"error: {tmp_path / 'file'}: is a file; name a folder to write"]


@pytest.mark.parametrize("generator", ["contrast_tweets", "relation_contrast_tweets"])
def test_a_seed_below_zero_is_refused_by_its_name(generator, tmp_path):
    command = [sys.executable, "-m", f"dataset_scripts.{generator}", "--output_dir", str(tmp_path / "new"), "--seed=-1"]
    run = subprocess.run(command, capture_output=True, text=True)
    assert run.returncode != 0 and not (tmp_path / "new").exists()
    assert run.stderr.strip().endswith("error: --seed -1: give 0 or more")


def test_removed_pictures_leave_the_words_alone(posts):
    split = posts["validation"]
    removed = remove_pictures(split)
    assert removed.features == split.features
    assert set(removed["image"]) == {None}
    assert set(removed["objects"]) == {None}
    for column in ("id", "tokens", "ner_tags", "noun_phrases"):
        assert removed[column][:] == split[column][:]


def test_half_of_the_pictures_go_and_the_other_half_stays_as_it_is(posts):
    split = posts["validation"].with_format("arrow")
    rows = split[:].to_pylist()
    halved = remove_pictures(posts["validation"], 0.5, seed=3)
    assert halved.features == posts["validation"].features
    gone = remove_pictures(posts["validation"]).with_format("arrow")[:].to_pylist()
    new = halved.with_format("arrow")[:].to_pylist()
    lost = [i for i, row in enumerate(new) if row != rows[i]]
    assert all(new[i] == gone[i] for i in lost)
    without = [i for i, row in enumerate(rows) if row == gone[i]]
    assert abs(len(lost) - (len(rows) - len(without)) / 2) <= 0.2 * len(rows)
    assert new == remove_pictures(posts["validation"], 0.5, seed=3).with_format("arrow")[:].to_pylist()
    assert new != remove_pictures(posts["validation"], 0.5, seed=4).with_format("arrow")[:].to_pylist()


def test_what_columns_hold_can_be_taken_away(posts):
    split = posts["validation"]
    removed = remove_columns(split, ["noun_phrases", "no such column"])
    assert removed.features == split.features
    assert set(removed["noun_phrases"]) == {None} and removed["objects"][:] == split["objects"][:]


def test_shuffled_pictures_come_with_their_boxes_and_nobody_keeps_its_own(posts):
    split = posts["validation"]
    shuffled = shuffle_pictures(split, seed=5)
    assert shuffled.features == split.features
    assert shuffled["tokens"][:] == split["tokens"][:]
    cells = [cell and cell["bytes"] for cell in split.with_format("arrow")["image"].to_pylist()]
    new_cells = [cell and cell["bytes"] for cell in shuffled.with_format("arrow")["image"].to_pylist()]
    assert Counter(cells) == Counter(new_cells)
    source_of = {cell: objects for cell, objects in zip(cells, split["objects"], strict=True) if cell}
    for cell, new_cell, own, new in zip(cells, new_cells, split["objects"], shuffled["objects"], strict=True):
        assert new_cell is None or new_cell != cell
        if new_cell is None:
            assert new == []
        else:
            boxes = [o["box"] for o in source_of[new_cell]]
            assert [o["box"] for o in new] == [boxes[j % len(boxes)] for j in range(len(own))]
            assert [o["phrase"] for o in new] == [o["phrase"] for o in own]


def test_shuffled_pictures_take_along_what_was_seen_in_them_and_leave_what_the_words_found():
    neighbor = [{"id": "n", "score": 0.5}]
    found = {"box": [0.0, 0.0, 1.0, 1.0], "score": None, "query": None, "phrase": {"start": 0, "end": 1}}
    rows = [
        {
            "id": name,
            "tokens": ["x"],
            "ner_tags": [0],
            "image": None,
            "noun_phrases": [{"start": 0, "end": 1}],
            "objects": [found] * (2 - number),
            "object_features": [[float(number)]] * (2 - number),
            "caption": f"picture of {name}",
            "object_labels": [name],
            "neighbors_inter": neighbor * (1 - number),
            "neighbors_intra": neighbor * (1 - number),
        }
        for number, name in enumerate("ab")
    ]
    split = Dataset.from_list(rows, features=dataset_features(["O"], rows[0].keys() & COLUMNS.keys()))
    first, second = shuffle_pictures(split)
    assert (first["caption"], second["caption"]) == ("picture of b", "picture of a")
    assert (first["object_labels"], second["object_labels"]) == (["b"], ["a"])
    assert (first["neighbors_inter"], second["neighbors_inter"]) == (neighbor, [])
    assert (first["neighbors_intra"], second["neighbors_intra"]) == ([], neighbor)
    assert (first["object_features"], second["object_features"]) == ([[1.0], [1.0]], [[0.0]])
    assert [len(first["objects"]), len(second["objects"])] == [2, 1]
    removed = remove_pictures(split)[0]
    assert [name for name, cell in removed.items() if cell is not None] == ["id", "tokens", "ner_tags", "noun_phrases"]


def test_a_column_that_no_dataset_has_is_named():
    with pytest.raises(ValueError, match="unknown columns colour; known are id, tokens, ner_tags, image"):
        dataset_features(["O"], ["caption", "colour"])


def test_shuffle_depends_on_the_seed_only(posts):
    split = posts["validation"].select(range(40))
    one = shuffle_pictures(split, 1).with_format("arrow")[:]
    again = shuffle_pictures(split, 1).with_format("arrow")[:]
    other = shuffle_pictures(split, 2).with_format("arrow")[:]
    assert one.equals(again)
    assert not one.equals(other)


def test_one_post_cannot_be_shuffled(posts):
    with pytest.raises(ValueError, match="two posts or more"):
        shuffle_pictures(posts["test"].select([0]))
