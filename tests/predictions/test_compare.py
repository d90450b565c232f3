"""`flicker compare` against loops, SciPy and scikit-learn, and against the run whose predictions were kept."""

from __future__ import annotations

import itertools
import math
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.compute as pc
import pyarrow.parquet as pq
import pytest
from scipy.stats import kendalltau
from sklearn.metrics import log_loss, ndcg_score, roc_auc_score

from simulator.config import NO_NOISE, ExperimentConfig
from simulator.errors import DataError
from simulator.experiment.main import run_experiment
from simulator.experiment.outcome import measure
from simulator.flags import RunFlags
from simulator.models import native_engine
from simulator.predictions import compare as comparing
from simulator.predictions import parts
from simulator.predictions.compare import compare_frames
from simulator.predictions.keep import keep_predictions
from simulator.randomness import generator
from simulator.result import Arm, read_result
from tests.predictions.logs import Frame, brute, frame, means, measured, picked, rankings, write
from tests.small_runs import SMALL, prepared, small_replay

K = 4


def sigmoid(x: Any) -> Any:
    return 1 / (1 + np.exp(-np.asarray(x)))


@pytest.mark.parametrize("texts", [False, True])
@pytest.mark.parametrize("ties", [False, True])
def test_even_lists(texts: bool, ties: bool) -> None:
    if texts and ties:
        pytest.skip("equal scores of text ids stand in the order of their hashes")
    first, second = (frame(seed, texts=texts, ties=ties) for seed in (1, 2))
    found = measured(first, second, k=K)
    for name, value in brute(first, second, K).items():
        assert found[name] == pytest.approx(value, abs=1e-12), name


def uneven(seed: int, share: float) -> Frame:
    """Some rows lost at random, whole queries among them."""
    columns = frame(seed, queries=30, items=9)
    draws = generator(seed, "lost")
    keep = draws.random(len(columns["q_id"])) < share
    keep &= np.isin(columns["q_id"], draws.permutation(30)[:4], invert=True)
    return picked(columns, draws.permutation(np.flatnonzero(keep)))


@pytest.mark.parametrize("share", [0.2, 0.5, 0.9])
@pytest.mark.parametrize("k", [1, 4, 20])
def test_uneven_lists_missing_queries_and_rows_in_any_order(share: float, k: int) -> None:
    first, second = uneven(1, share), uneven(2, share)
    result = compare_frames([first, second], k=k)
    found = means(result.arms[0])
    for name, value in brute(first, second, k).items():
        assert found[name] == pytest.approx(value, abs=1e-12), name
    one, other = rankings(first), rankings(second)
    missing = len(one.keys() ^ other.keys())
    assert any(note.startswith(f"{missing} queries that only one") for note in result.notes)


def test_pair_swaps_are_kendalls_tau() -> None:
    first, second = frame(1, queries=1, items=40), frame(2, queries=1, items=40)
    tau = kendalltau(first["score"], second["score"]).statistic
    assert measured(first, second)["swaps.pair"] == pytest.approx((1 - tau) / 2)


def extrapolated(short: list[Any], long: list[Any], p: float = 0.9) -> float:
    """Webber's equation 32, as it stands there."""
    s, l = len(short), len(long)  # noqa: E741
    x = [len(set(short[:d]) & set(long[:d])) for d in range(l + 1)]
    total = sum(x[d] / d * p**d for d in range(1, l + 1))
    total += sum(x[s] * (d - s) / (s * d) * p**d for d in range(s + 1, l + 1))
    return (1 - p) / p * total + ((x[l] - x[s]) / l + x[s] / s) * p**l


def orders(columns: Frame) -> Iterator[list[Any]]:
    """Every order of a list whose equal scores may stand in any."""
    groups: dict[float, list[Any]] = {}
    for item, score in zip(columns["doc_id"], columns["score"], strict=True):
        groups.setdefault(-score, []).append(item)
    for each in itertools.product(*(itertools.permutations(groups[s]) for s in sorted(groups))):
        yield list(itertools.chain(*each))


