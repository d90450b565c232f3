"""More load than there is capacity for, in an open loop: what is served, how late, and what becomes of the rest.

The system (store, two replicas, router) has one core, the load another; with one core for both the figures say little,
and a note tells so. Capacity is measured first, in a closed loop of the same client. Other work on the machine shows as
a lower capacity in some part of the run: each load is therefore offered in ROUNDS turns, A B C A B C, with the capacity
measured beside each.
"""

from __future__ import annotations

import os
import signal
import time
from collections import Counter
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path
from statistics import median
from tempfile import TemporaryDirectory
from typing import Any

from figures import Figure, single
from interleave import progress_bar
from query_path.client import LoadClient
from query_path.contender import Contender, Served, cpu_seconds, pid
from query_path.measure import answer_length
from query_path.model import build
from query_path.system import Routed, System
from sizes import Size

from simulator.store.server import start_server

LOADS = (0.8, 1.2, 2.0, 3.0)
"""Offered, in multiples of the capacity."""
CALM, IN_FLIGHT, ECHOED = LOADS[0], 48, 32
ROUNDS = 3
STEP = 0.1
"""Seconds over which latency is looked at while it recovers."""


@dataclass
class Found:
    """What came of one load, one value a round."""

    capacity: list[float] = field(default_factory=list)
    """Answers per second in a closed loop, just before."""
    offered: list[float] = field(default_factory=list)
    served: list[float] = field(default_factory=list)
    """Per second, within their deadline or not."""
    refused: list[float] = field(default_factory=list)
    """Per second, by whomever."""
    p50: list[float] = field(default_factory=list)
    p99: list[float] = field(default_factory=list)
    """Milliseconds, of the served, from when they were due."""
    codes: Counter[str] = field(default_factory=Counter)
    late: int = 0
    uncounted: list[int] = field(default_factory=list)
    """Refusals that clients saw as RESOURCE_EXHAUSTED less those that the router counted."""

    def add(self, capacity: float, said: dict[str, Any], counted: float) -> None:
        """One more round."""
        codes, seconds = Counter[str](said["codes"]), said["seconds"]
        took = sorted(1e3 * each[1] for each in said["answers"]) or [1e3]
        self.capacity.append(capacity)
        self.offered.append(said["offered"] / seconds)
        self.served.append(codes["OK"] / seconds)
        self.refused.append((codes["RESOURCE_EXHAUSTED"] + codes["CANCELLED"] + codes["UNAVAILABLE"]) / seconds)
        self.p50.append(took[len(took) // 2])
        self.p99.append(took[int(0.99 * len(took))])
        self.codes += codes
        self.late += said["late"]
        then = said["then"]["codes"].get("RESOURCE_EXHAUSTED", 0)
        self.uncounted.append(codes["RESOURCE_EXHAUSTED"] + then - round(counted))

    def told(self) -> str:
        """All of it in a line."""
        codes = ", ".join(f"{count:,} {code}" for code, count in self.codes.most_common())
        return (
            f"{median(self.offered):,.0f}/s offered at a capacity of {median(self.capacity):,.0f}/s: "
            f"{median(self.served):,.0f}/s served, p50 {median(self.p50):.1f}, p99 {median(self.p99):.1f} ms; "
            f"{codes}; {self.late:,} late; RESOURCE_EXHAUSTED that the router did not count: {sum(self.uncounted)}"
        )


@contextmanager
def on_core(core: int) -> Iterator[None]:
    """Processes that are started in the block run on this core, where the system has such a thing."""
    if not hasattr(os, "sched_setaffinity"):
        yield
        return
    mine = os.sched_getaffinity(0)
    os.sched_setaffinity(0, {sorted(mine)[core % len(mine)]})
    try:
        yield
    finally:
        os.sched_setaffinity(0, mine)


def measure(size: Size) -> list[Figure]:
    """All figures of overload."""
    with TemporaryDirectory() as folder, ExitStack() as stack:
        with on_core(1):
            server = stack.enter_context(start_server(Path(folder) / "store"))
            system = System(server, "overload", 2, build(size.sized), Path(folder))
            stack.callback(system.stop)
            system.start()
            routed = Routed("routed", system, "--shadow", "0")
            full = Routed("full", system, "--shadow", "0", "--in-flight", "1")
            echo = Served("echo", Path(folder), "query_path.echo", str(answer_length()))
            for contender in (routed, full, echo):
                stack.callback(contender.stop)
                contender.start()
        with on_core(0):
            flood = stack.enter_context(LoadClient(size.sized, "query_path.flood"))
        echoes, prices = price(flood, system, full, echo, size)
        found, recoveries = offer(flood, routed, size)
    return figures(found, recoveries, echoes, prices)


def closed(flood: LoadClient, contender: Contender, seconds: float, in_flight: int) -> dict[str, Any]:
    """A closed loop."""
    order = {"address": contender.address, "method": contender.method}
    return flood.tell(order | {"seconds": seconds, "in_flight": in_flight})


def price(flood: LoadClient, system: System, full: Routed, echo: Served, size: Size) -> tuple[list[float], list[float]]:
    """Microseconds of CPU for an echo, and for a refusal: by a router that is full while its replicas stand still."""
    echoes, prices, seconds = list[float](), list[float](), min(1.0, size.slice_seconds)
    for _ in range(ROUNDS):
        before = sum(cpu_seconds(echo.pids()).values())
        said = closed(flood, echo, seconds, ECHOED)
        echoes.append(1e6 * (sum(cpu_seconds(echo.pids()).values()) - before) / said["codes"]["OK"])
        for replica in system.replicas:
            os.kill(pid(replica), signal.SIGSTOP)
        try:
            before = sum(cpu_seconds([pid(full.child)]).values())
            said = closed(flood, full, seconds, ECHOED)
            used = sum(cpu_seconds([pid(full.child)]).values()) - before
        finally:
            for replica in system.replicas:
                os.kill(pid(replica), signal.SIGCONT)
        prices.append(1e6 * used / said["codes"]["RESOURCE_EXHAUSTED"])
        time.sleep(1.0)
    return echoes, prices


def offer(flood: LoadClient, routed: Routed, size: Size) -> tuple[dict[float, Found], list[float]]:
    """Each load in turn; and seconds to recover from the worst."""
    found, recoveries = {load: Found() for load in LOADS}, list[float]()
    order = {"address": routed.address, "method": routed.method}
    seconds = size.overload_seconds
    with progress_bar("overload", ROUNDS * len(LOADS)) as advance:
        closed(flood, routed, min(2.0, seconds), IN_FLIGHT)
        for _ in range(ROUNDS):
            for load in LOADS:
                said = closed(flood, routed, min(2.0, seconds), IN_FLIGHT)
                capacity = said["codes"]["OK"] / said["seconds"]
                time.sleep(0.2)
                before = counted(routed)
                said = flood.tell(order | {"seconds": seconds, "rate": load * capacity, "then": CALM * capacity})
                time.sleep(0.2)
                found[load].add(capacity, said, counted(routed) - before)
                if load == LOADS[-1]:
                    recoveries.append(recovery(said["then"], found[CALM].p99[-1]))
                advance()
    return found, recoveries


def counted(routed: Routed) -> float:
    """Refusals for want of room that the router counted."""
    return routed.page().total("grpc_server_handled_total", grpc_method="Recommend", grpc_code="ResourceExhausted")


def recovery(said: dict[str, Any], calm: float) -> float:
    """Seconds of the calm load until nothing is refused any more, and a step's median is below the calm p99 in ms."""
    steps: dict[int, list[float]] = {}
    for due, took in said["answers"]:
        steps.setdefault(int(due / STEP), []).append(1e3 * took)
    slow = [number for number, took in steps.items() if median(took) > calm]
    return max([STEP, *(STEP * (number + 1) for number in slow), *said["failed"]])


def figures(
    found: dict[float, Found], recoveries: list[float], echoes: list[float], prices: list[float]
) -> list[Figure]:
    """What is said of it."""
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else 1
    shared = "" if cores > 1 else "; load and system shared one core"
    refusal = median(prices) / 1e6
    calm = found[CALM]
    answered = [served / offered for served, offered in zip(calm.served, calm.offered, strict=True)]
    made = [
        single("CPU per echo, raw HTTP/2 client", "us", echoes, "cpu"),
        single("CPU per refusal", "us", prices, "cpu"),
        single("CPU per refusal / echo", "x", [p / e for p, e in zip(prices, echoes, strict=True)], "cpu"),
        replace(single(f"answered at {CALM:g} x capacity", "x", answered, "wall"), note=calm.told() + shared),
    ]
    for load in LOADS[1:]:
        each = found[load]
        rounds = list(zip(each.served, each.capacity, each.refused, strict=True))
        of_all = [served / capacity for served, capacity, _ in rounds]
        left = [served / (capacity * max(0.01, 1 - refused * refusal)) for served, capacity, refused in rounds]
        slower = [over / under for over, under in zip(each.p99, calm.p99, strict=True)]
        made += [
            replace(single(f"served / capacity at {load:g} x", "x", of_all, "wall"), note=each.told()),
            single(f"served / capacity less refusals at {load:g} x", "x", left, "wall"),
            single(f"p99 of the served at {load:g} x / at {CALM:g} x", "x", slower, "wall"),
        ]
    return [*made, single(f"recovery after {LOADS[-1]:g} x", "s", recoveries, "wall")]
