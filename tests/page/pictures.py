"""`make pictures`: docs/page.png from a system that runs, docs/report.png from a run, both in a real browser.

A log with titles shows more: ARGS="--data movietweetings-100k". Takes four minutes.
"""

from __future__ import annotations

import argparse
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from playwright.sync_api import Browser, Page, sync_playwright

from tests.page.conftest import CHROMIUM, FLAGS

ROOT = Path(__file__).parents[2]
DOCS = ROOT / "docs"
FLICKER = [sys.executable, "-m", "simulator"]
LEARNING = 120.0
"""Seconds that the system learns before it is looked at."""


def opened(browser: Browser, address: str, width: int, height: int) -> Page:
    """A page in the light."""
    page = browser.new_context(viewport={"width": width, "height": height}, color_scheme="light").new_page()
    page.goto(address)
    return page


def playground(browser: Browser, log: list[str], folder: Path) -> None:
    """Two duplicates' answers to one query, from `flicker up`."""
    command, said = [*FLICKER, "up", *log, "--rate", "30", "--for", "240", "--out", str(folder / "up")], folder / "said"
    with open(said, "wb") as to:
        up = subprocess.Popen(command, stdout=to)
    try:
        time.sleep(LEARNING)
        page = opened(browser, said.read_text().partition("Page: ")[2].split()[0], 980, 745)
        page.get_by_role("tab", name="Playground", exact=True).click()
        page.get_by_text("places differ").first.wait_for(timeout=60_000)
        page.mouse.move(0, 0)
        page.wait_for_timeout(1_000)  # until nothing moves
        page.screenshot(path=DOCS / "page.png")
    finally:
        up.terminate()
        up.wait()


def report(browser: Browser, log: list[str], folder: Path) -> None:
    """The page that `flicker run` leaves, as docs/science.md names it."""
    arms = ["--arms", "relu", "smelu:beta=0.25", "relu:norm=after", "--fleets", "3"]
    subprocess.run([*FLICKER, "run", *log, *arms, "--out", str(folder / "run")], check=True, stdout=subprocess.DEVNULL)
    opened(browser, (folder / "run" / "report.html").as_uri(), 1500, 1850).screenshot(path=DOCS / "report.png")


def main() -> None:
    """Both, or the one that --only names."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--data", help="a log, as of flicker run")
    parser.add_argument("--only", choices=["page", "report"])
    flags = parser.parse_args()
    log = ["--data", flags.data] if flags.data else []
    with tempfile.TemporaryDirectory() as folder, sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=CHROMIUM, args=FLAGS)
        for name, draw in (("page", playground), ("report", report)):
            if flags.only in (None, name):
                draw(browser, log, Path(folder))
        browser.close()


if __name__ == "__main__":
    main()