@pytest.mark.parametrize("seed", range(6))
def test_rbo_of_uneven_lists_is_the_mean_over_orders_of_equal_scores(seed: int) -> None:
    draws = generator(seed, "uneven rbo")
    made = []
    for length in (3 + seed % 2, 6):
        scores = draws.integers(0, 4, length).astype(float)
        made.append({"q_id": np.zeros(length, int), "doc_id": draws.permutation(7)[:length], "score": scores})
    values = [extrapolated(a, b) for a in orders(made[0]) for b in orders(made[1])]
    assert measured(*made, k=10)["swaps.rbo"] == pytest.approx(1 - float(np.mean(values)))
    assert measured(*reversed(made), k=10)["swaps.rbo"] == pytest.approx(1 - float(np.mean(values)))


def test_accuracy_and_prediction_difference() -> None:
    frames = [frame(seed) for seed in (1, 2)]
    found = measured(*frames, k=K, log_odds=True)
    y, chances = frames[0]["label"], [sigmoid(each["score"]) for each in frames]
    pd = 2 * np.abs(chances[0] - chances[1]) / (chances[0] + chances[1])
    assert found["pd"] == pytest.approx(pd.mean())
    assert found["swaps.pd_candidates"] == pytest.approx(pd.mean())
    assert found["log_loss"] == pytest.approx(np.mean([log_loss(y, p) for p in chances]))
    assert found["auc"] == pytest.approx(np.mean([roc_auc_score(y, p) for p in chances]))
    ndcg, mrr, recall = [], [], []
    for each in frames:
        for query in range(12):
            mine = each["q_id"] == query
            truth, score = y[mine], each["score"][mine]
            if truth.any():
                ndcg.append(ndcg_score([truth], [score], k=K))
                best = truth[np.argsort(-score)]
                mrr.append(1 / (best.argmax() + 1))
                recall.append(best[:K].sum() / best.sum())
    assert found["ndcg"] == pytest.approx(np.mean(ndcg))
    assert found["mrr"] == pytest.approx(np.mean(mrr))
    assert found["recall"] == pytest.approx(np.mean(recall))


def test_a_column_of_probabilities_is_the_same_as_log_odds() -> None:
    frames = [frame(seed) for seed in (1, 2)]
    ranked = [each | {"probability": sigmoid(each["score"])} for each in frames]
    assert measured(*ranked, k=K) == pytest.approx(measured(*frames, k=K, log_odds=True))
    # what ranks need not be what predicts
    reversed_ = [each | {"score": -each["score"]} for each in ranked]
    assert measured(*reversed_, k=K)["pd"] == pytest.approx(measured(*ranked, k=K)["pd"])


def test_without_probabilities_there_are_swaps_alone() -> None:
    result = compare_frames([frame(1), frame(2)])
    assert not any("pd" in name or name in ("log_loss", "auc", "ranking_loss") for name in result.arms[0].measures)
    assert {"ndcg", "mrr", "recall"} <= result.arms[0].measures.keys()
    assert any(note.startswith("No prediction difference") for note in result.notes)


def test_grades_give_ndcg_alone() -> None:
    frames = [each | {"label": np.round(4 * each["label"] + each["doc_id"] % 2)} for each in (frame(1), frame(2))]
    found = measured(*frames, log_odds=True)
    assert "ndcg" in found and not {"mrr", "recall", "log_loss", "auc", "ranking_loss", "calibration"} & found.keys()


