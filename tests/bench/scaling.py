"""`make scaling`: how time and memory grow, measured, fitted and drawn. It writes docs/scaling.md and its figures.

    python tests/bench/scaling.py [--repeats 2] [--at-once 1] [--docs docs] [--points FILE] [--live]

Every point is a process of its own; the points are gone through `repeats` times. `--points` keeps what was measured as
JSON; where the file exists already nothing is measured again, only fitted and drawn. `--live` measures the live system
alone, for `flicker size` and the last part of the page: see scaling_size.py.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, replace
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from rich.console import Console
from rich.progress import track
from scaling_axes import FULL, QUICK, Plan, Setting, served

HERE = Path(__file__).parent
ROOT = HERE.parents[1]
Measured = dict[str, list[dict[str, Any]]]
"""Per setting, as JSON, what each of its processes said."""


def main() -> None:
    """Measure, fit, draw, write."""
    given = arguments()
    if given.live:
        return measure_live(given)
    plan = QUICK if given.quick else FULL
    plan = replace(plan, repeats=given.repeats or plan.repeats)
    if given.points and given.points.exists():
        kept = json.loads(given.points.read_text())
    else:
        kept = measure(plan, given.at_once)
    if given.points:
        given.points.write_text(json.dumps(kept, indent=1) + "\n")
    import scaling_page  # matplotlib and PyTorch: a child's peak of memory starts with that of its parent

    for path in scaling_page.write(plan, kept, given.docs):
        print(path)


def measure_live(given: argparse.Namespace) -> None:
    """Points of the live system, laws.json, the last part of the page."""
    import scaling_size  # PyTorch, as above

    with TemporaryDirectory() as folder:
        scaling_size.main(given.points or Path(folder, "points.jsonl"), given.docs, given.at_once)


def arguments() -> argparse.Namespace:
    """Where to write, and how much to measure."""
    parser = argparse.ArgumentParser(prog="make scaling", description="Measure how time and memory grow; draw it.")
    parser.add_argument("--docs", type=Path, default=ROOT / "docs", metavar="DIR", help="where scaling.md goes")
    parser.add_argument("--points", type=Path, metavar="FILE", help="keep what was measured, or draw what was kept")
    parser.add_argument("--repeats", type=int, metavar="N", help="processes per point")
    parser.add_argument("--at-once", type=int, default=1, metavar="N", help="points measured side by side")
    parser.add_argument("--live", action="store_true", help="the live system alone: laws of flicker size")
    parser.add_argument("--quick", action="store_true", help="tiny sizes, to see that it runs; the figures say nothing")
    given = parser.parse_args()
    if not given.docs.is_dir():
        parser.error(f"--docs = {given.docs}: give a folder that exists")
    if given.points and (given.points.is_dir() or not given.points.absolute().parent.is_dir()):
        parser.error(f"--points = {given.points}: give a file in a folder that exists")
    for name, value in (("--repeats", given.repeats), ("--at-once", given.at_once)):
        if value is not None and value < 1:
            parser.error(f"{name} = {value}: at least 1")
    return given


def measure(plan: Plan, at_once: int) -> dict[str, Any]:
    """All points, then whole runs."""
    learning, serving = distinct(plan.learning()), [*distinct(plan.serving()), served(plan.held_out)]
    jobs = [*((learn, setting) for setting in learning), *((serve, setting) for setting in serving)] * plan.repeats
    jobs += [(run, setting) for setting in plan.whole().values()] * plan.repeats
    found: dict[str, Measured] = {}
    started, load = time.time(), [os.getloadavg()[0]]
    with ThreadPoolExecutor(at_once) as pool:
        all_said = pool.map(lambda job: (key(job[1]), job[0](job[1])), jobs)
        for name, said in track(all_said, "points", len(jobs), console=Console(stderr=True)):
            for kind, point in said.items():
                found.setdefault(kind, {}).setdefault(name, []).append(point)
            load.append(os.getloadavg()[0])
    seconds, date = time.time() - started, time.strftime("%Y-%m-%d")
    load = [min(load), max(load)]
    return {"points": found, "load": load, "seconds": seconds, "at_once": at_once, "date": date}


def distinct(axes: dict[str, list[Setting]]) -> list[Setting]:
    """Each setting once."""
    return list(dict.fromkeys(setting for settings in axes.values() for setting in settings))


def key(setting: Setting) -> str:
    """How a setting is named in the file of points."""
    return json.dumps(asdict(setting))


def learn(setting: Setting) -> dict[str, Any]:
    """A short run, taken apart."""
    return {"learning": said("scaling_learning.py", key(setting))}


def serve(setting: Setting) -> dict[str, Any]:
    """A generation published, and a replica that serves it."""
    with TemporaryDirectory() as folder:
        return {half: said("scaling_serving.py", half, folder, key(setting)) for half in ("publish", "replica")}


def said(script: str, *words: str) -> Any:
    """What a point prints."""
    command = [sys.executable, str(HERE / script), *words]
    return json.loads(subprocess.run(command, env=environment(), check=True, stdout=subprocess.PIPE, text=True).stdout)


def run(setting: Setting) -> dict[str, Any]:
    """`flicker run` as anyone would start it: its CPU seconds, peak memory, and what it learned and ranked."""
    with TemporaryDirectory() as folder:
        command = [sys.executable, "-m", "simulator", "run", "--out", f"{folder}/run", *setting.flags]
        with subprocess.Popen(command, env=environment(), cwd=ROOT, stdout=subprocess.DEVNULL) as process:
            _, status, usage = os.wait4(process.pid, 0)
            process.returncode = os.waitstatus_to_exitcode(status)
        assert process.returncode == 0, command
        result = json.loads(Path(folder, "run", "result.json").read_text())
    said = {
        "cpu": usage.ru_utime + usage.ru_stime,
        "peak": result["peak_memory_bytes"],
        "learned": result["generations"][-1]["events"],
        "generations": len(result["generations"]),
        "learn": sum(arm["train_seconds"] for arm in result["arms"].values()),
    }
    return {"run": said}


def environment() -> dict[str, str]:
    """With our own packages in reach."""
    return os.environ | {"PYTHONPATH": str(ROOT)}


if __name__ == "__main__":
    main()
