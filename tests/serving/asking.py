"""One who asks a router as people do, in a process of its own: `python asking.py ADDRESS SECONDS EVERY`.

Prints what each answer took, in seconds, as a list; ends with a traceback where a query is not answered.
"""

from __future__ import annotations

import json
import sys
import time

import grpc

from protos.recommender_pb2 import RecommendRequest
from protos.recommender_pb2_grpc import RecommenderStub


def main(address: str, seconds: float, every: float) -> None:
    """Ask."""
    with grpc.insecure_channel(address) as channel:
        stub, took = RecommenderStub(channel), list[float]()
        stub.Recommend(RecommendRequest(user=2), timeout=5)
        end = time.monotonic() + seconds
        while (start := time.monotonic()) < end:
            stub.Recommend(RecommendRequest(user=2), timeout=5)
            took.append(time.monotonic() - start)
            time.sleep(max(0.0, start + every - time.monotonic()))
    print(json.dumps(took))


if __name__ == "__main__":
    main(sys.argv[1], float(sys.argv[2]), float(sys.argv[3]))
