"""How long an event may live, and whether it is too old for a redrive."""

import re
from datetime import datetime

from sahool_dlq.deadletter.headers import Headers, MutableHeaders, values_of

__all__ = [
    "TTL",
    "TooLateError",
    "age_in_words",
    "check_age",
    "remaining_ttl",
    "ttl_of",
    "ttl_seconds",
]

TTL = "Nats-TTL"
"""The header with the time after which the server deletes a stored message."""

_SHORTEST_TTL = 1  # second; the server takes whole ones
_PART = r"(\d+\.?\d*|\.\d+)(ns|us|µs|μs|ms|s|m|h)"  # both spellings of micro
_GO_DURATION = re.compile(f"(?:{_PART})+")
_UNITS = {"ns": 1e-9, "us": 1e-6, "ms": 1e-3, "s": 1.0, "m": 60.0, "h": 3_600.0}
_WORDS = (("days", 86_400.0), ("hours", 3_600.0), ("minutes", 60.0))


class TooLateError(Exception):
    """The event is too old to be published again; the message says how old."""


def ttl_seconds(text: str) -> float | None:
    """A `Nats-TTL` as the server reads it, in seconds; None for `never`, 0 for invalid values."""
    if text.isascii() and text.isdigit():
        return float(text) or None
    if not _GO_DURATION.fullmatch(text):
        return None
    parts = re.findall(_PART, text)
    return sum(float(number) * _UNITS.get(unit, 1e-6) for number, unit in parts) or None


def ttl_of(headers: Headers) -> str | None:
    """The `Nats-TTL` of an event; the server accepts only this spelling."""
    values = values_of({TTL: headers[TTL]}, TTL) if TTL in headers else []
    return values[0] if values else None


def remaining_ttl(ttl: str | None, since: datetime, now: datetime) -> MutableHeaders:
    """The header that lets an event live as long as its producer wanted, counted from `since`.

    Raises TooLateError if that time is over.
    """
    if ttl is None:
        return {}
    seconds = ttl_seconds(ttl)
    if seconds is None:
        return {TTL: ttl} if ttl.lower() == "never" else {}
    age = max((now - since).total_seconds(), 0.0)
    if seconds - age < _SHORTEST_TTL:
        raise TooLateError(
            f"its event is {age_in_words(age)} old, and its producer allows "
            f"{age_in_words(seconds)} ({TTL}: {ttl})"
        )
    return {TTL: str(int(seconds - age))}


def check_age(max_age_seconds: float | None, since: datetime, now: datetime) -> None:
    """Raise TooLateError for an event that is older than this many seconds."""
    age = (now - since).total_seconds()
    if max_age_seconds is not None and age > max_age_seconds:
        raise TooLateError(
            f"its event is {age_in_words(age)} old, and {age_in_words(max_age_seconds)} are the"
            " most (--max-age)"
        )


def age_in_words(seconds: float) -> str:
    """`3.5 days`, `2 minutes`."""
    for unit, length in _WORDS:
        if seconds >= 2 * length:
            return f"{seconds / length:.1f} {unit}".replace(".0 ", " ")
    return f"{seconds:.0f} seconds"
