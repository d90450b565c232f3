"""One run of `flicker run`: prepare, learn, conclude. In one piece, or in parts, by hand or on a cluster."""

from __future__ import annotations

import time
from collections.abc import Callable
from contextlib import closing
from dataclasses import dataclass, replace
from datetime import datetime
from pathlib import Path
from typing import Annotated

import torch
import tyro
from rich.console import Console
from rich.progress import TimeElapsedColumn

from simulator.cluster import Cluster
from simulator.config import ExperimentConfig, ReplayConfig, as_json, config_of, require
from simulator.errors import DataError, FlickerError, ResultError, SettingError
from simulator.experiment.evaluation import WHOLE, Evaluation, Final, Part
from simulator.experiment.experiment import Experiment, OtherParts
from simulator.experiment.folder import Folder, machine
from simulator.experiment.outcome import measure
from simulator.experiment.parts import ConcurrentPart, abouts, joined, place_of, standing
from simulator.flags import RunFlags, Spread
from simulator.measures.words import plural
from simulator.models.engines import log_remarks
from simulator.models.specs import parse_arms
from simulator.predictions.keep import keep_predictions
from simulator.process import peak_memory
from simulator.report import write_report
from simulator.report.finding import headline, truths
from simulator.report.pool import pooled
from simulator.result import ABOUT, read_result
from simulator.schedule import fitted
from simulator.terminal import open_console, progress_bar, tables
from simulator.tuning import tune_arms
from simulator.types import World
from simulator.world.open import open_world

RETRIES = 5
"""How often a part whose node is lost is started again."""


def run_experiment(flags: RunFlags, config: ExperimentConfig, command: str) -> None:
    """Run a config from the start, or from the last checkpoint in --out; print a table, leave a page.

    Nothing is written before settings and log are known to be good. Raises FlickerError.
    """
    if flags.resume and flags.out is None:
        raise FlickerError("resume: needs --out DIR, the folder of the interrupted run")
    path, console = flags.out or Path("results") / f"{datetime.now():%Y-%m-%d-%H%M%S}-{flags.preset}", open_console()
    if flags.spread.part:
        run_part(flags, config, command, console)
        return
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
    for number, (seed, world_folder) in enumerate(zip(seeds, folders, strict=True)):
        if (world_folder.path / "result.json").exists():
            continue
        console.print(f"World {number + 1} of {config.worlds}, seed {seed}")
        going_on = (world_folder.path / "config.json").exists()
        try:
            _run(flags, replace(config, seed=seed, worlds=1), command, world_folder, going_on, console)
        except FlickerError:
            if number == 0:  # none will come to its end
                whole.withdraw()
            raise
    result = pooled([(world_folder.path, read_result(world_folder.path)) for world_folder in folders])
    whole.finish(replace(result, **{about: type(getattr(result, about))() for about in ABOUT}))


def _run(
    flags: RunFlags, config: ExperimentConfig, command: str, folder: Folder, resume: bool, console: Console
) -> None:
    """A run in one world, up to its result.json."""
    if flags.spread.backend == "ray":
        _run_on_ray(flags, config, command, folder, resume, console)
        return
    started = time.monotonic()
    experiment, adapted = _prepare(flags, config, command, folder, resume, console)
    before = experiment.state.seconds

    def seconds() -> float:
        return before + time.monotonic() - started

    final = _learn(experiment, folder, console, seconds)
    _conclude(experiment, final, folder, console, [adapted], seconds, flags.keep_predictions)


def _open(flags: RunFlags, config: ExperimentConfig, console: Console) -> tuple[World, ExperimentConfig, str]:
    """The world, the config as its log has room for, and the line that says what was fitted."""
    console.print(f"Opening {flags.data or 'the synthetic world'} ...")
    world = open_world(config.world, config.seed, config.model.hash_rows)
    config, adapted = fitted(config, world, flags.given())
    if adapted:
        console.print(f"{adapted}.", style="yellow", soft_wrap=True)
    return world, config, f"{adapted}." if adapted else ""


