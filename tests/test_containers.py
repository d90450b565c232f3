"""Dockerfile, docker-compose.yml and .env read as files: what holds without an engine. tests/containers runs them."""

from __future__ import annotations

import os
import re
import shlex
import shutil
import subprocess
import sys
import tomllib
from pathlib import Path
from typing import Any

import pytest
import yaml
from packaging.requirements import Requirement

from load.settings import read_settings
from page.guard import require_guarded, tokens_of
from page.main import PageFlags
from protos import channel
from serving.proxy.flags import ShadowFlags
from simulator.config import ExperimentConfig, ReplayConfig, SyntheticConfig
from simulator.errors import SettingError
from simulator.flags import parse, parse_flags
from simulator.live.controls import TOKEN
from simulator.models.factories import factories_of
from tests.composed import COMPOSE, ENV, ROOT, SECURE, SETTINGS, make_secrets, read, secure_services, services
from trainer.flags import TrainerFlags

DOCKERFILE = (ROOT / "Dockerfile").read_text()
ORDER = (
    "profiles image build user entrypoint command environment volumes networks network_mode ports depends_on "
    "healthcheck deploy group_add mem_limit << restart init read_only tmpfs cap_drop cap_add security_opt pids_limit"
).split()
NATIVE = "simulator/native"
"""Part of `simulator`, with a stage of its own."""
PROMETHEUS = ROOT / "deploy/prometheus"
SCRIPT = (ROOT / "deploy/secure/secrets.sh").read_text()
PUBLISHED = {"router", "shadow", "load", "page", "prometheus", "grafana"}
ONE_SHOT = {"checks"}
MIB = 2**20


def misplaced(text: str) -> list[str]:
    """Services, and blocks that they share, with a key that is not in ORDER or not in its place.

    Behind `<<` stands what differs from the shared block.
    """
    top = {key.value: block for key, block in yaml.compose(text).value}
    blocks = [(key.value, block) for key, block in top["services"].value]
    found = []
    for name, block in [*blocks, *((name, top[name]) for name in ("x-trainer", "x-replica", "x-common"))]:
        keys = [key.value for key, _ in block.value]
        own = keys[: keys.index("<<")] if "<<" in keys else keys
        if set(keys) - set(ORDER) or own != sorted(own, key=ORDER.index):
            found.append(name)
    return found


def test_every_installed_package_is_declared() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    lines = [*project["dependencies"], *(line for extra in project["optional-dependencies"].values() for line in extra)]
    commands = re.findall(r"^RUN (pip install .*)$", DOCKERFILE.replace("\\\n", ""), re.MULTILINE)
    assert all(command.startswith("pip install --no-cache-dir --constraint constraints.txt ") for command in commands)
    installed = {word for command in commands for word in command.split()[5:] if word[0] not in "-$"}
    assert installed >= {"torch", "grpcio", "locust", "pytest"}
    assert installed - {Requirement(line).name for line in lines} == set()


def test_only_what_learns_or_ranks_gets_torch() -> None:
    _, *parts = re.split(r"^FROM (\S+) AS (\S+)$", DOCKERFILE.replace("\\\n", ""), flags=re.MULTILINE)
    parents = dict(zip(parts[1::3], parts[0::3], strict=True))
    commands = dict(zip(parts[1::3], parts[2::3], strict=True))
    assert [name for name, text in commands.items() if re.search(r"pip install .* torch\b", text)] == ["learning"]
    for target, learns in {
        "trainer": True,
        "replica": True,
        "router": False,
        "load": False,
        "page": False,
        "checks": False,
    }.items():
        line = [target]
        while line[-1] in parents:
            line.append(parents[line[-1]])
        assert ("learning" in line) == learns, line


def test_the_native_library_is_built_in_a_stage_that_alone_holds_a_compiler() -> None:
    _, *parts = re.split(r"^FROM \S+ AS (\S+)$", DOCKERFILE.replace("\\\n", ""), flags=re.MULTILINE)
    commands = dict(zip(parts[0::2], parts[1::2], strict=True))
    assert [name for name, text in commands.items() if "apt-get" in text] == ["native"]
    copy = f"COPY --from=native /app/{NATIVE}/lib {NATIVE}/lib"
    takers = {name: text for name, text in commands.items() if copy in text.splitlines()}
    assert list(takers) == ["trainer", "replica", "load"]
    assert all(text.index("COPY simulator ") < text.index(copy) for text in takers.values())


