"""The engine of modules of your own: autograd and their optimiser, on a CPU as many at a time as there are threads.

Without an optimiser of its own a module learns by Adagrad, as the built-in model does; its embeddings then have sparse
gradients, which is the same arithmetic at a fraction of the cost: where a gradient is 0, Adagrad changes nothing.

Parameters are views of what the engine holds for all models [M, ...]; a model's are aligned alike in memory, so that
equal models round alike. Shapes as in engine.py.
"""

from __future__ import annotations

import logging
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from simulator.config import require
from simulator.errors import ResultError, SettingError
from simulator.models.engine import Chunk, Engine, EngineName, Weights, tensors_of
from simulator.models.factories import blame
from simulator.models.noise import ModelIdentity, round_to_bfloat16
from simulator.models.own import (
    BLOCK,
    RANDOM,
    ROUNDING,
    Maker,
    NewModule,
    generator_states,
    seed_all,
    seeded,
    tensors_of_module,
)
from simulator.randomness import generator
from simulator.types import Batch, Floats

log = logging.getLogger("engine")
ALIGNED = 64
"""Bytes: as PyTorch aligns tensors."""
NUMBER_SUFFIX = "#number"
"""Suffix of the name of an optimiser's entry that is a plain number."""
LATE_DRAWS = (
    "it draws random numbers, but did not in its first chunk: the numbers of this run will not repeat to the last bit"
)


@dataclass
class PendingGradients:
    """A mini-batch's gradients, of the trainable parameters that have one."""

    gradients: list[Tensor | None]
    due: int
    """The step at which they are applied: their own, or later where updates are delayed."""


@dataclass
class TrainedModel:
    """One model, its optimiser, and the gradients that wait."""

    module: nn.Module
    optimizer: torch.optim.Optimizer
    trained: list[nn.Parameter]
    frozen: list[nn.Module]
    """Parts that the factory has put into evaluation mode: they stay in it."""
    waiting: list[PendingGradients] = field(default_factory=list)

    def train(self) -> None:
        """Into training mode."""
        self.module.train()
        for part in self.frozen:
            part.training = False


