"""`python -m trainer`: flags and environment to a running trainer, with its feeder and its metrics page."""

from __future__ import annotations

import signal

from simulator.process import configure_logging, end_on_sigterm, require_ours, run, stop_on_signals


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
    from simulator.store.open import WORLD_CAPACITY
    from simulator.world.open import open_world
    from trainer import loop  # brings torch: seconds that --help need not wait for
    from trainer.feeder import Feeder
    from trainer.metrics import Metrics
    from trainer.resume import StateFolder

    configure_logging()
    registry = CollectorRegistry()
    metrics, folder = Metrics(registry), StateFolder(flags.state, flags.run)
    world = open_world(config.world, config.seed, config.model.hash_rows)
    config, size, adapted = fitted_live(config, world, flags.given(), flags.generation_events)
    if adapted:
        print(f"trainer: {adapted}", flush=True)
    stop = stop_on_signals()
    trainer = loop.Trainer(config, world, store, folder, metrics, stop, size)
    fed = flags.open_store(capacity=WORLD_CAPACITY)
    feeder = Feeder(world, fed, metrics, stop, *flags.pace(world, size))
    feeder.feed_at_once(flags.head(size))
    # SIGUSR1: the events of a generation at once, so that the next one is cut as soon as they are learned
    signal.signal(signal.SIGUSR1, lambda number, frame: feeder.feed_at_once(trainer.generation_events))
    metrics.show_arms([arm.label for arm in trainer.arms])
    credentials = flags.security.credentials()
    port = serve_metrics(registry, flags.metrics_port, flags.host, credentials)
    scheme = "https" if credentials.tls_cert else "http"
    print(f"trainer: metrics at {scheme}://{flags.host}:{port}/metrics", flush=True)
    folder.open()
    try:
        loop.run(trainer, feeder)
    finally:
        folder.close()
        fed.close()
        store.close()


if __name__ == "__main__":
    run("trainer", main)
