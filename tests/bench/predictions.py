"""`flicker compare` on two made-up logs of text ids, beside pyarrow merely reading both.

25 million rows a file, as the targets say, take 3 GB of disk and some minutes:

    make bench ARGS="--only compare --compare-rows 25000000"
"""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
from figures import Figure, ratio, single, speed
from interleave import interleave
from sizes import Size

from simulator.predictions.compare import compare_frames
from simulator.predictions.read import mix
from simulator.randomness import generator
from simulator.types import Doubles, Ints

ITEMS = 50
"""Of a query."""
CATALOGUE = 100_003
"""Items in all; a prime, so that a query's own are distinct."""
GROUP = 1 << 20
"""Rows written at a time."""
PEAK = """
import sys
from pathlib import Path
import pyarrow
from simulator.predictions.compare import compare_frames
pyarrow.set_memory_pool(pyarrow.system_memory_pool())
compare_frames([Path(path) for path in sys.argv[1:]])
(peak,) = (line.split()[1] for line in open("/proc/self/status") if line.startswith("VmHWM"))
print(int(peak) * 1024)
"""
"""Of the process itself: what resource.getrusage says includes the process that it was forked from."""


def measure(size: Size) -> list[Figure]:
    """Both orders of the rows."""
    pa.set_memory_pool(pa.system_memory_pool())
    with TemporaryDirectory() as folder:
        logs = {
            order: [write(Path(folder), size.compare_rows, order, model) for model in range(2)]
            for order in ("grouped", "shuffled")
        }
        variants = {f"reading, {order}": lambda _, files=files: read(files) for order, files in logs.items()}
        variants |= {
            f"comparing, {order}": lambda _, files=files: compare_frames(files) for order, files in logs.items()
        }
        passes = interleave("compare", variants, min(size.rounds, 3), min(size.warm_up, 1))
        peaks = {order: peak_memory(files) for order, files in logs.items()}
    found = [speed("comparing two grouped logs", "rows/s", passes["comparing, grouped"], 2 * size.compare_rows, "wall")]
    for order in logs:
        name = f"comparing two logs / reading them, {order}"
        found.append(ratio(name, passes, f"comparing, {order}", f"reading, {order}", "wall"))
        found.append(single(f"peak memory of comparing, {order}", "GiB", [peaks[order] / 2**30]))
    return found


def write(folder: Path, rows: int, order: str, model: int) -> Path:
    """A log of one model."""
    path = folder / f"{order}-{model}.parquet"
    schema = pa.schema([("q_id", pa.string()), ("doc_id", pa.string()), ("score", pa.float32())])
    draws = generator(model, "order of rows")
    numbers = np.arange(rows) if order == "grouped" else draws.permutation(rows)
    with pq.ParquetWriter(path, schema) as writer:
        for start in range(0, rows, GROUP):
            row = numbers[start : start + GROUP]
            query, place = np.divmod(row, ITEMS)
            item = (query * 7_919 + place * 4_001) % CATALOGUE
            score = uniform(row, 0) + 0.3 * uniform(row, model + 1)
            columns = [text("query-", query), text("item-", item), pa.array(score.astype(np.float32))]
            writer.write_table(pa.Table.from_arrays(columns, schema=schema))
    return path


def text(before: str, numbers: Ints) -> pa.Array:
    """Ids such as query-17."""
    return pc.binary_join_element_wise(before, pa.array(numbers).cast(pa.string()), "")


def uniform(rows: Ints, key: int) -> Doubles:
    """A random number in [0, 1) per row, the same in whatever order rows come."""
    return mix(rows.astype(np.uint64) * np.uint64(8) + np.uint64(key + 1)).astype(np.float64) / 2.0**64


def read(files: list[Path]) -> None:
    """All columns of both, in batches of the size that comparing takes."""
    for path in files:
        with pq.ParquetFile(path, pre_buffer=False, buffer_size=1 << 20) as file:
            for _ in file.iter_batches(1 << 18):
                pass


def peak_memory(files: list[Path]) -> int:
    """Bytes of a process that does nothing else."""
    command = [sys.executable, "-c", PEAK, *map(str, files)]
    return int(subprocess.run(command, check=True, text=True, capture_output=True).stdout)
