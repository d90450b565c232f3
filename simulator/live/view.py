"""The terminal's picture of the running system; a line now and then where the output is no terminal."""

from __future__ import annotations

import math
from collections.abc import Iterable

from rich.box import SIMPLE_HEAD
from rich.console import Group
from rich.table import Table
from rich.text import Text

from simulator.live.watch import Watch
from simulator.measures.registry import MEASURES
from simulator.measures.words import DASH, label, number, size

BARS = "▁▂▃▄▅▆▇█"


def picture(watch: Watch, address: str, seconds: float | None) -> Group:
    """Everything worth seeing now; `seconds` is how long the run lasts, None: until Ctrl-C."""
    table = Table(box=SIMPLE_HEAD, pad_edge=False, padding=(0, 1, 0, 0))
    table.add_column("between two duplicates", no_wrap=True)
    top = largest(watch)
    columns = {arm: _column(watch, arm, top) for arm in watch.arms()}
    for arm in columns:
        table.add_column(label(arm), justify="right")
    for row in next(iter(columns.values()), ()):
        table.add_row(row, *(cells[row] for cells in columns.values()))
    hint = Text(f"Ask it yourself: flicker query --address {address} --user 7 --all", style="dim")
    return Group(Text(heading_line(watch, address, seconds)), table, Text(traffic_line(watch)), hint)


def heading_line(watch: Watch, address: str, seconds: float | None) -> str:
    """How long it runs, where it answers, and what it serves."""
    whole = f" of {seconds:.0f} s" if seconds is not None else " s, Ctrl-C ends it"
    generation = watch.trainer.value("flicker_generation")
    serves = f"generation {generation:.0f}" if generation >= 0 else "no generation yet"
    ended = "; the log has ended, serving goes on" if watch.trainer.value("flicker_world_ended") == 1 else ""
    return f"Flicker  {watch.seconds():.0f}{whole}   router {address}   {serves}{ended}   memory {size(watch.memory)}"


def traffic_line(watch: Watch) -> str:
    """What users get."""
    answered = watch.router.total("flicker_router_queries_total", code="OK")
    failed = watch.router.total("flicker_router_queries_total") - answered
    offered, achieved = (watch.load.value(f"flicker_load_{name}_rate") for name in ("offered", "achieved"))
    rates = "" if math.isnan(offered) else f"   {achieved:.1f} queries/s of {offered:.1f} offered"
    latency = [watch.load.value("flicker_load_latency_seconds", quantile=share) for share in ("0.5", "0.99")]
    quick = "" if any(map(math.isnan, latency)) else f"   p50 {latency[0] * 1e3:.1f} ms, p99 {latency[1] * 1e3:.1f} ms"
    healthy = watch.lowest("flicker_router_replicas", healthy="true")
    return f"{answered:,.0f} answered, {failed:,.0f} failed{rates}{quick}   {_shown(healthy, 0)} replicas healthy"


def plain_line(watch: Watch, address: str, seconds: float | None) -> str:
    """The same in one line, for a log."""
    swaps = [f"{label(arm)} {_shown(watch.ratio('pair', arm, 'duplicate'))}" for arm in watch.arms()]
    return f"{heading_line(watch, address, seconds)}   pair swaps: {', '.join(swaps) or DASH}   {traffic_line(watch)}"


def largest(watch: Watch) -> float:
    """The largest pair swaps lately of any arm: all are drawn on one scale, or 0.04 would look like 0.14."""
    return max((ratio for arm in watch.arms() for ratio in _lately(watch, arm)), default=0.0)


def _lately(watch: Watch, arm: str) -> Iterable[float]:
    return watch.trend.get((arm, "duplicate"), ())


def _column(watch: Watch, arm: str, top: float) -> dict[str, str]:
    """What is known of an arm: words -> number, and bars from 0 to `top`."""
    return {
        **{measure.words: _shown(watch.ratio(name, arm, "duplicate")) for name, measure in MEASURES.items()},
        "pair swaps lately": sparkline(_lately(watch, arm), top),
        "pair swaps over a refresh": _shown(watch.ratio("pair", arm, "refresh")),
        "log loss": _shown(watch.trainer.value("flicker_progressive_log_loss", arm=arm), 4),
        "AUC": _shown(watch.trainer.value("flicker_progressive_auc", arm=arm), 4),
        "slots changed on asking twice": _shown(_share(watch, "changed_slots", "slots", arm)),
    }


def _share(watch: Watch, part: str, whole: str, arm: str) -> float:
    """Share of what users saw on asking twice, over the whole run."""
    over, under = (watch.load.total(f"flicker_user_{name}_total", arm=arm) for name in (part, whole))
    return over / under if under else math.nan


def sparkline(values: Iterable[float], top: float) -> str:
    """Values, none of them NaN, as bars from 0 to `top`."""
    return "".join(BARS[round(value / top * (len(BARS) - 1))] if top > 0 else BARS[0] for value in values)


def _shown(value: float, places: int | None = None) -> str:
    return DASH if math.isnan(value) else number(value, places)
