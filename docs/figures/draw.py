"""The figures of the documentation, umgf.svg and rgcn.svg; `python docs/render.py` draws them."""

from pathlib import Path

import matplotlib

matplotlib.use("Agg")
import matplotlib.pyplot as plt
from matplotlib.axes import Axes
from matplotlib.patches import Circle, FancyBboxPatch, Rectangle

GREEN = "#2a9d5c"
BLUE = "#2f6fc4"
GREY = "#6b7280"
ORANGE = "#d97706"
PALE = {GREEN: "#d9f2e3", BLUE: "#dce8fa", GREY: "#eceef1", ORANGE: "#fdebd0"}
FOLDER = Path(__file__).parent


def canvas(width: float, height: float) -> tuple[plt.Figure, Axes]:
    """An empty figure; one unit = one tenth of an inch, the origin is at the lower left."""
    plt.rcParams.update({"font.family": "DejaVu Sans", "svg.hashsalt": "modeling_umgf", "svg.fonttype": "path"})
    figure, axes = plt.subplots(figsize=(width / 10, height / 10))
    figure.subplots_adjust(0, 0, 1, 1)
    axes.set(xlim=(0, width), ylim=(0, height))
    axes.axis("off")
    return figure, axes


def box(
    axes: Axes, x: float, y: float, width: float, height: float, text: str, color: str = GREY, size: float = 9
) -> None:
    """A rounded box around (x, y) with a text."""
    corner = (x - width / 2, y - height / 2)
    style = "round,pad=0,rounding_size=0.8"
    axes.add_patch(FancyBboxPatch(corner, width, height, boxstyle=style, fc=PALE[color], ec=color, lw=1.3, zorder=3))
    axes.text(x, y, text, ha="center", va="center", fontsize=size, zorder=4)


def line(
    axes: Axes, start: tuple, end: tuple, color: str = GREY, arrow: bool = True, bend: float = 0, style="-"
) -> None:
    """A line or arrow between two points; bend = how much it curves."""
    shape = {
        "arrowstyle": "-|>" if arrow else "-",
        "color": color,
        "lw": 1.4,
        "linestyle": style,
        "shrinkA": 0,
        "shrinkB": 0,
    }
    axes.annotate("", end, start, arrowprops={**shape, "connectionstyle": f"arc3,rad={bend}"}, zorder=2)


def heading(axes: Axes, x: float, y: float, text: str) -> None:
    axes.text(x, y, text, fontsize=11, fontweight="bold", va="center")


def note(axes: Axes, x: float, y: float, text: str, color: str = "#374151", align: str = "center") -> None:
    axes.text(x, y, text, fontsize=8, color=color, ha=align, va="center", linespacing=1.35)


def person(axes: Axes, x: float, y: float, color: str) -> None:
    axes.add_patch(Circle((x, y + 2.4), 1.1, fc=color, ec="none", zorder=4))
    axes.add_patch(
        FancyBboxPatch(
            (x - 1.4, y - 2.6), 2.8, 3.3, boxstyle="round,pad=0,rounding_size=1.2", fc=color, ec="none", zorder=4
        )
    )


def tower(axes: Axes, x: float, y: float, color: str) -> None:
    axes.fill([x - 2.2, x, x + 2.2], [y - 3, y + 4, y - 3], fc=color, ec="none", zorder=4)
    axes.fill([x - 0.9, x, x + 0.9], [y - 3, y - 0.6, y - 3], fc="white", ec="none", zorder=5)


def draw_umgf() -> plt.Figure:
    """UMGF: the graph of one post, one fusion layer, the tagger."""
    figure, axes = canvas(104, 50)
    heading(axes, 1, 47.5, "1  One graph: words and objects")
    words = {"Jordan": 4.5, "is": 11, "back": 16, "in": 21, "Paris": 27.5}
    for word, x in words.items():
        color = {"Jordan": GREEN, "Paris": BLUE}.get(word, GREY)
        box(axes, x, 39, 6 if word in ("Jordan", "Paris") else 4.2, 3.4, word, color)
    note(axes, 16, 43, "every word sees every word")
    axes.add_patch(Rectangle((2.5, 4), 25, 16, fc="#f3f4f6", ec="black", lw=1.2, zorder=1))
    for x, color, draw in ((9, GREEN, person), (20.5, BLUE, tower)):
        draw(axes, x, 11.5, color)
        axes.add_patch(Rectangle((x - 3.6, 6.5), 7.2, 10.6, fc="none", ec=color, lw=2, zorder=5))
    line(axes, (4.5, 37.3), (8, 17.1), GREEN, arrow=False)
    line(axes, (27.5, 37.3), (22, 17.1), BLUE, arrow=False)
    for x in words.values():
        line(axes, (x, 37.3), (15, 20), GREY, arrow=False, style=":")
    note(axes, 31.3, 27.5, "a phrase is\nlinked to the\nobject it found", BLUE)
    note(axes, 1, 2, "dotted: an object of a general query, to every word", align="left")

    heading(axes, 38, 47.5, "2  Fusion layer, L times")
    for x, name, other, color in ((46, "words", "objects", GREEN), (64, "objects", "words", BLUE)):
        box(axes, x, 42, 13, 3.2, name, color)
        box(axes, x, 34, 13, 5, f"self-attention\namong {name}", color, 8)
        box(axes, x, 21, 13, 5, f"+ gated sum over\nlinked {other}", color, 8)
        box(axes, x, 11, 13, 4, "feed-forward", color, 8)
        for top, bottom in ((40.4, 36.5), (31.5, 23.5), (18.5, 13)):
            line(axes, (x, top), (x, bottom), color)
    line(axes, (60.5, 31.5), (49, 23.6), BLUE)
    line(axes, (49.5, 31.5), (61, 23.6), GREEN)
    note(axes, 55, 29.9, "gates")
    note(axes, 55, 16.2, "each step: + input,\nlayer norm")
    axes.add_patch(Rectangle((38, 7.2), 34.5, 31, fc="none", ec=GREY, lw=1, ls="--"))

    heading(axes, 76, 47.5, "3  Tag the words")
    box(axes, 90, 42, 24, 3.6, "state of the text encoder", GREY)
    box(axes, 90, 35.5, 24, 3.6, "state after the last layer", GREEN)
    box(axes, 90, 28, 24, 3.8, "linear layer: label scores", ORANGE)
    box(axes, 90, 20.5, 24, 3.8, "CRF: best label sequence", ORANGE)
    for top, bottom in ((33.7, 29.9), (26.1, 22.4), (18.6, 14.6)):
        line(axes, (90, top), (90, bottom))
    note(axes, 90, 38.75, "side by side")
    for x, text, color in (
        (80.5, "Jordan\nB-PER", GREEN),
        (90, "is back in\nO    O    O", GREY),
        (99.3, "Paris\nB-LOC", BLUE),
    ):
        box(axes, x, 11.5, 8.4, 6, text, color, 8.5)
    axes.plot([46, 46, 74.5, 74.5, 77], [9, 4, 4, 35.5, 35.5], color=GREEN, lw=1.4, zorder=2)
    line(axes, (76.5, 35.5), (78, 35.5), GREEN)
    return figure


