"""The run that all interrupted ones are compared with."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import torch

from simulator.models.factories import ALLOWED
from simulator.store.protocol import Store, entry_order
from tests.store.memory_store import MemoryStore
from tests.trainer.small_trainer import (
    OWN_CONFIG,
    OWN_FACTORY,
    announced,
    finish,
    published,
    same_tensors,
    saved,
)
from trainer import loop


@dataclass
class Reference:
    """Where a trainer ends that nothing disturbs."""

    tensors: dict[str, torch.Tensor]
    state: dict[str, Any]
    parts: dict[tuple[int, str], bytes]
    abouts: list[dict[str, Any]]

    def check(self, store: Store, path: Path) -> None:
        """Another trainer ended in the same way, to the last bit of its weights and of what it published."""
        tensors, state = saved(path)
        ahead = len(tensors.pop("reader.label", ()))  # how much was read when it stopped is a matter of chance
        assert state["events"] + ahead == entry_order(state["after"])
        assert same_tensors(learned_only(tensors), learned_only(self.tensors))
        learned = {name: state[name] for name in ("events", "generation", "scores")}
        assert learned == {name: self.state[name] for name in learned}
        assert published(store) == self.parts
        assert announced(store) == self.abouts


def learned_only(tensors: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    """Without what was read ahead."""
    return {name: tensor for name, tensor in tensors.items() if not name.startswith("reader.")}


@pytest.fixture(autouse=True)
def brisk(monkeypatch: pytest.MonkeyPatch) -> None:
    """Trainers look at the stop flag more often: dozens of them are stopped here."""
    monkeypatch.setattr(loop, "WAIT", 0.02)


@pytest.fixture(scope="session")
def reference(tmp_path_factory: pytest.TempPathFactory) -> Reference:
    """One run from start to end."""
    store, path = MemoryStore(10_000), tmp_path_factory.mktemp("reference")
    finish(store, path)
    tensors, state = saved(path)
    return Reference(tensors, state, published(store), announced(store))


@pytest.fixture(scope="session")
def own_reference(tmp_path_factory: pytest.TempPathFactory) -> Reference:
    """The same with a module of the user's."""
    store, path = MemoryStore(10_000), tmp_path_factory.mktemp("reference")
    with pytest.MonkeyPatch.context() as patched:
        patched.setenv(ALLOWED, OWN_FACTORY)
        finish(store, path, config=OWN_CONFIG)
    tensors, state = saved(path)
    return Reference(tensors, state, published(store), announced(store))
