"""SmeLU and gSmeLU as modules for your own network, and `replace_relu`, which puts them where its ReLU stood.

ReLU stands in a network as a module, nn.ReLU, which is exchanged, or as a call in a class's own code, such as
`functional.relu(x)` or `x.relu()`. Such calls are found in the source, and diverted by a TorchFunctionMode while the
methods of that class run. Nothing is rewritten: control flow that depends on data, threads, torch.func, torch.compile
and torch.export work as before. Not so torch.utils.checkpoint of a function that calls relu itself, which runs again in
the backward pass, outside of all methods: checkpoint a module instead. torch.fx, which could rewrite the calls, fails
on `if x.sum() > 0`, fixes `self.training`, and patches torch.nn.Module under other threads while it traces.

The search follows no names: it misses a call in a function outside the class. `ReLUCalls` counts what is left.
"""

from __future__ import annotations

import ast
import copy
import functools
import inspect
import textwrap
from collections.abc import Callable
from contextlib import suppress
from types import FunctionType
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional
from torch.overrides import TorchFunctionMode

from simulator.config import require
from simulator.models import activations

IN_PLACE_RELU = frozenset({torch.relu_, Tensor.relu_})  # functional.relu_ is torch.relu_
RELU = IN_PLACE_RELU | {functional.relu, torch.relu, Tensor.relu}  # what a mode is given for a call of relu
FUSED_RELU = frozenset({torch.rnn_relu, torch.rnn_relu_cell})  # operations with ReLU inside
ATTRIBUTE = "relu_replacement"
"""Attribute of a module whose relu calls are diverted: the module that they go to."""


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
    """As `replace_relu`, but without an error where there is none: the module, and the number of ReLUs replaced.

    It replaces
    - each nn.ReLU, which counts once however many places it stands in; they go on sharing one replacement;
    - each call of `relu` or `relu_`, or of functional.relu by another name, in the methods of a module's class;
    - each relu function kept as an attribute, as nn.TransformerEncoderLayer does. Its fast path for inference, which
      has ReLU built in, is switched off.
    It misses calls in functions outside these classes, and code without source; `ReLUCalls` counts what is left.

    Names in the state dict stay; a replacement with parameters adds its own, and is one more child where calls were
    diverted. Calls in place still overwrite; an nn.ReLU(inplace=True) is exchanged like any other, with its hooks, and
    no longer does. torch.jit.script, unlike torch.compile, refuses diverted calls.

    Raises SettingError, before anything is changed, for a replacement that calls relu itself, and for what cannot be
    changed: an nn.RNN with ReLU, a module compiled by torch.jit, and one whose `forward` was set on the object.
    """
    for part in replacement.modules():
        hint = "calls ReLU itself, and would be replaced in turn; SmeLU(0) is ReLU"
        require(not (_is_relu(part) or _sites(part)), "replacement", type(replacement).__name__, hint)
    if _is_relu(module):
        return replacement, 1
    places = [part for part in module.modules() if not _is_relu(part)]
    for part in places:
        _require_open(part)
    exchanged: dict[nn.Module | None, nn.Module] = {
        part: copy.deepcopy(replacement).train(part.training) for part in module.modules() if _is_relu(part)
    }
    count = len(exchanged)
    for part in places:
        _leave_fast_path(part)
        for name, child in part._modules.items():
            part._modules[name] = exchanged.get(child, child)
        if sites := _sites(part):
            _divert(part, replacement, sites)
            count += len(sites)
    return module, count


class ReLUCalls(TorchFunctionMode):
    """Counts the calls of relu by PyTorch functions while it is on: `with ReLUCalls() as relu: model(x)`.

    Calls that were diverted do not count, nor does the relu in the formula of SmeLU. It sees its own thread alone, and
    neither what torch.jit or torch.export has compiled nor `torch.ops.aten.relu`.
    """

    calls: int = 0
    """Calls so far; one of an operation that has ReLU built in counts as one."""

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        """Called by PyTorch in place of `func`."""
        self.calls += func in RELU | FUSED_RELU
        return func(*args, **(kwargs or {}))


class _Diverted(TorchFunctionMode):
    """Relu calls go to a module while this is on; inside that call it is off."""

    def __init__(self, replacement: nn.Module) -> None:
        super().__init__()
        self.replacement = replacement

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        """Called by PyTorch in place of `func`."""
        kwargs = kwargs or {}
        if func not in RELU:
            return func(*args, **kwargs)
        x = args[0] if args else kwargs["input"]
        if func in IN_PLACE_RELU or kwargs.get("inplace"):
            return x.copy_(self.replacement(x.clone()))  # the backward pass may need the x that y was computed from
        return self.replacement(x)


def _is_relu(module: nn.Module) -> bool:
    """An nn.ReLU, and not a subclass that makes something else of it."""
    return isinstance(module, nn.ReLU) and type(module).forward is nn.ReLU.forward


