"""What stands in the manifests, against docker-compose.yml and the code: images, flags, environment, ports, probes."""

from __future__ import annotations

import re
import shlex
import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from load.settings import read_settings
from page.guard import HEALTH_PATH
from page.main import PageFlags
from serving.replica import replica
from serving.replica.main import ReplicaFlags
from serving.router import main as router
from serving.router.compare import PATIENCE
from serving.router.feedback import FLUSH
from serving.router.main import RouterFlags
from simulator.flags import parse, parse_flags
from tests.composed import ROOT, make_secrets, secure_services, services
from tests.kubernetes.manifests import OVERLAYS, Workload, needs_kubectl, resources, workloads
from trainer.flags import TrainerFlags

pytestmark = needs_kubectl
EVERY = [] if needs_kubectl.args[0] else [(overlay, name) for overlay in OVERLAYS for name in workloads(overlay)]
each = pytest.mark.parametrize(("overlay", "name"), EVERY)
OF_PODS = {"FLICKER_NAME": "<metadata.name>", "FLICKER_ADVERTISE": "<status.podIP>", "POD_INDEX": None}
"""What Kubernetes knows and Compose does not: names that stay, addresses, ordinals."""
LEFT_OUT = {
    "FLICKER_MODELS": "no code of one's own is mounted",
    "PYTHONPATH": "no code of one's own is mounted",
    "FLICKER_DATA": "no log is mounted",
    "FLICKER_SPOOL": "a Deployment has no disk that outlives a pod",
    "FLICKER_BIND": "a page in a cluster always asks for a token",
    "FLICKER_PAGE_TOKEN": "tokens come in files",
    "FLICKER_NAMES": "it is reached as localhost, by port-forward",
}
"""Variables of Compose that the manifests do without, and why."""
GIVEN = ("ca.crt", "tls.crt", "tls.key")
PROVIDED = {"flicker-objects"}
"""Secrets that are read as they are and that no script of ours makes: see docs/kubernetes.md."""


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """What deploy/secure/secrets.sh makes."""
    folder = tmp_path_factory.mktemp("secrets")
    make_secrets(folder)
    return folder


def mebibytes(quantity: str) -> int:
    """Of Kubernetes' Mi or Compose's m."""
    return int(re.fullmatch(r"(\d+)(Mi|m)", quantity)[1])  # type: ignore[index]


@each
def test_images_and_memory_are_those_of_compose(overlay: str, name: str) -> None:
    pod, composed = workloads(overlay)[name], services()
    service = composed["trainer-gpu" if (overlay, name) == ("gpu", "trainer") else name]
    registry = "" if overlay == "local" else "registry.example.org/"
    assert {one["image"] for one in pod.all_containers} == {registry + service["image"]}
    for container in pod.all_containers:
        requirements = container["resources"]
        assert requirements["limits"]["memory"] == requirements["requests"]["memory"]
        assert mebibytes(requirements["limits"]["memory"]) == mebibytes(service["mem_limit"].split()[0])
        assert "cpu" in requirements["requests"]
        assert "cpu" not in requirements["limits"], "who waits for a share is not slowed down"


@each
def test_every_container_is_restricted(overlay: str, name: str) -> None:
    spec = workloads(overlay)[name].spec
    pod = spec["securityContext"]
    assert pod["runAsNonRoot"] and pod["runAsUser"] > 0 and pod["seccompProfile"] == {"type": "RuntimeDefault"}
    assert not spec["automountServiceAccountToken"] and not spec["enableServiceLinks"]
    for container in workloads(overlay)[name].all_containers:
        context = container["securityContext"]
        assert context == {
            "allowPrivilegeEscalation": False,
            "capabilities": {"drop": ["ALL"]},
            "readOnlyRootFilesystem": True,
        }
    kinds = {kind for volume in spec["volumes"] for kind in volume if kind != "name"}
    assert kinds <= {"emptyDir", "secret"} and not spec.keys() & {"hostNetwork", "hostPID", "hostIPC"}
    assert "/tmp" in {mount["mountPath"] for mount in workloads(overlay)[name].container["volumeMounts"]}


