"""Every overlay is what Kubernetes takes: by the schemas of its newest version, and ours for the operator's kinds."""

from __future__ import annotations

import copy
import subprocess
import sys
from typing import Any

import jsonschema
import kubernetes_validate
import pytest

from tests.kubernetes.manifests import FOLDER, OVERLAYS, Resource, needs_kubectl, rendered, resources

pytestmark = needs_kubectl
VERSION = kubernetes_validate.latest_version()


def of(required: tuple[str, ...] = (), **fields: Any) -> dict[str, Any]:
    """An object of these fields and no others."""
    return {"type": "object", "properties": fields, "required": list(required), "additionalProperties": False}


TEXT = {"type": "string", "minLength": 1}
TEXTS = {"type": "object", "additionalProperties": {"type": "string"}}
SPAN = {"type": "string", "pattern": "^[0-9]+(s|m|h)$"}
KEY = of(("name", "key"), name=TEXT, key=TEXT)
METADATA = of(("name", "namespace"), name=TEXT, namespace=TEXT, labels=TEXTS)
ENDPOINT = of(
    ("port",),
    port=TEXT,
    interval=SPAN,
    scrapeTimeout=SPAN,
    scheme={"enum": ["http", "https"]},
    tlsConfig=of(ca=of(secret=KEY), cert=of(secret=KEY), keySecret=KEY, serverName=TEXT),
)
RULE = of(("expr",), record=TEXT, alert=TEXT, expr=TEXT, labels=TEXTS, annotations=TEXTS, **{"for": SPAN}) | {
    "oneOf": [{"required": ["record"]}, {"required": ["alert"]}]
}
GROUP = of(("name", "rules"), name=TEXT, interval=SPAN, rules={"type": "array", "items": RULE, "minItems": 1})
OURS: dict[str, dict[str, Any]] = {
    "PodMonitor": of(
        ("podMetricsEndpoints", "selector"),
        jobLabel=TEXT,
        selector=of(("matchLabels",), matchLabels=TEXTS),
        podMetricsEndpoints={"type": "array", "items": ENDPOINT, "minItems": 1},
    ),
    "PrometheusRule": of(("groups",), groups={"type": "array", "items": GROUP, "minItems": 1}),
}
"""Kind that no bundled schema knows -> what its spec may be, by the API reference of the Prometheus Operator."""


def checked(resource: Resource) -> str:
    """Which schema it passed: the version of Kubernetes, or `ours`. Raises ValidationError."""
    try:
        return str(kubernetes_validate.validate(resource, VERSION, strict=True))
    except kubernetes_validate.SchemaNotFoundError:
        spec = OURS[resource["kind"]]
        versions = {"const": "monitoring.coreos.com/v1"}
        whole = of(("apiVersion", "spec"), apiVersion=versions, kind=TEXT, metadata=METADATA, spec=spec)
        jsonschema.validate(resource, whole)
        return "ours"


@pytest.mark.parametrize("overlay", OVERLAYS)
def test_every_resource_passes_a_strict_schema(overlay: str) -> None:
    schemas = {resource["kind"]: checked(resource) for resource in resources(overlay)}
    unknown = {kind for kind, schema in schemas.items() if schema == "ours"}
    assert unknown == (set() if overlay == "local" else set(OURS))
    assert {schema for schema in schemas.values()} - {"ours"} == {".".join(VERSION.split(".")[:2])}


@pytest.mark.parametrize(
    ("kind", "path", "value"),
    [
        ("StatefulSet", ("spec", "replicas"), "two"),
        ("Deployment", ("spec", "template", "spec", "hostname_"), "x"),
        ("PodMonitor", ("spec", "podMetricsEndpoints", 0, "intervall"), "5s"),
        ("PrometheusRule", ("spec", "groups", 0, "rules", 0, "for"), "soon"),
        ("PodMonitor", ("apiVersion",), "monitoring.coreos.com/v2"),
    ],
)
def test_what_is_misspelt_is_found(kind: str, path: tuple[str | int, ...], value: str) -> None:
    resource = copy.deepcopy(resources("production", kind)[0])
    place: Any = resource
    for step in path[:-1]:
        place = place[step]
    place[path[-1]] = value
    with pytest.raises((kubernetes_validate.ValidationError, jsonschema.ValidationError)):
        checked(resource)


def test_the_rules_are_those_of_compose() -> None:
    ended = subprocess.run([sys.executable, FOLDER / "generate.py", "--check"], text=True, capture_output=True)
    assert ended.returncode == 0, ended.stderr


def test_dashboards_are_the_files_of_compose() -> None:
    (made,) = (one for one in resources("production", "ConfigMap") if one["metadata"]["name"] == "flicker-dashboards")
    folder = FOLDER.parent / "grafana/dashboards"
    assert made["data"] == {file.name: file.read_text() for file in folder.iterdir()}
    assert made["metadata"]["labels"]["grafana_dashboard"] == "1"
    assert sum(map(len, made["data"].values())) < 900_000, "a ConfigMap holds 1 MiB"


def test_no_value_of_a_secret_is_in_the_manifests() -> None:
    assert not any(resources(overlay, "Secret") for overlay in OVERLAYS)
    assert "PRIVATE KEY" not in "".join(rendered(f"overlays/{overlay}") for overlay in OVERLAYS)
