"""A module of the user's: what it is given, that it learns as in a plain loop, and what is said of one that cannot."""

from __future__ import annotations

import logging
import random
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional

from simulator.config import NO_NOISE, ModelConfig, NoiseConfig
from simulator.errors import ResultError, SettingError
from simulator.models.factories import ALLOWED
from simulator.models.own import BLOCK, CustomRanker, Maker, generator_states, seeded, tensors_of_module
from simulator.models.own_engine import LATE_DRAWS, CustomEngine
from simulator.models.ranker import Rankers
from simulator.models.specs import CustomModel, parse_arms
from simulator.types import Batch, Field, Schema
from tests.models import own_modules
from tests.models.conftest import MIXED, MODEL, SINGLE, WriteModule, assert_same_state, make_events, make_query, teach
from tests.terminal import Terminal, assert_refused

PLAIN, ODD = "torch:tests.models.own_modules:plain", "torch:tests.models.own_modules:make"
MODULE = """import torch
from torch import nn
from torch.nn import functional


class Model(nn.Module):
    def __init__(self, schema, sparse=False):
        super().__init__()
        self.names = [field.name for field in schema.fields]
        self.tables = nn.ModuleList([nn.Embedding(field.size, 4, sparse=sparse) for field in schema.fields])
        self.out = nn.Linear(4, 1)

    def vectors(self, features):
        pairs = zip(self.names, self.tables, strict=True)
        return sum(table(features[name].reshape(len(features[name]), -1)).sum(1) for name, table in pairs)

    def forward(self, features):
        return self.out(self.vectors(features)).squeeze(1)


"""
"""The beginning of the files that are written here."""


def opened(
    spec: str,
    *,
    schema: Schema = MIXED,
    model: ModelConfig = MODEL,
    noise: NoiseConfig = NO_NOISE,
    fleets: int = 1,
    duplicates: int = 1,
    seed: int = 7,
) -> CustomEngine:
    """An engine; `SPEC#2` is the second arm of its spec."""
    spec, _, number = spec.partition("#")
    arm = parse_arms((spec,) * int(number or 1))[-1]
    sizes = {"fleets": fleets, "duplicates": duplicates, "seed": seed}
    return CustomEngine(schema, arm, arm.model(model), noise, **sizes)


def chunks_of(count: int, schema: Schema = MIXED) -> list[Batch]:
    """Whole chunks of an engine with MODEL and NO_NOISE: 16 mini-batches each."""
    size = 16 * MODEL.batch
    return [make_events(schema, size, start=number * size) for number in range(count)]


def ids_of(features: np.ndarray, schema: Schema) -> dict[str, Tensor]:
    """The ids of table rows, value by value in plain Python."""
    found, first = {}, 0
    for field in schema.fields:
        base = 1 + sum(other.vocabulary for other in schema.fields[: schema.fields.index(field)])
        columns = features[:, first : first + field.slots].tolist()
        ids = [[row - base + 2 if row else 0 for row in event] for event in columns]
        found[field.name] = torch.tensor(ids if field.slots > 1 else [event[0] for event in ids])
        first += field.slots
    return found


def test_features_are_the_documented_ids() -> None:
    maker = Maker(MIXED, CustomModel(PLAIN.removeprefix("torch:")))
    events = make_events(MIXED, 200)
    found = maker.features(torch.from_numpy(events.features))
    expected = ids_of(events.features, MIXED)
    assert list(found) == [field.name for field in MIXED.fields]
    for field in MIXED.fields:
        ids = found[field.name]
        assert ids.dtype == torch.int64 and ids.is_contiguous() and torch.equal(ids, expected[field.name])
        assert ids.shape == ((200,) if field.slots == 1 else (200, field.slots))
        values = set(ids.unique().tolist())
        assert values - {0} == set(range(2, field.size)) and (0 in values) == (field.slots > 1)


RECORDING = """
SEEN = []


class Recording(Model):
    def forward(self, features):
        SEEN.append((self.training, {name: ids.clone() for name, ids in features.items()}))
        return super().forward(features)


def make(schema):
    return Recording(schema)
"""


