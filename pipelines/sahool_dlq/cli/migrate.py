"""`dlq migrate`."""

import asyncio

from sahool_dlq.cli.output import console, print_json
from sahool_dlq.cli.verb import verb
from sahool_dlq.jobs.drain import migrate_all
from sahool_dlq.settings import Settings
from sahool_dlq.stores.postgres.refusals import where


@verb
def command(settings: Settings, is_json: bool) -> None:
    """Create missing tables in Postgres and missing streams in NATS.

    Idempotent. Each migration also runs by hand: psql -f sql/postgres/migrations/….sql
    """
    done, streams = asyncio.run(migrate_all(settings))
    if is_json:
        print_json({"migrations": done, "streams": streams})
        return
    server = where(settings.postgres_dsn.get_secret_value())
    console.print(f"{server}: {', '.join(done) or 'up to date'}")
    for role, stream in streams.items():
        console.print(f"{role.replace('_', ' ')}: stream {stream}")
