"""The last message of each subject, from a server that stops answering."""

import pytest
from nats.aio.client import Client

from pipelines.drain.totals import read_totals
from pipelines.errors import ServerUnavailableError
from pipelines.jetstream.pull import Puller, PullStalledError
from pipelines.settings import Settings


async def test_a_stall_is_an_outage_that_a_drain_waits_for(
    settings: Settings, client: Client, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def stalls(self: Puller, deadline: float) -> None:
        raise PullStalledError("no answer to a pull request")

    monkeypatch.setattr(Puller, "_next", stalls)
    with pytest.raises(ServerUnavailableError, match="stalled"):
        await read_totals(client, settings.totals_stream, settings.subjects.totals)
