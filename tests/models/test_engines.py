"""What every engine promises, asked of each of them."""

from __future__ import annotations

from dataclasses import replace
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from simulator.config import NO_NOISE, ModelConfig, NoiseConfig, SyntheticConfig
from simulator.errors import ResultError, SettingError
from simulator.models.engine import Engine
from simulator.models.factories import ALLOWED
from simulator.models.ranker import Rankers
from simulator.models.snapshot import read_snapshot, write_snapshot
from simulator.randomness import generator
from simulator.types import Floats, Schema
from simulator.world.stream import SyntheticWorld
from tests.models.conftest import (
    BUILT_IN,
    CURES,
    ENGINES,
    MIXED,
    MODEL,
    NATIVE,
    NO_KERNELS,
    ODD,
    OWN,
    SHUFFLED,
    SINGLE,
    TORCH,
    Kind,
    assert_same_state,
    make_chunks,
    make_engine,
    make_events,
    make_query,
    teach,
    weighted,
)

WORLD = SyntheticWorld(SyntheticConfig(events=1_000, users=20, items=30), seed=3)
QUERIES = WORLD.queries(4, 12, 500, "test")
every_engine = pytest.mark.parametrize("kind", ENGINES)
every_built_in = pytest.mark.parametrize("kind", BUILT_IN)


def with_norms(engines: list[Any], modules: bool = True) -> pytest.MarkDecorator:
    """Each engine with each norm that it has; a module of a user's has none, and `modules` takes them for other
    activations."""
    params = [
        pytest.param(*engine.values, norm, id=f"{engine.id}-{norm}", marks=engine.marks)
        for engine in engines
        for norm in ("none", "before", "after", "weight")
        if (engine.values[0] is not NATIVE or norm != "weight")
        and (modules or norm == "none" or not engine.values[0].factory)
    ]
    return pytest.mark.parametrize(("kind", "norm"), params)


every_norm, every_norm_built_in = with_norms(ENGINES), with_norms(BUILT_IN)


@pytest.fixture(autouse=True)
def may_be_imported(monkeypatch: pytest.MonkeyPatch) -> None:
    """The modules of the tests, in serving."""
    monkeypatch.setenv(ALLOWED, " ".join(f"tests.models.own_modules:{kind.factory}" for kind in (OWN, ODD)))


@every_engine
@pytest.mark.parametrize(
    ("norm", "spec", "schema"), [("none", "relu", MIXED), ("before", "smelu", SINGLE), ("after", "gelu", MIXED)]
)
def test_without_noise_duplicates_are_equal_to_the_last_bit(kind: Kind, norm: str, spec: str, schema: Schema) -> None:
    model = ModelConfig(dim=3, hidden=(13, 5), batch=7, norm=norm)  # type: ignore[arg-type]
    engine = make_engine(kind, spec, model=model, schema=schema, duplicates=3, threads=2)
    given = teach(engine, make_chunks(engine, 2, schema))
    for values in (given, engine.score_events(make_events(schema, 30, seed=1).features)):
        assert (values == values[0]).all() and np.ptp(values[0]) > 0
    for name, tensor in engine.state().items():
        if name.startswith(("weights.", "squares.")):
            assert all(torch.equal(own, tensor[0]) for own in tensor), name


@every_engine
@pytest.mark.parametrize("spec", ["relu", "smelu:beta=0.5"])
def test_the_number_of_threads_does_not_matter(kind: Kind, spec: str) -> None:
    engines = [make_engine(kind, spec, noise=kind.every_noise, duplicates=3, threads=threads) for threads in (1, 3)]
    chunks = make_chunks(engines[0], 2)
    assert np.array_equal(*(teach(engine, chunks) for engine in engines))
    assert_same_state(*engines)


