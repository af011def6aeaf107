"""The drain's sink in Postgres: rows, statuses and the checkpoint in one transaction.

Cases are folded in log order before anything is written (`deadletter.cases`), so that a new
failure is copied with its final status and an old one is updated once.
"""

import uuid
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

import polars as pl
import psycopg
from psycopg import Connection, errors
from psycopg.types.json import Jsonb

from pipelines.deadletter.case_events import CaseEvent
from pipelines.deadletter.cases import Case, apply_dead_letter, apply_event, case_of, is_answer
from pipelines.deadletter.ids import consumer_address
from pipelines.deadletter.message import LogMessage
from pipelines.deadletter.record import JSON_COLUMNS, TEXT_LIMITS, DeadLetter
from pipelines.deadletter.sanitize import clean_text
from pipelines.errors import FencedError
from pipelines.stores.failed_payloads import keep_payloads

# Columns of failed_events that come from the batch, and their PostgreSQL types.
_COPIED = {
    "failure_id": "uuid", "event_id": "varchar", "event_type": "varchar",
    "original_subject": "varchar", "source_service": "varchar", "tenant_id": "varchar",
    "field_id": "varchar", "farmer_id": "varchar", "error_message": "text",
    "error_type": "varchar", "stack_trace": "text", "retry_count": "int4",
    "max_retries": "int4", "first_attempt_at": "timestamptz", "last_attempt_at": "timestamptz",
    "original_data": "jsonb", "original_headers": "jsonb", "dlq_timestamp": "timestamptz",
    "dlq_reason": "varchar", "epoch": "text", "dlq_sequence": "int8",
    "published_at": "timestamptz", "original_stream": "varchar", "original_sequence": "int8",
    "consumer_service": "varchar", "consumer_name": "varchar", "handler": "varchar",
    "attempts": "jsonb", "group_id": "varchar", "parent_id": "varchar",
    "fingerprint_version": "int2", "fingerprint_rules": "varchar", "payload_encoding": "varchar",
    "parse_error": "text", "clamped": "text",
}  # fmt: skip
_JSON = [list(_COPIED).index(name) for name in JSON_COLUMNS]
# Columns that the fold decides.
_FOLDED = {
    "status": "varchar", "redrive_count": "int4", "redrive_trigger": "varchar",
    "resolved_at": "timestamptz", "resolution_cause": "varchar", "resolution_notes": "text",
    "discarded_at": "timestamptz", "alert_sent": "bool", "alert_sent_at": "timestamptz",
    "redrive_not_before": "timestamptz",
}  # fmt: skip
_COLUMNS = _COPIED | {"root_failure_id": "uuid", "seen_count": "int4"} | _FOLDED

# PostgreSQL's refusals of a value, whatever the sanitiser let through.
_REFUSALS = (psycopg.DataError, errors.ProgramLimitExceeded, errors.StatementTooComplex)


@dataclass(frozen=True, slots=True)
class Batch:
    """A batch of the log, decoded: rows for both sinks, and the objects the fold needs."""

    epoch: str
    last_sequence: int
    letters: Sequence[DeadLetter]
    events: Sequence[CaseEvent]
    letter_frame: pl.DataFrame  # DEAD_LETTER_SCHEMA, row i is letters[i], redacted
    event_frame: pl.DataFrame  # CASE_EVENT_SCHEMA
    last_timestamp_ns: int
    payloads: Sequence[LogMessage] | None = None  # row i is letters[i]; None: not to be kept


