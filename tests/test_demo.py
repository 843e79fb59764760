"""The page in a real browser: what it shows is what the pipeline says."""

import importlib.util
import json
import os
import shutil
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.request
from pathlib import Path

import pytest
from datasets import ClassLabel, Dataset, DatasetDict, Features, Image, List, Value
from finished_run import train
from parallel_runs import free_port
from PIL import Image as PILImage
from transformers import pipeline

from dataset_scripts.columns.contract import COLUMNS
from dataset_scripts.writing.dataset_folder import write_dataset

APP = Path(__file__).resolve().parents[1] / "demo" / "app.py"
CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
FLAGS = "--no-sandbox --disable-gpu --disable-quic --no-first-run --disable-background-networking"
FLAGS += " --disable-component-update --disable-sync"
needs_browser = pytest.mark.skipif(CHROMIUM is None and "CI" not in os.environ, reason="chromium is not installed")

POST = "😍 Anna meets Rome"
BOX = [4.0, 4.0, 20.0, 28.0]
LABELS = ["O", "B-PER", "I-PER", "B-LOC", "I-LOC"]


def posts() -> Dataset:
    """One text with two meanings: with the picture Anna is a person, without it a place."""
    columns = {"id": Value("string"), "tokens": List(Value("string")), "ner_tags": List(ClassLabel(names=LABELS))}
    columns["image"] = Image()
    columns["objects"] = COLUMNS["objects"].feature
    picture = PILImage.new("RGB", (40, 30), "white")
    picture.paste("red", (4, 4, 20, 28))
    found = [{"box": BOX, "score": 0.9, "query": "Anna", "phrase": {"start": 1, "end": 2}}]
    rows = {
        "id": ["with", "without"],
        "tokens": [POST.split()] * 2,
        "ner_tags": [[0, 1, 0, 3], [0, 3, 0, 3]],
        "image": [picture, None],
        "objects": [found, []],
    }
    return Dataset.from_dict(rows, features=Features(columns))


@pytest.fixture(scope="module")
def folders(tmp_path_factory) -> tuple[Path, Path, Path]:
    """A model that has learnt the posts, the posts as a dataset, and the picture as a file."""
    folder = tmp_path_factory.mktemp("demo")
    rates = {name: 1e-2 for name in ("learning_rate", "text_learning_rate", "vision_learning_rate")}
    splits = DatasetDict({split: posts() for split in ("train", "validation", "test")})
    no_checkpoints = {"eval_strategy": "no", "save_strategy": "no", "load_best_model_at_end": False}
    train(folder / "model", splits=splits, num_train_epochs=60, **no_checkpoints, **rates)
    write_dataset(splits, folder / "posts", title="Two posts", description="For the test of the page.")
    splits["test"][0]["image"].save(folder / "picture.png")
    return folder / "model", folder / "posts", folder / "picture.png"


@pytest.fixture(scope="module")
def expected(folders) -> list:
    """What the pipeline says: with the picture and its box, and without."""
    model, _, picture = folders
    post = {"text": POST, "image": str(picture), "objects": posts()[0]["objects"]}
    with_picture, without = pipeline("multimodal-ner", model=str(model))([post, POST])
    assert [entity["entity_group"] for entity in with_picture] == ["PER", "LOC"], "the model has not learnt the posts"
    assert [entity["entity_group"] for entity in without] == ["LOC", "LOC"]
    return [with_picture, without]


@pytest.fixture(scope="module")
def page(folders):
    """The page, started as a user starts it, in a browser that refuses every other address."""
    from playwright.sync_api import sync_playwright

    model, data, _ = folders
    port = free_port()
    address = f"http://127.0.0.1:{port}/"
    environment = os.environ | {"OMP_NUM_THREADS": "1", "HF_HOME": str(model.parent / "home")}
    command = [sys.executable, str(APP), str(model), "--examples", str(data), "--port", str(port)]
    server = subprocess.Popen(command, env=environment, stdout=subprocess.PIPE, stderr=subprocess.STDOUT)
    try:
        wait_for(address, server)
        with sync_playwright() as playwright:
            browser = playwright.chromium.launch(executable_path=CHROMIUM, args=FLAGS.split())
            page = browser.new_page(viewport={"width": 1280, "height": 900})
            page.elsewhere = []
            page.on("request", lambda request: request.url.startswith(address) or page.elsewhere.append(request.url))
            page.goto(address)
            page.locator("#post textarea").wait_for()
            yield page
            browser.close()
    finally:
        server.terminate()
        server.wait(10)


def wait_for(address: str, server: subprocess.Popen, seconds: float = 120) -> None:
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        if server.poll() is not None:
            raise RuntimeError(server.stdout.read().decode())
        try:
            urllib.request.urlopen(address)
            return
        except OSError:
            time.sleep(0.2)
    raise TimeoutError(f"no page at {address} after {seconds} s")


