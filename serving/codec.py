"""From the wire to what can be ranked, and back; whatever is wrong with a query is said as field, value and range.

Shapes: U users, I items, N candidates, K slate length, C context slots.
"""

from __future__ import annotations

import functools
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, TypeVar

import numpy as np
from google.protobuf.message import DecodeError, Message
from grpc import StatusCode

from protos.recommender_pb2 import (
    AnsweredBy,
    Item,
    PackedCandidates,
    PackedResponse,
    RecommendResponse,
    ScoredCandidates,
)
from simulator.types import Field, Floats, Ints, Schema, Slate

DEFAULT_K, MAX_ITEMS = 10, 1_000
"""Length of a slate: unless said, and at most."""
MAX_CANDIDATES = 10_000
"""Items that one query may bring to be ranked."""
MAX_QUERIES = 1_024
"""Queries of one call of Rank."""
Parsed = TypeVar("Parsed", bound=Message)
NO_ITEMS: Ints = np.empty(0, np.int64)
UNKNOWN_USER = RecommendResponse(unknown_user=True).SerializeToString()
"""The last part of an answer to a user whom the world has not."""
SHOWN = 80
"""Characters of a text from outside that an error repeats."""


class Refusal(Exception):
    """A query that gets no answer: status `code`, one line for the user, and the `field` at fault, empty for none."""

    def __init__(self, code: StatusCode, message: str, field: str = "") -> None:
        super().__init__(message)
        self.code, self.message, self.field = code, message, field


def bad(field: str, value: object, range: str) -> Refusal:
    """INVALID_ARGUMENT, in the words of SettingError: `user = 9: 0 to 8`. A text from outside comes as its repr."""
    return Refusal(StatusCode.INVALID_ARGUMENT, f"{field} = {str(value)[:SHOWN]}: {range}", field)


@dataclass(frozen=True)
class Ranges:
    """What the values of a query may be."""

    arms: tuple[str, ...]
    """Labels of the arms, in order."""
    users: int
    items: int
    duplicates: int
    context: tuple[tuple[str, int, int, int], ...]
    """Name, vocabulary, first table row and slots of each context field."""

    @staticmethod
    def of(about: Mapping[str, Any], users: int, items: int) -> Ranges:
        """Of a generation: what was announced with it, and the sizes of its catalogue."""
        schema = schema_of(about)
        fields = [field for field in schema.fields if field.side == "context"]
        context = tuple((f.name, f.vocabulary, schema.first_row(f.name), f.slots) for f in fields)
        return Ranges(tuple(about["arms"]), users, items, int(about["duplicates"]), context)

    def known(self, user: int) -> int:
        """A user number; the number of users for all whom the world has not."""
        return min(user, self.users)

    def context_rows(self, values: Sequence[int]) -> tuple[int, ...]:
        """Table rows [C] of a context: one value per field, or none at all. Raises Refusal."""
        return _context_rows(self.context, tuple(values))

    def arm(self, label: str) -> int:
        """Place of an arm. Raises Refusal."""
        if label not in self.arms:
            raise bad("arm", repr(label), f"one of {', '.join(self.arms)}")
        return self.arms.index(label)

    def duplicate(self, number: int) -> int:
        """The number of a duplicate. Raises Refusal."""
        if number >= self.duplicates:
            raise bad("duplicate", number, f"0 to {self.duplicates - 1}")
        return number

    def candidates(self, items: Sequence[int]) -> Ints:
        """[N] distinct item numbers, as they were given. Raises Refusal."""
        if not items:
            return NO_ITEMS
        if len(items) > MAX_CANDIDATES:
            raise bad("candidates", f"{len(items)} items", f"at most {MAX_CANDIDATES:,}")
        numbers: Ints = np.array(items, np.int64)
        if len(numbers) and (highest := int(numbers.max())) >= self.items:
            raise bad("candidates", highest, f"0 to {self.items - 1}")
        if len(set(items)) < len(numbers):
            distinct, counts = np.unique(numbers, return_counts=True)
            raise bad("candidates", int(distinct[counts.argmax()]), "distinct items; this one is there twice")
        return numbers


@functools.lru_cache(4_096)  # situations recur
def _context_rows(fields: tuple[tuple[str, int, int, int], ...], values: tuple[int, ...]) -> tuple[int, ...]:
    """See Ranges.context_rows; `fields` as in Ranges.context."""
    if not values:
        values = (0,) * len(fields)
    if len(values) != len(fields):
        names = ", ".join(name for name, *_ in fields)
        raise bad("context", f"{len(values)} values", f"{len(fields)} ({names}), or none")
    rows: list[int] = []
    for value, (name, vocabulary, first, slots) in zip(values, fields, strict=True):
        if value >= vocabulary:
            raise bad("context", value, f"0 to {vocabulary - 1} for {name}")
        rows += [first + value, *[0] * (slots - 1)]  # 0 is padding
    return tuple(rows)


