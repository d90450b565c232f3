"""Parts under a URL that fsspec knows: a folder that all machines see (file:///...), or an object store (s3://...).

    URL/RUN/STORE/part/GENERATION/NAME/SHA256     a part; / in its name is written -
    URL/RUN/STORE/shared/SHA256                   what generations have in common

STORE is drawn by lot and noted in the store's server: a run of the same name in another store, or after this one was
emptied, has a place of its own, and nobody removes what another announced. The server holds only what is announced. An
object store shows an object as a whole or not at all; elsewhere a part is written under another name beside it,
`.SHA256.WRITER`, and then renamed. Whoever announces a generation removes the older ones that are no longer kept, with
all that was left there half-way.

Endpoint and credentials reach fsspec and the service's library by their own environment variables, such as
FSSPEC_S3_ENDPOINT_URL, AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY: none of them passes through this code.
"""

from __future__ import annotations

import contextlib
import errno
import os
import uuid
from collections.abc import Iterable, Iterator
from typing import Any
from urllib.parse import quote

from simulator.errors import FlickerError, SettingError
from simulator.store.access import require_weights, without_password
from simulator.store.connection import Connection, one_line
from simulator.store.parts import Parts, StoredPart, concatenated, pieces
from simulator.store.protocol import StoreAway, StoreError, StoreRefuses

ATOMIC = frozenset({"s3", "s3a", "gs", "gcs", "az", "abfs", "abfss", "adl", "oss"})
"""Protocols of object stores, which show what was put as a whole or not at all, and rename by copying."""
READ = 1 << 20
"""Bytes that are read at once."""
S3 = {"connect_timeout": 5, "read_timeout": 20, "retries": {"max_attempts": 1}}
"""Seconds and tries after which S3 counts as away: who asked retries by itself, and must notice a signal."""
REFUSES = frozenset({errno.EBUSY, errno.EIO, errno.EREMOTEIO, errno.ENOSPC, errno.EDQUOT, errno.EROFS})
"""What is answered by a service that is there and does for now not do it: slow down, an error of its own, no room."""
FOR_GOOD = frozenset({errno.EINVAL, errno.ENOSYS, errno.EPERM, errno.EREMCHG, errno.ENAMETOOLONG, errno.EMSGSIZE})
"""What no second try changes: a bad name, another region."""
CREDENTIAL_ERRORS = ("Credential", "ProfileNotFound", "ParamValidation")
"""In the name of an error: credentials are missing or malformed."""


