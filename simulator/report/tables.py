"""Tables as HTML: the summary, everything that was measured, and the settings of the run."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from html import escape
from typing import Any

from simulator.measures.intervals import Interval
from simulator.report.finding import ratio_to
from simulator.report.result import Arm, Result
from simulator.report.words import DASH, count, duration, interval, label, number, size

SUMMARY = (
    ("pd", "PD", None),
    ("swaps.pair", "pair swaps", None),
    ("swaps.slot", "slot swaps", None),
    ("swaps.top1", "top-1 swaps", None),
    ("refresh_swaps.pair", "pair swaps at a refresh", None),
    ("log_loss", "log loss", 4),
    ("auc", "AUC", 4),
    ("ranking_loss", "ranking loss", 4),
)
"""Measure, heading, places after the point (None: three significant digits)."""

FIXED = {"log_loss": 4, "progressive_log_loss": 4, "auc": 4, "ranking_loss": 4, "calibration": 3}

COSTS: dict[str, Callable[[float], str]] = {
    "events_per_second": count,
    "parameters": count,
    "lookups": count,
    "model_bytes": size,
    "train_bytes": size,
    "score_seconds": lambda seconds: f"{number(1e3 * seconds)} ms",
}
"""What an arm costs, and how it is written."""


def summary(result: Result) -> str:
    """One row per arm: each measure with its interval and its ratio to the first arm."""
    titles = ("arm", *(heading for _, heading, _ in SUMMARY), "train time")
    heads = "".join(f'<th scope="col">{title}</th>' for title in titles)
    base = result.arms[0]
    rows = []
    for arm in result.arms:
        cells = [_cell(arm, base, *column) for column in SUMMARY]
        rows.append(f"<tr>{arm_head(arm)}{''.join(cells)}{_seconds(arm, base)}</tr>")
    return (
        f'<div class="scroll"><table class="summary"><thead><tr>{heads}</tr></thead>'
        f"<tbody>{''.join(rows)}</tbody></table></div>"
    )


def everything(result: Result) -> str:
    """One row per measure, one column per arm."""
    names = list(dict.fromkeys(name for arm in result.arms for name in arm.measures))
    heads = "".join(f'<th scope="col">{escape(label(arm.spec))}</th>' for arm in result.arms)
    rows = []
    for name in names:
        cells = "".join(f"<td>{_value(arm.measures.get(name), FIXED.get(name))}</td>" for arm in result.arms)
        rows.append(f'<tr><th scope="row"><code>{escape(name)}</code></th>{cells}</tr>')
    for name, write in COSTS.items():
        cells = "".join(f"<td>{write(arm.costs[name]) if name in arm.costs else DASH}</td>" for arm in result.arms)
        rows.append(f'<tr><th scope="row"><code>{name}</code></th>{cells}</tr>')
    for name in dict.fromkeys(name for arm in result.arms for name in arm.design):
        cells = "".join(f"<td>{escape(_setting(arm.design.get(name, DASH)))}</td>" for arm in result.arms)
        rows.append(f'<tr><th scope="row"><code>{escape(name)}</code></th>{cells}</tr>')
    return (
        f'<div class="scroll"><table><thead><tr><th scope="col">measure</th>{heads}</tr></thead>'
        f"<tbody>{''.join(rows)}</tbody></table></div>"
    )


def _setting(value: object) -> str:
    return " x ".join(map(str, value)) if isinstance(value, list) else str(value)


def settings(result: Result) -> str:
    """The command, the resolved settings with the seed, versions, machine, time and memory of the run."""
    world = {name: count(value) if type(value) is int else value for name, value in result.world.items()}
    spent = {"time": duration(result.seconds), "peak memory": size(result.peak_memory_bytes)}
    parts = [
        f"<p>Command:</p><pre><code>{escape(result.command or DASH)}</code></pre>",
        _pairs("Settings", result.config),
        _pairs("World", world),
        _pairs("Versions", {"flicker": result.flicker} | result.versions),
        _pairs("Machine", result.machine | spent),
    ]
    return "".join(parts)


def arm_head(arm: Arm) -> str:
    """The arm's name as a row heading, and below it the spec to type where that differs."""
    name, spec = label(arm.spec), arm.spec
    typed = f" <code>{escape(spec)}</code>" if name != spec else ""
    unbroken = name.replace(" = ", "\N{NO-BREAK SPACE}=\N{NO-BREAK SPACE}")
    return f'<th scope="row">{escape(unbroken)}{typed}</th>'


def _cell(arm: Arm, base: Arm, name: str, heading: str, places: int | None) -> str:
    ratio = None if arm is base else ratio_to(arm, base, name)
    times = f' <span class="ratio">× {_value(ratio, 3 if name in FIXED else 2)}</span>' if ratio else ""
    return f'<td data-name="{heading}">{_value(arm.measures.get(name), places)}{times}</td>'


def _value(value: Interval | None, places: int | None) -> str:
    mean, bounds = interval(value, places)
    return f"<b>{mean}</b>" + (f" <small>{bounds}</small>" if bounds else "")


def _seconds(arm: Arm, base: Arm) -> str:
    own, ratio = arm.costs.get("train_seconds"), arm.cost_ratio(base, "train_seconds")
    if own is None:
        return f'<td data-name="train time"><b>{DASH}</b></td>'
    times = f' <span class="ratio">× <b>{number(ratio, 2)}</b></span>' if ratio and arm is not base else ""
    return f'<td data-name="train time"><b>{duration(own)}</b>{times}</td>'


def _pairs(title: str, values: dict[str, Any]) -> str:
    rows = "".join(
        f'<tr><th scope="row"><code>{escape(name)}</code></th><td>{escape(text)}</td></tr>'
        for name, text in _flat(values)
    )
    return f'<h3>{title}</h3><div class="scroll"><table class="pairs"><tbody>{rows}</tbody></table></div>'


def _flat(values: dict[str, Any], before: str = "") -> Iterator[tuple[str, str]]:
    """Nested settings under dotted names, as they are written on the command line."""
    for name, value in values.items():
        if isinstance(value, dict):
            yield from _flat(value, f"{before}{name}.")
        elif isinstance(value, list):
            yield before + name, ", ".join(part if isinstance(part, str) else json.dumps(part) for part in value)
        else:
            yield before + name, value if isinstance(value, str) else json.dumps(value)