def test_a_module_is_never_given_what_is_no_id_nor_another_size_in_scoring(write_module: WriteModule) -> None:
    """What fills a block up must be as good as any event: a module may count on the ids that are documented."""
    name = write_module(MODULE + RECORDING)
    engine = opened(f"torch:{name}:make", duplicates=2)
    teach(engine, [chunks_of(1)[0][:13]])
    engine.score_events(make_events(MIXED, 3).features)
    engine.score_queries([make_query(number, 5) for number in range(2)])
    seen = sys.modules[name].SEEN
    assert {training for training, _ in seen} == {True, False}
    for training, features in seen:
        for field in MIXED.fields:
            ids = features[field.name]
            assert ids.min() >= (2 if field.slots == 1 else 0) and ids.max() < field.size and not (ids == 1).any()
            assert training or len(ids) == BLOCK


def test_a_module_is_tried_with_the_last_values_of_each_field_and_with_none(write_module: WriteModule) -> None:
    schema = Schema((Field("user", "user", 3), Field("item", "item", 5_000), Field("tags", "item", 700, slots=3)))
    name = write_module(MODULE + RECORDING)
    Maker(schema, CustomModel(f"{name}:make")).make(0)
    (_, features), *_ = sys.modules[name].SEEN
    for field in schema.fields:
        assert {2, field.size - 1} <= set(features[field.name].flatten().tolist())
    counts = (features["tags"] != 0).sum(1).tolist()
    assert set(counts) == {0, 1, 2, 3}


def plain_loop(
    engine: CustomEngine, module: nn.Module, optimizer: torch.optim.Optimizer, chunks: list[Batch], schema: Schema
) -> None:
    """What anybody would write."""
    module.train()
    for chunk in chunks:
        for start in range(0, len(chunk), MODEL.batch):
            part = chunk[start : start + MODEL.batch]
            logits = module(ids_of(part.features, schema))
            loss = functional.binary_cross_entropy_with_logits(logits, torch.from_numpy(part.label))
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()


@pytest.mark.parametrize("schema", [MIXED, SINGLE], ids=["mixed", "single"])
@pytest.mark.parametrize("own_optimiser", [False, True], ids=["adagrad", "adamw"])
def test_it_learns_what_a_plain_loop_learns(own_optimiser: bool, schema: Schema) -> None:
    engine = opened(f"{ODD},dropout=0.0" if own_optimiser else f"{PLAIN},lr=0.05", schema=schema)
    with seeded(engine._seed_of("make", engine.members[0], 0)):
        module, optimizer = (
            own_modules.make(schema, dropout=0.0) if own_optimiser else (own_modules.plain(schema), None)
        )
    start = {name: tensor.detach().clone() for name, tensor in tensors_of_module(module).items()}
    assert all(torch.equal(engine.weights.tensors[name][0], tensor) for name, tensor in start.items())
    optimizer = optimizer or torch.optim.Adagrad(
        module.parameters(), lr=0.05, initial_accumulator_value=MODEL.initial_accumulator
    )
    chunks = chunks_of(2, schema)
    teach(engine, chunks)
    plain_loop(engine, module, optimizer, chunks, schema)
    learned = engine.weights.tensors
    assert learned.keys() == start.keys()
    for name, tensor in tensors_of_module(module).items():
        torch.testing.assert_close(learned[name][0], tensor.detach(), rtol=0, atol=1e-6, msg=name)
    moved = {name for name in start if not torch.equal(learned[name][0], start[name])}
    assert moved == {name for name in start if not name.startswith("frozen.")}
    # and the embeddings of the one without an optimiser of its own are sparse, which is what this is about
    assert all(each.sparse != own_optimiser for each in engine._models[0].module.modules() if hasattr(each, "sparse"))


