"""The cache of logs: what is read again and what is not, two processes at once, killed ones, limits, full disks."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from simulator.config import ReplayConfig
from simulator.errors import ResultError, SettingError
from simulator.world import clicklog, coding
from simulator.world.clicklog import ClickLog
from simulator.world.open import open_log
from tests.world.logs import MORE, assert_is, rows_of, same, written

ROOT = Path(__file__).parents[2]
OPEN = """
import resource, sys, time
from pathlib import Path
from simulator.config import ReplayConfig
from simulator.errors import FlickerError
from simulator.world import coding, open
run = coding.Coding.run
def counted(*arguments):
    print("reading", flush=True)
    time.sleep(float(sys.argv[2]))
    run(*arguments)
coding.Coding.run = counted
if len(sys.argv) > 3: resource.setrlimit(resource.RLIMIT_FSIZE, (int(sys.argv[3]),) * 2)
try: print(len(open.open_log(ReplayConfig(Path(sys.argv[1])))))
except FlickerError as error: print(error)
"""
"""A process that opens a log, says so when it reads it, and takes its time."""


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Of the clicklog."""
    monkeypatch.setenv(clicklog.CACHE, str(tmp_path / "cache"))
    return tmp_path / "cache"


@pytest.fixture
def readings(monkeypatch: pytest.MonkeyPatch) -> list[Path]:
    """The folders that logs were read into."""
    found: list[Path] = []
    run = coding.Coding.run

    def counted(self: coding.Coding, *arguments: object) -> None:
        found.append(self._writer.folder)
        run(self, *arguments)  # type: ignore[arg-type]

    monkeypatch.setattr(coding.Coding, "run", counted)
    return found


def process(path: Path, seconds: float, *more: str) -> subprocess.Popen[str]:
    command = [sys.executable, "-c", OPEN, str(path), str(seconds), *more]
    return subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)


def opened(path: Path, **settings: object) -> ClickLog:
    return open_log(ReplayConfig(path, **settings))  # type: ignore[arg-type]


def logs(folder: Path) -> set[str]:
    return {path.name for path in folder.iterdir() if path.is_dir()}


def test_a_log_is_read_once_and_again_when_anything_is_another(
    tmp_path: Path, folder: Path, readings: list[Path]
) -> None:
    rows = rows_of(300)
    path = written(tmp_path / "a", rows)
    first = opened(path)
    assert same(first, opened(path)) and len(readings) == 1
    path.rename(path.with_name("other.toml"))
    assert opened(path.with_name("other.toml")).name == "other" and len(readings) == 1  # what it means counts
    path = written(tmp_path / "a", rows_of(300, seed=1))
    assert not same(first, opened(path)) and len(readings) == 2
    assert_is(first, rows)  # what is mapped stays
    opened(written(tmp_path / "a", rows_of(300, seed=1), MORE.replace("history = 5", "history = 6")))
    opened(path, limit=200)
    opened(path, bad_rows="skip")
    assert len(readings) == 5 == len(logs(folder))


def test_an_archive_that_lost_something_is_made_anew(tmp_path: Path, folder: Path, readings: list[Path]) -> None:
    rows = rows_of(300)
    path = written(tmp_path / "a", rows)
    opened(path)
    (name,) = logs(folder)
    for damage in ("time.npy", "log.json"):
        file = folder / name / damage
        os.truncate(file, file.stat().st_size - 8)
        assert_is(opened(path), rows)
    (folder / name / "user.npy").unlink()
    assert_is(opened(path), rows)
    assert len(readings) == 4


def test_of_two_processes_one_reads_and_the_other_waits(tmp_path: Path, folder: Path) -> None:
    path = written(tmp_path / "a", rows_of(300))
    both = [process(path, 1), process(path, 1)]
    told = [one.communicate(timeout=60) for one in both]
    assert sorted(out for out, _ in told) == ["300\n", "reading\n300\n"], told
    assert all(("another process" in error) == (out == "300\n") for out, error in told), told
    assert len(logs(folder)) == 1


def test_what_a_killed_process_leaves_is_no_log_and_goes(tmp_path: Path, folder: Path, readings: list[Path]) -> None:
    rows = rows_of(300)
    path = written(tmp_path / "a", rows)
    other = process(path, 60)
    assert other.stdout and other.stdout.readline() == "reading\n"
    other.send_signal(signal.SIGKILL)
    other.communicate()
    (left,) = logs(folder)
    assert left.startswith(".")
    assert_is(opened(path), rows)
    assert len(readings) == 1 and logs(folder) == {left.split(".")[1]}


