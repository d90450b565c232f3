"""The compiled way of learning and scoring: as PyTorch's, within rounding; and who takes which way."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from simulator.config import NO_NOISE, ModelConfig, NoiseConfig
from simulator.errors import ResultError, SettingError
from simulator.models import native, native_learning, native_scoring
from simulator.models.learner import Learner
from simulator.models.native import load
from simulator.models.ranking import score_events, slate
from simulator.types import Schema
from tests.models.conftest import MIXED, MODEL, SINGLE, make_chunks, make_events, make_stack
from tests.models.reference import FORMULAS

here = pytest.mark.skipif(load("auto") is None, reason="no C++ compiler here")

TOLERANCE = 5e-5
"""Of log-odds and weights after some 40 steps of rounding in another order; measured at 3e-6 or less."""


def pair(*specs: str, model: ModelConfig = MODEL, noise: NoiseConfig = NO_NOISE, **options: object) -> list[Learner]:
    """Two equal learners, compiled and plain."""
    ways = [replace(model, compile=way) for way in ("on", "off")]  # type: ignore[arg-type]
    stacks = [make_stack(*specs, model=way, noise=noise, **options) for way in ways]  # type: ignore[arg-type]
    return [Learner(stack, noise, seed=7) for stack in stacks]


def assert_close(compiled: Learner, plain: Learner) -> None:
    """All that was learned, but for the padding's sum of squares, which only PyTorch's way keeps."""
    one, other = compiled.state(), plain.state()
    for name in ("embedding", "dense", "dense_squares"):
        torch.testing.assert_close(one[name], other[name], rtol=TOLERANCE, atol=TOLERANCE)
    torch.testing.assert_close(one["table_squares"][:, 1:], other["table_squares"][:, 1:], rtol=1e-3, atol=1e-6)


@here
@pytest.mark.parametrize("norm", ["none", "before", "after"])
@pytest.mark.parametrize("schema", [MIXED, SINGLE], ids=["mixed", "single"])
def test_every_activation_learns_as_by_pytorch(norm: str, schema: Schema) -> None:
    model, noise = replace(MODEL, norm=norm), NoiseConfig(window=4, lost=0.2, reductions=True)  # type: ignore[arg-type]
    compiled, plain = pair(*FORMULAS, model=model, noise=noise, schema=schema)
    for chunk in make_chunks(plain, 3):
        np.testing.assert_allclose(compiled.learn(chunk), plain.learn(chunk), rtol=TOLERANCE, atol=TOLERANCE)
    assert_close(compiled, plain)


@here
@pytest.mark.parametrize(
    "model",
    [
        ModelConfig(dim=1, hidden=(1,), batch=1, norm="none"),
        ModelConfig(dim=7, hidden=(33, 1, 7), batch=3, norm="none"),
        ModelConfig(dim=17, hidden=(65,), batch=50),
        ModelConfig(dim=2, hidden=(5, 40, 9, 33), batch=9, norm="before"),
    ],
    ids=["ones", "odd", "one layer", "deep"],
)
def test_any_shape(model: ModelConfig) -> None:
    compiled, plain = pair("smelu", model=model)
    for start in (0, 100):
        chunk = make_events(MIXED, min(100, plain.chunk_events), start=start)
        np.testing.assert_allclose(compiled.learn(chunk), plain.learn(chunk), rtol=1e-4, atol=1e-4)
    torch.testing.assert_close(compiled.stack.embedding, plain.stack.embedding, rtol=1e-4, atol=1e-4)


@here
def test_the_same_slates() -> None:
    compiled, plain = pair("relu", "smelu:beta=2", "gelu", noise=NoiseConfig(window=4))
    for chunk in make_chunks(plain, 4):
        compiled.learn(chunk), plain.learn(chunk)
    events, items = make_events(MIXED, 600, start=9_000), np.arange(60)
    scores = [score_events(learner.stack, events.features).reshape(-1, 10, 60) for learner in (compiled, plain)]
    np.testing.assert_allclose(scores[0], scores[1], rtol=TOLERANCE, atol=TOLERANCE)
    equal = []
    for ours, theirs in zip(scores[0].reshape(-1, 60), scores[1].reshape(-1, 60), strict=True):
        one, other = (slate(each, items, 10).items for each in (ours, theirs))
        assert np.abs(theirs[one] - theirs[other]).max() <= 2 * TOLERANCE, "rounding decides between equals only"
        equal.append(np.array_equal(one, other))
    assert np.mean(equal) > 0.9


@pytest.mark.parametrize("way", ["auto", "off"])
def test_without_noise_duplicates_stay_equal_to_the_last_bit(way: str) -> None:
    stack = make_stack("relu", "swish", model=replace(MODEL, compile=way), duplicates=5, threads=2)  # type: ignore[arg-type]
    learner = Learner(stack, NO_NOISE, seed=7)
    for chunk in make_chunks(learner, 3):
        logits = learner.learn(chunk).reshape(2, 5, -1)
        assert (logits == logits[:, :1]).all()
    assert (stack.embedding.view(2, 5, -1) == stack.embedding.view(2, 5, -1)[:, :1]).all()
    scores = score_events(stack, make_events(MIXED, 70).features).reshape(2, 5, -1)
    assert (scores == scores[:, :1]).all() and not (scores[0] == scores[1]).any()


@here
def test_a_state_is_not_taken_up_the_other_way() -> None:
    compiled, plain = pair("relu")
    with pytest.raises(ResultError, match="compile = off: saved with compiled kernels, which are not used here"):
        plain.restore(compiled.state())
    with pytest.raises(ResultError, match="compile = on: saved without compiled kernels, .* with --compile off"):
        compiled.restore(plain.state())


PLAIN = [
    (replace(MODEL, norm="weight"), NO_NOISE),
    (MODEL, NoiseConfig(delay=2)),
    (MODEL, NoiseConfig(precision="bfloat16")),
]


@pytest.mark.parametrize(("model", "noise"), PLAIN, ids=["weight norm", "delay", "bfloat16"])
def test_what_has_no_kernels_takes_pytorchs_way_in_all_arms(model: ModelConfig, noise: NoiseConfig) -> None:
    assert make_stack("relu", "gelu", model=model, noise=noise).native is None
    if load("auto"):
        with pytest.raises(SettingError, match="compile = on: not with"):
            make_stack(model=replace(model, compile="on"), noise=noise)


@pytest.fixture
def no_compiler(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Iterator[None]:
    """Nothing on PATH, and nothing known from before."""
    made = native.KERNELS, native_learning.LIBRARY, native_scoring.LIBRARY
    for once in made:
        once.forget()
    monkeypatch.setenv("PATH", str(tmp_path))
    monkeypatch.delenv("CXX", raising=False)
    yield
    for once in made:
        once.forget()


@pytest.mark.usefixtures("no_compiler")
def test_without_a_compiler_auto_is_plain_and_on_is_an_error() -> None:
    assert make_stack("relu").native is None
    with pytest.raises(SettingError) as error:
        make_stack("relu", model=replace(MODEL, compile="on"))
    assert "compile = on: none of c++, g++, clang++ is on PATH: install a C++ compiler" in str(error.value)
    assert "\n" not in str(error.value)
    assert not native_scoring.is_wanted("auto") and not native_scoring.is_wanted("off")
    with pytest.raises(SettingError, match=r"compile = on: none of .*: install a C\+\+ compiler"):
        native_scoring.is_wanted("on")
