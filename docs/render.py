"""Write what is generated: API reference, commands, results, reliability, numbers in README, package card, figures.

    python docs/render.py            # write
    python docs/render.py --check    # only say what is out of date

Numbers come from benchmarks/results/*.json and benchmarks/reliability/*.json, names of systems from their
configurations, descriptions from docstrings; nothing is typed by hand.
"""

import argparse
import ast
import itertools
import json
import os
import re
import statistics
import subprocess
import sys
from pathlib import Path
from typing import Any

import griffe
import griffe2md

DOCS = Path(__file__).resolve().parent
ROOT = DOCS.parent
sys.path[:0] = [str(ROOT), str(DOCS)]  # the checkout, installed or not

import recipe_tables  # noqa: E402
from markdown_table import over_seeds, table  # noqa: E402

import modeling_umgf  # noqa: E402
from modeling_umgf.model_card import render_model_card  # noqa: E402
from modeling_umgf.systems import systems  # noqa: E402

RESULTS = ROOT / "benchmarks" / "results"
RELIABILITY = ROOT / "benchmarks" / "reliability"
GROUPS = (
    "offline/twitter2017",
    "offline/twitter2015",
    "contrast_tweets",
    "contrast_tweets_of_one_name",
    "relation_contrast_tweets",
)
OF_UMGF = ("offline/twitter2017c", "offline/twitter2017_to_twitter2015", "offline/twitter2015_to_twitter2017")
"""Data sets of UMGF's paper that README leaves out."""
FIRST_MODEL = "offline/twitter2017"  # the data set whose text-only row the walk-through trains
CARD_OF = "contrast_tweets"  # the data set whose UMGF is described in model_card.md
MARKERS = "<!-- results: begin -->", "<!-- results: end -->"
GENERATED = "<!-- Written by docs/render.py from {}; changes here are lost. -->\n\n"


# API reference

# Links that griffe2md makes lead to anchors of its own sites, not to headings of this page.
LINK = re.compile(r"\[([\w.,*]+)\]\(#[\w.,]*\)")
DOCSTRINGS = {
    "returns_multiple_items": False,
    "returns_named_value": False,
    "warn_missing_types": False,
    "warn_unknown_params": False,
}
LAYOUT = {
    "heading_level": 2,
    "filters": ["!^_(?!_call__$)", "!^main$"],
    "inherited_members": False,
    "line_length": 10_000,  # longer signatures would go to black, where it is installed
    "members_order": "source",
    "show_if_no_docstring": False,
    "show_object_full_path": False,
    "show_root_full_path": False,
    "show_root_members_full_path": False,
    "summary": False,
}


class ConfigurationClasses(griffe.Extension):
    """Reads a class under `@strict` as the dataclass it is, and a remark behind `Args` as part of that title.

    Of a setting with a condition, such as `at_least(1, 2)`, the default is shown.
    """

    def on_attribute_instance(self, *, attr: griffe.Attribute, **_: Any) -> None:
        if isinstance(attr.value, griffe.ExprCall) and str(attr.value.function) in ("at_least", "share", "weight"):
            attr.value = attr.value.arguments[-1]

    def on_class_instance(self, *, cls: griffe.Class, **_: Any) -> None:
        if any(decorator.callable_path.endswith(".strict") for decorator in cls.decorators):
            dataclass = griffe.ExprName("dataclasses.dataclass")
            cls.decorators.append(griffe.Decorator(dataclass, lineno=cls.lineno, endlineno=cls.lineno))
        if cls.docstring:
            cls.docstring.value = re.sub(r"(?m)^Args (\(.+\)):$", r"Args: Parameters \1:", cls.docstring.value)


def api_reference() -> str:
    """What the docstrings say of everything public, module by module."""
    loader = griffe.GriffeLoader(
        search_paths=[ROOT],
        extensions=griffe.load_extensions(ConfigurationClasses),
        docstring_parser=griffe.Parser.google,
        docstring_options=DOCSTRINGS,
    )
    package = loader.load("modeling_umgf")
    modules = [module for name, module in sorted(package.modules.items()) if not name.startswith("_")]
    exported = [f"[`{name}`](#{name.lower()})" for name in sorted(modeling_umgf.__all__, key=str.lower)]
    contents = [[f"[`{module.name}`](#{module.name})", purpose(module.docstring.value)] for module in modules]
    parts = [
        GENERATED.format("the docstrings") + "# API reference",
        package.docstring.value,
        f"`from modeling_umgf import …` gives {', '.join(exported)}; everything else is imported from its module.",
        table(["module", "holds"], contents),
    ]
    for module in modules:
        parts.append(LINK.sub(r"\1", griffe2md.render_object_docs(module, LAYOUT)).strip())
    return formatted("\n\n".join(parts) + "\n", DOCS / "api_reference.md")


