"""A Ray cluster: tasks of one kind, each with its share of a node, and what became of them.

`pip install 'flicker-recsys[ray]'`. Every node needs the same Flicker, torch and modules installed and, for a replayed
log, the log at the same path or at a URL.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Generator, Sequence
from dataclasses import dataclass
from importlib import import_module
from typing import Any

from simulator.errors import FlickerError, SettingError
from simulator.flags import Resources

TICK = 1.0
"""Seconds between looks at what the tasks have left."""


@dataclass(frozen=True)
class Done:
    """A task that has ended."""

    number: int
    """Of its call."""
    result: Any
    lost: str | None
    """Why there is no result, in one line; None where there is one."""


class Cluster:
    """Runs functions on the nodes of a cluster."""

    def __init__(self, address: str | None, resources: Resources) -> None:
        """`address` of a cluster, such as `auto` or host:6379; None starts one on this machine.

        Raises FlickerError where Ray is not installed, the cluster cannot be reached or has no node for a task.
        """
        try:
            ray: Any = import_module("ray")
        except ImportError:
            raise FlickerError("backend = ray: it is not installed: pip install 'flicker-recsys[ray]'") from None
        self._ray, self._options = ray, resources.as_ray()
        if not ray.is_initialized():
            try:  # `local`: without an address Ray would join whatever cluster it finds on this machine
                ray.init(
                    address=address or "local",
                    log_to_driver=False,
                    logging_level=logging.WARNING,
                    include_dashboard=False,
                )
            except (ConnectionError, ValueError, RuntimeError) as problem:
                reason = str(problem).splitlines()[0]
                raise FlickerError(f"address = {address}: {reason}: give that of a running cluster") from None
        asked = {"CPU": resources.cpus, "GPU": resources.gpus, "memory": self._options["memory"]}
        self.room = sum(_fitting(node["Resources"], asked) for node in ray.nodes() if node["Alive"])
        """How many tasks run at once."""
        if not self.room:
            demand = ", ".join(f"{name} {value:,g}" for name, value in asked.items() if value)
            raise SettingError("cpus, gpus, memory", demand, "no node of the cluster has as much: ask for less")

    def run(
        self,
        function: Callable[..., Any],
        calls: Sequence[tuple[Any, ...]],
        *,
        retries: int,
        tick: Callable[[], object] = lambda: None,
    ) -> Generator[Done, None, None]:
        """Call the function with each of these arguments, as many at once as there is room for, telling of each as it
        ends, in any order. A call whose node is lost is made again, at most `retries` times.

        `tick` is called every TICK seconds. Closing the generator ends all that still runs.
        """
        ray = self._ray
        options = self._options | {"max_retries": retries, "scheduling_strategy": "SPREAD"}
        task = ray.remote(**options)(function)
        pending = {task.remote(*call): number for number, call in enumerate(calls)}
        try:
            while pending:
                ready, _ = ray.wait(list(pending), num_returns=1, timeout=TICK)
                tick()
                for one in ready:
                    number = pending.pop(one)
                    try:
                        done = Done(number, ray.get(one), None)
                    except ray.exceptions.RayError as problem:
                        done = Done(number, None, error_message(problem, ray.exceptions))
                    yield done
        finally:
            for unfinished in pending:
                ray.cancel(unfinished, force=True)


def _fitting(node: dict[str, float], asked: dict[str, float]) -> int:
    """How many tasks that ask for so much a node has room for."""
    return min(int(node.get(name, 0) / value) for name, value in asked.items() if value)


def error_message(problem: Exception, kinds: Any) -> str:
    """Why Ray brings no result of a task, in one line; `kinds` is ray.exceptions."""
    lines = [line.strip() for line in str(problem).splitlines() if line.strip()] or ["no reason given"]
    if isinstance(problem, kinds.RayTaskError):  # a traceback of the node, whose last line is the cause
        return lines[-1]
    return f"{type(problem).__name__}: {lines[0]}"
