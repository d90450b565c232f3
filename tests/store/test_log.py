"""What every event log does, whichever store is behind it."""

from __future__ import annotations

import threading
import time

import pytest

from simulator.store.protocol import QUARANTINE, LogFull, Repeated, SetAside, Store, StoreError, entry_order
from tests.store.batches import batch, numbers, same
from tests.store.conftest import CAPACITY


def read_numbers(store: Store, group: str = "trainer", after: str = "", events: int = 1000) -> list[int]:
    return numbers([entry.batch for entry in store.read(group, after, events, 0.0)])


def test_entries_come_back_as_they_were_and_in_order(store: Store) -> None:
    store.join("trainer")
    appended = [batch(0, 3), batch(3, 1), batch(4, 7)]
    ids = [store.append(one) for one in appended]
    found = store.read("trainer", "", 1000, 0.0)
    assert [entry.id for entry in found] == ids
    assert [entry_order(id) for id in ids] == [3, 4, 11]
    assert all(same(entry.batch, one) for entry, one in zip(found, appended, strict=True))


def test_reading_goes_on_after_a_position_and_stops_at_the_number_asked_for(store: Store) -> None:
    store.join("trainer")
    ids = [store.append(batch(first, 5)) for first in range(0, 30, 5)]
    assert read_numbers(store, after=ids[0], events=14) == list(range(5, 15))
    assert read_numbers(store, after=ids[0], events=15) == list(range(5, 20))
    assert read_numbers(store, after=ids[-1]) == []


def test_an_entry_larger_than_what_is_asked_for_comes_alone(store: Store) -> None:
    store.join("trainer")
    store.append(batch(0, 9))
    store.append(batch(9, 1))
    assert read_numbers(store, events=2) == list(range(9))


def test_a_waiting_reader_gets_what_is_appended_meanwhile(store: Store) -> None:
    store.join("trainer")
    last = store.append(batch(0, 2))
    found: list[int] = []
    reader = threading.Thread(
        target=lambda: found.extend(numbers([e.batch for e in store.read("trainer", last, 10, 600.0)])), daemon=True
    )
    reader.start()
    time.sleep(0.05)  # it waits by now
    store.append(batch(2, 2))
    reader.join(60.0)
    assert found == [2, 3]


def test_a_full_log_refuses_until_every_group_has_acknowledged(store: Store) -> None:
    store.join("slow")
    store.join("fast")
    first = store.append(batch(0, 60))
    store.append(batch(60, CAPACITY - 60))
    assert store.waiting() == store.capacity() == CAPACITY
    with pytest.raises(LogFull, match=f"{CAPACITY} of at most {CAPACITY}"):
        store.append(batch(100, 1), writer="feeder", mark="late")
    assert store.mark("feeder") == ""
    store.acknowledge("fast", first)
    with pytest.raises(LogFull):
        store.append(batch(100, 1))
    store.acknowledge("slow", first)
    assert store.waiting() == CAPACITY - 60
    store.append(batch(100, 60))
    with pytest.raises(LogFull):
        store.append(batch(160, 1))
    assert read_numbers(store, "slow", first) == list(range(60, 160))


def test_a_batch_that_can_never_fit_is_another_error(store: Store) -> None:
    with pytest.raises(StoreError, match="smaller batches") as caught:
        store.append(batch(0, CAPACITY + 1))
    assert not isinstance(caught.value, LogFull)


def test_events_with_a_known_key_are_not_appended_again(store: Store) -> None:
    store.join("trainer")
    store.append(batch(0, 2), writer="one", mark="1", keys=[b"a", b"\0\xff"])
    with pytest.raises(Repeated) as caught:
        store.append(batch(2, 2), writer="another", mark="1", keys=[b"b", b"\0\xff"])
    assert caught.value.known == {b"\0\xff"} and store.mark("another") == ""
    assert store.append(batch(2, 1), writer="another", mark="1", keys=[b"b"]) == "3-0"
    with pytest.raises(Repeated) as caught:
        store.append(batch(9, 2), writer="another", mark="2", keys=[b"a", b"b"])
    assert caught.value.known == {b"a", b"b"} and store.mark("another") == "2"
    assert store.append(batch(9, 2), writer="another", mark="2", keys=[b"a", b"b"]) == "3-0", "the mark is known"
    assert read_numbers(store) == [0, 1, 2]


