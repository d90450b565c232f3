"""`flicker query`: asks a running system one query, n times or of every duplicate, and shows the answers."""

from __future__ import annotations

import secrets
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Annotated

import grpc
import tyro
from rich.box import SIMPLE_HEAD
from rich.table import Table

from protos.channel import router_channel
from protos.recommender_pb2 import (
    CAUSE_DUPLICATE,
    CAUSE_REFRESH,
    CompareRequest,
    CompareResponse,
    RecommendRequest,
    RecommendResponse,
)
from protos.recommender_pb2_grpc import RecommenderStub
from simulator.config import require
from simulator.errors import FlickerError
from simulator.flags import from_env, parse_flags
from simulator.measures.registry import MEASURES
from simulator.terminal import open_console

BESIDE = 6
"""Pairs of answers beside each other, at most: as many as 80 columns hold."""


@dataclass(frozen=True)
class QueryFlags:
    """Ask a running system, and see how much the answers to one query differ. Items that moved are marked.

    The same with grpcurl: grpcurl -plaintext -d '{"user": 7}' HOST:PORT flicker.v1.Recommender/Recommend
    """

    address: str = from_env("FLICKER_ADDRESS", "127.0.0.1:50051")
    """host:port of the router, of several with commas between: they are asked in turn (default: FLICKER_ADDRESS)."""
    user: int = 0
    """Who asks, 0 or more."""
    context: tuple[int, ...] = ()
    """The situation: one value per context field, in the order of the world's schema; all 0 unless given."""
    k: int = 10
    """Length of the slate, 1 to 1,000."""
    arm: str = ""
    """Which design answers, such as smelu:beta=2; chosen by the user unless given."""
    times: int = 4
    """How often to ask, each time as a new query that may meet another replica; 1 to 100."""
    all: Annotated[bool, tyro.conf.FlagCreatePairsOff] = False
    """Ask every duplicate at one generation instead, and print how much they differ."""
    refresh: Annotated[bool, tyro.conf.FlagCreatePairsOff] = False
    """Ask every duplicate at its last two generations instead."""
    timeout: float = 5.0
    """Seconds to wait for an answer, more than 0."""

    def __post_init__(self) -> None:
        ports = [address.rpartition(":")[2] for address in self.address.split(",")]
        require(all(map(str.isdecimal, ports)), "address", self.address, "host:port, several with commas between")
        require(0 <= self.user < 1 << 32, "user", self.user, "0 or more")
        require(1 <= self.times <= 100, "times", self.times, "from 1 to 100")
        require(1 <= self.k <= 1_000, "k", self.k, "from 1 to 1,000")
        require(self.timeout > 0, "timeout", self.timeout, "more than 0 seconds")

    def request(self) -> RecommendRequest:
        """The query, with a number of its own."""
        number = secrets.randbits(63) | 1
        return RecommendRequest(query_id=number, user=self.user, context=self.context, k=self.k, arm=self.arm)


def ask(flags: QueryFlags) -> tuple[list[RecommendResponse], CompareResponse | None]:
    """The answers; with --all or --refresh also what was measured between them. Raises FlickerError."""
    with router_channel(flags.address) as channel:
        stub = RecommenderStub(channel)
        try:
            if flags.all or flags.refresh:
                cause = CAUSE_REFRESH if flags.refresh else CAUSE_DUPLICATE
                compared = stub.Compare(CompareRequest(query=flags.request(), cause=cause), timeout=flags.timeout)
                return list(compared.answers), compared
            return [stub.Recommend(flags.request(), timeout=flags.timeout) for _ in range(flags.times)], None
        except grpc.RpcError as problem:
            code = problem.code().name
            details = problem.details()
            raise FlickerError(f"{flags.address}: {code}: {details}") from None


def side_by_side(answers: list[RecommendResponse]) -> Table:
    """One column per answer; an item that the first answer has not in this place is marked."""
    table = Table(box=SIMPLE_HEAD, caption="* another item than the first answer has in this place")
    table.add_column("", justify="right")
    for answer in answers:
        who = answer.answered_by
        heading = f"{who.arm}\nduplicate {who.duplicate}\ngeneration {who.generation}\n{who.replica}"
        table.add_column(heading, justify="right", no_wrap=True)
    for place in range(max(len(answer.slate) for answer in answers)):
        cells = []
        for answer in answers:
            if place >= len(answer.slate):
                cells.append("")
                continue
            item, first = answer.slate[place], answers[0].slate
            moved = place >= len(first) or first[place].item != item.item
            text = f"{item.item}  {item.score:+.3f}"
            cells.append(f"[bold red]* {text}[/]" if moved else text)
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
    answers, compared = ask(flags)
    console = open_console()
    if not answers:
        raise FlickerError(f"{flags.address}: nobody answered: no replica serves yet; try again in a few seconds")
    console.print(side_by_side(answers))
    if compared is not None:
        console.print(*differences(compared))
