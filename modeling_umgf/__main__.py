"""The commands of the package: `python -m modeling_umgf`."""

import gc
import importlib
import sys
from argparse import REMAINDER, ArgumentParser, RawDescriptionHelpFormatter
from typing import Any, NamedTuple

from transformers import HfArgumentParser

from .systems import systems

PROGRAM = "python -m modeling_umgf"


class Command(NamedTuple):
    """A function that takes a dataclass of options, and whose result is printed.

    Args:
        module: the module of both; imported when the command is run.
        options: name of the dataclass; a field with `"positional": True` in its metadata is an argument without a name.
        function: name of the function; ValueError and OSError are mistakes in what it was given.
        help: what the command does.
        stopped: what Ctrl-C leaves behind.
    """

    module: str
    options: str
    function: str
    help: str
    stopped: str = "nothing was written."


COMMANDS = {
    "tag": Command(
        "tagging",
        "TagOptions",
        "tag_file",
        "Find the names in a file of posts.",
        "all finished posts are saved. The same command goes on from there.",
    ),
    "card": Command(
        "model_card", "CardOptions", "write_card", "Write the card of a trained model again, also from several seeds."
    ),
}
for own in systems().values():
    if own.converter:
        COMMANDS["convert"] = Command(
            own.converter,
            "ConvertOptions",
            "convert_checkpoint",
            f"Turn a checkpoint that the authors of {own.config.title} released into one that from_pretrained loads.",
        )


class OptionsParser(HfArgumentParser):
    """Arguments from the fields of a dataclass, with a name or, where their metadata say so, without."""

    def add_argument(self, *names: str, positional: bool = False, **settings: Any):
        """Add an argument; see `ArgumentParser`."""
        if positional:
            names = (names[0].removeprefix("--"),)
            settings.pop("required")
        return super().add_argument(*names, **settings)


def main(arguments: list[str] | None = None) -> int:
    """Run a command.

    Args:
        arguments: name of the command, and its arguments; default: those of this process.

    Returns:
        The exit code: 0 done, 1 cannot run, 130 stopped by Ctrl-C.

    Raises:
        SystemExit: help was asked for (0), or the arguments are wrong (2).
    """
    parser = ArgumentParser(
        prog=PROGRAM,
        formatter_class=RawDescriptionHelpFormatter,
        epilog="commands:\n" + "\n".join(f"    {name:10}{command.help}" for name, command in COMMANDS.items()),
    )
    parser.add_argument("command", choices=COMMANDS, help=f"see below, and `{PROGRAM} COMMAND --help`")
    parser.add_argument("options", nargs=REMAINDER, help="arguments of the command")
    given = parser.parse_args(arguments)
    command = COMMANDS[given.command]
    module = importlib.import_module(f"{__package__}.{command.module}")
    options_class = getattr(module, command.options)
    parser = OptionsParser(options_class, prog=f"{PROGRAM} {given.command}", description=command.help)
    options = options_class(**vars(parser.parse_args(given.options)))
    try:
        print(getattr(module, command.function)(options))
    except KeyboardInterrupt:
        print(f"\nStopped; {command.stopped}", file=sys.stderr)
        return 130
    except (ValueError, OSError) as error:
        print(f"error: {' '.join(str(error).split())}", file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    gc.freeze()  # the modules stay: no collection of garbage need look through them
    try:
        sys.exit(main())
    finally:
        gc.unfreeze()  # else some library counts its objects as leaked
