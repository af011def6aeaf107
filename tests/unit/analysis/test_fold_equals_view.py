"""The drain's fold and `sql/views/cases.sql` give the same result for any log.

The fold is the drain's own (`stores.fold.Fold`), with batches of any size. The view runs in DuckDB
over the same messages.
"""

from dataclasses import dataclass, replace
from datetime import datetime, timedelta
from typing import Any

from hypothesis import example, given, settings
from hypothesis import strategies as st

from sahool_dlq.deadletter.case_events import KINDS, CaseEvent
from sahool_dlq.deadletter.cases import Case
from sahool_dlq.deadletter.claims import Claim
from sahool_dlq.deadletter.ids import consumer_address
from sahool_dlq.deadletter.record import DeadLetter
from support.folding import cases_of, fold_all
from support.lake_log import EPOCH, Log, before, failure

NAMES = st.sampled_from("abcde")
ROOTS = st.sampled_from("abc")
ATTEMPTS = st.sampled_from([1, 1, 1, 2, 2, 3, 4, 1001, 1001, 1002, 2001])
BEGAN = st.sampled_from([None, None, None, 1, 10, 25, 100])
CONSUMERS = st.sampled_from(["ndvi", "ndvi", "ndvi", "ndvi", "other", None])
DUE = st.sampled_from([None, before(days=1), before(days=-1)])
CAPS = st.sampled_from([None, 1, 2, 3, 5])
TRIGGERS = st.sampled_from(["automatic", "manual", None])


@dataclass(frozen=True)
class Message:
    """A dead letter (kind is empty) or a case event, about the failure `name`."""

    name: str
    root: str | None = None
    kind: str = ""
    attempt: int | None = None
    trigger: str | None = None
    consumer: str | None = "ndvi"
    parse_error: str | None = None
    not_before: datetime | None = None
    redrive_cap: int | None = None
    redrive_id: str | None = None
    began: int | None = None  # place in the log at whose time its first attempt was; else its own


def moment(place: int) -> datetime:
    """The time of a position in the log, as in `Log`."""
    return before(days=2) + timedelta(seconds=place)


def letter(name: str, root: str | None = None, **changes: Any) -> Message:
    return Message(name, root if root != name else None, **changes)


def id_of(message: Message) -> str | None:
    """The id of the redrive that a message names."""
    return message.redrive_id and failure(f"redrive {message.redrive_id}")


LETTERS = st.builds(letter, NAMES, consumer=CONSUMERS, began=BEGAN)
REDRIVES = st.sampled_from(["a1", "a1", "a2", "b1", "c1", "nobody's", None])
"""Redrives by their ids: of a story's root and attempt, or of none; what was restored has no id."""
FAILED_AGAIN = st.builds(
    letter, NAMES, ROOTS, attempt=ATTEMPTS, consumer=CONSUMERS, redrive_id=REDRIVES
)
OUTCOMES = st.builds(
    Message,
    NAMES,
    kind=st.sampled_from(sorted(kind for kind in KINDS if kind.startswith("redrive."))),
    attempt=ATTEMPTS,
    trigger=TRIGGERS,
    consumer=CONSUMERS,
    parse_error=st.sampled_from([None] * 9 + ["it cannot be read"]),
    not_before=DUE,
    redrive_cap=CAPS,
    redrive_id=REDRIVES,
)
DECISIONS = st.builds(
    Message,
    NAMES,
    kind=st.sampled_from(sorted(kind for kind in KINDS if kind.startswith("triage."))),
    consumer=st.none(),
)
BY_WAY_OF = st.builds(
    Message,
    ROOTS,
    kind=st.sampled_from(sorted(kind for kind in KINDS if kind.startswith("triage."))),
    attempt=ATTEMPTS,
    consumer=st.none(),
    redrive_id=REDRIVES,
)


@st.composite
def stories(draw: st.DrawFn) -> list[Message]:
    """A failure and its redrives as they happen in reality, each with its own end.

    Its consumer may be created again and fail again; then its redrives have other numbers.
    """
    root = draw(ROOTS)
    consumer = draw(CONSUMERS)
    return [
        message
        for opening in range(draw(st.sampled_from([1, 1, 2, 3])))
        for message in draw(openings(root, consumer, 1_000 * opening))
    ]