def test_causes_come_from_columns() -> None:
    rows: dict[str, list[Any]] = {}
    made = {(d, g): frame(10 * d + g) for d in range(2) for g in (5, 6, 7)}
    for (duplicate, generation), each in made.items():
        same = {"arm": "mine", "duplicate": duplicate, "generation": generation}
        for name, column in (each | {n: [v] * len(each["q_id"]) for n, v in same.items()}).items():
            rows.setdefault(name, []).extend(column)
    (arm,) = compare_frames([rows], k=K).arms
    expected = {
        "swaps": [(made[0, 7], made[1, 7])],
        "refresh_swaps": [(made[d, 6], made[d, 7]) for d in range(2)],
        "both_swaps": [(made[d, 6], made[1 - d, 7]) for d in range(2)],
        "refresh_lags.2": [(made[d, 5], made[d, 7]) for d in range(2)],
        "both_lags.2": [(made[d, 5], made[1 - d, 7]) for d in range(2)],
    }
    assert arm.spec == "mine"
    assert {name.rpartition(".")[0] for name in arm.measures} - {"", "swaps_these"} == expected.keys()
    for cause, pairs in expected.items():
        value = np.mean([brute(*pair, K)["swaps.pair"] for pair in pairs])
        assert arm.measures[f"{cause}.pair"].mean == pytest.approx(value), cause


def test_results_by_a_column() -> None:
    frames = [frame(1), frame(2)]
    (arm,) = compare_frames(frames, k=K, by=("country",)).arms
    assert {each.value for each in arm.by["country"]} == {"NL", "DE", "FR"}
    assert sum(each.share for each in arm.by["country"]) == pytest.approx(1)
    for each in arm.by["country"]:
        some = [picked(columns, columns["country"] == each.value) for columns in frames]
        for name, value in brute(some[0], some[1], K).items():
            assert each.measures[name].mean == pytest.approx(value), name


def test_an_arm_that_two_arguments_hold_is_two_arms_with_a_paired_ratio() -> None:
    frames = [frame(seed) | {"arm": ["relu"] * 84, "duplicate": [seed % 2] * 84} for seed in (1, 2, 3, 4)]
    old, new = ({name: [*a[name], *b[name]] for name in a} for a, b in (frames[:2], frames[2:]))
    first, second = compare_frames([old, new], k=K).arms
    assert (first.spec, second.spec) == ("relu", "relu#2")
    ratio = second.against["relu"]["pair"].mean
    assert ratio == pytest.approx(second.measures["swaps.pair"].mean / first.measures["swaps.pair"].mean)
    assert second.ratios["pair"].mean == ratio


def with_models(models: dict[tuple[str, int, int], Frame]) -> Frame:
    """One log of models by arm, fleet and duplicate."""
    rows: dict[str, list[Any]] = {}
    for (arm, fleet, duplicate), each in models.items():
        same = {"arm": arm, "fleet": fleet, "duplicate": duplicate}
        for name, column in (each | {n: [v] * len(each["q_id"]) for n, v in same.items()}).items():
            rows.setdefault(name, []).extend(column)
    return rows


def test_matched_models_are_compared_with_their_own_alone_and_arms_in_their_order() -> None:
    cells = [(arm, fleet, duplicate) for arm in ("relu", "gelu") for fleet in range(2) for duplicate in range(2)]
    old, new = ({cell: frame(10 * start + n) for n, cell in enumerate(cells)} for start in (1, 2))
    renamed = {(arm + ":engine=torch" * (arm == "gelu"), *cell): each for (arm, *cell), each in new.items()}
    result = compare_frames([with_models(old), with_models(renamed)], k=K, matched=True)
    assert [arm.spec for arm in result.arms] == ["relu", "gelu"] and result.config["fleets"] == 2
    for arm in result.arms:
        pairs = [(old[cell], new[cell]) for cell in cells if cell[0] == arm.spec]
        expected = [brute(*pair, K) for pair in pairs]
        for name in ("swaps.pair", "swaps.slot", "swaps.top1", "swaps.set"):  # of as many pairs in each
            assert arm.measures[name].mean == pytest.approx(np.mean([each[name] for each in expected])), name
    notes = " ".join(result.notes)
    assert "gelu: compared with gelu:engine=torch of another argument" in notes and "relu: compared" not in notes


