"""Opens the world of a configuration."""

from __future__ import annotations

from simulator.config import ReplayConfig, SyntheticConfig
from simulator.errors import DataError
from simulator.world.ingest import open_log
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
