"""Differences between the predictions of several models, as one Result.

Queries of one shape are compared at once, by the measures of measures/registry.py. Sums per user go to the intervals of
measures/intervals.py, as in `flicker run`: on what its --keep-predictions wrote, the numbers are the run's own.

Shapes: Q queries, N items of a query, U units (users, or queries), F fleets, R duplicates, P pairs of them.
"""

from __future__ import annotations

import os
import time
from collections import Counter, defaultdict
from collections.abc import Callable, Collection, Iterator, Sequence
from dataclasses import asdict, dataclass, replace
from functools import cached_property, partial
from pathlib import Path
from typing import Any

import numpy as np

from simulator.errors import DataError, SettingError
from simulator.measures.differences import pd_of_logits
from simulator.measures.intervals import Estimate, Resamples, pair_index, sums_by_user
from simulator.measures.registry import (
    ACCURACY,
    DIFFERENCES,
    QUALITIES,
    RATIOS,
    RATIOS_TO_ANY,
    compare,
    intervals,
    measured,
    ratios,
)
from simulator.predictions.align import AlignedAnswers, Lists, Ranked, matched
from simulator.predictions.parts import BadRowError, Block, NotGroupedError, Part, Reading, blocks, spilled, streamed
from simulator.predictions.read import ColumnNames, PredictionSource, Rows, arrow, mix, open_files, open_frame, row_of
from simulator.process import peak_memory
from simulator.result import Arm, Result, Slice
from simulator.types import Doubles, Ints

LAGS = (1, 2, 4, 8)
"""Refreshes between two generations of a duplicate that are compared."""
MAX_UNITS = 65_536
"""More users than this are counted in GROUPS groups: Resamples would group them anyway."""
GROUPS = 4_096
SLICE_GROUPS = 256
"""Groups of users within a value of --by."""
MAX_EVENTS = 1 << 24
"""Events held in memory, of all models and pairs together, for measures that are no sum over events."""
Key = tuple[Any, ...]


@dataclass(frozen=True)
class ArmModels:
    """The models of an arm; what a file calls its fleets, duplicates and generations is numbered in ascending order."""

    label: str
    generations: dict[int, Ints]
    """Refreshes before the newest generation (0: itself) -> numbers [F, R] of its models."""
    copies: int = 1
    """So many of the F in a row are models of one fleet, each compared with its own counterparts (`matched`): what was
    found of them is averaged, since they share an initialisation."""

    @property
    def shape(self) -> tuple[int, int]:
        """Independent fleets, and duplicates."""
        fleets, duplicates = self.generations[0].shape
        return fleets // self.copies, duplicates

    def by_fleet(self, values: Doubles) -> Doubles:
        """Of each of F [F, ...] -> of each independent fleet."""
        fleets: Doubles = values.reshape(-1, self.copies, *values.shape[1:]).mean(1)
        return fleets

    def pairings(self) -> Iterator[tuple[str, int, int, int, int]]:
        """(cause, fleet, number of the pair, model, model): all that is compared."""
        newest = self.generations[0]
        fleets, duplicates = newest.shape
        r, s = pair_index(duplicates)
        lags = [(lag, self.generations[lag]) for lag in LAGS if lag in self.generations]
        for f in range(fleets):
            for p, (a, b) in enumerate(zip(r, s, strict=True)):
                yield "swaps", f, p, newest[f, a], newest[f, b]
            for lag, older in lags:
                suffix = "swaps" if lag == 1 else f"lags.{lag}"
                for d in range(duplicates):
                    yield f"refresh_{suffix}", f, d, older[f, d], newest[f, d]
                for p, (a, b) in enumerate(zip([*r, *s], [*s, *r], strict=True)):
                    yield f"both_{suffix}", f, p, older[f, a], newest[f, b]


def designs(sources: Sequence[PredictionSource], matched: bool = False) -> list[ArmModels]:
    """Numbers the models of all sources, and arranges them as designs.

    Files without columns of MODEL are duplicates of one arm, `model`. An arm that several arguments hold is another arm
    each time (`relu`, `relu#2`) where they name the same models; `matched`: it is the same one, and what the arguments
    hold of a model are its duplicates. Raises DataError where duplicates are missing.
    """
    label = _matched_labels(sources) if matched else _labels(sources)
    numbers: dict[tuple[Any, ...], int] = {}
    for source in sources:
        keys = [(label[arm, source.argument], (fleet, 0), d, g) for arm, fleet, d, g in source.models]
        if matched:
            named = "duplicate" in source.columns
            keys = [(arm, (fleet, named and d), source.argument, g) for arm, (fleet, _), d, g in keys]
        source.numbers = [numbers.setdefault(key, len(numbers)) for key in keys]
    return [_design(arm, numbers) for arm in dict.fromkeys(key[0] for key in numbers)]


