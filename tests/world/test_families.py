"""Logs that need no mapping file, the mapping files that we ship, and what each becomes."""

from __future__ import annotations

from collections import Counter
from pathlib import Path

import numpy as np
import pytest

from simulator.config import ReplayConfig
from simulator.errors import DataError
from simulator.world.clicklog import ClickLog, Entities
from simulator.world.families import read_mapping
from simulator.world.open import open_log

MAPPINGS = Path(__file__).parents[2] / "docs" / "mappings"
RATINGS = "7::30::5::200\n3::10::0::100\n7::20::8::100\n3::30::4::100\n9::40::1::300\n"
MOVIES = "30::Solo (1968)::Drama|War\n10::Once: a :: tale (1994)::Drama\n20::No year::\n"


def folder(path: Path, **files: str | bytes) -> Path:
    """A folder of files: `a_b` is a.b."""
    path.mkdir()
    for name, content in files.items():
        (path / name.replace("_", ".")).write_bytes(content if isinstance(content, bytes) else content.encode())
    return path


def opened(path: Path, **settings: object) -> ClickLog:
    return open_log(ReplayConfig(path, **settings))  # type: ignore[arg-type]


def rows(log: ClickLog) -> list[tuple[float, str, str, int]]:
    users, items = list(log.users.ids), list(log.items.ids)
    named = zip(log.time.tolist(), log.user, log.item, log.label.tolist(), strict=True)
    return [(time, users[user], items[item], label) for time, user, item, label in named]


def said(entities: Entities, name: str) -> dict[str, set[str]]:
    """What a feature says of each user or item."""
    feature = next(feature for feature in entities.features if feature.name == name)
    assert feature.values is not None
    return {
        of: {feature.names[value] for value in values if value >= 0}
        for of, values in zip(entities.ids, feature.values.tolist(), strict=True)
    }


def test_movielens_rows_come_by_time_with_decades_and_genres(tmp_path: Path) -> None:
    log = opened(folder(tmp_path / "small", ratings_dat=RATINGS, movies_dat=MOVIES))
    assert log.name == "small" and not log.labelled and log.skipped_rows == 0
    assert rows(log) == [
        (100, "3", "10", 1),
        (100, "7", "20", 1),
        (100, "3", "30", 1),
        (200, "7", "30", 1),
        (300, "9", "40", 1),
    ]
    decades = {"10": {"1990s"}, "20": set(), "30": {"1960s"}, "40": set()}
    assert said(log.items, "decade") == decades
    assert said(log.items, "genres") == {"10": {"Drama"}, "20": set(), "30": {"Drama", "War"}, "40": set()}
    assert log.items.titles is not None
    assert list(log.items.titles) == ["Once: a :: tale (1994)", "No year", "Solo (1968)", "40"]


def test_movielens_users_and_latin_1_titles_are_read(tmp_path: Path) -> None:
    movies = "30::Fantômas (1913)::Crime\n".encode("latin-1") + "20::Fantômas (1964)::Crime\r\n".encode()
    users = "3::F::25::4::12345\n7::M::25::1::9\n"
    log = opened(folder(tmp_path / "ml", ratings_dat=RATINGS, movies_dat=movies, users_dat=users))
    assert [feature.name for feature in log.users.features] == ["gender", "age", "occupation"]
    assert said(log.users, "gender") == {"3": {"F"}, "7": {"M"}, "9": set()}
    assert said(log.users, "age") == {"3": {"25"}, "7": {"25"}, "9": set()}
    assert log.items.titles is not None
    assert set(log.items.titles) == {"Fantômas (1913)", "Fantômas (1964)", "10", "40"}


def test_movielens_with_header_lines_is_the_same(tmp_path: Path) -> None:
    ratings = "userId,movieId,rating,timestamp\n" + RATINGS.replace("::", ",")
    movies = 'movieId,title,genres\n30,Solo (1968),Drama|War\n10,"Once: a :: tale (1994)",Drama\n20,No year,\n'
    log = opened(folder(tmp_path / "latest", ratings_csv=ratings, movies_csv=movies))
    same = opened(folder(tmp_path / "small", ratings_dat=RATINGS, movies_dat=MOVIES))
    assert rows(log) == rows(same) and list(log.items.titles or ()) == list(same.items.titles or ())
    assert [said(log.items, name) == said(same.items, name) for name in ("decade", "genres")] == [True, True]


