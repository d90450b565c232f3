"""`flicker tune`: what `lr=tuned` looks at, for any arms: progressive log loss on an early part of the log, as a table.

What differs most between settings is learned fast: one model of each arm, all side by side, on 30 % of the log.
"""

from __future__ import annotations

from simulator.flags import RunFlags
from simulator.models.specs import parse_arms
from simulator.terminal import open_console, progress_bar
from simulator.tuning import WARM_UP, early_losses, used_events
from simulator.world.open import open_world


def tune_table(flags: RunFlags) -> str:
    """Markdown: the arms by their log loss on events 10 to 30 % of the log, the least first. Raises FlickerError."""
    config = flags.config()
    arms, world = parse_arms(config.arms), open_world(config.world, config.seed, config.model.hash_rows)
    with progress_bar(open_console()) as bar:
        task = bar.add_task("learning", total=used_events(world))
        losses = early_losses(arms, config, world, lambda done, _: bar.update(task, completed=done))
    rows = sorted(zip(losses, (arm.label for arm in arms), strict=True))
    counted = f"events {world.events * WARM_UP:,.0f} to {used_events(world):,} of {flags.data or world.name}"
    head = [f"| arm | log loss of {counted}, seed {config.seed} | / least |", "| --- | --- | --- |"]
    return "\n".join(head + [f"| `{arm}` | {loss:.5f} | {loss / rows[0][0]:.4f} |" for loss, arm in rows])