def test_the_keys_of_what_finds_no_room_are_not_remembered(store: Store) -> None:
    store.join("trainer")
    last = store.append(batch(0, CAPACITY))
    with pytest.raises(LogFull):
        store.append(batch(CAPACITY, 1), keys=[b"a"])
    store.acknowledge("trainer", last)
    store.append(batch(CAPACITY, 1), keys=[b"a"])


def test_without_a_group_nothing_is_forgotten(store: Store) -> None:
    store.append(batch(0, CAPACITY))
    with pytest.raises(LogFull):
        store.append(batch(CAPACITY, 1))
    store.join("trainer")
    assert read_numbers(store) == list(range(CAPACITY))


def test_a_mark_is_stored_with_its_batch(store: Store) -> None:
    assert store.mark("feeder") == ""
    store.append(batch(0, 1), writer="feeder", mark="at event 1")
    store.append(batch(1, 1), writer="another", mark="7 8 9")
    store.append(batch(2, 1))
    assert (store.mark("feeder"), store.mark("another")) == ("at event 1", "7 8 9")


def test_a_repeated_mark_appends_nothing(store: Store) -> None:
    store.join("trainer")
    first = store.append(batch(0, 4), writer="feeder", mark="4")
    store.append(batch(4, 4))
    assert store.append(batch(0, 4), writer="feeder", mark="4") == first
    assert read_numbers(store) == list(range(8))
    store.append(batch(8, 1), writer="feeder", mark="9")
    store.append(batch(9, 1), writer="feeder", mark="4")  # only the last mark counts
    assert read_numbers(store) == list(range(10))


def test_a_repeated_mark_is_known_when_the_log_is_full_and_when_its_entry_is_forgotten(store: Store) -> None:
    store.join("trainer")
    id = store.append(batch(0, CAPACITY), writer="feeder", mark="x")
    assert store.append(batch(0, CAPACITY), writer="feeder", mark="x") == id
    store.acknowledge("trainer", id)
    assert store.append(batch(0, CAPACITY), writer="feeder", mark="x") == id
    assert store.waiting() == 0


def test_a_group_that_joins_late_starts_where_the_log_starts(store: Store) -> None:
    store.join("first")
    ids = [store.append(batch(number, 1)) for number in range(4)]
    store.acknowledge("first", ids[1])
    store.join("late")
    assert read_numbers(store, "late", ids[1]) == [2, 3]
    store.acknowledge("first", ids[3])
    assert store.waiting() == 2
    with pytest.raises(StoreError, match="begins after event 2 .* from event 0"):
        store.read("late", "", 10, 0.0)


def test_joining_again_does_not_move_a_group(store: Store) -> None:
    store.join("trainer")
    ids = [store.append(batch(number, 1)) for number in range(3)]
    store.acknowledge("trainer", ids[1])
    store.join("trainer")
    assert store.waiting() == 1


def test_a_group_that_leaves_holds_nothing_up(store: Store) -> None:
    store.join("stays")
    store.join("leaves")
    last = store.append(batch(0, 10))
    store.acknowledge("stays", last)
    assert store.waiting() == 10
    store.leave("leaves")
    assert store.waiting() == 0
    store.leave("leaves")
    store.leave("never came")
    store.leave("stays")
    assert store.waiting() == 0


def test_acknowledging_goes_forward_only(store: Store) -> None:
    store.join("trainer")
    ids = [store.append(batch(number, 1)) for number in range(3)]
    for upto in (ids[1], ids[1], ids[0], ""):
        store.acknowledge("trainer", upto)
        assert store.waiting() == 1


def test_a_group_that_acknowledges_again_does_not_go_back(store: Store) -> None:
    for group in ("a", "b"):
        store.join(group)
    ids = [store.append(batch(number, 1)) for number in range(3)]
    for group, upto in (("a", ids[2]), ("a", ids[0]), ("b", ids[2])):
        store.acknowledge(group, upto)
    assert store.waiting() == 0


