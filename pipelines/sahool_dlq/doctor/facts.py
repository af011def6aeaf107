"""An account as the server reports it: streams, consumers, limits. No judgement here."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any

from sahool_dlq.deadletter.subjects import covers, overlaps, subject_token
from sahool_dlq.jetstream.stream_names import StreamNames
from sahool_dlq.jetstream.streams import GIVEN_UP

_EXACT_FIGURES = (2, 14)
"""Older servers still count redelivered events that a stream has removed."""


@dataclass(frozen=True, slots=True)
class Stream:
    """A stream, as STREAM.INFO has it."""

    info: Mapping[str, Any]
    counts: Mapping[str, int] = field(default_factory=dict)  # messages by subject, where looked up

    @property
    def name(self) -> str:
        """Its name."""
        return str(self.config["name"])

    @property
    def config(self) -> Mapping[str, Any]:
        """Its configuration."""
        return self.info["config"]  # type: ignore[no-any-return]  # parsed JSON

    @property
    def state(self) -> Mapping[str, Any]:
        """Its state."""
        return self.info["state"]  # type: ignore[no-any-return]  # parsed JSON

    @property
    def subjects(self) -> tuple[str, ...]:
        """The subjects that it captures itself."""
        return tuple(self.config.get("subjects") or ())

    @property
    def is_fed(self) -> bool:
        """Whether it gets messages of other streams, or stores them under another subject."""
        return any(self.config.get(key) for key in ("mirror", "sources", "subject_transform"))

    @property
    def retention(self) -> str:
        """`limits`, `interest` or `workqueue`."""
        return str(self.config.get("retention", "limits"))

    @property
    def is_queue(self) -> bool:
        """Whether an acknowledgement removes a message."""
        return self.retention != "limits"

    @property
    def max_age_seconds(self) -> float | None:
        """The maximum age of messages; None: no limit."""
        return seconds(self.config.get("max_age"))

    def limit(self, name: str) -> int | None:
        """A limit such as `max_msgs`; None if there is none."""
        value = int(self.config.get(name) or 0)
        return value if value > 0 else None

    @property
    def used(self) -> float:
        """The used share of its size, 0 to 1; 0 without a limit."""
        shares = [
            self.state.get(what, 0) / limit
            for what, name in (("messages", "max_msgs"), ("bytes", "max_bytes"))
            if (limit := self.limit(name))
        ]
        return max(shares, default=0.0)


@dataclass(frozen=True, slots=True)
class Consumer:
    """A consumer, as CONSUMER.INFO has it."""

    stream: Stream
    info: Mapping[str, Any]

    @property
    def name(self) -> str:
        """Its name."""
        return str(self.info["name"])

    @property
    def address(self) -> str:
        """`<stream>/<consumer>`."""
        return f"{self.stream.name}/{self.name}"

    @property
    def config(self) -> Mapping[str, Any]:
        """Its configuration."""
        return self.info["config"]  # type: ignore[no-any-return]  # parsed JSON

    @property
    def is_durable(self) -> bool:
        """False for ephemeral ones."""
        return bool(self.config.get("durable_name"))

    @property
    def ack_policy(self) -> str:
        """`explicit`, `all` or `none`."""
        return str(self.config.get("ack_policy", "none"))

    @property
    def is_answered(self) -> bool:
        """Whether events wait for an acknowledgement, and are delivered again without one."""
        return self.ack_policy != "none"

    @property
    def max_deliver(self) -> int | None:
        """The number of deliveries after which an event is given up; None: never."""
        value = int(self.config.get("max_deliver") or 0)
        return value if value > 0 else None

    @property
    def waits(self) -> tuple[float, ...]:
        """The time for an acknowledgement, delivery by delivery, in seconds; the last value is
        repeated.
        """
        backoff = tuple(each / 1e9 for each in self.config.get("backoff") or ())
        return backoff or (seconds(self.config.get("ack_wait")) or 30.0,)

    @property
    def retry_seconds(self) -> float | None:
        """From the first delivery to giving up, without acknowledgements; None: never."""
        if self.max_deliver is None:
            return None
        waits = self.waits[: self.max_deliver]
        return sum(waits) + (self.max_deliver - len(waits)) * waits[-1]

    @property
    def filters(self) -> tuple[str, ...]:
        """Its filter subjects."""
        several = self.config.get("filter_subjects")
        return tuple(several or (self.config.get("filter_subject") or ">",))

    @property
    def takes_all(self) -> bool:
        """Whether it gets all messages of its stream."""
        return ">" in self.filters or all(
            any(covers(each, subject) for each in self.filters) for subject in self._sure_subjects
        )

    @property
    def _sure_subjects(self) -> tuple[str, ...]:
        return self.stream.subjects if self.stream.subjects and not self.stream.is_fed else (">",)

    def figure(self, name: str) -> int:
        """A figure such as `num_pending`; 0 if the server omits it."""
        return int(self.info.get(name) or 0)

    @property
    def delivered(self) -> int:
        """The position in its stream up to which it was delivered."""
        return int((self.info.get("delivered") or {}).get("stream_seq") or 0)

    @property
    def deliveries(self) -> int:
        """The number of deliveries, including repeats."""
        return int((self.info.get("delivered") or {}).get("consumer_seq") or 0)

    @property
    def repeats(self) -> int:
        """The number of deliveries that were certainly repeats."""
        return max(0, self.deliveries - self.delivered)

    @property
    def idle_seconds(self) -> float:
        """Since the last delivery, or since its creation, by the server's clock."""
        last = (self.info.get("delivered") or {}).get("last_active") or self.info.get("created")
        now = self.info.get("ts")
        if not last or not now:
            return 0.0
        return (datetime.fromisoformat(now) - datetime.fromisoformat(last)).total_seconds()


