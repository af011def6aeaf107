"""A log in another JetStream domain, seen from a leaf, and one that another account exports."""

import asyncio
import contextlib
import json
from collections.abc import AsyncIterator, Callable
from pathlib import Path
from typing import Any

import nats.errors
import pytest
from nats.js.api import AckPolicy, ConsumerConfig, StreamConfig
from pydantic import SecretStr

from sahool_dlq.bridge.run import bridge_pending
from sahool_dlq.embedded import NatsServer
from sahool_dlq.embedded.server import HOST, free_port
from sahool_dlq.erasure.from_stream import erase_messages
from sahool_dlq.errors import ServerUnavailableError, StreamError
from sahool_dlq.jetstream.access import Access
from sahool_dlq.jetstream.bodies import stored_body
from sahool_dlq.jetstream.connection import connected
from sahool_dlq.jetstream.stored import last_message, stored_message
from sahool_dlq.jetstream.streams import BODIES_BUCKET, ensure_body_store, ensure_streams
from sahool_dlq.jobs.drain import drain_log, migrate_all
from sahool_dlq.jobs.redrive import redrive
from sahool_dlq.redrive.choose.selection import Selection
from sahool_dlq.settings import Settings
from support.consumer_log import SUCCESS, Calls, Log, running, until

ACCOUNTS = """
accounts {
  HUB: { jetstream: enabled, users: [ { user: hub, password: s } ], exports: [
    { service: "$JS.API.>", response_type: stream }
    { service: "$JS.ACK.>" }
    { service: "$O.sahool-dlq-bodies.>" }
    { service: "PREFIX.>" } ] }
  PLANT: { jetstream: enabled, users: [ { user: plant, password: s } ], imports: [
    { service: { account: HUB, subject: "$JS.API.>" }, to: "HUB.API.>" }
    { service: { account: HUB, subject: "$JS.ACK.>" } }
    { service: { account: HUB, subject: "$O.sahool-dlq-bodies.>" } }
    { service: { account: HUB, subject: "PREFIX.>" } } ] }
}
"""


@pytest.fixture
def leaf(tmp_path: Path, nats_server_factory: Callable[..., NatsServer]) -> dict[str, str]:
    """A hub and a leaf node, each with its own JetStream domain; their addresses."""

    def start(domain: str, more: str) -> str:
        store = json.dumps(str(tmp_path / f"js-{domain}"))
        jetstream = f"jetstream: {{ domain: {domain}, store_dir: {store} }}"
        return nats_server_factory(config=f"{jetstream}\n{more}").url

    port = free_port("NATS")
    hub = start("hub", f'leafnodes {{ listen: "{HOST}:{port}" }}')
    url = start("leaf", f'leafnodes {{ remotes: [ {{ url: "nats-leaf://{HOST}:{port}" }} ] }}')
    return {"hub": hub, "leaf": url}


@pytest.fixture
def imported(nats_server_factory: Callable[..., NatsServer], settings: Settings) -> dict[str, str]:
    config = ACCOUNTS.replace("PREFIX", settings.subject_prefix)
    where = nats_server_factory(config=config).url.removeprefix("nats://")
    return {user: f"nats://{user}:s@{where}" for user in ("hub", "plant")}


async def is_linked(access: Access) -> bool:
    with contextlib.suppress(ServerUnavailableError):
        async with connected(access):
            return True
    return False


def log_of(settings: Settings, url: str, client: Any) -> Log:
    return Log(url, client, settings.subject_prefix)


async def streams_at(url: str) -> list[str]:
    async with connected(url) as client:
        return sorted(each.config.name for each in await client.jetstream().streams_info())


@contextlib.asynccontextmanager
async def from_afar(
    settings: Settings, near: str, far: str, **where: str
) -> AsyncIterator[tuple[Settings, Log, Any]]:
    """Settings of a platform whose log is created at `near`, and which runs at `far`."""
    async with connected(near) as client:
        log = log_of(settings, near, client)
        await ensure_streams(log.js, log.names)
        await ensure_body_store(log.js)
        changes: dict[str, Any] = {f"nats_{name}": value for name, value in where.items()}
        changes |= {
            "nats_url": SecretStr(far),
            "advisory_stream": f"ADV_{settings.subject_prefix}",
        }
        changed = settings.model_copy(update=changes)
        await until(lambda: is_linked(changed.access), 30)
        yield changed, log, client


async def check_whole_way(settings: Settings, log: Log, far: str, **where: str) -> None:
    """An event fails, its dead letter is drained and redriven, and the redrive succeeds."""
    calls = Calls(ValueError("no"), SUCCESS)
    config = log.config(servers=[far], totals_interval_seconds=0.5, **where)
    async with running(config, calls):
        await log.publish({"n": 1})
        [letter] = await log.letters(1)
        assert (await drain_log(settings)).drained == 1
        selection = Selection(failure_ids=(letter["failure_id"],))
        done = await redrive(
            settings, selection, trigger="manual", requested_by="me", reason="cured"
        )
        assert done is not None
        assert done.outcomes == {"succeeded": 1}
    await log.settled()
    assert len(calls) == 2


