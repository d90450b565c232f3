"""SmeLU as a module under every transform of PyTorch, and ReLU replaced wherever a network may have it."""

from __future__ import annotations

import copy
import functools
import pickle
import threading
import warnings
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.nn.functional import relu as rectified

from simulator.errors import SettingError
from simulator.models.activations import gsmelu, smelu
from simulator.models.modules import ReLUCalls, SmeLU, gSmeLU, replace_relu, replaced
from simulator.models.own import Maker
from simulator.models.specs import Own
from simulator.types import Schema
from tests.models.conftest import SINGLE
from tests.models.cpp import NO_COMPILER

MODULES = [SmeLU(), SmeLU(0.3), SmeLU(0), gSmeLU(), gSmeLU(0.1, 0.9, 0.5, 1.5, -0.2)]
SMOOTH = MODULES[:2] + MODULES[3:]


# PyTorch uses its own old compiler where it computes Hessians and compiles: that is its own affair.
OLD_COMPILER = pytest.mark.filterwarnings("ignore:`torch.jit.script(_method)?` is deprecated:DeprecationWarning")


def points(*shape: int) -> Tensor:
    """Random x, the same each time."""
    return torch.randn(shape, generator=torch.Generator().manual_seed(3), dtype=torch.float64)


def expected(module: nn.Module, x: Tensor) -> Tensor:
    """The same by the functions of activations.py."""
    if isinstance(module, SmeLU):
        return smelu(x, module.beta)
    assert isinstance(module, gSmeLU)
    return gsmelu(x, module.gminus, module.gplus, module.alpha, module.beta, module.t)


# SmeLU and gSmeLU


@pytest.mark.parametrize("module", MODULES, ids=str)
def test_a_module_is_its_function(module: nn.Module) -> None:
    assert torch.equal(module(points(40)), expected(module, points(40)))
    assert not module.state_dict()


@pytest.mark.parametrize("module", SMOOTH, ids=str)
def test_first_and_second_derivatives(module: nn.Module) -> None:
    x = (2 * points(30)).requires_grad_()
    assert torch.autograd.gradcheck(module, x) and torch.autograd.gradgradcheck(module, x)


@OLD_COMPILER
@pytest.mark.parametrize("module", SMOOTH, ids=str)
def test_the_transforms_of_torch_func(module: nn.Module) -> None:
    x = points(12)
    slopes = torch.stack([torch.func.grad(module)(each) for each in x])
    assert torch.equal(torch.vmap(torch.func.grad(module))(x), slopes)
    assert torch.equal(torch.vmap(module)(x.view(3, 4)), module(x).view(3, 4))
    curvature = torch.vmap(torch.func.grad(torch.func.grad(module)))(x)
    hessian = torch.func.hessian(lambda x: module(x).sum())(x)
    torch.testing.assert_close(hessian, torch.diag(curvature))
    assert (curvature > 0).any()


def network(activation: nn.Module) -> nn.Module:
    """Two layers in float64."""
    return nn.Sequential(nn.Linear(4, 8), activation, nn.Linear(8, 1)).double()


@pytest.mark.parametrize("replace", [False, True], ids=["module", "replaced call"])
def test_stacked_models_learn_as_each_alone(replace: bool) -> None:
    """By torch.func.stack_module_state: the way to train many duplicates in one step."""
    models = [replace_relu(Functional().double(), SmeLU()) if replace else network(SmeLU()) for _ in range(3)]
    base = copy.deepcopy(models[0]).to("meta")
    parameters, buffers = torch.func.stack_module_state(models)

    def loss(parameters: dict[str, Tensor], buffers: dict[str, Tensor], x: Tensor) -> Tensor:
        result: Tensor = torch.func.functional_call(base, (parameters, buffers), (x,))
        return result.square().sum()

    x = points(5, 4)
    gradients = torch.vmap(torch.func.grad(loss), in_dims=(0, 0, None))(parameters, buffers, x)
    for number, model in enumerate(models):
        model(x).square().sum().backward()
        for name, parameter in model.named_parameters():
            torch.testing.assert_close(gradients[name][number], parameter.grad)


@pytest.mark.parametrize("module", MODULES, ids=str)
def test_torch_jit_compiles_it(module: nn.Module) -> None:
    model = network(module)
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", "`torch.jit.script` is", DeprecationWarning)  # to say so is up to its users
        compiled = torch.jit.script(model)
        assert torch.equal(compiled(points(5, 4)), model(points(5, 4)))


