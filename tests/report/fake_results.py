"""Results such as a run writes them, made up; the shape is schema 2."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

Json = dict[str, Any]
MEASURES = ("slot", "top1", "set", "pair", "rbo")


def spread(mean: float, share: float = 0.12) -> Json:
    """An interval as result.json writes it, `share` of the mean to each side."""
    return {"mean": mean, "low": mean * (1 - share), "high": mean * (1 + share)}


def fake_arm(spec: str, factor: float, loss: float, wide: float = 0.12) -> Json:
    """An arm with `factor` times the instability of a typical ReLU, intervals `wide` to each side."""
    typical = {"slot": 0.61, "top1": 0.189, "set": 0.32, "pair": 0.085, "rbo": 0.28}
    width = 1.0 if spec.startswith("smelu") else 0.0
    x = np.linspace(-4, 4, 161)
    gradient = np.clip((x + width) / (2 * width), 0, 1) if width else (x > 0).astype(float)
    y = x * gradient + width * gradient * (1 - gradient)
    return {
        "pd": spread(0.147 * factor, wide),
        "pd_ranking": spread(0.121 * factor, wide),
        "pd_shift": spread(0.048 * factor, wide),
        "swaps": {name: spread(value * factor, wide) for name, value in typical.items()},
        "refresh_swaps": {name: spread(min(1, 1.3 * value * factor), wide) for name, value in typical.items()},
        "both_swaps": {name: spread(min(1, 1.5 * value * factor), wide) for name, value in typical.items()},
        "log_loss": spread(loss, 0.003),
        "progressive_log_loss": spread(loss + 0.02, 0.003),
        "auc": spread(0.80 - (loss - 0.43), 0.002),
        "ranking_loss": spread(0.512 + (loss - 0.43), 0.004),
        "calibration": spread(1.01, 0.01),
        "clicks_per_slate": spread(1.83, 0.02),
        "regret": spread(0.031, 0.05),
        "useful_swaps": spread(0.03 * factor),
        "useless_swaps": spread(0.06 * factor),
        "train_seconds": 41.27,
        "events_per_second": 21_807.0,
        "parameters": 1_248_321,
        "ratio": {name: spread(factor, wide) for name in ("pd", *MEASURES, "refresh_pair")}
        | {"log_loss": spread(loss / 0.4315, 0.001), "auc": spread(1.002, 0.001), "ranking_loss": spread(0.99, 0.001)},
        "activation": {"name": spec, "x": x.tolist(), "y": y.tolist(), "gradient": gradient.tolist()},
    }


def fake_result(arms: dict[str, tuple[float, float]] | None = None, generations: int = 20, wide: float = 0.12) -> Json:
    """A result.json such as a run writes; `arms` gives each spec its (instability against ReLU, log loss)."""
    arms = arms or {"relu": (1.0, 0.4315), "smelu:beta=1": (0.21, 0.4287), "swish:beta=1": (0.34, 0.4296)}
    measured = {spec: fake_arm(spec, *values, wide) for spec, values in arms.items()}
    for spec, (factor, loss) in arms.items():
        measured[spec]["ratio_to"] = {
            other: {"pd": spread(factor / own, wide) if own else None, "log_loss": spread(loss / its, 0.001)}
            for other, (own, its) in arms.items()
            if other != spec
        }
    steps = []
    for g in range(1, generations + 1):
        now: Json = {}
        for place, (spec, arm) in enumerate(measured.items()):
            size = 1 + 0.5 / g + 0.05 * np.sin(g + place)
            now[spec] = {
                "pd": spread(arm["pd"]["mean"] * size, wide),
                "swaps": {
                    "slot": arm["swaps"]["slot"]["mean"] * size,
                    "pair": spread(arm["swaps"]["pair"]["mean"] * size),
                },
                "refresh_swaps": {"slot": 0.3 / g, "pair": spread(arm["refresh_swaps"]["pair"]["mean"] * (1 + 2 / g))},
                "both_swaps": {"slot": 0.3 / g, "pair": spread(arm["both_swaps"]["pair"]["mean"] * size)},
                "progressive_log_loss": spread(arm["log_loss"]["mean"] + 0.1 / g, 0.003),
            }
        steps.append({"generation": g, "events": g * 45_000, "arms": now})
    world = {"name": "synthetic", "events": 1_000_000, "learned": 950_000, "held_out": 50_000, "users": 5_000}
    return {
        "schema": 2,
        "kind": "run",
        "flicker": "0.1.0",
        "world": world | {"items": 2_000, "has_truth": True, "skipped_rows": 0},
        "arms": measured,
        "generations": steps,
        "notes": ["One fleet: every interval is conditional on its initialisation."],
        "seconds": 143.2,
        "peak_memory_bytes": 1_240_000_000,
    }


def silent_result() -> Json:
    """A run without noise: everything exactly 0, no ratio of 0 to 0."""
    result = fake_result({"relu": (0.0, 0.4315), "smelu:beta=1": (0.0, 0.4287)})
    for arm in result["arms"].values():
        arm["ratio"] = dict.fromkeys(arm["ratio"]) | {"log_loss": arm["ratio"]["log_loss"]}
    return result


CONFIG: Json = {
    "config": {
        "world": {"events": 1_000_000, "users": 5_000},
        "arms": ["relu", "smelu:beta=1"],
        "model": {"dim": 16, "hidden": [128, 64, 32], "norm": "after"},
        "noise": {"init": "same", "window": 16, "lost": 0.0, "delay": 0, "precision": "float32", "reductions": False},
        "duplicates": 4,
        "fleets": 1,
        "seed": 7,
    },
    "versions": {"python": "3.11.2", "numpy": "2.3.0"},
    "machine": {"processor": "x86_64", "cores": 2},
    "command": "flicker run --arms relu smelu:beta=1 --out result",
}


def write(folder: Path, result: Json, config: Json | None = None) -> Path:
    """A result folder holding these two files."""
    (folder / "result.json").write_text(json.dumps(result))
    (folder / "config.json").write_text(json.dumps(config or CONFIG))
    return folder


TWELVE = ["relu", "relu#2", "linear", "smelu:beta=0.25", "smelu:beta=0.5", "smelu:beta=1", "smelu:beta=2", "gelu"]
TWELVE += ["swish:beta=1", "softplus:beta=3", "gsmelu:g_minus=0.1,g_plus=1,alpha=1,beta=0.5", "swish:beta=2"]
RESULTS: dict[str, Callable[[], Json]] = {
    "three arms": fake_result,
    "one arm": lambda: fake_result({"relu": (1.0, 0.4315)}),
    "twelve arms": lambda: fake_result({s: (1.0 - 0.07 * i, 0.4315 - 0.0007 * (i % 5)) for i, s in enumerate(TWELVE)}),
    "one generation": lambda: fake_result(generations=1),
    "zeros": silent_result,
    "largest": lambda: fake_result({f"smelu:beta={i}": (1 / (1 + i), 0.43) for i in range(20)}, generations=100),
}
