"""Whether the dead letter with our id is ours: decided by its content, not by writer or time."""

from types import SimpleNamespace
from typing import Any

import pytest
from nats.js.api import PubAck

from sahool_dlq.deadletter.envelope.encode import encode_dead_letter
from sahool_dlq.events import same

FIELDS = {
    "failure_id": "f1",
    "original_headers": {"a": "1", "original_data": "x"},
    "dlq_timestamp": "2026-03-01T12:00:00+00:00",
    "last_attempt_at": "2026-03-01T12:00:00+00:00",
    "retry_count": 3,
}
OURS = encode_dead_letter(FIELDS, b'{"n": 1}', is_json=True)


def other(**changes: Any) -> bytes:
    fields = {key: value for key, value in (FIELDS | changes).items() if value is not None}
    return encode_dead_letter(fields, b'{"n": 1}', is_json=True)


@pytest.mark.parametrize(
    ("stored", "is_ours"),
    [
        (OURS, True),
        (other(dlq_timestamp="2026-03-01T12:00:09+00:00", retry_count=4), True),
        (other(failure_id="f2"), False),
        (other(dlq_timestamp=None, last_attempt_at=None, retry_count=None), False),
        (other(dlq_timestamp="yesterday"), False),
        (OURS.replace(b'"n": 1', b'"n": 2'), False),
        (b"garbage", False),
        (b"", False),
        (b"[]", False),
    ],
)
async def test_what_it_says_counts(
    monkeypatch: pytest.MonkeyPatch, stored: bytes, is_ours: bool
) -> None:
    async def stored_message(*_: object) -> Any:
        return SimpleNamespace(subject="a.dlq.b", data=stored)

    monkeypatch.setattr(same, "stored_message", stored_message)
    letters: Any = same.SameLetters(None)
    assert await letters.is_ours(PubAck("S", 1), "a.dlq.b", OURS) is is_ours
    assert not await letters.is_ours(PubAck("S", 1), "a.dlq.c", OURS)
