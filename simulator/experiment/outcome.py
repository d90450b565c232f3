"""The final measurement of a finished run as a Result."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import asdict
from typing import Any

import numpy as np

from simulator.config import SyntheticConfig
from simulator.experiment.evaluation import Evaluation, Final
from simulator.measures.comparison import Comparison, Estimates, learned_counts, mean_score, pd_by, prefixed, slices
from simulator.measures.intervals import Resamples, gap_closed
from simulator.measures.registry import GAP, PERSONALISATION, RATIOS, RATIOS_TO_ANY, intervals, ratios
from simulator.models.activations import curve
from simulator.models.baselines import BASELINES
from simulator.models.specs import Arm as Design
from simulator.process import peak_memory
from simulator.result import ORACLE, Arm, Bucket, Curve, Example, Generation, Measures, Place, Result, Slice, from_json
from simulator.types import Query, World
from simulator.world.replay import ReplayWorld
from simulator.world.stream import SyntheticWorld


def measure(evaluation: Evaluation, final: Final) -> Result:
    """What a run found, all but `seconds` and `peak_memory_bytes` decided by its config (which Folder keeps)."""
    config, state = evaluation.config, evaluation.state
    users = final.held_out.user
    comparison = Comparison(evaluation.shape, final.queries, users, repetitions=config.resamples, seed=config.seed)
    estimates = [_estimates(evaluation, final, comparison, number) for number in range(len(evaluation.arms))]
    where = Comparison(evaluation.shape, final.queries, users, repetitions=config.few_resamples, seed=config.seed)
    score = mean_score(where, 0, final.logits)  # the first arm's, so that all arms have the same events in a bucket
    popularity = learned_counts(evaluation.world, evaluation.plan.learned)[final.held_out.item].astype(np.float64)
    values = {"pd_by_score": score, "pd_by_popularity": popularity}
    known = dict(zip((arm.label for arm in evaluation.arms), estimates, strict=True))
    baselines = _baselines(final, comparison, evaluation.world.has_truth)
    for arm_estimates in estimates:
        arm_estimates |= _gap_closed(arm_estimates, baselines)
    by = {column: _by_column(evaluation, final, column) for column in config.by}
    arms = [
        Arm(
            spec=arm.label,
            measures=intervals(arm_estimates) | _clicks(state.clicks[arm.label], config.seed),
            ratios=ratios(arm_estimates, estimates[0], RATIOS),
            costs=_costs(evaluation, final, number),
            activation=_activation(arm),
            buckets={
                name: [Bucket(*parts) for parts in pd_by(where, number, final.logits, value)]
                for name, value in values.items()
            },
            against={
                other: ratios(arm_estimates, other_estimates, RATIOS_TO_ANY)
                for other, other_estimates in (known | baselines).items()
                if other != arm.label
            },
            design=final.taught.designs[arm.label],
            by={column: by_arm[number] for column, by_arm in by.items()},
        )
        for number, (arm, arm_estimates) in enumerate(zip(evaluation.arms, estimates, strict=True))
    ]
    last = {}
    for number, arm in enumerate(arms):
        kept = {name: value for name, value in arm.measures.items() if name == "pd" or "swaps." in name}
        last[arm.spec] = kept | {"progressive_log_loss": comparison.progressive(number, final.progressive).interval()}
    records = [from_json(Generation, record) for record in state.records]
    about = _world(evaluation, final.queries)
    return Result(
        kind="run",
        world=about,
        arms=arms,
        generations=[*records, Generation(state.generation, state.scored, last)],
        notes=_notes(evaluation, comparison.resamples, final, about),
        seconds=round(state.seconds, 2),
        peak_memory_bytes=peak_memory(),
        baselines={name: intervals(accuracy) for name, accuracy in baselines.items()},
        example=_example(evaluation, final),
    )


def _estimates(evaluation: Evaluation, final: Final, comparison: Comparison, number: int) -> Estimates:
    """All measures of an arm."""
    estimates, swaps = _single(evaluation, final, comparison, number), comparison.duplicate_swaps(number, final.after)
    estimates |= prefixed("swaps", swaps)
    estimates |= prefixed("refresh_swaps", comparison.refresh_swaps(number, final.earlier[1], final.after))
    estimates |= prefixed("both_swaps", comparison.both_swaps(number, final.earlier[1], final.after))
    estimates |= prefixed("swaps_these", {name: estimate.given_models() for name, estimate in swaps.items()})
    for lag in sorted(final.earlier.keys() - {1}):
        estimates |= prefixed(f"refresh_lags.{lag}", comparison.refresh_swaps(number, final.earlier[lag], final.after))
        estimates |= prefixed(f"both_lags.{lag}", comparison.both_swaps(number, final.earlier[lag], final.after))
    return estimates


def _single(evaluation: Evaluation, final: Final, comparison: Comparison, number: int) -> Estimates:
    """All other measures of an arm: prediction difference, accuracy and, where the truth is known, regret and churn."""
    world, state, truth = evaluation.config.world, evaluation.state, evaluation.world.has_truth
    estimates = comparison.differences(number, final.logits)
    estimates |= comparison.accuracy(number, final.logits, final.held_out.label)
    estimates |= comparison.ranking_quality(number, final.after, final.queries, truth)
    if isinstance(world, SyntheticConfig):
        estimates["regret"] = comparison.regret(number, final.after, final.queries, world.position_bias)
    estimates["progressive_log_loss"] = comparison.progressive(number, np.array(state.losses) / state.counted)
    estimates[PERSONALISATION] = comparison.personalisation(number, final.after, final.strangers)
    if truth:
        estimates |= comparison.churn(number, final.earlier[1], final.after, final.queries)
    return estimates


def _baselines(final: Final, comparison: Comparison, truth: bool) -> dict[str, Estimates]:
    """How accurate each baseline and the oracle is, paired with the arms; no fleet or duplicate moves it, AUC has no
    interval."""
    names = (*BASELINES, ORACLE)[: len(final.baselines)]
    alone = comparison.without_noise(len(names))
    return {
        name: alone.accuracy(number, final.baselines, final.held_out.label)
        | alone.ranking_quality(number, final.baseline_rankings, final.queries, truth)
        for number, name in enumerate(names)
    }


def _gap_closed(estimates: Estimates, baselines: dict[str, Estimates]) -> Estimates:
    """GAP of an arm; nothing where there is no oracle, or none that is better."""
    losses = {name: estimates_of["log_loss"] for name, estimates_of in baselines.items()}
    oracle = losses.pop(ORACLE, None)
    best = min(losses.values(), key=lambda loss: loss.mean)
    return {GAP: gap_closed(estimates["log_loss"], best, oracle)} if oracle and oracle.mean < best.mean else {}


def _by_column(evaluation: Evaluation, final: Final, column: str) -> list[list[Slice]]:
    """For each arm its results by the values of a column: share of queries (events), swaps, PD and accuracy."""
    by_arm: list[list[Slice]] = [[] for _ in evaluation.arms]
    for part in slices(evaluation.world, column, final.queries, final.held_out.features):
        queries, events = [final.queries[place] for place in part.asked], final.held_out[part.shown]
        repetitions, seed = evaluation.config.few_resamples, evaluation.config.seed
        comparison = Comparison(evaluation.shape, queries, events.user, repetitions=repetitions, seed=seed)
        for number, of_arm in enumerate(by_arm):
            estimates: Estimates = {}
            if len(part.asked):
                estimates |= prefixed("swaps", comparison.duplicate_swaps(number, final.after.part(part.asked)))
            if len(part.shown):
                logits = final.logits[:, part.shown]
                estimates |= comparison.differences(number, logits) | comparison.accuracy(number, logits, events.label)
            of_arm.append(Slice(part.value, part.share, intervals(estimates)))
    return by_arm


def _example(evaluation: Evaluation, final: Final) -> Example | None:
    """The query in the middle of those whose slates by the first two models differ; None where none does."""
    world, names, queries = evaluation.world, evaluation.world.names, final.queries
    two = evaluation.shape.models(0)[0, :2].tolist()
    both = [[final.after.slate(model, place) for model in two] for place in range(len(queries))]
    changed = np.array([(one.items != two.items).mean() for one, two in both])  # [Q]
    differ = np.flatnonzero(changed)
    if not len(differ):
        return None
    place = int(differ[np.argsort(changed[differ], kind="stable")[(len(differ) - 1) // 2]])
    query, slates = queries[place], []
    for slate in both[place]:
        pairs = zip(slate.items.tolist(), slate.scores.tolist(), strict=True)
        slates.append([Place(names.item(item), names.title(item), score) for item, score in pairs])
    context, arm = dict(_context(world, query)), evaluation.arms[0].label
    return Example(names.user(query.user), arm, [0, 1], slates, len(final.queries), len(differ), context)


def _context(world: World, query: Query) -> Iterator[tuple[str, str]]:
    """Names of the context fields and of their values, without those that are empty."""
    slot = 0
    for field in (field for field in world.schema.fields if field.side == "context"):
        rows = [row for row in query.context[slot : slot + field.slots] if row]
        first, slot = world.schema.first_row(field.name), slot + field.slots
        if rows:
            yield field.name, ", ".join(world.name_of(field.name, row - first) for row in rows)


def _activation(arm: Design) -> Curve | None:
    """A picture of the activation; None for a module of the user's that keeps its own."""
    spec = arm.own.relu if arm.own else arm.function
    return Curve(**curve(spec), name=spec) if spec else None


