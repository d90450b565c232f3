"""Clients that do what no gRPC client does: HTTP/2 by hand (h2), on loopback, bounded in number and in time."""

from __future__ import annotations

import contextlib
import socket
import struct
import threading
from collections.abc import Callable, Iterator

import h2.config
import h2.connection
import h2.events
import h2.exceptions
import h2.settings

RECOMMEND, RANK = "/flicker.v1.Recommender/Recommend", "/flicker.v1.Replica/Rank"


def message(raw: bytes) -> bytes:
    """As gRPC frames it."""
    return b"\x00" + struct.pack(">I", len(raw)) + raw


class Raw:
    """One connection; it knows no limit of the server's before it reads, and reads only when told."""

    def __init__(self, address: str, window: int = 65_535) -> None:
        """`window`: bytes of each answer that the server may send."""
        host, _, port = address.rpartition(":")
        self.socket = socket.create_connection((host, int(port)), timeout=10)
        config = h2.config.H2Configuration(client_side=True, header_encoding=None)
        self.http = h2.connection.H2Connection(config)
        self.http.local_settings.initial_window_size = window
        self.http.initiate_connection()
        self.ended: dict[int, str] = {}
        """Stream -> its gRPC status, or `reset`."""
        self._left: dict[int, bytes] = {}
        self.flush()

    def open(self, path: str, body: bytes = b"", end: bool = False) -> int:
        """Headers of a call, and as much of its body as the windows let through."""
        stream = self.http.get_next_available_stream_id()
        headers = [(":method", "POST"), (":scheme", "http"), (":path", path), (":authority", "localhost")]
        self.http.send_headers(stream, [*headers, ("te", "trailers"), ("content-type", "application/grpc")])
        if body:
            self._left[stream] = body
            self.push(stream, len(body), end)
        return stream

    def push(self, stream: int, most: int, end: bool = False) -> None:
        """At most so many more bytes of its body."""
        with contextlib.suppress(h2.exceptions.ProtocolError):  # the server has ended it
            room = min(self.http.local_flow_control_window(stream), most)
            left = self._left.get(stream, b"")
            while room and left:
                piece, left = left[: min(room, 16_384)], left[min(room, 16_384) :]
                room -= len(piece)
                self.http.send_data(stream, piece, end_stream=end and not left)
            self._left[stream] = left

    def reset(self, stream: int) -> None:
        """Take the call back."""
        self.http.reset_stream(stream, 8)

    def flush(self) -> bool:
        """Send what was said; whether the connection still stands."""
        try:
            self.socket.sendall(self.http.data_to_send())
        except OSError:
            return False
        return True

    def read(self, seconds: float) -> bool:
        """What has come within this time; whether the connection still stands."""
        self.socket.settimeout(max(seconds, 0.001))
        try:
            data = self.socket.recv(1 << 20)
        except TimeoutError:
            return True
        except OSError:
            return False
        if not data:
            return False
        with contextlib.suppress(h2.exceptions.ProtocolError):
            for event in self.http.receive_data(data):
                if isinstance(event, h2.events.TrailersReceived | h2.events.ResponseReceived):
                    found = dict(event.headers or []).get(b"grpc-status")
                    if found is not None:
                        self.ended[event.stream_id] = found.decode()
                elif isinstance(event, h2.events.StreamReset):
                    self.ended.setdefault(event.stream_id, "reset")
        return self.flush()

    def close(self) -> None:
        """As a crash does."""
        self.socket.close()


@contextlib.contextmanager
def connections(address: str, count: int, window: int = 65_535) -> Iterator[list[Raw]]:
    """So many, until the end."""
    raw = [Raw(address, window) for _ in range(count)]
    try:
        yield raw
    finally:
        for each in raw:
            each.close()


@contextlib.contextmanager
def meanwhile(step: Callable[[], None], pause: float) -> Iterator[None]:
    """Do it again and again in a thread until the end."""
    stop = threading.Event()

    def run() -> None:
        while not stop.wait(pause):
            step()

    thread = threading.Thread(target=run, daemon=True)
    thread.start()
    try:
        yield
    finally:
        stop.set()
        thread.join(20)
