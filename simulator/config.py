"""Science settings as frozen dataclasses; every field says unit and range, checked when it is built.

Presets, at the end, are functions that return a full `ExperimentConfig`; variants are made by `replace`.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any, Literal

from simulator.errors import ResultError, SettingError


def require(condition: bool, setting: str, value: object, hint: str) -> None:
    """Raise SettingError naming the setting, its value and the way out, unless the condition holds."""
    if not condition:
        raise SettingError(setting, value, hint)


@dataclass(frozen=True)
class SyntheticConfig:
    """A made-up world whose true click probabilities are known."""

    events: int = 1_000_000
    """Impressions from start to end, the held-out ones included; at least 1,000."""
    users: int = 5_000
    """Number of users, at least 10."""
    items: int = 2_000
    """Size of the catalogue over the whole run, at least 20; not all of them are there all the time."""
    interaction: float = 0.5
    """Share of the variance of the true log-odds that is user x item, which no additive model can learn; 0 to 1."""
    drift: float = 0.2
    """How far tastes wander from start to end, as a share of their spread; 0 (never) to 1."""
    turnover: float = 0.3
    """Share of the catalogue that arrives after the start or leaves before the end; 0 (none) to 0.9."""
    position_bias: float = 0.5
    """Exponent: an item at position p (first = 1) is examined with probability p ** -position_bias; 0 to 3."""

    def __post_init__(self) -> None:
        require(self.events >= 1_000, "events", self.events, "at least 1,000")
        require(self.users >= 10, "users", self.users, "at least 10")
        require(self.items >= 20, "items", self.items, "at least 20")
        require(0 <= self.interaction <= 1, "interaction", self.interaction, "from 0 to 1")
        require(0 <= self.drift <= 1, "drift", self.drift, "from 0 to 1")
        require(0 <= self.turnover <= 0.9, "turnover", self.turnover, "from 0 to 0.9")
        require(0 <= self.position_bias <= 3, "position_bias", self.position_bias, "from 0 to 3")


@dataclass(frozen=True)
class ReplayConfig:
    """A real click log, learned from in time order."""

    path: Path
    """A mapping file (*.toml), or a folder or file of a family that needs none: MovieLens, RecBole, MIND."""
    negatives: int = 4
    """Sampled non-engagements for each engagement, where the log records engagements only; 1 to 100."""
    recent: int = 20_000
    """Half of the negatives, and candidates by popularity, come from this many trailing engagements; at least 100."""
    horizon: float = 86_400.0
    """Seconds after a query within which an engagement counts as its answer; more than 0."""
    bad_rows: Literal["stop", "skip"] = "stop"
    """`stop` at the first damaged row with its line number, or `skip` them all, count and report them."""
    limit: int | None = None
    """Read at most this many rows of the log (after sorting by time, where the family is unsorted); all by default."""

    def __post_init__(self) -> None:
        require(1 <= self.negatives <= 100, "negatives", self.negatives, "from 1 to 100")
        require(self.recent >= 100, "recent", self.recent, "at least 100 engagements")
        require(self.horizon > 0, "horizon", self.horizon, "more than 0 seconds")
        require(self.bad_rows in ("stop", "skip"), "bad_rows", self.bad_rows, "stop or skip")
        require(self.limit is None or self.limit >= 100, "limit", self.limit, "at least 100 rows")


@dataclass(frozen=True)
class ModelConfig:
    """The deep click model; an arm may have its own norm, learning rate, widths and engine (`relu:norm=none`)."""

    dim: int = 16
    """Length of an embedding vector, 1 to 512."""
    hidden: tuple[int, ...] = (64, 32)
    """Widths of the hidden layers, at least one, each 1 to 8,192."""
    norm: Literal["none", "before", "after", "weight"] = "none"
    """Layer norm before or after the activation, or weights of unit length per neuron (`weight`), or none."""
    learning_rate: float = 0.08
    """Adagrad's step size, more than 0. It, norm and widths are what learns best early in the made-up world and in
    MovieTweetings alike, by log loss (simulator/LOG.md)."""
    initial_accumulator: float = 0.00001
    """Adagrad's sum of squares at the start, more than 0: larger means smaller first steps."""
    batch: int = 512
    """Events per mini-batch, at least 1."""
    engine: Literal["auto", "native", "torch"] = "auto"
    """What teaches and scores: `native`, the compiled kernels (CPU, not every setting), `torch`, PyTorch on any device,
    or `auto`, native where it can be. All duplicates of an arm are on one; the two agree within rounding."""
    hash_rows: int = 0
    """Most rows of the embedding table for users, and as many for items: more of them share rows by a hash; 0: a row
    for each."""

    def __post_init__(self) -> None:
        require(1 <= self.dim <= 512, "dim", self.dim, "from 1 to 512")
        require(len(self.hidden) >= 1, "hidden", self.hidden, "at least one hidden layer")
        for width in self.hidden:
            require(1 <= width <= 8_192, "hidden", self.hidden, "each width from 1 to 8,192")
        require(self.norm in ("none", "before", "after", "weight"), "norm", self.norm, "none, before, after or weight")
        in_range = 0 < self.learning_rate < float("inf")
        require(in_range, "learning_rate", self.learning_rate, "more than 0")
        require(self.initial_accumulator > 0, "initial_accumulator", self.initial_accumulator, "more than 0")
        require(self.batch >= 1, "batch", self.batch, "at least 1 event")
        require(self.engine in ("auto", "native", "torch"), "engine", self.engine, "auto, native or torch")
        require(self.hash_rows >= 0, "hash_rows", self.hash_rows, "0 (a row for each) or a number of rows")


