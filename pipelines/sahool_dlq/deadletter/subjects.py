"""The subjects of the log. The prefix (`sahool`) is a setting of services and platform."""

import re
from dataclasses import dataclass

_IMPORTED = "imported"
_TOKEN = re.compile(r"[A-Za-z0-9_-]{1,64}\Z")


def subject_token(text: str) -> str:
    """`text` as one subject token: characters with a meaning in NATS become `_`.

    A message published on `t.*` matches no filter, so every text from a payload or setting is
    converted first.
    """
    if _TOKEN.match(text):
        return text
    return re.sub(r"[^A-Za-z0-9_-]", "_", text)[:64] or "unknown"


@dataclass(frozen=True, slots=True)
class Subjects:
    """All subjects that the platform itself uses, below one prefix."""

    prefix: str = "sahool"

    @property
    def dead_letters(self) -> str:
        """Filter of all dead letters."""
        return f"{self.prefix}.dlq.>"

    @property
    def log(self) -> tuple[str, str, str]:
        """Filters of all messages that the drain reads, in one stream."""
        return (self.dead_letters, f"{self.prefix}.redrive.>", f"{self.prefix}.triage.>")

    @property
    def totals(self) -> str:
        """Filter of the consumers' counters."""
        return f"{self.prefix}.totals.>"

    @property
    def attempts(self) -> str:
        """Filter of the recorded attempts of events that wait for a retry."""
        return f"{self.prefix}.attempts.>"

    @property
    def own(self) -> tuple[str, ...]:
        """Filters of all messages that the platform itself writes, which are not events."""
        return (*self.log, self.totals, self.attempts)

    @property
    def events(self) -> tuple[str, ...]:
        """The default subjects that services publish and consume."""
        return (f"{self.prefix}.analysis.>", f"{self.prefix}.actions.>")

    def events_with(self, subject: str) -> tuple[str, ...]:
        """`events`, and a filter for `subject` if it may be an event: `sahool.tasks.>`."""
        first, _, rest = subject.partition(".")
        domain, _, is_deeper = rest.partition(".")
        all_like_it = f"{first}.{domain}.>"
        if first != self.prefix or not domain or all_like_it in self.own:
            return self.events
        like = all_like_it if is_deeper else subject
        return self.events if like in self.events else (*self.events, like)

    def dead_letter(self, event_type: str, service: str | None = None) -> str:
        """The subject for a failure of this event type; with `service`, a subject of that service.

        So the server's permissions control who may write it.
        """
        of_service = f"{subject_token(service)}." if service else ""
        return f"{self.prefix}.dlq.{of_service}{subject_token(event_type)}"

    def imported(self, stream: str, event_type: str | None = None) -> str:
        """The subject of dead letters from another dead-letter stream; without an event type the
        filter of all of them.
        """
        last = subject_token(event_type) if event_type else "*"
        return f"{self.prefix}.dlq.{_IMPORTED}.{subject_token(stream)}.{last}"

    def redrive(self, outcome: str) -> str:
        """The subject of messages about a redrive (`published`, `succeeded`, …)."""
        return f"{self.prefix}.redrive.{outcome}"

    def triage(self, decision: str) -> str:
        """The subject of a person's decisions (`resolved`, `discarded`, …)."""
        return f"{self.prefix}.triage.{decision}"

    def total(self, service: str, consumer: str) -> str:
        """The subject of one consumer's counters."""
        return f"{self.prefix}.totals.{subject_token(service)}.{subject_token(consumer)}"

    def attempt(self, stream: str, consumer: str, sequence: int) -> str:
        """The subject where a consumer records the calls for one event."""
        return f"{self.prefix}.attempts.{stream}.{consumer}.{sequence}"


def event_type_of(subject: str) -> str:
    """The event type of an event: the last token of its subject."""
    return subject.rsplit(".", 1)[-1]


def writer_of(subject: str) -> str | None:
    """The service in a dead letter's subject; None if there is none."""
    writer, _, event_type = subject.partition(".dlq.")[2].partition(".")
    return writer if event_type and "." not in event_type else None


def is_import(subject: str) -> bool:
    """Whether a dead letter's subject is one of `Subjects.imported`."""
    tokens = subject.partition(".dlq.")[2].split(".")
    return len(tokens) == 3 and tokens[0] == _IMPORTED


def matches(pattern: str, subject: str) -> bool:
    """Whether a NATS subject filter matches a subject (or covers another filter's example)."""
    wanted, tokens = pattern.split("."), subject.split(".")
    for index, part in enumerate(wanted):
        if part == ">":
            return len(tokens) > index
        if index >= len(tokens) or part not in ("*", tokens[index]):
            return False
    return len(wanted) == len(tokens)


def covers(pattern: str, wanted: str) -> bool:
    """Whether a filter matches every subject that the filter `wanted` does."""
    is_open = wanted.split(".")[-1] == ">"
    return matches(pattern, wanted) and (not is_open or pattern.split(".")[-1] == ">")


def overlaps(left: str, right: str) -> bool:
    """Whether a subject exists that both filters match."""
    a, b = left.split("."), right.split(".")
    for x, y in zip(a, b, strict=False):
        if ">" in (x, y):
            return True
        if x != y and "*" not in (x, y):
            return False
    return len(a) == len(b)
