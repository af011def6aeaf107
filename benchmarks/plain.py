"""What a mart is compared with: a plain GROUP BY of the lake's rows that reads the same columns."""

import time
from datetime import datetime

from sahool_dlq.stores.lake.lake import Lake
from sahool_dlq.stores.lake.sql import connect

_MINUTE = "DATE_TRUNC('minute', dlq_timestamp)"
_HOUR = "DATE_TRUNC('hour', dlq_timestamp)"

FACTS = {
    "cases (shared)": (
        "memory",  # its types, memory.main.…
        *("chains", "families", "family_edges", "dead_letters", "case_events", "epochs", "reach"),
        *("openings", "case_log", "cases"),
    ),
    "redrives (shared)": ("redrives",),
}
"""What the marts by day are counted from, and the relations that are made for it."""

GROUPS = {
    "cases (shared)": [
        (
            "dead_letters",
            ("failure_id",),
            (
                "epoch dlq_sequence published_at root_failure_id redrive_attempt event_type"
                " group_id original_stream original_sequence service consumer_name tenant_id"
                " error_class first_attempt_at dlq_timestamp parent_id template frames dlq_date"
            ),
        ),
        (
            "case_events",
            ("failure_id",),
            (
                "epoch dlq_sequence kind attempt trigger consumer not_before redrive_cap at"
                " parse_error"
            ),
        ),
    ],
    "redrives (shared)": [
        ("case_events", ("failure_id", "attempt"), "dlq_sequence kind trigger consumer at"),
    ],
    "failures_minutely": [
        ("dead_letters", ("dlq_date", _MINUTE, "service", "error_class", "group_id"), "")
    ],
    "cases_daily": [
        (
            "dead_letters",
            ("dlq_date", "group_id", "service", "consumer_name", "error_class"),
            "failure_id dlq_sequence dlq_timestamp first_attempt_at parent_id template frames",
        )
    ],
    "statuses_daily": [
        (
            "dead_letters",
            ("dlq_date", "group_id", "service", "consumer_name", "error_class"),
            "dlq_timestamp",
        )
    ],
    "tenants_daily": [
        ("dead_letters", ("dlq_date", "tenant_id", "group_id", "service", "error_class"), "")
    ],
    "durations_daily": [
        (
            "dead_letters",
            ("dlq_date", "error_class", "service", "tenant_id", "group_id", _MINUTE),
            "",
        )
    ],
    "redrives_daily": [
        ("case_events", ("dlq_date", "kind", "DATE_TRUNC('minute', \"at\")"), "attempt trigger")
    ],
    "redriven_in_vain_daily": [("case_events", ("failure_id",), "kind attempt")],
    "versions_daily": [
        ("dead_letters", ("dlq_date", "service", "group_id", "consumer_version"), "dlq_timestamp")
    ],
    "fixes_daily": [("case_events", ("dlq_date", "kind", "resolved_in_version"), "at")],
    "fixes": [("case_events", ("kind", "resolved_in_version"), "at")],
    "deploys": [("dead_letters", ("service", "group_id", "consumer_version"), "dlq_timestamp")],
    "spikes": [("dead_letters", ("service", "error_class", "group_id"), "dlq_timestamp")],
    "failures_hourly": [("dead_letters", (_HOUR, "service", "error_class"), "group_id")],
    "failures_by_type": [
        ("dead_letters", ("error_class", "service"), "group_id tenant_id dlq_timestamp")
    ],
    "failure_groups": [
        (
            "dead_letters",
            ("group_id",),
            (
                "failure_id parent_id error_class template frames dlq_timestamp first_attempt_at"
                " service consumer_name tenant_id"
            ),
        )
    ],
    "outbreaks": [("dead_letters", ("group_id", _MINUTE), "")],
    "incidents": [("dead_letters", ("group_id", "tenant_id", _MINUTE), "")],
    "pending_transient": [
        (
            "dead_letters",
            ("group_id", "consumer_name", "service", "error_class"),
            "dlq_timestamp",
        )
    ],
    "redrive_outcomes": [("case_events", ("kind", "trigger"), "attempt")],
    "resolution_times": [
        ("dead_letters", ("error_class", "service", "tenant_id", "group_id"), "dlq_timestamp")
    ],
    "resolution_curves": [
        ("dead_letters", ("error_class", "service", "tenant_id", "group_id"), "dlq_timestamp")
    ],
    "service_traffic_hourly": [
        (
            "service_totals",
            ("DATE_TRUNC('hour', published_at)", "service"),
            "handled succeeded retried dead_lettered skipped started_at consumer",
        )
    ],
    "service_health": [
        ("dead_letters", ("service",), "dlq_timestamp error_class"),
        (
            "service_totals",
            ("service",),
            "published_at handled succeeded dead_lettered started_at consumer",
        ),
    ],
    "hour_of_week": [("dead_letters", ("service", _HOUR), "")],
    "co_failures": [("dead_letters", ("service", _MINUTE), "")],
    "contributors": [
        (
            "dead_letters of a week",
            ("group_id",),
            (
                "failure_id published_at dlq_sequence dlq_timestamp original_data tenant_id service"
                " event_type consumer_version field_id root_failure_id"
            ),
        )
    ],
    "poison_tenants": [
        ("dead_letters of a week", ("tenant_id", "group_id"), "service error_class")
    ],
    "poison_messages": [
        (
            "dead_letters of a week",
            ("original_stream", "original_sequence"),
            (
                "consumer_name failure_id group_id error_class event_type tenant_id published_at"
                " root_failure_id"
            ),
        )
    ],
    "poison_consumers": [
        (
            "dead_letters of a week",
            ("original_stream", "consumer_name", "group_id"),
            (
                "original_sequence service consumer_version error_class tenant_id event_type"
                " dlq_timestamp root_failure_id"
            ),
        )
    ],
    "metrics": [("dead_letters", ("error_class",), "dlq_timestamp")],
}
"""By mart: tables, what their rows are grouped by, and the other columns that have to be read."""


def plain_seconds(lake: Lake, now: datetime) -> dict[str, float]:
    """CPU seconds, of all threads, of each plain GROUP BY."""
    found = {}
    with connect(lake) as connection:
        for name, groups in GROUPS.items():
            before = time.process_time()
            for table, keys, columns in groups:
                table, _, is_week = table.partition(" of a week")
                days = f"WHERE dlq_date > DATE '{now.date()}' - 7" if is_week else ""
                others = ", ".join(f'"{column}"' for column in columns.split())
                read = [f"MAX(HASH({others}))"] if others else []  # so that they are read
                connection.execute(
                    f"SELECT {', '.join([*keys, 'COUNT(*)', *read])} FROM {table} {days}"  # noqa: S608  (our own names, bound values)
                    f" GROUP BY {', '.join(keys)} OFFSET {1 << 62}"  # all is computed, none fetched
                )
            found[name] = time.process_time() - before
    return found