def test_the_logs_that_were_used_longest_ago_go_first(
    tmp_path: Path, folder: Path, readings: list[Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(clicklog, "LOCK_DIGITS", 32)  # else one test in a hundred has two logs that share a lock
    paths = [written(tmp_path / name, rows_of(300, seed=seed)) for seed, name in enumerate("abcd")]
    for path in paths[:3]:
        opened(path)
    names = [made.name.split(".")[1] for made in readings]
    for age, number in enumerate((2, 0, 1)):  # b was used last
        os.utime(folder / names[number], (1e9 + age, 1e9 + age))
    size = sum(file.stat().st_size for file in (folder / names[0]).iterdir())
    monkeypatch.setenv(clicklog.LIMIT, f"{2.9 * size / 1e3:.3f} kB")
    opened(paths[3])
    assert logs(folder) == {names[1], readings[3].name.split(".")[1]}
    monkeypatch.setenv(clicklog.LIMIT, "0")
    with clicklog.locked(folder, names[1]):  # somebody has it in hand
        opened(paths[0])
    assert logs(folder) == {names[1], names[0]}


def test_what_is_no_log_stays_whatever_the_limit(tmp_path: Path, folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    others = ("papers", ".ssh", ".0.1", "0" * 32, f".{'0' * 32}")
    for name in others:
        (folder / name).mkdir(parents=True)
        (folder / name / "key").write_text("mine")
    (folder / f".{'1' * 32}.77").mkdir()  # of a process that was killed
    monkeypatch.setenv(clicklog.LIMIT, "0")
    opened(written(tmp_path / "a", rows_of(300)))
    assert logs(folder) > set(others) and len(logs(folder)) == len(others) + 1


@pytest.mark.parametrize(("told", "size"), [("", 20e9), ("1.5 GB", 1.5e9), ("300mb", 3e8), ("7", 7), ("2k", 2e3)])
def test_a_limit_is_a_size(told: str, size: float, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(clicklog.LIMIT, told)
    assert clicklog.size_limit() == size
    monkeypatch.setenv(clicklog.LIMIT, f"{told} x")
    with pytest.raises(SettingError, match="FLICKER_CACHE_LIMIT = .*x: a size such as 20 GB"):
        clicklog.size_limit()


def test_where_the_cache_is(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.delenv(clicklog.CACHE, raising=False)
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    monkeypatch.setattr("sys.platform", "linux")
    assert clicklog.cache_folder() == tmp_path / "flicker"
    monkeypatch.setenv(clicklog.CACHE, "~/there")
    assert clicklog.cache_folder() == Path.home() / "there"


def test_a_cache_that_cannot_be_written_or_is_full_is_one_line(
    tmp_path: Path, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = written(tmp_path / "a", rows_of(3_000))
    full = process(path, 0, "9000")
    out, error = full.communicate(timeout=60)
    assert out == f"reading\nFLICKER_CACHE = {folder}: File too large: name a folder that can be written\n", error
    assert logs(folder) == set()
    monkeypatch.setenv(clicklog.CACHE, str(path / "inside a file"))
    with pytest.raises(ResultError, match="FLICKER_CACHE = .*: Not a directory: name a folder that can be written"):
        opened(path)


def test_a_log_in_a_cache_that_can_only_be_read_is_opened(
    tmp_path: Path, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    rows = rows_of(300)
    path = written(tmp_path / "a", rows)
    opened(path)

    def refuse(*arguments: object, **options: object) -> None:
        raise OSError(30, "Read-only file system")

    monkeypatch.setattr("os.utime", refuse)
    monkeypatch.setattr(Path, "mkdir", refuse)
    assert_is(opened(path), rows)
    with pytest.raises(ResultError, match="FLICKER_CACHE = .*: Read-only file system"):
        opened(path, limit=200)


def test_reading_back_needs_no_pyarrow(tmp_path: Path, folder: Path, readings: list[Path]) -> None:
    opened(written(tmp_path / "a", rows_of(300)))
    code = f"""
import sys
from pathlib import Path
from simulator.world import open
from simulator.world.clicklog import read_log
log = read_log(Path({str(folder)!r}) / {readings[0].name.split(".")[1]!r})
assert log.items.ids[-1].startswith("i") and list(log.users.ids)[:9] == log.users.ids[:9]
sys.exit("pyarrow" in sys.modules)
"""
    assert subprocess.run([sys.executable, "-c", code], cwd=ROOT).returncode == 0
