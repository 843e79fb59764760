"""What captions tell about the types of names: what is told is found, what is not is not, and by no post itself."""

import numpy as np
import pytest
from datasets import Dataset

pytest.importorskip("sklearn")

from benchmarks.what_captions_tell import TYPES, cross_validated, scores, vectors_of_captions, vectors_of_kinds

NAMES, POSTS = 400, 150


@pytest.fixture
def names() -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """The types of names, their posts, and what the words tell of some of them."""
    rng = np.random.default_rng(0)
    types = rng.integers(len(TYPES), size=NAMES)
    words = np.where(rng.random((NAMES, 1)) < 0.7, np.eye(len(TYPES))[types], 0.25)
    return types, rng.integers(POSTS, size=NAMES), words


def test_a_vector_that_tells_the_type_saves_bits_and_one_of_noise_does_not(names):
    types, posts, words = names
    rng = np.random.default_rng(1)
    by_words = cross_validated(words, types, posts)
    telling = rng.normal(size=(NAMES, 8)) + 4 * np.eye(len(TYPES), 8)[types]
    told = scores(cross_validated(np.hstack([words, telling]), types, posts), by_words, types, posts)
    assert told["right types"] > 95 and told["low"] > 0.2
    noise = rng.normal(size=(NAMES, 8))
    untold = scores(cross_validated(np.hstack([words, noise]), types, posts), by_words, types, posts)
    assert untold["bits saved"] < 0.02
    alone = scores(by_words, by_words, types, posts)
    assert alone["bits saved"] == alone["low"] == alone["high"] == 0


def test_what_only_tells_the_post_of_a_name_tells_nothing_of_posts_that_were_not_seen(names):
    _, posts, _ = names
    types = posts % len(TYPES)  # all names of a post are of one type
    which_post = np.eye(POSTS)[posts]
    found = scores(cross_validated(which_post, types, posts), np.full((NAMES, 4), 0.25), types, posts)
    assert found["bits left"] > 1.9 and found["right types"] < 45


def test_a_name_has_the_vectors_of_the_objects_that_are_linked_to_its_words_alone():
    objects = [[{"phrase": None}, {"phrase": {"start": 1, "end": 3}}, {"phrase": {"start": 2, "end": 4}}], []]
    features = [[[9.0, 9.0], [1.0, 0.0], [0.0, 1.0]], []]
    listed = Dataset.from_dict({"objects": objects, "object_features": features})
    names = [(0, (1, 2, "PER")), (0, (2, 3, "LOC")), (0, (0, 1, "PER")), (1, (0, 2, "ORG"))]
    assert vectors_of_kinds(listed, names).tolist() == [[1, 0], [0.5, 0.5], [0, 0], [0, 0]]
    assert vectors_of_captions(listed).tolist() == [[9, 9], [0, 0]]