def _labels(sources: Sequence[PredictionSource]) -> dict[tuple[str, int], str]:
    """(arm, argument) -> label of the arm."""
    by_arm: dict[str, dict[int, set[tuple[Any, ...]]]] = defaultdict(lambda: defaultdict(set))
    for source in sources:
        for arm, *model in source.models:
            by_arm[arm][source.argument].add(tuple(model))
    label: dict[tuple[str, int], str] = {}
    for arm, arguments in by_arm.items():
        clash = sum(map(len, arguments.values())) > len(set().union(*arguments.values()))
        for copy, argument in enumerate(sorted(arguments)):
            label[arm, argument] = f"{arm}#{copy + 1}" if clash and copy else arm
    return label


def _matched_labels(sources: Sequence[PredictionSource]) -> dict[tuple[str, int], str]:
    """The same where arms are matched in their order: all are called as in the first argument."""
    by_argument: dict[int, dict[str, None]] = defaultdict(dict)
    for source in sources:
        by_argument[source.argument] |= dict.fromkeys(arm for arm, *_ in source.models)
    if len(by_argument) == 1:
        raise DataError("matched: one argument alone: give a second one, whose models were made in another way")
    first = next(iter(by_argument.values()))
    if mismatch := next((arms for arms in by_argument.values() if len(arms) != len(first)), None):
        raise DataError(
            f"matched: {', '.join(first)} in one argument, {', '.join(mismatch)} in another: give as many arms"
        )
    pairs = [((arm, n), name) for n, arms in by_argument.items() for arm, name in zip(arms, first, strict=True)]
    return dict(pairs)


