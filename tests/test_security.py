"""What SECURITY.md promises: files, networks, pictures and markup that come with posts do no harm."""

import ast
import base64
import http.server
import importlib.util
import io
import json
import os
import pickle
import re
import shutil
import socket
import struct
import threading
import time
import zlib
from pathlib import Path

import pytest
import torch
from conftest import LABELS, tiny_config
from datasets import ClassLabel, Dataset, Features, List, Value
from datasets import Image as ImageColumn
from PIL import Image
from systems_under_test import make_model, make_processor

from dataset_scripts.reading.bad_input import BadInput
from dataset_scripts.reading.crops_and_features import read_hvpnet_crops, read_vinvl, umgf_crops
from dataset_scripts.reading.splits import read_splits
from modeling_umgf import MultimodalNerPipeline, web_pictures
from modeling_umgf.__main__ import main
from modeling_umgf.explanation import Explanation
from modeling_umgf.pictures import UnreadablePicture, open_picture, picture_in
from modeling_umgf.training import MultimodalNerTrainer, MultimodalNerTrainingArguments
from modeling_umgf.web_pictures import fetch_picture, is_public

ROOT = Path(__file__).resolve().parents[1]
CODE = [*ROOT.glob("*.py")]
for part in ("modeling_umgf", "dataset_scripts", "demo", "benchmarks", "examples", "docs"):
    CODE += (ROOT / part).rglob("*.py")

MARKUP = '<img src=x onerror="window.hacked=1"> <script>window.hacked=1</script> <b id=bold>Anna</b>'


@pytest.fixture(scope="module")
def tagger() -> MultimodalNerPipeline:
    return MultimodalNerPipeline(make_model("umgf"), processor=make_processor("umgf"), device="cpu")


# ------------------------------------------------------------------------------------------------------------ pickle


def calls(path: Path):
    """Calls in a file: the dotted name of what is called, and the names of its keyword arguments."""
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Call):
            yield ast.unparse(node.func), {word.arg: ast.unparse(word.value) for word in node.keywords}


@pytest.mark.parametrize("path", CODE, ids=lambda path: str(path.relative_to(ROOT)))
def test_nothing_is_loaded_that_may_hold_code(path):
    for name, settings in calls(path):
        assert not re.fullmatch(r"(pickle|dill|joblib|cloudpickle|shelve|marshal)\.\w+", name), name
        assert name not in ("eval", "exec", "yaml.load", "os.system", "pandas.read_pickle"), name
        if name.endswith("torch.load"):
            assert settings.get("weights_only") == "True", name
        if name in ("np.load", "numpy.load"):
            assert settings.get("allow_pickle", "False") == "False", name
        assert settings.get("shell", "False") == "False", name
        assert settings.get("trust_remote_code") != "True", name


class Attack:
    """Makes a file when it is unpickled."""

    def __init__(self, place: Path):
        self.place = place

    def __reduce__(self):
        return (open, (str(self.place), "w"))


def test_code_in_files_of_weights_and_features_is_not_run(tmp_path):
    marker = tmp_path / "ran"
    weights = tmp_path / "weights.pth"
    torch.save({"a": Attack(marker)}, weights)
    for place in (tmp_path / "text", tmp_path / "vision"):
        config = tiny_config().text_config if place.name == "text" else tiny_config().vision_config
        config.save_pretrained(place)
        shutil.copy(weights, place / "pytorch_model.bin")
    tagger_class = type(make_model("umgf"))
    for given in ({"text": tmp_path / "text"}, {"text": {"model_type": "bert"}, "vision": tmp_path / "vision"}):
        with pytest.raises(Exception):  # noqa: B017 - whatever transformers makes of it
            tagger_class.from_text_vision_pretrained(**given, labels=LABELS)
    with pytest.raises(BadInput):
        read_hvpnet_crops(weights)
    (tmp_path / "f.npz").write_bytes(pickle.dumps(Attack(marker)))
    with pytest.raises(BadInput):
        read_vinvl(tmp_path / "f.npz")
    assert main(["convert", str(weights), str(tmp_path / "out")]) == 1
    assert not marker.exists()


def test_code_in_the_folder_of_a_model_is_run_only_where_that_is_asked_for(tmp_path):
    make_model("umgf").save_pretrained(tmp_path / "model")
    make_processor("umgf").save_pretrained(tmp_path / "model")
    config = json.loads((tmp_path / "model" / "config.json").read_text())
    config |= {"model_type": "unheard_of", "auto_map": {"AutoConfig": "evil.Config"}}
    (tmp_path / "model" / "config.json").write_text(json.dumps(config))
    (tmp_path / "model" / "evil.py").write_text(f"open({str(tmp_path / 'ran')!r}, 'w')\nclass Config: pass\n")
    (tmp_path / "posts.jsonl").write_text('{"text": "Anna"}\n')
    arguments = ["tag", str(tmp_path / "posts.jsonl"), "--model", str(tmp_path / "model")]
    assert main([*arguments, "--output", str(tmp_path / "out.jsonl")]) == 1
    app = load_app()
    with pytest.raises((OSError, ValueError)):
        app.make_page(str(tmp_path / "model"))
    assert not (tmp_path / "ran").exists()


