"""What a dashboard is made of: queries, panels, their places; as the plain JSON of Grafana's schema.

An arm has the colour of its place among the arms, on every panel: a panel that shows arms asks one query per place, and
an override gives each query's lines their colour. (Names of arms are not known here, only at run time.)
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

Json = dict[str, Any]

SOURCE = {"type": "prometheus", "uid": "prometheus"}
COLUMNS = 24
ARM_COLOURS = ("#a3abb6", "#4ba3e3", "#ff8a3d", "#2fcf9f")
"""Of the first arms, as in the report's dark style; further ones share Grafana's own palette."""
POSITION = "last_over_time(flicker_arm_position[1h])"
"""An arm's place, also while the trainer that tells it is away."""

Thresholds = tuple[str, *tuple[tuple[float, str], ...]]
"""Colour of the lowest values, then (from this value on, this colour)."""
PLAIN: Thresholds = ("text",)


@dataclass(frozen=True)
class Query:
    """A PromQL expression and how its series are named and drawn."""

    expr: str
    legend: str
    """May name a label as {{label}}."""
    colour: str | None = None
    dashed: bool = False


def arms(expr: str, legend: str = "{{arm}}", first: int = 0, dashed: bool = False) -> list[Query]:
    """An expression with a label `arm`: a query for each place from `first` on, in the colour of the place."""
    places = [(f"== {place}", colour) for place, colour in enumerate(ARM_COLOURS)][first:]
    return [
        Query(f"({expr}) and on (arm) ({POSITION} {place})", legend, colour, dashed)
        for place, colour in [*places, (f">= {len(ARM_COLOURS)}", None)]
    ]


def mean_and_quantile(histogram: str, share: float, over: str = "5m") -> list[Query]:
    """A histogram's mean and one quantile, over all processes."""
    mean = f"sum(rate({histogram}_sum[{over}])) / sum(rate({histogram}_count[{over}]))"
    quantile = f"histogram_quantile({share}, sum by (le) (rate({histogram}_bucket[{over}])))"
    return [Query(mean, "mean"), Query(quantile, f"p{share * 100:.0f}", dashed=True)]


def timeseries(
    title: str,
    description: str,
    unit: str,
    queries: Iterable[Query],
    thresholds: Thresholds = PLAIN,
    size: tuple[int, int] = (8, 8),
    start: float | None = 0,
    end: float | None = None,
) -> Json:
    """Lines over time. `size` in columns and rows; `start` and `end` of the axis, None to fit the data."""
    custom = {
        "drawStyle": "line",
        "lineWidth": 2,
        "fillOpacity": 6,
        "showPoints": "never",
        "spanNulls": 30_000,  # a gap of up to so many milliseconds is bridged
        "thresholdsStyle": {"mode": "dashed" if len(thresholds) > 1 else "off"},
    }
    defaults: Json = {"unit": unit, "color": {"mode": "palette-classic"}, "custom": custom}
    defaults |= {key: value for key, value in (("min", start), ("max", end)) if value is not None}
    options = {
        "legend": {"displayMode": "list", "placement": "bottom", "showLegend": True, "calcs": ["lastNotNull"]},
        "tooltip": {"mode": "multi", "sort": "desc"},
    }
    return _panel("timeseries", title, description, queries, defaults, options, thresholds, size)


def stat(
    title: str,
    description: str,
    unit: str,
    queries: Iterable[Query],
    thresholds: Thresholds = PLAIN,
    size: tuple[int, int] = (4, 4),
    decimals: int | None = None,
) -> Json:
    """The newest values as big numbers, in the colour of the threshold they passed."""
    plain = [Query(query.expr, query.legend) for query in queries]  # no colours of arms
    defaults: Json = {"unit": unit, "color": {"mode": "thresholds"}}
    defaults |= {} if decimals is None else {"decimals": decimals}
    options = {
        "colorMode": "value",
        "graphMode": "none",
        "justifyMode": "center",
        "orientation": "auto",
        "reduceOptions": {"calcs": ["lastNotNull"], "fields": "", "values": False},
        "textMode": "value_and_name" if len(plain) > 1 else "value",
    }
    return _panel("stat", title, description, plain, defaults, options, thresholds, size)


