"""Throw-away until the new ingest is there: the old readers' blocks, joined, as a ClickLog."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from simulator.config import ReplayConfig
from simulator.errors import DataError
from simulator.types import Rows
from simulator.world.clicklog import ClickLog, Entities, Feature
from simulator.world.log import Block, Log
from simulator.world.movielens import open_movielens
from simulator.world.tabular import open_mapped


def open_log(config: ReplayConfig) -> ClickLog:
    """The log at the configured path; DataError where there is none or it is damaged."""
    path = Path(config.path)
    if not path.exists():
        raise DataError(f"{path}: no such file or folder; give a folder with ratings.dat or a mapping file *.toml")
    if not path.is_dir() and path.suffix != ".toml":
        raise DataError(f"{path}: not a mapping file; give a *.toml that names the log's columns, or a folder")
    log: Log = open_movielens(path, config) if path.is_dir() else open_mapped(path, config)
    schema, encoder = log.encoder.schema, log.encoder

    def features(side: str, rows: Rows) -> tuple[Feature, ...]:
        found, start = [], 1
        for field in [field for field in schema.fields if field.side == side][1:]:
            values = rows[:, start : start + field.slots]
            start += field.slots
            names = [encoder.name(field.name, value) for value in range(field.vocabulary)]
            values = np.where(values > 0, values - schema.first_row(field.name), -1)
            found.append(Feature(field.name, names, field.slots, values))
        return tuple(found)

    rows = Block.concatenate(list(log.blocks(0)))
    context = [field for field in schema.fields if field.side == "context"]
    first = [schema.first_row(field.name) for field in context for _ in range(field.slots)]
    ids = [[str(number) for number in range(len(rows))] for rows in (encoder.user_rows, encoder.item_rows)]
    return ClickLog(
        log.name,
        log.labelled,
        rows.user.astype(np.int32),
        rows.item.astype(np.int32),
        rows.time,
        rows.label.astype(np.uint8),
        np.where(rows.context > 0, rows.context - np.array(first, np.int32), -1).astype(np.int32),
        Entities(ids[0], None, features("user", encoder.user_rows)),
        Entities(ids[1], None, features("item", encoder.item_rows)),
        tuple(
            Feature(field.name, [encoder.name(field.name, v) for v in range(field.vocabulary)], field.slots)
            for field in context
        ),
        skipped_rows=log.skipped_rows,
    )
