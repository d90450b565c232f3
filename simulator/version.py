"""Which Flicker this is. On the package index `flicker` is somebody else's: the distribution has a name of its own."""

from __future__ import annotations

from importlib.metadata import PackageNotFoundError, version

DISTRIBUTION = "flicker-recsys"


def flicker_version() -> str:
    """The installed version; `unknown` where the source is run without being installed."""
    try:
        return version(DISTRIBUTION)
    except PackageNotFoundError:
        return "unknown"
