"""Dead letters as in production: 3.3 KB on average, about half of it the traceback.

About fifty failures of imaginary services. Frequent ones are far more frequent than rare ones;
messages differ in ids, hosts and durations. One in twenty contains something to redact.
"""

import json
import random
from collections.abc import Callable, Iterator
from datetime import UTC, datetime, timedelta
from itertools import accumulate
from typing import Any, NamedTuple

from sahool_dlq.deadletter import ids
from sahool_dlq.deadletter.envelope.encode import encode_dead_letter

_START = datetime(2026, 1, 5, tzinfo=UTC)
_SERVICES = ("ndvi", "irrigation", "soil", "yield", "billing", "notification", "weather", "tiles")
_ERRORS = (
    ("TimeoutError", "GET http://{host}/v2/tiles/{id} took longer than {n}.{k} s"),
    ("ConnectionError", "connection to {host} refused after {n} ms (Errno 111)"),
    ("ClientConnectorError", "Cannot connect to host {host} ssl:default [Connect call failed]"),
    ("UniqueViolation", 'duplicate key value violates "invoices_pkey" DETAIL: Key (id)=({id})'),
    ("KeyError", "'season_{n}'"),
    ("ValueError", "could not convert string to float: 'n/a {k}'"),
    ("ValidationError", "1 validation error for Reading: depth_cm must be below 200, is {n}"),
    ("ZeroDivisionError", "division by zero"),
)
_FILES = ("handlers", "client", "repository", "geometry", "schemas", "retries", "session", "codec")
_WORDS = (
    *("session", "request", "boundary", "reading", "forecast", "invoice", "tile", "season"),
    *("zone", "valve", "tenant", "offset", "payload", "cursor", "window", "schema", "retry"),
    *("index", "limit", "depth", "moisture", "polygon", "decode", "fetch", "store", "project"),
)
_SHAPES = (
    "{} = await self._{}.{}({}, {}={}.{})",
    "return await asyncio.wait_for(self._{}({}), timeout=self._{}_seconds)",
    "{} = {}_of(event['{}'][{}], {}={})",
    "raise {}Error(f'{} of {{{}}} is {{{}.{}}}') from error",
    "for {}, {} in zip({}.{}, self._{}, strict=True):",
)
_ROOM = "lorem ipsum field boundary north east irrigation valve pressure sensor reading "


class _Failure(NamedTuple):
    service: str
    error_type: str
    message: str
    frames: tuple[str, ...]


def letters(count: int, first: int = 0, *, is_diverse: bool = False) -> Iterator[tuple[str, bytes]]:
    """Event type and body of `count` canonical dead letters, the same for the same numbers.

    With `is_diverse`, each has a trace that no other has.
    """
    rng = random.Random(1)  # noqa: S311  (material, no secret)
    failures = [_failure(rng) for _ in range(50)]
    weights = list(accumulate(1 / (rank + 1) for rank in range(len(failures))))
    rng.seed(first)
    for number in range(first, first + count):
        (failure,) = rng.choices(failures, cum_weights=weights)
        if is_diverse:
            failure = _failure(rng)
        yield _letter(failure, number, rng)


