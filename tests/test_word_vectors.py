"""Pretrained word vectors: how their file is read, which words have one, and that a BiLSTM starts with them."""

from pathlib import Path

import pytest
import torch
from datasets import ClassLabel, Dataset, DatasetDict, Features, List, Value

from modeling_umgf.model_arguments import ModelArguments, build
from modeling_umgf.word_vectors import read_word_vectors

GLOVE = "the 0.1 0.2 0.3\nparis 1 2 3\nParis -1 -2 -3\n00 4 5 6\nparis 9 9 9\nlyon 7 8 9\n"
BILSTM = {"model_type": "bilstm", "embedding_size": 3, "hidden_size": 8, "characters": "none"}


@pytest.fixture
def glove(tmp_path) -> Path:
    path = tmp_path / "glove.txt"
    path.write_text(GLOVE, encoding="utf-8")
    return path


def as_lists(vectors: dict[str, torch.Tensor]) -> dict[str, list[float]]:
    return {word: vector.tolist() for word, vector in vectors.items()}


def test_a_word_has_its_own_vector_or_that_of_its_lower_case(glove):
    vectors = as_lists(read_word_vectors(glove, ["Paris", "PARIS", "Lyon", "Rome"]))
    assert vectors == {"Paris": [-1, -2, -3], "PARIS": [1, 2, 3], "Lyon": [7, 8, 9]}


@pytest.mark.parametrize("first", ["400000 3\n", "6 3 \n"])
def test_the_first_line_of_word2vec_is_no_word(glove, first):
    glove.write_text(first + GLOVE, encoding="utf-8")
    number = first.split()[0]
    assert as_lists(read_word_vectors(glove, [number, "lyon"])) == {"lyon": [7, 8, 9]}


@pytest.mark.parametrize(
    ("lines", "said"),
    [
        ("rome 1 2 x\n", "line 2: could not convert string to float: 'x'; a line is"),
        ("rome 1 2\n", "line 2: these are not 3 numbers"),
        ("rome 1 2 nan\n", "line 2: these are not 3 numbers"),
        ("rome\n", "line 2: these are not 3 numbers"),
    ],
)
def test_a_line_that_is_no_word_with_its_numbers_is_named(tmp_path, lines, said):
    (tmp_path / "glove.txt").write_text("the 1 2 3\n" + lines, encoding="utf-8")
    with pytest.raises(ValueError, match="glove.txt, " + said):
        read_word_vectors(tmp_path / "glove.txt", ["the", "rome"])


def test_a_file_that_is_no_text_or_has_none_of_the_words_is_named(tmp_path, glove):
    (tmp_path / "glove.bin").write_bytes(bytes(range(256)))
    with pytest.raises(ValueError, match="glove.bin: is no text"):
        read_word_vectors(tmp_path / "glove.bin", ["the"])
    with pytest.raises(ValueError, match="glove.txt: has a vector of none of the 2 words"):
        read_word_vectors(glove, ["der", "die"])


def posts(*sentences: str) -> Dataset:
    words = [sentence.split() for sentence in sentences]
    features = Features({"tokens": List(Value("string")), "ner_tags": List(ClassLabel(names=["O", "B-LOC", "I-LOC"]))})
    return Dataset.from_dict({"tokens": words, "ner_tags": [[0] * len(own) for own in words]}, features=features)


SPLITS = DatasetDict(train=posts("the the cat cat in Paris", "in 99 days"), test=posts("Lyon and Ghent"))


@pytest.mark.parametrize("model_type", ["text_only", "vg"])
def test_a_bilstm_starts_with_them_and_knows_their_words_in_every_split(glove, model_type):
    settings = {"model_type": model_type, "text_config": BILSTM, "word_vectors": str(glove)}
    if model_type == "vg":
        sizes = {"embedding_size": 8, "hidden_sizes": [8], "depths": [1], "layer_type": "basic"}
        settings |= {"vision_config": {"model_type": "resnet", **sizes}, "config_overrides": {"d_model": 8}}
    model, processor = build(ModelArguments(**settings), SPLITS)
    embeddings = model.get_input_embeddings().weight
    vocabulary = processor.tokenizer.get_vocab()
    assert vocabulary.keys() == {"[PAD]", "[UNK]", "[SEP]", "the", "cat", "in", "Paris", "00", "Lyon"}
    expected = {"the": [0.1, 0.2, 0.3], "Paris": [-1, -2, -3], "00": [4, 5, 6], "Lyon": [7, 8, 9], "[PAD]": [0, 0, 0]}
    for word, vector in expected.items():
        torch.testing.assert_close(embeddings[vocabulary[word]], torch.tensor(vector, dtype=torch.float32))
    assert embeddings[vocabulary["cat"]].abs().max() <= 1  # from scratch: ± sqrt(3 / 3)
    assert embeddings.requires_grad


@pytest.mark.parametrize(
    ("settings", "said"),
    [
        ({"text_config": BILSTM | {"embedding_size": 4}}, "vectors of 3 numbers need embedding_size=3, not 4"),
        ({"text_config": {"model_type": "bert"}}, "--word_vectors: only a BiLSTM reads whole words"),
        ({"word_vectors": "nowhere.txt"}, "--word_vectors nowhere.txt: can't be read"),
    ],
)
def test_where_they_do_not_fit_the_argument_is_named(glove, settings, said):
    given = {"model_type": "text_only", "text_config": BILSTM, "word_vectors": str(glove)} | settings
    with pytest.raises(ValueError, match=said):
        build(ModelArguments(**given), SPLITS)
