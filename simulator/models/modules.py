"""SmeLU and gSmeLU as modules for your own network, and `replace_relu`, which puts them where its ReLU stood.

ReLU stands in a network as a module, nn.ReLU, which is exchanged, or as a call in a module's own code, such as
`functional.relu(x)` or `x.relu()`. Whether a module's code holds such calls is read from its source; if so, they are
diverted while its methods run, by a torch.overrides.TorchFunctionMode. Nothing is rewritten: control flow that depends
on data, dropout that asks `self.training`, threads, torch.func, torch.compile and torch.export stay as they were.

Why not torch.fx, which could rewrite the calls: while it traces it patches torch.nn.Module for the whole process, under
other threads that compute; it fixes `self.training` at its value of that moment; and it fails on `if x.sum() > 0`.

What cannot be seen in the source - calls in code that was compiled, or reached by a name that is made while it runs -
is still counted by `ReLUCalls`.
"""

from __future__ import annotations

import ast
import copy
import functools
import inspect
import textwrap
import threading
from collections.abc import Callable, Iterator, Mapping, Sequence
from types import BuiltinFunctionType, CodeType, FunctionType, MethodDescriptorType, ModuleType
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional
from torch.overrides import TorchFunctionMode

from simulator.config import require
from simulator.models import activations

RELU = frozenset({functional.relu, torch.relu, torch.relu_, Tensor.relu, Tensor.relu_})
"""What PyTorch hands to a mode for a call of relu; `functional.relu_` is `torch.relu_`."""
IN_PLACE = frozenset({torch.relu_, Tensor.relu_})
FUSED = frozenset({torch.rnn_relu, torch.rnn_relu_cell})
"""Operations with ReLU inside."""
NAMES = ("relu", "relu_")
KEPT = "relu_replacement"
"""Attribute of a module whose relu calls are diverted: where they go."""


class SmeLU(nn.Module):
    """0 for x <= -beta, (x + beta)^2 / (4 beta) for |x| <= beta, x for x >= beta (arXiv 2202.06499).

    x of any shape. beta is the half-width of the quadratic piece, in units of x; 0 is ReLU. Raises SettingError unless
    beta is 0 or between 1e-6 and 1e6.
    """

    def __init__(self, beta: float = 1.0) -> None:
        super().__init__()
        self.beta = float(beta)
        activations.require_safe("smelu: beta", self.beta, beta)
        activations.smelu(torch.zeros(0), self.beta)

    def forward(self, x: Tensor) -> Tensor:
        """y of x's shape."""
        return activations.smelu_formula(x, self.beta)

    def extra_repr(self) -> str:
        """The setting, as `print(model)` shows it."""
        return f"beta={self.beta:g}"


class gSmeLU(nn.Module):  # noqa: N801 (the article's name)
    """Gradient gminus left of -alpha, gplus right of beta, a straight ramp between; y(-alpha) = t (2202.06499, eq. 9).

    x of any shape. Raises SettingError unless each is 0 or between 1e-6 and 1e6 in size, and alpha + beta > 0.
    """

    def __init__(
        self, gminus: float = 0.0, gplus: float = 1.0, alpha: float = 1.0, beta: float = 1.0, t: float = 0.0
    ) -> None:
        super().__init__()
        self.gminus, self.gplus = float(gminus), float(gplus)
        self.alpha, self.beta, self.t = float(alpha), float(beta), float(t)
        for name in ("gminus", "gplus", "alpha", "beta", "t"):
            activations.require_safe(f"gsmelu: {name}", getattr(self, name), getattr(self, name))
        activations.gsmelu(torch.zeros(0), alpha=self.alpha, beta=self.beta)

    def forward(self, x: Tensor) -> Tensor:
        """y of x's shape."""
        return activations.gsmelu_formula(x, self.gminus, self.gplus, self.alpha, self.beta, self.t)

    def extra_repr(self) -> str:
        """The settings, as `print(model)` shows them."""
        return ", ".join(f"{name}={getattr(self, name):g}" for name in ("gminus", "gplus", "alpha", "beta", "t"))


def replace_relu(module: nn.Module, replacement: nn.Module) -> nn.Module:
    """Put deep copies of `replacement` where ReLU stands in `module`, which is changed in place and returned.

    Of an nn.ReLU alone, `replacement` itself is returned. What is replaced, and what is refused: see `replaced`.
    Raises SettingError where no ReLU is found.
    """
    result, count = replaced(module, replacement)
    hint = "no ReLU found: neither an nn.ReLU inside nor a call in its code; write SmeLU there yourself"
    require(count > 0, "replace_relu: module", type(module).__name__, hint)
    return result


