"""The engine of compiled kernels: the built-in click model on a CPU, a chunk of a model in one call.

It knows the activations of kernels.py, no weight norm, no delayed gradients, no bfloat16: `refusal` says what an arm
asks that it cannot. Here alone threads may race (`noise.racing`): a call on one mini-batch is what each of them does.
Everything else is as in duplicates.py.
"""

from __future__ import annotations

import time
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional

from simulator.config import ModelConfig, NoiseConfig
from simulator.models.built_in import BuiltIn
from simulator.models.duplicates import Chunk, Weights
from simulator.models.engine import EngineName
from simulator.models.native import kernels
from simulator.models.native.kernels import NativeModel
from simulator.models.specs import Arm


class NativeEngine(BuiltIn):
    """The duplicates of one arm by compiled kernels."""

    name: EngineName = "native"

    def __init__(self, *arguments: Any, **options: Any) -> None:
        """See Duplicates. The settings are such that `refusal` is empty."""
        super().__init__(*arguments, **options)
        self._model = NativeModel(self.schema, self.model, self.layout, self.activation)

    def _score(self, models: slice, rows: Tensor, weights: Weights) -> Tensor:
        """See Duplicates: padded to whole mini-batches, which makes scores batch-invariant."""
        events = rows.shape[-2]
        padded = functional.pad(rows, (0, 0, 0, -events % self.model.batch))
        per_model = padded.expand(len(weights.dense), *padded.shape[-2:])
        return torch.stack([self._model.score(weights[k], per_model[k])[:events] for k in range(len(per_model))])

    def _learn(self, models: slice, chunk: Chunk) -> Tensor:
        """See Duplicates."""
        return self._race(models, chunk) if self.noise.config.racing else self._learn_in_turn(models, chunk)

    def _race(self, models: slice, chunk: Chunk) -> Tensor:
        """Hogwild: threads share the weights and Adagrad's sums of a model, and lock nothing. Each takes the next
        mini-batch when done with one. A number that two change at once keeps one of the changes, and a gradient may
        mix older and newer weights: which, the machine decides. It is over when the chunk is, so a state is whole.

        C++ does not define such a race; the loops that it is run in read and write whole floats, by plain loads and
        stores, on every processor that there is a build for."""
        parts = [chunk.mini_batch(number, self.model.batch) for number in range(chunk.lost.shape[1])]

        def learn(part: Chunk) -> tuple[Tensor, float]:
            start = time.thread_time()
            return self._learn_in_turn(models, part), time.thread_time() - start

        racing = self.noise.config.racing
        with ThreadPoolExecutor(racing, initializer=torch.set_num_threads, initargs=(1,)) as threads:
            logits, seconds = zip(*threads.map(learn, parts), strict=True)
        self._seconds[models] += sum(seconds)
        return torch.cat(logits, 1)

    def _learn_in_turn(self, models: slice, chunk: Chunk) -> Tensor:
        lost, learned, event_weights = torch.from_numpy(chunk.lost), [], chunk.event_weights
        for k, model in enumerate(range(models.start, models.stop)):
            weights, squares = self.weights[model], self.squares[model]
            weights_of_events = None if event_weights is None else event_weights[k]
            learned.append(
                self._model.learn(weights, squares, chunk.rows[k], chunk.targets[k], lost[k], weights_of_events)
            )
        return torch.stack(learned)


def refusal(arm: Arm, model: ModelConfig, noise: NoiseConfig, device: str) -> str:
    """Why this engine cannot teach an arm, in a few words; empty where it can."""
    if arm.own:
        return "it teaches no modules of your own"
    if device != "cpu":
        return f"it computes on a CPU, not on {device}"
    if model.norm == "weight":
        return "it has no norm = weight"
    if noise.delay or noise.precision != "float32":
        return "it has no delayed gradients" if noise.delay else f"it has no {noise.precision}"
    if noise.racing and arm.cure.coupled:
        return "its models learn from one another at each mini-batch, in turn"
    assert arm.activation
    if kernels.kernel_of(arm.activation) is None:
        return f"it has no kernel for {arm.activation.name}"
    return kernels.missing()