def load_app():
    spec = importlib.util.spec_from_file_location("app", APP)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def marks(page, element: str) -> list[list[str]]:
    """[word, label, colour] of the marked words of a highlighted text."""
    return page.locator(element).evaluate(
        """element => [...element.querySelectorAll('.token.highlighted')].map(token => [
            token.querySelector('.text').innerText.trim(), token.querySelector('.label').innerText.trim(),
            token.querySelector('.label').style.backgroundColor])"""
    )


def labels_of(entities: list[dict]) -> list[list[str]]:
    return [[entity["word"], f"{number} {entity['entity_group']}"] for number, entity in enumerate(entities, start=1)]


def choose_the_example(page) -> None:
    page.reload()
    page.locator("#examples tbody tr").first.click()
    page.locator("#names .token.highlighted").first.wait_for()


@needs_browser
def test_an_example_shows_the_names_and_scores_of_the_pipeline(page, expected):
    choose_the_example(page)
    assert [mark[:2] for mark in marks(page, "#names")] == labels_of(expected[0])
    shown = [line.strip() for line in page.locator("#table").inner_text().splitlines() if line.strip()]
    for entity in expected[0]:
        place = shown.index(entity["word"])
        offsets = f"{entity['start']} to {entity['end']}"
        assert shown[place + 1 : place + 4] == [entity["entity_group"], f"{entity['score']:.3f}", offsets]


@needs_browser
def test_a_box_lies_where_its_object_is_and_has_the_colour_of_its_name(page, expected):
    choose_the_example(page)
    [legend] = page.locator("#objects .legend-item").all()
    assert legend.inner_text() == "1 Anna"
    rgb = marks(page, "#names")[0][2].removeprefix("rgb(").removesuffix(")")
    assert rgb in legend.evaluate("element => element.style.backgroundColor")
    source = page.locator("#objects img.mask").get_attribute("src")
    mask = PILImage.open(urllib.request.urlopen(source)).convert("RGBA")
    assert mask.getchannel("A").getbbox() == tuple(map(int, BOX))


@needs_browser
def test_the_what_if_toggle_shows_what_the_words_alone_give(page, expected):
    choose_the_example(page)
    assert not page.locator("#names-without-picture").is_visible()
    page.get_by_label("What if there were no picture?").check()
    page.locator("#names-without-picture .token.highlighted").first.wait_for()
    assert [mark[:2] for mark in marks(page, "#names-without-picture")] == labels_of(expected[1])
    assert page.locator("#change textarea").input_value() == "Without the picture Anna would be LOC."
    page.get_by_label("What if there were no picture?").uncheck()
    page.locator("#names-without-picture").wait_for(state="hidden")


@needs_browser
def test_a_typed_post_with_a_dropped_picture_has_the_whole_picture_as_one_object(page, folders):
    model, _, picture = folders
    text = "<b>Anna</b> 👩‍👩‍👧 meets ![Rome](http://example.com/x.png) Anna"
    expected = pipeline("multimodal-ner", model=str(model))({"text": text, "image": str(picture)})
    page.reload()
    page.locator("#post textarea").fill(text)
    page.locator("#picture input[type=file]").set_input_files(picture)
    page.locator("#picture img").wait_for()
    page.locator("#run").click()
    page.locator("#names .token.highlighted").first.wait_for()
    assert [mark[:2] for mark in marks(page, "#names")] == labels_of(expected)
    assert page.locator("#objects .legend-item").all_inner_texts() == ["linked to every name"]


def test_the_table_names_the_pictures_of_other_posts_that_were_used():
    app = load_app()
    entity = {"word": "Anna", "entity_group": "PER", "score": 0.5, "start": 0, "end": 4, "objects": []}
    neighbors = [{"id": "beach", "relation": "inter", "weight": 0.25}]
    rows = app.describe([entity | {"neighbors": neighbors}], [entity | {"entity_group": "LOC"}])
    assert rows == [["Anna", "PER", "0.500", "0 to 4", "picture beach (0.25)", "LOC (0.500)"]]
    assert app.describe([entity], [])[0][4:] == ["nothing", "not found"]


@pytest.mark.parametrize(
    "boxes", ["[1", "{", "5", '[{"box": [1, 2]}]', '[{"box": "abcd"}]', "[1]", '[{"phrase": null}]']
)
def test_boxes_that_are_not_boxes_are_refused_in_words(boxes):
    with pytest.raises(Exception, match="The boxes are not JSON of the form"):
        load_app().read_boxes(boxes)


@needs_browser
def test_an_empty_post_is_answered_in_words(page):
    page.reload()
    page.locator("#run").click()
    page.get_by_text("Type or paste a post first.").wait_for()
    assert page.locator(".error").count() == 0  # once there was one on each of the five parts


