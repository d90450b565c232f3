"""The native library: built beforehand (build.py), chosen and loaded here. Nothing is compiled at run time.

Its kernels are called by models/native, its coder by world/values.py.
"""

from __future__ import annotations

import functools
import os
from ctypes import CDLL, c_float, c_int, c_int64, c_void_p
from pathlib import Path
from typing import Any

from simulator.native import build

LAYER: list[Any] = [c_int, c_int, *[c_void_p] * 6, c_int64, c_int64]
SIGNATURES: dict[str, tuple[Any, list[Any]]] = {
    "cpu_level": (c_int, []),
    "layer_forward": (c_int, [*LAYER, c_void_p]),
    "layer_backward": (c_int, [*LAYER, *[c_void_p] * 3]),
    "memory_size": (c_int64, [c_void_p]),
    "score_events": (c_int64, [*[c_void_p] * 4, c_int64, *[c_void_p] * 2]),
    "learn_chunk": (c_int64, [*[c_void_p] * 9, c_int64, c_float, *[c_void_p] * 4]),
    "panel_width": (c_int, []),
    "score_candidates": (None, [c_void_p, c_int64, c_int64, *[c_void_p] * 4]),
    "coder_make": (c_void_p, []),
    "coder_free": (None, [c_void_p]),
    "coder_code": (c_int64, [*[c_void_p] * 3, c_int64, c_void_p]),
    "coder_bytes": (c_int64, [c_void_p]),
    "coder_copy": (None, [*[c_void_p] * 3]),
}
"""Name -> result and arguments, as in the C++."""


class NativeMissing(Exception):
    """There is no native library here, or it cannot be used; the message is one line, and says why."""


def library() -> CDLL:
    """The best library that this processor can run, the same for the whole process. Raises NativeMissing."""
    found = _library()
    if isinstance(found, str):
        raise NativeMissing(found)
    return found


@functools.cache
def _library() -> CDLL | str:
    """It, or why there is none."""
    try:
        return load(runnable()[-1])
    except NativeMissing as problem:
        return str(problem)


def runnable(folder: Path = build.LIBRARIES) -> list[Path]:
    """The libraries that this processor can run, the best last. Raises NativeMissing."""
    files = [folder / f"{name}.so" for name in build.variants()]
    return files[: max(1, load(files[0]).cpu_level() - 1)]


def load(file: Path) -> CDLL:
    """A library of ours. Raises NativeMissing where it is not there, is no library, or comes from other sources."""
    try:
        built, here = build.digest_in(file), build.digest()
        if here not in ("", built):
            raise NativeMissing("stale or damaged, not built from these sources: run make setup")
        loaded = CDLL(os.fspath(file))
    except FileNotFoundError:
        raise NativeMissing("no library: run make setup where a C++ compiler is") from None
    except OSError as problem:
        raise NativeMissing(f"no library that can be loaded: {' '.join(str(problem).split())}") from None
    try:
        for name, (result, arguments) in SIGNATURES.items():
            function = getattr(loaded, name)
            function.restype, function.argtypes = result, arguments
    except AttributeError:
        raise NativeMissing("stale or damaged: run make setup") from None
    return loaded