class FailedEvents:
    """`failed_events` as its single writer sees it."""

    def __init__(self, connection: Connection[Any], stream: str, redrive_cap: int) -> None:
        self._connection = connection
        self._stream = stream
        self._cap = redrive_cap

    def store(self, batch: Batch, after: int) -> None:
        """Store what lies above sequence `after`, which must still be the checkpoint.

        Raises FencedError, having written nothing, where another drain has moved the checkpoint.
        """
        with self._connection.transaction():
            found = self._connection.execute(
                "SELECT epoch, last_sequence FROM drain_checkpoints WHERE stream = %s FOR UPDATE",
                [self._stream],
            ).fetchone()
            if found != (batch.epoch, after):
                raise FencedError(
                    f"Another drain moved the checkpoint of {self._stream} to {found}; it goes on,"
                    " this one stops."
                )
            self._apply(batch, after)
            self._connection.execute(
                "UPDATE drain_checkpoints SET last_sequence = %s, updated_at = now()"
                " WHERE stream = %s",
                [batch.last_sequence, self._stream],
            )
            self._connection.execute(
                "INSERT INTO drain_anchors (epoch, sequence, timestamp_ns) VALUES (%s, %s, %s)"
                " ON CONFLICT DO NOTHING",
                [batch.epoch, batch.last_sequence, batch.last_timestamp_ns],
            )

    def refold(self, batches: Sequence[Batch]) -> None:
        """Store these cases anew, from all that the lake holds of them: a batch for each epoch."""
        ids = [letter.failure_id for batch in batches for letter in batch.letters]
        with self._connection.transaction():
            self._connection.execute(  # raw payloads go with their row
                "CREATE TEMP TABLE kept_payloads ON COMMIT DROP AS"
                " SELECT * FROM failed_payloads WHERE failure_id = ANY(%s::uuid[])",
                [ids],
            )
            self._connection.execute("DELETE FROM failed_events WHERE id = ANY(%s::uuid[])", [ids])
            for batch in batches:
                self._apply(batch, 0)
            self._connection.execute("INSERT INTO failed_payloads SELECT * FROM kept_payloads")

    def show_life(self) -> None:
        """Say that this drain moves, though the batch is one that Postgres holds already."""
        self._connection.execute(
            "UPDATE drain_checkpoints SET updated_at = now() WHERE stream = %s", [self._stream]
        )

    def _apply(self, batch: Batch, after: int) -> None:
        letters = {
            letter.dlq_sequence: (row, letter)
            for row, letter in enumerate(batch.letters)
            if letter.dlq_sequence > after
        }
        events = {e.dlq_sequence: e for e in batch.events if e.dlq_sequence > after}
        known = self._load(
            {letter.failure_id for _, letter in letters.values()}
            | {letter.root_failure_id for _, letter in letters.values() if letter.root_failure_id}
            | {event.failure_id for event in events.values() if event.failure_id}
        )
        fold = _Fold(known, self._cap)
        for sequence in sorted([*letters, *events]):
            if sequence in letters:
                fold.dead_letter(*letters[sequence])
            else:
                fold.event(events[sequence])
        self._copy(batch.letter_frame, fold)
        if batch.payloads is not None:
            messages = [batch.payloads[row] for row in fold.new_rows]
            keep_payloads(self._connection, dict(zip(fold.new, messages, strict=True)))
        self._update(fold)
        self._settle_redrives(fold)

    def _load(self, ids: set[str]) -> dict[str, Case]:
        cursor = self._connection.execute(
            "SELECT id::text, status, original_stream, consumer_name, redrive_count,"
            " redrive_trigger, resolved_at, resolution_cause, resolution_notes, discarded_at,"
            " alert_sent, alert_sent_at, redrive_not_before"
            " FROM failed_events WHERE id = ANY(%s::uuid[])",
            [list(ids)],
        )
        return {
            row[0]: Case(row[0], row[1], consumer_address(row[2], row[3]), *row[4:])
            for row in cursor
        }

    def _copy(self, frame: pl.DataFrame, fold: "_Fold") -> None:
        cut = frame.select(
            pl.col(name).str.slice(0, TEXT_LIMITS[name]) if name in TEXT_LIMITS else pl.col(name)
            for name in _COPIED
        )
        rows = []
        for row, values in zip(fold.new.values(), cut[list(fold.new_rows)].rows(), strict=True):
            record = [uuid.UUID(values[0]), *values[1:]]
            for index in _JSON:
                if record[index] is not None:
                    record[index] = Jsonb(record[index], dumps=_as_it_is)
            root = uuid.UUID(row.root) if row.root else None
            rows.append([*record, root, row.seen_count, *_folded(row.case)])
        self._copy_rows(rows)

    def _copy_rows(self, rows: list[list[Any]]) -> None:
        """Copy rows; where PostgreSQL refuses some, find them by halves and keep them as notes."""
        if not rows:
            return
        target = ", ".join("id" if name == "failure_id" else name for name in _COLUMNS)
        try:
            with (
                self._connection.transaction(),
                self._connection.cursor() as cursor,
                cursor.copy(f"COPY failed_events ({target}) FROM STDIN (FORMAT BINARY)") as copy,
            ):
                copy.set_types(list(_COLUMNS.values()))
                for row in rows:
                    copy.write_row(row)
        except _REFUSALS as error:
            if len(rows) > 1:
                half = len(rows) // 2
                self._copy_rows(rows[:half])
                self._copy_rows(rows[half:])
            elif (note := _without_json(rows[0], error)) != rows[0]:
                self._copy_rows([note])
            else:
                raise

    def _update(self, fold: "_Fold") -> None:
        with self._connection.cursor() as cursor:
            assignments = ", ".join(f"{name} = %s" for name in _FOLDED)
            cursor.executemany(
                f"UPDATE failed_events SET {assignments} WHERE id = %s",  # noqa: S608
                [[*_folded(case), case.failure_id] for case in fold.changed()],
            )
            cursor.executemany(
                "UPDATE failed_events SET seen_count = seen_count + %s WHERE id = %s",
                [[count, failure_id] for failure_id, count in fold.repeats.items()],
            )

    def _settle_redrives(self, fold: "_Fold") -> None:
        """Write down in the outbox how its redrives ended; a late success corrects `unknown`."""
        with self._connection.cursor() as cursor:
            cursor.executemany(
                "UPDATE redrives SET state = %s, state_reason = %s, ended_at = %s WHERE id = %s"
                " AND state IN ('planned', 'published', 'outcome_unknown')",
                fold.redrive_ends,
            )


