"""Pretrained word vectors, such as GloVe's, for text encoders that read whole words."""

import os
from collections.abc import Iterable

import torch
from torch import nn
from transformers import PreTrainedTokenizerFast
from transformers.utils import logging


def read_word_vectors(path: str | os.PathLike, words: Iterable[str]) -> dict[str, torch.Tensor]:
    """Read the vectors of some words from a text file of GloVe, fastText or word2vec: a word and its numbers a line.

    Args:
        path: the file.
        words: whose vectors are wanted. One that the file lacks has the vector of its lower case, where that is there.

    Returns:
        The vectors [F] of those that the file has.

    Raises:
        ValueError: the file cannot be read, is none of these, or has none of the words.
    """
    words = set(words)
    wanted = words | {word.lower() for word in words}
    found: dict[str, torch.Tensor] = {}
    width = None
    try:
        with open(path, encoding="utf-8", newline="\n") as lines:
            for i, line in enumerate(logging.tqdm(lines, desc="reading word vectors", unit=" words"), 1):
                word, _, numbers = line.rstrip().partition(" ")
                if word in wanted and word not in found and not (i == 1 and numbers.isdigit()):  # word2vec's sizes
                    vector = torch.tensor([float(number) for number in numbers.split()])
                    width = width or len(vector)
                    if len(vector) != width or not vector.isfinite().all():
                        raise ValueError(f"these are not {width} numbers")
                    found[word] = vector
    except OSError as error:
        raise ValueError(f"{path}: can't be read ({error.strerror}).") from error
    except UnicodeDecodeError as error:
        raise ValueError(f"{path}: is no text; word vectors are read from a text file, unpacked.") from error
    except ValueError as error:
        raise ValueError(f'{path}, line {i}: {error}; a line is "word 0.1 -0.2 …".') from error
    vectors = {word: found.get(word, found.get(word.lower())) for word in sorted(words)}
    vectors = {word: vector for word, vector in vectors.items() if vector is not None}
    if not vectors:
        raise ValueError(f"{path}: has a vector of none of the {len(words)} words of the posts.")
    return vectors


@torch.no_grad()
def start_with(embeddings: nn.Embedding, tokenizer: PreTrainedTokenizerFast, vectors: dict[str, torch.Tensor]) -> None:
    """Put vectors [F] of words in the place of the embeddings [vocabulary, F] that they would learn from scratch.

    Raises:
        ValueError: embeddings have another width.
    """
    width = len(next(iter(vectors.values())))
    if width != embeddings.embedding_dim:
        raise ValueError(f"vectors of {width} numbers need embedding_size={width}, not {embeddings.embedding_dim}.")
    ids = tokenizer.convert_tokens_to_ids(list(vectors))
    embeddings.weight[ids] = torch.stack(list(vectors.values())).to(embeddings.weight)
