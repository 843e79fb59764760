"""Posts that the model sees at once."""

import weakref

import pytest
import torch
from conftest import assert_same, tiny_config, tiny_labels

from modeling_umgf import MultimodalNerPipeline, TextOnlyConfig, TextOnlyForTokenClassification, TextOnlyProcessor
from modeling_umgf.batching import SortedWindows, alike, stack

pytest_plugins = ("tiny_taggers",)


def post(pieces: int, words: int, **tensors) -> dict[str, torch.Tensor]:
    text = {
        "input_ids": torch.arange(1, pieces + 1),
        "attention_mask": torch.ones(pieces, dtype=torch.long),
        "word_starts": torch.arange(words),
    }
    return text | tensors


def test_every_tensor_is_padded_with_what_says_that_there_is_nothing():
    one = post(3, 2, labels=torch.tensor([1, 2]), object_mask=torch.ones(2, dtype=torch.bool))
    two = post(2, 1, labels=torch.tensor([3]), object_mask=torch.ones(1, dtype=torch.bool))
    batch = stack([one, two], pad_token_id=9)
    assert batch["input_ids"].tolist() == [[1, 2, 3], [1, 2, 9]]
    assert batch["attention_mask"].tolist() == [[1, 1, 1], [1, 1, 0]]
    assert batch["word_starts"].tolist() == [[0, 1], [0, -1]]
    assert batch["labels"].tolist() == [[1, 2], [3, -100]]
    assert batch["object_mask"].tolist() == [[True, True], [True, False]]


def test_the_text_may_be_padded_on_the_left_and_to_more_pieces():
    batch = stack([post(3, 2), post(2, 1)], padding_side="left", length=4)
    assert batch["input_ids"].tolist() == [[0, 1, 2, 3], [0, 0, 1, 2]]
    assert batch["attention_mask"].tolist() == [[0, 1, 1, 1], [0, 0, 1, 1]]
    assert batch["word_starts"].tolist() == [[1, 2], [2, -1]]


def test_what_only_some_posts_have_is_nothing_in_the_others():
    features = torch.ones(2, 5)
    batch = stack([post(1, 1), post(1, 1, object_features=features)])
    assert batch["object_features"].shape == (2, 2, 5)
    assert not batch["object_features"][0].any()


def test_masks_grow_in_both_directions():
    small, large = torch.ones(1, 2, dtype=torch.bool), torch.ones(2, 1, dtype=torch.bool)
    batch = stack([post(1, 1, inter_modal_mask=small), post(2, 2, inter_modal_mask=large)])
    assert batch["inter_modal_mask"].tolist() == [[[True, True], [False, False]], [[True, False], [True, False]]]


def test_what_is_empty_in_all_posts_is_left_out():
    assert "object_mask" not in stack([post(1, 1, object_mask=torch.ones(0, dtype=torch.bool))])


def test_tensors_of_different_encoders_are_no_batch():
    posts = [post(1, 1, pixel_values=torch.ones(1, 3, size, size)) for size in (8, 8, 16)]
    message = r"pixel_values of these posts don't fit together: \[3, 8, 8\] \(post 0\) and \[3, 16, 16\] \(post 2\)"
    with pytest.raises(ValueError, match=message):
        stack(posts)


def test_types_are_kept():
    batch = stack([post(1, 1, object_features=torch.ones(1, 2, dtype=torch.float16))])
    assert batch["object_features"].dtype == torch.float16
    assert batch["word_starts"].dtype == torch.long


def sorted_windows(items, batch_size: int, first_window: int, window: int, **settings) -> SortedWindows:
    return SortedWindows(items, batch_size, first_window, window, size=lambda item: (item,), **settings)


@pytest.mark.parametrize("batch_size", [1, 2, 3, 7])
@pytest.mark.parametrize("window", [1, 4, 100])
def test_results_come_in_the_order_of_the_items_whatever_the_windows(batch_size, window):
    items = [5, 3, 8, 1, 9, 2, 7, 7, 4, 6]
    for first_window in (1, 2, window):
        windows = sorted_windows(items, batch_size, first_window, window)
        results = windows.in_order(10 * item for batch in windows for item in batch)
        assert list(results) == [10 * item for item in items]


def test_items_of_like_size_share_a_batch_within_a_window():
    assert list(sorted_windows([5, 3, 8, 1, 9, 2], 2, 4, 4)) == [[5, 8], [1, 3], [2, 9]]


def test_large_batches_end_before_they_are_mostly_padding():
    lengths = [8] * 60 + [9] * 40 + [50] * 3
    assert [len(batch) for batch in alike(lengths, 128)] == [60, 40, 3]
    assert [len(batch) for batch in alike(lengths, 32)] == [32, 32, 32, 7]
    assert [len(batch) for batch in alike([1, 100], 8)] == [2]  # small batches cost more than their padding


