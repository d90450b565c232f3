"""These tests run inside the compose network, in the service `checks` of docker-compose.yml: `make test-containers`.

Anywhere else there is nothing for them to ask, and they are not collected.
"""

from __future__ import annotations

import os
from collections.abc import Callable

import pytest

_secure = os.environ.get("FLICKER_CHECKS") == "secure"
collect_ignore_glob = (["test_secure.py"] if not _secure else []) if "FLICKER_CHECKS" in os.environ else ["test_*.py"]
_figures = pytest.StashKey[list[str]]()


@pytest.fixture
def note(request: pytest.FixtureRequest) -> Callable[[str], None]:
    """Takes lines that are shown at the end."""
    return request.config.stash.setdefault(_figures, []).append


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter, config: pytest.Config) -> None:
    """Figures for the README."""
    for line in config.stash.get(_figures, []):
        terminalreporter.write_line(line)
