"""The subject on which a delivered message is answered, in each of its forms.

`$JS.ACK.<stream>.<consumer>.<five numbers>`, or with `<domain>.<account's hash>` before the stream
and whatever a later server adds at the end (nats-server with the feature flag `js_ack_fc_v2`).
"""

ACKS = "$JS.ACK."
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


def ack_subjects(stream: str, consumer: str, sequence: int) -> tuple[str, str]:
    """Where the answers about one event of a stream can be heard: each form's."""
    whose = f"{stream}.{consumer}.*.{sequence}"
    return f"{ACKS}{whose}.*.*.*", f"{ACKS}*.*.{whose}.>"


def _stream_at(tokens: list[str]) -> int:
    return 4 if len(tokens) >= _SHORTEST_WITH_DOMAIN else 2
