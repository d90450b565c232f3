"""Which factories an arm names, which may be imported, and what is said of one that cannot be."""

from __future__ import annotations

import hashlib
import os
import subprocess
import sys
from pathlib import Path

import pytest

from simulator.errors import SettingError
from simulator.models.factories import (
    ALLOWED,
    allowed,
    blame,
    factories_of,
    factory_of,
    load_factory,
    place_of,
    require_allowed,
    source_digest,
)
from tests.models.conftest import WriteModule

ROOT = Path(__file__).parents[2]
MAKE = "def make(schema):\n    return schema\n"


@pytest.mark.parametrize(
    ("spec", "factory"),
    [
        ("torch:my_pkg.models:make", "my_pkg.models:make"),
        ("torch:m:make,width=64,lr=0.02,relu=smelu:beta=1", "m:make"),
        ("average:torch:m:make,decay=0.9", "m:make"),
        ("ensemble:torch:m:make,m=3", "m:make"),
        ("torch:m", "m"),
        ("torch:m:make:width=64", "m:make:width=64"),  # a slip, which load_factory refuses
        ("torch", ""),
        ("relu", None),
        ("smelu:beta=1", None),
        ("ensemble:relu:m=3", None),
        ("relu:engine=torch", None),
        ("relu:norm=none,engine=torch", None),
        ("", None),
    ],
)
def test_the_factory_of_a_spec(spec: str, factory: str | None) -> None:
    assert factory_of(spec) == factory


def test_the_factories_of_arms_are_distinct_and_in_order() -> None:
    specs = ["relu", "torch:b:make", "anchor:torch:a:make,x=1", "torch:b:make,relu=gelu", "torch", "torch:b:other"]
    assert factories_of(specs) == ["b:make", "a:make", "b:other"]
    assert factories_of(["relu", "fresh:relu"]) == []


