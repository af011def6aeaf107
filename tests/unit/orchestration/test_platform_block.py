"""The blocks for people's flows: their fields are the settings', their secrets are hidden."""

from typing import Any

import pytest
from pydantic import SecretStr

from sahool_dlq.errors import SettingsError
from sahool_dlq.orchestration.blocks import DlqPlatform, NatsConnection
from sahool_dlq.settings import Settings

PASSWORD = "hunter2"


def platform(**changes: Any) -> DlqPlatform:
    nats = NatsConnection(url=SecretStr(f"nats://u:{PASSWORD}@n:4222"), tls_first=True)
    dsn = SecretStr(f"postgresql://u:{PASSWORD}@p/dlq")
    return DlqPlatform(
        **{"nats": nats, "postgres_dsn": dsn, "lake_uri": "s3://b/lake", "options": {}} | changes
    )


def test_a_connection_has_every_setting_of_nats_and_hides_the_same_ones() -> None:
    of_settings = {
        name.removeprefix("nats_"): "SecretStr" in str(field.annotation)
        for name, field in Settings.model_fields.items()
        if name.startswith("nats_")
    }
    fields = {
        name: "SecretStr" in str(NatsConnection.model_fields[name].annotation)
        for name in NatsConnection.own_fields()
    }
    assert fields == of_settings


def test_the_settings_are_those_of_the_block_and_not_of_the_worker(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("DLQ_NATS_CONTEXT", "staging")
    monkeypatch.setenv("DLQ_REDRIVE_CAP", "9")
    monkeypatch.setenv("DLQ_LAKE_URI", "s3://other/lake")
    made = platform(options={"redrive_per_second": 7}).settings()
    assert made.nats_url.get_secret_value() == f"nats://u:{PASSWORD}@n:4222"
    assert (made.nats_context, made.redrive_cap, made.lake) == (None, 3, "s3://b/lake")
    assert (made.redrive_per_second, made.nats_tls_first) == (7, True)


def test_no_secret_is_shown() -> None:
    block = platform()
    assert PASSWORD not in f"{block!r} {block} {block.model_dump()} {block.settings()!r}"


@pytest.mark.parametrize(
    ("options", "why"),
    [({"redrive_cup": 1}, "no setting 'redrive_cup'"), ({"redrive_cap": 0}, "redrive_cap is not")],
)
def test_an_option_that_is_not_valid_is_named(options: dict[str, Any], why: str) -> None:
    with pytest.raises(SettingsError, match=why):
        platform(options=options).settings()


def test_a_condition_that_there_is_not_selects_nothing() -> None:
    with pytest.raises(SettingsError, match="no condition 'grup': give one of group, failure_ids"):
        platform().redrive(grup="1f0c", reason="because")
