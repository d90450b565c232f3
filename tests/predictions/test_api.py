"""The names of the package `flicker` that speak of predictions, and the recipes of docs/compare.md."""

from __future__ import annotations

import importlib.util
import re
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import torch.distributed as dist
import torch.multiprocessing as mp

import flicker
from simulator.errors import ResultError, SettingError
from tests.measures.formula import relative_pd
from tests.predictions.logs import frame, means, write

GUIDE = (Path(__file__).parents[2] / "docs" / "compare.md").read_text()
RECIPES = re.findall(r"```python\n(.*?)```", GUIDE, re.DOTALL)
FIRST, SECOND = torch.randn(2, 6, 9, generator=torch.Generator().manual_seed(0), dtype=torch.float64)


def as_frame(scores: torch.Tensor) -> dict[str, Any]:
    query, item = np.indices(scores.shape).reshape(2, -1)
    return {"q_id": query, "doc_id": item, "score": scores.numpy().ravel()}


@pytest.mark.parametrize("measure", ["slot", "top1", "set", "pair", "rbo", "slate", "pd_candidates"])
def test_swap_ratio_is_what_compare_says(measure: str) -> None:
    metric = flicker.SwapRatio(measure, k=4)
    for part in (slice(0, 2), slice(2, 6)):
        metric.update(FIRST[part], SECOND[part])
    (arm,) = flicker.compare([as_frame(FIRST), as_frame(SECOND)], k=4, log_odds=True).arms
    assert metric.compute().item() == pytest.approx(means(arm)[f"swaps.{measure}"])
    metric.reset()
    assert not metric.denominator


def test_prediction_difference() -> None:
    metric = flicker.PredictionDifference()
    metric.update(FIRST, SECOND)
    assert metric.compute().item() == pytest.approx(
        relative_pd(FIRST.sigmoid().numpy(), SECOND.sigmoid().numpy()).mean()
    )


def test_what_cannot_be_measured_is_refused() -> None:
    with pytest.raises(SettingError, match="measure = pairs: one of slot, top1"):
        flicker.SwapRatio("pairs")
    with pytest.raises(SettingError, match="the shape of first"):
        flicker.PredictionDifference().update(FIRST, SECOND[:2])
    with pytest.raises(SettingError, match="finite values"):
        flicker.PredictionDifference().update(FIRST, SECOND * torch.nan)


def process(rank: int, place: str) -> None:
    """Half of the queries, and the ratio over all."""
    dist.init_process_group("gloo", f"file://{place}", rank=rank, world_size=2)
    metric = flicker.SwapRatio("pair")
    metric.update(FIRST[rank::2], SECOND[rank::2])
    whole = flicker.SwapRatio("pair", sync_on_compute=False)
    whole.update(FIRST, SECOND)
    assert torch.equal(metric.compute(), whole.compute())
    dist.destroy_process_group()


def test_sums_go_over_processes(tmp_path: Path) -> None:
    mp.spawn(process, (str(tmp_path / "meeting"),), nprocs=2)


@pytest.mark.parametrize("library", ["pandas", "polars"])
def test_frames_of_other_libraries(library: str) -> None:
    frames = pytest.importorskip(library, reason=f"{library} is not installed: no dependency of ours")
    columns = [frame(seed) for seed in (1, 2)]
    found, expected = (flicker.compare(each) for each in ([frames.DataFrame(c) for c in columns], columns))
    assert means(found.arms[0]) == means(expected.arms[0])


def test_measures_by_name() -> None:
    assert flicker.measures["pair"].words == "pair swaps"


@pytest.mark.parametrize("code", RECIPES, ids=lambda code: code.split()[1])
def test_recipes_of_the_guide_run(code: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for package in re.findall(r"^(?:import|from) (\w+)(?:\.utils\.(\w+))?", code, re.MULTILINE):
        name = package[1] or package[0]
        if importlib.util.find_spec(name) is None:
            pytest.skip(f"{name} is not installed: no dependency of ours")
    for number, name in enumerate(("monday", "tuesday")):
        write(tmp_path / f"{name}.parquet", frame(number + 1))
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("WANDB_MODE", "offline")
    exec(compile(code, "docs/compare.md", "exec"), {})


@pytest.mark.parametrize(
    ("frames", "more", "said"),
    [
        ([], {}, "frames = nothing: give several"),
        (["a", "b"], {"k": 0}, "k = 0: a whole number of items, at least 1"),
        (["a", "b"], {"k": 2.5}, "k = 2.5: a whole number of items, at least 1"),
        (["a", "b"], {"by": "country"}, r"by = 'country': several columns, as in by=\['country'\]"),
    ],
)
def test_what_cannot_be_meant_is_refused(frames: list[Any], more: dict[str, Any], said: str) -> None:
    with pytest.raises(SettingError, match=said):
        flicker.compare(frames, **more)


def test_results_are_read_by_the_name_of_their_folder(tmp_path: Path) -> None:
    with pytest.raises(ResultError, match="no such file or directory: name a folder"):
        flicker.read_result(str(tmp_path))
