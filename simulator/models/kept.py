"""Second weights that an arm's cure keeps beside the stack's: of the previous generation, or those that learn.

Shapes as in network.py and duplicates.py; n events of a chunk.
"""

from __future__ import annotations

import torch
from torch import Tensor

from simulator.models.cures import Anchor, Average, Cure, mixed
from simulator.models.duplicates import Duplicates
from simulator.models.lessons import Lesson
from simulator.models.native_learning import Weights

EVENTS_PER_PASS = 2_048


class Kept:
    """For every arm with a cure of one kind, a second set of weights of its models."""

    kind: type[Cure]

    def __init__(self, stack: Duplicates) -> None:
        self.stack = stack
        self.weights: dict[int, Weights] = {}
        """Number of the arm -> dense [m, P], table [m, V, D] of its models."""

    def copy(self) -> None:
        """Keep the weights that the stack holds now."""
        for number, arm in enumerate(self.stack.arms):
            if isinstance(arm.cure, self.kind):
                own = self.stack.models(number)
                self.weights[number] = Weights(self.stack.dense[own].clone(), self.stack.embedding[own].clone())

    def octets(self, number: int) -> int:
        """Bytes that are kept for each model of an arm."""
        own = self.weights.get(number)
        return own.dense[0].nbytes + own.table[0].nbytes if own else 0

    def state(self) -> dict[str, Tensor]:
        """All of it, as named tensors."""
        name = self.kind.__name__.lower()
        found: dict[str, Tensor] = {}
        for number, weights in self.weights.items():
            found |= {f"{name}.{number}.dense": weights.dense, f"{name}.{number}.embedding": weights.table}
        return found

    def restore(self, state: dict[str, Tensor]) -> None:
        """Go on from what `state` returned."""
        name, device = self.kind.__name__.lower(), self.stack.device
        for number in range(len(self.stack.arms)):
            if f"{name}.{number}.dense" in state:
                parts = (state[f"{name}.{number}.{part}"].to(device, copy=True) for part in ("dense", "embedding"))
                self.weights[number] = Weights(*parts)

    def score(self, slab: slice, rows: Tensor, weights: Weights | None = None) -> Tensor:
        """Log-odds [m, n] of events with table rows [n, S], by the stack's or other weights of a slab."""
        passes = torch.split(rows, EVENTS_PER_PASS)
        return torch.cat([self.stack.logits(slab, part[None], weights) for part in passes], 1)


class Anchors(Kept):
    """The previous generation of arms that learn from it: `copy` whenever there is a new one."""

    kind = Anchor

    def targets(self, slab: slice, rows: Tensor, lesson: Lesson) -> Tensor:
        """What the models of a slab learn towards [m, n], in their order: the labels, or these and the predictions."""
        targets = lesson.targets
        for number, mine, own in self.stack.shares(slab):
            if number in self.weights:
                cure, weights = self.stack.arms[number].cure, self.weights[number]
                assert isinstance(cure, Anchor)
                before = Weights(weights.dense[own], weights.table[own])
                logits = self.score(_moved(mine, slab.start), rows, before)
                predicted = torch.sigmoid(logits).gather(1, lesson.order[mine])
                targets[mine] = mixed(targets[mine], predicted, cure.weight)
        return targets


class Averages(Kept):
    """The weights that learn, of arms that serve their running average.

    Between chunks the stack holds the average, which is what others see, and the weights that learn are kept here;
    while a chunk is learned it is the other way round.
    """

    kind = Average

    def __init__(self, stack: Duplicates) -> None:
        super().__init__(stack)
        self.copy()

    def begin(self, slab: slice, rows: Tensor) -> Tensor | None:
        """Put the weights that learn in their place; the average's log-odds [m, n] of a chunk, None where none is."""
        if not self._among(slab):
            return None
        logits = self.score(slab, rows)
        self._exchange(slab)
        return logits

    def end(self, slab: slice, logits: Tensor, served: Tensor | None, lesson: Lesson) -> Tensor:
        """Bring the average up to date and back into its place; the log-odds [m, n] of what was served."""
        if served is None:
            return logits
        self._exchange(slab)
        for number, mine, own in self._among(slab):
            cure, learned = self.stack.arms[number].cure, self.weights[number]
            assert isinstance(cure, Average)
            share, models = cure.share(lesson.chunk + 1), _moved(mine, slab.start)
            self.stack.dense[models].lerp_(learned.dense[own], share)
            self.stack.embedding[models].lerp_(learned.table[own], share)
            logits[mine] = served[mine]
        return logits

    def _among(self, slab: slice) -> list[tuple[int, slice, slice]]:
        return [share for share in self.stack.shares(slab) if share[0] in self.weights] if self.weights else []

    def _exchange(self, slab: slice) -> None:
        for number, mine, own in self._among(slab):
            weights, models = self.weights[number], _moved(mine, slab.start)
            for here, there in (
                (self.stack.dense[models], weights.dense[own]),
                (self.stack.embedding[models], weights.table[own]),
            ):
                held = here.clone()
                here.copy_(there)
                there.copy_(held)


def _moved(part: slice, by: int) -> slice:
    return slice(part.start + by, part.stop + by)
