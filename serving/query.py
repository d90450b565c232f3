"""`flicker query`: asks a running system one query, n times or of every duplicate, and shows the answers."""

from __future__ import annotations

import secrets
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from typing import Annotated

import grpc
import tyro
from rich.box import SIMPLE_HEAD
from rich.table import Table
from rich.text import Text

from protos.channel import router_channel
from protos.recommender_pb2 import (
    CAUSE_DUPLICATE,
    CAUSE_REFRESH,
    CompareRequest,
    CompareResponse,
    DescribeRequest,
    RecommendRequest,
    RecommendResponse,
)
from protos.recommender_pb2_grpc import RecommenderStub
from serving.codec import MAX_ITEMS, SHOWN
from simulator.config import require
from simulator.errors import FlickerError
from simulator.flags import Flat, Secured, from_env, parse_flags, require_address
from simulator.measures.registry import MEASURES
from simulator.security.channels import connect
from simulator.terminal import open_console

BESIDE = 6
"""Pairs of answers beside each other, at most: as many as 80 columns hold."""
TLS_ENDS = ("Socket closed", "handshake failed", "Verification Check failed")
"""What gRPC says where one side speaks TLS and the other does not, or where one does not believe the other."""
TLS = "; where it speaks TLS, name its authority with --tls-ca, and what it asks for: see docs/security.md"


@dataclass(frozen=True)
class QueryFlags:
    """Ask a running system, and see how much the answers to one query differ. Items that moved are marked.

    Users and context values are written as the log has them, such as u-1a5b09d8; what the log has not, and every value
    of a made-up world, is a number from 0. A user who is neither is answered as one of whom nothing is known.

    The same with grpcurl: grpcurl -plaintext -d '{"user_id": "7"}' HOST:PORT flicker.v1.Recommender/Recommend
    """

    address: str = from_env("FLICKER_ADDRESS", "127.0.0.1:50051")
    """host:port of the router, of several with commas between: they are asked in turn (default: FLICKER_ADDRESS)."""
    user: str = "0"
    """Who asks: an id of the log, else a user number."""
    context: tuple[str, ...] = ()
    """The situation, such as mobile evening: one value per context field, in the order of the world's schema; number 0
    of each unless given."""
    k: int = 10
    """Length of the slate, 1 to 1,000."""
    arm: str = ""
    """Which design answers, such as smelu:beta=0.1; chosen by the user unless given."""
    times: int = 4
    """How often to ask, each time as a new query that may meet another replica; 1 to 100."""
    all: Annotated[bool, tyro.conf.FlagCreatePairsOff] = False
    """Ask every duplicate at one generation instead, and print how much they differ."""
    refresh: Annotated[bool, tyro.conf.FlagCreatePairsOff] = False
    """Ask every duplicate at its last two generations instead."""
    timeout: float = 5.0
    """Seconds to wait for an answer, more than 0, at most 3,600."""
    security: Annotated[Secured, Flat] = field(default_factory=Secured)

    def __post_init__(self) -> None:
        for address in self.address.split(","):
            require_address("address", address)
        require(self.user != "", "user", self.user, "an id or a number")
        require(1 <= self.times <= 100, "times", self.times, "from 1 to 100")
        require(1 <= self.k <= 1_000, "k", self.k, "from 1 to 1,000")
        require(0 < self.timeout <= 3_600, "timeout", self.timeout, "more than 0 seconds, at most 3,600")

    def request(self, context: Sequence[int]) -> RecommendRequest:
        """The query, with a number of its own."""
        number = secrets.randbits(63) | 1
        return RecommendRequest(query_id=number, user_id=self.user, context=context, k=self.k, arm=self.arm)


