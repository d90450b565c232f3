"""What every registry does, whichever store is behind it."""

from __future__ import annotations

import hashlib
import json
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest

from simulator.errors import SettingError
from simulator.store.parts import listed, read_manifest, write_manifest
from simulator.store.protocol import KEPT, WHOLE, Shard, Store, StoreError, Unsigned
from simulator.store.redis import open_store
from simulator.store.server import StoreServer


def parts(generation: int) -> dict[str, bytes]:
    return {"duplicate/0": b"weights %d" % generation, "catalog": bytes(range(256)), "empty": b""}


def test_a_published_generation_can_be_fetched(store: Store) -> None:
    assert store.newest() == -1
    about = {"generation": 0, "arms": ["relu", "smelu:beta=1"], "quality": {"relu": {"auc": 0.75}}, "none": None}
    store.publish(0, parts(0), about)
    assert store.newest() == 0
    assert store.about(0) == about
    assert {name: store.fetch(0, name) for name in parts(0)} == parts(0)


def test_the_last_generations_stay_and_older_ones_go(store: Store) -> None:
    generations = [0, 1, 2, 5, 6, 10]
    for generation in generations:
        store.publish(generation, parts(generation), {"generation": generation})
    assert store.newest() == 10
    for generation in generations[-KEPT:]:
        assert store.fetch(generation, "duplicate/0") == parts(generation)["duplicate/0"]
        assert store.about(generation) == {"generation": generation}
    for generation in (*generations[:-KEPT], 3, 11):
        with pytest.raises(StoreError, match=f"generation {generation} is not in the store, the newest is 10"):
            store.about(generation)
        with pytest.raises(StoreError, match=f"generation {generation} is not in the store"):
            store.fetch(generation, "catalog")


def test_an_unknown_part_is_named_with_those_there_are(store: Store) -> None:
    store.publish(0, parts(0), {})
    with pytest.raises(StoreError, match="no part duplicate/9: it has catalog, duplicate/0, empty"):
        store.fetch(0, "duplicate/9")


def test_publishing_the_newest_again_is_harmless(store: Store) -> None:
    store.publish(0, parts(0), {})
    store.publish(1, parts(1), {"published": 1.0})
    store.publish(1, parts(1), {"published": 2.0})
    assert store.newest() == 1
    assert store.about(1) == {"published": 1.0}
    assert store.fetch(0, "duplicate/0") == parts(0)["duplicate/0"]


@pytest.mark.parametrize("other", [{**parts(1), "catalog": b"other"}, {**parts(1), "more": b""}, {}])
def test_published_parts_never_change(store: Store, other: dict[str, bytes]) -> None:
    store.publish(1, parts(1), {})
    with pytest.raises(StoreError, match="generation 1 is published with other content"):
        store.publish(1, other, {})
    assert {name: store.fetch(1, name) for name in parts(1)} == parts(1)
    with pytest.raises(StoreError):
        store.fetch(1, "more")


def test_an_older_generation_is_refused(store: Store) -> None:
    store.publish(5, parts(5), {})
    with pytest.raises(StoreError, match="generation 4 is older than 5"):
        store.publish(4, parts(4), {})
    assert store.newest() == 5


def test_waiting_ends_with_a_newer_generation(store: Store) -> None:
    assert store.wait_newer(-1, 0.0) == -1
    store.publish(3, parts(3), {})
    assert store.wait_newer(-1, 30.0) == 3
    assert store.wait_newer(3, 0.01) == 3
    found: list[int] = []
    waiter = threading.Thread(target=lambda: found.append(store.wait_newer(3, 600.0)), daemon=True)
    waiter.start()
    time.sleep(0.05)  # it waits by now
    store.publish(4, parts(4), {})
    waiter.join(60.0)
    assert found == [4]


PARTS = {shard: {f"duplicate/{shard.number}": b"%d" % shard.number} for shard in Shard(0, 3).all}
FIRST, SECOND, THIRD = PARTS
ABOUT = {"arms": ["relu"], "says": 0}


def joined(abouts: list[dict[str, Any]]) -> dict[str, Any]:
    return {"arms": abouts[0]["arms"], "said": [about["says"] for about in abouts]}


def hand_in(store: Store, generation: int, shard: Shard) -> int:
    parts = {f"duplicate/{shard.number}": b"%d" % shard.number}
    return store.publish(generation, parts, ABOUT | {"says": shard.number}, shard, joined)


