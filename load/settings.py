"""The load's settings: by environment variables, over a JSON file that FLICKER_LOAD_CONFIG names, over the defaults.

A field `rate` is the variable FLICKER_RATE and the key "rate" of the file. The file may also say more of the world than
the variables above: `"world": {"users": 500, "items": 300}`, the fields of SyntheticConfig or, with `data`, of
ReplayConfig; FLICKER_WORLD holds the same object, as JSON. A file that is written anew while the load runs in one
process changes its rate, within a second, and nothing else.

**Shapes** say how the offered rate goes over time: a shape's *work* is what was offered by a time, in seconds at the
full rate, so that `rate * work` is a number of queries. Work never goes down, and its slope is the rate's factor.

    steady   1 all the time
    ramp     0 up to 1, linearly over the length, then 1
    spike    1, and SPIKE for the tenth of each length that ends in its middle
"""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import dataclass, field, fields
from pathlib import Path
from typing import Any, Literal, cast

from simulator.config import ReplayConfig, SyntheticConfig, require
from simulator.errors import SettingError
from simulator.flags import Wiring

SPIKE = 3.0
"""Height of a spike, in units of the full rate."""
_FROM, _TO = 0.4, 0.5
"""Where within a length the spike is."""


def _steady(seconds: float, length: float) -> float:
    return seconds


def _ramp(seconds: float, length: float) -> float:
    within = min(seconds, length)
    return within * within / (2 * length) + (seconds - within)


def _spike(seconds: float, length: float) -> float:
    whole, rest = divmod(seconds, length)
    spiked = whole * (_TO - _FROM) * length + min(max(rest - _FROM * length, 0.0), (_TO - _FROM) * length)
    return seconds + (SPIKE - 1) * spiked


SHAPES: dict[str, Callable[[float, float], float]] = {"steady": _steady, "ramp": _ramp, "spike": _spike}


def work(shape: str, seconds: float, length: float) -> float:
    """Work offered by `seconds` (0 or more) after the start; `length` in seconds as the shape takes it."""
    return SHAPES[shape](seconds, length)


def due(shape: str, amount: float, length: float) -> float:
    """Seconds after the start at which the work reaches `amount` (0 or more): its inverse, by bisection."""
    low, high = 0.0, 1.0
    while work(shape, high, length) < amount:
        high *= 2
    for _ in range(40):
        middle = (low + high) / 2
        low, high = (middle, high) if work(shape, middle, length) < amount else (low, middle)
    return high


VARIABLES = {"store": "FLICKER_REDIS_URL", "summary": "FLICKER_LOAD_SUMMARY"}
"""Fields whose variable is not FLICKER_ and their name."""


@dataclass(frozen=True)
class LoadSettings(Wiring):
    """Who asks, how often, and where it is written down; with a store queries follow the feeder through the world."""

    rate: float = 50.0
    """Queries per second offered in all, those asked again included; more than 0. Shapes vary it, and so do users who
    are added or taken away on Locust's page: it is the rate of as many users as Locust was started with."""
    shape: Literal["steady", "ramp", "spike"] = "steady"
    """How the offered rate goes over time, see load/settings.py."""
    shape_seconds: float = 60.0
    """Length of a ramp, or from one spike to the next, in seconds; more than 0."""
    repeat: float = 0.3
    """Share of queries that are asked again moments later from another device, 0 to 1."""
    repeat_after: float = 0.5
    """Seconds after the answer at which the earliest are asked again, 0 or more."""
    repeat_before: float = 2.0
    """Seconds after the answer at which the latest are, at least `repeat_after`."""
    k: int = 10
    """Length of a slate, 1 to 1,000."""
    arms: tuple[str, ...] = ()
    """Arms asked in turn, separated by spaces, such as `relu smelu:beta=0.1`; none: the router takes one by user."""
    timeout: float = 5.0
    """Deadline of a call in seconds, more than 0."""
    data: Path | None = None
    """The real log that the trainer learns from; none: its synthetic world."""
    events: int | None = None
    """Events of the trainer's synthetic world; none: SyntheticConfig's default."""
    seed: int = 0
    """Seed of the trainer's world, 0 or more; who asks what follows from it too."""
    world: Mapping[str, Any] = field(default_factory=dict)
    """Further fields of SyntheticConfig or ReplayConfig, where the trainer's world is not the default one."""
    summary: Path | None = None
    """File for the JSON summary at the end."""

    def __post_init__(self) -> None:
        super().__post_init__()
        require(0 < self.rate < math.inf, "rate", self.rate, "more than 0 queries per second")
        require(self.shape in SHAPES, "shape", self.shape, f"one of {', '.join(SHAPES)}")
        require(0 < self.shape_seconds < math.inf, "shape_seconds", self.shape_seconds, "more than 0 seconds")
        require(0 <= self.repeat <= 1, "repeat", self.repeat, "from 0 to 1")
        require(self.repeat_after >= 0, "repeat_after", self.repeat_after, "0 seconds or more")
        hint = f"at least repeat_after ({self.repeat_after} seconds)"
        require(self.repeat_after <= self.repeat_before < math.inf, "repeat_before", self.repeat_before, hint)
        require(1 <= self.k <= 1_000, "k", self.k, "from 1 to 1,000")
        require(0 < self.timeout < math.inf, "timeout", self.timeout, "more than 0 seconds")
        require(self.seed >= 0, "seed", self.seed, "0 or more")

    def world_config(self) -> SyntheticConfig | ReplayConfig:
        """The world that is asked about. Raises SettingError for a field that it does not have."""
        values = dict(self.world)
        kind: type[SyntheticConfig] | type[ReplayConfig] = SyntheticConfig if self.data is None else ReplayConfig
        if self.data is not None:
            values["path"] = self.data
        elif self.events is not None:
            values["events"] = self.events
        known = [f.name for f in fields(kind)]
        for name, value in values.items():
            require(name in known, f"world.{name}", value, f"one of {', '.join(known)}")
        return kind(**values)


