"""Prediction logs as rows of numbers: Parquet, CSV, TREC run files, LensKit item lists, and frames in memory.

Ids become 64-bit numbers: whole numbers stay as they are, text that writes one (`"7"`) is that number, other text is
hashed. Two ids of n meet by accident with a chance of n^2 / 4e19. Everything else is checked here, and what cannot be
used is named by file, row and column. Torch-free.

Shapes: n rows.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from types import ModuleType
from typing import Any, cast

import numpy as np
from numpy.typing import NDArray

from simulator.errors import DataError
from simulator.types import Doubles, Ints

Rows = dict[str, NDArray[Any]]
"""Columns [n] of rows: `query`, `item` (ids), `score`, and where the log has them `model` (number), `logit`, `label`
(NaN: none), `user`, and one per column of --by (ids)."""
MODEL = ("arm", "fleet", "duplicate", "generation")
"""Columns that name the model of a row."""
EVENT = np.int64(0x5BD1E9955BD1E995)
"""Tells events from queries of the same id."""
SUFFIXES = (".parquet", ".pq", ".csv", ".tsv", ".run", ".trec", ".txt")
SCORE = {b"flicker.score": b"log-odds"}
"""Metadata of a Parquet file whose scores are log-odds."""
TREC = ("q_id", "Q0", "doc_id", "rank", "score", "tag")
CSV_BLOCK = 8 << 20
"""Bytes of a CSV file parsed at a time."""
MAX_VALUES = 1_000
"""Values of a column of --by."""
TINY, NEARLY_ONE = 1e-300, 1 - 2.0**-53
"""Probabilities are kept inside, so that their log-odds are finite."""


def log_odds(chances: Doubles) -> Doubles:
    """Of probabilities, 0 to 1."""
    p = np.clip(chances, TINY, NEARLY_ONE)
    return np.asarray(np.log(p) - np.log1p(-p))


@dataclass(frozen=True)
class ColumnNames:
    """Names of the columns. All but the first three are used where the log has them."""

    query: str = "q_id"
    """The query (ranx: q_id)."""
    item: str = "doc_id"
    """The item that was scored (ranx: doc_id)."""
    score: str = "score"
    """What items are ranked by, higher is better."""
    probability: str = "probability"
    """Predicted probability of an engagement; without it there are swaps, and no prediction difference."""
    label: str = "label"
    """What is known to be true: 1 for an engagement, else 0; or a grade, or a true probability."""
    user: str = "user"
    """Whom the query is from: the unit of the intervals. Without it each query is its own unit."""
    role: str = "role"
    """`query`: ranked beside the other items of its query; `event`: predictions of it are compared, and not ranked."""
    by: tuple[str, ...] = ()
    """Columns whose values results are also given for, each with up to 1,000 values."""
    log_odds: bool = False
    """Scores are log-odds of an engagement: the probability is known without a column of its own."""


@dataclass
class PredictionSource:
    """One file, or one frame in memory, that can be read as often as needed."""

    name: str
    """Its name in errors."""
    argument: int
    """Number of the argument it belongs to: several files of a folder are parts of one."""
    columns: Mapping[str, Any]
    """Name -> Arrow type, as the rest sees them."""
    open: Callable[[Sequence[str], int], Iterator[Any]]
    """(columns, rows at a time) -> Arrow record batches."""
    rows: int
    """Number of rows; of text an estimate."""
    log_odds: bool = False
    names: ColumnNames = field(default_factory=ColumnNames)
    """Names of its columns."""
    ranked: bool = False
    """Its score is a rank: lower is better."""
    models: list[tuple[Any, ...]] = field(default_factory=list)
    """Values of MODEL that it holds."""
    numbers: list[int] = field(default_factory=list)
    """Numbers of these models."""

    @property
    def unnamed(self) -> tuple[Any, ...]:
        """Values of MODEL where it has no such column."""
        return "model", 0, self.argument, 0


def arrow() -> ModuleType:
    """pyarrow with what is used of it; imported late, since it takes a moment."""
    import pyarrow
    import pyarrow.compute
    import pyarrow.csv
    import pyarrow.parquet

    return pyarrow  # type: ignore[no-any-return]


def open_files(arguments: Sequence[Path], names: ColumnNames, first: int = 0) -> list[PredictionSource]:
    """The files, and those in the folders, that the arguments name, `first` the number of the first argument. DataError
    where one cannot be used."""
    sources: list[PredictionSource] = []
    for number, argument in enumerate(arguments, first):
        folder = argument / "predictions" if (argument / "predictions").is_dir() else argument
        files = sorted(p for p in folder.rglob("*") if p.suffix in SUFFIXES) if folder.is_dir() else [argument]
        if not files:
            raise DataError(f"{folder}: no file of predictions in it ({', '.join(SUFFIXES)}): name another folder")
        sources += [_checked(_open(path, number, names), names) for path in files]
    return sources


def open_frame(frame: Any, number: int, names: ColumnNames) -> PredictionSource:
    """A pandas or polars frame, an Arrow table, or a dict of arrays."""
    pa, name = arrow(), f"frame {number + 1}"
    try:
        table = frame if isinstance(frame, pa.Table) else pa.table(frame)
    except Exception as error:  # whatever the frame's own library raises
        hint = "give a frame or a dict of arrays of one length"
        raise DataError(f"{name}: no table ({_reason(error)}): {hint}") from None

    def batches(columns: Sequence[str], size: int) -> Iterator[Any]:
        yield from table.select(list(columns)).to_batches(size)

    columns = dict(zip(table.schema.names, table.schema.types, strict=True))
    return _checked(PredictionSource(name, number, columns, batches, len(table)), names)


def _open(path: Path, number: int, names: ColumnNames) -> PredictionSource:
    if not path.is_file():
        raise DataError(f"{path}: no such file or folder: name a file of predictions")
    return _parquet(path, number) if path.suffix in (".parquet", ".pq") else _text(path, number, names)


def _parquet(path: Path, number: int) -> PredictionSource:
    pa = arrow()
    with _named(path):
        # no pre_buffer: it holds whole row groups
        options = {"pre_buffer": False, "buffer_size": 1 << 20, "memory_map": False}
        file = pa.parquet.ParquetFile(path, **options)
        schema, rows = file.schema_arrow, file.metadata.num_rows
        file.close()
    columns = dict(zip(schema.names, schema.types, strict=True))
    log_odds = SCORE.items() <= (schema.metadata or {}).items()
    items = columns.get("items", pa.null())
    lists = pa.types.is_list(items) and pa.types.is_struct(items.value_type)
    keys = [name for name in schema.names if name != "items"]
    if lists:
        del columns["items"]
        columns |= {f.name: f.type for f in items.value_type}

    def batches(wanted: Sequence[str], size: int) -> Iterator[Any]:
        outer = [name for name in wanted if name in keys] + (["items"] if lists else [])
        with _named(path), pa.parquet.ParquetFile(path, **options) as opened:
            for batch in opened.iter_batches(size // 64 + 1 if lists else size, columns=outer):
                yield _exploded(batch, wanted) if lists else batch

    return PredictionSource(str(path), number, columns, batches, rows, log_odds)


def _exploded(batch: Any, wanted: Sequence[str]) -> Any:
    """A batch of LensKit item lists with a row per item."""
    pa = arrow()
    items = batch.column("items")
    parents, values = pa.compute.list_parent_indices(items), pa.compute.list_flatten(items)
    inner = {f.name for f in values.type}
    columns = [values.field(n) if n in inner else batch.column(n).take(parents) for n in wanted]
    return pa.RecordBatch.from_arrays(columns, names=list(wanted))


def _text(path: Path, number: int, names: ColumnNames) -> PredictionSource:
    """CSV with a header line, or a TREC run: six words a line, the second of them Q0."""
    pa = arrow()
    with _named(path), path.open("rb") as opened:
        first = opened.readline(1 << 16)
    words = first.decode("utf-8", "replace").split()
    trec = len(words) == 6 and words[1].upper() == "Q0"
    delimiter = "\t" if b"\t" in first else ","
    header_cells = first.decode("utf-8-sig", "replace").split(delimiter)
    header = list(TREC) if trec else [name.strip().strip('"') for name in header_cells]
    text = {names.query, names.item, names.user, names.role, "arm", *names.by}
    kinds = {n: pa.string() if n in text else pa.int64() if n in MODEL else pa.float64() for n in header}

    def batches(wanted: Sequence[str], size: int) -> Iterator[Any]:
        read, parse = pa.csv.ReadOptions(block_size=CSV_BLOCK), pa.csv.ParseOptions(delimiter=delimiter)
        types = {name: kinds[name] for name in wanted}
        if trec:  # lines, which are no CSV: words are parted by any spaces and tabs
            read.column_names, types = ["line"], {"line": pa.string()}
            parse = pa.csv.ParseOptions(delimiter="\1", quote_char=False)
        convert = pa.csv.ConvertOptions(include_columns=list(types), column_types=types, strings_can_be_null=not trec)
        with _named(path), path.open("rb") as stream:
            for batch in pa.csv.open_csv(stream, read, parse, convert):
                yield _parted(batch.column(0), {name: kinds[name] for name in wanted}) if trec else batch

    rows = int(path.stat().st_size // max(len(first), 20)) + 1
    return PredictionSource(str(path), number, kinds, batches, rows)


def _parted(lines: Any, kinds: Mapping[str, Any]) -> Any:
    """A batch of lines [n] of a TREC run as columns of these types."""
    pa = arrow()
    lines = pa.compute.ascii_trim_whitespace(lines)
    lines = lines.filter(pa.compute.not_equal(lines, ""))
    words = pa.compute.ascii_split_whitespace(lines)
    invalid = lines.filter(pa.compute.not_equal(pa.compute.list_value_length(words), len(TREC)))
    if len(invalid):
        raise pa.ArrowInvalid(f"Expected {len(TREC)} words: {invalid[0]}")
    columns = {name: pa.compute.list_element(words, TREC.index(name)).cast(kind) for name, kind in kinds.items()}
    return pa.RecordBatch.from_pydict(columns)


@contextmanager
def _named(path: Path) -> Iterator[None]:
    """pyarrow's and the system's errors as one line that names the file."""
    try:
        yield
    except (arrow().ArrowException, OSError, UnicodeDecodeError) as error:
        raise DataError(f"{path}: cannot be read ({_reason(error)}): write the file again") from None


def _reason(error: BaseException) -> str:
    return (str(getattr(error, "strerror", None) or error) or type(error).__name__).splitlines()[0]


def _checked(source: PredictionSource, names: ColumnNames) -> PredictionSource:
    """With LensKit's names understood, columns there and of the right kind, and its models known."""
    source.log_odds = source.log_odds or names.log_odds
    source.ranked = names.score not in source.columns and "rank" in source.columns
    source.names = names = _understood(names, source.columns)
    default, has = ColumnNames(), ", ".join(filter(None, source.columns))
    named = [name for key, name in asdict(names).items() if isinstance(name, str) and name != getattr(default, key)]
    for name in (names.query, names.item, names.score, *named, *names.by):
        if name not in source.columns and not has:
            raise DataError(f"{source.name}: empty: give a file with a header line and predictions")
        if name not in source.columns:
            raise DataError(f"{source.name}: no column {name!r} (it has {has}): name the column with a flag")
    kinds = arrow().types
    for name, kind in source.columns.items():
        value = kind.value_type if kinds.is_dictionary(kind) else kind
        is_text = kinds.is_string(value) or kinds.is_large_string(value) or kinds.is_string_view(value)
        is_integer = kinds.is_integer(value)
        is_number = is_integer or kinds.is_floating(value) or kinds.is_decimal(value) or kinds.is_boolean(value)
        for columns, is_valid, expected in (
            ((names.query, names.item, names.user), is_text or is_integer, "ids are whole numbers or text"),
            (MODEL[1:], is_integer, "it takes whole numbers"),
            ((names.score, names.probability, names.label), is_number, "it takes numbers"),
        ):
            if name in columns and not is_valid:
                raise DataError(f"{source.name}: column {name!r} holds {kind}: {expected}")
    model_columns = [name for name in MODEL if name in source.columns]
    models: dict[tuple[Any, ...], None] = {}
    for batch in source.open(model_columns, 1 << 20) if model_columns else ():
        for name in model_columns:
            if batch.column(name).null_count:
                raise DataError(f"{source.name}: column {name!r} is empty in some rows: say which model each row is of")
        models |= dict.fromkeys(combinations(source, batch)[0])
    source.models = list(models) or [source.unnamed]
    return source


