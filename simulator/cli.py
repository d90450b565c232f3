"""The command line: `flicker run` and `flicker report`. What a user can mend is told in one line, with exit code 2."""

from __future__ import annotations

import sys
import time
from datetime import datetime
from pathlib import Path

from simulator.errors import DataError, FlickerError, SettingError

USAGE = """usage: flicker COMMAND ...

How much do a recommender's results change for no reason, and what cures it?

  flicker run                                       ReLU against SmeLU on a made-up world: about two minutes
  flicker run --preset smoke                        everything once, in seconds
  flicker run --data LOG --arms relu smelu:beta=2   on your own click log: a folder of the MovieLens family, or a
                                                    mapping file for CSV and Parquet (see README.md)
  flicker run --help                                every setting with its unit, range and default
  flicker report DIR                                draw the page of a finished run again
"""


def run(arguments: list[str]) -> None:
    """`flicker run`: an experiment from start to end, or from its last checkpoint."""
    from simulator.flags import parse_run

    flags = parse_run(arguments)
    config = flags.config()

    from simulator.experiment import Experiment, open_world  # brings torch: seconds that --help need not wait for
    from simulator.folder import Folder
    from simulator.outcome import measure
    from simulator.recommender.duplicates import parse_arms
    from simulator.report import write_report
    from simulator.report.finding import headline
    from simulator.report.result import read_result
    from simulator.report.words import plural
    from simulator.terminal import open_console, progress_bar, tables

    parse_arms(config.arms)  # before anything is opened or written
    if flags.resume and flags.out is None:
        raise FlickerError("resume: needs --out DIR, the folder of the interrupted run")
    out = flags.out or Path("results") / f"{datetime.now():%Y-%m-%d-%H%M%S}-{flags.preset}"
    folder = Folder(out)
    folder.check(config, flags.resume)
    console, started = open_console(), time.monotonic()
    console.print(f"Opening {flags.data or 'the synthetic world'} ...")
    experiment = Experiment(config, open_world(config.world, config.seed))
    if flags.resume:
        folder.restore(experiment)
        console.print(f"Going on after generation {experiment.state.generation} of {experiment.plan.generations}")
    else:
        experiment.check()
        folder.start(config, " ".join(["flicker run", *arguments]))
    before = experiment.state.seconds

    def checkpoint() -> None:
        experiment.state.seconds = before + time.monotonic() - started
        folder.save(experiment)

    models = f"{plural(len(config.arms), 'arm')} x {plural(config.fleets, 'fleet')} x {config.duplicates} duplicates"
    console.print(f"{models} learn {experiment.plan.learned:,} events; {experiment.plan.held_out:,} are held out")
    with progress_bar(console) as bar:
        task = bar.add_task("learning", total=experiment.plan.total, completed=experiment.state.scored)
        try:
            final = experiment.run(lambda events: bar.update(task, completed=events), checkpoint)
        except (SettingError, DataError):  # it would end like this every time
            folder.withdraw()
            raise
    console.print("Measuring ...")
    result = measure(experiment, final)
    result["seconds"] = round(before + time.monotonic() - started, 2)
    folder.finish(result)
    page, read = write_report(out), read_result(out)
    console.print(*tables(read, console.width), sep="\n")
    for note in read.notes:
        console.print(note, style="dim")
    console.print(f"{headline(read)}.", style="bold")
    console.print(f"Pictures and all measures: {page}", soft_wrap=True)


def report(arguments: list[str]) -> None:
    """`flicker report DIR`: draw report.html again from result.json and config.json."""
    if arguments[:1] in (["-h"], ["--help"]):
        print("usage: flicker report DIR\n\nDraw DIR/report.html again from DIR/result.json and DIR/config.json.")
        return
    if len(arguments) != 1:
        raise FlickerError(f"report = {' '.join(arguments) or 'no folder'}: name one, as in flicker report DIR")

    from simulator.report import write_report

    print(write_report(Path(arguments[0])))


COMMANDS = {"run": run, "report": report}


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
        print(
            "\nflicker: stopped; go on with the same command and --resume (and --out, if it was left out)",
            file=sys.stderr,
        )
        sys.exit(130)
