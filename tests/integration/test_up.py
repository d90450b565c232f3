"""`flicker up` as a user runs it: a replica killed, then Ctrl-C; to SIGTERM or its end, and with a dying process."""

from __future__ import annotations

import http.client
import json
import os
import re
import secrets
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import grpc
import psutil
import pytest

from protos.recommender_pb2 import RecommendRequest
from protos.recommender_pb2_grpc import RecommenderStub
from serving.health import complaint
from simulator.live.watch import scrape
from simulator.process import free_ports
from tests.integration.system import until
from tests.result_schema import assert_documented, assert_interval, assert_swaps

ROOT = Path(__file__).parents[2]
ARMS = ("relu", "smelu:beta=1")
SMALL = (
    "--hidden 32 16 --dim 8 --batch 128 --window 4 --candidates 100 --duplicates 2 --replicas 2 --rate 20 --shadow 1 "
    "--refresh-events 2048"
).split() + ["--arms", *ARMS]
MADE_UP = "--events 200000 --users 500 --items 400".split()
MARK = "FLICKER_TEST_MARK"
NOTHING: Mapping[str, str] = {}
PATIENCE = 40.0
"""Seconds until everyone serves: many on a busy machine."""
ENDS = 15.0
"""Seconds in which everything has ended after a signal."""


class Up:
    """One `flicker up`, and all that came of it: every descendant inherits a mark."""

    def __init__(self, folder: Path, *arguments: str, environment: Mapping[str, str] = NOTHING) -> None:
        self.out, self._mark, self.port = folder / "out", secrets.token_hex(8), free_ports(1)[0]
        self.address = f"127.0.0.1:{self.port}"
        self._said = folder / "said"
        page = [] if "--page-port" in arguments else ["--no-page"]
        page += [] if "--data" in arguments else MADE_UP
        command = ["up", "--out", str(self.out), "--port", str(self.port), *page, *SMALL, *arguments]
        own = {name: value for name, value in os.environ.items() if name != "FLICKER_REDIS_URL"} | environment
        with open(self._said, "wb") as said:
            self.process = subprocess.Popen(
                [sys.executable, "-m", "simulator", *command],
                cwd=ROOT,
                env=own | {MARK: self._mark, "COLUMNS": "200"},
                stdin=subprocess.DEVNULL,
                stdout=said,
                stderr=said,
            )

    def alive(self, *words: str) -> list[psutil.Process]:
        """Running descendants, or `up` itself, whose command line holds all the words."""
        found = []
        for process in psutil.process_iter():
            try:
                marked = process.environ().get(MARK) == self._mark and process.status() != psutil.STATUS_ZOMBIE
                if marked and set(words) <= set(process.cmdline()):
                    found.append(process)
            except psutil.Error:
                continue
        return found

    def wait_for(self, name: str) -> psutil.Process:
        """A replica or router, once it runs."""
        until(lambda: bool(self.alive("serving", name)), f"{name} runs")
        return self.alive("serving", name)[0]

    def answers(self) -> bool:
        """Whether the router has answered someone: the traffic begins when everyone serves."""
        assert self.process.poll() is None, self.said()
        log = self.out / "load.log"
        return log.exists() and '{"ready": "load"' in log.read_text()

    def compared(self) -> bool:
        """Whether the router has compared every arm's duplicates, and what refreshes changed."""
        lines = (self.out / "router-0.log").read_text().splitlines()
        ready = json.loads(next(line for line in lines if line.startswith('{"ready"')))
        page = scrape({"router": int(ready["metrics"].rpartition(":")[2])})["router"]
        counts = [
            page.total("flicker_compared_total", arm=arm, cause=cause, measure="slot")
            for arm in ARMS
            for cause in ("duplicate", "refresh")
        ]
        return min(counts) > 0

    def said(self) -> str:
        """What it printed so far."""
        return self._said.read_text()

    def wait(self, seconds: float) -> int:
        """Its exit code; nothing that it started is left then."""
        code = self.process.wait(seconds)
        assert self.alive() == []
        with socket.socket() as probe:
            assert probe.connect_ex(("127.0.0.1", self.port)) != 0
        assert "Traceback" not in self.said(), self.said()
        return code


@contextmanager
def running(folder: Path, *arguments: str, environment: Mapping[str, str] = NOTHING) -> Iterator[Up]:
    """`flicker up` for as long as the block lasts; whatever it leaves behind is killed."""
    up = Up(folder, *arguments, environment=environment)
    try:
        yield up
    finally:
        for process in up.alive():
            process.kill()
        up.process.wait()