def test_equal_duplicates_make_no_matched_interval_narrower() -> None:
    few, many = (
        [with_models({("relu", f, d): frame(10 * start + f) for f in range(2) for d in range(n)}) for start in (1, 2)]
        for n in (1, 3)
    )
    alone, copied = (compare_frames(pair, k=K, matched=True, log_odds=True).arms[0].measures for pair in (few, many))
    assert alone.keys() == copied.keys() and alone["swaps.pair"].high > alone["swaps.pair"].low
    for name, each in alone.items():
        its = copied[name]
        assert (its.mean, its.low, its.high) == pytest.approx((each.mean, each.low, each.high)), name


def test_matched_files_without_columns_of_models_are_compared_as_ever() -> None:
    first, second = frame(1), frame(2)
    assert measured(first, second, k=K, matched=True) == measured(first, second, k=K)


def test_what_cannot_be_matched_is_one_line() -> None:
    one = with_models({("relu", 0, 0): frame(1), ("gelu", 0, 0): frame(2)})
    with pytest.raises(DataError, match="matched: one argument alone: give a second one"):
        compare_frames([one], matched=True)
    with pytest.raises(DataError, match="matched: relu, gelu in one argument, relu in another: give as many arms"):
        compare_frames([one, with_models({("relu", 0, 0): frame(3)})], matched=True)
    with pytest.raises(DataError, match="arm relu: its fleets have 1 to 2 duplicates: give as many of each"):
        compare_frames([with_models({("relu", 0, d): frame(d) for d in range(n)}) for n in (2, 1)], matched=True)
    uneven = with_models({("relu", *cell): frame(1) for cell in ((0, 0), (0, 1), (1, 0))})
    with pytest.raises(DataError, match="arm relu: its fleets have other numbers of duplicates: give as many of each"):
        compare_frames([uneven, uneven], matched=True)


