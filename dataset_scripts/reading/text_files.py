"""The lines of a text file, counted from 1, and lists of ids."""

from collections.abc import Iterator
from pathlib import Path

from .bad_input import BadInput


def read_text(path: str | Path) -> str:
    """Read a UTF-8 file; a byte order mark is skipped.

    Args:
        path: a text file.

    Raises:
        BadInput: The file is missing, empty or not UTF-8.
    """
    try:
        content = Path(path).read_bytes()
    except OSError as error:
        raise BadInput(f"{path}: can't be read ({error.strerror})") from error
    try:
        text = content.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        line = content.count(b"\n", 0, error.start) + 1
        raise BadInput(f"{path}:{line}: not UTF-8 text; convert the file to UTF-8") from error
    if not text.strip():
        raise BadInput(f"{path}: the file is empty")
    return text


def numbered_lines(path: str | Path) -> Iterator[tuple[int, str]]:
    r"""Yield (line number from 1, line) of a UTF-8 file, split on "\n" only: a word may be U+00A0 or U+2028.

    Args:
        path: a text file; its lines may end as on Windows ("\r\n").

    Raises:
        BadInput: As `read_text`.
    """
    for number, line in enumerate(read_text(path).split("\n"), start=1):
        yield number, line.removesuffix("\r")


def read_id_list(path: str | Path) -> set[str]:
    """Read ids, one a line: of several columns, separated by tabs, the last; lines that begin with # are comments.

    Raises:
        BadInput: As `numbered_lines`.
    """
    lines = [line for _, line in numbered_lines(path) if line and not line.startswith("#")]
    return {line.split("\t")[-1] for line in lines}
