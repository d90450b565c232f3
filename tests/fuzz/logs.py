"""`make fuzz`, its third part: seeded mutations of the bytes of logs, of their item tables and of their mapping files.

Whatever the bytes, `flicker check` says what it found, or one line; and what it took is whole: rows in time order, each
with a user, an item and a label of 0 or 1.
"""

from __future__ import annotations

import argparse
import io
import os
import random
import shutil
import tempfile
from collections import Counter
from pathlib import Path
from typing import Literal
from unittest import mock

import numpy as np
import pyarrow as pa
import pyarrow.csv
import pyarrow.parquet
from rich.console import Console

from simulator.check import main as command
from simulator.config import ReplayConfig
from simulator.errors import FlickerError
from simulator.world.clicklog import ClickLog
from simulator.world.open import open_log

ROWS = 150
MAPPING = """log = "log.csv"
user = "user_id"
item = "item_id"
time = "timestamp"
label = "label == 1 and price > 0.1 or not event in ['view', 'buy']"
history = 3
[features]
context = [{ column = "tags", separator = "|" }]
[items]
file = "items.csv"
id = "id"
title = "name"
features = ["kind", { column = "size", kind = "number" }]
"""
TARGETS = {"log.csv": ("log.csv", "map.toml"), "log.parquet": ("log.parquet",)}
TARGETS |= {"items.csv": ("map.toml",), "map.toml": ("map.toml",)}
"""What is mutated, and what is checked then."""
PIECES = (b'"', b"\n", b"\r", b",", b"\0", b"\xff", b"\t", b"::", b"9" * 50, b"\n\n", b'""', b"'", b"[", b"1e400")


def write_logs(folder: Path, draw: random.Random) -> None:
    """Sound ones."""
    table = pa.table(
        {
            "user_id": [f"u{draw.randrange(20)}" for _ in range(ROWS)],
            "item_id": [draw.randrange(30) for _ in range(ROWS)],
            "timestamp": [1_700_000_000 + draw.randrange(10**6) for _ in range(ROWS)],
            "label": [draw.randrange(2) for _ in range(ROWS)],
            "event": [draw.choice(("view", "buy", None)) for _ in range(ROWS)],
            "tags": [draw.choice(("x|y", 'a "b", c\nd', "ü", None)) for _ in range(ROWS)],
            "price": [draw.random() for _ in range(ROWS)],
        }
    )
    pa.csv.write_csv(table, folder / "log.csv")
    pa.parquet.write_table(table, folder / "log.parquet")
    items = "".join(f'{item},"Item, {item}",k{item % 3},{item / 7}\n' for item in range(35))
    (folder / "items.csv").write_text(f"id,name,kind,size\n{items}")
    (folder / "map.toml").write_text(MAPPING)


def mutate(raw: bytes, draw: random.Random) -> bytes:
    """The bytes with some changes."""
    data = bytearray(raw)
    for _ in range(draw.choice((1, 1, 2, 5, 30))):
        place, kind = draw.randrange(len(data) + 1), draw.randrange(5)
        if kind == 0 and data:
            data[place % len(data)] = draw.randrange(256)
        elif kind == 1:
            data[place:place] = draw.choice(PIECES)
        elif kind == 2:
            del data[place : place + draw.randrange(1, 40)]
        elif kind == 3:
            other = draw.randrange(len(data) + 1)
            data[place:place] = data[other : other + draw.randrange(60)]
        elif draw.random() < 0.1:
            del data[place:]
    return bytes(data)


def check_log(log: ClickLog) -> None:
    """Raises AssertionError where it is not whole."""
    assert len(log) and (np.diff(log.time) >= 0).all() and np.isfinite(log.time).all()
    assert 0 <= log.user.min() and log.user.max() < len(log.users) and set(log.label.tolist()) <= {0, 1}
    assert 0 <= log.item.min() and log.item.max() < len(log.items) and all(log.users.ids)


def outcome(path: Path, bad_rows: Literal["stop", "skip"]) -> str:
    """`taken` or `refused`; raises whatever else a check ends with."""
    try:
        command.run_check(command.CheckFlags(str(path), bad_rows=bad_rows))
        if path.suffix == ".toml":
            check_log(open_log(ReplayConfig(path, bad_rows=bad_rows)))
    except FlickerError as problem:
        assert "\n" not in str(problem) and len(str(problem)) < 1_000, str(problem)
        return "refused"
    return "taken"


def fuzz(mutations: int, seed: int) -> Counter[tuple[str, str, str]]:
    """Outcomes by what was mutated and what became of damaged rows."""
    draw, found = random.Random(seed), Counter[tuple[str, str, str]]()
    console = Console(file=io.StringIO())
    for _ in range(mutations):
        with tempfile.TemporaryDirectory() as name, mock.patch.object(command, "open_console", lambda: console):
            folder, target = Path(name), draw.choice(list(TARGETS))
            write_logs(folder, draw)
            (folder / target).write_bytes(mutate((folder / target).read_bytes(), draw))
            with mock.patch.dict(os.environ, {"FLICKER_CACHE": str(folder / "cache")}):
                for bad_rows in ("stop", "skip"):
                    for checked in TARGETS[target]:
                        try:
                            found[target, bad_rows, outcome(folder / checked, bad_rows)] += 1  # type: ignore[arg-type]
                        except Exception as fault:
                            kept = Path(tempfile.mkdtemp(prefix="flicker-fuzz-"))
                            shutil.copytree(folder, kept, dirs_exist_ok=True)
                            raise AssertionError(f"{kept}: {checked}, --bad-rows {bad_rows}") from fault
    return found


def main() -> None:
    """Print counts."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--mutations", type=int, default=2_000, help="logs (default: 2,000)")
    parser.add_argument("--seed", type=int, default=0)
    arguments = parser.parse_args()
    for case, count in sorted(fuzz(arguments.mutations, arguments.seed).items()):
        print(*case, count)


if __name__ == "__main__":
    main()