def _understood(names: ColumnNames, columns: Mapping[str, Any]) -> ColumnNames:
    """LensKit calls the query user_id and the item item_id, and may give a rank alone."""
    lenskit = {"query": "user_id", "item": "item_id"}
    missing: dict[str, Any] = {field: name for field, name in lenskit.items() if getattr(names, field) not in columns}
    understood = replace(names, **missing) if columns.keys() >= set(missing.values()) else names
    if names.score not in columns and "rank" in columns:
        understood = replace(understood, score="rank")
    if understood != names and names.user not in columns and "user_id" in columns:
        understood = replace(understood, user="user_id")
    return understood


def _encoded(column: Any) -> Any:
    """With a dictionary."""
    return column if hasattr(column, "dictionary") else column.dictionary_encode()


def combinations(source: PredictionSource, batch: Any) -> tuple[list[tuple[Any, ...]], Ints]:
    """The values of MODEL in a batch, and which of them each row [n] has."""
    which, values = np.zeros(len(batch), np.int64), [()]  # type: tuple[Ints, list[tuple[Any, ...]]]
    for name, default in zip(MODEL, source.unnamed, strict=True):
        if name not in source.columns:
            values = [(*value, default) for value in values]
            continue
        coded = _encoded(batch.column(name))
        words = [(str(w) or default) if name == "arm" else w for w in coded.dictionary.to_pylist()]
        which = which * len(words) + coded.indices.to_numpy()
        values = [(*value, word) for value in values for word in words]
    used, index = np.unique(which, return_inverse=True)
    return [values[number] for number in used], index


