"""Words, pictures and neighbours → batch."""

import io
import os
import shutil

import numpy as np
import pytest
import torch
from conftest import tiny_tokenizer
from datasets import Dataset, DatasetDict, load_dataset
from PIL import Image
from systems_under_test import relation_index
from test_modeling_rgcn import make, rgcn_config
from transformers import AutoModelForTokenClassification, AutoProcessor

from dataset_scripts.build_relations import build_relations
from dataset_scripts.columns.contract import dataset_features
from modeling_umgf import HashingEncoder, RelationIndex, RgcnProcessor, UmgfImageProcessor
from modeling_umgf.data_collator import MultimodalNerCollator
from modeling_umgf.describer import load_once
from modeling_umgf.descriptors import ObjectLabeler
from modeling_umgf.pictures import content_hash
from modeling_umgf.relation_index import RelationIndexError

IDS = ["beach", "stadium", "park", "copy"]
CAPTIONS = ["a dog on a beach", "a stadium at night", "a dog in a park", "a dog on a beach"]
LABELS = [["dog"], ["person", "ball"], ["dog", "tree"], ["dog"]]


def picture(seed: int) -> Image.Image:
    return Image.fromarray(np.random.default_rng(seed).integers(0, 256, (40, 30, 3), dtype=np.uint8))


PICTURES = [picture(0), picture(1), picture(2), picture(0)]


@pytest.fixture
def index() -> RelationIndex:
    return RelationIndex(
        IDS,
        captions=CAPTIONS,
        object_labels=LABELS,
        features=torch.arange(1.0, 4 * 16 * 16 + 1).reshape(4, 16, 16) / 256,
        content_hashes=[content_hash(one) for one in PICTURES],
        encoder=HashingEncoder(256),
        hubness="none",
    )


@pytest.fixture
def processor(index) -> RgcnProcessor:
    return RgcnProcessor(UmgfImageProcessor(size={"height": 32, "width": 32}), tiny_tokenizer(), index, k=3)


def row_of(index, name):
    return index.features_of([name])[0]


def test_a_new_post_gets_its_neighbours_from_the_index(processor, index):
    batch = processor(text="look at this stadium http://t.co/x", images=picture(7), object_labels=["tree", "dog"])
    assert batch["pixel_values"].shape == (1, 1, 3, 32, 32) and batch["object_mask"].tolist() == [[True]]
    assert batch["inter_neighbor_features"].shape == (1, 3, 16, 16)
    assert batch["inter_neighbor_mask"][0, 0] and batch["inter_neighbor_scores"][0, 0] > 0.3
    assert torch.equal(batch["inter_neighbor_features"][0, 0], row_of(index, "stadium"))
    assert batch["intra_neighbor_mask"].tolist() == [[True, True, True]]
    assert torch.equal(batch["intra_neighbor_features"][0, 0], row_of(index, "park"))
    assert batch["intra_neighbor_scores"][0].tolist() == pytest.approx([1, 0.5**0.5, 0.5**0.5])
    assert "inter_modal_mask" not in batch


def test_words_and_text_find_the_same(processor):
    by_words = processor(words=["a", "dog", "in", "the", "park"])
    by_text = processor(text="a dog in the park")
    assert by_words.keys() == by_text.keys()
    assert all(torch.equal(by_words[name], by_text[name]) for name in by_text)
    assert not by_text["intra_neighbor_mask"].any()  # nobody named the objects


def test_given_neighbours_are_taken_as_they_are_best_first(processor, index):
    given = [{"id": "park", "score": 0.2}, {"id": "copy", "score": 0.9}, {"id": "beach", "score": 0.0}]
    batch = processor(words=["stadium"], neighbors_inter=given, neighbors_intra=[])
    assert batch["inter_neighbor_scores"][0].tolist() == pytest.approx([0.9, 0.2, 0])
    assert batch["inter_neighbor_mask"].tolist() == [[True, True, False]]  # a score of 0 is no neighbour
    assert torch.equal(batch["inter_neighbor_features"][0, 1], row_of(index, "park"))
    assert not batch["inter_neighbor_features"][0, 2].any()
    assert not batch["intra_neighbor_mask"].any()