@every_engine
@pytest.mark.parametrize("spec", ["smelu", *CURES])
def test_goes_on_from_disk_as_if_it_had_never_stopped(kind: Kind, spec: str, tmp_path: Path) -> None:
    noise = kind.every_noise
    steady, resumed = (make_engine(kind, spec, noise=noise, threads=threads) for threads in (1, 3))
    chunks = weighted(make_chunks(steady, 5))
    teach(steady, chunks[:2], refresh=True)
    steady.learn(chunks[2])
    state = steady.state()
    assert any(name.startswith("pending") for name in state) == bool(noise.delay)
    write_snapshot(tmp_path, state, {})
    resumed.restore(read_snapshot(tmp_path)[0])
    assert_same_state(steady, resumed)
    assert np.array_equal(teach(steady, chunks[3:], refresh=True), teach(resumed, chunks[3:], refresh=True))
    assert_same_state(steady, resumed)


@every_engine
def test_queries_of_different_lengths_are_scored_as_each_alone(kind: Kind) -> None:
    engine, queries = make_engine(kind), [make_query(number, 3 + 5 * (number % 3)) for number in range(7)]
    teach(engine, make_chunks(engine, 1))
    together = engine.score_queries(queries)
    for place, query in enumerate(queries):
        n = len(query.candidates)
        assert np.array_equal(together[:, place, :n], engine.score_queries([query])[:, 0])
        assert np.isnan(together[:, place, n:]).all() and together.shape[2] == 13


@pytest.mark.parametrize(
    ("kind", "spec"),
    [
        pytest.param(*engine.values, spec, id=f"{engine.id}-{spec}", marks=engine.marks)
        for engine in ENGINES
        for spec in ("relu", *CURES)
        if spec == "relu" or not engine.values[0].factory or engine.values[0] is OWN  # one module for the cures
    ],
)
def test_weights_of_1_are_none_and_an_event_of_weight_0_teaches_nothing(kind: Kind, spec: str) -> None:
    plain, ones, some, changed = (make_engine(kind, spec, noise=SHUFFLED) for _ in range(4))
    chunks = make_chunks(plain, 3)
    assert np.array_equal(
        teach(plain, chunks, refresh=True),
        teach(ones, [replace(chunk, weight=np.ones(len(chunk), np.float32)) for chunk in chunks], refresh=True),
    )
    events = chunks[0].features
    assert np.array_equal(plain.score_events(events), ones.score_events(events))
    flipped = [replace(c, label=np.where(c.weight == 0, 1 - c.label, c.label)) for c in weighted(chunks)]
    given = teach(some, weighted(chunks), refresh=True)
    assert not np.array_equal(some.score_events(events), plain.score_events(events))
    assert np.array_equal(given, teach(changed, flipped, refresh=True))


@every_engine
@pytest.mark.parametrize("spec", ["relu", "anchor:relu", "average:relu", "fresh:relu"])
def test_a_state_stays_as_it_was_while_learning_goes_on(kind: Kind, spec: str) -> None:
    engine = make_engine(kind, spec, noise=kind.every_noise)
    first, second = make_chunks(engine, 2)
    teach(engine, [first], refresh=True)
    state = engine.state()
    kept = {name: tensor.clone() for name, tensor in state.items()}
    teach(engine, [second], refresh=True)
    assert all(torch.equal(state[name], tensor) for name, tensor in kept.items())


@pytest.mark.parametrize("kind", [pytest.param(NATIVE, marks=NO_KERNELS), TORCH], ids=["native", "torch"])
def test_the_state_of_another_engine_is_refused(kind: Kind) -> None:
    other = TORCH if kind is NATIVE else NATIVE
    if other is NATIVE and NO_KERNELS.args[0]:
        pytest.skip("no kernels here")
    state = make_engine(kind).state()
    with pytest.raises(ResultError) as problem:
        make_engine(other).restore(state)
    saved = "native" if kind is NATIVE else "torch"
    assert str(problem.value).startswith(f"relu: saved by the {saved} engine") and "\n" not in str(problem.value)


def taught(kind: Kind, spec: str, norm: str, hidden: tuple[int, ...] = (6, 4)) -> Engine:
    """An engine on WORLD with weights all away from their start: zeros and ones hide mistakes."""
    model = ModelConfig(dim=3, hidden=hidden, batch=16, norm=norm)  # type: ignore[arg-type]
    engine = make_engine(kind, spec, schema=WORLD.schema, model=model, noise=NoiseConfig(window=4))
    teach(engine, list(WORLD.batches(engine.chunk_events, 0, 3 * engine.chunk_events)))
    draws = torch.Generator().manual_seed(1)
    for each in (engine.weights, engine.served):
        for name, tensor in sorted(each.tensors.items()):
            if tensor.is_floating_point():
                moved = tensor[:, 1:] if name == "table" else tensor
                moved += 0.2 * torch.randn(moved.shape, generator=draws).to(moved)
    return engine


