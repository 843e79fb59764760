"""What every reader of this folder needs from a text file: its lines, counted from 1, and one clear error."""

import logging
import sys
from collections.abc import Callable, Iterator
from pathlib import Path


class BadInput(ValueError):
    """Data that can't be used; the message names the file, the line where there is one, and the way out."""


def numbered_lines(path: str | Path) -> Iterator[tuple[int, str]]:
    r"""Yield (line number from 1, line) of a UTF-8 file, split on "\n" only: a word may be U+00A0 or U+2028.

    Args:
        path: A text file. A byte order mark is skipped.

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


def first_line(error: Exception) -> str:
    """The first line of an error's message, or its name where it has none."""
    return (str(error).strip() or type(error).__name__).splitlines()[0]


def run_command(main: Callable[[], None]) -> None:
    """Run the main function of a command; bad input becomes one line on stderr and exit status 1."""
    logging.getLogger("httpx2").setLevel(logging.WARNING)  # the Hub client's, a line for every request
    try:
        main()
    except (ValueError, OSError) as error:
        sys.exit(f"error: {first_line(error)}")
