"""The messages of the log as bytes, exactly as services, redrives and people send them."""

import json
import random
from typing import Any

from sahool_dlq.deadletter import ids
from sahool_dlq.deadletter.envelope.encode import encode_case_event, encode_dead_letter
from sahool_dlq.deadletter.subjects import Subjects
from sahool_dlq.simulation.fleet import Kind
from sahool_dlq.simulation.history import STREAM, Letter, News
from sahool_dlq.simulation.scenario import time_of

__all__ = ["Writer"]


class Writer:
    """Writes messages; variables in texts come from its own random numbers."""

    def __init__(self, subjects: Subjects, rng: random.Random) -> None:
        self._subjects = subjects
        self._rng = rng
        self._traces: dict[tuple[str, str], str] = {}

    def write(self, happening: Letter | News) -> tuple[str, bytes]:
        """Subject and body."""
        if isinstance(happening, Letter):
            subject = self._subjects.dead_letter(happening.kind.event_type)
            return subject, self.letter(happening)
        return f"{self._subjects.prefix}.{happening.subject}", _news(happening)

    def letter(self, letter: Letter) -> bytes:
        """The canonical dead letter."""
        rng, kind = self._rng, letter.kind
        text = kind.message.format(
            host=f"10.2.{rng.randrange(256)}.7:8443",
            id=f"{rng.getrandbits(64):016x}",
            n=rng.randrange(200, 500),
            k=rng.randrange(10),
        )
        at, first = time_of(letter.at).isoformat(), time_of(letter.event_at + 0.2).isoformat()
        attempts = [
            {"at": time, "error_type": kind.error_type, "error_message": text}
            for time in (first, time_of(letter.event_at + 8).isoformat(), at)
        ]
        redrive: dict[str, Any] = {}
        if letter.root:
            redrive = {
                "redrive_id": ids.redrive_id(letter.root, letter.attempt),
                "redrive_of": letter.root,
                "redrive_attempt": letter.attempt,
            }
        fields = {
            "event_id": f"evt-{letter.sequence}",
            "original_subject": f"{self._subjects.prefix}.analysis.{kind.event_type}",
            "event_type": kind.event_type,
            "source_service": "gateway",
            "tenant_id": letter.tenant,
            "field_id": letter.field,
            "farmer_id": None,
            "error_message": text,
            "error_type": kind.error_type,
            "stack_trace": f"{self._trace(kind)}{kind.error_type}: {text}\n",
            "retry_count": 3,
            "max_retries": 3,
            "first_attempt_at": first,
            "last_attempt_at": at,
            "dlq_timestamp": at,
            "dlq_reason": "max_retries_exceeded",
            "original_headers": {"Nats-Msg-Id": f"{letter.sequence:016x}"},
            "original_stream": STREAM,
            "original_sequence": letter.sequence,
            "original_timestamp_ns": round(letter.event_at * 1e6) * 1000,
            "consumer_name": kind.service,
            "consumer_service": kind.service,
            "consumer_version": letter.version,
            "handler": f"{kind.service}.handlers.handle",
            "failure_id": letter.failure_id,
            "attempts": attempts,
            **redrive,
        }
        body = {
            "event_id": f"evt-{letter.sequence}",
            "tenant_id": letter.tenant,
            "field_id": letter.field,
            "crop": rng.choice(("wheat", "maize", "olives", "dates", "cotton")),
            "readings": [round(rng.random(), 3) for _ in range(rng.randrange(8))],
        }
        return encode_dead_letter(fields, json.dumps(body).encode(), is_json=True)

    def _trace(self, kind: Kind) -> str:
        """A Python traceback; line numbers are constant, as in one version of a service."""
        key = (kind.service, kind.error_type)
        if key not in self._traces:
            frames = []
            for line, place in enumerate(kind.path, 1):
                module, function, code = place.split(":", 2)
                frames.append(
                    f'  File "/app/src/{kind.service}/{module}.py", line {line * 37},'
                    f" in {function}\n    {code}\n"
                )
            self._traces[key] = "Traceback (most recent call last):\n" + "".join(frames)
        return self._traces[key]


def _news(news: News) -> bytes:
    is_redrive = news.subject.startswith("redrive.")
    return encode_case_event(
        failure_id=news.failure_id,
        at=time_of(news.at),
        actor=news.actor,
        reason=news.reason,
        redrive_id=ids.redrive_id(news.failure_id, news.attempt or 1) if is_redrive else None,
        attempt=news.attempt if is_redrive else None,
        trigger=news.trigger if is_redrive else None,
        consumer=news.consumer if is_redrive else None,
        consumer_version=news.version,
    )
