"""result.json, schema 1, as simulator/outcome.py documents it, in a second hand."""

from __future__ import annotations

from typing import Any

from simulator.measures.registry import MEASURES
from simulator.models.specs import parse_arm

Json = dict[str, Any]

SWAPS = set(MEASURES)
CAUSES = {"swaps", "refresh_swaps", "both_swaps"}
INTERVALS = {
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
RATIOS = {*SWAPS, "pd", "pd_ranking", "refresh_pair", "log_loss", "auc", "ranking_loss", "ndcg", "personalisation"}
SHARES = {"auc", "regret", "useful_swaps", "useless_swaps", "ndcg", "recall", "mrr", "personalisation"}
"""Measures from 0 to 1; swaps are, too."""
BUCKETS = {"pd_by_score", "pd_by_popularity"}
COSTS = {
    "train_seconds": float,
    "events_per_second": float,
    "parameters": int,
    "lookups": int,
    "score_seconds": float,
    "model_bytes": int,
    "train_bytes": int,
}


def assert_interval(value: Any, where: str, least: float = -1e9, most: float = 1e9) -> None:
    assert value.keys() == {"mean", "low", "high"}, where
    assert all(isinstance(part, float) for part in value.values()), (where, value)
    assert least <= value["low"] <= value["mean"] <= value["high"] <= most, (where, value)


def assert_swaps(value: Json, where: str) -> None:
    assert value.keys() == SWAPS, where
    for name, interval in value.items():
        assert_interval(interval, f"{where}.{name}", 0, MEASURES[name].most)


def assert_arm(arm: Json, label: str, truth: bool) -> None:
    intervals = INTERVALS | (WITH_TRUTH if truth else ON_LOGS)
    expected = RATIOS | (set() if truth else ON_LOGS)
    assert arm.keys() == {*intervals, *CAUSES, *COSTS, *BUCKETS, "ratio", "ratio_to", "by", "design", "activation"}
    for name in intervals:
        least = -2 if name == "pd_shift" else 0
        assert_interval(arm[name], f"{label}.{name}", least, 1 if name in SHARES else 1e9)
    spec = parse_arm(label.split("#")[0])
    built_in = set() if spec.own else {"norm", "hidden", "dim"}
    assert arm["design"].keys() == {"engine", "learning_rate", *(built_in or {"source"})}
    assert arm["design"]["engine"] in ("native", "torch")
    for cause in CAUSES:
        assert_swaps(arm[cause], f"{label}.{cause}")
    for name in BUCKETS:
        assert_buckets(arm[name], f"{label}.{name}")
    for name, kind in COSTS.items():
        assert type(arm[name]) is kind and arm[name] > 0, name
    assert arm["ratio"].keys() == expected
    for name, ratio in arm["ratio"].items():
        if ratio is not None:
            assert_interval(ratio, f"{label}.ratio.{name}", 0)
    for other, ratios in arm["ratio_to"].items():
        assert other != label and ratios.keys() == expected - set(MEASURES) - {"pd_ranking", "refresh_pair"} | {"pair"}
        for name, ratio in ratios.items():
            if ratio is not None:
                assert_interval(ratio, f"{label}.ratio_to.{other}.{name}", 0)
    curve = arm["activation"]
    if spec.own and not spec.own.relu:
        assert curve is None
        return
    assert curve.keys() == {"name", "x", "y", "gradient"}
    assert curve["name"] == (spec.own.relu if spec.own else spec.function)
    assert 2 <= len(curve["x"]) == len(curve["y"]) == len(curve["gradient"])


def assert_buckets(buckets: list[Json], where: str) -> None:
    """Some, from low to high without overlap, that hold all events between them."""
    assert buckets and abs(sum(bucket["share"] for bucket in buckets) - 1) < 1e-9, where
    limits = []
    for bucket in buckets:
        assert bucket.keys() == {"low", "high", "share", "pd"}, where
        assert_interval(bucket["pd"], where, 0)
        limits += [bucket["low"], bucket["high"]]
    assert limits == sorted(limits), where


def assert_schema(result: Json, arms: list[str], generations: int) -> None:
    """Every documented key with its type, and nothing else."""
    assert result.keys() == {
        "schema",
        "flicker",
        "world",
        "arms",
        "generations",
        "notes",
        "seconds",
        "peak_memory_bytes",
    }
    assert result["schema"] == 1 and isinstance(result["flicker"], str)
    assert type(result["seconds"]) is float and type(result["peak_memory_bytes"]) is int
    assert result["notes"] and all(isinstance(note, str) for note in result["notes"])
    world = result["world"]
    kinds = {"name": str, "events": int, "learned": int, "held_out": int, "users": int, "items": int}
    assert {name: type(value) for name, value in world.items()} == kinds | {"has_truth": bool, "skipped_rows": int}
    assert world["learned"] + world["held_out"] == world["events"]
    assert list(result["arms"]) == arms
    for label, arm in result["arms"].items():
        assert_arm(arm, label, world["has_truth"])
    assert [record["generation"] for record in result["generations"]] == list(range(1, generations + 1))
    for record in result["generations"]:
        assert_generation(record, arms)
    assert_last(result)


def assert_generation(record: Json, arms: list[str]) -> None:
    assert record.keys() == {"generation", "events", "arms"} and type(record["events"]) is int
    assert list(record["arms"]) == arms
    first = {"refresh_swaps", "both_swaps"} if record["generation"] == 1 else set()
    for label, found in record["arms"].items():
        assert found.keys() == {"pd", "progressive_log_loss", *CAUSES} - first  # nothing comes before the first
        for cause in CAUSES - first:
            assert_swaps(found[cause], f"{record['generation']}.{label}.{cause}")
        for name in ("pd", "progressive_log_loss"):
            assert_interval(found[name], f"{record['generation']}.{label}.{name}", 0)


def assert_last(result: Json) -> None:
    """The last generation is the final measurement."""
    for label, found in result["generations"][-1]["arms"].items():
        for name in ("pd", *CAUSES):
            assert found[name] == result["arms"][label][name]