def test_what_is_copied_may_enter_and_nothing_else() -> None:
    copied = {line.split()[1] for line in DOCKERFILE.splitlines() if re.match("COPY (?!--from=)", line)}
    rules = [line for line in (ROOT / ".dockerignore").read_text().splitlines() if line and line[0] != "#"]
    assert rules[0] == "*"
    assert {rule[1:] for rule in rules if rule[0] == "!"} == copied - {NATIVE}
    assert f"{NATIVE}/lib" in rules, "what this machine built stays here"
    assert all((ROOT / name).exists() for name in copied)


def test_every_variable_is_set_with_a_comment_and_used() -> None:
    used = set(re.findall(r"\$\{(\w+)", COMPOSE + SECURE))
    assert used | {"COMPOSE_PROFILES"} == set(SETTINGS)
    bare = [
        a for a, b in zip(ENV.splitlines(), ENV.splitlines()[1:], strict=False) if re.match(r"\w", b) and a[:1] != "#"
    ]
    # the addresses of single ports and the tags of the official images share the comment of the first
    shared = [
        *(f"{name}_BIND" for name in "ROUTER SHADOW PAGE GRAFANA PROMETHEUS".split()),
        "REDIS_TAG",
        "PROMETHEUS_TAG",
    ]
    assert [line.partition("=")[0] for line in bare] == [f"FLICKER_{name}" for name in shared]


SECRET = re.compile("PASSWORD|SECRETS|TOKEN|_KEY|_CERT|_CA$")


def test_no_setting_is_a_secret() -> None:
    """Nor is one where there are secrets: files are named, which lie in the service's own folder."""
    told = [*SETTINGS.items(), *(pair for service in services().values() for pair in environment(service))]
    assert {name: value for name, value in told if SECRET.search(name) and value} == {}
    secure = secure_services(**{TOKEN: "a-token-of-a-test-1234"}).values()
    named = {n: v for service in secure for n, v in environment(service) if SECRET.search(n) and v}
    assert len(named) >= 9
    assert all(value.startswith("/secrets/") for value in named.values()), named


def environment(service: dict[str, Any]) -> list[tuple[str, str]]:
    """What a service is told."""
    return [(name, "" if value is None else str(value)) for name, value in service.get("environment", {}).items()]


def test_with_the_secure_overlay_each_process_sees_its_own_secrets_and_networks() -> None:
    found = secure_services(FLICKER_SECRETS="/home/me/secrets")
    assert found.keys() - services().keys() == {"secrets"}
    made = set(re.search(r'^processes="(.*)"$', SCRIPT, re.MULTILINE)[1].split())  # type: ignore[index]
    for name, service in found.items():
        mounts = [mount for mount in service.get("volumes", []) if "/home/me/secrets" in str(mount)]
        if name == "secrets":
            assert mounts == ["/home/me/secrets:/made"] and service["network_mode"] == "none"
        elif name != "checks":
            owner = name.removesuffix("-gpu")
            assert mounts == [f"/home/me/secrets/{owner}:/secrets:ro"] and owner in made
            assert service["depends_on"]["secrets"] == {"condition": "service_healthy"}
            assert set(service["networks"]) <= {"store", "users", "watching", "pages"}
            assert service["pids_limit"]
    networks = read(SECURE)["networks"]
    closed = {name for name, how in networks.items() if how and how["internal"]}
    published = {name: service for name, service in found.items() if service.get("ports")}
    assert set(published) == PUBLISHED - {"load"}
    assert all(set(service["networks"]) - closed for service in published.values()), "one to publish in"
    assert {name for name, service in found.items() if "store" in service.get("networks", ())} == {
        *("redis", "trainer", "trainer-gpu", "replica", "replica-gpu", "router", "load", "checks"),
    }
    for name, alias in (("trainer-gpu", "trainer"), ("replica-gpu", "replica")):
        assert found[name]["networks"]["watching"] == {"aliases": [alias]}


