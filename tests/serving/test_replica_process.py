"""`python -m serving replica` as a process, on a real store."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import grpc
import pytest

from protos.recommender_pb2 import RankRequest, RankResponse, RecommendRequest, RecommendResponse
from serving.__main__ import main
from simulator.process import run
from simulator.store.redis import RedisStore
from simulator.store.server import StoreServer, start_server
from tests.serving.generations import about_of, parts_of, publish_generation, stack_of
from tests.serving.replica_under_test import RANK, wait_for

ROOT = Path(__file__).parents[2]
COMMAND = [sys.executable, "-m", "serving"]


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[StoreServer]:
    with start_server(tmp_path_factory.mktemp("store")) as started:
        yield started


@contextmanager
def started(url: str, run: str) -> Iterator[tuple[subprocess.Popen[str], dict[str, Any]]]:
    """A replica, and the line it prints when it is ready."""
    environment = os.environ | {"FLICKER_REDIS_URL": url, "FLICKER_RUN": run}
    process = subprocess.Popen(
        [*COMMAND, "replica", "--name", "r1"], cwd=ROOT, env=environment, stdout=subprocess.PIPE, text=True
    )
    try:
        assert process.stdout is not None
        yield process, json.loads(process.stdout.readline())
    finally:
        process.kill()
        process.wait()
        process.stdout.close()


def test_a_replica_from_start_to_end(server: StoreServer) -> None:
    store = RedisStore(server.url, run="whole", capacity=1_000)
    with started(server.url, "whole") as (process, line), grpc.insecure_channel(line["address"]) as channel:
        assert (line["ready"], line["name"]) == ("replica", "r1")

        def ask() -> RankResponse:
            query = RecommendRequest(user=3, arm="relu").SerializeToString()
            return RankResponse.FromString(
                channel.unary_unary(RANK)(RankRequest(queries=[query]).SerializeToString(), timeout=10)
            )

        with pytest.raises(grpc.RpcError, match="no generation is published yet"):
            ask()
        publish_generation(store, 0)
        wait_for(lambda: [(m.name, m.address, m.generation) for m in store.members()] == [("r1", line["address"], 0)])
        before = RecommendResponse.FromString(ask().answers[0])

        stack = stack_of(1)
        publish_damaged(store, parts_of(stack, 1, store.run), about_of(stack, 1))
        wait_for(lambda: 'flicker_snapshots_refused_total{reason="digest"} 1.0' in page(line["metrics"]))
        assert RecommendResponse.FromString(ask().answers[0]) == before

        publish_generation(store, 2)
        wait_for(lambda: RecommendResponse.FromString(ask().answers[0]).answered_by.generation == 2)
        end = time.monotonic() + 5
        process.send_signal(signal.SIGTERM)
        assert process.wait(10) == 0 and time.monotonic() < end
        assert store.members() == []
    store.close()


def publish_damaged(store: RedisStore, parts: dict[str, bytes], about: dict[str, Any]) -> None:
    """Publish generation 1 with one bit of a weight flipped on its way into the store."""
    put = store._parts.put

    def flipped(name: str, data: bytes) -> None:
        middle = len(data) // 2
        damaged = data[:middle] + bytes([data[middle] ^ 1]) + data[middle + 1 :]
        put(name, damaged if "duplicate" in name else data)

    store._parts.put = flipped  # type: ignore[method-assign, assignment]
    try:
        store.publish(1, parts, about)
    finally:
        store._parts.put = put  # type: ignore[method-assign]


def page(address: str) -> str:
    with urllib.request.urlopen(f"http://{address}/metrics", timeout=10) as answer:
        return str(answer.read().decode())


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["replica", "--store", ""], "store = nothing: name one with --store, or in FLICKER_REDIS_URL"),
        (["replica", "--store", "http://x"], "store = http://x: a URL such as redis://"),
        (["replica", "--port", "-1"], "port = -1: from 0 to 65535"),
        (["replica", "--queue", "0"], "queue = 0: at least 1 query"),
        (["replica", "--queue", "many"], "many"),
    ],
)
def test_a_bad_setting_is_one_line(
    arguments: list[str], words: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    for name in [name for name in os.environ if name.startswith("FLICKER_")]:
        monkeypatch.delenv(name)
    monkeypatch.setattr("sys.argv", ["serving", *arguments])
    before = signal.getsignal(signal.SIGTERM)
    try:
        with pytest.raises(SystemExit) as ended:
            run("serving", main)
    finally:
        signal.signal(signal.SIGTERM, before)
    assert ended.value.code == 2
    said = capsys.readouterr()
    assert said.out == "" and said.err.count("\n") == 1 and words in said.err


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["replika"], "process = replika: replica, router, shadow, query or health"),
        (
            ["replica", "--host", "no.such.host.invalid", "--store", "redis://127.0.0.1:1/0"],
            "host:port = no.such.host.invalid:0: ",
        ),
    ],
)
def test_a_process_with_a_bad_setting_ends_with_one_line(arguments: list[str], words: str) -> None:
    environment = {name: value for name, value in os.environ.items() if not name.startswith("FLICKER_")}
    ended = subprocess.run([*COMMAND, *arguments], cwd=ROOT, env=environment, capture_output=True, text=True)
    assert ended.returncode == 2 and ended.stdout == ""
    assert words in ended.stderr.splitlines()[-1]
    assert len([line for line in ended.stderr.splitlines() if not line[:1].isdigit()]) == 1, ended.stderr
