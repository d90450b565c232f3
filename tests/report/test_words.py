"""The sentences and numbers of the report say what was measured, and no more than that."""

from __future__ import annotations

import math
import re
from pathlib import Path

import pytest

from simulator.measures.words import interval, label, number, percent, written
from simulator.report import finding
from simulator.report.finding import headline
from simulator.result import read_result
from simulator.types import Interval
from tests.report.fake_results import MEASURES, fake_result, silent_result, spread, write
from tests.report.parsed import plain


@pytest.mark.parametrize(
    ("arms", "wide", "expected"),
    [
        (
            {"relu": (1, 0.43), "smelu:beta=1": (0.5, 0.44)},
            0.1,
            "swaps 0.50 of the pairs .* but at 2.3 % higher log loss",
        ),
        ({"relu": (1, 0.43), "gelu": (0.5, 0.43)}, 0.1, "GELU swaps 0.50 .* at no clear change of log loss"),
        ({"relu": (1, 0.43), "gelu": (0.95, 0.43)}, 0.1, r"^No clear difference: .* \(0.85 to 1.04\) includes 1"),
        ({"relu": (1, 0.43), "gelu": (1.5, 0.43)}, 0.1, "^No cure here: even GELU swaps 1.50 times the pairs"),
        ({"relu": (1, 0.43)}, 0.1, "Two duplicates of ReLU order 8.5 % of all pairs .* at log loss 0.4300"),
        ({"relu": (1, 0.43), "relu#2": (1.02, 0.43)}, 0.1, "^No clear difference: ReLU #2"),
        # steady because it predicts next to nothing: the arm that keeps the accuracy is the one to talk about
        ({"relu": (1, 0.43), "linear": (0.01, 0.6), "gelu": (0.5, 0.43)}, 0.1, "^GELU swaps 0.50"),
    ],
)
def test_headline_is_honest(tmp_path: Path, arms: dict[str, tuple[float, float]], wide: float, expected: str) -> None:
    result = fake_result(arms, 2, wide)
    for spec, (_, loss) in arms.items():
        result["arms"][spec]["ratio"]["log_loss"] = spread(loss / 0.43, 0.001)
    assert re.search(expected, plain(headline(read_result(write(tmp_path, result)))))


def test_headline_when_all_is_zero_and_when_only_the_first_is(tmp_path: Path) -> None:
    assert headline(read_result(write(tmp_path, silent_result()))).startswith("All duplicates agree exactly")
    result = fake_result({"relu": (0.0, 0.43), "gelu": (1.0, 0.43)}, 2)
    result["arms"]["gelu"]["ratio"] = dict.fromkeys(MEASURES)
    title = plain(headline(read_result(write(tmp_path, result))))
    assert title.startswith("ReLU swaps no pairs at all, GELU swaps 8.5 %")


@pytest.mark.parametrize(
    ("value", "text"),
    [(0, "0"), (0.147, "0.147"), (0.0062, "0.00620"), (12.345, "12.3"), (21807.4, "21,807"), (1.2e-7, "1.2 × 10⁻⁷")],
)
def test_numbers_for_people(value: float, text: str) -> None:
    assert number(value) == text


def test_what_rounds_to_zero_has_no_sign() -> None:
    assert [number(value, 4) for value in (-0.00001, 0.00001, -0.0001)] == ["0.0000", "0.0000", "-0.0001"]


def test_intervals_percents_and_names_for_people() -> None:
    assert interval(Interval(0.147, 0.1312, 0.1629)) == ("0.147", "(0.131 to 0.163)")
    assert interval(Interval(0.4287, 0.4287, 0.4287), 4) == ("0.4287", "")
    assert interval(Interval(-6.8e-5, -0.0578464, 0.0577094)) == ("-6.8 × 10⁻⁵", "(-0.05785 to 0.05771)")
    assert [plain(percent(share)) for share in (0, 0.1894, 0.0065, 0.00012)] == ["0 %", "18.9 %", "0.65 %", "0.012 %"]
    assert label("gsmelu:alpha=1,beta=2#3") == "gSmeLU (alpha = 1, beta = 2) #3"
    assert label("<b>") == "<b>"
    assert label("ensemble:smelu:beta=1,m=3,narrow") == "SmeLU, ensemble (beta = 1, m = 3, narrow)"
    assert label("average:relu#2") == "ReLU, weights averaged #2" and label("ensemble:rely") == "ensemble:rely"


@pytest.mark.parametrize(
    ("spec", "text"),
    [
        ("torch:my_pkg.towers:make", "towers"),
        ("torch:towers:make", "towers"),
        ("torch:my_pkg.towers:narrow", "towers.narrow"),
        ("torch:towers:make,width=64,lr=0.02", "towers (width = 64, lr = 0.02)"),
        ("torch:examples.two_tower:make,relu=smelu:beta=1", "two_tower, SmeLU (beta = 1)"),
        ("torch:towers:make,width=64,relu=gelu", "towers, GELU (width = 64)"),
        ("ensemble:torch:towers:make,m=3#2", "towers, ensemble (m = 3) #2"),
        ("average:torch:towers:make,relu=smelu:beta=1", "towers, SmeLU (beta = 1), weights averaged"),
    ],
)
def test_a_module_of_the_users_has_a_short_name(spec: str, text: str) -> None:
    assert label(spec) == text


@pytest.mark.parametrize(
    ("arms", "wide", "expected"),
    [
        ({"relu": (1, 0.43), "gelu": (0.5, 0.42)}, 0.1, "GELU has both the lowest PD and the lowest log loss"),
        (
            {"relu": (1, 0.43), "gelu": (0.5, 0.44)},
            0.1,
            "A trade-off: GELU has the lowest PD, ReLU the lowest log loss",
        ),
        ({"relu": (1, 0.43), "gelu": (0.9, 0.42)}, 0.3, "GELU has both .*, but the intervals of ratios include 1"),
        ({"relu": (1, 0.43), "gelu": (1.1, 0.44)}, 0.3, "ReLU has both .*, but the intervals of ratios include 1"),
        ({"relu": (1, 0.43)}, 0.1, "One arm is one point"),
    ],
)
def test_plane_title_doubts_overlap(
    tmp_path: Path, arms: dict[str, tuple[float, float]], wide: float, expected: str
) -> None:
    result = fake_result(arms, 2, wide)
    for spec, (_, loss) in arms.items():
        result["arms"][spec]["ratio"]["log_loss"] = spread(loss / 0.43, 0.001)
    assert re.fullmatch(
        expected + ".*" * expected.startswith("One"), finding.plane_title(read_result(write(tmp_path, result)))
    )


@pytest.mark.parametrize(
    ("value", "text"),
    [
        (Interval(1.4, 0.48, 2.7e160), ("1.40", "(from 0.48 up)")),
        (Interval(1.4, 0.0, math.inf), ("1.40", "")),
        (Interval(0.0, 0.0, math.inf), ("0", "")),
        (Interval(1.4, 0.48, 27.0), ("1.40", "(0.48 to 27.00)")),
    ],
)
def test_what_has_no_limit_above_is_no_row_of_digits(value: Interval, text: tuple[str, str]) -> None:
    """The ratio of two measures that few queries were compared for, as a live system's at its start."""
    assert interval(value, 2) == text
    assert "inf" not in written(value) and len(written(value)) < 30