@dataclass(slots=True)
class _NewRow:
    """A row to be copied."""

    case: Case
    root: str | None
    seen_count: int = 1


class _Fold:
    """The batch's messages applied, in order, to the cases they are about."""

    def __init__(self, known: dict[str, Case], cap: int) -> None:
        self._known = known
        self._cases = dict(known)
        self._cap = cap
        self.new: dict[str, _NewRow] = {}
        self.new_rows: list[int] = []  # rows of the batch's frame, in the order of `new`
        self.repeats: dict[str, int] = {}  # failures stored earlier that came again
        self.redrive_ends: list[list[Any]] = []

    def dead_letter(self, row: int, letter: DeadLetter) -> None:
        if letter.failure_id in self.new:
            self.new[letter.failure_id].seen_count += 1
            return
        if letter.failure_id in self._cases:
            self.repeats[letter.failure_id] = self.repeats.get(letter.failure_id, 0) + 1
            return
        case, root_id = case_of(letter), letter.root_failure_id
        if root_id:
            is_superseded, root = apply_dead_letter(self._cases.get(root_id), letter, self._cap)
            if root is not None:
                self._put(root)
            if is_superseded:
                case = Case(letter.failure_id, "superseded", case.consumer)
                self.redrive_ends.append(
                    ["failed_again", letter.error_type, letter.published_at, letter.redrive_id]
                )
        self._cases[letter.failure_id] = case
        self.new[letter.failure_id] = _NewRow(case, root_id)
        self.new_rows.append(row)

    def event(self, event: CaseEvent) -> None:
        case = self._cases.get(event.failure_id or "")
        if case is None or event.parse_error:
            return
        self._put(apply_event(case, event, self._cap))
        topic, kind = event.kind.split(".")
        if topic != "redrive" or kind in ("requested", "published"):
            return
        if kind == "succeeded" and not is_answer(case, event):
            return
        self.redrive_ends.append([kind, event.reason, event.at, event.redrive_id])

    def changed(self) -> Iterable[Case]:
        """The cases stored earlier whose row is no longer true."""
        return [case for key, case in self._cases.items() if self._known.get(key, case) != case]

    def _put(self, case: Case) -> None:
        self._cases[case.failure_id] = case
        if case.failure_id in self.new:
            self.new[case.failure_id].case = case


def _folded(case: Case) -> list[Any]:
    return [
        case.status,
        case.redrive_count,
        case.trigger,
        case.resolved_at,
        case.resolution_cause,
        case.resolution_notes,
        case.discarded_at,
        case.alert_sent,
        case.alert_sent_at,
        case.redrive_not_before,
    ]


def _without_json(row: list[Any], error: psycopg.Error) -> list[Any]:
    """The row without what PostgreSQL can refuse, and with the reason."""
    names = list(_COLUMNS)
    data, reason = names.index("original_data"), names.index("parse_error")
    if row[data] == _REFUSED:
        return row
    kept = list(row)
    for index in _JSON:
        kept[index] = None
    kept[data] = _REFUSED
    text = f"PostgreSQL refused it: {clean_text(str(error)).splitlines()[0][:200]}"
    kept[reason] = "; ".join(filter(None, [row[reason], text]))
    return kept


def _as_it_is(text: str) -> str:
    """The JSON text of the batch, not a JSON string that holds it."""
    return text


_REFUSED = Jsonb('{"refused":"by PostgreSQL; the raw bytes are in the stream"}', dumps=_as_it_is)
