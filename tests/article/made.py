"""Made-up cells with known effects: ratios of every measure to ReLU, and noise between units."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from simulator.article.claims import design
from simulator.article.grid import ArmGroup, core
from simulator.article.table import CellResult, Values, WorldCells, worlds
from simulator.randomness import generator

PLAIN: Values = {
    "pd": 0.15, "pd_ranking": 0.14, "log_loss": 0.46, "ranking_loss": 0.6, "auc": 0.7, "ndcg": 0.13, "recall": 0.22,
    "personalisation": 0.24, "pair": 0.13, "refresh_pair": 0.3, "both_pair": 0.32, "slot": 0.7, "refresh_slot": 0.9,
    "both_slot": 0.92, "early_loss": 0.45, "part_loss": 0.45, "part_pd": 0.14, "part_pair": 0.12, "train_seconds": 1.0,
    "score_seconds": 1e-4, "lookups": 2200.0, "parameters": 4e5, "model_bytes": 2e6, "train_bytes": 2e6,
}  # fmt: skip
"""What ReLU gives."""
RATES = {"0.02": 1.01, "0.04": 1.004, "0.08": 1.0, "0.16": 1.003}
"""Rate -> its log loss to that of the best, early and late."""


def world(
    effects: Mapping[str, Mapping[str, float]] | None = None,
    groups: Sequence[ArmGroup] | None = None,
    spread: float = 0.003,
    name: str = "made",
) -> WorldCells:
    """The core grid on one world. `effects`: design (or `group/design`) -> measure -> ratio to ReLU's; `spread`:
    standard deviation of the logarithm of each value but losses, which move a tenth of it."""
    lines = []
    for group in groups if groups is not None else core(everything=True):
        for seed in range(group.seeds):
            labels = [spec if spec not in group.arms[:n] else f"{spec}#2" for n, spec in enumerate(group.arms)]
            arms = {spec: _arm(spec, group.name, seed, effects or {}, spread) for spec in labels}
            lines.append(
                CellResult(name, group.name, seed, [*group.arms], arms, {"popularity": {"log_loss": 0.48}}, 1.0, "0")
            )
    return worlds(lines)[name]


def _arm(spec: str, group: str, seed: int, effects: Mapping[str, Mapping[str, float]], spread: float) -> Values:
    plain = design(spec).removesuffix("#2")
    own = {**effects.get(plain, {}), **effects.get(f"{group}/{plain}", {})}
    rate = spec.rpartition("lr=")[2].partition(",")[0].removesuffix("#2") if "lr=" in spec else "0.08"
    draw = generator(seed, f"made {spec} {group}")
    found = {}
    for measure, value in PLAIN.items():
        loss = "loss" in measure
        factor = own.get(
            measure, own.get({"part_pd": "pd", "part_loss": "log_loss", "early_loss": "log_loss"}.get(measure, ""), 1.0)
        )
        noise = 1 + spread * (0.1 if loss else 1.0) * float(draw.normal())
        found[measure] = value * factor * (RATES[rate] if loss else 1.0) * noise
    return found