@pytest.mark.parametrize("overlay", OVERLAYS)
def test_the_namespace_takes_nothing_else(overlay: str) -> None:
    (namespace,) = resources(overlay, "Namespace")
    assert namespace["metadata"]["labels"]["pod-security.kubernetes.io/enforce"] == "restricted"
    namespaced = [one for one in resources(overlay) if one["kind"] != "Namespace"]
    assert {one["metadata"]["namespace"] for one in namespaced} == {namespace["metadata"]["name"]}


@each
def test_the_environment_is_that_of_compose(overlay: str, name: str) -> None:
    pod = workloads(overlay)[name]
    service = services()[name] if overlay == "local" else secure_services()[name]
    composed = {key: "" if value is None else str(value) for key, value in service.get("environment", {}).items()}
    expected = {key: value for key, value in composed.items() if value and key not in LEFT_OUT}
    variables = {key: value for key, value in pod.environment.items() if key not in OF_PODS}
    if name == "page":
        expected["FLICKER_PAGE_TOKEN_FILE"] = "/secrets/page.token"
    if overlay != "local":
        variables = {key: value.replace("redis.example.org", "redis") for key, value in variables.items()}
        assert ("FLICKER_WEIGHTS" in variables) == ("FLICKER_WEIGHTS" in composed)
        assert variables.pop("FLICKER_WEIGHTS", "s3://").startswith("s3://")
    assert variables == expected
    for key in pod.environment.keys() & OF_PODS.keys() - {"POD_INDEX"}:
        assert pod.environment[key] == OF_PODS[key]


@each
def test_every_variable_is_one_that_the_code_reads(overlay: str, name: str) -> None:
    packages = ("simulator", "trainer", "serving", "load", "page")
    code = "".join(file.read_text() for package in packages for file in (ROOT / package).rglob("*.py"))
    names = {key for key in workloads(overlay)[name].environment if key.startswith("FLICKER_")}
    settings = {f"FLICKER_{field.upper()}" for field in read_settings({}).__dict__}
    assert {key for key in names if key not in code} - settings == set()


def words_of(workload: Workload, pod: int = 0) -> list[str]:
    """Arguments as the kubelet gives them to one of the pods."""
    return [word.replace("$(POD_INDEX)", str(pod)) for word in workload.args]


@pytest.mark.parametrize("overlay", OVERLAYS)
def test_trainers_learn_what_compose_does_and_know_how_many_they_are(overlay: str) -> None:
    workload = workloads(overlay)["trainer"]
    assert workload.environment["POD_INDEX"] == "<metadata.labels['apps.kubernetes.io/pod-index']>"
    device = ["--device=cuda"] if overlay == "gpu" else []
    composed = parse(TrainerFlags, "trainer", [*shlex.split(services()["trainer"]["command"]), *device])
    count = workload.resource["spec"]["replicas"]
    for pod in range(count):
        flags = parse(TrainerFlags, "trainer", words_of(workload, pod))
        assert flags == replace(composed, shard=f"{pod}/{count}")


@pytest.mark.parametrize("overlay", OVERLAYS)
def test_the_page_reads_those_whose_names_are_services(overlay: str) -> None:
    workload = workloads(overlay)["page"]
    secured = [] if overlay == "local" else ["--tls-ca=/secrets/ca.crt"]
    flags = parse_flags(PageFlags, "page", [*words_of(workload), *secured])
    composed = services() if overlay == "local" else secure_services()
    composed_flags = parse_flags(PageFlags, "page", [*shlex.split(composed["page"]["command"]), *secured])
    assert (flags.router, flags.host, flags.port) == (composed_flags.router, composed_flags.host, composed_flags.port)
    names = {service["metadata"]["name"] for service in resources(overlay, "Service")}
    assert set(flags.metrics) == {url for url in composed_flags.metrics if url.split("/")[2].split(":")[0] in names}


