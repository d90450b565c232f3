"""Logs with known columns: the families of MovieLens, RecBole and MIND.

    MovieLens   ratings.dat  user::item::rating::unix seconds        every rating is an engagement, whatever its value
                movies.dat   item::title (year)::genre|genre         the decade of the year is a column of its own
                users.dat    user::gender::age::occupation::zip      optional; zip codes are not used
                or ratings.csv and movies.csv, with header lines, as in ml-latest
    RecBole     NAME.inter, perhaps NAME.item and NAME.user          tabs; the header says name:type
    MIND        behaviors.tsv, news.tsv                              a row per item shown; impressions are slates

Sources: https://files.grouplens.org/datasets/movielens/ml-1m-README.txt, https://recbole.io/docs/user_guide/data/atomic_files.html,
https://github.com/msnews/msnews.github.io/blob/master/assets/doc/introduction.md.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from simulator.errors import DataError
from simulator.types import Ints, Side
from simulator.world.columns import pa, pc
from simulator.world.label import Label
from simulator.world.mapping import EntityTable, FeatureColumn, Form, Mapping, Table, read_mapping_file

DERIVED: dict[Form, dict[str, str]] = {
    "movielens": {"decade": "title"},
    "mind": dict.fromkeys(("item", "clicked", "position"), "impressions"),
}
"""Columns that a family's tables have beside those of the file, and the column that they are made from."""
BEHAVIORS = ("impression", "user", "time", "history", "impressions")
NEWS = ("id", "category", "subcategory", "title", "abstract", "url", "title_entities", "abstract_entities")
RECBOLE_TITLES = ("title", "movie_title", "item_name", "name", "book_title", "track_name")

UNIT = "\x1f"
"""Stands for `::` while text is taken apart."""


def read_mapping(path: Path) -> Mapping:
    """The mapping in a file, or of the family that a folder or file belongs to; DataError where neither is there."""
    if path.suffix == ".toml" and path.is_file():
        return read_mapping_file(path)
    if not path.exists():
        raise DataError(f"{path}: no such file or folder; give a mapping file *.toml, or a folder of a known family")
    if (family := _family(path)) is None:
        hint = f"flicker check {path} --write FILE.toml makes a mapping file to start from"
        raise DataError(f"{path}: neither a mapping file nor a family ({', '.join(FAMILIES)}, *.inter); {hint}")
    return family(path, path if path.is_dir() else path.parent)


def is_known(path: Path) -> bool:
    """Whether `read_mapping` is to read it: a mapping file, or a family."""
    return path.suffix == ".toml" or _family(path) is not None


def _family(path: Path) -> Callable[[Path, Path], Mapping] | None:
    if path.suffix == ".inter" or (path.is_dir() and any(path.glob("*.inter"))):
        return _recbole
    files = [path] if path.is_file() else [path / name for name in FAMILIES if (path / name).is_file()]
    return next((FAMILIES[file.name] for file in files if file.name in FAMILIES and _has_header(file)), None)


def _has_header(file: Path) -> bool:
    """Whether the file has the family's header: other logs have a ratings.csv, too."""
    if file.name != "ratings.csv":
        return True
    with file.open("rb") as stream:
        return stream.readline(100).removeprefix(b"\xef\xbb\xbf").startswith(b"userId,movieId,")


def _movielens(path: Path, folder: Path) -> Mapping:
    def table(name: str, *columns: str) -> Table:
        return Table(str(folder / name), "::", columns, "movielens")

    users = None
    if (folder / "users.dat").is_file():
        traits = _features("user", "gender", "age", "occupation")
        users = EntityTable(table("users.dat", "user", "gender", "age", "occupation", "zip"), "user", features=traits)
    log = table("ratings.dat", "user", "item", "rating", "time")
    items = _movies(folder, table("movies.dat", "item", "title", "genres"), "item")
    return Mapping(path, log, "user", "item", "time", users=users, items=items)


def _movielens_csv(path: Path, folder: Path) -> Mapping:
    items = _movies(folder, Table(str(folder / "movies.csv"), form="movielens"), "movieId")
    return Mapping(path, Table(str(folder / "ratings.csv")), "userId", "movieId", "timestamp", items=items)


def _movies(folder: Path, table: Table, id: str) -> EntityTable | None:
    features = (*_features("item", "decade"), FeatureColumn("genres", "item", separator="|"))
    return EntityTable(table, id, "title", features) if Path(table.path).is_file() else None


def _features(side: Side, *columns: str) -> tuple[FeatureColumn, ...]:
    return tuple(FeatureColumn(column, side) for column in columns)


