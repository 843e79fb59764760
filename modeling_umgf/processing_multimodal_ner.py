"""Posts → the batch that a model reads: what the processors of all systems share."""

import os
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, ClassVar

import numpy as np
import torch
from PIL import Image
from transformers import BatchFeature, ProcessorMixin
from transformers.processing_utils import ProcessingKwargs
from transformers.utils import logging

from .batching import stack
from .carried_code import carry_code
from .pictures import open_picture
from .text_splitting import split_post

logger = logging.get_logger(__name__)


@dataclass(frozen=True)
class NodeKind:
    """A kind of node that words take something of.

    Args:
        mask: name of the tensor [B, nodes] of the batch that says which are real.
        title: what to call such a node.
        result: key of an entity under which the pipeline lists them.
        shown: keys of a node that a result repeats.
    """

    mask: str
    title: str
    result: str
    shown: tuple[str, ...]


OBJECTS = NodeKind("object_mask", "object", "objects", ("box", "query"))


@dataclass
class PreparedPost:
    """A post that was read once, with all that models, results and drawings need of it.

    Args:
        text: the post as it was given; of words, " ".join(words). None where there is only a picture.
        words: (word, start, end) with text[start:end] == word.
        picture: the opened picture, or None.
        nodes: for each kind of node the nodes, as dicts, in the order of the tensors.
        features: the tensors that a model reads, by their names in a batch, without the dimension of the batch.
    """

    text: str | None
    words: list[tuple[str, int, int]]
    picture: Image.Image | None = None
    nodes: dict[str, list[dict]] = field(default_factory=dict)
    features: dict[str, torch.Tensor] = field(default_factory=dict)

    @property
    def tokens(self) -> list[str]:
        """The words without their places."""
        return [word for word, _, _ in self.words]


class MultimodalNerProcessorKwargs(ProcessingKwargs, total=False):
    pass


