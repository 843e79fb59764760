"""What keeps the package in shape: who may name a system, and who may import whom."""

import ast
import re
from pathlib import Path

import pytest

from modeling_umgf.systems import systems

ROOT = Path(__file__).resolve().parents[1]
PACKAGE = sorted((ROOT / "modeling_umgf").glob("*.py"))
SCRIPTS = sorted((ROOT / "dataset_scripts").rglob("*.py"))


def own_modules() -> set[str]:
    """Modules that belong to one system, and the registry, which names them all."""
    kinds = ("configuration", "modeling", "processing")
    names = {f"{kind}_{model_type}" for kind in kinds for model_type in systems()}
    return names | {own.converter for own in systems().values() if own.converter} | {"__init__"}


@pytest.mark.parametrize("path", [*PACKAGE, ROOT / "train_umgf.py", ROOT / "demo" / "app.py"], ids=lambda p: p.name)
def test_only_its_own_modules_and_the_registry_name_a_system(path):
    if path.stem in own_modules():
        return
    code = path.read_text(encoding="utf-8").replace("modeling_umgf", "").replace("train_umgf", "")
    published = [own for own in systems().values() if own.config.paper]
    words = {word for own in published for word in (own.config.title, own.config.model_type)}
    found = [word for word in words if re.search(rf"(?<![A-Za-z]){re.escape(word)}", code, re.IGNORECASE)]
    assert found == []


def imported(path: Path) -> set[str]:
    """Modules of the package that a module imports, wherever in it."""
    tree = ast.parse(path.read_text(encoding="utf-8"))
    return {node.module for node in ast.walk(tree) if isinstance(node, ast.ImportFrom) and node.level == 1}


def test_imports_of_the_package_have_no_circle():
    graph = {path.stem: imported(path) for path in PACKAGE}
    while free := [name for name, needs in graph.items() if not needs & graph.keys()]:
        for name in free:
            del graph[name]
    assert graph == {}


def test_the_package_imports_nothing_that_stands_on_it():
    for path in PACKAGE:
        code = path.read_text(encoding="utf-8")
        assert not re.search(r"^\s*(from|import) (dataset_scripts|train_umgf|benchmarks|demo|tests)\b", code, re.M), (
            path
        )
        assert not re.search(r"^\s*from \.\.", code, re.M), path


def test_modules_of_the_package_import_each_other_only_by_name():
    """Else a checkpoint would not carry its code."""
    for path in PACKAGE:
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if isinstance(node, ast.ImportFrom) and node.level:
                assert node.module and "." not in node.module, f"{path.name}:{node.lineno}"


def test_dataset_scripts_import_the_package_and_never_the_training_command():
    for path in SCRIPTS:
        assert not re.search(r"^\s*(from|import) (train_umgf|benchmarks|demo|tests)\b", path.read_text("utf-8"), re.M)
