"""The command line of the trainer: what the user can mend is one line, with exit code 2."""

from __future__ import annotations

import signal
import sys

import pytest

from serving.router.main import RouterFlags
from simulator.errors import FlickerError
from simulator.models.factories import ALLOWED
from simulator.process import ENDING, run
from simulator.store.protocol import Store
from simulator.store.redis import WORLD_CAPACITY
from simulator.types import World
from trainer.__main__ import main


@pytest.mark.parametrize(
    ("flags", "complaint"),
    [
        ("", "store = nothing: name one with --store, or in FLICKER_REDIS_URL"),
        ("--store nowhere", "store = nowhere: a URL such as redis://127.0.0.1:6379/0"),
        ("--store redis://127.0.0.1:1 --rate 0", "rate = 0.0: more than 0"),
        ("--store redis://127.0.0.1:1 --rate 1 --for 2", "--rate, --for and --speed: each sets the world's pace"),
        ("--store redis://127.0.0.1:1 --arms zelu", "activation = zelu: one of "),
        ("--store redis://127.0.0.1:1 --arms relu ensemble:relu", "arms = ensemble:relu: made of several models"),
        (
            "--store redis://127.0.0.1:1 --arms fresh:relu",
            "arms = fresh:relu: made of several models, or trained afresh",
        ),
        (
            "--store redis://127.0.0.1:1 --state /dev/null/x --arms relu torch:no_such_module:make",
            "arms = torch:no_such_module:make: not among the factories that may be imported here (nothing): add it to",
        ),
        (
            "--store redis://127.0.0.1:1 --arms ensemble:torch:no_such_module:make,m=2",
            "arms = ensemble:torch:no_such_module:make,m=2: made of several models",
        ),
        (  # at once, though no store says whether a shard is free
            "--store redis://127.0.0.1:1 --shard any/1 --arms relu torch:no_such_module:make",
            "arms = torch:no_such_module:make: not among the factories that may be imported here (nothing): add it to",
        ),
        ("--store redis://127.0.0.1:1 --shard any/1 --data /no/such.toml", "/no/such.toml: no such file"),
        ("--store redis://127.0.0.1:1 --fleets 3", "--fleets, 3"),
        ("--store redis://127.0.0.1:1 --shard 2/2", "shard = 2/2: I/N, such as 0/2"),
        (
            "--store redis://127.0.0.1:1 --shard any/5 --duplicates 4",
            "shard = any/5: at most as many trainers as --dup",
        ),
        ("--store redis://127.0.0.1:1 --weights nowhere", "weights = nowhere: a URL such as s3://bucket/prefix"),
        ("--store redis://127.0.0.1:1 --generation-events 100", "generation_events = 100: a multiple of 8192"),
        ("--store redis://127.0.0.1:1 --metrics-port 70000", "metrics_port = 70000: from 0 to 65535"),
        ("--store redis://127.0.0.1:1 --state /dev/null/x", "state = /dev/null/x: Not a directory"),
        ("--store redis://127.0.0.1:1 --data /nowhere", "/nowhere: no such file or folder"),
    ],
)
def test_bad_settings_are_one_line(
    flags: str, complaint: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    handlers = {number: signal.getsignal(number) for number in ENDING}
    monkeypatch.setattr(sys, "argv", ["trainer", *flags.split()])
    for name in ("FLICKER_REDIS_URL", ALLOWED):
        monkeypatch.delenv(name, raising=False)
    try:
        with pytest.raises(SystemExit) as ended:
            run("trainer", main)
    finally:
        for number, handler in handlers.items():
            signal.signal(number, handler)
    assert ended.value.code == 2
    said = capsys.readouterr().err.splitlines()
    assert len(said) == 1 and said[0].startswith("trainer: ") and complaint in said[0]


def test_the_feeder_leaves_room_for_feedback(monkeypatch: pytest.MonkeyPatch) -> None:
    """It alone has the lower bound: what the log holds beyond it can only be users' reports."""
    bounds = []

    def look(world: World, store: Store, *others: object) -> None:
        bounds.append(store.capacity())
        raise FlickerError("seen")

    monkeypatch.setattr("trainer.feeder.Feeder", look)
    handlers = {number: signal.getsignal(number) for number in ENDING}
    try:
        with pytest.raises(FlickerError, match="seen"):
            main(["--store", "redis://127.0.0.1:1", "--preset", "smoke"])
    finally:
        for number, handler in handlers.items():
            signal.signal(number, handler)
    assert (
        bounds == [WORLD_CAPACITY] and WORLD_CAPACITY <= RouterFlags(store="redis://127.0.0.1:1").log_capacity - 20_000
    )
