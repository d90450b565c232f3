"""Small schemas, events and engines that the tests of the models share."""

from __future__ import annotations

import importlib
import itertools
import sys
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field, fields, replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from simulator.config import NO_NOISE, ModelConfig, NoiseConfig
from simulator.models import native_engine
from simulator.models.activations import parameters_of
from simulator.models.click_model import dense_parameters
from simulator.models.engine import Engine, Weights
from simulator.models.native_engine import NativeEngine
from simulator.models.own_engine import CustomEngine
from simulator.models.specs import CURES as CURES_BY_NAME
from simulator.models.specs import _split, parse_arms
from simulator.models.torch_engine import TorchEngine
from simulator.randomness import generator
from simulator.types import Batch, Field, Floats, Query, Schema

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

MODEL = ModelConfig(dim=5, hidden=(24, 15), norm="after", learning_rate=0.005, batch=8)
CURES = (
    "ensemble:relu:m=3",
    "codistill:gelu:m=3",
    "antidistill:relu:m=2",
    "anchor:relu",
    "average:relu",
    "fresh:relu:last=2",
)
SHUFFLED = NoiseConfig(window=4, lost=0.2, reductions=True)


@pytest.fixture(scope="package", autouse=True)
def one_thread_per_operation() -> Iterator[None]:
    """Operations as small as these lose a hundredfold by being shared between threads on a busy machine."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


NUMBERS = itertools.count()
WriteModule = Callable[[str], str]


@pytest.fixture
def write_module(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[WriteModule]:
    """Writes a module of a user's, which can then be imported by the name returned: one that nobody had before."""
    written: list[str] = []
    monkeypatch.syspath_prepend(tmp_path)

    def write(code: str) -> str:
        written.append(f"written_{next(NUMBERS)}")
        (tmp_path / f"{written[-1]}.py").write_text(code)
        importlib.invalidate_caches()
        return written[-1]

    yield write
    for name in written:
        sys.modules.pop(name, None)


def make_events(schema: Schema, count: int, seed: int = 0, start: int = 0) -> Batch:
    """Random events; a multi-valued field holds any number of values, none included, and is padded with row 0."""
    draws = generator(seed, "test events", start)
    columns = []
    for each in schema.fields:
        values = schema.first_row(each.name) + draws.integers(0, each.vocabulary, (count, each.slots))
        if each.slots > 1:
            used = draws.integers(0, each.slots, (count, 1), endpoint=True)
            values[np.arange(each.slots) >= used] = 0
        columns.append(values)
    features = np.concatenate(columns, axis=1).astype(np.int32)
    label = (draws.random(count) < 0.4).astype(np.float32)
    first = schema.fields[0].name, schema.fields[1].name
    user, item = (features[:, schema.slot_range(name).start] - schema.first_row(name) for name in first)
    time = np.arange(start, start + count, dtype=np.float64)
    return Batch(user.astype(np.int64), item.astype(np.int64), time, features, label)


def make_query(number: int, count: int) -> Query:
    """A query with `count` distinct candidates."""
    items, features = np.arange(count), make_events(MIXED, count, seed=number).features
    return Query(number, 0, 0.0, (), items, features, np.zeros(count, np.float32))


@dataclass(frozen=True)
class Kind:
    """An engine as the tests ask for it."""

    make: type[Engine]
    device: str = "cpu"
    options: dict[str, Any] = field(default_factory=dict)
    factory: str = ""
    """Of modules of a user's, which take the place of the built-in model."""

    def arm(self, spec: str) -> str:
        """The spec of an arm of the built-in model as this engine has it: with its cure, and for its ReLU another."""
        if not self.factory:
            return spec
        cure, activation, settings = _split(spec)[:3]
        before = next((f"{name}:" for name, kind in CURES_BY_NAME.items() if kind is cure), "")
        of_cure = {each.name for each in fields(cure)} | {"lr"}
        own = [setting for setting in settings if setting.partition("=")[0] in of_cure]
        function = [setting for setting in settings if setting.partition("=")[0] in parameters_of(activation)]
        other = activation + (":" if function else "") + ",".join(function)
        relu = [] if other == "relu" else [f"relu={other}"]
        return before + ",".join([f"torch:tests.models.own_modules:{self.factory}", *own, *relu])

    @property
    def every_noise(self) -> NoiseConfig:
        """All sources at once that it has."""
        if self.make is NativeEngine:
            return NoiseConfig(init="own", window=3, lost=0.2, reductions=True)
        return NoiseConfig(init="own", window=3, lost=0.2, delay=3, precision="bfloat16", reductions=True)


