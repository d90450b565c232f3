"""What only a store on a server has: lost answers, damage, passwords, several runs, several processes' clients."""

from __future__ import annotations

import random
import time
from collections.abc import Callable
from typing import Any

import pytest
import redis

from simulator.errors import SettingError
from simulator.process import free_ports
from simulator.store.connection import scripts
from simulator.store.parts import PIECE, RedisParts
from simulator.store.protocol import (
    MAX_KEYS,
    REMEMBERED,
    LogFull,
    Member,
    Repeated,
    StoreAway,
    StoreError,
    StoreRefuses,
)
from simulator.store.redis import CAPACITY, RedisStore, open_store
from simulator.store.server import StoreServer
from tests.store.batches import batch, numbers
from tests.store.proxy import Proxy


def keys(store: RedisStore) -> dict[str, int]:
    """Every key of the store's run, without its prefix, and in how many seconds it runs out (-1 for never)."""
    client, prefix = store._server.client, store._server.key("")
    return {key.decode().removeprefix(prefix): client.ttl(key) for key in client.scan_iter(prefix + "*")}


def test_runs_on_one_server_know_nothing_of_each_other(server: StoreServer) -> None:
    one, other = (open_store(server.url, run=run) for run in ("one", "other"))
    one.join("trainer")
    one.append(batch(0, 5), writer="feeder", mark="5")
    one.publish(0, {"part": b"x"}, {})
    one.claim("a", 2, 60.0)
    assert (other.waiting(), other.mark("feeder"), other.newest(), other.claim("b", 2, 60.0)) == (0, "", -1, 0)
    with pytest.raises(StoreError, match="not joined"):
        other.read("trainer", "", 10, 0.0)
    assert open_store(server.url, run="one").waiting() == 5
    for store in (one, other):
        store.close()


def test_a_feeder_with_a_lower_bound_leaves_room_for_others(server: StoreServer) -> None:
    feeder, router = (open_store(server.url, run="bounds", capacity=bound) for bound in (10, 15))
    feeder.append(batch(0, 10))
    with pytest.raises(LogFull):
        feeder.append(batch(10, 1))
    router.append(batch(10, 5))
    assert feeder.waiting() == 15
    for store in (feeder, router):
        store.close()


def test_an_append_whose_answer_is_lost_is_repeated_only_with_a_mark(server: StoreServer) -> None:
    with Proxy(server.url) as proxy:
        store = RedisStore(proxy.url, run="lost", capacity=100)
        store.append(batch(0, 1))  # from here on the scripts are known to the server
        proxy.lose_next_answer()
        assert store.append(batch(1, 4), writer="feeder", mark="5") == "5-0"
        assert store.waiting() == 5
        proxy.lose_next_answer()
        with pytest.raises(StoreAway):
            store.append(batch(5, 2))
        assert store.waiting() == 7  # the caller cannot know
        store.close()


def test_keys_are_remembered_for_an_hour_at_least_and_not_for_ever(redis_store: RedisStore) -> None:
    client, (recent, before) = redis_store._server.client, redis_store._remembered
    redis_store.append(batch(0, 1), keys=[b"first"])
    assert REMEMBERED < client.ttl(recent) <= 2 * REMEMBERED and not client.exists(before)
    client.expire(recent, REMEMBERED)  # an hour later
    redis_store.append(batch(1, 1), keys=[b"second"])
    assert client.smembers(before) == {b"first"} and client.smembers(recent) == {b"second"}
    assert REMEMBERED - 5 < client.ttl(before) <= REMEMBERED < client.ttl(recent)
    for key in (b"first", b"second"):
        with pytest.raises(Repeated):
            redis_store.append(batch(2, 1), keys=[key])
    client.sadd(recent, *(b"%08d" % number for number in range(MAX_KEYS)))
    most = client.memory_usage(recent)
    redis_store.append(batch(2, 1), keys=[b"third"])  # too many: those before the last are forgotten
    redis_store.append(batch(3, 1), keys=[b"first"])
    with pytest.raises(Repeated):
        redis_store.append(batch(4, 1), keys=[b"second"])
    assert client.scard(recent) == 2 and 2 * most < 60e6, f"{most} bytes for {MAX_KEYS} keys"
    client.delete(before)


