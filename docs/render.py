"""Write what is generated: API reference, results, the table of numbers in README, the card of the package, figures.

    python docs/render.py            # write
    python docs/render.py --check    # only say what is out of date

Numbers come from benchmarks/results/*.json, descriptions from docstrings; nothing is typed by hand.
"""

import argparse
import dataclasses
import html
import importlib
import inspect
import itertools
import json
import re
import sys
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import Any, ClassVar, get_origin

DOCS = Path(__file__).resolve().parent
ROOT = DOCS.parent
sys.path[:0] = [str(ROOT), str(DOCS)]  # the checkout, installed or not

import modeling_umgf  # noqa: E402
from modeling_umgf.model_card import render_model_card  # noqa: E402

RESULTS = ROOT / "benchmarks" / "results"
CARD_OF = "contrast_tweets"  # the result whose model is described in model_card.md
MODULES = (
    *("evaluation", "explanation", "tagging", "noun_phrases", "grounding", "descriptors", "drawing"),
    *("training", "model_card", "convert_umgf_checkpoint"),
)
MARKERS = "<!-- results: begin -->", "<!-- results: end -->"
GENERATED = "<!-- Written by docs/render.py from {}; changes here are lost. -->\n\n"


# API reference


def api_reference() -> str:
    """Everything public: what `modeling_umgf` exports, then what its modules hold."""
    parts = [GENERATED.format("the docstrings") + "# API reference\n\n## Package `modeling_umgf`\n"]
    parts += [describe(name, getattr(modeling_umgf, name)) for name in sorted(modeling_umgf.__all__, key=str.lower)]
    for name in MODULES:
        if not (ROOT / "modeling_umgf" / f"{name}.py").exists():
            continue
        module = importlib.import_module(f"modeling_umgf.{name}")
        own = [
            describe(f"{name}.{key}", value)
            for key, value in vars(module).items()
            if not key.startswith("_") and key != "main" and getattr(value, "__module__", "") == module.__name__
            if callable(value) and inspect.getdoc(value)
        ]
        if own:
            parts += [f"\n## Module `modeling_umgf.{name}`\n\n{to_markdown(inspect.getdoc(module))}\n", *own]
    return "\n".join(parts)


def describe(name: str, value: Callable) -> str:
    """A section for a class with its methods, or for a function."""
    lines = [f"\n### {name.rpartition('.')[2]}\n", f"```text\n{name.rpartition('.')[2]}{signature(value)}\n```\n"]
    lines += [to_markdown(inspect.getdoc(value)), ""]
    for method, function in methods(value):
        lines += [f"#### `{method}{signature(function)}`\n", to_markdown(inspect.getdoc(function)), ""]
    return "\n".join(lines)


def signature(value: Callable) -> str:
    """Arguments with their defaults, without types; of a dataclass its own fields, of an exception nothing."""
    if inspect.isclass(value) and issubclass(value, Exception):
        return ""
    if dataclasses.is_dataclass(value) or hasattr(value, "sub_configs_defaults"):
        names = [
            name
            for base in reversed(value.__mro__)
            if base.__module__.startswith("modeling_umgf")
            for name, kind in inspect.get_annotations(base).items()
            if get_origin(kind) is not ClassVar
        ]
        defaults = {name: getattr(value, name) for name in dict.fromkeys(names) if hasattr(value, name)}
        fields = [f"{name}={defaults[name]!r}" if name in defaults else name for name in dict.fromkeys(names)]
        return f"({', '.join(fields)})"
    parameters = [
        parameter.replace(annotation=inspect.Parameter.empty)
        for name, parameter in inspect.signature(value).parameters.items()
        if name not in ("self", "cls")
    ]
    return re.sub(r" at 0x\w+", "", str(inspect.Signature(parameters)))


def methods(value: Callable) -> Iterator[tuple[str, Callable]]:
    """Public methods of a class, those of its bases in this package included."""
    if not inspect.isclass(value):
        return
    seen = set()
    for base in value.__mro__:
        if base.__module__.startswith("modeling_umgf"):
            for name, member in vars(base).items():
                function = getattr(value, name) if isinstance(member, classmethod | staticmethod) else member
                if inspect.isfunction(function) or inspect.ismethod(function):
                    public = not name.startswith("_") or name == "__call__"
                    if public and name not in seen and function.__doc__:
                        yield name, function
                    seen.add(name)


