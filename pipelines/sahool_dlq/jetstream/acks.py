"""The subject on which a delivered message is answered, in each of its forms.

`$JS.ACK.<stream>.<consumer>.<five numbers>`, or with `<domain>.<account's hash>` before the stream
and whatever a later server adds at the end (nats-server with the feature flag `js_ack_fc_v2`).
"""

from typing import Literal

ACKS = "$JS.ACK."
_ACKED = (b"", b"+ACK", b"+OK")
_FIELDS = 7  # stream, consumer, and the five numbers
_SHORTEST_WITH_DOMAIN = 11  # tokens


def fields_of(reply: str) -> list[str]:
    """Stream, consumer, delivery count, sequence, the consumer's sequence, time in ns, pending."""
    tokens = reply.split(".")
    start = _stream_at(tokens)
    return tokens[start : start + _FIELDS]


def all_of_consumer(reply: str) -> str:
    """The subject that permits every answer to the consumer of this one."""
    tokens = reply.split(".")
    return ".".join([*tokens[: _stream_at(tokens) + 2], ">"])


def is_ack(answer: bytes) -> bool:
    """Whether an answer says that the event was handled."""
    return answer in _ACKED or answer.startswith(b"+NXT")


def ack_subjects(stream: str, consumer: str, sequence: int | Literal["*"]) -> tuple[str, str]:
    """Where a consumer's answers about one event, or about all, can be heard: each form's."""
    whose = f"{stream}.{consumer}.*.{sequence}"
    return f"{ACKS}{whose}.*.*.*", f"{ACKS}*.*.{whose}.>"


def _stream_at(tokens: list[str]) -> int:
    return 4 if len(tokens) >= _SHORTEST_WITH_DOMAIN else 2
