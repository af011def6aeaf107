"""The server's message when a consumer gives an event up, and its dead letter."""

from collections.abc import Mapping
from datetime import UTC, datetime
from fnmatch import fnmatchcase
from types import MappingProxyType
from typing import Annotated, Any, Final, Literal, get_args

import msgspec
from nats.js.api import ConsumerInfo

from sahool_dlq.deadletter.headers import Headers, value_of
from sahool_dlq.deadletter.record import BRIDGED_REASONS, ErrorKey
from sahool_dlq.deadletter.sanitize import clean_text
from sahool_dlq.events.failure import event_fields, parse_body
from sahool_dlq.jetstream.api import check_domain
from sahool_dlq.jetstream.consumers import is_name
from sahool_dlq.jetstream.pull import Delivery
from sahool_dlq.jetstream.stored import StoredMessage
from sahool_dlq.jetstream.streams import REMOVED_REASONS

MAX_DELIVERIES, TERMINATED, IMPORTED = BRIDGED_REASONS

_MAX_DELIVER: Final = "io.nats.jetstream.advisory.v1.max_deliver"
_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)


class Advisory(msgspec.Struct, frozen=True):
    """The server's report that one consumer gave up one event."""

    type: Literal[
        "io.nats.jetstream.advisory.v1.max_deliver", "io.nats.jetstream.advisory.v1.terminated"
    ]
    stream: Annotated[str, msgspec.Meta(min_length=1)]
    consumer: Annotated[str, msgspec.Meta(min_length=1)]
    stream_seq: Annotated[int, msgspec.Meta(gt=0)]
    deliveries: Annotated[int, msgspec.Meta(gt=0)]  # 1 for an event that was terminated at once
    timestamp: Annotated[datetime, msgspec.Meta(tz=True)]
    not_before: datetime | None = None  # if unknown: when the event was stored
    domain: str = ""  # where the stream is; empty: the server has none
    reason: str = ""  # the consumer's +TERM reason, or another explanation

    @classmethod
    def unsaid(
        cls, info: ConsumerInfo, sequence: int, stored_at: datetime, now: datetime
    ) -> "Advisory":
        """The advisory that the server did not send, or sent without a listener."""
        return cls(
            type=_MAX_DELIVER,
            stream=info.stream_name,
            consumer=info.name,
            stream_seq=sequence,
            deliveries=info.config.max_deliver or 1,
            timestamp=now,
            not_before=stored_at,
            # Text after DETAIL: is not part of the fingerprint.
            reason="DETAIL: no advisory reported it; the counters of the consumer prove it.",
        )

    @property
    def kind(self) -> str:
        """Its `dlq_reason`, one of the first two BRIDGED_REASONS."""
        return MAX_DELIVERIES if self.type == _MAX_DELIVER else TERMINATED

    def is_removal(self, event: StoredMessage | None) -> bool:
        """Whether the event left its stream while the consumer had it, without a +TERM.

        If a consumer sends the server's own text as a reason, its stream still has the event,
        except on a work queue.
        """
        return event is None and self.kind == TERMINATED and self.reason in REMOVED_REASONS


def nanoseconds(time: datetime) -> int:
    """Since 1970, to the microsecond."""
    since = time - _EPOCH
    return ((since.days * 86_400 + since.seconds) * 10**6 + since.microseconds) * 1000


def read_advisory(data: bytes, domain: str = "") -> Advisory:
    """The advisory in a message.

    Raises ValueError if it is not one, of another kind, or about another JetStream domain.
    """
    try:
        advisory = msgspec.json.decode(data, type=Advisory)
    except (msgspec.MsgspecError, RecursionError) as error:
        raise ValueError(str(error)) from error
    if not (is_name(advisory.stream) and is_name(advisory.consumer)):  # not the server's
        raise ValueError("not valid names of a stream and a consumer")
    check_domain(advisory.domain, domain)
    return advisory


def service_of(stream: str, consumer: str, services: Mapping[str, str]) -> str:
    """The service of a consumer: the first matching pattern, else the consumer's own name."""
    names = (consumer, f"{stream}/{consumer}")
    for pattern, service in services.items():
        if any(fnmatchcase(name, pattern) for name in names):
            return service
    return consumer


def dead_letter_of(
    advisory: Advisory,
    event: StoredMessage | None,
    service: str,
    error_headers: Mapping[ErrorKey, str] = MappingProxyType({}),
    stream_created: datetime | None = None,
) -> tuple[dict[str, Any], bytes, bool]:
    """Fields, body and whether it is JSON, for `publish_dead_letter`.

    `error_headers` names the headers of the event that may describe the error, by the keys that a
    JSON reason may have.

    If the stream no longer has the event, the stream's creation time is used instead of the event's
    time: so all reports about it give one id. If that is unknown too, the advisory's own time is
    used.
    """
    said = _said(advisory, _from_headers(event.headers if event else {}, error_headers))
    is_json, body = parse_body(event.data) if event else (True, None)
    delivery = Delivery(
        advisory.stream,
        advisory.consumer,
        advisory.deliveries,
        advisory.stream_seq,
        event.timestamp_ns if event else nanoseconds(stream_created or advisory.timestamp),
        0,
    )
    message = said["error_message"]
    if event is None:
        message += f" The event itself is lost: {advisory.stream} no longer has it."
        if advisory.kind == MAX_DELIVERIES:  # text after DETAIL: is not part of the fingerprint
            message += " DETAIL: it was acknowledged too late, or removed."
    at, retries = advisory.timestamp.isoformat(), advisory.deliveries - 1
    # It must be the same each time, or the server would treat it as another failure.
    began_at = (advisory.not_before or advisory.timestamp).isoformat()
    fields = {
        **event_fields(
            subject=event.subject if event else "unknown",
            headers=event.headers if event else {},
            body=body,
            delivery=delivery,
        ),
        "error_type": said["error_type"],
        "error_message": message,
        "stack_trace": said.get("stack_trace"),
        "retry_count": retries,
        "max_retries": retries,  # unknown after a +TERM
        "first_attempt_at": began_at,
        "last_attempt_at": at,
        "dlq_timestamp": at,
        "dlq_reason": advisory.kind,
        "consumer_service": said.get("service", service),
    }
    return fields, event.data if event else b"null", is_json


def _said(advisory: Advisory, on_event: dict[str, str]) -> dict[str, str]:
    """The cause: from the event's headers, overridden by the consumer's +TERM.

    The +TERM contains a text, or a JSON object with these keys.
    """
    if advisory.kind == MAX_DELIVERIES:
        gave_up = f"{advisory.consumer} gave up after {advisory.deliveries} deliveries."
        return {
            "error_type": "MaxDeliveriesExceeded",
            "error_message": f"{gave_up} {advisory.reason}".rstrip(),
        } | on_event
    said = {
        "error_type": "MessageTerminated",
        "error_message": f"{advisory.consumer} terminated it without a reason.",
    } | on_event
    _, value = parse_body(advisory.reason.encode())
    if isinstance(value, dict):
        return said | _texts({key: value.get(key) for key in get_args(ErrorKey)})
    return said | _texts({"error_message": advisory.reason})


def _from_headers(headers: Headers, names: Mapping[ErrorKey, str]) -> dict[str, str]:
    return _texts({key: value_of(headers, name) for key, name in names.items()})


def _texts(values: Mapping[ErrorKey, object]) -> dict[str, str]:
    """The texts among these, cleaned, and not empty."""
    texts = {key: clean_text(value) for key, value in values.items() if isinstance(value, str)}
    return {key: text for key, text in texts.items() if text.strip()}