def test_with_the_secure_overlay_prometheus_scrapes_the_same_by_tls() -> None:
    plain, secure = (
        {job.pop("job_name"): job for job in yaml.safe_load((PROMETHEUS / name).read_text())["scrape_configs"]}
        for name in ("prometheus.yml", "secure/prometheus.yml")
    )
    for name, job in secure.items():
        assert job.pop("scheme") == "https"
        expected = {"ca_file": "/secrets/ca.crt", "cert_file": "/secrets/tls.crt", "key_file": "/secrets/tls.key"}
        assert job.pop("tls_config") == expected | {"server_name": "localhost" if name == "prometheus" else name}
    assert secure == plain


@pytest.mark.skipif(shutil.which("promtool") is None, reason="no promtool on PATH")
def test_prometheus_understands_its_secure_files(tmp_path: Path) -> None:
    make_secrets(tmp_path)
    for name, check in (("secure/prometheus.yml", "config"), ("secure/web.yml", "web-config")):
        file = tmp_path / Path(name).name
        text = (PROMETHEUS / name).read_text().replace("/secrets/", f"{tmp_path}/prometheus/")
        file.write_text(text.replace("../", f"{PROMETHEUS}/"))
        subprocess.run(["promtool", "check", check, str(file)], check=True, capture_output=True)


def test_secrets_are_made_once_for_their_readers_alone(tmp_path: Path) -> None:
    make_secrets(tmp_path)
    files = {file: file.read_bytes() for file in tmp_path.rglob("*") if file.is_file()}
    assert all(file.stat().st_mode & 0o007 == 0 for file in files), "nobody else"
    assert all(file.parent.name == "ca" for file in files if file.name == "ca.key")
    secrets = [data for file, data in files.items() if file.suffix in (".password", ".key") or file.name == "token"]
    shared = (tmp_path / "trainer/signing.key").read_bytes()
    assert len([data for data in secrets if data != shared]) == len({*secrets} - {shared}), "each its own"
    acl = (tmp_path / "redis/users.acl").read_text()
    assert not any(data.decode().strip() in acl for data in secrets)
    make_secrets(tmp_path)
    assert {file: file.read_bytes() for file in files} == files
    (tmp_path / "load/store.password").unlink()
    make_secrets(tmp_path, RENEW_DAYS="366")
    changed = {str(file.relative_to(tmp_path)) for file, data in files.items() if file.read_bytes() != data}
    assert changed - {f"{name}/tls.{kind}" for name in os.listdir(tmp_path) for kind in ("crt", "key")} == {
        "load/store.password", "redis/users.acl",
    }  # fmt: skip
    chain = ["-CAfile", f"{tmp_path}/ca/ca.crt", f"{tmp_path}/router/tls.crt"]
    subprocess.run(["openssl", "verify", "-x509_strict", *chain], check=True, capture_output=True)


def test_certificates_that_are_the_users_are_not_replaced(tmp_path: Path) -> None:
    make_secrets(tmp_path)
    (tmp_path / "ca/ca.key").unlink()
    own = (tmp_path / "router/tls.crt").read_bytes()
    make_secrets(tmp_path, RENEW_DAYS="366")
    assert (tmp_path / "router/tls.crt").read_bytes() == own
    (tmp_path / "router/tls.crt").unlink()
    with pytest.raises(subprocess.CalledProcessError) as caught:
        make_secrets(tmp_path)
    assert caught.value.returncode == 2
    assert "router/tls.crt is missing" in caught.value.stderr and "add it" in caught.value.stderr


def test_the_keys_of_all_services_stand_in_one_order() -> None:
    assert misplaced(COMPOSE) == []
    assert misplaced(COMPOSE.replace("    image: redis:", "    mem_limit: 1m\n    image: redis:")) == ["redis"]
    assert misplaced(COMPOSE.replace("    image: redis:", "    colour: red\n    image: redis:")) == ["redis"]


