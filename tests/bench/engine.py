"""An engine for one arm, as a run opens it, with as many threads as are asked for."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor

import torch

from simulator.config import ModelConfig, NoiseConfig
from simulator.models.engine import Engine
from simulator.models.native_engine import refusal
from simulator.models.specs import parse_arm
from simulator.types import Schema


def make_engine(
    kind: type[Engine],
    schema: Schema,
    spec: str,
    model: ModelConfig,
    noise: NoiseConfig,
    *,
    duplicates: int,
    threads: int = 1,
    device: str = "cpu",
) -> Engine:
    """All duplicates of an arm; each of the threads is at work on other models, with one thread per operation."""
    pool = ThreadPoolExecutor(threads, initializer=torch.set_num_threads, initargs=(1,))
    settings = {"fleets": 1, "duplicates": duplicates, "seed": 0, "device": device, "pool": pool}
    return kind(schema, parse_arm(spec), model, noise, **settings)


def no_native() -> str:
    """Why there is no native engine here; empty where there is one."""
    return refusal(parse_arm("relu"), ModelConfig(), NoiseConfig(), "cpu")