def test_a_publication_whose_answer_is_lost_is_done_once(server: StoreServer) -> None:
    with Proxy(server.url) as proxy:
        store = RedisStore(proxy.url, run="lost announcement", capacity=100)
        store.publish(0, {"part": b"0"}, {})
        announce = store._announce_generation
        losses = iter([proxy.lose_next_answer])  # one

        def lose_the_first(*arguments: Any) -> Any:
            next(losses, lambda: None)()
            return announce(*arguments)

        store._announce_generation = lose_the_first
        store.publish(1, {"part": b"1"}, {})
        assert next(losses, None) is None
        assert [store.fetch(generation, "part") for generation in (0, 1)] == [b"0", b"1"]
        store.close()


def test_a_damaged_part_is_refused(redis_store: RedisStore) -> None:
    redis_store.publish(0, {"catalog": b"abc", "duplicate/0": b"def"}, {})
    (name,) = (key for key in keys(redis_store) if key.startswith("part:0:catalog:"))
    client, key = redis_store._server.client, redis_store._server.key(name)
    for damage in (lambda: client.lset(key, 0, b"abd"), lambda: client.lset(key, 0, b"ab")):
        damage()
        with pytest.raises(StoreError, match="part catalog of generation 0 is damaged: its digest differs"):
            redis_store.fetch(0, "catalog")
    client.delete(key)
    with pytest.raises(StoreError, match="catalog of generation 0 is not in the store at redis.*the same --weights"):
        redis_store.fetch(0, "catalog")
    assert redis_store.fetch(0, "duplicate/0") == b"def"


@pytest.mark.parametrize("change", [(b'"auc": 0.5', b'"auc": 0.6'), (b"{", b""), (b"relu", b"\xff")])
def test_a_damaged_manifest_is_refused_and_does_not_end_publishing(
    redis_store: RedisStore, change: tuple[bytes, bytes]
) -> None:
    redis_store.publish(0, {"part": b"0"}, {"arms": ["relu"], "auc": 0.5})
    client, stream = redis_store._server.client, redis_store._generations
    ((id, fields),) = client.xrange(stream)
    client.delete(stream)
    client.xadd(stream, fields | {b"manifest": fields[b"manifest"].replace(*change, 1)}, id=id)
    for look in (redis_store.about, lambda number: redis_store.fetch(number, "part")):
        with pytest.raises(StoreError, match="manifest of generation 0 is damaged"):
            look(0)
    redis_store.publish(1, {"part": b"1"}, {})
    assert redis_store.fetch(1, "part") == b"1"


def test_a_damaged_entry_comes_with_its_problem_between_the_others(redis_store: RedisStore) -> None:
    redis_store.join("trainer")
    client = redis_store._server.client
    client.xadd(redis_store._log, {"batch": b"noise"}, id="4-0")
    client.xadd(redis_store._log, {"other": b"field"}, id="5-0")
    client.hset(redis_store._counts, "appended", 5)
    redis_store.append(batch(0, 3))
    first, second, third = redis_store.read("trainer", "", 10, 0.0)
    assert (first.id, first.data, second.data) == ("4-0", b"noise", b"")
    assert "not a batch of events" in first.problem and "not a batch of events" in second.problem
    assert (third.id, third.problem, numbers([third.batch])) == ("8-0", "", [0, 1, 2])


def test_only_announced_parts_stay(redis_store: RedisStore) -> None:
    redis_store._parts.put("part:0:half:digest", b"from a trainer that died")
    for generation in range(5):
        redis_store.publish(generation, {"part": b"%d" % generation}, {})
    redis_store.share(b"names")
    assert [left for name, left in keys(redis_store).items() if "shared" in name] == [-1]
    kept = {name.split(":")[1] + name.split(":")[2]: left for name, left in keys(redis_store).items() if "part" in name}
    assert 0 < kept.pop("0half") <= 600
    assert kept == {"2part": -1, "3part": -1, "4part": -1}


