"""What happened to a platform, and what of it is wrong: a checker of histories, without any server.

A `History` is written by those who were there (each call of each handler, what a person did) and
read from where things stand at the end (streams, outbox, cases). `faults` looks at nothing else.
Times are seconds since 1970, all of one machine.
"""

import json
from collections import Counter, defaultdict
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any, NamedTuple

from sahool_dlq.deadletter.headers import ADDRESSEE, MARKS, TOKEN
from sahool_dlq.deadletter.subjects import matches

FAILED = "failed"  # a dead letter, among the kinds of case events
NOT_OUT = ("planned", "cancelled", "refused", "unroutable", "expired", "too_late")
"""States of the outbox that say that nothing was published."""
CLOSED_BATCHES = ("done", "aborted", "cancelled")
_ENDS = (
    *("redrive.outcome_unknown", "redrive.refused", "redrive.unroutable", "redrive.expired"),
    "redrive.too_late",
)


class Service(NamedTuple):
    """A consumer that took part."""

    address: str  # <stream>/<durable>
    subject: str  # its filter
    max_retries: int


class Event(NamedTuple):
    """A message of the event stream."""

    stream: str
    sequence: int
    at: float  # the server's time
    subject: str
    body: bytes
    headers: Mapping[str, str] = {}

    @property
    def redrive_id(self) -> str | None:
        """The id of a redrive that the redriver published."""
        return self.headers.get(TOKEN) or self.headers.get(MARKS[1])

    @property
    def root(self) -> str | None:
        """The failure that is redriven."""
        return self.headers.get(MARKS[0])

    @property
    def addressee(self) -> str | None:
        """The addressed consumer; None for all."""
        return self.headers.get(ADDRESSEE)


class Call(NamedTuple):
    """One call of a handler."""

    consumer: str  # its address
    sequence: int
    began: float
    ended: float
    outcome: str  # success | failure | cut off
    redrive_id: str | None = None
    root: str | None = None


class Told(NamedTuple):
    """A message of the log: a dead letter (`FAILED`), or a case event by its kind."""

    kind: str
    failure_id: str
    at: float  # the server's time
    consumer: str | None = None  # address of who failed, or answered
    redrive_id: str | None = None
    attempt: int | None = None
    root: str | None = None  # of a dead letter that a redrive came to
    sequence: int | None = None  # of a dead letter's event


class Redrive(NamedTuple):
    """A row of the outbox at the end."""

    id: str
    failure_id: str
    attempt: int
    batch_id: str
    state: str
    claimed_at: float | None = None  # when it was taken out, to be published


class Batch(NamedTuple):
    """A batch at the end."""

    state: str
    is_by_ids: bool = False  # which takes parked failures too
    patch: dict[str, Any] | None = None
    redirect_to: str | None = None


class Case(NamedTuple):
    """The state of a failure."""

    status: str
    redrive_count: int
    cause: str | None = None


class Deed(NamedTuple):
    """A decision of a person, recorded after the verb returned."""

    did: str  # parked | discarded | resolved | unparked, paused | resumed | cancelled
    about: tuple[str, ...]  # failures, or the batch
    began: float
    ended: float


@dataclass
class History:
    """Everything that happened."""

    cap: int
    services: list[Service] = field(default_factory=list)
    events: list[Event] = field(default_factory=list)
    calls: list[Call] = field(default_factory=list)
    log: list[Told] = field(default_factory=list)  # in its order
    redrives: list[Redrive] = field(default_factory=list)
    batches: dict[str, Batch] = field(default_factory=dict)
    deeds: list[Deed] = field(default_factory=list)
    stores: dict[str, dict[str, Case]] = field(default_factory=dict)  # by store, by failure

    @cached_property
    def out(self) -> dict[str, Event]:
        """The redrives that were published, by id."""
        return {event.redrive_id: event for event in self.events if event.redrive_id}

    @cached_property
    def outbox(self) -> dict[str, Redrive]:
        """The rows of the outbox, by redrive."""
        return {redrive.id: redrive for redrive in self.redrives}

    @cached_property
    def calls_of(self) -> dict[tuple[str, int], list[Call]]:
        """Calls by consumer and event."""
        found = defaultdict(list)
        for call in self.calls:
            found[call.consumer, call.sequence].append(call)
        return found

    @cached_property
    def first_letters(self) -> dict[str, Told]:
        """The dead letter that opened each case."""
        return {told.failure_id: told for told in reversed(self.log) if told.kind == FAILED}

    @property
    def cases(self) -> dict[str, Case]:
        """The cases in the first store; `_stores_differ` compares the others."""
        return next(iter(self.stores.values()), {})

    def successes(self, root: str) -> list[Call]:
        """Successes of the redrives of a failure, by addressed consumer."""
        return [
            call
            for call in self.calls
            if call.root == root and call.outcome == "success" and self._is_for(call)
        ]

    def _is_for(self, call: Call) -> bool:
        event = self.out.get(call.redrive_id or "")
        return event is not None and event.addressee in (None, call.consumer)


