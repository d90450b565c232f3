"""Locust for real, in processes of its own, against a gRPC server whose flicker is known."""

from __future__ import annotations

import json
import math
import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from urllib.parse import urlencode
from urllib.request import urlopen

import pytest
from grpc_health.v1 import health
from grpc_health.v1.health_pb2 import HealthCheckResponse

from simulator.config import SyntheticConfig
from simulator.process import free_ports
from simulator.store.redis import open_store
from simulator.store.server import start_server
from simulator.world.stream import SyntheticWorld
from tests.load.flickering import Flickering, serve

ROOT = Path(__file__).parents[2]
WORLD = {"events": 5_000, "users": 100, "items": 60}


@dataclass
class Load:
    """A Locust that runs, and what it has printed."""

    process: subprocess.Popen[str]
    summary_file: Path
    ready: dict[str, str] = field(default_factory=dict)

    def page(self) -> dict[str, float]:
        """The metrics page: values by name and labels."""
        with urlopen(f"http://{self.ready['metrics']}/metrics", timeout=10) as answer:
            lines = answer.read().decode().splitlines()
        return {name: float(value) for name, value in (line.rsplit(" ", 1) for line in lines if line[0] != "#")}

    def summary(self) -> dict[str, Any]:
        """What it wrote at its end."""
        return dict(json.loads(self.summary_file.read_text()))


def environment(settings: dict[str, Any], folder: Path) -> dict[str, str]:
    own = {name: value for name, value in os.environ.items() if not name.startswith(("FLICKER_", "LOCUST_"))}
    file = folder / "load.json"
    file.write_text(json.dumps({"world": WORLD, **settings}))
    return own | {"FLICKER_LOAD_CONFIG": str(file), "OMP_NUM_THREADS": "1", "OPENBLAS_NUM_THREADS": "1"}


@contextmanager
def load(
    address: str, folder: Path, arguments: str, variables: dict[str, str] | None = None, **settings: Any
) -> Iterator[Load]:
    """Locust once it is ready, with rates of the last three seconds; killed at the end where it still runs."""
    summary, files = folder / "summary.json", "tests/load/lately.py,load/locustfile.py"
    command = [sys.executable, "-m", "locust", "-f", files, "--host", address, *arguments.split()]
    with (folder / "load.log").open("w") as log:
        process = subprocess.Popen(
            command,
            cwd=ROOT,
            env=environment({"summary": str(summary)} | settings, folder) | (variables or {}),
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=log,
            text=True,
            start_new_session=True,
        )
    try:
        assert process.stdout is not None
        running = Load(process, summary)
        line = process.stdout.readline()
        assert line, (folder / "load.log").read_text()
        running.ready = json.loads(line)
        yield running
    finally:
        with suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)  # its own group: its workers, too
        process.communicate(timeout=30)


@contextmanager
def router(**flicker: int) -> Iterator[tuple[Flickering, str]]:
    servicer = Flickering(**flicker)
    server, address = serve(servicer)
    try:
        yield servicer, address
    finally:
        server.stop(0).wait()


def wait_until_open(port: int) -> None:
    for _ in range(300):
        with suppress(ConnectionRefusedError), socket.create_connection(("127.0.0.1", port), 10):
            return
        time.sleep(0.1)
    raise AssertionError(f"nobody listens on port {port}")


def wait_until_asked(servicer: Flickering) -> None:
    for _ in range(300):
        if servicer.asked:
            return
        time.sleep(0.1)
    raise AssertionError("nobody asked")


def page_when(running: Load, name: str, least: float = 0.0, below: float = math.inf) -> dict[str, float]:
    """The metrics page once a sample of it is at least so much, and less than so much."""
    for _ in range(300):
        page = running.page()
        if least <= page.get(name, 0) < below:
            return page
        time.sleep(0.1)
    raise AssertionError(f"{name} = {page.get(name)}, waited for {least} to {below}")


def assert_told_what_happened(summary: dict[str, Any], servicer: Flickering) -> None:
    """The summary's counts are the server's own."""
    assert summary["requests"] == len(servicer.asked)
    assert summary["failures"] == ({"RESOURCE_EXHAUSTED": servicer.refused} if servicer.refused else {})
    assert summary["feedback"]["requests"] == len(servicer.feedback)
    assert summary["feedback"]["failures"] == {}
    assert summary["feedback"]["clicks"] == sum(shown.clicked for f in servicer.feedback for shown in f.shown)
    pairs, told = servicer.pairs(), summary["user_visible_swap_ratio"]
    assert set(told) == {arm for arm, _, _ in pairs}
    for arm, seen in told.items():
        for name, same in (("same_generation", True), ("other_generation", False)):
            changed, kept = pairs[arm, same, True], pairs[arm, same, False]
            assert (seen[name]["changed"], seen[name]["repeats"]) == (changed, changed + kept)
        assert seen["repeats"] == sum(count for (of, _, _), count in pairs.items() if of == arm)
        assert seen["ratio"] == seen["changed"] / seen["repeats"]
        assert seen["slot_ratio"] == pytest.approx(2 * seen["changed"] / (8 * seen["repeats"]))  # two of k = 8 slots