BAD: dict[str, tuple[str, str, str]] = {
    "no module": ("", "import no_such_module_here  # here", "ModuleNotFoundError"),
    "raises": ("", "def make(schema):\n    raise OSError('no\\nfile')  # here", "calling it: OSError: no file"),
    "a number": ("", "def make(schema):  # here\n    return 3", "it gave int, not an nn.Module or (nn.Module, Optim"),
    "nothing": ("", "def make(schema):  # here\n    Model(schema)", "it gave nothing, not an nn.Module"),
    "a class": ("", "def make(schema):  # here\n    return Model", "it gave type, not an nn.Module"),
    "no optimiser": ("", "def make(schema):  # here\n    return Model(schema), 0.1", "it gave tuple, not an nn.Module"),
    "wrong shape": (
        "",
        "class Bad(Model):\n    def forward(self, features):  # here\n        return self.out(self.vectors(features))",
        "forward gave shape [256, 1] for 256 events, expected [256]",
    ),
    "one number": (
        "",
        "class Bad(Model):\n    def forward(self, features):  # here\n        return super().forward(features).mean()",
        "forward gave shape [] for 256 events, expected [256]",
    ),
    "no tensor": (
        "",
        "class Bad(Model):\n    def forward(self, features):  # here\n        return 0.5",
        "forward gave float for 256 events, expected [256]",
    ),
    "nan": (
        "",
        "class Bad(Model):\n    def forward(self, features):  # here\n"
        "        return super().forward(features) * torch.nan",
        "forward gave nan where all is at its start",
    ),
    "nan without values": (
        "",
        "class Bad(Model):\n    def forward(self, features):  # here\n"
        "        return super().forward(features) / (features['genres'] != 0).sum(1)",
        "where all is at its start",
    ),
    "raises in forward": (
        "",
        "class Bad(Model):\n    def forward(self, features):\n        return self.out(features['age'])  # here",
        "forward: KeyError: 'age'",
    ),
    "raises in training": (
        "",
        "class Bad(Model):\n    def forward(self, features):\n        if self.training:\n"
        "            raise ValueError('only now')  # here\n        return super().forward(features)",
        "forward: ValueError: only now",
    ),
    "raises in backward": (
        "",
        "class Step(torch.autograd.Function):\n    @staticmethod\n    def forward(context, x):\n"
        "        return x.clone()\n\n"
        "    @staticmethod\n    def backward(context, gradient):\n        raise ValueError('no way back')  # here\n\n\n"
        "class Bad(Model):\n    def forward(self, features):\n        return Step.apply(super().forward(features))",
        "its gradient: ValueError: no way back",
    ),
    "an embedding too small": (
        "",
        "class Bad(Model):\n    def forward(self, features):\n"
        "        few = nn.Embedding(MANY, 1)\n"
        "        return few(features['item'].clamp(max=MANY))[:, 0] + super().forward(features)  # here\n\n\nMANY = 12",
        "forward: IndexError: index out of range in self",
    ),
    "unknown option": (
        ",widht=3",
        "def make(schema, width=4):  # here\n    return Model(schema)",
        "'widht'; here is make",
    ),
    "missing option": (
        "",
        "def make(schema, width):  # here\n    return Model(schema)",
        "argument: 'width'; here is make",
    ),
    "no schema": ("", "def make():  # here\n    return None", "too many positional arguments; here is make()"),
    "no relu": (
        ",relu=gelu",
        "class Bad(Model):\n    def forward(self, features):  # here\n        return super().forward(features)",
        "it has no ReLU that could be replaced",
    ),
    "relu that cannot be replaced": (
        ",relu=gelu",
        "class Bad(Model):\n    def __init__(self, schema):\n        super().__init__(schema)\n"
        "        self.state = nn.RNN(4, 4, nonlinearity='relu')",
        "its ReLU is built in",
    ),
    "relu that is not found": (
        ",relu=gelu",
        "class Bad(Model):\n    def __init__(self, schema):\n        super().__init__(schema)\n"
        "        self.act = nn.ReLU()\n\n    def forward(self, features):\n"
        "        x = self.act(self.vectors(features))\n"
        "        return getattr(torch, 're' + 'lu')(self.out(x)).squeeze(1)",
        "1 calls of relu are left that are not in the source of its modules: use nn.ReLU there",
    ),
    "a step with a closure": (
        "",
        "def make(schema):\n    model = Model(schema)\n    return model, torch.optim.LBFGS(model.parameters())",
        "a step of its optimiser: TypeError: LBFGS.step() missing 1 required positional argument: 'closure'",
    ),
    "sparse where it is refused": (
        "",
        "def make(schema):\n    model = Model(schema, True)\n    return model, torch.optim.Adam(model.parameters())",
        "a step of its optimiser: RuntimeError: Adam does not support sparse gradients",
    ),
    "a step that raises": (
        "",
        "class Bad(torch.optim.SGD):\n    def step(self):\n        raise ValueError('no step')  # here\n\n\n"
        "def make(schema):\n    model = Model(schema)\n    return model, Bad(model.parameters())",
        "a step of its optimiser: ValueError: no step",
    ),
    "an optimiser that keeps a list": (
        "",
        "class Keeping(torch.optim.SGD):\n    def step(self):\n        super().step()\n"
        "        self.state[self.param_groups[0]['params'][0]]['losses'] = [1.0]\n\n\n"
        "def make(schema):\n    model = Model(schema)\n    return model, Keeping(model.parameters())",
        "its optimiser keeps losses = a list, which cannot be saved: use another",
    ),
    "an optimiser that keeps something sparse": (
        "",
        "def make(schema):\n    model = Model(schema, True)\n"
        "    return model, torch.optim.SGD(model.parameters(), momentum=0.9)",
        "its optimiser keeps momentum_buffer = a sparse Tensor, which cannot be saved: use another",
    ),
    "an optimiser without a rate": (
        "",
        "class Bare(torch.optim.Optimizer):\n    def __init__(self, parameters):\n"
        "        super().__init__(parameters, {})\n\n"
        "    def step(self):\n        pass\n\n\n"
        "def make(schema):\n    model = Model(schema)\n    return model, Bare(model.parameters())",
        "its optimiser has no learning rate",
    ),
    "always the same module": (
        "",
        "KEPT = []\n\n\ndef make(schema):  # here\n    KEPT.append(Model(schema))\n    return KEPT[0]",
        "it gave a module with parameters of one that it gave before",
    ),
    "a part that modules share": (
        "",
        "SHARED = nn.Linear(4, 1)\n\n\ndef make(schema):  # here\n    model = Model(schema)\n    model.out = SHARED\n"
        "    return model",
        "it gave a module with parameters of one that it gave before",
    ),
}


