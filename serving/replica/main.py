"""`python -m serving replica`: flags and environment to a running replica."""

from __future__ import annotations

import json
import logging

from prometheus_client import CollectorRegistry

from serving.replica.flags import ReplicaFlags
from simulator.errors import SettingError
from simulator.flags import parse_flags
from simulator.process import configure_logging, serve_metrics, stop_on_signals
from simulator.store.open import open_store

log = logging.getLogger(__name__)


def main(arguments: list[str]) -> None:
    """Serve until a signal comes. Raises FlickerError for what the user can mend."""
    flags = parse_flags(ReplicaFlags, "python -m serving replica", arguments)
    if not flags.store:
        raise SettingError("store", "nothing", "name one with --store, or in FLICKER_REDIS_URL")
    store = open_store(flags.store, run=flags.run)

    from serving.replica.replica import Replica  # brings torch: seconds that --help need not wait for

    configure_logging()
    stop, registry = stop_on_signals(), CollectorRegistry()
    replica = Replica(flags, store, registry, stop)
    port = serve_metrics(registry, flags.metrics_port, flags.host)
    replica.start()
    line = {"ready": "replica", "name": flags.name, "address": replica.address, "metrics": f"{flags.host}:{port}"}
    print(json.dumps(line), flush=True)
    stop.wait()
    log.info("stopping")
    replica.stop()
    store.close()
