"""`dlq adopt` changes one setting of a foreign consumer and nothing else.

All tests here share one NATS server, which other tests do not use, as do those of the bridge.
"""

import asyncio
import json
import subprocess
from collections.abc import AsyncIterator, Iterator
from typing import Any

import pytest
from nats.js.api import AckPolicy, ConsumerConfig

from sahool_dlq.bridge.adopt import Limits
from sahool_dlq.bridge.run import bridge_pending
from sahool_dlq.embedded import NatsServer
from sahool_dlq.errors import AdoptionError
from sahool_dlq.events import ConsumerContext, NATSConsumer, NATSConsumerConfig, ProcessingResult
from sahool_dlq.jobs.adoption import Wish, adopt
from sahool_dlq.settings import Settings
from support.foreign_consumers import Platform, opened
from support.platform_log import DLQ, environment, query

pytestmark = pytest.mark.xdist_group("adopt")  # they share a NATS of their own

ODD = {
    "description": "what nats-py knows, and what it does not",
    "backoff": [1_000_000_000, 2_000_000_000],
    "max_deliver": 3,
    "max_batch": 7,
    "metadata": {"team": "billing"},
    "pause_until": "2199-01-01T00:00:00Z",
    "priority_groups": ["g"],
    "priority_policy": "overflow",
    "sample_freq": "30%",
}


