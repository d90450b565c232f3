"""The final measurement of a run as result.json, schema 1.

    {"schema": 1, "flicker": VERSION,
     "world": {"name", "events", "learned", "held_out", "users", "items", "has_truth", "skipped_rows"},
     "arms": {LABEL: {"pd": I, "pd_ranking": I, "pd_shift": I,
                      "swaps": {"slot": I, "top1": I, "set": I, "pair": I, "rbo": I},
                      "refresh_swaps": {...}, "both_swaps": {...},
                      "log_loss": I, "progressive_log_loss": I, "auc": I, "calibration": I, "ranking_loss": I,
                      "regret": I, "useful_swaps": I, "useless_swaps": I,       only where the truth is known
                      "pd_by_score": [B], "pd_by_popularity": [B],
                      "clicks_per_slate": I, "train_seconds": x, "events_per_second": x, "parameters": n,
                      "lookups": n, "score_seconds": x, "model_bytes": n, "train_bytes": n,
                      "ratio": {MEASURE: I to the first arm, null where there is none},
                      "ratio_to": {LABEL of each other arm: {MEASURE: I}},
                      "design": {"engine", "learning_rate", "norm", "hidden", "dim"},
                      "activation": {"name", "x", "y", "gradient"}}},
     "generations": [{"generation", "events", "arms": {LABEL: {"pd": I, "swaps": {...}, "refresh_swaps": {...},
                      "both_swaps": {...}, "progressive_log_loss": I}}}],
     "notes": [...], "seconds": x, "peak_memory_bytes": n}

Of a module of your own design holds engine, learning_rate and "source", which begins the digest of its file;
activation is null where it keeps its own.
I = {"mean", "low", "high"}: a mean with its 95 % interval. What a cure makes of several models counts as one served
model. train_seconds: compute seconds of all the arm's models on one core (on a GPU: its share of the device's time);
events_per_second: events of the log per such second of one served model, however often it learned them. Of one served
model: parameters, of all its parts that are asked; lookups: rows of embedding tables read to rank a query (candidates x
slots x parts); score_seconds: compute seconds to score a query's candidates, in the final measurement; model_bytes of
its weights; train_bytes of all that learning it takes.
B = {"low", "high", "share", "pd": I}: PD of the held-out events whose mean probability by the first arm's models (or:
whose item's number of learned events) is from low to high; every arm has the same events in a bucket.
"""

from __future__ import annotations

import math
import resource
import sys
from dataclasses import asdict
from typing import Any

import numpy as np

from simulator.comparison import Comparison, Estimates, learned_counts, mean_score, pd_by, slices
from simulator.config import SyntheticConfig
from simulator.experiment import Experiment, Final
from simulator.files import flicker_version
from simulator.measures.intervals import Resamples, ratio
from simulator.measures.registry import ACCURACY, DIFFERENCES, MEASURES, PERSONALISATION, QUALITIES
from simulator.models.activations import curve
from simulator.models.specs import Arm
from simulator.types import Query

SCHEMA = 1
MOST = {name: each.most for held in (MEASURES, QUALITIES, ACCURACY) for name, each in held.items()}
MOST |= dict.fromkeys(("regret", "useful_swaps", "useless_swaps", PERSONALISATION), 1.0)
"""The largest value that a measure can have."""
RATIOS = ("pd", "pd_ranking", *MEASURES, "refresh_pair", "log_loss", "auc", *QUALITIES, PERSONALISATION)
"""Measures whose ratio to the first arm is given."""
RATIOS_TO_ANY = ("pd", "pair", "log_loss", "auc", *QUALITIES, PERSONALISATION)
"""Measures whose ratio to every other arm is given. The same fleets and users move both: it is surer than two intervals
side by side."""