def faults(history: History) -> list[str]:
    """What is wrong; empty if nothing is."""
    return [f"{name_of(check)}: {fault}" for check in CHECKS for fault in check(history)]


def name_of(check: Callable[[History], Iterator[str]]) -> str:
    """The prefix of the faults that a check finds."""
    return check.__name__.strip("_").replace("_", " ")


def _published_twice(history: History) -> Iterator[str]:
    """No attempt is published twice."""
    counts = Counter(event.redrive_id for event in history.events if event.redrive_id)
    for redrive_id, count in counts.items():
        if count > 1:
            yield f"redrive {redrive_id} was published {count} times"


def _published_unrecorded(history: History) -> Iterator[str]:
    """Every published redrive was in the outbox and in the log before."""
    told_at = {each.redrive_id: each.at for each in history.log if each.kind.endswith("published")}
    for redrive_id, event in history.out.items():
        row = history.outbox.get(redrive_id)
        if row is None or row.state in NOT_OUT:
            yield f"redrive {redrive_id} was published; the outbox: {row and row.state}"
        if told_at.get(redrive_id, event.at + 1) > event.at:
            yield f"redrive {redrive_id} was published before the log was told"


def _published_otherwise(history: History) -> Iterator[str]:
    """A redrive has the original bytes, or these as a person edited them, and the right subject."""
    stored = {event.sequence: event for event in history.events}
    for redrive_id, event in history.out.items():
        letter = history.first_letters.get(event.root or "")
        origin = stored.get(letter.sequence or 0) if letter else None
        row = history.outbox.get(redrive_id)
        batch = history.batches.get(row.batch_id) if row else None
        if letter is None or origin is None or batch is None:
            yield f"redrive {redrive_id} has no origin"
            continue
        if batch.patch is None:
            is_right = event.body == origin.body
        else:
            is_right = json.loads(event.body) == _merged(json.loads(origin.body), batch.patch)
        if not is_right:
            yield f"redrive {redrive_id} has the body {event.body!r} instead of {origin.body!r}"
        if event.subject != (batch.redirect_to or origin.subject):
            yield f"redrive {redrive_id} went to {event.subject}"
        if batch.redirect_to is None and event.addressee != letter.consumer:
            yield f"redrive {redrive_id} is for {event.addressee}, not {letter.consumer}"


def _reached_another(history: History) -> Iterator[str]:
    """Only the addressed consumer runs its handler."""
    for call in history.calls:
        event = history.out.get(call.redrive_id or "")
        if event is not None and event.addressee not in (None, call.consumer):
            yield f"{call.consumer} handled redrive {call.redrive_id}, for {event.addressee}"


def _success_invented(history: History) -> Iterator[str]:
    """Every recorded success was a success of the addressed consumer, after the failure."""
    handled = {call.redrive_id: call for call in history.calls if call.outcome == "success"}
    for told in history.log:
        if told.kind == "redrive.succeeded" and told.redrive_id not in handled:
            yield f"redrive {told.redrive_id} is told as succeeded"
    for failure_id, case in history.cases.items():
        if case.status != "resolved" or case.cause == "manual":
            continue
        failed_at = _failed_at(history, failure_id)
        if not any(call.began >= failed_at for call in history.successes(failure_id)):
            yield f"failure {failure_id} is resolved by {case.cause}"


def _success_lost(history: History) -> Iterator[str]:
    """A success closes its failure, or its outcome is recorded as unknown."""
    for failure_id, case in history.cases.items():
        if case.status in ("resolved", "discarded"):
            continue
        for call in history.successes(failure_id):
            row = history.outbox.get(call.redrive_id or "")
            if row is None or row.state != "outcome_unknown":
                yield (
                    f"failure {failure_id} is {case.status} though {call.consumer} handled redrive"
                    f" {call.redrive_id}; the outbox: {row and row.state}"
                )


def _cap_passed(history: History) -> Iterator[str]:
    """Above the cap, a redrive needs a person: who unparked the failure, or named it."""
    allowed = Counter(told.failure_id for told in history.log if told.kind == "triage.unparked")
    beyond = Counter(
        row.failure_id
        for row in history.redrives
        if row.id in history.out
        and row.attempt > history.cap
        and not history.batches[row.batch_id].is_by_ids
    )
    for failure_id, count in beyond.items():
        if count > allowed[failure_id]:
            yield f"failure {failure_id} had {count} redrives beyond {history.cap}"
    for failure_id, case in history.cases.items():
        is_open = case.status in ("pending", "retried")
        if is_open and case.redrive_count >= history.cap and not allowed[failure_id]:
            yield f"failure {failure_id} is {case.status} after {case.redrive_count} redrives"


def _two_out_at_once(history: History) -> Iterator[str]:
    """The next attempt is published after the log has the outcome of the one before."""
    ended: dict[tuple[str, int], float] = {}
    for told in history.log:
        about = (told.root if told.kind == FAILED else told.failure_id) or ""
        root = history.first_letters.get(about)
        is_again = told.kind == FAILED and root is not None and told.consumer == root.consumer
        if told.attempt and (is_again or told.kind in _ENDS):
            ended.setdefault((about, told.attempt), told.at)
    for row in history.redrives:
        event = history.out.get(row.id)
        before = ended.get((row.failure_id, row.attempt - 1))
        if event and row.attempt > 1 and (before is None or before > event.at):
            yield f"attempt {row.attempt} of {row.failure_id} went out before the last had ended"