# ------------------------------------------------------------------------------------------------------------- files


@pytest.fixture
def outside(tmp_path) -> tuple[Path, dict[str, str]]:
    """A folder of pictures, and names that lead out of it to a picture."""
    folder = tmp_path / "pictures"
    folder.mkdir()
    secret = tmp_path / "secret"
    secret.mkdir()
    Image.radial_gradient("L").save(secret / "1.jpg")
    Image.radial_gradient("L").save(folder / "in.jpg")
    (folder / "link.jpg").symlink_to(secret / "1.jpg")
    (folder / "linked").symlink_to(secret)
    (folder / "loop.jpg").symlink_to(folder / "loop.jpg")
    (tmp_path / "pictures_too").mkdir()  # begins with the name of the folder
    Image.radial_gradient("L").save(tmp_path / "pictures_too" / "1.jpg")
    return folder, [
        "../secret/1.jpg",
        "x/../../secret/1.jpg",
        str(secret / "1.jpg"),
        "link.jpg",
        "linked/1.jpg",
        "../pictures_too/1.jpg",
    ]


def test_names_of_pictures_stay_in_their_folder(outside, tmp_path):
    folder, names = outside
    for name in names:
        with pytest.raises(UnreadablePicture, match="leads out of the folder of pictures"):
            picture_in(folder, name)
    for name in ("in.jpg", "./in.jpg", "linked/../pictures/in.jpg", str(folder / "in.jpg")):
        assert open_picture(picture_in(folder, name))
    for name in ("a\0b", "loop.jpg", "x" * 5000):
        with pytest.raises(UnreadablePicture):
            open_picture(picture_in(folder, name))
    (tmp_path / "link_to_folder").symlink_to(folder)
    assert open_picture(picture_in(tmp_path / "link_to_folder", "in.jpg"))


def test_the_tag_command_opens_no_other_files(outside, tmp_path, tagger, capsys):
    folder, names = outside
    tagger.save_pretrained(tmp_path / "model")
    images = [*names, *({"path": name, "bytes": None} for name in names), "in.jpg"]
    lines = [json.dumps({"text": "Anna meets Bob", "image": image}) for image in images]
    (tmp_path / "posts.jsonl").write_text("\n".join(lines), encoding="utf-8")
    output = tmp_path / "out.jsonl"
    arguments = ["--images", str(folder), "--model", str(tmp_path / "model"), "--output", str(output)]
    assert main(["tag", str(tmp_path / "posts.jsonl"), *arguments]) == 0
    *bad, good = [json.loads(line) for line in output.read_text().splitlines()]
    assert "warning" not in good and all("objects" in own for own in good["entities"])
    for record in bad:
        assert "leads out of the folder of pictures" in record["warning"]
        assert all(own["objects"] == [] for own in record["entities"])
    assert f"{len(bad)} with a warning" in capsys.readouterr().out


def test_readers_of_datasets_open_no_other_files(outside, tmp_path):
    folder, names = outside
    for name in names:
        post = {"id": "1", "tokens": ["Anna"], "tags": ["B-PER"], "image": name}
        (tmp_path / "train.jsonl").write_text(json.dumps(post) + "\n")
        with pytest.raises(BadInput, match="post 1: the picture .* leads out of the folder"):
            read_splits({"train": tmp_path / "train.jsonl"}, image_dir=folder)
    for post_id in ("../secret/1", "link"):
        (tmp_path / "train.txt").write_text(f"IMGID:{post_id}\nAnna\tB-PER\n")
        with pytest.raises(BadInput, match="leads out of the folder"):
            read_splits({"train": tmp_path / "train.txt"}, image_dir=folder)
    with pytest.raises(UnreadablePicture):
        umgf_crops(folder, "../secret")


# ---------------------------------------------------------------------------------------------------------- pictures