def read(
    source: PredictionSource, size: int, optional: Sequence[str], values: dict[str, dict[int, str]]
) -> Iterator[Rows]:
    """The source's rows, about `size` at a time; `optional`: columns of Rows beside the first three that it must have.

    `values` is filled with the texts of the ids of columns of --by.
    """
    names = source.names
    is_several = len(source.models) > 1
    model_columns = [name for name in MODEL if name in source.columns] if is_several else []
    optional_columns = [n for n in (names.user, names.label, names.role) if n in source.columns]
    optional_columns += [names.probability] if names.probability in source.columns and not source.log_odds else []
    wanted = list(dict.fromkeys([names.query, names.item, names.score, *optional_columns, *model_columns, *names.by]))
    first = 1
    for batch in source.open(wanted, size):
        if not len(batch):
            continue
        cell = _Cells(source.name, batch, first)
        score = -cell.numbers(names.score) if source.ranked else cell.numbers(names.score)
        rows: Rows = {"query": cell.ids(names.query), "item": cell.ids(names.item), "score": score}
        if names.role in optional_columns:
            rows["query"] = np.where(cell.events(names.role), rows["query"] ^ EVENT, rows["query"])
        if "user" in optional:
            rows["user"] = cell.ids(names.user)
        if "label" in optional:
            rows["label"] = cell.labels(names.label) if names.label in optional_columns else np.full(len(batch), np.nan)
        if "event" in optional:
            rows["event"] = cell.events(names.role) if names.role in optional_columns else np.zeros(len(batch), bool)
        if "logit" in optional:
            rows["logit"] = cell.logits(names.score, score) if source.log_odds else cell.chances(names.probability)
        for name in names.by:
            rows[name] = cell.values(name, values.setdefault(name, {}))
        if is_several:
            models, index = combinations(source, batch)
            rows["model"] = np.array([source.numbers[source.models.index(m)] for m in models], np.int64)[index]
        else:
            rows["model"] = np.broadcast_to(np.int64(source.numbers[0]), len(batch))
        yield rows
        first += len(batch)


