"""A command line and a Python program that publish an event again: pure."""

import re
import shlex
from collections.abc import Iterator

from sahool_dlq.deadletter.headers import pairs_of
from sahool_dlq.deadletter.sanitize import UNPRINTABLE
from sahool_dlq.deadletter.subjects import Subjects
from sahool_dlq.errors import QueryError
from sahool_dlq.jetstream.consumers import is_name
from sahool_dlq.redrive.allowed import check_event_subject
from sahool_dlq.redrive.origin import RefusedError
from sahool_dlq.reproduce.raw import RawEvent

__all__ = ["check_subject", "nats_line", "python_program"]

_LONGEST_ARGUMENT = 100_000  # bytes; Linux takes 131,072
_STEERING = re.compile(rf"{UNPRINTABLE.pattern}|[\t\n]")
_LINE = 80  # characters of a bytes literal


def check_subject(event: RawEvent, own: Subjects) -> None:
    """Raise QueryError if nobody should publish to the event's subject.

    The author of a dead letter may have named any subject, and the user who runs the line may have
    more rights.
    """
    try:
        check_event_subject(event.subject, own)
    except RefusedError as error:
        raise QueryError(f"There is nothing to publish again: {error}.") from None


def nats_line(event: RawEvent) -> str:
    """The `nats pub` line for a shell, which publishes the same bytes.

    A body that cannot be an argument (not UTF-8, very long, or with terminal control characters) is
    piped from `dlq get`. Raises QueryError if a header or the subject has control characters.
    """
    words = ["nats", "pub"]
    is_piped = _is_piped(event.body)
    if b"{{" in event.body or "{{" in event.subject:
        words.append("--no-templates")
    for name, value in pairs_of(event.headers_again):
        _check_pastable(f"header {name!a}", name + value)
        # Headers are templates in any case: this one says two braces.
        value = value.replace("{{", '{{"{{"}}')
        words.append(f"--header={name}:{value}")
    _check_pastable("subject", event.subject)
    arguments = [event.subject] if is_piped else [event.subject, event.body.decode()]
    if any(each.startswith(("-", "@")) for each in arguments):
        words.append("--")
    line = shlex.join([*words, *arguments])
    return f"dlq get {event.failure_id} --raw | {line}" if is_piped else line


def _is_piped(body: bytes) -> bool:
    if len(body) > _LONGEST_ARGUMENT:
        return True
    try:
        return bool(_STEERING.search(body.decode()))
    except UnicodeDecodeError:
        return True


def _check_pastable(what: str, text: str) -> None:
    if _STEERING.search(text):
        raise QueryError(
            f"The {what} contains control characters, which are not safe in a shell: use --python."
        )


def python_program(event: RawEvent) -> str:
    """A program that publishes the same bytes; `event` in it is the event as a handler gets it."""
    headers = dict(event.headers_again)
    # The author of a dead letter chose its stream's name: such text must not become code.
    is_stored = event.source == "stream" and event.stream is not None and is_name(event.stream)
    place = f"{event.stream!a}, message {event.sequence}" if is_stored else "its dead letter"
    return f'''"""The original event of failure {event.failure_id}.

Run it to publish the event again, to the servers of NATS_URL: every consumer of its subject gets
it. Or import it: `event` is what a handler gets.
"""

# From {place}.

import asyncio
import os

from sahool_dlq.events import ConsumerContext, NATSPublisher
from sahool_dlq.events.publishing.publisher import NATSConfig

HEADERS = {headers!r}

event = ConsumerContext(
    subject={event.subject!r},
    data=(
{_literal(event.body)}
    ),
    headers={{k: v if isinstance(v, str) else v[-1] for k, v in HEADERS.items()}},
    repeated_headers={{k: v for k, v in HEADERS.items() if isinstance(v, list)}},
)


async def publish() -> None:
    server = os.environ.get("NATS_URL", "nats://localhost:4222")
    publisher = NATSPublisher(NATSConfig(servers=[server]))
    try:
        if not await publisher.connect():
            raise SystemExit(1)  # the reason is in the log
        if not await publisher.publish(event.subject, event.data, HEADERS):
            raise SystemExit(1)
    finally:
        await publisher.close()


if __name__ == "__main__":
    asyncio.run(publish())
'''


def _literal(body: bytes) -> str:
    return "\n".join(f"        {part!r}" for part in _parts(body)) or "        b''"


def _parts(body: bytes) -> Iterator[bytes]:
    for start in range(0, len(body), _LINE):
        yield body[start : start + _LINE]
