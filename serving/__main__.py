"""`python -m serving replica ...`, and `router`, `query` and `health` in the same way."""

from __future__ import annotations

import sys
from importlib import import_module

from simulator.errors import SettingError
from simulator.process import end_on_sigterm, run

USAGE = """usage: python -m serving replica|router|query|health ...

  replica   serves one duplicate of every arm; see python -m serving replica --help
  router    sends queries to random replicas; see python -m serving router --help
  query     asks a running system; the same as `flicker query`
  health    asks a router or replica whether it can answer; exit code 0 where it can
"""


WHERE = {"replica": "replica.main", "router": "router.main", "query": "query", "health": "health"}
"""Imported when it is asked for: a replica brings torch, which a router must not load."""


def main(arguments: list[str]) -> None:
    """Start the process that the first argument names. Raises SettingError for another one."""
    which, *rest = arguments or ["--help"]
    if which in ("-h", "--help"):
        return print(USAGE, end="")
    if which not in WHERE:
        raise SettingError("process", which, "replica, router, query or health")
    if which in ("replica", "router"):
        end_on_sigterm()
    import_module(f"serving.{WHERE[which]}").main(rest)


if __name__ == "__main__":
    run(f"serving {' '.join(sys.argv[1:2])}".strip(), main)
