"""`python -m trainer`: flags and environment to a running trainer, with its feeder and its metrics page."""

from __future__ import annotations

import signal
from contextlib import ExitStack

from simulator.process import Stopped, configure_logging, end_on_sigterm, require_ours, run, stop_on_signals


def main(arguments: list[str]) -> None:
    """Set up, train until a signal comes, end in order. Raises FlickerError for what the user can mend."""
    end_on_sigterm()
    require_ours("trainer")
    from simulator.flags import parse
    from trainer.flags import TrainerFlags

    flags = parse(TrainerFlags, "python -m trainer", arguments)
    config = flags.config()
    store = flags.open_store()

    from prometheus_client import CollectorRegistry

    from simulator.schedule import fitted_live
    from simulator.security.pages import serve_metrics
    from simulator.store.redis import WORLD_CAPACITY
    from simulator.world.open import open_world
    from trainer import loop  # brings torch: seconds that --help need not wait for
    from trainer.feeder import Feeder, NoFeeder
    from trainer.lease import hold
    from trainer.metrics import Metrics
    from trainer.resume import StateFolder

    configure_logging()
    registry = CollectorRegistry()
    metrics, stop, credentials = Metrics(registry), stop_on_signals(), flags.security.credentials()
    port = serve_metrics(registry, flags.metrics_port, flags.host, credentials)
    scheme = "https" if credentials.tls_cert else "http"
    print(f"trainer: metrics at {scheme}://{flags.host}:{port}/metrics", flush=True)
    with ExitStack() as ends:
        ends.callback(store.close)
        loop.live_arms(config)  # what cannot be is refused at once, not when a shard is free
        world = open_world(config.world, config.seed, config.model.hash_rows)
        config, size, adapted = fitted_live(config, world, flags.given(), flags.generation_events)
        if adapted:
            print(f"trainer: {adapted}", flush=True)
        try:
            lease = hold(flags.shard, store, stop, metrics.store_failed)
        except Stopped:
            return
        ends.callback(lease.release)
        folder = StateFolder(flags.folder(lease.shard), flags.run)
        trainer = loop.Trainer(config, world, store, folder, metrics, stop, size, lease.shard, lease.check)
        feeder: Feeder | NoFeeder = NoFeeder()
        if lease.shard.number == 0:
            world_log = flags.open_store(capacity=WORLD_CAPACITY)
            ends.callback(world_log.close)
            feeder = Feeder(world, world_log, metrics, stop, *flags.pace(world, size))
            feeder.feed_at_once(flags.head(size))
        # SIGUSR1: the events of a generation at once, so that the next one is cut as soon as they are learned
        signal.signal(signal.SIGUSR1, lambda number, frame: feeder.feed_at_once(trainer.generation_events))
        metrics.show_arms([arm.label for arm in trainer.arms])
        folder.open()
        ends.callback(folder.close)
        loop.run(trainer, feeder)


if __name__ == "__main__":
    run("trainer", main)
