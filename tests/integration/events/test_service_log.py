"""The log of a service, and the fields of its records for programs that read them."""

import logging
from typing import Any

import pytest

from support.consumer_log import Calls, Log, running

OURS = "sahool_dlq.events.service_log"


def said(caplog: pytest.LogCaptureFixture, level: int) -> list[dict[str, Any]]:
    return [
        record.__dict__ | {"text": record.getMessage()}
        for record in caplog.records
        if record.name == OURS and record.levelno == level
    ]


async def test_start_retries_and_dead_letters_are_said(
    log: Log, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.DEBUG, OURS)
    async with running(log.config(max_retries=2), Calls(TimeoutError("secret of a farmer"))):
        sequence = await log.publish({"event_id": "e-1"})
        [letter] = await log.letters(1)
        await log.settled()
    subject = f"{log.prefix}.analysis.ndvi"
    names = {"service": "ndvi-service", "stream": log.names.events, "consumer": "ndvi"}
    event = names | {"subject": subject, "sequence": sequence, "event_type": "ndvi"}

    [start] = said(caplog, logging.INFO)
    everything = f"{log.prefix}.analysis.*"
    assert start["text"] == f"ndvi-service consumes {everything} of {log.names.events} as ndvi"
    assert start.items() >= (names | {"subject": everything}).items()

    retries = said(caplog, logging.DEBUG)
    assert [retry["failed_count"] for retry in retries] == [1, 2]
    for retry in retries:
        assert retry.items() >= (event | {"error_type": "TimeoutError"}).items()
        assert retry["delay_seconds"] > 0
        assert retry["text"].startswith(f"Event {sequence} on {subject} is retried in ")
        assert retry["text"].endswith("TimeoutError")

    [dead] = said(caplog, logging.WARNING)
    assert dead["text"] == (
        f"Dead letter: TimeoutError on {subject} (max_retries_exceeded),"
        f" failure {letter['failure_id']}"
    )
    wanted = {"failure_id": letter["failure_id"], "error_type": "TimeoutError"}
    assert dead.items() >= (event | wanted | {"dlq_reason": "max_retries_exceeded"}).items()
    assert "secret of a farmer" not in caplog.text  # a message may hold anything: the DLQ redacts
