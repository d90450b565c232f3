"""The small form of `make fuzz` with requests."""

from __future__ import annotations

import random
from pathlib import Path

from tests.fuzz.requests import fuzz, mutate, valid


def test_mutated_requests_are_answered_or_told_what_is_wrong(tmp_path: Path) -> None:
    codes = fuzz(400, seed=1, folder=tmp_path)
    assert sum(sum(counts.values()) for counts in codes.values()) == 400
    for counts in codes.values():
        assert counts["OK"] and counts["INVALID_ARGUMENT"]


def test_mutations_follow_the_seed_and_many_still_parse() -> None:
    def mutations(seed: int) -> tuple[list[bytes], int]:
        draw, found, whole = random.Random(seed), [], 0
        for _ in range(300):
            kind, request = valid(draw)
            found.append(mutate(request.SerializeToString(), draw))
            try:
                type(request).FromString(found[-1])
                whole += 1
            except Exception:  # protobuf's
                pass
        return found, whole

    assert mutations(1)[0] == mutations(1)[0] != mutations(2)[0]
    assert 100 < mutations(1)[1] < 300
