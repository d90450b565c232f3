"""Figures 6 and 7: when the gain shows (order, initialisation, normalisation), and what each source of noise does."""

from __future__ import annotations

import math
from collections.abc import Iterator

from simulator.decide.evidence import independent_ratio, silent
from simulator.figures.claims import Finding, Verdict
from simulator.figures.sweep import SOURCES, Sweep, condition, family
from simulator.measures.intervals import Interval, exact
from simulator.report.charts import Axis, Figure, Line, Panel, Point, chart, dots
from simulator.report.finding import noises
from simulator.result import Arm, Result
from simulator.words import label, number, written

NORMS = {"after": "norm after", "before": "norm before", "weight": "unit weights", "none": "no norm"}
INITS = {"same": "same start", "own": "own start"}
LOST, DOUBTFUL, LESS = "gain lost", "less gain, no longer beyond doubt", "less gain"
"""What may have become of a gain that is clearly less."""
Place = tuple[str, str, int]
"""Normalisation, initialisation, window in mini-batches."""


def pair(run: Result) -> tuple[Arm, Arm] | None:
    """ReLU and the widest SmeLU up to beta = 2 of a run, if it has both."""
    if run.arms[0].spec != "relu":
        return None
    smelu = [(beta, arm) for arm in run.arms for name, beta in [family(arm.spec)] if name == "smelu" and beta]
    fit = [found for found in smelu if found[0] <= 2] or smelu
    return (run.arms[0], max(fit, key=lambda found: found[0])[1]) if fit else None


def by_condition(sweep: Sweep) -> dict[Place, Result]:
    """Runs of ReLU and SmeLU with noise from order, and perhaps from initialisation, alone; those that agree in all
    else, of several such groups the largest, then the one of the lowest seed."""
    groups: dict[str, dict[Place, Result]] = {}
    for run in sorted(sweep.runs, key=lambda run: len(run.arms)):  # of two at one place, the one made for it
        both, sources = pair(run), noises(run)
        if both is None or "order" not in sources or not {"order", "init"} >= set(sources):
            continue
        model = {name: value for name, value in run.config.get("model", {}).items() if name != "norm"}
        key = f"{condition(run, 'noise', 'model')}{model}{both[1].spec}"
        noise = run.config["noise"]
        place = (str(run.config["model"].get("norm")), str(noise.get("init")), int(noise["window"]))
        groups.setdefault(key, {}).setdefault(place, run)
    return max(groups.values(), key=_size, default={})


def _size(group: dict[Place, Result] | dict[str, Result]) -> tuple[int, int]:
    """Of a group of runs of one seed."""
    return len(group), -int(next(iter(group.values())).config.get("seed", 0))


def conditions(sweep: Sweep) -> Figure:
    """Figure 6: SmeLU's PD against ReLU's over window, initialisation and normalisation."""
    runs = by_condition(sweep)
    found = {place: both for place, run in runs.items() if (both := pair(run))}
    if len(found) < 2:
        return Figure(6, "conditions", "One condition only: nothing to compare windows, starts and norms by")
    panels = [panel for init in INITS for panel in _ratio_panels(found, init)]
    norms = [norm for norm in NORMS if any(place[0] == norm for place in found)]
    legend = [(1 + index, NORMS[norm]) for index, norm in enumerate(norms)]
    note = "Below the line at 1, SmeLU differs less between duplicates than ReLU. A window is shuffled as a whole. "
    note += sweep.drawn(list(runs.values()))
    return Figure(6, "conditions", gain_conditions(sweep).say, panels, legend, note)


def _ratio_panels(found: dict[Place, tuple[Arm, Arm]], init: str) -> Iterator[Panel]:
    norms = [norm for norm in NORMS if any(place[0] == norm for place in found)]
    for measure, word in (("pd", "PD"), ("pair", "Pair swaps")):
        windows = sorted({window for _, own, window in found if own == init})
        lines = []
        for index, norm in enumerate(norms):
            places = [(i, found.get((norm, init, window))) for i, window in enumerate(windows)]
            shift = 0.08 * (index - (len(norms) - 1) / 2)
            points = [
                Point(exact(i + shift), both[1].ratios[measure], key=f"window={windows[i]}")
                for i, both in places
                if both and measure in both[1].ratios
            ]
            lines += [Line(NORMS[norm], points, 1 + index)] if points else []
        if lines:
            lines.insert(0, Line("no gain", [Point(exact(0), exact(1))], 0, level=True))
            marks = {float(i): str(window) for i, window in enumerate(windows)}
            axes = Axis("shuffle window, mini-batches", marks), Axis("SmeLU / ReLU", zero=True)
            yield chart(f"conditions-{init}-{measure}", f"{word}, {INITS[init]}", lines, *axes)