@st.composite
def openings(draw: st.DrawFn, root: str, consumer: str | None, attempts: int) -> list[Message]:
    """A failure, its redrives, and maybe a decision on it."""
    messages = [letter(root, consumer=consumer)]
    for attempt in range(attempts + 1, attempts + draw(st.integers(1, 4)) + 1):
        if draw(st.booleans()):
            asked = Message(root, kind="redrive.requested", attempt=attempt)
            messages.append(replace(asked, not_before=draw(DUE)))
        addressee = draw(st.sampled_from([consumer, consumer, "other"]))  # it may be handed over
        known_as = f"{root}{attempt}"
        out = Message(root, kind="redrive.published", attempt=attempt, consumer=addressee)
        out = replace(out, redrive_id=known_as)
        messages.append(replace(out, trigger=draw(TRIGGERS), redrive_cap=draw(CAPS)))
        end = draw(st.sampled_from(["failed_again", *sorted(KINDS)]))
        if end == "failed_again":
            again = letter(draw(st.sampled_from("de")), root, attempt=attempt, consumer=addressee)
            messages.append(replace(again, redrive_id=known_as))
        elif end.startswith("redrive."):
            messages.append(replace(out, kind=end))
        else:
            messages.append(replace(out, kind=end, attempt=None, redrive_id=None))
        if draw(st.sampled_from([False, False, False, True])):  # the log has sources
            messages[-2:] = reversed(messages[-2:])
    decision = draw(st.sampled_from([None, "triage.resolved", "triage.discarded"]))
    return [*messages, Message(root, kind=decision)] if decision else messages


@st.composite
def logs(draw: st.DrawFn) -> list[Message]:
    """Several stories interleaved, with other messages between them, some stored twice."""
    log: list[Message] = []
    for story in draw(st.lists(stories(), max_size=3)):
        places = draw(st.lists(st.integers(0, 40), min_size=len(story), max_size=len(story)))
        for place, message in zip(sorted(places), story, strict=True):
            log.insert(place, message)
    noise = draw(
        st.lists(st.one_of(LETTERS, FAILED_AGAIN, OUTCOMES, DECISIONS, BY_WAY_OF), max_size=12)
    )
    for message in noise:
        log.insert(draw(st.integers(0, len(log))), message)
    for place in draw(st.lists(st.integers(0, 60), max_size=3)):
        if place < len(log):
            log.insert(draw(st.integers(place, len(log))), log[place])
    # A failure's id is made from its consumer, among others.
    consumers: dict[str, str | None] = {}
    return [
        m if m.kind else replace(m, consumer=consumers.setdefault(m.name, m.consumer)) for m in log
    ]


def decoded(log: list[Message]) -> list[DeadLetter | CaseEvent]:
    """The messages as the drain decodes them, at the positions of `Log`."""
    messages: list[DeadLetter | CaseEvent] = []
    for sequence, message in enumerate(log, 1):
        at = moment(sequence)
        place = {"epoch": EPOCH, "dlq_sequence": sequence, "published_at": at, "subject": ""}
        if message.kind:
            messages.append(
                CaseEvent(
                    **place,
                    kind=message.kind,
                    failure_id=failure(message.name),
                    attempt=message.attempt,
                    trigger=message.trigger,
                    consumer=consumer_address("SAHOOL_EVENTS", message.consumer),
                    at=at,
                    body="{}",
                    parse_error=message.parse_error,
                    not_before=message.not_before,
                    redrive_cap=message.redrive_cap,
                    redrive_id=id_of(message),
                )
            )
        else:
            messages.append(
                DeadLetter(
                    **place,
                    size_bytes=0,
                    failure_id=failure(message.name),
                    root_failure_id=failure(message.root) if message.root else None,
                    redrive_attempt=message.attempt,
                    redrive_id=id_of(message),
                    original_stream="SAHOOL_EVENTS",
                    consumer_name=message.consumer,
                    first_attempt_at=moment(message.began or sequence),
                    last_attempt_at=at,
                    dlq_timestamp=at,
                    original_data="{}",
                    envelope="canonical",
                )
            )
    return messages


def folded(log: list[Message], batch_size: int) -> dict[str, Case]:
    """The rows of `failed_events` after a drain in batches of this size."""
    rows: dict[str, Case] = {}
    claims: list[Claim] = []
    messages = decoded(log)
    for start in range(0, len(messages), batch_size):
        fold = fold_all(messages[start : start + batch_size], rows, claims)
        claims = [claim for claim in claims if claim not in fold.founded] + fold.claims
        rows |= cases_of(fold)
        rows |= {case.failure_id: case for case in fold.changed()}
    return rows


