"""An account as the server tells of it: streams, consumers, limits. Nothing is judged here."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any

from sahool_dlq.deadletter.subjects import covers, overlaps, subject_token
from sahool_dlq.jetstream.stream_names import StreamNames
from sahool_dlq.jetstream.streams import GIVEN_UP

_EXACT_FIGURES = (2, 14)
"""Older servers go on counting redelivered events that a stream has removed."""


@dataclass(frozen=True, slots=True)
class Stream:
    """A stream, as STREAM.INFO has it."""

    info: Mapping[str, Any]
    counts: Mapping[str, int] = field(default_factory=dict)  # messages by subject, where looked up

    @property
    def name(self) -> str:
        """What it is called."""
        return str(self.config["name"])

    @property
    def config(self) -> Mapping[str, Any]:
        """What was set."""
        return self.info["config"]  # type: ignore[no-any-return]

    @property
    def state(self) -> Mapping[str, Any]:
        """What it holds."""
        return self.info["state"]  # type: ignore[no-any-return]

    @property
    def subjects(self) -> tuple[str, ...]:
        """What it captures itself."""
        return tuple(self.config.get("subjects") or ())

    @property
    def is_fed(self) -> bool:
        """Whether it gets messages of others, or stores them under another subject."""
        return any(self.config.get(key) for key in ("mirror", "sources", "subject_transform"))

    @property
    def retention(self) -> str:
        """`limits`, `interest` or `workqueue`."""
        return str(self.config.get("retention", "limits"))

    @property
    def is_queue(self) -> bool:
        """Whether an answer of a consumer removes a message."""
        return self.retention != "limits"

    @property
    def max_age_seconds(self) -> float | None:
        """After which a message goes; None: never."""
        return seconds(self.config.get("max_age"))

    def limit(self, name: str) -> int | None:
        """A limit such as `max_msgs`; None where there is none."""
        value = int(self.config.get(name) or 0)
        return value if value > 0 else None

    @property
    def used(self) -> float:
        """The share of its size that is used, 0 to 1; 0 where nothing limits it."""
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
        """What it is called."""
        return str(self.info["name"])

    @property
    def address(self) -> str:
        """`<stream>/<consumer>`."""
        return f"{self.stream.name}/{self.name}"

    @property
    def config(self) -> Mapping[str, Any]:
        """What was set."""
        return self.info["config"]  # type: ignore[no-any-return]

    @property
    def is_durable(self) -> bool:
        """False of those that a client makes for as long as it runs."""
        return bool(self.config.get("durable_name"))

    @property
    def ack_policy(self) -> str:
        """`explicit`, `all` or `none`."""
        return str(self.config.get("ack_policy", "none"))

    @property
    def is_answered(self) -> bool:
        """Whether an event waits for an answer, and comes again without one."""
        return self.ack_policy != "none"

    @property
    def max_deliver(self) -> int | None:
        """After how many deliveries an event is given up; None: never."""
        value = int(self.config.get("max_deliver") or 0)
        return value if value > 0 else None

    @property
    def waits(self) -> tuple[float, ...]:
        """How long an answer may take, delivery by delivery; the last counts on. In seconds."""
        backoff = tuple(each / 1e9 for each in self.config.get("backoff") or ())
        return backoff or (seconds(self.config.get("ack_wait")) or 30.0,)

    @property
    def retry_seconds(self) -> float | None:
        """From the first delivery to giving up, where nobody answers; None: never."""
        if self.max_deliver is None:
            return None
        waits = self.waits[: self.max_deliver]
        return sum(waits) + (self.max_deliver - len(waits)) * waits[-1]

    @property
    def filters(self) -> tuple[str, ...]:
        """The subjects that it takes."""
        several = self.config.get("filter_subjects")
        return tuple(several or (self.config.get("filter_subject") or ">",))

    @property
    def takes_all(self) -> bool:
        """Whether it takes whatever its stream holds."""
        return ">" in self.filters or all(
            any(covers(each, subject) for each in self.filters) for subject in self._sure_subjects
        )

    @property
    def _sure_subjects(self) -> tuple[str, ...]:
        return self.stream.subjects if self.stream.subjects and not self.stream.is_fed else (">",)

    def figure(self, name: str) -> int:
        """Such as `num_pending`; 0 where the server leaves it out."""
        return int(self.info.get(name) or 0)

    @property
    def delivered(self) -> int:
        """The place in its stream up to which it was delivered."""
        return int((self.info.get("delivered") or {}).get("stream_seq") or 0)

    @property
    def deliveries(self) -> int:
        """How many there were, again and again counted each time."""
        return int((self.info.get("delivered") or {}).get("consumer_seq") or 0)

    @property
    def repeats(self) -> int:
        """How many deliveries were surely not the first of their event."""
        return max(0, self.deliveries - self.delivered)

    @property
    def idle_seconds(self) -> float:
        """Since the last delivery, or since it was made, by the server's clock."""
        last = (self.info.get("delivered") or {}).get("last_active") or self.info.get("created")
        now = self.info.get("ts")
        if not last or not now:
            return 0.0
        return (datetime.fromisoformat(now) - datetime.fromisoformat(last)).total_seconds()