@pytest.mark.parametrize("name", services())
def test_a_service_is_guarded_and_watched(name: str) -> None:
    service = services()[name]
    assert service["read_only"] and service["init"]
    assert service["cap_drop"] == ["ALL"] and service["security_opt"] == ["no-new-privileges:true"]
    assert service["restart"] == ("no" if name in ONE_SHOT else "unless-stopped")
    assert ("healthcheck" in service) == (name not in ONE_SHOT)
    assert {how["condition"] for how in service.get("depends_on", {}).values()} <= {"service_healthy"}
    image, _, tag = service["image"].rpartition(":")
    assert image and re.search(r"\d+\.\d+\.\d+", tag)


def test_python_is_pinned_to_one_version_everywhere() -> None:
    assert f"ARG PYTHON_IMAGE={SETTINGS['FLICKER_PYTHON_IMAGE']}\n" in DOCKERFILE
    assert re.fullmatch(r"python:3\.\d+\.\d+-slim-\w+", SETTINGS["FLICKER_PYTHON_IMAGE"])


def test_ports_are_published_on_loopback_unless_told() -> None:
    ports = {name: service["ports"] for name, service in services().items() if "ports" in service}
    assert set(ports) == PUBLISHED
    assert all(port.startswith("127.0.0.1:") for published in ports.values() for port in published)
    opened = services(FLICKER_BIND="0.0.0.0")
    assert all(port.startswith("0.0.0.0:") for name in PUBLISHED for port in opened[name]["ports"])
    one = services(FLICKER_ROUTER_BIND="10.0.0.7")
    assert one["router"]["ports"] == ["10.0.0.7:50051:50051"] and one["grafana"]["ports"] == ["127.0.0.1:3000:3000"]


def test_each_router_has_a_port_and_one_alone_always_the_same() -> None:
    router = services()["router"]
    assert router["ports"] == ["127.0.0.1:50051:50051"] and router["deploy"]["replicas"] == 1
    several = services(FLICKER_ROUTERS="2", FLICKER_ROUTER_PORT="50051-50054")["router"]
    assert several["ports"] == ["127.0.0.1:50051-50054:50051"] and several["deploy"]["replicas"] == 2
    assert "container_name" not in router and "hostname" not in router, "a name of its own cannot be scaled"


def test_the_load_asks_every_router() -> None:
    command = shlex.split(services()["load"]["command"])
    address = channel.target(command[command.index("--host") + 1])
    assert address == "dns:///router:50051", "a name alone would be asked for one address"
    assert channel.SERVICE_CONFIG["loadBalancingConfig"] == [{"round_robin": {}}]


@pytest.mark.parametrize(("profile", "most"), [("cpu", 4096), ("gpu", 12288)])
def test_memory_limits_are_within_4_gib_or_12_with_a_gpu(profile: str, most: int) -> None:
    limits = [
        int(service["mem_limit"].removesuffix("m")) * MIB * service.get("deploy", {}).get("replicas", 1)
        for name, service in services().items()
        if name not in ONE_SHOT and profile in service.get("profiles", [profile])
    ]
    assert len(limits) == 8
    assert sum(limits) <= most * MIB


def test_a_full_store_refuses_before_its_container_runs_out_of_memory() -> None:
    redis = services()["redis"]
    flags = shlex.split(redis["command"])
    assert flags[flags.index("--maxmemory-policy") + 1] == "noeviction", "what is acknowledged is not dropped"
    bound = int(flags[flags.index("--maxmemory") + 1].removesuffix("mb"))
    assert bound <= 2 / 3 * int(redis["mem_limit"].removesuffix("m")), "while it rewrites its file it needs more"
    assert flags[flags.index("--save") + 1] == "" and flags[flags.index("--appendonly") + 1] == "yes"


def test_feedback_outlives_its_router() -> None:
    assert services()["router"]["volumes"][0] == f"router:{told('router')['FLICKER_SPOOL']}"
    assert "router" in read(COMPOSE)["volumes"]
    assert re.search(r"AS router\nRUN install --directory --owner=flicker /spool\n", DOCKERFILE), "it may write there"