def _costs(evaluation: Evaluation, final: Final, number: int) -> dict[str, float]:
    config, state, models = evaluation.config, evaluation.state, evaluation.shape.models(number)
    compute = float(np.array(state.compute)[models].sum())
    learned = state.scored * config.fleets * config.duplicates
    return {
        "train_seconds": compute,
        "events_per_second": learned / compute,
        "score_seconds": float(final.scoring_seconds[models].mean()),
        **asdict(final.taught.costs[number]),
    }


def _world(evaluation: Evaluation, queries: list[Query]) -> dict[str, Any]:
    world, plan = evaluation.world, evaluation.plan
    shares = {"shares": world.shares()} if isinstance(world, SyntheticWorld) else {}
    coverage = world.coverage(queries, plan.learned) if isinstance(world, ReplayWorld) else {}
    return (
        shares
        | {
            "name": world.name,
            "events": world.events,
            "learned": plan.learned,
            "held_out": plan.held_out,
            "users": world.users,
            "items": world.items,
            "has_truth": world.has_truth,
            "skipped_rows": getattr(world, "skipped_rows", 0),
        }
        | ({"coverage": coverage} if coverage else {})
    )


def _clicks(clicks: list[float], seed: int) -> Measures:
    """Clicks per slate that the arm showed, with an interval over the slates; nothing where it showed none."""
    if not clicks:
        return {}
    slates = np.array(clicks)[None, None]
    interval = Resamples(1, 1, len(clicks), seed=seed).models(slates, np.ones(len(clicks))).interval()
    return {"clicks_per_slate": interval}


