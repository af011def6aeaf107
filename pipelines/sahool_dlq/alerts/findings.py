"""Current findings of the rules: each is one SELECT of `sql/alerts` with its thresholds.

Grafana and the exporter run the same text, so that all three agree.
"""

from dataclasses import dataclass
from datetime import datetime
from typing import Any

from psycopg import Connection, sql
from psycopg.rows import class_row

from sahool_dlq.alerts.rules import AlertRules, Rule, error_classes, sql_pattern
from sahool_dlq.sqlfiles import read_sql, sql_folder

__all__ = ["Finding", "find", "finding_sql"]


@dataclass(frozen=True, slots=True)
class Finding:
    """A value of a rule, above its threshold or not; docs/alerts.md has the columns."""

    scope: str  # the part of the rule
    subject: str  # a service, a stream, …; empty: everything
    value: float | None  # in the rule's unit; None: unknown
    above: float  # the threshold
    failure_count: int | None  # number of failures
    since: datetime | None  # when the problem began
    sample_id: str | None  # one of the failures
    detail: str | None  # details
    unmarked_ids: list[str] | None  # failures that no alert has contained yet, at most 500
    is_told: bool  # whether other alerts have contained all of them

    @property
    def is_above(self) -> bool:
        """Whether the rule's condition holds."""
        return self.value is not None and self.value > self.above


def find(connection: Connection[Any], rules: AlertRules, rule: Rule) -> list[Finding]:
    """The current findings of a rule."""
    with connection.cursor(row_factory=class_row(Finding)) as cursor:
        return cursor.execute(sql.SQL(finding_sql(rules, rule))).fetchall()


def finding_sql(rules: AlertRules, rule: Rule) -> str:
    """The statement of a rule, without parameters; one row per `Finding`."""
    scopes = [
        (
            *(place, scope.name),
            *map(sql_pattern, (scope.service, scope.tenant, scope.owner)),
            scope.above,
        )
        for place, scope in enumerate(rules.scopes(rule))
    ]
    settings = [(rule.window_minutes, rule.least_count, error_classes(rule))]
    return (
        "WITH scopes (position, scope, service, tenant, owner, above) AS (\n"
        f"VALUES {_rows(scopes, 'int', 'text', 'text', 'text', 'text', 'float8')}\n),\n"
        "settings (window_minutes, least_count, error_types) AS (\n"
        f"VALUES {_rows(settings, 'float8', 'int', 'text[]')}\n),\n"
        f"clock AS MATERIALIZED (\n{_bare('alerts/clock.sql')}),\n"
        f"scoped_failures AS NOT MATERIALIZED (\n{_bare('alerts/scoped_failures.sql')})"
        f"{_found(rule)} AS found\n"
        "ORDER BY value DESC NULLS LAST, scope, subject\n"
    )


def _found(rule: Rule) -> str:
    """The rule's own part; a file in `failures/` only selects failures to count."""
    failures = f"alerts/failures/{rule.name}.sql"
    if (sql_folder() / failures).is_file():
        counted = _bare("alerts/counted_failures.sql")
        return f",\nheld AS (\n{_bare(failures)})\nSELECT * FROM (\n{counted})"
    return f"\nSELECT * FROM (\n{_bare(f'alerts/{rule.name}.sql')})"


def _bare(file: str) -> str:
    """A SQL file without its comments, so that a panel contains only the statement."""
    lines = read_sql(file).splitlines(keepends=True)
    return "".join(line for line in lines if not line.lstrip().startswith("--"))


def _rows(rows: list[Any], *types: str) -> str:
    return ", ".join(
        "("
        + ", ".join(
            f"{sql.Literal(value).as_string(None)}::{kind}"
            for value, kind in zip(row, types, strict=True)
        )
        + ")"
        for row in rows
    )