def to_markdown(text: str) -> str:
    """Turn one of our docstrings into Markdown: `Args:`, `Returns:` and `Raises:` become lists."""
    lines, in_section = [], False
    for line in text.splitlines():
        indent = len(line) - len(line.lstrip())
        escaped = escape(line.strip())
        if re.fullmatch(r"(Args|Returns|Raises)\b.*:", line):
            lines += ["", f"**{line[:-1]}**", ""]
            in_section = True
        elif not in_section:
            lines.append(line if indent else escaped)  # indented text is code
        elif indent == 0:
            in_section = not line
            lines.append(escaped)
        elif indent == 4:
            item = re.match(r"(\*{0,2}[\w, …*`/{}]+)( \(.*?\))?: (.+)", escaped)
            goes_on = not item and bool(lines[-1])
            lines.append(
                f"- `{item[1]}`{item[2] or ''}: {item[3]}" if item else f"{'  ' if goes_on else '- '}{escaped}"
            )
        else:
            lines.append(f"  {escaped}")
    return re.sub(r"\n{3,}", "\n\n", "\n".join(lines)).strip()


def escape(line: str) -> str:
    """Keep what looks like HTML visible, except inside code."""
    parts = re.split(r"(`[^`]*`)", line)
    return "".join(part if part.startswith("`") else html.escape(part, quote=False) for part in parts)


# Results


def read_results() -> dict[str, dict[str, Any]]:
    """All stored results by name."""
    return {path.stem: json.loads(path.read_text(encoding="utf-8")) for path in sorted(RESULTS.glob("*.json"))}


def results_page(results: dict[str, dict[str, Any]]) -> str:
    """docs/results.md."""
    parts = [GENERATED.format("benchmarks/results/*.json") + "# Results\n", RESULTS_INTRODUCTION]
    for name, result in results.items():
        parts += [f"\n## {title(name)}\n", *note(result), *result_tables(result["results"])]
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


RESULTS_INTRODUCTION = """
Every number here was printed by a command of `benchmarks/` and stored in `benchmarks/results/`. Scores are F1 of whole
names in %, counted over the whole split (lenient, as seqeval; strict is IOB2). ± is the standard deviation over seeds.
""".lstrip()


def note(result: dict[str, Any]) -> list[str]:
    """What the settings file of a result says about itself: the comment on its first lines."""
    file = re.search(r"\S+\.ya?ml", result.get("configuration", {}).get("command", ""))
    if file is None or not (ROOT / file[0]).exists():
        return []
    lines = itertools.takewhile(lambda line: line.startswith("#"), (ROOT / file[0]).read_text().splitlines())
    return [" ".join(line.lstrip("# ") for line in lines) + "\n"]


def result_tables(results: Any) -> list[str]:
    """Tables for one result: scores over seeds where there are several, else whatever it holds."""
    if isinstance(results, dict) and "mean" in results:
        return [score_table({"": results})]
    if isinstance(results, list) and all(isinstance(row, dict) for row in results):
        columns = list(dict.fromkeys(key for row in results for key in row))
        return [table(columns, [[cell(row.get(column)) for column in columns] for row in results])]
    rows, parts = [], []
    for name, value in results.items():
        if isinstance(value, list) and value and all(isinstance(row, dict) for row in value):
            parts += [f"\n**{title(name)}**\n", *result_tables(value)]
        elif isinstance(value, dict) and any(isinstance(inner, dict | list) for inner in value.values()):
            parts += [f"\n**{title(name)}**\n", *result_tables(value)]
        elif isinstance(value, dict):
            rows += [[f"{title(name)}: {key}", cell(inner)] for key, inner in value.items()]
        else:
            rows.append([title(name), cell(value)])
    return ([table(["what", "value"], rows)] if rows else []) + parts