def kill(up: Up, name: str) -> None:
    """A replica or router; returns once it is started again."""
    killed = up.wait_for(name)
    killed.kill()
    until(lambda: [p for p in up.alive("serving", name) if p.pid != killed.pid] != [], f"{name} is started again")


def stores(up: Up) -> list[psutil.Process]:
    """Its store's server, which writes where it listens over its flags and environment."""
    found = []
    for child in psutil.Process(up.process.pid).children():
        with suppress(psutil.NoSuchProcess):
            if "-server" in child.name() and child.status() != psutil.STATUS_ZOMBIE:
                found.append(child)
    return found


def query(up: Up, *arguments: str) -> subprocess.CompletedProcess[str]:
    """`flicker query` of it."""
    command = [sys.executable, "-m", "simulator", "query", "--address", up.address, *arguments]
    environment = os.environ | {"COLUMNS": "200"}
    return subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True, timeout=20)


def test_a_replica_and_a_router_of_two_are_killed_no_query_fails_and_ctrl_c_ends_it(tmp_path: Path) -> None:
    with running(tmp_path, "--routers", "2", "--rate", "60", "--load-page") as up:
        first, second = up.address, f"127.0.0.1:{up.port + 1}"
        until(up.answers, "users ask", PATIENCE)
        every_address_is_said(up)
        kill(up, "replica-1")
        until(lambda: query(up, "--all").returncode == 0, "the replica that died holds its duplicate again", PATIENCE)
        compared = query(up, "--user", "7", "--all")
        assert compared.returncode == 0, compared.stderr + up.said()
        for words in ("duplicate 0", "duplicate 1", "generation", "replica-0", "replica-1", "RBO distance", "0@"):
            assert words in compared.stdout, compared.stdout
        asked = query(up, "--user", "7", "--times", "2", "--k", "3", "--arm", "relu")
        assert asked.returncode == 0 and asked.stdout.count("relu") == 2
        refused = query(up, "--arm", "zelu")
        assert refused.returncode == 2 and len(refused.stderr.splitlines()) == 1 and "zelu" in refused.stderr
        until(up.compared, "every arm is compared by every cause", PATIENCE)
        up.address = f"{first},{second}"
        kill(up, "router-0")
        asked = query(up, "--times", "10", "--k", "3", "--arm", "relu")
        assert asked.returncode == 0, asked.stderr + up.said()
        healed = until(lambda: not complaint(first, "", 2.0), "the router that died serves again", PATIENCE)
        assert len({who_answers(address) for address in (first, second)}) == 1, "all choose by the same hash"
        time.sleep(2.0)
        up.process.send_signal(signal.SIGINT)
        assert up.wait(ENDS) == 0, up.said()
        summary = json.loads((up.out / "result.json").read_text())
        assert_summary(summary)
        print(f"serves again {healed:.1f} s after it was started", json.dumps(summary["serving"]))
        print(f"{summary['peak_memory_bytes'] / 2**20:.0f} MiB")


def every_address_is_said(up: Up) -> None:
    """The load's page is there, and so is each of the metrics pages."""
    load = re.search(r"^Load: (http://127\.0\.0\.1:\d+/)", up.said(), re.MULTILINE)
    metrics = dict(re.findall(r"([\w-]+) http://127\.0\.0\.1:(\d+)/metrics", up.said()))
    assert load and list(metrics) == ["trainer", "replica-0", "replica-1", "router-0", "router-1", "load"]
    until(lambda: status(load[1]) == 200, "Locust's page is there", PATIENCE)
    pages = scrape({name: int(port) for name, port in metrics.items()})
    assert all(page.samples for page in pages.values())


def status(address: str, path: str | None = None) -> int:
    """What a GET is answered with; 0 where nobody answers."""
    parts = urlsplit(address)
    connection = http.client.HTTPConnection(parts.netloc, timeout=10)
    try:
        connection.request("GET", f"/?{parts.query}" if path is None else path)
        return connection.getresponse().status
    except OSError:
        return 0
    finally:
        connection.close()


def who_answers(address: str) -> str:
    """The replica that a router sends a certain query to."""
    with grpc.insecure_channel(address) as channel:
        answer = RecommenderStub(channel).Recommend(RecommendRequest(query_id=77, user=7), timeout=5)
    return str(answer.answered_by.replica)


