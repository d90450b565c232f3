"""deploy/grafana: that panels ask for what code declares, that Grafana's schema has every key, that all can be read."""

from __future__ import annotations

import json
import re
import shutil
import subprocess
import sys
from collections.abc import Iterator
from itertools import combinations
from pathlib import Path
from typing import Any

import pytest
import yaml
from grafana_foundation_sdk.cog.encoder import JSONEncoder
from grafana_foundation_sdk.cog.plugins import register_default_plugins
from grafana_foundation_sdk.models.dashboard import Dashboard

from simulator.measures.registry import MEASURES
from tests.metric_names import declared
from tests.promql import labels, problems

Json = dict[str, Any]

GRAFANA = Path(__file__).parents[1] / "deploy" / "grafana"
DASHBOARDS: dict[str, Json] = {
    file.stem: json.loads(file.read_text()) for file in sorted((GRAFANA / "dashboards").glob("*.json"))
}
PANELS = [panel for dashboard in DASHBOARDS.values() for panel in dashboard["panels"]]
SHOWN = [panel for panel in PANELS if panel["type"] != "text"]
UNITS = ("none", "short", "percentunit", "s", "bytes")
"""Units of Grafana that panels may have, beside `suffix:TEXT`: a name that it does not know is shown as text."""


def filled(expression: str, dashboard: Json) -> Iterator[str]:
    """A query with each value of its variables."""
    chosen = [variable for variable in dashboard["templating"]["list"] if f"${variable['name']}" in expression]
    if not chosen:
        assert "$" not in expression, "a variable that the dashboard does not have"
        yield expression
    for variable in chosen:
        for option in variable["options"]:
            yield from filled(expression.replace(f"${variable['name']}", option["value"]), dashboard)


def targets() -> Iterator[tuple[str, Json, list[str]]]:
    """Where it stands, a target of a panel, and its query with each value of the variables."""
    for name, dashboard in DASHBOARDS.items():
        for panel in dashboard["panels"]:
            for target in panel.get("targets", []):
                place = f"{name}: {panel['title']}: {target['refId']}"
                yield place, target, list(filled(target["expr"], dashboard))


def test_there_are_three() -> None:
    assert set(DASHBOARDS) == {"swaps", "training", "serving"}
    assert len({dashboard["uid"] for dashboard in DASHBOARDS.values()}) == 3


def test_code_declares_every_metric_and_label() -> None:
    asked = {place: expressions for place, _, expressions in targets()}
    for name, dashboard in DASHBOARDS.items():
        annotations = dashboard["annotations"]["list"]
        asked[name] = [query for each in annotations for query in filled(each["expr"], dashboard)]
    wrong = {place: [problems(each, declared()) for each in expressions] for place, expressions in asked.items()}
    assert len(asked) > 100 and {place: found for place, found in wrong.items() if any(found)} == {}


def test_legends_name_labels_that_come_out() -> None:
    for place, target, expressions in targets():
        named = set(re.findall(r"{{(\w+)}}", target["legendFormat"]))
        assert target["legendFormat"] and all(named <= labels(each, declared()) for each in expressions), place


def test_swaps_can_be_counted_by_every_measure_pairs_first() -> None:
    (variable,) = DASHBOARDS["swaps"]["templating"]["list"]
    values = [option["value"] for option in variable["options"]]
    assert variable["current"]["value"] == values[0] == "pair"
    assert set(values) == {measure.name for measure in MEASURES.values() if measure.swap}
    assert variable["query"] == ",".join(f"{option['text']} : {option['value']}" for option in variable["options"])


def test_every_recorded_swap_measure_has_accuracy_beside_it() -> None:
    """A constant model never swaps anything."""
    asked = json.dumps(DASHBOARDS["swaps"]["panels"])
    for metric in ("flicker_progressive_log_loss", "flicker_progressive_auc", "flicker_calibration"):
        assert metric in asked


def test_a_stranger_can_read_every_panel() -> None:
    for panel in PANELS:
        assert panel["title"] and panel["description"].endswith("."), panel["title"]
        # on a page of 1366 pixels a column has 54, and a letter of a title takes 7 to 8 of them
        assert len(panel["title"]) <= 7 * panel["gridPos"]["w"] - 2, panel["title"]
        assert panel["type"] != "text" or panel["options"]["content"], panel["title"]


def test_units_are_those_that_grafana_knows() -> None:
    units = {panel["title"]: panel["fieldConfig"]["defaults"]["unit"] for panel in SHOWN}
    assert {title for title, unit in units.items() if unit not in UNITS and not unit.startswith("suffix:")} == set()


