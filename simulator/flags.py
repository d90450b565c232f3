"""The flags of `flicker run`: help and ranges come from the docstrings in config.py, defaults from the preset.

Beside them what the live processes share: what is learned, and the wiring, which comes from the environment.
"""

from __future__ import annotations

import argparse
import contextlib
import io
import os
import re
from dataclasses import dataclass, field, fields, replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal, Self, TypeVar, get_args

import tyro

from simulator.config import PRESETS, ExperimentConfig, ReplayConfig, SyntheticConfig, require
from simulator.errors import FlickerError, SettingError
from simulator.files import parse_bytes
from simulator.process import Setting, from_environment
from simulator.security.credentials import VARIABLES, Credentials, file_from_environment
from simulator.store.access import URL_VARIABLE, Access, has_password, without_password

if TYPE_CHECKING:
    from simulator.store.protocol import Store

Flat, Hidden = tyro.conf.OmitArgPrefixes, tyro.conf.Suppress


@dataclass(frozen=True)
class ComparisonFlags(ExperimentConfig):
    """What is compared, and how it is measured."""

    world: Annotated[SyntheticConfig | ReplayConfig, Hidden] = field(default_factory=SyntheticConfig)


@dataclass(frozen=True)
class Replay(ReplayConfig):
    """A real click log, named with --data."""

    path: Annotated[Path, Hidden] = Path()


@dataclass(frozen=True)
class Resources:
    """What each part of a run, or each run of a sweep, has of a Ray cluster."""

    cpus: float = 1.0
    """Cores of each, more than 0, on one node: as many threads learn."""
    gpus: float = 0.0
    """GPUs of each, 0 or more; a share such as 0.25 lets four use one."""
    memory: str = ""
    """Memory of each, such as `2 GiB`: Ray places no more on a node than fits (default: it does not ask)."""

    def __post_init__(self) -> None:
        require(0 < self.cpus < 100_000, "cpus", self.cpus, "more than 0")
        require(0 <= self.gpus < 100_000, "gpus", self.gpus, "0 or more")
        require(self.as_ray()["memory"] is None or self.as_ray()["memory"] > 0, "memory", self.memory, "more than 0")

    @property
    def threads(self) -> int:
        """So many threads may learn."""
        return max(1, int(self.cpus))

    def as_ray(self) -> dict[str, Any]:
        """As options of a task. Raises SettingError where the memory is no size."""
        memory = parse_bytes("memory", self.memory) if self.memory else None
        return {"num_cpus": self.cpus, "num_gpus": self.gpus, "memory": memory}


def require_ray(backend: str, resources: Resources) -> None:
    """Raise SettingError where resources are named that only Ray would give."""
    requested = ", ".join(str(value) for value in values(resources).values() if value)
    require(backend == "ray" or resources == Resources(), "cpus, gpus, memory", requested, "with --backend ray alone")


@dataclass(frozen=True)
class Spread:
    """One run over several machines, exactly (docs/cluster.md)."""

    part: str = ""
    """Learn one part of the run alone, such as 0/4, 1/4, 2/4 or 3/4: a share of each arm's models. All parts share
    --out; `flicker merge OUT` makes their result. Done again, it goes on where it stands."""
    backend: Literal["local", "ray"] = "local"
    """Where the models learn: in this process, or as --parts tasks on a Ray cluster, of which lost ones are started
    again; every node needs the log, and --out, at the same path."""
    parts: int | None = None
    """With --backend ray: in how many parts (default: as many as the cluster has room for)."""
    resources: Annotated[Resources, Flat] = field(default_factory=Resources)
    address: str | None = None
    """Of a Ray cluster, such as auto (default: one on this machine)."""
    patience: float = 3_600.0
    """Seconds for which a part waits for another one's slates, more than 0; on made-up worlds alone, whose models learn
    from them."""

    def __post_init__(self) -> None:
        require(self.parts is None or self.parts >= 1, "parts", self.parts, "at least 1")
        require(self.patience > 0, "patience", self.patience, "more than 0 seconds")
        ray, hint = (
            self.backend == "ray",
            "with --backend ray; to run parts by hand, each takes --part, as in --part 0/4",
        )
        require(ray or self.parts is None, "parts", self.parts, hint)
        require(not (ray and self.part), "part", self.part, "without --backend ray, which runs all --parts")
        require_ray(self.backend, self.resources)
        if self.part:
            self.of_part()

    def of_part(self) -> tuple[int, int]:
        """Number of the part, and of how many. Raises SettingError."""
        match = re.fullmatch(r"(\d{1,9})/(\d{1,9})", self.part)
        number, of = (int(match[1]), int(match[2])) if match else (0, 0)
        last = f"{of - 1}/{of}" if of else "3/4"
        require(number < of, "part", self.part, f"from 0/{of or 4} to {last}, the last of {of or 'four'}")
        return number, of