@pytest.fixture(scope="module")
def measured(tmp_path_factory: pytest.TempPathFactory) -> tuple[Flickering, dict[str, Any], dict[str, float], int]:
    """Five seconds at 50/s: what the server saw, the summary, a metrics page of meanwhile, and the exit code."""
    with router(refuse_every=25, refresh_every=60) as (servicer, address):
        settings = {"rate": 50, "repeat": 0.5, "repeat_after": 0.1, "repeat_before": 0.3, "k": 8}
        with load(address, tmp_path_factory.mktemp("load"), "--headless -u 10 -t 5s", **settings) as running:
            page = page_when(running, 'flicker_load_calls_total{code="OK",method="Recommend"}', 100)
            code = running.process.wait(60)
            return servicer, running.summary(), page, code


Measured = tuple[Flickering, dict[str, Any], dict[str, float], int]


def test_the_summary_tells_what_happened(measured: Measured) -> None:
    servicer, summary, _, code = measured
    assert_told_what_happened(summary, servicer)
    assert len(servicer.asked) >= 100 and servicer.refused >= 4 and code == 1, "failed calls are Locust's exit code 1"
    for seen in summary["user_visible_swap_ratio"].values():
        assert abs(seen["changed"] - seen["repeats"] / 2) <= 1, "every second repetition was changed"
    assert 0 < summary["p50"] <= summary["p99"] < 5


def test_the_offered_rate_is_the_configured_one(measured: Measured) -> None:
    _, summary, _, _ = measured
    # a third of the queries, those asked again, starts 0.2 s late; the users spawn within a second
    assert 40 < summary["offered"] <= 50
    assert summary["achieved"] == (summary["requests"] - summary["failures"]["RESOURCE_EXHAUSTED"]) / summary["seconds"]
    assert summary["requests"] <= 1.1 * 50 * summary["seconds"]


def test_a_repetition_is_the_same_query_with_another_number(measured: Measured) -> None:
    servicer, _, _, _ = measured
    asked = {request.query_id: request for request in servicer.asked}
    assert len(asked) == len(servicer.asked), "every number once"
    repeated = [id for id in asked if id % 2]
    for id in repeated:
        first, second = asked[id - 1], asked[id]
        assert (second.user, list(second.context), second.k) == (first.user, list(first.context), 8)
        assert second.arm == first.arm == "" and not second.candidates
    firsts = sum(id % 2 == 0 and id in servicer.answers for id in asked)
    assert abs(len(repeated) - firsts / 2) < 5 * (firsts / 4) ** 0.5 + 10, "half of them, but for those not yet due"


def test_feedback_tells_what_was_shown(measured: Measured) -> None:
    servicer, _, _, _ = measured
    asked = {request.query_id: request for request in servicer.asked}
    for feedback in servicer.feedback:
        answer = servicer.answers[feedback.query_id]
        assert [shown.item for shown in feedback.shown] == [place.item for place in answer.slate]
        assert feedback.answered_by == answer.answered_by
        assert feedback.query_id % 2 == 0 and feedback.time > 0
        request = asked[feedback.query_id]
        assert (feedback.user, list(feedback.context)) == (request.user, list(request.context))


def test_the_metrics_page_while_it_runs(measured: Measured) -> None:
    servicer, _, page, _ = measured
    assert page["flicker_load_users"] == 10
    assert 0 < page["flicker_load_achieved_rate"] and 30 < page["flicker_load_offered_rate"] < 55
    assert (
        0
        < page['flicker_load_latency_seconds{quantile="0.5"}']
        <= page['flicker_load_latency_seconds{quantile="0.99"}']
    )
    assert page['flicker_load_failures_total{code="RESOURCE_EXHAUSTED",method="Recommend"}'] >= 3
    for arm in ("even", "odd"):
        labels = [f'{{arm="{arm}",same_generation="{same}"}}' for same in ("true", "false")]
        repeats, changed = (
            sum(page.get(f"flicker_user_{name}_total{label}", 0) for label in labels) for name in ("repeats", "changed")
        )
        assert repeats > 0 and page[f'flicker_user_visible_swap_ratio{{arm="{arm}"}}'] == changed / repeats