@pytest.fixture(scope="module")
def nats_url(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """Replaces the session's server."""
    with NatsServer(tmp_path_factory.mktemp("adopt"), has_login=False) as server:
        yield server.url


@pytest.fixture
async def platform(settings: Settings) -> AsyncIterator[Platform]:
    async with opened(settings) as platform:
        yield platform


async def asked(platform: Platform, subject: str, body: Any = None) -> Any:
    """The server's answer, without what nats-py would drop."""
    data = b"" if body is None else json.dumps(body).encode()
    return json.loads((await platform.client.request(f"$JS.API.{subject}", data)).data)


async def raw(platform: Platform, name: str) -> Any:
    return (await asked(platform, f"CONSUMER.INFO.{platform.settings.events_stream}.{name}"))[
        "config"
    ]


async def odd_consumer(platform: Platform, name: str) -> Any:
    """A consumer with settings that nats-py drops; its configuration on the server."""
    stream = platform.settings.events_stream
    config = {"durable_name": name, "name": name, "ack_policy": "explicit", **ODD}
    request = {"stream_name": stream, "config": config}
    answer = await asked(platform, f"CONSUMER.CREATE.{stream}.{name}", request)
    assert "error" not in answer
    return await raw(platform, name)


async def dlq(platform: Platform, *arguments: str, is_json: bool = True) -> tuple[int, Any, str]:
    """Exit status of `dlq`, its JSON or text, and its errors."""
    settings = platform.settings
    streams = {
        "DLQ_ADVISORY_STREAM": settings.advisory_stream,
        "DLQ_ACK_STREAM": settings.ack_stream,
    }
    done = await asyncio.to_thread(
        subprocess.run,
        [*DLQ, *arguments, *(["--json"] if is_json else [])],
        env=environment(settings, **streams),
        capture_output=True,
        text=True,
        check=False,
    )
    shown = json.loads(done.stdout) if is_json and done.stdout else done.stdout
    return done.returncode, shown, done.stderr


async def test_one_value_is_changed_and_taken_back_and_the_audit_says_who_and_why(
    platform: Platform,
) -> None:
    before = await odd_consumer(platform, "billing")
    if platform.client.connected_server_version.minor > 11:  # older servers report fewer fields
        assert {key: before[key] for key in ODD} == ODD | {"metadata": before["metadata"]}
    status, shown, _ = await dlq(platform, "adopt", "billing", "--proof", "--dry-run")
    assert (status, shown["changed"], shown["dry_run"]) == (0, True, True)
    shown = await dlq(platform, "adopt", "billing", "--proof", "--dry-run", is_json=False)
    change = f"{platform.settings.events_stream}/billing: sample_freq 30% → 100%"
    rest = f"its other {len(before) - 1} settings stay.\nNothing was changed.\n"
    assert shown == (0, f"{change}; {rest}", "")
    assert await raw(platform, "billing") == before
    assert query(platform.settings, "TABLE audit_log") == []

    why = ("--reason", "to know", "--by", "ana")
    assert (await dlq(platform, "adopt", "billing", "--proof", *why))[0] == 0
    assert await raw(platform, "billing") == before | {"sample_freq": "100%"}
    status, again, _ = await dlq(platform, "adopt", "billing", "--proof", *why)
    assert (status, again["changed"]) == (0, False)
    assert await raw(platform, "billing") == before | {"sample_freq": "100%"}

    status, undone, _ = await dlq(platform, "adopt", "billing", "--undo", *why)
    assert (status, undone["changed"]) == (0, True)
    assert await raw(platform, "billing") == before
    assert not (await dlq(platform, "adopt", "billing", "--undo", *why))[1]["changed"]

    trail = query(platform.settings, "SELECT action, actor, reason, detail FROM audit_log")
    where = {"stream": platform.settings.events_stream, "consumer": "billing"}
    assert [(row["action"], row["actor"], row["reason"]) for row in trail] == [
        ("adopt.proof", "ana", "to know"),
        ("adopt.undo", "ana", "to know"),
    ]
    assert [row["detail"] for row in trail] == [
        {**where, "before": "30%", "after": "100%"},
        {**where, "before": "100%", "after": "30%"},
    ]


async def test_without_sampling_before_it_has_none_afterwards(platform: Platform) -> None:
    stream = platform.settings.events_stream
    await platform.js.add_consumer(
        stream, ConsumerConfig(durable_name="c", ack_policy=AckPolicy.EXPLICIT, filter_subject=">")
    )
    before = await raw(platform, "c")
    await adopt(platform.settings, f"{stream}/c", actor="me", reason="r")
    assert (await raw(platform, "c"))["sample_freq"] == "100%"
    await adopt(platform.settings, f"{stream}/c", actor="me", reason="r", is_undo=True)
    after = await raw(platform, "c")
    assert {**after, "name": "c"} == {**before, "name": "c"}  # older servers add it


async def test_a_consumer_gives_up_what_fails_and_that_is_taken_back(platform: Platform) -> None:
    settings, before = platform.settings, await odd_consumer(platform, "odd")
    stream = settings.events_stream
    await platform.js.add_consumer(
        stream, ConsumerConfig(durable_name="c", ack_policy=AckPolicy.EXPLICIT, ack_wait=7)
    )
    plain = await raw(platform, "c")
    shown = await dlq(platform, "adopt", "c", "--dry-run", is_json=False)
    change = f"{stream}/c: max_deliver unlimited → 5"
    rest = f"its other {len(plain) - 1} settings stay.\nNothing was changed.\n"
    assert shown == (0, f"{change}; {rest}", "")
    assert await raw(platform, "c") == plain
    assert query(settings, "TABLE audit_log") == []

    why = ("--reason", "loops", "--by", "ana")
    await platform.js.delete_stream(settings.advisory_stream)
    assert (await dlq(platform, "adopt", "c", *why))[0] == 0
    assert await raw(platform, "c") == plain | {"max_deliver": 5}
    assert await platform.js.stream_info(
        settings.advisory_stream
    )  # otherwise no alert would be sent
    status, again, _ = await dlq(platform, "adopt", "c", *why)
    assert (status, again["changed"]) == (0, False)
    assert not (await dlq(platform, "adopt", "odd", *why))[1]["changed"]  # it gives up already

    both = ("--max-deliver", "3", "--backoff", "2,4.5", "--proof")
    assert (await dlq(platform, "adopt", "c", *both, *why))[0] == 0
    waits = {"backoff": [2_000_000_000, 4_500_000_000], "ack_wait": 2_000_000_000}
    assert await raw(platform, "c") == plain | waits | {"max_deliver": 3, "sample_freq": "100%"}
    status, _, said = await dlq(platform, "adopt", "c", "--undo", *why)
    assert (status, said) == (0, "")
    assert {**await raw(platform, "c"), "name": "c"} == {**plain, "name": "c"}
    assert not (await dlq(platform, "adopt", "c", "--undo", *why))[1]["changed"]

    trail = query(settings, "SELECT action, detail FROM audit_log ORDER BY id")
    assert [row["action"] for row in trail] == [
        *("adopt.limits", "adopt.proof", "adopt.limits", "adopt.undo", "adopt.limits.undo")
    ]
    where = {"stream": stream, "consumer": "c"}
    assert trail[0]["detail"] == {
        **where,
        "before": {"max_deliver": -1},
        "after": {"max_deliver": 5},
    }
    assert trail[4]["detail"]["after"] == {
        "max_deliver": -1,
        "backoff": None,
        "ack_wait": 7_000_000_000,
    }
    assert await raw(platform, "odd") == before


async def test_undone_is_what_was_done_and_not_what_others_did_since(platform: Platform) -> None:
    stream = platform.settings.events_stream
    await platform.js.add_consumer(
        stream, ConsumerConfig(durable_name="c", ack_policy=AckPolicy.EXPLICIT)
    )
    why = {"actor": "me", "reason": "r"}
    wish = Wish(is_proof=False, limits=Limits())
    await adopt(platform.settings, f"{stream}/c", wish, **why)
    config = await raw(platform, "c") | {"max_deliver": 9}
    request = {"stream_name": stream, "config": config, "action": "update"}
    assert "error" not in await asked(platform, f"CONSUMER.CREATE.{stream}.c", request)
    undone = await adopt(platform.settings, f"{stream}/c", **why, is_undo=True)
    assert not undone.is_change
    assert (await raw(platform, "c"))["max_deliver"] == 9


async def test_a_given_up_event_of_an_adopted_consumer_is_a_dead_letter(platform: Platform) -> None:
    settings = platform.settings
    where = f"{settings.events_stream}/c"
    config = ConsumerConfig(durable_name="c", ack_policy=AckPolicy.EXPLICIT)
    await platform.js.add_consumer(settings.events_stream, config)
    wish = Wish(is_proof=False, limits=Limits(max_deliver=2))
    await adopt(settings, where, wish, actor="me", reason="r")
    await platform.publish({"n": 1})
    await platform.fail("c", {})
    counts, _ = await bridge_pending(settings)
    assert counts["bridged"] == 1
    assert [letter["original_sequence"] for letter in await platform.letters()] == [1]


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (("--undo", "--proof"), "cannot be combined"),
        (("--undo", "--max-deliver", "3"), "cannot be combined"),
        (("--backoff", "1,x"), "seconds separated by commas"),
        (("--backoff", "0"), "seconds separated by commas"),
        (("--max-deliver", "2", "--backoff", "1,2,3"), "more waits than the 2 deliveries"),
    ],
)
async def test_what_makes_no_sense_is_refused(
    platform: Platform, arguments: tuple[str, ...], words: str
) -> None:
    config = ConsumerConfig(durable_name="c", ack_policy=AckPolicy.EXPLICIT)
    await platform.js.add_consumer(platform.settings.events_stream, config)
    before = await raw(platform, "c")
    status, _, said = await dlq(platform, "adopt", "c", *arguments, "--reason", "r")
    assert status in (1, 2)
    assert words in " ".join(said.split())
    assert await raw(platform, "c") == before


