"""Take the picture of the page in the docs, demo.png, again; needs chromium.

python docs/figures/screenshot.py runs/contrast_tweets data/contrast_tweets 0
"""

import argparse
import shutil
import subprocess
import sys
import time
import urllib.request
from pathlib import Path

from playwright.sync_api import sync_playwright

DOCS = Path(__file__).resolve().parents[1]
ADDRESS = "http://127.0.0.1:7899/"
FLAGS = ["--no-sandbox", "--disable-gpu", "--disable-background-networking", "--disable-component-update"]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("model", help="folder of a trained model")
    parser.add_argument("examples", help="folder of the dataset whose posts are offered")
    parser.add_argument("example", type=int, help="number of the example to show")
    arguments = parser.parse_args()
    take_screenshot(arguments.model, arguments.examples, arguments.example)


def take_screenshot(model: str, examples: str, example: int) -> None:
    app = [sys.executable, str(DOCS.parent / "demo" / "app.py"), model, "--examples", examples, "--port", "7899"]
    server = subprocess.Popen(app)
    try:
        while True:
            try:
                urllib.request.urlopen(ADDRESS)
                break
            except OSError:
                if server.poll() is not None:
                    sys.exit("the page did not start")
                time.sleep(0.5)
        with sync_playwright() as playwright:
            browser = playwright.chromium.launch(executable_path=shutil.which("chromium"), args=FLAGS)
            page = browser.new_page(viewport={"width": 1180, "height": 800})
            page.goto(ADDRESS)
            page.locator("#examples tbody tr").nth(example).click()
            page.locator("#names .token.highlighted").first.wait_for()
            page.get_by_label("What if there were no picture?").check()
            page.locator("#names-without-picture .token.highlighted").first.wait_for()
            page.locator("#objects img.mask").last.wait_for()
            page.wait_for_timeout(1500)  # until the pictures are painted
            page.evaluate("window.scrollTo(0, 0)")
            box = page.locator("#examples").bounding_box()
            page.screenshot(
                path=DOCS / "demo.png", full_page=True, clip={"x": 0, "y": 0, "width": 1180, "height": box["y"]}
            )
            browser.close()
    finally:
        server.terminate()


if __name__ == "__main__":
    main()
