"""`dlq migrate`."""

import asyncio
from collections.abc import Mapping, Sequence
from typing import Any

from sahool_dlq.cli.output import console
from sahool_dlq.cli.verb import Answer, verb
from sahool_dlq.jobs.drain import migrate_all
from sahool_dlq.settings import Settings
from sahool_dlq.stores.postgres.refusals import where


@verb
def command(settings: Settings) -> Answer[dict[str, Any]]:
    """Create missing tables in Postgres and missing streams in NATS.

    Idempotent. Each migration also runs by hand: psql -f sql/postgres/migrations/….sql
    """
    done, streams = asyncio.run(migrate_all(settings))
    server = where(settings.postgres_dsn.get_secret_value())
    return Answer({"migrations": done, "streams": streams}, lambda _: _show(server, done, streams))


def _show(server: str, migrations: Sequence[str], streams: Mapping[str, str]) -> None:
    console.print(f"{server}: {', '.join(migrations) or 'up to date'}")
    for role, stream in streams.items():
        console.print(f"{role.replace('_', ' ')}: stream {stream}")
