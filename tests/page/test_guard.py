"""Who is refused: over real sockets, by a server in a process of its own, WebSocket handshakes included."""

from __future__ import annotations

import http.client
import json
import socket
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from page.guard import is_loopback, require_guarded, tokens_of
from simulator.errors import SettingError
from simulator.process import free_ports
from tests.integration.system import until
from tests.security.made import secret

ROOT = Path(__file__).parents[2]
TOKEN = "a-token-of-a-test-1234"
SERVER = """
import json, sys
import uvicorn
from starlette.applications import Starlette
from starlette.responses import PlainTextResponse
from starlette.routing import Route, WebSocketRoute
from page.guard import Guard, tokens_of

async def hello(request):
    return PlainTextResponse("hello")

async def greet(websocket):
    await websocket.accept()
    await websocket.close()

routes = [WebSocketRoute("/ws", greet), Route("/{path:path}", hello, methods=["GET", "POST"])]
settings = json.loads(sys.argv[2])
tokens = tokens_of(settings.pop("token", ""), None)
app = Guard(Starlette(routes=routes), tokens, **settings)
uvicorn.run(app, port=int(sys.argv[1]), log_level="warning")
"""
UPGRADE = {
    "Connection": "Upgrade",
    "Upgrade": "websocket",
    "Sec-WebSocket-Version": "13",
    "Sec-WebSocket-Key": "dGhlIHNhbXBsZSBub25jZQ==",
}


@dataclass
class Guarded:
    """A server behind a guard."""

    port: int

    @property
    def cookie(self) -> str:
        """What a browser sends that opened the printed address."""
        return f"flicker_page_{self.port}={TOKEN}"

    def ask(self, path: str = "/", method: str = "GET", **headers: str) -> tuple[int, str, dict[str, str]]:
        """Status, body and headers; a header's name is written with _ for -."""
        sent = {name.replace("_", "-"): value for name, value in headers.items()}
        connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=10)
        try:
            connection.putrequest(method, path, skip_host="Host" in sent)
            for name, value in sent.items():
                connection.putheader(name, value)
            connection.endheaders()
            answer = connection.getresponse()
            return answer.status, answer.read().decode(), {name.lower(): value for name, value in answer.getheaders()}
        finally:
            connection.close()

    def upgrade(self, **headers: str) -> int:
        """The status of a WebSocket's handshake: 101 where it is opened."""
        sent = {"Host": f"127.0.0.1:{self.port}"} | UPGRADE | headers
        lines = ["GET /ws HTTP/1.1", *(f"{name}: {value}" for name, value in sent.items()), "", ""]
        with socket.create_connection(("127.0.0.1", self.port), 10) as connection:
            connection.sendall("\r\n".join(lines).encode())
            return int(connection.makefile("rb").readline().split()[1])


def listens(port: int) -> bool:
    """Whether somebody does."""
    with socket.socket() as probe:
        return probe.connect_ex(("127.0.0.1", port)) == 0


def serve(**settings: object) -> Iterator[Guarded]:
    (port,) = free_ports(1)
    command = [sys.executable, "-c", SERVER, str(port), json.dumps(settings)]
    with subprocess.Popen(command, cwd=ROOT) as process:
        try:
            until(lambda: listens(port), "it listens")
            yield Guarded(port)
        finally:
            process.terminate()


@pytest.fixture(scope="module")
def asking() -> Iterator[Guarded]:
    """Wants a token, on loopback."""
    yield from serve(token=TOKEN)


@pytest.fixture(scope="module")
def public() -> Iterator[Guarded]:
    """Wants no token, and may be reached by others."""
    yield from serve(local=False, names=["flicker.lan"])


def test_the_printed_address_opens_the_page_and_loses_its_token(asking: Guarded) -> None:
    status, _, headers = asking.ask(f"/?token={TOKEN}&tab=now")
    assert (status, headers["location"]) == (303, "/?tab=now")
    cookie = headers["set-cookie"]
    assert cookie.startswith(asking.cookie) and "HttpOnly" in cookie and "SameSite=lax" in cookie
    assert asking.ask("/?tab=now", Cookie=f"else=1; {asking.cookie}")[:2] == (200, "hello")
    assert asking.upgrade(Cookie=asking.cookie, Origin=f"http://127.0.0.1:{asking.port}") == 101


def test_nobody_is_led_to_another_host(asking: Guarded) -> None:
    assert asking.ask(f"//evil.example/?token={TOKEN}")[2]["location"] == "/evil.example/"


@pytest.mark.parametrize("path", ["/", "/?token=", "/?token=another-token-12345", "/file.js"])
@pytest.mark.parametrize("method", ["GET", "POST"])
def test_without_the_token_nothing_is_shown_or_done(asking: Guarded, path: str, method: str) -> None:
    for cookie in ("", "flicker_page_1=x", f"flicker_page_{asking.port}=another-token-12345", f"token={TOKEN}"):
        status, said, headers = asking.ask(path, method, Cookie=cookie)
        assert status == 403 and said.startswith("token = ") and len(said.splitlines()) == 1
        assert "set-cookie" not in headers and TOKEN not in said


def test_a_token_in_the_address_does_nothing_but_open_the_page(asking: Guarded) -> None:
    assert asking.ask(f"/?token={TOKEN}", "POST")[0] == 403


def test_a_websocket_without_the_token_is_not_opened(asking: Guarded) -> None:
    assert asking.upgrade() == 403 and asking.upgrade(Cookie=f"flicker_page_{asking.port}=x") == 403
    assert asking.upgrade(Cookie=asking.cookie) == 101


