"""The models to copy from, in examples/ and in docs/own-model.md, held to what they should teach."""

from __future__ import annotations

import ast
import re
from collections.abc import Callable
from pathlib import Path
from types import ModuleType

import numpy as np
import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional

from examples import dcn, dlrm, two_tower
from simulator.config import SyntheticConfig
from simulator.types import FIRST_ID, Batch, Field, Schema
from simulator.world.stream import SyntheticWorld

ROOT = Path(__file__).parents[1]
GUIDE = ROOT / "docs" / "own-model.md"
MAX_LINES = 80
MAX_OF_GUIDE = 25
"""Lines with something in them: what one types from an empty file."""
Make = Callable[..., nn.Module]


def of_the_guide() -> str:
    """The whole file of the first model in the guide: the first block of Python there."""
    found = re.search(r"```python\n# my_model.py\n(.*?)```", GUIDE.read_text(), re.DOTALL)
    assert found
    return found[1]


def guided() -> Make:
    """The factory in that file."""
    module = ModuleType("my_model")
    exec(compile(of_the_guide(), str(GUIDE), "exec"), vars(module))
    make: Make = module.make
    return make


MODELS: dict[str, Make] = {"two_tower": two_tower.make, "dlrm": dlrm.make, "dcn": dcn.make, "guide": guided()}
SOURCES = {name: (ROOT / "examples" / f"{name}.py").read_text() for name in ("two_tower", "dlrm", "dcn")}
SOURCES["guide"] = of_the_guide()

PLAIN = Schema((Field("user", "user", 40), Field("item", "item", 30), Field("tags", "item", 9, slots=4)))
WIDE = Schema(
    (
        Field("user", "user", 40),
        Field("interests", "user", 12, slots=3),
        Field("item", "item", 30),
        Field("type", "item", 5),  # a name that nn.Module has a method of
        Field("tags", "item", 9, slots=4),
        Field("screen.width", "context", 3),  # a dot: not the name of a submodule
    )
)
every_model = pytest.mark.parametrize("name", MODELS)
every_schema = pytest.mark.parametrize("schema", [PLAIN, WIDE], ids=["no context", "all sides"])


def made(name: str, schema: Schema, seed: int = 0) -> nn.Module:
    """A model with its defaults."""
    torch.manual_seed(seed)
    return MODELS[name](schema)


def drawn(schema: Schema, count: int, seed: int = 0) -> dict[str, Tensor]:
    """Features of `count` events; multi-valued fields have from 0 values to all that they can hold."""
    rng = np.random.default_rng(seed)
    features = {}
    for field in schema.fields:
        ids = rng.integers(FIRST_ID, field.size, (count, field.slots))
        if field.slots > 1:
            ids[np.arange(field.slots) >= rng.integers(0, field.slots + 1, (count, 1))] = 0
        features[field.name] = torch.from_numpy(ids if field.slots > 1 else ids[:, 0])
    return features


def ids_of(batch: Batch, schema: Schema) -> dict[str, Tensor]:
    """The features of events as a module gets them: table rows as each field's own ids."""
    features = {}
    for field in schema.fields:
        rows = batch.features[:, schema.slot_range(field.name)].astype(np.int64)
        ids = np.where(rows == 0, 0, rows - schema.first_row(field.name) + FIRST_ID)
        features[field.name] = torch.from_numpy(ids if field.slots > 1 else ids[:, 0])
    return features


def log_loss(logits: Tensor, labels: Tensor) -> Tensor:
    """Mean over events, in nats."""
    return functional.binary_cross_entropy_with_logits(logits, labels)


@pytest.mark.parametrize("name", SOURCES)
def test_a_model_is_short_and_self_contained(name: str) -> None:
    lines = SOURCES[name].splitlines()
    assert len(lines) < MAX_LINES
    assert name != "guide" or len(list(filter(None, lines))) <= MAX_OF_GUIDE
    imported = set[str]()
    for node in ast.walk(ast.parse(SOURCES[name])):
        if isinstance(node, ast.ImportFrom):
            imported.add(node.module or "")
        elif isinstance(node, ast.Import):
            imported |= {alias.name for alias in node.names}
    assert imported <= {"__future__", "torch", "torch.nn", "simulator.types"}