def assert_summary(summary: dict[str, Any]) -> None:
    """Its shape, and that nothing went wrong."""
    assert_documented(summary)
    assert (
        (summary["schema"], summary["kind"]) == (2, "live")
        and 4 < summary["seconds"] < 300
        and summary["peak_memory_bytes"] > 2**28
    )
    assert summary["command"].startswith("flicker up --out ") and tuple(summary["arms"]) == ARMS
    for label, arm in summary["arms"].items():
        for cause in ("swaps", "refresh_swaps"):
            assert_swaps(arm[cause], f"{label}.{cause}")
        for name in ("log_loss", "auc"):
            assert_interval(arm[name], f"{label}.{name}", 0, 2)
        assert summary["serving"]["comparisons"][label] > 10 and 0 <= arm["user_visible_swap_ratio"]["mean"] <= 1
    serving = summary["serving"]
    assert serving["failures"] == 0 and serving["requests"] > 40 and serving["refreshes"] >= 2
    assert 0 < serving["p50"] <= serving["p99"] < 5 and 0 < serving["first_answer"] < PATIENCE
    assert 0 < serving["achieved"] <= 1.5 * serving["offered"]


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGHUP])
def test_a_signal_ends_it_in_order_while_it_still_starts(number: signal.Signals, tmp_path: Path) -> None:
    with running(tmp_path) as up:
        up.wait_for("replica-1")  # it has just been started
        started = time.monotonic()
        up.process.send_signal(number)
        assert up.wait(ENDS) == 0, up.said()
        print(f"ended after {time.monotonic() - started:.1f} s")
        assert_ended_in_order(up)


def test_it_ends_by_itself_when_its_time_is_over(tmp_path: Path) -> None:
    with running(tmp_path, "--for", "10", "--no-load") as up:
        assert up.wait(10 + PATIENCE) == 0, up.said()
        assert 9 < json.loads((up.out / "result.json").read_text())["seconds"] < 10 + ENDS
        assert_ended_in_order(up)


def assert_ended_in_order(up: Up) -> None:
    """It left a summary, and no process complained."""
    assert (up.out / "result.json").exists()
    for log in up.out.glob("*.log"):
        assert "Traceback" not in log.read_text(), log.read_text()


def test_a_setting_that_no_process_can_use_ends_it(tmp_path: Path) -> None:
    with running(tmp_path, "--arms", "zelu") as up:
        assert up.wait(30) == 2, up.said()
        (complaint,) = [line for line in up.said().splitlines() if line.startswith("flicker: ")]
        assert "activation = zelu: one of " in complaint, up.said()
        assert "activation = zelu: one of " in json.loads((up.out / "result.json").read_text())["serving"]["lost"][0]


def test_a_replica_that_keeps_dying_ends_it(tmp_path: Path) -> None:
    with running(tmp_path, "--no-load") as up:
        killed: set[int] = set()
        while up.process.poll() is None:
            for process in up.alive("serving", "replica", "replica-0"):
                if process.pid not in killed:
                    killed.add(process.pid)
                    process.kill()
            time.sleep(0.05)
        assert up.wait(ENDS) == 1
        (complaint,) = [line for line in up.said().splitlines() if line.startswith("flicker: ")]
        assert "replica-0: ended with signal SIGKILL" in complaint and str(up.out / "replica-0.log") in complaint
        assert 2 <= len(killed) <= 6
        assert json.loads((up.out / "result.json").read_text())["serving"]["lost"][0] in complaint


def test_a_killed_store_is_started_again_and_a_trainer_that_keeps_dying_is_not_missed(tmp_path: Path) -> None:
    with running(tmp_path) as up:
        until(up.answers, "users ask", PATIENCE)
        (store,) = stores(up)
        store.kill()
        until(lambda: [p.pid for p in stores(up) if p.pid != store.pid] != [], "the store is back")
        killed: set[int] = set()

        def served_on() -> bool:
            for process in up.alive("-m", "trainer"):
                if process.pid not in killed and up.process.pid != process.pid:
                    killed.add(process.pid)
                    process.kill()
            return "is served on" in up.said()

        until(served_on, "the trainer is given up", PATIENCE)
        time.sleep(2.0)
        asked = query(up, "--user", "7")
        assert asked.returncode == 0, asked.stderr + up.said()
        up.process.send_signal(signal.SIGINT)
        assert up.wait(ENDS) == 1, up.said()
        summary = json.loads((up.out / "result.json").read_text())
        assert summary["serving"]["failures"] == 0 and set(summary["arms"]) == set(ARMS)
        assert (
            len(summary["serving"]["lost"]) == 1
            and "trainer: ended with signal SIGKILL" in summary["serving"]["lost"][0]
        )
