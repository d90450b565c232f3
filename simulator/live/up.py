"""`flicker up` in three verbs: startup, main loop, shutdown. Nothing it started is left behind, but for its summary."""

from __future__ import annotations

import contextlib
import importlib.util
import os
import secrets
import threading
import time
from dataclasses import replace
from datetime import datetime
from itertools import groupby
from pathlib import Path

from rich.console import Console
from rich.live import Live

from simulator.files import require_empty
from simulator.live.controls import TOKEN, Controls
from simulator.live.flags import UpFlags
from simulator.live.orders import Operator
from simulator.live.processes import BAD_SETTING, RESTART_SPAN, RESTARTS, Child, LivePlan, page_of, plan
from simulator.live.summary import write_summary
from simulator.live.view import picture, plain_line
from simulator.live.watch import Page, Watch
from simulator.process import free_ports, require_free, stop_on_signals
from simulator.schedule import fitted_live
from simulator.security.credentials import Credentials
from simulator.store.protocol import StoreError
from simulator.store.server import StoreServer, find_or_start, start_again
from simulator.terminal import open_console, progress_bar

LINE_EVERY = 10.0
"""Seconds between lines where the output is no terminal."""
GRACE = 10.0
"""Seconds that all processes together have to end in order."""


class DiedForGood(Exception):
    """A process cannot be kept running; the message names it and says why, `code` is what to exit with."""

    def __init__(self, reason: str, code: int = 1) -> None:
        super().__init__(reason)
        self.code = code


class Up:
    """The live system of one `flicker up`."""

    def __init__(self, flags: UpFlags, command: str) -> None:
        self.flags, self.command = flags, command
        self.out = flags.out or Path("results") / f"{datetime.now():%Y-%m-%d-%H%M%S}-up"
        self.console: Console = open_console()
        self.stop: threading.Event = stop_on_signals()
        self.server: StoreServer | None = None
        self.plan: LivePlan | None = None
        self.page: Child | None = None
        self.controls: Controls | None = None
        self.operator: Operator | None = None
        self.watch = Watch({})
        self.lost: dict[str, str] = {}
        """Process that is dead for good -> why; the others go on."""
        self._store_deaths: list[float] = []

    def startup(self) -> None:
        """Claim the folder, then start the store and everything that uses it, and say where all of it is."""
        require_empty(self.out)
        require_free("page_port", self.flags.page_port)
        self.out.mkdir(parents=True, exist_ok=True)
        self.server = find_or_start(self.out / "store")
        self.plan = plan(self.flags, self.server.url, self.out)
        self.watch = Watch(self.plan.metrics, Credentials.from_environment())
        self._start_page(self.plan)
        routers = "router" if self.flags.routers == 1 else f"{self.flags.routers} routers"
        traffic = "" if self.flags.no_load else " and traffic"
        trainers = "trainer" if self.flags.trainers == 1 else f"{self.flags.trainers} trainers"
        self.say(f"Starting {trainers}, {self.flags.replicas} replicas, {routers}{traffic} ...")
        for child in self.plan.servers:
            child.start()
        if self.plan.load_page:
            self.say(f"Load: {self.plan.load_page} (Locust's page, without a password)")
        self.say(f"Metrics: {', '.join(f'{name} {url}' for name, url in self.plan.pages.items())}")
        self.say(f"Logs and summary: {self.out}")

    def _start_page(self, made: LivePlan) -> None:
        """The live page, and what takes its orders. Its address is the first thing that is said."""
        if self.flags.no_page:
            return
        if missing := [name for name in ("page", "nicegui") if importlib.util.find_spec(name) is None]:
            return self.say(
                f"No page: {missing[0]} is not installed: pip install 'flicker-recsys[live,page]'", "yellow"
            )
        token = os.environ.get(TOKEN) or secrets.token_urlsafe(24)
        port = self.flags.page_port or free_ports(1)[0]
        self.say(f"Page: {made.scheme}://127.0.0.1:{port}/?token={token}", "bold")
        self.operator = Operator(self.flags, made, self.out)
        self.controls = Controls(self.operator.orders)
        runs = [folder for folder in (self.out, Path("results")) if folder.is_dir()]
        self.page = page_of(made, port, runs, self.controls.path, token, self.out)
        self.page.start()

    def main_loop(self) -> None:
        """Watch, once a second, until time is up or a signal comes. Raises DiedForGood."""
        assert self.plan is not None
        line_due = 0.0
        with Live(console=self.console, auto_refresh=False, transient=False) as live:
            while not self.stop.wait(1.0) and not self._time_is_up():
                self._keep_alive()
                self.watch.look(self._pids())
                self._let_users_in()
                if self.console.is_terminal:
                    live.update(picture(self.watch, self.plan.address, self.flags.for_), refresh=True)
                elif self.watch.seconds() >= line_due:
                    line_due = self.watch.seconds() + LINE_EVERY
                    self.console.print(plain_line(self.watch, self.plan.address, self.flags.for_), soft_wrap=True)

    def shutdown(self) -> None:
        """End traffic first, then routers, replicas, trainer and store, each in order or after GRACE at once.

        Replicas end side by side: each takes a second or more, so that routers learn that it goes.
        """
        deadline = time.monotonic() + GRACE
        if self.controls is not None:
            self.controls.close()
        if self.operator is not None:
            self.operator.stop()
        for _, alike in groupby(reversed(self.running), lambda child: child.name.partition("-")[0]):
            children = list(alike)
            for child in children:
                child.ask_to_stop()
            for child in children:
                child.finish(deadline - time.monotonic())
        if self.server is not None:
            self.server.stop(max(1.0, deadline - time.monotonic()))

    def conclude(self) -> None:
        """Write result.json and say what was seen, where anything ran."""
        if not self.running or self.plan is None:
            return
        lost, config = list(self.lost.values()), self.flags.config()
        self.say(write_summary(self.out, self.watch, self.plan.load_summary, self.command, lost, config), "bold")
        self.say(f"Result: {self.out / 'result.json'} (its page: flicker report {self.out})")

    def say(self, words: str, style: str = "") -> None:
        """A line to whoever watches; a terminal that is gone (SIGHUP) must not keep the rest from being done."""
        with contextlib.suppress(OSError):
            self.console.print(words, style=style, soft_wrap=True)

    @property
    def running(self) -> list[Child]:
        """All processes that were started, but for the store; the page, which ends last, comes first."""
        planned = [*self.plan.servers, *self.plan.load] if self.plan else []
        return [child for child in [self.page, *planned] if child and child.process]

    def _pids(self) -> list[int]:
        """Process ids of all that runs, the store included where it is ours."""
        processes = [child.process for child in self.running] + [self.server.process if self.server else None]
        return [process.pid for process in processes if process is not None and process.poll() is None]

    def _let_users_in(self) -> None:
        """Traffic begins when every replica serves: a query before that could only fail."""
        assert self.plan is not None
        if all(self._is_ready(page) for page in self.watch.routers.values()):
            for child in self.plan.load:
                if child.process is None:
                    child.start()

    def _is_ready(self, router: Page) -> bool:
        """Whether a router has looked at what is published, and every replica serves."""
        healthy = router.value("flicker_router_replicas", healthy="true")
        return healthy >= self.flags.replicas and router.value("flicker_router_generation") >= 1

    def _keep_alive(self) -> None:
        if self.server is not None and not self.server.alive():
            self._restart_store(self.server)
        for child in self.running:
            if child.name in self.lost or (reason := child.watch()) is None:
                continue
            self.lost[child.name] = reason
            served_on = child.name.startswith("trainer") and self.watch.lowest("flicker_router_generation") >= 1
            if not served_on and (child is not self.page or child.bad_setting):
                raise DiedForGood(reason, BAD_SETTING if child.bad_setting else 1)
            rest = "what it has published is served on" if served_on else "all else goes on without it"
            self.say(f"flicker: {reason}; {rest}", "bold red")

    def _restart_store(self, dead: StoreServer) -> None:
        """The same data at the same port: everybody waits for it meanwhile. Raises DiedForGood."""
        now = time.monotonic()
        self._store_deaths = [death for death in self._store_deaths if now - death < RESTART_SPAN] + [now]
        reason = f"store: ended by itself more than {RESTARTS} times in {RESTART_SPAN:g} s"
        try:
            if len(self._store_deaths) <= RESTARTS:
                self.server = start_again(dead, self.out / "store")
                return self.say("The store ended by itself and was started again.")
        except StoreError as problem:
            reason = f"store: ended by itself, and not to be started again: {problem}"
        self.lost["store"] = f"{reason} (log: {self.out / 'store'})"
        raise DiedForGood(self.lost["store"])

    def _time_is_up(self) -> bool:
        return self.flags.for_ is not None and self.watch.seconds() >= self.flags.for_


