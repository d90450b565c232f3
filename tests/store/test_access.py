"""How a store is reached: URLs without their passwords, and passwords from files."""

from __future__ import annotations

from pathlib import Path

import pytest
import redis
from hypothesis import example, given
from hypothesis import strategies as st

from simulator.errors import FlickerError, SettingError
from simulator.flags import Wiring, parse_flags
from simulator.store.access import Access, has_password, user_of, without_password
from simulator.store.protocol import StoreAway, StoreError
from simulator.store.redis import open_store
from simulator.store.server import StoreServer
from tests.serving.router_under_test import until

LETTERS = st.text(st.characters(codec="ascii", exclude_categories=["Cc"]), min_size=1)


@given(LETTERS, LETTERS)
@example("user", "with/slash")
@example("user", "with#hash")
@example("user", "p@ss:word?")
@example("", "plain")
def test_whatever_the_password_a_url_is_shown_without_it(user: str, password: str) -> None:
    for url in (f"rediss://{user}:{password}@host:6379/0", f"rediss://{user}:{password}@host:6379/0?timeout=1"):
        assert has_password(url)
        if "password=" not in url:
            assert without_password(url) == "rediss://host:6379/0"


def test_other_urls_are_shown_as_they_are() -> None:
    for url in ("redis://host:6379/0", "unix:///run/redis.sock", "nowhere", ""):
        assert without_password(url) == url and not has_password(url)
    assert without_password("redis://host:1/0?username=me&password=s3@cret") == "redis://host:1/0"
    assert without_password("me:s3cret@host:1") == "host:1"
    assert user_of("rediss://some%40one@host:1") == "some@one" and user_of("redis://host:1") == ""


@pytest.mark.parametrize("url", ["redis://me:s3/cret@host", "redis://:s3[cret@host:1", "redis://:s3cret@host:port"])
def test_a_url_that_cannot_be_read_is_named_without_its_password(url: str) -> None:
    with pytest.raises(SettingError, match="^store = redis://host.*a URL such as .* letters of a password as %XX") as e:
        open_store(url)
    assert "s3" not in str(e.value) and "cret" not in str(e.value)


def test_a_password_is_no_argument(monkeypatch: pytest.MonkeyPatch) -> None:
    """Where everybody on the machine can read it; in the environment it may be."""
    url = "redis://me:s3cret@127.0.0.1:1/0"
    with pytest.raises(FlickerError, match=r"--store-password-file, or the URL into FLICKER_REDIS_URL") as caught:
        parse_flags(Wiring, "trainer", ["--store", url])
    assert "s3cret" not in str(caught.value)
    monkeypatch.setenv("FLICKER_REDIS_URL", url)
    assert parse_flags(Wiring, "trainer", []).store == url
    assert parse_flags(Wiring, "trainer", ["--store", "redis://me@127.0.0.1:1/0"]).store.startswith("redis://me@")


def test_a_password_comes_from_a_file_and_a_new_one_with_the_next_connection(
    own_server: StoreServer, tmp_path: Path
) -> None:
    file, address = tmp_path / "password", own_server.url.removeprefix("redis://")
    file.write_text("right\n")
    with redis.Redis.from_url(own_server.url, protocol=2) as client:
        client.acl_setuser("trainer", enabled=True, passwords=["+right"], keys=["*"], commands=["+ping"])
        client.config_set("requirepass", "right")
        store = open_store(f"redis://trainer@{address}", access=Access(password_file=file))
        store.ping()
        default = open_store(own_server.url, access=Access(password_file=file))
        default.ping()
        client.acl_setuser("trainer", enabled=True, reset_passwords=True, passwords=["+other"])
        client.client_kill_filter(_type="normal", skipme=True)
        file.write_text("other\n")

        def answers() -> bool:
            try:
                store.ping()
            except (StoreError, StoreAway):
                return False
            return True

        until(answers)
    with pytest.raises(StoreError, match="refuses the user or password"):
        open_store(f"redis://nobody@{address}", access=Access(password_file=file)).ping()
    store.close()
    default.close()


def test_two_passwords_are_one_too_many(tmp_path: Path) -> None:
    file = tmp_path / "password"
    file.write_text("right\n")
    with pytest.raises(SettingError, match="store = redis://host:1: store_password_file names another") as caught:
        open_store("redis://:s3cret@host:1", access=Access(password_file=file))
    assert "s3cret" not in str(caught.value)
    with pytest.raises(SettingError, match="store_password_file = .*No such file"):
        open_store("redis://host:1", access=Access(password_file=tmp_path / "nothing"))