def strange_letters(count: int) -> Iterator[tuple[str, bytes]]:
    """The same, but every second one is as other clients send it: it takes the exact path.

    In turn: keys that are not ours, times that are numbers, an event with NaN in it, a header with
    several values, and the one character that no sink accepts.
    """
    for number, (event_type, body) in enumerate(letters(count)):
        if number % 2:
            letter = json.loads(body)
            _STRANGE[number // 2 % len(_STRANGE)](letter)
            body = json.dumps(letter, ensure_ascii=False).encode()
        yield event_type, body


def huge_letters(count: int, size_bytes: int) -> Iterator[tuple[str, bytes]]:
    """The same, with a payload that makes each about `size_bytes` long."""
    for event_type, body in letters(count):
        letter = json.loads(body)
        letter["original_data"]["tile"] = "x" * (size_bytes - len(body))
        yield event_type, json.dumps(letter).encode()


def _as_metadata(letter: dict[str, Any]) -> None:
    """The envelope of another generation of services (docs/wire-format.md)."""
    event = letter["original_data"]
    metadata = {
        "original_subject": letter["original_subject"],
        "original_event_id": letter["event_id"],
        "retry_count": letter["retry_count"],
        "failure_reason": letter["error_message"],
        "failure_timestamp": letter["dlq_timestamp"],
        "error_type": letter["error_type"],
        "error_traceback": letter["stack_trace"],
        "consumer_service": letter["consumer_service"],
        "retry_timestamps": [attempt["at"] for attempt in letter["attempts"]],
        "retry_errors": [attempt["error_message"] for attempt in letter["attempts"]],
    }
    letter.clear()
    letter |= {"metadata": metadata, "original_message": json.dumps(event)}


_STRANGE: tuple[Callable[[dict[str, Any]], object], ...] = (
    _as_metadata,
    lambda letter: letter.update(dlq_timestamp=1_767_600_000.5, retry_count="3"),
    lambda letter: letter["original_data"].update(ndvi=float("nan")),
    lambda letter: letter["original_headers"].update(Trace=["a", "b"]),
    lambda letter: letter["original_data"].update(note="a\u0000b"),
)


def _failure(rng: random.Random) -> _Failure:
    service = rng.choice(_SERVICES)
    error_type, message = rng.choice(_ERRORS)
    frames = tuple(
        f'  File "/app/src/{service}/{rng.choice(_FILES)}.py", line {rng.randrange(10, 900)},'
        f" in {rng.choice(_WORDS)}_{rng.choice(_WORDS)}\n    {_code(rng)}\n"
        for _ in range(rng.randrange(6, 17))
    )
    return _Failure(service, error_type, message, frames)


def _code(rng: random.Random) -> str:
    return rng.choice(_SHAPES).format(*rng.choices(_WORDS, k=7))


def _letter(failure: _Failure, number: int, rng: random.Random) -> tuple[str, bytes]:
    service, error_type, message, frames = failure
    text = message.format(
        host=f"10.{rng.randrange(256)}.{rng.randrange(256)}.7:8443",
        id=f"{rng.getrandbits(64):016x}",
        n=rng.randrange(1, 500),
        k=rng.randrange(10),
    )
    event_type = f"{service}_computed"
    at = _START + timedelta(milliseconds=40 * number)
    origin = ("SAHOOL_EVENTS", number + 1, int(at.timestamp() * 1e9), f"{service}-service")
    attempts = [
        {
            "at": (at - timedelta(seconds=9 - 3 * n)).isoformat(),
            "error_type": error_type,
            "error_message": text,
        }
        for n in range(3)
    ]
    fields = {
        "event_id": f"evt-{rng.getrandbits(64):016x}",
        "original_subject": f"sahool.analysis.{event_type}",
        "event_type": event_type,
        "source_service": "gateway",
        "tenant_id": f"tenant-{rng.randrange(300)}",
        "field_id": f"field-{rng.randrange(20_000)}",
        "farmer_id": None,
        "error_message": text,
        "error_type": error_type,
        "stack_trace": "Traceback (most recent call last):\n"
        f"{''.join(frames)}{error_type}: {text}\n",
        "retry_count": 3,
        "max_retries": 3,
        "first_attempt_at": attempts[0]["at"],
        "last_attempt_at": at.isoformat(),
        "dlq_timestamp": at.isoformat(),
        "dlq_reason": "max_retries_exceeded",
        "original_headers": {"Nats-Msg-Id": f"{rng.getrandbits(64):016x}", "Trace": "00-4bf9"},
        "original_stream": origin[0],
        "original_sequence": origin[1],
        "original_timestamp_ns": origin[2],
        "consumer_name": origin[3],
        "consumer_service": f"{service}-service",
        "consumer_version": "1.4.2",
        "handler": f"{service}.handlers.handle",
        "failure_id": ids.failure_id(*origin),
        "attempts": attempts,
        "traceparent": None,
    }
    return event_type, encode_dead_letter(fields, json.dumps(_event(rng)).encode(), is_json=True)


def _event(rng: random.Random) -> dict[str, Any]:
    event: dict[str, Any] = {
        "id": f"{rng.getrandbits(128):032x}",
        "boundary": [[round(rng.uniform(44, 46), 5), round(rng.uniform(15, 16), 5)] for _ in "ab"],
        "readings": [round(rng.random(), 3) for _ in range(rng.randrange(12))],
        "note": (_ROOM * 3)[: rng.randrange(100)],
    }
    if rng.random() < 0.05:
        event["contact"] = {"email": f"farmer{rng.randrange(999)}@example.org", "api_key": "k-1234"}
    return event
