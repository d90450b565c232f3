"""A click log as numbers: rows in time order, users and items numbered by first appearance, and how the log calls them.

`open_log` (open.py) returns it, ReplayWorld (replay.py) reads it. It lies in a folder of .npy files, memory-mapped when
it is read, by NumPy alone: a slice of an array costs what it reads.

    log.json                             what else a ClickLog holds, and the size of each file
    user.npy item.npy time.npy ...       its columns [n], context.npy [n, C]
    users.values.npy items.values.npy    [U, S] and [I, S], the slots of all features side by side
    users.ids.* context.0.names.* ...    texts: their bytes end to end, and where each of them starts

The folders are a cache, each named by a digest of its sources and settings. `FLICKER_CACHE` names the cache (default:
flicker in the user's cache folder), `FLICKER_CACHE_LIMIT` how large it may grow (default 20 GB): the logs that were not
opened for longest go. A log is made beside its place under a lock, then renamed: other processes wait for it, and the
remnants of a killed process are never taken for a log.

Shapes: n rows, C context slots, U users, I items, S slots of a feature.
"""

from __future__ import annotations

import fcntl
import json
import os
import re
import shutil
import sys
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from typing import TYPE_CHECKING, Any, overload

import numpy as np
from numpy.typing import NDArray

from simulator.files import parse_bytes, write_atomically, writing
from simulator.types import Doubles, Ints, Rows

if TYPE_CHECKING:
    import pyarrow as pa

CACHE, LIMIT = "FLICKER_CACHE", "FLICKER_CACHE_LIMIT"
DEFAULT_LIMIT = "20 GB"
LOCK_DIGITS = 2
"""Of a log's name, which name its lock: a lock is shared by a 256th of all logs, and lock files stay few."""
LOG_NAMES = re.compile(r"[0-9a-f]{32}|\.[0-9a-f]{32}\.\d+")
"""Names of logs, and of those in the making; no other files in the folder are touched."""

META = "log.json"
COLUMNS = "user", "item", "time", "label", "context"
OPTIONAL = "weight", "slate", "previous"
FACTS = "labelled", "position", "history", "skipped_rows", "notes"
CHUNK = 65_536
"""Texts decoded at once where all are asked for."""


@dataclass(frozen=True)
class Feature:
    """A field beside the identities: a value is a number from 0, -1 is empty."""

    name: str
    names: Sequence[str]
    """How the log writes each value; at least one. A bucket of numbers is written as its range, such as `3.5 to 7`."""
    slots: int = 1
    """Values that one cell can hold."""
    values: Rows | None = None
    """[U, S] or [I, S] of each user or item; None for a context feature, whose values are in `ClickLog.context`."""


@dataclass(frozen=True)
class Entities:
    """All users, or all items, by number. Items of the item table that the log never shows come last."""

    ids: Sequence[str]
    """As the log writes them."""
    titles: Sequence[str] | None = None
    """What people read, where the item table names a column for it."""
    features: tuple[Feature, ...] = ()

    def __len__(self) -> int:
        return len(self.ids)


@dataclass(frozen=True)
class ClickLog:
    """All rows of a log."""

    name: str
    labelled: bool
    """Whether rows carry labels; else every row is an engagement, and negatives are to be sampled."""
    user: NDArray[np.int32]
    """[n] user number."""
    item: NDArray[np.int32]
    """[n] item number."""
    time: Doubles
    """[n] unix seconds, never decreasing."""
    label: NDArray[np.uint8]
    """[n] 1 for an engagement, else 0; all 1 where there are no labels."""
    context: Rows
    """[n, C] values of the context features, slots side by side in their order; -1 is empty."""
    users: Entities
    items: Entities
    context_features: tuple[Feature, ...] = ()
    weight: NDArray[np.float32] | None = None
    """[n] scales the gradient, 0 or more; None: 1 everywhere."""
    slate: NDArray[np.int32] | None = None
    """[n] page of each row; rows of one page are one query. None where the log names no pages."""
    position: str | None = None
    """Name of the context feature that is the position on the page, value 0 for the first; None where there is none."""
    previous: NDArray[np.int64] | None = None
    """[n] the row of the same user's last engagement before this row, -1 for none; None without history."""
    history: int = 0
    """Items of the user's history that are a feature, 0 for none."""
    skipped_rows: int = 0
    """Damaged rows that were left out."""
    notes: Sequence[str] = ()
    """Deviations from the mapping, one line each."""

    def __len__(self) -> int:
        return len(self.time)


