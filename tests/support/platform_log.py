"""Shared by the drain's tests: dead letters, publishing them, and a check of both sinks."""

import asyncio
import json
import os
import socket
import subprocess
import sys
import uuid
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import polars as pl
import psycopg
import pytest
from nats.aio.client import Client
from psycopg.rows import dict_row

from sahool_dlq.settings import Settings
from sahool_dlq.stores.lake.lake import Lake
from sahool_dlq.stores.lake.table import LakeTable
from sahool_dlq.stores.postgres.failed_events import FailedEvents
from support import ROOT

DLQ = [sys.executable, "-c", "from sahool_dlq.cli import main; main()"]


def letter(number: int, **changes: Any) -> bytes:
    """A dead letter as older services send it; `number` makes it unique."""
    value = {
        "event_id": f"event-{number}",
        "original_subject": "sahool.analysis.ndvi_computed",
        "event_type": "ndvi_computed",
        "source_service": "satellite-service",
        "tenant_id": "tenant-1",
        "field_id": f"field-{number % 7}",
        "farmer_id": None,
        "error_message": f"no connection to host {number}",
        "error_type": "ConnectionError",
        "stack_trace": None,
        "retry_count": 3,
        "max_retries": 3,
        "first_attempt_at": "2026-01-02T03:04:05Z",
        "last_attempt_at": "2026-01-02T03:04:06+00:00",
        "dlq_timestamp": "2026-01-02T03:04:07.5",
        "original_data": {"number": number, "name": f"Gänse {number}", "list": [1, None, 1.5]},
        "original_headers": {"Trace": f"t{number}"},
        "dlq_reason": "max_retries_exceeded",
    }
    return json.dumps({**value, **changes}).encode()


async def publish(
    client: Client, settings: Settings, bodies: Iterable[bytes], subject: str = "dlq.ndvi_computed"
) -> dict[int, bytes]:
    """Publish bodies in order below the platform's prefix; what was stored, by sequence."""
    js, stored = client.jetstream(timeout=60), {}  # a loaded machine takes its time
    where = f"{settings.subject_prefix}.{subject}"
    waiting = list(bodies)
    while waiting:
        window, waiting = waiting[:200], waiting[200:]
        acks = await asyncio.gather(*(js.publish(where, body) for body in window))
        stored |= {ack.seq: body for ack, body in zip(acks, window, strict=True)}
    return stored


def publish_raw(
    settings: Settings, subject: bytes, headers: bytes | None, body: bytes, count: int = 1
) -> None:
    """Publish bytes that no client library would send; returns when a stream has them."""
    where = urlsplit(settings.nats_url.get_secret_value())
    with socket.create_connection((where.hostname or "", where.port or 0), timeout=20) as wire:
        lines = wire.makefile("rb")
        assert lines.readline().startswith(b"INFO")
        inbox = b"_INBOX." + uuid.uuid4().hex.encode()
        whole = (headers or b"") + body
        if headers is None:
            message = b"PUB %b %b %d\r\n%b\r\n" % (subject, inbox, len(whole), whole)
        else:
            sizes = b"%d %d" % (len(headers), len(whole))
            message = b"HPUB %b %b %b\r\n%b\r\n" % (subject, inbox, sizes, whole)
        wire.sendall(b'CONNECT {"headers":true,"verbose":false}\r\nSUB %b 1\r\n' % inbox)
        wire.sendall(message * count)
        while count:
            line = lines.readline()
            if line.startswith(b"MSG "):  # the stream's acknowledgement
                lines.read(int(line.split()[-1]) + 2)
                count -= 1
            else:
                assert line.startswith((b"INFO", b"PING")), line


async def last_sequence(client: Client, settings: Settings) -> int:
    """The last sequence of the dead-letter stream."""
    return (await client.jetstream().stream_info(settings.dlq_stream)).state.last_seq


def query(settings: Settings, statement: str, *values: Any) -> list[dict[str, Any]]:
    """Rows of the platform's database."""
    with psycopg.connect(settings.postgres_dsn.get_secret_value(), row_factory=dict_row) as open_:
        return open_.execute(statement, values).fetchall()


def execute(settings: Settings, statement: str, *values: Any) -> None:
    """Change the platform's database."""
    with psycopg.connect(settings.postgres_dsn.get_secret_value()) as open_:
        open_.execute(statement, values)


def failures(settings: Settings) -> list[dict[str, Any]]:
    """All rows of failed_events, in log order."""
    return query(
        settings,
        "SELECT *, jsonb_typeof(original_data) AS data_type, xmin::text, ctid::text"
        " FROM failed_events ORDER BY epoch, dlq_sequence",
    )


