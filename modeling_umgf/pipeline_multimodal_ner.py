"""The pipeline "multimodal-ner": a post, or many, in; entities with exact character offsets out."""

import json
import os
from collections import deque
from collections.abc import Callable, Iterable, Mapping, Sequence
from functools import partial
from types import GeneratorType
from typing import Any

import torch
from PIL import Image
from torch.utils.data import DataLoader, Dataset
from transformers import Pipeline
from transformers.utils import logging

from .batching import SortedWindows
from .decoding import decode, decode_windows, window_batches
from .pictures import UnreadablePicture, open_picture, undecoded
from .processing_multimodal_ner import DESCRIBERS_OF_CONTEXT, NodeKind, PreparedPost, one_picture, read_words
from .web_pictures import WEB, fetch_picture
from .windows import TRUNCATIONS, Window

logger = logging.get_logger(__name__)

WINDOW = 32
"""Posts are sorted by size within so many batches;"""

FIRST_WINDOW = 4
"""within so many at the start of a stream, and always where posts may hold pictures in memory."""


ReadPost = tuple[Mapping[str, Any] | None, PreparedPost | dict[str, str]]
"""An input and what was read of it; for one that cannot be read, None and its error."""


class MultimodalNerPipeline(Pipeline):
    """Find the entities of posts with or without a picture.

        tagger = pipeline("multimodal-ner", model="folder or Hub id")
        tagger({"text": "Rihanna sings in London", "image": "rihanna.jpg"})

    An input is a string or a dict with
        text, or words (also called tokens): the post, raw or as a list of words;
        image (optional): path, bytes, PIL picture or array, or a URL, see fetch_pictures; None = no picture;
        caption, object_labels, context, …: texts that a model with such a `context` reads after the post (optional);
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
                neighbors (of systems that read other posts): the pictures of other posts that were used, {"id",
                    "relation", "weight"}, most important first; the weight is how much of it is taken.
            "none": one dict a word, also for label O: entity (label), score (the label's marginal probability), index,
                word, start, end. A word that was cut off has label O and score 0.
        truncation: what becomes of a post that is longer than the text encoder reads: "window" (default), it is read in
            overlapping windows, each word labelled where it has most context, and the labels of the whole post are
            decoded together; "error", it gets one; "warn", its last words are cut off, and the log says so.
        with_reading: give {"entities": the result as described, "windows": in how many the post was read,
            "unread_words": how many were cut off} for each input; default: only the result.
        grounder, labeler, captioner: find the objects of pictures, name them, or describe the pictures, where the input
            does not; see the processor.
        fetch_pictures: fetch pictures that are given as web addresses, from public addresses alone and up to 30 MB;
            default: they are refused.
        timeout: seconds that fetching a picture may take; default 20.
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
        if self.processor is None or not hasattr(model, "label_decoder"):
            raise ValueError(
                "The pipeline multimodal-ner needs a tagger of modeling_umgf, and processor=… where it is not found."
            )
        self.model.eval()
        size = self.processor.image_processor.size if self.processor.reads_pictures else None
        room = self.model.base_model.max_pieces(size and (size["height"], size["width"]))
        self.options = self.processor.sort_options({})
        self.options["text_kwargs"]["max_length"] = min(room, self.processor.tokenizer.model_max_length)

    def __call__(self, inputs: Any, **kwargs) -> Any:
        """Tag one input or many; see the class."""
        if isinstance(inputs, list) and not inputs:
            return []
        inputs = undecoded(inputs)
        if not isinstance(inputs, str | Mapping | list | GeneratorType | Dataset) and isinstance(inputs, Iterable):
            inputs = (one for one in inputs)  # a tuple, a datasets.Dataset, …
        return super().__call__(inputs, **kwargs)

    @property
    def input_columns(self) -> set[str]:
        """Keys of an input that are read; others are ignored, with a warning."""
        described = {"image"} if self.processor.describers else set()
        return {"text", "words", "tokens", *self.processor.columns, *described}

    def save_pretrained(self, save_directory: str | os.PathLike, **kwargs: Any) -> None:
        """Save model and processor, with the code of both and of this pipeline."""
        self.model.save_pretrained(save_directory, **kwargs)
        self.processor.save_pretrained(save_directory)

    def _sanitize_parameters(
        self,
        aggregation_strategy=None,
        grounder=None,
        labeler=None,
        captioner=None,
        fetch_pictures=None,
        timeout=None,
        truncation=None,
        with_reading=None,
    ):
        if aggregation_strategy not in (None, "none", "simple"):
            raise ValueError(
                f"aggregation_strategy={aggregation_strategy!r}: use 'simple' (entities) or 'none' (words). The others "
                "reconcile the labels of a word's pieces, but here the CRF labels whole words."
            )
        if truncation not in (None, *TRUNCATIONS):
            raise ValueError(f"truncation={truncation!r}: use {', '.join(map(repr, TRUNCATIONS))}.")
        describers = {"grounder": grounder, "labeler": labeler, "captioner": captioner}
        given = {"fetch_pictures": fetch_pictures, "timeout": timeout, "truncation": truncation} | describers
        given = {name: value for name, value in given.items() if value is not None}
        for name in given.keys() & describers.keys() - set(self.processor.describers):
            raise ValueError(f"{name}: {type(self.processor).__name__} calls none; leave it out.")
        forward = {"aggregation_strategy": aggregation_strategy, "with_reading": with_reading}
        return given, {name: value for name, value in forward.items() if value is not None}, {}

    # One input → what the model needs

    def preprocess(self, post: Any, truncation: str = TRUNCATIONS[0], **parameters: Any) -> PreparedPost:
        """Read one input; the parameters are those of the call, see the class.

        Raises:
            ValueError: there is no text, or no readable picture, or something else in the input is wrong.
        """
        given, prepared = self.read_text(post, **parameters)
        self.processor.add_pieces([prepared], self.options["text_kwargs"] | {"truncation": truncation})
        return self.add_nodes(given, prepared, **parameters)

    def read_text(
        self, post: Any, fetch_pictures: bool = False, timeout: float | None = None, **describers: Callable
    ) -> ReadPost:
        """Read the words of one input, and those of its context; see `preprocess`."""
        given = {"text": post} if isinstance(post, str) else post
        if not isinstance(given, Mapping):
            raise ValueError(f'a post is a string or {{"text": …, "image": …}}, not {type(post).__name__}')
        unread = given.keys() - self.input_columns - {"id", "ner_tags"}
        if unread := sorted(str(name) for name in unread if given[name] is not None):
            logger.warning_once(f"Posts have keys that are not read: {', '.join(unread)}.{_how_to_read(unread)}")
        if self.processor.context_to_find(given, describers):
            given = {**given, "image": self.open_picture(given["image"], fetch_pictures, timeout)}
            (given,) = self.processor.find_context([given], **describers)
        return given, PreparedPost(*read_words(given), context=self.processor.context_words(given))

    def add_nodes(
        self,
        given: Mapping[str, Any],
        prepared: PreparedPost,
        fetch_pictures: bool = False,
        timeout: float | None = None,
        **describers: Callable,
    ) -> PreparedPost:
        """Open the picture of a post whose words are read, and make of it and the columns what the model reads."""
        if self.processor.reads_pictures:
            prepared.picture = self.open_picture(given.get("image"), fetch_pictures, timeout)
        describers = self.processor.describers_of_nodes(describers)
        self.processor.add_nodes([prepared], [given], self.options["images_kwargs"], **describers)
        return prepared

    def open_picture(
        self, source: Any, fetch_pictures: bool = False, timeout: float | None = None
    ) -> Image.Image | None:
        """Open what a post has as its picture; the parameters are those of the call.

        Raises:
            UnreadablePicture: it is none, or may not be fetched.
        """
        source = _fetch(one_picture(source), fetch_pictures, timeout)
        return None if source is None else open_picture(source)

    # Many inputs: first the texts of a window, then batch by batch the rest

    def read_window(self, posts: Sequence[Any], truncation: str = TRUNCATIONS[0], **parameters: Any) -> list[ReadPost]:
        """Read the texts of inputs and tokenise them together; what cannot be read has its error for a post."""
        read = [_or_error(self.read_text, post, **parameters) for post in posts]
        read = [(None, post) if isinstance(post, dict) else post for post in read]
        whole = {i: post for i, (given, post) in enumerate(read) if given is not None}
        options = self.options["text_kwargs"] | {"truncation": truncation}
        if whole and _or_error(self.processor.add_pieces, list(whole.values()), options):
            for i, post in whole.items():  # which one was it?
                if error := _or_error(self.processor.add_pieces, [post], options):
                    read[i] = None, error
        return read

    def _add_nodes_or_error(self, read: ReadPost, **parameters) -> PreparedPost | dict[str, str]:
        given, prepared = read
        if isinstance(prepared, dict):
            return prepared
        prepared = _or_error(self.add_nodes, given, prepared, **parameters)
        if not isinstance(prepared, dict):
            prepared.picture = None  # has become crops
        return prepared

    def get_iterator(self, inputs, num_workers, batch_size, preprocess_params, forward_params, postprocess_params):
        """Return the results of inputs in their order; within a window, posts of like size share a batch."""
        at_once = batch_size if batch_size > 1 or num_workers else 0
        first = max(1, FIRST_WINDOW * at_once)
        window = first if self.processor.reads_pictures else max(1, WINDOW * at_once)
        if hasattr(inputs, "__len__") and hasattr(inputs, "__getitem__"):  # all are there: nobody waits for a window
            inputs = map(inputs.__getitem__, range(len(inputs)))
            first = window
        read_window = partial(self.read_window, **preprocess_params)
        preprocess_params = {name: own for name, own in preprocess_params.items() if name != "truncation"}
        batches = SortedWindows(inputs, batch_size, first, window, _size, read_window)
        texts = deque()  # of the batches under way

        def without_pieces():  # which no worker needs
            for batch in batches:
                texts.append([post for _, post in batch])
                yield [(given, post if given is None else PreparedPost(post.text, post.words)) for given, post in batch]

        def tagged():
            for batch in loader:
                for text, post in zip(texts.popleft(), batch, strict=True):
                    if not isinstance(post, dict):
                        post.features |= text.features
                        post.windows = text.windows
                yield from self.tag_batch(batch, **forward_params)

        posts = _Prepared(self._add_nodes_or_error, preprocess_params)
        loader = DataLoader(posts, batch_sampler=without_pieces(), num_workers=num_workers, collate_fn=list)
        return batches.in_order(tagged())

    def run_single(self, inputs, preprocess_params, forward_params, postprocess_params):
        """Return the result of one input."""
        return next(self.get_iterator([inputs], 0, 1, preprocess_params, forward_params, postprocess_params))

    def tag_batch(
        self, items: list[PreparedPost | dict[str, str]], with_reading: bool = False, **forward_params
    ) -> list[Any]:
        """Results of posts made by `preprocess`; those with an error, or without words, do not reach the model.

        Raises:
            torch.AcceleratorError: the device failed, and would do so on all that follow.
        """
        results = [item if isinstance(item, dict) else [] for item in items]
        posts = {i: item for i, item in enumerate(items) if not isinstance(item, dict)}
        alike = {}  # crops and given features are different inputs: the model takes one kind at a time
        for i, post in posts.items():
            if post.words:
                kind = f"post {i}" if post.windows else "object_features" in post.features
                alike.setdefault(kind, []).append(i)
        for rows in alike.values():
            tagged = self._tag_alike([posts[i] for i in rows], forward_params)
            for i, result in zip(rows, tagged, strict=True):
                results[i] = result
        if with_reading:
            for i, post in posts.items():
                if not isinstance(results[i], dict):
                    read = {"windows": len(post.windows) or 1, "unread_words": post.unread_words}
                    results[i] = {"entities": results[i], **read}
        return results

    def _tag_alike(self, posts: list[PreparedPost], forward_params: dict[str, Any]) -> list[Any]:
        """Results of posts that the model can take at once; where it fails on some, these alone have the error."""
        try:
            if posts[0].windows:
                features = window_batches(self.model, self.processor, posts[0], self.options)
            else:
                features = self.processor.batch(posts, options=self.options)
            outputs = self.forward(features, **forward_params)
            return [self.postprocess({"post": post, "row": row, **outputs}) for row, post in enumerate(posts)]
        except torch.AcceleratorError:
            raise
        except Exception as error:
            if len(posts) == 1:
                return [_told(error)]
        half = len(posts) // 2
        return self._tag_alike(posts[:half], forward_params) + self._tag_alike(posts[half:], forward_params)

    # The model

    def _forward(
        self,
        features: Mapping[str, torch.Tensor] | Iterable[tuple[Window, Mapping[str, torch.Tensor]]],
        aggregation_strategy: str = "simple",
    ) -> dict[str, Any]:
        decoded = (decode if isinstance(features, Mapping) else decode_windows)(self.model, features)
        if aggregation_strategy == "none":
            return {"labels": decoded.word_labels(), "word_scores": decoded.word_scores()}
        spans = decoded.spans()
        return {"spans": spans, "span_scores": decoded.span_scores(spans), "gates": decoded.gates}

    def postprocess(self, outputs: dict[str, Any]) -> list[dict[str, Any]]:
        """Turn the model's output for one post into dicts."""
        post = outputs["post"]
        row = outputs["row"]
        if "labels" in outputs:
            rows = zip(post.words, outputs["labels"][row], outputs["word_scores"][row].tolist(), strict=False)
            return [
                {"entity": label, "score": score, "index": i, "word": word, "start": start, "end": end}
                for i, ((word, start, end), label, score) in enumerate(rows)
            ]
        results = []
        for span, score in zip(outputs["spans"][row], outputs["span_scores"][row], strict=True):
            gates = {kind: gate[row] for kind, gate in outputs["gates"].items()}
            results.append(describe_entity(post, span, score) | self._linked_nodes(post, span, gates))
        return results

    def _linked_nodes(
        self, post: PreparedPost, span: tuple[int, int, str], gates: Mapping[str, torch.Tensor]
    ) -> dict[str, list[dict]]:
        """The nodes of which the words of an entity take something, most important first."""
        linked = {kind.result: [] for name, kind in self.processor.node_kinds.items() if name in post.nodes}
        for name, gate in gates.items():
            kind = self.processor.node_kinds[name]
            nodes = post.nodes.get(name, [])
            for node, weight in zip(nodes, node_weights(gate, span), strict=False):
                if weight > 0:
                    linked[kind.result].append(shown(node, kind) | {"weight": weight})
        return {name: sorted(nodes, key=lambda node: -node["weight"]) for name, nodes in linked.items()}


