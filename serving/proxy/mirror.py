"""Off the users' path: a sampled share of the requests is asked again of a second server, and both answers compared.

A request is chosen by a hash of its bytes, and not read before the first server's answer to it is there. What the
second does is counted and hurts nobody: its calls have a connection, a limit and a deadline of their own, its answers
may be so much larger than the first one's and no more, and nothing of what it says gets to a user.

With `--keep FOLDER`, FOLDER/first and FOLDER/second hold both sides' scores as prediction logs for `flicker compare`:
CSV files of the same names, each a part of some seconds that appears as a whole. So both may be read at any time, and a
process that is killed loses the last seconds at most. A started one goes on beside what is there. Nothing but text is
written: pyarrow is needed to read, not here.

Shapes: B queries of a request, N items of each; Q queries of several requests with as many items.
"""

from __future__ import annotations

import contextlib
import itertools
import logging
import threading
import time
import zlib
from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
from google.protobuf.message import DecodeError, Message
from numpy.typing import NDArray

from protos.inference_pb2 import DESCRIPTOR, ModelInferRequest, ModelInferResponse
from serving.codec import Refusal
from serving.comparison import TOGETHER, Backlog, Sample
from serving.metrics import ShadowMetrics
from serving.proxy.flags import ShadowFlags
from serving.proxy.tensors import UnusableError, ids_of, is_sequence, items_of, numbers_of, scores_of
from serving.rpc import begin_call, end_call
from simulator.files import as_csv, write_atomically, writing
from simulator.measures.registry import MEASURES, Answers, compare, measured
from simulator.measures.swaps import positions
from simulator.predictions.read import log_odds
from simulator.types import Doubles, Ints, order

log = logging.getLogger(__name__)
Parsed = TypeVar("Parsed", bound=Message)
SERVICE = DESCRIPTOR.services_by_name["GRPCInferenceService"].full_name
INFER = f"/{SERVICE}/ModelInfer"
RANGE, HASHED = 1 << 32, 1 << 15
"""Of the hash; and how many bytes of each end of a request go into it, so that a large one takes no longer."""
SECOND_BYTES, LARGER, AND = 4 << 20, 4, 1 << 16
"""Bytes of an answer of the second server at most, whatever it is; it is read where it has no more than so many times
the first one's, and so many more."""
PATIENCE = 5.0
"""Seconds for what is at work when the proxy ends."""
SIDES = "first", "second"
PART_SECONDS, PART_ROWS = 5.0, 20_000
"""A part ends after so long, or with so many rows of each side."""
Row = tuple[object, ...]


