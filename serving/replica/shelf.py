"""What a replica serves and the generation before it, replaced as a whole: no query waits for a refresh."""

from __future__ import annotations

from grpc import StatusCode

from serving.codec import Refusal
from serving.replica.generation import Generation


class Shelf:
    """At most two generations of one duplicate. One thread puts, any thread finds."""

    def __init__(self) -> None:
        self._kept: tuple[Generation, ...] = ()  # newest first; replaced, never changed

    @property
    def current(self) -> Generation | None:
        """What is served now; None while nothing is published."""
        return self._kept[0] if self._kept else None

    def put(self, generation: Generation) -> None:
        """Serve this from the next query on; what was served stays for queries pinned to it."""
        self._kept = (generation, *(kept for kept in self._kept[:1] if kept.duplicate == generation.duplicate))

    def find(self, pinned: int | None) -> Generation:
        """The generation for a query. Raises Refusal where none is served, or not the one it is pinned to."""
        kept = self._kept
        if not kept:
            raise Refusal(StatusCode.UNAVAILABLE, "no generation is published yet")
        for generation in kept:
            if pinned is None or generation.number == pinned:
                return generation
        here = " and ".join(str(generation.number) for generation in kept)
        raise Refusal(StatusCode.FAILED_PRECONDITION, f"generation = {pinned}: here are {here}", "generation")
