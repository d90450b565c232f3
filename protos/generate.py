"""Writes the stubs of every proto here: `python -m protos.generate`, or `make protos`.

    python -m protos.generate            write the stubs beside the protos
    python -m protos.generate --check    write nothing; exit 1 and name the stubs that are not what the protos say

Stubs made by a newer grpcio-tools refuse an older grpcio (checked from 1.63 on) and an older protobuf (from 1.66 on).
1.62 is the last that checks nothing: its stubs run with grpcio 1.62, protobuf 4.25 and what came since. It cannot live
beside a newer protobuf, so the tools get a virtual environment of their own inside the running one (`<venv>/protos`),
made on first use.

Style and compatibility are buf's (settings in protos/buf.yaml), from the repository root:

    buf lint protos
    buf breaking protos --against ".git#ref=$(git log -1 --format=%H -- protos/recommender.proto),subdir=protos"
"""

from __future__ import annotations

import argparse
import os
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

ROOT = Path(__file__).parents[1]
NAMES = ("recommender", "inference")
PROTOS = tuple(f"protos/{name}.proto" for name in NAMES)
PARTS = ("pb2.py", "pb2.pyi", "pb2_grpc.py", "pb2_grpc.pyi")
STUBS = tuple(f"protos/{name}_{part}" for name in NAMES for part in PARTS)

TOOLS = ("grpcio-tools==1.62.3", "mypy-protobuf==3.6.0", "protobuf==4.25.9", "setuptools==80.9.0")
"""All that the generator runs (grpcio-tools 1.62 asks setuptools for pkg_resources, which 82 dropped)."""
PYTHONS = ("3.12", "3.11")
"""Versions of Python for which these tools have wheels."""


class GeneratorError(Exception):
    """The stubs cannot be made; the message says why and the way out."""


def tools_folder() -> Path:
    """Where the tools' virtual environment is or will be: inside the running one, else inside `.venv`."""
    running = Path(sys.prefix) if sys.prefix != sys.base_prefix else ROOT / ".venv"
    return running / "protos"


def are_installed(tools: Path) -> bool:
    """Whether the tools are there, in the versions that this file names."""
    installed = tools / "installed"
    return installed.exists() and installed.read_text().split() == list(TOOLS)


def install(tools: Path) -> None:
    """Make the tools' virtual environment anew."""
    print(f"Setting up {', '.join(TOOLS)} in {tools}", flush=True)
    run([find_python(), "-m", "venv", "--clear", str(tools)], "a virtual environment")
    pip = [str(tools / "bin" / "python"), "-m", "pip", "install", "--quiet", "--no-deps", "--only-binary", ":all:"]
    run([*pip, *TOOLS], "the generator's tools")
    (tools / "installed").write_text("\n".join(TOOLS))


def find_python() -> str:
    """An interpreter that the tools have wheels for: the running one where it will do."""
    if f"{sys.version_info.major}.{sys.version_info.minor}" in PYTHONS:
        return sys.executable
    for version in PYTHONS:
        if found := shutil.which(f"python{version}"):
            return found
    raise GeneratorError(f"the generator's tools need Python {' or '.join(PYTHONS)}: put one on PATH")


def generate(tools: Path, out: Path) -> None:
    """Write the stubs into `out`/protos; `out` exists. Nothing else is touched."""
    programs = tools / "bin"
    outputs = ["--python_out=", "--grpc_python_out=", "--mypy_out=quiet:", "--mypy_grpc_out=quiet:"]
    plugins = [f"--plugin={programs / name}" for name in ("protoc-gen-mypy", "protoc-gen-mypy_grpc")]
    protoc = [str(programs / "python"), "-m", "grpc_tools.protoc", f"--proto_path={ROOT}", *plugins]
    run([*protoc, *(f"{output}{out}" for output in outputs), *PROTOS], "the stubs")


def stale(out: Path, root: Path = ROOT) -> list[str]:
    """The stubs below `root` that differ from those in `out`, or are missing."""
    return [
        stub for stub in STUBS if not (root / stub).exists() or (root / stub).read_bytes() != (out / stub).read_bytes()
    ]


def run(command: list[str], what: str) -> None:
    """Run a command; GeneratorError with its own last words when it fails."""
    clean = {name: value for name, value in os.environ.items() if name not in ("PYTHONPATH", "PYTHONHOME")}
    done = subprocess.run(command, cwd=ROOT, env=clean, capture_output=True, text=True)
    if done.returncode != 0:
        raise GeneratorError(f"could not make {what}: {' '.join(command)}\n{(done.stderr or done.stdout).strip()}")


def main(arguments: list[str] | None = None) -> int:
    """The command line. Returns the exit code: 1 where --check found stale stubs, 2 where nothing could be made."""
    parser = argparse.ArgumentParser(prog="python -m protos.generate", description="Writes the stubs of the protos.")
    parser.add_argument("--check", action="store_true", help="write nothing, exit 1 when the stubs are out of date")
    check: bool = parser.parse_args(arguments).check
    tools = tools_folder()
    try:
        if not are_installed(tools):
            install(tools)
        with tempfile.TemporaryDirectory() as folder:
            out = Path(folder)
            print(f"Generating stubs of {', '.join(PROTOS)}", flush=True)
            generate(tools, out)
            changed = stale(out)
            for stub in () if check else changed:
                shutil.copyfile(out / stub, ROOT / stub)
    except GeneratorError as error:
        print(f"protos: {error}", file=sys.stderr)
        return 2
    for stub in changed:
        print(f"{stub}: out of date, run `make protos`" if check else f"{stub}: written")
    if not changed:
        print("Nothing changed")
    return 1 if check and changed else 0


if __name__ == "__main__":
    sys.exit(main())