@pytest.mark.parametrize("module", MODULES, ids=str)
def test_torch_export_takes_it(module: nn.Module) -> None:
    model = network(module)
    exported = torch.export.export(model, (points(5, 4),)).module()
    assert torch.equal(exported(points(5, 4)), model(points(5, 4)))


@OLD_COMPILER
@NO_COMPILER
@pytest.mark.parametrize("module", [SmeLU(0.3), gSmeLU(0.1, 0.9, 0.5, 1.5, -0.2)], ids=str)
def test_torch_compile_takes_it(module: nn.Module) -> None:
    x, other = points(40).requires_grad_(), points(40).requires_grad_()
    y, same = torch.compile(module, fullgraph=True)(x), module(other)
    torch.testing.assert_close(y, same, rtol=1e-13, atol=1e-14)
    y.sum().backward()
    same.sum().backward()
    torch.testing.assert_close(x.grad, other.grad, rtol=1e-13, atol=1e-14)


@pytest.mark.parametrize(
    ("make", "named"),
    [
        (lambda: SmeLU(-1), "smelu: beta = -1.0: 0 (ReLU) or more"),
        (lambda: SmeLU(float("nan")), "smelu: beta = nan: a finite number"),
        (lambda: SmeLU(float("inf")), "smelu: beta = inf: a finite number"),
        (lambda: SmeLU(1e-40), "smelu: beta = 1e-40: a finite number: 0, or between 1e-6"),
        (lambda: gSmeLU(alpha=-1, beta=0.5), "gsmelu: alpha + beta = -0.5: more than 0"),
        (lambda: gSmeLU(alpha=0, beta=0), "gsmelu: alpha + beta = 0.0: more than 0"),
        (lambda: gSmeLU(gminus=float("nan")), "gsmelu: gminus = nan"),
        (lambda: gSmeLU(t=float("inf")), "gsmelu: t = inf"),
    ],
)
def test_a_bad_setting_is_named_when_it_is_built(make: Callable[[], nn.Module], named: str) -> None:
    with pytest.raises(SettingError) as caught:
        make()
    assert named in str(caught.value) and isinstance(caught.value, ValueError)


def test_what_print_shows() -> None:
    assert repr(SmeLU(0.5)) == "SmeLU(beta=0.5)"
    assert repr(gSmeLU(t=-0.2)) == "gSmeLU(gminus=0, gplus=1, alpha=1, beta=1, t=-0.2)"


# replace_relu: networks that have ReLU in one way each


class TwoLayers(nn.Module):
    """Up, what the ways below do with x, down."""

    def __init__(self) -> None:
        super().__init__()
        self.up, self.down = nn.Linear(4, 8), nn.Linear(8, 1)

    def middle(self, x: Tensor) -> Tensor:
        return torch.tanh(x)

    def forward(self, x: Tensor) -> Any:
        return self.down(self.middle(self.up(x)))

    def by_hand(self, x: Tensor, activation: Callable[[Tensor], Tensor]) -> Tensor:
        """What `forward` is, with any activation."""
        result: Tensor = self.down(activation(self.up(x)))
        return result


class Functional(TwoLayers):
    def middle(self, x: Tensor) -> Tensor:
        return F.relu(x)


class Torch(TwoLayers):
    def middle(self, x: Tensor) -> Tensor:
        return torch.relu(input=x)


class Method(TwoLayers):
    def forward(self, x: Tensor) -> Any:
        return self.down(self.up(x).relu())


class InPlaceMethod(TwoLayers):
    def middle(self, x: Tensor) -> Tensor:
        x.relu_()
        return x


class InPlaceFunction(TwoLayers):
    def middle(self, x: Tensor) -> Tensor:
        F.relu(x, inplace=True)
        return x


class InPlaceTorch(TwoLayers):
    def middle(self, x: Tensor) -> Tensor:
        torch.relu_(x)
        return x


class Imported(TwoLayers):
    def middle(self, x: Tensor) -> Tensor:
        return rectified(x)


class OfItsTensor(TwoLayers):
    """`self.kept.relu` is not one of a submodule."""

    def middle(self, x: Tensor) -> Tensor:
        self.kept = x
        return self.kept.relu()


class Module(TwoLayers):
    def __init__(self) -> None:
        super().__init__()
        self.relu = nn.ReLU()

    def middle(self, x: Tensor) -> Tensor:
        return self.relu(x)  # type: ignore[no-any-return]


class Attribute(TwoLayers):
    def __init__(self) -> None:
        super().__init__()
        self.relu = F.relu

    def middle(self, x: Tensor) -> Tensor:
        return self.relu(x)


class Super(Functional):
    def middle(self, x: Tensor) -> Tensor:
        return super().middle(x)


