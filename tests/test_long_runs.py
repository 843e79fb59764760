"""Long runs stay as large as they were: training, the pipeline, and the page with several visitors at once."""

import itertools
import json
import os
import subprocess
import sys
import threading
import time
import urllib.error
import urllib.request
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
from long_runs import growth, size_of
from parallel_runs import free_port
from test_demo import APP, POST
from test_demo import folders as folders  # a model that has learnt two posts

from benchmarks.record import write_reliability

TESTS = Path(__file__).parent
BYTES_A_STEP = 2000
BYTES_A_CALL = 100
BYTES_A_REQUEST = 20_000
"""A leak of one picture, one batch or one file handle's buffer would be more."""


def run_long(what: str, count: int) -> tuple[dict, float]:
    begin = time.perf_counter()
    environment = os.environ | {"OMP_NUM_THREADS": "1", "HF_HUB_OFFLINE": "1"}
    command = [sys.executable, str(TESTS / "long_runs.py"), what, str(count)]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=7200)
    assert done.returncode == 0, done.stderr[-3000:]
    return json.loads(done.stdout.splitlines()[-1]), time.perf_counter() - begin


def store(name: str, tried: str, cases: int, lost: int, seconds: float, grown: dict, each: str, **measured) -> None:
    measured |= {
        f"bytes of memory that {each} adds (straight line through the second half)": round(grown["bytes"], 1),
        "megabytes at the end": round(grown["megabytes"]),
        "file handles that came": grown["handles"],
        "threads that came": grown["threads"],
    }
    write_reliability(name, tried, cases=cases, lost=lost, seconds=seconds, measured=measured, packages=("gradio",))