@needs_browser
def test_a_post_from_right_to_left_is_shown_in_its_order(page):
    page.reload()
    page.locator("#post textarea").fill("מחר Anna ברומא")
    page.locator("#run").click()
    page.locator("#names .textfield").first.wait_for()
    page.wait_for_function("document.querySelector('#names [dir=rtl]') !== null")


def test_long_posts_and_those_from_right_to_left_are_known():
    app = load_app()
    assert "it was read in 3 overlapping parts" in app.say_how_it_was_read(3)
    assert app.say_how_it_was_read(1) == ""
    assert app.is_right_to_left("1 שלום Anna")
    assert not any(map(app.is_right_to_left, ("Anna שלום", "", "😍")))


@needs_browser
def test_markup_in_a_post_is_shown_and_not_run(page):
    markup = '<img src=x onerror="window.hacked=1"> <b id=bold>Anna</b> ![x](http://127.0.0.1:9/x.png) meets Rome'
    page.locator("#post textarea").fill(markup)
    page.locator("#run").click()
    page.wait_for_function("document.querySelector('#names').innerText.includes('onerror')")
    assert page.evaluate("window.hacked === undefined")
    assert page.locator("#bold").count() == 0
    assert page.elsewhere == []


def ask(address: str, path: str, data: object = None) -> tuple[int, str]:
    """Status and body of what the page's server answers."""
    body = None if data is None else json.dumps(data).encode()
    request = urllib.request.Request(address + path, body, {"Content-Type": "application/json"})
    try:
        with urllib.request.urlopen(request, timeout=20) as response:
            return response.status, response.read().decode(errors="replace")
    except urllib.error.HTTPError as error:
        return error.code, error.read().decode(errors="replace")


@needs_browser
def test_the_page_reads_no_files_of_its_machine_and_asks_no_private_address(page, folders, tmp_path):
    address = page.url
    secret = tmp_path / "secret.png"
    PILImage.new("RGB", (50, 50), "red").save(secret)
    assert ask(address, f"gradio_api/file={secret}")[0] in (403, 404)
    assert ask(address, f"gradio_api/file={folders[0] / 'config.json'}")[0] in (403, 404)
    with socket.socket() as private:
        private.bind(("127.0.0.1", 0))
        private.listen()
        private.settimeout(0.5)
        here = f"http://127.0.0.1:{private.getsockname()[1]}/x.png"
        for given in (
            {"path": str(secret)},
            {"path": here},
            {"path": "x.png", "url": here},
            {"url": f"file://{secret}"},
        ):
            picture = given | {"meta": {"_type": "gradio.FileData"}}
            status, answer = ask(address, "gradio_api/call/tag", {"data": ["Anna", picture, "", False]})
            if status == 200:
                answer = ask(address, f"gradio_api/call/tag/{json.loads(answer)['event_id']}")[1]
                assert "event: error" in answer, (given, answer)
        with pytest.raises(TimeoutError):
            private.accept()


@needs_browser
def test_the_page_asks_no_other_server_for_anything(page):
    choose_the_example(page)
    assert page.elsewhere == []


ON_A_SPACE = """
import sys
class NotInstalled:
    def find_spec(self, name, path=None, target=None):
        if name.split(".")[0] == "modeling_umgf":
            raise ModuleNotFoundError(name)
sys.meta_path.insert(0, NotInstalled())
import app
page = app.make_page(sys.argv[1], trust_remote_code=True)
[tag] = {button.fn for button in page.fns.values() if button.fn.__name__ == "tag"}
print(tag(sys.argv[2], None, "", True)[-1])
"""


def test_on_a_space_without_the_package_the_page_runs_the_code_of_the_model(folders, expected, tmp_path):
    environment = os.environ | {"PYTHONPATH": str(APP.parent), "HF_HOME": str(tmp_path), "OMP_NUM_THREADS": "1"}
    command = [sys.executable, "-c", ON_A_SPACE, str(folders[0]), POST]
    done = subprocess.run(command, env=environment, cwd=tmp_path, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert f"['Anna', 'LOC', '{expected[1][0]['score']:.3f}', '2 to 6'" in done.stdout


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ([], "app.py: no model. Name a trained one: `python demo/app.py runs/my_model`, or set the variable MODEL."),
        (["runs/absent"], "runs/absent"),
    ],
)
def test_a_missing_model_is_one_clear_line(arguments, message, monkeypatch):
    monkeypatch.delenv("MODEL", raising=False)
    monkeypatch.setattr(sys, "argv", ["app.py"] + arguments)
    with pytest.raises(SystemExit) as stopped:
        load_app().main()
    [line] = stopped.value.code.splitlines()
    assert message in line