class Static(TwoLayers):
    @staticmethod
    def rectify(x: Tensor) -> Tensor:
        return F.relu(x)

    def middle(self, x: Tensor) -> Tensor:
        return self.rectify(x)


class DataDependent(TwoLayers):
    def middle(self, x: Tensor) -> Tensor:
        return F.relu(x) if x.sum() > -1e9 else x


class Nested(TwoLayers):
    """The outer code calls relu too: none of its modes may reach into the replacement of an inner one."""

    def __init__(self) -> None:
        super().__init__()
        self.inner = Functional()
        self.act = nn.ReLU()

    def forward(self, x: Tensor) -> Any:
        return self.inner(x) + self.down(self.act(self.up(x))) + 0 * F.relu(x).sum()

    def by_hand(self, x: Tensor, activation: Callable[[Tensor], Tensor]) -> Tensor:
        return self.inner.by_hand(x, activation) + super().by_hand(x, activation)


class InOrder(nn.Sequential):
    """Code that goes through its children must not meet one more."""

    def __init__(self) -> None:
        super().__init__(nn.Linear(4, 8), nn.Linear(8, 1))

    def forward(self, x: Tensor) -> Any:
        for number, layer in enumerate(self):
            x = layer(F.relu(x)) if number else layer(x)
        return x

    def by_hand(self, x: Tensor, activation: Callable[[Tensor], Tensor]) -> Tensor:
        result: Tensor = self[1](activation(self[0](x)))
        return result


WAYS: list[type[Any]] = [Functional, Torch, Method, InPlaceMethod, InPlaceFunction, InPlaceTorch, Imported, OfItsTensor]
WAYS += [Module, Attribute, Super, Static, DataDependent, Nested, InOrder]


@pytest.mark.parametrize("way", WAYS)
def test_every_way_of_relu_is_replaced(way: type[Any]) -> None:
    model: Any = way().double()
    x, smooth = points(6, 4), SmeLU(0.7)
    names = list(model.state_dict())
    with ReLUCalls() as found:
        torch.testing.assert_close(model(x), model.by_hand(x, torch.relu))
    assert found.calls > 1
    result, count = replaced(model, smooth)
    assert (result, count) == (model, 3 if way is Nested else 1) and isinstance(result, way)
    assert list(model.state_dict()) == names and replaced(model, SmeLU(2))[1] == 0
    with ReLUCalls() as found:
        y = model(x)
    assert found.calls == 0
    assert torch.equal(y, model.by_hand(x, smooth))
    weights = tuple(model.parameters())
    gradients = [torch.autograd.grad(each.sum(), weights) for each in (y, model.by_hand(x, smooth))]
    torch.testing.assert_close(*gradients)


@pytest.mark.parametrize("way", [Functional, Module, Attribute, Nested, InOrder])
def test_a_copy_runs_on_its_own_parameters(way: type[Any]) -> None:
    model, x = replace_relu(way(), SmeLU(0.7)), points(6, 4).float()
    twin: Any = copy.deepcopy(model)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(1)
    assert torch.equal(twin(x), twin.by_hand(x, SmeLU(0.7))) and not torch.equal(twin(x), model(x))
    twin.load_state_dict(model.state_dict())
    assert torch.equal(twin(x), model(x))
    assert torch.equal(pickle.loads(pickle.dumps(twin))(x), twin(x))


@pytest.mark.parametrize("way", [InPlaceMethod, Nested])
def test_replaced_models_are_exported(way: type[Any]) -> None:
    model, x = replace_relu(way(), SmeLU(0.7)), points(6, 4).float()
    assert torch.equal(torch.export.export(model, (x,)).module()(x), model(x))


@OLD_COMPILER
@NO_COMPILER
def test_replaced_models_are_compiled() -> None:
    model, x = replace_relu(Nested(), SmeLU(0.7)), points(6, 4).float()
    torch.testing.assert_close(torch.compile(model, fullgraph=True)(x), model(x))


def test_functional_call_takes_other_parameters() -> None:
    model, other, x = replace_relu(Functional(), SmeLU()), Functional(), points(6, 4).float()
    y = torch.func.functional_call(model, dict(other.named_parameters()), (x,))
    assert torch.equal(y, other.by_hand(x, SmeLU()))


def test_relu_alone_is_the_replacement_itself() -> None:
    replacement = SmeLU(2)
    assert replace_relu(nn.ReLU(), replacement) is replacement
    assert replaced(nn.ReLU(), replacement) == (replacement, 1)


