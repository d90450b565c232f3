"""The load of the overload bench: one process that asks in an open loop, by HTTP/2 of its own.

A gRPC client in Python takes as much CPU for a call as the router does: it cannot ask for three times what the router
serves. Here a query is bytes that are joined and sent, an answer is a few frames: some 15 us each. It keeps to what a
gRPC client keeps to: streams per connection, flow control, deadlines, GOAWAY; and it gives statuses the names that a
gRPC client gives them. The server is told to keep no table of headers, so equal headers are equal bytes.

It follows lines on standard input, as `load.py` does:

    {"address", "method", "seconds", "rate": q, "then": r}
        open loop: q queries/s at even distances, at once after them r queries/s for 2 seconds, told apart as "then"
    {"address", "method", "seconds", "in_flight": n}
        closed loop

and answers each by {"offered", "codes": {name: count}, "late", "seconds", "lag", "answers": [[due, took], ...],
"failed": [due, ...]}: seconds since the start, and from when a query was due; `lag` is the longest that the client
was behind.
"""

from __future__ import annotations

import itertools
import json
import selectors
import socket
import struct
import sys
import time
from collections import Counter, deque
from functools import cache
from typing import Any

from hpack import Decoder

from query_path.model import build

DEADLINE = 1.0
"""Seconds that a query may take, as the server is told."""
CONNECTIONS = 16
AFTER = 2.0
"""Seconds of what comes `then`."""
DATA, HEADERS, RESET, SETTINGS, PING, GOAWAY, WINDOW = 0, 1, 3, 4, 6, 7, 8
END_STREAM, END_HEADERS, ACK = 1, 4, 1
NAMES = (
    "OK CANCELLED UNKNOWN INVALID_ARGUMENT DEADLINE_EXCEEDED NOT_FOUND ALREADY_EXISTS PERMISSION_DENIED "
    "RESOURCE_EXHAUSTED FAILED_PRECONDITION ABORTED OUT_OF_RANGE UNIMPLEMENTED INTERNAL UNAVAILABLE"
).split()
RESETS = {7: "UNAVAILABLE", 8: "CANCELLED", 11: "RESOURCE_EXHAUSTED"}
"""What a gRPC client makes of a stream that is reset: refused, cancelled, too much."""
LARGEST = 2**31 - 1


def frame(kind: int, flags: int, stream: int, payload: bytes = b"") -> bytes:
    """The bytes of a frame."""
    return struct.pack(">I", len(payload) << 8 | kind) + struct.pack(">BI", flags, stream) + payload


def literal(name: bytes, value: bytes) -> bytes:
    """A header that no table keeps."""
    return b"\x00" + bytes([len(name)]) + name + bytes([len(value)]) + value


def headers(path: str, timeout: float = DEADLINE) -> bytes:
    """The header block of a gRPC call."""
    own = {":path": path, ":authority": "localhost", "te": "trailers", "content-type": "application/grpc"}
    given = own | {"grpc-timeout": f"{round(timeout * 1_000)}m"}
    return b"\x83\x86" + b"".join(literal(name.encode(), value.encode()) for name, value in given.items())


@cache
def status(block: bytes) -> str:
    """The gRPC status that a block of headers names; empty for none."""
    found = dict(Decoder().decode(block, raw=True)).get(b"grpc-status")
    return "" if found is None else NAMES[int(found)]