@dataclass(frozen=True)
class NoiseConfig:
    """What differs between the duplicates of a fleet. Each source has its own switch; all off: bit-identical.

    Every source but `racing` is drawn from the seed: a run done again gives the same numbers.
    """

    init: Literal["same", "own"] = "same"
    """`same`: the duplicates of a fleet share one initialisation. `own`: each has its own."""
    window: int = 16
    """Each duplicate learns the events of a window of this many mini-batches in its own order; 0 keeps the
    order of the log."""
    lost: float = 0.0
    """Probability that a duplicate never learns a mini-batch (a worker died); 0 to below 1."""
    delay: int = 0
    """A mini-batch's gradient is applied after a random 0 to `delay` further mini-batches, as asynchronous training
    does; 0 to 64."""
    racing: int = 0
    """Threads of each duplicate that learn at once on the same weights, without locks, as Hogwild does (Niu et al.,
    arXiv 1106.5730): each takes the next mini-batch, computes its gradient from the weights as they are meanwhile, and
    applies it. 0 (off) to 64; 1 gives the numbers of 0. From 2 on no run can be repeated: two of one seed differ. By
    the native engine alone."""
    changed: int = 0
    """Each duplicate of a fleet but the first leaves out so many engagements of its own, drawn from those of the first
    window (of 16 mini-batches where nothing is shuffled): how sensitive rankings are to one event of the training data
    (arXiv 2201.12686). 0 (none) to the events of that window."""
    precision: Literal["float32", "bfloat16"] = "float32"
    """`bfloat16`: weights are kept in bfloat16 with stochastic rounding, each duplicate with its own draws."""
    reductions: bool = False
    """Each duplicate sums the same mini-batch in another order: rounding alone."""

    def __post_init__(self) -> None:
        require(self.init in ("same", "own"), "noise.init", self.init, "same or own")
        require(self.window >= 0, "noise.window", self.window, "0 (off) or a number of mini-batches")
        require(0 <= self.lost < 1, "noise.lost", self.lost, "from 0 to below 1")
        require(0 <= self.delay <= 64, "noise.delay", self.delay, "from 0 to 64 mini-batches")
        require(0 <= self.racing <= 64, "noise.racing", self.racing, "from 0 (off) to 64 threads")
        require(self.changed >= 0, "noise.changed", self.changed, "0 (none) or a number of engagements")
        require(self.precision in ("float32", "bfloat16"), "noise.precision", self.precision, "float32 or bfloat16")


