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
from simulator.models.specs import CustomModel
from simulator.types import Schema
from tests.models.conftest import SINGLE
from tests.models.cpp import NO_COMPILER

MODULES = [SmeLU(0.3), SmeLU(0), gSmeLU(0.1, 0.9, 0.5, 1.5, -0.2)]

# PyTorch uses its own old compiler where it computes Hessians and compiles: that is its own affair.
OLD_COMPILER = pytest.mark.filterwarnings("ignore:`torch.jit.script(_method)?` is deprecated:DeprecationWarning")


def points(*shape: int) -> Tensor:
    """Random x, the same each time."""
    return torch.randn(shape, generator=torch.Generator().manual_seed(3), dtype=torch.float64)


# SmeLU and gSmeLU; derivatives and transforms of their functions: test_activations.py


def test_a_module_is_its_function() -> None:
    assert torch.equal(SmeLU(0.3)(points(40)), smelu(points(40), 0.3))
    settings = {"gminus": 0.1, "gplus": 0.9, "alpha": 0.5, "beta": 1.5, "t": -0.2}
    assert torch.equal(gSmeLU(**settings)(points(40)), gsmelu(points(40), **settings))
    assert torch.equal(SmeLU()(points(40)), smelu(points(40))) and torch.equal(gSmeLU()(points(40)), gsmelu(points(40)))
    assert not SmeLU().state_dict() and not gSmeLU().state_dict()
    assert repr(SmeLU(0.5)) == "SmeLU(beta=0.5)"
    assert repr(gSmeLU(t=-0.2)) == "gSmeLU(gminus=0, gplus=1, alpha=1, beta=1, t=-0.2)"


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
def test_torch_jit_takes_it(module: nn.Module) -> None:
    model = network(module)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)  # of torch.jit: to say so is up to its users
        assert torch.equal(torch.jit.script(model)(points(5, 4)), model(points(5, 4)))


@pytest.mark.parametrize(
    ("make", "named"),
    [
        (lambda: SmeLU(-1), "smelu: beta = -1.0: 0 (ReLU) or more"),
        (lambda: SmeLU(float("nan")), "smelu: beta = nan: a finite number"),
        (lambda: SmeLU(1e-40), "smelu: beta = 1e-40: a finite number: 0, or between 1e-6"),
        (lambda: gSmeLU(alpha=-1, beta=0.5), "gsmelu: alpha + beta = -0.5: more than 0"),
        (lambda: gSmeLU(gminus=float("nan")), "gsmelu: gminus = nan"),
        (lambda: gSmeLU(t=float("inf")), "gsmelu: t = inf"),
    ],
)
def test_a_bad_setting_is_named_when_it_is_built(make: Callable[[], nn.Module], named: str) -> None:
    with pytest.raises(SettingError) as caught:
        make()
    assert named in str(caught.value) and isinstance(caught.value, ValueError)


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


class Calls(TwoLayers):
    """Calls relu in one of many ways."""

    def __init__(self, way: str) -> None:
        super().__init__()
        self.way = way
        F.relu(torch.zeros(1))  # has run before it could be replaced

    def middle(self, x: Tensor) -> Any:
        return getattr(self, self.way)(x)

    def torch_too(self, x: Tensor) -> Tensor:
        return torch.relu(input=x)

    def method(self, x: Tensor) -> Tensor:
        return x.relu()

    def method_in_place(self, x: Tensor) -> Tensor:
        x.relu_()
        return x

    def function_in_place(self, x: Tensor) -> Tensor:
        F.relu(x, inplace=True)
        return x

    def torch_in_place(self, x: Tensor) -> Tensor:
        torch.relu_(x)
        return x

    def imported(self, x: Tensor) -> Tensor:
        return rectified(x)

    def of_a_tensor_kept(self, x: Tensor) -> Tensor:
        self.kept = x
        return self.kept.relu()

    @staticmethod
    def static(x: Tensor) -> Tensor:
        return F.relu(x)

    @torch.enable_grad()
    def depending_on_data(self, x: Tensor) -> Tensor:
        return F.relu(x) if x.sum() > -1e9 else x


class Functional(TwoLayers):
    def middle(self, x: Tensor) -> Tensor:
        return F.relu(x)


class Kept(TwoLayers):
    """A function, or a module."""

    def __init__(self, relu: Callable[[Tensor], Tensor] = F.relu) -> None:
        super().__init__()
        self.relu = relu

    def middle(self, x: Tensor) -> Tensor:
        return self.relu(x)


class Super(Functional):
    def middle(self, x: Tensor) -> Tensor:
        return super().middle(x)


class Nested(TwoLayers):
    """The outer code calls relu too: none of its modes may reach into the replacement of an inner one."""

    def __init__(self) -> None:
        super().__init__()
        self.inner, self.act = Functional(), nn.ReLU()

    def forward(self, x: Tensor) -> Any:
        return self.inner(x) + self.down(self.act(self.up(x))) + 0 * F.relu(x).sum()

    def by_hand(self, x: Tensor, activation: Callable[[Tensor], Tensor]) -> Tensor:
        return self.inner.by_hand(x, activation) + super().by_hand(x, activation)


