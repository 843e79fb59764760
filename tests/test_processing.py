"""What every registered system's processor does as those of transformers, and how often it reads what."""

import inspect

import numpy as np
import pytest
import torch
from conftest import tiny_tokenizer
from PIL import Image
from systems_under_test import SYSTEMS, make_model, make_processor, picture
from transformers import AutoProcessor, AutoTokenizer
from transformers.utils import logging

from modeling_umgf import MultimodalNerCollator, MultimodalNerPipeline, pipeline_multimodal_ner, systems
from modeling_umgf import processing_multimodal_ner as processing
from modeling_umgf.explanation import explain
from modeling_umgf.pictures import UnreadablePicture

TEXTS = ["Anna meets Bob Marley in Rome", "the cat"]
WORDS = [text.split() for text in TEXTS]
SEEING = [name for name in SYSTEMS if systems()[name].reads_pictures]
TAKING_FEATURES = [name for name in SYSTEMS if "object_features" in systems()[name].processor.columns]


@pytest.fixture(params=SYSTEMS)
def processor(request):
    return make_processor(request.param)


@pytest.fixture(params=SEEING)
def seeing(request):
    return make_processor(request.param)


@pytest.fixture(params=TAKING_FEATURES)
def taking_features(request):
    return make_processor(request.param)


def assert_same(one, two):
    assert one.keys() == two.keys()
    for name in one:
        torch.testing.assert_close(one[name], two[name])


# ----------------------------------------------------------------------------------------- arguments of the call


def test_every_argument_is_optional_and_pictures_come_first(processor):
    parameters = inspect.signature(processor.__call__).parameters
    assert list(parameters)[:2] == ["images", "text"]
    assert all(one.default is None for one in parameters.values() if one.kind is not one.VAR_KEYWORD)


def test_the_names_of_the_tensors_are_known(processor):
    batch = set(processor(text=TEXTS[0], images=picture(1)))
    of_columns = {"knowledge_features", "knowledge_mask"}  # come with a column of their own
    assert batch <= set(processor.model_input_names) <= batch | of_columns
    assert "pixel_values" not in processor(text=TEXTS[0])


def test_one_post_is_a_list_of_one(processor):
    columns = {"text": TEXTS[0], "images": picture(1), "labels": [0, 1, 2, 3, 4, 0]}
    given = {
        "id": "a",
        "objects": [{"box": [0, 0, 9, 9], "phrase": None}],
        "object_labels": ["cat"],
        "neighbors_inter": [{"id": "rome", "score": 0.5}],
    }
    columns |= {name: value for name, value in given.items() if name in processor.columns}
    assert_same(processor(**columns), processor(**{name: [value] for name, value in columns.items()}))


def test_a_picture_may_be_in_a_list_of_its_own(seeing):
    plain = seeing(text=TEXTS, images=[picture(1), None])
    assert_same(seeing(text=TEXTS, images=[[picture(1)], []]), plain)
    assert_same(seeing(text=TEXTS[0], images=[picture(1)]), seeing(text=TEXTS[0], image=picture(1)))
    with pytest.raises(ValueError, match="2 pictures: a post has one picture, or none"):
        seeing(text=TEXTS[0], images=[picture(1), picture(2)])


def test_pictures_may_be_one_array(seeing):
    pictures = np.stack([np.asarray(picture(1)), np.asarray(picture(2))])
    assert_same(seeing(text=TEXTS, images=pictures), seeing(text=TEXTS, images=[picture(1), picture(2)]))
    with pytest.raises(ValueError, match="2 posts but a single ndarray for images"):
        seeing(text=TEXTS, images=np.zeros((2, 9, 3), np.uint8))


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({}, "There are no words to read: give text=… "),
        ({"images": Image.new("RGB", (9, 9))}, "There are no words to read: give text=… "),
        ({"text": []}, "text is an empty list: there is no post to read"),
        ({"text": 5}, '"text" must be a string, not int'),
        ({"text": ["a", 5]}, 'Post 1 of the batch: "text" must be a string, not int'),
        ({"text": ["a", None]}, "Post 1 of the batch: the post has no text"),
        ({"text": [["a", "b"]]}, '"text" must be a string, not list'),
        ({"text": "a", "words": ["a"]}, "Give either text=… .raw. or words=… .already split., not both"),
        ({"words": "a b"}, '"words" must be a list of strings'),
        ({"words": [["a"], ["b", 5]]}, 'Post 1 of the batch: "words" must be a list of strings'),
        ({"words": ["a", ["b"]]}, 'Post 0 of the batch: "words" must be a list of strings'),
        ({"text": "half \ud83d"}, "half a character"),
        ({"text": ["a"], "images": Image.new("RGB", (9, 9))}, "1 post but a single Image for images: give a list"),
        ({"text": ["a", "b"], "images": [None]}, "2 posts but 1 for images: give a list with one entry a post"),
        ({"text": ["a", "b"], "images": "a.jpg"}, "2 posts but a single str for images"),
        ({"text": ["a", "b"], "labels": [[0]]}, "2 posts but 1 for labels"),
        ({"text": "a", "image": "a.jpg", "images": "a.jpg"}, "images and image are the same: give one of them"),
        ({"text": "a b", "labels": [0, 1, 2]}, r"^2 words but labels of shape \[3\]"),
        ({"text": "a b", "labels": [[0, 1]]}, r"^2 words but labels of shape \[1, 2\]"),
        ({"text": ["a", "b"], "labels": [[0], [0, 1]]}, r"^Post 1 of the batch: 1 words but labels of shape \[2\]"),
        ({"text": "a b", "labels": ["O", "O"]}, "^labels are not numbers"),
    ],
)
def test_wrong_input_is_one_clear_line(processor, arguments, message):
    with pytest.raises(ValueError, match=message):
        processor(**arguments)