class MultimodalNerProcessor(ProcessorMixin):
    """Tokenizer, and what else a system needs, behind one call; the base of the processors of all systems.

    A subclass names the `columns` that it reads besides words and labels, the kinds of its nodes, the describers that
    it can call, and implements `add_nodes`. Without any of that it reads text alone.

    Args:
        parts: image processor and tokenizer, or the tokenizer alone, in the order of the subclass's arguments.
        unknown: settings that there are not; raises TypeError.
    """

    columns: ClassVar[tuple[str, ...]] = ()
    describers: ClassVar[tuple[str, ...]] = ()  # functions that find what is not given: "grounder", "labeler"
    node_kinds: ClassVar[dict[str, NodeKind]] = {}
    valid_processor_kwargs = MultimodalNerProcessorKwargs
    text_kwargs: ClassVar[dict[str, Any]] = {"padding": True}

    def __init__(self, *parts, **unknown):
        if unknown := [name for name in unknown if name not in ("auto_map", "processor_class") and name[0] != "_"]:
            raise TypeError(f"{type(self).__name__} has no setting {', '.join(sorted(unknown))}.")
        super().__init__(*parts)

    @property
    def reads_pictures(self) -> bool:
        """Whether pictures are opened at all."""
        return "image" in self.columns

    @property
    def model_input_names(self) -> list[str]:
        """Names of the tensors of a batch."""
        masks = [kind.mask for kind in self.node_kinds.values()]
        return ["input_ids", "attention_mask", "word_starts", *masks]

    # ------------------------------------------------------------------------------------------------- one call

    def __call__(
        self,
        images: Any = None,
        text: str | Sequence[str] | None = None,
        words: Sequence[str] | Sequence[Sequence[str]] | None = None,
        labels: Sequence[int] | Sequence[Sequence[int]] | None = None,
        image: Any = None,
        **kwargs: Any,
    ) -> BatchFeature:
        """Make a batch of one post or of several; everything is given once a post.

        Args:
            images: a picture (PIL, path, array, bytes) or None; a list for several posts. `image` is the same.
            text: raw text, split into words by `split_post`; or
            words: the words of one post, or a list of them for each.
            labels: label ids, one a word.
            kwargs: the other columns that the system reads, see its class; what describes pictures, such as a
                `grounder`; and the options of transformers' processors: `padding` (default: to the longest post),
                `max_length` (pieces of a post at most, default: what the tokenizer says), `size` and so on, also in
                `text_kwargs` and `images_kwargs`.

        Returns:
            input_ids, attention_mask [B, n]; word_starts [B, w]; the tensors of the system's nodes, where a post has
            any; labels [B, w].

        Raises:
            TypeError: an argument that there is not.
            ValueError: neither text nor words nor pictures, or lengths that do not fit, with the number of the post.
            UnreadablePicture: a picture cannot be opened.
        """
        if image is not None and images is not None:
            raise ValueError("images and image are the same: give one of them.")
        images = image if images is None else images
        if text is not None and words is not None:
            raise ValueError("Give either text=… (raw) or words=… (already split), not both.")
        columns = {name: kwargs.pop(name) for name in self.columns if name in kwargs} | {"image": images}
        describers = {name: kwargs.pop(name) for name in self.describers if name in kwargs}
        options = self._options(kwargs)
        posts = _posts(text, words, columns, labels)
        prepared = self.prepare(posts, options=options, **describers)
        labels = None if labels is None else [post["labels"] for post in posts]
        return self.batch(prepared, labels, options)

    def _options(self, kwargs: dict[str, Any]) -> dict[str, dict[str, Any]]:
        """Sort the options of transformers into `text_kwargs`, `images_kwargs` …; refuse what is none."""
        groups = self.valid_processor_kwargs.__annotations__
        known = {"common_kwargs", *groups}
        for group in ("text_kwargs", "images_kwargs"):
            known |= set(groups[group].__annotations__)
        if unknown := sorted(kwargs.keys() - known):
            raise TypeError(f"{type(self).__name__} has no argument {', '.join(unknown)}; it reads {self._readable()}.")
        options = self._merge_kwargs(self.valid_processor_kwargs, self.tokenizer.init_kwargs, **kwargs)
        if options["text_kwargs"].get("return_tensors", "pt") not in ("pt", "np", None):
            given = options["text_kwargs"]["return_tensors"]
            raise ValueError(f"return_tensors={given!r}: the models read PyTorch tensors, use 'pt'.")
        return options

    def _readable(self) -> str:
        names = ("images", "text", "words", "labels", *self.columns, *self.describers)
        return ", ".join(dict.fromkeys(name for name in names if name != "image"))

    # ------------------------------------------------------------------------------------------- post by post

    def prepare(
        self, posts: Sequence[Mapping[str, Any]], options: dict[str, dict] | None = None, **describers: Callable | None
    ) -> list[PreparedPost]:
        """Read posts: words, picture, nodes and tensors, each once.

        Args:
            posts: for each a mapping with `text` or `words` (also called `tokens`), and the columns that the system
                reads; whatever else it has is passed over.
            options: `text_kwargs` and `images_kwargs`, as `__call__` sorts them.
            describers: functions that find what the posts don't bring; see `describers` of the system.

        Raises:
            ValueError, UnreadablePicture: a post cannot be read; in a list of several the message names it.
        """
        for name in describers.keys() - set(self.describers):
            if describers[name] is not None:
                raise TypeError(f"{type(self).__name__} calls no {name}; it reads {self._readable()}.")
        describers = {name: describers.get(name) for name in self.describers}
        options = options or self._options({})
        prepared = [self._named(i, len(posts), self.read, post) for i, post in enumerate(posts)]
        if any(post.text is not None for post in prepared):
            self.add_pieces(prepared, options["text_kwargs"])
        self.add_nodes(prepared, posts, options["images_kwargs"], **describers)
        return prepared

    def read(self, post: Mapping[str, Any]) -> PreparedPost:
        """Read the words of a post and open its picture."""
        text, words = read_words(post)
        source = post.get("image") if self.reads_pictures else None
        return PreparedPost(text, words, None if source is None else open_picture(source))

    def add_pieces(self, prepared: Sequence[PreparedPost], options: Mapping[str, Any]) -> None:
        """Tokenise each word by itself; every word gets a first piece, except beyond the limit of pieces (warned)."""
        unknown = self.tokenizer.unk_token
        limit = options.get("max_length") or self.tokenizer.model_max_length
        encode = {"is_split_into_words": True, "return_token_type_ids": False}
        words = [[word if word.strip() else unknown for word in post.tokens] for post in prepared]
        rows = self.tokenizer(words, **encode)
        for i, (post, own) in enumerate(zip(prepared, words, strict=True)):
            ids, word_ids = rows["input_ids"][i], rows.word_ids(i)
            missing = set(range(len(own))) - set(word_ids)
            if missing:  # words that the tokenizer deletes, such as a lone variation selector
                own = [unknown if k in missing else word for k, word in enumerate(own)]
                row = self.tokenizer([own], **encode)
                ids, word_ids = row["input_ids"][0], row.word_ids(0)
            if len(ids) > limit and options.get("truncation") is not False:
                ids, word_ids = _cut(ids, word_ids, limit)
            first = {}
            for position, word in enumerate(word_ids):
                if word is not None:
                    first.setdefault(word, position)
            starts = [first.get(k, -1) for k in range(len(own))]
            if lost := starts.count(-1):
                logger.warning(
                    f"A post of {len(own)} words ('{' '.join(own[:4])} …') is longer than the {limit} pieces that are "
                    f"read: its last {lost} words get no label."
                )
            post.features |= {
                "input_ids": torch.tensor(ids, dtype=torch.long),
                "attention_mask": torch.ones(len(ids), dtype=torch.long),
                "word_starts": torch.tensor(starts or [-1], dtype=torch.long),
            }

    def add_nodes(
        self,
        prepared: Sequence[PreparedPost],
        posts: Sequence[Mapping[str, Any]],
        options: Mapping[str, Any],
        **describers: Callable | None,
    ) -> None:
        """Give prepared posts the nodes and tensors of the system; to be implemented by those that have some.

        Args:
            prepared: the posts, their words read and their pictures opened.
            posts: the same posts as they were given, with their columns.
            options: for the image processor.
            describers: functions that find what is not given, or None.
        """

    def batch(
        self,
        prepared: Sequence[PreparedPost],
        labels: Sequence[Sequence[int] | None] | None = None,
        options: dict[str, dict] | None = None,
    ) -> BatchFeature:
        """Join prepared posts into a batch.

        Args:
            prepared: what `prepare` returned.
            labels: label ids of the words of each post.
            options: as for `prepare`.
        """
        features = [dict(post.features) for post in prepared]
        for i, own in enumerate(labels or []):
            if own is not None and len(own) != len(prepared[i].words):
                raise ValueError(f"Post {i} of the batch has {len(prepared[i].words)} words but {len(own)} labels.")
            features[i]["labels"] = torch.tensor(own or [-100], dtype=torch.long)
        options = (options or self._options({}))["text_kwargs"]
        length = options.get("max_length") if options.get("padding") == "max_length" else None
        side = options.get("padding_side") or self.tokenizer.padding_side
        batch = stack(features, self.tokenizer.pad_token_id, side, length)
        if options.get("return_tensors") == "np":
            batch = {name: tensor.numpy() for name, tensor in batch.items()}
        return BatchFeature(batch)

    def save_pretrained(self, save_directory: str | os.PathLike, push_to_hub: bool = False, **kwargs) -> list[str]:
        """Save as every processor of transformers, with code that AutoProcessor finds without this package."""
        files = super().save_pretrained(save_directory)
        carry_code(save_directory)
        if push_to_hub:
            self.push_to_hub(kwargs.pop("repo_id", os.path.basename(save_directory)), **kwargs)
        return files

    # ------------------------------------------------------------------------------------------------ pictures

    def add_objects(
        self,
        prepared: Sequence[PreparedPost],
        objects: Sequence[list[dict] | None],
        object_features: Sequence[Any],
        options: Mapping[str, Any],
    ) -> None:
        """Give posts the tensors of their visual nodes: crops of their pictures, or the features that are given.

        Args:
            prepared: the posts.
            objects: the nodes of each, {"box" (for crops), "phrase": {"start", "end"} or None}; None = as many as there
                are features, linked to every word.
            object_features: [m, F] features of each post's nodes, or None: crops are made.
            options: for the image processor.
        """
        for i, (post, own, given) in enumerate(zip(prepared, objects, object_features, strict=True)):
            where = f"Post {i} of the batch"
            if given is not None:
                given = np.asarray(given, dtype=np.float32)
                own = [{"phrase": None}] * len(given) if own is None else own
                if len(own) != len(given):
                    raise ValueError(f"{where} has {len(own)} objects but {len(given)} object_features.")
                if len(own):
                    if given.ndim != 2:
                        raise ValueError(
                            f"{where}: object_features of shape {list(given.shape)}; give [objects, width]."
                        )
                    post.features["object_features"] = torch.from_numpy(given)
            elif own:
                crops = self.image_processor.crop(post.picture, [node["box"] for node in own])
                pixels = self.image_processor(crops, **{**options, "return_tensors": None})["pixel_values"]
                post.features["pixel_values"] = torch.from_numpy(np.stack(pixels))
            own = own or []
            post.nodes["objects"] = list(own)
            edges = torch.zeros(max(len(post.words), 1), len(own), dtype=torch.bool)
            for j, node in enumerate(own):
                edges[_linked_words(node, len(post.words), where), j] = True
            post.features["object_mask"] = torch.ones(len(own), dtype=torch.bool)
            post.features["inter_modal_mask"] = edges

    def given_features(self, posts: Sequence[Mapping[str, Any]], prepared: Sequence[PreparedPost]) -> list[Any]:
        """The column `object_features` of posts; where some have it, the pictures of the others are not used."""
        features = [post.get("object_features") for post in posts]
        if any(own is not None for own in features):
            unused = [i for i, own in enumerate(features) if own is None and prepared[i].picture is not None]
            if any(posts[i].get("objects") is None for i in unused):
                logger.warning_once(
                    "Some posts have a picture but no object_features, as other posts of their batch do: their "
                    "pictures are not used. Give features for all posts, or for none."
                )
            features = [np.zeros((0, 0)) if i in unused else own for i, own in enumerate(features)]
        return features

    def _named(self, i: int, count: int, function: Callable, post: Mapping[str, Any]) -> Any:
        """Call a function on a post; among several, its ValueErrors say which post it was."""
        try:
            return function(post)
        except ValueError as error:
            if count > 1 and not hasattr(error, "reason"):
                raise ValueError(f"Post {i} of the batch: {error}") from error
            raise