def bad_spec(case: str, write_module: WriteModule) -> tuple[str, int]:
    """The spec of an arm of this case, and the line that is to be blamed, 0 for none."""
    options, code, _ = BAD[case]
    code = MODULE + code + ("" if "def make(" in code else "\n\n\ndef make(schema):\n    return Bad(schema)")
    lines = [number for number, line in enumerate(code.splitlines(), 1) if line.endswith("# here")]
    return f"torch:{write_module(code)}:make{options}", sum(lines)


@pytest.mark.parametrize("case", BAD)
def test_what_cannot_be_is_said_in_one_line_before_anything_is_learned(
    case: str, write_module: WriteModule, tmp_path: Path
) -> None:
    spec, line = bad_spec(case, write_module)
    with pytest.raises(SettingError) as problem:
        opened(spec, duplicates=2).state()
    said, module = str(problem.value), spec.split(":")[1]
    assert "\n" not in said and said.startswith(f"arms = torch:{module}:make") or "RNN" in said, said
    assert BAD[case][2] in said, said
    assert not line or said.endswith(f" ({tmp_path / module}.py, line {line})"), said


@pytest.mark.parametrize("case", ["raises in training", "unknown option", "always the same module"])
def test_the_command_line_says_it_and_leaves_no_folder(
    case: str, write_module: WriteModule, flicker: Terminal, tmp_path: Path
) -> None:
    spec, line = bad_spec(case, write_module)
    out = tmp_path / "out"
    said = flicker("run", "--preset", "smoke", "--arms", "relu", spec, "--out", out)
    assert_refused(said, BAD[case][2], f"line {line})")
    assert not out.exists()


DRAWING = """
import random

import numpy as np


def make(schema):
    model = Model(schema)
    model.out.weight.data.fill_(0.5)
    model.drawn = nn.Parameter(torch.tensor([torch.rand(()).item(), np.random.rand(), random.random()]))
    model.register_forward_hook(lambda module, given, logits: logits + module.drawn.sum())
    return model
"""


def test_making_and_learning_leave_the_global_generators_where_they_were(write_module: WriteModule) -> None:
    seeds = torch.manual_seed, np.random.seed, random.seed
    for seed in seeds:
        seed(3)
    before = generator_states()
    opened(f"torch:{write_module(MODULE + DRAWING)}:make", duplicates=2)
    dropout = opened(ODD, duplicates=2)
    teach(dropout, chunks_of(2))
    dropout.score_events(make_events(MIXED, 5).features)
    assert generator_states() == before
    random.random()
    assert generator_states() != before


