"""What must hold in the result.json of any finished run, beside what reading it checks."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from jsonschema import Draft202012Validator

from simulator.measures import registry
from simulator.models.baselines import BASELINES
from simulator.models.specs import parse_arm
from simulator.result import BUCKETS, COSTS, ORACLE, SCHEMA, Result, from_json, to_json

Json = dict[str, Any]

SWAPS = set(registry.MEASURES)
CAUSES = {"swaps", "refresh_swaps", "both_swaps"}
MEASURES = {
    "pd",
    "pd_ranking",
    "pd_shift",
    "log_loss",
    "progressive_log_loss",
    "auc",
    "calibration",
    "ranking_loss",
    "ndcg",
    "personalisation",
    "clicks_per_slate",
}
WITH_TRUTH = {"regret", "useful_swaps", "useless_swaps"}
ON_LOGS = {"recall", "mrr"}
SHARES = {"auc", "regret", "useful_swaps", "useless_swaps", "ndcg", "recall", "mrr", "personalisation"}
"""Measures from 0 to 1; swaps are, too."""


def assert_interval(value: Any, where: str, least: float = -1e9, most: float = 1e9) -> None:
    assert value.keys() == {"mean", "low", "high"}, where
    assert all(isinstance(part, float) for part in value.values()), (where, value)
    assert least <= value["low"] <= value["mean"] <= value["high"] <= most, (where, value)


def assert_swaps(value: Json, where: str) -> None:
    # of a few short slates no two may share a pair of items
    assert value.keys() | {"slate_pair"} == SWAPS, (where, SWAPS ^ value.keys())
    for name in value:
        assert_interval(value[name], f"{where}.{name}", 0, registry.MEASURES[name].maximum)


DOCUMENTED = Path(__file__).parents[1] / "docs" / "result.schema.json"


def assert_documented(raw: Json) -> None:
    """It is what docs/result.schema.json says."""
    Draft202012Validator(json.loads(DOCUMENTED.read_text())).validate(raw)


def assert_schema(raw: Json, arms: list[str], generations: int) -> None:
    """It says the same when it is read, and holds every measure, cost and generation, within its bounds."""
    assert_documented(raw)
    truth = raw["world"]["has_truth"]
    result: Result = from_json(Result, {name: value for name, value in raw.items() if name != "schema"})
    assert raw["schema"] == SCHEMA and to_json(result) == raw and result.kind == "run"
    assert result.notes and result.world["learned"] + result.world["held_out"] == result.world["events"]
    assert list(raw["arms"]) == arms
    for label, arm in raw["arms"].items():
        _assert_arm(arm, label, truth)
    assert list(raw["baselines"]) == [*BASELINES, *([ORACLE] if truth else [])]
    assert ("shares" in raw["world"]) == truth
    for name, found in raw["baselines"].items():
        for measure in ("log_loss", "calibration", "ranking_loss", "ndcg"):
            assert_interval(found[measure], f"baselines.{name}.{measure}", 0)
    assert [record["generation"] for record in raw["generations"]] == list(range(1, generations + 1))
    for record in raw["generations"]:
        _assert_generation(record, arms)
    for label, found in raw["generations"][-1]["arms"].items():  # the last generation is the final measurement
        assert all(found[name] == raw["arms"][label][name] for name in ("pd", *CAUSES))


def _assert_arm(arm: Json, label: str, truth: bool) -> None:
    for name in MEASURES | (WITH_TRUTH if truth else ON_LOGS):
        least = -2 if name == "pd_shift" else 0
        assert_interval(arm[name], f"{label}.{name}", least, 1 if name in SHARES else 1e9)
    for cause in (*CAUSES, "swaps_these"):
        assert_swaps(arm[cause], f"{label}.{cause}")
    for cause in {"refresh_lags", "both_lags"} & arm.keys():  # where there are so many generations
        for lag, swaps in arm[cause].items():
            assert lag in ("2", "4", "8")
            assert_swaps(swaps, f"{label}.{cause}.{lag}")
    for name in BUCKETS:
        limits = [limit for bucket in arm[name] for limit in (bucket["low"], bucket["high"])]
        assert limits == sorted(limits) and abs(sum(bucket["share"] for bucket in arm[name]) - 1) < 1e-9, name
    assert all(arm[name] > 0 for name in COSTS)
    for ratios in (arm["ratio"], *arm["ratio_to"].values()):
        for name, ratio in ratios.items():
            assert_interval(ratio, f"{label}.ratio.{name}", 0)
    assert label not in arm["ratio_to"]
    spec, curve = parse_arm(label.split("#")[0]), arm["activation"]
    assert arm["design"].keys() == {
        "engine",
        "learning_rate",
        *(("source",) if spec.own else ("norm", "hidden", "dim")),
    }
    assert (curve and curve["name"]) == (spec.own.relu or None if spec.own else spec.function)


def _assert_generation(record: Json, arms: list[str]) -> None:
    assert list(record["arms"]) == arms
    first = {"refresh_swaps", "both_swaps"} if record["generation"] == 1 else set()  # nothing comes before the first
    for label, found in record["arms"].items():
        assert found.keys() == {"pd", "progressive_log_loss", *CAUSES} - first
        for cause in CAUSES - first:
            assert_swaps(found[cause], f"{record['generation']}.{label}.{cause}")
        for name in ("pd", "progressive_log_loss"):
            assert_interval(found[name], f"{record['generation']}.{label}.{name}", 0)