class ObjectParts(Parts):
    """Under one URL."""

    def __init__(self, url: str, run: str, server: Connection) -> None:
        """Asks nobody yet. Raises SettingError for a URL that cannot be one, FlickerError for a missing package."""
        self._server, self._key = server, server.key("weights")
        self.where = without_password(url)
        self._files, root = open_url(url)
        self._root = f"{root.rstrip('/')}/{quote(run, safe='')}"
        protocol = self._files.protocol
        kinds = {protocol} if isinstance(protocol, str) else set(protocol)
        self._atomic, self._local = bool(kinds & ATOMIC), "file" in kinds

    def put(self, name: str, data: bytes, *, stay: bool = False) -> None:
        """See Parts: all of it stays until it is forgotten."""
        drawn = uuid.uuid4().hex[:12]
        self._server.ask(lambda: self._server.client.set(self._key, drawn, nx=True))
        path = f"{self._place()}/{path_of(name)}"
        with self._in_our_words():
            if self._size(path) != len(data):
                self._write(path, data)

    def get(self, name: str) -> StoredPart | None:
        path = f"{self._place()}/{path_of(name)}"
        with self._in_our_words():
            try:
                size = self._size(path)
                return None if size is None else concatenated(self._read(path, size))
            except FileNotFoundError:  # forgotten meanwhile
                return None

    def keys(self, names: Iterable[str]) -> list[str]:
        """See Parts: none of them is one."""
        return []

    def forget(self, generation: int) -> None:
        place = self._place()
        with self._in_our_words(), contextlib.suppress(FileNotFoundError):  # another trainer does the same
            for folder in self._files.ls(f"{place}/part", detail=False):
                number = folder.rstrip("/").rpartition("/")[2]
                if number.isdecimal() and int(number) < generation:
                    self._files.rm(folder, recursive=True)

    def _place(self) -> str:
        """Where all of it lies; where nobody has stored anything yet, in a place that is not there."""
        store = self._server.ask(lambda: self._server.client.get(self._key)) or b"nowhere"
        return f"{self._root}/{store.decode()}"

    def _size(self, path: str) -> int | None:
        try:
            return int(self._files.info(path)["size"])
        except FileNotFoundError:
            return None

    def _read(self, path: str, size: int) -> Iterator[bytes]:
        for start in range(0, size, READ):
            yield self._files.cat_file(path, start=start, end=min(start + READ, size))

    def _write(self, path: str, data: bytes) -> None:
        if self._atomic:
            self._files.pipe_file(path, data)
            return
        folder, _, name = path.rpartition("/")
        unfinished = f"{folder}/.{name}.{uuid.uuid4().hex}"
        self._files.makedirs(folder, exist_ok=True)
        with self._files.open(unfinished, "wb") as file:
            for piece in pieces(len(data)):
                file.write(data[piece])
            file.flush()
            if self._local:  # what is announced is there after a power cut, too
                os.fsync(file.fileno())
        self._files.mv(unfinished, path)

    @contextlib.contextmanager
    def _in_our_words(self) -> Iterator[None]:
        """What goes wrong inside as one of the store's three kinds of errors."""
        try:
            yield
        except StoreError:
            raise
        except Exception as problem:  # each service's library has errors of its own
            raise self._translated(problem) from problem

    def _translated(self, problem: Exception) -> StoreError:
        number, message = getattr(problem, "errno", None), one_line(problem)
        if isinstance(problem, FileNotFoundError):
            return StoreError(f"weights = {self.where}: {message}: make the bucket or folder, or name another")
        if isinstance(problem, PermissionError) or any(name in type(problem).__name__ for name in CREDENTIAL_ERRORS):
            hint = "its credentials (AWS_ACCESS_KEY_ID ...) must have leave to read, list, write and delete there"
            return StoreError(f"weights = {self.where}: {message}: {hint}")
        if isinstance(problem, (NotADirectoryError, FileExistsError, IsADirectoryError)) or number in FOR_GOOD:
            return StoreError(f"weights = {self.where}: {message}: name another place")
        if number in REFUSES:
            return StoreRefuses(f"the weights at {self.where} are refused for now: {message}")
        return StoreAway(f"the weights at {self.where} are away: {message}")


def path_of(name: str) -> str:
    """`part:7:duplicate/0:SHA` -> `part/7/duplicate-0/SHA`."""
    return name.replace("/", "-").replace(":", "/")


def open_url(url: str) -> tuple[Any, str]:
    """fsspec's file system of a URL, and the path in it. Raises SettingError, FlickerError."""
    require_weights(url)
    protocol = url.partition("://")[0]
    # a listing that is remembered would hide what others have put there
    options: dict[str, Any] = {"use_listings_cache": False, "skip_instance_cache": True}
    if protocol in ("s3", "s3a"):
        options["config_kwargs"] = S3
    try:
        import fsspec

        files, root = fsspec.core.url_to_fs(url, **options)
    except ImportError as problem:
        ours = protocol in ("s3", "s3a") or problem.name == "fsspec"
        hint = ": pip install 'flicker-recsys[objects]'" if ours else ""  # of others its message names the package
        raise FlickerError(f"weights = {without_password(url)}: {one_line(problem)}{hint}") from None
    except ValueError as problem:
        raise SettingError("weights", without_password(url), f"{one_line(problem)}: see fsspec's protocols") from None
    if protocol in ("s3", "s3a"):
        files.retries = 1  # of its own, beside those of the library below it
    return files, str(root)
