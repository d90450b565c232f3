"""What a model must beat to be worth advice: the base rate, the popularity of items, of all time and recent, and a
logistic regression.

They learn the events that the models learn, in the order of the log, without noise and, as all measures do, without
weights. numpy alone.

Shapes: n events, S slots, Q queries, N candidates, B = 4 baselines in the order of BASELINES.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from simulator.types import Batch, Doubles, Floats, Ints, Query, Rows, Schema

BASELINES = ("constant", "popularity", "recent", "logistic")
RATE = 0.2
"""Adagrad's step size: of 0.05, 0.1, 0.2 the one with the least log loss on MovieTweetings and on the made-up world."""
ACCUMULATOR = 0.00001
"""Adagrad's sum of squares at the start."""
PRIOR = 10.0
"""An item's rate of engagements counts so many prior events at the base rate besides its own."""


class Baselines:
    """`constant` predicts the rate of engagements so far, `popularity` the item's own (smoothed), `recent` ranks by how
    many of the latest engagements an item has, as retrieval does: its log-odds are a line over ln(1 + count) that is
    learned, `logistic` adds up one weight for each table row of the event."""

    def __init__(self, schema: Schema, items: int, batch: int, recent: int) -> None:
        """Mini-batches of `batch` events are learned; `items` as of World; so many engagements are `recent`."""
        self._batch, self._recent = batch, recent
        self._latest: Ints = np.zeros(0, np.int64)  # items of the latest engagements
        self._line: Doubles = np.array([[0, 0], [ACCUMULATOR] * 2])  # bias and slope, and their squares
        self._counts: Doubles = np.zeros((3, items))  # engagements, events and latest engagements of each item
        self._weights: Doubles = np.zeros(schema.rows)  # row 0 is padding, and stands for the bias
        self._squares: Doubles = np.full(schema.rows, ACCUMULATOR)
        self._gradient: Doubles = np.zeros(schema.rows)

    def learn(self, chunk: Batch) -> None:
        """Learn from events in their order; each mini-batch is scored before it is learned."""
        for start in range(0, len(chunk), self._batch):
            part = chunk[start : start + self._batch]
            self._step(part.features, part.label)
            self._step_line(self._prominence(part.item), part.label)
            self._remember(part.item[part.label == 1])
        np.add.at(self._counts[0], chunk.item, chunk.label)
        np.add.at(self._counts[1], chunk.item, 1.0)

    def score(self, features: Rows, item: Ints) -> Floats:
        """Log-odds [B, n] of events with table rows [n, S] and item numbers [n]; nothing is learned."""
        engagements, events = self._counts[:2].sum(axis=1) + (1, 2)
        base = engagements / events
        clicked, events_of_item = self._counts[:2, item]
        rate = (clicked + PRIOR * base) / (events_of_item + PRIOR)
        constant, popularity = (np.log(p / (1 - p)) for p in (np.full(len(item), base), rate))
        recent = self._line[0, 0] + self._line[0, 1] * self._prominence(item)
        return np.stack([constant, popularity, recent, self._logistic(features)]).astype(np.float32)

    def score_queries(self, queries: list[Query]) -> Floats:
        """Log-odds [B, Q, N] of the candidates of queries; NaN behind the last of a query with fewer than others."""
        width = max(len(query.candidates) for query in queries)
        scores = np.full((len(BASELINES), len(queries), width), np.nan, np.float32)
        for place, query in enumerate(queries):
            scores[:, place, : len(query.candidates)] = self.score(query.features, query.candidates)
        return scores

    def state(self) -> dict[str, NDArray[Any]]:
        """All that learning needs to go on from here."""
        return {
            "counts": self._counts,
            "weights": self._weights,
            "squares": self._squares,
            "latest": self._latest,
            "line": self._line,
        }

    def restore(self, state: dict[str, NDArray[Any]]) -> None:
        """Go on from what `state` returned."""
        copies = (np.array(state[name]) for name in self.state())
        self._counts, self._weights, self._squares, self._latest, self._line = copies

    def _prominence(self, item: Ints) -> Doubles:
        """[n] ln(1 + how many of the latest engagements were with the item)."""
        return np.asarray(np.log1p(self._counts[2, item]))

    def _remember(self, engaged: Ints) -> None:
        """The items of the next engagements, in their order; the oldest are forgotten."""
        latest = np.append(self._latest, engaged)
        dropped, self._latest = np.split(latest, [max(0, len(latest) - self._recent)])
        np.add.at(self._counts[2], engaged, 1.0)
        np.add.at(self._counts[2], dropped, -1.0)

    def _step_line(self, rank: Doubles, label: Floats) -> None:
        """As `_step`, of bias and slope."""
        error = _sigmoid(self._line[0, 0] + self._line[0, 1] * rank) - label
        gradient = np.array([error.sum(), error @ rank])
        self._line[1] += gradient**2
        self._line[0] -= RATE * gradient / np.sqrt(self._line[1])

    def _logistic(self, features: Rows) -> Doubles:
        """[n] sums of the weights; padding adds the bias once."""
        return np.asarray(np.where(features > 0, self._weights[features], 0).sum(axis=1) + self._weights[0])

    def _step(self, features: Rows, label: Floats) -> None:
        """Adagrad on the summed gradient of one mini-batch."""
        error = _sigmoid(self._logistic(features)) - label
        touched = np.append(features.ravel(), 0)
        np.add.at(self._gradient, features, error[:, None])
        self._gradient[0] = error.sum()
        gradient = self._gradient[touched]  # a row stands here once for each event, always with the same new value
        self._squares[touched] = squares = self._squares[touched] + gradient**2
        self._weights[touched] -= RATE * gradient / np.sqrt(squares)
        self._gradient[touched] = 0


def _sigmoid(x: Doubles) -> Doubles:
    return np.asarray(0.5 + 0.5 * np.tanh(x / 2))
