"""The lines of a text file, counted from 1, and lists of ids."""

from collections.abc import Iterator
from pathlib import Path

from .bad_input import BadInput


def numbered_lines(path: str | Path) -> Iterator[tuple[int, str]]:
    r"""Yield (line number from 1, line) of a UTF-8 file, split on "\n" only: a word may be U+00A0 or U+2028.

    Args:
        path: a text file. A byte order mark is skipped.

    Raises:
        BadInput: The file is missing, empty or not UTF-8, or has Windows line ends.
    """
    try:
        content = Path(path).read_bytes()
    except OSError as error:
        raise BadInput(f"{path}: can't be read ({error.strerror})") from error
    if not content.strip():
        raise BadInput(f"{path}: the file is empty")
    try:
        lines = content.decode("utf-8-sig").split("\n")
    except UnicodeDecodeError as error:
        line = content.count(b"\n", 0, error.start) + 1
        raise BadInput(f"{path}:{line}: not UTF-8 text; convert the file to UTF-8") from error
    for number, line in enumerate(lines, start=1):
        if line.endswith("\r"):
            raise BadInput(f"{path}:{number}: Windows line end; convert the file (dos2unix, or sed -i 's/\\r$//')")
        yield number, line


def read_id_list(path: str | Path) -> set[str]:
    """Read ids, one a line: of several columns, separated by tabs, the last; lines that begin with # are comments.

    Raises:
        BadInput: As `numbered_lines`.
    """
    lines = [line for _, line in numbered_lines(path) if line and not line.startswith("#")]
    return {line.split("\t")[-1] for line in lines}