def test_models_that_should_start_equal_do_and_others_do_not(write_module: WriteModule) -> None:
    """Whatever their factory draws from: torch, NumPy and `random`."""
    spec = f"torch:{write_module(MODULE + DRAWING)}:make"
    engine = opened(f"ensemble:{spec},m=2", fleets=2, duplicates=2)
    copy, other_seed = opened(f"ensemble:{spec},m=2#2", fleets=2, duplicates=2), opened(f"ensemble:{spec},m=2", seed=8)
    found = {}
    for name in ("drawn", "tables.0.weight"):
        values = [engine.weights.tensors[name], copy.weights.tensors[name], other_seed.weights.tensors[name]]
        found[name] = torch.cat(values).flatten(1)
    fleet_duplicate_part = [(f, d, p) for f in range(2) for d in range(2) for p in range(2)]
    who = [("first", *each) for each in fleet_duplicate_part] + [("copy", *each) for each in fleet_duplicate_part]
    who += [("seed", 0, 0, part) for part in range(2)]
    for values in found.values():
        for one, mine in zip(who, values, strict=True):
            for other, theirs in zip(who, values, strict=True):
                same = (one[0], one[1], one[3]) == (other[0], other[1], other[3])
                assert torch.equal(mine, theirs) == same, (one, other)
                assert same or not (mine == theirs).all()
    own = opened(spec, duplicates=3, noise=NoiseConfig(window=0, init="own")).weights.tensors["drawn"]
    assert len(own.flatten().unique()) == 9


def test_dropout_repeats_and_is_another_for_each_step_and_duplicate() -> None:
    engines = [opened(f"{ODD},dropout=0.5", duplicates=2) for _ in range(2)]
    chunks = chunks_of(2)
    first, second = (teach(engine, chunks) for engine in engines)
    assert np.array_equal(first, second)
    assert_same_state(*engines)
    assert engines[0]._draws
    without = teach(opened(f"{ODD},dropout=0.0", duplicates=2), chunks)
    assert not np.array_equal(first, without)
    assert np.array_equal(first[0], first[1])  # the duplicates of a run without noise draw alike
    one = opened(f"{ODD},dropout=0.5", noise=NoiseConfig(window=0, init="own"), duplicates=2)
    assert not np.array_equal(*teach(one, chunks))


LATE_DRAWING = """
class Late(Model):
    calls = 0

    def forward(self, features):
        x = self.vectors(features)
        if self.training:
            self.calls += 1
            if self.calls > 20:
                x = x + torch.rand_like(x)
        return self.out(x).squeeze(1)


def make(schema):
    return Late(schema)
"""


def test_a_module_that_begins_to_draw_later_is_named_once(
    write_module: WriteModule, caplog: pytest.LogCaptureFixture
) -> None:
    spec = f"torch:{write_module(MODULE + LATE_DRAWING)}:make"
    engine = opened(spec, duplicates=2)
    with caplog.at_level(logging.WARNING, "engine"):
        for number, chunk in enumerate(chunks_of(4)):
            engine.learn(chunk)
            assert caplog.messages == ([f"{spec}: {LATE_DRAWS}"] if number else [])
    assert engine._draws


def test_the_state_holds_what_is_tied_once_all_buffers_and_nothing_passing() -> None:
    names = [f"tables.{field.name}.weight" for field in MIXED.fields]
    names += ["first.weight", "first.bias", "again.bias", "frozen.weight", "frozen.bias", "out.weight", "out.bias"]
    engine = opened(ODD, duplicates=2)
    assert sorted(engine.weights.tensors) == sorted([*names, "running", "calls"])
    teach(engine, chunks_of(2))
    for number, model in enumerate(engine._models):
        module: Any = model.module
        assert module.again.weight is module.first.weight
        for name, tensor in tensors_of_module(module).items():
            assert tensor.data_ptr() == engine.weights.tensors[name][number].data_ptr(), name
    assert (engine.weights.tensors["calls"] == 32).all() and engine.weights.tensors["running"].abs().min() > 0
    start = opened(ODD, duplicates=2)
    for name in ("frozen.weight", "frozen.bias"):
        assert torch.equal(engine.weights.tensors[name], start.weights.tensors[name])
    assert not torch.equal(engine.weights.tensors["first.weight"], start.weights.tensors["first.weight"])


