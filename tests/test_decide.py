"""What a user sees, what lowers it, which arm to try: by hand, by drawing it, and never more than an interval shows."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any, Literal

import numpy as np
import pytest

from simulator.decide.choice import MARGIN, RecommendFlags, advice, changes, choose, not_measured, recommend
from simulator.decide.evidence import compared, independent_ratio, too_little
from simulator.decide.situation import Situation, what_a_user_sees
from simulator.errors import FlickerError, SettingError
from simulator.measures.intervals import Resamples, ratio
from simulator.randomness import generator
from simulator.report import read_results, write_report
from simulator.result import Arm, Measures, Result, write_result
from simulator.types import Doubles, Interval
from tests.report.fake_results import CONFIG, write
from tests.terminal import Terminal

HOUR = Situation()
TOLD: dict[str, Any] = {"config": CONFIG["config"] | {"fleets": 3}, "versions": {}, "machine": {}}


def around(mean: float, share: float = 0.05) -> Interval:
    return Interval(mean, mean * (1 - share), mean * (1 + share))


def recommended(folder: Path, *situation: Situation, **flags: Any) -> tuple[list[str], int]:
    asked = RecommendFlags((folder,), *situation, **flags)
    return recommend(asked, read_results(asked.results))


def an_arm(
    spec: str,
    duplicate: float = 0.1,
    refresh: float = 0.1,
    loss: float = 0.43,
    *,
    wide: float = 0.05,
    loss_wide: float = 0.001,
    base: Arm | None = None,
    **more: Interval,
) -> Arm:
    """An arm with these pair swaps by cause, paired with `base`; ratios are as wide as the measures."""
    measures: Measures = {
        "pd": around(duplicate, wide),
        "swaps.pair": around(duplicate, wide),
        "refresh_swaps.pair": around(refresh, wide),
        "both_swaps.pair": around(duplicate + refresh, wide),
        "log_loss": around(loss, 0.003),
        "auc": around(0.75, 0.01),
    }
    ratios: Measures = {}
    if base:
        for short, name in {"pair": "swaps.pair", "refresh_pair": "refresh_swaps.pair", "log_loss": "log_loss"}.items():
            share = loss_wide if name == "log_loss" else wide
            ratios[short] = around(measures[name].mean / base.measures[name].mean, share)
    return Arm(spec, measures | more, ratios, design={"engine": "native", "norm": "after"})


def a_result(*arms: Arm, **more: Any) -> Result:
    about = {"kind": "run", "world": {"name": "log", "has_truth": False}, **TOLD} | more
    return Result(arms=list(arms), **about)


def weights(situation: Situation) -> dict[tuple[str, int], float]:
    return situation.weights()


@pytest.mark.parametrize(
    ("gap", "every", "rollout", "routing"),
    [
        ("10m", "1h", "2m", "random"),
        ("1m", "10m", "5m", "random"),
        ("0s", "10m", "10m", "random"),
        ("1m", "10m", "5m", "sticky"),
        ("25m", "10m", "5m", "random"),
        ("2h", "1h", "1h", "sticky"),
    ],
)
def test_what_lies_between_two_answers_is_what_comes_out_when_it_is_drawn(
    gap: str, every: str, rollout: str, routing: Literal["random", "sticky"]
) -> None:
    """Users ask at any time; each replica serves a new generation at a time of its own within the roll-out."""
    situation = Situation(routing=routing, refresh_every=every, rollout=rollout, asks_again=gap)
    period, length, later = situation.times
    draw, n = generator(3, "visits"), 400_000
    first, time = draw.uniform(0, length, n), draw.uniform(0, period, n)
    second = first if routing == "sticky" else draw.uniform(0, length, n)
    before, after = np.floor((time - first) / period), np.floor((time + later - second) / period)
    apart = np.abs(after - before)
    for lag, chance in situation.refreshes().items():
        if routing == "random" and later < period:  # which of two generations is the older one does not matter
            assert (apart == lag).mean() == pytest.approx(chance, abs=4e-3)
        else:
            spread = length / period if routing == "random" else 0.0  # beyond one refresh a roll-out only smooths
            assert (apart == lag).mean() == pytest.approx(chance, abs=4e-3 + spread)
    assert sum(situation.weights().values()) <= 1 + 1e-12


def test_the_formula_by_hand() -> None:
    """A tenth of an hour, four models: 0.1 of a refresh between, a quarter of meeting the same model."""
    arm = an_arm("relu", duplicate=0.2, refresh=0.4)
    many = Situation(models=4, asks_again="6m", rollout="0s")
    assert weights(many) == pytest.approx(
        {("swaps", 0): 0.9 * 0.75, ("refresh_swaps", 1): 0.025, ("both_swaps", 1): 0.075}
    )
    expected = what_a_user_sees(arm, many, "pair")
    assert expected and expected.total.mean == pytest.approx(0.9 * 0.75 * 0.2 + 0.1 * (0.25 * 0.4 + 0.75 * 0.6))
    assert (expected.total.low, expected.total.high) == pytest.approx(
        (0.95 * expected.total.mean, 1.05 * expected.total.mean)
    )
    one = what_a_user_sees(arm, Situation(asks_again="6m", rollout="0s"), "pair")
    sticky = what_a_user_sees(arm, replace(many, routing="sticky"), "pair")
    assert one and sticky and one.parts.keys() == {"refresh_swaps"}
    assert one.total.mean == sticky.total.mean == pytest.approx(0.1 * 0.4)


def test_several_refreshes_between_are_those_measured_or_interpolated() -> None:
    lags = {f"refresh_lags.{n}.pair": around(value) for n, value in ((2, 0.2), (4, 0.3), (8, 0.4))}
    arm = an_arm("relu", refresh=0.1, **lags)

    def expected(gap: str) -> tuple[float, str]:
        found = what_a_user_sees(arm, Situation(asks_again=gap, rollout="0s"), "pair")
        assert found
        return found.total.mean, " ".join(found.notes)

    assert expected("1h") == (pytest.approx(0.1), "") and expected("4h") == (pytest.approx(0.3), "")
    assert expected("3h") == (pytest.approx(0.25), "3 refreshes lie between: interpolated between 2 and 4")
    mean, note = expected("20h")
    assert mean == pytest.approx(0.4) and note.startswith("20 refreshes lie between, 8 at most were measured")


def test_a_live_result_says_that_it_knows_one_refresh_only(tmp_path: Path) -> None:
    expected = {"user_visible_slot_ratio": around(0.3), "refresh_swaps.slot": around(0.2)}
    write_result(tmp_path, a_result(an_arm("relu", **expected), kind="live", config={}))
    said = "\n".join(recommended(tmp_path, Situation(asks_again="5h"))[0])
    assert "5 refreshes lie between, 1 at most were measured" in said
    assert "only results of `flicker run` measure more than one refresh" in said
    assert "users of the live system met 0.300 (0.285 to 0.315)" in said
    assert "no baselines in this result" in said


def test_both_causes_together_lie_between_the_larger_and_the_sum_where_nobody_measured_them() -> None:
    """A live system compares duplicates, and generations, not both at once."""
    arm = Arm("relu", {"swaps.pair": around(0.2, 0.1), "refresh_swaps.pair": around(0.5, 0.1)})
    expected = what_a_user_sees(arm, Situation(models=10**9, asks_again="1h", rollout="0s"), "pair")
    assert expected and expected.parts.keys() == {"refresh_swaps", "both_swaps"}
    found = expected.parts["both_swaps"]
    assert (found.mean, found.low, found.high) == pytest.approx((0.6, 0.45, 0.77), rel=1e-6)
    assert "taken as independent causes" in expected.notes[0]
    assert what_a_user_sees(Arm("relu", {"swaps.pair": around(0.2)}), HOUR, "pair") is None


@pytest.mark.parametrize(
    ("settings", "complaint"),
    [
        ({"models": 0}, "models = 0: at least 1"),
        ({"refresh_every": "soon"}, "refresh-every = soon: a number and s, m, h or d"),
        ({"refresh_every": "0s"}, "refresh-every = 0s: more than 0"),
        ({"rollout": "2h"}, "rollout = 2h: at most --refresh-every, 1h"),
        ({"asks_again": "-3m"}, "asks-again = -3m: a number"),
    ],
)
def test_a_situation_that_cannot_be_is_refused(settings: dict[str, Any], complaint: str) -> None:
    with pytest.raises(SettingError, match=complaint):
        Situation(**settings)


# The wrong advice of the first stage: each of these said the opposite.


def test_an_arm_whose_refreshes_change_more_is_no_trial_where_all_serve_one_model() -> None:
    """Half the swaps between duplicates, 1.28 times those at a refresh: with one model a user only meets the latter."""
    base = an_arm("relu")
    result = a_result(base, an_arm("smelu:beta=1", 0.05, 0.128, base=base))
    assert choose(result, HOUR, "pair", MARGIN).verdict == "stay"
    assert not [line for line in advice(result, HOUR, "pair") if "trial" in line]
    assert choose(result, Situation(models=8), "pair", MARGIN).verdict == "trial"
    assert not [change for change in changes(result, HOUR, "pair", MARGIN) if "SmeLU" in change.words]


def test_a_model_that_guesses_gets_no_advice_however_few_its_swaps(tmp_path: Path) -> None:
    base = an_arm("relu")
    guessing = an_arm("smelu:beta=1", 0.01, 0.01, base=base, auc=Interval(0.46, 0.44, 0.48))
    result = a_result(base, guessing)
    assert "not shown to be above that of guessing" in too_little(guessing, result)
    assert choose(result, HOUR, "pair", MARGIN).arm is None
    said = "\n".join(advice(result, HOUR, "pair"))
    assert "no worse" not in said and "worth a trial" not in said


def test_the_page_and_recommend_never_contradict_each_other(tmp_path: Path) -> None:
    """Where intervals are too wide to choose, neither names an arm."""
    base = an_arm("relu", wide=0.6)
    result = a_result(base, an_arm("smelu:beta=1", 0.09, 0.09, wide=0.6, base=base))
    folder = write(tmp_path, {}, CONFIG | TOLD)
    write_result(folder, result)
    lines, code = recommended(folder, measure="pair")
    assert code == 3 and lines[0] == advice(result, HOUR, "pair")[0]
    assert lines[0].startswith("No arm is shown to lower what a user sees: more fleets")
    lines, code = recommended(folder, measure="pair", swap_budget=0.016)
    assert code == 3 and "No arm is shown to keep pair swaps on asking again within 0.016" in lines[0]


@pytest.mark.parametrize(
    ("wide", "verdict", "said"),
    [
        (0.001, "trial", "shown to be within 0.50 %"),
        (0.02, "unclear", "not shown to be within 0.50 %"),
    ],
)
def test_a_wide_interval_that_includes_1_is_no_proof_of_equal_accuracy(wide: float, verdict: str, said: str) -> None:
    base = an_arm("relu")
    choice = choose(a_result(base, an_arm("gelu", 0.05, 0.05, base=base, loss_wide=wide)), HOUR, "pair", MARGIN)
    assert choice.verdict == verdict and said in choice.reason.replace("\N{NO-BREAK SPACE}", " ")
    assert "no worse" not in choice.reason


def test_two_log_losses_without_an_interval_are_no_proof_either() -> None:
    """As of a live system, whose progressive log loss is one number."""
    arms = [
        an_arm(spec, swaps, swaps, log_loss=Interval(0.43, 0.43, 0.43))
        for spec, swaps in (("relu", 0.1), ("gelu", 0.05))
    ]
    choice = choose(a_result(*arms, kind="live"), HOUR, "pair", MARGIN)
    assert choice.verdict == "unclear"
    assert "log loss × 1.0000 without an interval, not shown to be within" in choice.reason


def test_files_of_predictions_hold_no_refresh_and_the_gate_of_these_models_is_named() -> None:
    arm = Arm("model", {"swaps.slot": around(0.1)})
    (said,) = advice(Result(kind="compare", world={"name": "a"}, arms=[arm]))
    assert said.endswith("`flicker gate DIR --these --max-swaps X` judges these very models.")
    choice = choose(a_result(arm), Situation(models=1000, refresh_every="9d"), "slot", MARGIN)
    assert choice.verdict == "unclear", "a refresh may always lie between"


def test_an_arm_that_is_shown_to_cost_accuracy_is_weighed_not_advised() -> None:
    base = an_arm("relu")
    choice = choose(a_result(base, an_arm("gelu", 0.05, 0.05, loss=0.44, base=base)), HOUR, "pair", MARGIN)
    assert choice.verdict == "weigh" and choice.reason.startswith("Weigh the changes that GELU saves")
    assert "shown to be higher" in choice.reason


# The floor.

BASELINES = {"constant": {"log_loss": around(0.5)}, "popularity": {"log_loss": around(0.48)}}


@pytest.mark.parametrize(
    ("name", "ratio", "learned"),
    [
        ("constant", Interval(0.9, 0.88, 0.92), True),
        ("constant", Interval(0.99, 0.97, 1.01), False),
        ("popularity", Interval(0.97, 0.95, 0.99), True),
        ("popularity", Interval(1.0, 0.99, 1.01), False),
        ("recent", Interval(1.0, 0.99, 1.01), False),
        ("oracle", Interval(1.1, 1.08, 1.12), True),
        ("logistic", Interval(0.99, 0.98, 1.0), True),
        ("logistic", Interval(1.01, 0.99, 1.03), True),
        ("logistic", Interval(1.03, 1.01, 1.05), False),
    ],
)
def test_a_model_must_beat_base_rate_and_popularity_and_not_lose_to_a_logistic_regression(
    name: str, ratio: Interval, learned: bool
) -> None:
    arm = replace(an_arm("relu"), against={name: {"log_loss": ratio}})
    result = a_result(arm, an_arm("gelu", 0.05, 0.05, base=arm), baselines={name: {"log_loss": around(0.45)}})
    assert bool(too_little(arm, result)) is not learned
    choice = choose(result, HOUR, "pair", MARGIN)
    assert (choice.verdict == "unlearned") is not learned
    if not learned:
        assert "this model has learned too little to advise: log loss 0.4300 is" in choice.reason
        assert not [line for line in advice(result, HOUR, "pair") if "trial" in line or "To lower it" in line]


def test_without_a_paired_ratio_a_baseline_is_taken_as_independent() -> None:
    arm = an_arm("relu", loss=0.43)
    assert not too_little(arm, a_result(arm, baselines=BASELINES))
    weak = an_arm("relu", loss=0.46)
    assert "item popularity" in too_little(weak, a_result(weak, baselines=BASELINES))


# What lowers it.


def test_changes_name_what_is_free_first_and_the_price_of_the_rest() -> None:
    lags = {f"{cause}_lags.{n}.pair": around(0.1 * n**0.4) for cause in ("refresh", "both") for n in (2, 4, 8)}
    base = an_arm("relu", 0.2, **lags)
    base = replace(base, costs={"train_seconds": 10.0, "score_seconds": 1.0, "model_bytes": 100.0})
    smooth = an_arm("smelu:beta=1", 0.08, 0.08, base=base)
    smooth = replace(smooth, costs={"train_seconds": 11.0, "score_seconds": 1.0, "model_bytes": 100.0})
    smooth = replace(smooth, ratios=smooth.ratios | {"personalisation": around(0.9)})
    found = changes(a_result(base, smooth), Situation(models=4), "pair", MARGIN)
    words = [change.words for change in found]
    assert words[0].startswith("serve copies") or words[0].startswith("sticky")
    assert {word.partition(" (")[0] for word in words[:2]} == {"serve copies of one model", "sticky routing"}
    assert "refresh half as often (--refresh-every 2h)" in words
    (price,) = [change.price for change in found if change.words.startswith("SmeLU")]
    assert "log loss × 1.0000 (0.9990 to 1.0010), shown to be within" in price
    assert "training time × 1.10, scoring time × 1.00, memory × 1.00" in price
    assert price.endswith("personalisation × 0.90 (0.85 to 0.95)")
    assert [change for change in found if "half as often" in change.words][0].price.count("not measured") == 1


def test_refreshing_half_as_often_changes_more_each_time() -> None:
    arm = an_arm("relu", refresh=0.1, **{"refresh_lags.2.pair": around(0.15)})
    (change,) = [c for c in changes(a_result(arm), HOUR, "pair", MARGIN) if "half" in c.words]
    assert change.expected.mean == pytest.approx(10 / 120 * 0.15)
    linear = an_arm("relu", refresh=0.1, **{"refresh_lags.2.pair": around(0.2)})
    assert not [c for c in changes(a_result(linear), replace(HOUR, rollout="0s"), "pair", MARGIN) if "half" in c.words]


def test_cures_that_nobody_measured_are_named_with_the_arm_to_add() -> None:
    said = " ".join(not_measured(a_result(an_arm("relu"))))
    assert "`smelu:beta=0.25`" in said and "`relu:norm=none`" in said and "`ensemble:relu:m=3`" in said
    every = a_result(an_arm("relu"), an_arm("smelu:beta=1,norm=none"), an_arm("ensemble:relu:m=3"))
    assert not_measured(every) == []
    own = " ".join(not_measured(a_result(replace(an_arm("torch:pkg.models:make"), design={"engine": "torch"}))))
    assert "`torch:pkg.models:make,relu=smelu:beta=1`" in own and "norm" not in own


# The command.


def folder_of(path: Path, *arms: Arm, **more: Any) -> Path:
    path.mkdir(exist_ok=True)
    write(path, {}, CONFIG | TOLD)
    write_result(path, a_result(*arms, **more))
    return path


def test_a_budget_names_the_most_accurate_arm_that_is_shown_to_keep_it(tmp_path: Path) -> None:
    base = an_arm("relu", 0.1, 0.6)
    good, calm = an_arm("smelu:beta=1", 0.1, 0.3, base=base), an_arm("smelu:beta=8", 0.1, 0.1, loss=0.44, base=base)
    folder = folder_of(tmp_path, base, good, calm)

    def chosen(budget: float) -> tuple[str, int]:
        lines, code = recommended(folder, measure="pair", swap_budget=budget)
        return lines[0], code

    assert chosen(0.001)[1] == 1
    better = an_arm("gelu", 0.1, 0.6, loss=0.42, base=base)
    own = folder_of(tmp_path / "better", base, better)
    assert recommended(own, measure="pair", swap_budget=0.2)[0][0].startswith("GELU is worth a trial")
    assert chosen(0.2)[0].startswith("Stay with ReLU: its pair swaps on asking again are within 0.200")
    assert chosen(0.06) == (chosen(0.06)[0], 0) and chosen(0.06)[0].startswith("SmeLU (beta = 1) is worth a trial")
    assert chosen(0.02)[1] == 0 and chosen(0.02)[0].startswith("SmeLU (beta = 8) keeps the budget at a price")
    said, code = chosen(0.001)
    assert (
        code == 1 and said.startswith("No arm keeps pair swaps on asking again within 0.001") and "the least is" in said
    )


def test_accuracy_stands_beside_swaps_and_the_situation_is_named(tmp_path: Path) -> None:
    base = an_arm("relu")
    lines, _ = recommended(folder_of(tmp_path, base, an_arm("gelu", 0.05, 0.05, base=base)), measure="pair")
    assert lines[1] == (
        "Situation: all replicas hold copies of one model, random routing, a refresh every 1h rolled out in 2m, users "
        "ask again after 10m."
    )
    assert lines[3].startswith("  ReLU: 0.0167 (0.0158 to 0.0175) (by a refresh 0.0167), log loss 0.4300 (")


def test_one_design_and_no_noise_are_said() -> None:
    base = an_arm("relu")
    assert "one design" in choose(a_result(base, an_arm("relu#2", base=base)), HOUR, "pair", MARGIN).reason
    quiet = [an_arm(spec, 0, 0) for spec in ("relu", "gelu")]
    assert choose(a_result(*quiet), HOUR, "pair", MARGIN).reason.startswith("Switch on a source of noise")
    assert choose(a_result(base), HOUR, "pair", MARGIN).reason.startswith("Add an arm to compare with")


def test_the_commands_say_it_and_end_with_its_code(flicker: Terminal, tmp_path: Path) -> None:
    base = an_arm("relu")
    folder = folder_of(tmp_path / "run", base, an_arm("gelu", 0.05, 0.05, base=base))
    chosen = flicker("recommend", folder, "--measure", "pair", "--models", "4", "--asks-again", "1h")
    assert chosen.code == 0 and chosen.out.startswith("GELU is worth a trial") and "4 independent models" in chosen.out
    bad = flicker("recommend", folder, "--swap-budget", "2")
    assert bad.code == 2 and bad.err == "flicker: swap-budget = 2.0: from 0 to 1; see flicker recommend --help\n"
    unknown = flicker("recommend", folder, "--measure", "pears")
    assert unknown.code == 2 and "measure = pears: one of slot, top1" in unknown.err
    write_report(folder)
    assert "worth a trial" not in (folder / "report.html").read_text(), (
        "the page speaks of slots, which nobody measured"
    )


def test_ratios_of_independent_estimates_add_half_widths_in_squares() -> None:
    draw = generator(1, "ratio")
    new, old = np.exp(draw.normal(-1, 0.1, 200_000)), np.exp(draw.normal(0, 0.2, 200_000))
    ratio = independent_ratio(*(Interval(np.median(x), *np.quantile(x, (0.025, 0.975))) for x in (new, old)))
    assert ratio and (ratio.low, ratio.high) == pytest.approx(np.quantile(new / old, (0.025, 0.975)), rel=0.01)
    assert independent_ratio(around(0.1), Interval(0, 0, 0)) is None
    with pytest.raises(FlickerError):
        RecommendFlags(Path("x"), margin=2)


def test_no_swap_among_few_is_not_shown_to_be_fewer() -> None:
    """One of 100 queries against none of them; 20 against none are another matter."""
    swapped, none = np.zeros(100), np.zeros(100)
    swapped[:1] = 1
    draws = Resamples(1, 1, 100)

    def both(values: Doubles) -> list[Interval | None]:
        a, b = (draws.models(each[None, None], np.ones(100)) for each in (none, values))
        return [ratio(a, b), independent_ratio(a.interval(maximum=1), b.interval(maximum=1))]

    assert [compared(found) for found in both(swapped)] == ["unclear", "unclear"]
    swapped[:20] = 1
    assert [compared(found) for found in both(swapped)] == ["less", "less"]
    assert independent_ratio(Interval(0, 0, 0), Interval(0.1, 0.1, 0.1)) == Interval(0, 0, np.inf)


def test_paired_ratios_and_budgets_without_an_interval_show_nothing() -> None:
    """As one query alone, or one user's, would give."""
    base = an_arm("relu", wide=0)
    arm = an_arm("gelu", 0.05, 0.05, base=base, wide=0, loss_wide=0)
    for budget in (None, 0.09):
        choice = choose(a_result(base, arm), HOUR, "pair", MARGIN, budget)
        assert choice.verdict == "unclear", choice.reason
    choice = choose(a_result(base, an_arm("gelu", 0.05, 0.05, base=base, loss_wide=0)), HOUR, "pair", MARGIN)
    assert choice.verdict == "unclear" and "without an interval, not shown to be within" in choice.reason


