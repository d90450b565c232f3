"""Access to the page: with its token, from its own pages, under a name of ours.

Any web page that a user visits can send requests to this machine. A browser says whose page asked (Origin), so that one
of another origin is refused, also for a WebSocket, which browsers let through to everywhere. A page whose own name is
made to resolve to this machine (DNS rebinding) is of the same origin, but under a Host that is not ours. The token is
for everybody else who can reach the port; it comes with the printed address and stays as a cookie, which pages of
other sites cannot send. No other page may show this one in a frame, where it could be clicked unseen.
"""

from __future__ import annotations

import hmac
import ipaddress
import re
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from urllib.parse import parse_qsl, quote, urlencode

from starlette.datastructures import Headers, MutableHeaders
from starlette.requests import HTTPConnection
from starlette.responses import PlainTextResponse, RedirectResponse
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from simulator.config import require
from simulator.live.controls import TOKEN
from simulator.security.credentials import Watched, read_secrets

HEALTH_PATH = "/healthz"
"""Answers everybody: whether the process is well is no secret."""
TOKEN_PATTERN = re.compile(r"[A-Za-z0-9_-]{16,}")
"""The form of a token."""
TOKEN_FORMAT = "16 letters, digits, - or _, or more"
Tokens = Callable[[], Sequence[str]]
"""The tokens that open the page now; none where everybody may."""
HOST = re.compile(r"(\[[0-9a-f:.]+\]|[a-z0-9.-]+)(?::(\d{1,5}))?")
"""A Host: name or address, and perhaps a port."""
HEADERS = {
    "content-security-policy": "frame-ancestors 'none'",
    "referrer-policy": "no-referrer",
    "x-content-type-options": "nosniff",
    "x-frame-options": "DENY",
}


def is_loopback(host: str) -> bool:
    """Whether an address to listen at is reached from this machine alone."""
    try:
        return ipaddress.ip_address(host.strip("[]")).is_loopback
    except ValueError:
        return host == "localhost"


def tokens_of(configured: str, file: Path | None) -> Tokens:
    """The configured one, or else those of the file, one a line. Raises SettingError."""
    if configured or file is None:
        return lambda: (configured,) if configured else ()

    def read() -> Sequence[str]:
        tokens = [token.decode() for token in read_secrets("page_token_file", file)]
        are_valid = all(TOKEN_PATTERN.fullmatch(token) for token in tokens)
        require(are_valid, "page_token_file", file, f"holds another token than {TOKEN_FORMAT}")
        return tokens

    return Watched([file], read)


def require_guarded(token: str, reached_at: str, has_controls: bool) -> None:
    """Raise SettingError for a page without a token that others could reach, or that has controls.

    `reached_at`: the address at which it is reached, which for a container is the published one.
    """
    length = f"{len(token)} characters" if token else "nothing"
    is_local = is_loopback(reached_at)
    require(token != "" or not has_controls, TOKEN, length, f"a page with controls needs one: {TOKEN_FORMAT}")
    hint = f"others can reach the page at {reached_at}: give it a token of {TOKEN_FORMAT}, or keep it on 127.0.0.1"
    require(token != "" or is_local, TOKEN, length, hint)
    require(token == "" or TOKEN_PATTERN.fullmatch(token) is not None, TOKEN, length, TOKEN_FORMAT)


class Guard:
    """ASGI middleware around all of the page: requests, files and WebSockets."""

    def __init__(self, app: ASGIApp, tokens: Tokens = tuple, local: bool = True, names: Iterable[str] = ()) -> None:
        """Without tokens nobody is asked for one; `local`: reached from this machine alone; `names`: by which
        browsers may call it beside localhost and its addresses."""
        self._app, self._tokens, self._local = app, tokens, local
        self._names = {"localhost", *(name.lower() for name in names)}

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Pass on what is allowed, answer the rest."""
        if scope["type"] not in ("http", "websocket"):
            return await self._app(scope, receive, send)
        headers = Headers(scope=scope)
        refusal = "" if scope["path"] == HEALTH_PATH else self._refusal(headers)
        if refusal:
            return await _refuse(refusal, scope, receive, send)
        if scope["path"] != HEALTH_PATH and self._tokens():
            cookie = HTTPConnection(scope).cookies.get(_cookie(headers), "")
            if not self._is_token(cookie):
                return await self._ask_for_token(headers, scope, receive, send)
        await self._app(scope, receive, _with_headers(send))

    def _refusal(self, headers: Headers) -> str:
        """Why a request is refused; empty where it is allowed."""
        hosts, origins = headers.getlist("host"), headers.getlist("origin")
        if len(hosts) != 1 or not self._is_allowed_host(hosts[0]):
            return f"host = {', '.join(hosts)[:80]}: not a name of this page: use localhost or its address"
        allowed = {f"http://{hosts[0].lower()}", f"https://{hosts[0].lower()}"}
        if any(origin.lower() not in allowed for origin in origins):
            return f"origin = {', '.join(origins)[:80]}: a page of another origin may not use this one"
        return ""

    def _is_allowed_host(self, host: str) -> bool:
        """Whether a Host is a name of ours, or an address, which DNS rebinding cannot use."""
        match = HOST.fullmatch(host.lower())
        if match is None or match[1] in self._names:
            return match is not None
        try:
            return ipaddress.ip_address(match[1].strip("[]")).is_loopback or not self._local
        except ValueError:
            return False

    def _is_token(self, text: str) -> bool:
        return any([hmac.compare_digest(text.encode(), token.encode()) for token in self._tokens()])

    async def _ask_for_token(self, headers: Headers, scope: Scope, receive: Receive, send: Send) -> None:
        """The token of an address becomes a cookie, and leaves the address."""
        query = parse_qsl(scope["query_string"].decode("latin-1"), keep_blank_values=True)
        token = next((value for name, value in query if name == "token" and self._is_token(value)), "")
        if scope["type"] == "websocket" or scope["method"] not in ("GET", "HEAD") or not token:
            return await _refuse("token = missing or wrong: open the address that was printed", scope, receive, send)
        query_string = urlencode([(name, value) for name, value in query if name != "token"])
        path = "/" + quote(scope["path"].lstrip("/"))  # //host would be another host
        answer = RedirectResponse(path + (f"?{query_string}" if query_string else ""), 303)
        is_https = scope["scheme"] == "https"
        answer.set_cookie(_cookie(headers), token, httponly=True, samesite="lax", path="/", secure=is_https)
        await answer(scope, receive, _with_headers(send))


def _cookie(headers: Headers) -> str:
    """A name for each port: browsers keep the cookies of all ports of a host together."""
    match = HOST.fullmatch(headers["host"].lower())
    return f"flicker_page_{(match and match[2]) or 'default'}"


def _with_headers(send: Send) -> Send:
    async def sending(message: Message) -> None:
        if message["type"] == "http.response.start":
            MutableHeaders(scope=message).update(HEADERS)
        await send(message)

    return sending


async def _refuse(reason: str, scope: Scope, receive: Receive, send: Send) -> None:
    """403: of a WebSocket before it is opened."""
    if scope["type"] == "websocket":
        await receive()
        await send({"type": "websocket.close", "code": 1008, "reason": "refused"})
    else:
        await PlainTextResponse(f"{reason}\n", 403)(scope, receive, _with_headers(send))
