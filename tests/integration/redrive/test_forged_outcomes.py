"""Forged dead letters and successes change no case and give no rights.

The attacker has what deploy/nats.conf gives the user `service`.
"""

import asyncio
import json
import logging
from datetime import UTC, datetime
from typing import Any

import pytest
from nats.aio.client import Client

from sahool_dlq.alerts.exporter import DLQCollector
from sahool_dlq.deadletter import ids
from sahool_dlq.deadletter.envelope.encode import encode_case_event
from sahool_dlq.deadletter.subjects import matches
from sahool_dlq.jetstream.grants import grants_of_role
from sahool_dlq.jobs.case_history import case_history
from sahool_dlq.jobs.drain import drain_log
from sahool_dlq.jobs.lake_views import query
from sahool_dlq.jobs.redrive import preview_redrive, redrive
from sahool_dlq.jobs.status import platform_status
from sahool_dlq.redrive.choose.selection import Selection
from sahool_dlq.settings import Settings
from sahool_dlq.stores.postgres.database import migrate
from support.platform_log import execute
from support.redriving import Service, dead_letters, fail, quick, redrive_timeouts, rows, seen


async def attack(
    client: Client,
    settings: Settings,
    subject: str,
    body: bytes,
    headers: dict[str, str] | None = None,
) -> None:
    """Publish as the shipped user `service`."""
    allowed = grants_of_role(settings.stream_names, "service").publish
    subject = f"{settings.subject_prefix}.{subject}"
    assert any(matches(each, subject) for each in allowed)
    await client.jetstream(timeout=60).publish(subject, body, headers=headers)


def told(settings: Settings, failure: str, redrive_id: str, attempt: int = 1) -> bytes:
    """The body of a success of the consumer that failed, or of the redrive's announcement."""
    return encode_case_event(
        failure_id=failure,
        redrive_id=redrive_id,
        attempt=attempt,
        consumer=f"{settings.events_stream}/ndvi",
        actor="mallory",
        at=datetime.now(UTC),
    )


async def own_letter(client: Client, settings: Settings, **changes: Any) -> bytes:
    """The first dead letter of the log, changed."""
    message = await client.jetstream().get_msg(settings.dlq_stream, 1)
    return json.dumps({**json.loads(message.data or b""), **changes}).encode()


def marks(failure: str) -> dict[str, str]:
    """The headers that anybody can put on an event, so that it looks like a redrive."""
    return {
        "Dlq-Redrive-Of": failure,
        "Dlq-Redrive-Id": ids.redrive_id(failure, 1),
        "Dlq-Redrive-Attempt": "1",
        "Nats-Msg-Id": ids.redrive_id(failure, 1),
    }


async def test_outcomes_without_a_redrive_change_no_case_and_are_shown(
    settings: Settings, client: Client, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO)
    fast = quick(settings)
    async with Service(settings, TimeoutError("slow tile")).running() as service:
        await fail(settings, client, service, 2)
        await drain_log(settings)
        failures = [i for (i,) in rows(settings, "SELECT id::text FROM failed_events ORDER BY 1")]
        one, other = failures
        await attack(
            client, settings, "redrive.succeeded", told(settings, one, ids.redrive_id(one, 1))
        )
        forged = await own_letter(
            client,
            settings,
            failure_id=None,
            original_sequence=9_999,
            redrive_of=one,
            redrive_id=ids.redrive_id(one, 3),
            redrive_attempt=3,
        )
        await attack(client, settings, "dlq.ndvi", forged)
        service.error = None  # it handles an event that says that it is the redrive of another
        await attack(client, settings, "analysis.ndvi", b"{}", marks(other))
        await seen(service, 1)
        # … and one that says that it is for somebody else is passed over, but not without a word.
        away = {**marks(one), "Dlq-Redrive-For": "NOBODY/at-all"}
        await attack(client, settings, "analysis.ndvi", b"{}", away)
        await dead_letters(client, settings, 5)
        await drain_log(settings)

        statuses = "SELECT id::text, status, redrive_count FROM failed_events ORDER BY 2, 1"
        cases = rows(settings, statuses)
        assert [case for case in cases if case[0] in failures] == [
            (one, "pending", 0),
            (other, "pending", 0),
        ]
        assert len(cases) == 3  # the forged one is a separate case
        in_lake = query(settings, "SELECT failure_id, status, redrive_count FROM cases").rows()
        assert sorted(in_lake) == sorted(cases)
        kinds = {"redrive.succeeded": 2, "redrive.failed_again": 1}
        assert (await platform_status(settings)).unfounded == kinds
        assert "outcomes are ignored" in caplog.text
        assert "a redrive for NOBODY/at-all" in caplog.text
        history = case_history(settings, one)
        doubtful = {kind for _, kind, _, reason in history if "changes nothing" in (reason or "")}
        assert doubtful == set(kinds)
        exported = {
            sample.labels["kind"]: sample.value
            for family in await asyncio.to_thread(lambda: [*DLQCollector(settings).collect()])
            for sample in family.samples
            if family.name == "dlq_unfounded_outcomes"
        }
        assert exported == kinds

        report = await redrive_timeouts(fast, selection=Selection(failure_ids=(other,)))
    assert report is not None
    # Its mark was used before, by the attacker's event: the stream drops the redrive, and that is
    # said, not called a success.
    assert report.outcomes == {"outcome_unknown": 1}
    assert "has its id" in next(iter(report.reasons["outcome_unknown"]))


