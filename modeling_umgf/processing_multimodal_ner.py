"""Posts → the batch that a model reads: what the processors of all systems share."""

import json
import math
import os
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import torch
from PIL import Image
from transformers import BatchFeature, PreTrainedConfig, ProcessorMixin
from transformers.tokenization_utils_base import LARGE_INTEGER, PreTrainedTokenizerBase
from transformers.utils import logging

from .batching import stack
from .carried_code import carry_code
from .describer import Describer, load_once
from .letter_case import letter_cases
from .pictures import UnreadablePicture, open_picture
from .pushed_card import add_card
from .text_splitting import split_post
from .tokenization_bilstm import character_ids
from .windows import TRUNCATIONS, Window, plan_windows

logger = logging.get_logger(__name__)

TEXT_OPTIONS = ("padding", "max_length", "truncation", "padding_side", "pad_to_multiple_of", "return_tensors")

NO_CONTEXT = {"id", "text", "words", "tokens", "ner_tags", "labels", "image", "error", "warning", "record"}
"""Columns that are something else than text that could be read as context; tagged posts have the last three."""

DESCRIBERS_OF_CONTEXT = {"captioner": "caption", "labeler": "object_labels"}
"""What finds columns of a context in pictures, and the column that each finds."""


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


OF_WORDS = ("inter_modal_mask",)
"""Tensors of nodes [w, …] that have a row for each word."""

OBJECTS = NodeKind("object_mask", "object", "objects", ("box", "query"))


@dataclass
class PreparedPost:
    """A post that was read once, with all that models, results and drawings need of it.

    Args:
        text: the post as it was given; of words, " ".join(words).
        words: (word, start, end) with text[start:end] == word.
        picture: the opened picture, or None.
        nodes: for each kind of node the nodes, as dicts, in the order of the tensors.
        features: the tensors that a model reads, by their names in a batch, without the dimension of the batch.
        windows: of a post longer than the model reads, what is read at once, each with the tensors of its text.
        context: words that are read after the post, or after each of its windows, as a second segment.
    """

    text: str
    words: list[tuple[str, int, int]]
    picture: Image.Image | None = None
    nodes: dict[str, list[Mapping[str, Any]]] = field(default_factory=dict)
    features: dict[str, torch.Tensor] = field(default_factory=dict)
    windows: list[tuple[Window, dict[str, torch.Tensor]]] = field(default_factory=list)
    context: list[str] = field(default_factory=list)

    @property
    def unread_words(self) -> int:
        """How many words at the end were cut off."""
        return int((self.features["word_starts"] < 0).sum()) if self.words else 0

    def parts(self) -> Iterator[tuple[Window, "PreparedPost"]]:
        """Yield what the model reads at once: the post, or its windows, which share its nodes."""
        if not self.windows:
            yield Window(0, len(self.words), 0, len(self.words)), self
        for window, text in self.windows:
            words = slice(window.first, window.after)
            features = {name: own[words] if name in OF_WORDS else own for name, own in self.features.items()} | text
            yield window, PreparedPost(self.text, self.words[words], None, self.nodes, features, context=self.context)

    @property
    def tokens(self) -> list[str]:
        """The words without their places."""
        return [word for word, _, _ in self.words]


