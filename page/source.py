"""The state of the running system: one thread polls it, and all viewers of the page are shown the same.

Swaps, accuracy and traffic come from the processes' metrics pages, replicas and generations from the router. Whatever
cannot be read is away, and marked so; what was last known stays on the page, with its age.
"""

from __future__ import annotations

import logging
import math
import socket
import threading
import time
from collections import deque
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from dataclasses import dataclass
from functools import lru_cache
from itertools import accumulate
from urllib.parse import urlsplit

from page.asking import RouterClient
from protos.recommender_pb2 import ReplicaState, World
from simulator.errors import FlickerError
from simulator.live.summary import ratio
from simulator.live.watch import CAUSES, WINDOW, Counters, Page, Sums, Watch, read
from simulator.measures.registry import MEASURES, PERSONALISATION
from simulator.result import Arm
from simulator.security.credentials import PLAIN, Credentials
from simulator.types import Interval, exact

log = logging.getLogger(__name__)

ACTIVE_INTERVAL, IDLE_INTERVAL = 1.0, 5.0
"""Seconds between two polls while somebody has the page open, and while nobody has."""
STEP = 5.0
"""Seconds between two points of what is remembered."""
REMEMBERED = 30 * 60.0
"""Seconds that are remembered."""
REPEATED = "again"
"""The cause of all changes between two answers to one user; beside the causes of live comparisons."""
LOAD_COUNTERS = {"slot": ("changed_slots", "slots"), "slate": ("changed", "repeats")}
"""Measure -> the load's counters of its numerator and denominator."""
RESULT_NAMES = {(cause, name): f"{called}.{name}" for cause, called in CAUSES.items() for name in MEASURES}
RESULT_NAMES |= {(REPEATED, "slot"): "user_visible_slot_ratio", (REPEATED, "slate"): "user_visible_swap_ratio"}
"""(cause, measure) -> its name in results."""
MAX_USER_PAIRS = 60
"""Pairs of users per arm that personalisation is measured on, the newest."""
DESCRIBE_EVERY = 30
"""Polls between two requests for the served world: it may be another run's."""
KINDS = {
    "trainer": "flicker_events_learned_total",
    "load": "flicker_load_users",
    "replica": "flicker_batch_size_count",
    "router": "flicker_shadow_backlog",
}
"""Kind of process -> a sample that only its metrics page has: `flicker shadow` compares as a router does."""


@dataclass(frozen=True, eq=False)
class Moment:
    """Counts at a moment."""

    at: float
    """Unix time."""
    sums: Sums
    """Of comparisons by routers, and under the cause REPEATED of the load's repeated queries, since the first poll."""
    answered: float
    """Queries, so far."""
    failed: float
    latency: dict[float, float]
    """Upper end of a bucket, in seconds -> queries that took no longer, so far."""
    p99: float
    """Seconds, as users saw it; NaN where the load does not say."""


EMPTY_MOMENT = Moment(0.0, {}, 0.0, 0.0, {}, math.nan)
"""Before the first poll."""


@dataclass(frozen=True)
class ProcessState:
    """A process by its metrics page."""

    url: str
    kind: str
    """One of KINDS; empty where it has never answered."""
    answers: bool


