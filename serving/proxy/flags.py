"""The flags of `flicker shadow`, and how the model servers that they name are reached.

What says where things are has an environment variable too.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import grpc

from serving.proxy.tensors import Scale
from simulator.config import require
from simulator.flags import Listening, Secured, choice_from_env, file_from_env, from_env, require_address
from simulator.security.channels import NAME, open_bare, require_name
from simulator.security.credentials import Credentials


@dataclass(frozen=True)
class ShadowFlags(Listening):
    """Stand in front of a model server, and show live how much the answers of a second one differ.

    flicker shadow --first triton:8001
        A/A: the same model is asked twice. What differs is the server's own doing: batches, threads, devices.

    flicker shadow --first triton:8001 --second-version 3 --scores output_0 --items input_1
        Every answer is the server's own; a tenth of the requests also goes to version 3 of the same model.

    flicker shadow --first old:8001 --second new:8001 --arm ranker --cause refresh --keep shadowed
        Two servers. Then, or meanwhile: flicker compare shadowed/first shadowed/second

    Speaks the Open Inference Protocol v2 by gRPC: Triton, KServe, MLServer, Ray Serve. Bytes pass as they are. A user's
    answer is that of the first server, whatever the second one does. See docs/shadow.md.
    """

    first: str = from_env("FLICKER_FIRST", "")
    """host:port of the server that users are answered by (default: FLICKER_FIRST)."""
    second: str = from_env("FLICKER_SECOND", "")
    """host:port of the server that is asked beside it (default: FLICKER_SECOND, else the first one again)."""
    second_model: str = from_env("FLICKER_SECOND_MODEL", "")
    """Model that it is asked for (default: FLICKER_SECOND_MODEL, else that of the request)."""
    second_version: str = from_env("FLICKER_SECOND_VERSION", "")
    """Version of it (default: FLICKER_SECOND_VERSION, else that of the request, or the server's choice of another
    model)."""
    only_model: str = from_env("FLICKER_ONLY_MODEL", "")
    """Ask twice for this model alone (default: FLICKER_ONLY_MODEL, else for all): name it where others keep state."""
    sample: float = from_env("FLICKER_SAMPLE", 0.1)
    """Share of the requests that are asked twice, 0 (none) to 1, by a hash of their bytes (default: FLICKER_SAMPLE)."""
    seed: int = from_env("FLICKER_SEED", 0)
    """Seed of that hash, 0 or more (default: FLICKER_SEED)."""
    scores: str = from_env("FLICKER_SCORES", "")
    """Output with the scores, of shape [N] for one query, [B, N] or [B, N, 1] for B; higher is better (default:
    FLICKER_SCORES, else the only output)."""
    scores_are: Scale = choice_from_env("FLICKER_SCORES_ARE", "scores", Scale)
    """What they are: logits (log-odds) and probabilities have a prediction difference too (default: FLICKER_SCORES_ARE,
    else scores)."""
    items: str = from_env("FLICKER_ITEMS", "")
    """Input with the ids of the items that are scored, as many as there are scores, or N that all B queries share
    (default: FLICKER_ITEMS, else their positions)."""
    query_id_from: str = "request.id"
    """Where a query's own id stands: request.id, or parameters.NAME. It is kept beside the scores."""
    k: int = 10
    """Length of a slate, at least 1: the best k of the N items."""
    arm: str = from_env("FLICKER_ARM", "")
    """Name of what is compared, on dashboards (default: FLICKER_ARM, else the model of the request)."""
    cause: Literal["duplicate", "refresh"] = "duplicate"
    """Why the two differ. duplicate: another training, server or device; refresh: a newer version."""
    keep: Path | None = None
    """Folder for the scores of both sides, which `flicker compare KEEP/first KEEP/second` reads; none by default."""
    keep_bytes: int = 2**30
    """Bytes in it at most, at least 1,048,576; then nothing more is kept. The last part may be beyond it."""
    second_in_flight: int = 32
    """Calls of the second server at once, 1 to 1,024; what waits for them is bounded too, and dropped beyond."""
    second_deadline: float = 5.0
    """Seconds for its answer, more than 0."""
    server_name: str = from_env("FLICKER_SERVER_NAME", "")
    """Name that both servers' certificates bear (default: FLICKER_SERVER_NAME, else the address by which each is
    called)."""
    servers_ca: Path | None = file_from_env("FLICKER_SERVERS_CA")
    """PEM file of the authorities whose certificates both servers show: they are called by TLS then, and shown this
    proxy's own certificate (default: FLICKER_SERVERS_CA)."""
    port: int = from_env("FLICKER_PORT", 0)
    """Port for gRPC, 0 for any free one, which is printed (default: FLICKER_PORT)."""
    window: float = 60.0
    """Seconds that the live gauges look back, more than 0."""
    in_flight: int = 1_024
    """Requests that wait for an answer at most, 1 to 65,536; more are refused at once with RESOURCE_EXHAUSTED."""
    deadline: float = 60.0
    """Seconds for an answer where the caller allows more or says nothing, more than 0; streams have none."""
    streams: int = 64
    """ModelStreamInfer calls at once, 1 to 1,024; they pass and are never asked twice. Each takes two threads."""
    message_bytes: int = 64 << 20
    """Of one request or answer at most, 1,024 to 1,073,741,824."""

    def __post_init__(self) -> None:
        super().__post_init__()
        require(self.first != "", "first", "nothing", "name the model server with --first HOST:PORT")
        for name, address in (("first", self.first), ("second", self.second or self.first)):
            require_address(name, address)
        require_name("server_name", self.server_name)
        require(0 <= self.sample <= 1, "sample", self.sample, "from 0 to 1")
        require(0 <= self.seed < 1 << 32, "seed", self.seed, "from 0 to 4294967295")
        named = re.fullmatch(r"request\.id|parameters\..+", self.query_id_from)
        require(named is not None, "query_id_from", self.query_id_from, "request.id, or parameters.NAME")
        require(self.k >= 1, "k", self.k, "at least 1 item")
        require(self.keep_bytes >= 1 << 20, "keep_bytes", self.keep_bytes, "at least 1,048,576 bytes")
        require(1 <= self.second_in_flight <= 1_024, "second_in_flight", self.second_in_flight, "from 1 to 1,024 calls")
        require(0 < self.second_deadline <= 3_600, "second_deadline", self.second_deadline, "0 to 3,600 seconds")
        require(0 <= self.port < 65_536, "port", self.port, "from 0 to 65535")
        require(0 < self.window < float("inf"), "window", self.window, "more than 0 seconds")
        require(1 <= self.in_flight <= 65_536, "in_flight", self.in_flight, "from 1 to 65,536 requests")
        require(0 < self.deadline <= 86_400, "deadline", self.deadline, "more than 0 seconds, at most 86,400")
        require(1 <= self.streams <= 1_024, "streams", self.streams, "from 1 to 1,024 calls")
        size = self.message_bytes
        require(1_024 <= size <= 1 << 30, "message_bytes", size, "from 1,024 bytes to 1 GiB")

    def connect(self, address: str, answer_bytes: int) -> grpc.Channel:
        """A connection to a model server, shared with no other channel; its answers have so many bytes at most.

        The tokens that users send pass, and none of ours is sent.
        """
        options = (
            ("grpc.max_receive_message_length", answer_bytes),
            ("grpc.use_local_subchannel_pool", 1),
            ("grpc.initial_reconnect_backoff_ms", 100),
            ("grpc.min_reconnect_backoff_ms", 100),
            ("grpc.max_reconnect_backoff_ms", 1_000),  # one that is back is asked again within a second
            ("grpc.dns_min_time_between_resolutions_ms", 1_000),
            ("grpc.enable_http_proxy", 0),
            *(((NAME, self.server_name),) if self.server_name else ()),
        )
        own = self.security if self.servers_ca else Secured(None, None, None, None)
        return open_bare(Credentials(own.tls_cert, own.tls_key, self.servers_ca), address, options)
