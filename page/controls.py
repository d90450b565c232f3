"""The buttons that `flicker up` obeys: they exist where it gave this page its socket, and nowhere else."""

from __future__ import annotations

import json
import socket
import time
from functools import partial
from pathlib import Path
from typing import Any

from markupsafe import Markup
from nicegui import run, ui

from page.parts import Html, TextInput, button
from simulator.errors import FlickerError

ORDER_TIMEOUT = 40.0
"""Seconds for an order: an experiment has checked its settings by then."""
STATE_INTERVAL = 2.0
"""Seconds between two requests for the state."""
MAX_ANSWER_BYTES = 1 << 20
"""Bytes of an answer at most."""


def send(path: Path, order: dict[str, Any]) -> dict[str, Any]:
    """The answer to one order. Raises FlickerError where there is none."""
    try:
        with socket.socket(socket.AF_UNIX) as line:
            line.settimeout(ORDER_TIMEOUT)
            line.connect(str(path))
            line.sendall(json.dumps(order).encode() + b"\n")
            with line.makefile("rb") as answers:
                answer = json.loads(answers.readline(MAX_ANSWER_BYTES))
    except (OSError, ValueError) as problem:
        raise FlickerError(f"flicker up does not answer: {problem}") from None
    if not isinstance(answer, dict):
        raise FlickerError("flicker up does not answer: its answer is no JSON object")
    return answer


class ControlPanel:
    """One viewer's buttons."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._asked_at = 0.0
        """When the state was last asked for, on the monotonic clock."""
        self._names: list[str] = []
        ui.html("<h2>Controls</h2>", sanitize=False)
        self._message = Html(role="status")
        with ui.element("div").classes("fields") as self._rate_row:
            self._rate = TextInput("Queries per second that users offer", "", self._set_rate, (1, 5_000))
        with ui.element("div").classes("fields"):
            self._refresh = button("Refresh now", self._force_refresh, "The next generation's events come at once")
            self._kills = ui.element("div").classes("fields").style("margin:0")
        with ui.element("div").classes("fields") as self._experiment_row:
            self._events = TextInput(
                "Events of a short experiment", "20000", lambda _: None, (5_000, 1_000_000), step="1000"
            )
            self._arms = TextInput(
                "Its arms, spaces between", "", lambda _: None, placeholder="those that run here", size="30"
            )
            button(
                "Start the experiment", self._experiment, "flicker run on so much of the current log; see Runs for it"
            )
        self._running = Html()

    async def show(self) -> None:
        """Show the controls that `flicker up` allows now."""
        now = time.monotonic()
        if now - self._asked_at < STATE_INTERVAL:
            return
        self._asked_at = now
        state = await self._order({"do": "state"}, is_shown=False)
        if state is None:
            return
        allowed = state.get("can", [])
        self._rate_row.set_visibility("rate" in allowed)
        self._refresh.set_visibility("refresh" in allowed)
        self._experiment_row.set_visibility("experiment" in allowed)
        if not self._rate.value and state.get("rate"):
            self._rate.set(f"{state['rate']:g}")
        names = [each["name"] for each in state.get("processes", []) if "kill" in allowed and each["name"] != "load"]
        if names != self._names:
            self._names = names
            self._kills.clear()
            with self._kills:
                for name in names:
                    button(f"Kill {name}", partial(self._kill, name), "SIGKILL; it is started again at once")
        experiments = [
            f"{experiment['name']} {'runs' if experiment['running'] else 'has ended'}"
            for experiment in state.get("experiments", [])
        ]
        self._running.show(Markup("<p class=note>{}</p>").format("; ".join(experiments)) if experiments else Markup(""))

    async def _order(self, order: dict[str, Any], is_shown: bool = True) -> dict[str, Any] | None:
        """Give an order, and show its outcome."""
        try:
            answer = await run.io_bound(send, self._path, order)
        except FlickerError as problem:
            answer = {"ok": False, "say": str(problem)}
        if answer is not None and (is_shown or answer.get("ok") is False):
            kind = "" if answer.get("ok") else "refused"
            self._message.show(Markup('<p class="{}">{}</p>').format(kind, answer.get("say", "")))
        return answer if answer is not None and answer.get("ok", True) else None

    async def _set_rate(self, rate: str) -> None:
        try:
            await self._order({"do": "rate", "queries": float(rate)})
        except ValueError:
            self._message.show(Markup('<p class="refused">{}</p>').format("queries per second: a number"))

    async def _kill(self, name: str) -> None:
        await self._order({"do": "kill", "name": name})

    async def _force_refresh(self) -> None:
        await self._order({"do": "refresh"})

    async def _experiment(self) -> None:
        arms = self._arms.value.split()
        await self._order({"do": "experiment", "events": self._events.number()} | ({"arms": arms} if arms else {}))
