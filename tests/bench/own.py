"""What a module of a user's costs beside the built-in model of the same shape, in learning and in serving."""

from __future__ import annotations

import os
from dataclasses import replace

import numpy as np
from engine import no_native
from figures import Figure, ratio, speed
from interleave import interleave
from learning import engine_learns, make_chunks, plain_models_learn, schema, sized_engine
from sizes import Size

from simulator.config import NO_NOISE
from simulator.models.factories import ALLOWED
from simulator.models.native_engine import NativeEngine
from simulator.models.own_engine import CustomEngine
from simulator.models.ranker import Rankers
from simulator.models.torch_engine import TorchEngine
from simulator.types import Schema

FACTORY = "own_model:make"


def spec(size: Size, relu: str = "") -> str:
    """The arm of the same shape as the built-in model."""
    hidden = "x".join(map(str, size.model.hidden))
    return f"torch:{FACTORY},dim={size.model.dim},hidden={hidden}" + (f",relu={relu}" if relu else "")


def measure_learning(size: Size) -> list[Figure]:
    """A step of all duplicates on one thread, and on two, each of which has half of the models."""
    chunks, own = make_chunks(size), "own module"
    variants = {
        own: engine_learns(CustomEngine, size, chunks, spec(size)),
        "SmeLU": engine_learns(CustomEngine, size, chunks, spec(size, "smelu:beta=1")),
        "2 threads": engine_learns(CustomEngine, size, chunks, spec(size), threads=2),
        "torch": engine_learns(TorchEngine, size, chunks),
        "plain": plain_models_learn(size, chunks),
    }
    if not no_native():
        variants["native"] = engine_learns(NativeEngine, size, chunks)
    passes = interleave("modules of a user's learn", variants, size.rounds, size.warm_up)
    native = [] if no_native() else [ratio("own module / native engine, learning", passes, own, "native")]
    return [
        ratio("own module / PyTorch engine, learning", passes, own, "torch"),
        *native,
        ratio("own module / plain models, learning", passes, own, "plain"),
        ratio("own module, SmeLU / ReLU, learning", passes, "SmeLU", own),
        ratio("own module, 1 thread / 2 threads", passes, own, "2 threads", clock="wall"),
        speed("own module", "model-examples/s", passes[own], size.events * size.duplicates),
    ]


def measure_serving(size: Size) -> list[Figure]:
    """Queries ranked one after the other by what the engines publish."""
    os.environ[ALLOWED] = FACTORY
    fields, draws = schema(size).fields, np.random.default_rng(0)
    half = len(fields) // 2
    sided = Schema((*fields[:half], *(replace(field, side="item") for field in fields[half:])))
    of = {side: [f for f in sided.fields if f.side == side] for side in ("user", "item")}
    rows = {
        side: np.column_stack([sided.first_row(f.name) + draws.integers(0, f.vocabulary, 1_000) for f in own])
        for side, own in of.items()
    }
    user_rows, item_rows = (rows[side].astype(np.int32) for side in ("user", "item"))
    items = draws.permutation(1_000)[None, : size.candidates]
    nothing = np.empty((1, 0), np.int32)
    kinds = {"own module": (CustomEngine, spec(size)), "torch": (TorchEngine, "relu")}
    kinds |= {} if no_native() else {"native": (NativeEngine, "relu")}
    variants = {}
    for name, (kind, arm) in kinds.items():
        engine = sized_engine(kind, replace(size, duplicates=1), arm, NO_NOISE, fields=sided)
        made = arm, engine.name, engine.model, engine.published(0)
        ranker = Rankers()(sided, *made, user_rows, item_rows, engine.identity)

        def rank(number: int, ranker=ranker) -> None:
            for query in range(size.queries):
                ranker.scores(np.array([query % 1_000]), nothing, items)

        variants[name] = rank
    passes = interleave("modules of a user's serve", variants, size.rounds, size.warm_up)
    against = [("PyTorch", "torch")] + ([] if no_native() else [("native", "native")])
    return [
        *(ratio(f"own module / built-in by {words}, a query", passes, "own module", name) for words, name in against),
        speed(f"own module scores {size.candidates} candidates", "queries/s", passes["own module"], size.queries),
    ]
