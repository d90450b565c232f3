"""`make bench` runs and writes what it says, and its plain models do the stack's work. Nothing here is timed."""

from __future__ import annotations

import json
import math
import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from simulator.models.learner import Learner

from simulator.config import NO_NOISE
from simulator.models.native.kernels import missing
from tests.bench.plain import PlainLearner, plain_copies
from tests.bench.targets import TARGETS
from tests.models.conftest import MODEL, SINGLE, make_events, make_stack

ROOT = Path(__file__).parents[1]
KINDS = ("worlds", "learning", "ranking", "memory")
"""All but the one that starts two dozen processes."""
ABSENT = {"the live system, 2 arms x 3 duplicates"} | ({"SmeLU / ReLU kernel, compiled"} if missing() else set())
"""Not measured at tiny sizes, or here."""


def bench(*flags: str) -> subprocess.CompletedProcess[str]:
    """The script as `make bench` calls it, with tiny sizes."""
    command = [sys.executable, "tests/bench/run.py", "--quick", *flags]
    environment = os.environ | {"PYTHONPATH": str(ROOT)}
    return subprocess.run(command, cwd=ROOT, env=environment, text=True, capture_output=True)


@pytest.mark.parametrize("kinds", [KINDS, pytest.param((*KINDS, "queries"), marks=pytest.mark.slow)], ids=len)
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
        assert figure["low"] <= figure["high"] and figure["clock"] in ("cpu", "wall")
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


def test_plain_models_learn_what_the_stack_learns() -> None:
    """Dense parameters after one mini-batch agree, and the same table rows moved: each side does the other's work."""
    stack = make_stack("relu", schema=SINGLE)
    plain = plain_copies(stack)
    before = stack.embedding.clone()
    events = make_events(SINGLE, MODEL.batch)
    logits = Learner(stack, NO_NOISE, seed=0).learn(events)
    rows, labels = torch.from_numpy(events.features), torch.from_numpy(events.label)
    for number, (model, copied) in enumerate(zip(plain, plain_copies(stack), strict=True)):
        given = PlainLearner(model, MODEL).learn(rows, labels)
        torch.testing.assert_close(given, torch.from_numpy(logits[number]), rtol=1e-5, atol=1e-6)
        for ours, theirs in zip(copied.layers.parameters(), model.layers.parameters(), strict=True):
            torch.testing.assert_close(ours, theirs, rtol=1e-4, atol=1e-6)
        moved = (model.embedding.weight != before[number]).any(1)
        assert torch.equal(moved, (stack.embedding[number] != before[number]).any(1)) and moved.any()
