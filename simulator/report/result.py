"""Reads and checks what a run left behind: result.json (schema 1) and config.json.

Measures are kept flat under dotted names, e.g. `pd`, `swaps.pair`, `refresh_swaps.top1`, `log_loss`. A measure that
is null, absent or not finite (0/0) is left out, and the page shows a dash for it.
"""

from __future__ import annotations

import json
import math
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from simulator.errors import ResultError
from simulator.measures.intervals import Interval

SCHEMA = 1
REQUIRED = ("pd", "swaps.pair", "log_loss")
"""What an arm must have: instability is never shown without accuracy beside it."""
TIMES = ("train_seconds", "events_per_second", "score_seconds")
"""Costs that hang on the engine, and are compared between arms of one engine only."""
AGAIN = "the file is damaged; run `flicker run` again"
BUCKETS = ("pd_by_score", "pd_by_popularity")
COSTS = ("train_seconds", "events_per_second", "parameters", "lookups", "score_seconds", "model_bytes", "train_bytes")


Measures = dict[str, Interval]


@dataclass(frozen=True)
class Curve:
    """An activation sampled for its picture: x, y and dy/dx of equal length."""

    x: list[float]
    y: list[float]
    gradient: list[float]


@dataclass(frozen=True)
class Bucket:
    """PD of the events whose score, or item's popularity, is from `low` to `high`: `share` of all events."""

    low: float
    high: float
    share: float
    pd: Interval


@dataclass(frozen=True)
class Arm:
    """One design under comparison and all that was measured on it."""

    spec: str
    measures: Measures
    ratios: Measures
    """To the first arm, under the names that the run gave them (`pd`, `pair`, `log_loss` ...)."""
    costs: dict[str, float]
    activation: Curve | None
    buckets: dict[str, list[Bucket]] = field(default_factory=dict)
    """PD by a value: lists under the names in BUCKETS."""
    against: dict[str, Measures] = field(default_factory=dict)
    """Ratios to each other arm of the run, paired with it, by its spec."""

    design: dict[str, Any] = field(default_factory=dict)
    """Its engine, and the settings in which arms may differ."""

    def cost_ratio(self, other: Arm, cost: str) -> float | None:
        """Ratio of a cost to another arm's; None where one is unknown, or times are those of two engines."""
        own, base = self.costs.get(cost), other.costs.get(cost)
        if own is None or not base:
            return None
        return None if cost in TIMES and self.design.get("engine") != other.design.get("engine") else own / base

    def ratio(self, other: Arm, measure: str) -> Interval | None:
        """Ratio of a measure to another arm's, paired with it; None where the run does not give it."""
        return self.against.get(other.spec, {}).get(measure)


@dataclass(frozen=True)
class Generation:
    """What was measured when one generation had been learned."""

    number: int
    events: int
    arms: dict[str, Measures]


@dataclass(frozen=True)
class Result:
    """A whole run; `arms[0]` is what ratios refer to."""

    world: dict[str, Any]
    arms: list[Arm]
    generations: list[Generation]
    notes: list[str]
    seconds: float
    peak_memory_bytes: float
    flicker: str
    config: dict[str, Any]
    versions: dict[str, Any]
    machine: dict[str, Any]
    command: str


def read_result(folder: Path) -> Result:
    """Read a result folder. Raises ResultError naming the file, what is wrong with it, and the way out."""
    results, settings = folder / "result.json", folder / "config.json"
    if (folder / "sweep.json").exists():
        raise ResultError(f"{folder}: a sweep of several runs: name one of them, a folder in {folder / 'cells'}")
    missing = "name a folder that `flicker run --out` wrote"
    raw, config = (load_json(path, missing, AGAIN) for path in (results, settings))
    if raw.get("schema") != SCHEMA:
        raise ResultError(f"{results}: schema = {raw.get('schema')!r}: this version of flicker reads schema {SCHEMA}")
    path = settings
    try:
        parts = {name: _typed(config, name, dict) for name in ("config", "versions", "machine")}
        path = results
        arms = [_arm(spec, values) for spec, values in _typed(raw, "arms", dict).items()]
        if not arms:
            raise _Damage("arms: empty")
        return Result(
            world=_typed(raw, "world", dict),
            arms=arms,
            generations=[_generation(i, g) for i, g in enumerate(_typed(raw, "generations", list))],
            notes=[str(note) for note in _typed(raw, "notes", list)],
            seconds=_number(raw.get("seconds"), "seconds"),
            peak_memory_bytes=_number(raw.get("peak_memory_bytes"), "peak_memory_bytes"),
            flicker=str(raw.get("flicker", "")),
            command=str(config.get("command", "")),
            **parts,
        )
    except _Damage as damage:
        raise ResultError(f"{path}: {damage}: {AGAIN}") from None