def served_scores(engine: Engine, tensors: dict[str, Tensor], device: str) -> Floats:
    """Log-odds [Q, N] of QUERIES by a ranker of what the engine published."""
    users, contexts = np.array([q.user for q in QUERIES]), np.array([q.context for q in QUERIES], np.int32)
    encoder, arm = WORLD.encoder, engine.arm
    rows = encoder.user_rows, encoder.item_rows
    ranker = Rankers(device)(WORLD.schema, arm.function, engine.name, engine.model, tensors, *rows, engine.identity)
    assert ranker.name == engine.name
    return ranker.scores(users, contexts, np.stack([q.candidates for q in QUERIES]))


@every_norm
def test_what_is_published_scores_like_the_models_that_learned(kind: Kind, norm: str) -> None:
    spec = {"none": "relu", "before": "smelu:beta=2", "after": "average:gelu", "weight": "swish"}[norm]
    engine = taught(kind, spec, norm)
    expected = engine.score_queries(QUERIES)
    for duplicate in range(2):
        found = served_scores(engine, engine.published(duplicate), kind.device)
        # a module of a user's is one code path: equal to the last bit
        np.testing.assert_allclose(found, expected[duplicate], rtol=0, atol=0 if kind.factory else 2e-5)
    assert np.abs(expected[0] - expected[1]).max() > 1e-3


@pytest.mark.parametrize("kind", [OWN, ODD], ids=["own", "odd"])
def test_every_tensor_of_a_modules_snapshot_is_used(kind: Kind) -> None:
    engine = taught(kind, "gelu", "none")
    before = served_scores(engine, engine.published(0), kind.device)
    names = [name for name in engine.published(0) if name != "calls"]  # which the module only counts
    assert len(names) >= 8
    for name in names:
        tensors = engine.published(0)
        tensors[name] += 0.5
        assert (served_scores(engine, tensors, kind.device) != before).any(), name


@every_norm_built_in
def test_every_parameter_of_a_snapshot_is_used(kind: Kind, norm: str) -> None:
    """Each element of each dense tensor, one by one, and then all vectors of each field."""
    engine = taught(kind, "gelu", norm, hidden=(4, 3))
    before = served_scores(engine, engine.published(0), kind.device)
    for part in engine.layout.parts.values():
        for element in range(part.start, part.start + part.size):
            tensors = engine.published(0)
            tensors["dense"][element] += 0.5
            found = served_scores(engine, tensors, kind.device)
            # two units under a layer norm move together to the last bit: what little is left is rounding
            assert np.abs(found - before).max() > 1e-6, (part.name, element - part.start)
            if part.name == "bias_out":
                np.testing.assert_allclose(found, before + 0.5, rtol=0, atol=2e-5)
    for each in WORLD.schema.fields:
        tensors, first = engine.published(0), WORLD.schema.first_row(each.name)
        tensors["table"][first : first + each.vocabulary] += 0.5
        assert (served_scores(engine, tensors, kind.device) != before).all(), each.name


@with_norms(ENGINES, modules=False)
def test_a_served_score_is_the_same_to_the_last_bit_in_any_company(kind: Kind, norm: str) -> None:
    engine, encoder, draws = taught(kind, "gelu", norm, (24, 15)), WORLD.encoder, generator(0, "test company")
    tensors, rows = engine.published(0), (encoder.user_rows, encoder.item_rows)
    function = engine.arm.function
    ranker = Rankers(kind.device)(WORLD.schema, function, engine.name, engine.model, tensors, *rows, engine.identity)
    for candidates in (1, 7, 30):
        users = draws.integers(0, 20, 33)
        context = np.repeat(np.array([QUERIES[0].context], np.int32), 33, 0)
        items = np.stack([draws.permutation(30)[:candidates] for _ in users])
        together = ranker.scores(users, context, items)
        for size in (1, 2, 5, 16):
            parts = [slice(start, start + size) for start in range(0, 33, size)]
            apart = [ranker.scores(users[part], context[part], items[part]) for part in parts]
            assert np.array_equal(np.concatenate(apart), together)


