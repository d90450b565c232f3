"""`make bench-peers`: see tests/bench/peers. A figure outside its target is said; it is no test.

    make bench-peers ARGS="--only pytriton litserve --out FILE"

writes what `make bench` writes, with {"skipped": {peer: why}} beside it.
"""

from __future__ import annotations

import argparse
import asyncio
import importlib
import json
from collections.abc import Sequence
from contextlib import ExitStack
from pathlib import Path
from tempfile import TemporaryDirectory

import machine
import run
from figures import Figure, ratio
from interleave import progress_bar
from peers.install import NEEDS, install
from peers.peer import Peer
from query_path import loads
from query_path.client import LoadClient, Slices
from query_path.contender import Contender
from query_path.measure import CHECKED, check
from query_path.model import Model, build
from query_path.system import Routed, System
from sizes import QUICK, Size

from protos.recommender_pb2 import RecommendResponse
from serving.codec import slate_of
from simulator.store.server import start_server

ALONE = Size(slices=3, slice_seconds=5.0)
"""Slices of each load, and how long they are."""
PEERS = "ray_serve", "ray_serve_haproxy", "pytriton", "litserve"
LOADS = {load: loads.LOADS[load] for load in (loads.BUSY, "4 in flight")}


def main() -> None:
    """Install, or measure, print and write."""
    given = arguments()
    if given.install:
        for kind in NEEDS:
            install(kind)
        return
    about, before, size = machine.describe(), machine.load(), QUICK if given.quick else ALONE
    figures, skipped = measure(size, given.only)
    load = {"start": before, "end": machine.load()}
    run.show(figures, ["peers"], about, load, quick=given.quick)
    for name, why in skipped.items():
        print(f"skipped: {name}: {why}")
    if given.out:
        entries = [figure.as_json() for figure in figures]
        results = {"figures": entries, "machine": about, "load": load, "quick": given.quick, "skipped": skipped}
        given.out.write_text(json.dumps(results, indent=1) + "\n")


def arguments() -> argparse.Namespace:
    """What is to be done."""
    parser = argparse.ArgumentParser(prog="make bench-peers", description="Measure peers beside our routed query.")
    parser.add_argument("--out", type=Path, metavar="FILE", help="write the figures as JSON")
    parser.add_argument("--quick", action="store_true", help="tiny sizes, to see that it runs; the figures say nothing")
    parser.add_argument("--only", nargs="+", choices=PEERS, default=PEERS, help="measure these alone")
    parser.add_argument("--install", action="store_true", help="install all peers instead, see the module")
    given = parser.parse_args()
    if given.out and (given.out.is_dir() or not given.out.absolute().parent.is_dir()):
        parser.error(f"--out = {given.out}: give a file in a folder that exists")
    return given


def measure(size: Size, names: Sequence[str]) -> tuple[list[Figure], dict[str, str]]:
    """All figures, and why a peer has none."""
    with TemporaryDirectory() as folder, ExitStack() as stack:
        peers, skipped = find(names, size.sized, Path(folder))
        if not peers:
            return [], skipped
        made, figures = build(size.sized), list[Figure]()
        system = System(stack.enter_context(start_server(Path(folder) / "store")), "one", 1, made, Path(folder))
        ours = Routed("routed", system, "--shadow", "0")
        for process in (system, ours):
            stack.callback(process.stop)
            process.start()
        check(made, ours)
        client = stack.enter_context(LoadClient(size.sized))
        routed: dict[str, Slices] = {load: Slices() for load in LOADS}
        for peer in peers:
            found = beside(size, client, ours, peer, made)
            figures += figures_of(peer.name, found)
            for load, slices in found.items():
                routed[load].cpu += slices["routed"].cpu
                routed[load].wall += slices["routed"].wall
        return figures + [loads.cost(f"CPU per query, routed, {load}", each) for load, each in routed.items()], skipped


def find(names: Sequence[str], sized: str, folder: Path) -> tuple[list[Peer], dict[str, str]]:
    """Those that are installed, and why the others take no part."""
    peers: list[Peer] = []
    skipped: dict[str, str] = {}
    for number, name in enumerate(names):
        own = folder / str(number)  # short: the path of a socket has 107 bytes at most
        own.mkdir()
        try:
            peers.append(importlib.import_module(f"peers.{name}").contender(sized, own))
        except ImportError as missing:
            skipped[name] = str(missing)
    return peers, skipped


def beside(size: Size, client: LoadClient, ours: Contender, peer: Peer, made: Model) -> dict[str, dict[str, Slices]]:
    """Load -> slices of the peer and of ours, in turn; the peer runs only meanwhile."""
    found: dict[str, dict[str, Slices]] = {load: {"routed": Slices(), peer.name: Slices()} for load in LOADS}
    try:
        peer.start()
        compare(made, ours, peer)
        for load, how in LOADS.items():
            with progress_bar(f"{peer.name}, {load}", 2 * size.slices) as advance:
                for contender in (ours, peer):
                    client.slice(contender, size.slice_seconds / 2, **how)
                for _ in range(size.slices):
                    for contender in (ours, peer):
                        client.measure(found[load][contender.name], contender, size.slice_seconds, **how)
                        advance()
    finally:
        peer.stop()
    return found


def compare(made: Model, ours: Contender, peer: Peer) -> None:
    """Raises RuntimeError unless the peer's slates are ours, to the last bit: the ranking code is the same."""
    queries = made.queries()[:CHECKED]
    answers, theirs = asyncio.run(ask_all(ours, queries)), asyncio.run(ask_all(peer, queries))
    for number, (answer, other) in enumerate(zip(answers, theirs, strict=True)):
        expected, found = slate_of(RecommendResponse.FromString(answer)), peer.slate(other)
        if found.items.tolist() != expected.items.tolist() or found.scores.tolist() != expected.scores.tolist():
            raise RuntimeError(f"{peer.name}: {found} for query {number + 1}, expected {expected}")


async def ask_all(contender: Contender, queries: list[bytes]) -> list[bytes]:
    """Its answers, asked as the load client asks."""
    module, _, function = contender.connect.partition(":")
    ask = await getattr(importlib.import_module(module), function)(contender.address, contender.method)
    return list(await asyncio.gather(*(ask(query) for query in queries)))


def figures_of(name: str, found: dict[str, dict[str, Slices]]) -> list[Figure]:
    """The peer in multiples of the routed query, under each load."""
    figures = loads.peers(found[loads.BUSY])
    for load in [load for load in found if load != loads.BUSY]:
        passes = loads.as_passes(found[load])
        figures.append(ratio(f"CPU per query, {name} / routed, {load}", passes, name, "routed"))
        figures.append(ratio(f"queries/s, routed / {name}, {load}", passes, name, "routed", clock="wall"))
        figures.append(loads.cost(f"CPU per query, {name}, {load}", found[load][name]))
    return figures


if __name__ == "__main__":
    main()
