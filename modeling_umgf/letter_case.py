"""The letter case of words, which uncased tokenizers drop, though names are written with capitals."""

from collections.abc import Sequence

import torch
from transformers import PreTrainedTokenizerBase

NO_CASE, LOWER, CAPITALISED, UPPER, MIXED = range(5)
"""No letters that have a case; "word"; "Word", or one capital; "WORD"; "iPhone"."""


def letter_cases(words: Sequence[str | None]) -> torch.Tensor:
    """Return the letter case [n] of words; None, the word of a special token, has none."""
    return torch.tensor([_letter_case(word or "") for word in words], dtype=torch.long)


def tell_letter_case(tokenizer: PreTrainedTokenizerBase) -> None:
    """Make the processor of a tokenizer tell the `letter_case` of words, now and when it is loaded again."""
    tokenizer.model_input_names = [*tokenizer.model_input_names, "letter_case"]
    tokenizer.init_kwargs["model_input_names"] = tokenizer.model_input_names  # what is saved


def _letter_case(word: str) -> int:
    letters = "".join(letter for letter in word if letter.lower() != letter.upper())
    if not letters:
        return NO_CASE
    if letters == letters.lower():
        return LOWER
    if letters[1:] == letters[1:].lower():
        return CAPITALISED
    return UPPER if letters == letters.upper() else MIXED
