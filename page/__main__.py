"""`python -m page`, and `flicker show`, which is the same without a router."""

from __future__ import annotations

from importlib.util import find_spec

from simulator.errors import FlickerError
from simulator.process import end_on_sigterm, run


def main(arguments: list[str]) -> None:
    """Serve the page. Raises FlickerError for what the user can mend."""
    end_on_sigterm()
    if find_spec("nicegui") is None:
        raise FlickerError("nicegui = not installed: the page needs it: pip install 'flicker-recsys[live,page]'")
    from page.main import main as serve

    serve(arguments)


if __name__ == "__main__":
    run("page", main)
