"""Checkpoints of a training run: which of them are whole, and which one to go on from."""

import json
import os
from pathlib import Path

from transformers.utils import logging

from .files import file_hash, write_whole

logger = logging.get_logger(__name__)

FILE_LIST = "checkpoint_files.json"
"""Size and hash of each file of a checkpoint; written when all of them are complete."""


def list_files(checkpoint: str | os.PathLike) -> None:
    """Write down which files a checkpoint has, and what they hold: the last thing that makes it whole."""
    checkpoint = Path(checkpoint)
    files = {}
    for path in sorted(checkpoint.rglob("*")):
        if path.is_file() and path.name != FILE_LIST:
            files[path.relative_to(checkpoint).as_posix()] = {"bytes": path.stat().st_size, "sha256": file_hash(path)}
    with write_whole(checkpoint / FILE_LIST) as unfinished:
        unfinished.write_text(json.dumps(files, indent=2), encoding="utf-8")


def what_is_torn(checkpoint: str | os.PathLike) -> str | None:
    """Say what a checkpoint lacks, in a few words; None = it is whole."""
    checkpoint = Path(checkpoint)
    if not checkpoint.is_dir():
        return "there is no such folder"
    try:
        files = json.loads((checkpoint / FILE_LIST).read_text(encoding="utf-8"))
        expected = {name: (entry["bytes"], entry["sha256"]) for name, entry in files.items()}
    except (OSError, ValueError, TypeError, KeyError, AttributeError):
        return f"{FILE_LIST} is missing or torn"
    for name, (size, content) in expected.items():
        path = checkpoint / name
        if not path.is_file():
            return f"{name} is missing"
        if path.stat().st_size != size:
            return f"{name} has {path.stat().st_size} bytes instead of {size}"
        if file_hash(path) != content:
            return f"{name} is not what was written"
    return None


def checkpoint_to_resume(wanted: str | bool | None, output_dir: str | os.PathLike) -> str | None:
    """Find the checkpoint that training goes on from.

    Args:
        wanted: the folder of a checkpoint; True = the last whole one of the run, if there is one; None, False = none.
        output_dir: the folder of the run.

    Returns:
        Its folder; None = training starts at the beginning. A warning names what is passed over.

    Raises:
        ValueError: the checkpoint that is named is not there or not whole.
    """
    word = str(wanted or "").lower()
    if word in ("", "false", "0"):
        return None
    if word not in ("true", "1"):
        if fault := what_is_torn(wanted):
            raise ValueError(
                f"--resume_from_checkpoint {wanted}: {fault}. Give one that is whole, or True for the last one."
            )
        return str(wanted)
    found = [path for path in Path(output_dir).glob("checkpoint-*") if path.name.partition("-")[2].isdecimal()]
    for checkpoint in sorted(found, key=lambda path: -int(path.name.partition("-")[2])):
        fault = what_is_torn(checkpoint)
        if fault is None:
            return str(checkpoint)
        logger.warning(f"{checkpoint} is not whole ({fault}): it is passed over.")
    logger.warning(f"{output_dir} has no {'whole ' if found else ''}checkpoint yet: training starts at the beginning.")
    return None