def _notes(evaluation: Evaluation, resamples: Resamples, final: Final, world: dict[str, Any]) -> list[str]:
    """What a reader should know before quoting a number."""
    config, plan = evaluation.config, evaluation.plan
    asked = f"queries of {config.candidates:,} candidates"
    if evaluation.world.has_pages:
        fewest, largest = (f"{of(len(query.candidates) for query in final.queries):,}" for of in (min, max))
        asked = f"pages that users saw, of {fewest if fewest == largest else f'{fewest} to {largest}'} items"
    notes = [
        f"Final measures: {plan.held_out:,} held-out events and {len(final.queries):,} {asked}, "
        f"slates of {config.k}. 95 % intervals over {resamples.covers}; those of AUC and calibration "
        "do not cover users."
    ]
    if config.duplicates > config.partners + 1:
        notes.append(
            f"Each duplicate was compared with {config.partners} of the {config.duplicates - 1:,} others of its fleet, "
            "drawn from the seed."
        )
    if not config.repeatable:
        notes.append(
            f"Not repeatable: {config.noise.racing} threads of each model raced on its weights; a second run of this "
            "seed gives other numbers."
        )
    if isinstance(evaluation.world, ReplayWorld) and evaluation.world.has_weights:
        notes.append(
            "Events of this log have weights, by which the arms learn; measures and baselines count every event alike. "
            "Where weights go with the label, predicted probabilities are off by as much."
        )
    if "coverage" in world:
        shares = ", ".join(f"{100 * share:.0f} % among {int(size):,}" for size, share in world["coverage"].items())
        notes.append(f"Queries with an answer among the candidates, the most popular items: {shares}.")
    if evaluation.counted_from:
        notes.append(
            f"The first {evaluation.counted_from:,} events chose the learning rates: progressive log loss, generations "
            "and clicks are counted behind them."
        )
    for arm in evaluation.arms:
        norm = final.taught.designs[arm.label].get("norm")
        if arm.activation and arm.activation.name == "linear" and norm in ("before", "after"):
            notes.append(
                f"{arm.label} has no activation, but is no linear model: layer norm is a nonlinearity. "
                "`linear:norm=none` adds up what each field says."
            )
    for label, count in final.taught.replaced.items():
        notes.append(f"{label}: ReLUs replaced in the module: {count}.")
    for label, why in final.taught.fallbacks.items():
        notes.append(f"{label} was taught by PyTorch, not by the native engine ({why}): no times of two are compared.")
    if skipped := getattr(evaluation.world, "skipped_rows", 0):
        notes.append(f"{skipped:,} damaged rows of the log were skipped.")
    return notes