class MappedTexts(Sequence[str]):
    """Texts that stay in their file until they are read."""

    def __init__(self, offsets: Ints, data: np.ndarray[Any, np.dtype[np.uint8]]) -> None:
        """`offsets` [n + 1] in the bytes `data`."""
        self._offsets, self._data = offsets, memoryview(data.data)

    def __len__(self) -> int:
        return len(self._offsets) - 1

    @overload
    def __getitem__(self, place: int) -> str: ...
    @overload
    def __getitem__(self, place: slice) -> list[str]: ...
    def __getitem__(self, place: int | slice) -> str | list[str]:
        if isinstance(place, slice):
            return [self[number] for number in range(len(self))[place]]
        number = range(len(self))[place]
        return str(self._data[self._offsets[number] : self._offsets[number + 1]], "utf-8", "replace")

    def __iter__(self) -> Iterator[str]:
        for first in range(0, len(self), CHUNK):
            for start, stop in pairwise(self._offsets[first : first + CHUNK + 1].tolist()):
                yield str(self._data[start:stop], "utf-8", "replace")


class Writer:
    """Writes a log into an empty folder, column by column; it is whole once `close` is through."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self._features: dict[str, list[tuple[str, int]]] = {"users": [], "items": [], "context": []}

    def array(self, name: str, array: np.ndarray[Any, Any]) -> np.ndarray[Any, Any]:
        """One column, contiguous; returns it as it lies in its file."""
        return self.parts(name, len(array), [array])

    def parts(self, name: str, rows: int, parts: Iterable[np.ndarray[Any, Any]]) -> np.ndarray[Any, Any]:
        """The same in parts, at least one, that follow each other."""
        with (self.folder / f"{name}.npy").open("wb") as file:
            for part in parts:
                if not file.tell():
                    header = np.lib.format.header_data_from_array_1_0(part)
                    np.lib.format.write_array_header_1_0(file, {**header, "shape": (rows, *part.shape[1:])})
                file.write(part.data)  # not by np.save, which does not tell that a disk is full
        return _array(self.folder, name)

    def texts(self, name: str, texts: pa.LargeStringArray) -> None:
        """Texts without nulls."""
        _, offsets, data = texts.buffers()
        places = np.frombuffer(offsets or bytes(8), np.int64, len(texts) + 1, 8 * texts.offset)
        used = np.frombuffer(data, np.uint8)[places[0] : places[-1]] if data else np.empty(0, np.uint8)
        self.array(f"{name}.offsets", places - places[0])
        self.array(f"{name}.bytes", used)

    def feature(self, group: str, name: str, slots: int, names: pa.LargeStringArray) -> None:
        """A feature of the users, the items or the context, in the order of their slots; its values are an array."""
        self.texts(f"{group}.{len(self._features[group])}.names", names)
        self._features[group].append((name, slots))

    def close(self, facts: dict[str, Any]) -> None:
        """Write the facts, FACTS, which makes the log valid."""
        assert set(facts) == set(FACTS)
        sizes = {file.name: file.stat().st_size for file in self.folder.iterdir()}
        text = json.dumps({**facts, "features": self._features, "sizes": sizes}, indent=1)
        write_atomically(self.folder / META, text.encode())


def is_whole(folder: Path) -> bool:
    """Whether a log lies in a folder, every file as large as it was written."""
    try:
        sizes = json.loads((folder / META).read_text())["sizes"]
        return all((folder / name).stat().st_size == size for name, size in sizes.items())
    except (OSError, ValueError, KeyError, AttributeError):
        return False


def read_log(folder: Path) -> ClickLog:
    """The log that lies in a folder."""
    meta = json.loads((folder / META).read_text())
    columns: dict[str, Any] = {name: _array(folder, name) for name in COLUMNS}
    columns |= {name: _array(folder, name) for name in OPTIONAL if f"{name}.npy" in meta["sizes"]}
    return ClickLog(
        **columns,
        name=folder.name,
        **{name: meta[name] for name in FACTS},
        users=_entities(folder, "users", meta),
        items=_entities(folder, "items", meta),
        context_features=_features(folder, "context", meta, None),
    )


def _entities(folder: Path, group: str, meta: dict[str, Any]) -> Entities:
    titles = _texts(folder, f"{group}.titles") if f"{group}.titles.bytes.npy" in meta["sizes"] else None
    features = _features(folder, group, meta, _array(folder, f"{group}.values"))
    return Entities(_texts(folder, f"{group}.ids"), titles, features)


def _features(folder: Path, group: str, meta: dict[str, Any], values: Rows | None) -> tuple[Feature, ...]:
    features, first = [], 0
    for number, (name, slots) in enumerate(meta["features"][group]):
        slots_values = None if values is None else values[:, first : first + slots]
        features.append(Feature(name, _texts(folder, f"{group}.{number}.names"), slots, slots_values))
        first += slots
    return tuple(features)


def _array(folder: Path, name: str) -> np.ndarray[Any, Any]:
    """Mapped, as a plain array: slices of NumPy's memmap class take five times as long."""
    path = folder / f"{name}.npy"
    array: np.ndarray[Any, Any] = np.load(path, mmap_mode="r" if path.stat().st_size > 1_024 else None)
    return array.view(np.ndarray)


