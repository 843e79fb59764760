"""Anything picture-like becomes an upright RGB picture, or one clear error."""

from __future__ import annotations

import io
import os
import stat
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image, ImageOps, ImageStat, UnidentifiedImageError

from .files import file_hash

MAX_PIXELS = 89_478_485
"""Largest picture that is decoded: Pillow's own warning limit, a quarter of a gigabyte of RGB."""

MAX_FILE_BYTES = 1_000_000_000
"""Largest file of a picture that is read."""

READABLE_FORMATS = ("JPEG", "PNG", "GIF", "WEBP", "BMP", "TIFF", "PPM")
"""Formats that are opened. Others are refused: Pillow hands EPS, for one, to an external interpreter."""

BLANK_STANDARD_DEVIATION = 2.0

LOOK_WIDTH = 8 * 8 * 3


class UnreadablePicture(ValueError):
    """A picture that cannot be used, with the reason in one sentence.

    Args:
        name: the file, or a word for what was given where there is no file.
        reason: why it cannot be used; the same words for the same cause, so that reasons can be counted.
    """

    def __init__(self, name: str, reason: str):
        super().__init__(name, reason)
        self.name = name
        self.reason = reason

    def __str__(self) -> str:
        return f"{self.name}: {self.reason}"


def open_picture(source: Any) -> Image.Image:
    """Read a picture completely and make it RGB and upright.

    The first frame of an animation is taken, transparent parts become white, 16-bit values are scaled to 8 bits and the
    rotation that EXIF asks for is applied. More than `MAX_PIXELS` pixels are refused before they are decoded.

    Args:
        source: a path, the bytes of a file, a `PIL.Image.Image`, a mapping with "bytes" and/or "path" (an undecoded
            `Image` cell of `datasets`), or an array [height, width], [height, width, channels] or [channels, height,
            width] with 1, 3 or 4 channels: uint8, other integers in 0..255, uint16 (scaled by 1/257), booleans, or
            floats in 0..1 or 0..255.

    Returns:
        An RGB picture that shares no file or memory with the source.

    Raises:
        UnreadablePicture: there is no such file, it is damaged, too large or not a picture.
    """
    if isinstance(source, Image.Image):
        return _decode(source, getattr(source, "filename", "") or "the given picture")
    if _is_open(source):
        return _from_array(np.asarray(source))
    name, content = _file_content(source)
    try:
        image = Image.open(io.BytesIO(content), formats=READABLE_FORMATS)
    except UnidentifiedImageError as error:
        reason = (
            "the file is empty" if not content else f"not a picture in a known format ({', '.join(READABLE_FORMATS)})"
        )
        raise UnreadablePicture(name, reason) from error
    except (Image.DecompressionBombError, Image.DecompressionBombWarning) as error:
        raise UnreadablePicture(name, _too_large()) from error
    except Exception as error:  # Pillow's readers raise almost anything on damaged files
        raise UnreadablePicture(name, f"damaged picture ({error})") from error
    with image:
        return _decode(image, name)


def picture_in(folder: str | os.PathLike, name: str) -> str:
    """Return the path of a picture that data name, which lies in a folder: data may come from anybody.

    Args:
        folder: the folder of the pictures.
        name: path from there.

    Raises:
        UnreadablePicture: the name leads out of the folder: by "..", from the root, or through a link.
    """
    path = os.path.join(folder, name)
    try:
        inside = Path(path).resolve().is_relative_to(Path(folder).resolve())
    except (OSError, ValueError, RuntimeError) as error:  # a zero in it, a name too long, links in a circle
        raise UnreadablePicture(name[:200], f"no name of a file ({error})") from error
    if not inside:
        raise UnreadablePicture(
            name, f"leads out of the folder of pictures, {folder}; put it there, or name another folder"
        )
    return path


def undecoded(dataset: Any) -> Any:
    """Let a dataset of the library `datasets` hand out its pictures as they are stored, for `open_picture`, which looks
    at their size before it decodes them; whatever else is given is left as it is."""
    for name, feature in (getattr(dataset, "features", None) or {}).items():
        if type(feature).__name__ == "Image" and feature.decode:
            dataset = dataset.cast_column(name, type(feature)(decode=False))
    return dataset


def content_hash(source: Any) -> str:
    """Name a picture by its pixels: every copy of it has the same name, as another file and as an open picture too.

    Args:
        source: what `open_picture` takes.

    Returns:
        64 hexadecimal digits: SHA-256 of the size and the pixels of the upright RGB picture.

    Raises:
        UnreadablePicture: as `open_picture`.
    """
    picture = open_picture(source)
    return file_hash(f"{picture.size}".encode() + picture.tobytes())


def picture_file_hash(source: Any) -> str:
    """Name what is given by its bytes, without decoding it; a picture that is open already by its pixels.

    Args:
        source: what `open_picture` takes.

    Returns:
        64 hexadecimal digits: SHA-256 of the file, or the `content_hash` where there is no file.

    Raises:
        UnreadablePicture: there is no such file, or the source is nothing picture-like.
    """
    return content_hash(source) if _is_open(source) else file_hash(_file_content(source)[1])


