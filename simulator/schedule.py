"""What is learned when: where generations are cut, and how feedback joins the world's events.

The last tenth of a log, at most 50,000 events, is held out: nothing is learned from it.
"""

from __future__ import annotations

from dataclasses import dataclass

from simulator.config import ExperimentConfig
from simulator.errors import SettingError
from simulator.types import Batch, World

HELD_OUT_SHARE, HELD_OUT_MOST = 10, 50_000


@dataclass(frozen=True)
class Plan:
    """Where generations are cut."""

    learned: int
    """Events of the world that are learned."""
    held_out: int
    """Events at the end of the world that are not."""
    size: int
    """Events of the log per generation, feedback included; a whole number of shuffle windows."""
    generations: int
    """The last one takes what is left."""
    total: int
    """Events of the log that are learned in all, feedback included."""

    @staticmethod
    def of(config: ExperimentConfig, world: World, chunk: int) -> Plan:
        """At most `config.generations` of them. Raises SettingError where the world is too short for two."""
        held_out = min(world.events // HELD_OUT_SHARE, HELD_OUT_MOST)
        learned = world.events - held_out
        feedback = config.queries_per_generation * config.k if world.has_truth else 0
        least = feedback + 2 * chunk
        if learned <= least:
            hint = f"more than {least * 10 // 9}, or a smaller batch ({config.model.batch}), window or feedback"
            raise SettingError("events", world.events, f"too few for two generations: {hint}")
        # each generation but the first begins with feedback, which must leave room for the world's own events
        whole = learned + feedback * (config.generations - 1)
        size = chunk * -(-whole // (config.generations * chunk))
        generations = max(2, 1 + round((learned - size) / (size - feedback)))
        return Plan(learned, held_out, size, generations, learned + feedback * (generations - 1))


class Log:
    """Events in the order in which they are learned, a chunk at a time.

    What users did with shown slates comes before what is still ahead of the world.
    """

    def __init__(self, world: World, start: int, stop: int, chunk: int) -> None:
        """The world's events [start, stop), in chunks of `chunk`."""
        self._stream, self._chunk = world.batches(chunk, start, stop), chunk
        self._feedback: list[Batch] = []
        self._ahead: list[Batch] = []
        self.position = start
        """Events of the world that were taken, or that lie before `start`."""

    def put_first(self, feedback: list[Batch]) -> None:
        """Impressions to be taken before all else; less than a generation of them."""
        self._feedback += feedback

    def take(self) -> Batch | None:
        """The next chunk, a shorter one at the end, None after it."""
        while sum(map(len, self._feedback + self._ahead)) < self._chunk:
            more = next(self._stream, None)
            if more is None:
                break
            self._ahead.append(more)
        if not self._feedback and not self._ahead:
            return None
        joined, old = Batch.concatenate(self._feedback + self._ahead), sum(map(len, self._feedback))
        taken, fresh = joined[: self._chunk], max(self._chunk, old)
        self._feedback = [joined[self._chunk : old]] if old > self._chunk else []
        self._ahead = [joined[fresh:]] if len(joined) > fresh else []
        self.position += max(0, len(taken) - old)
        return taken