def _texts(folder: Path, name: str) -> MappedTexts:
    return MappedTexts(_array(folder, f"{name}.offsets"), _array(folder, f"{name}.bytes"))


def cached(key: str, make: Callable[[Path], None]) -> ClickLog:
    """The log of a key; `make` writes it into an empty folder where it is not there yet.

    ResultError where the cache cannot be written or is full, SettingError for a limit that is none.
    """
    folder, limit = cache_folder(), size_limit()
    with writing(CACHE, folder):
        if (log := opened(folder / key)) is not None:
            return log
        folder.mkdir(parents=True, exist_ok=True)
        with locked(folder, key):
            if (log := opened(folder / key)) is not None:
                return log  # by somebody else, meanwhile
            for remnant in (*folder.glob(f".{key}.*"), *folder.glob(key)):
                shutil.rmtree(remnant)
            making = folder / f".{key}.{os.getpid()}"
            making.mkdir()
            try:
                make(making)
                os.rename(making, folder / key)
            finally:
                shutil.rmtree(making, ignore_errors=True)
            log = read_log(folder / key)
        evict(folder, limit, key)
    return log


def opened(place: Path) -> ClickLog | None:
    """The log at its place, if it is whole; it counts as used now. No lock: a log that is there does not change."""
    try:
        log = read_log(place) if is_whole(place) else None
    except FileNotFoundError:  # evicted in between
        return None
    with suppress(OSError):  # somebody else's, to be read alone
        os.utime(place)
    return log


def cache_folder() -> Path:
    """FLICKER_CACHE, or the platform's."""
    if configured := os.environ.get(CACHE, "").strip():
        return Path(configured).expanduser()
    default = "~/Library/Caches" if sys.platform == "darwin" else os.environ.get("XDG_CACHE_HOME") or "~/.cache"
    return Path(default).expanduser() / "flicker"


def size_limit() -> int:
    """Bytes that FLICKER_CACHE_LIMIT allows."""
    return parse_bytes(LIMIT, os.environ.get(LIMIT, "").strip() or DEFAULT_LIMIT)


@contextmanager
def locked(folder: Path, key: str, wait: bool = True) -> Iterator[None]:
    """Hold the lock of a log; the system releases it when a process ends, however that happens.

    BlockingIOError where another process holds it, unless we `wait`. A lock is shared by a 256th of all logs.
    """
    with (folder / f"{key[:LOCK_DIGITS]}.lock").open("ab") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            if not wait:
                raise
            print(f"{CACHE}: another process reads a log into {folder}; waiting for it ...", file=sys.stderr)
            fcntl.flock(file, fcntl.LOCK_EX)
        yield


def evict(folder: Path, limit: int, keep: str) -> None:
    """Remove remnants of killed processes, and least recently used logs until the others are within the limit (LRU)."""
    logs = []
    for path in folder.iterdir():
        if not LOG_NAMES.fullmatch(path.name) or not (path.name[0] == "." or (path / META).is_file()):
            continue
        with suppress(OSError):  # others evict, too
            size = sum(file.stat().st_size for file in path.rglob("*"))
            logs.append((path.name[0] != ".", path.stat().st_mtime_ns, size, path))
    total = sum(size for _, _, size, _ in logs)
    for is_log, _, size, path in sorted(logs):
        key = path.name if is_log else path.name.split(".")[1]
        if key != keep and (total > limit or not is_log):
            with suppress(OSError), locked(folder, key, wait=False):
                shutil.rmtree(path)
                total -= size
