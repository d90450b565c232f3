"""The floor: a bare thread-pool gRPC server, raw bytes; it answers with bytes as long as an answer."""

from __future__ import annotations

import json
import sys
from concurrent.futures import ThreadPoolExecutor

import grpc

from query_path.contender import RECOMMEND

THREADS = 64


def main(length: int, path: str = RECOMMEND) -> None:
    """Serve until a signal comes."""
    service, method = path.strip("/").split("/")
    answer = bytes(length)
    server = grpc.server(ThreadPoolExecutor(THREADS))
    handler = grpc.unary_unary_rpc_method_handler(lambda query, context: answer)
    server.add_generic_rpc_handlers([grpc.method_handlers_generic_handler(service, {method: handler})])
    port = server.add_insecure_port("127.0.0.1:0")
    server.start()
    print(json.dumps({"ready": "echo", "address": f"127.0.0.1:{port}"}), flush=True)
    server.wait_for_termination()


if __name__ == "__main__":
    main(int(sys.argv[1]), *sys.argv[2:])
