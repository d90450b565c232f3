"""`make scaling`: laws against points made by them, parts of a process against what they hold, the page."""

from __future__ import annotations

import importlib
import json
import os
import re
import subprocess
import sys
import xml.etree.ElementTree as ET
from dataclasses import asdict
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import pytest

from simulator.size.laws import FORMS, parsed
from tests.bench.scaling_axes import QUICK, served
from tests.bench.scaling_laws import fit, fit_sum
from tests.bench.scaling_meter import Meter

ROOT = Path(__file__).parents[1]
ENVIRONMENT = os.environ | {"PYTHONPATH": str(ROOT)}
X = [1e4, 3e4, 1e5, 1e6]


def scaling(*flags: str) -> subprocess.CompletedProcess[str]:
    """The script as `make scaling` calls it, with tiny sizes."""
    command = [sys.executable, "tests/bench/scaling.py", "--quick", *flags]
    return subprocess.run(command, cwd=ROOT, env=ENVIRONMENT, text=True, capture_output=True)


def test_a_straight_line_is_found_again() -> None:
    law = fit(X, [2e8 + 300 * x for x in X])
    assert law.form == "line" and (law.a, law.b) == pytest.approx((2e8, 300), rel=1e-6)
    assert law.r2 == pytest.approx(1) and law.worst < 1e-9
    assert law(np.array([5e5])) == pytest.approx(2e8 + 300 * 5e5)


def test_what_no_line_fits_is_a_power() -> None:
    law = fit(X, [0.7 * x**0.4 for x in X])
    assert law.form == "power" and (law.a, law.b) == pytest.approx((0.7, 0.4))
    assert law(np.array([5e5])) == pytest.approx(0.7 * 5e5**0.4)


def test_what_is_flat_before_it_rises_is_a_square() -> None:
    law = fit([50, 200, 500, 1_000], [1 + 3e-5 * x**2 for x in (50, 200, 500, 1_000)])
    assert law.form == "square" and (law.a, law.b) == pytest.approx((1, 3e-5)) and law.worst < 1e-9


def test_a_fit_says_how_far_it_is_off() -> None:
    law = fit([1, 2, 3, 4], [1, 2, 3, 4.3])
    fitted = law(np.array([1.0, 2, 3, 4]))
    residuals = fitted - [1, 2, 3, 4.3]
    assert law.r2 == pytest.approx(1 - (residuals**2).sum() / (np.var([1, 2, 3, 4.3]) * 4))
    assert law.worst == pytest.approx(max(abs(f / y - 1) for f, y in zip(fitted, [1, 2, 3, 4.3], strict=True)))
    other = sum((law.a + 0.01 + law.b * x - y) ** 2 / y**2 for x, y in zip([1, 2, 3, 4], [1, 2, 3, 4.3], strict=True))
    assert other > sum((r / y) ** 2 for r, y in zip(residuals, [1, 2, 3, 4.3], strict=True))


def test_one_count_alone_tells_of_no_growth() -> None:
    law = fit([5.0], [3.0])
    assert law(np.array([5.0, 50.0])).tolist() == [3.0, 3.0] and law.worst == 0


def test_a_sum_finds_what_each_count_adds_and_never_less_than_nothing() -> None:
    draws = np.random.default_rng(0)
    counts = np.column_stack([np.ones(12), draws.uniform(1e3, 1e6, 12), draws.uniform(1, 10, 12)])
    found = fit_sum(counts.tolist(), (counts @ [5, 0.01, 700]).tolist())
    assert found.coefficients == pytest.approx((5, 0.01, 700)) and found.worst < 1e-9
    assert found((1, 10, 2)) == pytest.approx(5 + 0.1 + 1_400)
    falling = fit_sum([[1, 1], [1, 2], [1, 3]], [3, 2, 1])
    assert falling.coefficients[1] == 0 and falling.worst > 0.1


