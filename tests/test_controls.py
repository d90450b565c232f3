"""The live page's orders: who may send them, what is refused in a line, and what they do to real processes."""

from __future__ import annotations

import json
import os
import socket
import stat
import sys
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from simulator.errors import FlickerError, SettingError
from simulator.flags import parse
from simulator.live.controls import MAX_ORDER_BYTES, Controls, Order, done
from simulator.live.flags import UpFlags
from simulator.live.orders import Operator
from simulator.live.processes import RESTARTS, Child, LivePlan, plan
from simulator.process import free_ports
from simulator.result import read_result
from tests.integration.system import until


class Client:
    """A connection to the socket."""

    def __init__(self, path: Path) -> None:
        self._socket = socket.socket(socket.AF_UNIX)
        self._socket.settimeout(20)
        self._socket.connect(str(path))
        self._file = self._socket.makefile("rwb")

    def __enter__(self) -> Client:
        return self

    def __exit__(self, *_: object) -> None:
        self._file.close()
        self._socket.close()

    def send(self, line: bytes) -> Any:
        """What is answered to a line; None where the connection is closed instead."""
        try:
            self._file.write(line + b"\n")
            self._file.flush()
            answer = self._file.readline()
        except ConnectionError:
            return None
        return json.loads(answer) if answer else None

    def order(self, do: str, **more: object) -> Any:
        return self.send(json.dumps({"do": do, **more}).encode())


HELD = threading.Event()


def wait(order: Order) -> dict[str, Any]:
    HELD.wait(20)
    return done("waited")


def refuse(order: Order) -> dict[str, Any]:
    raise SettingError("name", "a\nb", "two lines")


def fail(order: Order) -> dict[str, Any]:
    raise KeyError("a bug of ours")


@pytest.fixture
def controls() -> Iterator[Controls]:
    HELD.clear()
    made = Controls({"say": lambda order: done(str(order["word"])), "wait": wait, "refuse": refuse, "fail": fail})
    yield made
    HELD.set()
    made.close()


def test_this_user_alone_may_enter_and_nothing_is_left() -> None:
    controls = Controls({})
    folder = controls.path.parent
    assert stat.S_IMODE(folder.stat().st_mode) == 0o700 and folder.stat().st_uid == os.getuid()
    controls.close()
    assert not folder.exists()


def test_orders_are_answered_in_turn(controls: Controls) -> None:
    with Client(controls.path) as client:
        assert [client.order("say", word=word)["say"] for word in ("one", "two")] == ["one", "two"]


@pytest.mark.parametrize(
    ("line", "said"),
    [
        (b"", "order = not JSON"),
        (b"\xff\xfe", "order = not JSON"),
        (b"[" * 30_000, "order = not JSON"),
        (b"7", "order = not an object"),
        (b'{"do": 7}', "order = not an object"),
        (b'{"do": "format"}', "do = format: one of say, wait, refuse, fail"),
        (b'{"do": "refuse"}', "name = a b: two lines"),
        (b'{"do": "fail"}', "it did not work"),
        (b'{"do": "say"}', "it did not work"),
    ],
)
def test_what_cannot_be_done_is_said_in_a_line(controls: Controls, line: bytes, said: str) -> None:
    with Client(controls.path) as client:
        answer = client.send(line)
        assert answer["ok"] is False and answer["say"].startswith(said) and len(answer["say"].splitlines()) == 1
        assert client.order("say", word="still there") == {"ok": True, "say": "still there"}


def test_a_line_without_an_end_is_not_read_on(controls: Controls) -> None:
    with Client(controls.path) as client:
        assert client.send(b"7" * MAX_ORDER_BYTES) is None


def test_one_that_waits_holds_up_no_other(controls: Controls) -> None:
    with Client(controls.path) as slow, Client(controls.path) as quick:
        answers: list[Any] = []
        waiting = threading.Thread(target=lambda: answers.append(slow.order("wait")))
        waiting.start()
        assert quick.order("say", word="quick")["ok"] and not answers
        HELD.set()
        waiting.join(20)
        assert answers == [{"ok": True, "say": "waited"}]


