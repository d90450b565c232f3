"""A module of your own: how it is made, what it is given, and how it scores. Learning is in own_engine.py.

    make(schema, **options)  ->  nn.Module, or (nn.Module, torch.optim.Optimizer)
    module(features)         ->  log-odds [B]

`features` has an entry for each field of the schema, by name: int64 [B], or [B, slots] padded with 0, in the field's
own ids (Field.size): 0 is padding, 1 unknown, then come the values.

Shapes: B events of a call, n events, S slots, U users, I items, Q queries, N candidates, C context slots.
"""

from __future__ import annotations

import inspect
import logging
import random
import threading
import weakref
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, Self

import numpy as np
import torch
from torch import Tensor, nn

from simulator.errors import SettingError
from simulator.models.activations import Activation, activation
from simulator.models.engine import EngineName
from simulator.models.factories import PREFIX, blame, load_factory, place_of, source_digest
from simulator.models.modules import ReLUCalls, replaced
from simulator.models.specs import CustomModel
from simulator.types import FIRST_ID, Floats, Ints, Rows, Schema

UNKNOWN_ROW, UNKNOWN_ID = -1, 1
"""Unknown values of a field: their table row, and their id in a module's features."""
BLOCK = 256
"""Events of a call in scoring, always: how a sum rounds may depend on their number, and on an event's place among them.
So each query begins a block of its own."""
log = logging.getLogger("engine")
ROUNDING = 1e-4
"""Log-odds that differ by no more are equal but for rounding."""
RANDOM = threading.Lock()
"""PyTorch, NumPy and `random` have one generator per process: this lock serialises draws from them."""


def seed_all(seed: int) -> None:
    """Seed all global generators."""
    torch.manual_seed(seed)
    np.random.seed(seed % 2**32)
    random.seed(seed)


@contextmanager
def seeded(seed: int) -> Iterator[None]:
    """All global generators start from `seed`; their states are restored afterwards."""
    states = random.getstate(), np.random.get_state()
    with torch.random.fork_rng():
        seed_all(seed)
        try:
            yield
        finally:
            random.setstate(states[0])
            np.random.set_state(states[1])


def generator_states() -> list[Any]:
    """States of the global generators of the CPU and of a GPU: they change once something is drawn."""
    on_gpu = torch.cuda.get_rng_state_all() if torch.cuda.is_available() else []
    numpy: Any = np.random.get_state()
    states = [state.numpy().tobytes() for state in (torch.get_rng_state(), *on_gpu)]
    return [*states, numpy[1].tobytes(), numpy[2:], random.getstate()]


class _Activated(nn.Module):
    """An activation in the place of every ReLU: one object, which knows whether it was ever called."""

    def __init__(self, act: Activation) -> None:
        super().__init__()
        self.activation, self.asked = act, False

    def __deepcopy__(self, memo: dict[int, Any]) -> Self:
        return self  # it has no state of its own

    def forward(self, x: Tensor) -> Tensor:
        """y of x's shape."""
        self.asked = True
        return self.activation(x)


@dataclass
class NewModule:
    """A module that a factory made."""

    module: nn.Module
    optimizer: torch.optim.Optimizer | None
    frozen: list[nn.Module]
    """Parts that the factory has put into evaluation mode: they stay in it."""
    replaced: int
    """ReLUs in whose place another activation stands."""


