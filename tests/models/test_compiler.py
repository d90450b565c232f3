"""The compiler's library is made once, in a folder that only its owner can write to, whatever else happens."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from simulator.errors import SettingError
from simulator.models.compiler import COMPILERS, NoCompiler, Once, compiled

pytestmark = pytest.mark.skipif(not any(map(shutil.which, COMPILERS)), reason="no C++ compiler here")


@pytest.fixture
def source(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A file to compile, and an empty cache."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    monkeypatch.delenv("CXX", raising=False)
    path = tmp_path / "code" / "answer.cpp"
    path.parent.mkdir()
    path.write_text('extern "C" int answer() { return 42; }')
    return path


def cache(source: Path) -> list[Path]:
    return sorted((source.parents[1] / "cache" / "flicker").iterdir())


def test_compiled_once_and_again_when_the_source_or_what_it_includes_changes(source: Path) -> None:
    assert compiled(source)[0].answer() == 42
    (made,) = cache(source)
    stamp = made.stat().st_mtime_ns
    assert compiled(source)[0].answer() == 42 and made.stat().st_mtime_ns == stamp
    (source.parent / "value.hpp").write_text("#define VALUE 43")
    source.write_text('#include "value.hpp"\nextern "C" int answer() { return VALUE; }')
    assert compiled(source)[0].answer() == 43
    (source.parent / "value.hpp").write_text("#define VALUE 44")
    assert compiled(source)[0].answer() == 44 and len(cache(source)) == 3


def test_the_cache_belongs_to_its_owner_alone(source: Path) -> None:
    compiled(source)
    folder = cache(source)[0].parent
    assert folder.stat().st_mode & 0o077 == 0
    folder.chmod(0o777)
    (made,) = cache(source)
    made.unlink()  # not written over: this process has it loaded, and would end with a bus error
    made.write_bytes(b"somebody else's")
    assert compiled(source)[0].answer() == 42
    assert cache(source)[0].read_bytes() == b"somebody else's"


def test_a_cache_that_cannot_be_written_is_done_without(source: Path) -> None:
    (source.parents[1] / "cache").write_text("a file, where a folder should be")
    assert compiled(source)[0].answer() == 42


def test_a_compiler_that_fails_makes_room_for_the_next(source: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CXX", "false")
    library, name = compiled(source)
    assert library.answer() == 42 and name in COMPILERS
    monkeypatch.setenv("CXX", f"{shutil.which(name)} -DUNUSED=1")
    assert compiled(source)[1] == os.environ["CXX"]


def test_code_that_no_compiler_takes_is_one_line(source: Path) -> None:
    source.write_text("this is no C++")
    with pytest.raises(NoCompiler) as error:
        compiled(source)
    assert "error" in str(error.value) and "\n" not in str(error.value)
    assert cache(source) == []


def test_processes_that_start_at_once_agree(source: Path) -> None:
    code = "import sys; from pathlib import Path; from simulator.models.compiler import compiled\n"
    code += "sys.exit(compiled(Path(sys.argv[1]))[0].answer() - 42)"
    command = [sys.executable, "-c", code, str(source)]
    root = Path(__file__).parents[2]
    started = [subprocess.Popen(command, cwd=root) for _ in range(3)]
    assert [process.wait(120) for process in started] == [0, 0, 0]
    assert len(cache(source)) == 1


def test_what_fails_is_tried_once_and_told_as_often_as_asked() -> None:
    tries: list[int] = []

    def make() -> int:
        tries.append(1)
        raise NoCompiler("a broken one")

    once = Once(make)
    for _ in range(3):
        assert once.wanted("auto") is None and once.wanted("off") is None
        with pytest.raises(SettingError, match=r"compile = on: a broken one: install a C\+\+ compiler"):
            once.wanted("on")
    assert len(tries) == 1