PARTS = """
class Parts(Model):
    def __init__(self, schema):
        super().__init__(schema)
        self.still, self.moving = nn.BatchNorm1d(4), nn.BatchNorm1d(4)
        self.still.eval()
        self.unused, self.frozen = nn.Linear(2, 2), nn.Linear(2, 2).requires_grad_(False)
        self.register_buffer("passing", torch.ones(3), persistent=False)

    def forward(self, features):
        return self.out(self.moving(self.still(self.vectors(features)))).squeeze(1)


def make(schema):
    return Parts(schema)
"""


def test_a_part_in_evaluation_mode_stays_in_it_and_what_is_not_trained_is_named(
    write_module: WriteModule, caplog: pytest.LogCaptureFixture
) -> None:
    spec = f"torch:{write_module(MODULE + PARTS)}:make"
    with caplog.at_level(logging.WARNING, "engine"):
        engine = opened(spec)
    hint = "not trained, for the log-odds do not depend on them: unused.weight, unused.bias"
    assert caplog.messages == [f"{spec}: {hint}"]
    teach(engine, chunks_of(1))
    learned = {name: tensor[0] for name, tensor in engine.weights.tensors.items()}
    assert "passing" not in learned and "passing" not in engine.published(0)
    for part, steps in (("still", 0), ("moving", 16)):
        assert learned[f"{part}.num_batches_tracked"] == steps
        assert torch.equal(learned[f"{part}.running_mean"], torch.zeros(4)) == (part == "still")
    assert not torch.equal(learned["still.weight"], torch.ones(4))  # its parameters learn
    trained = sum(tensor.numel() for name, tensor in learned.items() if not name.startswith(("moving.r", "still.r")))
    assert engine.parameters == trained - 2 - sum(tensor.numel() for n, tensor in learned.items() if "frozen" in n)


REPLACING = """
class Replacing(torch.optim.SGD):
    def step(self):
        for parameter in self.param_groups[0]["params"]:
            parameter.data = parameter.data - 0.1 * parameter.grad


def make(schema):
    model = Model(schema)
    return model, Replacing(model.parameters(), lr=0.1)


def make_in_place(schema):
    model = Model(schema)
    return model, torch.optim.SGD(model.parameters(), lr=0.1)
"""


def test_an_optimiser_may_put_another_tensor_in_the_place_of_a_parameter(write_module: WriteModule) -> None:
    module = write_module(MODULE + REPLACING)
    replacing, in_place = (opened(f"torch:{module}:{name}", duplicates=2) for name in ("make", "make_in_place"))
    given = [teach(engine, chunks_of(2)) for engine in (replacing, in_place)]
    np.testing.assert_allclose(*given, rtol=0, atol=1e-5)
    for name, tensor in in_place.published(1).items():
        torch.testing.assert_close(replacing.published(1)[name], tensor, rtol=0, atol=1e-6, msg=name)


GROUPS = """
def make(schema, momentum=0.0):
    model = Model(schema)
    groups = [{"params": model.tables.parameters()}, {"params": model.out.parameters(), "lr": 0.25}]
    return model, torch.optim.SGD(groups, lr=0.5, momentum=momentum)
"""


@pytest.mark.parametrize(
    ("option", "rates", "shown"),
    [("", [0.5, 0.25], 0.5), (",lr=0.02", [0.02, 0.02], 0.02), (",momentum=0.9", [0.5, 0.25], 0.5)],
)
def test_the_rate_of_an_optimiser_of_its_own(
    option: str, rates: list[float], shown: float, write_module: WriteModule
) -> None:
    engine = opened(f"torch:{write_module(MODULE + GROUPS)}:make{option}", duplicates=2)
    for model in engine._models:
        assert [group["lr"] for group in model.optimizer.param_groups] == rates
    assert engine.model.learning_rate == shown


@pytest.mark.parametrize(("option", "rate"), [("", MODEL.learning_rate), (",lr=0.02", 0.02)])
def test_the_rate_of_adagrad(option: str, rate: float) -> None:
    engine = opened(PLAIN + option)
    assert type(engine._models[0].optimizer) is torch.optim.Adagrad
    assert engine._models[0].optimizer.param_groups[0]["lr"] == engine.model.learning_rate == rate


