"""One point of learning, in a process of its own: a short run, taken apart. Prints one line of JSON.

python tests/bench/scaling_learning.py '{"entities": 10000, ...}'
"""

from __future__ import annotations

import json
import sys
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from scaling_axes import Setting
from scaling_meter import Meter

from simulator.experiment.experiment import Experiment
from simulator.experiment.outcome import measure
from simulator.measures.comparison import Rankings
from simulator.models.snapshot import write_snapshot
from simulator.types import Doubles, Query
from simulator.world.open import open_world


class Watched(Experiment):
    """An experiment that says what learning, ranking and comparing take."""

    meter: Meter
    ranked = 0
    """Candidates ranked so far, by each model."""

    def _rank(self, queries: list[Query]) -> Rankings:
        self.ranked += sum(len(query.candidates) for query in queries)
        with self.meter.part("rank"):
            return super()._rank(queries)

    def _learn(self, *arguments: Any) -> Doubles:
        with self.meter.part("learn"):  # the world's events included
            return super()._learn(*arguments)

    def compare(self, *arguments: Any) -> None:
        with self.meter.part("compare"):
            super().compare(*arguments)


def point(setting: Setting) -> dict[str, object]:
    """What the run takes, part by part; `learn` is the CPU time of the models' own work, a part of `run`."""
    meter, config = Meter(), setting.config
    with TemporaryDirectory() as folder:

        def checkpoint() -> None:
            with meter.part("checkpoint"):
                write_snapshot(Path(folder), experiment.engines.state(), {})

        with meter.part("world"):
            world = open_world(config.world, config.seed, config.model.hash_rows)
        with meter.part("stack"):
            experiment = Watched(config, world)
            experiment.meter = meter
        with meter.part("run"):
            final = experiment.run(lambda events: None, checkpoint)
        stored = sum(file.stat().st_size for file in Path(folder).iterdir())
    with meter.part("measure"):
        measure(experiment, final)
    state = experiment.state
    learned, learn = state.scored, sum(state.compute)
    return {
        "rows": world.schema.rows,
        "learned": learned,
        "learn": learn,
        "ranked": experiment.ranked,
        "stored": stored,
        "cpu": meter.cpu,
        "peak": meter.peak,
    }


if __name__ == "__main__":
    print(json.dumps(point(Setting(**json.loads(sys.argv[1])))))
