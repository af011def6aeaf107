"""A short soak of the consumer; `make soak` runs longer ones."""

from pathlib import Path

import pytest

from support import servers
from support.consumer_soak import ConsumerSoak
from support.seed import SEED


@pytest.mark.parametrize("is_synced", [False, True], ids=["default sync", "sync always"])
async def test_what_was_killed_at_random_gave_up_no_event_that_did_not_fail(
    tmp_path: Path, is_synced: bool
) -> None:
    print(f"DLQ_TEST_SEED={SEED}")
    soak = ConsumerSoak(tmp_path, 10_000, SEED, is_synced, nats_server=servers.nats)
    assert await soak.run() == []
    print(soak.done)
    assert soak.done["events published"] == 10_000
    assert soak.harm_count >= 3
