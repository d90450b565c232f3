"""Throw-away authorities, certificates and secrets, as files."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path

import trustme

from simulator.security.credentials import Credentials

TOKEN, OTHER_TOKEN = "t0ken-of-the-users-1", "t0ken-of-the-users-2"
LOCAL = "localhost", "127.0.0.1"


@dataclass
class Authority:
    """Signs certificates; its own and theirs lie in a folder."""

    folder: Path
    made: trustme.CA = field(default_factory=trustme.CA)

    def __post_init__(self) -> None:
        self.folder.mkdir(parents=True, exist_ok=True)
        self.made.cert_pem.write_to_path(self.ca)

    @property
    def ca(self) -> Path:
        """Its own certificate."""
        return self.folder / "ca.crt"

    def issue(self, name: str, *names: str) -> dict[str, Path]:
        """A certificate for these names (LOCAL unless given), and its key; again under an old name replaces them."""
        cert, key = self.folder / f"{name}.crt", self.folder / f"{name}.key"
        issued = self.made.issue_cert(*(names or LOCAL))
        issued.private_key_pem.write_to_path(key)
        cert.write_bytes(b"".join(blob.bytes() for blob in issued.cert_chain_pems))
        return {"tls_cert": cert, "tls_key": key}

    def member(self, name: str, *names: str) -> Credentials:
        """Of a process that asks for certificates of this authority, and shows one."""
        return Credentials(**self.issue(name, *names), tls_ca=self.ca)

    def client(self, token: Path | None = None) -> Credentials:
        """Of somebody who has no certificate."""
        return Credentials(tls_ca=self.ca, token_file=token)


def secret(path: Path, *secrets: str) -> Path:
    """A file of secrets."""
    path.write_text("# one a line\n" + "".join(f"{line}\n" for line in secrets))
    return path
