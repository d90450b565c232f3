"""Names and numbers as people write them: `SmeLU (beta = 1)`, `0.147 (0.131 to 0.163)`, `1.2 GB`."""

from __future__ import annotations

import math
from collections.abc import Callable, Collection, Iterable
from dataclasses import dataclass

from simulator.measures.registry import ACCURACY, GAP, QUALITIES, described
from simulator.types import Interval

NAMES = {
    "linear": "Identity",
    "relu": "ReLU",
    "smelu": "SmeLU",
    "gsmelu": "gSmeLU",
    "gelu": "GELU",
    "swish": "Swish",
    "softplus": "Softplus",
}
CURES = {
    "ensemble": "ensemble",
    "codistill": "co-distilled",
    "antidistill": "anti-distilled",
    "anchor": "anchored",
    "average": "weights averaged",
    "fresh": "trained afresh",
}
"""Cure in an arm's spec -> its words behind the activation."""
ENDLESS = 1_000.0
"""An upper limit of more times the mean is written as none."""
DASH = "–"


@dataclass(frozen=True)
class Word:
    """A measure as people read it."""

    words: str
    about: str = ""
    places: int | None = None
    """After the point; None: three significant digits."""


CAUSES = {"swaps": "", "refresh_swaps": " at a refresh", "both_swaps": " at a refresh, of another duplicate"}
"""Causes of swaps -> their words behind the measure."""
WORDS = {
    "progressive_log_loss": Word("progressive log loss", "Log loss of events before they were learned.", 4),
    "personalisation": Word(
        "personalisation",
        "Pair swaps between the rankings that one model gives to two random users for the same candidates in the same "
        "context: a cure that merely ranks everybody alike is seen.",
    ),
    GAP: Word(
        "gap closed",
        "Share of the way from the log loss of the best baseline to that of the oracle, which knows the truth.",
    ),
    "regret": Word("regret", "Engagements lost per slate against the best possible one, where the truth is known."),
    "useful_swaps": Word("useful swaps", "Pair swaps at a refresh that go towards the truth."),
    "useless_swaps": Word("useless swaps", "Pair swaps at a refresh that go away from the truth."),
    "clicks_per_slate": Word("clicks per slate", "Of the slates that the arm showed."),
    "user_visible_swap_ratio": Word(
        "slates changed on asking again", "Share of the queries asked again moments later whose slate was another one."
    ),
    "user_visible_slot_ratio": Word(
        "slots changed on asking again", "Share of the slots of such queries that held another item."
    ),
}
"""Measures that are in no registry."""


def memory(nbytes: float) -> str:
    """Bytes, in MB to two digits below 10 MB."""
    return size(nbytes) if nbytes >= 1e7 else f"{nbytes / 1e6:.2g} MB"


COSTS: dict[str, tuple[str, Callable[[float], str]]] = {
    "parameters": ("parameters", lambda value: count(value)),
    "lookups": ("look-ups per query", lambda value: count(value)),
    "train_seconds": ("training time", lambda value: duration(value)),
    "events_per_second": ("events per second of training", lambda value: count(value)),
    "score_seconds": ("scoring time", lambda value: f"{number(1e3 * value)} ms"),
    "model_bytes": ("memory in serving", memory),
    "train_bytes": ("memory in training", memory),
}
"""Costs of an arm: words, and how they are written."""


def word(measure: str) -> Word:
    """Words, explanation and digits of a measure of a result: `refresh_swaps.pair` is `pair swaps at a refresh`."""
    cause, _, name = measure.rpartition(".")
    if described_measure := described().get(name):
        kind, _, lag = cause.partition(".")
        suffix = CAUSES.get(kind, f" over {lag} refreshes" + ", of another duplicate" * kind.startswith("both"))
        places = 4 if name in ACCURACY or name in QUALITIES else None
        return Word(described_measure.words + (suffix if cause else ""), described_measure.about, places)
    return WORDS.get(measure, Word(measure))


def summed_up(known: Iterable[Collection[str]], swaps: Iterable[str] = ("pair", "slot", "top1")) -> list[str]:
    """The measures that arms are summed up by, of those that any of them has; instability and accuracy side by side."""
    names = ["pd", *(f"swaps.{name}" for name in swaps), "refresh_swaps.pair", "user_visible_slot_ratio"]
    names += ["personalisation", "log_loss", GAP, "auc", *QUALITIES]
    available = {name for names_of in known for name in names_of}
    return [name for name in names if name in available]


