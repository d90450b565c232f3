"""The command line of `flicker`. What a user can mend is one line, with exit code 2."""

from __future__ import annotations

import itertools
import os
import sys
from pathlib import Path

from simulator.errors import FlickerError

USAGE = """usage: flicker COMMAND ...

How much do a recommender's results change for no reason, and what cures it?

  flicker run                                       ReLU against SmeLU on a made-up world: about two minutes
  flicker run --preset smoke                        everything once, in seconds
  flicker check LOG                                 what is in your click log, and a mapping file to start from
  flicker run --data LOG --arms relu smelu:beta=0.1 on your own click log: a mapping file for CSV or Parquet, or a
                                                    folder of MovieLens, RecBole or MIND (see docs/data.md)
  flicker run --arms torch:my_pkg.models:make torch:my_pkg.models:make,relu=smelu:beta=1
                                                    your own torch module, and with SmeLU for its ReLUs (see
                                                    docs/own-model.md)
  flicker run --help                                every setting with its unit, range and default
  flicker run --part 0/4 --out DIR ... flicker merge DIR
                                                    one run on several machines, exactly; on a Ray cluster: flicker run
                                                    --backend ray --parts 4 --cpus 2 (see docs/cluster.md)
  flicker tune --arms relu:norm={none,after},lr={0.01,0.02,0.04}
                                                    log loss of a grid of settings on events 10 to 30 % of the log
  flicker sweep --vary arms relu gelu --vary seed 0 1 2
                                                    a grid of runs; see flicker sweep --help
  flicker article run --data LOG                    the article's claims on your log too; then flicker article write
  flicker report DIR                                draw its page again; of several seeds, or a sweep of them, one page
  flicker recommend DIR --models 1 --refresh-every 1h
                                                    what a user sees who asks again, what lowers it and at which price
  flicker gate DIR --baseline DIR --max-swap-increase 0.005
                                                    exit code 0: passed, 1: held back, 3: the runs cannot tell

  flicker compare A.parquet B.parquet               anybody's predictions: how many results changed? Files of scores
                                                    are all it takes

  flicker size --queries-per-second 1e5 --items 1e8 machines, memory and network of a deployment, what saturates first

  flicker up                                        the live system: trainer, replicas, router, traffic, live gauges
  flicker query --user 7 --all                      ask it: the same query of every duplicate, side by side
  flicker show DIR                                  finished results and sweeps in a browser: two settings side by side

  flicker shadow --first HOST:PORT --second HOST:PORT
                                                    in front of anybody's model servers (Triton, KServe, MLServer, Ray
                                                    Serve): how much do the answers of a second one differ, live?
"""


def run(arguments: list[str]) -> None:
    """`flicker run`: an experiment from start to end, or from its last checkpoint."""
    from simulator.flags import parse_run

    flags = parse_run(arguments)
    config = flags.config()

    from simulator.experiment.main import run_experiment  # brings torch: seconds that --help need not wait for

    run_experiment(flags, config, " ".join(["flicker run", *arguments]))


def merge(arguments: list[str]) -> None:
    """`flicker merge DIR`: the parts of a run as one result."""
    from simulator.experiment.main import MergeFlags
    from simulator.experiment.main import merge as merge_parts
    from simulator.flags import parse_flags

    merge_parts(parse_flags(MergeFlags, "flicker merge", arguments))


def tune(arguments: list[str]) -> None:
    """`flicker tune`: which of many settings learns best, by log loss on an early part of the log."""
    from simulator.flags import RunFlags, parse

    flags = parse(RunFlags, "flicker tune", arguments)

    from simulator.tune import tune_table

    print(tune_table(flags))


def check(arguments: list[str]) -> None:
    """`flicker check LOG`: what is in a log, and a mapping file to start from."""
    from simulator.check.main import CheckFlags, run_check
    from simulator.flags import parse_flags

    run_check(parse_flags(CheckFlags, "flicker check", arguments))


def report(arguments: list[str]) -> None:
    """`flicker report DIR ...`: draw report.html again from result.json; several results are pooled."""
    if arguments[:1] in (["-h"], ["--help"]):
        print(
            "usage: flicker report DIR [DIR ...]\n\nDraw DIR/report.html again, from what flicker run, up or compare "
            "left there.\nSeveral that differ by their seed alone, or a sweep of seeds, become one page, in the folder "
            "that holds them."
        )
        return
    if not arguments:
        raise FlickerError("report = no folder: name one, as in flicker report DIR")

    for flag in (argument for argument in arguments if argument.startswith("-")):
        raise FlickerError(f"{flag}: report has no flags: name folders alone, the page lies in them")

    from simulator.report import write_pooled, write_report

    folders = [Path(argument) for argument in arguments]
    one = len(folders) == 1 and not (folders[0] / "sweep.json").exists()
    print(write_report(folders[0]) if one else write_pooled(folders))


