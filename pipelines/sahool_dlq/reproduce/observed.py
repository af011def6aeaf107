"""Stored events as they are compared: decoded and redacted as a drain does it."""

import json
from collections.abc import Callable, Sequence
from datetime import datetime
from typing import Any

from psycopg import Connection

from sahool_dlq.analysis.why.observation import Observation
from sahool_dlq.deadletter.decoding.decoders import Decoders
from sahool_dlq.deadletter.headers import Headers, headers_of_json, value_of
from sahool_dlq.deadletter.message import time_of_ns
from sahool_dlq.deadletter.redaction.redactor import Redactor
from sahool_dlq.jetstream.stored import StoredMessage
from sahool_dlq.redrive.origin import event_headers
from sahool_dlq.redrive.replay.match import redacted_letters

__all__ = ["observed", "versions_of"]

VersionAt = Callable[[datetime], str | None]


def observed(
    events: Sequence[StoredMessage], redactor: Redactor, decoders: Decoders
) -> list[Observation]:
    """The events, in order; the version of their consumer is unknown.

    A body that is not JSON, and that no decoder reads, is None.
    """
    if not events:
        return []
    names = (
        "original_subject", "original_data", "original_headers", "tenant_id", "source_service",
        "payload_encoding",
    )  # fmt: skip
    letters = redacted_letters(redactor, events, decoders).select(names)
    found = []
    for event, row in zip(events, letters.iter_rows(named=True), strict=True):
        body = None if row["payload_encoding"] == "base64" else json.loads(row["original_data"])
        headers = event_headers(headers_of_json(json.loads(row["original_headers"])))
        found.append(
            Observation(
                time_of_ns(event.timestamp_ns),
                row["original_subject"],
                body,
                headers,
                len(event.data),
                row["tenant_id"],
                _publisher(row["source_service"], body, headers),
            )
        )
    return found


def _publisher(service: str, body: Any, headers: Headers) -> str | None:
    """The service that published an event: by its `source_service`, else a CloudEvent's source."""
    if service != "unknown":
        return service
    source = body.get("source") if isinstance(body, dict) and "specversion" in body else None
    return source if isinstance(source, str) else value_of(headers, "ce-source")


def versions_of(connection: Connection[Any], durable: str, since: datetime) -> VersionAt:
    """The version of a consumer that ran at a time, by its totals; None if unknown, or several."""
    ran = connection.execute(
        "SELECT consumer_version, started_at, max(published_at) FROM service_totals"
        " WHERE consumer = %s AND consumer_version IS NOT NULL AND published_at >= %s"
        " GROUP BY 1, 2",
        [durable, since],
    ).fetchall()

    def at(time: datetime) -> str | None:
        running = {version for version, started, last in ran if started <= time <= last}
        return running.pop() if len(running) == 1 else None

    return at
