"""Text encoders of a relation index: a sentence becomes one unit vector.

An encoder is any object with `name` (str), `width` (int) and `encode(texts) -> FloatTensor [N, width]` of unit rows.
"""

import os
import re
import tempfile
import zlib
from collections.abc import Sequence
from pathlib import Path
from typing import Protocol

import numpy as np
import torch
from transformers import AutoModel, AutoTokenizer
from transformers.utils import logging

from .files import write_whole

_NOT_CONTENT = re.compile(r"https?://\S+|\bRT\b|@\s?\w+|#|\ufffd|[\u200b-\u200f\ufe0f]")


def searchable_text(text: str) -> str:
    """Return what a post says, without web addresses, "RT", @users and the # of its tags."""
    return " ".join(_NOT_CONTENT.sub(" ", text).split())


class TextEncoder(Protocol):
    """What a relation index asks of an encoder."""

    name: str
    width: int

    def encode(self, texts: Sequence[str], progress: bool = False) -> torch.Tensor:
        """Return unit vectors [N, width]; an empty text gets zeros."""


class HashingEncoder:
    """Words and their character 3- to 5-grams, hashed into a vector: no weights, nothing learned, the same everywhere.

    Args:
        width: length of the vector.
    """

    type = "hashing"
    name = "hashed words and character n-grams"

    def __init__(self, width: int = 1024):
        self.width = width

    def encode(self, texts: Sequence[str], progress: bool = False) -> torch.Tensor:
        """Return unit vectors [N, width]; an empty text gets zeros."""
        vectors = np.zeros((len(texts), self.width), dtype=np.float32)
        for vector, text in zip(vectors, logging.tqdm(texts, desc="hashing texts", disable=not progress), strict=True):
            for feature, weight in self._features(text):
                code = zlib.crc32(feature.encode())
                vector[code % self.width] += weight if code >> 31 else -weight  # the sign lets collisions cancel out
        return torch.nn.functional.normalize(torch.from_numpy(vectors), dim=-1)

    @staticmethod
    def _features(text: str):
        """Yield (feature, weight): a word counts 1, all its n-grams together 1."""
        for word in re.findall(r"\w+", text.lower()):
            yield word, 1.0
            framed = f"<{word}>"
            ngrams = [framed[i : i + n] for n in (3, 4, 5) for i in range(len(framed) - n + 1)]
            yield from ((ngram, len(ngrams) ** -0.5) for ngram in ngrams)


class SentenceEncoder:
    """A transformers encoder with mean pooling, as sentence-transformers models are used.

    Args:
        name_or_path: Hub id or folder of the encoder.
        name: what to call it; default: the id, or the name of the folder.
        batch_size: texts at a time.
        device: where it runs; default: a GPU if there is one.
    """

    type = "transformers"

    def __init__(
        self,
        name_or_path: str | os.PathLike,
        name: str | None = None,
        batch_size: int = 64,
        device: str | None = None,
    ):
        self.is_local = Path(name_or_path).is_dir()
        self.name = name or (Path(name_or_path).resolve().name if self.is_local else str(name_or_path))
        self.batch_size = batch_size
        self.tokenizer = AutoTokenizer.from_pretrained(name_or_path)
        device = device or ("cuda" if torch.cuda.is_available() else "cpu")
        self.model = AutoModel.from_pretrained(name_or_path, dtype=torch.float32).eval().to(device)
        self.width = self.model.config.hidden_size

    @torch.inference_mode()
    def encode(self, texts: Sequence[str], progress: bool = False) -> torch.Tensor:
        """Return unit vectors [N, width]; an empty text gets zeros, equal texts get equal vectors to the last bit."""
        distinct = sorted({text for text in texts if text.strip()}, key=lambda text: (len(text), text))
        row = {text: i for i, text in enumerate(distinct)}
        vectors = torch.zeros(len(distinct) + 1, self.width)  # the last row is that of the empty text
        batches = range(0, len(distinct), self.batch_size)
        for start in logging.tqdm(batches, desc=f"encoding texts with {self.name}", disable=not progress):
            batch = distinct[start : start + self.batch_size]
            pieces = self.tokenizer(batch, padding=True, truncation=True, max_length=256, return_tensors="pt")
            pieces = pieces.to(self.model.device)
            states = self.model(**pieces).last_hidden_state  # [b, n, width]
            mask = pieces["attention_mask"].unsqueeze(-1).to(states.dtype)
            mean = (states * mask).sum(1) / mask.sum(1)
            vectors[start : start + len(batch)] = torch.nn.functional.normalize(mean, dim=-1).cpu()
        return vectors[[row.get(text, -1) for text in texts]]

    def save_pretrained(self, folder: str | os.PathLike) -> list[Path]:
        """Write the encoder and its vocabulary into a folder; returns the files."""
        with tempfile.TemporaryDirectory(dir=folder) as unfinished:
            self.model.save_pretrained(unfinished)
            self.tokenizer.save_pretrained(unfinished)
            made = list(Path(unfinished).iterdir())
            for path in made:
                with write_whole(Path(folder) / path.name) as file:
                    path.replace(file)
        return [Path(folder) / path.name for path in made]
