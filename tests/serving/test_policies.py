"""Which replica each policy chooses."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass

import pytest
from scipy.stats import chisquare

from serving.router.router import RANGE, make_policy, splitmix64, stable_hash
from simulator.types import PolicyName


@dataclass
class Known:
    """What a policy sees of a replica."""

    name: str
    in_flight: int = 0


ABC = [Known("a"), Known("b"), Known("c")]


def test_random_is_even_and_follows_from_seed_and_query() -> None:
    first, again, other = (make_policy("random", seed) for seed in (1, 1, 2))
    choices = [first(query, 0, ABC) for query in range(3_000)]
    assert choices == [again(query, 99, ABC) for query in range(3_000)]
    others = [other(query, 0, ABC) for query in range(3_000)]
    joint = Counter(zip(choices, others, strict=True))
    assert len(joint) == 9 and chisquare(list(joint.values())).pvalue > 1e-3  # independent of the other seed


def test_the_hash_is_the_published_generator() -> None:
    # seed and first outputs as the algorithm's reference implementations print them
    start = 1234567 * pow(0x9E3779B97F4A7C15, -1, RANGE) % RANGE
    published = [6457827717110365317, 3203168211198807973, 9817491932198370423]
    assert [splitmix64(start + n) for n in (1, 2, 3)] == published


def test_hashes_are_even_and_independent_of_other_purposes() -> None:
    tenth, third = RANGE // 10, RANGE // 3
    table = Counter((stable_hash(0, "a", n) // tenth, stable_hash(0, "b", n) // third) for n in range(60_000))
    counts = [table[a, b] for a in range(10) for b in range(3)]
    assert sum(counts) == 60_000 and chisquare(counts).pvalue > 1e-3
    assert 0 <= stable_hash(-3, "a", RANGE - 1) < RANGE


def test_random_is_the_same_on_every_machine() -> None:
    assert [make_policy("random", 0)(query, 0, ABC) for query in range(1, 9)] == RECORDED


def test_round_robin_takes_turns() -> None:
    policy = make_policy("round_robin", 0)
    assert [policy(5, 5, ABC) for _ in range(7)] == [0, 1, 2, 0, 1, 2, 0]


def test_sticky_keeps_users_and_moves_only_those_of_a_lost_replica() -> None:
    policy = make_policy("sticky", 0)
    before = [policy(user, user, ABC) for user in range(600)]
    assert before == [policy(user + 1, user, ABC) for user in range(600)]
    assert min(Counter(before).values()) > 150
    without_b = [ABC[0], ABC[2]]
    after = [without_b[policy(0, user, without_b)].name for user in range(600)]
    assert all(ABC[n].name == name for n, name in zip(before, after, strict=True) if n != 1)


def test_least_loaded_spares_the_busy_and_takes_turns_among_equals() -> None:
    policy = make_policy("least_loaded", 0)
    assert policy(1, 1, [Known("a", 3), Known("b", 1), Known("c", 2)]) == 1
    equals = [Known("a", 1), Known("b", 2), Known("c", 1)]
    assert {policy(1, 1, equals) for _ in range(4)} == {0, 2}


@pytest.mark.parametrize("name", ["random", "round_robin", "sticky", "least_loaded"])
def test_one_replica_is_always_chosen(name: PolicyName) -> None:
    assert {make_policy(name, 3)(query, query, ABC[:1]) for query in range(20)} == {0}


RECORDED = [2, 1, 2, 1, 2, 1, 1, 2]
"""What the hash gave when it was written: a change would change every replay."""
