"""Small schemas, events and stacks that the recommender's tests share."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import pytest
import torch
from simulator.models.learner import Learner

from simulator.config import NO_NOISE, ModelConfig, NoiseConfig
from simulator.models.duplicates import Duplicates, parse_arms
from simulator.randomness import generator
from simulator.types import Batch, Field, Schema

MIXED = Schema(
    (
        Field("user", "user", 9),
        Field("item", "item", 11),
        Field("genres", "item", 5, slots=3),
        Field("hour", "context", 4),
    )
)
"""Single-valued fields and one that holds up to three values: odd sizes, to find whoever counts on even ones."""
SINGLE = Schema((Field("user", "user", 9), Field("item", "item", 11)))
"""Single-valued fields only: another code path, without pooling."""

MODEL = ModelConfig(dim=5, hidden=(24, 15), batch=8)


@pytest.fixture(scope="package", autouse=True)
def one_thread_per_operation() -> Iterator[None]:
    """Operations as small as these lose a hundredfold by being shared between threads on a busy machine."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


def make_events(schema: Schema, count: int, seed: int = 0, start: int = 0) -> Batch:
    """Random events; a multi-valued field holds any number of values, none included, and is padded with row 0."""
    draws = generator(seed, "test events", start)
    columns = []
    for field in schema.fields:
        values = schema.first_row(field.name) + draws.integers(0, field.vocabulary, (count, field.slots))
        if field.slots > 1:
            used = draws.integers(0, field.slots, (count, 1), endpoint=True)
            values[np.arange(field.slots) >= used] = 0
        columns.append(values)
    features = np.concatenate(columns, axis=1).astype(np.int32)
    label = (draws.random(count) < 0.4).astype(np.float32)
    first = schema.fields[0].name, schema.fields[1].name
    user, item = (features[:, schema.slot_range(name).start] - schema.first_row(name) for name in first)
    time = np.arange(start, start + count, dtype=np.float64)
    return Batch(user.astype(np.int64), item.astype(np.int64), time, features, label)


def make_stack(
    *specs: str,
    schema: Schema = MIXED,
    model: ModelConfig = MODEL,
    noise: NoiseConfig = NO_NOISE,
    fleets: int = 1,
    duplicates: int = 2,
    device: str = "cpu",
    threads: int | None = None,
) -> Duplicates:
    """A stack of small models; `relu` where no arm is named."""
    return Duplicates(
        schema,
        parse_arms(specs or ("relu",)),
        model,
        noise,
        fleets=fleets,
        duplicates=duplicates,
        seed=7,
        device=device,
        threads=threads,
    )


def make_chunks(learner: Learner, count: int) -> list[Batch]:
    """Whole chunks of random events for a learner, but for the last one, which ends in the middle of a mini-batch."""
    schema, size = learner.stack.schema, learner.chunk_events
    chunks = [make_events(schema, size, start=number * size) for number in range(count)]
    return [*chunks[:-1], chunks[-1][: size - learner.model.batch // 2 - 1]]
