"""Who may import whom, read with `ast`: processes are siblings, the simulator has floors, torch stays in its place."""

from __future__ import annotations

import ast
import functools
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]

# A package may import itself and these; nobody may import the tests.
MAY_IMPORT: dict[str, set[str]] = {
    "simulator": set(),
    "protos": set(),
    "trainer": {"simulator"},
    "serving": {"simulator", "protos"},
    "load": {"simulator", "protos"},
    "page": {"simulator", "protos"},
    "flicker": {"simulator"},
    "examples": {"simulator"},
    "tests": set(),
}
# A module or package of the simulator may import itself and the floors above it in this list, never its neighbours.
FLOORS: list[set[str]] = [
    {"errors"},
    {"randomness", "types", "config", "process", "security", "files", "pace", "native"},
    {"world", "models", "measures", "result", "schedule", "store"},
    {"decide", "flags", "predictions", "tuning"},
    {"cluster", "report", "terminal"},
    {"experiment", "tune", "check", "compare", "live", "size", "sweep"},
    {"cli", "article"},
]
MOST_FLOORS = 7
LONGEST_CHAIN = 12
"""Files, from one that runs to one that imports nothing of ours: so many does a reader open to follow a name down."""
TORCH_FREE = {"world", "measures", "store", "predictions"} | FLOORS[0] | FLOORS[1]

Imports = dict[str, set[str]]
"""Module -> the dotted names that it imports, at its top or inside a function."""


@functools.cache
def read_imports(root: Path, top: bool = False) -> Imports:
    """The imports of every module of ours below `root`, tests aside; `top`: those made when it is loaded alone."""
    found: Imports = {}
    for path in (path for package in MAY_IMPORT if package != "tests" for path in (root / package).rglob("*.py")):
        parts = path.relative_to(root).with_suffix("").parts
        targets = found[".".join(parts).removesuffix(".__init__")] = set()
        tree = ast.parse(path.read_text())
        for node in tree.body if top else ast.walk(tree):
            if isinstance(node, ast.Import):
                targets |= {alias.name for alias in node.names}
            elif isinstance(node, ast.ImportFrom):
                base = list(parts[: len(parts) - node.level]) if node.level else []
                base += [node.module] if node.module else []
                targets |= {".".join([*base, alias.name]) for alias in node.names}
    return found


def part_of(name: str) -> str:
    """`simulator.world.stream` -> `world`; empty for a package itself. `python -m` is another name of the cli."""
    part = (name.split(".") + [""])[1]
    return "cli" if name == "simulator.__main__" else part


def floor_of(name: str) -> int:
    """Place in FLOORS of a name inside the simulator; below all of them when it has none."""
    return next((place for place, floor in enumerate(FLOORS) if part_of(name) in floor), len(FLOORS))


def is_allowed(name: str, target: str) -> bool:
    """Whether module `name` may import `target`, by the two tables above."""
    top, target_top = name.split(".")[0], target.split(".")[0]
    if target_top not in MAY_IMPORT:
        return True
    if top != target_top:
        return target_top in MAY_IMPORT[top]
    return top != "simulator" or part_of(name) == part_of(target) or floor_of(target) < floor_of(name)


def depth(imports: Imports) -> int:
    """Floors that the simulator really has: the longest chain of parts in which each imports the next."""
    below: dict[str, set[str]] = {}
    for name in (name for name in imports if name.startswith("simulator.")):
        ours = {part_of(target) for target in imports[name] if target.startswith("simulator.")}
        below.setdefault(part_of(name), set()).update(ours - {part_of(name)})

    def floors(part: str) -> int:
        return 1 + max(map(floors, below.get(part, ())), default=0)

    return max(map(floors, below))


def loaded_by(name: str, imports: Imports) -> set[str]:
    """Every dotted name that importing `name` may load: its packages, its imports, and theirs where they are ours."""
    seen: set[str] = set()
    waiting = {name}
    while waiting:
        parts = waiting.pop().split(".")
        for loaded in {".".join(parts[: n + 1]) for n in range(len(parts))} - seen:
            seen.add(loaded)
            waiting |= imports.get(loaded, set())
    return seen


def violations(root: Path) -> list[str]:
    """One line for each broken rule in the tree at `root`."""
    imports = read_imports(root)
    inside = [name for name in imports if name.startswith("simulator.")]
    return sorted(
        [f"{name} imports {target}" for name in imports for target in imports[name] if not is_allowed(name, target)]
        + [f"{name} has no floor" for name in inside if floor_of(name) == len(FLOORS)]
        + [f"{n} loads torch" for n in inside if part_of(n) in TORCH_FREE and "torch" in loaded_by(n, imports)]
    )


def test_every_import_follows_the_rules() -> None:
    assert violations(ROOT) == []


def test_the_house_is_not_too_high() -> None:
    assert depth(read_imports(ROOT)) <= len(FLOORS) <= MOST_FLOORS