class Connection:
    """One connection and the calls on it."""

    def __init__(self, address: str, block: bytes) -> None:
        host, _, port = address.rpartition(":")
        self.socket = socket.create_connection((host, int(port)))
        self.socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self.socket.setblocking(False)
        settings = struct.pack(">HIHI", 1, 0, 4, LARGEST)  # no table of headers; windows are not what is measured
        self._out = bytearray(b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n" + frame(SETTINGS, 0, 0, settings))
        self._out += frame(WINDOW, 0, 0, struct.pack(">I", LARGEST - 65_535))
        self._in, self._next, self._head = bytearray(), 1, block
        self.open: dict[int, float] = {}
        """Stream -> when its query was due."""
        self.most, self.window, self.leaving = 2**31, 65_535, False

    def has_room(self) -> bool:
        """Whether another query may be sent."""
        return len(self.open) < self.most and self.window > 1_000 and not self.leaving

    def ask(self, message: bytes, due: float) -> None:
        """Send it, with the next `flush`."""
        stream, self._next = self._next, self._next + 2
        self.open[stream], self.window = due, self.window - len(message)
        self._out += frame(HEADERS, END_HEADERS, stream, self._head) + frame(DATA, END_STREAM, stream, message)

    def flush(self) -> None:
        """Send what can be sent."""
        if self._out:
            try:
                del self._out[: self.socket.send(self._out)]
            except BlockingIOError:
                pass

    def read(self) -> list[tuple[float, str]]:
        """The calls that ended: when each was due, and its status."""
        try:
            data = self.socket.recv(1 << 18)
        except BlockingIOError:
            return []
        except ConnectionError:
            data = b""
        if not data:
            self.leaving, lost, self.open = True, list(self.open.values()), {}
            return [(due, "UNAVAILABLE") for due in lost]
        self._in += data
        ended, at, size = [], 0, len(self._in)
        while at + 9 <= size:
            head, flags, stream = struct.unpack_from(">IBI", self._in, at)
            end = at + 9 + (head >> 8)
            if end > size:
                break
            kind = head & 255
            if kind == HEADERS and flags & END_STREAM and stream in self.open:
                ended.append((self.open.pop(stream), status(bytes(self._in[at + 9 : end])) or "UNKNOWN"))
            elif kind == RESET and stream in self.open:
                (code,) = struct.unpack_from(">I", self._in, at + 9)
                ended.append((self.open.pop(stream), RESETS.get(code, "INTERNAL")))
            elif kind not in (HEADERS, DATA):
                self._govern(kind, flags, stream, bytes(self._in[at + 9 : end]))
            at = end
        del self._in[:at]
        return ended

    def _govern(self, kind: int, flags: int, stream: int, payload: bytes) -> None:
        if kind == SETTINGS and not flags & ACK:
            for name, value in struct.iter_unpack(">HI", payload):
                self.most = value if name == 3 else self.most
            self._out += frame(SETTINGS, ACK, 0)
        elif kind == PING and not flags & ACK:
            self._out += frame(PING, ACK, 0, payload)
        elif kind == WINDOW and not stream:
            self.window += struct.unpack(">I", payload)[0]
        elif kind == GOAWAY:
            self.leaving = True


class Part:
    """Queries that are due over some seconds, and what came of them."""

    def __init__(self, start: float, seconds: float, rate: float) -> None:
        self.start, self.seconds, self._rate, self._most, self._sent = start, seconds, rate, round(rate * seconds), 0
        self.next = start if rate else float("inf")
        """When the next one is due."""
        self._codes, self._answers, self._failed = Counter[str](), list[tuple[float, float]](), list[float]()
        self._late, self._lag = 0, 0.0

    def due(self, now: float) -> list[float]:
        """Those that are due by now and were not before."""
        found = []
        while self.next <= now:
            found.append(self.next)
            self._sent += 1
            self._lag = max(self._lag, now - self.next)
            self.next = self.start + self._sent / self._rate if self._sent < self._most else float("inf")
        return found

    def add(self, due: float, now: float, code: str) -> None:
        """One of them ended."""
        self._codes[code] += 1
        self._late += now - due > DEADLINE or code in ("DEADLINE_EXCEEDED", "not sent")
        if code == "OK":
            self._answers.append((due - self.start, now - due))
        else:
            self._failed.append(due - self.start)

    def told(self) -> dict[str, Any]:
        """The answer to a line."""
        return {
            "offered": self._codes.total(),
            "codes": dict(self._codes),
            "late": self._late,
            "seconds": self.seconds,
            "lag": self._lag,
            "answers": self._answers,
            "failed": self._failed,
        }


class Flood:
    """All connections to one address."""

    def __init__(self, address: str, path: str, queries: list[bytes]) -> None:
        self._messages = itertools.cycle([b"\x00" + struct.pack(">I", len(each)) + each for each in queries])
        self._address, self._block = address, headers(path)
        self._poll = selectors.DefaultSelector()
        self._connections: deque[Connection] = deque()
        self._waiting: deque[float] = deque()
        for _ in range(CONNECTIONS):
            self._connect()

    def _connect(self) -> None:
        connection = Connection(self._address, self._block)
        self._poll.register(connection.socket, selectors.EVENT_READ, connection)
        self._connections.append(connection)

    def run(self, seconds: float, rate: float = 0.0, then: float = 0.0, in_flight: int = 0) -> dict[str, Any]:
        """Follow one line."""
        start = time.perf_counter()
        parts = [Part(start, seconds, rate)]
        if then:
            parts.append(Part(start + seconds, AFTER, then))
        if in_flight:
            self._waiting.extend([start] * in_flight)
        end = parts[-1].start + parts[-1].seconds
        while (now := time.perf_counter()) < end + 2 * DEADLINE:
            for part in parts:
                self._waiting.extend(part.due(now))
            for due in self._send(now):
                parts[due >= parts[-1].start and len(parts) - 1].add(due, now, "not sent")
            soonest = min(part.next for part in parts)
            for key, _ in self._poll.select(max(0.0, min(soonest - time.perf_counter(), 0.02))):
                connection = key.data
                ended = connection.read()
                now = time.perf_counter()
                for due, code in ended:
                    parts[due >= parts[-1].start and len(parts) - 1].add(due, now, code)
                if in_flight and now < end:
                    self._waiting.extend([now] * len(ended))
                if connection.leaving and not connection.open:
                    self._close(connection)
            if now > end and not self._waiting and not any(each.open for each in self._connections):
                break
        for connection in [each for each in self._connections if each.open]:  # nobody answered
            for due in connection.open.values():
                parts[due >= parts[-1].start and len(parts) - 1].add(due, due + 2 * DEADLINE, "no answer")
            self._close(connection)
        self._waiting.clear()
        return parts[0].told() | ({"then": parts[1].told()} if then else {})

    def _send(self, now: float) -> list[float]:
        """Send what there is room for; returns the queries that have waited too long for it."""
        given_up = list[float]()
        while self._waiting and now - self._waiting[0] > DEADLINE:
            given_up.append(self._waiting.popleft())
        for _ in range(len(self._connections)):
            connection = self._connections[0]
            while self._waiting and connection.has_room():
                connection.ask(next(self._messages), self._waiting.popleft())
                self._connections.rotate(-1)
                connection = self._connections[0]
            if not self._waiting:
                break
            self._connections.rotate(-1)
        for connection in self._connections:
            connection.flush()
        return given_up

    def _close(self, connection: Connection) -> None:
        self._poll.unregister(connection.socket)
        connection.socket.close()
        self._connections.remove(connection)
        self._connect()


def main(sized: str) -> None:
    """Until standard input ends."""
    queries, known = build(sized).queries(), dict[str, Flood]()
    for line in sys.stdin:
        order = json.loads(line)
        address, path = order.pop("address"), order.pop("method")
        if address not in known:
            known[address] = Flood(address, path, queries)
        print(json.dumps(known[address].run(**order)), flush=True)


if __name__ == "__main__":
    main(sys.argv[1])
