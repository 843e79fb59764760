"""The columns that `add_descriptors` can compute: what each depends on, and how it is computed."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from datasets import List, Value

from modeling_umgf.descriptors import Captioner, ObjectLabeler, PictureFeatures
from modeling_umgf.grounding import GENERAL_QUERIES, Grounder
from modeling_umgf.sentence_encoders import SentenceEncoder, searchable_text

from ..columns.contract import COLUMNS
from ..writing.artefact_store import digest, model_identity

Row = dict[str, Any]  # tokens, noun_phrases, objects; picture: its content hash; image: the opened picture


@dataclass
class ComputedColumn:
    """A column whose cells a model computes.

    Args:
        name: of the column.
        settings: all that its cells depend on besides the row.
        key: names what the cell of a row depends on; None = there is nothing to look at.
        load: loads the model onto a device, and returns a function from rows to their cells.
        empty: cell of a row without a (readable) picture.
        feature: type of the column; default: that of `COLUMNS`.
        needs_picture: whether the pictures have to be opened for it.
    """

    name: str
    settings: dict[str, Any]
    key: Callable[[Row], str | None]
    load: Callable[[torch.device], Callable[[list[Row]], list[Any]]]
    empty: Any = None
    feature: Any = None
    needs_picture: bool = True

    def __post_init__(self):
        if self.feature is None:
            self.feature = COLUMNS[self.name].feature


def objects_column(detector: str, dtype: torch.dtype, batch_size: int, **choices: Any) -> ComputedColumn:
    """Column `objects`, by `Grounder` with these choices."""

    def load(device: torch.device):
        find = Grounder.from_pretrained(detector, device, dtype, batch_size=batch_size, **choices)

        def compute(rows: list[Row]) -> list[list[dict]]:
            words = [row["tokens"] for row in rows]
            pictures = [row["image"] for row in rows]
            phrases = [row["noun_phrases"] for row in rows]
            return find(words, pictures, phrases)

        return compute

    def key(row: Row) -> str | None:
        return row["picture"] and digest(row["picture"], row["tokens"], row["noun_phrases"])

    settings = {"detector": model_identity(detector), "dtype": str(dtype), "general": GENERAL_QUERIES, **choices}
    return ComputedColumn("objects", settings, key, load, empty=[])


def object_labels_column(labeler: str, dtype: torch.dtype, min_score: float) -> ComputedColumn:
    """Column `object_labels`, by `ObjectLabeler`."""

    def load(device: torch.device):
        label = ObjectLabeler.from_pretrained(labeler, device, dtype, min_score=min_score)
        return lambda rows: label([row["image"] for row in rows])

    settings = {"labeler": model_identity(labeler), "dtype": str(dtype), "min_score": min_score}
    return ComputedColumn("object_labels", settings, _picture_key, load, empty=[])


def caption_column(captioner: str, dtype: torch.dtype, prompt: str | None) -> ComputedColumn:
    """Column `caption`, by `Captioner`."""

    def load(device: torch.device):
        describe = Captioner.from_pretrained(captioner, device, dtype, prompt=prompt)
        return lambda rows: describe([row["image"] for row in rows])

    settings = {"captioner": model_identity(captioner), "dtype": str(dtype), "prompt": prompt}
    return ComputedColumn("caption", settings, _picture_key, load)


def object_features_column(encoder: str, dtype: torch.dtype, of: str) -> ComputedColumn:
    """Column `object_features`, by `PictureFeatures`, of the "objects", the "picture" or the cells of its "grid"."""

    def has_objects(row: Row) -> bool:
        return of == "objects" and row.get("objects") is not None

    def boxes(row: Row) -> list[list[float]]:
        return [node["box"] for node in row["objects"]]

    def key(row: Row) -> str | None:
        if not has_objects(row):
            return _picture_key(row)
        return digest(row["picture"], boxes(row)) if row["picture"] and row["objects"] else None

    def load(device: torch.device):
        features = PictureFeatures.from_pretrained(encoder, device, dtype)

        def compute(rows: list[Row]) -> list[torch.Tensor]:
            crops = []
            counts = []
            for row in rows:
                own = features.image_processor.crop(row["image"], boxes(row)) if has_objects(row) else [row["image"]]
                crops += own
                counts.append(len(own))
            cells = features(crops)  # [N, r, F]
            if of == "grid":
                return list(cells)
            return list(cells.mean(1).split(counts))

        return compute

    settings = {"encoder": model_identity(encoder), "dtype": str(dtype), "of": of}
    return ComputedColumn("object_features", settings, key, load, empty=[])


def text_embedding_column(encoder: str) -> ComputedColumn:
    """Column `text_embedding`, a unit vector, by `SentenceEncoder`; no system reads it, so it is none of `COLUMNS`."""

    def text(row: Row) -> str:
        return searchable_text(" ".join(row["tokens"]))

    def key(row: Row) -> str:
        return digest(text(row))

    def load(device: torch.device):
        sentences = SentenceEncoder(encoder, device=str(device))
        return lambda rows: list(sentences.encode([text(row) for row in rows]))

    return ComputedColumn(
        "text_embedding",
        {"text_encoder": model_identity(encoder)},
        key,
        load,
        feature=List(Value("float32")),
        needs_picture=False,
    )


def _picture_key(row: Row) -> str | None:
    return row["picture"]
