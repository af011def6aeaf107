"""Each sink refuses an outdated writer, whatever the other sink and the lock do."""

import pytest
from nats.aio.client import Client

from sahool_dlq.errors import FencedError
from sahool_dlq.jobs.drain import drain_log
from sahool_dlq.settings import Settings
from sahool_dlq.stores.postgres.database import database
from sahool_dlq.stores.postgres.failed_events import Batch, FailedEvents
from support.platform_log import check_exact, letter, publish, query

_STATE = "SELECT count(*) AS rows, sum(seen_count) AS seen FROM failed_events"


async def test_postgres_alone_refuses_a_batch_whose_checkpoint_has_moved(
    settings: Settings, client: Client, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The batch of a drain that was paused while another drain stored the same messages."""
    stored = await publish(client, settings, map(letter, range(20)))
    kept: list[tuple[Batch, int]] = []
    store = FailedEvents.store

    def watched(self: FailedEvents, batch: Batch, after: int) -> None:
        kept.append((batch, after))
        store(self, batch, after)

    with monkeypatch.context() as patched:
        patched.setattr(FailedEvents, "store", watched)
        await drain_log(settings)
    ((batch, after),) = kept
    (before,) = query(settings, _STATE)
    with database(settings.postgres_dsn.get_secret_value()) as connection:
        sleeper = FailedEvents(connection, settings.dlq_stream, settings.owners(settings.rules))
        with pytest.raises(FencedError, match="moved the checkpoint"):
            sleeper.store(batch, after)
    assert query(settings, _STATE) == [before]  # not even counted as repeats
    check_exact(settings, stored)
