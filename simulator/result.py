"""What every door leaves behind, in one class: `flicker run`, `flicker up` and `flicker compare` write a `Result` as
result.json, schema 2; report, recommend, gate, sweep and figures read it. Here it is written, read, checked and
documented; docs/result.schema.json is made from it (simulator/report/schema.py).

Measures are kept flat under dotted names: `pd`, `pd_ranking`, `pd_shift`, `swaps.X` (cause duplicate),
`swaps_these.X` (the same, where other users are all that could have been drawn), `refresh_swaps.X`, `both_swaps.X`,
`refresh_lags.L.X` and `both_lags.L.X` (over L refreshes) for each X of measures/registry.MEASURES, `log_loss`, `auc`,
`ndcg` and so on. In JSON they nest at the dots, in the arm's own object:

    {"schema": 2, "kind": "run", "arms": {"relu": {"pd": I, "swaps": {"pair": I, ...}, "log_loss": I, "parameters": n,
     "ratio": {"pd": I, ...}, "ratio_to": {"smelu:beta=1": {...}}, ...}}, ...}          I = {"mean", "low", "high"}

A measure that does not exist (0 / 0) is left out; one that is null, or no finite number, is read as left out. What a
run was asked for (settings, versions, machine, command) stands in config.json beside it, written when the run starts;
results of other kinds hold it themselves. Torch-free.
"""

from __future__ import annotations

import json
import math
from collections.abc import Iterable
from dataclasses import MISSING, Field, dataclass, field, fields, is_dataclass
from functools import cache
from html import escape
from pathlib import Path
from types import UnionType
from typing import Any, Literal, get_args, get_origin, get_type_hints

from simulator.errors import ResultError
from simulator.files import flicker_version, write_atomically, writing
from simulator.types import Interval

SCHEMA = 2
COSTS = ("train_seconds", "events_per_second", "parameters", "lookups", "score_seconds", "model_bytes", "train_bytes")
TIMES = ("train_seconds", "events_per_second", "score_seconds")
"""Costs that hang on the engine, and are compared between arms of one engine only."""
BUCKETS = ("pd_by_score", "pd_by_popularity")
ABOUT = ("config", "versions", "machine", "command")
"""What stands in config.json where the result is of a run."""
ORACLE = "oracle"
"""What stands among the baselines where the truth is known."""
AGAIN = "the file is damaged; make it again"

Measures = dict[str, Interval]
"""Dotted name -> mean with its 95 % interval; low = high where there is none."""


def spread(*names: str) -> Any:
    """A dict that stands in the object it belongs to, under these names; without names: all that nothing else takes."""
    return field(default_factory=dict, metadata={"spread": names})


@dataclass(frozen=True)
class Curve:
    """An activation, sampled for its picture: x, y and dy/dx of equal length."""

    x: list[float]
    y: list[float]
    gradient: list[float]
    name: str = ""

    def __post_init__(self) -> None:
        if not 2 <= len(self.x) == len(self.y) == len(self.gradient):
            raise ValueError("x, y and gradient need one length of at least 2")


@dataclass(frozen=True)
class Bucket:
    """PD of the held-out events whose score (by the first arm), or item's number of learned events, is from `low` to
    `high`. All arms have the same events in a bucket."""

    low: float
    high: float
    share: float
    """Of all events."""
    pd: Interval


@dataclass(frozen=True)
class Slice:
    """The queries of one value of a column of the log, and what was measured on them."""

    value: str
    share: float
    """Of all queries."""
    measures: Measures = spread()


@dataclass(frozen=True)
class Arm:
    """One design under comparison and all that was measured on it."""

    spec: str
    measures: Measures = spread()
    ratios: Measures = field(default_factory=dict, metadata={"json": "ratio"})
    """To the first arm, under short names (`pd`, `pair`, `refresh_pair`, `log_loss` ...); paired with it."""
    costs: dict[str, float] = spread(*COSTS)
    """train_seconds: compute seconds of all its models on one core (on a GPU: its share of the device's time);
    events_per_second: events of the log per such second of one served model, however often it learned them. Of one
    served model (what a cure makes of several counts as one): parameters; lookups: rows of embedding tables read to
    rank a query; score_seconds: compute seconds to score a query's candidates; model_bytes of its weights; train_bytes
    of all that learning it takes."""
    activation: Curve | None = None
    """None for a module of the user's that keeps its own."""
    buckets: dict[str, list[Bucket]] = spread(*BUCKETS)
    """PD by a value."""
    against: dict[str, Measures] = field(default_factory=dict, metadata={"json": "ratio_to"})
    """Ratios to each other arm, paired with it, by its spec, and to each baseline: surer than two intervals side by
    side."""
    design: dict[str, Any] = field(default_factory=dict)
    """Its engine, and the settings in which arms may differ; of a module of the user's also `source`, which begins the
    digest of its file."""
    by: dict[str, list[Slice]] = field(default_factory=dict)
    """Results by a column of the log."""

    def cost_ratio(self, baseline: Arm, cost: str) -> float | None:
        """Ratio of a cost to another arm's; None where one is unknown, or times are those of two engines."""
        value, base = self.costs.get(cost), baseline.costs.get(cost)
        if value is None or not base:
            return None
        return None if cost in TIMES and self.design.get("engine") != baseline.design.get("engine") else value / base

    def ratio(self, baseline: Arm, measure: str) -> Interval | None:
        """Ratio of a measure to another arm's, paired with it; None where the result does not give it."""
        return self.against.get(baseline.spec, {}).get(measure)