class CustomEngine(Engine):
    """The duplicates of one arm whose model is a module of the user's."""

    name: EngineName = "torch"
    query_block = BLOCK

    def __init__(self, *arguments: Any, **options: Any) -> None:
        """See Engine. Raises SettingError for what is wrong with the module or its factory."""
        torch.sparse.check_sparse_tensor_invariants.disable()  # type: ignore[no-untyped-call]  # else it warns
        self._models: list[TrainedModel] = []
        self._draws: bool | None = None
        """Whether learning draws from global generators: then one model learns at a time. Set by the first chunk."""
        self._modes: bool | None = None
        """Whether modules predict otherwise while they learn (dropout, batch normalisation). Set by the first chunk."""
        self._traits: set[str] = set()
        """Which of the two the first chunk showed: `draws`, `modes`."""
        super().__init__(*arguments, **options)
        rate = self._models[0].optimizer.param_groups[0]["lr"]  # an optimiser of the user's has its own
        self.model = replace(self.model, learning_rate=float(rate))

    def _allocate(self) -> Weights:
        assert self.arm.own
        self.maker = Maker(self.schema, self.arm.own, self.device)
        sample = self.maker.make(0)
        self.replaced = sample.replaced
        self.identity: Mapping[str, Any] = self.maker.identity(sample.module)
        self._try_step(sample)
        return Weights({name: self._allocated(tensor) for name, tensor in tensors_of_module(sample.module).items()})

    def _try_step(self, sample: NewModule) -> None:
        """One step of a module that is not used further: errors of learning must show before a long run."""
        parameters = dict(sample.module.named_parameters())
        trained = {name: parameter for name, parameter in parameters.items() if parameter.requires_grad}
        optimizer = sample.optimizer or self._adagrad(sample.module, list(trained.values()))
        model = TrainedModel(sample.module, optimizer, list(trained.values()), sample.frozen)
        rows = self.maker.any_rows()
        with RANDOM, seeded(0):
            self._gradients(model, rows, torch.zeros(len(rows), device=self.device), 0, False)
            self._require_trained(trained, optimizer if sample.optimizer else None)
            self._apply(model, 0, [])
        hint = "its optimiser has no learning rate (`lr` of its groups)"
        require("lr" in optimizer.param_groups[0], "arms", self.maker.custom.spec, hint)
        self._state_of(0, optimizer)

    def _require_trained(self, trained: dict[str, nn.Parameter], optimizer: torch.optim.Optimizer | None) -> None:
        """Warn of parameters that do not learn; SettingError where none of them does, which looks like a cure."""
        groups = optimizer.param_groups if optimizer else []
        held = {id(parameter) for group in groups for parameter in group["params"]}
        without = [name for name, parameter in trained.items() if parameter.grad is None]
        left_out = [name for name, parameter in trained.items() if optimizer and id(parameter) not in held]
        for names, if_all in (
            (without, "the log-odds depend on none of its parameters"),
            (left_out, "its optimiser holds none of its parameters"),
        ):
            if trained and len(names) == len(trained):
                raise SettingError("arms", self.maker.custom.spec, f"nothing of it learns: {if_all}")
        for names, reason in (
            (without, "the log-odds do not depend on them"),
            (left_out, "its optimiser leaves them out"),
        ):
            if names:
                log.warning("%s: not trained, for %s: %s", self.arm.label, reason, ", ".join(names))

    def _allocated(self, like: Tensor) -> Tensor:
        """[M, ...] memory for a tensor `like` this one of each model."""
        step = -(-like.nbytes // ALIGNED) * ALIGNED // like.itemsize
        room = torch.zeros(len(self), step, dtype=like.dtype, device=self.device)
        return room[:, : like.numel()].view(len(self), *like.shape)

    def initialise(self, anew: int = 0) -> None:
        """See Engine."""
        made = [self.maker.make(self._seed_of("make", member, anew)) for member in self.members]
        self._models = [self._model(number, new) for number, new in enumerate(made)]
        if self.noise.config.precision == "bfloat16":
            for parameter in (new for model in self._models for new in model.trained):
                parameter.data.copy_(parameter.data.bfloat16())

    def _seed_of(self, purpose: str, member: ModelIdentity, *index: int) -> int:
        """A seed, the same for the duplicates of a fleet unless `noise.init` is `own`."""
        duplicate = [member.duplicate] if self.noise.config.init == "own" else []
        identity = member.copy, member.fleet, member.part, *index, *duplicate
        return int(generator(self._seed, purpose, *identity).integers(2**63))

    def _model(self, number: int, new: NewModule) -> TrainedModel:
        tensors, parameters = self.weights[number].tensors, dict(new.module.named_parameters())
        for name, tensor in tensors_of_module(new.module).items():
            tensors[name].copy_(tensor.detach())
            if name in parameters:
                parameters[name].data = tensors[name]
        self._keep(number, new.module)
        trained = [parameter for parameter in parameters.values() if parameter.requires_grad]
        optimizer = new.optimizer or self._adagrad(new.module, trained)
        if new.optimizer is not None and "learning_rate" in self.arm.settings:
            for group in optimizer.param_groups:
                group["lr"] = self.model.learning_rate
        if self.device.type != "cpu":
            optimizer.load_state_dict(optimizer.state_dict())  # which was made on the CPU
        return TrainedModel(new.module, optimizer, trained, new.frozen)

    def _adagrad(self, module: nn.Module, trained: list[nn.Parameter]) -> torch.optim.Optimizer:
        for part in module.modules():
            if isinstance(part, nn.Embedding | nn.EmbeddingBag) and not part.scale_grad_by_freq:
                part.sparse = getattr(part, "mode", "") != "max"
        rate, accumulator = self.model.learning_rate, self.model.initial_accumulator
        # of nothing to train an optimiser cannot be made
        return torch.optim.Adagrad(trained or [torch.zeros(1)], rate, initial_accumulator_value=accumulator)

    def _keep(self, number: int, module: nn.Module) -> None:
        """A module may change a buffer in place or replace it, and so may its optimiser with parameters:
        their present values are copied to the engine's tensors."""
        tensors = self.weights[number].tensors
        for name, parameter in module.named_parameters():
            if parameter.data_ptr() != tensors[name].data_ptr():
                parameter.data = tensors[name].copy_(parameter.data)
        for path, part in module.named_modules():
            for name, buffer in part.named_buffers(recurse=False):
                held = tensors.get(f"{path}.{name}" if path else name)
                if held is not None and held.data_ptr() != buffer.data_ptr():
                    with blame(self.maker.custom.factory, f"its buffer {name}"):
                        setattr(part, name, held.copy_(buffer))

    @property
    def parameters(self) -> int:
        """See Engine."""
        return sum(parameter.numel() for parameter in self._models[0].trained)

    def _score(self, models: slice, rows: Tensor, weights: Weights) -> Tensor:
        rows, scores = rows.expand(len(self.members[models]), *rows.shape[-2:]), []
        for k, model in enumerate(self._models[models]):
            with _borrowing(model.module, weights[k].tensors):
                scores.append(self.maker.scores(model.module, rows[k]))
        return torch.stack(scores)

    def _learn_chunk(self, chunk: Batch) -> Floats:
        states = self._states_if_free() if self._draws is False else None
        logits = super()._learn_chunk(chunk)
        if self._draws is None:
            self._draws, self._modes = "draws" in self._traits, "modes" in self._traits
        elif states and states != (self._states_if_free() or states):
            self._draws = True
            log.warning("%s: %s", self.arm.label, LATE_DRAWS)
        return logits

    def _states_if_free(self) -> list[Any] | None:
        """States of the global generators; None while another thread draws from them."""
        if not RANDOM.acquire(blocking=False):
            return None
        try:
            return generator_states()
        finally:
            RANDOM.release()

    def _learn(self, models: slice, chunk: Chunk) -> Tensor:
        numbers = range(len(self))[models]
        return torch.stack([self._learn_one(number, chunk[k : k + 1]) for k, number in enumerate(numbers)])

    def _learn_one(self, number: int, chunk: Chunk) -> Tensor:
        if self._draws is False:
            return self._steps(number, chunk)
        with RANDOM, seeded(0):
            return self._steps(number, chunk)

    def _steps(self, number: int, chunk: Chunk) -> Tensor:
        """Log-odds [n] given to each event before it is learned, mini-batch by mini-batch."""
        model, batch, logits = self._models[number], self.model.batch, []
        first = chunk.number * (self.chunk_events // batch) + chunk.step
        parts = zip(torch.split(chunk.rows[0], batch), torch.split(chunk.targets[0], batch), strict=True)
        weights = None if chunk.event_weights is None else torch.split(chunk.event_weights[0], batch)
        for step, (rows, targets) in enumerate(parts):
            # in evaluation mode, as it serves
            served = None if self._modes is False else self.maker.scores(model.module, rows)
            due = first + step + int(chunk.delays[0, step])
            with self._seeded_step(number, first + step):
                weight = None if weights is None else weights[step]
                logits_given = self._gradients(model, rows, targets, due, bool(chunk.lost[0, step]), weight)
            if served is not None and not torch.allclose(served, logits_given, rtol=ROUNDING, atol=ROUNDING):
                self._traits.add("modes")
            logits.append(logits_given if served is None else served)
            self._apply(model, first + step, chunk.rounding)
        self._keep(number, model.module)
        return torch.cat(logits)

    @contextmanager
    def _seeded_step(self, number: int, step: int) -> Iterator[None]:
        """Draws of a mini-batch follow from its number alone: a resumed run draws the same."""
        if self._draws is False:
            yield
            return
        seed_all(self._seed_of("draws", self.members[number], step))
        states = generator_states() if self._draws is None else []
        yield
        if states and generator_states() != states:
            self._traits.add("draws")

    def _gradients(
        self, model: TrainedModel, rows: Tensor, targets: Tensor, due: int, lost: bool, weight: Tensor | None = None
    ) -> Tensor:
        """Log-odds [B] of a mini-batch as the module gives them while it learns; its gradients wait."""
        model.train()
        logits = self.maker.forward(model.module, rows)
        detached = logits.detach()
        if lost or not logits.requires_grad:
            return detached
        for parameter in model.trained:
            parameter.grad = None
        # each event weighs 1 / batch, also in a shorter mini-batch at the end, whose few events would shake the model
        gradient = (torch.sigmoid(detached) - targets) / self.model.batch
        with blame(self.maker.custom.factory, "its gradient"):
            torch.autograd.backward(logits, gradient if weight is None else gradient * weight)
        model.waiting.append(PendingGradients([parameter.grad for parameter in model.trained], due))
        return detached

    def _apply(self, model: TrainedModel, step: int, rounding: list[np.random.Generator]) -> None:
        """Apply the gradients that are due by now."""
        due = [pending for pending in model.waiting if pending.due <= step]
        model.waiting = [pending for pending in model.waiting if pending.due > step]
        for gradients in due:
            for parameter, gradient in zip(model.trained, gradients.gradients, strict=True):
                parameter.grad = gradient
            with blame(self.maker.custom.factory, "a step of its optimiser"):
                model.optimizer.step()
            for parameter in model.trained if rounding else ():
                parameter.data.copy_(round_to_bfloat16(parameter.data, rounding[0]))

    def _optimiser(self) -> dict[str, Tensor]:
        """See Engine: `optimiser.MODEL.PARAMETER.NAME`, and gradients that wait."""
        first_chunk = [-1 if trait is None else int(trait) for trait in (self._draws, self._modes)]
        tensors = {"first_chunk": torch.tensor(first_chunk)}
        for number, model in enumerate(self._models):
            tensors |= self._state_of(number, model.optimizer)
            for position, pending in enumerate(model.waiting):
                tensors[f"pending.{number}.{position}.due"] = torch.tensor([pending.due])
                for index, gradient in enumerate(pending.gradients):
                    tensors |= _gradient_entry(f"pending.{number}.{position}.{index}", gradient)
        return tensors

    def _state_of(self, number: int, optimizer: torch.optim.Optimizer) -> dict[str, Tensor]:
        """The state of a model's optimiser. Raises SettingError for entries that cannot be saved."""
        tensors: dict[str, Tensor] = {}
        for place, values in optimizer.state_dict()["state"].items():
            for key, value in values.items():
                name = f"optimiser.{number}.{place}.{key}"
                if isinstance(value, Tensor) and value.layout is torch.strided:
                    tensors[name] = value
                elif isinstance(value, bool | int | float):
                    tensors[f"{name}{NUMBER_SUFFIX}"] = torch.tensor(value, dtype=torch.float64)
                elif value is not None:
                    kind = "sparse Tensor" if isinstance(value, Tensor) else type(value).__name__
                    hint = f"its optimiser keeps {key} = a {kind}, which cannot be saved: use another"
                    raise SettingError("arms", self.arm.spec, hint)
        return tensors

    def state(self) -> dict[str, Tensor]:
        """See Engine: with the digest of the module's source."""
        return super().state() | {"source": self._source()}

    def restore(self, state: dict[str, Tensor]) -> None:
        """See Engine."""
        shapes = {name: tensor.shape for name, tensor in tensors_of(state, "weights").items()}
        expected = {name: tensor.shape for name, tensor in self.weights.tensors.items()}
        if shapes != expected or not torch.equal(state.get("source", torch.empty(0)), self._source()):
            hint = f"saved with another source of {self.maker.custom.factory}: go on with that one, or start anew"
            raise ResultError(f"{self.arm.label}: {hint}")
        super().restore(state)

    def _source(self) -> Tensor:
        return torch.frombuffer(bytearray.fromhex(self.identity["source"]), dtype=torch.uint8)

    def _restore_optimiser(self, state: dict[str, Tensor]) -> None:
        self._draws, self._modes = (None if trait < 0 else bool(trait) for trait in state["first_chunk"].tolist())
        for number, model in enumerate(self._models):
            values: dict[int, dict[str, Any]] = {}
            for name, tensor in tensors_of(state, f"optimiser.{number}").items():
                place, _, key = name.partition(".")
                value = tensor.item() if key.endswith(NUMBER_SUFFIX) else tensor.clone()
                values.setdefault(int(place), {})[key.removesuffix(NUMBER_SUFFIX)] = value
            groups = model.optimizer.state_dict()["param_groups"]
            model.optimizer.load_state_dict({"state": values, "param_groups": groups})
            model.waiting = []
            while "due" in (saved := tensors_of(state, f"pending.{number}.{len(model.waiting)}")):
                gradients = [_gradient(saved, str(index), trait) for index, trait in enumerate(model.trained)]
                model.waiting.append(PendingGradients(gradients, int(saved["due"])))


@contextmanager
def _borrowing(module: nn.Module, tensors: dict[str, Tensor]) -> Iterator[None]:
    """The module computes with these tensors instead of its own."""
    lent = {n: t for n, t in tensors_of_module(module).items() if t.data_ptr() != tensors[n].data_ptr()}
    originals = {name: tensor.data for name, tensor in lent.items()}
    for name, tensor in lent.items():
        tensor.data = tensors[name]
    try:
        yield
    finally:
        for name, tensor in lent.items():
            tensor.data = originals[name]


def _gradient_entry(name: str, gradient: Tensor | None) -> dict[str, Tensor]:
    """As entries of a state: a sparse one is two tensors."""
    if gradient is None:
        return {}
    if not gradient.is_sparse:
        return {name: gradient}
    gradient = gradient.coalesce()
    return {f"{name}.rows": gradient.indices(), f"{name}.values": gradient.values()}


def _gradient(saved: dict[str, Tensor], name: str, parameter: nn.Parameter) -> Tensor | None:
    """The inverse of `_gradient_entry`."""
    if f"{name}.rows" in saved:
        parts = saved[f"{name}.rows"], saved[f"{name}.values"], parameter.shape
        return torch.sparse_coo_tensor(*parts, device=parameter.device, is_coalesced=True)
    return saved[name].to(parameter.device, copy=True) if name in saved else None
