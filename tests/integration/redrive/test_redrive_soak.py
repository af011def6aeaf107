"""A short soak of redrives and decisions; `make soak SECONDS=… SEED=…` runs a long one."""

from pathlib import Path

from support import servers
from support.redrive_soak import RedriveSoak
from support.seed import SEED


async def test_redrives_and_decisions_hold_while_all_is_killed_at_random(tmp_path: Path) -> None:
    print(f"DLQ_TEST_SEED={SEED}")
    soak = RedriveSoak(
        tmp_path, 6, SEED, least_kills=4, least_successes=8, nats_server=servers.nats
    )
    assert await soak.run() == []
    print(soak.done)
    assert soak.kills >= 4
    assert soak.done["redrives published"] >= soak.success_count >= 8