@pytest.mark.parametrize("overlay", OVERLAYS)
def test_routers_and_replicas_start_with_what_they_are_told(
    overlay: str, made: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name, flags in {"router": RouterFlags, "replica": ReplicaFlags}.items():
        workload = workloads(overlay)[name]
        assert workload.args == []
        with monkeypatch.context() as patched:
            for key, value in workload.environment.items():
                patched.setenv(key, value.replace("/secrets/", f"{made}/{name}/"))
            read: Any = parse_flags(flags, name, [])
        assert (read.host, read.port, read.metrics_port) == ("0.0.0.0", 50051, 9100)
        assert read.security.credentials().tls_cert is None or overlay != "local"


def test_locust_takes_the_flags_of_its_job() -> None:
    workload = workloads("local")["load"]
    script = "import json, sys; from locust.argument_parser import get_parser as p; p().parse_args(sys.argv[1:])"
    ran = subprocess.run([sys.executable, "-c", script, *workload.args], cwd=ROOT, text=True, capture_output=True)
    assert ran.returncode == 0, ran.stderr
    command = shlex.split(services()["load"]["command"])
    assert f"--host={command[command.index('--host') + 1]}" in workload.args
    assert f"--users={command[command.index('--users') + 1]}" in workload.args
    assert read_settings(workload.environment).rate == 100


@each
def test_every_port_is_one_that_the_process_opens(overlay: str, name: str) -> None:
    workload = workloads(overlay)[name]
    opened = {
        int(value) for key, value in workload.environment.items() if key in ("FLICKER_PORT", "FLICKER_METRICS_PORT")
    }
    opened |= {int(word.partition("=")[2]) for word in workload.args if word.startswith("--port=")}
    assert set(workload.ports.values()) == (opened or {6379})
    for kind, probe in workload.probes.items():
        action = probe.get("httpGet") or probe.get("tcpSocket") or probe.get("grpc")
        assert action is None or action["port"] in workload.ports or action["port"] in workload.ports.values(), kind


@each
def test_each_is_asked_what_compose_asks(overlay: str, name: str) -> None:
    workload = workloads(overlay)[name]
    service = services()[name] if overlay == "local" else secure_services()[name]
    composed, ready = " ".join(service["healthcheck"]["test"]), workload.probes["readinessProbe"]
    if overlay != "local" and name != "page":  # by TLS: what runs in the container can show its certificate
        assert composed == " ".join(["CMD", *ready["exec"]["command"]])
    elif "serving health" in composed:
        assert ready["grpc"] == {"port": workload.ports["grpc"]} and f":{workload.ports['grpc']}" in composed
    elif name == "redis":
        assert ["CMD", *ready["exec"]["command"]] == service["healthcheck"]["test"]
    elif name == "page":
        request = ready["httpGet"]
        assert request["path"] == HEALTH_PATH
        assert f"{request.get('scheme', 'HTTP').lower()}://127.0.0.1:8080{HEALTH_PATH}" in composed
    else:
        assert ready["httpGet"] == {"path": "/metrics", "port": "metrics"} and "pages import probe" in composed
    interval, timeout = (int(service["healthcheck"][key].removesuffix("s")) for key in ("interval", "timeout"))
    assert (ready["periodSeconds"], ready["timeoutSeconds"]) == (interval, timeout)
    if workload.kind != "Job":
        alive = workload.probes["livenessProbe"]
        assert "grpc" not in alive and "exec" not in alive, "no restart brings a generation or a store"


@pytest.mark.parametrize("overlay", OVERLAYS)
def test_who_is_told_to_end_has_the_time(overlay: str) -> None:
    pods = workloads(overlay)
    pause = int(pods["router"].container["lifecycle"]["preStop"]["exec"]["command"][1])
    waits = {
        "router": pause + 2 * router.GRACE + 2 * PATIENCE + 3 * FLUSH,
        "replica": replica.LEAVING + replica.DRAINING + 1.0,
    }
    for name, seconds in waits.items():
        assert pods[name].spec["terminationGracePeriodSeconds"] >= seconds, name


@each
def test_secrets_are_those_that_the_script_makes(overlay: str, name: str, made: Path) -> None:
    workload = workloads(overlay)[name]
    for mounted, secret in workload.secret_folders.items():
        folder = made / secret.removeprefix("flicker-")
        wanted = {value for value in workload.environment.values() if value.startswith(f"{mounted}/")}
        assert wanted and {Path(value).name for value in wanted} <= {file.name for file in folder.iterdir()}
    assert workload.secret_folders or not any("/secrets/" in value for value in workload.environment.values())
    named = {one["secretRef"]["name"] for one in workload.container.get("envFrom", []) if "secretRef" in one}
    assert named <= PROVIDED
    for monitor in resources(overlay, "PodMonitor"):
        for endpoint in monitor["spec"]["podMetricsEndpoints"]:
            keys = [value.get("secret", value) for value in endpoint["tlsConfig"].values() if isinstance(value, dict)]
            assert {key["key"] for key in keys} == set(GIVEN)
            assert {key["name"] for key in keys} == {"flicker-prometheus"} and (made / "prometheus").is_dir()


@pytest.mark.parametrize("overlay", OVERLAYS)
def test_selectors_find_their_pods(overlay: str) -> None:
    pods = workloads(overlay)

    def selected(selector: dict[str, str]) -> list[str]:
        return [name for name, pod in pods.items() if selector.items() <= pod.labels.items()]

    for one in resources(overlay, "StatefulSet", "Deployment", "PodDisruptionBudget"):
        assert selected(one["spec"]["selector"]["matchLabels"]) == [one["metadata"]["name"]]
    for service in resources(overlay, "Service"):
        (name,) = selected(service["spec"]["selector"])
        assert service["metadata"]["name"] == name
        for port in service["spec"]["ports"]:
            assert pods[name].ports[port["targetPort"]] == port["port"]
    for one in resources(overlay, "StatefulSet"):
        assert one["spec"]["serviceName"] in {service["metadata"]["name"] for service in resources(overlay, "Service")}
    for one in resources(overlay, "HorizontalPodAutoscaler"):
        target = pods[one["spec"]["scaleTargetRef"]["name"]]
        assert one["spec"]["scaleTargetRef"]["kind"] == target.kind and "replicas" not in target.resource["spec"]
    for one in resources(overlay, "PodMonitor"):
        names = selected(one["spec"]["selector"]["matchLabels"])
        assert names == [one["metadata"]["name"]] or one["metadata"]["name"] == "load"
        assert all(one["spec"]["podMetricsEndpoints"][0]["port"] in pods[name].ports for name in names)
        assert all(one["spec"]["jobLabel"] in pods[name].labels for name in names)


def test_routers_expect_as_many_replicas_as_there_are() -> None:
    for overlay in OVERLAYS:
        pods = workloads(overlay)
        assert int(pods["router"].environment["FLICKER_REPLICAS"]) == pods["replica"].resource["spec"]["replicas"]


def test_routers_are_asked_in_turn() -> None:
    for overlay in OVERLAYS:
        (service,) = (one for one in resources(overlay, "Service") if one["metadata"]["name"] == "router")
        assert service["spec"]["clusterIP"] == "None", "one address would be one connection to one router"
        assert not service["spec"].get("publishNotReadyAddresses")


def test_gpus_are_the_trainers() -> None:
    having = [n for n, one in workloads("gpu").items() if "nvidia.com/gpu" in one.container["resources"]["limits"]]
    assert having == ["trainer"]
