"""With docker-compose.secure.yml: all of it works, every port refuses who has no secret, and no secret can be seen."""

from __future__ import annotations

import http.client
import json
import socket
import ssl
from pathlib import Path
from typing import Any
from urllib.parse import urlencode

import grpc
import pytest

from protos.recommender_pb2 import RecommendRequest
from protos.recommender_pb2_grpc import RecommenderStub, ReplicaStub
from tests.containers.engine import Container, containers, get, until

SECRETS = Path("/secrets")
"""All that docker-compose.secure.yml has made, a folder for each process."""
SERVICES = ("secrets", "redis", "trainer", "replica", "router", "load", "page", "prometheus", "grafana")
PAGES = ("trainer", "replica", "router", "load")


def secret(name: str) -> bytes:
    """Of a file, its first line."""
    return (SECRETS / name).read_bytes().splitlines()[0]


def context(folder: str = "") -> ssl.SSLContext:
    """TLS that believes the authority, with the certificate of a process where one is named."""
    found = ssl.create_default_context(cafile=str(SECRETS / "user/ca.crt"))
    if folder:
        found.load_cert_chain(SECRETS / folder / "tls.crt", SECRETS / folder / "tls.key")
    return found


def status(host: str, port: int, path: str, folder: str = "", **headers: str) -> tuple[int, str]:
    """Code and text of a page."""
    connection = http.client.HTTPSConnection(host, port, timeout=20, context=context(folder))
    try:
        connection.request("GET", path, headers=headers)
        answer = connection.getresponse()
        return answer.status, answer.read().decode()
    finally:
        connection.close()


def prometheus(path: str, **query: str) -> Any:
    """The `data` of an answer of Prometheus's HTTP API."""
    code, text = status("prometheus", 9090, f"/api/v1/{path}?{urlencode(query)}", "prometheus")
    assert code == 200, text
    return json.loads(text)["data"]


def value_of(expression: str) -> float:
    """Of the only sample that an expression gives; 0 where it gives none."""
    found = prometheus("query", query=expression)["result"]
    return float(found[0]["value"][1]) if found else 0.0


def channel(address: str, folder: str = "", name: str = "") -> grpc.Channel:
    """As `context`."""
    files = (SECRETS / folder / file for file in ("tls.key", "tls.crt"))
    key, cert = (file.read_bytes() for file in files) if folder else (None, None)
    credentials = grpc.ssl_channel_credentials((SECRETS / "user/ca.crt").read_bytes(), key, cert)
    return grpc.secure_channel(address, credentials, [("grpc.ssl_target_name_override", name)] if name else [])


def code_of(opened: grpc.Channel, stub: Any = RecommenderStub, method: str = "Recommend", token: str = "") -> str:
    """Of a call."""
    with opened:
        call = getattr(stub(opened), method)
        sent = (("authorization", f"Bearer {token}"),) if token else ()
        try:
            call(RecommendRequest(user=7), timeout=20, metadata=sent)
        except grpc.RpcError as problem:
            assert isinstance(problem, grpc.Call)
            return problem.code().name
    return "OK"


@pytest.mark.parametrize("service", SERVICES)
def test_every_service_runs_and_is_healthy(service: str) -> None:
    found = containers(service)
    assert found and all(container.is_healthy() for container in found)


def test_prometheus_reads_every_process_by_tls() -> None:
    def up() -> set[str]:
        targets = prometheus("targets")["activeTargets"]
        assert all(target["scrapeUrl"].startswith("https://") for target in targets)
        return {target["labels"]["job"] for target in targets if target["health"] == "up"}

    until(lambda: up() >= {*PAGES, "prometheus"}, 60, "not all targets are up")


