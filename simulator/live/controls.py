"""What the live page may do to `flicker up`: kill, change the load's rate, force a refresh, start an experiment.

Orders come over a Unix socket in a folder that this user alone may enter, as one JSON object per line, each answered
by one: {"do": "rate", "queries": 100} by {"ok": true, "say": "..."}, or {"ok": false, "say": why not, in a line}.

    {"do": "state"}                                      {"processes": [{"name", "pid", "address", "metrics", "alive"}],
                                                         "rate", "can", "experiments": [{"name", "running"}]}
    {"do": "kill", "name": "replica-1"}                  SIGKILL; it is started again within a second or two
    {"do": "rate", "queries": 100}                       queries per second that users offer from now on
    {"do": "refresh"}                                    the next generation's events come at once
    {"do": "experiment", "events": 20000, "arms": [...]} `flicker run` on so much of the log; both may be left out

This file imports no more of this project than its errors: the page imports it too.
"""

from __future__ import annotations

import contextlib
import json
import logging
import shutil
import socketserver
import tempfile
import threading
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from simulator.errors import FlickerError, SettingError

log = logging.getLogger("controls")

TOKEN = "FLICKER_PAGE_TOKEN"
"""The environment variable with the page's token: a command line would show it to everybody on this machine."""
MAX_ORDER_BYTES = 65_536
"""Bytes of an order at most."""
Order = dict[str, Any]
Orders = Mapping[str, Callable[[Order], dict[str, Any]]]
"""`do` -> what does it and answers. FlickerError says why not."""


class Controls(socketserver.ThreadingUnixStreamServer):
    """Listens until it is closed, each connection in a thread of its own."""

    daemon_threads = True
    block_on_close = False

    def __init__(self, orders: Orders) -> None:
        """Raises SettingError where no socket can be had."""
        self.orders = orders
        self._folder = Path(tempfile.mkdtemp(prefix="flicker-"))  # mode 700
        self.path = self._folder / "controls"
        try:
            super().__init__(str(self.path), _Connection)
        except OSError as problem:
            shutil.rmtree(self._folder, ignore_errors=True)
            raise SettingError("TMPDIR", self._folder.parent, f"no socket can be had there: {problem}") from None
        threading.Thread(target=self.serve_forever, args=(0.1,), name="controls", daemon=True).start()

    def close(self) -> None:
        """Take no more orders, and leave nothing behind."""
        self.shutdown()
        self.server_close()
        shutil.rmtree(self._folder, ignore_errors=True)


class _Connection(socketserver.StreamRequestHandler):
    """Orders of one client, one after another."""

    server: Controls

    def handle(self) -> None:
        """Until the client leaves, or sends a line that is too long to go on behind."""
        with contextlib.suppress(OSError):  # it has gone before its answer
            while (line := self.rfile.readline(MAX_ORDER_BYTES)).endswith(b"\n"):
                self.wfile.write(json.dumps(obey(self.server.orders, line)).encode() + b"\n")


def obey(orders: Orders, line: bytes) -> dict[str, Any]:
    """The answer to one order."""
    try:
        order = json.loads(line)
        if not isinstance(order, dict) or not isinstance(order.get("do"), str):
            raise FlickerError('order = not an object with "do": send {"do": "state"}')
        if order["do"] not in orders:
            raise SettingError("do", order["do"], f"one of {', '.join(orders)}")
        return orders[order["do"]](order)
    except (json.JSONDecodeError, UnicodeDecodeError, RecursionError):
        return refused("order = not JSON: one object per line")
    except FlickerError as problem:
        return refused(" ".join(str(problem).split()))
    except Exception:  # a bug of ours, which must not end what is controlled
        log.exception("order %r", line[:200])
        return refused("it did not work: the log of `flicker up` says why")


def done(message: str) -> dict[str, Any]:
    """The answer where an order is carried out."""
    return {"ok": True, "say": message}


def refused(message: str) -> dict[str, Any]:
    """The answer where an order is refused, with the reason."""
    return {"ok": False, "say": message}


def number_of(order: Order, name: str, low: float, high: float, unit: str) -> float:
    """A number of an order, from low to high. Raises SettingError."""
    value = order.get(name)
    if isinstance(value, bool) or not isinstance(value, (int, float)) or not low <= value <= high:  # nor NaN
        raise SettingError(name, str(value)[:40], f"from {low:,.9g} to {high:,.9g} {unit}")
    return float(value)
