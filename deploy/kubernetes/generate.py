"""Rules and alerts as a PrometheusRule: `python deploy/kubernetes/generate.py` writes monitoring/rules.yaml from
deploy/prometheus/rules.yml and alerts.yml, which Compose reads as they are; with --check it only compares."""

from __future__ import annotations

import argparse
import sys
from pathlib import Path
from typing import Any

import yaml

HERE = Path(__file__).parent
SOURCES = "rules.yml", "alerts.yml"
FILE = HERE / "monitoring" / "rules.yaml"
HEAD = """# yamllint disable-file
# Written by deploy/kubernetes/generate.py from deploy/prometheus: change the rules there, not here.
"""


def rule() -> dict[str, Any]:
    """The resource: all groups of both files."""
    folder = HERE.parent / "prometheus"
    groups = [group for name in SOURCES for group in yaml.safe_load((folder / name).read_text())["groups"]]
    kind = {"apiVersion": "monitoring.coreos.com/v1", "kind": "PrometheusRule", "metadata": {"name": "flicker"}}
    return kind | {"spec": {"groups": groups}}


def main() -> None:
    """Write, or compare; exit code 1 where it differs."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--check", action="store_true", help="write nothing; exit with 1 where the file would change")
    check = parser.parse_args().check
    content = HEAD + yaml.safe_dump(rule(), sort_keys=False, width=120)
    if check and (not FILE.is_file() or FILE.read_text() != content):
        sys.exit(f"{FILE}: not what generate.py makes: run python deploy/kubernetes/generate.py")
    if not check:
        FILE.write_text(content)


if __name__ == "__main__":
    main()