def test_the_log_goes_on_after_it_was_emptied(store: Store) -> None:
    store.join("trainer")
    last = store.append(batch(0, 5))
    store.acknowledge("trainer", last)
    assert read_numbers(store, after=last) == []
    assert entry_order(store.append(batch(5, 5))) == 10
    assert read_numbers(store, after=last) == [5, 6, 7, 8, 9]


def test_positions_of_another_log_are_refused(store: Store) -> None:
    store.join("trainer")
    store.append(batch(0, 5))
    with pytest.raises(StoreError, match="ends at event 5, before the reader's position 6"):
        store.read("trainer", "6-0", 10, 0.0)
    with pytest.raises(StoreError, match="ends at event 5"):
        store.acknowledge("trainer", "6-0")
    with pytest.raises(StoreError, match="gap"):
        store.read("trainer", "3-0", 10, 0.0)


def test_who_has_not_joined_is_told(store: Store) -> None:
    for _ in range(2):  # before and after there is a log
        with pytest.raises(StoreError, match="group trainer has not joined"):
            store.read("trainer", "", 10, 0.0)
        with pytest.raises(StoreError, match="group trainer has not joined"):
            store.acknowledge("trainer", "")
        store.append(batch(0, 1))


def test_several_writers_and_one_reader_every_entry_once_and_in_order(store: Store) -> None:
    writers, entries = 4, 40
    store.join("trainer")

    def write(writer: int) -> None:
        written = 0
        while written < entries:
            try:
                store.append(batch(1000 * writer + 3 * written, 3), writer=f"w{writer}", mark=str(written))
                written += 1
            except LogFull:
                time.sleep(0.01)

    threads = [threading.Thread(target=write, args=(writer,), daemon=True) for writer in range(writers)]
    for thread in threads:
        thread.start()
    found: list[int] = []
    after = ""
    while len(found) < writers * entries * 3:
        read = store.read("trainer", after, 30, 10.0)
        assert read, "the writers are not done, so something comes"
        found += numbers([entry.batch for entry in read])
        after = read[-1].id
        store.acknowledge("trainer", after)
        assert store.waiting() <= CAPACITY
    for thread in threads:
        thread.join()
    for writer in range(writers):
        mine = [number for number in found if number // 1000 == writer]
        assert mine == list(range(1000 * writer, 1000 * writer + 3 * entries))
    assert store.waiting() == 0


def test_what_is_set_aside_is_kept_once_and_the_last_of_it_stays(store: Store) -> None:
    assert store.quarantine() == []
    all_of_them = [
        SetAside(f"{10 * number}-0", "label 1", bytes([number % 256])) for number in range(1, QUARANTINE + 9)
    ]
    assert [store.set_aside(one) for one in all_of_them[:3]] == [True] * 3
    assert [store.set_aside(one) for one in all_of_them[1:5]] == [False, False, True, True]
    assert store.quarantine() == all_of_them[:5]
    assert all(store.set_aside(one) for one in all_of_them[5:])
    assert store.quarantine() == all_of_them[-QUARANTINE:]
    assert not store.set_aside(all_of_them[0])


def test_groups_that_are_to_be_alone_of_their_kind(store: Store) -> None:
    store.join("other")
    for _ in range(2):
        store.join("a-one", "a-two", alone=True)
    for groups in (("a-one",), ("a-one", "a-three"), ("a",)):
        with pytest.raises(StoreError, match="a-.* reads this log, beside which a.* cannot: start as many trainers"):
            store.join(*groups, alone=True)
    with pytest.raises(StoreError, match="a-three has not joined"):
        store.read("a-three", "", 1, 0.0)
    store.append(batch(0, 3))
    for group in ("other", "a-one"):
        store.acknowledge(group, "3-0")
    assert store.waiting() == 3
    store.leave("a-two")
    assert store.waiting() == 0
    store.join("a-one", alone=True)