def test_one_design_alone_can_be_served_otherwise(tmp_path: Path) -> None:
    """Two files of one model, say: there is no arm to try, and sticky routing helps all the same."""
    arm = an_arm("model")
    choice = choose(a_result(arm, kind="compare"), Situation(models=2), "pair", MARGIN)
    assert choice.reason == "Add files of another design to compare with, named in a column `arm`."
    write_result(tmp_path, a_result(arm, kind="compare"))
    lines, code = recommended(tmp_path, Situation(models=2), measure="pair")
    assert code == 0 and any("sticky routing (--routing sticky)" in line for line in lines)


@pytest.mark.parametrize("every", ["1000001s", "0.3s", "90m", "400d"])
def test_any_time_between_refreshes_can_be_doubled(every: str) -> None:
    found = changes(
        a_result(an_arm("relu")), Situation(refresh_every=every, rollout="0s", asks_again="0.1s"), "pair", MARGIN
    )
    assert any("refresh half as often" in change.words for change in found)


def test_before_advice_on_a_live_system_stands_that_no_baseline_learned_beside_it() -> None:
    calm = {"refresh_swaps.slot": around(0.1, 0.01)}
    arms = [an_arm("relu", **{"refresh_swaps.slot": around(0.5, 0.01)}), an_arm("gelu", **calm)]
    first, *_ = advice(a_result(*arms, kind="live"), margin=1.0)
    assert first.startswith("Whether these models have learned enough to be advised on is not known")
    assert not advice(a_result(*arms), margin=1.0)[0].startswith("Whether")


def test_a_model_that_ranks_below_popularity_gets_no_advice() -> None:
    arm = an_arm("relu", ndcg=around(0.7, 0.01))
    beaten = {"popularity": {"log_loss": around(0.9, 0.01), "ndcg": around(0.9, 0.01)}}
    assert too_little(arm, a_result(arm, baselines=beaten)).startswith("NDCG 0.7000 is below that of")
    equal = {"popularity": {"log_loss": around(0.9, 0.01), "ndcg": around(0.7, 0.01)}}
    assert too_little(arm, a_result(arm, baselines=equal)) == ""


def test_seeds_are_recommended_on_together(tmp_path: Path) -> None:
    folders = []
    for seed in range(5):
        base = an_arm("relu", **{"refresh_swaps.slot": around(0.2 + 0.001 * seed, 0.3)})
        folders.append(tmp_path / str(seed))
        folders[-1].mkdir()
        write_result(folders[-1], a_result(base, kind="live", config={"seed": seed}))
    asked = RecommendFlags(tuple(folders))
    lines, _ = recommend(asked, read_results(folders))
    assert any("ReLU: 0.0337" in line for line in lines)  # 0.202 / 6, the mean of all
