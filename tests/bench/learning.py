"""A step of all duplicates: against plain models one after another, by either engine, with other activations."""

from __future__ import annotations

from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from itertools import pairwise

import numpy as np
import torch
from engine import make_engine, no_native
from figures import Figure, ratio, speed
from interleave import interleave
from plain import PlainLearner, plain_copies
from sizes import Size

from simulator.config import NO_NOISE, NoiseConfig
from simulator.models.engine import Engine
from simulator.models.native_engine import NativeEngine
from simulator.models.torch_engine import TorchEngine
from simulator.randomness import generator
from simulator.types import Batch, Field, Schema
from simulator.world.population import Zipf

CHUNKS = 8
"""Made in advance; round r learns chunk r modulo this, so that memory is touched as in a run."""

Work = Callable[[int], object]
Kind = type[Engine]


def measure_native(size: Size) -> list[Figure]:
    """The native engine against plain models, with one thread and with two, each of which has half of the models."""
    if no_native():
        return []
    chunks = make_chunks(size)
    variants = {
        "stacked": engine_learns(NativeEngine, size, chunks),
        "plain": plain_models_learn(size, chunks),
        "plain, fused Adagrad": plain_models_learn(size, chunks, fused=True),
        "products": products(size),
    }
    one = interleave("stacked step, 1 thread", variants, size.rounds, size.warm_up)
    variants = {
        "stacked": engine_learns(NativeEngine, size, chunks, threads=2),
        "on one": engine_learns(NativeEngine, size, chunks),
        "plain": plain_models_learn(size, chunks, threads=2),
    }
    two = interleave("stacked step, 2 threads", variants, size.rounds, size.warm_up)
    examples, unit, name = size.events * size.duplicates, "model-examples/s", "plain models / stacked step"
    return [
        ratio(name, one, "plain", "stacked"),
        ratio("matrix products alone / stacked step", one, "products", "stacked"),
        ratio(f"{name}, fused Adagrad", one, "plain, fused Adagrad", "stacked"),
        ratio(f"{name}, 2 threads each", two, "plain", "stacked", clock="wall"),
        ratio("stacked step, 1 thread / 2 threads", two, "on one", "stacked", clock="wall"),
        speed("stacked step", unit, one["stacked"], examples),
        speed("plain models", unit, one["plain"], examples),
        speed("stacked step, 2 threads", unit, two["stacked"], examples, clock="wall"),
    ]


def measure_torch(size: Size) -> list[Figure]:
    """PyTorch's engine against plain models, which have one thread or two as it has, and against the native engine."""
    chunks = make_chunks(size)
    variants = {
        "engine": engine_learns(TorchEngine, size, chunks),
        "engine, 2 threads": engine_learns(TorchEngine, size, chunks, threads=2),
        "plain": plain_models_learn(size, chunks),
        "plain, 2 threads": plain_models_learn(size, chunks, threads=2),
        "SmeLU": engine_learns(TorchEngine, size, chunks, "smelu:beta=1"),
    }
    if not no_native():
        variants["native"] = engine_learns(NativeEngine, size, chunks)
    passes = interleave("PyTorch engine", variants, size.rounds, size.warm_up)
    examples, unit, two = size.events * size.duplicates, "model-examples/s", "engine, 2 threads"
    native = [] if no_native() else [ratio("PyTorch engine / native engine", passes, "engine", "native")]
    return [
        ratio("plain models / PyTorch engine, 2 threads", passes, "plain", two, clock="wall"),
        ratio("plain models, 2 threads / PyTorch engine, 2 threads", passes, "plain, 2 threads", two, clock="wall"),
        ratio("plain models / PyTorch engine", passes, "plain", "engine"),
        ratio("smelu:beta=1 step / relu step, PyTorch engine", passes, "SmeLU", "engine"),
        *native,
        speed("PyTorch engine", unit, passes["engine"], examples),
        speed("PyTorch engine, 2 threads", unit, passes[two], examples, clock="wall"),
    ]


