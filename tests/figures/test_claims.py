"""Verdicts from intervals narrow, wide and in between: none is better for being wide."""

from __future__ import annotations

import math

import pytest

from simulator.figures.claims import (
    NO_WORSE,
    against,
    apart,
    below_rivals,
    between,
    ensembles,
    floor,
    halving,
    limit,
    routed,
    u_shape,
)
from simulator.figures.sweep import AGAIN, ensemble
from simulator.measures.intervals import Interval
from simulator.result import Arm
from tests.figures.made import Numbers, about, arm, arms

SURE = about(0.40, 0.05)


@pytest.mark.parametrize(
    ("pd", "loss", "verdict"),
    [
        (SURE, about(0.99, 0.002), "holds"),
        (SURE, (1.001, 0.998, 1.004), "holds"),
        (SURE, (0.99, 0.95, 1.03), "partly"),  # no worse by its mean alone
        (SURE, (1.01, 0.99, 1.03), "not"),  # perhaps no worse, and that is all
        (about(0.45, 0.2), about(0.99, 0.002), "partly"),
        (about(0.45, 0.7), about(0.99, 0.002), "not"),
    ],
)
def test_a_loss_is_no_worse_where_its_interval_says_so(pd: Numbers, loss: Numbers, verdict: str) -> None:
    assert halving(arms(arm("smelu:beta=1", pd, loss))).verdict == verdict


def test_the_linear_limit_is_no_choice_and_the_linear_model_is_named() -> None:
    made = [arm(f"smelu:beta={b}", about(0.3 + 1 / b, 0.02), about(0.99, 0.002)) for b in (8, 16, 100)]
    say = halving(arms(*made)).say
    assert say.startswith("SmeLU with beta 8, 16 at least halves PD") and "linear" not in say
    linear = arm("linear", about(0.32, 0.03), about(0.982, 0.004))
    say = halving(arms(*made, linear)).say
    assert say.endswith(
        "; the linear model has 0.32 (0.29 to 0.35) of ReLU's PD and 0.982 (0.978 to 0.986) of its log loss"
    )
    assert halving(arms(made[-1], linear)).verdict == "not measured"


@pytest.mark.parametrize(
    ("smelu", "loss", "verdict", "said"),
    [
        (about(0.40, 0.03), about(0.985, 0.002), "holds", ""),
        (about(0.50, 0.02), about(0.985, 0.002), "holds", ""),
        (about(0.50, 0.15), about(0.985, 0.002), "partly", "no more PD is not beyond doubt"),
        (about(0.90, 0.03), about(0.985, 0.002), "partly", "SmeLU has clearly more PD"),
        (about(0.40, 0.03), about(0.985, 0.02), "partly", "no more log loss is not beyond doubt"),
        (about(0.40, 0.03), about(0.999, 0.002), "partly", "SmeLU has clearly more log loss"),
    ],
)
def test_smelu_does_without_ensembles_only_beyond_doubt(smelu: Numbers, loss: Numbers, verdict: str, said: str) -> None:
    several = arm("ensemble:relu:m=3", about(0.52, 0.02), about(0.986, 0.002))
    found = ensembles(arms(arm("smelu:beta=1", smelu, loss), several))
    assert found.verdict == verdict and said in found.say


def test_an_ensemble_that_lowers_nothing_for_sure_is_no_cure() -> None:
    several = arm("ensemble:relu:m=3", about(0.9, 0.2), about(0.986, 0.002))
    found = ensembles(arms(arm("smelu:beta=1", SURE, about(0.985, 0.002)), several))
    assert found.verdict == "partly" and "that ensembles lower PD is not beyond doubt" in found.say


def test_log_loss_of_one_run_is_compared_as_a_pair() -> None:
    smelu = arm("smelu:beta=1", SURE, about(0.985, 0.02))
    several = arm("ensemble:relu:m=3", about(0.52, 0.02), about(0.986, 0.02), ("smelu:beta=1", (1.001, 1.0, 1.002)))
    assert ensembles(arms(smelu, several)).verdict == "holds"
    assert between(smelu, several, "log_loss").high == pytest.approx(1.0)
    assert between(several, smelu, "log_loss").high == 1.002
    apart_ = between(smelu, arm("gelu", loss=about(0.986, 0.02)), "log_loss")
    assert apart_.high == pytest.approx(math.exp(math.log(0.985 / 0.986) + math.hypot(0.0201, 0.0205)), abs=1e-4)


