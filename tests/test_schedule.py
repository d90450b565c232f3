"""Where generations are cut, and in which order events and feedback are learned."""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

from simulator.config import ExperimentConfig, ReplayConfig
from simulator.errors import DataError, SettingError
from simulator.experiment.experiment import Experiment
from simulator.schedule import LIVE_GENERATIONS, MIN_WINDOWS, Log, Plan, fitted, fitted_live
from simulator.types import Batch, Field, Floats, Ints, Query, Schema
from simulator.world.replay import ReplayWorld
from tests.small_runs import SMALL
from tests.world.made_logs import log_of, rows_of, world_of


def numbered(start: int, stop: int, kind: int) -> Batch:
    """Events that say who they are: item is their number, user is 0 for the world's and 1 for feedback."""
    count = stop - start
    item = np.arange(start, stop)
    features = np.zeros((count, 1), np.int32)
    return Batch(np.full(count, kind), item, item.astype(float), features, np.zeros(count, np.float32))


@dataclass(frozen=True)
class NumberedWorld:
    """A world of any length at no cost: all that a plan and a log ask of one."""

    events: int
    has_truth: bool = True
    has_pages = False
    name = "numbered"
    schema = Schema((Field("user", "user", 1),))

    def batches(self, size: int, start: int = 0, stop: int | None = None) -> Iterator[Batch]:
        stop = self.events if stop is None else stop
        for first in range(start, stop, size):
            yield numbered(first, min(first + size, stop), kind=0)

    def queries(self, count: int, candidates: int, at: int, purpose: str) -> list[Query]:
        raise AssertionError("nobody asks here")

    def present(self, time: float) -> Ints:
        raise AssertionError("nothing is retrieved here")

    def click(self, query: Query, items: Ints, purpose: str) -> Floats:
        raise AssertionError("nobody clicks here")

    def feedback(self, query: Query, items: Ints, clicks: Floats) -> Batch | None:
        raise AssertionError("nobody answers here")


def config(generations: int, queries: int, k: int) -> ExperimentConfig:
    return replace(SMALL, generations=generations, queries_per_generation=queries, k=k, candidates=max(2, k))


configs = st.builds(config, st.integers(2, 60), st.integers(2, 60), st.integers(1, 20))
worlds = st.builds(NumberedWorld, st.integers(1, 1_500_000), st.booleans())
chunks = st.integers(1, 9_000)


def feedback_size(settings: ExperimentConfig, world: NumberedWorld) -> int:
    return settings.queries_per_generation * settings.k if world.has_truth else 0