@dataclass(frozen=True)
class Generation:
    """What was measured when one generation had been learned."""

    number: int = field(metadata={"json": "generation"})
    events: int
    """Learned so far."""
    arms: dict[str, Measures]


@dataclass(frozen=True)
class Place:
    """An item of a slate."""

    item: str
    """As the log writes it; its number on a made-up world."""
    title: str
    """What people read; the id where the log has no titles."""
    score: float
    """Log-odds of an engagement."""


@dataclass(frozen=True)
class Example:
    """What one user got, twice: two duplicates' slates for one of the final queries. It is the middle one of those that
    differ, by the share of places that do, queries with an equal share by their number."""

    user: str
    """As the log writes it."""
    arm: str
    """The first one."""
    duplicates: list[int]
    """The two, of the first fleet."""
    slates: list[list[Place]]
    """Of each, best first."""
    queries: int
    """Final queries in all."""
    differ: int
    """Queries to which these two gave different slates."""
    context: dict[str, str] = field(default_factory=dict)
    """Column -> value, as the log writes it."""


Kind = Literal["run", "live", "compare"]


@dataclass(frozen=True)
class Result:
    """What was measured, by whom, on what; `arms[0]` is what ratios refer to."""

    kind: Kind
    """Which door it comes from: `flicker run`, `flicker up`, `flicker compare`."""
    world: dict[str, Any]
    """`name`, and what is known of: events, learned, held_out, users, items, queries, has_truth, skipped_rows; of a
    made-up world also `shares` of the variance of its true log-odds over impressions: what follows from `user`, `item`
    and `context` alone, `user x item` beyond that, and the `rest`; of several such, how many `worlds`; of a log
    `coverage`: number of candidates -> share of the queries with an answer among so many."""
    arms: list[Arm] = field(metadata={"key": "spec"})
    generations: list[Generation] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)
    """What a reader should know before quoting a number."""
    seconds: float = 0.0
    peak_memory_bytes: int = 0
    flicker: str = field(default_factory=flicker_version)
    """Version that wrote it."""
    config: dict[str, Any] = field(default_factory=dict)
    versions: dict[str, Any] = field(default_factory=dict)
    machine: dict[str, Any] = field(default_factory=dict)
    command: str = ""
    serving: dict[str, Any] = field(default_factory=dict)
    """Of a live system: requests, failures, p50 and p99 (seconds), offered and achieved (queries per second),
    refreshes, first_answer and first_gauge (seconds from the start), comparisons (per arm), lost (why a process was
    dead for good)."""
    baselines: dict[str, Measures] = field(default_factory=dict)
    """Accuracy of `constant`, `popularity`, `recent` and `logistic`: what any arm should beat; and of `oracle`, which
    knows the true probabilities of a made-up world, position bias included: what none can."""
    example: Example | None = None
    """None where no slate differs, and of other kinds than `run`."""

    def _repr_html_(self) -> str:
        """What a notebook shows: the arms, how often results differ, and accuracy beside it."""
        heads = {name: words for name, words in IN_NOTEBOOKS.items() if any(name in arm.measures for arm in self.arms)}
        head = "".join(f"<th>{words}</th>" for words in ("arm", *heads.values()))
        rows = "".join(
            f"<tr><td>{escape(arm.spec)}</td>"
            + "".join(f"<td>{_in_notebooks(arm.measures.get(name))}</td>" for name in heads)
            + "</tr>"
            for arm in self.arms
        )
        caption = f"flicker {self.kind}, {escape(str(self.world.get('name', '')))}; 95 % intervals"
        return f"<table><caption>{caption}</caption><thead><tr>{head}</tr></thead><tbody>{rows}</tbody></table>"


