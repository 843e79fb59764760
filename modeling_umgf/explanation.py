"""Why an entity was found: what its words take of each visual node, and what the model would say without the node."""

from __future__ import annotations

import html
import textwrap
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from PIL import Image, ImageDraw

from .decoding import decode_windows, window_batches
from .drawing import draw_objects, objects_to_html
from .fonts import draw_text
from .pipeline_multimodal_ner import MultimodalNerPipeline, describe_entity, node_weights
from .processing_multimodal_ner import NodeKind

_FONT_SIZE, _MARGIN = 15, 12


@dataclass
class Explanation:
    """The entities of a post and what each visual node has to do with them.

    Args:
        text: the text; of words, " ".join(words).
        words: its words.
        picture: the picture, or None.
        nodes: the visual nodes: {"kind", "title", …}, such as {"kind": "objects", "title": "object", "box", …}; and the
            context that was read after the post, {"kind": "context", "title", "text"}.
        entities: for each entity `entity_group`, `score`, `word`, `start`, `end` as from the pipeline, `words` (first,
            after), and `nodes`, the most influential first: {"node": its number in `nodes`, "weight": how much the
            entity's words take of it, 0..1 (None where the model has no such gate), "score_without": the score of the
            same labels when the node is left out, "change": score_without - score (negative: the node speaks for it)}.
    """

    text: str
    words: list[str]
    picture: Image.Image | None
    nodes: list[dict[str, Any]]
    entities: list[dict[str, Any]]

    def to_image(self) -> Image.Image:
        """Draw the picture with its objects and the words, and below, for each entity, its nodes."""
        drawing = draw_objects(self.picture, self.words, *self._drawn())
        lines = [line for entity in self.entities for line in self._lines(entity)]
        height = len(lines) * (_FONT_SIZE + 6) + 2 * _MARGIN
        image = Image.new("RGB", (drawing.width, drawing.height + height), "white")
        image.paste(drawing)
        draw = ImageDraw.Draw(image)
        for i, line in enumerate(lines):
            draw_text(draw, (_MARGIN, drawing.height + _MARGIN + i * (_FONT_SIZE + 6)), line, _FONT_SIZE)
        return image

    def to_html(self) -> str:
        """Write the same as one self-contained page: no script, no other file, everything escaped."""
        rows = []
        for entity in self.entities:
            name = f"<bdi>{html.escape(entity['word'])}</bdi> ({html.escape(entity['entity_group'])})"
            rows.append(f"<tr><th colspan=4>{name}, probability {entity['score']:.3f}</th></tr>")
            for link in entity["nodes"]:
                weight = "" if link["weight"] is None else _bar(link["weight"], "#56b4e9") + f"{link['weight']:.2f}"
                color = "#009e73" if link["change"] < 0 else "#d55e00"
                change = _bar(abs(link["change"]), color) + f"{link['change']:+.3f}"
                title = html.escape(self._title(link["node"]))
                cells = (title, weight, f"{link['score_without']:.3f}", change)
                rows.append(f"<tr>{''.join(f'<td>{cell}</td>' for cell in cells)}</tr>")
        head = "<tr><th>node</th><th>gate</th><th>probability without it</th><th>change</th></tr>"
        return (
            '<!doctype html>\n<html lang="en"><head><meta charset="utf-8"><title>Why these entities</title>'
            "<style>body {font-family: sans-serif; margin: 2em auto; max-width: 800px} td, th {text-align: left; "
            "padding: 2px 12px 2px 0}</style></head><body>\n"
            f"{objects_to_html(self.picture, self.words, *self._drawn())}\n"
            f"<table>{head}{''.join(rows)}</table>\n</body></html>\n"
        )

    def _drawn(self) -> tuple[list[dict], list[tuple[int, int, str]]]:
        objects = [node for node in self.nodes if "box" in node] if self.picture is not None else []
        return objects, [(*entity["words"], entity["entity_group"]) for entity in self.entities]

    def _title(self, number: int) -> str:
        node = self.nodes[number]
        return f"{number} {node.get('query') or node['title']}" + (f" {node['id']}" if "id" in node else "")

    def _lines(self, entity: Mapping[str, Any]) -> list[str]:
        word = textwrap.shorten(entity["word"], 60, placeholder=" …")
        lines = [f"{word} ({entity['entity_group']}), probability {entity['score']:.3f}"]
        for link in entity["nodes"]:
            weight = "" if link["weight"] is None else f"gate {link['weight']:.2f}, "
            without = f"without it {link['score_without']:.3f} ({link['change']:+.3f})"
            lines.append(f"      {self._title(link['node'])}: {weight}{without}")
        return lines