def replaced(module: nn.Module, replacement: nn.Module) -> tuple[nn.Module, int]:
    """As `replace_relu`, but finding none is no error: the module, and how many ReLUs were found.

    Found are
    - each nn.ReLU, which counts once however many places it stands in; they go on sharing one replacement;
    - each place in the source of a module's class, of its bases outside torch, or of functions of the same package
      that they name, where `functional.relu`, `torch.relu` or `Tensor.relu` is called or named, in-place forms too;
    - each relu function kept as an attribute, as nn.TransformerEncoderLayer does. Its fast path for inference, which
      has ReLU built in, is switched off.

    What worked in place still does: its input is overwritten, at the price of two copies. Names in the state dict stay;
    a replacement with parameters adds its own. Hooks of an exchanged nn.ReLU go with it. A module with diverted calls
    can no longer be compiled by torch.jit.script, yet by torch.compile and torch.export.

    Raises SettingError, before anything is changed, for a replacement that calls relu itself, and for what cannot be
    changed: an nn.RNN with ReLU, whose operation has it built in, a module compiled by torch.jit, and one whose
    `forward` was set on the object.
    """
    for each in replacement.modules():
        hint = "calls ReLU itself, and would be replaced in turn; SmeLU(0) is ReLU"
        require(not (_is_plain(each) or _sites(each)), "replacement", type(replacement).__name__, hint)
    if _is_plain(module):
        return replacement, 1
    stateful = any(True for _ in (*replacement.parameters(), *replacement.buffers()))
    places = [each for each in module.modules() if not _is_plain(each)]
    for each in places:
        _require_open(each, stateful)
    for each in places:
        _leave_built_in(each)
    sites = {each: _sites(each) for each in places}
    exchanged: dict[nn.Module, nn.Module] = {}
    for each in places:
        for name, child in each._modules.items():
            if child is not None and _is_plain(child):
                if child not in exchanged:
                    exchanged[child] = _exchanged(child, replacement)
                each._modules[name] = exchanged[child]
        if sites[each]:
            _divert(each, replacement, sites[each], stateful)
    return module, len(exchanged) + sum(sum(found.values()) for found in sites.values())


class ReLUCalls(TorchFunctionMode):
    """Counts the calls of relu by PyTorch functions while it is on: `with ReLUCalls() as found: model(x)`.

    Calls that were diverted do not count, nor does the relu in the formula of SmeLU. It sees its own thread alone, and
    neither what torch.jit or torch.export has compiled nor `torch.ops.aten.relu`.
    """

    calls: int
    """Calls so far; one of an operation that has ReLU built in counts as one."""

    def __init__(self) -> None:
        super().__init__()
        self.calls = 0

    def __torch_function__(
        self, func: Any, types: Any, args: Sequence[Any] = (), kwargs: Mapping[str, Any] | None = None
    ) -> Any:
        """Called by PyTorch in place of `func`."""
        if func in RELU or func in FUSED:
            self.calls += 1
        return func(*args, **(kwargs or {}))


class _Diverted(TorchFunctionMode):
    """Relu calls go to a module while this is on; inside that call it is off."""

    def __init__(self, replacement: nn.Module) -> None:
        super().__init__()
        self.replacement = replacement

    def __torch_function__(
        self, func: Any, types: Any, args: Sequence[Any] = (), kwargs: Mapping[str, Any] | None = None
    ) -> Any:
        """Called by PyTorch in place of `func`."""
        kwargs = kwargs or {}
        if func not in RELU:
            return func(*args, **kwargs)
        x = args[0] if args else kwargs["input"]
        if func in IN_PLACE or kwargs.get("inplace"):
            return _overwrite(x, self.replacement)
        return self.replacement(x)


def _overwrite(x: Tensor, function: Callable[[Tensor], Tensor]) -> Tensor:
    """x, now holding y; y is of a copy, for the backward pass may need the x that it was computed from."""
    return x.copy_(function(x.clone()))


def _require_open(module: nn.Module, stateful: bool) -> None:
    """Raises SettingError for a module whose ReLU is out of reach, of a replacement that is `stateful` at least."""
    kind = type(module).__name__
    built_in = isinstance(module, nn.RNNBase) and module.mode == "RNN_RELU"
    built_in |= isinstance(module, nn.RNNCell) and module.nonlinearity == "relu"
    hint = "its ReLU is built in and cannot be replaced; tanh can be chosen instead"
    require(not built_in, "module", f"{kind}(nonlinearity=relu)", hint)
    compiled = isinstance(module, torch.jit.ScriptModule)
    require(not compiled, "module", kind, "compiled by torch.jit: replace ReLU first, then compile")
    calls = _sites(module)
    hint = "its forward was set on the object, where its relu calls are out of reach: replace ReLU first"
    require(not (calls and "forward" in vars(module)), "module", kind, hint)
    in_order = isinstance(module, nn.Sequential | nn.ModuleList | nn.ModuleDict)
    hint = "its code calls relu and may run its children in order: a replacement with parameters would be one more"
    require(not (stateful and in_order and calls), "module", kind, hint)


