"""A snapshot comes back as it was, or is refused by the name of its file."""

from __future__ import annotations

import hashlib
import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file
from torch import Tensor

from simulator.errors import ResultError
from simulator.models.snapshot import MANIFEST, WEIGHTS, read_snapshot, write_snapshot

ABOUT: dict[str, Any] = {"arm": "smelu:beta=1", "duplicate": 3, "generation": 12, "model": {"hidden": [4, 2]}}


def make_tensors(shift: float = 0.0) -> dict[str, Tensor]:
    """A matrix with an odd shape, a whole number, and nothing at all."""
    return {
        "weight": torch.arange(6.0).reshape(2, 3) / 7 + shift,
        "chunks": torch.tensor([5]),
        "nothing": torch.zeros(0, 4),
    }


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A snapshot on disk, in a folder that did not exist before."""
    path = tmp_path / "generation-12" / "duplicate-3"
    write_snapshot(path, make_tensors(), ABOUT)
    return path


def assert_intact(folder: Path, shift: float = 0.0) -> None:
    tensors, about = read_snapshot(folder)
    assert about == ABOUT and tensors.keys() == make_tensors().keys()
    for name, expected in make_tensors(shift).items():
        assert tensors[name].dtype == expected.dtype and torch.equal(tensors[name], expected)


def edit_manifest(folder: Path, **changes: object) -> None:
    """Change entries, and the manifest's digest with them, so that nothing but the entries can give it away."""
    manifest = json.loads((folder / MANIFEST).read_text()) | changes
    del manifest["digest"]
    digest = hashlib.sha256(json.dumps(manifest, sort_keys=True).encode()).hexdigest()
    (folder / MANIFEST).write_text(json.dumps(manifest | {"digest": digest}))


def test_round_trip(folder: Path) -> None:
    assert_intact(folder)
    assert sorted(path.name for path in folder.iterdir()) == sorted([WEIGHTS, MANIFEST]), "no temporary file stays"


def test_others_can_read_it(folder: Path) -> None:
    assert torch.equal(load_file(folder / WEIGHTS)["weight"], make_tensors()["weight"])
    manifest = json.loads((folder / MANIFEST).read_text())
    assert manifest["format"] == 1 and manifest["about"] == ABOUT
    assert manifest["tensors"] == {"weight": [2, 3], "chunks": [1], "nothing": [0, 4]}


@pytest.mark.parametrize("name", [WEIGHTS, MANIFEST])
def test_a_flipped_bit_anywhere_is_refused(folder: Path, name: str) -> None:
    content = (folder / name).read_bytes()
    for position in range(len(content)):
        damaged = bytearray(content)
        damaged[position] ^= 1 << position % 8
        (folder / name).write_bytes(damaged)
        try:
            assert_intact(folder)  # white space in the manifest may change
        except ResultError as problem:
            assert str(folder) in str(problem) and "\n" not in str(problem)
        else:
            assert name == MANIFEST and json.loads(damaged) == json.loads(content), f"byte {position} went unnoticed"


@pytest.mark.parametrize("name", [WEIGHTS, MANIFEST])
def test_a_truncated_file_is_refused(folder: Path, name: str) -> None:
    content = (folder / name).read_bytes()
    for length in (0, 1, len(content) // 2, len(content) - 1):
        (folder / name).write_bytes(content[:length])
        with pytest.raises(ResultError, match=name):
            read_snapshot(folder)


@pytest.mark.parametrize("name", [WEIGHTS, MANIFEST])
def test_a_missing_file_is_refused(folder: Path, name: str) -> None:
    (folder / name).unlink()
    with pytest.raises(ResultError, match=name):
        read_snapshot(folder)


def test_a_folder_that_is_not_there_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ResultError, match="nowhere"):
        read_snapshot(tmp_path / "nowhere")


@pytest.mark.parametrize(
    "changes",
    [
        {"tensors": {"weight": [3, 2], "chunks": [1], "nothing": [0, 4]}},
        {"tensors": {"weight": [2, 3]}},
        {"format": 2},
        {"format": None},
        {"sha256": "0" * 64},
    ],
)
def test_a_manifest_that_says_something_else_is_refused(folder: Path, changes: dict[str, object]) -> None:
    edit_manifest(folder, **changes)
    with pytest.raises(ResultError, match=str(folder)):
        read_snapshot(folder)


def test_a_manifest_for_another_duplicate_is_refused(folder: Path) -> None:
    manifest = json.loads((folder / MANIFEST).read_text())
    manifest["about"]["duplicate"] = 4
    (folder / MANIFEST).write_text(json.dumps(manifest))
    with pytest.raises(ResultError, match=MANIFEST):
        read_snapshot(folder)


def test_an_unknown_format_is_named(folder: Path) -> None:
    edit_manifest(folder, format=2)
    with pytest.raises(ResultError, match=f"{MANIFEST}: format = 2"):
        read_snapshot(folder)


@pytest.mark.parametrize("content", ["[]", "null", "3", '"text"', "{}"])
def test_a_manifest_of_another_kind_is_refused(folder: Path, content: str) -> None:
    (folder / MANIFEST).write_text(content)
    with pytest.raises(ResultError, match=MANIFEST):
        read_snapshot(folder)


def test_weights_of_another_snapshot_are_refused(folder: Path, tmp_path: Path) -> None:
    write_snapshot(tmp_path / "other", make_tensors(shift=1), ABOUT)
    (tmp_path / "other" / WEIGHTS).replace(folder / WEIGHTS)
    with pytest.raises(ResultError, match=WEIGHTS):
        read_snapshot(folder)


def test_a_process_that_dies_while_writing_leaves_no_snapshot(tmp_path: Path) -> None:
    """It dies at its first fsync: all is written to a temporary file, nothing has its name yet."""
    program = f"""
import os, torch
from pathlib import Path
from simulator.models.snapshot import write_snapshot
os.fsync = lambda descriptor: os._exit(9)
write_snapshot(Path({str(tmp_path)!r}), {{"weight": torch.ones(3)}}, {{}})
"""
    assert subprocess.run([sys.executable, "-c", program], cwd=Path(__file__).parents[2]).returncode == 9
    leftovers = list(tmp_path.iterdir())
    assert len(leftovers) == 1 and WEIGHTS in leftovers[0].name and leftovers[0].name != WEIGHTS
    with pytest.raises(ResultError, match=MANIFEST):
        read_snapshot(tmp_path)
    write_snapshot(tmp_path, make_tensors(), ABOUT)
    assert_intact(tmp_path)


def test_a_leftover_of_a_crash_does_not_matter(folder: Path) -> None:
    """Whatever its process number, also that of this process."""
    for process in (1, os.getpid()):
        for name in (WEIGHTS, MANIFEST):
            (folder / f".{name}.{process}").write_bytes(b"half of")
    assert_intact(folder)
    write_snapshot(folder, make_tensors(shift=2), ABOUT)
    assert_intact(folder, shift=2)
