"""What of Flicker belongs in your own code.

In a training loop: SmeLU, as a module and as a function, and where ReLU stood; metrics of torchmetrics that sum over
processes. Of predictions: `compare` for frames and arrays, the `measures` by name, `read_result` for result folders.

`import flicker` loads nothing: what a name needs is loaded when it is first asked for (PEP 562). The command line of
the same name is `simulator.cli`.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from flicker.metrics import PredictionDifference, SwapRatio
    from simulator.measures.registry import MEASURES as measures
    from simulator.models.activations import gsmelu, smelu
    from simulator.models.modules import SmeLU, gSmeLU, replace_relu
    from simulator.predictions.compare import compare_frames as compare
    from simulator.result import read_result

__all__ = [
    "PredictionDifference",
    "SmeLU",
    "SwapRatio",
    "compare",
    "gSmeLU",
    "gsmelu",
    "measures",
    "read_result",
    "replace_relu",
    "smelu",
]

_HOMES = {
    "PredictionDifference": "flicker.metrics:PredictionDifference",
    "SmeLU": "simulator.models.modules:SmeLU",
    "SwapRatio": "flicker.metrics:SwapRatio",
    "compare": "simulator.predictions.compare:compare_frames",
    "gSmeLU": "simulator.models.modules:gSmeLU",
    "gsmelu": "simulator.models.activations:gsmelu",
    "measures": "simulator.measures.registry:MEASURES",
    "read_result": "simulator.result:read_result",
    "replace_relu": "simulator.models.modules:replace_relu",
    "smelu": "simulator.models.activations:smelu",
}


if not TYPE_CHECKING:  # a type checker that saw it would believe every name

    def __getattr__(name: str) -> Any:
        if name not in _HOMES:
            raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
        module, _, attribute = _HOMES[name].partition(":")
        return getattr(importlib.import_module(module), attribute)


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
