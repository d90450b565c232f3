"""The dashboards: `python deploy/grafana/generate.py` writes them to dashboards/; with --check it only compares.

panels.py    what a dashboard is made of; an arm's colour; where panels stand
swaps.py training.py traffic.py      the dashboards, a call per panel
"""

from __future__ import annotations

import argparse
import json
import sys
from pathlib import Path

from swaps import swaps
from traffic import serving
from training import training

FOLDER = Path(__file__).parent / "dashboards"


def main() -> None:
    """Write, or compare; exit code 1 where they differ."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--check", action="store_true", help="write nothing; exit with 1 where a file would change")
    check = parser.parse_args().check
    for name, made in {"swaps": swaps(), "training": training(), "serving": serving()}.items():
        file, content = FOLDER / f"{name}.json", json.dumps(made, indent=2, ensure_ascii=False) + "\n"
        if check and (not file.is_file() or file.read_text() != content):
            sys.exit(f"{file}: not what generate.py makes: run python deploy/grafana/generate.py")
        if not check:
            file.write_text(content)


if __name__ == "__main__":
    main()
