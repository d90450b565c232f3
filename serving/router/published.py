"""What the router knows from the store: the newest generation's catalogue, and who serves.

Shapes: U users, I items, Su and Si slots of users and items.
"""

from __future__ import annotations

import contextlib
import logging
import threading
import zlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from grpc import StatusCode

from protos.recommender_pb2 import (
    ContextField,
    DescribeRequest,
    DescribeResponse,
    Description,
    FeedbackRequest,
    RecommendRequest,
    World,
)
from serving.codec import MAX_CANDIDATES, SHOWN, Ranges, Refusal, bad, schema_of
from serving.metrics import RouterMetrics
from serving.router.pool import Pool
from simulator.process import Stopped
from simulator.store.arrays import Mislabelled, Texts, arrays_of, label, unpack
from simulator.store.protocol import KEPT, Registry, Store, StoreAway, StoreError, UnknownGeneration, Unsigned
from simulator.types import Names
from simulator.world.features import Encoder

log = logging.getLogger(__name__)

EVERY = 0.5
"""Seconds between two looks at the store, and between two questions for a replica's health."""
SOON = 0.01
"""Seconds between two looks for the end of something that takes a moment."""
REASONS: dict[type[Exception], str] = {
    Unsigned: "signature", StoreError: "digest", Mislabelled: "label", Exception: "about"
}  # fmt: skip
"""Why a generation cannot be used; the first that fits counts."""
MAX_MATCHES, MAX_VALUES = 20, 100
"""Users that a search brings, and values of a context field that are listed."""
NOBODY = 1 << 31
"""User numbers from here on are those of ids that the log has not."""


@dataclass(frozen=True)
class Published:
    """The newest generation, without its weights."""

    generation: int
    ranges: Ranges
    """What the values of a query may be; also the arms, in order."""
    encoder: Encoder
    """Features of what was shown."""
    learns_feedback: bool
    """Whether trainers learn from users' clicks; on a replayed log all events come from the log."""
    digest: str
    """Of the names; empty on a made-up world."""
    names: Names

    @staticmethod
    def fetch(store: Registry, generation: int, before: Published | None = None) -> Published:
        """Names are taken from `before` where they are the same, as in all generations of a run.

        Raises StoreError where the generation is damaged or gone, StoreAway.
        """
        about = store.about(generation)
        tables = arrays_of(store.fetch(generation, "catalog"), label(store.run, generation, "catalog"))
        encoder = Encoder(schema_of(about), tables["user_rows"], tables["item_rows"])
        ranges = Ranges.of(about, len(encoder.user_rows), len(encoder.item_rows))
        digest = str(about.get("names", ""))
        if before and before.digest == digest:
            names = before.names
        else:
            names = unpack(store.shared(digest)) if digest else Names()
        return Published(generation, ranges, encoder, about["world"] == "synthetic", digest, names)

    def user(self, asked: RecommendRequest | FeedbackRequest) -> int:
        """The number of a user by the log's own id, or by a number; at least NOBODY, always the same, where it is
        neither."""
        if not (id := asked.user_id):
            return asked.user
        number = number_of(self.names.users, id)
        return NOBODY | zlib.crc32(id.encode()) if number is None else number

    def describe(self, request: DescribeRequest) -> DescribeResponse:
        """Recommender.Describe. Raises Refusal for a value out of range."""
        names, ranges = self.names, self.ranges
        for field, numbers, limit in (("items", request.items, ranges.items), ("users", request.users, ranges.users)):
            if len(numbers) > MAX_CANDIDATES:
                raise bad(field, f"{len(numbers)} numbers", f"at most {MAX_CANDIDATES:,}")
            if numbers and max(numbers) >= limit:
                raise bad(field, max(numbers), f"0 to {limit - 1}")
        items = [Description(id=names.item(item), title=names.title(item)) for item in request.items]
        users = [names.user(user) for user in request.users]
        world = self._world(request.find) if request.HasField("find") else None
        return DescribeResponse(items=items, users=users, context=self._context(request.context), world=world)

    def _world(self, start: str) -> World:
        """What may be asked, and users whose ids begin so."""
        names, ranges = self.names, self.ranges
        ids = names.users
        matches = ids.beginning(start, MAX_MATCHES) if isinstance(ids, Texts) else beginning(start, ranges.users)
        context = [
            ContextField(name=name, vocabulary=vocabulary, values=names.context.get(name, ())[:MAX_VALUES])
            for name, vocabulary, *_ in ranges.context
        ]
        return World(
            users=ranges.users,
            items=ranges.items,
            duplicates=ranges.duplicates,
            arms=ranges.arms,
            context=context,
            found=matches,
        )

    def _context(self, values: Sequence[str]) -> list[int]:
        """Numbers of values of the context, one per field or none. Raises Refusal."""
        if values:
            self.ranges.context_rows([0] * len(values))  # as many as there are fields
        numbers = []
        for text, (name, vocabulary, *_) in zip(values, self.ranges.context, strict=False):
            known = self.names.context.get(name, ())
            number = number_of(known, text)
            if number is None or number >= vocabulary:
                hint = f", or a value such as {known[0]!r:.{SHOWN}}" if known else ""
                raise bad("context", repr(text), f"0 to {vocabulary - 1} for {name}{hint}")
            numbers.append(number)
        return numbers