@pytest.mark.parametrize(
    ("text", "names"),
    [
        (None, set()),
        ("", set()),
        (" , ", set()),
        ("a:make", {"a:make"}),
        ("a:make,b.c:make", {"a:make", "b.c:make"}),
        (" a:make  b.c:make, d:other,\n", {"a:make", "b.c:make", "d:other"}),
    ],
)
def test_what_the_environment_allows(text: str | None, names: set[str], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv(ALLOWED, raising=False)
    if text is not None:
        monkeypatch.setenv(ALLOWED, text)
    assert allowed() == names
    for name in names:
        require_allowed(name)


@pytest.mark.parametrize(("text", "said"), [("", "nothing"), ("b:make, a:make", "a:make, b:make")])
def test_what_it_does_not_allow_is_one_line(text: str, said: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(ALLOWED, text)
    for name in ("a:mak", "a:make2", "a", ""):
        with pytest.raises(SettingError) as problem:
            require_allowed(name)
        hint = f"not among the factories that may be imported here ({said}): add it to FLICKER_MODELS if you trust it"
        assert str(problem.value) == f"arms = torch:{name}: {hint}"


@pytest.mark.parametrize("name", ["", "m", "m:", ":make", "m.make", "m:make.it", "m:make:it", "m:1"])
def test_a_name_that_cannot_be_one(name: str) -> None:
    with pytest.raises(SettingError) as problem:
        load_factory(name)
    hint = "a module and its factory, as in torch:my_pkg.models:make; no path, no .py"
    assert str(problem.value) == f"arms = torch:{name}: {hint}"


def test_a_missing_module_and_a_missing_function(write_module: WriteModule) -> None:
    with pytest.raises(SettingError) as problem:
        load_factory("no_such_module_here:make")
    missing = "import no_such_module_here: ModuleNotFoundError: No module named 'no_such_module_here'"
    assert str(problem.value) == f"arms = torch:no_such_module_here:make: {missing}"
    module = write_module(MAKE + "number = 3\n")
    for name in ("other", "number"):
        with pytest.raises(SettingError) as problem:
            load_factory(f"{module}:{name}")
        words = f"arms = torch:{module}:{name}: {module} ({sys.modules[module].__file__}) has no function {name}"
        assert str(problem.value) == words


@pytest.mark.parametrize(
    ("code", "what", "line"),
    [
        ("x = 1\ny = x / 0\n", "ZeroDivisionError: division by zero", 2),
        ("raise ValueError('first\\n  second')\n", "ValueError: first second", 1),
        ("raise ValueError\n", "ValueError: no message", 1),
        ("\n\nimport no_such_module_here\n", "ModuleNotFoundError: No module named 'no_such_module_here'", 3),
        ("import json\n\njson.loads('{')\n", "JSONDecodeError: Expecting property name enclosed in double quotes", 3),
        ("x = 1\ndef make(schema:\n", "SyntaxError: '(' was never closed", 2),
        ("def make(schema):\nreturn 1\n", "IndentationError: expected an indented block after function definition", 2),
    ],
)
def test_an_error_at_import_is_one_line_with_its_place(
    code: str, what: str, line: int, write_module: WriteModule, tmp_path: Path
) -> None:
    module = write_module(code)
    with pytest.raises(SettingError) as problem:
        load_factory(f"{module}:make")
    said, file = str(problem.value), tmp_path / f"{module}.py"
    assert said.startswith(f"arms = torch:{module}:make: import {module}: {what}"), said
    assert said.endswith(f" ({file}, line {line})") and "\n" not in said
    assert said.count(f"{module}.py") == 1


def test_a_place_is_relative_to_the_working_directory(
    write_module: WriteModule, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    module = write_module("def helper():\n    return {}['x']\n\nhelper()\n")
    with pytest.raises(SettingError, match=rf"KeyError: 'x' \({module}.py, line 2\)$"):
        load_factory(f"{module}:make")


def test_blame_leaves_our_own_errors_and_ends_alone() -> None:
    ours = SettingError("k", 0, "at least 1")
    with pytest.raises(SettingError) as problem, blame("m:make", "calling it"):
        raise ours
    assert problem.value is ours
    with pytest.raises(KeyboardInterrupt), blame("m:make", "calling it"):
        raise KeyboardInterrupt


class Called:
    """An object that can be called."""

    def __call__(self) -> None:
        """Nothing."""


def test_the_place_of_what_has_no_code_of_its_own() -> None:
    line = Called.__call__.__code__.co_firstlineno - 3
    assert place_of(Called()) == place_of(Called) == f" ({Path(__file__).relative_to(Path.cwd())}, line {line})"
    assert place_of(len) == ""


IMPORT = "import os, sys; from simulator.models.factories import load_factory, source_digest;"


def in_a_console_script(code: str, cwd: Path) -> str:
    """What a process says whose import path has neither the working directory nor an empty entry."""
    environment = os.environ | {"PYTHONPATH": str(ROOT)}
    command = [sys.executable, "-P", "-c", code]
    done = subprocess.run(command, cwd=cwd, env=environment, capture_output=True, text=True, timeout=60)
    assert done.returncode == 0, done.stderr
    return done.stdout.strip()


def test_the_working_directory_is_searched_last_and_torch_is_not_needed(tmp_path: Path) -> None:
    (tmp_path / "my_own").mkdir()
    (tmp_path / "my_own" / "models.py").write_text(MAKE)
    (tmp_path / "json.py").write_text("raise ValueError('not yours')\n")
    code = (
        "import sys, os; from simulator.models.factories import *; f = load_factory('my_own.models:make'); import json;"
    )
    said = in_a_console_script(f"{code} print(f(7), 'torch' in sys.modules, sys.path[-1] == os.getcwd())", tmp_path)
    assert said == "7 False True"


def test_the_digest_is_of_the_file_that_was_imported(write_module: WriteModule, tmp_path: Path) -> None:
    module = write_module(MAKE)
    file = tmp_path / f"{module}.py"
    load_factory(f"{module}:make")
    file.write_text(MAKE + "# edited while it runs\n")
    assert source_digest(f"{module}:make") == hashlib.sha256(MAKE.encode()).hexdigest()
    again = write_module(MAKE + "# edited before\n")
    load_factory(f"{again}:make")
    assert source_digest(f"{again}:make") == hashlib.sha256(f"{MAKE}# edited before\n".encode()).hexdigest()


def test_the_digest_covers_the_file_that_defines_a_factory_imported_from_another(write_module: WriteModule) -> None:
    definers = [write_module(MAKE + comment) for comment in ("", "# edited\n")]
    code = "from {} import make\n"
    fronts = [write_module(code.format(definer)) for definer in definers]
    for front in fronts:
        load_factory(f"{front}:make")
    files = [front_code.encode() for front_code in map(code.format, definers)]
    expected = [
        hashlib.sha256(file + (MAKE + comment).encode()).hexdigest()
        for file, comment in zip(files, ("", "# edited\n"), strict=True)
    ]
    assert [source_digest(f"{front}:make") for front in fronts] == expected


def test_the_digest_does_not_depend_on_where_the_files_lie(write_module: WriteModule, tmp_path: Path) -> None:
    """The same two files, in folders that sort the other way round."""
    digests = []
    for front, back in (("a", "b"), ("d", "c")):
        for folder in (front, back):
            (tmp_path / folder).mkdir()
        (tmp_path / back / "behind.py").write_text(MAKE)
        (tmp_path / front / "before.py").write_text("from behind import make\n")
        folders = [str(tmp_path / front), str(tmp_path / back)]
        code = f"{IMPORT} sys.path += {folders}; load_factory('before:make');"
        digests.append(in_a_console_script(f"{code} print(source_digest('before:make'))", tmp_path))
    assert digests[0] == digests[1]


def test_a_factory_that_is_an_object_has_the_digest_of_its_module(write_module: WriteModule) -> None:
    module = write_module("import functools\nmake = functools.partial(max, 3)\n")
    assert load_factory(f"{module}:make")(5) == 5
    assert len(source_digest(f"{module}:make")) == 64