def _prepare(
    flags: RunFlags, config: ExperimentConfig, command: str, folder: Folder, resume: bool, console: Console
) -> tuple[Experiment, str]:
    """Open the world, and claim the folder or go back to where its run stopped; and what was fitted to the log."""
    parse_arms(config.arms)  # what cannot be is refused before a log is read
    if not resume:
        folder.check(config, resume=False)
    world, config, adapted = _open(flags, config, console)
    if resume:
        folder.check(config, resume=True)
        experiment = Experiment(config, world, folder.rates())
        folder.restore(experiment)
        console.print(f"Going on after generation {experiment.state.generation} of {experiment.plan.generations}")
    else:
        _check(config, world)
        tuned = tune_arms(config, world, progress_bar(console))
        experiment = Experiment(config, world, {spec: tuning.rate for spec, tuning in tuned.items()})
        experiment.check()
        folder.start(config, command, experiment.engines.designs(), tuned)
    _announce(experiment, folder, console)
    return experiment, adapted


def _check(config: ExperimentConfig, world: World, part: Part = WHOLE) -> None:
    """What cannot be is refused before minutes of tuning."""
    if asked := _any_rates(config):
        Experiment(config, world, asked, part).check()


def _any_rates(config: ExperimentConfig) -> dict[str, float]:
    """A rate for every arm that asks for a tuned one, where it does not matter which."""
    return {arm.spec: config.model.learning_rate for arm in parse_arms(config.arms) if arm.tuned}


def _announce(experiment: Experiment, folder: Folder, console: Console) -> None:
    """What is learned here, and where it goes."""
    config, plan = experiment.config, experiment.plan
    log_remarks(experiment.engines, lambda line: console.print(line, style="yellow", soft_wrap=True))
    models = f"{plural(len(config.arms), 'arm')} x {plural(config.fleets, 'fleet')} x {config.duplicates} duplicates"
    if len(experiment.models) < experiment.shape.all:
        models = f"{len(experiment.models)} of {models}"
    console.print(f"{models} learn {plan.learned:,} events; {plan.held_out:,} are held out")
    console.print(f"Results go to {folder.path}; Ctrl-C is safe (--resume goes on)", soft_wrap=True)


def _learn(
    experiment: Experiment,
    folder: Folder,
    console: Console,
    seconds: Callable[[], float],
    other_parts: OtherParts | None = None,
) -> Final:
    """The story, with a progress bar and checkpoints; `seconds` tells how long the run has taken so far."""

    def checkpoint() -> None:
        experiment.state.seconds = seconds()
        folder.save(experiment)

    with progress_bar(console) as bar:
        task = bar.add_task("learning", total=experiment.plan.total, completed=experiment.state.scored)
        try:
            return experiment.run(lambda events: bar.update(task, completed=events), checkpoint, other_parts)
        except (SettingError, DataError):  # it would end like this every time
            folder.withdraw()
            raise


def _conclude(
    evaluation: Evaluation,
    final: Final,
    folder: Folder,
    console: Console,
    remarks: list[str],
    seconds: Callable[[], float],
    keep: bool,
    peak: int = 0,
) -> None:
    """Measure, and write result.json; `remarks` go before its notes, `peak` is the memory of another process."""
    console.print("Measuring ...")
    if keep:
        _keep(evaluation, final, folder.path / "predictions")
    result = measure(evaluation, final)
    notes = [*filter(None, remarks), *result.notes]
    peak = max(peak, result.peak_memory_bytes)
    folder.finish(replace(result, notes=notes, seconds=round(seconds(), 2), peak_memory_bytes=peak))


def _keep(evaluation: Evaluation, final: Final, path: Path) -> None:
    """What every model said, as files for `flicker compare`."""
    labels, newest = [arm.label for arm in evaluation.arms], evaluation.state.generation
    generations = {newest - lag: rankings for lag, rankings in final.earlier.items()} | {newest: final.after}
    asked = final.queries, generations, final.held_out, final.logits
    keep_predictions(path, evaluation.world, labels, evaluation.shape, *asked)


