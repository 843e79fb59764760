"""Text of any script in drawings: fonts that have its letters, and the direction that it is read in."""

from __future__ import annotations

import functools
import logging
import sys
import unicodedata
from collections.abc import Iterator
from pathlib import Path

from PIL import ImageDraw, ImageFont

logger = logging.getLogger(__name__)

FOLDERS = {
    "win32": ["C:/Windows/Fonts"],
    "darwin": ["/System/Library/Fonts", "/Library/Fonts", "~/Library/Fonts"],
    "linux": ["/usr/share/fonts", "/usr/local/share/fonts", "~/.local/share/fonts", "~/.fonts"],
}
NO_LETTER = "\U0010ffff"
"""A code point that no font has: it is drawn as what stands for a missing letter."""


def draw_text(draw: ImageDraw.ImageDraw, place: tuple[float, float], text: str, size: int, fill: str = "black") -> None:
    """Draw a line of text, each piece in the first font that has its letters, in the order in which it is seen."""
    x, y = place
    for piece, font in _pieces(text, size):
        draw.text((x, y), piece, fill=fill, font=font, direction=_direction(font))
        x += font.getlength(piece, direction=_direction(font))


def text_width(text: str, size: int) -> float:
    """Width of a line of text in pixels."""
    return sum(font.getlength(piece, direction=_direction(font)) for piece, font in _pieces(text, size))


def is_right_to_left(text: str, default: bool = False) -> bool:
    """Whether the first letter that has a direction is read from right to left; `default` where none has one."""
    for letter in text:
        direction = unicodedata.bidirectional(letter)
        if direction in ("L", "R", "AL"):
            return direction != "L"
    return default


def _direction(font: ImageFont.FreeTypeFont) -> str | None:
    """A line as a whole runs to the right; with Raqm, words of other scripts in it run to the left, joined."""
    return "ltr" if font.layout_engine == ImageFont.Layout.RAQM else None


def _pieces(text: str, size: int) -> Iterator[tuple[str, ImageFont.FreeTypeFont]]:
    """Runs of words that share a font; a word is never cut, so that its letters join."""
    words = text.split(" ")
    run: list[str] = []
    font = None
    for i, word in enumerate(words):
        own = _font(word, size)
        if font is not None and own is not font:
            yield " ".join([*run, ""]), font
            run = []
        font = own
        run.append(word)
        if i == len(words) - 1:
            yield " ".join(run), font


@functools.lru_cache(maxsize=4096)
def _font(word: str, size: int) -> ImageFont.FreeTypeFont:
    """The first font that has all letters of a word; else that of Pillow, and a warning."""
    default = _open(None, size)
    if _has_letters(default, word):
        return default
    for path in _installed():
        font = _open(path, size)
        if font is not None and _has_letters(font, word):
            return font
    _warn(" ".join(sorted({unicodedata.name(letter, "?").split()[0] for letter in word if letter.isalpha()})))
    return default


@functools.lru_cache(maxsize=256)
def _open(path: str | None, size: int) -> ImageFont.FreeTypeFont | None:
    try:
        return ImageFont.load_default(size) if path is None else ImageFont.truetype(path, size)
    except OSError:  # a font of bitmaps in other sizes
        return None


@functools.lru_cache(maxsize=1)
def _installed() -> list[str]:
    """Fonts of this machine: plain faces without serifs first."""
    found: list[Path] = []
    for folder in FOLDERS.get(sys.platform, FOLDERS["linux"]):
        found += (path for path in Path(folder).expanduser().rglob("*") if path.suffix in (".ttf", ".otf", ".ttc"))
    styles = ("Math", "Bold", "Italic", "Oblique", "Light", "Condensed", "Mono", "Serif")
    return sorted(map(str, found), key=lambda path: (sum(style in path for style in styles), path))


def _has_letters(font: ImageFont.FreeTypeFont, word: str) -> bool:
    missing = bytes(font.getmask(NO_LETTER))
    for letter in set(word):
        invisible = unicodedata.category(letter) in ("Cf", "Mn", "Cc") or letter.isspace()
        if not invisible and bytes(font.getmask(letter)) == missing:
            return False
    return True


@functools.lru_cache(maxsize=64)
def _warn(scripts: str) -> None:
    logger.warning(
        f"No font of this machine has the letters {scripts or 'of a sign or an emoji'}: the drawing shows boxes. "
        "Install one that has them, such as Noto (apt install fonts-noto), or look at to_html() in a browser."
    )
