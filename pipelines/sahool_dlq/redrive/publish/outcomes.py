"""The outcomes of redrives, followed live on their subjects.

A ramp cannot wait for the next drain. Outcomes received here only control the speed of the ramp;
the log, which the drain reads, decides.
"""

import asyncio
import json
from typing import Any

from nats.aio.client import Client
from nats.aio.msg import Msg
from nats.aio.subscription import Subscription

from sahool_dlq.deadletter.headers import headers_of_json, told_redrive_id
from sahool_dlq.deadletter.ids import consumer_address
from sahool_dlq.deadletter.subjects import Subjects
from sahool_dlq.jetstream.permissions import check_heard


class OutcomeFollower:
    """Waits for `succeeded` messages and new dead letters of registered redrives."""

    def __init__(self, client: Client, subjects: Subjects) -> None:
        self._client = client
        self._subjects = subjects
        self._waiting: dict[str, tuple[asyncio.Future[str], str | None, bool]] = {}
        self._subscriptions: list[Subscription] = []

    async def __aenter__(self) -> "OutcomeFollower":
        for subject in (self._subjects.redrive("succeeded"), self._subjects.dead_letters):
            self._subscriptions.append(await self._client.subscribe(subject, cb=self._heard))
        # Without the right to listen, every outcome would look unknown.
        await check_heard(self._client, *(each.subject for each in self._subscriptions))
        return self

    async def __aexit__(self, *_: object) -> None:
        if not self._client.is_closed:
            for subscription in self._subscriptions:
                await subscription.unsubscribe()

    def expect(
        self, redrive_id: str, consumer: str | None, *, is_elsewhere: bool = False
    ) -> "asyncio.Future[str]":
        """A future that becomes `succeeded` or `failed_again`; call it before publishing.

        Other consumers than `consumer` may also get the event and fail; these outcomes are ignored.
        None accepts all consumers, and so does `is_elsewhere`; then a success that is not reported
        for `consumer` is `handled_elsewhere`.
        """
        future: asyncio.Future[str] = asyncio.get_running_loop().create_future()
        self._waiting[redrive_id] = future, consumer, is_elsewhere
        return future

    def forget(self, redrive_id: str) -> None:
        """Stop waiting for it."""
        self._waiting.pop(redrive_id, None)

    async def _heard(self, msg: Msg) -> None:
        if not self._waiting:
            return
        try:
            said = json.loads(msg.data)
            token = told_redrive_id(headers_of_json(said.get("original_headers") or {}))
            future, consumer, is_elsewhere = self._waiting[token or said["redrive_id"]]
        except (ValueError, KeyError, TypeError, AttributeError, RecursionError):
            return
        is_success = msg.subject == self._subjects.redrive("succeeded")
        by = said.get("consumer") if is_success else _failed_at(said)
        is_answer = consumer in (None, by)
        if not future.done() and (is_answer or is_elsewhere):
            success = "succeeded" if is_answer else "handled_elsewhere"
            future.set_result(success if is_success else "failed_again")


def _failed_at(letter: dict[str, Any]) -> str | None:
    stream, consumer = letter.get("original_stream"), letter.get("consumer_name")
    return consumer_address(stream, consumer)
