"""Files that are written whole or not at all, and files named by their content."""

import hashlib
import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path


@contextmanager
def write_whole(path: str | os.PathLike) -> Iterator[Path]:
    """Write a file or a folder beside its place, and put it there when it is complete.

        with write_whole("scores.json") as unfinished:
            unfinished.write_text("{}", encoding="utf-8")

    The body writes to the path it is given: a file, or a folder that it makes itself. Where it raises, what it wrote is
    removed and `path` is as before. Parent folders are made. Processes may write the same path at the same time.

    Args:
        path: the file or folder to write; a file that is there is replaced, and so is a folder.
    """
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    unfinished = path.with_name(f".{path.name}.unfinished-{os.getpid()}")
    remove(unfinished)
    try:
        yield unfinished
        if path.is_dir():
            shutil.rmtree(path)
        os.replace(unfinished, path)
    finally:
        remove(unfinished)


def remove(path: Path) -> None:
    """Remove a file, or a folder with all that is in it, if it is there."""
    if path.is_dir() and not path.is_symlink():
        shutil.rmtree(path)
    else:
        path.unlink(missing_ok=True)


def file_hash(source: str | os.PathLike | bytes) -> str:
    """Name a file, or bytes, by the content.

    Args:
        source: path of the file, or the bytes themselves.

    Returns:
        64 hexadecimal digits (SHA-256).
    """
    if isinstance(source, bytes):
        return hashlib.sha256(source).hexdigest()
    digest = hashlib.sha256()
    with open(source, "rb") as file:
        while block := file.read(1 << 20):
            digest.update(block)
    return digest.hexdigest()
