"""A monitor's decisions, and the messages to the log that follow from them."""

from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from pydantic import SecretStr

from sahool_dlq.deadletter import ids
from sahool_dlq.deadletter.case_events import decode_case_event
from sahool_dlq.deadletter.message import LogMessage
from sahool_dlq.events import DLQAction, DLQConsumerConfig, DLQEvent
from sahool_dlq.events.monitor.triage import News, default_action, news_of, retry_delay
from support.letters import OLD, ORIGIN, SEQUENCE, STREAM, message, ours, second

NOW = datetime(2026, 3, 2, tzinfo=UTC)
OWN = ids.failure_id(*ORIGIN)
ROOT = ids.failure_id("SAHOOL_EVENTS", 1, 1, "ndvi")


def event(body: bytes | dict[str, Any] | None = None, **changes: Any) -> DLQEvent:
    return DLQEvent.read(message(body if body is not None else ours(**changes)), STREAM)


def failed_again(**changes: Any) -> DLQEvent:
    redrive = ids.redrive_id(ROOT, 2)
    return event(redrive_of=ROOT, redrive_id=redrive, redrive_attempt=2, **changes)


def news(action: DLQAction, event: DLQEvent, **settings: Any) -> list[News]:
    config = DLQConsumerConfig(**settings)
    return list(news_of(event, action, config, reason="because", now=NOW))


def told(action: DLQAction, event: DLQEvent, **settings: Any) -> list[tuple[Any, ...]]:
    """What the drain reads from it."""
    events = [
        decode_case_event(LogMessage(n.subject, 1, 1, n.body), "e")
        for n in news(action, event, **settings)
    ]
    assert all(e.parse_error is None for e in events)
    return [(e.kind, e.failure_id, e.attempt, e.not_before) for e in events]


def test_the_defaults_are_those_that_services_know() -> None:
    config = DLQConsumerConfig()
    assert config.servers == [SecretStr("nats://localhost:4222")]
    assert config.dlq_subject == "sahool.dlq.>"
    assert (config.store_in_db, config.alert_on_critical, config.auto_retry_enabled) == (
        *(True, True),
        False,
    )
    assert config.critical_error_types == ["DatabaseError", "AuthenticationError"]
    assert config.auto_retry_delay_hours == 24


@pytest.mark.parametrize(
    ("error_type", "settings", "action"),
    [
        ("TimeoutError", {}, DLQAction.STORE),
        ("DatabaseError", {}, DLQAction.ALERT),
        ("psycopg.errors.UniqueViolation", {}, DLQAction.ALERT),
        ("DatabaseError", {"alert_on_critical": False}, DLQAction.STORE),
        ("TimeoutError", {"critical_error_types": ["TimeoutError"]}, DLQAction.ALERT),
        ("TimeoutError", {"auto_retry_enabled": True}, DLQAction.RETRY),
        ("DatabaseError", {"auto_retry_enabled": True}, DLQAction.ALERT),
    ],
)
def test_the_default_handler(error_type: str, settings: dict[str, Any], action: DLQAction) -> None:
    assert default_action(event(error_type=error_type), DLQConsumerConfig(**settings)) is action


def test_store_tells_nothing() -> None:
    assert news(DLQAction.STORE, event()) == []


def test_discard_and_alert_are_decisions_about_the_failure() -> None:
    assert told(DLQAction.DISCARD, event()) == [("triage.discarded", OWN, None, None)]
    assert told(DLQAction.ALERT, event()) == [("triage.alerted", OWN, None, None)]


def test_retry_asks_for_the_next_redrive_by_the_dead_letters_own_time() -> None:
    letter = event()
    due = letter.published_at + timedelta(hours=6)
    assert told(DLQAction.RETRY, letter, auto_retry_delay_hours=6) == [
        ("redrive.requested", OWN, 1, due)
    ]


def test_what_failed_again_is_about_its_root_too() -> None:
    letter = failed_again()
    due = letter.published_at + timedelta(hours=24)
    assert told(DLQAction.RETRY, letter) == [
        ("redrive.requested", OWN, 1, due),
        ("redrive.requested", ROOT, 3, due),
    ]
    assert {row[1] for row in told(DLQAction.DISCARD, letter)} == {OWN, ROOT}


@pytest.mark.parametrize("name", ["Dlq-Redrive-For", "Dlq-Redrive-Instead-Of"])
def test_a_redrive_that_failed_in_another_consumer_says_nothing_of_the_root(name: str) -> None:
    letter = failed_again(original_headers={name: "SAHOOL_EVENTS/other"})
    assert letter.root_failure_id == ROOT
    assert set(letter.cases) == {OWN}
    letter = failed_again(original_headers={"Dlq-Redrive-For": "SAHOOL_EVENTS/ndvi"})
    assert set(letter.cases) == {OWN, ROOT}


def test_the_same_dead_letter_has_the_same_message_ids_and_each_message_its_own() -> None:
    ids_ = [n.message_id for action in DLQAction for n in news(action, failed_again())]
    again = [n.message_id for action in DLQAction for n in news(action, failed_again())]
    assert ids_ == again
    assert len(set(ids_)) == len(ids_) == 6


def test_the_prefix_is_that_of_the_dead_letters() -> None:
    [message] = news(DLQAction.ALERT, event(), dlq_subject="farm.dlq.>")
    assert message.subject == "farm.triage.alerted"
    with pytest.raises(ValueError, match="dlq_subject"):
        DLQConsumerConfig(dlq_subject="sahool.>")


def test_the_delay_doubles_to_its_cap() -> None:
    config = DLQConsumerConfig(retry_delay_seconds=2, max_retry_delay_seconds=10)
    assert [retry_delay(n, config) for n in (1, 2, 3, 4, 1000)] == [2, 4, 8, 10, 10]


def test_every_envelope_is_an_event() -> None:
    ours_ = event()
    assert (ours_.failure_id, ours_.service, ours_.sequence) == (OWN, "ndvi-service", SEQUENCE)
    assert ours_.original_data == {"event_id": "e1", "ndvi": 0.51}
    assert ours_.attempts[0]["error_type"] == "E"
    old = event(OLD)
    assert (old.service, old.envelope, old.parse_error) == ("satellite", "canonical", None)
    other = event(second())
    assert (other.envelope, other.error_message, other.field_id) == (
        *("metadata", "no such field"),
        "f9",
    )
    garbage = event(b"\xff\x00{")
    assert (garbage.envelope, garbage.error_type) == ("other", "unknown")
    assert garbage.parse_error is not None
    assert garbage.parse_error.startswith("not JSON")