def _failure_lost(history: History) -> Iterator[str]:
    """Each event was handled, or has a dead letter of each consumer that received it."""
    letters = {(told.consumer, told.sequence) for told in history.log if told.kind == FAILED}
    for service in history.services:
        for event in history.events:
            place = service.address, event.sequence
            is_for = matches(service.subject, event.subject)
            if not is_for or event.addressee not in (None, service.address) or place in letters:
                continue
            if not any(call.outcome == "success" for call in history.calls_of.get(place, ())):
                calls = len(history.calls_of.get(place, ()))
                yield f"{service.address} called {calls} times for {event.sequence}: no dead letter"


def _failure_invented(history: History) -> Iterator[str]:
    """A dead letter needs as many failed calls as its consumer's retries."""
    retries = {service.address: service.max_retries for service in history.services}
    for told in history.log:
        if told.kind != FAILED:
            continue
        calls = history.calls_of.get((told.consumer or "", told.sequence or 0), ())
        count = sum(call.outcome == "failure" for call in calls)
        if count <= retries.get(told.consumer or "", 0):
            yield f"{told.consumer} gave {told.sequence} up after {count} failed calls"


def _decision_ignored(history: History) -> Iterator[str]:
    """After a decision, no redrive of its failures or of a stopped batch is sent."""
    for index, deed in enumerate(history.deeds):
        if deed.did not in ("parked", "discarded", "resolved", "paused", "cancelled"):
            continue
        undone = ("unparked",) if deed.did == "parked" else ("resumed",)
        for about in deed.about:
            ends = [d.began for d in history.deeds[index:] if d.did in undone and about in d.about]
            if deed.did == "parked":
                ends += _taken_out_anyway(history, about, deed)
            until = min(ends, default=float("inf"))
            for row in history.redrives:
                is_named = deed.did == "parked" and history.batches[row.batch_id].is_by_ids
                if about not in (row.failure_id, row.batch_id) or is_named:
                    continue
                if row.claimed_at is not None and deed.ended < row.claimed_at < until:
                    yield f"redrive {row.id} was taken out after {about} was {deed.did}"


def _taken_out_anyway(history: History, failure_id: str, deed: Deed) -> Iterator[float]:
    """When a parked failure was redriven: by its id, or by a batch that had begun before the log
    had the decision.

    If it fails again, the failure is pending once more.
    """
    told_at = {each.redrive_id: each.at for each in history.log if each.kind.endswith("published")}
    for row in history.redrives:
        if row.failure_id != failure_id or row.claimed_at is None:
            continue
        is_named = history.batches[row.batch_id].is_by_ids
        is_after = told_at.get(row.id, 0.0) > deed.began
        if is_after and (is_named or row.claimed_at <= deed.ended):
            yield row.claimed_at


def _left_over(history: History) -> Iterator[str]:
    """At the end no published redrive lacks an outcome, and ended batches have none planned."""
    for failure_id, case in history.cases.items():
        if case.status == "retried":
            yield f"failure {failure_id} is retried"
    for row in history.redrives:
        state = history.batches[row.batch_id].state
        if row.state == "published" or (row.state == "planned" and state in CLOSED_BATCHES):
            yield f"redrive {row.id} is {row.state} in a batch that is {state}"


def _stores_differ(history: History) -> Iterator[str]:
    """Lake, PostgreSQL and the fold of the stream have the same state of each failure."""
    first, *others = history.stores
    for other in others:
        left, right = history.stores[first], history.stores[other]
        for failure_id in sorted(left.keys() | right.keys()):
            if left.get(failure_id) != right.get(failure_id):
                yield (
                    f"failure {failure_id} is {left.get(failure_id)} in {first},"
                    f" {right.get(failure_id)} in {other}"
                )


CHECKS = (
    _published_twice,
    _published_unrecorded,
    _published_otherwise,
    _reached_another,
    _success_invented,
    _success_lost,
    _cap_passed,
    _two_out_at_once,
    _failure_lost,
    _failure_invented,
    _decision_ignored,
    _left_over,
    _stores_differ,
)


def _failed_at(history: History, failure_id: str) -> float:
    """The time of the failed call whose dead letter opened the case."""
    letter = history.first_letters.get(failure_id)
    if letter is None:
        return float("inf")
    calls = history.calls_of.get((letter.consumer or "", letter.sequence or 0), ())
    return max((c.ended for c in calls if c.outcome == "failure"), default=letter.at)


def _merged(value: Any, patch: Any) -> Any:
    """Apply a JSON merge patch exactly as RFC 7396 says."""
    if not isinstance(patch, dict):
        return patch
    merged = dict(value) if isinstance(value, dict) else {}
    for key, part in patch.items():
        if part is None:
            merged.pop(key, None)
        else:
            merged[key] = _merged(merged.get(key), part)
    return merged
