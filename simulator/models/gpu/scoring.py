"""Rankers on a GPU: a pass scores a fixed number of queries on fixed buffers, so it is captured once and replayed.

Every pass over candidates that are padded alike has one shape, however many queries it answers: a GPU is as fast with
32 queries as with one, and a query's scores do not depend on who shares its pass. A refresh fills the buffers of a
generation that nobody holds any more, in place, so that what was captured on them stays valid.

Shapes: A arms, V table rows, D embedding length, P dense parameters, U users, I items, Q queries of a pass, N padded
candidates, C context slots, H width of the first hidden layer.
"""

from __future__ import annotations

import contextlib
import threading
import weakref
from collections.abc import Callable, Iterator

import numpy as np
import torch
from torch import Tensor

from simulator.config import ModelConfig
from simulator.models.activations import activation
from simulator.models.gpu.fused import check_device
from simulator.models.gpu.graphs import Capture, CudaGraphs, uncaptured
from simulator.models.gpu.layers import make_network
from simulator.models.gpu.transfer import upload
from simulator.models.network import Layout
from simulator.models.ranker import Ranker, rankers
from simulator.models.sides import Sides, check_tensors
from simulator.types import Floats, Ints, Rows, Schema, Side

MOST_QUERIES, LEAST_CANDIDATES, ROWS_PER_PASS = 32, 64, 32_768
"""A pass: at most so many queries, at least so many candidates of each, and at most so many pairs of them."""
ITEMS_AT_ONCE = 65_536
"""Items whose part of the first layer's product is computed in one go of a refresh."""


