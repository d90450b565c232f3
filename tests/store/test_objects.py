"""Parts in folders and in an object store: retention, what is left half-way, and what goes wrong, in our own words."""

from __future__ import annotations

import os
import random
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from simulator.errors import FlickerError, SettingError
from simulator.store.objects import READ, ObjectParts, open_url
from simulator.store.parts import PIECE
from simulator.store.protocol import KEPT, Shard, Store, StoreAway, StoreError, StoreRefuses, UnknownGeneration
from simulator.store.redis import open_store
from simulator.store.server import StoreServer, start_server
from tests.store.conftest import runs
from tests.store.s3 import BUCKET, S3, hang_up, refusal

SMALL = "generations", "pending", "weights"
"""What the server holds of generations whose parts lie elsewhere."""
LARGE = random.Random(0).randbytes(2 * READ + 5)


@pytest.fixture(scope="module")
def service() -> Iterator[S3]:
    """A service that is up whenever a test begins."""
    started = S3()
    yield started
    started.stop()


@pytest.fixture
def s3(service: S3, monkeypatch: pytest.MonkeyPatch) -> S3:
    """It, as the environment names it."""
    for name, value in service.environment.items():
        monkeypatch.setenv(name, value)
    service.puts, service.trouble = 0, {}
    return service


@pytest.fixture(params=["folder", "s3"])
def url(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    """Of each kind of place."""
    if request.param == "folder":
        return f"file://{tmp_path}/weights"
    request.getfixturevalue("s3")
    return f"s3://{BUCKET}/{tmp_path.name}"


def names(url: str) -> list[str]:
    """All that lies under a URL, without places and digests."""
    files, root = open_url(url)
    found = sorted(path.removeprefix(root).lstrip("/").split("/") for path in files.find(root))
    return ["/".join([run, *path]) for run, _, *path, _ in found]


def opened(server: StoreServer, url: str, run: str | None = None) -> Store:
    return open_store(server.url, run=run or next(runs), weights=url)


def test_weights_lie_under_the_url_and_the_server_holds_none(server: StoreServer, url: str) -> None:
    run = f"one/{next(runs)}"
    store, own = opened(server, url, run), run.replace("/", "%2F")
    digest = store.share(b"names")
    for generation in range(KEPT + 2):
        for shard in (Shard(1, 2), Shard(0, 2)):
            store.publish(generation, {f"duplicate/{shard.number}": LARGE + b"%d" % generation}, {}, shard)
    kept = [f"{own}/part/{generation}/duplicate-{n}" for generation in (2, 3, 4) for n in (0, 1)]
    assert names(url) == [*kept, f"{own}/shared"]
    reader = opened(server, url, run)
    assert reader.fetch(4, "duplicate/1") == LARGE + b"4" and reader.shared(digest) == b"names"
    with pytest.raises(UnknownGeneration, match="generation 1 is not in the store, the newest is 4"):
        reader.fetch(1, "duplicate/1")
    elsewhere = opened(server, "", run)
    with pytest.raises(StoreError, match="duplicate/0 of generation 4 is not in the store at .* the same --weights"):
        elsewhere.fetch(4, "duplicate/0")
    client: Any = elsewhere._server.client  # type: ignore[attr-defined]
    assert sorted(client.scan_iter(f"flicker:{run}:*")) == [f"flicker:{run}:{name}".encode() for name in SMALL]


def test_runs_of_one_name_in_two_stores_do_not_touch_each_others(
    server: StoreServer, tmp_path_factory: pytest.TempPathFactory, url: str
) -> None:
    run = next(runs)
    with start_server(tmp_path_factory.mktemp("another")) as another:
        first, second = opened(server, url, run), opened(another, url, run)
        with pytest.raises(UnknownGeneration):
            second.fetch(0, "part")
        for generation in range(KEPT):
            second.publish(generation, {"part": b"second %d" % generation}, {})
        first.publish(500, {"part": b"first"}, {})
        for generation in range(KEPT):
            assert second.fetch(generation, "part") == b"second %d" % generation
        assert first.fetch(500, "part") == b"first"
        second.close()


def test_what_is_there_as_a_whole_is_not_stored_again(server: StoreServer, s3: S3) -> None:
    store = opened(server, f"s3://{BUCKET}/again")
    for _ in range(2):
        store.share(LARGE)
        store.publish(0, {"a": LARGE, "b": b""}, {}, Shard(0, 2))
    assert s3.puts == 3


def test_damage_is_found(server: StoreServer, tmp_path: Path) -> None:
    run = next(runs)
    store = opened(server, f"file://{tmp_path}", run)
    store.publish(0, {"a": LARGE, "b": LARGE}, {})
    (path,) = (tmp_path / run).glob("*/part/0/a/*")
    for damaged in (LARGE[:-1], LARGE[:-1] + b"x", b""):
        path.write_bytes(damaged)
        with pytest.raises(StoreError, match="part a of generation 0 is damaged: its digest differs"):
            store.fetch(0, "a")
    path.unlink()
    with pytest.raises(StoreError, match=f"part a of generation 0 is not in file://{tmp_path}: give all processes"):
        store.fetch(0, "a")
    assert store.fetch(0, "b") == LARGE


def test_a_generation_that_goes_while_it_is_read(
    server: StoreServer, url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    store = opened(server, url)
    store.publish(0, {"part": LARGE}, {})
    read = ObjectParts._read

    def slow(self: ObjectParts, path: str, size: int) -> Iterator[bytes]:
        pieces = read(self, path, size)
        yield next(pieces)
        for generation in range(1, KEPT + 1):
            store.publish(generation, {"part": b"x"}, {})
        yield from pieces

    monkeypatch.setattr(ObjectParts, "_read", slow)
    with pytest.raises(UnknownGeneration, match=f"generation 0 is not in the store, the newest is {KEPT}"):
        store.fetch(0, "part")


def test_what_an_upload_left_half_way_goes_with_its_generation(
    server: StoreServer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    url, run = f"file://{tmp_path}", next(runs)
    store = opened(server, url, run)
    with monkeypatch.context() as patched:
        patched.setattr(ObjectParts, "_write", half_a_write)
        with pytest.raises(StoreRefuses, match=f"the weights at {url} are refused for now: .*No space left"):
            store.publish(0, {"part": LARGE}, {})
    assert store.newest() == -1
    store.publish(0, {"part": LARGE}, {})
    assert store.fetch(0, "part") == LARGE and names(url) == [f"{run}/part/0/part"] * 2, "with what was left"
    for generation in range(1, KEPT + 1):
        store.publish(generation, {"part": b"x"}, {})
    assert names(url) == [f"{run}/part/{generation}/part" for generation in range(1, KEPT + 1)]


def half_a_write(self: ObjectParts, path: str, data: bytes) -> None:
    """As on a disk that is full."""
    folder, _, name = path.rpartition("/")
    self._files.makedirs(folder, exist_ok=True)
    with self._files.open(f"{folder}/.{name}.other", "wb") as file:
        file.write(data[:PIECE])
    raise OSError(28, os.strerror(28))


@pytest.mark.parametrize(
    ("trouble", "kind", "said"),
    [
        (refusal("503 Slow Down", "SlowDown"), StoreRefuses, "are refused for now: .*a test said so"),
        (refusal("500 Internal Server Error", "InternalError"), StoreRefuses, "are refused for now: .*a test said so"),
        (refusal("507 Full", "XMinioStorageFull"), StoreRefuses, "are refused for now: .*a test said so"),
        (refusal("403 Forbidden", "AccessDenied"), StoreError, "a test said so: its credentials"),
        (refusal("400 Bad Request", "InvalidBucketName"), StoreError, "a test said so: name another place"),
        (hang_up, StoreAway, "are away: "),
    ],
)
def test_a_service_in_trouble_in_the_middle_of_an_upload(
    server: StoreServer, s3: S3, trouble: Any, kind: type[StoreError], said: str
) -> None:
    url = f"s3://{BUCKET}/{next(runs)}"
    store = opened(server, url)
    store.publish(0, {"a": b"0", "b": b"0"}, {})
    s3.trouble = dict.fromkeys(range(s3.puts + 1, 100), trouble)  # from the second part on
    with pytest.raises(StoreError, match=f"{url}.* ?{said}") as caught:
        store.publish(1, {"a": LARGE, "b": LARGE}, {})
    assert type(caught.value) is kind and "\n" not in str(caught.value) and "s3cret" not in str(caught.value)
    assert store.newest() == 0 and store.fetch(0, "b") == b"0"
    s3.trouble = {}
    store.publish(1, {"a": LARGE, "b": LARGE}, {})
    assert store.fetch(1, "a") == store.fetch(1, "b") == LARGE


def test_a_service_that_is_stopped_and_comes_back(server: StoreServer, s3: S3) -> None:
    store = opened(server, f"s3://{BUCKET}/stopped")
    store.publish(0, {"part": LARGE}, {})
    s3.stop()
    try:
        for ask in (lambda: store.publish(1, {"part": b"1"}, {}), lambda: store.fetch(0, "part")):
            with pytest.raises(StoreAway, match=f"the weights at s3://{BUCKET}/stopped are away: .*connect") as caught:
                ask()
            assert not isinstance(caught.value, StoreRefuses)
        assert store.newest() == 0
    finally:
        s3.start()
    store.publish(1, {"part": b"1"}, {})
    assert (store.fetch(0, "part"), store.fetch(1, "part")) == (LARGE, b"1")


def test_a_bucket_that_is_not_there(server: StoreServer, s3: S3) -> None:
    store = opened(server, "s3://no-such-bucket/x")
    with pytest.raises(StoreError, match="weights = s3://no-such-bucket/x: .*: make the bucket or folder") as caught:
        store.publish(0, {"part": b"x"}, {})
    assert type(caught.value) is StoreError


def test_nobody_has_said_who_we_are(
    server: StoreServer, s3: S3, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY"):
        monkeypatch.delenv(name)
    monkeypatch.setenv("AWS_SHARED_CREDENTIALS_FILE", str(tmp_path / "nothing"))
    store = opened(server, f"s3://{BUCKET}/x")
    with pytest.raises(StoreError, match="Unable to locate credentials: its credentials .AWS_ACCESS_KEY_ID") as caught:
        store.publish(0, {"part": b"x"}, {})
    assert type(caught.value) is StoreError


def test_a_folder_that_cannot_be(server: StoreServer, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(StoreError, match=f"weights = file://{tmp_path}/file: .*: name another place"):
        opened(server, f"file://{tmp_path}/file").publish(0, {"part": b"x"}, {})


@pytest.mark.parametrize(
    ("url", "said"),
    [
        ("bucket/prefix", "weights = bucket/prefix: a URL such as s3://bucket/prefix or file:///folder"),
        ("s3://", "weights = s3://: a URL such as"),
        ("simplecache::s3://bucket", "weights = simplecache::s3://bucket: a URL such as"),
        ("nonsense://bucket", "weights = nonsense://bucket: Protocol not known"),
        ("s3://an-id:a-s3cret@bucket/x", "weights = s3://bucket/x: leave the secret out"),
    ],
)
def test_a_url_that_cannot_be(url: str, said: str) -> None:
    with pytest.raises(SettingError) as caught:
        open_store("redis://127.0.0.1:1", weights=url)
    assert str(caught.value).startswith(said) and "s3cret" not in str(caught.value)


def test_a_missing_package_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(FlickerError, match="^weights = gs://b/x: Please install gcsfs to access Google Storage$"):
        open_store("redis://127.0.0.1:1", weights="gs://b/x")
    monkeypatch.delitem(sys.modules["fsspec.registry"]._registry, "s3", raising=False)  # where it was loaded before
    monkeypatch.setitem(sys.modules, "s3fs", None)
    with pytest.raises(FlickerError, match=r"^weights = s3://b/x: .* pip install 'flicker-recsys\[objects\]'$"):
        open_store("redis://127.0.0.1:1", weights="s3://b/x")
