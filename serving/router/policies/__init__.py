"""Which replica answers a query: one file per policy, chosen by name.

A policy sees the healthy replicas in the order of their names, at least one, and returns the place of its choice.
On a retry the replica that failed is not among them.
"""

from __future__ import annotations

from serving.router.policies.choice import Choice, Policy
from serving.router.policies.least_loaded import LeastLoaded
from serving.router.policies.random import Random
from serving.router.policies.round_robin import RoundRobin
from serving.router.policies.sticky import Sticky
from simulator.types import PolicyName

__all__ = ["Choice", "Policy", "PolicyName", "make_policy"]


def make_policy(name: PolicyName, seed: int) -> Policy:
    """The policy of that name; `seed` decides the hashes of those that hash."""
    policies: dict[PolicyName, Policy] = {
        "random": Random(seed),
        "round_robin": RoundRobin(),
        "sticky": Sticky(seed),
        "least_loaded": LeastLoaded(),
    }
    return policies[name]
