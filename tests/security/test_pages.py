"""The metrics page: who may read it, over real sockets."""

from __future__ import annotations

import socket
import ssl
import urllib.error
import urllib.request
from pathlib import Path

import psutil
import pytest
from prometheus_client import CollectorRegistry, Counter

from simulator.errors import SettingError
from simulator.security.credentials import PLAIN, Credentials
from simulator.security.pages import fetch, probe, serve_metrics
from tests.security.made import OTHER_TOKEN, TOKEN, Authority, secret
from tests.serving.router_under_test import until

HOST = "127.0.0.1"


def counted() -> CollectorRegistry:
    registry = CollectorRegistry()
    Counter("flicker_tests", "Made here.", registry=registry).inc(3)
    return registry


def code(address: str, credentials: Credentials) -> int:
    """Of the answer; 0 where there is none."""
    try:
        assert "flicker_tests_total 3.0" in fetch(address, credentials).splitlines()
    except urllib.error.HTTPError as problem:
        return problem.code
    except OSError:
        return 0
    return 200


def test_a_page_is_served_on_a_free_port_and_a_taken_one_is_named() -> None:
    registry = counted()
    port = serve_metrics(registry, 0, HOST, PLAIN)
    with urllib.request.urlopen(f"http://{HOST}:{port}/metrics") as page:
        assert "flicker_tests_total 3.0" in page.read().decode().splitlines()
    with pytest.raises(SettingError, match=rf"metrics_port = {port}: .*name a free port, or 0 for any"):
        serve_metrics(registry, port, HOST, PLAIN)


def test_the_page_shows_the_process_once_however_often_it_is_served() -> None:
    registry = CollectorRegistry()
    serve_metrics(registry, 0, HOST, PLAIN)
    lines = fetch(f"{HOST}:{serve_metrics(registry, 0, HOST, PLAIN)}", PLAIN).splitlines()
    found = {line.split()[0]: float(line.split()[1]) for line in lines if line.startswith("process_")}
    assert len(found) == sum(line.startswith("process_") for line in lines), "each once"
    own = psutil.Process()
    assert found["process_start_time_seconds"] == pytest.approx(own.create_time(), abs=2)
    assert found["process_resident_memory_bytes"] == pytest.approx(own.memory_info().rss, rel=0.2)
    assert 0 < found["process_cpu_seconds_total"] <= sum(own.cpu_times()[:2])


def test_a_page_lets_in_who_shows_a_certificate_or_a_token(tmp_path: Path) -> None:
    authority, stranger = Authority(tmp_path / "ca"), Authority(tmp_path / "other")
    token, wrong = secret(tmp_path / "token", TOKEN), secret(tmp_path / "wrong", OTHER_TOKEN)
    own = authority.issue("own")
    for server, lets in (
        (Credentials(**own, tls_ca=authority.ca), {"member": 200, "token": 401}),
        (Credentials(**own, token_file=token), {"member": 401, "token": 200}),
        (Credentials(**own, tls_ca=authority.ca, token_file=token), {"member": 200, "token": 200}),
    ):
        address = f"{HOST}:{serve_metrics(counted(), 0, HOST, server)}"
        asked = {"member": authority.member("reader"), "token": authority.client(token)}
        assert {name: code(address, how) for name, how in asked.items()} == lets
        assert code(address, authority.client()) == code(address, authority.client(wrong)) == 401
        assert code(address, PLAIN) == 0, "no TLS"
        assert code(address, stranger.client(token)) == 0, "it does not believe the server"
        forged = Credentials(**stranger.issue("forged"), tls_ca=authority.ca)
        assert code(address, forged) in (0, 401), "nobody knows who signed it"


def test_a_page_is_believed_by_the_name_that_it_is_asked_under(tmp_path: Path) -> None:
    """At an address that its certificate does not bear."""
    authority, stranger = Authority(tmp_path / "ca"), Authority(tmp_path / "other")
    reader = authority.member("reader")
    address = f"{HOST}:{serve_metrics(counted(), 0, HOST, authority.member('replica', 'replica'))}"
    assert "flicker_tests_total 3.0" in fetch(address, reader, name="replica")
    for believed, name in ((reader, ""), (reader, "router"), (reader, HOST), (stranger.client(), "replica")):
        with pytest.raises(OSError, match="CERTIFICATE_VERIFY_FAILED"):
            fetch(address, believed, name=name)


def test_a_page_without_tls_asks_for_the_token(tmp_path: Path) -> None:
    token = secret(tmp_path / "token", TOKEN)
    address = f"{HOST}:{serve_metrics(counted(), 0, HOST, Credentials(token_file=token))}"
    assert code(address, Credentials(token_file=token)) == 200
    with pytest.raises(urllib.error.HTTPError) as caught:
        fetch(address, PLAIN)
    assert caught.value.code == 401 and caught.value.headers["WWW-Authenticate"] == "Bearer"
    assert b"--token-file or FLICKER_TOKEN_FILE" in caught.value.read()


def test_who_connects_and_says_nothing_keeps_nobody_waiting(tmp_path: Path) -> None:
    authority = Authority(tmp_path)
    member = authority.member("own")
    port = serve_metrics(counted(), 0, HOST, member)
    silent = [socket.create_connection((HOST, port)) for _ in range(5)]
    assert code(f"{HOST}:{port}", member) == 200
    for connection in silent:
        connection.close()


def test_a_new_certificate_is_shown_without_a_restart(tmp_path: Path) -> None:
    old, new = Authority(tmp_path / "old"), Authority(tmp_path / "new")
    own, token = old.issue("own"), secret(tmp_path / "token", TOKEN)
    address = f"{HOST}:{serve_metrics(counted(), 0, HOST, Credentials(**own, token_file=token))}"
    assert code(address, old.client(token)) == 200 and code(address, new.client(token)) == 0
    for name, file in new.issue("own").items():
        own[name].write_bytes(file.read_bytes())
    until(lambda: code(address, new.client(token)) == 200)
    assert code(address, old.client(token)) == 0


def test_a_probe_says_in_one_line_what_is_wrong(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    authority = Authority(tmp_path / "ca")
    token = secret(tmp_path / "token", TOKEN)
    server = Credentials(**authority.issue("own"), token_file=token)
    address = f"{HOST}:{serve_metrics(counted(), 0, HOST, server)}"
    monkeypatch.setenv("FLICKER_TLS_CA", str(authority.ca))
    with pytest.raises(SystemExit, match="401"):
        probe(address)
    monkeypatch.setenv("FLICKER_TOKEN_FILE", str(token))
    probe(address)
    monkeypatch.setenv("FLICKER_TLS_CA", str(tmp_path / "nothing"))
    with pytest.raises(SystemExit, match="tls_ca = .*No such file"):
        probe(address)


def test_old_tls_is_refused(tmp_path: Path) -> None:
    member = Authority(tmp_path).member("own")
    port = serve_metrics(counted(), 0, HOST, member)
    context = member.client_context()
    assert context is not None
    with pytest.warns(DeprecationWarning):
        context.maximum_version = ssl.TLSVersion.TLSv1_1
    with socket.create_connection((HOST, port)) as connection, pytest.raises(OSError):
        context.wrap_socket(connection, server_hostname=HOST)