def run_part(flags: RunFlags, config: ExperimentConfig, command: str, console: Console) -> None:
    """Learn one part of a run and leave what its models said in --out; goes on where the part stands.

    Raises FlickerError.
    """
    part = Part(*flags.spread.of_part())
    if flags.out is None:
        raise FlickerError("part: needs --out DIR, the folder that all parts of the run share")
    require(config.worlds == 1, "worlds", config.worlds, "1 with --part; run each world by itself with --seed")
    require(not flags.keep_predictions, "keep_predictions", True, f"give it to flicker merge {flags.out}")
    folder, started = Folder(flags.out), time.monotonic()
    part_folder = Folder(place_of(folder.path, part))
    parse_arms(config.arms)
    world, config, adapted = _open(flags, config, console)
    _require_divisible(config, world, part.of)
    if folder.begun(config, part.of) and part in standing(folder.path, part.of).complete:
        console.print(f"Part {part} is complete; nothing is left to learn")
        return
    experiment = _join(config, command, world, part, folder, console)
    part_folder.restore(experiment)
    before = experiment.state.seconds
    _announce(experiment, folder, console)
    beside = ConcurrentPart(folder.path, part, flags.spread.patience, lambda line: console.print(line, soft_wrap=True))
    try:
        final = _learn(experiment, part_folder, console, lambda: before + time.monotonic() - started, beside)
    except (SettingError, DataError):
        if not (folder.path / "parts").exists():  # nothing is lost: the next try may have other settings
            folder.withdraw()
        raise
    experiment.state.seconds = before + time.monotonic() - started
    about = {"config": as_json(config), "adapted": adapted, "machine": machine(), "peak": peak_memory()}
    beside.finish(final, experiment.state, about)
    part_folder.forget()
    missing = [str(one) for one in standing(folder.path, part.of).missing]
    then = f"still to be learned: part {', '.join(missing)}; then" if missing else "all parts are:"
    console.print(f"Part {part} is complete; {then} flicker merge {folder.path}", soft_wrap=True)


def _join(
    config: ExperimentConfig, command: str, world: World, part: Part, folder: Folder, console: Console
) -> Experiment:
    """The part, at its start, of a run that begins with it, or that other parts began."""
    begun = folder.begun(config, part.of)
    if not begun:
        _check(config, world, part)
    tuned = {} if begun else tune_arms(config, world, progress_bar(console))
    rates = folder.rates() if begun else {spec: tuning.rate for spec, tuning in tuned.items()}
    experiment = Experiment(config, world, rates, part)
    experiment.check()
    folder.join(config, command, experiment.engines.designs(), tuned, part.of)
    return experiment


def _require_divisible(config: ExperimentConfig, world: World, parts: int) -> None:
    """Raise SettingError where a run cannot be cut in so many parts."""
    models = config.fleets * config.duplicates
    require(parts <= models, "parts", parts, f"at most {models}, the fleets x duplicates of an arm")
    repeats = config.repeatable or not world.has_truth
    hint = "0 with parts of a made-up world: what a lost part has shown it must show again"
    require(repeats, "noise.racing", config.noise.racing, hint)


@dataclass(frozen=True)
class MergeFlags:
    """Join the parts of a run that `flicker run --part` left, as if it had been learned in one piece.

    Prints a table, and leaves result.json and a page in the folder. Reads the log once more, at the path where the
    parts read it."""

    folder: Annotated[Path, tyro.conf.Positional]
    """Of all parts: their --out."""
    keep_predictions: bool = False
    """As of `flicker run`."""
    page: bool = True
    """As of `flicker run`."""


def merge(flags: MergeFlags) -> None:
    """Conclude a run whose parts are all complete. Raises FlickerError."""
    folder, console = Folder(flags.folder), open_console()
    about = folder.about()
    if (folder.path / "result.json").exists():
        raise ResultError(f"out = {folder.path}: this run is complete: flicker report {folder.path}")
    if not isinstance(about.get("parts"), int):
        raise ResultError(f"out = {folder.path}: a run in one piece: go on with flicker run --resume --out DIR")
    config = config_of(about["config"])
    console.print("Opening the world ...")
    world = open_world(config.world, config.seed, config.model.hash_rows)
    _merge(config, world, folder, about["parts"], console, flags.keep_predictions)
    _show(folder.path, console, flags.page)


def _merge(config: ExperimentConfig, world: World, folder: Folder, parts: int, console: Console, keep: bool) -> None:
    """Join so many parts, up to result.json. Raises ResultError where one is missing, damaged or of another run."""
    started, evaluation = time.monotonic(), Evaluation(config, world, folder.rates())
    every = abouts(folder.path, parts)
    for number, about in enumerate(every):
        if about["config"] != as_json(config):
            place = place_of(folder.path, Part(number, parts))
            raise ResultError(f"{place}: of a run with other settings: delete it, and run part {number}/{parts} again")
    console.print(f"Joining {plural(parts, 'part')} ...")
    final = joined(evaluation, folder.path, parts)
    remarks = [every[0]["adapted"]]
    kinds = {about["machine"].get("gpu", about["machine"]["cpu_capability"]) for about in every}
    if len(kinds) > 1:
        remarks.append(f"Parts learned on unlike processors ({', '.join(sorted(kinds))}), which may round differently.")
    longest, peak = evaluation.state.seconds, max(about["peak"] for about in every)
    _conclude(evaluation, final, folder, console, remarks, lambda: longest + time.monotonic() - started, keep, peak)