class _Damage(Exception):
    """Where in the file something is not what schema 1 says."""


def load_json(path: Path, missing: str, damaged: str) -> dict[str, Any]:
    """The JSON object in a file. Raises ResultError with the way out where it is `missing` or `damaged`."""
    try:
        value = json.loads(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise ResultError(f"{path}: {(error.strerror or str(error)).lower()}: {missing}") from None
    except UnicodeDecodeError:
        raise ResultError(f"{path}: not UTF-8 text: {damaged}") from None
    except (json.JSONDecodeError, RecursionError) as error:
        where = f"line {error.lineno}" if isinstance(error, json.JSONDecodeError) else "too deep"
        raise ResultError(f"{path}: not JSON ({where}): {damaged}") from None
    if not isinstance(value, dict):
        raise ResultError(f"{path}: not a JSON object: {damaged}")
    return value


def _typed(parent: dict[str, Any], key: str, kind: type) -> Any:
    if not isinstance(parent.get(key), kind):
        raise _Damage(f"{key}: missing or not a JSON {'object' if kind is dict else 'array'}")
    return parent[key]


def _object(raw: Any, where: str) -> None:
    if not isinstance(raw, dict):
        raise _Damage(f"{where}: not a JSON object")


def _number(value: Any, where: str) -> float:
    if isinstance(value, bool) or not isinstance(value, (int, float)):
        raise _Damage(f"{where}: not a number")
    return float(value)


def _measures(raw: Any, where: str) -> Measures:
    """All intervals of a JSON object under dotted names; plain numbers are intervals without width."""
    _object(raw, where)
    found: Measures = {}
    for key, value in raw.items():
        place = f"{where}.{key}"
        if value is None:
            continue
        if isinstance(value, dict) and "mean" not in value:
            found |= {f"{key}.{name}": interval for name, interval in _measures(value, place).items()}
        else:
            parts = value if isinstance(value, dict) else dict.fromkeys(("mean", "low", "high"), value)
            mean, low, high = (_or_nan(parts.get(part), f"{place}.{part}") for part in ("mean", "low", "high"))
            if all(map(math.isfinite, (mean, low, high))):
                found[key] = Interval(mean, low, high)
    return found


def _or_nan(value: Any, where: str) -> float:
    return math.nan if value is None else _number(value, where)


def _arm(spec: str, raw: Any) -> Arm:
    where = f"arms.{spec}"
    _object(raw, where)
    apart = ("ratio", "ratio_to", "activation", "design", "by", *COSTS, *BUCKETS)
    measures = _measures({key: value for key, value in raw.items() if key not in apart}, where)
    for name in REQUIRED:
        if name not in measures:
            raise _Damage(f"{where}.{name}: missing")
    costs = {name: _number(raw[name], f"{where}.{name}") for name in COSTS if raw.get(name) is not None}
    ratios = _measures(raw.get("ratio") or {}, f"{where}.ratio")
    buckets = {
        name: [_bucket(b, f"{where}.{name}") for b in _typed(raw, name, list)] for name in BUCKETS if name in raw
    }
    against = {
        other: _measures(value or {}, f"{where}.ratio_to.{other}")
        for other, value in (_typed(raw, "ratio_to", dict) if "ratio_to" in raw else {}).items()
    }
    design = _typed(raw, "design", dict) if "design" in raw else {}
    curve = _curve(raw.get("activation"), f"{where}.activation")
    return Arm(spec, measures, ratios, costs, curve, buckets, against, design)


def _bucket(raw: Any, where: str) -> Bucket:
    _object(raw, where)
    low, high, share = (_number(raw.get(key), f"{where}.{key}") for key in ("low", "high", "share"))
    pd = _measures({"pd": raw.get("pd")}, where).get("pd")
    if pd is None:
        raise _Damage(f"{where}.pd: missing")
    return Bucket(low, high, share, pd)


def _curve(raw: Any, where: str) -> Curve | None:
    if raw is None:
        return None
    _object(raw, where)
    x, y, gradient = ([_number(v, f"{where}.{key}") for v in _typed(raw, key, list)] for key in ("x", "y", "gradient"))
    if not 2 <= len(x) == len(y) == len(gradient):
        raise _Damage(f"{where}: x, y and gradient need one length of at least 2")
    return Curve(x, y, gradient)


def _generation(index: int, raw: Any) -> Generation:
    where = f"generations[{index}]"
    _object(raw, where)
    number, events = (int(_number(raw.get(key), f"{where}.{key}")) for key in ("generation", "events"))
    arms = _typed(raw, "arms", dict)
    return Generation(number, events, {spec: _measures(values, f"{where}.{spec}") for spec, values in arms.items()})
