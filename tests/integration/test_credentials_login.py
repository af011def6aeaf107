"""A login by credentials file, which is renewed and damaged while a service runs."""

import asyncio
import base64
import binascii
import json
import os
import time
from collections.abc import Callable
from pathlib import Path

import pytest
from consumer_log import until
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from pipelines.embedded import NatsServer
from pipelines.errors import ServerUnavailableError
from pipelines.jetstream.connection import connect_service, connected, disconnect

pytest.importorskip("nkeys", reason="credentials files need the extra sahool-dlq[nkeys]")

_KINDS = {"operator": 14 << 3, "account": 0, "user": 20 << 3}
_SEED = 18 << 3


def _encoded(raw: bytes) -> str:
    raw += binascii.crc_hqx(raw, 0).to_bytes(2, "little")
    return base64.b32encode(raw).decode().rstrip("=")


class Key:
    """A key of one kind, as NATS writes it."""

    def __init__(self, kind: str) -> None:
        raw, number = os.urandom(32), _KINDS[kind]
        self._key = Ed25519PrivateKey.from_private_bytes(raw)
        self.public = _encoded(bytes([number]) + self._key.public_key().public_bytes_raw())
        self.seed = _encoded(bytes([_SEED | number >> 5, (number & 31) << 3]) + raw)

    def token(self, of: "Key", name: str, kind: str) -> str:
        nats: dict[str, object] = {"type": kind, "version": 2}
        if kind == "account":
            size = 0 if name == "system" else -1  # no JetStream there
            limits = {"mem_storage": size, "disk_storage": size, "streams": size, "consumer": size}
            nats["limits"] = {"subs": -1, "data": -1, "payload": -1, "conn": -1, **limits}
        elif kind == "user":
            nats |= {"subs": -1, "data": -1, "payload": -1}
        claims = {"jti": name, "iat": int(time.time()), "iss": self.public, "name": name}
        claims |= {"sub": of.public, "nats": nats}
        header = {"typ": "JWT", "alg": "ed25519-nkey"}
        parts = [_part(json.dumps(each).encode()) for each in (header, claims)]
        return ".".join([*parts, _part(self._key.sign(".".join(parts).encode()))])


def _part(data: bytes) -> str:
    return base64.urlsafe_b64encode(data).decode().rstrip("=")


async def test_it_works_and_a_damaged_file_is_borne_until_it_is_whole_again(
    tmp_path: Path, nats_server_factory: Callable[..., NatsServer], caplog: pytest.LogCaptureFixture
) -> None:
    operator, account, user, system = map(Key, ("operator", "account", "user", "account"))
    known = (
        f"{each.public}: {operator.token(each, name, 'account')}"
        for name, each in (("dlq", account), ("system", system))
    )
    config = (
        f"operator: {operator.token(operator, 'O', 'operator')}\nresolver: MEMORY\n"
        f"system_account: {system.public}\nresolver_preload: {{ {', '.join(known)} }}"
    )
    file = tmp_path / "drain.creds"
    whole = (
        f"-----BEGIN NATS USER JWT-----\n{account.token(user, 'drain', 'user')}\n"
        "------END NATS USER JWT------\n"
        f"-----BEGIN USER NKEY SEED-----\n{user.seed}\n------END USER NKEY SEED------\n"
    )
    file.write_text(whole)
    server = nats_server_factory(config=config)
    async with asyncio.timeout(60), connected(server.url, file) as client:
        assert (await client.jetstream().account_info()).streams == 0
        assert client.new_inbox().startswith("_INBOX.drain.")
    service = await connect_service(
        [server.url],
        name="t",
        user_credentials=str(file),
        timeout_seconds=10,
        reconnect_time_wait=0.1,
    )
    file.write_text(whole.replace(user.seed, user.seed[:-3]))
    await service.force_reconnect()

    async def is_said() -> bool:
        return "has a seed of another length" in caplog.text

    async def is_back() -> bool:
        return service.is_connected

    await until(is_said, 20)
    file.write_text(whole.replace(user.seed, Key("user").seed))
    with pytest.raises(ServerUnavailableError, match="refuses the login"):
        await connect_service([server.url], name="t", user_credentials=str(file), timeout_seconds=1)
    file.write_text(whole)
    await until(is_back, 20)
    assert (await service.jetstream().account_info()).streams == 0
    await disconnect(service)
