"""`flicker run --keep-predictions`: the final measurement as prediction logs that `flicker compare` reads.

One Parquet file per arm, fleet, duplicate and generation in OUT/predictions, written one after the other. Rows of role
`query` are the candidates of each final query, those of role `event` the held-out events, by the newest generation
alone. `score` is the log-odds exactly as they were computed (the file says so), `probability` their sigmoid, `label`
what is known to be true: a probability on a synthetic world, what the log says on a replayed one.

Shapes: S served models, n events.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from simulator.comparison import Rankings, Shape
from simulator.files import writing
from simulator.predictions.read import SCORE, arrow
from simulator.types import Batch, Floats, Query


def keep_predictions(
    folder: Path,
    labels: Sequence[str],
    shape: Shape,
    queries: Sequence[Query],
    generations: Mapping[int, Rankings],
    held_out: Batch,
    first_event: int,
    logits: Floats,
) -> None:
    """Write what S models said: rankings of the queries by each generation, and logits [S, n] of the held-out events by
    the newest; the log numbers these from `first_event` on. Raises ResultError where the folder cannot be written."""
    candidates = [len(query.candidates) for query in queries]
    asked = {
        "q_id": np.repeat([query.id for query in queries], candidates),
        "doc_id": np.concatenate([query.candidates for query in queries]),
        "user": np.repeat([query.user for query in queries], candidates),
        "label": np.concatenate([query.relevance for query in queries]),
    }
    events = {
        "q_id": first_event + np.arange(len(held_out)),
        "doc_id": held_out.item,
        "user": held_out.user,
        "label": held_out.label,
    }
    with writing("out", folder):
        folder.mkdir(parents=True, exist_ok=True)
        for arm, label in enumerate(labels):
            for (fleet, duplicate), model in np.ndenumerate(shape.models(arm)):
                for generation, rankings in generations.items():
                    own = {"arm": label, "fleet": fleet, "duplicate": duplicate, "generation": generation}
                    parts = [_table(asked, rankings.flat(model), own | {"role": "query"})]
                    if generation == max(generations):
                        parts.append(_table(events, logits[model], own | {"role": "event"}))
                    name = f"arm{arm}-fleet{fleet}-duplicate{duplicate}-generation{generation}.parquet"
                    table = arrow().concat_tables(parts).replace_schema_metadata(SCORE)
                    arrow().parquet.write_table(table, folder / name, compression="zstd")


def _table(rows: Mapping[str, Any], scores: Floats, same: Mapping[str, Any]) -> Any:
    """Rows with their scores, and what is the same for all of them."""
    pa = arrow()
    chances = 1 / (1 + np.exp(-scores.astype(np.float64).clip(-700, 700)))
    columns = {name: pa.array(column) for name, column in rows.items()}
    columns |= {"score": pa.array(scores), "probability": pa.array(chances)}
    for name, value in same.items():
        text = isinstance(value, str)
        column = pa.repeat(pa.scalar(value, pa.string() if text else pa.int32()), len(scores))
        columns[name] = column.dictionary_encode() if text else column
    return pa.table(columns)