@dataclass(frozen=True)
class RunFlags:
    """Teach duplicates of every arm the same click log, ask all of them the same queries, and count what differs.

    Prints a table, and leaves a page with pictures in --out.
    """

    preset: Literal["relu_vs_smelu", "smoke", "no_noise"] = "relu_vs_smelu"
    """Where settings come from that no flag gives. relu_vs_smelu: the question itself, on a million made-up events.
    smoke: everything once in seconds. no_noise: every source of noise off, so that all differences must be 0."""
    data: Path | None = None
    """A real log instead of the synthetic world: a mapping file (*.toml) that says what the columns of CSV or Parquet
    mean (docs/data.md; `flicker check` guesses one), or a folder of MovieLens, RecBole or MIND."""
    out: Path | None = None
    """Folder for report.html, result.json and config.json (default: results/DATE-TIME-PRESET)."""
    resume: bool = False
    """Go on with the interrupted run in --out; the numbers are those of a run without the interruption."""
    keep_predictions: bool = False
    """Leave what every model said of the final queries and the held-out events in OUT/predictions, for
    `flicker compare`."""
    page: bool = True
    """Draw report.html; `flicker report DIR` draws it later."""
    spread: Annotated[Spread, Flat] = field(default_factory=Spread)
    compare: Annotated[ComparisonFlags, Flat] = field(default_factory=ComparisonFlags)
    synthetic: Annotated[SyntheticConfig, Flat] = field(default_factory=SyntheticConfig)
    replay: Annotated[Replay, Flat] = field(default_factory=Replay)

    @classmethod
    def of(cls, preset: str, **fixed: int) -> Self:
        """The flags as a preset sets them, but for `fixed` settings."""
        config = PRESETS[preset]()
        assert isinstance(config.world, SyntheticConfig)
        compare, world = replace(cls().compare, **values(config) | fixed), config.world
        return cls(preset=preset, compare=compare, synthetic=world)  # type: ignore[arg-type]  # one of Literal

    def given(self) -> set[str]:
        """Names of the settings of what is compared that differ from the preset's: they are not fitted to a log."""
        chosen, default = self.compare, type(self).of(self.preset).compare
        pairs = (chosen, default), (chosen.model, default.model), (chosen.noise, default.noise)
        return {name for one, other in pairs for name, value in values(one).items() if value != getattr(other, name)}

    def config(self) -> ExperimentConfig:
        """The full config. Raises SettingError for a flag that describes the world that is not used."""
        default = RunFlags.of(self.preset)
        if self.data is None:
            _refuse(self.replay, default.replay, "describes a real log: name one with --data")
            return ExperimentConfig(**values(self.compare) | {"world": self.synthetic})
        _refuse(self.synthetic, default.synthetic, "describes the synthetic world, but --data names a log")
        world = ReplayConfig(**values(self.replay) | {"path": self.data})
        return ExperimentConfig(**values(self.compare) | {"world": world})


@dataclass(frozen=True)
class Learning(ComparisonFlags):
    """What is learned. Every replica serves one duplicate of every arm."""

    fleets: Annotated[int, Hidden, tyro.conf.Fixed] = 1
    worlds: Annotated[int, Hidden, tyro.conf.Fixed] = 1
    partners: Annotated[int, Hidden, tyro.conf.Fixed] = 20
    generations: Annotated[int, Hidden, tyro.conf.Fixed] = 2
    queries: Annotated[int, Hidden, tyro.conf.Fixed] = 500
    queries_per_generation: Annotated[int, Hidden, tyro.conf.Fixed] = 50


