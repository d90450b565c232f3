"""`flicker up` and its page: what it says first, who gets in, where the token is not, what the page's orders do."""

from __future__ import annotations

import json
import re
import signal
import socket
from importlib.util import find_spec
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import psutil
import pytest

from simulator.live.watch import Page, scrape
from tests.integration.system import until
from tests.integration.test_up import ENDS, PATIENCE, Up, running, status
from tests.small_runs import small_log

pytestmark = pytest.mark.skipif(
    find_spec("nicegui") is None, reason="the page needs nicegui: pip install 'flicker-recsys[page]'"
)
SLOW = ["--no-load", "--for", "3600", "--window", "2", "--batch", "64", "--refresh-events", "1024"]
"""A log of some thousand events that takes an hour: a generation in a quarter of one."""


def address_of(up: Up) -> str:
    """The page's, with its token: the first line that `up` says."""
    until(lambda: "\n" in up.said(), "it says something", PATIENCE)
    found = re.fullmatch(r"Page: (http://127\.0\.0\.1:\d+/\?token=[\w-]{32})", up.said().splitlines()[0])
    assert found, up.said()
    return found[1]


def order(up: Up, do: str, **more: object) -> Any:
    """Sent where the page sends its own."""
    (page,) = up.alive("page")
    path = page.cmdline()[page.cmdline().index("--controls") + 1]
    with socket.socket(socket.AF_UNIX) as connection:
        connection.settimeout(PATIENCE)
        connection.connect(path)
        connection.sendall(json.dumps({"do": do, **more}).encode() + b"\n")
        return json.loads(connection.makefile("rb").readline())


def trainer(up: Up) -> Page:
    """Its metrics page."""
    (about,) = (one for one in order(up, "state")["processes"] if one["name"] == "trainer")
    port = urlsplit(about["metrics"]).port
    assert port
    return scrape({"trainer": port})["trainer"]


def assert_secret(up: Up, token: str) -> None:
    """The token is in no command line, which everybody can read, and in no file of the results."""
    said = [word for process in psutil.process_iter(["cmdline"]) for word in process.info["cmdline"] or ()]
    assert "--controls" in said and not any(token in word for word in said)
    assert [str(file) for file in up.out.rglob("*") if file.is_file() and token.encode() in file.read_bytes()] == []


def test_the_page_comes_first_keeps_its_token_and_its_orders_are_obeyed(tmp_path: Path) -> None:
    log = small_log(tmp_path / "log", ratings=4_000)
    with running(tmp_path, "--page-port", "0", *SLOW, "--data", str(log)) as up:
        address = address_of(up)
        until(lambda: status(address, "/healthz") == 200, "the page is there", PATIENCE)
        assert (status(address), status(address, "/"), status(address, "/?token=x")) == (303, 403, 403)
        until(lambda: trainer(up).value("flicker_generation") == 1, "a first generation", PATIENCE)
        assert trainer(up).value("flicker_events_learned_total") == 1_024
        for generation in (2, 3):  # in an hour's pace there would be none for minutes
            assert order(up, "refresh")["ok"]
            until(lambda g=generation: trainer(up).value("flicker_generation") == g, "a refresh", PATIENCE)  # type: ignore[misc]
            assert trainer(up).value("flicker_events_learned_total") // 1_024 == generation
        (page,) = up.alive("page")
        page.kill()
        until(lambda: status(address) == 303, "it is started again, where it was", PATIENCE)
        assert order(up, "kill", name="replica-0")["ok"]
        assert_secret(up, address.partition("token=")[2])
        up.process.send_signal(signal.SIGINT)
        assert up.wait(ENDS) == 0, up.said()
        assert status(address, "/healthz") == 0


def test_a_port_that_is_taken_ends_it_with_a_line(tmp_path: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = str(taken.getsockname()[1])
        with running(tmp_path, "--page-port", port) as up:
            assert up.wait(30) == 2
            assert up.said() == f"flicker: page_port = {port}: Address already in use: name a free port, or 0 for any\n"
            assert not up.out.exists()
