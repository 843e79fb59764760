"""README and docs: every block of code runs, every link leads somewhere, everything generated is up to date."""

import importlib.metadata
import importlib.util
import json
import os
import re
import shlex
import shutil
import subprocess
import sys
from collections import Counter
from pathlib import Path

import hub_stand_in
import pytest
import timm
from conftest import tiny_config, tiny_tokenizer
from finished_run import train
from hub_stand_in import OWNER, HubStandIn, Repository
from parallel_runs import free_port
from PIL import Image
from timm.models._hub import save_for_hf
from tiny_describers import save_captioner, save_labeler
from tiny_detectors import save_detector
from transformers import AutoModel

from benchmarks import run_recipes
from dataset_scripts import offline_twitter

ROOT = Path(__file__).resolve().parents[1]
API_REFERENCE = ROOT / "docs" / "api_reference.md"
GENERATED = {"api_reference.md", "commands.md", "results.md", "reliability.md", "tables.md"}
PAGES = [ROOT / "README.md", ROOT / "CONTRIBUTING.md", ROOT / "demo" / "README.md"] + sorted(ROOT.glob("docs/*.md"))
EXECUTED = [page for page in PAGES if page.name not in GENERATED]
# blocks with that comment: keep these few
NOT_EXECUTED = {"demo/README.md": 1, "docs/quick_start.md": 1, "docs/recipes.md": 2}
INSTALLING = re.compile(r"python3? -m (venv|pytest|nltk)\b|pip install|make |hf auth login|git clone")


def blocks(page: Path) -> list[tuple[str, str, str, bool]]:
    """(language, file:line, code, executed?) of the Python and shell blocks of a page."""
    text = page.read_text(encoding="utf-8")
    found = []
    for match in re.finditer(r"(<!-- not executed: .+? -->\n)?^```(python|bash)\n(.*?)^```", text, re.M | re.S):
        line = text[: match.start(3)].count("\n") + 1
        found.append((match[2], f"{page.relative_to(ROOT)}:{line}", match[3], match[1] is None))
    return found


def lines_of_code() -> list[str]:
    """The lines of all blocks of all pages."""
    lines = []
    for page in PAGES:
        for _, _, code, _ in blocks(page):
            lines += code.splitlines()
    return lines


def without_installation(code: str) -> str:
    """Shell code without the lines that install, and so can't run here; another test looks at those."""
    return "".join(line for line in code.splitlines(keepends=True) if not INSTALLING.match(line))


