"""The checks after the demo: nothing lost, nothing doubled, all sinks equal."""

import json
from collections import Counter
from dataclasses import dataclass
from typing import Any

import polars as pl
from psycopg import Connection

from sahool_dlq.demo.traffic import PLANTED_SECRETS
from sahool_dlq.jetstream.reader import LogState
from sahool_dlq.stores.lake.lake import Lake


@dataclass(frozen=True, slots=True)
class Check:
    """One invariant, and its result."""

    name: str
    is_met: bool
    found: str


def check_all(
    published: set[str],
    succeeded: int,
    log: LogState,
    lake: Lake,
    lake_cases: pl.DataFrame,
    connection: Connection[Any],
) -> list[Check]:
    """Every invariant; `succeeded` is the consumers' count, including redrives."""
    letters, events = lake.read("dead_letters"), lake.read("case_events")
    rows = connection.execute(
        "SELECT event_id, status, root_failure_id IS NULL, original_data::text || error_message"
        " || coalesce(stack_trace, '') || original_headers::text FROM failed_events"
    ).fetchall()
    roots = [row for row in rows if row[2]]
    statuses = Counter(row[1] for row in roots)
    return [
        _every_event(published, succeeded, [row[0] for row in roots], statuses),
        _stream_is_lake(log, letters, events),
        Check(
            "lake = Postgres: each failure is one row in both",
            letters["failure_id"].n_unique() == len(rows),
            f"{letters['failure_id'].n_unique():,} failures in the lake, {len(rows):,} rows",
        ),
        _same_status(lake_cases, statuses),
        _no_secret(letters, rows),
        _are_cured(
            connection,
            "the transient failures were cured by redrive",
            ("TimeoutError", "ConnectionRefusedError"),
        ),
        _are_cured(
            connection, "the new version cured the failures of its bug", ("ZeroDivisionError",)
        ),
    ]


def _every_event(
    published: set[str], succeeded: int, failed: list[str], statuses: Counter[str]
) -> Check:
    """A redriven success is also counted by its consumer, so open and closed cases must add up."""
    unresolved = len(failed) - statuses["resolved"]
    is_met = (
        succeeded + unresolved == len(published)
        and len(set(failed)) == len(failed)
        and set(failed) <= published
    )
    return Check(
        "every published event is accounted for",
        is_met,
        f"{len(published):,} published = {succeeded:,} succeeded + {unresolved:,} still failed;"
        f" {statuses['resolved']:,} of the successes after a redrive",
    )


def _stream_is_lake(log: LogState, letters: pl.DataFrame, events: pl.DataFrame) -> Check:
    sequences = Counter([*letters["dlq_sequence"], *events["dlq_sequence"]])
    expected = set(range(log.first_sequence, log.last_sequence + 1))
    is_met = set(sequences) == expected and max(sequences.values(), default=0) == 1
    return Check(
        "stream = lake: each message is one row",
        is_met and log.message_count == len(sequences),
        f"{log.message_count:,} messages, {letters.height:,} dead letters + {events.height:,}"
        " case events",
    )


def _same_status(lake_cases: pl.DataFrame, statuses: Counter[str]) -> Check:
    in_lake = Counter(dict(lake_cases.group_by("status").len().iter_rows()))
    return Check(
        "lake = Postgres: the same cases in the same status",
        in_lake == statuses,
        ", ".join(f"{count:,} {status}" for status, count in statuses.most_common()),
    )


def _no_secret(letters: pl.DataFrame, rows: list[tuple[Any, ...]]) -> Check:
    texts = [row[3] for row in rows]
    texts += [json.dumps(row, default=str) for row in letters.iter_rows()]
    leaks = sum(secret in text for secret in PLANTED_SECRETS for text in texts)
    return Check(
        "no planted secret in either sink", leaks == 0, f"{leaks} found in {len(texts):,} rows"
    )


def _are_cured(connection: Connection[Any], name: str, error_types: tuple[str, ...]) -> Check:
    row = connection.execute(
        "SELECT count(*) FILTER (WHERE status = 'resolved' AND resolution_cause ="
        " 'automatic_redrive'), count(*) FROM failed_events WHERE root_failure_id IS NULL"
        " AND error_type = ANY(%s)",
        [list(error_types)],
    ).fetchone()
    assert row is not None
    return Check(name, row[0] == row[1] > 0, f"{row[0]:,} of {row[1]:,} resolved")