def test_more_than_k_neighbours_are_cut_to_the_best(processor):
    given = [{"id": name, "score": 0.1 * i} for i, name in enumerate(IDS, start=1)]
    batch = processor(words=["x"], neighbors_inter=given)
    assert batch["inter_neighbor_scores"][0].tolist() == pytest.approx([0.4, 0.3, 0.2])


def test_in_a_batch_only_missing_neighbours_are_looked_up(processor):
    posts = [["a", "dog"], ["a", "dog"], ["a", "stadium"]]
    batch = processor(words=posts, images=[None] * 3, neighbors_inter=[None, [], None])
    alone = [processor(words=own, neighbors_inter=given) for own, given in zip(posts, [None, [], None], strict=True)]
    for name in ("features", "scores", "mask"):
        rows = torch.cat([one[f"inter_neighbor_{name}"] for one in alone])
        assert torch.equal(batch[f"inter_neighbor_{name}"], rows)
    assert batch["inter_neighbor_mask"].any(1).tolist() == [True, False, True]
    assert "pixel_values" not in batch


def test_neither_the_own_picture_nor_a_copy_is_found(processor):
    text = "a dog on a beach"
    found = processor(text=text)["inter_neighbor_scores"][0]
    assert (found > 0.99).sum() == 2  # "beach" and "copy"
    by_name = processor(text=text, id="beach")["inter_neighbor_scores"][0]
    by_picture = processor(text=text, images=np.asarray(picture(0)))["inter_neighbor_scores"][0]
    assert by_name.max() < 0.99 and torch.equal(by_name, by_picture)
    labels = processor(text=text, images=picture(0), object_labels=["dog"])["intra_neighbor_scores"][0]
    assert labels.tolist() == pytest.approx([0.5**0.5, 0, 0])


def test_labels_of_objects_may_be_one_text_as_in_csv(processor):
    one, other = (processor(text="a dog", object_labels=labels) for labels in (["dog", "hot dog"], "dog, hot dog,"))
    assert torch.equal(one["intra_neighbor_scores"], other["intra_neighbor_scores"])
    assert one["intra_neighbor_mask"].any()


def test_a_labeler_names_the_objects_that_are_not_given(processor):
    asked = []

    def labeler(pictures):
        asked.extend(pictures)
        return [["ball", "person"] for _ in pictures]

    batch = processor(
        words=[["x"]] * 3, images=[picture(5), picture(6), None], object_labels=[None, ["tree"], None], labeler=labeler
    )
    assert len(asked) == 1 and asked[0].size == (30, 40)
    assert batch["intra_neighbor_mask"].tolist() == [[True, False, False], [True, False, False], [False] * 3]


def test_features_instead_of_a_picture(processor):
    batch = processor(words=[["x"], ["y"]], object_features=[np.ones((16, 16)), None])
    assert batch["object_features"].shape == (2, 16, 16) and batch["object_mask"].sum(1).tolist() == [16, 0]


def test_without_index_there_are_no_neighbours(processor):
    bare = RgcnProcessor(processor.image_processor, processor.tokenizer)
    batch = bare(words=["x"], images=picture(0), neighbors_inter=[])
    assert not any("neighbor" in name for name in batch)
    with pytest.raises(ValueError, match="no relation index"):
        bare(words=["x"], neighbors_inter=[{"id": "beach", "score": 1.0}])


def test_an_index_of_one_kind_answers_one_kind(processor):
    processor.relation_index = RelationIndex(["a"], object_labels=[["dog"]], features=torch.ones(1, 1, 4))
    processor.k = 1
    batch = processor(text="a dog", object_labels=["dog"])
    assert not batch["inter_neighbor_mask"].any() and batch["intra_neighbor_mask"].all()


def test_wrong_input_is_one_clear_line(processor):
    with pytest.raises(RelationIndexError, match="'moon' is not in the relation index"):
        processor(words=["x"], neighbors_inter=[{"id": "moon", "score": 1.0}])
    with pytest.raises(ValueError, match="2 posts but 1 for neighbors_intra"):
        processor(words=[["x"], ["y"]], neighbors_intra=[[]])
    processor.k = 5
    with pytest.raises(RelationIndexError, match="k=5 is more than the pool's 4 pictures"):
        processor(words=["x"])