def measure(experiment: Experiment, final: Final) -> dict[str, Any]:
    """result.json of a finished run, all but `seconds` and `peak_memory_bytes` decided by its config."""
    config, state = experiment.config, experiment.state
    users = final.held_out.user
    comparison = Comparison(experiment.shape, final.queries, users, repetitions=1_000, seed=config.seed)
    arms: dict[str, Any] = {}
    last: dict[str, Any] = {"generation": state.generation, "events": state.scored, "arms": {}}
    estimates: dict[str, Estimates] = {}
    where = Comparison(experiment.shape, final.queries, users, repetitions=200, seed=config.seed)
    score = mean_score(where, 0, final.logits)  # the first arm's, so that all arms have the same events in a bucket
    popularity = learned_counts(experiment.world, experiment.plan.learned)[final.held_out.item].astype(np.float64)
    by = {column: _by_column(experiment, final, column) for column in config.by}
    for number, arm in enumerate(experiment.arms):
        single, by_cause = _single(experiment, final, comparison, number), _by_cause(final, comparison, number)
        flat = single | by_cause["swaps"] | {"refresh_pair": by_cause["refresh_swaps"]["pair"]}
        estimates[arm.label] = flat
        baseline = estimates[experiment.arms[0].label]
        swaps = {cause: {n: _interval(n, e) for n, e in found.items()} for cause, found in by_cause.items()}
        arms[arm.label] = {
            **{name: _interval(name, estimate) for name, estimate in single.items()},
            **swaps,
            "pd_by_score": pd_by(where, number, final.logits, score),
            "pd_by_popularity": pd_by(where, number, final.logits, popularity),
            "by": {column: found[arm.label] for column, found in by.items()},
            **_costs(experiment, final, number),
            "clicks_per_slate": _clicks(state.clicks[arm.label], config.seed),
            "ratio": {name: _ratio(flat, baseline, name) for name in RATIOS if name in flat},
            "design": experiment.engines.designs()[arm.label],
            "activation": _activation(arm),
        }
        progressive = comparison.progressive(number, final.progressive).interval().as_dict()
        last["arms"][arm.label] = {"pd": arms[arm.label]["pd"], **swaps, "progressive_log_loss": progressive}
    for label, own in estimates.items():
        others = {other: its for other, its in estimates.items() if other != label}
        arms[label]["ratio_to"] = {
            other: {name: _ratio(own, its, name) for name in RATIOS_TO_ANY if name in own}
            for other, its in others.items()
        }
    return {
        "schema": SCHEMA,
        "flicker": flicker_version(),
        "world": _world(experiment),
        "arms": arms,
        "generations": [*state.records, last],
        "notes": _notes(experiment, comparison.resamples, final.queries),
        "seconds": round(state.seconds, 2),
        "peak_memory_bytes": peak_memory(),
    }


def _by_column(experiment: Experiment, final: Final, column: str) -> dict[str, list[dict[str, Any]]]:
    """Label of each arm -> its results by the values of a column: share of queries (events), swaps, PD, log loss."""
    found: dict[str, list[dict[str, Any]]] = {arm.label: [] for arm in experiment.arms}
    for part in slices(experiment.world, column, final.queries, final.held_out.features):
        queries, events = [final.queries[place] for place in part.asked], final.held_out[part.shown]
        comparison = Comparison(experiment.shape, queries, events.user, repetitions=200, seed=experiment.config.seed)
        for number, arm in enumerate(experiment.arms):
            entry: dict[str, Any] = {"value": part.value, "share": part.share}
            if len(part.asked):
                swaps = comparison.duplicate_swaps(number, final.after.part(part.asked))
                entry["swaps"] = {name: _interval(name, estimate) for name, estimate in swaps.items()}
            if len(part.shown):
                logits = final.logits[:, part.shown]
                single = comparison.differences(number, logits) | comparison.accuracy(number, logits, events.label)
                entry |= {name: _interval(name, estimate) for name, estimate in single.items()}
            found[arm.label].append(entry)
    return found


def _by_cause(final: Final, comparison: Comparison, number: int) -> dict[str, Estimates]:
    """The swap measures of an arm by cause."""
    return {
        "swaps": comparison.duplicate_swaps(number, final.after),
        "refresh_swaps": comparison.refresh_swaps(number, final.before, final.after),
        "both_swaps": comparison.both_swaps(number, final.before, final.after),
    }


