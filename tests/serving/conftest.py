"""What the tests of serving share."""

from __future__ import annotations

import sys

import pytest

from serving.proxy.mirror import Backlog


@pytest.fixture(autouse=True)
def comparisons_wait_for_no_company(monkeypatch: pytest.MonkeyPatch) -> None:
    """Half a second for every sample would be most of the time of these tests."""
    monkeypatch.setattr(sys.modules[Backlog.__module__], "LINGER", 0.02)