@pytest.mark.parametrize(
    "given", [{"id": "park", "score": 1.0}, [{"id": "park"}], ["park"], [{"id": None, "score": 1}]]
)
def test_neighbours_that_are_none_are_refused(processor, given):
    with pytest.raises(ValueError, match="^neighbors_inter must be a list of"):
        processor(words=["x"], neighbors_inter=given)
    with pytest.raises(ValueError, match="^Post 1 of the batch: neighbors_inter must be a list of"):
        processor(words=[["x"], ["y"]], neighbors_inter=[[], given])


@pytest.mark.parametrize("k", [-1, 2.5])
def test_a_number_of_neighbours_that_cannot_be_is_refused(k):
    with pytest.raises(ValueError, match="the number of neighbours is a whole number"):
        RgcnProcessor(tokenizer=tiny_tokenizer(), k=k)


def test_neighbours_are_looked_up_once_a_batch_and_only_where_they_are_not_given(processor, monkeypatch):
    asked = []
    find_neighbors = RelationIndex.find_neighbors

    def counted(index, texts, *arguments, **more):
        asked.append(texts)
        return find_neighbors(index, texts, *arguments, **more)

    def labeler(pictures):
        asked.append(len(pictures))
        return [["dog"] for _ in pictures]

    monkeypatch.setattr(RelationIndex, "find_neighbors", counted)
    pictures = [picture(5), picture(6), picture(7)]
    posts = {"words": [["x"], ["y"], ["z"]], "images": pictures, "neighbors_inter": [None, [], []], "labeler": labeler}
    processor(**posts, neighbors_intra=[None, None, []])
    assert asked == [2, ["x", "y"]]
    asked.clear()
    processor(words=["x"], images=picture(5), neighbors_inter=[], neighbors_intra=[], labeler=labeler)
    assert asked == []


def similar(seed: int, likeness: float) -> Image.Image:
    """A picture that is more or less like picture 0."""
    mixed = likeness * np.asarray(picture(0)) + (1 - likeness) * np.asarray(picture(seed))
    return Image.fromarray(mixed.astype(np.uint8))


def file_of(image: Image.Image, kind: str) -> bytes:
    content = io.BytesIO()
    image.save(content, kind)
    return content.getvalue()


@pytest.mark.parametrize("kind", ["PNG", "JPEG"])
def test_a_new_post_has_the_neighbours_that_it_had_in_training(tmp_path, kind):
    """Serving once ordered equally good pictures by name, training by looks; and copies were not always known."""
    images = {"far": picture(1), "near": similar(2, 0.5), "nearer": similar(3, 0.8), "copy": picture(0)}
    rows = []
    for name, image in images.items():
        row = {"id": name, "tokens": ["a", "dog"], "ner_tags": [0, 0], "caption": "a dog", "object_labels": ["dog"]}
        rows.append(row | {"image": {"bytes": file_of(image, kind), "path": None}})
    own = rows[-1] | {"id": "own", "caption": "something else"}
    features = dataset_features(["O", "B-PER"], ("caption", "object_labels"))
    splits = {"train": Dataset.from_list(rows, features), "test": Dataset.from_list([own], features)}
    build_relations(DatasetDict(splits), tmp_path, HashingEncoder(64), features="caption", k=3, hubness="none")
    (row,) = load_dataset(str(tmp_path / "dataset"), split="test")
    trained = [[one["id"] for one in row[f"neighbors_{relation}"]] for relation in ("inter", "intra")]
    assert trained == [["nearer", "near", "far"]] * 2

    processor = RgcnProcessor(UmgfImageProcessor(), tiny_tokenizer(), tmp_path / "relation_index", k=3)
    content = own["image"]["bytes"]
    with Image.open(io.BytesIO(content)) as opened:
        sources = [content, opened, np.asarray(opened), file_of(opened.convert("RGB"), "PNG"), row["image"]]
    posts = [{"tokens": row["tokens"], "image": source, "object_labels": ["dog"]} for source in sources]
    for post in processor.prepare(posts):
        assert [[one["id"] for one in post.nodes[relation]] for relation in ("inter", "intra")] == trained


