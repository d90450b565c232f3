"""What every store does with leases and members."""

from __future__ import annotations

import time
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace

from simulator.store.protocol import Member, Store

ONE = Member("host-1", "127.0.0.1:5001", duplicate=0, generation=-1)
TWO = Member("host-2", "127.0.0.1:5002", duplicate=1, generation=7)


def test_free_numbers_go_first_then_the_least_shared_then_the_lowest(store: Store) -> None:
    assert [store.claim(owner, 3, 60.0) for owner in "abcdefg"] == [0, 1, 2, 0, 1, 2, 0]


def test_a_number_given_back_goes_to_the_next(store: Store) -> None:
    for owner in "abcd":  # 0, 1, 2, 0
        store.claim(owner, 3, 60.0)
    store.release("b")
    assert store.claim("e", 3, 60.0) == 1
    store.release("a")
    assert store.claim("f", 3, 60.0) == 0  # all are held once: the lowest
    store.release("nobody")


def test_a_repeated_claim_keeps_its_number(store: Store) -> None:
    assert [store.claim(owner, 2, 60.0) for owner in "abab"] == [0, 1, 0, 1]
    store.release("a")
    assert store.claim("b", 2, 60.0) == 1


def test_with_fewer_duplicates_than_before_a_number_stays_in_range(store: Store) -> None:
    assert [store.claim(owner, 3, 60.0) for owner in "abc"] == [0, 1, 2]
    assert store.claim("c", 2, 60.0) == 0


def test_a_lease_runs_out_unless_it_is_renewed(store: Store) -> None:
    assert store.claim("renewed", 2, 0.2) == 0
    assert store.claim("renewed", 2, 60.0) == 0
    assert store.claim("lost", 2, 0.05) == 1
    time.sleep(0.3)
    assert [store.claim("next", 2, 60.0), store.claim("lost", 2, 60.0)] == [1, 0]


def test_claims_at_once_are_spread_evenly(store: Store) -> None:
    with ThreadPoolExecutor(8) as pool:
        numbers = list(pool.map(lambda owner: store.claim(f"owner-{owner}", 4, 60.0), range(12)))
    assert sorted(numbers) == sorted([0, 1, 2, 3] * 3)


def test_members_are_found_by_name_as_last_announced(store: Store) -> None:
    assert store.members() == []
    store.announce(TWO, 60.0)
    store.announce(ONE, 60.0)
    assert store.members() == [ONE, TWO]
    store.announce(replace(ONE, generation=8), 60.0)
    assert store.members() == [replace(ONE, generation=8), TWO]


def test_a_member_leaves_by_releasing_or_by_silence(store: Store) -> None:
    store.announce(ONE, 60.0)
    store.announce(TWO, 0.05)
    time.sleep(0.1)
    assert store.members() == [ONE]
    store.release(ONE.name)
    assert store.members() == []


def test_a_shard_is_held_by_one_alone(store: Store) -> None:
    assert [store.claim_shard(owner, 2, 60.0) for owner in ("a", "b", "a", "c")] == [0, 1, 0, -1]
    assert store.claim("a", 3, 60.0) == 0, "replicas have nothing to do with it"
    store.release_shard("a")
    store.release_shard("nobody")
    assert [store.claim_shard(owner, 2, 60.0) for owner in ("c", "a")] == [0, -1]


def test_a_shard_whose_lease_ran_out_goes_to_the_next_and_does_not_come_back(store: Store) -> None:
    assert store.claim_shard("frozen", 1, 0.05) == 0
    assert store.claim_shard("frozen", 1, 0.05) == 0
    time.sleep(0.1)
    assert store.claim_shard("next", 1, 60.0) == 0
    assert store.claim_shard("frozen", 1, 60.0) == -1
    store.release_shard("frozen")
    assert store.claim_shard("frozen", 1, 60.0) == -1


def test_of_shards_claimed_at_once_none_is_held_twice(store: Store) -> None:
    with ThreadPoolExecutor(8) as pool:
        numbers = list(pool.map(lambda owner: store.claim_shard(f"owner-{owner}", 4, 60.0), range(12)))
    assert sorted(numbers) == [-1] * 8 + [0, 1, 2, 3]