@pytest.mark.skipif(sys.platform != "linux", reason="elsewhere a part's peak is that of everything so far")
def test_each_part_has_its_own_peak_and_that_of_what_is_inside() -> None:
    meter, size = Meter(), 64 << 20
    with meter.part("outer"):
        with meter.part("inner"):
            np.ones(size // 8).sum()
    with meter.part("small"):
        pass
    assert meter.peak["outer"] >= meter.peak["inner"] > meter.peak["small"] + size // 2
    assert meter.cpu["outer"] >= meter.cpu["inner"] > 0


PAGE = "scaling.md", "scaling-learning.svg", "scaling-serving.svg"


def assert_drawn(folder: Path) -> None:
    """The page is whole."""
    page = (folder / PAGE[0]).read_text()
    assert "$" not in page and "nan" not in page and "inf" not in re.sub("[a-z]inf|inf[a-z]", "", page)
    for name in PAGE[1:]:
        assert f"]({name})" in page and ET.parse(folder / name).getroot().tag.endswith("svg")


@pytest.mark.slow  # every point is processes of its own; below are those of one point
def test_the_page_is_written_and_drawn_again_from_what_was_kept(tmp_path: Path) -> None:
    points = tmp_path / "points.json"
    ran = scaling("--at-once", "2", "--docs", str(tmp_path), "--points", str(points))
    assert ran.returncode == 0, ran.stderr
    assert_drawn(tmp_path)
    first = [(tmp_path / name).read_bytes() for name in PAGE]
    check(json.loads(points.read_text())["points"])
    assert scaling("--docs", str(tmp_path), "--points", str(points)).returncode == 0
    assert [(tmp_path / name).read_bytes() for name in PAGE] == first


def test_a_point_is_measured_and_a_page_of_such_is_drawn(tmp_path: Path) -> None:
    def said(script: str, *words: str) -> dict[str, object]:
        command = [sys.executable, f"tests/bench/{script}", *words]
        ran = subprocess.run(command, cwd=ROOT, env=ENVIRONMENT, text=True, capture_output=True)
        assert ran.returncode == 0, ran.stderr
        return dict(json.loads(ran.stdout))

    key = json.dumps(asdict(QUICK.base))
    measured = {
        "learning": said("scaling_learning.py", key),
        "publish": said("scaling_serving.py", "publish", str(tmp_path), key),
        "replica": said("scaling_serving.py", "replica", str(tmp_path), key),
    }
    check({part: {key: [one]} for part, one in measured.items()})
    measured["run"] = {"cpu": 9.0, "peak": 400 << 20, "learned": 18_000, "generations": 2, "learn": 1.0}
    axes = [*QUICK.learning().values(), *QUICK.serving().values(), list(QUICK.whole().values())]
    settings = {setting for axis in axes for setting in axis} | {served(QUICK.held_out)}
    points = {part: {json.dumps(asdict(setting)): [one] for setting in settings} for part, one in measured.items()}
    kept = {"points": points, "load": [0.5, 1.5], "seconds": 60.0, "at_once": 1, "date": "2026-01-02"}
    (tmp_path / "points.json").write_text(json.dumps(kept))
    ran = scaling("--docs", str(tmp_path), "--points", str(tmp_path / "points.json"))
    assert ran.returncode == 0, ran.stderr
    assert_drawn(tmp_path)


def check(points: dict[str, dict[str, list[dict[str, object]]]]) -> None:
    """What a point counted is what its setting says."""
    for text, [said] in points["learning"].items():
        setting = json.loads(text)
        identities = min(setting["entities"], setting["hash_rows"] or setting["entities"])
        models = setting["arms"] * setting["duplicates"]
        rows = 2 * identities + 109  # padding, and the values of the other fields
        assert said["rows"] == rows and said["ranked"] == 1_050 * setting["candidates"]
        assert models * rows * 68 < int(str(said["stored"])) < models * rows * 68 + models * 500_000
        assert all(seconds >= 0 for seconds in said["cpu"].values())  # type: ignore[attr-defined]
    for text, [said] in points["publish"].items():
        setting = json.loads(text)
        identities = min(setting["entities"], setting["hash_rows"] or setting["entities"])
        assert int(str(said["snapshot"])) > setting["arms"] * (2 * identities + 109) * 64
    assert set(points["replica"]) == set(points["publish"])


@pytest.mark.parametrize("flags", [("--docs", "missing"), ("--points", "missing/points.json"), ("--repeats", "0")])
def test_bad_flags_are_refused_before_anything_is_measured(flags: tuple[str, str]) -> None:
    ran = scaling(*flags)
    assert ran.returncode == 2 and f"{flags[0]} = {flags[1]}" in ran.stderr


@pytest.fixture
def size(monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    """tests/bench/scaling_size.py, whose neighbours are modules of their own to it."""
    monkeypatch.syspath_prepend(str(ROOT / "tests/bench"))
    return importlib.import_module("scaling_size")


def live_point(size: ModuleType, kind: str, setting: Any, coefficients: dict[str, list[float]]) -> dict[str, Any]:
    """What a system would say that follows laws with these coefficients to the letter."""
    shape = size.shape_of(asdict(setting))
    took = {name: float(np.dot(coefficients[name], form.counts(shape))) for name, form in FORMS.items()}
    queries, reports = size.QUERIES, size.REPORTS
    asked = {"router-0": took["router_query"] * queries, "router-1": 0.0, "dropped": 0}
    asked |= {name: took["replica_query"] * queries / 2 for name in ("replica-0", "replica-1")}
    compared = asked | {"router-1": (took["router_query"] + took["router_compared"]) * queries}
    refresh = {"trainer": took["trainer_generation"], "store": took["store_generation"]}
    refresh |= {name: took["replica_refresh"] for name in ("replica-0", "replica-1")}
    report = {"router-0": took["router_report"] * reports, "store": took["store_report"] * reports}
    memory = {"router-1": "router", "replica-0": "replica", "replica-1": "replica", "trainer": "trainer"}
    return {
        "kind": kind,
        "setting": json.loads(size.key(asdict(setting))),
        "load": 1.5,
        "windows": {"queries": [asked] * 5, "compared": [compared] * 5, "refreshes": [refresh] * 5},
        "reports": [report] * 5,
        "memory": {name: {"peak": took[f"{part}_memory"]} for name, part in memory.items()},
        "parts": {"duplicate/0": took["duplicate_bytes"], "catalog": took["catalog_bytes"]},
        "waiting_bytes": took["waiting_bytes"],
        "bytes": {"users": took["user_bytes"], "replica": took["rank_bytes"]},
        "samples": {"router-0": 300, "replica-0": 100},
    }


def test_laws_of_the_live_system_are_found_again_and_foretell_what_they_never_saw(
    size: ModuleType, tmp_path: Path
) -> None:
    draws = np.random.default_rng(0)
    scales = {"s": 1e-4, "B": 1e8}
    coefficients = {
        name: [scales[form.unit] * draws.uniform(0.5, 2) / max(1.0, term.count(size.shape_of(asdict(size.FITTED[0]))))
               for term in form.terms]
        for name, form in FORMS.items()
    }  # fmt: skip
    points = [live_point(size, "fitted", setting, coefficients) for setting in size.FITTED]
    points += [live_point(size, "checked", setting, coefficients) for setting in size.drawn()]
    (tmp_path / "scaling.md").write_text("# Above\n\n## The live system\nold\n")
    file, page = size.write(points, tmp_path, tmp_path / "laws.json")
    laws = parsed(json.loads(file.read_text()))
    for _, name, guess, found, systems in size.checks(points, laws):
        assert guess == pytest.approx(found, rel=1e-4) and systems == 1, name
    text = page.read_text()
    assert text.startswith("# Above\n\n## The live system\n") and "\nold\n" not in text and "$" not in text
    assert "**0 of 21 forecasts miss by more than 25%**" in text
    wrong = [point | {"memory": {name: {"peak": 9e9} for name in point["memory"]}} for point in points[-1:]]
    size.write(points[:-1] + wrong, tmp_path, tmp_path / "laws.json")
    assert "**3 of 21 forecasts miss" in page.read_text()


def test_what_the_laws_are_checked_on_is_drawn_once_and_not_fitted(size: ModuleType) -> None:
    assert size.drawn() == size.drawn() and len(set(size.drawn())) == 3
    assert not set(size.drawn()) & set(size.FITTED) and size.drawn() != size.drawn(seed=21)


def test_what_was_measured_is_not_measured_again(
    size: ModuleType, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked: list[Any] = []

    def one(kind: str, setting: Any) -> dict[str, Any]:
        asked.append(setting)
        return {"kind": kind, "setting": json.loads(size.key(asdict(setting)))}

    monkeypatch.setattr(size, "one", one)
    file, first = tmp_path / "points.jsonl", [("fitted", setting) for setting in size.FITTED[:2]]
    size.measure(file, first, 1)
    points = size.measure(file, [*first, ("checked", size.FITTED[0]), *first], 1)
    assert asked == [*size.FITTED[:2], size.FITTED[0], *size.FITTED[:2]] and len(points) == 5


@pytest.mark.slow  # five processes and a store, half a minute: `make scaling ARGS=--live` starts it 33 times
def test_a_point_of_the_live_system_is_measured(tmp_path: Path, size: ModuleType) -> None:
    setting = size.Live(entities=500, duplicates=2, candidates=50, hidden=(16, 8), dim=4)
    command = [sys.executable, "tests/bench/scaling_live.py", str(tmp_path), size.key(asdict(setting))]
    ran = subprocess.run(command, cwd=ROOT, env=ENVIRONMENT, text=True, capture_output=True)
    assert ran.returncode == 0, ran.stderr
    said = size.figures(json.loads(ran.stdout))
    assert all(value > 0 for value in said.values())
    assert said["duplicate_bytes"] == pytest.approx(size.shape_of(asdict(setting)).published, rel=0.2)
