"""The columns that `add_descriptors` can compute: what each depends on, and how it is computed."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from datasets import List, Value

from modeling_umgf.descriptors import Captioner, ObjectLabeler, PictureFeatures
from modeling_umgf.grounding import GENERAL_QUERIES, Grounder
from modeling_umgf.sentence_encoders import SentenceEncoder, searchable_text

from .artefact_store import digest, model_identity
from .features import OPTIONAL_COLUMNS

Row = dict[str, Any]  # tokens, noun_phrases, objects; picture: its content hash; image: the opened picture


@dataclass
class DescriptorColumn:
    """A column whose cells a model computes.

    Args:
        name: of the column.
        settings: all that its cells depend on besides the row.
        key: names what the cell of a row depends on; None = there is nothing to look at.
        load: loads the model onto a device, and returns a function from rows to their cells.
        feature: type of the column.
        empty: cell of a row without a (readable) picture.
    """

    name: str
    settings: dict[str, Any]
    key: Callable[[Row], str | None]
    load: Callable[[torch.device], Callable[[list[Row]], list[Any]]]
    feature: Any
    empty: Any = None

    @property
    def needs_picture(self) -> bool:
        """Whether the pictures have to be opened for it."""
        return self.name != "text_embedding"


def objects_column(detector: str, dtype: torch.dtype, batch_size: int, **choices: Any) -> DescriptorColumn:
    """Column `objects`, by `Grounder` with these choices."""

    def load(device: torch.device):
        grounder = Grounder.from_pretrained(detector, device, dtype, batch_size=batch_size, **choices)
        return lambda rows: grounder(*([row[name] for row in rows] for name in ("tokens", "image", "noun_phrases")))

    def key(row: Row) -> str | None:
        return row["picture"] and digest(row["picture"], row["tokens"], row["noun_phrases"])

    settings = {"detector": model_identity(detector), "dtype": str(dtype), "general": GENERAL_QUERIES, **choices}
    return DescriptorColumn("objects", settings, key, load, OPTIONAL_COLUMNS["objects"], [])


def object_labels_column(labeler: str, dtype: torch.dtype, min_score: float) -> DescriptorColumn:
    """Column `object_labels`, by `ObjectLabeler`."""

    def load(device: torch.device):
        label = ObjectLabeler.from_pretrained(labeler, device, dtype, min_score=min_score)
        return lambda rows: label([row["image"] for row in rows])

    settings = {"labeler": model_identity(labeler), "dtype": str(dtype), "min_score": min_score}
    feature = OPTIONAL_COLUMNS["object_labels"]
    return DescriptorColumn("object_labels", settings, _picture_key, load, feature, [])


def caption_column(captioner: str, dtype: torch.dtype, prompt: str | None) -> DescriptorColumn:
    """Column `caption`, by `Captioner`."""

    def load(device: torch.device):
        describe = Captioner.from_pretrained(captioner, device, dtype, prompt=prompt)
        return lambda rows: describe([row["image"] for row in rows])

    settings = {"captioner": model_identity(captioner), "dtype": str(dtype), "prompt": prompt}
    return DescriptorColumn("caption", settings, _picture_key, load, OPTIONAL_COLUMNS["caption"])


def object_features_column(encoder: str, dtype: torch.dtype, of: str) -> DescriptorColumn:
    """Column `object_features`, by `PictureFeatures`, of the "objects", the "picture" or the cells of its "grid"."""

    def boxes(row: Row) -> list[list[float]]:
        return [node["box"] for node in row["objects"]]

    def key(row: Row) -> str | None:
        if of != "objects" or row.get("objects") is None:
            return _picture_key(row)
        return digest(row["picture"], boxes(row)) if row["picture"] and row["objects"] else None

    def load(device: torch.device):
        features = PictureFeatures.from_pretrained(encoder, device, dtype)

        def compute(rows: list[Row]) -> list[torch.Tensor]:
            crops = [
                [row["image"]] if of != "objects" or row.get("objects") is None
                else features.image_processor.crop(row["image"], boxes(row))
                for row in rows
            ]  # fmt: skip
            cells = features([crop for own in crops for crop in own])  # [N, r, F]
            if of == "grid":
                return list(cells)
            return list(cells.mean(1).split([len(own) for own in crops]))

        return compute

    settings = {"encoder": model_identity(encoder), "dtype": str(dtype), "of": of}
    return DescriptorColumn("object_features", settings, key, load, OPTIONAL_COLUMNS["object_features"], [])


def text_embedding_column(encoder: str) -> DescriptorColumn:
    """Column `text_embedding`, a unit vector, by `SentenceEncoder`."""

    def text(row: Row) -> str:
        return searchable_text(" ".join(row["tokens"]))

    def load(device: torch.device):
        sentences = SentenceEncoder(encoder, device=str(device))
        return lambda rows: list(sentences.encode([text(row) for row in rows]))

    settings = {"text_encoder": model_identity(encoder)}
    return DescriptorColumn("text_embedding", settings, lambda row: digest(text(row)), load, List(Value("float32")))


def _picture_key(row: Row) -> str | None:
    return row["picture"]
