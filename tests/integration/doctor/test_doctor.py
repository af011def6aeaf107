"""`dlq doctor`: for each finding, the loss that it predicts is caused and observed.

These tests have their own NATS server, because the doctor reads everything in an account.
"""

import asyncio
import json
import time
from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import nats
import pytest
from click.testing import CliRunner, Result
from nats.errors import NoRespondersError

from sahool_dlq.cli import _command
from sahool_dlq.doctor.finding import Severity
from sahool_dlq.errors import StreamError
from sahool_dlq.events import ConsumerContext, NATSConsumer, NATSConsumerConfig, ProcessingResult
from sahool_dlq.jetstream.grants import grants_of_role
from sahool_dlq.jetstream.stream_names import StreamNames
from sahool_dlq.jetstream.streams import (
    ADVISORIES,
    ensure_ack_stream,
    ensure_advisory_stream,
    ensure_body_store,
    ensure_streams,
)
from sahool_dlq.settings import Settings
from support import servers
from support.zoo import SECOND, Zoo, opened, until

pytestmark = pytest.mark.xdist_group("doctor")  # they share a NATS of their own

LOSES, MAY_LOSE, ADVICE = Severity
HOUR = 3600 * SECOND


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    with servers.nats(tmp_path_factory.mktemp("doctor")) as server:
        yield server.url


@pytest.fixture
async def zoo(server: str) -> AsyncIterator[Zoo]:
    async with opened(server) as zoo:
        yield zoo


async def test_a_well_configured_account_has_no_findings(zoo: Zoo) -> None:
    settings = Settings(nats_url=zoo.url)
    js = zoo.client.jetstream()
    await ensure_streams(js, settings.stream_names)
    await ensure_advisory_stream(js, settings.stream_names)
    await ensure_ack_stream(js, settings.stream_names)
    await ensure_body_store(js)
    await js.create_key_value(bucket="latest")
    await zoo.consumer("SAHOOL_ADVISORIES", "bridge", max_deliver=5)
    limits = {"max_age": 24 * HOUR, "duplicate_window": SECOND}
    await zoo.stream("ORDERS", max_msgs=1_000, **limits)
    await zoo.consumer("ORDERS", "billing", max_deliver=5, ack_wait=10 * SECOND)
    await zoo.consumer("ORDERS", "mail", max_deliver=3, backoff=[SECOND, 2 * SECOND])
    await zoo.consumer("ORDERS", "rare", max_deliver=3, filter_subject="ORDERS.rare")
    await zoo.stream("WORK", retention="workqueue", discard="new", max_msgs=1_000, **limits)
    await zoo.consumer("WORK", "a", max_deliver=3, filter_subject="WORK.a.>")
    await zoo.consumer("WORK", "others", max_deliver=3, filter_subject="WORK.b")
    await zoo.ask(
        "STREAM.UPDATE.WORK",
        **(await zoo.ask("STREAM.INFO.WORK"))["config"] | {"subjects": ["WORK.a.>", "WORK.b"]},
    )
    await zoo.publish("ORDERS.a", 2)
    await zoo.publish("WORK.b")
    for stream, consumer in (("ORDERS", "billing"), ("WORK", "others")):
        for msg in await zoo.pull(stream, consumer, 5):
            await zoo.answer(msg, b"+ACK")
    async with ours(zoo):  # a NATSConsumer counts by itself
        assert (await zoo.rules(listen_seconds=0.2)) == set()
    assert not (await zoo.examine()).is_losing


class ours:  # noqa: N801  (used like a function)
    """A NATSConsumer that has published its totals."""

    def __init__(self, zoo: Zoo) -> None:
        config = NATSConsumerConfig(servers=[zoo.url], name="ndvi")
        self._consumer = NATSConsumer(config)

    async def __aenter__(self) -> None:
        async def handle(_: ConsumerContext) -> ProcessingResult:
            return ProcessingResult.SUCCESS

        assert await self._consumer.connect()
        await self._consumer.subscribe(handle, "sahool.analysis.ndvi")
        self._consumer.start_in_background()
        await self._consumer.close()  # says its totals

    async def __aexit__(self, *_: object) -> None:
        pass