@pytest.mark.parametrize(
    "origin",
    ["http://evil.example", "http://127.0.0.1:1", "https://localhost", "null", "http://127.0.0.1.evil.example"],
)
def test_a_page_of_another_origin_is_refused_whatever_it_knows(asking: Guarded, public: Guarded, origin: str) -> None:
    for one in (asking, public):
        for method in ("GET", "POST"):
            status, said, _ = one.ask("/", method, Cookie=one.cookie, Origin=origin)
            assert status == 403 and said.startswith("origin = ")
        assert one.upgrade(Cookie=one.cookie, Origin=origin) == 403


@pytest.mark.parametrize(
    "host", ["evil.example", "127.0.0.1.evil.example", "evil@127.0.0.1", "localhost/evil", "", "localhost:x", "1.2.3"]
)
def test_a_name_that_is_not_ours_is_refused(asking: Guarded, public: Guarded, host: str) -> None:
    """Of the same origin, as a rebound name is."""
    for one in (asking, public):
        for method in ("GET", "POST"):
            assert one.ask("/", method, Host=host, Cookie=one.cookie, Origin=f"http://{host}")[0] in (400, 403)
        assert one.upgrade(Host=host, Cookie=one.cookie, Origin=f"http://{host}") in (400, 403)


def test_names_that_are_ours(asking: Guarded, public: Guarded) -> None:
    for host in ("localhost", "127.0.0.1", "LOCALHOST", "[::1]", "127.0.0.5"):
        host = f"{host}:{asking.port}"
        assert asking.ask(Host=host, Cookie=asking.cookie, Origin=f"http://{host.lower()}")[0] == 200
        assert public.ask(Host=host)[0] == 200
    for host in ("192.168.1.5:8080", "[fe80::1]", "flicker.lan"):
        assert public.ask(Host=host, Origin=f"https://{host}")[0] == 200, "behind a proxy with TLS, too"
        assert asking.ask(Host=host, Cookie=asking.cookie)[0] == 403, "it is reached from this machine alone"


def test_two_hosts_are_none(public: Guarded) -> None:
    with socket.create_connection(("127.0.0.1", public.port), 10) as connection:
        connection.sendall(b"GET / HTTP/1.1\r\nHost: localhost\r\nHost: evil.example\r\n\r\n")
        assert int(connection.makefile("rb").readline().split()[1]) in (400, 403)


def test_everybody_may_ask_whether_it_is_well(asking: Guarded) -> None:
    assert asking.ask("/healthz", Host="evil.example")[:2] == (200, "hello")
    assert asking.ask("/healthz/more")[0] == 403 and asking.ask("//healthz")[0] == 403


def test_no_page_may_show_it_in_a_frame(asking: Guarded) -> None:
    for headers in (asking.ask()[2], asking.ask(Cookie=asking.cookie)[2], asking.ask(f"/?token={TOKEN}")[2]):
        assert headers["content-security-policy"] == "frame-ancestors 'none'" and headers["x-frame-options"] == "DENY"


def test_what_is_reached_from_one_machine_alone() -> None:
    assert all(map(is_loopback, ("127.0.0.1", "127.1.2.3", "::1", "[::1]", "localhost")))
    assert not any(map(is_loopback, ("0.0.0.0", "::", "192.168.0.1", "localhost.evil.example", "")))


@pytest.mark.parametrize(
    ("token", "reached", "controls", "complaint"),
    [
        ("", "0.0.0.0", False, "FLICKER_PAGE_TOKEN = nothing: others can reach the page at 0.0.0.0: "),
        ("", "127.0.0.1", True, "FLICKER_PAGE_TOKEN = nothing: a page with controls needs one: "),
        ("short", "127.0.0.1", False, "FLICKER_PAGE_TOKEN = 5 characters: 16 letters"),
        ("with spaces, and commas", "0.0.0.0", True, "FLICKER_PAGE_TOKEN = 23 characters: 16 letters"),
    ],
)
def test_what_is_not_guarded_does_not_start(token: str, reached: str, controls: bool, complaint: str) -> None:
    with pytest.raises(SettingError, match=complaint) as refused:
        require_guarded(token, reached, controls)
    assert len(str(refused.value).splitlines()) == 1 and (not token or token not in str(refused.value))


@pytest.mark.parametrize(
    ("token", "reached"), [("", "127.0.0.1"), ("", "localhost"), (TOKEN, "0.0.0.0"), (TOKEN, "::1")]
)
def test_what_is_guarded_does(token: str, reached: str) -> None:
    require_guarded(token, reached, has_controls=bool(token))


def test_tokens_of_a_file_are_used_where_none_is_given(tmp_path: Path) -> None:
    file = secret(tmp_path / "tokens", TOKEN, f"{TOKEN}-old")
    assert tuple(tokens_of("", file)()) == (TOKEN, f"{TOKEN}-old")
    assert tuple(tokens_of("another-token-123", file)()) == ("another-token-123",) and not tokens_of("", None)()


@pytest.mark.parametrize("bad", ["", "too-short", "no;cookie=may-hold-this"])
def test_a_file_without_good_tokens_is_named_and_not_told(bad: str, tmp_path: Path) -> None:
    file = secret(tmp_path / "tokens", *filter(None, [bad]))
    with pytest.raises(SettingError, match=f"page_token_file = {file}: ") as refused:
        tokens_of("", file)
    assert len(str(refused.value).splitlines()) == 1 and (not bad or bad not in str(refused.value))
