"""Opens the world of a configuration. A log is read once: checked, coded, sorted by time, and kept in a cache.

    open_log -> cached (clicklog.py) -> Coding (coding.py): read the files (rows.py), sort, number (values.py), write

pyarrow, which takes a moment to load, is imported when a log is opened.
"""

from __future__ import annotations

import hashlib
from dataclasses import replace
from pathlib import Path

from simulator.config import ReplayConfig, SyntheticConfig
from simulator.errors import DataError
from simulator.world.clicklog import ClickLog, cached
from simulator.world.replay import ReplayWorld
from simulator.world.stream import SyntheticWorld


def open_world(config: SyntheticConfig | ReplayConfig, seed: int, hash_rows: int = 0) -> SyntheticWorld | ReplayWorld:
    """The world of a config, `hash_rows` that of its model. Raises DataError or SettingError where a log is bad."""
    if isinstance(config, SyntheticConfig):
        return SyntheticWorld(config, seed, hash_rows)
    try:
        return ReplayWorld(config, open_log(config), seed, hash_rows)
    except OSError as problem:  # of any file that the log consists of
        path, reason = problem.filename or config.path, problem.strerror or problem
        raise DataError(f"{path}: {reason}: give a log that can be read") from None


VERSION = 2
"""Version of the archive's content: a log read by another version is read again."""


def open_log(config: ReplayConfig, native: bool = True) -> ClickLog:
    """The log at the configured path, from the cache where it has been read before.

    `native`: with the compiled coder where there is one; the numbers are the same without. DataError naming file and
    row where the log or its mapping is wrong, ResultError where the cache cannot be written.
    """
    from simulator.world.families import read_mapping
    from simulator.world.source import DamagedRows, Source

    mapping, damage = read_mapping(config.path), DamagedRows(config.bad_rows)
    tables = [(mapping.log, mapping.columns)]
    tables += [(one.table, one.columns) for one in (mapping.users, mapping.items) if one]
    sources = [Source(table, damage) for table, _ in tables]
    for (table, wanted), source in zip(tables, sources, strict=True):
        mapping.check_columns(table, wanted, source.columns)
    meaning = VERSION, replace(mapping, path=Path()), config.bad_rows, config.limit, [s.parts for s in sources]
    key = hashlib.sha256(repr(meaning).encode()).hexdigest()[:32]

    def make(folder: Path) -> None:
        from simulator.world.coding import Coding

        Coding(mapping, damage, folder, native).run(sources, config.limit)
        for (table, _), source in zip(tables, sources, strict=True):
            if Source(table, damage).parts != source.parts:
                raise DataError(f"{table.path}: changed while it was being read; start again when it stays as it is")

    return replace(cached(key, make), name=mapping.name)
