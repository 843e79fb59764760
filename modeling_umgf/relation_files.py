"""The folder of a relation index: noticed when it is cut short, linked where it is saved again unchanged."""

import json
import os
import shutil
from collections.abc import Sequence
from pathlib import Path

import torch
from huggingface_hub import snapshot_download
from safetensors import safe_open
from safetensors.torch import save_file

from .files import write_whole

SETTINGS_FILE = "relation_index.json"


class RelationIndexError(ValueError):
    """A relation index that does not fit what is asked of it, or a damaged one."""


def find_folder(name_or_path: str | os.PathLike, subfolder: str = "", **hub) -> Path:
    """Return the folder of an index, downloaded from the Hub if need be.

    Args:
        name_or_path: folder, or id of a Hub repository.
        subfolder: where in it the index lies.
        hub: arguments of `snapshot_download`.

    Raises:
        RelationIndexError: there is no such folder or repository, or no index in it.
    """
    if not Path(name_or_path).is_dir():
        patterns = [f"{subfolder}/*"] if subfolder else None
        try:
            name_or_path = snapshot_download(str(name_or_path), allow_patterns=patterns, **hub)
        except Exception as error:  # whatever the network and the Hub may answer
            reason = (str(error).strip() or type(error).__name__).splitlines()[0]
            raise RelationIndexError(f"{name_or_path}: no such folder, nor on the Hub ({reason})") from error
    folder = Path(name_or_path) / subfolder
    if not (folder / SETTINGS_FILE).is_file():
        raise RelationIndexError(f"{folder}: no relation index, or one cut short while writing (no {SETTINGS_FILE}).")
    return folder


def read_settings(folder: Path) -> dict:
    """Return the settings of an index, after a look at whether all its files are there and as long as they were.

    Raises:
        RelationIndexError: a file is missing or cut short.
    """
    settings = json.loads((folder / SETTINGS_FILE).read_text(encoding="utf-8"))
    for name, size in settings["files"].items():
        file = folder / name
        if Path(name).is_absolute() or ".." in Path(name).parts:
            raise RelationIndexError(f"{folder / SETTINGS_FILE}: names a file outside its folder, {name}.")
        if not file.exists():
            raise RelationIndexError(f"{file} is missing, cut short; copy the index again.")
        found = file.stat().st_size
        if found != size:
            raise RelationIndexError(f"{file}: {found} bytes of {size}, cut short; copy the index again.")
    return settings


def write_settings(folder: Path, settings: dict, files: Sequence[str]) -> None:
    """Write the settings and the names of all other files: the last file of an index."""
    sizes = {name: (folder / name).stat().st_size for name in files}
    with write_whole(folder / SETTINGS_FILE) as file:
        file.write_text(json.dumps({**settings, "files": sizes}, indent=2), encoding="utf-8")


def link_files(source: Path, target: Path) -> None:
    """Make a second folder of an index, its files linked, or copied where the file system has no links."""
    if source.resolve() == target.resolve():
        return
    names = json.loads((source / SETTINGS_FILE).read_text(encoding="utf-8"))["files"]
    (target / SETTINGS_FILE).unlink(missing_ok=True)
    for name in [*names, SETTINGS_FILE]:
        (target / name).parent.mkdir(parents=True, exist_ok=True)
        with write_whole(target / name) as file:
            try:
                os.link((source / name).resolve(), file)
            except OSError:  # another file system, or one without hard links
                shutil.copyfile(source / name, file)


def write_tensors(path: Path, tensors: dict[str, torch.Tensor | None]) -> str:
    """Write the tensors that are not None into a safetensors file; returns its name."""
    with write_whole(path) as file:
        save_file({name: tensor.contiguous() for name, tensor in tensors.items() if tensor is not None}, file)
    return path.name


def read_tensors(path: Path) -> dict[str, torch.Tensor]:
    """Read a safetensors file, memory-mapped."""
    with safe_open(path, framework="pt") as file:
        return {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
