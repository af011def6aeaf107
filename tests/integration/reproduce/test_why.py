"""`dlq why` on real servers: the failures of a service beside what it handled."""

import json
import re
from typing import Any

import msgspec
import pytest
from nats.aio.client import Client
from nats.js.api import RetentionPolicy, StreamConfig
from pydantic import SecretStr

from sahool_dlq.errors import ComparisonError, NotPermittedError
from sahool_dlq.jetstream.connection import connected
from sahool_dlq.jetstream.streams import ensure_streams
from sahool_dlq.jobs.why import WhyReport, why_these
from sahool_dlq.redrive.choose.selection import Selection
from sahool_dlq.settings import Settings
from support import servers
from support.comparing import Event, Picky, handle_all, measured
from support.platform_log import query
from support.redriving import quick, redrive_timeouts
from support.running import dlq

ALL = Selection(service="ndvi")
SECRET = "hunter2-and-more"


def picky(settings: Settings, **more: Any) -> Picky:
    return Picky(settings, ValueError("unknown unit"), fails=lambda e: e["unit"] != "ha", **more)


def acres_from(number: int, events: list[Event]) -> list[Event]:
    """Every third event from there on is measured in acres, by a newer producer."""
    for event in events:
        event |= {"password": SECRET, "mail": f"{SECRET}@example.com"}
    for event in events[number::3]:
        event["unit"] = "acre"
    return events


def producer(event: Event) -> dict[str, str]:
    newer = event["unit"] == "acre"
    return {"Producer-Version": "3.1" if newer else "3.0", "Authorization": f"Bearer {SECRET}"}


def sentences(report: WhyReport) -> list[str]:
    [one] = report.consumers
    assert one.comparison is not None, one.why_none
    return [str(each) for each in one.comparison.differences]


async def test_the_planted_difference_is_told_with_its_beginning_and_its_producer(
    settings: Settings, client: Client
) -> None:
    events = acres_from(100, list(measured(240)))
    await handle_all(settings, client, picky(settings), events, headers=producer)
    before = await states(settings, client)
    report = await why_these(settings, ALL)
    [said] = sentences(report)
    at = r"since \d{4}-\d\d-\d\d \d\d:\d\d UTC"
    assert re.fullmatch(
        "`data.unit` = acre in 100 % of the failing, 0 % of the succeeding;"
        f" {at}, with headers.Producer-Version 3.1",
        said,
    ), said
    [one] = report.consumers
    assert one.consumer == f"{settings.events_stream}/ndvi"
    assert (one.failures, one.lost, one.comparison and one.comparison.failing) == (47, 0, 47)
    assert one.comparison is not None
    assert one.comparison.succeeding == 193
    assert report.undrained == report.left_out == 0
    assert await states(settings, client) == before
    assert await why_these(settings, ALL) == report


async def states(settings: Settings, client: Client) -> list[Any]:
    """Everything that a comparison must not change."""
    js = client.jetstream()
    names = (settings.events_stream, settings.dlq_stream, settings.totals_stream)
    streams = [(await js.stream_info(name)).state for name in names]
    consumer = await js.consumer_info(settings.events_stream, "ndvi")
    return [
        *((each.messages, each.first_seq, each.last_seq, each.consumer_count) for each in streams),
        (consumer.ack_floor, consumer.delivered, consumer.num_pending),
        query(settings, "SELECT *, xmin::text FROM failed_events ORDER BY id"),
    ]


async def test_the_command_shows_it_for_a_group_and_no_secret(
    settings: Settings, client: Client
) -> None:
    events = acres_from(60, list(measured(200)))
    await handle_all(settings, client, picky(settings), events, headers=producer)
    [group] = query(settings, "SELECT DISTINCT group_id AS id FROM failed_events")
    for chosen in (["--group", group["id"]], [group["id"][:6]], ["--where", "data.unit = 'acre'"]):
        done = await dlq(settings, "why", *chosen)
        assert done.exit_code == 0, done.stderr
        assert "47 failures" in done.stdout
        assert "100 % of the failing, 0 % of the succeeding" in done.stdout
        as_json = await dlq(settings, "why", *chosen, "--json", "--seed", "3")
        [one] = json.loads(as_json.stdout)["consumers"]
        [difference] = one["comparison"]["differences"]
        assert difference["sentence"] in done.stdout
        assert difference["conditions"][0]["path"].startswith("data.")
        assert (difference["failing"], difference["succeeding"]) == (47, 0)
        assert SECRET not in done.output + as_json.output


async def test_without_a_difference_it_says_so(settings: Settings, client: Client) -> None:
    class Unlucky(Picky):
        def is_cured(self, _: Any) -> bool:
            return len(self.seen) % 4 != 0

    service = Unlucky(settings, ValueError("unlucky"))
    await handle_all(settings, client, service, list(measured(200)))
    done = await dlq(settings, "why", "--service", "ndvi")
    assert done.exit_code == 0
    assert "Nothing separates 50 failing events from 150 succeeding ones" in done.stdout


async def test_few_failures_are_not_compared(settings: Settings, client: Client) -> None:
    events = acres_from(195, list(measured(200)))
    await handle_all(settings, client, picky(settings), events)
    done = await dlq(settings, "why", "--service", "ndvi")
    assert "2 failing and 198 succeeding events are too few to compare" in done.stdout
    with pytest.raises(ComparisonError, match="No failure matches"):
        await why_these(settings, Selection(service="soil"))


