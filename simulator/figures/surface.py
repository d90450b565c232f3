"""Figure 4: a slice of the loss surface of a small network, from ReLU to wide SmeLU, and how many local minima it has.

Nothing of a sweep goes in. A network with three hidden layers meets a few random events; its weights are moved from
their random start along two random directions, and the log loss is computed on a grid of such moves. One slice is
drawn; minima are counted on SLICES of them, each with a network, events and directions of its own.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import cache
from itertools import pairwise

import numpy as np
import torch
from numpy.typing import NDArray

from simulator.measures.intervals import Interval, Resamples, exact
from simulator.models.activations import activation
from simulator.randomness import generator
from simulator.report.charts import Axis, Figure, Line, Panel, Point, chart, contours
from simulator.types import Doubles
from simulator.words import label, number

BETAS = (0.0, 0.25, 0.5, 1.0, 2.0, 4.0)
DRAWN = (0.0, 2.0)
"""Settings whose surface is shown; the others are only counted."""
WIDTHS = (4, 8, 8, 8, 1)
"""Inputs, hidden layers, output."""
EVENTS, SLICES, GRID, REACH = 16, 16, 51, 1.0
"""Points of the grid each way; largest move, in units of a direction as long as the weights."""


@cache
def surfaces(beta: float) -> Doubles:
    """Log loss [SLICES, GRID, GRID] over both directions."""
    return np.stack([_slice(number, beta) for number in range(SLICES)])


def local_minima(values: NDArray[np.float64]) -> NDArray[np.int64]:
    """Places [n, 2] inside a grid [G, H] that lie below all eight neighbours."""
    inside = values[1:-1, 1:-1]
    lower = np.ones(inside.shape, bool)
    for i in (0, 1, 2):
        for j in (0, 1, 2):
            if (i, j) != (1, 1):
                lower &= inside < values[i : i + inside.shape[0], j : j + inside.shape[1]]
    return np.asarray(np.argwhere(lower) + 1)


def surface() -> Figure:
    """Figure 4."""
    counts = [[len(local_minima(one)) for one in surfaces(beta)] for beta in BETAS]
    means = [_mean(of) for of in counts]
    panels = [_contours(beta) for beta in DRAWN]
    points = [Point(exact(place), mean, key=f"beta={BETAS[place]:g}") for place, mean in enumerate(means)]
    panels.append(
        chart(
            "surface-minima",
            f"Local minima, mean of {SLICES} slices",
            [Line("local minima", points, 1)],
            Axis("beta", {float(place): f"{beta:g}" for place, beta in enumerate(BETAS)}),
            Axis("", zero=True),
        )
    )
    note = (
        "A network of three hidden layers without normalisation; dots are local minima of the slice. Computed here "
        "from fixed seeds; nothing of a sweep goes in."
    )
    return Figure(4, "surface", claim(means), panels, [], note)


def claim(means: Sequence[Interval]) -> str:
    """What the counts say, from ReLU (the first) to the widest SmeLU (the last)."""
    first, last = means[0], means[-1]
    figures = (
        f"{number(first.mean, 1)} local minima with ReLU, {number(last.mean, 1)} with SmeLU at beta = {BETAS[-1]:g}"
    )
    if last.high < first.low:
        steady = all(after.mean <= before.mean for before, after in pairwise(means))
        how = "with every step of beta" if steady else "though not with every step of beta"
        return f"The loss surface becomes smoother {how}: {figures}"
    return f"The loss surface does not clearly lose local minima: {figures}"


def _slice(number: int, beta: float) -> Doubles:
    """Log loss [GRID, GRID] of one slice."""
    draws = generator(0, "loss surface", number)
    shapes = list(pairwise(WIDTHS))
    start, first, second = (
        [draws.standard_normal((inputs + 1, outputs)) * np.sqrt(2 / inputs) for inputs, outputs in shapes]
        for _ in range(3)
    )
    events = draws.standard_normal((EVENTS, WIDTHS[0]))
    labels = torch.from_numpy((draws.random((EVENTS, 1)) < 0.5).astype(float))
    steps = torch.linspace(-REACH, REACH, GRID, dtype=torch.float64)
    a, b = (part.reshape(-1, 1, 1) for part in torch.meshgrid(steps, steps, indexing="ij"))
    function = activation(f"smelu:beta={beta:g}")
    x = torch.from_numpy(events).expand(GRID * GRID, -1, -1)
    for depth, parts in enumerate(zip(start, first, second, strict=True)):
        centre, one, other = (torch.from_numpy(part) for part in parts)
        weights = centre + a * one + b * other
        x = torch.baddbmm(weights[:, -1:], x, weights[:, :-1])
        x = function(x) if depth < len(shapes) - 1 else x
    loss = torch.nn.functional.binary_cross_entropy_with_logits(x, labels.expand_as(x), reduction="none")
    return np.asarray(loss.mean(dim=(1, 2)).reshape(GRID, GRID).numpy())


def _mean(counts: list[int]) -> Interval:
    """With its 95 % interval over the slices."""
    values = np.array(counts, np.float64)[None, None]
    return Resamples(1, 1, len(counts)).models(values, np.ones(len(counts))).interval()


def _contours(beta: float) -> Panel:
    """The first slice: darker is higher."""
    values = surfaces(beta)[0]
    steps = np.linspace(-REACH, REACH, GRID)
    minima = local_minima(values)
    name = f"surface-{beta:g}".replace(".", "-")
    drawing = contours(name, steps, values, steps[minima], ("move in direction 1", "in direction 2"))
    points = [(x, y, values[i, j]) for i, x in enumerate(steps) for j, y in enumerate(steps)]
    rows = [(name, "log loss", "", f"{x:.2f}", "", "", f"{y:.2f}", "", "", f"{z:.4f}") for x, y, z in points]
    spec = "relu" if beta == 0 else f"smelu:beta={beta:g}"
    heading = f"{label(spec)}: {len(minima)} local {'minimum' if len(minima) == 1 else 'minima'}"
    return Panel(name, heading, drawing, rows)
