"""Compiles a C++ file with the system's compiler, once: the library is kept in a cache folder.

The cache is `flicker` in $XDG_CACHE_HOME, else in ~/.cache; where that cannot be written, a temporary folder that goes
when the library is loaded. A library's name is a digest of source, compiler, flags and processor, and it is renamed
into place when it is whole. Of processes that start at once one compiles; the others wait and load the same.
"""

from __future__ import annotations

import contextlib
import ctypes
import fcntl
import hashlib
import logging
import os
import platform
import shlex
import shutil
import subprocess
import tempfile
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Generic, Literal, TypeVar

from simulator.errors import SettingError

T = TypeVar("T")
log = logging.getLogger("native")
COMPILERS = "c++", "g++", "clang++"
FLAGS = "-O3", "-fopenmp-simd", "-fno-math-errno", "-fno-trapping-math", "-std=c++17", "-shared", "-fPIC"
"""Nothing here lets the compiler reorder a sum, or assume that there is no NaN."""
TUNING = ("-march=native", "-mprefer-vector-width=512"), ("-march=native",), ("-mcpu=native",), ()
"""For the processor at hand, in the words that the compiler understands."""
PATIENCE = 300.0
"""Seconds that compiling may take."""


class NoCompiler(Exception):
    """No compiler was found, or none that can make a library; the message is one line."""


class Once(Generic[T]):
    """What needs a compiler, made once per process, also where it fails: all models of a process take the same path."""

    def __init__(self, make: Callable[[], T]) -> None:
        """`make` raises NoCompiler where it cannot."""
        self._make, self._lock = make, threading.Lock()
        self.forget()

    def forget(self) -> None:
        """Try again next time."""
        self._made: T | None = None
        self._problem = ""

    def get(self) -> T:
        """It. Raises NoCompiler."""
        with self._lock:
            if self._made is None and not self._problem:
                try:
                    self._made = self._make()
                except NoCompiler as problem:
                    log.info("no compiled kernels (%s): PyTorch computes instead", problem)
                    self._problem = str(problem)
        if self._made is None:
            raise NoCompiler(self._problem)
        return self._made

    def wanted(self, choice: Literal["auto", "on", "off"]) -> T | None:
        """By `ModelConfig.compile`: `auto` where it can be had, `on` always, `off` never (then None).

        Raises SettingError where it has to be and cannot.
        """
        if choice == "off":
            return None
        try:
            return self.get()
        except NoCompiler as problem:
            if choice == "on":
                way_out = f"{problem}: install a C++ compiler, name one in $CXX, or --compile auto"
                raise SettingError("compile", choice, way_out) from None
            return None


def compiled(source: Path) -> tuple[ctypes.CDLL, str]:
    """The library of a source file, and which compiler made it. Raises NoCompiler."""
    problem = f"none of {', '.join(commands())} is on PATH"
    for command in commands():
        words = shlex.split(command)
        program = shutil.which(words[0]) if words else None
        if program is None:
            continue
        for tuning in TUNING:
            try:
                return _library(source, [program, *words[1:], *FLAGS, *tuning]), command
            except (OSError, subprocess.SubprocessError) as failed:
                problem = _in_one_line(command, failed)
    raise NoCompiler(problem)


def commands() -> list[str]:
    """The compilers to try, $CXX first."""
    return [*filter(None, [os.environ.get("CXX", "").strip()]), *COMPILERS]


def _library(source: Path, command: list[str]) -> ctypes.CDLL:
    """From the cache, or made now."""
    name = f"{source.stem}-{_digest(source, command)}.so"
    folder = _cache()
    if folder is not None and (folder / name).exists():
        return ctypes.CDLL(str(folder / name))
    with _turn(folder), tempfile.TemporaryDirectory(dir=folder, prefix="making-") as making:
        if folder is not None and (folder / name).exists():
            return ctypes.CDLL(str(folder / name))
        made = Path(making) / name
        subprocess.run(
            [*command, str(source), "-o", str(made)], check=True, capture_output=True, text=True, timeout=PATIENCE
        )
        if folder is None:
            return ctypes.CDLL(str(made))  # which stays in memory when its file goes
        os.replace(made, folder / name)
    return ctypes.CDLL(str(folder / name))


@contextlib.contextmanager
def _turn(folder: Path | None) -> Iterator[None]:
    """One process after the other, where they share a cache."""
    if folder is None:
        yield
        return
    lock = os.open(folder, os.O_RDONLY)
    try:
        fcntl.flock(lock, fcntl.LOCK_EX)
        yield
    finally:
        os.close(lock)  # and with it the lock, also where a process is killed


def _cache() -> Path | None:
    """The cache folder, None where nothing can be written to it. Only its owner may: what lies there is executed."""
    base = os.environ.get("XDG_CACHE_HOME", "")
    try:
        folder = (Path(base) if Path(base).is_absolute() else Path.home() / ".cache") / "flicker"
        folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        owned = folder.stat().st_uid == os.getuid() and not folder.stat().st_mode & 0o022
    except (OSError, RuntimeError):  # RuntimeError: nobody's home
        return None
    return folder if owned and os.access(folder, os.W_OK | os.X_OK) else None


def _digest(source: Path, command: list[str]) -> str:
    """Of all that decides what the compiler makes."""
    program = os.stat(command[0])
    code = [each.read_text() for each in sorted(source.parent.glob("*.?pp"))]  # one may include another
    parts = [source.name, *code, *command, str(program.st_size), str(program.st_mtime_ns), processor()]
    return hashlib.sha256("\0".join(parts).encode()).hexdigest()[:20]


def processor() -> str:
    """The processor's name and what it can do, for `-march=native` means another thing on each."""
    known = Path("/proc/cpuinfo")
    lines = known.read_text().splitlines() if known.exists() else []
    told = {line for line in lines if line.startswith(("model name", "flags", "Features", "CPU part"))}
    return "\n".join([platform.machine(), platform.processor(), *sorted(told)])


def _in_one_line(command: str, problem: Exception) -> str:
    told = str(getattr(problem, "stderr", None) or problem).strip().splitlines()
    return f"{command}: {next((line for line in told if 'error' in line), told[0] if told else 'failed')}"
