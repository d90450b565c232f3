"""`flicker run --keep-predictions`: the final measurement as prediction logs that `flicker compare` reads.

One Parquet file per arm, fleet, duplicate and generation in OUT/predictions, written one after the other. Rows of role
`query` are the candidates of each final query, those of role `event` the held-out events, by the newest generation
alone. `score` is the log-odds exactly as they were computed (the file says so), `probability` their sigmoid, `label`
what is known to be true: a probability on a synthetic world, what the log says on a replayed one. Items, users, and a
column for each single-valued field of user and context, for --by, are as the log writes them.

Shapes: S served models, n events, R rows, F columns for --by.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from simulator.files import writing
from simulator.measures.comparison import Rankings, Shape
from simulator.predictions.read import SCORE, arrow
from simulator.types import Batch, Field, Floats, Integers, Query, World

COLUMNS = ("q_id", "doc_id", "user", "label", "score", "probability", "arm", "fleet", "duplicate", "generation", "role")
"""Of every file; a field of one of these names has no column of its own."""


def keep_predictions(
    folder: Path,
    world: World,
    labels: Sequence[str],
    shape: Shape,
    queries: Sequence[Query],
    generations: Mapping[int, Rankings],
    held_out: Batch,
    logits: Floats,
) -> None:
    """Write predictions of S models: rankings of the queries by each generation, logits [S, n] of the held-out events,
    the last of the world, by the newest. Raises ResultError where the folder cannot be written."""
    candidates = [len(query.candidates) for query in queries]
    candidate_rows = _columns(
        world,
        np.repeat([query.id for query in queries], candidates),
        np.concatenate([query.candidates for query in queries]),
        np.repeat([query.user for query in queries], candidates),
        np.concatenate([query.relevance for query in queries]),
        np.concatenate([query.features for query in queries]),
    )
    numbers = world.events - len(held_out) + np.arange(len(held_out))
    events = _columns(world, numbers, held_out.item, held_out.user, held_out.label, held_out.features)
    with writing("out", folder):
        folder.mkdir(parents=True, exist_ok=True)
        for arm, label in enumerate(labels):
            for (fleet, duplicate), model in np.ndenumerate(shape.models(arm)):
                for generation, rankings in generations.items():
                    model_columns = {"arm": label, "fleet": fleet, "duplicate": duplicate, "generation": generation}
                    parts = [_table(candidate_rows, rankings.flat(model), model_columns | {"role": "query"})]
                    if generation == max(generations):
                        parts.append(_table(events, logits[model], model_columns | {"role": "event"}))
                    name = f"arm{arm}-fleet{fleet}-duplicate{duplicate}-generation{generation}.parquet"
                    table = arrow().concat_tables(parts, promote_options="default").unify_dictionaries()
                    arrow().parquet.write_table(table.replace_schema_metadata(SCORE), folder / name, compression="zstd")


def _columns(
    world: World, query: Integers, item: Integers, user: Integers, label: Floats, features: Integers
) -> dict[str, Any]:
    """Columns of R rows with table rows [R, S] that do not depend on the model."""
    pa, schema, names = arrow(), world.schema, world.names
    columns = {"q_id": pa.array(query), "doc_id": pa.array(item), "user": pa.array(user), "label": pa.array(label)}
    if names.users:
        columns |= {"doc_id": _named(item, names.item), "user": _named(user, names.user)}

    def named(field: Field) -> Any:
        first = schema.first_row(field.name)
        return _named(
            features[:, schema.slot_range(field.name).start], lambda row: world.name_of(field.name, row - first)
        )

    by = (field for field in schema.fields if field.side != "item" and field.slots == 1 and field.name not in COLUMNS)
    return columns | {field.name: named(field) for field in by}


def _named(numbers: Integers, name: Callable[[int], str]) -> Any:
    """Names [R] of numbers [R], of which many are alike."""
    distinct, place = np.unique(numbers, return_inverse=True)
    words = arrow().array([name(number) for number in distinct.tolist()], arrow().string())
    return arrow().DictionaryArray.from_arrays(place.astype(np.int32), words)


def _table(rows: Mapping[str, Any], scores: Floats, constants: Mapping[str, Any]) -> Any:
    """Rows with their scores, and constant columns."""
    pa = arrow()
    probabilities = 1 / (1 + np.exp(-scores.astype(np.float64).clip(-700, 700)))
    columns = dict(rows) | {"score": pa.array(scores), "probability": pa.array(probabilities)}
    for name, value in constants.items():
        text = isinstance(value, str)
        column = pa.repeat(pa.scalar(value, pa.string() if text else pa.int32()), len(scores))
        columns[name] = column.dictionary_encode() if text else column
    return pa.table(columns)
