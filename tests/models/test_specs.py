"""An arm's spec: an activation, perhaps behind a cure, with settings of its own, in any order; and what is wrong."""

from __future__ import annotations

from typing import Any

import pytest

from simulator.config import ModelConfig
from simulator.errors import SettingError
from simulator.models.cures import Anchor, Antidistill, Average, Codistill, Cure, Ensemble, Fresh
from simulator.models.specs import CustomModel, parse_arm, parse_arms, with_rate


@pytest.mark.parametrize(
    ("spec", "cure", "function", "settings"),
    [
        ("smelu:beta=1", Cure(), "smelu:beta=1", {}),
        ("ensemble:relu:m=3", Ensemble(3), "relu", {}),
        ("ensemble:relu:m=3,narrow", Ensemble(3, narrow=True), "relu", {}),
        ("ensemble:smelu:beta=1,m=3", Ensemble(3), "smelu:beta=1", {}),
        ("antidistill:gsmelu:alpha=2,m=2,beta=1,weight=0.5", Antidistill(2, 0.5), "gsmelu:alpha=2,beta=1", {}),
        ("codistill:relu", Codistill(2), "relu", {}),
        ("average:relu:decay=0.9", Average(0.9), "relu", {}),
        ("anchor:relu:weight=2", Anchor(2.0), "relu", {}),
        ("fresh:relu:last=2", Fresh(2), "relu", {}),
        ("relu:norm=none,lr=0.02", Cure(), "relu", {"norm": "none", "learning_rate": 0.02}),
        ("smelu:beta=1,norm=none", Cure(), "smelu:beta=1", {"norm": "none"}),
        ("smelu:norm=weight,beta=1", Cure(), "smelu:beta=1", {"norm": "weight"}),
        ("relu:hidden=256x128", Cure(), "relu", {"hidden": (256, 128)}),
        ("relu:hidden=32", Cure(), "relu", {"hidden": (32,)}),
        ("relu:dim=8,engine=torch", Cure(), "relu", {"dim": 8, "engine": "torch"}),
        ("ensemble:smelu:dim=8,m=2,beta=1,narrow", Ensemble(2, True), "smelu:beta=1", {"dim": 8}),
    ],
)
def test_a_spec_is_a_cure_an_activation_and_settings(
    spec: str, cure: Cure, function: str, settings: dict[str, Any]
) -> None:
    arm = parse_arm(spec)
    assert (arm.label, arm.spec, arm.copy) == (spec, spec, 0)
    assert (arm.cure, arm.function, arm.settings, arm.tuned) == (cure, function, settings, False)
    base = ModelConfig(batch=64, learning_rate=0.5)
    assert arm.model(base) == ModelConfig(**{"batch": 64, "learning_rate": 0.5} | settings)


def test_a_rate_to_be_tuned_is_marked_and_then_named() -> None:
    spec = "smelu:beta=1,lr=tuned,norm=none"
    arm = parse_arm(spec)
    assert arm.tuned and arm.settings == {"norm": "none"} and arm.function == "smelu:beta=1"
    found = parse_arm(with_rate(spec, 0.0125))
    assert found.settings == {"learning_rate": 0.0125, "norm": "none"} and not found.tuned


def test_a_repeated_spec_is_another_copy_under_its_own_label() -> None:
    arms = parse_arms(("relu", "smelu", "relu", "relu:norm=none", "relu"))
    assert [arm.label for arm in arms] == ["relu", "smelu", "relu#2", "relu:norm=none", "relu#3"]
    assert [arm.copy for arm in arms] == [0, 0, 1, 0, 2] and arms[2].spec == "relu"