def by_fold(log: list[Message], batch_size: int) -> dict[str, tuple[Any, ...]]:
    return {
        key: (
            case.status,
            case.redrive_count,
            case.redrive_not_before,
            case.resolved_at or case.discarded_at,
            case.opening,
            case.first_attempt_at,
            case.last_closed_at,
            case.last_closed_as,
            "discarded" if case.status == "discarded" else case.resolution_cause or "open",
        )
        for key, case in folded(log, batch_size).items()
        if case.status != "superseded"
    }


def by_view(log: list[Message], lake: Log) -> dict[str, tuple[Any, ...]]:
    lake.clear()
    for message in log:
        if message.kind:
            lake.event(
                message.kind,
                message.name,
                attempt=message.attempt,
                trigger=message.trigger,
                consumer=consumer_address("SAHOOL_EVENTS", message.consumer),
                parse_error=message.parse_error,
                not_before=message.not_before,
                redrive_cap=message.redrive_cap,
                redrive_id=id_of(message),
            )
        else:
            lake.dead_letter(
                message.name,
                root=message.root,
                redrive_attempt=message.attempt,
                redrive_id=id_of(message),
                consumer_name=message.consumer,
                first_attempt_at=moment(message.began or lake.sequence + 1),
            )
    rows = lake.rows(
        "SELECT failure_id, status, redrive_count, not_before, closed_at, opening,"
        " first_attempt_at, LAG(closed_at) OVER case_ AS last_closed_at,"
        " LAG(cause) OVER case_ AS last_closed_as, cause FROM cases"
        " WINDOW case_ AS (PARTITION BY failure_id ORDER BY opening) ORDER BY opening"
    )
    latest = {row["failure_id"]: row["opening"] for row in rows}
    assert len(rows) == sum(latest.values())
    for row in rows:
        assert (row["status"] == "reopened") == (row["opening"] < latest[row["failure_id"]])
    return {row.pop("failure_id"): tuple(row.values()) for row in rows}


def told(kind: str, attempt: int | None = None) -> Message:
    return Message("a", kind=kind, attempt=attempt)


ONCE_DIFFERENT = {
    "parked while it was out": [
        letter("a"),
        told("redrive.published", 1),
        told("triage.parked"),
        told("redrive.outcome_unknown", 1),
    ],
    "parked and unparked while it was out": [
        letter("a"),
        told("redrive.published", 1),
        told("triage.parked"),
        told("triage.unparked"),
        told("redrive.outcome_unknown", 1),
    ],
    "an older redrive fails while a newer is out": [
        letter("a"),
        told("redrive.published", 1),
        told("redrive.outcome_unknown", 1),
        told("redrive.published", 2),
        letter("d", "a", attempt=1),
    ],
    "refused, unparked, and told again": [
        letter("a"),
        told("redrive.refused", 1),
        told("triage.unparked"),
        told("redrive.refused", 1),
    ],
    "resolved, failed anew, and an old redrive's success told late": [
        letter("a"),
        told("redrive.published", 1),
        told("triage.resolved"),
        letter("a"),
        told("redrive.succeeded", 1),
        told("redrive.published", 1001),
        told("redrive.outcome_unknown", 1001),
    ],
    "a redrive of an earlier opening fails again after the next began": [
        letter("a"),
        told("redrive.published", 1),
        told("triage.discarded"),
        letter("a"),
        letter("d", "a", attempt=1),
        told("redrive.requested", 1),
    ],
    "its root was resolved when it failed, and is open again": [
        letter("a"),
        told("redrive.succeeded", 1),
        letter("d", "a", attempt=1),
        letter("a"),
        letter("e", "a", attempt=1001),
    ],
    "handed over, and it fails again there": [
        letter("a", consumer="ndvi"),
        replace(told("redrive.published", 1), consumer="soil"),
        letter("d", "a", attempt=1, consumer="soil"),
    ],
    "handed over and back, and the first says that it succeeded": [
        letter("a", consumer="ndvi"),
        replace(told("redrive.published", 1), consumer="soil"),
        replace(told("redrive.published", 2), consumer="ndvi"),
        replace(told("redrive.succeeded", 1), consumer="soil"),
    ],
    "handed over before it failed": [
        replace(told("redrive.published", 1), consumer="soil"),
        letter("a", consumer="ndvi"),
        replace(told("redrive.succeeded", 1), consumer="soil"),
    ],
    "handed over, resolved by the new one, and failed anew": [
        letter("a", consumer="ndvi"),
        replace(told("redrive.published", 1), consumer="soil"),
        replace(told("redrive.succeeded", 1), consumer="soil"),
        letter("a", consumer="ndvi"),
        letter("d", "a", attempt=1001, consumer="soil"),
    ],
    "its root is superseded": [
        letter("a"),
        letter("b", "a", attempt=1),
        letter("c", "b", attempt=1),
    ],
}