class Maker:
    """Makes the modules of one arm, which are alike but for what their factory draws."""

    def __init__(self, schema: Schema, custom: CustomModel, device: str | torch.device = "cpu") -> None:
        """Imports the factory. Raises SettingError, here as in all else."""
        self.schema, self.custom, self.device = schema, custom, torch.device(device)
        self._factory = load_factory(custom.factory)
        self._parts: weakref.WeakSet[nn.Module] = weakref.WeakSet()
        """Modules with trainable parameters among those that were made."""
        self._compared = False
        """Whether a module's scores were checked against those of another order."""
        self._check_options()
        self._slots = {field.name: schema.slot_range(field.name) for field in schema.fields}
        shift = [FIRST_ID - schema.first_row(field.name) for field in schema.fields for _ in range(field.slots)]
        self._shift = torch.tensor(shift, device=self.device)

    def _check_options(self) -> None:
        try:
            signature = inspect.signature(self._factory)
        except ValueError:  # a factory in C
            return
        try:
            signature.bind(self.schema, **self.custom.options)
        except TypeError as problem:
            signature_text = f"{self.custom.factory.partition(':')[2]}{signature}{place_of(self._factory)}"
            raise SettingError("arms", self.custom.spec, f"{problem}; here is {signature_text}") from None

    def make(self, seed: int) -> NewModule:
        """A module that was tried, with all generators seeded alike for equal seeds."""
        name = self.custom.factory
        with RANDOM, seeded(seed):
            with blame(name, "calling it"):
                made = self._factory(self.schema, **self.custom.options)
            module, optimizer = made if isinstance(made, tuple) and len(made) == 2 else (made, None)
            if not isinstance(module, nn.Module) or not isinstance(optimizer, torch.optim.Optimizer | None):
                raise self._refusal(f"it gave {_kind(made)}, not an nn.Module or (nn.Module, Optimizer)", self._factory)
            self._require_new(module)
            count = 0
            if self.custom.relu:
                module, count = self._without_relu(module)
            module = module.to(self.device)
            frozen = [part for part in module.modules() if module.training and not part.training]
            self._try(module)
        return NewModule(module, optimizer, frozen, count)

    def _require_new(self, module: nn.Module) -> None:
        """Each model learns its own parameters."""
        parts = [part for part in module.modules() if any(p.requires_grad for p in part.parameters(recurse=False))]
        if any(part in self._parts for part in parts):
            raise self._refusal("it gave a module with parameters of one that it gave before", self._factory)
        self._parts.update(parts)

    def _without_relu(self, module: nn.Module) -> tuple[nn.Module, int]:
        self._activated = _Activated(activation(self.custom.relu))
        with blame(self.custom.factory, "replacing its ReLUs"):
            module, count = replaced(module, self._activated)
        if not count:
            hint = f"it has no ReLU that could be replaced{place_of(type(module).forward)}"
            raise SettingError("arms", self.custom.spec, hint)
        return module, count

    def _try(self, module: nn.Module) -> None:
        """Score a block of arbitrary ids: a module's faults must be reported before anything is learned."""
        rows = self.any_rows()
        with ReLUCalls() as relu:
            scores = self.scores(module, rows)
        if self.custom.relu and relu.calls:
            hint = f"{relu.calls} calls of relu are left that are not in the source of its modules: use nn.ReLU there"
            raise SettingError("arms", self.custom.spec, hint)
        if self.custom.relu and not self._activated.asked:
            hint = "it has ReLUs, but forward reaches none of them"
            raise SettingError("arms", self.custom.spec, hint)
        if not torch.isfinite(scores).all():
            wrong = scores[~torch.isfinite(scores)][0].item()
            raise self._refusal(f"forward gave {wrong} where all is at its start", type(module).forward)
        if not self._compared:
            self._compared, reversed_scores = True, self.scores(module, rows.flip(0)).flip(0)
            if not torch.allclose(reversed_scores, scores, rtol=ROUNDING, atol=ROUNDING):
                hint = "scores of an event are random, or depend on the others in a call: that alone makes them differ"
                log.warning("%s:%s: %s", PREFIX, self.custom.factory, hint)

    def any_rows(self) -> Tensor:
        """[BLOCK, S] the last values of each field and the first; an event has none, one, two, ... of a multi-valued
        one."""
        columns = []
        for field in self.schema.fields:
            places = np.arange(BLOCK)[:, None] + np.arange(field.slots)
            values = self.schema.first_row(field.name) + (places - BLOCK // 2) % field.vocabulary
            filled = np.arange(BLOCK)[:, None] % (field.slots + 1) if field.slots > 1 else 1
            columns.append(np.where(np.arange(field.slots) < filled, values, 0).astype(np.int32))
        return torch.from_numpy(np.concatenate(columns, 1)).to(self.device)

    def features(self, rows: Tensor) -> dict[str, Tensor]:
        """Table rows [B, S] as the module sees them."""
        ids = rows.long()
        ids = torch.where(ids == 0, 0, (ids + self._shift).clamp(min=UNKNOWN_ID))
        by_field = ((name, ids[:, slots].contiguous()) for name, slots in self._slots.items())
        return {name: values.squeeze(1) if values.shape[1] == 1 else values for name, values in by_field}

    def forward(self, module: nn.Module, rows: Tensor) -> Tensor:
        """Log-odds [B] of table rows [B, S], in float32."""
        with blame(self.custom.factory, "forward"):
            logits = module(self.features(rows))
        if not isinstance(logits, Tensor) or logits.shape != rows.shape[:1]:
            shape = f"shape {list(logits.shape)}" if isinstance(logits, Tensor) else _kind(logits)
            hint = f"forward gave {shape} for {len(rows)} events, expected [{len(rows)}]"
            raise self._refusal(hint, type(module).forward)
        if not logits.is_floating_point():
            raise self._refusal(f"forward gave {logits.dtype}, expected log-odds, float32", type(module).forward)
        return logits.float()

    def _refusal(self, hint: str, where: object) -> SettingError:
        """The error for what a factory gave, with the place of the function that is to blame."""
        return SettingError("arms", f"{PREFIX}:{self.custom.factory}", f"{hint}{place_of(where)}")

    def scores(self, module: nn.Module, rows: Tensor) -> Tensor:
        """Log-odds [n] of table rows [n, S] by a module that is not learning: block by block of one size, so that none
        depends on how many others are asked for."""
        module.eval()
        logits = []
        # no inference_mode: what a module keeps of this call could not be learned from
        with torch.no_grad():
            for part in torch.split(rows, BLOCK):
                padding = part[-1:].expand(BLOCK - len(part), -1)
                logits.append(self.forward(module, torch.cat([part, padding]))[: len(part)])
        return torch.cat(logits) if logits else torch.empty(0, device=self.device)

    def identity(self, module: nn.Module) -> dict[str, Any]:
        """Announced with a generation: a replica serves it only by the same source and version of PyTorch."""
        shapes = {
            name: [str(t.dtype).removeprefix("torch."), *t.shape] for name, t in tensors_of_module(module).items()
        }
        source = source_digest(self.custom.factory, [type(part) for part in module.modules()])
        return {"source": source, "torch": torch.__version__.partition("+")[0], "states": shapes}

    def require_like(self, module: nn.Module, announced: Mapping[str, Any]) -> None:
        """Raises SettingError where a generation was announced by another module than this."""
        own_identity = self.identity(module)
        words = {"source": "another source", "torch": "another version of PyTorch", "states": "other parameters"}
        for entry, cause in words.items():
            if announced.get(entry) != own_identity[entry]:
                difference = {} if entry != "states" else _difference(announced.get(entry), own_identity[entry])
                detail = difference or f"{str(announced.get(entry))[:12]}, here {str(own_identity[entry])[:12]}"
                hint = f"taught with {cause} ({detail}): give trainer and replicas the same files and packages"
                raise SettingError("arms", f"{PREFIX}:{self.custom.factory}", hint)


def tensors_of_module(module: nn.Module) -> dict[str, Tensor]:
    """Its parameters and the buffers of its state, by name; tied tensors once."""
    names = module.state_dict(keep_vars=True).keys()
    parameters, buffers = module.named_parameters(), module.named_buffers()
    return dict(parameters) | {name: buffer for name, buffer in buffers if name in names}


class CustomRanker:
    """A module of your own in service; see ranker.Ranker."""

    name: EngineName = "torch"

    def __init__(
        self,
        maker: Maker,
        tensors: Mapping[str, Tensor],
        announced: Mapping[str, Any],
        user_rows: Rows,
        item_rows: Rows,
    ) -> None:
        """Of published tensors and what was announced of them; table rows of users [U, Su] and items [I, Si].

        Raises SettingError where another module was taught, ValueError where a tensor is not as announced.
        """
        self._maker, self._module = maker, maker.make(0).module.requires_grad_(False)
        maker.require_like(self._module, announced)
        own_tensors = tensors_of_module(self._module)
        for name, tensor in own_tensors.items():
            if name not in tensors or tensors[name].shape != tensor.shape or tensors[name].dtype != tensor.dtype:
                shape = tuple(tensors[name].shape) if name in tensors else "missing"
                raise ValueError(f"{name}: {shape}, expected {tuple(tensor.shape)}, {tensor.dtype}")
            tensor.data.copy_(tensors[name])
        self.pairs_at_once = 8 * BLOCK
        device = maker.device
        first = [UNKNOWN_ROW * (slot == 0) for f in maker.schema.fields if f.side == "user" for slot in range(f.slots)]
        users = np.concatenate([user_rows, np.array([first], np.int32)])
        self._users, self._items = (torch.from_numpy(rows.copy()).to(device) for rows in (users, item_rows))
        self._lock = threading.Lock()
        """A module may keep state between calls."""

    def scores(self, users: Ints, context: Rows, items: Ints) -> Floats:
        """See Ranker."""
        device, candidates = self._maker.device, items.shape[1]
        padded = np.pad(items, ((0, 0), (0, -candidates % BLOCK)), mode="edge")
        queries = torch.cat([self._users[torch.from_numpy(users).to(device)], torch.from_numpy(context).to(device)], 1)
        queries = queries.repeat_interleave(padded.shape[1], 0)
        of_users, of_items = self._users.shape[1], self._items[torch.from_numpy(padded.ravel()).to(device)]
        rows = torch.cat([queries[:, :of_users], of_items, queries[:, of_users:]], 1)
        with self._lock:
            scores: Floats = self._maker.scores(self._module, rows).view(padded.shape)[:, :candidates].cpu().numpy()
        return scores


def _kind(value: object) -> str:
    return "nothing" if value is None else type(value).__name__


def _difference(theirs: object, ours: Mapping[str, Any]) -> str:
    if not isinstance(theirs, Mapping):
        return "none announced"
    name = next((n for n in (*ours, *theirs) if theirs.get(n) != ours.get(n)), "order")
    return f"{name}: {theirs.get(name)}, here {ours.get(name)}"
