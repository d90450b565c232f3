"""Whether the numbers of two runs mean the same: what `flicker gate` asks before it compares them."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from simulator.errors import SettingError
from simulator.report.result import Result

DECISIVE = ("k", "candidates", "duplicates", "generations")
"""Settings that change what a swap ratio means, besides the world and the noise."""
MADE_UP = ("seed", "queries_per_generation")
"""Those that do so on the synthetic world alone: it is drawn from the seed, and clicks on what is shown are learned."""


def require_alike(candidate: Result, baseline: Result, folder: Path) -> None:
    """Raises SettingError for the first setting by which the numbers of two runs do not mean the same.

    `folder` is that of the baseline. Arms, model, fleets and device may differ, on a log the seed as well.
    """
    new, old = _meaning(candidate), _meaning(baseline)
    for name in new | old:
        mine, its = (held.get(name, "not recorded") for held in (new, old))
        if mine != its:
            flag = "data" if name.startswith("world's") else name.rpartition(".")[2].replace("_", "-")
            way_out = f"run both with the same --{flag}" + (", or both without" if flag == "data" else "")
            its, mine = ("not set" if value is None else value for value in (its, mine))
            raise SettingError("baseline", folder, f"its {name} is {its}, the candidate's {mine}: {way_out}")


def _meaning(run: Result) -> dict[str, Any]:
    """What decides what a swap ratio means, by name. Where a log lies does not: its name and length do."""
    found = {"world's name": run.world.get("name")}
    for section in ("world", "noise"):
        values = run.config.get(section)
        if isinstance(values, dict):
            found |= {f"{section}.{name}": value for name, value in values.items() if name not in ("kind", "path")}
    names = DECISIVE + (MADE_UP if run.world.get("has_truth") else ())
    found |= {name: run.config[name] for name in names if name in run.config}
    counts = {"learned": "learned", "held_out": "held-out"}
    return found | {f"world's number of {word} events": run.world.get(name) for name, word in counts.items()}


def fleets(run: Result) -> int:
    """How many independent fleets its intervals cover; one where the run does not say."""
    value = run.config.get("fleets")
    return value if isinstance(value, int) else 1