def test_an_arm_has_the_colour_of_its_place() -> None:
    """On every line of every panel alike; numbers take the colour of a threshold instead."""
    expected = ("#a3abb6", "#4ba3e3", "#ff8a3d", "#2fcf9f")  # the report's, in the dark
    for panel in (panel for panel in SHOWN if panel["type"] == "timeseries"):
        colours = {
            override["matcher"]["options"]: found["value"]["fixedColor"]
            for override in panel["fieldConfig"]["overrides"]
            for found in override["properties"]
            if found["id"] == "color"
        }
        for target in panel["targets"]:
            place = re.search(r"flicker_arm_position\[1h]\) == (\d)", target["expr"])
            own = colours.get(target["refId"])
            assert own == expected[int(place[1])] if place else own not in expected, panel["title"]


def test_data_source_is_provisioned() -> None:
    settings = yaml.safe_load((GRAFANA / "provisioning" / "datasources" / "prometheus.yml").read_text())
    provisioned = {source["uid"]: source["type"] for source in settings["datasources"]}
    assert provisioned == {"prometheus": "prometheus"}
    annotations = [each for dashboard in DASHBOARDS.values() for each in dashboard["annotations"]["list"]]
    for each in [*SHOWN, *(target for panel in SHOWN for target in panel["targets"]), *annotations]:
        assert provisioned[each["datasource"]["uid"]] == each["datasource"]["type"]


def test_dashboards_lie_where_the_provider_looks() -> None:
    settings = yaml.safe_load((GRAFANA / "provisioning" / "dashboards" / "flicker.yml").read_text())
    (provider,) = settings["providers"]
    compose = yaml.safe_load((GRAFANA.parents[1] / "docker-compose.yml").read_text())
    mounts = compose["services"]["grafana"]["volumes"]
    assert f"./deploy/grafana/dashboards:{provider['options']['path']}:ro" in mounts


@pytest.mark.parametrize("dashboard", DASHBOARDS.values(), ids=DASHBOARDS)
def test_panels_have_places_of_their_own(dashboard: Json) -> None:
    places = [panel["gridPos"] for panel in dashboard["panels"]]
    for place in places:
        assert place["x"] >= 0 and place["w"] > 0 and place["h"] > 0
        assert place["x"] + place["w"] <= 24
    for one, other in combinations(places, 2):
        beside = one["x"] + one["w"] <= other["x"] or other["x"] + other["w"] <= one["x"]
        below = one["y"] + one["h"] <= other["y"] or other["y"] + other["h"] <= one["y"]
        assert beside or below
    area = sum(place["w"] * place["h"] for place in places)
    assert area == 24 * max(place["y"] + place["h"] for place in places), "a hole"
    assert len({panel["id"] for panel in dashboard["panels"]}) == len(places)


@pytest.mark.parametrize("dashboard", DASHBOARDS.values(), ids=DASHBOARDS)
def test_dashboards_link_to_each_other(dashboard: Json) -> None:
    (link,) = dashboard["links"]
    assert link["type"] == "dashboards" and set(link["tags"]) <= set(dashboard["tags"])


@pytest.mark.parametrize("dashboard", DASHBOARDS.values(), ids=DASHBOARDS)
def test_schema_of_grafana_has_every_key(dashboard: Json) -> None:
    """What its own library reads and writes back: a misspelt key would be lost."""
    register_default_plugins()
    back = json.loads(JSONEncoder().encode(Dashboard.from_json(dashboard)))
    # an annotation's own keys belong to the data source, and the library does not know those of Prometheus
    of_prometheus = {f".annotations.list[0].{key}" for key in ("step", "titleFormat", "useValueForTime")}
    assert set(lost(dashboard, back)) == of_prometheus


def test_a_lost_key_is_told() -> None:
    assert list(lost({"a": [{"b": 1, "c": 2}]}, {"a": [{"b": 1, "d": 3}]})) == [".a[0].c"]


def lost(here: Any, back: Any, path: str = "") -> Iterator[str]:
    """Where something of `here` is not in `back`, which may have more."""
    if isinstance(here, dict) and isinstance(back, dict):
        for key, value in here.items():
            yield from lost(value, back[key], f"{path}.{key}") if key in back else [f"{path}.{key}"]
    elif isinstance(here, list) and isinstance(back, list) and len(here) == len(back):
        for number, (one, other) in enumerate(zip(here, back, strict=True)):
            yield from lost(one, other, f"{path}[{number}]")
    elif here != back:
        yield f"{path}: {here} became {back}"


def generate(folder: Path) -> subprocess.CompletedProcess[str]:
    return subprocess.run([sys.executable, folder / "generate.py", "--check"], text=True, capture_output=True)


def test_generating_again_changes_nothing() -> None:
    ended = generate(GRAFANA)
    assert ended.returncode == 0, ended.stderr


def test_a_change_by_hand_is_found(tmp_path: Path) -> None:
    shutil.copytree(GRAFANA, tmp_path / "grafana")
    file = tmp_path / "grafana" / "dashboards" / "swaps.json"
    file.write_text(file.read_text().replace("percentunit", "percent", 1))
    ended = generate(tmp_path / "grafana")
    assert ended.returncode == 1 and "swaps.json: not what generate.py makes" in ended.stderr
