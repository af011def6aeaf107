"""Alert channels: chats and mail through Apprise, and incident services.

Each works separately, in its own thread, so that a hanging one does not delay others.
"""

import asyncio
import logging
import re
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Protocol

from sahool_dlq.alerts.chat import Chat
from sahool_dlq.alerts.incidents import incident_service
from sahool_dlq.alerts.message import Message
from sahool_dlq.errors import SettingsError

logger = logging.getLogger(__name__)

PAUSES_SECONDS = (1.0, 2.0, 5.0, 10.0, 30.0, 60.0, 120.0, 300.0)
"""Delays between tries of one message on one channel; after the last it is given up there."""


_NAMED = re.compile(r"([A-Za-z0-9_-]{1,50})=(?=\w+:)")


class Target(Protocol):
    """The receiver of a channel."""

    name: str

    @property
    def is_for_incidents(self) -> bool:
        """Whether it gets one message for each alert and its changes, by key."""

    @property
    def is_forgetful(self) -> bool:
        """Whether firing alerts must be sent to it again and again."""

    def send(self, message: Message) -> bool:
        """Whether it accepted the message; may raise anything."""


class Channel:
    """One alert channel; `entry` is its URL, with or without `name=` before it.

    Raises SettingsError, without the URL, if that is not valid.
    """

    def __init__(self, entry: str, number: int) -> None:
        found = _NAMED.match(entry)
        url = entry[found.end() :] if found else entry
        try:
            self._target: Target = incident_service(url) or Chat(url)
        except ValueError as error:
            raise SettingsError(f"DLQ_ALERT_URLS: entry {number} {error}.") from None
        self.key = found[1] if found else str(number)  # its name in rules
        self.name = f"{self._target.name} (entry {number} of DLQ_ALERT_URLS)"
        self.is_for_incidents = self._target.is_for_incidents
        self.is_forgetful = self._target.is_forgetful
        self._thread = ThreadPoolExecutor(1, f"alert-{number}")

    async def deliver(self, message: Message, pauses: Sequence[float] = PAUSES_SECONDS) -> bool:
        """Send until the channel accepts it; False if it never did."""
        for pause in (*pauses, None):
            if await asyncio.get_running_loop().run_in_executor(self._thread, self._send, message):
                return True
            if pause is None:
                break
            logger.warning("%s did not accept an alert: next try in %.0f s", self.name, pause)
            await asyncio.sleep(pause)
        logger.error("%s did not accept the alert: %s", self.name, message.title)
        return False

    def close(self) -> None:
        """Stop sending."""
        self._thread.shutdown(wait=False, cancel_futures=True)

    def _send(self, message: Message) -> bool:
        try:
            return self._target.send(message)
        except Exception as error:  # noqa: BLE001  (a hundred plugins can raise anything)
            logger.warning("%s failed: %s", self.name, type(error).__name__)
            return False


def open_channels(urls: Sequence[str]) -> list[Channel]:
    """The channels of these URLs; see `Channel` for its errors; names must be unique."""
    channels = [Channel(url, number) for number, url in enumerate(urls, 1)]
    keys = [channel.key for channel in channels]
    if twice := [key for key in keys if keys.count(key) > 1]:
        raise SettingsError(
            f"DLQ_ALERT_URLS: two entries are named {twice[0]}: give each its own name; a rule"
            f" can list several."
        )
    return channels
