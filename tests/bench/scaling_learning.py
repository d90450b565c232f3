"""One point of learning, in a process of its own: a short run, taken apart. Prints one line of JSON.

    python tests/bench/scaling_learning.py '{"entities": 10000, ...}'

`learn` is the CPU time of the models' own work; `run` is all of the run from the first event to the last, with learning
and checkpoint in it; `measure` is the final measurement.
"""

from __future__ import annotations

import json
import sys
from pathlib import Path
from tempfile import TemporaryDirectory

from scaling_axes import Setting
from scaling_meter import Meter

from simulator.experiment import Experiment, open_world
from simulator.outcome import measure
from simulator.recommender.ranking import score_queries
from simulator.recommender.snapshot import write_snapshot


def point(setting: Setting) -> dict[str, object]:
    """What the run takes, part by part."""
    meter, config, stored = Meter(), setting.config, 0
    with TemporaryDirectory() as folder:

        def checkpoint() -> None:
            nonlocal stored
            with meter.part("checkpoint"):
                write_snapshot(Path(folder), experiment.learner.state(), {})
            stored = sum(file.stat().st_size for file in Path(folder).iterdir())

        with meter.part("world"):
            world = open_world(config.world, config.seed, config.model.hash_rows)
        with meter.part("stack"):
            experiment = Experiment(config, world)
        with meter.part("run"):
            final = experiment.run(lambda events: None, checkpoint)
    with meter.part("measure"):
        measure(experiment, final)
    with meter.part("rank"):
        score_queries(experiment.stack, final.queries)
    state, models = experiment.state, len(experiment.stack)
    return {
        "rows": world.schema.rows,
        "models": models,
        "learned": state.scored,
        "learn": sum(state.compute),
        "ranked": len(final.queries) * config.candidates,
        "stored": stored,
        "cpu": meter.cpu,
        "peak": meter.peak,
    }


if __name__ == "__main__":
    print(json.dumps(point(Setting(**json.loads(sys.argv[1])))))