def formatted(text: str, path: Path) -> str:
    """What `ruff format` makes of a page: long signatures with an argument a line."""
    command = [sys.executable, "-m", "ruff", "format", "--stdin-filename", str(path), "-"]
    return subprocess.run(command, cwd=ROOT, input=text, capture_output=True, text=True, check=True).stdout


# Commands

COMMAND_FOLDERS = (
    ".",
    "modeling_umgf",
    "dataset_scripts",
    "demo",
    "examples",
    "benchmarks",
    "docs",
    "docs/figures",
)
COMMANDS_INTRODUCTION = """
Commands of `modeling_umgf` and `dataset_scripts` come with the package; the others need a clone of the repository and
are run in its folder. `--help` lists the arguments of those that take any.
""".strip()


def commands_page() -> str:
    """docs/commands.md."""
    rows = [[f"`{name}`", line[:1].upper() + line[1:].removesuffix(".")] for name, line in commands().items()]
    heading = GENERATED.format("the code") + "# Commands"
    return "\n\n".join([heading, COMMANDS_INTRODUCTION, table(["command", "what it does"], rows)]) + "\n"


def commands() -> dict[str, str]:
    """Every command of the repository with one line on what it does."""
    found = package_commands()
    for folder in COMMAND_FOLDERS:
        for path in sorted((ROOT / folder).glob("[!_]*.py")):
            text = path.read_text(encoding="utf-8")
            if '\nif __name__ == "__main__":' in text:
                package = (path.parent / "__init__.py").exists()
                name = f"-m {folder}.{path.stem}" if package else path.relative_to(ROOT).as_posix()
                found[f"python {name}"] = purpose(ast.get_docstring(ast.parse(text)))
    return found


def package_commands() -> dict[str, str]:
    """The sub-commands that `python -m modeling_umgf --help` lists."""
    environment = os.environ | {"COLUMNS": "200", "PYTHONPATH": str(ROOT)}
    command = [sys.executable, "-m", "modeling_umgf", "--help"]
    shown = subprocess.run(command, env=environment, capture_output=True, text=True, check=True).stdout
    return {f"python -m modeling_umgf {name}": line for name, line in re.findall(r"^ {4}(\w+) +(\S.*)$", shown, re.M)}


def purpose(docstring: str) -> str:
    """The first line of a docstring."""
    return docstring.partition("\n")[0]


# Results


def read_results(folder: Path = RESULTS) -> dict[str, dict[str, Any]]:
    """All stored results by name."""
    return {path.stem: json.loads(path.read_text(encoding="utf-8")) for path in sorted(folder.glob("*.json"))}


def results_page(results: dict[str, dict[str, Any]]) -> str:
    """docs/results.md."""
    parts = [GENERATED.format("benchmarks/results/*.json") + "# Results\n", RESULTS_INTRODUCTION]
    for name, result in results.items():
        elsewhere = ["[Speed](speed.md) has the tables."] if name in ON_SPEED_PAGE else None
        parts += [f"\n## {title(name)}\n"] + (elsewhere or result_tables(result["results"]))
        versions = ", ".join(f"{package} {version}" for package, version in result.get("versions", {}).items())
        facts = (result.get("date"), result.get("machine"), f"Python {result.get('python')}", versions)
        seconds = f"{result['seconds']:,.0f} s in all. " if "seconds" in result else ""
        if command := result.get("configuration", {}).get("command"):
            parts.append(f"\n```text\n{command}\n```\n")
        configuration = json.dumps(result.get("configuration", {}), indent=2, ensure_ascii=False)
        parts += [
            f"\n{seconds}{'; '.join(fact for fact in facts if fact)}.\n",
            f"<details><summary>What was run</summary>\n\n```json\n{configuration}\n```\n\n</details>",
        ]
    return "\n".join(parts) + "\n"


ON_SPEED_PAGE = ("speed", "speed_cuda")
RESULTS_INTRODUCTION = """
Every number here was printed by a command of `benchmarks/` and stored in `benchmarks/results/`. Scores are F1 of whole
names in %, counted over the whole split (lenient, as seqeval). Systems are compared in
[Which system](which_system.md) and [the papers' tables](tables.md).
""".lstrip()