@given(configs, worlds, chunks)
def test_a_plan_covers_the_world_in_whole_shuffle_windows(
    settings: ExperimentConfig, world: NumberedWorld, chunk: int
) -> None:
    try:
        plan = Plan.of(settings, world, chunk)
    except SettingError:
        assume(False)
    feedback = feedback_size(settings, world)
    assert plan.held_out == min(world.events // 10, 50_000)
    assert plan.learned + plan.held_out == world.events
    assert plan.size % chunk == 0 and plan.size > feedback
    assert plan.total == plan.learned + feedback * (plan.generations - 1)
    last = plan.total - plan.size * (plan.generations - 1)
    assert 2 <= plan.generations <= settings.generations and last > 0
    assert last <= plan.size * 3 / 2 or plan.generations == 2


@given(st.integers(2, 60), chunks)
def test_as_many_generations_as_asked_for_where_windows_allow_it(generations: int, windows: int) -> None:
    chunk = 128
    world = NumberedWorld(generations * windows * chunk * 10 // 9, has_truth=False)
    assume(generations * windows > 2 and world.events < 500_000)  # above, less than a tenth is held out
    plan = Plan.of(config(generations, 2, 1), world, chunk)
    assert plan.generations == generations and plan.size == windows * chunk


@given(configs, st.integers(1, 60_000), st.booleans(), chunks)
def test_a_world_that_is_too_short_names_a_length_that_is_not(
    settings: ExperimentConfig, events: int, has_truth: bool, chunk: int
) -> None:
    world = NumberedWorld(events, has_truth)
    try:
        Plan.of(settings, world, chunk)
    except SettingError as error:
        assert error.setting == "events" and error.value == events
        named = re.search(r"more than (\d+)", error.hint)
        assert named
        enough = int(named[1]) + 1
        assert enough > events
        Plan.of(settings, replace(world, events=enough), chunk)
    else:
        assume(False)


def test_the_shortest_world_holds_two_windows_and_an_event() -> None:
    settings, window = config(2, 2, 1), 125
    with pytest.raises(SettingError, match=r"events = 277: too few for two generations"):
        Plan.of(settings, NumberedWorld(277, has_truth=False), window)  # 27 are held out: 250 are left
    plan = Plan.of(settings, NumberedWorld(278, has_truth=False), window)
    assert plan == Plan(learned=251, held_out=27, size=250, generations=2, total=251)


def test_feedback_that_nearly_fills_a_generation_does_not_multiply_generations() -> None:
    plan = Plan.of(config(20, 50, 10), NumberedWorld(6_000), chunk=256)  # 500 impressions: 12 short of two windows
    assert plan.generations <= 20 and plan.size >= 768


def learn(settings: ExperimentConfig, world: NumberedWorld, chunk: int) -> tuple[Plan, list[list[Batch]]]:
    """The chunks of each generation, where every generation but the last leaves its feedback."""
    plan = Plan.of(settings, world, chunk)
    log, generations, given_back = Log(world, 0, plan.learned, chunk), [], 0
    for number in range(1, plan.generations + 1):
        taken: list[Batch] = []
        while number == plan.generations or sum(map(len, taken)) < plan.size:
            part = log.take()
            if part is None:
                break
            taken.append(part)
        generations.append(taken)
        for _ in range(settings.queries_per_generation if world.has_truth and number < plan.generations else 0):
            log.put_first([numbered(given_back, given_back + settings.k, kind=1)])
            given_back += settings.k
    assert log.take() is None
    return plan, generations


@given(configs, st.integers(1_000, 20_000), st.booleans(), st.integers(20, 2_000))
def test_everything_is_learned_once_in_order_and_feedback_first(
    settings: ExperimentConfig, events: int, has_truth: bool, chunk: int
) -> None:
    world = NumberedWorld(events, has_truth)
    try:
        plan, generations = learn(settings, world, chunk)
    except SettingError:
        assume(False)
    for taken in generations[:-1]:
        assert [len(part) for part in taken] == [chunk] * (plan.size // chunk)
    assert all(len(part) == chunk for part in generations[-1][:-1]) and 0 < len(generations[-1][-1]) <= chunk
    flows = [Batch.concatenate(taken) for taken in generations]
    whole = Batch.concatenate(flows)
    assert len(whole) == plan.total
    assert np.array_equal(whole.item[whole.user == 0], np.arange(plan.learned))
    feedback = feedback_size(settings, world)
    assert np.array_equal(whole.item[whole.user == 1], np.arange(feedback * (plan.generations - 1)))
    for number, flow in enumerate(flows):
        assert np.flatnonzero(flow.user == 1).tolist() == list(range(feedback if number else 0))


@given(st.integers(0, 500), st.integers(0, 500), st.integers(1, 90), st.integers(0, 200))
def test_the_position_counts_the_worlds_events_that_were_taken(
    start: int, length: int, chunk: int, feedback: int
) -> None:
    log = Log(NumberedWorld(1_000), start, start + length, chunk)
    log.put_first([numbered(0, feedback, kind=1)] if feedback else [])
    taken = 0
    assert log.position == start
    while (part := log.take()) is not None:
        taken += int((part.user == 0).sum())
        assert log.position == start + taken
    assert taken == length


@given(st.integers(1, 30), st.integers(1, 90), st.data())
def test_a_log_that_goes_on_at_its_position_gives_what_was_left(
    chunks_taken: int, chunk: int, data: st.DataObject
) -> None:
    world, stop = NumberedWorld(1_000), data.draw(st.integers(0, 1_000))
    whole = Log(world, 0, stop, chunk)
    for _ in range(chunks_taken):
        whole.take()
    rest = Log(world, whole.position, stop, chunk)
    while (expected := whole.take()) is not None:
        found = rest.take()
        assert found is not None and np.array_equal(found.item, expected.item)
    assert rest.take() is None


DEFAULT = ExperimentConfig(world=ReplayConfig(Path("log")))


def small_world(rows: int, labelled: bool = False) -> ReplayWorld:
    return world_of(log_of(rows_of(rows), labelled))


@pytest.mark.parametrize("labelled", [False, True])
@pytest.mark.parametrize("rows", [60, 250, 1_000, 5_000])
def test_a_small_log_is_run_at_the_first_try(rows: int, labelled: bool) -> None:
    world = small_world(rows, labelled)
    if world.events < 200:
        with pytest.raises(DataError, match=f"log: a log of {world.events} events: at least 200"):
            fitted(DEFAULT, world, ())
        return
    config, line = fitted(DEFAULT, world, ())
    Experiment(config, world).check()
    plan = Plan.of(config, world, config.chunk_events)
    assert 20 >= plan.generations >= MIN_WINDOWS * 3 // 4 and "\n" not in line
    assert (f", generations 20 -> {plan.generations}" in line) == (plan.learned < 20 * config.chunk_events)
    assert line.startswith(f"Adapted to a log of {world.events:,} events: batch 512 -> {config.model.batch}, ")
    for name in ("candidates", "k", "queries", "queries_per_generation"):
        before, now = getattr(DEFAULT, name), getattr(config, name)
        assert (f", {name} {before} -> {now}" in line) == (before != now)
    assert fitted(config, world, ())[0] == config  # what is fitted fits: a run that goes on finds the same


def test_a_log_that_is_large_enough_changes_nothing() -> None:
    config = replace(SMALL, world=DEFAULT.world, generations=7)
    assert fitted(config, small_world(2_000), ()) == (config, "")
    assert fitted(SMALL, NumberedWorld(100), ()) == (SMALL, "")  # no log


def test_what_somebody_chose_stays_and_is_refused_where_it_cannot_be() -> None:
    config, _ = fitted(DEFAULT, small_world(1_000), {"batch"})
    assert config.model.batch == 512 and config.noise.window < 16
    world = small_world(250)
    config, _ = fitted(DEFAULT, world, {"queries"})
    with pytest.raises(SettingError, match="queries = 500: at most"):
        Experiment(config, world).check()
    with pytest.raises(SettingError, match="too few for two generations"):
        fitted(DEFAULT, world, {"batch", "window"})


@pytest.mark.parametrize(("rows", "size"), [(100, None), (1_000, None), (1_000, 16_384), (30_000, None)])
def test_a_log_has_enough_generations_when_it_is_live(rows: int, size: int | None) -> None:
    world = small_world(rows)
    config, events, line = fitted_live(DEFAULT, world, (), size)
    assert events % config.chunk_events == 0 and world.events // events >= LIVE_GENERATIONS * 3 // 4
    assert ("events per generation" in line) == (events != (size or 2 * config.chunk_events))


def test_a_size_that_somebody_named_stays_where_the_log_has_two_of_it() -> None:
    config, events, line = fitted_live(DEFAULT, small_world(20_000), (), 32_768)
    assert events == 32_768 and events % config.chunk_events == 0 and "per generation" not in line
    assert fitted_live(SMALL, NumberedWorld(100), (), None) == (SMALL, 2 * SMALL.chunk_events, "")
    assert fitted_live(SMALL, NumberedWorld(100), (), 99) == (SMALL, 99, "")
