"""Where alerts go: channels of Apprise (Slack, Teams, Telegram, mail, webhooks and many more).

Each works by itself, in a thread of its own, so that one which hangs holds up no other.
"""

import asyncio
import logging
import re
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any

from pipelines.alerts.message import Message
from pipelines.errors import SettingsError

logger = logging.getLogger(__name__)

PAUSES_SECONDS = (1.0, 2.0, 5.0, 10.0, 30.0, 60.0, 120.0, 300.0)
"""Between tries of one message on one channel; after the last it is given up there."""


_NAMED = re.compile(r"([A-Za-z0-9_-]{1,50})=(?=\w+:)")


class Channel:
    """One place where people look; `entry` is Apprise's URL, with `name=` before it or without.

    Raises SettingsError, which does not show the URL, where Apprise knows no such channel.
    """

    def __init__(self, entry: str, number: int) -> None:
        import apprise  # slow to import, and only needed with a channel

        found = _NAMED.match(entry)
        target: Any = apprise.Apprise.instantiate(entry[found.end() :] if found else entry)
        if target is None:
            raise SettingsError(
                f"DLQ_ALERT_URLS: entry {number} is no channel that Apprise knows, such as"
                " slack://…, mailto://… or json://host/path."
            )
        self._target = apprise.Apprise(servers=[target])
        self.key = found[1] if found else str(number)  # what rules call it
        self.name = f"{target.service_name} (entry {number} of DLQ_ALERT_URLS)"
        self._thread = ThreadPoolExecutor(1, f"alert-{number}")

    async def deliver(self, message: Message, pauses: Sequence[float] = PAUSES_SECONDS) -> bool:
        """Send until the channel takes it; False where it never did."""
        for pause in (*pauses, None):
            if await asyncio.get_running_loop().run_in_executor(self._thread, self._send, message):
                return True
            if pause is None:
                break
            logger.warning("%s did not take an alert: again in %.0f s", self.name, pause)
            await asyncio.sleep(pause)
        logger.error("%s is given up for the alert: %s", self.name, message.title)
        return False

    def close(self) -> None:
        """Send nothing more."""
        self._thread.shutdown(wait=False, cancel_futures=True)

    def _send(self, message: Message) -> bool:
        import apprise

        kind = apprise.NotifyType.SUCCESS if message.is_good else apprise.NotifyType.FAILURE
        try:
            return bool(
                self._target.notify(  # as text, so that channels of HTML escape it
                    title=message.title,
                    body=message.body,
                    notify_type=kind,
                    body_format=apprise.NotifyFormat.TEXT,
                )
            )
        except Exception as error:  # noqa: BLE001  (a hundred plugins can raise anything)
            logger.warning("%s failed: %s", self.name, type(error).__name__)
            return False


def open_channels(urls: Sequence[str]) -> list[Channel]:
    """The channels of these URLs; see `Channel` for what it raises; no two may have one name."""
    channels = [Channel(url, number) for number, url in enumerate(urls, 1)]
    keys = [channel.key for channel in channels]
    if twice := [key for key in keys if keys.count(key) > 1]:
        raise SettingsError(
            f"DLQ_ALERT_URLS: two entries are named {twice[0]}: give each a name of its own; a rule"
            " can list several."
        )
    return channels
