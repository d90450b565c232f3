"""`flicker shadow` over real sockets, between real clients and real model servers."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import grpc
import numpy as np
import pytest
from grpc_health.v1 import health_pb2, health_pb2_grpc
from prometheus_client import CollectorRegistry

from protos import inference_pb2 as pb
from protos.inference_pb2_grpc import GRPCInferenceServiceStub
from serving.proxy import mirror
from serving.proxy.flags import ShadowFlags
from serving.proxy.main import RunningProxy
from simulator.errors import FlickerError, SettingError
from simulator.flags import Secured, parse_flags
from simulator.measures.registry import MEASURES
from simulator.predictions.compare import compare_frames
from simulator.security.credentials import Credentials
from simulator.types import Floats
from tests.security.made import TOKEN, Authority, secret
from tests.serving.model_server import ModelServer, answer, request, serving
from tests.serving.processes import ROOT, process
from tests.serving.router_under_test import refusal, until

INFER = "/inference.GRPCInferenceService/ModelInfer"


@dataclass(frozen=True)
class Asked:
    """A running proxy, and its client."""

    channel: grpc.Channel
    registry: CollectorRegistry

    @property
    def stub(self) -> GRPCInferenceServiceStub:
        return GRPCInferenceServiceStub(self.channel)

    @property
    def raw(self) -> Any:
        return self.channel.unary_unary(INFER)

    def metric(self, name: str, **labels: str) -> float:
        return self.registry.get_sample_value(name, labels) or 0.0

    def failed(self, code: str) -> float:
        return self.metric("flicker_comparisons_failed_total", cause="duplicate", code=code)

    def compared(self, measure: str = "slate", arm: str = "ranker") -> float:
        return self.metric("flicker_compared_total", arm=arm, cause="duplicate", measure=measure)

    def ratios(self, arm: str = "ranker") -> dict[str, float]:
        labels = {"arm": arm, "cause": "duplicate"}
        parts = {
            name: [self.metric(f"flicker_{each}_total", measure=name, **labels) for each in ("differences", "compared")]
            for name in MEASURES
        }
        return {name: over / under for name, (over, under) in parts.items() if under}


@contextmanager
def proxied(first: ModelServer | str, second: ModelServer | str = "", **settings: Any) -> Iterator[Asked]:
    """A proxy that asks twice for everything, until the end."""
    defaults = {"sample": 1.0, "items": "items", "scores_are": "logits", "second_deadline": 10.0}
    one, two = (each if isinstance(each, str) else each.address for each in (first, second))
    flags = ShadowFlags(first=one, second=two, **(defaults | settings))
    registry = CollectorRegistry()
    proxy = RunningProxy(flags, registry, threading.Event())
    proxy.start()
    try:
        with grpc.insecure_channel(proxy.address) as channel:
            yield Asked(channel, registry)
    finally:
        proxy.stop()


@pytest.fixture
def first() -> Iterator[ModelServer]:
    with serving(1) as server:
        yield server


@pytest.fixture
def second() -> Iterator[ModelServer]:
    with serving(2) as server:
        yield server


def queries(count: int, rows: int = 1, items: int = 30) -> list[bytes]:
    """Requests of `rows` queries each, as bytes."""
    draw = np.random.default_rng(5)
    found = []
    for number in range(count):
        asked = np.stack([draw.permutation(1_000)[:items] for _ in range(rows)])
        found.append(request(draw.integers(0, 99, rows), asked, id=f"q{number}").SerializeToString())
    return found


def ask_all(call: Any, requests: list[bytes]) -> list[bytes]:
    """All at once."""
    return [future.result() for future in [call.future(raw) for raw in requests]]


def offline(folder: Path, **names: Any) -> dict[str, float]:
    """What `flicker compare` computes from what was kept."""
    (arm,) = compare_frames([folder / side for side in mirror.SIDES], **names).arms
    return {name: arm.measures[f"swaps.{name}"].mean for name in MEASURES if f"swaps.{name}" in arm.measures}


def test_answers_are_the_first_servers_byte_for_byte(first: ModelServer, second: ModelServer) -> None:
    asked = queries(1_000, rows=2)
    with grpc.insecure_channel(first.address) as channel, proxied(first, second, sample=0.1) as proxy:
        direct = ask_all(channel.unary_unary(INFER), asked)
        assert ask_all(proxy.raw, asked) == direct
        strange = b"\x0a\x03one\xfa\x07\x03abc" + asked[0][:-1]  # an unknown field, and cut short
        for raw in (b"", strange):
            assert refusal(lambda raw=raw: proxy.raw(raw)) == refusal(lambda raw=raw: channel.unary_unary(INFER)(raw))
        until(lambda: proxy.compared() > 100)
    assert set(second.asked) <= set(first.asked)


def test_errors_and_metadata_pass_both_ways(first: ModelServer, second: ModelServer) -> None:
    with proxied(first, second) as proxy:
        with pytest.raises(grpc.RpcError) as error:
            proxy.raw(pb.ModelInferRequest(id="empty").SerializeToString())
        assert error.value.code() is grpc.StatusCode.INVALID_ARGUMENT
        assert error.value.details() == "inputs = none: give \u00b5 some"
        assert ("reason-bin", b"\0none") in error.value.trailing_metadata()
        (one,) = queries(1)
        _, call = proxy.raw.with_call(one, metadata=(("authorization", "Bearer of the first"),))
        assert ("served-by", "1") in call.initial_metadata()
        assert ("authorization", "Bearer of the first") in first.metadata
        until(lambda: proxy.compared() == 1)
        assert "authorization" not in dict(second.metadata)  # what is for one server is not told to the other


def wordless(asked: Iterator[bytes], context: grpc.ServicerContext) -> Iterator[bytes]:
    """OK, and no answer: no server of ModelInfer may."""
    return iter(list(asked)[1:])


def detailed(asked: Iterator[bytes], context: grpc.ServicerContext) -> Iterator[bytes]:
    """An error with details, as google.rpc.Status."""
    context.set_trailing_metadata((("grpc-status-details-bin", b"\x08\x05"),))
    context.abort(grpc.StatusCode.NOT_FOUND, "no such model")


@contextmanager
def streaming(behaviour: Callable[..., Iterator[bytes]]) -> Iterator[str]:
    """The address of a server of which ModelInfer is a stream, whatever the protocol says."""
    server = grpc.server(ThreadPoolExecutor(4))
    service, method = INFER[1:].split("/")
    handlers = {method: grpc.stream_stream_rpc_method_handler(behaviour)}
    server.add_generic_rpc_handlers((grpc.method_handlers_generic_handler(service, handlers),))
    port = server.add_insecure_port("127.0.0.1:0")
    server.start()
    try:
        yield f"127.0.0.1:{port}"
    finally:
        server.stop(None).wait()


def test_details_of_an_error_pass() -> None:
    with streaming(detailed) as first, proxied(first) as proxy, pytest.raises(grpc.RpcError) as error:
        proxy.raw(b"", timeout=5)
    assert ("grpc-status-details-bin", b"\x08\x05") in error.value.trailing_metadata()


def test_ok_without_an_answer_is_an_error_at_once(first: ModelServer) -> None:
    said = grpc.StatusCode.INTERNAL, "the server says OK, and gives no answer"
    asked = queries(3)
    with streaming(wordless) as other:
        with proxied(other) as proxy:
            assert refusal(lambda: proxy.raw(asked[0], timeout=5)) == said
        with proxied(first, other) as proxy:
            ask_all(proxy.raw, asked)
            until(lambda: proxy.failed("INTERNAL") == 3)


def test_health_metadata_and_readiness_pass(first: ModelServer) -> None:
    with proxied(first) as proxy, grpc.insecure_channel(first.address) as channel:
        direct = GRPCInferenceServiceStub(channel)
        for name, question in {
            "ServerLive": pb.ServerLiveRequest(),
            "ServerReady": pb.ServerReadyRequest(),
            "ModelReady": pb.ModelReadyRequest(name="ranker"),
            "ServerMetadata": pb.ServerMetadataRequest(),
            "ModelMetadata": pb.ModelMetadataRequest(name="ranker", version="1"),
        }.items():
            found = getattr(proxy.stub, name)(question)
            assert found == getattr(direct, name)(question) and found.ListFields()
        code, _ = refusal(lambda: proxy.channel.unary_unary(INFER.replace("ModelInfer", "ModelConfig"))(b""))
        assert code is grpc.StatusCode.UNIMPLEMENTED  # says the server of the tests, which has none
        health = health_pb2_grpc.HealthStub(proxy.channel)
        until(lambda: health.Check(health_pb2.HealthCheckRequest()).status == 1)
        first.stop()
        until(lambda: health.Check(health_pb2.HealthCheckRequest()).status == 2)
        assert refusal(lambda: proxy.raw(b""))[0] is grpc.StatusCode.UNAVAILABLE


def test_streams_pass_and_are_never_asked_twice(first: ModelServer, second: ModelServer) -> None:
    asked = [pb.ModelInferRequest.FromString(raw) for raw in queries(20)]
    with proxied(first, second, streams=2) as proxy, grpc.insecure_channel(first.address) as channel:
        direct = GRPCInferenceServiceStub(channel)
        call = proxy.stub.ModelStreamInfer(iter(asked))
        found = list(call)
        assert ("served-by", "1") in call.initial_metadata()
        assert found == list(direct.ModelStreamInfer(iter(asked))) and len(found) == 20
        broken = [asked[0], pb.ModelInferRequest()]
        told = refusal(lambda: list(proxy.stub.ModelStreamInfer(iter(broken))))
        assert told == (grpc.StatusCode.INVALID_ARGUMENT, "inputs = none")
        end = threading.Event()

        def held() -> Iterator[pb.ModelInferRequest]:
            yield asked[0]
            end.wait(20)

        streams = [proxy.stub.ModelStreamInfer(held()) for _ in range(2)]
        assert [next(stream) for stream in streams] == found[:1] * 2  # what comes passes before the end of the stream
        too_many = refusal(lambda: list(proxy.stub.ModelStreamInfer(iter(asked))))
        assert too_many[0] is grpc.StatusCode.RESOURCE_EXHAUSTED
        streams[0].cancel()
        end.set()
        assert list(streams[1]) == []
        until(lambda: len(list(proxy.stub.ModelStreamInfer(iter(asked)))) == 20)
        proxy.raw(queries(1)[0])
        until(lambda: proxy.compared() == 1)
    assert len(second.asked) == 1


@pytest.mark.parametrize("name", ["sequence_id", "sequence_start", "sequence_end"])
def test_requests_of_a_sequence_pass_and_are_never_asked_twice(
    first: ModelServer, second: ModelServer, name: str
) -> None:
    value = {"sequence_id": {"int64_param": 7}}.get(name, {"bool_param": False})
    with proxied(first, second) as proxy:
        one = pb.ModelInferRequest.FromString(queries(1)[0])
        one.parameters[name].CopyFrom(pb.InferParameter(**value))
        assert proxy.raw(one.SerializeToString())
        until(lambda: proxy.failed("first_sequence") == 1)
    assert len(first.asked) == 1 and second.asked == []


@pytest.mark.parametrize("scale", ["scores", "logits", "probabilities"])
def test_live_counters_are_what_compare_computes_from_what_was_kept(
    first: ModelServer, second: ModelServer, tmp_path: Path, scale: str
) -> None:
    def chances(asked: pb.ModelInferRequest, scores: Floats) -> pb.ModelInferResponse:
        return answer(asked, np.asarray(1 / (1 + np.exp(-scores)), np.float32).round(1))  # with many ties

    if scale == "probabilities":
        first.shape = second.shape = chances
    folder = tmp_path / "kept"
    with proxied(first, second, keep=folder, k=5, scores_are=scale) as proxy:
        ask_all(proxy.raw, queries(400) + queries(100, rows=4, items=12) + queries(100, rows=2, items=3))
        until(lambda: proxy.compared() == 1_000, 30)
        live = proxy.ratios()
    found = offline(folder, k=5, log_odds=scale == "logits")
    assert found == pytest.approx(live, rel=1e-12, abs=0)
    assert found["top1"] > 0 and found["pair"] > 0
    assert ("pd_candidates" in live) == (scale != "scores")


def test_text_and_shared_items_are_told_apart_and_ordered_as_compare_does(first: ModelServer, tmp_path: Path) -> None:
    names = [b"shoe", b"12", 'h\u00fct,\n"x"'.encode(), b"sock"]
    one = request(np.arange(6), np.arange(4), id="a/b")
    one.inputs.add(name="skus", datatype="BYTES", shape=[4]).contents.bytes_contents.extend(names)
    one.raw_input_contents.append(b"".join(len(name).to_bytes(4, "little") + name for name in names))
    with serving(2, lambda asked, scores: answer(asked, scores.round())) as second:  # ties
        with proxied(first, second, items="skus", keep=tmp_path, arm="hats") as proxy:
            proxy.raw(one.SerializeToString())
            until(lambda: proxy.compared(arm="hats") == 6)
            live = proxy.ratios("hats")
    assert offline(tmp_path, log_odds=True) == pytest.approx(live, rel=1e-12) and live["pair"] > 0
    (part,) = (tmp_path / "second").iterdir()
    assert "shoe" in part.read_text() and "a/b/5" in part.read_text()


def test_the_same_again_differs_by_nothing(first: ModelServer) -> None:
    with proxied(first) as proxy:
        ask_all(proxy.raw, queries(100, rows=3))
        until(lambda: proxy.compared() == 300)
        assert set(proxy.ratios().values()) == {0.0} and proxy.ratios().keys() == MEASURES.keys()
    assert len(first.asked) == 200


@pytest.mark.parametrize(
    ("model", "version", "asked"),
    [("ranker@2", "9", ("ranker@2", "9")), ("ranker@2", "", ("ranker@2", "")), ("", "9", ("ranker", "9"))],
)
def test_another_model_of_the_same_server_is_asked_by_its_name_alone(
    first: ModelServer, model: str, version: str, asked: tuple[str, str]
) -> None:
    one = pb.ModelInferRequest.FromString(queries(1)[0])
    one.model_version = "4"
    with proxied(first, second_model=model, second_version=version) as proxy:
        proxy.raw(one.SerializeToString())
        until(lambda: proxy.compared() == 1)
        assert (proxy.ratios()["pair"] > 0) == bool(model)
    original, doubled = map(pb.ModelInferRequest.FromString, first.asked)
    assert original == one
    assert (doubled.model_name, doubled.model_version) == asked
    doubled.model_name, doubled.model_version = original.model_name, original.model_version
    assert doubled == original


def test_a_share_is_sampled_by_bytes_and_one_model_alone_where_that_is_asked(
    first: ModelServer, second: ModelServer
) -> None:
    asked = queries(400)
    with proxied(first, second, sample=0.25) as proxy:
        for _ in range(2):
            ask_all(proxy.raw, asked)
        until(lambda: proxy.compared() == len(second.asked) > 120)
        until(lambda: set(Counter(second.asked).values()) == {2})  # both times the same ones
        assert len(second.asked) < 280
    with proxied(first, second, only_model="other") as proxy:
        other = pb.ModelInferRequest.FromString(asked[0])
        other.model_name = "other"
        ask_all(proxy.raw, [*asked[:20], other.SerializeToString()])
        until(lambda: proxy.compared(arm="other") == 1)
        assert proxy.compared() == 0


def huge(asked: pb.ModelInferRequest, scores: Floats) -> pb.ModelInferResponse:
    return answer(asked, np.zeros((5_000, 1_000), np.float32))


def large(asked: pb.ModelInferRequest, scores: Floats) -> pb.ModelInferResponse:
    return answer(asked, np.zeros((50, 1_000), np.float32))


def named(name: str, datatype: str = "FP32", extra: bytes = b"") -> Callable[..., pb.ModelInferResponse]:
    def shape(asked: pb.ModelInferRequest, scores: Floats) -> pb.ModelInferResponse:
        found = answer(asked, scores)
        found.outputs[0].name, found.outputs[0].datatype = name, datatype
        found.raw_output_contents[0] += extra
        return found

    return shape


def unshaped(*shape: int) -> Callable[..., pb.ModelInferResponse]:
    def shaped(asked: pb.ModelInferRequest, scores: Floats) -> pb.ModelInferResponse:
        found = answer(asked, scores)
        found.outputs[0].shape[:] = shape
        return found

    return shaped


HOSTILE: dict[str, tuple[str, Callable[..., pb.ModelInferResponse]]] = {
    "NaN": ("second_not_finite", lambda asked, scores: answer(asked, scores * np.float32(np.nan))),
    "infinity": ("second_not_finite", lambda asked, scores: answer(asked, scores + np.float32(np.inf))),
    "more items": ("second_shape", lambda asked, scores: answer(asked, np.repeat(scores, 2, axis=1))),
    "another rank": ("second_shape", lambda asked, scores: answer(asked, scores[..., None, None])),
    "no items": ("second_shape", lambda asked, scores: answer(asked, scores[:, :0])),
    "another name": ("second_tensor", named("other")),
    "text": ("second_tensor", named("output_0", "BYTES")),
    "an unknown type": ("second_tensor", named("output_0", "BF16")),
    "too many bytes": ("second_tensor", named("output_0", extra=b"x")),
    "a shape that lies": ("second_tensor", unshaped(1, 1 << 62)),
    "a negative shape": ("second_shape", unshaped(-1, -30)),
    "nothing": ("second_tensor", lambda asked, scores: pb.ModelInferResponse()),
    "much more": ("second_too_large", large),
    "huge": ("RESOURCE_EXHAUSTED", huge),
}


def test_what_a_hostile_second_says_is_counted_by_reason_and_changes_nothing(
    first: ModelServer, second: ModelServer
) -> None:
    asked = queries(3)
    with grpc.insecure_channel(first.address) as channel, proxied(first, second, scores="output_0") as proxy:
        expected = ask_all(channel.unary_unary(INFER), asked)
        for kind, (reason, shape) in HOSTILE.items():
            print(kind)
            failed, compared = proxy.failed(reason), proxy.compared()
            second.shape = shape
            assert ask_all(proxy.raw, asked) == expected
            until(lambda: proxy.failed(reason) == failed + 3)  # noqa: B023
            assert proxy.compared() == compared
            second.shape = answer  # and what it says later counts again
            ask_all(proxy.raw, asked)
            until(lambda: proxy.compared() == compared + 3)  # noqa: B023


def test_a_dead_and_a_slow_second_delay_nobody(first: ModelServer, second: ModelServer) -> None:
    asked = queries(60)
    with proxied(first, second, second_in_flight=4, second_deadline=0.3) as proxy:
        second.gate.clear()
        start = time.monotonic()
        found = ask_all(proxy.raw, asked)
        assert time.monotonic() - start < 10 and len(found) == 60
        until(lambda: proxy.failed("DEADLINE_EXCEEDED") > 8)
        assert len(second.asked) <= proxy.failed("DEADLINE_EXCEEDED") + 8  # four at a time
        second.stop()
        assert ask_all(proxy.raw, asked) == found
        until(lambda: proxy.failed("UNAVAILABLE") > 0)
        codes = "UNAVAILABLE", "DEADLINE_EXCEEDED", "CANCELLED"  # the last, as it died
        until(lambda: sum(map(proxy.failed, codes)) == 120)
        assert proxy.compared() == 0


@pytest.mark.parametrize(
    ("reason", "settings", "changed"),
    [
        ("first_tensor", {"scores": "output_1"}, {}),
        ("first_tensor", {"items": "item"}, {}),
        ("first_items", {"items": "user"}, {}),
        ("first_items", {}, {"items": [1, 2, 2]}),
        ("first_items", {}, {"items": [1, 2, 10**18]}),
    ],
)
def test_what_the_first_did_not_say_is_not_asked_of_the_second(
    first: ModelServer, second: ModelServer, reason: str, settings: dict[str, str], changed: dict[str, list[int]]
) -> None:
    items = np.array(changed.get("items", [1, 2, 3]))
    with proxied(first, second, **settings) as proxy:
        assert proxy.raw(request(np.arange(2), items).SerializeToString())
        until(lambda: proxy.failed(reason) == 1)
    assert second.asked == []


@pytest.mark.parametrize("name", [b"", b"NA", b"\xff"])
def test_text_that_is_nobodys_id_is_not_kept(first: ModelServer, second: ModelServer, name: bytes) -> None:
    one = request(np.arange(2), np.arange(2))
    one.inputs.add(name="skus", datatype="BYTES", shape=[2]).contents.bytes_contents.extend([b"shoe", name])
    one.raw_input_contents.append(b"\4\0\0\0shoe" + len(name).to_bytes(4, "little") + name)
    with proxied(first, second, items="skus") as proxy:
        proxy.raw(one.SerializeToString())
        until(lambda: proxy.failed("first_items") + proxy.failed("first_tensor") == 1)
    assert second.asked == []


def test_the_end_waits_for_no_second_and_keeps_what_was_compared(
    first: ModelServer, second: ModelServer, tmp_path: Path
) -> None:
    with proxied(first, second, second_deadline=600.0, keep=tmp_path) as proxy:
        ask_all(proxy.raw, queries(20))
        until(lambda: proxy.compared() == 20)
        second.gate.clear()
        ask_all(proxy.raw, queries(20))
        until(lambda: len(second.asked) > 20)
        start = time.monotonic()
    assert time.monotonic() - start < 9
    assert compare_frames([tmp_path / side for side in mirror.SIDES]).world["queries"] == 20


def test_a_full_folder_ends_the_keeping_and_nothing_else(
    first: ModelServer, second: ModelServer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(mirror, "PART_ROWS", 1_000)
    with proxied(first, second, keep=tmp_path, keep_bytes=1 << 20) as proxy:
        for _ in range(10):
            ask_all(proxy.raw, queries(100, rows=10))
        until(lambda: proxy.compared() == 10_000)
    sizes = [sum(file.stat().st_size for file in (tmp_path / side).iterdir()) for side in mirror.SIDES]
    assert 1 << 20 < sum(sizes) < 1.5 * (1 << 20)
    assert offline(tmp_path)["pair"] > 0
    blocked = tmp_path / "file"
    blocked.touch()
    with pytest.raises(FlickerError, match="keep = .*: name a folder that can be written"):
        with proxied(first, second, keep=blocked):
            pass


def test_a_part_that_cannot_be_written_on_both_sides_is_on_none(tmp_path: Path) -> None:
    folder, scores = mirror.Kept(tmp_path, 1 << 20, False), np.ones((1, 2))
    folder.add(["q"], np.array([[1, 2]]), (scores, scores))
    (tmp_path / "second").rmdir()
    folder.end_part()
    assert not list(tmp_path.glob("*/*"))


def test_a_killed_proxy_leaves_files_that_can_be_compared_and_the_next_one_adds_to_them(
    first: ModelServer, second: ModelServer, tmp_path: Path
) -> None:
    flags = ["--first", first.address, "--second", second.address, "--sample", "1", "--items", "items"]
    asked = queries(40)
    for number in (1, 2):
        with suppress(AssertionError), process("shadow", *flags, "--keep", str(tmp_path)) as proxy:
            with grpc.insecure_channel(proxy.said["address"]) as channel:
                ask_all(channel.unary_unary(INFER), asked)
                until(lambda parts=number: len(list((tmp_path / "second").glob("*.csv"))) >= parts, 20)
                ask_all(channel.unary_unary(INFER), asked)
            os.kill(proxy.pid, signal.SIGKILL)
    result = compare_frames([tmp_path / side for side in mirror.SIDES])
    assert result.world["queries"] == 80  # of each process the first forty, under numbers of their own


def test_a_process_says_where_it_is_and_ends_in_order(first: ModelServer) -> None:
    command = [sys.executable, "-m", "simulator", "shadow", "--first"]
    bad = subprocess.run([*command, "nowhere"], cwd=ROOT, capture_output=True, text=True)
    assert bad.returncode == 2 and bad.stderr.startswith("flicker shadow: first = nowhere: ")
    command.append(first.address)
    child = subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    assert child.stdout is not None
    said = eval(child.stdout.readline())
    assert said["ready"] == "shadow" and said["metrics"] != said["address"]
    with grpc.insecure_channel(said["address"]) as channel:
        assert GRPCInferenceServiceStub(channel).ServerLive(pb.ServerLiveRequest()).live
    child.terminate()
    _, log = child.communicate(timeout=20)
    assert child.returncode == 0 and "stopping" in log and "Traceback" not in log


@pytest.mark.parametrize(
    ("flags", "said"),
    [
        ([], "first = nothing: name the model server with --first HOST:PORT"),
        (["--first", "triton"], "first = triton: host:port"),
        (["--first", "a:1", "--second", "b:x"], "second = b:x: host:port"),
        (["--first", "a:65536"], "first = a:65536: host:port, a port from 1 to 65535"),
        (["--first", "a:1", "--sample", "2"], "sample = 2.0: from 0 to 1"),
        (["--first", "a:1", "--query-id-from", "request"], "query_id_from = request: request.id, or parameters.NAME"),
        (["--first", "a:1", "--k", "0"], "k = 0: at least 1 item"),
    ],
)
def test_a_bad_flag_is_one_line(flags: list[str], said: str) -> None:
    with pytest.raises(FlickerError) as error:
        parse_flags(ShadowFlags, "flicker shadow", flags)
    assert str(error.value).startswith(said)


def test_a_port_that_is_taken_is_named(first: ModelServer) -> None:
    with pytest.raises(SettingError, match="host:port = "):
        with proxied(first, port=int(first.address.rpartition(":")[2])):
            pass


def test_a_token_for_the_proxy_is_checked_there_and_told_to_nobody(first: ModelServer, tmp_path: Path) -> None:
    own = Secured(token_file=secret(tmp_path / "token", TOKEN))
    with proxied(first, security=own) as proxy:
        (one,) = queries(1)
        for sent in ((), (("authorization", "Bearer of-somebody-else"),)):
            with pytest.raises(grpc.RpcError) as error:
                proxy.raw(one, metadata=sent)
            assert error.value.code() is grpc.StatusCode.UNAUTHENTICATED and not first.asked
            with pytest.raises(grpc.RpcError) as error:
                next(proxy.stub.ModelStreamInfer(iter([pb.ModelInferRequest()]), metadata=sent))
            assert error.value.code() is grpc.StatusCode.UNAUTHENTICATED
        proxy.raw(one, metadata=(("authorization", f"Bearer {TOKEN}"), ("other", "passes")))
        assert ("other", "passes") in first.metadata and "authorization" not in dict(first.metadata)


def test_model_servers_are_called_by_tls(tmp_path: Path) -> None:
    """They are other people's: their authority is not ours, and their name may be another than their address."""
    theirs = Authority(tmp_path / "theirs")
    pem = Credentials(**theirs.issue("model", "triton.models"), tls_ca=theirs.ca).pem()
    server = ModelServer(tls=grpc.ssl_server_credentials([(pem.key, pem.cert)]))
    (one,) = queries(1)
    try:
        with proxied(server, servers_ca=theirs.ca, server_name="triton.models") as proxy:
            until(lambda: proxy.raw(one, timeout=10), 20)
            until(lambda: len(server.asked) >= 2, 20)  # for the users, and beside
        with proxied(server, servers_ca=theirs.ca) as proxy, pytest.raises(grpc.RpcError) as error:
            proxy.raw(one, timeout=10)
        assert error.value.code() is grpc.StatusCode.UNAVAILABLE
    finally:
        server.stop()