def bomb(width: int = 20_000, height: int = 20_000) -> bytes:
    """A small PNG file of many pixels."""

    def chunk(kind: bytes, content: bytes) -> bytes:
        body = kind + content
        return struct.pack(">I", len(content)) + body + struct.pack(">I", zlib.crc32(body))

    header = struct.pack(">IIBBBBB", width, height, 1, 0, 0, 0, 0)
    rows = zlib.compress(bytes((width // 8 + 1) * 64), 9)
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", rows) + chunk(b"IEND", b"")


@pytest.mark.parametrize("size", [(20_000, 20_000), (10_000, 9_500)])  # the second is under the limit of Pillow's error
def test_pictures_of_too_many_pixels_are_refused_before_they_are_decoded(size, tagger, tmp_path, monkeypatch):
    content = bomb(*size)
    path = tmp_path / "bomb.png"
    path.write_bytes(content)
    inline = "data:image/png;base64," + base64.b64encode(content).decode()
    monkeypatch.setattr(Image.Image, "load", lambda image: pytest.fail("decoded"))
    monkeypatch.setattr("PIL.ImageFile.ImageFile.load", lambda image: pytest.fail("decoded"))
    for source in (content, path, {"bytes": content, "path": None}, io.BytesIO(content).getbuffer()):
        with pytest.raises(UnreadablePicture, match="larger than 89,478,485 pixels"):
            open_picture(source)
    for image in (content, str(path), inline):
        assert "larger than" in tagger({"text": "Anna", "image": image})["error"]
    if size[0] == 10_000:
        with pytest.raises(UnreadablePicture, match="larger than"):
            open_picture(Image.open(path))
    columns = {"tokens": List(Value("string")), "ner_tags": List(ClassLabel(names=LABELS)), "image": ImageColumn()}
    row = {"tokens": ["Anna"], "ner_tags": [1], "image": {"bytes": content, "path": None}}
    data = Dataset.from_list([row], features=Features(columns))
    assert "larger than" in next(iter(tagger(data)))["error"]
    trainer = MultimodalNerTrainer(
        tagger.model,
        MultimodalNerTrainingArguments(str(tmp_path), use_cpu=True, disable_tqdm=True),
        processing_class=tagger.processor,
        eval_dataset=data,
    )
    with pytest.raises(UnreadablePicture, match="larger than"):
        trainer.evaluate()


def test_devices_pipes_and_folders_are_no_pictures(tmp_path):
    os.mkfifo(tmp_path / "pipe")
    for source in ("/dev/zero", tmp_path / "pipe", tmp_path):
        with pytest.raises(UnreadablePicture, match="not a file"):
            open_picture(source)


# --------------------------------------------------------------------------------------------------------------- web


@pytest.fixture
def server(monkeypatch):
    """A server on this machine; `requests` are the paths that were asked for."""
    asked = []

    class Handler(http.server.BaseHTTPRequestHandler):
        def do_GET(self):
            asked.append(self.path)
            if self.path == "/away":
                self.send_response(302)
                self.send_header("Location", "http://169.254.169.254/latest/meta-data")
                self.end_headers()
            elif self.path == "/file":
                self.send_response(302)
                self.send_header("Location", "file:///etc/passwd")
                self.end_headers()
            elif self.path == "/slow_header":
                for _ in range(100):
                    self.wfile.write(b"H")
                    time.sleep(0.1)
            else:
                self.send_response(200)
                self.end_headers()
                for _ in range(100 if self.path == "/slow" else 40):
                    self.wfile.write(b"x" if self.path == "/slow" else bytes(1_000_000))
                    time.sleep(0.1 if self.path == "/slow" else 0)

        def log_message(self, *_):
            pass

    class Server(http.server.ThreadingHTTPServer):
        daemon_threads = True

        def handle_error(self, *_):
            pass

    running = Server(("127.0.0.1", 0), Handler)
    running.address = f"http://127.0.0.1:{running.server_port}"
    running.asked = asked
    threading.Thread(target=running.serve_forever, daemon=True).start()
    yield running
    running.shutdown()
    running.server_close()


def test_web_addresses_are_fetched_only_where_asked_for(server, tagger, tmp_path):
    post = {"text": "Anna meets Bob", "image": f"{server.address}/1.png"}
    assert "fetch_pictures=True" in tagger(post)["error"]
    tagger.save_pretrained(tmp_path / "model")
    (tmp_path / "posts.jsonl").write_text(json.dumps(post) + "\n")
    arguments = [str(tmp_path / "posts.jsonl"), "--model", str(tmp_path / "model")]
    assert main(["tag", *arguments, "--output", str(tmp_path / "out.jsonl")]) == 0
    assert "only fetched where that is asked for" in (tmp_path / "out.jsonl").read_text()
    assert main(["tag", *arguments, "--output", str(tmp_path / "asked.jsonl"), "--fetch_pictures", "true"]) == 0
    assert "no public address" in (tmp_path / "asked.jsonl").read_text()
    with pytest.raises(UnreadablePicture, match="a web address, not a file"):
        open_picture(post["image"])
    assert server.asked == []


@pytest.mark.parametrize(
    "host",
    ["127.0.0.1", "localhost", "127.1", "2130706433", "0x7f000001", "0", "[::1]", "[::ffff:127.0.0.1]", "10.1.2.3"]
    + ["192.168.0.1", "172.16.0.1", "169.254.169.254", "100.64.0.1", "[fe80::1]", "[fc00::1]", "[64:ff9b::7f00:1]"]
    + ["224.0.0.1", "255.255.255.255", "[2002:7f00:1::]"],
)
def test_private_networks_are_never_asked(host, monkeypatch):
    monkeypatch.setattr(socket, "create_connection", lambda *_, **__: pytest.fail("connected"))
    for scheme in ("http", "https"):
        with pytest.raises(UnreadablePicture, match="cannot be fetched"):
            fetch_picture(f"{scheme}://{host}:8080/1.png", seconds=2)


def test_addresses_are_checked_after_names_are_looked_up_and_these_are_used(monkeypatch):
    looked_up = []

    def two_faces(host, port, **_):  # public at first, then not, as a server of names may do
        looked_up.append(host)
        address = "93.184.216.34" if len(looked_up) == 1 else "127.0.0.1"
        return [(socket.AF_INET, socket.SOCK_STREAM, 6, "", (address, port))]

    connected = []
    monkeypatch.setattr(socket, "getaddrinfo", two_faces)

    def connect(place, timeout):
        connected.append(place)
        raise OSError("enough")

    monkeypatch.setattr(socket, "create_connection", connect)
    with pytest.raises(UnreadablePicture, match="enough"):
        fetch_picture("http://two.faces/1.png")
    assert connected == [("93.184.216.34", 80)]
    both = [(socket.AF_INET, 1, 6, "", (address, 80)) for address in ("93.184.216.34", "10.0.0.1")]
    monkeypatch.setattr(socket, "getaddrinfo", lambda *_, **__: both)
    with pytest.raises(UnreadablePicture, match="10.0.0.1, which is no public address"):
        fetch_picture("http://two.faces/1.png")
    assert is_public("93.184.216.34") and is_public("2606:4700::1111")


def test_redirects_size_and_time_are_limited(server, monkeypatch):
    def fetch(path: str, seconds: float) -> str:
        begin = time.monotonic()
        with pytest.raises(UnreadablePicture) as caught:
            fetch_picture(server.address + path, seconds)
        assert time.monotonic() - begin < seconds + 4
        return str(caught.value)

    known = is_public
    monkeypatch.setattr(web_pictures, "is_public", lambda address: address == "127.0.0.1" or known(address))
    assert "169.254.169.254, which is no public address" in fetch("/away", 5)
    assert "cannot be fetched" in fetch("/file", 5)
    assert "larger than 30,000,000 bytes" in fetch("/large", 30)
    assert "cannot be fetched" in fetch("/slow", 0.5)
    assert "cannot be fetched" in fetch("/slow_header", 0.5)
    for address in ("ftp://example.org/1.png", "http://", "http://[", "https://a b/", "http://x:99999/"):
        with pytest.raises(UnreadablePicture, match="cannot be fetched"):
            fetch_picture(address, 1)


# ------------------------------------------------------------------------------------------------------------ markup


CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
needs_browser = pytest.mark.skipif(CHROMIUM is None and "CI" not in os.environ, reason="chromium is not installed")
APP = ROOT / "demo" / "app.py"


def load_app():
    spec = importlib.util.spec_from_file_location("app", APP)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.fixture(scope="module")
def browser():
    from playwright.sync_api import sync_playwright

    with sync_playwright() as playwright:
        flags = ["--no-sandbox", "--disable-gpu", "--no-first-run", "--disable-background-networking"]
        browser = playwright.chromium.launch(executable_path=CHROMIUM, args=flags)
        yield browser
        browser.close()


@needs_browser
def test_markup_in_a_post_is_shown_and_not_run_in_an_explanation(browser, tmp_path):
    words = ["Anna", MARKUP, "\"'><svg onload=window.hacked=1>"]
    node = {"kind": "objects", "title": MARKUP, "box": [0, 0, 9, 9], "query": MARKUP, "phrase": {"start": 0, "end": 1}}
    link = {"node": 0, "weight": 0.5, "score_without": 0.1, "change": -0.1}
    entity = {"entity_group": MARKUP, "score": 0.5, "word": MARKUP, "start": 0, "end": 4, "words": (0, 2)}
    text = " ".join(words)
    explanation = Explanation(text, words, Image.new("RGB", (20, 20)), [node], [entity | {"nodes": [link]}])
    (tmp_path / "why.html").write_text(explanation.to_html(), encoding="utf-8")
    page = browser.new_page()
    asked = []
    page.on("request", lambda request: asked.append(request.url))
    page.goto(f"file://{tmp_path}/why.html")
    assert MARKUP.split(">")[0] in page.inner_text("body")
    assert page.evaluate("window.hacked === undefined")
    assert page.locator("#bold, script").count() == 0
    assert [url for url in asked if not url.startswith(("file:", "data:"))] == []
    page.close()
