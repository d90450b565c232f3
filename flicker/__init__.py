"""What of Flicker belongs in your own training loop: SmeLU, as a module and as a function, and where ReLU stood.

`import flicker` loads nothing: PyTorch is loaded by the first name that is asked for (PEP 562), and beside it nothing
of the simulator but its formulas. The command line of the same name is `simulator.cli`.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from simulator.models.activations import gsmelu, smelu
    from simulator.models.modules import SmeLU, gSmeLU, replace_relu

__all__ = ["SmeLU", "gSmeLU", "gsmelu", "replace_relu", "smelu"]

_HOMES = {
    "SmeLU": "simulator.models.modules",
    "gSmeLU": "simulator.models.modules",
    "gsmelu": "simulator.models.activations",
    "replace_relu": "simulator.models.modules",
    "smelu": "simulator.models.activations",
}


if not TYPE_CHECKING:  # a type checker that saw it would believe every name

    def __getattr__(name: str) -> Any:
        if name not in _HOMES:
            raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
        return getattr(importlib.import_module(_HOMES[name]), name)


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
