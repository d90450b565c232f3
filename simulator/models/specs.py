"""From an arm's spec to its design: an activation, perhaps behind a cure, and settings of its own.

    smelu:beta=1                    an activation and its parameters
    ensemble:smelu:beta=1,m=3       a cure before it
    relu:norm=none,lr=0.02          settings that differ from the run's: norm, lr (or lr=tuned), hidden, dim, engine
    torch:my_pkg.models:make,width=64,lr=0.02,relu=smelu:beta=1
                                    a module of your own: options of its factory, lr and engine, and in the place of
                                    its ReLUs another activation, which stands last and takes the rest of the text

Parameters of all stand in any order behind the activation or the factory.
"""

from __future__ import annotations

import math
import re
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass, field, fields, replace
from typing import Any

from simulator.config import ModelConfig, require
from simulator.errors import SettingError
from simulator.models.activations import Activation, activation, parameters_of
from simulator.models.cures import Anchor, Antidistill, Average, Codistill, Cure, Ensemble, Fresh
from simulator.models.factories import PREFIX, factory_of, require_name

CURES: dict[str, type[Cure]] = {
    "ensemble": Ensemble,
    "codistill": Codistill,
    "antidistill": Antidistill,
    "anchor": Anchor,
    "average": Average,
    "fresh": Fresh,
}


Option = int | float | bool | str


@dataclass(frozen=True)
class CustomModel:
    """A module of your own."""

    factory: str
    """`my_pkg.models:make`"""
    options: dict[str, Option] = field(default_factory=dict)
    """Arguments of the factory, beside the schema."""
    relu: str = ""
    """Spec of the activation in the place of its ReLUs; empty where they stay."""

    @property
    def spec(self) -> str:
        """`parse_arm` parses it to the same model."""
        options = [f"{name}={value}" for name, value in self.options.items()]
        return ",".join([f"{PREFIX}:{self.factory}", *options, *([f"relu={self.relu}"] if self.relu else [])])


@dataclass(frozen=True)
class Arm:
    """One design under comparison: `label` is unique (`relu#2`), `spec` is not (`relu`)."""

    label: str
    spec: str
    copy: int
    """0 for the first set of a spec, 1 for an independent second one, ..."""
    activation: Activation | None
    """None for a module of your own that keeps its activations."""
    function: str
    """Spec of the activation alone, or of the module of your own: without cure and settings."""
    own: CustomModel | None = None
    """The module of your own, if the arm is one."""
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
        """The same with a tuned learning rate."""
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
    """The first arm of a spec. Raises SettingError for a parameter that is unknown, or cannot be read."""
    kind, function, settings, relu = _split(spec)
    is_custom = factory_of(spec) is not None
    of_cure = {attribute.name: _READERS[str(attribute.type)] for attribute in fields(kind)}
    of_function = {} if is_custom else parameters_of(function)
    of_model = {key: SETTINGS[key] for key in (CUSTOM_SETTINGS if is_custom else SETTINGS)}
    values: dict[str, Any] = {}
    rest: list[str] = []
    for setting in settings:
        key, equals, text = setting.partition("=")
        value = text if equals else None
        if key in values or (is_custom and key in (earlier.partition("=")[0] for earlier in rest)):
            raise SettingError(f"{spec}: parameter", setting, f"{key} at most once")
        if is_custom and setting == "relu":
            raise SettingError(f"{spec}: relu", "(empty)", RELU_HINT)
        if key in of_cure:
            values[key] = of_cure[key](f"{spec}: {key}", value)
        elif key == "lr" and value == "tuned":
            values[key] = None
        elif key in of_model:
            values[key] = of_model[key][1](f"{spec}: {key}", value)
        elif key in of_function or (is_custom and key.isidentifier()):
            rest.append(setting)
        else:
            known = ", ".join((*of_cure, *of_function, *of_model, *(["options of its factory"] if is_custom else [])))
            raise SettingError(f"{spec}: parameter", setting or "(empty)", f"one of {known}")
    design = _own(function, rest, relu) if is_custom else None
    if design:
        function, function_activation = design.spec, activation(relu) if relu else None
    else:
        function += f":{','.join(rest)}" if rest else ""
        function_activation = activation(function)
    changed = {of_model[key][0]: value for key, value in values.items() if key in of_model and value is not None}
    cure = kind(**{key: value for key, value in values.items() if key in of_cure})
    arm = Arm(
        spec, spec, 0, function_activation, function, design, cure, changed, "lr" in values and values["lr"] is None
    )
    arm.model(ModelConfig())  # what is out of range is refused here
    if is_custom:
        require(
            changed.get("engine") != "native", f"{spec}: engine", "native", "torch: it learns no module of your own"
        )
        narrow = getattr(cure, "narrow", False)
        require(not narrow, f"{spec}: narrow", "on", "off: give the factory narrower widths instead")
    return arm


