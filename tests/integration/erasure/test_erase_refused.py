"""Erasures that NATS does not permit: reported, all else is done, and a rerun completes them."""

from collections.abc import Callable

import nats
import pytest
from pydantic import SecretStr

from sahool_dlq.embedded import NatsServer
from sahool_dlq.erasure.erase import preview
from sahool_dlq.jetstream.streams import ensure_streams
from sahool_dlq.jobs.drain import drain_log
from sahool_dlq.jobs.upkeep import verify_stores
from sahool_dlq.settings import Settings
from support.erasing import World
from support.platform_log import (
    check_exact,
    letter,
)


@pytest.mark.parametrize("how", ["deny_delete", "permission"])
async def test_what_nats_does_not_permit_is_reported_and_a_rerun_completes_it(
    settings: Settings, nats_server_factory: Callable[..., NatsServer], how: str
) -> None:
    users = """
    authorization: { users: [ { user: all, password: x }, { user: some, password: x,
      permissions: { publish: { deny: "$JS.API.STREAM.MSG.DELETE.>" } } } ] }
    """
    server = nats_server_factory(config=users)
    urls = {name: server.url.replace("://", f"://{name}:x@") for name in ("all", "some")}
    open_ = settings.model_copy(update={"nats_url": SecretStr(urls["all"])})
    async with await nats.connect(urls["all"]) as client:
        js = client.jetstream()
        await ensure_streams(js, settings.stream_names)
        if how == "deny_delete":
            config = (await js.stream_info(settings.dlq_stream)).config
            await js.delete_stream(settings.dlq_stream)
            await js.add_stream(config.evolve(deny_delete=True))
            urls["some"] = urls["all"]
        world = World(open_, client)
        await world.publish(world.letter(1), letter(2), world.letter(3))
        world.kept = {2: letter(2)}
        world.settings = open_.model_copy(update={"nats_url": SecretStr(urls["some"])})
        report = await world.erase()
        assert report.left is not None
        stream = settings.dlq_stream
        wanted = {
            "deny_delete": f"{stream} refuses it: message delete not permitted",
            "permission": "NATS does not permit some to publish to"
            f" $JS.API.STREAM.MSG.DELETE.{stream}",
        }
        assert report.left.startswith(f"NATS keeps some of 2 messages ({wanted[how]}")
        drained = await drain_log(world.settings)
        assert (drained.drained, drained.gaps) == (1, 0)
        check_exact(world.settings, world.kept)
        [finding] = (await verify_stores(world.settings)).findings
        assert (finding.kind, finding.where, finding.count) == ("erased", "the stream", 2)
        await verify_stores(world.settings, is_repair=True)
        check_exact(world.settings, world.kept)
        assert (await preview(world.settings, "another")).is_empty
        if how == "deny_delete":
            return  # until they reach their maximum age
        world.settings = open_
        assert (await world.erase()).left is None
        assert world.places(server) == set()
        assert (await verify_stores(world.settings)).findings == ()
