"""SmeLU as a module under every transform of PyTorch, and ReLU replaced wherever a network may have it."""

from __future__ import annotations

import copy
import functools
import io
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


@OLD_COMPILER
def test_the_hessian_of_a_product() -> None:
    """(x smelu(x))'' at 0.3 = (3 x + 2) / 2."""
    smooth = SmeLU(1.0)
    second = torch.func.hessian(lambda x: x * smooth(x))(torch.tensor(0.3, dtype=torch.float64))
    assert second.item() == pytest.approx(1.45, rel=1e-12)


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
        file = io.BytesIO()
        with warnings.catch_warnings():
            warnings.filterwarnings("ignore", "`torch.jit.(save|load)` is", DeprecationWarning)
            torch.jit.save(compiled, file)
            file.seek(0)
            loaded: Any = torch.jit.load(file)  # type: ignore[no-untyped-call]
            assert torch.equal(loaded(points(5, 4)), model(points(5, 4)))


def test_torch_jit_compiles_a_network_whose_modules_were_exchanged() -> None:
    model = replace_relu(network(nn.ReLU()), SmeLU(0.7))
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", "`torch.jit.script` is", DeprecationWarning)
        assert torch.equal(torch.jit.script(model)(points(5, 4)), model(points(5, 4)))


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
    assert repr(replace_relu(Functional(), SmeLU(2))).splitlines()[:2] == ["Functional(", "  relu=SmeLU(beta=2)"]


# replace_relu: networks that have ReLU in one way each


class TwoLayers(nn.Module):
    """Up, ReLU, down, and what the ways below share."""

    def __init__(self) -> None:
        super().__init__()
        self.up, self.down = nn.Linear(4, 8), nn.Linear(8, 1)

    def by_hand(self, x: Tensor, activation: Callable[[Tensor], Tensor]) -> Tensor:
        """What `forward` is, with any activation."""
        result: Tensor = self.down(activation(self.up(x)))
        return result


class Functional(TwoLayers):
    def forward(self, x: Tensor) -> Any:
        return self.down(F.relu(self.up(x)))


class Torch(TwoLayers):
    def forward(self, x: Tensor) -> Any:
        return self.down(torch.relu(input=self.up(x)))


class Method(TwoLayers):
    def forward(self, x: Tensor) -> Any:
        return self.down(self.up(x).relu())


class MethodOfALocal(TwoLayers):
    def forward(self, x: Tensor) -> Any:
        hidden = self.up(x)
        return self.down(hidden.relu())


class InPlaceMethod(TwoLayers):
    def forward(self, x: Tensor) -> Any:
        hidden = self.up(x)
        hidden.relu_()
        return self.down(hidden)


class InPlaceFunction(TwoLayers):
    def forward(self, x: Tensor) -> Any:
        hidden = self.up(x)
        F.relu(hidden, inplace=True)
        return self.down(hidden)


class InPlaceTorch(TwoLayers):
    def forward(self, x: Tensor) -> Any:
        hidden = self.up(x)
        torch.relu_(hidden)
        return self.down(hidden)


class InPlaceModule(TwoLayers):
    def __init__(self) -> None:
        super().__init__()
        self.act = nn.ReLU(inplace=True)

    def forward(self, x: Tensor) -> Any:
        hidden = self.up(x)
        self.act(hidden)
        return self.down(hidden)


class Module(TwoLayers):
    def __init__(self) -> None:
        super().__init__()
        self.relu = nn.ReLU()

    def forward(self, x: Tensor) -> Any:
        return self.down(self.relu(self.up(x)))


class Doubled(nn.ReLU):
    """Not quite ReLU."""

    def forward(self, x: Tensor) -> Any:
        return 2 * super().forward(x)


class SubclassOfReLU(TwoLayers):
    def __init__(self) -> None:
        super().__init__()
        self.act = Doubled()

    def forward(self, x: Tensor) -> Any:
        return self.down(self.act(self.up(x)))

    def by_hand(self, x: Tensor, activation: Callable[[Tensor], Tensor]) -> Tensor:
        return super().by_hand(x, lambda x: 2 * activation(x))


class Imported(TwoLayers):
    def forward(self, x: Tensor) -> Any:
        return self.down(rectified(self.up(x)))


class LocalName(TwoLayers):
    def forward(self, x: Tensor) -> Any:
        act = torch.nn.functional.relu
        return self.down(act(self.up(x)))


class Attribute(TwoLayers):
    def __init__(self) -> None:
        super().__init__()
        self.act = F.relu

    def forward(self, x: Tensor) -> Any:
        return self.down(self.act(self.up(x)))


class Bound(TwoLayers):
    def __init__(self) -> None:
        super().__init__()
        self.acts = [functools.partial(F.relu, inplace=True)]

    def forward(self, x: Tensor) -> Any:
        return self.down(self.acts[0](self.up(x)))


