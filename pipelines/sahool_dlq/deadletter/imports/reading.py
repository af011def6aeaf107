"""Reads a dead letter of other software by its profile; never raises."""

import base64
import contextlib
import json
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from typing import Any, NamedTuple

from sahool_dlq.deadletter.event import event_ids
from sahool_dlq.deadletter.headers import Headers, MutableHeaders, headers_of_json, value_of
from sahool_dlq.deadletter.imports.profile import Key, Profile
from sahool_dlq.deadletter.message import time_of_ns
from sahool_dlq.deadletter.record import INT32_MAX, INT64_MAX
from sahool_dlq.deadletter.redaction.json_text import members
from sahool_dlq.deadletter.sanitize import clean_text, dump_json, kind_of, parse_json, parse_time

__all__ = ["ForeignLetter", "ForeignMessage", "read_letter"]

_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
_UNITS = {10: 1, 13: 10**3, 16: 10**6, 19: 10**9}
"""How many of a number's units are a second, by its digits: seconds to nanoseconds since 1970."""


class ForeignMessage(NamedTuple):
    """A message of another dead-letter stream."""

    stream: str
    subject: str
    sequence: int
    timestamp_ns: int  # the server's time, nanoseconds since 1970
    headers: Headers
    data: bytes

    @property
    def place(self) -> str:
        """`<stream>/<sequence>/<nanoseconds>`: no other message has it."""
        return f"{self.stream}/{self.sequence}/{self.timestamp_ns}"


class ForeignLetter(NamedTuple):
    """What such a message says of a failure. Texts are clean; None: it does not say it."""

    texts: dict[Key, str]
    sequence: int | None  # of the event in its stream
    deliveries: int | None
    failed_at: datetime
    first_failed_at: datetime
    body: bytes  # of the event
    headers: MutableHeaders
    ids: dict[str, str]  # of the event; see `event_ids`
    problem: str | None  # why it is not, or not completely, such a dead letter


def read_letter(profile: Profile, message: ForeignMessage) -> ForeignLetter:
    """The dead letter in a message, as far as it can be read; every problem is one sentence."""
    reading = _Reading(profile, message)
    texts = reading.texts()
    body, headers = reading.event()
    failed_at = reading.time("failed_at", texts) or time_of_ns(message.timestamp_ns)
    retries = reading.number("retries", texts, INT32_MAX - 1)
    deliveries = reading.number("deliveries", texts, INT32_MAX)
    parsed: Any = None
    with contextlib.suppress(ValueError):
        parsed = parse_json(body)
    return ForeignLetter(
        texts,
        reading.number("original_sequence", texts, INT64_MAX),
        retries + 1 if deliveries is None and retries is not None else deliveries,
        failed_at,
        reading.time("first_failed_at", texts) or failed_at,
        body,
        headers,
        event_ids(parsed, headers),
        "; ".join(reading.problems) or None,
    )