def test_each_relu_has_its_own_copy_and_shared_ones_share_one() -> None:
    shared, replacement = nn.ReLU(), nn.PReLU()
    model = nn.Sequential(shared, nn.Linear(3, 3), shared, nn.Sequential(nn.ReLU(), nn.ReLU6(), shared))
    result, count = replaced(model, replacement)
    inner: Any = model[3]
    assert result is model and count == 2
    assert model[0] is model[2] is inner[2] is not replacement and inner[0] is not model[0]
    assert {type(each) for each in model.modules()} == {nn.Sequential, nn.PReLU, nn.Linear, nn.ReLU6}


def test_a_replacement_follows_train_and_eval() -> None:
    """Wherever it is kept: RReLU is random while it learns."""
    x = points(64, 4).float()
    for model in (Functional(), Module()):
        replace_relu(model.eval(), nn.RReLU())
        assert torch.equal(model(x), model(x))
        model.train()
        assert not torch.equal(model(x), model(x))
        model.eval()
        assert torch.equal(model(x), model(x))


def test_a_replacement_with_parameters_learns_and_is_saved() -> None:
    model, x = Functional(), points(6, 4).float()
    before = list(model.state_dict())
    replace_relu(model, nn.PReLU())
    assert list(model.state_dict()) == [*before, "relu_replacement.weight"]
    model(x).sum().backward()
    gradient = model.get_parameter("relu_replacement.weight").grad
    assert gradient is not None and gradient.item() != 0
    with torch.no_grad():
        model.get_parameter("relu_replacement.weight").fill_(1.0)
    assert torch.equal(model(x), model.by_hand(x, lambda x: x))


def test_a_method_may_be_called_from_outside() -> None:
    model, x = replace_relu(Functional(), SmeLU()), points(6, 4)
    assert torch.equal(model.middle(x), smelu(x))  # type: ignore[operator]


def test_every_call_in_the_code_counts() -> None:
    class Several(nn.Module):
        @torch.no_grad()
        def forward(self, x: Tensor) -> Any:
            return torch.relu(x) + F.relu(x) + sum(each.relu() for each in (x,))

    model, count = replaced(Several(), SmeLU())
    assert count == 3
    torch.testing.assert_close(model(points(4)), 3 * smelu(points(4)))


def test_threads_at_once() -> None:
    """Each diverts its own calls alone; one that has nothing replaced goes on with ReLU beside them."""
    x, plain = points(6, 4).float(), Functional()
    models: list[Any] = [replace_relu(Functional(), SmeLU(beta)) for beta in (0.5, 1.0, 2.0)]
    together = threading.Barrier(4)

    def work(number: int) -> bool:
        together.wait()
        if number == 3:
            return all(torch.equal(plain(x), plain.by_hand(x, torch.relu)) for _ in range(200))
        smooth = SmeLU((0.5, 1.0, 2.0)[number])
        return all(torch.equal(models[number](x), models[number].by_hand(x, smooth)) for _ in range(200))

    with ThreadPoolExecutor(4) as pool:
        assert list(pool.map(work, range(4))) == [True] * 4


def layer(activation: Any) -> nn.TransformerEncoderLayer:
    """One of torch's own."""
    return nn.TransformerEncoderLayer(8, 2, 16, dropout=0.0, activation=activation, batch_first=True)


@pytest.mark.parametrize("activation", ["relu", nn.ReLU()], ids=["function", "module"])
@pytest.mark.parametrize("mode", ["train", "no grad"])
def test_transformer_layers_learn_and_infer_with_the_replacement(activation: Any, mode: str) -> None:
    """In eval mode without gradients PyTorch has a fast path with ReLU built in."""
    model = nn.TransformerEncoder(layer(activation), 2).train(mode == "train")
    same = nn.TransformerEncoder(layer(smelu), 2, enable_nested_tensor=False).train(mode == "train")
    same.load_state_dict(model.state_dict())
    x = points(3, 5, 8).float()
    padding = torch.arange(5) >= torch.tensor([[5], [3], [4]])
    assert replaced(model, SmeLU())[1] == 2
    for each in (model, copy.deepcopy(model)):
        with torch.set_grad_enabled(mode != "no grad"):
            torch.testing.assert_close(each(x), same(x))
            mine, theirs = (one(x, src_key_padding_mask=padding)[~padding] for one in (each, same))
            torch.testing.assert_close(mine, theirs)


# what is not found, and what is refused


class OwnMethod(TwoLayers):
    """Its relu is its own, and none."""

    def relu(self, x: Tensor) -> Tensor:
        return torch.tanh(x)

    def middle(self, x: Tensor) -> Tensor:
        return self.relu(x)