def label(spec: str) -> str:
    """`smelu:beta=1#2` reads SmeLU (beta = 1) #2, `ensemble:relu:m=3` ReLU, ensemble (m = 3), and
    `torch:my_pkg.towers:make,width=64,relu=smelu` towers, SmeLU (width = 64); others are left alone."""
    design, mark, copy = spec.partition("#")
    first, _, rest = design.partition(":")
    cure, design = (CURES[first], rest) if first in CURES else ("", design)
    name, _, settings = design.partition(":")
    parts = [NAMES[name]] if name in NAMES else []
    if name == "torch":
        settings, _, relu = settings.partition(",relu=")
        factory, _, settings = settings.partition(",")
        module, _, function = factory.rpartition(":")
        parts = [f"{module.rpartition('.')[2]}.{function}".removesuffix(".make").lstrip(".")]
        parts += [label(relu)] if relu else []
    if not parts:
        return spec
    parts += [cure] if cure else []
    settings_text = ", ".join(part.replace("=", " = ") for part in settings.replace(":", ",").split(",") if part)
    return ", ".join(parts) + (f" ({settings_text})" if settings_text else "") + (f" #{copy}" if mark else "")


def decimals(value: float, minimum: int = 0) -> int:
    """Places after the point that show three significant digits, at least `least`."""
    if value == 0 or not math.isfinite(value):
        return minimum
    return max(minimum, 2 - math.floor(math.log10(abs(value))))


def number(value: float, places: int | None = None) -> str:
    """Three significant digits or the given places; exactly 0 is 0; below 0.0001 as a power of ten."""
    if value == 0:
        return "0"
    if abs(value) < 1e-4 and (places is None or places > 4):
        mantissa, exponent = f"{value:.1e}".split("e")
        return f"{mantissa} × 10{str(int(exponent)).translate(str.maketrans('-0123456789', '⁻⁰¹²³⁴⁵⁶⁷⁸⁹'))}"
    text = f"{value:,.{decimals(value) if places is None else places}f}"
    return text if text.strip("-0.") else text.removeprefix("-")  # no minus before what rounds to 0


def interval(value: Interval | None, places: int | None = None) -> tuple[str, str]:
    """The mean, and its interval as `(low to high)` or nothing where there is none; equal places throughout. Without a
    limit above (a ratio to what may be 0) it reads `(from low up)`."""
    if value is None:
        return DASH, ""
    if value.high > ENDLESS * max(abs(value.mean), 1):
        places = decimals(value.mean) if places is None else places
        return number(value.mean, places), f"(from {number(value.low, places)} up)" if value.low > 0 else ""
    if places is None:  # those of the mean, unless it is nothing beside its interval
        places = decimals(max(abs(value.mean), (value.high - value.low) / 20))
    bounds = f"({number(value.low, places)} to {number(value.high, places)})" if value.known else ""
    return number(value.mean, places), bounds


def written(value: Interval | None, places: int | None = None) -> str:
    """One line: `0.147 (0.131 to 0.163)`."""
    return " ".join(part for part in interval(value, places) if part)


def percent(share: float) -> str:
    """0.189 reads 18.9 % (never broken over two lines); below 1 % two significant digits."""
    value = 100 * share
    return f"{number(value, 1 if abs(value) >= 1 else max(decimals(value) - 1, 0))}\N{NO-BREAK SPACE}%"


def count(value: float) -> str:
    """Whole numbers with thousands separators."""
    return f"{value:,.0f}"


def plural(value: int, noun: str) -> str:
    """1 fleet, 3 fleets."""
    return f"{count(value)} {noun}" + ("" if value == 1 else "s")


def size(count: float) -> str:
    """Bytes in MB or GB (powers of ten)."""
    return f"{count / 1e9:.2f} GB" if count >= 1e9 else f"{count / 1e6:.0f} MB"


def duration(seconds: float) -> str:
    """Seconds below two minutes, else minutes and seconds."""
    if seconds < 120:
        return f"{number(seconds, 1 if seconds >= 1 else None)} s"
    return f"{int(seconds // 60)} min {int(seconds % 60)} s"
