"""The headline: how often users get other results for no reason, with accuracy beside it."""

from __future__ import annotations

from panels import Json, Query, arms, choice, dashboard, stat, timeseries
from training import AUC, CALIBRATION, LOG_LOSS

from simulator.measures.registry import MEASURES

SWAPS = {"pair": MEASURES["pair"]} | {name: measure for name, measure in MEASURES.items() if measure.swap}
OTHERS = {name: measure for name, measure in MEASURES.items() if not measure.swap}
GLOSSARY = " ".join(f"{measure.words}: {measure.about}" for measure in SWAPS.values())
CHOICE = "The measure is chosen at the top."
ONE_FLEET = "One fleet of duplicates: a difference between arms holds for this initialisation."
SAME = 'cause="duplicate"'
CHOSEN = 'measure="$measure"'

LEFT = ((0.8, "text"), (1.1, "red"))

INTRO = (
    "**The same recommender, taught the same clicks, and yet other results.** Each *arm* is one design, such as "
    "`relu` or `smelu:beta=0.1`, with several *duplicates* that learned the same events; only declared noise, such as "
    "the order of events, differs. For a sample of live queries a second duplicate is asked too: whatever differs is "
    "a **swap**.\n\n**Look for** an arm far below the first one (grey) in swaps, at a log loss that is no higher. "
    "Vertical lines: a new generation of models was published."
)
PANELS = [
    # three numbers: what changes, what a cure leaves of it, and its price
    stat(
        "How much changes for no reason? (last 10 minutes)",
        f"Swaps between two duplicates at the same generation: swapped / compared, over 10 minutes. {CHOICE} "
        f"Green below 5 %, red from 10 %, the budget that the alert on pairs comes with. {GLOSSARY}",
        "percentunit",
        arms(f"flicker:difference:10m{{{SAME},{CHOSEN}}}"),
        ("green", (0.05, "orange"), (0.1, "red")),
        (8, 5),
        1,
    ),
    stat(
        "How much of that does each cure leave?",
        "Swap ratio of an arm / that of the first arm, over 10 minutes, between duplicates. 100 %: no better than the "
        f"first arm. Below 80 % is a gain worth having. {ONE_FLEET}",
        "percentunit",
        arms(f"flicker:difference_to_first:10m{{{SAME},{CHOSEN}}}", first=1),
        ("green", *LEFT),
        (8, 5),
        0,
    ),
    stat(
        "At what price? Log loss, lower is better",
        LOG_LOSS,
        "none",
        arms("flicker_progressive_log_loss"),
        size=(8, 5),
        decimals=4,
    ),
    # what another duplicate, a refresh or a second query changes
    timeseries(
        "How often would another duplicate have answered differently?",
        "Swaps between two duplicates at the same generation, by arm: swapped / compared over the last minute, sums "
        f"of counters. 0 is perfect. {CHOICE}",
        "percentunit",
        [
            *arms(f"flicker:difference:1m{{{SAME},{CHOSEN}}}"),
            Query(f"flicker:swap_budget{{{CHOSEN}}}", "budget of the alert", "red", dashed=True),
        ],
        size=(16, 9),
    ),
    timeseries(
        "Is it paid for with accuracy? Log loss",
        LOG_LOSS + " The axis does not start at 0.",
        "none",
        arms("flicker_progressive_log_loss"),
        size=(8, 9),
        start=None,
    ),
    timeseries(
        "And the same duplicate, after a refresh?",
        "Swaps between a generation and the next of the same duplicate: part of it is learning, part is noise. "
        f"swapped / compared over the last minute. {CHOICE}",
        "percentunit",
        arms(f'flicker:difference:1m{{cause="refresh",{CHOSEN}}}'),
    ),
    timeseries(
        "How do the arms' swaps compare with the first arm's?",
        "Swap ratio of an arm / that of the first arm, over 10 minutes. Solid: between duplicates; dashed: over a "
        f"refresh. Below 100 % is better than the first arm. {ONE_FLEET}",
        "percentunit",
        arms(f"flicker:difference_to_first:10m{{{SAME},{CHOSEN}}}", first=1)
        + arms(f'flicker:difference_to_first:10m{{cause="refresh",{CHOSEN}}}', "{{arm}} (refresh)", 1, dashed=True),
        ("text", (1, "red")),
    ),
    timeseries(
        "What does a user see who asks twice?",
        "Simulated users ask the same again moments later. Solid: of the slots of their slates, the share whose item "
        "changed; dashed: of their slates, the share that changed in any slot, which is nearly always the case when a "
        "different duplicate answers. 0 is perfect.",
        "percentunit",
        arms("flicker:user_visible_slot_ratio:1m", "{{arm}} slots")
        + arms("flicker:user_visible_swap_ratio:1m", "{{arm}} any slot", dashed=True),
    ),
    # prediction difference, accuracy, and how sure all this is
    timeseries(
        "How far apart are two predictions? (PD)",
        "Between duplicates, over the last minute; dashed: all but the first of what follows. "
        + " ".join(f"{measure.words}: {measure.about}" for measure in OTHERS.values())
        + " 0 is perfect, and what a constant model has: look at the log loss too.",
        "none",
        [
            query
            for number, (name, measure) in enumerate(OTHERS.items())
            for query in arms(
                f'flicker:difference:1m{{{SAME},measure="{name}"}}', f"{{{{arm}}}} {measure.words}", dashed=number > 0
            )
        ],
    ),
    timeseries(
        "How does the arms' PD compare with the first arm's?",
        "PD of candidates of an arm / that of the first arm, between duplicates, over 10 minutes. Below 100 % is "
        f"better than the first arm. {ONE_FLEET}",
        "percentunit",
        arms(f'flicker:difference_to_first:10m{{{SAME},measure="pd_candidates"}}', first=1),
        ("text", (1, "red")),
    ),
    AUC,
    CALIBRATION,
    timeseries(
        "How many comparisons stand behind it?",
        "Pairs of duplicates' answers compared per second, by arm. The share of queries that is compared is a setting "
        "of the router (--shadow).",
        "suffix:/s",
        arms(f"flicker:comparisons:rate1m{{{SAME}}}"),
    ),
    stat(
        "Compared in 10 minutes: enough?",
        "Pairs of duplicates' answers compared in the last 10 minutes, by arm. Below 100 the ratios above are mostly "
        "chance, from 1,000 on they are steady.",
        "none",
        arms(f'sum by (arm) (increase(flicker_compared_total{{{SAME},measure="slate"}}[10m]))'),
        ("red", (100, "orange"), (1000, "green")),
        (8, 8),
        0,
    ),
]


def swaps() -> Json:
    """The headline."""
    return dashboard(
        "flicker-swaps",
        "Flicker: Swaps",
        "How often users get other results for no reason, by arm, with accuracy beside it.",
        INTRO,
        4,
        PANELS,
        [choice("measure", "Count as a swap", {name: measure.words for name, measure in SWAPS.items()})],
    )
