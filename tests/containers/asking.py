"""What the checks ask of the running system: the router by gRPC, Prometheus and metrics pages by HTTP."""

from __future__ import annotations

import json
import os
import urllib.error
import urllib.request
from collections import Counter
from typing import Any
from urllib.parse import urlencode

from prometheus_client.parser import text_string_to_metric_families

from protos.channel import router_channel
from protos.recommender_pb2 import AnsweredBy, RecommendRequest
from protos.recommender_pb2_grpc import RecommenderStub

ARMS = os.environ.get("FLICKER_ARMS", "").split()
BUILT_IN = [arm for arm in ARMS if "torch:" not in arm]
"""Arms without a model of the user's own."""
Sample = dict[str, str]
"""Labels of a sample."""


def read(url: str) -> str:
    """A page."""
    with urllib.request.urlopen(url, timeout=10) as answer:
        return str(answer.read().decode())


def asked(url: str, host: str) -> tuple[int, str]:
    """Status and body of an address that is called by another name, as a browser outside of the network does."""
    request = urllib.request.Request(url, headers={"Host": host})
    try:
        with urllib.request.urlopen(request, timeout=10) as answer:
            return int(answer.status), str(answer.read().decode())
    except urllib.error.HTTPError as refused:
        return int(refused.code), refused.read().decode()


def prometheus(path: str, **query: str) -> Any:
    """The `data` of an answer of Prometheus's HTTP API."""
    return json.loads(read(f"http://prometheus:9090/api/v1/{path}?{urlencode(query)}"))["data"]


def value_of(expression: str) -> list[tuple[Sample, float]]:
    """Labels and value of every sample that an expression gives now."""
    found = prometheus("query", query=expression)["result"]
    return [(sample["metric"], float(sample["value"][1])) for sample in found]


def metric(host: str, name: str, **labels: str) -> float:
    """Sum of a process's samples of that name that carry these labels (and perhaps others), this very moment."""
    families = text_string_to_metric_families(read(f"http://{host}:9100/metrics"))
    samples = [sample for family in families for sample in family.samples if sample.name == name]
    return sum(sample.value for sample in samples if labels.items() <= sample.labels.items())


def answers(queries: int, arm: str = "") -> list[AnsweredBy]:
    """Who answered each of so many queries, of one arm or of any. Raises grpc.RpcError for one that fails."""
    with router_channel("dns:///router:50051") as channel:
        stub = RecommenderStub(channel)
        found = [stub.Recommend(RecommendRequest(user=user, arm=arm), timeout=5) for user in range(queries)]
    assert all(len(answer.slate) == 10 for answer in found)
    return [answer.answered_by for answer in found]


def answering(queries: int, arm: str = "") -> Counter[str]:
    """Host of the replica -> how many of so many queries it answered. Raises grpc.RpcError for one that fails."""
    return Counter(who.replica.rpartition("-")[0] for who in answers(queries, arm))
