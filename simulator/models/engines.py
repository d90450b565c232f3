"""All engines of a run: a run and the trainer open an engine for each arm here.

Shapes: A arms, S served models = A x F fleets x R duplicates in this order, n events, Q queries, N candidates.
"""

from __future__ import annotations

from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from typing import Any, TypeVar

import numpy as np
import torch
from torch import Tensor

from simulator.config import ExperimentConfig, ModelConfig, NoiseConfig
from simulator.errors import SettingError
from simulator.models.click_model import dense_parameters
from simulator.models.engine import ALL_MODELS, Costs, Engine, EngineName, tensors_of
from simulator.models.native_engine import NativeEngine, refusal
from simulator.models.own_engine import CustomEngine
from simulator.models.specs import Arm
from simulator.models.torch_engine import TorchEngine
from simulator.types import Batch, Doubles, Floats, Query, Rows, Schema

T = TypeVar("T")
ARM_SETTINGS = "learning_rate", "norm", "hidden", "dim"
"""Fields of ModelConfig that stand in results for each arm."""
TORCH_COST = "learning takes 2 to 3 times as long, more where models are small"
"""The cost of PyTorch instead of the native engine; `make bench` measures it."""


class Engines:
    """All arms of a run."""

    def __init__(
        self,
        schema: Schema,
        arms: tuple[Arm, ...],
        config: ExperimentConfig,
        *,
        threads: int | None = None,
        subset: slice = ALL_MODELS,
    ) -> None:
        """`threads`: CPU workers, each at work on other models (default: as many as PyTorch would use). `subset`: of
        each arm's F x R served models only these; S counts them.

        Raises SettingError for a device that is not there, an arm that the engine it names cannot teach, and a cure
        that the model is too small for.
        """
        threads = threads or torch.get_num_threads()
        self._pool = ThreadPoolExecutor(threads, initializer=torch.set_num_threads, initargs=(1,))
        self.fallbacks: dict[str, str] = {}
        """Label of each arm that is not native though it might be -> the reason."""
        self.replaced: dict[str, int] = {}
        """Label of each arm in whose modules another activation replaces ReLUs -> how many."""
        self.engines: list[Engine] = [self._open(schema, arm, config, subset) for arm in arms]
        # the threads of this one wait for those of the other: no arm waits for another's slowest model
        self._arm_threads = ThreadPoolExecutor(len(arms) if config.device == "cpu" else 1)
        self._candidates = config.candidates
        self.chunk_events = self.engines[0].chunk_events

    def _open(self, schema: Schema, arm: Arm, config: ExperimentConfig, subset: slice) -> Engine:
        if arm.tuned:
            raise SettingError(f"{arm.spec}: lr", "tuned", "give a rate here; `flicker run` and `flicker up` find one")
        model = arm.cure.model(arm.model(config.model), partial(dense_parameters, schema))
        engine = self._kind(arm, model, config)(
            schema,
            arm,
            model,
            config.noise,
            fleets=config.fleets,
            duplicates=config.duplicates,
            seed=config.seed,
            device=config.device,
            pool=self._pool,
            subset=subset,
        )
        if isinstance(engine, CustomEngine) and engine.replaced:
            self.replaced[arm.label] = engine.replaced
        return engine

    def _kind(self, arm: Arm, model: ModelConfig, config: ExperimentConfig) -> type[Engine]:
        if arm.own and not config.noise.racing:
            return CustomEngine
        name, reason = choose_engine(arm, model, config.noise, config.device)
        if reason:
            self.fallbacks[arm.label] = reason
        return NativeEngine if name == "native" else TorchEngine

    def designs(self) -> dict[str, dict[str, Any]]:
        """Label of each arm -> its engine, and the settings in which arms may differ."""
        return {engine.arm.label: _design(engine) for engine in self.engines}

    def _for_each_arm(self, task: Callable[[Engine], T]) -> list[T]:
        return list(self._arm_threads.map(task, self.engines))

    def learn(self, chunk: Batch) -> Floats:
        """Log-odds [S, n] given to each event of a chunk just before it is learned; raises as `Engine.learn` does."""
        return np.concatenate(self._for_each_arm(lambda engine: engine.learn(chunk)))

    def try_learn(self, chunk: Batch) -> list[Floats | None]:
        """The same by arm; None for an arm that diverges, now or before."""

        def attempt(engine: Engine) -> Floats | None:
            try:
                return engine.learn(chunk)
            except SettingError:
                return None

        return self._for_each_arm(attempt)

    def score_events(self, features: Rows) -> Floats:
        """Log-odds [S, n] of events with table rows [n, slots]; nothing is learned."""
        return np.concatenate(self._for_each_arm(lambda engine: engine.score_events(features)))

    def score_queries(self, queries: list[Query]) -> Floats:
        """Log-odds [S, Q, N] of the candidates of queries; NaN behind the last of a query with fewer than others."""
        return np.concatenate(self._for_each_arm(lambda engine: engine.score_queries(queries)))

    def refresh(self) -> None:
        """End a generation."""
        self._for_each_arm(lambda engine: engine.refresh())

    def take_seconds(self) -> Doubles:
        """[S] see Engine."""
        return np.concatenate([engine.take_seconds() for engine in self.engines])

    @property
    def scoring_seconds(self) -> Doubles:
        """[S] see Engine."""
        return np.concatenate([engine.scoring_seconds for engine in self.engines])

    def costs(self, arm: int) -> Costs:
        """Of an arm."""
        return self.engines[arm].costs(self._candidates)

    def published(self, duplicate: int) -> dict[str, Tensor]:
        """A duplicate of every arm for replicas: `A.NAME` for each tensor of arm number A."""
        parts = [engine.published(duplicate) for engine in self.engines]
        return {f"{arm}.{name}": tensor for arm, part in enumerate(parts) for name, tensor in part.items()}

    def state(self) -> dict[str, Tensor]:
        """Everything that learning needs to go on from here, as named tensors on the CPU."""
        parts = [engine.state() for engine in self.engines]
        return {f"{arm}.{name}": tensor for arm, part in enumerate(parts) for name, tensor in part.items()}

    def restore(self, state: dict[str, Tensor]) -> None:
        """Go on from what `state` returned, made with the same settings. Raises ResultError, see Engine."""
        for arm, engine in enumerate(self.engines):
            engine.restore(tensors_of(state, arm))


