"""`python -m serving replica ...`, and `router`, `shadow`, `query` and `health` in the same way."""

from __future__ import annotations

import sys
from importlib import import_module

from simulator.errors import SettingError
from simulator.process import end_on_sigterm, run

USAGE = """usage: python -m serving replica|router|shadow|query|health ...

  replica   serves one duplicate of every arm; see python -m serving replica --help
  router    sends queries to random replicas; see python -m serving router --help
  shadow    stands in front of anybody's model server; the same as `flicker shadow`
  query     asks a running system; the same as `flicker query`
  health    asks a router, replica or shadow whether it can answer; exit code 0 where it can
"""


WHERE = {
    "replica": "replica.main", "router": "router.main", "shadow": "proxy.main", "query": "query", "health": "health",
}  # fmt: skip
"""Imported when it is asked for: a replica brings torch, which a router must not load."""


def main(arguments: list[str]) -> None:
    """Start the process that the first argument names. Raises SettingError for another one."""
    which, *rest = arguments or ["--help"]
    if which in ("-h", "--help"):
        return print(USAGE, end="")
    if which not in WHERE:
        raise SettingError("process", which, "replica, router, shadow, query or health")
    if which in ("replica", "router", "shadow"):
        end_on_sigterm()
    import_module(f"serving.{WHERE[which]}").main(rest)


if __name__ == "__main__":
    which = sys.argv[1:2]
    run(" ".join(["flicker" if which in (["shadow"], ["query"]) else "serving", *which]), main)
