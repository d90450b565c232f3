"""What a query costs: router and replica as they run, beside their floor, the naive way, and whoever else serves.

All *contenders* answer the same queries with the same model; one load client asks them in turn, a slice of time each, A
B A B ..., while the others stand idle. CPU seconds are the operating system's, of every process of a contender; the
client is one process of its own and does not count.

A peer takes part in `make bench-peers` (run_peers.py) with a module `peers/NAME.py` that holds

    def contender(sized: str, folder: Path) -> Contender

It raises ImportError, where it is called or imported, if the package it needs is not installed. See `contender.py` for
the few things that a Contender has; `contender.Served` is one for a server that is a Python script. For the server:

    from query_path.model import build
    made = build(sized)                          # sized: "full" or "quick", given by the bench
    made.engine                                  # Engine: one arm, as many duplicates as replicas; the first serves
    made.candidates(user) -> items [N]           # what a query without candidates ranks
    made.features(user, context, items) -> [N, S]   # table rows: the model's input
    plain.plain_copies(made.engine)[0]           # the same model as a PyTorch module: features [N, S] -> log-odds [N]

A query is the bytes of a flicker.v1.RecommendRequest with `query_id`, `user`, `context` and `k`; an answer those of a
RecommendResponse with `query_id` and the `slate`. The bench asks each contender a few queries first and stops where a
slate is not that of the plain model. Contenders that do not speak gRPC name a `connect` of their own (see callers.py).
"""
