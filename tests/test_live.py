"""`flicker up` piece by piece: flags for the trainer, supervised processes, metrics pages, the summary's arithmetic."""

from __future__ import annotations

import io
import json
import math
import os
import re
import signal
import sys
import time
from collections import deque
from pathlib import Path

import pytest
from rich.console import Console

from simulator.errors import FlickerError
from simulator.flags import parse
from simulator.live.flags import UpFlags
from simulator.live.processes import RESTARTS, Child, LivePlan, plan
from simulator.live.summary import write_summary
from simulator.live.up import fitted_flags, run_up
from simulator.live.view import picture, plain_line, sparkline
from simulator.live.watch import Counters, Page, Watch
from simulator.models.factories import ALLOWED
from simulator.process import ENDING, free_ports
from simulator.report import write_report
from simulator.result import read_result, to_json
from simulator.schedule import LIVE_GENERATIONS
from simulator.world.open import open_world
from tests.small_runs import small_log
from trainer.flags import TrainerFlags

ROUTER = """\
flicker_compared_total{arm="relu",cause="duplicate",measure="slate"} %(n)s
flicker_compared_total{arm="relu",cause="duplicate",measure="pair"} %(pairs)s
flicker_differences_total{arm="relu",cause="duplicate",measure="pair"} %(swapped)s
flicker_router_queries_total{arm="relu",code="OK"} 40
flicker_router_queries_total{arm="relu",code="UNAVAILABLE"} 2
"""
TRAINER = (
    'flicker_generation 3\nflicker_progressive_log_loss{arm="relu"} 0.5\nflicker_progressive_auc{arm="relu"} 0.75\n'
)


def up_flags(*arguments: str) -> UpFlags:
    return parse(UpFlags, "flicker up", list(arguments))


def test_the_trainer_is_not_told_what_it_has_no_flag_for() -> None:
    arguments = up_flags("--k", "5", "--replicas", "2").learning_arguments()
    assert not {"--k", "--replicas"} & set(arguments)


def test_up_finds_learning_rates_only_where_it_is_asked_to() -> None:
    assert fitted_flags(plain := up_flags("--arms", "relu", "gelu:lr=0.02")) is plain
    asked = up_flags("--preset", "smoke", "--events", "3000", "--arms", "relu", "gelu:lr=tuned", "--batch", "64")
    relu, gelu = fitted_flags(asked).compare.arms
    assert relu == "relu" and re.fullmatch(r"gelu:lr=0\.\d+", gelu)