def _leave_built_in(module: nn.Module) -> None:
    """Make torch's own transformer layers compute step by step, where a replacement can take part."""
    if isinstance(module, nn.TransformerEncoder):
        if any(getattr(layer, "activation_relu_or_gelu", 0) == 1 for layer in module.layers):
            module.use_nested_tensor = False  # nested tensors are for the fast path alone
    elif isinstance(module, nn.TransformerEncoderLayer):
        if module.activation_relu_or_gelu == 1:
            module.activation_relu_or_gelu = 0
    elif isinstance(module, nn.TransformerDecoderLayer):
        # its deep copies, nn.TransformerDecoder's too, forget a module kept here and take functional.relu
        if isinstance(module._modules.get("activation"), nn.ReLU):
            del module._modules["activation"]
            module.__dict__["activation"] = functional.relu


def _is_plain(module: nn.Module) -> bool:
    """An nn.ReLU, and not a subclass that makes something else of it."""
    return isinstance(module, nn.ReLU) and type(module).forward is nn.ReLU.forward


def _exchanged(relu: nn.Module, replacement: nn.Module) -> nn.Module:
    """A copy of the replacement that does as this nn.ReLU did."""
    result = copy.deepcopy(replacement).train(relu.training)
    if getattr(relu, "inplace", False):
        kind: Any = type(result)
        result.__class__ = _made(_overwriting, kind)
    return result


def _divert(module: nn.Module, replacement: nn.Module, sites: dict[str, int], stateful: bool) -> None:
    """Send the relu calls of this module to a copy of the replacement."""
    kept = copy.deepcopy(replacement).train(module.training)
    if stateful:
        module.register_module(KEPT, kept)
    else:  # not a child: code that goes through its children must not meet one more
        module.__dict__[KEPT] = kept
    kind: Any = type(module)
    methods = {name for name in sites if isinstance(inspect.getattr_static(kind, name, None), FunctionType)}
    module.__class__ = _made(_diverting, kind, tuple(sorted(methods | {"forward"})))


@functools.cache  # torch.func.stack_module_state wants modules of one class
def _diverting(kind: Any, methods: tuple[str, ...]) -> Any:
    """Subclass of a module's class in which relu calls are diverted while these methods run."""

    def diverted(method: Callable[..., Any]) -> Callable[..., Any]:
        @functools.wraps(method)
        def run(self: nn.Module, *args: Any, **kwargs: Any) -> Any:
            with _Diverted(getattr(self, KEPT)):
                return method(self, *args, **kwargs)

        return run

    def train(self: nn.Module, mode: bool = True) -> Any:
        getattr(self, KEPT).train(mode)
        return kind.train(self, mode)

    def extra_repr(self: nn.Module) -> str:
        return ", ".join(filter(None, (kind.extra_repr(self), f"relu={getattr(self, KEPT)}")))

    body: dict[str, Any] = {name: diverted(getattr(kind, name)) for name in methods}
    return _subclass(kind, body | {"train": train, "extra_repr": extra_repr}, _diverting, (kind, methods))


@functools.cache
def _overwriting(kind: Any) -> Any:
    """Subclass of an activation's class that works in place."""

    def forward(self: nn.Module, x: Tensor) -> Tensor:
        return _overwrite(x, functools.partial(kind.forward, self))

    return _subclass(kind, {"forward": forward}, _overwriting, (kind,))


def _subclass(kind: Any, body: dict[str, Any], make: Callable[..., Any], args: tuple[Any, ...]) -> Any:
    """A class that looks like `kind`; its objects are copied and pickled by `make(*args)`."""

    def reduce(self: Any, protocol: int) -> tuple[Any, ...]:
        return _bare, (make, args), self.__getstate__()

    looks = {name: getattr(kind, name) for name in ("__module__", "__qualname__", "__doc__")}
    return type(kind)(kind.__name__, (kind,), body | looks | {"__reduce_ex__": reduce})


def _bare(make: Callable[..., Any], args: tuple[Any, ...]) -> Any:
    """An object without its attributes: the first half of a copy."""
    kind = _made(make, *args)
    return kind.__new__(kind)


_MAKING = threading.RLock()


def _made(make: Callable[..., Any], *args: Any) -> Any:
    """`make(*args)`, one thread after another: a cache alone could make the same class twice."""
    with _MAKING:
        return make(*args)


