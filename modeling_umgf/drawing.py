"""A post to look at: its picture with the objects, its words in the colours of their objects, the edges as text."""

from __future__ import annotations

import base64
import html
import io
from collections.abc import Sequence
from itertools import groupby
from typing import Any

from PIL import Image, ImageDraw

from .fonts import draw_text, is_right_to_left, text_width
from .labels import Span
from .pictures import open_picture

COLORS = ("#e69f00", "#56b4e9", "#009e73", "#f0e442", "#0072b2", "#d55e00", "#cc79a7", "#8a5ccf", "#7cb518", "#b5651d")
"""Colours of the objects that phrases found: those of Okabe and Ito (told apart by the colour-blind) and three more."""

GENERAL_COLOR = "#555555"
"""Colour of the objects that are linked to every word."""

# in pixels
_WIDTH = 800
_MAX_HEIGHT = 800
_MARGIN = 12
_FONT_SIZE = 17
_TYPE_SIZE = 12
_LABEL_HEIGHT = _FONT_SIZE + 5


def draw_objects(
    picture: Any, words: Sequence[str], objects: Sequence[dict[str, Any]], entities: Sequence[Span] | None = None
) -> Image.Image:
    """Draw a post with its objects.

    Args:
        picture: anything that `open_picture` takes, or None.
        words: the words of the post.
        objects: {"box": [x0, y0, x1, y1] in pixels of the upright picture, "phrase": {"start", "end"} or None} and, if
            known, "score" and "query".
        entities: (first word, word after the last, type), written under their words.

    Returns:
        An RGB picture, 800 pixels wide: the picture with numbered boxes, the words, and one line for each object that
        says which words it is linked to.

    Raises:
        UnreadablePicture: the picture cannot be opened.
    """
    image = None if picture is None else _overlay(open_picture(picture), objects)
    top = 0 if image is None else image.height
    rows = _lines(words, {start: kind for start, _, kind in entities or ()})
    line_height = 2 * _FONT_SIZE + 8 if entities else _FONT_SIZE + 12
    height = top + len(rows) * line_height + len(objects) * (_FONT_SIZE + 8) + 3 * _MARGIN
    canvas = Image.new("RGB", (_WIDTH, height), "white")
    if image is not None:
        canvas.paste(image, ((_WIDTH - image.width) // 2, 0))
    draw = ImageDraw.Draw(canvas)
    colors = _word_colors(len(words), objects)
    entity_of = {}
    for start, end, kind in entities or ():
        entity_of |= dict.fromkeys(range(start, end), (start, kind))
    y = top + _MARGIN
    for row in rows:
        for i, x, width in row:
            if colors[i]:
                draw.rectangle((x - 3, y - 2, x + width + 3, y + _FONT_SIZE + 4), fill=colors[i])
            draw_text(draw, (x, y), words[i], _FONT_SIZE, _text_color(colors[i]))
            if i in entity_of:
                start, kind = entity_of[i]
                draw.line((x, y + _FONT_SIZE + 7, x + width, y + _FONT_SIZE + 7), fill="black", width=2)
                if i == start:
                    draw_text(draw, (x, y + _FONT_SIZE + 8), kind, _TYPE_SIZE)
        y += line_height
    y += _MARGIN
    for number, (node, color) in enumerate(zip(objects, _object_colors(objects), strict=True)):
        draw.rectangle((_MARGIN, y + 2, _MARGIN + 14, y + 16), fill=color)
        draw_text(draw, (_MARGIN + 24, y), f"{_title(number, node)}: {_edges(node, words)}", _FONT_SIZE)
        y += _FONT_SIZE + 8
    return canvas


def objects_to_html(
    picture: Any, words: Sequence[str], objects: Sequence[dict[str, Any]], entities: Sequence[Span] | None = None
) -> str:
    """Write what `draw_objects` draws as one self-contained `<div>`: no script, no other file, everything escaped.

    Args:
        picture: as for `draw_objects`.
        words: as for `draw_objects`.
        objects: as for `draw_objects`.
        entities: as for `draw_objects`.

    Raises:
        UnreadablePicture: the picture cannot be opened.
    """
    colors = _word_colors(len(words), objects)
    object_colors = _object_colors(objects)
    parts = ['<div style="font-family: sans-serif; max-width: 800px">']
    if picture is not None:
        parts.append(_svg(open_picture(picture), objects, object_colors))
    starts = {start: (end, kind) for start, end, kind in entities or ()}
    parts.append('<p dir="auto" style="line-height: 2.2">')
    close = None
    for i, (word, color) in enumerate(zip(words, colors, strict=True)):
        if i in starts:
            close, kind = starts[i]
            parts.append(f'<span title="{html.escape(kind)}" style="border-bottom: 2px solid; padding-bottom: 3px">')
        style = f' style="background: {color}; color: {_text_color(color)}; padding: 2px 4px"' if color else ""
        parts.append(f"<span{style}>{html.escape(word)}</span>")
        if close == i + 1:
            parts.append(f"<sub>{html.escape(kind)}</sub></span>")
    parts.append('</p><ul style="list-style: none; padding: 0">')
    for number, (node, color) in enumerate(zip(objects, object_colors, strict=True)):
        line = html.escape(f"{_title(number, node)}: {_edges(node, words)}")
        parts.append(f'<li><span style="color: {color}">&#9632;</span> <bdi>{line}</bdi></li>')
    parts.append("</ul></div>")
    return "\n".join(parts)


def _overlay(picture: Image.Image, objects: Sequence[dict[str, Any]]) -> Image.Image:
    scale = min(_WIDTH / picture.width, _MAX_HEIGHT / picture.height)
    image = picture.resize((max(1, round(picture.width * scale)), max(1, round(picture.height * scale))))
    draw = ImageDraw.Draw(image)
    colors = _object_colors(objects)
    boxes = [[value * scale for value in node["box"]] for node in objects]
    for (x0, y0, x1, y1), color in zip(boxes, colors, strict=True):
        draw.rectangle((x0, y0, max(x0, x1 - 1), max(y0, y1 - 1)), outline=color, width=3)
    labels: list[tuple[float, float, float, float]] = []
    for number, (node, (x0, y0, *_), color) in enumerate(zip(objects, boxes, colors, strict=True)):
        label = _title(number, node)
        width = text_width(label, _FONT_SIZE) + 8
        labels.append(_free_place(x0, y0, width, _LABEL_HEIGHT, image.size, labels))
        x, y, *_ = labels[-1]
        draw.rectangle(labels[-1], fill=color)
        draw_text(draw, (x + 4, y + 1), label, _FONT_SIZE, _text_color(color))
    return image


def _free_place(
    x: float, y: float, width: float, height: float, size: tuple[int, int], taken: Sequence[tuple]
) -> tuple[float, float, float, float]:
    """The place [x0, y0, x1, y1] of a label: in the picture, at or below (x, y), above it if there is none below."""
    x = max(0, min(x, size[0] - width))
    y = max(0, min(y, size[1] - height - 1))
    step = height + 1
    below = int((size[1] - height - y) // step)
    above = int(y // step)
    for shift in (0, *range(1, below + 1), *range(-1, -above - 1, -1)):
        place = (x, y + shift * step, x + width, y + shift * step + height)
        if not any(_meet(place, other) for other in taken):
            return place
    return x, y, x + width, y + height  # the picture is full


def _meet(place: Sequence[float], other: Sequence[float]) -> bool:
    """Whether two places [x0, y0, x1, y1] share anything."""
    return place[0] < other[2] and other[0] < place[2] and place[1] < other[3] and other[1] < place[3]


def _svg(picture: Image.Image, objects: Sequence[dict[str, Any]], colors: Sequence[str]) -> str:
    buffer = io.BytesIO()
    picture.save(buffer, "PNG")
    source = base64.b64encode(buffer.getvalue()).decode()
    size = max(picture.size) / 40
    shapes = []
    labels: list[tuple[float, float, float, float]] = []
    for number, (node, color) in enumerate(zip(objects, colors, strict=True)):
        x0, y0, x1, y1 = node["box"]
        title = _title(number, node)
        labels.append(_free_place(x0, y0, 0.6 * size * len(title), size, picture.size, labels))
        x, y, *_ = labels[-1]
        shapes.append(
            f'<rect x="{x0:.1f}" y="{y0:.1f}" width="{x1 - x0:.1f}" height="{y1 - y0:.1f}" fill="none" '
            f'stroke="{color}" stroke-width="{size / 5:.2f}"/><text x="{x + size / 4:.1f}" y="{y + size:.1f}" '
            f'font-size="{size:.1f}" fill="{color}" stroke="white" stroke-width="{size / 6:.2f}" '
            f'paint-order="stroke">{html.escape(title)}</text>'
        )
    return (
        f'<svg viewBox="0 0 {picture.width} {picture.height}" style="width: 100%; max-height: 80vh" role="img">'
        f'<image width="{picture.width}" height="{picture.height}" href="data:image/png;base64,{source}"/>'
        f"{''.join(shapes)}</svg>"
    )


def _object_colors(objects: Sequence[dict[str, Any]]) -> list[str]:
    phrases = dict.fromkeys(_span(node) for node in objects if node.get("phrase"))
    color_of = {span: COLORS[i % len(COLORS)] for i, span in enumerate(phrases)}
    return [color_of[_span(node)] if node.get("phrase") else GENERAL_COLOR for node in objects]


def _word_colors(length: int, objects: Sequence[dict[str, Any]]) -> list[str | None]:
    colors: list[str | None] = [None] * length
    for node, color in zip(objects, _object_colors(objects), strict=True):
        if node.get("phrase"):
            start, end = _span(node)
            for i in range(start, end):
                colors[i] = colors[i] or color
    return colors


def _span(node: dict[str, Any]) -> tuple[int, int]:
    return node["phrase"]["start"], node["phrase"]["end"]


def _title(number: int, node: dict[str, Any]) -> str:
    score = "" if node.get("score") is None else f" {node['score']:.2f}"
    return f"{number} {node.get('query') or 'object'}{score}"


def _edges(node: dict[str, Any], words: Sequence[str]) -> str:
    if not node.get("phrase"):
        return "linked to every word"
    start, end = _span(node)
    return f"linked to {' '.join(words[start:end])}"


def _text_color(background: str | None) -> str:
    if background is None:
        return "black"
    red, green, blue = (int(background[i : i + 2], 16) for i in (1, 3, 5))
    return "black" if 0.299 * red + 0.587 * green + 0.114 * blue > 140 else "white"


def _lines(words: Sequence[str], types: dict[int, str]) -> list[list[tuple[int, float, float]]]:
    """Lines of (word, left edge, width) that fit into the width, in the order in which they are read.

    Args:
        words: the words of the post.
        types: first word of each entity → its type, which is written under it.
    """
    rows: list[list[tuple[int, float, float]]] = [[]]  # word, its width, width with the type below
    x: float = _MARGIN
    for i, word in enumerate(words):
        width = text_width(word, _FONT_SIZE)
        room = max(width, text_width(types[i], _TYPE_SIZE)) if i in types else width
        if x + room > _WIDTH - _MARGIN and rows[-1]:
            rows.append([])
            x = _MARGIN
        rows[-1].append((i, width, room))
        x += room + 10
    mirrored = is_right_to_left(" ".join(words))
    return [_placed(row, words, mirrored) for row in rows]


def _placed(
    row: Sequence[tuple[int, float, float]], words: Sequence[str], mirrored: bool
) -> list[tuple[int, float, float]]:
    """Place the words of a line from left to right as they are seen; in a mirrored one the first is the rightmost."""
    seen: list[tuple[int, float, float]] = []
    for other_way, run in groupby(row, lambda item: is_right_to_left(words[item[0]], mirrored) != mirrored):
        run = list(run)
        seen += reversed(run) if other_way else run
    if mirrored:
        seen.reverse()
    x = _MARGIN
    if mirrored:
        x = _WIDTH - _MARGIN + 10 - sum(room + 10 for _, _, room in row)
    placed = []
    for i, width, room in seen:
        placed.append((i, x, width))
        x += room + 10
    return placed
