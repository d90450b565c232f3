"""Immutable published weights: one safetensors file and a JSON manifest with its digest, written so that a crash leaves
either the whole snapshot or none.

    FOLDER/weights.safetensors    the named tensors
    FOLDER/manifest.json          {"format": 1, "sha256": ..., "tensors": {name: shape}, "about": {...}}
"""

from __future__ import annotations

import hashlib
import json
import os
from pathlib import Path
from typing import Any

from safetensors import SafetensorError
from safetensors.torch import load, save
from torch import Tensor

from simulator.errors import ResultError

FORMAT = 1
WEIGHTS, MANIFEST = "weights.safetensors", "manifest.json"


def write_atomically(path: Path, content: bytes) -> None:
    """Replace a file as a whole: temporary file, fsync, rename, fsync of the folder."""
    temporary = path.with_name(f".{path.name}.{os.getpid()}")
    with open(temporary, "wb") as file:
        file.write(content)
        file.flush()
        os.fsync(file.fileno())
    os.replace(temporary, path)
    folder = os.open(path.parent, os.O_RDONLY)
    try:
        os.fsync(folder)
    finally:
        os.close(folder)


def write_snapshot(folder: Path, tensors: dict[str, Tensor], about: dict[str, Any]) -> None:
    """Write tensors, then the manifest that makes them valid. `about` says whose they are."""
    folder.mkdir(parents=True, exist_ok=True)
    content = save(tensors)
    shapes = {name: list(tensor.shape) for name, tensor in tensors.items()}
    manifest = {"format": FORMAT, "sha256": hashlib.sha256(content).hexdigest(), "tensors": shapes, "about": about}
    write_atomically(folder / WEIGHTS, content)
    write_atomically(folder / MANIFEST, json.dumps(manifest, indent=1).encode())


def read_snapshot(folder: Path) -> tuple[dict[str, Tensor], dict[str, Any]]:
    """The tensors and `about` of a snapshot.

    Raises ResultError where a file is missing, its digest differs, or a tensor has another shape than announced.
    """
    try:
        manifest = json.loads((folder / MANIFEST).read_bytes())
        content = (folder / WEIGHTS).read_bytes()
        expected, shapes, about = manifest["sha256"], manifest["tensors"], manifest["about"]
    except (OSError, ValueError, KeyError, TypeError) as problem:
        raise ResultError(f"{folder}: no readable snapshot ({problem}): publish it again") from None
    if manifest.get("format") != FORMAT:
        raise ResultError(f"{folder / MANIFEST}: format = {manifest.get('format')}: this version reads format {FORMAT}")
    found = hashlib.sha256(content).hexdigest()
    if found != expected:
        raise ResultError(
            f"{folder / WEIGHTS}: sha256 = {found[:12]}..., expected {expected[:12]}...: the file is damaged"
        )
    try:
        tensors = load(content)
    except SafetensorError as problem:
        raise ResultError(f"{folder / WEIGHTS}: {problem}: the file is damaged") from None
    actual = {name: list(tensor.shape) for name, tensor in tensors.items()}
    if actual != shapes:
        raise ResultError(f"{folder / WEIGHTS}: shapes = {actual}, expected {shapes}: publish it again")
    return tensors, about
