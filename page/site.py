"""The page: a heading that says what is running, the tabs, and the one source that feeds all who have it open."""

from __future__ import annotations

import time
from collections.abc import Awaitable, Callable
from pathlib import Path

from markupsafe import Markup
from nicegui import app, run, ui

from page.asking import RouterClient
from page.controls import ControlPanel
from page.flags import PageFlags
from page.now import Now, ago
from page.parts import Html
from page.playground import Playground
from page.results import Results, SettingGroup
from page.runs import Runs
from page.source import LiveSource
from page.what_if import WhatIf
from simulator.report.kit import style

Show = Callable[[], Awaitable[None] | None]
"""Brings a tab up to date."""
TICK = 0.5
"""Seconds between two updates of a viewer."""


def build(flags: PageFlags) -> None:
    """Declare the page; each browser that opens it gets its own."""
    credentials = flags.security.credentials()
    router = RouterClient(flags.router, credentials) if flags.router else None
    source, results = LiveSource(router, flags.metrics, credentials), Results(flags.runs)
    css = style("roles", "kit") + Path(__file__).with_name("style.css").read_text(encoding="utf-8")
    if flags.router or flags.metrics:
        app.on_startup(source.start)
        app.on_shutdown(source.stop)

    @ui.page("/")
    def home() -> None:
        ui.add_css(css)
        viewer = ui.context.client
        viewer.on_connect(lambda: source.add_viewer(viewer.id))
        viewer.on_disconnect(lambda: source.remove_viewer(viewer.id))
        Home(flags, source, results)


class Home:
    """The page of one viewer."""

    def __init__(self, flags: PageFlags, source: LiveSource, results: Results) -> None:
        self._flags, self._source, self._results = flags, source, results
        self._viewer = ui.context.client
        self._is_live = bool(flags.router or flags.metrics)
        self._groups: list[SettingGroup] | None = None
        """Finished results, once they are read."""
        makers = self._makers()
        with ui.element("header"):
            ui.html("<h1>Flicker</h1>", sanitize=False)
            self._status = Html("status")
        with ui.tabs().props("align=left no-caps") as self._tabs:
            for name in makers:
                ui.tab(name)
        self._show_tab: dict[str, Show] = {}
        first_tab = next(iter(makers))
        with ui.tab_panels(self._tabs, value=first_tab, animated=False, on_change=self._tick).props("keep-alive"):
            for name, make in makers.items():
                with ui.tab_panel(name):
                    self._show_tab[name] = make()
        ui.timer(TICK, self._tick)

    def _makers(self) -> dict[str, Callable[[], Show]]:
        """Name of each tab -> what makes it, and returns what shows the newest in it."""
        router = self._source.router
        makers: dict[str, Callable[[], Show]] = {"Now": self._now} if self._is_live else {}
        if router is not None:
            makers["Playground"] = lambda: Playground(self._source, router).show
        finished = {"Runs": lambda: Runs(self._results).show} if self._flags.runs else {}
        what_if = {"What if": self._what_if}
        return makers | what_if | finished if self._is_live else finished | what_if

    def _now(self) -> Show:
        tab, controls = Now(self._source), ControlPanel(self._flags.controls) if self._flags.controls else None

        async def show() -> None:
            tab.show()
            if controls is not None:
                await controls.show()

        return show

    def _what_if(self) -> Show:
        tab = WhatIf(self._source)

        async def show() -> None:
            if self._groups is None:
                self._groups = await run.io_bound(self._results.groups, True) or []
                tab.offer(self._groups)
            tab.show()

        return show

    async def _tick(self) -> None:
        """Update the tab that is open, of a viewer that is connected."""
        if not self._viewer.has_socket_connection:
            return
        self._status.show(self._running())
        if (pending := self._show_tab[self._tabs.value]()) is not None:
            await pending

    def _running(self) -> Markup:
        source = self._source
        if not self._is_live:
            return Markup("<p>finished results</p>")
        if source.looks == 0:
            return Markup("<p>Looking ...</p>")
        silence = time.time() - source.heard
        if silence > 3:
            age = f" for {ago(source.heard)}" if source.heard else ""
            return Markup('<p class="away" role="alert">Nobody answers{}: what is shown is old.</p>').format(age)
        return Markup("<p>running, router {}</p>").format(self._flags.router or "not asked")
