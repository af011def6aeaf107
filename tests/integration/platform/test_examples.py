"""The examples work as they say, when run as a user runs them."""

import asyncio
import contextlib
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import nats
from nats.js.errors import NotFoundError

from sahool_dlq.embedded import NatsServer
from sahool_dlq.events import FailedEvent
from support import ROOT

EXAMPLES = ROOT / "examples"


def test_simple_test_counts_what_really_happened(tmp_path: Path) -> None:
    done = subprocess.run(
        [sys.executable, EXAMPLES / "simple_test.py"],
        cwd=tmp_path,
        capture_output=True,
        text=True,
        check=False,
        timeout=180,
    )
    assert done.returncode == 0, done.stderr
    lines = done.stdout.splitlines()
    assert lines[-3:] == [
        "Successful processes: 1",
        "Retry attempts: 6 (2 retries × 3 attempts)",
        "DLQ events: 2",
    ]
    for field in ("field-in-the-clouds", "field-off-the-map"):
        told = [line for line in lines if line.startswith(field)]
        assert told[:3] == [f"{field}: call {call} of 3 fails" for call in (1, 2, 3)]
        assert len(told) == 4
        assert "dead letter" in told[3]
    assert list(tmp_path.iterdir()) == []


async def test_consumer_example_fails_in_four_ways_and_ends_in_order(
    nats_server_factory: Callable[..., NatsServer],
) -> None:
    server = nats_server_factory()
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, EXAMPLES / "consumer_example.py", "--samples"),
        env={**os.environ, "NATS_URL": server.url},
        stderr=asyncio.subprocess.PIPE,
    )
    try:
        letters = await dead_letters(server, 3)
        durable = await events_are_settled(server)
        process.terminate()
        _, log = await asyncio.wait_for(process.communicate(), 60)
    finally:
        with contextlib.suppress(ProcessLookupError):
            process.kill()
    assert process.returncode == 0
    assert durable == "irrigation-service-sahool_analysis_example_ndvi_computed"
    told = {letter.field_id: letter for letter in letters}
    assert {field: (t.dlq_reason, t.retry_count) for field, t in told.items()} == {
        "field-3": ("validation_error", 0),
        "field-4": ("max_retries_exceeded", 2),
        "field-5": ("handler_dead_letter", 0),
    }
    assert "valid number" in told["field-3"].error_message
    assert told["field-4"].error_type == "ZeroDivisionError"
    assert "water = " in (told["field-4"].stack_trace or "")
    assert told["field-5"].error_message == "field-5 was sold"
    lines = log.decode().splitlines()
    assert [line for line in lines if line.startswith("irrigation: field-")] == [
        "irrigation: field-1: 2 l per square metre",
        "irrigation: field-2: 2 l per square metre",
    ]


async def dead_letters(server: NatsServer, count: int) -> list[FailedEvent]:
    """The dead letters, once there are `count`."""
    async with await nats.connect(server.url) as client, asyncio.timeout(90):
        js = client.jetstream()
        while True:
            with contextlib.suppress(NotFoundError):
                last = (await js.stream_info("SAHOOL_DLQ")).state.last_seq
                if last >= count:
                    break
            await asyncio.sleep(0.1)
        stored = [await js.get_msg("SAHOOL_DLQ", number + 1) for number in range(last)]
    return [FailedEvent.model_validate_json(msg.data or b"") for msg in stored]


async def events_are_settled(server: NatsServer) -> str:
    """Wait until the only consumer has acknowledged every event; its name."""
    async with await nats.connect(server.url) as client, asyncio.timeout(90):
        while True:
            [info] = await client.jetstream().consumers_info("SAHOOL_EVENTS")
            if not info.num_pending and not info.num_ack_pending:
                return info.name
            await asyncio.sleep(0.1)