NATIVE, TORCH, EXACT = Kind(NativeEngine), Kind(TorchEngine), Kind(TorchEngine, options={"dtype": torch.float64})
NO_KERNELS = pytest.mark.skipif(bool(native_engine.missing()), reason=f"no kernels here: {native_engine.missing()}")
NO_GPU = pytest.mark.skipif(not torch.cuda.is_available(), reason="no GPU is visible to PyTorch here")
BUILT_IN = [
    pytest.param(NATIVE, id="native", marks=NO_KERNELS),
    pytest.param(TORCH, id="torch"),
    pytest.param(Kind(TorchEngine, "cuda"), id="cuda", marks=NO_GPU),
]
OWN, ODD = Kind(CustomEngine, factory="plain"), Kind(CustomEngine, factory="make")
ENGINES = [
    *BUILT_IN,
    pytest.param(OWN, id="own"),
    pytest.param(ODD, id="odd"),
    pytest.param(Kind(CustomEngine, "cuda", factory="make"), id="odd on cuda", marks=NO_GPU),
]


def make_engine(
    kind: Kind,
    spec: str = "relu",
    *,
    schema: Schema = MIXED,
    model: ModelConfig = MODEL,
    noise: NoiseConfig = NO_NOISE,
    fleets: int = 1,
    duplicates: int = 2,
    seed: int = 7,
    threads: int = 1,
) -> Engine:
    """An engine of small models; `relu#2` is the second arm of its spec."""
    if kind.make is NativeEngine and native_engine.missing():
        pytest.skip(native_engine.missing())
    name, _, number = spec.partition("#")
    name = kind.arm(name)
    arm = parse_arms((name,) * int(number or 1))[-1]
    return kind.make(
        schema,
        arm,
        arm.cure.model(arm.model(model), partial(dense_parameters, schema)),
        noise,
        fleets=fleets,
        duplicates=duplicates,
        seed=seed,
        device=kind.device,
        pool=ThreadPoolExecutor(threads, initializer=torch.set_num_threads, initargs=(1,)),
        **kind.options,
    )


def make_chunks(engine: Engine, count: int, schema: Schema = MIXED) -> list[Batch]:
    """Whole chunks of random events for an engine, but for the last one, which ends in the middle of a mini-batch."""
    size = engine.chunk_events
    chunks = [make_events(schema, size, start=number * size) for number in range(count)]
    return [*chunks[:-1], chunks[-1][: size - engine.model.batch // 2 - 1]]


def weighted(chunks: list[Batch]) -> list[Batch]:
    """The same, each event with a weight from 0 to 3, some exactly 0."""
    draws = [generator(number, "test weights").uniform(-1, 3, len(chunk)) for number, chunk in enumerate(chunks)]
    return [replace(c, weight=np.maximum(own, 0).astype(np.float32)) for c, own in zip(chunks, draws, strict=True)]


def teach(engine: Engine, chunks: list[Batch], refresh: bool = False) -> Floats:
    """Log-odds [S, all events] before learning; `refresh` after each chunk."""
    found = []
    for chunk in chunks:
        found.append(engine.learn(chunk))
        if refresh:
            engine.refresh()
    return np.concatenate(found, axis=1)


def flat(weights: Weights) -> Tensor:
    """[M, all] what learns or is learned, in one row for each model."""
    tensors = [tensor for _, tensor in sorted(weights.tensors.items()) if tensor.is_floating_point()]
    return torch.cat([tensor.flatten(1).double() for tensor in tensors], 1)


def assert_same_state(one: Engine, other: Engine) -> None:
    """Equal to the last bit."""
    first, second = one.state(), other.state()
    assert first.keys() == second.keys()
    assert all(torch.equal(first[name], second[name]) for name in first)