def up(arguments: list[str]) -> None:
    """`flicker up`: the live system on this machine."""
    from simulator.flags import parse
    from simulator.live.flags import UpFlags

    flags = parse(UpFlags, "flicker up", arguments)

    from simulator.live.up import run_up

    sys.exit(run_up(flags, " ".join(["flicker up", *arguments])))


def query(arguments: list[str]) -> None:
    """`flicker query` is a client of the serving side, which this package does not import: it becomes that process."""
    os.execv(sys.executable, [sys.executable, "-m", "serving", "query", *arguments])


def shadow(arguments: list[str]) -> None:
    """`flicker shadow`, likewise."""
    os.execv(sys.executable, [sys.executable, "-m", "serving", "shadow", *arguments])


def show(arguments: list[str]) -> None:
    """`flicker show RESULT ...`: the page of finished results alone, likewise."""
    folders = list(itertools.takewhile(lambda argument: not argument.startswith("-"), arguments))
    os.execv(sys.executable, [sys.executable, "-m", "page", *arguments[len(folders) :], "--runs", *folders])


def sweep(arguments: list[str]) -> None:
    """`flicker sweep`: a grid of runs."""
    from simulator.sweep.main import parse, run_sweep

    sys.exit(run_sweep(parse(arguments), " ".join(["flicker sweep", *arguments])))


def article(arguments: list[str]) -> None:
    """`flicker article`: a program of its own, which stands on results alone and may be left out."""
    os.execv(sys.executable, [sys.executable, "-m", "simulator.article", *arguments])


def compare(arguments: list[str]) -> None:
    """`flicker compare A B ...`: what differs between the predictions in files."""
    from simulator.compare import CompareFlags, run_compare
    from simulator.flags import parse_flags

    flags = parse_flags(CompareFlags, "flicker compare", arguments)
    run_compare(flags, " ".join(["flicker compare", *arguments]))


def size(arguments: list[str]) -> None:
    """`flicker size`: what a deployment takes, by laws that were measured."""
    from simulator.flags import parse_flags
    from simulator.size.main import run_size
    from simulator.size.plan import SizeFlags

    run_size(parse_flags(SizeFlags, "flicker size", arguments))


def recommend(arguments: list[str]) -> None:
    """`flicker recommend DIR`: what a user sees on asking again, and what lowers it."""
    from simulator.decide import choice
    from simulator.flags import parse_flags
    from simulator.report import read_results

    flags = parse_flags(choice.RecommendFlags, "flicker recommend", arguments)
    _conclude(choice.recommend(flags, read_results(flags.results)))


def gate(arguments: list[str]) -> None:
    """`flicker gate DIR --baseline DIR`: pass a candidate, hold it back, or say that it cannot be told."""
    from simulator.decide import gating
    from simulator.flags import parse_flags

    _conclude(gating.gate(parse_flags(gating.GateFlags, "flicker gate", arguments)))


def _conclude(decision: tuple[list[str], int]) -> None:
    lines, code = decision
    print(*lines, sep="\n")
    sys.exit(code)


EVERY = (run, tune, check, sweep, article, compare, report, recommend, gate, size, up, query, shadow, show, merge)
COMMANDS = {command.__name__: command for command in EVERY}


def main() -> None:
    """Entry point of `flicker` and `python -m simulator`."""
    command, *arguments = sys.argv[1:] or ["--help"]
    if command in ("-h", "--help"):
        print(USAGE, end="")
        return
    try:
        if command not in COMMANDS:
            raise FlickerError(f"command = {command}: one of {', '.join(COMMANDS)}; see flicker --help")
        COMMANDS[command](arguments)
    except FlickerError as problem:
        print(f"flicker: {' '.join(str(problem).splitlines())}", file=sys.stderr)  # also where a file's name breaks
        sys.exit(2)
    except KeyboardInterrupt:
        hint = "; go on with the same command and --resume (and --out, if it was left out)"
        print(f"\nflicker: stopped{hint if command in ('run', 'sweep') else ''}", file=sys.stderr)
        sys.exit(130)