def read_words(post: Mapping[str, Any]) -> tuple[str | None, list[tuple[str, int, int]]]:
    """The text of a post and its words with their places in it; None where the post has neither.

    Raises:
        ValueError: both text and words, or something that is neither.
    """
    text = post.get("text")
    words = post.get("words") if post.get("words") is not None else post.get("tokens")
    if text is not None and words is not None:
        raise ValueError('the post has both "text" and "words": give one of them')
    if text is None and words is None:
        return None, []
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
        return text, split_post(text)
    spans, start = [], 0
    for word in words:
        spans.append((word, start, start + len(word)))
        start += len(word) + 1
    return text, spans


def _posts(text: Any, words: Any, columns: Mapping[str, Any], labels: Any) -> list[dict[str, Any]]:
    """Turn arguments that hold one value a post, or the value of a single post, into one mapping a post."""
    given = {"text": text, "words": words} | columns
    if all(value is None for value in given.values()):
        raise ValueError("There is nothing to read: give text=… or words=…, and images=… where there are pictures.")
    if text is not None:
        single, size = isinstance(text, str), len(text)
    elif words is not None:
        single, size = not len(words) or isinstance(words[0], str), len(words)
    else:
        single, size = not isinstance(columns["image"], list | tuple), len(columns["image"] or [])
    if single:
        return [given | {"labels": labels}]
    if not size:
        raise ValueError("There is nothing to read: the list of posts is empty.")
    posts = [{} for _ in range(size)]
    for name, values in (given | {"labels": labels}).items():
        shown = "images" if name == "image" else name
        if values is not None and (
            not isinstance(values, list | tuple | np.ndarray | torch.Tensor) or len(values) != size
        ):
            number = len(values) if isinstance(values, list | tuple) else f"a single {type(values).__name__}"
            raise ValueError(f"{size} posts but {number} for {shown}: give a list with one entry a post, or None.")
        for i, post in enumerate(posts):
            post[name] = None if values is None else values[i]
    return posts