def result_tables(results: Any) -> list[str]:
    """Tables for whatever a result holds."""
    if isinstance(results, list) and all(isinstance(row, dict) for row in results):
        columns = list(dict.fromkeys(itertools.chain.from_iterable(results)))
        rows = []
        for row in results:
            rows.append([cell(row.get(column)) for column in columns])
        return [table(columns, rows)]
    rows = []
    parts = []
    for name, value in results.items():
        if isinstance(value, list) and value and all(isinstance(row, dict) for row in value):
            parts += [f"\n**{title(name)}**\n"] + result_tables(value)
        elif isinstance(value, dict) and any(isinstance(inner, dict | list) for inner in value.values()):
            parts += [f"\n**{title(name)}**\n"] + result_tables(value)
        elif isinstance(value, dict):
            rows += [[f"{title(name)}: {key}", cell(inner)] for key, inner in value.items()]
        else:
            rows.append([title(name), cell(value)])
    return ([table(["what", "value"], rows)] if rows else []) + parts


def numbers() -> str:
    """The tables of numbers in README: real posts first."""
    return "\n\n".join(part for part in map(recipe_tables.summary, GROUPS) if part) or "No results are stored yet."


def readme() -> str:
    """README.md with the table between its markers renewed."""
    return between_markers(ROOT / "README.md", numbers())


def which_system() -> str:
    """docs/which_system.md with the tables between its markers renewed."""
    parts = []
    if any(recipe_tables.finished_rows(group) for group in GROUPS[:2]):
        parts.append("![Test F1 of all systems that were run, with intervals](figures/systems.svg)\n")
    for group in (*GROUPS[:2], *OF_UMGF, *GROUPS[2:]):
        parts += [f"### {recipe_tables.title(group)}\n", recipe_tables.comparison(group), ""]
    return between_markers(DOCS / "which_system.md", "\n".join(parts).strip())


def what_was_tried() -> str:
    """docs/what_was_tried.md with its tables between its markers renewed."""
    tables = [recipe_tables.trials("twitter2017"), recipe_tables.errors_and_changes(GROUPS[0])]
    if told := read_results().get("what_captions_tell"):
        tables += result_tables(told["results"])
    return between_markers(DOCS / "what_was_tried.md", "\n\n".join(tables).strip())


def first_model() -> str:
    """docs/first_real_model.md with what to expect between its markers renewed."""
    row = recipe_tables.row_of(FIRST_MODEL, "bert_crf")
    scores = [run["results"]["scores"]["test_f1"] for run in row.runs.values()]
    seconds = statistics.mean(run["seconds"] for run in row.runs.values())
    machine = next(iter(row.runs.values()))["machine"]
    told = f"It takes {seconds / 60:.0f} minutes ({machine})."
    told += f" Expect a test F1 of {over_seeds(scores)} ({len(scores)} seeds)."
    return between_markers(DOCS / "first_real_model.md", told)


def speed_page(results: dict[str, dict[str, Any]]) -> str:
    """docs/speed.md with the tables between its markers renewed."""
    parts = []
    for name in ON_SPEED_PAGE:
        if name in results:
            result = results[name]
            parts += [f"{result['configuration']['device']}: {result['machine']}, {result['date']}.\n"]
            parts += result_tables(result["results"])
    return between_markers(DOCS / "speed.md", "\n".join(parts or ["No results are stored yet."]))


def between_markers(page: Path, text: str) -> str:
    """A page with another text between its markers."""
    start, end = MARKERS
    written = page.read_text(encoding="utf-8")
    return re.sub(f"{start}.*?{end}", lambda _: f"{start}\n{text}\n{end}", written, flags=re.DOTALL)


def package_card() -> str:
    """model_card.md: the card of the model that the quick start trains, with all stored seeds."""
    row = recipe_tables.row_of(CARD_OF, "umgf")
    runs = [run["results"]["facts"] | {"results": run["results"]["scores"]} for run in row.runs.values()]
    return str(render_model_card(runs)) + "\n"


def title(name: str) -> str:
    """The name of a result, or of a part of one, in words."""
    head, comma, rest = name.partition(",")  # such as "rgcn, inference"
    words = " ".join(SPELLED.get(word, word) for word in head.split("_")) + comma + rest
    return words[:1].upper() + words[1:]


SPELLED = {"twitter2015": "Twitter-2015", "twitter2017": "Twitter-2017"}
SPELLED |= {model_type: system.config.title for model_type, system in systems().items()}