class _Prepared(Dataset):
    """Prepares the posts that it is indexed with: in a worker of the loader, if it has any."""

    def __init__(self, prepare: Callable[..., dict[str, Any]], parameters: dict[str, Any]):
        self.prepare = prepare
        self.parameters = parameters

    def __getitem__(self, post: Any) -> dict[str, Any]:
        return self.prepare(post, **self.parameters)


def describe_entity(post: PreparedPost, span: tuple[int, int, str], score: float) -> dict[str, Any]:
    """An entity (first word, word after the last, type) of a post as the pipeline returns it."""
    first, after, entity_type = span
    start, end = post.words[first][1], post.words[after - 1][2]
    return {"entity_group": entity_type, "score": score, "word": post.text[start:end], "start": start, "end": end}


def node_weights(gate: torch.Tensor, span: tuple[int, int, str]) -> Sequence[float]:
    """How much the words of an entity take of each node: the mean over the words of a gate [w, nodes]."""
    first, after, _ = span
    return gate[first:after].mean(0).tolist()


def shown(node: Mapping[str, Any], kind: NodeKind) -> dict[str, Any]:
    """What a result repeats of a node."""
    return {name: node[name] for name in kind.shown if node.get(name) is not None}


def _how_to_read(unread: Sequence[str]) -> str:
    """What must be done so that the context among some keys is read."""
    if texts := [name for name in unread if name in ("context", *DESCRIBERS_OF_CONTEXT.values())]:
        setting = f'{{"context": {json.dumps(texts)}}}'
        return f" A model reads such texts that was trained with them: --processor_overrides '{setting}'."
    return ""


