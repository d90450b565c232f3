"""The spool alone: order, bound, segments, torn ends, and what another process finds."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from serving.router import spool as module
from serving.router.spool import LEAST, Record, Spool, SpoolFull
from simulator.errors import SettingError


def record(number: int, size: int = 100) -> Record:
    return Record(number.to_bytes(8, "little"), bytes([number % 256]) * size)


def numbers(spool: Spool) -> list[int]:
    """The keys and numbers of all that waits, which agree; forgets them."""
    found: list[int] = []
    while records := spool.read(7):
        assert [int.from_bytes(one.key, "little") for one in records] == [one.number for one in records]
        assert all(one.batch == record(one.number, len(one.batch)).batch for one in records)
        found += [one.number for one in records]
        spool.forget(records)
    return found


def files(folder: Path) -> list[Path]:
    return sorted(folder.rglob("*.reports"))


def test_records_come_back_in_order_and_are_numbered_through(tmp_path: Path) -> None:
    spool = Spool(tmp_path, "run", LEAST)
    assert spool.read(10) == [] and spool.waiting == spool.bytes == 0
    spool.write([record(1), record(2, 0)])
    spool.write([record(3)])
    assert spool.waiting == 3 and spool.bytes == sum(file.stat().st_size for file in files(tmp_path))
    assert [one.number for one in spool.read(2)] == [1, 2]
    spool.forget(spool.read(2))
    assert numbers(spool) == [3] and spool.waiting == 0
    spool.write([record(4)])
    assert numbers(spool) == [4]
    spool.close()


def test_segments_are_deleted_as_they_are_handed_over(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "SEGMENT", 1_000)
    monkeypatch.setattr(module, "PIECES", LEAST)
    spool = Spool(tmp_path, "run", LEAST)
    for number in range(1, 101):
        spool.write([record(number)])
    segments = len(files(tmp_path))
    assert segments > 8
    assert spool.waiting == 100 and numbers(spool) == list(range(1, 101))
    assert len(files(tmp_path)) == 1
    spool.close()
    again = Spool(tmp_path, "run", LEAST)  # the store alone knows how far it came: the last segment is read again
    assert again.writer == spool.writer and numbers(again)[-1] == 100
    again.write([record(101)])
    assert numbers(again) == [101]
    again.close()


def test_another_process_finds_what_was_written(tmp_path: Path) -> None:
    spool = Spool(tmp_path, "run", LEAST)
    spool.write([record(number) for number in range(1, 21)])
    beside, other = Spool(tmp_path, "run", LEAST), Spool(tmp_path, "another/run", LEAST)
    assert beside.waiting == other.waiting == 0 and len({one.writer for one in (spool, beside, other)}) == 3
    for one in (spool, beside, other):
        one.close()
    again = Spool(tmp_path, "run", LEAST)
    assert again.waiting == 20 and numbers(again) == list(range(1, 21))
    again.close()


@pytest.mark.parametrize("damage", ["cut", "noise", "length"])
def test_a_torn_record_ends_its_segment_and_is_written_over(damage: str, tmp_path: Path) -> None:
    spool = Spool(tmp_path, "run", LEAST)
    spool.write([record(1), record(2)])
    spool.close()
    (file,) = files(tmp_path)
    whole = file.read_bytes()
    torn = {"cut": whole[:-1], "noise": whole + os.urandom(50), "length": whole + b"\xff\xff\xff\x7f" * 3}[damage]
    file.write_bytes(torn)
    kept = 1 if damage == "cut" else 2
    again = Spool(tmp_path, "run", LEAST)
    assert again.waiting == kept
    again.write([record(kept + 1, 10)])
    assert numbers(again) == list(range(1, kept + 2))
    again.close()
    last = Spool(tmp_path, "run", LEAST)
    assert last.waiting == kept + 1
    last.close()


def test_a_full_spool_and_a_disk_that_does_not_take_it_lose_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    spool = Spool(tmp_path, "run", LEAST)
    spool.write([record(1)])
    with pytest.raises(SpoolFull, match=f"of at most {LEAST} bytes"):
        spool.write([record(2, LEAST)])

    def half_then_full(file: int, data: bytes, at: int) -> int:
        monkeypatch.undo()
        os.pwrite(file, data[: len(data) // 2], at)
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "pwrite", half_then_full)
    with pytest.raises(OSError, match="No space"):
        spool.write([record(2)])
    assert spool.waiting == 1
    spool.write([record(2, 10)])
    assert numbers(spool) == [1, 2]
    spool.close()


def test_more_routers_than_places_are_told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "PLACES", 1)
    spool = Spool(tmp_path, "run", LEAST)
    with pytest.raises(SettingError, match=f"^spool = {tmp_path}: 1 routers use it: name a folder that"):
        Spool(tmp_path, "run", LEAST)
    spool.close()


def test_a_folder_that_cannot_be_had_is_named(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(SettingError, match="spool = .*file: Not a directory: name a folder that can be written"):
        Spool(tmp_path / "file", "run", LEAST)
