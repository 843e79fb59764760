import io
import json
import sys
from collections import Counter
from pathlib import Path

import numpy as np
import pytest
import torch
from conftest import SHARED, assert_same
from datasets import Dataset, DatasetDict, load_dataset
from PIL import Image
from transformers import ResNetConfig, ResNetModel

from dataset_scripts import build_relations as module
from dataset_scripts.build_relations import build_relations
from dataset_scripts.columns.contract import dataset_features
from dataset_scripts.reading.bad_input import BadInput, run_command
from dataset_scripts.reading.published_formats import read_caption_file, read_relation_file
from dataset_scripts.relations import post_pictures
from dataset_scripts.relations.authors_files import AUTHORS_FILES
from dataset_scripts.relations.post_pictures import PostPictures
from dataset_scripts.relations.report import hubness
from dataset_scripts.writing.only_writer import only_writer
from modeling_umgf import HashingEncoder, RelationIndex, UmgfImageProcessor
from modeling_umgf.descriptors import PictureFeatures
from modeling_umgf.pictures import open_picture

POSTS = {
    "train": [
        ("t0", "the dog barks", 0, "a dog on a beach", ["dog"]),
        ("t1", "what a game", 1, "a football game at night", ["person", "ball"]),
        ("t2", "the dog again", 0, "a dog on a beach", ["dog"]),  # the same picture as t0
        ("t3", "no picture here", None, None, None),
        ("t4", "a quiet park", 2, "a park with a dog", ["dog", "tree"]),
    ],
    "test": [("s0", "dog on the beach", 3, "something else", ["dog"]), ("s1", "hello there", None, None, None)],
}


def drawing(number: int) -> Image.Image:
    return Image.fromarray(np.random.default_rng(number).integers(0, 256, (24, 24, 3), dtype=np.uint8))


def posts(with_pixels: bool = True) -> DatasetDict:
    features = dataset_features(["O", "B-PER"], ("caption", "object_labels"))
    splits = DatasetDict()
    for name, rows in POSTS.items():
        rows = [
            {
                "id": row_id,
                "tokens": text.split(),
                "ner_tags": [0] * len(text.split()),
                "image": drawing(number) if with_pixels and number is not None else None,
                "caption": caption,
                "object_labels": labels,
            }
            for row_id, text, number, caption, labels in rows
        ]
        splits[name] = Dataset.from_list(rows, features=features)
    return splits


def build(folder: Path, splits: DatasetDict | None = None, **settings) -> tuple[DatasetDict, RelationIndex, dict]:
    report = build_relations(
        posts() if splits is None else splits, folder, HashingEncoder(512), **{"k": 2, "hubness": "none"} | settings
    )
    assert json.loads((folder / "relation_report.json").read_text()) == report
    return load_dataset(str(folder / "dataset")), RelationIndex.from_pretrained(folder / "relation_index"), report


def found(split: Dataset, row_id: str, relation: str) -> list[str]:
    return [one["id"] for one in split[split["id"][:].index(row_id)][f"neighbors_{relation}"]]


def test_neighbours_come_from_the_training_pictures_only(tmp_path):
    dataset, index, report = build(tmp_path)
    assert index.ids == ["t0", "t1", "t2", "t4"]  # t3 has no picture
    assert found(dataset["test"], "s0", "inter") == ["t0", "t2"]
    assert found(dataset["test"], "s0", "intra") == ["t0", "t2"]
    assert found(dataset["test"], "s1", "intra") == []
    assert report["pictures"] == {"used": 5, "no picture": 2} and report["pictures_in_pool"] == 4


def test_all_pictures_can_be_the_pool(tmp_path):
    dataset, index, _ = build(tmp_path, candidate_pool="all")
    assert "s0" in index and "s0" not in found(dataset["test"], "s0", "inter")


def test_neither_the_own_picture_nor_a_copy_of_it_is_a_neighbour(tmp_path):
    dataset, _, report = build(tmp_path)
    assert found(dataset["train"], "t0", "intra") == found(dataset["train"], "t2", "intra") == ["t4"]
    assert "t2" not in found(dataset["train"], "t0", "inter")
    for relation in report["relations"].values():
        assert all(split["self_hits"] == split["copy_hits"] == 0 for split in relation.values())