def _single(experiment: Experiment, final: Final, comparison: Comparison, number: int) -> Estimates:
    """All other measures of an arm: prediction difference, accuracy and, where the truth is known, regret and churn."""
    world, state, truth = experiment.config.world, experiment.state, experiment.world.has_truth
    found = comparison.differences(number, final.logits)
    found |= comparison.accuracy(number, final.logits, final.held_out.label)
    found |= comparison.ranking_quality(number, final.after, final.queries, truth)
    if isinstance(world, SyntheticConfig):
        found["regret"] = comparison.regret(number, final.after, final.queries, world.position_bias)
    found["progressive_log_loss"] = comparison.progressive(number, np.array(state.losses) / state.counted)
    found[PERSONALISATION] = comparison.personalisation(number, final.after, final.strangers)
    if truth:
        found |= comparison.churn(number, final.before, final.after, final.queries)
    return found


def _activation(arm: Arm) -> dict[str, Any] | None:
    """A picture of the activation; None for a module of the user's that keeps its own."""
    spec = arm.own.relu if arm.own else arm.function
    return {"name": spec, **curve(spec)} if spec else None


def _costs(experiment: Experiment, final: Final, number: int) -> dict[str, float]:
    config, state, models = experiment.config, experiment.state, experiment.shape.models(number)
    compute = float(np.array(state.compute)[models].sum())
    learned = state.scored * config.fleets * config.duplicates
    return {
        "train_seconds": compute,
        "events_per_second": learned / compute,
        "score_seconds": float(final.scoring_seconds[models].mean()),
        **asdict(experiment.engines.costs(number)),
    }


def _world(experiment: Experiment) -> dict[str, Any]:
    world, plan = experiment.world, experiment.plan
    return {
        "name": world.name,
        "events": world.events,
        "learned": plan.learned,
        "held_out": plan.held_out,
        "users": world.users,
        "items": world.items,
        "has_truth": world.has_truth,
        "skipped_rows": getattr(world, "skipped_rows", 0),
    }


def peak_memory() -> int:
    """Most bytes of memory that this process ever held."""
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak if sys.platform == "darwin" else peak * 1024


def _interval(name: str, estimate: Any) -> dict[str, float]:
    signed = name in DIFFERENCES and DIFFERENCES[name].signed
    found: dict[str, float] = estimate.interval(-np.inf if signed else 0.0, MOST.get(name, np.inf)).as_dict()
    return found


def _ratio(own: Estimates, baseline: Estimates, name: str) -> dict[str, float] | None:
    if name not in baseline or math.isnan(baseline[name].mean):  # AUC, where a log holds engagements only
        return None
    found = ratio(own[name], baseline[name])
    return found.as_dict() if found else None


def _clicks(clicks: list[float], seed: int) -> dict[str, float] | None:
    """Clicks per slate that the arm showed, with an interval over the slates; None where it showed none."""
    if not clicks:
        return None
    slates = np.array(clicks)[None, None]
    return Resamples(1, 1, len(clicks), seed=seed).models(slates, np.ones(len(clicks))).interval().as_dict()


def _notes(experiment: Experiment, resamples: Resamples, queries: list[Query]) -> list[str]:
    """What a reader should know before quoting a number."""
    config, plan = experiment.config, experiment.plan
    notes = [
        f"Final measures: {plan.held_out:,} held-out events and {len(queries):,} queries of {config.candidates:,} "
        f"candidates, slates of {config.k}. 95 % intervals over {resamples.covers}; those of AUC and calibration "
        "do not cover users."
    ]
    if experiment.counted_from:
        notes.append(
            f"The first {experiment.counted_from:,} events chose the learning rates: progressive log loss, generations "
            "and clicks are counted behind them."
        )
    for arm, engine in zip(experiment.arms, experiment.engines.engines, strict=True):
        if arm.activation and arm.activation.name == "linear" and engine.model.norm in ("before", "after"):
            notes.append(
                f"{arm.label} has no activation, but is no linear model: layer norm is a nonlinearity. "
                "`linear:norm=none` adds up what each field says."
            )
    for label, count in experiment.engines.replaced.items():
        notes.append(f"{label}: ReLUs replaced in the module: {count}.")
    for label, why in experiment.engines.fallbacks.items():
        notes.append(f"{label} was taught by PyTorch, not by the native engine ({why}): no times of two are compared.")
    if skipped := getattr(experiment.world, "skipped_rows", 0):
        notes.append(f"{skipped:,} damaged rows of the log were skipped.")
    return notes
