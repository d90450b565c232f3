"""What a model must beat to be worth advice: the base rate, the popularity of items, and a logistic regression.

They learn the events that the models learn, in the order of the log, without noise. numpy alone.

Shapes: n events, S slots, Q queries, N candidates, B = 3 baselines in the order of BASELINES.
"""

from __future__ import annotations

import numpy as np

from simulator.types import Batch, Doubles, Floats, Ints, Query, Rows, Schema

BASELINES = ("constant", "popularity", "logistic")
RATE = 0.2
"""Adagrad's step size: of 0.05, 0.1, 0.2 the one with the least log loss on MovieTweetings and on the made-up world."""
ACCUMULATOR = 0.00001
"""Adagrad's sum of squares at the start."""
PRIOR = 10.0
"""An item's rate of engagements counts so many events at the base rate besides its own."""


class Baselines:
    """`constant` predicts the rate of engagements so far, `popularity` the item's own (smoothed), `logistic` adds up
    one weight for each table row of the event."""

    def __init__(self, schema: Schema, items: int, batch: int) -> None:
        """`logistic` learns mini-batches of `batch` events; `items` as of World."""
        self._batch = batch
        self._counts: Doubles = np.zeros((2, items))  # engagements and events of each item
        self._weights: Doubles = np.zeros(schema.rows)  # row 0 is padding, and stands for the bias
        self._squares: Doubles = np.full(schema.rows, ACCUMULATOR)
        self._gradient: Doubles = np.zeros(schema.rows)

    def learn(self, chunk: Batch) -> None:
        """Learn from events in their order; each mini-batch is scored before it is learned."""
        for start in range(0, len(chunk), self._batch):
            part = chunk[start : start + self._batch]
            self._step(part)
        weight = 1.0 if chunk.weight is None else chunk.weight
        np.add.at(self._counts[0], chunk.item, chunk.label * weight)
        np.add.at(self._counts[1], chunk.item, weight)

    def score(self, features: Rows, item: Ints) -> Floats:
        """Log-odds [B, n] of events with table rows [n, S] and item numbers [n]; nothing is learned."""
        engagements, events = self._counts.sum(axis=1) + (1, 2)
        base = engagements / events
        own, seen = self._counts[:, item]
        rate = (own + PRIOR * base) / (seen + PRIOR)
        constant, popularity = (np.log(p / (1 - p)) for p in (np.full(len(item), base), rate))
        return np.stack([constant, popularity, self._logistic(features)]).astype(np.float32)

    def score_queries(self, queries: list[Query]) -> Floats:
        """Log-odds [B, Q, N] of the candidates of queries; what a query with fewer than others lacks is no number."""
        most = max(len(query.candidates) for query in queries)
        found = np.full((len(BASELINES), len(queries), most), np.nan, np.float32)
        for place, query in enumerate(queries):
            found[:, place, : len(query.candidates)] = self.score(query.features, query.candidates)
        return found

    def state(self) -> dict[str, Doubles]:
        """All that learning needs to go on from here."""
        return {"counts": self._counts, "weights": self._weights, "squares": self._squares}

    def restore(self, state: dict[str, Doubles]) -> None:
        """Go on from what `state` returned."""
        self._counts, self._weights, self._squares = (np.array(state[name]) for name in self.state())

    def _logistic(self, features: Rows) -> Doubles:
        """[n] sums of the weights; padding adds the bias once."""
        return np.asarray(np.where(features > 0, self._weights[features], 0).sum(axis=1) + self._weights[0])

    def _step(self, events: Batch) -> None:
        """Adagrad on the summed gradient of one mini-batch."""
        features = events.features
        error = 0.5 + 0.5 * np.tanh(self._logistic(features) / 2) - events.label
        error *= 1.0 if events.weight is None else events.weight
        touched = np.append(features.ravel(), 0)
        np.add.at(self._gradient, features, error[:, None])
        self._gradient[0] = error.sum()
        gradient = self._gradient[touched]  # a row stands here once for each event, always with the same new value
        self._squares[touched] = squares = self._squares[touched] + gradient**2
        self._weights[touched] -= RATE * gradient / np.sqrt(squares)
        self._gradient[touched] = 0