class Operator(TwoLayers):
    """Asks below the functions that can be diverted."""

    def middle(self, x: Tensor) -> Tensor:
        return torch.ops.aten.relu(x)  # type: ignore[no-any-return]


def rectify(x: Tensor) -> Tensor:
    return F.relu(x)


class Beside(TwoLayers):
    """Calls a function outside the class."""

    def middle(self, x: Tensor) -> Tensor:
        return rectify(x)


def typed() -> nn.Module:
    """Without source, as on the Python prompt."""
    space: dict[str, Any] = {"nn": nn, "F": F, "__name__": "prompt"}
    exec("class Typed(nn.Module):\n    def forward(self, x):\n        return F.relu(x)", space)
    model: nn.Module = space["Typed"]()
    return model


WITHOUT = [nn.Sequential(), TwoLayers(), OwnMethod(), Operator(), Beside(), typed(), network(nn.GELU()), layer("gelu")]


@pytest.mark.parametrize("model", WITHOUT, ids=lambda model: type(model).__name__)
def test_none_found_is_an_error_of_one_line(model: nn.Module) -> None:
    assert replaced(model, SmeLU()) == (model, 0)
    with pytest.raises(SettingError) as caught:
        replace_relu(model, SmeLU())
    assert str(caught.value).startswith(f"replace_relu: module = {type(model).__name__}: no ReLU found")
    assert "\n" not in str(caught.value)


def with_own_forward() -> nn.Module:
    """A model whose forward hides that of its class, as some libraries do."""
    model = Method()
    model.forward = functools.partial(Method.forward, model)  # type: ignore[method-assign]
    return model


@pytest.mark.parametrize(
    ("part", "replacement", "named"),
    [
        (nn.RNN(2, 2, nonlinearity="relu"), SmeLU(), "RNN(nonlinearity=relu): its ReLU is"),
        (nn.RNNCell(2, 2, nonlinearity="relu"), SmeLU(), "RNNCell(nonlinearity=relu)"),
        (with_own_forward(), SmeLU(), "Method: its forward was set on the object"),
        (nn.Identity(), nn.ReLU(), "replacement = ReLU: calls ReLU itself"),
        (nn.Identity(), nn.Sequential(Functional()), "replacement = Sequential: calls ReLU itself"),
    ],
)
def test_what_cannot_be_replaced_is_named_and_nothing_is_changed(
    part: nn.Module, replacement: nn.Module, named: str
) -> None:
    model = nn.Sequential(nn.ReLU(), part)
    with pytest.raises(SettingError) as caught:
        replace_relu(model, replacement)
    assert named in str(caught.value) and "\n" not in str(caught.value)
    assert type(model[0]) is nn.ReLU


def test_a_compiled_module_is_refused() -> None:
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", "`torch.jit.script` is", DeprecationWarning)
        compiled = torch.jit.script(nn.Sequential(nn.ReLU()))
    with pytest.raises(SettingError, match="compiled by torch.jit"):
        replace_relu(compiled, SmeLU())


# ReLUCalls


def test_calls_that_still_happen_are_counted() -> None:
    x = points(4)
    with ReLUCalls() as found:
        for call in (F.relu, torch.relu, Tensor.relu, nn.ReLU(), rectify):
            call(x)
        F.relu_(x.clone())
        F.relu(x.clone(), inplace=True)
        assert found.calls == 7
        nn.RNN(4, 2, nonlinearity="relu")(x.view(1, 1, 4).float())
        nn.RNNCell(4, 2, nonlinearity="relu")(x.view(1, 4).float())
        assert found.calls == 9
        for quiet in (SmeLU(), SmeLU(0), gSmeLU(), smelu, gsmelu, torch.tanh):
            quiet(x)
        assert found.calls == 9
    F.relu(x)
    assert found.calls == 9


class Halfway(TwoLayers):
    """For an arm: one ReLU that is found, one that is not."""

    def __init__(self, schema: Schema) -> None:
        super().__init__()
        self.name, self.act, self.beside = schema.fields[0].name, nn.ReLU(), Beside()

    def forward(self, features: dict[str, Tensor]) -> Any:
        x = features[self.name].view(-1, 1).float().expand(-1, 4)
        return self.beside(self.act(x)).squeeze(1)


def test_an_arm_in_which_relu_is_left_is_refused() -> None:
    """What reading does not find must not run as if it were replaced."""
    factory = f"{__name__}:Halfway"
    assert Maker(SINGLE, Own(factory)).make(0).replaced == 0
    with pytest.raises(SettingError, match="1 calls of relu are left that are not in the source"):
        Maker(SINGLE, Own(factory, relu="smelu")).make(0)