def _fetch(source: Any, allowed: bool, timeout: float | None) -> Any:
    """Fetch a picture from the web, if that is allowed; whatever is no web address is left as it is."""
    if not isinstance(source, str) or not source.startswith((*WEB, "data:image/")):
        return source
    if source.startswith(WEB) and not allowed:
        reason = "a web address, and pictures are only fetched where that is asked for: fetch_pictures=True"
        raise UnreadablePicture(source[:80], reason)
    return fetch_picture(source, timeout)


def _or_error(function: Callable, *arguments: Any, **settings: Any) -> Any:
    """Call a function; returns {"error": "why"} where it fails: one bad post must not stop a million."""
    try:
        return function(*arguments, **settings)
    except Exception as error:
        return _told(error)


def _told(error: Exception) -> dict[str, str]:
    """The result of a post that cannot be tagged; an error that nobody foresaw has its type."""
    return {"error": str(error) if isinstance(error, ValueError) else f"{type(error).__name__}: {error}"}


def _size(read: ReadPost) -> tuple[int, int]:
    """Visual nodes, as far as they can be told before opening pictures, and pieces of a post."""
    given, prepared = read
    if given is None:
        return 0, 0
    nodes = given.get("objects")
    nodes = len(nodes) if hasattr(nodes, "__len__") else int(given.get("image") is not None)
    return nodes, len(prepared.features["input_ids"])