@pytest.mark.parametrize(("spec", "count"), [(PLAIN, 1), (ODD, 2)])
def test_another_activation_in_the_place_of_relu(spec: str, count: int) -> None:
    chunks = chunks_of(2)
    given = {}
    for relu in ("", ",relu=smelu:beta=0", ",relu=smelu:beta=1", ",relu=gelu"):
        engine = opened(f"{spec}{relu}")
        assert engine.replaced == (count if relu else 0)
        given[relu] = teach(engine, chunks)
    assert np.array_equal(given[""], given[",relu=smelu:beta=0"])
    others = [values for name, values in given.items() if not name.endswith("beta=0")]
    assert all(np.abs(one - other).max() > 1e-4 for one in others for other in others if one is not other)


def test_another_source_or_shape_cannot_go_on() -> None:
    engine, other = opened(PLAIN), opened(f"{PLAIN},width=4")
    engine.learn(chunks_of(1)[0])
    state = engine.state()
    opened(PLAIN).restore(state)
    for saved in (state | {"source": state["source"].flip(0)}, other.state()):
        with pytest.raises(ResultError) as problem:
            opened(PLAIN).restore(saved)
        hint = "saved with another source of tests.models.own_modules:plain: go on with that one, or start anew"
        assert str(problem.value) == f"{PLAIN}: {hint}"


def ranker_of(engine: CustomEngine, announced: dict[str, Any], device: str = "cpu") -> Any:
    """A ranker of its first duplicate, of two users and three items."""
    users, items = np.array([[1], [4]], np.int32), np.array([[10, 21, 22, 0], [11, 21, 0, 0], [12, 0, 0, 0]], np.int32)
    arm = engine.arm.function, engine.name, engine.model
    return Rankers(device)(MIXED, *arm, engine.published(0), users, items, announced)


@pytest.fixture
def may_be_imported(monkeypatch: pytest.MonkeyPatch) -> None:
    """The modules of the tests, in serving."""
    monkeypatch.setenv(ALLOWED, "tests.models.own_modules:plain tests.models.own_modules:make")


@pytest.mark.usefixtures("may_be_imported")
@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"source": "0" * 64}, "taught with another source (000000000000, here "),
        (
            {"torch": "1.0.0"},
            f"taught with another version of PyTorch (1.0.0, here {torch.__version__.split('+')[0]}"[:63],
        ),
        ({"states": None}, "taught with other parameters (none announced): give trainer and replicas the same files"),
        ({"states": {}}, "taught with other parameters (tables.user.weight: None, here ['float32', 11, 5])"),
        (
            {"tables.user.weight": ["float32", 12, 5]},
            "(tables.user.weight: ['float32', 12, 5], here ['float32', 11, 5])",
        ),
        (
            {"tables.user.weight": ["float16", 11, 5]},
            "(tables.user.weight: ['float16', 11, 5], here ['float32', 11, 5])",
        ),
        ({"more": ["float32"]}, "taught with other parameters (more: ['float32'], here None)"),
        (None, "taught with another source (None, here "),
    ],
)
def test_a_generation_of_another_module_is_refused_in_one_line(changes: dict[str, Any] | None, message: str) -> None:
    engine = opened(PLAIN)
    identity = dict(engine.identity or {})
    ranker_of(engine, identity)
    for name, value in (changes or {}).items():
        identity |= {name: value} if name in identity else {"states": identity["states"] | {name: value}}
    with pytest.raises(SettingError) as problem:
        ranker_of(engine, {} if changes is None else identity)
    said = str(problem.value)
    assert said.startswith(f"arms = {PLAIN}: taught with ") and "\n" not in said and message in said
    assert said.endswith(": give trainer and replicas the same files and packages")


def test_a_ranker_does_not_import_what_it_may_not(write_module: WriteModule, monkeypatch: pytest.MonkeyPatch) -> None:
    module = write_module("raise AssertionError('imported')")
    monkeypatch.setenv(ALLOWED, f"{module}:mak,{module},other:make")
    rows = np.ones((1, 1), np.int32)
    for spec in (f"torch:{module}:make", f"torch:{module}:make,x=1,relu=gelu", f"average:torch:{module}:make"):
        with pytest.raises(SettingError, match="not among the factories that may be imported here"):
            Rankers()(MIXED, spec, "torch", MODEL, {}, rows, rows, {})
    assert module not in sys.modules