@dataclass(slots=True)
class Heard:
    """What a consumer's clients answered while we listened."""

    bare_naks: int = 0
    most_deliveries: int = 0  # of one event that was given back


@dataclass(frozen=True, slots=True)
class Account:
    """All that is known of an account."""

    streams: tuple[Stream, ...] = ()
    consumers: tuple[Consumer, ...] = ()
    info: Mapping[str, Any] = field(default_factory=dict)  # limits, and what is used of them
    version: tuple[int, int] = (2, 15)  # of the server
    names: StreamNames = field(default_factory=StreamNames)
    heard: Mapping[tuple[str, str], Heard] = field(default_factory=dict)
    unseen: Mapping[str, str] = field(default_factory=dict)  # requests, and why they had no answer
    clock_seconds: float = 0.0  # by which the server is surely ahead of us, or behind
    stalled_seconds: float = 900.0  # without a delivery, from which a consumer stands still

    def holders(self, subject: str) -> list[Stream]:
        """The streams that keep all of a subject or filter."""
        return [
            each for each in self.streams if any(covers(have, subject) for have in each.subjects)
        ]

    def is_log(self, stream: Stream) -> bool:
        """Whether dead letters come into it."""
        prefix = f"{self.names.subjects.prefix}."
        return any(
            each.startswith(prefix) and overlaps(each, self.names.subjects.dead_letters)
            for each in stream.subjects
        )

    def keeps_advisories(self, stream: Stream) -> bool:
        """Whether it keeps what the server says of events that were given up."""
        return any(overlaps(each, f"{GIVEN_UP}.>") for each in stream.subjects)

    def is_hidden(self, stream: Stream) -> bool:
        """Whether the server did not show its consumers."""
        return f"CONSUMER.LIST.{stream.name}" in self.unseen

    def consumers_of(self, stream: Stream) -> list[Consumer]:
        """Those of one stream."""
        return [each for each in self.consumers if each.stream.name == stream.name]

    def heard_of(self, consumer: Consumer) -> Heard:
        """What its clients answered; nothing where nobody was heard."""
        return self.heard.get((consumer.stream.name, consumer.name)) or Heard()

    def counts_itself(self, consumer: Consumer) -> bool:
        """Whether it is a NATSConsumer, which gives up by itself and tells its totals."""
        durable = subject_token(consumer.name)
        return any(
            overlaps(self.names.subjects.totals, subject) and subject.endswith(f".{durable}")
            for stream in self.streams
            for subject in stream.counts
        )

    def given_up(self, consumer: Consumer) -> int:
        """How many events it has surely given up that are still stored."""
        if self.version < _EXACT_FIGURES or consumer.max_deliver is None:
            return 0
        return max(0, consumer.figure("num_redelivered") - consumer.figure("num_ack_pending"))

    def told(self, consumer: Consumer) -> int:
        """Of how many events an advisory is kept that it gave them up."""
        subject = f"{GIVEN_UP}.{consumer.stream.name}.{consumer.name}"
        return max((each.counts.get(subject, 0) for each in self.holders(subject)), default=0)


def seconds(nanoseconds: int | None) -> float | None:
    """A duration of the server in seconds; None for none."""
    return nanoseconds / 1e9 if nanoseconds and nanoseconds > 0 else None