def test_sigterm_ends_it_with_a_summary(tmp_path: Path) -> None:
    with router() as (servicer, address):
        settings = {"rate": 100, "repeat": 1, "repeat_after": 0, "repeat_before": 0.2, "k": 8, "arms": "a b"}
        with load(address, tmp_path, "--headless -u 10", shape="ramp", shape_seconds=1, **settings) as running:
            page_when(running, 'flicker_user_repeats_total{arm="a",same_generation="true"}', 10)
            running.process.send_signal(signal.SIGTERM)
            assert running.process.wait(60) == 0
            assert_told_what_happened(running.summary(), servicer)
            assert set(running.summary()["user_visible_swap_ratio"]) == {"a", "b"}


def test_workers_report_to_the_master(tmp_path: Path) -> None:
    with router() as (servicer, address):
        settings = {"rate": 60, "repeat": 0.5, "repeat_after": 0, "repeat_before": 0.1, "k": 8}
        [port] = free_ports(1)  # Locust's own default is one port for all
        master = f"--master-bind-host 127.0.0.1 --master-bind-port {port} --master-port {port}"
        with load(address, tmp_path, f"--headless -u 6 -t 2s --processes 2 {master}", **settings) as running:
            assert running.process.wait(60) == 0
            assert_told_what_happened(running.summary(), servicer)
    assert {request.query_id >> 40 for request in servicer.asked} == {0, 1}, "both workers asked"


def test_queries_follow_the_feeder_through_the_world(tmp_path: Path) -> None:
    with router() as (servicer, address), start_server(tmp_path / "store") as server:
        store = open_store(server.url, run="here")
        store.append(next(iter(SyntheticWorld(SyntheticConfig(**WORLD), 0).batches(10))), writer="world", mark="2500")
        store.close()
        with load(address, tmp_path, "--headless -u 5", rate=50, k=8, store=server.url, run="here") as running:
            page_when(running, 'flicker_load_calls_total{code="OK",method="Feedback"}', 10)
    assert {feedback.time for feedback in servicer.feedback} == {15 * 86_400.0}, "event 2,500 of 5,000 in 30 days"


def test_with_the_web_page_every_test_counts_from_zero(tmp_path: Path) -> None:
    [port] = free_ports(1)
    with router() as (servicer, address):
        settings = {"rate": 60, "repeat": 0.5, "repeat_after": 0, "repeat_before": 0.1, "k": 8}
        with load(address, tmp_path, f"--web-host 127.0.0.1 --web-port {port}", **settings) as running:
            wait_until_open(port)
            for _ in range(2):
                servicer.forget()
                post(port, "/swarm", user_count="5", spawn_rate="5", host=address)
                wait_until_asked(servicer)  # until then the metrics page tells of the test before
                page_when(running, "flicker_load_offered_total", 30)
                post(port, "/stop")
                assert_told_what_happened(running.summary(), servicer)


def as_in_a_container(port: int, users: int) -> dict[str, str]:
    """Locust's own variables for a page with a test that starts by itself."""
    page = {"LOCUST_WEB_HOST": "127.0.0.1", "LOCUST_WEB_PORT": str(port), "LOCUST_AUTOSTART": "true"}
    return page | {"LOCUST_USERS": str(users), "LOCUST_EXIT_CODE_ON_ERROR": "0"}


def test_more_users_on_the_page_raise_the_offered_rate(tmp_path: Path) -> None:
    port, offered = free_ports(1)[0], "flicker_load_offered_rate"
    with router() as (_, address):
        variables = as_in_a_container(port, 4) | {"FLICKER_RATE": "20", "FLICKER_HOST": "0.0.0.0"}
        with load(address, tmp_path, "", variables, repeat=0, k=8) as running:
            assert running.ready["metrics"].startswith("0.0.0.0:")
            # the gauge looks back 3 seconds, the first of which has fewer users
            first = page_when(running, offered, 16)
            assert first["flicker_load_users"] == 4 and first[offered] < 21
            post(port, "/swarm", user_count="12", spawn_rate="100", host=address)
            raised = page_when(running, offered, 50)
            assert raised["flicker_load_users"] == 12 and raised[offered] < 61
            page_when(running, "flicker_load_achieved_rate", 40)  # not only offered
            post(port, "/swarm", user_count="2", spawn_rate="100", host=address)
            assert page_when(running, offered, below=15)[offered] > 9
            running.process.send_signal(signal.SIGTERM)
            assert running.process.wait(10) == 0


