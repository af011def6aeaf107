"""Deterministic ids: the same failure or redrive gets the same id, whoever computes it."""

import hashlib
import uuid

_NAMESPACE = uuid.uuid5(uuid.NAMESPACE_URL, "urn:sahool:dlq").bytes


def failure_id(stream: str, sequence: int, timestamp_ns: int, consumer: str) -> str:
    """The id of one consumer's failure on one message of an event stream.

    `timestamp_ns` is the server's time of the original message in nanoseconds since 1970; it
    distinguishes sequences of a recreated stream.
    """
    return _uuid5(f"{stream}|{sequence}|{timestamp_ns}|{consumer}")


def dead_letter_id(dlq_stream: str, sequence: int, timestamp_ns: int) -> str:
    """The id of a dead letter whose failure id cannot be verified."""
    return _uuid5(f"{dlq_stream}|{sequence}|{timestamp_ns}")


def imported_id(imported_from: str) -> str:
    """The id of a dead letter from another dead-letter stream, if its event is not known exactly.

    `imported_from` is its place there, see `imports.place_of`.
    """
    return _uuid5(f"imported|{imported_from}")


def redrive_id(root_failure_id: str, attempt: int) -> str:
    """The id in the headers of a redrive attempt, and its `Nats-Msg-Id`.

    Anybody can compute it. The log identifies a redrive by a random id (`headers.TOKEN`), those of
    older versions by this one.
    """
    return _uuid5(f"redrive|{root_failure_id}|{attempt}")


def consumer_address(stream: str | None, consumer: str | None) -> str | None:
    """`<stream>/<durable>`, the name of a consumer in a redrive; None if a part is unknown."""
    return f"{stream}/{consumer}" if stream and consumer else None


def is_uuid(text: str) -> bool:
    """Whether `text` is a UUID in its canonical form."""
    try:
        return str(uuid.UUID(text)) == text
    except ValueError:
        return False


def _uuid5(name: str) -> str:
    """`uuid.uuid5` of a name in our namespace, at a third of its cost."""
    digits = hashlib.sha1(_NAMESPACE + name.encode(), usedforsecurity=False).hexdigest()
    variant = "89ab"[int(digits[16], 16) & 3]
    return f"{digits[:8]}-{digits[8:12]}-5{digits[13:16]}-{variant}{digits[17:20]}-{digits[20:32]}"