@every_built_in
@pytest.mark.parametrize("norm", ["none", "before", "after"])
def test_an_events_score_is_the_same_to_the_last_bit_in_any_company(kind: Kind, norm: str) -> None:
    model = ModelConfig(dim=5, hidden=(24, 15), norm=norm)  # type: ignore[arg-type]
    engine = make_engine(kind, "gelu", model=model)
    features = make_events(MIXED, 130).features
    together = engine.score_events(features)
    for size in (1, 7, 33, 64, 65, 129):
        parts = [features[start : start + size] for start in range(0, 130, size)][:10]
        apart = np.concatenate([engine.score_events(part) for part in parts], 1)
        assert np.array_equal(apart, together[:, : apart.shape[1]]), size


@every_engine
@pytest.mark.parametrize("spec", ["relu", "ensemble:relu:m=2", "average:relu"])
def test_queries_are_scored_candidate_by_candidate_and_teach_nothing(kind: Kind, spec: str) -> None:
    engine = make_engine(kind, spec, noise=SHUFFLED, fleets=2)
    teach(engine, make_chunks(engine, 2))
    before = engine.state()
    queries = [make_query(number, 12) for number in range(3)]
    scores = engine.score_queries(queries)
    assert scores.shape == (4, 3, 12) and engine.scoring_seconds.shape == (4,) and (engine.scoring_seconds > 0).all()
    for number, query in enumerate(queries):
        np.testing.assert_allclose(scores[:, number], engine.score_events(query.features), rtol=1e-5, atol=1e-6)
    assert all(torch.equal(before[name], tensor) for name, tensor in engine.state().items())


@every_built_in
@pytest.mark.parametrize("schema", [MIXED, SINGLE], ids=["mixed", "single"])
def test_padding_stays_zero_in_every_kind_of_field(kind: Kind, schema: Schema) -> None:
    """Also where a single-valued field has no value: an empty cell of a log."""
    engine = make_engine(kind, schema=schema)
    for chunk in make_chunks(engine, 2, schema):
        chunk.features[::3, 0] = 0
        engine.learn(chunk)
    assert not engine.weights.table[:, 0].any()


@every_built_in
def test_a_row_that_is_not_in_the_batch_does_not_change(kind: Kind) -> None:
    engine = make_engine(kind, noise=replace(kind.every_noise, lost=0, delay=0))
    before = engine.state()
    chunk = make_events(MIXED, 6)
    engine.learn(chunk)
    now, used = engine.state(), np.unique(chunk.features[chunk.features > 0])
    absent = np.setdiff1d(np.arange(MIXED.rows), used)
    assert len(used) > 5 and len(absent) > 5
    for name in ("weights.table", "squares.table"):
        assert torch.equal(now[name][:, absent], before[name][:, absent])
    assert (now["squares.table"][:, used] > before["squares.table"][:, used]).all()
    assert (now["weights.table"][:, used] != before["weights.table"][:, used]).any(-1).all()


@every_engine
@pytest.mark.parametrize("spec", ["relu", "codistill:relu", "average:relu", "fresh:relu"])
def test_predicts_every_event_before_it_learns_from_it(kind: Kind, spec: str) -> None:
    """In the order of the log, although each duplicate learns in its own."""
    engine = make_engine(kind, spec, noise=NoiseConfig(window=1))
    for start in (0, 8, 16):
        chunk = make_events(MIXED, MODEL.batch, start=start)
        expected = engine.score_events(chunk.features)
        np.testing.assert_allclose(engine.learn(chunk), expected, rtol=1e-5, atol=2e-6)
        assert np.abs(engine.score_events(chunk.features) - expected).max() > 1e-3


