"""Trainers that kill themselves by SIGKILL at chosen moments, each a process of its own.

The argument is JSON of [[WHERE, COUNT, FLAGS]]; WHERE is module:function or module:Class.method, and right after its
call number COUNT the process is gone. Prints how each of them ended. They are forked from a process that has imported
everything and done nothing, which saves seconds each.
"""

from __future__ import annotations

import importlib
import json
import os
import signal
import sys
from functools import reduce
from typing import Any

import simulator.experiment  # noqa: F401  # brings torch, before anything forks
import simulator.store.redis  # noqa: F401
import trainer.loop  # noqa: F401
from simulator.process import run
from trainer.__main__ import main

SECONDS = 60
"""A process that has not come to its end by then is ended."""


def die_after(where: str, count: int) -> None:
    """Plant the end."""
    module, _, name = where.partition(":")
    *owners, last = name.split(".")
    owner = reduce(getattr, owners, importlib.import_module(module))
    original, calls = getattr(owner, last), iter(range(count, 0, -1))

    def deadly(*arguments: Any, **named: Any) -> Any:
        result = original(*arguments, **named)
        if next(calls) == 1:
            os.kill(os.getpid(), signal.SIGKILL)
        return result

    setattr(owner, last, deadly)


def start(where: str, count: int, flags: list[str]) -> int:
    """The process id of a trainer that will die."""
    child = os.fork()
    if child == 0:
        signal.alarm(SECONDS)
        die_after(where, count)
        sys.argv[1:] = flags
        run("trainer", main)
        os._exit(0)
    return child


if __name__ == "__main__":
    children = [start(*moment) for moment in json.loads(sys.argv[1])]
    endings = [os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) for child in children]
    print(json.dumps(endings))