@pytest.mark.parametrize("order", [(FIRST, SECOND, THIRD), (THIRD, FIRST, SECOND)])
def test_a_generation_of_shards_is_announced_by_the_last_of_them(store: Store, order: tuple[Shard, ...]) -> None:
    for generation in range(KEPT + 1):
        assert hand_in(store, generation, order[0]) == 2
        assert hand_in(store, generation, order[0]) == 2, "once more"
        assert hand_in(store, generation, order[1]) == 1
        assert store.newest() == generation - 1
        assert hand_in(store, generation, order[2]) == 0
        assert store.newest() == generation
        assert store.about(generation) == {"arms": ["relu"], "said": [0, 1, 2]}
        for shard, own in PARTS.items():
            assert {name: store.fetch(generation, name) for name in own} == own
            assert hand_in(store, generation, shard) == 0, "each may, having died before it knew"
    with pytest.raises(StoreError, match="is published with other content: another trainer runs"):
        store.publish(KEPT, {"duplicate/1": b"other"}, ABOUT, SECOND, joined)
    with pytest.raises(StoreError, match=f"generation 1 is older than {KEPT}"):
        hand_in(store, 1, SECOND)


def test_what_a_shard_hands_in_again_is_what_counts(store: Store) -> None:
    store.publish(0, {"duplicate/1": b"of an earlier life"}, ABOUT, SECOND, joined)
    for shard in PARTS:
        hand_in(store, 0, shard)
    assert store.fetch(0, "duplicate/1") == b"1"


def test_shards_of_another_count_are_no_part_of_it(store: Store) -> None:
    store.publish(0, {"duplicate/0": b"half"}, ABOUT, Shard(0, 2), joined)
    assert [hand_in(store, 0, shard) for shard in (SECOND, THIRD)] == [2, 1]


def test_a_shard_passes_over_a_generation_that_the_others_have_seen_and_the_store_forgot(store: Store) -> None:
    assert hand_in(store, 5, FIRST) == 2
    assert hand_in(store, 4, SECOND) == 0 and store.newest() == -1
    assert [hand_in(store, 5, shard) for shard in (SECOND, THIRD)] == [1, 0]


def test_of_two_trainers_that_publish_at_once_one_wins_whole(store: Store) -> None:
    def publish(trainer: int) -> bool:
        try:
            store.publish(0, {"a": b"%d" % trainer, "b": b"%d" % trainer}, {"trainer": trainer})
            return True
        except StoreError:
            return False

    with ThreadPoolExecutor(8) as pool:
        won = list(pool.map(publish, range(8)))
    assert sum(won) == 1
    winner = won.index(True)
    assert store.about(0) == {"trainer": winner}
    assert store.fetch(0, "a") == store.fetch(0, "b") == b"%d" % winner