def measure_variants(size: Size) -> list[Figure]:
    """What other activations cost, and what noise costs, against ReLU with noise."""
    kind: Kind = TorchEngine if no_native() else NativeEngine
    chunks = make_chunks(size)
    specs = "relu", "smelu:beta=1", "gelu", "swish", "softplus"
    variants = {spec: engine_learns(kind, size, chunks, spec) for spec in specs}
    variants["relu without noise"] = engine_learns(kind, size, chunks, noise=NO_NOISE)
    passes = interleave("activations and noise", variants, size.rounds, size.warm_up)
    by = " by PyTorch" if kind is TorchEngine else ""
    return [ratio(f"{v} step / relu step{by}", passes, v, "relu") for v in variants if v != "relu"]


def engine_learns(
    kind: Kind,
    size: Size,
    chunks: list[Batch],
    spec: str = "relu",
    *,
    noise: NoiseConfig | None = None,
    threads: int = 1,
) -> Work:
    """A pass: all duplicates of an arm learn one chunk in one call, shuffled unless `noise` says otherwise."""
    engine = sized_engine(kind, size, spec, noise or NoiseConfig(window=size.window), threads)
    return lambda number: engine.learn(chunks[number % len(chunks)])


def sized_engine(
    kind: Kind,
    size: Size,
    spec: str,
    noise: NoiseConfig,
    threads: int = 1,
    device: str = "cpu",
    fields: Schema | None = None,
) -> Engine:
    """For the duplicates of one arm, on the fields of `schema` unless others are given."""
    counts = {"duplicates": size.duplicates, "threads": threads}
    return make_engine(kind, fields or schema(size), spec, size.model, noise, device=device, **counts)


def plain_models_learn(size: Size, chunks: list[Batch], *, fused: bool = False, threads: int = 1) -> Work:
    """A pass: as many plain models learn the same chunk, one after another. They need not shuffle it."""
    data = [(torch.from_numpy(chunk.features), torch.from_numpy(chunk.label)) for chunk in chunks]
    copied = plain_copies(sized_engine(TorchEngine, size, "relu", NO_NOISE))
    learners = [PlainLearner(model, size.model, fused) for model in copied]
    pool = ThreadPoolExecutor(threads, initializer=torch.set_num_threads, initargs=(1,))
    return lambda number: list(pool.map(lambda learner: learner.learn(*data[number % len(data)]), learners))


def products(size: Size) -> Work:
    """A pass: the matrix products of as many models, forward and backward, with nothing between them."""
    widths = len(schema(size).fields) * size.model.dim, *size.model.hidden, 1
    draws, batch = torch.Generator().manual_seed(0), size.model.batch
    values, grads = ([torch.randn(batch, width, generator=draws) for width in widths] for _ in range(2))
    models = [[torch.randn(shape, generator=draws) for shape in pairwise(widths)] for _ in range(size.duplicates)]
    weight_grads = [torch.empty_like(weight) for weight in models[0]]
    found = [torch.empty(batch, width) for width in widths]

    def work(number: int) -> None:
        for weights in models:
            for _ in range(size.window):
                for n, weight in enumerate(weights):
                    torch.mm(values[n], weight, out=found[n + 1])
                for n, weight in reversed(list(enumerate(weights))):
                    torch.mm(values[n].T, grads[n + 1], out=weight_grads[n])
                    torch.mm(grads[n + 1], weight.T, out=found[n])

    return work


def schema(size: Size) -> Schema:
    """Single-valued fields of equal size."""
    return Schema(tuple(Field(f"field{number}", "user", size.vocabulary) for number in range(size.fields)))


def make_chunks(size: Size) -> list[Batch]:
    """Random events; values come by Zipf's law, as users and items do."""
    fields, values = schema(size), Zipf(generator(0, "popularity"), size.vocabulary, exponent=1.0)
    first = np.array([fields.first_row(field.name) for field in fields.fields], np.int32)
    chunks = []
    for number in range(CHUNKS):
        draws, position = generator(0, "chunk", number), np.arange(size.events)
        features = values.draw(draws.random((size.events, size.fields))).astype(np.int32) + first
        label = (draws.random(size.events) < 0.25).astype(np.float32)
        chunks.append(Batch(position, position, position.astype(np.float64), features, label))
    return chunks
