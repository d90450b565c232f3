"""From flags to a config: presets, every setting reachable, and complaints on one line."""

from __future__ import annotations

from dataclasses import fields, is_dataclass, replace
from pathlib import Path

import pytest

from simulator.config import (
    NO_NOISE,
    PRESETS,
    ExperimentConfig,
    ModelConfig,
    NoiseConfig,
    ReplayConfig,
    SyntheticConfig,
    smoke,
)
from simulator.errors import FlickerError, SettingError
from simulator.flags import RunFlags, parse_run

CONFIGS = (ExperimentConfig, ModelConfig, NoiseConfig, SyntheticConfig, ReplayConfig)
NOT_FLAGS = {"world", "model", "noise", "path"}
"""Groups of settings, and the path that --data names."""


def settings() -> list[str]:
    """The flags that there must be."""
    names = {field.name for config in CONFIGS for field in fields(config)} - NOT_FLAGS
    return sorted(f"--{name.replace('_', '-')}" for name in names | {"preset", "data", "out", "resume"})


@pytest.mark.parametrize("preset", PRESETS)
def test_a_preset_alone_is_that_preset(preset: str) -> None:
    assert parse_run(["--preset", preset]).config() == PRESETS[preset]()
    assert parse_run([f"--preset={preset}"]).config() == PRESETS[preset]()


def test_the_default_preset_is_the_question_itself() -> None:
    assert parse_run([]).config() == PRESETS["relu_vs_smelu"]()


def test_flags_change_what_they_name_and_nothing_else() -> None:
    arguments = "--preset smoke --arms linear gelu --k 3 --hidden 7 5 --norm before --window 2 --init own --drift 0"
    expected = replace(
        smoke(),
        arms=("linear", "gelu"),
        k=3,
        model=replace(smoke().model, hidden=(7, 5), norm="before"),
        noise=replace(smoke().noise, window=2, init="own"),
        world=replace(SyntheticConfig(events=40_000, users=500, items=300), drift=0),
    )
    assert parse_run(arguments.split()).config() == expected


def test_switching_all_noise_off_is_the_preset_without_noise() -> None:
    assert parse_run(["--preset", "no_noise"]).config().noise == NO_NOISE
    assert parse_run(["--preset", "smoke", "--window", "0"]).config().noise == NO_NOISE


def test_data_names_a_log_with_its_own_settings(tmp_path: Path) -> None:
    arguments = ["--data", str(tmp_path), "--negatives", "2", "--bad-rows", "skip", "--limit", "500"]
    config = parse_run(arguments).config()
    assert config.world == ReplayConfig(tmp_path, negatives=2, bad_rows="skip", limit=500)
    assert replace(config, world=SyntheticConfig()) == PRESETS["relu_vs_smelu"]()


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ("--limit 500", "--limit = 500: describes a real log: name one with --data"),
        ("--bad-rows skip", "--bad-rows = skip: describes a real log: name one with --data"),
        ("--data x --events 5000", "--events = 5000: describes the synthetic world, but --data names a log"),
    ],
)
def test_settings_of_the_world_that_is_not_used_are_refused(arguments: str, message: str) -> None:
    with pytest.raises(SettingError) as error:
        parse_run(arguments.split()).config()
    assert str(error.value) == message


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        ("--wrong 3", ("--wrong", "3", "flicker run --help")),
        ("--preset nope", ("--preset", "nope", "relu_vs_smelu", "smoke", "no_noise")),
        ("--preset", ("--preset", "flicker run --help")),
        ("--k many", ("--k", "many", "Length of a slate")),
        ("--norm sideways", ("--norm", "sideways", "before", "weight")),
        ("--duplicates 0", ("duplicates = 0", "at least 2")),
        ("--duplicates", ("--duplicates",)),
        ("--fleets -1", ("fleets", "-1", "at least 1")),
        ("--k 201", ("k = 201", "number of candidates (200)")),
        ("--hidden 8 0", ("hidden = (8, 0)", "each width from 1")),
        ("--arms", ("arms", "at least one arm")),
        ("--lost 1", ("noise.lost = 1", "below 1")),
        ("--learning-rate 0", ("learning_rate = 0", "more than 0")),
        ("--seed -1", ("seed = -1", "0 or more")),
        ("--events 10", ("events = 10", "at least 1,000")),
        ("--bad-rows maybe", ("--bad-rows", "maybe", "stop", "skip")),
        ("stray", ("stray",)),
    ],
)
def test_a_complaint_is_one_line_that_names_setting_and_value(
    arguments: str, words: tuple[str, ...], capfd: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(FlickerError) as error:
        parse_run(arguments.split())
    message = str(error.value)
    assert "\n" not in message and not set(message) & set("│╭╰─\x1b")
    assert [word for word in words if word not in message] == []
    assert capfd.readouterr() == ("", "")


def test_help_names_every_setting_and_explains_it(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as ended:
        parse_run(["--help"])
    shown = capsys.readouterr().out
    assert not ended.value.code
    flags = {word.rstrip(",") for word in shown.replace("│", " ").split() if word.startswith("--")}
    assert [flag for flag in settings() if flag not in flags] == []
    text = " ".join(shown.replace("│", " ").split())
    for words in ("at least 1,000", "Length of a slate, 1 to", "(default: 200)", "mini-batches", "seconds"):
        assert words in text


def test_the_help_of_a_preset_shows_its_defaults(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        parse_run(["--preset", "smoke", "--help"])
    assert "(default: 40000)" in capsys.readouterr().out


def test_every_group_of_settings_is_a_dataclass_that_the_flags_cover() -> None:
    """A new config class must be added to CONFIGS above, or its settings would go unseen."""
    config = RunFlags.of("smoke").compare
    groups = {type(getattr(config, f.name)) for f in fields(config) if is_dataclass(getattr(config, f.name))}
    assert groups == {ModelConfig, NoiseConfig, SyntheticConfig}
