"""What TLS and tokens cost a query: certificates on every hop and a token of the user's, against none of it."""

from __future__ import annotations

from contextlib import ExitStack
from pathlib import Path
from tempfile import TemporaryDirectory

import trustme
from figures import Figure, ratio, single
from interleave import progress_bar
from sizes import Size

from query_path.client import LoadClient, Slices
from query_path.loads import BUSY, LOADS, as_passes, cost
from query_path.model import build
from query_path.shadowed import differences
from query_path.system import Routed, System
from simulator.security.credentials import Credentials
from simulator.store.server import start_server

SECURED, PLAIN = "TLS and token", "plain"


class Secured(Routed):
    """A router that is asked by TLS, with a token."""

    connect = "query_path.callers:secured"


def measure(size: Size) -> list[Figure]:
    """Two systems of a replica and a router each, over one store, asked in turn."""
    with TemporaryDirectory() as name, ExitStack() as stack:
        folder, made = Path(name), build(size.sized)
        credentials = issue(folder)
        server = stack.enter_context(start_server(folder / "store"))
        systems = System(server, "plain", 1, made, folder), System(server, "secured", 1, made, folder, credentials)
        quiet = "--shadow", "0"
        routers = Routed(PLAIN, systems[0], *quiet), Secured(SECURED, systems[1], *quiet)
        for system, router in zip(systems, routers, strict=True):
            stack.callback(system.stop)
            system.start()
            stack.callback(router.stop)
            router.start()
        environment = {"FLICKER_TLS_CA": str(credentials.tls_ca), "FLICKER_TOKEN_FILE": str(credentials.token_file)}
        client = stack.enter_context(LoadClient(size.sized, **environment))
        busy, alone = ({each.name: Slices() for each in routers} for _ in range(2))
        with progress_bar("security", 4 * size.slices) as advance:
            for router in routers:
                client.slice(router, size.slice_seconds, **LOADS[BUSY])
            for _ in range(size.slices):
                for router in routers:
                    client.measure(busy[router.name], router, size.slice_seconds, **LOADS[BUSY])
                    advance()
                for router in routers:
                    client.measure(alone[router.name], router, size.slice_seconds, in_flight=1)
                    advance()
    passes = as_passes(busy)
    added = differences(alone[PLAIN], alone[SECURED])
    return [
        ratio(f"CPU per query, {SECURED} / {PLAIN}, {BUSY}", passes, SECURED, PLAIN),
        *(cost(f"CPU per query, {name}, {BUSY}", slices) for name, slices in busy.items()),
        single(f"p50 added by {SECURED}, one at a time", "ms", added, "wall"),
    ]


def issue(folder: Path) -> Credentials:
    """One certificate for all processes, and a token."""
    authority = trustme.CA()
    issued = authority.issue_cert("localhost", "127.0.0.1")
    paths = {name: folder / f"{name}.pem" for name in ("tls_ca", "tls_cert", "tls_key")}
    authority.cert_pem.write_to_path(paths["tls_ca"])
    issued.private_key_pem.write_to_path(paths["tls_key"])
    paths["tls_cert"].write_bytes(b"".join(blob.bytes() for blob in issued.cert_chain_pems))
    token = folder / "token"
    token.write_text("a-token-of-the-bench-alone\n")
    return Credentials(**paths, token_file=token)