def ask(flags: QueryFlags) -> tuple[list[RecommendResponse], CompareResponse, dict[int, str]]:
    """The answers, with --all or --refresh what was measured between them, and titles. Raises FlickerError."""
    with router_channel(flags.address, partial(connect, flags.security.credentials())) as channel:
        stub = RecommenderStub(channel)
        try:
            typed, compared = DescribeRequest(context=flags.context), CompareResponse()
            context = stub.Describe(typed, timeout=flags.timeout).context if flags.context else ()
            if flags.all or flags.refresh:
                cause = CAUSE_REFRESH if flags.refresh else CAUSE_DUPLICATE
                asked = CompareRequest(query=flags.request(context), cause=cause)
                compared = stub.Compare(asked, timeout=flags.timeout)
                answers = list(compared.answers)
            else:
                answers = [stub.Recommend(flags.request(context), timeout=flags.timeout) for _ in range(flags.times)]
            items, titles = sorted({place.item for answer in answers for place in answer.slate}), dict[int, str]()
            for part in (items[start : start + MAX_ITEMS] for start in range(0, len(items), MAX_ITEMS)):
                described = stub.Describe(DescribeRequest(items=part), timeout=flags.timeout).items
                titles |= {item: each.title for item, each in zip(part, described, strict=True)}
            return answers, compared, titles
        except grpc.RpcError as problem:
            code = problem.code().name
            details = problem.details()
            hint = TLS if any(word in str(details) for word in TLS_ENDS) else ""
            raise FlickerError(f"{flags.address}: {code}: {details}{hint}") from None


def side_by_side(answers: list[RecommendResponse], titles: Mapping[int, str], width: int) -> Table:
    """One column per answer, `width` letters in all; an item that the first answer has not in this place is marked."""
    letters = max(8, (width - 8) // len(answers) - 14)
    table = Table(box=SIMPLE_HEAD, caption="* another item than the first answer has in this place")
    table.add_column("", justify="right")
    for answer in answers:
        who = answer.answered_by
        heading = f"{who.arm}\nduplicate {who.duplicate}\ngeneration {who.generation}\n{who.replica}"
        table.add_column(heading, no_wrap=True)
    for place in range(max(len(answer.slate) for answer in answers)):
        cells = list[Text]()
        for answer in answers:
            if place >= len(answer.slate):
                cells.append(Text())
                continue
            item, first = answer.slate[place], answers[0].slate
            moved = place >= len(first) or first[place].item != item.item
            mark, style = ("*", "bold red") if moved else (" ", "")
            cell = Text(f"{mark} {item.score:+.3f}  {titles[item.item]}", style)
            cell.truncate(10 + letters, overflow="ellipsis")
            cells.append(cell)
        table.add_row(str(place + 1), *cells)
    return table


def differences(compared: CompareResponse) -> Iterator[Table]:
    """One row per measure, one column per pair of answers; as many tables as that takes."""
    for start in range(0, len(compared.comparisons), BESIDE):
        pairs = compared.comparisons[start : start + BESIDE]
        table = Table(box=SIMPLE_HEAD)
        table.add_column("between")
        for pair in pairs:
            two = (compared.answers[place].answered_by for place in (pair.first, pair.second))
            table.add_column("\n".join(f"{who.duplicate}@{who.generation}" for who in two), justify="right")
        for name, measure in MEASURES.items():
            cells = (f"{pair.measures[name]:.3f}" if name in pair.measures else "–" for pair in pairs)
            table.add_row(measure.words, *cells)
        yield table


def main(arguments: list[str]) -> None:
    """Ask and print. Raises FlickerError in one line where there is no answer."""
    flags = parse_flags(QueryFlags, "flicker query", arguments)
    answers, compared, titles = ask(flags)
    console = open_console()
    if not answers:
        raise FlickerError(f"{flags.address}: nobody answered: no replica serves yet; try again in a few seconds")
    if any(answer.unknown_user for answer in answers):
        remark = f"user = {flags.user[:SHOWN]}: not in this world, so answered as one of whom nothing is known"
        console.print(remark, markup=False, soft_wrap=True)
    console.print(side_by_side(answers, titles, console.width))
    console.print(*differences(compared))