async def test_what_can_not_be_adopted_is_said_in_one_sentence(platform: Platform) -> None:
    settings, stream = platform.settings, platform.settings.events_stream
    for name, policy in (("all", AckPolicy.ALL), ("none", AckPolicy.NONE)):
        config = ConsumerConfig(durable_name=name, ack_policy=policy)
        await platform.js.add_consumer(stream, config)
    await platform.js.add_stream(name="OTHER", subjects=["other.>"])
    for where in (stream, "OTHER"):
        config = ConsumerConfig(durable_name="twice", ack_policy=AckPolicy.EXPLICIT)
        await platform.js.add_consumer(where, config)
    config = ConsumerConfig(durable_name="reader", ack_policy=AckPolicy.EXPLICIT)
    await platform.js.add_consumer(settings.dlq_stream, config)
    for name, words in (
        ("NONE/c", "There is no stream NONE: "),
        (f"{stream}/c", f"Stream {stream} has no consumer c: "),
        ("c", "No stream has a consumer c: "),
        ("twice", f"say {stream}/twice or OTHER/twice."),
        ("a b", "'a b' is not a consumer: "),
        ("a/b/c", "'a/b/c' is not a consumer: "),
        ("all", "whose ack_policy is all: "),
        ("none", "whose ack_policy is none: "),
        (f"{settings.dlq_stream}/reader", "reads a stream of the platform itself"),
    ):
        status, _, said = await dlq(platform, "adopt", name, "--proof", "--reason", "r")
        assert status == 1
        assert words in said
        assert said.count("\n") == 1
    assert query(settings, "TABLE audit_log") == []


async def test_a_consumer_of_our_library_needs_none_and_its_namesake_elsewhere_may(
    platform: Platform,
) -> None:
    settings = platform.settings

    async def handle(_: ConsumerContext) -> ProcessingResult:
        return ProcessingResult.SUCCESS

    config = NATSConsumerConfig(
        servers=[settings.nats_url],
        name="ndvi",
        consumer_name="worker",
        stream_name=settings.events_stream,
        dlq_stream_name=settings.dlq_stream,
        totals_stream_name=settings.totals_stream,
        dlq_subject_prefix=f"{settings.subject_prefix}.dlq",
    )
    consumer = NATSConsumer(config)
    assert await consumer.connect()
    await consumer.subscribe(handle, f"{settings.subject_prefix}.analysis.*")
    consumer.start_in_background()
    await consumer.close()  # says its totals
    with pytest.raises(AdoptionError, match="worker is a NATSConsumer of ndvi, which reports"):
        await adopt(settings, "worker", actor="me", reason="r")
    await platform.js.add_stream(name="OTHER", subjects=["other.>"])
    namesake = ConsumerConfig(durable_name="worker", ack_policy=AckPolicy.EXPLICIT)
    await platform.js.add_consumer("OTHER", namesake)
    assert (await adopt(settings, "OTHER/worker", actor="me", reason="r")).is_change
