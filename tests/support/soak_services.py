"""The services of a soak, which record each call."""

import asyncio
import json
import time
from dataclasses import dataclass, field
from typing import Any

from sahool_dlq.deadletter.headers import redrive_of
from sahool_dlq.events import ConsumerContext, NATSConsumer, NATSConsumerConfig, ProcessingResult
from sahool_dlq.settings import Settings
from support import history

KINDS = {"good": 3, "once": 3, "twice": 2, "never": 1, "edit": 2}
"""What becomes of an event, and how often it is drawn."""
PATCH = {"unit": "ha", "legacy": None}
"""The edit that cures an event."""
_ERRORS = {"once": TimeoutError, "twice": ConnectionError, "never": ValueError, "edit": KeyError}


@dataclass
class Service:
    """A consumer that fails by an event's kind: until its first redrive, its second one, or an
    edit.
    """

    name: str
    subject: str  # below the prefix
    max_retries: int
    calls: list[history.Call] = field(default_factory=list)
    is_healthy: bool = False

    def address(self, settings: Settings) -> str:
        return f"{settings.events_stream}/{self.name}"

    async def handle(self, context: ConsumerContext) -> ProcessingResult:
        began, outcome = time.time(), "cut off"
        marks = redrive_of(context.headers)
        try:
            body = json.loads(context.data)
            await asyncio.sleep(body["n"] % 7 / 100)
            outcome = "failure"
            if not self.is_healthy:
                self._fail(body, marks.attempt if marks else 0)
            outcome = "success"
        finally:
            self.calls.append(
                history.Call(
                    f"{context.stream}/{self.name}",
                    context.sequence,
                    began,
                    time.time(),
                    outcome,
                    marks and marks.id,
                    marks and marks.root,
                )
            )
        return ProcessingResult.SUCCESS

    def _fail(self, body: dict[str, Any], attempt: int) -> None:
        kind = body["kind"]
        needed = {"good": 0, "once": 1, "twice": 2}.get(kind, 1_000)
        if attempt < needed and not (kind == "edit" and body["unit"] == PATCH["unit"]):
            raise _ERRORS[kind](f"{kind} is not to be done here")

    async def serve(self, settings: Settings) -> NATSConsumer:
        config = NATSConsumerConfig(
            servers=[settings.nats_url],
            name=self.name,
            consumer_name=self.name,
            stream_name=settings.events_stream,
            max_retries=self.max_retries,
            retry_delay_seconds=0.05,
            ack_wait_seconds=5,
            max_concurrency=8,
            reconnect_time_wait=0.2,
            connect_timeout_seconds=60,
        )
        consumer = NATSConsumer(config)
        assert await consumer.connect()
        await consumer.subscribe(self.handle, f"{settings.subject_prefix}.{self.subject}")
        consumer.start_in_background()
        return consumer