async def test_only_events_of_the_consumers_filter_are_compared(
    settings: Settings, client: Client
) -> None:
    js, prefix = client.jetstream(), settings.subject_prefix
    for number in range(150):  # nobody else handles these, and they would look like a difference
        await js.publish(f"{prefix}.analysis.other", json.dumps({"other": number}).encode())
    service = picky(settings, subject="analysis.ndvi")
    events = acres_from(40, list(measured(160)))
    await handle_all(settings, client, service, events, headers=producer)
    report = await why_these(settings, ALL, sample=100)
    [one] = report.consumers
    assert one.comparison is not None
    assert 50 <= one.comparison.succeeding <= 100
    assert "0 % of the succeeding" in sentences(report)[0]


async def test_events_that_were_redriven_are_no_successes(
    settings: Settings, client: Client
) -> None:
    """Their copies succeeded later, with the same acres."""
    settings = quick(settings)
    service = picky(settings)
    events = acres_from(60, list(measured(160)))
    await handle_all(settings, client, service, events, headers=producer)
    service.fails = lambda _: False
    async with service.running():
        await redrive_timeouts(settings, selection=ALL)
    assert query(settings, "SELECT DISTINCT status FROM failed_events") == [{"status": "resolved"}]
    assert (
        "in 100 % of the failing, 0 % of the succeeding"
        in sentences(await why_these(settings, ALL))[0]
    )


async def test_the_version_of_the_consumer_is_known_by_its_totals(
    settings: Settings, client: Client
) -> None:
    events = list(measured(240))
    good = Picky(settings, ValueError("a bug"), version="2.4")
    await handle_all(settings, client, good, events[:120])
    bad = Picky(settings, ValueError("a bug"), version="2.5", fails=lambda _: True)
    await handle_all(settings, client, bad, events[120:])
    [said] = sentences(await why_these(settings, ALL))
    assert said.startswith("consumer version = 2.5 in 100 % of the failing, 0 % of the")


async def test_bodies_in_other_formats_are_compared_as_a_drain_decodes_them(
    settings: Settings, client: Client
) -> None:
    class Packed(Picky):
        def is_cured(self, context: Any) -> bool:
            return bool(msgspec.msgpack.decode(context.data)["unit"] == "ha")

    events = acres_from(60, list(measured(180)))
    await handle_all(
        settings,
        client,
        Packed(settings, ValueError("no")),
        events,
        headers=lambda _: {"Content-Type": "application/msgpack"},
        encode=msgspec.msgpack.encode,
    )
    [said] = sentences(await why_these(settings, ALL))
    assert said.startswith("`data.unit` = acre in 100 % of the failing, 0 % of the succeeding")


async def test_large_bodies_are_read_up_to_a_limit_and_over_the_whole_time(
    settings: Settings, client: Client
) -> None:
    events = acres_from(0, list(measured(240)))
    for event in events:
        event["blob"] = "x" * 20_000
    await handle_all(settings, client, picky(settings), events)
    [one] = (await why_these(settings, ALL, most_bytes=1_000_000)).consumers
    failing, succeeding = one.events
    assert 40 < len(failing) < 70
    assert 20 < len(succeeding) < 60
    numbers = sorted(int(each.body["event_id"].removeprefix("e")) for each in succeeding)
    assert numbers[0] < 30
    assert numbers[-1] > 200
    assert one.lost == 0


async def test_events_that_left_the_stream_are_counted(settings: Settings, client: Client) -> None:
    events = acres_from(0, list(measured(120)))
    await handle_all(settings, client, picky(settings), events)
    await client.jetstream().purge_stream(settings.events_stream, seq=31)
    [one] = (await why_these(settings, ALL)).consumers
    assert (one.failures, one.lost) == (40, 10)
    assert one.comparison is not None
    assert one.comparison.failing == 30
    await client.jetstream().purge_stream(settings.events_stream)
    [none] = (await why_these(settings, ALL)).consumers
    assert none.why_none is not None
    assert "have left their stream" in none.why_none


async def test_a_stream_that_deletes_handled_events_is_one_sentence(
    settings: Settings, client: Client
) -> None:
    js = client.jetstream()
    await js.delete_stream(settings.events_stream)
    await js.add_stream(
        StreamConfig(
            name=settings.events_stream,
            subjects=[f"{settings.subject_prefix}.analysis.>"],
            retention=RetentionPolicy.WORK_QUEUE,
        )
    )
    events = acres_from(10, list(measured(60)))
    await handle_all(settings, client, picky(settings), events)
    done = await dlq(settings, "why", "--service", "ndvi")
    assert done.exit_code == 0
    assert (
        f"There is nothing to compare with: stream {settings.events_stream} deletes events that"
        " were handled (retention workqueue), so none can be read." in done.stdout
    )
    await js.delete_stream(settings.events_stream)
    done = await dlq(settings, "why", "--service", "ndvi")
    assert "there is no consumer" in done.stdout


USERS = """
authorization {
  users: [
    { user: "all", password: "secret" }
    { user: "blind", password: "secret", permissions: {
      publish: { deny: "$JS.API.STREAM.MSG.GET.>" } } }
  ]
}
"""


async def test_a_missing_right_is_one_sentence(
    settings: Settings, tmp_path_factory: pytest.TempPathFactory
) -> None:
    with servers.nats(tmp_path_factory.mktemp("denied"), USERS) as server:

        def as_user(user: str) -> Settings:
            url = server.url.replace("nats://", f"nats://{user}:secret@")
            return settings.model_copy(update={"nats_url": SecretStr(url)})

        able = as_user("all")
        async with connected(able.nats_url) as client:
            await ensure_streams(client.jetstream(), able.stream_names)
            events = acres_from(10, list(measured(60)))
            await handle_all(able, client, picky(able), events)
        with pytest.raises(NotPermittedError, match=r"to publish to \$JS.API.STREAM.MSG.GET"):
            await why_these(as_user("blind"), ALL)
