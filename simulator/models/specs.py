"""From an arm's spec to its design: an activation, perhaps behind a cure, and settings of its own.

    smelu:beta=1                    an activation and its parameters
    ensemble:smelu:beta=1,m=3       a cure before it
    relu:norm=none,lr=0.02          settings that differ from the run's: norm, lr (or lr=tuned), hidden, dim, engine

Parameters of all three stand in any order behind the activation.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field, fields, replace
from typing import Any

from simulator.config import ModelConfig, require
from simulator.errors import SettingError
from simulator.models.activations import Activation, activation, parameters_of
from simulator.models.cures import Anchor, Antidistill, Average, Codistill, Cure, Ensemble, Fresh

CURES: dict[str, type[Cure]] = {
    "ensemble": Ensemble,
    "codistill": Codistill,
    "antidistill": Antidistill,
    "anchor": Anchor,
    "average": Average,
    "fresh": Fresh,
}


@dataclass(frozen=True)
class Arm:
    """One design under comparison: `label` is unique (`relu#2`), `spec` is not (`relu`)."""

    label: str
    spec: str
    copy: int
    """0 for the first set of a spec, 1 for an independent second one, ..."""
    activation: Activation
    function: str
    """Spec of the activation alone."""
    cure: Cure = field(default_factory=Cure)
    settings: dict[str, Any] = field(default_factory=dict)
    """Fields of ModelConfig in which this arm differs from the run."""
    tuned: bool = False
    """Whether its learning rate is to be found first, see tuning.py."""

    def model(self, base: ModelConfig) -> ModelConfig:
        """The settings of this arm's models, given those of the run. Raises SettingError for one out of range."""
        try:
            return replace(base, **self.settings)
        except SettingError as problem:
            raise SettingError(f"{self.spec}: {problem.setting}", problem.value, problem.hint) from None

    def with_rate(self, rate: float) -> Arm:
        """The same with the learning rate that was found."""
        return replace(self, settings=self.settings | {"learning_rate": rate}, tuned=False)


def parse_arms(specs: tuple[str, ...]) -> tuple[Arm, ...]:
    """Arms of the given specs; a spec that comes again is an independent set, told apart as `spec#2`, `spec#3`...

    Raises SettingError for a spec that cannot be read.
    """
    arms: list[Arm] = []
    for spec in specs:
        copy = sum(arm.spec == spec for arm in arms)
        arm = parse_arm(spec)
        arms.append(replace(arm, label=f"{spec}#{copy + 1}" if copy else spec, copy=copy))
    return tuple(arms)


def require_live(arms: tuple[Arm, ...]) -> None:
    """Raises SettingError for an arm that the live system cannot serve."""
    hint = "made of several models, or trained afresh: not served live, compare it with flicker run"
    for arm in arms:
        require(arm.cure.live, "arms", arm.spec, hint)


def parse_arm(spec: str) -> Arm:
    """The first arm of a spec. Raises SettingError for a parameter that nobody knows, or that cannot be read."""
    kind, function, settings = _split(spec)
    of_cure = {each.name: _READERS[str(each.type)] for each in fields(kind)}
    of_function = parameters_of(function)
    own: dict[str, Any] = {}
    for_model: dict[str, Any] = {}
    others: list[str] = []
    tuned = False
    for setting in settings:
        key, equals, text = setting.partition("=")
        value = text if equals else None
        if key in own or key in for_model or (key == "lr" and tuned):
            raise SettingError(f"{spec}: parameter", setting, f"{key} at most once")
        if key in of_cure:
            own[key] = of_cure[key](f"{spec}: {key}", value)
        elif key == "lr" and value == "tuned":
            tuned = True
        elif key in SETTINGS:
            for_model[key] = SETTINGS[key][1](f"{spec}: {key}", value)
        elif key in of_function:
            others.append(setting)
        else:
            known = ", ".join((*of_cure, *of_function, *SETTINGS))
            raise SettingError(f"{spec}: parameter", setting or "(empty)", f"one of {known}")
    function += f":{','.join(others)}" if others else ""
    named = {SETTINGS[key][0]: value for key, value in for_model.items()}
    arm = Arm(spec, spec, 0, activation(function), function, kind(**own), named, tuned)
    arm.model(ModelConfig())  # what is out of range is refused here
    return arm


def with_rate(spec: str, rate: float) -> str:
    """The spec with `lr=tuned` replaced by what was found."""
    return spec.replace("lr=tuned", f"lr={rate:g}")


def _split(spec: str) -> tuple[type[Cure], str, list[str]]:
    """Cure, name of the activation, parameters."""
    name, _, rest = spec.partition(":")
    kind, words = (CURES[name], rest) if name in CURES else (Cure, spec)
    function, colon, settings = words.partition(":")
    if not function and kind is not Cure:
        raise SettingError("arm", spec, f"an activation, as in {name}:relu")
    return kind, function, settings.split(",") if colon else []


def _whole(setting: str, text: str | None) -> int:
    try:
        return int(text or "")
    except ValueError:
        raise SettingError(setting, text or "(empty)", "a whole number, such as 3") from None


def _number(setting: str, text: str | None) -> float:
    try:
        return float(text or "")
    except ValueError:
        raise SettingError(setting, text or "(empty)", "a number, such as 0.5") from None


def _switch(setting: str, text: str | None) -> bool:
    if text is not None:
        raise SettingError(setting, text or "(empty)", "no value: the word alone")
    return True


def _widths(setting: str, text: str | None) -> tuple[int, ...]:
    try:
        return tuple(int(width) for width in (text or "").split("x"))
    except ValueError:
        raise SettingError(setting, text or "(empty)", "widths of hidden layers, such as 256x128") from None


def _word(setting: str, text: str | None) -> str:
    if not text:
        raise SettingError(setting, "(empty)", "a word, such as none")
    return text


Reader = Callable[[str, str | None], Any]
_READERS: dict[str, Reader] = {"int": _whole, "float": _number, "bool": _switch}
SETTINGS: dict[str, tuple[str, Reader]] = {
    "lr": ("learning_rate", _number),
    "norm": ("norm", _word),
    "hidden": ("hidden", _widths),
    "dim": ("dim", _whole),
    "engine": ("engine", _word),
}
"""Key in a spec -> field of ModelConfig, and what reads its value."""