@pytest.mark.parametrize(
    ("spec", "message"),
    [
        ("", "activation = (empty): one of linear"),
        ("ensemble", "arm = ensemble: an activation, as in ensemble:relu"),
        ("ensemble:relu:k=3", "ensemble:relu:k=3: parameter = k=3: one of m, narrow, lr, norm, hidden, dim, engine"),
        ("ensemble:smelu:k=3", "ensemble:smelu:k=3: parameter = k=3: one of m, narrow, beta, lr, norm"),
        ("relu:", "relu:: parameter = (empty): one of lr, norm, hidden, dim, engine"),
        ("relu:beta=1", "relu:beta=1: parameter = beta=1: one of lr, norm"),
        ("ensemble:rely:m=3", "activation = rely: one of linear"),
        ("ensemble:relu:m=3,m=2", "ensemble:relu:m=3,m=2: parameter = m=2: m at most once"),
        ("relu:norm=none,norm=none", "relu:norm=none,norm=none: parameter = norm=none: norm at most once"),
        ("smelu:beta=1,beta=2", "smelu: parameter = beta=2: smelu takes beta=..., each at most once"),
        ("relu:lr=tuned,lr=tuned", "relu:lr=tuned,lr=tuned: parameter = lr=tuned: lr at most once"),
        ("relu:lr=0.1,lr=tuned", "relu:lr=0.1,lr=tuned: parameter = lr=tuned: lr at most once"),
        ("relu:lr=tuned,lr=0.1", "relu:lr=tuned,lr=0.1: parameter = lr=0.1: lr at most once"),
        ("ensemble:relu:m=2.5", "ensemble:relu:m=2.5: m = 2.5: a whole number, such as 3"),
        ("ensemble:relu:m=0", "ensemble: m = 0: from 1 to 64 models"),
        ("ensemble:relu:narrow=yes", "ensemble:relu:narrow=yes: narrow = yes: no value: the word alone"),
        ("codistill:relu:m=1", "codistill: m = 1: from 2 to 64 models"),
        ("codistill:relu:weight=-1", "codistill: weight = -1.0: from 0 to 1e6"),
        ("anchor:relu:weight=nan", "anchor: weight = nan: from 0 to 1e6"),
        ("anchor:relu:weight", "anchor:relu:weight: weight = (empty): a number, such as 0.5"),
        ("average:relu:decay=1", "average: decay = 1.0: from 0 (no average) to below 1"),
        ("fresh:relu:last=0", "fresh: last = 0: from 1 to 1,000 generations"),
        ("relu:norm=batch", "relu:norm=batch: norm = batch: none, before, after or weight"),
        ("relu:norm=", "relu:norm=: norm = (empty): a word, such as none"),
        ("relu:lr=0", "relu:lr=0: learning_rate = 0.0: more than 0"),
        ("relu:lr=nan", "relu:lr=nan: learning_rate = nan: more than 0"),
        ("relu:lr=inf", "relu:lr=inf: learning_rate = inf: more than 0"),
        ("relu:lr=fast", "relu:lr=fast: lr = fast: a number, such as 0.5"),
        ("relu:dim=0", "relu:dim=0: dim = 0: from 1 to 512"),
        ("relu:dim=8.5", "relu:dim=8.5: dim = 8.5: a whole number, such as 3"),
        ("relu:hidden=", "relu:hidden=: hidden = (empty): widths of hidden layers, such as 256x128"),
        ("relu:hidden=8xx4", "relu:hidden=8xx4: hidden = 8xx4: widths of hidden layers, such as 256x128"),
        ("relu:hidden=8x0", "relu:hidden=8x0: hidden = (8, 0): each width from 1 to 8,192"),
        ("relu:engine=gpu", "relu:engine=gpu: engine = gpu: auto, native or torch"),
    ],
)
def test_a_spec_that_cannot_be_read_is_one_line(spec: str, message: str) -> None:
    with pytest.raises(SettingError) as problem:
        parse_arms(("relu", spec))
    assert str(problem.value).startswith(message) and "\n" not in str(problem.value)


@pytest.mark.parametrize(
    ("spec", "cure", "own", "settings"),
    [
        ("torch:a.b:make", Cure(), CustomModel("a.b:make"), {}),
        ("torch:m:make,width=64", Cure(), CustomModel("m:make", {"width": 64}), {}),
        ("torch:m:make,lr=0.02,width=64", Cure(), CustomModel("m:make", {"width": 64}), {"learning_rate": 0.02}),
        ("torch:m:make,engine=torch,x=1", Cure(), CustomModel("m:make", {"x": 1}), {"engine": "torch"}),
        ("torch:m:make,relu=smelu:beta=1", Cure(), CustomModel("m:make", {}, "smelu:beta=1"), {}),
        (
            "torch:m:make,x=1,relu=gsmelu:alpha=1,beta=2,t=0.5",
            Cure(),
            CustomModel("m:make", {"x": 1}, "gsmelu:alpha=1,beta=2,t=0.5"),
            {},
        ),
        (
            "average:torch:m:make,decay=0.9,x=1,lr=0.1",
            Average(0.9),
            CustomModel("m:make", {"x": 1}),
            {"learning_rate": 0.1},
        ),
        ("ensemble:torch:m:make,x=2,m=3,relu=gelu", Ensemble(3), CustomModel("m:make", {"x": 2}, "gelu"), {}),
        ("codistill:torch:m:make,m=3,weight=2", Codistill(3, 2.0), CustomModel("m:make"), {}),
        ("torch:m:make,m=3,weight=2", Cure(), CustomModel("m:make", {"m": 3, "weight": 2}), {}),  # no cure takes them
        (
            "torch:m:make,dim=8,norm=none,hidden=8x4",
            Cure(),
            CustomModel("m:make", {"dim": 8, "norm": "none", "hidden": "8x4"}),
            {},
        ),
    ],
)
def test_a_module_of_your_own_with_its_options(
    spec: str, cure: Cure, own: CustomModel, settings: dict[str, Any]
) -> None:
    arm = parse_arm(spec)
    assert (arm.label, arm.cure, arm.own, arm.settings, arm.tuned) == (spec, cure, own, settings, False)
    assert arm.function == own.spec
    assert (arm.activation.name if arm.activation else None) == (own.relu.partition(":")[0] or None)
    again = parse_arm(arm.function)  # what a replica reads
    assert (again.own, again.function, again.cure, again.settings) == (own, arm.function, Cure(), {})


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("x=3", 3),
        ("x=-3", -3),
        ("x=0.5", 0.5),
        ("x=1e-5", 1e-5),
        ("x=3.0", 3.0),
        ("x=true", True),
        ("x=False", False),
        ("x", True),
        ("x=", ""),
        ("x=word", "word"),
        ("x=a=b", "a=b"),
        ("x=a:b", "a:b"),
        ("x=nan", "nan"),
        ("x=inf", "inf"),
        ("x=-Infinity", "-Infinity"),
        ("x=1e999", "1e999"),
    ],
)
def test_an_option_is_read_as_what_it_looks_like(text: str, value: int | float | bool | str) -> None:
    arm = parse_arm(f"torch:m:make,{text},y=2")
    assert arm.own and list(arm.own.options) == ["x", "y"]
    found = arm.own.options["x"]
    assert type(found) is type(value) and found == value
    again = parse_arm(arm.function).own
    assert again == arm.own and type(again.options["x"]) is type(value)