@pytest.mark.parametrize("partitions", [1, 2, 7])
@pytest.mark.parametrize("grouped", [True, False])
def test_order_splitting_and_partitions_change_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, grouped: bool, partitions: int
) -> None:
    frames = [uneven(seed, 0.8) | {} for seed in (1, 2)]
    expected = compare_frames(frames, k=K, by=("country",), log_odds=True)
    monkeypatch.setattr(parts, "PART_ROWS", 200 // partitions)
    arguments = []
    for number, columns in enumerate(frames):
        columns = picked(columns, np.argsort(columns["q_id"], kind="stable")) if grouped else columns
        folder = tmp_path / str(number)
        folder.mkdir()
        for part, rows in enumerate(np.array_split(np.arange(len(columns["q_id"])), 3)):
            write(folder / f"part-{part}.parquet", picked(columns, rows), row_group_size=17)
        arguments.append(folder)
    found = compare_frames(arguments, k=K, by=("country",), log_odds=True)
    assert found.notes[1:] == expected.notes[1:]
    assert means(found.arms[0]) == pytest.approx(means(expected.arms[0]), rel=1e-12)
    for mine, its in zip(found.arms[0].by["country"], expected.arms[0].by["country"], strict=True):
        assert (mine.value, mine.share) == (its.value, its.share)


def test_many_users_are_counted_in_groups(monkeypatch: pytest.MonkeyPatch) -> None:
    frames = [frame(seed, queries=200) for seed in (1, 2)]
    exact = measured(*frames, k=K)
    monkeypatch.setattr(comparing, "MAX_UNITS", 50)
    frames = [{name: column for name, column in each.items() if name != "user"} for each in frames]
    assert measured(*frames, k=K) == pytest.approx(exact)


def kept(config: ExperimentConfig, folder: Path) -> list[Arm]:
    """What a run found whose predictions are in the folder."""
    experiment = prepared(config)
    final = experiment.run(lambda events: None, lambda: None)
    newest, labels = experiment.state.generation, [arm.label for arm in experiment.arms]
    generations = {newest - lag: rankings for lag, rankings in final.earlier.items()} | {newest: final.after}
    asked = final.queries, generations, final.held_out, final.logits
    keep_predictions(folder, experiment.world, labels, experiment.shape, *asked)
    return measure(experiment, final).arms


OF_THE_RUN_ALONE = {
    "clicks_per_slate", "gap_closed", "personalisation", "progressive_log_loss", "regret", "useful_swaps",
    "useless_swaps",
}  # fmt: skip


@pytest.mark.parametrize("kind", ["synthetic", "replay"])
def test_kept_predictions_give_the_runs_own_numbers(tmp_path: Path, kind: str) -> None:
    config = replace(SMALL, fleets=2) if kind == "synthetic" else small_replay(tmp_path / "log")
    per_query = kept(config, tmp_path / "predictions")
    found = compare_frames([tmp_path], k=config.k)  # the run's folder: predictions/ in it is meant
    assert [arm.spec for arm in found.arms] == [arm.spec for arm in per_query]
    for arm, expected in zip(found.arms, per_query, strict=True):
        assert expected.measures.keys() - arm.measures.keys() == OF_THE_RUN_ALONE & expected.measures.keys()
        assert arm.ratios.keys() == expected.ratios.keys() - OF_THE_RUN_ALONE
        for name, value in (arm.measures | arm.ratios).items():
            its = (expected.measures | expected.ratios)[name]
            assert value.mean == pytest.approx(its.mean, rel=1e-12, abs=1e-14), name
            # ids of a log are texts, whose order, and so the draws of the bootstrap, is another than that of numbers
            near = 1e-14 if kind == "synthetic" else 0.15 * (its.high - its.low)
            assert (value.low, value.high) == pytest.approx((its.low, its.high), rel=1e-12, abs=near), name


def test_kept_predictions_are_named_as_the_log_names_them(tmp_path: Path) -> None:
    config = small_replay(tmp_path / "log", arms=("relu",), duplicates=2)
    kept(config, tmp_path / "kept")
    table = pq.read_table(next((tmp_path / "kept").glob("*.parquet")))
    rows = [row.split("::") for row in (tmp_path / "log" / "ratings.dat").read_text().splitlines()]
    assert set(table["user"].to_pylist()) <= {row[0] for row in rows}
    assert set(table["doc_id"].to_pylist()) <= {row[1] for row in rows}
    engaged = {(user, item) for user, item, *_ in rows}
    clicked = table.filter(pc.equal(table["label"], 1))
    assert len(clicked) and set(zip(*(clicked[c].to_pylist() for c in ("user", "doc_id")), strict=True)) <= engaged


def test_kept_predictions_have_the_columns_that_results_are_parted_by(tmp_path: Path) -> None:
    config = replace(SMALL, queries=200, by=("device", "age_group"), arms=("relu",))
    (per_query,), found = kept(config, tmp_path), compare_frames([tmp_path], k=config.k, by=config.by).arms[0]
    for column, expected in per_query.by.items():
        its = {part.value: part for part in found.by[column]}
        assert len(expected) > 2
        for part in expected:
            assert its[part.value].share == pytest.approx(part.share)
            swaps, own_swaps = (each.measures["swaps.pair"].mean for each in (its[part.value], part))
            assert swaps == pytest.approx(own_swaps)


def test_two_runs_are_paired(tmp_path: Path) -> None:
    """The same run twice: every ratio is 1, without doubt."""
    kept(replace(SMALL, arms=("relu",)), tmp_path / "a" / "predictions")
    result = compare_frames([tmp_path / "a", tmp_path / "a"], k=SMALL.k)
    assert [arm.spec for arm in result.arms] == ["relu", "relu#2"]
    for name, ratio in result.arms[1].ratios.items():
        assert (ratio.mean, ratio.low, ratio.high) == (1, 1, 1), name


@pytest.mark.skipif(bool(native_engine.missing()), reason="no kernels here")
def test_two_engines_differ_by_rounding_alone_where_nothing_else_does(tmp_path: Path) -> None:
    quiet = small_replay(tmp_path / "log", noise=NO_NOISE, duplicates=2)  # what is shown teaches nothing there
    for engine in ("native", "torch"):
        config = replace(quiet, model=replace(quiet.model, engine=engine))
        for arm in kept(config, tmp_path / engine / "predictions"):
            assert arm.measures["pd"].mean == 0, "one engine repeats itself"
    result = compare_frames([tmp_path / "native", tmp_path / "torch"], k=quiet.k, matched=True)
    for arm in result.arms:
        assert 0 < arm.measures["pd"].mean < 1e-3, arm.spec


def test_a_run_keeps_its_predictions(tmp_path: Path) -> None:
    out = tmp_path / "run"
    run_experiment(
        RunFlags(out=out, keep_predictions=True), replace(SMALL, arms=("relu",), duplicates=2), "flicker run"
    )
    found, per_query = compare_frames([out], k=SMALL.k).arms[0], read_result(out).arms[0]
    assert per_query.measures["swaps.pair"].mean == found.measures["swaps.pair"].mean > 0
    assert "refresh_lags.2.pair" in found.measures


@pytest.mark.parametrize(
    ("column", "options", "hint"),
    [("shop", {"by": ("shop",)}, "--by takes columns of queries, not of items"), ("user", {}, "is from one user")],
)
def test_what_differs_within_a_query_is_no_column_of_queries(column: str, options: Any, hint: str) -> None:
    """An item's category, say: the first item's would have stood for the whole query."""
    frames = [frame(1) | {"shop": frame(1)["country"]}, frame(2) | {"shop": frame(2)["country"]}]
    frames[1][column] = np.where(np.arange(84) == 30, frames[1][column][0], frames[1][column])
    with pytest.raises(
        DataError, match=rf"frame 2: row \d+: q_id = 4, doc_id = \d+: {column} is not that of the other items: .*{hint}"
    ):
        compare_frames(frames, k=K, **options)


def test_true_probabilities_as_labels_have_no_auc() -> None:
    """A threshold of one half would have made some of them engagements."""
    frames = [frame(seed) | {"label": sigmoid(frame(3)["score"])} for seed in (1, 2)]
    result = compare_frames(frames, k=K, log_odds=True)
    assert {"log_loss", "calibration", "ndcg"} <= result.arms[0].measures.keys()
    assert "auc" not in result.arms[0].measures
    assert any("AUC, which needs engagements, is left out" in note for note in result.notes)
    plain = compare_frames([frame(1), frame(2)], k=K, log_odds=True)
    assert "auc" in plain.arms[0].measures
    assert any("not users" in note for note in plain.notes), "what run says of them too"


def test_what_arms_and_lists_lack_is_said() -> None:
    """Ratios of arms that answered other queries; recall of a list that lacks what is relevant."""
    models = [frame(n) | {"arm": [arm] * 84, "duplicate": [n] * 84} for arm in ("a", "b") for n in (1, 2)]
    few = [*models[:2], *(picked(each, np.asarray(each["q_id"]) < 5) for each in models[2:])]
    said = "Arms answered other queries (a 12, b 5): their ratios compare other queries too."
    assert any(note.startswith(said) for note in compare_frames(few, k=K).notes)
    assert not any("other queries" in note for note in compare_frames(models, k=K).notes)
    lists = compare_frames([frame(1), picked(frame(2), np.arange(84) % 7 > 0)], k=K)
    assert any("they do not miss what a list lacks" in note for note in lists.notes)


def test_one_model_alone_is_refused() -> None:
    with pytest.raises(DataError, match="one model alone: give the predictions of a second one"):
        compare_frames([frame(1)])


def test_intervals_are_those_of_users() -> None:
    (arm,) = compare_frames([frame(1), frame(2)], k=K).arms
    interval = arm.measures["swaps.pair"]
    assert interval.low < interval.mean < interval.high and math.isfinite(interval.high)
