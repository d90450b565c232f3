"""Sentences computed from the numbers: page title, what you see, what to do next.

An effect is only claimed where the interval of its ratio to the first arm leaves out 1.
"""

from __future__ import annotations

from itertools import pairwise

from simulator.decide.evidence import best, compared, ratio_to, silent
from simulator.measures.words import count, duration, interval, label, number, percent, plural, word, written
from simulator.result import ORACLE, Arm, Result


def has_comparisons(result: Result) -> bool:
    """Whether answers of every arm were compared."""
    return bool(result.arms) and all("swaps.pair" in arm.measures for arm in result.arms)


def headline_arms(result: Result) -> list[Arm]:
    """Arms of the headline: the first, and the best other one if there is one; none where nothing was compared."""
    if not has_comparisons(result):
        return []
    arm = best(result)
    return [arm] if arm is result.arms[0] else [result.arms[0], arm]


def accuracy(arm: Arm, base: Arm) -> str:
    """`at 0.6 % lower log loss`, or that no change is clear."""
    ratio = ratio_to(arm, base, "log_loss")
    if ratio is None:
        return "at an unknown change of log loss"
    change = abs(ratio.mean - 1)
    if not ratio.known and change >= 5e-5:
        return f"at {number(ratio.mean, 3)} times its log loss, which has no interval here"
    if compared(ratio) == "unclear" or change < 5e-5:
        return "at no clear change of log loss" if ratio.known else "at the same log loss"
    return f"{'but ' if ratio.mean > 1 else ''}at {percent(change)} {'lower' if ratio.mean < 1 else 'higher'} log loss"


def headline(result: Result) -> str:
    """The finding in one sentence."""
    if not has_comparisons(result):
        return "No comparisons yet" + (": let it run longer, or raise --rate or --shadow" * (result.kind == "live"))
    base, arm = result.arms[0], best(result)
    if silent(result):
        return "All duplicates agree exactly: every prediction difference and every swap between them is 0"
    if arm is base:
        share = percent(base.measures["swaps.pair"].mean)
        return f"Two duplicates of {label(base.spec)} order {share} of all pairs of items differently{_at_loss(base)}"
    ratio = ratio_to(arm, base, "swaps.pair")
    name, first, cost = label(arm.spec), label(base.spec), accuracy(arm, base)
    if ratio is None:
        return f"{first} swaps no pairs at all, {name} swaps {percent(arm.measures['swaps.pair'].mean)}, {cost}"
    value = number(ratio.mean, 2)
    if compared(ratio) == "less":
        return f"{name} swaps {value} of the pairs that {first} swaps, {cost}"
    if compared(ratio) == "more":
        return f"No cure here: even {name} swaps {value} times the pairs that {first} swaps, {cost}"
    limits = interval(ratio, 2)[1]
    bounds = f", but the interval {limits} includes 1" if limits else ""
    return f"No clear difference: {name} swaps {value} of the pairs that {first} swaps{bounds}"


def _at_loss(arm: Arm) -> str:
    loss = arm.measures.get("log_loss")
    return f", at log loss {written(loss, 4)}" if loss else ""


def what_differs(result: Result) -> list[str]:
    """The sources of noise that were switched on, in words."""
    noise = result.config.get("noise")
    if not isinstance(noise, dict):
        return ["(not recorded)"]
    window, lost, delay, precision = (noise.get(name) for name in ("window", "lost", "delay", "precision"))
    racing, changed = (noise.get(name) or 0 for name in ("racing", "changed"))
    sources = (
        (noise.get("init") == "own", "each duplicate's own initialisation"),
        (window, f"the order of events within windows of {window} mini-batches"),
        (lost, f"mini-batches lost with probability {lost}"),
        (delay, f"updates delayed by up to {delay} mini-batches"),
        (racing > 1, f"{racing} threads that race on the weights of each"),
        (changed, f"{plural(changed, 'early engagement')} that each but the first leaves out"),
        (precision not in (None, "float32"), f"stochastic rounding to {precision}"),
        (noise.get("reductions"), "the order in which sums are added up"),
    )
    return [words for on, words in sources if on] or ["nothing: every source of noise was off"]


def what_you_see(result: Result) -> list[str]:
    """Three sentences: what was compared, what a user of the first arm meets, what the best other arm changes."""
    if result.kind != "run":
        return [_what_was_compared(result), *_what_users_meet(result)]
    world = result.world
    in_worlds = f" in each of {world['worlds']} worlds" if "worlds" in world else ""
    duplicates, fleets = result.config.get("duplicates"), result.config.get("fleets")
    sentences = [
        f"{duplicates} duplicates of each arm, in {plural(int(fleets or 1), 'independent fleet')}, learned the same "
        f"{count(world.get('learned', 0))} events{in_worlds}; {count(world.get('held_out', 0))} were held out for the "
        f"measures below. What differed between duplicates: {'; '.join(what_differs(result))}."
    ]
    return sentences + _what_users_meet(result)


def _what_was_compared(result: Result) -> str:
    if result.kind == "compare":
        return f"Models of {plural(len(result.arms), 'arm')} answered the same queries; only their files were read."
    return (
        f"{count(result.serving.get('requests') or 0)} queries were served in {duration(result.seconds)}, with "
        f"{count(result.serving.get('refreshes') or 0)} refreshes; a sample of them was also asked of a second replica."
    )


def _what_users_meet(result: Result) -> list[str]:
    sentences = []
    for arm in headline_arms(result):
        first, share = arm.measures.get("swaps.top1"), percent(arm.measures["swaps.pair"].mean)
        top = f"another first item in {percent(first.mean)} of queries, and " if first else ""
        order = f"{top}{share} of all pairs of candidates in opposite order{_at_loss(arm)}"
        sentences.append(f"Two duplicates of {label(arm.spec)} give {order}.")
    return sentences