def host(hub: HubStandIn, name: str, folder: Path) -> None:
    """Put the files of a folder on the stand-in for the Hub."""
    files = {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*") if path.is_file()}
    repository = hub.repositories[f"models/{name}"] = Repository()
    repository.commit(files)


@pytest.fixture(scope="module")
def hub(tmp_path_factory):
    """A Hub with tiny models under the names that the pages use."""
    folder = tmp_path_factory.mktemp("hub")
    with HubStandIn() as hub, pytest.MonkeyPatch.context() as patch:
        patch.setitem(hub_stand_in.USERS, OWNER, "you")
        text_model = AutoModel.from_config(tiny_config().text_config)
        text_model.save_pretrained(folder / "bert")
        tiny_tokenizer().save_pretrained(folder / "bert")
        encoders = ("google-bert/bert-base-cased", "google-bert/bert-base-uncased")
        for name in encoders + ("sentence-transformers/all-MiniLM-L6-v2",):
            host(hub, name, folder / "bert")
        save_for_hf(timm.create_model("test_resnet"), folder / "timm", safe_serialization=True)
        config = json.loads((folder / "timm" / "config.json").read_text())
        config.pop("model_args", None)  # as in the repositories of timm
        (folder / "timm" / "config.json").write_text(json.dumps(config))
        host(hub, "timm/resnet152.a1_in1k", folder / "timm")
        host(hub, "IDEA-Research/grounding-dino-tiny", save_detector("grounding-dino", folder / "detector"))
        host(hub, "facebook/detr-resnet-50", save_labeler("detr", folder / "labeler"))
        host(hub, "Salesforce/blip-image-captioning-base", save_captioner("blip", folder / "captioner"))
        yield hub


@pytest.fixture(scope="module")
def prepared_workplace(tmp_path_factory) -> Path:
    """A folder like a user's clone, with a trained model, posts and pictures; the training there is short."""
    folder = tmp_path_factory.mktemp("clone")
    for name in ("demo", "examples", "recipes"):
        (folder / name).symlink_to(ROOT / name)
    shutil.copytree(ROOT / "dataset_scripts", folder / "dataset_scripts")
    shutil.copy(ROOT / "train_umgf.py", folder)
    change(folder / "train_umgf.py", r"set_seed\((\w+)\.seed\)", r"set_seed(\1.seed); \1.num_train_epochs = 1")
    change(folder / "dataset_scripts" / "contrast_tweets.yaml", r"num_train_epochs: \d+", "max_steps: 2")
    few = 'SPLITS = {"train": (200, 30), "validation": (50, 30), "test": (50, 30)}'
    change(folder / "dataset_scripts" / "contrast_tweets.py", r"SPLITS = \{.*?\}", few)
    train(folder / "runs" / "contrast_tweets")
    (folder / "images").mkdir()
    for number, color in enumerate(("red", "green", "blue", "white", "orange", "black")):
        picture = Image.new("RGB", (64, 48), "gray")
        picture.paste(color, (8, 8, 40, 40))
        picture.save(folder / "images" / f"{number}.jpg")
    lines = ["Anna\tB-PER\nmeets\tO\nBob\tB-PER\nMarley\tI-PER", "the\tO\ncat\tO\nof\tO\nParis\tB-LOC\nsleeps\tO"]
    for file, numbers in (("train.txt", range(4)), ("valid.txt", [4]), ("test.txt", [5])):
        (folder / file).write_text("\n\n".join(f"IMGID:{n}\n{lines[n % 2]}" for n in numbers) + "\n")
    (folder / "UMT" / "data").mkdir(parents=True)
    (folder / "UMT" / "data" / "twitter2017").symlink_to(folder)  # files of the same names
    posts = [
        {"id": str(number), "text": f"Anna meets Bob {number} times", "image": f"{number}.jpg"} for number in range(4)
    ]
    (folder / "posts.jsonl").write_text("".join(json.dumps(post) + "\n" for post in posts))
    return folder


@pytest.fixture
def workplace(prepared_workplace, tmp_path) -> Path:
    """Such a folder for one page: what it writes is in no other page's way."""
    return shutil.copytree(prepared_workplace, tmp_path / "clone", symlinks=True)


def change(file: Path, pattern: str, text: str) -> None:
    """Change one place of a copied file."""
    changed, times = re.subn(pattern, text, file.read_text(), flags=re.DOTALL)
    assert times == 1, f"{file.name} has no {pattern} any more"
    file.write_text(changed)


@pytest.mark.parametrize("page", EXECUTED, ids=lambda page: str(page.relative_to(ROOT)))
def test_every_block_of_a_page_runs(page, hub, workplace):
    to_run = []
    for language, place, code, executed in blocks(page):
        if language == "bash":
            code = without_installation(code)
        if executed and code.strip():
            to_run.append((language, place, code))
    if not to_run:
        return
    if any(code.rstrip().endswith("train_umgf.py dataset_scripts/contrast_tweets.yaml") for _, _, code in to_run):
        shutil.rmtree(workplace / "runs" / "contrast_tweets")  # one run, one folder: this page trains it again
    listing = workplace / f"blocks_of_{page.stem}.json"
    listing.write_text(json.dumps(to_run), encoding="utf-8")
    environment = hub.environment(workplace / "home", OWNER, OMP_NUM_THREADS="1", HF_HUB_DISABLE_PROGRESS_BARS="1")
    environment["PATH"] = f"{Path(sys.executable).parent}{os.pathsep}{environment['PATH']}"
    environment["PET_MASTER_PORT"] = str(free_port())  # of torchrun: 29500 may be another test's
    command = [sys.executable, str(ROOT / "tests" / "run_page.py"), str(listing)]
    done = subprocess.run(command, cwd=workplace, env=environment, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr[-4000:]


def test_only_few_blocks_are_not_executed_and_those_have_valid_arguments():
    left_out = Counter()
    commands = []
    for page in PAGES:
        for _, place, code, executed in blocks(page):
            if not executed:
                left_out[place.partition(":")[0]] += 1
                commands += without_installation(code).splitlines()
    assert left_out == NOT_EXECUTED
    assert commands
    parse = {
        "python demo/app.py": load("demo/app.py").parse_arguments,
        "python -m dataset_scripts.offline_twitter": offline_twitter._parser().parse_args,
        "python -m benchmarks.run_recipes": run_recipes._parser().parse_args,
    }
    for line in commands:
        command = next(command for command in parse if line.startswith(f"{command} "))
        assert parse[command](shlex.split(line.removeprefix(command)))


def test_what_the_pages_install_exists():
    known = importlib.metadata.metadata("modeling_umgf").get_all("Provides-Extra")
    makefile = (ROOT / "Makefile").read_text()
    commands = lines_of_code()
    extras = set()
    for line in commands:
        for listed in re.findall(r"pip install .*\[([\w,]+)\]", line):
            extras.update(listed.split(","))
    assert extras
    assert extras <= set(known)
    for target in {line.split()[1] for line in commands if line.startswith("make ")}:
        assert re.search(rf"^{target}:", makefile, re.M), target


def test_links_lead_to_files_and_headings_that_exist():
    for page in PAGES:
        for link in re.findall(r"\]\(([^)\s]+)\)", page.read_text(encoding="utf-8")):
            if not link.startswith(("http://", "https://")):
                file, _, heading = link.partition("#")
                target = (page.parent / file).resolve() if file else page
                assert target.exists(), f"{page.name} links to {link}"
                if heading:
                    titles = re.findall(r"^#+ (.+)$", target.read_text(encoding="utf-8"), re.M)
                    anchors = {re.sub(r"[^\w\- ]", "", title.lower()).replace(" ", "-") for title in titles}
                    assert heading in anchors, f"{page.name} links to {link}"


def test_generated_pages_are_up_to_date():
    pytest.importorskip("griffe2md")  # needs Python 3.11
    outdated = [path.name for path, text in load("docs/render.py").pages().items() if path.read_text() != text]
    assert not outdated, "run python docs/render.py"


def test_everything_that_the_package_exports_is_described():
    import modeling_umgf

    reference = API_REFERENCE.read_text(encoding="utf-8")
    for name in modeling_umgf.__all__:
        assert f"\n### `{name}`\n" in reference
        assert getattr(modeling_umgf, name).__doc__, name


def test_every_module_of_the_package_is_described_and_nothing_private():
    headings = re.findall(r"^#+ `(.+)`$", API_REFERENCE.read_text(encoding="utf-8"), re.M)
    modules = [path.stem for path in (ROOT / "modeling_umgf").glob("[!_]*.py")]
    assert modules and set(modules) <= set(headings)
    assert [name for name in headings if name.startswith("_")] == ["__call__"] * headings.count("__call__")


def test_every_docstring_is_read_to_its_end():
    """What looks like HTML is not seen on the page, and a section that isn't recognised is one long paragraph."""
    reference = API_REFERENCE.read_text(encoding="utf-8")
    text = re.sub(r"^```.*?^```$|`[^`\n]*`|</?code>|<!--.*?-->", "", reference, flags=re.M | re.S)
    assert re.findall(r"<\w.*", text) == []
    assert re.findall(r"^(?:Args|Returns|Raises|Yields|Examples)\b.*", text, re.M) == []


def test_signatures_of_configurations_show_the_defaults_of_their_settings():
    assert re.search(r"^UmgfConfig\([^)]*\bnum_layers=2,", API_REFERENCE.read_text(encoding="utf-8"), re.M)


def test_every_command_that_a_page_uses_is_in_the_table_of_commands():
    listed = re.findall(r"^\| `(.+?)` \|", (ROOT / "docs" / "commands.md").read_text(encoding="utf-8"), re.M)
    used = {line for line in lines_of_code() if line.startswith("python ") and not INSTALLING.match(line)}
    assert used
    for line in used:
        assert any(f"{line} ".startswith(f"{command} ") for command in listed), line


def test_figures_are_drawn_by_code(tmp_path, monkeypatch):
    draw = load("docs/figures/draw.py")
    monkeypatch.setattr(draw, "FOLDER", tmp_path)
    draw.save_figures()
    for name in ("umgf", "rgcn"):
        assert (tmp_path / f"{name}.svg").stat().st_size > 10_000
        assert (ROOT / "docs" / "figures" / f"{name}.svg").exists()


def load(path: str):
    spec = importlib.util.spec_from_file_location(Path(path).stem, ROOT / path)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module
