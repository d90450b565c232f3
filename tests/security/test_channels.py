"""gRPC servers of ours over real sockets: who is let in, what the others are told, certificates that change."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import grpc
import pytest
from grpc_health.v1 import health_pb2, health_pb2_grpc
from grpc_reflection.v1alpha import reflection_pb2, reflection_pb2_grpc
from prometheus_client import CollectorRegistry

from protos.channel import router_channel
from serving import health
from serving.metrics import GrpcMetrics
from serving.rpc import Door, GrpcServer, Handler, Limits, Reply
from simulator.errors import SettingError
from simulator.security.channels import NAME, connect, require_name
from simulator.security.credentials import PLAIN, Credentials
from tests.security.made import OTHER_TOKEN, TOKEN, Authority, secret
from tests.serving.router_under_test import until

METHOD = "/test.Service/Method"


@dataclass
class Served:
    """A server that says back what it gets."""

    address: str
    registry: CollectorRegistry
    asked: list[bytes]

    def code(self, credentials: Credentials, options: tuple[tuple[str, str], ...] = ()) -> str:
        """Of a call."""
        return self.said(credentials, options)[0]

    def said(self, credentials: Credentials, options: tuple[tuple[str, str], ...] = ()) -> tuple[str, str]:
        """Code and details."""
        with connect(credentials, self.address, options) as channel:
            try:
                assert channel.unary_unary(METHOD)(b"hello", timeout=10) == b"hello"
            except grpc.RpcError as problem:
                assert isinstance(problem, grpc.Call)
                return problem.code().name, problem.details() or ""
        return "OK", ""


@contextmanager
def serving(credentials: Credentials) -> Iterator[Served]:
    registry, asked = CollectorRegistry(), list[bytes]()

    def echo(raw: bytes, reply: Reply) -> None:
        asked.append(raw)
        reply.end(raw, None)

    door = Door(Limits(calls=10, request_bytes=1 << 20), GrpcMetrics(registry, (1.0,)))
    methods = {"Method": Handler(echo, "server", sheds=True)}
    server = GrpcServer("test.Service", methods, door, ("127.0.0.1", 0), credentials=credentials)
    server.serving(True)
    server.start()
    try:
        yield Served(server.address, registry, asked)
    finally:
        server.stop(1.0)


@pytest.fixture
def authority(tmp_path: Path) -> Authority:
    return Authority(tmp_path / "ca")


def test_who_shows_no_certificate_gets_no_connection(tmp_path: Path, authority: Authority) -> None:
    stranger = Authority(tmp_path / "other")
    token = secret(tmp_path / "token", TOKEN)
    with serving(authority.member("server")) as server:
        assert server.code(authority.member("caller")) == "OK"
        for other in (
            PLAIN,
            authority.client(),
            authority.client(token),
            stranger.member("caller"),
            Credentials(**stranger.issue("forged"), tls_ca=authority.ca),
        ):
            assert server.code(other) == "UNAVAILABLE", other
        assert server.asked == [b"hello"]


def test_who_sends_no_token_is_told_what_to_set_before_his_request_is_read(
    tmp_path: Path, authority: Authority
) -> None:
    token, wrong = secret(tmp_path / "token", TOKEN), secret(tmp_path / "wrong", OTHER_TOKEN)
    with serving(Credentials(**authority.issue("server"), token_file=token)) as server:
        assert server.code(authority.client(token)) == "OK"
        for other in (authority.client(), authority.client(wrong), authority.member("caller")):
            refused, told = server.said(other)
            assert refused == "UNAUTHENTICATED", other
            assert "--token-file or FLICKER_TOKEN_FILE" in told and "authorization: Bearer" in told
            assert TOKEN not in told and OTHER_TOKEN not in told
        assert server.code(PLAIN) == "UNAVAILABLE"
        assert server.asked == [b"hello"]
        assert server.registry.get_sample_value("flicker_rpc_refused_total", {"reason": "no_token"}) == 3
        assert server.registry.get_sample_value("flicker_rpc_in_flight") == 0


def test_a_token_is_needed_for_everything_else_too(tmp_path: Path, authority: Authority) -> None:
    """Health, its stream, reflection and methods that are not there: none of them says anything without one."""
    token = secret(tmp_path / "token", TOKEN)
    with serving(Credentials(token_file=token)) as server, grpc.insecure_channel(server.address) as channel:
        check, names = health_pb2.HealthCheckRequest(), reflection_pb2.ServerReflectionRequest(list_services="")
        stub, shown = health_pb2_grpc.HealthStub(channel), (("authorization", f"Bearer {TOKEN}"),)
        reflected = reflection_pb2_grpc.ServerReflectionStub(channel).ServerReflectionInfo
        asked = {
            "Check": lambda sent: stub.Check(check, timeout=10, metadata=sent),
            "Watch": lambda sent: next(stub.Watch(check, timeout=10, metadata=sent)),
            "reflection": lambda sent: next(reflected(iter([names]), timeout=10, metadata=sent)),
            "nothing": lambda sent: channel.unary_unary("/test.Service/Nothing")(b"", timeout=10, metadata=sent),
        }
        for name, ask in asked.items():
            for sent in ((), (("authorization", "Bearer wrong"),), (("authorization", TOKEN),)):
                with pytest.raises(grpc.RpcError) as caught:
                    ask(sent)
                assert caught.value.code() is grpc.StatusCode.UNAUTHENTICATED, name
        assert asked["Check"](shown).status == asked["Watch"](shown).status == health_pb2.HealthCheckResponse.SERVING
        assert asked["reflection"](shown).list_services_response.service
        with pytest.raises(grpc.RpcError) as caught:
            asked["nothing"](shown)
        assert caught.value.code() is grpc.StatusCode.UNIMPLEMENTED


def test_a_probe_is_answered_with_a_certificate_or_a_token(tmp_path: Path, authority: Authority) -> None:
    member, token = authority.member("server"), secret(tmp_path / "token", TOKEN)
    with serving(member) as server:
        assert health.complaint(server.address, "", 10, member) == ""
        assert health.complaint(server.address, "", 10, authority.client()).startswith("UNAVAILABLE: ")
        flags = [f"--tls-ca={authority.ca}", f"--tls-cert={member.tls_cert}", f"--tls-key={member.tls_key}"]
        health.main([server.address, "--timeout=10", *flags])
    with serving(Credentials(**authority.issue("server"), token_file=token)) as server:
        assert health.complaint(server.address, "", 10, authority.client(token)) == ""
        assert health.complaint(server.address, "", 10, authority.client()).startswith(
            "UNAUTHENTICATED: no valid token"
        )


def test_a_server_is_believed_by_its_name(tmp_path: Path, authority: Authority) -> None:
    """As routers call replicas, whose addresses no certificate can bear."""
    caller = authority.member("caller")
    with serving(authority.member("server", "replica")) as server:
        assert server.code(caller) == "UNAVAILABLE"
        assert server.code(caller, ((NAME, "router"),)) == "UNAVAILABLE"
        assert server.code(caller, ((NAME, "replica"),)) == "OK"
    require_name("name", "replica.flicker.svc")
    with pytest.raises(SettingError, match="name = a b: a name or address as certificates bear it"):
        require_name("name", "a b")


def test_several_routers_are_asked_in_turn_by_tls(tmp_path: Path, authority: Authority) -> None:
    token = secret(tmp_path / "token", TOKEN)
    with serving(Credentials(**authority.issue("one"), token_file=token)) as one:
        with serving(Credentials(**authority.issue("two"), token_file=token)) as two:
            addresses = f"localhost:{one.address.rpartition(':')[2]},{two.address}"
            with router_channel(addresses, partial(connect, authority.client(token))) as channel:
                ask = channel.unary_unary(METHOD)

                def both_asked() -> bool:
                    ask(b"hello", timeout=10, wait_for_ready=True)
                    return bool(one.asked and two.asked)

                until(both_asked)


def test_tokens_change_without_a_restart(tmp_path: Path) -> None:
    tokens, client = secret(tmp_path / "tokens", TOKEN), secret(tmp_path / "client", TOKEN)
    shown = Credentials(token_file=client)
    with serving(Credentials(token_file=tokens)) as server, connect(shown, server.address) as channel:
        ask = channel.unary_unary(METHOD)
        ask(b"hello", timeout=10)
        secret(tokens, OTHER_TOKEN, TOKEN)  # both, until all clients have the new one
        secret(client, OTHER_TOKEN)
        until(lambda: server.code(Credentials(token_file=client)) == "OK")
        secret(tokens, OTHER_TOKEN)
        until(lambda: server.code(Credentials(token_file=secret(tmp_path / "old", TOKEN))) == "UNAUTHENTICATED")
        ask(b"hello", timeout=10)


def test_certificates_change_without_a_restart_and_broken_ones_change_nothing(tmp_path: Path) -> None:
    old, new = Authority(tmp_path / "old"), Authority(tmp_path / "new")
    own, token = old.issue("own"), secret(tmp_path / "token", TOKEN)
    with serving(Credentials(**own, token_file=token)) as server:
        with connect(old.client(token), server.address) as channel:
            ask = channel.unary_unary(METHOD)
            ask(b"hello", timeout=10)
            own["tls_key"].write_text("half a key")
            assert server.code(old.client(token)) == "OK"
            for name, file in new.issue("own").items():
                own[name].write_bytes(file.read_bytes())
            until(lambda: server.code(new.client(token)) == "OK")
            assert server.code(old.client(token)) == "UNAVAILABLE"
            ask(b"hello", timeout=10)  # a connection that is there stays


def test_a_token_is_not_sent_in_the_clear(tmp_path: Path) -> None:
    with pytest.raises(SettingError, match="token_file = .*must not travel unencrypted to router:50051"):
        connect(Credentials(token_file=secret(tmp_path / "token", TOKEN)), "router:50051")