def dashboard(
    uid: str,
    title: str,
    description: str,
    intro: str,
    rows: int,
    panels: Sequence[Json],
    variables: Sequence[Json] = (),
) -> Json:
    """An introduction (Markdown) of so many rows, then panels that flow from left to right; links to the others."""
    introduction = {
        "type": "text",
        "title": "What am I looking at?",
        "description": "How to read this page.",
        "gridPos": {"w": COLUMNS, "h": rows},
        "options": {"mode": "markdown", "content": intro},
    }
    refreshes = {
        "name": "Refreshes",
        "datasource": SOURCE,
        "enable": True,
        "hide": False,
        "iconColor": "#6e7683",
        "expr": "max(flicker_snapshot_published_timestamp_seconds > 0) * 1000",
        "step": "1s",  # those closer together would become one
        "titleFormat": "A new generation was published",
        "useValueForTime": True,  # a line where the generation was cut, in milliseconds, not where it was scraped
    }
    links = {
        "type": "dashboards",
        "title": "Flicker",
        "tags": ["flicker"],
        "asDropdown": False,
        "keepTime": True,
        "includeVars": False,
        "targetBlank": False,
    }
    return {
        "uid": uid,
        "title": title,
        "description": description,
        "tags": ["flicker"],
        "schemaVersion": 39,
        "editable": False,
        "graphTooltip": 1,  # one crosshair through all panels
        "refresh": "5s",
        "time": {"from": "now-15m", "to": "now"},
        "timezone": "browser",
        "links": [links],
        "annotations": {"list": [refreshes]},
        "templating": {"list": list(variables)},
        "panels": _placed([introduction, *panels]),
    }


def choice(name: str, label: str, values: dict[str, str]) -> Json:
    """A variable with a fixed list of values (value -> what the reader sees); the first is the default."""
    options = [
        {"selected": number == 0, "text": text, "value": value} for number, (value, text) in enumerate(values.items())
    ]
    return {
        "type": "custom",
        "name": name,
        "label": label,
        "query": ",".join(f"{text} : {value}" for value, text in values.items()),
        "current": options[0],
        "options": options,
        "multi": False,
        "includeAll": False,
    }


def _panel(
    kind: str,
    title: str,
    description: str,
    queries: Iterable[Query],
    defaults: Json,
    options: Json,
    thresholds: Thresholds,
    size: tuple[int, int],
) -> Json:
    named = list(zip("ABCDEFGHIJKLMNOPQRSTUVWXYZ", queries, strict=False))
    base, *steps = thresholds
    steps_json = [{"value": None, "color": base}, *({"value": value, "color": colour} for value, colour in steps)]
    return {
        "type": kind,
        "title": title,
        "description": description,
        "datasource": SOURCE,
        "gridPos": {"w": size[0], "h": size[1]},
        "fieldConfig": {
            "defaults": defaults | {"thresholds": {"mode": "absolute", "steps": steps_json}},
            "overrides": [override for ref, query in named for override in _override(ref, query)],
        },
        "options": options,
        "targets": [
            {"refId": ref, "datasource": SOURCE, "expr": query.expr, "legendFormat": query.legend}
            for ref, query in named
        ],
    }


def _override(ref: str, query: Query) -> list[Json]:
    properties: list[Json] = []
    if query.colour:
        properties.append({"id": "color", "value": {"mode": "fixed", "fixedColor": query.colour}})
    if query.dashed:
        properties.append({"id": "custom.lineStyle", "value": {"fill": "dash", "dash": [6, 4]}})
        properties.append({"id": "custom.fillOpacity", "value": 0})
    matcher = {"id": "byFrameRefID", "options": ref}
    return [{"matcher": matcher, "properties": properties}] if properties else []


def _placed(panels: Sequence[Json]) -> list[Json]:
    """The panels with an id and a place: in rows of 24 columns, each as high as its panels, which must agree."""
    placed: list[Json] = []
    x = y = height = 0
    for number, panel in enumerate(panels, 1):
        width, rows = panel["gridPos"]["w"], panel["gridPos"]["h"]
        if x + width > COLUMNS:
            x, y = 0, y + height
        assert x == 0 or rows == height, f"{panel['title']}: {rows} rows beside {height}"
        placed.append(panel | {"id": number, "gridPos": {"x": x, "y": y, "w": width, "h": rows}})
        x, height = x + width, rows
    return placed