async def test_a_redrive_counts_whatever_was_said_of_it_before(
    settings: Settings, client: Client
) -> None:
    async with Service(settings, TimeoutError("slow tile")).running() as service:
        await fail(settings, client, service, 1)
        await drain_log(settings)
        [(failure,)] = rows(settings, "SELECT id::text FROM failed_events")
        guessed = told(settings, failure, ids.redrive_id(failure, 1))
        await attack(client, settings, "redrive.succeeded", guessed)
        report = await redrive_timeouts(quick(settings))
        assert report is not None
        assert report.outcomes == {"failed_again": 1}
        await attack(client, settings, "redrive.succeeded", guessed)
        service.error = None
        await drain_log(settings)
        live = "SELECT status, redrive_count FROM failed_events WHERE root_failure_id IS NULL"
        assert rows(settings, live) == [("pending", 1)]
        report = await redrive_timeouts(quick(settings))
    assert report is not None
    assert report.outcomes == {"succeeded": 1}
    assert rows(settings, live) == [("resolved", 1)]
    assert query(settings, "SELECT status, redrive_count FROM cases").rows() == [("resolved", 1)]


async def test_a_success_that_the_log_has_before_its_redrive_counts_with_it(
    settings: Settings, client: Client
) -> None:
    """This happens in a log with sources, whose messages arrive in any order."""
    async with Service(settings, TimeoutError("slow tile")).running() as service:
        await fail(settings, client, service, 1)
    await drain_log(settings)
    [(failure,)] = rows(settings, "SELECT id::text FROM failed_events")
    secret = ids.redrive_id("random", 1)
    await attack(client, settings, "redrive.succeeded", told(settings, failure, secret))
    await drain_log(settings)
    assert rows(settings, "SELECT status FROM failed_events") == [("pending",)]
    published = f"{settings.subject_prefix}.redrive.published"
    await client.jetstream().publish(published, told(settings, failure, secret))
    await drain_log(settings)
    assert rows(settings, "SELECT status FROM failed_events") == [("resolved",)]
    assert query(settings, "SELECT status FROM cases").rows() == [("resolved",)]
    assert rows(settings, "SELECT count(*) FROM unfounded_outcomes") == [(0,)]


