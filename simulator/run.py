"""One run of `flicker run`: prepare, learn, conclude."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import replace
from datetime import datetime
from pathlib import Path

from rich.console import Console

from simulator.config import ExperimentConfig
from simulator.errors import DataError, FlickerError, SettingError
from simulator.evaluation import Final
from simulator.experiment import Experiment
from simulator.flags import RunFlags
from simulator.folder import Folder
from simulator.models.engines import say_remarks
from simulator.models.specs import parse_arms
from simulator.outcome import measure
from simulator.predictions.keep import keep_predictions
from simulator.report import write_report
from simulator.report.finding import headline, truths
from simulator.report.pool import pooled
from simulator.result import ABOUT, read_result
from simulator.schedule import fitted
from simulator.terminal import open_console, progress_bar, tables
from simulator.tuning import tune_arms
from simulator.words import plural
from simulator.world.open import open_world


def run_experiment(flags: RunFlags, config: ExperimentConfig, command: str) -> None:
    """Run a config from the start, or from the last checkpoint in --out; print a table, leave a page.

    Nothing is written before settings and log are known to be good. Raises FlickerError.
    """
    if flags.resume and flags.out is None:
        raise FlickerError("resume: needs --out DIR, the folder of the interrupted run")
    path, console = flags.out or Path("results") / f"{datetime.now():%Y-%m-%d-%H%M%S}-{flags.preset}", open_console()
    if config.worlds == 1:
        _run(flags, config, command, Folder(path), flags.resume, console)
    else:
        _run_worlds(flags, config, command, Folder(path), console)
    _show(path, console, flags.page)


def _run_worlds(flags: RunFlags, config: ExperimentConfig, command: str, whole: Folder, console: Console) -> None:
    """A run in each world, in a folder of its own within that of the whole; then all of them as one result."""
    seeds = range(config.seed, config.seed + config.worlds)
    folders = [Folder(whole.path / f"seed-{seed}") for seed in seeds]
    if flags.resume:
        whole.check(config, resume=True)
    else:
        whole.start(config, command)
    for number, (seed, own) in enumerate(zip(seeds, folders, strict=True)):
        if (own.path / "result.json").exists():
            continue
        console.print(f"World {number + 1} of {config.worlds}, seed {seed}")
        going_on = (own.path / "config.json").exists()
        try:
            _run(flags, replace(config, seed=seed, worlds=1), command, own, going_on, console)
        except FlickerError:
            if number == 0:  # none will come to its end
                whole.withdraw()
            raise
    found = pooled([(own.path, read_result(own.path)) for own in folders])
    whole.finish(replace(found, **{about: type(getattr(found, about))() for about in ABOUT}))


def _run(
    flags: RunFlags, config: ExperimentConfig, command: str, folder: Folder, resume: bool, console: Console
) -> None:
    """A run in one world, up to its result.json."""
    started = time.monotonic()
    experiment, adapted = _prepare(flags, config, command, folder, resume, console)
    before = experiment.state.seconds
    final = _learn(experiment, folder, console, lambda: before + time.monotonic() - started)
    console.print("Measuring ...")
    if flags.keep_predictions:
        _keep(experiment, final, folder.path / "predictions")
    result = measure(experiment, final)
    notes = [adapted, *result.notes] if adapted else result.notes
    folder.finish(replace(result, notes=notes, seconds=round(before + time.monotonic() - started, 2)))


def _prepare(
    flags: RunFlags, config: ExperimentConfig, command: str, folder: Folder, resume: bool, console: Console
) -> tuple[Experiment, str]:
    """Open the world, and claim the folder or go back to where its run stopped; and what was fitted to the log."""
    arms = parse_arms(config.arms)
    if not resume:
        folder.check(config, resume=False)
    console.print(f"Opening {flags.data or 'the synthetic world'} ...")
    world = open_world(config.world, config.seed, config.model.hash_rows)
    config, adapted = fitted(config, world, flags.given())
    if adapted:
        console.print(f"{adapted}.", style="yellow", soft_wrap=True)
    if resume:
        folder.check(config, resume=True)
        experiment = Experiment(config, world, folder.rates())
        folder.restore(experiment)
        console.print(f"Going on after generation {experiment.state.generation} of {experiment.plan.generations}")
    else:
        if asked := {arm.spec: config.model.learning_rate for arm in arms if arm.tuned}:
            Experiment(config, world, asked).check()  # what cannot be is refused before minutes of tuning
        tuned = tune_arms(config, world, progress_bar(console))
        experiment = Experiment(config, world, {spec: found.rate for spec, found in tuned.items()})
        experiment.check()
        folder.start(config, command, experiment.engines.designs(), tuned)
    say_remarks(experiment.engines, lambda line: console.print(line, style="yellow", soft_wrap=True))
    models = f"{plural(len(config.arms), 'arm')} x {plural(config.fleets, 'fleet')} x {config.duplicates} duplicates"
    console.print(f"{models} learn {experiment.plan.learned:,} events; {experiment.plan.held_out:,} are held out")
    console.print(f"Results go to {folder.path}; Ctrl-C is safe (--resume goes on)", soft_wrap=True)
    return experiment, f"{adapted}." if adapted else ""


def _learn(experiment: Experiment, folder: Folder, console: Console, seconds: Callable[[], float]) -> Final:
    """The story, with a progress bar and checkpoints; `seconds` tells how long the run has taken so far."""

    def checkpoint() -> None:
        experiment.state.seconds = seconds()
        folder.save(experiment)

    with progress_bar(console) as bar:
        task = bar.add_task("learning", total=experiment.plan.total, completed=experiment.state.scored)
        try:
            return experiment.run(lambda events: bar.update(task, completed=events), checkpoint)
        except (SettingError, DataError):  # it would end like this every time
            folder.withdraw()
            raise


def _keep(experiment: Experiment, final: Final, path: Path) -> None:
    """What every model said, as files for `flicker compare`."""
    labels, newest = [arm.label for arm in experiment.arms], experiment.state.generation
    generations = {newest - lag: rankings for lag, rankings in final.earlier.items()} | {newest: final.after}
    asked = final.queries, generations, final.held_out, final.logits
    keep_predictions(path, experiment.world, labels, experiment.shape, *asked)


def _show(path: Path, console: Console, page: bool) -> None:
    """Draw the page; print the table, what to keep in mind, and the finding."""
    result = read_result(path)
    console.print(*tables(result, console.width), sep="\n")
    for note in truths(result) + result.notes:
        console.print(note, style="dim")
    console.print(f"{headline(result)}.", style="bold")
    shown = f"Pictures and all measures: {write_report(path)}" if page else f"All measures: {path / 'result.json'}"
    console.print(shown, soft_wrap=True)
