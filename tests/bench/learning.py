"""The stacked step of all duplicates: against plain models one after another, and with other activations and noise."""

from __future__ import annotations

from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from itertools import pairwise

import numpy as np
import torch
from figures import Figure, ratio, speed
from interleave import interleave
from plain import PlainLearner, plain_copies
from simulator.models.learner import Learner
from sizes import Size

from simulator.config import NO_NOISE, NoiseConfig
from simulator.models.duplicates import Duplicates, parse_arms
from simulator.randomness import generator
from simulator.types import Batch, Field, Schema
from simulator.world.zipf import Zipf

CHUNKS = 8
"""Made in advance; round r learns chunk r modulo this, so that memory is touched as in a run."""

Work = Callable[[int], object]


def measure_stack(size: Size) -> list[Figure]:
    """The stack against plain models, with one thread and with two, each of which has half of the models."""
    chunks = make_chunks(size)
    variants = {
        "stacked": stacked(size, chunks, "relu"),
        "plain": plain_models(size, chunks),
        "plain, fused Adagrad": plain_models(size, chunks, fused=True),
        "stacked by PyTorch": stacked(replace(size, model=replace(size.model, compile="off")), chunks, "relu"),
        "products": products(size),
    }
    one = interleave("stacked step, 1 thread", variants, size.rounds, size.warm_up)
    variants = {
        "stacked": stacked(size, chunks, "relu", threads=2),
        "on one": stacked(size, chunks, "relu"),
        "plain": plain_models(size, chunks, threads=2),
    }
    two = interleave("stacked step, 2 threads", variants, size.rounds, size.warm_up)
    examples, unit, name = size.events * size.duplicates, "model-examples/s", "plain models / stacked step"
    return [
        ratio(name, one, "plain", "stacked"),
        ratio("matrix products alone / stacked step", one, "products", "stacked"),
        ratio("plain models / step by PyTorch alone", one, "plain", "stacked by PyTorch"),
        ratio(f"{name}, fused Adagrad", one, "plain, fused Adagrad", "stacked"),
        ratio(f"{name}, 2 threads each", two, "plain", "stacked", clock="wall"),
        ratio("stacked step, 1 thread / 2 threads", two, "on one", "stacked", clock="wall"),
        speed("stacked step", unit, one["stacked"], examples),
        speed("plain models", unit, one["plain"], examples),
        speed("stacked step, 2 threads", unit, two["stacked"], examples, clock="wall"),
        speed("plain models, 2 threads", unit, two["plain"], examples, clock="wall"),
    ]


def measure_variants(size: Size) -> list[Figure]:
    """What other activations cost, and what noise costs, against ReLU with noise."""
    chunks = make_chunks(size)
    specs = "relu", "smelu:beta=1", "gelu", "swish", "softplus"
    variants = {spec: stacked(size, chunks, spec) for spec in specs}
    variants["relu without noise"] = stacked(size, chunks, "relu", noise=NO_NOISE)
    passes = interleave("activations and noise", variants, size.rounds, size.warm_up)
    return [ratio(f"{v} step / relu step", passes, v, "relu") for v in variants if v != "relu"]


def stacked(size: Size, chunks: list[Batch], spec: str, *, noise: NoiseConfig | None = None, threads: int = 1) -> Work:
    """A pass: all duplicates of an arm learn one chunk in one call, shuffled unless `noise` says otherwise."""
    noise = noise or NoiseConfig(window=size.window)
    learner = Learner(make_stack(size, spec, noise, threads), noise, seed=0)
    return lambda number: learner.learn(chunks[number % len(chunks)])


def make_stack(size: Size, spec: str, noise: NoiseConfig, threads: int = 1) -> Duplicates:
    """The duplicates of one arm."""
    arms, duplicates = parse_arms((spec,)), size.duplicates
    return Duplicates(schema(size), arms, size.model, noise, fleets=1, duplicates=duplicates, seed=0, threads=threads)


def plain_models(size: Size, chunks: list[Batch], *, fused: bool = False, threads: int = 1) -> Work:
    """A pass: as many plain models learn the same chunk, one after another. They need not shuffle it."""
    data = [(torch.from_numpy(chunk.features), torch.from_numpy(chunk.label)) for chunk in chunks]
    learners = [PlainLearner(model, size.model, fused) for model in plain_copies(make_stack(size, "relu", NO_NOISE))]
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
