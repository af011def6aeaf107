"""deploy/nats.conf in its variant with JWTs: each user has the rights of its role."""

import shlex
from collections.abc import Callable
from pathlib import Path

import pytest
from click.testing import CliRunner

from sahool_dlq.cli import _command
from sahool_dlq.embedded import NatsServer
from sahool_dlq.errors import NotPermittedError
from sahool_dlq.events import NATSConsumerConfig
from sahool_dlq.jetstream.connection import connected
from sahool_dlq.jobs.drain import drain_log, migrate_all
from sahool_dlq.settings import Settings
from support import ROOT, servers
from support.consumer_log import running, until
from support.jwts import Key, Operator, creds

ROLES = ("operator", "service", "drain")


def with_jwts(operator: Operator) -> str:
    """The shipped configuration, changed as docs/connecting.md says."""
    before, block, _ = servers.shipped_users().partition("authorization {")
    assert block
    return before + operator.config()


def rights(role: str) -> dict[str, list[str]]:
    """The lists in the command of nsc that `dlq nats-permissions` prints."""
    printed = CliRunner().invoke(_command(), ["nats-permissions", "--role", role, "--nsc"])
    words = shlex.split(printed.stdout)
    assert words[:4] == ["nsc", "add", "user", role]
    publish, subscribe = (words.index(f"--allow-{each}") + 1 for each in ("pub", "sub"))
    return {"publish": words[publish].split(","), "subscribe": words[subscribe].split(",")}


async def test_users_with_jwts_have_the_rights_of_their_roles(
    nats_server_factory: Callable[..., NatsServer], database_dsn: str, tmp_path: Path
) -> None:
    operator = Operator()
    server = nats_server_factory(config=with_jwts(operator))

    def settings(role: str) -> Settings:
        key, file = Key("user"), tmp_path / f"{role}.creds"
        file.write_text(creds(operator.user(key, role, **rights(role)), key.seed))
        return Settings(
            home=tmp_path,
            nats_url=f"nats://127.0.0.1:{server.port}",
            nats_creds=file,
            postgres_dsn=database_dsn,
            lake_uri=str(tmp_path / "lake"),
        )

    users = {role: settings(role) for role in ROLES}
    await migrate_all(users["operator"])

    async def fails(_: object) -> None:
        raise TimeoutError("slow tile")

    access = users["service"].access
    config = NATSConsumerConfig(**access.model_dump(), name="ndvi", max_retries=0)
    async with running(config, fails), connected(access, "t") as client:
        await client.jetstream().publish("sahool.analysis.ndvi", b"{}")
        with pytest.raises(NotPermittedError, match=r"publish to sahool\.triage\.discarded"):
            await client.request("sahool.triage.discarded", b"{}")

        async def is_drained() -> bool:
            return (await drain_log(users["drain"])).drained == 1

        await until(is_drained)
    async with connected(users["drain"].access, "t") as client:
        with pytest.raises(NotPermittedError, match=r"publish to sahool\.analysis\.ndvi"):
            await client.request("sahool.analysis.ndvi", b"{}")


def test_the_document_has_the_commands() -> None:
    text = (ROOT / "docs/connecting.md").read_text()
    assert "dlq nats-permissions --role drain --nsc" in text
    assert 'include "jwt.conf"' in text
