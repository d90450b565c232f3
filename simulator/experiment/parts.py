"""A run in parts: what the models of each said, left in the run's folder, and joined there.

OUT/config.json                  of the whole run, with `parts`: how many; by the part that comes first
OUT/parts/1-of-4/checkpoint/G/   where the part stands
OUT/parts/1-of-4/slates/G/       the slates that its models showed at generation G; on a made-up world alone
OUT/parts/1-of-4/said/G/         what its models said at generation G, see `Outputs`
OUT/parts/1-of-4/final/          what they said at the end; with it the part is complete

All are snapshots (models/snapshot.py): whole, or not there. A part that does a generation again writes what it wrote
before, and finds what the others wrote: so one may start anew while the others are generations ahead.

**Why the whole is exact.** A model's initial weights, noise and order of events follow from the seed and its own
number. What couples models is that all learn what users clicked on in the slates of one: those slates the parts
exchange. Everything else is counted when all is joined, by the code of a run in one piece.

Shapes: A arms, S served models of all parts, M of one, Q queries, N candidates, K slate length.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from simulator.errors import FlickerError, ResultError
from simulator.experiment.evaluation import Asked, Evaluation, Final, Outputs, Part, State, Taught
from simulator.files import writing
from simulator.measures.comparison import Rankings
from simulator.models.engine import Costs
from simulator.models.snapshot import read_about, read_snapshot, write_snapshot
from simulator.types import Ints

FIRST_PAUSE, LONGEST_PAUSE = 0.02, 1.0
"""Seconds between looks for another part's slates: doubled each time."""
NOTIFY_AFTER = 10.0
"""Seconds of waiting after which a line says for whom."""
Arrays = Mapping[str, NDArray[Any]]


def place_of(out: Path, part: Part) -> Path:
    """The folder of a part of a run."""
    return out / "parts" / f"{part.number}-of-{part.of}"


class ConcurrentPart:
    """A part beside the others (see `OtherParts`), which share the folder OUT."""

    def __init__(self, out: Path, part: Part, patience: float, notify: Callable[[str], object]) -> None:
        """It waits `patience` seconds for another part's slates, and tells whom it waits for."""
        self.place = place_of(out, part)
        self._out, self._part, self._patience, self._notify = out, part, patience, notify

    def report(self, outputs: Outputs, before: Asked | None) -> None:
        """Leave it for `joined`. Raises ResultError where the folder cannot be written."""
        arrays: dict[str, NDArray[Any]] = {
            "ranked": outputs.asked.ranked.scores,
            "logits": outputs.logits,
            "losses": outputs.losses,
        }
        arrays |= {"again": outputs.again.scores} if outputs.again else {}
        about = {"begun": outputs.begun, "position": outputs.position, "events": outputs.events}
        self._leave(f"said/{outputs.generation}", arrays, about)

    def shown(self, generation: int, slates: Ints) -> Ints:
        """See OtherParts. Raises ResultError where another part keeps this one waiting for too long."""
        self._leave(f"slates/{generation}", {"slates": slates}, {})
        others = [Part(number, self._part.of) for number in range(self._part.of) if number != self._part.number]
        for other in others:
            other_slates = self._wait(other, generation)
            slates = np.where(slates < 0, other_slates, slates)
        if (slates < 0).any():
            raise FlickerError(
                f"out = {self._out}: the parts' slates of generation {generation} are damaged: run again"
            )
        return slates

    def finish(self, final: Final, state: State, about: Mapping[str, Any]) -> None:
        """Leave what the models here said at the end; `about`: what else `abouts` should give back of this part."""
        rankings = {f"earlier.{lag}": ranked for lag, ranked in final.earlier.items()}
        rankings |= {"after": final.after, "strangers": final.strangers, "baseline_rankings": final.baseline_rankings}
        arrays = {name: ranked.scores for name, ranked in rankings.items()}
        arrays |= {name: getattr(final, name) for name in ("logits", "progressive", "scoring_seconds", "baselines")}
        arrays |= {name: np.array(getattr(state, name)) for name in ("losses", "compute")}
        counts = {name: getattr(state, name) for name in ("generation", "position", "scored", "counted", "seconds")}
        self._leave("final", arrays, {"state": counts, "taught": asdict(final.taught), **about})

    def _wait(self, other: Part, generation: int) -> Ints:
        """[Q, K] the slates that another part showed, -1 where it showed none."""
        folder, begun, pause, notified = (
            place_of(self._out, other) / "slates" / str(generation),
            time.monotonic(),
            0.0,
            False,
        )
        while True:
            try:
                return read_snapshot(folder)[0]["slates"].numpy()
            except ResultError:  # not there yet
                pause, waited = min(2 * pause or FIRST_PAUSE, LONGEST_PAUSE), time.monotonic() - begun
            if waited > self._patience:
                hint = "the parts of a made-up world run side by side: run that one too, and this one again"
                raise ResultError(f"part {other}: has not come to generation {generation} in {waited:,.0f} s: {hint}")
            if waited > NOTIFY_AFTER and not notified:
                self._notify(f"Waiting for part {other} to come to generation {generation} ...")
                notified = True
            time.sleep(pause)

    def _leave(self, name: str, arrays: Arrays, about: dict[str, Any]) -> None:
        tensors = {key: torch.from_numpy(np.ascontiguousarray(value)) for key, value in arrays.items()}
        with writing("out", self._out):
            write_snapshot(self.place / name, tensors, about)


