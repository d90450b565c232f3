"""Users and items that share table rows: which, how many, and what stays as it is."""

from __future__ import annotations

import zlib
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from scipy.stats import chi2

from simulator.config import ModelConfig, ReplayConfig, SyntheticConfig
from simulator.errors import SettingError
from simulator.types import Batch
from simulator.world.features import hashed
from simulator.world.open import open_world
from simulator.world.replay import ReplayWorld
from simulator.world.stream import SyntheticWorld
from tests.small_runs import SMALL, outcome, prepared, small_log

HASH_ROWS = 13
World = SyntheticWorld | ReplayWorld


@pytest.fixture(params=["synthetic", "folder", "table"])
def config(request: pytest.FixtureRequest, tmp_path: Path) -> SyntheticConfig | ReplayConfig:
    """Each way in which a world gets its rows."""
    if request.param == "synthetic":
        return SyntheticConfig(events=6_000, users=80, items=60)
    if request.param == "folder":
        return ReplayConfig(small_log(tmp_path / "log"))
    rows = (f"{n},u{n % 70},i{n * n % 90},{'ab'[n % 2]}\n" for n in range(2_000))
    (tmp_path / "log.csv").write_text("time,user,item,device\n" + "".join(rows))
    (tmp_path / "log.toml").write_text(
        'log = "log.csv"\nuser = "user"\nitem = "item"\ntime = "time"\n[features]\ncontext = ["device"]\n'
    )
    return ReplayConfig(tmp_path / "log.toml")


def split_mix(number: int, name: str, rows: int) -> int:
    """The finaliser of SplitMix64 with numbers of any length, kept to 64 bits."""
    mask = (1 << 64) - 1
    x = (number + (zlib.crc32(name.encode()) << 32)) & mask
    x = ((x ^ x >> 30) * 0xBF58476D1CE4E5B9) & mask
    x = ((x ^ x >> 27) * 0x94D049BB133111EB) & mask
    return (x ^ x >> 31) % rows


@pytest.mark.parametrize("name", ["user", "item"])
def test_the_hash_is_that_of_the_reference(name: str) -> None:
    numbers = np.array([0, 1, 2, 999_999, 2**31])
    assert hashed(numbers, name, 1_000).tolist() == [split_mix(int(n), name, 1_000) for n in numbers]


def test_rows_are_shared_as_by_chance() -> None:
    count, rows = 200_000, 50_000
    users, items = (hashed(np.arange(count), name, rows) for name in ("user", "item"))
    for values in (users, items):
        load = np.bincount(values, minlength=rows)
        statistic = ((load - count / rows) ** 2 / (count / rows)).sum()
        assert len(load) == rows and 1e-6 < chi2.sf(statistic, rows - 1) < 1 - 1e-6
        alone = (load[values] == 1).mean()
        assert alone == pytest.approx((1 - 1 / rows) ** (count - 1), rel=0.1)
    assert (users == items).mean() < 10 / rows  # who shares a row as a user does not as an item


def whole(world: World) -> Batch:
    return Batch.concatenate(list(world.batches(1_000)))


def test_only_the_identities_share_rows(config: SyntheticConfig | ReplayConfig) -> None:
    full, shared = open_world(config, 3), open_world(config, 3, HASH_ROWS)
    assert (shared.users, shared.items) == (full.users, full.items)
    for field, other in zip(full.schema.fields, shared.schema.fields, strict=True):
        identity = field.name in ("user", "item")
        assert other == (replace(field, vocabulary=HASH_ROWS) if identity else field)
    events, others = whole(full), whole(shared)
    for name in ("user", "item", "time", "label"):
        assert np.array_equal(getattr(events, name), getattr(others, name))
    for field in full.schema.fields:
        slots, first = full.schema.slot_range(field.name), full.schema.first_row(field.name)
        other = shared.schema.first_row(field.name)
        value, found = events.features[:, slots].astype(np.int64), others.features[:, slots].astype(np.int64)
        if field.name in ("user", "item"):
            numbers = getattr(events, field.name)
            assert found[:, 0].tolist() == [other + split_mix(int(n), field.name, HASH_ROWS) for n in numbers]
        else:
            assert np.array_equal(np.where(value > 0, value - first, -1), np.where(found > 0, found - other, -1))


def test_queries_ask_for_the_rows_that_were_learned(config: SyntheticConfig | ReplayConfig) -> None:
    full, shared = open_world(config, 3), open_world(config, 3, HASH_ROWS)
    for query, other in zip(*(w.queries(5, 20, 1_000, "test") for w in (full, shared)), strict=True):
        assert (query.id, query.user) == (other.id, other.user) and np.array_equal(query.candidates, other.candidates)
        context = np.tile(np.array(other.context, np.int32), (20, 1))
        encoded = shared.encoder.encode(np.full(20, other.user), other.candidates, context)
        assert np.array_equal(other.features, encoded)


def test_as_many_rows_as_there_are_is_a_row_for_each(config: SyntheticConfig | ReplayConfig) -> None:
    full, enough = open_world(config, 3), open_world(config, 3, 1_000)
    assert enough.schema == full.schema
    assert np.array_equal(whole(full).features, whole(enough).features)


def test_a_run_learns_in_the_rows_it_was_given_and_says_how_many_users_there_are() -> None:
    config = replace(SMALL, model=replace(SMALL.model, hash_rows=HASH_ROWS))
    experiment, full = prepared(config), prepared(SMALL)
    fewer = 80 + 60 - 2 * HASH_ROWS
    assert full.engines.costs(0).parameters - experiment.engines.costs(0).parameters == fewer * SMALL.model.dim
    result = outcome(experiment)
    assert (result["world"]["users"], result["world"]["items"]) == (80, 60)
    losses = [arm["log_loss"]["mean"] for arm in result["arms"].values()]
    assert losses != [arm["log_loss"]["mean"] for arm in outcome(full)["arms"].values()]


def test_fewer_than_no_rows_are_refused() -> None:
    with pytest.raises(SettingError, match="hash_rows = -1: 0 "):
        ModelConfig(hash_rows=-1)