def test_users_are_answered_and_their_clicks_learned() -> None:
    answered = 'sum(flicker_load_calls_total{method="Recommend",code="OK"})'
    until(lambda: value_of(answered) > 200, 120, "too few answers", pause=1)
    until(lambda: value_of("max(flicker_router_generation)") >= 2, 120, "no second generation", pause=1)
    until(lambda: value_of("sum(flicker_feedback_events_total)") > 0, 60, "no feedback", pause=1)
    # on a busy machine some come too late; nobody is turned away
    others = 'sum(flicker_load_calls_total{code!~"OK|DEADLINE_EXCEEDED|UNAVAILABLE"})'
    assert value_of(others) == 0
    assert value_of(answered) > 0.5 * value_of('sum(flicker_load_calls_total{method="Recommend"})')
    assert value_of("sum(flicker_snapshots_refused_total)") == 0


def test_the_router_asks_for_a_token() -> None:
    token = secret("user/token").decode()
    assert code_of(channel("router:50051"), token=token) == "OK"
    assert code_of(channel("router:50051")) == code_of(channel("router:50051", "replica")) == "UNAUTHENTICATED"
    assert code_of(channel("router:50051"), token=token[:-1]) == "UNAUTHENTICATED"
    assert code_of(grpc.insecure_channel("router:50051"), token=token) == "UNAVAILABLE"


def test_replicas_ask_for_a_certificate() -> None:
    for opened in (channel("replica:50051"), grpc.insecure_channel("replica:50051")):
        assert code_of(opened, ReplicaStub, "Rank", secret("user/token").decode()) == "UNAVAILABLE"
    # not a RankRequest, but it is read
    assert code_of(channel("replica:50051", "router"), ReplicaStub, "Rank") == "INVALID_ARGUMENT"


def test_pages_ask_for_a_certificate_or_a_password() -> None:
    for service in PAGES:
        assert status(service, 9100, "/metrics")[0] == 401
        assert status(service, 9100, "/metrics", "prometheus")[0] == 200
    with pytest.raises(OSError):
        status("prometheus", 9090, "/metrics")
    with socket.socket() as probe:
        assert probe.connect_ex(("load", 8089)) != 0, "Locust has no page"


def test_the_live_page_asks_for_its_token() -> None:
    token = secret("user/page.token").decode()
    assert status("page", 8080, "/healthz") == (200, "ok\n")
    assert status("page", 8080, "/", Host="localhost:8080")[0] == 403
    assert status("page", 8080, f"/?token={token}", Host="localhost:8080")[0] == 303
    cookie = f"flicker_page_8080={token}"
    assert status("page", 8080, "/", Host="localhost:8080", Cookie=cookie)[0] == 200
    with pytest.raises((OSError, http.client.HTTPException)):
        plain = http.client.HTTPConnection("page", 8080, timeout=20)
        plain.request("GET", "/healthz")
        plain.getresponse()


def test_the_store_asks_for_a_user() -> None:
    with socket.create_connection(("redis", 6379), 20) as plain:
        with context().wrap_socket(plain, server_hostname="redis") as connection:
            connection.sendall(b"PING\r\n")
            assert connection.recv(100).startswith(b"-NOAUTH")


def test_processes_know_their_own_networks_alone() -> None:
    for service, stranger in (("load", "grafana"), ("router", "grafana"), ("replica", "grafana"), ("page", "redis")):
        said = containers(service)[0].run(f"getent hosts {stranger} || echo nobody")
        assert said.strip() == "nobody", (service, stranger, said)


def seen(container: Container) -> bytes:
    """What others can see of a container: environment, arguments of its processes, what it said."""
    about = container.inspect()
    processes = get(f"/containers/{container.id}/top", ps_args="-eo pid,args")["Processes"]
    return json.dumps([about["Config"], about["Args"], processes, container.logs()]).encode()


def test_no_secret_is_in_environments_arguments_or_logs() -> None:
    files = [file for file in SECRETS.rglob("*") if file.suffix in (".password", ".key") or "token" in file.name]
    secrets = {line for file in files for line in file.read_bytes().splitlines() if b"-----" not in line}
    assert len(secrets) > 20
    for container in containers():
        text = seen(container)
        assert b"secrets" in text or container.service == "checks", "it was looked at"
        assert [line for line in secrets if line in text] == [], container.service