@pytest.mark.parametrize(
    ("file", "line", "text", "fault"),
    [
        ("ratings.dat", 2, "1::2::3", "3 cells where there are 4 columns: '1::2::3'"),
        ("ratings.dat", 2, "1::2::3::4::5", "5 cells where there are 4 columns"),
        ("ratings.dat", 2, "1::2::3::yesterday", "time = 'yesterday' is not a time in unix seconds"),
        ("ratings.dat", 2, "1::2::3::nan", "time = 'nan' is not a time"),
        ("ratings.dat", 2, "::2::3::4", "user = None is not a user"),
        ("movies.dat", 3, "20;No year;", "1 cells where there are 3 columns: '20;No year;'"),
        ("users.dat", 1, "3::F::25::4", "4 cells where there are 5 columns"),
    ],
)
def test_a_damaged_row_is_named_or_skipped_and_counted(
    tmp_path: Path, file: str, line: int, text: str, fault: str
) -> None:
    users = "3::F::25::4::12345\n7::M::25::1::9\n"
    path = folder(tmp_path / "log", ratings_dat=RATINGS, movies_dat=MOVIES, users_dat=users)
    lines = (path / file).read_text().splitlines()
    lines[line - 1] = text
    (path / file).write_text("\n".join(lines))
    with pytest.raises(DataError) as caught:
        opened(path)
    assert str(caught.value).startswith(f"{path / file}:{line}: {fault}") and "--bad-rows skip" in str(caught.value)
    assert opened(path, bad_rows="skip").skipped_rows == 1


def test_the_real_log_is_what_plain_python_reads(movietweetings: Path) -> None:
    log = opened(movietweetings)
    lines = [line.split("::") for line in (movietweetings / "ratings.dat").read_text().splitlines()]
    lines.sort(key=lambda line: int(line[3]))
    assert rows(log) == [(int(time), user, item, 1) for user, item, _, time in lines]
    movies = (movietweetings / "movies.dat").read_text(encoding="utf-8").removesuffix("\n").split("\n")
    genres = {item: set(filter(None, names.split("|"))) for item, _, names in (m.split("::") for m in movies)}
    ours = said(log.items, "genres")
    assert {item: genres[item] for item in ours} == ours
    counted = Counter(len(values) for values in said(log.items, "decade").values())
    assert counted == {1: len(log.items)} and (len(log.users), len(log.items)) == (16_554, 10_506)


def test_recbole_files_say_their_types(tmp_path: Path) -> None:
    inter = "user_id:token\titem_id:token\trating:float\ttimestamp:float\tplace:token\n"
    path = folder(
        tmp_path / "rb",
        ml_inter=inter + "1\ta\t3\t20\thome\n2\tb\t4\t10.5\twork\n",
        ml_item="item_id:token\tmovie_title:token_seq\tclass:token_seq\tprice:float\tv:float_seq\n"
        'b\t"B" side\tx y\t3\t1 2\nc\tC\t\t4\t\n',
        ml_user="user_id:token\tage:token\n1\t30\n",
    )
    for place in (path, path / "ml.inter"):
        log = opened(place)
        assert rows(log) == [(10.5, "2", "b", 1), (20, "1", "a", 1)]
        assert list(log.items.ids) == ["b", "a", "c"] and list(log.items.titles or ()) == ['"B" side', "a", "C"]
        assert said(log.items, "class") == {"b": {"x", "y"}, "a": set(), "c": set()}
        assert [feature.name for feature in log.items.features] == ["class", "price"]
        assert said(log.users, "age") == {"2": set(), "1": {"30"}}
        assert [feature.name for feature in log.context_features] == ["place"]
    folder(path / "two", a_inter=inter, b_inter=inter)
    with pytest.raises(DataError, match=r"two: a.inter and b.inter in it; name one of them"):
        read_mapping(path / "two")
    for header, message in (("user_id:token\titem_id:token", "no column timestamp"), ("user\titem", "no header of an")):
        (path / "ml.inter").write_text(header + "\n")
        with pytest.raises(DataError, match=f"ml.inter:1: {message}"):
            read_mapping(path)