def test_who_reads_logs_can_and_keeps_them_where_the_other_finds_them() -> None:
    environments = {name: service.get("environment", {}) for name, service in services().items()}
    readers = [name for name, environment in environments.items() if environment.get("FLICKER_CACHE") == "/cache"]
    assert readers == ["trainer", "trainer-gpu", "load"]
    for name in readers:
        assert {"type": "volume", "source": "cache", "target": "/cache"} in services()[name]["volumes"]
    assert "cache" in read(COMPOSE)["volumes"]
    _, *parts = re.split(r"^FROM \S+ AS (\S+)$", DOCKERFILE.replace("\\\n", ""), flags=re.MULTILINE)
    able = {stage: text for stage, text in zip(parts[0::2], parts[1::2], strict=True) if "pyarrow" in text}
    assert list(able) == ["trainer", "asking"]
    assert re.search(r"install --directory --owner=flicker /cache", DOCKERFILE), "they may write there"


def trained(**settings: str) -> ExperimentConfig:
    """What the trainer makes of its command line."""
    command = shlex.split(services(**settings)["trainer"]["command"])
    return parse(TrainerFlags, "trainer", command).config()


def test_trainer_and_load_live_in_the_same_world() -> None:
    config = trained()
    assert config.arms == tuple(SETTINGS["FLICKER_ARMS"].split())
    assert isinstance(config.world, SyntheticConfig)
    assert read_settings(told("load")).world_config() == config.world


@pytest.mark.parametrize("spec", ["torch:my_pkg.models:make", "average:torch:my_pkg.models:make,relu=smelu:beta=1,w=8"])
def test_arms_of_your_own_are_split_at_spaces_alone(spec: str) -> None:
    assert trained(FLICKER_ARMS=f"relu {spec} smelu:beta=2").arms == ("relu", spec, "smelu:beta=2")


COMPUTING = {"cpu": ["trainer", "replica"], "gpu": ["trainer-gpu", "replica-gpu"]}
"""Profile -> services that learn or rank: they import torch, and models of your own."""


@pytest.mark.parametrize("profile", COMPUTING)
def test_each_profile_runs_one_trainer_and_replicas_where_prometheus_looks(profile: str) -> None:
    found = {name: service for name, service in services().items() if profile in service.get("profiles", [])}
    assert list(found) == COMPUTING[profile]
    for (name, service), looked_for in zip(found.items(), ("trainer", "replica"), strict=True):
        aliases = service.get("networks", {}).get("default", {}).get("aliases", [])
        assert looked_for in (name, *aliases)
        assert service["image"].startswith(f"flicker-{looked_for}:")
    scraped = yaml.safe_load((ROOT / "deploy/prometheus/prometheus.yml").read_text())["scrape_configs"]
    names = [name for job in scraped for how in job.get("dns_sd_configs", []) for name in how["names"]]
    assert names == ["trainer", "replica", "router", "shadow", "load"]
    assert found[COMPUTING[profile][1]]["deploy"]["replicas"] == int(SETTINGS["FLICKER_REPLICAS"])


@pytest.mark.parametrize("trainer", ["trainer", "trainer-gpu"])
def test_trainers_share_the_duplicates_and_each_takes_a_free_share(trainer: str) -> None:
    found = services(FLICKER_TRAINERS="3")[trainer]
    flags = parse(TrainerFlags, "trainer", shlex.split(found["command"]))
    assert flags.shard == "any/3" and found["deploy"]["replicas"] == 3
    assert "trainer:/state" in found["volumes"] and told(trainer)["FLICKER_STATE"] == "/state"


def test_whoever_publishes_or_serves_generations_knows_where_weights_lie_and_trainers_alone_write_there() -> None:
    found = services(FLICKER_WEIGHTS="file:///weights")
    knowing = [name for name, service in found.items() if "FLICKER_WEIGHTS" in service.get("environment", {})]
    assert knowing == ["trainer", "trainer-gpu", "replica", "replica-gpu", "router"]
    for name in knowing:
        assert found[name]["environment"]["FLICKER_WEIGHTS"] == "file:///weights"
        (folder,) = (mount for mount in found[name]["volumes"] if "/weights" in str(mount))
        assert folder.get("read_only", False) != name.startswith("trainer")
    assert "/weights" in DOCKERFILE, "a volume is its owner's whose folder it was made for"


