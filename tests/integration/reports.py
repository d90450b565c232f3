"""Users who report what they clicked at a steady rate, again until it is taken, and know what must be learned once."""

from __future__ import annotations

import threading
import time
from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from types import TracebackType

import grpc
import numpy as np

from protos.recommender_pb2 import FeedbackRequest, ShownItem
from protos.recommender_pb2_grpc import RecommenderStub
from simulator.store.protocol import Store

RATE = 50.0
"""Reports per second."""
USERS, ITEMS = 500, 10
FIRST = 1_000_000_000.0
"""Time of the first report; each is a second later, so that its events can be told from all others."""
GROUP = "counts"


class Reports:
    """Open-loop while the block lasts; behind it every report is taken. One in ten is sent again all the same."""

    def __init__(self, address: str, client: str) -> None:
        self._address, self._client = address, client[-64:]  # so many characters may a client's name have
        self._stop = threading.Event()
        self._lock = threading.Lock()
        self.taken: set[int] = set()
        self.sent = 0
        self.codes: Counter[str] = Counter()
        """Of all calls."""
        self._thread = threading.Thread(target=self._run, name="reports")

    def __enter__(self) -> Reports:
        self._thread.start()
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        self._stop.set()
        self._thread.join()

    def _run(self) -> None:
        started = time.monotonic()
        with grpc.insecure_channel(self._address) as channel, ThreadPoolExecutor(64) as pool:
            stub = RecommenderStub(channel)
            while not self._stop.wait(max(0.0, started + self.sent / RATE - time.monotonic())):
                pool.submit(self._report, stub, self.sent)
                self.sent += 1

    def _report(self, stub: RecommenderStub, number: int) -> None:
        shown = [ShownItem(item=item, clicked=item == 3) for item in range(ITEMS)]
        request = FeedbackRequest(
            query_id=number + 1, user=number % USERS, shown=shown, time=FIRST + number, client=self._client
        )
        for attempt in range(300):
            code = "OK"
            try:
                stub.Feedback(request, timeout=2.0)
            except grpc.RpcError as problem:
                assert isinstance(problem, grpc.Call)
                code = problem.code().name
            with self._lock:
                self.codes[code] += 1
                if code == "OK":
                    self.taken.add(number)
            if code == "OK" and (attempt or number % 10):
                return
            time.sleep(0.2)


def count(store: Store, start: str) -> Counter[int]:
    """Report -> its events that are in the log behind a position."""
    after, found = start, Counter[int]()
    while entries := store.read(GROUP, after, 50_000, 0.0):
        times = np.concatenate([entry.batch.time for entry in entries])
        found.update((times[times >= FIRST] - FIRST).astype(int).tolist())
        after = entries[-1].id
    return found