def _mind(path: Path, folder: Path) -> Mapping:
    items = None
    if (folder / "news.tsv").is_file():
        news = Table(str(folder / "news.tsv"), "\t", NEWS, "mind")
        items = EntityTable(news, "id", "title", _features("item", "category", "subcategory"))
    log = Table(str(folder / "behaviors.tsv"), "\t", BEHAVIORS, "mind")
    unit, label = "%m/%d/%Y %I:%M:%S %p", Label("clicked")
    return Mapping(path, log, "user", "item", "time", unit, label, slate="impression", position="position", items=items)


def _recbole(path: Path, folder: Path) -> Mapping:
    inter = sorted(folder.glob("*.inter")) if path.is_dir() else [path]
    if len(inter) > 1:
        raise DataError(f"{path}: {' and '.join(file.name for file in inter)} in it; name one of them")
    types = _header(inter[0])
    for column in ("user_id", "item_id", "timestamp"):
        if column not in types:
            hint = "a log needs user_id, item_id and timestamp"
            raise DataError(f"{inter[0]}:1: no column {column} (it has {', '.join(types)}); {hint}")
    tokens = {name: kind for name, kind in types.items() if kind.startswith("token")}  # a float may tell the outcome
    return Mapping(
        path,
        Table(str(inter[0]), "\t", form="recbole"),
        "user_id",
        "item_id",
        "timestamp",
        label=Label("label") if "label" in types else None,
        features=_atomic("context", tokens, ("user_id", "item_id", "timestamp", "rating", "label")),
        users=_atomic_table("user", inter[0].with_suffix(".user")),
        items=_atomic_table("item", inter[0].with_suffix(".item")),
    )


def _atomic_table(side: Side, file: Path) -> EntityTable | None:
    """The table of the users or items, where there is one."""
    if not file.is_file():
        return None
    types = _header(file)
    title = next((name for name in RECBOLE_TITLES if name in types), None) if side == "item" else None
    features = _atomic(side, types, (f"{side}_id", title))
    return EntityTable(Table(str(file), "\t", form="recbole"), f"{side}_id", title, features)


def _atomic(side: Side, types: dict[str, str], used: Sequence[str | None]) -> tuple[FeatureColumn, ...]:
    """Features of an atomic file: floats are numbers, tokens are separated by blanks; sequences of floats are none."""
    return tuple(
        FeatureColumn(name, side, " " if "seq" in kind else None, "number" if kind == "float" else "category")
        for name, kind in types.items()
        if name not in used and kind != "float_seq"
    )


def _header(path: Path) -> dict[str, str]:
    """Names and types of the columns of an atomic file."""
    with path.open("rb") as file:
        line = file.readline(1 << 20).decode("utf-8-sig", "replace").rstrip("\r\n")
    types = dict(cell.rpartition(":")[::2] for cell in line.split("\t"))
    if not re.fullmatch(r"(token|float)(_seq)?(,(token|float)(_seq)?)*", ",".join(types.values())):
        raise DataError(f"{path}:1: no header of an atomic file; each cell is name:type, such as user_id:token")
    return types


FAMILIES = {"ratings.dat": _movielens, "ratings.csv": _movielens_csv, "behaviors.tsv": _mind}


def prepared(text: bytes, delimiter: str, columns: int) -> tuple[bytes, str]:
    """Text with a delimiter of one byte, and that delimiter; of three columns, the middle one may hold `::` itself."""
    if delimiter != "::":
        return text, delimiter
    if columns == 3:
        return re.sub(rb"(?m)^(.*?)::(.*)::(.*)$", UNIT.encode().join((rb"\1", rb"\2", rb"\3")), text), UNIT
    return text.replace(b"::", UNIT.encode()), UNIT


def derived(form: Form, columns: dict[str, Any]) -> tuple[Ints | None, dict[str, Any]]:
    """A batch's columns with those of DERIVED, and the rows that these were unfolded from, where they were."""
    if form == "movielens" and "title" in columns:
        year = pc.extract_regex(columns["title"], r"\((?P<decade>\d{3})\d\)\s*$")
        decade = pc.binary_join_element_wise(pc.struct_field(year, "decade"), "0s", "")
        return None, columns | {"decade": decade}
    if form != "mind" or "impressions" not in columns:
        return None, columns
    impressions = pc.split_pattern(pc.utf8_trim_whitespace(columns["impressions"]), " ")
    row = pc.list_parent_indices(impressions).to_numpy()
    parts = pc.extract_regex(pc.list_flatten(impressions), r"^(?P<item>.+)-(?P<clicked>[01])$")
    unfolded = {name: column.take(pa.array(row)) for name, column in columns.items()}
    position = pa.array(np.arange(len(row)) - np.searchsorted(row, row) + 1)
    return row, unfolded | {name: pc.struct_field(parts, name) for name in ("item", "clicked")} | {"position": position}
