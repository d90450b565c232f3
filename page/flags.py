"""The flags of the page."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated

from simulator.config import require
from simulator.flags import Flat, Secured, file_from_env, require_address


@dataclass(frozen=True)
class PageFlags:
    """Show a running system, and finished results, in a browser.

    FLICKER_PAGE_TOKEN of the environment, or a file, is what the page asks everybody for; without one it serves this
    machine alone.
    """

    router: str = ""
    """host:port of the router, of several with commas between. Without one nobody can be asked: with --metrics the page
    shows what is measured, as of flicker shadow, with --runs finished results."""
    metrics: tuple[str, ...] = ()
    """Metrics pages of trainer, routers and load, such as http://127.0.0.1:9100/metrics; which is whose is seen by what
    is on it. A name of several addresses stands for all of them."""
    runs: tuple[Path, ...] = ()
    """Finished results: folders that flicker run, up, compare or sweep left, or folders of such folders."""
    host: str = "127.0.0.1"
    """Address to listen at; one that other machines reach needs a token."""
    port: int = 0
    """Port, 0 for any free one; the address is printed."""
    controls: Path | None = None
    """Socket at which `flicker up` takes orders; without one the page only shows."""
    page_token_file: Path | None = file_from_env("FLICKER_PAGE_TOKEN_FILE")
    """File of tokens that open the page, one a line, where FLICKER_PAGE_TOKEN says none; read again when it changes
    (default: FLICKER_PAGE_TOKEN_FILE). With those of --token-file the router is asked."""
    security: Annotated[Secured, Flat] = field(default_factory=Secured)

    def __post_init__(self) -> None:
        for address in filter(None, self.router.split(",")):
            require_address("router", address)
        scheme = "https" if self.security.tls_ca else "http"
        hint = f"an address such as {scheme}://HOST:PORT/metrics: https with --tls-ca or FLICKER_TLS_CA, http without"
        for url in self.metrics:
            require(url.startswith(f"{scheme}://"), "metrics", url, hint)
        for path in self.runs:
            require(path.exists(), "runs", path, "nothing there: name a folder of results")
        has_source = bool(self.router or self.metrics or self.runs)
        require(has_source, "router", "none", "name one, or --metrics, or results with --runs")
        require(0 <= self.port < 65_536, "port", self.port, "from 0 to 65535")
