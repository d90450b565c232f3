"""The system of docker-compose.secure.yml in real processes: all of it works, and who has no secret is not let in."""

from __future__ import annotations

import shutil
import socket
import ssl
import urllib.error
from collections.abc import Iterator
from contextlib import closing, contextmanager
from http.client import HTTPConnection, HTTPException, HTTPSConnection
from pathlib import Path

import pytest
import redis
from grpc_health.v1 import health_pb2, health_pb2_grpc

from protos.recommender_pb2 import RecommendRequest
from serving import health
from simulator.security.channels import NAME, connect
from simulator.security.credentials import PLAIN, Credentials, read_secrets
from simulator.security.pages import fetch
from simulator.store.access import Access
from simulator.store.protocol import Member, StoreAway, StoreError
from simulator.store.redis import RedisStore
from tests.composed import make_secrets
from tests.integration.secured import Secured, served_until
from tests.integration.system import refusal, until
from tests.security.made import TOKEN, Authority, secret

pytestmark = pytest.mark.skipif(shutil.which("openssl") is None, reason="no openssl on PATH")
PATIENCE = 120.0
"""Seconds until all serves: many on a busy machine."""
SECONDS = 30.0
"""For one answer."""
RECOMMEND, RANK = "/flicker.v1.Recommender/Recommend", "/flicker.v1.Replica/Rank"


def test_the_system_of_the_secure_overlay(tmp_path: Path) -> None:
    """One test, since all of it is one system: several workers would start several."""
    with running(tmp_path / "system") as system:
        everything_works(system)
        the_router_takes_nothing_without_a_token(system, tmp_path)
        replicas_take_nothing_without_a_certificate(system, tmp_path)
        metrics_pages_show_nothing_without_either(system)
        the_live_page_opens_for_its_token_by_https_alone(system)
        the_store_asks_who_it_is_and_lets_each_do_its_own_work(system)
        old_tls_is_refused(system)
        no_secret_is_in_arguments_environments_logs_or_files(system)
        secrets_change_under_load_without_a_restart_or_a_failure(system)
        a_generation_that_is_not_signed_is_served_by_nobody(system)


@contextmanager
def running(folder: Path) -> Iterator[Secured]:
    """All of it, with traffic."""
    folder.mkdir()
    started = Secured(folder)
    try:
        started.start_all()
        until(lambda: started.page("router").value("flicker_router_replicas", healthy="true") == 2, "serves", PATIENCE)
        started.start_load()
        until(lambda: answered(started) > 20, "users are answered", PATIENCE)
        yield started
    finally:
        started.stop()
    for name in started.children:
        assert "Traceback" not in started.log(name), started.log(name)


def answered(system: Secured) -> float:
    return system.page("load").total("flicker_load_calls_total", method="Recommend", code="OK")


def failed(system: Secured) -> float:
    page = system.page("load")
    assert page.samples, system.log("load")
    return page.total("flicker_load_failures_total")


def code_of(address: str, credentials: Credentials, method: str = RECOMMEND, name: str = "") -> str:
    """Of a call with an empty request."""
    with connect(credentials, address, ((NAME, name),) if name else ()) as channel:
        call = channel.unary_unary(method)  # type: ignore[call-arg]
        return refusal(lambda: call(b"\xff", timeout=SECONDS))[0].name


def everything_works(system: Secured) -> None:
    """Learning, publishing, ranking, comparing, feedback, probes, and a person who asks."""
    router = lambda: system.page("router")  # noqa: E731
    until(lambda: router().value("flicker_router_generation") >= 3, "generations go on", PATIENCE)
    until(lambda: router().total("flicker_compared_total", cause="refresh") > 0, "answers are compared", PATIENCE)
    until(lambda: router().total("flicker_feedback_events_total") > 0, "feedback comes", PATIENCE)
    assert failed(system) == 0
    user = system.secrets / "user"
    asked = system.query("--tls-ca", f"{user}/ca.crt", "--token-file", f"{user}/token", "--user", "7", "--all")
    assert asked.returncode == 0 and "duplicate 1" in asked.stdout, asked.stderr
    assert health.complaint(system.ready("router")["address"], "", SECONDS, system.credentials("user")) == ""
    for name in ("replica-0", "replica-1"):
        assert health.complaint(system.ready(name)["address"], "", SECONDS, system.credentials("replica")) == ""
    for name in ("trainer", "replica-0", "router"):
        assert not system.page(name).total("flicker_snapshots_refused_total"), name


