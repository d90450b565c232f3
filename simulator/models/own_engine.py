"""The engine of modules of your own: autograd and their optimiser, on a CPU as many at a time as there are threads.

Without an optimiser of its own a module learns by Adagrad, as the built-in model does; its embeddings then have sparse
gradients, which is the same arithmetic at a fraction of the cost: where a gradient is 0, Adagrad changes nothing.

Parameters are views of what the engine holds for all models [M, ...]; a model's are aligned alike in memory, so that
equal models round alike. Shapes as in duplicates.py.
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

from simulator.errors import ResultError, SettingError
from simulator.models.duplicates import Chunk, Duplicates, Weights, part_of
from simulator.models.engine import EngineName
from simulator.models.factories import blame
from simulator.models.noise import Member, round_to_bfloat16
from simulator.models.own import BLOCK, RANDOM, ROUNDING, Made, Maker, drawn, seed_all, seeded, tensors_of_module
from simulator.models.torch_engine import check_device
from simulator.randomness import generator
from simulator.types import Batch, Floats

log = logging.getLogger("engine")
ALIGNED = 64
"""Bytes: as PyTorch aligns tensors."""
NUMBER = "#number"
"""Behind the name of what an optimiser keeps as a plain number."""
LATE = (
    "it draws random numbers, but did not in its first chunk: the numbers of this run will not repeat to the last bit"
)


@dataclass
class Waiting:
    """A mini-batch's gradients, of the trainable parameters that have one."""

    gradients: list[Tensor | None]
    due: int
    """The step at which they are applied: their own, or later where updates are delayed."""


@dataclass
class Model:
    """One model."""

    module: nn.Module
    optimizer: torch.optim.Optimizer
    trained: list[nn.Parameter]
    still: list[nn.Module]
    """Parts that the factory has put into evaluation mode: they stay in it."""
    waiting: list[Waiting] = field(default_factory=list)

    def train(self) -> None:
        """Into training mode."""
        self.module.train()
        for part in self.still:
            part.training = False