@dataclass(frozen=True)
class Standing:
    """How far the parts of a run are."""

    generations: dict[Part, int]
    """Part -> generations of which it said something."""
    complete: list[Part]

    @property
    def missing(self) -> list[Part]:
        """Parts that are not complete."""
        return [part for part in self.generations if part not in self.complete]


def standing(out: Path, parts: int) -> Standing:
    """How far each of so many parts is."""
    every = [Part(number, parts) for number in range(parts)]
    places = {part: place_of(out, part) for part in every}
    return Standing(
        {part: len(list((place / "said").glob("*/manifest.json"))) for part, place in places.items()},
        [part for part, place in places.items() if (place / "final" / "manifest.json").exists()],
    )


def abouts(out: Path, parts: int) -> list[dict[str, Any]]:
    """What each part told about itself at its end. Raises ResultError where one is not complete."""
    if missing := standing(out, parts).missing:
        some = ", ".join(map(str, missing))
        raise ResultError(f"out = {out}: part {some} of {parts} is not complete: run it with --part")
    return [read_about(place_of(out, Part(number, parts)) / "final") for number in range(parts)]


def joined(evaluation: Evaluation, out: Path, parts: int) -> Final:
    """Compare what all parts said, generation by generation: `evaluation.state` is then that of the whole run.

    Returns what the final measurement is made from. Raises ResultError where something is missing or damaged.
    """
    before: Asked | None = None
    for generation in range(1, evaluation.plan.generations):
        outputs = _outputs(evaluation, out, parts, generation, before)
        evaluation.compare(outputs, before)
        before = outputs.asked
    return _final(evaluation, out, parts)


def _outputs(evaluation: Evaluation, out: Path, parts: int, generation: int, before: Asked | None) -> Outputs:
    arrays, (about, *_) = _read(evaluation, out, parts, f"said/{generation}")
    queries, k = evaluation.ask(about["position"]), evaluation.config.k
    asked = Asked(queries, Rankings(arrays["ranked"], queries, k))
    again = Rankings(arrays["again"], before.queries, k) if before else None
    ahead = evaluation.ahead(about["position"])
    place = generation, about["begun"], about["position"], about["events"]
    return Outputs(*place, asked, again, ahead, arrays["logits"], arrays["losses"])


def _final(evaluation: Evaluation, out: Path, parts: int) -> Final:
    arrays, every = _read(evaluation, out, parts, "final", alike=("baselines", "baseline_rankings"))
    queries, k, state = evaluation.final_queries, evaluation.config.k, evaluation.state
    for name, value in every[0]["state"].items():
        setattr(state, name, value)
    state.seconds = max(about["state"]["seconds"] for about in every)
    state.losses, state.compute = arrays["losses"].tolist(), arrays["compute"].tolist()
    lags = [int(name.split(".")[1]) for name in arrays if name.startswith("earlier.")]
    taught = every[0]["taught"]
    return Final(
        queries,
        {lag: Rankings(arrays[f"earlier.{lag}"], queries, k) for lag in sorted(lags, reverse=True)},
        Rankings(arrays["after"], queries, k),
        Rankings(arrays["strangers"], evaluation.strangers, k),
        evaluation.held_out,
        arrays["logits"],
        arrays["progressive"],
        arrays["scoring_seconds"],
        arrays["baselines"],
        Rankings(arrays["baseline_rankings"], queries, k),
        Taught(**taught | {"costs": [Costs(**costs) for costs in taught["costs"]]}),
    )


def _read(
    evaluation: Evaluation, out: Path, parts: int, name: str, alike: Sequence[str] = ()
) -> tuple[dict[str, NDArray[Any]], list[dict[str, Any]]]:
    """Arrays [S, ...] of all models, and what each part says beside its own; `alike`: those that are no models', and
    the same in each part."""
    tensors, abouts = list[dict[str, Tensor]](), list[dict[str, Any]]()
    for number in range(parts):
        place = place_of(out, Part(number, parts))
        try:
            part_tensors, about = read_snapshot(place / name)
        except ResultError as problem:
            raise ResultError(f"{problem}; or delete {place} and run part {number}/{parts} again") from None
        tensors.append(part_tensors)
        abouts.append(about)
    arms = len(evaluation.arms)

    def whole(key: str) -> NDArray[Any]:
        """The models of each arm behind one another."""
        cut = [np.split(part_tensors[key].numpy(), arms) for part_tensors in tensors]
        return np.concatenate([part[arm] for arm in range(arms) for part in cut])

    return {key: tensors[0][key].numpy() if key in alike else whole(key) for key in tensors[0]}, abouts