def the_router_takes_nothing_without_a_token(system: Secured, tmp_path: Path) -> None:
    address = system.ready("router")["address"]
    guessed = Credentials(tls_ca=system.secrets / "user/ca.crt", token_file=secret(tmp_path / "token", TOKEN))
    assert code_of(address, PLAIN) == "UNAVAILABLE", "no TLS"
    for other in (system.stranger(), guessed, system.credentials("replica")):
        assert code_of(address, other) == "UNAUTHENTICATED"
    assert code_of(address, system.credentials("user")) == "INVALID_ARGUMENT", "it was read"
    unasked = system.query("--tls-ca", f"{system.secrets}/user/ca.crt")
    assert unasked.returncode == 2 and "--token-file or FLICKER_TOKEN_FILE" in unasked.stderr
    with connect(system.stranger(), address) as channel:
        check = health_pb2_grpc.HealthStub(channel).Check
        assert refusal(lambda: check(health_pb2.HealthCheckRequest(), timeout=SECONDS))[0].name == "UNAUTHENTICATED"


def replicas_take_nothing_without_a_certificate(system: Secured, tmp_path: Path) -> None:
    address, other = system.ready("replica-0")["address"], Authority(tmp_path)
    forged = Credentials(**other.issue("router", "router"), tls_ca=system.secrets / "user/ca.crt")
    for stranger in (PLAIN, system.stranger(), system.credentials("user"), forged):
        assert code_of(address, stranger, RANK, "replica") == "UNAVAILABLE"
    assert code_of(address, system.credentials("router"), RANK, "replica") == "INVALID_ARGUMENT", "it was read"


def metrics_pages_show_nothing_without_either(system: Secured) -> None:
    for name, port in system.pages.items():
        address = f"127.0.0.1:{port}"
        with pytest.raises(urllib.error.HTTPError, match="401"):
            fetch(address, system.stranger(), SECONDS)
        with pytest.raises(OSError):
            fetch(address, PLAIN, SECONDS)
        assert system.page(name).samples


def the_live_page_opens_for_its_token_by_https_alone(system: Secured) -> None:
    address, context = system.start_page(), system.stranger().client_context()
    token = (system.secrets / "user/page.token").read_text().strip()

    def status(path: str, tls: ssl.SSLContext | None = context) -> int:
        opened = HTTPConnection(address, timeout=SECONDS)
        if tls:
            opened = HTTPSConnection(address, timeout=SECONDS, context=tls)
        with closing(opened) as connection:
            try:
                connection.request("GET", path)
                return connection.getresponse().status
            except (OSError, HTTPException):
                return 0

    until(lambda: status("/healthz") == 200, "the page listens", PATIENCE)
    assert status("/healthz", None) == status("/healthz", ssl.create_default_context()) == 0, "no TLS, or not believed"
    assert status("/") == status(f"/?token={token[1:]}") == 403
    assert status(f"/?token={token}") == 303


def the_store_asks_who_it_is_and_lets_each_do_its_own_work(system: Secured) -> None:
    with pytest.raises(redis.RedisError), redis.Redis(port=system.store_port) as clear:
        clear.ping()
    with pytest.raises(StoreError, match="refuses the user or password"):
        RedisStore(system.store, run="secure", capacity=1, access=Access(system.stranger())).ping()
    with pytest.raises(StoreError, match="refuses the user or password"):
        system.open_store("trainer", password_of="load").ping()
    with pytest.raises(StoreAway):  # it believes only those whom this machine does
        RedisStore(system.store, run="secure", capacity=1, patience=0.1).ping()
    about = {"generation": 10**6}
    stores = {user: system.open_store(user) for user in ("load", "router", "replica")}
    for user, forbidden in (
        ("load", lambda store: store.newest()),
        ("load", lambda store: store.announce(Member("intruder", "10.0.0.1:1", 0, 0), 3.0)),
        ("router", lambda store: store.publish(10**6, {"catalog": b""}, about)),
        ("replica", lambda store: store.publish(10**6, {"catalog": b""}, about)),
        ("replica", lambda store: store.leave("trainer")),
    ):
        with pytest.raises(StoreError, match="refuses.*(NOPERM|permission)"):
            forbidden(stores[user])
    for store in stores.values():
        store.close()


