"""The headers of an event, as stored in a dead letter: by name a text, or an array of texts.

The array has the values of a repeated header, in order. Names keep their spelling; lookups ignore
the case.
"""

from collections.abc import Iterator, Mapping
from typing import Any, NamedTuple

from sahool_dlq.deadletter import ids
from sahool_dlq.deadletter.sanitize import dump_json, kind_of, without_surrogates

__all__ = [
    "ADDRESSEE",
    "INSTEAD_OF",
    "MARKS",
    "TOKEN",
    "Headers",
    "MutableHeaders",
    "Redrive",
    "add_header",
    "headers_of_json",
    "is_for_another",
    "pairs_of",
    "proven_redrive",
    "redrive_marks",
    "redrive_of",
    "told_redrive_id",
    "value_of",
    "values_of",
]

Headers = Mapping[str, str | list[str]]
"""Values by name, as in `original_headers` of a dead letter."""
MutableHeaders = dict[str, str | list[str]]

MARKS = ("Dlq-Redrive-Of", "Dlq-Redrive-Id", "Dlq-Redrive-Attempt")
"""The headers that make an event a redrive: root failure, id and attempt."""
ADDRESSEE = "Dlq-Redrive-For"
"""The header with the addressed consumer."""
TOKEN = "Dlq-Redrive-Token"  # noqa: S105  (a name)
"""The header with the redrive's random id in the log: every outcome must contain it. Redrives of
older versions have none, and are identified by `Dlq-Redrive-Id`.
"""
INSTEAD_OF = "Dlq-Redrive-Instead-Of"
"""The header with the consumer that failed, if others get the redrive: they report success in its
name.
"""
_MOST_ATTEMPTS = 2**31 - 1


def values_of(headers: Headers, name: str) -> list[str]:
    """All values of a header, in order; empty if there is none."""
    wanted = name.lower()
    values: list[str] = []
    for key, held in headers.items():
        if key.lower() == wanted:
            values += [held] if isinstance(held, str) else held
    return values


def value_of(headers: Headers, name: str) -> str | None:
    """The value of a header, or the last value of a repeated one; None if there is none."""
    values = values_of(headers, name)
    return values[-1] if values else None


def pairs_of(headers: Headers) -> Iterator[tuple[str, str]]:
    """Name and value of each header, once for each value."""
    for name, held in headers.items():
        if isinstance(held, str):
            yield name, held
        else:
            for value in held:
                yield name, value


def add_header(headers: MutableHeaders, name: str, value: str) -> None:
    """Add a value after the existing values of the header."""
    held = headers.get(name)
    if held is None:
        headers[name] = value
    elif isinstance(held, str):
        headers[name] = [held, value]
    else:
        held.append(value)


def headers_of_json(found: Mapping[str, Any], problems: list[str] | None = None) -> MutableHeaders:
    """The parsed headers of a JSON object, with any values.

    Texts and arrays of texts are valid; other values are stored as JSON text, and null is no value:
    a header without one has an empty list. Lone surrogates, which nothing can write or send, become
    U+FFFD. `problems` gets a word about each problem.
    """
    problems = [] if problems is None else problems
    headers: MutableHeaders = {}
    for name, held in found.items():
        if not isinstance(held, (str, list)):
            problems.append(f"original_headers.{name} is {kind_of(held)}")
        values = held if isinstance(held, list) else [held]
        odd = {kind_of(value) for value in values if not isinstance(value, str)}
        if odd and isinstance(held, list):
            problems.append(f"original_headers.{name} holds {', '.join(sorted(odd))}")
        name = without_surrogates(name)
        for value in values:
            if value is not None:
                text = value if isinstance(value, str) else dump_json(value)
                add_header(headers, name, without_surrogates(text))
        headers.setdefault(name, [])
    return headers


class Redrive(NamedTuple):
    """The redrive in an event's headers."""

    root: str  # failure id
    id: str  # as the log knows it
    attempt: int  # 1 for the first


def redrive_marks(headers: Headers) -> tuple[str | None, str | None, str | None]:
    """Root failure, id and attempt in an event's redrive headers; each may be any text.

    Nothing if the event has another id than the redrive, which is published under its own: then a
    service copied the headers from a handled event to a new one.
    """
    root, redrive, attempt = (value_of(headers, name) for name in MARKS)
    is_copied = value_of(headers, "Nats-Msg-Id") not in (None, redrive)
    return (None, None, None) if is_copied else (root, redrive, attempt)


def redrive_of(headers: Headers) -> Redrive | None:
    """The redrive of an event with these headers; None if it is not one.

    Headers that do not fit together are ignored. They can still be forged by somebody who knows how
    they are computed: so only the drain can tell, by its id, whether there was such a redrive.
    """
    if value_of(headers, MARKS[0]) is None:  # of nearly all events
        return None
    redrive = proven_redrive(*redrive_marks(headers))
    return redrive and redrive._replace(id=told_redrive_id(headers) or redrive.id)


def is_for_another(headers: Headers, address: str | None) -> bool:
    """Whether an event is a redrive that is addressed to a consumer other than `address`."""
    addressee = value_of(headers, ADDRESSEE) if redrive_of(headers) else None
    return bool(addressee) and addressee != address


def told_redrive_id(headers: Headers) -> str | None:
    """The id in `TOKEN`; None if there is no valid one."""
    token = value_of(headers, TOKEN)
    return token if token and ids.is_uuid(token) else None


def proven_redrive(root: Any, redrive: Any, attempt: Any) -> Redrive | None:
    """The redrive of these keys, if they fit together."""
    try:
        number = int(attempt or 0)
    except ValueError:
        return None
    if not 0 < number < _MOST_ATTEMPTS or not isinstance(root, str) or not ids.is_uuid(root):
        return None
    return Redrive(root, redrive, number) if redrive == ids.redrive_id(root, number) else None