class OwnEngine(Duplicates):
    """The duplicates of one arm whose model is a module of the user's."""

    name: EngineName = "torch"
    query_block = BLOCK

    def __init__(self, *arguments: Any, **options: Any) -> None:
        """See Duplicates. Raises SettingError for what is wrong with the module or its factory."""
        check_device(options.get("device", "cpu"))
        torch.sparse.check_sparse_tensor_invariants.disable()  # type: ignore[no-untyped-call]  # else it warns
        self._models: list[Model] = []
        self._draws: bool | None = None
        """Whether learning draws from the global generators: then one model learns at a time. The first chunk tells."""
        self._modes: bool | None = None
        """Whether modules predict otherwise while they learn (dropout, batch normalisation). The first chunk tells."""
        self._seen: set[str] = set()
        """What the first chunk told."""
        super().__init__(*arguments, **options)
        groups = self._models[0].optimizer.param_groups
        rate = float(groups[0]["lr"])  # an optimiser of the user's has its own
        self.model = replace(self.model, learning_rate=rate)

    def _allocate(self) -> Weights:
        """See Duplicates."""
        assert self.arm.own
        self.maker = Maker(self.schema, self.arm.own, self.device)
        first = self.maker.make(0)
        self.replaced = first.replaced
        self.identity: Mapping[str, Any] = self.maker.identity(first.module)
        self._rehearse(first)
        return Weights({name: self._room(tensor) for name, tensor in tensors_of_module(first.module).items()})

    def _rehearse(self, made: Made) -> None:
        """One step of a module that is not used further: what goes wrong in learning must not do so in a long run."""
        parameters = dict(made.module.named_parameters())
        trained = {name: each for name, each in parameters.items() if each.requires_grad}
        optimizer = made.optimizer or self._adagrad(made.module, list(trained.values()))
        model, rows = Model(made.module, optimizer, list(trained.values()), made.still), self.maker.any_rows()
        with RANDOM, seeded(0):
            self._gradients(model, rows, torch.zeros(len(rows), device=self.device), 0, False)
            self._require_trained(trained, optimizer if made.optimizer else None)
            self._apply(model, 0, [])
        if "lr" not in optimizer.param_groups[0]:
            raise SettingError("arms", self.maker.own.spec, "its optimiser has no learning rate (`lr` of its groups)")
        self._state_of(0, optimizer)

    def _require_trained(self, trained: dict[str, nn.Parameter], optimizer: torch.optim.Optimizer | None) -> None:
        """Parameters that do not learn are told; SettingError where none does that could, which looks like a cure."""
        held = {id(each) for group in (optimizer.param_groups if optimizer else ()) for each in group["params"]}
        without = [name for name, each in trained.items() if each.grad is None]
        left_out = [name for name, each in trained.items() if optimizer and id(each) not in held]
        if trained and (len(without) == len(trained) or len(left_out) == len(trained)):
            why = (
                "the log-odds depend on none of its parameters"
                if len(without) == len(trained)
                else ("its optimiser holds none of its parameters")
            )
            raise SettingError("arms", self.maker.own.spec, f"nothing of it learns: {why}")
        for names, why in (
            (without, "the log-odds do not depend on them"),
            (left_out, "its optimiser leaves them out"),
        ):
            if names:
                log.warning("%s: not trained, for %s: %s", self.arm.label, why, ", ".join(names))

    def _room(self, like: Tensor) -> Tensor:
        """[M, ...] for such a tensor of each model."""
        step = -(-like.nbytes // ALIGNED) * ALIGNED // like.itemsize
        room = torch.zeros(len(self), step, dtype=like.dtype, device=self.device)
        return room[:, : like.numel()].view(len(self), *like.shape)

    def initialise(self, anew: int = 0) -> None:
        """See Duplicates."""
        made = [self.maker.make(self._seed_of("make", who, anew)) for who in self.members]
        self._models = [self._model(number, each) for number, each in enumerate(made)]
        if self.noise.config.precision == "bfloat16":
            for parameter in (each for model in self._models for each in model.trained):
                parameter.data.copy_(parameter.data.bfloat16())

    def _seed_of(self, purpose: str, who: Member, *index: int) -> int:
        """Alike for the duplicates of a fleet, unless each has a start of its own."""
        own = [who.duplicate] if self.noise.config.init == "own" else []
        return int(generator(self._seed, purpose, who.copy, who.fleet, who.part, *index, *own).integers(2**63))

    def _model(self, number: int, made: Made) -> Model:
        own, parameters = self.weights[number].tensors, dict(made.module.named_parameters())
        for name, tensor in tensors_of_module(made.module).items():
            own[name].copy_(tensor.detach())
            if name in parameters:
                parameters[name].data = own[name]
        self._keep(number, made.module)
        trained = [each for each in parameters.values() if each.requires_grad]
        optimizer = made.optimizer or self._adagrad(made.module, trained)
        if made.optimizer is not None and "learning_rate" in self.arm.settings:
            for group in optimizer.param_groups:
                group["lr"] = self.model.learning_rate
        if self.device.type != "cpu":
            optimizer.load_state_dict(optimizer.state_dict())  # which was made on the CPU
        return Model(made.module, optimizer, trained, made.still)

    def _adagrad(self, module: nn.Module, trained: list[nn.Parameter]) -> torch.optim.Optimizer:
        for each in module.modules():
            if isinstance(each, nn.Embedding | nn.EmbeddingBag) and not each.scale_grad_by_freq:
                each.sparse = getattr(each, "mode", "") != "max"
        start = self.model.initial_accumulator
        # of nothing to train an optimiser cannot be made
        return torch.optim.Adagrad(
            trained or [torch.zeros(1)], self.model.learning_rate, initial_accumulator_value=start
        )

    def _keep(self, number: int, module: nn.Module) -> None:
        """A module may change a buffer in place or put another one there, and so may its optimiser with parameters:
        what it has now is taken over."""
        own = self.weights[number].tensors
        for name, parameter in module.named_parameters():
            if parameter.data_ptr() != own[name].data_ptr():
                parameter.data = own[name].copy_(parameter.data)
        for path, part in module.named_modules():
            for name, buffer in part.named_buffers(recurse=False):
                kept = own.get(f"{path}.{name}" if path else name)
                if kept is not None and kept.data_ptr() != buffer.data_ptr():
                    with blame(self.maker.own.factory, f"its buffer {name}"):
                        setattr(part, name, kept.copy_(buffer))

    @property
    def parameters(self) -> int:
        """See Duplicates."""
        return sum(each.numel() for each in self._models[0].trained)

    def _score(self, models: slice, rows: Tensor, weights: Weights) -> Tensor:
        """See Duplicates."""
        rows, found = rows.expand(len(self.members[models]), *rows.shape[-2:]), []
        for k, model in enumerate(self._models[models]):
            with _lent(model.module, weights[k].tensors):
                found.append(self.maker.scores(model.module, rows[k]))
        return torch.stack(found)

    def learn(self, chunk: Batch) -> Floats:
        """See Engine."""
        before = self._at_rest() if self._draws is False else None
        given = super().learn(chunk)
        if self._draws is None:
            self._draws, self._modes = "draws" in self._seen, "modes" in self._seen
        elif before and before != (self._at_rest() or before):
            self._draws = True
            log.warning("%s: %s", self.arm.label, LATE)
        return given

    def _at_rest(self) -> list[Any] | None:
        """Where the global generators stand while nobody has them to itself; None where somebody has."""
        if not RANDOM.acquire(blocking=False):
            return None
        try:
            return drawn()
        finally:
            RANDOM.release()

    def _learn(self, models: slice, chunk: Chunk) -> Tensor:
        """See Duplicates."""
        numbers = range(len(self))[models]
        return torch.stack([self._learn_one(number, chunk[k : k + 1]) for k, number in enumerate(numbers)])

    def _learn_one(self, number: int, chunk: Chunk) -> Tensor:
        """Log-odds [n] of one model."""
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
            before = None if self._modes is False else self.maker.scores(model.module, rows)
            due = first + step + int(chunk.delays[0, step])
            with self._seeded_step(number, first + step):
                weight = None if weights is None else weights[step]
                given = self._gradients(model, rows, targets, due, bool(chunk.lost[0, step]), weight)
            if before is not None and not torch.allclose(before, given, rtol=ROUNDING, atol=ROUNDING):
                self._seen.add("modes")
            logits.append(given if before is None else before)
            self._apply(model, first + step, chunk.rounding)
        self._keep(number, model.module)
        return torch.cat(logits)

    @contextmanager
    def _seeded_step(self, number: int, step: int) -> Iterator[None]:
        """What a mini-batch draws follows from its number alone: a run that goes on draws the same."""
        if self._draws is False:
            yield
            return
        seed_all(self._seed_of("draws", self.members[number], step))
        before = drawn() if self._draws is None else []
        yield
        if before and drawn() != before:
            self._seen.add("draws")

    def _gradients(
        self, model: Model, rows: Tensor, targets: Tensor, due: int, lost: bool, weight: Tensor | None = None
    ) -> Tensor:
        """Log-odds [B] of a mini-batch as the module gives them while it learns; its gradients wait."""
        model.train()
        logits = self.maker.forward(model.module, rows)
        given = logits.detach()
        if lost or not logits.requires_grad:
            return given
        for each in model.trained:
            each.grad = None
        # each event weighs 1 / batch, also in a shorter mini-batch at the end, whose few events would shake the model
        gradient = (torch.sigmoid(given) - targets) / self.model.batch
        with blame(self.maker.own.factory, "its gradient"):
            torch.autograd.backward(logits, gradient if weight is None else gradient * weight)
        model.waiting.append(Waiting([each.grad for each in model.trained], due))
        return given

    def _apply(self, model: Model, step: int, rounding: list[np.random.Generator]) -> None:
        """What is due by now."""
        due = [each for each in model.waiting if each.due <= step]
        model.waiting = [each for each in model.waiting if each.due > step]
        for waiting in due:
            for parameter, gradient in zip(model.trained, waiting.gradients, strict=True):
                parameter.grad = gradient
            with blame(self.maker.own.factory, "a step of its optimiser"):
                model.optimizer.step()
            for parameter in model.trained if rounding else ():
                parameter.data.copy_(round_to_bfloat16(parameter.data, rounding[0]))

    def _optimiser(self) -> dict[str, Tensor]:
        """See Duplicates: `optimiser.MODEL.PARAMETER.NAME`, and gradients that wait."""
        first_chunk = [-1 if each is None else int(each) for each in (self._draws, self._modes)]
        found = {"first_chunk": torch.tensor(first_chunk)}
        for number, model in enumerate(self._models):
            found |= self._state_of(number, model.optimizer)
            for place, waiting in enumerate(model.waiting):
                found[f"pending.{number}.{place}.due"] = torch.tensor([waiting.due])
                for which, gradient in enumerate(waiting.gradients):
                    found |= _gradient_entry(f"pending.{number}.{place}.{which}", gradient)
        return found

    def _state_of(self, number: int, optimizer: torch.optim.Optimizer) -> dict[str, Tensor]:
        """What the optimiser of a model keeps. Raises SettingError for what cannot be saved."""
        found: dict[str, Tensor] = {}
        for place, values in optimizer.state_dict()["state"].items():
            for key, value in values.items():
                name = f"optimiser.{number}.{place}.{key}"
                if isinstance(value, Tensor) and value.layout is torch.strided:
                    found[name] = value
                elif isinstance(value, bool | int | float):
                    found[f"{name}{NUMBER}"] = torch.tensor(value, dtype=torch.float64)
                elif value is not None:
                    kind = "sparse Tensor" if isinstance(value, Tensor) else type(value).__name__
                    hint = f"its optimiser keeps {key} = a {kind}, which cannot be saved: use another"
                    raise SettingError("arms", self.arm.spec, hint)
        return found

    def state(self) -> dict[str, Tensor]:
        """See Duplicates: with the digest of the module's source."""
        return super().state() | {"source": self._source()}

    def restore(self, state: dict[str, Tensor]) -> None:
        """See Duplicates."""
        shapes = {name: tensor.shape for name, tensor in part_of(state, "weights").tensors.items()}
        ours = {name: tensor.shape for name, tensor in self.weights.tensors.items()}
        if shapes != ours or not torch.equal(state.get("source", torch.empty(0)), self._source()):
            hint = f"saved with another source of {self.maker.own.factory}: go on with that one, or start anew"
            raise ResultError(f"{self.arm.label}: {hint}")
        super().restore(state)

    def _source(self) -> Tensor:
        return torch.frombuffer(bytearray.fromhex(self.identity["source"]), dtype=torch.uint8)

    def _restore_optimiser(self, state: dict[str, Tensor]) -> None:
        """See Duplicates."""
        self._draws, self._modes = (None if each < 0 else bool(each) for each in state["first_chunk"].tolist())
        for number, model in enumerate(self._models):
            values: dict[int, dict[str, Any]] = {}
            for name, tensor in part_of(state, f"optimiser.{number}").tensors.items():
                place, _, key = name.partition(".")
                value = tensor.item() if key.endswith(NUMBER) else tensor.clone()
                values.setdefault(int(place), {})[key.removesuffix(NUMBER)] = value
            groups = model.optimizer.state_dict()["param_groups"]
            model.optimizer.load_state_dict({"state": values, "param_groups": groups})
            model.waiting = []
            while "due" in (saved := part_of(state, f"pending.{number}.{len(model.waiting)}").tensors):
                gradients = [_gradient(saved, str(which), each) for which, each in enumerate(model.trained)]
                model.waiting.append(Waiting(gradients, int(saved["due"])))


@contextmanager
def _lent(module: nn.Module, tensors: dict[str, Tensor]) -> Iterator[None]:
    """The module computes with other tensors than its own, where they are others."""
    own = {n: t for n, t in tensors_of_module(module).items() if t.data_ptr() != tensors[n].data_ptr()}
    kept = {name: tensor.data for name, tensor in own.items()}
    for name, tensor in own.items():
        tensor.data = tensors[name]
    try:
        yield
    finally:
        for name, tensor in own.items():
            tensor.data = kept[name]


def _gradient_entry(name: str, gradient: Tensor | None) -> dict[str, Tensor]:
    """As entries of a state: a sparse one is two tensors."""
    if gradient is None:
        return {}
    if not gradient.is_sparse:
        return {name: gradient}
    gradient = gradient.coalesce()
    return {f"{name}.rows": gradient.indices(), f"{name}.values": gradient.values()}


def _gradient(saved: dict[str, Tensor], name: str, of: nn.Parameter) -> Tensor | None:
    """What `_gradient_entry` took apart."""
    if f"{name}.rows" in saved:
        parts = saved[f"{name}.rows"], saved[f"{name}.values"], of.shape
        return torch.sparse_coo_tensor(*parts, device=of.device, is_coalesced=True)
    return saved[name].to(of.device, copy=True) if name in saved else None
