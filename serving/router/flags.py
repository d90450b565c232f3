"""The router's flags; what says where things are has an environment variable too."""

from __future__ import annotations

import os
from dataclasses import dataclass, field
from pathlib import Path
from typing import cast, get_args

from serving.process import ServerFlags
from serving.router.spool import LEAST
from simulator.config import require
from simulator.flags import from_env
from simulator.process import from_environment
from simulator.types import PolicyName


def named_policy() -> PolicyName:
    """FLICKER_POLICY. Raises SettingError where there is none of that name."""
    name, names = from_environment("FLICKER_POLICY", "random"), get_args(PolicyName)
    require(name in names, "FLICKER_POLICY", name, f"one of {', '.join(names)}")
    return cast(PolicyName, name)


def wanted_replicas() -> int | None:
    """FLICKER_REPLICAS, None where it is not set. Raises SettingError where it is no number."""
    return from_environment("FLICKER_REPLICAS", 0) if os.environ.get("FLICKER_REPLICAS") else None


def named_spool() -> Path | None:
    """FLICKER_SPOOL, None where it is not set."""
    return Path(name) if (name := from_environment("FLICKER_SPOOL", "")) else None


@dataclass(frozen=True)
class RouterFlags(ServerFlags):
    """Send each query to a random replica, and show live how much it matters to which.

    Finds the replicas through the store. Takes queries and feedback by gRPC; compares a sampled share of the answers.
    """

    name: str = from_env("FLICKER_NAME", "")
    """Name of this router, no other's (default: FLICKER_NAME, else host and process number)."""
    policy: PolicyName = field(default_factory=named_policy)
    """Who answers a query. random: by hash(seed, query id). round_robin: in turn. sticky: the same replica for a user.
    least_loaded: who has the fewest queries in flight (default: FLICKER_POLICY)."""
    seed: int = from_env("FLICKER_SEED", 0)
    """Seed of all hashes: replica, arm, sample; 0 or more (default: FLICKER_SEED)."""
    shadow: float = from_env("FLICKER_SHADOW", 0.1)
    """Share of the queries that are compared off the user's path, 0 (none) to 1 (default: FLICKER_SHADOW)."""
    replicas: int | None = field(default_factory=wanted_replicas)
    """Replicas that should serve, at least 1: shown beside those that do, so that an alert can tell when some are
    missing (default: FLICKER_REPLICAS; nothing is expected where neither says)."""
    window: float = 60.0
    """Seconds that the live gauges look back, more than 0."""
    comparisons: Path | None = None
    """File that gets a JSON line for each comparison, to repeat it offline; none by default."""
    in_flight: int = 256
    """Queries that wait for an answer at most, 1 to 4,096; more are refused at once with RESOURCE_EXHAUSTED."""
    deadline: float = 5.0
    """Seconds for an answer where the caller allows more or says nothing, more than 0."""
    spool: Path | None = field(default_factory=named_spool)
    """Folder in which feedback waits for a store that is away: it is acknowledged when it is on this disk. Several
    routers may share it, and one that is started again goes on with what it finds. Without one, when the store has it;
    while that is away feedback is refused (default: FLICKER_SPOOL)."""
    spool_bytes: int = 2**26
    """Bytes of feedback in the spool at most, at least 4,194,304; more is refused with UNAVAILABLE. Its files
    may be some megabytes larger."""
    log_capacity: int = 200_000
    """Events in the log that no trainer has learned and saved, at most, before feedback waits; at least 1,000."""

    def __post_init__(self) -> None:
        super().__post_init__()
        require(self.seed >= 0, "seed", self.seed, "0 or more")
        require(0 <= self.shadow <= 1, "shadow", self.shadow, "from 0 to 1")
        require(self.replicas is None or self.replicas >= 1, "replicas", self.replicas, "at least 1")
        require(0 < self.window < float("inf"), "window", self.window, "more than 0 seconds")
        require(1 <= self.in_flight <= 4_096, "in_flight", self.in_flight, "from 1 to 4,096 queries")
        require(0 < self.deadline <= 3_600, "deadline", self.deadline, "more than 0 seconds, at most 3,600")
        require(self.spool_bytes >= LEAST, "spool_bytes", self.spool_bytes, f"at least {LEAST:,} bytes")
        require(self.log_capacity >= 1_000, "log_capacity", self.log_capacity, "at least 1,000 events")