def _run_on_ray(
    flags: RunFlags, config: ExperimentConfig, command: str, folder: Folder, resume: bool, console: Console
) -> None:
    """All parts as tasks on a cluster, up to result.json."""
    spread, on_gpu = flags.spread, config.device == "cuda"
    gpus, hint = spread.resources.gpus, "more than 0 with --device cuda, and with it alone"
    require(on_gpu == (gpus > 0), "gpus", gpus, hint)
    if not resume:
        folder.check(config, resume=False)
    world, fit, _ = _open(flags, config, console)
    cluster, models = Cluster(spread.address, spread.resources), config.fleets * config.duplicates
    held = folder.about() if resume and (folder.path / "config.json").exists() else {}
    parts = spread.parts or held.get("parts") or min(cluster.room, models)
    folder.begun(fit, parts)  # interrupted before any part was, it goes on, too
    _require_divisible(fit, world, parts)
    hint = f"at most {cluster.room}, for which the cluster has room: those of a made-up world run side by side"
    require(parts <= cluster.room or not world.has_truth, "parts", parts, hint)
    console.print(f"{plural(parts, 'part')}, {min(parts, cluster.room)} at a time, on the cluster")
    console.print(f"Results go to {folder.path}; Ctrl-C is safe (--resume goes on)", soft_wrap=True)
    if isinstance(config.world, ReplayConfig):  # nodes do not start in this folder
        config = replace(config, world=replace(config.world, path=config.world.path.resolve()))
    part_flags = replace(flags, out=folder.path.resolve(), keep_predictions=False)
    calls = [(part_flags, config, command, str(part)) for part in standing(folder.path, parts).missing]
    _await(cluster, calls, parts, Evaluation(fit, world, _any_rates(fit)).plan.generations, folder, console)
    _merge(fit, world, folder, parts, console, flags.keep_predictions)


def _await(
    cluster: Cluster,
    calls: list[tuple[RunFlags, ExperimentConfig, str, str]],
    parts: int,
    generations: int,
    folder: Folder,
    console: Console,
) -> None:
    """Run those of so many parts that are called for, showing how far all are.

    Raises FlickerError where one fails: the others end.
    """
    with progress_bar(console, TimeElapsedColumn(), "{task.fields[last]}") as bar:
        task = bar.add_task("generations of all parts", total=parts * generations, last="")

        def look() -> None:
            now = standing(folder.path, parts)
            done = sum(generations if part in now.complete else reached for part, reached in now.generations.items())
            last = min(now.missing, key=lambda part: now.generations[part], default=None)
            behind = f"part {last} is last, {now.generations[last]} of {generations}" if last else ""
            bar.update(task, completed=done, last=behind)

        with closing(cluster.run(learn_part, calls, retries=RETRIES, tick=look)) as ending:
            for done in ending:
                if failure := done.lost or done.result:
                    raise FlickerError(f"part {calls[done.number][3]}: {failure}")
        look()


def learn_part(flags: RunFlags, config: ExperimentConfig, command: str, part: str) -> str | None:
    """A part on a node of the cluster; why it failed, None where it did not."""
    torch.set_num_threads(flags.spread.resources.threads)
    try:
        spread = Spread(part=part, patience=flags.spread.patience)
        run_part(replace(flags, spread=spread), config, command, Console(quiet=True))
    except FlickerError as problem:
        return str(problem)
    return None


def _show(path: Path, console: Console, page: bool) -> None:
    """Draw the page; print the table, what to keep in mind, and the finding."""
    result = read_result(path)
    console.print(*tables(result, console.width), sep="\n")
    for note in truths(result) + result.notes:
        console.print(note, style="dim")
    console.print(f"{headline(result)}.", style="bold")
    message = f"Pictures and all measures: {write_report(path)}" if page else f"All measures: {path / 'result.json'}"
    console.print(message, soft_wrap=True)
