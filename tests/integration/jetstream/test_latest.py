"""The last message of each subject, from a server that stops answering."""

import json
from typing import Any

import pytest
from nats.aio.client import Client

from sahool_dlq.deadletter.redaction.redactor import Redactor
from sahool_dlq.drain.totals import read_totals
from sahool_dlq.errors import ServerUnavailableError
from sahool_dlq.jetstream.pull import Puller, PullStalledError
from sahool_dlq.jobs.drain import drain_log
from sahool_dlq.settings import Settings
from sahool_dlq.stores.lake.lake import Lake
from support.platform_log import query


async def test_a_stall_is_an_outage_that_a_drain_waits_for(
    settings: Settings, client: Client, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def stalls(self: Puller, deadline: float) -> None:
        raise PullStalledError("no answer to a pull request")

    monkeypatch.setattr(Puller, "_next", stalls)
    with pytest.raises(ServerUnavailableError, match="stalled"):
        await read_totals(client, settings.totals_stream, settings.subjects.totals, Redactor())


async def test_totals_that_make_no_sense_cost_no_others(settings: Settings, client: Client) -> None:
    good = {"service": "s" * 5_000, "consumer": "c", "started_at": "2026-11-29T08:00:00Z"}
    senseless: list[Any] = [
        *([], "x", 1, None, {}, good | {"started_at": None}, good | {"started_at": "soon"}),
        *(good | {"handled": value} for value in (-1, 2**63, 1e30, float("inf"), "x", [], None)),
    ]
    bodies = [json.dumps(good), *map(json.dumps, senseless), "[" * 100_000]
    for number, body in enumerate(bodies):
        await client.jetstream().publish(settings.subjects.total(f"t{number}", "c"), body.encode())
    frame = await read_totals(client, settings.totals_stream, settings.subjects.totals, Redactor())
    assert frame["service"].to_list() == ["s" * 255]


async def test_totals_say_the_version_masked_and_cut_as_dead_letters_do(
    settings: Settings, client: Client
) -> None:
    good = {"service": "s", "started_at": "2026-11-29T08:00:00Z"}
    versions: list[Any] = ["2.4", "ana@example.com", "v" * 5_000, None, 2.4, ""]
    for number, version in enumerate(versions):
        body = json.dumps(good | {"consumer": f"c{number}", "consumer_version": version})
        await client.jetstream().publish(settings.subjects.total("s", f"c{number}"), body.encode())
    frame = await read_totals(client, settings.totals_stream, settings.subjects.totals, Redactor())
    assert frame.sort("consumer")["consumer_version"].to_list() == [
        *("2.4", "[redacted:email]", "v" * 100), None, None, None
    ]  # fmt: skip


async def test_the_last_totals_of_a_process_that_has_ended_are_kept(
    settings: Settings, client: Client
) -> None:
    """All processes of a consumer publish on one subject: replicas, and the next release."""
    js, subject = client.jetstream(), settings.subjects.total("ndvi", "ndvi")

    async def say(hour: int, handled: int) -> None:
        body = {"service": "ndvi", "consumer": "ndvi", "handled": handled, "succeeded": handled}
        body |= {"started_at": f"2026-11-29T{hour:02}:00:00Z"}
        await js.publish(subject, json.dumps(body).encode())

    await say(8, 10)
    await drain_log(settings)
    for hour, handled in ((8, 20), (9, 1), (8, 25), (9, 5), (10, 0)):
        await say(hour, handled)
    await drain_log(settings)
    await drain_log(settings)
    lake = Lake(settings.lake).read("service_totals").sort("totals_sequence")
    expected = [(8, 10), (8, 25), (9, 5), (10, 0)]
    assert [(row["started_at"].hour, row["handled"]) for row in lake.to_dicts()] == expected
    stored = query(settings, "SELECT * FROM service_totals ORDER BY totals_sequence")
    assert [(row["started_at"].hour, row["handled"]) for row in stored] == expected
