"""Builds the C++ of this folder into libraries, one for each kind of processor: `python build.py [--out DIR]`.

All of a machine's builds give the same bits (lanes.hpp), and loader.py takes the best that the processor can run. On
x86-64 there are three, by the levels of its psABI; elsewhere one. Each holds the digest of what it was built from.
Needs the standard library and a C++ compiler alone: `make setup`, hatch_build.py and the Dockerfile call it.
"""

from __future__ import annotations

import argparse
import hashlib
import os
import platform
import shlex
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

FOLDER = Path(__file__).resolve().parent
LIBRARIES = FOLDER / "lib"
STAMP = ".built"
"""A file beside the libraries, as new as they are: for make."""
COMPILERS = "c++", "g++", "clang++"
FLAGS = (
    "-std=c++17", "-O3", "-fopenmp-simd", "-fno-math-errno", "-fno-trapping-math", "-ffp-contract=off",
    "-shared", "-fPIC",
)  # fmt: skip
"""Nothing here lets the compiler reorder a sum, fuse it with a product, or assume that there is no NaN."""
X86_64 = {
    "x86-64-v2": ("-march=x86-64-v2",),
    "x86-64-v3": ("-march=x86-64-v3", "-mtune=haswell"),
    "x86-64-v4": ("-march=x86-64-v4", "-mprefer-vector-width=512"),
}
MARK = b"flicker sources "
"""Stands before the digest in a library."""
TIMEOUT = 600.0
"""Seconds that one build may take."""


class NoCompiler(Exception):
    """No compiler was found, or none that can build; the message is one line."""


def variants() -> dict[str, tuple[str, ...]]:
    """Names of this machine's builds with their flags, those that run everywhere first."""
    return X86_64 if platform.machine().lower() in ("x86_64", "amd64") else {"portable": ()}


def digest(folder: Path = FOLDER) -> str:
    """Of all that decides what is built, 20 hexadecimal digits; empty where there are no sources."""
    sources = sorted(folder.glob("*.[ch]pp"))
    words = [*FLAGS, *(word for name, flags in sorted(variants().items()) for word in (name, *flags))]
    parts = [part for path in sources for part in (path.name, path.read_text())] + words
    return hashlib.sha256("\0".join(parts).encode()).hexdigest()[:20] if sources else ""


def digest_in(library: Path) -> str:
    """Of what a library was built from, read without loading it. Raises OSError where there is none."""
    return library.read_bytes().partition(MARK)[2][:20].decode("ascii", "replace")


def is_current(out: Path = LIBRARIES) -> bool:
    """Whether all libraries are there, and built from these sources."""
    files = [out / f"{name}.so" for name in variants()]
    return all(file.exists() and digest_in(file) == digest() for file in files)


def build(out: Path = LIBRARIES) -> str:
    """Build all libraries side by side; each appears, or takes the place of an older one, when all are whole.

    Returns which compiler made them. Raises NoCompiler.
    """
    problem = f"none of {', '.join(compilers())} is on PATH"
    for command in compilers():
        words = shlex.split(command)
        if not words or shutil.which(words[0]) is None:
            continue
        out.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(dir=out, prefix=".making-") as making:
            try:
                files = _compile(words, Path(making))
            except (OSError, subprocess.SubprocessError) as failed:
                problem = _in_one_line(command, failed)
                continue
            for file in files:
                os.replace(file, out / file.name)
        return command
    raise NoCompiler(problem)


def compilers() -> list[str]:
    """Commands to try, $CXX first."""
    return [*filter(None, [os.environ.get("CXX", "").strip()]), *COMPILERS]


def _compile(command: list[str], folder: Path) -> list[Path]:
    """A library for each variant; the first that fails ends all."""
    common = [*command, *FLAGS, f'-DSOURCE_DIGEST="{digest()}"', str(FOLDER / "library.cpp")]
    running = {}
    for name, flags in variants().items():
        line = [*common, *flags, "-o", str(folder / f"{name}.so")]
        running[name] = subprocess.Popen(line, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True)
    try:
        for process in running.values():
            told = process.communicate(timeout=TIMEOUT)[1]
            if process.returncode:
                raise subprocess.CalledProcessError(process.returncode, command, stderr=told)
    finally:
        for process in running.values():
            process.kill()
            process.communicate()
    return [folder / f"{name}.so" for name in running]


def _in_one_line(command: str, problem: Exception) -> str:
    told = str(getattr(problem, "stderr", None) or problem).strip().splitlines()
    return f"{command}: {next((line for line in told if 'error' in line), told[0] if told else 'failed')}"


def main(arguments: list[str] | None = None) -> int:
    """The command; exit code 1 where there is no compiler, unless `--optional`."""
    parser = argparse.ArgumentParser(description="Build the native library where it is missing or out of date.")
    parser.add_argument("--out", type=Path, default=LIBRARIES, help="where they go (default: lib, beside this)")
    parser.add_argument("--optional", action="store_true", help="without a compiler say so, and exit with 0")
    flags = parser.parse_args(arguments)
    if not is_current(flags.out):
        try:
            command = build(flags.out)
        except NoCompiler as problem:
            print(f"no native library ({problem}): PyTorch and NumPy compute instead", file=sys.stderr)
            return 0 if flags.optional else 1
        print(f"native library: {', '.join(variants())}, by {command}")
    (flags.out / STAMP).touch()
    return 0


if __name__ == "__main__":
    sys.exit(main())
