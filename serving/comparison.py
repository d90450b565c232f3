"""Comparisons off the users' path: samples wait for a thread of their own, and no user for them.

How much two answers to one query differ the registry's measures say, live as offline, of many pairs at a time.
"""

from __future__ import annotations

import contextlib
import logging
import queue
import threading
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from protos.recommender_pb2 import PackedResponse
from serving.codec import scored_of
from serving.metrics import ShadowMetrics
from simulator.measures.registry import MEASURES, Answers, compare
from simulator.types import Doubles, Floats, Ints

log = logging.getLogger(__name__)
Sample = tuple[bytes, bytes]
"""A request and the answer to it."""
BACKLOG, HELD = 1_024, 64 << 20
"""Samples that wait, and their bytes, at most; what is more is dropped."""
AT_ONCE = 256
"""Samples that are asked and compared together, at most: they share RPCs, what a call of NumPy costs, and the turns
that threads take."""
LINGER = 0.5
"""Seconds for others to join a sample: nobody waits for its comparison."""
TOGETHER = 102_400
"""Candidates whose scores are worked on at once: a bound on memory. Fewer take more calls of NumPy."""


class Backlog:
    """Samples, and the thread that works on them; nothing at all where none is chosen."""

    def __init__(self, recorder: ShadowMetrics, below: int) -> None:
        """`below`: the hash of a sample is; 0 for none."""
        self._recorder, self._below = recorder, below
        self._queue: queue.SimpleQueue[Sample] = queue.SimpleQueue()
        self._held, self._lock = 0, threading.Lock()
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._run, name="compare", daemon=True)

    def start(self) -> None:
        """Begin to work."""
        if self._below:
            self._thread.start()

    def offer(self, request: bytes, answer: bytes) -> None:
        """A sample; one for which there is no room is counted. Never waits, never fails."""
        size = len(request) + len(answer)
        with self._lock:
            full = self._queue.qsize() >= BACKLOG or self._held + size > HELD
            self._held += 0 if full else size
        if full:
            self._recorder.dropped.inc()
        else:
            self._queue.put((request, answer))

    def finish(self, seconds: float) -> None:
        """Stop after what is at work, which takes so long at most."""
        self._stop.set()
        if self._thread.is_alive():
            self._thread.join(seconds)

    def work(self, samples: list[Sample]) -> None:
        """Several times a second, some samples, perhaps none; what it raises is logged."""
        raise NotImplementedError

    def _run(self) -> None:
        while not self._stop.is_set():
            try:
                self.work(self._drain())
            except Exception:  # the live view must not end because of one answer
                log.exception("comparisons failed")

    def _drain(self) -> list[Sample]:
        """What waits, after a moment for the first and one for others; perhaps nothing."""
        samples: list[Sample] = []
        with contextlib.suppress(queue.Empty):
            samples.append(self._queue.get(timeout=0.2))
            if self._queue.qsize() < AT_ONCE:
                self._stop.wait(LINGER)
            while len(samples) < AT_ONCE:
                samples.append(self._queue.get_nowait())
        with self._lock:
            self._held -= sum(len(request) + len(answer) for request, answer in samples)
        self._recorder.backlog.set(self._queue.qsize())
        return samples


@dataclass(frozen=True)
class Answer:
    """One model's answer, with the scores of all candidates where it was asked for them."""

    slate: Ints
    """[K] item numbers, best first."""
    items: Ints
    """[N] candidates, distinct, in any order; empty where scores were not asked for."""
    scores: Floats
    """[N] their log-odds."""

    @staticmethod
    def of(response: PackedResponse) -> Answer:
        """What a replica answered."""
        return Answer(np.array([place.item for place in response.slate], np.int64), *scored_of(response))


def compare_pairs(pairs: Sequence[tuple[Answer, Answer]]) -> Doubles:
    """[P, measures, 2] as `registry.compare`, of pairs of answers to one query each; every slate has at least one item.

    Slates of two lengths are compared as far as the shorter one reaches; candidates are those that both scored: all of
    them within one generation. Pairs of one shape are compared together: what a call of NumPy costs is then shared.
    """
    shared = [_shared(first, second) for first, second in pairs]
    groups: dict[tuple[int, int], list[int]] = {}
    for number, ((first, second), (items, *_)) in enumerate(zip(pairs, shared, strict=True)):
        groups.setdefault((min(len(first.slate), len(second.slate)), len(items)), []).append(number)
    differences = np.empty((len(pairs), len(MEASURES), 2))
    for (k, n), group in groups.items():
        size = max(1, TOGETHER // max(1, n))
        for part in (group[start : start + size] for start in range(0, len(group), size)):
            items = np.stack([shared[number][0] for number in part])
            one, two = (
                Answers(
                    np.stack([pairs[number][side].slate[:k] for number in part]),
                    items,
                    np.stack([shared[number][1 + side] for number in part]),
                )
                for side in (0, 1)
            )
            differences[part] = np.moveaxis(compare(one, two), -1, 0)
    return differences


def _shared(first: Answer, second: Answer) -> tuple[Ints, Floats, Floats]:
    """The candidates [N] that both scored, with each model's scores [N]."""
    if first.items is second.items or np.array_equal(first.items, second.items):
        return first.items, first.scores, second.scores
    items, one, two = np.intersect1d(first.items, second.items, assume_unique=True, return_indices=True)
    return items, first.scores[one], second.scores[two]
