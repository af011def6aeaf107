"""What the report does not know: services without totals, gaps, undrained messages."""

from collections.abc import Mapping
from datetime import datetime

import polars as pl

from sahool_dlq.analysis.report.section import Section, seconds_as_text

__all__ = ["LOG_SQL", "unknowns", "verified"]

_VERIFIED_SECONDS = 2 * 86_400  # the schedule is nightly
_MOST_WRONG = 3  # findings shown in full

# Each message of the log is one row of the two tables, so a sequence that is in no fork of a
# stream's life and was not erased was lost before a drain could read it.
LOG_SQL = """
WITH log AS (
    SELECT
        REGEXP_REPLACE(epoch, '#[0-9]+$', '') AS life,
        dlq_sequence,
        published_at,
        parse_error IS NOT NULL AS is_unreadable
    FROM (
        SELECT epoch, dlq_sequence, published_at, parse_error FROM dead_letters
        UNION ALL
        SELECT epoch, dlq_sequence, published_at, parse_error FROM case_events
    ) AS messages
),

erased AS (
    SELECT DISTINCT e.life, e.dlq_sequence
    FROM erased_messages AS e
    ANTI JOIN log AS l ON l.life = e.life AND l.dlq_sequence = e.dlq_sequence
),

lives AS (
    SELECT
        life,
        MIN(dlq_sequence) AS first_sequence,
        MAX(dlq_sequence) AS last_sequence,
        COUNT(DISTINCT dlq_sequence) AS known_count,
        COUNT(*) FILTER (WHERE is_unreadable) AS unreadable_count,
        MAX(published_at) AS last_at
    FROM log
    GROUP BY life
),

counted AS (
    SELECT
        v.unreadable_count,
        v.last_at,
        v.last_sequence - v.first_sequence + 1 - v.known_count - (
            SELECT COUNT(*)
            FROM erased AS e
            WHERE
                e.life = v.life AND e.dlq_sequence BETWEEN v.first_sequence AND v.last_sequence
        ) AS missing_count
    FROM lives AS v
)

SELECT
    CAST(COALESCE(SUM(missing_count), 0) AS BIGINT) AS missing_count,
    CAST(COALESCE(SUM(unreadable_count), 0) AS BIGINT) AS unreadable_count,
    MAX(last_at) AS last_at
FROM counted
"""
"""The frame `log`, one row about the log's data in the lake."""


def unknowns(frames: Mapping[str, pl.DataFrame], now: datetime) -> Section:
    """The limits of the report as of `now`."""
    log, health = frames["log"].row(0, named=True), frames["service_health"]
    silent = ", ".join(health.filter(~pl.col("has_totals"))["service"].sort())
    untold = int(frames["redrive_outcomes"]["outcome_unknown_count"].sum())
    if log["last_at"] is None:
        found = {"everything": "The lake is empty: dlq drain fills it."}
    else:
        behind = seconds_as_text(max((now - log["last_at"]).total_seconds(), 0))
        found = {
            "what was not drained": f"The newest message here is {behind} old; what came later is"
            " not in the report."
        }
    if reason := _unverified(frames.get("verifications"), now):
        found["damage on disk"] = reason
    if silent:
        found["successes"] = f"No totals of {silent}: their failure rate is unknown."
    if count := log["missing_count"]:
        found["lost messages"] = (
            f"{count:,} messages of the log were gone before a drain could read them: dlq status"
            " lists the gaps."
        )
    if count := log["unreadable_count"]:
        found["unreadable messages"] = (
            f"{count:,} messages are no dead letters as we know them; they are kept, and grouped by"
            " what is wrong with them."
        )
    if untold:
        found["some redrives"] = (
            f"{untold:,} redrives ended in silence; they count neither as success nor as failure."
        )
    return Section("What this report cannot know", ("what", "why"), tuple(found.items()))


def _unverified(verifications: pl.DataFrame | None, now: datetime) -> str | None:
    if verifications is None:
        return "Postgres does not say when stream, lake and Postgres were last verified."
    if verifications.is_empty():
        return "Nobody has read the lake against its checksums yet: dlq verify does."
    age = (now - verifications["started_at"].item(0)).total_seconds()
    if age > _VERIFIED_SECONDS:
        return (
            f"The lake was last read against its checksums {seconds_as_text(age)} ago: see the runs"
            " of the flow verify."
        )
    return None


def verified(frame: pl.DataFrame) -> Section:
    rows = tuple(
        (
            row["started_at"],
            row["files"],
            f"{row['read_bytes'] / 1e6:,.1f} MB",
            seconds_as_text(row["seconds"]),
            row["wrong_count"],
            row["repaired_count"],
        )
        for row in frame.to_dicts()
    )
    wrong = frame["wrong"].item(0).to_list()
    unchecked = frame["unchecked_files"].item(0)
    note = (
        " ".join(wrong[:_MOST_WRONG]) + " dlq verify --repair mends it."
        if wrong
        else "Stream, lake and Postgres were the same, and no page of the lake was damaged."
    )
    if unchecked:
        note += f" {unchecked:,} files of an older version have no checksums."
    columns = ("verified", "files", "read", "took", "wrong", "repaired")
    return Section("Verification", columns, rows, note)