def test_pictures_can_be_left_out(tmp_path):
    dataset, index, report = build(tmp_path, left_out=["t0", "t2"])
    assert index.ids == ["t1", "t4"] and report["pictures"]["left out"] == 2
    assert found(dataset["test"], "s0", "intra") == ["t4"]


def test_caption_vectors_are_the_features_of_neighbours_and_of_the_own_picture(tmp_path):
    dataset, index, _ = build(tmp_path, posts(with_pixels=False))
    assert index.feature_shape == (1, 512) and index.pictures.content_hashes is None
    own = torch.tensor(dataset["train"][0]["object_features"])
    assert torch.allclose(own, HashingEncoder(512).encode(["a dog on a beach"]), atol=1e-6)
    assert torch.allclose(index.features_of(["t0"])[0].float(), own, atol=1e-3)
    assert dataset["train"][3]["object_features"] is None


def image_encoder() -> PictureFeatures:
    torch.manual_seed(0)
    config = ResNetConfig(embedding_size=8, hidden_sizes=[8, 16], depths=[1, 1], layer_type="basic")
    return PictureFeatures(ResNetModel(config), UmgfImageProcessor(size={"height": 32, "width": 32}))


@pytest.mark.parametrize("pooled", [False, True])
def test_features_are_those_of_the_image_encoder(tmp_path, pooled):
    dataset, index, _ = build(tmp_path, features=image_encoder(), pooled=pooled)
    expected = image_encoder()([drawing(2)])[0]
    expected = expected.mean(0, keepdim=True) if pooled else expected
    assert torch.allclose(index.features_of(["t4"])[0].float(), expected, atol=2e-3)
    assert "object_features" not in dataset["train"].features


def similar(number: int, change: int) -> Image.Image:
    """A drawing with some of its pixels changed."""
    values = np.asarray(drawing(number)).copy()
    values[:change] = 0
    return Image.fromarray(values)


def ties() -> DatasetDict:
    """Six training pictures that are equal for both relations: p3 is the own picture of s0, p4 a bit like it."""
    splits = posts()
    row = splits["train"].to_list()[4]
    images = [drawing(100), drawing(101), similar(3, 9), drawing(3), similar(3, 3), drawing(105)]
    rows = [row | {"id": f"p{i}", "image": image} for i, image in enumerate(images)]
    splits["train"] = Dataset.from_list(rows, features=splits["train"].features)
    labels = [["dog", "tree"], None]
    splits["test"] = module.replace_column(splits["test"], "object_labels", labels)
    return splits


def test_of_equally_good_pictures_the_most_similar_one_comes_first(tmp_path):
    dataset, _, _ = build(tmp_path, ties(), features="none", k=3)
    for relation in ("inter", "intra"):
        assert found(dataset["test"], "s0", relation)[:2] == ["p4", "p2"]  # p3 is a copy of the own picture


def test_without_pixels_the_most_similar_caption_vector_comes_first(tmp_path):
    splits = ties().map(lambda row: row | {"image": None})
    captions = {"s0": "cat", "p5": "the cat", "p1": "cats"}
    splits = splits.map(lambda row: row | {"caption": captions.get(row["id"], "a park")})
    dataset, _, _ = build(tmp_path, splits, k=3)
    assert found(dataset["test"], "s0", "intra") == ["p5", "p1", "p0"]


def as_given(image: Image.Image, kind: str):
    """The same picture as another source."""
    if kind == "image":
        return image
    if kind == "array":
        return np.asarray(image)
    content = io.BytesIO()
    image.save(content, kind)
    return content.getvalue()


@pytest.mark.parametrize("features", ["none", "caption"])
@pytest.mark.parametrize("kind", ["image", "array", "PNG", "BMP"])
def test_a_new_post_finds_what_the_same_post_of_the_dataset_found(tmp_path, kind, features):
    """Serving once broke ties by id and took copies in other files for other pictures."""
    splits = ties()
    dataset, index, _ = build(tmp_path, splits, features=features, k=4)
    for name, split in splits.items():
        for row in split:
            picture = row["image"] and open_picture(as_given(row["image"], kind))
            inter, intra = index.find_neighbors(
                [" ".join(row["tokens"])], [row["object_labels"]], 4, ids=[row["id"]], pictures=[picture]
            )
            i = dataset[name]["id"][:].index(row["id"])
            assert inter == [dataset[name][i]["neighbors_inter"]]
            assert intra == [dataset[name][i]["neighbors_intra"]]


