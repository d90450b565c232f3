"""Clusters of several nodes on this machine."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import pytest


@contextmanager
def ray_cluster(*cores: int) -> Iterator[Any]:
    """A Ray cluster with a node for each of these numbers of cores, the first its head."""
    pytest.importorskip("ray", reason="needs Ray: pip install 'flicker-recsys[ray]'")
    import ray
    from ray.cluster_utils import Cluster

    nodes = Cluster(initialize_head=True, head_node_args={"num_cpus": cores[0], "include_dashboard": False})
    try:
        for count in cores[1:]:
            nodes.add_node(num_cpus=count)
        nodes.wait_for_nodes()
        yield nodes
    finally:
        ray.shutdown()
        nodes.shutdown()