def cell(value: Any) -> str:
    if isinstance(value, float):
        return f"{value:,.4g}" if abs(value) < 100 else f"{value:,.0f}"
    if isinstance(value, list):
        return ", ".join(map(cell, value))
    if isinstance(value, int) and not isinstance(value, bool):
        return f"{value:,}"
    return "" if value is None else str(value)


# Reliability

RELIABILITY_INTRODUCTION = """
What the package was put through, and what it cost. A row is what a test printed and stored in
`benchmarks/reliability/`; `make soak` makes them again, and `make versions` those of the versions. The same tests run
in CI with fewer cases. *Lost* counts the cases in which anything was lost, wrong or passed over in silence. Seconds
are wall time, on a machine that did other work as well.
""".strip()
PROMISES = """
## What is promised

- **A killed training goes on.** `--resume_from_checkpoint True` takes the last checkpoint that is whole by the size
  and the SHA-256 of every file and passes over a torn one with one line. It ends with the weights and scores of a run
  without a break: the same bits on the same machine with the same number of processes (CPU, float32, same seed and
  settings).
- **Datasets, indexes, stored descriptors, scores and predictions appear when they are complete.** What a killed
  command leaves begins with a dot and holds `.unfinished-`; no command reads it, and the next run that writes to the
  same place on the same machine removes it. A dataset that replaces another is never there in part.
- **A full disk is one sentence**, exit status 1, and what was whole before is whole after.
- **The same command again** goes on where a killed one was and gives the same files; two of them at once may share a
  cache.
- **Of several processes, one that dies ends the others**, with an error, in the time that the table says; the run is
  then resumed as any other. One that hangs without dying is given up after `--ddp_timeout` seconds (1,800 by
  default).
- **Long runs stay as large as they were**: the table says what a step, a call or a request adds.
""".strip()


def reliability_page(rows: dict[str, dict[str, Any]]) -> str:
    """docs/reliability.md."""
    cells = []
    for row in rows.values():
        measured = "; ".join(f"{name}: {cell(value)}" for name, value in row["measured"].items())
        cells.append([row["tried"], cell(row["cases"]), cell(row["lost"]), f"{row['seconds']:,.0f}", measured])
    places = {}
    for row in rows.values():
        versions = ", ".join(f"{package} {version}" for package, version in row["versions"].items())
        places[f"- {row['date']}, {row['machine']}, Python {row['python']}, {versions}"] = None
    parts = [
        GENERATED.format("benchmarks/reliability/*.json") + "# Reliability",
        RELIABILITY_INTRODUCTION,
        table(["what was tried", "cases", "lost", "seconds", "measured"], cells),
        PROMISES,
        "## Where and when\n\n" + "\n".join(sorted(places)),
    ]
    return "\n\n".join(parts) + "\n"


# Writing


def pages() -> dict[Path, str]:
    """Every generated text by its file, as far as what it is made of exists."""
    results = read_results()
    texts = {
        DOCS / "api_reference.md": api_reference(),
        DOCS / "commands.md": commands_page(),
        DOCS / "results.md": results_page(results),
        DOCS / "tables.md": GENERATED.format("benchmarks/") + recipe_tables.tables_page(),
        DOCS / "which_system.md": which_system(),
        DOCS / "what_was_tried.md": what_was_tried(),
        DOCS / "speed.md": speed_page(results),
        DOCS / "reliability.md": reliability_page(read_results(RELIABILITY)),
    }
    if (ROOT / "README.md").exists():
        texts[ROOT / "README.md"] = readme()
    if recipe_tables.row_of(FIRST_MODEL, "bert_crf").runs:
        texts[DOCS / "first_real_model.md"] = first_model()
    if recipe_tables.row_of(CARD_OF, "umgf").runs:
        texts[ROOT / "model_card.md"] = package_card()
    return texts


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--check", action="store_true", help="write nothing; exit with 1 if a text is out of date")
    check = parser.parse_args().check
    outdated = {}
    for path, text in pages().items():
        if not path.exists() or path.read_text(encoding="utf-8") != text:
            outdated[path] = text
    for path, text in outdated.items():
        print(f"{path.relative_to(ROOT)} {'is out of date' if check else 'written'}")
        if not check:
            path.write_text(text, encoding="utf-8")
    if not check:
        from figures.draw import save_figures
        from figures.systems import save_figure_of_systems

        save_figures()
        save_figure_of_systems()
    return int(check and bool(outdated))


if __name__ == "__main__":
    sys.exit(main())
