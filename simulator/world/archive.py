"""A click log as a folder of .npy files, memory-mapped when it is read.

    log.json                             what else a ClickLog holds, and the size of each file
    user.npy item.npy time.npy ...       its columns [n], context.npy [n, C]
    users.values.npy items.values.npy    [U, S] and [I, S], the slots of all features side by side
    users.ids.* context.0.names.* ...    texts: their bytes end to end, and where each of them starts

Nothing but NumPy is needed to read it.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator, Sequence
from itertools import pairwise
from pathlib import Path
from typing import TYPE_CHECKING, Any, overload

import numpy as np

from simulator.files import write_atomically
from simulator.types import Ints, Rows
from simulator.world.clicklog import ClickLog, Entities, Feature

if TYPE_CHECKING:
    import pyarrow as pa

META = "log.json"
COLUMNS = "user", "item", "time", "label", "context"
OPTIONAL = "weight", "slate", "previous"
FACTS = "labelled", "position", "history", "skipped_rows", "notes"
CHUNK = 65_536
"""Texts decoded at once where all are asked for."""


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


def read(folder: Path) -> ClickLog:
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