def test_all_that_compute_in_the_profile_gpu_have_the_device_and_use_it() -> None:
    having = [name for name, service in services().items() if "resources" in service.get("deploy", {})]
    assert having == COMPUTING["gpu"]
    trainer, replica = (services()[name] for name in having)
    for service in (trainer, replica):
        (device,) = service["deploy"]["resources"]["reservations"]["devices"]
        assert device == {"driver": "nvidia", "count": 1, "capabilities": ["gpu"]}
    assert trainer["entrypoint"] == ["python", "-m", "trainer", "--device", "cuda"]
    assert shlex.split(trainer["command"]) == shlex.split(services()["trainer"]["command"])
    assert told("replica-gpu") == told("replica") | {"FLICKER_DEVICE": "cuda"}


CODE = {"FLICKER_CODE": "/home/me/code", "FLICKER_MODELS": "my_pkg.models:make"}


def test_whoever_learns_or_ranks_and_nobody_else_may_import_models_of_your_own() -> None:
    importing = [name for names in COMPUTING.values() for name in names]
    assert {name for name, service in services().items() if "/code" in str(service.get("volumes"))} == set(importing)
    for name, service in services(**CODE).items():
        environment = service.get("environment", {})
        assert environment.get("FLICKER_MODELS") == (CODE["FLICKER_MODELS"] if name in importing else None)
        assert environment.get("PYTHONPATH") == ("/code" if name in importing else None)
        for mount in service.get("volumes", []):
            if "/code" in str(mount):
                assert (mount["type"], mount["source"], mount["target"]) == ("bind", "/home/me/code", "/code")
                assert mount["read_only"] and mount["bind"] == {"create_host_path": False}


def test_the_checks_of_the_containers_allow_the_factories_of_their_arms() -> None:
    exports = re.findall(r"^export (.*)$", (ROOT / "tests/containers/run.sh").read_text(), re.MULTILINE)
    given = dict(setting.split("=", 1) for line in exports for setting in shlex.split(line))
    arms = trained(**given).arms
    assert arms == tuple(given["FLICKER_ARMS"].split())
    assert factories_of(arms) == given["FLICKER_MODELS"].split()
    assert told("checks", **given)["FLICKER_ARMS"] == given["FLICKER_ARMS"]


@pytest.mark.parametrize("name", COMPUTING["cpu"] + COMPUTING["gpu"])
def test_without_code_of_your_own_nothing_may_be_imported(name: str) -> None:
    assert told(name)["FLICKER_MODELS"] == told(name)["PYTHONPATH"] == ""
    (mount,) = (mount for mount in services()[name]["volumes"] if "/code" in str(mount))
    assert (ROOT / mount["source"]).is_dir(), "what is mounted must be there"


