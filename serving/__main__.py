"""`python -m serving replica ...`, `python -m serving router ...`, `python -m serving query ...`."""

from __future__ import annotations

import sys

from simulator.errors import SettingError
from simulator.process import run

USAGE = """usage: python -m serving replica|router|query ...

  replica   serves one duplicate of every arm; see python -m serving replica --help
  router    sends queries to random replicas; see python -m serving router --help
  query     asks a running system; the same as `flicker query`
"""


def main(arguments: list[str]) -> None:
    """Start the process that the first argument names. Raises SettingError for another one."""
    which, *rest = arguments or ["--help"]
    if which in ("-h", "--help"):
        print(USAGE, end="")
    elif which == "replica":
        from serving.replica.main import main as replica  # brings torch, which a router must not load

        replica(rest)
    elif which == "router":
        from serving.router.main import main as router

        router(rest)
    elif which == "query":
        from serving.query import main as query

        query(rest)
    else:
        raise SettingError("process", which, "replica, router or query")


if __name__ == "__main__":
    run(f"serving {' '.join(sys.argv[1:2])}".strip(), main)
