"""`make bench-peers`: others who serve the same model to the same client, each beside our routed query, one at a time.

    make bench-peers ARGS=--install      a virtual environment for each peer (see install.py); once
    make bench-peers                     measures those that are installed, and says why it skips the others

All peers rank with the code of our replica (ranking.py), with one replica and one thread, and are asked by the load
client of `make bench`. CPU seconds are those of all processes that a peer has. Each is set as its documentation advises
for throughput; of settings that it leaves open, those that cost least here:

ray_serve           Ray Serve 2.60, gRPC, through its own proxy: `max_ongoing_requests` 64 (5 unless said), access log
                    off, `@serve.batch` of up to 32 without a wait, no dashboard, no usage statistics. Its
                    RAY_SERVE_THROUGHPUT_OPTIMIZED=1 costs 5 to 10 % more here as long as the proxy is in use.
ray_serve_haproxy   The same in its high-throughput mode: RAY_SERVE_THROUGHPUT_OPTIMIZED=1, RAY_SERVE_ENABLE_HA_PROXY=1.
                    HAProxy takes the place of the proxy, and the replica speaks gRPC itself.
pytriton            NVIDIA Triton through pytriton 0.7, gRPC on tensors, dynamic batches of up to 32 with a delay of
                    1 ms, no metrics. No router: the client asks the server itself.
litserve            LitServe 0.2, HTTP and JSON: one worker, one HTTP server, `fast_queue` (ZeroMQ), batches of up to 32
                    without a wait, no access log, answers encoded by the worker. No router. `batch_timeout` 0.01 spares
                    15 % of the CPU or more at 32 in flight; at 4 it gives 300 answers/s in the place of 900.

Ports are free ones. Ray's gRPC listens on all addresses of the machine, whatever it is told, and so does HAProxy; the
others on 127.0.0.1.
"""
