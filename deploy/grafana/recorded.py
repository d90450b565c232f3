"""What a Prometheus server recorded, for the queries of a dashboard."""

from __future__ import annotations

import json
import re
import urllib.error
import urllib.parse
import urllib.request
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

POINTS = 400
"""Points per line at most; no finer than STEP."""
STEP = 5.0
"""Seconds between scrapes."""


@dataclass(frozen=True)
class Line:
    """One series of a panel."""

    name: str
    """As the legend says it."""
    ref: str
    """The query that it came from."""
    times: NDArray[np.float64]
    """Unix seconds, increasing."""
    values: NDArray[np.float64]
    """As many, all finite."""


@dataclass(frozen=True)
class Recorded:
    """A span of time of a Prometheus server."""

    address: str
    """Such as http://127.0.0.1:9090."""
    start: float
    """Unix seconds."""
    end: float
    variables: Mapping[str, str]
    """What stands for $NAME in a query or a title."""

    def filled(self, text: str) -> str:
        """A text with the values of its variables."""
        return re.sub(r"\$(\w+)", lambda found: self.variables.get(found[1], found[0]), text)

    def lines(self, panel: Mapping[str, Any]) -> list[Line]:
        """The series of all queries of a panel that have a finite value, in order. Raises SystemExit."""
        step = max(STEP, (self.end - self.start) / POINTS)
        found: list[Line] = []
        for target in panel.get("targets", []):
            for series in self._range(target["expr"], step):
                points = np.array(series["values"], np.float64)
                points = points[np.isfinite(points[:, 1])]
                if len(points):
                    name = re.sub(
                        r"{{(\w+)}}", lambda label, of=series: of["metric"].get(label[1], ""), target["legendFormat"]
                    )
                    found.append(Line(name, target["refId"], points[:, 0], points[:, 1]))
        return found

    def marks(self, dashboard: Mapping[str, Any]) -> NDArray[np.float64]:
        """Times of its annotations: the values of their queries, which are milliseconds, in unix seconds."""
        values = {
            float(value) / 1000
            for annotation in dashboard["annotations"]["list"]
            for series in self._range(annotation["expr"], 1.0)
            for _, value in series["values"]
        }
        return np.array(sorted(value for value in values if self.start <= value <= self.end))

    def _range(self, expression: str, step: float) -> list[dict[str, Any]]:
        query = {"query": self.filled(expression), "start": self.start, "end": self.end, "step": step}
        url = f"{self.address}/api/v1/query_range?{urllib.parse.urlencode(query)}"
        try:
            with urllib.request.urlopen(url, timeout=30) as answer:
                result: list[dict[str, Any]] = json.load(answer)["data"]["result"]
        except urllib.error.HTTPError as problem:
            raise SystemExit(f"{expression}: {problem.read().decode()}") from None
        except OSError as problem:
            raise SystemExit(f"--prometheus = {self.address}: {problem}: name a running server") from None
        return result
