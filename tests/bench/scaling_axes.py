"""What is varied, one thing at a time from a base point, and the combination that the formula is checked against."""

from __future__ import annotations

from dataclasses import dataclass, replace

from simulator.config import ExperimentConfig, ModelConfig, SyntheticConfig

MODEL = ModelConfig(hidden=(128, 64, 32), norm="after")
"""That of all of docs/scaling.md but its last part, larger than the default."""
LIVE = "## The live system"
"""Heading of that last part, which scaling_size.py writes."""


@dataclass(frozen=True)
class Setting:
    """One run: all else is as in the presets."""

    entities: int = 10_000
    """Users, and as many items."""
    hash_rows: int = 0
    arms: int = 2
    duplicates: int = 4
    candidates: int = 200
    events: int = 30_000
    generations: int = 2

    @property
    def models(self) -> int:
        """Models that learn side by side."""
        return self.arms * self.duplicates

    @property
    def config(self) -> ExperimentConfig:
        """As `flicker run` would have it: `arms` designs, ReLU and SmeLU with growing beta."""
        return ExperimentConfig(
            world=SyntheticConfig(events=self.events, users=self.entities, items=self.entities),
            arms=("relu", *(f"smelu:beta={number / 10:g}" for number in range(1, self.arms))),
            model=replace(MODEL, hash_rows=self.hash_rows),
            duplicates=self.duplicates,
            generations=self.generations,
            candidates=self.candidates,
        )

    @property
    def flags(self) -> list[str]:
        """The same as flags of `flicker run`."""
        config = self.config
        given = {
            "users": self.entities,
            "items": self.entities,
            "hash-rows": self.hash_rows,
            "duplicates": self.duplicates,
            "fleets": config.fleets,
            "candidates": self.candidates,
            "events": self.events,
            "generations": self.generations,
        }
        model = ["--hidden", *map(str, MODEL.hidden), "--norm", MODEL.norm]
        words = (word for name, value in given.items() for word in (f"--{name}", str(value)))
        return [*words, *model, "--arms", *config.arms]


@dataclass(frozen=True)
class Plan:
    """All points to be measured."""

    base: Setting
    rows: list[int]
    """Users and as many items, a row for each."""
    hashed: list[int]
    """Users and as many items, in `hash_rows` rows each."""
    hash_rows: int
    duplicates: list[int]
    arms: list[int]
    candidates: list[int]
    held_out: Setting
    repeats: int

    def learning(self) -> dict[str, list[Setting]]:
        """The settings of each axis of learning, the base point among them."""
        return {
            "rows": [replace(self.base, entities=count) for count in self.rows],
            "hashed": [replace(self.base, entities=count, hash_rows=self.hash_rows) for count in self.hashed],
            "duplicates": [replace(self.base, duplicates=count) for count in self.duplicates],
            "arms": [replace(self.base, arms=count) for count in self.arms],
            "candidates": [replace(self.base, candidates=count) for count in self.candidates],
        }

    def whole(self) -> dict[str, Setting]:
        """Runs from their command to their report: what these add to the parts, and what the formula is checked on."""
        return {"base": self.base, "held_out": self.held_out}

    def serving(self) -> dict[str, list[Setting]]:
        """The settings of each axis of serving: duplicates are other replicas, they do not matter to one."""
        axes = self.learning()
        return {
            axis: [replace(s, duplicates=2) for s in axes[axis]] for axis in ("rows", "hashed", "arms", "candidates")
        }


def served(setting: Setting) -> Setting:
    """The setting with as few duplicates as can be."""
    return replace(setting, duplicates=2)


FULL = Plan(
    base=Setting(),
    rows=[10_000, 30_000, 100_000, 300_000, 1_000_000],
    hashed=[100_000, 300_000, 1_000_000],
    hash_rows=10_000,
    duplicates=[2, 4, 8, 16],
    arms=[1, 2, 5, 10, 20],
    candidates=[50, 200, 500, 1_000],
    held_out=Setting(
        entities=500_000, hash_rows=150_000, arms=5, duplicates=6, candidates=500, events=200_000, generations=10
    ),
    repeats=2,
)
QUICK = Plan(
    base=Setting(entities=300, duplicates=2, candidates=30, events=20_000),
    rows=[300, 600],
    hashed=[600],
    hash_rows=100,
    duplicates=[2],
    arms=[2],
    candidates=[30],
    held_out=Setting(entities=600, hash_rows=200, arms=3, duplicates=2, candidates=40, events=20_000, generations=2),
    repeats=1,
)
"""For the tests: to see that everything runs. Its figures say nothing."""