def test_a_shadow_needs_nothing_of_the_simulator_and_reads_its_flags_from_the_environment(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    found = services(FLICKER_FIRST="triton:8001", FLICKER_SECOND_VERSION="3", FLICKER_ITEMS="items")["shadow"]
    assert (
        found["profiles"] == ["shadow"] and "depends_on" not in found and found["image"].startswith("flicker-router:")
    )
    for name, value in told("shadow", FLICKER_FIRST="triton:8001", FLICKER_SECOND_VERSION="3").items():
        monkeypatch.setenv(name, value)
    flags = parse_flags(ShadowFlags, "flicker shadow", [])
    assert (flags.first, flags.second, flags.second_version, flags.sample) == ("triton:8001", "", "3", 0.1)
    assert (flags.host, flags.port, flags.metrics_port) == ("0.0.0.0", 50051, 9100)


@pytest.mark.parametrize("log", ["", "clicks.toml"])
def test_a_log_of_the_host_takes_the_place_of_the_synthetic_world(log: str) -> None:
    settings = {"FLICKER_DATA": "/home/me/logs", "FLICKER_LOG": log}
    world = trained(**settings).world
    assert world == ReplayConfig(path=Path("/log") / log)
    assert read_settings(told("load", **settings)).world_config() == world
    mounts = [v for name in ("trainer", "load") for v in services(**settings)[name]["volumes"] if "/log" in str(v)]
    assert [(mount["source"], mount["target"], mount["read_only"]) for mount in mounts] == [
        ("/home/me/logs", "/log", True)
    ] * 2


def page_flags(monkeypatch: pytest.MonkeyPatch, **settings: str) -> PageFlags:
    """The page's, as its container starts it. Raises SettingError where it does not."""
    for name, value in told("page", **settings).items():
        monkeypatch.setenv(name, value)
    flags = parse_flags(PageFlags, "page", shlex.split(services(**settings)["page"]["command"]))
    require_guarded(os.environ[TOKEN], os.environ["FLICKER_BIND"], flags.controls is not None)
    return flags


def test_the_page_looks_at_every_process_and_has_no_controls(monkeypatch: pytest.MonkeyPatch) -> None:
    flags = page_flags(monkeypatch)
    assert flags.controls is None and flags.router == "dns:///router:50051" and flags.host == "0.0.0.0"
    assert flags.metrics == tuple(f"http://{name}:9100/metrics" for name in ("trainer", "replica", "router", "load"))
    assert services()["page"]["ports"] == [f"127.0.0.1:8080:{flags.port}"]
    assert f":{flags.port}/healthz" in services()["page"]["healthcheck"]["test"][3]


def test_a_page_that_others_reach_needs_a_token(monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(SettingError, match=f"{TOKEN} = nothing: others can reach the page at 0.0.0.0"):
        page_flags(monkeypatch, FLICKER_BIND="0.0.0.0")
    page_flags(monkeypatch, FLICKER_BIND="0.0.0.0", FLICKER_PAGE_TOKEN="a-token-of-a-test-1234")


def test_with_the_secure_overlay_the_page_looks_at_the_same_by_tls(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    make_secrets(tmp_path)
    plain = page_flags(monkeypatch)
    settings = {"FLICKER_BIND": "0.0.0.0", "FLICKER_NAMES": "ranks.lan"}
    service = secure_services(**settings)["page"]
    for name, value in environment(service):
        monkeypatch.setenv(name, value.replace("/secrets/", f"{tmp_path}/page/"))
    flags = parse_flags(PageFlags, "page", shlex.split(service["command"]))
    assert (flags.router, flags.host, flags.port) == (plain.router, plain.host, plain.port) and flags.controls is None
    assert flags.metrics == tuple(url.replace("http:", "https:") for url in plain.metrics)
    opens = tokens_of("", flags.page_token_file)()
    assert opens == [(tmp_path / "user/page.token").read_text().strip()]
    assert os.environ["FLICKER_NAMES"] == "ranks.lan", "as its certificate has it"
    assert flags.security.credentials().call_metadata("router:50051")[0][1].split()[1] in (
        (tmp_path / "router/tokens").read_text().split()
    )
    assert f"https://127.0.0.1:{flags.port}/healthz" in service["healthcheck"]["test"][3]


def told(service: str, **settings: str) -> dict[str, str]:
    """The environment of a service."""
    return {
        name: "" if value is None else str(value)
        for name, value in services(**settings)[service]["environment"].items()
    }


def run(*command: str) -> str:
    """What a tool has to complain of, empty where it is content."""
    done = subprocess.run(command, cwd=ROOT, text=True, capture_output=True)
    return done.stdout + done.stderr if done.returncode or done.stdout else ""


def test_linters_are_content() -> None:
    tools = Path(sys.executable).parent
    assert run(str(tools / "hadolint"), "Dockerfile") == ""
    rules = "{extends: default, rules: {line-length: {max: 120}, document-start: disable}}"
    assert (
        run(
            sys.executable,
            "-m",
            "yamllint",
            "--strict",
            "-d",
            rules,
            "docker-compose.yml",
            "docker-compose.secure.yml",
            "deploy",
        )
        == ""
    )


@pytest.mark.parametrize("profile", ["cpu", "gpu", "shadow", "test"])
def test_compose_is_content(profile: str) -> None:
    docker = shutil.which("docker")
    if not docker or subprocess.run([docker, "compose", "version"], capture_output=True).returncode:
        pytest.skip("no docker compose on PATH")
    assert run(docker, "compose", "--profile", profile, "config", "--quiet") == ""
