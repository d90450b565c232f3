"""From events to published generations, and how good their predictions are."""

from __future__ import annotations

from panels import Json, Query, arms, dashboard, mean_and_quantile, stat, timeseries

LOG_LOSS = (
    "Mean of -log of the probability given to what happened, in nats, over the last generation's events, each "
    "predicted before it was learned; mean over duplicates. Lower is better. A constant model never swaps anything: a "
    "cure counts only if this does not rise."
)
AUC = timeseries(
    "Who tells clicks apart better? AUC",
    "Probability that a clicked event is scored above one that was not, over the last generation's events, each "
    "predicted before it was learned; mean over duplicates. Higher is better, 0.5 is chance. The axis does not start "
    "at 0.",
    "none",
    arms("flicker_progressive_auc"),
    start=None,
)
CALIBRATION = timeseries(
    "Are the probabilities right? Calibration",
    "Mean prediction / mean label over the last generation's events, each predicted before it was learned; mean over "
    "duplicates. 1 is right, above it too many clicks are predicted. The axis does not start at 0.",
    "none",
    arms("flicker_calibration"),
    ("text", (1, "green")),
    start=None,
)
INTRO = (
    "**Is the trainer healthy, and are the models any good?** The trainer reads the log of clicks; every duplicate of "
    "every arm scores each event first and then learns from it. Every so many events it cuts a *generation* and "
    "publishes it to the replicas (vertical lines). Waiting events and lag should stay near 0."
)
PANELS = [
    # numbers of this moment
    stat(
        "Generation",
        "The newest generation that was published; -1 before the first.",
        "none",
        [Query('max(flicker_generation{job="trainer"})', "generation")],
        ("red", (0, "text")),
    ),
    stat(
        "Learned",
        "Events of the log learned per second, every one by every duplicate of every arm; over the last minute.",
        "suffix:events/s",
        [Query("flicker:events_learned:rate1m", "learned")],
        decimals=0,
    ),
    stat(
        "Waiting",
        "Events in the log that are not learned yet. Up to one shuffle window always waits.",
        "short",
        [Query("max(flicker_events_waiting)", "waiting")],
    ),
    stat(
        "Lag",
        "Time to learn what waits, at the pace of the last minute. Below 10 s is good, a minute is too much.",
        "s",
        [Query("max(flicker:trainer_lag_seconds)", "lag")],
        ("green", (10, "orange"), (60, "red")),
        decimals=1,
    ),
    stat(
        "Store errors in 10 min",
        "Attempts to reach the store that failed in the last 10 minutes. The trainer tries again; 0 is good.",
        "short",
        [Query("sum(increase(flicker_store_errors_total[10m]))", "errors")],
        ("green", (1, "red")),
        decimals=0,
    ),
    stat(
        "World ended",
        "1 once every event of the world is fed: from then on the models stand still, and so do the generations.",
        "none",
        [Query("max(flicker_world_ended)", "ended")],
        ("text", (1, "orange")),
    ),
    # how fast events become generations
    timeseries(
        "Does the trainer keep up with the world?",
        "Events per second over the last minute: appended to the log by the world's feeder, and learned. The lines "
        "should lie together. Clicks of live users are learned too and not in the first line.",
        "suffix:/s",
        [
            Query("sum(rate(flicker_feeder_events_total[1m]))", "fed by the world"),
            Query("flicker:events_learned:rate1m", "learned"),
        ],
    ),
    timeseries(
        "How many events wait?",
        "Events in the log that are not learned yet: a saw-tooth between 0 and a shuffle window is normal, a steady "
        "climb means that the trainer is too slow.",
        "short",
        [Query("sum(flicker_events_waiting)", "waiting")],
    ),
    timeseries(
        "How old is what waits?",
        "Time to learn what waits, at the pace of the last minute. Above a minute, models answer with old tastes.",
        "s",
        [Query("max(flicker:trainer_lag_seconds)", "lag")],
        ("text", (60, "red")),
    ),
    timeseries(
        "Which generation is published, which is served?",
        "The trainer's newest generation and the one of every replica: replicas follow within a second or two.",
        "none",
        [
            Query('max(flicker_generation{job="trainer"})', "published"),
            Query('flicker_generation{job="replica"}', "{{instance}}", dashed=True),
        ],
        start=None,
    ),
    timeseries(
        "How long does a chunk take to learn?",
        "Seconds to score and learn one shuffle window with every duplicate of every arm, over 5 minutes: mean, and "
        "the 90th percentile as far as the histogram's buckets can tell.",
        "s",
        mean_and_quantile("flicker_learn_seconds", 0.9),
    ),
    timeseries(
        "How long does a generation take to publish?",
        "Seconds to make and publish the parts of one generation, over 5 minutes: mean, and the 90th percentile as "
        "far as the histogram's buckets can tell.",
        "s",
        mean_and_quantile("flicker_publish_seconds", 0.9),
    ),
    # what the models know
    timeseries("Do the models learn? Log loss", LOG_LOSS, "none", arms("flicker_progressive_log_loss"), start=None),
    AUC,
    CALIBRATION,
    # the world before it, the replicas behind it
    timeseries(
        "Do feeder and trainers wait?",
        "Share of time over the last minute: of the feeder, because the log was full or the store away (100 % means "
        "that training sets the pace); of each of several trainers, for the others at the end of a generation (the "
        "slowest waits for nobody).",
        "percentunit",
        [
            Query("sum(rate(flicker_feeder_paused_seconds_total[1m]))", "feeder"),
            Query("rate(flicker_shards_wait_seconds_total[1m]) > 0", "trainer {{instance}}", dashed=True),
        ],
    ),
    timeseries(
        "How long does a replica take to load?",
        "Seconds to fetch, verify and prepare a generation in the background, over 5 minutes and all replicas.",
        "s",
        mean_and_quantile("flicker_load_seconds", 0.9),
    ),
    timeseries(
        "Was a snapshot refused?",
        "Generations that a replica refused in the last minute, by reason (damaged, of another shape). The old one "
        "stays in service. 0 is good.",
        "short",
        [
            Query("sum(increase(flicker_snapshots_refused_total[1m])) or vector(0)", "refused"),
            Query("sum by (reason) (increase(flicker_snapshots_refused_total[1m]))", "{{reason}}", dashed=True),
        ],
        ("text", (1, "red")),
    ),
]


def training() -> Json:
    """From events to published generations."""
    return dashboard(
        "flicker-training",
        "Flicker: Training",
        "What the trainer learns, how fast, and how good it is.",
        INTRO,
        3,
        PANELS,
    )
