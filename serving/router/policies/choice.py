"""What a policy may know of a replica, and what it returns."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol


class Choice(Protocol):
    """A replica that can answer."""

    @property
    def name(self) -> str:
        """Unique among replicas."""

    @property
    def in_flight(self) -> int:
        """Queries that it was sent and has not answered."""


class Policy(Protocol):
    """Chooses a replica; may be called from many threads at once."""

    def choose(self, query_id: int, user: int, replicas: Sequence[Choice]) -> int:
        """The place in `replicas`, at least one in the order of their names, of the one that answers this query."""
