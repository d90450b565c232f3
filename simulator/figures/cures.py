"""Claims about cures that are no activation: ensembles, and routing a user to one duplicate always."""

from __future__ import annotations

from simulator.figures.doubt import NO_MORE, Finding, between, no_worse
from simulator.figures.sweep import Sweep, ensembles_of, favourite, has, relative
from simulator.measures.intervals import Interval
from simulator.report.result import Arm
from simulator.report.words import label, number, written

ROUTES = ("swaps.pair", "refresh_swaps.pair", "both_swaps.pair")
"""Pair swaps to another duplicate, to the next generation, and to both: what routing decides between."""


def ensembles(arms: dict[str, Arm]) -> Finding:
    """Claim 4: an ensemble of m costs m times the look-ups; what it buys against SmeLU at m = 1."""
    found = [(m, arm) for m, arm in ensembles_of(arms, "relu") if has(arm, "pd", "log_loss")]
    best = favourite(arms)
    base = arms["relu"].costs.get("lookups") if "relu" in arms else None
    if not found or not best or not base:
        return Finding("not measured", "needs ensembles, SmeLU and their look-ups in one condition")
    costs = [abs(arm.costs.get("lookups", 0) / base - m) < 1e-9 for m, arm in found]
    m, largest = found[-1]
    say = (
        f"{m} ReLU networks have {_standing(largest)} for {number(largest.costs.get('lookups', 0) / base, 0)} times "
        f"the look-ups, {label(best.spec)} has {_standing(best)} for those of one"
    )
    both = [(n, arm) for spec in arms for n, arm in ensembles_of(arms, spec) if spec != "relu" and has(arm, "pd")]
    if both:
        n, smooth = max(both, key=lambda pair: pair[0])
        say += f"; both together, {label(smooth.spec)}, {written(relative(smooth, 'pd'), 2)} for {n} times"
    doubts = _doubts(best, largest)
    if doubts:
        say += "; " + ", ".join(doubts)
    if not all(costs):
        return Finding("not", say)
    return Finding("partly" if doubts else "holds", say)


def _doubts(best: Arm, ensemble: Arm) -> list[str]:
    """What keeps the claim from holding: SmeLU against the largest ensemble, and that against one network."""
    pd, loss = (between(best, ensemble, measure) for measure in ("pd", "log_loss"))
    said = []
    if relative(ensemble, "pd").high >= 1:
        said.append("that ensembles lower PD is not beyond doubt")
    if pd.high > NO_MORE:
        said.append(_beside("PD", pd.low > 1))
    if not no_worse(loss):
        said.append(_beside("log loss", loss.low > 1))
    return said


def _beside(what: str, clear: bool) -> str:
    return f"SmeLU has clearly more {what}" if clear else f"that SmeLU has no more {what} is not beyond doubt"


def _standing(arm: Arm) -> str:
    return f"{written(relative(arm, 'pd'), 2)} of one's PD and {written(relative(arm, 'log_loss'), 3)} of its log loss"


def routed(arm: Arm, duplicates: int) -> tuple[Interval, Interval, Interval, Interval] | None:
    """Pair swaps a user sees on asking again: at random routing within a generation and over a refresh, at sticky
    routing over a refresh and within a generation.

    With N duplicates random routing asks the same one again in 1 of N cases (DESIGN.md 4). Parts are added by their
    limits: the interval is at least as wide as it should be.
    """
    if not set(ROUTES) <= arm.measures.keys():
        return None
    other, refresh, both = (arm.measures[name] for name in ROUTES)
    same = 1 / duplicates
    nothing = Interval(0, 0, 0)
    return (
        _added((1 - same, other), (same, nothing)),
        _added((1 - same, both), (same, refresh)),
        refresh,
        nothing,
    )


def _added(*parts: tuple[float, Interval]) -> Interval:
    return Interval(
        sum(share * value.mean for share, value in parts),
        sum(share * value.low for share, value in parts),
        sum(share * value.high for share, value in parts),
    )


def sticky(sweep: Sweep) -> Finding:
    """Sticky routing: a user is always answered by one duplicate, so that only refreshes change what he sees."""
    arms = sweep.arms()
    shown = {
        arm.spec: seen for arm in (arms.get("relu"), favourite(arms)) if arm and (seen := routed(arm, sweep.duplicates))
    }
    if "relu" not in shown:
        return Finding("not measured", "needs ReLU in a run of two generations or more")
    if not shown["relu"][0].high:
        return Finding("not measured", "ReLU's duplicates do not differ: there is nothing that routing could hide")
    told = [
        f"under {label(spec)} {written(within)} of the pairs swap at random routing, {written(over)} over a refresh; "
        f"at sticky routing none, and {written(refresh)} over a refresh"
        for spec, (within, over, refresh, _) in shown.items()
    ]
    say = "; ".join(told)
    say = say[0].upper() + say[1:]
    worse = [label(spec) for spec, (_, over, refresh, _) in shown.items() if refresh.low > over.high]
    if worse:
        return Finding("not", f"{say}; sticky routing shows clearly more of a refresh under {' and '.join(worse)}")
    if shown["relu"][0].low > 0:
        return Finding("holds", f"{say}. By construction: one duplicate does not differ from itself")
    return Finding("partly", f"{say}. That random routing shows any under ReLU is not beyond doubt")
