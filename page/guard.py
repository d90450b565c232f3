"""Who may ask the page: nobody from another page, and, where it has a token, nobody without it.

Any page that a browser has open can reach the loopback address, and NiceGUI lets every origin in. So a request must
name this host as the one it is for (`Host`: a name that was bent to 127.0.0.1 does not) and come from no other page
(`Origin`). The token comes once, in the address that is printed; from then on a cookie holds it.
"""

from __future__ import annotations

import hmac
from http.cookies import CookieError, SimpleCookie
from urllib.parse import parse_qs, urlsplit

from starlette.datastructures import Headers
from starlette.responses import PlainTextResponse, RedirectResponse
from starlette.types import ASGIApp, Receive, Scope, Send

LOOPBACK = frozenset({"127.0.0.1", "localhost", "::1"})
OPEN = "/healthz"
"""What anybody may ask: it says nothing."""


class Guard:
    """An ASGI application in front of another one, for HTTP and WebSocket alike."""

    def __init__(self, app: ASGIApp, token: str, names: frozenset[str] | None) -> None:
        """`names` that `Host` may have, None: any; `token`: empty where there is none."""
        self._app, self._token, self._names = app, token, names

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """See ASGI."""
        if scope["type"] not in ("http", "websocket") or scope["path"] == OPEN:
            return await self._app(scope, receive, send)
        headers = Headers(scope=scope)
        if reason := self._refused(scope["type"], headers):
            return await _answer(PlainTextResponse(f"{reason}\n", 403), scope, receive, send)
        if self._token and not self._is(_cookie(headers, self._cookie_name(headers))):
            given = parse_qs(scope["query_string"].decode("latin-1")).get("token", [""])[-1]
            if scope["type"] == "http" and self._is(given):
                return await self._let_in(headers)(scope, receive, send)
            reason = "This page asks for the token of the address that was printed when it started: open that one.\n"
            return await _answer(PlainTextResponse(reason, 401), scope, receive, send)
        await self._app(scope, receive, send)

    def _refused(self, kind: str, headers: Headers) -> str:
        """Why the request is refused whatever it brings; empty where it is not."""
        host, origin = headers.get("host", ""), headers.get("origin")
        if self._names is not None and _name(f"//{host}") not in self._names:
            return "Host: not this page's own name"
        if (kind == "websocket" and origin is None) or (origin is not None and _where(origin) != host.lower()):
            return "Origin: another page"
        return ""

    def _is(self, given: str) -> bool:
        return hmac.compare_digest(given.encode(), self._token.encode())

    def _let_in(self, headers: Headers) -> RedirectResponse:
        """To the page, with the token in a cookie and no longer in the address."""
        answer = RedirectResponse("/", 303)
        answer.set_cookie(self._cookie_name(headers), self._token, httponly=True, samesite="lax")
        return answer

    @staticmethod
    def _cookie_name(headers: Headers) -> str:
        """One for each port: browsers send a host's cookies to all of them."""
        return f"flicker_page_{headers.get('host', '').rpartition(':')[2]}"


def _where(origin: str) -> str:
    """host:port of an Origin."""
    try:
        return urlsplit(origin).netloc.lower()
    except ValueError:
        return ""


def _name(url: str) -> str | None:
    try:
        return urlsplit(url).hostname
    except ValueError:
        return None


def _cookie(headers: Headers, name: str) -> str:
    try:
        found = SimpleCookie(headers.get("cookie", "")).get(name)
    except CookieError:
        return ""
    return found.value if found else ""


async def _answer(answer: PlainTextResponse, scope: Scope, receive: Receive, send: Send) -> None:
    """Over HTTP; a WebSocket is closed before it was accepted, which is 403."""
    if scope["type"] == "websocket":
        await receive()
        return await send({"type": "websocket.close", "code": 1008, "reason": "refused"})
    await answer(scope, receive, send)
