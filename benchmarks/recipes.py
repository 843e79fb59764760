"""Recipes as a benchmark sees them: what a file of recipes/ is called, what it sets, and which one is its twin."""

import itertools
import json
import os
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from modeling_umgf.model_arguments import JSON_ARGUMENTS, read_mapping, read_settings
from train_umgf import types_of_arguments

ENCODER = ("text_model", "text_config")


@dataclass(frozen=True)
class Recipe:
    """A row of a table on one data set.

    Args:
        path: its YAML file.
        settings: what the file says, without the folder that it trains into.
        about: the comment on its first lines.
    """

    path: Path
    settings: dict[str, Any]
    about: str

    @classmethod
    def read(cls, path: str | Path) -> "Recipe":
        """Read a file.

        Raises:
            ValueError: it cannot be read, or train_umgf.py can't, or a setting can't be stored with a result.
        """
        settings = read_settings(path, types_of_arguments())
        settings.pop("output_dir", None)
        for name in settings.keys() & set(JSON_ARGUMENTS):
            settings[name] = read_mapping(f"{path}: {name}", settings[name])
        for name, value in settings.items():
            if json.loads(json.dumps(value, default=str)) != value:
                raise ValueError(f"{path}: {name}: {value!r} is no JSON: keys are text there, and numbers finite")
        return cls(Path(path), settings, first_comment(Path(path).read_text(encoding="utf-8")))

    @property
    def name(self) -> str:
        """The path below recipes/ without its ending, such as "offline/twitter2017/umgf"."""
        parts = Path(os.path.abspath(self.path)).with_suffix("").parts
        if "recipes" in parts:
            parts = parts[len(parts) - parts[::-1].index("recipes") :]
        else:
            parts = parts[-2:]
        return "/".join(parts)

    @property
    def group(self) -> str:
        """The data set, such as "offline/twitter2017"."""
        return self.name.rpartition("/")[0]

    @property
    def row(self) -> str:
        """The name in its data set, such as "umgf"."""
        return self.path.stem

    @property
    def context(self) -> list[str]:
        """The columns that are read as a second segment."""
        return list((self.settings.get("processor_overrides") or {}).get("context") or [])

    @property
    def reads(self) -> list[str]:
        """The texts about a post that it reads, as a second segment or, from a `..._knowledge` data set, as nodes."""
        has_nodes_of_knowledge = self.settings.get("dataset_name", "").endswith("_knowledge")
        return self.context or (["named_entities"] if has_nodes_of_knowledge else [])

    @property
    def reads_knowledge(self) -> bool:
        """Whether it reads what a large language model wrote about a post, or the list with which that begins."""
        return not {"context", "named_entities"}.isdisjoint(self.reads)

    @property
    def is_text_only(self) -> bool:
        return self.settings.get("model_type") == "text_only" or bool(self.settings.get("text_only"))

    @property
    def is_trial(self) -> bool:
        """Whether it only looks at the validation split."""
        return bool(self.settings.get("do_eval")) and not self.settings.get("do_predict")

    def twin(self, others: Sequence["Recipe"]) -> "Recipe | None":
        """What a row is compared with: text only with a CRF, on the same encoder, that reads the same as context.

        That row itself is compared with the one without context, and that one with nothing; an ablation, which leaves a
        part of a system out, with the whole system.
        """
        if whole := whole_system(self.row):
            return next((other for other in others if (other.group, other.row) == (self.group, whole)), None)
        for other in others:
            same_encoder = all(other.settings.get(key) == self.settings.get(key) for key in ENCODER)
            decoder = (other.settings.get("config_overrides") or {}).get("label_decoder", "crf")
            if other.group != self.group or not other.is_text_only or not same_encoder or decoder != "crf":
                continue
            if other.context == ([] if self.is_text_only else self.reads) and other.path != self.path:
                return other
        return None


def first_comment(text: str) -> str:
    """The comment on the first lines of a file."""
    lines = itertools.takewhile(lambda line: line.startswith("#"), text.splitlines())
    return " ".join(line.lstrip("# ") for line in lines)


def whole_system(row: str) -> str | None:
    """The row that an ablation leaves a part of out; None where a row is no ablation."""
    whole, without, _ = row.partition("_without_")
    return whole if without else None


def recipes_in(folder: Path) -> list[Recipe]:
    """The recipes of a folder, sorted by name.

    Raises:
        ValueError: it has none, or one cannot be read.
    """
    if not (paths := sorted(folder.glob("*.yaml"))):
        raise ValueError(f"{folder}: is no folder with recipes (.yaml)")
    return [Recipe.read(path) for path in paths]