def pass_shape(candidates: int) -> tuple[int, int]:
    """Queries and candidates [Q, N] of a pass over so many candidates: N is the next power of two."""
    padded = max(LEAST_CANDIDATES, 1 << (candidates - 1).bit_length())
    return max(1, min(MOST_QUERIES, ROWS_PER_PASS // padded)), padded


def make_rankers(device: str) -> Callable[..., Ranker | GpuRanker]:
    """What makes the rankers of a device, with the arguments of `Ranker`. Raises SettingError where it is not there."""
    check_device(device)
    return GpuRankers(device) if device == "cuda" else rankers()


class GpuRankers:
    """Makes rankers as `Ranker` does, and uses the buffers of those that are no longer referred to again."""

    def __init__(self, device: str = "cuda", graphs: Callable[[], Capture] = CudaGraphs) -> None:
        """`graphs` makes what captures the passes over one set of buffers."""
        self._device, self._graphs = torch.device(device), graphs
        self._free: dict[object, list[Buffers]] = {}

    def __call__(
        self,
        schema: Schema,
        specs: list[str],
        model: ModelConfig,
        tensors: dict[str, Tensor],
        user_rows: Rows,
        item_rows: Rows,
    ) -> GpuRanker:
        """The arguments of `Ranker`. Raises ValueError as it does."""
        check_tensors(tensors, schema, model, len(specs))
        free = self._free.setdefault((schema, tuple(specs), model, user_rows.shape, item_rows.shape), [])
        capture = uncaptured if free or model.compile == "off" else self._graphs()
        buffers = free.pop() if free else Buffers(schema, specs, model, self._device, capture)
        buffers.load(tensors, user_rows, item_rows)
        ranker = GpuRanker(buffers)
        weakref.finalize(ranker, free.append, buffers).atexit = False
        return ranker


class GpuRanker:
    """Scores candidates with one duplicate of every arm at one generation; safe to call from several threads."""

    compiled = True
    """As of `Ranker`."""
    pairs_at_once = ROWS_PER_PASS
    """As of `Ranker`: a pass takes as long with one query as with all that it has room for."""

    def __init__(self, buffers: Buffers) -> None:
        self._buffers = buffers

    def scores(self, arm: int, users: Ints, context: Rows, items: Ints) -> Floats:
        """Log-odds [n, c] of candidates [n, c] for users [n] in contexts [n, C] (table rows); any n and c."""
        return self._buffers.scores(arm, users, context, items)


class Buffers:
    """One generation's weights and catalogue in tensors that stay where they are, and the passes captured on them."""

    def __init__(
        self, schema: Schema, specs: list[str], model: ModelConfig, device: torch.device, capture: Capture
    ) -> None:
        self._layout, self._network = Layout(schema, model), make_network(model, device)
        self._sides, self._device, self._capture = Sides(schema, model), device, capture
        self._context = sum(field.slots for field in schema.fields if field.side == "context")
        self._embedding = torch.zeros(len(specs), schema.rows, model.dim, device=device)
        self._dense = torch.zeros(len(specs), self._layout.length, device=device)
        self._weights = [self._layout.views(self._dense[arm : arm + 1]) for arm in range(len(specs))]
        self._segments = [[(activation(spec), slice(0, 1))] for spec in specs]
        self._user_rows = self._item_rows = torch.empty(0, 0, dtype=torch.int64, device=device)
        self._items: list[Tensor] = []
        self._passes: dict[tuple[int, int], Pass] = {}
        self._lock = threading.Lock()
        self._loading: torch.cuda.Stream | None = None
        if device.type == "cuda":
            self._loading = torch.cuda.Stream(device)  # type: ignore[no-untyped-call]

    def load(self, tensors: dict[str, Tensor], user_rows: Rows, item_rows: Rows) -> None:
        """Take in another generation of the same shapes, beside whatever else the GPU does; returns when it is in."""
        if not self._items:
            self._user_rows = torch.zeros(user_rows.shape, dtype=torch.int64, device=self._device)
            self._item_rows = torch.zeros(item_rows.shape, dtype=torch.int64, device=self._device)
            width = self._weights[0]["bias0"].shape[1]
            self._items = [torch.zeros(len(item_rows), width, device=self._device) for _ in self._weights]
        with self._lock, self._beside():
            self._embedding.copy_(upload(tensors["embedding"], self._device))
            self._dense.copy_(upload(tensors["dense"], self._device))
            self._user_rows.copy_(upload(torch.from_numpy(user_rows), self._device))
            self._item_rows.copy_(upload(torch.from_numpy(item_rows), self._device))
            for arm, items in enumerate(self._items):
                for start in range(0, len(items), ITEMS_AT_ONCE):
                    part = slice(start, start + ITEMS_AT_ONCE)
                    items[part].copy_(self._part(arm, "item", self._item_rows[part]))

    def scores(self, arm: int, users: Ints, context: Rows, items: Ints) -> Floats:
        """As `GpuRanker.scores`; one pass after the other."""
        queries, padded = pass_shape(items.shape[1])
        found = np.empty(items.shape, np.float32)
        with self._lock:
            if (arm, padded) not in self._passes:
                self._passes[arm, padded] = Pass(self, arm, (queries, padded), self._capture)
            score = self._passes[arm, padded]
            for start in range(0, len(users), queries):
                part = slice(start, start + queries)
                found[part] = score(users[part], context[part], items[part])
        return found

    def asked(self, queries: int, candidates: int) -> Tensor:
        """Room for questions: user, context and candidates in a row [Q, 1 + C + N]."""
        return torch.zeros(queries, 1 + self._context + candidates, dtype=torch.int64, device=self._device)

    def logits(self, arm: int, asked: Tensor) -> Tensor:
        """Log-odds [Q, N] for questions as of `asked`."""
        users, context, items = asked[:, 0], asked[:, 1 : 1 + self._context], asked[:, 1 + self._context :]
        query = self._part(arm, "user", self._user_rows.index_select(0, users))
        query = query + self._part(arm, "context", context)  # [Q, H]
        product = self._items[arm].index_select(0, items.flatten()).view(*items.shape, -1).add_(query.unsqueeze(1))
        flat = product.flatten(0, 1).unsqueeze(0)
        return self._network.forward_from(flat, self._weights[arm], self._segments[arm]).view(items.shape)

    def _part(self, arm: int, side: Side, rows: Tensor) -> Tensor:
        """[n, H] what the fields of one side, with table rows [n, slots], add to the first layer's product."""
        return self._sides.part(side, rows, self._embedding[arm], self._network.weight(0, self._weights[arm])[0])

    @contextlib.contextmanager
    def _beside(self) -> Iterator[None]:
        """On a stream of its own, which begins when the memory is free and is waited for at the end."""
        if self._loading is None:
            yield
            return
        self._loading.wait_stream(torch.cuda.current_stream(self._device))
        with torch.cuda.stream(self._loading):
            yield
        self._loading.synchronize()


class Pass:
    """One arm's pass over questions of one shape: copied in from pinned memory, scored by a replay, copied out."""

    def __init__(self, buffers: Buffers, arm: int, shape: tuple[int, int], capture: Capture) -> None:
        self._asked = buffers.asked(*shape)
        self._scores = torch.zeros(shape, device=self._asked.device)
        on_gpu = self._asked.is_cuda
        self._question = torch.zeros(self._asked.shape, dtype=torch.int64, pin_memory=on_gpu)
        self._answer = torch.zeros(shape, pin_memory=on_gpu)

        def score() -> None:
            self._scores.copy_(buffers.logits(arm, self._asked))

        self._replay = capture(score)

    def __call__(self, users: Ints, context: Rows, items: Ints) -> Floats:
        """Scores [n, c] of candidates [n, c] for at most Q queries; valid until the next call.

        What stands beside the question in its buffer is of earlier ones: valid numbers, whose scores nobody reads.
        """
        queries, candidates = items.shape
        question, first = self._question.numpy(), 1 + context.shape[1]
        question[:queries, 0] = users
        question[:queries, 1:first] = context
        question[:queries, first : first + candidates] = items
        self._asked.copy_(self._question, non_blocking=True)
        self._replay()
        self._answer.copy_(self._scores, non_blocking=True)
        if self._asked.is_cuda:
            torch.cuda.current_stream(self._asked.device).synchronize()
        answer: Floats = self._answer.numpy()[:queries, :candidates]
        return answer