def test_windows_grow():
    windows = sorted_windows(range(14, 0, -1), 1, 2, 4)
    assert [own for (own,) in windows] == [14, 13, 12, 11, 10, 9, 8, 7, 6, 5, 4, 3, 2, 1]
    read = []
    windows = sorted_windows(range(14), 2, 2, 4, prepare=lambda own: read.append(len(own)) or own)
    assert [item for batch in windows for item in batch] == list(range(14))
    assert read == [2, 4, 4, 4, 0]


def test_items_are_prepared_a_window_at_a_time():
    windows = sorted_windows(range(5), 2, 3, 3, prepare=lambda own: [-item for item in own])
    assert list(windows) == [[0], [-2, -1], [-4, -3]]


def test_the_first_result_needs_one_batch():
    windows = sorted_windows([5, 3, 8, 1], 1, 4, 4)
    tagged = []
    results = windows.in_order(tagged.append(item) or item for batch in windows for item in batch)
    assert next(results) == 5
    assert tagged == [5]


def test_no_more_of_a_stream_is_read_than_is_needed():
    read = []

    def stream():
        for item in range(100):
            read.append(item)
            yield item

    windows = sorted_windows(stream(), 2, 4, 8)
    results = windows.in_order(item for batch in windows for item in batch)
    assert next(results) == 0
    assert len(read) == 4
    assert [next(results) for _ in range(4)] == [1, 2, 3, 4]
    assert len(read) == 12


def test_items_are_let_go_as_soon_as_they_are_handed_out():
    class Post:
        pass

    posts = [Post() for _ in range(4)]
    alive = [weakref.ref(post) for post in posts]
    batches = iter(SortedWindows((posts.pop() for _ in range(4)), 1, 4, 4, size=lambda post: (id(post),)))
    (first,) = next(batches)
    del first
    assert sum(post() is not None for post in alive) == 3


# -------------------------------------------------------------------------------------------- through the pipeline


@pytest.fixture
def text_tagger(random_model, tagger):
    config = TextOnlyConfig(**tiny_labels(), text_config=tiny_config().text_config.to_dict())
    processor = TextOnlyProcessor(tagger.processor.tokenizer)
    return MultimodalNerPipeline(
        random_model(config, TextOnlyForTokenClassification), processor=processor, device="cpu"
    )


TEXTS = ["Anna " * (7 * i % 13 + 1) + "meets Bob" for i in range(24)]


def test_words_of_a_window_are_tokenised_in_one_call(text_tagger, monkeypatch):
    asked = []
    pieces = text_tagger.processor._pieces
    monkeypatch.setattr(text_tagger.processor, "_pieces", lambda words: asked.append(len(words)) or pieces(words))
    results = text_tagger(TEXTS, batch_size=4)
    assert asked == [24]
    asked.clear()
    assert_same(list(text_tagger((text for text in TEXTS), batch_size=4)), results)
    assert asked == [16, 8]
    assert_same([text_tagger(text) for text in TEXTS], results)


def test_posts_of_as_many_pieces_share_a_batch(text_tagger):
    shapes = []
    hook = text_tagger.model.register_forward_pre_hook(
        lambda module, arguments, inputs: shapes.append(inputs["attention_mask"].shape[1]), with_kwargs=True
    )
    text_tagger(TEXTS, batch_size=2)
    hook.remove()
    pieces = sorted(len(text_tagger.preprocess(text).features["input_ids"]) for text in TEXTS)
    assert sorted(shapes) == pieces[1::2]


def test_a_post_that_the_tokenizer_fails_on_has_the_error_alone(text_tagger, monkeypatch):
    pieces = text_tagger.processor._pieces

    def fails_on_rome(words):
        if any("Rome" in post for post in words):
            raise RuntimeError("no Rome")
        return pieces(words)

    good = text_tagger(["Anna meets Bob"])
    monkeypatch.setattr(text_tagger.processor, "_pieces", fails_on_rome)
    results = text_tagger(["Anna meets Bob", "Rome", 7, "Anna meets Bob"], batch_size=4)
    assert_same([results[0], results[3]], good * 2)
    assert results[1] == {"error": "RuntimeError: no Rome"}
    assert "a post is a string" in results[2]["error"]


def test_workers_give_the_results_of_this_process(tagger, picture):
    posts = [{"text": text} | ({"image": picture} if i % 3 else {}) for i, text in enumerate(TEXTS)]
    posts[5]["image"] = "no/such/picture.jpg"
    results = tagger(posts, batch_size=4)
    assert "error" in results[5]
    assert_same(tagger(posts, batch_size=4, num_workers=2), results)
