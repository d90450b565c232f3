"""`python -m serving health ADDRESS`: asks a router or a replica whether it can answer, for probes of containers.

Both answer the standard gRPC health service for their whole server (no service named) and for their own service,
`flicker.v1.Recommender` or `flicker.v1.Replica`. A router is SERVING once a generation is published and while at least
one replica is healthy; a replica once it serves a generation. As it runs every few seconds, it imports gRPC and nothing
else of weight.
"""

from __future__ import annotations

import os
import sys
from pathlib import Path

import grpc
from grpc_health.v1.health_pb2 import HealthCheckRequest, HealthCheckResponse
from grpc_health.v1.health_pb2_grpc import HealthStub

from simulator.process import Parser
from simulator.security.channels import connect
from simulator.security.credentials import PLAIN, VARIABLES, Credentials


def complaint(address: str, service: str, timeout: float, credentials: Credentials = PLAIN) -> str:
    """Why the server at host:port is not SERVING, in one line; empty where it is. Raises SettingError."""
    # a probe asks its neighbour, and never by the way of a proxy that the environment names
    with connect(credentials, address, [("grpc.enable_http_proxy", 0)]) as channel:
        try:
            status = HealthStub(channel).Check(HealthCheckRequest(service=service), timeout=timeout).status
        except grpc.RpcError as problem:
            assert isinstance(problem, grpc.Call)
            return f"{problem.code().name}: {' '.join((problem.details() or '').split())}"
    serving = status == HealthCheckResponse.SERVING
    return "" if serving else str(HealthCheckResponse.ServingStatus.Name(status))


def main(arguments: list[str]) -> None:
    """Exit with 0 where it is SERVING, else with 1 and a line on standard error. Raises FlickerError for a bad flag."""
    parser = Parser("python -m serving health", description="Ask a router or replica whether it can answer.")
    parser.add_argument("address", metavar="ADDRESS", help="host:port")
    parser.add_argument("--service", default="", metavar="NAME", help="such as flicker.v1.Recommender (default: all)")
    parser.add_argument("--timeout", type=float, default=2.0, metavar="SECONDS", help="more than 0 (default: 2)")
    for name, variable in VARIABLES.items():
        words = f"as of the server that it probes (default: {variable}; docs/security.md)"
        parser.add_argument(f"--{name.replace('_', '-')}", default=os.environ.get(variable), metavar="FILE", help=words)
    flags = parser.parse_args(arguments)
    if not 0 < flags.timeout < float("inf"):
        parser.error(f"timeout = {flags.timeout}: more than 0 seconds")
    if not flags.address.rpartition(":")[2].isdecimal():
        parser.error(f"address = {flags.address}: host:port")
    credentials = Credentials(**{name: Path(file) if (file := getattr(flags, name)) else None for name in VARIABLES})
    if problem := complaint(flags.address, flags.service, flags.timeout, credentials):
        print(f"{flags.address}: {problem}", file=sys.stderr)
        sys.exit(1)
