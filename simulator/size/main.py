"""`flicker size`: a plan as tables, or as JSON."""

from __future__ import annotations

import json
from dataclasses import asdict
from typing import Any

from rich.box import SIMPLE_HEAD
from rich.console import Console
from rich.markup import escape
from rich.table import Table

from simulator.size.laws import Laws, digits, read_laws, size
from simulator.size.plan import DeploymentPlan, SizeFlags, plan
from simulator.terminal import open_console

WIDE = 150
"""Columns of a table where it is a file or a pipe."""


def run_size(flags: SizeFlags) -> None:
    """Print what it takes."""
    laws = read_laws()
    planned = plan(flags, laws)
    if flags.json:
        print(json.dumps(as_json(flags, planned, laws), indent=2))
        return
    console = open_console()
    if not console.is_terminal:
        console = Console(highlight=False, width=WIDE)
    console.print(parts_table(planned))
    console.print(laws_table(planned))
    console.print(limits_table(planned))
    console.print(f"Laws measured {laws.date} on {escape(laws.machine)}: docs/scaling.md.")
    replicas = next(part.processes for part in planned.parts if part.name == "replica")
    if replicas < flags.duplicates:
        served = f"{digits(replicas)} of {digits(flags.duplicates)} duplicates"
        console.print(f"Replicas serve {served}: for all of them as many replicas are needed, whatever they are asked.")
    if planned.beyond:
        console.print("Extrapolated: " + "; ".join(planned.beyond) + ".")
    console.print("CPU is of a core like that machine's. Not in it: TLS, peaks over the daily mean, failover, disks.")


def as_json(flags: SizeFlags, planned: DeploymentPlan, laws: Laws) -> dict[str, Any]:
    """All of it, in seconds, bytes and cores."""
    about = {"date": laws.date, "machine": laws.machine}
    demand = {name: value for name, value in asdict(flags).items() if name != "json"}
    return {"demand": demand, "laws": about, **asdict(planned)}


def parts_table(planned: DeploymentPlan) -> Table:
    """A row for each part."""
    table = Table(box=SIMPLE_HEAD)
    for name in ("part", "processes", "busy cores", "memory each", "network", "machines"):
        table.add_column(name, justify="left" if name == "part" else "right", no_wrap=True)
    for part in planned.parts:
        within = part.machines == 0
        table.add_row(
            part.name,
            "" if within else digits(part.processes),
            digits(part.cores) if part.cores else "",
            size(part.memory) if part.memory else "",
            f"{size(part.network)}/s",
            "" if within else digits(part.machines),
        )
    return table


def laws_table(planned: DeploymentPlan) -> Table:
    """What each part grows with, and by which law."""
    table = Table(box=SIMPLE_HEAD)
    table.add_column("part", no_wrap=True)
    table.add_column("grows with")
    table.add_column("law")
    for part in planned.parts:
        table.add_row(part.name, part.driver, part.law)
    return table


def limits_table(planned: DeploymentPlan) -> Table:
    """What saturates, first what saturates first."""
    table = Table(box=SIMPLE_HEAD)
    table.add_column("of its limit", justify="right", no_wrap=True)
    table.add_column("what more machines do not mend")
    table.add_column("what takes over")
    for limit in planned.limits:
        table.add_row(shared(limit.share), limit.what, limit.then if limit.share > 0.5 else "")
    return table


def shared(share: float) -> str:
    """As a percentage, or as a factor where it is beyond."""
    return f"{share:.1%}" if share < 1 else f"× {digits(share)}"