@pytest.mark.parametrize("is_in_outbox", [True, False])
async def test_what_an_older_version_published_keeps_counting(
    settings: Settings, client: Client, is_in_outbox: bool
) -> None:
    async with Service(settings, TimeoutError("slow tile")).running() as service:
        await fail(settings, client, service, 1)
    [(failure,)] = await _drained(settings)
    old = ids.redrive_id(failure, 1)
    prefix, js = settings.subject_prefix, client.jetstream()
    await js.publish(f"{prefix}.redrive.published", told(settings, failure, old))
    await _drained(settings)
    if is_in_outbox:
        batch = "00000000-0000-0000-0000-000000000001"
        execute(
            settings,
            "INSERT INTO dlq.redrive_batches (id, trigger, requested_by, reason, selection, state,"
            " planned) VALUES (%s, 'manual', 'x', 'x', '{}', 'running', 1)",
            batch,
        )
        execute(
            settings,
            "INSERT INTO dlq.redrives (id, failure_id, attempt, batch_id, subject, state,"
            " published_at) VALUES (%s, %s, 1, %s, 'x', 'published', now())",
            *(old, failure, batch),
        )
    execute(settings, "ALTER TABLE dlq.failed_events DROP COLUMN announced")
    execute(settings, "DELETE FROM dlq.schema_migrations WHERE name = '0020_outcomes'")
    migrate(settings.postgres_dsn.get_secret_value())
    [(announced,)] = rows(settings, "SELECT announced FROM failed_events")
    assert (announced and json.loads(announced)) == ({old: 1} if is_in_outbox else None)
    await attack(client, settings, "redrive.succeeded", told(settings, failure, old))
    await _drained(settings)
    assert rows(settings, "SELECT status FROM failed_events") == [("resolved",)]


async def _drained(settings: Settings) -> list[tuple[Any, ...]]:
    await drain_log(settings)
    return rows(settings, "SELECT id::text FROM failed_events")


# The redriver as a deputy


async def test_the_schedule_publishes_what_the_stream_has_and_nothing_that_a_dead_letter_makes_up(
    settings: Settings, client: Client
) -> None:
    async with Service(settings, TimeoutError("slow tile")).running() as service:
        await fail(settings, client, service, 1)
        planted = {"original_data": {"pay": "mallory"}, "original_headers": {"X-Role": "admin"}}
        stored = json.loads(await own_letter(client, settings))
        lies = [
            # the very event, with another body: first to name it, so its failure is this one
            await own_letter(client, settings, consumer_name="ndvi", **planted),
            await own_letter(client, settings, failure_id=None, original_timestamp_ns=1, **planted),
            await own_letter(client, settings, failure_id=None, original_sequence=99, **planted),
            await own_letter(client, settings, failure_id=None, original_stream=None, **planted),
            await own_letter(
                client, settings, failure_id=None, original_stream=settings.dlq_stream, **planted
            ),
            await own_letter(
                client,
                settings,
                failure_id=None,
                original_timestamp_ns=stored["original_timestamp_ns"] + 1,
                original_subject=f"{settings.subject_prefix}.actions.pay",
                **planted,
            ),
        ]
        for lie in lies:
            await attack(client, settings, "dlq.ndvi", lie)
        service.error = None
        report = await redrive_timeouts(quick(settings))
    assert report is not None
    assert report.outcomes["succeeded"] == 1
    assert {context.data for context in service.seen} == {b'{"event_id": "e0"}'}
    events = await client.jetstream().stream_info(settings.events_stream)
    assert events.state.messages == 2  # the event and its redrive
    parked = rows(
        settings, "SELECT resolution_notes FROM failed_events WHERE status = 'parked' ORDER BY 1"
    )
    assert len(parked) == 5
    assert all("only by hand" in note for (note,) in parked)


async def test_by_hand_the_copy_of_a_dead_letter_goes_out_only_where_a_person_says_so(
    settings: Settings, client: Client
) -> None:
    async with Service(settings, TimeoutError("slow tile")).running() as service:
        await fail(settings, client, service, 1)
        await drain_log(settings)
        await client.jetstream().delete_msg(settings.events_stream, 1)
        [(failure,)] = rows(settings, "SELECT id::text FROM failed_events")
        selection = Selection(failure_ids=(failure,))
        assert (await preview_redrive(settings, selection)).own_copies == 1
        service.error = None

        async def by_hand(*, own_copy: bool) -> dict[str, int]:
            report = await redrive(
                quick(settings),
                selection,
                trigger="manual",
                requested_by="ana",
                reason="test",
                own_copy=own_copy,
            )
            assert report is not None
            return report.outcomes

        assert await by_hand(own_copy=False) == {"cancelled": 1}
        assert rows(settings, "SELECT status, redrive_count FROM failed_events") == [("pending", 0)]
        assert await by_hand(own_copy=True) == {"succeeded": 1}
    assert [context.data for context in service.seen] == [b'{"event_id": "e0"}']