def test_the_collator_reads_the_columns_of_a_dataset(processor):
    rows = [
        {"id": "beach", "tokens": ["a", "dog"], "ner_tags": [0, 1], "image": picture(0), "neighbors_inter": None},
        {
            "id": "new",
            "tokens": ["x"],
            "ner_tags": [0],
            "image": None,
            "neighbors_inter": [{"id": "park", "score": 1.0}],
        },
    ]
    batch = MultimodalNerCollator(processor)(rows)
    assert batch["labels"].tolist() == [[0, 1], [0, -100]]
    assert batch["object_mask"].tolist() == [[True], [False]]
    assert batch["inter_neighbor_mask"][1].tolist() == [True, False, False]
    output = make()(**batch)
    assert torch.isfinite(output.loss) and output.predictions[1].tolist()[1] == -100


def test_a_saved_folder_tags_a_new_post_by_itself(processor, tmp_path):
    model = make()
    post = {"text": "a dog in the stadium", "images": picture(9), "object_labels": ["dog"]}
    expected = model(**processor(**post)).logits
    model.save_pretrained(tmp_path / "model")
    processor.save_pretrained(tmp_path / "model")
    moved = shutil.move(tmp_path / "model", tmp_path / "elsewhere")
    loaded = AutoProcessor.from_pretrained(moved)
    assert loaded.k == 3 and len(loaded.relation_index) == 4
    result = AutoModelForTokenClassification.from_pretrained(moved)(**loaded(**post)).logits
    torch.testing.assert_close(result, expected)


def test_a_saved_processor_can_be_given_another_index(processor, tmp_path):
    processor.save_pretrained(tmp_path / "model")
    RelationIndex(["a"], features=torch.ones(1, 2, 4)).save_pretrained(tmp_path / "other")
    loaded = RgcnProcessor.from_pretrained(tmp_path / "model", relation_index=tmp_path / "other", k=1)
    assert loaded.relation_index.ids == ["a"] and loaded.k == 1


def test_saving_again_and_again_does_not_copy_the_index(processor, tmp_path):
    processor.save_pretrained(tmp_path / "model")
    loaded = AutoProcessor.from_pretrained(tmp_path / "model")
    loaded.save_pretrained(tmp_path / "checkpoint-1")
    files = [tmp_path / name / "relation_index" / "features.safetensors" for name in ("model", "checkpoint-1")]
    assert os.path.samefile(*files)


def test_a_saved_folder_whose_index_is_gone_says_so(processor, tmp_path):
    processor.save_pretrained(tmp_path)
    shutil.rmtree(tmp_path / "relation_index")
    with pytest.raises(ValueError, match="no relation index"):
        AutoProcessor.from_pretrained(tmp_path)


def test_a_processor_without_index_is_saved_and_loaded(processor, tmp_path):
    processor.relation_index = None
    processor.save_pretrained(tmp_path)
    assert AutoProcessor.from_pretrained(tmp_path).relation_index is None


def test_configuration_has_the_width_of_its_text_encoder():
    assert rgcn_config().hidden_size == 16


def test_pictures_without_labels_are_labelled_as_the_training_data_were(monkeypatch):
    asked = []

    def from_pretrained(name, revision=None, **settings):
        asked.append((name, settings))
        return lambda pictures: [["guitar"]] * len(pictures)

    monkeypatch.setattr(ObjectLabeler, "from_pretrained", from_pretrained)
    load_once.cache_clear()
    processor = RgcnProcessor(tokenizer=tiny_tokenizer(), relation_index=relation_index(), k=2)
    post = {"text": "Anna", "image": Image.new("RGB", (40, 30), "red")}
    assert processor.prepare([post])[0].nodes["intra"] == []
    processor.remember_sources(["object_labels"], {"object_labels": {"labeler": "owner/labeler", "min_score": 0.4}})
    assert [one["id"] for one in processor.prepare([post])[0].nodes["intra"]] == ["bob"]
    assert processor.prepare([post | {"object_labels": None}])[0].nodes["intra"] == []
    assert asked == [("owner/labeler", {"min_score": 0.4})]
    load_once.cache_clear()
