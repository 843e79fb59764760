"""The pipeline "multimodal-ner": a post, or many, in; entities with exact character offsets out."""

import os
from collections import deque
from collections.abc import Callable, Iterable, Mapping
from itertools import islice
from types import GeneratorType
from typing import Any

import torch
from PIL import Image
from torch.utils.data import DataLoader, Dataset
from transformers import Pipeline
from transformers.image_utils import load_image
from transformers.utils import logging

from .labels import entity_spans
from .pictures import UnreadablePicture, open_picture
from .text_splitting import split_tweet

logger = logging.get_logger(__name__)

BATCHES_PER_WINDOW = 4
"""Posts are sorted by size within so many batches."""


class MultimodalNerPipeline(Pipeline):
    """Find the entities of posts with or without a picture.

        tagger = pipeline("multimodal-ner", model="folder or Hub id")
        tagger({"text": "Rihanna sings in London", "image": "rihanna.jpg"})

    An input is a string or a dict with
        text, or words (also called tokens): the post, raw or as a list of words;
        image (optional): path, URL, bytes, PIL picture or array; None = no picture;
        objects and the other columns that the processor reads (optional), see the processor.
    A list of inputs gives a list of results; a generator, a torch or a datasets Dataset gives an iterator over results.
    Results come in the order of the inputs and do not depend on the batch size. An input that cannot be tagged gives
    {"error": "why"} in the place of its result.

    Args (of the call, or of the pipeline as defaults):
        aggregation_strategy: "simple" (default), one dict an entity, from left to right:
                entity_group: type, such as "PER";
                score: exact probability, under the CRF, that the words of the entity have the labels they were given
                    (forward-backward over all label sequences, not a mean over words);
                word, start, end: text[start:end] == word, in the text as given (of words: in " ".join(words));
                objects: what the entity is linked to, {"box", "weight", "query" if known}, most important first; the
                    weight is the mean opening (0..1) of the gates from the entity's words to the object;
                neighbors (R-GCN): the pictures of other posts that were used, {"id", "relation", "weight"}, most
                    important first; the weight is how much of it the words (inter) or the own picture (intra) take.
            "none": one dict a word, also for label O: entity (label), score (the label's marginal probability), index,
                word, start, end. A word beyond the text encoder's limit has label O and score 0.
        grounder, labeler: find the objects of pictures, or name them, where the input does not; see the processor.
        timeout: seconds to wait for a picture's URL; default: no limit.
        batch_size: posts that the model sees at once (default 1); posts of like size are put together.
        num_workers: processes that open pictures and make crops (default 0: this one).
    """

    _load_processor = True
    _load_tokenizer = False
    _load_image_processor = False
    _load_feature_extractor = False
    _load_video_processor = False

    def __init__(self, model, *args, **kwargs):
        super().__init__(model, *args, **kwargs)
        if self.processor is None or not hasattr(model, "crf"):
            raise ValueError(
                "The pipeline multimodal-ner needs a model with a CRF, and processor=… where it is not found."
            )
        self.model.eval()

    def __call__(self, inputs: Any, **kwargs) -> Any:
        """Tag one input or many; see the class."""
        if isinstance(inputs, list) and not inputs:
            return []
        if not isinstance(inputs, str | Mapping | list | GeneratorType | Dataset) and isinstance(inputs, Iterable):
            inputs = (one for one in inputs)  # a tuple, a datasets.Dataset, …
        return super().__call__(inputs, **kwargs)

    @property
    def input_columns(self) -> set[str]:
        """Keys of an input that are read; others are ignored, with a warning."""
        return {"text", "words", "tokens", "image", *self.processor.row_columns}

    def save_pretrained(self, save_directory: str | os.PathLike, **kwargs: Any) -> None:
        """Save model and processor, with the code of both and of this pipeline."""
        self.model.save_pretrained(save_directory, **kwargs)
        self.processor.save_pretrained(save_directory)

    def _sanitize_parameters(self, aggregation_strategy=None, grounder=None, labeler=None, timeout=None):
        if aggregation_strategy not in (None, "none", "simple"):
            raise ValueError(
                f"aggregation_strategy={aggregation_strategy!r}: use 'simple' (entities) or 'none' (words). The others "
                "reconcile the labels of a word's pieces, but here the CRF labels whole words."
            )
        given = {"grounder": grounder, "labeler": labeler, "timeout": timeout}
        forward = {} if aggregation_strategy is None else {"aggregation_strategy": aggregation_strategy}
        return {key: value for key, value in given.items() if value is not None}, forward, {}

    # One input → what the model needs

    def preprocess(self, post: Any, grounder=None, labeler=None, timeout: float | None = None) -> dict[str, Any]:
        """Read one input.

        Returns:
            text; words [(word, start, end)]; picture; nodes (lists of dicts: "objects", and "inter" and "intra"
            neighbours where the processor has such); features (a batch of one).

        Raises:
            ValueError: there is no text, or no readable picture, or something else in the input is wrong.
        """
        post = {"text": post} if isinstance(post, str) else post
        if not isinstance(post, Mapping):
            raise ValueError(f'a post is a string or {{"text": …, "image": …}}, not {type(post).__name__}')
        if ignored := sorted(post.keys() - self.input_columns - {"id", "ner_tags"}):
            logger.warning_once(f"Posts have keys that are not read: {', '.join(map(str, ignored))}.")
        text, words = _read_words(post)
        picture = _read_picture(post.get("image"), timeout)
        given = {name: post[name] for name in self.processor.row_columns if post.get(name) is not None}
        item = {"text": text, "words": words, "picture": picture, "nodes": {}, "features": None}
        if not words:
            return item
        own_words = [word for word, _, _ in words]
        if given.get("object_features") is None:
            given["objects"] = self.processor.find_objects([own_words], [picture], [given.get("objects")], grounder)[0]
        if hasattr(self.processor, "find_neighbors"):
            columns = ("id", "object_labels", "neighbors_inter", "neighbors_intra")
            queries = [" ".join(own_words)], [picture], *([given.get(name)] for name in columns)
            (given["neighbors_inter"],), (given["neighbors_intra"],) = self.processor.find_neighbors(*queries, labeler)
        names = {"objects": "objects", "neighbors_inter": "inter", "neighbors_intra": "intra"}
        nodes = {names[column]: given[column] for column in names if given.get(column) is not None}
        return item | {"nodes": nodes, "features": self.processor(words=own_words, images=picture, **given)}

    def _preprocess_or_error(self, post: Any, **parameters) -> dict[str, Any]:
        try:
            item = self.preprocess(post, **parameters)
        except ValueError as error:
            return {"error": str(error)}
        except Exception as error:  # one bad post must not stop a million
            return {"error": f"{type(error).__name__}: {error}"}
        del item["picture"]  # has become crops
        return item

    # Batches

    def get_iterator(self, inputs, num_workers, batch_size, preprocess_params, forward_params, postprocess_params):
        """Yield the results of inputs in their order; within a window, posts of like size share a batch."""
        if hasattr(inputs, "__len__") and hasattr(inputs, "__getitem__"):
            inputs = map(inputs.__getitem__, range(len(inputs)))
        inputs = iter(inputs)
        window_size = BATCHES_PER_WINDOW * batch_size if batch_size > 1 or num_workers else 1
        orders = deque()  # of the windows under way

        def batches():
            while window := list(islice(inputs, window_size)):
                order = sorted(range(len(window)), key=lambda i: _size(window[i]))
                orders.append(order)
                for start in range(0, len(order), batch_size):
                    yield [window[i] for i in order[start : start + batch_size]]

        posts = _Prepared(self._preprocess_or_error, preprocess_params)
        loader = DataLoader(posts, batch_sampler=batches(), num_workers=num_workers, collate_fn=list)
        results = (result for batch in loader for result in self.tag_batch(batch, **forward_params))
        for result in results:
            order = orders.popleft()
            found = zip(order, [result, *islice(results, len(order) - 1)], strict=True)
            yield from (result for _, result in sorted(found, key=lambda pair: pair[0]))

    def run_single(self, inputs, preprocess_params, forward_params, postprocess_params):
        """Return the result of one input."""
        return next(self.get_iterator([inputs], 0, 1, preprocess_params, forward_params, postprocess_params))

    def tag_batch(self, items: list[dict[str, Any]], **forward_params) -> list[Any]:
        """Results of items made by `preprocess`; items with an error, or without words, do not reach the model."""
        results = [{"error": item["error"]} if "error" in item else [] for item in items]
        alike = {}  # crops and given features are different inputs: the model takes one kind at a time
        for i, item in enumerate(items):
            if item.get("features") is not None:
                alike.setdefault("object_features" in item["features"], []).append(i)
        for rows in alike.values():
            features = stack([items[i]["features"] for i in rows], self.processor.tokenizer.pad_token_id)
            outputs = self.forward(features, **forward_params)
            for row, i in enumerate(rows):
                results[i] = self.postprocess({"item": items[i], "row": row, **outputs})
        return results

    # The model

    def _forward(self, features: dict[str, torch.Tensor], aggregation_strategy: str = "simple") -> dict[str, Any]:
        outputs, mask, steps = run_crf_steps(self.model, features)
        labels = labels_of_words(self.model, outputs.predictions, steps)
        if aggregation_strategy == "none":
            marginals = self.model.crf.marginals(outputs.logits, mask)  # [B, s, labels]
            chosen = outputs.predictions.clamp(min=0)[..., None]
            scores = marginals.gather(2, chosen)[..., 0].gather(1, steps.clamp(min=0)).masked_fill(steps < 0, 0)
            return {"labels": labels, "word_scores": scores}
        spans = [(row, *span) for row, own in enumerate(labels) for span in entity_spans(own)]
        scores = span_scores(self.model, outputs.logits, mask, steps, outputs.predictions, spans)
        entities = [[] for _ in labels]
        for (row, *span), score in zip(spans, scores.tolist(), strict=True):
            entities[row].append((*span, score))
        return {"entities": entities, "weights": node_weights(outputs, steps, features)}

    def postprocess(self, outputs: dict[str, Any]) -> list[dict[str, Any]]:
        """Turn the model's output for one post into dicts."""
        item, row = outputs["item"], outputs["row"]
        text, words = item["text"], item["words"]
        if "labels" in outputs:
            scores = outputs["word_scores"][row].tolist()
            return [
                {"entity": label, "score": score, "index": i, "word": word, "start": start, "end": end}
                for i, ((word, start, end), label, score) in enumerate(
                    zip(words, outputs["labels"][row], scores, strict=False)
                )
            ]
        results = []
        for first, after, entity_type, score in outputs["entities"][row]:
            start, end = words[first][1], words[after - 1][2]
            entity = {"entity_group": entity_type, "score": score, "word": text[start:end], "start": start, "end": end}
            weights = {kind: weight[row, first:after].mean(0).tolist() for kind, weight in outputs["weights"].items()}
            results.append(entity | linked_nodes(item["nodes"], weights))
        return results


