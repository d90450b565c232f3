"""What live processes share."""

from __future__ import annotations

import signal
import subprocess
import sys
import threading
import types
from pathlib import Path

import pytest

from simulator import process
from simulator.errors import FlickerError, SettingError
from simulator.process import ENDING, Stopped, repeat, require_ours, retry, run, stop_on_signals


class Pauses(threading.Event):
    """Notes how long it is waited for, and waits for nothing."""

    def __init__(self, until: int) -> None:
        """Is raised in pause number `until`."""
        super().__init__()
        self.pauses: list[float] = []
        self._until = until

    def wait(self, timeout: float | None = None) -> bool:
        self.pauses.append(timeout or 0.0)
        return len(self.pauses) >= self._until


def test_pauses_double_up_to_the_longest_and_start_again() -> None:
    stop, failures = Pauses(until=9), iter([*[True] * 7, False, True])

    def action() -> None:
        if next(failures, True):
            raise KeyError

    repeat(action, KeyError, stop, lambda problem: None)
    assert stop.pauses == [0.1, 0.2, 0.4, 0.8, 1.6, 2.0, 2.0, 0.1, 0.2]


def test_retrying_until_it_works() -> None:
    failures = iter([KeyError("one"), KeyError("two")])
    told: list[Exception] = []

    def action() -> str:
        for failure in failures:
            raise failure
        return "done"

    assert retry(action, KeyError, Pauses(until=100), told.append) == "done"
    assert [problem.args[0] for problem in told] == ["one", "two"]


def test_retrying_ends_with_the_flag_and_with_other_errors() -> None:
    stop = Pauses(until=3)

    def action() -> None:
        raise KeyError

    with pytest.raises(Stopped):
        retry(action, KeyError, stop, lambda problem: None)
    assert len(stop.pauses) == 3
    with pytest.raises(KeyError):
        retry(action, (ValueError, OSError), stop, lambda problem: None)


@pytest.mark.parametrize("number", sorted(ENDING))
def test_signals_raise_the_flag(number: signal.Signals) -> None:
    before = {n: signal.getsignal(n) for n in ENDING}
    try:
        flag = stop_on_signals()
        assert not flag.is_set()
        signal.raise_signal(number)
        assert flag.wait(10)
    finally:
        for n, handler in before.items():
            signal.signal(n, handler)


def test_a_process_under_nohup_outlives_its_terminal() -> None:
    before = {n: signal.getsignal(n) for n in ENDING}
    try:
        signal.signal(signal.SIGHUP, signal.SIG_IGN)
        flag = stop_on_signals()
        signal.raise_signal(signal.SIGHUP)
        assert not flag.wait(0.1)
    finally:
        for n, handler in before.items():
            signal.signal(n, handler)


SIGNALLED = """
import os, signal, threading
from simulator.process import stop_on_signals
for _ in range(30):
    flag = stop_on_signals()
    threading.Timer(0.002, os.kill, (os.getpid(), signal.SIGTERM)).start()
    while not flag.wait(0):
        pass
"""


STARTING = """
import os, signal, threading, time
from simulator.process import end_on_sigterm
end_on_sigterm()
threading.Timer(0.1, os.kill, (os.getpid(), signal.SIGTERM)).start()
try:
    while True:
        time.sleep(0.01)
except BaseException:
    os._exit(3)
"""


def test_before_a_process_has_anything_to_end_sigterm_ends_it_at_once() -> None:
    assert subprocess.run([sys.executable, "-c", STARTING], cwd=Path(__file__).parents[1], timeout=60).returncode == 0


def test_a_signal_in_the_middle_of_waiting_for_the_flag_ends_the_wait() -> None:
    process = subprocess.Popen([sys.executable, "-c", SIGNALLED], cwd=Path(__file__).parents[1])
    try:
        assert process.wait(20) == 0
    finally:
        process.kill()


def test_whole_numbers_from_the_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("FLICKER_X", raising=False)
    assert process.from_environment("FLICKER_X", 7) == 7
    monkeypatch.setenv("FLICKER_X", "12")
    assert process.from_environment("FLICKER_X", 7) == 12
    monkeypatch.setenv("FLICKER_X", "many")
    with pytest.raises(SettingError, match="FLICKER_X = many: a whole number"):
        process.from_environment("FLICKER_X", 7)


def test_numbers_from_the_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("FLICKER_X", "")
    assert process.from_environment("FLICKER_X", 0.1) == 0.1
    monkeypatch.setenv("FLICKER_X", "0.25")
    assert process.from_environment("FLICKER_X", 0.1) == 0.25
    monkeypatch.setenv("FLICKER_X", "much")
    with pytest.raises(SettingError, match="FLICKER_X = much: a number"):
        process.from_environment("FLICKER_X", 0.1)


def test_another_package_of_the_same_name_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    require_ours("trainer")
    (tmp_path / "trainer").mkdir()
    (tmp_path / "trainer" / "__init__.py").touch()
    for name in [name for name in sys.modules if name.partition(".")[0] == "trainer"]:
        monkeypatch.delitem(sys.modules, name)
    monkeypatch.syspath_prepend(str(tmp_path))
    with pytest.raises(FlickerError, match=r"package trainer = .*trainer/__init__.py: not the one beside simulator"):
        require_ours("trainer")
    with pytest.raises(FlickerError, match="package no_such_package = nowhere"):
        require_ours("no_such_package")


def test_what_the_user_can_mend_is_one_line_and_all_else_is_a_bug(capsys: pytest.CaptureFixture[str]) -> None:
    def fail(problem: Exception) -> types.FunctionType:
        def main(arguments: list[str]) -> None:
            raise problem

        return main  # type: ignore[return-value]

    with pytest.raises(SystemExit) as ended:
        run("store", fail(SettingError("k", 0, "at least\n1")))
    assert ended.value.code == 2
    assert capsys.readouterr().err == "store: k = 0: at least 1\n"
    with pytest.raises(ZeroDivisionError):
        run("store", fail(ZeroDivisionError()))
