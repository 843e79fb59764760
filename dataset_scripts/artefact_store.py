"""Results of long computations on disk, one file each, so that a stopped run goes on and nothing is computed twice."""

import hashlib
import json
import os
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file, save_file
from transformers.utils import cached_file

from .text_files import BadInput


class ArtefactStore:
    """A folder of results of one kind, made with one set of settings: JSON files, safetensors where they are tensors.

    A file appears when it is complete, so that any number of processes may write at the same time and be killed.

    Args:
        folder: where the stores of all kinds are.
        kind: what the results are, such as "caption".
        settings: all that the results depend on besides their key; other settings have a folder of their own.
    """

    def __init__(self, folder: str | Path, kind: str, settings: dict[str, Any]):
        self.folder = Path(folder) / f"{kind}-{digest(settings)[:16]}"
        self.folder.mkdir(parents=True, exist_ok=True)
        self._write(self.folder / "settings.json", settings)

    def __contains__(self, key: str) -> bool:
        return any(path.exists() for path in self._paths(key))

    def __getitem__(self, key: str) -> Any:
        text, tensor = self._paths(key)
        return load_file(tensor)["value"] if tensor.exists() else json.loads(text.read_text(encoding="utf-8"))

    def __setitem__(self, key: str, value: Any) -> None:
        path = self._paths(key)[isinstance(value, torch.Tensor)]
        path.parent.mkdir(exist_ok=True)
        self._write(path, value)

    def _paths(self, key: str) -> tuple[Path, Path]:
        return self.folder / key[:2] / f"{key}.json", self.folder / key[:2] / f"{key}.safetensors"

    def _write(self, path: Path, value: Any) -> None:
        unfinished = path.with_name(f".{path.name}.{os.getpid()}")
        if isinstance(value, torch.Tensor):
            save_file({"value": value.contiguous()}, unfinished)
        else:
            unfinished.write_text(json.dumps(value, ensure_ascii=False), encoding="utf-8")
        os.replace(unfinished, path)


def digest(*parts: Any) -> str:
    """64 hexadecimal digits that name JSON-like values."""
    return hashlib.sha256(json.dumps(parts, sort_keys=True, ensure_ascii=False).encode()).hexdigest()


def model_identity(name: str) -> str:
    """Name a model so that other weights have another name: its Hub commit, or the hash of the files of its folder.

    Args:
        name: Hub id or folder.

    Raises:
        BadInput: there is no such model.
    """
    folder = Path(name)
    if folder.is_dir():
        content = hashlib.sha256()
        for path in sorted(path for path in folder.rglob("*") if path.is_file()):
            content.update(str(path.relative_to(folder)).encode() + hashlib.sha256(path.read_bytes()).digest())
        return f"{folder.resolve().name}@{content.hexdigest()[:16]}"
    try:
        return f"{name}@{Path(cached_file(name, 'config.json')).parent.name}"  # …/snapshots/<commit>/config.json
    except (OSError, ValueError) as error:
        reason = str(error).splitlines()[0]
        raise BadInput(f"{name}: is neither a folder nor a model that the Hub can give ({reason})") from error
