"""`make bench` runs and writes what it says, and its plain models do the stack's work. Nothing here is timed."""

from __future__ import annotations

import json
import math
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch

from simulator.config import NO_NOISE, ModelConfig
from simulator.models.native_engine import NativeEngine
from simulator.models.torch_engine import TorchEngine
from simulator.types import Batch, Field, Schema
from tests.bench.engine import make_engine, no_native
from tests.bench.plain import PlainLearner, plain_copies
from tests.bench.targets import NATIVE, TARGETS

ROOT = Path(__file__).parents[1]
KINDS = ("worlds", "learning", "ranking", "compare", "ingest", "memory")
"""All but those that start processes."""
LACKING = {"full sizes"} | ({NATIVE} if no_native() else set())
ABSENT = {name for kind in TARGETS.values() for name, goal in kind.items() if goal.needs in LACKING}
"""Not measured at tiny sizes, or here."""


SCHEMA = Schema((Field("user", "user", 9), Field("item", "item", 11)))
MODEL = ModelConfig(dim=5, hidden=(24, 15), norm="after", batch=8)
BARE = """
import runpy, sys
sys.modules |= dict.fromkeys(("grpc", "psutil", "pyarrow", "redis", "rich", "safetensors", "scipy", "tyro"))
sys.path.insert(0, "tests/bench")
sys.argv = ["run.py", "--quick", "--only", "learning"]
runpy.run_path("tests/bench/run.py", run_name="__main__")
"""
"""The bench of learning where a package is as good as missing."""


def python(*words: str) -> subprocess.CompletedProcess[str]:
    """With the project in reach."""
    environment = os.environ | {"PYTHONPATH": str(ROOT)}
    return subprocess.run([sys.executable, *words], cwd=ROOT, env=environment, text=True, capture_output=True)


def bench(*flags: str) -> subprocess.CompletedProcess[str]:
    """The script as `make bench` calls it, with tiny sizes."""
    return python("tests/bench/run.py", "--quick", *flags)


@pytest.mark.parametrize(
    "kinds",
    [KINDS, pytest.param((*KINDS, "queries", "security", "shadow", "overload"), marks=pytest.mark.slow)],
    ids=len,
)
def test_every_figure_is_printed_and_written(tmp_path: Path, kinds: tuple[str, ...]) -> None:
    ran = bench("--out", str(tmp_path / "figures.json"), *(("--only", *kinds) if kinds == KINDS else ()))
    assert ran.returncode == 0, ran.stderr
    goals = {name: target for kind in kinds for name, target in TARGETS[kind].items()}
    written = json.loads((tmp_path / "figures.json").read_text())
    figures = {figure["name"]: figure for figure in written["figures"]}
    assert len(figures) == len(written["figures"])
    expected = {name: target.bound for name, target in goals.items() if name not in ABSENT}
    assert {name: figure["target"] for name, figure in figures.items() if figure["target"]} == expected
    told = " ".join(ran.stdout.split())
    assert all((f"not measured: {name}, {target}" in told) == (name in ABSENT) for name, target in goals.items())
    for name, figure in figures.items():
        assert name in ran.stdout and figure["unit"] in ran.stdout and figure["note"] in " ".join(ran.stdout.split())
        numbers = [figure[key] for key in ("value", "low", "high")]
        numbers += [figure["by_other_clock"]] if figure["by_other_clock"] is not None else []
        numbers += [seconds for medians in figure["medians"].values() for seconds in medians.values()]
        assert all(math.isfinite(number) and number > 0 for number in numbers), figure
        assert figure["low"] <= figure["high"] and figure["clock"] in ("cpu", "wall", None)
        if name not in expected:
            assert figure["met"] is None
        else:
            reached = figure["value"] - figure["target"]
            assert figure["met"] == (reached <= 0 if figure["target_is"] == "at most" else reached >= 0)
            assert (f"outside its target: {name}" in ran.stdout) == (not figure["met"])
    assert written["machine"]["cores"] >= 1 and written["quick"] and set(written["load"]) == {"start", "end"}
    assert "stacked step, 1 thread" in ran.stderr  # progress


REFUSED = """
import sys, run
for place in "", "/missing/figures.json":
    sys.argv = ["run.py", "--quick", "--out", FOLDER + place]
    try:
        run.main()
    except SystemExit as ended:
        assert ended.code == 2
"""


def test_a_file_that_cannot_be_written_is_refused_before_anything_is_measured(tmp_path: Path) -> None:
    paths = os.pathsep.join([str(ROOT), str(ROOT / "tests" / "bench")])
    command = [sys.executable, "-c", REFUSED.replace("FOLDER", repr(str(tmp_path)))]
    ran = subprocess.run(command, cwd=ROOT, env=os.environ | {"PYTHONPATH": paths}, text=True, capture_output=True)
    assert ran.returncode == 0 and ran.stdout == ""
    for place in (tmp_path, tmp_path / "missing" / "figures.json"):
        assert f"--out = {place}: give a file in a folder that exists" in " ".join(ran.stderr.split())
    assert list(tmp_path.iterdir()) == []


def test_learning_is_measured_with_numpy_and_torch_alone() -> None:
    ran = python("-c", BARE)
    assert ran.returncode == 0, ran.stderr
    assert all(name in ran.stdout for name in TARGETS["learning"])


@pytest.mark.skipif(torch.cuda.is_available(), reason="there is a GPU")
def test_without_a_gpu_its_bench_says_that_it_cannot_run() -> None:
    ran = python("tests/bench/gpu.py")
    assert ran.returncode == 2 and ran.stdout == ""
    assert ran.stderr == "nothing measured: no GPU is visible to PyTorch here; run it where there is one\n"


@pytest.mark.parametrize("kind", [TorchEngine, NativeEngine])
def test_plain_models_learn_what_an_engine_learns(kind: type[TorchEngine] | type[NativeEngine]) -> None:
    """Dense parameters after one mini-batch agree, and the same table rows moved: each side does the other's work."""
    if kind is NativeEngine and no_native():
        pytest.skip(no_native())
    engine = make_engine(kind, SCHEMA, "relu", MODEL, NO_NOISE, duplicates=2)
    plain, before = plain_copies(engine), engine.weights.table.clone()
    draws, position = np.random.default_rng(0), np.arange(MODEL.batch)
    rows = (draws.integers((9, 11), size=(MODEL.batch, 2)) + [1, 10]).astype(np.int32)
    labels = (draws.random(MODEL.batch) < 0.4).astype(np.float32)
    logits = engine.learn(Batch(position, position, position.astype(np.float64), rows, labels))
    for number, (model, copied) in enumerate(zip(plain, plain_copies(engine), strict=True)):
        given = PlainLearner(model, MODEL).learn(torch.from_numpy(rows), torch.from_numpy(labels))
        torch.testing.assert_close(given, torch.from_numpy(logits[number]), rtol=1e-5, atol=1e-6)
        for ours, theirs in zip(copied.layers.parameters(), model.layers.parameters(), strict=True):
            torch.testing.assert_close(ours, theirs, rtol=1e-4, atol=1e-6)
        moved = (model.embedding.weight != before[number]).any(1)
        assert torch.equal(moved, (engine.weights.table[number] != before[number]).any(1)) and moved.any()