class InOrder(nn.Sequential):
    """Code that goes through its children must not meet one more."""

    def __init__(self) -> None:
        super().__init__()
        self.up, self.down = nn.Linear(4, 8), nn.Linear(8, 1)

    def forward(self, x: Tensor) -> Any:
        for layer in self:
            x = layer(x) if layer is self.up else layer(F.relu(x))
        return x

    by_hand = TwoLayers.by_hand  # type: ignore[assignment]


WAYS: list[Callable[[], Any]] = [Functional, Kept, lambda: Kept(nn.ReLU()), Super, Nested, InOrder]
CALLS = [name for name in vars(Calls) if not name.startswith("_") and name != "middle"]


@pytest.mark.parametrize("make", [*WAYS, *(functools.partial(Calls, name) for name in CALLS)])
def test_every_way_of_relu_is_replaced(make: Callable[[], Any]) -> None:
    model, x, other = make().double(), points(6, 4), nn.GELU()
    kind, names = type(model), list(model.state_dict())
    with ReLUCalls() as found:
        torch.testing.assert_close(model(x), model.by_hand(x, torch.relu))
    assert found.calls > 1
    assert replaced(model, other) == (model, {Nested: 3, Calls: len(CALLS)}.get(kind, 1))
    assert isinstance(model, kind) and list(model.state_dict()) == names
    assert replaced(model, SmeLU(2))[1] == 0
    with ReLUCalls() as found:
        y = model(x)
    assert found.calls == 0
    assert torch.equal(y, model.by_hand(x, other))
    gradients = [torch.autograd.grad(each.sum(), model.up.weight) for each in (y, model.by_hand(x, other))]
    torch.testing.assert_close(*gradients)


@pytest.mark.parametrize("make", WAYS)
def test_a_copy_runs_on_its_own_parameters(make: Callable[[], Any]) -> None:
    model, x = replace_relu(make(), SmeLU(0.7)), points(6, 4).float()
    twin: Any = copy.deepcopy(model)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(1)
    assert torch.equal(twin(x), twin.by_hand(x, SmeLU(0.7))) and not torch.equal(twin(x), model(x))
    twin.load_state_dict(model.state_dict())
    assert torch.equal(twin(x), model(x))
    assert torch.equal(pickle.loads(pickle.dumps(twin))(x), twin(x))


@OLD_COMPILER
@NO_COMPILER
@pytest.mark.parametrize("model", [*map(network, MODULES), replace_relu(Nested().double(), SmeLU(0.7))])
def test_torch_export_and_torch_compile_take_it(model: nn.Module) -> None:
    x = points(5, 4).requires_grad_()
    y = model(x)
    assert torch.equal(torch.export.export(model, (x,)).module()(x), y)
    compiled = torch.compile(model, fullgraph=True)(x)
    torch.testing.assert_close(compiled, y, rtol=1e-13, atol=1e-14)
    gradients = [torch.autograd.grad(each.sum(), x) for each in (compiled, y)]
    torch.testing.assert_close(*gradients, rtol=1e-13, atol=1e-14)


def test_a_method_runs_alone_and_with_other_parameters() -> None:
    model, other, x = replace_relu(Functional(), SmeLU()), Functional(), points(6, 4).float()
    assert torch.equal(model.middle(x), smelu(x))  # type: ignore[operator]
    y = torch.func.functional_call(model, dict(other.named_parameters()), (x,))
    assert torch.equal(y, other.by_hand(x, SmeLU()))


def test_each_relu_has_its_own_copy_and_shared_ones_share_one() -> None:
    shared, replacement = nn.ReLU(), nn.PReLU()
    model = nn.Sequential(shared, nn.Linear(3, 3), shared, nn.Sequential(nn.ReLU(), nn.ReLU6(), shared))
    result, count = replaced(model, replacement)
    inner: Any = model[3]
    assert result is model and count == 2
    assert model[0] is model[2] is inner[2] is not replacement and inner[0] is not model[0]
    assert {type(each) for each in model.modules()} == {nn.Sequential, nn.PReLU, nn.Linear, nn.ReLU6}
    assert replaced(nn.ReLU(), replacement) == (replacement, 1)


class Doubled(nn.ReLU):
    def forward(self, x: Tensor) -> Tensor:
        return 2 * super().forward(x)


def test_a_relu_with_code_of_its_own_keeps_it() -> None:
    assert torch.equal(replace_relu(nn.Sequential(Doubled()), SmeLU())(points(9)), 2 * smelu(points(9)))


def test_a_replacement_follows_train_and_eval() -> None:
    """Wherever it is kept: RReLU is random while it learns."""
    x = points(64, 4).float()
    for model in (Functional(), Kept(nn.ReLU())):
        replace_relu(model.eval(), nn.RReLU())
        assert torch.equal(model(x), model(x))
        model.train()
        assert not torch.equal(model(x), model(x))
        model.eval()
        assert torch.equal(model(x), model(x))


