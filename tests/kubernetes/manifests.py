"""deploy/kubernetes as `kubectl kustomize` makes it, and what stands in it."""

from __future__ import annotations

import re
import shutil
import subprocess
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cache
from typing import Any

import pytest
import yaml

from tests.composed import ROOT

FOLDER = ROOT / "deploy/kubernetes"
OVERLAYS = tuple(sorted(path.name for path in (FOLDER / "overlays").iterdir()))
Resource = dict[str, Any]
needs_kubectl = pytest.mark.skipif(shutil.which("kubectl") is None, reason="no kubectl on PATH")


@cache
def rendered(folder: str) -> str:
    """What would be applied."""
    command = ["kubectl", "kustomize", str(FOLDER / folder)]
    return subprocess.run(command, check=True, text=True, capture_output=True).stdout


@cache
def parsed(overlay: str) -> list[Resource]:
    """All resources of an overlay: not to be changed."""
    loader = getattr(yaml, "CSafeLoader", yaml.SafeLoader)  # dashboards are long
    return list(yaml.load_all(rendered(f"overlays/{overlay}"), loader))


def resources(overlay: str, *kinds: str) -> list[Resource]:
    """All resources of an overlay, or those of some kinds."""
    return [one for one in parsed(overlay) if not kinds or one["kind"] in kinds]


@dataclass(frozen=True)
class Workload:
    """What makes pods: `spec` is theirs."""

    name: str
    kind: str
    resource: Resource
    spec: Resource
    labels: dict[str, str]
    settings: dict[str, dict[str, str]]
    """ConfigMap -> its data."""

    @property
    def container(self) -> Resource:
        """The one that is the process."""
        (container,) = self.spec["containers"]
        return dict(container)

    @property
    def all_containers(self) -> list[Resource]:
        """Those that come first too."""
        return [*self.spec.get("initContainers", []), *self.spec["containers"]]

    @property
    def args(self) -> list[str]:
        """Of the process."""
        return list(self.container.get("args", []))

    @property
    def environment(self) -> dict[str, str]:
        """Variables of ConfigMaps resolved; a field of the pod stands as <path>."""
        variables: dict[str, str] = {}
        for source in self.container.get("envFrom", []):
            if "configMapRef" in source:
                variables |= self.settings[source["configMapRef"]["name"]]
        for variable in self.container.get("env", []):
            origin = variable.get("valueFrom", {})
            if key := origin.get("configMapKeyRef"):
                variables[variable["name"]] = self.settings[key["name"]][key["key"]]
            elif field := origin.get("fieldRef"):
                variables[variable["name"]] = f"<{field['fieldPath']}>"
            else:
                variables[variable["name"]] = variable["value"]
        return variables

    @property
    def ports(self) -> dict[str, int]:
        """Name -> number."""
        return {port["name"]: port["containerPort"] for port in self.container["ports"]}

    @property
    def probes(self) -> dict[str, Resource]:
        """readinessProbe and livenessProbe, where they are."""
        return {kind: self.container[kind] for kind in ("readinessProbe", "livenessProbe") if kind in self.container}

    @property
    def secret_folders(self) -> dict[str, str]:
        """Where a Secret is mounted -> its name."""
        volumes = {
            volume["name"]: volume["secret"]["secretName"] for volume in self.spec["volumes"] if "secret" in volume
        }
        mounts = self.container.get("volumeMounts", [])
        return {mount["mountPath"]: volumes[mount["name"]] for mount in mounts if mount["name"] in volumes}


@cache
def workloads(overlay: str) -> dict[str, Workload]:
    """By name."""
    settings = {one["metadata"]["name"]: one["data"] for one in resources(overlay, "ConfigMap")}
    pods = {}
    for one in resources(overlay, "Deployment", "StatefulSet", "Job"):
        template, name = one["spec"]["template"], one["metadata"]["name"]
        labels = template["metadata"]["labels"]
        pods[name] = Workload(name, one["kind"], one, template["spec"], labels, settings)
    return pods


def addressed(words: list[str]) -> Iterator[tuple[str, int]]:
    """host, port of each address in some words, such as redis://trainer@HOST:6379/0."""
    for word in words:
        yield from ((host, int(port)) for host, port in re.findall(r"//+(?:\w+@)?([\w.-]+):(\d+)", word))