class OfTheClass(TwoLayers):
    relu = staticmethod(torch.relu)

    def forward(self, x: Tensor) -> Any:
        return self.down(self.relu(self.up(x)))


class Inherited(Functional):
    pass


class Super(Functional):
    def forward(self, x: Tensor) -> Any:
        return super().forward(x)


class OtherMethod(TwoLayers):
    def hidden(self, x: Tensor) -> Tensor:
        return F.relu(self.up(x))

    def forward(self, x: Tensor) -> Any:
        return self.down(self.hidden(x))


def helper(x: Tensor) -> Tensor:
    return F.relu(x)


class Helper(TwoLayers):
    def forward(self, x: Tensor) -> Any:
        return self.down(helper(self.up(x)))


class Lambda(TwoLayers):
    def __init__(self) -> None:
        super().__init__()
        self.act: Callable[[Tensor], Tensor] = lambda x: F.relu(x)

    def forward(self, x: Tensor) -> Any:
        return self.down(self.act(self.up(x)))


class DataDependent(TwoLayers):
    def forward(self, x: Tensor) -> Any:
        hidden = self.up(x)
        return self.down(F.relu(hidden) if hidden.sum() > -1e9 else hidden)


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
    """Code that goes through its children."""

    def __init__(self) -> None:
        super().__init__(nn.Linear(4, 8), nn.Linear(8, 1))

    def forward(self, x: Tensor) -> Any:
        for number, layer in enumerate(self):
            x = layer(F.relu(x)) if number else layer(x)
        return x

    def by_hand(self, x: Tensor, activation: Callable[[Tensor], Tensor]) -> Tensor:
        result: Tensor = self[1](activation(self[0](x)))
        return result


WAYS: list[type[Any]] = [
    Functional,
    Torch,
    Method,
    MethodOfALocal,
    InPlaceMethod,
    InPlaceFunction,
    InPlaceTorch,
    Module,
]
WAYS += [InPlaceModule, Imported, LocalName, Attribute, Bound, OfTheClass, Inherited, Super, OtherMethod, Helper]
WAYS += [Lambda, DataDependent, Nested, InOrder, SubclassOfReLU]
COUNTS = {Nested: 3}


@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize("replacement", [SmeLU(0.7), nn.GELU()], ids=str)
def test_every_way_of_relu_is_replaced(way: type[Any], replacement: nn.Module) -> None:
    model: Any = way().double()
    x = points(6, 4)
    names, before = list(model.state_dict()), model(x)
    torch.testing.assert_close(before, model.by_hand(x, torch.relu))
    result, count = replaced(model, replacement)
    assert (result, count) == (model, COUNTS.get(way, 1)) and isinstance(result, way)
    assert list(model.state_dict()) == names
    with ReLUCalls() as found:
        y = model(x)
    assert found.calls == 0
    assert torch.equal(y, model.by_hand(x, replacement)) and not torch.equal(y, before)
    weights = tuple(model.parameters())
    gradients = [torch.autograd.grad(each.sum(), weights) for each in (y, model.by_hand(x, replacement))]
    torch.testing.assert_close(*gradients)


@pytest.mark.parametrize("way", WAYS)
def test_smelu_of_no_width_changes_nothing(way: type[Any]) -> None:
    model, x = way(), points(6, 4).float()
    before = model(x)
    with ReLUCalls() as found:
        model(x)
    assert found.calls >= 1
    assert torch.equal(replace_relu(model, SmeLU(0.0))(x), before)


@pytest.mark.parametrize("way", WAYS)
def test_a_copy_runs_on_its_own_parameters(way: type[Any]) -> None:
    model, x = replace_relu(way(), SmeLU(0.7)), points(6, 4).float()
    twin: Any = copy.deepcopy(model)
    assert torch.equal(twin(x), model(x))
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(1)
    assert torch.equal(twin(x), twin.by_hand(x, SmeLU(0.7))) and not torch.equal(twin(x), model(x))
    twin.load_state_dict(model.state_dict())
    assert torch.equal(twin(x), model(x))
    if way is not Lambda:  # which pickle cannot take, replaced or not
        assert torch.equal(pickle.loads(pickle.dumps(twin))(x), twin(x))


@pytest.mark.parametrize("way", [Functional, InPlaceMethod, InPlaceModule, Nested])
def test_replaced_models_are_exported(way: type[Any]) -> None:
    model, x = replace_relu(way(), SmeLU(0.7)), points(6, 4).float()
    assert torch.equal(torch.export.export(model, (x,)).module()(x), model(x))


