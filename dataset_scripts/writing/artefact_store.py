"""Results of long computations on disk, one file each, so that a stopped run goes on and nothing is computed twice."""

import json
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file, save_file
from transformers.utils import cached_file

from modeling_umgf.files import file_hash, write_whole

from ..reading.bad_input import BadInput, first_line


class ArtefactStore:
    """A folder of results of one kind, made with one set of settings.

        store = ArtefactStore("cache", "caption", {"captioner": model_identity(name)})
        if key not in store:
            store[key] = describe(picture)
        caption = store[key]

    Tensors are kept as safetensors, all else as JSON. A file appears when it is complete, so that any number of
    processes may write at the same time and be killed.

    Args:
        folder: where the stores of all kinds are.
        kind: what the results are, such as "caption".
        settings: all that the results depend on besides their key; other settings have a folder of their own.

    A key names a file: take hexadecimal digits, such as those of `digest` or of a picture's content hash.
    """

    def __init__(self, folder: str | Path, kind: str, settings: dict[str, Any]):
        self.folder = Path(folder) / f"{kind}-{digest(settings)[:16]}"
        _write_json(self.folder / "settings.json", settings)

    def __contains__(self, key: str) -> bool:
        return self._path(key, ".json").exists() or self._path(key, ".safetensors").exists()

    def __getitem__(self, key: str) -> Any:
        tensor = self._path(key, ".safetensors")
        if tensor.exists():
            return load_file(tensor)["value"]
        return json.loads(self._path(key, ".json").read_text(encoding="utf-8"))

    def __setitem__(self, key: str, value: Any) -> None:
        if isinstance(value, torch.Tensor):
            with write_whole(self._path(key, ".safetensors")) as unfinished:
                save_file({"value": value.contiguous()}, unfinished)
        else:
            _write_json(self._path(key, ".json"), value)

    def _path(self, key: str, ending: str) -> Path:
        return self.folder / key[:2] / f"{key}{ending}"


def digest(*parts: Any) -> str:
    """64 hexadecimal digits that name JSON-like values."""
    return file_hash(json.dumps(parts, sort_keys=True, ensure_ascii=False).encode())


def model_identity(name: str) -> str:
    """Name a model so that other weights have another name: its Hub commit, or the hash of the files of its folder.

    Args:
        name: Hub id or folder.

    Raises:
        BadInput: There is no such model.
    """
    folder = Path(name)
    if folder.is_dir():
        content = b""
        for path in sorted(path for path in folder.rglob("*") if path.is_file()):
            content += str(path.relative_to(folder)).encode() + bytes.fromhex(file_hash(path))
        return f"{folder.resolve().name}@{file_hash(content)[:16]}"
    try:
        return f"{name}@{Path(cached_file(name, 'config.json')).parent.name}"  # …/snapshots/<commit>/config.json
    except (OSError, ValueError) as error:
        reason = first_line(error)
        raise BadInput(f"{name}: is neither a folder nor a model that the Hub can give ({reason})") from error


def _write_json(path: Path, value: Any) -> None:
    with write_whole(path) as unfinished:
        unfinished.write_text(json.dumps(value, ensure_ascii=False), encoding="utf-8")
