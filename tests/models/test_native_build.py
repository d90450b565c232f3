"""The native kernels' libraries: how they are built, which one is taken, and that all of them give the same bits."""

from __future__ import annotations

import os
import shutil
import stat
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from simulator.models import native_engine
from simulator.native import build, loader
from simulator.native.loader import NativeMissing
from tests.models.conftest import MIXED, MODEL, make_events
from tests.models.reference import FORMULAS
from tests.models.test_native_learning import Both, scorer

SCRIPT = Path(build.__file__)
COMPILER = next(filter(shutil.which, build.COMPILERS), None)
needs_compiler = pytest.mark.skipif(not COMPILER, reason="no C++ compiler here")


@pytest.fixture
def sources(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder of sources that take no time to build, in place of ours."""
    folder = tmp_path / "native"
    folder.mkdir()
    (folder / "library.cpp").write_text(
        '#include "answer.hpp"\nextern "C" { extern const char source_digest[] = "flicker sources " SOURCE_DIGEST;'
        "int cpu_level() { return ANSWER; }}"
    )
    (folder / "answer.hpp").write_text("#define ANSWER 3")
    monkeypatch.setattr(build, "FOLDER", folder)
    monkeypatch.setattr(build.digest, "__defaults__", (folder,))
    monkeypatch.setattr(loader, "SIGNATURES", {})
    monkeypatch.delenv("CXX", raising=False)
    return folder


@needs_compiler
def test_built_once_and_again_when_a_source_changes(sources: Path, capsys: pytest.CaptureFixture[str]) -> None:
    out = sources / "lib"
    assert build.main(["--out", str(out)]) == 0
    files = [out / f"{name}.so" for name in build.variants()]
    assert {build.digest_in(file) for file in files} == {build.digest()} and len(build.digest()) == 20
    assert sorted(out.iterdir()) == sorted([*files, out / build.STAMP])
    assert all(stat.S_IMODE(file.stat().st_mode) & 0o444 for file in files)
    assert capsys.readouterr().out.count("\n") == 1
    before = files[0].stat().st_mtime_ns
    assert build.main(["--out", str(out)]) == 0 and files[0].stat().st_mtime_ns == before
    (sources / "answer.hpp").write_text("#define ANSWER 4")
    assert not build.is_current(out)
    assert build.main(["--out", str(out)]) == 0 and loader.load(files[0]).cpu_level() == 4


@needs_compiler
def test_the_best_build_that_the_processor_can_run(sources: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(build, "X86_64", {"v2": ("-DX=2",), "v3": ("-DX=3",), "v4": ("-DX=4",)})
    monkeypatch.setattr("platform.machine", lambda: "x86_64")
    build.build(sources / "lib")
    assert [file.name for file in loader.runnable(sources / "lib")] == ["v2.so", "v3.so"]
    monkeypatch.setattr("platform.machine", lambda: "aarch64")
    with pytest.raises(NativeMissing, match="^no library: run make setup where a C\\+\\+ compiler is$"):
        loader.runnable(sources / "lib")
    build.build(sources / "lib")
    assert [file.name for file in loader.runnable(sources / "lib")] == ["portable.so"]


@needs_compiler
def test_a_library_of_other_sources_is_refused_and_trusted_where_there_are_none(sources: Path) -> None:
    build.build(sources / "lib")
    (sources / "answer.hpp").write_text("#define ANSWER 2")
    with pytest.raises(NativeMissing, match="^stale or damaged, not built from these sources: run make setup$"):
        loader.runnable(sources / "lib")
    for file in sources.glob("*.?pp"):
        file.unlink()
    assert [file.stem for file in loader.runnable(sources / "lib")] == list(build.variants())[:2]


def test_what_is_no_library_is_one_line(sources: Path) -> None:
    file = sources / "x.so"
    file.write_bytes(b"flicker sources " + build.digest().encode())
    with pytest.raises(NativeMissing, match="^no library that can be loaded: .*") as error:
        loader.load(file)
    assert "\n" not in str(error.value)


@needs_compiler
def test_a_compiler_that_fails_makes_room_for_the_next(sources: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CXX", "false")
    assert build.build(sources / "lib") in build.COMPILERS
    monkeypatch.setenv("CXX", f"{shutil.which(str(COMPILER))} -DUNUSED=1")
    assert build.build(sources / "lib") == os.environ["CXX"]


@needs_compiler
def test_code_that_no_compiler_takes_is_one_line_and_leaves_the_old_library(sources: Path) -> None:
    build.build(sources / "lib")
    before = sorted(sources.glob("lib/*"))
    (sources / "answer.hpp").write_text("this is no C++")
    with pytest.raises(build.NoCompiler, match="error") as error:
        build.build(sources / "lib")
    assert "\n" not in str(error.value) and sorted(sources.glob("lib/*")) == before


def test_without_a_compiler_the_script_says_so_in_one_line(tmp_path: Path) -> None:
    env = {name: value for name, value in os.environ.items() if name != "CXX"} | {"PATH": str(tmp_path)}
    for optional, code in (([], 1), (["--optional"], 0)):
        command = [sys.executable, str(SCRIPT), "--out", str(tmp_path / "lib"), *optional]
        done = subprocess.run(command, env=env, capture_output=True, text=True)
        assert (done.returncode, done.stdout) == (code, "")
        words = "no native library (none of c++, g++, clang++ is on PATH): PyTorch and NumPy compute instead\n"
        assert done.stderr == words


def test_a_pytorch_without_blas_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(native_engine, "PYTORCH", ())
    native_engine.sgemm.cache_clear()
    try:
        assert native_engine.missing() == "this PyTorch shows no BLAS"
    finally:
        native_engine.sgemm.cache_clear()


@pytest.fixture(params=["none", "before", "after"])
def norm(request: pytest.FixtureRequest) -> Iterator[Any]:
    yield request.param


@pytest.mark.parametrize("spec", list(FORMULAS))
def test_all_builds_give_the_same_bits(spec: str, norm: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    try:
        files = loader.runnable()
    except NativeMissing as problem:
        pytest.skip(str(problem))
    if len(files) == 1:
        pytest.skip("this processor runs one of the builds only")
    config = replace(MODEL, dim=17, hidden=(40, 33, 16), batch=16, norm=norm)
    results = [everything(spec, config, loader.load(file), monkeypatch) for file in files]
    for other in results[1:]:
        for one, two in zip(results[0], other, strict=True):
            np.testing.assert_array_equal(one.view(np.int32), two.view(np.int32))


def everything(spec: str, config: Any, loaded: Any, monkeypatch: pytest.MonkeyPatch) -> list[np.ndarray[Any, Any]]:
    """What one build makes of some chunks, of events and of candidates."""
    monkeypatch.setattr(native_engine, "library", lambda: loaded)
    both = Both(spec, config)
    chunks = [make_events(MIXED, 150, start=1_000 * number) for number in range(4)]
    found = []
    for chunk in chunks:
        rows, labels = torch.from_numpy(chunk.features), torch.from_numpy(chunk.label)
        lost = torch.tensor([False] * 9 + [True])
        found.append(both.native.learn(both.weights, both.squares, rows, labels, lost))
    found += [both.weights.dense, both.weights.table, both.squares.dense, both.squares.table]
    found.append(both.native.score(both.weights, torch.from_numpy(chunks[0].features)))
    score, _ = scorer(spec, config)
    return [*(tensor.numpy() for tensor in found), score(slice(None), slice(None))]