NO_NOISE = NoiseConfig(window=0)


@dataclass(frozen=True)
class ExperimentConfig:
    """Everything that decides the numbers of a run (but for the machine)."""

    world: SyntheticConfig | ReplayConfig = field(default_factory=SyntheticConfig)
    """Where events come from."""
    arms: tuple[str, ...] = ("relu", "smelu:beta=0.1")
    """Designs under comparison, such as `relu`, `smelu:beta=0.5`; the first is what ratios refer to. A repeated
    spec is an independent second set, written `relu#2`. Other cures stand before an activation: `ensemble:relu:m=3`
    (`m=3,narrow`: of equal parameters), `codistill:relu:m=2`, `antidistill:relu:m=3`, `anchor:relu` (distilled from
    the previous generation), `average:relu:decay=0.85` (of weights), `fresh:relu:last=5` (trained afresh). Settings
    of an arm alone stand behind it too: `relu:norm=none,lr=0.02`, `relu:hidden=256x128`, `dim=8`, `engine=torch`;
    `torch:my_pkg.models:make,width=64` is a module of your own (docs/own-model.md), and with `relu=smelu:beta=1`, which
    stands last, the same with its ReLUs replaced.
    `lr=tuned` finds the rate by log loss on events 10 to 30 % of the log; `flicker run` then counts nothing of the
    first 30 %, `flicker up` counts from the start."""
    model: ModelConfig = field(default_factory=ModelConfig)
    """The click model."""
    noise: NoiseConfig = field(default_factory=NoiseConfig)
    """What differs between duplicates."""
    duplicates: int = 4
    """Models per arm and fleet, at least 2."""
    fleets: int = 1
    """Independent fleets, each with its own initialisation, at least 1. With one, intervals are conditional on its
    initialisation."""
    partners: int = 20
    """Others of its fleet with which each duplicate is compared, drawn from the seed where there are more; an even
    number, at least 2. Fleets of up to 21 are compared pair by pair; of 1,000 all pairs would take 50 times as long."""
    generations: int = 20
    """Refreshes from start to end, at least 2; each but the last covers a whole number of shuffle windows."""
    k: int = 10
    """Length of a slate, 1 to `candidates`."""
    candidates: int = 200
    """Items ranked per query, at least 2."""
    queries: int = 500
    """Queries of the final measurement, at least 2."""
    queries_per_generation: int = 50
    """Queries asked at each generation, at least 2."""
    resamples: int = 1_000
    """Draws of the bootstrap behind each 95 % interval, 20 or more; those of each generation are at most 200. Fewer are
    faster and make rougher intervals, for runs whose spread over seeds is what counts."""
    by: tuple[str, ...] = ()
    """Columns of the log by whose values results are shown too, such as `country`."""
    seed: int = 0
    """Seed of the world and of every duplicate, 0 or more."""
    worlds: int = 1
    """Made-up worlds to run in, one after another, with this seed, the next one and so on: intervals then say what
    other worlds would show. Each costs as much time as the first. At least 1."""
    device: Literal["cpu", "cuda"] = "cpu"
    """Where the duplicates learn and rank."""

    def __post_init__(self) -> None:
        require(len(self.arms) >= 1, "arms", self.arms, "at least one arm, such as relu")
        require(self.duplicates >= 2, "duplicates", self.duplicates, "at least 2, or there is nothing to compare")
        require(self.fleets >= 1, "fleets", self.fleets, "at least 1")
        even = self.partners >= 2 and self.partners % 2 == 0
        require(even, "partners", self.partners, "an even number, at least 2")
        require(self.generations >= 2, "generations", self.generations, "at least 2, or nothing is ever refreshed")
        require(self.candidates >= 2, "candidates", self.candidates, "at least 2 items to rank")
        require(1 <= self.k <= self.candidates, "k", self.k, f"from 1 to the number of candidates ({self.candidates})")
        require(self.queries >= 2, "queries", self.queries, "at least 2")
        require(self.queries_per_generation >= 2, "queries_per_generation", self.queries_per_generation, "at least 2")
        require(self.resamples >= 20, "resamples", self.resamples, "at least 20")
        require(self.seed >= 0, "seed", self.seed, "0 or more")
        require(self.worlds >= 1, "worlds", self.worlds, "at least 1")
        one = self.worlds == 1 or isinstance(self.world, SyntheticConfig)
        require(one, "worlds", self.worlds, "1 with a log, which is one world; for other models on it, --vary seed")
        require(self.device in ("cpu", "cuda"), "device", self.device, "cpu or cuda")
        first, changed = self.chunk_events, self.noise.changed
        require(changed <= first, "noise.changed", changed, f"at most {first:,}, the events of the first window")

    @property
    def repeatable(self) -> bool:
        """Whether a second run gives the same numbers."""
        return self.noise.racing < 2

    @property
    def few_resamples(self) -> int:
        """Draws of the bootstrap where there are many intervals: of each generation, bucket and slice."""
        return min(200, self.resamples)

    @property
    def chunk_events(self) -> int:
        """Events that are learned at a time: a shuffle window, or 16 mini-batches where nothing is shuffled."""
        return self.model.batch * (self.noise.window or 16)