def gain_conditions(sweep: Sweep) -> Finding:
    """Claim 5: heavy shuffling and own initialisation lose the gain; normalisation matters."""
    found = {
        place: both[1].ratios["pd"]
        for place, run in by_condition(sweep).items()
        if (both := pair(run)) and "pd" in both[1].ratios
    }
    moderate = sorted((abs(window - 16), window) for norm, init, window in found if (norm, init) == ("after", "same"))
    if not moderate:
        return Finding("not measured", "needs SmeLU beside ReLU, normalised, at one start and a moderate window")
    window = moderate[0][1]
    best = found[("after", "same", window)]
    tried = {
        "own initialisation": found.get(("after", "own", window)),
        "heavy shuffling": _heaviest(found, window),
        "no normalisation": found.get(("none", "same", window)),
    }
    told = {name: (value, _against(value, best)) for name, value in tried.items() if value is not None}
    if not told:
        return Finding("not measured", "needs another window, own initialisation or no normalisation")
    say = (
        f"With one start, norm after and a window of {window}, SmeLU has {written(best, 2)} of ReLU's PD; "
        + "; ".join(f"{how}: {written(value, 2)}, {what}" for how, (value, what) in told.items())
    )
    lost = [what in (LOST, DOUBTFUL, LESS) for _, what in told.values()]
    verdict: Verdict = "not"
    if best.high < 1 and any(lost):
        verdict = "holds" if all(lost) and len(told) == len(tried) else "partly"
    return Finding(verdict, say)


def _heaviest(found: dict[Place, Interval], window: int) -> Interval | None:
    most = max(own for norm, init, own in found if (norm, init) == ("after", "same"))
    return found[("after", "same", most)] if most > window else None


def _against(value: Interval, best: Interval) -> str:
    """What became of the gain, by the interval of the ratio, and of how it differs from that under good conditions."""
    gap = independent_ratio(value, best) or exact(math.inf)
    if value.high >= 1 and gap.mean > 1:
        if gap.low > 1:
            return LOST if value.mean >= 1 else DOUBTFUL
        return "gain no longer beyond doubt"
    return LESS if gap.low > 1 else "more gain" if gap.high < 1 else "no clear change"


def by_source(sweep: Sweep) -> dict[str, Result]:
    """Runs by what noise was on: none, each source alone, several together; those that agree in all else."""
    groups: dict[str, dict[str, Result]] = {}
    for run in sorted(sweep.runs, key=lambda run: len(run.arms)):
        on = noises(run)
        few = ",\n".join(SOURCES[one] for one in on) or "none"
        name = few if len(on) <= 2 else f"{len(on)} together"
        own = groups.setdefault(condition(run, "noise"), {})
        # an own start is a source of its own without a window; of two windows, the one that other figures use
        if name not in own or abs(run.config["noise"].get("window", 0) - 16) < abs(
            own[name].config["noise"]["window"] - 16
        ):
            own[name] = run
    found = max(groups.values(), key=_size)
    order = ["none", *SOURCES.values()]
    return dict(sorted(found.items(), key=lambda item: order.index(item[0]) if item[0] in order else len(order)))


def sources(sweep: Sweep) -> Figure:
    """Figure 7: each source of noise alone, all together, and none."""
    found = by_source(sweep)
    if len(found) < 2:
        return Figure(7, "sources", "One setting of noise only: nothing to compare sources by")
    names = list(dict.fromkeys(arm.spec for run in found.values() for arm in _shown(run)))
    panels = []
    for measure, word in (("pd", "PD"), ("swaps.pair", "Pair swaps"), ("log_loss", "Log loss: lower is better")):
        lines = [
            Line(label(spec), [Point(arm.measures[measure], exact(0), source) for source, run in found.items()
                               for arm in _shown(run) if arm.spec == spec and measure in arm.measures], index)
            for index, spec in enumerate(names)
        ]  # fmt: skip
        panels.append(dots(f"sources-{measure}".replace(".", "-").replace("_", "-"), word, lines,
                           Axis("", zero=measure != "log_loss")))  # fmt: skip
    legend = [(index, label(spec)) for index, spec in enumerate(names)]
    note = "One source at a time, all else held still. " + sweep.drawn(list(found.values()))
    return Figure(7, "sources", each_source(sweep).say, panels, legend, note)


def _shown(run: Result) -> list[Arm]:
    both = pair(run)
    return list(both) if both else run.arms[:1]


def each_source(sweep: Sweep) -> Finding:
    """Claim 6: each source of noise alone gives more than 0, none gives exactly 0."""
    found = by_source(sweep)
    alone = {name: found[name].arms[0].measures["pd"].mean for name in SOURCES.values() if name in found}
    if not alone or "none" not in found:
        return Finding("not measured", "needs a run without noise and one with a single source")
    quiet = silent(found["none"])
    nothing = [name for name, value in alone.items() if value == 0]
    most, least = (choose(alone, key=lambda name: alone[name]) for choose in (max, min))
    say = (
        f"Without noise every difference is {'exactly 0' if quiet else 'NOT 0'}; alone, each of {len(alone)} sources "
        f"gives ReLU a PD from {number(alone[least])} ({least}) to {number(alone[most])} ({most})"
    )
    if nothing:
        say += f"; no difference comes from: {', '.join(nothing)}"
    if quiet and not nothing:
        return Finding("holds" if len(alone) == len(SOURCES) else "partly", say)
    return Finding("partly" if quiet and len(nothing) < len(alone) else "not", say)
