"""Events that a consumer receives again from the start: what fails again is open again."""

import json
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any

import pytest
from click.testing import CliRunner
from nats.aio.client import Client

from sahool_dlq.cli import _command
from sahool_dlq.deadletter.ids import redrive_id
from sahool_dlq.events import ConsumerContext
from sahool_dlq.jobs.decisions import decide
from sahool_dlq.jobs.drain import drain_log
from sahool_dlq.jobs.lake_views import query
from sahool_dlq.jobs.marts import compute_marts
from sahool_dlq.jobs.redrive import plan_redrive, redrive, run_redrive
from sahool_dlq.redrive.choose.plan import Order
from sahool_dlq.redrive.choose.selection import Selection
from sahool_dlq.settings import Settings
from sahool_dlq.sqlfiles import read_sql
from support.platform_log import environment
from support.redriving import Service, dead_letters, event_ids, publish, quick, rows, seen

STANDING = (
    "SELECT event_id, status, opening, redrive_count, last_closed_as, seen_count FROM failed_events"
    " WHERE status <> 'superseded' ORDER BY event_id"
)
IN_LAKE = (
    "SELECT d.event_id, c.status, c.opening, c.redrive_count FROM cases AS c"
    " INNER JOIN dead_letters AS d ON d.epoch = c.epoch AND d.dlq_sequence = c.dlq_sequence"
    " ORDER BY 1, c.opening"
)


@dataclass
class Broken(Service):
    """A service that fails on every event, and logs problems of its consumer."""

    page: list[tuple[str, str]] = field(default_factory=list)

    async def handle(self, context: ConsumerContext) -> Any:
        if self.error is not None:
            self.error = ValueError(f"{json.loads(context.data)['event_id']} has no such field")
        return await super().handle(context)

    def on_trouble(self, kind: str, sentence: str) -> None:
        self.page.append((kind, sentence))


async def rewind(client: Client, settings: Settings, how: str) -> None:
    where = f"{settings.events_stream}.ndvi"
    if how == "created again":
        assert await client.jetstream().delete_consumer(settings.events_stream, "ndvi")
        return
    request = b'{"seq": 1}'  # without one it goes back to the first that waits for an answer
    answer = json.loads((await client.request(f"$JS.API.CONSUMER.RESET.{where}", request)).data)
    assert "error" not in answer, answer


async def close_some(settings: Settings, client: Client, service: Broken) -> dict[str, str]:
    """Four events fail; one is resolved, one discarded, one redriven, and one stays open."""
    await publish(client, settings, 4)
    await dead_letters(client, settings, 4)
    await drain_log(settings)
    ids = dict(rows(settings, "SELECT event_id, id::text FROM failed_events"))
    for event, decision in (("e0", "resolved"), ("e1", "discarded")):
        await decide(
            settings, Selection(failure_ids=(ids[event],)), decision, actor="ana", reason="is over"
        )
    error, service.error = service.error, None
    await redrive_of(settings, ids["e2"])
    service.error = error
    await drain_log(settings)
    service.seen.clear()
    return ids


async def redrive_of(settings: Settings, *ids: str) -> None:
    report = await redrive(
        quick(settings), Selection(failure_ids=ids), trigger="manual", requested_by="ana",
        reason="is mended",
    )  # fmt: skip
    assert report is not None
    assert report.outcomes == {"succeeded": len(ids)}
    await drain_log(settings)