def relu_vs_smelu() -> ExperimentConfig:
    """The question itself: ReLU against SmeLU on a synthetic world of a million events. About two minutes."""
    return ExperimentConfig(fleets=3)


def smoke() -> ExperimentConfig:
    """Everything once, small and in a few seconds; too short to conclude anything from."""
    return ExperimentConfig(
        world=SyntheticConfig(events=40_000, users=500, items=300),
        model=ModelConfig(dim=8, hidden=(32, 16), batch=256),
        noise=NoiseConfig(window=8),
        duplicates=3,
        generations=5,
        candidates=100,
        queries=100,
        queries_per_generation=20,
    )


def no_noise() -> ExperimentConfig:
    """The null experiment: every source of noise is off, and every difference must be exactly 0."""
    return replace(smoke(), world=SyntheticConfig(events=100_000), noise=NO_NOISE)


PRESETS: dict[str, Callable[[], ExperimentConfig]] = {make.__name__: make for make in (relu_vs_smelu, smoke, no_noise)}
"""Name -> what makes the config."""


def as_json(value: Any) -> Any:
    """A config as JSON would give it back: nested dicts and lists, paths absolute, the kind of world named."""
    plain = asdict(value)
    plain["world"] = {"kind": type(value.world).__name__.removesuffix("Config").lower(), **plain["world"]}
    if "path" in plain["world"]:
        plain["world"]["path"] = str(Path(plain["world"]["path"]).resolve())
    return as_plain(plain)


def as_plain(value: Any) -> Any:
    """As JSON would give it back."""
    return json.loads(json.dumps(value))


def config_of(plain: Mapping[str, Any]) -> ExperimentConfig:
    """The config of which `as_json` made this. Raises SettingError, and ResultError where it is none."""
    try:
        world, model = dict(plain["world"]), dict(plain["model"])
        replayed = world.pop("kind") == "replay"
        typed: dict[str, Any] = {name: tuple(value) for name, value in plain.items() if isinstance(value, list)}
        typed["world"] = ReplayConfig(**world | {"path": Path(world["path"])}) if replayed else SyntheticConfig(**world)
        typed["model"] = ModelConfig(**model | {"hidden": tuple(model["hidden"])})
        typed["noise"] = NoiseConfig(**plain["noise"])
        return ExperimentConfig(**{**plain, **typed})
    except (KeyError, TypeError) as problem:
        raise ResultError(f"config.json: config: {problem}: of another version of flicker: run it again") from None
