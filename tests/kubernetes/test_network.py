"""NetworkPolicies let through the links that the processes need, and no other: one table, read from the manifests."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

import pytest

from tests.kubernetes.manifests import OVERLAYS, Resource, addressed, needs_kubectl, resources, workloads

pytestmark = needs_kubectl
Link = tuple[str, str, int]
"""Who connects, to whom, at which port."""
NAMESPACES = {
    "prometheus": {"kubernetes.io/metadata.name": "monitoring"},
    "user": {"flicker/asks": "true"},
    "stranger": {"kubernetes.io/metadata.name": "default"},
    "names": {"kubernetes.io/metadata.name": "kube-system"},
}
"""Pods of other namespaces, and the labels of these."""
OUTSIDE = "outside"
PORTS = 53, 443, 6379, 8080, 9100, 50051


def needed(overlay: str) -> set[Link]:
    """From the addresses that each is told, how replicas are found, and who watches."""
    pods = workloads(overlay)
    links = {(name, "names", 53) for name in pods}
    for name, pod in pods.items():
        for host, port in addressed([*pod.args, *pod.environment.values()]):
            links.add((name, host if host in pods else OUTSIDE, port))
        if pod.environment.get("FLICKER_WEIGHTS", "").startswith("s3:"):
            links.add((name, OUTSIDE, 443))
    links.add(("router", "replica", pods["replica"].ports["grpc"]))
    links.add(("user", "router", pods["router"].ports["grpc"]))
    for monitor in resources(overlay, "PodMonitor"):
        if (name := monitor["metadata"]["name"]) in pods:
            links.add(("prometheus", name, pods[name].ports[monitor["spec"]["podMetricsEndpoints"][0]["port"]]))
    return links


def matches(selector: Mapping[str, Any], labels: Mapping[str, str]) -> bool:
    """As Kubernetes selects; an empty selector takes all."""
    listed = all(
        rule["operator"] == "In" and labels.get(rule["key"]) in rule["values"]
        for rule in selector.get("matchExpressions", [])
    )
    return listed and selector.get("matchLabels", {}).items() <= labels.items()


def is_peer(peer: Resource, name: str, labels: Mapping[str, Mapping[str, str]]) -> bool:
    """Whether someone is whom a rule names: a pod of ours, one of another namespace, or outside the cluster."""
    if "ipBlock" in peer:
        return name == OUTSIDE
    if "namespaceSelector" in peer:
        assert "podSelector" not in peer
        return name in NAMESPACES and matches(peer["namespaceSelector"], NAMESPACES[name])
    return name in labels and matches(peer["podSelector"], labels[name])


def allowed(overlay: str) -> Iterator[Link]:
    """Every link that all policies together let through."""
    labels = {name: pod.labels for name, pod in workloads(overlay).items()}
    policies = [one["spec"] for one in resources(overlay, "NetworkPolicy")]

    def passes(way: str, pod: str, peer_name: str, port: int) -> bool:
        """Whether one of ours may take from (Ingress), or turn to (Egress), the other."""
        if pod not in labels:
            return True
        mine = [p for p in policies if way in p["policyTypes"] and matches(p["podSelector"], labels[pod])]
        side = "from" if way == "Ingress" else "to"
        rules = [rule for policy in mine for rule in policy.get(way.lower(), [])]
        return not mine or any(
            any(is_peer(peer, peer_name, labels) for peer in rule[side])
            and port in {each["port"] for each in rule["ports"]}
            for rule in rules
        )

    everybody = [*labels, *NAMESPACES, OUTSIDE]
    for source in everybody:
        for target in everybody:
            if source != target and (source in labels or target in labels):
                for port in PORTS:
                    if passes("Egress", source, target, port) and passes("Ingress", target, source, port):
                        yield source, target, port


@pytest.mark.parametrize("overlay", OVERLAYS)
def test_exactly_the_links_that_are_needed_are_open(overlay: str) -> None:
    assert set(allowed(overlay)) == needed(overlay)


@pytest.mark.parametrize("overlay", OVERLAYS)
def test_the_table_is_that_of_docs_security(overlay: str) -> None:
    """Routers alone reach replicas, nobody but the page and Prometheus reads metrics, the page reaches no store."""
    links = needed(overlay)
    assert {source for source, target, port in links if (target, port) == ("replica", 50051)} == {"router"}
    assert {source for source, _, port in links if port == 9100} <= {"page", "prometheus"}
    assert not any(source == "page" and port == 6379 for source, _, port in links)
