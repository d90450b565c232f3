"""From an arm's spec, such as `ensemble:smelu:beta=1,m=3`, to its cure and the spec of its activation."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import fields
from typing import Any

from simulator.errors import SettingError
from simulator.models.activations import REGISTRY
from simulator.models.cures import Anchor, Antidistill, Average, Codistill, Cure, Ensemble, Fresh

CURES: dict[str, type[Cure]] = {
    "ensemble": Ensemble,
    "codistill": Codistill,
    "antidistill": Antidistill,
    "anchor": Anchor,
    "average": Average,
    "fresh": Fresh,
}


def split(spec: str) -> tuple[Cure, str]:
    """The cure and the activation's spec in an arm's: `relu`, `ensemble:relu:m=3`, `ensemble:smelu:beta=1,m=3`.

    Parameters of both stand in any order. Raises SettingError for one that the cure cannot read, or nobody knows.
    """
    name, _, rest = spec.partition(":")
    if name not in CURES:
        return Cure(), spec
    kind, (function, colon, settings) = CURES[name], rest.partition(":")
    if not function:
        raise SettingError("arm", spec, f"an activation, as in {name}:relu")
    readers = {each.name: _READERS[str(each.type)] for each in fields(kind)}
    own: dict[str, Any] = {}
    others: list[str] = []
    for setting in settings.split(",") if colon else ():
        key, equals, text = setting.partition("=")
        if key not in readers:
            _require_known(name, tuple(readers), function, setting)
            others.append(setting)
        elif key in own:
            raise SettingError(f"{name}: parameter", setting, f"{key} at most once")
        else:
            own[key] = readers[key](f"{name}: {key}", text if equals else None)
    return kind(**own), function + (f":{','.join(others)}" if others else "")


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


_READERS: dict[str, Callable[[str, str | None], Any]] = {"int": _whole, "float": _number, "bool": _switch}


def _require_known(name: str, parameters: tuple[str, ...], function: str, setting: str) -> None:
    """Raises SettingError for a parameter that is neither the cure's nor its activation's."""
    if function in REGISTRY and setting.partition("=")[0] not in REGISTRY[function][1]:
        known = ", ".join(parameters + REGISTRY[function][1])
        raise SettingError(f"{name}:{function}: parameter", setting or "(empty)", f"one of {known}, each at most once")