def test_up_fits_what_the_trainer_is_told_to_a_small_log(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    log = small_log(tmp_path / "log")
    flags = fitted_flags(up_flags("--data", str(log), "--for", "60"))
    told = plan(flags, "redis://127.0.0.1:1/0", tmp_path).servers[0].command
    batch, window, size, head = (
        int(told[told.index(flag) + 1]) for flag in ("--batch", "--window", "--generation-events", "--head-start")
    )
    assert size == head == batch * window and told[told.index("--for") + 1] == "60.0"
    events = open_world(flags.config().world, 0).events
    assert events // size >= LIVE_GENERATIONS
    assert f"Adapted to a log of {events:,} events: batch 512 -> {batch}" in capsys.readouterr().out
    assert fitted_flags(flags) == flags


def test_the_trainer_is_told_what_differs_from_the_preset() -> None:
    flags = up_flags("--arms", "relu", "gelu", "--hidden", "32", "16", "--reductions", "--events", "50000")
    told = flags.learning_arguments()
    assert told == (
        ["--preset", "relu_vs_smelu", "--arms", "relu", "gelu", "--hidden", "32", "16", "--reductions"]
        + ["--events", "50000", "--duplicates", "3"]
    )


@pytest.mark.parametrize(
    ("arguments", "named"),
    [
        (["--replicas", "0"], "replicas = 0"),
        (["--for", "3"], "for = 3.0"),
        (["--rate", "-1"], "rate = -1.0"),
        (["--shadow", "1.5"], "shadow = 1.5"),
        (["--routers", "9"], "routers = 9"),
        (["--routers", "3", "--port", "65534"], "port = 65534: from 0 to 65533"),
        (["--trainers", "0"], "trainers = 0: from 1 to --duplicates"),
        (["--trainers", "4", "--duplicates", "3"], r"trainers = 4: from 1 to --duplicates \(3\)"),
        (["--weights", "somewhere"], "weights = somewhere: a URL such as"),
        (["--weights", "s3://id:secret@bucket/x"], "weights = s3://bucket/x: leave the secret out"),
        (["--nonsense", "1"], "--nonsense"),
    ],
)
def test_bad_flags_are_named_in_one_line(arguments: list[str], named: str) -> None:
    with pytest.raises(FlickerError, match=named) as refused:
        up_flags(*arguments)
    assert len(str(refused.value).splitlines()) == 1


def test_the_plan_gives_every_process_its_own_port(tmp_path: Path) -> None:
    made = plan(up_flags("--replicas", "2", "--rate", "20"), "redis://127.0.0.1:1/0", tmp_path)
    assert [child.name for child in made.servers] == ["trainer", "replica-0", "replica-1", "router-0"]
    assert [child.name for child in made.load] == ["load"] and set(made.metrics) == {c.name for c in made.servers} | {
        "load"
    }
    assert len({*made.metrics.values(), made.address}) == 6
    settings = json.loads((tmp_path / "load-settings.json").read_text())
    assert settings["rate"] == 20 and settings["world"]["events"] == 1_000_000
    assert made.address == f"127.0.0.1:{made.servers[3].command[made.servers[3].command.index('--port') + 1]}"
    assert not plan(up_flags("--no-load"), "redis://127.0.0.1:1/0", tmp_path).load


def test_several_trainers_share_the_duplicates_and_all_know_where_weights_lie(tmp_path: Path) -> None:
    flags = up_flags("--trainers", "3", "--replicas", "2", "--weights", "file:///shared/weights")
    made = plan(flags, "redis://127.0.0.1:1/0", tmp_path)
    trainers = [one for one in made.servers if one.name.startswith("trainer")]
    assert [one.name for one in trainers] == ["trainer", "trainer-1", "trainer-2"]
    told = [parse(TrainerFlags, "trainer", one.command[3:] + ["--store", "redis://127.0.0.1:1"]) for one in trainers]
    assert [one.shard for one in told] == ["0/3", "1/3", "2/3"]
    assert [one.state for one in told] == [tmp_path / one.name for one in trainers]
    assert len({made.metrics[one.name] for one in trainers}) == 3
    knowing = [one.name for one in [*made.servers, *made.load] if "file:///shared/weights" in one.command]
    assert knowing == [one.name for one in made.servers]


def test_traffic_is_told_of_every_router(tmp_path: Path) -> None:
    made = plan(up_flags("--routers", "3", "--port", "7000"), "redis://127.0.0.1:1/0", tmp_path)
    assert made.address == "127.0.0.1:7000,127.0.0.1:7001,127.0.0.1:7002"
    assert made.load[0].command[made.load[0].command.index("--host") + 1] == made.address
    routers = [one for one in made.servers if one.name.startswith("router")]
    assert [one.command[one.command.index("--port") + 1] for one in routers] == ["7000", "7001", "7002"]
    assert [one.command[one.command.index("--name") + 1] for one in routers] == ["router-0", "router-1", "router-2"]
    assert len({one.command[one.command.index("--seed") + 1] for one in routers}) == 1, "the same hash everywhere"


def test_replicas_score_where_the_trainer_learns(tmp_path: Path) -> None:
    made = plan(up_flags("--device", "cuda"), "redis://127.0.0.1:1/0", tmp_path)
    told = [child.command[child.command.index("--device") + 1] for child in made.servers if child.name != "router-0"]
    assert told == ["cuda"] * 4


YOUR_ARMS = ["--arms", "relu", "torch:mine:make", "average:torch:my_pkg.models:make,relu=gelu", "torch:mine:make,w=8"]


@pytest.mark.parametrize(("arms", "allowed"), [([], ""), (YOUR_ARMS, "mine:make,my_pkg.models:make")])
def test_what_learns_or_ranks_may_import_the_factories_of_its_arms_alone(
    arms: list[str], allowed: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv(ALLOWED, "another:make")  # replaced: what is typed is all that this run needs
    made = plan(up_flags(*arms, "--replicas", "2"), "redis://127.0.0.1:1/0", tmp_path)
    told = {child.name: child.environment.get(ALLOWED) for child in [*made.servers, *made.load]}
    assert told == {"trainer": allowed, "replica-0": allowed, "replica-1": allowed, "router-0": None, "load": None}


def test_processes_find_a_factory_in_the_users_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Flicker itself comes from elsewhere: a file of the user's with a name of ours is not taken for it."""
    monkeypatch.chdir(tmp_path)
    elsewhere = tmp_path / "elsewhere"
    elsewhere.mkdir()
    monkeypatch.setenv("PYTHONPATH", str(elsewhere))
    (tmp_path / "mine.py").write_text("def make(schema): ...\n")
    (tmp_path / "simulator.py").write_text("raise AssertionError('not this one')\n")
    (elsewhere / "stand_in.py").write_text(
        "from simulator.models.factories import load_factory, require_allowed\n"
        "require_allowed('mine:make')\n"
        "print(load_factory('mine:make').__code__.co_filename)\n"
    )
    made = plan(up_flags(*YOUR_ARMS, "--replicas", "1"), "redis://127.0.0.1:1/0", tmp_path)
    for one in made.servers:
        one.command[1:] = ["-m", "stand_in"]  # run as the trainer and a replica are
        one.start()
        assert one.process is not None
        one.process.wait(30)
        expected = "SettingError" if one.name == "router-0" else str(tmp_path / "mine.py")
        assert expected in one.last_words()


def test_free_ports_differ() -> None:
    assert len(set(free_ports(20))) == 20


def child(tmp_path: Path, code: str) -> Child:
    return Child("worker", [sys.executable, "-c", code], tmp_path / "worker.log")


def test_a_killed_process_is_started_again(tmp_path: Path) -> None:
    one = child(tmp_path, "import time; time.sleep(60)")
    one.start()
    try:
        assert one.process is not None
        first = one.process.pid
        os.kill(first, signal.SIGKILL)
        one.process.wait(10)
        assert one.watch() is None and one.process.pid != first and not one.ended()
    finally:
        one.stop(5)
    assert one.ended()


def test_a_process_that_keeps_dying_is_dead_for_good(tmp_path: Path) -> None:
    one = child(tmp_path, "print('no luck'); raise SystemExit(7)")
    one.start()
    reason = None
    for _ in range(RESTARTS + 1):
        assert reason is None and one.process is not None
        one.process.wait(10)
        reason = one.watch()
    assert reason is not None and "worker" in reason and "exit code 7" in reason and "no luck" in reason


def test_a_bad_setting_is_not_tried_again(tmp_path: Path) -> None:
    one = child(tmp_path, "print('beta = -1: more than 0'); raise SystemExit(2)")
    one.start()
    assert one.process is not None
    one.process.wait(10)
    assert "beta = -1" in (one.watch() or "")


def test_a_process_that_does_not_end_in_order_is_ended_at_once(tmp_path: Path) -> None:
    one = child(
        tmp_path, "import signal, time; signal.signal(15, signal.SIG_IGN); print('on', flush=True); time.sleep(60)"
    )
    one.start()
    while not one.log.read_text():
        time.sleep(0.02)
    one.stop(0.3)
    assert one.process is not None and one.process.returncode == -signal.SIGKILL


def test_pages_are_read_and_added() -> None:
    page = Page(ROUTER % {"n": 4, "pairs": 100, "swapped": 25})
    assert page.total("flicker_router_queries_total") == 42
    assert page.total("flicker_router_queries_total", code="OK") == 40
    assert page.value("flicker_router_queries_total", code="OK") != 40  # a value asks for all labels
    assert page.labels("flicker_compared_total", "cause") == ["duplicate"]


def page(n: int, pairs: int = 0, swapped: int = 0, healthy: int = 2, started: int = 1) -> Page:
    """A router's page."""
    gauges = f'process_start_time_seconds {started}\nflicker_router_replicas{{healthy="true"}} {healthy}\n'
    return Page(gauges + ROUTER % {"n": n, "pairs": pairs, "swapped": swapped})


def test_counters_of_several_routers_are_added_up_over_their_restarts() -> None:
    counters = Counters()
    counters.add({"router-0": page(4), "router-1": page(10)})
    assert counters.page.total("flicker_compared_total", measure="slate") == 14
    counters.add({"router-0": Page(), "router-1": page(11)})  # one was killed
    assert counters.page.total("flicker_compared_total", measure="slate") == 15
    counters.add({"router-0": page(7, started=2), "router-1": page(11)})  # and counts from 0, beyond where it was
    assert counters.page.total("flicker_compared_total", measure="slate") == 22
    assert "flicker_router_replicas" not in {name for name, _ in counters.page.samples}


def test_ratios_of_several_routers_are_sums_over_sums() -> None:
    """A router with few comparisons weighs as little as they do; gauges are those of the router that knows least."""
    watch = Watch({})
    watch.trainer = Page(TRAINER)
    watch.see({"router-0": page(10, pairs=900, swapped=90, healthy=3), "router-1": page(1, pairs=100, swapped=60)})
    assert watch.ratio("pair", "relu", "duplicate") == 150 / 1000
    assert math.isnan(watch.ratio("pair", "relu", "refresh")) and math.isnan(watch.ratio("slot", "relu", "duplicate"))
    assert watch.lowest("flicker_router_replicas", healthy="true") == 2
    assert "84 answered" not in plain_line(watch, "a:1,b:2", None) and "80 answered" in plain_line(watch, "a:1", None)
    assert "router a:1,b:2" in plain_line(watch, "a:1,b:2", None) and "ReLU 0.150" in plain_line(watch, "a:1", None)
    assert math.isnan(Watch({}).lowest("flicker_router_replicas", healthy="true"))


def test_live_ratios_forget_what_is_older_than_a_minute(monkeypatch: pytest.MonkeyPatch) -> None:
    watch, now = Watch({}), 0.0
    watch.trainer = Page(TRAINER)
    monkeypatch.setattr(watch, "seconds", lambda: now)
    for moment, pairs, swapped in ((1.0, 100, 100), (30.0, 200, 100), (90.0, 300, 150), (91.0, 400, 150)):
        now = moment
        watch.see({"router-0": page(1, pairs=pairs, swapped=swapped)})
    assert watch.ratio("pair", "relu", "duplicate") == 50 / 200  # since 30 s, the last look before the window


def test_the_summary_divides_sums_of_the_whole_run(tmp_path: Path) -> None:
    watch = Watch({})
    watch.trainer = Page(TRAINER)
    for n, pairs, swapped in ((2, 50, 10), (4, 100, 25), (10, 400, 100)):
        watch.see({"router-0": page(n, pairs, swapped)})
        watch.blocks.append(watch.recent[-1][1])
    (tmp_path / "load.json").write_text('{"requests": 42, "failures": {"UNAVAILABLE": 2}, "p50": 0.004, "p99": 0.02}')
    said = write_summary(tmp_path, watch, tmp_path / "load.json", "flicker up")
    summary = to_json(read_result(tmp_path))
    pair = summary["arms"]["relu"]["swaps"]["pair"]
    assert pair["mean"] == 0.25 and 0 <= pair["low"] <= 0.25 <= pair["high"] <= 1
    assert "slot" not in summary["arms"]["relu"]["swaps"]  # no slots were compared
    assert summary["serving"]["requests"] == 42 and summary["serving"]["failures"] == 2
    assert "25.0" in said
    assert "0 failed" not in plain_line(watch, "127.0.0.1:1", 60.0)


def test_nothing_compared_is_said(tmp_path: Path) -> None:
    watch = Watch({})
    watch.trainer = Page(TRAINER)
    said = write_summary(tmp_path, watch, tmp_path / "load.json", "flicker up")
    assert said == "No comparisons yet: let it run longer, or raise --rate or --shadow."
    assert "No comparisons yet" in write_report(tmp_path).read_text()


def test_sparklines_go_from_zero_to_what_is_largest() -> None:
    assert sparkline([0, 1, 2], 2) == "▁▅█" and sparkline([0, 0], 0) == "▁▁" and sparkline([1, 2], 8) == "▂▃"


def test_all_arms_lately_are_drawn_on_one_scale() -> None:
    watch = Watch({})
    watch.trainer = Page("".join(f'flicker_progressive_log_loss{{arm="{arm}"}} 0.5\n' for arm in ("gelu", "relu")))
    watch.trend = {("relu", "duplicate"): deque([0.139, 0.1]), ("gelu", "duplicate"): deque([0.043])}
    console = Console(width=120, record=True, file=io.StringIO())
    console.print(picture(watch, "127.0.0.1:1", None))
    (line,) = (line.split() for line in console.export_text().splitlines() if "lately" in line)
    assert line[-2:] == ["▃", "█▆"], "0.043 of 0.139 is three bars of eight, and not as many as of 0.043"


class Broken(Child):
    """Cannot be started."""

    def start(self) -> None:
        raise OSError("no more processes")


def test_a_startup_that_fails_half_way_leaves_a_summary_and_no_process(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    handlers = {number: signal.getsignal(number) for number in ENDING}
    one, out = child(tmp_path, "import time; time.sleep(60)"), tmp_path / "out"
    made = LivePlan([one, Broken("two", [], tmp_path / "two.log")], [], {}, "127.0.0.1:1", out / "load.json")
    monkeypatch.setenv("FLICKER_REDIS_URL", "redis://127.0.0.1:1/0")
    monkeypatch.setattr("simulator.live.up.plan", lambda *_: made)
    try:
        with pytest.raises(OSError, match="no more processes"):
            run_up(up_flags("--out", str(out)), "flicker up")
    finally:
        signal.set_wakeup_fd(-1)
        for number, handler in handlers.items():
            signal.signal(number, handler)
    assert one.process is not None and one.ended()
    assert json.loads((out / "result.json").read_text())["serving"]["requests"] == 0