def test_the_rate_of_a_module_may_be_tuned() -> None:
    spec = "average:torch:m:make,x=1,lr=tuned,relu=smelu:beta=1"
    arm = parse_arm(spec)
    assert arm.tuned and arm.settings == {} and arm.function == "torch:m:make,x=1,relu=smelu:beta=1"
    found = parse_arm(with_rate(spec, 0.0125))
    assert (found.settings, found.tuned, found.own) == ({"learning_rate": 0.0125}, False, arm.own)


@pytest.mark.parametrize(
    ("spec", "message"),
    [
        ("torch:m:make,x=1,x=2", "torch:m:make,x=1,x=2: parameter = x=2: x at most once"),
        ("torch:m:make,x,x=2", "torch:m:make,x,x=2: parameter = x=2: x at most once"),
        ("torch:m:make,lr=1,lr=2", "torch:m:make,lr=1,lr=2: parameter = lr=2: lr at most once"),
        ("torch:m:make,", "torch:m:make,: parameter = (empty): one of lr, engine, options of its factory"),
        ("torch:m:make,a b=1", "torch:m:make,a b=1: parameter = a b=1: one of lr, engine, options of its factory"),
        ("average:torch:m:make,1=2", "average:torch:m:make,1=2: parameter = 1=2: one of decay, lr, engine, options of"),
        ("torch:m:make,engine=native", "torch:m:make,engine=native: engine = native: torch: it learns no module of"),
        ("torch:m:make,engine=gpu", "torch:m:make,engine=gpu: engine = gpu: auto, native or torch"),
        ("torch:m:make,lr=0", "torch:m:make,lr=0: learning_rate = 0.0: more than 0"),
        ("torch:m:make,lr=fast", "torch:m:make,lr=fast: lr = fast: a number, such as 0.5"),
        ("ensemble:torch:m:make,m=2,narrow", "ensemble:torch:m:make,m=2,narrow: narrow = on: off: give the factory"),
        ("ensemble:torch:m:make,m=2.5", "ensemble:torch:m:make,m=2.5: m = 2.5: a whole number, such as 3"),
        ("torch:m:make,relu=", "torch:m:make,relu=: relu = (empty): an activation, as in relu=smelu:beta=1"),
        ("torch:m:make,relu", "torch:m:make,relu: relu = (empty): an activation, as in relu=smelu:beta=1"),
        ("torch:m:make,relu=rely", "activation = rely: one of linear"),
        ("torch:m:make,relu=smelu:beta=1,x=2", "smelu: parameter = x=2: smelu takes beta="),
        ("ensembel:torch:m:make,m=3", "arm = ensembel:torch:m:make,m=3: before a module of your own stands a cure"),
        ("relu:torch", "arm = relu:torch: before a module of your own stands a cure, or nothing: one of ensemble"),
    ],
)
def test_a_spec_of_a_module_that_cannot_be_read_is_one_line(spec: str, message: str) -> None:
    with pytest.raises(SettingError) as problem:
        parse_arms(("relu", spec))
    assert str(problem.value).startswith(message) and "\n" not in str(problem.value)