@pytest.mark.parametrize(
    ("pd", "loss", "verdict", "said"),
    [
        (about(0.33, 0.02), about(0.9961, 0.0005), "holds", "meets the linear model beyond doubt"),
        (about(0.33, 0.15), about(0.9961, 0.0005), "partly", "in log loss beyond doubt, in PD not beyond doubt"),
        (about(0.33, 0.15), about(0.9961, 0.0100), "partly", "model in PD and log loss not beyond doubt"),
        (about(0.60, 0.02), about(0.9961, 0.0005), "partly", "in log loss beyond doubt, in PD not"),
        (about(0.60, 0.02), about(1.0200, 0.0005), "not", "does not meet the linear model in PD and log loss"),
        (about(0.60, 0.02), about(0.9961, 0.0100), "not", "does not meet the linear model in PD:"),
    ],
)
def test_the_limit_is_met_within_a_margin(pd: Numbers, loss: Numbers, verdict: str, said: str) -> None:
    linear = arm("linear", about(0.32, 0.02), about(0.9960, 0.0005))
    found = limit(arms(arm("smelu:beta=1"), arm("smelu:beta=100", pd, loss), linear))
    assert found.verdict == verdict and said in found.say


def test_the_limit_is_a_pair_where_the_linear_model_is_the_best() -> None:
    linear = arm("linear", about(0.32, 0.02), about(0.9960, 0.02))
    for half, verdict in ((0.001, "holds"), (0.01, "partly")):
        smelu = arm("smelu:beta=100", about(0.32, 0.02), about(0.9960, 0.02), ("linear", about(1.0, half)))
        assert limit(arms(arm("smelu:beta=1"), smelu, linear)).verdict == verdict


def test_relu_does_not_win_for_smelu() -> None:
    """A rival that has more PD than ReLU, and as much loss; SmeLU has more of both."""
    smelu = arm("smelu:beta=1", about(1.5, 0.05), about(1.05, 0.001))
    found = below_rivals(arms(smelu, arm("gelu", about(1.2, 0.05), about(1.0, 0.001))))
    assert found.verdict == "not" and "it does not reach so low a loss" in found.say


@pytest.mark.parametrize(
    ("loss", "clear"), [(about(0.98, 0.001), True), (about(0.98, 0.02), False), ((0.99, 0.987, 1.01), False)]
)
def test_less_pd_counts_only_at_a_loss_that_is_no_worse(loss: Numbers, clear: bool) -> None:
    gelu = arm("gelu", about(0.8, 0.05), about(0.99, 0.001))
    assert against([arm("smelu:beta=1", about(0.4, 0.05), loss)], gelu).clear == clear


def test_settings_at_which_a_rival_is_clearly_lower_are_named() -> None:
    smelu = [arm(f"smelu:beta={b}", about(0.5, 0.05), about(0.99, 0.001)) for b in (1, 2)]
    swish = [arm(f"swish:beta={b}", about(pd, 0.05), about(0.99, 0.001)) for b, pd in ((1, 0.7), (4, 0.46), (8, 0.2))]
    say = below_rivals(arms(*smelu, *swish)).say
    assert say.endswith(". Swish is clearly lower at 1 of 3 settings (beta = 8)"), "0.46 is not clearly lower"
    less_loss = arm("swish:beta=8", about(0.9, 0.05), about(0.95, 0.001))
    assert "Swish is clearly lower (beta = 8)" in below_rivals(arms(*smelu, less_loss)).say


def curve(fall: float, rise: float) -> dict[str, Arm]:
    """SmeLU at 1, 2 and 4 with 0.98 of ReLU's log loss at 2 and 0.99 at 4; half-widths of both."""
    return arms(
        arm("smelu:beta=1", loss=about(0.985, fall)),
        arm("smelu:beta=2", loss=about(0.98, fall)),
        arm("smelu:beta=4", loss=about(0.99, fall), best=("smelu:beta=2", about(1.01, rise))),
    )


