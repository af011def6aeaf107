"""A short soak; `make soak SECONDS=… SEED=…` runs a long one."""

from pathlib import Path

from support.seed import SEED
from support.soak import Soak


async def test_drains_and_servers_killed_at_random_lose_and_double_nothing(tmp_path: Path) -> None:
    print(f"DLQ_TEST_SEED={SEED}")
    soak = Soak(tmp_path, seconds=5, seed=SEED, least_kills=3)
    assert await soak.run() == []
    print(soak.done)
    assert soak.done["published"] > 100
    assert soak.done["stored before the last drain"] > 0
    assert soak.kills >= 3
