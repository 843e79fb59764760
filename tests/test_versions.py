"""The suite with other versions of the dependencies: what is counted and what is stored."""

import json
import shutil
import sys
from pathlib import Path

import pytest
from packaging.requirements import Requirement
from packaging.version import Version

from benchmarks import versions

ROOT = Path(__file__).parents[1]
ROWS_OF_THE_LOWEST = sorted((ROOT / "benchmarks" / "reliability").glob("versions_*_lowest-direct.json"))
NO_WHEEL_OF_THE_LOWEST = {"3.13": {"faiss-cpu", "matplotlib", "spacy"}}
SUITE = """
import pytest

def test_right(): pass
def test_wrong(): assert False
@pytest.fixture
def broken(): raise OSError
def test_without_its_fixture(broken): pass
def test_passed_over(): pytest.skip()
"""


@pytest.fixture
def stored(tmp_path, monkeypatch):
    """A project of four tests, and a uv whose environments are this one; the folder of rows."""
    (tmp_path / "benchmarks").mkdir()
    for name in ("__init__.py", "record.py"):
        shutil.copy(ROOT / "benchmarks" / name, tmp_path / "benchmarks")
    (tmp_path / "modeling_umgf").symlink_to(ROOT / "modeling_umgf")
    (tmp_path / "test_four.py").write_text(SUITE)
    uv = tmp_path / "bin" / "uv"
    uv.parent.mkdir()
    uv.write_text(
        f'#!/bin/sh\n[ "$1" = venv ] || exit 0\nmkdir -p "$4/bin"\n'
        f'printf \'#!/bin/sh\\nexec {sys.executable} "$@"\\n\' > "$4/bin/python"\nchmod +x "$4/bin/python"\n'
    )
    uv.chmod(0o755)
    monkeypatch.setenv("PATH", str(uv.parent), prepend=":")
    monkeypatch.setattr(versions, "ROOT", tmp_path)
    return tmp_path / "benchmarks" / "reliability"


def test_what_fails_is_lost_and_what_is_skipped_is_no_case(stored):
    assert versions.main(["--python", "3", "--resolution", "highest", "--workers", "0"]) == 1
    short = f"{sys.version_info[0]}.{sys.version_info[1]}"
    row = json.loads((stored / f"versions_{short}_highest.json").read_text())
    assert (row["cases"], row["lost"], row["measured"]["skipped"]) == (3, 2, 1)
    assert row["tried"] == f"all tests on Python {short} with the newest version of every dependency"
    assert row["measured"]["transformers"] == row["versions"]["transformers"]


def test_a_trial_is_stored_nowhere(stored):
    assert versions.main(["--workers", "0", "-k", "right"]) == 0
    assert not stored.exists()


def test_a_missing_uv_is_named(monkeypatch):
    monkeypatch.setenv("PATH", "")
    with pytest.raises(SystemExit, match="pip install"):
        versions.main([])


@pytest.mark.parametrize("path", ROWS_OF_THE_LOWEST, ids=lambda path: path.stem)
def test_the_lower_bounds_are_the_versions_that_were_tried(path):
    """A resolver is free to take a later version of one package to have an early one of another."""
    tomllib = pytest.importorskip("tomllib")  # Python 3.11
    row = json.loads(path.read_text())
    python = row["python"].rpartition(".")[0]
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    bounds = {}
    for line in [*project["dependencies"], *sum(project["optional-dependencies"].values(), [])]:
        requirement = Requirement(line)
        here = requirement.marker is None or requirement.marker.evaluate({"python_version": python})
        if requirement.name != project["name"] and here:
            lower = [one.version for one in requirement.specifier if one.operator in (">=", "==")]
            bounds[requirement.name] = Version(lower[0])
    assert len(bounds) > 15
    others = {name for name, bound in bounds.items() if Version(row["measured"][name]) != bound}
    assert others == NO_WHEEL_OF_THE_LOWEST.get(python, set())
