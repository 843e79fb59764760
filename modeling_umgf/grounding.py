"""Objects of a picture for the noun phrases of its post: visual nodes and the words that they are linked to."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Sequence
from typing import Any, NamedTuple

import torch
from PIL import Image
from transformers import (
    AutoModelForZeroShotObjectDetection,
    BatchFeature,
    PreTrainedModel,
    ProcessorMixin,
)
from transformers.image_transforms import center_to_corners_format
from transformers.utils import ModelOutput

from .describer import Describer
from .noun_phrases import find_noun_phrases
from .pictures import open_picture

GENERAL_QUERIES = ("misc", "person", "location", "organization")
"""Asked of every picture; what they find is linked to every word (Zhang et al., AAAI 2021, section 3.1)."""

SAME_OBJECT = 0.9
"""From this intersection over union on, a box is the same object as that of a general query."""


class Detection(NamedTuple):
    """A box [x0, y0, x1, y1], in pixels of the picture, that a detector found for a query."""

    box: list[float]
    score: float
    query: str


class Grounder(Describer):
    """Find the objects of posts with any zero-shot object detector of transformers.

    Each picture is asked for the noun phrases of its post and for `GENERAL_QUERIES`, all in one forward pass.
    Grounding DINO normalises over the padding of a batch, so that its scores depend a little on the other pictures in
    it; batch_size=1 avoids that.

    Args:
        model: the detector, any of `AutoModelForZeroShotObjectDetection`: (MM) Grounding DINO, OWL-ViT, OWLv2,
            OmDet-Turbo.
        processor: its processor.
        min_score: boxes below are no objects. Detectors differ: the makers of Grounding DINO use 0.25 to 0.35, those of
            OWL 0.1; 0 takes the best box of every query.
        max_overlap: of two boxes of one query with a higher intersection over union, the better one stays.
        boxes_per_query: most boxes of one query.
        max_objects: most objects of a post, those of general queries first.
        noun_phrases: extractor of noun phrases, see `find_noun_phrases`.
        batch_size: pictures in a forward pass.
        merge_of: join two noun phrases with nothing but "of" between them.
    """

    role = "detector"
    default = "IDEA-Research/grounding-dino-tiny"
    load_model = AutoModelForZeroShotObjectDetection.from_pretrained

    def __init__(
        self,
        model: PreTrainedModel,
        processor: ProcessorMixin,
        min_score: float = 0.5,
        max_overlap: float = 0.5,
        boxes_per_query: int = 1,
        max_objects: int = 12,
        noun_phrases: str | Callable = "nltk",
        batch_size: int = 8,
        merge_of: bool = False,
    ):
        super().__init__(model, processor)
        self.min_score = min_score
        self.max_overlap = max_overlap
        self.boxes_per_query = boxes_per_query
        self.max_objects = max_objects
        self.noun_phrases = noun_phrases
        self.batch_size = batch_size
        self.merge_of = merge_of
        # Grounding DINO reads all queries as one text of at most so many pieces; the others read a list of queries.
        self.prompt_length: int | None = getattr(model.config, "max_text_len", None)

    def __call__(
        self,
        words: Sequence[Sequence[str]],
        pictures: Sequence[Any],
        noun_phrases: Sequence[Sequence[dict[str, int]]] | None = None,
    ) -> list[list[dict[str, Any]]]:
        """Find the objects of several posts.

        Args:
            words: the words of each post.
            pictures: the picture of each post, anything that `open_picture` takes, or None.
            noun_phrases: spans {"start", "end"} of each post; default: found now.

        Returns:
            For each post its objects, those of general queries first, then the better score: {"box": [x0, y0, x1, y1]
            in pixels of the upright picture, "score", "query": the text asked for, "phrase": {"start", "end"}, or None
            for a general query}. No picture, no objects.

        Raises:
            ValueError: the lists differ in length.
            UnreadablePicture: a picture cannot be opened.
        """
        if noun_phrases is None:
            noun_phrases = [find_noun_phrases(own, self.noun_phrases, self.merge_of) for own in words]
        if not len(words) == len(pictures) == len(noun_phrases):
            raise ValueError(
                f"{len(words)} posts, {len(pictures)} pictures and {len(noun_phrases)} lists of noun phrases: give "
                "one of each a post, None where there is no picture"
            )
        phrases = []
        for own, spans in zip(words, noun_phrases, strict=True):
            phrases.append([(query_text(own[span["start"] : span["end"]]), span) for span in spans])
        prompts = []
        for i, picture in enumerate(pictures):
            if picture is not None:
                queries = [query for query, _ in phrases[i]]
                prompts += [(i, prompt) for prompt in self._prompts(queries)]
        found: list[list[Detection]] = [[] for _ in words]
        for start in range(0, len(prompts), self.batch_size):
            owners, queries = zip(*prompts[start : start + self.batch_size], strict=True)
            detections = self.detect([open_picture(pictures[i]) for i in owners], queries)
            for i, own in zip(owners, detections, strict=True):
                found[i] += own
        return [self.choose(detections, own) for detections, own in zip(found, phrases, strict=True)]

    @torch.no_grad()
    def detect(self, pictures: Sequence[Image.Image], queries: Sequence[Sequence[str]]) -> list[list[Detection]]:
        """Run the detector once.

        Args:
            pictures: RGB pictures.
            queries: what to look for in each of them.

        Returns:
            For each picture the boxes of at least `min_score` of every query, clipped to the picture, without those
            that are less than a pixel wide or high.
        """
        inputs = self._encode(pictures, queries).to(self.model.device, self.model.dtype)
        outputs = self.model(**inputs)
        scores = self._query_scores(outputs, inputs, max(map(len, queries)))  # [B, boxes, queries]
        boxes = outputs["decoder_coord_logits" if "decoder_coord_logits" in outputs else "pred_boxes"]
        boxes = center_to_corners_format(boxes.float()).cpu()  # [B, boxes, 4], relative to the picture
        found = []
        for picture, own, own_scores, own_boxes in zip(pictures, queries, scores, boxes, strict=True):
            limits = torch.tensor(picture.size * 2)
            scale = limits.max() if self.model.config.model_type == "owlv2" else limits  # OWLv2 fills up to a square
            pixels = (own_boxes * scale).clamp(min=0).minimum(limits)
            large = (pixels[:, 2:] - pixels[:, :2] >= 1).all(1)
            good = own_scores[:, : len(own)] >= self.min_score
            kept = (good & large[:, None]).nonzero().tolist()
            found.append([Detection(pixels[i].tolist(), own_scores[i, j].item(), own[j]) for i, j in kept])
        return found

    def choose(
        self, detections: Sequence[Detection], phrases: Sequence[tuple[str, dict[str, int]]]
    ) -> list[dict[str, Any]]:
        """Turn the detections of one post into its objects.

        A box that is (almost) that of a general query, which is linked to every word anyway, is merged into it.

        Args:
            detections: boxes and the query that each was found for.
            phrases: (query, span) of each noun phrase; the same query may stand at several spans.
        """
        candidates: list[tuple[Detection, dict[str, int] | None]] = []
        for detection in detections:
            if detection.query in GENERAL_QUERIES:
                candidates.append((detection, None))
            candidates += [(detection, span) for query, span in phrases if query == detection.query]
        candidates.sort(key=lambda candidate: (candidate[1] is not None, -candidate[0].score))
        objects: list[dict[str, Any]] = []
        for (box, score, query), span in candidates:
            same_query = [kept for kept in objects if (kept["query"], kept["phrase"]) == (query, span)]
            general = [kept for kept in objects if kept["phrase"] is None]
            if (
                len(objects) < self.max_objects
                and len(same_query) < self.boxes_per_query
                and all(overlap(box, kept["box"]) <= self.max_overlap for kept in same_query)
                and all(overlap(box, kept["box"]) <= SAME_OBJECT for kept in general)
            ):
                objects.append({"box": box, "score": score, "query": query, "phrase": span})
        return objects

    def _prompts(self, queries: Sequence[str]) -> Iterator[list[str]]:
        """All queries of one picture, in as few lists as the detector can read."""
        different = dict.fromkeys(GENERAL_QUERIES) | dict.fromkeys(query for query in queries if query)
        if self.prompt_length is None:
            yield list(different)
            return
        prompt = []
        length = 2  # [CLS] and [SEP]
        for query in different:
            pieces = len(self.processor.tokenizer.tokenize(query.lower())) + 1  # and the full stop
            if prompt and length + pieces > self.prompt_length:
                yield prompt
                prompt = []
                length = 2
            prompt.append(query)
            length += pieces
        yield prompt

    def _encode(self, pictures: Sequence[Image.Image], queries: Sequence[Sequence[str]]) -> BatchFeature:
        if self.prompt_length is not None:
            text = ["".join(f"{query} . " for query in own).lower() for own in queries]
            settings = {"padding": True, "truncation": True, "max_length": self.prompt_length}
        else:  # filled up with a query that is there anyway: an empty one would take part in choosing the boxes
            longest = max(map(len, queries))
            text = [list(own) + [own[0]] * (longest - len(own)) for own in queries]
            settings = {"padding": "max_length", "truncation": True}
            if self.model.config.model_type == "omdet-turbo":
                settings["task"] = [f"Detect {', '.join(own)}." for own in queries]
        return self.processor(images=list(pictures), text=text, return_tensors="pt", **settings)

    def _query_scores(self, outputs: ModelOutput, inputs: BatchFeature, num_queries: int) -> torch.Tensor:
        """How well each box fits each query: [B, boxes, queries] in 0..1."""
        if "decoder_class_logits" in outputs:  # OmDet-Turbo
            return outputs.decoder_class_logits.float().sigmoid().cpu()
        scores = outputs.logits.float().sigmoid()
        if self.prompt_length is None:
            return scores.cpu()
        # Grounding DINO scores pieces: a query is as good as its best piece, and a full stop ends each query.
        tokenizer = self.processor.tokenizer
        ids = inputs["input_ids"]  # [B, n]
        stops = ids == tokenizer.convert_tokens_to_ids(".")
        special = torch.tensor([tokenizer.cls_token_id, tokenizer.sep_token_id, tokenizer.pad_token_id])
        query = stops.cumsum(1).masked_fill(stops | torch.isin(ids, special.to(ids.device)), -1)  # [B, n]
        belongs = query[:, None, :, None] == torch.arange(num_queries, device=ids.device)  # [B, 1, n, queries]
        return (scores[:, :, : ids.shape[1], None] * belongs).amax(2).cpu()


def query_text(words: Sequence[str]) -> str:
    """What a detector is asked for a phrase: its words without signs, and "The Hunger Games" for #TheHungerGames."""
    split = [re.sub(r"(?<=[a-z])(?=[A-Z])", " ", word) if word.startswith("#") else word for word in words]
    without_signs = re.sub(r"[^\w'&-]|_", " ", " ".join(split))
    return " ".join(without_signs.split())


def overlap(box: Sequence[float], other: Sequence[float]) -> float:
    """Intersection over union of two boxes [x0, y0, x1, y1]."""
    width = min(box[2], other[2]) - max(box[0], other[0])
    height = min(box[3], other[3]) - max(box[1], other[1])
    if width <= 0 or height <= 0:
        return 0.0
    shared = width * height
    areas = [(x1 - x0) * (y1 - y0) for x0, y0, x1, y1 in (box, other)]
    return shared / (sum(areas) - shared)
