"""`make bench-peers`: peers that are not installed are skipped and said to be, the others answer as we do."""

from __future__ import annotations

import json
import math
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

ROOT = Path(__file__).parents[1]
PEERS = "ray_serve", "ray_serve_haproxy", "pytriton", "litserve"
OTHER_ANSWERS = """
from pathlib import Path
from query_path.model import build
from query_path.naive import Naive
from run_peers import compare
from serving.codec import slate_of
from protos.recommender_pb2 import RecommendResponse

class Other(Naive):
    def slate(self, answer):
        response = RecommendResponse.FromString(answer)
        change(response.slate)
        return slate_of(response)

def swap(slate):
    slate[3].item, slate[4].item = slate[4].item, slate[3].item

def shift(slate):
    slate[0].score += 1e-6 * abs(slate[0].score)

def drop(slate):
    del slate[9]

naive = Other("quick", Path("."))
try:
    naive.start()
    for change, differs in ((lambda slate: None, False), (swap, True), (shift, True), (drop, True)):
        try:
            compare(build("quick"), naive, naive)
        except RuntimeError:
            assert differs
        else:
            assert not differs, change
finally:
    naive.stop()
"""


def bench(*flags: str, **environment: str) -> subprocess.CompletedProcess[str]:
    """The script as `make bench-peers` calls it, with tiny sizes."""
    command = [sys.executable, "tests/bench/run_peers.py", "--quick", *flags]
    return subprocess.run(
        command, cwd=ROOT, env=os.environ | {"PYTHONPATH": str(ROOT)} | environment, text=True, capture_output=True
    )


def test_peers_that_are_not_installed_are_skipped_and_said_to_be(tmp_path: Path) -> None:
    for kind in ("ray", "triton", "lit"):
        bare = tmp_path / kind / "bin" / "python"
        bare.parent.mkdir(parents=True)
        bare.write_text(f'#!/bin/sh\nexec {sys.executable} -I -S "$@"\n')  # the standard library alone
        bare.chmod(0o755)
    ran = bench("--out", str(tmp_path / "figures.json"), FLICKER_PEERS=str(tmp_path))
    assert ran.returncode == 0, ran.stderr
    written = json.loads((tmp_path / "figures.json").read_text())
    assert written["figures"] == [] and tuple(written["skipped"]) == PEERS
    for peer, why in written["skipped"].items():
        assert f"skipped: {peer}: {why}" in ran.stdout
        assert f"{peer} is not installed" in why and "No module named" in why and "--install" in why


@pytest.fixture(scope="module")
def written(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    """What the script writes with all that are installed here."""
    out = tmp_path_factory.mktemp("peers") / "figures.json"
    ran = bench("--out", str(out))
    assert ran.returncode == 0, ran.stderr
    found: dict[str, Any] = json.loads(out.read_text())
    return found


@pytest.mark.slow
@pytest.mark.parametrize("peer", PEERS)
def test_peers_answer_as_we_do_and_are_measured(peer: str, written: dict[str, Any]) -> None:
    """The script itself compares slates and scores before it measures."""
    if peer in written["skipped"]:
        pytest.skip(written["skipped"][peer])
    figures = {figure["name"]: figure for figure in written["figures"]}
    assert {f"CPU per query, {peer} / routed", f"queries/s, routed / {peer}, 4 in flight"} < set(figures)
    assert all(math.isfinite(figure["value"]) and figure["value"] > 0 for figure in figures.values())


def test_a_peer_that_answers_otherwise_stops_the_bench(tmp_path: Path) -> None:
    paths = os.pathsep.join([str(ROOT), str(ROOT / "tests" / "bench")])
    command = [sys.executable, "-c", OTHER_ANSWERS]
    ran = subprocess.run(command, cwd=tmp_path, env=os.environ | {"PYTHONPATH": paths}, text=True, capture_output=True)
    assert ran.returncode == 0, ran.stderr