def test_a_rate_that_is_written_while_it_runs_is_offered(tmp_path: Path) -> None:
    """A file that cannot be used changes nothing."""
    offered, file = "flicker_load_offered_rate", tmp_path / "load.json"
    with router() as (_, address), load(address, tmp_path, "--headless -u 1", rate=10, repeat=0, k=8) as running:
        settings = json.loads(file.read_text())
        page_when(running, offered, 8)
        file.write_text(json.dumps(settings | {"rate": 45}))
        raised = page_when(running, offered, 43)
        assert raised["flicker_load_users"] == 4 and raised[offered] < 46, "users in proportion, the rate to the letter"
        page_when(running, "flicker_load_achieved_rate", 35)  # not only offered
        file.write_text("{")
        wait_for_log(tmp_path, "FLICKER_LOAD_CONFIG = ")
        file.write_text(json.dumps(settings | {"rate": 1}))
        lowered = page_when(running, offered, below=2)
        assert lowered["flicker_load_users"] == 1 and lowered[offered] > 0.9
        running.process.send_signal(signal.SIGTERM)
        assert running.process.wait(10) == 0
        assert not running.summary()["failures"]


@pytest.mark.parametrize("headless", ["", "--headless"])
def test_a_signal_ends_the_wait_for_the_router(tmp_path: Path, headless: str) -> None:
    with load("127.0.0.1:1", tmp_path, headless, as_in_a_container(free_ports(1)[0], 2)) as running:
        wait_for_log(tmp_path, "waiting for the router at 127.0.0.1:1: UNAVAILABLE")
        running.process.send_signal(signal.SIGTERM)
        assert running.process.wait(10) == 0


def test_the_test_begins_when_the_router_serves(tmp_path: Path) -> None:
    probes, servicer = health.HealthServicer(), Flickering()
    probes.set("", HealthCheckResponse.NOT_SERVING)
    server, address = serve(servicer, probes)
    try:
        with load(address, tmp_path, "", as_in_a_container(free_ports(1)[0], 5), rate=50, k=8) as running:
            wait_for_log(tmp_path, f"waiting for the router at {address}: NOT_SERVING")
            assert running.page()["flicker_load_users"] == 0 and not servicer.asked
            probes.set("", HealthCheckResponse.SERVING)
            page = page_when(running, 'flicker_load_calls_total{code="OK",method="Recommend"}', 20)
            assert not any(count for name, count in page.items() if name.startswith("flicker_load_failures_total"))
            assert {name.partition("method=")[2] for name in page if "load_calls" in name} <= {
                '"Recommend"}',
                '"Feedback"}',
            }, "probes are no traffic"
    finally:
        server.stop(0).wait()


def post(port: int, path: str, **form: str) -> None:
    """Fill in a form of Locust's page."""
    with urlopen(f"http://127.0.0.1:{port}{path}", urlencode(form).encode(), timeout=10) as answer:
        assert json.load(answer)["success"]


def wait_for_log(folder: Path, words: str) -> None:
    for _ in range(300):
        if words in (folder / "load.log").read_text():
            return
        time.sleep(0.1)
    raise AssertionError((folder / "load.log").read_text())


@pytest.mark.parametrize(
    ("settings", "told"),
    [
        ({"data": "no/such/log.toml", "world": {}}, "no/such/log.toml: no such file"),
        ({"store": "ftp://nowhere"}, "store = ftp://nowhere:"),
    ],
)
def test_what_cannot_be_used_is_one_line_and_exit_code_2(tmp_path: Path, settings: dict[str, Any], told: str) -> None:
    assert_refused(tmp_path, settings, told)


def test_a_metrics_port_that_is_taken_is_one_line_and_exit_code_2(tmp_path: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        assert_refused(tmp_path, {"metrics_port": port}, f"metrics_port = {port}:")


def assert_refused(folder: Path, settings: dict[str, Any], told: str) -> None:
    command = [sys.executable, "-m", "locust", "-f", "load/locustfile.py", "--headless"]
    command += ["-t", "1s", "--loglevel", "ERROR"]
    ended = subprocess.run(
        [*command, "--host", "127.0.0.1:1"],
        cwd=ROOT,
        env=environment(settings, folder),
        capture_output=True,
        text=True,
        timeout=60,
    )
    assert ended.returncode == 2
    assert ended.stderr.startswith(f"load: {told}") and ended.stderr.count("\n") == 1


def test_nothing_of_it_loads_torch() -> None:
    modules = "load.people, load.session, load.settings, load.tally"
    code = f"import {modules}, load.locustfile, sys; sys.exit('torch' in sys.modules)"
    own = {name: value for name, value in os.environ.items() if not name.startswith("FLICKER_")}
    assert subprocess.run([sys.executable, "-c", code], cwd=ROOT, env=own, timeout=60).returncode == 0