def test_a_folder_whose_name_is_too_long_for_a_socket(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    long = tmp_path / ("x" * 120)
    long.mkdir()
    monkeypatch.setattr("tempfile.tempdir", str(long))
    with pytest.raises(SettingError, match="TMPDIR = "):
        Controls({})
    assert list(long.iterdir()) == []


def flags(*arguments: str) -> UpFlags:
    return parse(UpFlags, "flicker up", ["--replicas", "2", *arguments])


def operator(out: Path, *arguments: str) -> Operator:
    """Of a plan of which nothing runs."""
    asked = flags(*arguments)
    return Operator(asked, plan(asked, "redis://127.0.0.1:1/0", out), out)


def obey(one: Operator, do: str, **more: object) -> dict[str, Any]:
    return one.orders[do]({"do": do, **more})


def test_the_state_names_every_process_and_what_can_be_done(tmp_path: Path) -> None:
    one = operator(tmp_path, "--rate", "20", "--port", "7000")
    state = obey(one, "state")
    assert [about["name"] for about in state["processes"]] == ["trainer", "replica-0", "replica-1", "router-0", "load"]
    assert all(about["pid"] is None and about["alive"] is False for about in state["processes"])
    assert state["processes"][3]["address"] == "127.0.0.1:7000"
    assert len({about["metrics"] for about in state["processes"]}) == 5
    assert state["rate"] == 20 and set(state["can"]) == {"kill", "rate", "refresh", "experiment"}
    silent = obey(operator(tmp_path, "--no-load"), "state")
    assert silent["rate"] is None and "rate" not in silent["can"]
    json.dumps(state, allow_nan=False)


def test_a_rate_is_written_where_the_load_looks(tmp_path: Path) -> None:
    one = operator(tmp_path, "--rate", "20")
    before = json.loads((tmp_path / "load-settings.json").read_text())
    assert "80 queries per second" in obey(one, "rate", queries=80)["say"]
    assert json.loads((tmp_path / "load-settings.json").read_text()) == before | {"rate": 80}
    assert obey(one, "state")["rate"] == 80
    for queries in (0, -1, 1e9, float("nan"), float("inf"), "80", None, True, [80]):
        with pytest.raises(SettingError, match=r"^queries = .*: from 0.1 to 5,000 queries per second$"):
            obey(one, "rate", queries=queries)
    assert obey(one, "state")["rate"] == 80


def sleeper(tmp_path: Path, name: str) -> Child:
    return Child(name, [sys.executable, "-c", "import time; time.sleep(60)"], tmp_path / f"{name}.log")


def test_what_is_killed_on_purpose_is_started_again_however_often(tmp_path: Path) -> None:
    victim, load = sleeper(tmp_path, "replica-0"), sleeper(tmp_path, "load")
    made = LivePlan([victim], [load], {"replica-0": 1, "load": 2}, "", tmp_path / "load.json")
    one = Operator(flags(), made, tmp_path)
    victim.start()
    try:
        seen = set()
        for _ in range(RESTARTS + 2):
            assert victim.process is not None
            process = victim.process
            seen.add(process.pid)
            assert obey(one, "kill", name="replica-0")["ok"]
            process.wait(10)
            assert victim.watch() is None and not victim.ended()
        assert len(seen) == RESTARTS + 2 and victim.deaths == []
        for name in ("load", "store", "", None, 7, ["replica-0"], "../replica-0"):
            with pytest.raises(SettingError, match="one of replica-0"):
                obey(one, "kill", name=name)
    finally:
        victim.stop(5)
    with pytest.raises(SettingError, match="name = replica-0: it is not running"):
        obey(one, "kill", name="replica-0")
    assert not victim.struck, "a later death of its own counts"


def test_a_refresh_needs_a_trainer_that_is_up(tmp_path: Path) -> None:
    one = operator(tmp_path)
    with pytest.raises(FlickerError, match="the trainer is not up"):
        obey(one, "refresh")
    trainer = sleeper(tmp_path, "trainer")  # not yet: its page does not answer, and SIGUSR1 would end it
    starting = Operator(flags(), LivePlan([trainer], [], {"trainer": free_ports(1)[0]}, "", tmp_path), tmp_path)
    trainer.start()
    try:
        with pytest.raises(FlickerError, match="the trainer is not up"):
            obey(starting, "refresh")
        assert not trainer.ended()
    finally:
        trainer.stop(5)


@pytest.mark.parametrize(
    ("order", "said"),
    [
        ({"events": 10}, "events = 10: from 5,000 to 1,000,000 events"),
        ({"events": "many"}, "events = many: "),
        ({"arms": "relu"}, "arms = relu: a list"),
        ({"arms": ["relu", "--out", "elsewhere"]}, "arms = .*: a list"),
        ({"arms": ["relu", 7]}, "arms = .*: a list"),
        ({"arms": ["relu", "torch:os:system"]}, "arms = os:system: name it in --arms of `flicker up`"),
        ({"arms": ["relu", "zelu"]}, "experiment-1 has ended: activation = zelu: one of "),
    ],
)
def test_an_experiment_that_cannot_be(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, order: dict[str, object], said: str
) -> None:
    monkeypatch.setattr("simulator.live.orders.SETTINGS_SECONDS", 300.0)  # a busy machine takes long to load torch
    one = operator(tmp_path)
    try:
        with pytest.raises(FlickerError, match=f"^{said}"):
            obey(one, "experiment", **order)
    finally:
        one.stop()


def test_an_experiment_is_a_run_of_its_own_and_one_at_a_time(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """It outlives the thread that its order came in, as each does with its client."""
    monkeypatch.setattr("simulator.live.orders.SETTINGS_SECONDS", 300.0)
    one = operator(tmp_path, "--preset", "smoke", "--hidden", "16", "8", "--dim", "4", "--batch", "64", "--window", "4")
    out, answers = tmp_path / "experiment-1", list[dict[str, Any]]()
    try:
        ordering = threading.Thread(
            target=lambda: answers.append(obey(one, "experiment", events=6_000, arms=["relu", "gelu"]))
        )
        ordering.start()
        ordering.join(300)
        assert answers[0]["ok"] and str(out) in answers[0]["say"]
        with pytest.raises(SettingError, match="experiment = experiment-1: still runs"):
            obey(one, "experiment")
        assert obey(one, "state")["experiments"] == [{"name": "experiment-1", "running": True}]
        until(lambda: not obey(one, "state")["experiments"][0]["running"], "it has come to its end", 300)
    finally:
        one.stop()
    found = read_result(out)
    assert found.config["world"]["events"] == 6_000 and [arm.spec for arm in found.arms] == ["relu", "gelu"]
    assert found.config["duplicates"] == 3, "as of `flicker up`"