def test_growth_is_the_slope_of_a_straight_line_after_warming_up():
    samples = [[i, 1_000_000 + 300 * i + (5_000_000 if i < 40 else 0), 7 + i // 90, 3] for i in range(100)]
    grown = growth(samples)
    assert grown["bytes"] == pytest.approx(300)
    assert (grown["handles"], grown["threads"]) == (1, 0)
    assert size_of()[0] > 10_000_000


@pytest.mark.soak
def test_two_thousand_training_steps_keep_nothing():
    found, seconds = run_long("training", 2000)
    grown = growth(found["samples"])
    tried = "2,000 training steps with pictures, 20 evaluations and checkpoints among them"
    kept = grown["bytes"] > BYTES_A_STEP or grown["handles"] > 0 or grown["threads"] > 0
    store("long_training", tried, 2000, int(kept), seconds, grown, "a step")
    assert not kept, grown


@pytest.mark.soak
def test_fifty_thousand_pipeline_calls_keep_nothing():
    found, seconds = run_long("pipeline", 50_000)
    grown = growth(found["samples"])
    tried = "50,000 calls of the pipeline with posts of eight kinds, broken and absent pictures among them"
    kept = grown["bytes"] > BYTES_A_CALL or grown["handles"] > 0 or grown["threads"] > 0
    store("long_pipeline", tried, 50_000, int(kept) + (not found["same"]), seconds, grown, "a call")
    assert not kept, grown
    assert found["same"], "the last calls gave something else than the first"


# -------------------------------------------------------------------------------------------------------- the page


class Visitor:
    """Sends requests to the page, good and bad, and says which were answered wrongly.

    Args:
        address: of the page.
        folder: with picture.png, and text.png, which is none.
        expected: what the page answers to a good post, with its picture and without.
    """

    def __init__(self, address: str, folder: Path, expected: dict[bool, str]):
        from gradio_client import Client, handle_file

        self.address = address
        self.client = Client(address, verbose=False)
        self.files = {name: handle_file(str(folder / name)) for name in ("picture.png", "text.png")}
        self.expected = expected

    def names(self, text: str, picture: str | None, boxes: str = "") -> str:
        """The marked text that the page shows, or what it says instead."""
        file = self.files[picture] if picture else None
        answer = self.client.predict(text, file, boxes, False, api_name="/tag")
        return json.dumps([answer[0], answer[1]])

    def good(self, picture: bool) -> bool:
        return self.names(POST, "picture.png" if picture else None) == self.expected[picture]

    def says(self, words: str, *arguments) -> bool:
        return words in self.names(*arguments)

    def no_picture(self) -> bool:
        try:
            self.names(POST, "text.png")
        except Exception:  # the page refuses the file before any of our code
            return True
        return False

    def refused(self, path: str, body: bytes | None) -> bool:
        """Whether a request that no browser sends has an answer that says so, and no part of a file."""
        request = urllib.request.Request(self.address + path, body, {"Content-Type": "application/json"})
        try:
            with urllib.request.urlopen(request, timeout=60) as answer:
                said = answer.read()
        except urllib.error.HTTPError as error:
            return 400 <= error.code < 600
        return b"root:" not in said

    def request(self, number: int) -> bool:
        """Make one request; returns whether it had the right answer."""
        kinds = [
            lambda: self.good(picture=False),
            lambda: self.good(picture=True),
            lambda: self.says("Type or paste a post first", "   ", None),
            lambda: self.good(picture=False),
            lambda: self.says("not JSON of the form", POST, "picture.png", "[1"),
            lambda: self.good(picture=True),
            lambda: self.refused("gradio_api/call/tag", b'{"data": ["Anna"'),
            lambda: self.good(picture=False),
            lambda: self.refused("gradio_api/file=/etc/passwd", None),
            self.no_picture,
        ]
        return kinds[number % len(kinds)]()


def visit(folders, folder: Path, requests: int, visitors: int) -> tuple[int, list, float]:
    """Let visitors make requests at once; returns how many were answered wrongly, and samples of the page's size."""
    model, _, picture = folders
    (folder / "picture.png").write_bytes(picture.read_bytes())
    (folder / "text.png").write_text("no picture")
    port = free_port()
    address = f"http://127.0.0.1:{port}/"
    environment = os.environ | {"OMP_NUM_THREADS": "1", "HF_HOME": str(folder / "home")}
    command = [sys.executable, str(APP), str(model), "--port", str(port)]
    begin = time.perf_counter()
    with open(folder / "printed", "wb") as printed:
        server = subprocess.Popen(command, env=environment, stdout=printed, stderr=printed)
    try:
        wait_for_page(address, server)
        first = Visitor(address, folder, {})
        expected = {with_picture: first.names(POST, "picture.png" if with_picture else None) for with_picture in (0, 1)}
        assert "Anna" in expected[0] and expected[0] != expected[1]
        everyone = [Visitor(address, folder, expected) for _ in range(visitors)]
        samples = []
        lock = threading.Lock()
        numbers = itertools.count()

        def come(visitor: Visitor) -> int:
            wrong = 0
            while (number := next(numbers)) < requests:
                wrong += not visitor.request(number)
                if number % max(1, requests // 100) == 0:
                    with lock:
                        samples.append([number, *size_of(server.pid)])
            return wrong

        with ThreadPoolExecutor(visitors) as threads:
            wrong = sum(threads.map(come, everyone))
        assert server.poll() is None, "the page has ended"
        assert first.names(POST, None) == expected[0]
        return wrong, sorted(samples), time.perf_counter() - begin
    finally:
        server.terminate()
        server.wait(10)


def wait_for_page(address: str, server: subprocess.Popen) -> None:
    end = time.monotonic() + 120
    while time.monotonic() < end and server.poll() is None:
        try:
            urllib.request.urlopen(address).read()
            return
        except OSError:
            time.sleep(0.2)
    raise TimeoutError("there is no page")


def test_the_page_answers_several_visitors_at_once_good_and_bad(folders, tmp_path):
    wrong, samples, _ = visit(folders, tmp_path, 20, visitors=3)
    assert wrong == 0
    assert len(samples) == 20


@pytest.mark.soak
def test_the_page_outlives_a_thousand_requests_of_several_visitors(folders, tmp_path):
    wrong, samples, seconds = visit(folders, tmp_path, 1000, visitors=8)
    grown = growth(samples)
    store(
        "long_page",
        "1,000 requests of eight visitors at once to the page, five of ten bad (no words, boxes that are no JSON, a "
        "picture that is none, half a request, a file of the system); afterwards it answers as before",
        1000,
        wrong,
        seconds,
        grown,
        "a request",
    )
    assert wrong == 0
    assert grown["bytes"] < BYTES_A_REQUEST, grown
