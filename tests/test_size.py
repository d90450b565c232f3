"""`flicker size`: laws as sums of counts, plans that grow as they must, what is said of bad input, and the page."""

from __future__ import annotations

import json
import math
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from simulator.errors import FlickerError
from simulator.flags import parse_flags
from simulator.size.laws import FORMS, Law, Laws, Workload, read_laws, size, span
from simulator.size.plan import SizeFlags, plan, smallest_fitting

ROOT = Path(__file__).parents[1]
INTERNET = "--queries-per-second 1e5 --duplicates 1000 --events-per-day 1e9 --items 1e8".split()


def flicker_size(*flags: str) -> subprocess.CompletedProcess[str]:
    """As a user calls it."""
    command = [sys.executable, "-m", "simulator", "size", *flags]
    return subprocess.run(command, cwd=ROOT, text=True, capture_output=True)


def made_up(**coefficients: tuple[float, ...]) -> Laws:
    """Laws with these coefficients, 0 for all others."""
    laws = {name: Law(form, coefficients.get(name, (0.0,) * len(form.terms)), 0.0) for name, form in FORMS.items()}
    return Laws("2026-01-02", "a machine", laws, {"router-0": 100.0}, {"items": 1e5})


def test_a_shape_counts_what_a_model_has() -> None:
    shape = Workload(users=1_000, items=500, hash_rows=600, arms=2, duplicates=3, dim=16, hidden=(64, 32))
    assert shape.rows == 600 + 500 + 109 and shape.models == 6
    assert shape.late == 64 * 32 + 32 and shape.dense == 10 * 16 * 64 + shape.late
    assert shape.published == 4 * 2 * (shape.rows * 16 + shape.dense)
    assert shape.prepared == 4 * 2 * 500 * 64


def test_a_law_is_the_sum_of_its_terms() -> None:
    law = Law(FORMS["replica_query"], (1e-4, 2e-7, 0.0), 0.1)
    shape = Workload(1_000, 1_000, candidates=300)
    assert law(shape) == pytest.approx(1e-4 + 300 * 2e-7)
    assert law.words() == "100 µs + 200 ns x candidates"


def test_a_plan_is_its_laws_times_the_demand() -> None:
    laws = made_up(router_query=(2e-4,), replica_query=(1e-4, 0.0, 0.0), replica_memory=(2.0**30, 0, 0, 0))
    flags = SizeFlags(queries_per_second=10_000, shadow=0, cores=16, gib=64, use=0.5)
    router, replica = plan(flags, laws).parts[:2]
    assert (router.cores, router.processes, router.machines) == (2.0, 4, 1)
    assert (replica.cores, replica.processes, replica.memory) == (1.0, 2, 2.0**30)
    small = plan(replace(flags, gib=1.5), laws).parts[1]
    assert small.machines == 2, "one on each: memory is what is scarce"


def test_trainers_are_as_many_as_the_events_ask_for_and_at_most_the_duplicates() -> None:
    per_event = 1e-6
    laws = made_up(trainer_generation=(0, 0, 0, per_event, 0, 0, 0))
    flags = SizeFlags(duplicates=100, events_per_day=86_400e4, arms=2, use=0.5)  # 10,000 events/s
    trainer = plan(flags, laws).parts[2]
    assert trainer.cores == pytest.approx(1e4 * 2 * 100 * per_event)
    assert trainer.processes == math.ceil(trainer.cores / 0.5)
    crowded = plan(replace(flags, events_per_day=86_400e6), laws)
    assert crowded.parts[2].processes == 100
    assert any("trainer of one duplicate" in limit.what and limit.share > 1 for limit in crowded.limits)


@settings(deadline=None)
@given(st.integers(1, 200), st.integers(0, 220))
def test_the_fewest_shards_are_found(maximum: int, minimum: int) -> None:
    shards = smallest_fitting(maximum, lambda shards: shards >= minimum)
    assert shards == next((n for n in range(1, maximum + 1) if n >= minimum), maximum)


