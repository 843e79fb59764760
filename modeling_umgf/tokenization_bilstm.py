"""Words and characters for text encoders that are trained from scratch on words, such as the BiLSTM."""

import re
from collections import Counter
from collections.abc import Iterable, Sequence

import torch
from transformers import PreTrainedTokenizerFast

CHARACTER_VOCABULARY = 1 + 256
"""Ids of characters: 0 = padding, then the bytes of UTF-8, so that no character is unknown and no list is kept."""

CHARACTERS_OF_A_WORD = 30
"""Longer words are cut, as by Zhang et al. (AAAI 2018)."""


def character_ids(words: Sequence[str | None]) -> torch.Tensor:
    """Return the characters [n, 30] of words; 0 = padding, and all of a special token, whose word is None."""
    ids = torch.zeros(len(words), CHARACTERS_OF_A_WORD, dtype=torch.long)
    for own, word in zip(ids, words, strict=True):
        characters = (word or "").encode()[:CHARACTERS_OF_A_WORD]
        own[: len(characters)] = 1 + torch.tensor(list(characters), dtype=torch.long)
    return ids


def without_digits(word: str) -> str:
    """Return a word as it stands in the vocabulary: every digit is a 0."""
    return re.sub("[0-9]", "0", word)


def train_word_tokenizer(
    sentences: Iterable[Sequence[str]],
    max_length: int = 512,
    min_count: int = 2,
    characters: bool = False,
    known: Iterable[str] = (),
) -> PreTrainedTokenizerFast:
    """Make a tokenizer for which every word is one piece, every digit a 0, and every rare word unknown.

    Between a post and its context stands a [SEP].

    Args:
        sentences: the words of each post of the training split.
        max_length: words of a post at most.
        min_count: words that are seen less often are unknown, so that it is learned what an unknown word is.
        characters: whether the text encoder also reads characters; processors then add `character_ids` to a batch.
        known: words, without digits, that are never unknown, such as those with a pretrained vector.
    """
    from tokenizers import Regex, Tokenizer, models, normalizers, processors

    special = {"pad_token": "[PAD]", "unk_token": "[UNK]", "sep_token": "[SEP]"}
    counts = Counter(without_digits(word) for words in sentences for word in words)
    frequent = sorted({word for word, count in counts.items() if count >= min_count}.union(known))
    vocabulary = {word: i for i, word in enumerate(dict.fromkeys([*special.values(), *frequent]))}
    tokenizer = Tokenizer(models.WordLevel(vocabulary, unk_token=special["unk_token"]))
    tokenizer.normalizer = normalizers.Replace(Regex("[0-9]"), "0")
    separator = special["sep_token"]
    tokenizer.post_processor = processors.TemplateProcessing(
        single="$A", pair=f"$A {separator} $B", special_tokens=[(separator, vocabulary[separator])]
    )
    names = ["input_ids", "attention_mask", *(["character_ids"] if characters else [])]
    return PreTrainedTokenizerFast(
        tokenizer_object=tokenizer, model_max_length=max_length, model_input_names=names, **special
    )
