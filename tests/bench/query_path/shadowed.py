"""`flicker shadow`: what the proxy costs per query, in echoes, and what it adds to a user's wait.

The servers in front of and behind it answer at once; their CPU does not count, the proxy's does.
"""

from __future__ import annotations

from contextlib import ExitStack
from dataclasses import replace
from pathlib import Path
from tempfile import TemporaryDirectory

from figures import Figure, ratio, single
from interleave import progress_bar
from sizes import Size

from query_path.client import LoadClient, Slices
from query_path.contender import Served, ready
from query_path.inference import INFER, answer
from query_path.loads import BUSY, LOADS, LONGER, as_passes, cost, put_off
from simulator.live.watch import scrape

OFTEN = 4
"""Shorter slices of what takes a fraction of a millisecond: other work comes and goes by the second."""


class Inference(Served):
    """Asked by the Open Inference Protocol."""

    method, connect = INFER, "query_path.inference:connect"

    def share(self) -> float:
        """Of the proxy's answers: comparisons made, by its metrics page."""
        port = int(ready(self.child)["metrics"].rpartition(":")[2])
        page = scrape({self.name: port}, seconds=10.0)[self.name]
        asked = page.total("grpc_server_handled_total", grpc_method="ModelInfer", grpc_code="OK")
        return page.total("flicker_compared_total", measure="slate") / asked


def measure(size: Size) -> list[Figure]:
    """All figures of the proxy."""
    with TemporaryDirectory() as folder, ExitStack() as stack:

        def started(name: str, *arguments: str) -> Inference:
            made = Inference(name, Path(folder), *arguments)
            stack.callback(made.stop)
            made.start()
            return made

        first, second = (started(f"server {version}", "query_path.inference", version) for version in "12")
        echo = started("echo", "query_path.echo", str(len(answer(1))), INFER)
        proxy = "serving", "shadow", "--first", first.address, "--second", second.address, "--items", "items"
        plain, sampled = (started(f"sample {share}", *proxy, "--sample", share) for share in ("0", "0.1"))
        client = stack.enter_context(LoadClient(size.sized))
        found = {each.name: Slices() for each in (echo, plain, sampled)}
        waits = {each.name: Slices() for each in (first, plain, sampled)}
        rounds = size.slices
        with progress_bar("shadow", rounds * (3 + 3 * OFTEN)) as advance:
            for each in (first, echo, plain, sampled):
                client.slice(each, size.slice_seconds, **LOADS[BUSY])
            for _ in range(rounds):
                for each in (echo, plain, sampled):
                    client.measure(found[each.name], each, LONGER * size.slice_seconds, put_off, **LOADS[BUSY])
                    advance()
                for each in OFTEN * (first, plain, sampled):
                    client.measure(waits[each.name], each, size.slice_seconds / OFTEN, in_flight=1)
                    advance()
        return figures_of(found, waits, sampled.share())


def figures_of(found: dict[str, Slices], waits: dict[str, Slices], share: float) -> list[Figure]:
    """From slices under load, and from those of one query at a time; `share` of the queries was compared."""
    passes = as_passes(found)
    added = [
        single(f"p50 added by the proxy, {name}, one at a time", "ms", differences(waits["server 1"], each), "wall")
        for name, each in waits.items()
        if name != "server 1"
    ]
    note = f"{share:.3f} of the queries were compared: asked again and read, 200 items each"
    return [
        ratio(f"CPU per query, shadow / echo, {BUSY}", passes, "sample 0", "echo"),
        replace(ratio("CPU per query, shadow, sample 10 % / none", passes, "sample 0.1", "sample 0"), note=note),
        *(cost(f"CPU per query, shadow, {name}, {BUSY}", each) for name, each in found.items()),
        *added,
    ]


def differences(direct: Slices, proxied: Slices) -> list[float]:
    """Milliseconds between medians of slices made one after the other."""
    return [after - before for before, after in zip(direct.p50, proxied.p50, strict=True)]