class _Cells:
    """The columns of a batch as arrays. DataError names the first row that cannot be used."""

    def __init__(self, name: str, batch: Any, first: int) -> None:
        self.name, self.batch, self.first = name, batch, first

    def numbers(self, column: str) -> Doubles:
        values = self.batch.column(column)
        values = values.cast(arrow().float64()).to_numpy(zero_copy_only=False)
        self._refuse(np.isnan(values), column, "is no number: leave the row out, or give the score that ranked it")
        return cast(Doubles, values)

    def logits(self, column: str, values: Doubles) -> Doubles:
        self._refuse(~np.isfinite(values), column, "is no finite log-odds: give one")
        return values

    def chances(self, column: str) -> Doubles:
        p = self.numbers(column)
        self._refuse((p < 0) | (p > 1), column, "is no probability: give values from 0 to 1, or leave the column out")
        return log_odds(p)

    def labels(self, column: str) -> Doubles:
        values = self.batch.column(column).cast(arrow().float64()).to_numpy(zero_copy_only=False)
        self._refuse(values < 0, column, "is below 0: labels are 0 for nothing and more for more")
        return cast(Doubles, values)

    def events(self, column: str) -> NDArray[np.bool_]:
        coded = _encoded(self.batch.column(column))
        words = np.array([{"query": 0, "event": 1}.get(w, 2) for w in coded.dictionary.to_pylist()] or [0])
        role_codes = words[coded.indices.fill_null(0).to_numpy(zero_copy_only=False)]
        self._refuse(role_codes == 2, column, "is no role: `query` or `event`")
        return np.asarray(role_codes == 1)

    def ids(self, column: str) -> Ints:
        values = self.batch.column(column)
        if values.null_count:
            empty = values.is_null().to_numpy(zero_copy_only=False)
            self._refuse(empty, column, "is empty: every row needs one")
        return codes(values)

    def values(self, column: str, words: dict[int, str]) -> Ints:
        pa = arrow()
        coded = self.batch.column(column).cast(pa.string()).fill_null("(none)").dictionary_encode()
        number = codes(coded.dictionary)
        words |= dict(zip(number.tolist(), coded.dictionary.to_pylist(), strict=True))
        if len(words) > MAX_VALUES:
            raise DataError(f"{self.name}: column {column!r} has more than {MAX_VALUES:,} values: --by takes few")
        return cast(Ints, number[coded.indices.to_numpy()])

    def _refuse(self, is_bad: NDArray[np.bool_], column: str, reason: str) -> None:
        if is_bad.any():
            row = int(is_bad.argmax())
            value = self.batch.column(column)[row].as_py()
            raise DataError(f"{self.name}: row {self.first + row:,}: {column} = {value} {reason}")


