"""Posts that the model sees at once: stacking them into a batch, and putting posts of like size together."""

from collections import deque
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from itertools import islice
from typing import Any

import torch

FILL = {"word_starts": -1, "labels": -100}
"""What the padding of a tensor holds, where it is not 0."""

TEXT = ("input_ids", "attention_mask", "token_type_ids", "context_mask", "character_ids", "letter_case")
"""Tensors of pieces; their padding may go on the left."""

FEW = 32
PADDING = 0.05
"""A batch of so many items ends before more than this share of it is padding; to cut smaller ones would cost more."""


def stack(
    posts: Sequence[Mapping[str, torch.Tensor]],
    pad_token_id: int = 0,
    padding_side: str = "right",
    length: int = 0,
) -> dict[str, torch.Tensor]:
    """Join the tensors of posts into one batch, padded to the largest; what only some posts have is padding in others.

    Args:
        posts: for each post its tensors by name, without the dimension of the batch.
        pad_token_id: padding of `input_ids`.
        padding_side: where the padding of the text goes, "right" or "left"; all else is padded on the right.
        length: pieces to pad to at least.

    Returns:
        The tensors [B, …]; those that are empty for all posts are left out.

    Raises:
        ValueError: features of different widths, or pictures of different sizes.
    """
    fill = FILL | {"input_ids": pad_token_id}
    batch = {}
    for name in dict.fromkeys(name for post in posts for name in post):
        shape = _common_shape(name, posts)
        if name in TEXT:  # those that only some posts have are as long as the pieces of all
            shape[0] = max(length, *(len(post["input_ids"]) for post in posts))
        if 0 in shape:
            continue
        tensors = [post.get(name) for post in posts]
        first = next(tensor for tensor in tensors if tensor is not None)
        batch[name] = first.new_full((len(posts), *shape), fill.get(name, 0))
        for row, tensor in zip(batch[name], tensors, strict=True):
            if tensor is None:
                continue
            place = [slice(size) for size in tensor.shape]
            if name in TEXT and padding_side == "left":
                place[0] = slice(shape[0] - len(tensor), None)
            row[tuple(place)] = tensor
    if padding_side == "left":
        moved = batch["input_ids"].shape[1] - torch.tensor([len(post["input_ids"]) for post in posts])
        starts = batch["word_starts"]
        batch["word_starts"] = torch.where(starts < 0, starts, starts + moved[:, None])
    return batch


def _common_shape(name: str, posts: Sequence[Mapping[str, torch.Tensor]]) -> list[int]:
    """The largest of each size; but for masks, only the first may differ: how many there are."""
    tensors = {i: post[name] for i, post in enumerate(posts) if name in post}
    shapes = {}
    for i, tensor in tensors.items():
        if tensor.dtype != torch.bool:
            shapes.setdefault(tuple(tensor.shape[1:]), i)
    if len(shapes) > 1:
        shown = " and ".join(f"{list(shape)} (post {i})" for shape, i in shapes.items())
        raise ValueError(f"{name} of these posts don't fit together: {shown} each; make all of them in one way.")
    return [max(sizes) for sizes in zip(*(tensor.shape for tensor in tensors.values()), strict=True)]


def own_pieces(mask: torch.Tensor, context_mask: torch.Tensor | None) -> torch.Tensor:
    """Return the pieces [B, n] of the posts alone: real ones that are no context."""
    return mask if context_mask is None else mask & ~context_mask.bool()


def text_alone(batch: Mapping[str, Any], fused: Sequence[str]) -> tuple[dict[str, Any], torch.Tensor] | None:
    """Leave out of a batch the context, and what a system reads besides the text.

    Args:
        batch: the batch.
        fused: names of the tensors that the system reads besides the text.

    Returns:
        The rest, without the pieces at the end that no post has any more, and the posts [B] that have lost something;
        None where the batch holds nothing but text.
    """
    fused = [name for name in fused if name not in TEXT and batch.get(name) is not None]
    nodes = [name for name in fused if batch[name].ndim > 1]
    context_mask = batch.get("context_mask")
    masks = [batch[name] for name in nodes if name.endswith("_mask") and batch[name].ndim == 2]  # [B, nodes] each
    masks += [] if context_mask is None else [context_mask]
    if masks:
        lost = torch.stack([own.bool().any(1) for own in masks]).any(0)  # [B]
    else:  # nodes without a mask are all real
        lost = torch.full_like(batch["input_ids"][:, 0], bool(nodes), dtype=torch.bool)
    if not lost.any():
        return None
    text = {name: value for name, value in batch.items() if name not in fused and name != "context_mask"}
    mask = batch.get("attention_mask")
    if mask is None:
        mask = torch.ones_like(batch["input_ids"])
    text["attention_mask"] = own_pieces(mask.bool(), context_mask).to(mask.dtype)
    last = int(text["attention_mask"].any(0).nonzero().max()) + 1
    for name in TEXT:
        if text.get(name) is not None:
            text[name] = text[name][:, :last]
    return text, lost


def alike(sizes: Sequence[int], batch_size: int) -> Iterator[range]:
    """Cut sorted sizes into batches with little padding.

    Args:
        sizes: ascending.
        batch_size: items of a batch at most; it ends earlier only when it has a quarter of them.
    """
    least = max(FEW, batch_size // 4)
    first = 0
    filled = 0
    for place, size in enumerate(sizes):
        count = place - first
        padded = (count + 1) * size
        if count == batch_size or (count >= least and padded > (1 + PADDING) * (filled + size)):
            yield range(first, place)
            first = place
            filled = 0
        filled += size
    yield range(first, len(sizes))


class SortedWindows:
    """Batches of items of like size from a stream of any length, and the way back to the order of the stream.

    Iterate over the batches, and pass the results of their items, in the order of the batches, to `in_order`. Windows
    grow from one to the next, and their batches come in the order of their earliest items, so that the first results
    come soon. At most the windows under way are held.

    Args:
        items: the stream.
        batch_size: items in a batch, at most.
        first_window: items of the first window; each has twice as many as the one before it, until there are
        window: items that are sorted among each other.
        size: what to sort by; its last number says how much of a batch an item fills.
        prepare: makes the items of a window ready to be sorted; default: they are.
    """

    def __init__(
        self,
        items: Iterable[Any],
        batch_size: int,
        first_window: int,
        window: int,
        size: Callable[[Any], tuple[int, ...]],
        prepare: Callable[[list[Any]], list[Any]] = list,
    ):
        self.items = iter(items)
        self.batch_size = batch_size
        self.first_window = first_window
        self.window = window
        self.size = size
        self.prepare = prepare
        self.places = deque()  # in the stream, of the items of the batches under way

    def __iter__(self) -> Iterator[list[Any]]:
        read = 0
        window = min(self.first_window, self.window)
        while own := self.prepare(list(islice(self.items, window))):
            own = dict(enumerate(own))
            order = sorted(own, key=lambda i: self.size(own[i]))
            filled = [self.size(own[i])[-1] for i in order]
            batches = [[order[place] for place in places] for places in alike(filled, self.batch_size)]
            read_before = read
            read += len(own)
            for batch in sorted(batches, key=min):
                self.places.extend(read_before + i for i in batch)
                yield [own.pop(i) for i in batch]  # not held any longer: a picture may have been opened in it
            window = min(2 * window, self.window)

    def in_order(self, results: Iterable[Any]) -> Iterator[Any]:
        """Yield the results of the items in the order in which the items came, each as soon as those before it."""
        waiting = {}
        place = 0
        for result in results:
            waiting[self.places.popleft()] = result
            while place in waiting:
                yield waiting.pop(place)
                place += 1