def _sites(module: nn.Module) -> dict[str, int]:
    """Method or attribute -> places where its code names relu; empty for a module whose calls are diverted already.

    `__init__` has run. A method of a base that is overridden counts too: `super()` may reach it.
    """
    found: dict[str, int] = {}
    if hasattr(module, KEPT):
        return found
    if isinstance(module, nn.ReLU):  # a subclass: what it calls by `super()` is torch's own code
        return {"forward": 1}
    for kind in type(module).__mro__:
        if kind.__module__.partition(".")[0] in ("torch", "builtins"):
            continue
        for name, value in vars(kind).items():
            function = _function(value)
            if function and name != "__init__" and (count := _count(function, module, set())):
                found[name] = found.get(name, 0) + count
    for name, value in vars(module).items():
        if kept := sum(_kept(each, module) for each in _flat(value)):
            found[name] = kept
    return found


def _function(value: object) -> FunctionType | None:
    """The Python function behind a method, a property, a cached property or a decorator."""
    value = getattr(value, "fget", None) or getattr(value, "func", None) or getattr(value, "__func__", value)
    value = inspect.unwrap(value) if callable(value) else value
    return value if isinstance(value, FunctionType) else None


def _kept(value: object, module: nn.Module) -> int:
    """The same of one thing that a module keeps: relu itself, or a function of the same package."""
    if isinstance(value, FunctionType) and _package(value) == _package(type(module)) != "torch":
        return _count(value, module, set())
    return int(_is_relu(value))


def _flat(value: object) -> Iterator[object]:
    """A value, or those in a list, tuple or dict."""
    if isinstance(value, dict):
        yield from value.values()
    elif isinstance(value, list | tuple):
        yield from value
    else:
        yield value


def _is_relu(value: object) -> bool:
    """One of PyTorch's relu functions, also with arguments bound to it."""
    value = value.func if isinstance(value, functools.partial) else value
    return isinstance(value, FunctionType | BuiltinFunctionType | MethodDescriptorType) and value in RELU


def _count(function: FunctionType, module: nn.Module, seen: set[CodeType]) -> int:
    """Places where a function, or one of the same package that it names, names or calls relu."""
    code = function.__code__
    if code in seen:
        return 0
    seen.add(code)
    count = 0
    for names, called in _names(code):
        value = _look_up(names, function, module)
        if value is UNKNOWN:
            count += called and names[-1] in NAMES
        elif _is_relu(value):
            count += 1
        elif isinstance(value, FunctionType) and _package(value) == _package(type(module)):
            count += _count(value, module, seen)
    return count


UNKNOWN = object()
"""What a name stands for is seen only when the code runs: a local variable, or the value of an expression."""


def _look_up(names: tuple[str, ...], function: FunctionType, module: nn.Module) -> object:
    """What a dotted name in a function's code stands for, as far as it can be told without running code."""
    first, *rest = names
    code = function.__code__
    closure = dict(zip(code.co_freevars, function.__closure__ or (), strict=True))
    value: object = UNKNOWN
    if first == "self" and code.co_varnames[:1] == ("self",):
        if rest[-1:] and rest[-1] not in NAMES:
            return None
        value = module
    elif first in closure:
        try:
            value = closure[first].cell_contents
        except ValueError:  # assigned later
            return UNKNOWN
    elif first not in code.co_varnames + code.co_cellvars:
        value = function.__globals__.get(first, UNKNOWN)
    for name in rest:
        if value is torch.ops:  # below the functions that a mode can divert
            return None
        if isinstance(value, nn.Module):
            value = getattr(value, name, UNKNOWN)
        elif isinstance(value, ModuleType):
            value = vars(value).get(name, UNKNOWN)
        elif isinstance(value, type):
            value = inspect.getattr_static(value, name, UNKNOWN)
        else:
            return UNKNOWN
    return value


def _package(value: FunctionType | type) -> str:
    """The top package that something is defined in."""
    return (value.__module__ or "").partition(".")[0]


@functools.cache
def _names(code: CodeType) -> tuple[tuple[tuple[str, ...], bool], ...]:
    """Dotted names in the source of a function, and whether they are called; `f(x).relu` begins with an empty one.

    Without source, as on the Python prompt, all that is known is which names the code uses: relu counts as called.
    """
    try:
        tree = ast.parse(textwrap.dedent(inspect.getsource(code)))
    except (OSError, TypeError, SyntaxError):
        inner = [each for each in code.co_consts if isinstance(each, CodeType)]
        own = ((("", name), True) for name in code.co_names if name in NAMES)
        return (*own, *(found for each in inner for found in _names(each)))
    called = {id(node.func) for node in ast.walk(tree) if isinstance(node, ast.Call)}
    chains = (node for node in ast.walk(tree) if isinstance(node, ast.Attribute | ast.Name))
    return tuple((_chain(node), id(node) in called) for node in chains)


def _chain(node: ast.expr) -> tuple[str, ...]:
    """`torch.nn.functional.relu` -> its four names."""
    if isinstance(node, ast.Name):
        return (node.id,)
    return (*_chain(node.value), node.attr) if isinstance(node, ast.Attribute) else ("",)