async def check_by_hand(settings: Settings, log: Log, near: Any) -> None:
    """Direct gets, the object store and erasing, in the other domain."""
    async with connected(settings.access) as client:
        stream = log.names.dead_letters
        letter = await stored_message(client, stream, 1)
        assert letter is not None
        same = await last_message(client, stream, letter.subject)
        assert same == letter
        store = await ensure_body_store(client.jetstream())
        await store.put("body", b"x" * 300_000)
        assert await stored_body(client, BODIES_BUCKET, "body") == b"x" * 300_000
        assert await stored_body(near, BODIES_BUCKET, "body") == b"x" * 300_000
        assert await erase_messages(client, stream, [1]) is None
        assert await stored_message(near, stream, 1) is None


async def test_a_log_in_a_hubs_domain_is_worked_with_from_a_leaf(
    settings: Settings, leaf: dict[str, str]
) -> None:
    where = {"jetstream_domain": "hub"}
    async with (
        asyncio.timeout(180),
        from_afar(settings, leaf["hub"], leaf["leaf"], **where) as (changed, log, near),
    ):
        await check_whole_way(changed, log, leaf["leaf"], **where)
        await check_by_hand(changed, log, near)
    assert await streams_at(leaf["leaf"]) == []


async def test_streams_that_another_account_exports_are_worked_with_below_a_prefix(
    settings: Settings, imported: dict[str, str]
) -> None:
    where = {"jetstream_api_prefix": "HUB.API"}
    async with (
        asyncio.timeout(180),
        from_afar(settings, imported["hub"], imported["plant"], **where) as (changed, log, near),
    ):
        await check_whole_way(changed, log, imported["plant"], **where)
        await check_by_hand(changed, log, near)
    assert await streams_at(imported["plant"]) == []


@pytest.mark.parametrize("kind", ["leaf", "imported"])
async def test_migrate_makes_no_second_log(
    kind: str, settings: Settings, request: pytest.FixtureRequest
) -> None:
    urls: dict[str, str] = request.getfixturevalue(kind)
    far = urls["leaf" if kind == "leaf" else "plant"]
    where = {"jetstream_domain": "hub"} if kind == "leaf" else {"jetstream_api_prefix": "HUB.API"}
    async with from_afar(settings, urls["hub"], far, **where) as (changed, log, _):
        here = {"nats_jetstream_domain": None, "nats_jetstream_api_prefix": None}
        with pytest.raises(StreamError, match=f"Stream {log.names.totals} of another Jet"):
            await migrate_all(changed.model_copy(update=here))
        assert await streams_at(far) == []
        await migrate_all(changed)
        assert await streams_at(far) == []


async def test_a_domain_that_is_not_there_is_reported(leaf: dict[str, str]) -> None:
    access = Access(servers=[leaf["leaf"]], jetstream_domain="nowhere")
    with pytest.raises(ServerUnavailableError, match="No JetStream of domain nowhere answers: see"):
        async with connected(access):
            pass


async def test_what_a_leafs_own_consumer_gave_up_is_no_failure_of_the_hub(
    settings: Settings, leaf: dict[str, str]
) -> None:
    """The hub receives its advisory, and has a stream with the same name and the same sequence."""
    async with (
        asyncio.timeout(120),
        from_afar(settings, leaf["hub"], leaf["leaf"], jetstream_domain="hub") as (_, log, near),
        connected(leaf["leaf"]) as far,
    ):
        at_hub = settings.model_copy(
            update={
                "nats_url": SecretStr(leaf["hub"]),
                "advisory_stream": f"ADV_{settings.subject_prefix}",
            }
        )
        await migrate_all(at_hub)
        events = log.names.events
        await far.jetstream().add_stream(StreamConfig(name=events, subjects=["plant.>"]))
        await far.jetstream().publish("plant.1", b"the leaf's")
        await log.publish({"whose": "the hub's"})
        wanted = ConsumerConfig(durable_name="foreign", ack_policy=AckPolicy.EXPLICIT)
        await far.jetstream().add_consumer(events, wanted)
        subscription = await far.jetstream().pull_subscribe_bind("foreign", events)
        [message] = await subscription.fetch(1, timeout=10)
        await message.term()
        js = near.jetstream()

        async def is_told() -> bool:
            return (await js.stream_info(at_hub.advisory_stream)).state.messages == 1

        await until(is_told, 30)
        counts, _ = await bridge_pending(at_hub)
        assert counts["skipped"] == 1
        assert counts["bridged"] == 0
        with pytest.raises(nats.errors.Error):
            await js.get_msg(log.names.dead_letters, 1)
