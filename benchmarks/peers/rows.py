"""Shared by the peers: dead letters as rows of `failed_events`, and the report of a run.

A peer stores the envelope's own columns. It does not redact, group or keep a lake.
"""

import argparse
import json
import os
import time
from collections.abc import Callable
from typing import Any, NamedTuple

from psycopg.types.json import Jsonb

COLUMNS = (
    "failure_id",
    "event_id",
    "event_type",
    "original_subject",
    "source_service",
    "tenant_id",
    "field_id",
    "farmer_id",
    "error_message",
    "error_type",
    "stack_trace",
    "retry_count",
    "max_retries",
    "first_attempt_at",
    "last_attempt_at",
    "dlq_timestamp",
    "dlq_reason",
    "original_stream",
    "original_sequence",
    "consumer_service",
    "consumer_name",
    "handler",
)
_JSON = ("original_data", "original_headers", "attempts")
INSERT = (
    f"INSERT INTO failed_events (id, {', '.join((*COLUMNS[1:], *_JSON))})"  # noqa: S608  (our own names, bound values)
    f" VALUES ({', '.join(['%s'] * (len(COLUMNS) + len(_JSON)))}) ON CONFLICT DO NOTHING"
)


class Task(NamedTuple):
    """Where a peer reads and writes, and how many rows it has to store."""

    nats_url: str
    dsn: str
    stream: str
    subject: str
    rows: int


def task() -> Task:
    """The task on the command line."""
    parser = argparse.ArgumentParser()
    for name in ("nats-url", "dsn", "stream", "subject"):
        parser.add_argument(f"--{name}", required=True)
    parser.add_argument("--rows", type=int, required=True)
    return Task(**vars(parser.parse_args()))


def row_of(value: dict[str, Any]) -> list[Any]:
    """The values of `INSERT` from a decoded dead letter."""
    return [*(value.get(name) for name in COLUMNS), *(Jsonb(value.get(name)) for name in _JSON)]


def stopwatch() -> Callable[[int], None]:
    """Start timing; call the result with the rows stored to print the figures."""
    started, before = time.monotonic(), os.times()

    def stop(rows: int) -> None:
        now = os.times()
        cpu = now.user + now.system - before.user - before.system
        seconds = time.monotonic() - started
        print(json.dumps({"rows": rows, "seconds": seconds, "cpu_seconds": cpu}))

    return stop
