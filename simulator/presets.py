"""Ready-made experiments: each preset is a function that returns a full, frozen config; vary one with `replace`."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

from simulator.config import NO_NOISE, ExperimentConfig, ModelConfig, NoiseConfig, SyntheticConfig


def relu_vs_smelu() -> ExperimentConfig:
    """The question itself: ReLU against SmeLU on a synthetic world of a million events. About two minutes."""
    return ExperimentConfig(fleets=3)


def smoke() -> ExperimentConfig:
    """Everything once, small and in a few seconds; too short to conclude anything from."""
    return ExperimentConfig(
        world=SyntheticConfig(events=40_000, users=500, items=300),
        model=ModelConfig(dim=8, hidden=(32, 16), batch=256),
        noise=NoiseConfig(window=8),
        duplicates=3,
        generations=5,
        candidates=100,
        queries=100,
        queries_per_generation=20,
    )


def no_noise() -> ExperimentConfig:
    """The null experiment: every source of noise is off, and every difference must be exactly 0."""
    return replace(smoke(), world=SyntheticConfig(events=100_000), noise=NO_NOISE)


PRESETS: dict[str, Callable[[], ExperimentConfig]] = {
    "relu_vs_smelu": relu_vs_smelu,
    "smoke": smoke,
    "no_noise": no_noise,
}