def test_a_manifest_with_any_bit_flipped_is_refused_or_says_the_same() -> None:
    text = write_manifest("one", 7, listed(parts(7)), {"arms": ["relu"], "published": 1.5, "none": None}).encode()
    whole, refused = read_manifest(text, "one", 7), 0
    for place in range(8 * len(text)):
        damaged = bytearray(text)
        damaged[place // 8] ^= 1 << place % 8
        try:
            assert read_manifest(bytes(damaged), "one", 7) == whole
        except StoreError as problem:
            assert "generation 7 is damaged" in str(problem)
            refused += 1
    assert refused > 7.9 * len(text)


@pytest.mark.parametrize("text", [b"", b"7", b"[]", b"{}", b"\xff", b"[" * 100_000, b'{"sha256": 1}'])
def test_what_is_no_manifest_is_refused(text: bytes) -> None:
    with pytest.raises(StoreError, match="manifest of generation 7 is damaged"):
        read_manifest(text, "one", 7)


@pytest.mark.parametrize(("run", "generation"), [("two", 7), ("one", 6)])
def test_a_manifest_of_another_run_or_generation_is_refused(run: str, generation: int) -> None:
    with pytest.raises(StoreError, match=f"of run one is of run {run}, generation {generation}"):
        read_manifest(write_manifest(run, generation, listed(parts(7)), {}), "one", 7)


KEY, OTHER_KEY = b"key-of-this-run-0123", b"key-of-another-4567"


def test_a_signature_is_the_hmac_of_what_the_digest_is_of() -> None:
    """By the formula of RFC 2104, not by the library's function."""
    text = write_manifest("one", 7, listed(parts(7)), {"arms": ["relu"]}, [KEY, OTHER_KEY])
    entries = json.loads(text)
    signature, _ = entries.pop("hmac"), entries.pop("sha256")
    message, key = json.dumps(entries, sort_keys=True).encode(), KEY.ljust(64, b"\0")
    inner = hashlib.sha256(bytes(byte ^ 0x36 for byte in key) + message).digest()
    assert signature == hashlib.sha256(bytes(byte ^ 0x5C for byte in key) + inner).hexdigest()
    assert read_manifest(text, "one", 7, [OTHER_KEY, KEY]) == read_manifest(text, "one", 7)


@pytest.mark.parametrize(
    ("signed", "known", "how"),
    [
        ([], [KEY], "not signed"),
        ([OTHER_KEY], [KEY], "signed with another key"),
        ([OTHER_KEY, KEY], [KEY], "signed with another key"),  # the first signs
    ],
)
def test_with_a_key_only_what_it_has_signed_is_read(signed: list[bytes], known: list[bytes], how: str) -> None:
    text = write_manifest("one", 7, listed(parts(7)), {}, signed)
    with pytest.raises(Unsigned, match=f"generation 7 is {how}: give its trainer the same --signing-key") as caught:
        read_manifest(text, "one", 7, known)
    assert KEY.decode() not in str(caught.value)


def test_nothing_of_a_signed_manifest_can_be_changed_by_who_has_no_key() -> None:
    """He can make the digest anew, and copy a signature from another manifest."""
    text = write_manifest("one", 7, listed(parts(7)), {"arms": ["relu"], "duplicates": 2}, [KEY])
    entries = json.loads(text)
    for changed in (
        {"about": {"arms": ["smelu"], "duplicates": 2}},
        {"about": entries["about"] | {"names": "0" * 64}},
        {"parts": entries["parts"] | {"more": {"bytes": 0, "sha256": hashlib.sha256(b"").hexdigest()}}},
        {"parts": {}},
        {"more": 1},
    ):
        forged = {k: v for k, v in (entries | changed).items() if k not in ("sha256", "hmac")}
        digest = hashlib.sha256(json.dumps(forged, sort_keys=True).encode()).hexdigest()
        whole = json.dumps(forged | {"sha256": digest, "hmac": entries["hmac"]})
        read_manifest(whole, "one", 7)
        with pytest.raises(Unsigned):
            read_manifest(whole, "one", 7, [KEY])
    other = json.loads(write_manifest("one", 8, listed(parts(7)), {"arms": ["relu"], "duplicates": 2}, [KEY]))
    with pytest.raises(Unsigned):
        read_manifest(json.dumps(entries | {"hmac": other["hmac"]}), "one", 7, [KEY])


def test_what_a_shard_hands_in_is_signed_and_nobody_can_pass_it_off_as_the_whole() -> None:
    text = write_manifest("one", 7, listed(PARTS[FIRST]), ABOUT, [KEY], FIRST)
    assert read_manifest(text, "one", 7, [KEY], FIRST).parts == listed(PARTS[FIRST])
    for other in (WHOLE, SECOND):
        with pytest.raises(StoreError, match="is of run one, generation 7, shard 0/3"):
            read_manifest(text, "one", 7, [KEY], other)
    with pytest.raises(Unsigned):
        read_manifest(text, "one", 7, [OTHER_KEY], FIRST)


def test_a_shard_with_another_key_is_told_so_and_nothing_is_announced(server: StoreServer, tmp_path: Path) -> None:
    stores = []
    for number, key in enumerate((KEY, OTHER_KEY)):
        (tmp_path / str(number)).write_bytes(key + b"\n")
        stores.append(open_store(server.url, run="shards' keys", signing_key=tmp_path / str(number)))
    assert hand_in(stores[0], 0, Shard(0, 2)) == 1
    with pytest.raises(Unsigned, match="generation 0 is signed with another key: give its trainer the same --signing-"):
        hand_in(stores[1], 0, Shard(1, 2))
    assert stores[0].newest() == -1
    assert hand_in(stores[0], 0, Shard(1, 2)) == 0, "over what the other has left"
    for store in stores:
        store.close()


def test_a_store_with_a_key_signs_and_reads_what_is_signed_alone(server: StoreServer, tmp_path: Path) -> None:
    keys = tmp_path / "keys"
    keys.write_bytes(KEY + b"\n")
    signing, plain = (open_store(server.url, run="signed", signing_key=file) for file in (keys, None))
    signing.publish(0, parts(0), {"generation": 0})
    assert signing.about(0) == plain.about(0) == {"generation": 0}
    plain.publish(1, parts(1), {"generation": 1})
    for look in (lambda: signing.about(1), lambda: signing.fetch(1, "catalog")):
        with pytest.raises(Unsigned):
            look()
    assert signing.fetch(0, "catalog") == parts(0)["catalog"]
    with pytest.raises(SettingError, match="signing_key = .*No such file"):
        open_store(server.url, run="signed", signing_key=tmp_path / "nothing")
    signing.close()
    plain.close()


def test_what_generations_share_is_stored_once_and_stays(store: Store) -> None:
    data = bytes(range(256)) * 2_000
    digest = store.share(data)
    assert store.share(data) == digest != store.share(b"other")
    for generation in range(KEPT + 2):
        store.publish(generation, parts(generation), {"names": digest})
    assert store.shared(digest) == data and store.shared(store.share(b"")) == b""
    with pytest.raises(StoreError, match=f"shared as {digest[::-1][:12]} is not in the store, or damaged"):
        store.shared(digest[::-1])
