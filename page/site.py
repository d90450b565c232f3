"""The page: a heading, four tabs, and what each of them shows."""

from __future__ import annotations

from typing import TYPE_CHECKING

from nicegui import ui

if TYPE_CHECKING:
    from page.main import PageFlags


def build(flags: PageFlags) -> None:
    """Declare the page; each browser that opens it gets its own."""
    names = ("Now", "Playground", "What if", "Runs") if flags.router else ("Runs",)

    @ui.page("/")
    def home() -> None:
        with ui.tabs() as tabs:
            for name in names:
                ui.tab(name)
        with ui.tab_panels(tabs, value=names[0]):
            for name in names:
                with ui.tab_panel(name):
                    ui.label(name)