class MultimodalNerProcessor(ProcessorMixin):
    """Tokenizer, and what else a system needs, behind one call; the base of the processors of all systems.

    A subclass names the `columns` that it reads besides words and labels, the kinds of its nodes and the describers
    that it can call. One that reads the column `image` has each picture as one node, unless it says otherwise in
    `add_nodes`; one that does not never opens a picture, unless it must be described for the context.

    Args:
        parts: image processor and tokenizer, or the tokenizer alone.
        context: columns of texts (a string, or a list of strings) that are read after the post, in this order, as a
            second segment: `caption`, `object_labels`, any other. They are cut to what the post leaves of the text
            encoder's limit. A post without any is read as it is.

    Raises:
        ValueError: the context is no list of such columns.
    """

    columns: ClassVar[tuple[str, ...]] = ()
    describers: ClassVar[dict[str, str]] = {}  # functions that find what is not given, and the column that each finds
    node_kinds: ClassVar[dict[str, NodeKind]] = {}
    needs: ClassVar[tuple[str, ...]] = ()  # settings that are only left out on purpose when a model is trained
    text_kwargs: ClassVar[dict[str, Any]] = {"padding": True, "truncation": True}
    column_sources: Mapping[str, Any] = {}  # how columns of the training data were made, see `remember_sources`

    def __init__(self, *parts: Any, context: Sequence[str] = ()):
        self.context = checked_context(context)
        self.columns = tuple(dict.fromkeys([*type(self).columns, *self.context]))
        self.describers = dict(type(self).describers) | self.context_describers
        super().__init__(*parts)

    @property
    def context_describers(self) -> dict[str, str]:
        """What finds columns of the context that posts lack, and the column that each finds."""
        return {name: column for name, column in DESCRIBERS_OF_CONTEXT.items() if column in self.context}

    @property
    def reads_pictures(self) -> bool:
        """Whether pictures are opened at all."""
        return "image" in self.columns

    @property
    def model_input_names(self) -> list[str]:
        """Names of the tensors of a batch of posts with pictures."""
        names = ["input_ids", "attention_mask", "word_starts", *self.text_inputs([])]
        names += ["token_type_ids", "context_mask"] if self.context else []
        return [*names, "pixel_values", "object_mask"] if self.reads_pictures else names

    def settings_for_model(self, config: PreTrainedConfig) -> dict[str, Any]:
        """Settings that a model must have for this processor, where its configuration has other ones."""
        return {}

    def remember_sources(self, columns: Iterable[str], sources: Mapping[str, Mapping] | None = None) -> None:
        """Keep how the columns of the training data were made, so that posts without them are described alike.

        Args:
            columns: those of the training data.
            sources: settings of each column that a model made, as `sources_in_card` reads them. Columns that are not
                named, and not known from before, count as "given" with the data.
        """
        made = {name: dict(source) for name, source in (sources or {}).items() if name in columns}
        given = {name: "given" for name in (*self.describers.values(), *self.context) if name in columns}
        self.column_sources = given | dict(self.column_sources) | made

    def describe(self) -> list[str]:
        """Sentences for a card: how the columns of the training data were made."""
        sentences = []
        if self.context:
            names = ", ".join(f"`{name}`" for name in self.context)
            sentences.append(f"After the words of a post it reads, as a second segment, its context: {names}.")
        for column, source in self.column_sources.items():
            how = "given with the data" if source == "given" else f"made with {json.dumps(source)}"
            sentences.append(f"The column `{column}` of the training data was {how}.")
        return sentences

    def own_describer(self, name: str) -> Callable | None:
        """Load what finds a column as it was found for the training data.

        Args:
            name: of the describer, such as "grounder".

        Returns:
            The describer; None where the training data had no such column, or it cannot be found again: then a warning
            says so, once.
        """
        column = self.describers[name]
        source = self.column_sources.get(column)
        if source is None:
            return None
        reason = "were given with the data"
        if source != "given":
            found = load_once(self.describer_class(name), json.dumps(source))
            if not isinstance(found, Exception):
                return found
            reason = f"were made by a model that cannot be loaded here ({' '.join(str(found).split())})"
        logger.warning_once(
            f"This model was trained with {column}, which {reason}; posts come without them, and will be tagged less "
            f"well. Give each post its {column}, or a {name}, e.g. pipeline(…)(posts, {name}=…)."
        )
        return None

    def searches_pictures(self, gaps: Mapping[str, int]) -> bool:
        """Whether something besides their own crops is looked for in the pictures of posts.

        Args:
            gaps: for each column of the posts, how many posts have null there.
        """
        return any(
            column not in gaps and self.column_sources.get(column, "given") != "given"
            for column in self.describers.values()
        )

    def describer_class(self, name: str) -> type[Describer]:
        """The class of a describer; to be overridden where there are other `describers`."""
        from .descriptors import Captioner, ObjectLabeler  # here, so that only a search for them loads what they need

        return {"captioner": Captioner, "labeler": ObjectLabeler}[name]

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
        """Make a batch of one post or of several; of several, every argument is a list with one entry a post.

        Args:
            images: a picture (PIL, path, array, bytes), alone or in a list, or None. `image` is the same.
            text: raw text, split into words by `split_post`; or
            words: the words.
            labels: label ids, one a word.
            kwargs: the other columns that the system reads, see its class; what describes pictures, such as a
                `grounder`; and options of transformers' processors, also in `text_kwargs` and `images_kwargs`:
                    padding: True (default), "longest", "max_length" or False;
                    truncation: cut posts that are too long (default True, warned); "error" refuses them;
                    max_length: pieces of a post at most; default: `model_max_length` of the tokenizer;
                    padding_side, pad_to_multiple_of: as for the tokenizer;
                    return_tensors: "pt" (default) or "np";
                    size, do_rescale, do_normalize, image_mean, …: as for the image processor.

        Returns:
            input_ids, attention_mask [B, n]; word_starts [B, w], -1 = padding; the tensors of the system's nodes, where
            a post has any; labels [B, w], -100 = padding.

        Raises:
            TypeError: an argument that there is not.
            ValueError: no words, or something that does not fit them; of several posts with the number of the post.
            UnreadablePicture: a picture cannot be opened.
        """
        if image is not None and images is not None:
            raise ValueError("images and image are the same: give one of them.")
        if text is not None and words is not None:
            raise ValueError("Give either text=… (raw) or words=… (already split), not both.")
        given = {"text": text, "words": words, "labels": labels}
        given |= {name: kwargs.pop(name) for name in self.columns if name in kwargs}
        given["image"] = image if images is None else images
        describers = {name: kwargs.pop(name) for name in self.describers if name in kwargs}
        options = self.sort_options(kwargs)
        posts = _posts(given)
        prepared = self.prepare(posts, options, **describers)
        return self.batch(prepared, None if labels is None else [post["labels"] for post in posts], options)

    def sort_options(self, given: dict[str, Any]) -> dict[str, dict[str, Any]]:
        """Sort the options of transformers into `text_kwargs` and `images_kwargs`; refuse what is none."""
        names = {"text_kwargs": set(TEXT_OPTIONS)}
        if self.reads_pictures:
            names["images_kwargs"] = set(self.image_processor.valid_kwargs.__annotations__)
        names["common_kwargs"] = set().union(*names.values())
        unknown = given.keys() - names.keys() - names["common_kwargs"]
        for group in names.keys() & given.keys():
            unknown |= given[group].keys() - names[group]
        if unknown:
            known = ["images", "text", "words", "labels", *self.columns, *self.describers, *TEXT_OPTIONS]
            known = ", ".join(name for name in known if name != "image")
            raise TypeError(f"{type(self).__name__} has no argument {', '.join(sorted(unknown))}; it reads {known}.")
        settings = self.tokenizer.init_kwargs.copy()
        settings.pop("max_length", None)  # how a tokenizer's file was last used; its limit is model_max_length
        options = self._merge_kwargs(self.valid_processor_kwargs, settings, **given)
        options["text_kwargs"] = self.text_kwargs | options["text_kwargs"]  # older transformers leave the defaults out
        truncation = options["text_kwargs"]["truncation"]
        if truncation not in (True, False, None, "longest_first", "only_first", "do_not_truncate", *TRUNCATIONS[1:]):
            raise ValueError(
                f"truncation={truncation!r}: use True (cut and warn), False or 'error'; the pipeline makes windows."
            )
        if options["text_kwargs"].get("return_tensors") not in ("pt", "np", None):
            raise ValueError(f"return_tensors={options['text_kwargs']['return_tensors']!r}: use 'pt' or 'np'.")
        return options

    # ------------------------------------------------------------------------------------------- post by post

    def prepare(
        self, posts: Sequence[Mapping[str, Any]], options: dict[str, dict] | None = None, **describers: Callable | None
    ) -> list[PreparedPost]:
        """Read posts: words, picture, nodes and tensors, each once.

        Args:
            posts: for each a mapping with `text` or `words` (also called `tokens`), and the columns that the system
                reads; whatever else it has is passed over. What the training data had, and a post has no key for, is
                found as it was found for them, where that can be.
            options: `text_kwargs` and `images_kwargs`, as `__call__` sorts them.
            describers: functions that find what the posts don't bring; see `describers` of the system.

        Raises:
            ValueError, UnreadablePicture: a post cannot be read; in a list of several the message names it.
        """
        options = options or self.sort_options({})
        prepared = []
        posts = self.find_context(posts, **describers)
        for i, post in enumerate(posts):
            with naming_post(i, posts):
                text, words = read_words(post)
                picture = open_one(post.get("image")) if self.reads_pictures else None
                prepared.append(PreparedPost(text, words, picture, context=self.context_words(post)))
        self.add_pieces(prepared, options["text_kwargs"])
        self.add_nodes(prepared, posts, options["images_kwargs"], **self.describers_of_nodes(describers))
        return prepared

    def context_words(self, post: Mapping[str, Any]) -> list[str]:
        """The words of the context of a post; none where it has no context.

        Raises:
            ValueError: a column of the context is no text.
        """
        to_find = self.context_describers.values()
        if absent := [name for name in self.context if name not in post and name not in to_find]:
            logger.warning_once(
                f"This model reads {', '.join(absent)} after the post; posts come without such a key, and are read "
                "without. None says that a post has none."
            )
        return context_words(post, self.context)

    def describers_of_nodes(self, describers: Mapping[str, Callable]) -> dict[str, Callable]:
        """Those of some describers that `add_nodes` takes; the others have found the context before."""
        of_context = self.context_describers.keys() - type(self).describers.keys()
        return {name: describer for name, describer in describers.items() if name not in of_context}

    def context_to_find(self, post: Mapping[str, Any], describers: Mapping[str, Callable | None]) -> list[str]:
        """Names of the describers that must look at the picture of a post for its context."""
        if post.get("image") is None:
            return []
        lacking = [name for name, column in self.context_describers.items() if post.get(column) is None]
        return [name for name in lacking if describers.get(name) or self.context_describers[name] not in post]

    def find_context(
        self, posts: Sequence[Mapping[str, Any]], **describers: Callable | None
    ) -> Sequence[Mapping[str, Any]]:
        """Find the context of posts that have no such key as it was found for the training data, where that can be.

        Args:
            posts: as for `prepare`.
            describers: functions of pictures that find what the posts don't bring; others than those are passed over.

        Returns:
            The posts, with what was found.
        """
        found = {i: dict(post) for i, post in enumerate(posts) if self.context_to_find(post, describers)}
        pictures = {}
        for name, column in self.context_describers.items():
            asked = [i for i in found if name in self.context_to_find(posts[i], describers)]
            describer = (describers.get(name) or self.own_describer(name)) if asked else None
            if describer is None:
                continue
            for i in set(asked) - pictures.keys():
                with naming_post(i, posts):
                    pictures[i] = open_one(posts[i]["image"])
            seen = [i for i in asked if pictures[i] is not None]
            described = describer([pictures[i] for i in seen]) if seen else []
            for i, own in zip(seen, described, strict=True):
                found[i][column] = own
        for i, picture in pictures.items():
            found[i]["image"] = picture if self.reads_pictures else None  # else nobody looks again
        return [found.get(i, post) for i, post in enumerate(posts)] if found else posts

    def add_pieces(self, prepared: Sequence[PreparedPost], options: Mapping[str, Any]) -> None:
        """Give posts the tensors of their text: each word is tokenised by itself and has a first piece.

        Words that the tokenizer has no pieces for are unknown. A post beyond the limit of pieces loses its last words,
        which have no first piece, and a warning says so; or gets `windows`. What the limit leaves is for the context,
        and in windows up to half of it.

        Args:
            prepared: the posts.
            options: `max_length` and `truncation`, here also "window", "error" or "warn".

        Raises:
            ValueError: `truncation="error"`, and a post is too long.
        """
        unknown = self.tokenizer.unk_token
        truncation = options["truncation"]
        limit = None if truncation in (False, "do_not_truncate") else self._max_length(options)
        words = [[word if word.strip() else unknown for word in post.tokens] for post in prepared]
        pieces = self._pieces(words)
        contexts = self._pieces_of_contexts(prepared)
        segment = SecondSegment(self.tokenizer) if any(contexts) else None
        for i, post in enumerate(prepared):
            ids, word_ids = pieces[i]
            deleted = set(range(len(post.words))) - set(word_ids)
            if deleted:  # by the tokenizer, such as a lone variation selector
                kept = [unknown if k in deleted else word for k, word in enumerate(words[i])]
                ids, word_ids = self._pieces([kept])[0]
            if not ids:  # of a tokenizer without special tokens; a text encoder needs something to read
                ids, word_ids = [self.tokenizer.unk_token_id], [None]
            too_long = limit is not None and len(ids) > limit
            if too_long and truncation == "error":
                raise ValueError(
                    f"the post has {len(ids)} pieces and the model reads {limit}: shorten it, or take "
                    "truncation='window'"
                )
            if too_long and truncation == "window":
                for_context = 0  # of the pieces of each window: at most half of them
                if contexts[i]:
                    for_context = min(len(contexts[i][0]) + len(segment.opening) + len(segment.closing), limit // 2)
                post.windows = [
                    (window, self._text_tensors(post.tokens, *own, window.first, window.after))
                    for window, own in _split(ids, word_ids, limit - for_context)
                ]
            elif too_long:
                ids, word_ids = _cut(ids, word_ids, limit)
            post.features |= self._text_tensors(post.tokens, ids, word_ids, 0, len(post.words))
            if too_long and not post.windows:
                logger.warning(
                    f"A post of {len(post.words)} words ('{' '.join(post.tokens[:4])} …') is longer than the {limit} "
                    f"pieces that are read: its last {post.unread_words} words get no label."
                )
            if contexts[i]:
                for text in [own for _, own in post.windows] or [post.features]:
                    self.add_second_segment(text, post.context, contexts[i], segment, limit)

    def _text_tensors(
        self, tokens: Sequence[str], ids: Sequence[int], word_ids: Sequence[int | None], first: int, after: int
    ) -> dict[str, torch.Tensor]:
        """The tensors of the text of the words first..after-1, from their pieces."""
        places = {}
        for position, word in enumerate(word_ids):
            if word is not None:
                places.setdefault(word, position)
        starts = [places.get(k, -1) for k in range(first, after)]
        return {
            "input_ids": torch.tensor(ids, dtype=torch.long),
            "attention_mask": torch.ones(len(ids), dtype=torch.long),
            "word_starts": torch.tensor(starts or [-1], dtype=torch.long),
            **self.text_inputs([None if k is None else tokens[k] for k in word_ids]),
        }

    def _pieces_of_contexts(self, prepared: Sequence[PreparedPost]) -> list[tuple[list[int], list[int | None]] | None]:
        """For each post the pieces of its context, as `_pieces` gives them; None where it has none."""
        with_context = [post.context for post in prepared if post.context]
        pieces = iter(self._pieces(with_context) if with_context else ())
        return [next(pieces) if post.context else None for post in prepared]

    def add_second_segment(
        self,
        text: dict[str, torch.Tensor],
        words: Sequence[str],
        pieces: tuple[list[int], list[int | None]],
        segment: "SecondSegment",
        limit: int | None,
    ) -> None:
        """Put a context behind a post as the tokenizer joins two texts, as far as the limit of pieces allows.

        Args:
            text: tensors of the text of the post, which are changed; without room for the context they stay.
            words: those of the context.
            pieces: ids of its pieces, and for each the number of its word.
            segment: how the tokenizer joins two texts.
            limit: pieces of both at most; None = there is no limit.
        """
        real = [(piece, word) for piece, word in zip(*pieces, strict=True) if word is not None]
        own = len(text["input_ids"])
        room = len(real) if limit is None else limit - own - len(segment.opening) - len(segment.closing)
        if len(real) > room:
            logger.warning_once(
                f"Some contexts are longer than what their posts leave of the {limit} pieces that are read: their ends "
                "are not read."
            )
            real = real[: max(room, 0)]
        if not real:
            return
        ids = [*segment.opening, *(piece for piece, _ in real), *segment.closing]
        before, behind = [None] * len(segment.opening), [None] * len(segment.closing)
        added = self.text_inputs([*before, *(words[word] for _, word in real), *behind])
        added["input_ids"] = torch.tensor(ids)
        added["attention_mask"] = torch.ones(len(ids), dtype=torch.long)
        added["context_mask"] = torch.ones(len(ids), dtype=torch.bool)
        text["context_mask"] = torch.zeros(own, dtype=torch.bool)
        if segment.types is not None:
            opening, inside, closing = segment.types
            types = [opening] * len(before) + [inside] * len(real) + [closing] * len(behind)
            added["token_type_ids"] = torch.tensor(types)
            text["token_type_ids"] = torch.zeros(own, dtype=torch.long)
        place = own - segment.kept_last
        for name, tensor in added.items():
            text[name] = torch.cat([text[name][:place], tensor, text[name][place:]])

    def text_inputs(self, words: Sequence[str | None]) -> dict[str, torch.Tensor]:
        """Return what the text encoder reads of a post besides its pieces: the tensors [n, …] its tokenizer names.

        Args:
            words: for each piece its word, None = a special token.
        """
        makers = {"character_ids": character_ids, "letter_case": letter_cases}
        return {name: make(words) for name, make in makers.items() if name in self.tokenizer.model_input_names}

    def count_pieces(self, posts: Sequence[Mapping[str, Any]]) -> list[int]:
        """Count the pieces of posts and their contexts, as far as they are read.

        Exact but for words that the tokenizer has no piece for, and what it puts between a post and its context.

        Args:
            posts: rows of a dataset, with `tokens` and the columns of the context.
        """
        limit = self.tokenizer.model_max_length
        words = [[*post["tokens"], *self.context_words(post)] for post in posts]
        rows = self.tokenizer(words, is_split_into_words=True, return_attention_mask=False, verbose=False)
        return [min(len(ids), limit) for ids in rows["input_ids"]]

    def _max_length(self, options: Mapping[str, Any]) -> int:
        return options.get("max_length") or self.tokenizer.model_max_length

    def _pieces(self, words: Sequence[Sequence[str]]) -> list[tuple[list[int], list[int | None]]]:
        """The ids of the pieces of each post, and for each piece the number of its word."""
        rows = self.tokenizer(words, is_split_into_words=True, return_token_type_ids=False, verbose=False)
        return [(ids, rows.word_ids(i)) for i, ids in enumerate(rows["input_ids"])]

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

        Raises:
            ValueError: labels do not fit the words, tensors of the posts do not fit together, or posts differ in length
                and may not be padded; or a post has windows: they are the posts of a batch, see `PreparedPost.parts`.
        """
        features = [dict(post.features) for post in prepared]
        for i, post in enumerate(prepared):
            with naming_post(i, prepared):
                if post.windows:
                    raise ValueError("the post is longer than the model reads: take its parts, one by one")
        for i, own in enumerate(labels or []):
            with naming_post(i, prepared):
                words = len(prepared[i].words)
                ids = as_tensor("labels", [-100] * words if own is None else own, torch.long)
                if ids.shape != (words,):
                    raise ValueError(f"{words} words but labels of shape {list(ids.shape)}: give one label id a word")
                if ((ids < 0) & (ids != -100)).any():
                    raise ValueError(f"labels {ids.tolist()}: give the ids of labels, from 0 on, or -100 for none")
                features[i]["labels"] = ids if words else torch.tensor([-100])
        options = (options or self.sort_options({}))["text_kwargs"]
        sizes = {len(own["input_ids"]) for own in features}
        if options["padding"] in (False, "do_not_pad") and len(sizes) > 1:
            raise ValueError(f"Posts of {min(sizes)} to {max(sizes)} pieces need padding=True to become one batch.")
        length = max(sizes)
        if options["padding"] == "max_length":
            length = max(length, self._max_length(options))
            if length >= LARGE_INTEGER:
                raise ValueError('The tokenizer has no limit: with padding="max_length" give max_length too.')
        multiple = options.get("pad_to_multiple_of") or 1
        length = -(-length // multiple) * multiple
        side = options.get("padding_side") or self.tokenizer.padding_side
        batch = stack(features, self.tokenizer.pad_token_id, side, length)
        if options.get("return_tensors") == "np":
            batch = {name: tensor.numpy() for name, tensor in batch.items()}
        return BatchFeature(batch)

    def to_dict(self) -> dict[str, Any]:
        """Settings for processor_config.json."""
        return super().to_dict() | ({"column_sources": dict(self.column_sources)} if self.column_sources else {})

    @classmethod
    def from_args_and_dict(cls, args, processor_dict: dict[str, Any], **kwargs):
        """Make a processor from its saved settings."""
        settings = dict(processor_dict)
        sources = settings.pop("column_sources", {})
        made = super().from_args_and_dict(args, settings, **kwargs)
        processor = made[0] if isinstance(made, tuple) else made
        processor.column_sources = sources
        return made

    def push_to_hub(self, repo_id: str, **kwargs):
        """Push as every processor of transformers; a repository without a card gets one first."""
        add_card(repo_id, self.tokenizer.name_or_path, kwargs.get("private"), kwargs.get("token"))
        return super().push_to_hub(repo_id, **kwargs)

    def save_pretrained(self, save_directory: str | os.PathLike, push_to_hub: bool = False, **kwargs) -> list[str]:
        """Save as every processor of transformers, with code that AutoProcessor finds without this package."""
        files = super().save_pretrained(save_directory)
        vars(self).pop("auto_map", None)  # a note to the saved file, not to this processor
        carry_code(save_directory)
        if push_to_hub:
            self.push_to_hub(kwargs.pop("repo_id", Path(save_directory).name), **kwargs)
        return files

    # ------------------------------------------------------------------------------------------------ pictures

    def add_nodes(
        self, prepared: Sequence[PreparedPost], posts: Sequence[Mapping[str, Any]], options: Mapping[str, Any]
    ) -> None:
        """Give prepared posts the nodes and tensors of the system: its picture as one node, if it reads pictures.

        Where `object_features` are given instead, each row is a node. To be overridden by systems with other nodes; one
        more argument for each of the system's describers.

        Args:
            prepared: the posts, their words read and their pictures opened.
            posts: the same posts as they were given, with their columns.
            options: for the image processor.
        """
        if not self.reads_pictures:
            return
        features = self.given_features(prepared, posts)
        for i, (post, own) in enumerate(zip(prepared, features, strict=True)):
            with naming_post(i, prepared):
                objects = whole_picture(post.picture) if own is None else [{}] * len(own)
                self.add_objects(post, objects, own, options)

    def given_features(
        self, prepared: Sequence[PreparedPost], posts: Sequence[Mapping[str, Any]]
    ) -> list[torch.Tensor | None]:
        """Return the column `object_features` of posts; where some have it, the pictures of the others are not used.

        Args:
            prepared: the posts, their pictures opened.
            posts: the same posts as they were given.

        Raises:
            ValueError: features that are not [nodes, width], or [nodes, cells, width].
        """
        features = []
        for i, post in enumerate(posts):
            with naming_post(i, posts):
                own = post.get("object_features")
                own = None if own is None else as_tensor("object_features", own, torch.float32)
                if own is not None and own.shape[:1] != (0,) and (own.ndim not in (2, 3) or 0 in own.shape):
                    raise ValueError(
                        f"object_features of shape {list(own.shape)}; give [objects, width] or [objects, cells, width]"
                    )
                check_finite("object_features", own)
                features.append(own)
        if all(own is None for own in features):
            return features
        unused = [i for i, own in enumerate(features) if own is None and prepared[i].picture is not None]
        if any(posts[i].get("objects") is None for i in unused):
            logger.warning_once(
                "Some posts have a picture but no object_features, as other posts of their batch do: their pictures "
                "are not used. Give features for all posts, or for none."
            )
        return [torch.zeros(0, 0) if i in unused else own for i, own in enumerate(features)]

    def add_objects(
        self,
        post: PreparedPost,
        objects: Sequence[Mapping[str, Any]],
        features: torch.Tensor | None,
        options: Mapping[str, Any],
    ) -> None:
        """Give a post the tensors of its visual nodes: crops of its picture, or the features that are given.

        Args:
            post: the post.
            objects: its nodes, with "box" for crops.
            features: [m, F] features of the nodes, or [m, r, F] of their cells; None = crops are made.
            options: for the image processor.
        """
        post.nodes["objects"] = list(objects)
        post.features["object_mask"] = torch.ones(len(objects), dtype=torch.bool)
        if not objects:
            return
        if features is not None:
            post.features["object_features"] = features
            return
        crops = self.image_processor.crop(post.picture, [node["box"] for node in objects])
        pixels = self.image_processor(crops, **{**options, "return_tensors": "np"})["pixel_values"]
        post.features["pixel_values"] = torch.from_numpy(pixels)


class SecondSegment:
    """How a tokenizer joins a second text to a first one: [CLS] first [SEP] second [SEP], say.

    Args:
        tokenizer: any fast tokenizer.

    Attributes:
        opening, closing: ids of the special tokens that stand before and behind the second text, besides those that the
            first has when it is alone.
        kept_last: how many special tokens of the first text alone stand at the end of both.
        types: segments of opening, second text and closing; None = the tokenizer tells no segments.
    """

    def __init__(self, tokenizer: PreTrainedTokenizerBase):
        word = ["a"]
        alone = tokenizer(word, is_split_into_words=True)
        both = tokenizer(word, word, is_split_into_words=True, return_token_type_ids=True)
        ids, sequence, types = both["input_ids"], both.sequence_ids(), both["token_type_ids"]
        begin, after = sequence.index(1), len(sequence) - sequence[::-1].index(1)  # the second text
        between = range(len(sequence[:begin]) - sequence[:begin][::-1].index(0), begin)
        own = alone["input_ids"][len(alone["input_ids"]) - alone.sequence_ids()[::-1].index(0) :]
        shared = os.path.commonprefix([own, [ids[position] for position in between]])
        self.kept_last = len(own) - len(shared)
        opening = list(between)[len(shared) :]
        closing = list(range(after, len(ids) - self.kept_last))
        self.opening = [ids[position] for position in opening]
        self.closing = [ids[position] for position in closing]
        own_types = [types[position] for position in ((opening or [begin])[0], begin, (closing or [begin])[0])]
        self.types = own_types if any(own_types) else None


def checked_context(context: Any) -> list[str]:
    """The setting `context` as a list of columns.

    Raises:
        ValueError: it is none, or names a column that is no text of its own.
    """
    is_list = isinstance(context, list | tuple)
    if not is_list or not all(isinstance(name, str) and name for name in context):
        raise ValueError(f'context={context!r}: give a list of columns of texts, such as ["caption"]; [] = none.')
    if len(set(context)) < len(context):
        raise ValueError(f"context={list(context)!r}: a column is named twice.")
    if wrong := [name for name in context if name in NO_CONTEXT]:
        raise ValueError(f"context={list(context)!r}: {wrong[0]} is no text besides the post; name others.")
    return list(context)


def context_words(post: Mapping[str, Any], columns: Sequence[str]) -> list[str]:
    """The words of some columns of a post, one after the other: strings, or lists of strings, or None (or NaN).

    Raises:
        ValueError: a column holds something else.
    """
    words = []
    for name in columns:
        text = post.get(name)
        if isinstance(text, np.ndarray):
            text = text.tolist()
        if isinstance(text, list | tuple) and all(isinstance(one, str) for one in text):
            text = ", ".join(one for one in text if one.strip())
        elif isinstance(text, float) and math.isnan(text):  # as pandas has it
            text = None
        if not isinstance(text, str | None):
            raise ValueError(f"{name} must be text, a list of texts or None, to be read as context, not {text!r:.40}")
        check_characters(name, text or "")
        words += [word for word, _, _ in split_post(text or "")]
    return words


def check_characters(name: str, text: str) -> None:
    """Raise ValueError where a text holds what is no character."""
    try:
        text.encode()
    except UnicodeEncodeError:
        raise ValueError(f"{name} holds half a character (a lone surrogate); it was decoded or cut wrongly") from None


def whole_picture(picture: Image.Image | None) -> list[dict[str, Any]]:
    """The one node that a picture is as a whole, linked to every word; without a picture there is none."""
    return [] if picture is None else [{"box": [0, 0, *picture.size], "phrase": None}]


def read_words(post: Mapping[str, Any]) -> tuple[str, list[tuple[str, int, int]]]:
    """Return the text of a post and its words with their places in it.

    Raises:
        ValueError: no text and no words, both, or something that is neither.
    """
    text = post.get("text")
    words = post.get("words") if post.get("words") is not None else post.get("tokens")
    if text is None and words is None:
        raise ValueError('the post has no text: give "text" (a string) or "words" (a list of strings)')
    if text is not None and words is not None:
        raise ValueError('the post has both "text" and "words": give one of them')
    if text is None:
        is_list = isinstance(words, Iterable) and not isinstance(words, str)
        if not is_list or not all(isinstance(word, str) for word in words):
            raise ValueError('"words" must be a list of strings')
        text = " ".join(words)
    elif not isinstance(text, str):
        raise ValueError(f'"text" must be a string, not {type(text).__name__}')
    check_characters("the text", text)
    if words is None:
        return text, split_post(text)
    places = []
    start = 0
    for word in words:
        places.append((word, start, start + len(word)))
        start += len(word) + 1
    return text, places


def check_nodes(name: str, nodes: Any, keys: Sequence[str]) -> None:
    """Raise ValueError where a column of a post is neither None nor a list of mappings that have these keys."""
    if nodes is None:
        return
    are_mappings = isinstance(nodes, list | tuple) and all(isinstance(node, Mapping) for node in nodes)
    if not are_mappings or any(node.get(key) is None for node in nodes for key in keys):
        shown = ", ".join(f'"{key}": …' for key in keys)
        raise ValueError(f"{name} must be a list of {{{shown}}}, or None; of several posts a list of such lists")


def as_tensor(name: str, values: Any, dtype: torch.dtype) -> torch.Tensor:
    """Return numbers as a tensor; what are none gives a ValueError with the name of the argument."""
    try:
        tensor = values if isinstance(values, torch.Tensor) else torch.from_numpy(np.array(values))
    except (TypeError, ValueError) as error:
        raise ValueError(f"{name} are not numbers of one shape ({error})") from error
    return tensor.detach().to("cpu", dtype)


def check_finite(name: str, values: torch.Tensor | None) -> None:
    """Raise ValueError where numbers are NaN or infinite."""
    if values is not None and not torch.isfinite(values).all():
        raise ValueError(f"{name} hold NaN or infinity; repair them, or leave them out")


@contextmanager
def naming_post(i: int, posts: Sequence[Any]) -> Iterator[None]:
    """Let errors say that it was post i, where there are several, and its id, where it has one."""
    own_id = posts[i].get("id") if isinstance(posts[i], Mapping) else None
    post = f"Post {i} of the batch" + ("" if own_id is None else f" (id {own_id})")
    try:
        yield
    except UnreadablePicture as error:
        if len(posts) > 1:
            error.name = f"{post}: {error.name}"
        raise
    except ValueError as error:
        if len(posts) > 1:
            raise ValueError(f"{post}: {error}") from error
        raise


def _posts(given: Mapping[str, Any]) -> list[dict[str, Any]]:
    """Turn arguments that hold the value of one post, or a list with one value a post, into one mapping a post."""
    name = "words" if given["text"] is None else "text"
    first = given[name]
    if first is None:
        raise ValueError("There are no words to read: give text=… (raw) or words=… (already split).")
    if not _is_list(first) or (name == "words" and all(isinstance(word, str) for word in first)):
        return [dict(given)]
    if not len(first):
        raise ValueError(f"{name} is an empty list: there is no post to read.")
    for name, values in given.items():
        is_picture = name == "image" and getattr(values, "ndim", 4) < 4
        if values is None or (_is_list(values) and not is_picture and len(values) == len(first)):
            continue
        number = f"a single {type(values).__name__}" if is_picture or not _is_list(values) else len(values)
        count = "1 post" if len(first) == 1 else f"{len(first)} posts"
        name = "images" if name == "image" else name
        raise ValueError(f"{count} but {number} for {name}: give a list with one entry a post, or None.")
    return [{name: None if values is None else values[i] for name, values in given.items()} for i in range(len(first))]


def _is_list(values: Any) -> bool:
    return isinstance(values, Sequence | np.ndarray | torch.Tensor) and not isinstance(values, str | bytes | bytearray)


def open_one(source: Any) -> Image.Image | None:
    """Open the picture of a post; None where it has none. Raises as `one_picture` and `open_picture`."""
    source = one_picture(source)
    return None if source is None else open_picture(source)


def one_picture(source: Any) -> Any:
    """The picture of a post that came, as for other processors of transformers, in a list of its own.

    Raises:
        ValueError: there are several.
    """
    if not isinstance(source, list | tuple):
        return source
    if len(source) > 1:
        raise ValueError(f"{len(source)} pictures: a post has one picture, or none")
    return source[0] if source else None


def _cut(ids: list[int], word_ids: list[int | None], limit: int) -> tuple[list[int], list[int | None]]:
    """The first pieces of a post, up to the limit; special tokens at its end stay."""
    last = max((position for position, word in enumerate(word_ids) if word is not None), default=-1)
    tail = min(len(ids) - 1 - last, limit)
    kept = limit - tail
    return ids[:kept] + ids[len(ids) - tail :], word_ids[:kept] + word_ids[len(ids) - tail :]


def _split(
    ids: list[int], word_ids: list[int | None], limit: int
) -> Iterator[tuple[Window, tuple[list[int], list[int | None]]]]:
    """The windows of a post, each with its pieces and their words; all have the special tokens of the post."""
    real = [position for position, word in enumerate(word_ids) if word is not None]
    head, tail = real[0], real[-1] + 1
    room = limit - head - (len(ids) - tail)
    if room < 1:
        raise ValueError(f"{limit} pieces are too few: special tokens alone are {limit - room}")
    begins = {}  # of each word, and of what comes after the last
    for position in real:
        begins.setdefault(word_ids[position], position)
    begins = [*begins.values(), tail]
    for window in plan_windows([after - begin for begin, after in zip(begins, begins[1:], strict=False)], room):
        begin = begins[window.first]
        after = min(begins[window.after], begin + room)
        yield window, tuple(row[:head] + row[begin:after] + row[tail:] for row in (ids, word_ids))