class _Prepared(Dataset):
    """Prepares the posts that it is indexed with: in a worker of the loader, if it has any."""

    def __init__(self, prepare: Callable[..., dict[str, Any]], parameters: dict[str, Any]):
        self.prepare, self.parameters = prepare, parameters

    def __getitem__(self, post: Any) -> dict[str, Any]:
        return self.prepare(post, **self.parameters)


def run_crf_steps(model, features: Mapping[str, torch.Tensor]) -> tuple[Any, torch.Tensor, torch.Tensor]:
    """Run a model so that its logits are those of the CRF's steps s: the words, or the pieces (`subword_labels="x"`).

    Returns:
        The model's output; the mask [B, s] of the real steps; the step [B, w] of each word, -1 = none.
    """
    features = dict(features)
    word_starts = features["word_starts"]
    if model.config.subword_labels == "x":
        steps, mask = features.pop("word_starts"), features["attention_mask"].bool()
    else:
        mask = word_starts >= 0
        steps = torch.arange(word_starts.shape[1], device=word_starts.device).where(mask, -1)
    return model(**features, output_gates=True), mask, steps


def labels_of_words(model, predictions: torch.Tensor, steps: torch.Tensor) -> list[list[str]]:
    """Predicted BIO labels of the words of each row; O for a word without a step, and for a label that is not BIO."""
    predictions = predictions.gather(1, steps.clamp(min=0)).masked_fill(steps < 0, -100)
    names = {i: label if label[:2] in ("B-", "I-") else "O" for i, label in model.config.id2label.items()}
    return [[names.get(label, "O") for label in row] for row in predictions.tolist()]