def _design(engine: Engine) -> dict[str, Any]:
    """Engine and settings of an arm; of a module of the user's only the rate is known, and the digest of its source."""
    if engine.identity:
        settings = {"learning_rate": engine.model.learning_rate, "source": engine.identity["source"][:12]}
    else:
        settings = {name: getattr(engine.model, name) for name in ARM_SETTINGS}
    return {"engine": engine.name, **settings}


def choose_engine(arm: Arm, model: ModelConfig, noise: NoiseConfig, device: str) -> tuple[EngineName, str]:
    """The engine for all duplicates of an arm, and why it is not the native one where that was not asked for.

    Raises SettingError where it has to be native and cannot be: `engine` says so, or threads race.
    """
    reason = "engine=torch" if model.engine == "torch" else refusal(arm, model, noise, device)
    if not reason:
        return "native", ""
    if noise.racing:
        hint = (
            f"threads race in the native engine alone, which cannot teach {arm.label} ({reason}): use 0, or other arms"
        )
        raise SettingError("noise.racing", noise.racing, hint)
    if model.engine == "native":
        raise SettingError(f"{arm.label}: engine", "native", f"{reason}: use engine=torch or auto")
    return "torch", "" if model.engine == "torch" or device != "cpu" else reason


def log_remarks(engines: Engines, log: Callable[[str], object]) -> None:
    """A line for each arm that fell back, and for each in whose modules ReLUs were replaced."""
    for label, count in engines.replaced.items():
        log(f"{label}: ReLUs replaced: {count}")
    for label, reason in engines.fallbacks.items():
        log(f"{label} is taught by PyTorch, not by the native engine ({reason}): {TORCH_COST}")
