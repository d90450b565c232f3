"""A TCP hop that can lose an answer: the server has done what it was asked, and the client never hears of it."""

from __future__ import annotations

import socket
import threading
from types import TracebackType
from urllib.parse import urlsplit


class Proxy:
    """Passes bytes between clients and one server; after `lose_next_answer` it hangs up instead of answering."""

    def __init__(self, url: str) -> None:
        parts = urlsplit(url)
        assert parts.hostname and parts.port
        self._server = (parts.hostname, parts.port)
        self._listener = socket.create_server(("127.0.0.1", 0))
        self._lose = threading.Event()
        self._open: list[socket.socket] = []
        self._threads = [threading.Thread(target=self._accept)]
        self._threads[0].start()
        self.url = f"redis://127.0.0.1:{self._listener.getsockname()[1]}/0"

    def lose_next_answer(self) -> None:
        self._lose.set()

    def _accept(self) -> None:
        while True:
            try:
                client, _ = self._listener.accept()
            except OSError:
                return
            server = socket.create_connection(self._server)
            self._open += [client, server]
            for source, target, answers in ((client, server, False), (server, client, True)):
                thread = threading.Thread(target=self._pass, args=(source, target, answers))
                self._threads.append(thread)
                thread.start()

    def _pass(self, source: socket.socket, target: socket.socket, answers: bool) -> None:
        try:
            while data := source.recv(65536):
                if answers and self._lose.is_set():
                    self._lose.clear()
                    break
                target.sendall(data)
        except OSError:
            pass
        for end in (source, target):
            hang_up(end)

    def __enter__(self) -> Proxy:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        hang_up(self._listener)
        self._threads[0].join()
        for end in self._open:
            hang_up(end)
        for thread in self._threads[1:]:
            thread.join()
        for end in (self._listener, *self._open):
            end.close()


def hang_up(end: socket.socket) -> None:
    """Wake every thread that waits on a socket; harmless when repeated."""
    try:
        end.shutdown(socket.SHUT_RDWR)
    except OSError:
        pass
