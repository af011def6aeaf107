"""What a run shows of itself: artifacts, with stable keys so that they make a history."""

import asyncio
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from prefect.artifacts import (
    acreate_markdown_artifact,
    acreate_progress_artifact,
    acreate_table_artifact,
    aupdate_progress_artifact,
)


async def table(key: str, rows: Sequence[Mapping[str, Any]]) -> None:
    """A searchable table."""
    await acreate_table_artifact(table=[dict(row) for row in rows], key=key)


async def markdown(key: str, text: str) -> None:
    """A page in Markdown."""
    await acreate_markdown_artifact(markdown=text, key=key)


async def progress_artifact(description: str) -> Callable[[int, int], None]:
    """A progress bar; returns what moves it (done, total), at most once a second."""
    artifact = await acreate_progress_artifact(progress=0.0, description=description)
    loop = asyncio.get_running_loop()
    last = 0.0
    updates: set[asyncio.Task[Any]] = set()

    def move(done: int, total: int) -> None:
        nonlocal last
        if loop.time() - last < 1 and done < total:
            return
        last = loop.time()
        share = min(100.0 * done / max(total, 1), 100.0)
        task = loop.create_task(aupdate_progress_artifact(artifact, progress=share))
        updates.add(task)
        task.add_done_callback(updates.discard)

    return move
