"""A short soak; `make soak SECONDS=… SEED=…` runs a long one."""

import os
import random
from pathlib import Path

from soak import Soak

SEED = int(os.environ.get("DLQ_TEST_SEED", random.randrange(1 << 32)))


async def test_drains_and_servers_killed_at_random_lose_and_double_nothing(tmp_path: Path) -> None:
    print(f"DLQ_TEST_SEED={SEED}")
    soak = Soak(tmp_path, seconds=5, seed=SEED)
    assert await soak.run() == []
    print(soak.done)
    assert soak.done["published"] > 100
    assert soak.done["stored before the last drain"] > 0
    assert sum(count for what, count in soak.done.items() if "killed" in what) > 2