@given(log=logs(), batch_size=st.sampled_from([1, 4, 1_000]))
@example(log=ONCE_DIFFERENT["parked while it was out"], batch_size=4)
@example(log=ONCE_DIFFERENT["parked and unparked while it was out"], batch_size=4)
@example(log=ONCE_DIFFERENT["an older redrive fails while a newer is out"], batch_size=4)
@example(log=ONCE_DIFFERENT["refused, unparked, and told again"], batch_size=4)
@example(log=ONCE_DIFFERENT["its root is superseded"], batch_size=4)
@example(log=ONCE_DIFFERENT["handed over, and it fails again there"], batch_size=1)
@example(
    log=ONCE_DIFFERENT["handed over and back, and the first says that it succeeded"], batch_size=1
)
@example(log=ONCE_DIFFERENT["handed over before it failed"], batch_size=1)
@example(log=ONCE_DIFFERENT["handed over, resolved by the new one, and failed anew"], batch_size=1)
@example(
    log=ONCE_DIFFERENT["resolved, failed anew, and an old redrive's success told late"],
    batch_size=4,
)
@example(
    log=ONCE_DIFFERENT["a redrive of an earlier opening fails again after the next began"],
    batch_size=4,
)
@example(
    log=ONCE_DIFFERENT["its root was resolved when it failed, and is open again"],
    batch_size=1,
)
@settings(max_examples=60, deadline=None)
def test_the_fold_equals_the_view(log_with_views: Log, log: list[Message], batch_size: int) -> None:
    assert by_fold(log, batch_size) == by_view(log, log_with_views)


@given(log=logs(), batch_size=st.integers(1, 10))
@settings(max_examples=60, deadline=None)
def test_where_batches_are_cut_makes_no_difference(log: list[Message], batch_size: int) -> None:
    assert folded(log, batch_size) == folded(log, 1_000)


@given(log=logs(), data=st.data())
@settings(max_examples=60, deadline=None)
def test_a_message_told_twice_in_a_row_makes_no_difference(
    log: list[Message], data: st.DataObject
) -> None:
    place = data.draw(st.integers(0, max(len(log) - 1, 0)))
    again = [*log[: place + 1], *log[place:]]
    once, twice = by_fold(log, 1_000), by_fold(again, 1_000)
    assert _without_times(once) == _without_times(twice)


def _without_times(rows: dict[str, tuple[Any, ...]]) -> dict[str, tuple[Any, ...]]:
    return {
        key: (status, count, opening, cause)
        for key, (status, count, _, _, opening, *_, cause) in rows.items()
    }


@given(log=logs(), data=st.data())
@settings(max_examples=60, deadline=None)
def test_the_same_dead_letter_published_again_at_any_time_makes_no_difference(
    log: list[Message], data: st.DataObject
) -> None:
    letters = [place for place, message in enumerate(log) if not message.kind]
    if not letters:
        return
    place = data.draw(st.sampled_from(letters))
    later = data.draw(st.integers(place + 1, len(log)))
    # its place is kept free in the log that lacks it, so that all other times are the same
    nothing = Message("f", kind="triage.alerted")
    same = replace(log[place], began=log[place].began or place + 1)
    without, again = (
        by_fold([*log[:later], extra, *log[later:]], 1_000) for extra in (nothing, same)
    )
    assert without == again


def test_the_generated_logs_reach_every_status_and_cause() -> None:
    """Otherwise the tests above could run on empty logs."""
    seen: set[tuple[str, str]] = set()
    due: set[bool] = set()
    openings: set[tuple[int, str | None]] = set()

    @given(log=logs())
    @settings(max_examples=400, deadline=None, derandomize=True, database=None)
    def collect(log: list[Message]) -> None:
        rows = folded(log, 1_000).values()
        seen.update((case.status, case.resolution_cause or "") for case in rows)
        due.update(case.redrive_not_before is not None for case in rows)
        openings.update((case.opening, case.last_closed_as) for case in rows)

    collect()
    assert {status for status, _ in seen} == {
        *("pending", "retried", "parked", "resolved", "discarded", "superseded")
    }
    causes = {cause for status, cause in seen if status == "resolved"}
    assert causes == {"automatic_redrive", "manual_redrive", "manual"}
    assert due == {True, False}
    assert {opening for opening, _ in openings} >= {1, 2, 3}
    assert {cause for _, cause in openings} >= {None, "discarded", "manual", "automatic_redrive"}
