"""What every store refuses, in the same words."""

from __future__ import annotations

from simulator.store.protocol import LogFull, StoreError, entry_order


def refuse_appending(events: int, waiting: int, capacity: int) -> None:
    """Raises LogFull or StoreError unless `events` more fit beside those that wait."""
    assert events >= 1, "an entry holds at least one event"
    if events > capacity:
        raise StoreError(f"a batch of {events} events can never fit into a log of {capacity}: append smaller batches")
    if waiting + events > capacity:
        raise LogFull(
            f"the log has no room for {events} events: {waiting} of at most {capacity} wait until trainers have "
            "learned and saved them; try again later"
        )


def unknown_group(group: str) -> StoreError:
    """For a reader whose group the log does not know."""
    return StoreError(f"group {group} has not joined this log: join before reading, and start on an empty store anew")


def check_position(after: str, forgotten: int, appended: int) -> None:
    """Raises StoreError where a log of which events (forgotten, appended] are there cannot be read on from `after`."""
    if entry_order(after) < forgotten:
        raise StoreError(
            f"the log begins after event {forgotten} and cannot be read from event {entry_order(after)}: "
            "start without saved state and with an empty store, or from state that was saved later"
        )
    if entry_order(after) > appended:
        raise StoreError(
            f"the log ends at event {appended}, before the reader's position {entry_order(after)}: "
            "the store lost its data or is another one; start without saved state and with an empty store"
        )


def refuse_publishing(generation: int, newest: int, same: bool) -> None:
    """Raises StoreError unless `generation` may be published (again) while `newest` is the last one."""
    if generation < newest:
        raise StoreError(f"generation {generation} is older than {newest}, which is published: another trainer runs")
    if generation == newest and not same:
        raise StoreError(f"generation {generation} is published with other content: another trainer runs")


def unknown_generation(generation: int, newest: int) -> StoreError:
    """For a generation that is not (or no longer) in the registry."""
    return StoreError(f"generation {generation} is not in the store, the newest is {newest}: ask for the newest")