def test_a_new_post_without_pixels_finds_what_the_same_post_of_the_dataset_found(tmp_path):
    dataset, index, _ = build(tmp_path, posts(with_pixels=False), k=3)
    for split in dataset.values():
        for row in split:
            own = [row["object_features"]]
            given = {"ids": [row["id"]], "pictures": [None], "object_features": own}
            found = index.find_neighbors([" ".join(row["tokens"])], [row["object_labels"]], 3, **given)
            assert_same(list(found), [[row["neighbors_inter"]], [row["neighbors_intra"] or []]])


def alike(with_captions: bool = False) -> DatasetDict:
    """Pictures of two kinds, half of them reddish noise and half bluish stripes; no objects are named."""
    splits = DatasetDict()
    for name, numbers in {"train": range(8), "test": range(8, 12)}.items():
        rows = []
        for i in numbers:
            array = np.random.default_rng(i).integers(0, 60, (32, 32, 3), dtype=np.uint8)
            if i % 2:
                array[::4, :, 2] = 250
            else:
                array[:, :, 0] += 150
            post = {"id": f"p{i}", "tokens": ["look", "here"], "ner_tags": [0, 0], "image": Image.fromarray(array)}
            rows.append(post | {"caption": f"picture {i}"} if with_captions else post)
        features = dataset_features(["O", "B-PER"], ("caption",) if with_captions else ())
        splits[name] = Dataset.from_list(rows, features=features)
    return splits


@pytest.mark.parametrize("with_captions", [False, True])
def test_with_an_image_encoder_alone_pictures_that_look_alike_are_neighbours(tmp_path, with_captions):
    dataset, index, report = build(
        tmp_path, alike(with_captions), features=image_encoder(), hubness="center", k=3, pooled=True
    )
    assert report["intra_modal"] == "looks" and index.compares_looks
    assert report["text_encoder"] == (HashingEncoder.name if with_captions else None)
    assert ("neighbors_inter" in dataset["train"].features) is with_captions
    for split in dataset.values():
        for post in split:
            kinds = {int(one["id"][1:]) % 2 for one in post["neighbors_intra"]}
            assert kinds == {int(post["id"][1:]) % 2}
            assert post["id"] not in [one["id"] for one in post["neighbors_intra"]]


def test_a_new_picture_finds_by_its_looks_what_the_same_picture_of_the_dataset_found(tmp_path):
    splits = alike()
    dataset, index, _ = build(tmp_path, splits, features=image_encoder(), k=3)
    index = RelationIndex.from_pretrained(tmp_path / "relation_index")  # with the encoder that lies in it
    pictures = [open_picture(picture) for picture in splits["test"]["image"]]
    inter, intra = index.find_neighbors(["look here"] * 4, None, 3, pictures=pictures)
    assert inter is None
    for found_anew, kept in zip(intra, dataset["test"]["neighbors_intra"], strict=True):
        assert [one["id"] for one in found_anew] == [one["id"] for one in kept]
        assert [one["score"] for one in found_anew] == pytest.approx([one["score"] for one in kept], abs=2e-3)
    assert index.find_neighbors(["no picture"], None, 3)[1] == [[]]


def test_an_image_encoder_that_is_gone_is_warned_about_and_costs_the_neighbours_alone(tmp_path, caplog):
    encoder = image_encoder()
    encoder.name = "nobody/nothing"
    _, index, _ = build(tmp_path, alike(), features=encoder, k=3)
    assert not (tmp_path / "relation_index" / "picture_encoder").exists()  # an id on the Hub is loaded from there
    assert index.find_neighbors(["x"], None, 3, pictures=[drawing(1)])[1] == [[]]
    assert "nobody/nothing" in caplog.text and "neighbours or object_features" in caplog.text


def test_equal_captions_have_equal_vectors(tmp_path, monkeypatch):
    """Whatever batch they are in: a difference in the last bit would decide before the looks do."""
    monkeypatch.setattr(post_pictures, "CAPTIONS_AT_A_TIME", 1)

    class Uneven(HashingEncoder):
        calls = 0

        def encode(self, texts, progress=False):
            self.calls += 1
            return super().encode(texts) * (1 + 1e-6 * self.calls)

    pictures = PostPictures(posts())
    vectors = post_pictures.encode_captions(pictures, Uneven(64), tmp_path)
    assert torch.equal(vectors[pictures.row["t0"]], vectors[pictures.row["t2"]])