def fitted_flags(flags: UpFlags) -> UpFlags:
    """The flags with what a log has room for, and with a learning rate for every arm that asks for one (`lr=tuned`):
    found before any process starts, and said in a line each.

    Raises FlickerError for settings that cannot be, also for a flag that does not belong to the world.
    """
    config = flags.config()
    is_tuned = any("lr=tuned" in spec for spec in config.arms)
    if flags.data is None and not is_tuned:
        return flags
    from simulator.world.open import open_world

    if flags.out:
        require_empty(flags.out)
    console = open_console()
    world = open_world(config.world, config.seed, config.model.hash_rows)
    config, size, adapted = fitted_live(config, world, flags.given(), flags.refresh_events)
    if adapted:
        console.print(f"{adapted}.", style="yellow", soft_wrap=True)
    if is_tuned:
        from simulator.models.specs import parse_arms, require_live, with_rate  # torch: others need not wait for it
        from simulator.tuning import tune_arms

        require_live(parse_arms(config.arms))
        tuned = tune_arms(config, world, progress_bar(console))
        arms = tuple(with_rate(spec, tuned[spec].rate) if spec in tuned else spec for spec in config.arms)
        config = replace(config, arms=arms)
    compare = replace(flags.compare, arms=config.arms, model=config.model, noise=config.noise)
    return replace(flags, compare=compare, refresh_events=size)


def run_up(flags: UpFlags, command: str) -> int:
    """The whole life of the system; returns the exit code: 1 where a process died for good, 2 for its settings.

    Whatever ends it, a summary of what was seen is left.
    """
    up = Up(fitted_flags(flags), command)
    code = 0
    try:
        up.startup()
        up.main_loop()
    except DiedForGood as death:
        code = death.code
        up.say(f"flicker: {death}", "bold red")
    finally:
        up.shutdown()
        up.conclude()
    return code or bool(up.lost)