def test_of_a_user_whom_the_world_has_not_a_module_sees_id_1_in_every_field() -> None:
    schema = Schema((Field("user", "user", 3), Field("groups", "user", 4, slots=2), Field("item", "item", 5)))
    maker = Maker(schema, CustomModel("tests.models.own_modules:plain", {}))
    module = maker.make(0).module
    users, items = np.array([[1, 4, 0], [2, 5, 6]], np.int32), np.array([[8], [9]], np.int32)
    ranker = CustomRanker(maker, tensors_of_module(module), maker.identity(module), users, items)
    scores = ranker.scores(np.array([1, 2]), np.empty((2, 0), np.int32), np.array([[0, 1], [0, 1]]))
    for row, (user, groups) in zip(scores, ((3, [3, 4]), (1, [1, 0])), strict=True):
        ids = {"user": [user] * 2, "groups": [groups] * 2, "item": [2, 3]}
        expected = module({name: torch.tensor(values) for name, values in ids.items()})
        np.testing.assert_allclose(row, expected.detach().numpy(), rtol=0, atol=1e-6)


@pytest.mark.usefixtures("may_be_imported")
def test_modules_are_made_and_scored_beside_one_that_learns_and_draws() -> None:
    """All of them draw from the one generator of the process."""
    chunks, queries = chunks_of(4), [make_query(number, 5) for number in range(3)]
    alone = teach(opened(ODD), chunks)
    made = opened(f"{ODD},dropout=0.5")
    start, scores = made.weights.clone(), made.score_queries(queries)

    def make_another(number: int) -> bool:
        other = opened(f"{ODD},dropout=0.5")
        same = all(torch.equal(tensor, start.tensors[name]) for name, tensor in other.weights.tensors.items())
        ranker_of(other, dict(other.identity or {}))
        return same and np.array_equal(other.score_queries(queries), scores)

    with ThreadPoolExecutor(4) as pool:
        learning = pool.submit(lambda: teach(opened(ODD), chunks))
        assert all(pool.map(make_another, range(12)))
        assert np.array_equal(learning.result(), alone)


OVERRIDDEN = """
import torch
from torch import nn
from torch.nn import functional as F
from tests.models.own_modules import Plain


class Base(Plain):
    def forward(self, features):
        return super().forward(features).relu()


class Gelu(Base):
    def forward(self, features):
        return F.gelu(Plain.forward(self, features))


class Unreached(Gelu):
    def __init__(self, schema, width):
        super().__init__(schema, width)
        self.layers[1] = nn.GELU()
        self.spare = nn.ReLU()


def unreached(schema):
    return Unreached(schema, 5)


def without(schema):
    module = Gelu(schema, 5)
    module.layers[1] = nn.GELU()
    return module


def elsewhere(schema):
    return Plain(schema, 5), torch.optim.SGD(Plain(schema, 5).parameters(), lr=0.1)


def untrainable(schema):
    module = Plain(schema, 5)
    module.forward = torch.no_grad()(module.forward)
    return module
"""


@pytest.mark.parametrize(
    ("factory", "words"),
    [
        ("unreached,relu=gelu", "it has ReLUs, but forward reaches none of them"),
        ("without,relu=gelu", "it has no ReLU that could be replaced"),
        ("elsewhere", "nothing of it learns: its optimiser holds none of its parameters"),
        ("untrainable", "nothing of it learns: the log-odds depend on none of its parameters"),
    ],
)
def test_what_would_look_like_a_cure_is_refused(write_module: WriteModule, factory: str, words: str) -> None:
    name = write_module(OVERRIDDEN)
    with pytest.raises(SettingError) as problem:
        opened(f"torch:{name}:{factory}")
    assert words in str(problem.value)


def test_scores_that_depend_on_their_company_are_told(
    write_module: WriteModule, caplog: pytest.LogCaptureFixture
) -> None:
    text = "from tests.models.own_modules import Plain\n\n\nclass Mean(Plain):\n    def forward(self, features):\n"
    text += "        found = super().forward(features)\n        return found - found[:9].mean()\n\n\n"
    name = write_module(text + "def make(schema):\n    return Mean(schema, 5)\n")
    opened(f"torch:{name}:make")
    assert [m for m in caplog.messages if "depend on the others in a call" in m] == caplog.messages[:1]
