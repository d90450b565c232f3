"""`flicker query` on a log that real processes learn: users by the log's ids, items by their titles."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from protos.recommender_pb2 import RecommendRequest
from simulator.config import ReplayConfig
from simulator.randomness import generator
from simulator.world.open import open_world
from tests.integration.conftest import StoreProcess
from tests.integration.system import Asked, System, until

SMALL = (
    "--hidden 16 8 --dim 4 --batch 32 --window 4 --candidates 20 --duplicates 2 --head-start 1000 --rate 0.1"
).split()
"""One generation at once, and no second for long: two answers of one duplicate are the same."""
DEVICES = ("phone", "desktop")


MAPPING = """
log = "clicks.csv"
user = "visitor"
item = "sku"
time = "at"
[features]
context = ["device"]
[items]
file = "items.csv"
id = "sku"
title = "name"
"""


@pytest.fixture(scope="module")
def log(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """As a team has it: ids are texts, and a table says what items are called."""
    folder, draws = tmp_path_factory.mktemp("names"), generator(5, "test log")
    users, items, devices = (draws.integers(0, most, 700).tolist() for most in (50, 40, 2))
    rows = [
        f"u-{97 * u:03x},sku-{i},{60 * n},{DEVICES[d]}"
        for n, (u, i, d) in enumerate(zip(users, items, devices, strict=True))
    ]
    (folder / "clicks.csv").write_text("\n".join(["visitor,sku,at,device", *rows]) + "\n")
    (folder / "items.csv").write_text("sku,name\n" + "".join(f"sku-{i},Film {i}\n" for i in range(39)))
    (folder / "clicks.toml").write_text(MAPPING)
    return folder / "clicks.toml"


@pytest.fixture(scope="module")
def asked(store_process: StoreProcess, log: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Asked]:
    """A router before a trainer and two replicas."""
    folder = tmp_path_factory.mktemp("named")
    system = System(store_process.url, "named", folder)
    try:
        system.start("trainer", "-m", "trainer", "--state", folder / "state", "--data", log, *SMALL)
        system.start_replicas("named-0", "named-1")
        with system.router() as router:
            until(lambda: len(router.healthy()) == 2 and router.serves(), "two replicas serve")
            yield router
    finally:
        system.stop()


def query(asked: Asked, *arguments: str) -> str:
    """What `flicker query` prints."""
    command = [sys.executable, "-m", "simulator", "query", "--address", asked.address, *arguments]
    done = subprocess.run(command, capture_output=True, text=True, timeout=20)
    assert done.returncode == 0, done.stderr
    return done.stdout


def test_a_user_of_the_log_gets_titles(asked: Asked, log: Path) -> None:
    names = open_world(ReplayConfig(log), seed=0).names
    said = query(asked, "--user", names.users[7], "--context", "desktop", "--all", "--arm", "relu")
    assert "nothing is known" not in said and "RBO distance" in said
    desktop = list(names.context["device"]).index("desktop")
    for duplicate in (0, 1):
        question = RecommendRequest(user=7, context=[desktop], arm="relu", duplicate=duplicate)
        for place in asked.stub.Recommend(question, timeout=5).slate:
            assert f"{place.score:+.3f}  {names.title(place.item)}" in said
            assert names.title(place.item) in (names.item(place.item).replace("sku-", "Film "), "sku-39")


def test_a_user_whom_the_log_has_not_is_answered_with_a_remark(asked: Asked) -> None:
    said = query(asked, "--user", "u-1a5b09d8")
    remark = "user = u-1a5b09d8: not in this world, so answered as one of whom nothing is known"
    assert said.splitlines()[0] == remark and "Film" in said
    answers = [asked.stub.Recommend(RecommendRequest(user_id=id), timeout=5) for id in ("u-1a5b09d8", "12345678")]
    assert all(answer.unknown_user and len(answer.slate) == 10 for answer in answers)