@torch.no_grad()
def explain(
    model, processor, text: str | None = None, image: Any = None, words: Sequence[str] | None = None, **columns: Any
) -> Explanation:
    """Explain the entities of one post.

        explanation = explain(model, processor, "Rihanna sings in London", image="rihanna.jpg")
        explanation.to_image().save("why.png")

    Args:
        model: a tagger of this package.
        processor: its processor.
        text: the post; or
        words: its words.
        image: the picture: path, bytes, PIL picture or array; None = no picture.
        columns: whatever else the processor reads (objects, neighbors_inter, caption, …) or calls (grounder, labeler,
            captioner).

    Returns:
        The entities that the pipeline finds, each with all visual nodes and the context. Each of these is left out by
        its mask, and the score of the labels that the entity was given is computed again.

    Raises:
        ValueError: the post cannot be read.
    """
    tagger = MultimodalNerPipeline(model, processor=processor, device=model.device)
    describers = {name: columns.pop(name) for name in processor.describers if name in columns}
    post = tagger.preprocess({"text": text, "words": words, "image": image} | columns, **describers)
    explanation = Explanation(post.text, post.tokens, post.picture, [], [])
    if not post.words:
        return explanation
    places = []  # (mask, position) of each node
    if any("context_mask" in part.features for _, part in post.parts()):
        places.append(("context_mask", None))
        explanation.nodes.append({"kind": "context", "title": "context", "text": " ".join(post.context)})
    for name, kind in processor.node_kinds.items():
        nodes = post.features.get(kind.mask, torch.zeros(0)).tolist()
        for position in (i for i, real in enumerate(nodes) if real):
            places.append((kind.mask, position))
            explanation.nodes.append(_describe_node(post, name, kind, position))
    windows = window_batches(model, processor, post)
    decoded = decode_windows(model, ((window, leave_out(features, places)) for window, features in windows))
    spans = decoded.spans()[0]
    decoded.predictions = decoded.predictions[:1].expand_as(decoded.predictions)  # how likely are the same labels?
    scores = decoded.span_scores([spans] * len(decoded.mask))  # with all nodes, then without each
    for i, span in enumerate(spans):
        weights = {name: node_weights(gate[0], span) for name, gate in decoded.gates.items()}
        links = []
        for number, (node, (_, position)) in enumerate(zip(explanation.nodes, places, strict=True)):
            without = scores[number + 1][i]
            weight = weights[node["kind"]][position] if node["kind"] in weights else None
            change = without - scores[0][i]
            links.append({"node": number, "weight": weight, "score_without": without, "change": change})
        nodes = sorted(links, key=lambda link: -abs(link["change"]))
        entity = describe_entity(post, span, scores[0][i])
        explanation.entities.append(entity | {"words": span[:2], "nodes": nodes})
    return explanation


def _describe_node(post, name: str, kind: NodeKind, position: int) -> dict[str, Any]:
    known = post.nodes.get(name, [])
    node = {"kind": name, "title": kind.title} | (known[position] if position < len(known) else {})
    if post.picture is not None and node.get("box") == [0, 0, *post.picture.size]:
        node = {"query": "the whole picture"} | node
    return node


def leave_out(
    features: Mapping[str, torch.Tensor], places: Sequence[tuple[str, int | None]]
) -> dict[str, torch.Tensor]:
    """Repeat a batch of one: first as it is, then without each of the nodes (mask, position), or the context, in turn.

    Args:
        features: the batch.
        places: of the nodes; of the context ("context_mask", None).
    """
    repeated = {name: tensor.repeat_interleave(len(places) + 1, dim=0) for name, tensor in features.items()}
    for row, (mask, position) in enumerate(places, start=1):
        if position is None and mask in features:
            repeated["attention_mask"][row, features[mask][0]] = False
        elif position is not None:
            repeated[mask][row, position] = False
    return repeated


def _bar(share: float, color: str) -> str:
    return (
        f'<span style="display: inline-block; height: 0.7em; width: {60 * share:.0f}px; background: {color}"></span> '
    )
