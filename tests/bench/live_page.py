"""The live page's process beside `flicker up`: CPU while nobody looks and while three browsers do, and its memory."""

from __future__ import annotations

import re
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from tempfile import TemporaryDirectory

import psutil
from figures import Figure, single
from sizes import Size

ROOT = Path(__file__).parents[2]
PATIENCE = 90.0
"""Seconds for traffic to begin."""
VIEWERS = 3
SLICES = 3
"""Spans of time that each case is measured in, one after another."""
SETTLE = 5.0
"""Seconds after viewers came or went before anything is measured."""


def measure(size: Size) -> list[Figure]:
    """Of a page that shows a system under its default load; nothing without a browser."""
    chromium = shutil.which("chromium")
    if not size.page_seconds or chromium is None:
        return []
    with TemporaryDirectory() as folder:
        out, said = Path(folder) / "up", Path(folder) / "said"
        command = [sys.executable, "-m", "simulator", "up", "--for", "900", "--out", str(out)]
        with said.open("wb") as output:
            running = subprocess.Popen(command, cwd=ROOT, stdout=output, stderr=output)
        try:
            _wait(lambda: (out / "load.log").exists(), f"no traffic within {PATIENCE:.0f} s")
            found = re.match(r"Page: (\S+)", said.read_text())
            assert found, said.read_text()
            return _measure(_page(running.pid), found[1], chromium, size.page_seconds)
        finally:
            running.send_signal(signal.SIGTERM)
            running.wait(30)


def _measure(page: psutil.Process, address: str, chromium: str, seconds: float) -> list[Figure]:
    from playwright.sync_api import sync_playwright

    flags = ["--headless", "--no-sandbox", "--disable-gpu", "--disable-background-networking"]
    nobody = _shares(page, seconds)
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=chromium, args=flags)
        for _ in range(VIEWERS):
            viewer = browser.new_context().new_page()
            viewer.set_default_timeout(1_000 * PATIENCE)
            viewer.goto(address)
            viewer.get_by_role("img", name="Why results change").wait_for()
        several = _shares(page, seconds)
        memory = page.memory_info().rss / 1e6
        browser.close()
    return [
        single("the live page, nobody looks", "% of a core", nobody, "cpu"),
        single(f"the live page, {VIEWERS} browsers look", "% of a core", several, "cpu"),
        single("the live page in memory", "MB", [memory]),
    ]


def _shares(page: psutil.Process, seconds: float) -> list[float]:
    """Percent of a core that a process takes, in each of SLICES spans."""
    time.sleep(SETTLE)
    shares = []
    for _ in range(SLICES):
        before, begun = sum(page.cpu_times()[:2]), time.monotonic()
        time.sleep(seconds)
        shares.append(100 * (sum(page.cpu_times()[:2]) - before) / (time.monotonic() - begun))
    return shares


def _page(up: int) -> psutil.Process:
    """The page's process."""
    return next(child for child in psutil.Process(up).children() if child.cmdline()[1:3] == ["-m", "page"])


def _wait(holds: Callable[[], bool], complaint: str) -> None:
    end = time.monotonic() + PATIENCE
    while not holds():
        assert time.monotonic() < end, complaint
        time.sleep(0.5)
