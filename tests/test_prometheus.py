"""deploy/prometheus: what promtool says of it, that nothing is left untested, and that no name or label is invented."""

from __future__ import annotations

import re
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest
import yaml

from serving import comparison
from serving.router.main import RouterFlags
from simulator.store.redis import CAPACITY
from tests.metric_names import JOBS, PROMETHEUS, declared, rules
from tests.promql import labels, problems

TESTS = sorted((PROMETHEUS / "tests").glob("*.yml"))
RULES = [*rules("rules.yml"), *rules("alerts.yml")]
SMALL = {"ratio": frozenset({"arm", "cause"}), "ratio:1m": frozenset({"arm"}), "waiting": frozenset[str]()}


def promtool(*arguments: object) -> str:
    """What promtool says; skips where there is none. Fails where it finds a fault."""
    if shutil.which("promtool") is None:
        pytest.skip("promtool is not on PATH: install Prometheus to check its rules")
    ended = subprocess.run(["promtool", *map(str, arguments)], text=True, capture_output=True)
    assert ended.returncode == 0, ended.stdout + ended.stderr
    return ended.stdout


def test_promtool_accepts_the_configuration() -> None:
    assert "is valid prometheus config file" in promtool("check", "config", PROMETHEUS / "prometheus.yml")


@pytest.mark.parametrize("file", ["rules.yml", "alerts.yml"])
def test_promtool_accepts_the_rules(file: str) -> None:
    assert "SUCCESS" in promtool("check", "rules", "--lint=all", "--lint-fatal", PROMETHEUS / file)


@pytest.mark.parametrize("file", TESTS, ids=lambda file: file.stem)
def test_rules_give_what_their_unit_tests_say(file: Path) -> None:
    assert "SUCCESS" in promtool("test", "rules", file)


def outcomes() -> Iterator[str]:
    """Names of the rules and alerts of which some unit test expects a sample."""
    for test in (test for file in TESTS for test in yaml.safe_load(file.read_text())["tests"]):
        for case in test.get("promql_expr_test", []):
            yield from (re.split("[{ ]", sample["labels"])[0] for sample in case["exp_samples"])
        for case in test.get("alert_rule_test", []):
            yield from ([case["alertname"]] if case["exp_alerts"] else [])


def test_every_rule_and_alert_is_seen_to_give_something() -> None:
    assert {rule.get("record") or rule["alert"] for rule in RULES} - set(outcomes()) == set()


def test_code_declares_every_metric_and_label() -> None:
    wrong = {rule.get("record") or rule["alert"]: problems(rule["expr"], declared()) for rule in RULES}
    assert {name: found for name, found in wrong.items() if found} == {}


def test_unit_tests_feed_only_what_code_declares() -> None:
    """Else a rule could pass its test on a metric or label that no process shows."""
    tests = [test for file in TESTS for test in yaml.safe_load(file.read_text())["tests"]]
    series = {series["series"] for test in tests for series in test["input_series"]} - {"unrelated"}
    assert {name: found for name in series if (found := problems(name, declared()))} == {}


def test_one_rule_per_window_divides_by_measure() -> None:
    for window in ("1m", "10m"):
        (rule,) = (rule for rule in RULES if rule.get("record") == f"flicker:difference:{window}")
        counters = ["flicker_differences_total", "flicker_compared_total"]
        assert re.findall(r"rate\((\w+)\[" + window, rule["expr"]) == counters
        assert labels(rule["expr"], declared()) == {"arm", "cause", "measure"}


def test_alerts_know_the_sizes_that_the_code_has() -> None:
    alerts = {alert["alert"]: alert for alert in rules("alerts.yml")}
    wait, comments = alerts["FlickerComparisonsWait"], (PROMETHEUS / "alerts.yml").read_text()
    assert wait["expr"] == f"max(flicker_shadow_backlog) > {comparison.BACKLOG // 2}"
    assert f"room for {comparison.BACKLOG:,}." in wait["annotations"]["summary"]
    assert f"The backlog holds {comparison.BACKLOG:,} queries: half full" in comments
    assert f"The log holds {CAPACITY:,} events" in comments
    assert f"The spool holds {RouterFlags.spool_bytes >> 20} MiB unless told" in comments


def test_alerts_say_how_bad_it_is_and_what_to_do() -> None:
    for alert in rules("alerts.yml"):
        assert alert.keys() == {"alert", "expr", "for", "labels", "annotations"}, alert["alert"]
        assert alert["labels"]["severity"] in ("critical", "warning"), alert["alert"]
        assert alert["annotations"].keys() == {"summary", "description"}, alert["alert"]
        assert "{{ $value" in alert["annotations"]["summary"], alert["alert"]


def test_prometheus_finds_every_process_by_its_name() -> None:
    config = yaml.safe_load((PROMETHEUS / "prometheus.yml").read_text())
    found = {job["job_name"]: job["dns_sd_configs"] for job in config["scrape_configs"] if "dns_sd_configs" in job}
    assert {job: [name for search in searches for name in search["names"]] for job, searches in found.items()} == {
        job: [job] for job in JOBS
    }


@pytest.mark.parametrize(
    ("expression", "problem"),
    [
        ("ratios", "no metric ratios"),
        ('sum(ratio{color="red"})', 'no label color in ratio{color="red"}'),
        ("sum by (color) (ratio)", "no label color in sum by (color) (ratio)"),
        ("sum by (arm) (sum by (cause) (ratio))", "no label arm in sum by (arm) (sum by (cause) (ratio))"),
        ("ratio / on (color) ratio", "no label color in ratio / on (color) ratio"),
        ("ratio / ratio:1m", "sides with labels ['arm', 'cause'] and ['arm'] in ratio / ratio:1m"),
        ("sum(rate(ratio[1m])) - lost_total", "no metric lost_total"),
        ("histogram_quantile(0.5, ratio)", "no label le in histogram_quantile(0.5, ratio)"),
        ('{__name__=~"rat.*"}', "no metric None"),
    ],
)
def test_an_invented_name_or_label_is_told(expression: str, problem: str) -> None:
    assert problem in problems(expression, SMALL)


@pytest.mark.parametrize(
    ("expression", "there"),
    [
        ("ratio", {"arm", "cause"}),
        ("sum without (arm) (ratio) > 0", {"cause"}),
        ("topk(1, ratio)", {"arm", "cause"}),
        ("1 - max(ratio) / 2", set()),
        ("ratio * on (arm) group_left () ratio:1m", {"arm", "cause"}),
        ("ratio:1m * on (arm) group_right () ratio", {"arm", "cause"}),
        ("ratio / ignoring (cause) ratio:1m", {"arm"}),
        ("ratio and on (arm) (ratio:1m == 0)", {"arm", "cause"}),
        ("sum by (arm) (ratio) / (ratio:1m > 0)", {"arm"}),
        ('label_replace(ratio:1m, "of", "$1", "arm", ".*")', {"arm", "of"}),
        ('absent(ratio{arm="relu"})', {"arm"}),
        ("sum(ratio) / waiting or vector(0)", set()),
        ("max_over_time(rate(ratio[1m])[5m:])", {"arm", "cause"}),
    ],
)
def test_labels_of_what_comes_out(expression: str, there: set[str]) -> None:
    assert labels(expression, SMALL) == there
    assert problems(expression, SMALL) == []
