"""`flicker article`, and `python -m simulator.article`."""

from __future__ import annotations

import sys

from simulator.errors import FlickerError
from simulator.flags import parse_flags

USAGE = """usage: flicker article COMMAND ...

The article's claims, decided anew on made-up worlds and on your logs; docs/protocol.md says how.

  flicker article run [--data LOG ...] [--size quick]     run what is missing of the grid
  flicker article write                                   docs/results.md, docs/decide.md and their figures
"""


def main() -> int:
    """Returns the exit code."""
    command, *arguments = sys.argv[1:] or ["--help"]
    if command in ("-h", "--help"):
        print(USAGE, end="")
        return 0
    try:
        if command == "run":
            from simulator.article.grid import GridFlags, run_grid

            return run_grid(parse_flags(GridFlags, "flicker article run", arguments))
        if command == "write":
            from simulator.article.pages import WriteFlags, write

            print(*write(parse_flags(WriteFlags, "flicker article write", arguments)), sep="\n")
            return 0
        raise FlickerError(f"command = {command}: run or write; see flicker article --help")
    except FlickerError as problem:
        print(f"flicker: {' '.join(str(problem).splitlines())}", file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        print("\nflicker: stopped; the same command goes on", file=sys.stderr)
        return 130


if __name__ == "__main__":
    sys.exit(main())