@settings(deadline=None, max_examples=60)
@given(
    name=st.sampled_from(["queries_per_second", "events_per_day", "items", "duplicates"]),
    start=st.floats(10, 1e7),
    factor=st.floats(1, 1e3),
)
def test_more_demand_never_takes_less(name: str, start: float, factor: float) -> None:
    laws = read_laws()
    one, two = (plan(replace(SizeFlags(), **{name: value}), laws) for value in (start, start * factor))
    for before, after in zip(one.parts, two.parts, strict=True):
        assert (
            after.memory * after.processes >= before.memory * before.processes * (1 - 1e-9) or "trainer" in after.name
        )
        assert after.network >= before.network * (1 - 1e-9) and after.machines >= before.machines
    for made in (one, two):
        shares = [limit.share for limit in made.limits]
        assert shares == sorted(shares, reverse=True) and all(map(math.isfinite, shares))


def test_an_object_store_takes_the_weights_from_the_store() -> None:
    flags = SizeFlags(duplicates=1_000, items=1e8)
    here, apart = (plan(replace(flags, weights=where), read_laws()) for where in ("store", "objects"))
    stores = [next(part for part in made.parts if part.name == "store") for made in (here, apart)]
    (objects,) = (part for part in apart.parts if part.name == "object store")
    assert stores[0].memory == pytest.approx(stores[1].memory + objects.memory)
    assert stores[0].network > stores[1].network


def test_tables_say_what_json_says() -> None:
    table, said = flicker_size(*INTERNET), flicker_size(*INTERNET, "--json")
    assert table.returncode == said.returncode == 0, table.stderr + said.stderr
    made = json.loads(said.stdout)
    assert [part["name"] for part in made["parts"]][:4] == ["router", "replica", "trainer shard", "store"]
    assert all(part["name"] in table.stdout for part in made["parts"])
    assert made["limits"][0]["share"] > 1 and made["limits"][0]["what"] in table.stdout
    assert made["beyond"] and "Extrapolated" in table.stdout
    assert made["laws"]["date"] in table.stdout


@pytest.mark.parametrize(
    ("flag", "value"),
    [
        ("items", "0"), ("items", "-1"), ("items", "1e30"), ("queries-per-second", "0"), ("events-per-day", "nan"),
        ("duplicates", "1"), ("dim", "0"), ("hidden", "0"), ("use", "1.5"), ("refresh-every", "inf"), ("shadow", "2"),
        ("users", "0"), ("hash-rows", "-1"), ("gib", "1e30"), ("outage", "-1"), ("arms", "0"), ("cores", "0"),
    ],
)  # fmt: skip
def test_what_cannot_be_is_one_line(flag: str, value: str) -> None:
    with pytest.raises(FlickerError) as caught:
        parse_flags(SizeFlags, "flicker size", [f"--{flag}={value}"])
    words = str(caught.value)
    assert words.startswith(f"{flag.replace('-', '_')} = ") and "\n" not in words


def test_a_bad_setting_ends_with_exit_code_2() -> None:
    ran = flicker_size("--items", "1e30")
    assert ran.returncode == 2 and ran.stderr.count("\n") == 1 and "items = 1e+30" in ran.stderr


def test_laws_are_whole_and_stand_in_the_page() -> None:
    laws, page = read_laws(), (ROOT / "docs/scaling.md").read_text()
    assert set(laws.laws) == set(FORMS)
    for name, law in laws.laws.items():
        assert len(law.coefficients) == len(FORMS[name].terms) and all(c >= 0 for c in law.coefficients)
        assert f"| {law.form.title} | {law.words()} |" in page
    assert f"Measured {laws.date} by `make scaling ARGS=--live`" in page


@pytest.mark.parametrize(("value", "words"), [(1.5e-6, "1.5 µs"), (2.5e-3, "2.5 ms"), (150, "150 s")])
def test_seconds_have_units(value: float, words: str) -> None:
    assert span(value) == words


@pytest.mark.parametrize(("value", "words"), [(12, "12 B"), (2**20, "1 MiB"), (1.5 * 2**40, "1.5 TiB")])
def test_bytes_have_units(value: float, words: str) -> None:
    assert size(value) == words
