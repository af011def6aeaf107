"""The last act of the demo: a bug is reproduced, mended, deployed, and its failures are cured.

Nobody types an id: the handler says which group it is, the new version which failures to redrive.
"""

import asyncio
import json
import time
from collections.abc import Callable
from contextlib import aclosing
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from sahool_dlq.connections import open_nats
from sahool_dlq.demo.working_copy import HANDLER, MENDED_VERSION, mend
from sahool_dlq.errors import DLQError
from sahool_dlq.jetstream.latest import latest_messages
from sahool_dlq.jobs.deploys import Deploy, list_deploys
from sahool_dlq.jobs.trial import Trial, try_handler
from sahool_dlq.reproduce.words import group_line, summary
from sahool_dlq.settings import Settings

SERVICE = "yield-service"
_START_SECONDS = 30

Say = Callable[[str], None]


async def reproduce_and_mend(settings: Settings, folder: Path, say: Say) -> list[dict[str, Any]]:
    """Try the handler of the working copy before and after the fix; what both trials report."""
    say(f"dlq try {HANDLER} --all-open, in the working copy of {SERVICE}")
    before = await _tried(settings, folder, say)
    say(f"The bug is mended: {mend(folder)}")
    after = await _tried(settings, folder, say)
    return [before, after]


async def _tried(settings: Settings, folder: Path, say: Say) -> dict[str, Any]:
    trial = Trial(HANDLER, folder, None, actor="dlq demo", reason="the last act")
    report = await try_handler(settings, trial)
    for group in report.groups:
        say(f"  {group_line(group, report.known)}")
    say(f"  {summary(report)}")
    return report.as_dict()


async def deployed(settings: Settings) -> None:
    """Wait until the service reports that it runs in the mended version."""
    subject = settings.subjects.total(SERVICE, SERVICE)
    deadline = time.monotonic() + _START_SECONDS
    async with open_nats(settings, "dlq demo") as client:
        while time.monotonic() < deadline:
            async with aclosing(latest_messages(client, settings.totals_stream, subject)) as latest:
                versions = [json.loads(each.data).get("consumer_version") async for each in latest]
            if MENDED_VERSION in versions:
                return
            await asyncio.sleep(0.1)
    raise DLQError(f"{SERVICE} did not start in {MENDED_VERSION} in {_START_SECONDS} s.")


def deploys(settings: Settings) -> list[Deploy]:
    """What `dlq deploys` lists of the service."""
    return list_deploys(settings, datetime.now(UTC), SERVICE)
