"""Immutable published weights: one safetensors file and a JSON manifest with its digest, written so that a crash leaves
either the whole snapshot or none.

    FOLDER/weights.safetensors    the named tensors
    FOLDER/manifest.json          {"format": 1, "sha256": ..., "tensors": {name: shape}, "about": {...}, "digest": ...}

`sha256` is of the weights, `digest` of the manifest's other entries: a damaged `about` must not pass either.
"""

from __future__ import annotations

import hashlib
import json
from pathlib import Path
from typing import Any

from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor

from simulator.errors import ResultError
from simulator.files import replacing, write_atomically

FORMAT = 1
WEIGHTS, MANIFEST = "weights.safetensors", "manifest.json"


def write_snapshot(folder: Path, tensors: dict[str, Tensor], about: dict[str, Any]) -> None:
    """Write tensors, then the manifest that makes them valid; `about` describes them (arm, duplicate, ...)."""
    folder.mkdir(parents=True, exist_ok=True)
    with replacing(folder / WEIGHTS) as file:
        save_file(tensors, file)  # from where they lie: their bytes in memory would be as much again
        digest = _file_digest(file)
    shapes = {name: list(tensor.shape) for name, tensor in tensors.items()}
    manifest = {"format": FORMAT, "sha256": digest, "tensors": shapes, "about": about}
    manifest["digest"] = _digest(manifest)
    write_atomically(folder / MANIFEST, json.dumps(manifest, indent=1).encode())


def read_snapshot(folder: Path) -> tuple[dict[str, Tensor], dict[str, Any]]:
    """The tensors and `about` of a snapshot.

    Raises ResultError where a file is missing, its digest differs, or a tensor has another shape than announced.
    """
    manifest, weights = _read_manifest(folder / MANIFEST), folder / WEIGHTS
    try:
        digest, expected = _file_digest(weights), manifest["sha256"]
    except OSError as problem:
        raise ResultError(f"{weights}: {problem.strerror}: publish the snapshot again") from None
    if digest != expected:
        raise ResultError(f"{weights}: sha256 = {digest[:12]}..., expected {expected[:12]}...: the file is damaged")
    try:
        tensors = load_file(weights)
    except SafetensorError as problem:
        raise ResultError(f"{weights}: {problem}: the file is damaged") from None
    shapes = {name: list(tensor.shape) for name, tensor in tensors.items()}
    if shapes != manifest["tensors"]:
        raise ResultError(f"{weights}: shapes = {shapes}, expected {manifest['tensors']}: publish the snapshot again")
    return tensors, manifest["about"]


def read_about(folder: Path) -> dict[str, Any]:
    """`about` of a snapshot alone, without a look at its tensors. Raises ResultError where there is no manifest."""
    about: dict[str, Any] = _read_manifest(folder / MANIFEST)["about"]
    return about


def _read_manifest(path: Path) -> dict[str, Any]:
    """The content of a manifest, if it is whole."""
    try:
        manifest: dict[str, Any] = json.loads(path.read_bytes())
    except OSError as problem:
        raise ResultError(f"{path}: {problem.strerror}: publish the snapshot again") from None
    except ValueError as problem:
        raise ResultError(f"{path}: {problem}: the file is damaged") from None
    version = manifest.get("format") if isinstance(manifest, dict) else None
    if version != FORMAT:
        raise ResultError(f"{path}: format = {version}: this version reads format {FORMAT}")
    if manifest.get("digest") != _digest(manifest):
        raise ResultError(f"{path}: its entries do not match their digest: the file is damaged")
    return manifest


def _file_digest(path: Path) -> str:
    """SHA-256 of a file."""
    with open(path, "rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _digest(manifest: dict[str, Any]) -> str:
    """SHA-256 of all other entries of a manifest, whatever their order and spacing."""
    entries = {name: value for name, value in manifest.items() if name != "digest"}
    return hashlib.sha256(json.dumps(entries, sort_keys=True).encode()).hexdigest()
