"""Readers of the MovieLens family: folders of `::` files, such as MovieLens 1M and MovieTweetings.

    ratings.dat   user::item::rating::unix seconds     in any order; read into memory, sorted by time, user, item
    movies.dat    item::title (year)::genre|genre      an item may be missing: its decade and genres are unknown
    users.dat     user::gender::age::occupation::zip   optional; zip codes are not used

Every rating is an engagement, whatever its value. Identities are whole numbers (leading zeros do not matter).
Sources: https://files.grouplens.org/datasets/movielens/ml-1m-README.txt, https://github.com/sidooms/MovieTweetings.
"""

from __future__ import annotations

import math
import re
from array import array
from collections.abc import Iterator
from pathlib import Path

import numpy as np

from simulator.config import ReplayConfig
from simulator.errors import DataError
from simulator.types import Doubles, Ints, Names
from simulator.world.log import Block, MemoryLog
from simulator.world.tables import Damage, decoded, shown
from simulator.world.vocabulary import Feature, assemble, by_first_appearance

YEAR = re.compile(r"\((\d{4})\)\s*$")
MOST = 1 << 63
"""Identities are kept in 64 bits."""


def open_movielens(folder: Path, config: ReplayConfig, hash_rows: int = 0) -> MemoryLog:
    """The log in a folder of the MovieLens family; DataError where a file is missing or damaged."""
    for name in ("ratings.dat", "movies.dat"):
        if not (folder / name).is_file():
            hint = "give a folder of the MovieLens family, or a mapping file *.toml"
            raise DataError(f"{folder}: no {name} in it; {hint}")
    damage = Damage(config.bad_rows)
    user, item, time = _ratings(folder / "ratings.dat", damage, config.limit)
    users, user_ids = by_first_appearance(user)
    items, item_ids = by_first_appearance(item)
    features, titles = _movies(folder / "movies.dat", damage, item_ids)
    if (folder / "users.dat").is_file():
        features += _users(folder / "users.dat", damage, user_ids)
    rows = Block(users, items, time, np.ones(len(time), np.float32), np.empty((len(time), 0), np.int32))
    encoder = assemble(len(user_ids), len(item_ids), features, hash_rows)
    names = Names([*map(str, user_ids.tolist())], [*map(str, item_ids.tolist())], titles)
    return MemoryLog(folder.resolve().name, encoder, False, rows, damage.skipped, names)


def _lines(path: Path) -> Iterator[tuple[int, bytes]]:
    """Line numbers from 1 and their text, blank lines left out."""
    with path.open("rb") as file:
        for number, line in enumerate(file, start=1):
            if line := line.strip(b"\r\n"):
                yield number, line


def _ratings(path: Path, damage: Damage, limit: int | None) -> tuple[Ints, Ints, Doubles]:
    """User, item and time of the first `limit` ratings by time, user and item."""
    users, items, times = array("q"), array("q"), array("d")
    for number, line in _lines(path):
        try:
            user, item, rating, time = line.split(b"::")
            row = int(user), int(item), float(time)
            if not (math.isfinite(row[2]) and math.isfinite(float(rating)) and max(map(abs, row)) < MOST):
                raise ValueError
        except (ValueError, OverflowError):
            damage.report(path, number, f"{shown(decoded(line))} is not user::item::rating::unix seconds")
            continue
        users.append(row[0])
        items.append(row[1])
        times.append(row[2])
    if not times:
        raise DataError(f"{path}: no ratings in it; give a log with at least one row")
    user_ids, item_ids, seconds = np.array(users), np.array(items), np.array(times)
    order = np.lexsort((item_ids, user_ids, seconds))[:limit]
    return user_ids[order], item_ids[order], seconds[order]


def _movies(path: Path, damage: Damage, item_ids: Ints) -> tuple[list[Feature], list[str]]:
    """Decade and genres of each item of the log, in the order of their numbers, and titles."""
    wanted, found = set(item_ids.tolist()), dict[int, tuple[str, str]]()
    for number, line in _lines(path):
        try:
            item, rest = decoded(line).split("::", 1)
            title, genres = rest.rsplit("::", 1)
            if (identity := int(item)) in wanted:
                found.setdefault(identity, (title, genres))
        except ValueError:
            damage.report(path, number, f"{shown(decoded(line))} is not item::title (year)::genre|genre")
    decades, all_genres = Feature("decade", "item"), Feature("genres", "item", separator="|")
    for identity in item_ids.tolist():
        title, genres = found.get(identity, ("", ""))
        year = YEAR.search(title)
        decades.append(f"{year[1][:3]}0s" if year else None)
        all_genres.append(genres)
    titles = [found.get(identity, ("", ""))[0] for identity in item_ids.tolist()]
    return [decades, all_genres], titles


def _users(path: Path, damage: Damage, user_ids: Ints) -> list[Feature]:
    """Gender, age and occupation of each user of the log, in the order of their numbers."""
    wanted, found = set(user_ids.tolist()), dict[int, list[str]]()
    for number, line in _lines(path):
        try:
            user, *traits, _ = decoded(line).split("::")
            if len(traits) != 3:
                raise ValueError
            if (identity := int(user)) in wanted:
                found.setdefault(identity, traits)
        except ValueError:
            damage.report(path, number, f"{shown(decoded(line))} is not user::gender::age::occupation::zip")
    features = [Feature(name, "user") for name in ("gender", "age", "occupation")]
    for identity in user_ids.tolist():
        for feature, trait in zip(features, found.get(identity, ["", "", ""]), strict=True):
            feature.append(trait)
    return features