def longest_chain(imports: Imports) -> list[str]:
    """Modules of which each imports the next when it is loaded."""
    chains: dict[str, list[str]] = {}

    def chain(name: str) -> list[str]:
        if name not in chains:
            below = {t if t in imports else t.rpartition(".")[0] for t in imports[name]} & imports.keys() - {name}
            chains[name] = [name, *max(map(chain, sorted(below)), key=len, default=[])]
        return chains[name]

    return max(map(chain, sorted(imports)), key=len)


def test_no_chain_of_imports_is_long() -> None:
    chain = longest_chain(read_imports(ROOT, top=True))
    assert len(chain) <= LONGEST_CHAIN, " > ".join(chain)


def test_the_longest_chain_of_imports_is_the_height(tmp_path: Path) -> None:
    write(tmp_path, "simulator/cli.py", "from simulator.experiment.main import a\nfrom simulator.world import b")
    write(tmp_path, "simulator/__main__.py", "from simulator.cli import main")
    write(tmp_path, "simulator/experiment/main.py", "def f():\n    from simulator import types")
    write(tmp_path, "simulator/world/log.py", "from simulator.world import other\nimport numpy")
    assert depth(read_imports(tmp_path)) == 3


def test_nobody_imports_triton() -> None:
    """On a GPU it is stock PyTorch that computes: what nobody here has seen run there must not be ours."""
    assert not [
        name for name, targets in read_imports(ROOT).items() if any(t.split(".")[0] == "triton" for t in targets)
    ]


def test_the_simulator_package_itself_is_empty() -> None:
    body = ast.parse((ROOT / "simulator" / "__init__.py").read_text()).body
    assert all(isinstance(node, ast.Expr) and isinstance(node.value, ast.Constant) for node in body)


def test_torch_free_modules_do_not_load_torch() -> None:
    modules = sorted(name for name in read_imports(ROOT) if part_of(name) in TORCH_FREE)
    assert {part_of(name) for name in modules} == TORCH_FREE
    code = f"import sys\nfor name in {modules}: __import__(name)\nsys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], cwd=ROOT).returncode == 0


@pytest.mark.parametrize(
    ("file", "source", "broken"),
    [
        ("serving/work.py", "import trainer.loop", "serving.work imports trainer.loop"),
        ("load/users.py", "from serving import codec", "load.users imports serving.codec"),
        ("trainer/loop.py", "from protos import recommender_pb2", "trainer.loop imports protos.recommender_pb2"),
        ("protos/stub.py", "import simulator.types", "protos.stub imports simulator.types"),
        ("simulator/cli.py", "import serving", "simulator.cli imports serving"),
        ("simulator/models/own.py", "import flicker", "simulator.models.own imports flicker"),
        ("trainer/loop.py", "from flicker import SmeLU", "trainer.loop imports flicker.SmeLU"),
        ("flicker/__init__.py", "import protos", "flicker imports protos"),
        ("serving/work.py", "import examples.model", "serving.work imports examples.model"),
        ("examples/model.py", "from trainer import loop", "examples.model imports trainer.loop"),
        ("simulator/report.py", "from tests import data", "simulator.report imports tests.data"),
        ("simulator/world/clicks.py", "import simulator.measures", "simulator.world.clicks imports simulator.measures"),
        ("simulator/measures/a.py", "from ..world import x", "simulator.measures.a imports simulator.world.x"),
        ("simulator/types.py", "from simulator import world", "simulator.types imports simulator.world"),
        ("simulator/config.py", "def f():\n    import simulator.cli", "simulator.config imports simulator.cli"),
        ("simulator/cli.py", "import simulator", "simulator.cli imports simulator"),
        ("simulator/helpers.py", "", "simulator.helpers has no floor"),
        ("simulator/world/clicks.py", "from torch import nn", "simulator.world.clicks loads torch"),
    ],
)
def test_a_broken_rule_is_named(tmp_path: Path, file: str, source: str, broken: str) -> None:
    write(tmp_path, file, source)
    assert violations(tmp_path) == [broken]


def test_torch_is_found_through_other_modules(tmp_path: Path) -> None:
    write(tmp_path, "simulator/world/__init__.py", "from .clicks import draw")
    write(tmp_path, "simulator/world/clicks.py", "import torch.nn.functional as F")
    write(tmp_path, "simulator/world/stream.py", "import numpy")
    assert violations(tmp_path) == [f"simulator.world{part} loads torch" for part in ("", ".clicks", ".stream")]


def test_the_allowed_directions_pass(tmp_path: Path) -> None:
    write(tmp_path, "serving/router/server.py", "from protos import stubs\nfrom serving import codec")
    write(tmp_path, "simulator/world/stream.py", "import numpy as np\nfrom . import clicks\nfrom ..types import Batch")
    write(tmp_path, "simulator/experiment/experiment.py", "import torch\nfrom simulator.models.engines import Engines")
    assert violations(tmp_path) == []


def write(root: Path, file: str, source: str) -> None:
    """Put one file into a tree, with its folders."""
    (root / file).parent.mkdir(parents=True, exist_ok=True)
    (root / file).write_text(source)