class LiveSource:
    """All that the page shows of a running system."""

    def __init__(self, router: RouterClient | None, urls: Sequence[str], credentials: Credentials = PLAIN) -> None:
        self.router, self._urls, self._credentials = router, urls, credentials
        self.watch = Watch({})
        self.moments: deque[Moment] = deque()
        """STEP apart, as far back as REMEMBERED; the last one is the newest poll."""
        self.replicas: list[ReplicaState] = []
        """From the router's last answer."""
        self.world: World | None = None
        """The served world; None while nothing is published, or the router does not answer."""
        self.refreshes: deque[tuple[float, int]] = deque()
        """Unix time at which a generation was first seen to be published, and its number."""
        self.processes: list[ProcessState] = []
        self.problem = ""
        """Why the router does not answer; empty while it does."""
        self.heard = 0.0
        """Unix time of the last poll that a router answered; 0: never."""
        self.looks = 0
        """Number of polls."""
        self._kinds: dict[str, str] = {}
        self._load_counters = Counters()
        """The load's."""
        self._measured: tuple[int, dict[str, Arm]] = 0, {}
        """The number of the poll, and the measures by arm."""
        self._user_pairs: dict[str, deque[tuple[float, float]]] = {}
        self._viewers: set[str] = set()
        self._wake, self._stop = threading.Event(), threading.Event()
        self._pool = ThreadPoolExecutor(8, "scrape")
        self._thread = threading.Thread(target=self._loop, name="look", daemon=True)

    def start(self) -> None:
        """Begin to poll."""
        self._thread.start()

    def stop(self) -> None:
        """Stop polling."""
        self._stop.set()
        self._wake.set()
        self._pool.shutdown(wait=False, cancel_futures=True)

    def add_viewer(self, viewer: str) -> None:
        """Somebody has opened the page."""
        self._viewers.add(viewer)
        self._wake.set()

    def remove_viewer(self, viewer: str) -> None:
        """Somebody has closed it."""
        self._viewers.discard(viewer)

    def arms(self) -> list[str]:
        """In the run's order, as far as it is known: ratios refer to the first."""
        positions = {
            dict(labels)["arm"]: place
            for page in (self.watch.trainer, *self.watch.routers.values())
            for (name, labels), place in page.samples.items()
            if name == "flicker_arm_position"
        }
        compared = {arm for moment in [*self.moments][-1:] for arm, *_ in moment.sums}
        return sorted(compared | positions.keys(), key=lambda arm: (positions.get(arm, math.inf), arm))

    def measured(self, arm: str) -> Arm:
        """The last minute's measures of an arm, named as in results; unknown ones are left out."""
        if self._measured[0] != self.looks:
            self._measured = self.looks, {}
        arms = self._measured[1]
        if arm not in arms:
            arms[arm] = Arm(arm, dict(self._measures(arm)))
        return arms[arm]

    def _measures(self, arm: str) -> Iterator[tuple[str, Interval]]:
        first, *later = self.window() or [EMPTY_MOMENT]
        for (cause, measure), name in RESULT_NAMES.items():
            key = arm, cause, measure
            start = first.sums.get(key, (0.0, 0.0))
            sums = [moment.sums.get(key, (0.0, 0.0)) for moment in later]
            blocks = [{key: (numerator - start[0], denominator - start[1])} for numerator, denominator in sums]
            if blocks and (estimate := ratio(blocks, (arm, cause), MEASURES[measure])):
                yield name, estimate
        for name in ("progressive_log_loss", "progressive_auc", "calibration"):
            value = self.watch.trainer.value(f"flicker_{name}", arm=arm)
            if not math.isnan(value):
                yield name.removeprefix("progressive_"), exact(value)
        pairs = self._user_pairs.get(arm, ())
        totals = accumulate(pairs, lambda total, sums: (total[0] + sums[0], total[1] + sums[1]))
        blocks = [{(arm, PERSONALISATION, "pair"): sums} for sums in totals]
        if blocks and (estimate := ratio(blocks, (arm, PERSONALISATION), MEASURES["pair"])):
            yield PERSONALISATION, estimate

    def served(self) -> list[int]:
        """Generations that the healthy replicas serve."""
        return [one.generation for one in self.replicas if one.healthy and one.HasField("generation")]

    def window(self) -> list[Moment]:
        """The moments of the last WINDOW seconds, and the one before them."""
        moments = [*self.moments]
        start = next((n for n, moment in enumerate(moments) if moment.at >= moments[-1].at - WINDOW), 0)
        return moments[max(0, start - 1) :]

    def trend(self, arm: str, cause: str, measure: str) -> list[tuple[float, float]]:
        """Unix time and the measure over the WINDOW before it, where something was compared."""
        moments, key, points, start = [*self.moments], (arm, cause, measure), list[tuple[float, float]](), 0
        for end, moment in enumerate(moments):
            while moments[start].at < moment.at - WINDOW - STEP / 2:
                start += 1
            latest, earliest = (one.sums.get(key, (0.0, 0.0)) for one in (moment, moments[start]))
            if end > start and latest[1] > earliest[1]:
                points.append((moment.at, (latest[0] - earliest[0]) / (latest[1] - earliest[1])))
        return points

    def rate(self) -> tuple[float, float]:
        """Queries answered per second of the last minute, and the share that failed; NaN where nobody asked."""
        window = self.window()
        if len(window) < 2:
            return math.nan, math.nan
        first, last = window[0], window[-1]
        answered, failed = last.answered - first.answered, last.failed - first.failed
        share = failed / (answered + failed) if answered + failed else math.nan
        return answered / (last.at - first.at), share

    def latency(self, share: float) -> float:
        """A quantile of the time to an answer, in seconds: of the last moments as users saw it where the load says,
        else of the last minute at the router, to within a bucket; NaN where nobody asked."""
        value = self.watch.load.value("flicker_load_latency_seconds", quantile=str(share))
        window = self.window()
        if not math.isnan(value) or len(window) < 2:
            return value
        first, last = window[0].latency, window[-1].latency
        counts = {end: count - first.get(end, 0.0) for end, count in sorted(last.items())}
        target = share * max(counts.values(), default=0.0)
        return next((end for end, count in counts.items() if target and count >= target), math.nan)

    def _loop(self) -> None:
        while not self._stop.is_set():
            self._wake.clear()
            try:
                self._poll()
            except Exception:  # the page goes on; the next look may succeed
                log.exception("a look at the system failed")
            self._wake.wait(ACTIVE_INTERVAL if self._viewers else IDLE_INTERVAL)

    def _poll(self) -> None:
        """Read all metrics pages and the router, once."""
        # an address is in no certificate: each process bears the name that all of its kind are found by
        step = int(time.time() / STEP)
        names = {address: urlsplit(url).hostname or "" for url in self._urls for address in addresses(url, step)}

        def read_page(url: str, name: str) -> Page:
            return read(urlsplit(url).netloc, credentials=self._credentials, name=name)

        pages = dict(zip(names, self._pool.map(read_page, names, names.values()), strict=True))
        for url, page in pages.items():
            kind = next((kind for kind, sample in KINDS.items() if any(sample == name for name, _ in page.samples)), "")
            self._kinds[url] = kind or self._kinds.get(url, "")
        self.processes = [ProcessState(url, self._kinds[url], bool(page.samples)) for url, page in pages.items()]
        by_role = {f"router {url}": page for url, page in pages.items() if self._kinds[url] == "router"}
        by_role |= {kind: page for url, page in pages.items() if (kind := self._kinds[url]) == "load"}
        # of several trainers that which feeds the world; of what is published all say the same
        trainers = [page for url, page in pages.items() if self._kinds[url] == "trainer" and page.samples]
        feeding = "flicker_world_ended", "flicker_feeder_events_total"
        trainer = max(trainers, key=lambda page: [page.value(name) for name in feeding], default=Page())
        self.watch.take({"trainer": trainer} | by_role)
        self._load_counters.add({"load": self.watch.load})
        self._remember()
        self._poll_router()
        answers = not self.problem if self.router else any(page.samples for page in self.watch.routers.values())
        self.heard = time.time() if answers else self.heard
        self.looks += 1

    def _remember(self) -> None:
        router, now = self.watch.router, time.time()
        answered = router.total("flicker_router_queries_total", code="OK")
        buckets: dict[float, float] = {}
        for (name, labels), count in router.samples.items():
            if name == "flicker_router_query_seconds_bucket":
                end = float(dict(labels)["le"])
                buckets[end] = buckets.get(end, 0.0) + count
        failed = router.total("flicker_router_queries_total") - answered
        p99 = self.watch.load.value("flicker_load_latency_seconds", quantile="0.99")
        if len(self.moments) > 1 and self.moments[-1].at - self.moments[-2].at < STEP - 0.5:
            self.moments.pop()  # the newest look stands for those since the last step
        sums = self.watch.recent[-1][1] | self._repeat_sums()
        self.moments.append(Moment(now, sums, answered, failed, buckets, p99))
        while self.moments[0].at < now - REMEMBERED:
            self.moments.popleft()
        generation = self.watch.trainer.value("flicker_generation")
        if math.isnan(generation):
            generation = self.watch.lowest("flicker_router_generation")
        if generation > 0 and (not self.refreshes or generation != self.refreshes[-1][1]):
            self.refreshes.append((now, int(generation)))
        while self.refreshes and self.refreshes[0][0] < now - REMEMBERED and len(self.refreshes) > 1:
            self.refreshes.popleft()

    def _repeat_sums(self) -> Sums:
        """Sums of the load's repeated queries."""
        load = self._load_counters.page
        return {
            (arm, REPEATED, measure): (
                load.total(f"flicker_user_{numerator}_total", arm=arm),
                load.total(f"flicker_user_{denominator}_total", arm=arm),
            )
            for arm in load.labels("flicker_user_repeats_total", "arm")
            for measure, (numerator, denominator) in LOAD_COUNTERS.items()
        }

    def _poll_router(self) -> None:
        if self.router is None:
            return
        try:
            self.replicas = self.router.replicas()
            self.problem = ""
        except FlickerError as problem:
            self.problem, self.world = str(problem), None
            return
        if self.world is None or self.looks % DESCRIBE_EVERY == 0:
            with suppress(FlickerError):  # nothing is published yet
                self.world = self.router.world("")
        if self.world is None:
            return
        if self._viewers and self.world.users > 1 and self.world.arms:
            arm = self.world.arms[self.looks % len(self.world.arms)]
            sums = self._user_pairs.setdefault(arm, deque(maxlen=MAX_USER_PAIRS))
            with suppress(FlickerError):  # no replica serves just now
                sums.append(self.router.user_pair(arm, self.world.users))


@lru_cache(maxsize=256)
def addresses(url: str, period: int) -> tuple[str, ...]:
    """The address itself, or one for each machine that its name stands for; looked up anew at each `period`."""
    parts = urlsplit(url)
    host, port = parts.hostname or "", parts.port
    try:
        hosts = {entry[4][0] for entry in socket.getaddrinfo(host, port, socket.AF_INET, socket.SOCK_STREAM)}
    except OSError:
        return (url,)
    names = sorted(map(str, hosts)) if len(hosts) > 1 else [host]
    return tuple(parts._replace(netloc=f"{name}:{port}" if port else name).geturl() for name in names)