def truths(result: Result) -> list[str]:
    """What is known of the world, and what can be learned in it: shares of the variance, oracle, additive arm."""
    sentences = []
    if shares := result.world.get("shares"):
        parts = ", ".join(f"{percent(share)} {name}" for name, share in shares.items())
        sentences.append(f"Of the variance of the true log-odds over impressions: {parts}.")
    if oracle := result.baselines.get(ORACLE):
        names = [name for name in ("log_loss", "auc", "ndcg") if name in oracle]
        parts = ", ".join(f"{word(name).words} {written(oracle[name], 4)}" for name in names)
        sentences.append(f"Whoever knew the true probabilities would have {parts}.")
    additive = [arm for arm in result.arms if _additive(arm)]
    nonlinear = [arm for arm in result.arms if not _additive(arm) and "log_loss" in arm.measures]
    if additive and nonlinear:
        best_arm = min(nonlinear, key=lambda arm: arm.measures["log_loss"].mean)
        ratio = additive[0].ratio(best_arm, "log_loss")
        verdict = {"more": "depth pays", "less": "depth does not pay"}.get(compared(ratio), "no gain is shown")
        sentences.append(
            f"{label(additive[0].spec)} adds up what each field says: its log loss is {written(ratio, 4)} times that "
            f"of {label(best_arm.spec)}, the most accurate other arm: {verdict}."
        )
    return sentences


def _additive(arm: Arm) -> bool:
    """Whether it has no nonlinearity: neither an activation nor a layer norm."""
    return arm.spec.partition(":")[0].partition("#")[0] == "linear" and arm.design.get("norm") in ("none", "weight")


JUMP = 0.25
"""A gradient that changes by more than this between two neighbouring samples is called a jump."""


def swaps_title(result: Result) -> str:
    """Title of the swap pictures: how often asking twice changes what comes first."""
    if silent(result):
        return "Not one slate differs between duplicates"
    arms = [arm for arm in headline_arms(result) if "swaps.top1" in arm.measures]
    parts = [f"in {percent(arm.measures['swaps.top1'].mean)} of queries with {label(arm.spec)}" for arm in arms]
    return "Another duplicate changes the first item " + ", ".join(parts) if parts else "Swaps by measure and cause"


def differences_title(result: Result) -> str:
    """Title of the PD pictures: how much of PD can reorder anything."""
    if silent(result):
        return "Predictions of duplicates do not differ at all"
    parts = []
    for arm in [arm for arm in headline_arms(result) if "pd" in arm.measures]:
        ranking, total = arm.measures.get("pd_ranking"), arm.measures["pd"]
        ranking_text = f", {number(ranking.mean)} without the common shift" if ranking else ""
        parts.append(f"{label(arm.spec)} has PD {number(total.mean)}{ranking_text}")
    return "; ".join(parts) or "Prediction differences"


def generations_title(result: Result) -> str:
    """Title of the pictures over time: first against last generation of the first arm."""
    spec = result.arms[0].spec
    series = [g.arms[spec]["swaps.pair"].mean for g in result.generations if "swaps.pair" in g.arms.get(spec, {})]
    if len(series) < 2:
        return "One generation only: nothing to follow over time"
    first, last = series[0], series[-1]
    if max(series) == 0:
        return "Duplicates agree exactly in every generation"
    verb = "rise" if last > 1.1 * first else "fall" if last < 0.9 * first else "stay about level"
    return f"Pair swaps of {label(spec)} {verb} over the run: {percent(first)} at first, {percent(last)} at the end"


def plane_title(result: Result) -> str:
    """Title of the PD-against-loss plane: is one arm lowest on both axes, and do the intervals exclude 1?"""
    if not all({"pd", "log_loss"} <= arm.measures.keys() for arm in result.arms):
        return "Instability against accuracy, where both are known"
    if len(result.arms) == 1:
        return "One arm is one point: add arms to see a trade-off"
    steady = min(result.arms, key=lambda arm: arm.measures["pd"].mean)
    accurate = min(result.arms, key=lambda arm: arm.measures["log_loss"].mean)
    if len({arm.measures["pd"].mean for arm in result.arms}) == 1:
        return f"All arms have the same PD; {label(accurate.spec)} has the lowest log loss"
    clear = _clearly_lowest(result, steady, "pd") and _clearly_lowest(result, accurate, "log_loss")
    caveat = "" if clear else ", but the intervals of ratios include 1"
    if steady is accurate:
        return f"{label(steady.spec)} has both the lowest PD and the lowest log loss{caveat}"
    return f"A trade-off: {label(steady.spec)} has the lowest PD, {label(accurate.spec)} the lowest log loss{caveat}"


def _clearly_lowest(result: Result, arm: Arm, name: str) -> bool:
    """Whether an arm is shown to be below the first one; of the first arm, whether all others are above it."""
    base, *rest = result.arms
    if arm is base:
        return all(compared(ratio_to(other, base, name)) == "more" for other in rest)
    return compared(ratio_to(arm, base, name)) == "less"


def activations_title(result: Result) -> str:
    """Title of the activation pictures: the largest step of the gradient between two neighbouring samples."""
    parts = []
    for arm in headline_arms(result):
        if arm.activation is not None:
            step = max(abs(after - before) for before, after in pairwise(arm.activation.gradient))
            jump = f"jumps by {number(step, 1)}" if step > JUMP else "has no jump"
            parts.append(f"the gradient of {label(arm.spec)} {jump}")
    text = "; ".join(parts) or "activations"
    return text[0].upper() + text[1:]
