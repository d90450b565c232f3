"""What a world says that the log calls its users, items and context values."""

from __future__ import annotations

from pathlib import Path

from simulator.config import ReplayConfig, SyntheticConfig
from simulator.types import Names
from simulator.world.open import open_world
from tests.small_runs import small_log

ROWS = [("u-7", "sku 3", "phone"), ("u-2", "sku 1", "desktop"), ("u-7", "sku 1", "phone"), ("ü", "sku 3", "tablet")]
MAPPING = 'log = "log.csv"\nuser = "who"\nitem = "what"\ntime = "at"\n[features]\ncontext = ["device"]\n'


def test_a_table_of_texts(tmp_path: Path) -> None:
    rows = [f"{user},{item},{at},{device}" for at, (user, item, device) in enumerate(ROWS)]
    (tmp_path / "log.csv").write_text("\n".join(["who,what,at,device", *rows]) + "\n", encoding="utf-8")
    (tmp_path / "log.toml").write_text(MAPPING)
    world = open_world(ReplayConfig(tmp_path / "log.toml", negatives=1), seed=0)
    events = next(world.batches(100))
    engaged = events[events.label.nonzero()[0]]
    named = [(world.names.user(u), world.names.item(i)) for u, i in zip(engaged.user, engaged.item, strict=True)]
    assert named == [row[:2] for row in ROWS]
    device = engaged.features[:, world.schema.slot_range("device").start] - world.schema.first_row("device")
    assert [world.names.context["device"][value] for value in device] == [row[2] for row in ROWS]
    assert [world.names.title(item) for item in range(2)] == ["sku 3", "sku 1"]
    assert len(world.names.users) == world.users and len(world.names.items) == world.items


def test_a_folder_of_the_movielens_family_has_titles(tmp_path: Path) -> None:
    names = open_world(ReplayConfig(small_log(tmp_path / "log")), seed=0).names
    ids = [names.item(item) for item in range(len(names.items))]
    assert [names.title(item) for item in range(len(ids))] == [f"Film {id} ({1980 + int(id)})" for id in ids]
    first = (tmp_path / "log" / "ratings.dat").read_text().partition("::")[0]
    assert names.user(0) == first


def test_a_made_up_world_has_numbers_alone() -> None:
    world = open_world(SyntheticConfig(events=1_000, users=20, items=30), seed=0)
    assert world.names == Names() and world.names.title(3) == "item 3"
