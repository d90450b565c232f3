"""Figures 3, 5, 9 and 10: activations; PD over training and refreshes; where PD is; useful and useless churn."""

from __future__ import annotations

from itertools import pairwise

from simulator.experiment import PEEK
from simulator.figures.claims import apart
from simulator.figures.sweep import Sweep, family, favourite, is_activation
from simulator.measures.intervals import Interval, exact
from simulator.report.charts import Axis, Figure, Line, Panel, Point, activation_panels, chart, dots
from simulator.report.finding import JUMP
from simulator.result import Arm, Bucket, Generation, Result
from simulator.words import NAMES, count, label, number, percent, written

SHOWN = ("relu", "smelu:beta=0.5", "smelu:beta=1", "smelu:beta=2", "gelu", "swish:beta=1", "softplus:beta=1")
"""Activations that are drawn, where the sweep has them."""
OVER_TIME = (
    ("pd", "PD between duplicates"),
    ("swaps.pair", "Pair swaps between duplicates"),
    ("refresh_swaps.pair", "Pair swaps at a refresh"),
)


def activations(sweep: Sweep) -> Figure:
    """Figure 3: activations and their gradients."""
    arms = {arm.spec: arm for run in sweep.runs for arm in run.arms if arm.activation and is_activation(arm.spec)}
    chosen = [arms[spec] for spec in SHOWN if spec in arms] or list(arms.values())[:7]
    curves = {arm.spec: arm.activation for arm in chosen if arm.activation}
    if not curves:
        return Figure(3, "activations", "No run holds samples of its activations")
    steps = {spec: max(abs(b - a) for a, b in pairwise(curve.gradient)) for spec, curve in curves.items()}
    jump = [label(spec) for spec, step in steps.items() if step > JUMP]
    smooth = [label(spec) for spec, step in steps.items() if step <= JUMP]
    parts = ([f"the gradient of {' and '.join(jump)} jumps"] if jump else []) + (
        [f"that of {', '.join(smooth)} does not"] if smooth else []
    )
    claim = "; ".join(parts)
    note = "Functions as the arms of this sweep have them, sampled; nothing here depends on a run."
    known = [(index, label(spec), curve) for index, (spec, curve) in enumerate(curves.items())]
    panels = activation_panels(known, ("activation", "gradient"))
    legend = [(index, label(spec)) for index, spec in enumerate(curves)]
    return Figure(3, "activations", claim[0].upper() + claim[1:], panels, legend, note)


def generations(sweep: Sweep) -> Figure:
    """Figure 5: PD over training, and swaps over refreshes."""
    arms = sweep.arms()
    smelu = favourite(arms)
    runs = [run for run in sweep.compared() if smelu and any(arm.spec == smelu.spec for arm in run.arms)]
    if not smelu or not runs or len(runs[0].generations) < 3:
        return Figure(5, "generations", "No run with ReLU and SmeLU over three generations or more")
    run = runs[0]
    steps = run.generations[:-1]
    specs = [spec for spec in ("relu", smelu.spec, "linear") if any(arm.spec == spec for arm in run.arms)]
    panels = [panel for what in OVER_TIME if (panel := _over_time(steps, specs, *what))]
    relu, own = ([step.arms[spec]["pd"] for step in steps] for spec in specs[:2])
    below = sum(a.mean < b.mean for a, b in zip(own, relu, strict=True))
    clear = sum(a.high < b.low for a, b in zip(own, relu, strict=True))
    claim = (
        f"PD of ReLU {_trend(relu[0], relu[-1])} over training, from {number(relu[0].mean)} to "
        f"{number(relu[-1].mean)}; {label(smelu.spec)} has less after {below} of {len(own)} generations, "
        f"with intervals apart after {clear}"
    )
    ratio = run_arm(run, smelu.spec).ratios.get("refresh_pair")
    if ratio:
        claim += f"; at a refresh it swaps {written(ratio, 2)} times as many pairs as ReLU"
    legend = [(index, label(spec)) for index, spec in enumerate(specs)]
    note = (
        f"Bands are 95 % intervals. PD after a generation is that of at most {count(PEEK)} events just ahead, swaps "
        "those of that generation's queries. The last generation is measured on all held-out events and other "
        "queries: it is not drawn, but gives the ratio of swaps at a refresh. "
    )
    return Figure(5, "generations", claim, panels, legend, note + sweep.drawn([run]))


def _trend(first: Interval, last: Interval) -> str:
    """Only what intervals allow."""
    if not apart(first, last):
        return "neither clearly rises nor falls"
    return "rises" if last.mean > first.mean else "falls"


def run_arm(run: Result, spec: str) -> Arm:
    """An arm that the run is known to have."""
    return next(arm for arm in run.arms if arm.spec == spec)


def _over_time(steps: list[Generation], specs: list[str], measure: str, heading: str) -> Panel | None:
    lines = []
    for index, spec in enumerate(specs):
        points = [
            Point(exact(g.events / 1000), g.arms[spec][measure]) for g in steps if measure in g.arms.get(spec, {})
        ]
        lines += [Line(label(spec), points, index, band=True, bare=True)] if points else []
    if not lines:
        return None
    name = f"time-{measure}".replace(".", "-").replace("_", "-")
    return chart(name, heading, lines, Axis("thousand events learned"), Axis("", zero=True))


