"""Words, pictures and objects → the batch that the models read."""

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import torch
from transformers import BatchFeature, ProcessorMixin
from transformers.utils import logging

from .image_processing_umgf import UmgfImageProcessor
from .pictures import open_picture
from .text_splitting import split_tweet

logger = logging.get_logger(__name__)


class UmgfProcessor(ProcessorMixin):
    """Tokenizer and image processor behind one call.

    Args:
        image_processor: cuts out and normalises the crops; default `UmgfImageProcessor()`.
        tokenizer: any fast tokenizer.
        visual_nodes: "objects", only the "general" ones (linked to every word), or the whole picture as a "grid".
        max_objects: most visual nodes of a tweet; general objects come first, then the better score.
    """

    row_columns = ("objects", "object_features")  # what a dataset row may hold besides tokens, ner_tags and image

    def __init__(self, image_processor=None, tokenizer=None, visual_nodes="objects", max_objects=12, **kwargs):
        self.visual_nodes = visual_nodes
        self.max_objects = max_objects
        super().__init__(image_processor or UmgfImageProcessor(), tokenizer)

    @property
    def model_input_names(self) -> list[str]:
        """Names of the tensors of a batch."""
        nodes = ["pixel_values", "object_features", "object_mask", "inter_modal_mask"]
        return ["input_ids", "attention_mask", "word_starts", *nodes]

    def __call__(
        self,
        text: str | Sequence[str] | None = None,
        images: Any = None,
        words: Sequence[str] | Sequence[Sequence[str]] | None = None,
        objects: Sequence[dict] | Sequence[Sequence[dict] | None] | None = None,
        object_features: Any = None,
        labels: Sequence[int] | Sequence[Sequence[int]] | None = None,
        grounder: Callable | None = None,
        image: Any = None,
        return_tensors: str = "pt",
    ) -> BatchFeature:
        """Make a batch of one tweet or of several; everything is given once a tweet.

        Args:
            text: raw text, split into words by `split_tweet`; or
            words: the words of one tweet, or a list of them for each.
            images: a picture (PIL, path, array, bytes) or None; a list for several tweets. `image` is the same.
            objects: boxes of the picture, {"box": [x0, y0, x1, y1], "phrase": {"start", "end"} or None}. None = nobody
                looked: the whole picture becomes one general node, unless there is a grounder. [] = nothing was found.
            object_features: [m, F] features of the objects, instead of pictures.
            labels: label ids, one a word.
            grounder: finds objects where none are given; called with the word lists and the pictures of those tweets.
            return_tensors: only "pt".

        Returns:
            input_ids, attention_mask [B, n]; word_starts [B, w]; and where there are visual nodes pixel_values
            [B, m, 3, H, W] or object_features [B, m, F], object_mask [B, m], inter_modal_mask [B, w, m]; labels [B, w].

        Raises:
            ValueError: neither text nor words, or lengths that do not fit, with the number of the tweet.
            UnreadablePicture: a picture cannot be opened.
        """
        if return_tensors != "pt":
            raise ValueError(f"return_tensors={return_tensors!r}: the models read PyTorch tensors only, use 'pt'.")
        if (text is None) == (words is None):
            raise ValueError("Give either text=… (raw) or words=… (already split), for one tweet or a list of them.")
        single = isinstance(text, str) or (words is not None and (not len(words) or isinstance(words[0], str)))
        images = image if images is None else images

        def rows(value: Any) -> list:
            return [value] if single else list(value) if value is not None else [None] * size

        size = 1 if single else len(text if text is not None else words)
        words = (
            rows(words) if words is not None else [[word for word, _, _ in split_tweet(post)] for post in rows(text)]
        )
        images, objects, object_features, labels = rows(images), rows(objects), rows(object_features), rows(labels)
        for name, values in (("images", images), ("objects", objects), ("labels", labels)):
            if len(values) != size:
                raise ValueError(
                    f"{size} tweets but {len(values)} {name}: give one entry a tweet, None where there is none."
                )
        for i, (own_words, own_labels) in enumerate(zip(words, labels, strict=True)):
            if own_labels is not None and len(own_labels) != len(own_words):
                raise ValueError(f"Tweet {i} of the batch has {len(own_words)} words but {len(own_labels)} labels.")

        batch = self.encode_words(words)
        batch |= self.encode_pictures(words, images, objects, object_features, grounder)
        if any(own is not None for own in labels):
            batch["labels"] = pad([[] if own is None else own for own in labels], -100, batch["word_starts"].shape[1])
        return BatchFeature(batch)

    def encode_words(self, words: Sequence[Sequence[str]]) -> dict[str, torch.Tensor]:
        """Tokenise each word by itself; every word gets a first piece, except beyond the tokenizer's limit (warned)."""
        unknown = self.tokenizer.unk_token
        words = [[word if word.strip() else unknown for word in own] for own in words]
        limit = self.tokenizer.model_max_length
        encode = {"is_split_into_words": True, "return_token_type_ids": False}
        rows = self.tokenizer(words, **encode)
        pieces, starts = [], []
        for i, own in enumerate(words):
            encoding, row = rows, i
            missing = set(range(len(own))) - set(rows.word_ids(i))
            if missing:  # words that the tokenizer deletes, such as a lone variation selector
                own = [unknown if k in missing else word for k, word in enumerate(own)]
                encoding, row = self.tokenizer([own], **encode), 0
            ids, word_ids = encoding["input_ids"][row], encoding.word_ids(row)
            if len(ids) > limit:
                ids, word_ids = self._cut(ids, word_ids, limit)
            first = {}
            for position, word in enumerate(word_ids):
                if word is not None:
                    first.setdefault(word, position)
            starts.append([first.get(k, -1) for k in range(len(own))])
            pieces.append(ids)
            if lost := starts[-1].count(-1):
                logger.warning(
                    f"A tweet of {len(own)} words ('{' '.join(own[:4])} …') is longer than the {limit} pieces that the "
                    f"text encoder reads: its last {lost} words get no label."
                )
        return {
            "input_ids": pad(pieces, self.tokenizer.pad_token_id),
            "attention_mask": pad([[1] * len(ids) for ids in pieces], 0),
            "word_starts": pad(starts, -1, at_least=1),
        }

    def _cut(self, ids: list[int], word_ids: list[int | None], limit: int) -> tuple[list[int], list[int | None]]:
        tail = 0  # special tokens at the end stay
        while word_ids[len(ids) - 1 - tail] is None:
            tail += 1
        return ids[: limit - tail] + ids[len(ids) - tail :], word_ids[: limit - tail] + [None] * tail

    def encode_pictures(self, words, images, objects, object_features, grounder=None) -> dict[str, torch.Tensor]:
        """Turn the pictures, or given features, into nodes and edges; nothing where no tweet has a node."""
        if all(own is None for own in object_features):
            pictures = [None if picture is None else open_picture(picture) for picture in images]
            objects = self.find_objects(words, pictures, objects, grounder)
            name, nodes = "pixel_values", []
            for picture, own in zip(pictures, objects, strict=True):
                crops = self.image_processor.crop(picture, [node["box"] for node in own])
                nodes.append(np.stack(self.image_processor(crops)["pixel_values"]) if crops else None)
        else:
            name, nodes = (
                "object_features",
                [None if own is None or not len(own) else np.asarray(own, dtype=np.float32) for own in object_features],
            )
            objects = [
                [{"phrase": None}] * (0 if own is None else len(own)) if links is None else links
                for own, links in zip(nodes, objects, strict=True)
            ]
            for i, (own, links) in enumerate(zip(nodes, objects, strict=True)):
                given = 0 if own is None else len(own)
                if given != len(links):
                    raise ValueError(f"Tweet {i} of the batch has {len(links)} objects but {given} object_features.")
        m = max(map(len, objects))
        if m == 0:
            return {}
        shape = next(own.shape[1:] for own in nodes if own is not None)
        values = torch.zeros(len(nodes), m, *shape)
        mask = torch.zeros(len(nodes), m, dtype=torch.bool)
        edges = torch.zeros(len(nodes), max(map(len, words)) or 1, m, dtype=torch.bool)
        for i, (own, links) in enumerate(zip(nodes, objects, strict=True)):
            if own is not None:
                values[i, : len(own)] = torch.from_numpy(own)
            for j, node in enumerate(links):
                mask[i, j] = True
                phrase = node.get("phrase")
                span = slice(len(words[i])) if phrase is None else slice(phrase["start"], phrase["end"])
                edges[i, span, j] = True
        return {name: values, "object_mask": mask, "inter_modal_mask": edges}

    def find_objects(self, words, pictures, objects, grounder=None) -> list[list[dict]]:
        """Return the visual nodes of each tweet: those given, else the grounder's, else the whole picture."""
        objects = list(objects)
        if self.visual_nodes == "grid":
            objects = [None] * len(objects)
        elif grounder is not None:
            asked = [i for i, own in enumerate(objects) if own is None and pictures[i] is not None]
            found = grounder([words[i] for i in asked], [pictures[i] for i in asked]) if asked else []
            for i, own in zip(asked, found, strict=True):
                objects[i] = own
        chosen = []
        for picture, own in zip(pictures, objects, strict=True):
            if picture is None:
                own = []
            elif own is None:
                own = [{"box": [0, 0, *picture.size], "phrase": None}]
            if self.visual_nodes == "general":
                own = [node for node in own if node.get("phrase") is None]
            if len(own) > self.max_objects:
                own = sorted(own, key=lambda node: (node.get("phrase") is not None, -(node.get("score") or 0)))
            chosen.append(own[: self.max_objects])
        return chosen


def pad(rows: Sequence[Sequence[int]], value: int, at_least: int = 0) -> torch.Tensor:
    """Stack rows of ids into a tensor [B, longest], filled up with value."""
    width = max(at_least, *map(len, rows))
    return torch.tensor([[*row, *[value] * (width - len(row))] for row in rows], dtype=torch.long)
