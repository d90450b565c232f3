"""Users, items and the click model of the synthetic world, each against its stated formula."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from scipy.stats import chi2

from simulator.config import SyntheticConfig
from simulator.world import population
from simulator.world.population import (
    AGE_GROUPS,
    CATEGORIES,
    EXPLAINED,
    PRICE_BANDS,
    REGIONS,
    TAGS,
    TASTES,
    Audience,
    Catalog,
    TrueClickModel,
    Zipf,
    examination,
    logit,
)
from simulator.world.stream import SPAN
from tests.world.synthetic_checks import CONFIG


def test_tags_are_distinct_one_to_three_and_padded_last() -> None:
    tags = Catalog(CONFIG, 3, SPAN).tags
    filled = (tags >= 0).sum(1)
    assert set(filled) == {1, 2, 3}
    for row, count in zip(tags, filled, strict=True):
        assert (row[:count] >= 0).all() and (row[count:] == -1).all() and len(set(row[:count])) == count


def test_items_are_the_same_however_many_get_their_tags_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    whole = Catalog(CONFIG, 3, SPAN)
    monkeypatch.setattr(population, "ITEMS_PER_PASS", 7)
    parts = Catalog(CONFIG, 3, SPAN)
    for name in ("tags", "taste", "arrival"):
        assert np.array_equal(getattr(parts, name), getattr(whole, name))


def some_tastes() -> list[np.ndarray]:
    rng = np.random.default_rng(0)
    return [0.3 + rng.standard_normal((20_000, TASTES), dtype=np.float32) for _ in range(3)]


@pytest.mark.parametrize("interaction", [0.0, 0.5, 1.0])
def test_worlds_are_equally_hard_whatever_their_interaction_and_their_seed(interaction: float) -> None:
    tastes = some_tastes()
    for seed in range(3):
        model = TrueClickModel(np.random.default_rng(seed), *tastes, interaction)
        log_odds, p = model.log_odds(*tastes).astype(np.float64), model.probability(*tastes)
        np.testing.assert_allclose(p, 1 / (1 + np.exp(-log_odds)), rtol=1e-5)
        assert log_odds.std() == pytest.approx(2, rel=0.02) and p.mean() == pytest.approx(0.4, abs=1e-4)


def test_with_interaction_alone_the_log_odds_are_the_product_of_tastes_about_their_means() -> None:
    user, item, context = some_tastes()
    found = TrueClickModel(np.random.default_rng(1), user, item, context, 1.0).log_odds(user, item, context)
    match = ((user - user.mean(0)) * (item - item.mean(0))).sum(1)
    np.testing.assert_allclose(found - found.mean(), 2 * (match - match.mean()) / match.std(), atol=1e-4)


def test_logit_is_the_inverse_of_the_sigmoid_and_finite() -> None:
    x = np.linspace(-12, 12, 49)
    np.testing.assert_allclose(logit(1 / (1 + np.exp(-x))), x, rtol=1e-5)
    assert np.isfinite(logit(np.array([0.0, 1.0]))).all()


def test_examination_is_one_at_the_top_and_falls_as_a_power() -> None:
    np.testing.assert_allclose(examination(np.array([1, 4, 9]), 0.5), [1, 1 / 2, 1 / 3])


@pytest.mark.parametrize("seed", range(3))
def test_zipf_draws_have_the_slope_and_the_shares(seed: int) -> None:
    rng = np.random.default_rng(seed)
    zipf = Zipf(rng, 1_000, 0.8)
    weight = np.arange(1, 1_001) ** -0.8
    np.testing.assert_allclose(np.sort(zipf.share)[::-1], weight / weight.sum())
    counts = np.bincount(zipf.draw(rng.random(400_000)), minlength=1_000)
    statistic = ((counts - 400_000 * zipf.share) ** 2 / (400_000 * zipf.share)).sum()
    assert 1e-6 < chi2.sf(statistic, 999) < 1 - 1e-6
    top = np.sort(counts)[::-1][:100]
    slope = np.polyfit(np.log(np.arange(1, 101)), np.log(top), 1)[0]
    assert slope == pytest.approx(-0.8, abs=0.05)
    assert zipf.draw(np.array([0.0, 1 - 2**-53])).tolist() == [0, 999]


def test_what_is_shown_explains_half_of_what_items_and_users_are() -> None:
    """So that new items can be predicted: least squares on the observables, as a linear model sees them."""
    config = SyntheticConfig(items=4_000, users=4_000)
    catalog, audience = Catalog(config, 2, SPAN), Audience(config, 2, SPAN)
    tags = (catalog.tags[:, :, None] == np.arange(TAGS)).sum(1)
    of_item = [
        catalog.category[:, None] == np.arange(CATEGORIES),
        catalog.price_band[:, None] == np.arange(PRICE_BANDS),
    ]
    of_user = [audience.age_group[:, None] == np.arange(AGE_GROUPS), audience.region[:, None] == np.arange(REGIONS)]
    for taste, shown in (
        (catalog.taste, [*of_item, tags / np.sqrt(tags.sum(1, keepdims=True))]),
        (audience.taste(np.arange(4_000), np.zeros(4_000)), of_user),
    ):
        known = np.concatenate(shown, axis=1).astype(np.float64)
        left = taste - known @ np.linalg.lstsq(known, taste, rcond=None)[0]
        assert (left**2).mean() == pytest.approx(1 - EXPLAINED, rel=0.05)


def test_tastes_stand_still_without_drift_and_move_by_the_stated_share_with_it() -> None:
    users, start, end = np.arange(5_000), np.zeros(5_000), np.full(5_000, SPAN)
    for drift in (0.0, 0.2, 1.0):
        audience = Audience(SyntheticConfig(users=5_000, drift=drift), 2, SPAN)
        first, half, last = (audience.taste(users, time) for time in (start, end / 2, end))
        assert np.sqrt(((last - first) ** 2).mean()) == pytest.approx(drift, rel=0.05, abs=1e-12)
        assert np.sqrt(((half - first) ** 2).mean()) == pytest.approx(drift / 2, rel=0.15, abs=1e-12)  # arc, chord
        assert last.std() == pytest.approx(first.std(), rel=0.1)


def test_absent_items_leave_the_shares_of_the_others_alone() -> None:
    shop = Catalog(replace(CONFIG, items=50, turnover=0.9), 1, SPAN)
    time = SPAN / 3
    counts = np.bincount(shop.draw(np.random.default_rng(0), np.full(200_000, time)), minlength=50)
    present = shop.present(time)
    assert 0 < len(present) < 50 and counts[present].sum() == 200_000
    expected = 200_000 * shop.popularity.share[present] / shop.popularity.share[present].sum()
    assert 1e-6 < chi2.sf(((counts[present] - expected) ** 2 / expected).sum(), len(present) - 1) < 1 - 1e-6