IN_NOTEBOOKS = {
    "pd": "prediction difference, 0 to 2",
    "swaps.pair": "pair swaps, share",
    "refresh_swaps.pair": "at a refresh, share",
    "log_loss": "log loss, nats",
}
"""Measure -> its column in a notebook's table."""


def _in_notebooks(value: Interval | None) -> str:
    """Four significant digits: the log losses of two arms differ in the third or fourth."""
    if value is None:
        return "–"
    bounds = f" ({value.low:.4g} to {value.high:.4g})" if value.low < value.high else ""
    return f"{value.mean:.4g}{bounds}"


REQUIRED: dict[Kind, tuple[str, ...]] = {"run": ("pd", "swaps.pair", "log_loss"), "live": (), "compare": ()}
"""What an arm must have: a run never shows instability without accuracy beside it."""


class Damage(ValueError):
    """Where something is not what the class says: `arms.relu.pd.mean: not a number`."""


def write_result(folder: Path, result: Result, setting: str = "out") -> None:
    """Write `folder`/result.json in one step. Raises ResultError, naming the setting of the folder, if it cannot."""
    with writing(setting, folder):
        write_atomically(folder / "result.json", json.dumps(to_json(result), indent=1, allow_nan=False).encode())


def read_result(folder: str | Path) -> Result:
    """Read a folder's result.json, and a run's config.json. Raises ResultError naming file, what is wrong, way out."""
    folder = Path(folder)
    path = folder / "result.json"
    if (folder / "sweep.json").exists():
        raise ResultError(f"{folder}: a sweep of several runs: name one of them, a folder in {folder / 'cells'}")
    raw = load_json(path, "name a folder that `flicker run`, `up` or `compare` wrote with --out", AGAIN)
    if raw.get("schema") != SCHEMA:
        raise ResultError(
            f"{path}: schema = {raw.get('schema')!r}: this version of flicker reads schema {SCHEMA}: make it again"
        )
    try:
        if raw.get("kind") == "run":
            path = folder / "config.json"
            about = load_json(path, "name a folder that `flicker run --out` wrote", AGAIN)
            raw |= {name: from_json(KINDS[name], about.get(name), name) for name in ABOUT}
            path = folder / "result.json"
        result: Result = from_json(Result, {name: value for name, value in raw.items() if name != "schema"})
        if not result.arms:
            raise Damage("arms: empty")
        for arm in result.arms:
            for name in REQUIRED[result.kind]:
                if name not in arm.measures:
                    raise Damage(f"arms.{arm.spec}.{name}: missing")
        return result
    except Damage as damage:
        raise ResultError(f"{path}: {damage}: {AGAIN}") from None


def worlds_of(folder: Path) -> list[Path]:
    """The folders of the single worlds where several were run in (`--worlds`), else the folder itself."""
    return sorted(path.parent for path in folder.glob("seed-*/result.json")) or [folder]


def differing(first: Any, second: Any, name: str = "") -> dict[str, tuple[Any, Any]]:
    """Dotted names of the settings in which two configs differ, with both values; None where one has none."""
    if not (isinstance(first, dict) and isinstance(second, dict)):
        return {} if first == second else {name: (first, second)}
    changes: dict[str, tuple[Any, Any]] = {}
    for key in dict.fromkeys([*first, *second]):
        changes |= differing(first.get(key), second.get(key), _at(name, str(key)))
    return changes


def differences(held: Any, wanted: Any) -> str:
    """The same in a line; empty where they agree."""
    apart = differing(held, wanted)
    return ", ".join(f"{name}: {old} there, {new} here" for name, (old, new) in apart.items())


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


def nested(measures: Measures) -> dict[str, Any]:
    """Measures as JSON, nested at their dots; those that are no finite numbers are left out."""
    tree: dict[str, Any] = {}
    for name, value in measures.items():
        if all(map(math.isfinite, (value.mean, value.low, value.high))):
            *parents, last = name.split(".")
            inner = tree
            for parent in parents:
                inner = inner.setdefault(parent, {})
            inner[last] = value.as_dict()
    return tree