async def test_unlimited_deliveries_loop_for_ever(zoo: Zoo) -> None:
    await zoo.stream("S")
    await zoo.consumer("S")
    assert (await zoo.found("loops", "S/c")).severity is MAY_LOSE
    await zoo.publish("S.a", 2)
    assert await zoo.fail("S", 12) == [1] * 12  # the second waits behind it
    found = await zoo.found("loops", "S/c")
    assert found.severity is LOSES
    assert "1 event came again" in found.sentence
    assert [msg.metadata.sequence.stream for msg in await zoo.pull("S")] == [1]


async def test_bare_naks_burn_all_attempts_in_milliseconds(zoo: Zoo) -> None:
    await zoo.stream("S")
    await zoo.consumer("S", max_deliver=5, backoff=[10 * SECOND, 20 * SECOND])
    looking = asyncio.create_task(zoo.found("bare-naks", "S/c", listen_seconds=3))
    started = time.monotonic()

    async def heard() -> bool:
        await zoo.publish("S.a")
        await zoo.fail("S", 5)
        return looking.done()

    await until(heard)
    found = await looking
    assert found.severity is MAY_LOSE
    assert found.evidence["bare_naks"] >= 5
    assert found.evidence["most_deliveries"] == 5
    assert await zoo.pull("S") == []
    assert time.monotonic() - started < 10  # the shortest backoff
    assert await zoo.messages("S") >= 1


async def test_what_is_given_up_without_a_stream_of_advisories_is_skipped_silently(
    zoo: Zoo,
) -> None:
    await zoo.stream("S")
    await zoo.consumer("S", max_deliver=2)
    await zoo.publish("S.a", 3)
    assert await zoo.fail("S", 6) == [1, 1, 2, 2, 3, 3]
    assert await zoo.pull("S") == []
    assert await zoo.messages("S") == 3
    found = await zoo.found("given-up-unheard", "S/c")
    assert found.severity is LOSES
    assert found.evidence == {"given_up_at_least": 3}
    assert "So far at least 3 events." in found.sentence

    await zoo.stream("ADV", *ADVISORIES)  # too late for these
    found = await zoo.found("given-up-before", "S/c")
    assert found.severity is LOSES
    assert found.evidence == {"given_up_at_least": 3, "advisories": 0}
    await zoo.publish("S.a")
    await zoo.fail("S", 3)
    assert (await zoo.found("given-up-before", "S/c")).evidence["advisories"] == 1


async def test_what_is_terminated_on_a_queue_is_gone(zoo: Zoo) -> None:
    await zoo.stream("Q", retention="workqueue", max_age=HOUR)
    await zoo.consumer("Q", max_deliver=3)
    await zoo.publish("Q.a")
    [msg] = await zoo.pull("Q")
    await zoo.answer(msg, b"+TERM no price")
    assert await zoo.messages("Q") == 0
    assert (await zoo.found("terminated-unheard", "Q/c")).severity is MAY_LOSE


@pytest.mark.parametrize("retention", ["limits", "interest"])
async def test_without_acknowledgements_sent_is_done(zoo: Zoo, retention: str) -> None:
    await zoo.stream("S", retention=retention)
    await zoo.consumer("S", ack_policy="none")
    await zoo.publish("S.a")
    assert len(await zoo.pull("S")) == 1  # then the service dies
    assert await zoo.pull("S") == []
    assert await zoo.messages("S") == (1 if retention == "limits" else 0)
    found = await zoo.found("ack-none", "S/c")
    assert found.severity is LOSES
    assert ("deleted" in found.sentence) is (retention == "interest")