@pytest.mark.parametrize(
    ("fall", "rise", "verdict", "said"),
    [
        (0.002, 0.002, "holds", "A U in beta: log loss falls by 2.0\u00a0% to beta = 2 and rises again by 1.0\u00a0%"),
        (0.002, 0.020, "partly", "beta = 2; whether it then rises is open: a rise by 1.0\u00a0% to beta = 4 is not"),
        (
            0.030,
            0.002,
            "partly",
            "Log loss rises by 1.0\u00a0% to beta = 4; a fall by 2.0\u00a0% to beta = 2 before is",
        ),
        (0.030, 0.020, "not measured", "neither is beyond doubt"),
    ],
)
def test_a_u_is_one_where_both_its_arms_are_beyond_doubt(fall: float, rise: float, verdict: str, said: str) -> None:
    found = u_shape(curve(fall, rise))
    assert found.verdict == verdict and said in found.say
    assert ("A U" in found.say) == (verdict == "holds")


def test_log_loss_levels_off_where_no_rise_of_note_is_left_open() -> None:
    flat = arm("smelu:beta=4", loss=about(0.981, 0.002), best=("smelu:beta=2", about(1.001, 0.003)))
    found = u_shape({**curve(0.002, 0.002), "smelu:beta=4": flat})
    assert found.verdict == "partly"
    assert found.say.endswith("beta = 2, then levels off: a rise by 0.100\u00a0% to beta = 4 is not beyond doubt")


def test_beyond_relu_log_loss_only_falls_or_only_rises() -> None:
    worse = [arm(f"smelu:beta={b}", loss=about(1 + b / 100, 0.02)) for b in (1, 2, 4)]
    assert "No setting of beta has less log loss than ReLU: it rises by 4.0" in u_shape(arms(*worse)).say
    better = [arm(f"smelu:beta={b}", loss=about(1 - b / 1000, 0.02)) for b in (1, 2, 4)]
    assert u_shape(arms(*better)).say.endswith("0.40\u00a0% to beta = 4, the largest that was tried, not beyond doubt")


@pytest.mark.parametrize(
    ("pd", "pair", "loss", "verdict"),
    [
        (about(1.1, 0.3), about(1.0, 0.2), about(1.0, 0.002), "holds"),
        (about(1.1, 0.3), about(1.3, 0.2), about(1.0, 0.002), "holds"),  # one in seven such runs has one
        (about(1.1, 0.3), about(1.3, 0.2), about(1.01, 0.002), "partly"),
        (about(1.4, 0.3), about(1.3, 0.2), about(1.01, 0.002), "not"),
        (about(1.2, 0.9), about(1.0, 0.2), about(1.0, 0.002), "not measured"),  # what could it have shown?
    ],
)
def test_chance_alone_leaves_out_1_once(pd: Numbers, pair: Numbers, loss: Numbers, verdict: str) -> None:
    found = floor(arms(arm(AGAIN, pd, loss, pair=pair)))
    assert found.verdict == verdict and f"ReLU again has {pd[0]:.2f} (" in found.say
    assert ("too wide" in found.say) == (verdict == "not measured")


def test_what_a_user_sees_on_asking_again() -> None:
    """DESIGN.md 4, with 4 duplicates: the same one in 1 of 4 cases."""
    relu = arm("relu", swaps_pair=(0.08, 0.04, 0.12), refresh_swaps_pair=(0.04, 0.02, 0.06),
               both_swaps_pair=(0.10, 0.06, 0.14))  # fmt: skip
    seen = routed(relu, 4)
    assert seen
    within, over, refresh, sticky = ((one.mean, one.low, one.high) for one in seen)
    assert within == pytest.approx((0.06, 0.03, 0.09))
    assert over == pytest.approx((0.085, 0.05, 0.12))
    assert (refresh, sticky) == ((0.04, 0.02, 0.06), (0, 0, 0))
    assert routed(arm("relu"), 4) is None


def test_ensembles_are_recognised_by_what_they_default_to() -> None:
    assert ensemble("ensemble:relu") == ("relu", 3)
    assert ensemble("ensemble:smelu:beta=2,m=5") == ("smelu:beta=2", 5)
    for spec in ("relu", "codistill:relu:m=2", "ensemble:relu:m=3,narrow", "ensemble:relu#2", "ensemble:relu:m=x"):
        assert ensemble(spec) is None, spec


def test_intervals_are_apart_that_have_nothing_in_common() -> None:
    one = Interval(1, 0.5, 1.5)
    assert apart(one, Interval(2, 1.6, 3)) and apart(Interval(2, 1.6, 3), one) and not apart(one, Interval(2, 1.5, 3))
    assert NO_WORSE < 1.01
