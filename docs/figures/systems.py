"""The figure of all systems with their intervals, systems.svg; `python docs/render.py` draws it from stored runs."""

import statistics
from collections.abc import Mapping, Sequence
from pathlib import Path

import matplotlib.pyplot as plt
from matplotlib.lines import Line2D
from recipe_tables import BLOCKS, Row, block_of, finished_rows, label, title

from .draw import BLUE, FOLDER, GREEN, GREY, ORANGE, PALE

GROUPS = ("offline/twitter2017", "offline/twitter2015")
COLORS = dict(zip(BLOCKS, (GREY, BLUE, GREEN, ORANGE), strict=True))


def save_figure_of_systems(folder: Path = FOLDER) -> None:
    """Draw what was run so far; nothing where nothing was."""
    rows = {group: own for group in GROUPS if (own := finished_rows(group))}
    if rows:
        draw_systems(rows).savefig(folder / "systems.svg", metadata={"Date": None})


def draw_systems(rows: Mapping[str, Sequence[Row]]) -> plt.Figure:
    """A panel for each data set: of each row the runs, their mean and its 95 % interval over test posts."""
    plt.rcParams.update({"font.family": "DejaVu Sans", "svg.hashsalt": "modeling_umgf", "svg.fonttype": "path"})
    height = 1.8 + 0.32 * max(len(own) for own in rows.values())
    figure, panels = plt.subplots(1, len(rows), figsize=(7.5 * len(rows), height), squeeze=False)
    for axes, (group, own) in zip(panels[0], rows.items(), strict=True):
        for y, row in enumerate(own):
            color = COLORS[block_of(row.recipe)]
            values = row.values("test_f1")
            if row.statistics:
                axes.plot([row.statistics["f1_low"], row.statistics["f1_high"]], [y, y], color=PALE[color], lw=7)
            axes.plot(values, [y] * len(values), "o", color=color, ms=4, mfc="none")
            axes.plot(statistics.mean(values), y, "D", color=color, ms=6)
        axes.set_yticks(range(len(own)), [f"{label(row.recipe.row)} ({row.seeds()})" for row in own], fontsize=8)
        axes.set_title(title(group), fontsize=10)
        axes.set_xlabel("test F1 of whole names, %; diamond: mean of the seeds, bar: 95 % over posts", fontsize=8)
        axes.grid(axis="x", color=PALE[GREY])
        axes.spines[["top", "right", "left"]].set_visible(False)
    marks = [Line2D([], [], color=color, marker="D", lw=0, label=block) for block, color in COLORS.items()]
    figure.legend(handles=marks, loc="upper center", ncols=2, fontsize=8, frameon=False)
    figure.tight_layout(rect=(0, 0, 1, 1 - 0.6 / height))
    return figure