class _Reading:
    def __init__(self, profile: Profile, message: ForeignMessage) -> None:
        self.problems: list[str] = []
        self._profile = profile
        self._message = message
        self._value: Any = None
        if profile.body or profile.data is not None or profile.data_headers is not None:
            self._value = self._parsed()

    def _parsed(self) -> Any:
        try:
            value = parse_json(self._message.data)
        except ValueError as error:
            if not self._has_a_header():
                self.problems.append(f"its body is not JSON: {error}")
            return None
        if not isinstance(value, dict) and not self._has_a_header():
            self.problems.append(f"its body is {kind_of(value)}, not a JSON object")
        return value

    def _has_a_header(self) -> bool:
        wanted = self._profile.headers.values()
        headers = self._message.headers
        return any(value_of(headers, name) is not None for each in wanted for name in _all(each))

    def texts(self) -> dict[Key, str]:
        """What the message says, by key; with what the profile says for all."""
        profile = self._profile
        found: dict[Key, str] = {}
        for key in {**profile.headers, **profile.body}:
            text = next(self._said(key), None)
            if text is not None:
                found[key] = self._decoded(key, text)
        if profile.names_anything and not found and not self.problems:
            names = [n for place in (profile.headers, profile.body) for n in place.values()]
            wanted = ", ".join(name for each in names for name in _all(each))
            self.problems.append(f"it has nothing that the profile {profile.name} reads: {wanted}")
        said = profile.subject_of(self._message.subject)
        if said is not None:
            found.setdefault("original_subject", said)
        return {**profile.values, **found}

    def _said(self, key: Key) -> Iterator[str]:
        for name in _all(self._profile.headers.get(key, ())):
            if (text := value_of(self._message.headers, name)) is not None and text.strip():
                yield clean_text(text)
        for path in _all(self._profile.body.get(key, ())):
            value = _at(self._value, path)
            if value not in (None, ""):
                yield clean_text(value if isinstance(value, str) else dump_json(value))

    def _decoded(self, key: Key, text: str) -> str:
        if key in self._profile.base64:
            with contextlib.suppress(ValueError):
                return clean_text(base64.b64decode(text, validate=True).decode())
        return text

    def number(self, key: Key, texts: dict[Key, str], most: int) -> int | None:
        """A number that is not negative; None if there is none, or another text."""
        text = texts.get(key, "").strip()
        if not text:
            return None
        number = int(text) if text.isascii() and text.isdigit() and len(text) < 20 else -1
        if 0 <= number <= most:
            return number
        self.problems.append(f"its {key} is not a number from 0 to {most}: {text[:40]}")
        return None

    def time(self, key: Key, texts: dict[Key, str]) -> datetime | None:
        """A time in ISO 8601, or a number since 1970; None if there is none, or another text."""
        text = texts.get(key, "").strip()
        if not text:
            return None
        try:
            if text.isascii() and text.isdigit() and len(text) in _UNITS:
                micros = int(text) * 10**6 // _UNITS[len(text)]
                return parse_time((_EPOCH + timedelta(microseconds=micros)).isoformat())
            return parse_time(text)
        except ValueError:
            self.problems.append(f"its {key} is not a time between 1970 and 2200: {text[:40]}")
            return None

    def event(self) -> tuple[bytes, MutableHeaders]:
        """The event's body and headers; of the message itself if they cannot be read in it."""
        return self._body(), self._headers()

    def _body(self) -> bytes:
        profile, data = self._profile, self._message.data
        if profile.data is None:
            return data
        value = _at(self._value, profile.data)
        if value is None:
            self.problems.append(f"it has no {profile.data}, where its event should be")
            return data
        if profile.data_encoding == "json":
            return _exact(data, profile.data) or dump_json(value).encode()
        if not isinstance(value, str):
            self.problems.append(f"its {profile.data} is {kind_of(value)}, not a string")
            return data
        if profile.data_encoding == "text":
            return value.encode()
        try:
            return base64.b64decode(value, validate=True)
        except ValueError:
            self.problems.append(f"its {profile.data} is not base64")
            return data

    def _headers(self) -> MutableHeaders:
        profile = self._profile
        if profile.data_headers is None:
            read = {name.lower() for each in profile.headers.values() for name in _all(each)}
            kept = {n: held for n, held in self._message.headers.items() if n.lower() not in read}
            return {n: held if isinstance(held, str) else [*held] for n, held in kept.items()}
        found = _at(self._value, profile.data_headers)
        if isinstance(found, dict):
            return headers_of_json(found)
        if found is not None:
            self.problems.append(f"its {profile.data_headers} is {kind_of(found)}, not an object")
        return {}


def _all(names: str | tuple[str, ...]) -> tuple[str, ...]:
    return (names,) if isinstance(names, str) else names


def _at(value: Any, path: str) -> Any:
    """The value at a path of keys; None if there is none."""
    for key in path.split("."):
        value = value.get(key) if isinstance(value, dict) else None
    return value


def _exact(data: bytes, path: str) -> bytes | None:
    """The text of that value as it was sent; None if it was not sent as plain JSON in UTF-8."""
    try:
        text = data.decode()
        json.loads(text)
        for key in path.split("."):
            text = members(text)[key].value
    except (ValueError, KeyError, RecursionError):
        return None
    return text.encode()