@dataclass(frozen=True)
class LiveFlags(RunFlags):
    """Those that decide what the live system learns: one fleet, without an end."""

    resume: Annotated[bool, Hidden, tyro.conf.Fixed] = False
    keep_predictions: Annotated[bool, Hidden, tyro.conf.Fixed] = False
    page: Annotated[bool, Hidden, tyro.conf.Fixed] = True
    spread: Annotated[Spread, Hidden, tyro.conf.Fixed] = field(default_factory=Spread)
    compare: Annotated[Learning, Flat] = field(default_factory=Learning)

    @classmethod
    def of(cls, preset: str, **fixed: int) -> Self:
        """The flags as a preset sets them, with one fleet."""
        return super().of(preset, fleets=1, **fixed)


def from_env(name: str, default: Setting) -> Setting:
    """A field whose default is what an environment variable says, see `from_environment`."""
    return field(default_factory=lambda: from_environment(name, default))


def choice_from_env(name: str, default: str, choices: Any) -> Any:
    """The same of a Literal, whose name must be one of its own."""

    def named() -> str:
        value = from_environment(name, default)
        require(value in get_args(choices), name, value, f"one of {', '.join(get_args(choices))}")
        return value

    return field(default_factory=named)


def require_address(setting: str, address: str) -> None:
    """Raise SettingError unless it is host:port."""
    _, colon, port = address.rpartition(":")
    good = colon != "" and port.isdecimal() and len(port) <= 5 and 0 < int(port) < 65_536
    require(good, setting, address, "host:port, a port from 1 to 65535")


def file_from_env(variable: str) -> Any:
    """A field whose default is the file that an environment variable names, or none."""
    return field(default_factory=lambda: file_from_environment(variable))


@dataclass(frozen=True)
class Secured:
    """Certificates and tokens, see docs/security.md; without them no TLS, and everybody is let in."""

    tls_cert: Path | None = file_from_env(VARIABLES["tls_cert"])
    """PEM file of this process's certificate: it then speaks TLS. Read again when it changes, as the others (default:
    FLICKER_TLS_CERT; docs/security.md)."""
    tls_key: Path | None = file_from_env(VARIABLES["tls_key"])
    """PEM file of its private key (default: FLICKER_TLS_KEY)."""
    tls_ca: Path | None = file_from_env(VARIABLES["tls_ca"])
    """PEM file of the authorities whose certificates others must show: those that it calls, by TLS then, and, unless
    it asks for tokens, those that call it (default: FLICKER_TLS_CA)."""
    token_file: Path | None = file_from_env(VARIABLES["token_file"])
    """File of tokens, one a line: a server takes calls with one of them alone, a client sends the first (default:
    FLICKER_TOKEN_FILE)."""

    def credentials(self) -> Credentials:
        """What is in the files. Raises SettingError where one cannot be used."""
        return Credentials(self.tls_cert, self.tls_key, self.tls_ca, self.token_file)


@dataclass(frozen=True)
class Listening:
    """Where a live process listens."""

    security: Annotated[Secured, Flat] = field(default_factory=Secured)
    host: str = from_env("FLICKER_HOST", "127.0.0.1")
    """Address to listen at; 0.0.0.0 for all (default: FLICKER_HOST)."""
    metrics_port: int = from_env("FLICKER_METRICS_PORT", 0)
    """Port of the metrics page, 0 for any free one, which is printed (default: FLICKER_METRICS_PORT)."""

    def __post_init__(self) -> None:
        require(0 <= self.metrics_port < 65_536, "metrics_port", self.metrics_port, "from 0 to 65535")
        self.security.credentials().require_safe(self.host)