def with_rate(spec: str, rate: float) -> str:
    """The spec with `lr=tuned` replaced by the tuned rate."""
    return re.sub(r"(?<![^:,])lr=tuned(?![^,])", f"lr={rate:g}", spec)


def _split(spec: str) -> tuple[type[Cure], str, list[str], str]:
    """Cure, name of the activation or of the factory, parameters, and the value of `relu=`."""
    name, _, rest = spec.partition(":")
    kind, words = (CURES[name], rest) if name in CURES else (Cure, spec)
    if (factory := factory_of(spec)) is not None:
        hint = f"before a module of your own stands a cure, or nothing: one of {', '.join(CURES)}"
        require(kind is not Cure or name == PREFIX, "arm", spec, hint)
        words, mark, relu = words.partition(",relu=")
        if mark and not relu:
            raise SettingError(f"{spec}: relu", "(empty)", RELU_HINT)
        require_name(factory)
        _, comma, settings = words.partition(",")
        return kind, factory, settings.split(",") if comma else [], relu
    function, colon, settings = words.partition(":")
    if not function and kind is not Cure:
        raise SettingError("arm", spec, f"an activation, as in {name}:relu")
    return kind, function, settings.split(",") if colon else [], ""


def _own(factory: str, settings: list[str], relu: str) -> CustomModel:
    """A module of your own with the options that its factory is called with."""
    parts = [setting.partition("=") for setting in settings]
    return CustomModel(factory, {key: _option(text, equals) for key, equals, text in parts}, relu)


def _option(text: str, equals: str) -> Option:
    """As int, float, bool or str; the name alone is True."""
    if not equals or text.lower() in ("true", "false"):
        return not equals or text.lower() == "true"
    for read in (int, float):
        with suppress(ValueError):
            value: int | float = read(text)
            return value if math.isfinite(value) else text
    return text


Reader = Callable[[str, str | None], Any]
"""From a setting and its text, None where it stands alone, to its value. Raises SettingError."""


def _reader(read: Callable[[str], Any], hint: str) -> Reader:
    def reader(setting: str, text: str | None) -> Any:
        try:
            return read(text or "")
        except ValueError:
            raise SettingError(setting, text or "(empty)", hint) from None

    return reader


_whole = _reader(int, "a whole number, such as 3")
_number = _reader(float, "a number, such as 0.5")
_widths = _reader(lambda text: tuple(map(int, text.split("x"))), "widths of hidden layers, such as 256x128")


def _switch(setting: str, text: str | None) -> bool:
    if text is not None:
        raise SettingError(setting, text or "(empty)", "no value: the word alone")
    return True


def _word(setting: str, text: str | None) -> str:
    if not text:
        raise SettingError(setting, "(empty)", "a word, such as none")
    return text


_READERS: dict[str, Reader] = {"int": _whole, "float": _number, "bool": _switch}
SETTINGS: dict[str, tuple[str, Reader]] = {
    "lr": ("learning_rate", _number),
    "norm": ("norm", _word),
    "hidden": ("hidden", _widths),
    "dim": ("dim", _whole),
    "engine": ("engine", _word),
}
"""Key in a spec -> field of ModelConfig, and what reads its value."""
CUSTOM_SETTINGS = ("lr", "engine")
"""Settings of a module of your own; all others are options of its factory."""
RELU_HINT = "an activation, as in relu=smelu:beta=1; it stands last"
"""Hint for `relu=` in the spec of a module of your own."""
