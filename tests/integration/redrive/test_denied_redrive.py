"""A redriver without a NATS right names the right, publishes nothing and counts no attempt."""

from collections.abc import Iterator

import pytest
from pydantic import SecretStr

from sahool_dlq.embedded import NatsServer
from sahool_dlq.errors import NotPermittedError
from sahool_dlq.jetstream.connection import connected
from sahool_dlq.jetstream.streams import ensure_streams
from sahool_dlq.jobs.decisions import decide
from sahool_dlq.jobs.drain import drain_log
from sahool_dlq.jobs.lake_views import query
from sahool_dlq.redrive.choose.selection import Selection
from sahool_dlq.settings import Settings
from support import servers
from support.redriving import TIMEOUTS, Service, fail, quick, redrive_timeouts, rows

USERS = """
authorization {
  users: [
    { user: "all", password: "secret" }
    { user: "no-events", password: "secret", permissions: { publish: { deny: "*.analysis.>" }}}
    { user: "no-news", password: "secret", permissions: { publish: { deny: "*.redrive.published" }}}
  ]
}
"""


@pytest.fixture(scope="module")
def guarded(tmp_path_factory: pytest.TempPathFactory) -> Iterator[NatsServer]:
    """A NATS server with a user that has all rights, and two that lack one."""
    with servers.nats(tmp_path_factory.mktemp("denied"), USERS) as server:
        yield server


def as_user(settings: Settings, server: NatsServer, user: str) -> Settings:
    url = server.url.replace("nats://", f"nats://{user}:secret@")
    return quick(settings, nats_url=SecretStr(url))


@pytest.mark.parametrize(
    ("user", "subject"),
    [("no-events", "analysis.ndvi"), ("no-news", "redrive.published")],
)
@pytest.mark.parametrize("status", ["pending", "parked"])
async def test_a_missing_right_is_one_sentence_and_spends_no_attempt(
    settings: Settings, guarded: NatsServer, user: str, subject: str, status: str
) -> None:
    able, unable = as_user(settings, guarded, "all"), as_user(settings, guarded, user)
    async with connected(able.nats_url) as client:
        await ensure_streams(client.jetstream(), able.stream_names)
        async with Service(able, TimeoutError("slow")).running() as service:
            await fail(able, client, service, 12)
            await drain_log(able)
            selection = TIMEOUTS
            if status == "parked":
                await decide(able, TIMEOUTS, "parked", actor="ana", reason="wait")
                ids = [failure for (failure,) in rows(able, "SELECT id::text FROM failed_events")]
                selection = Selection(failure_ids=tuple(ids))
            service.error = None
            for _ in range(2):  # the next takes up what this one leaves
                words = f"NATS does not permit {user} to publish to {able.subject_prefix}.{subject}"
                with pytest.raises(NotPermittedError, match=words):
                    await redrive_timeouts(unable, selection=selection)
                await drain_log(able)
                assert stand(able) == [(status, 0, 12)]
                assert query(able, "SELECT DISTINCT status, redrive_count FROM cases").rows() == [
                    (status, 0)
                ]
                assert rows(able, "SELECT state, count(*) FROM redrives GROUP BY 1") == [
                    ("planned", 12)
                ]
            assert service.seen == []
            await redrive_timeouts(able, selection=selection)  # somebody granted it
            assert stand(able) == [("resolved", 0, 12)]
            assert len(service.seen) == 12


def stand(settings: Settings) -> list[tuple[object, ...]]:
    return rows(settings, "SELECT status, redrive_count, count(*) FROM failed_events GROUP BY 1, 2")