def check_objects(objects: Any, i: int) -> None:
    """Raise ValueError where the objects of post i of a batch are not a list of mappings, or None."""
    is_list = objects is None or isinstance(objects, list | tuple)
    if not is_list or not all(isinstance(node, Mapping) for node in objects or ()):
        raise ValueError(
            f'Post {i} of the batch: objects must be a list of {{"box": …, "phrase": …}}, or None; of several posts a '
            "list of such lists."
        )


def _linked_words(node: Mapping[str, Any], num_words: int, where: str) -> slice:
    """The words that a node is linked to: those of its phrase, or all."""
    phrase = node.get("phrase")
    if phrase is None:
        return slice(num_words)
    start, end = phrase["start"], phrase["end"]
    if not 0 <= start < end <= num_words:
        raise ValueError(f"{where} has {num_words} words, but an object is linked to the phrase {start}..{end}.")
    return slice(start, end)


def _cut(ids: list[int], word_ids: list[int | None], limit: int) -> tuple[list[int], list[int | None]]:
    """The first pieces of a post, up to the limit; special tokens at its end stay."""
    tail = 0
    while word_ids[len(ids) - 1 - tail] is None:
        tail += 1
    return ids[: limit - tail] + ids[len(ids) - tail :], word_ids[: limit - tail] + [None] * tail
