"""The command line that both generators of contrast tweets have."""

import argparse
from collections.abc import Callable

from ..reading.bad_input import run_command


def run_generator(description: str, write: Callable[..., object], **flags: str) -> None:
    """Read the arguments of a generator and let it write its data.

    Args:
        description: what it makes, for --help.
        write: writes into a folder, by a seed and flags.
        flags: what each flag says.
    """
    parser = argparse.ArgumentParser(description=description)
    parser.add_argument("--output_dir", required=True, help="folder to write; what an earlier run wrote is replaced")
    parser.add_argument("--seed", type=int, default=0, help="0 or more (default 0)")
    for name, says in flags.items():
        parser.add_argument(f"--{name}", action="store_true", help=says)
    arguments = parser.parse_args()
    if arguments.seed < 0:
        parser.error(f"--seed {arguments.seed}: give 0 or more")
    run_command(lambda: write(**vars(arguments)))