def to_json(value: Any) -> Any:
    """A result, or a part of one, as JSON holds it."""
    if isinstance(value, Result):
        return {"schema": SCHEMA} | _members(value)
    if isinstance(value, Interval):
        return value.as_dict()
    if is_dataclass(value):
        return _members(value)
    if isinstance(value, dict):
        measures = value and all(isinstance(each, Interval) for each in value.values())
        return nested(value) if measures else {key: to_json(each) for key, each in value.items()}
    if isinstance(value, (list, tuple)):
        return [to_json(each) for each in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value


def _members(value: Any) -> dict[str, Any]:
    members: dict[str, Any] = {}
    for each in fields(value):
        content = getattr(value, each.name)
        if "spread" in each.metadata:
            members |= to_json(content)
        elif key := each.metadata.get("key"):
            members[each.name] = {getattr(one, key): _without(to_json(one), key) for one in content}
        elif content or not isinstance(content, (dict, str)):  # what is empty says nothing
            members[json_name(each)] = to_json(content)
    return members


def _without(members: dict[str, Any], key: str) -> dict[str, Any]:
    return {name: value for name, value in members.items() if name != key}


def json_name(one: Field[Any]) -> str:
    """What a field is called in JSON."""
    return str(one.metadata.get("json", one.name))


@cache
def hints(kind: type) -> dict[str, Any]:
    """Types of a class's fields."""
    return get_type_hints(kind)


KINDS = hints(Result)


def from_json(kind: Any, raw: Any, where: str = "") -> Any:
    """The value of a type from JSON. Raises Damage naming the place, below `where`."""
    origin, inside = get_origin(kind), get_args(kind)
    if kind == Measures:
        return _measures(raw, where)
    if kind is Interval:
        interval = _interval(raw, where)
        if interval is None:
            raise Damage(f"{where}: missing")
        return interval
    if origin is UnionType:
        return None if raw is None else from_json(inside[0], raw, where)
    if origin is Literal:
        if raw not in inside:
            raise Damage(f"{where}: {raw!r}: not one of {', '.join(inside)}")
        return raw
    if origin is list:
        return [from_json(inside[0], one, f"{where}[{n}]") for n, one in enumerate(_typed(raw, list, where))]
    if origin is dict:
        return {key: from_json(inside[1], one, _at(where, key)) for key, one in _typed(raw, dict, where).items()}
    if is_dataclass(kind):
        return _object(kind, raw, where)
    if kind in (float, int):
        return kind(_number(raw, where))
    return raw if kind is Any else _typed(raw, kind, where)


def _object(kind: Any, raw: Any, where: str) -> Any:
    """A dataclass."""
    remaining = dict(_typed(raw, dict, where))
    values: dict[str, Any] = {}
    for each in sorted(fields(kind), key=lambda one: one.metadata.get("spread") == ()):  # what takes the rest is last
        name, hint = json_name(each), hints(kind)[each.name]
        if "spread" in each.metadata:
            names: Iterable[str] = each.metadata["spread"] or list(remaining)
            values[each.name] = from_json(
                hint, {one: v for one in names if (v := remaining.pop(one, None)) is not None}, where
            )
        elif name not in remaining and (each.default is not MISSING or each.default_factory is not MISSING):
            continue
        elif key := each.metadata.get("key"):
            element, members = get_args(hint)[0], _typed(remaining.get(name), dict, _at(where, name))
            values[each.name] = [
                _object(element, _typed(one, dict, _at(name, called)) | {key: called}, _at(_at(where, name), called))
                for called, one in members.items()
            ]
        else:
            values[each.name] = from_json(hint, remaining.pop(name, None), _at(where, name))
    try:
        return kind(**values)
    except ValueError as error:
        raise Damage(f"{where}: {error}") from None


def _at(where: str, key: str) -> str:
    return f"{where}.{key}" if where else key


def _typed(raw: Any, kind: type, where: str) -> Any:
    if not isinstance(raw, kind):
        names = {dict: "a JSON object", list: "a JSON array", str: "text", bool: "true or false"}
        raise Damage(f"{where}: missing" if raw is None else f"{where}: not {names[kind]}")
    return raw


def _number(value: Any, where: str) -> float:
    if isinstance(value, bool) or not isinstance(value, (int, float)):
        raise Damage(f"{where}: missing" if value is None else f"{where}: not a number")
    return value


def _measures(raw: Any, where: str) -> Measures:
    """All intervals of a JSON object under dotted names."""
    measures: Measures = {}
    for key, value in _typed(raw, dict, where).items():
        if isinstance(value, dict) and "mean" not in value:
            inner = _measures(value, _at(where, key))
            measures |= {f"{key}.{name}": interval for name, interval in inner.items()}
        elif (interval := _interval(value, _at(where, key))) is not None:
            measures[key] = interval
    return measures


def _interval(value: Any, where: str) -> Interval | None:
    """A plain number is an interval without width; None where a part is null or not finite."""
    if value is None:
        return None
    parts = value if isinstance(value, dict) else dict.fromkeys(("mean", "low", "high"), value)
    numbers = [
        math.nan if parts.get(part) is None else float(_number(parts[part], f"{where}.{part}"))
        for part in ("mean", "low", "high")
    ]
    return Interval(*numbers) if all(map(math.isfinite, numbers)) else None
