"""The package that your own code imports: what it offers, what it loads, and the guide's words about it."""

from __future__ import annotations

import subprocess
import sys
import tomllib
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn

import flicker
from simulator.measures.registry import MEASURES
from simulator.models import activations, modules
from simulator.predictions.compare import compare_frames
from simulator.result import Arm, Result, read_result
from simulator.types import Interval, exact
from tests.documents import blocks

ROOT = Path(__file__).parents[1]
HEAVY = {"grpc", "matplotlib", "pyarrow", "redis", "tyro", "rich", "safetensors", "prometheus_client", "ray", "locust"}
HEAVY |= {
    "google.protobuf",
    "simulator.cli",
    "simulator.experiment.experiment",
    "simulator.models.torch_engine",
    "torch._dynamo",
}


def loaded_after(code: str) -> set[str]:
    """Modules that a fresh interpreter holds after some code, beside those it starts with."""
    script = f"import sys\nbefore = set(sys.modules)\n{code}\nprint(*(set(sys.modules) - before))"
    run = subprocess.run([sys.executable, "-c", script], cwd=ROOT, check=True, text=True, capture_output=True)
    return set(run.stdout.split())


def test_what_it_offers() -> None:
    from flicker import metrics  # brings torchmetrics: seconds that no other worker need wait for

    assert set(flicker.__all__) <= set(dir(flicker))
    assert {name: getattr(flicker, name) for name in flicker.__all__} == {
        "PredictionDifference": metrics.PredictionDifference,
        "SmeLU": modules.SmeLU,
        "SwapRatio": metrics.SwapRatio,
        "compare": compare_frames,
        "gSmeLU": modules.gSmeLU,
        "gsmelu": activations.gsmelu,
        "measures": MEASURES,
        "read_result": read_result,
        "replace_relu": modules.replace_relu,
        "smelu": activations.smelu,
    }
    space: dict[str, Any] = {}
    exec("from flicker import *", space)
    assert set(flicker.__all__) <= set(space)


def test_an_unknown_name_is_an_attribute_error() -> None:
    with pytest.raises(AttributeError, match="module 'flicker' has no attribute 'ReLU'"):
        _ = flicker.ReLU  # type: ignore[attr-defined]
    with pytest.raises(ImportError):
        exec("from flicker import ReLU")


def test_a_bare_import_loads_nothing_of_weight() -> None:
    found = loaded_after("import flicker\ndir(flicker)")
    assert {name for name in found if name.split(".")[0] in ("torch", "numpy", "simulator")} == set()
    assert "flicker" in found


def test_a_name_loads_torch_and_nothing_else_of_weight() -> None:
    found = loaded_after("import flicker\nflicker.SmeLU(1.0), flicker.gSmeLU(), flicker.smelu, flicker.replace_relu")
    assert "torch" in found
    assert found & HEAVY <= loaded_after("import torch")


def test_the_command_line_is_still_another_thing() -> None:
    """`flicker` on the shell is the simulator's, wherever it is called; the package has no main."""
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())
    module, _, function = project["project"]["scripts"]["flicker"].partition(":")
    code = f"import sys; from {module} import {function}; sys.argv = ['flicker', '--help']; sys.exit({function}())"
    run = subprocess.run([sys.executable, "-c", code], cwd=ROOT, text=True, capture_output=True)
    assert run.returncode == 0 and "usage: flicker" in run.stdout
    assert "flicker" in project["tool"]["hatch"]["build"]["targets"]["wheel"]["packages"]
    assert "flicker" in project["tool"]["hatch"]["build"]["targets"]["sdist"]["only-include"]


def test_the_example_of_the_guide_runs() -> None:
    (code,) = (block.text for block in blocks(ROOT / "docs" / "smelu.md"))
    space: dict[str, Any] = {"__name__": "example"}
    torch.manual_seed(0)
    exec(compile(code, "docs/smelu.md", "exec"), space)
    assert [type(each) for each in space["model"]] == [nn.Linear, flicker.SmeLU, nn.Linear]
    assert space["loss"].item() < 0.5  # from 0.69, which knows nothing


def test_names_of_predictions_do_without_torch() -> None:
    found = loaded_after("import flicker\nflicker.compare, flicker.measures, flicker.read_result")
    assert {name for name in found if name.split(".")[0] in ("torch", "matplotlib", "pyarrow")} == set()


class Cells(HTMLParser):
    """The texts of a table's cells, row by row, and its caption."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.rows: list[list[str]] = []
        self.caption, self.tags = "", list[str]()
        self.feed(text)

    def handle_starttag(self, tag: str, attrs: object) -> None:
        self.tags.append(tag)
        if tag == "tr":
            self.rows.append([])
        if tag in ("td", "th"):
            self.rows[-1].append("")

    def handle_data(self, data: str) -> None:
        if self.tags[-1] == "caption":
            self.caption += data
        else:
            self.rows[-1][-1] += data


def test_a_notebook_shows_a_result_as_a_table() -> None:
    spec = "torch:my_pkg:make,name=<b>bold</b>"
    first = Arm(
        "relu", {"pd": Interval(0.2, 0.15, 0.25), "swaps.pair": exact(0.1), "log_loss": Interval(0.5, 0.4, 0.6)}
    )
    second = Arm(spec, {"pd": Interval(0.123456, 0.1, 0.2), "log_loss": exact(0.43214)})
    shown = Cells(Result("run", {"name": "a & b"}, [first, second])._repr_html_())
    assert shown.caption == "flicker run, a & b; 95 % intervals"
    assert shown.rows == [
        ["arm", "prediction difference, 0 to 2", "pair swaps, share", "log loss, nats"],
        ["relu", "0.2 (0.15 to 0.25)", "0.1", "0.5 (0.4 to 0.6)"],
        [spec, "0.1235 (0.1 to 0.2)", "–", "0.4321"],
    ]
    assert "b" not in shown.tags, "what a user wrote is text"