def _require_open(module: nn.Module) -> None:
    """Raises SettingError for a module whose ReLU is out of reach."""
    kind = type(module).__name__
    built_in = isinstance(module, nn.RNN | nn.RNNCell) and module.nonlinearity == "relu"
    require(not built_in, "module", f"{kind}(nonlinearity=relu)", "its ReLU is built in; tanh can be chosen instead")
    compiled = isinstance(module, torch.jit.ScriptModule)
    require(not compiled, "module", kind, "compiled by torch.jit: replace ReLU first, then compile")
    is_overridden = "forward" in vars(module) and _sites(module)
    require(not is_overridden, "module", kind, "its forward was set on the object: replace ReLU first")


def _leave_fast_path(module: nn.Module) -> None:
    """Make torch's transformer layers compute step by step, where a replacement can take part."""
    if isinstance(module, nn.TransformerEncoder):
        if any(getattr(layer, "activation_relu_or_gelu", 0) == 1 for layer in module.layers):
            module.use_nested_tensor = False  # nested tensors are for the fast path alone
    elif isinstance(module, nn.TransformerEncoderLayer) and module.activation_relu_or_gelu == 1:
        module.activation_relu_or_gelu = 0


def _sites(module: nn.Module) -> list[str]:
    """The method of each relu call in the source; "forward" for a relu function that is an attribute of the module."""
    if hasattr(module, ATTRIBUTE):  # diverted already
        return []
    kind: Any = type(module)
    calls = _calls(kind)
    # `self.encoder.relu` of a module is found there, or is no relu; that of a tensor is a call of relu
    children = {f"self.{name}".rstrip(".") for name, _ in module.named_modules(remove_duplicate=False)}
    attributes = ["forward" for value in vars(module).values() if any(value is relu for relu in RELU)]
    return [method for method, call in calls if call.rpartition(".")[0] not in children] + attributes


@functools.cache
def _calls(kind: type) -> list[tuple[str, str]]:
    """Each relu call in the source of a class and its bases: the method, and what is called, as `functional.relu`.

    Read method by method: of a whole class, a notebook does not know the source.
    """
    sites = []
    for method in {name for base in kind.__mro__ for name in vars(base)} - {"__init__"}:  # which has run
        for function in (inspect.unwrap(vars(base)[method]) for base in kind.__mro__ if method in vars(base)):
            if not isinstance(function, FunctionType):
                break
            calls = _called(function)
            aliases = {name for name, base in function.__globals__.items() if base is functional.relu}
            divertible = (call for call in calls if not call.startswith("torch.ops."))  # a mode cannot divert these
            sites += [(method, call) for call in divertible if call.rpartition(".")[2] in {"relu", "relu_"} | aliases]
            if "super" not in calls:  # a method that is overridden is reached by it alone
                break
    return sites


@functools.cache
def _called(function: FunctionType) -> tuple[str, ...]:
    """The calls in a function's source; none where there is no source."""
    with suppress(OSError, SyntaxError):
        tree = ast.parse("class _:\n" + textwrap.indent(inspect.getsource(function), " "))
        return tuple(ast.unparse(node.func) for node in ast.walk(tree) if isinstance(node, ast.Call))
    return ()


def _divert(module: nn.Module, replacement: nn.Module, sites: list[str]) -> None:
    """Send the relu calls of this module to a copy of the replacement."""
    target = copy.deepcopy(replacement).train(module.training)
    if [*target.parameters(), *target.buffers()]:
        module.register_module(ATTRIBUTE, target)
    else:  # not a child: code that goes through its children must not meet one more
        module.__dict__[ATTRIBUTE] = target
    kind: Any = type(module)
    methods = {name for name in sites if isinstance(inspect.getattr_static(kind, name), FunctionType)}
    module.__class__ = _diverting(kind, tuple(sorted(methods | {"forward"})))


@functools.cache  # torch.func.stack_module_state wants modules of one class
def _diverting(kind: Any, methods: tuple[str, ...]) -> Any:
    """Subclass that looks like a module's class, in which relu calls are diverted while these methods run."""

    def diverted(method: Callable[..., Any]) -> Callable[..., Any]:
        @functools.wraps(method)
        def run(self: nn.Module, *args: Any, **kwargs: Any) -> Any:
            with _Diverted(getattr(self, ATTRIBUTE)):
                return method(self, *args, **kwargs)

        del run.__wrapped__  # or torch.jit.script would compile what it reads there, with relu
        return run

    def train(self: nn.Module, mode: bool = True) -> Any:
        getattr(self, ATTRIBUTE).train(mode)
        return kind.train(self, mode)

    body = {name: getattr(kind, name) for name in ("__module__", "__qualname__", "__doc__")}
    body |= {name: diverted(getattr(kind, name)) for name in methods}
    body |= {"train": train, "__reduce_ex__": lambda self, _: (_bare, (kind, methods), self.__getstate__())}
    return type(kind)(kind.__name__, (kind,), body)


def _bare(kind: Any, methods: tuple[str, ...]) -> Any:
    """An object without its attributes: the first half of a copy, for pickle cannot find its class by name."""
    return object.__new__(_diverting(kind, methods))