@dataclass(frozen=True)
class Wiring(Listening):
    """And where it finds the others."""

    store: str = from_env("FLICKER_REDIS_URL", "")
    """The store, such as redis://127.0.0.1:6379/0 (default: the environment's FLICKER_REDIS_URL)."""
    run: str = from_env("FLICKER_RUN", "flicker")
    """Name of this run among others in the same store (default: FLICKER_RUN)."""
    store_password_file: Path | None = file_from_env("FLICKER_REDIS_PASSWORD_FILE")
    """File of the store's password, whose user the URL names, as in rediss://trainer@HOST:6379/0 (default:
    FLICKER_REDIS_PASSWORD_FILE)."""
    signing_key: Path | None = file_from_env("FLICKER_SIGNING_KEY")
    """File of keys, one a line: generations are signed with the first, and none is served that none of them has signed
    (default: FLICKER_SIGNING_KEY; without one nothing is signed or checked)."""

    weights: str = from_env("FLICKER_WEIGHTS", "")
    """URL under which published weights lie, of a folder that all machines see or an object store: file:///folder,
    s3://bucket/prefix. The same for trainers, replicas and routers (default: FLICKER_WEIGHTS, or nothing: in the store;
    docs/trainers.md)."""

    def __post_init__(self) -> None:
        super().__post_init__()
        if has_password(self.store) and self.store != os.environ.get(URL_VARIABLE):
            hint = f"others can read its password: put it into --store-password-file, or the URL into {URL_VARIABLE}"
            raise SettingError("store", without_password(self.store), hint)

    def open_store(self, **bounds: int) -> Store:
        """The store, see store/redis.py. Raises SettingError where none is named, or a file cannot be used."""
        from simulator.store.redis import open_store

        require(self.store != "", "store", "nothing", "name one with --store, or in FLICKER_REDIS_URL")
        access = Access(self.security.credentials(), self.store_password_file)
        keys, weights = self.signing_key, self.weights
        return open_store(self.store, run=self.run, access=access, signing_key=keys, weights=weights, **bounds)


AnyFlags = TypeVar("AnyFlags", bound=RunFlags)
Flags = TypeVar("Flags")


def parse_run(arguments: list[str]) -> RunFlags:
    """Flags of `flicker run`, see `parse`."""
    return parse(RunFlags, "flicker run", arguments)


def parse(kind: type[AnyFlags], program: str, arguments: list[str]) -> AnyFlags:
    """Flags of a program. Prints help and exits with 0 for --help; raises FlickerError for what cannot be used."""
    peek = argparse.ArgumentParser(add_help=False, allow_abbrev=False)
    peek.add_argument("--preset", nargs="?")  # one without a value is complained of below
    preset = peek.parse_known_args(arguments)[0].preset
    default = kind.of(preset if preset in PRESETS else kind.preset)
    return parse_flags(kind, program, arguments, default)


def parse_flags(kind: type[Flags], program: str, arguments: list[str], default: Flags | None = None) -> Flags:
    """Flags of any dataclass, help from its docstrings. Ends and raises as `parse` does."""
    complaint = io.StringIO()
    try:
        with contextlib.redirect_stderr(complaint):
            if default is None:
                return tyro.cli(kind, prog=program, args=arguments)
            return tyro.cli(kind, prog=program, args=arguments, default=default)
    except SystemExit as ended:
        if not ended.code:
            raise
        raise FlickerError(_one_line(complaint.getvalue(), program)) from None


def _one_line(box: str, program: str) -> str:
    """The words in the box that tyro draws around what it has to say."""
    lines = [re.sub(r"\x1b\[[0-9;]*m", "", line).strip("│ ") for line in box.splitlines()]
    words = " ".join(line for line in lines if line and line[0] not in "╭╰─" and "full helptext" not in line)
    words = re.sub(r"^Error parsing [A-Za-z]\S*: ", "", words)  # our own sections, which the user does not know
    words, _, its_help = words.partition(" Argument helptext: ")
    return f"{words}; {f'its help: {its_help}' if its_help else f'see {program} --help'}"


def _refuse(unused: Any, default: Any, why: str) -> None:
    for name, value in values(unused).items():
        if value != getattr(default, name):
            raise SettingError(f"--{name.replace('_', '-')}", value, why)


def values(config: Any) -> dict[str, Any]:
    """The fields of a dataclass, as they are."""
    return {f.name: getattr(config, f.name) for f in fields(config)}