def test_a_part_of_many_pieces_is_there_as_a_whole_or_not_at_all(redis_store: RedisStore) -> None:
    data = random.Random(0).randbytes(3 * PIECE + 5)
    server, seen = redis_store._server, []
    put = server.client.register_script(scripts()["put_piece"])

    def broken(keys: list[str], args: list[Any]) -> int:
        seen.append(args[0])
        if len(seen) == 3:
            put(keys=keys, args=args)
            raise redis.ConnectionError("the line broke, but the server had done it")
        if args[0] == 3 and len(seen) < 7:  # once what was uploaded has run out
            server.client.delete(*keys)
        return int(put(keys=keys, args=args))

    register = server.client.register_script
    with pytest.MonkeyPatch.context() as patched:
        patched.setattr(
            server.client, "register_script", lambda text: broken if text == scripts()["put_piece"] else register(text)
        )
        redis_store._parts = RedisParts(server)
    with pytest.raises(StoreAway, match="ran out"):
        redis_store.publish(0, {"part": data}, {})
    assert redis_store.newest() == -1 and not [name for name in keys(redis_store) if "part:0:part" in name]
    redis_store.publish(0, {"part": data}, {})
    assert redis_store.fetch(0, "part") == data
    assert seen == [0, 1, 2, 2, 3, 0, 1, 2, 3], "one was repeated"
    assert [name.count(":") for name in keys(redis_store) if "part:0:part" in name] == [3], "nothing else is left"


def test_a_generation_is_not_announced_without_all_of_its_parts(redis_store: RedisStore) -> None:
    redis_store._parts.put = lambda name, data: None  # type: ignore[method-assign, assignment]  # it ran out meanwhile
    with pytest.raises(StoreAway, match="ran out"):
        redis_store.publish(0, {"part": b"x"}, {})
    assert redis_store.newest() == -1


def test_what_is_read_and_forgotten_leaves_no_memory_behind(redis_store: RedisStore) -> None:
    redis_store.join("trainer")
    for number in range(50):
        redis_store.acknowledge("trainer", redis_store.append(batch(number, 50)))
    client = redis_store._server.client
    assert client.xlen(redis_store._log) == 0
    assert client.memory_usage(redis_store._log) < 2000
    assert sorted(keys(redis_store)) == ["log", "log:counts"]


def test_a_trainer_is_a_consumer_group_whose_lag_the_server_shows(redis_store: RedisStore) -> None:
    redis_store.join("trainer")
    ids = [redis_store.append(batch(number, 5)) for number in range(4)]
    redis_store.acknowledge("trainer", ids[1])
    (group,) = redis_store._server.client.xinfo_groups(redis_store._log)
    assert (group["name"], group["last-delivered-id"], group["pending"]) == (b"trainer", ids[1].encode(), 0)


def test_counts_beyond_what_lua_prints_exactly(redis_store: RedisStore) -> None:
    large = 10**15
    redis_store._server.client.hset(redis_store._counts, mapping={"appended": large, "forgotten": large})
    redis_store.join("trainer")
    id = redis_store.append(batch(0, 3))
    assert id == f"{large + 3}-0"
    assert len(redis_store.read("trainer", f"{large}-0", 10, 0.0)) == 1
    redis_store.acknowledge("trainer", id)
    assert redis_store.waiting() == 0


def test_a_wrong_password_is_no_outage_and_is_not_shown(own_server: StoreServer) -> None:
    with redis.Redis.from_url(own_server.url, protocol=2) as client:
        client.config_set("requirepass", "right")
    address = own_server.url.removeprefix("redis://")
    for url in (own_server.url, f"redis://:wr0ng@{address}"):
        store = RedisStore(url, run="password", capacity=1)
        with pytest.raises(StoreError, match=f"at {own_server.url} refuses the user or password") as caught:
            store.ping()
        assert not isinstance(caught.value, StoreAway)
        assert "wr0ng" not in str(caught.value)
        store.close()
    store = RedisStore(f"redis://:right@{address}", run="password", capacity=1)
    store.ping()
    store.close()