@pytest.mark.parametrize(
    ("arguments", "name"),
    [
        ({"imgaes": None}, "imgaes"),
        ({"max_len": 9}, "max_len"),
        ({"objetcs": []}, "objetcs"),
        ({"grouder": None, "neighbours": []}, "grouder, neighbours"),
        ({"text_kwargs": {"paddin": True}}, "paddin"),
        ({"images_kwargs": {"siz": {}}}, "siz|images_kwargs"),
        ({"common_kwargs": {"return_tensor": "pt"}}, "return_tensor"),
        ({"return_offsets_mapping": True}, "return_offsets_mapping"),
        ({"videos": None}, "videos"),
    ],
)
def test_unknown_arguments_are_refused(processor, arguments, name):
    with pytest.raises(TypeError, match=f"{type(processor).__name__} has no argument ({name}); it reads images, text"):
        processor(text="a", **arguments)


def test_unknown_settings_are_refused(processor):
    parts = {name: getattr(processor, name) for name in processor.get_attributes()}
    with pytest.raises(TypeError, match="max_objectz"):
        type(processor)(**parts, max_objectz=3)


def test_unknown_describers_are_refused(processor):
    with pytest.raises(TypeError, match="describer"):
        processor.prepare([{"text": "a"}], describer=print)


# -------------------------------------------------------------------------------------------------------- options


def test_posts_are_padded_as_asked(processor):
    longest = processor(text=TEXTS)
    sizes = longest["attention_mask"].sum(1).tolist()
    assert longest["input_ids"].shape == (2, sizes[0])
    assert_same(processor(text=TEXTS, padding="longest"), longest)
    assert processor(text=TEXTS, padding="max_length", max_length=40)["input_ids"].shape == (2, 40)
    assert processor(text=TEXTS, padding="max_length")["input_ids"].shape == (2, processor.tokenizer.model_max_length)
    assert processor(text=TEXTS, pad_to_multiple_of=32)["attention_mask"].shape == (2, 32)
    assert processor(text=TEXTS[1], padding=False)["input_ids"].shape == (1, sizes[1])
    with pytest.raises(ValueError, match=f"Posts of {sizes[1]} to {sizes[0]} pieces need padding=True"):
        processor(text=TEXTS, padding=False)
    processor.tokenizer.model_max_length = int(1e30)
    with pytest.raises(ValueError, match="give max_length"):
        processor(text=TEXTS, padding="max_length")


def test_padding_goes_to_the_side_that_is_asked_for_and_word_starts_with_it(processor):
    right, left = processor(text=TEXTS), processor(text=TEXTS, padding_side="left")
    for i, words in enumerate(WORDS):
        first = [batch["input_ids"][i, batch["word_starts"][i, : len(words)]].tolist() for batch in (right, left)]
        assert first[0] == first[1]
    assert left["attention_mask"][1].tolist() == right["attention_mask"][1].tolist()[::-1]
    assert left["word_starts"][1].tolist()[2:] == [-1] * 4
    processor.tokenizer.padding_side = "left"
    assert_same(processor(text=TEXTS), left)


def test_long_posts_are_cut_with_a_warning_unless_nobody_wants_that(processor, caplog):
    logging.enable_propagation()
    cut = processor(text="cat " * 9, max_length=6)
    logging.disable_propagation()
    assert cut["input_ids"].shape == (1, 6)
    assert cut["input_ids"][0, -1] == processor.tokenizer.sep_token_id
    assert cut["word_starts"].tolist() == [[1, 2, 3, 4] + [-1] * 5]
    assert "is longer than the 6 pieces that are read: its last 5 words get no label" in caplog.text
    assert processor(text="cat " * 9, max_length=6, truncation=False)["input_ids"].shape == (1, 11)
    assert processor(text="cat " * 9, max_length=1)["input_ids"].shape == (1, 1)