def test_a_picture_that_cannot_be_read_is_named_by_its_post(tmp_path):
    splits = posts()
    (tmp_path / "broken.jpg").write_bytes(b"no picture")
    rows = [row | {"image": str(tmp_path / "broken.jpg")} for row in splits["test"].to_list()]
    splits["test"] = Dataset.from_list(rows, features=splits["test"].features)
    with pytest.raises(BadInput, match="post s0: its picture can't be used .*not a picture"):
        build(tmp_path / "out", splits)


def test_report_counts_what_was_found(tmp_path):
    dataset, _, report = build(tmp_path)
    for relation, splits in report["relations"].items():
        for name, numbers in splits.items():
            rows = dataset[name][relation][:]
            counts = Counter(one["id"] for row in rows for one in row)
            assert numbers["posts"] == len(rows) and numbers["empty_rows"] == sum(not row for row in rows)
            assert numbers["slots"] == sum(numbers["score_histogram"]) == counts.total()
            assert numbers["distinct_pictures"] == len(counts)
    assert report["relations"]["neighbors_intra"]["train"]["empty_rows"] == 1 + 1  # t3 without, t1 with other objects


def test_hubness_is_the_share_of_the_ten_most_frequent():
    rows = [[{"id": "hub"}, {"id": f"p{i}"}] for i in range(30)]
    assert hubness(rows) == {"slots": 60, "top10_share": round(39 / 60, 4), "distinct_pictures": 31}
    assert hubness([]) == {"slots": 0, "top10_share": 0.0, "distinct_pictures": 0}


def test_a_stopped_run_goes_on_where_it_was(tmp_path, monkeypatch):
    monkeypatch.setattr(post_pictures, "PICTURES_AT_A_TIME", 2)
    encoder, seen = image_encoder(), []
    original = PictureFeatures.__call__

    def stop_at_the_second(self, pictures):
        seen.append(len(pictures))
        if len(seen) == 2:
            raise KeyboardInterrupt
        return original(self, pictures)

    monkeypatch.setattr(PictureFeatures, "__call__", stop_at_the_second)
    with pytest.raises(KeyboardInterrupt):
        build(tmp_path, features=encoder)
    assert not (tmp_path / "dataset").exists() and not (tmp_path / "relation_report.json").exists()
    build(tmp_path, features=encoder)
    assert seen == [2, 2, 2]  # four pictures and a copy; the first step was not repeated
    assert sorted(path.name for path in tmp_path.iterdir()) == ["dataset", "relation_index", "relation_report.json"]


def test_a_run_with_other_settings_starts_anew(tmp_path, monkeypatch):
    with monkeypatch.context() as stopping:
        stopping.setattr(module, "write_dataset", lambda *_, **__: 1 / 0)
        with pytest.raises(ZeroDivisionError):
            build(tmp_path, features=image_encoder())
    _, index, _ = build(tmp_path, features=image_encoder(), pooled=True)
    assert index.feature_shape == (1, 16)


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"candidate_pool": "gallery"}, "'gallery' has no picture"),
        ({"k": 9}, "k=9 is more than the pool's 4 pictures"),
        ({"splits": posts(False), "features": image_encoder()}, "t0 has a caption but no picture"),
        ({"authors_relations": "nowhere"}, "nowhere"),
        ({"splits": alike()}, "no post has a caption: give an image encoder as --features"),
        ({"splits": alike(), "features": "none"}, "no captions, no object labels and no image encoder"),
    ],
)
def test_bad_input_is_one_clear_line_and_leaves_no_dataset(tmp_path, settings, message):
    with pytest.raises(ValueError, match=message):
        build(tmp_path, **settings)
    assert not (tmp_path / "dataset").exists() and not (tmp_path / "relation_index").exists()


def test_ids_must_differ():
    splits = posts()
    splits["test"] = splits["test"].map(lambda row: row | {"id": "t0"})
    with pytest.raises(BadInput, match="t0 is in the dataset twice"):
        PostPictures(splits)


