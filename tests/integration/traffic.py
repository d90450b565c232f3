"""Users who ask at a steady rate whatever becomes of their queries, and remember every outcome."""

from __future__ import annotations

import threading
import time
from collections import Counter
from dataclasses import dataclass
from types import TracebackType

import grpc

from protos.recommender_pb2 import RecommendRequest, RecommendResponse
from protos.recommender_pb2_grpc import RecommenderStub

RATE = 100.0
"""Queries per second."""
MOST = 500
"""Queries in flight; one beyond it is not asked and counts as failed."""
USERS = 500


@dataclass(frozen=True)
class Outcome:
    """What became of one query."""

    asked: float
    """On the monotonic clock, in seconds."""
    seconds: float
    code: str
    details: str = ""
    replica: str = ""
    generation: int = -1


class Traffic:
    """Open-loop: a query every 1 / RATE seconds while the block lasts; all are answered or failed behind it."""

    def __init__(self, address: str, timeout: float = 5.0) -> None:
        self._channel = grpc.insecure_channel(address)
        self._stub, self._timeout = RecommenderStub(self._channel), timeout
        self._stop, self._changed = threading.Event(), threading.Condition()
        self._in_flight = 0
        self.outcomes: list[Outcome] = []
        self._thread = threading.Thread(target=self._run, name="traffic")

    def __enter__(self) -> Traffic:
        self._thread.start()
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        self._stop.set()
        self._thread.join()
        with self._changed:
            self._changed.wait_for(lambda: not self._in_flight, 2 * self._timeout)
        self._channel.close()

    def _run(self) -> None:
        started, number = time.monotonic(), 0
        while not self._stop.wait(max(0.0, started + number / RATE - time.monotonic())):
            number += 1
            if self._in_flight < MOST:
                self._ask(number)
            else:
                self._note(Outcome(time.monotonic(), 0.0, "NOT ASKED", f"{MOST} queries in flight"))

    def _ask(self, number: int) -> None:
        asked = time.monotonic()
        with self._changed:
            self._in_flight += 1
        future = self._stub.Recommend.future(RecommendRequest(user=number % USERS), timeout=self._timeout)
        future.add_done_callback(lambda done: self._answered(asked, done))

    def _answered(self, asked: float, done: grpc.Future[RecommendResponse]) -> None:
        seconds, problem = time.monotonic() - asked, done.exception()
        if problem is None:
            who = done.result().answered_by
            outcome = Outcome(asked, seconds, "OK", "", who.replica, who.generation)
        else:
            code = problem.code().name if isinstance(problem, grpc.Call) else type(problem).__name__
            outcome = Outcome(asked, seconds, code, str(problem))
        with self._changed:
            self._in_flight -= 1
            self._changed.notify()
        self._note(outcome)

    def _note(self, outcome: Outcome) -> None:
        with self._changed:
            self.outcomes.append(outcome)

    def since(self, moment: float) -> list[Outcome]:
        """What was asked from a moment on (monotonic clock)."""
        with self._changed:
            return [outcome for outcome in self.outcomes if outcome.asked >= moment]

    def assert_none_failed(self, least: int) -> None:
        """At least so many were asked, and every one has its answer."""
        codes = Counter(outcome.code for outcome in self.outcomes)
        failed = [outcome for outcome in self.outcomes if outcome.code != "OK"]
        assert not failed, f"{dict(codes)}: {failed[:3]}"
        assert codes["OK"] >= least, codes

    def slowest(self, moment: float = 0.0) -> float:
        """Seconds of the slowest answer to what was asked from a moment on."""
        return max(outcome.seconds for outcome in self.since(moment))