def codes(values: Any) -> Ints:
    """Ids [n] of an Arrow array of whole numbers or text, without nulls."""
    pa = arrow()
    kinds = pa.types
    if kinds.is_dictionary(values.type):
        return cast(Ints, codes(values.dictionary)[values.indices.to_numpy()])
    if kinds.is_integer(values.type):
        return cast(Ints, values.to_numpy().astype(np.int64, copy=False))
    if not kinds.is_string(values.type):
        values = values.cast(pa.string())
    return hashed(values)


def hashed(texts: Any) -> Ints:
    """Ids [n] of an Arrow string array: 8 bytes at a time, each mixed in by a multiply and two shifts (as in
    MurmurHash 3, whose constants these are). Text that writes a whole number is that number."""
    count = len(texts)
    _, offsets, data = texts.buffers()
    ends = np.frombuffer(offsets, np.int32)[texts.offset : texts.offset + count + 1].astype(np.int64)
    start, length = ends[:-1], np.diff(ends)
    raw = np.frombuffer(data, np.uint8) if data is not None else np.zeros(0, np.uint8)
    begin, end = (ends[0], ends[-1]) if count else (0, 0)
    padded, start = np.concatenate([raw[begin:end], np.zeros(8, np.uint8)]), start - begin
    words = np.ndarray((max(len(padded) - 7, 1),), np.uint64, padded, strides=(1,))  # 8 bytes from any place
    state = mix(length.astype(np.uint64) + np.uint64(1))  # not of 0, which it leaves alone
    for part in range(0, int(length.max(initial=0)), 8):
        remaining = length - part
        is_full = int(remaining.min()) >= 8
        rows = slice(None) if int(remaining.min()) > 0 else np.flatnonzero(remaining > 0)
        word = words[start[rows] + part]
        if not is_full:
            word &= _MASKS[np.minimum(remaining[rows], 8)]
        state[rows] = mix(state[rows] ^ word)
    ids = state.view(np.int64)
    first_byte = padded[start] if count else padded[:0]
    numeric = (length > 0) & (((first_byte >= 48) & (first_byte <= 57)) | (first_byte == 45))
    if numeric.any():
        pa = arrow()
        places = np.flatnonzero(numeric)
        texts = texts.take(pa.array(places)) if len(places) < count else texts
        plain = pa.compute.match_substring_regex(texts, r"^(0|-?[1-9][0-9]{0,17})$")
        ids[places[plain.to_numpy(zero_copy_only=False)]] = texts.filter(plain).cast(pa.int64()).to_numpy()
    return ids


