"""`flicker up` with two trainers and weights in S3, while trainers are killed and the service is in trouble."""

from __future__ import annotations

import json
import signal
from collections.abc import Iterator
from pathlib import Path

import psutil
import pytest

from simulator.store.protocol import KEPT, Store, UnknownGeneration
from simulator.store.redis import open_store
from simulator.store.server import StoreServer, start_server
from tests.integration.system import until
from tests.integration.test_up import ENDS, PATIENCE, Up, running
from tests.store.s3 import BUCKET, S3, hang_up, refusal

WEIGHTS = f"s3://{BUCKET}/live"
DUPLICATES = 2  # as of the small `flicker up` of these tests


@pytest.fixture
def s3(monkeypatch: pytest.MonkeyPatch) -> Iterator[S3]:
    """A service that this process and all that it starts find by their environment."""
    service = S3()
    for name, value in service.environment.items():
        monkeypatch.setenv(name, value)
    yield service
    service.stop()


class Registry:
    """What is announced, looked at from outside."""

    def __init__(self, server: StoreServer) -> None:
        self.store: Store = open_store(server.url, run="up", weights=WEIGHTS)
        self.seen, self._whole = 0, 0

    def complete(self) -> int:
        """The newest generation, of which every part is there as it was announced."""
        newest = self.store.newest()
        if newest == self._whole:
            return newest
        try:
            for part in ("catalog", *(f"duplicate/{number}" for number in range(DUPLICATES))):
                self.seen += len(self.store.fetch(newest, part)) if newest > 0 else 0
        except UnknownGeneration:  # newer ones came meanwhile
            return self.complete()
        self._whole = newest
        return newest

    def grows(self, by: int = 2) -> None:
        """Return once so many more generations are there, one behind the other."""
        start = self.complete()
        for generation in range(start + 1, start + 1 + by):
            until(lambda least=generation: self.complete() >= least, f"generation {generation}", PATIENCE)  # type: ignore[misc]


def is_another(up: Up, shard: str, dead: psutil.Process) -> bool:
    """Whether the trainer of a shard runs again."""
    return any(one.pid != dead.pid for one in up.alive("trainer", shard))


def test_trainers_and_service_fail_in_turn_and_every_generation_is_complete(s3: S3, tmp_path: Path) -> None:
    server = start_server(tmp_path / "store")
    registry = Registry(server)
    flags = ["--trainers", "2", "--weights", WEIGHTS, "--refresh-events", "1024"]
    try:
        with running(tmp_path, *flags, environment={"FLICKER_REDIS_URL": server.url}) as up:
            until(up.answers, "users ask", PATIENCE)
            registry.grows(1)
            for shard in ("0/2", "1/2"):
                (killed,) = up.alive("trainer", shard)
                killed.kill()
                until(lambda: is_another(up, shard, killed), f"trainer {shard} is started again", PATIENCE)  # noqa: B023
                registry.grows()
            refused, broken = refusal("503 Slow Down", "SlowDown"), hang_up
            for trouble in (refused, broken):
                s3.trouble = {number: trouble for number in range(s3.puts + 1, s3.puts + 8)}
                registry.grows()
            s3.stop()
            until(
                lambda: "are away" in (up.out / "trainer.log").read_text(), "the trainer says that it waits", PATIENCE
            )
            s3.start()
            registry.grows()
            up.process.send_signal(signal.SIGINT)
            assert up.wait(ENDS) == 0, up.said()
        newest = registry.complete()
        kept = {int(name.split("/")[4]) for name in s3.objects() if "/part/" in name}
        assert kept <= set(range(newest - KEPT + 1, newest + 2)), "with what was handed in and not announced"
    finally:
        registry.store.close()
        server.stop()
    summary = json.loads((up.out / "result.json").read_text())
    serving = summary["serving"]
    print(json.dumps(serving), registry.seen, newest)
    assert serving["failures"] == 0 and serving["requests"] > 100
    for log in ("trainer.log", "trainer-1.log", "replica-0.log", "router-0.log"):
        assert "Traceback" not in (up.out / log).read_text()
        assert "s3cret" not in (up.out / log).read_text()
