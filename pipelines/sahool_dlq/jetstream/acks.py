"""The subject on which a delivered message is acknowledged, in each form.

`$JS.ACK.<stream>.<consumer>.<five numbers>`, or with `<domain>.<account's hash>` before the stream
and possibly more tokens of later servers at the end (nats-server with the feature flag
`js_ack_fc_v2`).
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
    """The subject that permits every acknowledgement to the consumer of this one."""
    tokens = reply.split(".")
    return ".".join([*tokens[: _stream_at(tokens) + 2], ">"])


def is_ack(answer: bytes) -> bool:
    """Whether an answer means that the event was handled."""
    return answer in _ACKED or answer.startswith(b"+NXT")


def ack_subjects(stream: str, consumer: str, sequence: int | Literal["*"]) -> tuple[str, str]:
    """The subjects of a consumer's acknowledgements of one event, or of all: one per form."""
    whose = f"{stream}.{consumer}.*.{sequence}"
    return f"{ACKS}{whose}.*.*.*", f"{ACKS}*.*.{whose}.>"


def _stream_at(tokens: list[str]) -> int:
    return 4 if len(tokens) >= _SHORTEST_WITH_DOMAIN else 2
