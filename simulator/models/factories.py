"""Factories of your own models: `torch:my_pkg.models:make` names one, and this is where it is imported.

Nobody imports code because data says so: the trainer and replicas take only factories that their environment names in
FLICKER_MODELS, for whoever can write the store must not run code. `flicker run` and `flicker sweep` take what the user
has typed. This module is free of torch.
"""

from __future__ import annotations

import functools
import hashlib
import importlib
import inspect
import os
import re
import sys
import traceback
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

from simulator.errors import SettingError

PREFIX = "torch"
"""First word of a custom model in an arm's spec."""
ALLOWED = "FLICKER_MODELS"
"""Variable of the environment: names of factories, separated by commas or spaces."""
MAX_MESSAGE = 300
"""Characters of a foreign error message that are repeated."""
Factory = Callable[..., Any]
"""`make(schema, **options)` returns an nn.Module, or (nn.Module, torch.optim.Optimizer)."""


def factory_of(spec: str) -> str | None:
    """`my_pkg.models:make` of an arm's spec, with or without a cure; None for a built-in design."""
    words = spec.partition(",")[0].split(":")
    if PREFIX not in words[:2]:
        return None
    return ":".join(words[words.index(PREFIX) + 1 :])


def require_name(name: str) -> None:
    """Raises SettingError for a name of no factory: it would be imported, and repeated in logs."""
    if not re.fullmatch(r"[^\W\d]\w*(\.[^\W\d]\w*)*:[^\W\d]\w*", name):
        hint = f"a module and its factory, as in {PREFIX}:my_pkg.models:make; no path, no .py"
        raise SettingError("arms", f"{PREFIX}:{_shortened(name)}", hint)


def factories_of(specs: Sequence[str]) -> list[str]:
    """The distinct factories that arms name, in order."""
    return [name for name in dict.fromkeys(map(factory_of, specs)) if name]


def allowed() -> set[str]:
    """The factories that this process may import."""
    return set(os.environ.get(ALLOWED, "").replace(",", " ").split())


def require_allowed(name: str) -> None:
    """Raises SettingError for a factory that FLICKER_MODELS does not name."""
    if name not in allowed():
        names = ", ".join(sorted(allowed())) or "nothing"
        hint = f"not among the factories that may be imported here ({names}): add it to {ALLOWED} if you trust it"
        raise SettingError("arms", f"{PREFIX}:{name}", hint)


@functools.cache
def load_factory(name: str) -> Factory:
    """Import `my_pkg.models:make`; the working directory is searched too. Raises SettingError."""
    require_name(name)
    module, _, attribute = name.partition(":")
    folder = os.getcwd()
    if "" not in sys.path and folder not in sys.path:  # a console script has its own folder there
        sys.path.append(folder)
    with blame(name, f"import {module}"):
        factory = getattr(importlib.import_module(module), attribute, None)
    if not callable(factory):
        file = getattr(sys.modules[module], "__file__", None)
        raise SettingError("arms", f"{PREFIX}:{name}", f"{module} ({file}) has no function {attribute}")
    source_digest(name)  # of the imported code, also where its file changes later
    return factory  # type: ignore[no-any-return]


def source_digest(name: str, classes: Iterable[type] = ()) -> str:
    """SHA-256 of the source of an imported factory: of the file that its name says, of the one that defines it, and of
    those of the user's that define `classes`. What these import beside is not covered.
    """
    module, _, attribute = name.partition(":")
    files = [getattr(sys.modules[module], "__file__", None)]
    with suppress(TypeError):  # a factory in C, or an object that can be called
        files.append(inspect.getsourcefile(inspect.unwrap(getattr(sys.modules[module], attribute))))
    for base in dict.fromkeys(base for kind in classes for base in kind.__mro__):
        file = getattr(sys.modules.get(base.__module__), "__file__", None)
        files += [file] if file and _is_users(file) else []
    # in this order: where files lie, and so how their paths sort, is another matter on another machine
    return hashlib.sha256(b"".join(map(_content, dict.fromkeys(filter(None, files))))).hexdigest()


@functools.cache
def _content(file: str) -> bytes:
    """A file's content when it was first read, which is when it was imported."""
    return Path(file).read_bytes()


@contextmanager
def blame(name: str, action: str) -> Iterator[None]:
    """Turns errors of the user's code into a SettingError of one line, with the user's file and line."""
    try:
        yield
    except SettingError:
        raise
    except (Exception, SystemExit) as problem:
        message = problem.msg if isinstance(problem, SyntaxError) else str(problem)
        error = f"{type(problem).__name__}: {_shortened(message) or 'no message'}"
        raise SettingError("arms", f"{PREFIX}:{name}", f"{action}: {error}{_place(problem)}") from problem


def place_of(function: object) -> str:
    """` (models.py, line 12)`: where a function, a class or an object that can be called is defined."""
    code = getattr(inspect.unwrap(function), "__code__", None)  # type: ignore[arg-type]
    if code is not None:
        return f" ({_relative(code.co_filename)}, line {code.co_firstlineno})"
    try:
        kind = function if isinstance(function, type) else type(function)
        return f" ({_relative(inspect.getfile(kind))}, line {inspect.getsourcelines(kind)[1]})"
    except (TypeError, OSError):
        return ""


def _place(problem: BaseException) -> str:
    """` (models.py, line 12)`: the last line of the user's own code that the error came through."""
    if isinstance(problem, SyntaxError) and problem.filename:
        return f" ({_relative(problem.filename)}, line {problem.lineno})"
    for frame in reversed(traceback.extract_tb(problem.__traceback__)):
        if _is_users(frame.filename):
            return f" ({_relative(frame.filename)}, line {frame.lineno})"
    return ""


def _is_users(file: str) -> bool:
    """Whether a file is neither ours nor installed."""
    own_folder = str(Path(__file__).parents[2] / "simulator") + os.sep
    installed = ("site-packages", "dist-packages", f"{os.sep}python3", "<frozen")
    return not file.startswith((own_folder, "<")) and not any(part in file for part in installed)


def _shortened(text: str) -> str:
    """One line, cut to MAX_MESSAGE: libraries put whole graphs into an error."""
    line = " ".join(text.split())
    return line if len(line) <= MAX_MESSAGE else f"{line[:MAX_MESSAGE]} ..."


def _relative(file: str) -> str:
    """Relative to the working directory, where it is inside."""
    path = Path(file)
    return str(path.relative_to(Path.cwd())) if path.is_relative_to(Path.cwd()) else str(path)