def test_mind_impressions_are_unfolded_to_slates(tmp_path: Path) -> None:
    behaviors = (
        "1\tU1\t11/11/2019 9:05:58 AM\tN1 N2\tN3-1 N4-0\n"
        "2\tU2\t11/11/2019 9:05:57 AM\t\tN3-0\n"
        "3\tU2\t11/11/2019 9:05:58 PM\t\t\n"
        "4\tU2\t11/11/2019 9:05:59 PM\tN3\tN7-0 N-8-1 N3-0\n"
    )
    path = folder(
        tmp_path / "mind",
        behaviors_tsv=behaviors,
        news_tsv='N3\tsports\tgolf\tA "fine" day\ta\tu\t[]\t[]\nN9\tnews\tx\tUnseen\ta\tu\t[]\t[]\n',
    )
    log = opened(path)
    assert [row[1:] for row in rows(log)] == [
        ("U2", "N3", 0),
        ("U1", "N3", 1),
        ("U1", "N4", 0),
        ("U2", "N7", 0),
        ("U2", "N-8", 1),
        ("U2", "N3", 0),
    ]
    assert log.slate is not None and log.slate.tolist() == [0, 1, 1, 2, 2, 2] and log.position == "position"
    assert log.context[:, 0].tolist() == [0, 0, 1, 0, 1, 2]  # 0 is the first
    assert said(log.items, "category")["N3"] == {"sports"}
    assert dict(zip(log.items.ids, log.items.titles or (), strict=True))["N3"] == 'A "fine" day'
    (path / "behaviors.tsv").write_text(behaviors.replace("N7-0", "N7"))
    with pytest.raises(DataError, match=r"behaviors.tsv:4: item = None is not an item"):
        opened(path)


def columns_of(name: str) -> dict[str, str]:
    """A made-up row in the form of a public log."""
    row = dict.fromkeys(f"C{n}" for n in (1, *range(14, 22))) | dict.fromkeys(f"cat{n}" for n in range(1, 10))
    return {
        "avazu": {"id": "1", "click": "0", "hour": "14102123", "device_ip": "a", **{c: "x" for c in row}}
        | dict.fromkeys(
            "banner_pos site_id site_domain site_category app_id app_domain app_category device_id device_model "
            "device_type device_conn_type".split(),
            "y",
        ),
        "criteo": {"timestamp": "0", "uid": "7", "campaign": "8", "click": "1", "time_since_last_click": "-1"}
        | dict.fromkeys((f"cat{n}" for n in range(1, 10)), "3"),
        "kuairand": {"user_id": "0", "video_id": "5", "time_ms": "1649400000000", "is_click": "1", "long_view": "0"}
        | {"play_time_ms": "700", "duration_ms": "9000", "tab": "1"},
    }[name]


@pytest.mark.parametrize(
    ("mapping", "log", "delimiter", "name", "row"),
    [
        ("avazu", "train.csv.gz", ",", "avazu", (1_413_932_400, "a", "x", 0)),
        ("criteo-attribution", "criteo_attribution_dataset.tsv.gz", "\t", "criteo", (0, "7", "8", 1)),
        ("kuairand", "log_standard_4_08_to_4_21_1k.csv", ",", "kuairand", (1_649_400_000, "0", "5", 1)),
    ],
)
def test_the_mapping_files_that_we_ship_fit_the_forms_of_their_logs(
    tmp_path: Path, mapping: str, log: str, delimiter: str, name: str, row: tuple[float, str, str, int]
) -> None:
    import gzip

    cells = columns_of(name)
    text = f"{delimiter.join(cells)}\n{delimiter.join(cells.values())}\n".encode()
    (tmp_path / log).write_bytes(gzip.compress(text) if log.endswith(".gz") else text)
    users = "user_id,user_active_degree,follow_user_num_range,register_days_range,is_video_author\n0,full,500+,730+,0\n"
    (tmp_path / "user_features_1k.csv").write_text(users)
    videos = 'video_id,author_id,video_type,upload_type,music_type,tag\n5,1,NORMAL,Long,9,"12,65"\n'
    (tmp_path / "video_features_basic_1k.csv").write_text(videos)
    (tmp_path / "map.toml").write_text((MAPPINGS / f"{mapping}.toml").read_text())
    found = opened(tmp_path / "map.toml")
    assert rows(found) == [row]
    if name == "kuairand":
        assert said(found.items, "tag") == {"5": {"12", "65"}} and found.history == 20
    assert np.array_equal(found.context >= 0, np.ones_like(found.context, bool))


def test_every_shipped_mapping_file_is_tested() -> None:
    assert {path.stem for path in MAPPINGS.iterdir()} == {"avazu", "criteo-attribution", "kuairand"}
