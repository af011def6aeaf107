"""Messages to the log about the redrives of a batch; a repeat has no effect."""

import asyncio
from datetime import UTC, datetime

import nats.errors
from nats.js import JetStreamContext
from nats.js.errors import APIError

from sahool_dlq.deadletter.envelope.encode import encode_case_event
from sahool_dlq.deadletter.replays import REPLAY
from sahool_dlq.deadletter.subjects import Subjects
from sahool_dlq.errors import ServerUnavailableError
from sahool_dlq.jetstream.refusals import is_for_now
from sahool_dlq.redrive.batches import Batch
from sahool_dlq.redrive.publish.once import PAUSES
from sahool_dlq.redrive.publish.outbox import Redrive

__all__ = ["News"]


class News:
    """Publishes to the log; raises ServerUnavailableError if that fails."""

    def __init__(
        self, js: JetStreamContext, subjects: Subjects, batch: Batch, redrive_cap: int
    ) -> None:
        self._js = js
        self._subjects = subjects
        self._batch = batch
        self._redrive_cap = redrive_cap

    async def tell(
        self, redrive: Redrive, kind: str, reason: str | None, name: str | None = None
    ) -> None:
        """Publish about a redrive; `name` is the message's name if others publish the same."""
        body = encode_case_event(
            failure_id=redrive.failure_id,
            redrive_id=redrive.id,
            batch_id=self._batch.id,
            attempt=redrive.attempt,
            trigger=REPLAY if redrive.replayed else self._batch.trigger,
            consumer=redrive.addressed_to,
            actor=self._batch.requested_by,
            reason=reason or (self._batch.reason if redrive.replayed else None),
            redrive_cap=self._redrive_cap if kind == "published" else None,
            at=datetime.now(UTC),
            event=redrive.replayed.as_json() if redrive.replayed else {},
        )
        await self._publish(self._subjects.redrive(kind), body, f"{redrive.id}-{name or kind}")

    async def decide(
        self, redrive: Redrive, kind: str, reason: str, name: str | None = None
    ) -> None:
        """Publish a decision about its failure; of a replay there is none, so nothing."""
        if redrive.replayed is not None:
            return
        body = encode_case_event(
            failure_id=redrive.failure_id,
            batch_id=self._batch.id,
            actor=self._batch.requested_by,
            reason=reason,
            at=datetime.now(UTC),
        )
        await self._publish(self._subjects.triage(kind), body, f"{redrive.id}-{name or kind}")

    async def _publish(self, subject: str, body: bytes, message_id: str) -> None:
        headers = {"Nats-Msg-Id": message_id}
        for pause in (*PAUSES, None):
            try:
                await self._js.publish(subject, body, headers=headers, timeout=5)
            except (nats.errors.Error, APIError) as error:
                if pause is None or not is_for_now(error):
                    raise ServerUnavailableError(
                        f"The log cannot be written ({error!r}): the batch stays running, and "
                        "the next run continues it."
                    ) from error
                await asyncio.sleep(pause)
            else:
                return