def test_a_server_without_memory_refuses_and_keeps_what_it_has(own_server: StoreServer) -> None:
    store = RedisStore(own_server.url, run="memory", capacity=100)
    store.publish(0, {"part": b"x" * 1000}, {})
    store.join("trainer")
    last = store.append(batch(0, 5))
    store._server.client.config_set("maxmemory", 1)
    with pytest.raises(StoreRefuses, match="refuses for now: OOM .*memory"):
        store.append(batch(0, 1))
    with pytest.raises(StoreRefuses, match="refuses for now: OOM .*memory"):
        store.publish(1, {"part": b"y"}, {})
    assert (store.newest(), store.fetch(0, "part"), store.waiting()) == (0, b"x" * 1000, 5)
    member = Member("replica", "127.0.0.1:1", store.claim("replica", 3, 60.0), 0)
    store.announce(member, 60.0)
    assert store.members() == [member], "who serves stays known"
    store.acknowledge("trainer", last)
    assert store.waiting() == 0, "what is learned is forgotten, which gives memory back"
    store._server.client.config_set("maxmemory", 0)
    store.append(batch(0, 1))
    store.close()


def read_only(client: Any) -> Any:
    client.replicaof("127.0.0.1", free_ports(1)[0])  # nobody is there: it stays as it is, and takes nothing
    return lambda: client.replicaof("NO", "ONE")


def without_replicas(client: Any) -> Any:
    client.config_set("min-replicas-to-write", 1)
    return lambda: client.config_set("min-replicas-to-write", 0)


def busy(client: Any) -> Any:
    client.config_set("busy-reply-threshold", 50)
    other = redis.Connection(**client.connection_pool.connection_kwargs)  # a connection that waits for its answer
    other.send_command("EVAL", "while true do end", 0)
    time.sleep(0.3)

    def end() -> None:
        client.script_kill()
        other.disconnect()

    return end


@pytest.mark.parametrize(
    ("refuse", "code"), [(read_only, "READONLY"), (without_replicas, "NOREPLICAS"), (busy, "BUSY")]
)
def test_a_server_that_refuses_for_now_is_as_if_away_and_then_takes_it(
    own_server: StoreServer, refuse: Callable[[Any], Callable[[], object]], code: str
) -> None:
    store = RedisStore(own_server.url, run="refusing", capacity=100, patience=0.3)
    store.append(batch(0, 1))
    store.announce(Member("ended", "127.0.0.1:1", 0, 0), 0.0)
    store.announce(Member("serves", "127.0.0.1:1", 0, 0), 60.0)
    relent = refuse(store._server.client)
    with pytest.raises(StoreRefuses, match=f"^the store at .* refuses for now: {code} "):
        store.append(batch(1, 1))
    if code != "BUSY":
        assert [member.name for member in store.members()] == ["serves"]
    relent()
    store.append(batch(1, 1))
    assert store.waiting() == 2
    store.close()


def test_what_is_wrong_for_good_is_told_at_once(redis_store: RedisStore) -> None:
    redis_store._server.client.set(redis_store._log, "of another program")
    before = time.monotonic()
    with pytest.raises(StoreError, match="refuses: .*WRONGTYPE") as caught:
        redis_store.append(batch(0, 1))
    assert not isinstance(caught.value, StoreAway) and time.monotonic() - before < 0.5


def test_nobody_there_is_one_line_without_the_password() -> None:
    port = free_ports(1)[0]
    store = open_store(f"redis://user:s3cret@127.0.0.1:{port}/0")
    before = time.monotonic()
    with pytest.raises(StoreAway, match=f"the store at redis://127.0.0.1:{port}/0 is away") as caught:
        store.ping()
    assert time.monotonic() - before > 0.3, "it tried more than once"
    assert "\n" not in str(caught.value) and "s3cret" not in str(caught.value)
    store.close()


def test_a_url_opens_its_store(server: StoreServer) -> None:
    store = open_store(server.url)
    assert isinstance(store, RedisStore) and store.capacity() == CAPACITY
    store.ping()
    store.close()


@pytest.mark.parametrize("url", ["", "localhost:6379", "http://localhost", "memory://", "redis://localhost:port"])
def test_a_bad_url_is_named(url: str) -> None:
    with pytest.raises(SettingError, match=r"^store = .*a URL such as redis://"):
        open_store(url)


def test_a_bad_capacity_is_named() -> None:
    with pytest.raises(SettingError, match="capacity = 0: at least 1 event"):
        open_store("redis://127.0.0.1:1", capacity=0)