async def test_one_acknowledgement_for_all_takes_the_failure_along(zoo: Zoo) -> None:
    await zoo.stream("S")
    await zoo.consumer("S", ack_policy="all", max_deliver=5, ack_wait=SECOND // 2)
    await zoo.publish("S.a", 2)
    _, second = await zoo.pull("S", batch=2)
    await zoo.answer(second, b"+ACK")
    assert await zoo.pull("S", seconds=1) == []
    assert (await zoo.figures("S"))["ack_floor"]["stream_seq"] == 2
    assert (await zoo.found("ack-all", "S/c")).severity is LOSES


async def test_with_one_delivery_a_broken_connection_is_a_failure(zoo: Zoo) -> None:
    await zoo.stream("S")
    await zoo.consumer("S", max_deliver=1, ack_wait=SECOND // 5)
    await zoo.publish("S.a")
    assert len(await zoo.pull("S")) == 1  # and the connection breaks
    assert await zoo.pull("S", seconds=1) == []
    assert (await zoo.found("one-delivery", "S/c")).severity is MAY_LOSE


async def test_a_work_queue_holds_for_ever_what_was_given_up(zoo: Zoo) -> None:
    await zoo.stream("Q", retention="workqueue")
    await zoo.consumer("Q", max_deliver=2)
    await zoo.publish("Q.a")
    assert await zoo.fail("Q", 3) == [1, 1]
    assert await zoo.messages("Q") == 1
    found = await zoo.found("held-in-queue", "Q/c")
    assert found.severity is ADVICE
    assert found.evidence == {"given_up_at_least": 1}


async def test_a_retry_outlasts_what_its_stream_keeps(zoo: Zoo) -> None:
    await zoo.stream("S", max_age=SECOND, duplicate_window=SECOND // 10)
    await zoo.consumer("S", max_deliver=3, backoff=[2 * SECOND])
    found = await zoo.found("retries-outlast-age", "S/c")
    assert found.severity is MAY_LOSE
    assert found.evidence == {"retry_seconds": 6, "max_age_seconds": 1}
    await zoo.publish("S.a")
    assert len(await zoo.pull("S")) == 1
    assert await zoo.pull("S", seconds=4) == []  # its second attempt does not happen
    assert await zoo.messages("S") == 0


async def test_limits_remove_what_a_consumer_never_got(zoo: Zoo) -> None:
    await zoo.stream("S", max_msgs=3)
    await zoo.consumer("S", max_deliver=3)
    await zoo.consumer("S", "part", max_deliver=3, filter_subject="S.a")
    await zoo.consumer("S", "none", max_deliver=3, filter_subject="S.never")
    await zoo.publish("S.a", 2)
    for msg in await zoo.pull("S", batch=2):
        await zoo.answer(msg, b"+ACK")
    await zoo.publish("S.a", 10)
    found = await zoo.found("removed-undelivered", "S/c")
    assert (found.severity, "removed 7 events" in found.sentence) == (LOSES, True)
    found = await zoo.found("removed-undelivered", "S/part")
    assert (found.severity, "removed up to 9 events" in found.sentence) == (MAY_LOSE, True)
    assert ("removed-undelivered", "S/none") not in await zoo.rules()
    await zoo.consumer("S", "late", max_deliver=3)  # events deleted before are not missed
    assert ("removed-undelivered", "S/late") not in await zoo.rules()
    assert [msg.metadata.sequence.stream for msg in await zoo.pull("S", batch=4)] == [10, 11, 12]


async def test_a_full_stream_removes_what_waits(zoo: Zoo) -> None:
    await zoo.stream("S", max_msgs=5)
    await zoo.consumer("S", max_deliver=3)
    await zoo.publish("S.a", 5)
    assert (await zoo.found("nearly-removed", "S/c")).severity is MAY_LOSE
    await zoo.publish("S.a")
    assert [msg.metadata.sequence.stream for msg in await zoo.pull("S")] == [2]


async def test_open_events_hold_up_the_others(zoo: Zoo) -> None:
    await zoo.stream("S")
    await zoo.consumer("S", max_ack_pending=1)
    await zoo.publish("S.a", 2)
    await zoo.fail("S", 3)
    assert len(await zoo.pull("S")) == 1
    assert await zoo.pull("S") == []
    found = await zoo.found("max-ack-pending", "S/c")
    assert found.severity is LOSES  # the failing one is delivered again and again, the other never
    assert found.evidence == {"num_ack_pending": 1, "num_pending": 1, "num_redelivered": 1}


async def test_a_paused_consumer_gets_nothing(zoo: Zoo) -> None:
    await zoo.stream("S", max_age=SECOND, duplicate_window=SECOND // 10)
    await zoo.consumer(
        "S", max_deliver=2, ack_wait=SECOND // 10, pause_until="2199-01-01T00:00:00Z"
    )
    await zoo.publish("S.a")
    found = await zoo.found("paused", "S/c")
    assert (found.severity, "1 event wait" in found.sentence) == (LOSES, True)
    assert await zoo.pull("S") == []

    async def is_gone() -> bool:
        return await zoo.messages("S") == 0

    await until(is_gone)


async def test_a_stalled_consumer_is_reported(zoo: Zoo) -> None:
    await zoo.stream("S", max_age=SECOND, duplicate_window=SECOND // 10)
    await zoo.consumer("S", max_deliver=2, ack_wait=SECOND // 10)
    await zoo.publish("S.a")
    found = await zoo.found("stalled", "S/c", stalled_seconds=0)
    assert (found.severity, found.evidence["num_pending"]) == (MAY_LOSE, 1)
    assert ("stalled", "S/c") not in await zoo.rules()

    async def is_gone() -> bool:
        return await zoo.messages("S") == 0

    await until(is_gone)
    assert await zoo.pull("S") == []


async def test_a_filter_that_nothing_can_match(zoo: Zoo) -> None:
    await zoo.stream("S", "S.new")
    await zoo.consumer("S", max_deliver=2, filter_subject="S.paid")
    with pytest.raises(NoRespondersError):
        await zoo.publish("S.paid")
    await zoo.publish("S.new")
    assert await zoo.pull("S") == []
    assert (await zoo.found("filter-of-nothing", "S/c")).severity is LOSES


async def test_a_durable_that_is_deleted_when_idle(zoo: Zoo) -> None:
    await zoo.stream("S", retention="interest")
    await zoo.consumer("S", max_deliver=2, inactive_threshold=2 * SECOND)
    assert (await zoo.found("deleted-when-idle", "S/c")).severity is MAY_LOSE

    async def is_gone() -> bool:
        return "error" in await zoo.figures("S")

    await until(is_gone)
    await zoo.publish("S.a")
    assert await zoo.messages("S") == 0


async def test_many_deliveries_were_repeats(zoo: Zoo) -> None:
    await zoo.stream("S")
    await zoo.consumer("S")
    await zoo.publish("S.a", 25)
    for answer in (b"-NAK", b"+ACK"):
        for msg in await zoo.pull("S", batch=25, seconds=5):
            await zoo.answer(msg, answer)
    found = await zoo.found("redelivered-share", "S/c")
    assert (found.severity, found.evidence) == (ADVICE, {"repeats": 25, "deliveries": 50})
    assert "At least 50%" in found.sentence


async def test_a_subject_of_a_queue_without_a_consumer(zoo: Zoo) -> None:
    await zoo.stream("Q", "Q.a.*", "Q.b", retention="workqueue", max_age=HOUR)
    await zoo.consumer("Q", max_deliver=2, filter_subject="Q.a.x")
    found = await zoo.found("queue-unclaimed", "Q")
    assert (found.severity, found.evidence["subjects"]) == (LOSES, ["Q.b"])
    await zoo.consumer("Q", "b", max_deliver=2, filter_subject="Q.b")
    assert (await zoo.found("queue-unclaimed", "Q")).severity is MAY_LOSE
    await zoo.publish("Q.a.y", 2)
    found = await zoo.found("queue-unclaimed", "Q")
    assert (found.severity, found.evidence["events"]) == (LOSES, 2)
    assert await zoo.pull("Q") == await zoo.pull("Q", "b") == []
    assert await zoo.messages("Q") == 2


async def test_an_interest_stream_deletes_what_no_consumer_takes(zoo: Zoo) -> None:
    await zoo.stream("I", retention="interest", max_age=HOUR)
    found = await zoo.found("queue-unclaimed", "I")
    assert (found.severity, "deleted at once" in found.sentence) == (LOSES, True)
    assert "error" not in (await zoo.publish("I.a"))[0]
    assert await zoo.messages("I") == 0


async def test_a_limit_removes_events_that_were_not_handled(zoo: Zoo) -> None:
    await zoo.stream("Q", retention="workqueue", max_msgs=2)
    await zoo.consumer("Q", max_deliver=2)
    assert (await zoo.found("queue-drops-work", "Q")).severity is MAY_LOSE
    await zoo.publish("Q.a", 3)
    assert [msg.metadata.sequence.stream for msg in await zoo.pull("Q", batch=3)] == [2, 3]


async def test_newer_events_take_the_place_of_older_ones(zoo: Zoo) -> None:
    await zoo.stream("S", max_msgs_per_subject=1)
    await zoo.consumer("S", max_deliver=2)
    found = await zoo.found("keeps-latest", "S")
    assert (found.severity, found.evidence["consumers"]) == (MAY_LOSE, ["c"])
    await zoo.publish("S.a", 2)
    assert [msg.metadata.sequence.stream for msg in await zoo.pull("S", batch=2)] == [2]


async def test_a_full_stream_refuses(zoo: Zoo) -> None:
    await zoo.stream("S", discard="new", max_msgs=10)
    await zoo.publish("S.a", 9)
    assert (await zoo.found("refuses-when-full", "S")).severity is MAY_LOSE
    _, refused = await zoo.publish("S.a", 2)
    assert refused["error"]["err_code"] == 10077
    assert (await zoo.found("refuses-when-full", "S")).severity is LOSES


async def test_without_acknowledgements_a_publisher_cannot_know_that_an_event_was_not_stored(
    zoo: Zoo,
) -> None:
    await zoo.stream("S", no_ack=True, max_msg_size=10)
    with pytest.raises(nats.errors.TimeoutError):
        await zoo.client.request("S.a", b"x" * 100, timeout=1)
    assert await zoo.messages("S") == 0
    assert (await zoo.found("unconfirmed", "S")).severity is MAY_LOSE


async def test_what_is_in_memory_is_gone_after_a_restart(tmp_path: Path) -> None:
    with servers.nats(tmp_path) as server:
        async with asyncio.timeout(60):
            client = await nats.connect(server.url)
            zoo = Zoo(server.url, client)
            await zoo.stream("M", storage="memory")
            await zoo.publish("M.a")
            await zoo.stream("S")
            await zoo.consumer("S", max_deliver=3, mem_storage=True)
            assert (await zoo.found("in-memory", "M")).severity is MAY_LOSE
            assert (await zoo.found("consumer-in-memory", "S/c")).severity is MAY_LOSE
            await client.close()
    with servers.nats(tmp_path) as server:
        client = await nats.connect(server.url)
        zoo = Zoo(server.url, client)
        assert (await zoo.ask("STREAM.NAMES"))["streams"] == ["S"]
        assert "error" in await zoo.figures("S")
        await client.close()


@servers.needs_nats(2, 12, "persist_mode")
async def test_a_stream_that_is_written_later(zoo: Zoo) -> None:
    await zoo.stream("S", persist_mode="async")
    assert (await zoo.found("written-later", "S")).severity is MAY_LOSE


async def test_a_log_that_loses_dead_letters(zoo: Zoo) -> None:
    limits = {"max_age": SECOND, "duplicate_window": SECOND // 10}
    await zoo.stream("SAHOOL_DLQ", "sahool.dlq.>", **limits)
    for rule, severity in (
        ("log-too-short", MAY_LOSE),
        ("log-can-be-emptied", MAY_LOSE),
        ("log-doubles", ADVICE),
    ):
        assert (await zoo.found(rule, "SAHOOL_DLQ")).severity is severity
    await zoo.publish("sahool.dlq.x", **{"Nats-Msg-Id": "1"})

    async def is_gone() -> bool:
        return await zoo.messages("SAHOOL_DLQ") == 0

    await until(is_gone)
    [again] = await zoo.publish("sahool.dlq.x", **{"Nats-Msg-Id": "1"})
    assert not again.get("duplicate")
    assert (await zoo.ask("STREAM.PURGE.SAHOOL_DLQ"))["success"]


async def test_advisories_without_a_reader_or_with_a_short_age(zoo: Zoo) -> None:
    limits = {"max_age": SECOND, "duplicate_window": SECOND // 10}
    await zoo.stream("ADV", *ADVISORIES, **limits)
    await zoo.stream("S")
    await zoo.consumer("S", max_deliver=2)
    await zoo.publish("S.a")
    await zoo.fail("S", 3)
    found = await zoo.found("advisories-unread", "ADV")
    assert found.severity is MAY_LOSE
    assert (await zoo.found("advisories-short", "ADV")).severity is MAY_LOSE

    async def is_gone() -> bool:
        return await zoo.messages("ADV") == 0

    await until(is_gone)
    assert (await zoo.found("given-up-before", "S/c")).severity is LOSES


async def test_every_page_of_streams_and_consumers_is_read(zoo: Zoo) -> None:
    await zoo.stream("S", storage="memory")
    streams = [f"T{number}" for number in range(300)]
    for names in (streams[at : at + 50] for at in range(0, 300, 50)):
        await asyncio.gather(*(zoo.stream(name, storage="memory") for name in names))
        await asyncio.gather(*(zoo.consumer("S", name) for name in names))
    found = await zoo.examine()
    assert found.streams == 301
    assert {name for name, _ in found.fates} == {f"S/{name}" for name in streams}
    assert {each.subject for each in found.findings if each.rule == "loops"} == {
        f"S/{name}" for name in streams
    }


LIMITED = """
accounts {
  FULL { jetstream { max_streams: 2 }, users: [
    { user: all, password: secret }
    { user: doctor, password: secret, permissions: { publish: [%s], subscribe: [%s] } }
    { user: half, password: secret, permissions: {
        publish: ["$JS.API.STREAM.LIST", "$JS.API.CONSUMER.LIST.S"], subscribe: ["_INBOX.half.>"]
    } }
    { user: blind, password: secret, permissions: {
        publish: ["$JS.API.INFO"], subscribe: ["_INBOX.blind.>"] } }
  ] }
  NONE { users: [ { user: none, password: secret } ] }
}
"""


async def test_it_works_with_its_rights_and_tells_what_it_may_not_see(tmp_path: Path) -> None:
    grants = grants_of_role(StreamNames(), "doctor")
    lists = [", ".join(f'"{each}"' for each in part) for part in (grants.publish, grants.subscribe)]
    with servers.nats(tmp_path, LIMITED % tuple(lists)) as server:

        def login(user: str) -> str:
            return f"nats://{user}:secret@127.0.0.1:{server.port}"

        client = await nats.connect(login("all"))
        zoo = Zoo(login("all"), client)
        await zoo.stream("S")
        await zoo.consumer("S")
        await zoo.stream("Q", retention="workqueue", max_age=HOUR)
        await zoo.consumer("Q", max_deliver=2)
        refused = await zoo.ask("STREAM.CREATE.T", name="T", subjects=["T.>"])
        assert "maximum number of streams reached" in refused["error"]["description"]
        assert (await zoo.found("near-limits", "account")).severity is LOSES
        full = await zoo.rules(listen_seconds=0.1)
        assert await Zoo(login("doctor"), client).rules(listen_seconds=0.1) == full
        half = await Zoo(login("half"), client).examine(listen_seconds=0.1)
        unseen = [each.evidence["request"] for each in half.findings if each.rule == "unseen"]
        assert unseen == ["$JS.ACK.>", "STREAM.INFO.Q", "CONSUMER.LIST.Q", "INFO"]
        assert ("loops", "S/c") in {(each.rule, each.subject) for each in half.findings}
        assert not any(each.subject.startswith("Q") for each in half.findings)
        blind = await Zoo(login("blind"), client).examine(listen_seconds=0)
        assert (blind.is_blind, blind.is_losing, blind.streams) == (True, True, 0)
        with pytest.raises(StreamError, match="NATS has no JetStream for this account"):
            await Zoo(login("none"), client).examine()
        await client.close()


def run(url: str, *arguments: str) -> Result:
    """`dlq doctor`, with a PostgreSQL that does not exist."""
    given = ["doctor", "--nats-url", url, "--postgres-dsn", "postgresql://127.0.0.1:1/no"]
    return CliRunner().invoke(_command(), [*given, "--listen", "0", *arguments])


async def test_each_form_says_the_same_and_the_exit_status_tells(zoo: Zoo, tmp_path: Path) -> None:
    async def ran(*arguments: str) -> tuple[int, str]:
        result = await asyncio.to_thread(run, zoo.url, *arguments)
        return result.exit_code, result.output

    assert await ran() == (0, "0 streams, 0 durable consumers: nothing is wrong.\n")
    assert (await ran("--format", "nagios"))[0] == 0
    await zoo.stream("S")
    await zoo.consumer("S")
    assert (await ran())[0] == 0  # it may lose
    assert (await ran("--format", "nagios"))[0] == 1
    await zoo.stream("I", retention="interest", max_age=HOUR)
    status, text = await ran()
    assert status == 1
    assert "loses data  I queue-unclaimed" in text
    assert "It is delivered again every 30 s, for ever." in text
    status, text = await ran("--json")
    assert status == 1
    told = json.loads(text)
    assert told["counts"] == {"loses": 1, "may_lose": 1, "advice": 0}
    assert [each["rule"] for each in told["findings"]] == ["queue-unclaimed", "loops"]
    assert [each["consumer"] for each in told["consumers"]] == ["S/c"]
    status, text = await ran("--format", "nagios")
    assert status == 2
    assert text.startswith("DLQ CRITICAL - 2 streams, 1 durable consumer: 1 loses data, 1 may lose")
    assert " | loses=1 may_lose=1 advice=0\n" in text
    status, text = await ran("--format", "prometheus")
    assert 'dlq_doctor_finding{rule="loops",severity="may_lose",subject="S/c"} 1.0' in text
    assert 'dlq_doctor_findings{severity="loses"} 1.0' in text
    page = tmp_path / "doctor.html"
    assert (await ran("--html", str(page)))[0] == 1
    html = page.read_text()
    assert "<h1>What happens to failures</h1>" in html
    assert "No consumer takes I.&gt;: events there are deleted at once." in html
    assert "http" not in html.replace("http-equiv", "").replace("http://www.w3.org", "")


def test_without_an_answer_nagios_gets_the_status_unknown() -> None:
    result = run("nats://127.0.0.1:1", "--format", "nagios")
    assert result.exit_code == 3
    assert result.output.startswith("DLQ UNKNOWN - ")
    assert run("nats://127.0.0.1:1").exit_code == 1