@dataclass(slots=True)
class Heard:
    """Acknowledgements of a consumer's clients while we listened."""

    bare_naks: int = 0
    most_deliveries: int = 0  # of one event that was given back


@dataclass(frozen=True, slots=True)
class Account:
    """All known facts about an account."""

    streams: tuple[Stream, ...] = ()
    consumers: tuple[Consumer, ...] = ()
    info: Mapping[str, Any] = field(default_factory=dict)  # limits, and what is used of them
    version: tuple[int, int] = (2, 15)  # of the server
    names: StreamNames = field(default_factory=StreamNames)
    heard: Mapping[tuple[str, str], Heard] = field(default_factory=dict)
    unseen: Mapping[str, str] = field(default_factory=dict)  # requests, and why they had no answer
    clock_seconds: float = 0.0  # by which the server is certainly ahead or behind
    stalled_seconds: float = (
        900.0  # time without a delivery after which a consumer counts as stalled
    )

    def holders(self, subject: str) -> list[Stream]:
        """The streams that store all of a subject or filter."""
        return [
            each for each in self.streams if any(covers(have, subject) for have in each.subjects)
        ]

    def is_log(self, stream: Stream) -> bool:
        """Whether it stores dead letters."""
        prefix = f"{self.names.subjects.prefix}."
        return any(
            each.startswith(prefix) and overlaps(each, self.names.subjects.dead_letters)
            for each in stream.subjects
        )

    def keeps_advisories(self, stream: Stream) -> bool:
        """Whether it stores the server's advisories about given-up events."""
        return any(overlaps(each, f"{GIVEN_UP}.>") for each in stream.subjects)

    def is_hidden(self, stream: Stream) -> bool:
        """Whether the server did not show its consumers."""
        return f"CONSUMER.LIST.{stream.name}" in self.unseen

    def consumers_of(self, stream: Stream) -> list[Consumer]:
        """Those of one stream."""
        return [each for each in self.consumers if each.stream.name == stream.name]

    def heard_of(self, consumer: Consumer) -> Heard:
        """Acknowledgements of its clients; empty if none were received."""
        return self.heard.get((consumer.stream.name, consumer.name)) or Heard()

    def counts_itself(self, consumer: Consumer) -> bool:
        """Whether it is a NATSConsumer, which gives up by itself and publishes totals."""
        durable = subject_token(consumer.name)
        return any(
            overlaps(self.names.subjects.totals, subject) and subject.endswith(f".{durable}")
            for stream in self.streams
            for subject in stream.counts
        )

    def given_up(self, consumer: Consumer) -> int:
        """The number of events that it has certainly given up and that are still stored."""
        if self.version < _EXACT_FIGURES or consumer.max_deliver is None:
            return 0
        return max(0, consumer.figure("num_redelivered") - consumer.figure("num_ack_pending"))

    def told(self, consumer: Consumer) -> int:
        """The number of given-up events with a stored advisory."""
        subject = f"{GIVEN_UP}.{consumer.stream.name}.{consumer.name}"
        return max((each.counts.get(subject, 0) for each in self.holders(subject)), default=0)


def seconds(nanoseconds: int | None) -> float | None:
    """A duration of the server in seconds; None if there is none."""
    return nanoseconds / 1e9 if nanoseconds and nanoseconds > 0 else None
