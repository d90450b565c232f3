"""`python -m serving replica ...`, and `router`, `query` and `health` in the same way."""

from __future__ import annotations

import sys

from simulator.errors import SettingError
from simulator.process import end_on_sigterm, run

USAGE = """usage: python -m serving replica|router|query|health ...

  replica   serves one duplicate of every arm; see python -m serving replica --help
  router    sends queries to random replicas; see python -m serving router --help
  query     asks a running system; the same as `flicker query`
  health    asks a router or replica whether it can answer; exit code 0 where it can
"""


def main(arguments: list[str]) -> None:
    """Start the process that the first argument names. Raises SettingError for another one."""
    which, *rest = arguments or ["--help"]
    if which in ("-h", "--help"):
        print(USAGE, end="")
    elif which == "replica":
        end_on_sigterm()
        from serving.replica.main import main as replica  # brings torch, which a router must not load

        replica(rest)
    elif which == "router":
        end_on_sigterm()
        from serving.router.main import main as router

        router(rest)
    elif which == "query":
        from serving.query import main as query

        query(rest)
    elif which == "health":
        from serving.health import main as health

        health(rest)
    else:
        raise SettingError("process", which, "replica, router, query or health")


if __name__ == "__main__":
    run(f"serving {' '.join(sys.argv[1:2])}".strip(), main)
