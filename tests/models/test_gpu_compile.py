"""The Triton kernels become machine code for two GPUs, which needs none: nothing atomic, wide loads and stores."""

from __future__ import annotations

import importlib.util
import os
import re
from pathlib import Path
from typing import Any

import pytest

from simulator.models.gpu import fused

pytestmark = [
    pytest.mark.skipif(
        importlib.util.find_spec("triton") is None, reason="Triton is not installed: it comes with PyTorch's CUDA build"
    ),
    pytest.mark.skipif(os.environ.get("TRITON_INTERPRET") == "1", reason="the interpreter does not compile"),
]

NUMBERS = {"rate": "fp32"} | dict.fromkeys(("size", "stride", "events", "width", "entries", "height"), "i32")
INTEGERS = ("rows", "ends", "places")
KERNELS: list[tuple[str, dict[str, Any], int]] = [
    ("smelu_forward", {"BLOCK": fused.BLOCK}, 4),
    ("smelu_backward", {"BLOCK": fused.BLOCK}, 4),
    ("layer_forward", {"EPSILON": 1e-5, "ROWS": 16, "WIDTH": 128}, 4),
    ("layer_forward", {"EPSILON": 1e-5, "ROWS": 32, "WIDTH": 1}, 4),
    ("layer_backward", {"ROWS": 16, "PASSES": 2, "WIDTH": 128}, 4),
    ("layer_backward", {"ROWS": 1, "PASSES": 32, "WIDTH": 8_192}, 16),
    ("update_rows", {"POSITIONS": fused.POSITIONS, "TILE": fused.RUN, "WIDTH": 16}, 1),
    ("update_rows", {"POSITIONS": fused.POSITIONS, "TILE": fused.RUN, "WIDTH": 512}, 1),
    ("smelu_forward", {"BLOCK": fused.BLOCK, "size": 1}, 4),
    ("smelu_backward", {"BLOCK": fused.BLOCK, "size": 1}, 4),
    ("layer_forward", {"EPSILON": 1e-5, "ROWS": 32, "WIDTH": 1, "width": 1, "events": 1}, 4),
    ("layer_backward", {"ROWS": 32, "PASSES": 1, "WIDTH": 1, "width": 1, "events": 1}, 4),
    ("update_rows", {"POSITIONS": fused.POSITIONS, "TILE": fused.RUN, "WIDTH": 1, "width": 1, "entries": 1}, 1),
]
"""Name, what is known when it is compiled, groups of 32 threads: the shapes of the defaults, and the extremes. A size
of 1 is known: Triton compiles a kernel of its own for it (and `fused.problem` tries no other)."""


@pytest.mark.parametrize("capability", [80, 90], ids=["A100", "H100 and H200"])
@pytest.mark.parametrize(("name", "known", "warps"), KERNELS, ids=lambda value: value if isinstance(value, str) else "")
def test_compiles(
    name: str, known: dict[str, Any], warps: int, capability: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("TRITON_CACHE_DIR", str(tmp_path))
    from triton.backends.compiler import GPUTarget
    from triton.compiler import ASTSource, compile

    kernel = getattr(fused.kernels(), name)
    pointer = {argument: "*i32" if argument in INTEGERS else "*fp32" for argument in kernel.arg_names}
    signature = pointer | {name: kind for name, kind in NUMBERS.items() if name in pointer}
    signature |= dict.fromkeys(known, "constexpr")
    # as at run time, where addresses and most sizes are divisible by 16
    aligned = {(place,): [["tt.divisibility", 16]] for place, name in enumerate(signature) if wide(name, signature)}
    source = ASTSource(fn=kernel, signature=signature, constexprs=known, attrs=aligned)
    made = compile(source, target=GPUTarget("cuda", capability, 32), options={"num_warps": warps})
    assert made.asm["cubin"]
    assert not re.search(r"\b(atom|red)\.", made.asm["ptx"]), "atomic sums round at random"
    if name.startswith("smelu") and "size" not in known:
        assert "ld.global.v4" in made.asm["ptx"] and "st.global.v4" in made.asm["ptx"]


def wide(name: str, signature: dict[str, str]) -> bool:
    """Whether an argument is divisible by 16 in a run: every address, and the sizes from which addresses follow."""
    return signature[name].startswith("*") or (signature[name] == "i32" and name in ("size", "stride", "width"))
