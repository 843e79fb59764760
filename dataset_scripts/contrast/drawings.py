"""Drawings of a person, a place, an organisation and a thing."""

import io

import numpy as np
from PIL import Image, ImageDraw

from ..columns.contract import TWITTER_TYPES

WIDTH = 128
HEIGHT = 96
CELLS_ACROSS = 3
CELLS_DOWN = 2
"""Each object has a cell of the picture for itself."""


def draw_objects(kinds: list[str], rng: np.random.Generator) -> tuple[bytes, list[list[float]]]:
    """A JPEG file with one object per kind, each in a cell of its own, and the boxes around them."""
    background = rng.integers(0, 256, 3)
    slope = np.linspace(-1, 1, WIDTH)[None, :, None] * rng.uniform(-40, 40, 3)
    noise = rng.normal(0, rng.uniform(2, 15), (HEIGHT, WIDTH, 3))
    picture = Image.fromarray((background + slope + noise).clip(0, 255).astype(np.uint8))
    draw = ImageDraw.Draw(picture)
    boxes = []
    for kind, cell in zip(kinds, rng.permutation(CELLS_ACROSS * CELLS_DOWN), strict=False):
        width = rng.uniform(30, 41)
        height = rng.uniform(34, 46)
        x = cell % CELLS_ACROSS * WIDTH / CELLS_ACROSS + rng.uniform(0, WIDTH / CELLS_ACROSS - width)
        y = cell // CELLS_ACROSS * HEIGHT / CELLS_DOWN + rng.uniform(0, HEIGHT / CELLS_DOWN - height)
        main = _contrasting_colour(background, rng)
        _SHAPES[kind](_Pen(draw, x, y, width, height), main, _contrasting_colour(main, rng))
        edges = [x, y, x + width, y + height]
        x0, y0, x1, y1 = [round(float(edge + rng.uniform(-1, 1)), 1) for edge in edges]
        boxes.append([max(x0, 0), max(y0, 0), min(x1, WIDTH), min(y1, HEIGHT)])
    file = io.BytesIO()
    picture.save(file, "JPEG", quality=90)
    return file.getvalue(), boxes


def _contrasting_colour(other: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    while True:
        colour = rng.integers(0, 256, 3)
        if abs(colour - other).sum() > 220:
            return colour


class _Pen:
    """Draws in coordinates from 0 to 1 inside one box of a picture."""

    def __init__(self, draw: ImageDraw.ImageDraw, x: float, y: float, width: float, height: float):
        self.draw = draw
        self.x = x
        self.y = y
        self.width = width
        self.height = height

    def points(self, *xy: float) -> list[tuple[float, float]]:
        return [(self.x + u * self.width, self.y + v * self.height) for u, v in zip(xy[::2], xy[1::2], strict=True)]

    def polygon(self, colour: np.ndarray, *xy: float) -> None:
        self.draw.polygon(self.points(*xy), fill=tuple(map(int, colour)))

    def ellipse(self, colour: np.ndarray, *xy: float) -> None:
        self.draw.ellipse(self.points(*xy), fill=tuple(map(int, colour)))


def _person(pen: _Pen, main: np.ndarray, second: np.ndarray) -> None:
    pen.ellipse(second, 0.33, 0.0, 0.67, 0.32)  # head
    pen.polygon(main, 0.3, 0.34, 0.7, 0.34, 0.68, 0.7, 0.32, 0.7)  # body
    pen.polygon(main, 0.3, 0.34, 0.0, 0.6, 0.1, 0.7, 0.32, 0.55)  # arms
    pen.polygon(main, 0.7, 0.34, 1.0, 0.6, 0.9, 0.7, 0.68, 0.55)
    pen.polygon(second, 0.32, 0.7, 0.48, 0.7, 0.42, 1.0, 0.24, 1.0)  # legs
    pen.polygon(second, 0.52, 0.7, 0.68, 0.7, 0.76, 1.0, 0.58, 1.0)


def _place(pen: _Pen, main: np.ndarray, second: np.ndarray) -> None:
    pen.polygon(main, 0.0, 1.0, 0.38, 0.25, 0.6, 0.65, 0.72, 0.5, 1.0, 1.0)  # two mountains
    pen.ellipse(second, 0.66, 0.02, 0.94, 0.28)  # sun


def _organisation(pen: _Pen, main: np.ndarray, second: np.ndarray) -> None:
    pen.ellipse(main, 0.0, 0.0, 1.0, 1.0)  # a round logo: a diamond in a disc
    pen.polygon(second, 0.5, 0.12, 0.88, 0.5, 0.5, 0.88, 0.12, 0.5)


def _thing(pen: _Pen, main: np.ndarray, second: np.ndarray) -> None:
    pen.ellipse(second, 0.0, 0.05, 0.4, 0.45)  # a cup: two handles, bowl, stem, foot
    pen.ellipse(second, 0.6, 0.05, 1.0, 0.45)
    pen.polygon(main, 0.15, 0.0, 0.85, 0.0, 0.7, 0.5, 0.56, 0.6, 0.56, 0.8, 0.44, 0.8, 0.44, 0.6, 0.3, 0.5)
    pen.polygon(main, 0.2, 0.8, 0.8, 0.8, 0.8, 1.0, 0.2, 1.0)


_SHAPES = dict(zip(TWITTER_TYPES, (_person, _place, _organisation, _thing), strict=True))