def _design(arm: str, numbers: dict[tuple[Any, ...], int]) -> ArmModels:
    models = sorted((*key[1:], number) for key, number in numbers.items() if key[0] == arm)
    by_generation, newest_first = [], sorted({generation for _, _, generation, _ in models}, reverse=True)
    for newest in newest_first:
        fleets: dict[Any, list[int]] = defaultdict(list)
        for fleet, _, generation, number in models:
            if generation == newest:
                fleets[fleet].append(number)
        sizes = set(map(len, fleets.values()))
        if len(sizes) > 1:
            raise DataError(f"arm {arm}: its fleets have {min(sizes)} to {max(sizes)} duplicates: give as many of each")
        copies = Counter(fleet for fleet, _ in fleets)
        if len(set(copies.values())) > 1:
            raise DataError(f"arm {arm}: its fleets have other numbers of duplicates: give as many of each")
        by_generation.append(np.array(list(fleets.values())))
    if len({numbered.shape for numbered in by_generation}) > 1:
        raise DataError(f"arm {arm}: its generations hold different duplicates: give the same ones of each")
    counted = newest_first[0] - 1 in newest_first[1:]  # else they are numbered in some other way, such as by date
    lags = [newest_first[0] - g for g in newest_first] if counted else list(range(len(by_generation)))
    return ArmModels(arm, dict(zip(lags, by_generation, strict=True)), len(by_generation[0]) // len(copies))


class UserSums:
    """Sums per user of values that come by query or event; many users are counted in groups."""

    def __init__(self, groups: int = 0) -> None:
        self.groups = groups
        self.users = np.arange(groups)
        """[U] users with added values, or all groups; ascending."""
        self._held: dict[Key, tuple[Ints, Doubles]] = {}

    def add(self, key: Key, values: Doubles, user: Ints) -> None:
        """Add values [rows, n] of users [n]."""
        user = _group(user, self.groups) if self.groups else user
        known, sums = self._held.get(key, (user[:0], values[:, :0]))
        self._held[key] = _summed(np.concatenate([known, user]), np.concatenate([sums, values], axis=1))
        if self.groups:
            return
        self.users = np.union1d(self.users, self._held[key][0])
        if len(self.users) > MAX_UNITS:
            self.groups, self.users = GROUPS, np.arange(GROUPS)
            self._held = {key: _summed(_group(user, GROUPS), sums) for key, (user, sums) in self._held.items()}

    def keys(self) -> list[Key]:
        """All keys that something was added to."""
        return list(self._held)

    def of(self, key: Key, rows: int) -> Doubles:
        """Sums [rows, U]; 0 where nothing was added."""
        values = np.zeros((rows, len(self.users)))
        if key in self._held:
            user, sums = self._held[key]
            values[:, np.searchsorted(self.users, user)] = sums
        return values


def _group(user: Ints, groups: int) -> Ints:
    return (mix(user.view(np.uint64)) % np.uint64(groups)).astype(np.int64)


def _summed(user: Ints, values: Doubles) -> tuple[Ints, Doubles]:
    """Distinct users [u] of [n], ascending, and their sums [rows, u] of values [rows, n]."""
    users, place = np.unique(user, return_inverse=True)
    return users, sums_by_user(values, place, len(users))


class ComparisonSums:
    """All sums of a comparison, filled part by part."""

    def __init__(self, arms: Sequence[ArmModels], k: int, optional: Sequence[str], by: Sequence[str]) -> None:
        self.arms, self.k, self.by = arms, k, by
        self.predicted, self.labelled, self.roles = (name in optional for name in ("logit", "label", "event"))
        self.measures = measured(self.predicted)
        self.pairings = [(arm, *pairing) for arm in arms for pairing in arm.pairings()]
        self.qualities = {name: each for name, each in QUALITIES.items() if name != "ranking_loss" or self.predicted}
        self.sums = UserSums()
        self.slices: dict[tuple[str, int], UserSums] = defaultdict(lambda: UserSums(SLICE_GROUPS))
        """By column of --by and its value."""
        self.counts: Counter[str] = Counter()
        self.rows: Counter[int] = Counter()  # of each model
        self.graded = self.outside = self.shares = False
        self._events: dict[Key, list[tuple[Doubles, Doubles, Ints]]] = defaultdict(list)
        self._held = 0
        self.truncated = False

    def add(self, part: Part) -> None:
        """Add one part. Raises BadRowError."""
        ranked: dict[int, Lists] = {}
        events: dict[int, Lists] = {}
        for model, rows in part.items():
            self.rows[model] += len(rows["query"])
            inside = rows.get("event")
            if inside is None or not inside.any():
                ranked[model], events[model] = self._lists(rows, model), {}
            else:
                of_events = {name: column[inside] for name, column in rows.items() if name not in self.by}
                ranked[model] = self._lists({name: column[~inside] for name, column in rows.items()}, model)
                events[model] = self._lists(of_events, model)
        for arm, cause, fleet, pair, model1, model2 in self.pairings:
            key = (arm.label, cause, fleet, pair)
            counts = self.counts if cause == "swaps" or arm.shape[1] == 1 else Counter()
            for aligned in matched(ranked.get(model1, {}), ranked.get(model2, {}), self.k, counts):
                self._add_swaps(key, aligned, counts)
            if cause == "swaps" and self.predicted:
                for aligned in matched(events.get(model1, {}), events.get(model2, {}), self.k, Counter()):
                    self._add_differences(key, aligned, None)
        for arm in self.arms:
            for cell, number in np.ndenumerate(arm.generations[0]):
                for lists in ranked.get(int(number), {}).values():
                    self.counts["tied"] += int(lists.tied.sum())
                    if self.labelled:
                        self._add_qualities(arm.label, cell, lists)
                for lists in events.get(int(number), {}).values():
                    self._add_accuracy(arm.label, cell, lists.block)

    def _lists(self, rows: Any, model: int) -> Lists:
        try:
            return {n: Ranked(block, self.k) for n, block in blocks(rows).items()}
        except BadRowError as bad:
            raise BadRowError(bad.query, bad.item, bad.column, model) from None

    def _add_swaps(self, key: Key, aligned: AlignedAnswers, counts: Counter[str]) -> None:
        """Measures of the queries of one shape."""
        if not len(aligned.first.slates):
            return
        values = compare(aligned.first, aligned.second, self.measures)
        if aligned.rbo is not None:
            values[self.measures.index("rbo"), 0] = aligned.rbo
        counts["queries"] += len(aligned.first.slates)
        counts["pairs"] += aligned.first.items.size
        self._add(key, values.reshape(-1, values.shape[-1]), aligned.per_query)
        if key[1] == "swaps" and self.predicted and not self.roles and aligned.label is not None and aligned.label.size:
            self._add_differences(key, aligned, aligned.label)

    def _add(self, key: Key, values: Doubles, per_query: Rows) -> None:
        """Sums per user, and per value of the columns of --by."""
        self.sums.add(key, values, per_query["user"])
        for name in self.by:
            for value in np.unique(per_query[name]).tolist():
                mask = per_query[name] == value
                self.slices[name, value].add(key, values[:, mask], per_query["user"][mask])

    def _add_differences(self, key: Key, aligned: AlignedAnswers, label: Doubles | None) -> None:
        """Prediction difference of events, or of rows with a label [Q, N]."""
        arrays = aligned.first.scores, aligned.second.scores
        self._add_events((key[0], "pd", *key[2:]), pd_of_logits, arrays, label, aligned.per_query)

    def _add_events(self, key: Key, fn: Any, arrays: tuple[Any, Any], label: Doubles | None, per_query: Rows) -> None:
        """Sum up `fn` of the given arrays [Q, N] where there is a label, and keep them for what is no sum."""
        is_labelled = np.ones(arrays[0].shape, bool) if label is None else ~np.isnan(label)
        users = np.broadcast_to(per_query["user"][:, None], is_labelled.shape)[is_labelled]
        first, second = (array[is_labelled] for array in arrays)
        self.sums.add(key, np.stack([fn(first, second), np.ones(len(first))]), users)
        self._held += len(first)
        if self._held > MAX_EVENTS:
            self.truncated = True
        else:
            self._events[key].append((first, second, users))

    def _add_qualities(self, arm: str, place: Key, lists: Ranked) -> None:
        """QUALITIES of the rankings of one model, where a query has labels; an item without one is not relevant."""
        label = lists.block.columns["label"]
        which = np.flatnonzero(~np.isnan(label).all(axis=-1))
        if not len(which):
            return
        relevance, answers = np.nan_to_num(label[which]), lists.answers(which)
        self.graded |= bool(((relevance != 0) & (relevance != 1)).any())
        self.outside |= bool((relevance > 1).any())
        values = np.stack([np.stack(quality.fn(answers, relevance)) for quality in self.qualities.values()])
        self.sums.add((arm, "quality", *place), values.reshape(-1, len(which)), lists.block.per_query["user"][which])
        if not self.roles:
            self._add_accuracy(arm, place, lists.block)

    def _add_accuracy(self, arm: str, place: Key, block: Block) -> None:
        """Accuracy of the predictions of one model."""
        label, logit = block.columns.get("label"), block.columns.get("logit")
        if label is None or logit is None:
            return
        self.outside |= bool((label > 1).any())
        self.shares |= bool(((label > 0) & (label < 1)).any())
        self._add_events((arm, "log_loss", *place), ACCURACY["log_loss"].fn, (logit, label), label, block.per_query)

    def answered_queries(self, arm: ArmModels) -> int:
        """Queries that two models of an arm answered: the most of any two."""
        top1 = 2 * self.measures.index("top1") + 1
        keys = [key for key in self.sums.keys() if key[:2] == (arm.label, "swaps")]
        return int(max((self.sums.of(key, 2 * len(self.measures))[top1].sum() for key in keys), default=0))

    @cached_property
    def resamples(self) -> dict[tuple[int, int], Resamples]:
        """By the shape of an arm."""
        return {arm.shape: Resamples(*arm.shape, max(len(self.sums.users), 1)) for arm in self.arms}

    def estimates(self, arm: ArmModels) -> dict[str, Estimate]:
        """All estimates of an arm, under dotted names."""
        draws = self.resamples[arm.shape]
        by_name = self._swaps(self.sums, draws, arm)
        if arm.shape[1] > 1:
            by_name |= self._differences(arm, draws)
        by_name |= _estimates(self.sums, draws, arm, "quality", self.qualities)
        by_name |= _estimates(self.sums, draws, arm, "log_loss", ["log_loss"])
        left_out = self.left_out
        shape = arm.generations[0].shape
        cells: list[Key] = [(arm.label, "log_loss", *place) for place in np.ndindex(shape)]
        for name, accuracy in ACCURACY.items():
            if accuracy.aggregate and name not in left_out and self._events.keys() >= set(cells):
                values = np.array([float(accuracy.fn(*self._all(key)[:2])) for key in cells]).reshape(shape)
                if np.isfinite(values).all():
                    by_name[name] = draws.aggregates(arm.by_fleet(values))
        return {name: accuracy for name, accuracy in by_name.items() if name not in left_out}

    @property
    def left_out(self) -> set[str]:
        """Measures that such labels do not allow."""
        names = {name for name, quality in QUALITIES.items() if quality.binary and self.graded}
        names |= {"auc"} if self.shares else set()
        return names | ({"ranking_loss", *ACCURACY} if self.outside else set())

    def _all(self, key: Key) -> tuple[Doubles, Doubles, Ints]:
        first, second, users = (np.concatenate(column) for column in zip(*self._events[key], strict=True))
        return first, second, users

    def _differences(self, arm: ArmModels, draws: Resamples) -> dict[str, Estimate]:
        """DIFFERENCES; those that are no sums over events are of the events held in memory."""
        estimates = _estimates(self.sums, draws, arm, "pd", ["pd"])
        if not estimates or self.truncated:
            return estimates
        parts = [name for name in DIFFERENCES if name != "pd"]
        for key in [key for key in self._events if key[:2] == (arm.label, "pd")]:
            first, second, users = self._all(key)
            values = [row for name in parts for row in (DIFFERENCES[name].fn(first, second), np.ones(len(first)))]
            self.sums.add((arm.label, "pd_parts", *key[2:]), np.stack(values), users)
        return estimates | _estimates(self.sums, draws, arm, "pd_parts", parts)

    def _swaps(self, sums: UserSums, draws: Resamples, arm: ArmModels) -> dict[str, Estimate]:
        """MEASURES by cause."""
        estimates: dict[str, Estimate] = {}
        for cause in dict.fromkeys(cause for cause, *_ in arm.pairings()):
            of_cause = _estimates(sums, draws, arm, cause, self.measures)
            estimates |= {f"{cause}.{name}": estimate for name, estimate in of_cause.items()}
            if cause == "swaps":
                estimates |= {f"swaps_these.{name}": estimate.given_models() for name, estimate in of_cause.items()}
        return estimates

    def by_value(self, arm: ArmModels, words: dict[str, dict[int, str]]) -> dict[str, list[Slice]]:
        """Swap measures by the values of the columns of --by, the most frequent first."""
        draws = Resamples(*arm.shape, SLICE_GROUPS)
        by_column: dict[str, list[Slice]] = {name: [] for name in self.by}
        for (name, value), sums in self.slices.items():
            sums_of_pairs = [sums.of(key, 2 * len(self.measures)) for key in sums.keys() if key[0] == arm.label]
            queries = sum(float(one[1].sum()) for one in sums_of_pairs)
            by_column[name].append(Slice(words[name][value], queries, intervals(self._swaps(sums, draws, arm))))
        for name, slices in by_column.items():
            total = sum(one.share for one in slices) or 1.0
            ordered = sorted(slices, key=lambda one: (-one.share, one.value))
            by_column[name] = [replace(one, share=one.share / total) for one in ordered]
        return by_column


def _estimates(
    sums: UserSums, draws: Resamples, arm: ArmModels, kind: str, names: Collection[str]
) -> dict[str, Estimate]:
    """Of what was summed up under (arm, `what`, fleet, place): numerator and denominator of each of the names."""
    fleets, duplicates = arm.generations[0].shape
    r, s = pair_index(duplicates)
    estimate: Callable[[Doubles, Doubles], Estimate] = draws.models
    places = duplicates
    if kind.startswith(("swaps", "pd")):
        estimate, places = draws.pairs, len(r)
    elif kind.startswith("both"):
        ordered = np.concatenate([r, s]), np.concatenate([s, r])
        estimate, places = partial(draws.pairs, index=ordered), 2 * len(r)
    cells = [[sums.of((arm.label, kind, f, p), 2 * len(names)) for p in range(places)] for f in range(fleets)]
    parts = arm.by_fleet(np.reshape(cells, (fleets, places, len(names), 2, -1)))  # [fleets, P, names, 2, U]
    by_name = {}
    for number, name in enumerate(names):
        values, weights = parts[:, :, number, 0], parts[:, :, number, 1]
        if weights.any():
            by_name[name] = estimate(values, weights.mean(axis=1))
    return by_name


def compare_frames(frames: Sequence[Any], *, k: int = 10, matched: bool = False, **names: Any) -> Result:
    """`flicker.compare`: what differs between the predictions in frames, dicts of arrays, or files.

    Each of `frames` is a pandas or polars frame, an Arrow table, a dict of arrays, or a path. `matched`: each model is
    compared with the one of the same fleet and duplicate in the other frames, arms in their order. `names`: fields of
    ColumnNames, as in query="request_id", log_odds=True or by=("country",). Raises FlickerError, one line for the user.
    """
    if isinstance(by := names.get("by", ()), str):
        raise SettingError("by", repr(by), "several columns, as in by=['country']")
    called = ColumnNames(**names)
    if isinstance(frames, (str, os.PathLike)) or not isinstance(frames, Sequence) or not frames:
        given = "nothing" if isinstance(frames, Sequence) and not frames else type(frames).__name__
        raise SettingError("frames", given, "give several, as in compare([monday, tuesday])")
    if not isinstance(k, (int, np.integer)) or k < 1:
        raise SettingError("k", k, "a whole number of items, at least 1")
    sources: list[PredictionSource] = []
    for number, frame in enumerate(frames):
        if isinstance(frame, (str, os.PathLike)):
            sources += open_files([Path(frame)], called, number)
        else:
            sources.append(open_frame(frame, number, called))
    return compare_sources(sources, called, k, matched=matched)


def compare_sources(
    sources: Sequence[PredictionSource],
    names: ColumnNames,
    k: int = 10,
    temporary: Path | None = None,
    progress: Callable[[int | None], None] = lambda rows: None,
    log: Callable[[str], None] = lambda line: None,
    command: str = "",
    matched: bool = False,
) -> Result:
    """The Result with its costs, where slates are `k` long.

    `progress` is called with the number of further rows read, None where reading begins again, because files are not
    grouped by query; `log` with a line for the user. Raises DataError.
    """
    started, arms = time.monotonic(), designs(sources, matched)
    if not any(list(arm.pairings()) for arm in arms):
        raise DataError(f"{sources[0].name}: one model alone: give the predictions of a second one to compare it with")
    available = {
        "user": all(s.names.user in s.columns for s in sources),
        "label": any(s.names.label in s.columns for s in sources),
        "logit": all(s.log_odds or s.names.probability in s.columns for s in sources),
        "event": any(s.names.role in s.columns for s in sources),
    }
    optional = tuple(name for name, is_available in available.items() if is_available)
    reading = Reading(sources, names.by, optional, progress, log, temporary)
    for strategy in (streamed, spilled):
        tally = ComparisonSums(arms, k, optional, names.by)
        try:
            for part in strategy(reading):
                tally.add(part)
            break
        except NotGroupedError:
            progress(None)
        except BadRowError as bad:
            raise _bad_row(bad, sources) from None
    _refuse_without_overlap(tally, sources)
    estimates = {arm.label: tally.estimates(arm) for arm in arms}
    return Result(
        kind="compare",
        world={"name": "predictions", "queries": tally.answered_queries(arms[0])}
        | ({"users": len(tally.sums.users)} if available["user"] else {}),
        arms=[_arm(arm, arms, estimates, tally, reading.values) for arm in arms],
        notes=_notes(tally, arms, sources, optional) + (_matched_notes(sources) if matched else []),
        seconds=round(time.monotonic() - started, 2),
        peak_memory_bytes=peak_memory(),
        config={
            "predictions": [source.name for source in sources],
            "k": k,
            "columns": asdict(names),
            "fleets": min(arm.shape[0] for arm in arms),  # how many any interval covers
        },
        versions={"pyarrow": arrow().__version__},
        command=command,
    )


def _arm(
    arm: ArmModels,
    arms: Sequence[ArmModels],
    estimates: dict[str, dict[str, Estimate]],
    tally: ComparisonSums,
    words: Any,
) -> Arm:
    arm_estimates, base = estimates[arm.label], arms[0]
    others = [other for other in arms if other is not arm and other.shape == arm.shape]
    return Arm(
        spec=arm.label,
        measures=intervals(arm_estimates),
        ratios=ratios(arm_estimates, estimates[base.label], RATIOS) if base.shape == arm.shape else {},
        against={other.label: ratios(arm_estimates, estimates[other.label], RATIOS_TO_ANY) for other in others},
        by=tally.by_value(arm, words),
    )


def _bad_row(bad: BadRowError, sources: Sequence[PredictionSource]) -> DataError:
    places, written, holders = [], "", [source for source in sources if bad.model in source.numbers]
    for source in holders:
        rows, ids = row_of(source, bad.query, bad.item)
        places += [f"{source.name}: row {row:,}" for row in rows]
        written = ids or written
    if not bad.column:
        reason = "twice for one model: keep one row of an item and query"
        return DataError(f"{' and '.join(places[:2])}: {written} {reason}")
    column, hint = bad.column, "--by takes columns of queries, not of items"
    if column == "user":
        column, hint = holders[0].names.user, "a query is from one user"
    return DataError(f"{places[0]}: {written}: {column} is not that of the other items: {hint}")


def _refuse_without_overlap(tally: ComparisonSums, sources: Sequence[PredictionSource]) -> None:
    """DataError where nothing could be compared."""
    if tally.counts["pairs"] or any(key[1] == "pd" for key in tally.sums.keys()):
        return
    first, last, names = sources[0].name, sources[-1].name, sources[0].names
    for source in sources:
        if not any(tally.rows[number] for number in source.numbers):
            raise DataError(f"{source.name}: no rows: give predictions")
    if tally.counts["queries"]:
        raise DataError(f"{first}, {last}: no item in common ({names.item}): give scores of the same candidates")
    raise DataError(f"{first}, {last}: no query in common ({names.query}): give predictions for the same queries")


def _matched_notes(sources: Sequence[PredictionSource]) -> list[str]:
    note = "Each model is compared with the one of the same fleet and duplicate in the other arguments."
    renamed = {arm: new_name for (arm, _), new_name in _matched_labels(sources).items() if arm != new_name}
    return [note, *(f"{new_name}: compared with {arm} of another argument." for arm, new_name in renamed.items())]


def _notes(
    tally: ComparisonSums, arms: Sequence[ArmModels], sources: Sequence[PredictionSource], optional: Sequence[str]
) -> list[str]:
    """Notes that a reader should know before quoting a number."""
    counts, is_several = tally.counts, len(list(arms[0].pairings())) > 1 or len(arms) > 1
    suffix = ", summed over all pairs of models" if is_several else ""
    covers = tally.resamples[arms[0].shape].covers
    units = "" if "user" in optional else " (no column of users: each query is its own)"
    queries = f"{counts['queries']:,} {'query' if counts['queries'] == 1 else 'queries'} in common"
    if is_several:
        queries = f"{counts['queries']:,} answers compared{suffix}"
    scope = " of swaps; accuracy is over all that each model answered" if tally.labelled else ""
    answered = {arm.label: tally.answered_queries(arm) for arm in arms}
    answers = ", ".join(f"{arm} {number:,}" for arm, number in answered.items())
    renamed = [arm.label for arm in arms if "#" in arm.label]
    notes: list[tuple[object, str]] = [
        (True, f"{tally.rows.total():,} rows of {len(sources)} files; {queries}; slates of {tally.k}. "
               f"95 % intervals over {covers}{units}."),
        (counts["missing"], f"{counts['missing']:,} queries that only one of two models answered are left out{scope}"
                            f"{suffix}."),
        (counts["uneven"], f"{counts['uneven']:,} queries have other items in one list than in the other "
                           f"({counts['lone']:,} items): pair swaps are over the items that both scored{suffix}."),
        (counts["uneven"] and tally.labelled, "NDCG, recall and MRR are of each list's own items: they do not miss "
                                              "what a list lacks."),
        (len(set(answered.values())) > 1, f"Arms answered other queries ({answers}): their ratios compare other "
                                          "queries too. Give the same."),
        (counts["tied"], f"{counts['tied']:,} rankings hold equal scores: these stand in the order of their item ids."),
        (not tally.predicted, "No prediction difference: not every file has a column of probabilities, or scores in "
                              "log-odds."),
        (tally.truncated, f"AUC and calibration are of the first {MAX_EVENTS:,} predictions, which fitted into memory; "
                          "PD is not split in its parts."),
        (tally.outside, "Labels above 1 are grades: log loss, ranking loss, AUC and calibration are left out."),
        (tally.shares and not tally.outside, "Labels between 0 and 1 are true probabilities: AUC, which needs "
                                             "engagements, is left out."),
        (tally.predicted and tally.labelled, "Intervals of AUC and calibration cover duplicates (fleets), not users."),
        (renamed, f"{', '.join(renamed)}: the same models again, in a later argument."),
    ]  # fmt: skip
    return [text for applies, text in notes if applies]
