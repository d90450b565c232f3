from simulator.models.compiler import NoCompiler
from simulator.models.native_learning import LIBRARY
from simulator.models.native_learning import NativeModel as NativeModel
from simulator.models.native_scoring import NativeScorer as NativeScorer
from simulator.models.old_native import formula_of as kernel_of

__all__ = ["NativeModel", "NativeScorer", "kernel_of", "missing"]


def missing() -> str:
    try:
        LIBRARY.get()
    except NoCompiler as problem:
        return str(problem)
    return ""
