"""Acknowledgements after a consumer gave the event up, received when they are sent.

The server does not revoke the advisory and does not report such a late acknowledgement, not even if
acknowledgements are sampled. Its counters show only how many came, and a purge by subject looks the
same. Only the acknowledgement itself proves it: it is a message like any other and can be received.
"""

import asyncio
import contextlib
import logging
from collections import deque
from datetime import UTC, datetime
from typing import Any

import nats.errors
from nats.aio.client import Client
from nats.aio.msg import Msg
from nats.aio.subscription import Subscription

from sahool_dlq.bridge.advisory import Advisory
from sahool_dlq.deadletter.envelope.encode import encode_case_event
from sahool_dlq.deadletter.headers import (
    ADDRESSEE,
    INSTEAD_OF,
    Redrive,
    redrive_of,
    value_of,
)
from sahool_dlq.deadletter.ids import consumer_address
from sahool_dlq.deadletter.subjects import Subjects
from sahool_dlq.errors import NotPermittedError
from sahool_dlq.events.outbox import publish_until_acknowledged
from sahool_dlq.jetstream.acks import ack_subjects, is_ack
from sahool_dlq.jetstream.permissions import check_heard

logger = logging.getLogger(__name__)

ACTOR = "dlq-bridge"
_MOST_EVENTS = 1_000  # maximum number of events to listen for; the latest ones


class LateAcks:
    """Listens for acknowledgements of events that were given up, and reports them.

    Each causes a `triage.discarded`: the failure was none. It is not resolved, because a group with
    resolved failures would count as returned with the next one.
    """

    def __init__(self, subjects: Subjects, closing: asyncio.Event) -> None:
        self.told_count = 0
        self._subject = subjects.triage("discarded")
        self._closing = closing
        self._listening: deque[list[Subscription]] = deque()
        self._telling: set[asyncio.Task[None]] = set()
        self._is_permitted = True

    async def listen(self, connection: Client, advisory: Advisory) -> "asyncio.Future[None]":
        """Returns when the event is acknowledged; listens as long as the connection exists.

        If that is not permitted, which is logged, nothing is received.
        """
        acked: asyncio.Future[None] = asyncio.get_running_loop().create_future()

        async def hear(msg: Msg) -> None:
            if is_ack(msg.data) and not acked.done():
                acked.set_result(None)

        if not self._is_permitted:
            return acked
        subjects = ack_subjects(advisory.stream, advisory.consumer, advisory.stream_seq)
        self._listening.append([await connection.subscribe(each, cb=hear) for each in subjects])
        if len(self._listening) > _MOST_EVENTS:
            await _unsubscribe(self._listening.popleft())
        try:
            await check_heard(connection, *subjects)
        except NotPermittedError as error:
            if self._is_permitted:
                self._is_permitted = False
                logger.warning("Late acknowledgements cannot be received: %s", error)
            while self._listening:
                await _unsubscribe(self._listening.popleft())
        return acked

    def tell_of(
        self,
        acked: "asyncio.Future[None]",
        connection: Client,
        advisory: Advisory,
        fields: dict[str, Any],
    ) -> None:
        """Report that the failure was none, once its event is acknowledged; its dead letter is
        published.
        """

        def start(_: "asyncio.Future[None]") -> None:
            task = asyncio.create_task(self._tell(connection, advisory, fields))
            self._telling.add(task)
            task.add_done_callback(self._telling.discard)

        acked.add_done_callback(start)

    async def close(self) -> None:
        """Wait until received acknowledgements are reported, or cannot be reported now."""
        await asyncio.gather(*self._telling)

    async def _tell(self, connection: Client, advisory: Advisory, fields: dict[str, Any]) -> None:
        js = connection.jetstream()
        for failure, redrive in cases_of(fields).items():
            body = encode_case_event(
                failure_id=failure,
                redrive_id=redrive and redrive.id,
                attempt=redrive and redrive.attempt,
                at=datetime.now(UTC),
                actor=ACTOR,
                consumer=consumer_address(advisory.stream, advisory.consumer),
                reason=f"{advisory.consumer} acknowledged it after giving it up: it was handled.",
            )
            # The same event may be given up again, after a reset of its consumer.
            headers = {"Nats-Msg-Id": f"{failure}-{advisory.timestamp.isoformat()}-acknowledged"}

            async def publish(body: bytes = body, headers: dict[str, str] = headers) -> None:
                await js.publish(self._subject, body, headers=headers, timeout=5)

            what = f"That {advisory.consumer} acknowledged {advisory.stream} {advisory.stream_seq}"
            if not await publish_until_acknowledged(publish, what=what, give_up=self._closing):
                return
        self.told_count += 1


async def _unsubscribe(subscriptions: list[Subscription]) -> None:
    for each in subscriptions:
        with contextlib.suppress(nats.errors.Error):  # it ended with its connection
            await each.unsubscribe()


def cases_of(fields: dict[str, Any]) -> dict[str, Redrive | None]:
    """The failures of a dead letter that may be cases: itself, and the root of its redrive.

    The drain checks whether there was such a redrive.
    """
    cases: dict[str, Redrive | None] = {fields["failure_id"]: None}
    headers = fields["original_headers"]
    addressee = value_of(headers, ADDRESSEE) or value_of(headers, INSTEAD_OF)
    address = consumer_address(fields["original_stream"], fields["consumer_name"])
    redrive = redrive_of(headers)
    if redrive is not None and addressee in (None, address):
        cases[redrive.root] = redrive
    return cases