def no_secret_is_in_arguments_environments_logs_or_files(system: Secured) -> None:
    secrets, shown = system.all_secrets(), system.shown()
    assert len(secrets) > 20 and len(shown) >= 2 * len(system.children)
    found = [(where, what) for where, text in shown.items() for what, value in secrets.items() if value in text]
    assert found == []
    assert b"FLICKER_TOKEN_FILE=" in shown["environ of router"], "it was looked at"


def secrets_change_under_load_without_a_restart_or_a_failure(system: Secured) -> None:
    router = system.ready("router")["address"]
    ports = [router, system.ready("replica-0")["address"], f"127.0.0.1:{system.pages['trainer']}"]
    before = [served_until(system.stranger(), port) for port in ports]
    tokens = system.secrets / "router/tokens"
    secret(system.secrets / "user/token", TOKEN)
    secret(tokens, TOKEN, *((system.secrets / name / "token").read_text().strip() for name in ("load", "page")))
    make_secrets(system.secrets, RENEW_DAYS="366")  # all certificates anew

    def renewed() -> bool:
        now = [served_until(system.stranger(), port) for port in ports]
        return all("BEGIN" in new and new != old for new, old in zip(now, before, strict=True))

    until(renewed, "every port shows its new certificate", PATIENCE)
    until(lambda: "with new certificates" in system.log("router"), "the router connects anew", PATIENCE)
    with connect(system.credentials("user"), router) as channel:
        ask = channel.unary_unary(RECOMMEND)  # type: ignore[call-arg]
        assert ask(RecommendRequest(user=1).SerializeToString(), timeout=SECONDS)
    more = answered(system) + 40
    until(lambda: answered(system) >= more, "users are answered on", PATIENCE)
    assert failed(system) == 0
    assert system.page("router").value("flicker_router_replicas", healthy="true") == 2


def old_tls_is_refused(system: Secured) -> None:
    context = ssl.create_default_context(cafile=str(system.secrets / "user/ca.crt"))
    with pytest.warns(DeprecationWarning):
        context.maximum_version = ssl.TLSVersion.TLSv1_1
    for address in (system.ready("router")["address"], f"127.0.0.1:{system.pages['router']}"):
        host, _, port = address.rpartition(":")
        with socket.create_connection((host, int(port)), 10) as connection, pytest.raises(OSError):
            context.wrap_socket(connection, server_hostname=host)


def a_generation_that_is_not_signed_is_served_by_nobody(system: Secured) -> None:
    """The trainer ends, and somebody who has its password, and not the key, takes its place."""
    system.children["trainer"].stop(30.0)
    key = read_secrets("key", system.secrets / "trainer/signing.key")
    store, reader = system.open_store("trainer"), system.open_store("trainer", lambda: key)
    last = store.newest()
    parts = {name: bytes(reader.fetch(last, name)) for name in ("catalog", "duplicate/0", "duplicate/1")}
    store.publish(last + 1, parts, reader.about(last) | {"generation": last + 1})
    everyone = "router", "replica-0", "replica-1"

    def refused(name: str) -> bool:
        return system.page(name).total("flicker_snapshots_refused_total", reason="signature") == 1

    until(lambda: all(map(refused, everyone)), "all refuse it", PATIENCE)
    for name in everyone:
        assert f"generation {last + 1} is not signed: give its trainer the same --signing-key" in system.log(name)
    assert system.page("router").value("flicker_router_generation") == last
    store.close()
    reader.close()