def test_a_replacement_with_parameters_learns_and_is_saved() -> None:
    model, replacement, x = Functional(), nn.PReLU(), points(6, 4).float()
    names = [*model.state_dict(), "relu_replacement.weight"]
    replace_relu(model, replacement)
    assert list(model.state_dict()) == names
    assert (slope := model.get_parameter(names[-1])) is not replacement.weight
    (gradient,) = torch.autograd.grad(model(x).sum(), slope)
    assert gradient.item() != 0
    model.load_state_dict(model.state_dict() | {names[-1]: torch.ones(1)})
    assert torch.equal(model(x), model.by_hand(x, lambda x: x))


def test_threads_at_once() -> None:
    """Each diverts its own calls alone; one that has nothing replaced goes on with ReLU beside them."""
    x, slots = points(6, 4).float(), threading.Barrier(4)
    models: list[Any] = [Functional(), *(replace_relu(Functional(), SmeLU(beta)) for beta in (0.5, 1.0, 2.0))]
    wanted = [model.by_hand(x, SmeLU(beta)) for model, beta in zip(models, (0, 0.5, 1.0, 2.0), strict=True)]

    def work(number: int) -> bool:
        slots.wait()
        return all(torch.equal(models[number](x), wanted[number]) for _ in range(200))

    with ThreadPoolExecutor(4) as pool:
        assert list(pool.map(work, range(4))) == [True] * 4


def layer(activation: Any) -> nn.TransformerEncoderLayer:
    """One of torch's own."""
    return nn.TransformerEncoderLayer(8, 2, 16, dropout=0.0, activation=activation, batch_first=True)


@pytest.mark.parametrize("activation", ["relu", nn.ReLU()], ids=["function", "module"])
def test_transformer_layers_infer_with_the_replacement(activation: Any) -> None:
    """In eval mode without gradients PyTorch has a fast path with ReLU built in."""
    model = nn.TransformerEncoder(layer(activation), 2).eval()
    same = nn.TransformerEncoder(layer(smelu), 2, enable_nested_tensor=False).eval()
    same.load_state_dict(model.state_dict())
    assert replaced(model, SmeLU())[1] == 2
    x, padding = points(3, 5, 8).float(), torch.arange(5) >= torch.tensor([[5], [3], [4]])
    for each in (model, copy.deepcopy(model)):
        with torch.no_grad():
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


TYPED = type("Typed", (TwoLayers,), {"middle": eval("lambda self, x: F.relu(x)")})  # without source
WITHOUT = [nn.Sequential(), TwoLayers(), OwnMethod(), Operator(), Beside(), TYPED(), network(nn.GELU()), layer("gelu")]


@pytest.mark.parametrize("model", WITHOUT, ids=lambda model: type(model).__name__)
def test_none_found_is_an_error_of_one_line(model: nn.Module) -> None:
    assert replaced(model, SmeLU()) == (model, 0)
    with pytest.raises(SettingError) as caught:
        replace_relu(model, SmeLU())
    assert str(caught.value).startswith(f"replace_relu: module = {type(model).__name__}: no ReLU found")
    assert "\n" not in str(caught.value)


def with_own_forward() -> nn.Module:
    """A model whose forward hides that of its class, as some libraries do."""
    model = Functional()
    model.forward = functools.partial(Functional.forward, model)  # type: ignore[method-assign]
    return model


def compiled() -> nn.Module:
    """A module of torch.jit, whose use is deprecated."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)
        return torch.jit.script(nn.Sequential(nn.ReLU()))  # type: ignore[no-any-return]


@pytest.mark.parametrize(
    ("part", "replacement", "named"),
    [
        (nn.RNN(2, 2, nonlinearity="relu"), SmeLU(), "RNN(nonlinearity=relu): its ReLU is"),
        (nn.RNNCell(2, 2, nonlinearity="relu"), SmeLU(), "RNNCell(nonlinearity=relu)"),
        (compiled(), SmeLU(), "compiled by torch.jit"),
        (with_own_forward(), SmeLU(), "Functional: its forward was set on the object"),
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


# ReLUCalls


def test_calls_that_still_happen_are_counted() -> None:
    x = points(4)
    with ReLUCalls() as found:
        for call in (F.relu, torch.relu, Tensor.relu, nn.ReLU(), rectify):
            call(x)
        F.relu_(x.clone())
        F.relu(x.clone(), inplace=True)
        nn.RNN(4, 2, nonlinearity="relu")(x.view(1, 1, 4).float())
        nn.RNNCell(4, 2, nonlinearity="relu")(x.view(1, 4).float())
        assert found.calls == 9
        for quiet in (SmeLU(), SmeLU(0), gSmeLU(), smelu, gsmelu, torch.tanh):
            quiet(x)
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
    assert Maker(SINGLE, CustomModel(factory)).make(0).replaced == 0
    with pytest.raises(SettingError, match="1 calls of relu are left that are not in the source"):
        Maker(SINGLE, CustomModel(factory, relu="smelu")).make(0)