@OLD_COMPILER
@NO_COMPILER
@pytest.mark.parametrize("way", [Functional, Nested])
def test_replaced_models_are_compiled(way: type[Any]) -> None:
    model, x = replace_relu(way(), SmeLU(0.7)), points(6, 4).float()
    torch.testing.assert_close(torch.compile(model, fullgraph=True)(x), model(x))


def test_functional_call_takes_other_parameters() -> None:
    model, other, x = replace_relu(Functional(), SmeLU()), Functional(), points(6, 4).float()
    y = torch.func.functional_call(model, dict(other.named_parameters()), (x,))
    assert torch.equal(y, other.by_hand(x, SmeLU()))


def test_relu_alone_is_the_replacement_itself() -> None:
    replacement = SmeLU(2)
    assert replace_relu(nn.ReLU(), replacement) is replacement
    assert replaced(nn.ReLU(), replacement) == (replacement, 1)


def test_each_place_has_its_own_copy_and_shared_ones_share_one() -> None:
    shared, replacement = nn.ReLU(), nn.PReLU()
    model = nn.Sequential(shared, nn.Linear(3, 3), shared, nn.Sequential(nn.ReLU(), nn.Dropout(), shared))
    result, count = replaced(model, replacement)
    inner: Any = model[3]
    assert result is model and count == 2
    assert model[0] is model[2] is inner[2] is not replacement and inner[0] is not model[0]
    assert {type(each) for each in model.modules()} == {nn.Sequential, nn.PReLU, nn.Linear, nn.Dropout}
    assert [name for name in model.state_dict() if "weight" in name] == [
        *("0.weight", "1.weight", "2.weight", "3.0.weight", "3.2.weight")
    ]


def test_other_activations_stay() -> None:
    model = nn.Sequential(nn.ReLU6(), nn.LeakyReLU(), nn.ReLU(), nn.Tanh())
    replace_relu(model, SmeLU())
    assert [type(each) for each in model] == [nn.ReLU6, nn.LeakyReLU, SmeLU, nn.Tanh]