def look(picture: Image.Image) -> np.ndarray:
    """Sum up how a picture looks, to tell which of two pictures is more like a third: no model is needed.

    Args:
        picture: an RGB picture.

    Returns:
        [192] float32: its thumbnail of 8 x 8 pixels, each colour centred, as a unit vector. Zeros for one colour only.
    """
    thumbnail = np.asarray(picture.resize((8, 8), Image.Resampling.BOX), dtype=np.float32)
    contrast = (thumbnail - thumbnail.mean(axis=(0, 1))).ravel()
    length = np.linalg.norm(contrast)
    return contrast / length if length else contrast


def is_blank(picture: Image.Image) -> bool:
    """Whether a picture shows one colour only: the standard deviation of every channel is below 2 of 255.

    Args:
        picture: an RGB picture.
    """
    return all(deviation < BLANK_STANDARD_DEVIATION for deviation in ImageStat.Stat(picture).stddev)


def _is_open(source: Any) -> bool:
    """Whether a source holds pixels, as a picture or an array does, and not a file."""
    return isinstance(source, Image.Image) or (hasattr(source, "__array__") and not isinstance(source, Mapping))


def _file_content(source: Any) -> tuple[str, bytes]:
    """The name and the bytes of a path, of bytes, or of a mapping with either."""
    path = None
    if isinstance(source, Mapping):
        source, path = source.get("bytes"), source.get("path")
        source = path if source is None else source
    if isinstance(source, bytes | bytearray | memoryview):
        return str(path or "the given bytes"), bytes(source)
    if not isinstance(source, str | os.PathLike):
        raise UnreadablePicture(
            f"the given {type(source).__name__}",
            "not a picture; give a path, bytes, a PIL image, an array, or a mapping with 'bytes' or 'path'",
        )
    name = os.fspath(source)
    if name.startswith(("http://", "https://")):
        raise UnreadablePicture(name, "a web address, not a file; download the picture first")
    try:
        about = os.stat(name)
        if not stat.S_ISREG(about.st_mode):  # reading a device or a pipe might never end
            raise UnreadablePicture(name, "not a file")
        if about.st_size > MAX_FILE_BYTES:
            raise UnreadablePicture(name, f"larger than {MAX_FILE_BYTES:,} bytes")
        return name, Path(name).read_bytes()
    except UnreadablePicture:
        raise
    except FileNotFoundError as error:
        raise UnreadablePicture(name, "no such file") from error
    except (OSError, ValueError) as error:
        reason = getattr(error, "strerror", None) or error
        raise UnreadablePicture(name, f"the file cannot be read ({reason})") from error


def _decode(image: Image.Image, name: str) -> Image.Image:
    if image.width * image.height > MAX_PIXELS:
        raise UnreadablePicture(name, _too_large())
    try:
        image.load()
    except Exception as error:
        raise UnreadablePicture(name, f"damaged picture ({error})") from error
    try:
        image = ImageOps.exif_transpose(image)
    except Exception:  # a broken EXIF block says nothing about the rotation: take the picture as it is stored
        image = image.copy()
    if image.mode.startswith(("I", "F")):
        values = np.asarray(image)
        return _from_array(values.astype(np.uint16) if image.mode == "I" and _within(values, 65535) else values, name)
    if image.has_transparency_data:
        image = image.convert("RGBA")
        white = Image.new("RGBA", image.size, "white")
        image = Image.alpha_composite(white, image)
    return image.convert("RGB")


def _from_array(values: np.ndarray, name: str = "the given array") -> Image.Image:
    if values.ndim == 2:
        values = values[:, :, None]
    if values.ndim == 3 and values.shape[2] not in (1, 3, 4) and values.shape[0] in (1, 3, 4):
        values = values.transpose(1, 2, 0)
    if values.ndim != 3 or values.shape[2] not in (1, 3, 4) or values.size == 0:
        raise UnreadablePicture(
            name,
            f"shape {list(values.shape)} is not [height, width] alone or with 1, 3 or 4 channels first or last",
        )
    if values.shape[0] * values.shape[1] > MAX_PIXELS:
        raise UnreadablePicture(name, _too_large())
    if values.dtype == np.bool_:
        values = values * np.uint8(255)
    elif values.dtype.kind == "u" and values.dtype.itemsize == 2:
        values = np.round(values / 257)
    elif values.dtype.kind not in "uif" or not _within(values, 255):  # NaN ends here too
        raise UnreadablePicture(name, f"{values.dtype} values outside 0..255 are not a picture")
    elif values.dtype.kind == "f":
        values = np.round(values * 255 if values.max() <= 1 else values)
    values = values.astype(np.uint8)
    if values.shape[2] == 1:
        values = values.repeat(3, axis=2)
    return _decode(Image.fromarray(np.ascontiguousarray(values)), name)


def _within(values: np.ndarray, highest: int) -> bool:
    return bool(values.min() >= 0 and values.max() <= highest)


def _too_large() -> str:
    return f"larger than {MAX_PIXELS:,} pixels; make it smaller first"