def schema_of(about: Mapping[str, Any]) -> Schema:
    """The schema that was announced with a generation."""
    return Schema(tuple(Field(**field) for field in about["fields"]))


def length(k: int) -> int:
    """Length of the slate that `RecommendRequest.k` asks for. Raises Refusal."""
    if k > MAX_ITEMS:
        raise bad("k", k, f"1 to {MAX_ITEMS:,}, or 0 for {DEFAULT_K}")
    return k or DEFAULT_K


def parse(kind: type[Parsed], raw: bytes, field: str = "request") -> Parsed:
    """A message from its bytes. Raises Refusal where they are none."""
    try:
        return kind.FromString(raw)
    except DecodeError:
        raise bad(field, f"{len(raw)} bytes", f"the bytes of a {kind.DESCRIPTOR.full_name}") from None


def with_user(user: int) -> bytes:
    """What is appended to a query, so that `user` is this whatever it was: protobuf itself would leave a 0 out."""
    return b"\x10" + _varint(user)  # RecommendRequest.user


def answered_by(replica: str, arm: str, duplicate: int, generation: int) -> bytes:
    """The last part of an answer's bytes: the same for every answer of one model."""
    who = AnsweredBy(replica=replica, arm=arm, duplicate=duplicate, generation=generation)
    return RecommendResponse(answered_by=who).SerializeToString()


def answer(query_id: int, slate: Slate, who: bytes, scored: tuple[Ints, Floats] | None = None) -> bytes:
    """The bytes of an answer; `scored` holds all candidates [N] with their scores [N].

    Messages in a row are one: so `who` is made once for all answers of a model, and what is known of an item once for
    all slates. Written by hand where protobuf's objects would cost more than the ranking of some candidates.
    """
    scores = _raw(slate.scores)
    places = [_place(item) + scores[4 * n : 4 * n + 4] for n, item in enumerate(slate.items.tolist())]
    head = RecommendResponse(query_id=query_id).SerializeToString()
    if scored is None:
        return b"".join([head, *places, who])
    items, values = _packed(scored[0].tobytes()), _raw(scored[1])
    inside = b"".join([items, b"\x12", _varint(len(values)), values])  # ScoredCandidates.scores
    return b"".join([head, *places, b"\x22", _varint(len(inside)), inside, who])  # RecommendResponse.scored


def without_scores(raw: bytes) -> bytes:
    """An answer's bytes without the scores of all candidates."""
    response = PackedResponse.FromString(raw)
    response.ClearField("scored")
    return response.SerializeToString()


@functools.lru_cache(1 << 16)
def _place(item: int) -> bytes:
    """The bytes of a place of the slate, up to the four of its score."""
    inside = Item(item=item).SerializeToString() + b"\x15"  # Item.score
    return b"\x12" + _varint(len(inside) + 4) + inside  # RecommendResponse.slate


@functools.lru_cache(256)  # the candidates of a segment recur
def _packed(items: bytes) -> bytes:
    """ScoredCandidates of these items, 8 bytes each, without scores."""
    return ScoredCandidates(items=np.frombuffer(items, np.int64).tolist()).SerializeToString()


@functools.lru_cache(256)
def _unpacked(items: bytes) -> Ints:
    """The items [N] of PackedCandidates; not to be written to."""
    raw = PackedCandidates(items=items).SerializeToString()
    unpacked = np.array(ScoredCandidates.FromString(raw).items, np.int64)
    unpacked.flags.writeable = False
    return unpacked


def _raw(scores: Floats) -> bytes:
    """As they stand on the wire."""
    return scores.astype("<f4", copy=False).tobytes()


def _varint(number: int) -> bytes:
    """A length, seven bits a byte."""
    encoded = bytearray()
    while number > 127:
        encoded.append(number & 127 | 128)
        number >>= 7
    return bytes([*encoded, number])


def slate_of(response: RecommendResponse) -> Slate:
    """The slate of an answer."""
    items = np.array([place.item for place in response.slate], np.int64)
    return Slate(items, np.array([place.score for place in response.slate], np.float32))


def scored_of(response: PackedResponse) -> tuple[Ints, Floats]:
    """All candidates [N] of an answer with their scores [N]; none where the query did not ask for them.

    Answers with the same candidates share the array of items. Neither array is to be written to.
    """
    return _unpacked(response.scored.items), np.frombuffer(response.scored.scores, "<f4")