class Kept:
    """The folder, until it holds as much as it may."""

    def __init__(self, folder: Path, limit: int, probabilities: bool) -> None:
        """`limit` bytes of all files; `probabilities`: scores are some, and are said to be.

        Raises ResultError where the folder cannot be written.
        """
        self._folder, self._max_bytes, self._probabilities = folder, limit, probabilities
        self._rows: tuple[list[Row], list[Row]] = [], []
        self._since = 0.0
        with writing("keep", folder):
            for side in SIDES:
                (folder / side).mkdir(parents=True, exist_ok=True)
            self._bytes = sum(file.stat().st_size for file in folder.glob("*/*.csv"))
        # numbers of queries rise from one process to the next: none makes a million of them in a second
        self._numbers = itertools.count(time.time_ns() // 1_000)

    def add(self, ids: Sequence[str], items: NDArray[Any], scores: tuple[Doubles, Doubles]) -> None:
        """Queries [B], as the asker calls them, with items [B, N] and both sides' scores [B, N]."""
        if self._bytes > self._max_bytes:
            return
        self._since = self._since or time.monotonic()
        for query, own in enumerate(ids):
            number, names = next(self._numbers), items[query].tolist()
            for rows, side in zip(self._rows, scores, strict=True):
                values = side[query].tolist()
                columns = (values, values) if self._probabilities else (values,)
                rows += [(number, name, *row, own) for name, *row in zip(names, *columns, strict=True)]
        if len(self._rows[0]) >= PART_ROWS:
            self.end_part()

    def end_part(self, after: float = 0.0) -> None:
        """Write what was added, where the first of it is so many seconds old. What cannot be written ends the keeping,
        not the proxy."""
        if not self._since or time.monotonic() - self._since < after:
            return
        head = ("q_id", "doc_id", "score", *(["probability"] if self._probabilities else []), "request")
        files = [self._folder / side / f"{self._rows[0][0][0]}.csv" for side in SIDES]
        try:
            for file, rows in zip(files, self._rows, strict=True):
                content = as_csv([head, *rows]).encode()
                write_atomically(file, content)
                self._bytes += len(content)
        except OSError as problem:
            with contextlib.suppress(OSError):
                files[0].unlink(missing_ok=True)  # one side alone is no comparison
            log.error("keep = %s: %s: nothing is kept from now on", self._folder, problem.strerror or problem)
            self._max_bytes = -1
        else:
            if self._bytes > self._max_bytes:
                words = "keep = %s: full (--keep-bytes %d): nothing is kept from now on"
                log.warning(words, self._folder, self._max_bytes)
        self._rows, self._since = ([], []), 0.0


@dataclass(eq=False)
class Asked:
    """A request on its way to the second server."""

    arm: str
    ids: list[str]
    """[B]"""
    items: NDArray[Any]
    """[B, N] as they came."""
    numbers: Ints
    """[B, N]"""
    scores: Doubles
    """[B, N] the first server's."""
    again: bytes
    """The request as the second server gets it."""
    max_bytes: int
    """Bytes of the second answer."""


class Mirror(Backlog):
    """Samples, asks and compares, in one thread of its own."""

    def __init__(self, flags: ShadowFlags, recorder: ShadowMetrics) -> None:
        """Raises ResultError for a folder that cannot be written."""
        super().__init__(recorder, round(flags.sample * RANGE))
        self._flags = flags
        self._kept = Kept(flags.keep, flags.keep_bytes, flags.scores_are == "probabilities") if flags.keep else None
        self._second = flags.connect(flags.second or flags.first, SECOND_BYTES)
        self._measured = measured(flags.scores_are != "scores")
        self._counted = [name in self._measured for name in MEASURES]
        self._renamed = renamed(flags.second_model, flags.second_version)
        self._closed, self._asking = False, threading.Lock()
        self._told: set[str] = set()

    def close(self) -> None:
        """Wait for no answer any more, and write what was kept."""
        with self._asking:
            self._closed = True
        self._second.close()
        self.finish(PATIENCE)
        if self._kept:
            self._kept.end_part()

    def samples(self, request: bytes) -> bool:
        """Whether a request is chosen, to be offered with its answer: the same bytes always, or never."""
        if not self._below:
            return False
        ends = request if len(request) <= 2 * HASHED else request[:HASHED] + request[-HASHED:]
        return zlib.crc32(ends, self._flags.seed) < self._below

    def work(self, samples: list[Sample]) -> None:
        """See Backlog."""
        asked = [query for sample in samples if (query := self._read(*sample))]
        compared: dict[tuple[str, int], list[tuple[Asked, Doubles]]] = defaultdict(list)
        for start in range(0, len(asked), size := self._flags.second_in_flight):
            together = asked[start : start + size]
            for one, call in zip(together, self._ask(together), strict=False):
                scores = self._scores(one, call)
                if scores is not None:
                    compared[one.arm, scores.shape[1]].append((one, scores))
        for (arm, _), group in compared.items():
            self._compare(arm, group)
        if self._kept:
            self._kept.end_part(after=PART_SECONDS)

    def _read(self, raw: bytes, answer: bytes) -> Asked | None:
        """What the second server is to be asked, unless the request must not be asked twice or cannot be compared."""
        flags = self._flags
        try:
            request = parsed(ModelInferRequest, raw)
            if flags.only_model not in ("", request.model_name):
                return None
            if is_sequence(request):
                raise UnusableError("sequence", "requests of a sequence are not asked twice")
            scores = scores_of(parsed(ModelInferResponse, answer), flags.scores, flags.scores_are)
            items = items_of(request, flags.items, scores.shape)
            ids = ids_of(request, flags.query_id_from, len(scores))
            numbers = numbers_of(items)
        except UnusableError as problem:
            self._fail("first", problem)
            return None
        arm, max_bytes = flags.arm or request.model_name, LARGER * len(answer) + AND
        return Asked(arm, ids, items, numbers, scores, raw + self._renamed, max_bytes)

    def _ask(self, together: Sequence[Asked]) -> list[Any]:
        """The calls of the second server; none at the end."""
        seconds = self._flags.second_deadline
        with self._asking:
            return [] if self._closed else [begin_call(self._second, INFER, one.again, seconds) for one in together]

    def _scores(self, asked: Asked, call: Any) -> Doubles | None:
        """The second server's scores [B, N], once they are there; None where it gave none of this shape."""
        try:
            answer = end_call(call)
            if len(answer) > asked.max_bytes:
                raise UnusableError("too_large", f"{len(answer):,} bytes: at most {asked.max_bytes:,} are read")
            scores = scores_of(parsed(ModelInferResponse, answer), self._flags.scores, self._flags.scores_are)
            if scores.shape != asked.scores.shape:
                raise UnusableError("shape", f"scores {list(scores.shape)}: the first has {list(asked.scores.shape)}")
        except Refusal as problem:
            self._fail("second", UnusableError(problem.code.name, problem.message))
        except UnusableError as problem:
            self._fail("second", problem)
        else:
            return scores
        return None

    def _fail(self, side: str, problem: UnusableError) -> None:
        """Count it; the log says the first of a kind in full. What the end of the proxy cancels is no failure."""
        if self._closed:
            return
        reason = problem.reason if problem.reason.isupper() else f"{side}_{problem.reason}"
        self._recorder.fail(self._flags.cause, reason)
        if reason not in self._told:
            self._told.add(reason)
            log.warning("not compared (%s, said once): %.300s", reason, " ".join(str(problem).split()))

    def _compare(self, arm: str, group: Sequence[tuple[Asked, Doubles]]) -> None:
        """Requests of one model with as many items, and the second server's scores: count what differs, keep them."""
        flags, kept = self._flags, self._kept
        numbers = np.concatenate([one.numbers for one, _ in group])  # [Q, N]
        sides = np.concatenate([one.scores for one, _ in group]), np.concatenate([scores for _, scores in group])
        sums, size = np.zeros((len(MEASURES), 2)), max(1, TOGETHER // numbers.shape[1])
        for start in range(0, len(numbers), size):
            part = slice(start, start + size)
            first, second = (ranked(scores[part], numbers[part], flags) for scores in sides)
            sums[self._counted] += compare(first, second, self._measured).sum(axis=-1)
        self._recorder.record(arm, flags.cause, sums)
        if kept:
            for one, scores in group:
                kept.add(one.ids, one.items, (one.scores, scores))


def renamed(model: str, version: str) -> bytes:
    """What is appended to a request, so that it asks for another model or version: of a field that comes twice, the
    last counts. The version of one model says nothing about another's."""
    unversioned = b"\x12\x00" if model and not version else b""
    return ModelInferRequest(model_name=model, model_version=version).SerializeToString() + unversioned


def ranked(scores: Any, items: Ints, flags: ShadowFlags) -> Answers:
    """One server's answers to queries with scores and items [Q, N]; equal scores by item."""
    best = order(scores, items)
    slates = np.take_along_axis(items, best[:, : flags.k], axis=-1)
    logits: Any = log_odds(scores) if flags.scores_are == "probabilities" else scores
    return Answers(slates, items, logits, positions(best))


def parsed(kind: type[Parsed], raw: bytes) -> Parsed:
    """A message. Raises UnusableError: `message`."""
    try:
        return kind.FromString(raw)
    except DecodeError:
        raise UnusableError("message", f"{len(raw)} bytes are no {kind.DESCRIPTOR.name}") from None