VARIANTS = {
    "test_f1": "F1",
    "test_strict_f1": "strict F1",
    "test_without_pictures_f1": "F1 without pictures",
    "test_shuffled_pictures_f1": "F1 with pictures of other posts",
    "validation_f1": "validation F1",
}


def score_table(results: dict[str, dict[str, Any]]) -> str:
    """One row for each result with scores over seeds."""
    keys = [key for key in VARIANTS if any(key in result["mean"] for result in results.values())]
    header = [*(["run"] if any(results) else []), *(VARIANTS[key] for key in keys), "seeds"]
    rows = []
    for name, result in results.items():
        scores = [with_deviation(result["mean"].get(key), result["deviation"].get(key)) for key in keys]
        runs = result.get("runs", result.get("seeds", ()))
        rows.append([*([name] if name else []), *scores, len(runs)])
    return table(header, rows)


def with_deviation(mean: float | None, deviation: float | None) -> str:
    if mean is None:
        return ""
    return f"{mean:.2f}" + ("" if deviation is None else f" ± {deviation:.2f}")


def numbers(results: dict[str, dict[str, Any]]) -> str:
    """The table of numbers in README."""
    trained = {name: result for name, result in results.items() if "mean" in result["results"]}
    runs_of: dict[str, list[str]] = {}
    for name, result in trained.items():
        for text in note(result):
            runs_of.setdefault(text, []).append(title(name))
    notes = [f"- {'; '.join(runs)}: {text}" for text, runs in runs_of.items()]
    table_of_all = score_table({title(name): result["results"] for name, result in trained.items()})
    return "\n".join([table_of_all, "", *map(str.strip, notes)]) if trained else "No results are stored yet."


def readme(results: dict[str, dict[str, Any]]) -> str:
    """README.md with the table between its markers renewed."""
    text = (ROOT / "README.md").read_text(encoding="utf-8")
    start, end = MARKERS
    return re.sub(f"{start}.*?{end}", lambda _: f"{start}\n{numbers(results)}\n{end}", text, flags=re.DOTALL)


def package_card(results: dict[str, dict[str, Any]]) -> str:
    """model_card.md: the card of the model that the quick start trains, with all stored seeds."""
    return str(render_model_card(results[CARD_OF]["results"]["runs"])) + "\n"


def title(name: str) -> str:
    spelled = {"twitter2015": "Twitter-2015", "twitter2017": "Twitter-2017", "rgcn": "R-GCN", "umgf": "UMGF"}
    words = " ".join(spelled.get(word, word) for word in name.split("_"))
    return words[:1].upper() + words[1:]


def cell(value: Any) -> str:
    if isinstance(value, float):
        return f"{value:,.4g}" if abs(value) < 100 else f"{value:,.0f}"
    if isinstance(value, list):
        return ", ".join(map(cell, value))
    if isinstance(value, int) and not isinstance(value, bool):
        return f"{value:,}"
    return "" if value is None else str(value)


def table(header: Iterable[Any], rows: Iterable[Iterable[Any]]) -> str:
    header = list(header)
    return "\n".join(f"| {' | '.join(map(str, row))} |" for row in (header, ["---"] * len(header), *rows))


# Writing


def pages() -> dict[Path, str]:
    """Every generated text by its file, as far as what it is made of exists."""
    results = read_results()
    texts = {DOCS / "api_reference.md": api_reference(), DOCS / "results.md": results_page(results)}
    if (ROOT / "README.md").exists():
        texts[ROOT / "README.md"] = readme(results)
    if CARD_OF in results:
        texts[ROOT / "model_card.md"] = package_card(results)
    return texts


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--check", action="store_true", help="write nothing; exit with 1 if a text is out of date")
    check = parser.parse_args().check
    outdated = {
        path: text for path, text in pages().items() if not path.exists() or path.read_text(encoding="utf-8") != text
    }
    for path, text in outdated.items():
        print(f"{path.relative_to(ROOT)} {'is out of date' if check else 'written'}")
        if not check:
            path.write_text(text, encoding="utf-8")
    if not check:
        from figures.draw import save_figures

        save_figures()
    return int(check and bool(outdated))


if __name__ == "__main__":
    sys.exit(main())