def modified_at(environment: Mapping[str, str]) -> int:
    """When the file that FLICKER_LOAD_CONFIG names was written, in nanoseconds; 0 where there is none."""
    try:
        return Path(environment["FLICKER_LOAD_CONFIG"]).stat().st_mtime_ns
    except (KeyError, OSError):
        return 0


def read_settings(environment: Mapping[str, str]) -> LoadSettings:
    """Settings from variables and the file that FLICKER_LOAD_CONFIG names. Raises SettingError naming what is wrong."""
    values = _read_file(environment.get("FLICKER_LOAD_CONFIG", ""))
    for name in [*READERS, "world"]:
        variable = VARIABLES.get(name, f"FLICKER_{name.upper()}")
        if environment.get(variable):
            values[name] = environment[variable]
    return LoadSettings(**{name: _read(name, value) for name, value in values.items()})


def _read_file(path: str) -> dict[str, Any]:
    if not path:
        return {}
    try:
        values = json.loads(Path(path).read_text())
    except (OSError, ValueError) as problem:
        raise SettingError("FLICKER_LOAD_CONFIG", path, f"{problem}: name a JSON file") from None
    require(isinstance(values, dict), "FLICKER_LOAD_CONFIG", path, "one JSON object of settings")
    known = [*READERS, "world"]
    for name, value in values.items():
        require(name in known, name, value, f"unknown; one of {', '.join(known)}")
    return {name: value for name, value in values.items() if value is not None}


def _read(name: str, value: Any) -> Any:
    """A value of a file or variable as what its field holds."""
    if name == "world":
        with suppress(ValueError):
            value = json.loads(value) if isinstance(value, str) else value
        require(isinstance(value, dict), name, value, "one JSON object, the world's settings by name")
        return value
    read, hint = READERS[name]
    try:
        return read(value)
    except (TypeError, ValueError):
        raise SettingError(name, value, hint) from None


def _arms(value: Any) -> tuple[str, ...]:
    return tuple(value.split()) if isinstance(value, str) else tuple(str(arm) for arm in value)


Reader = Callable[[Any], Any]
_NUMBER, _WHOLE, _TEXT = (float, "a number"), (int, "a whole number"), (str, "a text")
READERS = cast(
    dict[str, tuple[Reader, str]],
    dict.fromkeys(("rate", "shape_seconds", "repeat", "repeat_after", "repeat_before", "timeout"), _NUMBER)
    | dict.fromkeys(("k", "events", "seed", "metrics_port"), _WHOLE)
    | dict.fromkeys(("shape", "store", "run", "host"), _TEXT)
    | dict.fromkeys(("data", "summary"), (Path, "a path"))
    | {"arms": (_arms, "names of arms, separated by spaces")},
)
"""How each field is read, and the hint where it cannot be."""
