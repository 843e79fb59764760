"""Data that can't be used: one clear error, and how it ends a command."""

import logging
import sys
from collections.abc import Callable

from modeling_umgf.files import told_of_a_full_disk

_LOUD = ("__main__", "dataset_scripts", "modeling_umgf")  # loggers that tell what a command does


class BadInput(ValueError):
    """Data that can't be used; the message names the file, the line where there is one, and the way out.

    Args:
        message: one sentence; what it quotes of the data may make it too long to read: then its middle is left out.
    """

    def __init__(self, message: str):
        super().__init__(message if len(message) <= 1000 else f"{message[:600]} […] {message[-300:]}")


def first_line(error: Exception) -> str:
    """The first line of an error's message, or its name where it has none."""
    return (str(error).strip() or type(error).__name__).splitlines()[0]


def log_to_stderr() -> None:
    """Say there what is read, how it is understood, and what is left out."""
    logging.basicConfig(format="%(message)s")
    for name in _LOUD:
        logging.getLogger(name).setLevel(logging.INFO)


def run_command(main: Callable[[], None]) -> None:
    """Run the main function of a command, with its log on stderr; bad input becomes one line there and exit status 1.

    Args:
        main: reads `sys.argv`.
    """
    log_to_stderr()
    try:
        with told_of_a_full_disk("A temporary file, or one of the cache of `datasets`,"):
            main()
    except (ValueError, OSError) as error:
        sys.exit(f"error: {first_line(error)}")
