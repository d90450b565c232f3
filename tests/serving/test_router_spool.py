"""The spool alone: order, bound, what a crash leaves, and what another process finds."""

from __future__ import annotations

import os
import shutil
from pathlib import Path

import pytest

from serving.router import feedback as module
from serving.router.feedback import MIN_BYTES, NotWritten, Spool
from simulator.errors import SettingError


def record(number: int, size: int = 100) -> tuple[bytes, bytes]:
    return number.to_bytes(8, "little"), bytes([number % 256]) * size


def numbers(spool: Spool) -> list[int]:
    """The numbers of all that waits, which are their keys; forgets them."""
    found: list[int] = []
    while records := spool.read(7):
        assert all((key, batch) == record(number, len(batch)) for number, key, batch in records)
        found += [number for number, *_ in records]
        spool.forget(records)
    return found


def test_records_come_back_in_order_and_are_numbered_through(tmp_path: Path) -> None:
    spool = Spool(tmp_path, "run", MIN_BYTES)
    assert spool.read(10) == [] and spool.waiting == spool.bytes == 0
    spool.write([record(1), record(2, 0)])
    spool.write([record(3)])
    assert spool.waiting == 3 and spool.bytes == 224
    assert [number for number, *_ in spool.read(2)] == [1, 2]
    spool.forget(spool.read(2))
    assert numbers(spool) == [3] and spool.waiting == spool.bytes == 0
    spool.write([record(4)])
    assert numbers(spool) == [4]
    spool.close()


def test_what_is_handed_over_takes_no_room_for_long(tmp_path: Path) -> None:
    spool = Spool(tmp_path, "run", MIN_BYTES)
    for first in range(1, 2_001, 100):
        spool.write([record(number, 10_000) for number in range(first, first + 100)])
        assert numbers(spool) == list(range(first, first + 100))
    spool.close()
    assert sum(file.stat().st_size for file in tmp_path.rglob("reports*")) < MIN_BYTES < 2_000 * 10_000
    again = Spool(tmp_path, "run", MIN_BYTES)  # the store alone knows how far it came: the last ones are read again
    assert again.writer == spool.writer and numbers(again) == list(range(1_901, 2_001))
    again.write([record(2_001)])
    assert numbers(again) == [2_001]
    again.close()


def test_another_process_finds_what_was_written(tmp_path: Path) -> None:
    spool = Spool(tmp_path, "run", MIN_BYTES)
    spool.write([record(number) for number in range(1, 21)])
    beside, other = Spool(tmp_path, "run", MIN_BYTES), Spool(tmp_path, "another/run", MIN_BYTES)
    assert beside.waiting == other.waiting == 0 and len({one.writer for one in (spool, beside, other)}) == 3
    for one in (spool, beside, other):
        one.close()
    again = Spool(tmp_path, "run", MIN_BYTES)
    assert again.waiting == 20 and numbers(again) == list(range(1, 21))
    again.close()


@pytest.mark.parametrize("damage", ["none", "cut", "noise"])
def test_what_a_crash_cut_off_is_left_out_and_what_was_acknowledged_is_there(damage: str, tmp_path: Path) -> None:
    spool = Spool(tmp_path / "crashed", "run", MIN_BYTES)
    for number in (1, 2, 3):
        spool.write([record(number)])
    # as it lies there at the moment of a crash: the log of the database is not folded into it
    shutil.copytree(tmp_path / "crashed", tmp_path / "left")
    spool.close()
    (wal,) = (tmp_path / "left").rglob("reports-wal")
    whole = wal.read_bytes()
    wal.write_bytes({"none": whole, "cut": whole[:-1], "noise": whole + os.urandom(5_000)}[damage])
    kept = 2 if damage == "cut" else 3
    again = Spool(tmp_path / "left", "run", MIN_BYTES)
    assert again.waiting == kept
    again.write([record(kept + 1, 10)])
    assert numbers(again) == list(range(1, kept + 2))
    again.close()


def test_a_full_spool_and_a_disk_that_does_not_take_it_lose_nothing(tmp_path: Path) -> None:
    spool = Spool(tmp_path, "run", MIN_BYTES)
    spool.write([record(1)])
    with pytest.raises(NotWritten, match=f"of at most {MIN_BYTES} bytes"):
        spool.write([record(2, MIN_BYTES)])
    pages = spool._base.execute("PRAGMA page_count").fetchone()[0]
    spool._base.execute(f"PRAGMA max_page_count = {pages}")
    with pytest.raises(NotWritten, match="cannot be written: database or disk is full"):
        spool.write([record(2, 100_000)])
    spool._base.execute("PRAGMA max_page_count = 100000")
    assert spool.waiting == 1
    spool.write([record(2, 10)])
    assert numbers(spool) == [1, 2]
    spool.close()


def test_more_routers_than_places_are_told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "PLACES", 1)
    spool = Spool(tmp_path, "run", MIN_BYTES)
    with pytest.raises(SettingError, match=f"^spool = {tmp_path}: 1 routers use it: name a folder that"):
        Spool(tmp_path, "run", MIN_BYTES)
    spool.close()


@pytest.mark.parametrize("what", ["Not a directory", "file is not a database"])
def test_a_folder_that_cannot_be_had_is_named(what: str, tmp_path: Path) -> None:
    folder = tmp_path / "spool"
    if what == "Not a directory":
        folder.write_text("")
    else:
        (folder / "run" / "0").mkdir(parents=True)
        (folder / "run" / "0" / "reports").write_bytes(b"noise" * 1_000)
    with pytest.raises(SettingError, match=f"spool = {folder}: {what}: name a folder that can be written"):
        Spool(folder, "run", MIN_BYTES)
