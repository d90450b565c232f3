"""A measure is one entry in simulator/measures/registry.py: what is live shows it without being told of it."""

from __future__ import annotations

import importlib
import io
import json
import sys
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
import yaml
from prometheus_client import generate_latest
from rich.console import Console, RenderableType

from protos.recommender_pb2 import CompareRequest, RecommendRequest
from serving.query import differences
from simulator.live.view import picture
from simulator.live.watch import Page, Watch
from simulator.measures.registry import MEASURES, Answers, Measure, Parts
from tests.serving.fake_replica import FakeReplica, publish
from tests.serving.router_under_test import Asked, healthy, running, until
from tests.store.memory_store import MemoryStore
from tests.test_dashboards import GRAFANA, filled
from tests.test_prometheus import PROMETHEUS, promtool

RELU = {"arm": "relu", "cause": "duplicate", "measure": "last"}


def last_swaps(first: Answers, second: Answers) -> Parts:
    swapped = first.slates[:, -1] != second.slates[:, -1]
    return swapped.astype(np.float64), np.ones(len(swapped))


@pytest.fixture(autouse=True)
def last(monkeypatch: pytest.MonkeyPatch) -> Measure:
    """The new one."""
    made = Measure("last", "last-place swaps", "Share of queries whose last item is another one.", last_swaps)
    monkeypatch.setitem(MEASURES, made.name, made)
    return made


@pytest.fixture
def asked(last: Measure, tmp_path: Path) -> Iterator[Asked]:
    """A router of two duplicates that compares every query."""
    store = MemoryStore(10_000)
    publish(store, 3)
    replicas = [FakeReplica(name, number, generation=3) for number, name in enumerate("ab")]
    for replica in replicas:
        replica.say(True)
        replica.announce(store)
    with running(store, shadow=1.0, comparisons=tmp_path / "comparisons.jsonl") as router:
        healthy(router, 2)
        yield router
    for replica in replicas:
        replica.stop()


def printed(*shown: RenderableType) -> str:
    console = Console(width=100, file=io.StringIO(), record=True)
    console.print(*shown)
    return console.export_text()


def test_routers_count_it_and_the_terminal_shows_it(asked: Asked, tmp_path: Path) -> None:
    for number in range(1, 21):
        asked.stub.Recommend(RecommendRequest(query_id=number, user=number, arm="relu", k=5))
    until(lambda: asked.metric("flicker_compared_total", **RELU) == 20)
    swapped = asked.metric("flicker_differences_total", **RELU)
    assert 0 < asked.metric("flicker_swap_ratio", **RELU) == swapped / 20
    lines = [json.loads(line) for line in (tmp_path / "comparisons.jsonl").read_text().splitlines()]
    assert sum(line["difference"]["last"][0] for line in lines if line["cause"] == "duplicate") == swapped

    watch = Watch({}, trainer=Page('flicker_progressive_log_loss{arm="relu"} 0.5\n'))
    watch.see({"router-0": Page(generate_latest(asked.registry).decode())})
    assert watch.ratio("last", "relu", "duplicate") == swapped / 20
    assert "last-place swaps" in printed(picture(watch, "127.0.0.1:1", None))


def test_an_answer_of_compare_has_it(asked: Asked) -> None:
    found = asked.stub.Compare(CompareRequest(query=RecommendRequest(query_id=3, user=4, arm="relu", k=6)))
    first, second = (answer.slate for answer in found.answers)
    assert found.comparisons[0].measures["last"] == (first[-1].item != second[-1].item)
    assert "last-place swaps" in printed(*differences(found))


def test_a_recording_rule_gives_it(tmp_path: Path) -> None:
    of = ", ".join(f'{name}="{value}"' for name, value in RELU.items())
    counted = [("differences", "0+1x24"), ("compared", "0+4x24")]
    series = [{"series": f"flicker_{name}_total{{{of}}}", "values": values} for name, values in counted]
    sample = {"labels": f"flicker:difference:1m{{{of}}}", "value": 0.25}
    expected = {"expr": "flicker:difference:1m", "eval_time": "2m", "exp_samples": [sample]}
    test = {"interval": "5s", "input_series": series, "promql_expr_test": [expected]}
    file = tmp_path / "test.yml"
    rules = {"rule_files": [str(PROMETHEUS / "rules.yml")], "evaluation_interval": "5s", "tests": [test]}
    file.write_text(yaml.safe_dump(rules))
    assert "SUCCESS" in promtool("test", "rules", file)


@pytest.mark.parametrize("swap", [True, False])
def test_a_dashboard_that_is_generated_shows_it(swap: bool, last: Measure, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(MEASURES, "last", Measure("last", last.words, last.about, last.fn, swap=swap))
    monkeypatch.syspath_prepend(str(GRAFANA))
    for module in ("swaps", "quality", "panels"):
        monkeypatch.delitem(sys.modules, module, raising=False)
    made = importlib.import_module("swaps").swaps()
    asked_for = [
        expression
        for panel in made["panels"]
        for target in panel.get("targets", ())
        for expression in filled(target["expr"], made)
    ]
    assert any('measure="last"' in expression for expression in asked_for)
    assert last.about in json.dumps(made) and last.words in json.dumps(made)
