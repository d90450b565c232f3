"""What pages of others can do to this one, in a real browser that has opened the printed address: nothing."""

from __future__ import annotations

import http.server
import threading
from collections.abc import Iterator
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from urllib.parse import urlsplit

import pytest
from playwright.sync_api import Browser

from simulator.live.controls import TOKEN
from tests.page.conftest import CHROMIUM, FLAGS, Open
from tests.page.live import Served

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
class Guarded:
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
def guarded(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Guarded]:
    """The real page, of results alone."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv(TOKEN, SECRET)
        with Served("--runs", tmp_path_factory.mktemp("runs")) as served:
            yield Guarded(urlsplit(served.url).port or 0)


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


def test_its_own_page_may_do_all_of_it(guarded: Guarded, tab: Open) -> None:
    """So that the refusals below are refusals."""
    one = tab(guarded.printed)
    found = one.page.evaluate(TRIES, guarded.tries(guarded.host))
    assert found["got"][0] == 200 and "Flicker" in found["got"][1] and found["sent"][0] == 405
    assert found["opened"] == "opened" and not found["inside"], "no page may show it in a frame, not even its own"


def test_a_page_of_another_origin_gets_nothing(guarded: Guarded, tab: Open, other: str) -> None:
    one = tab(guarded.printed)
    assert [cookie["name"] for cookie in one.context.cookies()] == [f"flicker_page_{guarded.port}"]
    one.page.goto(other)
    found = one.page.evaluate(TRIES, guarded.tries(guarded.host))
    assert found["got"] == found["sent"] == ["refused", ""] and found["opened"] == "refused" and not found["inside"]


def test_a_name_that_is_bent_to_this_machine_gets_nothing(guarded: Guarded, browser: Browser) -> None:
    rules = f"--host-resolver-rules=MAP {REBOUND} 127.0.0.1"
    bent = browser.browser_type.launch(executable_path=CHROMIUM, args=[*FLAGS, rules])
    try:
        page = bent.new_page()
        host = f"{REBOUND}:{guarded.port}"
        for address in (f"http://{host}/", f"http://{host}/?token={SECRET}"):
            answer = page.goto(address)
            assert answer is not None and answer.status == 403
            assert page.inner_text("body").startswith(f"host = {host}: not a name of this page")
        found = page.evaluate(TRIES, guarded.tries(host))
        assert found["got"][0] == found["sent"][0] == 403 and found["opened"] == "refused"
        assert page.context.cookies() == []
    finally:
        bent.close()