def span_scores(
    model, logits: torch.Tensor, mask: torch.Tensor, steps: torch.Tensor, predictions: torch.Tensor, spans: list[tuple]
) -> torch.Tensor:
    """Probability of the labels in `predictions` for each word span (row, first, after, type) of a batch: [N]."""
    if not spans:
        return logits.new_zeros(0)
    steps, predictions = steps.tolist(), predictions.tolist()
    rows = [row for row, *_ in spans]
    starts = [steps[row][first] for row, first, _, _ in spans]
    ends = [steps[row][after - 1] + 1 for row, _, after, _ in spans]
    tags = [predictions[row][start:end] for row, start, end in zip(rows, starts, ends, strict=True)]
    return model.crf.span_probability(logits, mask, rows, starts, ends, tags)


def node_weights(outputs, steps: torch.Tensor, features: Mapping[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    """How much each word takes of each node, by kind of node: [B, w, m].

    "objects": how far their gates open, mean over the layers, and over the cells where the model splits an object into
    such. "inter": how much the words take of each neighbour; "intra": how much the own picture takes, for all words.
    """
    steps, weights = steps.clamp(min=0)[..., None], {}
    if getattr(outputs, "gates", None) and "object_mask" in features:
        gates = torch.stack(outputs.gates).mean(0)  # [B, s, m * cells]
        gates = gates.unflatten(-1, (features["object_mask"].shape[1], -1)).mean(-1)  # [B, s, m]
        weights["objects"] = gates.gather(1, steps.expand(-1, -1, gates.shape[-1]))
    if getattr(outputs, "inter_gates", None) is not None:
        gates = outputs.inter_gates  # [B, s, k]
        weights["inter"] = gates.gather(1, steps.expand(-1, -1, gates.shape[-1]))
    if getattr(outputs, "intra_gates", None) is not None:
        weights["intra"] = outputs.intra_gates.mean(1, keepdim=True).expand(-1, steps.shape[1], -1)
    return weights


def linked_nodes(nodes: Mapping[str, list[dict]], weights: Mapping[str, list[float]]) -> dict[str, list[dict]]:
    """The nodes of which an entity takes something, most important first, as "objects" and "neighbors" of a result."""
    linked = {"objects": []} | ({"neighbors": []} if "inter" in nodes or "intra" in nodes else {})
    for kind, values in weights.items():
        for node, weight in zip(nodes.get(kind, [{}] * len(values)), values, strict=False):
            if weight > 0 and kind == "objects":
                shown = {key: node[key] for key in ("box", "query") if node.get(key) is not None}
                linked["objects"].append(shown | {"weight": weight})
            elif weight > 0:
                linked["neighbors"].append({"id": node["id"], "relation": kind, "weight": weight})
    return {name: sorted(found, key=lambda node: -node["weight"]) for name, found in linked.items()}


def stack(batches: list[Mapping[str, torch.Tensor]], pad_token_id: int) -> dict[str, torch.Tensor]:
    """Join batches of one into one batch, padded to the largest; what only some have is padding in the others."""
    fill = {"input_ids": pad_token_id, "word_starts": -1}
    joined = {}
    for key in dict.fromkeys(key for batch in batches for key in batch):
        tensors = [batch.get(key) for batch in batches]
        present = [tensor for tensor in tensors if tensor is not None]
        shape = [max(sizes) for sizes in zip(*(tensor.shape[1:] for tensor in present), strict=True)]
        if key == "inter_modal_mask":  # the words of posts without nodes count too
            shape[0] = joined["word_starts"].shape[1]
        joined[key] = present[0].new_full((len(batches), *shape), fill.get(key, 0))
        for row, tensor in zip(joined[key], tensors, strict=True):
            if tensor is not None:
                row[tuple(slice(size) for size in tensor.shape[1:])] = tensor[0]
    return joined


def _read_words(post: Mapping) -> tuple[str, list[tuple[str, int, int]]]:
    """The text of a post and its words with their offsets."""
    text = post.get("text")
    words = post.get("words") if post.get("words") is not None else post.get("tokens")
    if (text is None) == (words is None):
        raise ValueError(
            'the post has no text: give "text" (a string) or "words" (a list of strings)'
            if text is None
            else 'the post has both "text" and "words": give one of them'
        )
    if text is None:
        is_list = isinstance(words, Iterable) and not isinstance(words, str)
        if not is_list or not all(isinstance(word, str) for word in words):
            raise ValueError('"words" must be a list of strings')
        text = " ".join(words)
    elif not isinstance(text, str):
        raise ValueError(f'"text" must be a string, not {type(text).__name__}')
    if any("\ud800" <= letter <= "\udfff" for letter in text):
        raise ValueError("the text holds half a character (a lone surrogate); it was decoded or cut wrongly")
    if words is None:
        return text, split_tweet(text)
    spans, start = [], 0
    for word in words:
        spans.append((word, start, start + len(word)))
        start += len(word) + 1
    return text, spans


def _read_picture(source: Any, timeout: float | None) -> Image.Image | None:
    if source is None:
        return None
    if isinstance(source, str) and source.startswith(("http://", "https://", "data:image/")):
        try:
            source = load_image(source, timeout=timeout)
        except Exception as error:
            raise UnreadablePicture(source[:80], f"cannot be fetched ({error})") from error
    return open_picture(source)


def _size(post: Any) -> tuple[int, int]:
    """Visual nodes and length of an input, as far as they can be told before reading it."""
    if not isinstance(post, Mapping):
        return 0, len(post) if isinstance(post, str) else 0
    nodes, length = post.get("objects"), 0
    for key in ("text", "words", "tokens"):
        length += len(post[key]) if hasattr(post.get(key), "__len__") else 0
    return len(nodes) if hasattr(nodes, "__len__") else int(post.get("image") is not None), length
