"""Where a setting comes from, and the error if it is not valid."""

import json
import os
from pathlib import Path
from typing import Any

import pytest
from pydantic import SecretStr

from sahool_dlq.errors import SettingsError
from sahool_dlq.settings import (
    ENDPOINTS_FILE,
    environment_of,
    is_given,
    load_settings,
)


@pytest.fixture(autouse=True)
def _no_settings(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """An empty environment, in a folder without `.dlq`."""
    for name in [name for name in os.environ if name.startswith("DLQ_")]:
        monkeypatch.delenv(name)
    monkeypatch.chdir(tmp_path)


def write_endpoints(home: Path, text: str | dict[str, Any]) -> None:
    home.mkdir(exist_ok=True)
    text = text if isinstance(text, str) else json.dumps(text)
    (home / ENDPOINTS_FILE).write_text(text)


def test_the_defaults_are_local(tmp_path: Path) -> None:
    settings = load_settings()
    assert settings.nats_url == SecretStr("nats://127.0.0.1:4222")
    assert settings.lake == str(tmp_path / ".dlq" / "lake")
    assert settings.subjects.dead_letters == "sahool.dlq.>"
    assert settings.redrive_subjects == []


def test_an_argument_wins_over_the_environment_over_running_servers_over_the_default(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    servers = {"nats_url": "nats://running", "postgres_dsn": "postgresql://running/dlq"}
    write_endpoints(tmp_path / ".dlq", servers)
    assert load_settings().nats_url == SecretStr("nats://running")
    monkeypatch.setenv("DLQ_NATS_URL", "nats://environment")
    assert load_settings().nats_url == SecretStr("nats://environment")
    assert load_settings(nats_url="nats://argument").nats_url == SecretStr("nats://argument")
    assert load_settings().postgres_dsn.get_secret_value() == "postgresql://running/dlq"
    assert load_settings().dlq_stream == "SAHOOL_DLQ"


@pytest.mark.parametrize("how", ["argument", "environment"])
def test_running_servers_are_those_of_the_home_in_force(
    how: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write_endpoints(tmp_path / ".dlq", {"nats_url": "nats://wrong"})
    write_endpoints(tmp_path / "mine", {"nats_url": "nats://mine"})
    if how == "environment":
        monkeypatch.setenv("DLQ_HOME", str(tmp_path / "mine"))
    settings = load_settings(home=tmp_path / "mine" if how == "argument" else None)
    assert settings.nats_url == SecretStr("nats://mine")
    assert settings.lake == str(tmp_path / "mine" / "lake")


def test_an_argument_that_is_none_counts_as_not_given(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("DLQ_NATS_URL", "nats://environment")
    assert load_settings(nats_url=None).nats_url == SecretStr("nats://environment")


def test_a_setting_is_given_by_a_person_not_by_running_servers(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write_endpoints(tmp_path / ".dlq", {"nats_url": "nats://running"})
    assert not is_given(load_settings(), "nats_url")
    assert not is_given(load_settings(), "postgres_dsn")
    assert is_given(load_settings(postgres_dsn="postgresql://x"), "postgres_dsn")
    monkeypatch.setenv("DLQ_NATS_URL", "nats://environment")
    assert is_given(load_settings(), "nats_url")


def test_lists_come_as_json(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("DLQ_REDRIVE_SUBJECTS", '["farm.>", "soil.*"]')
    assert load_settings().redrive_subjects == ["farm.>", "soil.*"]


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("DLQ_DRAIN_BATCH_MESSAGES", "0"),
        ("DLQ_DRAIN_BATCH_MESSAGES", "many"),
        ("DLQ_REDRIVE_CAP", "0"),
        ("DLQ_REDRIVE_PER_SECOND", "0"),
        ("DLQ_SUBJECT_PREFIX", "sahool.>"),
        ("DLQ_SUBJECT_PREFIX", ""),
        ("DLQ_LAKE_URI", "ftp://lake.example/dlq"),
    ],
)
def test_a_value_that_makes_no_sense_is_named_in_one_sentence(
    name: str, value: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv(name, value)
    with pytest.raises(SettingsError, match=f"^{name} is not valid: ") as caught:
        load_settings()
    assert "\n" not in str(caught.value)


def test_a_list_that_is_no_json_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("DLQ_REDRIVE_SUBJECTS", "farm.>")
    with pytest.raises(SettingsError, match="redrive_subjects"):
        load_settings()


@pytest.mark.parametrize("text", ["", "{", "[1]", "7", '"x"'])
def test_a_broken_file_of_running_servers_is_an_error_in_one_sentence(
    text: str, tmp_path: Path
) -> None:
    write_endpoints(tmp_path / ".dlq", text)
    with pytest.raises(SettingsError, match=r"endpoints\.json cannot be read") as caught:
        load_settings()
    assert "\n" not in str(caught.value)


def test_other_keys_of_running_servers_are_left_alone(tmp_path: Path) -> None:
    write_endpoints(tmp_path / ".dlq", {"prefect_url": "http://x", "nats_url": "nats://x"})
    assert load_settings().nats_url == SecretStr("nats://x")


def test_secrets_are_not_shown() -> None:
    settings = load_settings(
        postgres_dsn="postgresql://u:hunter2@h/d",
        redaction_key="k3y",
        nats_url="nats://u:hunter2@h",
    )
    assert "hunter2" not in f"{settings!r} {settings} {settings.model_dump()}"
    assert "k3y" not in f"{settings!r} {settings}"
    assert settings.redaction_key == SecretStr("k3y")


def test_settings_do_not_change() -> None:
    with pytest.raises(ValueError):
        load_settings().redrive_cap = 5


def test_a_child_process_sees_the_same_servers_and_lake(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    settings = load_settings(
        home=Path("here"), nats_url="nats://n", postgres_dsn="postgresql://p", lake_uri="s3://lake"
    )
    environment = environment_of(settings)
    for name, value in environment.items():
        monkeypatch.setenv(name, value)
    monkeypatch.chdir("/")
    child = load_settings()
    assert (child.nats_url, child.lake) == (SecretStr("nats://n"), "s3://lake")
    assert child.postgres_dsn.get_secret_value() == "postgresql://p"
    assert child.home == tmp_path / "here"


@pytest.mark.parametrize(
    ("given", "used"),
    [
        ("/srv/lake", "/srv/lake"),
        ("file:///srv/lake", "/srv/lake"),
        ("s3://bucket/lake", "s3://bucket/lake"),
    ],
)
def test_a_lake_is_a_folder_or_in_an_object_store(given: str, used: str) -> None:
    assert load_settings(lake_uri=given).lake == used