@every_model
@every_schema
@torch.no_grad()
def test_a_logit_for_each_event(name: str, schema: Schema) -> None:
    model = made(name, schema)
    for count in (1, 17):
        logits = model(drawn(schema, count))
        assert logits.shape == (count,) and logits.dtype == torch.float32
        assert logits.isfinite().all()
    assert logits.std() > 0


@every_model
@every_schema
@torch.no_grad()
def test_every_field_counts(name: str, schema: Schema) -> None:
    model = made(name, schema).eval()
    features = drawn(schema, 64)
    others = drawn(schema, 64, seed=1)
    before = model(features)
    for field in schema.fields:
        assert not torch.equal(model(features | {field.name: others[field.name]}), before), field.name


@every_model
@torch.no_grad()
def test_padding_counts_for_nothing(name: str) -> None:
    """One value says the same however often it is repeated, and wherever padding stands: a mean over values alone."""
    model = made(name, WIDE).eval()
    features = drawn(WIDE, 4)
    alike = torch.tensor([[5, 3, 0, 0], [0, 5, 0, 3], [3, 5, 3, 5], [5, 3, 5, 3]])  # 4 ways to say 3 and 5
    features = {key: ids[:1].expand(4, *ids.shape[1:]) for key, ids in features.items()} | {"tags": alike}
    logits = model(features)
    torch.testing.assert_close(logits, logits[:1].expand(4))
    others = model(features | {"tags": torch.tensor([[5, 5, 5, 5], [5, 0, 0, 0], [0, 0, 0, 0], [4, 3, 0, 0]])})
    torch.testing.assert_close(others[0], others[1])
    assert len({round(float(logit), 6) for logit in (logits[0], *others[1:])}) == 4


@every_model
@torch.no_grad()
def test_the_score_of_an_event_is_its_own(name: str) -> None:
    model = made(name, WIDE).eval()
    features = drawn(WIDE, 33)
    logits = model(features)
    alone = torch.cat([model({key: ids[row : row + 1] for key, ids in features.items()}) for row in range(33)])
    torch.testing.assert_close(logits, alone)
    torch.testing.assert_close(model({key: ids.flip(0) for key, ids in features.items()}).flip(0), logits)


@every_model
@every_schema
def test_everything_learns_but_padding(name: str, schema: Schema) -> None:
    model = made(name, schema)
    features = drawn(schema, 256)
    log_loss(model(features), (torch.arange(256) % 3 == 0).float()).backward()
    idle = [key for key, weight in model.named_parameters() if weight.grad is None or not weight.grad.any()]
    assert idle == []
    tables = [part for part in model.modules() if isinstance(part, nn.Embedding)]
    assert sorted(table.num_embeddings for table in tables) == sorted(field.size for field in schema.fields)
    for table in tables:
        assert table.weight.grad is not None
        assert not table.weight[0].any() and not table.weight.grad[0].any()


@every_model
def test_it_predicts_better_than_a_constant(name: str) -> None:
    """On events that it has not seen, and than the best constant for them."""
    world = SyntheticWorld(SyntheticConfig(events=20_000, users=200, items=100, drift=0, turnover=0), seed=1)
    model = made(name, world.schema)
    optimizer = torch.optim.Adagrad(model.parameters(), lr=0.02)
    for batch in world.batches(256, stop=16_000):
        optimizer.zero_grad()
        log_loss(model(ids_of(batch, world.schema)), torch.from_numpy(batch.label)).backward()
        optimizer.step()
    (rest,) = world.batches(4_000, start=16_000)
    labels = torch.from_numpy(rest.label)
    with torch.no_grad():
        found = log_loss(model.eval()(ids_of(rest, world.schema)), labels)
    assert found < 0.9 * log_loss(labels.mean().logit().expand_as(labels), labels)
