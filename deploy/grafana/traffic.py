"""From queries to answers, and what the processes need for it."""

from __future__ import annotations

from panels import Json, Query, arms, dashboard, mean_and_quantile, stat, timeseries

PER_SECOND = "suffix:/s"
FAILED = 'grpc_server_handled_total{job="router",grpc_method="Recommend",grpc_code!="OK"}'

INTRO = (
    "**Are queries answered, quickly, by every replica?** Simulated users send queries to the router, which passes "
    "each to a random healthy replica and asks a second one for a sample, off the user's path. Green is as it should "
    "be. Vertical lines: a new generation was published."
)
PANELS = [
    # numbers of this moment
    stat(
        "Queries",
        "Queries that the router finished per second, over the last minute.",
        PER_SECOND,
        [Query("sum(flicker:queries:rate1m)", "queries")],
        decimals=1,
    ),
    stat(
        "Failed, says the router",
        "Queries without an answer that were not the caller's own fault / all queries, over the last minute.",
        "percentunit",
        [Query("flicker:query_failure_ratio:1m", "failed")],
        ("green", (1e-9, "orange"), (0.01, "red")),
        decimals=2,
    ),
    stat(
        "Failed, say the users",
        "Calls of simulated users that failed / all their calls, over the last minute.",
        "percentunit",
        [Query("flicker:load_failure_ratio:1m", "failed")],
        ("green", (1e-9, "orange"), (0.01, "red")),
        decimals=2,
    ),
    stat(
        "p99 of the slowest arm",
        "Time from query to answer at the router that 99 % of the last minute's queries stayed below. Below 50 ms is "
        "good.",
        "s",
        [Query("max(flicker:query_seconds:p99_1m)", "p99")],
        ("green", (0.05, "orange"), (0.25, "red")),
    ),
    stat(
        "Replicas healthy",
        "Replicas that the router may send queries to.",
        "none",
        [Query("flicker:replicas_healthy", "healthy")],
        ("red", (1, "orange"), (2, "green")),
    ),
    stat(
        "Age of the models",
        "Time since the newest generation was published. It rises while the trainer is away or has nothing to learn.",
        "s",
        [Query("flicker:snapshot_age_seconds", "age")],
        ("green", (60, "orange"), (300, "red")),
        decimals=0,
    ),
    # what users get, and how soon
    timeseries(
        "Does traffic get what it asks for?",
        "Queries per second: that users wanted to send (offered), that were answered to users (achieved), and that "
        "the router finished. The lines should lie together.",
        PER_SECOND,
        [
            Query("sum(flicker_load_offered_rate)", "offered"),
            Query("sum(flicker_load_achieved_rate)", "achieved"),
            Query("sum(flicker:queries:rate1m)", "finished by the router"),
        ],
    ),
    timeseries(
        "Does every replica take its share?",
        "Users' queries per second that the router sent to each replica, over the last minute. The choice is random: "
        "the lines should lie together. A replica that is new or gone shows as a line that begins or ends.",
        PER_SECOND,
        [Query("sum by (replica) (rate(flicker_router_replica_queries_total[1m]))", "{{replica}}")],
    ),
    timeseries(
        "How long does an answer take? By arm",
        "From query to answer at the router, over the last minute. Solid: half of the queries are faster (p50); "
        "dashed: 99 % are (p99), as far as the histogram's buckets can tell.",
        "s",
        arms("flicker:query_seconds:p50_1m", "{{arm}} p50")
        + arms("flicker:query_seconds:p99_1m", "{{arm}} p99", dashed=True),
    ),
    timeseries(
        "How long does it take for the user?",
        "Time to answer a query as simulated users measure it, network included, over the last seconds: the quantiles "
        "0.5 and 0.99.",
        "s",
        [Query("max by (quantile) (flicker_load_latency_seconds)", "quantile {{quantile}}")],
    ),
    # what users do not get
    timeseries(
        "What fails?",
        "Queries per second that did not end well, by gRPC code, over the last minute, and shown items whose report "
        "was refused. 0 is good. InvalidArgument is the caller's mistake, ResourceExhausted a system that is too "
        "small.",
        PER_SECOND,
        [
            Query(f"sum(rate({FAILED}[1m]))", "all queries that failed"),
            Query(f"sum by (grpc_code) (rate({FAILED}[1m])) > 0", "{{grpc_code}}"),
            Query("sum(rate(flicker_feedback_refused_total[1m]))", "feedback refused", dashed=True),
        ],
    ),
    timeseries(
        "Is anything refused or tried again?",
        "Queries per second over the last minute: refused at the door of the router or a replica because there was too "
        "much of something (in_flight and delay: queries; the others: what one client sends or does not read), refused "
        "because a replica's queue was full (shed), dropped by a replica because nobody waited any more (expired), "
        "sent to a second replica because the first was lost (retried). 0 is good.",
        PER_SECOND,
        [
            Query("sum by (reason) (rate(flicker_rpc_refused_total[1m]))", "refused: {{reason}}"),
            Query("sum(rate(flicker_shed_total[1m]))", "shed by replicas"),
            Query("sum(rate(flicker_expired_total[1m]))", "expired"),
            Query("sum(rate(flicker_router_retried_total[1m]))", "retried"),
        ],
    ),
    # sharing of calls, and ranking
    timeseries(
        "How many queries are on their way?",
        "Queries that the router took and has not answered yet, and those that wait in replicas' queues, at each "
        "scrape. The router refuses more than --in-flight.",
        "short",
        [
            Query('sum(flicker_rpc_in_flight{job="router"})', "in flight"),
            Query("sum(flicker_queue_length)", "wait at replicas"),
        ],
    ),
    timeseries(
        "How many queries share the work?",
        "Mean over the last minute: queries that the router sends in one call to a replica, by lane (users' and "
        "comparisons'), and queries that a replica ranks in one pass. 1 at light load; more saves CPU.",
        "none",
        [
            Query(
                "sum by (lane) (rate(flicker_router_coalesced_queries_sum[1m])) / sum by (lane) "
                "(rate(flicker_router_coalesced_queries_count[1m]))",
                "per call, {{lane}}",
            ),
            Query(
                "sum(rate(flicker_batch_size_sum[1m])) / sum(rate(flicker_batch_size_count[1m]))",
                "per pass",
                dashed=True,
            ),
        ],
    ),
    timeseries(
        "How long does a replica rank?",
        "One pass of ranking, over the last minute and all replicas: mean, and the 99th percentile as far as the "
        "histogram's buckets can tell.",
        "s",
        mean_and_quantile("flicker_rank_seconds", 0.99, "1m"),
    ),
    # who serves, and what
    timeseries(
        "Are all replicas there?",
        "Replicas that the router may send queries to, and how many of the expected ones are missing.",
        "none",
        [Query("flicker:replicas_healthy", "healthy"), Query("flicker:replicas_missing", "missing")],
    ),
    timeseries(
        "Do they serve the same generation?",
        "The newest generation published - the oldest one served. 1 for a moment at a refresh is normal; more, or for "
        "long, is not: users see drift as churn.",
        "none",
        [Query("flicker:generations_apart", "generations apart")],
        ("text", (2, "red")),
    ),
    timeseries(
        "How old is what is served?",
        "Seconds since the generation that a replica serves was published; a saw-tooth with a tooth per refresh.",
        "s",
        [Query('flicker_snapshot_age_seconds{job="replica"} >= 0', "{{instance}}")],
    ),
    # comparisons and feedback, off the users' path
    timeseries(
        "Do the comparisons keep up?",
        "Sampled queries that wait to be compared, off the user's path. The router, or the proxy of `flicker shadow`, "
        "drops further ones when its backlog is full. Near 0 is good.",
        "short",
        [Query("sum(flicker_shadow_backlog)", "backlog")],
    ),
    timeseries(
        "Are comparisons lost?",
        "Per second over the last minute: sampled queries dropped because the backlog was full, and comparisons "
        "without an answer of both sides, by cause and gRPC code. 0 is good: ratios stay right, with less behind "
        "them. FAILED_PRECONDITION: there was no earlier generation yet, or a refresh came before the comparison. In "
        "lower case, of `flicker shadow`: what is wrong with an answer.",
        PER_SECOND,
        [
            Query("flicker:shadow_dropped:rate1m", "dropped"),
            Query("sum by (cause, code) (rate(flicker_comparisons_failed_total[1m]))", "{{cause}} {{code}}"),
        ],
    ),
    timeseries(
        "Does feedback reach the log?",
        "Shown items that users reported per second, by whether they were clicked, over the last minute.",
        PER_SECOND,
        [Query("sum by (clicked) (rate(flicker_feedback_events_total[1m]))", "clicked: {{clicked}}")],
    ),
    # what it takes
    timeseries(
        "How much memory do they take?",
        "Resident memory of all processes of a kind. Replicas and the trainer hold PyTorch, about 200 MB each.",
        "bytes",
        [Query("flicker:memory_bytes", "{{job}}")],
    ),
    timeseries(
        "How much CPU do they take?",
        "CPU cores in use by all processes of a kind, over the last minute.",
        "suffix:cores",
        [Query("flicker:cpu_cores:1m", "{{job}}")],
    ),
    timeseries(
        "Is the store there?",
        "1 while the router can reach the store, and reports of feedback that wait for it in a spool. Serving goes on "
        "without the store; feedback is refused where there is no spool, or it is full.",
        "short",
        [
            Query("min(flicker_router_store_up)", "store up"),
            Query("sum(flicker_feedback_buffered)", "feedback that waits", dashed=True),
        ],
    ),
]


def serving() -> Json:
    """From queries to answers, and what the processes need for it."""
    return dashboard(
        "flicker-serving",
        "Flicker: Serving and traffic",
        "Queries, replicas, comparisons and what they cost.",
        INTRO,
        3,
        PANELS,
    )