@every_engine
def test_a_lost_mini_batch_is_predicted_but_leaves_everything_as_it_was(kind: Kind) -> None:
    engine = make_engine(kind, noise=replace(NO_NOISE, lost=0.5), duplicates=12)
    lost = np.array([engine.noise.lost(who, 0, 1)[0] for who in engine.members])
    assert lost.any() and not lost.all()
    chunk, before = make_events(MIXED, MODEL.batch), engine.state()
    expected = engine.score_events(chunk.features)
    np.testing.assert_allclose(engine.learn(chunk), expected, rtol=1e-5, atol=1e-6)
    now = engine.state()
    names = [name for name in now if name.startswith(("weights.", "squares."))]
    kept = {name: [torch.equal(*pair) for pair in zip(now[name], before[name], strict=True)] for name in names}
    # a module of a user's has parts that do not learn, and counts its calls
    names = ["weights.tables.user.weight", "weights.out.weight"] if kind is ODD else names
    assert {name: kept[name] for name in names} == dict.fromkeys(names, lost.tolist())


@every_engine
def test_matched_duplicates_of_two_arms_start_alike_and_see_the_same_events(kind: Kind) -> None:
    """SmeLU of no width is ReLU, to the last bit."""
    engines = [make_engine(kind, spec, noise=kind.every_noise) for spec in ("relu", "smelu:beta=0")]
    chunks = make_chunks(engines[0], 2)
    relu, smelu = (teach(engine, chunks) for engine in engines)
    assert np.array_equal(relu, smelu) and not np.array_equal(relu[0], relu[1])
    assert_same_state(*engines)


@every_engine
def test_fleets_and_repeated_arms_are_independent(kind: Kind) -> None:
    first, second = (make_engine(kind, spec, noise=NoiseConfig(window=4), fleets=2) for spec in ("relu", "relu#2"))
    generator_states = [name for name, tensor in first.weights.tensors.items() if tensor[0].unique().numel() > 2]
    assert len(generator_states) >= 2
    for name in generator_states:
        tensor = first.weights.tensors[name]
        assert torch.equal(tensor[0], tensor[1]) and torch.equal(tensor[2], tensor[3])
        assert not torch.equal(tensor[0], tensor[2])
        assert not torch.equal(tensor[0], second.weights.tensors[name][0])
    orders = [tuple(engine.noise.order(who, 0, 32, 8)) for engine in (first, second) for who in engine.members]
    assert len(set(orders)) == 8


@every_engine
def test_an_arm_that_diverges_is_one_line(kind: Kind) -> None:
    engine = make_engine(kind, "smelu:beta=1,norm=none,lr=1e20")
    with pytest.raises(SettingError) as problem:
        teach(engine, make_chunks(engine, 3))
    assert str(problem.value).startswith(f"learning_rate = 1e+20: {engine.arm.label} diverged within ")
    assert "\n" not in str(problem.value)


@every_engine
@pytest.mark.parametrize("spec", ["relu", *CURES[:-1]])
def test_costs_are_the_bytes_that_are_held(kind: Kind, spec: str) -> None:
    engine = make_engine(kind, spec, noise=NoiseConfig(window=2), fleets=2)
    teach(engine, make_chunks(engine, 1), refresh=True)
    costs, m, served = engine.costs(candidates=10), engine.arm.cure.m, engine.arm.cure.served_parts
    held = sum(tensor.nbytes for name, tensor in engine.state().items() if name not in ("progress", "source"))
    assert costs.train_bytes == held // 4 and costs.model_bytes == engine.weights.bytes_per_model * served
    if kind.factory:  # padding and unknown values have vectors too; the odd one has a frozen part and a tied weight
        widths, rows = (20, 8, 1), MIXED.rows - 1 + 2 * 4
        dense = 6 * 6 + 6 + 6 + 6 + 1 if kind is ODD else sum(a * b + b for a, b in pairwise(widths))
        assert costs.parameters == served * (dense + (6 if kind is ODD else 5) * rows)
    else:
        widths = (4 * 5, 24, 15)
        dense = sum(a * b + 2 * b for a, b in pairwise(widths)) + 15 + 1
        assert costs.parameters == served * (dense + 5 * (MIXED.rows - 1))
    assert costs.lookups == 10 * MIXED.slots * served and len(engine.members) == 4 * m
    seconds = engine.take_seconds()
    assert seconds.shape == (4,) and (seconds > 0).all() and not engine.take_seconds().any()
