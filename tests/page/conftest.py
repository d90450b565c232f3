"""A real browser for the tests of the page, and what it noticed."""

from __future__ import annotations

import shutil
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from urllib.parse import urlsplit

import pytest
from axe_playwright_python.sync_playwright import Axe
from playwright.sync_api import Browser, BrowserContext, Page, expect, sync_playwright

CHROMIUM = shutil.which("chromium") or ""
FLAGS = ["--headless", "--no-sandbox", "--disable-gpu", "--disable-background-networking"]
PATIENCE = 40.0
"""Seconds to wait for what a page is to show, on a busy machine."""
expect.set_options(timeout=1_000 * PATIENCE)
PHONE, DESK = (390, 844), (1280, 900)
"""Width and height in pixels."""


@dataclass
class Tab:
    """One page in a browser of its own profile: nothing is shared with other tabs."""

    page: Page
    context: BrowserContext
    errors: list[str] = field(default_factory=list)
    """What the console called an error, and what scripts threw."""
    asked: set[str] = field(default_factory=set)
    """Hosts, with ports, that anything was requested from."""

    def watch(self) -> None:
        """Take note from now on."""
        self.page.set_default_timeout(1_000 * PATIENCE)
        self.page.on("console", lambda said: self.errors.append(said.text) if said.type == "error" else None)
        self.page.on("pageerror", lambda thrown: self.errors.append(str(thrown)))
        self.page.on("request", lambda request: self._note(request.url))
        self.page.on("websocket", lambda opened: self._note(opened.url))

    def _note(self, url: str) -> None:
        if urlsplit(url).scheme in ("http", "https", "ws", "wss"):
            self.asked.add(urlsplit(url).netloc)

    def complaints(self) -> list[str]:
        """What axe finds that is serious or critical in what is shown now: rule and place."""
        found = Axe().run(self.page).response["violations"]
        bad = [rule for rule in found if rule["impact"] in ("serious", "critical")]
        return [f"{rule['id']}: {node['html'][:200]}" for rule in bad for node in rule["nodes"]]


@pytest.fixture(scope="session")
def browser() -> Iterator[Browser]:
    """Debian's Chromium; tests skip where there is none."""
    if not CHROMIUM:
        pytest.skip("no chromium on PATH: install Debian's package of that name")
    with sync_playwright() as playwright:
        started = playwright.chromium.launch(executable_path=CHROMIUM, args=FLAGS)
        yield started
        started.close()


Open = Callable[..., Tab]


@pytest.fixture
def tab(browser: Browser) -> Iterator[Open]:
    """Opens tabs, which are closed when the test has ended: `tab(url, size=PHONE, dark=True)`."""
    opened: list[BrowserContext] = []

    def open_tab(url: str, size: tuple[int, int] = DESK, dark: bool = False) -> Tab:
        scheme = "dark" if dark else "light"
        view = {"width": size[0], "height": size[1]}
        # certificates of tests are checked by clients that can be told an authority
        context = browser.new_context(viewport=view, color_scheme=scheme, ignore_https_errors=True)
        opened.append(context)
        one = Tab(context.new_page(), context)
        one.watch()
        one.page.goto(url)
        return one

    yield open_tab
    for context in opened:
        context.close()