def draw_rgcn() -> plt.Figure:
    """R-GCN: two star graphs over pictures of other posts, gates, attention, the tagger."""
    figure, axes = canvas(104, 54)
    heading(axes, 1, 51.5, "1  Look up related pictures in the pool")
    rows = (
        (38, GREEN, "text of\nthe post", "captions most like the text", ("0.83", "0.79", "0.75", "0.70", "0.62")),
        (13, BLUE, "its own\npicture", "pictures with the same objects", ("1.00", "1.00", "0.82", "0.82", "0.71")),
    )
    for y, color, hub, relation, scores in rows:
        box(axes, 6, y, 9, 8, hub, color)
        for i, score in enumerate(scores):
            top = y + 8.4 - i * 4.2
            line(axes, (10.5, y), (25.5, top), color, arrow=False)
            axes.add_patch(Rectangle((25.5, top - 1.6), 5, 3.2, fc="white", ec=color, lw=1.3, zorder=3))
            axes.add_patch(Circle((27.2, top + 0.2), 0.6, fc=color, ec="none", zorder=4))
            axes.fill([26, 28.3, 30.2], [top - 1.6, top + 0.5, top - 1.6], fc=PALE[color], ec=color, lw=0.7, zorder=4)
            note(axes, 33.4, top, score, color)
        note(axes, 17.5, y - 11.5, f"k = 5 {relation}", color)
    note(axes, 33.4, 48.8, "similarity")

    heading(axes, 40, 51.5, "2  Star GCN and gate")
    box(axes, 52, 43, 22, 5, "GCN: hub and spokes summed,\nweighted by similarity", GREEN, 8.5)
    box(axes, 52, 34, 22, 5, "gate per word: how much\nof it this word takes", GREEN, 8.5)
    box(axes, 52, 18, 22, 5, "GCN: hub and spokes summed,\nweighted by similarity", BLUE, 8.5)
    box(axes, 52, 9, 22, 5, "gate per cell: how much\nof it this cell takes", BLUE, 8.5)
    for y, color in ((43, GREEN), (18, BLUE)):
        line(axes, (36, y), (41, y), color)
        line(axes, (52, y - 2.5), (52, y - 6.5), color)
    note(axes, 52, 26.5, "no neighbour, or similarity 0:\nnothing is added")

    heading(axes, 69, 51.5, "3  Words look at the picture")
    box(axes, 75.5, 34, 13, 5, "self-attention\namong words", GREEN, 8)
    box(axes, 75.5, 9, 13, 5, "self-attention\namong cells", BLUE, 8)
    box(axes, 94, 21.5, 15, 6, "cross-attention:\nwords ask,\ncells answer", ORANGE, 8)
    box(axes, 94, 34, 15, 4, "linear layer, CRF", ORANGE, 8.5)
    box(axes, 94, 43, 15, 5, "one label\nfor each word", ORANGE, 8.5)
    line(axes, (63, 34), (69, 34), GREEN)
    line(axes, (63, 9), (69, 9), BLUE)
    line(axes, (82, 34), (86.5, 23.5), GREEN)
    line(axes, (82, 9), (86.5, 19.5), BLUE)
    line(axes, (94, 24.5), (94, 32), ORANGE)
    line(axes, (94, 36), (94, 40.5), ORANGE)
    return figure


def save_figures() -> None:
    """Write both figures."""
    for name, draw in (("umgf", draw_umgf), ("rgcn", draw_rgcn)):
        draw().savefig(FOLDER / f"{name}.svg", metadata={"Date": None})
