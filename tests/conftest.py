"""What several test packages share."""

from __future__ import annotations

import os
from pathlib import Path

import hypothesis
import pytest

from tests.terminal import Terminal

if workers := os.environ.get("PYTEST_XDIST_WORKER_COUNT"):  # each has its share of the cores, and so has what it starts
    os.environ.setdefault("OMP_NUM_THREADS", str(max(1, (os.cpu_count() or 1) // int(workers))))

hypothesis.settings.register_profile("untimed", deadline=None)  # a busy machine is no fault
hypothesis.settings.load_profile("untimed")

ROOT = Path(__file__).parents[1]


@pytest.hookimpl(optionalhook=True)  # where there is no xdist
def pytest_xdist_auto_num_workers() -> int:
    """Of `make test`: one more than there are cores, since every third test waits for some process."""
    return min(8, 1 + (os.cpu_count() or 1))


@pytest.fixture(scope="session", autouse=True)
def _cache_of_logs(tmp_path_factory: pytest.TempPathFactory) -> None:
    """Of these tests alone, and of the processes that they start."""
    os.environ["FLICKER_CACHE"] = str(tmp_path_factory.mktemp("cache"))


@pytest.fixture(scope="session")
def movietweetings() -> Path:
    """The real log, in the folder named by FLICKER_DATA or ../shared/data; tests skip where there is none."""
    folder = Path(os.environ.get("FLICKER_DATA", ROOT.parent / "shared" / "data")) / "movietweetings-100k"
    if not folder.is_dir():
        pytest.skip(f"no real log at {folder}; set FLICKER_DATA to the folder that holds movietweetings-100k")
    return folder


@pytest.fixture
def flicker(monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]) -> Terminal:
    """The command line."""
    return Terminal(monkeypatch, capfd)
