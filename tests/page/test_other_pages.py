"""What pages of others can do to this one, in a real browser that has opened the printed address: nothing."""

from __future__ import annotations

import http.server
import os
import subprocess
import sys
import threading
from collections.abc import Iterator
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import pytest
from playwright.sync_api import Browser

from simulator.live.controls import TOKEN
from tests.integration.system import until
from tests.page.conftest import CHROMIUM, FLAGS, Open

ROOT = Path(__file__).parents[2]
SECRET = "a-token-of-a-test-1234"
REBOUND = "rebound.example"
"""A name that the browser is made to resolve to this machine."""
TRIES = """async ([page, socket]) => {
    const asked = async (how) => {
        try {
            const answer = await fetch(page, {credentials: 'include', ...how})
            return [answer.status, await answer.text()]
        } catch (problem) {
            return ['refused', '']
        }
    }
    const opened = await new Promise(done => {
        const line = new WebSocket(socket)
        line.onopen = () => done('opened')
        line.onerror = () => done('refused')
    })
    const frame = document.createElement('iframe')
    frame.src = page
    await new Promise(done => { frame.onload = done; frame.onerror = done; document.body.append(frame) })
    let inside = null
    try { inside = frame.contentDocument && frame.contentDocument.body.innerText } catch (problem) { inside = null }
    return {got: await asked({}), sent: await asked({method: 'POST', body: '{}'}), opened, inside}
}"""


@dataclass
class Served:
    """A page that asks for its token."""

    port: int

    @property
    def host(self) -> str:
        return f"127.0.0.1:{self.port}"

    @property
    def printed(self) -> str:
        """As `flicker up` prints it."""
        return f"http://{self.host}/?token={SECRET}"

    def tries(self, host: str) -> list[str]:
        """What a script is to reach, by a host's name: the page, and the WebSocket through which all buttons go."""
        return [f"http://{host}/", f"ws://{host}/_nicegui_ws/socket.io/?EIO=4&transport=websocket"]


@pytest.fixture(scope="module")
def served(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Served]:
    """The real page, of results alone."""
    folder = tmp_path_factory.mktemp("served")
    log = folder / "page.log"
    with log.open("wb") as output:
        process = subprocess.Popen(
            [sys.executable, "-m", "page", "--runs", str(folder)],
            cwd=ROOT,
            env=os.environ | {TOKEN: SECRET},
            stdout=output,
            stderr=output,
        )
    try:
        until(lambda: "Page: http://" in log.read_text(), "it listens")
        yield Served(int(log.read_text().partition("Page: http://127.0.0.1:")[2].partition("/")[0]))
    finally:
        process.terminate()
        assert process.wait(10) == 0, log.read_text()


class Quiet(http.server.SimpleHTTPRequestHandler):
    """Says nothing."""

    def log_message(self, *_: object) -> None:
        pass


@pytest.fixture
def other(tmp_path: Path) -> Iterator[str]:
    """The address of another page on this machine: of the same site, so that cookies are sent, of another origin."""
    (tmp_path / "index.html").write_text("<!doctype html><title>Another page</title><p>Hello")
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), partial(Quiet, directory=str(tmp_path))) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield f"http://127.0.0.1:{server.server_port}/"
        server.shutdown()


def test_its_own_page_may_do_all_of_it(served: Served, tab: Open) -> None:
    """So that the refusals below are refusals."""
    one = tab(served.printed)
    found = one.page.evaluate(TRIES, served.tries(served.host))
    assert found["got"][0] == 200 and "Flicker" in found["got"][1] and found["sent"][0] == 405
    assert found["opened"] == "opened" and not found["inside"], "no page may show it in a frame, not even its own"


def test_a_page_of_another_origin_gets_nothing(served: Served, tab: Open, other: str) -> None:
    one = tab(served.printed)
    assert [cookie["name"] for cookie in one.context.cookies()] == [f"flicker_page_{served.port}"]
    one.page.goto(other)
    found = one.page.evaluate(TRIES, served.tries(served.host))
    assert found["got"] == found["sent"] == ["refused", ""] and found["opened"] == "refused" and not found["inside"]


def test_a_name_that_is_bent_to_this_machine_gets_nothing(served: Served, browser: Browser) -> None:
    rules = f"--host-resolver-rules=MAP {REBOUND} 127.0.0.1"
    bent = browser.browser_type.launch(executable_path=CHROMIUM, args=[*FLAGS, rules])
    try:
        page = bent.new_page()
        host = f"{REBOUND}:{served.port}"
        for address in (f"http://{host}/", f"http://{host}/?token={SECRET}"):
            answer = page.goto(address)
            assert answer is not None and answer.status == 403
            assert page.inner_text("body").startswith(f"host = {host}: not a name of this page")
        found = page.evaluate(TRIES, served.tries(host))
        assert found["got"][0] == found["sent"][0] == 403 and found["opened"] == "refused"
        assert page.context.cookies() == []
    finally:
        bent.close()
