"""Variables over the file over defaults; and one line for what cannot be used."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from load.settings import LoadSettings, read_settings
from simulator.config import ReplayConfig, SyntheticConfig
from simulator.errors import SettingError
from simulator.flags import parse
from trainer.flags import TrainerFlags


def test_without_anything_the_defaults_hold() -> None:
    assert read_settings({}) == LoadSettings()
    assert LoadSettings().world_config() == SyntheticConfig()


def test_variables_over_the_file(tmp_path: Path) -> None:
    file = tmp_path / "load.json"
    file.write_text(json.dumps({"rate": 20, "repeat": 1, "data": None, "arms": ["a", "b"], "world": {"users": 50}}))
    settings = read_settings(
        {
            "FLICKER_LOAD_CONFIG": str(file),
            "FLICKER_RATE": "7.5",
            "FLICKER_EVENTS": "5000",
            "FLICKER_LOAD_SUMMARY": "out/load.json",
            "FLICKER_REDIS_URL": "redis://127.0.0.1:1/0",
            "FLICKER_SEED": "",
        }
    )
    assert settings == LoadSettings(
        rate=7.5,
        repeat=1.0,
        arms=("a", "b"),
        world={"users": 50},
        events=5000,
        summary=Path("out/load.json"),
        store="redis://127.0.0.1:1/0",
    )
    assert settings.world_config() == SyntheticConfig(events=5000, users=50)


@pytest.mark.parametrize(
    ("flags", "variables"),
    [
        ("", {}),
        ("--events 30000 --seed 4", {"FLICKER_EVENTS": "30000", "FLICKER_SEED": "4"}),
        ("--users 70 --items 50 --drift 0.5", {"FLICKER_WORLD": '{"users": 70, "items": 50, "drift": 0.5}'}),
        ("--data some/log --seed 3", {"FLICKER_DATA": "some/log", "FLICKER_SEED": "3", "FLICKER_EVENTS": ""}),
        ("--data log.toml --negatives 2", {"FLICKER_DATA": "log.toml", "FLICKER_WORLD": '{"negatives": 2}'}),
    ],
)
def test_variables_give_the_world_that_flags_give_the_trainer(flags: str, variables: dict[str, str]) -> None:
    settings = read_settings(variables)
    trainers = parse(TrainerFlags, "trainer", flags.split()).config()
    assert (settings.world_config(), settings.seed) == (trainers.world, trainers.seed)


def test_a_real_log_and_arms_by_variables() -> None:
    settings = read_settings({"FLICKER_DATA": "some/log", "FLICKER_ARMS": "relu smelu:beta=1", "FLICKER_EVENTS": "9"})
    assert settings.arms == ("relu", "smelu:beta=1")
    assert settings.world_config() == ReplayConfig(Path("some/log")), "the number of events is the log's own"


@pytest.mark.parametrize(
    ("variable", "text"),
    [
        ("FLICKER_RATE", "0"),
        ("FLICKER_RATE", "many"),
        ("FLICKER_RATE", "nan"),
        ("FLICKER_RATE", "inf"),
        ("FLICKER_SHAPE", "triangle"),
        ("FLICKER_SHAPE_SECONDS", "0"),
        ("FLICKER_REPEAT", "1.5"),
        ("FLICKER_REPEAT_BEFORE", "0.1"),
        ("FLICKER_K", "1001"),
        ("FLICKER_K", "2.5"),
        ("FLICKER_SEED", "-1"),
        ("FLICKER_TIMEOUT", "0"),
        ("FLICKER_METRICS_PORT", "65536"),
        ("FLICKER_LOAD_CONFIG", "/no/such/file.json"),
        ("FLICKER_WORLD", "users=3"),
        ("FLICKER_WORLD", "[3]"),
    ],
)
def test_what_cannot_be_used_is_named(variable: str, text: str) -> None:
    with pytest.raises(SettingError) as told:
        read_settings({variable: text})
    message = str(told.value)
    assert text in message and "\n" not in message
    assert told.value.setting.lower() in variable.lower()


@pytest.mark.parametrize("text", ["[]", "{", '{"speed": 3}', '{"world": 3}'])
def test_a_file_that_cannot_be_used(tmp_path: Path, text: str) -> None:
    file = tmp_path / "load.json"
    file.write_text(text)
    with pytest.raises(SettingError):
        read_settings({"FLICKER_LOAD_CONFIG": str(file)})


def test_a_world_without_such_a_field() -> None:
    with pytest.raises(SettingError, match="world.horizon"):
        LoadSettings(world={"horizon": 5}).world_config()
    with pytest.raises(SettingError, match="world.users"):
        LoadSettings(data=Path("log"), world={"users": 5}).world_config()