def where(sweep: Sweep) -> Figure:
    """Figure 9: PD by score and by item popularity."""
    arms = sweep.arms()
    smelu = favourite(arms)
    chosen = [arm for arm in (arms.get("relu"), smelu) if arm and arm.buckets]
    if not chosen:
        return Figure(9, "where", "No run holds PD by score and popularity")
    panels = [
        _buckets(chosen, "pd_by_score", "PD by predicted probability", "from this probability"),
        _buckets(chosen, "pd_by_popularity", "PD by popularity of the item", "from this many learned events"),
    ]
    claims = []
    for name, what in (("pd_by_score", "probability"), ("pd_by_popularity", "popularity")):
        first, last = (chosen[0].buckets[name][place].pd for place in (0, -1))
        low, high = (first, last) if first.mean > last.mean else (last, first)
        end = "low" if first.mean > last.mean else "high"
        by = (
            f"{number(low.mean / high.mean, 1)} times larger at {end} {what}"
            if high.mean
            else f"largest at {end} {what}"
        )
        claims.append(
            f"PD of {label(chosen[0].spec)} is " + (by if low.low > high.high else f"not clearly related to {what}")
        )
    if len(chosen) == 2:
        sets = [pair for name in chosen[0].buckets for pair in zip(*(a.buckets[name] for a in chosen), strict=False)]
        less = sum(own.pd.high < base.pd.low for base, own in sets)
        claims.append(f"{label(chosen[1].spec)} has clearly less PD in {less} of {len(sets)} groups")
        if more := sum(own.pd.low > base.pd.high for base, own in sets):
            claims[-1] += f", clearly more in {more}"
    legend = [(index, label(arm.spec)) for index, arm in enumerate(chosen)]
    note = (
        "Held-out events in five groups of about equal size, by the first arm's mean prediction, and by the item's "
        "events. Clearly: intervals are apart. " + sweep.drawn(sweep.compared())
    )
    return Figure(9, "where", "; ".join(claims), panels, legend, note)


def _buckets(arms: list[Arm], name: str, heading: str, across: str) -> Panel:
    lines = [
        Line(label(arm.spec), [Point(exact(i), b.pd, key=_edges(b)) for i, b in enumerate(arm.buckets[name])], index)
        for index, arm in enumerate(arms)
    ]
    marks = {float(i): _low(bucket) for i, bucket in enumerate(arms[0].buckets[name])}
    return chart(name.replace("_", "-"), heading, lines, Axis(across, marks), Axis("", zero=True))


def _edges(bucket: Bucket) -> str:
    return f"{bucket.low:g} to {bucket.high:g}"


def _low(bucket: Bucket) -> str:
    return count(bucket.low) if bucket.low >= 1 or bucket.low == 0 else number(bucket.low, 2)


def churn(sweep: Sweep) -> Figure:
    """Figure 10: what a refresh changes towards the truth, and what it changes away from it."""
    known = {spec: arm for spec, arm in sweep.arms().items() if "useful_swaps" in arm.measures}
    arms = {spec: known[spec] for spec in sorted(filter(is_activation, known), key=_place)}
    if not arms:
        return Figure(10, "churn", "Useful and useless swaps are known only where the truth is: on the synthetic world")
    smelu = favourite(arms)
    names = ("useful_swaps", "useless_swaps")
    lines = [
        Line(word, [Point(arm.measures[name], exact(0), label(arm.spec)) for arm in arms.values()], look)
        for name, word, look in zip(names, ("useful", "useless"), (3, 2), strict=True)
    ]
    between = [Point(arm.measures["swaps.pair"], exact(0), label(arm.spec)) for arm in arms.values()]
    panels = [
        dots("churn-refresh", "Pair swaps at a refresh", lines, Axis("share of pairs", zero=True)),
        dots("churn-duplicates", "Pair swaps between duplicates: all useless", [Line("between duplicates", between, 0)],
             Axis("share of pairs", zero=True)),
    ]  # fmt: skip
    said = [_towards(arms[spec]) for spec in ("relu", *([smelu.spec] if smelu else [])) if spec in arms]
    legend = [(3, "useful: towards the truth"), (2, "useless: away from it"), (0, "between duplicates")]
    note = "Shares are of means and have no interval of their own. " + sweep.drawn(sweep.compared())
    return Figure(10, "churn", "; ".join(said), panels, legend, note)


def _towards(arm: Arm) -> str:
    """`54.0 % of what a refresh swaps under ReLU goes towards the truth, clearly more than away from it`."""
    useful, useless = (arm.measures[name] for name in ("useful_swaps", "useless_swaps"))
    both = useful.mean + useless.mean
    if not both:
        return f"A refresh swaps nothing under {label(arm.spec)}"
    how = "clearly more" if useful.low > useless.high else "clearly less"
    if not apart(useful, useless):
        how = "not clearly more or less"
    share = percent(useful.mean / both)
    return f"{share} of what a refresh swaps under {label(arm.spec)} goes towards the truth, {how} than away from it"


def _place(spec: str) -> tuple[int, float]:
    """By activation, then by beta."""
    name, beta = family(spec)
    return list(NAMES).index(name), beta or 0.0