def test_the_command_writes_the_same(tmp_path, monkeypatch):
    expected, _, _ = build(tmp_path / "expected", hubness="center")
    module.write_dataset(posts(), tmp_path / "posts", title="x", description="y")
    command = ["build_relations", "--dataset", str(tmp_path / "posts"), "--text_encoder", "hashing", "--k", "2"]
    command += ["--output_dir", str(tmp_path / "out")]
    monkeypatch.setattr(sys, "argv", command)
    run_command(module.main)
    result = load_dataset(str(tmp_path / "out" / "dataset"))
    for relation in ("inter", "intra"):
        assert found(result["test"], "s0", relation) == found(expected["test"], "s0", relation)
    monkeypatch.setattr(sys, "argv", [*command, "--candidate_pool", "nowhere"])
    with pytest.raises(SystemExit, match="error: the pool 'nowhere' has no picture"):
        run_command(module.main)
    with only_writer(tmp_path / "out"), pytest.raises(SystemExit, match="out: another process is writing there"):
        run_command(module.main)


# ----------------------------------------------------------------------------------------------- the authors' files

AUTHORS = [  # seven lines a post; the scores of s0's objects are all zero, s1 is lost
    "dog on the beach",
    "O O O O",
    "s0.jpg",
    "0.9 0.8 0.7",
    "t4.jpg stray.jpg t1.jpg",
    "0.0 0.0",
    "t0.jpg t1.jpg",
]


def test_authors_neighbours_can_be_taken_as_they_are(tmp_path):
    (tmp_path / "test_2.txt").write_text("\n".join(AUTHORS) + "\n")
    (tmp_path / "train_2.txt").write_text("\n".join(AUTHORS).replace("s0", "t0") + "\n")
    dataset, _, report = build(tmp_path / "out", authors_relations=tmp_path, k=3)
    assert found(dataset["test"], "s0", "inter") == ["t4", "t1"]  # the stray picture is of no post
    assert found(dataset["test"], "s0", "intra") == []  # zero scores name random pictures
    assert report["lost_posts"]["test"] == ["s1"] and report["neighbors_not_in_pool"] == 2
    assert report["relations"]["neighbors_intra"]["test"]["empty_rows"] == 2


def test_authors_neighbours_outside_the_pool_do_not_take_the_place_of_others(tmp_path):
    """They were once cut to k before those that are not in the pool were left out."""
    (tmp_path / "test_2.txt").write_text("\n".join(AUTHORS).replace("t4.jpg stray.jpg", "stray.jpg t4.jpg") + "\n")
    (tmp_path / "train_2.txt").write_text("\n".join(AUTHORS) + "\n")
    dataset, _, report = build(tmp_path / "out", authors_relations=tmp_path, k=1)
    assert found(dataset["test"], "s0", "inter") == ["t4"]
    assert report["neighbors_not_in_pool"] == 1


needs_shared = pytest.mark.skipif(not (SHARED / "data" / "relations").is_dir(), reason="no published relation files")


@needs_shared
@pytest.mark.parametrize(
    ("dataset", "counts", "zero_rows"),
    [("twitter2015", (3999, 999, 3256), 1293), ("twitter2017", (3373, 723, 723), 776)],
)
def test_published_relation_files_have_the_known_counts(dataset, counts, zero_rows):
    splits = [read_relation_file(SHARED / "data" / "relations" / dataset / file) for file in AUTHORS_FILES.values()]
    assert tuple(map(len, splits)) == counts
    rows = [row for split in splits for row in split]
    assert sum(not row["neighbors_intra"] for row in rows) == zero_rows  # masks, not neighbours
    assert all(len(row["neighbors_inter"]) == 10 and len(row["neighbors_intra"]) in (0, 10) for row in rows)
    assert all(row["id"] not in [one["id"] for one in row["neighbors_inter"]] for row in rows)


@needs_shared
def test_hubness_of_the_published_neighbours_is_what_was_measured():
    """Ten pictures fill a third of all slots in Twitter-2017, and few pictures ever occur."""
    rows = [
        row["neighbors_inter"][:5]
        for file in AUTHORS_FILES.values()
        for row in read_relation_file(SHARED / "data" / "relations" / "twitter2017" / file)
    ]
    numbers = hubness(rows)
    assert numbers["distinct_pictures"] == 758 and numbers["slots"] == 5 * 4819
    assert numbers["top10_share"] == pytest.approx(0.32, abs=0.005)
    assert len(read_caption_file(SHARED / "data" / "captions" / "BLIP2_17.txt")) == 4819