@pytest.mark.parametrize("how", ["reset", "created again"])
async def test_an_event_that_fails_again_after_its_case_was_closed_is_open_again(
    settings: Settings, client: Client, how: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    service = Broken(settings, ValueError())
    async with service.running(service.on_trouble):
        ids = await close_some(settings, client, service)
        stored = (await client.jetstream().stream_info(settings.dlq_stream)).state.messages
        await rewind(client, settings, how)
        await seen(service, 5)  # and the redriven copy
        await dead_letters(client, settings, stored + 5)
        await drain_log(settings)
        assert [kind for kind, _ in service.page] == ["consumer_rewound"]
        assert rows(settings, STANDING) == [
            ("e0", "pending", 2, 0, "manual", 2),
            ("e1", "pending", 2, 0, "discarded", 2),
            ("e2", "pending", 2, 0, "manual_redrive", 2),
            ("e3", "pending", 1, 0, None, 2),
        ]
        assert query(settings, IN_LAKE).rows() == [
            *(
                row
                for event in ("e0", "e1", "e2")
                for row in ((event, "reopened", 1, 0), (event, "pending", 2, 0))
            ),
            ("e3", "pending", 1, 0),
        ]
        # regressed, as groups show it; `e3` is of the same group, and was open all the time
        sql = read_sql("monitoring/groups_regressed.sql")
        assert [row[5] for row in rows(settings, sql)] == [3]
        await decide(
            settings, Selection(failure_ids=(ids["e3"],)), "parked", actor="ana", reason="x"
        )
        shown = show(settings, ids["e1"], monkeypatch)
        assert "opening 2: it failed again after it was closed (discarded)" in shown
        assert "reopened" not in shown

        # A reopened case has a life like any other.
        service.error = None
        service.seen.clear()
        await redrive_of(settings, ids["e0"], ids["e1"])
        assert sorted(event_ids(service)) == ["e0", "e1"]
        assert {c.headers["Dlq-Redrive-Attempt"] for c in service.seen} == {"1001"}
        assert {c.headers["Nats-Msg-Id"] for c in service.seen} == {
            redrive_id(ids[event], 1001) for event in ("e0", "e1")
        }
        await decide(
            settings, Selection(failure_ids=(ids["e2"],)), "discarded", actor="ana", reason="x"
        )
        assert rows(settings, STANDING)[:3] == [
            ("e0", "resolved", 2, 0, "manual", 2),
            ("e1", "resolved", 2, 0, "discarded", 2),
            ("e2", "discarded", 2, 0, "manual_redrive", 2),
        ]

        # What is published again is not the same as what fails again.
        await publish_again(client, settings)
        await drain_log(settings)
        assert [row[:3] for row in rows(settings, STANDING)] == [
            ("e0", "resolved", 2),
            ("e1", "resolved", 2),
            ("e2", "discarded", 2),
            ("e3", "parked", 1),
        ]


async def publish_again(client: Client, settings: Settings) -> None:
    """Publish every dead letter again: the server drops them as duplicates, or stores them if it
    forgot their ids.
    """
    js = client.jetstream()
    info = await js.stream_info(settings.dlq_stream, subjects_filter=settings.subjects.dead_letters)
    letters = []
    for sequence in range(1, info.state.last_seq + 1):
        message = await js.get_msg(settings.dlq_stream, sequence)
        if ".dlq." in str(message.subject):
            letters.append(message)
    assert len(letters) == 9
    for message in letters:
        headers = {"Nats-Msg-Id": message.headers["Nats-Msg-Id"]}
        assert (await js.publish(message.subject, message.data, headers=headers)).duplicate
        await js.publish(message.subject, message.data)


def show(settings: Settings, failure_id: str, monkeypatch: pytest.MonkeyPatch) -> str:
    for name, value in environment(settings, COLUMNS="200").items():
        if name.startswith("DLQ_") or name == "COLUMNS":
            monkeypatch.setenv(name, value)
    return str(CliRunner().invoke(_command(), ["show", failure_id]).output)


async def test_a_group_whose_only_failure_was_closed_and_fails_again_has_regressed(
    settings: Settings, client: Client
) -> None:
    service = Broken(settings, ValueError())
    async with service.running(service.on_trouble):
        await publish(client, settings, 1)
        await dead_letters(client, settings, 1)
        await drain_log(settings)
        [(failure,)] = rows(settings, "SELECT id::text FROM failed_events")
        selection = Selection(failure_ids=(failure,))
        for number, (decision, state) in enumerate(
            [("resolved", "regressed"), ("discarded", "regressed")], 1
        ):
            await decide(settings, selection, decision, actor="ana", reason="is over")
            assert await group(settings) == {"state": "resolved", "reopened_count": number - 1}
            stored = (await client.jetstream().stream_info(settings.dlq_stream)).state.messages
            await rewind(client, settings, "reset")
            await dead_letters(client, settings, stored + 1)
            await drain_log(settings)
            assert await group(settings) == {"state": state, "reopened_count": number}


async def group(settings: Settings) -> dict[str, Any]:
    frame = compute_marts(settings, ["failure_groups"], datetime.now(UTC))["failure_groups"]
    [row] = frame.select("state", "reopened_count").to_dicts()
    return row


async def test_what_was_planned_before_a_case_was_closed_is_not_published_after_it_is_reopened(
    settings: Settings, client: Client
) -> None:
    service = Broken(settings, ValueError())
    async with service.running(service.on_trouble):
        await publish(client, settings, 1)
        await dead_letters(client, settings, 1)
        await drain_log(settings)
        [(failure,)] = rows(settings, "SELECT id::text FROM failed_events")
        selection = Selection(failure_ids=(failure,))
        planned = await plan_redrive(settings, selection, Order("manual", "ana", "is mended"))
        assert planned is not None
        await decide(settings, selection, "resolved", actor="ana", reason="is over")
        await rewind(client, settings, "reset")
        await dead_letters(client, settings, 3)
        service.seen.clear()
        report = await run_redrive(quick(settings), planned[0].id)
        assert report.outcomes == {"cancelled": 1}
        assert service.seen == []
        assert rows(settings, "SELECT state, state_reason FROM redrives") == [
            ("cancelled", "its failure is reopened meanwhile")
        ]
        service.error = None
        await redrive_of(settings, failure)
        assert rows(settings, "SELECT attempt, state FROM redrives ORDER BY 1") == [
            (1, "cancelled"),
            (1001, "succeeded"),
        ]
