"""One run over a real Ray cluster of two nodes: the numbers of a run on one machine, also where a node is killed."""

from __future__ import annotations

import json
import time
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from simulator.config import ExperimentConfig, SyntheticConfig
from simulator.errors import FlickerError, SettingError
from simulator.experiment.main import run_experiment
from simulator.experiment.parts import standing
from simulator.flags import Resources, RunFlags, Spread
from tests.nodes import ray_cluster
from tests.small_runs import SMALL, outcome, prepared, small_replay, timeless

LONGER = SyntheticConfig(events=60_000, users=80, items=60, interaction=0.1)
MADE_UP = replace(SMALL, fleets=2, duplicates=4, generations=12, world=LONGER)


def run_on(address: str, config: ExperimentConfig, out: Path, resume: bool = False, **settings: Any) -> Any:
    """`flicker run --backend ray`, four parts unless said."""
    spread = Spread(backend="ray", address=address, **{"parts": 4, **settings})
    run_experiment(RunFlags(out=out, page=False, resume=resume, spread=spread), config, "a test")
    return timeless(json.loads((out / "result.json").read_text()))


def lose_a_node(nodes: Any, node: Any, out: Path) -> None:
    """Kill it when all parts are in their third generation, and start another."""
    deadline = time.monotonic() + 120
    while min(standing(out, 4).generations.values()) < 3:
        assert time.monotonic() < deadline
        time.sleep(0.02)
    nodes.remove_node(node, allow_graceful=False)
    assert max(standing(out, 4).generations.values()) < 9, "the run was nearly over before the node was lost"
    nodes.add_node(num_cpus=2)


@pytest.mark.slow  # starting Ray takes longer than all else here: test_parts.py shows the same without it
@pytest.mark.filterwarnings("default")  # Ray's own are not ours to mend
def test_a_run_on_two_nodes_is_the_local_one_and_a_lost_node_changes_nothing(tmp_path: Path) -> None:
    log = small_replay(tmp_path / "log", fleets=2)
    whole, whole_log = (timeless(outcome(prepared(config))) for config in (MADE_UP, log))
    with ray_cluster(2, 2) as nodes:
        lost = next(node for node in nodes.worker_nodes)
        assert run_on(nodes.address, log, tmp_path / "log-run", parts=None, resources=Resources(cpus=2)) == whole_log
        with ThreadPoolExecutor(1) as pool:
            running = pool.submit(run_on, nodes.address, MADE_UP, tmp_path / "killed")
            lose_a_node(nodes, lost, tmp_path / "killed")  # with two parts: all four cores were taken
            assert running.result() == whole
        until_known(2)
        refused(nodes.address, tmp_path)


def until_known(count: int) -> None:
    """Wait until the cluster knows that the node it lost is none: so long it would count its room."""
    import ray

    deadline = time.monotonic() + 120
    while sum(node["Alive"] for node in ray.nodes()) != count:
        assert time.monotonic() < deadline
        time.sleep(0.2)


def refused(address: str, folder: Path) -> None:
    """What a cluster cannot do is one line."""
    hint = "parts = 5: at most 4, for which the cluster has room: those of a made-up world run side by side"
    with pytest.raises(SettingError, match=hint):
        run_on(address, MADE_UP, folder / "many", parts=5)
    with pytest.raises(SettingError, match="CPU 3: no node of the cluster has as much: ask for less"):
        run_on(address, MADE_UP, folder / "large", resources=Resources(cpus=3))
    assert not (folder / "many").exists() and not (folder / "large").exists()
    bad = replace(MADE_UP, model=replace(MADE_UP.model, learning_rate=1e30))
    with pytest.raises(FlickerError, match=r"part ./4: learning_rate = 1e\+30: relu diverged"):
        run_on(address, bad, folder / "diverging")
