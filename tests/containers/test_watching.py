"""What one sees: data on every panel and in every rule, quiet alerts, less flicker with SmeLU; and what it takes."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from tests.containers.asking import ARMS, metric, prometheus, value_of
from tests.containers.engine import containers, until

DASHBOARDS = sorted(Path("/deploy/grafana/dashboards").glob("*.json"))
NOTHING_FAILED = ("flicker_comparisons_failed_total", "flicker_snapshots_refused_total", 'grpc_code!="OK"')
"""Counters by what went wrong, which have no series while nothing did."""
NOBODY_WAITS = ("flicker_shards_wait_seconds_total",)
"""Of trainers for one another, where there are several."""
EXPECTED_ALERTS = {"FlickerSwapsOverBudget"}
"""ReLU swaps more than the budget allows, and may say so."""
ENOUGH = 300
"""Comparisons per arm before their ratios are compared."""


def panels() -> list[tuple[str, str, list[str]]]:
    """Dashboard, title and expressions of every panel, variables replaced by what they are at first."""
    found = []
    for file in DASHBOARDS:
        board = json.loads(file.read_text())
        values = {f"${v['name']}": v["current"]["value"] for v in board["templating"]["list"]}
        for panel in board["panels"]:
            expressions = [filled(target["expr"], values) for target in panel.get("targets", [])]
            if expressions:
                found.append((board["uid"], panel["title"], expressions))
        found += [(board["uid"], f"annotation {a['name']}", [a["expr"]]) for a in board["annotations"]["list"]]
    return found


def filled(expression: str, values: dict[str, str]) -> str:
    """An expression without Grafana's variables."""
    for name, value in values.items():
        expression = expression.replace(name, value)
    assert "$" not in expression, expression
    return expression


def may_be_empty(expression: str) -> bool:
    """Series of arms beyond those that run, of failures that nobody has seen, and of trainers that wait for others."""
    beyond = [f"(last_over_time(flicker_arm_position[1h]) {sign})" for sign in ("== 2", "== 3", ">= 4")]
    empty = (*beyond[len(ARMS) - 2 :], *NOTHING_FAILED, *NOBODY_WAITS)
    return any(part in expression for part in empty)


@pytest.mark.parametrize(("board", "title", "expressions"), panels())
def test_every_panel_has_data(board: str, title: str, expressions: list[str]) -> None:
    wanted = [expression for expression in expressions if not may_be_empty(expression)]
    for expression in wanted:
        until(lambda e=expression: value_of(e), 60, f"no data for {expression}", pause=1)  # type: ignore[misc]
    for expression in set(expressions) - set(wanted):
        value_of(expression)  # Prometheus must understand it


def test_dashboards_were_read() -> None:
    assert len(DASHBOARDS) == 3


def rules(kind: str) -> list[dict[str, Any]]:
    """Prometheus' own list of recording or alerting rules."""
    return [rule for group in prometheus("rules")["groups"] for rule in group["rules"] if rule["type"] == kind]


def test_every_recording_rule_records() -> None:
    recording = rules("recording")
    assert recording
    for rule in recording:
        assert rule["health"] == "ok", rule
        labels = ",".join(f'{name}="{value}"' for name, value in (rule.get("labels") or {}).items())
        until(lambda e=f"{rule['name']}{{{labels}}}": value_of(e), 60, f"no data: {rule}", pause=1)  # type: ignore[misc]


def test_alerts_are_loaded_and_silent() -> None:
    """After all that was done to it: what mends itself in time wakes nobody."""
    alerts = rules("alerting")
    assert alerts
    assert {rule["health"] for rule in alerts} == {"ok"}
    assert {rule["name"] for rule in alerts if rule["state"] == "firing"} <= EXPECTED_ALERTS


def test_smelu_swaps_less_than_relu(note: Callable[[str], None]) -> None:
    same = 'cause="duplicate"'

    def enough() -> bool:
        counts = value_of(f'sum by (arm) (flicker_compared_total{{{same},measure="slate"}})')
        return len(counts) == len(ARMS) and all(count >= ENOUGH for _, count in counts)

    until(enough, 180, "too few comparisons", pause=1)
    for measure in ("pair", "slot"):
        ratios = value_of(f'flicker:difference:10m{{{same},measure="{measure}"}}')
        relu, smelu = (next(v for labels, v in ratios if labels["arm"].startswith(arm)) for arm in ("relu", "smelu"))
        note(f"{measure} swaps: ReLU {relu:.3f}, SmeLU {smelu:.3f}, {smelu / relu:.2f} of it")
        assert smelu < relu


def test_two_minutes_of_load_without_a_failure(note: Callable[[str], None]) -> None:
    """All that the simulated users have asked since the start, through the crashes of the tests before."""
    environment = dict(line.split("=", 1) for line in containers("load")[0].inspect()["Config"]["Env"])
    rate = float(environment["FLICKER_RATE"])
    assert rate >= 100
    until(lambda: metric("load", "flicker_load_offered_total") >= 120 * rate, 180, "no two minutes of load", pause=1)
    offered = metric("load", "flicker_load_offered_total")
    answered = metric("load", "flicker_load_calls_total", method="Recommend", code="OK")
    failed, unsure = (metric("load", "flicker_load_failures_total", method=name) for name in ("Recommend", "Feedback"))
    note(f"load: {offered:.0f} queries offered at {rate:.0f}/s, {answered:.0f} answered, {failed:.0f} failed")
    # a report that a router had not answered when it died is asked again; more than a few without an answer are lost
    note(f"load: {unsure:.0f} reports without an answer")
    assert failed == 0
    assert unsure < 10
    assert answered > 0.95 * offered


def test_memory_stays_within_4_gib(note: Callable[[str], None]) -> None:
    """And what every router beyond the first may take."""
    used: dict[str, list[int]] = {}
    limits: dict[str, int] = {}
    for container in containers():
        bytes_used, limits[container.service] = container.memory()
        used.setdefault(container.service, []).append(bytes_used)
    for service, sizes in used.items():
        note(f"memory {service:<10} {len(sizes)} x {max(sizes) >> 20:>4} MiB of {limits[service] >> 20} MiB")
    total, most = sum(map(sum, used.values())), sum(len(used[s]) * limits[s] for s in used)
    note(f"memory in all: {total / 2**30:.2f} GiB, limits {most / 2**30:.2f} GiB")
    assert most - (len(used["router"]) - 1) * limits["router"] <= 4 * 2**30
