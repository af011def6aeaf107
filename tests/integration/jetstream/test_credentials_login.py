"""A credentials file that is renewed or damaged while a service runs."""

import asyncio
from collections.abc import Callable
from pathlib import Path

import pytest

from sahool_dlq.embedded import NatsServer
from sahool_dlq.errors import ServerUnavailableError
from sahool_dlq.jetstream.access import Access
from sahool_dlq.jetstream.connection import connect_service, connected, disconnect
from support.consumer_log import until
from support.jwts import Key, Operator, creds


async def test_it_works_and_a_damaged_file_is_borne_until_it_is_whole_again(
    tmp_path: Path, nats_server_factory: Callable[..., NatsServer], caplog: pytest.LogCaptureFixture
) -> None:
    operator, user = Operator(), Key("user")
    file = tmp_path / "drain.creds"
    whole = creds(operator.user(user, "drain"), user.seed)
    file.write_text(whole)
    server = nats_server_factory(config=operator.config())
    access = Access(servers=[server.url], user_credentials=str(file))
    async with asyncio.timeout(60), connected(access) as client:
        assert (await client.jetstream().account_info()).streams == 0
        assert client.new_inbox().startswith("_INBOX.drain.")
    service = await connect_service(access, name="t", timeout_seconds=10, reconnect_time_wait=0.1)
    file.write_text(whole.replace(user.seed, user.seed[:-3]))
    await service.force_reconnect()

    async def is_said() -> bool:
        return "has a seed of the wrong length" in caplog.text

    async def is_back() -> bool:
        return service.is_connected

    await until(is_said, 20)
    file.write_text(whole.replace(user.seed, Key("user").seed))
    wrong = (
        "refuses the login of .*/drain.creds for user drain: the seed does not belong to the key"
    )
    with pytest.raises(ServerUnavailableError, match=wrong):
        await connect_service(access, name="t", timeout_seconds=1)
    file.write_text(whole)
    await until(is_back, 20)
    assert (await service.jetstream().account_info()).streams == 0
    await disconnect(service)
