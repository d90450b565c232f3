"""Verdicts on made-up cells whose truth is known, in both directions."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from simulator.article import claims
from simulator.article.claims import CLAIMS, Finding, at_best_rate, choice, decide_all, prediction
from simulator.article.grid import core
from simulator.article.table import WorldCells
from tests.article.made import world

Effects = dict[str, dict[str, float]]
SMELU = {"smelu:beta=0.25": {"pd": 0.4}}
NOISES = {f"noise {name}/{arm}": {"pd": 0.5} for name in ("init", "order") for arm in ("relu", "smelu:beta=0.25")}
CURES = ("codistill:relu:m=2", "antidistill:relu:m=3", "anchor:relu", "average:relu")
QUIET = {f"noise nothing/{arm}": {"pd": 0.0} for arm in ("relu", "smelu:beta=0.25")}

CASES: list[tuple[Callable[[WorldCells], Finding], Effects, str]] = [
    (claims.halved, SMELU, "yes"),
    (claims.halved, {"smelu:beta=0.25": {"pd": 0.6}}, "no"),
    (claims.halved, {"smelu:beta=0.25": {"pd": 0.5}}, "not shown"),
    (claims.halved, {"smelu:beta=0.25": {"pd": 0.4, "log_loss": 1.02}}, "no"),  # not chosen: another has PD like ReLU's
    (claims.rivals, {f"smelu:beta={b}": {"pd": 0.5} for b in ("0.1", "0.25", "0.5", "1", "2")}, "yes"),
    (claims.rivals, {f"swish:beta={b}": {"pd": 0.5} for b in ("2", "4", "8", "16")}, "no"),
    (claims.u_shape, {"smelu:beta=0.5": {"log_loss": 0.98}, "smelu:beta=2": {"log_loss": 1.02}}, "yes"),
    (claims.u_shape, {"smelu:beta=2": {"log_loss": 1.02}}, "no"),
    (claims.limit, {}, "yes"),
    (claims.limit, {"linear:norm=after": {"pd": 0.8}}, "no"),
    (claims.limit, {"linear:norm=after": {"pd": 0.955}}, "not shown"),
    (claims.depth_pays, {"linear": {"log_loss": 1.03}}, "yes"),
    (claims.depth_pays, {"linear": {"log_loss": 0.97}}, "no"),
    (claims.ensembles, SMELU | {f"ensemble:relu:m={m}": {"pd": 0.6} for m in (3, 5)}, "yes"),
    (claims.ensembles, {f"ensemble:relu:m={m}": {"pd": 0.6} for m in (3, 5)} | {"smelu:beta=1": {"pd": 0.9}}, "partly"),
    (claims.equal_cost, {"ensemble:relu:m=3,narrow": {"log_loss": 1.03}, "relu:dim=48": {"pd": 1.2}}, "yes"),
    (claims.equal_cost, {"ensemble:relu:m=3,narrow": {"pd": 0.8}}, "no"),
    (claims.distilled, {"average:relu": {"pd": 0.7}}, "partly"),
    (claims.distilled, {name: {"pd": 0.7, "log_loss": 1.02} for name in CURES}, "no"),
    (claims.conditions, SMELU | {f"{g}/smelu:beta=0.25": {"pd": 0.9} for g in ("own", "shuffled", "both")}, "yes"),
    (claims.conditions, SMELU, "no"),
    (claims.each_source, QUIET | NOISES, "yes"),
    (claims.each_source, QUIET | {"noise order/relu": {"pd": 0.0}}, "no"),
    (claims.each_source, NOISES, "no"),
    (claims.asynchronous, SMELU, "yes"),
    (claims.asynchronous, {"noise racing/smelu:beta=0.25": {"pd": 0.5}}, "partly"),
    (claims.no_norm, {f"relu:norm={n}{w}": {"pd": 1.5, "log_loss": 1.02} for n in ("before", "after")
                      for w in ("", ",hidden=256x128x64")}, "yes"),
    (claims.no_norm, {f"relu:norm={n}": {"pd": 0.8} for n in ("before", "after")}, "no"),
    (claims.at_a_refresh, SMELU | {"smelu:beta=0.25": {"pd": 0.4, "refresh_pair": 0.9}}, "yes"),
    (claims.at_a_refresh, SMELU | {"smelu:beta=0.25": {"pd": 0.4, "refresh_pair": 1.1}}, "no"),
]  # fmt: skip


@pytest.mark.parametrize(("decide", "effects", "verdict"), CASES)
def test_a_verdict_follows_what_was_made(
    decide: Callable[[WorldCells], Finding], effects: Effects, verdict: str
) -> None:
    assert decide(world(effects)).verdict == verdict


def test_of_no_effect_nothing_is_shown() -> None:
    for decide in (
        claims.rivals,
        claims.u_shape,
        claims.depth_pays,
        claims.equal_cost,
        claims.distilled,
        claims.no_norm,
    ):
        assert decide(world(spread=0.0)).verdict == "not shown", decide
    assert claims.halved(world(spread=0.0)).verdict == "no"
    assert "not comparable" in claims.rivals(world({"gelu": {"log_loss": 1.02}})).summary


def test_an_a_a_run_that_differs_is_no_chance() -> None:
    assert claims.same_arm_twice(world()).verdict in ("yes", "partly")
    off = world()
    for values in off.groups["again"]["relu#2"].values():
        values["pd"], values["pair"] = 1.5 * values["pd"], 1.5 * values["pair"]
    assert claims.same_arm_twice(off).verdict == "no"


def test_what_was_not_run_is_said_so_and_nothing_breaks() -> None:
    for group in ("activations", "norms", "cures"):
        part = world(groups=[one for one in core(everything=False) if one.name == group])
        assert {finding.verdict for _, (finding,) in decide_all([part])} >= {"not run"}
    assert all(finding.verdict == "not run" for _, (finding,) in decide_all([WorldCells("empty")]))


def test_a_cell_of_the_page_has_at_most_thirty_words() -> None:
    for claim, (finding,) in decide_all([world(SMELU | QUIET)]):
        assert len(finding.summary.split()) <= 30 and finding.verdict != "not run", claim.words
        assert len(claim.words.split()) <= 15


def test_the_rate_is_that_of_least_early_loss_and_the_end_has_no_say() -> None:
    held = world(spread=0.0)
    assert at_best_rate(held, "activations", "relu") is held.units("activations", "relu:lr=0.08")
    for values in held.units("activations", "relu:lr=0.04").values():
        values["log_loss"] = 0.1
    assert at_best_rate(held, "activations", "relu") is held.units("activations", "relu:lr=0.08")
    for values in held.units("activations", "relu:lr=0.04").values():
        values["early_loss"] = 0.1
    assert at_best_rate(held, "activations", "relu") is held.units("activations", "relu:lr=0.04")


def test_beta_is_chosen_on_the_part_before_and_the_prediction_is_held_to_the_end() -> None:
    held = world(SMELU | {"smelu:beta=0.5": {"part_pd": 0.3, "pd": 0.7}})
    assert choice(held)[0] == "smelu:beta=0.5"
    found = prediction(held)
    assert found is not None and not found.holds and found.between.mean == pytest.approx(0.7 / 0.3, rel=0.05)
    good = prediction(world(SMELU))
    assert good is not None and good.name == "smelu:beta=0.25" and good.actual.mean == pytest.approx(0.4, rel=0.05)
    worse = world({f"smelu:beta={b}": {"part_loss": 1.01} for b in ("0.1", "0.25", "0.5", "1", "2")})
    assert choice(worse)[0] == "relu" and prediction(worse) is None


def test_every_claim_has_a_figure_that_is_drawn() -> None:
    assert {claim.figure for claim in CLAIMS} <= {
        "frontiers",
        "norms",
        "matched",
        "beta",
        "conditions",
        "sources",
        "costs",
        "seen",
    }