_MASKS = np.array([(1 << (8 * n)) - 1 for n in range(9)], np.uint64)
"""Of the first 0 to 8 bytes of a little-endian word."""


def mix(values: NDArray[np.uint64]) -> NDArray[np.uint64]:
    """A bijection of 64-bit numbers that spreads every bit over all (the finaliser of MurmurHash 3)."""
    values = values ^ (values >> np.uint64(33))
    values *= np.uint64(0xFF51AFD7ED558CCD)
    values ^= values >> np.uint64(33)
    values *= np.uint64(0xC4CEB9FE1A85EC53)
    values ^= values >> np.uint64(33)
    return values


def row_of(source: PredictionSource, query: int, item: int) -> tuple[list[int], str]:
    """Rows (from 1) that hold an item of a query, and both ids as written; reads the source again."""
    rows: list[int] = []
    written, first, names = "", 1, source.names
    events = names.role in source.columns
    for batch in source.open([names.query, names.item, *([names.role] if events else [])], 1 << 20):
        cell = _Cells(source.name, batch, first)
        queries = cell.ids(names.query)
        queries = np.where(cell.events(names.role), queries ^ EVENT, queries) if events else queries
        for place in np.flatnonzero((queries == query) & (cell.ids(names.item) == item)).tolist():
            rows.append(first + place)
            ids = (batch.column(name)[place].as_py() for name in (names.query, names.item))
            written = ", ".join(f"{name} = {value}" for name, value in zip((names.query, names.item), ids, strict=True))
        first += len(batch)
    return rows, written