def number_of(texts: Sequence[str], text: str) -> int | None:
    """The place of a text among others, else the number that it is below NOBODY; None where it is neither."""
    with contextlib.suppress(ValueError):
        return texts.index(text)
    return int(text) if text.isdecimal() and len(text) <= 10 and int(text) < NOBODY else None


def beginning(start: str, count: int) -> list[str]:
    """The first numbers below `count` whose digits begin so, by rising bytes: 7, 70, 700, 701 ..."""
    waiting, matches = [start] if start else list("9876543210"), list[str]()
    while waiting and len(matches) < MAX_MATCHES:
        text = waiting.pop()
        if text.isdecimal() and (text == "0" or text[0] != "0") and len(text) <= 10 and int(text) < count:
            matches.append(text)
            waiting += [text + digit for digit in "9876543210"] if text != "0" else []
    return matches


class Watch:
    """Looks at the store every EVERY seconds, in a thread of its own: a store that is away blocks nobody."""

    def __init__(
        self, store: Store, pool: Pool, metrics: RouterMetrics, stop: threading.Event, changed: Callable[[], None]
    ) -> None:
        """`changed` is told when the first generation is there."""
        self._store, self._pool, self._metrics, self._stop, self._changed = store, pool, metrics, stop, changed
        self.published: Published | None = None
        self._newest = -1
        self.store_up = True
        """Whether the last look at the store succeeded."""
        self._looked = threading.Event()
        self._threads = [
            threading.Thread(target=self._loop, args=(action,), name=name, daemon=True)
            for name, action in (("watch the store", self._look), ("check replicas", pool.check))
        ]

    def current(self) -> Published:
        """What is published. Raises Refusal where nothing is known to be."""
        if self.published is None:
            why = "the trainer has not cut its first generation" if self.store_up else "the store is away"
            raise Refusal(StatusCode.UNAVAILABLE, f"nothing is published yet: {why}; try again later")
        return self.published

    def start(self) -> None:
        """Begin to look."""
        for thread in self._threads:
            thread.start()

    def wait_for_a_look(self) -> None:
        """Wait until it is known what is published, and of each replica that the store knows whether it is healthy.

        Raises Stopped where the stop flag is raised before.
        """
        while not (self._looked.is_set() and all(replica.checked for replica in self._pool.known())):
            if self._stop.wait(SOON):
                raise Stopped

    def join(self, seconds: float) -> None:
        """Wait for the threads to end after the stop flag was raised."""
        for thread in self._threads:
            thread.join(seconds)

    def _loop(self, action: Callable[[], None]) -> None:
        while not self._stop.is_set():
            try:
                action()
            except Exception:  # queries are answered as long as anybody can; the next look may succeed
                log.exception("a look at the system failed")
            self._stop.wait(EVERY)

    def _look(self) -> None:
        try:
            self._pool.announce(self._store.members())
            newest = self._store.newest()
            if newest not in (-1, self._newest):
                # with nothing known, one of the older generations is better than none
                older = range(newest - 1, max(-1, newest - KEPT), -1) if self.published is None else ()
                any(map(self._take, (newest, *older)))
                self._newest = newest
            self._say(True)
            self._looked.set()
        except StoreAway as problem:
            self._metrics.store_failed(problem)
            self._say(False, str(problem))
        except StoreError as problem:
            log.error("%s", problem)

    def _take(self, number: int) -> bool:
        """Whether a generation can be used. Raises StoreAway."""
        try:
            self.published = Published.fetch(self._store, number, self.published)
        except StoreAway:
            raise
        except (StoreError, KeyError, TypeError, ValueError) as problem:
            log.error("generation %d cannot be used: %s", number, problem)
            if not isinstance(problem, UnknownGeneration):  # that one is gone
                self._metrics.refused.labels(REASONS[next(kind for kind in REASONS if isinstance(problem, kind))]).inc()
            return False
        self._metrics.generation.set(number)
        self._changed()
        return True

    def _say(self, up: bool, why: str = "") -> None:
        if up != self.store_up:
            log.warning("the store is %s", "back" if up else f"away: {why}")
        self.store_up = up
        self._metrics.store_up.set(up)
