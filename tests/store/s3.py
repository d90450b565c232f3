"""An S3 service on the loopback address, by moto: it can be stopped and come back, refuse, and hang up half-way."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterable
from typing import Any

import boto3
from moto.moto_server.werkzeug_app import DomainDispatcherApplication, create_backend_app
from werkzeug.serving import BaseWSGIServer, make_server

ENVIRONMENT = {
    "AWS_ACCESS_KEY_ID": "an-id",
    "AWS_SECRET_ACCESS_KEY": "a-s3cret",
    "AWS_DEFAULT_REGION": "us-east-1",
    "AWS_EC2_METADATA_DISABLED": "true",
}
BUCKET = "weights"
Answer = Callable[..., Iterable[bytes]]


class S3:
    """Objects stay over a stop and a start."""

    def __init__(self) -> None:
        self._app = DomainDispatcherApplication(create_backend_app)
        self._server: BaseWSGIServer | None = None
        self._thread: threading.Thread | None = None
        self.port = 0
        self.puts = 0
        """Objects that were put, whether or not it worked."""
        self.trouble: dict[int, Answer] = {}
        """Number of a put, from 0 -> how it is answered instead."""
        self.start()
        self.client = boto3.client("s3", endpoint_url=self.url, **CREDENTIALS)
        self.client.create_bucket(Bucket=BUCKET)

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    @property
    def environment(self) -> dict[str, str]:
        """By which its users find it."""
        return ENVIRONMENT | {"AWS_ENDPOINT_URL": self.url}

    def start(self) -> None:
        """On the port of before."""
        self._server = make_server("127.0.0.1", self.port, self._answer, threaded=True)
        self.port = self._server.server_port
        self._thread = threading.Thread(target=self._server.serve_forever, args=(0.05,))
        self._thread.start()

    def stop(self) -> None:
        """Nobody answers any more."""
        if self._server and self._thread:
            self._server.shutdown()
            self._thread.join()
            self._server.server_close()
            self._server = None

    def objects(self) -> list[str]:
        """The names of all that is there."""
        return [entry["Key"] for entry in self.client.list_objects_v2(Bucket=BUCKET).get("Contents", [])]

    def _answer(self, environ: dict[str, Any], start_response: Any) -> Iterable[bytes]:
        if environ["REQUEST_METHOD"] == "PUT" and environ["PATH_INFO"].count("/") > 1:
            self.puts += 1
            if trouble := self.trouble.get(self.puts - 1):
                return trouble(environ, start_response)
        return self._app(environ, start_response)  # type: ignore[no-any-return]


CREDENTIALS = {
    "aws_access_key_id": ENVIRONMENT["AWS_ACCESS_KEY_ID"],
    "aws_secret_access_key": ENVIRONMENT["AWS_SECRET_ACCESS_KEY"],
    "region_name": ENVIRONMENT["AWS_DEFAULT_REGION"],
}


def refusal(status: str, code: str) -> Answer:
    """An answer of the service's own."""

    def answer(environ: dict[str, Any], start_response: Any) -> Iterable[bytes]:
        environ["wsgi.input"].read(int(environ["CONTENT_LENGTH"]))
        start_response(status, [("Content-Type", "application/xml")])
        return [f"<Error><Code>{code}</Code><Message>a test said so</Message></Error>".encode()]

    return answer


def hang_up(environ: dict[str, Any], start_response: Any) -> Iterable[bytes]:
    """The line breaks in the middle of an upload."""
    environ["wsgi.input"].read(1)
    environ["werkzeug.socket"].close()
    raise ConnectionAbortedError("a test said so")
