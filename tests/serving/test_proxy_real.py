"""`flicker shadow` in front of MLServer and Triton themselves, in the environments that `make bench-peers` makes."""

from __future__ import annotations

import json
import os
import subprocess
import sysconfig
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import grpc
import numpy as np
import pytest

from protos import inference_pb2 as pb
from protos.inference_pb2_grpc import GRPCInferenceServiceStub
from simulator.measures.registry import MEASURES
from simulator.process import free_ports, wait_or_kill
from tests.serving.model_server import request
from tests.serving.processes import ROOT
from tests.serving.router_under_test import refusal, until
from tests.serving.test_proxy import INFER, ask_all, offline, proxied

PEERS = Path(os.environ.get("FLICKER_PEERS", ROOT / ".venv-peers"))
pytestmark = pytest.mark.slow


def mlserver(folder: Path, ports: list[int]) -> list[str]:
    """The command of MLServer with two models in this folder."""
    for number in (1, 2):
        (folder / f"m{number}").mkdir()
        model = {"name": f"ranker-{number}", "implementation": "tests.serving.real_mlserver.Ranker"}
        (folder / f"m{number}" / "model-settings.json").write_text(json.dumps(model))
    named = dict(zip(("grpc_port", "http_port", "metrics_port"), ports, strict=True))
    (folder / "settings.json").write_text(json.dumps(named | {"host": "127.0.0.1", "parallel_workers": 0}))
    return [str(PEERS / "mlserver" / "bin" / "mlserver"), "start", str(folder)]


def triton(folder: Path, ports: list[int]) -> list[str]:
    """The command of Triton with the same models."""
    python = str(PEERS / "triton" / "bin" / "python")
    return [python, "-m", "tests.serving.real_triton", *map(str, ports[:2])]


@contextmanager
def started(kind: str, folder: Path) -> Iterator[str]:
    """The address of a server that is ready; skips where it is not installed."""
    ports = free_ports(3)
    command = {"mlserver": mlserver, "triton": triton}[kind](folder, ports)
    if not Path(command[0]).exists():
        pytest.skip(f'{kind} is not installed: make bench-peers ARGS="--install"')
    libraries = sysconfig.get_config_var("LIBDIR") or ""
    environment = os.environ | {"PYTHONPATH": str(ROOT), "LD_LIBRARY_PATH": libraries}
    with (folder / "log").open("w") as log:
        child = subprocess.Popen(command, cwd=folder, env=environment, stdout=log, stderr=log)
    try:
        address = f"127.0.0.1:{ports[0]}"
        with grpc.insecure_channel(address) as channel:
            stub = GRPCInferenceServiceStub(channel)

            def ready() -> bool:
                assert child.poll() is None, (folder / "log").read_text()[-2_000:]
                try:
                    return all(stub.ModelReady(pb.ModelReadyRequest(name=f"ranker-{n}")).ready for n in (1, 2))
                except grpc.RpcError:
                    return False

            until(ready, 90)
        yield address
    finally:
        child.terminate()
        wait_or_kill(child, 20)


def requests(typed: bool) -> list[bytes]:
    """A thousand, of one to three queries of 50 items each."""
    draw, found = np.random.default_rng(5), []
    for number in range(1_000):
        rows = int(draw.integers(1, 4))
        items = np.stack([draw.permutation(1_000)[:50] for _ in range(rows)])
        one = request(draw.integers(0, 99, (rows, 1)), items, id=f"q{number}")
        one.model_name = "ranker-1"
        if typed:
            for tensor, raw in zip(one.inputs, one.raw_input_contents, strict=True):
                tensor.contents.int64_contents.extend(np.frombuffer(raw, "<i8").tolist())
            del one.raw_input_contents[:]
        found.append(one.SerializeToString())
    return found


@pytest.mark.parametrize("kind", ["mlserver", "triton"])
def test_answers_are_byte_equal_and_counters_those_of_compare(kind: str, tmp_path: Path) -> None:
    (tmp_path / "server").mkdir()
    with started(kind, tmp_path / "server") as address, grpc.insecure_channel(address) as channel:
        for typed, second in ((False, "ranker-2"), (True, "ranker-2"), (False, "")):
            keep, asked = tmp_path / f"{typed}{second}", requests(typed)
            direct = ask_all(channel.unary_unary(INFER), asked)
            queries = sum(pb.ModelInferResponse.FromString(raw).outputs[0].shape[0] for raw in direct)
            with proxied(address, second_model=second, keep=keep) as proxy:
                assert ask_all(proxy.raw, asked) == direct
                until(lambda proxy=proxy, all_=queries: proxy.compared(arm="ranker-1") == all_, 60)
                live = proxy.ratios("ranker-1")
                if kind == "triton":
                    streamed = [pb.ModelInferRequest.FromString(raw) for raw in asked[:20]]
                    answers = proxy.stub.ModelStreamInfer(iter(streamed))
                    assert {each.infer_response.id for each in answers} == {each.id for each in streamed}
                    assert proxy.channel.unary_unary(INFER.replace("ModelInfer", "ModelConfig"))(b"\x0a\x08ranker-1")
                unknown = pb.ModelInferRequest(model_name="nobody").SerializeToString()
                told = refusal(lambda proxy=proxy, raw=unknown: proxy.raw(raw))
                assert told == refusal(lambda raw=unknown: channel.unary_unary(INFER)(raw))
            assert offline(keep, log_odds=True) == pytest.approx(live, rel=1e-12, abs=0)
            assert live.keys() == MEASURES.keys()
            assert live["pair"] > 0 < live["pd_candidates"] if second else set(live.values()) == {0.0}
