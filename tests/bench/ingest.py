"""Reading logs once, beside pyarrow merely reading them: rows in no order, text ids, three categories and a number.

`make bench ARGS="--only ingest --ingest-rows 20000000"` is another size; the targets are for 10 million rows. A million
of them has 100,000 users.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.csv
import pyarrow.parquet as pq
from engine import no_native
from figures import Figure, ratio, single, speed
from interleave import interleave
from sizes import Size

from simulator.config import ReplayConfig
from simulator.randomness import generator
from simulator.types import Ints
from simulator.world.clicklog import CACHE, ClickLog
from simulator.world.open import open_log

GROUP = 1 << 20
"""Rows written at a time."""
BLOCK = 8_192
"""Rows read back at a time."""
SHARES = 0.1, 0.2, 0.5
"""Of the rows, to see that time grows as they do."""
MAPPING = """
log = "{log}"
user = "visitor"
item = "sku"
time = "at"
[features]
context = ["country", "device", "brand", {{ column = "price", kind = "number", buckets = 32 }}]
"""
PEAK = """
import sys, threading, time
from pathlib import Path
from simulator.config import ReplayConfig
from simulator.world.open import open_log
peak = 0
def watch():
    global peak
    while True:
        (size,) = (line.split()[1] for line in open("/proc/self/status") if line.startswith("RssAnon"))
        peak = max(peak, int(size) * 1024)
        time.sleep(0.01)
threading.Thread(target=watch, daemon=True).start()
open_log(ReplayConfig(Path(sys.argv[1])))
print(peak)
"""


def measure(size: Size) -> list[Figure]:
    """CSV and Parquet, with the native coder and without, and what comes of it."""
    rows, before = size.ingest_rows, os.environ.get(CACHE)
    with TemporaryDirectory() as name:
        folder = Path(name)
        os.environ[CACHE] = str(folder / "cache")
        try:
            return _measured(size, folder, rows)
        finally:
            os.environ.pop(CACHE) if before is None else os.environ.update({CACHE: before})


def _measured(size: Size, folder: Path, rows: int) -> list[Figure]:
    logs = write(folder / "whole", rows)
    ways = {"without the native coder": False} | ({} if no_native() else {"": True})
    variants: dict[str, Callable[[int], object]] = {}
    for form, read in (("CSV", read_csv), ("Parquet", read_parquet)):
        variants[f"reading {form}"] = lambda _, read=read, form=form: read(logs[form])
        for way, native in ways.items():
            variants[f"ingesting {form} {way}".rstrip()] = partial(ingest, logs[form], native)
    log = ingest(logs["Parquet"], True)
    variants["reading back"] = lambda _: read_back(log)
    passes = interleave("ingest", variants, min(size.rounds, 3), 0)
    found = [speed("reading a log back", "rows/s", passes["reading back"], rows, "wall")]
    for form in logs:
        for way in ways:
            name = f"ingesting {form} {way}".rstrip()
            found.append(ratio(f"{name} / reading it", passes, name, f"reading {form}", "wall"))
        found.append(single(f"peak anonymous memory of ingesting {form}", "GiB", [peak(logs[form]) / 2**30]))
    for share in SHARES:
        part = write(folder / str(share), int(share * rows))
        start = time.process_time()
        ingest(part["Parquet"], True)
        taken = (time.process_time() - start) / (share * rows)
        whole = min(passes["ingesting Parquet without the native coder" if no_native() else "ingesting Parquet"].cpu)
        found.append(single(f"CPU per row of ingesting {share:.0%} of the rows / of all", "x", [taken * rows / whole]))
    return found


def write(folder: Path, rows: int) -> dict[str, Path]:
    """The same log in both forms."""
    folder.mkdir()
    draws, schema = generator(0, "log to ingest"), None
    files = {"CSV": folder / "log.csv", "Parquet": folder / "log.parquet"}
    for start in range(0, rows, GROUP):
        count = min(GROUP, rows - start)
        table = pa.table(
            {
                "visitor": text("user-", draws.integers(0, max(10, rows // 10), count)),
                "sku": text("item-", draws.zipf(1.3, count) % 20_011),
                "at": 1.6e9 + np.round(draws.random(count) * 3e7, 3),
                "country": text("country-", draws.integers(0, 40, count)),
                "device": text("device-", draws.integers(0, 6, count)),
                "brand": text("brand-", draws.integers(0, 800, count)),
                "price": np.round(draws.lognormal(3, 1, count), 2),
            }
        )
        if schema is None:
            schema = table.schema
            writers = pyarrow.csv.CSVWriter(files["CSV"], schema), pq.ParquetWriter(files["Parquet"], schema)
        for writer in writers:
            writer.write_table(table)
    for writer in writers:
        writer.close()
    for form, file in files.items():
        (folder / f"{form}.toml").write_text(MAPPING.format(log=file.name))
    return files


def text(before: str, numbers: Ints) -> pa.Array:
    """Ids such as user-17."""
    return pc.binary_join_element_wise(before, pa.array(numbers).cast(pa.string()), "")


def read_csv(path: Path) -> None:
    """All of it, in batches, as larger logs have to be."""
    with pyarrow.csv.open_csv(path) as file:
        for _ in file:
            pass


def read_parquet(path: Path) -> None:
    """Likewise."""
    with pq.ParquetFile(path, pre_buffer=False, buffer_size=1 << 20) as file:
        for _ in file.iter_batches(1 << 16):
            pass


def ingest(path: Path, native: bool, number: int = 0) -> ClickLog:
    """A log that is not in the cache."""
    shutil.rmtree(os.environ[CACHE], ignore_errors=True)
    return open_log(mapped(path), native)


def mapped(path: Path) -> ReplayConfig:
    """By the mapping file beside it."""
    return ReplayConfig(path.with_name("CSV.toml" if path.suffix == ".csv" else "Parquet.toml"))


def read_back(log: ClickLog) -> None:
    """All columns of all rows, copied block by block."""
    for start in range(0, len(log), BLOCK):
        for column in (log.user, log.item, log.time, log.label, log.context):
            column[start : start + BLOCK].copy()


def peak(path: Path) -> int:
    """Bytes of memory that no file stands behind, of a process that does nothing else."""
    shutil.rmtree(os.environ[CACHE], ignore_errors=True)
    command = [sys.executable, "-c", PEAK, str(mapped(path).path)]
    return int(subprocess.run(command, check=True, text=True, capture_output=True).stdout)