def test_a_batch_may_be_arrays(processor):
    arrays, tensors = processor(text=TEXTS, return_tensors="np"), processor(text=TEXTS, return_tensors="pt")
    assert all(isinstance(one, np.ndarray) for one in arrays.values())
    assert_same({name: torch.from_numpy(one) for name, one in arrays.items()}, tensors)
    for kind in ("mlx", "tf"):
        with pytest.raises(ValueError, match=kind):
            processor(text=TEXTS, return_tensors=kind)


def test_options_may_be_in_groups_but_not_twice(processor):
    grouped = processor(text=TEXTS, text_kwargs={"padding": "max_length", "max_length": 40}, return_tensors="pt")
    assert_same(grouped, processor(text=TEXTS, padding="max_length", max_length=40))
    with pytest.raises(ValueError, match="passed two times"):
        processor(text=TEXTS, text_kwargs={"padding": True}, padding="max_length")


def test_options_of_the_image_processor_reach_it(seeing):
    arguments = {"text": TEXTS[0], "images": picture(1)}
    small = seeing(**arguments, size={"height": 8, "width": 16})
    assert small["pixel_values"].shape == (1, 1, 3, 8, 16)
    assert_same(seeing(**arguments, images_kwargs={"size": {"height": 8, "width": 16}}), small)
    assert seeing(**arguments, rescale_factor=-1.0, do_normalize=False)["pixel_values"].max() <= 0
    assert seeing(**arguments)["pixel_values"].shape == (1, 1, 3, 32, 32)


def test_settings_of_the_tokenizer_are_defaults_of_the_call(processor):
    tokenizer = type(processor.tokenizer)(
        tokenizer_object=tiny_tokenizer()._tokenizer, padding="max_length", model_max_length=30, pad_token="[PAD]"
    )
    processor.tokenizer = tokenizer
    assert processor(text=TEXTS)["input_ids"].shape == (2, 30)
    assert processor(text=TEXTS, max_length=25)["input_ids"].shape == (2, 25)


def test_how_a_tokenizer_was_last_used_does_not_cut_posts_that_the_encoder_reads_whole(processor, tmp_path):
    tokenizer = tiny_tokenizer()
    tokenizer._tokenizer.enable_truncation(6)
    tokenizer.save_pretrained(tmp_path)
    processor.tokenizer = AutoTokenizer.from_pretrained(tmp_path)
    assert processor.tokenizer.init_kwargs["max_length"] == 6 < processor.tokenizer.model_max_length
    assert processor(text="cat " * 9)["input_ids"].shape == (1, 11)
    assert processor.count_pieces([{"tokens": ["cat"] * 9}]) == [11]
    processor.save_pretrained(tmp_path / "saved")
    assert AutoProcessor.from_pretrained(tmp_path / "saved")(text="cat " * 9)["input_ids"].shape == (1, 11)


# -------------------------------------------------------------------------------------------------- save and load


def test_saved_and_loaded_it_is_the_same(processor, tmp_path):
    post = {"text": TEXTS[0], "images": picture(1)}
    before = processor.to_dict()
    processor.save_pretrained(tmp_path / "saved")
    for loaded in (
        type(processor).from_pretrained(tmp_path / "saved"),
        AutoProcessor.from_pretrained(tmp_path / "saved"),
    ):
        assert type(loaded) is type(processor)
        assert loaded.to_dict() == processor.to_dict()
        assert_same(loaded(**post), processor(**post))
        loaded.save_pretrained(tmp_path / "again")
        assert type(loaded).from_pretrained(tmp_path / "again").to_dict() == loaded.to_dict()
    assert before.keys() == processor.to_dict().keys()


def test_settings_may_be_changed_while_loading(seeing, tmp_path):
    seeing.save_pretrained(tmp_path)
    loaded = type(seeing).from_pretrained(tmp_path, do_normalize=False, sep_token="(SEP)")
    assert not loaded.image_processor.do_normalize
    assert loaded.tokenizer.sep_token == "(SEP)"


# --------------------------------------------------------------------------------------- features of the pictures


@pytest.mark.parametrize("shape", [(4,), (1, 1, 2, 4), (2, 0), ()])
def test_features_of_a_wrong_shape_are_refused(taking_features, shape):
    with pytest.raises(ValueError, match=r"^object_features of shape .* give \[objects, width\] or"):
        taking_features(text=TEXTS[0], object_features=np.ones(shape))
    with pytest.raises(ValueError, match="^Post 1 of the batch: object_features of shape"):
        taking_features(text=TEXTS, object_features=[None, np.ones(shape)])