def in_lake(settings: Settings, table: str = "dead_letters") -> pl.DataFrame:
    """All rows of a table of the lake, in log order."""
    return Lake(settings.lake).read(table).sort("epoch", "dlq_sequence")


def state_of(settings: Settings) -> dict[str, Any]:
    """Everything that a drain without new messages must not change."""
    lake = Lake(settings.lake)
    return {
        "rows": failures(settings),
        "checkpoints": query(settings, "SELECT *, xmin::text FROM drain_checkpoints"),
        "anchors": query(settings, "SELECT * FROM drain_anchors ORDER BY 1, 2"),
        "gaps": query(settings, "SELECT *, xmin::text FROM stream_gaps ORDER BY 1, 2"),
        "files": {name: lake.files(name) for name in ("dead_letters", "case_events")},
        "log": sorted(str(file) for file in Path(lake.uri).rglob("_delta_log/*")),
    }


def check_exact(settings: Settings, stored: Mapping[int, bytes]) -> None:
    """Check that both sinks have exactly these dead letters, each once, with its values."""
    sent = {sequence: json.loads(body) for sequence, body in sorted(stored.items())}
    columns = ("event_id", "error_message", "field_id")
    wanted = [(seq, *(value[name] for name in columns)) for seq, value in sent.items()]
    lake = in_lake(settings).sort("dlq_sequence")
    assert lake.select("dlq_sequence", *columns).rows() == wanted
    assert [json.loads(text) for text in lake["original_data"]] == [
        value["original_data"] for value in sent.values()
    ]
    assert lake["failure_id"].n_unique() == lake.height
    rows = sorted(failures(settings), key=lambda row: row["dlq_sequence"])
    assert [(row["dlq_sequence"], *(row[name] for name in columns)) for row in rows] == wanted
    assert [row["original_data"] for row in rows] == [v["original_data"] for v in sent.values()]
    assert {row["data_type"] for row in rows} <= {"object"}
    assert {row["seen_count"] for row in rows} <= {1}
    assert [str(row["id"]) for row in rows] == lake["failure_id"].to_list()


class InjectedError(Exception):
    """Simulates the death of the process."""


def stop_sink(patched: pytest.MonkeyPatch, sink: str, after: int) -> None:
    """Let one sink accept no more than `after` sequences, the other one batch more, then die."""
    owner, name = {"lake": (LakeTable, "append"), "postgres": (FailedEvents, "store")}[sink]
    commit = getattr(owner, name)

    def stopping(self: Any, batch: Any, *arguments: Any) -> None:
        last = arguments[-1] if sink == "lake" else batch.last_sequence
        if last > after:
            raise InjectedError
        commit(self, batch, *arguments)

    patched.setattr(owner, name, stopping)


def environment(settings: Settings, **more: str) -> dict[str, str]:
    """The environment of a `dlq` process for this platform."""
    inherited = {key: value for key, value in os.environ.items() if not key.startswith("DLQ_")}
    return {
        **inherited,
        "DLQ_HOME": str(settings.home),
        "DLQ_NATS_URL": settings.nats_url.get_secret_value(),
        "DLQ_POSTGRES_DSN": settings.postgres_dsn.get_secret_value(),
        "DLQ_LAKE_URI": settings.lake,
        "DLQ_SUBJECT_PREFIX": settings.subject_prefix,
        "DLQ_EVENTS_STREAM": settings.events_stream,
        "DLQ_DLQ_STREAM": settings.dlq_stream,
        "DLQ_TOTALS_STREAM": settings.totals_stream,
        **more,
    }


def start_drain(settings: Settings, *arguments: str, **more: str) -> subprocess.Popen[str]:
    """`dlq drain --json` as a separate process."""
    return subprocess.Popen(
        [*DLQ, "drain", "--json", *arguments],
        cwd=ROOT,
        env=environment(settings, **more),
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


def told(errors: str) -> str:
    """The error of a verb with `--json`: the last line of its errors."""
    said: str = json.loads(errors.strip().splitlines()[-1])["error"]
    return said


async def run_drain(settings: Settings, *arguments: str, **more: str) -> tuple[int, str, str]:
    """Run `dlq drain --json` to its end: exit status, output, errors."""
    process = start_drain(settings, *arguments, **more)
    output, errors = await asyncio.to_thread(process.communicate, timeout=120)
    return process.returncode, output, errors
