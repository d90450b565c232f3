"""Made-up logs, and what a ClickLog of theirs has to hold, worked out row by row."""

from __future__ import annotations

import csv
import random
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from simulator.world.clicklog import ClickLog, Feature

MAPPING = """
log = "{log}"
user = "visitor"
item = "sku"
time = "at"
{more}
[features]
user = ["country"]
item = ["brand", {{ column = "tags", separator = "|" }}]
context = ["device"]
"""
HEADER = ["at", "visitor", "sku", "country", "brand", "tags", "device", "clicked", "page", "rank", "w"]
MORE = 'label = "clicked"\nslate = "page"\nposition = "rank"\nweight = "w"\nhistory = 5'
FEATURES = {"users": {"country": 3}, "items": {"brand": 4, "tags": 5}, "context": {"device": 6, "rank": 9}}
"""Group -> feature -> its place in a row."""
Row = list[str]


def rows_of(count: int, users: int = 50, items: int = 40, seed: int = 0) -> list[Row]:
    """A log in no order, some rows at the same time; some cells are empty."""
    draw = random.Random(seed)
    tags = [draw.sample(["red", "green, light", "blüe"], draw.randrange(4)) for _ in range(items)]
    rows = []
    for _ in range(count):
        user, item, page = draw.randrange(users), draw.randrange(items), draw.randrange(count // 3 + 1)
        who = [str(1_600_000_000 + draw.randrange(count) / 2), f"u{user}", f"i{item}", f"c{user % 3}" * (user > 4)]
        what = [f"b{item % 4}" * (draw.random() < 0.9), "|".join(tags[item]), draw.choice(["phone", "desk", ""])]
        rows.append([*who, *what, str(int(draw.random() < 0.3)), f"p{page}", str(1 + draw.randrange(9)), "0.5"])
    return rows


def written(folder: Path, rows: list[Row], more: str = MORE, delimiter: str = ",") -> Path:
    """A CSV and its mapping file."""
    folder.mkdir(exist_ok=True)
    with (folder / "log.csv").open("w", newline="") as file:
        csv.writer(file, delimiter=delimiter).writerows([HEADER, *rows])
    (folder / "map.toml").write_text(MAPPING.format(log="log.csv", more=more))
    return folder / "map.toml"


def as_parquet(path: Path, rows: list[Row], more: str = MORE) -> Path:
    """The same beside a mapping file, in the types that Parquet has."""
    columns: dict[str, Any] = dict(zip(HEADER, map(list, zip(*rows, strict=True)), strict=True))
    micro = [round(float(time) * 1e6) for time in columns["at"]]
    columns |= {
        "at": pa.array(micro, pa.timestamp("us", "Europe/Madrid")),
        "brand": pa.array(columns["brand"]).dictionary_encode(),
        "tags": [list(filter(None, cell.split("|"))) for cell in columns["tags"]],
        "device": [cell or None for cell in columns["device"]],
        "clicked": [cell == "1" for cell in columns["clicked"]],
        "rank": [float(cell) for cell in columns["rank"]],
    }
    pq.write_table(pa.table(columns), path.parent / "log.parquet", row_group_size=701)
    other = path.with_name("parquet.toml")
    other.write_text(MAPPING.format(log="log.parquet", more=more))
    return other


def numbered(values: list[str]) -> dict[str, int]:
    """By first appearance; what is empty has no number."""
    return {value: number for number, value in enumerate(dict.fromkeys(filter(None, values)))}


def assert_is(log: ClickLog, rows: list[Row]) -> None:
    """The log is exactly what these rows say."""
    rows = sorted(rows, key=lambda row: float(row[0]))
    users, items = numbered([row[1] for row in rows]), numbered([row[2] for row in rows])
    pages = numbered([row[8] for row in rows])
    assert list(log.users.ids) == list(users) and list(log.items.ids) == list(items)
    assert log.time.tolist() == [float(row[0]) for row in rows]
    assert log.user.tolist() == [users[row[1]] for row in rows]
    assert log.item.tolist() == [items[row[2]] for row in rows]
    assert log.label.tolist() == [int(row[7]) for row in rows]
    assert log.slate is not None and log.slate.tolist() == [pages[row[8]] for row in rows]
    assert log.weight is not None and log.weight.tolist() == [float(row[10]) for row in rows]
    assert log.previous is not None and log.previous.tolist() == list(previous(rows))
    first = {row[1]: row for row in reversed(rows)}, {row[2]: row for row in reversed(rows)}
    assert_feature(log.users.features[0], None, [first[0][user][3] for user in users])
    for feature, place in zip(log.items.features, (4, 5), strict=True):
        assert_feature(feature, None, [first[1][item][place] for item in items])
    device, rank = log.context_features
    assert_feature(device, log.context[:, :1], [row[6] for row in rows])
    assert log.position == rank.name == "rank" and rank.names[0] == "1"
    assert log.context[:, 1].tolist() == [int(row[9]) - 1 for row in rows]


def assert_feature(feature: Feature, values: Any, cells: list[str]) -> None:
    """Users, items or rows have these cells, `|` between several values of one."""
    split = [list(dict.fromkeys(filter(None, cell.split("|")))) for cell in cells]
    numbers = numbered([value for cell in split for value in cell])
    assert list(feature.names) == list(numbers) and feature.slots == max(map(len, split))
    found = feature.values if values is None else values
    padded = [[numbers[value] for value in cell] + [-1] * (feature.slots - len(cell)) for cell in split]
    assert found.tolist() == padded


def previous(rows: list[Row]) -> list[int]:
    """Row of each user's last engagement before."""
    last: dict[str, int] = {}
    found = []
    for number, row in enumerate(rows):
        found.append(last.get(row[1], -1))
        if row[7] == "1":
            last[row[1]] = number
    return found


def same(left: ClickLog, right: ClickLog) -> bool:
    """Whether two logs hold the same, whatever they are called."""

    def flat(log: ClickLog) -> list[Any]:
        arrays = [log.user, log.item, log.time, log.label, log.context, log.weight, log.slate, log.previous]
        found: list[Any] = [None if array is None else (array.dtype, array.tolist()) for array in arrays]
        found += [log.labelled, log.position, log.history, list(log.notes)]
        for entities in (log.users, log.items):
            found += [list(entities.ids), None if entities.titles is None else list(entities.titles)]
        for feature in (*log.users.features, *log.items.features, *log.context_features):
            values = None if feature.values is None else np.asarray(feature.values).tolist()
            found.append((feature.name, list(feature.names), feature.slots, values))
        return found

    return flat(left) == flat(right)