@pytest.mark.parametrize("features", [[[1.0, 2.0], [3.0]], [["a"]], {"a": 1}])
def test_features_that_are_no_numbers_are_refused(taking_features, features):
    with pytest.raises(ValueError, match="^object_features are not numbers of one shape"):
        taking_features(text=TEXTS[0], object_features=features)


def test_features_of_different_widths_are_no_batch(taking_features):
    apart = r"object_features of these posts don't fit together: \[16\] \(post 0\) and \[5\] \(post 1\) each"
    elsewhere = "a vector of width 16 in this relation index, not 5"
    with pytest.raises(ValueError, match=f"{apart}|{elsewhere}"):
        taking_features(text=TEXTS, object_features=[np.ones((1, 16)), np.ones((1, 5))])


def test_no_features_are_no_nodes(taking_features):
    batch = taking_features(text=TEXTS, object_features=[[], np.ones((2, 16))])
    assert batch["object_mask"].tolist() == [[False, False], [True, True]]
    assert "object_features" not in taking_features(text=TEXTS[0], object_features=[])


# ------------------------------------------------------------------------------------------ how often what is read


@pytest.fixture
def files(tmp_path):
    """Two posts with the files of their pictures."""
    for i in range(2):
        picture(i).save(tmp_path / f"{i}.png")
    return [{"id": str(i), "words": WORDS[i], "image": tmp_path / f"{i}.png"} for i in range(2)]


@pytest.fixture
def opened(monkeypatch):
    """The pictures that are opened while the test runs, by processors, and the files that Pillow reads."""
    calls = {"pictures": [], "files": []}
    open_picture, open_file = processing.open_picture, Image.open

    def counted_picture(source):
        calls["pictures"].append(source)
        return open_picture(source)

    def counted_file(*arguments, **settings):
        calls["files"].append(arguments)
        return open_file(*arguments, **settings)

    for module in (processing, pipeline_multimodal_ner):
        monkeypatch.setattr(module, "open_picture", counted_picture)
    monkeypatch.setattr(Image, "open", counted_file)
    return calls


def make_describers(processor) -> tuple[dict, list]:
    """Functions for all that the processor can ask, and a list of how many posts each call was about."""
    calls = []

    def describe(*columns):
        assert all(isinstance(picture, Image.Image) for picture in columns[-1])
        calls.append(len(columns[-1]))
        return [[] for _ in columns[-1]]

    return dict.fromkeys(processor.describers, describe), calls


def test_a_picture_is_opened_once_and_never_by_a_text_tagger(processor, files, opened):
    describers, calls = make_describers(processor)
    processor.batch(processor.prepare(files, **describers))
    number = 2 if processor.reads_pictures else 0
    assert len(opened["pictures"]) == len(opened["files"]) == number
    assert calls == [2] * len(processor.describers)


def test_a_picture_is_opened_once_by_the_collator(processor, files, opened):
    rows = [{"id": post["id"], "tokens": post["words"], "ner_tags": [0] * len(post["words"])} for post in files]
    for row, post in zip(rows, files, strict=True):
        row["image"] = {"bytes": post["image"].read_bytes(), "path": None}
    MultimodalNerCollator(processor)(rows)
    number = 2 if processor.reads_pictures else 0
    assert len(opened["pictures"]) == len(opened["files"]) == number


@pytest.mark.parametrize("model_type", SYSTEMS)
def test_a_picture_is_opened_once_by_pipeline_and_explanation(model_type, files, opened):
    model, processor = make_model(model_type), make_processor(model_type)
    describers, calls = make_describers(processor)
    number = 2 if processor.reads_pictures else 0
    tagger = MultimodalNerPipeline(model, processor=processor, device="cpu")
    for batch_size in (1, 2):
        opened["pictures"].clear()
        opened["files"].clear()
        calls.clear()
        assert not any("error" in result for result in tagger(files, batch_size=batch_size, **describers))
        assert len(opened["pictures"]) == len(opened["files"]) == number
        assert calls == [1, 1] * len(describers)
    opened["pictures"].clear()
    calls.clear()
    explain(model, processor, words=WORDS[0], image=files[0]["image"], **describers)
    assert len(opened["pictures"]) == number / 2
    assert calls == [1] * len(describers)


def test_an_unreadable_picture_is_named_with_its_post_and_no_matter_to_a_text_tagger(processor, tmp_path):
    arguments = {"text": TEXTS, "images": [None, tmp_path / "absent.jpg"]}
    if not processor.reads_pictures:
        assert_same(processor(**arguments), processor(text=TEXTS))
        return
    with pytest.raises(UnreadablePicture, match="^Post 1 of the batch: .*absent.jpg: no such file") as caught:
        processor(**arguments)
    assert caught.value.reason == "no such file"
    with pytest.raises(UnreadablePicture, match="^/.*absent.jpg: no such file"):
        processor(text=TEXTS[0], images=tmp_path / "absent.jpg")