def test_what_an_in_place_relu_overwrites_is_still_overwritten() -> None:
    """Here the skip connection sees the activated x."""

    class Skip(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.branch = nn.Sequential(nn.ReLU(inplace=True), nn.Linear(4, 4))

        def forward(self, x: Tensor) -> Any:
            x = x + 0
            return self.branch(x) + x

    x = points(6, 4).float()
    model = replace_relu(Skip(), SmeLU())
    branch: Any = model.branch
    assert torch.equal(model(x), branch[1](smelu(x)) + smelu(x))


def test_dropout_goes_on_to_ask_for_training() -> None:
    class Dropping(TwoLayers):
        def forward(self, x: Tensor) -> Any:
            return self.down(F.dropout(F.relu(self.up(x)), 0.5, self.training))

    model: Any = replace_relu(Dropping(), SmeLU())
    x = points(64, 4).float()
    model.eval()
    assert torch.equal(model(x), model.by_hand(x, SmeLU()))
    model.train()
    assert not torch.equal(model(x), model(x))


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


def test_one_of_two_methods_may_be_called_from_outside() -> None:
    model: Any = replace_relu(OtherMethod(), SmeLU())
    x = points(6, 4).float()
    assert torch.equal(model.hidden(x), smelu(model.up(x)))


def test_a_second_replacement_finds_nothing() -> None:
    model = replace_relu(Nested(), SmeLU(1))
    assert replaced(model, SmeLU(2))[1] == 0


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


def test_every_place_in_the_code_counts() -> None:
    class Several(nn.Module):
        @property
        def bias(self) -> Tensor:
            return F.relu(torch.ones(4).double())

        @functools.cached_property
        def offset(self) -> Tensor:
            return F.relu(torch.ones(4).double())

        @staticmethod
        def halve(x: Tensor) -> Tensor:
            return F.relu(x) / 2

        @torch.no_grad()
        def forward(self, x: Tensor) -> Any:
            return torch.relu(x) + x.relu() + self.halve(x) + self.bias + self.offset

    model, count = replaced(Several(), SmeLU())
    x = points(4)
    assert count == 5
    torch.testing.assert_close(model(x), 2.5 * smelu(x) + 2)


def test_an_error_inside_ends_the_diversion() -> None:
    model = replace_relu(Functional(), SmeLU())
    with pytest.raises(RuntimeError, match="shapes cannot be multiplied"):
        model(torch.zeros(2, 3))
    assert torch.equal(F.relu(points(9)), points(9).clamp(min=0))


def test_code_without_source() -> None:
    """As on the Python prompt."""
    space: dict[str, Any] = {"nn": nn, "F": F, "__name__": "prompt"}
    exec("class Typed(nn.Module):\n    def forward(self, x):\n        return [F.relu(y) for y in (x,)][0]", space)
    model = space["Typed"]()
    assert torch.equal(replace_relu(model, SmeLU())(points(9)), smelu(points(9)))


# torch's own transformer layers


def layer(activation: Any) -> nn.TransformerEncoderLayer:
    return nn.TransformerEncoderLayer(8, 2, 16, dropout=0.0, activation=activation, batch_first=True)


@pytest.mark.parametrize("activation", ["relu", F.relu, nn.ReLU()], ids=["name", "function", "module"])
@pytest.mark.parametrize("mode", ["train", "eval", "no grad"])
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
            with ReLUCalls() as found:
                each(x)
        assert found.calls == 0


@pytest.mark.parametrize("activation", ["relu", nn.ReLU()], ids=["function", "module"])
def test_decoder_layers_keep_the_replacement_when_they_are_copied(activation: Any) -> None:
    one = nn.TransformerDecoderLayer(8, 2, 16, 0.0, activation, batch_first=True)
    same = nn.TransformerDecoderLayer(8, 2, 16, 0.0, smelu, batch_first=True)
    same.load_state_dict(one.state_dict())
    model = copy.deepcopy(replace_relu(one, SmeLU()))
    x, memory = points(3, 5, 8).float(), points(3, 4, 8).float()
    torch.testing.assert_close(model(x, memory), same(x, memory))
    stacked = nn.TransformerDecoder(nn.TransformerDecoderLayer(8, 2, 16, 0.0, activation, batch_first=True), 2)
    assert replaced(stacked, SmeLU())[1] == 2
    with ReLUCalls() as found:
        stacked(x, memory)
    assert found.calls == 0


# what is refused


class Plain(TwoLayers):
    """Names relu, but never calls it."""

    def forward(self, x: Tensor, relu: bool = False) -> Any:
        return self.down(torch.tanh(self.up(x)) if not relu else x)


class OwnMethod(TwoLayers):
    """Its relu is its own, and none."""

    def relu(self, x: Tensor) -> Tensor:
        return torch.tanh(x)

    def forward(self, x: Tensor) -> Any:
        return self.down(self.relu(self.up(x)))


class Operator(TwoLayers):
    """Asks below the functions that can be diverted."""

    def forward(self, x: Tensor) -> Any:
        return self.down(torch.ops.nowhere.relu(self.up(x)))


def with_own_forward() -> nn.Module:
    """A model whose forward hides that of its class, as some libraries do."""
    model = Functional()
    model.forward = functools.partial(Functional.forward, model)  # type: ignore[method-assign]
    return model


class Learned(nn.Module):
    """An activation that is made of ReLU."""

    def forward(self, x: Tensor) -> Tensor:
        return F.relu(x + 1)


WITHOUT = [nn.Linear(2, 2), nn.Sequential(), Plain(), OwnMethod(), Operator(), network(nn.GELU()), layer("gelu")]


@pytest.mark.parametrize("model", WITHOUT, ids=lambda model: type(model).__name__)
def test_none_found_is_an_error_of_one_line(model: nn.Module) -> None:
    assert replaced(model, SmeLU()) == (model, 0)
    with pytest.raises(SettingError) as caught:
        replace_relu(model, SmeLU())
    assert str(caught.value).startswith(f"replace_relu: module = {type(model).__name__}: no ReLU found")
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("model", "replacement", "named"),
    [
        (nn.Sequential(nn.ReLU(), nn.RNN(2, 2, nonlinearity="relu")), SmeLU(), "RNN(nonlinearity=relu): its ReLU is"),
        (nn.Sequential(nn.ReLU(), nn.RNNCell(2, 2, nonlinearity="relu")), SmeLU(), "RNNCell(nonlinearity=relu)"),
        (nn.Sequential(nn.ReLU(), with_own_forward()), SmeLU(), "Functional: its forward was set on the object"),
        (nn.Sequential(nn.ReLU(), InOrder()), nn.PReLU(), "InOrder: its code calls relu and may run its children"),
        (nn.Sequential(nn.ReLU()), nn.ReLU(), "replacement = ReLU: calls ReLU itself"),
        (nn.Sequential(nn.ReLU()), nn.Sequential(Learned()), "replacement = Sequential: calls ReLU itself"),
    ],
)
def test_what_cannot_be_replaced_is_named_and_nothing_is_changed(
    model: nn.Sequential, replacement: nn.Module, named: str
) -> None:
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
        for call in (F.relu, torch.relu, Tensor.relu, nn.ReLU(), Learned()):
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


def test_a_call_that_the_source_does_not_show_is_counted() -> None:
    class Hidden(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.act = nn.ReLU()

        def forward(self, x: Tensor) -> Any:
            return self.act(getattr(torch, "re" + "lu")(x))

    model, count = replaced(Hidden(), SmeLU())
    with ReLUCalls() as found:
        model(points(4))
    assert count == found.calls == 1
